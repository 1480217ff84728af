"""The gate: ids equal to a plain reading of the rule, ties and all; its weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from helpers import small_config

from deepseek_mini.config import MoE
from deepseek_mini.kernels import gate as module
from deepseek_mini.kernels.cases.gate import RELEASED, cases
from deepseek_mini.kernels.gate import exact_sigmoid, gate, reference
from deepseek_mini.model import moe

ODD = {  # sizes that are no powers of two, and what no release combines
    "9 in 3 groups": MoE(9, 0, 3, 8, "sigmoid", True, 3, 2, True, 1.5),
    "5 of 5": MoE(5, 0, 5, 8, norm_topk=True),
    "sigmoid without bias": MoE(12, 0, 2, 8, "sigmoid", False, 4, 3),
    "bias without groups": MoE(7, 0, 4, 8, "sigmoid", True),
}
PARTS = RELEASED | ODD


@pytest.fixture(params=[False, True], ids=["many", "few"])
def tile(request, monkeypatch):
    """Both tables of tiles, for any number of tokens."""
    monkeypatch.setattr(module, "FEW", 10**9 if request.param else 0)


def inputs(part, n_tokens):
    n = part.n_routed_experts
    bias = torch.randn(n) * 0.3 if part.bias else None
    return torch.randn(n_tokens, n) * 2, part, bias


def by_the_rule(logits, part, bias):
    """The ids, in Python: sort by falling value and rising id, groups and experts."""
    ranked = logits if bias is None else exact_sigmoid(logits) + bias
    size = part.n_routed_experts // part.n_groups

    def first(values, k):
        return sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]

    out = []
    for row in ranked.numpy():  # float32, as are the sums of two below
        groups = [sorted(g)[::-1] for g in row.reshape(-1, size)]
        worth = [g[0] if bias is None else g[0] + g[1] for g in groups]
        kept = first(worth, part.n_limited_groups)
        in_reach = [v if i // size in kept else -np.inf for i, v in enumerate(row)]
        out.append(first(in_reach, part.n_activated_experts))
    return torch.tensor(out, dtype=torch.int32)


@pytest.mark.parametrize("name", PARTS)
def test_ids_and_weights(name, tile):
    logits, part, bias = inputs(PARTS[name], 19)
    ids, weights = gate(logits, part, bias)
    assert torch.equal(ids, by_the_rule(logits, part, bias))
    assert torch.equal(ids, reference(logits, part, bias)[0])
    wide = logits.double()
    scores = wide.sigmoid() if part.score == "sigmoid" else wide.softmax(-1)
    exact = scores.gather(1, ids.long())
    if part.norm_topk:
        exact = exact / exact.sum(1, keepdim=True)
    exact *= part.route_scale
    # A score is right to a few units in the last place, softmax's sum to some more;
    # then a sum of at most 8, a division, a product.
    assert ((weights - exact).abs() <= 2**-20 * exact).all()


@pytest.mark.parametrize("name", PARTS)
def test_ties_go_to_the_lower_id(name, tile):
    """Few different values: experts tie, groups tie, and so do sums of two."""
    _, part, bias = inputs(PARTS[name], 1)
    logits = torch.randint(-1, 2, (17, part.n_routed_experts)) * 1.0
    logits[0] = 0.0
    logits[1] *= -0.0  # -0 is no less than 0
    bias = None if bias is None else torch.randint(0, 2, bias.shape) / 4
    ids = gate(logits, part, bias)[0]
    assert torch.equal(ids, by_the_rule(logits, part, bias))
    assert torch.equal(ids, reference(logits, part, bias)[0])


def test_a_group_whose_two_best_tie_is_worth_both():
    logits = torch.full((1, 256), -5.0)
    logits[0, :128:32], logits[0, 1:128:32] = 1.2, 0.2  # groups 0 to 3
    logits[0, 128:130] = 1.0  # group 4, worth more
    ids = gate(logits, RELEASED["V3"], torch.zeros(256))[0]
    assert ids.tolist() == [[0, 32, 64, 128, 129, 1, 33, 65]]


@pytest.mark.parametrize("name", RELEASED)
def test_as_the_model_routes(name):
    part = RELEASED[name]
    config = small_config(dim=part.n_routed_experts, moe=part, n_dense_layers=1)
    theirs = moe.Gate(config.dim, part)
    theirs.weight.data = torch.eye(config.dim)  # so that x is the logits
    logits, _, bias = inputs(part, 40)
    if bias is not None:
        theirs.bias.data = bias
    routing = theirs(logits)
    ids, weights = gate(logits, part, bias)
    assert torch.equal(ids, routing.chosen.int())
    assert torch.allclose(weights, routing.weights, rtol=2**-20, atol=0)


def test_sigmoid_is_right_and_the_same_everywhere():
    x = torch.cat([torch.randn(1000) * 20, torch.linspace(-87, 87, 1000)])
    exact = x.double().sigmoid()
    assert ((exact_sigmoid(x) - exact).abs() <= 2**-22 * exact).all()
    # The kernel's, seen as weights: of experts that are all chosen.
    x = x[torch.randperm(2000)].view(-1, 8)
    ids, weights = gate(x, MoE(8, 0, 8, 8, "sigmoid"))
    assert torch.equal(weights, exact_sigmoid(x).gather(1, ids.long()))


@pytest.mark.parametrize("name", ["V3", "V2", "9 in 3 groups"])
def test_infinite_and_huge_logits(name, tile):
    logits, part, bias = inputs(PARTS[name], 6)
    logits[0] = -torch.inf if bias is not None else -1e38
    logits[1, ::2], logits[1, 1::2] = 1e38, -1e38
    logits[2, 3:] = -torch.inf
    logits[3, :3] = 3e38
    ids, weights = gate(logits, part, bias)
    wanted = reference(logits, part, bias)
    assert torch.equal(ids, wanted[0])
    assert weights.isfinite().all()
    assert torch.allclose(weights, wanted[1], rtol=1e-5, atol=1e-30)


@pytest.mark.filterwarnings("ignore:All-NaN")
@pytest.mark.parametrize("name", PARTS)
def test_a_nan_is_seen_and_goes_no_further(name, tile):
    logits, part, bias = inputs(PARTS[name], 8)
    clean_ids, clean_weights = gate(logits, part, bias)
    logits[3, 2] = torch.nan
    logits[5] = torch.nan
    ids, weights = gate(logits, part, bias)
    assert weights[3].isnan().any() and weights[5].isnan().all()
    others = [0, 1, 2, 4, 6, 7]
    assert torch.equal(ids[others], clean_ids[others])
    assert torch.equal(weights[others], clean_weights[others])
    for row in ids.tolist():  # whoever reads memory by ids reads what is there
        assert len({*row}) == len(row) and 0 <= min(row) <= max(row) < len(logits[0])


def test_no_tokens():
    assert [t.shape for t in gate(*inputs(ODD["5 of 5"], 0))] == [(0, 5)] * 2


def test_what_is_refused():
    logits, part, bias = inputs(ODD["9 in 3 groups"], 2)
    with pytest.raises(ValueError, match="of 8 experts, but the layer has 9"):
        gate(logits[:, :8].contiguous(), part)
    with pytest.raises(ValueError, match="but the score is 'softmax'"):
        gate(logits, dataclasses.replace(part, score="softmax"), bias)
    with pytest.raises(ValueError, match="logits is torch"):
        gate(logits.double(), part, bias)
    with pytest.raises(ValueError, match="logits has strides"):
        gate(logits.T.contiguous().T, part, bias)


@pytest.mark.parametrize("case", cases("cpu", small=True), ids=lambda case: case.name)
def test_cases_are_within_their_bounds(case):
    assert case.error(case.make()) <= case.bound
