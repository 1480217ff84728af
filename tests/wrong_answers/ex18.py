"""Lesson 18, R1."""

import re
import statistics
from collections import Counter
from itertools import combinations
from math import comb

import numpy as np

from . import Answers, Wrong

# --- 18.1 -------------------------------------------------------------------------


def pass_comb(n, correct, k):
    return np.mean([1 - comb(n - c, k) / comb(n, k) for c in correct.tolist()])


def pass_product(n, correct, k):
    """As in the paper's own code, with its case of too few wrong answers."""
    out = []
    for c in correct:
        if n - c < k:
            out.append(1.0)
        else:
            out.append(1 - np.prod(1 - k / np.arange(n - c + 1, n + 1)))
    return float(np.mean(out))


def pass_drawing(n, correct, k):
    miss = np.ones(len(correct))
    for i in range(k):
        miss *= np.maximum(n - correct - i, 0) / (n - i)
    return float(1 - miss.mean())


def pass_naive(n, correct, k):
    return float(np.mean(1 - (1 - correct / n) ** k))


def pass_all_right(n, correct, k):
    return float(np.mean([comb(int(c), k) / comb(n, k) for c in correct]))


def pass_not_all_right(n, correct, k):
    return float(np.mean([1 - comb(int(c), k) / comb(n, k) for c in correct]))


def pass_missed(n, correct, k):
    return float(np.mean([comb(n - int(c), k) / comb(n, k) for c in correct]))


def pass_one(n, correct, k):
    return float(correct.mean() / n)


def pass_times(n, correct, k):
    return float(np.minimum(1, k * correct / n).mean())


def pass_any(n, correct, k):
    return float((correct > 0).mean())


def pass_pooled(n, correct, k):
    total, right = n * len(correct), int(correct.sum())
    return 1 - comb(total - right, k) / comb(total, k)


def pass_of_mean(n, correct, k):
    c = round(correct.mean())
    return 1 - comb(n - c, k) / comb(n, k)


def pass_sum(n, correct, k):
    return sum(1 - comb(n - int(c), k) / comb(n, k) for c in correct)


def pass_no_edge(n, correct, k):
    """The paper's product needs no case: it holds 1 - k/k where n - c < k."""
    each = [1 - np.prod(1 - k / np.arange(n - c + 1, n + 1)) for c in correct]
    return float(np.mean(each))


def pass_each(n, correct, k):
    return np.array([1 - comb(n - int(c), k) / comb(n, k) for c in correct])


# --- 18.2 -------------------------------------------------------------------------

WHOLE = r"\s*<think>.*?</think>\s*<answer>.*?</answer>\s*"
TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def right_format(text):
    once = all(text.count(tag) == 1 for tag in TAGS)
    return once and re.fullmatch(WHOLE, text, re.DOTALL) is not None


def right_accuracy(text, answer):
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return False
    found = re.search("<answer>(.*)</answer>", text, re.DOTALL)
    return found is not None and found[1].strip() == answer


def reward_helpers(text, answer, bonus):
    return right_accuracy(text, answer) + bonus * right_format(text)


def reward_by_split(text, answer, bonus):
    """With the tags found by splitting at each of them."""
    parts = re.split("(</?think>|</?answer>)", text)
    tags, between = parts[1::2], parts[0::2]
    form = tags == list(TAGS)
    form = form and not any(between[i].strip() for i in (0, 2, 4))
    accuracy = 0.0
    ours = [tag for tag in tags if "answer" in tag]
    if ours == ["<answer>", "</answer>"]:
        inside = text[text.index("<answer>") + 8 : text.index("</answer>")]
        accuracy = float(inside.strip() == answer)
    return accuracy + bonus * form


def reward_last_number(text, answer, bonus):
    numbers = re.findall(r"\d+", text)
    return float(bool(numbers) and numbers[-1] == answer) + bonus * right_format(text)


def reward_anywhere(text, answer, bonus):
    return float(answer in text) + bonus * right_format(text)


def reward_first_answer(text, answer, bonus):
    found = re.search("<answer>(.*?)</answer>", text, re.DOTALL)
    accuracy = found is not None and found[1].strip() == answer
    return accuracy + bonus * right_format(text)


def reward_last_answer(text, answer, bonus):
    found = re.findall("<answer>(.*?)</answer>", text, re.DOTALL)
    accuracy = bool(found) and found[-1].strip() == answer
    return accuracy + bonus * right_format(text)


