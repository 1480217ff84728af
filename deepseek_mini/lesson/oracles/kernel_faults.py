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


def _unwritten(got, want, args):
    """Whether something of the output was never stored: it held NaN."""
    return isinstance(got, torch.Tensor) and bool((got.isnan() & ~want.isnan()).any())


LOADS_OUTSIDE = Mistake(
    "a tile has BLOCK lanes whether or not there are so many numbers: those that have "
    "none need a mask when they load",
    raises="MemoryFault: .* loads element",
)
STORES_OUTSIDE = Mistake(
    "lanes for which there is no number must not store either: a store has a mask too",
    raises="MemoryFault: .* stores element [^;]*but",
)
MEETING = Mistake(
    "two programs have the same work, or one of them reaches into the other's: which "
    "places do the first two load and store?",
    raises="MemoryFault: .* another program",
)
INPUT_STORED = Mistake(
    "the caller still needs its inputs: the result belongs into out",
    raises="MemoryFault: the kernel stores into",
)
HOST_CODE = Mistake(
    "inside of a kernel there is triton.language alone, no torch and no NumPy",
    raises="(got an unexpected keyword argument|torch\\.|numpy|must be Tensor)",
)
POINTER = Mistake(
    "a tensor comes as a pointer to its first number: numbers come by tl.load",
    raises="'int' object is not iterable|unsupported tensor index",
)
NOT_CONSTANT = Mistake(
    "the size of a tile must be known when the kernel is compiled: keep "
    "`tl.constexpr` in the parameters",
    raises="must be of type tl.constexpr|constexpr",
)
UNWRITTEN = Mistake(
    "part of out was never stored, or NaN came out: out holds NaN before the launch",
    when=_unwritten,
)

FAULTS = (
    LOADS_OUTSIDE,
    MEETING,
    STORES_OUTSIDE,
    INPUT_STORED,
    POINTER,
    NOT_CONSTANT,
)
