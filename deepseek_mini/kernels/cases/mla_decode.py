"""`deepseek_mini.kernels.mla_decode`: its gates, cases and peers."""

import torch
from torch import Tensor

from deepseek_mini.kernels.case import Case, Goal, demonstrate
from deepseek_mini.kernels.launch import Gate
from deepseek_mini.kernels.mla_decode import (
    TILES,
    TILES_FEW,
    _tile,
    decode_kernel,
    mla_decode,
    reference,
)
from deepseek_mini.kernels.splits import TILES as COMBINE_TILES
from deepseek_mini.kernels.splits import combine_kernel

PEER = _tile(16, 64, 4, 2)  # what public Triton kernels take for 128 heads too


def _gate(name: str, dtype: str, tiles: dict, page: int, **expected) -> Gate:
    inputs = dict.fromkeys(("q_latent", "q_pe", "latent", "k_pe", "out"), f"*{dtype}")
    strides = ("latent_page", "latent_token", "k_pe_page", "k_pe_token", "table_row")
    signature = {
        **inputs, "lse": "*fp32", "lengths": "*i32", "table": "*i32",
        "scale_log2": "fp32", "n_queries": "i32", "n_heads": "i32:16",
        "keys_per_split": "i32:16", **dict.fromkeys(strides, "i32:16"),
    }  # fmt: skip
    sizes = {"C": 512, "R": 64, "PAGE": page}
    return Gate(name, decode_kernel, signature, tiles, sizes, **expected)


_MANY = {80: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}
_SMALL = dict.fromkeys(_MANY, "HMMA")
# Triton 3.9's assembler keeps a few addresses on the stack, 3.6's none.
_STACK = {"instruction": _MANY, "stack": {90: 56}}
GATES = [
    _gate("bf16", "bf16", TILES, 0, **_STACK),
    _gate("bf16, pages of 64", "bf16", TILES, 64, **_STACK),
    _gate("bf16, 16 rows", "bf16", TILES_FEW, 64, instruction=_SMALL),
    _gate(
        "bf16, the peer's tile", "bf16", {80: PEER}, 0, instruction=_SMALL,
        stack={90: 16},
    ),
    Gate(
        "combine",
        combine_kernel,
        {
            "part_out": "*fp32", "part_lse": "*fp32", "lengths": "*i32", "out": "*bf16",
            "lse": "*fp32", "n_splits": "i32", "keys_per_split": "i32:16",
        },
        COMBINE_TILES,
        {"C": 512},
    ),
]  # fmt: skip


def _bmm(q_latent, q_pe, latent, k_pe, lengths, scale, table):
    """bmm, softmax, bmm, in the inputs' type, every cache full."""
    q = torch.cat((q_latent, q_pe), -1).flatten(1, 2)
    scores = torch.bmm(q, _whole(latent, q_pe).mT) * scale
    return torch.bmm(scores.softmax(-1), latent).view_as(q_latent)


def _sdpa(q_latent, q_pe, latent, k_pe, lengths, scale, table):
    """Whichever of PyTorch's fused attentions takes a head 576 wide, if any."""
    q = torch.cat((q_latent, q_pe), -1).flatten(1, 2)[:, None]
    k, v = _whole(latent, q_pe)[:, None], latent[:, None]
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scale)
    return out.view_as(q_latent)


def _whole(latent: Tensor, q_pe: Tensor) -> Tensor:
    """Latents and RoPE keys side by side, as `cases` lays them in memory."""
    shape = (*latent.shape[:2], latent.shape[-1] + q_pe.shape[-1])
    return latent.as_strided(shape, latent.stride())


def _flash_mla(q_latent, q_pe, latent, k_pe, lengths, scale, table):
    import flash_mla

    (B, T, H, C), page = q_latent.shape, 64
    q, cache = torch.cat((q_latent, q_pe), -1), _whole(latent, q_pe)
    table = torch.arange(B * latent.shape[1] // page, device=q.device)
    table = table.int().view(B, -1)
    plan = flash_mla.get_mla_metadata(lengths, T * H, 1)
    return flash_mla.flash_mla_with_kvcache(
        q, cache.view(-1, page, 1, cache.shape[-1]), table, lengths, C, *plan,
        softmax_scale=scale, causal=True,
    )  # fmt: skip


def _public_tile(*inputs):
    return mla_decode(*inputs, tile=PEER)


PEERS = {"bmm-softmax-bmm": _bmm, "SDPA": _sdpa, "flash-mla": _flash_mla}


def cases(device: str, small: bool) -> list[Case]:
    """DeepSeek-V3's 128 heads; the 16 that one of 8 GPUs has; pages, uneven lengths."""
    B, H, S, C, R = (2, 20, 128, 32, 16) if small else (128, 128, 8192, 512, 64)

    def case(H: int, S: int, T: int, uneven: bool, *goals: Goal) -> Case:
        longest = torch.tensor([S] * B)
        lengths = longest - torch.arange(B) * (S // B) if uneven else longest
        keys = int(lengths.sum())
        rows = B * T * H

        def make() -> tuple:
            # Twice the usual queries: with a few keys that weigh most, the result is
            # not the mean of S random latents, which would be near 0 and hide errors.
            q = 2 * torch.randn(B, T, H, C + R, device=device)
            cache = torch.randn(B, S, C + R, device=device).bfloat16()
            table = None
            if uneven:  # pages of 64 tokens, anywhere
                table = torch.randperm(B * S // 64, device=device)
                pages = torch.empty_like(cache).view(-1, 64, C + R)
                pages[table] = cache.view_as(pages)
                cache, table = pages, table.int().view(B, -1)
            parts = *q.bfloat16().split((C, R), -1), *cache.split((C, R), -1)
            scale = (C // 4 + R) ** -0.5
            return *parts, lengths.int().to(device), scale, table

        return Case(
            f"MLA decode, batch {B}, {T} x {H} heads, "
            + (f"{keys} keys in pages, uneven" if uneven else f"context {S}")
            + ", bf16",
            make,
            mla_decode,
            reference,
            # Weights and result are rounded to bf16: 2^-8 of what is summed, twice.
            bound=2**-7,
            moved=2 * (keys * (C + R) + rows * (2 * C + R)),
            flops=2 * H * T * keys * (2 * C + R),
            peers={"BLOCK_H=16": _public_tile} | ({} if uneven else PEERS),
            goals=goals,
            compiled=False,  # the reference is for its numbers: float32, not fast
        )

    fast = (
        Goal("BLOCK_H=16", 2.5), Goal("bmm-softmax-bmm", 1.5), Goal("TFLOP/s", 300.0)
    )  # fmt: skip
    return [
        case(H, S, 1, False, *fast),
        case(H, S, 2, True),
        case(3 if small else 16, S // 2, 1, False, Goal("copy", 0.8)),
    ]


if __name__ == "__main__":
    for architecture, tile in TILES.items():
        print(f"sm_{architecture}: {tile}")
    demonstrate(cases)
