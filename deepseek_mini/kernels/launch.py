"""What the kernels' files share: which tile a GPU gets, what a kernel must compile to.

A tile is a dictionary: the kernel's compile-time sizes, and num_warps and num_stages.
A table of tiles has one for each architecture that differs: {90: ...} is for sm_90, the
H100 and H200, and for what is newer.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import triton
from torch import Tensor

Tile = dict[str, int]
INTERPRETED: bool = triton.knobs.runtime.interpret


def pick(tiles: dict[int, Tile], x: Tensor) -> Tile:
    """The tile for the GPU that holds x; interpreted, that of 0, else the newest.

    Raises:
        ValueError: x is on a CPU and kernels are compiled, or no tile fits its GPU.
    """
    if INTERPRETED:
        return tiles.get(0, tiles[max(tiles)])
    if x.device.type != "cuda":
        raise ValueError(
            f"the tensor is on {x.device.type!r}, but kernels run on 'cuda'; "
            "to interpret them, set TRITON_INTERPRET=1 before Python starts"
        )
    major, minor = torch.cuda.get_device_capability(x.device)
    return tile_for(tiles, 10 * major + minor)


def tile_for(tiles: dict[int, Tile], architecture: int) -> Tile:
    """The tile of the newest architecture that is not newer than this one (90: sm_90).

    Raises:
        ValueError: all tiles are for newer GPUs.
    """
    fitting = [known for known in tiles if 0 < known <= architecture]
    if not fitting:
        oldest = min(known for known in tiles if known)
        raise ValueError(
            f"this GPU is sm_{architecture}, but the kernel needs sm_{oldest} or newer"
        )
    return tiles[max(fitting)]


def contiguous(**tensors: Tensor) -> None:
    """Raises ValueError, with its name, if one of the tensors is not contiguous."""
    for name, tensor in tensors.items():
        if not tensor.is_contiguous():
            raise ValueError(
                f"{name} has strides {tensor.stride()}, but the kernel reads it "
                "row by row: call .contiguous() first"
            )


@dataclass(frozen=True)
class Gate:
    """What a kernel must compile to, without a GPU (checked by tools/compile_gate.py).

    signature: the type of every argument that is not constexpr, "*bf16", "i32", "fp32".
        Pointers count as divisible by 16, as they are in PyTorch; so does "i32:16".
    tiles: as the launching function picks from; constexprs: the same for every GPU.
    instruction: what the machine code must hold, {90: "HGMMA"}.
    options: what else the launch sets, {"enable_fp_fusion": False}.
    stack: bytes of registers spilled to memory that are allowed, {90: 64}; 0 else.
    refused: architectures that cannot compile it, with words of the error, {80: "fp8"}.
    """

    name: str
    kernel: Any
    signature: dict[str, str]
    tiles: dict[int, Tile]
    constexprs: dict[str, Any] = field(default_factory=dict)
    instruction: dict[int, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    stack: dict[int, int] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
