"""Open the course in JupyterLab: `make lab`, or `python tools/lab.py` without make.

Fills work/ with the exercises that are missing there, then serves the repository and
opens the start page. Needs nothing but the standard library and JupyterLab.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
START = "notebooks/00_start_here.ipynb"


def command(root: Path, port: int, browser: bool, page: str) -> list[str]:
    """The command line that serves `root` and opens `page`, if it exists."""
    line = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}"]
    line.append(f"--port={port}")
    if (root / page).exists():
        line.append(f"--LabApp.default_url=/lab/tree/{page}")
    if not browser:
        line.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        line.append("--allow-root")
    return line


def environment() -> dict[str, str]:
    """Ours with one more settings folder: no news pop-up over the lesson."""
    paths = [str(HERE / "jupyter"), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    return os.environ | {"JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, paths))}


def main() -> int:
    parser = argparse.ArgumentParser(description="Open the course in JupyterLab.")
    parser.add_argument("--root", type=Path, default=HERE.parent)
    parser.add_argument("--port", type=int, default=8888)
    parser.add_argument("--no-browser", action="store_true")
    parser.add_argument("page", nargs="?", default=START)
    chosen = parser.parse_args()
    root = chosen.root.resolve()
    try:
        import jupyterlab  # noqa: F401
    except ModuleNotFoundError:
        print("JupyterLab is missing: pip install -r requirements.txt", file=sys.stderr)
        return 1
    from work import fill_work

    print(fill_work(root), flush=True)
    line = command(root, chosen.port, not chosen.no_browser, chosen.page)
    try:
        return subprocess.run(line, env=environment(), check=False).returncode
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
