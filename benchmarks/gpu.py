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

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
RECORDED = ROOT / "deepseek_mini" / "lesson" / "recorded"
MINUTES = 9.5  # what has not begun by then is left out
RATES = {"copy": "TB/s", "bf16": "TFLOP/s", "fp8": "TFLOP/s"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="interpreted, tiny")
    parser.add_argument("--only", nargs="+", metavar="KERNEL", default=[])
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--record", action="store_true", help="show it in the lessons")
    parser.add_argument("--process", help=argparse.SUPPRESS)  # what one process does
    args = parser.parse_args()
    if args.record and args.dry_run:
        parser.error("a dry run measures nothing that could be recorded")
    os.environ["TRITON_INTERPRET"] = "1" if args.dry_run else "0"
    sys.path.insert(0, str(ROOT))
    if args.process:
        measured = one_process(args.process, args.dry_run)
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
        done = skipped if late else in_a_process(name, args.dry_run)
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


def in_a_process(what: str, dry_run: bool) -> dict:
    """What `one_process` gives in a process of its own; {"failed": why} if it dies."""
    line = [sys.executable, str(Path(__file__)), "--process", what]
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


def one_process(what: str, dry_run: bool) -> dict:
    """The machine and its rates, or the cases of one kernel."""
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
    cases = import_module(f"deepseek_mini.kernels.cases.{what}").cases(device, dry_run)
    return {"cases": [measure(case, timer, dry_run) for case in cases]}


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


# --- what is made of it -----------------------------------------------------------


def judge(case: dict, rates: dict) -> None:
    """Add to a case its rates, its floor, and what became of its goals."""
    if "ms" not in case:
        return
    ms, flops = case["ms"], case["flops"]
    case["TB/s"] = case["moved"] / ms / 1e9
    case["TFLOP/s"] = flops / ms / 1e9
    for goal in case["goals"]:
        goal["measured"] = ratio(case, goal["against"], rates)
        known = goal["measured"] is not None
        goal["reached"] = goal["measured"] >= goal["at_least"] if known else None


def ratio(case: dict, against: str, rates: dict) -> float | None:
    """What a goal compares; None where it could not be measured."""
    if against == "TFLOP/s":
        return case["TFLOP/s"]
    if against in RATES:
        ours = case["TB/s" if against == "copy" else "TFLOP/s"]
        return ours / rates[against] if rates[against] else None
    peer = case["peers"].get(against, {})
    return peer["ms"] / case["ms"] if "ms" in peer else None


def wrong(report: dict) -> bool:
    """Whether a kernel failed, or an error is over its bound."""
    for kernel in report["kernels"].values():
        if "failed" in kernel or any(not right(case) for case in kernel["cases"]):
            return True
    return False


def right(case: dict) -> bool:
    return "failed" not in case and case["error"] <= case["bound"]


def file_name(report: dict) -> str:
    gpu = re.sub(r"[^a-z0-9]+", "-", report["gpu"].lower().replace("nvidia", ""))
    return f"{gpu.strip('-')}-{report['date']}.json"


def print_machine(report: dict) -> None:
    print(f"{report['gpu']}, torch {report['torch']}, Triton {report['triton']}")
    if report.get("dry run"):
        print("A dry run: interpreted at tiny sizes, and no time below means anything.")
    for name, unit in RATES.items():
        rate = report["rates"][name]
        told = "unknown" if rate is None else f"{rate:.3g} {unit}"
        print(f"  {name:<6} {told}")


def record(name: str, report: dict, text: str) -> None:
    """Keep what a lesson's gpu_section shows where there is no GPU."""
    RECORDED.mkdir(exist_ok=True)
    shown = {"hardware": report["gpu"], "date": report["date"], "text": text}
    path = RECORDED / f"{name}.json"
    path.write_text(json.dumps(shown, indent=1) + "\n", encoding="utf-8")


def describe(name: str, kernel: dict) -> str:
    """A kernel's cases for a person."""
    lines = [f"{name}: {kernel['failed']}" if "failed" in kernel else name]
    for case in kernel.get("cases", []):
        lines.append(f"  {case['name']}")
        if "failed" in case:
            lines.append(f"    FAILED: {case['failed']}")
            continue
        verdict = "ok" if right(case) else "WRONG"
        lines.append(f"    error {case['error']:.1e} of {case['bound']:.1e}: {verdict}")
        speed = f"    {case['ms']:.3f} ms, {case['TB/s']:.2f} TB/s"
        lines.append(speed + f", {case['TFLOP/s']:.0f} TFLOP/s" * bool(case["flops"]))
        for peer, row in case["peers"].items():
            told = row.get("absent") or f"{row['ms'] / case['ms']:.2f} times as long"
            if row.get("error", 0) > case["bound"]:
                told += f", with an error of {row['error']:.1e}"
            lines.append(f"      {peer:<24} {told}")
    return "\n".join(lines)


def print_goals(report: dict) -> None:
    """PERFORMANCE's goals, in one table."""
    print(f"\n{'goal':<66} {'at least':>8} {'measured':>9}")
    for kernel in report["kernels"].values():
        for case in kernel.get("cases", []):
            for goal in case["goals"]:
                label = f"{case['name'][:48]}: {goal['against']}"
                got = goal.get("measured")
                told = "unknown" if got is None else f"{got:.2f}"
                mark = {True: "reached", False: "not reached"}.get(goal.get("reached"))
                mark = "dry run" if report.get("dry run") else mark or ""
                print(f"{label:<66} {goal['at_least']:>8.2f} {told:>9} {mark}")


if __name__ == "__main__":
    sys.exit(main())
