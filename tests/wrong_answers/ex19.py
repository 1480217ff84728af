"""Lesson 19, Prover."""

import math

import numpy as np

from . import Answers, Wrong

USES = "declaration uses 'sorry'"

# --- 19.1 -------------------------------------------------------------------------


def _against(message):
    return message["severity"] == "error" or USES in message["data"]


def accepted_set(messages, first, n):
    if messages is None:
        return [False] * n
    refused = {m["line"] for m in messages if _against(m)}
    return [line not in refused for line in range(first, first + n)]


def accepted_any(messages, first, n):
    return [
        messages is not None
        and not any(m["line"] - first == i and _against(m) for m in messages)
        for i in range(n)
    ]


def accepted_no_error_anywhere(messages, first, n):
    return [messages is not None and not any(_against(m) for m in messages)] * n


def accepted_errors_strike_all(messages, first, n):
    if messages is None or "error" in [m["severity"] for m in messages]:
        return [False] * n
    return accepted_set(messages, first, n)


def accepted_up_to_first(messages, first, n):
    if messages is None:
        return [False] * n
    bad = min((m["line"] for m in messages if _against(m) and m["line"] >= first),
              default=first + n)  # fmt: skip
    return [i < bad for i in range(first, first + n)]


def accepted_sorry(messages, first, n):
    if messages is None:
        return [False] * n
    refused = {m["line"] for m in messages if m["severity"] == "error"}
    return [first + i not in refused for i in range(n)]


def accepted_word_sorry(messages, first, n):
    if messages is None:
        return [False] * n
    refused = {
        m["line"] for m in messages
        if m["severity"] == "error" or "sorry" in m["data"]
    }  # fmt: skip
    return [first + i not in refused for i in range(n)]


def accepted_warnings(messages, first, n):
    if messages is None:
        return [False] * n
    refused = {m["line"] for m in messages if m["severity"] in ("error", "warning")}
    return [first + i not in refused for i in range(n)]


def accepted_silent(messages, first, n):
    if messages is None:
        return [False] * n
    lines = [m["line"] for m in messages]
    return [first + i not in lines for i in range(n)]


def accepted_only_sorry(messages, first, n):
    if messages is None:
        return [False] * n
    refused = {m["line"] for m in messages if USES in m["data"]}
    return [first + i not in refused for i in range(n)]


def accepted_from_one(messages, first, n):
    if messages is None:
        return [False] * n
    refused = {m["line"] for m in messages if _against(m)}
    return [first + i + 1 not in refused for i in range(n)]


def accepted_one_before(messages, first, n):
    if messages is None:
        return [False] * n
    refused = {m["line"] for m in messages if _against(m)}
    return [first + i - 1 not in refused for i in range(n)]


def accepted_no_first(messages, first, n):
    return accepted_set(messages, 0, n)


def accepted_dead(messages, first, n):
    return accepted_set(messages or [], first, n)


def accepted_crash(messages, first, n):
    refused = {m["line"] for m in messages if _against(m)}
    return [first + i not in refused for i in range(n)]


def accepted_refused(messages, first, n):
    return [not ok for ok in accepted_set(messages, first, n)]


def accepted_numbers(messages, first, n):
    return [i for i, ok in enumerate(accepted_set(messages, first, n)) if ok]


def _by_line(against, name):
    def wrong(messages, first, n):
        if messages is None:
            return [False] * n
        refused = {m["line"] for m in messages if against(m)}
        return [first + i not in refused for i in range(n)]

    wrong.__name__ = name
    return wrong


def _error_or(refuses, name):
    return _by_line(lambda m: m["severity"] == "error" or refuses(m), name)


accepted_quoted = _error_or(lambda m: "'sorry'" in m["data"], "accepted_quoted")
accepted_uses = _error_or(lambda m: "declaration uses" in m["data"], "accepted_uses")
accepted_equal = _error_or(lambda m: m["data"] == USES, "accepted_equal")
accepted_begins = _error_or(lambda m: m["data"].startswith(USES), "accepted_begins")
accepted_ends = _error_or(lambda m: m["data"].endswith(USES), "accepted_ends")
accepted_warning_only = _error_or(
    lambda m: m["severity"] == "warning" and USES in m["data"], "accepted_warning_only"
)
accepted_word_error = _error_or(
    lambda m: "error" in m["data"] or USES in m["data"], "accepted_word_error"
)
accepted_holes = _by_line(
    lambda m: (
        (m["severity"] == "error" and "placeholder" not in m["data"])
        or USES in m["data"]
    ),
    "accepted_holes",
)


