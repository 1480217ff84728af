"""What every committed notebook must satisfy. Reads files; runs nothing."""

from __future__ import annotations

import re
from pathlib import Path

from nbformat import NotebookNode

from tools import settings, source
from tools.files import cells_of, load
from tools.source import Cell

MAX_BYTES = 500_000
MAX_LINES = 40
MAX_COLUMNS = 88
MAX_UNCOMPARED = 3
UNCOMPARED = ("nbval-ignore-output", "nbval-skip")
PERSONAL = re.compile(
    r"(?:^|(?<=[\s\"'(=:]))"
    r"(?:/(?:home|root|Users|tmp|work|opt|mnt|private|var|content)/[^\s\"')]*"
    r"|[A-Za-z]:\\Users\\[^\s\"')]*)"
    r"|[^\s\"']*(?:site-packages|dist-packages)/[^\s\"')]*"
    r"|ipykernel_\d+"
)
ADDRESS = re.compile(r"\b(?:at )?0x[0-9a-f]{8,}\b")
VERDICT = {"exercises": "not attempted", "solutions": "passed"}


def uncompared(cell: NotebookNode) -> bool:
    """Whether nbval runs this cell without comparing what it prints."""
    tags = cell.metadata.get("tags", ())
    marks = re.findall(r"^\s*#+\s*(NBVAL_\w+)\s*$", cell.source, re.MULTILINE)
    marks = [mark.lower().replace("_", "-") for mark in marks]
    return any(tag in UNCOMPARED for tag in [*tags, *marks])


def texts(cell: NotebookNode) -> list[str]:
    """Every text that a code cell's outputs hold, pictures left out."""
    found = []
    for output in cell.outputs:
        found += [output[key] for key in ("text", "evalue") if key in output]
        found += output.get("traceback", ())
        for mime, value in output.get("data", {}).items():
            if not mime.startswith("image/"):
                found.append(value if isinstance(value, str) else str(value))
    return found


def problems(path: Path, expected: list[Cell] | None = None) -> list[str]:
    """What is wrong with one notebook, a sentence each; nothing if it is right."""
    found = []
    if path.stat().st_size > MAX_BYTES:
        kilobytes = path.stat().st_size // 1000
        found.append(f"{kilobytes} KB; at most {MAX_BYTES // 1000} KB")
    notebook = load(path)
    if "widgets" in notebook.metadata:
        found.append("has metadata.widgets, which GitHub refuses to show")
    if expected is not None:
        found += drift(cells_of(notebook), expected)
    code = [(n, c) for n, c in enumerate(notebook.cells) if c.cell_type == "code"]
    free = [number for number, cell in code if uncompared(cell)]
    if len(free) > MAX_UNCOMPARED:
        found.append(f"cells {free} are not compared; at most {MAX_UNCOMPARED} may be")
    for number, cell in code:
        found += [f"cell {number} {what}" for what in cell_problems(cell)]
        found += verdict_problems(number, cell, path.parent.name)
    return found


def drift(actual: list[Cell], expected: list[Cell]) -> list[str]:
    """Where the stored cells differ from those that the source gives."""
    for number, (mine, wanted) in enumerate(zip(actual, expected, strict=False)):
        if not mine.same(wanted):
            return [f"cell {number} differs from its source"]
        if mine.id != wanted.id:
            return [f"cell {number} has the id {mine.id!r} instead of {wanted.id!r}"]
    if len(actual) != len(expected):
        return [f"has {len(actual)} cells where its source gives {len(expected)}"]
    return []


def cell_problems(cell: NotebookNode) -> list[str]:
    """What is wrong with one code cell, each said to follow "cell 3"."""
    found, tags = [], cell.metadata.get("tags", ())
    lines = cell.source.splitlines()
    if cell.execution_count is None and cell.source.strip():
        found.append("was never run")
    if len(lines) > MAX_LINES:
        found.append(f"has {len(lines)} lines; at most {MAX_LINES}")
    wide = [n for n, line in enumerate(lines, 1) if len(line) > MAX_COLUMNS]
    if wide and cell.get("id") != "install":  # an address has no place to break
        found.append(f"is wider than {MAX_COLUMNS} columns in line {wide[0]}")
    if "raises-exception" not in tags and any(
        output.output_type == "error" for output in cell.outputs
    ):
        found.append("stores an error")
    if any("image/svg+xml" in output.get("data", {}) for output in cell.outputs):
        found.append("stores an SVG; use PNG")
    for text in texts(cell):
        if path := PERSONAL.search(text):
            found.append(f"prints a path of one machine: {path.group(0)[:60]}")
        if not uncompared(cell) and (address := ADDRESS.search(text)):
            found.append(f"prints a memory address: {address.group(0)}")
    return found


def verdict_problems(number: int, cell: NotebookNode, kind: str) -> list[str]:
    """Stored exercises say "not attempted", stored solutions "passed"."""
    if kind not in VERDICT:
        return []
    printed = "\n".join(texts(cell)).splitlines()
    return [
        f"cell {number} should print {line!r}"
        for name in source.EXERCISE.findall(cell.source)
        if (line := f"{name}: {VERDICT[kind]}") not in printed
    ]


def learner_edits(path: Path, expected: list[Cell]) -> bool:
    """Whether an exercise was changed only as a learner would: by solving it.

    Cells may be added, and stubs rewritten; everything else is still there.
    """
    if path.parent.name != "exercises":
        return False
    now = {cell.id: cell for cell in cells_of(load(path))}
    return all(
        "raise NotImplementedError(" in cell.text
        or (cell.id in now and now[cell.id].same(cell))
        for cell in expected
    )


def survey(root: Path, chosen: list[str]) -> dict[str, list[str]]:
    """The problems of every notebook of the chosen lessons, by its path."""
    setting = settings.load(root)
    strict = settings.guards_the_course(setting)
    found: dict[str, list[str]] = {}
    for file in source.sources(root, chosen):
        lesson = source.read(file)
        for kind in lesson.kinds():
            name = f"{kind}/{lesson.name}.ipynb"
            found[name] = one(root / name, lesson.cells(kind, setting), strict)
    if not chosen:
        for kind in source.KINDS:
            for path in sorted((root / kind).glob("*.ipynb")):
                name = f"{kind}/{path.name}"
                found.setdefault(name, [f"has no source lessons/{path.stem}.py"])
    return found


def one(path: Path, expected: list[Cell], strict: bool) -> list[str]:
    """The problems of one notebook; a learner's solved exercise has none."""
    if not path.exists():
        return ["is not built"]
    found = problems(path, expected)
    if found and not strict and learner_edits(path, expected):
        return []
    return found


def report(root: Path, chosen: list[str]) -> int:
    """Print every problem; 1 if there is one."""
    found = survey(root, chosen)
    bad = {name: what for name, what in found.items() if what}
    for name, what in bad.items():
        for sentence in what:
            print(f"{name}: {sentence}")
    if bad:
        print(f"{len(bad)} of {len(found)} notebooks; `make notebooks` builds them")
        return 1
    print(f"{len(found)} notebooks agree with lessons/ and with the rules")
    return 0
