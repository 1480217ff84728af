# %% [markdown]
# # 03 · RoPE: position as rotation
#
# Attention compares every query with every key by a dot product, and nothing in a dot
# product says which token came first. Swap two words and the same scores appear in
# swapped places. How does a model know the order of its words? And how can DeepSeek-V3,
# trained on texts of 4,096 tokens, read 131,072 after only 2,000 more training steps?
#
# Both answers are one mechanism, rotary position embedding (**RoPE**): turn each query
# and each key by an angle that grows with its position.
#
# - **You will build** RoPE in NumPy and read it in PyTorch; stretch it the linear way
#   and the YaRN way; prove that all of it equals the `transformers` library;
#   measure what each stretch costs a small model; and read the GPU kernels that turn
#   DeepSeek-V3's queries and keys.
# - **You need** lesson 00, cosines and sines, and what a query and a key are. Lesson 04
#   builds attention around this one.
# - **Time**: about 50 minutes, and an hour for the exercises.
# - **Papers**: RoFormer §3.2; YaRN §3.2 and §3.3; how DeepSeek used them:
#   DeepSeek-Coder §3.6, DeepSeek-V2 §3.1.4, DeepSeek-V3 §4.3.

# %%
from dataclasses import replace

import numpy as np
import torch

import deepseek_mini as dm
from deepseek_mini.lesson import figure, ladder, setup, show

setup(seed=0)

# %% [markdown]
# ## Without positions
#
# The claim first. Four words are vectors of eight numbers; two matrices make queries
# and keys of them; the score of two words is a dot product. `T` counts tokens, `D` is
# the width of a word's vector, `d` the width of a query.

# %%
rng = np.random.default_rng(0)
x = rng.normal(size=(4, 8))  # [T, D]: four words
w_q, w_k = rng.normal(size=(2, 8, 8))  # [D, d] each
scores = (x @ w_q) @ (x @ w_k).T  # [T, T]

swap = [0, 2, 1, 3]
swapped = (x[swap] @ w_q) @ (x[swap] @ w_k).T  # [T, T]
same = np.allclose(swapped, scores[swap][:, swap])
print("swap words 1 and 2: the same scores in swapped places:", same)
assert same

# %% [markdown]
# A causal mask lets a word look only at the words before it, so the *set* of words that
# it sees is known, but not which of them was near.
#
# ## By hand
#
# Take the smallest query and key there are: two numbers each, an arrow in the plane.
# RoPE turns the arrow of the token at position $m$ by the angle $m f$. The
# **frequency** $f$ is how many radians it turns per position.
#
# Let $f = 1$ and let query and key both be $(1, 0)$. At position 3 the query becomes
# $(\cos 3, \sin 3)$; at position 1 the key becomes $(\cos 1, \sin 1)$. Their dot
# product is $\cos 3 \cos 1 + \sin 3 \sin 1 = \cos(3 - 1)$.
#
# **Predict**: what is the score when the same two tokens stand at positions 103 and
# 101?

# %%
def turned(position):
    return np.array([np.cos(position), np.sin(position)])  # [2]: (1, 0), turned


for m, n in ((3, 1), (103, 101)):
    q, k = turned(m), turned(n)  # [2] each
    print(f"query at {m}: ({q[0]:.3f}, {q[1]:.3f})", end="   ")
    print(f"key at {n}: ({k[0]:.3f}, {k[1]:.3f})   score {q @ k:.3f}")
    assert abs(q @ k - np.cos(2)) < 1e-12

# %% [markdown]
# The arrows are elsewhere and the score is the same, cos 2. This holds for any query
# and key: turning both arrows by the same angle does not change the angle between them,
# so the score depends on $m - n$ alone. Position enters as *distance*. Nothing is added
# to the word's vector, nothing is learned, and the values, which carry the content, are
# not turned at all.
#
# ## In NumPy
#
# A real head is wider than two channels: its $d$ channels form $d/2$ **pairs**, and
# every pair turns at its own frequency,
#
# $$f_i = \theta^{-2i/d}, \qquad i = 0, 1, \dots, d/2 - 1,$$
#
# where $\theta$ is the **base**, 10,000 in most models. Pair 0 is the fastest.

# %%
def frequencies(d, theta=10_000.0):
    i = np.arange(d // 2)  # [d/2]: the pairs
    return theta ** (-2 * i / d)  # [d/2]: radians per position


f = frequencies(128)  # [64]: a head of DeepSeek-LLM is 128 wide
print(f"{len(f)} pairs: the first turns {f[0]:.0f} radian per position,", end=" ")
print(f"the last {f[-1]:.6f}")
assert f[0] == 1 and round(f[-1], 6) == 0.000115

# %% [markdown]
# Turning the pair $(a, b)$ by an angle $\varphi$ gives
# $(a\cos\varphi - b\sin\varphi,\; a\sin\varphi + b\cos\varphi)$. The pairs are
# neighbours here, channels (0, 1), (2, 3) and so on. `H` counts heads: all of them turn
# alike.

# %%
def rotate(x, positions, freqs):
    angles = positions[:, None] * freqs  # [T, d/2]
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]  # [T, 1, d/2] each
    a, b = x[..., 0::2], x[..., 1::2]  # [T, H, d/2] each
    pairs = np.stack([a * cos - b * sin, a * sin + b * cos], axis=-1)  # [T, H, d/2, 2]
    return pairs.reshape(x.shape)  # [T, H, d]


one = np.array([[[1.0, 0.0]]])  # [1, 1, 2]: the example by hand
by_hand = np.array([[[np.cos(3), np.sin(3)]]])  # [1, 1, 2]
from_numpy = rotate(one, np.array([3]), np.array([1.0]))  # [1, 1, 2]
print("the function gives what we had by hand:", np.allclose(from_numpy, by_hand))

# %% [markdown]
# Now eight channels, two heads, and positions in no order. Moving all tokens by 1,000
# must leave every score as it was; moving only one of them must not.

# %%
q, k = rng.normal(size=(2, 5, 2, 8))  # [T, H, d] each
m = np.array([3, 0, 7, 12, 5])  # [T]
f = frequencies(8)  # [4]


def all_scores(m):
    q_m, k_m = rotate(q, m, f), rotate(k, m, f)  # [T, H, d] each
    return np.einsum("thd,shd->hts", q_m, k_m)  # [H, T, T]


print("all 1,000 later, same scores:", np.allclose(all_scores(m + 1000), all_scores(m)))
moved = m + np.array([1000, 0, 0, 0, 0])  # [T]: only the first token
print("one moved, same scores:", np.allclose(all_scores(moved), all_scores(m)))

# %% [markdown]
# ## In PyTorch
#
# This is the package's own source; every model of this course runs it.

# %%
from deepseek_mini.model import rope as rope_module
from deepseek_mini.model.rope import apply_rope, inverse_frequencies, rope_table

show(rope_table, apply_rope)

# %% [markdown]
# The `"interleaved"` branch is our NumPy line. The `"half_split"` branch pairs channel
# $i$ with channel $i + d/2$, and has a section of its own below. `amplitude` is 1 until
# YaRN. The table is computed once and serves all layers, because every layer turns
# alike.
#
# Rungs one and two of the ladder: by hand = NumPy = PyTorch. Error means max|a − b| /
# max(1, max|b|).