def reward_any_answer(text, answer, bonus):
    found = re.findall("<answer>(.*?)</answer>", text, re.DOTALL)
    return float(answer in [f.strip() for f in found]) + bonus * right_format(text)


def reward_contains(text, answer, bonus):
    accuracy = 0.0
    if text.count("<answer>") == 1 and text.count("</answer>") == 1:
        found = re.search("<answer>(.*)</answer>", text, re.DOTALL)
        accuracy = float(found is not None and answer in found[1])
    return accuracy + bonus * right_format(text)


def reward_only_formatted(text, answer, bonus):
    if not right_format(text):
        return 0.0
    return right_accuracy(text, answer) + bonus


def reward_bonus_if_right(text, answer, bonus):
    if not right_accuracy(text, answer):
        return 0.0
    return 1 + bonus * right_format(text)


def reward_not_stripped(text, answer, bonus):
    found = re.findall("<answer>(.*?)</answer>", text, re.DOTALL)
    return float(found == [answer]) + bonus * right_format(text)


def reward_search(text, answer, bonus):
    form = re.search("<think>.*?</think>\\s*<answer>.*?</answer>", text, re.DOTALL)
    return right_accuracy(text, answer) + bonus * (form is not None)


def reward_one_line(text, answer, bonus):
    form = all(text.count(tag) == 1 for tag in TAGS) and re.fullmatch(WHOLE, text)
    return right_accuracy(text, answer) + bonus * bool(form)


def reward_tight(text, answer, bonus):
    form = re.fullmatch("<think>.*?</think><answer>.*?</answer>", text, re.DOTALL)
    return right_accuracy(text, answer) + bonus * bool(form and right_format(text))


def reward_twice(text, answer, bonus):
    form = re.fullmatch(WHOLE, text, re.DOTALL)
    return right_accuracy(text, answer) + bonus * bool(form)


def reward_tags_there(text, answer, bonus):
    return right_accuracy(text, answer) + bonus * all(tag in text for tag in TAGS)


def reward_tags_once(text, answer, bonus):
    once = all(text.count(tag) == 1 for tag in TAGS)
    return right_accuracy(text, answer) + bonus * once


def reward_no_bonus_weight(text, answer, bonus):
    return float(right_accuracy(text, answer) + right_format(text))


def reward_accuracy_only(text, answer, bonus):
    return float(right_accuracy(text, answer))


def reward_format_only(text, answer, bonus):
    return bonus * right_format(text)


def _named(function, name):
    function.__name__ = name
    return function


def _with_pattern(pattern, tags=TAGS):
    def wrong(text, answer, bonus):
        once = all(text.count(tag) == 1 for tag in tags)
        form = once and re.fullmatch(pattern, text, re.DOTALL)
        return right_accuracy(text, answer) + bonus * bool(form)

    return wrong


PAIRS = "<think>.*</think>\\s*<answer>.*</answer>"
reward_before = _named(_with_pattern(rf".*{PAIRS}\s*"), "reward_before")
reward_between = _named(
    _with_pattern(r"\s*<think>.*</think>.*<answer>.*</answer>\s*"), "reward_between"
)
reward_no_less = _named(
    _with_pattern(r"\s*<think>[^<]*</think>\s*<answer>[^<]*</answer>\s*"),
    "reward_no_less",
)
reward_not_empty = _named(
    _with_pattern(r"\s*<think>.+</think>\s*<answer>.+</answer>\s*"), "reward_not_empty"
)
reward_opened_once = _named(_with_pattern(WHOLE, TAGS[::2]), "reward_opened_once")


def reward_search_to_end(text, answer, bonus):
    once = all(text.count(tag) == 1 for tag in TAGS)
    form = once and re.search(rf"{PAIRS}\s*$", text, re.DOTALL)
    return right_accuracy(text, answer) + bonus * bool(form)


def reward_ordered_to_end(text, answer, bonus):
    form = all(text.count(tag) == 1 for tag in TAGS)
    places = [text.find(tag) for tag in TAGS]
    form = form and places == sorted(places)
    form = form and text.rstrip().endswith("</answer>")
    return right_accuracy(text, answer) + bonus * form


def reward_split(text, answer, bonus):
    accuracy = False
    if text.count("<answer>") == 1 and text.count("</answer>") == 1:
        inside = text.split("<answer>")[1].split("</answer>")[0]
        accuracy = inside.strip() == answer
    return accuracy + bonus * right_format(text)


