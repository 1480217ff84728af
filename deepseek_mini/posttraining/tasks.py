"""Problems that a rule can judge: arithmetic chains, countdown, sorting.

Every task draws problems from a `random.Random`, works one out step by step, and tells
a right answer from a wrong one. Whether a problem is for training or held out is
decided by a hash of what it asks (not of how it is written), so no seed can mix them.
"""

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, runtime_checkable

from deepseek_mini.posttraining.evaluator import equals

HELD_OUT = 5  # one problem of so many is held out


@dataclass(frozen=True)
class Problem:
    """A question, one right answer, and the steps that lead there.

    `key` is the same for problems that ask the same in another order. `data` is what
    the task needs to judge an answer.
    """

    task: str
    question: str
    answer: str
    steps: tuple[str, ...]
    key: str
    data: Any = field(default=None, repr=False, compare=False)


@runtime_checkable
class Task(Protocol):
    """What can draw a problem and judge an answer to it."""

    name: str

    def draw(self, rng: random.Random) -> Problem: ...

    def verify(self, problem: Problem, answer: str) -> bool: ...


@dataclass(frozen=True)
class Chain:
    """Sums like "17+5-8": `terms` numbers up to `largest`, no partial sum below 0."""

    terms: int = 4
    largest: int = 20
    name: str = "chain"

    def draw(self, rng: random.Random) -> Problem:
        total = first = rng.randint(1, self.largest)
        question, steps, parts = str(first), [], []
        for _ in range(self.terms - 1):
            number, sign = rng.randint(1, self.largest), rng.choice("+-")
            sign = "+" if number > total else sign
            after = total + number if sign == "+" else total - number
            steps.append(f"{total}{sign}{number}={after}")
            parts.append(f"{sign}{number}")
            question, total = f"{question}{sign}{number}", after
        key = " ".join(sorted([f"+{first}", *parts]))
        return Problem(self.name, question, str(total), tuple(steps), key)

    def verify(self, problem: Problem, answer: str) -> bool:
        return _plain(answer) == problem.answer


@dataclass(frozen=True)
class Sort:
    """Lists like "sort 9 2 5": `length` digits to put in order, some perhaps equal."""

    length: int = 5
    name: str = "sort"

    def draw(self, rng: random.Random) -> Problem:
        digits = [rng.randint(0, 9) for _ in range(self.length)]
        left, steps = list(digits), []
        for smallest in sorted(digits):
            left.remove(smallest)
            steps.append(f"{smallest}:{' '.join(map(str, left))}")
        answer = " ".join(map(str, sorted(digits)))
        question = f"sort {' '.join(map(str, digits))}"
        # Held out with all its orders: else the answer would have been seen.
        return Problem(self.name, question, answer, tuple(steps), answer)

    def verify(self, problem: Problem, answer: str) -> bool:
        return " ".join(answer.split()) == problem.answer


@dataclass(frozen=True)
class Countdown:
    """Goals like "make 24 from 3 5 9": each number once, + - * / and brackets."""

    numbers: int = 3
    largest: int = 12
    name: str = "countdown"

    def draw(self, rng: random.Random) -> Problem:
        given = [rng.randint(1, self.largest) for _ in range(self.numbers)]
        expression, value, steps = str(given[0]), given[0], []
        for number in given[1:]:
            signs = [s for s in "+-*" if s != "-" or value > number]
            sign = rng.choice(signs)
            after = {"+": value + number, "-": value - number, "*": value * number}
            steps.append(f"{value}{sign}{number}={after[sign]}")
            inner = f"({expression})" if expression != str(value) else expression
            expression, value = f"{inner}{sign}{number}", after[sign]
        shown = sorted(given)
        question = f"make {value} from {' '.join(map(str, shown))}"
        data = (value, shown)
        return Problem(self.name, question, expression, tuple(steps), question, data)

    def verify(self, problem: Problem, answer: str) -> bool:
        target, given = problem.data
        if not re.fullmatch(r"[0-9+\-*/() ]{1,200}", answer) or re.search(
            r"\*\*|//", answer
        ):
            return False
        used = sorted(map(int, re.findall(r"[0-9]+", answer)))
        # 1/3 is a float there; so few small numbers come this near only by equality.
        return used == given and equals(answer, target, tolerance=1e-12)


@dataclass(frozen=True)
class Gym:
    """A data set of the package `reasoning-gym`, by its name there.

    An answer is right if it is the text of the package's own. The package's scorers
    are not asked: they take other right answers too, but several hand the answer to
    Python's `eval`. ImportError when the package is not installed, ValueError for a
    data set without an answer to compare with.
    """

    dataset: str
    name: str = "gym"

    def draw(self, rng: random.Random) -> Problem:
        entry = self._data(rng.getrandbits(31))[0]
        question, answer = str(entry["question"]), entry["answer"]
        answer = "" if answer is None else str(answer).strip()
        if not answer:
            raise ValueError(
                f"the data set {self.dataset!r} gives no answer to {question[:40]!r}, "
                "and answers are judged by comparing them: take another data set"
            )
        return Problem(self.name, question, answer, (), question)

    def verify(self, problem: Problem, answer: str) -> bool:
        return answer.strip() == problem.answer

    def _data(self, seed: int):
        try:
            import reasoning_gym
        except ImportError as error:
            raise ImportError(
                "reasoning-gym is not installed: pip install reasoning-gym, or use the "
                "tasks Chain, Sort and Countdown, which need nothing"
            ) from error
        return reasoning_gym.create_dataset(self.dataset, size=1, seed=seed)


def held_out(problem: Problem) -> bool:
    """Whether a problem belongs to the test split: by a hash of its task and key."""
    digest = hashlib.sha256(f"{problem.task}|{problem.key}".encode()).digest()
    return digest[0] % HELD_OUT == 0


def stream(task: Task, seed: int, split: str = "train") -> Iterator[Problem]:
    """Problems of one split without end, the same for the same seed.

    Raises:
        ValueError: a split that is neither "train" nor "test".
    """
    if split not in ("train", "test"):
        raise ValueError(f'split is {split!r}, but it must be "train" or "test"')
    rng = random.Random(f"{task.name} {split} {seed}")

    def draws() -> Iterator[Problem]:
        while True:
            problem = task.draw(rng)
            if held_out(problem) == (split == "test"):
                yield problem

    return draws()


def problems(task: Task, n: int, seed: int, split: str = "train") -> list[Problem]:
    """`n` problems that all ask something else; errors as for `stream`, and

    ValueError if the task has not that many (after 1000 draws a problem).
    """
    found: dict[str, Problem] = {}
    for problem in islice(stream(task, seed, split), 1000 * n):
        found.setdefault(problem.key, problem)
        if len(found) == n:
            return list(found.values())
    raise ValueError(
        f"{n} problems were asked for, but only {len(found)} different ones of the "
        f"task {task.name!r} were found in its split {split!r}: ask for fewer"
    )


def _plain(answer: str) -> str | None:
    """A whole number as it is normally written; None if the text is none."""
    text = answer.strip()
    return str(int(text)) if re.fullmatch(r"-?[0-9]{1,18}", text) else None
