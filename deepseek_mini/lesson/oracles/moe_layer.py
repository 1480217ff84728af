"""Exercise 08.4, the whole MoE layer: the oracle takes one token and one expert at a
time, in float64. The inputs are float32; a result in another dtype passes as well.
"""

import math

import numpy as np
import torch
from torch.nn import functional as F

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, tensor
from deepseek_mini.lesson.oracles.returned import wrong_product


def _silu(z):
    return z / (1 + torch.exp(-z))


def _ffn(x, w1, w2, w3, gate=_silu):
    return w2 @ (gate(w1 @ x) * (w3 @ x))


def moe_layer(u, centroids, w1, w2, w3, shared, K, **mistake):
    """The oracle; the keywords make the known mistakes."""
    wide = [x.double() for x in (u, centroids, w1, w2, w3)]
    rows, centroids, w1, w2, w3 = wide
    shared, out = [x.double() for x in shared], torch.zeros_like(rows)
    ffn, by_shared = mistake.get("ffn", _ffn), mistake.get("by_shared", lambda y, w: y)
    shared_ffn = mistake.get("shared_ffn", ffn)
    affinity, inside = mistake.get("affinity"), mistake.get("inside")
    for t, x in enumerate(rows):
        products = [float(torch.dot(e, x)) for e in centroids]
        top = max(products)
        powers = [math.exp(p - top) for p in products]
        scores = [p / math.fsum(powers) for p in powers]
        if affinity:
            scores = [affinity(p) for p in products]
        best = sorted(range(len(scores)), key=scores.__getitem__)[-K:]
        weights = mistake.get("weights", lambda s, best: [s[i] for i in best])
        for i, g in zip(mistake.get("who", lambda b: b)(best), weights(scores, best)):
            y = ffn(g * x if inside else x, w1[i], w2[i], w3[i])
            out[t] += y if inside else g * y
        out[t] += by_shared(shared_ffn(x, *shared), [scores[i] for i in best])
        out[t] += mistake.get("residual", 0) * x
    return out.to(u.dtype)


def _falling(scores, best):
    return sorted((scores[i] for i in best), reverse=True)


def _divided(scores, best):
    return [scores[i] / sum(scores[j] for j in best) for i in best]


def _laying(**mistake):
    return lambda *args: moe_layer(*args, **mistake)


def _swapped(x, w1, w2, w3):
    return _ffn(x, w3, w2, w1)


def _places_for_experts(u, centroids, w1, w2, w3, shared, K):
    """Token t's k-th choice is sent to expert k."""
    weights, _ = (u @ centroids.T).softmax(-1).topk(K)
    out = torch.stack([_ffn(x, *shared) for x in u])
    for t, x in enumerate(u):
        for k in range(K):
            out[t] += weights[t, k] * _ffn(x, w1[k], w2[k], w3[k])
    return out


def _one_choice(u, centroids, w1, w2, w3, shared, K):
    """Every token goes to the experts of the first, with its own scores."""
    scores = (u @ centroids.T).softmax(-1)
    out = torch.stack([_ffn(x, *shared) for x in u])
    for i in scores[0].topk(K).indices:
        for t, x in enumerate(u):
            out[t] += scores[t, i] * _ffn(x, w1[i], w2[i], w3[i])
    return out


def _over_tokens(u, centroids, w1, w2, w3, shared, K):
    weights, chosen = (u @ centroids.T).softmax(0).topk(K)
    out = torch.stack([_ffn(x, *shared) for x in u])
    for t, x in enumerate(u):
        for i, g in zip(chosen[t], weights[t]):
            out[t] += g * _ffn(x, w1[i], w2[i], w3[i])
    return out


def layer_cases(rng):
    for N, D, E, width, J, K, strided, label in (
        (6, 5, 4, 3, 7, 2, False, "two of four experts"),
        (1, 4, 6, 2, 3, 3, False, "one token, so that experts are idle"),
        (7, 6, 5, 4, 4, 1, False, "one expert for a token"),
        (5, 4, 3, 6, 2, 3, False, "all experts for a token"),
        (9, 6, 7, 3, 5, 4, True, "tensors that are not contiguous"),
    ):

        def draw(*shape, scale=1.0):
            made = tensor(rng, *shape, dtype=torch.float32, strided=strided)  # noqa: B023
            return made * scale

        u, centroids = draw(N, D), draw(E, D, scale=0.7)
        w1, w2, w3 = draw(E, width, D), draw(E, D, width), draw(E, width, D)
        shared = (draw(J, D), draw(D, J), draw(J, D))
        said = f"{label}: u [{N}, {D}], w1 [{E}, {width}, {D}], K = {K}"
        yield Case((u, centroids, w1, w2, w3, shared, K), said)


