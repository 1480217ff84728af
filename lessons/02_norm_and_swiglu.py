# %% [markdown]
# # 02 · RMSNorm and SwiGLU: keep the scale, gate the channels
#
# A layer of DeepSeek-LLM adds two results to the vector of every token: attention's and a feed-forward network's. The 7B has 30 layers, the 67B has 95. In a stack of random feed-forward networks without normalisation, the numbers leave the range of float32 after ten layers. What keeps the scale? And why is the feed-forward network of the 7B 11,008 channels wide, 2.69 times the model's 4,096, when the first Transformer took 4 times?
#
# - **You will build** RMSNorm and SwiGLU in NumPy and read them in PyTorch, see what a norm does to scales and gradients, prove both equal to the `transformers` library, measure what each is worth in a small model, and read a GPU kernel of the norm.
# - **You need** lesson 00, matrix products and derivatives.
# - **Time**: about 40 minutes, and 40 for the exercises.
# - **Papers**: RMSNorm §3 and §4; GLU variants §2; how DeepSeek uses them: DeepSeek-LLM §2.2.

# %%
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F

import deepseek_mini as dm
from deepseek_mini.lesson import PALETTE, error, figure, ladder, setup, show

setup(seed=0)

# %% [markdown]
# ## RMSNorm by hand
#
# **RMS** is the root of the mean of the squares. RMSNorm divides a vector $x$ of $D$ channels by its RMS and multiplies each channel by a learned weight $w_i$, which starts at 1:
#
# $$y_i = \frac{x_i}{\sqrt{\frac{1}{D} \sum_j x_j^2 + \varepsilon}}\; w_i.$$
#
# The small $\varepsilon$, $10^{-6}$ in DeepSeek-LLM, keeps a vector of zeros from being divided by zero. Leave it out for a moment and take $x = (1, 7)$: the squares are 1 and 49, their mean is 25, its root is 5, and $y = (0.2, 1.4)$.
#
# **Predict**: what becomes of $(10, 70)$, and of $(-1, -7)$?
#
# ## RMSNorm in NumPy
#
# `T` counts tokens, and each is normalised on its own, along the last axis.

# %%
def rms_norm(x, weight, eps=1e-6):
    mean_square = (x**2).mean(-1, keepdims=True)  # [..., 1]
    return x / np.sqrt(mean_square + eps) * weight  # [..., D]


x = np.array([[1.0, 7.0], [10.0, 70.0], [-1.0, -7.0]])  # [T, D]
y = rms_norm(x, np.ones(2))  # [T, D]
for before, after in zip(x, y):
    print(f"({before[0]:3.0f}, {before[1]:3.0f}) -> ({after[0]:4.1f}, {after[1]:4.1f})")
assert np.allclose(y[:2], [0.2, 1.4])

# %% [markdown]
# The length is gone; direction and sign stay. Ten times the input gives the same output.
#
# ## RMSNorm in PyTorch
#
# The package's own source:

# %%
show(dm.model.RMSNorm)

# %% [markdown]
# The NumPy line, with a detour over float32 that is explained below.
#
# ## What it does to the gradient
#
# Let $g_i$ be the derivative of the loss with respect to $y_i$, times $w_i$; let $r$ be one over the root above and $n = r x$ the normalised vector. By the chain rule
#
# $$\frac{\partial\,\text{loss}}{\partial x_i} = r\,\big(g_i - n_i \cdot \tfrac{1}{D}\textstyle\sum_j g_j n_j\big).$$
#
# The second term removes the part of $g$ along $x$, because a longer $x$ changes nothing. The factor $r$ makes the gradient of a ten times larger input ten times smaller. For $x = (1, 7)$ and $g = (1, 0)$: $r = 1/5$, the mean of $g_j n_j$ is $0.2 / 2 = 0.1$, and the gradient is $(1 - 0.02,\; -0.14) / 5 = (0.196, -0.028)$. Autograd agrees:

# %%
norm = dm.model.RMSNorm(2).double()
for scale in (1, 10):
    x = torch.tensor([1.0, 7.0], dtype=torch.float64) * scale  # [D]
    x.requires_grad_()
    norm(x)[0].backward()  # the loss is the first channel: g = (1, 0)
    along = (x.grad @ x).item()
    print(f"x = {x.tolist()}: gradient ({x.grad[0]:.4f}, {x.grad[1]:.4f})", end=", ")
    print("no part along x:", abs(along) < 1e-6)
    want = torch.tensor([0.196, -0.028], dtype=torch.float64) / scale  # [D]
    assert torch.allclose(x.grad, want, atol=1e-6)

# %% [markdown]
# ## Through 30 layers
#
# A layer adds its result to its input: $x + f(x)$. There are two places for a norm.
#
# - **Post-norm**, the first Transformer's: $\text{norm}(x + f(x))$.
# - **Pre-norm**, DeepSeek's: $x + f(\text{norm}(x))$, and one more norm after the last layer.
#
# Below are 30 SwiGLU networks (their turn comes soon) with random matrices from $N(0, 1/\text{fan-in})$, normally distributed with that variance; fan-in is the number of inputs of a channel. We note the RMS of the vectors after every layer, and of the gradient there, on the way back from a random one at the top.
#
# **Predict**: which of the three keeps the vectors at RMS 1? Does it keep the gradient too?

# %%
LARGEST = torch.finfo(torch.float32).max  # 3.4e38


def through(n_layers, place, D=256, inter_dim=688):
    """RMS of the vectors, and of their gradients, after 0 to n_layers layers."""
    torch.manual_seed(0)
    norm = dm.model.RMSNorm(D).double()
    x = torch.randn(64, D, dtype=torch.float64, requires_grad=True)  # [T, D]
    after = [x]
    for _ in range(n_layers):
        ffn = dm.model.SwiGLU(D, inter_dim).double()
        for p in ffn.parameters():
            torch.nn.init.normal_(p, 0, p.shape[1] ** -0.5)
        if place == "pre-norm":
            x = x + ffn(norm(x))  # [T, D]
        else:
            x = x + ffn(x)  # [T, D]
            x = norm(x) if place == "post-norm" else x  # [T, D]
        x.retain_grad()
        after.append(x)
        if x.abs().max() > LARGEST:
            break
    out = norm(x) if place == "pre-norm" else x  # [T, D]
    out.backward(torch.randn(64, D, dtype=torch.float64))
    rms = [[t.square().mean().sqrt().item() for t in ts]
           for ts in (after, [t.grad for t in after])]  # fmt: skip
    return np.array(rms)  # [2, layers + 1]