def accepted_first_message(messages, first, n):
    if messages is None:
        return [False] * n
    out = []
    for i in range(n):
        said = next((m for m in messages if m["line"] == first + i), None)
        out.append(said is None or not _against(said))
    return out


def accepted_last_message(messages, first, n):
    if messages is None:
        return [False] * n
    ok = [True] * n
    for m in messages:
        if 0 <= m["line"] - first < n:
            ok[m["line"] - first] = not _against(m)
    return ok


def accepted_wraps(messages, first, n):
    if messages is None:
        return [False] * n
    ok = [True] * n
    for m in messages:
        if _against(m) and m["line"] - first < n:
            ok[m["line"] - first] = False
    return ok


def accepted_index_error(messages, first, n):
    if messages is None:
        return [False] * n
    ok = [True] * n
    for m in messages:
        if _against(m):
            ok[m["line"] - first] = False
    return ok


def accepted_not_the_first(messages, first, n):
    ok = accepted_set(messages, first, n)
    return ok if messages is None else [True, *ok[1:]]


def accepted_not_the_last(messages, first, n):
    ok = accepted_set(messages, first, n)
    return ok if messages is None else [*ok[:-1], True]


def accepted_empty_is_dead(messages, first, n):
    return accepted_set(messages or None, first, n)


def accepted_all(messages, first, n):
    return [True] * n


# --- 19.2 -------------------------------------------------------------------------


def take_walk(states, seen):
    new = []
    for state in states:
        if state is None:
            return new, float(len(new) > 0)
        if state == "":
            return new, 1.0
        if state not in seen and state not in new:
            new += [state]
    return new, float(len(new) > 0)


def take_sets(states, seen):
    ends = [i for i, state in enumerate(states) if not state]
    stop = ends[0] if ends else len(states)
    new = [s for s in dict.fromkeys(states[:stop]) if s not in seen]
    whole = bool(ends) and states[stop] == ""
    return new, 1.0 if whole or new else 0.0


def take_skips_errors(states, seen):
    new = []
    for state in states:
        if state and state not in seen and state not in new:
            new.append(state)
    return new, float(bool(new) or "" in states)


def take_nothing_of_errors(states, seen):
    if None in states:
        return [], 0.0
    return take_walk(states, seen)


def take_known_too(states, seen):
    kept = []
    for state in states:
        if not state:
            break
        kept.append(state)
    return kept, take_walk(states, seen)[1]


def take_end_too(states, seen):
    new = []
    for state in states:
        if state is None:
            break
        if state not in seen and state not in new:
            new.append(state)
        if state == "":
            break
    return new, float(bool(new))


def take_doubles(states, seen):
    new = []
    for state in states:
        if state is None:
            return new, float(bool(new))
        if state == "":
            return new, 1.0
        if state not in seen:
            new.append(state)
    return new, float(bool(new))


def take_stops_at_known(states, seen):
    new = []
    for state in states:
        if state == "":
            return new, 1.0
        if state is None or state in seen or state in new:
            break
        new.append(state)
    return new, float(bool(new))


def take_past_the_end(states, seen):
    new, whole = [], False
    for state in states:
        if state is None:
            break
        if state == "":
            whole = True
        elif state not in seen and state not in new:
            new.append(state)
    return new, float(bool(new) or whole)


def take_counts(states, seen):
    new, _ = take_walk(states, seen)
    return new, float(len(new))


def take_counts_proof(states, seen):
    new, _ = take_walk(states, seen)
    before = states[: states.index(None)] if None in states else states
    return new, float(len(new) + ("" in before))


def take_proofs_only(states, seen):
    new, _ = take_walk(states, seen)
    before = states[: states.index(None)] if None in states else states
    return new, float("" in before)


def take_new_only(states, seen):
    new, _ = take_walk(states, seen)
    return new, float(bool(new))


def take_known_paid(states, seen):
    new, _ = take_walk(states, seen)
    return new, float(bool(states) and states[0] is not None)


def take_always(states, seen):
    return take_walk(states, seen)[0], 1.0


def take_other_order(states, seen):
    new, reward = take_walk(states, seen)
    return reward, new


def take_reward_only(states, seen):
    return take_walk(states, seen)[1]


