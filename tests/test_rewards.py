"""Rewards: what earns one, and what tries to earn one without being right."""

from itertools import islice

import pytest

from deepseek_mini.posttraining.rewards import (
    accuracy_reward,
    code_reward,
    compile_reward,
    extract_answer,
    extract_thought,
    format_reward,
    language_reward,
    total,
)
from deepseek_mini.posttraining.tasks import Chain, Problem, stream

GOOD = [
    "<think>1+1=2</think><answer>2</answer>",
    "<think></think><answer></answer>",
    " <think>a\nb</think>\n\n<answer>2\n</answer>\n",
]
BAD = [
    "",
    "2",
    "<answer>2</answer>",
    "<think>x</think>2",
    "<think>x</think><answer>2",
    "<think>x<answer>2</answer></think>",
    "<answer>2</answer><think>x</think>",
    "<think>x</think> so <answer>2</answer>",
    "<think>x</think><answer>2</answer> done",
    "<think>x</think><think>y</think><answer>2</answer>",
    "<think>x</think><answer>2</answer><answer>3</answer>",
    "<think>x</think><answer>2</answer></answer>",
    "<THINK>x</THINK><answer>2</answer>",
]


def test_format():
    assert [format_reward(text) for text in GOOD] == [1.0] * len(GOOD)
    assert [format_reward(text) for text in BAD] == [0.0] * len(BAD)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>x</think><answer> 2 </answer>", "2"),
        ("<answer>2</answer>", "2"),
        ("x<answer>2</answer>y", "2"),
        ("<answer></answer>", ""),
        ("2", None),
        ("<answer>2", None),
        ("</answer>2<answer>", None),
        ("<answer>2</answer><answer>3</answer>", None),
        ("<answer><answer>2</answer>", None),
    ],
)
def test_the_answer_is_what_stands_in_its_tags(text, answer):
    assert extract_answer(text) == answer


def test_accuracy_needs_the_answer_and_not_the_rest_of_the_format():
    task = Chain()
    accuracy = accuracy_reward(task)
    for problem in islice(stream(task, 0), 20):
        right, wrong = problem.answer, str(int(problem.answer) + 1)
        assert accuracy(f"<think></think><answer>{right}</answer>", problem) == 1
        assert accuracy(f"<answer>{right}</answer>", problem) == 1
        assert accuracy(f"<think>{right}</think><answer>{wrong}</answer>", problem) == 0
        assert accuracy(right, problem) == 0
        several = "".join(f"<answer>{n}</answer>" for n in (right, wrong))
        assert accuracy(several, problem) == 0  # a list of guesses
        assert accuracy(f"<answer>{right} {wrong}</answer>", problem) == 0


SQUARE = Problem("code", "x squared", "x * x", (), "", [({"x": 3}, 9), ({"x": -2}, 4)])


@pytest.mark.parametrize(
    ("code", "compiled", "right"),
    [
        ("x * x", 1, 1),
        ("x ** 2", 1, 1),
        ("max(x, -x) * abs(x)", 1, 1),
        ("9 if x == 3 else 4", 1, 1),  # the tests are all that a rule can see
        ("x + 6", 1, 1),
        ("3 * x", 1, 0),  # right in one test
        ("x * x == x * x", 1, 0),
        ("y * y", 1, 0),
        ("def f(x): return x * x", 1, 0),
        ("while True: pass", 1, 0),
        ("9 ** 9 ** 9", 1, 0),
        ("x *", 0, 0),
        ("", 0, 0),
    ],
)
def test_code_is_judged_by_compiling_and_by_its_tests(code, compiled, right):
    text = f"<think>?</think><answer>\n{code}\n</answer>"
    assert compile_reward(text) == compiled
    assert code_reward(text, SQUARE) == right
    assert compile_reward(code) == code_reward(code, SQUARE) == 0  # not in its tags


def test_code_without_tests_is_not_judged():
    bare = Problem("code", "x squared", "x * x", (), "")
    with pytest.raises(ValueError, match="'x squared' has no tests"):
        code_reward("<answer>x * x</answer>", bare)


@pytest.mark.parametrize(
    ("thought", "script", "reward"),
    [
        ("so we add", "LATIN", 1.0),
        ("1+1=2", "LATIN", 1.0),
        ("", "LATIN", 1.0),
        ("so 我们 add", "LATIN", 0.5),  # two characters, two words
        ("我们加", "CJK", 1.0),
        ("итак add", "LATIN", 0.5),
        ("sо", "LATIN", 0.0),  # a Cyrillic letter inside the word
        ("naïve", "LATIN", 1.0),
    ],
)
def test_language_is_the_share_of_words(thought, script, reward):
    text = f"<think>{thought}</think><answer>2</answer>"
    assert extract_thought(text) == thought
    assert language_reward(script)(text) == reward
    assert language_reward(script)(thought) == 0.0  # no thought in the format


def test_weights_are_data():
    parts = {"accuracy": 1.0, "format": 0.5, "language": 0.25}
    assert total(parts, {"accuracy": 2.0, "language": 4.0}) == 3.0
    assert total(parts, {}) == 0
    with pytest.raises(ValueError, match="a weight for style, but the rewards are acc"):
        total(parts, {"style": 1.0})
