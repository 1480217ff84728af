"""Exercise 16.3, merging LoRA: the oracle adds one rank after the other."""

import numpy as np
import torch

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, tensor


def merged(weight, a, b, scaling):
    """The oracle adds up outer products, in NumPy."""
    out = weight.double().numpy().copy()
    down, up = a.double().numpy(), b.double().numpy()
    for e in range(len(out)):
        for r in range(down.shape[1]):
            out[e] += scaling * np.outer(up[e, :, r], down[e, r])
    return torch.from_numpy(out).to(weight.dtype)


def merge_cases(rng):
    f32, f64 = torch.float32, torch.float64
    for E, n_out, n_in, r, dtype, low, high, label in (
        (3, 6, 4, 2, f32, 0.5, 3, "three experts"),
        (4, 5, 5, 3, f64, 1.1, 3, "square matrices"),
        (1, 7, 3, 1, f32, 0.1, 0.9, "one expert, rank 1, a scaling below 1"),
        (2, 2, 2, 2, f64, 0.5, 3, "every side as long as the rank"),
        (2, 3, 4, 2, f32, -3, -0.5, "a negative scaling"),
    ):
        shapes = ((E, n_out, n_in), (E, r, n_in), (E, n_out, r))
        parts = [tensor(rng, *shape, dtype=dtype) for shape in shapes]
        yield Case((*parts, float(rng.uniform(low, high))), label)


MERGE = Exercise(
    id="16.3",
    title="An adapter becomes a weight",
    signature="merged(weight, a, b, scaling)",
    difficulty="one line",
    minutes=5,
    right=merged,
    cases=merge_cases,
    mistakes=(
        Mistake(
            "the scaling is missing", gives=lambda w, a, b, s: merged(w, a, b, 1.0)
        ),
        Mistake(
            "the scaling was divided by the rank: here it is the factor itself",
            gives=lambda w, a, b, s: merged(w, a, b, s / a.shape[1]),
        ),
        Mistake(
            "this is the difference alone: the frozen weight is missing",
            gives=lambda w, a, b, s: merged(torch.zeros_like(w), a, b, s),
        ),
        Mistake(
            "the two are multiplied in the wrong order: a narrows, b widens again",
            gives=lambda w, a, b, s: w + s * (a @ b),
        ),
        Mistake(
            "the two are multiplied in the wrong order: a narrows, b widens again",
            raises=r"size|shape|must match",
        ),
        Mistake(
            "the weight was scaled as well: only the product is",
            gives=lambda w, a, b, s: merged(s * w, a, b, s),
        ),
        Mistake(
            "every expert was given the sum of all adapters: each has its own",
            gives=lambda w, a, b, s: w + s * (b @ a).sum(0),
        ),
        Mistake(
            "every expert was given the first one's adapter: each has its own",
            gives=lambda w, a, b, s: w + s * (b[0] @ a[0]),
        ),
        Mistake(
            "the difference is subtracted", gives=lambda w, a, b, s: w - s * (b @ a)
        ),
        *(
            Mistake(
                "the scaling may be any number, below 1 and below 0 too: take it as "
                "it is",
                gives=lambda w, a, b, s, bound=bound: merged(w, a, b, bound(s)),
            )
            for bound in (abs, lambda s: max(s, 1.0), lambda s: max(s, 0.0))
        ),
        Mistake(
            "the scaling lost what stands behind its point",
            gives=lambda w, a, b, s: merged(w, a, b, int(s)),
        ),
        Mistake(
            "right up to the precision of float32: the inputs are float64 here, and "
            "every step should be",
            when=lambda got, want, args: (
                want.dtype == torch.float64 and torch.allclose(got, want, 1e-5, 1e-5)
            ),
        ),
    ),
    hint="take one expert and one element of it: which numbers is it made of?",
)
