"""Lesson 03, RoPE: the oracles turn pairs as complex numbers, in float64.

The lesson turns them with cosines and sines; the two share no formula but Euler's.
Exercises 03.2 and 03.5 ask for the same turning, so they share the mistakes. Exercise
03.4 is in `yarn.py`.
"""

import math
import operator

import numpy as np
import torch

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, array, tensor
from deepseek_mini.lesson.oracles.yarn import YARN, inverse_frequencies

LESSON = "03_rope"

# --- 03.1 -------------------------------------------------------------------------


def frequency_cases(rng):
    for head_dim in (8, 2, 128, 2 * int(rng.integers(3, 40))):
        theta = float(rng.integers(50, 200_000))
        yield Case((head_dim, theta), f"head_dim {head_dim}, theta {theta:g}")


FREQUENCIES = Exercise(
    id="03.1",
    title="The frequencies",
    signature="inverse_frequencies(head_dim, theta)",
    difficulty="one line",
    minutes=3,
    right=inverse_frequencies,
    cases=frequency_cases,
    mistakes=(
        Mistake(
            "there is one frequency for a pair of channels, not for a channel",
            when=lambda got, want, args: np.size(got) == args[0] != np.size(want),
        ),
        Mistake(
            "these frequencies rise from pair to pair; the first pair is the fastest",
            gives=lambda d, theta: theta ** (np.arange(0, d, 2) / d),
        ),
        Mistake(
            "the last pair is too fast: how far does the exponent run over all pairs?",
            gives=lambda d, theta: theta ** (-np.arange(d // 2) / d),
        ),
        Mistake(
            "the frequencies fall too quickly: the exponent counts channels and "
            "divides by the number of pairs",
            gives=lambda d, theta: theta ** (-np.arange(0, d, 2) / (d // 2)),
        ),
        Mistake(
            "the first pair turns by exactly 1 radian per position, whatever theta is",
            gives=lambda d, theta: theta ** (-np.arange(2, d + 2, 2) / d),
        ),
        Mistake(
            "these are wavelengths (in positions), not angles per position",
            gives=lambda d, theta: 2 * np.pi * theta ** (np.arange(0, d, 2) / d),
        ),
    ),
    hint="compare with a loop over the pairs i that computes theta ** (-2 * i / d)",
)

# --- 03.2 -------------------------------------------------------------------------


def rotate_interleaved(x, positions, theta, *, turn=1.0, shift=0.0, first=0.0):
    """The oracle; the keywords make the known mistakes."""
    half = x.shape[-1] // 2
    freqs = np.exp(-math.log(theta) * (np.arange(half) + first) / half)
    angles = np.multiply.outer(np.asarray(positions, dtype=float) + shift, freqs)
    pairs = x[..., 0::2] + 1j * x[..., 1::2]
    turned = pairs * np.exp(1j * turn * angles)
    return np.stack((turned.real, turned.imag), axis=-1).reshape(x.shape)


def _half_split(x, positions, theta):
    order = np.arange(x.shape[-1]).reshape(2, -1).T.ravel()
    turned = np.empty_like(x)
    turned[..., order] = rotate_interleaved(x[..., order], positions, theta)
    return turned


def _overwritten(x, positions, theta):
    """The second channel computed from the first one's new value."""
    right = rotate_interleaved(x, positions, theta)
    new_first = x.copy()
    new_first[..., 0::2] = right[..., 0::2]
    right[..., 1::2] = rotate_interleaved(new_first, positions, theta)[..., 1::2]
    return right


def _halves_apart(x, positions, theta):
    """Interleaved pairs turned rightly, then left as two halves."""
    right = rotate_interleaved(x, positions, theta)
    return np.concatenate((right[..., 0::2], right[..., 1::2]), axis=-1)


def _tiled(x, positions, theta):
    """Frequencies f0 f1 .. f0 f1 .. over the channels, instead of f0 f0 f1 f1 ..."""
    freqs = inverse_frequencies(x.shape[-1], theta)
    angles = np.multiply.outer(positions, np.tile(freqs, 2))
    partner = np.empty_like(x)
    partner[..., 0::2], partner[..., 1::2] = -x[..., 1::2], x[..., 0::2]
    return x * np.cos(angles) + partner * np.sin(angles)


def _rows_in_order(x, positions, theta):
    order = np.argsort(positions)
    return rotate_interleaved(x[order], positions[order], theta)


def _rotating(**mistake):
    return lambda x, p, t: rotate_interleaved(x, p, t, **mistake)


TURNING_MISTAKES = (
    (
        "channel i is paired with channel i + d/2; that is the half-split layout, "
        "and interleaved pairs are neighbours",
        _half_split,
    ),
    (
        "every pair turns the wrong way round: look at the signs of the sines",
        _rotating(turn=-1.0),
    ),
    (
        "the frequencies are those of the next pair: the first pair turns by 1 "
        "radian per position",
        _rotating(first=1.0),
    ),
    (
        "the slow pairs turn too fast: how far does the exponent run over all pairs?",
        lambda x, p, t: rotate_interleaved(x, p, t**0.5),
    ),
    (
        "the base is always 10,000: use the theta that is given",
        lambda x, p, t: rotate_interleaved(x, p, 10_000.0),
    ),
    (
        "the two channels of a pair are turned by different angles: the frequencies "
        "of the channels should go f0, f0, f1, f1, ... not f0, f1, ..., f0, f1, ...",
        _tiled,
    ),
    (
        "the second channel of a pair is computed from the new value of the first",
        _overwritten,
    ),
    (
        "the pairs are turned rightly, but come back as two halves: each result "
        "belongs where its channel was",
        _halves_apart,
    ),
    ("nothing was turned: the result is the input", lambda x, p, t: x),
)


def rotation_cases(rng):
    for n, head_dim, strided, label in (
        (7, 8, False, "positions in no order"),
        (1, 6, False, "a single token"),
        (5, 2, False, "a single pair"),
        (9, 12, True, "an array that is not contiguous"),
    ):
        positions = rng.choice(np.arange(1, 500), size=n, replace=False)
        theta = float(rng.integers(100, 9_000))
        x = array(rng, n, head_dim, strided=strided)
        said = f"{label}: x [{n}, {head_dim}], theta {theta:g}"
        yield Case((x, positions, theta), said, tolerance=1e-8)


ROTATION = Exercise(
    id="03.2",
    title="Turn the pairs",
    signature="rotate_interleaved(x, positions, theta)",
    difficulty="a few lines",
    minutes=10,
    right=rotate_interleaved,
    cases=rotation_cases,
    mistakes=(
        *(Mistake(hint, gives=wrong) for hint, wrong in TURNING_MISTAKES),
        Mistake(
            "everything is turned one position too far: position 0 does not turn",
            gives=_rotating(shift=1.0),
        ),
        Mistake(
            "the rows are turned by 0, 1, 2 ...: use the positions that are given",
            gives=lambda x, p, t: rotate_interleaved(x, np.arange(len(x)), t),
        ),
        Mistake(
            "the rows come back sorted by position: row t belongs to token t",
            gives=_rows_in_order,
        ),
        Mistake(
            "the positions are sorted, the rows are not: row t of x is the token at "
            "positions[t]",
            gives=lambda x, p, t: rotate_interleaved(x, np.sort(p), t),
        ),
    ),
    hint="print the angles [T, d/2]: row t should hold positions[t] * theta ** "
    "(-2 * i / d) for i = 0 ... d/2 - 1; if they are right, work one pair by hand",
)

# --- 03.3 -------------------------------------------------------------------------


def to_half_split(weight, n_heads):
    head_dim = weight.shape[0] // n_heads
    rows = []
    for head in range(n_heads):
        start = head * head_dim
        rows += [start + 2 * i for i in range(head_dim // 2)]
        rows += [start + 2 * i + 1 for i in range(head_dim // 2)]
    return weight[rows]


def _to_interleaved(weight, n_heads):
    head_dim = weight.shape[0] // n_heads
    rows = []
    for head in range(n_heads):
        for i in range(head_dim // 2):
            rows += [head * head_dim + i, head * head_dim + head_dim // 2 + i]
    return weight[rows]


def _partners_swapped(weight):
    return weight.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


def _only_columns_moved(got, want, args):
    before = args[0]
    if not isinstance(got, torch.Tensor) or got.shape != before.shape:
        return False
    same_rows = torch.equal(got.sort(dim=1).values, before.sort(dim=1).values)
    return same_rows and not torch.equal(got, before)


def weight_cases(rng):
    for n_heads, head_dim, dim, strided, label in (
        (3, 8, 5, False, "three heads"),
        (1, 6, 7, False, "one head"),
        (4, 6, 24, True, "a weight that is not contiguous"),
        (2, 10, 3, False, "pairs in odd number"),
    ):
        weight = tensor(
            rng, n_heads * head_dim, dim, dtype=torch.float32, strided=strided
        )
        said = f"{label}: weight {list(weight.shape)}, n_heads {n_heads}"
        yield Case((weight, n_heads), said, tolerance=0.0)


WEIGHTS = Exercise(
    id="03.3",
    title="From one layout to the other",
    signature="to_half_split(weight, n_heads)",
    difficulty="some thought",
    minutes=15,
    right=to_half_split,
    cases=weight_cases,
    mistakes=(
        Mistake(
            "this is the way back, from half-split to interleaved: where must the "
            "partner of row 0, now row 1, end up?",
            gives=_to_interleaved,
        ),
        Mistake(
            "rows have left their head: each head keeps its own head_dim rows",
            gives=lambda w, n_heads: to_half_split(w, 1),
        ),
        Mistake(
            "rows have left their head: each head keeps its own head_dim rows",
            gives=lambda w, n_heads: _to_interleaved(w, 1),
        ),
        Mistake(
            "the weight came back as it was: the two layouts pair different rows",
            gives=lambda w, n_heads: w,
        ),
        Mistake(
            "the columns were moved; a head's channels are the rows of the weight",
            when=_only_columns_moved,
        ),
        Mistake(
            "the second channels of the pairs come first; the first ones should",
            gives=lambda w, n_heads: to_half_split(_partners_swapped(w), n_heads),
        ),
        Mistake(
            "the rows are still apart, by head, half or pair; make one axis of them",
            when=lambda got, want, args: (
                isinstance(got, torch.Tensor)
                and got.ndim > want.ndim
                and got.numel() == want.numel()
            ),
        ),
    ),
    hint="let row r of the weight hold the number r and print the result: for every "
    "head, pair i should have its two old rows at i and i + d/2 of that head",
)

# --- 03.5 -------------------------------------------------------------------------


def apply_rope_cached(q, cache_length, theta):
    return _each_head(rotate_interleaved)(q, cache_length, theta)


def _each_head(rotate):
    """A function of exercise 03.2, right or wrong, for every head of q [B, T, H, d]."""

    def rotated(q, cache_length, theta):
        positions = np.arange(q.shape[1]) + cache_length
        turned = torch.empty_like(q)
        for b in range(q.shape[0]):
            for h in range(q.shape[2]):
                x = q[b, :, h].double().numpy()
                turned[b, :, h] = torch.from_numpy(rotate(x, positions, theta))
        return turned

    return rotated


def _heads_turned(q, cache_length, theta):
    turned = apply_rope_cached(q.transpose(1, 2), cache_length, theta)
    return turned.transpose(1, 2)


def _dtype_is(relation):
    """Whether all is right but the dtype, which is wider or narrower than wanted."""

    def when(got, want, args):
        if not isinstance(got, torch.Tensor) or got.shape != want.shape:
            return False
        return relation(got.dtype.itemsize, want.dtype.itemsize)

    return when


def cached_cases(rng):
    for batch, n, heads, dtype, strided, longest, label in (
        (2, 5, 3, torch.float64, False, 60, "five new tokens"),
        (1, 1, 2, torch.float32, False, 60, "a batch of one and a single new token"),
        (3, 2, 1, torch.float32, False, 60, "one head"),
        (2, 4, 2, torch.float32, False, 0, "an empty cache"),
        (2, 3, 3, torch.float64, True, 60, "a tensor that is not contiguous"),
        (1, 4, 2, torch.bfloat16, False, 60, "bfloat16"),
        (1, 4, 2, torch.bfloat16, False, 4000, "bfloat16 after a long text"),
    ):
        q = tensor(rng, batch, n, heads, 8, dtype=dtype, strided=strided)
        length = int(rng.integers(longest // 2, longest + 1))
        tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-4
        theta = float(rng.integers(500, 9_000))
        dtype = str(dtype).removeprefix("torch.")
        said = f"{label}: q {dtype} {list(q.shape)}, {length} cached, theta {theta:g}"
        yield Case((q, length, theta), said, tolerance)


CACHED = Exercise(
    id="03.5",
    title="Go on where the cache ends",
    signature="apply_rope_cached(q, cache_length, theta)",
    difficulty="a few lines",
    minutes=10,
    right=apply_rope_cached,
    cases=cached_cases,
    mistakes=(
        Mistake(
            "the new tokens are turned as if the cache were empty",
            gives=_each_head(lambda x, p, t: rotate_interleaved(x, p - p[0], t)),
        ),
        Mistake(
            "the positions are one too small: what is the position of the first token "
            "after n cached ones, when the very first token is at 0?",
            gives=_each_head(_rotating(shift=-1.0)),
        ),
        Mistake(
            "the positions are one too large: what is the position of the first token "
            "after n cached ones, when the very first token is at 0?",
            gives=_each_head(_rotating(shift=1.0)),
        ),
        Mistake(
            "all new tokens are turned by the same angle; each has its own position",
            gives=_each_head(lambda x, p, t: rotate_interleaved(x, 0 * p + p[0], t)),
        ),
        Mistake(
            "the heads are turned, not the tokens: along which axis do positions run?",
            gives=_heads_turned,
        ),
        *(Mistake(hint, gives=_each_head(wrong)) for hint, wrong in TURNING_MISTAKES),
        Mistake(
            "the pairs are turned, but still on an axis of their own: give them back "
            "as channels",
            when=lambda got, want, args: (
                tuple(np.shape(got)) == (*want.shape[:-1], want.shape[-1] // 2, 2)
            ),
        ),
        Mistake(
            "something wider than q, the table of angles perhaps, promotes it: give "
            "back q's dtype",
            when=_dtype_is(operator.gt),
        ),
        Mistake(
            "q was cast to a narrower dtype and not back: give back q's dtype",
            when=_dtype_is(operator.lt),
        ),
        Mistake(
            "bfloat16 keeps 8 binary digits, too few for angles and for positions "
            "above 256: compute them in a wider dtype, and cast only the result",
            when=lambda got, want, args: (
                got.dtype == want.dtype == torch.bfloat16 and got.shape == want.shape
            ),
        ),
    ),
    hint="print the positions of the new tokens and the angles [T, d/2]; if they are "
    "right, work one pair of one head by hand",
)

EXERCISES = (FREQUENCIES, ROTATION, WEIGHTS, YARN, CACHED)
