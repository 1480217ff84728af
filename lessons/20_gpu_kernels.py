# %% [markdown]
# # 20 · GPU kernels: what waits for what
#
# Take an H100 that multiplies bfloat16 matrices at 800 TFLOP/s and reads its memory at
# 3 TB/s. (We assume these two figures throughout the course; they are not measured here.)
# For each byte that arrives it could do 267 operations. An RMSNorm does less than one.
# What share of the machine can it ever use?
#
# - **You will build** three kernels in Triton: a sum of vectors, the RMSNorm that a block
#   runs twice, and a matrix product in tiles. You will count every byte they move, place
#   them on the roofline, compile them for a GPU that is not here, and break them in five
#   ways.
# - **You need** lesson 02 (RMSNorm). **No GPU**: kernels are interpreted, so they are right
#   here, and slow. What is fast is computed, not measured.
# - **Time**: about 50 minutes, and an hour and a quarter for the exercises.

# %%
import numpy as np
import torch

from deepseek_mini.lesson import PALETTE, error, figure, ladder, setup, show
from deepseek_mini.lesson.interpreting import interpreted, tl, triton

setup(seed=0)

# %%
RATE, BANDWIDTH = 800e12, 3e12  # FLOP/s of bf16 products, bytes/s: assumed
flop = 1 + 2 + 1 + 1  # a number: add, square and sum, times 1/rms, times the weight
moved = 2 * (2 + 2)  # bytes a number: two are read, two are written, in bf16
ridge = RATE / BANDWIDTH
print(f"the machine: {ridge:.0f} FLOP for each byte")
print(f"residual + RMSNorm: {flop / moved:.2f} FLOP for each byte")
print(f"so it can use {flop / moved / ridge:.2%} of the arithmetic")
assert round(ridge) == 267 and flop / moved / ridge < 0.0025

# %% [markdown]
# The arithmetic of an RMSNorm is free. All that counts is how often its numbers travel. To
# a matrix product the opposite happens, if it is written well. This lesson is about the
# difference.
#
# ## The machine
#
# An H100 has 132 **multiprocessors** (SMs). Each has registers and a piece of fast memory
# of its own; all share a cache and the large memory outside the chip. (Sizes by NVIDIA.)
#
# | where | how much | who sees it |
# |---|---|---|
# | **registers** | 256 KB in each SM, at most 255 numbers of 4 bytes a thread | one thread |
# | **shared memory** | 227 KB in each SM | the threads of one program |
# | **L2 cache** | 50 MB | all; managed by the machine |
# | **HBM** | 80 GB, at 3 TB/s | all |
#
# A **kernel** is a function that runs many times at once. Each run is a **program** (a
# thread block, in NVIDIA's words): it has a number, works on its own **tile** of the data,
# and runs on one SM from its start to its end. Programs do not talk to each other and come
# in no order. All programs of a launch are its **grid**. A program has threads, in **warps**
# of 32; in Triton you write what the program does with a whole tile, and the compiler
# divides it among the threads.
#
# ## By hand: ten numbers, three programs
#
# Add two vectors of 10 numbers with tiles of 4. That takes three programs:
#
# | program $p$ | its places $i$, $4p$ and on | of which exist |
# |---|---|---|
# | 0 | 0, 1, 2, 3 | all |
# | 1 | 4, 5, 6, 7 | all |
# | 2 | 8, 9, 10, 11 | 8, 9 |
#
# A tile always has its full width: program 2 has four **lanes** like the others. Two of
# them must neither load nor store. A **mask** says which: $i < 10$. Each of the ten numbers
# is loaded twice (from $x$ and from $y$) and stored once, four bytes each in float32:
# $10 \cdot 3 \cdot 4 = 120$ bytes.
#
# ## In NumPy: a grid is a loop
#
# Run the programs one after the other and nothing is left of the mystery. A pointer is an
# array and a place in it. A masked lane loads nothing: it gets `other`.

# %%
def load(array, i, mask, other):
    return np.where(mask, array[np.where(mask, i, 0)], other)  # [BLOCK]


def store(array, i, values, mask):
    array[i[mask]] = values[mask]


def add_in_numpy(program, x, y, out, n, BLOCK):
    i = program * BLOCK + np.arange(BLOCK)  # [BLOCK]
    inside = i < n  # [BLOCK]
    total = load(x, i, inside, 0.0) + load(y, i, inside, 0.0)
    store(out, i, total, inside)
    print(f"program {program}: places", *i, "  inside", *inside.astype(int))


rng = np.random.default_rng(0)
x, y, out = rng.normal(size=10), rng.normal(size=10), np.full(10, np.nan)  # [n] each
for program in range(3):
    add_in_numpy(program, x, y, out, n=10, BLOCK=4)
assert (out == x + y).all()

# %% [markdown]
# ## In Triton
#
# The same lines. `tl` is Triton's language; `@triton.jit` makes a kernel of a function;
# `tl.constexpr` marks what is known when it is compiled, as every tile's size must be (a
# power of two). `kernel[grid](...)` launches it.
#
# A tensor arrives in a kernel as a **pointer** to its first number. `x + i` is the pointer
# `i` numbers further on, and with a tile `i` it is a tile of pointers, one a lane.
# `tl.load(pointers, mask, other)` gives the numbers there, and in masked lanes the third
# argument. **Without it what they hold is undefined**: on a GPU it can be anything. Here that
# does no harm, since those lanes are not stored. `tl.store(pointers, values, mask)` stores.

# %%
@triton.jit
def add_kernel(x, y, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    total = tl.load(x + i, inside) + tl.load(y + i, inside)
    tl.store(out + i, total, inside)


x, y = torch.randn(10), torch.randn(10)  # [n] each
with interpreted() as seen:
    out = torch.full((10,), torch.nan)  # [n]
    add_kernel[(3,)](x, y, out, 10, BLOCK=4)
    print("equal to torch:", torch.equal(out, x + y))
    print(seen)
    assert torch.equal(out, x + y) and seen.moved == 120

# %% [markdown]
# What happened? A kernel is compiled for a GPU. Triton also has an **interpreter** that runs
# the programs one after the other in NumPy, as we did. Outside of a notebook you ask for it
# by setting `TRITON_INTERPRET=1` *before Python starts*: Triton decides when a function is
# decorated. Here `interpreted()` switches for a block of code, so that the same notebook can
# also compile. It adds four things:
#
# - The stock interpreter gets bf16 and FP8 wrong without a word; the package mends it.
# - It counts what is loaded and stored.
# - It watches every address. An interpreter follows a wrong one like a GPU does, and takes
#   the notebook with it. We call this **the watch**; below it finds programs that meet.
# - It puts NaN (into integers a large number) where Triton says "undefined", so that a
#   forgotten third argument shows.
#
# The package's version of this kernel differs in one thing: it counts places in 64 bits.
# $2^{31}$ numbers are 4 GB of bf16; V3's weights have 300 times as many.

# %%
show("kernels.vector_add.add_kernel", "kernels.vector_add.add", docstrings=False)

# %% [markdown]
# ## RMSNorm: a row a program
#
# A block adds its output to the residual stream and normalises the sum:
# $h = \text{residual} + x$, $y = h \cdot w / \sqrt{\mathrm{mean}(h^2) + \varepsilon}$. A sum
# over a row needs the whole row, so give each program a row. V3's has 7,168 numbers; the
# next power of two is 8,192, and the mask does the rest. Masked lanes get the third argument
# of `tl.load`, here 0, which adds nothing to the sum. The mean divides by `D`, not by
# `BLOCK`. `h_out.dtype.element_ty` is the type of the numbers that `h_out` points to.

# %%
show("kernels.rmsnorm.add_rmsnorm_kernel")

# %% [markdown]
# Notice what is *not* there: nothing is stored between the sum and the norm. `h` is loaded
# never, `stream` is used again from the registers. That is **fusion**, and it is the whole
# gain. PyTorch's eager operations go through memory one by one. **Predict**: how many bytes
# a number do they move, where the kernel moves 8?
#
# Notice also what is rounded: `h`, because the stream is stored in bf16 and the norm is
# that of what is stored; and `unit`, before the weight, because the module of lesson 02 and
# DeepSeek's do: they cast back to bf16 and then multiply. A kernel that takes a
# module's place should round where it rounds. (Exercise 20.3 rounds once, at the end.)
#
# A dispatch mode sees each operation's inputs and outputs:

# %%
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Bytes(TorchDispatchMode):
    """What eager operations read and write (a view would count: here is none)."""

    moved = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, out)) if isinstance(t, torch.Tensor)]
        self.moved += sum(t.nbytes for t in tensors)
        return out


