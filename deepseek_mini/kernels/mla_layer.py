"""A whole MLA layer with a cache, its attention by the kernels: prefill and decode."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepseek_mini.kernels.mla_decode import mla_decode
from deepseek_mini.kernels.mla_prefill import mla_prefill
from deepseek_mini.kernels.rope import latent_norm_rope, query_rope_
from deepseek_mini.model.mla import MLA


@torch.no_grad()
def mla_layer(
    attn: MLA,
    x: Float[Tensor, "B T D"],
    cos: Float[Tensor, "*B T half"],
    sin: Float[Tensor, "*B T half"],
    latent: Float[Tensor, "B S C"],
    k_pe: Float[Tensor, "B S r"],
    before: Int[Tensor, " B"],
    absorb: bool,
) -> Float[Tensor, "B T D"]:
    """`attn(x, cos, sin, cache=...)` with rows of uneven length (DeepSeek-V2, arXiv
    2405.04434, §2.1). Writes the T new tokens into the cache and attends.

    `before[b]` tokens of row b are in its cache, `latent[b]` and `k_pe[b]`, which has
    room for T more (not checked: it would wait for the GPU); the table's rows are the
    new tokens' positions, in float32. `absorb` says how: True attends to the latents as
    they lie, for a few new tokens; False expands all S of them first, so hand over a
    cache without much room to spare.

    Raises:
        ValueError: pairs of RoPE are not neighbours, or as the kernels do.
    """
    if attn.layout != "interleaved":
        raise ValueError(
            f"the layout of RoPE is {attn.layout!r}, but the kernels turn 'interleaved'"
        )
    T, norm = x.shape[1], attn.kv_norm
    q = attn.queries(x).unflatten(-1, (attn.n_heads, -1))  # [B, T, H, n + r]
    q_nope, q_pe = query_rope_(q, cos, sin).split((attn.nope_dim, attn.rope_dim), -1)
    new = latent_norm_rope(attn.wkv_a(x), norm.weight, cos, sin, norm.eps)
    place = before[:, None] + torch.arange(T, device=x.device)  # [B, T]
    row = torch.arange(len(before), device=x.device)[:, None]
    latent[row, place], k_pe[row, place] = new.split(
        (attn.latent_dim, attn.rope_dim), -1
    )
    lengths = before + T

    widths = attn.nope_dim, attn.v_dim
    if absorb:
        weight = attn.wkv_b.weight.unflatten(0, (attn.n_heads, -1))  # [H, n + v, C]
        w_k, w_v = weight.split(widths, 1)
        q_latent = torch.einsum("bthn,hnc->bthc", q_nope, w_k)
        out, _ = mla_decode(q_latent, q_pe, latent, k_pe, lengths, attn.scale)
        out = torch.einsum("bthc,hvc->bthv", out, w_v)
    else:
        kv = attn.wkv_b(latent).unflatten(-1, (attn.n_heads, -1))  # [B, S, H, n + v]
        k_nope, v = kv.split(widths, -1)
        out, _ = mla_prefill(q_nope, q_pe, k_nope, k_pe, v, attn.scale, lengths)
    return attn.wo(out.flatten(-2))
