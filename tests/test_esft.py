"""ESFT: relevance, the choice, what is trained and what must not move; LoRA."""

import copy
import json

import pytest
import torch
from helpers import error, random_tokens, small_model, sparse_model

from deepseek_mini.model import ops
from deepseek_mini.model.moe import MoE, recording
from deepseek_mini.posttraining.esft import (
    Relevance,
    choose_experts,
    freeze,
    merge,
    relevance,
    train_experts_only,
    trained_parameters,
)
from deepseek_mini.posttraining.lora import add_lora
from deepseek_mini.posttraining.packing import PackedChats
from deepseek_mini.posttraining.rewriting import in_words, rewritings
from deepseek_mini.posttraining.sft import sft
from deepseek_mini.tokenizer import Tokenizer
from deepseek_mini.training import TrainConfig
from deepseek_mini.training.optimizer import make_optimizer

CHOSEN = [[1, 4, 5], [0]]  # of the 12 experts of two sparse layers


def rows(n=6, length=9, seed=0):
    """Rows in which every token is trained."""
    tokens = random_tokens(n, length, seed=seed)
    ones = torch.ones_like(tokens)
    return PackedChats(tokens, ones.bool(), ones)


def trained(model, steps=5, **changes):
    """AdamW with weight decay, and momentum that lasts."""
    recipe = TrainConfig(steps=steps, batch_size=6, lr=1e-2, warmup=0, **changes)
    return sft(model, rows(), recipe, progress=False)


def logits(model):
    with torch.no_grad():
        return model(random_tokens(2, 11, seed=9))


# Relevance.


def by_hand(model, samples):
    """The paper's sums, sample by sample and token by token, without padding."""
    part, layers = model.config.moe, model.config.n_layers - 1
    gate = torch.zeros(layers, part.n_routed_experts, dtype=torch.float64)
    token = torch.zeros_like(gate)
    for sample in samples:
        with recording() as routings, torch.no_grad():
            model.hidden(sample[None])
        for layer, routing in enumerate(routings):
            for chosen, weights in zip(routing.chosen, routing.weights):
                for i, g in zip(chosen.tolist(), weights.tolist()):
                    gate[layer, i] += g / part.route_scale / len(sample) / len(samples)
                    k = part.n_activated_experts
                    token[layer, i] += 1 / k / len(sample) / len(samples)
    return Relevance(gate, token)


