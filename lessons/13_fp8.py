# %% [markdown]
# # 13 · FP8: eight bits and a scale
#
# DeepSeek-V3 has 671 billion parameters. Nearly all of its arithmetic, in training too,
# multiplies numbers of eight bits, and eight bits can tell apart 256 things at most. Yet
# the report finds, on two smaller models, a loss within 0.25% of training in bfloat16. How
# do you train on 256 numbers?
#
# - **You will build** the two formats from their bits, equal to PyTorch's casts byte by
#   byte; scales for tiles and blocks, as released checkpoints store them; a linear layer
#   that computes all three of its products in FP8; and a model that trains with it.
# - **You need** lesson 00, and the linear layers of lesson 02. Nothing here needs a GPU:
#   the rounding is real, the speed is not.
# - **Time**: about 60 minutes, and an hour for the exercises.
# - **Papers**: DeepSeek-V3 §3.3 and §3.5.2; *FP8 Formats for Deep Learning* §3.

# %%
import numpy as np
import torch

import deepseek_mini as dm
from deepseek_mini import fp8
from deepseek_mini.fp8 import E4M3, E5M2
from deepseek_mini.lesson import PALETTE, error, figure, ladder, setup, show

setup(seed=0)

# %%
codes = np.arange(256, dtype=np.uint8)  # [256]
print("        numbers  largest  smallest > 0  steps from a power of 2 to the next")
for fmt in (E4M3, E5M2):
    values = fp8.decode(codes, fmt)  # [256]
    values = np.unique(values[np.isfinite(values)])  # 0 and -0 are one number
    smallest = f"2^{np.log2(fmt.smallest):.0f}"
    print(f"{fmt.name}   {len(values):9} {fmt.largest:8,.0f} {smallest:>13}", end="  ")
    print(np.sum((values >= 1) & (values < 2)))
    assert (values[-1], values[values > 0][0]) == (fmt.largest, fmt.smallest)

# %% [markdown]
# ## By hand
#
# A floating-point number is a sign, a power of two and a fraction: $\pm 2^e \cdot 1.f$.
# **E4M3** has four bits for the exponent $e$ and three for the fraction $f$ (the
# **mantissa**), so from each power of two to the next there are eight steps.
#
# Take 0.3. It lies between $2^{-2} = 0.25$ and $2^{-1} = 0.5$, and a step there is
# $0.25 / 8 = 0.03125$. The neighbours are
#
# - $0.25 \cdot 1.125 = 0.28125$, which is 0.01875 away,
# - $0.25 \cdot 1.250 = 0.3125$, which is 0.0125 away, and so **0.3 becomes 0.3125**.
#
# Halfway between two neighbours, the one whose last bit is 0 is taken: round half to
# even. The exponent is stored with 7 added (the **bias**), so this byte is
# `0 0101 010`: sign 0, exponent $-2 + 7 = 5$, fraction 2/8.
#
# - The **largest** number is `0 1111 110`, $2^8 \cdot 1.75 = 448$. All bits set is NaN, and
#   there is no infinity.
# - With exponent bits `0000` the leading 1 is dropped and the steps stay what they were in
#   the lowest power: these numbers are **subnormal**. They have fewer significant bits,
#   down to `0 0000 001`, which is $2^{-6}/8 = 2^{-9}$, the **smallest** above 0.
#
# **E5M2** spends one bit more on the exponent and one less on the fraction.
#
# **Predict**: what does $2^{-10}$ become, half of the smallest?

# %%
def nearest(x, largest=448.0, mantissa_bits=3, lowest_power=-6):
    size = np.minimum(np.abs(x), largest)  # too large: the largest
    power = np.frexp(np.maximum(size, 2.0**lowest_power))[1] - 1  # 2^power <= size
    step = np.ldexp(1.0, power - mantissa_bits)  # the distance of neighbours here
    return np.copysign(np.rint(size / step) * step, x)  # rint: half to even


for x in (0.3, 0.296875, 2.0**-10, 1.001 * 2.0**-10, 447, 10_000):
    print(f"{x:<14.7g} becomes {nearest(np.array(x)):.7g}")
assert nearest(np.array(0.3)) == 0.3125 and nearest(np.array(2.0**-10)) == 0

# %% [markdown]
# $2^{-10}$ lies halfway between 0 and $2^{-9}$, and the even one is 0. What is too large
# becomes 448 here. Written out because not every cast does that: PyTorch's own gives NaN
# in some versions and 448 in others, so all our code clamps before it casts.

