"""Read and write notebooks, whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from tools.source import Cell


def load(path: Path) -> NotebookNode:
    """Read a notebook; ValueError in one sentence if it is not one."""
    try:
        return nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        first = str(error).splitlines()[0][:80]
        raise ValueError(f"{path} is not a notebook: {first}") from None


def save(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook whole or not at all."""
    nbformat.validate(notebook)
    write(path, nbformat.writes(notebook).rstrip("\n") + "\n")


def write(path: Path, text: str) -> None:
    """Replace a text file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".draft")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(draft, path.stat().st_mode if path.exists() else 0o644)
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def cells_of(notebook: NotebookNode) -> list[Cell]:
    """The cells of a notebook as a person wrote them."""
    return [
        Cell(c.cell_type, c.source, tuple(c.metadata.get("tags", ())), c.get("id", ""))
        for c in notebook.cells
    ]
