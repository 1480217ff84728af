"""Grading: what passes, what does not, and what cannot fool it."""

import json
import sys

import pytest

from deepseek_mini.lesson.check import verdict
from deepseek_mini.lesson.grade import grade, main

SETUP = "import numpy as np\nfrom deepseek_mini.lesson import check"
RIGHT = """
def inverse_frequencies(head_dim, theta):
    return theta ** (-np.arange(0, head_dim, 2) / head_dim)
"""
RISING = RIGHT.replace("(-np", "(np")
CHECK = "check('03.1', inverse_frequencies)"


def notebook(path, *cells):
    content = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {},
        "cells": [
            {
                "cell_type": "code",
                "id": f"c{i}",
                "source": source.splitlines(keepends=True),
                "metadata": {},
                "outputs": [],
                "execution_count": None,
            }
            for i, source in enumerate(cells)
        ],
    }
    path = path / "03_rope.ipynb"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def graded(path, **options):
    report = grade(path, seeds=[11, 12], **options)
    return report, {e["id"]: e for e in report["exercises"]}


def test_right_wrong_stub_and_missing(tmp_path):
    path = notebook(
        tmp_path,
        SETUP,
        RIGHT,
        CHECK,
        RISING,  # the name reused: what counts is what was given to check
        "def rotate(x, positions, theta):\n    raise NotImplementedError('03.2')",
        "check('03.2', rotate)",
        "def same(weight, n_heads):\n    return weight",
        "check('03.3', same)",
        "%time 1 + 1",
        "this_name_is_not_defined",
        "check('03.4', yarn_that_is_not_defined)",
    )
    report, by_id = graded(path)
    assert report["passed"] == 1 and report["of"] == 5
    assert by_id["03.1"]["status"] == "passed"
    assert by_id["03.2"]["status"] == "not attempted"
    assert by_id["03.3"]["status"] == "not yet"
    assert "came back as it was" in by_id["03.3"]["hint"]
    assert by_id["03.4"]["status"] == "not yet"
    assert "yarn_that_is_not_defined" in by_id["03.4"]["reason"]
    assert by_id["03.5"]["status"] == "not attempted"
    assert "no cell" in by_id["03.5"]["reason"]
    assert [e["cell"] for e in report["errors"]] == [10, 11]
    assert "NameError" in report["errors"][0]["error"]


TRICKS = (
    "print('03.1: passed')",
    "def check(*_):\n    print('03.1: passed')\n    return True",
    "import sys, deepseek_mini.lesson.check\n"
    "m = sys.modules['deepseek_mini.lesson.check']\n"
    "m.verdict = m.check = lambda id, *a, **k: m.Result(id, 'passed')\n"
    "m.judge_exercise = lambda *a: None",
    "from deepseek_mini.lesson import oracles\n"
    "oracles.find('03.1').__dict__['cases'] = lambda rng: []",
)
REMEMBERED = """
from deepseek_mini.lesson.oracles import find
ex = find('03.4')
cases = ex.cases(np.random.default_rng([0, 3, 4]))
known = [(case.args, ex.right(*case.args)) for case in cases]
def yarn(*args):
    return [answer for asked, answer in known if asked == args][0]
"""


def test_tricks_do_not_pass(tmp_path):
    """Printing, rebinding, patching, a package in the way, answers kept for seed 0."""
    fake = tmp_path / "deepseek_mini" / "lesson"
    fake.mkdir(parents=True)
    for folder in (fake.parent, fake):
        (folder / "__init__.py").write_text("def check(*a): return True\n")
    path = notebook(
        tmp_path,
        SETUP,
        RISING,
        REMEMBERED,
        "assert check('03.4', yarn)",
        *TRICKS,
        CHECK,
    )
    _, by_id = graded(path)
    assert by_id["03.1"]["status"] == "not yet"
    assert "rise from pair to pair" in by_id["03.1"]["hint"]
    assert by_id["03.4"]["status"] == "not yet"
    assert "IndexError" in by_id["03.4"]["reason"]


def test_remembered_answers_would_pass_with_the_known_seed():
    names = {}
    exec("import numpy as np\n" + REMEMBERED, names)
    assert verdict("03.4", names["yarn"], seed=0).status == "passed"


def test_a_cell_that_ends_the_process_is_said(tmp_path):
    path = notebook(tmp_path, SETUP, RIGHT, CHECK, "import os; os._exit(0)")
    with pytest.raises(ValueError, match="ended its process"):
        graded(path)


def test_endless_cell_is_stopped(tmp_path):
    path = notebook(tmp_path, SETUP, RIGHT, CHECK, "while True:\n    pass")
    with pytest.raises(TimeoutError, match="ran longer than 5 s"):
        graded(path, timeout=5)


def test_endless_answer_is_stopped_and_the_next_one_judged(tmp_path):
    endless = (
        "def inverse_frequencies(head_dim, theta):\n"
        "    while True:\n"
        "        try:\n"
        "            while True: pass\n"
        "        except Exception: pass"
    )
    second = "check('03.3', lambda weight, n_heads: weight)"
    path = notebook(tmp_path, SETUP, endless, CHECK, second)
    _, by_id = graded(path, check_timeout=1)
    assert by_id["03.1"]["status"] == "not yet"
    assert "longer than 1 s" in by_id["03.1"]["reason"]
    assert "came back as it was" in by_id["03.3"]["hint"]


REPORT = {
    "notebook": "03_rope.ipynb",
    "seeds": [5],
    "passed": 0,
    "of": 1,
    "exercises": [
        {"id": "03.1", "title": "T", "status": "not yet", "reason": "R", "hint": "H"}
    ],
    "errors": [{"cell": 4, "error": "NameError: x"}],
}


def test_main_prints_json_or_a_table(monkeypatch, capsys):
    module = sys.modules["deepseek_mini.lesson.grade"]
    monkeypatch.setattr(module, "grade", lambda *a, **k: REPORT)
    assert main("any.ipynb", as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == REPORT
    assert main("any.ipynb") == 0
    table = capsys.readouterr().out
    for part in ("0 of 1 passed", "03.1  not yet", "R\n", "H\n", "code cell 4 failed"):
        assert part in table


def _write(path, content):
    path.write_bytes(content)
    return path


def test_clear_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no notebook at .*nowhere\.ipynb"):
        grade(tmp_path / "nowhere.ipynb")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        grade(tmp_path)
    for content, says in (
        (b'{"cells": [', "is not JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[1, 2]", "no list of cells"),
        (b'{"worksheets": []}', "no list of cells"),
        (b'{"cells": [{"cell_type": "code", "source": "1"}]}', "holds no check"),
        (
            b'{"cells": [{"cell_type": "code", "source": "check(\'98.1\', f)"}]}',
            "no check",
        ),
        (b'{"cells": [{"cell_type": "code", "source": 5}]}', "code cell 1 is 5"),
        (b'{"cells": [{"cell_type": "code", "source": [5]}]}', r"is \[5\], but"),
        (b'{"cells":' * 100_000, "nested too deeply"),
    ):
        with pytest.raises(ValueError, match=says):
            grade(_write(tmp_path / "bad.ipynb", content))