# %%
depth = {place: through(30, place) for place in ("no norm", "post-norm", "pre-norm")}
burst = depth["no norm"].shape[1] - 1
print(f"no norm: beyond float32 after layer {burst}")
for place in ("post-norm", "pre-norm"):
    rms, grad = depth[place]  # [layers + 1] each
    print(f"{place}: RMS {rms[-1]:.1f} after layer 30, ", end="")
    print(f"gradient {grad[0] / grad[-1]:.0f} times larger at the bottom")
assert burst <= 10 and depth["no norm"][0, 5] < 100

# %%
alt = """Two panels against the layer, 0 to 30, log axes. Left, RMS of the vectors:
without norm it shoots out of the picture before layer 10, post-norm stays at 1,
pre-norm rises to 3. Right, RMS of the gradient: post-norm rises in a straight line
towards layer 0, to about 40; pre-norm stays below 1 down to layer 7, then 3 at 0."""
with figure(alt, size=(9, 3.6)) as fig:
    axes = fig.subplots(1, 2)
    for place, (rms, grad) in depth.items():
        axes[0].plot(rms, label=place)
        if place != "no norm":
            axes[1].plot(grad, color=axes[0].lines[-1].get_color(), label=place,
                         ls=axes[0].lines[-1].get_linestyle())  # fmt: skip
    axes[0].set(yscale="log", ylim=(0.5, 1e4), xlim=(-0.5, 30.5))
    axes[0].set(xlabel="after layer", ylabel="RMS of the vectors")
    axes[1].set(yscale="log", xlabel="after layer", ylabel="RMS of the gradient")
    axes[0].legend()
    axes[1].legend()

# %% [markdown]
# Without a norm the vectors are below RMS 100 after five layers and then burst: SwiGLU squares the scale of its input, layer after layer. Post-norm keeps every vector at RMS 1, but every layer multiplies the gradient by about the same factor, which compounds. Pre-norm lets the vectors grow slowly: each layer reads RMS 1 and adds about the same amount, and the gradient has the straight path $x + \dots$ past all norms. And 95 layers, as in the 67B?

# %%
deep = {place: through(95, place) for place in ("post-norm", "pre-norm")}
ratio = {place: grad[0] / grad[-1] for place, (_, grad) in deep.items()}
for place, times in ratio.items():
    print(f"{place}: gradient {times:,.0f} times larger at the bottom of 95 layers")
assert ratio["post-norm"] > 1e5 and ratio["pre-norm"] < 50

# %% [markdown]
# ## Why no mean
#
# **LayerNorm** is older. It first subtracts the mean $\mu$ of the channels: $(x_i - \mu) / \sqrt{\text{variance} + \varepsilon} \cdot w_i + b_i$. So LayerNorm is RMSNorm of a vector without its mean (and a bias added). Of two channels it leaves only which is larger: $(1, 7)$ has mean 4 and standard deviation 3 and becomes $(-1, 1)$, and so does $(1, 100)$.

# %%
x = torch.randn(5, 64)  # [T, D]
centred = x - x.mean(-1, keepdim=True)  # [T, D]
same = error(F.layer_norm(x, (64,)), F.rms_norm(centred, (64,), eps=1e-5)) < 1e-5
print("LayerNorm = RMSNorm without the mean:", same)
pairs = torch.tensor([[1.0, 7.0], [1.0, 100.0]])  # [2, D]
signs = F.layer_norm(pairs, (2,)).round()  # [2, D]
print("LayerNorm of (1, 7) and of (1, 100):", signs.tolist())
assert same

# %% [markdown]
# Move *scale*: both norms ignore it. Move *shift*, which is added to all channels: only LayerNorm ignores it. (A live slider needs a running notebook; below it are three settings.)

# %%
from deepseek_mini.lesson import Slider, settings_figure, slider_figure

channels = np.array([0.5, -1.2, 0.3, 1.6, -0.4, -0.8])  # [D], their sum is 0


def draw_norms(fig, scale, shift):
    x = scale * channels + shift  # [D]
    axes = fig.subplots(3, 1, sharex=True)
    parts = {
        "input": x,
        "RMSNorm": rms_norm(x, 1.0),
        "LayerNorm": rms_norm(x - x.mean(), 1.0),
    }
    for ax, color, (name, values) in zip(axes, PALETTE, parts.items()):
        ax.bar(np.arange(1, 7), values, color=color)
        ax.axhline(0, color="black", lw=0.8, ls="-")
        limit = 12 if name == "input" else 2.4
        ax.set(ylim=(-limit, limit), ylabel=name)
    axes[-1].set_xlabel("channel")


widget = slider_figure(
    draw_norms,
    alt="Six channels times {scale:.1f}, plus {shift:.1f}, and what two norms make.",
    size=(4.4, 4.6),
    scale=Slider(0.5, 5, start=1, step=0.5, label="scale"),
    shift=Slider(-4, 4, start=0, step=0.5, label="shift"),
)

# %%
settings_figure(
    draw_norms,
    {
        "as it is": {"scale": 1, "shift": 0},
        "times 5": {"scale": 5, "shift": 0},
        "plus 2": {"scale": 1, "shift": 2},
    },
    alt="""Six channels in three settings, and what the norms make of them. Times 5:
    both outputs are as before. Plus 2: LayerNorm's output is as before, in RMSNorm's
    all channels are above 0.""",
    size=(9.5, 4.4),
)
assert abs(channels.sum()) < 1e-12

