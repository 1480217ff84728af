"""The notebook builder, on a course of one short lesson."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
import tiny_course
from matplotlib.figure import Figure
from PIL import Image

from tools import files, notebooks, png, rules, settings, source

NAMES = [f"{kind}/03_legs.ipynb" for kind in source.KINDS]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    root = tiny_course.make(tmp_path_factory.mktemp("course"))
    assert notebooks.main(["--root", str(root), "build"]) == 0
    return root


@pytest.fixture
def course(built, tmp_path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "course"))


def run(course: Path, *arguments: str) -> int:
    return notebooks.main(["--root", str(course), *arguments])


def change(path: Path, old: str, new: str) -> None:
    """Edit a notebook as a person would: in one cell, everything else as it was."""
    notebook = files.load(path)
    touched = [cell for cell in notebook.cells if old in cell.source]
    assert len(touched) == 1
    touched[0].source = touched[0].source.replace(old, new)
    files.save(notebook, path)


def read_all(course: Path) -> list[bytes]:
    return [(course / name).read_bytes() for name in NAMES]


def test_a_build_agrees_with_its_source(course):
    assert rules.survey(course, []) == {name: [] for name in NAMES}


def test_exercises_have_stubs_and_solutions_have_answers(course):
    exercise, solution = (
        "\n".join(c.source for c in files.load(course / name).cells)
        for name in NAMES[1:]
    )
    assert '    raise NotImplementedError("03.1")' in exercise
    assert "per_cat" not in exercise and "SOLUTION" not in exercise
    assert "return per_cat * cats" in solution


def test_a_second_build_gives_the_same_bytes(course):
    before = read_all(course)
    shutil.rmtree(course / ".cache")
    assert run(course, "build") == 0
    assert read_all(course) == before


def test_nothing_is_run_twice(course, capsys):
    assert run(course, "build") == 0
    assert capsys.readouterr().out.count("unchanged") == 3


def test_a_small_edit_of_the_source_is_a_small_change_of_the_notebook(course):
    path = course / NAMES[0]
    before = path.read_text().splitlines()
    lesson = course / "lessons/03_legs.py"
    lesson.write_text(lesson.read_text().replace("three cats", "four cats"))
    assert run(course, "build", "03") == 0
    after = path.read_text().splitlines()
    assert len(after) == len(before)
    different = sum(a != b for a, b in zip(after, before, strict=True))
    assert different == 3  # the cell's id and text, the notebook's hash


def test_widgets_are_stored_as_a_sentence(course):
    text = (course / NAMES[0]).read_text()
    assert "widget-view" not in text and "run this cell to use it" in text


def test_an_edit_by_hand_is_never_overwritten(course, capsys):
    path = course / NAMES[1]
    change(path, 'raise NotImplementedError("03.1")', "return 4 * cats")
    mine = path.read_bytes()
    assert run(course, "build", "--force") == 1
    assert path.read_bytes() == mine
    assert "make pull NOTEBOOK=exercises/03_legs.ipynb" in capsys.readouterr().out
    assert run(course, "build", "--overwrite") == 0
    kept = list((course / "work").glob("*.ipynb"))
    assert [copy.read_bytes() for copy in kept] == [mine]


def test_a_notebook_that_was_not_built_is_never_overwritten(course):
    path = course / NAMES[0]
    path.write_text(nbformat.writes(nbformat.v4.new_notebook()))
    assert run(course, "build") == 1


def test_work_is_filled_only_where_it_is_empty(course, capsys):
    assert run(course, "work") == 0
    mine = course / "work/03_legs.ipynb"
    mine.write_text("mine")
    assert run(course, "work") == 0
    assert mine.read_text() == "mine"
    assert "0 exercises added, 1 of yours left" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (NAMES[0], "three cats", "three *black* cats"),
        (NAMES[0], "3 * 4", "4 * 3"),
        (NAMES[1], "Write `legs`", "Write the function `legs`"),
        (NAMES[1], "The legs of so many cats.", "How many legs."),
        (NAMES[2], "per_cat = 4", "per_cat = 2 + 2"),
    ],
)
def test_pull_brings_an_edit_back_and_touches_nothing_else(course, name, old, new):
    change(course / name, old, new)
    assert run(course, "pull", str(course / name)) == 0
    expected = tiny_course.LESSON.replace(old, new)
    assert (course / "lessons/03_legs.py").read_text() == expected
    assert run(course, "build") == 0
    assert run(course, "check") == 0


def test_pull_takes_new_cells_with_their_tags(course):
    notebook = files.load(course / NAMES[0])
    new = nbformat.v4.new_code_cell("2 + 2", metadata={"tags": ["nbval-skip"]})
    notebook.cells.insert(3, new)
    files.save(notebook, course / NAMES[0])
    assert run(course, "pull", str(course / NAMES[0])) == 0
    text = (course / "lessons/03_legs.py").read_text()
    assert '\n# %% tags=["nbval-skip"]\n2 + 2\n\n# %%\nlegs = 3 * 4\n' in text


def test_pull_refuses_an_answer_in_a_stub(course, capsys):
    change(course / NAMES[1], 'raise NotImplementedError("03.1")', "return 4 * cats")
    assert run(course, "pull", str(course / NAMES[1])) == 1
    assert "solutions/" in capsys.readouterr().err
    assert (course / "lessons/03_legs.py").read_text() == tiny_course.LESSON


def test_pull_refuses_when_both_sides_changed(course, capsys):
    lesson = course / "lessons/03_legs.py"
    change(course / NAMES[0], "3 * 4", "4 * 3")
    lesson.write_text(tiny_course.LESSON.replace("three", "four"))
    assert run(course, "pull", str(course / NAMES[0])) == 1
    assert "both changed" in capsys.readouterr().err


def test_a_failing_cell_is_named_and_the_old_notebook_stays(course, capsys):
    before = (course / NAMES[0]).read_bytes()
    lesson = course / "lessons/03_legs.py"
    lesson.write_text(tiny_course.LESSON.replace("3 * 4", "3 * four"))
    assert run(course, "build") == 1
    said = capsys.readouterr().out
    assert "cell 3 failed" in said and "four" in said
    assert (course / NAMES[0]).read_bytes() == before
    assert not list(course.rglob("*.draft"))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("    ### END SOLUTION\n", "", "no begin or no end"),
        ("# %%\nlegs", '# %% id="x"\nlegs', "only tags"),
        ("# %%\nlegs", "# ===== exercises =====\n# %%\nlegs", "stands there twice"),
        ("# %%\ndef check", "# %% [raw]\ndef check", "neither Markdown nor code"),
    ],
)
def test_a_bad_source_is_refused_in_one_sentence(course, capsys, old, new, sentence):
    lesson = course / "lessons/03_legs.py"
    assert old in tiny_course.LESSON
    lesson.write_text(tiny_course.LESSON.replace(old, new, 1))
    assert run(course, "build") == 1
    said = capsys.readouterr().err
    assert "03_legs.py" in said and sentence in said


def test_an_unknown_lesson_is_refused(course, capsys):
    assert run(course, "build", "99") == 1
    assert "the lessons are: 03_legs" in capsys.readouterr().err


def encoded(array) -> str:
    data = io.BytesIO()
    Image.fromarray(array).save(data, "png")
    return base64.b64encode(data.getvalue()).decode()


def decoded(text: str) -> np.ndarray:
    picture = Image.open(io.BytesIO(base64.b64decode(text)))
    return np.asarray(picture.convert("RGB"), float)


def test_a_plot_is_stored_with_a_palette_that_nobody_sees():
    figure = Figure(figsize=(4, 3))
    for phase in range(3):
        figure.gca().plot(np.sin(np.arange(40) + phase))
    data = io.BytesIO()
    figure.savefig(data)
    text = base64.b64encode(data.getvalue()).decode()
    small = png.smaller(text)
    assert len(small) < 0.6 * len(text) and png.smaller(small) == small
    assert np.abs(decoded(small) - decoded(text)).mean() < png.MAX_ERROR


def test_a_photograph_and_a_transparent_picture_stay_exact():
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 4), dtype=np.uint8)
    assert png.smaller(encoded(noise)) == encoded(noise)
    noise[..., 3] = 255
    assert png.smaller(encoded(noise)) == encoded(noise)


# --- the rules: each is seen to fail -----------------------------------------


def stream(text: str):
    return nbformat.v4.new_output("stream", name="stdout", text=text)


def unrun(cell):
    cell.execution_count, cell.outputs = None, []


def error(cell):
    cell.outputs = [
        nbformat.v4.new_output("error", ename="E", evalue="no", traceback=[])
    ]


def svg(cell):
    data = {"image/svg+xml": "<svg/>", "text/plain": "x"}
    cell.outputs = [nbformat.v4.new_output("display_data", data)]


BROKEN = {
    "was never run": unrun,
    "stores an error": error,
    "stores an SVG": svg,
    "has 41 lines": lambda cell: cell.update(source="x = 1\n" * 41),
    "wider than 88 columns": lambda cell: cell.update(source="x = 1" + "0" * 84),
    "prints a path of one machine: /home/ann/legs.py": (
        lambda cell: cell.update(outputs=[stream("saved to /home/ann/legs.py\n")])
    ),
    "prints a path of one machine: C:": (
        lambda cell: cell.update(outputs=[stream("C:\\Users\\ann\\legs.py\n")])
    ),
    "prints a memory address": (
        lambda cell: cell.update(outputs=[stream("<Leg object at 0x7f0011223344>")])
    ),
    "differs from its source": lambda cell: cell.update(source="legs = 13"),
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_the_rules_catch(course, sentence):
    path = course / NAMES[0]
    notebook = files.load(path)
    BROKEN[sentence](notebook.cells[3])
    path.write_text(nbformat.writes(notebook))
    assert any(sentence in what for what in rules.survey(course, [])[NAMES[0]])


def test_the_rules_catch_what_concerns_the_whole_notebook(course):
    path = course / NAMES[0]
    notebook = files.load(path)
    notebook.metadata["widgets"] = {}
    for number in range(4):
        notebook.cells.append(
            nbformat.v4.new_code_cell(f"{number}  # NBVAL\n# NBVAL_IGNORE_OUTPUT")
        )
    notebook.cells.append(nbformat.v4.new_markdown_cell("x" * 500_001))
    path.write_text(nbformat.writes(notebook))
    said = "\n".join(rules.survey(course, [])[NAMES[0]])
    for sentence in ("metadata.widgets", "are not compared; at most 3", "500 KB",
                     "cells where its source gives"):
        assert sentence in said


def test_the_rules_catch_wrong_verdicts(course):
    for name, verdict in ((NAMES[1], "passed"), (NAMES[2], "not attempted")):
        path = course / name
        notebook = files.load(path)
        notebook.cells[-1].outputs[0].text = f"03.1: {verdict}\n"
        path.write_text(nbformat.writes(notebook))
        assert "should print '03.1: " in rules.problems(path)[0]


def test_the_rules_catch_missing_and_orphaned_notebooks(course):
    (course / NAMES[0]).rename(course / "notebooks/04_wings.ipynb")
    found = rules.survey(course, [])
    assert found[NAMES[0]] == ["is not built"]
    assert found["notebooks/04_wings.ipynb"] == ["has no source lessons/04_wings.py"]


# --- a learner solves an exercise in place --------------------------------------


def test_a_solved_exercise_breaks_no_check_except_in_ci(course, monkeypatch):
    path = course / NAMES[1]
    change(path, 'raise NotImplementedError("03.1")', "return 4 * cats")
    notebook = files.load(path)
    notebook.cells[-1].outputs[0].text = "03.1: passed\n"
    notebook.cells.append(nbformat.v4.new_code_cell("legs(100)"))
    files.save(notebook, path)
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    monkeypatch.delenv("CI", raising=False)
    assert run(course, "check") == 0
    monkeypatch.setenv("CI", "true")
    assert run(course, "check") == 1
    monkeypatch.setenv("GITHUB_REPOSITORY", "pupil/legs")
    assert settings.load(course).repository == "someone/legs"
    assert run(course, "check") == 0


def test_an_edit_outside_the_stub_is_always_found(course, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    change(course / NAMES[1], "Write `legs`", "Write `arms`")
    assert run(course, "check") == 1
