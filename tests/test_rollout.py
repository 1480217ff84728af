"""Rollouts: what is sampled, what is masked, and whose probabilities are kept."""

import math

import pytest
import torch
from helpers import error, small_model, sparse_model

from deepseek_mini.generate import left_pad
from deepseek_mini.model.moe import recording
from deepseek_mini.posttraining.chars import (
    END,
    END_ID,
    VOCABULARY,
    ask,
    decode,
    encode,
)
from deepseek_mini.posttraining.distill import right_chains
from deepseek_mini.posttraining.grpo import Objective, group_advantages, improve
from deepseek_mini.posttraining.r1 import (
    CHECKPOINTS,
    Recipe,
    base_model,
    examine,
    judge,
    pass_at_k,
    reinforce,
    student_model,
)
from deepseek_mini.posttraining.rewards import extract_answer
from deepseek_mini.posttraining.rollout import (
    Rollout,
    fixed_experts,
    sample_groups,
    token_logps,
)
from deepseek_mini.posttraining.tasks import Chain, held_out, problems

PROMPTS = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]


def rollout_of(model, **changes):
    settings = {"group": 4, "max_new_tokens": 12, "stop": 3, "seed": 0} | changes
    return sample_groups(model, PROMPTS, **settings)


def test_answers_of_a_group_are_neighbours_and_end_at_their_first_stop():
    model = small_model()
    rollout = rollout_of(model, temperature=3.0)  # stops soon enough
    padded, _ = left_pad([p for p in PROMPTS for _ in range(4)], pad_id=3)
    assert rollout.tokens[:, :4].equal(padded)
    assert rollout.pad[:, :4].equal(padded == 3)
    assert not rollout.pad[:, 4:].any()
    new = rollout.tokens[:, 4:]
    for row, mask, ended, answer in zip(
        new.tolist(), rollout.mask.tolist(), rollout.ended, rollout.answers()
    ):
        n = row.index(3) + 1 if 3 in row else len(row)
        assert mask == [i < n for i in range(len(row))]
        assert bool(ended) == (3 in row)
        assert answer == row[: n - 1 if ended else n]
    assert 0 < rollout.ended.sum() < 12


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.9])
def test_logps_are_those_of_every_text_alone_at_its_temperature(temperature):
    """Row by row, without padding, cache or groups."""
    model = small_model()
    rollout = rollout_of(model, temperature=temperature)
    for i, answer in enumerate(rollout.answers()):
        prompt = PROMPTS[i // 4]
        answer = answer + [3] * int(rollout.ended[i])
        text = torch.tensor([prompt + answer])
        with torch.no_grad():
            probs = (model(text)[0] / temperature).softmax(-1)
        expected = [
            math.log(probs[len(prompt) - 1 + t, token])
            for t, token in enumerate(answer)
        ]
        ours = rollout.logps[i][rollout.mask[i]]
        assert error(ours, torch.tensor(expected)) < 1e-5


def test_tokens_are_drawn_as_often_as_their_logps_say():
    model = small_model()
    rollout = sample_groups(model, [PROMPTS[0]], 4000, 1, 3, seed=1)
    counts = rollout.tokens[:, -1].bincount(minlength=61) / 4000
    with torch.no_grad():
        probs = model(torch.tensor([PROMPTS[0]]))[0, -1].softmax(-1)
    assert (counts - probs).abs().max() < 0.03
    assert rollout.pad is None


def test_the_first_ratio_is_one_and_other_weights_give_another():
    model, other = small_model(), small_model(seed=1)
    rollout = rollout_of(model)
    assert error(rollout.logps_under(model), rollout.logps) < 1e-6
    apart = (rollout.logps_under(other) - rollout.logps)[rollout.mask].abs()
    assert apart.max() > 0.1
    assert not rollout.logps.requires_grad
    assert rollout.logps_under(model).requires_grad


def test_the_same_seed_samples_the_same():
    model = small_model()
    assert rollout_of(model).tokens.equal(rollout_of(model).tokens)
    assert not rollout_of(model).tokens.equal(rollout_of(model, seed=1).tokens)


def test_rows_are_a_minibatch():
    model = small_model()
    rollout = rollout_of(model, top_p=0.9)
    index = torch.tensor([7, 2])
    part = rollout.rows(index)
    assert part.answers() == [rollout.answers()[7], rollout.answers()[2]]
    assert error(part.logps_under(model), rollout.logps[index]) < 1e-6


def test_keep_sampling_counts_only_what_the_filters_left():
    """V3.2, §3.1: without it a later policy is compared on another set of tokens."""
    model, other = small_model(), small_model(seed=1)
    rollout = rollout_of(model, top_p=0.6)
    chosen = rollout.tokens[:, 4:, None]
    assert rollout.allowed.gather(-1, chosen)[rollout.mask].all()
    assert rollout.allowed.float().mean() < 0.9
    kept = rollout.logps_under(other)
    whole = rollout.logps_under(other, keep_sampling=False)
    assert (kept >= whole - 1e-6)[rollout.mask].all()
    assert (kept - whole)[rollout.mask].max() > 0.1
    assert error(rollout.logps_under(model), rollout.logps) < 1e-6
    only = (rollout.logps_under(model, keep_sampling=False) - rollout.logps).abs()
    assert only[rollout.mask].max() > 0.1  # a ratio that is not 1 before any update


def test_token_logps_by_hand():
    logits = torch.tensor([[[0.0, math.log(3.0), 5.0]]])
    allowed = torch.tensor([[[True, True, False]]])
    chosen = torch.tensor([[1]])
    assert abs(token_logps(logits, chosen, 1.0, allowed) - math.log(3 / 4)) < 1e-6
    half = token_logps(logits, chosen, 0.5, allowed)
    assert abs(half - math.log(9 / 10)) < 1e-6
    assert token_logps(logits.bfloat16(), chosen).dtype == torch.float32


@pytest.mark.parametrize("family", ["moe", "v2", "v3"])
def test_keep_routing_uses_the_experts_of_the_sampling_policy(family):
    model, other = sparse_model(family, mtp=None), sparse_model(family, 1, mtp=None)
    rollout = rollout_of(model)
    assert [tuple(e.shape) for e in rollout.experts] == [(12, 15, 3)] * 2
    kept = rollout.logps_under(model, keep_routing=True)
    assert error(kept, rollout.logps) < 1e-5  # the same experts with the same weights
    with recording() as free:
        rollout.logps_under(other)
    with recording() as fixed, fixed_experts(other, rollout.experts):
        rollout.logps_under(other)
    # `recording` hears of a gate's choice after the hooks, so of what is used.
    for layer in range(2):
        used = rollout.experts[layer].flatten(0, 1)
        assert fixed[layer].chosen.equal(used)
        assert not free[layer].chosen.sort(-1)[0].equal(used.sort(-1)[0])
        weights = fixed[layer].scores.gather(1, used)  # as the other gate sees them
        part = other.config.moe
        if part.norm_topk:
            weights = weights / weights.sum(-1, keepdim=True)
        assert error(fixed[layer].weights, weights * part.route_scale) < 1e-5
    other_kept = rollout.logps_under(other, keep_routing=True)
    assert error(other_kept, rollout.logps_under(other)) > 1e-3
    again = rollout.logps_under(model)
    assert error(again, rollout.logps) < 1e-6  # the hooks are gone


def test_errors_of_sampling():
    model = small_model()
    with pytest.raises(ValueError, match="group is 0 and temperature"):
        rollout_of(model, group=0)
    with pytest.raises(ValueError, match="temperature 0, but there must be"):
        rollout_of(model, temperature=0)


# --- The inner loop


def improved(rollout, advantages, seed=0, **settings):
    model = small_model(seed)
    sgd = torch.optim.SGD(model.parameters(), lr=settings.pop("lr", 0.1))
    return model, improve(model, sgd, rollout, advantages, **settings)


def test_an_update_makes_the_better_answers_likelier():
    rollout = rollout_of(small_model())
    g = torch.Generator().manual_seed(0)
    rewards = torch.randint(0, 2, (3, 4), generator=g).float()
    advantages = group_advantages(rewards).flatten()[:, None]
    model, report = improved(rollout, advantages, objective=Objective(beta=0))
    with torch.no_grad():
        change = (rollout.logps_under(model) - rollout.logps).where(rollout.mask, 0)
    change = change.sum(1, keepdim=True)
    assert (change * advantages).sum() > 0.01
    assert abs(report["ratio_max"] - 1) < 1e-4
    assert report["clipped"] == 0
    assert math.isnan(report["kl"])


def test_later_updates_move_away_and_are_clipped():
    rollout = rollout_of(small_model())
    advantages = torch.tensor([1.0, -1, -1, 1] * 3)[:, None]
    objective = Objective(beta=0)
    reports = [
        improved(rollout, advantages, objective=objective, updates=n, lr=1.0)[1]
        for n in (1, 6)
    ]
    assert reports[1]["ratio_max"] > 1.3
    assert reports[1]["clipped"] > 0.05 > reports[0]["clipped"]


def test_minibatches_go_over_every_answer_once():
    """With a linear objective and tiny steps, pieces add up to the whole."""
    rollout = rollout_of(small_model())
    advantages = torch.tensor([1.0, -1, -1, 1] * 3)[:, None]
    moves = []
    for pieces in (1, 4):
        generator = torch.Generator().manual_seed(0)
        model, _ = improved(
            rollout,
            advantages,
            objective=Objective(beta=0, clip_low=math.inf, clip_high=math.inf),
            minibatches=pieces,
            generator=generator,
            lr=1e-3 / pieces,
            max_norm=math.inf,
        )
        start = small_model().embed.weight
        moves.append((model.embed.weight - start).detach() * 1e4)
    assert error(*moves) < 0.02
    with pytest.raises(ValueError, match="minibatches is 13, but 12 answers make"):
        improved(rollout, advantages, minibatches=13)


def test_the_reference_holds_the_policy_back():
    rollout = rollout_of(small_model())
    nothing = torch.zeros(12, 1)
    reference = small_model(seed=1)
    objective = Objective(beta=1.0)
    settings = {"objective": objective, "reference": reference, "updates": 20}
    model, report = improved(rollout, nothing, **settings)
    apart = [
        (rollout.logps_under(m) - rollout.logps_under(reference))[rollout.mask]
        .detach()
        .square()
        .mean()
        for m in (small_model(), model)
    ]
    assert report["kl"] > 0
    assert apart[1] < 0.8 * apart[0]
    with pytest.raises(ValueError, match="there are no ref_logps"):
        improved(rollout, nothing, objective=objective)


# --- The outer loop and what is measured


def test_characters_there_and_back():
    text = "<think>17+5=22; so</think><answer>22</answer>" + END
    assert decode(encode(text)) == text
    assert encode(text)[0] == VOCABULARY.index("<think>")
    assert encode(END) == [END_ID]
    assert decode(ask("1+1")) == "<｜User｜>1+1<｜Assistant｜>"
    assert len(set(VOCABULARY)) == len(VOCABULARY)
    with pytest.raises(ValueError, match="'A' is not in the vocabulary"):
        encode("A")


def test_pass_at_k():
    """Two of four right: of the six pairs one holds none of them."""
    assert pass_at_k(4, 2, 1) == 0.5
    assert abs(pass_at_k(4, 2, 2) - 5 / 6) < 1e-12
    assert pass_at_k(4, 2, 3) == 1.0
    assert pass_at_k(4, 0, 4) == 0.0
    with pytest.raises(ValueError, match="k is 5, but of 4 answers it must be from 1"):
        pass_at_k(4, 2, 5)


def spoken(*texts: str, ended: bool = True) -> Rollout:
    """A rollout whose answers are these texts."""
    answers = [[*encode(text), END_ID] if ended else encode(text) for text in texts]
    lengths = torch.tensor([len(answer) for answer in answers])
    width = int(lengths.max())
    new = torch.tensor([row + [END_ID] * (width - len(row)) for row in answers])
    tokens = torch.cat((torch.ones(len(texts), 2, dtype=torch.int64), new), dim=1)
    mask = torch.arange(width) < lengths[:, None]
    ends = torch.full((len(texts),), ended)
    return Rollout(tokens, None, mask, ends, torch.zeros(mask.shape))


def written(answer) -> str:
    return f"<think>?</think><answer>{answer}</answer>"


def test_examine_counts_what_it_says(monkeypatch):
    task = Chain()
    one, two = problems(task, 2, 0)
    wrong = int(one.answer) + 1
    parrot = spoken(
        written(wrong), written(one.answer), "?", written(one.answer),
        f"<answer>{two.answer}</answer>", "?", written(wrong + 90), "?",
    )  # fmt: skip
    monkeypatch.setattr(
        "deepseek_mini.posttraining.r1.sample_groups", lambda *a, **k: parrot
    )
    report = examine(small_model(), task, [one, two], samples=4, ks=(1, 4))
    assert report["pass@1"] == (2 / 4 + 1 / 4) / 2
    assert report["pass@4"] == 1.0
    assert report["majority"] == 1.0  # two of three votes, and the first of two
    assert report["format"] == 4 / 8
    assert report["right_in_format"] == 2 / 4


def test_what_has_no_end_earns_nothing():
    task = Chain()
    (problem,) = problems(task, 1, 0)
    text = written(problem.answer)
    whole = judge(spoken(text), [problem], task)
    cut = judge(spoken(text, ended=False), [problem], task)
    assert whole == [{"accuracy": 1.0, "format": 1.0}]
    assert cut == [{"accuracy": 0.0, "format": 0.0}]


def test_right_chains_are_right_different_and_trained_from_the_answer_on(monkeypatch):
    task = Chain()
    one, two = problems(task, 2, 0)
    good, other = written(one.answer), f"<think></think><answer>{one.answer}</answer>"
    parrot = spoken(
        good, good, other, one.answer,
        written(one.answer), written("99999"), written(two.answer), "?",
    )  # fmt: skip
    seen = []

    def sample(model, prompts, *args, **options):
        seen.append((len(prompts), options["seed"]))
        return parrot if len(prompts) == 2 else parrot.rows(torch.arange(4))

    monkeypatch.setattr("deepseek_mini.posttraining.distill.sample_groups", sample)

    def chains(**options):
        return right_chains(small_model(), task, [one, two], samples=4, **options)

    texts = [decode(chat.ids) for chat in chains(keep=8)]
    asked = [decode(ask(problem.question)) for problem in (one, two)]
    second = asked[1] + written(two.answer) + END
    assert texts == [asked[0] + good + END, asked[0] + other + END, second]
    for chat in chains(keep=8):
        start = chat.trained.index(True)
        assert decode(chat.ids[:start]) in asked and all(chat.trained[start:])
    kept = [decode(chat.ids) for chat in chains(keep=1)]
    assert kept == [texts[0], second]
    with pytest.raises(ValueError, match="samples is 4 and keep 0"):
        chains(keep=0)
    seen.clear()
    chains(rows=4, seed=5)  # a problem at a time, each with a seed of its own
    assert seen == [(1, 5), (1, 6)]


def test_what_has_no_end_is_no_right_chain(monkeypatch):
    (problem,) = problems(Chain(), 1, 0)
    cut = spoken(written(problem.answer), ended=False)
    monkeypatch.setattr(
        "deepseek_mini.posttraining.distill.sample_groups", lambda *a, **k: cut
    )
    assert right_chains(small_model(), Chain(), [problem], samples=1) == []


def test_the_shipped_student_is_a_third_of_the_base_and_knows_less():
    task, drawn = Chain(3), problems(Chain(3), 64, 0, "test")
    student, base = student_model(), base_model()
    sizes = [sum(p.numel() for p in m.parameters()) for m in (student, base)]
    assert 0.3 < sizes[0] / sizes[1] < 0.36
    options = {"samples": 8, "ks": (1, 8), "max_new_tokens": 40}
    able = [examine(model, task, drawn, **options) for model in (student, base)]
    assert 0.03 < able[0]["pass@1"] < able[1]["pass@1"]
    assert able[0]["pass@8"] < able[1]["pass@8"]


def test_the_shipped_base_knows_more_than_it_shows():
    """It seldom answers right, but mostly where its answer begins with work."""
    task, model = Chain(3), base_model()
    assert model.config.vocab_size == len(VOCABULARY)
    base = CHECKPOINTS / "r1-base"
    assert sum(file.stat().st_size for file in base.iterdir()) < 5e6
    drawn = problems(task, 32, 0, "test")
    alone = examine(model, task, drawn, samples=4, ks=(1, 4), max_new_tokens=40)
    assert 0.03 < alone["pass@1"] < 0.3
    assert alone["pass@4"] > alone["pass@1"] + 0.1
    starts = ["<think>" + problem.steps[0].partition("=")[0] for problem in drawn]
    prompts = [ask(p.question) + encode(s) for p, s in zip(drawn, starts)]
    rollout = sample_groups(model, prompts, 1, 40, END_ID, temperature=0.3, seed=0)
    answers = [extract_answer(decode(ids)) for ids in rollout.answers()]
    right = [a == problem.answer for a, problem in zip(answers, drawn)]
    assert sum(right) > 16


def test_reinforce_runs_and_repeats_itself():
    task, rows = Chain(), []
    recipe = Recipe(
        steps=2, questions=2, group=3, max_new_tokens=6, minibatches=2, ref_every=1
    )
    histories = []
    for _ in range(2):
        model = small_model(vocab_size=64)
        histories.append(reinforce(model, task, recipe, rows.append))
    assert repr(histories[0]) == repr(histories[1])
    assert rows == [*histories[0], *histories[1]]
    assert [row["step"] for row in histories[0]] == [1, 2]
    assert not model.embed.weight.isnan().any()


def test_reinforce_learns_what_is_paid(monkeypatch):
    """Paid for short answers, a model gives short answers, on questions of training."""
    asked = []

    def paid(rollout, drawn, task):
        asked.extend(drawn)
        return [{"short": 1.0 / n} for n in rollout.lengths.tolist()]

    monkeypatch.setattr("deepseek_mini.posttraining.r1.judge", paid)
    recipe = Recipe(
        steps=15,
        questions=4,
        group=8,
        max_new_tokens=8,
        lr=2e-2,
        weights={"short": 1.0},
    )
    history = reinforce(small_model(vocab_size=64), Chain(), recipe)
    assert history[-1]["length"] < 0.6 * history[0]["length"]
    assert not any(map(held_out, asked))
