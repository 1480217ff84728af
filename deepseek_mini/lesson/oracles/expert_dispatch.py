"""Exercise 08.5, the sorted path: watched experts count who calls them with what."""

import torch

from deepseek_mini.lesson.compare import difference
from deepseek_mini.lesson.explain import NotYet
from deepseek_mini.lesson.judge import call
from deepseek_mini.lesson.oracles import Exercise, tensor


class Watched:
    """An expert x -> tanh(x w) that remembers its inputs."""

    def __init__(self, w):
        self.w, self.seen = w, []

    def __call__(self, x):
        self.seen.append(x.detach().clone())
        return torch.tanh(x @ self.w)


def dispatch(x, chosen, weights, experts, *, who=None, weigh=None):
    """The oracle: token by token, place by place. The keywords make known mistakes."""
    out = torch.zeros_like(x)
    for t in range(len(x)):
        for k in range(chosen.shape[1]):
            i, g = int(chosen[t, k]), weights[t, k]
            row = x[t] if who is None else x[who(t, k)]
            out[t] += experts[i](row[None])[0] * (g if weigh is None else weigh(t, k))
    return out


def _inputs(rng, N, D, E, K, kind):
    dtype = torch.float32  # as tensors are that say nothing else
    x = tensor(rng, N, D, dtype=dtype)
    weights = tensor(rng, N, K, dtype=dtype).abs()
    n_used = E - 2 if kind == "idle" else E
    ways = torch.from_numpy(rng.random((N, n_used))).argsort(dim=1)[:, :K]
    if kind == "twice":
        ways[0] = ways[0, 0]
    experts = [Watched(tensor(rng, D, D, dtype=dtype)) for _ in range(E)]
    return x, ways, weights, experts


