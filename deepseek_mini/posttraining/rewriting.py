"""Two narrow tasks to specialise in: numbers into words, and records into JSON.

Whether a question is held out is decided by a hash of its text, as in `questions`.
"""

import hashlib
import json
import random
from dataclasses import dataclass

from deepseek_mini.posttraining.chat import ChatTokens
from deepseek_mini.tokenizer import Tokenizer

HELD_OUT = 5  # one question of so many is held out
UP_TO_19 = """zero one two three four five six seven eight nine ten eleven twelve
thirteen fourteen fifteen sixteen seventeen eighteen nineteen"""
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
KEYS = ("name", "size", "path", "mode", "type", "value", "index", "count", "state")
VALUES = ("open", "list", "text", "none", "left", "read", "main", "test", "line")


@dataclass(frozen=True)
class Rewriting:
    """A question and the only right answer, each one line."""

    question: str
    answer: str

    def encode(self, tokenizer: Tokenizer) -> ChatTokens:
        """BOS, question, newline, answer, EOS; the answer and its end are trained."""
        asked = [tokenizer.id("bos"), *tokenizer.encode(self.question + "\n")]
        answer = [*tokenizer.encode(self.answer), tokenizer.id("eos")]
        trained = [False] * len(asked) + [True] * len(answer)
        return ChatTokens(asked + answer, trained)


def rewritings(task: str, n: int, seed: int, split: str = "train") -> list[Rewriting]:
    """`n` questions of "words" or "json", with repeats; the same for the same seed.

    Raises:
        ValueError: another task, or a split that is neither "train" nor "test".
    """
    if task not in DRAW:
        raise ValueError(f'task is {task!r}, but it must be "words" or "json"')
    if split not in ("train", "test"):
        raise ValueError(f'split is {split!r}, but it must be "train" or "test"')
    rng, found = random.Random(seed), []
    while len(found) < n:
        made = DRAW[task](rng)
        if _is_held_out(made.question) == (split == "test"):
            found.append(made)
    return found


def in_words(number: int) -> str:
    """0 to 9999 in English: "seven thousand three hundred two"."""
    if number < 20:
        return UP_TO_19.split()[number]
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if number >= size:
            first, rest = divmod(number, size)
            head = f"{in_words(first)} {name}"
            return f"{head} {in_words(rest)}" if rest else head
    tens, ones = divmod(number, 10)
    name = TENS[tens - 2]
    return f"{name} {in_words(ones)}" if ones else name


def _words(rng: random.Random) -> Rewriting:
    number = rng.randrange(10_000)
    return Rewriting(str(number), in_words(number))


def _json(rng: random.Random) -> Rewriting:
    keys = rng.sample(KEYS, rng.randint(1, 3))
    values = [rng.choice([rng.randrange(100), rng.choice(VALUES)]) for _ in keys]
    question = ", ".join(f"{key} {value}" for key, value in zip(keys, values))
    return Rewriting(question, json.dumps(dict(zip(keys, values))))


DRAW = {"words": _words, "json": _json}


def _is_held_out(question: str) -> bool:
    digest = hashlib.sha256(question.encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT == 0
