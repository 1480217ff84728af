"""What the interpreter must compute, as checks that a broken interpreter fails.

Each check runs kernels and raises AssertionError when a number is wrong. `CHECKS` says
in which versions of Triton the stock interpreter fails it. Run as a program, without
the project's fix, it prints which checks failed: see test_interpreter.py.
"""

import json
import sys
from functools import partial

import torch
import triton
import triton.language as tl

DTYPES = {
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
    torch.float32: tl.float32,
    torch.float64: tl.float64,
    torch.float8_e4m3fn: tl.float8e4nv,
    torch.float8_e5m2: tl.float8e5,
    torch.int32: tl.int32,
}
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


@triton.jit
def cast_kernel(x, y, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + i, mask=i < n)
    tl.store(y + i, value.to(y.dtype.element_ty), mask=i < n)


@triton.jit
def arithmetic_kernel(x, y, out, OP: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    a, b = tl.load(x + i), tl.load(y + i)
    if OP == "+":
        c = a + b
    elif OP == "-":
        c = a - b
    elif OP == "*":
        c = a * b
    elif OP == "/":
        c = (a / b).to(out.dtype.element_ty)
    elif OP == "negative":
        c = -a
    elif OP == "absolute":
        c = tl.abs(a)
    elif OP == "maximum":
        c = tl.maximum(a, b)
    elif OP == "minimum":
        c = tl.minimum(a, b)
    elif OP == "clamp":
        c = tl.clamp(a, b - b, b - b + 1)
    elif OP == "fma":
        c = tl.fma(a, b, b)
    elif OP == "remainder":
        c = tl.fma(a, b, -(a * b))
    elif OP == "less":
        c = tl.where(a < b, 1, 0)
    elif OP == "where":
        c = tl.where(a < b, a, b)
    elif OP == "full":
        c = tl.full((BLOCK,), 1.5, tl.bfloat16) + a
    elif OP == "max":
        c = tl.max(a.to(tl.float32), axis=0) + tl.zeros_like(a)
    elif OP == "sum":
        c = tl.sum(a, axis=0) + tl.zeros_like(a)
    elif OP == "cumsum":
        c = tl.cumsum(a, axis=0)
    tl.store(out + i, c.to(out.dtype.element_ty))


@triton.jit
def dot_kernel(x, y, out, TYPE: tl.constexpr, PRECISION: tl.constexpr):
    i, j = tl.arange(0, 32)[:, None], tl.arange(0, 32)[None, :]
    a = tl.load(x + i * 32 + j).to(TYPE)
    b = tl.load(y + i * 32 + j).to(TYPE)
    tl.store(out + i * 32 + j, tl.dot(a, b, input_precision=PRECISION))


@triton.jit
def loop_kernel(out, n):
    total = 0
    for i in range(tl.cdiv(n, 4)):
        total += i
    tl.store(out, total)


@triton.jit
def scalar_mask_kernel(x, n):
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, 4)
    tl.store(x + row * 4 + i, tl.zeros((4,), tl.float32), (i < 3) & (row < n))


def cast(x, dtype):
    """x in another type, cast by a kernel; the output is poisoned beforehand."""
    y = torch.full_like(x, 77, dtype=torch.float32).to(dtype)
    cast_kernel[(triton.cdiv(x.numel(), 256),)](x, y, x.numel(), BLOCK=256)
    return y


def arithmetic(op, x, y, dtype=torch.bfloat16):
    out = torch.full(x.shape, 77, dtype=dtype)
    arithmetic_kernel[(1,)](x, y, out, OP=op, BLOCK=x.numel())
    return out


def same(a, b):
    """Equal, NaN where NaN is wanted, zeros with their sign."""
    a, b = a.double(), b.double()
    wrong = (a != b) & ~(a.isnan() & b.isnan()) | (a.signbit() != b.signbit())
    wrong &= ~(a.isnan() & b.isnan())
    assert not wrong.any(), f"{wrong.sum()} of {wrong.numel()} numbers are wrong"