# %%
from deepseek_mini.config import Rope

x = rng.normal(size=(2, 300, 4, 64)).astype(np.float32)  # [B, T, H, d]
positions = np.arange(300)  # [T]
cos, sin = rope_table(Rope(), 64, torch.arange(300))  # [T, d/2] each
ours = apply_rope(torch.from_numpy(x), cos, sin, "interleaved")  # [B, T, H, d]
numpy = np.stack([rotate(row, positions, frequencies(64)) for row in x])  # [B, T, H, d]
ladder(
    "Rotating",
    [
        ("NumPy = by hand", from_numpy, by_hand, 1e-12),
        ("PyTorch (float32) = NumPy", ours, numpy, 1e-5),
    ],
)

# %% [markdown]
# ## See it
#
# With $q = k = (1, 0)$ the score of one pair at distance $m - n$ is $\cos((m - n) f)$.
# Four of the 64 pairs of a 128-wide head, the fastest on top:

# %%
distance = np.arange(257)  # [257]
f = frequencies(128)  # [64]
alt = """Four curves of score against distance, 0 to 256 tokens. Pair 0 swings
many times, pair 16 four times, pair 32 not half a time, pair 48 hardly falls."""
with figure(alt, size=(7, 5.2)) as fig:
    axes = fig.subplots(4, 1, sharex=True, sharey=True)
    for ax, i in zip(axes, (0, 16, 32, 48)):
        ax.plot(distance, np.cos(distance * f[i]))
        ax.set_title(f"pair {i}: {f[i]:g} rad per position", loc="left")
        ax.set_ylabel("score")
    axes[0].set_ylim(-1.15, 1.15)
    axes[-1].set_xlabel("distance between query and key (tokens)")
assert np.allclose(f[[0, 16, 32, 48]], [1, 0.1, 0.01, 0.001])

# %% [markdown]
# Fast pairs tell a neighbour from the token after it, and soon repeat themselves. Slow
# pairs cannot tell neighbours apart, and tell near from far. A head has both, like the
# hands of a clock.
#
# In the next picture the query's arrow is blue, the key's is orange, and the pair turns
# 1 radian per position. Move *where*: both arrows turn, the angle between them stays.
# Move *distance*: the angle changes, and the score with it. (A live slider needs a
# running notebook; below it are three of its settings.)

# %%
from deepseek_mini.lesson import PALETTE, Slider, settings_figure, slider_figure


def draw_arrows(fig, where, distance):
    m, n = where + distance, where  # positions of query and key
    ax = fig.subplots()
    circle = np.linspace(0, 2 * np.pi, 100)  # [100]
    ax.plot(np.cos(circle), np.sin(circle), color="#BBBBBB", lw=1, ls="-")
    between = np.linspace(n, m, 50)  # [50]: the angle from key to query
    ax.plot(0.35 * np.cos(between), 0.35 * np.sin(between), "k-", lw=1.5)
    for p, color, name in ((m, PALETTE[0], "query"), (n, PALETTE[1], "key")):
        tip = {"arrowstyle": "-|>", "color": color, "lw": 2.5, "shrinkA": 0}
        ax.annotate("", xy=(np.cos(p), np.sin(p)), xytext=(0, 0), arrowprops=tip)
        at = (1.4 * np.cos(p), 1.35 * np.sin(p))
        ax.text(*at, f"{name}\nat {p}", color=color, ha="center", va="center")
    ax.set(xlim=(-1.8, 1.8), ylim=(-1.65, 1.65), aspect="equal")
    ax.axis("off")
    ax.set_title(f"score = cos {distance} = {np.cos(distance):.3f}")


widget = slider_figure(
    draw_arrows,
    alt="A query at {where} + {distance}, a key at {where}, as arrows on a circle.",
    size=(4, 3.8),
    where=Slider(0, 120, start=1, label="where (the key's position)"),
    distance=Slider(0, 6, start=2, label="distance"),
)

# %%
settings_figure(
    draw_arrows,
    {
        "positions 3 and 1": {"where": 1, "distance": 2},
        "positions 13 and 11": {"where": 11, "distance": 2},
        "positions 103 and 101": {"where": 101, "distance": 2},
    },
    alt="""Three circles. The two arrows point elsewhere in each, the angle between
    them is 2 radians in all, and so is the score, cos 2 = -0.416.""",
    size=(9, 3.4),
)

# %% [markdown]
# ## How far the hands have turned
#
# A pair comes full circle every $2\pi / f_i$ tokens, its **wavelength**. DeepSeek-LLM
# was trained on 4,096 tokens at a time.
#
# **Predict**: of the 64 pairs of a 128-wide head, how many never finish one turn within
# 4,096 positions?

# %%
trained = 4096
wavelength = 2 * np.pi / frequencies(128)  # [64]: tokens per turn
unfinished = wavelength > trained  # [64]
print("pairs that never finish a turn:", unfinished.sum())
print(f"shortest wavelength {wavelength[0]:.2f}, longest {wavelength[-1]:,.0f} tokens")
assert unfinished.sum() == 18 and np.flatnonzero(unfinished)[0] == 46

# %%
alt = """Wavelength of each of the 64 pairs on a log axis, a rising straight line. The
last 18, pairs 46 to 63, lie above the line of the trained 4,096 tokens."""
with figure(alt) as fig:
    ax = fig.subplots()
    pair = np.arange(64)  # [64]
    for group, color, label in (
        (~unfinished, PALETTE[0], "46 pairs: every angle was seen"),
        (unfinished, PALETTE[1], "18 pairs: never round once"),
    ):
        ax.plot(pair[group], wavelength[group], "o", ms=5, color=color, label=label)
    ax.axhline(trained, color="black", lw=1, ls="-")
    ax.text(0, trained * 1.25, "trained: 4,096 tokens")
    ax.set(yscale="log", xlabel="pair", ylabel="wavelength (tokens per turn)")
    ax.legend(loc="lower right")

# %% [markdown]
# This is the trouble with long texts. The 46 faster pairs have gone all the way round
# in training, so every angle is familiar to the model. The 18 slow ones have not: at
# larger distances they reach angles that no training example ever showed.
#
# ## Longer than trained
#
# Let $s$ be the **factor** by which the context shall grow and $T_0$ the trained length.
#
# **Linear scaling** divides every frequency by $s$: position 8,000 at $s = 4$ looks
# like position 2,000, and no pair meets a new angle. But neighbours, which were 1
# radian apart in the fastest pair, are now $1/s$ apart, and the model has never seen
# that either.
#
# **YaRN** asks each pair how often it turned within $T_0$. More than
# $\beta_\text{fast} = 32$ times: it has seen everything, keep it. Less than
# $\beta_\text{slow} = 1$ time: divide by $s$. Between the two, blend, with a share
# $k_i$ that falls along a ramp from 1 to 0:
#
# $$f'_i = k_i f_i + (1 - k_i)\, f_i / s.$$
#
# Pair $i$ turns $r$ times when $T_0 f_i = 2\pi r$, that is at
# $i = \frac{d}{2} \log_\theta \frac{T_0}{2\pi r}$; DeepSeek's code rounds both ends of
# the ramp outwards.