# %%
alt = """All positive numbers of E4M3 and of E5M2 as ticks on a logarithmic line. E4M3
reaches from 2^-9 to 448 with eight ticks for each power of two, E5M2 from 2^-16 to
57,344 with four. At the left end of each, the subnormal ticks spread out."""
with figure(alt, size=(10, 2.6)) as fig:
    ax = fig.subplots()
    for row, fmt in enumerate((E4M3, E5M2)):
        values = fp8.decode(codes[:127], fmt)  # [127]: the positive half
        values = values[np.isfinite(values) & (values > 0)]
        normal = values >= fmt.smallest_normal
        for part, color in ((normal, PALETTE[0]), (~normal, PALETTE[1])):
            x = np.repeat(values[part], 3)  # [3n]: up, down, and a gap
            y = np.tile([1.15 - row, 1.75 - row, np.nan], len(x) // 3)
            ax.plot(x, y, color=color, lw=1, ls="-")
        ax.text(2.0**-17, 1.45 - row, fmt.name, ha="right", va="center")
    ax.set(xscale="log", xlim=(2.0**-19.5, 2.0**17), yticks=[], ylim=(0, 1.9))
    ticks = [2.0**p for p in range(-16, 17, 4)]
    ax.set_xticks(ticks, [f"$2^{{{p}}}$" for p in range(-16, 17, 4)])
    ax.grid(visible=False)

# %% [markdown]
# (Blue: full precision. Orange: subnormal.) On a logarithmic line the ticks are evenly
# dense: a float has about the same **relative** error everywhere, until its exponents
# end. E4M3 is finer, E5M2 reaches further.
#
# Here is the package's version. Codes count upwards through all numbers, so the byte
# follows from the power and the number of steps; a carry needs no special case.

# %%
show(fp8.encode)

# %%
for x in (0.3, 448.0, 2.0**-9, -0.3):
    bits = f"{int(fp8.encode(x, E4M3)):08b}"
    print(f"{x:<12} {bits[0]} {bits[1:5]} {bits[5:]}")
assert int(fp8.encode(0.3, E4M3)) == 0b0_0101_010

# %% [markdown]
# ## A number needs a scale
#
# DeepSeek initialises weights with a standard deviation of 0.006. Nearly all of them are
# below $2^{-6}$, among the subnormals. But a matrix may be multiplied by any number before
# it is rounded, if the product is divided by it afterwards. The best use of the format is
# to put the largest entry (its **amax**) on the largest number:
#
# $$\mathrm{scale\_inv} = \frac{\text{amax}}{448}, \qquad
#   \text{stored} = \mathrm{round}\!\left(\frac{x}{\mathrm{scale\_inv}}\right), \qquad
#   \hat x = \text{stored} \cdot \mathrm{scale\_inv}.$$
#
# `scale_inv` is the name in released checkpoints (`weight_scale_inv`): it is what
# *undoes* the scaling. By hand, with four numbers 7, 3, 0.7 and −0.014: scale_inv is
# $7/448 = 1/64$; divided by it they are 448, 192, 44.8 and −0.896; the nearest numbers
# are 448, 192, 44 and −0.875; times $1/64$: 7, 3, 0.6875 and −0.013671875.

# %%
def tiles_rounded(x, tile):
    parts = x.reshape(len(x), -1, tile)  # [T, n, tile]
    amax = np.abs(parts).max(axis=-1, keepdims=True)  # [T, n, 1]
    scale_inv = amax / 448  # [T, n, 1]
    return (nearest(parts / scale_inv) * scale_inv).reshape(x.shape)  # [T, D]


four = np.array([[7.0, 3.0, 0.7, -0.014]])  # [T, D]
print("by hand:", tiles_rounded(four, 4)[0])
assert (tiles_rounded(four, 4) == [[7, 3, 0.6875, -0.013671875]]).all()


def relative(got, want):
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


weights = 0.006 * np.random.default_rng(0).normal(size=(512, 512))  # [O, D]
print(f"as they are: error {relative(nearest(weights), weights):.1%}")
print(f"with a scale: error {relative(tiles_rounded(weights, 512), weights):.1%}")
assert relative(nearest(weights), weights) > 0.08

# %% [markdown]
# (The error of a matrix is $\lVert \hat x - x \rVert / \lVert x \rVert$, with the root of
# the sum of all squares. With three bits of fraction, about 2.6% is as good as it gets.)
#
# ## One outlier
#
# One scale must serve all that share it. Activations of about 0.02 in a matrix
# [32, 512], and a single number among them, the **outlier**, of 1,000. Then scale_inv is
# $1000/448 = 2.2$, and what is below $2.2 \cdot 2^{-10} = 0.0022$ becomes zero.
#
# Smaller groups contain the damage. Compare one scale for the tensor, one for a row (a
# token), and one for a **tile** of 1 × 128: one token, 128 channels. In real models an
# outlier is often a whole channel, large for *every* token. So there are two kinds here.
#
# **Predict**: which of the three help when a whole channel is large? And how much of a
# row can a tile lose?

# %%
from deepseek_mini.lesson import Choice, settings_figure, slider_figure

GROUPS = {"one scale": (None, None), "a row": (1, None), "tiles 1 × 128": (1, 128)}
quiet = 0.02 * torch.randn(32, 512)  # [T, D]


def errors_beside(outlier, kind, block, fmt=E4M3):
    """Of the ordinary numbers: the error of all, and of groups of 16 channels."""
    x, ordinary = quiet.clone(), torch.ones(32, 512, dtype=torch.bool)  # [T, D] each
    where = (slice(None), 200) if kind == "a channel" else (9, 200)
    x[where], ordinary[where] = outlier, False
    lost = (fp8.fake_quantise(x, block, fmt) - x) * ordinary  # [T, D]
    lost, x = (y.square().unflatten(1, (32, 16)).sum(2) for y in (lost, x * ordinary))
    return float((lost.sum() / x.sum()).sqrt()), (lost / x).sqrt().numpy()  # [T, 32]


def draw_errors(fig, outlier, kind):
    for ax, (name, block) in zip(fig.subplots(3, 1), GROUPS.items()):
        total, places = errors_beside(outlier, kind, block)
        ax.imshow(places, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        ax.set_title(f"{name}: error {total:.1%}", fontsize=10)
        ax.set(xticks=[], yticks=[], ylabel="32 tokens")
        ax.grid(visible=False)
    ax.set_xlabel("512 channels, in groups of 16")


widget = slider_figure(
    draw_errors,
    alt="Where 32 x 512 numbers lose precision to {kind} of {outlier:,}.",
    size=(5, 5),
    outlier=Choice((1, 10, 100, 1000, 10_000), start=10_000, label="outlier"),
    kind=Choice(("a number", "a channel"), label="what is large"),
)

# %% [markdown]
# (The menus need a running notebook; below are four settings. White: as good as it gets.
# Dark: nothing is left.)

# %%
settings = {
    f"{kind} of {outlier:,}": {"outlier": outlier, "kind": kind}
    for kind in ("a number", "a channel")
    for outlier in (1000, 10_000)
}
settings_figure(
    draw_errors,
    settings,
    alt="""Errors of 32 tokens by 512 channels with one scale, a scale per row, and
    tiles. A number of 10,000: with one scale all is dark, with rows one row, with tiles
    a quarter of that row. A channel of 10,000: one scale and rows are dark all over,
    tiles in one quarter. With 1,000 all is paler.""",
    size=(12, 4.6),
)
for kind in ("a number", "a channel"):
    one, row, tile = (errors_beside(10_000, kind, b)[0] for b in GROUPS.values())
    print(f"{kind} of 10,000: one scale {one:.0%}, a row {row:.0%}, tiles {tile:.0%}")
    assert tile < 0.6 * row and row < (1.01 if kind == "a channel" else 0.3) * one

# %% [markdown]
# A row contains a large number, but not a large channel, which is in every row. A tile
# contains both: what is lost is inside one tile of each row. V3 therefore has
#
# - **tiles of 1 × 128** for activations and gradients, their amax found anew each time
#   (*online*), so nothing is guessed from earlier steps;
# - **blocks of 128 × 128** for weights.
#
# Notice that these are floats, not integers. What they lack is *range*: the largest number
# of E4M3 is 229,376 times the smallest.
#
# **Predict**: which is rounder, E4M3 with tiles or E5M2 with one scale?

# %%
alt = """Error against the size of one large channel, 1 to 10,000, on two log axes. E4M3
with one scale rises from 2.6% at 100 to over 60% at 10,000, with tiles to half of
that. E5M2 with one scale stays at 5%, twice the others' start."""
sizes = np.logspace(0, 4, 17)  # [N]
curves = {
    "E4M3, one scale": ((None, None), E4M3),
    "E4M3, tiles": ((1, 128), E4M3),
    "E5M2, one scale": ((None, None), E5M2),
}
with figure(alt) as fig:
    ax = fig.subplots()
    for name, how in curves.items():
        rest = [errors_beside(size, "a channel", *how)[0] for size in sizes]
        ax.plot(sizes, rest, label=name)
    ax.set(xscale="log", yscale="log", xlabel="size of the large channel")
    ax.set(ylabel="error of the rest", ylim=(0.02, 1))
    ax.set_yticks([0.025, 0.05, 0.1, 0.2, 0.5], ["2.5%", "5%", "10%", "20%", "50%"])
    ax.legend()
e5m2 = [errors_beside(s, "a channel", (None, None), E5M2)[0] for s in (1, 10_000)]
print(f"E5M2, one scale: {e5m2[0]:.1%} at 1, {e5m2[1]:.1%} at 10,000")
assert max(e5m2) < 0.06 and errors_beside(1, "a number", (1, 128))[0] < 0.55 * e5m2[0]
assert errors_beside(100, "a channel", (None, None))[0] < 0.028

# %% [markdown]
# E4M3 with tiles is twice as fine, as long as the outliers are not extreme; E5M2 does not
# care about them and pays for it always. Even one scale in E4M3 goes far before it fails:
# a channel of 100, five thousand times the rest, costs nothing yet. Earlier recipes used
# E4M3 forward and E5M2 for gradients, whose sizes vary more; V3, with its tiles, uses E4M3
# for all.
#
# ## Scales that are powers of two
#
# A scale costs four bytes a tile. DeepSeek-V3.1 rounds it **up** to a power of two,
# $2^{\lceil \log_2(\text{amax}/448) \rceil}$, with amax at least $10^{-4}$. One byte that
# is all exponent, **UE8M0**, holds it: the power plus 127.
#
# **Predict**: how much precision does the rounded scale cost?

# %%
x = torch.randn(256, 512)  # [T, D]
scales = {}
for name, ue8m0 in (("amax / 448", False), ("power of two", True)):
    values, scales[name] = fp8.quantise(x, (1, 128), ue8m0=ue8m0)
    lost = relative(fp8.dequantise(values, scales[name], (1, 128)).numpy(), x.numpy())
    tops = values.float().abs().unflatten(1, (-1, 128)).amax(-1)  # [T, n]
    print(f"{name:13} error {lost:.1%},", end=" ")
    print(f"the largest numbers of tiles are {tops.min():.0f} to {tops.max():.0f}")
    assert 0.025 < lost < 0.028 and tops.min() >= 224
powers = fp8.encode_ue8m0(scales["amax / 448"].numpy())  # [T, n]: bytes
assert (fp8.decode_ue8m0(powers) == scales["power of two"].numpy()).all()

# %% [markdown]
# Next to nothing. A power of two moves the exponent and leaves the fraction alone; only
# the top of the range, up to half of it, may go unused. And multiplying by it rounds
# nothing, which pays when a tile has to be scaled again along another axis.
#
# ## In PyTorch
#
# Blocks of any size, with ragged edges: a width of 576 has four whole tiles and a half.

# %%
show(fp8.quantise, fp8.dequantise, docstrings=False)

# %%
show(fp8._scale_inv, fp8.round_to, docstrings=False)

# %% [markdown]
# First part of the ladder: our NumPy, the package and PyTorch's casts agree to the last
# bit, on all 256 codes and on random numbers of all sizes with every halfway point.

# %%
def hard(fmt):
    """Random numbers of all sizes, and what lies halfway between neighbours."""
    rng = np.random.default_rng(0)
    every = fp8.decode(codes, fmt)  # [256]
    every = np.sort(every[np.isfinite(every)])
    halves = (every[1:] + every[:-1]) / 2
    sizes = rng.normal(size=20_000) * 10 ** rng.uniform(-8, 6, 20_000)
    return np.concatenate([sizes, every, halves]).astype(np.float32)  # [N]


rungs = []
for fmt in (E4M3, E5M2):
    x, name, largest = hard(fmt), fmt.name, fmt.largest
    clamped = torch.from_numpy(x).clamp(-largest, largest)  # [N]
    theirs = clamped.to(fmt.dtype)  # [N], a byte each
    ours = nearest(x.astype(float), largest, fmt.mantissa_bits, 1 - fmt.bias)
    numbers = np.isfinite(fp8.decode(codes, fmt))  # [256]
    table = torch.from_numpy(codes).view(fmt.dtype).float()[torch.from_numpy(numbers)]
    as_bytes = theirs.view(torch.uint8)
    rungs += [
        (f"{name}: NumPy = cast", ours, theirs.float(), 0),
        (f"{name}: bytes = the cast's", fp8.encode(x, fmt), as_bytes, 0),
        (f"{name}: all codes = torch's", fp8.decode(codes[numbers], fmt), table, 0),
    ]
x = torch.randn(64, 512).numpy()  # [T, D]
values, scale_inv = fp8.quantise(torch.from_numpy(x))
whole = fp8.dequantise(values, scale_inv, fp8.TILE)  # [T, D]
fake = fp8.fake_quantise(torch.from_numpy(x))  # [T, D]
rungs += [
    ("tiles: NumPy = bytes times scale_inv", tiles_rounded(x, 128), whole, 1e-6),
    ("tiles: without bytes = with bytes", fake, whole, 0),
]
ladder("Formats and tiles", rungs)

# %% [markdown]
# ## Sums are short too
#
# A product of two E4M3 numbers is exact in float32, so what happens to the sum? DeepSeek
# found that Hopper's tensor cores keep about **14 bits** of it. A model of that, and no
# more than a model: an instruction adds 32 products without error, and then what lies
# below the first 14 bits of the running sum is cut off. Cutting off always errs towards
# zero, so the errors do not cancel; they add up with the length $K$ of the sum.
#
# V3's cure is **promotion**: after every 128 products the sum is added to one in float32,
# in another register, and begins again at 0. That is also the moment to multiply by the
# two scales of these 128: tiles need the promotion anyway.

# %%
from deepseek_mini.training.fp8 import short_matmul


def worst(K, **how):
    a, b = (fp8.round_to(torch.randn(s)) for s in ((64, K), (K, 64)))
    exact = a.double() @ b.double()  # [64, 64]
    return float((short_matmul(a, b, **how) - exact).abs().max() / exact.std())


alt = """Largest error of a sum against its length K from 128 to 8,192, both axes
logarithmic. Without promotion it grows to more than one percent; with promotion every
128 products it stays below a tenth of a percent."""
lengths = 2 ** np.arange(7, 14)  # [N]
short = [worst(K) for K in lengths]
promoted = [worst(K, promote_every=128) for K in lengths]
with figure(alt) as fig:
    ax = fig.subplots()
    ax.plot(lengths, short, "o-", label="14 bits")
    ax.plot(lengths, promoted, "s--", label="14 bits, promoted every 128")
    ax.set(xscale="log", yscale="log", xlabel="K, products in a sum", ylim=(1e-4, 0.05))
    ax.set(ylabel="largest error / size of a sum")
    ax.set_xticks(lengths, lengths)
    ax.set_yticks([1e-4, 1e-3, 1e-2], ["0.01%", "0.1%", "1%"])
    ax.minorticks_off()
    ax.legend()
at_4096 = short[5], promoted[5]
print("K = 4096: between 0.5% and 3%:", 0.005 < at_4096[0] < 0.03)
print("promotion makes it ten times smaller:", at_4096[1] < at_4096[0] / 10)
assert 0.005 < at_4096[0] < 0.03 and at_4096[1] < at_4096[0] / 10

# %% [markdown]
# The report says "nearly 2%" at $K = 4096$ on an H800. Our model says about 1%, measured
# against the typical size of a result: the same order, not the same machine.
#
# ## A linear layer in FP8
#
# $Y = X W^\top$ has two more products in its gradient, and V3 rounds the factors of all
# three. ($dY$ is the gradient of the loss by $Y$, likewise $dX$ and $dW$.) Each factor has
# its tiles along the axis that is **summed over**, so that a tile's scale can stand
# outside its part of the sum:
#
# | product | sum over | first factor | second factor |
# |---|---|---|---|
# | $Y$ = $X W^\top$ | input channels | $X$: 1 × 128 | $W$: 128 × 128 |
# | $dX$ = $dY\, W$ | output channels | $dY$: 1 × 128 | $W$: the same bytes |
# | $dW$ = $dY^\top X$ | tokens | $dY$: 128 × 1 | $X$: 128 × 1 |
#
# Square blocks are why $W$ needs no second rounding: they are blocks in either direction.
# $X$ and $dY$ are rounded a second time for $dW$, in tiles of 128 tokens.

# %%
from deepseek_mini.training import fp8 as training_fp8
from deepseek_mini.training.fp8 import FP8Linear, Recipe, use_fp8

show(training_fp8._Product)

# %% [markdown]
# Not rounded: the embedding, the head, gates of experts, norms, the attention core
# (scores, softmax, weighted values), sums, the optimizer and the weights that it changes.
# A small update to a weight would vanish in three bits of fraction.
#
# Second part of the ladder: the layer against float32 products of dequantised bytes, and
# against the sum as a GPU takes it, tile by tile with both scales outside. The sizes are
# not multiples of 128.

# %%
x = torch.randn(200, 300, requires_grad=True)  # [N, D]
linear = torch.nn.Linear(300, 170, bias=False)
grad = torch.randn(200, 170)  # [N, O]
y = FP8Linear(linear, Recipe())(x)  # [N, O]
y.backward(grad)


def as_bytes_and_back(x, *block):
    return fp8.dequantise(*fp8.quantise(x.detach(), block), block)


X, W = as_bytes_and_back(x, 1, 128), as_bytes_and_back(linear.weight, 128, 128)
rows = as_bytes_and_back(grad, 1, 128)  # [N, O]
columns = as_bytes_and_back(grad, 128, 1)  # [N, O]
dW = columns.T @ as_bytes_and_back(X, 128, 1)  # [O, D]
x8, x_scale = fp8.quantise(x.detach())  # [N, D], [N, 3]
w8, w_scale = fp8.quantise(linear.weight.detach(), fp8.BLOCK)  # [O, D], [2, 3]
in_tiles = torch.zeros(200, 170)  # [N, O]
for t, part in enumerate(torch.arange(300).split(128)):
    product = x8[:, part].float() @ w8[:, part].float().T  # [N, O]
    outputs = w_scale[:, t].repeat_interleave(128)[:170]  # [O]
    in_tiles += product * x_scale[:, t, None] * outputs
ladder(
    "FP8Linear",
    [
        ("Y = dequantised product", y, X @ W.T, 1e-5),
        ("Y = scales outside each tile's sum", y, in_tiles, 1e-5),
        ("dX = dequantised product", x.grad, rows @ W, 1e-5),
        ("dW = dequantised product", linear.weight.grad, dW, 1e-5),
    ],
)

# %% [markdown]
# ## How people get it wrong
#
# **The scale turned round.** `weight_scale_inv` sounds like something to divide by. The
# same folder, read with a product, a division, and with its scales transposed:

# %%
sizes = torch.rand(512, 1) * 0.02  # [O, 1]: rows of different sizes
weight = torch.randn(512, 512) * sizes  # [O, D]
values, scale_inv = fp8.quantise(weight, fp8.BLOCK)
readings = {
    "times scale_inv": scale_inv,
    "divided by it": 1 / scale_inv,
    "scales transposed": scale_inv.T.contiguous(),
}
wrong = {
    name: relative(fp8.dequantise(values, s).numpy(), weight.numpy())
    for name, s in readings.items()
}
print(f"times scale_inv:    error {wrong['times scale_inv']:.1%}")
print(f"divided by it:      more than {10**6:,} times too large", end=" ")
print(wrong["divided by it"] > 1e6)
print(f"scales transposed:  error {wrong['scales transposed']:.1%}")
assert wrong["divided by it"] > 1e6 and 0.03 < wrong["scales transposed"] < 0.3

# %% [markdown]
# A division cannot be missed. The **transposed scales** can: blocks of one matrix have
# nearly the same amax, so a square matrix comes out a few percent wrong, and the model
# still talks. Where the matrix is not square, the package refuses:

# %%
values, scale_inv = fp8.quantise(torch.randn(384, 256), fp8.BLOCK)
try:
    fp8.dequantise(values, scale_inv.T)
except ValueError as problem:
    print(problem)
else:
    raise AssertionError("transposed scales were accepted")

# %% [markdown]
# **One scale for a tensor.** It survives tests on random numbers, which have no outliers.
# With one of 1,000, the layer's shapes and its largest outputs are right, and the small
# numbers are gone:

# %%
x = torch.cat([0.001 * torch.randn(8, 256), torch.zeros(8, 256)], dim=1)  # [T, D]
x[3, 300] = 1000
for name, block in (("one scale", (None, None)), ("tiles", (1, 128))):
    kept = fp8.fake_quantise(x, block)  # [T, D]
    zeros = (kept[:, :256] == 0).float().mean()
    print(f"{name:9} {zeros:4.0%} of the small numbers became 0", end="; ")
    print("the error test of the ladder passes:", error(kept, x) < 1e-5)
lost = x[(fp8.fake_quantise(x, (None, None)) == 0) & (x != 0)].abs()  # [n]
print(f"with one scale, numbers up to {lost.max():.4f} became 0")
assert error(fp8.fake_quantise(x, (None, None)), x) < 1e-5
assert abs(lost.max() - 1000 / 448 * 2**-10) < 5e-5

# %% [markdown]
# Notice what the test of the ladder says. An error relative to the *largest* number does not see this bug;
# for scales, compare bytes, or the small numbers by themselves.
#
# ## Does it matter?
#
# Small models over bytes learned Python code: in float32, and with each recipe for FP8,
# from the same weights, on the same text, three seeds. **Tiles have 32 channels here**, a
# quarter of the width; with V3's 128 a row of this model would be a single tile. One more
# float32 run, *nudged*, starts from weights changed by one percent, as good a start. Its
# gap is nothing but noise. The script is `experiments/13_fp8.py`.
#
# **Predict**: which recipe loses most, and how much of a loss of about 2 nats?

# %%
import json
from importlib.resources import files

log = files("deepseek_mini") / "assets/logs/13_fp8.jsonl"
head, *records = [json.loads(line) for line in log.read_text().splitlines()]
runs = [r for r in records if "factor" not in r]
loss = {
    name: np.array([r["loss"] for r in runs if r["recipe"] == name])  # [seeds]
    for name in dict.fromkeys(r["recipe"] for r in runs)
}
gaps = {name: values - loss["float32"] for name, values in loss.items()}  # [seeds]
print(f"{head['hardware']}, torch {head['torch']}, {head['date']}")
print(f"{head['seconds'] / 60:.0f} minutes of processor time,", end=" ")
print(f"{head['parameters']:,} parameters, {head['train']['steps']} steps")
print("                         loss   gap to float32, each seed      mean")
for name, values in loss.items():
    each = " ".join(f"{gap:+.4f}" for gap in gaps[name])
    share = gaps[name].mean() / loss["float32"].mean()
    print(f"{name:24} {values.mean():.3f}   {each}   {share:+8.2%}")

# %%
alt = """Gap in loss to float32, three seeds as dots. All recipes for FP8 lie between 0
and 0.011 above float32, in no clear order; the nudged float32 lies as far below."""
with figure(alt, size=(8, 3.2)) as fig:
    ax = fig.subplots()
    for row, values in enumerate(list(gaps.values())[1:]):
        ax.plot(values, np.full(3, row), "o", ms=8, color=PALETTE[row], ls="none")
    ax.axvline(0, color="black", lw=1, ls="-")
    ax.set_yticks(range(len(gaps) - 1), list(gaps)[1:])
    ax.invert_yaxis()
    ax.set(xlabel="loss above float32 (nats per byte)")
rounded = np.array([gaps[name] for name in gaps if "float32" not in name])  # [4, seeds]
assert rounded.min() > 0 and rounded.max() < 0.012
assert np.abs(gaps["float32, nudged"]).max() > 0.9 * rounded.max()
assert gaps["E4M3, tiles"].mean() > gaps["E4M3, one scale"].mean()

# %% [markdown]
# All of them train. **In the mean FP8 costs 0.1% to 0.4% of the loss**; V3's report says
# less than 0.25%. All twelve gaps are above zero, so a small cost is likely. But a seed's
# gaps share one float32 run, and none is larger than what a nudge of the start does: three
# seeds do not settle the size, or which recipe is best.
#
# **Tiles bring nothing here**, nor do E5M2 and the short sum do harm that could be told
# from noise. This is a negative result, and not a surprising one: a small model after
# 200 steps has no outliers, and sums of at most 1,024 products.
#
# Then the outliers. In the models trained in float32, one channel of each norm's gain was
# multiplied by a factor, and the weights that read this channel were divided by it. In
# float32 that changes nothing.
#
# **Predict**: at which factor does one scale a tensor break?

# %%
read = [r for r in records if "factor" in r]
factors = sorted({r["factor"] for r in read})
names = ["E4M3, tiles", "E4M3, one scale", "E5M2, one scale"]
by = {(r["seed"], r["factor"], r["recipe"]): r["loss"] for r in read}
harm = {
    name: np.array(
        [[by[s, f, name] - by[s, f, "float32"] for f in factors] for s in range(3)]
    )
    for name in names
}  # [seeds, factors] each
alt = """Loss above float32 against the planted factor, 1 to a million. E4M3 with one
scale stays near 0 up to 10,000, then rises to 3 at a million. With tiles it reaches
0.1 there. E5M2 with one scale stays below 0.01."""
with figure(alt) as fig:
    ax = fig.subplots()
    for name in names:
        ax.plot(factors, harm[name].mean(0), "o-", label=name)
    ax.set(xscale="log", xlabel="factor of the planted outlier")
    ax.set_yscale("symlog", linthresh=0.01)
    ax.set(ylabel="loss above float32", ylim=(-0.01, 10))
    ax.legend()
tile, one, e5m2 = (harm[name] for name in names)  # [seeds, factors] each
print("   factor" + "".join(f"{name:>18}" for name in names) + "   (means)")
for i in (4, 5, 6):
    print(f"{factors[i]:9,}", *(f"{x[:, i].mean():+17.4f}" for x in (tile, one, e5m2)))
assert one[:, :5].max() < 0.002 and one[:, 5].min() > 0.02 and one[:, 6].min() > 2
assert tile[:, :6].max() < 0.003 and tile[:, 6].max() < 0.15 and e5m2.max() < 0.006

# %% [markdown]
# One scale is unharmed at 10,000, hurt at 100,000 and destroyed at a million. With tiles
# the damage stays in the outlier's tile, a quarter of this model's width; in V3 it would
# be one of 56. E5M2 has the range for all of this. Are such factors real? In released
# models of billions of parameters, a few activations have been found that are 100,000
# times larger than others (Sun and others), and a 7B model in standard FP8 diverged from
# growing outliers, but only after 200 billion tokens (Fishman and others). That is what
# tiles are for, and what a small model cannot show.
#
# A small version, live: one seed, 60 steps, in float32 and in FP8 with tiles of 32.

# %%
from deepseek_mini.config import GQA, Config, SwiGLU
from deepseek_mini.data import python_code
from torch.nn import functional as F

corpus = python_code()  # modules of Python's standard library
text = "".join(document.text for document in corpus.train)
data = torch.tensor(bytearray(text, "utf-8"), dtype=torch.int64)  # [N]
small = Config(
    vocab_size=256,
    dim=128,
    n_layers=2,
    max_seq_len=64,
    attention=GQA(n_heads=4, n_kv_heads=4, head_dim=32),
    dense=SwiGLU(inter_dim=352),
    init_std=0.05,
)


def trained(recipe=None, steps=60):
    torch.manual_seed(0)
    model, losses = dm.Transformer(small), []
    if recipe is not None:
        use_fp8(model, recipe)
    adam = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95))
    for _ in range(steps):
        start = torch.randint(len(data) - 64, (8, 1))
        window = data[start + torch.arange(65)]  # [B, T + 1]
        loss = F.cross_entropy(model(window[:, :-1]).mT, window[:, 1:])
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        losses.append(loss.item())
    return model, np.array(losses)


