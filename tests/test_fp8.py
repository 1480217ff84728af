"""FP8: formats against PyTorch's casts, scales against loops, training in it."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from helpers import error, random_tokens, randomise, small_config, small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from deepseek_mini import fp8
from deepseek_mini.config import MLA, MTP, MoE, Rope
from deepseek_mini.fp8 import E4M3, E5M2
from deepseek_mini.model import Transformer, paths
from deepseek_mini.training.fp8 import (
    QUANTISED,
    FP8Linear,
    Recipe,
    fp8_linear,
    short_matmul,
    use_fp8,
)

FORMATS = [pytest.param(E4M3, id="E4M3"), pytest.param(E5M2, id="E5M2")]
CODES = np.arange(256, dtype=np.uint8)


def codes_of(x):
    return x.view(torch.uint8).numpy()


def hard_numbers(fmt, seed=0):
    """Float32 of all sizes, every number of the format, halves between and beyond."""
    generator = torch.Generator().manual_seed(seed)
    size = 10 ** (14 * torch.rand(50_000, generator=generator) - 8)
    random = size * torch.randn(50_000, generator=generator)
    every = fp8.decode(CODES, fmt)
    every = np.sort(every[np.isfinite(every)])
    halves = (every[1:] + every[:-1]) / 2
    ties = np.concatenate([every, halves, every[-1:] * 1.01, every[-1:] * 1e6])
    near = [np.nextafter(ties.astype(np.float32), np.float32(x)) for x in (-1e9, 1e9)]
    both = np.concatenate([ties, -ties, *near]).astype(np.float32)
    odd = torch.tensor([math.inf, -math.inf, math.nan, 0.0, -0.0, 1e-45, 3.4e38])
    return torch.cat([random, torch.from_numpy(both), odd])


# --- the formats ------------------------------------------------------------------


@pytest.mark.parametrize("fmt", FORMATS)
def test_decode_is_torch_for_all_256_codes(fmt):
    ours = fp8.decode(CODES, fmt)
    theirs = torch.from_numpy(CODES.copy()).view(fmt.dtype).double().numpy()
    np.testing.assert_array_equal(ours, theirs)
    numbers = ~np.isnan(ours)
    np.testing.assert_array_equal(
        np.signbit(ours[numbers]), np.signbit(theirs[numbers])
    )


@pytest.mark.parametrize("fmt", FORMATS)
def test_encode_gives_back_every_code(fmt):
    values = fp8.decode(CODES, fmt)
    finite = np.isfinite(values)
    np.testing.assert_array_equal(fp8.encode(values[finite], fmt), CODES[finite])


@pytest.mark.parametrize("fmt", FORMATS)
def test_encode_is_torch_byte_by_byte(fmt):
    x = hard_numbers(fmt)
    want = codes_of(x.clamp(-fmt.largest, fmt.largest).to(fmt.dtype))
    got = fp8.encode(x.double().numpy(), fmt)
    nan = np.isnan(x.numpy())
    np.testing.assert_array_equal(got[~nan], want[~nan])
    assert np.isnan(fp8.decode(got[nan], fmt)).all()
    np.testing.assert_array_equal(codes_of(fp8.cast(x, fmt))[~nan], want[~nan])


@pytest.mark.parametrize("fmt", FORMATS)
def test_what_is_too_large_becomes_the_largest(fmt):
    x = torch.tensor([fmt.largest * 1.3, -1e30, math.inf, -math.inf])
    want = torch.tensor([1.0, -1, 1, -1]) * fmt.largest
    assert torch.equal(fp8.cast(x, fmt).float(), want)
    assert torch.equal(fp8.round_to(x, fmt), want)
    assert np.array_equal(fp8.decode(fp8.encode(x.numpy(), fmt), fmt), want.numpy())


@pytest.mark.parametrize("fmt", FORMATS)
def test_round_to_is_the_cast(fmt):
    x = hard_numbers(fmt, seed=1)
    want = fp8.cast(x, fmt).float()
    torch.testing.assert_close(
        fp8.round_to(x, fmt), want, rtol=0, atol=0, equal_nan=True
    )
    for dtype in (torch.bfloat16, torch.float64):
        some = x[:1000].to(dtype)
        got = fp8.round_to(some, fmt)
        assert got.dtype == dtype
        assert torch.equal(got.float(), fp8.cast(some, fmt).float())


def test_by_hand():
    def nearest(x):
        return float(fp8.decode(fp8.encode(np.array(x), E4M3), E4M3))

    assert nearest(0.3) == 0.3125
    assert nearest(0.296875) == 0.3125 and nearest(0.265625) == 0.25  # halfway: even
    assert (E4M3.largest, E4M3.smallest, E4M3.smallest_normal) == (448, 2**-9, 2**-6)
    assert (E5M2.largest, E5M2.smallest, E5M2.smallest_normal) == (
        57344,
        2**-16,
        2**-14,
    )
    assert nearest(2**-10) == 0 and nearest(1.001 * 2**-10) == 2**-9
    assert (E4M3.bias, E5M2.bias) == (7, 15)


def test_ue8m0_is_torch_and_rounds_up():
    values = fp8.decode_ue8m0(CODES)
    theirs = torch.from_numpy(CODES.copy()).view(torch.float8_e8m0fnu).double()
    np.testing.assert_array_equal(values, theirs.numpy())
    np.testing.assert_array_equal(fp8.encode_ue8m0(values[:255]), CODES[:255])
    scales = np.array([0.75, 1.0, np.nextafter(1.0, 2), 1.5, 2.0])
    assert fp8.encode_ue8m0(scales).tolist() == [127, 127, 128, 128, 128]


# --- tiles and blocks -------------------------------------------------------------


def quantised_by_loops(x, block, fmt, ue8m0):
    """Bytes and scales, block by block in NumPy: x is float32 [M, N]."""
    M, N = x.shape
    rows, columns = M if block[0] is None else block[0], block[1] or N
    m, n = math.ceil(M / rows), math.ceil(N / columns)
    codes, scales = np.empty(x.shape, np.uint8), np.empty((m, n), np.float32)
    for i, j in product(range(m), range(n)):
        part = np.s_[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
        amax = np.abs(x[part]).max()
        if ue8m0:
            scale = np.maximum(amax, np.float32(1e-4)) / np.float32(fmt.largest)
            scale = np.float32(2.0 ** math.ceil(math.log2(float(scale))))
        else:
            scale = amax / np.float32(fmt.largest) if amax else np.float32(1)
        scales[i, j] = scale
        codes[part] = fp8.encode(x[part] / scale, fmt)
    return codes, scales


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 300)),
    block=st.sampled_from(
        [(1, 128), (128, 1), (128, 128), (7, 5), (None, None), (1, None)]
    ),
    fmt=st.sampled_from([E4M3, E5M2]),
    ue8m0=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_bytes_and_scales_are_exact(shape, block, fmt, ue8m0, seed):
    rng = np.random.default_rng(seed)
    size = np.exp(rng.normal(size=shape) * rng.choice([0, 3, 10]))
    x = (rng.normal(size=shape) * size).astype(np.float32)
    x[rng.random(shape) < 0.2] = 0
    codes, scales = quantised_by_loops(x, block, fmt, ue8m0)
    values, scale_inv = fp8.quantise(torch.from_numpy(x), block, fmt, ue8m0)
    np.testing.assert_array_equal(codes_of(values), codes)
    np.testing.assert_array_equal(scale_inv.numpy(), scales)
    back = fp8.dequantise(values, scale_inv, block)
    fake = fp8.fake_quantise(torch.from_numpy(x), block, fmt, ue8m0)
    assert torch.equal(back, fake)
    bound = 2.0 ** -(fmt.mantissa_bits + 1)  # half a step of a normal number
    expanded = np.repeat(
        np.repeat(scales, block[0] or shape[0], 0), block[1] or shape[1], 1
    )
    expanded = expanded[: shape[0], : shape[1]]
    allowed = np.maximum(np.abs(x) * bound, expanded * fmt.smallest / 2)
    assert (np.abs(fake.numpy() - x) <= allowed * 1.00001).all()


def test_amax_lands_on_the_largest_and_a_power_of_two_stays_below():
    x = torch.randn(6, 300)
    values, scale_inv = fp8.quantise(x)
    for i, j in product(range(6), range(3)):
        assert values[i, 128 * j : 128 * (j + 1)].float().abs().max() == 448
    assert scale_inv.shape == (6, 3) and values.dtype == torch.float8_e4m3fn
    values, scale_inv = fp8.quantise(x, ue8m0=True)
    amax = values.float().abs().max()
    assert 224 <= amax <= 448
    assert torch.equal(scale_inv.log2(), scale_inv.log2().round())


def test_power_of_two_scales_at_and_around_powers():
    exact = torch.tensor([448.0, 224.0, 2**20 * 448.0, 7.0])
    x = torch.stack([exact, torch.nextafter(exact, torch.tensor(1e30))])[..., None]
    _, scale_inv = fp8.quantise(x, (1, 1), ue8m0=True)
    want = torch.tensor([1.0, 0.5, 2.0**20, 2.0**-6])
    assert torch.equal(scale_inv[0, :, 0], want)
    assert torch.equal(scale_inv[1, :, 0], 2 * want)
    codes = fp8.encode_ue8m0(scale_inv.numpy())
    assert torch.equal(torch.from_numpy(fp8.decode_ue8m0(codes)).float(), scale_inv)


def test_the_floor_and_zeros():
    x = torch.tensor([[0.0, 0.0], [1e-6, 5e-7]])
    values, scale_inv = fp8.quantise(x)
    assert scale_inv[0, 0] == 1 and (values[0].float() == 0).all()
    assert values[1, 0].float() == 448  # no floor in V3
    _, floored = fp8.quantise(x, ue8m0=True)
    assert (floored == 2.0 ** math.ceil(math.log2(1e-4 / 448))).all()


def test_nan_and_infinity_spoil_their_own_tile_only():
    for bad, ue8m0 in product((math.nan, math.inf), (False, True)):
        x = torch.randn(2, 256)
        x[0, 3] = bad
        out = fp8.fake_quantise(x, ue8m0=ue8m0)
        assert out[0, :128].isnan().all()
        assert out[0, 128:].isfinite().all() and out[1].isfinite().all()


def test_dequantise_is_block_times_scale_inv():
    values = fp8.cast(torch.randn(3, 200, 130))
    scale_inv = torch.rand(3, 2, 2) + 0.5
    got = fp8.dequantise(values, scale_inv, block=128)
    for e, i, j in ((0, 0, 0), (1, 127, 128), (2, 128, 127), (2, 199, 129)):
        want = values[e, i, j].float() * scale_inv[e, i // 128, j // 128]
        assert got[e, i, j] == want
    assert got.dtype == torch.float32 and got.shape == values.shape
    powers = torch.exp2(torch.randint(-9, 9, (3, 2, 2)))
    stored = powers.to(torch.float8_e8m0fnu)  # the scales themselves in a byte each
    assert torch.equal(
        fp8.dequantise(values, stored), fp8.dequantise(values, powers.float())
    )


def test_wrong_scales_and_blocks_are_said():
    values, scale_inv = fp8.quantise(torch.randn(300, 130), 128)
    with pytest.raises(ValueError, match=r"\[2, 3\].*need \[3, 2\]"):
        fp8.dequantise(values, scale_inv.T)
    with pytest.raises(ValueError, match="rows and columns"):
        fp8.quantise(torch.randn(128))
    with pytest.raises(ValueError, match="at least 1"):
        fp8.quantise(torch.randn(2, 128), (1, 0))


def test_a_tile_keeps_what_one_scale_loses():
    x = 0.02 * torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    x[5, 7] = 10_000

    def lost(block):
        out = fp8.fake_quantise(x, block)
        out[5, 7] = x[5, 7]
        return float((out - x).norm() / x[x < 1].norm())

    assert lost((None, None)) > 0.6
    assert 0.06 < lost((1, None)) < 0.12
    assert lost((1, 128)) < 0.7 * lost((1, None))


# --- the short accumulator --------------------------------------------------------


def test_a_short_sum_is_cut_after_every_instruction():
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 10, (3, 200)), rng.integers(-9, 10, (200, 4))
    want = np.empty((3, 4))
    for i, j in product(range(3), range(4)):
        total = 0.0
        for k in range(0, 200, 32):
            total += float(a[i, k : k + 32] @ b[k : k + 32, j])
            if total:
                unit = 2.0 ** (math.floor(math.log2(abs(total))) - 5)  # 6 bits
                total = math.trunc(total / unit) * unit
        want[i, j] = total
    got = short_matmul(torch.tensor(a).float(), torch.tensor(b).float(), bits=6)
    np.testing.assert_array_equal(got.numpy(), want)


def test_promotion_repairs_the_short_sum():
    generator = torch.Generator().manual_seed(0)
    a, b = (
        fp8.round_to(torch.randn(s, generator=generator))
        for s in ((64, 4096), (4096, 64))
    )
    exact = a.double() @ b.double()

    def worst(out):
        return float((out - exact).abs().max() / exact.pow(2).mean().sqrt())

    short = worst(short_matmul(a, b))
    promoted = worst(short_matmul(a, b, promote_every=128))
    assert 0.005 < short < 0.03  # DeepSeek measured "nearly 2%" on an H800
    assert promoted < short / 10
    assert worst(short_matmul(a, b, bits=24)) < 1e-5


def test_promotion_is_a_sum_of_short_sums():
    a, b = torch.randn(5, 300), torch.randn(300, 6)
    parts = [
        short_matmul(a[:, k : k + 128], b[k : k + 128]) for k in range(0, 300, 128)
    ]
    assert error(short_matmul(a, b, promote_every=128), sum(parts)) < 1e-7
    with pytest.raises(ValueError, match="multiple of 32"):
        short_matmul(a, b, promote_every=100)
    with pytest.raises(ValueError, match="from 1 to 24"):
        short_matmul(a, b, bits=25)


# --- linear layers ----------------------------------------------------------------


def rounded(x, block, fmt=E4M3, ue8m0=False):
    """As bytes and back: not the function that FP8Linear uses."""
    return fp8.dequantise(*fp8.quantise(x, block, fmt, ue8m0), block)


@pytest.mark.parametrize(
    ("recipe", "row", "column", "square"),
    [
        (Recipe(), (1, 128), (128, 1), (128, 128)),
        (Recipe(tile=32, ue8m0=True), (1, 32), (32, 1), (32, 32)),
        (Recipe(tile=None, grad_fmt=E5M2), *[(None, None)] * 3),
    ],
)
def test_three_products_are_those_of_rounded_factors(recipe, row, column, square):
    x = torch.randn(3, 50, 200, requires_grad=True)
    linear = FP8Linear(nn.Linear(200, 170), recipe)
    y = linear(x)
    grad = torch.randn_like(y)
    y.backward(grad)
    flat, g = x.detach().flatten(0, 1), grad.flatten(0, 1)
    u = recipe.ue8m0
    xq = rounded(flat, row, ue8m0=u)
    wq = rounded(linear.weight.detach(), square, ue8m0=u)
    want = xq @ wq.T + linear.bias.detach()
    assert error(y.flatten(0, 1), want) < 1e-5
    dx = rounded(g, row, recipe.grad_fmt, u) @ wq
    assert error(x.grad.flatten(0, 1), dx) < 1e-5
    gq = rounded(g, column, recipe.grad_fmt, u)
    dw = gq.T @ rounded(xq, column, ue8m0=u)
    assert error(linear.weight.grad, dw) < 1e-5
    assert error(linear.bias.grad, g.sum(0)) < 1e-5
    # and all of it is near what is not rounded, but not the same
    exact = flat @ linear.weight.T + linear.bias
    assert 0.002 < error(y.flatten(0, 1), exact) < 0.1


def test_scales_may_be_applied_to_each_tile_of_the_sum():
    """As the GPU does it: products of bytes, then the two scales, tile by tile."""
    x, w = torch.randn(20, 300), torch.randn(40, 300)
    x8, sx = fp8.quantise(x)
    w8, sw = fp8.quantise(w, 128)
    total = torch.zeros(20, 40)
    for t in range(3):
        k = slice(128 * t, 128 * (t + 1))
        total += x8[:, k].float() @ w8[:, k].float().T * sx[:, t, None] * sw[0, t]
    assert error(fp8_linear(x, w, Recipe()), total) < 1e-6


def test_no_tokens_one_token_and_other_types():
    w = torch.randn(8, 12, requires_grad=True)
    out = fp8_linear(torch.zeros(0, 12), w, Recipe())
    assert out.shape == (0, 8)
    out.sum().backward()
    assert (w.grad == 0).all()
    x = torch.randn(12, dtype=torch.bfloat16)
    assert fp8_linear(x, w, Recipe()).shape == (8,)
    assert fp8_linear(x, w, Recipe()).dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"Recipe\.tile is 0"):
        Recipe(tile=0)


# --- whole models -----------------------------------------------------------------


def sparse_model(seed=0):
    config = small_config(
        attention=MLA(4, 24, 16, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8),
        rope=Rope(),
        moe=MoE(8, 1, 2, 20, score="sigmoid", bias=True, norm_topk=True),
        n_dense_layers=1,
        mtp=MTP(depth=1),
    )
    return randomise(Transformer(config), seed)


def test_what_is_rounded_and_what_is_not():
    model = sparse_model()
    before = dict(model.named_parameters())
    use_fp8(model)
    kinds = {name.rpartition(".")[2]: type(m) for name, m in model.named_modules()}
    changed = {name for name, kind in kinds.items() if kind is FP8Linear}
    assert changed == {"wq_a", "wq_b", "wkv_a", "wkv_b", "wo", "w1", "w2", "w3"}
    assert changed <= set(QUANTISED)
    assert kinds["head"] is nn.Linear and kinds["eh_proj"] is nn.Linear
    after = dict(model.named_parameters())
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)


@pytest.mark.parametrize("make", [small_model, sparse_model])
def test_a_model_in_fp8_is_near_the_same_model(make):
    tokens = random_tokens(2, 20)
    plain, model = make(), use_fp8(make())
    with torch.no_grad():
        difference = error(model(tokens), plain(tokens))
    assert 1e-3 < difference < 0.3


def test_experts_are_rounded_alike_on_both_paths():
    tokens = random_tokens(2, 20)
    losses, grads = [], []
    for path in ("loop", "grouped"):
        model = use_fp8(sparse_model(), Recipe(tile=8))
        with paths(moe=path):
            loss = model(tokens).square().mean()
        loss.backward()
        losses.append(loss)
        grads.append(model.layers[1].ffn.experts.w2.grad)
    assert error(losses[0], losses[1]) < 1e-5
    assert error(grads[0], grads[1]) < 1e-5
    x, w = torch.randn(5, 40), model.layers[1].ffn.experts.w1[0]
    rounded_product = fp8_linear(x, w, Recipe(tile=8))
    assert torch.equal(model.layers[1].ffn.experts.linear(x, w), rounded_product)


def test_a_second_recipe_takes_the_place_of_the_first():
    tokens = random_tokens(2, 20)
    twice = use_fp8(use_fp8(sparse_model(), Recipe(tile=None)), Recipe(tile=8))
    once = use_fp8(sparse_model(), Recipe(tile=8))
    with torch.no_grad():
        assert torch.equal(twice(tokens), once(tokens))
    with pytest.raises(ValueError, match="Sequential has no linear layer named wq"):
        use_fp8(nn.Sequential(nn.Linear(3, 3)))


def test_checkpoints_do_not_change():
    model = use_fp8(small_model(1))
    plain = small_model(2)
    plain.load_state_dict(model.state_dict())
    tokens = random_tokens(1, 10)
    with torch.no_grad():
        assert torch.equal(use_fp8(plain)(tokens), model(tokens))


@pytest.mark.parametrize("short", [False, True])
def test_it_trains_as_float32_does(short):
    tokens = random_tokens(4, 33)
    losses = {}
    for name in ("float32", "fp8"):
        model = small_model(3, n_layers=1).train()
        adam = torch.optim.AdamW(model.parameters(), lr=1e-2)
        if name == "fp8":  # after the optimizer: the parameters are the same
            use_fp8(model, Recipe(tile=16, short=short))
        for _ in range(20):
            logits = model(tokens[:, :-1]).flatten(0, 1)
            loss = nn.functional.cross_entropy(logits, tokens[:, 1:].flatten())
            adam.zero_grad()
            loss.backward()
            adam.step()
        losses[name] = loss.item()
    assert losses["float32"] < 2.0
    assert losses["fp8"] == pytest.approx(losses["float32"], abs=0.2)