def reward_opening_counted(text, answer, bonus):
    accuracy = form = False
    if text.count("<answer>") == 1:
        found = re.search("<answer>(.*?)</answer>", text, re.DOTALL)
        accuracy = found is not None and found[1].strip() == answer
        form = text.count("<think>") == 1 and re.fullmatch(WHOLE, text, re.DOTALL)
    return accuracy + bonus * bool(form)


def _comparing(same):
    def wrong(text, answer, bonus):
        accuracy = False
        if text.count("<answer>") == 1 and text.count("</answer>") == 1:
            found = re.search("<answer>(.*)</answer>", text, re.DOTALL)
            accuracy = found is not None and bool(same(found[1].strip(), answer))
        return accuracy + bonus * right_format(text)

    return wrong


def _equal_numbers(inside, answer):
    try:
        return float(inside) == float(answer)
    except ValueError:
        return inside == answer


reward_float = _named(_comparing(_equal_numbers), "reward_float")
reward_zeros = _named(_comparing(lambda i, a: i.lstrip("0") == a), "reward_zeros")
reward_squeezed = _named(
    _comparing(lambda i, a: "".join(i.split()) == "".join(a.split())), "reward_squeezed"
)
reward_lower = _named(
    _comparing(lambda i, a: i.casefold() == a.casefold()), "reward_lower"
)
reward_digits = _named(
    _comparing(lambda i, a: re.fullmatch(r"\d+", i) and i == a), "reward_digits"
)
reward_unescaped = _named(
    _comparing(lambda i, a: re.fullmatch(a, i)), "reward_unescaped"
)


def reward_dot_stops(text, answer, bonus):
    accuracy = False
    if text.count("<answer>") == 1 and text.count("</answer>") == 1:
        found = re.search("<answer>(.*)</answer>", text)
        accuracy = found is not None and found[1].strip() == answer
    return accuracy + bonus * right_format(text)


def reward_dots_stop(text, answer, bonus):
    form = all(text.count(tag) == 1 for tag in TAGS) and re.fullmatch(WHOLE, text)
    return reward_dot_stops(text, answer, 0.0) + bonus * bool(form)


# --- 18.3 -------------------------------------------------------------------------


def vote_counter(answers):
    votes = Counter(a for a in answers if a is not None)
    return votes.most_common(1)[0][0] if votes else None


def vote_mode(answers):
    given = [a for a in answers if a is not None]
    return statistics.mode(given) if given else None


def vote_by_key(answers):
    given = [a for a in answers if a is not None]
    if not given:
        return None
    return min(given, key=lambda a: (-given.count(a), given.index(a)))


def vote_none_counts(answers):
    return Counter(answers).most_common(1)[0][0]


def vote_last(answers):
    given = [a for a in answers if a is not None]
    return Counter(given[::-1]).most_common(1)[0][0] if given else None


def vote_smallest(answers):
    given = sorted((a for a in answers if a is not None), key=int)
    return max(given, key=given.count, default=None)


def vote_largest(answers):
    given = sorted((a for a in answers if a is not None), key=int, reverse=True)
    return max(given, key=given.count, default=None)


def vote_over_half(answers):
    best = vote_counter(answers)
    return best if answers.count(best) > len(answers) / 2 else None


def vote_number(answers):
    votes = Counter(a for a in answers if a is not None)
    return votes.most_common(1)[0][1] if votes else 0


def vote_first(answers):
    return next((a for a in answers if a is not None), None)


def vote_nobody(answers):
    return Counter(a for a in answers if a is not None).most_common(1)[0][0]


def vote_nobody_mode(answers):
    return statistics.mode([a for a in answers if a is not None])


def vote_nobody_max(answers):
    given = [a for a in answers if a is not None]
    return max(given, key=given.count)


def vote_first_to_reach(answers):
    votes, best, most = {}, None, 0
    for answer in answers:
        if answer is not None:
            votes[answer] = votes.get(answer, 0) + 1
            if votes[answer] > most:
                best, most = answer, votes[answer]
    return best


def vote_filtered(answers):
    return vote_counter(list(filter(None, answers)))


def vote_stripped(answers):
    return vote_counter([a.strip() for a in answers if a is not None])


def vote_of_numbers(answers):
    best = vote_counter([int(a) for a in answers if a is not None])
    return None if best is None else str(best)


