"""From lessons/NN_topic.py to the cells of three notebooks, and back.

A source is a py:percent file. The cells above the line `# ===== exercises =====`
form notebooks/NN_topic.ipynb; those below form exercises/ and solutions/, which
differ only between `### BEGIN SOLUTION` and `### END SOLUTION`.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import jupytext

from tools.settings import Settings

DIVIDER = "# ===== exercises ====="
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
PARTNER = {
    "notebooks": ("exercises", "the exercises in Colab"),
    "exercises": ("notebooks", "the lesson in Colab"),
    "solutions": ("notebooks", "the lesson in Colab"),
}
KINDS = ("notebooks", "exercises", "solutions")
CELL = re.compile(r"^# %%", re.MULTILINE)
SOLUTION = re.compile(
    rf"^(?P<indent>[ \t]*){BEGIN}\n(?P<body>.*?)^[ \t]*{END}[ \t]*(?:\n|\Z)",
    re.MULTILINE | re.DOTALL,
)
EXERCISE = re.compile(r"""\bcheck\(\s*["'](\d\d\.\d+)["']""")

INSTALL = '''\
# On Colab this installs the course; anywhere else it does nothing.
import subprocess
import sys

if "google.colab" in sys.modules:
    course = "{package}"
    pip = [sys.executable, "-m", "pip", "install", "-q", course]
    if subprocess.run(pip).returncode:
        raise RuntimeError("the course did not install; run this cell once more")'''


@dataclass(frozen=True)
class Cell:
    """One cell: "markdown" or "code", its text, its tags, its stable id."""

    kind: str
    text: str
    tags: tuple[str, ...] = ()
    id: str = ""
    raw: str = field(default="", compare=False)  # as it stands in the source file

    def same(self, other: Cell) -> bool:
        """Equal in what a person writes: everything but the id."""
        mine, theirs = (self.kind, self.text), (other.kind, other.text)
        return mine == theirs and sorted(self.tags) == sorted(other.tags)


@dataclass(frozen=True)
class Source:
    """A parsed source: text before the first cell, lesson cells, exercise cells."""

    path: Path
    preamble: str
    lesson: list[Cell]
    exercises: list[Cell]
    divided: bool

    @property
    def name(self) -> str:
        return self.path.stem

    def kinds(self) -> tuple[str, ...]:
        return KINDS if self.exercises else KINDS[:1]

    def cells(self, kind: str, settings: Settings) -> list[Cell]:
        """The cells of one of its notebooks, with badge and install cell."""
        own = self.lesson if kind == "notebooks" else self.exercises
        if kind == "exercises":
            names = exercise_names(own)
            own = [
                replace(cell, text=stub(cell.text, name))
                for cell, name in zip(own, names, strict=True)
            ]
        path = f"{kind}/{self.name}.ipynb"
        badge = settings.badge(path)
        if self.exercises:  # relative links do not work on Colab, so: the other one
            other, words = PARTNER[kind]
            badge += f" · [{words}]({settings.colab(f'{other}/{self.name}.ipynb')})"
        badge = Cell("markdown", badge, id="badge")
        install = Cell("code", INSTALL.format(package=settings.package), id="install")
        title = 1 if own and own[0].kind == "markdown" else 0
        return [badge, *own[:title], install, *own[title:]]


def sources(root: Path, chosen: list[str] | tuple[str, ...] = ()) -> list[Path]:
    """The files of lessons/, or those whose name begins with a chosen number."""
    every = sorted((root / "lessons").glob("[0-9][0-9]_*.py"))
    for want in chosen:
        if not any(matches(path, want) for path in every):
            known = ", ".join(path.stem for path in every) or "none yet"
            raise ValueError(f"there is no lesson {want!r}; the lessons are: {known}")
    return [p for p in every if not chosen or any(matches(p, w) for w in chosen)]


def matches(path: Path, want: str) -> bool:
    stem = Path(want).stem
    return path.stem == stem or path.stem.split("_")[0] == stem.zfill(2)


def read(path: Path) -> Source:
    """Parse a source; ValueError names the file and what is wrong with it."""
    text = path.read_text(encoding="utf-8")
    parts = re.split(rf"^{DIVIDER}[ \t]*$\n?", text, flags=re.MULTILINE)
    if len(parts) > 2:
        raise ValueError(f"{path.name}: the line {DIVIDER!r} stands there twice")
    preamble, chunks = split(parts[0])
    between, more = split(parts[1]) if len(parts) == 2 else ("", [])
    if between.strip():
        raise ValueError(f"{path.name}: text between {DIVIDER!r} and the next cell")
    try:
        lesson = [parse(chunk) for chunk in chunks]
        exercises = [parse(chunk) for chunk in more]
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    divided = len(parts) == 2
    return Source(path, preamble, identify(lesson), identify(exercises), divided)


def split(text: str) -> tuple[str, list[str]]:
    """The text before the first `# %%`, and one chunk per cell."""
    starts = [match.start() for match in CELL.finditer(text)]
    ends = [*starts[1:], len(text)]
    before = text[: starts[0]] if starts else text
    return before, [text[a:b] for a, b in zip(starts, ends, strict=True)]


def parse(chunk: str) -> Cell:
    """One chunk of py:percent as a cell."""
    cells = jupytext.reads(chunk, fmt="py:percent").cells
    first = chunk.splitlines()[0]
    if len(cells) != 1:
        raise ValueError(f"the cell {first!r} reads as {len(cells)} cells")
    cell = cells[0]
    if cell.cell_type not in ("markdown", "code"):
        raise ValueError(f"the cell {first!r} is neither Markdown nor code")
    unknown = set(cell.metadata) - {"tags", "lines_to_next_cell"}
    if unknown:
        raise ValueError(f"the cell {first!r} has {sorted(unknown)}; only tags count")
    marks = {cell.source.count(mark) for mark in (BEGIN, END)}
    if marks != {len(SOLUTION.findall(cell.source))}:
        raise ValueError(f"a solution in the cell {first!r} has no begin or no end")
    tags = tuple(cell.metadata.get("tags", ()))
    return Cell(cell.cell_type, cell.source, tags, raw=chunk)


def unparse(cell: Cell) -> str:
    """A cell as py:percent, with one empty line after it."""
    head = "# %% [markdown]" if cell.kind == "markdown" else "# %%"
    if cell.tags:
        head += f" tags={json.dumps(list(cell.tags))}"
    lines = cell.text.splitlines()
    if cell.kind == "markdown":
        lines = [f"# {line}".rstrip() for line in lines]
    return "\n".join([head, *lines]) + "\n\n"


def identify(cells: list[Cell]) -> list[Cell]:
    """Give each cell an id made of its content, so that others keep theirs."""
    seen: dict[str, int] = {}
    result = []
    for cell in cells:
        mark = hashlib.sha256(f"{cell.kind}\n{cell.text}".encode()).hexdigest()[:8]
        seen[mark] = seen.get(mark, 0) + 1
        result.append(replace(cell, id=mark + (f"-{seen[mark]}" * (seen[mark] > 1))))
    return result


def exercise_names(cells: list[Cell]) -> list[str]:
    """For each cell the exercise that it belongs to: the next one checked."""
    names, name = [], "your turn"
    for cell in reversed(cells):
        found = EXERCISE.search(cell.text) if cell.kind == "code" else None
        name = found.group(1) if found else name
        names.append(name)
    return names[::-1]


def stub(text: str, name: str) -> str:
    """The text with each solution replaced by `raise NotImplementedError(name)`."""
    line = rf'\g<indent>raise NotImplementedError("{name}")' + "\n"
    return SOLUTION.sub(line, text).rstrip("\n")


def unstub(edited: str, original: str) -> str:
    """The edited stub with the solutions of the original cell put back."""
    solutions = [match.group(0) for match in SOLUTION.finditer(original)]
    holes = re.split(r"^[ \t]*raise NotImplementedError\(.*\)[ \t]*(?:\n|\Z)",
                     edited, flags=re.MULTILINE)
    if len(holes) != len(solutions) + 1:
        raise ValueError(
            "an answer was written into a stub, or a stub was removed; edit the copy "
            "in solutions/ instead, where the answers stand"
        )
    pairs = zip(holes, [*solutions, ""], strict=True)
    return "".join(hole + solution for hole, solution in pairs).rstrip("\n")


def digest(cells: list[Cell]) -> str:
    """A short hash of what the cells say: type, text and tags, not ids or outputs."""
    said = [[cell.kind, cell.text, sorted(cell.tags)] for cell in cells]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]
