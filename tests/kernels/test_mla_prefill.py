"""MLA prefill: beside float64 with ragged rows, its gradients, and what is refused."""

from __future__ import annotations

import pytest
import torch
from helpers import error

import deepseek_mini.kernels.mla_prefill as forward
import deepseek_mini.kernels.mla_prefill_backward as backward
import deepseek_mini.kernels.mla_prefill_parts as shared
from deepseek_mini.kernels.case import difference
from deepseek_mini.kernels.cases.mla_prefill import cases
from deepseek_mini.kernels.mla_prefill import mla_prefill, reference

UNIT = {torch.float32: 2**-24, torch.bfloat16: 2**-8, torch.float16: 2**-11}
SMALL = {"BLOCK_M": 32, "BLOCK_N": 16, "num_warps": 4, "num_stages": 1}
SCALE = 0.2


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Tiles of which several fit into a small case; tests of the others undo this."""
    tables = (
        (forward, "TILES"),
        (backward, "TILES_QUERIES"),
        (backward, "TILES_KEYS"),
        (shared, "TILES_FLOAT32"),
    )
    for module, name in tables:
        monkeypatch.setattr(module, name, {0: SMALL})


def inputs(
    dtype, T=37, S=50, H=2, n=32, r=16, width=16, lengths=(50, 37), news=(21, 37)
):
    """Halves of one tensor; NaN behind a row's length and in its padding's queries."""
    B = len(lengths)
    lengths, news = (torch.tensor(x, dtype=torch.int32) for x in (lengths, news))
    q = torch.randn(B, T, H, n + r).to(dtype)
    q[torch.arange(T) >= news[:, None]] = float("nan")
    kv = torch.randn(B, S, H, n + width).to(dtype)
    k_pe = torch.randn(B, S, r).to(dtype)
    kv[torch.arange(S) >= lengths[:, None]] = float("nan")
    k_pe[torch.arange(S) >= lengths[:, None]] = float("nan")
    parts = *q.split((n, r), -1), kv[..., :n], k_pe, kv[..., n:]
    return *parts, SCALE, lengths, news


def float64(given):
    """The same inputs, wide, with padding's queries 0: NaN times 0 is NaN there."""
    wide = [x.double() for x in given[:5]]
    for x in wide[:2]:
        x.nan_to_num_(0.0)
    return wide


def check(given):
    """Number by number against float64 on the same inputs."""
    out, lse = mla_prefill(*given)
    q_nope, q_pe, k_nope, k_pe, v = float64(given)
    both = torch.cat((v, v.abs()), -1)
    wanted, wanted_lse = reference(q_nope, q_pe, k_nope, k_pe, both, *given[5:])
    wanted, size = wanted.chunk(2, dim=-1)
    # Each weight is rounded once before it multiplies its value, so the sum is off by
    # one unit of the sum of absolute values; then the result is rounded. In float32
    # what counts is the error e of a score, a sum of n + r products: a weight is wrong
    # by a factor 1 + e.
    unit = UNIT[out.dtype]
    bound = unit * (size + wanted.abs()) * 1.01 + 2**-18 * size
    assert out.dtype == given[0].dtype and lse.dtype == torch.float32
    assert ((out - wanted).abs() <= bound).all()
    assert torch.equal(lse.isfinite(), wanted_lse.isfinite())
    assert ((lse - wanted_lse).nan_to_num(0).abs() < 1e-5).all()
    return out, lse


@pytest.mark.parametrize("dtype", UNIT, ids=str)
def test_ragged_rows_beside_float64(dtype):
    out, lse = check(inputs(dtype))
    assert (out[0, 21:] == 0).all() and (lse[0, 21:] == -torch.inf).all()


def test_rows_with_one_query_one_key_or_none():
    given = inputs(torch.float32, lengths=(40, 1, 0), news=(1, 1, 0))
    out, _ = check(given)
    assert torch.equal(out[1, 0], given[4][1, 0])  # its only key's value


def test_without_lengths_all_keys_and_queries_count():
    given = inputs(torch.float32, lengths=(50, 50), news=(37, 37))
    assert all(map(torch.equal, mla_prefill(*given), mla_prefill(*given[:6])))


def test_v3_widths_and_the_tiles_of_the_gpus(monkeypatch):
    monkeypatch.undo()
    sizes = {"T": 140, "S": 200, "H": 1, "n": 128, "r": 64, "width": 128}
    given = inputs(torch.bfloat16, **sizes, lengths=(200,), news=(133,))
    check(given)
    check_gradients(given, 2**-7)


def check_gradients(given, bound):
    ours = [x.detach().requires_grad_() for x in given[:5]]
    exact = [x.requires_grad_() for x in float64(given)]
    out, wanted = (f(*x, *given[5:])[0] for f, x in
                   ((mla_prefill, ours), (reference, exact)))  # fmt: skip
    seed = torch.randn(out.shape).to(out.dtype)
    got = torch.autograd.grad(out, ours, seed)
    expected = torch.autograd.grad(wanted, exact, seed.double())
    for name, a, b in zip(["q_nope", "q_pe", "k_nope", "k_pe", "v"], got, expected):
        assert error(a, b) < bound, name


# float32: sums of 50 products. bf16: weights and their gradients are rounded to 2^-8
# of themselves, of 50 terms of random sign; then the result is. float16: to 2^-11.
@pytest.mark.parametrize(
    "dtype, bound",
    [(torch.float32, 3e-6), (torch.bfloat16, 2**-7), (torch.float16, 2**-9)],
    ids=str,
)
def test_gradients_beside_float64(dtype, bound):
    check_gradients(inputs(dtype), bound)


def test_what_is_refused():
    given = list(inputs(torch.float32))
    with pytest.raises(ValueError, match="are of types"):
        mla_prefill(given[0].double(), *given[1:])
    with pytest.raises(ValueError, match="37 queries, but only 20"):
        mla_prefill(*given[:2], *(x[:, :20] for x in given[2:5]), *given[5:])
    with pytest.raises(ValueError, match="q_pe is 12 wide"):
        mla_prefill(given[0], given[1][..., :12], given[2], given[3][..., :12],
                    *given[4:])  # fmt: skip
    with pytest.raises(ValueError, match="channels of v are strided"):
        mla_prefill(*given[:4], given[4].mT.contiguous().mT, *given[5:])


def test_no_tokens():
    given = inputs(torch.float32, T=0, news=(0, 0))
    assert mla_prefill(*given)[0].shape == (2, 0, 2, 16)


@pytest.mark.parametrize("case", cases("cpu", small=True), ids=lambda case: case.name)
def test_cases_are_within_their_bounds(case):
    given = case.make()
    assert case.error(given) <= case.bound
    # And the bound would notice a scale that is slightly wrong.
    wrong = (*given[:5], given[5] * 1.1)
    wanted = case.reference(*given)
    assert difference(case.kernel(*wrong)[0], wanted[0]) > case.bound
    theirs = case.peers["SDPA"](*given)
    if isinstance(theirs, tuple):
        theirs = theirs[0]
    assert difference(theirs.float(), wanted[0].float()) < 2**-4