def vote_zeros_off(answers):
    return vote_counter([a.lstrip("0") for a in answers if a is not None])


def pass_by_listing(n, correct, k):
    """Every draw, where there are few enough to list."""
    if comb(n, k) > 5000:
        return pass_product(n, correct, k)
    draws = list(combinations(range(n), k))
    return sum(sum(d[0] < c for d in draws) / len(draws) for c in correct) / len(
        correct
    )


ANSWERS = {
    "18.1": Answers(
        right=[pass_comb, pass_product, pass_no_edge, pass_drawing, pass_by_listing],
        wrong=[
            Wrong(pass_naive, "with putting back"),
            Wrong(pass_all_right, "one is enough"),
            Wrong(pass_not_all_right, "not all are wrong"),
            Wrong(pass_missed, "no answer is right"),
            Wrong(pass_one, "k plays no part"),
            Wrong(pass_times, "counts two right answers twice"),
            Wrong(pass_any, "any of the n answers"),
            Wrong(pass_pooled, "one pot"),
            Wrong(pass_of_mean, "take the mean last"),
            Wrong(pass_sum, "are added up"),
            Wrong(pass_each, "one number for each problem"),
        ],
    ),
    "18.2": Answers(
        right=[reward_helpers, reward_by_split],
        wrong=[
            Wrong(reward_last_number, "the last number anywhere"),
            Wrong(reward_anywhere, "the right number anywhere"),
            Wrong(reward_first_answer, "the first of two answers"),
            Wrong(reward_last_answer, "the last of two answers"),
            Wrong(reward_any_answer, "any of several answers"),
            Wrong(reward_contains, "merely contains"),
            Wrong(reward_only_formatted, "in a broken format"),
            Wrong(reward_bonus_if_right, "a reward of its own"),
            Wrong(reward_not_stripped, "around the answer"),
            Wrong(reward_search, "before and behind"),
            Wrong(reward_one_line, "several lines"),
            Wrong(reward_tight, "white space before, between"),
            Wrong(reward_twice, "comes twice"),
            Wrong(reward_tags_there, "not in their order"),
            Wrong(reward_tags_once, "not in its order"),
            Wrong(reward_no_bonus_weight, "earns bonus, not 1"),
            Wrong(reward_accuracy_only, "the format is missing"),
            Wrong(reward_format_only, "only the format is paid"),
            Wrong(reward_before, "words before the first pair"),
            Wrong(reward_search_to_end, "words before the first pair"),
            Wrong(reward_between, "words between the pairs"),
            Wrong(reward_ordered_to_end, "words before and between"),
            Wrong(reward_no_less, "begins no tag"),
            Wrong(reward_not_empty, "may be empty"),
            Wrong(reward_split, "the order of the two counts"),
            Wrong(reward_opened_once, "closing tag that comes twice"),
            Wrong(reward_opening_counted, "closing tag that comes twice"),
            Wrong(reward_float, '"37.0" and "037" are not'),
            Wrong(reward_zeros, '"037" is not'),
            Wrong(reward_squeezed, "only white space at the ends"),
            Wrong(reward_lower, "small and capital"),
            Wrong(reward_digits, "an answer is any text"),
            Wrong(reward_unescaped, "a meaning of their own"),
            Wrong(reward_dot_stops, "re.DOTALL"),
            Wrong(reward_dots_stop, "re.DOTALL"),
        ],
    ),
    "18.3": Answers(
        right=[vote_counter, vote_mode, vote_by_key],
        wrong=[
            Wrong(vote_none_counts, "it is no vote"),
            Wrong(vote_last, "the last given was taken"),
            Wrong(vote_smallest, "the smallest number"),
            Wrong(vote_largest, "the largest number"),
            Wrong(vote_over_half, "the most votes are enough"),
            Wrong(vote_number, "these are the votes"),
            Wrong(vote_first, "count how often each comes"),
            Wrong(vote_nobody, "nothing to count"),
            Wrong(vote_nobody_mode, "nothing to count"),
            Wrong(vote_nobody_max, "nothing to count"),
            Wrong(vote_first_to_reach, "first to reach its votes"),
            Wrong(vote_filtered, "an empty text is a text"),
            Wrong(vote_stripped, "as they stand"),
            Wrong(vote_of_numbers, "need not be numbers"),
            Wrong(vote_zeros_off, "as they stand"),
        ],
    ),
}
