"""Lesson 15, SFT and chat: which tokens are trained; the others have modules of
their own.
"""

import numpy as np
import torch

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake
from deepseek_mini.lesson.oracles.chat_loss import LOSS
from deepseek_mini.lesson.oracles.divergence import DIVERGENCE
from deepseek_mini.lesson.oracles.row_mask import ROW_MASK

LESSON = "15_sft_and_chat"

# --- 15.1 -------------------------------------------------------------------------


def trained_tokens(ids, user, assistant, eos):
    """By looking back: what was the last mark before each token?"""
    trained = []
    for i, id in enumerate(ids):
        marks = [x for x in ids[:i] if x in (assistant, eos)]
        inside = bool(marks) and marks[-1] == assistant
        trained.append(inside and id != assistant)
    return trained


def _conversation(rng, user, assistant, eos, turns, last="whole"):
    """BOS, then turns; `last`: "whole", "cut" (no end), "prompt" (nothing written)."""

    def some(low, high):
        return [int(x) for x in rng.integers(20, 60, rng.integers(low, high))]

    ids = [0, *some(0, 4)]  # a system message, or none
    for turn in range(turns):
        ids += [user, *some(1, 5), assistant]
        ending = last if turn == turns - 1 else "whole"
        if ending != "prompt":
            ids += some(0, 5) if ending == "whole" else some(2, 6)
        if ending == "whole":
            ids.append(eos)
    return ids


def mask_cases(rng):
    marks = [int(x) for x in rng.permutation(range(1, 15))[:3]]
    for turns, last, label in (
        (1, "whole", "one turn"),
        (3, "whole", "three turns"),
        (2, "cut", "the last answer has no end"),
        (2, "prompt", "a prompt"),
    ):
        yield Case((_conversation(rng, *marks, turns, last), *marks), label)
    user, assistant, eos = marks
    empty = [0, user, 30, assistant, eos, user, 31, assistant, eos]
    yield Case((empty, *marks), "empty answers")
    double = [0, user, 30, assistant, 30, 30, eos, user, 30, assistant, 30, eos]
    yield Case((double, *marks), "a token in question and answer")
    yield Case(([0, user, 33, 34], *marks), "no answer at all")
    two = [x for last in ("whole", "cut") for x in _conversation(rng, *marks, 1, last)]
    two.insert(two.index(eos) + 2, 40)  # the second has a system message
    yield Case((two, *marks), "two conversations in a row")
    padded = [*_conversation(rng, *marks, 2), eos, eos, eos]
    yield Case((padded, *marks), "filled up with ends")
    early = [0, eos, *_conversation(rng, *marks, 2)[1:]]
    yield Case((early, *marks), "an end before the first question")


def _by_state(opens=True, ends=True):
    """A walk; `opens`, `ends`: whether the mark itself is trained as it should be."""

    def wrong(ids, user, assistant, eos):
        right = trained_tokens(ids, user, assistant, eos)
        marked = [(id == assistant and not opens) for id in ids]
        ended = [(id == eos and not ends) for id in ids]
        return [(x or m) and not e for x, m, e in zip(right, marked, ended)]

    return wrong


def _until_user(counts):
    """Answers that only the next question's mark closes; `counts`: and it too."""

    def wrong(ids, user, assistant, eos):
        trained, inside = [], False
        for id in ids:
            closed = id == user
            inside = inside and (counts or not closed)
            trained.append(inside and id != assistant)
            inside = (inside and not closed) or id == assistant
        return trained

    return wrong


def _first_answer(ids, user, assistant, eos):
    right = trained_tokens(ids, user, assistant, eos)
    end = ids.index(eos) if eos in ids else len(ids)
    return [x and i <= end for i, x in enumerate(right)]


def _last_answer(ids, user, assistant, eos):
    right = trained_tokens(ids, user, assistant, eos)
    begins = [i for i, id in enumerate(ids) if id == assistant]
    start = begins[-1] if begins else len(ids)
    return [x and i > start for i, x in enumerate(right)]


def _without_cut(short):
    """A cut last answer loses its last token (`short`), or all of it."""

    def wrong(ids, user, assistant, eos):
        trained = trained_tokens(ids, user, assistant, eos)
        marks = [i for i, id in enumerate(ids) if id in (assistant, eos)]
        if not marks or ids[marks[-1]] == eos or marks[-1] == len(ids) - 1:
            return trained
        keep = len(ids) - 1 if short else marks[-1] + 1
        return trained[:keep] + [False] * (len(ids) - keep)

    return wrong


