"""Lesson 02, RMSNorm and SwiGLU: the oracles go other ways than the lesson.

SwiGLU is a sum over the middle channels in float64, and the width is found by counting
up. The norm and its gradient are in `rms_norm.py` and `rms_norm_gradient.py`.
"""

import torch

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, tensor
from deepseek_mini.lesson.oracles.rms_norm import NORM
from deepseek_mini.lesson.oracles.rms_norm_gradient import BACKWARD

LESSON = "02_norm_and_swiglu"

# --- 02.3 -------------------------------------------------------------------------


def swiglu(x, w1, w2, w3, *, function=None, both=None):
    """The oracle, in float64; the keywords make the known mistakes."""
    wide, a, b, c = (t.detach().double() for t in (x, w1, w2, w3))
    gate = torch.einsum("...d,fd->...f", wide, a)
    value = torch.einsum("...d,fd->...f", wide, c)
    if both is not None:
        middle = both(gate, value)
    else:
        sigmoid = 0.5 * (1 + torch.tanh(gate / 2))
        middle = (gate * sigmoid if function is None else function(gate)) * value
    return torch.einsum("...f,df->...d", middle, b).to(x.dtype)


def _swiglu(**mistake):
    return lambda x, w1, w2, w3: swiglu(x, w1, w2, w3, **mistake)


def _silu(a):
    return a * torch.sigmoid(a)


def _not_transposed(x, w1, w2, w3):
    middle = torch.nn.functional.silu(x @ w1) * (x @ w3)
    return middle @ w2


def swiglu_cases(rng):
    for shape, inter_dim, dtype, strided, label in (
        ((5, 6), 11, torch.float64, False, "five tokens"),
        ((2, 3, 8), 5, torch.float32, False, "a batch of two"),
        ((7,), 4, torch.float64, False, "a single vector"),
        ((4, 6), 6, torch.float64, False, "a middle as wide as the ends"),
        ((3, 4, 6), 10, torch.float32, True, "tensors that are not contiguous"),
        ((3, 8), 16, torch.bfloat16, False, "bfloat16"),
    ):
        dim = shape[-1]
        x = tensor(rng, *shape, dtype=dtype, strided=strided)
        w1, w3 = (
            tensor(rng, inter_dim, dim, dtype=dtype, strided=strided) for _ in range(2)
        )
        w2 = tensor(rng, dim, inter_dim, dtype=dtype, strided=strided)
        w1, w2, w3 = w1 * dim**-0.5, w2 * inter_dim**-0.5, w3 * dim**-0.5
        if strided:
            w1, w2, w3 = (w.t().contiguous().t() for w in (w1, w2, w3))
        name = str(dtype).removeprefix("torch.")
        said = f"{label}: x {name} {list(shape)}, F {inter_dim}"
        tolerance = 5e-2 if dtype == torch.bfloat16 else None
        yield Case((x, w1, w2, w3), said, tolerance)