LAYER = Exercise(
    id="08.4",
    title="The layer",
    signature="moe_layer(u, centroids, w1, w2, w3, shared, K)",
    difficulty="from the paper",
    minutes=20,
    right=moe_layer,
    cases=layer_cases,
    exact_dtype=False,
    mistakes=(
        Mistake(
            "the weights of a token's experts add up to 1: they are the chosen scores "
            "as they are, out of a softmax over all experts",
            gives=_laying(
                weights=lambda s, b: [s[i] / sum(s[j] for j in b) for i in b]
            ),
        ),
        Mistake(
            "the shared expert is missing: every token goes through it as well",
            gives=_laying(by_shared=lambda y, w: 0 * y),
        ),
        Mistake(
            "the shared expert is weighed by the gate: its weight is 1, whatever the "
            "scores are",
            gives=_laying(by_shared=lambda y, w: sum(w) * y),
        ),
        Mistake(
            "the shared expert is weighed by the gate: its weight is 1, whatever the "
            "scores are",
            gives=_laying(by_shared=lambda y, w: max(w) * y),
        ),
        Mistake(
            "the shared expert takes what the routed ones leave to 1: its weight is 1, "
            "whatever the scores are",
            gives=_laying(by_shared=lambda y, w: (1 - sum(w)) * y),
        ),
        Mistake(
            "the routed experts' outputs are added up without weights",
            gives=_laying(weights=lambda s, b: [1.0] * len(b)),
        ),
        Mistake(
            "every expert takes part: only the K best of each token should",
            gives=lambda *args: moe_layer(*args[:-1], len(args[1])),
        ),
        Mistake(
            "only each token's best expert takes part: it has K of them",
            gives=lambda *args: moe_layer(*args[:-1], 1),
        ),
        Mistake(
            "experts and weights are paired wrongly: the k-th weight belongs to the "
            "k-th chosen expert of that token",
            gives=_laying(
                who=sorted, weights=lambda s, b: sorted(s[i] for i in b)[::-1]
            ),
        ),
        Mistake(
            "the numbers of the chosen experts are not used: the first K experts "
            "answer every token",
            gives=_places_for_experts,
        ),
        Mistake(
            "the gate's softmax runs over the tokens, not over the experts",
            gives=_over_tokens,
        ),
        Mistake(
            "all tokens go to the experts of the first: each has a choice of its own",
            gives=_one_choice,
        ),
        Mistake(
            "the gate's scores are sigmoids, one expert by itself: a softmax makes the "
            "experts compete",
            gives=_laying(affinity=lambda p: 1 / (1 + math.exp(-p))),
        ),
        Mistake(
            "the weight is multiplied into an expert's input: it belongs to the output",
            gives=_laying(inside=True),
        ),
        Mistake(
            "the shared expert is counted with a factor: its weight is 1",
            gives=_laying(by_shared=lambda y, w: y / 2),
        ),
        Mistake(
            "silu is on the wrong branch: it belongs to W1", gives=_laying(ffn=_swapped)
        ),
        Mistake(
            "silu is on the wrong branch of the routed experts: it belongs to W1",
            gives=_laying(ffn=_swapped, shared_ffn=_ffn),
        ),
        Mistake(
            "silu is on the wrong branch of the shared expert: it belongs to W1",
            gives=_laying(shared_ffn=_swapped),
        ),
        wrong_product(
            "print the shapes of the two that are multiplied: a matrix has a row for "
            "each output, and which of the three leads back to D channels? `shared` "
            "has w1, w2, w3 in this order"
        ),
        Mistake(
            "the silu is missing",
            gives=_laying(ffn=lambda *a: _ffn(*a, gate=lambda z: z)),
        ),
        Mistake(
            "the gate of SwiGLU is a silu, not a sigmoid",
            gives=_laying(ffn=lambda *a: _ffn(*a, gate=torch.sigmoid)),
        ),
        Mistake(
            "the gate of SwiGLU is a silu, not a relu",
            gives=_laying(ffn=lambda *a: _ffn(*a, gate=F.relu)),
        ),
        Mistake(
            "the residual is added here: the block does that, not the layer",
            gives=_laying(residual=1),
        ),
        Mistake(
            "not a number: is every output set before something is added to it?",
            when=lambda got, *_: (
                isinstance(got, torch.Tensor)
                and got.is_floating_point()
                and bool(np.isnan(got.detach().double().numpy()).any())
            ),
        ),
    ),
    hint="take one token: compute the shared expert alone, then add one chosen expert "
    "at a time, and see which step differs from what you expect",
)
