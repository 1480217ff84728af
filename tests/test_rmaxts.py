"""The search over unfinished proofs: its bandit by hand, its tree against Lean."""

from __future__ import annotations

import math
import random

import pytest
import torch

import deepseek_mini as dm
from deepseek_mini.posttraining.prover import (
    END,
    IDS,
    fine_tune,
    prompt_ids,
    proof_ids,
    prover_config,
    read_steps,
    reinforce,
    training_rows,
    whole_prefix,
    write_proofs,
)
from deepseek_mini.posttraining.rmaxts import Arm, independent, rmaxts, scores
from deepseek_mini.posttraining.theorems import Theorem, prove

SWAP = ("→", ("And", "a", "b"), ("And", "b", "a"))
EITHER = ("→", ("Or", "a", "b"), ("Or", "b", "a"))


def theorem(formula):
    return Theorem(formula, prove(formula))


def test_discounted_scores_by_hand():
    """V1.5's W and N: a reward t rounds ago counts γ^t, and so does a choice."""
    arm = Arm()
    for reward in (1.0, 0.0, 1.0):
        arm.update(reward, 0.5)
    assert arm.reward == 0.25 + 0 + 1 and arm.count == 0.25 + 0.5 + 1
    other = Arm(0.5, 2.0)
    total = math.log(arm.count + other.count)
    assert scores([arm, other, Arm()]) == pytest.approx(
        [1.25 / 1.75 + math.sqrt(2 * total / 1.75), 0.25 + math.sqrt(total), math.inf]
    )


@pytest.mark.lean
def test_what_is_right_before_the_first_error_becomes_nodes():
    texts = iter(
        [
            ["intro", "parts h0", "split", "exact h1"],  # the last step is wrong
            ["intro", "parts h0", "split", "exact h2", "exact h1"],
        ]
    )
    search = rmaxts([theorem(SWAP)], lambda asked: [next(texts)], budget=1)[0]
    assert search.proof is None and search.n_nodes == 4
    node, depth = search.root, 0
    while node.children:
        (node,), depth = node.children, depth + 1
        assert node.steps == ("intro", "parts h0", "split")[:depth]
    # Written once more from the root: known states bring nothing, the proof does.
    path = [search.root]
    steps = next(texts)
    from deepseek_mini.posttraining.lean import judge
    from deepseek_mini.posttraining.proofs import lean_term

    terms = [lean_term(steps[: i + 1]) for i in range(5)]
    search.update(path, steps, judge([(theorem(SWAP).statement, t) for t in terms]))
    assert search.proof == tuple(steps)
    assert search.root.expand.count == 1.99 and search.root.expand.reward == 1.99


@pytest.mark.lean
def test_a_sample_that_adds_nothing_earns_nothing():
    write = lambda asked: [["intro"] for _ in asked]  # noqa: E731
    search = rmaxts([theorem(SWAP)], write, budget=3)[0]
    assert search.samples == 3 and search.n_nodes == 2
    rewards = search.root.expand.reward + search.root.children[0].arm.reward
    assert 0 < rewards < 2 and search.proof is None


@pytest.mark.lean
def test_the_search_goes_on_from_what_was_right():
    """A writer of two random steps at a time never writes a proof of five at once."""
    draw = random.Random(0)
    words = ["intro", "split", "parts h0", "exact h1", "exact h2"]
    goal = theorem(SWAP)

    def write(asked):
        texts = [draw.choices(words, k=2) for _ in asked]
        return [whole_prefix([*s, *t])[len(s) :] for (_, s), t in zip(asked, texts)]

    assert rmaxts([goal], write, budget=60)[0].proof
    assert independent([goal], write, 15) == [None]


def test_words_and_steps_come_back():
    swap = theorem(SWAP)
    ids = proof_ids(swap, swap.proof)
    assert ids[: len(prompt_ids(swap))] == prompt_ids(swap) and ids[-1] == END
    assert read_steps(ids[len(prompt_ids(swap)) :]) == list(swap.proof)
    spelled = [IDS[w] for w in ("intro", ";", "exact", ";", "intro", ";")]
    assert read_steps(spelled) == ["intro"]  # a step without its name ends the proof
    assert whole_prefix(["intro", "exact h0", "exact h0"]) == ["intro", "exact h0"]


def test_the_loss_is_on_the_proof_alone():
    pairs = [(t, t.proof) for t in (theorem(SWAP), theorem(("→", "a", "a")))]
    tokens, targets = training_rows(pairs)
    for row, (goal, steps) in enumerate(pairs):
        learnt = targets[row][targets[row] != -100].tolist()
        assert learnt == proof_ids(goal, steps)[len(prompt_ids(goal)) :]
        first = (targets[row] != -100).nonzero()[0, 0]
        assert tokens[row, : first + 1].tolist() == prompt_ids(goal)


def test_a_model_learns_proofs_by_sft():
    torch.manual_seed(0)
    model = dm.Transformer(prover_config(dim=32, n_layers=1))
    goals = [theorem(f) for f in (SWAP, EITHER, ("→", "a", "a"))]
    fine_tune(model, [(t, t.proof) for t in goals], 120, rows=3, lr=1e-2)
    written = write_proofs(model, [(t, ()) for t in goals], temperature=0.0)
    assert written == [list(t.proof) for t in goals]


@pytest.mark.lean
def test_verdicts_alone_make_right_proofs_likelier():
    """RLPAF from a model that is often wrong; the reference holds it nowhere."""
    torch.manual_seed(0)
    model = dm.Transformer(prover_config(dim=32, n_layers=1))
    goal, other = theorem(("→", "a", ("→", "b", "a"))), ("intro", "intro", "exact h1")
    fine_tune(model, [(goal, goal.proof), (goal, other)], 120, rows=2, lr=1e-2)
    adam, known = torch.optim.AdamW(model.parameters(), 6e-3), {}
    rows = [
        reinforce(model, adam, [goal] * 2, known, 8, beta=0.0, seed=i)
        for i in range(14)
    ]
    assert 0.2 < rows[0]["reward"] < 0.8 and rows[0]["mixed"] == 1
    assert sum(row["reward"] for row in rows[-4:]) > 4 * 0.85


def test_a_model_writes_steps_that_fit():
    torch.manual_seed(0)
    model = dm.Transformer(prover_config(dim=32, n_layers=1))
    goals = [(theorem(SWAP), ()), (theorem(EITHER), ("intro", "cases h0"))]
    for seed in range(3):
        for (_, steps), new in zip(goals, write_proofs(model, goals, seed=seed)):
            assert whole_prefix([*steps, *new]) == [*steps, *new]
