"""Exercise 18.2, two rules: the oracle cuts the text tag by tag."""

import re

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def reward(text, answer, bonus):
    """The oracle: cut at each tag in turn; outside of the tags there is only space."""
    return _accuracy(text, answer) + bonus * _format(text)


def _accuracy(text, answer):
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return 0.0
    inside = text.partition("<answer>")[2]
    if "</answer>" not in inside:
        return 0.0
    return float(inside.partition("</answer>")[0].strip() == answer)


def _format(text):
    if any(text.count(tag) != 1 for tag in TAGS):
        return 0.0
    outside, rest = [], text
    for begin, end in (TAGS[:2], TAGS[2:]):
        before, _, rest = rest.partition(begin)
        _, closed, rest = rest.partition(end)
        outside.append(before)
        if not closed:
            return 0.0
    return float(not "".join([*outside, rest]).strip())


def _loose(text):
    found = re.search(r"<think>.*?</think>\s*<answer>.*?</answer>", text, re.S)
    return float(found is not None)


def _one_line(text):
    pattern = r"\s*<think>.*?</think>\s*<answer>.*?</answer>\s*"
    return float(_format(text) and re.fullmatch(pattern, text) is not None)


def _no_space(text):
    tight = re.fullmatch(r"<think>.*?</think><answer>.*?</answer>", text, re.S)
    return float(_format(text) and tight is not None)


def _uncounted(text):
    pattern = r"\s*<think>.*?</think>\s*<answer>.*?</answer>\s*"
    return float(re.fullmatch(pattern, text, re.S) is not None)


def _present(text):
    return float(all(tag in text for tag in TAGS))


def _once(text):
    return float(all(text.count(tag) == 1 for tag in TAGS))


def _inside(text):
    return re.findall(r"<answer>(.*?)</answer>", text, re.S)


def _last_number(text, answer):
    return float(re.findall(r"\d+", text)[-1:] == [answer])


def _paid(accuracy, form=_format):
    """A reward of some accuracy and some format."""

    def wrong(text, answer, bonus):
        return float(accuracy(text, answer)) + bonus * float(form(text))

    return wrong


def reward_cases(rng):
    for label, text in (
        ("worked and right", "<think>{w}</think><answer>{a}</answer>"),
        ("wrong in the format", "<think>{w}</think><answer>{x}</answer>"),
        ("right without tags", "{a}"),
        ("right in a broken format", "{w}<answer>{a}</answer>"),
        ("white space", "\n<think>{w}</think>\n <answer> {a}\n</answer> "),
        ("a thought of two lines", "<think>{w}\n{w}</think><answer>{a}</answer>"),
        ("a longer number", "<think>{w}</think><answer>{a}7</answer>"),
        ("words behind", "<think>{w}</think><answer>{a}</answer> so {a}"),
        ("a first wrong guess, then a right one",
         "<think>{w}</think><answer>{x}</answer><answer>{a}</answer>"),
        ("a first right guess, then a wrong one",
         "<think>{w}</think><answer>{a}</answer><answer>{x}</answer>"),
        ("right in the thought only", "<think>{w}={a}</think><answer>?</answer>"),
        ("wrong, and right behind", "<think>{w}</think><answer>{x}</answer>{a}"),
        ("two thoughts", "<think>{w}</think><think></think><answer>{a}</answer>"),
        ("the answer first", "<answer>{a}</answer><think>{w}</think>"),
        ("tags the wrong way round", "<think>{w}</think></answer>{a}<answer>"),
        ("never closed", "<think>{w}</think><answer>{a}"),
        ("nothing", ""),
    ):  # fmt: skip
        i, j = (int(n) for n in rng.integers(11, 20, size=2))
        wrong = i + j + int(rng.integers(1, 9))
        text = text.format(w=f"{i}+{j}", a=i + j, x=wrong)
        yield Case((text, str(i + j), float(rng.choice([0.25, 0.5]))), label)


REWARD = Exercise(
    id="18.2",
    title="Two rules",
    signature="reward(text, answer, bonus)",
    difficulty="some thought",
    minutes=15,
    right=reward,
    cases=reward_cases,
    mistakes=(
        Mistake(
            "the last number anywhere is taken for the answer: only what is between "
            "<answer> and </answer> counts",
            gives=_paid(_last_number),
        ),
        Mistake(
            "the right number anywhere earns the point: only what is between <answer> "
            "and </answer> counts",
            gives=_paid(lambda text, answer: answer in text),
        ),
        Mistake(
            "the first of two answers counts here: two are none, or a model would "
            "list guesses",
            gives=_paid(
                lambda text, answer: (
                    [answer] == [found.strip() for found in _inside(text)[:1]]
                )
            ),
        ),
        Mistake(
            "the last of two answers counts here: two are none, or a model would "
            "list guesses",
            gives=_paid(
                lambda text, answer: (
                    [answer] == [found.strip() for found in _inside(text)[-1:]]
                )
            ),
        ),
        Mistake(
            "any of several answers counts here: two are none, or a model would list "
            "guesses",
            gives=_paid(
                lambda text, answer: (
                    answer in [found.strip() for found in _inside(text)]
                )
            ),
        ),
        Mistake(
            "an answer that merely contains the right number is paid: the two texts "
            "have to be equal",
            gives=_paid(
                lambda text, answer: (
                    _inside(text)[1:] == [] and answer in "".join(_inside(text))
                )
            ),
        ),
        Mistake(
            "a right answer in a broken format should still earn its point",
            gives=_paid(lambda text, answer: _format(text) * _accuracy(text, answer)),
        ),
        Mistake(
            "the format is paid only where the answer is right: it is a reward of its "
            "own",
            gives=lambda text, answer, bonus: (
                _accuracy(text, answer) * (1 + bonus * _format(text))
            ),
        ),
        Mistake(
            "white space around the answer has to be taken away first",
            gives=_paid(lambda text, answer: _inside(text) == [answer]),
        ),
        Mistake(
            "a text that only contains the format is paid: before and behind it there "
            "may be white space and nothing else",
            gives=_paid(_accuracy, _loose),
        ),
        Mistake(
            "a thought may have several lines, and a dot of a regular expression stops "
            "at the end of one",
            gives=_paid(_accuracy, _one_line),
        ),
        Mistake(
            "white space before, between and behind the two pairs of tags is allowed",
            gives=_paid(_accuracy, _no_space),
        ),
        Mistake(
            "a tag that comes twice breaks the format: each may stand there once",
            gives=_paid(_accuracy, _uncounted),
        ),
        Mistake(
            "the tags are there, but not in their order or not alone",
            gives=_paid(_accuracy, _present),
        ),
        Mistake(
            "each tag is there once, but not in its order or not alone",
            gives=_paid(_accuracy, _once),
        ),
        Mistake(
            "the format earns bonus, not 1",
            gives=lambda text, answer, bonus: _accuracy(text, answer) + _format(text),
        ),
        Mistake(
            "only the answer is paid: the format is missing",
            gives=lambda text, answer, bonus: _accuracy(text, answer),
        ),
        Mistake(
            "only the format is paid: a model would soon write empty thoughts",
            gives=lambda text, answer, bonus: bonus * _format(text),
        ),
    ),
    exact_dtype=False,
    hint="take the text of the reason: what does each of the two rules say to it?",
)