# %% [markdown]
# The authors of RMSNorm argue that ignoring the scale is what helps, and that ignoring the shift can go. A model might still make a large mean; below we look whether a trained one does.
#
# ## A gate, by hand
#
# A plain feed-forward network has two matrices with a function between them: $w_2 f(w_1 x)$, where $f$ is ReLU or GELU and the middle is $4D$ wide. **SwiGLU** has three:
#
# $$w_2\,\big(\text{silu}(w_1 x) \odot w_3 x\big), \qquad \text{silu}(a) = \frac{a}{1 + e^{-a}},$$
#
# where $\odot$ multiplies channel by channel. $w_3 x$ is the **value**, $\text{silu}(w_1 x)$ the **gate** that decides how much of it passes. Take one channel whose gate input is $a = \ln 3$. Then $1 / (1 + e^{-a}) = 3/4$, and the gate is $\tfrac34 \ln 3 = 0.824$. A value of 4 leaves as $3 \ln 3 = 3.296$, a value of $-4$ as $-3.296$. At $a = -\ln 3$ the gate is $-\tfrac14 \ln 3 = -0.275$: nearly closed, and not quite.
#
# ## A gate, in NumPy
#
# `F` counts the channels in the middle. Matrices are stored as PyTorch stores them: outputs are rows.

# %%
def silu(a):
    return a / (1 + np.exp(-a))


def swiglu(x, w1, w2, w3):
    gate = silu(x @ w1.T)  # [..., F]
    value = x @ w3.T  # [..., F]
    return (gate * value) @ w2.T  # [..., D]


one = np.ones((1, 1))  # [T, D] and also w2 [D, F]
passed = np.array([swiglu(one, np.log(3) * one, one, v * one) for v in (4, -4)])
print("values 4 and -4 leave as", passed.flatten().round(3).tolist())
print("the gate at -ln 3:", round(silu(-np.log(3)), 3))
assert np.allclose(passed.flatten(), [3 * np.log(3), -3 * np.log(3)])

# %%
a = np.linspace(-4, 4, 161)  # [161]
alt = """Left: ReLU, GELU and silu from -4 to 4. All are near 0 on the far left and near
the diagonal on the far right; GELU and silu dip below 0 in between. Right: a map of
gate times value. Where the gate's input is negative the map is pale, the gate is nearly
closed; where it is positive the result has the value's sign and grows with both."""
with figure(alt, size=(9, 3.7)) as fig:
    left, right = fig.subplots(1, 2)
    for name, f in (("ReLU", F.relu), ("GELU", F.gelu), ("silu", F.silu)):
        left.plot(a, f(torch.from_numpy(a)), label=name)
    left.set(xlabel="input", ylabel="output")
    left.legend()
    gated = silu(a) * a[:, None]  # [value, gate]
    corners = {"origin": "lower", "extent": (-4, 4, -4, 4), "aspect": "equal"}
    image = right.imshow(gated, cmap="RdBu_r", vmin=-12, vmax=12, **corners)
    right.set(xlabel="the gate's input, $w_1 x$", ylabel="the value, $w_3 x$")
    right.grid(False)
    fig.colorbar(image, ax=right, label="silu(gate's input) · value")

# %% [markdown]
# A channel of a ReLU network gives 0 or something positive. A gated channel multiplies two sums of inputs, so it can answer *this, if that*, with either sign. That is an intuition: the paper that proposed SwiGLU offers no explanation.
#
# ## A gate, in PyTorch

# %%
show(dm.model.SwiGLU)

# %% [markdown]
# ## Parameters at equal cost
#
# A plain network of width $4D$ has $2 \cdot D \cdot 4D = 8D^2$ parameters, SwiGLU of width $F$ has $3DF$. They are equal when $F = \tfrac83 D$. It is rounded up to a multiple of 128 or 256, because kernels work on tiles of such sizes. (MLP is short for the plain network of two matrices.)

# %%
D = 4096
exact = 8 * D / 3
rounded = -(-exact // 256) * 256  # up to a multiple of 256
print(f"8/3 of {D:,} is {exact:,.1f}; up to a multiple of 256: {rounded:,.0f}")
print(f"11,008 / 4,096 = {11_008 / D:.4f}")
print(f"SwiGLU of width 4D against an MLP of width 4D: {3 * D * 4 * D / (8 * D * D)} x")
assert rounded == dm.Config.preset("deepseek-llm-7b").dense.inter_dim == 11_008

# %% [markdown]
# This answers the second question, and shows an unfair comparison: SwiGLU of width $4D$ has half as many parameters again as the MLP that it is said to beat.
#
# ## The ladder
#
# By hand = NumPy = PyTorch = `transformers`, on the same random weights. Error means max|a − b| / max(1, max|b|).

# %%
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

norm, ffn = dm.model.RMSNorm(96), dm.model.SwiGLU(96, 256)
for p in (norm.weight, *ffn.parameters()):
    mean, std = (1, 0.3) if p.ndim == 1 else (0, 0.6 / p.shape[1] ** 0.5)
    torch.nn.init.normal_(p, mean, std)
their_norm = LlamaRMSNorm(96, eps=1e-6)
their_norm.load_state_dict(norm.state_dict())
their_ffn = LlamaMLP(LlamaConfig(hidden_size=96, intermediate_size=256))
names = {"gate_proj": ffn.w1, "up_proj": ffn.w3, "down_proj": ffn.w2}
their_ffn.load_state_dict({f"{n}.weight": m.weight for n, m in names.items()})

x = torch.randn(3, 50, 96)  # [B, T, D]
w, w1, w2, w3 = (p.detach().double().numpy() for p in (norm.weight, *ffn.parameters()))
with torch.no_grad():
    numpy_norm = rms_norm(x.double().numpy(), w)  # [B, T, D]
    numpy_ffn = swiglu(x.double().numpy(), w1, w2, w3)  # [B, T, D]
    by_hand = np.array([3, -3]) * np.log(3)  # [2]
    rungs = [
        ("RMSNorm: NumPy = by hand", y[0], np.array([0.2, 1.4]), 1e-7),
        ("RMSNorm: PyTorch = NumPy", norm(x), numpy_norm, 1e-5),
        ("RMSNorm: PyTorch = transformers", norm(x), their_norm(x), 1e-5),
        ("SwiGLU: NumPy = by hand", passed.flatten(), by_hand, 1e-12),
        ("SwiGLU: PyTorch = NumPy", ffn(x), numpy_ffn, 1e-5),
        ("SwiGLU: PyTorch = transformers", ffn(x), their_ffn(x), 1e-5),
    ]
ladder("Both modules", rungs)

# %% [markdown]
# ## How people get it wrong
#
# Three slips in the norm. All give the right shape, and so does the wrong axis, because the batch is as large as the width. Fresh embeddings of DeepSeek-LLM have RMS 0.006, so we try that scale too.
#
# **Predict**: which slip does a test at RMS 1 not notice?

# %%
eps = 1e-6
slips = {
    "none, all is right": lambda x: x / torch.sqrt(x.square().mean(-1, True) + eps),
    "mean of x, not of x²": lambda x: x / torch.sqrt(x.mean(-1, True) ** 2 + eps),
    "along the wrong axis": lambda x: x / torch.sqrt(x.square().mean(0, True) + eps),
    "eps outside the root": lambda x: x / (x.square().mean(-1, True).sqrt() + eps),
}
norm = dm.model.RMSNorm(96)
x = torch.randn(96, 96)  # [B, D]: as many rows as channels
print(f"{'the slip':24}{'same shape':>12}{'right at RMS 1':>18}{'at RMS 0.006':>16}")
for slip, f in slips.items():
    equal = [error(f(s * x), norm(s * x).detach()) < 1e-5 for s in (1, 0.006)]
    print(f"{slip:24}{f(x).shape == x.shape!s:>12}{equal[0]!s:>18}{equal[1]!s:>16}")

# %% [markdown]
# Epsilon outside the root is invisible at RMS 1. At 0.006 the mean square is $3.6 \cdot 10^{-5}$, epsilon is 3% of it, and the output is off by more than 1%.
#
# **Squares in half precision.** The largest float16 is 65,504, so the square of 256 is infinite, one over its root is 0, and the norm gives zeros without a warning. This is why the package takes the mean in float32:

# %%
x = torch.tensor([1.0, -2.0, 300.0, 5.0], dtype=torch.float16)  # [D]
naive = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)  # [D]
ours = dm.model.RMSNorm(4).half()(x)  # [D]
print("squares in float16:", x.square().tolist())
print("normalised in float16:", naive.tolist())
print("the package:", [round(v, 3) for v in ours.tolist()])
off = 1 - np.sqrt(0.006**2 + eps) / (0.006 + eps)  # eps outside, at RMS 0.006
assert round(eps / 0.006**2, 2) == 0.03 and 0.01 < abs(off) < 0.02
assert (naive == 0).all() and 1.9 < ours[2] < 2.1

