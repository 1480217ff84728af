"""Text as characters: a vocabulary for models that learn tasks and nothing else."""

import re
from collections.abc import Iterable

from deepseek_mini.posttraining.rewards import TAGS

END, USER, ASSISTANT = "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"
SPECIAL = (END, USER, ASSISTANT, *TAGS)  # one token each, ids from 0
LETTERS = "0123456789+-*/=(),;:.? \nabcdefghijklmnopqrstuvwxyz!'\"_<>%"
VOCABULARY = (*SPECIAL, *LETTERS)  # 64 entries
END_ID = 0

_IDS = {token: i for i, token in enumerate(VOCABULARY)}
_TOKEN = re.compile("|".join(map(re.escape, SPECIAL)) + "|.", re.DOTALL)


def encode(text: str) -> list[int]:
    """The ids of a text: one for each special token and each other character.

    Raises:
        ValueError: a character that is not in the vocabulary.
    """
    tokens = _TOKEN.findall(text)
    unknown = next((token for token in tokens if token not in _IDS), None)
    if unknown is not None:
        raise ValueError(
            f"{unknown!r} is not in the vocabulary of the tasks: it has small letters, "
            "digits, space, newline and " + LETTERS[10:22] + LETTERS[-7:]
        )
    return [_IDS[token] for token in tokens]


def decode(ids: Iterable[int]) -> str:
    """The text of some ids, special tokens as they are written."""
    return "".join(VOCABULARY[i] for i in ids)


def ask(question: str) -> list[int]:
    """The prompt: the question in DeepSeek's chat format, up to the answer's start."""
    return encode(f"{USER}{question}{ASSISTANT}")