SWIGLU = Exercise(
    id="02.3",
    title="SwiGLU from its weights",
    signature="swiglu(x, w1, w2, w3)",
    difficulty="a few lines",
    minutes=8,
    right=swiglu,
    cases=swiglu_cases,
    mistakes=(
        Mistake(
            "silu is on the value; w1 makes the gate, and silu belongs to the gate",
            gives=lambda x, w1, w2, w3: swiglu(x, w3, w2, w1),
        ),
        Mistake(
            "look at the sign in the exponent: silu(a) goes to 0 far below 0, and to a "
            "far above",
            gives=_swiglu(function=lambda a: a * torch.sigmoid(-a)),
        ),
        Mistake(
            "x goes left of the matrix, transposed, as in nn.Linear: x @ w.T; and the "
            "order of the arguments is x, w1, w2, w3",
            raises="cannot be multiplied|size mismatch|must match the size"
            "|Expected size for|inconsistent tensor size",
        ),
        Mistake(
            "the gate is a sigmoid; silu(a) has a factor a besides",
            gives=_swiglu(function=torch.sigmoid),
        ),
        Mistake(
            "the gate is GELU (that is GEGLU), not silu",
            gives=_swiglu(function=torch.nn.functional.gelu),
        ),
        Mistake(
            "the gate is GELU (that is GEGLU), not silu",
            gives=_swiglu(
                function=lambda a: torch.nn.functional.gelu(a, approximate="tanh")
            ),
        ),
        Mistake(
            "the gate is ReLU, not silu",
            gives=_swiglu(function=torch.relu),
        ),
        Mistake(
            "nothing bends: the gate went through no function",
            gives=_swiglu(function=lambda a: a),
        ),
        Mistake(
            "silu is taken of the product; only the gate goes through it",
            gives=_swiglu(both=lambda gate, value: _silu(gate * value)),
        ),
        Mistake(
            "silu is on both; the value goes through unchanged",
            gives=_swiglu(both=lambda gate, value: _silu(gate) * _silu(value)),
        ),
        Mistake(
            "gate and value are added; a gate multiplies",
            gives=_swiglu(both=lambda gate, value: _silu(gate) + value),
        ),
        Mistake(
            "there is no gate here: w3 is not used",
            gives=_swiglu(both=lambda gate, value: _silu(gate)),
        ),
        Mistake(
            "the matrices are used the other way round: their rows are the outputs, so "
            "x meets them transposed, as in nn.Linear",
            gives=_not_transposed,
        ),
        Mistake(
            "this is the middle; w2 leads back to D channels",
            gives=lambda x, w1, w2, w3: (
                _silu(x.double() @ w1.double().mT) * (x.double() @ w3.double().mT)
            ).to(x.dtype),
        ),
        Mistake(
            "something wider than x promotes the result: give back x's dtype",
            when=lambda got, want, args: (
                isinstance(got, torch.Tensor)
                and got.shape == want.shape
                and got.dtype.itemsize > want.dtype.itemsize
            ),
        ),
    ),
    hint="print the shapes of gate and value, both [..., F], and work one channel in "
    "the middle by hand",
)

# --- 02.4 -------------------------------------------------------------------------


def swiglu_width(dim, multiple):
    width = multiple
    while 3 * dim * width < 2 * dim * (4 * dim):
        width += multiple
    return width


def width_cases(rng):
    fixed = ((4096, 256), (96, 64), (100, 1), (256, 31), (2048, 128), (64, 512))
    drawn = (int(rng.integers(300, 9000)), int(rng.integers(3, 300)))
    for dim, multiple in (*fixed, drawn):
        yield Case((dim, multiple), f"dim {dim}, multiple {multiple}")


WIDTH = Exercise(
    id="02.4",
    title="The width at equal cost",
    signature="swiglu_width(dim, multiple)",
    difficulty="one line",
    minutes=5,
    right=swiglu_width,
    cases=width_cases,
    mistakes=(
        Mistake(
            "this is 4 * dim rounded up: how many matrices has SwiGLU, and how many "
            "the MLP?",
            gives=lambda dim, multiple: -(-4 * dim // multiple) * multiple,
        ),
        Mistake(
            "this is a multiple, but rounded down: it costs less than the MLP",
            gives=lambda dim, multiple: 8 * dim // 3 // multiple * multiple,
        ),
        Mistake(
            "this is rounded to the nearest multiple, which may cost less than the MLP",
            gives=lambda dim, multiple: round(8 * dim / 3 / multiple) * multiple,
        ),
        Mistake(
            "a width that is a multiple already is rounded up once more",
            gives=lambda dim, multiple: (8 * dim // 3 // multiple + 1) * multiple,
        ),
        Mistake(
            "8/3 of dim is cut to a whole number before it is rounded up, so that a "
            "width just below it counts as enough",
            gives=lambda dim, multiple: -(-(8 * dim // 3) // multiple) * multiple,
        ),
        Mistake(
            "this is how many multiples, not how many channels",
            gives=lambda dim, multiple: swiglu_width(dim, multiple) // multiple,
        ),
        Mistake(
            "this is not rounded: the width is a multiple of `multiple`",
            gives=lambda dim, multiple: 8 * dim / 3,
        ),
        Mistake(
            "this is not rounded: the width is a multiple of `multiple`",
            gives=lambda dim, multiple: 8 * dim // 3,
        ),
        Mistake(
            "a SwiGLU of two thirds of dim is much smaller than the MLP: its middle is "
            "4 * dim wide",
            gives=lambda dim, multiple: -(-2 * dim // (3 * multiple)) * multiple,
        ),
    ),
    hint="count both: the MLP has 2 * dim * (4 * dim) parameters, yours has 3 * dim * "
    "width; the next smaller multiple should have fewer than the MLP",
)

EXERCISES = (NORM, BACKWARD, SWIGLU, WIDTH)
