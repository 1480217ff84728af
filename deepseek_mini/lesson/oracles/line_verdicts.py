"""Exercise 19.1, who is accepted: the oracle goes over every message and every line."""

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake

USES = "declaration uses 'sorry'"


def accepted(messages, first, n):
    """The oracle: strike out the lines that a message speaks against."""
    if messages is None:
        return [False] * n
    left = dict.fromkeys(range(first, first + n), True)
    for message in messages:
        against = message["severity"] == "error" or USES in message["data"]
        if against and message["line"] in left:
            left[message["line"]] = False
    return list(left.values())


def _by_line(against, where=lambda m: m["line"]):
    """Proofs without a message on their line that `against` is true of."""

    def wrong(messages, first, n):
        if messages is None:
            return [False] * n
        struck = {where(m) for m in messages if against(m)}
        return [first + i not in struck for i in range(n)]

    return wrong


def _is_against(m):
    return m["severity"] == "error" or USES in m["data"]


def _whole_file(messages, first, n):
    return [messages is not None and not any(map(_is_against, messages))] * n


def _any_error_strikes_all(messages, first, n):
    if messages is None or any(m["severity"] == "error" for m in messages):
        return [False] * n
    return accepted(messages, first, n)


def _from_first_error_on(messages, first, n):
    if messages is None:
        return [False] * n
    lines = [m["line"] for m in messages if _is_against(m) and m["line"] >= first]
    return [first + i < min(lines, default=first + n) for i in range(n)]


def _dead_is_silent(messages, first, n):
    return accepted(messages or [], first, n)


def _opposite(messages, first, n):
    return [not ok for ok in accepted(messages, first, n)]


def _numbers(got, want, args):
    return [i for i, ok in enumerate(want) if ok] == got or got == sum(want)


def _message(line, severity, data):
    return {"line": line, "severity": severity, "data": data}


TEXTS = {
    "error": ("Type mismatch", "Unknown identifier `x`", "unexpected token ')'"),
    "warning": ("unused variable `h`", "unused variable `sorry_not`", "`x` is old"),
    "information": ("'t' does not depend on any axioms", "Try this: exact h"),
}  # fmt: skip


def verdict_cases(rng):
    def some(line, severity):
        return _message(line, severity, str(rng.choice(TEXTS[severity])))

    for n, label in (
        (6, "errors, warnings and a `sorry`"),
        (1, "one proof"),
        (9, "messages in no order"),
    ):
        first = int(rng.integers(20, 50))
        lines = first + rng.permutation(n)
        messages = [
            some(int(line), severity)
            for line, severity in zip(lines, ("error", "warning", "information") * 3)
        ]
        if n > 1:
            messages += [
                _message(int(lines[3]), "warning", USES),
                some(int(lines[0]), "warning"),
                some(int(lines[1]), "warning"),
                some(int(lines[0]), "error"),
            ]
        messages = [messages[i] for i in rng.permutation(len(messages))]
        yield Case((messages, first, n), label)
    first = int(rng.integers(20, 50))
    yield Case(([], first, 4), "no messages at all")
    yield Case((None, first, 3), "Lean died")
    outside = [some(first - 1, "error"), some(first + 4, "error")]
    yield Case((outside, first, 4), "errors before the first proof and behind the last")
    yield Case(([_message(first + 1, "warning", USES)], first, 3), "only a `sorry`")
    warned = [_message(first + 1, "warning", "unused variable `sorry_not`")]
    yield Case((warned, first, 3), "a name with sorry in it")
    yield Case(([some(first + 2, "information")], first, 4), "only an information")


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
            gives=_by_line(lambda m: m["severity"] != "information" or _is_against(m)),
        ),
        Mistake(
            "every message refuses a proof: a warning or an information does not, but "
            "for the one about `sorry`",
            gives=_by_line(lambda m: True),
        ),
        Mistake(
            "errors are not looked at",
            gives=_by_line(lambda m: USES in m["data"]),
        ),
        Mistake(
            "the lines are one off: proof 0 stands on line `first`",
            gives=_by_line(_is_against, lambda m: m["line"] - 1),
        ),
        Mistake(
            "the lines are one off: proof 0 stands on line `first`",
            gives=_by_line(_is_against, lambda m: m["line"] + 1),
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
    ),
    hint="for the proof that differs print the messages on its own line",
)  # fmt: skip
