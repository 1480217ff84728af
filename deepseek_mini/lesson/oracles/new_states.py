"""Exercise 19.2, what is new: the oracle walks the states one by one."""

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake
from deepseek_mini.lesson.oracles.several import in_another_order


def take_in(states, seen):
    """The oracle: walk until an error or the end of the proof."""
    new, whole = [], False
    for state in states:
        if state is None:
            break
        if state == "":
            whole = True
            break
        if state not in [*seen, *new]:
            new.append(state)
    return new, 1.0 if new or whole else 0.0


def _until_error(states):
    return states[: states.index(None)] if None in states else states


def _fresh(states, seen):
    return list(dict.fromkeys(s for s in states if s and s not in seen))


def _errors_skipped(states, seen):
    new = _fresh(states, seen)
    return new, float(bool(new) or "" in states)


def _all_kept(states, seen):
    _, reward = take_in(states, seen)
    kept = []
    for state in states:
        if not state:
            break
        kept.append(state)
    return kept, reward


def _with_the_end(states, seen):
    kept = _until_error(states)
    if "" in kept:
        kept = kept[: kept.index("") + 1]
    new = list(dict.fromkeys(s for s in kept if s not in seen))
    return new, float(bool(new))


def _last_decides(states, seen):
    """The reward of the last state that was reached."""
    new, reward = [], 0.0
    for state in states:
        if state is None:
            break
        if state == "":
            return new, 1.0
        reward = float(state not in [*seen, *new])
        new += [state] if reward else []
    return new, reward


def _one_too_short(states, seen):
    new, reward = take_in(states, seen)
    if None in states and "" not in _until_error(states):
        return new[:-1], float(len(new) > 1)
    return new, reward


def _proof_behind_error(states, seen):
    new, reward = take_in(states, seen)
    return new, float(reward or "" in states)


def _unpaid_error(states, seen):
    new, reward = take_in(states, seen)
    return new, 0.0 if None in states else reward


def _paid(reward):
    """The right states, and another reward."""

    def wrong(states, seen):
        new, _ = take_in(states, seen)
        kept = _until_error(states)
        return new, float(reward(new, "" in kept, kept))

    return wrong


def _twice(states, seen):
    _, reward = take_in(states, seen)
    kept = _until_error(states)
    kept = kept[: kept.index("")] if "" in kept else kept
    return [s for s in kept if s not in seen], reward


def _stops_at_known(states, seen):
    kept = []
    for state in states:
        if not state or state in seen or state in kept:
            break
        kept.append(state)
    whole = len(kept) < len(states) and states[len(kept)] == ""
    return kept, float(bool(kept) or whole)


def _nothing_after_error(states, seen):
    return ([], 0.0) if None in states else take_in(states, seen)


def _past_the_end(states, seen):
    kept = _until_error(states)
    new = _fresh(kept, seen)
    return new, float(bool(new) or "" in kept)


GOALS = ("a", "b", "c", "a → b", "And a b", "Or b c", "a | b", "b | a", "False")


def state_cases(rng):
    def named(n):
        return [f"⊢ {GOALS[i]}" for i in rng.permutation(len(GOALS))[:n]]

    s = named(6)
    yield Case((s[:3], []), "three new states")
    yield Case(([s[0], s[1], None, s[2]], [s[0]]), "an error, and a state behind it")
    yield Case(([s[0], s[1]], [s[0], s[1], s[2]]), "nothing new")
    yield Case(([s[0], s[1], ""], [s[0], s[1]]), "a proof through known states")
    yield Case(([s[0], s[1], ""], [s[0]]), "a proof through a new state")
    yield Case(([None], []), "an error at once")
    yield Case(([None, s[0], ""], [s[1]]), "an error first, the rest would fit")
    yield Case(([s[0], s[1], s[2]], [s[0], s[1]]), "two known, then a new one")
    yield Case(([s[0], s[1], s[0], s[2]], [s[3]]), "a state that comes twice")
    yield Case(([s[0], s[1], s[2], s[3]], [s[1]]), "new, known, new")
    yield Case(([s[0], "", s[1]], [s[0]]), "steps behind the end of the proof")
    yield Case(([s[4], s[5], None], [s[4], s[5]]), "known states, then an error")
    yield Case(([], [s[0]]), "no step at all")
    yield Case(([""], []), "a proof of one step")
    yield Case(([s[1], s[0]], [s[0]]), "new, then known")
    yield Case(([s[1], s[0], None], [s[0]]), "new, then known, then an error")
    yield Case(([s[1], s[2], s[1]], [s[0]]), "two new ones, and the first again")
    yield Case(([s[1], s[2], None], [s[0]]), "two new ones, then an error")


