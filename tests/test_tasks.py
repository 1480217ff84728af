"""Tasks: right answers pass, wrong ones do not, and splits never meet."""

import importlib.util
import random
import re
import sys
from dataclasses import replace
from itertools import islice, pairwise
from types import SimpleNamespace

import pytest

from deepseek_mini.posttraining.evaluator import equals
from deepseek_mini.posttraining.tasks import (
    Chain,
    Countdown,
    Gym,
    Sort,
    held_out,
    problems,
    stream,
)

TASKS = [Chain(), Chain(6, 9), Sort(), Sort(3), Countdown(), Countdown(4, 9)]
HAS_GYM = importlib.util.find_spec("reasoning_gym") is not None


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_every_task_accepts_its_own_answer_and_no_other(task):
    drawn = list(islice(stream(task, 0), 200))
    for problem, other in pairwise(drawn):
        assert task.verify(problem, problem.answer)
        assert task.verify(problem, f" {problem.answer} ")
        assert not task.verify(problem, "")
        assert not task.verify(problem, problem.answer + "1")
        assert not task.verify(problem, "?")
        if other.answer != problem.answer:
            assert not task.verify(problem, other.answer)


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_the_same_seed_draws_the_same(task):
    assert list(islice(stream(task, 3), 20)) == list(islice(stream(task, 3), 20))
    assert list(islice(stream(task, 3), 20)) != list(islice(stream(task, 4), 20))


def test_draws_do_not_change_from_one_version_to_the_next():
    """What a seed draws is part of the committed logs."""
    drawn = islice(stream(Chain(), 0), 3)
    expected = ["4+7+5-14", "1+17-10+14", "17+4-12+13"]
    assert [problem.question for problem in drawn] == expected


def draws(task, seed):
    rng = random.Random(seed)
    while True:
        yield task.draw(rng)


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_splits_never_meet(task):
    train = {p.key for p in islice(stream(task, 0), 2000)}
    test = {p.key for p in islice(stream(task, 1, "test"), 500)}
    assert not train & test
    share = sum(held_out(p) for p in islice(draws(task, 0), 1000)) / 1000
    assert 0.1 < share < 0.3


def test_another_order_of_the_same_terms_is_on_the_same_side():
    """Else "9-4+3" in training would give away a held-out "9+3-4"."""
    task = Chain(3, 4)
    sides = {}
    for problem in islice(draws(task, 0), 3000):
        terms = tuple(sorted(re.findall(r"[+-]?\d+", "+" + problem.question)))
        sides.setdefault(terms, set()).add(held_out(problem))
    assert all(len(side) == 1 for side in sides.values())
    assert len(sides) > 50
    sides = {}
    for problem in islice(draws(Sort(3), 0), 3000):
        digits = tuple(sorted(problem.question))
        sides.setdefault(digits, set()).add(held_out(problem))
    assert all(len(side) == 1 for side in sides.values())


def test_steps_lead_to_the_answer():
    for problem in islice(stream(Chain(5), 0), 100):
        total = int(re.match(r"\d+", problem.question)[0])
        for step, term in zip(
            problem.steps, re.findall(r"[+-]\d+", problem.question), strict=True
        ):
            assert step == f"{total}{term}={total + int(term)}"
            total += int(term)
            assert total >= 0
        assert str(total) == problem.answer
    for problem in islice(stream(Sort(4), 0), 100):
        firsts = [step.partition(":")[0] for step in problem.steps]
        assert " ".join(firsts) == problem.answer
        assert problem.steps[-1].endswith(":")
    for problem in islice(stream(Countdown(4), 0), 100):
        assert equals(problem.answer, problem.data[0])
        assert problem.steps[-1].endswith(f"={problem.data[0]}")


def test_problems_are_different_and_too_many_are_refused():
    drawn = problems(Chain(), 300, seed=0, split="test")
    assert len({p.key for p in drawn}) == 300
    assert all(held_out(p) for p in drawn)
    with pytest.raises(ValueError, match=r"30 .*, but only \d+ different ones"):
        problems(Chain(2, 3), 30, seed=0)
    with pytest.raises(ValueError, match="split is 'dev', but it must be"):
        stream(Chain(), 0, "dev")


def test_countdown_takes_any_expression_that_is_right_and_uses_each_number_once():
    task = Countdown()
    problem = next(stream(task, 0))
    target, (a, b, c) = problem.data
    assert not task.verify(problem, str(target))  # not made of the numbers
    assert not task.verify(problem, f"{problem.answer}+{a}-{a}")  # used again
    assert not task.verify(problem, f"{a}{b}+{c}")  # two numbers are not one
    problem = replace(problem, data=(24, [3, 4, 4]))
    for answer in ("3*4+4*3", "4*4+3", "3+4*4", "24", "4*(4+3)"):
        assert not task.verify(problem, answer)
    problem = replace(problem, data=(28, [3, 4, 4]))
    for answer in ("4*(4+3)", "(3 + 4) * 4", "4*(3+4)"):
        assert task.verify(problem, answer)


