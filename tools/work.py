"""The learner's own copies of the exercises."""

from __future__ import annotations

import shutil
from pathlib import Path


def fill_work(root: Path) -> str:
    """Copy exercises into work/ where the learner has none yet; what was done."""
    folder = root / "work"
    folder.mkdir(exist_ok=True)
    new = []
    for path in sorted((root / "exercises").glob("*.ipynb")):
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
            new.append(path.name)
    kept = len(list(folder.glob("*.ipynb"))) - len(new)
    return f"work/: {len(new)} exercises added, {kept} of yours left as they are"