def hard_numbers(dtype):
    """float32 numbers that are hard to round to `dtype`, and some that are random."""
    codes = torch.arange(256, dtype=torch.uint8)
    if dtype == torch.bfloat16:
        codes = torch.randint(-(2**15), 2**15, (2048,), dtype=torch.int16)
    exact = codes.view(dtype).float()
    exact = exact[exact.isfinite()].sort().values
    halfway = (exact[1:].double() + exact[:-1].double()) / 2
    near = torch.cat((halfway * (1 - 1e-6), halfway, halfway * (1 + 1e-6))).float()
    special = [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-45, 3e38, 500.0]
    random = torch.randn(1000) * torch.logspace(-8, 6, 1000)
    return torch.cat((exact, near, torch.tensor(special), random))


def bf16(*shape, nan=False):
    x = torch.randn(*shape).bfloat16()
    if nan:
        x.view(-1)[::5] = float("nan")
    return x


def rejects(message, run):
    """`run` raises an error that says `message`."""
    try:
        run()
    except Exception as error:
        assert message in str(error), error
    else:
        raise AssertionError("no error was raised")


def check_to_bf16():
    x = hard_numbers(torch.bfloat16)
    same(cast(x, torch.bfloat16), x.bfloat16())
    same(cast(x.double(), torch.bfloat16), x.double().bfloat16())
    same(cast(x.half(), torch.bfloat16), x.half().bfloat16())


def check_to_fp8(dtype):
    x = hard_numbers(dtype)
    largest = torch.finfo(dtype).max
    for wide in (x, x.half(), x.bfloat16()):
        same(cast(wide, dtype), wide.float().clamp(-largest, largest).to(dtype))


def check_from_fp8(dtype):
    codes = torch.arange(256, dtype=torch.uint8).view(dtype)
    finite = codes.float().isfinite()
    for wide in (torch.float32, torch.float16, torch.bfloat16):
        same(cast(codes, wide), codes.to(wide))
        same(cast(codes.to(wide), dtype)[finite], codes[finite])


def check_integers():
    n = torch.arange(-700, 700, dtype=torch.int32)
    same(cast(n, torch.bfloat16), n.bfloat16())
    same(cast(n.bfloat16(), torch.int32), n.bfloat16().int())


def check_arithmetic():
    x, y = bf16(128), bf16(128)
    wanted = {
        "+": x + y,
        "-": x - y,
        "*": x * y,
        "/": x / y,
        "negative": -x,
        "absolute": x.abs(),
        "maximum": torch.maximum(x, y),
        "minimum": torch.minimum(x, y),
        "where": torch.where(x < y, x, y),
        "max": x.max().expand(128),
    }
    for op, result in wanted.items():
        same(arithmetic(op, x, y), result)
    fused = (x.double() * y.double() + y.double()).float().bfloat16()
    same(arithmetic("fma", x, y), fused)
    same(arithmetic("less", x, y, torch.int32), (x < y).int())


def check_fma():
    x, y = torch.randn(128), torch.randn(128)
    rest = arithmetic("remainder", x, y, torch.float32)
    same(rest, (x.double() * y.double() - (x * y).double()).float())


def check_constants():
    x = bf16(128)
    same(arithmetic("full", x, x), 1.5 + x)


def check_nan_is_ignored():
    for make in (lambda: bf16(128, nan=True), lambda: bf16(128, nan=True).float()):
        x = make()
        y = make().roll(2)
        same(arithmetic("maximum", x, y, x.dtype), torch.fmax(x, y))
        same(arithmetic("minimum", x, y, x.dtype), torch.fmin(x, y))
    clamped = arithmetic("clamp", x, torch.ones_like(x), x.dtype)
    same(clamped, torch.fmin(torch.fmax(x, torch.zeros(())), torch.ones(())))


def check_reductions():
    """Either right to float32's precision, or an error; never garbage."""
    x = bf16(128)
    exact = {"sum": x.double().sum().expand(128), "cumsum": x.double().cumsum(0)}
    for op, wanted in exact.items():
        try:
            out = arithmetic(op, x, x, torch.float32)
        except Exception as error:
            assert "cast to float32 first" in str(error), error
        else:  # the result is rounded to bf16, whose unit roundoff is 2^-9
            assert (out - wanted).abs().max() < 2**-8 * wanted.abs().max()
    x8 = x.to(E4M3)
    rejects("cast to float32 first", lambda: arithmetic("sum", x8, x8, torch.float32))


