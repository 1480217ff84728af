"""A whole decoder layer by the kernels: norms, MLA, experts, and the residual stream.

    h = stream + branch          branch: what the layer before found, not yet added
    h = h + attention(norm(h))
    out = experts(norm(h))       the next layer's branch

Each sum is needed at once, to be normalised, and again, as the stream. One kernel does
both, so the layer's last sum waits for the next layer: two passes over the stream in a
layer, and none for additions alone.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepseek_mini.kernels.mla_layer import mla_layer
from deepseek_mini.kernels.moe_layer import (
    Fp8Experts,
    moe_layer,
    moe_layer_fp8,
    reference_fp8,
)
from deepseek_mini.kernels.rmsnorm import add_rmsnorm
from deepseek_mini.model.cache import KVCache
from deepseek_mini.model.moe import MoE
from deepseek_mini.model.transformer import Block


@torch.no_grad()
def decoder_layer(
    block: Block,
    branch: Float[Tensor, "B T D"],
    stream: Float[Tensor, "B T D"],
    cos: Float[Tensor, "*B T half"],
    sin: Float[Tensor, "*B T half"],
    latent: Float[Tensor, "B S C"],
    k_pe: Float[Tensor, "B S r"],
    before: Int[Tensor, " B"],
    experts: Fp8Experts | None = None,
    *,
    absorb: bool,
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T D"]]:
    """(branch, stream) behind a block whose attention is MLA (DeepSeek-V3, arXiv
    2412.19437, §2.1): their sum is `block(stream + branch, cos, sin, cache=...)`.

    Cache, `before` and `absorb` as in `mla_layer`, which writes into the cache. With
    `experts` the routed experts are these, in FP8, and not the block's own. A dense
    block's network needs no kernel of ours.

    Raises:
        ValueError: FP8 experts for a dense block, or as `mla_layer` and `moe_layer`.
    """
    sparse = isinstance(block.ffn, MoE)
    if experts is not None and not sparse:
        raise ValueError("experts were given, but this block is dense: give none")
    norm = block.attn_norm
    y, stream = add_rmsnorm(branch, stream, norm.weight, norm.eps)
    branch = mla_layer(block.attn, y, cos, sin, latent, k_pe, before, absorb)
    norm = block.ffn_norm
    y, stream = add_rmsnorm(branch, stream, norm.weight, norm.eps)
    if not sparse:
        return block.ffn(y), stream
    tokens = y.flatten(0, 1)
    if experts is None:
        return moe_layer(tokens, block.ffn).view_as(y), stream
    return moe_layer_fp8(tokens, block.ffn, experts).view_as(y), stream


class UnevenCache(KVCache):
    """One layer's cache whose rows are of uneven length: for `reference`.

    It returns all S places of every row, so the block needs a mask, and what was never
    written must be numbers.
    """

    def __init__(
        self,
        latent: Float[Tensor, "B S C"],
        k_pe: Float[Tensor, "B S r"],
        before: Int[Tensor, " B"],
    ):
        self.parts, self.before = [latent, k_pe], before

    def append(self, layer: int, *new: Float[Tensor, "B T _"]) -> list[Tensor]:
        """Write behind each row's own tokens."""
        n_tokens, device = new[0].shape[1], self.before.device
        place = self.before[:, None] + torch.arange(n_tokens, device=device)  # [B, T]
        row = torch.arange(len(self.before), device=device)[:, None]
        for part, value in zip(self.parts, new, strict=True):
            part[row, place] = value
        return self.parts


@torch.no_grad()
def reference(
    block: Block,
    branch: Float[Tensor, "B T D"],
    stream: Float[Tensor, "B T D"],
    cos: Float[Tensor, "*B T half"],
    sin: Float[Tensor, "*B T half"],
    latent: Float[Tensor, "B S C"],
    k_pe: Float[Tensor, "B S r"],
    before: Int[Tensor, " B"],
    experts: Fp8Experts | None = None,
    even: bool = False,
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T D"]]:
    """`decoder_layer` by the model's modules, the two parts of `Block.forward`.

    even: all rows are full with the new tokens, S = before + T. Nothing need be masked
    then, which is faster.
    """
    T, S = stream.shape[1], latent.shape[1]
    mask = None
    if not even:
        place = before[:, None] + torch.arange(T, device=before.device)
        mask = torch.arange(S, device=before.device) <= place[..., None]  # [B, T, S]
    cache = UnevenCache(latent, k_pe, before)
    h = stream + branch
    h = h + block.attn(block.attn_norm(h), cos, sin, mask, cache)
    y = block.ffn_norm(h)
    if experts is None:
        return block.ffn(y), h
    return reference_fp8(y.flatten(0, 1), block.ffn, experts).view_as(y), h
