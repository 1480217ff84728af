"""Exercise 14.2, the bytes of a slice: the oracle collects the blocks row by row."""

import math

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


def slice_bytes(shapes, in_fp8, gpu, n_gpus):
    """The oracle: collects the blocks that the GPU's rows lie in."""
    return _bytes(shapes, in_fp8, gpu, n_gpus)


def _touched(rows, first, last):
    return len({row // 128 for row in range(first, last)})


def _across(columns):
    return len(range(0, columns, 128))


def _bytes(shapes, in_fp8, gpu, n_gpus, **m):
    """The oracle's work; keywords make the known mistakes."""
    total, across = 0, m.get("across", _across)
    scaled = m.get("scaled", lambda shape, in_fp8: in_fp8)
    for name, shape in shapes.items():
        numbers, quantised = math.prod(shape), name in in_fp8
        if quantised or (m.get("all_cut") and len(shape) == 2):
            numbers //= m.get("parts", lambda n: n)(n_gpus)
        total += (m.get("one", 1) if quantised else m.get("other", 2)) * numbers
        if not scaled(shape, quantised):
            continue
        rows, columns = shape
        height = rows // n_gpus
        down = m.get("down", _touched)(rows, gpu * height, (gpu + 1) * height)
        total += m.get("scale", 4) * m.get("blocks", lambda n, *_: n)(
            down * across(columns), height, columns
        )
    return total


def _storing(**mistake):
    return lambda *args: _bytes(*args, **mistake)


def _every_matrix(shapes, in_fp8, gpu, n_gpus):
    matrices = {n for n, s in shapes.items() if len(s) == 2 and s[0] % n_gpus == 0}
    return _bytes(shapes, matrices, gpu, n_gpus)


def _columns_cut(shapes, in_fp8, gpu, n_gpus):
    turned = {n: s[::-1] if n in in_fp8 else s for n, s in shapes.items()}
    return _bytes(turned, in_fp8, gpu, n_gpus)


def slice_cases(rng):
    def side():  # so large a rest that no two mistakes cut it into as many blocks
        return int(rng.choice((612, 732, 744)))

    yield Case(({"a": (400, side())}, frozenset("a"), 1, 4), "rows 100 to 199 of 400")
    yield Case(({"a": (768, 640)}, frozenset("a"), 1, 3), "whole blocks")
    yield Case(({"a": (900, side())}, frozenset("a"), 2, 3), "the last of three GPUs")
    yield Case(({"b": (60, 70), "c": (40,)}, frozenset(), 0, 2), "nothing in FP8")
    shapes = {
        f"{n}.weight": (6 * int(rng.integers(100, 120)), side())
        for n in ("q", "gate", "w1", "eh")
    }
    shapes |= {"q.norm": (side(),), "small": (6, 5), "gate.bias": (side(),)}
    some = frozenset(("q.weight", "w1.weight", "small"))
    yield Case((shapes, some, 4, 6), "a folder of seven, GPU 4 of 6")


SLICE = Exercise(
    id="14.2",
    title="The bytes of a slice",
    signature="slice_bytes(shapes, in_fp8, gpu, n_gpus)",
    difficulty="a few lines",
    minutes=12,
    right=slice_bytes,
    cases=slice_cases,
    mistakes=(
        Mistake(
            "blocks are cut from the top of the whole matrix, not of the slice: its "
            "rows may begin in the middle of a block",
            gives=_storing(down=lambda r, a, b: math.ceil((b - a) / 128)),
        ),
        Mistake(
            "a slice that ends where a block ends does not touch the next one",
            gives=_storing(down=lambda r, a, b: b // 128 - a // 128 + 1),
        ),
        Mistake(
            "the block of the slice's last row is missing",
            gives=_storing(down=lambda r, a, b: (b - 1) // 128 - a // 128),
        ),
        Mistake(
            "the slice's first or last block is missing: it needs the scale of a block "
            "also where it has only some of its rows",
            gives=_storing(down=lambda r, a, b: b // 128 - a // 128),
        ),
        Mistake(
            "all scales of the matrix were counted: the slice needs those of the "
            "blocks that it touches",
            gives=_storing(down=lambda r, a, b: math.ceil(r / 128)),
        ),
        Mistake(
            "GPUs are counted from 0",
            gives=lambda s, f, gpu, n: _bytes(s, f, gpu - 1, n),
        ),
        Mistake(
            "columns that are left over at the right have blocks, too",
            gives=_storing(across=lambda c: c // 128),
        ),
        Mistake(
            "a block too many where the columns are a multiple of 128",
            gives=_storing(across=lambda c: c // 128 + 1),
        ),
        Mistake("the columns were cut: a slice has whole rows", gives=_columns_cut),
        Mistake(
            "the numbers were divided by those of a block: blocks have two sides",
            gives=_storing(blocks=lambda n, r, c: math.ceil(r * c / 128**2)),
        ),
        Mistake(
            "a scale for each row of a block: here 128 rows share one",
            gives=_storing(down=lambda r, a, b: b - a),
        ),
        Mistake(
            "one scale for each matrix: it has one for each block",
            gives=_storing(blocks=lambda *_: 1),
        ),
        Mistake("the scales are missing", gives=_storing(scale=0)),
        Mistake("a scale is a float32: four bytes", gives=_storing(scale=1)),
        Mistake("a scale is a float32: four bytes", gives=_storing(scale=2)),
        Mistake("a number in FP8 has one byte", gives=_storing(one=2)),
        Mistake("what is not in FP8 takes two bytes a number", gives=_storing(other=1)),
        Mistake("what is not in FP8 takes two bytes a number", gives=_storing(other=4)),
        Mistake(
            "tensors that are not in FP8 are missing: every GPU has them, too",
            gives=_storing(other=0),
        ),
        Mistake(
            "matrices that are not in FP8 were cut: they lie whole on every GPU",
            gives=_storing(all_cut=True),
        ),
        Mistake(
            "matrices in FP8 were not cut: a GPU has its rows of them",
            gives=_storing(parts=lambda n: 1),
        ),
        Mistake(
            "only what is in FP8 has scales",
            gives=_storing(scaled=lambda shape, in_fp8: len(shape) == 2),
        ),
        Mistake(
            "every matrix was counted as FP8: only the names in in_fp8 are",
            gives=_every_matrix,
        ),
        Mistake(
            "it is the other way round: the names in in_fp8 are those in FP8",
            gives=lambda s, f, gpu, n: _bytes(
                s, {k for k in s if k not in f and len(s[k]) == 2}, gpu, n
            ),
        ),
        Mistake(
            "in_fp8 is the caller's, and cannot be changed: keep a set of your own",
            raises="'frozenset' object has no attribute",
        ),
        Mistake(
            "a tensor of one axis has no second side: is it in in_fp8 at all?",
            raises="IndexError|not enough values to unpack",
        ),
    ),
    hint="take the example's tensors one by one: print the slice's first and last row, "
    "the blocks that they lie in, the blocks across, and the bytes",
)
