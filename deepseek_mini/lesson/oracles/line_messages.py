"""Exercise 19.1, what Lean said: the oracle goes over every message and every line."""

from deepseek_mini.lesson.oracles import Case

USES = "declaration uses 'sorry'"


def is_against(m):
    return m["severity"] == "error" or USES in m["data"]


def accepted(messages, first, n):
    """The oracle: strike out the lines that a message speaks against."""
    if messages is None:
        return [False] * n
    left = dict.fromkeys(range(first, first + n), True)
    for message in messages:
        if is_against(message) and message["line"] in left:
            left[message["line"]] = False
    return list(left.values())


def _message(line, severity, data):
    return {"line": line, "severity": severity, "data": data}


HOLE = "don't know how to synthesize placeholder"
TEXTS = {
    "error": ("Type mismatch", "Unknown identifier `x`", "unexpected token ')'", HOLE),
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
    pair = [("warning", "unused variable `h`"), ("error", "Type mismatch")]
    both = [_message(first, *said) for said in pair]
    both += [_message(first + 2, *said) for said in pair[::-1]]
    yield Case((both, first, 4), "an error behind a warning, and one before it")
    names = [
        _message(first, "warning", "unused variable 'sorry'"),
        _message(first + 1, "information", "declaration uses axioms"),
        _message(first + 2, "information", "no errors found"),
    ]
    yield Case((names, first, 4), "texts that only look like a reason")
    longer = [_message(first + 1, "warning", f"foo: {USES} in it")]
    yield Case((longer, first, 3), "the words inside a longer text")
    told = [_message(first + 2, "information", USES)]
    yield Case((told, first, 3), "an information that has the words")
    yield Case(([_message(first + 1, "error", HOLE)], first, 3), "only a hole")
