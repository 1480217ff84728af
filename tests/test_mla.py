"""Latent attention: two paths, one cache, and what must not leak into either."""

from dataclasses import replace

import pytest
import torch
from helpers import LATENTS, error, random_tokens, small_model, sparse_model
from hypothesis import given, settings
from hypothesis import strategies as st

import deepseek_mini as dm
from deepseek_mini.config import MLA, Rope, Yarn
from deepseek_mini.model.rope import apply_rope, rope_table

BOUND = 1e-5
PLAIN = Rope()
NO_Q_LORA = replace(LATENTS, q_lora_rank=None)


def model_of(part: MLA = LATENTS, rope: Rope = PLAIN, **changes) -> dm.Transformer:
    return small_model(attention=part, rope=rope, **changes)


@pytest.mark.parametrize("part", [LATENTS, NO_Q_LORA])
def test_the_cache_holds_a_latent_and_one_rope_key(part):
    """14 + 8 numbers a token and layer, whatever the number of heads."""
    model = model_of(part)
    cache = model.new_cache(2, 10)
    latent, k_pe = cache.parts
    assert latent.shape == (3, 2, 10, 14) and k_pe.shape == (3, 2, 10, 8)
    assert cache.nbytes == 4 * 3 * 2 * 10 * (14 + 8)
    wide = model_of(replace(part, n_heads=8)).new_cache(2, 10)
    assert wide.nbytes == cache.nbytes


@torch.no_grad()
def test_what_the_cache_holds_is_normalised_and_turned():
    """The latent after kv_norm and before wkv_b, the key after RoPE: the first layer's,
    from its own matrices.
    """
    model, tokens = model_of(), random_tokens(1, 6)
    cache = model.new_cache(1, 9)
    model(tokens[:, :4], cache=cache)
    model(tokens[:, 4:], cache=cache)
    layer = model.layers[0]
    latent, key = layer.attn.wkv_a(layer.attn_norm(model.embed(tokens))).split(
        (14, 8), dim=-1
    )
    scale = (latent.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    table = rope_table(Rope(), 8, torch.arange(6))
    assert (
        error(cache.parts[0][0, :, :6], latent * scale * layer.attn.kv_norm.weight)
        < 1e-6
    )
    turned = apply_rope(key[:, :, None], *table, "interleaved")[:, :, 0]
    assert error(cache.parts[1][0, :, :6], turned) < 1e-6


@torch.no_grad()
@pytest.mark.parametrize("attention", ["auto", "naive", "absorbed"])
@pytest.mark.parametrize("part", [LATENTS, NO_Q_LORA])
def test_pieces_truncation_and_padding(attention, part):
    model, tokens = model_of(part), random_tokens(3, 17)
    pad = torch.arange(17) < torch.tensor([[0], [2], [6]])
    whole = model(tokens, pad=pad)
    cache = model.new_cache(3, 20)
    with dm.paths(attention=attention):
        pieces = [
            model(t, cache=cache, pad=p)
            for t, p in zip(tokens.split([3, 1, 9, 4], 1), pad.split([3, 1, 9, 4], 1))
        ]
        assert error(torch.cat(pieces, dim=1)[~pad], whole[~pad]) < BOUND
        cache.truncate(8)
        model(random_tokens(3, 11, seed=5), cache=cache)
        cache.truncate(8)
        again = model(tokens[:, 8:], cache=cache)
        assert error(again, whole[:, 8:]) < BOUND
        for row in range(3):  # a row alone says the same
            alone = model(tokens[row : row + 1][:, ~pad[row]])
            assert error(alone[0], whole[row][~pad[row]]) < BOUND


@st.composite
def shapes(draw) -> MLA:
    small, q_lora_rank = st.integers(1, 9), draw(st.none() | st.integers(1, 9))
    return MLA(
        n_heads=draw(st.integers(1, 5)),
        q_lora_rank=q_lora_rank,
        kv_lora_rank=draw(small),
        qk_nope_head_dim=draw(small),
        qk_rope_head_dim=2 * draw(st.integers(1, 4)),
        v_head_dim=draw(small),
    )


@settings(max_examples=40, deadline=None)
@given(
    shapes(),
    st.sampled_from([Rope(), Rope(100.0, "half_split", Yarn(4, 16, mscale_all_dim=1))]),
    st.integers(1, 3),
    st.integers(1, 12),
    st.booleans(),
)
def test_naive_equals_absorbed_forward_and_backward(part, rope, rows, length, padded):
    model = model_of(part, rope, n_layers=2).double()
    tokens = random_tokens(rows, length)
    pad = torch.arange(length) < torch.arange(rows)[:, None].clamp(max=length - 1)
    pad = pad if padded else None
    results = []
    for path in ("naive", "absorbed", "auto"):
        model.zero_grad()
        with dm.paths(attention=path):
            out = model(tokens, pad=pad)
        out = out if pad is None else out[~pad]
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
        results.append((out.detach(), gradients))
    for out, gradients in results[1:]:
        assert error(out, results[0][0]) < 1e-12
        for name, gradient in gradients.items():
            assert error(gradient, results[0][1][name]) < 1e-11, name


def test_the_automatic_path_decodes_absorbed_and_reads_a_text_naively(monkeypatch):
    taken = []
    for path in ("naive", "absorbed"):
        real = getattr(dm.model.MLA, path)

        def wrapped(self, *args, path=path, real=real):
            taken.append(path)
            return real(self, *args)

        monkeypatch.setattr(dm.model.MLA, path, wrapped)
    part = MLA(4, None, 16, 8, 4, 8)
    model = model_of(part, n_layers=1)
    cache = model.new_cache(1, 64)
    model(random_tokens(1, 50), cache=cache)
    model(random_tokens(1, 1), cache=cache)
    assert taken == ["naive", "absorbed"]


@torch.no_grad()
@pytest.mark.parametrize(
    "change",
    [
        {"scaling": Yarn(40, 16, mscale=0.7, mscale_all_dim=0.7)},
        {"layout": "half_split"},
    ],
)
def test_rope_matters_to_the_result(change):
    """YaRN with equal mscales leaves cosine and sine alone, not the softmax."""
    model, tokens = model_of(), random_tokens(2, 20)
    other = dm.Transformer(replace(model.config, rope=replace(Rope(), **change)))
    other.load_state_dict(model.state_dict())
    assert error(other(tokens), model(tokens)) > 0.01


@torch.no_grad()
def test_yarn_scales_the_softmax_by_the_square_of_its_temperature():
    """m(0.5)² with m(x) = 0.1 x ln 40 + 1 = 1.184..., on channels without RoPE too."""
    plain, yarn = (
        model_of(),
        model_of(rope=Rope(scaling=Yarn(40, 16, 1, 0.5, 0.5, 0.5))),
    )
    ratio = yarn.layers[0].attn.scale / plain.layers[0].attn.scale
    assert ratio == pytest.approx(1.1844439727**2)
    assert plain.layers[0].attn.scale == pytest.approx(18**-0.5)  # n + r, not C + r


@torch.no_grad()
def test_nothing_later_matters():
    for path in ("naive", "absorbed"):
        model, tokens = sparse_model("v2"), random_tokens(1, 12)
        changed = tokens.clone()
        changed[0, 7] = (changed[0, 7] + 1) % 61
        with dm.paths(attention=path):
            a, b = model(tokens), model(changed)
        assert torch.equal(a[:, :7], b[:, :7]) or error(a[:, :7], b[:, :7]) < 1e-6
        assert error(a[:, 7:], b[:, 7:]) > 1e-3
