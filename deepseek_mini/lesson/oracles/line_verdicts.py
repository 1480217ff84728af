"""Exercise 19.1, who is accepted: what goes wrong. Oracle, cases: `line_messages`."""

from deepseek_mini.lesson.oracles import Exercise, Mistake
from deepseek_mini.lesson.oracles.line_messages import (
    USES,
    accepted,
    is_against,
    verdict_cases,
)


def _by_line(against, where=lambda m: m["line"]):
    """Proofs without a message on their line that `against` is true of."""

    def wrong(messages, first, n):
        if messages is None:
            return [False] * n
        struck = {where(m) for m in messages if against(m)}
        return [first + i not in struck for i in range(n)]

    return wrong


def _whole_file(messages, first, n):
    return [messages is not None and not any(map(is_against, messages))] * n


def _any_error_strikes_all(messages, first, n):
    if messages is None or any(m["severity"] == "error" for m in messages):
        return [False] * n
    return accepted(messages, first, n)


def _from_first_error_on(messages, first, n):
    if messages is None:
        return [False] * n
    lines = [m["line"] for m in messages if is_against(m) and m["line"] >= first]
    return [first + i < min(lines, default=first + n) for i in range(n)]


def _one_of_each_line(messages, first, n, last):
    """Only the first or the last message of a line counts."""
    if messages is None:
        return [False] * n
    order = messages if last else messages[::-1]
    said = {m["line"]: m for m in order}  # the later ones replace the others
    return [first + i not in said or not is_against(said[first + i]) for i in range(n)]


def _wraps_around(messages, first, n):
    left = accepted(messages, first, n)
    for message in messages or ():
        if first - n <= message["line"] < first and is_against(message):
            left[message["line"] - first] = False
    return left


def _forgets(place):
    def wrong(messages, first, n):
        left = accepted(messages, first, n)
        if messages is not None:
            left[place] = True
        return left

    return wrong


def _dead_is_silent(messages, first, n):
    return accepted(messages or [], first, n)


def _opposite(messages, first, n):
    return [not ok for ok in accepted(messages, first, n)]


def _numbers(got, want, args):
    return [i for i, ok in enumerate(want) if ok] == got or got == sum(want)


def _texts(refuses):
    """Against a proof: an error, or a text that `refuses` is true of."""
    return lambda m: m["severity"] == "error" or refuses(m["data"])


_IN_PART = [
    _texts(lambda t, part=part: part in t) for part in ("'sorry'", "declaration uses")
]
_AT_THE_EDGE = [
    _texts(f)
    for f in (USES.__eq__, lambda t: t.startswith(USES), lambda t: t.endswith(USES))
]
_AT_THE_EDGE.append(
    lambda m: (
        m["severity"] == "error" or (m["severity"] == "warning" and m["data"] == USES)
    )
)


VERDICTS = Exercise(
    id="19.1",
    title="Whose error is it?",
    signature="accepted(messages, first, n)",
    difficulty="a few lines",
    minutes=10,
    right=accepted,
    cases=verdict_cases,
    mistakes=(
        Mistake(
            "one message decides about all proofs here: each is judged by its own line",
            gives=_whole_file,
        ),
        Mistake(
            "an error on one line refuses all proofs here: each is judged by its own",
            gives=_any_error_strikes_all,
        ),
        Mistake(
            "all proofs behind the first refused one are refused too: Lean reads on "
            "after an error",
            gives=_from_first_error_on,
        ),
        Mistake(
            "a proof that uses `sorry` is accepted: that is a warning, and no proof",
            gives=_by_line(lambda m: m["severity"] == "error"),
        ),
        Mistake(
            "any text with the letters sorry in it refuses a proof, even a warning "
            "about a name: look for the whole sentence",
            gives=_by_line(lambda m: m["severity"] == "error" or "sorry" in m["data"]),
        ),
        Mistake(
            "every warning refuses a proof: only the one about `sorry` does",
            gives=_by_line(lambda m: m["severity"] != "information" or is_against(m)),
        ),
        Mistake(
            "every message refuses a proof: a warning or an information does not, but "
            "for the one about `sorry`",
            gives=_by_line(lambda m: True),
        ),
        *(
            Mistake(
                "a part of the words is not enough: look for the whole sentence",
                gives=_by_line(found),
            )
            for found in _IN_PART
        ),
        *(
            Mistake(
                "the words may stand inside a longer text: ask whether they are in it",
                gives=_by_line(found),
            )
            for found in _AT_THE_EDGE
        ),
        Mistake(
            "the words about `sorry` refuse in any message, whatever its severity",
            gives=_by_line(
                lambda m: (
                    m["severity"] == "error"
                    or (m["severity"] == "warning" and USES in m["data"])
                )
            ),
        ),
        Mistake(
            "what is an error stands in the severity: the text of an information may "
            "have that word too",
            gives=_by_line(lambda m: is_against(m) or "error" in m["data"]),
        ),
        Mistake(
            "a hole is taken for a proof: Lean reports it as an error, and it counts "
            "as one",
            gives=_by_line(
                lambda m: (
                    (m["severity"] == "error" and "synthesize" not in m["data"])
                    or USES in m["data"]
                )
            ),
        ),
        Mistake(
            "only the first message of a line is looked at: any of them may refuse",
            gives=lambda m, first, n: _one_of_each_line(m, first, n, last=False),
        ),
        Mistake(
            "only the last message of a line counts: any of them may refuse",
            gives=lambda m, first, n: _one_of_each_line(m, first, n, last=True),
        ),
        Mistake("the first proof is not looked at", gives=_forgets(0)),
        Mistake("the last proof is not looked at", gives=_forgets(-1)),
        Mistake(
            "an empty list is no death: Lean said nothing, and all is well",
            gives=lambda m, first, n: accepted(m or None, first, n),
        ),
        Mistake(
            "a message before line `first` counts for the last proof: the index -1 is "
            "the last element",
            gives=_wraps_around,
        ),
        Mistake(
            "nothing of the messages is used: an error refuses the proof on its line",
            gives=lambda m, first, n: [True] * n,
        ),
        Mistake(
            "errors are not looked at",
            gives=_by_line(lambda m: USES in m["data"]),
        ),
        *(
            Mistake(
                "the lines are one off: proof 0 stands on line `first`",
                gives=_by_line(is_against, lambda m, off=off: m["line"] + off),
            )
            for off in (-1, 1)
        ),
        Mistake(
            "`first` plays no part: a message has the line of the file, not the number "
            "of the proof",
            gives=lambda m, first, n: accepted(m, 0, n),
        ),
        Mistake(
            "where messages is None Lean died and has accepted nothing: silence is no "
            "proof",
            gives=_dead_is_silent,
        ),
        Mistake("these are the refused ones: True should mean accepted",
                gives=_opposite),
        Mistake("return a bool for each of the n proofs", when=_numbers),
        Mistake(
            "where messages is None there is nothing to go over: Lean died and has "
            "accepted nothing",
            raises="TypeError: .*NoneType",
        ),
        Mistake(
            "a message may be of a line before the first proof or behind the last: "
            "leave it out",
            raises="IndexError|KeyError",
        ),
    ),
    hint="for the proof that differs print the messages on its own line",
)  # fmt: skip
