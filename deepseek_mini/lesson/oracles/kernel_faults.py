"""Faults that any kernel can have, and what is said about them."""

import torch

from deepseek_mini.lesson.oracles import Mistake


def same(wrong):
    """Whether a result is that of a wrong version, NaN where that has NaN."""

    def when(got, want, args):
        theirs = wrong(*args)
        return (
            isinstance(got, torch.Tensor)
            and got.shape == theirs.shape
            and torch.allclose(got, theirs, rtol=1e-3, atol=1e-5, equal_nan=True)
        )

    return when


def has_nan(got, want, args):
    return isinstance(got, torch.Tensor) and bool(got.isnan().any())


def faults(places, stored):
    """The faults that raise something; how the inputs' and out's places are counted."""
    return (
        Mistake(
            "a tile has all its lanes whether or not there are so many numbers: those "
            f"that have none need a mask when they load. Or the places are wrong: "
            f"{places}",
            raises="MemoryFault: .* loads element [^;]*but",
        ),
        Mistake(
            "two programs have the same work, or one of them reaches into the other's: "
            f"which places do the first two load and store? {stored}",
            raises="MemoryFault: .* another program",
        ),
        Mistake(
            "lanes for which there is no number must not store either: a store has a "
            f"mask too. Or the places are wrong: {stored}",
            raises="MemoryFault: .* stores element [^;]*but",
        ),
        Mistake(
            "which program, and which of its lanes, should store it? A mask that is "
            f"False there, or a last tile left out? {stored}",
            raises="MemoryFault: .* never stored",
        ),
        *COMMON,
    )


COMMON = (
    Mistake(
        "the caller still needs its inputs: the result belongs into out",
        raises="MemoryFault: the kernel stores into",
    ),
    Mistake(
        "a tensor comes as a pointer to its first number: numbers come by tl.load",
        raises="'int' object is not iterable|unsupported tensor index",
    ),
    Mistake(
        "the tensor's name alone is one place, that of its first number: x + i is a "
        "tile of places",
        raises="if pointer argument is not a block",
    ),
    Mistake(
        "the size of a tile must be known when the kernel is compiled: keep "
        "`tl.constexpr` in the parameters",
        raises="must be of type tl.constexpr|constexpr",
    ),
)
UNDEFINED = Mistake(
    "NaN came out: a masked lane holds anything (here NaN) unless the load has a third "
    "argument, tl.load(pointers, mask, other), and a sum takes all lanes",
    when=has_nan,
)
HOST_CODE = Mistake(
    "inside of a kernel there is triton.language alone, no torch and no NumPy",
    raises="(got an unexpected keyword argument|torch\\.|numpy|must be Tensor)",
)
