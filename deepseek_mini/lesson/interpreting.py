"""Triton's kernels on the CPU, inside a `with` block, every address checked.

    from deepseek_mini.lesson.interpreting import interpreted, tl, triton

    with interpreted() as seen:
        add_kernel[(3,)](x, y, out, 10, BLOCK=4)
    print(seen)  # 3 programs, 80 bytes loaded, 40 bytes stored

TRITON_INTERPRET=1 makes all kernels of a process interpreted ones, if it is set before
Triton is imported. Here it need not be set: within the block `@triton.jit` functions
are interpreted, outside they compile as ever. What the interpreter lets pass is an
error here: an address outside of all tensors, which would end the process, and two
programs that meet in one place, which on a GPU run at the same time. And what Triton
leaves undefined, masked lanes of a load without `other`, is NaN or a large integer
here, not 0.

Where there is no Triton, `triton` and `tl` are stand-ins with which a kernel can be
defined. Launching it says so in a sentence and leaves the `with` block.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType, ModuleType
from unittest.mock import patch

import numpy as np

from deepseek_mini.lesson.watch import Traffic, Watch

NO_TRITON = "Kernels are not interpreted here: Triton exists for Linux alone."


class NoTriton(Exception):
    """A kernel was launched where there is no Triton."""


class _Kernel:
    """A kernel that cannot be launched."""

    def __init__(self, fn: FunctionType):
        self.fn, self.__name__ = fn, fn.__name__

    def __getitem__(self, grid: object):
        raise NoTriton

    def __call__(self, *args: object):
        raise NoTriton


class _Absent:
    """Stands for Triton, its language, and all that is in them."""

    def __getattr__(self, name: str) -> "_Absent":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: object, **_options: object) -> object:
        first = args[0] if args else None
        return _Kernel(first) if isinstance(first, FunctionType) else self


try:
    import triton
    import triton.language as tl
except ImportError:
    triton = tl = _Absent()

HERE = not isinstance(triton, _Absent)  # whether there is Triton


@contextmanager
def interpreted() -> Iterator[Traffic]:
    """Within the block kernels are interpreted; yields what they load and store.

    Raises what a kernel raises, and MemoryFault for an address outside of all tensors
    and for places where programs meet. Prints a sentence, and leaves the block at the
    first launch, where there is no Triton.
    """
    seen = Traffic()
    if not HERE:
        try:
            yield seen
        except (NoTriton, ImportError):
            print(NO_TRITON)
        return
    with ExitStack() as patches:
        for patched in _patches(seen):
            patches.enter_context(patched)
        yield seen


def _patches(seen: Traffic) -> Iterator:
    """The interpreter in the compiler's place, and the watch in the interpreter's."""
    from triton.runtime import interpreter as stock
    from triton.runtime.jit import JITFunction

    from deepseek_mini.kernels import interpreter, launch

    # Triton changes its language while a kernel runs. For functions that a kernel calls
    # it does so at each call, and never undoes it: here it is done once, for all.
    language = FunctionType((lambda: None).__code__, {"tl": tl, "core": tl.core})

    def run(self, *args, **kwargs):
        scope = stock._patch_lang(language)
        try:
            return stock.InterpretedFunction(self.fn).run(*args, **kwargs)
        finally:
            scope.restore()

    def call(self, *args, **kwargs):
        return stock.InterpretedFunction(self.fn).rewrite()(*args, **kwargs)

    yield np.errstate(all="ignore")  # masked lanes compute with whatever is there
    yield patch.object(JITFunction, "run", run)
    yield patch.object(JITFunction, "__call__", call)
    yield patch.object(launch, "INTERPRETED", True)
    # A check of every sum for overflow takes a third of the time and says nothing.
    options = stock.InterpreterOptions(sanitize_overflow=False)
    yield patch.object(stock.interpreter_builder, "options", options)
    interpreter.install(compiled=True)
    builder = stock.InterpreterBuilder
    load = builder.create_masked_load

    def create_masked_load(self, ptrs, mask, other, *rest, **how):
        if other is None and not np.all(mask.data):
            other = _undefined(ptrs, stock)
        return load(self, ptrs, mask, other, *rest, **how)

    yield patch.object(builder, "create_masked_load", create_masked_load)
    yield from Watch(seen, stock).patches()


def _undefined(pointers: object, stock: ModuleType) -> object:
    """What masked lanes hold for which a kernel has said nothing: no useful number."""
    from deepseek_mini.kernels.interpreter import NARROW, narrow

    dtype = pointers.get_element_ty()
    kind = np.dtype(stock._get_np_dtype(dtype))
    if dtype in NARROW:
        value = narrow(np.full(1, np.nan, np.float32), dtype)[0]
    elif kind.kind == "f":
        value = np.nan
    else:
        value = True if kind.kind == "b" else np.iinfo(kind).max // 3
    return stock.TensorHandle(np.full(np.shape(pointers.data), value, kind), dtype)
