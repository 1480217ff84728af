"""Grade a notebook of exercises: `python -m deepseek_mini grade NOTEBOOK --json`.

The notebook's code cells run from top to bottom in a process of their own, in the
notebook's folder. Every function that a cell gives to `check` is kept, and judged once
all cells have run, with seeds that the learner has not seen. What the notebook prints,
and what it calls `check` itself, do not count.

This runs the learner's code with your rights, and their process also judges it. It
stops mistakes and simple tricks, not someone set on deceiving: grade work of people
you do not know in a container, and read it.
"""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from deepseek_mini.lesson.oracles import lessons

_CHECK = re.compile(r"""\bcheck\(\s*["'](\d\d)\.\d+["']""")
_PACKAGE = Path(__file__).resolve().parents[1]


def main(
    notebook: str | Path, *, as_json: bool = False, seeds: Sequence[int] | None = None
) -> int:
    """Grade a notebook and print the report as a table or as JSON; returns 0.

    Raises what `grade` raises.
    """
    report = grade(notebook, seeds=seeds)
    if as_json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print(_table(report))
    return 0


def grade(
    notebook: str | Path,
    *,
    seeds: Sequence[int] | None = None,
    timeout: float = 300.0,
    check_timeout: float = 60.0,
) -> dict:
    """The report of a notebook's exercises, as plain dicts and lists.

    seeds: of the random inputs; three hidden ones when not given. The same seeds give
        the same report.
    timeout: seconds for all cells and all checks together.
    check_timeout: seconds for one check (not on Windows, which has no such alarm).

    The report holds `notebook`, `seeds`, `passed`, `of`, `exercises` (each with `id`,
    `title`, `status` as `check` has it, `reason`, `hint`) and `errors` (each with the
    number of a code `cell`, counted from 1, and its `error`). An exercise passes when
    it passes with every seed.

    Raises FileNotFoundError for a missing file, ValueError for what is not a notebook
    or holds no check, and TimeoutError when the cells alone take too long.
    """
    path = Path(notebook)
    cells = _code_cells(path)
    numbers = {number for cell in cells for number in _CHECK.findall(cell)}
    asked = [e for name, es in lessons().items() if name[:2] in numbers for e in es]
    if not asked:
        raise ValueError(
            f'{path} holds no check("NN.N", ...) of a known exercise; grade a notebook '
            "made from exercises/"
        )
    seeds = list(seeds) if seeds else [secrets.randbelow(2**31) for _ in range(3)]
    request = {"cells": cells, "seeds": seeds, "check_limit": check_timeout}
    events, finished = _run_worker(path.parent, request, timeout)
    judged = {e["id"]: e for e in events if e["event"] == "verdict"}
    done = any(e["event"] == "cells done" for e in events)
    if not done and not finished:
        raise TimeoutError(f"the cells of {path} ran longer than {timeout:g} s")
    if not done:
        raise ValueError(f"the code of {path} ended its process before the last cell")
    missing = _missing(finished, timeout)
    exercises = []
    for e in asked:
        found = judged.get(e.id)
        if found is None:
            given = any(x["event"] == "given" and x["id"] == e.id for x in events)
            found = missing if given else _never_given(e.id, events)
        verdict = {key: found[key] for key in ("status", "reason", "hint")}
        exercises.append({"id": e.id, "title": e.title, **verdict})
    return {
        "notebook": path.name,
        "seeds": seeds,
        "passed": sum(e["status"] == "passed" for e in exercises),
        "of": len(exercises),
        "exercises": exercises,
        "errors": [
            {"cell": e["cell"], "error": e["error"]}
            for e in events
            if e["event"] == "cell failed"
        ],
    }


def _code_cells(path: Path) -> list[str]:
    """The source of every code cell; ValueError for what is not a notebook."""
    if not path.exists():
        raise FileNotFoundError(f"there is no notebook at {path}")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a notebook")
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a notebook: it is not UTF-8 text") from None
    except RecursionError:
        raise ValueError(f"{path} is not a notebook: it is nested too deeply") from None
    except json.JSONDecodeError as problem:
        raise ValueError(
            f"{path} is not a notebook: it is not JSON (line {problem.lineno}: "
            f"{problem.msg})"
        ) from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list) or not all(isinstance(c, dict) for c in cells):
        raise ValueError(
            f"{path} is not a notebook of format 4: it has no list of cells"
        )
    sources = [c.get("source", "") for c in cells if c.get("cell_type") == "code"]
    for number, source in enumerate(sources, start=1):
        lines = [source] if isinstance(source, str) else source
        if not isinstance(lines, list) or not all(isinstance(s, str) for s in lines):
            raise ValueError(
                f"{path} is not a notebook of format 4: the source of code cell "
                f"{number} is {source!r}, but it must be text or a list of lines"
            )
    return ["".join(source) for source in sources]


def _run_worker(folder: Path, request: dict, timeout: float) -> tuple[list, bool]:
    """Run the cells and checks in a fresh process: its events, and whether it ended."""
    environment = {
        **os.environ,
        "DEEPSEEK_MINI_PROGRESS": "off",
        "MPLBACKEND": "Agg",
        "PYTHONPATH": str(_PACKAGE.parent),  # this package, whatever lies beside
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    command = [sys.executable, "-P", "-m", "deepseek_mini.lesson.grade_worker"]
    with tempfile.TemporaryDirectory() as private:
        events = Path(private) / "events.jsonl"
        events.touch()
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        text = json.dumps({**request, "events": str(events)}).encode()
        try:
            process.communicate(text, timeout=timeout)
            finished = True
        except subprocess.TimeoutExpired:
            finished = False
        finally:
            _end(process)
        return _read(events), finished


def _end(process: subprocess.Popen) -> None:
    """End the worker and what the learner's code started in its group."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _read(events: Path) -> list[dict]:
    lines = events.read_text(encoding="utf-8").splitlines()
    read = []
    for line in lines:
        try:
            read.append(json.loads(line))
        except json.JSONDecodeError:  # the last line, when the process was ended
            continue
    return read


def _missing(finished: bool, timeout: float) -> dict:
    """The verdict of an exercise whose judging never came to an end."""
    if finished:
        reason = "the process ended while the answer was judged"
    else:
        reason = f"not judged: grading ran longer than {timeout:g} s"
    return {"status": "not yet", "reason": reason, "hint": ""}


def _never_given(id: str, events: list[dict]) -> dict:
    """The verdict of an exercise that no cell gave to `check`."""
    for e in events:
        if e["event"] == "cell failed" and id in e["ids"]:
            reason = f"code cell {e['cell']}, which checks it, failed: {e['error']}"
            return {"status": "not yet", "reason": reason, "hint": ""}
    reason = "no cell of the notebook checks it"
    return {"status": "not attempted", "reason": reason, "hint": ""}


def _table(report: dict) -> str:
    lines = [f"{report['notebook']}: {report['passed']} of {report['of']} passed"]
    for e in report["exercises"]:
        lines.append(f"  {e['id']}  {e['status']:<13}  {e['title']}")
        lines += [f"        {e[key]}" for key in ("reason", "hint") if e[key]]
    for e in report["errors"]:
        lines.append(f"  code cell {e['cell']} failed: {e['error']}")
    seeds = " ".join(map(str, report["seeds"]))
    return "\n".join([*lines, f"  seeds: {seeds}"])