plain, in_float32 = trained()
rounded_model, in_fp8 = trained(Recipe(tile=32))

# %%
alt = """Training loss over 60 steps in float32 and in FP8. Both fall from 5.6 to below
3, and the two curves lie on top of each other."""
with figure(alt) as fig:
    ax = fig.subplots()
    ax.plot(in_float32, lw=4, alpha=0.4, label="float32")
    ax.plot(in_fp8, color="black", lw=1, ls="-", label="FP8, tiles of 32")
    ax.set(xlabel="step", ylabel="loss (nats per byte)")
    ax.legend()
ends = in_float32[-10:].mean(), in_fp8[-10:].mean()
print("both learn (below 3.2, guessing is 5.5):", max(ends) < 3.2)
print("the last ten steps differ by less than 0.05:", abs(ends[0] - ends[1]) < 0.05)
names = [n for n, m in rounded_model.named_modules() if isinstance(m, FP8Linear)]
print("in FP8:", *sorted({n.split(".")[-1] for n in names}))
assert max(ends) < 3.2 and abs(ends[0] - ends[1]) < 0.05
assert list(plain.state_dict()) == list(rounded_model.state_dict())

# %% [markdown]
# The checkpoint of a model that trained in FP8 is an ordinary one: the same names, in
# float32. And here is why one scale is enough for it: the largest number that its layers
# read, over a typical one. E4M3 has its full precision over a factor of 28,672.

