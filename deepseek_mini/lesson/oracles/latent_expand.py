"""Exercise 09.2, compress and expand: its oracle goes token by token, head by head."""

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, array


def compress_expand(x, wkv_a, norm, wkv_b, n_heads, nope_dim, **wrong):
    """The oracle, token by token and head by head; keywords make known mistakes."""
    H, n, v = n_heads, nope_dim, len(wkv_b) // n_heads - nope_dim
    raw = np.stack([[float(row @ token) for row in wkv_a] for token in x])
    latents = np.stack([_rms(row, norm, **wrong) for row in raw])
    if "axis" in wrong:
        latents = raw / np.sqrt((raw**2).mean(axis=wrong["axis"]) + 1e-6) * norm
    source = raw if wrong.get("raw_inside") else latents
    k, v_out = np.empty((len(x), H, n)), np.empty((len(x), H, v))
    for h in range(H):
        rows = np.arange(h * (n + v), (h + 1) * (n + v))
        if wrong.get("parts_first"):
            keys, values = np.arange(h * n, (h + 1) * n), h * v + np.arange(v) + H * n
        elif wrong.get("heads_inside"):
            keys, values = h + H * np.arange(n), h + H * np.arange(n, n + v)
        elif wrong.get("values_first"):
            keys, values = rows[v:], rows[:v]
        else:
            keys, values = rows[:n], rows[n:]
        for t, latent in enumerate(source):
            k[t, h], v_out[t, h] = wkv_b[keys] @ latent, wkv_b[values] @ latent
    return (raw if wrong.get("raw_outside") else latents), k, v_out


def _rms(row, weight, none=False, plain=False, centred=False, size="root", **_):
    if none:
        return row
    if centred:
        row = row - row.mean()
    square, total = (row**2).mean(), (row**2).sum()
    size = {
        "root": np.sqrt(square + 1e-6),
        "length": np.sqrt(total),
        "length, eps": np.sqrt(total + 1e-6),
        "square": square + 1e-6,
        "eps outside": np.sqrt(square) + 1e-6,
        "no eps": np.sqrt(square),
    }[size]
    return row / size * (1 if plain else weight)


def _compressing(**wrong):
    return lambda *args: compress_expand(*args, **wrong)


def expand_cases(rng):
    for T, D, C, H, n, v, strided, label in (
        (5, 12, 6, 3, 4, 2, False, "values narrower than keys"),
        (1, 8, 5, 2, 3, 4, False, "one token"),
        (4, 9, 4, 1, 4, 4, False, "one head"),
        (4, 10, 4, 4, 3, 5, True, "arrays that are not contiguous"),
    ):
        args = (
            3 * array(rng, T, D, strided=strided),
            array(rng, C, D, strided=strided),
            1 + 0.3 * array(rng, C),
            array(rng, H * (n + v), C, strided=strided),
        )
        yield Case((*args, H, n), f"{label}: T = {T}, C = {C}, H = {H}, n = {n}")


EXPAND = Exercise(
    id="09.2",
    title="Compress and expand",
    signature="compress_expand(x, wkv_a, norm, wkv_b, n_heads, nope_dim)",
    difficulty="a few lines",
    minutes=12,
    right=compress_expand,
    cases=expand_cases,
    mistakes=(
        Mistake("the norm of the latent is missing", gives=_compressing(none=True)),
        Mistake(
            "the latent is divided by its root mean square, but not multiplied by the "
            "norm's weight",
            gives=_compressing(plain=True),
        ),
        Mistake(
            "this norm subtracts no mean: that would be LayerNorm",
            gives=_compressing(centred=True),
        ),
        *(
            Mistake(
                "the latent is divided by its length: the root of the sum of squares, "
                "where it should be that of their mean",
                gives=_compressing(size=size),
            )
            for size in ("length", "length, eps")
        ),
        Mistake(
            "the latent is divided by its mean square; the root is missing",
            gives=_compressing(size="square"),
        ),
        Mistake(
            "the mean square runs over the tokens: each token is normed by itself",
            gives=_compressing(axis=0),
        ),
        Mistake(
            "one mean square for all tokens: each token is normed by itself",
            gives=_compressing(axis=None),
        ),
        Mistake(
            "right but for the small number: it is added under the root",
            gives=_compressing(size="eps outside"),
        ),
        Mistake(
            "right but for the small number, 10^-6, which is missing in the norm",
            gives=_compressing(size="no eps"),
        ),
        Mistake(
            "keys and values were expanded from the latent before its norm",
            gives=_compressing(raw_inside=True),
        ),
        Mistake(
            "keys and values are right, but what is returned, and would be cached, is "
            "the latent before its norm",
            gives=_compressing(raw_outside=True),
        ),
        Mistake(
            "wkv_b was cut into all heads' keys and all heads' values; it holds the "
            "key rows and the value rows of head 0, then those of head 1, ...",
            gives=_compressing(parts_first=True),
        ),
        Mistake(
            "heads and channels have changed places: a head's rows in wkv_b are "
            "neighbours",
            gives=_compressing(heads_inside=True),
        ),
        Mistake(
            "the first rows of a head are taken for its value; they are its key's",
            gives=_compressing(values_first=True),
        ),
    ),
    hint="compare the latent first, which depends on x, wkv_a and norm only; then one "
    "head's key as a product of its rows of wkv_b with the latent",
)