# %% [markdown]
# **`w1` and `w3` exchanged.** Both have the shape [F, D], and random matrices do not know their names. So a model with silu on the wrong one trains as well, but it is another function: weights that were trained the right way round do not fit it. Two small models over bytes, with the same first weights and the same batches:

# %%
from deepseek_mini.config import GQA, Config, SwiGLU
from deepseek_mini.data import python_code

corpus = python_code()  # modules of Python's standard library


def as_bytes(documents):
    text = "".join(document.text for document in documents)
    return torch.tensor(bytearray(text, "utf-8"), dtype=torch.int64)  # [N]


training, validation = as_bytes(corpus.train), as_bytes(corpus.validation)

# %%
class Exchanged(dm.model.SwiGLU):
    def forward(self, x):
        return self.w2(self.w1(x) * F.silu(self.w3(x)))  # [B, T, D]


def fresh(kind, config):
    torch.manual_seed(0)
    model = dm.Transformer(config)
    if kind == "exchanged":
        for layer in model.layers:
            layer.ffn.__class__ = Exchanged  # the same weights, the other forward
    if kind == "no norm":
        model.norm = torch.nn.Identity()
        for layer in model.layers:
            layer.attn_norm = layer.ffn_norm = torch.nn.Identity()
    return model


small = Config(
    vocab_size=256,
    dim=64,
    n_layers=2,
    max_seq_len=64,
    attention=GQA(n_heads=2, n_kv_heads=2, head_dim=32),
    dense=SwiGLU(inter_dim=172),
    init_std=0.06,
)

# %%
def train(model, steps=120, peak=5e-3):
    generator = torch.Generator().manual_seed(0)
    adam = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95))
    for step in range(steps):
        adam.param_groups[0]["lr"] = peak * min((step + 1) / 20, 1 - 0.9 * step / steps)
        start = torch.randint(len(training) - 64, (16, 1), generator=generator)
        window = training[start + torch.arange(65)]  # [B, T + 1]
        loss = F.cross_entropy(model(window[:, :-1]).mT, window[:, 1:])
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
    return model


@torch.no_grad()
def loss_of(model):
    start = torch.linspace(0, len(validation) - 65, 200).long()[:, None]  # [B, 1]
    window = validation[start + torch.arange(65)]  # [B, T + 1]
    return F.cross_entropy(model(window[:, :-1]).mT, window[:, 1:]).item()


models = {kind: train(fresh(kind, small)) for kind in ("right", "exchanged")}
live = {kind: loss_of(model) for kind, model in models.items()}
loaded = fresh("exchanged", small)
loaded.load_state_dict(models["right"].state_dict())
print("both learn (below 2.7 nats a byte):", max(live.values()) < 2.7)
print("and end alike (within 0.1):", abs(live["right"] - live["exchanged"]) < 0.1)
cost = loss_of(loaded) - live["right"]
print("loaded the wrong way, over 0.05 worse:", cost > 0.05)
assert max(live.values()) < 2.7 and cost > 0.05
assert abs(live["right"] - live["exchanged"]) < 0.1

# %% [markdown]
# The loss is worse, not absurd. Only equality with the right model tells.
#
# ## Does it matter?
#
# First the norm, at the very start. Whole models of ours (attention too) with random weights from $N(0, 1/D)$, before any training. Their loss should be near that of guessing among 256 bytes, ln 256 = 5.5.

# %%
tokens = torch.randint(256, (8, 65))  # [B, T + 1]
print("layers    with RMSNorm      without norms")
for n_layers in (2, 4, 8, 12, 16):
    config = replace(small, n_layers=n_layers, init_std=64**-0.5)
    said = []
    for kind in ("right", "no norm"):
        logits = fresh(kind, config)(tokens[:, :-1])  # [B, T, V]
        loss = F.cross_entropy(logits.mT, tokens[:, 1:]).item()
        said.append(f"{loss:.1f}" if loss < 10 else "above 10")
        said[-1] = said[-1] if np.isfinite(loss) else "not a number"
    print(f"{n_layers:6}{said[0]:>14}{said[1]:>20}")