# %%
ratios = {}


def look(module, inputs):
    x = inputs[0]  # [B, T, D]
    ratios[module] = float(x.abs().max() / x.square().mean().sqrt())


layers = [m for m in rounded_model.modules() if isinstance(m, FP8Linear)]
hooks = [m.register_forward_pre_hook(look) for m in layers]
with torch.no_grad():
    rounded_model(data[:64][None])  # [B, T, V]
for hook in hooks:
    hook.remove()
print(f"{len(ratios)} layers, all below 50: {max(ratios.values()) < 50}")
assert len(ratios) == 14 and max(ratios.values()) < 50
assert E4M3.largest / E4M3.smallest_normal == 28_672

# %% [markdown]
# ## At full size
#
# V3's weights as they are released: what `dm.count` calls attention, feed-forward and
# experts is in FP8, one byte each and four for every block; the rest has two bytes.

# %%
v3 = dm.count(dm.Config.preset("deepseek-v3"))
in_bytes = ("attention", "feed-forward", "routed experts", "shared experts")
eight = sum(v3.parts[name] for name in in_bytes)
rest = v3.parameters - eight
scale_bytes = 4 * eight / 128**2  # blocks that are not full add a few more
share = eight / v3.parameters
print(f"in FP8: {share:.1%} of {v3.parameters / 1e9:.0f} billion weights")
print(f"bfloat16:        {2 * v3.parameters / 1e9:8,.1f} GB")
released = eight + scale_bytes + 2 * rest
print(f"FP8 as released: {released / 1e9:8,.1f} GB, of which scales", end=" ")
print(f"{scale_bytes / 1e9:.2f} GB and other weights {2 * rest / 1e9:.1f} GB")
assert 670e9 < released < 676e9 and share > 0.99
assert round(scale_bytes / eight, 4) == 0.0002
print(f"a number of an activation with its share of a scale: {1 + 4 / 128:.3f} bytes,")
print(f"with UE8M0 {1 + 1 / 128:.3f}")