def _list_as_reward(got, want, args):
    return isinstance(got, tuple | list) and isinstance(got[1], list)


def _other_order(got, want, args):
    return got[1] == want[1] and sorted(got[0]) == sorted(want[0])


def _only_one(got, want, args):
    return isinstance(got, list | float | int)


STATES = Exercise(
    id="19.2",
    title="What a sample brings",
    signature="take_in(states, seen)",
    difficulty="some thought",
    minutes=12,
    right=take_in,
    cases=state_cases,
    mistakes=(
        Mistake(
            "states behind the first error are taken in: they begin from what Lean "
            "refused",
            gives=_errors_skipped,
        ),
        Mistake(
            "a sample with an error counts for nothing here: what stands before the "
            "error is right, and is kept",
            gives=_nothing_after_error,
        ),
        Mistake(
            "known states are among the new ones: only those not in `seen` are new",
            gives=_all_kept,
        ),
        Mistake(
            '"" is among the new states: a whole proof leaves no state to go on from',
            gives=_with_the_end,
        ),
        Mistake(
            "a state that comes twice is new once: the second time it has been seen",
            gives=_twice,
        ),
        Mistake(
            "the walk stops at the first known state: it goes on, through known states",
            gives=_stops_at_known,
        ),
        Mistake(
            "what stands behind the end of the proof is taken in: it has no place",
            gives=_past_the_end,
        ),
        Mistake(
            "the reward counts the new states: it is 1.0, however many there are",
            gives=_paid(lambda new, whole, kept: len(new)),
        ),
        Mistake(
            "the reward counts the new states and the proof: it is 1.0 at most",
            gives=_paid(lambda new, whole, kept: len(new) + whole),
        ),
        Mistake(
            "only a whole proof is paid here: a new state is, too, and that is what "
            "drives the search while there is no proof",
            gives=_paid(lambda new, whole, kept: whole),
        ),
        Mistake(
            "a whole proof through known states is not paid here: it is new itself",
            gives=_paid(lambda new, whole, kept: bool(new)),
        ),
        Mistake(
            "known states are paid again: then a search can stay where it is",
            gives=_paid(lambda new, whole, kept: bool(kept)),
        ),
        Mistake(
            "a new state pays even if the walk then comes to known ones",
            gives=_last_decides,
        ),
        Mistake(
            "the step before the error is right: the error begins with its own step",
            gives=_one_too_short,
        ),
        Mistake(
            "a sample with an error is paid too, if it brought a new state",
            gives=_unpaid_error,
        ),
        Mistake(
            "what stands behind the error cannot be a proof",
            gives=_proof_behind_error,
        ),
        Mistake("every sample is paid here", gives=_paid(lambda *_: 1.0)),
        in_another_order("the two are right, in another order: new first"),
        Mistake(
            "the reward is a number, 1.0 or 0.0, and not the list: `a or b` is a or b "
            "itself",
            when=_list_as_reward,
        ),
        Mistake(
            "these are the new states, but not in their order: keep that of the walk",
            when=_other_order,
        ),
        Mistake("two results are wanted: `new, reward`", when=_only_one),
        Mistake(
            "a state may be None, where Lean reported an error: ask for that first",
            raises="NoneType",
        ),
    ),
    hint="for each state: an error, the end, known or new? where does the walk end?",
)
