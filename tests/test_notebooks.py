"""The committed notebooks agree with lessons/ and keep the rules; nbval is strict.

The notebooks themselves are run by `pytest --nbval`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import nbformat
import pytest
import tiny_course

from tools import files, notebooks, rules, settings, source

SURVEY = rules.survey(settings.ROOT, [])


@pytest.mark.parametrize("name", SURVEY)
def test_a_notebook_keeps_the_rules(name):
    lesson = re.search(r"/(\d\d)_", name).group(1)
    problems = "\n".join(SURVEY[name])
    assert not problems, f"{problems}\n`make notebooks LESSON={lesson}` builds it"


def test_lessons_and_exercises_have_unique_numbers():
    every = [source.read(path) for path in source.sources(settings.ROOT)]
    numbers = [lesson.name[:2] for lesson in every]
    assert len(numbers) == len(set(numbers))
    for lesson in every:
        text = "\n".join(cell.text for cell in lesson.exercises)
        names = source.EXERCISE.findall(text)
        assert len(names) == len(set(names)), f"{lesson.name} checks one name twice"
        wrong = [name for name in names if name[:2] != lesson.name[:2]]
        assert not wrong, f"{lesson.name} checks {wrong}"


# --- what `pytest --nbval` does here, on a course of one short lesson ----------------

EXERCISE = "exercises/03_legs.ipynb"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tiny_course.make(tmp_path_factory.mktemp("course"))
    (root / "pyproject.toml").write_text(
        tiny_course.PYPROJECT + "[tool.pytest.ini_options]\n"
        'testpaths = ["notebooks", "exercises", "solutions"]\n'
    )
    shutil.copy(settings.ROOT / "conftest.py", root)
    (root / "tests").mkdir()
    shutil.copy(settings.ROOT / "tests/nbval_sanitize.cfg", root / "tests")
    assert notebooks.main(["--root", str(root), "build"]) == 0
    return root


@pytest.fixture
def course(built, tmp_path):
    return shutil.copytree(built, tmp_path / "course")


def nbval(course, *paths, folder="."):
    line = [sys.executable, "-m", "pytest", "--nbval", "-q", *paths]
    where = course / folder
    return subprocess.run(line, cwd=where, capture_output=True, text=True, check=False)


def test_a_bare_nbval_runs_every_notebook_and_prints_the_slowest(course):
    done = nbval(course)
    assert done.returncode == 0, done.stdout
    assert "13 passed" in done.stdout
    listed = done.stdout.partition("slowest notebooks")[2]
    assert all(f"{kind}/03_legs.ipynb" in listed for kind in source.KINDS)


def test_it_works_from_another_folder_too(course):
    assert nbval(course, "03_legs.ipynb", folder="exercises").returncode == 0


def test_a_changed_output_fails(course):
    path = course / "notebooks/03_legs.ipynb"
    path.write_text(path.read_text().replace("legs: 12", "legs: 13"))
    done = nbval(course, "notebooks")
    assert done.returncode == 1 and "1 failed" in done.stdout


def test_a_solved_exercise_passes_and_so_does_a_wrong_answer(course):
    path = course / EXERCISE
    before = path.read_text()
    stub = 'raise NotImplementedError(\\"03.1\\")'
    assert stub in before
    for answer in ("return 4 * cats", "return 5 * cats"):
        path.write_text(before.replace(stub, answer))
        done = nbval(course, EXERCISE)
        assert done.returncode == 0, done.stdout


def test_a_verdict_does_not_hide_what_else_is_printed(course):
    path = course / EXERCISE
    notebook = files.load(path)
    notebook.cells[-1].outputs[0].text += "and more\n"
    files.save(notebook, path)
    assert nbval(course, EXERCISE).returncode == 1


def test_verdicts_and_widgets_are_all_that_is_not_compared():
    text = (settings.ROOT / "tests/nbval_sanitize.cfg").read_text()
    pairs = re.findall(r"^regex: (.*)$\n^replace: (.*)$", text, flags=re.MULTILINE)

    def clean(text):
        for regex, replacement in pairs:
            text = re.sub(regex, replacement, text)
        return text

    verdicts = (
        "03.1: passed\n",
        "03.1: not attempted\n",
        "03.1: not yet - the shape is (2, 3), not (3, 2)\n  hint: transpose\n",
        "03.1: not yet - too large\n",
    )
    assert {clean(verdict) for verdict in verdicts} == {"03.1: checked\n"}
    for text in ("03.1: perhaps\n", "loss 3.1: passed\n", "x\n", "HTML is a format"):
        assert clean(text) == text
    note = "[interactive: run this cell to use it]"
    assert clean("VBox(children=(IntSlider(value=3), HTML(value='a\\nb…") == note


def test_a_notebook_in_an_old_format_is_named(tmp_path):
    path = tmp_path / "old.ipynb"
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"old\.ipynb is not a notebook"):
        files.load(path)
    nbformat.write(nbformat.v4.new_notebook(), path)
    assert files.load(path).cells == []
