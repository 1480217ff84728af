"""Shapes are checked, one thread is used, and what is missing is said.

The import hook makes the functions of deepseek_mini check its jaxtyping shapes with
beartype, so this file must be loaded before the package is.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from missing import missing

SHAPES = all(importlib.util.find_spec(name) for name in ("beartype", "jaxtyping"))

if SHAPES:
    from jaxtyping import install_import_hook

    assert "deepseek_mini" not in sys.modules, "deepseek_mini was imported too early"
    # An int may stand where a float is expected, as everywhere in Python.
    conf = "beartype.BeartypeConf(is_pep484_tower=True)"
    # All but config.py, which has words of its own for a part of the wrong type, and
    # kernels, whose source Triton reads (tests/kernels/conftest.py checks those).
    package = Path(__file__).parents[1] / "deepseek_mini"
    names = {path.stem for path in package.iterdir()}
    names -= {"config", "kernels", "__init__"}
    modules = [f"deepseek_mini.{name}" for name in sorted(names) if name.isidentifier()]
    install_import_hook(modules, f"beartype.beartype(conf={conf})")

import torch  # noqa: E402

torch.set_num_threads(1)


def pytest_report_header():
    lines = []
    if not SHAPES:
        lines.append("shapes are not checked: install beartype and jaxtyping")
    if os.environ.get("TRITON_INTERPRET") != "1":
        lines.append("tests/kernels is left out: it runs alone, pytest tests/kernels")
    return lines


def pytest_collection_modifyitems(items):
    for marker in ("gpu", "lean", "browser"):
        marked = [item for item in items if item.get_closest_marker(marker)]
        if not marked or not (reason := missing(marker)):
            continue
        if marker == "browser" and os.environ.get("REQUIRE_BROWSER"):
            raise pytest.UsageError(f"REQUIRE_BROWSER is set, but there is {reason}")
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))
