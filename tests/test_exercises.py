"""Every exercise, its wrong answers, its right ones, its stub and its solution.

Lessons are found by themselves: an oracle module exNN.py needs tests/wrong_answers/
exNN.py, and when lessons/NN_topic.py exists its exercises must agree with both.
"""

import inspect
import linecache
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import deepseek_mini.lesson as lesson_package
from deepseek_mini.lesson.check import verdict
from deepseek_mini.lesson.oracles import lessons
from deepseek_mini.posttraining.lean import missing

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT / "tests") not in sys.path:
    sys.path.insert(0, str(ROOT / "tests"))

LESSONS = lessons()
EXERCISES = {e.id: e for exercises in LESSONS.values() for e in exercises}


def answers(id):
    return import_module(f"wrong_answers.ex{id[:2]}").ANSWERS[id]


def _all_answers(kind):
    """(id, answer) for every right or wrong answer, named for pytest."""
    for id in EXERCISES:
        for item in getattr(answers(id), kind):
            function = getattr(item, "answer", item)
            yield pytest.param(id, item, id=f"{id}-{function.__name__}")


@pytest.fixture(autouse=True)
def kernels_need_triton(request):
    if re.search(r"\[20[._]", request.node.name) and not find_spec("triton"):
        pytest.skip("there is no Triton here")


@pytest.fixture(autouse=True)
def proofs_need_lean(request):
    if re.search(r"\[19\.4|passes\[19_", request.node.name) and missing():
        pytest.skip(missing())


# --- the declarations -------------------------------------------------------------


@pytest.mark.parametrize("lesson", LESSONS)
def test_lesson_has_three_to_six_numbered_exercises(lesson):
    ids = [e.id for e in LESSONS[lesson]]
    assert 3 <= len(ids) <= 6
    assert ids == [f"{lesson[:2]}.{i}" for i in range(1, len(ids) + 1)]
    module = import_module(f"deepseek_mini.lesson.oracles.ex{lesson[:2]}")
    assert lesson == module.LESSON


@pytest.mark.parametrize("id", EXERCISES)
def test_exercise_is_complete(id):
    ex = EXERCISES[id]
    assert ex.title and ex.difficulty and ex.hint
    assert 1 <= ex.minutes <= 60
    assert (ex.judge is not None) or (ex.right is not None and ex.cases is not None)
    if ex.right is not None:
        assert _names(ex.right) == _names_in(ex.signature)


@pytest.mark.parametrize("id", EXERCISES)
def test_exercise_has_enough_answers(id):
    known = answers(id)
    assert len(known.wrong) >= 3
    assert len(known.right) >= 1
    assert len({repr(w.answer) for w in known.wrong}) == len(known.wrong)


def test_no_answers_without_exercise():
    for lesson in LESSONS:
        module = import_module(f"wrong_answers.ex{lesson[:2]}")
        assert set(module.ANSWERS) == {e.id for e in LESSONS[lesson]}


# --- the answers ------------------------------------------------------------------


@pytest.mark.parametrize(("id", "right"), list(_all_answers("right")))
def test_right_answer_passes(id, right):
    for seed in range(5):
        result = verdict(id, right, seed=seed)
        assert result.status == "passed", f"seed {seed}: {result}"


@pytest.mark.parametrize(("id", "wrong"), list(_all_answers("wrong")))
def test_wrong_answer_is_rejected_with_what_fits(id, wrong):
    for seed in range(3):
        result = verdict(id, wrong.answer, seed=seed)
        assert result.status == "not yet", f"seed {seed}: {result}"
        assert result.reason
        assert wrong.says in f"{result.reason}\n{result.hint}", f"seed {seed}: {result}"


@pytest.mark.parametrize("id", EXERCISES)
def test_verdict_is_the_same_each_time(id):
    for wrong in answers(id).wrong:
        assert verdict(id, wrong.answer) == verdict(id, wrong.answer)


@pytest.mark.parametrize("id", EXERCISES)
def test_known_constants_do_not_pass(id):
    """What is right for one seed, given back whatever the inputs are, is wrong."""
    ex = EXERCISES[id]
    if ex.cases is None:
        pytest.skip("judged by a procedure of its own")
    import numpy as np

    first = next(iter(ex.cases(np.random.default_rng(0))))
    constant = ex.right(*first.args)
    assert verdict(id, lambda *args: constant).status == "not yet"


def test_merges_of_the_cases_can_come_out_of_training():
    """A token's parts come first and one pair makes it, so one pass is right too."""
    import numpy as np

    from deepseek_mini.bpe import BPE
    from deepseek_mini.tokenizer import SMALL_PATH

    trained = list(BPE.from_file(SMALL_PATH).rank)
    cases = [
        c
        for seed in range(20)
        for c in EXERCISES["01.4"].cases(np.random.default_rng(seed))
    ]
    for merges in (trained, *(case.args[1] for case in cases)):
        made = {}
        for place, (left, right) in enumerate(merges):
            assert left + right not in made
            assert all(len(x) == 1 or x in made for x in (left, right)), (left, right)
            made[left + right] = place