assert said == ["6.1", "not a number"]

# %% [markdown]
# Without norms eight layers start far above guessing, and from twelve on there is no loss to start from. Smaller first weights would help. So the second experiment has four layers and first weights of standard deviation 0.06, about half as large.
#
# Models learned Python code as bytes, 200 steps each. Each variant changes one part of the package's model: LayerNorm for RMSNorm, no norm at all, or GELU or ReLU MLPs for SwiGLU, 258 wide instead of 172, which is exactly as many parameters ($2 \cdot 258 = 3 \cdot 172$). Each ran with four seeds at two learning rates. The script is `experiments/02_norm_and_swiglu.py`, its log comes with the package.
#
# **Predict**: rank the five.

# %%
import json
from importlib.resources import files

log = files("deepseek_mini") / "assets/logs/02_norm_and_swiglu.jsonl"
head, *records = [json.loads(line) for line in log.read_text().splitlines()]
variants = list(dict.fromkeys(r["variant"] for r in records))
loss = {
    (variant, peak): np.array(
        [r["loss"] for r in records if (r["variant"], r["peak"]) == (variant, peak)]
    )  # [seeds]
    for variant in variants
    for peak in head["peaks"]
}
print(f"{head['seeds']} seeds, {records[0]['parameters']:,} parameters")
print(f"{head['hardware']}, torch {head['torch']}, {head['date']}")
print(f"{head['seconds'] / 60:.0f} minutes of processor time")

# %%
alt = """Validation loss of five variants, four seeds each, at two learning rates. At
0.003 no norm lies far above all others, near 2.47; at 0.01 it is among the lowest,
near 2.17. The rest are between 2.12 and 2.30, mixed; GELU is a little higher."""
with figure(alt, size=(8, 3.6)) as fig:
    ax = fig.subplots()
    for color, peak, shift in zip(PALETTE, head["peaks"], (-0.12, 0.12)):
        for i, variant in enumerate(variants):
            runs = loss[variant, peak]  # [seeds]
            label = f"learning rate {peak}" if i == 0 else None
            marker = "o" if shift < 0 else "s"
            ax.plot(i + shift + 0 * runs, runs, marker, color=color, label=label)
            ax.plot(i + shift, runs.mean(), "_", ms=16, mew=2, color=color)
    names = ["RMSNorm,\nSwiGLU", *variants[1:]]
    ax.set_xticks(range(len(variants)), names)
    ax.set_ylabel("validation loss (nats per byte)")
    ax.legend()

# %%
ours = variants[0]
best = {
    variant: min((loss[variant, peak] for peak in head["peaks"]), key=np.mean)
    for variant in variants
}  # [seeds] each: at the better of the two rates
low, high = head["peaks"]
print(f"{'':18}{f'rate {low}':>10}{f'rate {high}':>11}", end="   ")
print("at the better rate, behind ours")
for variant in variants:
    means = [loss[variant, peak].mean() for peak in (low, high)]
    gap = best[variant] - best[ours]  # [seeds]
    print(f"{variant:18}{means[0]:10.3f}{means[1]:11.3f}", end="   ")
    print(f"{gap.mean():+.3f}; {(gap > 0).sum()} of {len(gap)} seeds are worse")
shares = [r["mean_share"] for r in records if r["variant"] == ours]
print(f"mean² / mean of squares before the norms: {np.mean(shares):.1%}", end=", ")
print(f"of 64 random numbers {1 / 64:.1%}")
slow = loss["no norm", low] - loss[ours, low]  # [seeds]
gelu = best["gelu"] - best[ours]  # [seeds]
assert (gelu > 0).all() and round(gelu.mean(), 3) == 0.055
assert (slow > 0.2).all()
for variant in ("relu", "layernorm", "no norm"):
    assert abs((best[variant] - best[ours]).mean()) < 0.04
spread = best[ours].max() - best[ours].min()
print(f"our own best and worst seed differ by {spread:.3f}")

# %% [markdown]
# At this size most of the differences are too small to see:
#
# - **The norm bought no lower loss here, but freedom in the learning rate.** At the smaller rate the model without norms is more than 0.2 behind in every seed. At the larger rate it is level with ours at its best.
# - **LayerNorm and RMSNorm are level.** The mean of the channels is no larger than that of random numbers, so LayerNorm has little to subtract.
# - **The gate is not ahead of ReLU** at equal parameters. Only GELU is behind in all four seeds, by 0.055, less than our own seeds differ.
#
# The GLU paper measured its advantage in far larger models and longer trainings. A small rerun, with two layers at a rate of 0.005, agrees on the clearest of these:

# %%
bare = loss_of(train(fresh("no norm", small)))
print("no norm, over 0.1 nats a byte behind:", bare - live["right"] > 0.1)
assert bare - live["right"] > 0.1

# %% [markdown]
# ## At full size
#
# `F` against `D` in the models that have a config here. *Rule* is the multiple for which $F$ is $\tfrac83 D$ rounded up; *share* is the part of all parameters that the feed-forward networks hold. (Not every width could be read in a primary source; the counts agree with the published sizes.)

