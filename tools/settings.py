"""The one setting that names the course's public address, and what follows from it."""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLAB = "https://colab.research.google.com"


@dataclass(frozen=True)
class Settings:
    """`[tool.deepseek-mini]` of pyproject.toml.

    `repository` is "owner/name" on GitHub, `branch` is where badges point, and
    `ref` is the tag or commit that the install cells pin.
    """

    repository: str
    branch: str
    ref: str

    @property
    def url(self) -> str:
        return f"https://github.com/{self.repository}"

    @property
    def package(self) -> str:
        """What pip installs on Colab."""
        return f"deepseek_mini @ git+{self.url}@{self.ref}"

    def colab(self, path: str) -> str:
        """The address that opens the notebook at `path` (from the root) in Colab."""
        return f"{COLAB}/github/{self.repository}/blob/{self.branch}/{path}"

    def badge(self, path: str) -> str:
        """The Open-in-Colab badge of the notebook at `path`, in Markdown."""
        image = f"{COLAB}/assets/colab-badge.svg"
        return f"[![Open in Colab]({image})]({self.colab(path)})"


def load(root: Path = ROOT) -> Settings:
    """Read the settings of the course under `root`; ValueError if one is wrong."""
    file = root / "pyproject.toml"
    table = tomllib.loads(file.read_text(encoding="utf-8"))
    table = table.get("tool", {}).get("deepseek-mini", {})
    values = {}
    for field in ("repository", "branch", "ref"):
        value = table.get(field)
        if not isinstance(value, str) or not value:
            raise ValueError(
                f"pyproject.toml: [tool.deepseek-mini] {field} is {value!r}; "
                "it must be a text such as "
                f"{'owner/name' if field == 'repository' else 'main'!r}"
            )
        values[field] = value
    require_repository(values["repository"])
    return Settings(**values)


def require_repository(name: str) -> str:
    """`name` if it reads owner/name; ValueError otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+", name):
        raise ValueError(f"the repository {name!r} is not of the form owner/name")
    return name


def address_problem(settings: Settings) -> tuple[str, str] | None:
    """("error" | "warning", sentence) if GitHub runs us under another address.

    In the home repository a difference is an error, because every badge then opens
    another course. In a fork it is a warning: the badges still work, they only open
    the original. GitHub says which in the payload of the event.
    """
    here = os.environ.get("GITHUB_REPOSITORY", "")
    if not here or here.lower() == settings.repository.lower():
        return None
    sentence = (
        f"the badges open {settings.repository}, but this is {here}: "
        f"`make badges REPO={here}` rewrites them"
    )
    return ("warning" if is_fork() else "error"), sentence


def is_fork() -> bool:
    """Whether GitHub says that this repository is a fork (False if it is silent)."""
    try:
        payload = Path(os.environ["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8")
        return bool(json.loads(payload)["repository"]["fork"])
    except (KeyError, OSError, TypeError, ValueError):
        return False


def guards_the_course(settings: Settings) -> bool:
    """Whether this run decides what is published: CI, outside of forks.

    Elsewhere a learner's edits to a tracked exercise are theirs to make, and no
    check fails because of them.
    """
    return bool(os.environ.get("CI")) and address_problem(settings) is None
