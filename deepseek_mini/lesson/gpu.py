"""The GPU section of a lesson: live where there is CUDA, recorded where there is none.

A kernel's demonstration is the module `deepseek_mini.kernels.<name>` run as a program.
It runs in a process of its own, because Triton decides when it is imported whether it
compiles or interprets. Its recorded result is `recorded/<name>.json` beside this file:
{"hardware": ..., "date": ..., "text": ...}.
"""

import json
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
    if not name.isidentifier():
        raise ValueError(f"name is {name!r}, but it must be a kernel's name")
    if torch.cuda.is_available() and _has_kernel(name):
        module = f"deepseek_mini.kernels.{name}"
        try:
            run = subprocess.run(
                [sys.executable, "-m", module],
                capture_output=True,
                text=True,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            print(f"The live run took longer than {timeout:g} s. The recorded one:")
        else:
            if run.returncode == 0:
                print(f"Live on {torch.cuda.get_device_name()}:\n{run.stdout.rstrip()}")
                return
            last = run.stderr.strip().splitlines()[-1:] or ["no message"]
            print(f"The live run failed ({last[0]}). The recorded one:")
    print(_recorded(name))


def _has_kernel(name: str) -> bool:
    if find_spec("deepseek_mini.kernels") is None:
        return False
    return find_spec(f"deepseek_mini.kernels.{name}") is not None


def _recorded(name: str) -> str:
    path = _RECORDED / f"{name}.json"
    if not path.exists():
        return f"No result of the kernel {name!r} has been recorded yet."
    result = json.loads(path.read_text(encoding="utf-8"))
    head = f"Recorded on {result['hardware']}, {result['date']}:"
    return f"{head}\n{result['text'].rstrip()}"
