"""Exercise 14.4, a sparse layer of V3: the oracle goes token by token with Python's
sort, in float64.
"""

import math

import numpy as np

from deepseek_mini.config import MoE
from deepseek_mini.lesson.compare import difference
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, array

EPS = 1e-6


def v3_layer(x, w, attend, part):
    """The oracle."""
    return _layer(x, w, attend, part)


def _norm(x, gain):
    return x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + EPS) * gain


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _silu(z):
    return z * _sigmoid(z)


def _best(n):
    """The worth of a group: its n best together; n may depend on part."""
    return lambda values, part: sum(sorted(values)[-(n(part) if callable(n) else n) :])


TWO_BEST = _best(2)


def _layer(x, w, attend, part, **m):
    """The oracle's work; keywords make the known mistakes."""
    norm, silu = m.get("norm", _norm), m.get("silu", _silu)

    def expert(row, w1, w2, w3):
        w1, w3 = (w3, w1) if m.get("swapped") else (w1, w3)
        return w2 @ (silu(w1 @ row) * (w3 @ row))

    copy = x if m.get("attn_bare") else norm(x, w["attn_norm"])
    h = attend(copy) + (copy if m.get("from_copy") else 0 if m.get("no_x") else x)
    gain = w["attn_norm"] if m.get("one_norm") else w["ffn_norm"]
    read = x if m.get("parallel") else h
    u = read if m.get("ffn_bare") else norm(read, gain)
    out = np.array(0 * h if m.get("no_h") else u if m.get("from_u") else h)
    for t, row in enumerate(u):
        logits = w["gate"] @ row
        scores = m.get("score", _sigmoid)(logits)
        ranked = scores + m.get("bias_in_choice", 1) * w["bias"]
        basis = scores if m.get("worth_without_bias") else ranked
        chosen = _choose(ranked.tolist(), basis.tolist(), part, m)
        basis = ranked if m.get("bias_in_weights") else scores
        weights = np.array([basis[i] for i in chosen])
        over = scores.sum() if m.get("over_all") else weights.sum()
        weights = weights / (1 if m.get("not_divided") else over)
        weights = weights * m.get("scale", part.route_scale)
        for i, g in zip(chosen, weights):
            out[t] += g * expert(row, w["w1"][i], w["w2"][i], w["w3"][i])
        shared = expert(row, w["s1"], w["s2"], w["s3"])
        out[t] += m.get("shared", lambda p: 1)(part) * shared
    return out