# %%
def yarn_keep(d, theta, T0, beta_fast=32, beta_slow=1):
    def pair_that_turns(r):
        return d / 2 * np.log(T0 / (2 * np.pi * r)) / np.log(theta)

    low = max(np.floor(pair_that_turns(beta_fast)), 0)
    high = min(np.ceil(pair_that_turns(beta_slow)), d - 1)
    i = np.arange(d // 2)  # [d/2]
    return 1 - np.clip((i - low) / (high - low), 0, 1)  # [d/2]: share kept


def stretched(how, d, theta, s, T0):
    f = frequencies(d, theta)  # [d/2]
    keep = {"plain": 1, "linear": 0, "YaRN": yarn_keep(d, theta, T0)}[how]
    return keep * f + (1 - keep) * f / s  # [d/2]

# %% [markdown]
# DeepSeek-V3 turns 64 channels of each head and stretches 4,096 tokens by $s = 40$.

# %%
pair = np.arange(32)  # [32]
keep = yarn_keep(64, 10_000.0, 4096)  # [32]
print("kept in full: pairs 0 to", pair[keep == 1][-1], end="; ")
print("divided by 40: pairs", pair[keep == 0][0], "to 31")
assert pair[keep == 1][-1] == 10 and pair[keep == 0][0] == 23

alt = """The share of its frequency that each of 32 pairs has left. Plain: 1 for all.
Linear: 1/40 for all. YaRN: 1 up to pair 10, then falling, 1/40 from pair 23 on."""
with figure(alt) as fig:
    ax = fig.subplots()
    for how in ("plain", "linear", "YaRN"):
        ratio = stretched(how, 64, 1e4, 40, 4096) / frequencies(64)  # [32]
        ax.plot(pair, ratio, label=how, lw=3 if how == "YaRN" else 1.8)
    ax.axvspan(10, 23, color="#EEEEEE", zorder=0)
    ax.text(16.5, 1.06, "the ramp", ha="center")
    ax.text(5, 0.78, "over 32 turns\nin training:\nkept", ha="center")
    ax.text(27.3, 0.55, "less than\none turn:\ndivided by 40", ha="center")
    ax.set(xlabel="pair", ylabel="new frequency / old frequency", ylim=(-0.03, 1.15))
    ax.legend(loc="lower left", bbox_to_anchor=(0.02, 0.1))

# %% [markdown]
# The same choice as wavelengths. Move the factor: linear lifts the whole line, YaRN
# bends only its upper end. The upper black line is the context that is asked for.

# %%
def draw_wavelengths(fig, s):
    ax = fig.subplots()
    for how in ("plain", "linear", "YaRN"):
        turn = 2 * np.pi / stretched(how, 64, 1e4, s, 4096)  # [32]: tokens
        ax.plot(pair, turn, label=how)
    for length in {4096, s * 4096}:
        ax.axhline(length, color="black", lw=1, ls="-")
        ax.text(0, length * 1.3, f"{length:,} tokens", fontsize=9)
    ax.set(yscale="log", ylim=(3, 4e7), xlabel="pair", ylabel="tokens per turn")
    ax.legend(loc="lower right")


widget = slider_figure(
    draw_wavelengths,
    alt="Wavelengths of 32 pairs when 4,096 tokens are stretched by {s}.",
    size=(6, 3.6),
    s=Slider(1, 64, start=40, label="factor s"),
)

# %%
settings_figure(
    draw_wavelengths,
    {f"factor {s}": {"s": s} for s in (1, 4, 40)},
    alt="""Wavelengths at factors 1, 4 and 40. At 1 the three lines are one. At 4 and
    40 linear lifts every pair; YaRN leaves the fast pairs and lifts the slow ones.""",
    size=(10, 3.6),
)

# %% [markdown]
# YaRN has a second part. In a longer context a softmax is spread over more keys, so
# scores are sharpened: cosines and sines are multiplied by $0.1 \ln s + 1$, and a
# score, a product of two, by its square. DeepSeek-V2 and V3 apply the square to the
# whole score instead, because most channels of their heads do not turn (lesson 09).
#
# A third kind, Llama 3.1's, lets the ramp run over the *number of turns* instead of the
# index of the pair; one DeepSeek model inherits it. The package has all three.

# %%
kept = (rope_module.yarn_keep, rope_module.llama3_keep)
show(inverse_frequencies, *kept, docstrings=False)

# %% [markdown]
# NumPy = package = `transformers`, at the settings of three released models.
# Frequencies are compared as ratios, so that a slow pair counts as much as a fast one.

# %%
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from deepseek_mini.config import Linear, Llama3, Yarn

coder = Rope(theta=1e5, scaling=Linear(factor=4))
v3 = Rope(theta=1e4, scaling=Yarn(factor=40, original_seq_len=4096))
llama = Rope(theta=5e5, scaling=Llama3(factor=8, original_seq_len=8192))


def theirs(rope, d, rope_type, T0, **more):
    words = {"rope_type": rope_type, "rope_theta": rope.theta, **more}
    words |= {"factor": rope.scaling.factor, "original_max_position_embeddings": T0}
    length = int(T0 * rope.scaling.factor)
    settings = {"head_dim": d, "max_position_embeddings": length}
    hf_config = LlamaConfig(**settings, rope_parameters=words)
    freqs, amplitude = ROPE_INIT_FUNCTIONS[rope_type](hf_config, "cpu")  # [d/2], one
    return freqs.numpy(), np.array([amplitude])  # [d/2], [1]


linear, yarn, llama3 = (
    inverse_frequencies(rope, d).numpy()
    for rope, d in ((coder, 128), (v3, 64), (llama, 128))
)  # [d/2] each
hf_linear, _ = theirs(coder, 128, "linear", 4096)  # [64]
hf_yarn, hf_temperature = theirs(v3, 64, "yarn", 4096)  # [32], [1]
bands = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
hf_llama3, _ = theirs(llama, 128, "llama3", 8192, **bands)  # [64]
rungs = [
    ("linear: package = NumPy", linear, stretched("linear", 128, 1e5, 4, 4096)),
    ("linear: package = transformers", linear, hf_linear),
    ("YaRN: package = NumPy", yarn, stretched("YaRN", 64, 1e4, 40, 4096)),
    ("YaRN: package = transformers", yarn, hf_yarn),
    ("YaRN's temperature = transformers", rope_module.amplitude(v3), hf_temperature),
    ("llama3: package = transformers", llama3, hf_llama3),
]
ratios = [(name, ours / want, np.ones(len(want)), 1e-6) for name, ours, want in rungs]
ladder("Frequencies, as ratios", ratios)

# %% [markdown]
# ## The whole model
#
# Rung three: a whole model of ours against `transformers`' Llama on the same weights.
# The weights are random everywhere, norms too, because zeros and ones hide mistakes.
# Position starts at `cache.length` when there is a cache, so reading a text in three
# uneven pieces must give what reading it at once gives. (Keys are turned before they go
# into the cache, once and for all.)

# %%
import tempfile

from transformers.utils.logging import disable_progress_bar

from deepseek_mini.config import GQA, Config, SwiGLU

disable_progress_bar()


def randomised(config, seed=1):
    model = dm.Transformer(config).eval()
    torch.manual_seed(seed)
    for p in model.parameters():
        if p.ndim == 2:
            torch.nn.init.normal_(p, 0, 0.6 / p.shape[1] ** 0.5)
        else:
            torch.nn.init.normal_(p, 1, 0.3)
    return model


def as_llama(model):
    """transformers' Llama, read from the folder that our model saves."""
    with tempfile.TemporaryDirectory() as folder:
        dm.save(model, folder)
        return LlamaForCausalLM.from_pretrained(folder).eval()


def in_pieces(model, tokens, *cuts):
    cache = model.new_cache(batch_size=len(tokens))
    pieces = tokens.tensor_split(cuts, dim=1)  # [B, T'] each
    return torch.cat([model(piece, cache) for piece in pieces], dim=1)  # [B, T, V]

# %%
plain = Config(
    vocab_size=97,
    dim=64,
    n_layers=2,
    max_seq_len=256,
    attention=GQA(n_heads=4, n_kv_heads=2, head_dim=16),
    dense=SwiGLU(inter_dim=96),
    rope=Rope(layout="half_split"),
)
kinds = {
    "plain": None,
    "linear": Linear(factor=4),
    "YaRN": Yarn(factor=4, original_seq_len=64),
    "llama3": Llama3(factor=4, original_seq_len=64),
}
tokens = torch.randint(97, (2, 256))  # [B, T]
rungs = []
with torch.no_grad():
    for name, scaling in kinds.items():
        model = randomised(replace(plain, rope=replace(plain.rope, scaling=scaling)))
        ours = model(tokens)  # [B, T, V]
        want = as_llama(model)(tokens).logits  # [B, T, V]
        rungs.append((f"{name} = transformers", ours, want, 1e-4))
        cached = in_pieces(model, tokens, 100, 101)  # [B, T, V]
        rungs.append((f"{name}, cached = uncached", cached, ours, 1e-5))
ladder("Logits of a whole model", rungs)

# %% [markdown]
# ## How people get it wrong
#
# Which two channels form a pair is a convention. RoFormer, DeepSeek's own code and the
# weights of its MLA models pair neighbours (`"interleaved"`). Folders in the Hugging
# Face format of Llama-shaped models, DeepSeek-LLM and DeepSeek-Coder among them, pair
# channel $i$ with $i + d/2$ (`"half_split"`); their query and key rows have been moved
# to match. The bug: **rotate the one way with weights that were made for the other.**
# It happens to experts. DeepSeek-V3.2's indexer is half-split, and until November 2025
# the official demo rotated it interleaved.
#
# **Predict**: which of these tests notices? The shapes; relativity (scores depend on
# $m - n$ only); equality with the model that the weights belong to.

# %%
from deepseek_mini.lesson import error

right = randomised(replace(plain, rope=Rope(layout="interleaved")))
wrong = dm.Transformer(replace(plain, rope=Rope(layout="half_split"))).eval()
misfits = wrong.load_state_dict(right.state_dict(), strict=False)
print("tensors that do not fit:", sum(map(len, misfits)))

x = torch.from_numpy(rng.normal(size=(1, 6, 4, 16)))  # [B, T, H, d]


def scores_at(layout, start):
    table = rope_table(Rope(), 16, torch.arange(6) + start, torch.float64)
    turned = apply_rope(x, *table, layout)  # [B, T, H, d]
    return torch.einsum("bthd,bshd->bhts", turned, turned)  # [B, H, T, S]


for layout in ("interleaved", "half_split"):
    relative = error(scores_at(layout, 500), scores_at(layout, 0)) < 1e-9
    print(f"{layout}: same scores 500 positions later: {relative}")
with torch.no_grad():
    want = as_llama(right)(tokens).logits  # [B, T, V]
    print("same shape:", right(tokens).shape == wrong(tokens).shape == want.shape)
    print("right layout equals transformers:", error(right(tokens), want) < 1e-4)
    print("wrong layout equals transformers:", error(wrong(tokens), want) < 1e-4)
    assert error(right(tokens), want) < 1e-4 and error(wrong(tokens), want) > 0.1

# %% [markdown]
# Only equality notices. Both layouts are true RoPE: a model that is *trained* with
# either learns, because training puts its features where the rotation expects them. Two
# small models over bytes, from the same first weights, differ in the layout only and
# learn Python code. Their loss is cross-entropy in nats (natural logarithm) per byte;
# guessing among 256 bytes costs ln 256 = 5.5.

# %%
from torch.nn import functional as F

from deepseek_mini.data import python_code

corpus = python_code()  # modules of Python's standard library


def as_bytes(documents):
    text = "".join(document.text for document in documents)
    return torch.tensor(bytearray(text, "utf-8"), dtype=torch.int64)  # [N]


training, validation = as_bytes(corpus.train), as_bytes(corpus.validation)


def train(model, steps=200, peak=5e-3, rows=16, length=64):
    generator = torch.Generator().manual_seed(0)
    adam = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95))
    losses = []
    for step in range(steps):
        adam.param_groups[0]["lr"] = peak * min((step + 1) / 20, 1 - 0.9 * step / steps)
        start = torch.randint(len(training) - length, (rows, 1), generator=generator)
        window = training[start + torch.arange(length + 1)]  # [B, T + 1]
        logits = model(window[:, :-1])  # [B, T, V]
        loss = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        losses.append(loss.item())
    return losses