def take_writes_seen(states, seen):
    new = []
    for state in states:
        if not state:
            return new, float(bool(new) or state == "")
        if state not in seen:
            seen.append(state)
            new.append(state)
    return new, float(bool(new))


def take_last_state(states, seen):
    new, reward = [], 0.0
    for state in states:
        if state is None:
            break
        if state == "":
            return new, 1.0
        if state in seen or state in new:
            reward = 0.0
        else:
            new.append(state)
            reward = 1.0
    return new, reward


def take_error_unpaid(states, seen):
    new, reward = take_walk(states, seen)
    return new, 0.0 if None in states else reward


def take_one_short(states, seen):
    new = []
    for state in states:
        if state is None:
            new = new[:-1]
            break
        if state == "":
            return new, 1.0
        if state not in seen and state not in new:
            new.append(state)
    return new, float(bool(new))


def take_proof_anywhere(states, seen):
    new, _ = take_walk(states, seen)
    return new, float(bool(new) or "" in states)


def take_proof_last(states, seen):
    new, _ = take_walk(states, seen)
    whole = "" in states and (None not in states[: states.index("")])
    return new, float(bool(new) or whole or states[-1:] == [""])


def take_or(states, seen):
    new, reward = take_walk(states, seen)
    return new, new or bool(reward)


def take_sorted(states, seen):
    new, reward = take_walk(states, seen)
    return sorted(new), reward


# --- 19.3 -------------------------------------------------------------------------


def ducb_powers(rewards, gamma):
    W, N = [], []
    for r in rewards:
        weights = gamma ** np.arange(len(r))[::-1]
        W.append(weights @ r)
        N.append(weights.sum())
    W, N = np.array(W), np.array(N)
    safe = np.where(N == 0, 1.0, N)
    bonus = np.sqrt(2 * np.log(max(N.sum(), 1.0)) / safe)
    return np.where(N == 0, np.inf, W / safe + bonus)


def ducb_closed_form(rewards, gamma):
    N = [len(r) if gamma == 1 else (1 - gamma ** len(r)) / (1 - gamma) for r in rewards]
    out = []
    for r, n in zip(rewards, N):
        if n == 0:
            out.append(math.inf)
            continue
        w = 0.0
        for x in r:
            w = w * gamma + x
        out.append(w / n + (2 * math.log(sum(N)) / n) ** 0.5)
    return np.array(out)


def _ducb(mean=None, bonus=None, weights=None, empty=np.inf, name=""):
    weights = weights or (lambda n, g: g ** np.arange(n)[::-1])
    mean = mean or (lambda r, w: (w @ r) / w.sum())
    bonus = bonus or (lambda w, total: np.sqrt(2 * np.log(total) / w.sum()))

    def wrong(rewards, gamma):
        all_weights = [weights(len(r), gamma) for r in rewards]
        total = sum(w.sum() for w in all_weights)
        return np.array(
            [
                mean(r, w) + bonus(w, total) if len(r) else empty
                for r, w in zip(rewards, all_weights)
            ]
        )

    wrong.__name__ = name
    return wrong


ducb_plain = _ducb(weights=lambda n, g: np.ones(n), name="ducb_plain")
ducb_oldest = _ducb(mean=lambda r, w: (w[::-1] @ r) / w.sum(), name="ducb_oldest")
ducb_one_late = _ducb(
    weights=lambda n, g: g ** np.arange(1, n + 1)[::-1], name="ducb_one_late"
)
ducb_mean_by_count = _ducb(
    mean=lambda r, w: (w @ r) / len(r), name="ducb_mean_by_count"
)
ducb_plain_mean = _ducb(mean=lambda r, w: r.mean(), name="ducb_plain_mean")
ducb_bonus_by_count = _ducb(
    bonus=lambda w, total: np.sqrt(2 * np.log(total) / len(w)),
    name="ducb_bonus_by_count",
)
ducb_no_bonus = _ducb(bonus=lambda w, total: 0.0, name="ducb_no_bonus")
ducb_bonus_only = _ducb(mean=lambda r, w: 0.0, name="ducb_bonus_only")
ducb_no_two = _ducb(
    bonus=lambda w, total: np.sqrt(np.log(total) / w.sum()), name="ducb_no_two"
)
ducb_no_root = _ducb(
    bonus=lambda w, total: 2 * np.log(total) / w.sum(), name="ducb_no_root"
)
ducb_root_of_log = _ducb(
    bonus=lambda w, total: np.sqrt(2 * np.log(total)) / w.sum(), name="ducb_root_of_log"
)
ducb_two_outside = _ducb(
    bonus=lambda w, total: 2 * np.sqrt(np.log(total) / w.sum()), name="ducb_two_outside"
)
ducb_log10 = _ducb(
    bonus=lambda w, total: np.sqrt(2 * np.log10(total) / w.sum()), name="ducb_log10"
)
ducb_own_log = _ducb(
    bonus=lambda w, total: np.sqrt(2 * np.log(w.sum()) / w.sum()), name="ducb_own_log"
)
ducb_new_is_zero = _ducb(empty=0.0, name="ducb_new_is_zero")
ducb_sum = _ducb(mean=lambda r, w: w @ r, name="ducb_sum")


