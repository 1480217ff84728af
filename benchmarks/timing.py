"""What the benchmarks share: two things timed in turn, and where it ran."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path


def interleaved(a: Callable, b: Callable, rounds: int) -> tuple[list, list]:
    """Seconds of `a` and of `b`, in turn, after one round that is not counted.

    These are the processor's seconds for this process: on one thread those of a clock
    on the wall, less the turns that other programs took.
    """
    a(), b()
    times = ([], [])
    for _ in range(rounds):
        for run, seconds in zip((a, b), times):
            start = time.process_time()
            run()
            seconds.append(time.process_time() - start)
    return times


def compared(a: Callable, b: Callable, rounds: int) -> dict:
    """The row of a report: how many times as fast as `b` is `a`, round by round."""
    ours, theirs = interleaved(a, b, rounds)
    return {
        "ours_ms": 1e3 * min(ours),
        "theirs_ms": 1e3 * min(theirs),
        "ratio": min(theirs) / min(ours),
        "round_ratios": sorted(y / x for x, y in zip(ours, theirs)),
    }


def import_seconds(rounds: int) -> float:
    """What `import deepseek_mini` adds after `import torch`: fastest fresh process."""
    code = (
        "import time, torch; start = time.perf_counter(); import deepseek_mini; "
        "print(time.perf_counter() - start)"
    )
    run = [sys.executable, "-c", code]
    done = [subprocess.run(run, check=True, capture_output=True) for _ in range(rounds)]
    return min(float(process.stdout) for process in done)


def hardware() -> dict:
    """The date, the processor and the versions."""
    import torch
    import transformers

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        names = [x.split(":")[1].strip() for x in lines if x.startswith("model name")]
        model = names[0] if names else model
    return {
        "date": date.today().isoformat(),
        "cpu": model,
        "cores": os.cpu_count(),
        "torch threads": 1,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def print_table(report: dict) -> None:
    """The report for a person."""
    print(f"{report['cpu']}, one thread, torch {report['torch']}, ", end="")
    print(f"transformers {report['transformers']}, float32")
    print(f"{'':58} {'ours':>9} {'theirs':>9} {'theirs/ours':>12}")
    for name, row in report["rows"].items():
        times = f"{row['ours_ms']:7.1f}ms {row['theirs_ms']:7.1f}ms"
        print(f"{name:58} {times} {row['ratio']:11.2f}x")
    added = report["import_seconds"]
    print(f"import deepseek_mini adds {added:.2f} s to import torch")
