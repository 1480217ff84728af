"""Exercises 13.2 and 13.4: the oracles go tile by tile and element by element."""

import numpy as np
import torch

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake

# --- 13.2 -------------------------------------------------------------------------


def tile_scales(
    x, size, *, of=lambda tile: tile.abs().max(), over=lambda amax: amax / 448
):
    """The oracle, tile by tile; the keywords make the known mistakes."""
    rows = []
    for row in x:
        amaxes = [of(row[i : i + size]) for i in range(0, len(row), size)]
        rows.append([float(over(a)) if a != 0 else 1.0 for a in amaxes])
    return torch.tensor(rows, dtype=x.dtype)


def _zeros_alone(got, want, args):
    """Only the scales of tiles of zeros, which alone are exactly 1, are wrong."""
    return (
        tuple(np.shape(got)) == tuple(want.shape)
        and torch.allclose(got[want != 1], want[want != 1])
        and not torch.allclose(got, want)
    )


def scale_cases(rng):
    for T, D, size, zero, strided, label in (
        (5, 32, 8, False, False, "whole tiles"),
        (1, 20, 8, False, False, "one token, a last tile of four"),
        (4, 6, 16, False, False, "a row shorter than a tile"),
        (3, 21, 4, True, False, "a tile of zeros"),
        (6, 24, 8, False, True, "a tensor that is not contiguous"),
    ):
        values = rng.normal(size=(T, D)) * np.exp(rng.normal(size=(T, D)))
        values[:, rng.integers(D)] = -9 - rng.random(T)  # the largest is negative
        if zero:
            values[T // 2, size : 2 * size] = 0
        x = torch.from_numpy(values.astype(np.float32))
        x = x.T.contiguous().T if strided else x
        yield Case((x, size), f"{label}: x {list(x.shape)}, size {size}")


SCALES = Exercise(
    id="13.2",
    title="The scales of tiles",
    signature="tile_scales(x, size)",
    difficulty="a few lines",
    minutes=10,
    right=tile_scales,
    cases=scale_cases,
    mistakes=(
        Mistake(
            "this is one scale for the tensor, or for a row: every tile has its own",
            when=lambda got, want, args: (
                isinstance(got, torch.Tensor)
                and got.numel() in (1, len(want))
                and got.numel() < want.numel()
            ),
        ),
        Mistake(
            "the tiles of a row all have the row's scale",
            gives=lambda x, size: (
                x.abs().amax(1, keepdim=True).expand(-1, -(-x.shape[1] // size)) / 448
            ),
        ),
        Mistake(
            "all tiles have the scale of the tensor",
            gives=lambda x, size: (
                x.abs().max().expand(len(x), -(-x.shape[1] // size)) / 448
            ),
        ),
        Mistake(
            "the sign is taken along: -9 needs more room than 3",
            gives=lambda x, size: tile_scales(x, size, of=lambda tile: tile.max()),
        ),
        Mistake(
            "this is what the numbers are multiplied by when they are stored; "
            "scale_inv undoes that",
            gives=lambda x, size: tile_scales(x, size, over=lambda amax: 448 / amax),
        ),
        Mistake(
            "the amax of a tile is not divided by the largest number of the format",
            gives=lambda x, size: tile_scales(x, size, over=lambda amax: amax),
        ),
        Mistake(
            "a mean or a norm says nothing about the largest number of a tile",
            gives=lambda x, size: tile_scales(
                x, size, of=lambda tile: tile.abs().mean()
            ),
        ),
        Mistake(
            "the last tile is missing: a row may end before a tile is full",
            gives=lambda x, size: tile_scales(x[:, : x.shape[1] // size * size], size),
        ),
        Mistake(
            "a tile of zeros has the scale 0, and 0 / 0 is NaN: let it be 1",
            when=lambda got, want, args: (
                tuple(np.shape(got)) == tuple(want.shape) and bool((got == 0).any())
            ),
        ),
        Mistake(
            "for a tile of zeros the scale itself is 1, whatever is put in place of "
            "its largest absolute value",
            when=_zeros_alone,
        ),
        Mistake(
            "the tiles lie along the tokens: a tile is one row, `size` channels",
            when=lambda got, want, args: (
                tuple(np.shape(got))
                == (-(-len(args[0]) // args[1]), args[0].shape[1])
                != tuple(want.shape)
            ),
        ),
    ),
    hint="write down the numbers of the tile of the first element that differs, and "
    "find the largest absolute value by eye",
)

# --- 13.4 -------------------------------------------------------------------------


def _spread(scales, size, M, N):
    """The scale of every element."""
    return np.array(
        [[scales[i // size, j // size] for j in range(N)] for i in range(M)]
    )


def dequantise(values, scale_inv, size, *, spread=_spread, divide=False):
    """The oracle; the keywords make the known mistakes."""
    numbers = values.double().numpy()
    scales = spread(scale_inv.double().numpy(), size, *numbers.shape)
    out = numbers / scales if divide else numbers * scales
    return torch.from_numpy(out).float()


def _transposed(scales, size, M, N):
    return _spread(scales.T, size, M, N)


def _repeated(scales, size, M, N):
    """repeat in place of repeat_interleave: element [i, j] has the scale of i mod m."""
    m, n = scales.shape
    return scales[np.arange(M)[:, None] % m, np.arange(N) % n]


def dequantise_cases(rng):
    for M, N, size, label in (
        (16, 24, 8, "whole blocks"),
        (8, 8, 4, "a square matrix"),
        (11, 18, 4, "blocks that are not full"),
        (1, 9, 4, "one row"),
        (5, 3, 8, "a matrix smaller than a block"),
    ):
        m, n = -(-M // size), -(-N // size)
        values = torch.from_numpy(rng.normal(size=(M, N)) * 60).clamp(-448, 448)
        values = values.to(torch.float8_e4m3fn)
        scales = torch.from_numpy(np.exp(rng.normal(size=(m, n)))).float()
        said = f"{label}: values [{M}, {N}], scale_inv [{m}, {n}], size {size}"
        yield Case((values, scales, size), said, tolerance=1e-6)


DEQUANTISE = Exercise(
    id="13.4",
    title="Reading a released matrix",
    signature="dequantise(values, scale_inv, size)",
    difficulty="some thought",
    minutes=12,
    right=dequantise,
    cases=dequantise_cases,
    mistakes=(
        Mistake(
            "the numbers are divided by scale_inv, which is already the inverse",
            gives=lambda v, s, size: dequantise(v, s, size, divide=True),
        ),
        Mistake(
            "rows and columns of the scales have changed places",
            gives=lambda v, s, size: dequantise(v, s, size, spread=_transposed),
        ),
        Mistake(
            "the scales come round again and again: neighbours in a block share one",
            gives=lambda v, s, size: dequantise(v, s, size, spread=_repeated),
        ),
        Mistake(
            "the scales have not been applied",
            gives=lambda v, s, size: v.float(),
        ),
        Mistake(
            "the scale is applied twice",
            gives=lambda v, s, size: dequantise(v, s * s, size),
        ),
        Mistake(
            "the whole matrix has the scale of its first block",
            gives=lambda v, s, size: v.float() * s[0, 0],
        ),
        Mistake(
            "the product was rounded to eight bits again: turn the bytes into float32 "
            "before the product",
            when=lambda got, want, args: (
                getattr(got, "dtype", None) == torch.float8_e4m3fn
            ),
        ),
        Mistake(
            "eight-bit numbers cannot be multiplied: values.float() first",
            raises="Float8|float8",
        ),
        Mistake(  # spread to [12, 20], for the matrix [11, 18]
            "the last blocks are cut off by the edge: cut the spread scales to [M, N]",
            raises=r"\((11|12|18|20)\) must match the size of tensor",
        ),
        Mistake(
            "every number needs the scale of its block: spread the scales first",
            raises="must match the size of tensor",
        ),
        Mistake(
            "the filling is still there: a block at the edge may be smaller",
            when=lambda got, want, args: (
                len(np.shape(got)) == 2
                and all(g >= w for g, w in zip(np.shape(got), want.shape))
                and tuple(np.shape(got)) != tuple(want.shape)
            ),
        ),
    ),
    hint="element [i, j] belongs to block [i // size, j // size]: compute the first "
    "one that differs by hand",
)
