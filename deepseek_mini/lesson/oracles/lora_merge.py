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
    for E, n_out, n_in, r, dtype, label in (
        (3, 6, 4, 2, torch.float32, "three experts"),
        (4, 5, 5, 3, torch.float64, "square matrices"),
        (1, 7, 3, 1, torch.float32, "one expert, rank 1"),
        (2, 2, 2, 2, torch.float64, "every side as long as the rank"),
    ):
        shapes = ((E, n_out, n_in), (E, r, n_in), (E, n_out, r))
        parts = [tensor(rng, *shape, dtype=dtype) for shape in shapes]
        yield Case((*parts, float(rng.uniform(0.5, 3))), label)


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
    ),
    hint="take one expert: the shapes of a and b allow one product with the shape of "
    "its weight",
)