def _is_cut(ids, user, assistant, eos):
    return trained_tokens([*ids, 0], user, assistant, eos)[-1] and ids[-1] != assistant


def _toggled(ids, user, assistant, eos):
    trained, inside = [], False
    for id in ids:
        trained.append(inside)
        inside = inside != (id in (assistant, eos))
    return trained


def _every_end(ids, *marks):
    return [x or id == marks[-1] for x, id in zip(trained_tokens(ids, *marks), ids)]


def _no_empty(ids, user, assistant, eos):
    """The end of an empty answer is not trained."""
    right = trained_tokens(ids, user, assistant, eos)
    return [
        x and not (id == eos and before == assistant)
        for x, id, before in zip(right, ids, [None, *ids])
    ]


def _past_empty(ids, user, assistant, eos):
    """The end is looked for from the second token of an answer on."""
    trained = [False] * len(ids)
    for i, id in enumerate(ids):
        if id == assistant:
            ends = [j + 1 for j in range(i + 2, len(ids)) if ids[j] == eos]
            end = min(ends, default=len(ids))
            trained[i + 1 : end] = [True] * len(ids[i + 1 : end])
    return trained


def _shifted(ids, *marks):
    return [*trained_tokens(ids, *marks)[1:], False]


def _questions(ids, user, assistant, eos):
    return [not x for x in trained_tokens(ids, user, assistant, eos)]


MASK = Exercise(
    id="15.1",
    title="Which tokens are trained",
    signature="trained_tokens(ids, user, assistant, eos)",
    difficulty="a few lines",
    minutes=10,
    right=trained_tokens,
    cases=mask_cases,
    mistakes=(
        Mistake(
            "the end of an answer is not trained: a model with this mask never stops",
            gives=_by_state(ends=False),
        ),
        Mistake(
            "the mark that opens an answer is trained: it is the prompt's, and the "
            "model never has to write it",
            gives=_by_state(opens=False),
        ),
        *(
            Mistake(
                "an answer goes on past its own end: what stands between it and the "
                "next question is not the model's",
                gives=_until_user(counts),
            )
            for counts in (False, True)
        ),
        *(
            Mistake(
                "the last answer may have no end: then it is trained all the same, "
                "and up to the last id",
                gives=_without_cut(short),
            )
            for short in (False, True)
        ),
        *(
            Mistake(
                "an end that stands in no answer is nobody's: here it opens one, or is "
                "trained itself",
                gives=wrong,
            )
            for wrong in (_toggled, _every_end)
        ),
        Mistake(
            "an answer that is empty has an end all the same, and that is trained",
            gives=_no_empty,
        ),
        Mistake(
            "where an answer is empty its end comes at once: here the search for it "
            "begins one place too late",
            gives=_past_empty,
        ),
        Mistake(
            "`user` and `assistant` are exchanged: these are the questions",
            gives=lambda ids, user, assistant, eos: trained_tokens(
                ids, assistant, user, eos
            ),
        ),
        Mistake(
            "every token is trained here, the questions too",
            gives=lambda ids, *marks: [True] * len(ids),
        ),
        Mistake(
            "the ids of the example, 7, 8 and 1, stand in your function: the marks are "
            "arguments, and differ from call to call",
            gives=lambda ids, *marks: trained_tokens(ids, 7, 8, 1),
        ),
        Mistake("only the first answer is trained", gives=_first_answer),
        Mistake("only the last answer is trained", gives=_last_answer),
        Mistake(
            "the mask is one place too early: it marks the rows that predict, and "
            "asked for are the tokens that are predicted",
            gives=_shifted,
        ),
        Mistake("this is turned round: True is for what is trained", gives=_questions),
        Mistake(
            "the search for the end fails where there is none: a cut answer, a prompt",
            raises="ValueError|IndexError",
        ),
        Mistake(
            "asked for is a list: `.tolist()` makes one of a tensor or an array",
            when=lambda got, want, args: isinstance(got, torch.Tensor | np.ndarray),
        ),
        Mistake(
            "one bool for each id is asked for, also for those of an answer that has "
            "no end",
            when=lambda got, want, args: (
                isinstance(got, list) and len(got) < len(want) and _is_cut(*args)
            ),
        ),
        Mistake(
            "one bool for each id is asked for",
            when=lambda got, want, args: (
                isinstance(got, list) and len(got) != len(want)
            ),
        ),
    ),
    hint="walk through the ids of the example, and say at each one whether the model "
    "is writing",
    exact_dtype=False,
)

EXERCISES = (MASK, LOSS, ROW_MASK, DIVERGENCE)