def eager(x, residual, weight, eps=1e-6):
    h = residual + x  # [T, D]
    wide = h.float()  # [T, D]
    unit = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return weight * unit.to(h.dtype), h  # [T, D] each


T, D = 16, 896  # an eighth of V3's width
x, residual = torch.randn(2, T, D).bfloat16()  # [T, D] each
weight = (1 + 0.3 * torch.randn(D)).bfloat16()  # [D]
with Bytes() as counted:
    wanted = eager(x, residual, weight)  # [T, D] each
print(f"eager: {counted.moved / (T * D):.1f} bytes a number")
with interpreted() as seen:
    from deepseek_mini.kernels.rmsnorm import add_rmsnorm, reference

    y, h = add_rmsnorm(x, residual, weight)  # [T, D] each
    once = (seen.moved - 2 * T * D - 4 * T) / (T * D)
    print(f"fused: {once:.1f} bytes a number, and the weight for each row (from L2);")
    print(f"{counted.moved / (T * D) / once:.1f} times as many")
    assert once == 8 and counted.moved / (T * D) > 5 * once

# %% [markdown]
# (For each row the kernel loads the weight and stores 1/rms, which the backward pass wants.
# The weight stays in the cache: 14 KB in V3, which everybody reads.) Both wait for memory
# all the time, so by the roofline their times compare as their bytes do. Are they right? A
# **ladder** compares step by step, the simplest thing first. Its first part, against float64
# and against the module of lesson 02:

# %%
with interpreted():
    from deepseek_mini.kernels.vector_add import add
    from deepseek_mini.model.norm import RMSNorm

    norm = RMSNorm(D, eps=1e-6)
    x, residual = torch.randn(2, 3, D)  # [T, D] each
    exact = reference(x.double(), residual.double(), norm.weight.double())[0]
    rungs = [("kernel: x + y = torch", add(x, residual), x + residual, 0)]
    y, h = add_rmsnorm(x, residual, norm.weight)  # [T, D] each
    rungs += [
        ("RMSNorm, float32 = float64", y, exact, 1e-6),
        ("RMSNorm, float32 = the module", y, norm(residual + x), 1e-6),
    ]
    x, residual = x.bfloat16(), residual.bfloat16()
    y, h = add_rmsnorm(x, residual, norm.weight.bfloat16())
    exact = reference(x.double(), residual.double(), norm.weight.double())[0]
    rungs += [("RMSNorm, bf16 within four roundings", y, exact, 4 * 2**-8)]
    ladder("Two kernels", rungs)

# %% [markdown]
# ## The roofline
#
# A kernel can take no less than its arithmetic does, and no less than its memory does:
#
# $$t \ge \max\left(\frac{\text{FLOP}}{\text{rate}},\
#   \frac{\text{bytes}}{\text{bandwidth}}\right).$$
#
# The larger one is its **floor**. FLOP for each byte is its **intensity**; below the
# **ridge** of 267 memory is the limit, above it arithmetic. Here is every kernel of this
# course at the released models' sizes, from the same declarations that `make bench-gpu`
# measures on a GPU. (FP8 products: 1,600 TFLOP/s, also assumed. Many names belong to other
# lessons, which the last column gives: the other columns are enough here.)

# %%
from importlib import import_module

KERNELS = {  # the kernel, a word of its case's name, and the lesson that reads it
    "x + y": ("vector_add", "x + y", "20"),
    "residual + RMSNorm": ("rmsnorm", "RMSNorm,", "02"),
    "RoPE": ("rope", "RoPE", "03"),
    "matrix product": ("matmul", "18432", "20"),
    "MLA prefill": ("mla_prefill", "prefill, 8192", "04"),
    "gate": ("gate", "V3, 32768", "08"),
    "MoE layer, 4,096 tokens": ("moe_layer", "V3, 4096", "08"),
    "MoE layer, 128 tokens": ("moe_layer", "V3, 128", "08"),
    "MLA decode, 128 heads": ("mla_decode", "1 x 128 heads, context 8192", "09"),
    "MLA decode, 16 heads": ("mla_decode", "1 x 16 heads", "09"),
    "quantisation": ("quantise", "1 x 128 quantisation for V3", "13"),
    "FP8 product, 4,096 rows": ("fp8_matmul", "product, 4096", "13"),
    "FP8 product, 128 rows": ("fp8_matmul", "product, 128", "13"),
    "V3 layer, 4,096 tokens": ("decoder_layer", "prefill: 1 x 4096", "14"),
    "V3 layer, writing 128 texts": ("decoder_layer", "decode: 128", "14"),
}
floors = {}
with interpreted():
    print(f"{'':28}{'GFLOP':>8}{'GB':>8}{'intensity':>11}{'floor, us':>11}", end="")
    print(f"  {'limit':11}read in")
    for name, (module, word, lesson) in KERNELS.items():
        cases = import_module(f"deepseek_mini.kernels.cases.{module}").cases
        case = next(c for c in cases("cuda", small=False) if word in c.name)
        rate = RATE * (2 if "FP8" in name else 1)
        times = {"memory": case.moved / BANDWIDTH, "arithmetic": case.flops / rate}
        limit = max(times, key=times.get)
        floors[name] = case.flops / case.moved, limit, rate
        print(f"{name:28}{case.flops / 1e9:8,.0f}{case.moved / 1e9:8.2f}", end="")
        print(f"{floors[name][0]:11,.1f}{1e6 * times[limit]:11,.0f}", end="")
        print(f"  {limit:11}{lesson}")
    limits = [limit for _, limit, _ in floors.values()]
    assert limits.count("memory") > limits.count("arithmetic") >= 3

# %% [markdown]
# (Where the declaration counts no arithmetic there is a 0: a few operations a number.) Most
# of a model's kernels wait for memory; so does a whole layer of 256 experts, whose weights
# must be fetched whether 128 tokens use them or 4,096. MLA decoding with 128 heads stands
# near the ridge, and so it needs both.

