"""Where the time of several kernels goes: each step's share, beside its floor.

A step is a set of functions that are called one after the other. While a profile is
taken, each is called through a wrapper that notes when it began and when it ended: on a
GPU by events in its queue, so that nothing waits.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import wraps
from statistics import median
from typing import Any
from unittest.mock import patch

import torch

RATES = {"copy": 3.0, "bf16": 800.0, "fp8": 1600.0}  # of an H100; assumed


@dataclass(frozen=True)
class Step:
    """What a part of the work is called, where its functions are, (module or object,
    name), and what it must do: bytes read and written, operations, and the type that
    they are in, "bf16" or "fp8". A step of no functions is what remains of the time.
    """

    name: str
    calls: tuple[tuple[Any, str], ...]
    moved: int
    flops: int = 0
    kind: str = "bf16"

    def floor(self, rates: dict[str, float]) -> float:
        """Milliseconds at rates: "copy" in TB/s, "bf16" and "fp8" in TFLOP/s."""
        return max(self.moved / rates["copy"], self.flops / rates[self.kind]) / 1e9


def profile(
    run: Callable[[], Any], steps: list[Step], device: str, repeats: int = 10
) -> list[float]:
    """Milliseconds of each step and, last, of the whole `run`; medians of `repeats`.

    Raises:
        ValueError: a step's functions are not called.
    """
    cuda = device == "cuda"
    if cuda:
        run()  # compiles the kernels
    taken = []
    for _ in range(repeats):
        spans = {step.name: [] for step in steps}
        with ExitStack() as patches:
            for step in steps:
                for owner, name in step.calls:
                    timed = _timed(getattr(owner, name), spans[step.name], cuda)
                    patches.enter_context(patch.object(owner, name, timed))
            if cuda:  # the GPU starts late: launching must not be what takes the time
                torch.cuda._sleep(20_000_000)
            start = _now(cuda)
            run()
            whole = _between(start, _now(cuda))
        each = {
            name: sum(_between(*span) for span in made) for name, made in spans.items()
        }
        for step in steps:
            if step.calls and not spans[step.name]:
                raise ValueError(f"nothing of the step {step.name!r} was called")
        rest = whole - sum(each.values())
        taken.append([each[s.name] if s.calls else rest for s in steps] + [whole])
    return [median(column) for column in zip(*taken)]


def _timed(function: Callable, spans: list, cuda: bool) -> Callable:
    @wraps(function)
    def timed(*args, **kwargs):
        start = _now(cuda)
        out = function(*args, **kwargs)
        spans.append((start, _now(cuda)))
        return out

    return timed


def _now(cuda: bool) -> Any:
    if not cuda:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(start: Any, end: Any) -> float:
    """Milliseconds."""
    if isinstance(start, float):
        return 1e3 * (end - start)
    end.synchronize()
    return start.elapsed_time(end)


def table(steps: list[Step], taken: list[float], rates: dict[str, float]) -> str:
    """A profile for a person, the steps in their order."""
    *each, whole = taken
    floors = [step.floor(rates) for step in steps]
    lines = [f"{'step':<42} {'ms':>8} {'share':>6} {'floor':>8} {'of floor':>8}"]
    names = [step.name for step in steps] + ["all"]
    for name, ms, floor in zip(names, [*each, whole], [*floors, sum(floors)]):
        reached = f"{floor / ms:>8.0%}" if ms > 0 else ""
        lines.append(
            f"{name:<42} {ms:>8.3f} {ms / whole:>6.0%} {floor:>8.3f} {reached}"
        )
    return "\n".join(lines)
