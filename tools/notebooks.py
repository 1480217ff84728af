"""Build notebooks from lessons/, check them, and bring edits back.

    python -m tools.notebooks build [03 ...] [--force] [--overwrite]
    python -m tools.notebooks check [03 ...]
    python -m tools.notebooks pull exercises/03_rope.ipynb
    python -m tools.notebooks work

`build` runs only what changed since this machine last built it. It never replaces
a notebook whose cells were changed by hand: `pull` brings such a change back into
lessons/, `build --overwrite` drops it (and keeps a copy in work/).
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

from nbformat import NotebookNode

from tools import rules, settings, source
from tools.execute import NotebookFailed, execute, fingerprint, new_notebook
from tools.files import cells_of, load, save, write
from tools.source import Cell
from tools.work import fill_work

CACHE = ".cache/notebooks"


def edited(path: Path, expected: list[Cell]) -> bool:
    """Whether a person changed the cells of the notebook at `path` since its build."""
    if not path.exists():
        return False
    notebook = load(path)
    now = source.digest(cells_of(notebook))
    built = notebook.metadata.get("deepseek_mini", {}).get("cells")
    return now not in (built, source.digest(expected))


def build(root: Path, chosen: list[str], force: bool, overwrite: bool) -> int:
    """Build what changed; the number of notebooks that could not be built."""
    setting = settings.load(root)
    package = fingerprint(root / "deepseek_mini")
    todo = []
    for path in source.sources(root, chosen):
        lesson = source.read(path)
        todo += [(lesson, kind) for kind in lesson.kinds()]
    failed = 0
    for number, (lesson, kind) in enumerate(todo, 1):
        name = f"{kind}/{lesson.name}.ipynb"
        cells = lesson.cells(kind, setting)
        print(f"[{number}/{len(todo)}] {name} ... ", end="", flush=True)
        start = time.perf_counter()
        try:
            say = build_one(root, name, cells, lesson, package, force, overwrite)
        except (NotebookFailed, ValueError) as error:
            failed += 1
            print(f"failed\n{error}", flush=True)
            continue
        seconds = time.perf_counter() - start
        print(say or f"built in {seconds:.1f} s", flush=True)
    if failed:
        print(f"{failed} of {len(todo)} notebooks were not built")
    return failed


def build_one(
    root: Path,
    name: str,
    cells: list[Cell],
    lesson: source.Source,
    package: str,
    force: bool,
    overwrite: bool,
) -> str:
    """Build one notebook; what to say instead of the time it took, or nothing."""
    path, stamp = root / name, root / CACHE / f"{name}.stamp"
    if edited(path, cells):
        if not overwrite:
            raise ValueError(
                f"{name} was changed by hand. `make pull NOTEBOOK={name}` brings the "
                f"change into lessons/, `make notebooks LESSON={lesson.name[:2]} "
                "OVERWRITE=1` drops it"
            )
        kept = keep_copy(root, path)
        print(f"(your version is kept as {kept}) ", end="")
    elif not force and stamp.exists() and path.exists() and (
        stamp.read_text() == state(path, cells, package)
    ):
        return "unchanged"
    notebook = new_notebook(cells)
    path.parent.mkdir(exist_ok=True)
    execute(notebook, path.parent, name)
    if path.exists() and not force:
        keep_uncompared(load(path), notebook)
    notebook.metadata["deepseek_mini"] = NotebookNode(
        cells=source.digest(cells), source=f"lessons/{lesson.path.name}"
    )
    save(notebook, path)
    write(stamp, state(path, cells, package))
    return ""


def state(path: Path, cells: list[Cell], package: str) -> str:
    """What a build was made from, and what it made: equal if nothing changed."""
    ids = " ".join(cell.id for cell in cells)
    made = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return f"{source.digest(cells)} {package} {made} {ids}"


def keep_copy(root: Path, path: Path) -> Path:
    """Copy a notebook into work/ under a name that is free."""
    (root / "work").mkdir(exist_ok=True)
    for number in range(1, 1000):
        copy = root / "work" / f"{path.stem}.{path.parent.name}-{number}.ipynb"
        if not copy.exists():
            shutil.copyfile(path, copy)
            return copy.relative_to(root)
    raise ValueError("work/ holds a thousand copies already; remove some")


def keep_uncompared(old: NotebookNode, new: NotebookNode) -> None:
    """Keep the stored output of unchanged cells that are never compared.

    They print times; without this no second build would give the same bytes.
    """
    stored = {cell.get("id"): cell for cell in old.cells if cell.cell_type == "code"}
    for cell in new.cells:
        before = stored.get(cell.id)
        if rules.uncompared(cell) and before and before.source == cell.source:
            cell.outputs = before.outputs


def pull(root: Path, notebook_path: Path) -> str:
    """Bring the cells of an edited notebook back into its source; what was done."""
    path = notebook_path.resolve()
    kind, name = path.parent.name, path.stem
    file = root / "lessons" / f"{name}.py"
    if kind not in source.KINDS or path.parent.parent != root.resolve():
        raise ValueError(
            f"{notebook_path} is not in notebooks/, exercises/ or solutions/"
        )
    if not file.exists():
        raise ValueError(f"{notebook_path} has no source: lessons/{name}.py is missing")
    notebook, lesson = load(path), source.read(file)
    expected = lesson.cells(kind, settings.load(root))
    built = notebook.metadata.get("deepseek_mini", {}).get("cells")
    cells = cells_of(notebook)
    if source.digest(cells) == source.digest(expected):
        return f"lessons/{name}.py says the same already"
    if built != source.digest(expected):
        raise ValueError(
            f"lessons/{name}.py and {kind}/{name}.ipynb both changed since the last "
            "build; make the change in lessons/ by hand"
        )
    own = lesson.lesson if kind == "notebooks" else lesson.exercises
    known = {cell.id: cell for cell in own}
    result = []
    for cell in cells:
        if cell.id in ("badge", "install"):
            continue
        old = known.get(cell.id)
        if kind == "exercises" and old and source.SOLUTION.search(old.text):
            cell = replace(cell, text=source.unstub(cell.text, old.text))
        result.append(old if old and cell.same(old) else cell)
    text = lesson.preamble
    parts = (result, lesson.exercises) if own is lesson.lesson else (
        lesson.lesson, result
    )
    text += "".join(cell.raw or source.unparse(cell) for cell in parts[0])
    if lesson.divided:
        text += source.DIVIDER + "\n\n"
        text += "".join(cell.raw or source.unparse(cell) for cell in parts[1])
    write(file, text.rstrip("\n") + "\n")
    changed = sum(not cell.raw for cell in result)
    return f"lessons/{name}.py: {changed} cells taken from {kind}/{name}.ipynb"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks")
    parser.add_argument("--root", type=Path, default=settings.ROOT)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help="build and run what changed")
    command.add_argument("lessons", nargs="*", help="such as 03; all without any")
    command.add_argument("--force", action="store_true", help="also what is unchanged")
    command.add_argument("--overwrite", action="store_true", help="drop edits by hand")
    command = commands.add_parser("check", help="compare with lessons/ and the rules")
    command.add_argument("lessons", nargs="*")
    command = commands.add_parser("pull", help="bring an edit in Jupyter to lessons/")
    command.add_argument("notebook", type=Path)
    commands.add_parser("work", help="fill work/ with the exercises that are missing")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "build":
            options = chosen.lessons, chosen.force, chosen.overwrite
            return int(build(chosen.root, *options) > 0)
        if chosen.command == "check":
            return rules.report(chosen.root, chosen.lessons)
        if chosen.command == "pull":
            print(pull(chosen.root, chosen.notebook))
        else:
            print(fill_work(chosen.root))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
