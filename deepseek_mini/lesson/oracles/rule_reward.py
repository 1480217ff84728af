"""Exercise 18.2, two rules: the oracle cuts the text tag by tag."""

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake
from deepseek_mini.lesson.oracles.reward_ways import (
    COMPARISONS,
    FORMS,
    TAGS,
    compared,
    insides,
    last_number,
    loose,
    no_space,
    on_one_line,
    once,
    one_line,
    opened_once,
    present,
    right_accuracy,
    right_format,
    shaped,
    uncounted,
    unordered,
)


def reward(text, answer, bonus):
    """The oracle: cut at each tag in turn; outside of the tags there is only space."""
    return right_accuracy(text, answer) + bonus * right_format(text)


def _paid(accuracy, form=right_format):
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
        ("spaces around the answer", "<think>{w}</think><answer> {a} </answer>"),
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
        ("words before", "Sure! <think>{w}</think><answer>{a}</answer>"),
        ("words between", "<think>{w}</think> so <answer>{a}</answer>"),
        ("a thought with a <", "<think>{w}, 3 < 4</think><answer>{a}</answer>"),
        ("an empty thought", "<think></think><answer>{a}</answer>"),
        ("an empty answer", "<think>{w}</think><answer></answer>"),
        ("</answer> before <answer>", "<think>{w}</think></answer><answer>{a}"),
        ("</answer> twice", "<think>{w}</think><answer>{a}</answer></answer>"),
        ("</think> twice", "<think>{w}</think></think><answer>{a}</answer>"),
        ("a thought the wrong way round", "</think>{w}<think><answer>{a}</answer>"),
        ("the answer in the thought", "<think>{w}<answer>{a}</answer></think>"),
        ("the right number written otherwise", "<answer>{a}.0</answer>"),
        ("the right number written otherwise", "<answer>0{a}</answer>"),
    ):  # fmt: skip
        i, j = (int(n) for n in rng.integers(11, 20, size=2))
        wrong = i + j + int(rng.integers(1, 9))
        text = text.format(w=f"{i}+{j}", a=i + j, x=wrong)
        yield Case((text, str(i + j), float(rng.choice([0.25, 0.5]))), label)
    for inside, answer, label in (
        ("3 7", "37", "a space inside of the answer"),
        ("7+2", "7 + 2", "spaces missing in the answer"),
        ("a", "A", "a small letter for a capital one"),
        ("3.5", "3.5", "an answer with a point"),
        ("-7", "-7", "an answer with a sign"),
        ("7", "-7", "an answer without its sign"),
        ("345", "3.5", "another number"),
        ("7 + 2", "7 + 2", "a sum for an answer"),
    ):
        text = f"<think>?</think><answer> {inside}</answer>"
        yield Case((text, answer, 0.25), label)


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
            gives=_paid(last_number),
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
                    [answer] == [found.strip() for found in insides(text)[:1]]
                )
            ),
        ),
        Mistake(
            "the last of two answers counts here: two are none, or a model would "
            "list guesses",
            gives=_paid(
                lambda text, answer: (
                    [answer] == [found.strip() for found in insides(text)[-1:]]
                )
            ),
        ),
        Mistake(
            "any of several answers counts here: two are none, or a model would list "
            "guesses",
            gives=_paid(
                lambda text, answer: (
                    answer in [found.strip() for found in insides(text)]
                )
            ),
        ),
        Mistake(
            "an answer that merely contains the right number is paid: the two texts "
            "have to be equal",
            gives=_paid(
                lambda text, answer: (
                    insides(text)[1:] == [] and answer in "".join(insides(text))
                )
            ),
        ),
        Mistake(
            "a right answer in a broken format should still earn its point",
            gives=_paid(
                lambda text, answer: right_format(text) * right_accuracy(text, answer)
            ),
        ),
        Mistake(
            "the format is paid only where the answer is right: it is a reward of its "
            "own",
            gives=lambda text, answer, bonus: (
                right_accuracy(text, answer) * (1 + bonus * right_format(text))
            ),
        ),
        Mistake(
            "white space around the answer has to be taken away first",
            gives=_paid(lambda text, answer: insides(text) == [answer]),
        ),
        *(
            Mistake(
                "the answer may be followed by a new line, and a dot of a regular "
                "expression stops at the end of a line: re.DOTALL",
                gives=_paid(on_one_line, form),
            )
            for form in (right_format, one_line)
        ),
        Mistake(
            "</answer> before <answer> closes nothing: the order of the two counts",
            gives=_paid(unordered),
        ),
        *(
            Mistake(
                "a closing tag that comes twice passes: each of the four is counted",
                gives=_paid(accuracy, form),
            )
            for accuracy in (right_accuracy, opened_once)
            for form in (right_format, shaped(tags=TAGS[::2]))
            if (accuracy, form) != (right_accuracy, right_format)
        ),
        *(Mistake(hint, gives=_paid(compared(same))) for hint, same in COMPARISONS),
        *(Mistake(hint, gives=_paid(right_accuracy, form)) for hint, form in FORMS),
        Mistake(
            "a text that only contains the format is paid: before and behind it there "
            "may be white space and nothing else",
            gives=_paid(right_accuracy, loose),
        ),
        Mistake(
            "a thought may have several lines, and a dot of a regular expression stops "
            "at the end of one",
            gives=_paid(right_accuracy, one_line),
        ),
        Mistake(
            "white space before, between and behind the two pairs of tags is allowed",
            gives=_paid(right_accuracy, no_space),
        ),
        Mistake(
            "a tag that comes twice breaks the format: each may stand there once",
            gives=_paid(right_accuracy, uncounted),
        ),
        Mistake(
            "the tags are there, but not in their order or not alone",
            gives=_paid(right_accuracy, present),
        ),
        Mistake(
            "each tag is there once, but not in its order or not alone",
            gives=_paid(right_accuracy, once),
        ),
        Mistake(
            "the format earns bonus, not 1",
            gives=lambda text, answer, bonus: (
                right_accuracy(text, answer) + right_format(text)
            ),
        ),
        Mistake(
            "only the answer is paid: the format is missing",
            gives=lambda text, answer, bonus: right_accuracy(text, answer),
        ),
        Mistake(
            "only the format is paid: a model would soon write empty thoughts",
            gives=lambda text, answer, bonus: bonus * right_format(text),
        ),
    ),
    exact_dtype=False,
    hint="take the text of the reason: what does each of the two rules say to it?",
)
