"""Four kinds of short questions, for a small model to learn to answer.

Whether a question is held out is decided by a hash of its text, so that no seed can
put a question of the test among those to train on.
"""

import hashlib
import random
from dataclasses import dataclass

HELD_OUT = 5  # one question of so many is held out


@dataclass(frozen=True)
class Question:
    """What is asked, and the only right answer."""

    kind: str
    text: str
    answer: str

    @property
    def messages(self) -> list[dict[str, str]]:
        """A conversation that asks it."""
        return [{"role": "user", "content": self.text}]

    @property
    def answered(self) -> list[dict[str, str]]:
        """The conversation with its answer."""
        return [*self.messages, {"role": "assistant", "content": self.answer}]


def questions(n: int, seed: int, split: str = "train") -> list[Question]:
    """`n` questions of a split, with repeats; the same for the same seed.

    Raises:
        ValueError: a split that is neither "train" nor "test".
    """
    if split not in ("train", "test"):
        raise ValueError(f'split is {split!r}, but it must be "train" or "test"')
    rng = random.Random(f"{split} {seed}")
    drawn: list[Question] = []
    while len(drawn) < n:
        question = _draw(rng)
        digest = hashlib.sha256(question.text.encode()).digest()
        if (digest[0] % HELD_OUT == 0) == (split == "test"):
            drawn.append(question)
    return drawn


def _draw(rng: random.Random) -> Question:
    number = rng.randint(100, 998)
    match rng.choice(("first", "backwards", "after", "larger")):
        case "first":
            text, answer = f"What is the first digit of {number}?", str(number)[0]
            return Question("first digit", text, answer)
        case "backwards":
            return Question(
                "backwards", f"Write {number} backwards.", str(number)[::-1]
            )
        case "after":
            return Question("after", f"What comes after {number}?", str(number + 1))
        case _:
            a, b = rng.sample(range(100), 2)
            text = f"Which is larger, {a} or {b}?"
            return Question("larger", text, str(max(a, b)))
