"""What people make of the two rules of exercise 18.2, and the rules by hand."""

import re

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def right_accuracy(text, answer):
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return 0.0
    inside = text.partition("<answer>")[2]
    if "</answer>" not in inside:
        return 0.0
    return float(inside.partition("</answer>")[0].strip() == answer)


def right_format(text):
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


def loose(text):
    found = re.search(r"<think>.*?</think>\s*<answer>.*?</answer>", text, re.S)
    return float(found is not None)


def one_line(text):
    pattern = r"\s*<think>.*?</think>\s*<answer>.*?</answer>\s*"
    return float(right_format(text) and re.fullmatch(pattern, text) is not None)


def no_space(text):
    tight = re.fullmatch(r"<think>.*?</think><answer>.*?</answer>", text, re.S)
    return float(right_format(text) and tight is not None)


def uncounted(text):
    pattern = r"\s*<think>.*?</think>\s*<answer>.*?</answer>\s*"
    return float(re.fullmatch(pattern, text, re.S) is not None)


def present(text):
    return float(all(tag in text for tag in TAGS))


def once(text):
    return float(all(text.count(tag) == 1 for tag in TAGS))


def shaped(before="", between=r"\s*", inside=".*?", tags=TAGS):
    """The format as one pattern, with some other part, and some tags counted."""
    pairs = f"<think>{inside}</think>{between}<answer>{inside}</answer>"

    def form(text):
        fits = re.fullmatch(rf"{before}\s*{pairs}\s*", text, re.S)
        return float(fits is not None and all(text.count(tag) == 1 for tag in tags))

    return form


def compared(same):
    """The accuracy, where the two texts are compared in another way."""

    def accuracy(text, answer):
        found = insides(text)
        if len(found) != 1 or any(text.count(tag) != 1 for tag in TAGS[2:]):
            return 0.0
        return float(same(found[0].strip(), answer))

    return accuracy


def as_numbers(inside, answer):
    try:
        return float(inside) == float(answer)
    except ValueError:
        return inside == answer


def digits(inside, answer):
    return re.findall(r"\d+", inside)[:1] == [answer]


def unordered(text, answer):
    """What stands between the tags by splitting, whichever of them comes first."""
    if any(text.count(tag) != 1 for tag in TAGS[2:]):
        return 0.0
    return float(text.split("<answer>")[1].split("</answer>")[0].strip() == answer)


def opened_once(text, answer):
    found = [inside.strip() for inside in insides(text)[:1]]
    return float(text.count("<answer>") == 1 and found == [answer])


def on_one_line(text, answer):
    found = re.findall(r"<answer>(.*?)</answer>", text)
    return float(right_accuracy(text, answer) and len(found) == 1)


def insides(text):
    return re.findall(r"<answer>(.*?)</answer>", text, re.S)


def last_number(text, answer):
    return float(re.findall(r"\d+", text)[-1:] == [answer])


_TEXTS = "the two are compared as texts, character by character: "
_ANY = "an answer is any text: it may have a point, a sign or spaces in it"
COMPARISONS = (
    (_TEXTS + '"37.0" and "037" are not "37"', as_numbers),
    (_TEXTS + '"037" is not "37"', lambda i, a: i.lstrip("0") == a),
    (_TEXTS + "only white space at the ends is taken away",
     lambda i, a: i.replace(" ", "") == a.replace(" ", "")),
    (_TEXTS + "only white space at the ends is taken away",
     lambda i, a: i.replace(" ", "") == a),
    (_TEXTS + "small and capital letters differ",
     lambda i, a: i.lower() == a.lower()),
    (_ANY, digits),
    (_ANY, lambda i, a: i.isdigit() and i == a),
    (_ANY, lambda i, a: re.fullmatch(r"-?\d+", i) is not None and i == a),
    ("in a pattern . and + have a meaning of their own: compare with ==, or use "
     "re.escape", lambda i, a: re.fullmatch(a, i) is not None),
)  # fmt: skip
_OUTSIDE = "the two pairs there may be white space and nothing else"
FORMS = (
    ("words before the first pair pass: before " + _OUTSIDE, shaped(before=".*")),
    ("words between the pairs pass: between " + _OUTSIDE, shaped(between=".*")),
    ("words before and between the pairs pass: before and between " + _OUTSIDE,
     shaped(before=".*", between=".*")),
    ("a thought may hold a < that begins no tag: [^<] is too narrow",
     shaped(inside="[^<]*")),
    ("what is inside of a pair may be empty", shaped(inside=".+?")),
    ("what is inside of a pair may be empty, or hold a < that begins no tag",
     shaped(inside="[^<]+")),
)  # fmt: skip
