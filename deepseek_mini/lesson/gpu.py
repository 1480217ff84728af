"""The GPU section of a lesson: live where there is CUDA, recorded where there is none.

A kernel's demonstration is the module `deepseek_mini.kernels.cases.<name>`, run as a
program in a process of its own, because Triton decides when it is imported whether it
compiles or interprets. Its recorded result is `recorded/<name>.json` beside this file:
{"hardware": ..., "date": ..., "text": ...}.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import torch

_RECORDED = Path(__file__).parent / "recorded"


def gpu_section(name: str, timeout: float = 120.0) -> None:
    """Print what a kernel's demonstration prints, live or as recorded.

    name: of the kernel, "rmsnorm". timeout: seconds that a live run may take.
    Says plainly when nothing has been recorded yet. Raises ValueError for a name that
    is not a Python identifier.
    """
    _check_name(name)
    if torch.cuda.is_available() and _has_kernel(name):
        try:
            run = _demonstration(name, timeout)
        except subprocess.TimeoutExpired:
            print(f"The live run took longer than {timeout:g} s. The recorded one:")
        else:
            if run.returncode == 0:
                print(f"Live on {torch.cuda.get_device_name()}:\n{run.stdout.rstrip()}")
                return
            print(f"The live run failed ({_last_line(run)}). The recorded one:")
    print(_recorded(name))


def interpreted_section(name: str, timeout: float = 100.0) -> None:
    """Print what a kernel's demonstration prints when it is interpreted on the CPU: its
    errors, at small sizes, beside their bounds.

    Says plainly where there is no Triton. Raises ValueError for a name that is not a
    Python identifier, RuntimeError when the demonstration fails.
    """
    _check_name(name)
    if find_spec("triton") is None:
        print("Kernels are not interpreted here: Triton exists for Linux alone.")
        return
    run = _demonstration(name, timeout, TRITON_INTERPRET="1")
    if run.returncode:
        raise RuntimeError(f"the kernel {name!r} failed: {_last_line(run)}")
    print(run.stdout.rstrip())


def _check_name(name: str) -> None:
    if not name.isidentifier():
        raise ValueError(f"name is {name!r}, but it must be a kernel's name")


def _demonstration(name: str, timeout: float, **environment: str):
    line = [sys.executable, "-m", f"deepseek_mini.kernels.cases.{name}"]
    env = {**os.environ, **environment}
    return subprocess.run(
        line, capture_output=True, text=True, timeout=timeout, env=env
    )


def _last_line(run) -> str:
    lines = (run.stderr or run.stdout).strip().splitlines()
    return lines[-1] if lines else "no message"


def _has_kernel(name: str) -> bool:
    """By its file: looking for the module would import Triton into the notebook."""
    path = Path(__file__).parents[1] / "kernels" / "cases" / f"{name}.py"
    return path.exists() and find_spec("triton") is not None


def _recorded(name: str) -> str:
    path = _RECORDED / f"{name}.json"
    if not path.exists():
        return f"No result of the kernel {name!r} has been recorded yet."
    result = json.loads(path.read_text(encoding="utf-8"))
    head = f"Recorded on {result['hardware']}, {result['date']}:"
    return f"{head}\n{result['text'].rstrip()}"
