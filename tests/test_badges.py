"""Badges, install cells and hosted links lead where the one setting says."""

from __future__ import annotations

import json
import shutil
import warnings

import pytest
import tiny_course

from tools import badges, files, notebooks, rules, settings, source

HOST = "https://colab.research.google.com/github"
README = f"""\
| lesson | |
|---|---|
| [Legs](notebooks/03_legs.ipynb) | \
[![Open]({HOST}/someone/legs/blob/main/notebooks/03_legs.ipynb)] |

    git clone https://github.com/someone/legs.git
    pip install "deepseek_mini @ git+https://github.com/someone/legs@v1"

See https://github.com/someone/legs-of-others and https://github.com/someone/legs.
"""


def test_every_badge_agrees_with_the_setting():
    assert badges.problems(settings.ROOT) == []


def test_the_address_is_this_repository_on_github():
    problem = settings.address_problem(settings.load())
    if problem is None:
        return
    kind, sentence = problem
    print(f"::{kind}::{sentence}")
    if kind == "error":
        pytest.fail(sentence)
    warnings.warn(sentence, stacklevel=1)


def test_install_cells_pin_the_released_version():
    """A branch would change under people's feet; the tag is that of the version."""
    import tomllib

    setting = settings.load()
    table = tomllib.loads((settings.ROOT / "pyproject.toml").read_text())
    assert setting.ref != setting.branch
    if setting.ref.startswith("v"):
        assert setting.ref == f"v{table['project']['version']}"


@pytest.mark.parametrize(
    ("fork", "kind"), [(True, "warning"), (False, "error"), (None, "error")]
)
def test_another_address_is_an_error_at_home_and_a_warning_in_a_fork(
    tmp_path, monkeypatch, fork, kind
):
    event = tmp_path / "event.json"
    event.write_text(json.dumps({} if fork is None else {"repository": {"fork": fork}}))
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(event))
    monkeypatch.setenv("GITHUB_REPOSITORY", "pupil/legs")
    setting = settings.Settings("someone/legs", "main", "v1")
    found, sentence = settings.address_problem(setting)
    assert found == kind
    assert "`make badges REPO=pupil/legs`" in sentence
    monkeypatch.setenv("GITHUB_REPOSITORY", "Someone/Legs")
    assert settings.address_problem(setting) is None
    monkeypatch.delenv("GITHUB_REPOSITORY")
    assert settings.address_problem(setting) is None


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tiny_course.make(tmp_path_factory.mktemp("course"))
    (root / "README.md").write_text(README)
    assert notebooks.main(["--root", str(root), "build"]) == 0
    return root


@pytest.fixture
def course(built, tmp_path):
    return shutil.copytree(built, tmp_path / "course")


def test_the_address_is_rewritten_everywhere_and_back(course):
    paths = [p for p in course.rglob("*.*") if p.suffix in (".md", ".ipynb", ".toml")]
    before = {path: path.read_bytes() for path in paths}
    old = settings.load(course)
    badges.rewrite(course, settings.Settings("a-b/c.d_e", "trunk", "0123abc"))
    text = (course / "README.md").read_text()
    assert text == README.replace("someone/legs/blob/main", "a-b/c.d_e/blob/trunk") \
        .replace("someone/legs.git", "a-b/c.d_e.git") \
        .replace("someone/legs@v1", "a-b/c.d_e@0123abc") \
        .replace("someone/legs.\n", "a-b/c.d_e.\n")
    assert badges.problems(course) == []
    assert not any(rules.survey(course, []).values())
    badges.rewrite(course, old)
    assert {path: path.read_bytes() for path in paths} == before


def test_a_notebook_edited_by_hand_keeps_its_edit_and_its_mark(course):
    path = course / "exercises/03_legs.ipynb"
    notebook = files.load(path)
    notebook.cells[1].source = "mine"
    files.save(notebook, path)
    badges.rewrite(course, settings.Settings("a/b", "main", "v1"))
    cells = files.load(path).cells
    assert cells[1].source == "mine" and "github/a/b/blob" in cells[0].source
    lesson = source.read(course / "lessons/03_legs.py")
    assert notebooks.edited(path, lesson.cells("exercises", settings.load(course)))


def broken_badge(course, old, new):
    path = course / "notebooks/03_legs.ipynb"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return badges.problems(course)


def test_a_badge_of_another_notebook_is_found(course):
    found = broken_badge(course, "notebooks/03_legs", "solutions/03_legs")
    assert found == ["notebooks/03_legs.ipynb: its badge opens solutions/03_legs.ipynb"]


def test_a_badge_of_a_missing_file_is_found(course):
    found = broken_badge(course, "notebooks/03_legs", "notebooks/04_legs")
    assert any("which does not exist" in sentence for sentence in found)


def test_a_badge_of_another_repository_or_branch_is_found(course):
    found = broken_badge(course, "someone/legs/blob/main", "nobody/legs/blob/old")
    assert any("opens nobody/legs at old" in sentence for sentence in found)


def test_an_install_cell_of_another_repository_is_found(course):
    found = broken_badge(course, "someone/legs@v1", "someone/legs@v2")
    assert any("takes someone/legs at v2" in sentence for sentence in found)


def test_a_missing_badge_is_found(course):
    found = broken_badge(course, "colab-badge.svg", "badge.svg")
    assert any("no Open-in-Colab badge" in sentence for sentence in found)


def test_a_row_that_links_two_lessons_is_found(course):
    (course / "notebooks/04_arms.ipynb").write_bytes(
        (course / "notebooks/03_legs.ipynb").read_bytes()
    )
    readme = course / "README.md"
    readme.write_text(README.replace("(notebooks/03_legs", "(notebooks/04_arms"))
    assert any("links 03_legs and 04_arms" in what for what in badges.problems(course))


@pytest.mark.parametrize("name", ["legs", "a/b/c", "-/legs", "a b/c", ""])
def test_an_impossible_address_is_refused(name):
    with pytest.raises(ValueError, match="owner/name"):
        settings.require_repository(name)
