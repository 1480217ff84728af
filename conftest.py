"""pytest for the whole repository: how notebooks are run, and what was slow.

nbval's flags are set here and not in pyproject.toml, so that `pytest --nbval` does
the right thing from any folder, and plain `pytest` works where nbval is missing.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent
CELL_TIMEOUT = 120.0  # seconds; nbval waits 2000 for a kernel that died

# Tests and the kernels they start: one thread, so that numbers repeat; no network
# hub; no progress written into the learner's file.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["DEEPSEEK_MINI_PROGRESS"] = "off"
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")

seconds: dict[str, float] = defaultdict(float)


def pytest_addoption(parser):
    parser.addoption(
        "--slowest",
        type=int,
        default=0,
        metavar="N",
        help="print the N slowest tests and the N slowest notebooks",
    )


def pytest_configure(config):
    option = config.option
    if not hasattr(option, "nbval"):
        return  # nbval is not installed: notebooks are not collected
    if option.nbval_sanitize_with is None:
        option.nbval_sanitize_with = str(ROOT / "tests" / "nbval_sanitize.cfg")
    if option.nbval_kernel_name is None:
        option.nbval_current_env = True
    if option.nbval_cell_timeout == 2000:
        option.nbval_cell_timeout = CELL_TIMEOUT


def pytest_runtest_logreport(report):
    name = report.nodeid
    if ".ipynb::" in name:
        name = name.split("::")[0]
    seconds[name] += report.duration


def pytest_terminal_summary(terminalreporter, config):
    notebooks = {name: s for name, s in seconds.items() if name.endswith(".ipynb")}
    tests = {name: s for name, s in seconds.items() if name not in notebooks}
    wanted = config.option.slowest
    for what, table, number in (
        ("tests", tests, wanted),
        ("notebooks", notebooks, wanted or 10),
    ):
        slowest = sorted(table.items(), key=lambda item: -item[1])[:number]
        if slowest:
            terminalreporter.section(f"slowest {what}")
        for name, taken in slowest:
            terminalreporter.write_line(f"{taken:8.1f} s  {name}")
