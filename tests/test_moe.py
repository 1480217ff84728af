"""The gate by hand, and the experts: the fast path equals the readable one."""

from dataclasses import replace

import pytest
import torch
from helpers import error, random_tokens, randomise, small_config, sparse_model
from hypothesis import given, settings
from hypothesis import strategies as st

import deepseek_mini as dm
from deepseek_mini.config import MoE as MoEConfig
from deepseek_mini.model import MoE, recording
from deepseek_mini.model.moe import Gate


def gate_of(scores: list[float], part: MoEConfig, bias: list[float] | None = None):
    """A gate and a token whose scores are these, one for each expert."""
    gate = Gate(1, part)
    wanted = torch.tensor(scores)
    logits = wanted.log() if part.score == "softmax" else wanted.logit()
    gate.weight.data = logits[:, None]
    if bias is not None:
        gate.bias.data = torch.tensor(bias)
    return gate, torch.ones(1, 1)


def check_gate(gate_and_token, chosen: list[int], weights: list[float]):
    gate, token = gate_and_token
    routing = gate(token)
    found = dict(zip(routing.chosen[0].tolist(), routing.weights[0].tolist()))
    assert sorted(found) == sorted(chosen)
    for expert, weight in zip(chosen, weights, strict=True):
        assert found[expert] == pytest.approx(weight, abs=1e-6), expert


# Eight experts in four groups of two; the scores of a softmax sum to 1.
SCORES = [0.30, 0.01, 0.15, 0.14, 0.05, 0.25, 0.04, 0.06]


def test_softmax_by_hand():
    part = MoEConfig(8, 1, 3, 4)
    check_gate(gate_of(SCORES, part), [0, 5, 2], [0.30, 0.25, 0.15])
    scaled = replace(part, route_scale=16.0)
    check_gate(gate_of(SCORES, scaled), [0, 5, 2], [4.8, 4.0, 2.4])
    normal = replace(part, norm_topk=True, route_scale=2.0)
    check_gate(gate_of(SCORES, normal), [0, 5, 2], [0.6 / 0.7, 0.5 / 0.7, 0.3 / 0.7])


def test_v2_takes_the_groups_with_the_best_expert():
    """Maxima 0.30, 0.15, 0.25, 0.06: groups 0 and 2 stay; expert 2 is out of reach."""
    part = MoEConfig(8, 1, 3, 4, n_groups=4, n_limited_groups=2)
    check_gate(gate_of(SCORES, part), [0, 5, 4], [0.30, 0.25, 0.05])


def test_v3_takes_the_groups_with_the_best_two():
    """The same scores, 0.31, 0.29, 0.30, 0.10 a group, and other groups and weights:
    with the bias 0.4 for expert 7, its group is worth 0.50.
    """
    part = MoEConfig(
        8, 1, 3, 4, "sigmoid", bias=True, n_groups=4, n_limited_groups=2, norm_topk=True
    )
    plain = gate_of(SCORES, part, [0.0] * 8)
    check_gate(plain, [0, 5, 4], [0.30 / 0.60, 0.25 / 0.60, 0.05 / 0.60])
    raised = gate_of(SCORES, part, [0.0] * 7 + [0.4])
    check_gate(raised, [0, 7, 6], [0.30 / 0.40, 0.06 / 0.40, 0.04 / 0.40])


def test_maximum_and_sum_of_two_differ():
    """Group 1 has the best expert, group 0 the best two."""
    scores = [0.5, 0.4, 0.7, 0.1]
    v3 = MoEConfig(4, 0, 1, 4, "sigmoid", bias=True, n_groups=2, n_limited_groups=1)
    v2 = replace(v3, bias=False)
    check_gate(gate_of(scores, v3, [0.0] * 4), [0], [0.5])
    check_gate(gate_of(scores, v2), [2], [0.7])


def test_masked_groups_are_out_of_reach_of_a_bias_below_zero():
    """With biases far below 0 a mask of 0 would make the other groups win."""
    part = MoEConfig(4, 0, 2, 4, "sigmoid", bias=True, n_groups=2, n_limited_groups=1)
    gate = gate_of([0.5, 0.4, 0.3, 0.2], part, [-3.0, -3.0, -4.0, -4.0])
    check_gate(gate, [0, 1], [0.5, 0.4])


@pytest.mark.parametrize("family", ["moe", "v2", "v3"])
def test_routings_are_recorded_in_order(family):
    model, tokens = sparse_model(family), random_tokens(2, 9)
    with recording() as routings:
        model(tokens)
    assert len(routings) == 2  # of three layers the first is dense
    for routing in routings:
        assert routing.scores.shape == (18, 12)
        assert routing.chosen.shape == routing.weights.shape == (18, 3)
        assert routing.load.sum() == 54
        assert all(len(set(row)) == 3 for row in routing.chosen.tolist())
    model(tokens)
    assert len(routings) == 2