def _choose(ranked, basis, part, m):
    """The chosen experts: `ranked` orders them, `basis` says what a group is worth."""
    E, worth = len(ranked), m.get("worth", TWO_BEST)
    group_of = m.get("group_of", lambda i, E, G: i // (E // G))
    groups = [group_of(i, E, part.n_groups) for i in range(E)]
    names = sorted(set(groups))
    values = {
        g: worth([v for v, its in zip(basis, groups) if its == g], part) for g in names
    }
    n_open = len(names) if m.get("no_groups") else part.n_limited_groups
    is_open = sorted(names, key=values.__getitem__)[-n_open:]
    closed = m.get("closed", -math.inf)
    ranked = [v if g in is_open else closed for v, g in zip(ranked, groups)]
    return sorted(range(E), key=ranked.__getitem__)[-part.n_activated_experts :]


OTHER_WORTHS = (
    {"worth": _best(1)},
    {"worth": _best(3)},
    {"worth": _best(lambda part: part.n_limited_groups)},
    {"worth": lambda values, part: sum(values)},
    {"worth_without_bias": True},
    {"group_of": lambda i, E, G: i // G},
    {"group_of": lambda i, E, G: i % G},
)


def _tells(*args):
    """Whether each other rule for groups changes the result."""
    right = _layer(*args)
    others = (_layer(*args, **rule) for rule in OTHER_WORTHS)
    return all(difference(other, right, 1e-3) is not None for other in others)


def _doing(**mistake):
    return lambda *args: _layer(*args, **mistake)


def _softmax(z):
    powers = np.exp(z - z.max())
    return powers / powers.sum()


def _no_gain(x, gain):
    return _norm(x, 1.0)


def _with_mean(x, gain):
    return _norm(x - x.mean(axis=-1, keepdims=True), gain)


def _with_eps(eps):
    return lambda x, gain: x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * gain


def _eps_outside(x, gain):
    return x / (np.sqrt((x * x).mean(-1, keepdims=True)) + EPS) * gain


def _one_mean(x, gain):
    return x / np.sqrt((x * x).mean() + EPS) * gain


def _near(got, want, _args):
    return difference(got, want, 1e-4) is None


def layer_cases(rng):
    # groups of four or more, and one or three open: no other worth is the two best
    for T, D, E, G, M, K, width, J, shift, label in (
        (5, 6, 20, 5, 3, 4, 4, 5, 0.0, "five tokens"),
        (1, 5, 6, 3, 2, 3, 2, 3, 0.0, "one token"),
        (6, 7, 20, 4, 3, 5, 3, 2, -2.5, "negative biases"),
        (4, 4, 9, 1, 1, 2, 3, 6, 0.3, "a single group"),
        (7, 8, 10, 2, 1, 3, 2, 4, 0.0, "one of two groups"),
        (4, 5, 8, 2, 1, 3, 3, 4, 0.0, "small numbers"),
    ):
        part = MoE(
            n_routed_experts=E,
            n_shared_experts=1,
            n_activated_experts=K,
            inter_dim=width,
            score="sigmoid",
            bias=True,
            n_groups=G,
            n_limited_groups=M,
            norm_topk=True,
            route_scale=float(rng.uniform(1.5, 3)),
        )
        size = 1e-3 if label == "small numbers" else 1.0
        args = _drawn(rng, part, D, J, T, shift, size)
        while T >= 5 and not _tells(*args):
            args = _drawn(rng, part, D, J, T, shift, size)
        said = f"{label}: x [{T}, {D}], {E} experts, {M} of {G} groups, K = {K}"
        yield Case(args, said, 1e-11)


def _drawn(rng, part, D, J, T, shift, size):
    """Random arguments; `shift` is added to the biases, `size` is that of x and h."""
    E, width = part.n_routed_experts, part.inter_dim
    w = {
        "attn_norm": 1 + 0.3 * array(rng, D),
        "ffn_norm": 1 + 0.3 * array(rng, D),
        "gate": array(rng, E, D) * 0.6,
        "bias": 0.3 * array(rng, E) + shift,
        "w1": array(rng, E, width, D),
        "w2": array(rng, E, D, width),
        "w3": array(rng, E, width, D),
        "s1": array(rng, J, D),
        "s2": array(rng, D, J),
        "s3": array(rng, J, D),
    }
    tokens, channels = array(rng, T, T) * 0.5, array(rng, D, D) * 0.5 * size

    def attend(n):
        return tokens @ n @ channels

    return array(rng, T, D) * 2 * size, w, attend, part


LAYER = Exercise(
    id="14.4",
    title="A layer of V3",
    signature="v3_layer(x, w, attend, part)",
    difficulty="from the paper",
    minutes=30,
    right=v3_layer,
    cases=layer_cases,
    mistakes=(
        Mistake(
            "the bias is in the weights: it chooses, and never weighs",
            gives=_doing(bias_in_weights=True),
        ),
        Mistake(
            "the bias is missing where the experts are chosen",
            gives=_doing(bias_in_choice=0),
        ),
        Mistake(
            "a group was worth its best expert, as in V2: it is the two best together",
            gives=_doing(worth=_best(1)),
        ),
        Mistake(
            "a group was worth all its experts together: only its two best count",
            gives=_doing(worth=lambda values, part: sum(values)),
        ),
        Mistake(
            "a group was worth its n_limited_groups best experts: it is its two best, "
            "however many groups are open",
            gives=_doing(worth=_best(lambda part: part.n_limited_groups)),
        ),
        Mistake(
            "a group was worth more than its two best experts",
            gives=_doing(worth=_best(3)),
        ),
        Mistake(
            "what a group is worth was taken without the bias: groups, too, are "
            "compared by s + b",
            gives=_doing(worth_without_bias=True),
        ),
        Mistake(
            "groups of n_groups experts: there are n_groups groups, of E / n_groups",
            gives=_doing(group_of=lambda i, E, G: i // G),
        ),
        Mistake(
            "every n_groups-th expert was put into a group: a group is of neighbours",
            gives=_doing(group_of=lambda i, E, G: i % G),
        ),
        Mistake(
            "closed groups were set to 0: scores plus biases may be negative",
            gives=_doing(closed=0.0),
        ),
        Mistake(
            "the limit to groups is missing: these are the K best of all experts",
            gives=_doing(no_groups=True),
        ),
        Mistake(
            "the scores are sigmoids, each expert by itself, not a softmax",
            gives=_doing(score=_softmax),
        ),
        Mistake(
            "the weights are not divided by the sum of the chosen scores",
            gives=_doing(not_divided=True),
        ),
        Mistake(
            "the weights are divided by the sum of all scores, not of the chosen ones",
            gives=_doing(over_all=True),
        ),
        Mistake("route_scale is missing", gives=_doing(scale=1.0)),
        Mistake(
            "the shared expert is multiplied by route_scale: only the routed ones are",
            gives=_doing(shared=lambda part: part.route_scale),
        ),
        Mistake("the shared expert is missing", gives=_doing(shared=lambda part: 0)),
        Mistake("the norm before attention is missing", gives=_doing(attn_bare=True)),
        Mistake(
            "the norm before gate and experts is missing", gives=_doing(ffn_bare=True)
        ),
        Mistake("the norms' gains are missing", gives=_doing(norm=_no_gain)),
        Mistake(
            "the norm takes no mean away: it divides by the root mean square alone",
            gives=_doing(norm=_with_mean),
        ),
        Mistake(
            "both norms have the same gain: the second one is ffn_norm",
            gives=_doing(one_norm=True),
        ),
        Mistake(
            "attention's output was added to the normed copy: it goes to x itself",
            gives=_doing(from_copy=True),
        ),
        Mistake("x is not added to what attention returns", gives=_doing(no_x=True)),
        Mistake(
            "the experts' outputs were added to their own input u: they go to h",
            gives=_doing(from_u=True),
        ),
        Mistake("h is not added to what the experts return", gives=_doing(no_h=True)),
        Mistake(
            "the experts read the norm of x: they read that of h, after attention",
            gives=_doing(parallel=True),
        ),
        Mistake(
            "an expert's gate is a silu, not a sigmoid", gives=_doing(silu=_sigmoid)
        ),
        Mistake("the silu is missing", gives=_doing(silu=lambda z: z)),
        Mistake(
            "the silu is on the wrong product: it is on W1 u",
            gives=_doing(swapped=True),
        ),
        Mistake(
            "the mean square is each token's own, not that of all tokens together",
            gives=_doing(norm=_one_mean),
        ),
        Mistake("the 10^-6 under the root is missing", gives=_doing(norm=_with_eps(0))),
        Mistake(
            "under the root stands 10^-6, not 10^-5", gives=_doing(norm=_with_eps(1e-5))
        ),
        Mistake("the 10^-6 goes under the root", gives=_doing(norm=_eps_outside)),
        Mistake(
            "the numbers are nearly right: what about the 10^-6 under the root, and is "
            "everything float64?",
            when=_near,
        ),
    ),
    hint="take the example and print h, u, the scores, what each group is worth, who "
    "is chosen and the weights; the text has all of these numbers",
)
