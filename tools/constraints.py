"""Write constraints.txt from what is installed in the running environment.

    .venv/bin/python -m tools.constraints > constraints.txt
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement

from tools.settings import ROOT

HEADER = """\
# The exact versions that CI tests, on Python 3.11 to 3.13; the stored outputs of the
# notebooks come from them. Use: pip install -r requirements.txt -c constraints.txt
# With a GPU leave the constraints out: pip then finds a torch for it.
# Made by `python -m tools.constraints` from an environment in which all tests pass.
"""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(lines: list[str]) -> dict[str, str]:
    """The versions of these requirements and of all that they require."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    todo = [Requirement(line) for line in lines]
    while todo:
        requirement = todo.pop()
        name = canonical(requirement.name)
        try:
            here = distribution(name)
        except PackageNotFoundError:
            continue
        found[name] = here.version.split("+")[0]
        for extra in {"", *requirement.extras} - {e for n, e in seen if n == name}:
            seen.add((name, extra))
            children = [Requirement(line) for line in here.requires or ()]
            todo += [
                child
                for child in children
                if child.marker is None or child.marker.evaluate({"extra": extra})
            ]
    found.pop("setuptools", None)  # each Python brings its own
    return found


def main() -> int:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line.strip() and not line.startswith("#")]
    versions = installed([*wanted, "playwright", "trl", "deepseek-recipe"])
    print(HEADER + "\n".join(f"{n}=={v}" for n, v in sorted(versions.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