# %%
alt = """The roofline on two log axes: TFLOP/s at most against FLOP for each byte. It
rises to 800 at 267, for FP8 to 1,600 at 533. On the slope, from left to right: x + y
and RMSNorm below 1, experts for 128 tokens, a V3 layer that writes, MLA decode with 16
heads, experts for 4,096 tokens, and near the ridge MLA decode with 128 heads. On the
flat parts MLA prefill, the matrix product, and above them the FP8 product."""
PLACES = {  # of names, where they would lie upon each other
    "MLA decode, 128 heads": (-8, 5, "right"),
    "MoE layer, 4,096 tokens": (-8, 3, "right"),
    "FP8 product, 128 rows": (8, -15, "left"),
    "MLA prefill": (-4, 6, "center"),
    "matrix product": (8, -14, "left"),
    "FP8 product, 4,096 rows": (0, 7, "center"),
}
with figure(alt, size=(9, 4.2)) as fig:
    ax, x = fig.subplots(), np.logspace(-1.2, 4.4, 300)  # [N]
    for rate, style in ((RATE, "-"), (2 * RATE, ":")):
        ax.plot(x, np.minimum(rate, x * BANDWIDTH) / 1e12, style, color="black", lw=1.2)
    if floors:
        floors["residual + RMSNorm"] = flop / moved, "memory", RATE  # counted above
    for name, (intensity, limit, rate) in floors.items():
        height = min(rate, intensity * BANDWIDTH) / 1e12
        if intensity == 0 or name == "V3 layer, 4,096 tokens":
            continue  # not counted, or a point that lies upon another
        color = PALETTE[0 if limit == "memory" else 1]
        ax.plot(intensity, height, "o", color=color, ls="none")
        *place, side = PLACES.get(name, (8, -5, "left"))
        ax.annotate(name, (intensity, height), place, ha=side, fontsize=8,
                    textcoords="offset points")  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="FLOP for each byte")
    ax.set(ylabel="TFLOP/s at most", ylim=(0.1, 6000), xlim=(0.06, 3e4))

# %% [markdown]
# (Blue: memory is the limit. Orange: arithmetic. Dotted: FP8.)
#
# ## A product in tiles
#
# $C = AB$ with $A$ [M, K], $B$ [K, N]: $2MNK$ operations on $MK + KN + MN$ numbers. With
# 8,192 on each side that is an intensity of 2,731, ten times the ridge, *if each number is
# loaded once*. But it is needed 8,192 times, and 400 MB fit into no cache.
#
# So a program makes a tile of $C$, `BLOCK_M` × `BLOCK_N`. It needs `BLOCK_M` rows of $A$ and
# `BLOCK_N` columns of $B$, and goes through them in steps of `BLOCK_K`: load a tile of each,
# multiply, add to a sum that stays in registers. A loaded number of $A$ is used `BLOCK_N`
# times, one of $B$ `BLOCK_M` times. In bf16 the intensity of such a step is
#
# $$\frac{2 \cdot \mathrm{BLOCK\_M} \cdot \mathrm{BLOCK\_N} \cdot \mathrm{BLOCK\_K}}
#   {2 \cdot (\mathrm{BLOCK\_M} + \mathrm{BLOCK\_N}) \cdot \mathrm{BLOCK\_K}}
#   = \frac{\mathrm{BLOCK\_M} \cdot \mathrm{BLOCK\_N}}{\mathrm{BLOCK\_M} + \mathrm{BLOCK\_N}}.$$

# %%
from matplotlib.patches import Rectangle


def grouped(program, rows, columns, group):
    """Row and column of a program's tile, as `tile_of` has them."""
    first = program // (group * columns) * group
    high = min(rows - first, group)
    rest = program % (group * columns)
    return first + rest % high, rest // high


def draw_tiles(ax, shape, color, coloured, dark=()):
    for place in np.ndindex(*shape):
        here = coloured(*place)
        alpha = 0.45 if here and place not in dark else 1
        face = color if here else "white"
        tile = Rectangle(place[::-1], 1, 1, fc=face, ec="#888888", alpha=alpha)
        ax.add_patch(tile)
    ax.set(xlim=(-0.1, shape[1] + 0.1), ylim=(shape[0] + 0.1, -0.1), aspect="equal")
    ax.axis("off")

# %%
alt = """Left: three grids of tiles, A, B and C = AB. One tile of C is dark; the row of
tiles of A and the column of tiles of B that it needs are coloured, one tile of each
darker. Right: two 6 by 6 grids of tiles of C with the order of programs; the first nine
are coloured: in rows they need 2 rows of A and 6 columns of B, in groups of three rows
3 and 3."""
with figure(alt, size=(11, 3.1)) as fig:
    axes = fig.subplots(1, 5, width_ratios=(6, 5, 5, 6, 6))
    draw_tiles(axes[0], (4, 6), PALETTE[0], lambda i, j: i == 1, [(1, 2)])
    draw_tiles(axes[1], (6, 5), PALETTE[1], lambda i, j: j == 3, [(2, 3)])
    draw_tiles(axes[2], (4, 5), PALETTE[2], lambda i, j: (i, j) == (1, 3), [(1, 3)])
    for ax, title in zip(axes, ("A  [M, K]", "B  [K, N]", "C = AB  [M, N]")):
        ax.set_title(title, fontsize=10)
    for ax, group in zip(axes[3:], (1, 3)):
        order = {grouped(p, 6, 6, group): p for p in range(36)}
        draw_tiles(ax, (6, 6), PALETTE[2], lambda i, j: order[i, j] < 9)
        for (i, j), p in order.items():
            ax.text(j + 0.5, i + 0.5, p, ha="center", va="center", fontsize=8)
        ax.set_title(f"order of programs, GROUP = {group}", fontsize=10)
for group in (1, 3):
    first = [grouped(p, 6, 6, group) for p in range(9)]
    needed = [len({tile[axis] for tile in first}) for axis in (0, 1)]
    print(f"GROUP = {group}: nine programs need {needed[0]} rows of tiles of A", end="")
    print(f" and {needed[1]} columns of B: {sum(needed)}")
    assert sum(needed) == (8 if group == 1 else 6)

# %% [markdown]
# Programs with near numbers run at the same time, 132 and more of them. If they lie in a
# square they share rows and columns, and what one has loaded the others find in L2. That is
# `GROUP`, in `tile_of`.
#
# Two more things to read the kernel. **Places**: number $(m, k)$ of $A$ [M, K] lies at place
# $mK + k$. **Tiles with two axes**: as in NumPy, `m[:, None]` is a column, `k[None, :]` a row,
# and `m[:, None] * K + k[None, :]` is a tile of places. By hand, with rows 0 and 1 and a step
# of two along $K = 3$:
#
# $$\begin{pmatrix} 1&2&3 \\ 4&5&6 \end{pmatrix}: \quad
#   \begin{pmatrix} 0 \\ 1 \end{pmatrix} \cdot 3 + \begin{pmatrix} 0&1 \end{pmatrix}
#   = \begin{pmatrix} 0&1 \\ 3&4 \end{pmatrix}, \qquad
#   \begin{pmatrix} 0 \\ 1 \end{pmatrix} \cdot 3 + \begin{pmatrix} 2&3 \end{pmatrix}
#   = \begin{pmatrix} 2&3 \\ 5&6 \end{pmatrix}.$$
#
# The first step loads $1, 2, 4, 5$. In the second, places 3 and 6 belong to column 3, which
# does not exist: place 3 is the 4 of the next row, and place 6 is outside. So the mask asks
# for the row *and* the column: `(m[:, None] < M) & (k[None, :] < K)`.

# %%
show("kernels.matmul.tile_of", "kernels.matmul.matmul_kernel", docstrings=False)