ducb_never_minus = _ducb(empty=-np.inf, name="ducb_never_minus")
ducb_never_large = _ducb(empty=1e9, name="ducb_never_large")
ducb_log_plus_one = _ducb(
    bonus=lambda w, total: np.sqrt(2 * np.log1p(total) / w.sum()),
    name="ducb_log_plus_one",
)
ducb_minus = _ducb(
    bonus=lambda w, total: -np.sqrt(2 * np.log(total) / w.sum()), name="ducb_minus"
)
ducb_plain_sum = _ducb(mean=lambda r, w: r.sum() / w.sum(), name="ducb_plain_sum")


def _other_n(count, name):
    def wrong(rewards, gamma):
        N = np.array([float(count(len(r), gamma)) for r in rewards])
        W = np.array([gamma ** np.arange(len(r))[::-1] @ r for r in rewards])
        with np.errstate(all="ignore"):
            scores = W / N + np.sqrt(2 * np.log(N.sum()) / N)
        return np.where([len(r) == 0 for r in rewards], np.inf, scores)

    wrong.__name__ = name
    return wrong


ducb_n_plain = _other_n(lambda n, g: n, "ducb_n_plain")
ducb_n_from_one = _other_n(
    lambda n, g: sum(g**t for t in range(1, n + 1)), "ducb_n_from_one"
)
ducb_n_too_long = _other_n(
    lambda n, g: sum(g**t for t in range(n + 1)), "ducb_n_too_long"
)
ducb_closed_at_one = _other_n(
    lambda n, g: np.float64(1 - g**n) / np.float64(1 - g), "ducb_closed_at_one"
)


def ducb_tiny(rewards, gamma):
    N = np.array([(gamma ** np.arange(len(r))).sum() for r in rewards])
    W = np.array([gamma ** np.arange(len(r))[::-1] @ r for r in rewards])
    N = np.maximum(N, 1e-12)
    return W / N + np.sqrt(2 * np.log(N.sum()) / N)


def ducb_total_count(rewards, gamma):
    total = sum(len(r) for r in rewards)
    return _ducb(bonus=lambda w, _: np.sqrt(2 * np.log(total) / w.sum()))(
        rewards, gamma
    )


def ducb_nan(rewards, gamma):
    N = np.array([(gamma ** np.arange(len(r))).sum() for r in rewards])
    W = np.array([gamma ** np.arange(len(r))[::-1] @ r for r in rewards])
    with np.errstate(all="ignore"):
        return W / N + np.sqrt(2 * np.log(N.sum()) / N)


def ducb_divides(rewards, gamma):
    N = [sum(gamma**t for t in range(len(r))) for r in rewards]
    W = [sum(gamma ** (len(r) - 1 - t) * x for t, x in enumerate(r)) for r in rewards]
    total = math.log(sum(N)) if sum(N) else 0
    return np.array([w / n + math.sqrt(2 * total / n) for w, n in zip(W, N)])


# --- 19.4 -------------------------------------------------------------------------

RIGHT = {
    "swap": ["intro", "parts h0", "split", "exact h2", "exact h1"],
    "either": ["intro", "cases h0", "inr", "exact h1", "inl", "exact h1"],
    "chain": ["intro", "intro", "intro", "apply h1", "apply h0", "exact h2"],
    "refute": ["intro", "parts h0", "use h2", "exact h1", "absurd h3"],
    "share": ["intro", "split", "cases h0", "parts h1", "inl", "exact h2", "inr",
              "exact h1", "cases h0", "parts h1", "inl", "exact h3", "inr",
              "exact h1"],
}  # fmt: skip


def proofs_first():
    return dict(RIGHT)


