"""Exercise 04.5: the oracle counts one layer, sequence and head at a time."""

import math

from deepseek_mini.config import GQA, Config, SwiGLU
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


def decode_intensity(
    config,
    weights,
    context,
    batch_size,
    *,
    per_weight=2,
    per_score=4,
    cached_heads="n_kv_heads",
    asking_heads="n_heads",
    per_token=2,
    bytes_each=2,
    caches=None,
    copies=1,
    layers=None,
):
    """The oracle, one layer, sequence and head at a time; keywords make mistakes."""
    part = config.attention
    operations = fetched = 0
    layers = config.n_layers if layers is None else layers
    for _ in range(layers):
        for _ in range(getattr(part, asking_heads)):
            operations += per_score * part.head_dim * context * batch_size
        for _ in range(getattr(part, cached_heads)):
            n_caches = batch_size if caches is None else caches
            fetched += per_token * part.head_dim * context * n_caches
    operations += per_weight * weights * batch_size
    copies = batch_size if copies == "each" else copies
    return operations / (bytes_each * (fetched + copies * weights))


def _deciding(**mistake):
    return lambda *args: decode_intensity(*args, **mistake)


def intensity_cases(rng):
    for layers, groups, share, batch, label in (
        (3, 2, 4, 5, "grouped heads"),
        (2, 4, 1, 1, "multi-head, one sequence"),
        (4, 1, 6, 3, "multi-query"),
        (5, 3, 2, 40, "many sequences"),
    ):
        head_dim = 2 * int(rng.integers(4, 20))
        config = Config(
            vocab_size=100,
            dim=64,
            n_layers=layers,
            max_seq_len=8192,
            attention=GQA(groups * share, groups, head_dim),
            dense=SwiGLU(64),
        )
        weights, context = int(rng.integers(10**4, 10**5)), int(rng.integers(50, 500))
        said = f"{label}: weights {weights}, context {context}, batch_size {batch}"
        yield Case((config, weights, context, batch), said, tolerance=1e-9)


INTENSITY = Exercise(
    id="04.5",
    title="Operations per byte of a decode step",
    signature="decode_intensity(config, weights, context, batch_size)",
    difficulty="some thought",
    minutes=12,
    right=decode_intensity,
    cases=intensity_cases,
    mistakes=(
        Mistake(
            "the cache holds a key and a value for each key-value head, not for each "
            "query head",
            gives=_deciding(cached_heads="n_heads"),
        ),
        Mistake(
            "every query head works on every token of the context, whichever key it "
            "shares: count their operations by H",
            gives=_deciding(asking_heads="n_kv_heads"),
        ),
        Mistake(
            "the caches are fetched as if all sequences shared one",
            gives=_deciding(caches=1),
        ),
        Mistake(
            "the matrices are fetched once for the whole step, not once a sequence",
            gives=_deciding(copies="each"),
        ),
        Mistake(
            "a cached token has a key and a value; only one of them was counted",
            gives=_deciding(per_token=1),
        ),
        Mistake(
            "a weight takes part in a product and a sum: two operations",
            gives=_deciding(per_weight=1),
        ),
        Mistake(
            "half of attention's operations are missing: first the scores, then the "
            "weighted values",
            gives=_deciding(per_score=2),
        ),
        Mistake(
            "attention's own operations are missing",
            gives=_deciding(per_score=0),
        ),
        Mistake(
            "the cache is not among the bytes",
            gives=_deciding(per_token=0),
        ),
        Mistake(
            "a number has two bytes",
            gives=_deciding(bytes_each=1),
        ),
        Mistake(
            "attention and cache count n_layers times, the weights once: `weights` are "
            "those of all layers together",
            gives=_deciding(layers=1),
        ),
        Mistake(
            "the new token is among the `context` tokens already: add nothing",
            gives=lambda config, weights, context, batch_size: decode_intensity(
                config, weights, context + 1, batch_size
            ),
        ),
        Mistake(
            "the quotient is cut to a whole number: // leaves the rest away",
            gives=lambda *args: math.floor(decode_intensity(*args)),
        ),
        Mistake(
            "this is bytes per operation",
            gives=lambda *args: 1 / decode_intensity(*args),
        ),
        Mistake(
            "these are the operations of the step: divide by the bytes",
            when=lambda got, want, args: (
                abs(got - 2 * args[1] * args[3]) < 0.9 * got and got > 1000 * want
            ),
        ),
    ),
    hint="print operations and bytes, each split into weights and attention or cache, "
    "and compare the four numbers with those of a case by hand",
)