# %%
def rule(D, inter_dim):
    for multiple in (256, 128, 8):
        if inter_dim == -(-8 * D // (3 * multiple)) * multiple:
            return multiple
    return "-"


print(f"{'':32}{'D':>7}{'F':>8}{'F / D':>7}{'rule':>6}{'share':>7}{'norms':>8}")
own = ["llm-7b", "llm-67b", "coder-1.3b", "coder-6.7b", "coder-33b", "llm-mini"]
distilled = [f"r1-distill-{name}" for name in ("qwen-1.5b", "qwen-7b", "llama-8b")]
rules = {}
for name in own + distilled:
    config = dm.Config.preset(f"deepseek-{name}")
    D, inter_dim = config.dim, config.dense.inter_dim
    report = dm.count(config)
    shares = [report.parts[p] / report.parameters for p in ("feed-forward", "norms")]
    rules[name] = rule(D, inter_dim)
    print(f"deepseek-{name:23}{D:7,}{inter_dim:8,}{inter_dim / D:7.2f}", end="")
    print(f"{rules[name]:>6}{shares[0]:7.0%}{shares[1]:8.4%}")
assert [rules[name] for name in own] == [256, 256, 128, 256, 256, 8]
assert all(rules[name] == "-" for name in distilled)
assert -(-8 * 2048 // (3 * 256)) * 256 == 5632

# %% [markdown]
# The rule holds for DeepSeek's own dense models: to a multiple of 256, but 128 for Coder 1.3B (256 would give 5,632), and 8 for our mini. It does not hold for the distilled R1 models, which keep the shape of Qwen 2.5 and Llama 3.1: those have far wider networks.
#
# In every released one the feed-forward networks are more than half of the model, and the norms less than a ten-thousandth. In operations, too:

# %%
config = dm.Config.preset("deepseek-llm-7b")
n_norms = 2 * config.n_layers + 1
flops = n_norms * 4 * config.dim  # square, sum, times the root, times the weight
share = flops / dm.count(config, seq_len=4096).flops_per_token
print(f"{n_norms} norms, {flops / 1e6:.1f} million operations a token: {share:.4%}")
assert share < 1e-4

# %% [markdown]
# ## One pass over memory
#
# So few operations on so many bytes wait for memory. A GPU keeps tensors in its large memory, and PyTorch, when it is *eager*, runs one operation after the other: each fetches its inputs from there and writes its result back. How much is that for what a block of DeepSeek-V3 does between two layers: add $x$ to the **residual stream**, the vector that all layers add to, and take the norm of the sum? PyTorch reports each operation to a `TorchDispatchMode`, so we can add up the bytes.

# %%
from torch.utils._python_dispatch import TorchDispatchMode


class Traffic(TorchDispatchMode):
    """Notes the bytes of all tensors that each operation reads and writes."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        tensors = [t for t in (*args, out) if isinstance(t, torch.Tensor)]
        moved = sum(t.numel() * t.element_size() for t in tensors)
        self.operations.append((operation.overloadpacket.__name__, moved))
        return out


D, rows = dm.Config.preset("deepseek-v3").dim, 64
norm = dm.model.RMSNorm(D).bfloat16()
x, residual = torch.randn(2, rows, D).bfloat16()  # [rows, D] each
with torch.no_grad(), Traffic() as traffic:
    norm(residual + x)  # [rows, D]
each = [(name, moved / (rows * D)) for name, moved in traffic.operations]
each = [(name, moved) for name, moved in each if moved > 0.1]  # not one per row
print(f"bytes per channel, of {D:,} channels:")
print(", ".join(f"{name} {moved:.0f}" for name, moved in each))
eager = sum(moved for _, moved in each)
fused = 4 * 2  # read x and the stream, write the stream and its norm: bfloat16
print(f"{eager:.0f} in all; each number once: {fused}; ratio {eager / fused:.2f}")
assert D == 7168 and each[0][0] == "add" and round(eager) == 42

# %% [markdown]
# The copies are the detour over float32, four bytes a number. A **kernel** is a function that a GPU runs many times at once, and a *fused* kernel does all of these operations on numbers that it has fetched once. Ours is written in Triton, a Python dialect for kernels (lesson 20 starts from zero):

# %%
show("kernels.rmsnorm.add_rmsnorm_kernel", "kernels.rmsnorm.TILES", docstrings=False)

# %% [markdown]
# Line by line:
#
# - **A program is one run of this function, and takes one row**: one token's $D$ channels. `program_id` says which. `x` is the address of the tensor's first number and `x + row + i` the addresses of a row's, all at once; `D` and `BLOCK` are known when the kernel is compiled. The mean needs the whole row and nothing else, so programs have nothing to tell each other. `int64`, because from row 299,593 on an offset within the tensor needs more than 31 bits.
# - **The tile**, the numbers that a program holds at once, has `BLOCK` = 8,192 *lanes*, a place for one number each: the sizes of Triton's tiles are powers of two, and 7,168 is none. The **mask** `inside` is false in the last 1,024 lanes. There `tl.load` reads nothing and gives 0, which adds nothing to the sum, and `tl.store` writes nothing. The mean divides by `D`, not by `BLOCK`.
# - **Types.** All arithmetic is in float32. The sum is rounded to bfloat16 *before* the norm, because the next layer will read the rounded stream, and the plain version normalises that. `unit` is rounded once more before the weight, as in our `RMSNorm`.
# - **In registers.** By `TILES`, eight *warps* of 32 threads, which work side by side, share the row, on GPUs from architecture 80 (the A100) on. That is 32 numbers a thread, and they fit into its *registers*, the places that it computes in. `tl.sum` adds within a thread, then across threads. So `h` is used three times (stored, squared, scaled) and never fetched. There is no matrix product here, so no work for the *tensor cores*, the units for those.
# - **`inverse_out`** keeps one number per row for the backward pass. That one has fewer programs: each walks over many rows and adds up its part of the weight's gradient.

# %%
lanes = 8192
row_fits = (2**31 - 1) // D  # rows whose numbers all have an offset below 2^31
print(f"the first row that ends beyond 31 bits: {row_fits:,}")
print(f"masked lanes: {lanes - D:,}; numbers a thread: {lanes // (8 * 32)}")
assert (row_fits, lanes - D) == (299_593, 1024)

# %%
alt = """Left: eight rows, one for each program, of 8,192 lanes; program 3 is dark, the
others pale. From lane 7,168 to the end all rows are white: masked. Right: bytes per
channel of seven operations of eager PyTorch, 4 to 8 each, 42 end to end, above the bar
of the kernel, which ends at 8."""
with figure(alt, size=(10, 3.4)) as fig:
    left, right = fig.subplots(1, 2)
    for row in range(8):
        color = PALETTE[0] if row == 3 else "#B9D6E8"
        left.barh(row, D, color=color, height=0.8)
        left.barh(row, lanes - D, left=D, color="white", ec="black", height=0.8)
    left.text(D / 2, 3, "program 3", color="white", ha="center", va="center")
    left.text(D + 512, -0.9, "masked", ha="center", va="center", fontsize=9)
    left.set(xticks=range(0, 8193, 1024), ylim=(-1.3, 7.6), xlabel="lane (channel)")
    left.set(yticks=range(8), ylabel="row (token) = program")
    left.invert_yaxis()
    left.tick_params("x", labelsize=8)
    left.grid(visible=False)
    at = 0
    for name, moved in each:
        right.barh(1, moved, left=at, color="#B9D6E8", ec="black", height=0.6)
        label = name.strip("_").replace("to_copy", "copy")
        right.text(at + moved / 2, 1, label, ha="center", va="center", rotation=90)
        at += moved
    right.barh(0, fused, color=PALETTE[0], height=0.6)
    right.set(yticks=(0, 1), yticklabels=("kernel", "eager"), ylim=(-0.5, 1.6))
    right.set_xlabel("bytes moved, per channel")

# %% [markdown]
# Its **floor** is the time that it cannot beat at given rates: the larger of bytes over bandwidth and operations over their rate. We assume an H100 of 3.0 TB/s, a little below its data sheet, and 30 TFLOP/s for float32 sums and products outside the tensor cores. Both are assumed, not measured.

# %%
T = 32_768  # tokens
bytes_moved, operations = T * D * fused, T * D * 5  # the sum, and the norm's four
times = bytes_moved / 3.0e12, operations / 30e12  # seconds
print(f"{bytes_moved / 1e9:.2f} GB: {times[0] * 1e6:.0f} us", end="; ")
print(f"{operations / 1e9:.2f} billion operations: {times[1] * 1e6:.0f} us")
print(f"floor: {max(times) * 1e6:.0f} us", end="; ")
print(f"of the bytes that eager moves: {eager / fused * times[0] * 1e6:,.0f} us")
assert round(max(times) * 1e6) == 626

# %% [markdown]
# Memory is the limit: the arithmetic takes a sixteenth of the time. Is the kernel right? Triton's interpreter runs it here on the CPU, on rows of 200 channels, with 56 of 256 lanes masked, against PyTorch:

# %%
from deepseek_mini.lesson import gpu_section, interpreted_section

interpreted_section("rmsnorm")

# %% [markdown]
# The bound, $2^{-6}$ of the largest number, lets two roundings to bfloat16 fall the other way, $2^{-7}$ each. For the gradients it is twice that, because eager PyTorch rounds every step of theirs. And on a GPU:

# %% tags=["nbval-ignore-output"]
gpu_section("rmsnorm")

# %% [markdown]
# ## What this proves, and what it does not
#
# - Proved: NumPy, our PyTorch and `transformers` compute the same RMSNorm and the same SwiGLU on random weights. Lesson 05 proves it for a whole model.
# - Shown: at random weights, what three arrangements do to scale and gradient. Other weights give other numbers; smaller ones burst later.
# - Measured: five variants of one small model, 200 steps, two learning rates. It ranks nothing at full size.
# - Proved: the kernel computes what PyTorch computes, interpreted on a CPU at small sizes. Its floor is counted from assumed rates; no kernel has run on a GPU yet, so its speed is not known.
# - Not shown: why a gate helps, nor what norms do late in a long training.
#
# ## Exercises
#
# The [exercises](../exercises/02_norm_and_swiglu.ipynb) take about 40 minutes: RMSNorm, its gradient, SwiGLU from its weights, and the width at equal cost. (After `make lab`, take your own copy in `work/`.)
#
# ## References
#
# - B. Zhang and R. Sennrich, *Root Mean Square Layer Normalization*, arXiv 1910.07467, §3 and §4.
# - J. L. Ba, J. R. Kiros and G. E. Hinton, *Layer Normalization*, arXiv 1607.06450, §3.
# - N. Shazeer, *GLU Variants Improve Transformer*, arXiv 2002.05202, §2 (SwiGLU) and §4 (no explanation offered).
# - *DeepSeek LLM*, arXiv 2401.02954, §2.2 (pre-norm, RMSNorm, SwiGLU; 8/3 of the width).
# - Official code: `RMSNorm` and `MLP` in `inference/model.py` of DeepSeek-V3.

# ===== exercises =====
# %% [markdown]
# # 02 · RMSNorm and SwiGLU: exercises
#
# Four exercises on [lesson 02](../notebooks/02_norm_and_swiglu.ipynb), about 40 minutes in all. Each has the formulas it needs, and none needs another one.
#
# Write your answer where a cell raises `NotImplementedError`, and run that cell. The next cell is for trying it: take away the `#` at its lines of code, run it, and compare with what should come out. The cell with `check` then compares your answer with an independent one on inputs that you do not see, and prints one line; below it a hint, and what your function printed, when something is not right yet. If a cell never ends, stop it (the square button).

# %%
import numpy as np
import torch

from deepseek_mini.lesson import check, setup

setup(seed=0)

# %% [markdown]
# ## 02.1 RMSNorm
#
# *A few lines, 8 minutes, NumPy.* `x` has the shape [..., D]: one vector, or a table of vectors, with any number of axes in front. Divide each vector, on its own, by its root mean square (RMS), the root of the mean of its squares:
#
# $$y_i = \frac{x_i}{\sqrt{\frac{1}{D} \sum_j x_j^2 + \varepsilon}}\; w_i$$
#
# with `weight` $w$ [D] and `eps` $\varepsilon$. Give back the shape and the dtype of `x`, which may be float64, float32 or float16; float16 ends at 65,504. Leave `x` as it was.
#
# By hand: $x = (1, 7)$ with $w = (1, 2)$ and $\varepsilon = 0$ has the mean square 25 and becomes $(1/5,\; 2 \cdot 7/5) = (0.2, 2.8)$. With $\varepsilon = 75$ the root is 10 and the result $(0.1, 1.4)$.

# %%
def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """Each vector of x [..., D] over its RMS, times weight [D]: shape, dtype of x."""
    ### BEGIN SOLUTION
    wide = x.astype(np.float64)  # [..., D]
    mean_square = (wide**2).mean(axis=-1, keepdims=True)  # [..., 1]
    return (wide / np.sqrt(mean_square + eps) * weight).astype(x.dtype)
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines. It should print
# [[0.1 1.4]
#  [0.3 0.2]]
# True
# [1. 0.] float16
# x, weight = np.array([[1.0, 7.0], [3.0, 1.0]]), np.array([1.0, 2.0])  # [T, D], [D]
# print(rms_norm(x, weight, 75.0).round(1))
# y = rms_norm(x, weight, 0.0)  # float64, so right to 15 digits: 4/5 is
# print(abs(y[1, 1] ** 2 - 4 / 5) < 1e-12)
# half = np.array([300.0, 0.0], dtype=np.float16)  # [D]
# y = rms_norm(half, np.array([0.7071, 1.0], dtype=np.float16), 1e-6)  # [D]
# print(y.round(2), y.dtype)

# %%
check("02.1", rms_norm)

# %% [markdown]
# ## 02.2 The gradient of RMSNorm
#
# *Some thought, 15 minutes, NumPy.* Going backwards by hand. `grad` [T, D] holds the derivatives of the loss with respect to $y = $ RMSNorm($x$), where `x` is [T, D], one row for each token, and `weight` [D] serves all tokens. Return two arrays: the gradients with respect to `x` [T, D] and to `weight` [D].
#
# For one token let $r = 1 / \sqrt{\frac1D \sum_j x_j^2 + \varepsilon}$, $\;n = r x$ and $g_i = \text{grad}_i \cdot w_i$. Then $y_i = n_i w_i$, and
#
# $$\frac{\partial\,\text{loss}}{\partial x_i} = r\,\Big(g_i - n_i \cdot \frac1D \sum_j g_j n_j\Big).$$
#
# The gradient of a weight follows from $y_i = n_i w_i$; every token has a part in it.
#
# By hand: $x = (1, 7)$, $w = (1, 2)$, $\varepsilon = 75$ and grad $= (1, 1)$. The root is $\sqrt{25 + 75}$, so $r = 0.1$, $n = (0.1, 0.7)$ and $g = (1, 2)$; the mean of $g_j n_j$ is $(0.1 + 1.4)/2 = 0.75$, and the gradient of $x$ is $0.1 \cdot (1 - 0.075,\; 2 - 0.525) = (0.0925, 0.1475)$. This token's part in the gradient of the weight is $(0.1, 0.7)$.

# %%
def rms_norm_backward(
    grad: np.ndarray, x: np.ndarray, weight: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients with respect to x [T, D] and weight [D], from grad [T, D] of y."""
    ### BEGIN SOLUTION
    r = 1 / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)  # [T, 1]
    n = r * x  # [T, D]
    g = grad * weight  # [T, D]
    into_x = r * (g - n * (g * n).mean(axis=-1, keepdims=True))  # [T, D]
    return into_x, (grad * n).sum(axis=0)  # [T, D], [D]
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines. It should print
# [[0.0925 0.1475]
#  [0.0615 0.3945]]
# [0.8 0.9]
# x = np.array([[1.0, 7.0], [7.0, 1.0]])  # [T, D]
# grad, weight = np.array([[1.0, 1.0], [1.0, 2.0]]), np.array([1.0, 2.0])
# for gradient in rms_norm_backward(grad, x, weight, 75.0):
#     print(gradient.round(4))

# %%
check("02.2", rms_norm_backward)

# %% [markdown]
# ## 02.3 SwiGLU from its weights
#
# *A few lines, 8 minutes, PyTorch.* Compute
#
# $$w_2\,\big(\text{silu}(w_1 x) \odot w_3 x\big), \qquad \text{silu}(a) = \frac{a}{1 + e^{-a}},$$
#
# for every vector of `x` [..., D]; ⊙ multiplies number by number. $\text{silu}(w_1 x)$ is called the gate and $w_3 x$ the value, F numbers each. The matrices are stored as `nn.Linear` stores them, one row for each output: `w1` and `w3` are [F, D], `w2` is [D, F]. Mind the order of the arguments: `w2` stands before `w3`. The result has the shape and the dtype of `x`; `x` and the matrices share a dtype, and need not be contiguous in memory.
#
# By hand, with $D = F = 1$: $x = 1$, $w_1 = \ln 3$, $w_3 = 4$, $w_2 = 2$. The gate is $\ln 3 / (1 + 1/3) = 0.824$, the value 4, and the result $2 \cdot 0.824 \cdot 4 = 6.592$.

# %%
def swiglu(
    x: torch.Tensor, w1: torch.Tensor, w2: torch.Tensor, w3: torch.Tensor
) -> torch.Tensor:
    """The gated network of w1, w3 [F, D] and w2 [D, F] for x [..., D]: as x."""
    ### BEGIN SOLUTION
    gate = torch.nn.functional.silu(x @ w1.T)  # [..., F]
    value = x @ w3.T  # [..., F]
    return (gate * value) @ w2.T  # [..., D]
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines. It should print
# 6.592
# [2, 5, 3]
# one = torch.ones(1, 1)  # [T, D], and [F, D]
# print(f"{swiglu(one, one * np.log(3), 2 * one, 4 * one).item():.3f}")
# x, wide = torch.randn(2, 5, 3), torch.randn(7, 3)  # [B, T, D], [F, D]
# print(list(swiglu(x, wide, wide.T, wide).shape))

# %%
check("02.3", swiglu)

# %% [markdown]
# ## 02.4 The width at equal cost
#
# *One line, 5 minutes.* An MLP of two matrices, [4D, D] and [D, 4D], has $8D^2$ parameters. A SwiGLU network of width $F$ has three matrices and $3DF$ parameters. Return the smallest $F$ that is a multiple of `multiple` and gives SwiGLU **at least as many** parameters as the MLP has. (A float with a whole value, as 256.0, is accepted.)
#
# By hand: for $D = 96$ the MLP has 73,728 parameters, and $F = 256$ gives $3 \cdot 96 \cdot 256 = 73{,}728$: just enough, so the answer is 256 for the multiple 64, and also for the multiple 1. For $D = 100$ and the multiple 1, $F = 266$ gives 79,800, not enough for 80,000; the answer is 267.

# %%
def swiglu_width(dim: int, multiple: int) -> int:
    """The least multiple of `multiple` at which SwiGLU costs at least the MLP's."""
    ### BEGIN SOLUTION
    return -(-8 * dim // (3 * multiple)) * multiple
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines. It should print
# 11008 256 267
# 93
# print(swiglu_width(4096, 256), swiglu_width(96, 64), swiglu_width(100, 1))
# print(swiglu_width(34, 31))

# %%
check("02.4", swiglu_width)

# %% [markdown]
# Next: lesson 03 gives attention its positions.