@pytest.mark.parametrize(
    ("text", "target", "right"),
    [
        ("1+2*3", 7, True),
        ("(1+2)*3", 9, True),
        ("(1 + 2) * 3", 9, True),
        ("8/(3-8/3)", 24, True),  # through a third, which no float is
        ("1/3+1/3+1/3", 1, True),
        ("7/2", 3, False),
        ("7//2", 3, False),  # a sign that the game does not have
        ("2**9", 512, False),
        ("1/0", 1, False),
        ("05", 5, False),
        ("1,2", 1, False),
        ("(1", 1, False),
        ("()", 0, False),
        ("1 2", 12, False),
        ("abs(3)", 3, False),
        ("٣+1", 4, False),
        ("1_0", 10, False),
        ("10.0", 10, False),
        ("(" * 150 + "1" + ")" * 150, 1, False),  # longer than an answer may be
        ("1\n+2", 3, False),
        ("1" * 5000, 1, False),
        ("", 0, False),
        ("__import__('os')", 0, False),
    ],
)
def test_countdown_takes_only_plain_expressions(text, target, right):
    numbers = sorted(int(n) for n in re.findall(r"[0-9]{1,9}", text))
    problem = replace(next(stream(Countdown(), 0)), data=(target, numbers))
    assert Countdown().verify(problem, text) is right


@pytest.mark.parametrize("text", ["1e1", "10.0", "--10", "+10", "1 0", "٣", "ten"])
def test_a_chain_s_answer_is_a_plain_whole_number(text):
    problem = replace(next(stream(Chain(), 0)), answer="10")
    assert not Chain().verify(problem, text)
    assert Chain().verify(problem, "010")  # a number, however it is written
    assert not Chain().verify(problem, "9" * 5000)


def gym(monkeypatch, answer) -> Gym:
    """A data set of a stand-in for the package, whose answers are `answer(seed)`."""

    class Data:
        def __init__(self, size, seed):
            self.seed = seed

        def __getitem__(self, index):
            return {"question": f"q{self.seed % 1000}", "answer": answer(self.seed)}

        def score_answer(self, answer, entry):
            raise AssertionError("some of the package's scorers evaluate the answer")

    package = SimpleNamespace(create_dataset=lambda name, size, seed: Data(size, seed))
    monkeypatch.setitem(sys.modules, "reasoning_gym", package)
    return Gym("chain_sum")


def test_reasoning_gym_is_adapted(monkeypatch):
    """What is passed on, and what is made of it; judged without the package."""
    task = gym(monkeypatch, lambda seed: seed % 7)
    problem, other = islice(stream(task, 0), 2)
    assert problem.question != other.question
    assert task.verify(problem, problem.answer)
    assert task.verify(problem, f" {problem.answer}\n")
    assert not task.verify(problem, "9")
    assert not task.verify(problem, problem.answer + "1")


@pytest.mark.parametrize("nothing", [None, "", " "])
def test_a_gym_without_answers_is_refused(monkeypatch, nothing):
    """Else the text "None" would be a right answer."""
    with pytest.raises(ValueError, match="'chain_sum' gives no answer to 'q"):
        next(stream(gym(monkeypatch, lambda seed: nothing), 0))


@pytest.mark.skipif(HAS_GYM, reason="reasoning-gym is installed")
def test_without_reasoning_gym_a_sentence_says_so():
    with pytest.raises(ImportError, match="reasoning-gym is not installed: pip"):
        next(stream(Gym("chain_sum"), 0))


@pytest.mark.skipif(
    not HAS_GYM, reason="no reasoning-gym here: pip install reasoning-gym"
)
@pytest.mark.parametrize("name", ["chain_sum", "gcd", "maze", "countdown"])
def test_reasoning_gym_itself(name):
    task = Gym(name)
    for problem in islice(stream(task, 0, "test"), 3):
        assert held_out(problem)
        assert task.verify(problem, problem.answer)
        assert not task.verify(problem, problem.answer + "1")


@pytest.mark.skipif(
    not HAS_GYM, reason="no reasoning-gym here: pip install reasoning-gym"
)
@pytest.mark.parametrize("name", ["string_insertion", "spiral_matrix", "countdown"])
def test_reasoning_gym_does_not_run_an_answer(name, tmp_path):
    """The package's own scorers of these hand the answer to eval."""
    target = tmp_path / "written"
    task = Gym(name)
    problem = next(stream(task, 0))
    assert not task.verify(problem, f"[open({str(target)!r}, 'w')]")
    assert not target.exists()
