"""The mended interpreter is right, and the stock one fails the same checks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
import triton
from interpreter_cases import CHECKS

from deepseek_mini.kernels import interpreter

CASES = Path(__file__).with_name("interpreter_cases.py")
VERSION = ".".join(triton.__version__.split(".")[:2])


@cache
def failures_of_the_stock_interpreter() -> dict[str, str]:
    line = [sys.executable, str(CASES)]
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", CHECKS)
def test_the_mended_interpreter_is_right(name):
    CHECKS[name][0]()


@pytest.mark.parametrize("name", [n for n, (_, v) in CHECKS.items() if VERSION in v])
def test_the_stock_interpreter_is_wrong(name):
    assert name in failures_of_the_stock_interpreter()


def test_an_unknown_version_is_refused(monkeypatch):
    monkeypatch.setattr(interpreter, "_installed", False)
    for version in ("3.7.0", "3.10.0", "4.0.0"):
        monkeypatch.setattr(triton, "__version__", version)
        with pytest.raises(RuntimeError, match=f"Triton is {version}, .* 3.6 and 3.9"):
            interpreter.install()


def python(code: str, **env: str) -> subprocess.CompletedProcess:
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | env
    line = [sys.executable, "-c", code]
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=120)


def test_triton_imported_too_early_is_said():
    late = "import triton, os; os.environ['TRITON_INTERPRET'] = '1'\n"
    done = python(f"{late}import deepseek_mini.kernels")
    assert "Triton was imported before TRITON_INTERPRET was set" in done.stderr


def test_without_triton_the_rest_works_and_kernels_say_what_is_missing():
    hide = "import sys; sys.modules['triton'] = None\n"
    done = python(f"{hide}import deepseek_mini, deepseek_mini.training.loop")
    assert done.returncode == 0, done.stderr
    done = python(f"{hide}import deepseek_mini.kernels.rmsnorm")
    assert "ImportError: deepseek_mini.kernels needs Triton" in done.stderr


def test_nothing_else_imports_triton():
    done = python(
        "import sys, deepseek_mini, deepseek_mini.fp8, deepseek_mini.lesson.gpu\n"
        "assert 'deepseek_mini.kernels' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr


def test_narrow_and_widen_are_inverse():
    import numpy as np
    import triton.language as tl

    codes = np.arange(2**16, dtype=np.uint16)
    values = interpreter.widen(codes, tl.bfloat16)
    back = interpreter.narrow(values, tl.bfloat16)
    assert (back == codes)[~np.isnan(values)].all()
    wanted = torch.from_numpy(codes.view(np.int16)).view(torch.bfloat16).float()
    assert torch.equal(torch.from_numpy(values).isnan(), wanted.isnan())
