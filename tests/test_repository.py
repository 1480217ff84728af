"""What the tracked files may hold, and that the documents speak of what exists."""

from __future__ import annotations

import re
import subprocess
from functools import cache

import pytest

from tools.settings import ROOT

MAX_TREE, MAX_FILE = 40_000_000, 5_000_000
# Spelled in pieces, so that this file does not find itself.
PERSONAL = re.compile(
    r"/(?:home|Users)/(?!you\b|me\b|ann\b|learner\b)[a-z][\w.-]*/"
    r"|(?<![\w.])/" + r"root/|(?<![\w.])/" + r"(?:work|opt)/[a-z.]"
    r"|/tmp/" + r"dev\b|C:\\\\?Users\\\\?(?!you|me|ann)\w"
)
PRIVATE = re.compile(
    r"https?://(?!(?:localhost|127\.0\.0\.1):8888)(?:localhost|127\.0\.0\.1|10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.)"
    r"(?!:?\{)[\w.:/-]*|\b[\w-]+\.(?:internal|corp|intranet|lan)\b(?!\()"
)
TEXT = {".py", ".md", ".toml", ".txt", ".cfg", ".yml", ".cff", ".ipynb", ".json",
        ".jsonl", ".log", ""}


@cache
def tracked():
    line = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout: there are no tracked files to look at")
    names = sorted(set(done.stdout.split("\0")) - {""})
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def test_no_file_names_one_machine():
    found = []
    for path in tracked():
        name = path.relative_to(ROOT).as_posix()
        if path.suffix not in TEXT or name in ("tests/test_repository.py",):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".ipynb":  # pictures are base64 and may hold anything
            text = re.sub(r'"image/png": "[^"]*"', "", text)
        for pattern in (PERSONAL, PRIVATE):
            if match := pattern.search(text):
                line = text.count("\n", 0, match.start()) + 1
                found.append(f"{name}:{line}: {match.group(0)}")
    assert not found, "\n".join(found)


def test_the_patterns_find_what_they_should():
    personal = ("/home/bob/x", "'/" + "root/.cache", "/" + "work/main", "/tmp/" + "dev")
    for text in personal:
        assert PERSONAL.search(text), text
    private = ("https://127.0.0.1:80/simple", "http://192.168.0.3/", "pypi.internal")
    for text in private:
        assert PRIVATE.search(text), text
    for text in ("/home/you/course", "network/main", "~/work/03", "a/root/b"):
        assert not PERSONAL.search(text), text
    for text in ("http://127.0.0.1:{port}", "https://github.com/a/b", "plan.lane"):
        assert not PRIVATE.search(text), text


def test_the_tree_stays_small():
    sizes = {path: path.stat().st_size for path in tracked()}
    assert sum(sizes.values()) < MAX_TREE
    large = [p.name for p, size in sizes.items() if size > MAX_FILE]
    assert not large, f"over {MAX_FILE // 1_000_000} MB: {large}"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("LICENSE", "MIT License"),
        ("LICENSE-TEXT", "Attribution 4.0 International"),
        ("CITATION.cff", "cff-version"),
        ("CONTRIBUTING.md", "lessons/"),
        ("CHANGELOG.md", "0.1.0"),
        ("AGENTS.md", "make"),
        ("README.md", "make lab"),
    ],
)
def test_a_document_is_there(name, words):
    assert words in (ROOT / name).read_text(encoding="utf-8")


def targets():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):", text, flags=re.MULTILINE))


def documents():
    return [path for path in tracked() if path.suffix == ".md"]


def test_every_make_target_in_the_documents_exists():
    known = targets()
    for path in documents():
        text = path.read_text(encoding="utf-8")
        code = "\n".join(re.findall(r"`[^`]+`|^```.*?^```", text, re.M | re.S))
        named = set(re.findall(r"\bmake ([a-z][a-z-]+)", code))
        assert named <= known, f"{path.name}: there is no make {named - known}"


def test_every_relative_link_in_the_documents_leads_somewhere():
    for path in documents():
        text = path.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in link and not link.startswith("mailto:"):
                assert (path.parent / link).exists(), f"{path.name} links {link}"


def test_ci_runs_make_test():
    assert "make test" in (ROOT / ".ci/run").read_text()
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    assert ".ci/run" in workflow
    assert all(f'"3.{minor}"' in workflow for minor in (11, 12, 13))


def test_the_make_targets_do_not_touch_the_learners_folder():
    """work/ is written by tools/work.py (missing files only) and by keep_copy."""
    text = (ROOT / "Makefile").read_text()
    recipes = [line for line in text.splitlines() if line.startswith("\t")]
    for recipe in recipes:
        assert not re.search(r"\brm\b(?! -f \$\(PY\))|\bgit\b|>\s*work", recipe), recipe