# --- the lessons ------------------------------------------------------------------


def _names(function):
    return [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD
    ]


def _names_in(signature):
    arguments = signature.split("(", 1)[1].rsplit(")", 1)[0]
    names = [part.split(":")[0].split("=")[0].strip() for part in arguments.split(",")]
    return [name for name in names if name]


def exercise_cells(path):
    """The code cells after the line that separates a lesson from its exercises."""
    text = path.read_text(encoding="utf-8")
    parts = re.split(r"^# =+ exercises =+\s*$", text, flags=re.MULTILINE)
    if len(parts) == 1:
        return []
    cells = re.split(r"^(# %%.*)$", parts[1], flags=re.MULTILINE)
    return [
        source
        for head, source in zip(cells[1::2], cells[2::2])
        if "[markdown]" not in head and "[raw]" not in head
    ]


def stubbed(source):
    """The cell as the learner gets it."""
    pattern = r"^([ \t]*)### BEGIN SOLUTION.*?### END SOLUTION[^\n]*$"
    return re.sub(
        pattern,
        r"\1raise NotImplementedError()",
        source,
        flags=re.MULTILINE | re.DOTALL,
    )


def run_exercises(path, stub):
    """Every check of a lesson's exercises: {id: (function, result)}."""
    seen = {}

    def collecting(id, theirs, **_options):
        seen[id] = (theirs, verdict(id, theirs))
        return seen[id][1]

    names = {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lesson_package, "check", collecting)
        for number, source in enumerate(exercise_cells(path)):
            source = stubbed(source) if stub else source
            cell = f"{path.name}, cell {number}"
            # As in a notebook: Triton reads the source of a kernel.
            lines = source.splitlines(keepends=True)
            linecache.cache[cell] = len(source), None, lines, cell
            exec(compile(source, cell, "exec"), names)
    return seen


def lesson_sources():
    for lesson in LESSONS:
        path = ROOT / "lessons" / f"{lesson}.py"
        if path.exists() and exercise_cells(path):
            yield pytest.param(lesson, path, id=lesson)


@pytest.mark.parametrize(("lesson", "path"), list(lesson_sources()))
def test_every_stub_is_not_attempted(lesson, path):
    seen = run_exercises(path, stub=True)
    assert list(seen) == [e.id for e in LESSONS[lesson]]
    for id, (stub, result) in seen.items():
        assert result.status == "not attempted", str(result)
        asked = EXERCISES[id].signature
        assert stub.__name__ == asked.split("(")[0]
        target = stub.__init__ if isinstance(stub, type) else stub
        target = getattr(target, "fn", target)  # of a kernel
        names = [n for n in _names(target) if n != "self"]
        assert names == _names_in(asked)


@pytest.mark.parametrize(("lesson", "path"), list(lesson_sources()))
def test_every_solution_passes(lesson, path):
    seen = run_exercises(path, stub=False)
    assert list(seen) == [e.id for e in LESSONS[lesson]]
    for id, (solution, _) in seen.items():
        for seed in range(3):
            result = verdict(id, solution, seed=seed)
            assert result.status == "passed", f"seed {seed}: {result}"


def test_a_lesson_with_exercises_has_oracles():
    for path in sorted((ROOT / "lessons").glob("[0-9][0-9]_*.py")):
        if exercise_cells(path):
            assert path.stem in LESSONS, f"{path.name} has exercises but no oracles"


SOURCE = """# %% [markdown]
# check('03.1', nothing): prose and the lesson's own cells are not exercises
# %%
raise AssertionError("a cell of the lesson")
# ===== exercises =====
# %% tags=["setup"]
import numpy as np
from deepseek_mini.lesson import check
# %% [markdown]
# Prose.
# %%
def inverse_frequencies(head_dim, theta):
    ### BEGIN SOLUTION
    return theta ** (-np.arange(0, head_dim, 2) / head_dim)
    ### END SOLUTION

check("03.1", inverse_frequencies)
"""


@pytest.mark.parametrize(
    ("stub", "status"), [(True, "not attempted"), (False, "passed")]
)
def test_how_a_lesson_is_read(tmp_path, stub, status):
    path = tmp_path / "03_rope.py"
    path.write_text(SOURCE, encoding="utf-8")
    seen = run_exercises(path, stub)
    assert [(id, result.status) for id, (_, result) in seen.items()] == [
        ("03.1", status)
    ]
