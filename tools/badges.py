"""The course's public address, in every badge, install cell and link.

    python -m tools.badges owner/name [--branch main] [--ref v0.1.0]
    python -m tools.badges --check
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from nbformat import NotebookNode

from tools import settings, source
from tools.files import cells_of, load, save, write
from tools.settings import Settings

TEXT = {".md", ".py", ".toml", ".cff", ".yml", ".yaml", ".txt", ".json", ".cfg", ""}
HOSTED = re.compile(
    r"(?:colab\.research\.google\.com/github"
    r"|kaggle\.com/kernels/welcome\?src=https://github\.com)"
    r"/(?P<repository>[\w.-]+/[\w.-]+)/blob/(?P<branch>[^/\s)]+)/(?P<path>[^\s)\"'?#]+)"
)
INSTALL = re.compile(
    r"git\+https://github\.com/(?P<repository>[\w.-]+/[\w.-]+?)(?:\.git)?"
    r"@(?P<ref>[\w./-]+)"
)
NOTEBOOK = re.compile(r"(?:notebooks|exercises|solutions)/([\w-]+)\.ipynb")


def texts(root: Path) -> Iterator[tuple[Path, str]]:
    """The tracked (or not yet tracked, but not ignored) text files, but notebooks."""
    line = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(line, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        paths = [root / name for name in sorted(set(done.stdout.split("\0"))) if name]
    else:  # no git here: an unpacked archive
        paths = [*root.glob("*"), *root.glob("lessons/*"), *root.glob(".github/**/*")]
    for path in paths:
        if path.suffix in TEXT and path.is_file() and not path.is_symlink():
            try:
                yield path, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def renamer(old: Settings, new: Settings) -> Callable[[str], str]:
    """A function that writes the new address wherever a text has the old one."""
    address = re.compile(
        r"(?P<site>github\.com[/:]|githubusercontent\.com/"
        r"|google\.com/github/|mybinder\.org/v2/gh/|codespaces\.new/)"
        rf"{re.escape(old.repository)}(?=\.git\b|(?![\w-]|\.[\w-]))"
    )
    here = re.escape(new.repository)
    pin = re.compile(rf"(github\.com/{here}(?:\.git)?@){re.escape(old.ref)}\b")
    blob = re.compile(rf"(/{here}/(?:blob|raw|tree)/){re.escape(old.branch)}(?=/)")

    def rename(text: str) -> str:
        text = address.sub(rf"\g<site>{new.repository}", text)
        text = pin.sub(rf"\g<1>{new.ref}", text)
        return blob.sub(rf"\g<1>{new.branch}", text)

    return rename


def rewrite(root: Path, new: Settings) -> int:
    """Change the setting and everything that follows from it; the files changed."""
    old = settings.load(root)
    rename = renamer(old, new)
    before = expected(root, old)
    changed = 0
    for path, text in texts(root):
        renamed = rename(text)
        if path == root / "pyproject.toml":
            renamed = set_values(renamed, new)
        if renamed != text:
            write(path, renamed)
            changed += 1
    after = expected(root, new)
    for kind in source.KINDS:
        for path in sorted((root / kind).glob("*.ipynb")):
            name = f"{kind}/{path.name}"
            pair = before.get(name), after.get(name)
            changed += rewrite_notebook(path, *pair, rename)
    return changed


def set_values(text: str, new: Settings) -> str:
    """pyproject.toml with the three values of [tool.deepseek-mini]."""
    head, table, rest = text.partition("[tool.deepseek-mini]\n")
    for field in ("repository", "branch", "ref"):
        value = getattr(new, field)
        rest = re.sub(rf'^{field} = ".*"$', f'{field} = "{value}"', rest, count=1,
                      flags=re.MULTILINE)
    return head + table + rest


def expected(root: Path, setting: Settings) -> dict[str, list[source.Cell]]:
    """What every notebook's cells should be, by path."""
    result = {}
    for file in source.sources(root):
        lesson = source.read(file)
        for kind in lesson.kinds():
            result[f"{kind}/{lesson.name}.ipynb"] = lesson.cells(kind, setting)
    return result


