"""Exercise 11.3, V3's limit to groups: the oracle goes token by token."""

import math

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


def chosen_in_groups(ranked, n_groups, n_limited, K, *, worth=None):
    """The oracle; the keywords make the known mistakes."""
    N, E = ranked.shape
    size, out = E // n_groups, np.zeros((N, E), dtype=bool)
    worth = worth or (lambda entries: sum(sorted(entries)[-2:]))
    for t in range(N):
        row = ranked[t].tolist()
        values = [worth(row[g * size : (g + 1) * size]) for g in range(n_groups)]
        best = sorted(range(n_groups), key=values.__getitem__)[-n_limited:]
        row = [x if i // size in best else -math.inf for i, x in enumerate(row)]
        for i in sorted(range(E), key=row.__getitem__)[-K:]:
            out[t, i] = True
    return out


def _choosing(**mistake):
    return lambda *args: chosen_in_groups(*args, **mistake)


def _dealt(ranked, n_groups, n_limited, K):
    """Groups dealt like cards: expert i in group i mod G."""
    N, E = ranked.shape
    order = np.arange(E).reshape(-1, n_groups).T.ravel()
    out = np.zeros((N, E), dtype=bool)
    out[:, order] = chosen_in_groups(ranked[:, order], n_groups, n_limited, K)
    return out


def _same_groups_for_all(ranked, n_groups, n_limited, K):
    groups = ranked.reshape(len(ranked), n_groups, -1)
    worth = np.sort(groups, axis=-1)[..., -2:].sum(-1).sum(0)
    kept = np.argsort(worth)[-n_limited:]
    keep = np.isin(np.arange(ranked.shape[1]) // groups.shape[2], kept)
    return chosen_in_groups(np.where(keep, ranked, -np.inf), 1, 1, K)


def _shut_to_a_number(worth):
    """Whether a choice is one with a number for closed experts, whichever of these
    equals it takes: all open entries above the number, and closed experts after them.
    """

    def fits(got, want, args):
        ranked, n_groups, n_limited, K = args
        if np.shape(got) != ranked.shape or got.dtype != bool:
            return False
        size = ranked.shape[1] // n_groups
        every = chosen_in_groups(
            ranked, n_groups, n_limited, n_limited * size, worth=worth
        )
        lowest = np.where(got & every, ranked, np.inf).min(1)  # [N]: of what it took
        left = np.where(every & ~got, ranked, -np.inf).max(1)  # [N]
        number = left[(got & ~every).any(1)]  # at least: where closed ones came in
        among = len(number) > 0 and number.max() < lowest.min()
        return bool(among and (got.sum(1) == K).all())

    return fits


def group_cases(rng):
    for N, E, G, M, K, shift, label in (
        (9, 12, 4, 2, 4, 0.0, "two of four groups"),
        (1, 9, 3, 2, 3, 0.0, "one token"),
        (6, 8, 4, 2, 3, 0.0, "groups of two"),
        (7, 16, 4, 2, 5, -0.9, "mostly negative entries"),
        (5, 6, 1, 1, 2, 0.0, "a single group"),
        (6, 12, 3, 2, 4, -2000.0, "entries far below zero"),
    ):
        ranked = rng.uniform(0, 1, (N, E)) + 0.3 * rng.normal(size=E) + shift
        said = f"{label}: ranked [{N}, {E}], {M} of {G} groups, K = {K}"
        yield Case((ranked, G, M, K), said)


GROUPS = Exercise(
    id="11.3",
    title="The limit to groups",
    signature="chosen_in_groups(ranked, n_groups, n_limited, K)",
    difficulty="some thought",
    minutes=15,
    right=chosen_in_groups,
    cases=group_cases,
    mistakes=(
        Mistake(
            "a group was worth its best entry, as in V2: here it is the two best "
            "together",
            gives=_choosing(worth=max),
        ),
        Mistake(
            "a group was worth the sum of all its entries: only its two best count",
            gives=_choosing(worth=sum),
        ),
        Mistake(
            "these are the right experts as numbers: the mask should hold True and "
            "False",
            when=lambda got, want, args: (
                np.shape(got) == want.shape
                and np.asarray(got).dtype.kind in "iuf"
                and np.array_equal(got, want)
            ),
        ),
        Mistake(
            "experts of closed groups were set to a number that is more than some "
            "entry of an open one: entries have no lower bound",
            when=_shut_to_a_number(None),
        ),
        Mistake(
            "groups by their best entry, and 0 for experts of closed ones: that is V2, "
            "whose entries are never negative",
            when=_shut_to_a_number(max),
        ),
        Mistake(
            "the limit to groups is missing: these are the K best of all experts",
            gives=lambda r, G, M, K: chosen_in_groups(r, 1, 1, K),
        ),
        Mistake(
            "the worst groups were left open instead of the best",
            gives=_choosing(worth=lambda entries: -sum(sorted(entries)[-2:])),
        ),
        Mistake(
            "only one group was left open",
            gives=lambda r, G, M, K: chosen_in_groups(r, G, 1, K),
        ),
        Mistake(
            "all experts of the open groups are chosen: only the K best of them should "
            "be",
            gives=lambda r, G, M, K: chosen_in_groups(r, G, M, M * r.shape[1] // G),
        ),
        Mistake(
            "a group consists of neighbours: with 6 experts in 2 groups, 0, 1, 2 and "
            "3, 4, 5",
            gives=_dealt,
        ),
        Mistake(
            "a group has E / n_groups experts, and there are n_groups of them: here "
            "the two are exchanged",
            gives=lambda r, G, M, K: chosen_in_groups(r, r.shape[1] // G, M, K),
        ),
        Mistake(
            "all tokens were given the same groups: each has its own",
            gives=_same_groups_for_all,
        ),
        Mistake(
            "those are the numbers of the chosen experts: return bool [N, E]",
            when=lambda got, want, args: (
                np.shape(got) == (len(args[0]), args[3])
                and np.asarray(got).dtype.kind == "i"
            ),
        ),
    ),
    hint="for one token: print what each group is worth, which are open, and the "
    "entries that are left",
)