def test_the_bias_chooses_and_neither_weighs_nor_learns():
    model, tokens = sparse_model("v3"), random_tokens(2, 9)
    gate = model.layers[2].ffn.gate
    with recording() as before:
        model(tokens).square().mean().backward()
    assert gate.bias.grad is None and not gate.bias.requires_grad
    assert gate.weight.grad.abs().max() > 0
    gate.bias.data += 0.5  # for all alike: the choice stays, and so do the weights
    with recording() as after:
        model(tokens)
    assert torch.equal(before[1].chosen, after[1].chosen)
    assert torch.equal(before[1].weights, after[1].weights)
    gate.bias.data[4] += 100.0
    with recording() as forced:
        model(tokens)
    assert (forced[1].chosen == 4).any(dim=1).all()
    assert (forced[1].weights <= 2.5).all()


def test_gates_compute_in_float32():
    """Two scores that bfloat16 cannot tell apart."""
    gate = Gate(2, MoEConfig(2, 0, 1, 4)).bfloat16()
    gate.weight.data = torch.tensor([[1.0, 2**-9], [1.0, 2**-8]]).bfloat16()
    routing = gate(torch.ones(1, 2).bfloat16())
    assert routing.chosen.item() == 1 and routing.scores.dtype == torch.float32


# Paths


@st.composite
def mixtures(draw) -> MoEConfig:
    """Any sizes, K = E and groups of two included."""
    v3 = draw(st.booleans())
    n_groups, size = draw(st.integers(1, 4)), draw(st.integers(1 + v3, 3))
    limited = draw(st.integers(1, n_groups))
    return MoEConfig(
        n_routed_experts=n_groups * size,
        n_shared_experts=draw(st.integers(0, 2)),
        n_activated_experts=draw(st.integers(1, limited * size)),
        inter_dim=draw(st.integers(1, 7)),
        score=draw(st.sampled_from(["softmax", "sigmoid"])),
        bias=v3,
        n_groups=n_groups,
        n_limited_groups=limited,
        norm_topk=draw(st.booleans()),
        route_scale=draw(st.sampled_from([1.0, 2.5])),
    )


def equal_paths(layer: MoE, x: torch.Tensor):
    """Outputs and all gradients, in float64: loop, grouped, and by the equation."""
    results = []
    for path in ("loop", "grouped"):
        layer.zero_grad()
        leaf = x.clone().requires_grad_()
        with dm.paths(moe=path):
            out = layer(leaf)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        named = layer.named_parameters()
        grads = {n: p.grad.clone() for n, p in named if p.requires_grad}
        results.append((out.detach(), leaf.grad, grads))
    (loop, loop_x, loop_grads), (grouped, grouped_x, grouped_grads) = results
    assert error(grouped, loop) < 1e-12 and error(grouped_x, loop_x) < 1e-12
    for name, gradient in loop_grads.items():
        assert error(grouped_grads[name], gradient) < 1e-12, name
    expected = by_the_equation(layer, x.flatten(0, 1)).view_as(x)
    assert error(loop, expected) < 1e-12


@torch.no_grad()
def by_the_equation(layer: MoE, tokens: torch.Tensor) -> torch.Tensor:
    routing, rows = layer.gate(tokens), []
    for token, chosen, weights in zip(tokens, routing.chosen, routing.weights):
        row = torch.zeros_like(token) if layer.shared is None else layer.shared(token)
        for e, weight in zip(chosen, weights):
            experts = layer.experts
            gated = torch.nn.functional.silu(experts.w1[e] @ token)
            row = row + weight * (experts.w2[e] @ (gated * (experts.w3[e] @ token)))
        rows.append(row)
    return torch.stack(rows)


@settings(max_examples=60, deadline=None)
@given(mixtures(), st.integers(1, 3), st.integers(1, 9), st.integers(0, 99))
def test_loop_equals_grouped_forward_and_backward(part, rows, length, seed):
    layer = randomise(MoE(small_config(dim=6, moe=part)), seed).double()
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, length, 6)
    equal_paths(layer, torch.randn(shape, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("n_tokens", [1, 40])
def test_all_tokens_to_one_expert(n_tokens):
    part = MoEConfig(5, 1, 1, 4, "sigmoid", bias=True)
    layer = randomise(MoE(small_config(dim=6, moe=part))).double()
    layer.gate.bias.data = torch.tensor([0.0, 0.0, 9.0, 0.0, 0.0]).double()
    x = torch.randn(1, n_tokens, 6, dtype=torch.float64)
    with recording() as routings:
        equal_paths(layer, x)
    assert routings[0].load.tolist() == [0, 0, n_tokens, 0, 0]
    assert layer.experts.w1.grad[[0, 1, 3, 4]].abs().max() == 0


def test_bfloat16_stays_bfloat16_on_both_paths():
    layer = randomise(MoE(small_config(dim=6, moe=MoEConfig(5, 1, 2, 4)))).bfloat16()
    x = torch.randn(2, 7, 6).bfloat16()
    outs = []
    for path in ("loop", "grouped"):
        with dm.paths(moe=path):
            outs.append(layer(x))
    assert outs[0].dtype == outs[1].dtype == torch.bfloat16
    assert error(*outs) < 0.02