def rewrite_notebook(
    path: Path,
    before: list[source.Cell] | None,
    after: list[source.Cell] | None,
    rename: Callable[[str], str],
) -> bool:
    """Rewrite the addresses in a notebook's cells; whether it changed.

    Nothing is run: outputs stay as they are. A notebook that a person edited stays
    marked as edited.
    """
    notebook = load(path)
    mine = source.digest(cells_of(notebook))
    clean = before is not None and mine == source.digest(before)
    for number, cell in enumerate(notebook.cells):
        cell.source = rename(cell.source)
        if clean and after:
            cell.source, cell.id = after[number].text, after[number].id
    now = source.digest(cells_of(notebook))
    if now == mine:
        return False
    mark = notebook.metadata.setdefault("deepseek_mini", NotebookNode())
    if mark.get("cells") == mine:
        mark["cells"] = now
    save(notebook, path)
    return True


def problems(root: Path) -> list[str]:
    """What is wrong with the badges, install cells and hosted links, a line each."""
    setting = settings.load(root)
    found = []
    for path, text in texts(root):
        name = path.relative_to(root).as_posix()
        if name.startswith(("tests/", "tools/")):
            continue  # these speak about wrong addresses
        found += [f"{name}: {what}" for what in link_problems(text, setting, root)]
        if path.suffix == ".md":
            found += [f"{name}: {what}" for what in row_problems(text)]
    for kind in source.KINDS:
        for path in sorted((root / kind).glob("*.ipynb")):
            name = f"{kind}/{path.name}"
            what = notebook_problems(load(path), name, setting, root)
            found += [f"{name}: {sentence}" for sentence in what]
    return found


def link_problems(
    text: str, setting: Settings, root: Path, cell: bool = False
) -> Iterator[str]:
    """Hosted links and install lines that do not agree with the setting.

    Prose may install the branch too; cells pin (see notebook_problems).
    """
    for link in HOSTED.finditer(text):
        at = link["repository"], link["branch"]
        if at != (setting.repository, setting.branch):
            want = f"{setting.repository} at {setting.branch}"
            yield f"a badge opens {at[0]} at {at[1]}, not {want}"
        if not (root / link["path"]).is_file():
            yield f"a badge opens {link['path']}, which does not exist"
    for line in INSTALL.finditer(text):
        at = line["repository"], line["ref"].rstrip(".")
        allowed = (setting.ref,) if cell else (setting.ref, setting.branch)
        if at[0] != setting.repository or at[1] not in allowed:
            want = f"{setting.repository} at {setting.ref}"
            yield f"an install line takes {at[0]} at {at[1]}, not {want}"


def row_problems(text: str) -> Iterator[str]:
    """Table rows whose links lead to notebooks of different lessons."""
    for row in text.splitlines():
        if row.lstrip().startswith("|"):
            lessons = sorted(set(NOTEBOOK.findall(row)))
            if len(lessons) > 1:
                yield f"one row of a table links {' and '.join(lessons)}"


def notebook_problems(
    notebook: NotebookNode, name: str, setting: Settings, root: Path
) -> Iterator[str]:
    """A notebook's own badge opens that notebook; its other links are right too."""
    badges = []
    for cell in notebook.cells:
        yield from link_problems(cell.source, setting, root, cell=True)
        if "colab-badge.svg" in cell.source:
            badges += [link["path"] for link in HOSTED.finditer(cell.source)]
    if not badges:
        yield "has no Open-in-Colab badge"
    elif badges[0] != name:
        yield f"its badge opens {badges[0]}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.badges")
    parser.add_argument("repository", nargs="?", help="owner/name on GitHub")
    parser.add_argument("--branch", help="where badges point")
    parser.add_argument("--ref", help="the tag or commit that install cells pin")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--root", type=Path, default=settings.ROOT)
    chosen = parser.parse_args()
    try:
        new = settings.load(chosen.root)
        for field in ("repository", "branch", "ref"):
            if value := getattr(chosen, field):
                new = replace(new, **{field: value})
        settings.require_repository(new.repository)
        if not chosen.check:
            changed = rewrite(chosen.root, new)
            print(f"{changed} files now say {new.repository}")
        found = problems(chosen.root)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(found) if found else "every badge and install cell agrees")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
