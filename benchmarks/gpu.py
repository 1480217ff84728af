"""Every kernel on this machine's GPU: checked, then timed beside what else there is.

    make bench-gpu        (or: python3 benchmarks/gpu.py [--only KERNEL ...])

It needs PyTorch with CUDA and Triton, the GPU, and nothing from the network. First it
measures what this GPU can do at all: copying, and multiplying matrices in bf16 and fp8
with cuBLAS. Then each kernel's cases, at the released models' sizes: their outputs
beside the reference's, their time beside that of peers on the same inputs, and whether
they reach their goals. A peer that is not installed, or refuses, is recorded with its
reason. Results go to benchmarks/results/<gpu>-<date>.json.

Each kernel runs in a process of its own: after a crash on a GPU a process is lost.
With --dry-run everything is done at tiny sizes by Triton's interpreter, on any CPU;
its times mean nothing, and it writes nothing unless told where.
"""

import argparse
import json
import os
import pkgutil
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from importlib import import_module
from pathlib import Path

from judging import describe, judge, print_goals, print_machine, wrong

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
RECORDED = ROOT / "deepseek_mini" / "lesson" / "recorded"
MINUTES = 9.5  # what has not begun by then is left out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="interpreted, tiny")
    parser.add_argument("--only", nargs="+", metavar="KERNEL", default=[])
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--record", action="store_true", help="show it in the lessons")
    parser.add_argument("--process", help=argparse.SUPPRESS)  # what one process does
    parser.add_argument("--rates", default="{}", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.record and args.dry_run:
        parser.error("a dry run measures nothing that could be recorded")
    os.environ["TRITON_INTERPRET"] = "1" if args.dry_run else "0"
    sys.path.insert(0, str(ROOT))
    if args.process:
        rates = json.loads(args.rates)
        measured = one_process(args.process, args.dry_run, rates)
        print(f"\n{MARK}{json.dumps(measured)}")
        return 0
    report = {"dry run": True} if args.dry_run else {}
    report |= in_a_process("machine", args.dry_run) | {"kernels": {}}
    if "failed" in report:
        sys.exit(report["failed"])
    print_machine(report)
    for name in args.only or kernel_names():
        late = time.perf_counter() > START + 60 * MINUTES
        skipped = {"failed": f"not begun after {MINUTES} minutes"}
        done = skipped if late else in_a_process(name, args.dry_run, report["rates"])
        report["kernels"][name] = done
        for case in done.get("cases", []):
            judge(case, report["rates"])
        text = describe(name, done)
        print(f"\n{text}")
        if args.record and "failed" not in done:
            record(name, report, text)
    print_goals(report)
    report["seconds"] = round(time.perf_counter() - START)
    out = args.out or (None if args.dry_run else RESULTS / file_name(report))
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"Written to {out}")
    return 1 if wrong(report) else 0


# --- in the processes of the kernels ----------------------------------------------

START = time.perf_counter()
MARK = "RESULT "


def kernel_names() -> list[str]:
    """The modules of deepseek_mini/kernels/cases, without importing them."""
    folder = ROOT / "deepseek_mini" / "kernels" / "cases"
    return [module.name for module in pkgutil.iter_modules([str(folder)])]


def in_a_process(what: str, dry_run: bool, rates: dict | None = None) -> dict:
    """What `one_process` gives in a process of its own; {"failed": why} if it dies."""
    line = [sys.executable, str(Path(__file__)), "--process", what]
    line += ["--rates", json.dumps(rates or {})]
    left = max(30, START + 60 * MINUTES - time.perf_counter())
    try:
        done = subprocess.run(
            line + ["--dry-run"] * dry_run, capture_output=True, text=True, timeout=left
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"it took longer than {left:.0f} seconds, the time left"}
    found = re.search(rf"^{MARK}(.*)$", done.stdout, re.M)
    if done.returncode or not found:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit {done.returncode}"]
        return {"failed": last[0]}
    return json.loads(found[1])


