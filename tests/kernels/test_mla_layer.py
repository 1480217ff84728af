"""The layer with the kernels is the model's MLA, row by row."""

from __future__ import annotations

import pytest
import torch
from helpers import error, randomise, small_config

from deepseek_mini.config import MLA as Part
from deepseek_mini.config import Rope, Yarn
from deepseek_mini.kernels.mla_layer import mla_layer
from deepseek_mini.model.cache import KVCache
from deepseek_mini.model.mla import MLA
from deepseek_mini.model.rope import rope_table

PART = Part(3, 18, 32, 16, 16, 16)
ROPE = Rope(scaling=Yarn(40, 16, mscale=1.0, mscale_all_dim=1.0))  # as V3's


# float32: sums in another order. bf16: the model rounds what it makes of the latents at
# other places than the kernels do, several times 2^-8.
@pytest.mark.parametrize(
    "dtype, bound", [(torch.float32, 1e-5), (torch.bfloat16, 0.015)]
)
@pytest.mark.parametrize("absorb", [True, False])
@torch.no_grad()
def test_prompts_of_uneven_length_then_new_tokens(absorb, dtype, bound):
    """The cache after a prompt, then one token, then two at a time."""
    config = small_config(attention=PART, rope=ROPE, n_layers=1)
    attn = randomise(MLA(config, 0)).to(dtype)
    room, before = 24, torch.tensor([17, 0, 9], dtype=torch.int32)
    tokens = torch.randn(3, room, config.dim).to(dtype)
    latent, k_pe = (torch.full((3, room, w), torch.nan, dtype=dtype) for w in (32, 16))
    wanted = []
    for b, prompt in enumerate(before.tolist()):  # the model, one row at a time
        cache = KVCache(config, 1, room, dtype)
        cos, sin = rope_table(ROPE, 16, torch.arange(room), dtype)
        for start, end in ((0, prompt), (prompt, prompt + 1), (prompt + 1, prompt + 3)):
            piece = slice(start, end)
            if start == prompt:
                latent[b, :prompt] = cache.parts[0][0, 0, :prompt]
                k_pe[b, :prompt] = cache.parts[1][0, 0, :prompt]
            if end > start:
                x = tokens[b : b + 1, piece]
                out = attn(x, cos[piece], sin[piece], cache=cache)
                cache.length = end
        wanted.append(out)
    for new in (1, 2):
        place = before[:, None] + torch.arange(new)
        x = tokens[torch.arange(3)[:, None], place]
        cos, sin = (t.view(3, new, -1) for t in rope_table(ROPE, 16, place.flatten()))
        out = mla_layer(attn, x, cos, sin, latent, k_pe, before, absorb)
        before = before + new
    assert error(out, torch.cat(wanted)) < bound
    assert latent.isnan().any()  # what was never written stays unread


@torch.no_grad()
def test_a_prompt_at_once():
    config = small_config(attention=PART, rope=ROPE, n_layers=1)
    attn, x = randomise(MLA(config, 0)), torch.randn(2, 21, config.dim)
    cos, sin = rope_table(ROPE, 16, torch.arange(21))
    wanted = attn(x, cos, sin)
    for absorb in (True, False):
        latent, k_pe = torch.full((2, 23, 32), torch.nan), torch.full((2, 23, 16), 1.0)
        before = torch.zeros(2, dtype=torch.int32)
        out = mla_layer(attn, x, cos, sin, latent, k_pe, before, absorb)
        assert error(out, wanted) < 1e-5