def proofs_other_ways():
    return {
        "swap": ("intro", "split", "parts h0", "exact h2", "parts h0", "exact h1"),
        "either": ["intro", "cases h0", "inr", "exact h1", "inl", "exact h1"],
        "chain": ["intro", "intro", "intro", "use h0", "exact h2", "apply h1",
                  "exact h3"],
        "refute": ["intro", "parts h0", "use h2", "exact h1", "absurd h3"],
        "share": ["intro", "cases h0", "parts h1", "split", "inl", "exact h2", "inl",
                  "exact h3", "split", "inr", "exact h1", "inr", "exact h1"],
    }  # fmt: skip


def proofs_other_goal():
    return {**RIGHT, "swap": ["intro", "parts h0", "split", "exact h1", "exact h2"]}


def proofs_unfinished():
    return {**RIGHT, "either": ["intro", "cases h0", "inr", "exact h1"]}


def proofs_wrong_side():
    return {**RIGHT, "either": ["intro", "cases h0", "inl", "exact h1", "inr",
                                "exact h1"]}  # fmt: skip


def proofs_one_too_many():
    return {**RIGHT, "chain": [*RIGHT["chain"], "exact h0"]}


def proofs_refused_and_longer():
    return {**RIGHT, "refute": ["intro", "parts h0", "apply h2", "exact h1",
                                "absurd h3"]}  # fmt: skip


def proofs_many_intros():
    return {**RIGHT, "chain": ["intro"] * 120}


def proofs_endless():
    return {**RIGHT, "swap": ["intro"] + ["parts h0"] * 120}


def proofs_empty_step():
    return {**RIGHT, "chain": ["intro", ""]}


def proofs_no_name():
    return {**RIGHT, "refute": ["intro", "parts", "use h2", "exact h1", "absurd h3"]}


def proofs_sorry():
    return {**RIGHT, "share": ["intro", "sorry"]}


def proofs_term():
    return {**RIGHT, "swap": "fun h => And.intro h.right h.left"}


def proofs_missing():
    return {name: RIGHT[name] for name in ("swap", "either", "chain")}


def proofs_list():
    return list(RIGHT.values())


def proofs_empty():
    return {**RIGHT, "chain": []}