def one_process(what: str, dry_run: bool, known: dict) -> dict:
    """The machine and its rates, or the cases of one kernel, and a profile if it has
    one, whose floors are at the `known` rates.
    """
    import torch

    if not dry_run and not torch.cuda.is_available():
        sys.exit("There is no CUDA GPU here: use --dry-run, or a machine that has one")
    device = "cpu" if dry_run else "cuda"
    timer = (
        once if dry_run else import_module("deepseek_mini.kernels.case").milliseconds
    )
    torch.manual_seed(0)
    if what == "machine":
        return machine(device) | {"rates": rates(device, timer)}
    module = import_module(f"deepseek_mini.kernels.cases.{what}")
    cases = module.cases(device, dry_run)
    measured = {"cases": [measure(case, timer, dry_run) for case in cases]}
    if hasattr(module, "profiles"):
        del cases  # and the weights that they hold
        torch.cuda.empty_cache()
        try:
            measured["profile"] = module.profiles(device, dry_run, known)
        except Exception as error:
            measured["profile"] = f"none: {reason(error)}"
    return measured


def once(run: Callable) -> float:
    """Milliseconds of one run on a CPU: for dry runs alone."""
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def machine(device: str) -> dict:
    """Where this is, and what is installed."""
    import torch
    import triton

    gpu = torch.cuda.get_device_name() if device == "cuda" else "no GPU"
    return {
        "date": date.today().isoformat(),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
    }


def rates(device: str, timer: Callable) -> dict:
    """What can be reached: bytes a second copied, operations a second multiplied."""
    import torch

    n = 8192 if device == "cuda" else 64
    x = torch.randn(16 * n, n, device=device).bfloat16()  # 2 GB
    found = {"copy": 2 * x.nbytes / timer(partial(torch.empty_like(x).copy_, x)) / 1e9}
    a, b = x[:n], x[n : 2 * n].T
    found["bf16"] = 2 * n**3 / timer(lambda: a @ b) / 1e9
    one = torch.ones((), device=device)
    try:
        fp8 = torch.float8_e4m3fn
        given = a.to(fp8), b.T.to(fp8).T, one, one
        fast = {"out_dtype": torch.bfloat16, "use_fast_accum": True}
        ms = timer(partial(torch._scaled_mm, *given, **fast))
        found["fp8"] = 2 * n**3 / ms / 1e9
    except Exception as error:
        found["fp8"] = None
        found["fp8 is not known because"] = reason(error)
    return found


def measure(case, timer: Callable, dry_run: bool) -> dict:
    """One case: the error, the times of the kernel and of its peers."""
    import torch

    row = {name: getattr(case, name) for name in ("name", "bound", "moved", "flops")}
    row["goals"] = [vars(goal) for goal in case.goals]
    try:
        inputs = case.make()
        row["error"] = case.error(inputs)
        row["ms"] = timer(lambda: case.kernel(*inputs))
    except Exception as error:
        return row | {"failed": reason(error)}
    peers = {"eager": case.reference, **case.peers}
    if case.compiled and not dry_run:
        peers["torch.compile"] = torch.compile(case.reference)
    row["peers"] = {}
    for name, peer in peers.items():
        row["peers"][name] = beside(case, peer, inputs, timer)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return row


def beside(case, peer: Callable, inputs: tuple, timer: Callable) -> dict:
    """A peer's time and its own error, or why there are none."""
    try:
        prepared = peer(*case.fresh(inputs))
        ready = callable(prepared)
        run = prepared if ready else lambda: peer(*inputs)
        row = {"ms": timer(run)}
    except Exception as error:
        return {"absent": reason(error)}
    try:
        row["error"] = case.error(inputs, (lambda *_: run()) if ready else peer)
    except Exception as error:
        row["not compared"] = reason(error)
    return row


def reason(error: Exception) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


# --- what is kept of it -----------------------------------------------------------


def file_name(report: dict) -> str:
    gpu = re.sub(r"[^a-z0-9]+", "-", report["gpu"].lower().replace("nvidia", ""))
    return f"{gpu.strip('-')}-{report['date']}.json"


def record(name: str, report: dict, text: str) -> None:
    """Keep what a lesson's gpu_section shows where there is no GPU."""
    RECORDED.mkdir(exist_ok=True)
    shown = {"hardware": report["gpu"], "date": report["date"], "text": text}
    path = RECORDED / f"{name}.json"
    path.write_text(json.dumps(shown, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