# %%
small = Config(
    vocab_size=256,
    dim=64,
    n_layers=2,
    max_seq_len=256,
    attention=GQA(n_heads=2, n_kv_heads=2, head_dim=32),
    dense=SwiGLU(inter_dim=168),
    init_std=0.02,
)


def fresh(layout):
    torch.manual_seed(0)
    return dm.Transformer(replace(small, rope=Rope(layout=layout)))


models = {layout: fresh(layout) for layout in ("interleaved", "half_split")}
losses = {layout: train(model) for layout, model in models.items()}
alt = """Training loss of two models over 200 steps, one for each layout: both fall from
5.5 nats a byte to between 2 and 3, one curve on top of the other."""
with figure(alt) as fig:
    ax = fig.subplots()
    for layout, loss in losses.items():
        ax.plot(loss, label=layout, lw=1.3)
    ax.set(xlabel="step", ylabel="loss (nats per byte)")
    ax.legend()
ends = [sum(loss[-50:]) / 50 for loss in losses.values()]  # mean of the last 50 steps
print("both learn (loss below 2.7):", max(ends) < 2.7)
print("and end alike (within 0.2):", abs(ends[0] - ends[1]) < 0.2)
assert max(ends) < 2.7 and abs(ends[0] - ends[1]) < 0.2

# %% [markdown]
# Now swap the layout of a model that has learned, which is what loading a checkpoint
# with the wrong one does:

# %%
@torch.no_grad()
def loss_of(model, data=validation, length=64, rows=200):
    start = torch.linspace(0, len(data) - length - 1, rows).long()[:, None]  # [B, 1]
    window = data[start + torch.arange(length + 1)]  # [B, T + 1]
    return F.cross_entropy(model(window[:, :-1]).mT, window[:, 1:]).item()