# %% [markdown]
# Read the masks. Rows beyond M and columns beyond N may compute what they like, since they
# are not stored. But along K everything is added up, so lanes beyond K must be 0. They need
# it in *both* factors: 0 times what is in the other one is 0, unless that is NaN or infinite.
#
# **Predict**: 96 × 64 times 64 × 128 in tiles of 16 × 16, of 32 × 32, of 32 × 64. Which moves
# how many bytes?

# %%
def run_matmul(a, b, BLOCK_M, BLOCK_N, BLOCK_K, precision="ieee", GROUP=2):
    from deepseek_mini.kernels.matmul import matmul_kernel

    (M, K), N = a.shape, b.shape[1]
    out = a.new_full((M, N), torch.nan)  # [M, N]
    programs = -(-M // BLOCK_M) * -(-N // BLOCK_N)
    tile = BLOCK_M, BLOCK_N, BLOCK_K, GROUP, precision
    matmul_kernel[(programs,)](a, b, out, M, N, K, *tile)
    return out


M, N, K = 96, 128, 64
a, b = torch.randn(M, K).bfloat16(), (torch.randn(K, N) / 8).bfloat16()
for BM, BN, BK in ((16, 16, 32), (32, 32, 32), (32, 64, 32), (32, 64, 16)):
    with interpreted() as seen:
        out = run_matmul(a, b, BM, BN, BK)
        counted = seen.flops / seen.loaded
        print(f"{BM} x {BN} x {BK}: {seen}")
        print(f"    intensity of what is loaded {counted:.1f},", end=" ")
        print(f"formula {BM * BN / (BM + BN):.1f}")
        assert np.isclose(counted, BM * BN / (BM + BN))
        assert error(out, a.double() @ b.double()) < 2**-7

# %% [markdown]
# `BLOCK_K` changes nothing: it is a question of how far ahead to load, not of how much. The
# second part of the ladder is about the edges, with sizes that no tile divides.

# %%
with interpreted():
    from deepseek_mini.kernels.matmul import matmul

    rungs = []
    for M, N, K in ((33, 70, 31), (1, 5, 200), (64, 64, 64)):
        a, b = torch.randn(M, K), torch.randn(K, N) * K**-0.5
        name = f"{M} x {K} times {K} x {N}"
        exact = a.double() @ b.double()  # [M, N]
        rungs += [(f"float32, {name}", matmul(a, b), exact, 1e-6)]
        a, b = a.bfloat16(), b.bfloat16()
        exact = a.double() @ b.double()  # [M, N]
        rungs += [(f"bf16, {name}", matmul(a, b), exact, 2**-8)]
    ladder("A product with ragged edges, against float64", rungs)

# %% [markdown]
# ## How large a tile?
#
# Larger tiles, fewer bytes. Two things stop them. The tile's sum lives in **registers**:
# `BLOCK_M` × `BLOCK_N` numbers of float32 among 32 × `num_warps` threads, each of which has
# 255 at most and needs some for addresses. And the tiles on their way wait in **shared
# memory**: `num_stages` steps are loaded ahead of the one that is multiplied, so that the
# arithmetic never waits, and `num_stages` × (`BLOCK_M` + `BLOCK_N`) × `BLOCK_K` × 2 bytes
# must fit into 227 KB.
#
# Choose a tile for 8,192 × 8,192 × 8,192 in bf16. Two points on the roofline belong to it: if
# every load came from HBM, and if L2 caught all but the first. (Menus need a running
# notebook; below are four settings.)

# %%
from deepseek_mini.lesson import Choice, settings_figure, slider_figure


def tile_facts(m, n, k, warps, stages):
    """Intensity, shared memory in KB, float32 sums a thread: and whether that fits."""
    shared = stages * (m + n) * k * 2 / 1024
    sums = m * n / (32 * warps)
    return m * n / (m + n), shared, sums, shared <= 227 and sums <= 200


def draw_roofline(fig, m, n, k, warps, stages):
    intensity, shared, sums, fits = tile_facts(m, n, k, warps, stages)
    ax = fig.subplots()
    x = np.logspace(-1, 4, 200)  # [N]
    ax.plot(x, np.minimum(RATE, x * BANDWIDTH) / 1e12, color="black", lw=1.5, ls="-")
    ends = {"all from HBM": (intensity, 1), "L2 catches all": (8192 / 3, 0)}
    for label, (at, number) in ends.items():
        color = PALETTE[number] if fits else "#888888"
        height = min(RATE, at * BANDWIDTH) / 1e12
        ax.plot(at, height, "o", color=color, label=label, ls="none")
    ax.set(xscale="log", yscale="log", ylim=(0.2, 2000), xlabel="FLOP for each byte")
    ax.set(ylabel="TFLOP/s at most")
    ax.legend(loc="upper left", fontsize=8)
    verdict = "fits" if fits else "TOO LARGE"
    said = f"{shared:.0f} KB, {sums:.0f} sums a thread: {verdict}"
    ax.set_title(said, fontsize=9, color="black" if fits else PALETTE[1])


SIZES = (16, 32, 64, 128, 256)
widget = slider_figure(
    draw_roofline,
    alt="The roofline, and a tile of {m} x {n} x {k} with {warps} warps on it.",
    size=(6, 3.6),
    m=Choice(SIZES, start=128, label="BLOCK_M"),
    n=Choice(SIZES, start=256, label="BLOCK_N"),
    k=Choice((16, 32, 64, 128), start=64, label="BLOCK_K"),
    warps=Choice((4, 8, 16), start=8, label="num_warps"),
    stages=Choice((1, 2, 3, 4, 5), start=3, label="num_stages"),
)

# %%
settings = {
    "16 × 16 × 64": {"m": 16, "n": 16, "k": 64, "warps": 4, "stages": 3},
    "128 × 128 × 64": {"m": 128, "n": 128, "k": 64, "warps": 8, "stages": 3},
    "128 × 256 × 64": {"m": 128, "n": 256, "k": 64, "warps": 8, "stages": 3},
    "256 × 256 × 64": {"m": 256, "n": 256, "k": 64, "warps": 8, "stages": 3},
}
settings_figure(
    draw_roofline,
    settings,
    alt="""Four tiles on the roofline. From HBM alone 16 x 16 could reach 24 TFLOP/s,
    128 x 128 192, 128 x 256 256; 256 x 256 would reach 384, but has 256 sums a thread
    and does not fit. With L2 all would reach 800.""",
    size=(13, 3.2),
)
for name, tile in settings.items():
    intensity, shared, sums, fits = tile_facts(**tile)
    print(f"{name:15} intensity {intensity:5.1f}, {shared:3.0f} KB,", end=" ")
    print(f"{sums:3.0f} sums a thread, fits: {fits}")
fits = [tile_facts(**tile)[3] for tile in settings.values()]
assert fits == [True, True, True, False]

# %% [markdown]
# No tile that fits comes near the ridge of 267: 85 is the best of these. The rest must come
# from L2, and so from the order of programs. This is also why a product with few rows
# (decoding!) is lost: with $M = 16$ a number of $B$ is used 16 times, whatever the tile,
# and nobody else wants it.
#
# How many programs share an SM at once (its **occupancy**) follows from the same two sizes:
# with 144 KB of shared memory there is room for one. A matrix product can live with that,
# because it loads ahead. An RMSNorm does not load ahead: while one program waits, another
# must be there to go on. Ours takes eight warps of about 50 registers a thread, so of 65,536
# registers in an SM there are enough for four or five.
#
# ## Tensor cores
#
# `tl.dot` becomes instructions of the **tensor cores**, which multiply small matrices at
# once. (They take at least 16 numbers along K: a GPU's compiler refuses a smaller
# `BLOCK_K`, the interpreter takes any.) Which one decides the speed, and it depends on the
# tile:
#
# - **HMMA** (since 2017): one warp, 16 rows. An H100 has it too, but reaches its full rate
#   only with
# - **HGMMA** (Hopper; QGMMA for FP8): a *warp group* of four warps, **64 rows**, both factors
#   straight from shared memory. Blackwell's is UTCHMMA.
#
# No GPU is needed to see which it becomes. Triton brings NVIDIA's assembler along:

# %%
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path


def machine_code(arch, m, n, k, warps, stages):
    """The tensor-core instructions and the bytes of spilled registers."""
    from deepseek_mini.kernels.matmul import matmul_kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = dict.fromkeys(("a", "b", "out"), "*bf16") | dict.fromkeys("MNK", "i32")
    sizes = {"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k, "GROUP": 8, "PRECISION": "ieee"}
    aligned = {(i,): [["tt.divisibility", 16]] for i in range(6)}
    types = {name: types.get(name, "constexpr") for name in matmul_kernel.arg_names}
    source = ASTSource(matmul_kernel, types, sizes, aligned)
    options = {"num_warps": warps, "num_stages": stages}
    made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(made.asm["cubin"])
        lines = [tools / "nvdisasm", "-c"], [tools / "cuobjdump", "-res-usage"]
        said = [
            subprocess.run([*line, path], capture_output=True, text=True).stdout
            for line in lines
        ]
    found = {x for x in ("HMMA", "HGMMA") if re.search(rf"\b{x}\b", said[0])}
    return found, int(re.search(r"STACK:(\d+)", said[1])[1])

# %%
with interpreted():  # nothing runs: the block is left where there is no Triton
    for arch, tile, warps, wanted in (
        (80, (64, 128, 64), 4, "HMMA"),
        (90, (16, 128, 64), 4, "HMMA"),
        (90, (64, 128, 64), 4, "HGMMA"),
        (90, (128, 256, 64), 4, "HGMMA"),
        (90, (128, 256, 64), 8, "HGMMA"),
    ):
        found, spilled = machine_code(arch, *tile, warps, 3)
        size = " x ".join(map(str, tile))
        print(f"sm_{arch}, {size:14} {warps} warps: {', '.join(found):6}", end="")
        print("registers spilled" if spilled else "nothing spilled")
        assert found == {wanted} and bool(spilled) == (tile[1] == 256 and warps == 4)

# %% [markdown]
# A tile of 16 rows leaves the fast instruction of an H100 unused, and nothing says so: the
# result is right. Public MLA kernels in Triton use tiles of 16 heads; lesson 09's takes 64.
# And a tile of 128 × 256 in four warps needs 256 sums a thread, one more than there are
# registers. What does not fit is **spilled**: it travels through memory in the innermost
# loop. Eight warps, two warp groups, mend it. `tools/compile_gate.py` asserts both for every
# kernel of the package, for three generations of GPUs.
#
# ## How people get it wrong
#
# **A mask forgotten.** The mean squares of rows of three numbers, in tiles of four. The
# rows lie one behind the other. **Predict**: what does the fourth lane load?

# %%
@triton.jit
def mean_square_kernel(x, out, D, BLOCK: tl.constexpr, MASK: tl.constexpr):
    row, i = tl.program_id(0), tl.arange(0, BLOCK)
    h = tl.load(x + row * D + i, (i < D) if MASK else (i < BLOCK), 0.0)
    tl.store(out + row, tl.sum(h * h, axis=0) / D)


x = torch.tensor([[1.0, 2, 2], [4, 4, 2], [1, 1, 5]])  # [T, D]
for mask in (True, False):
    with interpreted():
        out = torch.full((2,), torch.nan)  # [rows]
        mean_square_kernel[(2,)](x, out, 3, BLOCK=4, MASK=mask)
        print("with a mask:" if mask else "without:    ", *(f"{v:.2f}" for v in out))
        assert torch.equal(out, x[:2].square().mean(-1)) == mask
with interpreted():
    from deepseek_mini.lesson.watch import MemoryFault

    try:
        mean_square_kernel[(3,)](x, torch.empty(3), 3, BLOCK=4, MASK=False)
    except MemoryFault as problem:
        print("three rows:", problem)

# %% [markdown]
# The first number of the next row, which is in the tensor: no interpreter and no GPU
# objects. $(1 + 4 + 4 + 16)/3 = 8.33$ instead of 3. Only the last row leaves the tensor. On
# a GPU that is usually allowed memory too, and the kernel works until, one day, it is not.
#
# **Programs that meet.** Each adds its part to one sum. One after the other, as here, that
# is right; on a GPU they load the old sum at the same time, and one part is lost. So a
# *right result of an interpreter proves nothing about races*. The watch objects as soon as
# two programs use one place and one of them stores there. `tl.atomic_add` does it in one
# piece:

# %%
@triton.jit
def total_kernel(x, total, n, BLOCK: tl.constexpr, ATOMIC: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    part = tl.sum(tl.load(x + i, i < n, 0.0), axis=0)
    if ATOMIC:
        tl.atomic_add(total, part)
    else:
        tl.store(total, tl.load(total) + part)


x = torch.arange(10.0)  # [n]
for atomic in (False, True):
    with interpreted():
        total = torch.zeros(1)
        try:
            total_kernel[(3,)](x, total, 10, BLOCK=4, ATOMIC=atomic)
            print("atomic:", total.item())
            assert atomic and total.item() == 45
        except MemoryFault as problem:
            print("load, add, store:", problem)

# %% [markdown]
# **A sum in bf16.** Tensor cores sum in float32, but what is kept between the steps is up
# to you. **Predict**: 1 and then 1,023 times $2^{-13}$, 16 a step, with `total` in bf16?
# And: what is the error of a float32 product that does not say `input_precision="ieee"`?

# %%
@triton.jit
def dot_kernel(a, b, out, K, TYPE: tl.constexpr):
    m, n = tl.arange(0, 16)[:, None], tl.arange(0, 16)[None, :]
    total = tl.zeros((16, 16), TYPE)
    for start in range(0, K, 16):
        x = tl.load(a + m * K + (start + n))
        y = tl.load(b + (start + m) * 16 + n)
        total += tl.dot(x, y).to(TYPE)
    tl.store(out + m * 16 + n, total.to(tl.float32))


a, b = torch.full((16, 1024), 2.0**-13).bfloat16(), torch.ones(1024, 16).bfloat16()
a[:, 0] = 1
wide, narrow = torch.randn(16, 96), torch.randn(96, 16)  # [M, K], [K, N]
with interpreted():
    for name, dtype in (("float32", tl.float32), ("bf16", tl.bfloat16)):
        out = torch.empty(16, 16)
        dot_kernel[(1,)](a, b, out, 1024, dtype)
        print(f"summed in {name:8} {out[0, 0]:.4f}")
        assert (out[0, 0] == 1) == (name == "bf16")
    for precision, bounds in (("tf32", (1e-5, 1e-2)), ("ieee", (0, 1e-6))):
        out = run_matmul(wide, narrow, 16, 16, 32, precision)
        wrong = error(out, wide.double() @ narrow.double())
        print(f"float32 product, {precision}: error up to {bounds[1]:g}:", end=" ")
        print(bounds[0] < wrong < bounds[1])
        assert bounds[0] <= wrong < bounds[1]

# %% [markdown]
# In bf16 the sum never leaves 1: the next number above it is $1 + 2^{-7}$, and what is
# less than half of that is lost, 64 times. And `tl.dot` of float32 is **TF32** unless you
# say otherwise: tensor cores read 10 bits of the fraction, as many as fp16 has. The package
# imitates it, so that a test on a CPU sees the error of a GPU.
#
# **The wrong judge.** What does Triton's interpreter itself make of $1.5 + 1$ in bf16? This
# runs in a process of its own, without the package:

# %%
STOCK = """
import torch, triton, triton.language as tl

@triton.jit
def add_kernel(x, y, out):
    tl.store(out, tl.load(x) + tl.load(y))

x, y = torch.tensor([1.5]).bfloat16(), torch.tensor([1.0]).bfloat16()
out = torch.empty_like(x)
add_kernel[(1,)](x, y, out)
print(f"{out.item():.3g}")
"""


@triton.jit
def one_sum_kernel(x, y, out):
    tl.store(out, tl.load(x) + tl.load(y))


with interpreted():
    x, y = torch.tensor([1.5]).bfloat16(), torch.tensor([1.0]).bfloat16()
    out = torch.empty_like(x)
    one_sum_kernel[(1,)](x, y, out)
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / "stock.py").write_text(STOCK)
        env = {**os.environ, "TRITON_INTERPRET": "1"}
        line = [sys.executable, str(path)]
        said = subprocess.run(line, env=env, capture_output=True, text=True).stdout
    print("stock interpreter: 1.5 + 1 =", said.strip())
    print(f"mended:            1.5 + 1 = {out.item()}")
    assert out.item() == 2.5 and float(said) > 1e38

# %% [markdown]
# It keeps a bf16 as a 16-bit integer, and adds integers. Tests that used it would prove
# nothing. (Seen in Triton 3.6 and 3.9. The package mends these two, and refuses versions
# that it does not know.)
#
# ## Does it matter?
#
# Whether tiles pay can be measured without a GPU, since every machine has a memory that is
# slower than its arithmetic. Here are five operations that make a residual addition and an
# RMSNorm of 2,048 × 7,168 numbers in float32, on one CPU core. All rows at once, each
# operation goes through 59 MB, more than the cache holds. Or a tile of some rows after the
# other: then the next operation finds the tile in the cache. The script is
# `experiments/20_gpu_kernels.py`.
#
# **Predict**: how many times faster is the best tile? One row, 32 rows, 1,024? (Read and
# write each operation's numbers: 40 bytes a number. Only the first reads and the last
# writes: 16.)

# %%
import json
from importlib.resources import files

log = files("deepseek_mini") / "assets/logs/20_gpu_kernels.jsonl"
head, *records = [json.loads(line) for line in log.read_text().splitlines()]
ms = {
    kind: {r["rows"]: r["ms"] for r in records if r["kind"] == kind}
    for kind in ("copy", "product", "fresh", "reused")
}
copy, product = ms["copy"][head["rows"]], ms["product"][1024]
here = 16 * head["rows"] * head["width"] / copy / 1e6, 2 * 1024**3 / product / 1e6
print(f"{head['hardware']}, one core, torch {head['torch']}, {head['date']}")
print(f"copies {here[0]:.0f} GB/s, multiplies {here[1]:.0f} GFLOP/s:", end=" ")
print(f"ridge {here[1] / here[0]:.1f} FLOP for each byte")
alt = """Milliseconds against rows in a tile, log axes. Both curves fall from one row to
about 32 and rise again from 256 on. Results in new tensors: 102, 37, 90. Results in
tensors that exist: 70, 24, 34. A line at 15 is a copy."""
with figure(alt, size=(7.5, 3.4)) as fig:
    ax = fig.subplots()
    for kind, label in {"fresh": "new tensors", "reused": "existing tensors"}.items():
        ax.plot(ms[kind].keys(), ms[kind].values(), "o-", label=f"results in {label}")
    ax.axhline(copy, color="black", lw=1, ls="--", label="a copy: the floor")
    ax.set(xscale="log", yscale="log", xlabel="rows in a tile", ylabel="milliseconds")
    ax.set_xticks([1, 4, 16, 64, 256, 2048], [1, 4, 16, 64, 256, "2,048: all"])
    ax.set_yticks([15, 25, 40, 60, 100], [15, 25, 40, 60, 100])
    ax.minorticks_off()
    ax.legend(fontsize=8)
for kind, times in ms.items():
    if kind in ("fresh", "reused"):
        best = min(times, key=times.get)
        print(f"{kind:6} best: {best} rows,", end=" ")
        print(f"{times[2048] / times[best]:.1f} times as fast as all at once,", end=" ")
        print(f"{times[best] / copy:.1f} times a copy")
assert ms["fresh"][2048] > 2 * ms["fresh"][32] and ms["fresh"][1] > 2 * ms["fresh"][32]
assert 1.3 < ms["reused"][2048] / ms["reused"][32] < 2.5 < 40 / 16 + 0.1

# %% [markdown]
# Tiles pay, and there is a best size: too small, and starting an operation costs more than
# it does; too large, and the cache is too small. But **less than counting says**: 1.4 times
# where bytes promise 2.5, because this core's arithmetic is not free: even from the cache
# it takes 1.6 times a copy. What looks like the larger gain, 2.4 times, is for the most
# part another one: results in *new* tensors get memory from the system page by page, unless
# they are small enough to be used again.
#
# On an H100, with a ridge of 267 in place of 5, bytes should be nearer to the whole truth.
# That is an argument, not a measurement. Your own machine, 512 rows:

# %% tags=["nbval-ignore-output"]
import time


def step(x, residual, w, h, y):
    torch.add(residual, x, out=h)
    torch.square(h, out=y)
    inverse = torch.rsqrt(y.mean(-1, keepdim=True) + 1e-6)  # [T, 1]
    torch.mul(h, inverse, out=y)
    y.mul_(w)


tensors = list(torch.randn(4, 512, 7168).unbind())  # [T, D] each: x, residual, h, y
w, took = torch.ones(7168), {1: [], 32: [], 512: []}
for rows in list(took) * 5:
    began = time.perf_counter()
    for start in range(0, 512, rows):
        x, residual, h, y = (t[start : start + rows] for t in tensors)
        step(x, residual, w, h, y)
    took[rows].append(time.perf_counter() - began)
for rows, times in took.items():
    print(f"tiles of {rows:3} rows: {1e3 * min(times):6.1f} ms")

# %% [markdown]
# ## At full size
#
# The floors above are what the course's kernels are measured against: each has a goal, a
# share of its floor, and `make bench-gpu` runs them all on a GPU and compares. No kernel has
# run on one yet, and until one has, nothing is claimed but that they are right (by the
# interpreter, against float64) and what they compile to. This cell runs the matrix product
# if there is a GPU:

# %% tags=["nbval-ignore-output"]
from deepseek_mini.lesson import gpu_section

gpu_section("matmul")

# %% [markdown]
# Where to read on, in each lesson's section "At full size":
#
# | lesson | kernel | what is new in it |
# |---|---|---|
# | 02 | residual + RMSNorm | the backward pass: sums over rows without meeting |
# | 03 | RoPE, with the norm of the latent | two operations in one pass |
# | 04 | attention on a long text | a softmax that never holds a row (exercise 20.4) |
# | 08 | gate, sort, grouped product | tiles of uneven groups |
# | 09 | MLA decoding | 64 heads a tile; the context split among programs |
# | 13 | FP8 products | scales inside of the loop, promotion, QGMMA |
# | 14 | a whole layer of V3 | all of them, one after the other |
#
# ## What this proves, and what it does not
#
# - Proved: the kernels equal PyTorch and float64 at ragged sizes, in float32 and bf16; they
#   leave no tensor, and no two programs meet.
# - Counted: bytes and operations, live; the formulas for tiles are those counts.
# - Seen: the instructions and the spills of compiled code, for GPUs that are not here.
# - Assumed: 800 and 1,600 TFLOP/s and 3 TB/s. The table of floors stands and falls with them.
# - Measured: tiles on one CPU core, where they bring 1.4 times for an RMSNorm, not the 2.5
#   of the count.
# - Not shown: any speed on a GPU. That a floor is reached is a claim that only a GPU can
#   make; `make bench-gpu` is ready for one.
#
# ## Exercises
#
# The [exercises](../exercises/20_gpu_kernels.ipynb), about an hour and a quarter: the floor
# of a product, then four kernels: a scaled sum, RMSNorm, a softmax in pieces, and a product
# with ragged edges. (After `make lab`, take your own copy in `work/`.)
#
# ## References
#
# - P. Tillet and others, *Triton: An Intermediate Language and Compiler for Tiled Neural
#   Network Computations*, 2019. Its tutorials 01 to 03 are a sum, a softmax, a product.
# - S. Williams and others, *Roofline: An Insightful Visual Performance Model*, 2009.
# - NVIDIA, *H100 Tensor Core GPU Architecture*: the sizes of the table above; *CUDA C++
#   Programming Guide*, compute capability 9.0: 255 registers, 227 KB.
# - M. Milakov, N. Gimelshein, *Online normalizer calculation for softmax*, arXiv 1805.02867.
# - *DeepSeek-V3*, arXiv 2412.19437, §3.3: what its kernels do in FP8.

# ===== exercises =====
# %% [markdown]
# # 20 · GPU kernels: exercises
#
# Five exercises on lesson 20, about an hour and a quarter in all. Write your answer where a
# cell raises `NotImplementedError`, run that cell and the one after it; `check` prints one
# line, and a hint when something is not right yet. Every exercise has the formulas it needs
# and none needs another one: leave out what you like.
#
# 20.2 to 20.5 are kernels in Triton. `check` launches them through its interpreter, on a
# CPU, in seconds; every address is checked, so a forgotten mask gives a sentence and not a
# crash. (Triton exists for Linux. On another system, open this notebook in Colab.) What you
# need of the language:
#
# | | |
# |---|---|
# | `tl.program_id(0)` | the number of this program along axis 0 of the grid |
# | `tl.arange(0, BLOCK)` | 0, 1, ..., BLOCK − 1: a tile [BLOCK] |
# | `i[:, None]`, `i[None, :]` | as in NumPy, and so is broadcasting |
# | `x + i` | a tile of pointers: to places `i` of `x`, counted in numbers |
# | `tl.load(x + i, mask, other)` | the numbers there; `other` where the mask is False, **undefined without `other`** |
# | `tl.store(x + i, value, mask)` | stores them, where the mask is True |
# | `tl.zeros((M, N), tl.float32)` | a tile of zeros |
# | `tl.sum(t, axis=0)`, `tl.max(t, axis=0)` | over an axis |
# | `tl.exp`, `tl.sqrt`, `tl.rsqrt`, `tl.maximum(a, b)` | number by number |
# | `t.to(tl.float32)` | as another type |
# | `tl.dot(a, b, total)` | total + a b, for tiles [M, K] and [K, N]; of bf16 it gives float32 |
# | `for start in range(0, n, BLOCK):` | a loop |
# | `-float("inf")` | minus infinity |
#
# Masks are combined by `&`, with brackets: `(i < n) & (j < m)`. (The interpreter lets pass
# what a GPU's compiler refuses, as `and`, or an `if` about a tile.) Where a lane is undefined
# the check puts NaN. Tensors are contiguous: row `r` of `x` [rows, D] begins at place
# `r * D`, and number $(m, k)$ of `a` [M, K] lies at place $mK + k$. The sizes of tiles are the
# caller's choice, each program does its own part, and each number of `out` is stored once.

# %%
import torch

from deepseek_mini.lesson import check, setup
from deepseek_mini.lesson.interpreting import interpreted, tl, triton

setup(seed=0)

# %% [markdown]
# ## 20.1 The floor of a product
#
# *A few lines, 8 minutes.* In Python. A matrix [M, K] times a matrix [K, N], numbers of
# `size` bytes, on a machine that does `rate` TFLOP/s and moves `bandwidth` TB/s. Return how
# many **microseconds** it takes at least, and what says so, `"compute"` or `"memory"`:
#
# - a number of the result takes K products and as many additions;
# - both factors are loaded once, and the result is stored once;
# - computing and moving happen at the same time, so the longer one counts.
#
# By hand: 1,000 × 2,000 times 2,000 × 3,000 is $2 \cdot 6 \cdot 10^9$ operations; at 100
# TFLOP/s that takes 120 microseconds. $2 + 6 + 3 = 11$ million numbers of 2 bytes, at 2 TB/s,
# take 11. The floor is 120, "compute". With one row instead of 1,000 the times are 0.12 and
# $(2000 + 6 \cdot 10^6 + 3000) \cdot 2 / 2 \cdot 10^{-6} = 6.005$: "memory".

# %%
def product_floor(
    M: int, N: int, K: int, size: int, rate: float, bandwidth: float
) -> tuple[float, str]:
    """Microseconds at least, and "compute" or "memory"."""
    ### BEGIN SOLUTION
    compute = 2 * M * N * K / (rate * 1e6)
    memory = size * (M * K + K * N + M * N) / (bandwidth * 1e6)
    return (compute, "compute") if compute > memory else (memory, "memory")
    ### END SOLUTION

# %%
# To try it, take away the # of the next two lines. They should print
# (120.0, 'compute') and (6.005, 'memory')
# print(product_floor(1000, 3000, 2000, 2, 100, 2))
# print(product_floor(1, 3000, 2000, 2, 100, 2))
check("20.1", product_floor)

# %% [markdown]
# ## 20.2 A scaled sum
#
# *A few lines, 10 minutes.* Store $x_i + \text{scale} \cdot y_i$ in `out`, for all $n$
# numbers. Program $p$ has the places $p \cdot \mathrm{BLOCK}$ to
# $(p + 1) \cdot \mathrm{BLOCK} - 1$, of which the last program's may not all exist; the grid
# has $n / \mathrm{BLOCK}$ programs, rounded up. No lane may load or store where there is no
# number. Load each number once.

# %%
@triton.jit
def scaled_sum_kernel(x, y, out, n, scale, BLOCK: tl.constexpr):
    """out [n] = x [n] + scale * y [n]; a program for every BLOCK numbers."""
    ### BEGIN SOLUTION
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    total = tl.load(x + i, inside) + scale * tl.load(y + i, inside)
    tl.store(out + i, total, inside)
    ### END SOLUTION

# %%
# To try it, take away the # of the next five lines. It should print
# [0.0, 21.0, 42.0, 63.0, 84.0, 105.0, 126.0, 147.0, 168.0, 189.0]
# x, y = torch.arange(10.0), 10 * torch.arange(10.0)  # [n] each
# out = torch.empty(10)  # [n]
# with interpreted():
#     scaled_sum_kernel[(3,)](x, y, out, 10, 2.0, BLOCK=4)
# print(out.tolist())
check("20.2", scaled_sum_kernel)

# %% [markdown]
# ## 20.3 RMSNorm, a row a program
#
# *Some thought, 15 minutes.* `x` holds rows of `D` numbers, each row `stride` numbers after
# the one before, $\text{stride} \ge D$. **What lies between them is not yours**: here it is
# NaN, on a GPU it may be anything. `weight`
# is [D], `out` is [rows, D] without gaps. Program $r$ does row $r$:
#
# $$y_i = \frac{x_i}{\sqrt{\frac1D \sum_{j < D} x_j^2 + \text{eps}}} \cdot w_i.$$
#
# BLOCK is a power of two, at least D. Rows and weight may be bf16: compute in float32, and
# `tl.store` rounds the result to the type of `out`. Load each number of `x` once.
#
# By hand: the row $(3, 4)$ in a tile of four, eps 0: the mean square is $25/2$ (not
# $25/4$), its root 3.5355, and with the weights 1 and 10 the result is $(0.8485, 11.3137)$.

# %%
@triton.jit
def rms_norm_kernel(x, weight, out, stride, D, eps, BLOCK: tl.constexpr):
    """out [rows, D]: RMSNorm of the rows of x, which lie stride numbers apart."""
    ### BEGIN SOLUTION
    row, i = tl.program_id(0), tl.arange(0, BLOCK)
    inside = i < D
    h = tl.load(x + row * stride + i, inside, 0.0).to(tl.float32)
    w = tl.load(weight + i, inside, 0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(h * h, axis=0) / D + eps)
    tl.store(out + row * D + i, h * inverse * w, inside)
    ### END SOLUTION

# %%
# To try it, take away the # of the next six lines. It should print
# [[0.8257, 11.0096], [1.3762, 0.0]]
# nan = float("nan")
# x = torch.tensor([[3.0, 4, nan], [5, 0, nan]])  # [rows, stride]
# weight, out = torch.tensor([1.0, 10]), torch.empty(2, 2)  # [D], [rows, D]
# with interpreted():
#     rms_norm_kernel[(2,)](x, weight, out, 3, 2, 0.7, BLOCK=4)
# print([[round(v, 4) for v in row] for row in out.tolist()])
check("20.3", rms_norm_kernel)

# %% [markdown]
# ## 20.4 A softmax in pieces
#
# *Some thought, 20 minutes.* Program $r$ does row $r$ of `x` [rows, D], float32:
#
# $$y_i = \frac{e^{x_i - m}}{\sum_{j < D} e^{x_j - m}}, \qquad m = \max_j x_j.$$
#
# $D$ may be larger than BLOCK, so go through the row in pieces of BLOCK numbers. **Each
# number may be loaded twice, not three times**: once for $m$ and the sum together, once for
# the result. So the sum must grow while $m$ is not known yet. With the maximum $m$ so far
# and the sum $s$ of $e^{x_j - m}$ so far, a piece whose own maximum is larger changes both:
#
# $$m' = \max(m, \max_{\text{piece}} x_j), \qquad
#   s' = s\, e^{m - m'} + \sum_{\text{piece}} e^{x_j - m'}.$$
#
# (This is how attention goes through a long context without ever holding a row of scores.)
# All numbers are finite. Begin with $m = -\infty$ and $s = 0$; then $e^{m - m'} = 0$.
#
# By hand: the row $(0, \log 2, \log 5)$, BLOCK 2. After the first piece $m = \log 2$ and
# $s = \frac12 + 1 = 1.5$. After the second, $m' = \log 5$ and $s' = 1.5 \cdot \frac25 + 1 =
# 1.6$. The result is $(\frac15, \frac25, 1)/1.6 = (0.125, 0.25, 0.625)$.

# %%
@triton.jit
def softmax_kernel(x, out, D, BLOCK: tl.constexpr):
    """out [rows, D]: the softmax of the rows of x [rows, D]."""
    ### BEGIN SOLUTION
    x += tl.program_id(0) * D
    out += tl.program_id(0) * D
    largest, total = -float("inf"), 0.0
    for start in range(0, D, BLOCK):
        i = start + tl.arange(0, BLOCK)
        z = tl.load(x + i, i < D, -float("inf"))
        new = tl.maximum(largest, tl.max(z, axis=0))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(z - new), axis=0)
        largest = new
    for start in range(0, D, BLOCK):
        i = start + tl.arange(0, BLOCK)
        z = tl.load(x + i, i < D, 0.0)
        tl.store(out + i, tl.exp(z - largest) / total, i < D)
    ### END SOLUTION

# %%
# To try it, take away the # of the next five lines. It should print
# [[0.125, 0.25, 0.625], [0.0, 1.0, 0.0]]
# x = torch.tensor([[0, 0.6931, 1.6094], [0, 200, 100]])  # [rows, D]
# out = torch.empty(2, 3)  # [rows, D]
# with interpreted():
#     softmax_kernel[(2,)](x, out, 3, BLOCK=2)
# print([[round(v, 4) for v in row] for row in out.tolist()])
check("20.4", softmax_kernel)

# %% [markdown]
# ## 20.5 A product with ragged edges
#
# *Build it, 25 minutes.* `a` [M, K] and `b` [K, N] are bf16, `out` [M, N] is float32. The
# grid has two axes: program $(p, q)$ = (`tl.program_id(0)`, `tl.program_id(1)`) makes the
# tile of `out` with the rows $p \cdot \mathrm{BLOCK\_M}$ and on, and the columns $q \cdot
# \mathrm{BLOCK\_N}$ and on. It goes along K in steps of BLOCK_K. With the
# places as above, a step multiplies the tile of `a` at places $mK + k$ and that of `b` at
# places $kN + n$.
#
# M, N and K are multiples of nothing. No lane may load what its tile does not need (the
# next row, for one), or store outside of its tile. Sum in float32: `tl.dot(x, y, total)`
# with a float32 `total` does. (The sizes here are small. A GPU's tensor cores need a BLOCK_K
# of 16 or more: with less the kernel does not compile there.)
#
# By hand: $\begin{pmatrix} 1&2&3 \\ 4&5&6 \end{pmatrix}$ times a column of ones, in tiles of
# 2 × 2 × 2. The second step along K has one column of `a` left, $(3, 6)$. Without a mask its
# other lane of the first row would load the 4 of the next one.

# %%
@triton.jit
def matmul_kernel(
    a, b, out, M, N, K,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """out [M, N] = a [M, K] times b [K, N], a tile a program."""
    ### BEGIN SOLUTION
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        across, down = k[None, :], k[:, None]
        x = tl.load(a + m * K + across, (m < M) & (across < K), 0.0)
        y = tl.load(b + down * N + n, (down < K) & (n < N), 0.0)
        total = tl.dot(x, y, total)
    tl.store(out + m * N + n, total, (m < M) & (n < N))
    ### END SOLUTION

# %%
# To try it, take away the # of the next six lines. It should print
# [[5.0, 6.0, 11.0], [11.0, 15.0, 23.0]]
# a = torch.tensor([[1.0, 2, 3], [4, 5, 6]]).bfloat16()  # [M, K]
# b = torch.tensor([[0.0, 1, 0], [1, 1, 1], [1, 1, 3]]).bfloat16()  # [K, N]
# out = torch.empty(2, 3)  # [M, N]
# with interpreted():
#     matmul_kernel[(1, 2)](a, b, out, 2, 3, 3, BLOCK_M=2, BLOCK_N=2, BLOCK_K=2)
# print(out.tolist())
check("20.5", matmul_kernel)

# %% [markdown]
# Next: the kernels of the other lessons, in their sections "At full size".