# %% [markdown]
# (The main model, without the MTP module.) The scales cost 0.02% of the weights and 3%
# of the activations. With them 671 billion parameters need half the memory of bfloat16,
# and an H100 multiplies FP8 at twice the rate of bfloat16 by NVIDIA's data sheet.
#
# ### Two kernels, and their floors
#
# On a GPU two **kernels** (functions that it runs; lesson 20 starts from zero) do the
# work of a product in FP8: one rounds the activations of $M$ tokens to bytes and
# scales, one multiplies them, $K$ channels each, by a matrix of $N$ rows. The time that
# no kernel can beat, its **floor**, is that of the bytes it must read and write, or
# that of its operations, whichever is longer. For an H100 we *assume, and have not
# measured*, 3.0 TB/s of memory and 1,600 TFLOP/s in FP8. The product is the last one of
# V3's attention, from 16,384 channels to 7,168.
#
# **Predict**: for 128 tokens, is it the bytes or the operations? And how long does
# rounding 4,096 tokens take, beside the product that it serves?

# %%
N, K = 7168, 16_384  # output and input channels


def floor(n_bytes, flops=0):
    return 1e6 * n_bytes / 3.0e12, 1e6 * flops / 1600e12  # microseconds


floors = {}
for M in (128, 4096):  # tokens
    scales = 4 * (M * K / 128 + N * K / 128**2)  # bytes
    moved = M * K + N * K + scales + 2 * M * N  # a, b, their scales, and c in bf16
    floors[f"product, {M} tokens"] = floor(moved, 2 * M * N * K)
    floors[f"rounding, {M} tokens"] = floor(M * K * (2 + 1 + 4 / 128))