def _known_mistake(got, x, chosen, weights, experts):
    """The hint of the mistake that gives this result, or None."""
    N, K = chosen.shape
    fresh = [Watched(e.w) for e in experts]
    flat = chosen.flatten().argsort(stable=True)
    rank = torch.empty_like(flat)
    rank[flat] = torch.arange(len(flat))

    def sorted_weight(t, k):  # the weights stay in the order of the tokens
        return weights.flatten()[rank[t * K + k]]

    def unsorted():
        y = torch.cat([fresh[int(chosen.flatten()[p])](x[p // K][None]) for p in flat])
        return (y.view(N, K, -1) * weights[..., None]).sum(1)

    def weighed_unsorted():
        y = torch.cat([fresh[int(chosen.flatten()[p])](x[p // K][None]) for p in flat])
        y = y * weights.flatten()[flat, None]
        return y.view(N, K, -1).sum(1)

    def by_experts():  # the place divided by E
        n = len(experts)
        who = lambda t, k: min((t * K + k) // n, N - 1)  # noqa: E731
        return dispatch(x, chosen, weights, fresh, who=who)

    def overwritten():
        out = torch.zeros_like(x)
        y = [fresh[int(chosen.flatten()[p])](x[p // K][None])[0] for p in flat]
        for p, row in zip(flat.tolist(), y):
            out[p // K] = row * weights.flatten()[p]
        return out

    def order_applied_twice():
        y = torch.cat([fresh[int(chosen.flatten()[p])](x[p // K][None]) for p in flat])
        y = (y * weights.flatten()[flat, None])[flat]
        return y.view(N, K, -1).sum(1)

    def repeated(keep):  # out[t] += y, expert by expert: of a repeated t one counts
        def wrong():
            out = torch.zeros_like(x)
            for i, f in enumerate(fresh):
                token, place = torch.where(chosen == i)
                for t in token.unique().tolist():
                    k = place[token == t][keep]
                    out[t] += weights[t, k] * f(x[t][None])[0]
            return out

        return wrong

    def by_remainder():  # place % N, where tokens are read and where they are written
        out = torch.zeros_like(x)
        for p, i in enumerate(chosen.flatten().tolist()):
            out[p % N] += weights.flatten()[p] * fresh[i](x[p % N][None])[0]
        return out

    known = (
        *(
            (
                repeated(keep),
                "a token chose an expert twice, and only one of the two was added: "
                "`out[t] += y` reads out[t] once for each place, and the last place "
                "of a repeated t wins",
            )
            for keep in (-1, 0)
        ),
        (
            order_applied_twice,
            "the outputs are put into the sorted order a second time, where the first "
            "should be undone",
        ),
        (
            by_remainder,
            "a place in the row of N K choices belongs to token place // K: the K "
            "choices of a token are neighbours",
        ),
        (
            lambda: dispatch(x, chosen, weights, fresh, weigh=lambda t, k: 1.0),
            "the experts' outputs are added up without weights",
        ),
        (
            lambda: dispatch(x, chosen, weights, fresh, weigh=sorted_weight),
            "the weights are still in the order of the tokens while the outputs are "
            "sorted by expert",
        ),
        (
            unsorted,
            "the outputs are still sorted by expert: whose is each of its rows?",
        ),
        (
            weighed_unsorted,
            "the outputs are still sorted by expert: whose is each of its rows?",
        ),
        (
            overwritten,
            "a token's later outputs take the place of its earlier ones: with K of "
            "them, the rows of a token have to be added up",
        ),
        (
            by_experts,
            "a place in the row of N K choices belongs to token place // K, not // E",
        ),
        (
            lambda: dispatch(x, chosen, weights / weights.sum(1, keepdim=True), fresh),
            "the weights were divided by their sum: they are used as they are",
        ),
    )
    for wrong, hint in known:
        if difference(got, wrong(), exact_dtype=False) is None:
            return hint
    return None


def _check_calls(x, chosen, experts, where):
    """Every expert at most once, with its own tokens."""
    for i, expert in enumerate(experts):
        mine = (chosen == i).nonzero()[:, 0]
        if len(mine) == 0:
            if expert.seen:
                raise NotYet(
                    f"nobody chose expert {i}, but it was called ({where})",
                    "how many tokens does its slice have?",
                )
            continue
        if not expert.seen:
            raise NotYet(
                f"expert {i} was never called, but {len(mine)} choices fell on it "
                f"({where})",
                "every choice belongs to exactly one slice",
            )
        if len(expert.seen) > 1:
            raise NotYet(
                f"expert {i} was called {len(expert.seen)} times ({where})",
                "gather all its tokens first, and call it once with all of them",
            )
        got, want = expert.seen[0], x[mine]
        rows = sorted(map(tuple, got.reshape(-1, x.shape[1]).tolist()))
        if rows != sorted(map(tuple, want.tolist())):
            few = f"{len(rows)} tokens, but {len(mine)} choices fell on it"
            same = "other tokens than those that chose it"
            hint = (
                "an expert computes what it is given: give it the tokens that chose "
                "it, and no others"
            )
            if rows == sorted(set(map(tuple, want.tolist()))):
                hint = (
                    "the result is right, but a token that chose the expert twice "
                    "should be among its inputs twice"
                )
            elif len(rows) < len(mine):
                hint = "every choice is an input of its own: which are left out?"
            raise NotYet(
                f"expert {i} got {same if len(rows) == len(mine) else few} ({where})",
                hint,
            )


def judge_dispatch(theirs, rng):
    """The result, then who was called with what."""
    plan = (
        (5, 3, 4, 2, "", "two of four experts"),
        (6, 4, 7, 2, "idle", "experts that nobody chose"),
        (1, 3, 6, 3, "", "one token"),
        (7, 2, 3, 1, "", "one expert for a token"),
        (4, 3, 5, 3, "twice", "a token that chose an expert twice"),
        (9, 5, 6, 4, "", "four of six experts"),
    )
    for N, D, E, K, kind, label in plan:
        x, chosen, weights, experts = _inputs(rng, N, D, E, K, kind)
        where = f"with {label}: N = {N}, E = {E}, K = {K}"
        fresh = [Watched(e.w) for e in experts]
        want = dispatch(x, chosen, weights, fresh)
        got = call(
            theirs, x.clone(), chosen.clone(), weights.clone(), experts,
            exercise=DISPATCH,
        )  # fmt: skip
        diff = difference(got, want, exact_dtype=False)
        if diff is not None:
            hint = diff.hint
            if isinstance(got, torch.Tensor) and got.shape == want.shape:
                hint = _known_mistake(got, x, chosen, weights, experts) or hint
            raise NotYet(f"{diff.reason} ({where})", hint or DISPATCH.hint)
        _check_calls(x, chosen, experts, where)


DISPATCH = Exercise(
    id="08.5",
    title="Sort by expert",
    signature="dispatch(x, chosen, weights, experts)",
    difficulty="some thought",
    minutes=15,
    judge=judge_dispatch,
    hint="print for the example by hand, in the order of the sorted choices: expert, "
    "token and weight; each line should be one of the token's choices",
)
