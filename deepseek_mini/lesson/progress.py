"""Which exercises this learner has passed, in one small local file.

The file is `.progress.json` in the learner's `work/` folder, or in the user's cache
folder where there is no such folder (Colab). The environment variable
DEEPSEEK_MINI_PROGRESS names another file, or is "off". Tests and CI never write it.
Everything works without it: a file that cannot be read counts as empty, one that
cannot be written is left out.
"""

import json
import os
import sys
import tempfile
from contextlib import suppress
from datetime import date
from pathlib import Path

from deepseek_mini.lesson.display import publish
from deepseek_mini.lesson.oracles import lessons


def progress() -> None:
    """Show a small table: how many exercises of each lesson this learner passed."""
    passed = read()
    rows = ["| lesson | passed | still open |", "|---|---|---|"]
    plain = []
    for lesson, exercises in lessons().items():
        done = [e.id for e in exercises if e.id in passed]
        still = ", ".join(e.id for e in exercises if e.id not in passed) or "none"
        rows.append(f"| {lesson} | {len(done)} of {len(exercises)} | {still} |")
        plain.append(f"{lesson}: {len(done)} of {len(exercises)} passed; open: {still}")
    publish({"text/markdown": "\n".join(rows), "text/plain": "\n".join(plain)})


def record(id: str) -> None:
    """Remember that an exercise was passed; silently nothing where that cannot be."""
    path = location()
    passed = read()
    if path is None or id in passed:
        return
    passed[id] = date.today().isoformat()
    content = json.dumps(
        {"version": 1, "passed": dict(sorted(passed.items()))}, indent=1
    )
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".progress-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(content + "\n")
            os.replace(temporary, path)  # whole or not at all
        except OSError:
            os.unlink(temporary)
            raise


def read() -> dict[str, str]:
    """The passed exercises and their dates; empty when nothing can be read."""
    path = location()
    try:
        passed = json.loads(path.read_text(encoding="utf-8"))["passed"]
        return {str(id): str(day) for id, day in passed.items()}
    except (AttributeError, KeyError, OSError, TypeError, ValueError):
        return {}


def location() -> Path | None:
    """The file, or None where progress is not kept (tests, CI, switched off)."""
    named = os.environ.get("DEEPSEEK_MINI_PROGRESS", "")
    if named.lower() == "off":
        return None
    if named:
        return Path(named).expanduser()
    if _in_tests_or_ci():
        return None
    here = Path.cwd()
    for folder in (here, *here.parents):
        if folder.name == "work" and (folder.parent / "exercises").is_dir():
            return folder / ".progress.json"
        if (folder / "work").is_dir() and (folder / "exercises").is_dir():
            return folder / "work" / ".progress.json"
    return _cache_folder() / "progress.json"


def _in_tests_or_ci() -> bool:
    return "PYTEST_CURRENT_TEST" in os.environ or "CI" in os.environ


def _cache_folder() -> Path:
    if sys.platform == "win32" and "LOCALAPPDATA" in os.environ:
        base = Path(os.environ["LOCALAPPDATA"])
    elif "XDG_CACHE_HOME" in os.environ:
        base = Path(os.environ["XDG_CACHE_HOME"])
    else:
        base = Path("~").expanduser() / ".cache"
    return base / "deepseek_mini"