apart, fused = 4 + 2 + 2 + 1 + 4 / 128, 4 + 1 + 4 / 128  # bytes a number
print("microseconds           bytes  operations")
for name, (moved, computed) in floors.items():
    print(f"{name:21} {moved:6.0f}", f"{computed:11.0f}" if computed else f"{'-':>11}")
print(f"SwiGLU, then rounding: {apart:.1f} bytes a number; in one kernel {fused:.1f}")
few, many = floors["product, 128 tokens"], floors["product, 4096 tokens"]
assert few[0] > 2 * few[1] and many[1] > 7 * many[0]
assert 0.1 < floors["rounding, 4096 tokens"][0] / many[1] < 0.12

# %% [markdown]
# For 128 tokens reading the weights is the floor, for 4,096 the operations. Rounding
# adds a tenth to the large product. Its few operations a number are not counted: what
# matters is to touch memory once, 2 bytes in, 1 and a bit out. After the experts' first
# product SwiGLU comes in between, and there one kernel, `swiglu_quantise`, does both,
# so its result never goes to memory in bf16.
#
# ### Rounding, line by line

# %%
names = ("TILES", "quantise_tiles", "quantise_kernel")
show(*(f"kernels.quantise.{name}" for name in names))

# %% [markdown]
# A GPU runs many copies of a kernel at once, its **programs**; `tl.program_id` is a
# program's number. In `quantise_kernel` each takes `ROWS` = 32 tiles of 128 numbers, at
# the addresses `x + at`. `inside` is a **mask**: where it is false, past the end of a
# row, nothing is read, and the 0 that takes its place changes no amax. (In `TILES`, 89
# means from the L4 on, 90 from the H100 on.) The rest is `quantise_tiles`:
#
# - **`amax`** is a maximum of *integers*. With the sign bit cleared, the bits of floats
#   have the order of the numbers, and NaN is above infinity, so it survives; a maximum
#   of floats drops it.
# - **`scale`** is amax / 448 by `tl.div_rn`, which rounds as a CPU does. A GPU's own
#   `/` may be off by two units in the last place: a number halfway between two codes
#   could then fall to the other side, and bytes would differ from PyTorch's. `divide`
#   keeps the same promise for the tile's 128 numbers, at less cost: it divides once and
#   corrects products with the reciprocal. `float8e4nv` is E4M3.
# - A tile of zeros gets the scale 1. `UE8M0` adds the largest fraction and clears the
#   fraction's bits, which rounds up to a power of two.
#
# ### The product
#
# The picture first. One shade is one scale, and eight strips stand for 128 rows.
# **Tensor cores** are the GPU's units for matrix products.

# %%
def shaded(ax, x, y, width, height, shade, color):
    ax.barh(y + height / 2, width, height, left=x, color=color, alpha=shade, lw=0)


def framed(ax, x, y, width, height):
    ax.barh(y + height / 2, width, height, left=x, fill=False, ec="black", lw=2)


def draw_product(fig, m=0, n=1, step=2):
    """a [M, K] over b [N, K] with one axis K, and the result c [M, N] beside."""
    ax, rng = fig.subplots(), np.random.default_rng(1)
    ax.set(xlim=(-3.5, 36), ylim=(24.5, -2.5))
    ax.axis("off")
    for x in range(0, 16, 4):
        for y in np.arange(0, 8, 0.5):
            shaded(ax, x, y, 3.9, 0.42, rng.uniform(0.15, 1), PALETTE[0])
        for y in range(11, 23, 4):
            shaded(ax, x, y, 3.9, 3.9, rng.uniform(0.15, 1), PALETTE[1])
        ax.text(x + 2, -0.5, f"step {x // 4}", ha="center", fontsize=9)
    for y in (0, 4):
        for x in (22, 26, 30):
            shaded(ax, x, y, 3.9, 3.9, 0.2, PALETTE[2])
    framed(ax, 4 * step, 4 * m, 3.9, 3.9)
    framed(ax, 4 * step, 11 + 4 * n, 3.9, 3.9)
    framed(ax, 22 + 4 * n, 4 * m, 3.9, 3.9)
    look = {"fontsize": 9, "va": "center"}
    ax.text(-0.4, 4, "a\n[M, K]", ha="right", **look)
    ax.text(-0.4, 17, "b\n[N, K]", ha="right", **look)
    ax.text(28, -0.9, "c [M, N]", ha="center", **look)
    ax.text(8, 8.8, "a scale for every 1 × 128", ha="center", **look)
    ax.text(8, 23.8, "a scale for every 128 × 128", ha="center", **look)
    lines = (
        "One program, step 2:",
        "128 × 128 numbers of a, 128 scales;",
        "128 × 128 numbers of b, one scale;",
        "their product, from 0, on tensor cores,",
        "times the scales,",
        "is added to c's block in float32.",
    )
    ax.text(20, 16.5, "\n".join(lines), linespacing=1.6, **look)

# %%
alt = """Two matrices of shaded tiles above each other with K as their common axis, in
four steps. Above, a: thin strips, each a shade of blue of its own. Below, b: large
orange squares, each of one shade. Framed are, in step 2, one block of strips of a and
one square of b. To the right the result c in six green blocks, one of them framed."""
with figure(alt, size=(10, 6)) as fig:
    draw_product(fig)

# %%
show("kernels.fp8_matmul.TILES", "kernels.fp8_matmul.fp8_matmul_kernel")

# %% [markdown]
# A program makes one block of the result, `BLOCK_M` by `BLOCK_N`, both 128 on a GPU.
#
# - The first lines turn its number into `m` and `n`: down `GROUP` blocks of rows, then
#   across, so that programs of the same time share what they read.
# - **`a.load`, `b.load`** fetch [128, 128] bytes each (`STEP` is 128). `a` and `b` are
#   *descriptors*: address and shape for the copy engine (TMA), which brings blocks to
#   **shared memory**, near the tensor cores, with 0 beyond the edges; `num_stages` = 4
#   steps are under way.
# - **`scale`** is one column of `a_scale` times a single number of `b_scale`: a block of
#   the result never reaches over two blocks of `b`.
# - **`tl.dot(x, w.T)`** multiplies on the tensor cores. It has no third argument to add
#   to: every 128 products the sum begins again at 0. What it returned is scaled and
#   added to `total` in float32, by ordinary arithmetic, in **registers**: a thread's
#   own numbers. This one line is the promotion, and the scales.
# - At the end `total` is rounded once, to bf16, and `inside` masks the ragged edges.
#
# It is the loop `in_tiles` of the ladder above. Why 8 **warps**, groups of 32 threads
# that share a program's work? Two blocks of sums are alive at once, `total` and the
# result of `tl.dot`:

# %%
for warps in (4, 8):
    each = 2 * 128 * 128 / (32 * warps)  # registers of a thread for both sums
    print(f"{warps} warps: {each:.0f} registers for the sums; a thread has at most 255")
stages, step = 4, 2 * 128 * 128  # a block of a, a block of b, a byte each
print(f"shared memory for the steps under way: {stages * step / 1024:.0f} KB of 227")
assert 2 * 128 * 128 / (32 * 4) > 255 and stages * step == 128 * 1024

# %% [markdown]
# With 4 the compiler *spills*: what does not fit goes to memory. With 8 it does not,
# and the code holds `QGMMA`, the H100's FP8 instruction; the tests compile it and check
# both, for which no GPU is needed. With few tokens, as the floors say, only reading
# counts: 128 tokens or fewer get narrower blocks, so that more are at work.
#
# The experts' products are the grouped kernel of lesson 08 with this loop
# (`kernels/grouped_fp8.py`). Here are both through Triton's **interpreter**,
# which runs them on a CPU and rounds to FP8 and bf16 as a GPU does. *At most* is the
# bound. For the rounding, an error of 0 means the same bytes. After SwiGLU, whose
# exponential may differ in its last bit, a byte may be its neighbour: at most 32 of 448
# away. The product's bound is one step of bf16.

# %%
from deepseek_mini.lesson import gpu_section, interpreted_section

interpreted_section("quantise")
interpreted_section("fp8_matmul")

# %% [markdown]
# And at full size, on a GPU:

# %% tags=["nbval-ignore-output"]
gpu_section("quantise")
gpu_section("fp8_matmul")

# %% [markdown]
# The product needs an H100 or newer, the rounding an L4 or newer: older NVIDIA GPUs do
# not convert to FP8. A kernel called on a T4 says so; what this lesson emulates runs
# there as it does on a CPU.
#
# ## What this proves, and what it does not
#
# - Proved: rounding, scales and bytes are exactly those of PyTorch's casts for both
#   formats; the layer computes what its three rounded products say.
# - Emulated: sums here are float32, in another order than a GPU's. The short sum is a
#   model with one number in it, not a measurement of a tensor core.
# - Measured: half a million parameters, 200 steps, three seeds. Outliers of real
#   models come with size and long training; ours were planted.
# - Not shown: V3's own gap of less than 0.25%; its wider format for the input of `wo`
#   (E5M6, §3.3.3), its bfloat16 optimizer states, its communication in FP8; and any gain
#   in speed. Emulation takes longer than float32.
# - Interpreted, at small sizes: the bytes and scales of rounding are the package's, and
#   the products within one step of bf16. An interpreter sums in float32, so what 14
#   bits do to the sum it does not show. **No kernel has run on a GPU yet: its speed is
#   not known**, and the floors rest on assumed rates.
#
# ## Exercises
#
# The [exercises](../exercises/13_fp8.ipynb), about an hour: the nearest number, scales of
# tiles, scales in a byte, a released matrix, and the three products. (After `make lab`,
# take your own copy in `work/`.)
#
# ## References
#
# - *DeepSeek-V3*, arXiv 2412.19437, §3.3 (the recipe), §3.3.2 (accumulation) and §3.5.2;
#   `inference/kernel.py` and `README_WEIGHTS.md` of its repository. V3.1's
#   `inference/configs/config_v3.1.json` names the UE8M0 scales.
# - P. Micikevicius and others, *FP8 Formats for Deep Learning*, arXiv 2209.05433, §3.
# - Open Compute Project, *Microscaling Formats (MX) Specification*: UE8M0 is its E8M0.
# - M. Sun and others, *Massive Activations in Large Language Models*, arXiv 2402.17762.
# - M. Fishman and others, *Scaling FP8 Training to Trillion-Token LLMs*, arXiv 2409.12517:
#   outliers that grow in SwiGLU after hundreds of billions of tokens.

# ===== exercises =====
# %% [markdown]
# # 13 · FP8: exercises
#
# Five exercises on lesson 13, about an hour in all. Write your answer where a cell
# raises `NotImplementedError`, run that cell and the one after it; `check` prints one
# line, and a hint when something is not right yet. What your function prints appears
# below the hint, for the inputs that failed. Every exercise has the formulas it needs
# and none needs another one: leave out what you like. Two rules for all five: never
# write into an input (the caller still needs it), and return the dtype that is asked for.

# %%
import numpy as np
import torch

from deepseek_mini import fp8
from deepseek_mini.lesson import check, setup

setup(seed=0)

# %% [markdown]
# ## 13.1 The nearest number of E4M3
#
# *A few lines, 12 minutes.* Return for each element of `x` (float64, any shape) the
# nearest number of E4M3, as float64. NumPy only, please, and no cast to eight bits,
# which would leave nothing to do. (A *warning* that 0 has no logarithm does no harm.)
#
# - From $2^p$ to $2^{p+1}$, with $p$ from −6 to 8, neighbours are $2^{p-3}$ apart.
# - Below $2^{-6}$, down to 0, they are as far apart as just above it: $2^{-9}$.
# - The largest number is 448. What is larger becomes 448.
# - Halfway between two neighbours, the one that is an *even* number of steps is taken
#   (`np.rint` rounds halves to even).
# - Negative numbers behave like positive ones. There is no NaN and no infinity in `x`,
#   but there may be zeros.
#
# By hand: $0.3$ has $p = -2$ and steps of $1/32$, so it is 9.6 steps, rounded 10, and
# $10/32 = 0.3125$. $17$ has steps of 2 and is 8.5 steps; the even one is 8, and so 16.
# $19$ is 9.5 of them, and becomes 10 steps, 20. $0.003$ is 1.536 steps of $2^{-9}$; rounded 2, that is 0.00390625.
# And $-5.3$ has steps of 1/2 and becomes $-5.5$.

# %%
def to_e4m3(x: np.ndarray) -> np.ndarray:
    """The nearest numbers of E4M3: float64, of the shape of x."""
    ### BEGIN SOLUTION
    size = np.minimum(np.abs(x), 448.0)
    power = np.floor(np.log2(np.maximum(size, 2.0**-6)))
    step = 2.0 ** (power - 3)
    return np.sign(x) * np.rint(size / step) * step
    ### END SOLUTION

# %%
# To try it, take away the # of the next line. It should print
# [0.3125, 16.0, 20.0, 0.00390625, -5.5, -448.0, 0.0]
# print(to_e4m3(np.array([0.3, 17, 19, 0.003, -5.3, -1000, 0])).tolist())
check("13.1", to_e4m3)

# %% [markdown]
# ## 13.2 The scales of tiles
#
# *A few lines, 10 minutes.* `x` [T, D] holds activations, float32. Cut each row into
# tiles of `size` channels; the last tile of a row may be shorter. Return each tile's
# `scale_inv`, float32 [T, n], where $n$ is $D$ / size rounded up: the largest absolute
# value in the tile, its *amax*, divided by 448. For a tile of zeros the scale is 1.
#
# By hand, with tiles of two: the row $(448, -896, 4.48, 0, 0)$ has three tiles. The
# largest absolute values are 896, 4.48 and 0, so the scales are 2, 0.01 and 1. The row
# $(44.8, 0, 0, 0, -4.48)$ below it has its own: 0.1, 1 and 0.01.

