"""The gate of a mixture of experts: from logits to the chosen experts and weights.

One program decides for a few tokens without leaving the registers of a warp: scores,
the best groups, the best experts in them, their weights. Logits are read once, and K
ids and K weights are written; eager PyTorch goes through memory about ten times.

Which experts are chosen is exact. Where scores are equal the lower id wins, of groups
as of experts, and comes first. `sigmoid` rounds as `exact_sigmoid` does, bit for bit,
so near ties fall the same way on every machine. Without a bias nothing is rounded at
all: logits are in the order of their scores.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from deepseek_mini.config import MoE
from deepseek_mini.kernels.launch import contiguous, pick

# A warp a program: its reductions then need no shared memory.
TILES = {80: {"ROWS": 2, "num_warps": 1}, 0: {"ROWS": 16}}
TILES_FEW = {
    80: {"ROWS": 1, "num_warps": 1},
    0: {"ROWS": 8},
}  # so that every multiprocessor has some
FEW = 1024

LOG2_E = tl.constexpr(1.4426950408889634)
LN2_HIGH = tl.constexpr(0.693359375)  # nine bits: times a whole number it is exact
LN2_LOW = tl.constexpr(-2.12194440e-4)
LOWEST = tl.constexpr(-3.4028234663852886e38)  # an expert that is there, but the last
OUT = tl.constexpr(float("-inf"))  # out of reach, or no expert
TAKEN = tl.constexpr(-(2**31))  # an expert that is chosen already


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x) of float32, by operations that round alike everywhere.

    e^y = 2^n e^r with |r| <= ln(2) / 2, and e^r is its Taylor series, in which no
    product may be fused with an addition. NaN stays NaN.
    """
    y = tl.minimum(tl.maximum(-x, -87.0), 87.0)
    n = tl.floor(y * LOG2_E + 0.5)
    r = (y - n * LN2_HIGH) - n * LN2_LOW
    e = r * (1.0 / 5040.0) + (1.0 / 720.0)
    e = e * r + (1.0 / 120.0)
    e = e * r + (1.0 / 24.0)
    e = e * r + (1.0 / 6.0)
    e = e * r + 0.5
    e = e * r + 1.0
    e = e * r + 1.0
    power = ((n.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)
    return tl.where(x == x, tl.div_rn(1.0, e * power + 1.0), x)


@triton.jit
def gate_kernel(
    logits, bias, ids_out, weights_out, n_tokens, route_scale, SIGMOID: tl.constexpr,
    NORM: tl.constexpr, K: tl.constexpr, GROUPS: tl.constexpr, LIMIT: tl.constexpr,
    SIZE: tl.constexpr, LANES_K: tl.constexpr, LANES_G: tl.constexpr,
    LANES_S: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """GROUPS of SIZE experts on LANES_G x LANES_S lanes (powers of two)."""
    token = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row = token.to(tl.int64) * (GROUPS * SIZE)
    group, place = tl.arange(0, LANES_G), tl.arange(0, LANES_S)
    expert = group[:, None] * SIZE + place[None, :]
    exists = (group < GROUPS)[:, None] & (place < SIZE)[None, :]
    inside = (token < n_tokens)[:, None, None] & exists[None, :, :]
    x = tl.load(logits + row[:, None, None] + expert[None, :, :], inside, 0.0)

    # Experts are ranked by scores with the bias, or by logits, which is the same order.
    ranked = x + 0.0  # -0 is 0
    if bias is not None:
        ranked = sigmoid(x) + tl.load(bias + expert, exists, 0.0)[None, :, :]
    # A NaN comes first, so that weights show it and no expert is chosen twice.
    ranked = tl.where(ranked == ranked, ranked, float("inf"))
    ranked = tl.where(exists[None, :, :], tl.maximum(ranked, LOWEST), OUT)

    if LIMIT < GROUPS:
        worth = tl.max(ranked, axis=2)
        if bias is not None:  # the two best of a group; else the best alone
            equal = ranked == worth[:, :, None]
            lower = tl.max(tl.where(equal, OUT, ranked), axis=2)
            alone = tl.sum(equal.to(tl.int32), axis=2) == 1
            worth += tl.where(alone, lower, worth)
        mine, other = worth[:, :, None], worth[:, None, :]
        before = group[None, None, :] < group[None, :, None]
        ahead = (other > mine) | ((other == mine) & before)
        reached = tl.sum(ahead.to(tl.int32), axis=2) < LIMIT
        ranked = tl.where(reached[:, :, None], ranked, OUT)

    # A warp finds the largest of 32 integers in one instruction, of floats in ten. So
    # bits are flipped such that they have the numbers' order as integers.
    bits = tl.reshape(ranked, (ROWS, LANES_G * LANES_S)).to(tl.int32, bitcast=True)
    order = bits ^ ((bits >> 31) & 0x7FFF_FFFF)
    lane, k = tl.arange(0, LANES_G * LANES_S)[None, :], tl.arange(0, LANES_K)[None, :]
    ids = tl.zeros((ROWS, LANES_K), tl.int32)
    for i in tl.static_range(K):
        is_best = order == tl.max(order, axis=1)[:, None]
        first = tl.min(tl.where(is_best, lane, LANES_G * LANES_S), axis=1)[:, None]
        order = tl.where(lane == first, TAKEN, order)
        ids = tl.where(k == i, first // LANES_S * SIZE + first % LANES_S, ids)

    # The bias has no part in the weights: read the K logits again, from the cache.
    kept = (token < n_tokens)[:, None] & (k < K)
    chosen = tl.load(logits + row[:, None] + ids, kept, 0.0)
    if SIGMOID:
        weights = sigmoid(chosen)
    else:
        every = tl.where(exists[None, :, :], x, OUT)
        largest = tl.max(tl.max(every, axis=2), axis=1)
        total = tl.sum(tl.sum(tl.exp(every - largest[:, None, None]), axis=2), axis=1)
        weights = tl.exp(chosen - largest[:, None]) / total[:, None]
    if NORM:
        weights /= tl.sum(tl.where(k < K, weights, 0.0), axis=1)[:, None] + 1e-20
    at = token.to(tl.int64)[:, None] * K + k
    tl.store(ids_out + at, ids, kept)
    tl.store(weights_out + at, weights * route_scale, kept)


def gate(
    logits: Float[Tensor, "T E"], part: MoE, bias: Float[Tensor, " E"] | None = None
) -> tuple[Int[Tensor, "T K"], Float[Tensor, "T K"]]:
    """The K chosen experts of every token, the best first, and their weights
    (DeepSeek-V3, arXiv 2412.19437, §2.1.2; with groups but no bias V2, 2405.04434,
    §2.2.2). No gradients.

    logits: the tokens times the gate's weight, in float32. bias: V3's, for the choice
    alone. A NaN among a token's logits is chosen, and its weight is NaN.

    Raises:
        ValueError: a tensor is not float32 or not contiguous, logits are not those of
            part's experts, or a bias is given with "softmax", which no model has.
    """
    n_tokens, n_experts = logits.shape
    if n_experts != part.n_routed_experts:
        raise ValueError(
            f"logits are of {n_experts} experts, but the layer has "
            f"{part.n_routed_experts}"
        )
    if bias is not None and part.score != "sigmoid":
        raise ValueError("a bias was given, but the score is 'softmax': give none")
    for name, tensor in {"logits": logits, "bias": bias}.items():
        if tensor is not None and tensor.dtype != torch.float32:
            raise ValueError(f"{name} is {tensor.dtype}, but must be torch.float32")
        if tensor is not None:
            contiguous(**{name: tensor})
    shape = n_tokens, part.n_activated_experts
    ids = torch.empty(shape, dtype=torch.int32, device=logits.device)
    weights = torch.empty(shape, dtype=torch.float32, device=logits.device)
    tile = pick(TILES_FEW if n_tokens <= FEW else TILES, logits)
    if ids.numel():
        gate_kernel[(triton.cdiv(n_tokens, tile["ROWS"]),)](
            logits, bias, ids, weights, n_tokens, part.route_scale, **_sizes(part),
            **tile, enable_fp_fusion=False,
        )  # fmt: skip
    return ids, weights


def _sizes(part: MoE) -> dict[str, int]:
    size = part.n_routed_experts // part.n_groups
    return {
        "SIGMOID": part.score == "sigmoid",
        "NORM": part.norm_topk,
        "K": part.n_activated_experts,
        "GROUPS": part.n_groups,
        "LIMIT": part.n_limited_groups,
        "SIZE": size,
        "LANES_K": triton.next_power_of_2(part.n_activated_experts),
        "LANES_G": triton.next_power_of_2(part.n_groups),
        "LANES_S": triton.next_power_of_2(size),
    }


def exact_sigmoid(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The kernel's `sigmoid` in plain PyTorch: equal in every bit, for float32."""
    y = (-x).clamp(-87.0, 87.0)
    n = torch.floor(y * LOG2_E.value + 0.5)
    r = (y - n * LN2_HIGH.value) - n * LN2_LOW.value
    e = r * (1 / 5040) + 1 / 720
    for coefficient in (1 / 120, 1 / 24, 1 / 6, 0.5, 1.0, 1.0):
        e = e * r + coefficient
    power = (n.nan_to_num().int() + 127 << 23).view(torch.float32)
    return 1.0 / (e * power + 1.0)


def reference(
    logits: Float[Tensor, "T E"], part: MoE, bias: Float[Tensor, " E"] | None = None
) -> tuple[Int[Tensor, "T K"], Float[Tensor, "T K"]]:
    """`gate` in plain PyTorch, with its rule for ties; ids are equal."""
    sigmoid = part.score == "sigmoid"
    ranked = logits if bias is None else exact_sigmoid(logits) + bias
    ranked = ranked.nan_to_num(torch.inf, torch.inf, LOWEST.value)
    if part.n_limited_groups < part.n_groups:
        groups = ranked.unflatten(1, (part.n_groups, -1))
        worth = groups.topk(1 if bias is None else 2, dim=-1).values.sum(-1)
        best = _first(worth, part.n_limited_groups)
        out = torch.ones_like(worth, dtype=torch.bool).scatter(1, best, False)
        ranked = groups.masked_fill(out[..., None], -torch.inf).flatten(1)
    ids = _first(ranked, part.n_activated_experts)
    scores = exact_sigmoid(logits) if sigmoid else logits.softmax(-1)
    weights = scores.gather(1, ids)
    if part.norm_topk:
        weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
    return ids.int(), weights * part.route_scale


def _first(x: Tensor, k: int) -> Tensor:
    """The places of the k largest: topk, which has no rule for ties, with one."""
    return x.sort(dim=-1, descending=True, stable=True).indices[:, :k]