swapped = fresh("half_split")
swapped.load_state_dict(models["interleaved"].state_dict())
before, after = loss_of(models["interleaved"]), loss_of(swapped)
print("the wrong layout costs over 0.1 nats a byte:", after - before > 0.1)
print("and yet beats guessing (ln 256 = 5.5):", after < np.log(256) - 0.5)
assert after - before > 0.1 and after < np.log(256) - 0.5

# %% [markdown]
# The loss is worse, not absurd: such a model still writes something. The cure is to
# move the rows of `wq` and `wk`. `dm.save` does it, which is why `transformers` agreed
# with our interleaved model above; you write that move in exercise 03.3.
#
# ## Does it matter?
#
# A model of just under half a million parameters learned Python code, as bytes, from
# windows of 64. Then it read windows of 256, with its rotations plain, linear ($s = 4$)
# and YaRN ($s = 4$, $T_0 = 64$): first as it was, then after 40 more training steps on
# windows of 256, which each of the three got. Five seeds. The script is
# `experiments/03_rope.py`, its log comes with the package.
#
# **Predict**: which of the three reads best before the 40 steps, and does plain RoPE
# ever recover?

# %%
import json
from importlib.resources import files

log = files("deepseek_mini") / "assets/logs/03_rope.jsonl"
head, *records = [json.loads(line) for line in log.read_text().splitlines()]
loss = {
    (how, steps): np.array(
        [r["loss"] for r in records
         if r["scaling"] == how and r["finetune_steps"] == steps]
    )  # [seeds, stretches of 16 positions]
    for how in ("plain", "linear", "yarn")
    for steps in (0, 40)
}  # fmt: skip
position = np.arange(8, 256, 16)  # [16]: the middle of each stretch
print(f"{len(loss['plain', 0])} seeds, {head['parameters']:,} parameters")
print(f"{head['hardware']}, torch {head['torch']}, {head['date']}")
print(f"{head['seconds'] / 60:.0f} minutes of processor time")

# %%
alt = """Loss by position, 0 to 256. Left, as trained: plain climbs steeply from about
90 on, up to linear, which is high everywhere; YaRN stays nearly flat and low. Right,
after 40 steps: all flat, plain and YaRN together, linear above them."""
with figure(alt, size=(9, 3.8)) as fig:
    axes = fig.subplots(1, 2, sharey=True)
    for ax, steps in zip(axes, (0, 40)):
        for how, label in (("plain", "plain"), ("linear", "linear"), ("yarn", "YaRN")):
            runs = loss[how, steps]  # [seeds, 16]
            (line,) = ax.plot(position, runs.mean(0), label=label)
            band = (runs.min(0), runs.max(0))  # [16] each: over the seeds
            ax.fill_between(position, *band, color=line.get_color(), alpha=0.2)
        ax.axvline(64, color="black", lw=1, ls="-")
        ax.set_xlabel("position in the window (bytes)")
    axes[0].set(title="as trained on 64", ylabel="loss (nats per byte)")
    axes[1].set(title="after 40 steps at 256")
    axes[0].text(67, 3.0, "64")
    axes[1].legend(loc="upper right")

# %%
near = {key: runs[:, :4].mean(1) for key, runs in loss.items()}  # [seeds]: 0 to 63
far = {key: runs[:, 12:].mean(1) for key, runs in loss.items()}  # [seeds]: 192 to 255
print("mean loss        as trained       after 40 steps")
print("positions      0-63  192-255      0-63  192-255")
for how in ("plain", "linear", "yarn"):
    for steps in (0, 40):
        row = f"{near[how, steps].mean():9.2f}{far[how, steps].mean():9.2f}"
        print(f"{how:10}{row}" if steps == 0 else row, end="\n" if steps else " ")

best_far = np.minimum(far["plain", 0], far["linear", 0])  # [seeds]
assert (far["yarn", 0] < best_far - 0.4).all()  # in every seed
assert (np.abs(far["linear", 0] - far["plain", 0]) < 0.3).all()
assert (near["linear", 0] > near["plain", 0] + 0.5).all()
assert (near["yarn", 0] > near["plain", 0] + 0.05).all()
beyond = loss["plain", 0][:, 4] - near["plain", 0]  # [seeds]: positions 64 to 79
assert (np.abs(beyond) < 0.15).all()
ahead = far["plain", 40] - far["yarn", 40]  # [seeds]
assert (ahead > 0).all() and (ahead < 0.06).all()
assert (far["linear", 40] > far["plain", 40] + 0.1).all()

# %% [markdown]
# As trained, plain RoPE survives the first 16 positions beyond 64 and then breaks; only
# YaRN can be used far out. At the far end linear scaling is about as bad as plain, and
# within 64 it is much worse: every distance that the fast pairs had learned now comes
# at another angle. YaRN has a price as well: within 64 it is worse than plain.
#
# After 40 steps the picture is another. Plain RoPE has recovered, and YaRN is ahead of
# it in every seed, but by less than 0.06. Linear is still behind, because it changed
# the most. So at this size YaRN is what to take when there is no time to train on; with
# a little training plain does nearly as well. At full size it is reported otherwise:
# the paper on linear scaling found that a 7B model with plain RoPE gained little
# context in 10,000 steps. We have not measured that.
#
# A small version, live: the interleaved model from above, trained on 64 bytes for 200
# steps, reads 256.

# %%
@torch.no_grad()
def by_quarter(scaling):
    model = dm.Transformer(replace(small, rope=Rope(scaling=scaling)))
    model.load_state_dict(models["interleaved"].state_dict())
    start = torch.linspace(0, len(validation) - 257, 400).long()[:, None]  # [B, 1]
    window = validation[start + torch.arange(257)]  # [B, T + 1]
    logits = model(window[:, :-1])  # [B, T, V]
    each = F.cross_entropy(logits.mT, window[:, 1:], reduction="none")  # [B, T]
    return each.unflatten(1, (4, 64)).mean((0, 2)).tolist()  # four quarters


live = {name: by_quarter(kinds[name]) for name in ("plain", "linear", "YaRN")}
claims = {
    "plain: last quarter worse than first": live["plain"][3] - live["plain"][0],
    "last quarter: YaRN better than plain": live["plain"][3] - live["YaRN"][3],
    "last quarter: YaRN better than linear": live["linear"][3] - live["YaRN"][3],
}
for claim, margin in claims.items():
    print(f"{claim}: {margin > 0}")
    assert margin > 0
assert claims["plain: last quarter worse than first"] > 0.1

# %% [markdown]
# ## At full size
#
# What the released models chose. *Neighbours* is how far the fastest pair turns from
# one token to the next; *slowest turn* is the longest wavelength, in tokens.

# %%
def row(name, rope, d, context):
    f = inverse_frequencies(rope, d)  # [d/2]
    kind = type(rope.scaling).__name__ if rope.scaling else "plain"
    factor = f"{rope.scaling.factor:.0f}" if rope.scaling else "-"
    turn = 2 * np.pi / f[-1].item()
    print(f"{name:29} {rope.theta:>8,.0f} {kind:6} {factor:>6} {d:>8}", end=" ")
    print(f"{context:>8,} {f[0].item():>10.2f} {turn:>13,.0f}")