@pytest.mark.parametrize("family", ["moe", "v2", "v3"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_relevance_is_the_papers_and_does_not_count_padding(family, side):
    model = sparse_model(family)
    samples = [random_tokens(n, seed=n) for n in (9, 4, 1, 7, 9)]
    tokens = torch.full((5, 9), 3)
    pad = torch.ones(5, 9, dtype=torch.bool)
    for i, sample in enumerate(samples):
        place = slice(9 - len(sample), 9) if side == "left" else slice(len(sample))
        tokens[i, place], pad[i, place] = sample, False
    want = by_hand(model, samples)
    for batch_size in (1, 2, 8):
        scores = relevance(model, tokens, pad, batch_size=batch_size)
        assert error(scores.gate, want.gate) < 1e-6
        assert error(scores.token, want.token) < 1e-12
    assert torch.allclose(scores.token.sum(1), torch.ones(2, dtype=torch.float64))
    # what counts the padding, or every token alike, is something else
    assert error(relevance(model, tokens).token, want.token) > 0.01
    weighed = sum(by_hand(model, [s]).token * len(s) for s in samples) / 30
    assert error(weighed, want.token) > 0.005


def test_relevance_of_a_gate_that_normalises_adds_up_to_one():
    scores = relevance(sparse_model("v3"), random_tokens(3, 8))
    assert torch.allclose(scores.gate.sum(1).float(), torch.ones(2))
    scores = relevance(sparse_model("moe"), random_tokens(3, 8))
    assert scores.gate.sum(1).max() < 1


def test_relevance_errors():
    with pytest.raises(ValueError, match="no sparse layers"):
        relevance(small_model(), random_tokens(1, 4))
    pad = torch.tensor([[False, False], [True, True]])
    with pytest.raises(ValueError, match="sample 1 is all padding"):
        relevance(sparse_model("moe"), random_tokens(2, 2), pad)


# The choice.


def test_the_smallest_set_of_each_layer():
    scores = torch.tensor([[0.1, 0.5, 0.25, 0.15], [0.25, 0.25, 0.25, 0.25]])
    assert choose_experts(scores, 0.5) == [[1], [0, 1]]
    assert choose_experts(scores, 0.51) == [[1, 2], [0, 1, 2]]
    assert choose_experts(scores, 0.9) == [[1, 2, 3], [0, 1, 2, 3]]
    assert choose_experts(scores, 1.0) == [[0, 1, 2, 3], [0, 1, 2, 3]]
    many = torch.full((1, 256), 1 / 256)  # so many that a sort may mix up what ties
    assert choose_experts(many, 0.25) == [list(range(64))]


def test_no_smaller_set_is_enough():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(20, 7, generator=generator, dtype=torch.float64)
    scores /= scores.sum(1, keepdim=True)
    for p in (0.05, 0.3, 0.6, 0.95):
        for row, ids in zip(scores, choose_experts(scores, p)):
            assert row[ids].sum() >= p and ids == sorted(ids)
            best = row.topk(len(ids)).values
            assert torch.allclose(row[ids].sum(), best.sum())
            assert best[:-1].sum() < p


def test_rounding_does_not_cost_an_expert():
    tenth = torch.full((1, 10), 0.1, dtype=torch.float64)
    assert choose_experts(tenth, 0.3) == [[0, 1, 2]]  # 0.1 + 0.1 + 0.1 > 0.3
    assert choose_experts(tenth, 0.8) == [list(range(8))]  # eight are 0.7999999...
    assert choose_experts(tenth, 1.0) == [list(range(10))]


def test_choice_errors():
    with pytest.raises(ValueError, match="p must be a positive number, got 0"):
        choose_experts(torch.ones(1, 2), 0.0)
    with pytest.raises(ValueError, match=r"layer 1 add up to 0\.4, .* p = 0\.5"):
        choose_experts(torch.tensor([[0.5, 0.5], [0.1, 0.3]]), 0.5)


# Training nothing else.


def stacks(model):
    """{(layer, name): stack} of the sparse layers."""
    layers = [layer.ffn for layer in model.layers if isinstance(layer.ffn, MoE)]
    return {
        (i, name): getattr(layer.experts, name).detach()
        for i, layer in enumerate(layers)
        for name in ("w1", "w2", "w3")
    }


@pytest.mark.parametrize("family", ["moe", "v2", "v3"])
def test_frozen_experts_and_all_other_parameters_are_bitwise_unchanged(family):
    model = sparse_model(family)
    before = copy.deepcopy(model)
    train_experts_only(model, CHOSEN)
    assert torch.equal(logits(model), logits(before))  # the same at first
    history = trained(model, weight_decay=0.5)
    assert history[-1]["loss"] < history[0]["loss"]
    merge(model)
    old, new = stacks(before), stacks(model)
    for (layer, name), stack in new.items():
        for e in range(12):
            same = torch.equal(stack[e], old[layer, name][e])
            assert same == (e not in CHOSEN[layer]), (layer, name, e)
    others = {
        name: p for name, p in before.named_parameters() if ".ffn.experts." not in name
    }
    new = dict(model.named_parameters())
    assert set(new) == {name for name, _ in before.named_parameters()}
    assert all(torch.equal(p, new[name]) for name, p in others.items())


def test_a_gradient_mask_alone_would_let_them_drift():
    """Why the guarantee above is worth a test: decay needs no gradient."""
    model = sparse_model("moe")
    experts = model.layers[1].ffn.experts
    before = experts.w1.detach().clone()
    mask = torch.zeros(12, 1, 1)
    mask[CHOSEN[0]] = 1
    experts.w1.register_hook(lambda grad: grad * mask)
    trained(model)
    assert not torch.equal(experts.w1[0], before[0])


def test_the_optimizer_holds_the_chosen_experts_and_nothing_else():
    model = sparse_model("v3")
    train_experts_only(model, CHOSEN)
    expert = 3 * 40 * 12
    assert trained_parameters(model) == 4 * expert
    optimizer = make_optimizer(model, TrainConfig(steps=1))
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert sum(p.numel() for p in held) == 4 * expert
    model(random_tokens(2, 8)).square().mean().backward()
    optimizer.step()
    state = optimizer.state.values()
    assert sum(s["exp_avg"].numel() + s["exp_avg_sq"].numel() for s in state) == (
        8 * expert
    )


@pytest.mark.parametrize("path", ["loop", "grouped"])
def test_gradients_are_those_of_the_whole_stack(path):
    whole, part = sparse_model("moe"), sparse_model("moe")
    train_experts_only(part, CHOSEN)
    for model in (whole, part):
        with ops.paths(moe=path):
            model(random_tokens(2, 8)).square().mean().backward()
    for i, (ids, layer) in enumerate(zip(CHOSEN, (1, 2))):
        got = part.layers[layer].ffn.experts.parametrizations
        want = whole.layers[layer].ffn.experts
        for name in ("w1", "w2", "w3"):
            mine = got[name][0].trained.grad
            assert error(mine, getattr(want, name).grad[ids]) < 1e-6, (i, name)


def test_an_expert_of_a_layer_without_any_is_frozen():
    model = sparse_model("moe")
    train_experts_only(model, [[], [2]])
    assert trained_parameters(model) == 3 * 40 * 12
    merge(model)
    assert trained_parameters(model) == sum(p.numel() for p in model.parameters())


def test_merge_gives_back_a_plain_model():
    model = sparse_model("v3")
    kinds = {name: type(m) for name, m in model.named_modules()}
    names = list(model.state_dict())
    train_experts_only(model, CHOSEN)
    trained(model)
    before = logits(model)
    merge(model)
    assert torch.equal(logits(model), before)
    assert sorted(model.state_dict()) == sorted(names)
    assert {name: type(m) for name, m in model.named_modules()} == kinds
    biases = [n for n, p in model.named_parameters() if not p.requires_grad]
    assert biases and all(name.endswith("gate.bias") for name in biases)
    history = trained(model)  # and all of it can be trained again
    assert history[-1]["loss"] < history[0]["loss"]


def test_what_cannot_be_trained():
    model = sparse_model("moe")
    for chosen, says in (
        ([[0]], "1 lists, but the model has 2"),
        ([[], []], "no expert is chosen"),
        ([[12], [0]], r"experts \[12\] of sparse layer 0"),
        ([[0], [3, 3]], r"experts \[3, 3\] of sparse layer 1"),
    ):
        with pytest.raises(ValueError, match=says):
            train_experts_only(model, chosen)
    assert trained_parameters(model) == sum(p.numel() for p in model.parameters())
    train_experts_only(model, CHOSEN)
    for again in (lambda: train_experts_only(model, CHOSEN), lambda: add_lora(model)):
        with pytest.raises(ValueError, match="prepared already"):
            again()
    with pytest.raises(ValueError, match="no sparse layers"):
        train_experts_only(small_model(), CHOSEN)


# LoRA.


@pytest.mark.parametrize("family", ["moe", "v2", "v3"])
def test_lora_is_equal_at_first_and_merges(family):
    model = sparse_model(family)
    before = copy.deepcopy(model)
    add_lora(model, rank=3)
    assert error(logits(model), logits(before)) < 1e-6
    history = trained(model)
    assert history[-1]["loss"] < history[0]["loss"]
    tuned = logits(model)
    assert error(tuned, logits(before)) > 1e-3
    merge(model)
    assert error(logits(model), tuned) < 1e-6
    new = dict(model.named_parameters())
    for name, old in before.named_parameters():
        adapted = name.startswith("layers.") and old.ndim > 1 and "gate." not in name
        assert torch.equal(old, new[name]) != adapted, name


def test_lora_changes_a_matrix_by_its_rank():
    model = sparse_model("moe")
    before = copy.deepcopy(model)
    add_lora(model, rank=2)
    trained(model)
    merge(model)
    for layer in (1, 2):
        new = model.layers[layer].ffn.experts.w1 - before.layers[layer].ffn.experts.w1
        assert torch.linalg.matrix_rank(new, atol=1e-4).tolist() == [2] * 12
        new = model.layers[layer].attn.wo.weight - before.layers[layer].attn.wo.weight
        assert torch.linalg.matrix_rank(new, atol=1e-4) == 2


def test_lora_counts():
    model = sparse_model("moe", n_dense_layers=2)  # one sparse layer
    add_lora(model, rank=2)
    attention = 3 * 4 * 2 * (40 + 40)  # 4 matrices of each of 3 layers
    dense = 2 * 3 * 2 * (40 + 52)
    sparse = 12 * 3 * 2 * (40 + 12) + 3 * 2 * (40 + 24)
    assert trained_parameters(model) == attention + dense + sparse


def test_lora_in_other_precisions_and_errors():
    model = sparse_model("moe").to(torch.float64)
    add_lora(model)
    assert all(p.dtype == torch.float64 for p in model.parameters())
    merge(model)
    for rank in (0, 13):
        with pytest.raises(
            ValueError, match=rf"rank must be from 1 to 12, .* got {rank}"
        ):
            add_lora(model, rank=rank)
    freeze(model)
    assert trained_parameters(model) == 0


# The tasks to specialise in.


def test_numbers_in_words():
    for number, words in (
        (0, "zero"),
        (15, "fifteen"),
        (80, "eighty"),
        (999, "nine hundred ninety nine"),
        (1000, "one thousand"),
        (7302, "seven thousand three hundred two"),
        (2045, "two thousand forty five"),
    ):
        assert in_words(number) == words
    assert len({in_words(n) for n in range(10_000)}) == 10_000


@pytest.mark.parametrize("task", ["words", "json"])
def test_questions_of_a_task(task):
    train, test = (rewritings(task, 300, 1, split) for split in ("train", "test"))
    assert not {one.question for one in train} & {one.question for one in test}
    assert train == rewritings(task, 300, 1) != rewritings(task, 300, 2)
    tokenizer = Tokenizer.small()
    for one in train[:20]:
        if task == "json":
            pairs = json.loads(one.answer).items()
            assert ", ".join(f"{k} {v}" for k, v in pairs) == one.question
        chat = one.encode(tokenizer)
        answer = [i for i, counts in zip(chat.ids, chat.trained) if counts]
        assert tokenizer.decode(answer, skip_special=True) == one.answer
        assert answer[-1] == tokenizer.id("eos") and not chat.trained[0]
        asked = tokenizer.decode(chat.ids[: -len(answer)], skip_special=True)
        assert asked == one.question + "\n"


def test_questions_errors():
    with pytest.raises(ValueError, match="task is 'poems'"):
        rewritings("poems", 1, 0)
    with pytest.raises(ValueError, match="split is 'dev'"):
        rewritings("words", 1, 0, "dev")
