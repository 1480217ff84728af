"""Rules instead of a reward model: what an answer is worth, as plain functions.

R1-Zero is paid for being right and for keeping to the format; R1's first stage also for
staying in one language (arXiv 2501.12948v1, §2.2.2 and §2.3.2). Every function takes
what the model wrote and the problem, and returns a number from 0 to 1. What it wrote is
read and never run. The rule for proofs is Lean's verdict: `posttraining.lean.judge`.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping

from deepseek_mini.posttraining.evaluator import compiles, equals
from deepseek_mini.posttraining.tasks import Problem, Task

Reward = Callable[[str, Problem], float]

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_FORMAT = re.compile(r"\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\s*", re.DOTALL)


def extract_answer(text: str) -> str | None:
    """What stands between <answer> and </answer>; None unless each is there once.

    The rest of the format is not asked for, so that a right answer in a broken format
    can be told from a wrong one. Two answers are none: else a model would list guesses.
    """
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return None
    found = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
    return found[1].strip() if found else None


def extract_thought(text: str) -> str | None:
    """What stands between <think> and </think> in the right format, or None."""
    return _match(text)[1] if _match(text) else None


def format_reward(text: str, problem: Problem | None = None) -> float:
    """1 for <think>...</think><answer>...</answer> and nothing else, each tag once."""
    return float(_match(text) is not None)


def accuracy_reward(task: Task) -> Reward:
    """1 if the answer in its tags is right by the task's rule, else 0."""

    def accuracy(text: str, problem: Problem) -> float:
        answer = extract_answer(text)
        return float(answer is not None and task.verify(problem, answer))

    return accuracy


def compile_reward(text: str, problem: Problem | None = None) -> float:
    """1 if the answer in its tags is Python that compiles, else 0. It is not run."""
    answer = extract_answer(text)
    return float(bool(answer) and compiles(answer))


def code_reward(text: str, problem: Problem) -> float:
    """1 if the answer in its tags is an expression that passes every test, else 0.

    `problem.data` are the tests, pairs of variables and the value that they should
    give: `[({"x": 3}, 9), ({"x": -2}, 4)]`. The expression is not run: `evaluator`
    walks its parsed tree, and whatever that refuses earns nothing.

    Raises:
        ValueError: a problem without tests, which anything would pass.
    """
    if not problem.data:
        raise ValueError(
            f"the problem {problem.question!r} has no tests in its data: give pairs of "
            "variables and the value that they should give"
        )
    answer = extract_answer(text)
    return float(
        answer is not None
        and all(equals(answer, value, names) for names, value in problem.data)
    )


def language_reward(script: str = "LATIN") -> Reward:
    """The share of the thought's words that are written in one script.

    R1 takes the share of the wanted language's words in the chain of thought. A script
    is what a rule can see: names are Unicode's ("LATIN", "CJK", "CYRILLIC"). Text
    without words is in no wrong language: 1. Without a thought in the format: 0. A
    script that is written without spaces counts by the character.
    """

    def language(text: str, problem: Problem | None = None) -> float:
        thought = extract_thought(text)
        if thought is None:
            return 0.0
        words = re.findall(r"[\u3400-\u9fff]|[^\W\d_\u3400-\u9fff]+", thought)
        if not words:
            return 1.0
        right = sum(_in_script(word, script) for word in words)
        return right / len(words)

    return language


def total(parts: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The weighted sum of named rewards; R1-Zero's is {"accuracy": 1, "format": 1}.

    Raises:
        ValueError: a weight whose reward is not among `parts`.
    """
    missing = sorted(set(weights) - set(parts))
    if missing:
        raise ValueError(
            f"there is a weight for {', '.join(missing)}, but the rewards are "
            f"{', '.join(sorted(parts)) or 'none'}"
        )
    return sum(weight * parts[name] for name, weight in weights.items())


def _match(text: str) -> re.Match | None:
    if any(text.count(tag) != 1 for tag in TAGS):
        return None
    return _FORMAT.fullmatch(text)


def _in_script(word: str, script: str) -> bool:
    return all(unicodedata.name(letter, "").startswith(script) for letter in word)