print(f"{'':29} {'base':>8} {'kind':6} {'factor':>6} {'channels':>8}", end=" ")
print(f"{'context':>8} {'neighbours':>10} {'slowest turn':>13}")
for name in ("llm-67b", "coder-33b", "r1-distill-llama-8b"):
    config = dm.Config.preset(f"deepseek-{name}")
    d = config.attention.head_dim
    row(f"deepseek-{name}", config.rope, d, config.max_seq_len)
row("deepseek-v3", v3, 64, 40 * 4096)
assert v3.scaling.factor == 40 and 131_072 == 32 * 4096

# %% [markdown]
# Only Coder's neighbours have come closer; YaRN and llama3 leave the fastest pair
# alone.
#
# DeepSeek-Coder went from 4,096 to 16,384 tokens the linear way, with factor 4 and a
# base raised from $10^4$ to $10^5$, in 1,000 further steps. V2 and V3 used YaRN with
# factor 40, which would reach 163,840 tokens; V3 trained 1,000 steps at 32K and 1,000
# at 128K, 32 times its first context. R1-Distill-Llama-8B kept Llama 3.1's way. Each
# was trained on after the change; none relied on the formula alone. (These are the
# papers' numbers.)
#
# The price of RoPE:

# %%
config = dm.Config.preset("deepseek-llm-7b")
part = config.attention
turned_channels = (part.n_heads + part.n_kv_heads) * part.head_dim
flops = config.n_layers * turned_channels // 2 * 6  # 4 products, 2 sums a pair
share = flops / dm.count(config, seq_len=4096).flops_per_token
print(f"{flops / 1e6:.2f} million operations a token: {share:.4%} of the model's")
print("learned parameters: 0")
assert share < 1e-4

# %% [markdown]
# ## The kernels
#
# So few operations on so many bytes wait for memory. What counts on a GPU is to fetch no
# number that stays as it is, and the others only once. In DeepSeek-V3's attention (MLA,
# lesson 09) two tensors hold what turns:
#
# - the queries: $H = 128$ heads of 192 channels a token, of which the last $r = 64$ turn;
# - one row of 576 channels a token: first $C = 512$ of a *latent*, from which the keys
#   and values of all heads are made, and which takes an RMSNorm (lesson 02); then the 64
#   of one key that turns, the same for all heads.
#
# A **kernel** is a function that a GPU runs many times at once. These two are written in
# Triton, a Python dialect for kernels (lesson 20 starts from zero):

# %%
show("kernels.rope.turn", "kernels.rope.query_rope_kernel", docstrings=False)
show("kernels.rope.latent_kernel", docstrings=False)
show("kernels.rope.TILES", "kernels.rope.TILES_LATENT")

# %% [markdown]
# Line by line:
#
# - **A program** is one run of a kernel; `program_id(0)` tells its token. Of
#   `query_rope_kernel` there are two for each token, with `HEADS` = 64 heads each;
#   `program_id(1)` tells which. What a program holds at once, its **tile**, has a row for
#   each head and a column for each of the 64 channels that turn.
# - **Addresses.** `q` is the address of the tensor's first number, `q + at` those of the
#   tile. The heads lie 192 numbers apart (`HEAD`), and `HEAD - R` skips the 128 channels
#   that stay: they are never fetched. The result goes to where it came from.
# - **The mask.** Where `inside` is false, beyond the last head, `tl.load` reads nothing
#   and gives 0, and `tl.store` writes nothing. Its second half is always true: it gives
#   the mask the tile's shape.
# - **`turn`** is our NumPy line. Neighbours are pairs, the interleaved layout
#   of DeepSeek's weights: `reshape` and `split` take them apart, `join` puts them
#   together again. The arithmetic is in float32; the result is
#   rounded to bfloat16 once, by the store. There is no matrix product, so no work for the
#   tensor cores, the units for those.
# - **The table** has a row for each position. All texts of a batch can share it: a
#   token's row is `token % n_positions`. `sign` is $-1$ in the backward pass: a gradient
#   goes back through a rotation by the opposite angle.
# - **`latent_kernel`** takes one token's 576 channels: norm for the first 512, rotation
#   for the others. `unit` is rounded before the weight, as in lesson 02. By
#   `TILES_LATENT` one *warp* works on it, a group of 32 threads that run side by side, so
#   the sum over the row needs no other warp. It writes to a new tensor, because the
#   gradient of the norm needs the old one; `inverse_out` keeps one over the root for it.

# %%
alt = """Left: a token's queries, 128 rows of 192 channels. Channels 0 to 127 are grey,
untouched; the last 64 are blue in heads 0 to 63, program 0, and orange in heads 64 to
127, program 1. Right: a row of 576: 512 channels of latent, green, then 64 of key,
purple, all of one program."""
with figure(alt, size=(10, 3.6)) as fig:
    left, right = fig.subplots(1, 2)
    left.barh(64, 128, height=128, color="#DDDDDD")
    left.text(64, 64, "not touched", ha="center", va="center")
    for program, middle in ((0, 32), (1, 96)):
        left.barh(middle, 64, height=64, left=128, color=PALETTE[program])
        label = f"program\n(token, {program})"
        left.text(160, middle, label, color="white", ha="center", va="center")
    left.set(xticks=(0, 64, 128, 192), yticks=(0, 32, 64, 96, 128), ylim=(128, 0))
    left.set(xlabel="channel of the head", ylabel="head", title="queries of one token")
    right.barh(0, 512, height=0.5, color=PALETTE[2])
    right.barh(0, 64, height=0.5, left=512, color=PALETTE[3])
    right.text(256, 0, "latent: RMSNorm", color="white", ha="center", va="center")
    right.text(544, 0, "key:\nturned", ha="center", va="center", fontsize=8)
    right.set(xticks=(0, 128, 256, 384, 512, 576), yticks=[], ylim=(1, -1))
    right.set(xlabel="channel", title="row of one token: one program")
    for ax in (left, right):
        ax.grid(visible=False)

# %% [markdown]
# The **floor** of both together is the time that they cannot beat at given rates: the
# larger of bytes over bandwidth and operations over their rate. We assume 3.0 TB/s, a
# little below the H100's data sheet, and 30 TFLOP/s for float32 sums and products
# outside the tensor cores. Both are assumed, not measured.