ANSWERS = {
    "19.1": Answers(
        right=[accepted_set, accepted_any],
        wrong=[
            Wrong(accepted_no_error_anywhere, "each is judged by its own line"),
            Wrong(accepted_errors_strike_all, "each is judged by its own"),
            Wrong(accepted_up_to_first, "Lean reads on"),
            Wrong(accepted_sorry, "that is a warning, and no proof"),
            Wrong(accepted_word_sorry, "the whole sentence"),
            Wrong(accepted_warnings, "every warning refuses"),
            Wrong(accepted_silent, "every message refuses"),
            Wrong(accepted_only_sorry, "errors are not looked at"),
            Wrong(accepted_from_one, "one off"),
            Wrong(accepted_one_before, "one off"),
            Wrong(accepted_no_first, "`first` plays no part"),
            Wrong(accepted_dead, "silence is no proof"),
            Wrong(accepted_crash, "nothing to go over"),
            Wrong(accepted_refused, "these are the refused ones"),
            Wrong(accepted_numbers, "a bool for each"),
            Wrong(accepted_first_message, "only the first message of a line"),
            Wrong(accepted_last_message, "only the last message of a line"),
            Wrong(accepted_quoted, "a part of the words is not enough"),
            Wrong(accepted_uses, "a part of the words is not enough"),
            Wrong(accepted_equal, "inside a longer text"),
            Wrong(accepted_begins, "inside a longer text"),
            Wrong(accepted_ends, "inside a longer text"),
            Wrong(accepted_warning_only, "in any message, whatever its severity"),
            Wrong(accepted_word_error, "what is an error stands in the severity"),
            Wrong(accepted_holes, "a hole is taken for a proof"),
            Wrong(accepted_wraps, "the index -1 is the last element"),
            Wrong(accepted_index_error, "leave it out"),
            Wrong(accepted_not_the_first, "the first proof is not looked at"),
            Wrong(accepted_not_the_last, "the last proof is not looked at"),
            Wrong(accepted_empty_is_dead, "an empty list is no death"),
            Wrong(accepted_all, "nothing of the messages is used"),
        ],
    ),
    "19.2": Answers(
        right=[take_walk, take_sets],
        wrong=[
            Wrong(take_skips_errors, "behind the first error"),
            Wrong(take_nothing_of_errors, "counts for nothing here"),
            Wrong(take_known_too, "known states are among"),
            Wrong(take_end_too, "a whole proof leaves no state"),
            Wrong(take_doubles, "comes twice is new once"),
            Wrong(take_stops_at_known, "through known states"),
            Wrong(take_past_the_end, "behind the end of the proof"),
            Wrong(take_counts, "the reward counts the new states"),
            Wrong(take_counts_proof, "and the proof: it is 1.0 at most"),
            Wrong(take_proofs_only, "only a whole proof is paid"),
            Wrong(take_new_only, "it is new itself"),
            Wrong(take_known_paid, "known states are paid again"),
            Wrong(take_always, "every sample is paid"),
            Wrong(take_other_order, "another order"),
            Wrong(take_reward_only, "two results"),
            Wrong(take_last_state, "a new state pays even if"),
            Wrong(take_error_unpaid, "a sample with an error is paid too"),
            Wrong(take_one_short, "the step before the error is right"),
            Wrong(take_proof_anywhere, "behind the error cannot be a proof"),
            Wrong(take_proof_last, "behind the error cannot be a proof"),
            Wrong(take_or, "and not the list"),
            Wrong(take_sorted, "keep that of the walk"),
            Wrong(take_writes_seen, "changed its input seen in place"),
        ],
    ),
    "19.3": Answers(
        right=[ducb_powers, ducb_closed_form],
        wrong=[
            Wrong(ducb_plain, "γ plays no part"),
            Wrong(ducb_oldest, "the newest counts 1"),
            Wrong(ducb_one_late, "its exponent is 0"),
            Wrong(ducb_mean_by_count, "the rewards are divided by the number"),
            Wrong(ducb_plain_mean, "W is discounted"),
            Wrong(ducb_bonus_by_count, "the bonus divides by the number"),
            Wrong(ducb_total_count, "the sum of the discounted N"),
            Wrong(ducb_no_bonus, "there is no bonus"),
            Wrong(ducb_bonus_only, "the rewards are missing"),
            Wrong(ducb_sum, "is not divided by N"),
            Wrong(ducb_no_two, "the 2 under the root is missing"),
            Wrong(ducb_no_root, "the root is missing"),
            Wrong(ducb_root_of_log, "of the whole fraction"),
            Wrong(ducb_two_outside, "the 2 stands before the root"),
            Wrong(ducb_log10, "natural logarithm"),
            Wrong(ducb_own_log, "the arm's own N"),
            Wrong(ducb_new_is_zero, "its score is infinite"),
            Wrong(ducb_nan, "its score is infinite"),
            Wrong(ducb_divides, "its score is infinite"),
            Wrong(ducb_never_minus, "its score is infinite"),
            Wrong(ducb_never_large, "its score is infinite"),
            Wrong(ducb_tiny, "its score is infinite"),
            Wrong(ducb_closed_at_one, "at γ = 1 the closed form"),
            Wrong(ducb_n_plain, "N is the number of choices here"),
            Wrong(ducb_n_from_one, "and γ⁰ is 1"),
            Wrong(ducb_n_too_long, "N has one term too many"),
            Wrong(ducb_plain_sum, "W is the plain sum"),
            Wrong(ducb_log_plus_one, "of the sum plus 1"),
            Wrong(ducb_minus, "it is added"),
        ],
    ),
    "19.4": Answers(
        right=[proofs_first, proofs_other_ways],
        wrong=[
            Wrong(proofs_other_goal, "swap: Lean refuses step 4"),
            Wrong(proofs_unfinished, "either: the proof is not finished"),
            Wrong(proofs_wrong_side, "have to show b"),
            Wrong(proofs_one_too_many, "the proof is whole before that step"),
            Wrong(proofs_refused_and_longer, "refute: Lean refuses step 3"),
            Wrong(proofs_many_intros, "chain: Lean refuses step 4"),
            Wrong(proofs_endless, "121 steps are too many"),
            Wrong(proofs_empty_step, "there is no step ''"),
            Wrong(proofs_no_name, "parts takes one name"),
            Wrong(proofs_sorry, "there is no step 'sorry'"),
            Wrong(proofs_term, "should be a list of texts"),
            Wrong(proofs_missing, "lacks refute, share"),
            Wrong(proofs_list, "should be a dictionary"),
            Wrong(proofs_empty, "you know nothing"),
        ],
    ),
}
