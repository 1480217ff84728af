"""What Triton's CPU interpreter gets wrong about small floating-point numbers, mended.

The interpreter keeps a bf16 number in a NumPy uint16 and an fp8 number in a uint8,
because NumPy has neither. It then adds, compares and multiplies these integers, rounds
some casts towards zero and others wrongly, and says nothing (seen in Triton 3.5 to
3.9). `install` replaces what is wrong by the following, which is what a GPU does:

casts       round to the nearest number, halfway to the even one. To fp8 they saturate:
            what is too large, infinity too, becomes the largest number. PTX calls this
            cvt.rn.satfinite. NaN stays NaN.
bf16        arithmetic, comparisons, minima: in float32, then rounded to bf16.
fp8         has no arithmetic at all: cast to float32 first. An error.
reductions  and scans of bf16 or fp8: an error, since on a GPU they would round after
            every step. Cast to float32 first.
tl.dot      bf16 and fp8 are multiplied exactly and summed in float32. float32 inputs
            lose all but 10 bits of mantissa first, unless input_precision says "ieee"
            or "tf32x3": that is what tensor cores do by default.
tl.maximum, tl.minimum, tl.clamp
            ignore NaN, unless told to pass it on (Triton 3.6 passed it on always).
tl.fma      rounds once (Triton 3.6: twice).
comparisons of scalars can be masks.

What is not imitated: tensor cores sum fp8 products with about 14 bits instead of 24
until the sum leaves them; a GPU divides float32 to within two units in the last place
(`tl.div_rn` is exact there too); it fuses x * y + z into one rounding.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import triton
import triton.language as tl
from triton.runtime import interpreter as stock

from deepseek_mini import fp8

SUPPORTED = ("3.6", "3.9")  # names below are private: each version is tested
FP8 = {tl.float8e4nv: fp8.E4M3, tl.float8e5: fp8.E5M2}
NARROW = {tl.bfloat16, *FP8}  # kept as unsigned integers
NATIVE = {tl.float16: np.float16, tl.float32: np.float32, tl.float64: np.float64}
_DECODED = {
    t: fp8.decode(np.arange(256, dtype="u1"), f).astype("f4") for t, f in FP8.items()
}
_TF32_MASK = np.uint32(0xFFFF_E000)  # sign, 8 bits of exponent, 10 of mantissa
_installed = False


def install(compiled: bool = False) -> None:
    """Mend the interpreter of this process. A second call does nothing.

    compiled: whether Triton's own functions may be compiled ones, because the caller
        sees to it that they are interpreted all the same (lesson/interpreting.py).

    Raises:
        RuntimeError: this version of Triton has not been tested, or it was imported
            before TRITON_INTERPRET was set and its own functions are compiled.
    """
    global _installed
    if _installed:
        return
    version = triton.__version__
    if not version.startswith(tuple(f"{known}." for known in SUPPORTED)):
        raise RuntimeError(
            f"Triton is {version}, whose interpreter gets bf16 and fp8 wrong; that is "
            f"mended here for {' and '.join(SUPPORTED)} alone: install one of them, or "
            "compile kernels on a GPU, without TRITON_INTERPRET"
        )
    if isinstance(tl.cdiv, triton.runtime.JITFunction) and not compiled:
        raise RuntimeError(
            "Triton was imported before TRITON_INTERPRET was set: set it to 1 before "
            "Python starts"
        )
    builder = stock.InterpreterBuilder
    for name in ("binary_op", "unary_op", "create_fabs", "create_erf", "create_rsqrt"):
        setattr(builder, name, _in_float32(getattr(builder, name)))
    if not hasattr(stock._interpreter, "fma_fp32"):  # 3.6 rounds the product too
        builder.create_fma = _fma
    builder.create_fma = _in_float32(builder.create_fma)
    builder.create_clampf = _in_float32(_clamp)
    builder.create_minnumf = lambda self, a, b: self.binary_op(a, b, np.fmin)
    builder.create_maxnumf = lambda self, a, b: self.binary_op(a, b, np.fmax)
    builder.get_bf16 = lambda self, x: _handle(np.float32([x]), tl.bfloat16)
    builder.cast_impl = _cast(builder.cast_impl)
    builder.create_dot = _dot(builder.create_dot)
    stock.ReduceScanOpInterface.check_tensor = _no_reductions(
        stock.ReduceScanOpInterface.check_tensor
    )
    stock._convert_float = _convert_float
    stock._patch_lang_tensor = _index_of_one_element(stock._patch_lang_tensor)
    _installed = True


def widen(data: np.ndarray, dtype: tl.dtype) -> np.ndarray:
    """The numbers that `data` holds, in float32 (float64 stays float64)."""
    if dtype == tl.bfloat16:
        return (data.astype(np.uint32) << 16).view(np.float32)
    if dtype in FP8:
        return _DECODED[dtype][data.view(np.uint8)]
    if dtype in NATIVE and data.dtype.kind != "b":
        return data.view(NATIVE[dtype]).astype(np.promote_types(data.dtype, "f4"))
    return data.astype(np.float32)


def narrow(values: np.ndarray, dtype: tl.dtype) -> np.ndarray:
    """The nearest numbers of `dtype`, as the interpreter keeps them."""
    if dtype == tl.bfloat16:
        bits = np.asarray(values, dtype=np.float32).view(np.uint32)
        rounded = bits + 0x7FFF + (bits >> 16 & 1) >> 16  # a carry ends in the exponent
        return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)
    if dtype in FP8:
        return fp8.encode(values, FP8[dtype]).reshape(np.shape(values))
    return np.asarray(values, dtype=NATIVE[dtype])


def _handle(values: np.ndarray, dtype: tl.dtype) -> Any:
    return stock.TensorHandle(narrow(values, dtype), dtype)


def _in_float32(operation: Callable) -> Callable:
    """An operation of the builder, but bf16 goes through float32 and fp8 nowhere."""

    @wraps(operation)
    def method(self, *args):
        handles = [a for a in args if isinstance(a, stock.TensorHandle)]
        small = [h.dtype.scalar for h in handles if h.dtype.scalar in NARROW]
        if not small:
            out = operation(self, *args)
            if out.data.dtype == np.bool_:  # a comparison, labelled as what it compares
                out.dtype = tl.int1
            return out
        if any(dtype in FP8 for dtype in small):
            raise TypeError("fp8 has no arithmetic: cast to float32 first")
        wide = [
            stock.TensorHandle(widen(a.data, a.dtype.scalar), tl.float32)
            if isinstance(a, stock.TensorHandle)
            else a
            for a in args
        ]
        with np.errstate(over="ignore"):
            out = operation(self, *wide).data
        if out.dtype == np.bool_:
            return stock.TensorHandle(out, tl.int1)
        return _handle(out, tl.bfloat16)

    return method


def _clamp(self, x, low, high, propagate_nan):
    ignores = propagate_nan == stock._ir.PROPAGATE_NAN.NONE
    lower, upper = (np.fmax, np.fmin) if ignores else (np.maximum, np.minimum)
    return self.binary_op(self.binary_op(x, low, lower), high, upper)


def _fma(self, x, y, z):
    """In float64 no product of float32 numbers is rounded."""
    product = x.data.astype(np.float64) * y.data.astype(np.float64)
    return stock.TensorHandle((product + z.data).astype(z.data.dtype), z.dtype.scalar)


def _cast(operation: Callable) -> Callable:
    @wraps(operation)
    def cast_impl(self, source, target):
        start, end = source.dtype.scalar, target.scalar
        if start not in NARROW and end not in NARROW:
            return operation(self, source, target)
        values = widen(source.data, start)
        if end in NARROW:
            return _handle(values, end)
        return stock.TensorHandle(values.astype(stock._get_np_dtype(end)), end)

    return cast_impl


def _convert_float(data, start, end, rounding) -> np.ndarray:
    """The bits of numbers of one type in another."""
    for dtype in (start, end):
        if dtype not in NARROW and dtype not in NATIVE:
            raise TypeError(f"numbers of type {dtype} are not interpreted")
    modes = stock._ir.ROUNDING_MODE
    if rounding not in (None, modes.RTNE):
        raise TypeError(f"the rounding {rounding} is not interpreted, only to nearest")
    with np.errstate(over="ignore"):
        out = np.ascontiguousarray(narrow(widen(data, start), end))
    return out.view(f"u{out.itemsize}").reshape(data.shape)


def _dot(operation: Callable) -> Callable:
    @wraps(operation)
    def create_dot(self, a, b, acc, input_precision, max_num_imprecise_acc):
        if a.data.dtype == np.float64 or acc.data.dtype.kind != "f":
            return operation(self, a, b, acc, input_precision, max_num_imprecise_acc)
        x, y = (widen(h.data, h.dtype.scalar) for h in (a, b))
        rough = input_precision == stock._ir.INPUT_PRECISION.TF32
        if rough and a.dtype.scalar == tl.float32:
            x, y = _tf32(x), _tf32(y)
        out = np.matmul(x, y) + acc.data.astype(np.float32)
        return stock.TensorHandle(out.astype(acc.data.dtype), acc.dtype.scalar)

    return create_dot


def _tf32(x: np.ndarray) -> np.ndarray:
    """What a tensor core reads of float32 numbers."""
    return (x.view(np.uint32) & _TF32_MASK).view(np.float32)


def _no_reductions(check: Callable) -> Callable:
    @wraps(check)
    def check_tensor(self, inputs):
        check(self, inputs)
        for tensor in inputs:
            if tensor.dtype.scalar in NARROW:
                raise TypeError(
                    f"a reduction or scan of {tensor.dtype.scalar} would round after "
                    "every step: cast to float32 first"
                )

    return check_tensor


def _index_of_one_element(patch: Callable) -> Callable:
    """Let a tensor of one element bound a loop: NumPy 2.4 no longer makes it an int."""

    @wraps(patch)
    def patch_tensor(tensor, *scope):
        patch(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.item())

    return patch_tensor