# %%
def tile_scales(x: torch.Tensor, size: int) -> torch.Tensor:
    """x [T, D]: the scale_inv of each tile, [T, n]."""
    ### BEGIN SOLUTION
    tiles = x.split(size, dim=1)  # n tensors [T, size] or narrower
    amax = torch.stack([tile.abs().amax(dim=1) for tile in tiles], dim=1)  # [T, n]
    return torch.where(amax == 0, 1.0, amax / 448)
    ### END SOLUTION

# %%
# To try it, take away the # of the next three lines. It should print
# [2.0, 0.01, 1.0] [0.1, 1.0, 0.01]
# rows = torch.tensor([[448, -896, 4.48, 0, 0], [44.8, 0, 0, 0, -4.48]])  # [T, D]
# scales = tile_scales(rows, 2).tolist()  # T lists of n
# print(*([round(s, 6) for s in row] for row in scales))
check("13.2", tile_scales)

# %% [markdown]
# ## 13.3 Scales in one byte
#
# *A few lines, 8 minutes.* DeepSeek-V3.1 stores a scale as a power of two in one byte,
# UE8M0: **u**nsigned (no sign), **8** bits of **e**xponent, **0** of fraction, the
# **m**antissa. For the largest absolute values `amax` of tiles (float64, any shape),
# return the codes, whole numbers of the same shape (in any integer dtype):
#
# $$\text{code} = \left\lceil \log_2 \frac{\max(\text{amax}, 10^{-4})}{448} \right\rceil
#   + 127.$$
#
# `np.maximum` compares element by element. Divide before you take the logarithm:
# $\log_2 a - \log_2 448$ is the same on paper, but not in float64, and where it should
# be a whole number it may be a hair above.
#
# By hand: amax 448 gives $\lceil 0 \rceil + 127 = 127$, which is the scale 1. Amax 449
# needs the next power, 128. Amax 0 or $10^{-6}$ counts as $10^{-4}$: $\log_2(10^{-4}/448) = -22.1$,
# rounded up −22, and the code is 105.

# %%
def ue8m0(amax: np.ndarray) -> np.ndarray:
    """The UE8M0 codes of scales for these amax: whole numbers."""
    ### BEGIN SOLUTION
    power = np.ceil(np.log2(np.maximum(amax, 1e-4) / 448))
    return power.astype(int) + 127
    ### END SOLUTION

# %%
# To try it, take away the # of the next line. It should print
# [127, 128, 105, 105, 118]
# print(ue8m0(np.array([448.0, 449.0, 0.0, 1e-6, 0.5])).tolist())
check("13.3", ue8m0)

# %% [markdown]
# ## 13.4 Reading a released matrix
#
# *Some thought, 12 minutes.* `values` [M, N] is a matrix in `torch.float8_e4m3fn`, in
# square blocks of `size` × `size`; those at the lower and right edge may be smaller.
# `scale_inv` [m, n] has a scale for each block, float32, as released folders do. Return
# the matrix in float32: each block times its scale.
#
# By hand, with blocks of three and a matrix [4, 5] of ones: there are two rows and two
# columns of blocks, the last ones not full. With the scales $(10, 20)$ and $(30, 41)$
# the first three rows become 10, 10, 10, 20, 20 and the last one 30, 30, 30, 41, 41.

# %%
def dequantise(
    values: torch.Tensor, scale_inv: torch.Tensor, size: int
) -> torch.Tensor:
    """values [M, N], scale_inv [m, n]: the matrix in float32 [M, N]."""
    ### BEGIN SOLUTION
    M, N = values.shape
    scale = scale_inv.repeat_interleave(size, dim=0)[:M]  # [M, n]
    scale = scale.repeat_interleave(size, dim=1)[:, :N]  # [M, N]
    return values.float() * scale
    ### END SOLUTION

# %%
# To try it, take away the # of the next three lines. It should print
# the row [10.0, 10.0, 10.0, 20.0, 20.0] three times, then the row
# [30.0, 30.0, 30.0, 41.0, 41.0]
# ones = torch.ones(4, 5).to(torch.float8_e4m3fn)  # [M, N]
# scales = torch.tensor([[10.0, 20.0], [30.0, 41.0]])  # [m, n]
# print(*dequantise(ones, scales, 3).tolist(), sep="\n")
check("13.4", dequantise)

# %% [markdown]
# ## 13.5 The three products
#
# *From the paper, 20 minutes*
# ([DeepSeek-V3](https://arxiv.org/abs/2412.19437), §3.3.2 and §3.5.2). A linear layer
# $Y = X W^\top$ computes three products: $Y$ itself, and when the gradient $dY$ comes
# back, $dX = dY\, W$ and $dW = dY^\top X$.
# Round **both factors of each** to E4M3 and return the three, float32:
# `y` [N, O], `dx` [N, D], `dw` [O, D].
#
# - The factors `x` [N, D] and `grad` ($dY$) [N, O] are rounded in tiles of `size` numbers
#   along the axis that *their product sums over*.
# - `weight` [O, D] is rounded in square blocks, `size` × `size`, and once for both of its
#   products.
# - What is kept of $X$ for the third product is its *rounded* form from the first one,
#   and that is rounded again. $dY$ is rounded from itself each time.
#
# `fp8.fake_quantise(t, (rows, columns))` returns a matrix rounded in blocks of so many
# rows and columns; blocks at the edges may be smaller. By hand, with tiles of two: the row
# $(448, 17)$ of $X$ has the scale 1, and 17 becomes 16. The weights $(1, 0.3)$ have the
# scale $1/448$; $0.3 \cdot 448 = 134.4$ becomes 128, and so 0.2857. Their product is
# $448 + 16 \cdot 0.2857 = 452.571$.

# %%
def three_products(
    x: torch.Tensor, weight: torch.Tensor, grad: torch.Tensor, size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x [N, D], weight [O, D], grad [N, O]: y [N, O], dx [N, D], dw [O, D]."""
    ### BEGIN SOLUTION
    x = fp8.fake_quantise(x, (1, size))  # [N, D]
    weight = fp8.fake_quantise(weight, (size, size))  # [O, D]
    y = x @ weight.T  # [N, O]
    dx = fp8.fake_quantise(grad, (1, size)) @ weight  # [N, D]
    x = fp8.fake_quantise(x, (size, 1))  # [N, D]
    dw = fp8.fake_quantise(grad, (size, 1)).T @ x  # [O, D]
    return y, dx, dw
    ### END SOLUTION

# %%
# To try it, take away the # of the next six lines. It should print
# [452.571, 5.643, 12.357, 150.503]
# [1.003, 0.306, 1.058, 0.111, 0.036, 0.234]
# [448.033, 16.735, 5.357, 134.422, 5.278, 3.482]
# x = torch.tensor([[448.0, 17.0, 0.0], [0.3, 7.0, 50.0]])  # [N, D]
# weight = torch.tensor([[1.0, 0.3, 0.2], [0.01, 0.07, 3.0]])  # [O, D]
# grad = torch.tensor([[1.0, 0.3], [0.11, 0.07]])  # [N, O]
# three = three_products(x, weight, grad, 2)  # [N, O], [N, D], [O, D]
# for product in three:
#     print([round(v, 3) for v in product.flatten().tolist()])
check("13.5", three_products)

# %% [markdown]
# Next: lesson 14 puts everything together into DeepSeek-V3.