def check_fp8_has_no_arithmetic():
    x = bf16(128).to(E4M3)
    for op in ("+", "*", "negative", "less"):
        rejects("cast to float32 first", partial(arithmetic, op, x, x))


def check_dot(dtype):
    """In the kernel: cast to `dtype`, multiply; beside float64."""
    x, y = torch.randn(32, 32), torch.randn(32, 32)
    x[0, 0], y[3, 3] = 500.0, -1e4  # to E4M3 these saturate
    out = torch.full((32, 32), float("nan"))
    dot_kernel[(1,)](x, y, out, TYPE=DTYPES[dtype], PRECISION="ieee")
    largest = torch.finfo(dtype).max
    a, b = (t.clamp(-largest, largest).to(dtype).double() for t in (x, y))
    # Products are exact in float32, and 32 of them are summed: 31 roundings.
    bound = 31 * 2**-24 * (a.abs() @ b.abs())
    assert ((out.double() - a @ b).abs() <= bound).all()


def check_dot_of_bf16_as_stored():
    x, y = bf16(32, 32), bf16(32, 32)
    out = torch.full((32, 32), float("nan"))
    dot_kernel[(1,)](x, y, out, TYPE=tl.bfloat16, PRECISION="ieee")
    a, b = x.double(), y.double()
    assert ((out.double() - a @ b).abs() <= 31 * 2**-24 * (a.abs() @ b.abs())).all()


def check_tf32():
    """float32 inputs lose 13 bits, unless told to keep them."""
    x, y = torch.randn(32, 32), torch.randn(32, 32)
    exact = x.double() @ y.double()
    error = {}
    for precision in ("tf32", "tf32x3", "ieee"):
        out = torch.full((32, 32), float("nan"))
        dot_kernel[(1,)](x, y, out, TYPE=tl.float32, PRECISION=precision)
        error[precision] = float((out - exact).abs().max())
    assert error["ieee"] < 1e-5 and error["tf32x3"] < 1e-5, error
    assert 1e-4 < error["tf32"] < 3e-2, error


def check_scalar_masks():
    x = torch.ones(3, 4)
    scalar_mask_kernel[(3,)](x, 2)
    assert x.tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [1, 1, 1, 1]]


def check_loop_bound():
    out = torch.full((1,), -1, dtype=torch.int32)
    loop_kernel[(1,)](out, 13)
    assert out.item() == 0 + 1 + 2 + 3


BOTH, NONE = ("3.6", "3.9"), ()
CHECKS = {  # name: (check, the versions in which the stock interpreter fails it)
    "float32 to bf16": (check_to_bf16, BOTH),
    "to E4M3": (lambda: check_to_fp8(E4M3), BOTH),
    "to E5M2": (lambda: check_to_fp8(E5M2), BOTH),
    "all codes of E4M3": (lambda: check_from_fp8(E4M3), BOTH),
    "all codes of E5M2": (lambda: check_from_fp8(E5M2), BOTH),
    "integers and bf16": (check_integers, BOTH),
    "arithmetic of bf16": (check_arithmetic, BOTH),
    "fma": (check_fma, ("3.6",)),
    "a constant of bf16": (check_constants, BOTH),
    "NaN is ignored": (check_nan_is_ignored, BOTH),
    "reductions of bf16": (check_reductions, BOTH),
    "fp8 has no arithmetic": (check_fp8_has_no_arithmetic, BOTH),
    "cast to bf16 and dot": (lambda: check_dot(torch.bfloat16), BOTH),
    "cast to E4M3 and dot": (lambda: check_dot(E4M3), BOTH),
    "cast to E5M2 and dot": (lambda: check_dot(E5M2), BOTH),
    "dot of bf16": (check_dot_of_bf16_as_stored, BOTH),
    "TF32": (check_tf32, BOTH),
    "a scalar's mask": (check_scalar_masks, ("3.9",)),
    "a loop's bound": (check_loop_bound, NONE),
}


def failing() -> dict[str, str]:
    """The checks that fail in this process, each with its error."""
    found = {}
    for name, (check, _) in CHECKS.items():
        torch.manual_seed(0)
        try:
            check()
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


if __name__ == "__main__":
    json.dump(failing(), sys.stdout)