# %%
part = dm.Config.preset("deepseek-v3").attention
T, H, C, r = 32_768, part.n_heads, part.kv_lora_rank, part.qk_rope_head_dim
head = part.qk_nope_head_dim + r
moved = 2 * 2 * T * (H * r + C + r)  # bytes: read and write, two a number
whole = 2 * 2 * T * (H * head + C + r)  # if it read and wrote the whole queries
operations = T * (6 * (H * r + r) // 2 + 4 * C)  # 6 a pair, 4 a channel of the norm
times = [moved / 3.0e12, operations / 30e12]  # seconds
print(f"{T:,} tokens, {H} heads of {head} channels; latent {C} + key {r}")
print(f"{moved / 1e9:.2f} GB: {times[0] * 1e6:.0f} us", end="; ")
print(f"{operations / 1e9:.2f} billion operations: {times[1] * 1e6:.0f} us")
print(f"floor: {max(times) * 1e6:.0f} us; with the whole queries ", end="")
print(f"{whole / moved:.2f} times the bytes; the table adds {T * 4 * r / moved:.1%}")
assert (H, head, C, r) == (128, 192, 512, 64) and round(max(times) * 1e6) == 383

# %% [markdown]
# Memory is the limit, and turning in place saves nearly two thirds of the bytes. Are the
# kernels right? Triton's interpreter runs them here on the CPU against PyTorch: 3 tokens,
# 5 heads of which the last 8 channels turn (59 of the tile's 64 rows are masked), a
# latent of 48.

# %%
from deepseek_mini.lesson import gpu_section, interpreted_section

interpreted_section("rope")

# %% [markdown]
# The bound, $2^{-6}$ of the largest number, lets two roundings to bfloat16 fall the
# other way, $2^{-7}$ each. And on a GPU:

# %% tags=["nbval-ignore-output"]
gpu_section("rope")

# %% [markdown]
# ## What this proves, and what it does not
#
# - Proved: NumPy, our PyTorch and `transformers` compute the same rotations,
#   frequencies and logits, for plain, linear, YaRN and llama3 scaling, with and without
#   a cache, on random weights.
# - Proved: relativity does not tell the two layouts apart; equality with the right
#   model does.
# - Measured: at factor 4, for one small byte-level model on code. That says how the
#   three fail, not how good they are at 128K.
# - Not shown: that long contexts are *used*. Loss by position can stay flat while the
#   far tokens are ignored.
# - Not shown: training stability at full size, nor YaRN's temperature on its own.
# - Proved: the kernels compute what PyTorch computes, interpreted on a CPU at small
#   sizes. Their floor is counted from assumed rates; no kernel has run on a GPU yet, so
#   their speed is not known.
#
# ## Exercises
#
# The [exercises](../exercises/03_rope.ipynb) go from one line to YaRN from the paper,
# about an hour in all: the frequencies, the rotation, the move from one layout to the
# other, YaRN, and going on where a cache ends. (After `make lab`, take your own copy in
# `work/`.)
#
# ## References
#
# - J. Su and others, *RoFormer*, arXiv 2104.09864, §3.2.2.
# - S. Chen and others, *Extending Context Window of Large Language Models via
#   Positional Interpolation*, arXiv 2306.15595, §2.3 (linear scaling).
# - B. Peng and others, *YaRN*, arXiv 2309.00071, §3.2 (the ramp), §3.3 (the
#   temperature).
# - *DeepSeek-Coder*, arXiv 2401.14196, §3.6. *DeepSeek-V2*, arXiv 2405.04434, §3.1.4.
#   *DeepSeek-V3*, arXiv 2412.19437, §4.3. *The Llama 3 Herd of Models*, arXiv
#   2407.21783, §3.4.2; the rule itself is `apply_scaling` in Meta's `llama-models`.
# - Official code: `inference/model.py` of DeepSeek-V3, `precompute_freqs_cis` (YaRN)
#   and `apply_rotary_emb`, which turns a pair by multiplying complex numbers.

# ===== exercises =====
# %% [markdown]
# # 03 · RoPE: exercises
#
# Five exercises on lesson 03, about an hour in all. Write your answer where a cell
# raises `NotImplementedError`, run that cell and the one after it; `check` prints one
# line, and a hint when something is not right yet. What your function prints appears
# below the hint, for the inputs that failed. Every exercise has the formulas it needs
# and none needs another one: leave out what you like.

# %%
import math

import numpy as np
import torch

from deepseek_mini.lesson import check, setup

setup(seed=0)

# %% [markdown]
# ## 03.1 The frequencies
#
# *One line, 3 minutes.* Pair $i$ of a head with $d$ channels turns by
# $f_i = \theta^{-2i/d}$ radians per position, $i = 0, \dots, d/2 - 1$. Return all of
# them as a NumPy array of float64, NumPy's own default.
#
# By hand, with $d = 4$ and $\theta = 100$: pair 0 turns by $100^0 = 1$, pair 1 by
# $100^{-2/4} = 0.1$.

# %%
def inverse_frequencies(head_dim: int, theta: float) -> np.ndarray:
    """Radians per position of every pair, fastest first: float64 [head_dim / 2]."""
    ### BEGIN SOLUTION
    return theta ** (-np.arange(0, head_dim, 2) / head_dim)
    ### END SOLUTION

# %%
# To try it, take away the # of the next line. It should print [1.  0.1].
# print(inverse_frequencies(4, 100.0))
check("03.1", inverse_frequencies)

# %% [markdown]
# ## 03.2 Turn the pairs
#
# *A few lines, 10 minutes.* `x` [T, d] holds one head of T tokens, and token $t$
# stands at position $m_t$ = `positions[t]`; the positions come in any order. Its
# channels form neighbouring pairs (0, 1), (2, 3), …, and pair $i$ turns by the angle
# $\varphi = m_t f_i$ with $f_i = \theta^{-2i/d}$: $(a, b)$ becomes
# $(a\cos\varphi - b\sin\varphi,\; a\sin\varphi + b\cos\varphi)$. Each channel's result
# stands where the channel stood, and `x` itself stays as it was.
#
# By hand, with $d = 4$ and $\theta = 100$, so $f = (1, 0.1)$: at position 3 the token
# $(1, 0, 1, 0)$ becomes $(\cos 3, \sin 3, \cos 0.3, \sin 0.3)$, and at position 1 the
# token $(1, 0, 0, 1)$ becomes $(\cos 1, \sin 1, -\sin 0.1, \cos 0.1)$.

# %%
def rotate_interleaved(
    x: np.ndarray, positions: np.ndarray, theta: float
) -> np.ndarray:
    """x [T, d] turned at positions [T], whole numbers of any order: [T, d]."""
    ### BEGIN SOLUTION
    d = x.shape[-1]
    freqs = theta ** (-np.arange(0, d, 2) / d)  # [d/2]
    angles = positions[:, None] * freqs  # [T, d/2]
    cos, sin = np.cos(angles), np.sin(angles)  # [T, d/2] each
    a, b = x[:, 0::2], x[:, 1::2]  # [T, d/2] each
    return np.stack([a * cos - b * sin, a * sin + b * cos], axis=-1).reshape(x.shape)
    ### END SOLUTION

# %%
# To try it, take away the # of the next two lines. It should print
# [[-0.99    0.1411  0.9553  0.2955]
#  [ 0.5403  0.8415 -0.0998  0.995 ]]
# x = np.array([[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0]])  # [T, d]
# print(rotate_interleaved(x, np.array([3, 1]), 100.0).round(4))
check("03.2", rotate_interleaved)

# %% [markdown]
# ## 03.3 From one layout to the other
#
# *Some thought, 15 minutes.* `weight` is the matrix of `wq` or `wk` of a model with
# interleaved pairs, channels (0, 1), (2, 3), … of a head. It has `n_heads * head_dim`
# rows, head after head, and row $c$ of a head makes its channel $c$. Another model
# pairs channel $i$ with $i + d/2$ of the same head (half-split), and turns that pair at
# the frequency at which the first turns its pair $i$.
#
# Return a copy of `weight` with its rows moved, such that the other model finds in its
# pair $i$ what the first has in pair $i$, in the same order. When `wq` and `wk` are
# both moved so, every score is what it was: a dot product does not mind in which order
# its products are added.
#
# By hand, for a head of six channels: pairs 0, 1, 2 are rows (0, 1), (2, 3), (4, 5),
# and have to arrive at (0, 3), (1, 4), (2, 5). So the rows come in the order 0, 2, 4,
# 1, 3, 5; those of a second head come after them, in the same order among themselves.

# %%
def to_half_split(weight: torch.Tensor, n_heads: int) -> torch.Tensor:
    """Rows [n_heads * head_dim, D] of interleaved pairs, moved to half-split ones."""
    ### BEGIN SOLUTION
    pairs = weight.reshape(n_heads, -1, 2, weight.shape[1])  # [H, d/2, 2, D]
    return pairs.transpose(1, 2).reshape(weight.shape)  # [H, 2, d/2, D], flat again
    ### END SOLUTION

# %%
# To try it, take away the # of the next two lines. It should print
# [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11].
# rows = torch.arange(12.0)[:, None]  # [12, 1]: two heads of six channels
# print(to_half_split(rows, n_heads=2).flatten().int().tolist())
check("03.3", to_half_split)

# %% [markdown]
# ## 03.4 YaRN
#
# *From the paper (arXiv 2309.00071, §3.2) and DeepSeek's code, 25 minutes.* Return the
# frequencies that YaRN makes of the plain $f_i = \theta^{-2i/d}$. Let $T_0$ be
# `original_seq_len`, the trained length, and $s$ be `factor`. Pair $i$ keeps a share
# $k_i$ of its frequency, and the rest of it is divided by $s$:
#
# $$f'_i = k_i f_i + (1 - k_i)\, f_i / s.$$
#
# A pair that turns more than `beta_fast` times in $T_0$ positions has $k_i = 1$, one that
# turns less than `beta_slow` times has $k_i = 0$. Between them is a ramp, and here the
# code differs from the paper: in the paper $k_i$ is linear in the number of turns, in
# the code it falls in **equal steps from pair to pair**. Follow the code. Its ramp
# starts and ends at the pairs that turn `beta_fast` and `beta_slow` times, and a pair
# that turns $r$ times has the number
#
# $$\frac{d}{2}\,\log_\theta \frac{T_0}{2\pi r}.$$
#
# - This is no whole number: the code rounds the start of the ramp down, its end up.
# - It may be negative, or larger than any pair's: the code keeps both ends between 0
#   and $d - 1$. (The last pair is $d/2 - 1$; a ramp that ends after it never comes down
#   to 0.)
# - When start and end are the same pair, the ramp is a step: that pair keeps all of its
#   frequency, every later one is divided.
#
# YaRN's temperature is not part of this exercise.
#
# By hand, for DeepSeek-V3's $d = 64$, $\theta = 10{,}000$, $T_0 = 4096$ and betas 32 and
# 1: the formula gives 10.5 and 22.5, so the ramp starts at pair 10 and ends at pair 23.
# With $s = 40$ pair 10 keeps its $f_{10} = 0.056234$, pair 23 is left with
# $f_{23} / 40 = 0.000033$, and pair 16, six steps of thirteen down the ramp, has
# $k_{16} = 7/13$ and $f'_{16} = 0.0055$.

# %%
def yarn_inverse_frequencies(
    head_dim: int,
    theta: float,
    factor: float,
    original_seq_len: int,
    beta_fast: float,
    beta_slow: float,
) -> np.ndarray:
    """Radians per position of every pair, stretched: float64 [head_dim / 2]."""
    ### BEGIN SOLUTION
    def pair_that_turns(times):
        wavelength = original_seq_len / times
        return head_dim / 2 * math.log(wavelength / (2 * math.pi), theta)

    low = max(math.floor(pair_that_turns(beta_fast)), 0)
    high = min(math.ceil(pair_that_turns(beta_slow)), head_dim - 1)
    steps = max(high - low, 0.001)  # with equal ends a step, not 0/0
    pair = np.arange(head_dim // 2)  # [d/2]
    keep = 1 - np.clip((pair - low) / steps, 0, 1)  # [d/2]
    freqs = theta ** (-2 * pair / head_dim)  # [d/2]
    return keep * freqs + (1 - keep) * freqs / factor
    ### END SOLUTION

# %%
# To try it, take away the # of the next two lines. It should print
# 0.056234 0.005500 0.000033.
# stretched = yarn_inverse_frequencies(64, 10_000.0, 40, 4096, 32, 1)  # [32]
# print(*(f"{stretched[i]:.6f}" for i in (10, 16, 23)))
check("03.4", yarn_inverse_frequencies)

# %% [markdown]
# ## 03.5 Go on where the cache ends
#
# *A few lines, 10 minutes.* A model reads a text piece by piece, and `cache_length`
# tokens have been read. `q` [B, T, H, d] holds the queries of the next T tokens, of H
# heads each, in PyTorch. The very first token of the text stood at position 0. Turn
# every pair (0, 1), (2, 3), … of channels of a token at position $m$ by
# $\varphi = m f_i$ with $f_i = \theta^{-2i/d}$: $(a, b)$ becomes
# $(a\cos\varphi - b\sin\varphi,\; a\sin\varphi + b\cos\varphi)$.
#
# Give back the shape and the dtype of `q`. It may be float64, float32 or bfloat16,
# which is too coarse to compute angles in, and need not be contiguous in memory; the
# cache may hold thousands of tokens.
#
# By hand, after 3 cached tokens, with $d = 4$ and $\theta = 100$: the next token's
# $(1, 0, 0, 1)$ becomes $(\cos 3, \sin 3, -\sin 0.3, \cos 0.3)$, and the one after it
# turns by 4 and 0.4. All heads of a token turn alike.

# %%
def apply_rope_cached(q: torch.Tensor, cache_length: int, theta: float) -> torch.Tensor:
    """q [B, T, H, d] of the T tokens after cache_length others, turned: same shape."""
    ### BEGIN SOLUTION
    half = q.shape[-1] // 2
    freqs = theta ** (-torch.arange(half, dtype=torch.float64) / half)  # [d/2]
    positions = cache_length + torch.arange(q.shape[1])  # [T]
    angles = torch.outer(positions.double(), freqs)[:, None]  # [T, 1, d/2]
    cos, sin = angles.cos(), angles.sin()  # [T, 1, d/2] each
    a, b = q[..., 0::2], q[..., 1::2]  # [B, T, H, d/2] each
    pairs = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1)
    return pairs.flatten(-2).to(q.dtype)  # [B, T, H, d]
    ### END SOLUTION

# %%
# To try it, take away the # of the next three lines. It should print
# [1, 2, 2, 4] [-0.99, 0.1411, -0.2955, 0.9553] [-0.6536, -0.7568, -0.3894, 0.9211]
# q = torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(1, 2, 2, 1)  # [B, T, H, d]
# t = apply_rope_cached(q, 3, 100.0).double()  # [B, T, H, d]
# print(list(t.shape), *(t[0, i, 1].numpy().round(4).tolist() for i in (0, 1)))
check("03.5", apply_rope_cached)

# %% [markdown]
# Next: lesson 04 puts the rotation inside attention.
