"""These tests run under Triton's interpreter, and so in a process of their own.

TRITON_INTERPRET must be set before anything imports Triton. `make unit` sets it, and so
does this file where pytest is given this folder or a file in it. In a run of all tests
this folder is left out.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ALONE = any(HERE.name in Path(arg.split("::")[0]).parts for arg in sys.argv[1:])

if ALONE and "triton" not in sys.modules:
    os.environ.setdefault("TRITON_INTERPRET", "1")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
TRITON = importlib.util.find_spec("triton") is not None
if not (INTERPRETED and TRITON):
    collect_ignore_glob = ["*"]

if INTERPRETED and TRITON:
    import numpy as np

    import deepseek_mini.kernels

    # Masked lanes compute with whatever is there, as on a GPU; the results are masked.
    np.seterr(all="ignore")


def pytest_report_header():
    if not TRITON:
        return "tests/kernels: not run, there is no Triton here"
    if not INTERPRETED:
        return None  # tests/conftest.py says so
    version = deepseek_mini.kernels.triton.__version__
    return f"tests/kernels: interpreted, Triton {version}"


def pytest_sessionfinish(session, exitstatus):
    """Where there is no Triton, having nothing to run is no failure."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and not TRITON:
        session.exitstatus = pytest.ExitCode.OK


@pytest.fixture(autouse=True)
def seed():
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Tensors made empty hold NaN, or bytes of 0x7F: what a kernel skips, shows."""
    import torch

    def poison(make):
        def made(*args, **kwargs):
            tensor = make(*args, **kwargs)
            if tensor.dtype.is_floating_point and tensor.dtype.itemsize > 1:
                return tensor.fill_(float("nan"))
            tensor.untyped_storage().fill_(0x7F)  # of fp8 this is NaN
            return tensor

        return made

    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, poison(getattr(torch, name)))


@pytest.fixture(autouse=True)
def check_shapes(request, monkeypatch):
    """Check the jaxtyping shapes of the functions that launch kernels.

    The import hook of tests/conftest.py would also wrap the kernels themselves.
    """
    if not importlib.util.find_spec("beartype"):
        return
    from beartype import BeartypeConf, beartype
    from jaxtyping import jaxtyped

    checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
    for name, function in vars(request.module).items():
        module = getattr(function, "__module__", None) or ""
        if inspect.isfunction(function) and module.startswith("deepseek_mini.kernels."):
            wrapped = jaxtyped(function, typechecker=checked)
            monkeypatch.setattr(request.module, name, wrapped)
