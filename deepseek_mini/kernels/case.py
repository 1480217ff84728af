"""A kernel at one size: checked against its reference, and timed where there is a GPU.

A kernel's file in cases/ gives `cases(device, small)`, which its demonstration and
`make bench-gpu` run.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
from torch import Tensor

from deepseek_mini.kernels.launch import INTERPRETED

Cases = Callable[[str, bool], "list[Case]"]


@dataclass(frozen=True)
class Goal:
    """`at_least` this, measured against a peer or a rate of the same run.

    against: the name of a peer ("eager", "torch.compile", ...): how many times faster;
        "copy": the share of the bandwidth that copying reaches; "bf16" or "fp8": the
        share of cuBLAS' rate; "TFLOP/s": the rate itself.
    """

    against: str
    at_least: float


@dataclass(frozen=True)
class Case:
    """One operation at one size.

    make: the inputs, on the device. kernel, reference: functions of them that return a
    tensor or a tuple of tensors. bound: of the error, see `error`; 0 means equal bytes.
    moved: bytes that must be read and written at least. flops: multiplications and
    additions, 0 where memory is all that counts. peers: other ways to compute the same,
    functions of the same inputs; what one has to prepare is not timed if it returns a
    function that does the rest. The reference itself is always the peer "eager".
    compiled: whether torch.compile(reference) is a peer too. compare: what is made of
    outputs before they are compared, where bytes as such do not say how far they are.
    in_place: the functions change their inputs, so each is compared on a copy of them.
    """

    name: str
    make: Callable[[], tuple]
    kernel: Callable
    reference: Callable
    bound: float
    moved: int
    flops: int = 0
    peers: dict[str, Callable] = field(default_factory=dict)
    goals: tuple[Goal, ...] = ()
    compiled: bool = True
    compare: Callable | None = None
    in_place: bool = False

    def error(self, inputs: tuple, function: Callable | None = None) -> float:
        """How far the outputs of a function, by default the kernel, are from the
        reference's, see `difference`.
        """
        out = (function or self.kernel)(*self.fresh(inputs))
        wanted = self.reference(*self.fresh(inputs))
        if self.compare:
            out, wanted = self.compare(out), self.compare(wanted)
        if function is None:
            pairs = zip(_tuple(out), _tuple(wanted), strict=True)
        else:  # a peer may make less than the kernel, or make it in another type
            pairs = [(a.to(b.dtype), b) for a, b in zip(_tuple(out), _tuple(wanted))]
        return max(difference(a, b) for a, b in pairs)

    def fresh(self, inputs: tuple) -> tuple:
        """The inputs, or a copy of them where functions change them."""
        return tuple(map(torch.clone, inputs)) if self.in_place else inputs


def difference(a: Tensor, b: Tensor) -> float:
    """max|a - b| / max(1, max|b|); infinity where only one is NaN, or shapes differ.

    Integers and bytes (fp8) must be equal: 0, or 1 and more for what differs.
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if a.dtype.itemsize == 1 or not a.is_floating_point():
        return float((a.view(torch.uint8) != b.view(torch.uint8)).sum())
    a, b = a.float(), b.float()
    if not torch.equal(a.isnan(), b.isnan()):
        return float("inf")
    largest = b.nan_to_num(0.0).abs().max().clamp(min=1)
    return float((a - b).nan_to_num(0.0).abs().max() / largest)


def _tuple(value: Any) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def milliseconds(run: Callable[[], Any]) -> float:
    """The median time of a run on the GPU, its cache emptied before each."""
    return triton.testing.do_bench(run, warmup=25, rep=100, return_mode="median")


def demonstrate(cases: Cases) -> None:
    """Run a kernel's cases and print what came out: on a GPU at full size and timed,
    interpreted at small sizes. Exit status 1 when an error is over its bound.
    """
    if not (INTERPRETED or torch.cuda.is_available()):
        sys.exit(
            "There is no GPU here. Set TRITON_INTERPRET=1 to interpret the kernel."
        )
    wrong = 0
    torch.manual_seed(0)
    if INTERPRETED:
        print("Interpreted on a CPU, at small sizes:")
    else:
        print(f"Compiled, on {torch.cuda.get_device_name()}:")
    for case in cases("cpu" if INTERPRETED else "cuda", INTERPRETED):
        inputs = case.make()
        error = case.error(inputs)
        right = error <= case.bound
        wrong += not right
        # Interpreted, the digits depend on the CPU, and notebooks store this text.
        told = f"at most {case.bound:.1e}" if INTERPRETED and right else f"{error:.1e}"
        verdict = "ok" if right else f"WRONG, over {case.bound:.1e}"
        print(f"{case.name}\n  error {told}: {verdict}")
        if not INTERPRETED:
            print(f"  {_speed(case, inputs)}")
    sys.exit(1 if wrong else 0)


def _speed(case: Case, inputs: tuple) -> str:
    ours = milliseconds(lambda: case.kernel(*inputs))
    eager = milliseconds(lambda: case.reference(*inputs))
    rate = f"{case.moved / ours / 1e6:.0f} GB/s"
    if case.flops:
        rate += f", {case.flops / ours / 1e9:.0f} TFLOP/s"
    return f"{ours:.3f} ms: {rate}; eager {eager:.3f} ms, {eager / ours:.1f} times ours"
