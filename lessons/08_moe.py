# %% [markdown]
# # 08 · Mixture of experts: who chooses, and what keeps the choice even
#
# DeepSeek-V3 holds 671 billion parameters and uses 37 billion of them for a token.
# Nearly all the others sit in experts that this token did not choose. Who chooses? And
# what stops every token from choosing the same few?
#
# - **You will build** a gate and its experts in NumPy and prove them equal to the
#   package's module and to `transformers`; sort tokens by expert, which is the fast
#   path; see a router collapse and a balance loss repair it; and measure which experts
#   read code and which English.
# - **You need** lesson 02 (SwiGLU) and lesson 05 (a whole model).
# - **Time**: about 65 minutes, and an hour for the exercises.
# - **Paper**: *DeepSeekMoE*, arXiv 2401.06066, §3 and §4.

# %%
from dataclasses import replace
from math import comb

import numpy as np
import torch
from torch.nn import functional as F

import deepseek_mini as dm
from deepseek_mini.config import GQA, Config, MoE, Rope, SwiGLU
from deepseek_mini.lesson import PALETTE, error, figure, ladder, setup, show

setup(seed=0)

# %%
v3 = dm.Config.preset("deepseek-v3")
v3_count = dm.count(v3)
sparse_layers = v3.n_layers - v3.n_dense_layers
one_expert = 3 * v3.dim * v3.moe.inter_dim  # w1, w2 and w3
routed = sparse_layers * v3.moe.n_routed_experts * one_expert
used = sparse_layers * v3.moe.n_activated_experts * one_expert
print(f"V3: {v3_count.parameters / 1e9:.0f} B parameters", end=", ")
print(f"{v3_count.active_parameters / 1e9:.1f} B of them for a token")
print(f"in routed experts: {routed / 1e9:.0f} B, a token's share {used / 1e9:.0f} B")
assert v3_count.parameters - v3_count.active_parameters == routed - used

# %% [markdown]
# ## By hand: four tokens, four experts, two each
#
# An **expert** is a SwiGLU, small. A layer has $E$ of them, and a token goes through
# $K$. The **gate** (or router) has one vector $e_i$ for each expert. The product $u_t
# \cdot e_i$ with the token's vector $u_t$ says how well they fit, and a softmax over
# *all* experts turns the products into scores:
#
# $$s_{i,t} = \mathrm{softmax}_i(u_t \cdot e_i), \qquad
# g_{i,t} = \begin{cases}
# s_{i,t} & \text{if among the } K \text{ largest of token } t \\
# 0 & \text{else} \end{cases} \qquad
# h_t = \sum_i g_{i,t}\, \mathrm{FFN}_i(u_t).$$
#
# The **weights** $g$ are the scores as they are. They do *not* add up to 1. Take four
# tokens whose exponentials $e^{u_t \cdot e_i}$ are whole numbers that add up to 10, and
# let expert 0 answer 10 to everything, expert 1 answer 20, then 30 and 40:
#
# | token | scores | chosen | output |
# |---|---|---|---|
# | 0 | **0.4**, **0.3**, 0.2, 0.1 | 0, 1 | 4 + 6 = 10 |
# | 1 | **0.5**, **0.3**, 0.1, 0.1 | 0, 1 | 5 + 6 = 11 |
# | 2 | **0.3**, 0.1, **0.5**, 0.1 | 2, 0 | 15 + 3 = 18 |
# | 3 | **0.4**, 0.1, 0.2, **0.3** | 0, 3 | 4 + 12 = 16 |
#
# The **load** of an expert is the number of tokens that chose it: 4, 2, 1, 1. The mean
# is $N K / E = 4 \cdot 2 / 4 = 2$ ($N$ tokens). How uneven that is, one number says:
#
# $$\mathrm{MaxVio} = \frac{\text{largest load}}{\text{mean load}} - 1
# = \frac42 - 1 = 1.$$
#
# It is 0 when all loads are equal, and at most $E/K - 1$, when all tokens choose the
# same.
#
# ## In NumPy

# %%
def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))  # as x
    return e / e.sum(axis=-1, keepdims=True)  # as x


def gate(u, centroids, K):
    scores = softmax(u @ centroids.T)  # [N, E]
    chosen = np.argsort(-scores, axis=1, kind="stable")[:, :K]  # [N, K]
    weights = np.take_along_axis(scores, chosen, axis=1)  # [N, K]
    return scores, chosen, weights


def mixture(u, chosen, weights, experts):
    out = np.zeros_like(u)  # [N, D]
    for t in range(len(u)):
        for i, g in zip(chosen[t], weights[t]):
            out[t] += g * experts[i](u[t])  # [D]
    return out

# %%
table = np.array([[4, 3, 2, 1], [5, 3, 1, 1], [3, 1, 5, 1], [4, 1, 2, 3]])  # [N, E]
u = np.log(table)  # [N, D]: with unit vectors as centroids, products are the logarithms
scores, chosen, weights = gate(u, np.eye(4), K=2)
answers = [lambda u, a=a: np.full_like(u, a) for a in (10, 20, 30, 40)]
outputs = mixture(u, chosen, weights, answers)[:, 0]  # [N]: all D channels are equal
load = np.bincount(chosen.ravel(), minlength=4)  # [E]
max_vio = load.max() / load.mean() - 1
print("chosen:", *chosen.tolist())
print("outputs:", *outputs.round(6), "  sums of the weights:", *weights.sum(1).round(6))
print("load:", *load, f"  MaxVio: {max_vio:.0f}")
assert np.allclose(outputs, [10, 11, 18, 16]) and load.tolist() == [4, 2, 1, 1]

# %% [markdown]
# ## Two ideas of DeepSeekMoE
#
# **Fine-grained experts.** Cut every expert into $m$ narrower ones and let a token
# choose $m$ times as many. Parameters and operations stay the same; only the gate
# grows. But the token can now combine its experts in many more ways.
#
# **Predict**: 16 experts, 2 for a token, can be chosen in 120 ways. Cut each in four:
# 64 experts, 8 for a token. How many ways?

# %%
def draw_experts(fig, m, shared=0):
    """16 experts cut in m each; a token's 2m are filled, the shared ones orange."""
    E, K = 16 * m, 2 * m
    ax = fig.subplots()
    rng = np.random.default_rng(4)
    mine = {*range(shared), *(shared + rng.permutation(E - shared)[: K - shared])}
    for i in range(E):
        color = PALETTE[1] if i < shared else PALETTE[0] if i in mine else "#EEEEEE"
        look = {"align": "edge", "ec": "#999999", "lw": 0.5}
        ax.bar(i / m, 1, width=0.86 / m, color=color, **look)
    ways = comb(E - shared, K - shared)
    ax.set(xlim=(-0.1, 16), ylim=(0, 1.4), yticks=[], xticks=[])
    ax.set_title(f"{E} experts, {K} for a token", loc="left", fontsize=10)
    ax.text(0, 1.12, f"{ways:,} ways" if ways < 1e12 else f"{ways:.1e} ways")
    ax.grid(visible=False)


from deepseek_mini.lesson import Choice, settings_figure, slider_figure

widget = slider_figure(
    draw_experts,
    alt="16 experts, each cut in {m}; a token chooses an eighth of them.",
    size=(9, 1.7),
    m=Choice((1, 2, 4, 8, 16), start=4, label="pieces of an expert m"),
    shared=Choice((0, 1, 2), start=0, label="shared experts"),
)
ways = {m: comb(16 * m, 2 * m) for m in (1, 2, 4)}
print(*(f"m = {m}: {n:,} ways" for m, n in ways.items()), sep="\n")
assert ways[1] == 120 and ways[4] == 4_426_165_368

# %%
settings_figure(
    draw_experts,
    {
        "coarse": {"m": 1},
        "fine: m = 4": {"m": 4},
        "fine, 1 shared": {"m": 4, "shared": 1},
    },
    alt="""Three rows of experts of the same total width. Coarse: 2 of 16 wide boxes
    filled, 120 ways. Fine: 8 of 64 narrow boxes filled, 4,426,165,368 ways. With one
    shared expert: the first box is always filled, and 7 of the other 63.""",
    size=(11, 1.9),
)

# %% [markdown]
# **Shared experts.** Some things every token needs. If only routed experts exist, many
# of them must learn the same. So DeepSeekMoE sets $K_s$ experts aside that read every
# token, outside the gate and with weight 1:
#
# $$h_t = \sum_{j=1}^{K_s} \mathrm{FFN}^{\mathrm{shared}}_j(u_t)
#       + \sum_i g_{i,t}\, \mathrm{FFN}_i(u_t).$$
#
# To keep the cost, $K_s$ fewer experts are routed and chosen. (The paper's $h_t$ also
# contains $u_t$ itself: the residual, which our block adds.)
#
# ## In PyTorch
#
# The package's own source. `E`, `K` and $K_s$ are `n_routed_experts`,
# `n_activated_experts` and `n_shared_experts`. The gate serves later models too: skip
# what it does with `bias` (lesson 11) and with groups (`_limit`, lesson 10); with
# `score="softmax"` and the defaults there remains what we did by hand.

# %%
from deepseek_mini.model.moe import Experts, Gate, recording

parts = Gate.forward, Experts.loop, Experts._expert, dm.model.MoE.forward
show(*parts, docstrings=False)

# %% [markdown]
# `loop` is the readable path. It takes the experts, not the tokens, one by one: an
# expert multiplies all its tokens at once. The shared experts are one SwiGLU, $K_s$
# times as wide, which computes the same sum. `recording()` collects what every gate
# decided.

# %%
def randomised(module, seed=0):
    """Matrices N(0, 0.6² / columns), norms 1 + N(0, 0.3²)."""
    generator = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        noise = torch.randn(p.shape, generator=generator)
        p.data = noise * 0.6 / p.shape[-1] ** 0.5 if p.ndim > 1 else 1 + 0.3 * noise
    return module


def swiglu(w1, w2, w3):
    def ffn(u):
        gated = w1 @ u  # [I]
        return w2 @ (gated / (1 + np.exp(-gated)) * (w3 @ u))  # [D]

    return ffn


mini = dm.Config.preset("deepseek-moe-mini")
layer = randomised(dm.model.MoE(mini))
w = {name: p.detach().double().numpy() for name, p in layer.named_parameters()}
names = ("w1", "w2", "w3")
experts = [swiglu(*(w[f"experts.{k}"][i] for k in names)) for i in range(16)]
shared = swiglu(*(w[f"shared.{k}.weight"] for k in names))
x = torch.randn(2, 9, mini.dim)  # [B, T, D]
u = x.flatten(0, 1).double().numpy()  # [N, D]
scores, chosen, weights = gate(u, w["gate.weight"], K=4)
from_numpy = mixture(u, chosen, weights, experts)  # [N, D]
from_numpy += np.stack([shared(row) for row in u])  # [N, D]
with dm.paths(moe="loop"), recording() as routings:
    looped = layer(x)  # [B, T, D]
routing = routings[0]
ladder("One layer: 16 experts, 4 for a token, 1 shared", [
    ("by hand = NumPy", outputs, np.array([10, 11, 18, 16]), 1e-12),
    ("gate: scores = NumPy", routing.scores, scores, 1e-5),
    ("gate: chosen = NumPy", routing.chosen, chosen, 0),
    ("gate: weights = NumPy", routing.weights, weights, 1e-5),
    ("layer, loop over experts = NumPy", looped.flatten(0, 1), from_numpy, 1e-5),
])

# %% [markdown]
# ## The fast path: sort by expert
#
# The loop searches all $N K$ choices once for every expert and writes into the whole
# output each time. Better to sort first. Write the choices of all tokens in one row,
# and sort the *places* in that row by expert. Then an expert's tokens are neighbours,
# one slice, and the place divided by $K$ is the token. From the example by hand:

# %%
row = torch.tensor([0, 1, 0, 1, 2, 0, 0, 3])  # [N * K]: tokens 0 0 1 1 2 2 3 3
order = row.argsort(stable=True)  # [N * K]
print("choices, in a row:  ", *row.tolist())
print("places, by expert:  ", *order.tolist())
print("their experts:      ", *row[order].tolist())
print("their tokens:       ", *(order // 2).tolist())
print("slices of the experts:", *row.bincount().tolist())
assert (order // 2).tolist() == [0, 1, 2, 3, 0, 1, 2, 3]

# %%
show(Experts.grouped, docstrings=False)

# %% [markdown]
# Equal outputs are half of it: training needs equal gradients, and an expert that no
# token chose must not disturb either path. One token alone leaves 12 of 16 without
# work.

# %%
def with_gradients(path, x):
    x = x.clone().requires_grad_()  # [B, T, D]
    layer.zero_grad()
    with dm.paths(moe=path):
        out = layer(x)  # [B, T, D]
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    gradients = {name: p.grad for name, p in layer.named_parameters()}
    return {"output": out, "x": x.grad, **gradients}


rungs = []
for n_tokens, label in ((9, "18 tokens"), (1, "1 token")):
    inputs = x[: 1 + (n_tokens > 1), :n_tokens]  # [B, T, D]
    loop, grouped = (with_gradients(path, inputs) for path in ("loop", "grouped"))
    rungs.append((f"{label}: output", grouped["output"], loop["output"], 1e-5))
    for name in ("x", "gate.weight", "experts.w1", "experts.w2", "experts.w3"):
        rungs.append((f"{label}: gradient of {name}", grouped[name], loop[name], 1e-5))
ladder("grouped = loop, forward and backward", rungs)
idle = [bool((loop["experts.w1"][i] == 0).all()) for i in range(16)]
print("1 token: experts with a gradient of zero:", sum(idle))
assert sum(idle) == 12

# %% [markdown]
# On a GPU the slices go through one **grouped matrix product** instead of $E$ calls.
# When experts live on many GPUs, the sorted rows are also what is sent to each.
#
# ## The whole model
#
# `transformers` has no class for DeepSeekMoE 16B, whose layers are Llama's attention
# with a mixture in place of the feed-forward network. Exactly this stack is the text
# half of its DeepSeek-OCR 2, so we give that one our random weights. The first layer is
# dense, as in the release.

# %%
from transformers.models.deepseek_ocr2 import modeling_deepseek_ocr2 as ocr2

NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn.wq": "self_attn.q_proj", "attn.wk": "self_attn.k_proj",
    "attn.wv": "self_attn.v_proj", "attn.wo": "self_attn.o_proj",
    "ffn.shared": "mlp.shared_experts", "ffn": "mlp", "embed": "embed_tokens",
    "w1.weight": "gate_proj.weight", "w2.weight": "down_proj.weight",
    "w3.weight": "up_proj.weight", "experts.w2": "experts.down_proj",
}  # fmt: skip


def as_transformers(model):
    c, moe = model.config, model.config.moe
    kinds = ["dense"] * c.n_dense_layers + ["sparse"] * (c.n_layers - c.n_dense_layers)
    theirs = ocr2.DeepseekOcr2TextModel(ocr2.DeepseekOcr2TextConfig(
        vocab_size=c.vocab_size, hidden_size=c.dim, num_hidden_layers=c.n_layers,
        num_attention_heads=c.attention.n_heads, intermediate_size=c.dense.inter_dim,
        max_position_embeddings=c.max_seq_len, rms_norm_eps=c.norm_eps,
        n_routed_experts=moe.n_routed_experts, n_shared_experts=moe.n_shared_experts,
        num_experts_per_tok=moe.n_activated_experts, mlp_layer_types=kinds,
        moe_intermediate_size=moe.inter_dim, attn_implementation="eager",
        experts_implementation="eager"))
    state = {n: p for n, p in model.state_dict().items() if n != "head.weight"}
    for name in [n for n in state if n.endswith("experts.w1")]:
        both = (state.pop(name), state.pop(name[:-1] + "3"))  # [E, I, D] each
        state[name.replace("w1", "gate_up_proj")] = torch.cat(both, dim=1)
    for ours, name in NAMES.items():
        state = {n.replace(ours, name): p for n, p in state.items()}
    theirs.load_state_dict(state)
    return theirs.eval()

# %%
model = randomised(dm.Transformer(mini)).eval()
tokens = torch.randint(mini.vocab_size, (2, 40))  # [B, T]
pad = torch.zeros(2, 40, dtype=torch.bool)  # [B, T]
pad[0, :15] = True
with torch.no_grad():
    hidden = model.hidden(tokens)  # [B, T, D]
    want = as_transformers(model)(tokens).last_hidden_state  # [B, T, D]
    with dm.paths(moe="loop"):
        by_loop = model.hidden(tokens)  # [B, T, D]
    cache = model.new_cache(2)
    cut = tokens.split((23, 1, 16), 1)
    pieces = torch.cat([model.hidden(piece, cache) for piece in cut], 1)
    padded = model.hidden(tokens, pad=pad)[0, 15:]  # [T', D]
    alone = model.hidden(tokens[:1, 15:])[0]  # [T', D]
ladder("deepseek-moe-mini with random weights", [
    ("whole model = transformers", hidden, want, 1e-4),
    ("whole model, loop = grouped", by_loop, hidden, 1e-5),
    ("cached, in pieces 23 1 16 = whole", pieces, hidden, 1e-5),
    ("padded row = row alone", padded, alone, 1e-5),
])

# %% [markdown]
# ## How people get it wrong
#
# **A softmax over the chosen.** Take the $K$ largest products, then a softmax: the
# weights add up to 1, which looks tidy. It is the same as dividing the chosen scores by
# their sum. V3 does divide (its scores are sigmoids, lesson 14); DeepSeekMoE 16B and V2
# do not. `norm_topk=True` asks our gate for it.
#
# **Predict**: with $K = 1$, what does such a gate learn?

# %%
def gate_gradient(K, norm_topk):
    """One token: how many experts' products get a gradient through the output."""
    logits = torch.linspace(-1, 1, 16).double().requires_grad_()  # [E]
    scores = logits.softmax(0)  # [E]
    weights = scores.topk(K).values  # [K]
    weights = weights / weights.sum() if norm_topk else weights
    (weights @ torch.arange(1.0, 1 + K).double()).backward()  # any outputs
    return int((logits.grad.abs() > 1e-12).sum())


products = torch.randn(5, 16)  # [N, E]
best = products.topk(4).indices  # [N, K]
over_chosen = products.gather(1, best).softmax(-1)  # [N, K]
scores = products.softmax(-1).gather(1, best)  # [N, K]
divided = scores / scores.sum(-1, keepdim=True)  # [N, K]
print("softmax over the chosen = scores divided:", error(over_chosen, divided) < 1e-6)
print("experts, of 16, whose product gets a gradient from one token")
for K in (4, 1):
    raw, divided = gate_gradient(K, False), gate_gradient(K, True)
    print(f"K = {K}: raw scores {raw:2}, divided by their sum {divided}")
assert gate_gradient(1, True) == 0 and gate_gradient(4, False) == 16
tidy = replace(mini, moe=replace(mini.moe, norm_topk=True))
wrong = dm.Transformer(tidy).eval()
wrong.load_state_dict(model.state_dict())
with torch.no_grad():
    same = error(wrong.hidden(tokens), hidden) < 1e-4
print("the wrong gate in the whole model: equal to transformers", same)
assert not same

# %% [markdown]
# Nothing: its only weight is always 1. With $K = 4$ it compares the chosen four with
# each other, never with the rest. Raw scores compare all: to give its expert more
# weight, a token must take some from every other. Loss and shapes show nothing. The
# section on collapse trains this gate as well; only the comparison with `transformers`
# notices.
#
# **`w1[e]` in the loop.** The forward pass only looks at one expert's matrix. But the
# gradient of `w1[e]` is a tensor of the shape of *all* of `w1`, zero except for one
# expert, and autograd makes one for every expert and adds them up. `unbind` takes the
# stack apart once, and its gradient is put together once. We count the bytes that the
# backward pass writes into tensors of the size of the whole stack:

# %%
from torch.utils._python_dispatch import TorchDispatchMode


class WholeStacks(TorchDispatchMode):
    """Counts the bytes of results that are as large as all experts' matrices."""

    def __init__(self, numel):
        super().__init__()
        self.numel, self.bytes = numel, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.numel() == self.numel:
            view = out._is_view() or "view" in func.name() or "detach" in func.name()
            self.bytes += 0 if view else out.nbytes
        return out


def bytes_written(E, take_apart, D=32, I=24):
    w1 = torch.randn(E, I, D, requires_grad=True)
    x = torch.randn(5, D)  # [N, D]
    matrices = take_apart(w1)
    loss = sum((x @ matrices[e].T).square().sum() for e in range(E))
    with WholeStacks(w1.numel()) as written:
        loss.backward()
    return written.bytes / w1.nbytes


print("     whole stacks written:     megabytes:")
print("E    w1[e]          unbind    w1[e]  unbind")
for E in (4, 16, 64, 256):
    indexed, apart = bytes_written(E, lambda w: w), bytes_written(E, torch.unbind)
    size = 4 * E * 24 * 32 / 1e6  # megabytes of a stack, float32
    print(f"{E:<4} {indexed:5.0f} {apart:15.0f}", end=" ")
    print(f"{indexed * size:8.2f} {apart * size:7.2f}")
    assert indexed == 2 * E - 1 and apart == 1
moe16 = dm.Config.preset("deepseek-moe-16b")
stack = 4 * 64 * moe16.moe.inter_dim * moe16.dim  # bytes, float32
print(f"MoE-16B: one stack is {stack / 1e9:.2f} GB, 64 are {64 * stack / 1e9:.0f} GB")

# %% [markdown]
# With `w1[e]` autograd writes $2E - 1$ stacks, $E$ gradients and $E - 1$ sums, for one
# that is needed; and the experts have three such matrices each. A stack has $E$ matrices
# itself, so **the bytes grow as $E^2$**: four times the experts, sixteen times the
# bytes. The result is right, so no equality catches it: here one has to count.
#
# ## Collapse, and the balance loss
#
# Nothing so far asks for an even load. DeepSeekMoE adds a loss that does. Let $f_i$ be
# an expert's load divided by the mean load, and $P_i$ its mean score over the $N$
# tokens of a batch:
#
# $$L_{\mathrm{bal}} = \alpha \sum_{i=1}^{E} f_i P_i, \qquad
# f_i = \frac{E}{K N} \cdot \mathrm{load}_i, \qquad P_i = \frac1N \sum_t s_{i,t}.$$
#
# By hand, for our four tokens: $f = (2, 1, \frac12, \frac12)$ and $P = (0.4, 0.2, 0.25,
# 0.15)$, so the sum is $0.8 + 0.2 + 0.125 + 0.075 = 1.2$. With an even load it is
# exactly 1; when all choose the same $K$, with certainty, it is $E/K$. A count has no
# gradient, so only $P_i$ is pushed, and $f_i$ says how hard: the busier the expert, the
# more its scores fall.

# %%
def balance_loss(r):
    n_tokens, n_experts = r.scores.shape
    f = r.load * n_experts / (r.chosen.shape[1] * n_tokens)  # [E]
    return (f * r.scores.mean(dim=0)).sum()


from deepseek_mini.model.moe import Routing
from deepseek_mini.training.balance import expert_loss, max_vio

scores = torch.tensor(table / 10)  # [N, E]
best = scores.topk(2)
by_hand = Routing(scores, best.indices, best.values)
print(f"by hand: {balance_loss(by_hand):.3f},  MaxVio {max_vio(by_hand.load):.0f}")
assert abs(balance_loss(by_hand) - 1.2) < 1e-12
assert error(balance_loss(routing), expert_loss(routing.scores, routing.chosen)) < 1e-6

# %% [markdown]
# A small model now learns code and English, half and half: three layers, two of them
# sparse with 31 routed experts, 7 for a token, and one shared. It trains four times
# from the same weights on the same text: without balance; with the balance loss,
# $\alpha = 0.01$; without balance and with **frozen** gates, which stay as they were
# drawn; and with the tidy gate of the bug above.

# %%
from deepseek_mini.data import Corpus, english, mix, pack, python_code

tokenizer = dm.Tokenizer.small()


def some(corpus, n_train, n_validation):
    parts = corpus.train[:n_train], corpus.validation[:n_validation]
    return pack(Corpus(corpus.source, *parts), tokenizer, seq_len=128)


code, text = some(python_code(), 30, 6), some(english(), 120, 12)
data = mix({"code": (code, 1), "english": (text, 1)})
fine = MoE(31, n_shared_experts=1, n_activated_experts=7, inter_dim=12)
small = Config(
    vocab_size=tokenizer.vocab_size, dim=96, n_layers=3, max_seq_len=128,
    attention=GQA(n_heads=4, n_kv_heads=4, head_dim=24), dense=SwiGLU(inter_dim=256),
    rope=Rope(layout="half_split"), moe=fine, n_dense_layers=1, init_std=0.06,
)  # fmt: skip

# %%
def trained(part=fine, alpha=0.0, frozen=False, steps=30):
    """A model, its losses [steps] and its loads [steps, layers, E]."""
    torch.manual_seed(0)
    model = dm.Transformer(replace(small, moe=part))
    for layer in model.layers[1:]:
        layer.ffn.gate.weight.requires_grad_(not frozen)
    adam = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    losses, loads = [], []
    for step in range(steps):
        adam.param_groups[0]["lr"] = 4e-3 * min(1, (step + 1) / 20)
        window = data.batch(step, batch_size=4)  # [B, T + 1]
        with recording() as routings:
            logits = model(window[:, :-1])  # [B, T, V]
        loss = F.cross_entropy(logits.mT, window[:, 1:])
        adam.zero_grad()
        (loss + alpha * sum(map(balance_loss, routings))).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        losses.append(loss.item())
        loads.append(torch.stack([r.load for r in routings]))  # [layers, E]
    return model.eval(), losses, torch.stack(loads).double().numpy()

# %% [markdown]
# **Predict**: in which of the four do the tokens of a batch collapse onto the same
# seven experts within 30 steps?

# %%
variants = {
    "no balance": {"steps": 120},
    "balance loss": {"steps": 120, "alpha": 0.01},
    "frozen gates": {},
    "tidy weights": {"part": replace(fine, norm_topk=True)},
}
runs = {name: trained(**changes) for name, changes in variants.items()}


def uneven(loads):
    """MaxVio of loads [..., layers, E], averaged over the layers."""
    return (loads.max(axis=-1) / loads.mean(axis=-1) - 1).mean(axis=-1)


print("MaxVio, mean of both layers (at most 31 / 7 - 1 = 3.43)")
for name, (_, _, loads) in runs.items():
    early = loads[20:30]  # [steps, layers, E]
    in_a_step, together = uneven(early).mean(), uneven(early.sum(axis=0))
    print(f"steps 20 to 30, {name:13} in a step above 2.5: {in_a_step > 2.5}", end="  ")
    print(f"of ten together: {together > 2.5}")
    assert in_a_step > 2.5 and (together > 2.5) == (name != "balance loss")
late = {name: uneven(runs[name][2][-10:]).mean() for name in list(runs)[:2]}
gap = late["no balance"] > 1.4 * late["balance loss"]
learned = all(x[29] < x[0] - 0.5 for _, x, _ in runs.values())
print("by step 30 the loss fell by more than 0.5 nats in all:", learned)
print("steps 110 to 120, in a step: 1.4 times as high without balance:", gap)
assert learned and gap

# %%
alt = """MaxVio over 120 steps, two panels. Load of one step: all climb to the bound of
3.43 or near it within 20 steps; from step 40 on both lines fall, the balanced one to
about 1, the other to about 2. Load of ten steps: without balance and with frozen gates
it is at the bound as well, with the balance loss always near 1 or below."""
with figure(alt, size=(10, 3.4)) as fig:
    for ax, span in zip(fig.subplots(1, 2, sharey=True), (1, 10)):
        for name in ("no balance", "frozen gates", "balance loss"):
            loads = runs[name][2]  # [steps, layers, E]
            summed = loads.reshape(-1, span, *loads.shape[1:]).sum(axis=1)
            middle = (np.arange(len(summed)) + 0.5) * span
            ax.plot(middle, uneven(summed), label=name)
        ax.set(ylabel="MaxVio" if span == 1 else "")
        ax.axhline(31 / 7 - 1, color="black", lw=1, ls="-")
        ax.set(xlabel="step", ylim=(0, 3.7))
        ax.set_title("load of one step" if span == 1 else "load of ten steps")
    ax.legend(loc="upper right", bbox_to_anchor=(1, 0.9))

# %% [markdown]
# In all four. Notice the balance loss. In any one step, its tokens crowd onto few
# experts, nearly like the others'. But these are not the same for long: their scores
# are pushed down, and others take over, again for all tokens at once. Over ten steps
# that looks even. It is truly even only later, when the model tells tokens apart. So
# **say over how many tokens a load is counted** before you compare two MaxVio.
#
# Notice the frozen gates too. Collapse is usually explained as a circle: an expert that
# is chosen gets trained, becomes better, is chosen more. That may hold later in a
# training. Here it cannot be the cause, since a gate that never changes collapses just
# as far. What changes is the *tokens*, as the next cell measures: their vectors get a
# large part in common, and the products with $e_i$ then rank the experts alike for
# every token. (The first thing a model can learn is how frequent each token is, which
# is the same whatever was read before.)

# %%
def alike(model):
    """Mean cosine between the vectors that two tokens bring to each gate."""
    seen = []
    gates = [layer.ffn.gate for layer in model.layers[1:]]
    hooks = [g.register_forward_pre_hook(lambda _, u: seen.append(u[0])) for g in gates]
    with torch.no_grad():
        model(data.batch(999, batch_size=4)[:, :-1])
    for hook in hooks:
        hook.remove()
    return np.array([F.normalize(u, dim=-1).mean(0).square().sum() for u in seen])


torch.manual_seed(0)
before, after = alike(dm.Transformer(small)), alike(runs["frozen gates"][0])
print("mean cosine between tokens, before: below 0.3:", bool((before < 0.3).all()))
print("after 30 steps, frozen gates:       above 0.5:", bool((after > 0.5).all()))
assert (before < 0.3).all() and (after > 0.5).all()

# %%
def draw_choices(axes, model):
    rows = next(iter(text.validation_batches(4, 4)))[:, :-1]  # [B, T]
    with torch.no_grad(), recording() as routings:
        model(rows)
    r = routings[-1]
    picked = F.one_hot(r.chosen, 31).sum(1)  # [N, E]
    axes[0].imshow(picked[:40], cmap="Blues", vmax=1.3, aspect="auto")
    axes[0].set(ylabel="token", xticks=[])
    axes[1].bar(range(31), r.load / r.load.double().mean(), color=PALETTE[0])
    axes[1].axhline(1, color="black", lw=1, ls="-")
    axes[1].set(xlabel="expert", ylabel="load / mean", ylim=(0, 4.6), xlim=(-0.5, 30.5))
    axes[0].grid(visible=False)


alt = """Three grids of 40 tokens by 31 experts, dark where a token chose an expert,
with bars of the load below. After 30 steps, frozen gates: seven columns dark from top
to bottom, all others empty or nearly. After 120 steps without balance: scattered, with
experts that are hardly used and bars up to three times the mean. After 120 steps with
the balance loss: scattered, bars up to about twice the mean."""
panels = {
    "30 steps, frozen gates": "frozen gates",
    "120 steps, no balance": "no balance",
    "120 steps, balance loss": "balance loss",
}
with figure(alt, size=(11, 4.6)) as fig:
    grid = fig.subplots(2, 3, height_ratios=(3, 1))
    for axes, (title, name) in zip(grid.T, panels.items()):
        draw_choices(axes, runs[name][0])
        axes[0].set_title(title)

# %% [markdown]
# The tidy gate's loss fell like the others', and no shape gave it away.
#
# ## Does it matter?
#
# The script `experiments/08_moe.py` trained four kinds of this model for 600 steps,
# three seeds each, on all of the library's code and English:
#
# | kind | experts (width) | for a token | balance loss |
# |---|---|---|---|
# | fine, no balance | 31 routed (12) and 1 shared | 7 and 1 | no |
# | fine, balanced | the same | the same | $\alpha = 0.01$ |
# | coarse, balanced | 8 routed (48) | 2 | $\alpha = 0.01$ |
# | dense | one network (96) | itself | |
#
# The first three have the same total width, $32 \cdot 12 = 8 \cdot 48 = 384$, and all
# four the same width for a token, 96. (The gates differ: by 1.4% of the parameters at
# most.) **Predict**: does an unbalanced router lose quality at this size? And do fine
# experts beat coarse ones?

# %%
import json
from importlib.resources import files

log = files("deepseek_mini") / "assets/logs/08_moe.jsonl"
head, *records = [json.loads(line) for line in log.read_text().splitlines()]
by_kind = {}
for r in sorted(records, key=lambda r: r["seed"]):
    by_kind.setdefault(r["kind"], []).append(r)
seconds = sum(r["train_seconds"] for r in records)
print(f"{head['hardware']}, torch {head['torch']}, {head['date']}:", end=" ")
print(f"{seconds / 60:.0f} minutes of processor time")
loss = {
    kind: np.array([np.mean([*r["loss"].values()]) for r in runs])  # [seeds]
    for kind, runs in by_kind.items()
}
print("loss, nats per token  parameters   active   mean   less fine, balanced")
for kind, values in loss.items():
    r, less = by_kind[kind][0], values - loss["fine, balanced"]
    print(f"{kind:20} {r['parameters']:11,} {r['active_parameters']:8,}", end="  ")
    print(f"{values.mean():.3f}", *(f"  {x:+.3f}" for x in less))
active = [runs[0]["active_parameters"] for runs in by_kind.values()]
assert max(active) < 1.014 * min(active)
more = {kind: values - loss["fine, balanced"] for kind, values in loss.items()}
assert np.abs(more["fine, no balance"]).max() < 0.02
behind = more["coarse, balanced"]
assert sum(behind < -0.03) == 2 and behind.max() < 0.01
assert more["dense"].min() > 0 and (more["dense"] - behind).min() > 0.03

# %% [markdown]
# **Balance**: the unbalanced router is within 0.02 nats of the balanced one in every
# seed, a little better in one, a little worse in two. Neither collapse nor the balance
# loss costs a quality that three seeds can show. All experts sit in one machine and no
# token is turned away, so an uneven load has no price but experts that learn little.
#
# **Fine against coarse**: the paper finds fine experts with shared ones clearly better,
# at 2 B parameters and 100 B tokens. We do not. The coarse experts are ahead by more
# than 0.03 nats in two seeds, and level in the third. Why, and where it turns, this
# experiment does not tell.
#
# **Sparse against dense**, at the same operations for a token: both mixtures are better
# in every seed, the coarse one by 0.03 to 0.11 nats, the fine one by 0.003 to 0.11.

# %%
alt = """MaxVio of the last layer, of ten steps together, over 600 steps, three seeds.
Without balance it is at the bound of 3.43 at first, falls, and stays at 1 or above to
the end. With the balance loss it falls from about 1 to below 0.6."""
with figure(alt) as fig:
    ax = fig.subplots()
    kinds = {"fine, no balance": PALETTE[1], "fine, balanced": PALETTE[0]}
    for kind, color in kinds.items():
        for i, r in enumerate(by_kind[kind]):
            curve = np.array([x["max_vio"][-1] for x in r["load"]])
            steps = np.arange(1, len(curve) + 1) * head["window"]
            label = kind if i == 0 else None
            ax.plot(steps, curve, color=color, ls=("-", "--", ":")[i], label=label)
            balanced = kind == "fine, balanced"
            assert curve[-10:].max() < 0.6 if balanced else curve.min() > 1
            assert balanced or curve[:10].max() > 3.3
    ax.axhline(31 / 7 - 1, color="black", lw=1, ls="-")
    ax.set(xlabel="step", ylabel="MaxVio, of ten steps' load", ylim=(0, 3.7))
    ax.legend(loc="center right", bbox_to_anchor=(1, 0.32))
print("last layer, from step 300 on: MaxVio (mean), and who was busiest how often")
for kind in ("fine, no balance", "fine, balanced"):
    for r in by_kind[kind]:
        late = r["load"][len(r["load"]) // 2 :]
        busiest = [x["busiest"][-1] for x in late]
        first = max(set(busiest), key=busiest.count)
        mean = np.mean([x["max_vio"][-1] for x in late])
        print(f"{kind:17} seed {r['seed']}: {mean:.2f}", end="   ")
        print(f"expert {first:2}, in {busiest.count(first)} of {len(late)} windows")

# %% [markdown]
# ### Who reads code, who English?
#
# After training, each model read validation text of both kinds. For each layer we count
# which experts code and English chose. The **total variation** of two loads is half the
# sum of the absolute differences of the experts' shares: 0 when they are the same, 1
# when they have no expert in common. A control is needed, for two texts of the same
# kind differ as well: other modules, other topics.
#
# Code and English are also made of different tokens. In the second column every token
# counts equally often in both texts, so what is left is not due to the token itself,
# but to what stood before it.

# %%
def distances(r, suffix=""):
    found = r["kinds_of_text"]
    same_kind = [found[f"halves_{kind}{suffix}"] for kind in ("code", "english")]
    return np.array(found[f"distance{suffix}"]), np.array(same_kind).max(axis=0)


print("last layer: code against English (larger of two controls)")
print("                          as they are       tokens matched")
beyond = []
for kind in ("fine, no balance", "fine, balanced", "coarse, balanced"):
    for r in by_kind.get(kind, []):
        pairs = [distances(r, suffix) for suffix in ("", "_matched")]
        columns = [f"{d[-1]:.3f} ({c[-1]:.3f})" for d, c in pairs]
        beyond.append(all(d[-1] > c[-1] for d, c in pairs))
        assert pairs[1][0][-1] > 2 * pairs[1][1][-1] and pairs[0][0][-1] < 0.18
        print(f"{kind:17} seed {r['seed']}   {columns[0]:15}   {columns[1]}")
print("code and English differ more than two halves of either:", all(beyond))
assert all(beyond)

# %% [markdown]
# The routers do tell code from English, and not by the tokens alone: matched, the
# distance is still more than twice the control. But it is small. No more than 18% of
# the choices would have to move to make the two loads equal. The unbalanced routers
# separate the texts further than the balanced ones.
#
# Does it matter to the output? We silence, in each layer, the quarter of the experts
# that one text chooses most above the other, and measure what both texts lose.

# %%
alt = """Bars for the 31 experts of the last layer, sorted: how much more often a code
token chose it than an English one, in points of a percentage. Balanced, seed 0. About
half lean to code, half to English, a few of them by ten points or more."""
with figure(alt, size=(8, 3.2)) as fig:
    ax = fig.subplots()
    share = by_kind["fine, balanced"][0]["kinds_of_text"]["share"]
    lead = 100 * (np.array(share["code"][-1]) - np.array(share["english"][-1]))  # [E]
    rank = lead.argsort()
    ax.bar(range(31), lead[rank], color=[PALETTE[int(x < 0)] for x in lead[rank]])
    ax.set(xticks=range(31), xlabel="expert", ylabel="code less English, points")
    ax.set_xticklabels(rank, fontsize=7)
print("cost in nats of silencing the quarter of the experts that a text favours")
print("                           favourites of code      favourites of English")
print("                           code      English       code      English")
for kind in ("fine, no balance", "fine, balanced"):
    for r in by_kind[kind]:
        cost = [
            r["kinds_of_text"]["without"][a][b] - r["loss"][b]
            for a in ("code", "english")
            for b in ("code", "english")
        ]
        print(f"{kind:17} seed {r['seed']}", *(f"{c:+12.4f}" for c in cost), sep="")
        own, other = (cost[0], cost[3]), (cost[1], cost[2])
        assert max(cost) < (0.03 if kind == "fine, no balance" else 0.01)
        assert kind != "fine, no balance" or sum(own) > sum(other)

# %% [markdown]
# Without balance, a text loses more when its own favourites fall silent. With balance
# it costs less than a hundredth of a nat, whoever favours them. **Specialised, but
# hardly needed**: at this size a quarter of the routed experts say little that the
# others, the shared expert and the dense layer do not.

# %% [markdown]
# ## At full size
#
# DeepSeekMoE 16B has 64 routed experts, 6 for a token, and 2 shared; each is a quarter
# as wide as a standard feed-forward network. Its first layer is dense: the paper found
# that the load of that layer evened out especially slowly. $\alpha$ was 0.001, and no
# token was dropped.

# %%
print(f"{'':18} {'E':>4} {'K':>2} {'shared':>6} {'ways to choose':>15}", end=" ")
print(f"{'parameters':>10} {'a token':>8} {'GFLOP':>6}")
for name in ("llm-7b", "moe-16b", "v2-lite", "v2", "v3"):
    config = dm.Config.preset(f"deepseek-{name}")
    one, part = dm.count(config, seq_len=4096), config.moe
    row = f"deepseek-{name:9}" + (
        f" {part.n_routed_experts:4} {part.n_activated_experts:2}"
        f" {part.n_shared_experts:6}"
        f" {comb(part.n_routed_experts, part.n_activated_experts):15.1e}"
        if part
        else " " * 31
    )
    print(f"{row} {one.parameters / 1e9:8.1f} B", end=" ")
    print(f"{one.active_parameters / 1e9:6.1f} B {one.flops_per_token / 1e9:6.1f}")
two = (dm.Config.preset(f"deepseek-{name}") for name in ("llm-7b", "moe-16b"))
dense7, moe16b = (dm.count(config, seq_len=4096) for config in two)
share = moe16b.flops_per_token / dense7.flops_per_token
print(f"MoE-16B does {share:.0%} of the operations of the dense 7B, at 4,096 tokens")
assert round(moe16b.parameters / 1e9, 1) == 16.4 and 0.35 < share < 0.45
for n_tokens in (1, 16, 64):
    met = 1 - (1 - 6 / 64) ** n_tokens
    print(f"{n_tokens:2} tokens, choosing evenly, fetch {met:.0%} of a layer's experts")

# %% [markdown]
# *A token* is what `dm.count` calls active: all but the unselected experts, with
# embedding and head. That is why it says 37.6 B of V3 where the paper says 37. GFLOP
# are those of a token that sees 4,096. Ways ignore V2's and V3's limit to groups of
# experts (lesson 10). The paper reports that the 16B is about as good as the dense 7B,
# at about 40% of the operations.
#
# What the 16B does not save is memory: all experts must be somewhere. One token alone
# fetches few of them, but already 64 tokens meet nearly all. Sparse models therefore
# want many tokens at once, and many GPUs. There an uneven load has a price that our
# experiment cannot show: all GPUs wait for the one with the busiest expert. DeepSeekMoE
# also has a loss for the balance between *devices*, and V2 one for communication
# (lesson 10); V3 replaces the loss by a bias (lesson 11).
#
# ### The floor: one layer of V3 on one GPU
#
# The rest of this lesson is one sparse layer of V3 at its real size, as GPU **kernels**
# (functions that a GPU runs; lesson 20 starts from zero): a gate chooses, a sort brings
# every expert's tokens together, one product goes into the experts and one out of them,
# and a weighted sum ends it. $T$ tokens make $T K$ **choices**, and each is a row of the
# products.
#
# First the **floor**, the time that no kernel can beat. The matrices have to be read
# from memory at least once, the products computed at least once, and whichever takes
# longer is the floor. (What one step hands to the next is not counted.) For an H100 we
# *assume, and have not measured*, 3.0 TB/s of memory and 800 TFLOP/s in bf16 (two bytes
# a number). Two more columns: the products work on whole **tiles** of 16, 64 or 128
# rows, each tile for one expert, so some rows stay empty.
#
# **Predict**: with 4,096 tokens at once, what takes longer, reading or multiplying?

# %%
E, K, D = v3.moe.n_routed_experts, v3.moe.n_activated_experts, v3.dim
rng = np.random.default_rng(0)
print(f"all experts of a layer: {2 * E * one_expert / 1e9:.1f} GB")
print("tokens  experts  rows of   rows in    choices     read  reading  multiplying")
print("            met   a tile     tiles      (T K)       GB       ms           ms")
floors = {}
for T in (1, 128, 1024, 4096, 16_384):
    met = E * (1 - (1 - K / E) ** T)  # if all choices are equally likely
    numbers = (met + 1) * one_expert + E * D + 2 * T * D  # shared, gate, tokens in, out
    flops = 2 * T * ((K + 1) * one_expert + E * D)
    floors[T] = 2 * numbers / 3.0e12, flops / 800e12  # seconds
    drawn = rng.random((T, E)).argpartition(K, axis=1)[:, :K]  # [T, K]
    load = np.bincount(drawn.ravel(), minlength=E)  # [E]
    rows = 16 if load.mean() <= 8 else 64 if load.mean() <= 64 else 128
    in_tiles = rows * np.ceil(load / rows).sum()
    print(f"{T:6,} {met:8.1f} {rows:8} {in_tiles:9,.0f} {K * T:10,}", end=" ")
    print(f"{2 * numbers / 1e9:8.1f} {1e3 * floors[T][0]:8.2f}", end=" ")
    print(f"{1e3 * floors[T][1]:12.3f}")
    if T == 4096:
        filled = (in_tiles + T) / (K * T + T)  # the shared expert has no empty rows
print(f"4,096 tokens and their empty rows: {1e3 * filled * floors[4096][1]:.1f} ms")
assert filled * floors[4096][1] < floors[4096][0] < 2 * floors[4096][1]
assert 22.5 < 2 * E * one_expert / 1e9 < 22.6
assert all(r > m for T, (r, m) in floors.items() if T <= 4096)
assert floors[16_384][0] < floors[16_384][1]

# %% [markdown]
# Reading, nearly twice as long. One layer's experts are 22.5 GB, and even 4,096 tokens
# bring each of the 256 only 128 rows: the layer is **memory-bound**. So a kernel should
# read every matrix once, and only those that were chosen. The empty rows are multiplied
# too, half as many again at 4,096 tokens, but as long as reading takes longer, nobody
# waits for them.
#
# ### The sort, in tiles
#
# A GPU runs many copies of a kernel at once, the **programs**. One that multiplies a
# tile of rows by a matrix must find rows of *one* expert in it. So each expert's rows
# begin at a new tile, and what is left of its last tile stays empty. By hand, with the
# example from above and tiles of 2 rows: expert 0 needs two tiles, the others take one
# each, 10 rows for 8 choices. Choice $tK + k$ is the $k$-th of token $t$, both counted
# from 0.

# %%
choices, rows = torch.tensor([0, 1, 0, 1, 2, 0, 0, 3]), 2  # [T * K] experts, T = 4
load = choices.bincount(minlength=4)  # [E]
tiles = (load + rows - 1) // rows  # [E]: rounded up
start = (tiles.cumsum(0) - tiles) * rows  # [E]: an expert's first row
matches = F.one_hot(choices, 4)  # [T * K, E]: 1 where a choice is of an expert
rank = matches.cumsum(0) - 1  # [T * K, E]: its choices before this one
place = (matches * (start + rank)).sum(1)  # [T * K]: every choice's row
n_tiles = (len(choices) + 4 * (rows - 1)) // rows  # the most there can be
in_tiles = torch.full((n_tiles * rows,), -1)  # [n_tiles * rows]: empty
in_tiles[place] = torch.arange(len(choices))
tile = torch.arange(n_tiles)  # [n_tiles]
tile_expert = torch.searchsorted(tiles.cumsum(0), tile, right=True)  # [n_tiles]
tile_expert[tile_expert == 4] = -1  # after the last
print("load ", *load.tolist(), "  tiles", *tiles.tolist(), "  start", *start.tolist())
print("place", *place.tolist())
for i, held in enumerate(in_tiles.view(-1, rows).tolist()):
    told = ", ".join(f"choice {c} of token {c // 2}" if c >= 0 else "-" for c in held)
    print(f"tile {i}, expert {int(tile_expert[i]):2}: {told}")
assert torch.equal(in_tiles[in_tiles >= 0], choices.argsort(stable=True))
assert tile_expert.tolist() == [0, 0, 1, 2, 3, -1]

# %% [markdown]
# The table `matches` is why this suits a GPU: nothing is compared and swapped, as in a
# sort; a choice's rank is a sum down a column. `expert_sort`, three small kernels,
# splits the choices into blocks of 64. One program for each block counts the 1s of its
# columns; one for each expert adds up the counts of the blocks before; then every block
# knows where its choices go. No step depends on which program comes first, so the order
# is the same in every run. And the CPU never waits to hear how many tiles came out: it
# allocates the most there can be, and the last ones say −1.

# %%
def draw_tiles(fig, group=2, n_blocks=2):
    """Tokens, rows of the tiles, experts' matrices, and the programs' blocks."""
    ax = fig.subplots()
    ax.set(xlim=(-0.3, 14.2), ylim=(13.6, -1.6))
    ax.axis("off")
    ink = {"ec": "#666666", "lw": 0.6}
    for t in range(4):
        ax.barh(2.5 + 2 * t, 1.6, 1.6, left=0, color=PALETTE[t], alpha=0.55, **ink)
        ax.text(0.8, 2.5 + 2 * t, f"token {t}", ha="center", va="center", fontsize=9)
    top = [i * 2.2 for i in range(n_tiles)]  # of each tile
    for i, c in enumerate(in_tiles.tolist()):
        y, color = top[i // 2] + i % 2 + 0.5, "white" if c < 0 else PALETTE[c // 2]
        ax.barh(y, 2, 1, left=3.6, color=color, alpha=0.55, **ink)
        ax.text(4.6, y, c if c >= 0 else "empty", ha="center", va="center", fontsize=8)
        token = [2.5 + 2 * (c // 2), y] if c >= 0 else []
        ax.plot([1.6, 3.6][: len(token)], token, color="#999999", lw=0.7, ls="-")
    for i, e in enumerate(tile_expert.tolist()):
        name = f"tile {i}" + (": unused" if e < 0 else "")
        ax.text(5.75, top[i] + 1, name, va="center", fontsize=8)
        y = 2.3 + 2.4 * e
        if e >= 0:
            ax.plot((6.6, 8), (top[i] + 1, y), color="#666666", lw=1, ls="-")
        for block in range(n_blocks):
            first = i // group * group  # as `my_tile` counts
            program = first * n_blocks + block * group + i - first
            look = "white" if e < 0 else ("#DDDDDD", "#F3F3F3")[block]
            ax.barh(top[i] + 1, 1.5, 2, left=11 + 1.5 * block, color=look, **ink)
            ax.text(11.75 + 1.5 * block, top[i] + 1, program, ha="center", va="center")
    for e in range(4):
        for block, look in enumerate(("#DDDDDD", "#F3F3F3")):
            ax.barh(2.3 + 2.4 * e, 0.9, 1.8, left=8 + 0.9 * block, color=look, **ink)
        ax.text(8.9, 2.3 + 2.4 * e, f"expert {e}", ha="center", va="center", fontsize=9)
    heads = {
        0.8: "x",
        4.6: "rows of the tiles:\nchoices",
        8.9: "wᵀ of an expert,\nin 2 blocks of columns",
        12.5: "result: each block\nhas its program",
    }
    for at, head in heads.items():
        ax.text(at, -0.5, head, ha="center", va="bottom", fontsize=9)

# %%
alt = """Left, four tokens, each in a colour. Lines lead from each to its two choices,
in twelve rows in pairs: tile 0 holds choices 0 and 2, tile 1 choices 5 and 6, tile 2
choices 1 and 3, tile 3 choice 4 and an empty row, tile 4 choice 7 and an empty row,
tile 5 is unused. Lines lead from tiles 0 and 1 to the matrix of expert 0, from tile 2
to expert 1, tile 3 to expert 2, tile 4 to expert 3. Right, the result: a row of two
blocks for every tile, numbered by program: 0 and 2, 1 and 3, 4 and 6, 5 and 7, 8 and
10, 9 and 11."""
with figure(alt, size=(10, 5)) as fig:
    draw_tiles(fig)

# %% [markdown]
# ### The grouped product, line by line

# %%
show("kernels.grouped_matmul.my_tile", "kernels.grouped_matmul.grouped_kernel")

# %% [markdown]
# `tl.program_id` tells a program its number. It makes one block of the result: a tile's
# `BLOCK_M` rows by `BLOCK_N` columns. `x` and `w` are addresses, `x_at` and
# `w + w_at` those of whole blocks.
#
# - **`my_tile`** turns the number into a tile and a block of columns. Numbers go down
#   `GROUP` tiles first (2 in the picture, 4 on a GPU), then across. So neighbours,
#   which run at the same time, want the same columns of, often, the same expert. One
#   reads them from memory, and the others find them in the chip's cache.
# - **`expert`** is one number for a whole tile: this is what the sort was for. The −1
#   of an unused tile ends its programs at once.
# - **`choice`** holds what stands in the rows (`order` is our `in_tiles`), **`filled`**
#   says which are not empty. The **`source`** is the token, `choice // PER_TOKEN`
#   (`PER_TOKEN` is $K$), the **`target`** the row, `slot`. So rows are gathered while
#   they are loaded, and no sorted copy of `x` is ever made. Indices become 64-bit
#   (`int64`) before they are multiplied: 256 matrices have more than $2^{31}$ numbers.
# - **The loop** walks along $D$ in steps of `BLOCK_K`. `a` is [`BLOCK_M`, `BLOCK_K`]
#   of tokens, `b` [`BLOCK_N`, `BLOCK_K`] of the matrix, both of bf16. The second
#   argument of `tl.load` is a **mask**: where it is false nothing is read and a 0 takes
#   the place. `tl.dot` multiplies on the **tensor cores**, the GPU's units for matrix
#   products, and adds to `total` in float32 (`"ieee"` concerns float32 inputs alone).
# - **SwiGLU** comes right after, while both sums are in **registers**, the numbers that
#   a program computes with. Gate and up never go to memory, and rounding to bf16
#   happens once, in the store.
#
# The way back runs the same kernel with `w_up=None` and `PER_TOKEN=0`: it reads the
# rows of the tiles, multiplies by `w2` and stores each row at its choice. A token's $K$
# results then lie side by side, and `combine_kernel` adds them, with their weights, in
# this order. Additions as results arrive (*atomic*) would save the step, but their last
# digits could change from run to run.
#
# **Why this tile?** `HGMMA`, the H100's fast instruction for products, takes at least
# 64 rows. For few tokens there is a tile of 16 rows with an older one: then only
# reading counts. A program runs on one of the 132 **multiprocessors**, as threads, 32
# to a **warp**. Loads of the next steps (`num_stages`) go ahead into its **shared
# memory**. The largest tile takes:

# %%
BLOCK_M, BLOCK_N, BLOCK_K, stages, warps = 128, 64, 64, 4, 8
sums = 2 * BLOCK_M * BLOCK_N / (32 * warps)  # gate and up, float32; 32 threads a warp
step = 2 * (BLOCK_M + 2 * BLOCK_N) * BLOCK_K  # bytes of a, b and the second b
print(f"registers of a thread for its part of the sums: {sums:.0f} of at most 255")
print(f"shared memory, {stages} steps under way: {stages * step / 1024:.0f} KB of 227")
assert sums == 64 and stages * step == 128 * 1024
assert E * one_expert / 3 > 2**31  # the numbers of w1: too many for 32-bit indices
show("kernels.grouped_matmul._tile", "kernels.grouped_matmul.TILES_SWIGLU")

# %% [markdown]
# (Keys: the rows; then 80 from the A100 on, 90 from the H100 on, 0 interpreted.) Compiled
# for an H100, for which none is needed, it takes 124 registers and those 128 KB; the
# tests check that it holds `HGMMA` and spills no register to memory. The whole layer:

# %%
show("kernels.moe_layer.moe_layer", docstrings=False)

# %% [markdown]
# The gate is a kernel too. Only its logits and the shared experts are PyTorch's own
# products. The cell below runs all of it through Triton's **interpreter**, which
# executes kernels on a CPU, slowly, and rounds to bf16 and FP8 as a GPU does: V3's and
# V2's layers, with fewer and smaller experts, beside the package's module; then V3's
# with experts in FP8 (lesson 13), beside the same roundings in plain PyTorch. *At most*
# is the bound.

# %%
from deepseek_mini.lesson import gpu_section, interpreted_section

interpreted_section("moe_layer")

# %% [markdown]
# And at full size, all 256 experts of 7,168 × 2,048, on a GPU:

# %% tags=["nbval-ignore-output"]
gpu_section("moe_layer")

# %% [markdown]
# The same kernels take the shapes of V2 and DeepSeekMoE 16B; `make bench-gpu` has cases
# for all three. A T4, as Colab lends it for nothing, does not run them: current Triton
# does not support it, and its 16 GB do not hold one layer of V3. The plain paths of
# this lesson run there too.
#
# ## What this proves, and what it does not
#
# - Proved: NumPy, loop, sorted path and `transformers` compute the same mixture on
#   random weights, forwards; loop and sorted path also backwards, with idle experts.
# - Shown: collapse within 30 steps at this size, with frozen gates as well. The balance
#   loss first only changes which experts are crowded, and later spreads the tokens.
#   Collapse late in long trainings was not studied.
# - Measured: 0.6 million parameters, 600 steps, three seeds. The verdicts on quality
#   above hold for that. The paper's comparisons are at 2 B parameters and more.
# - Interpreted, at small sizes: the kernels compute the layer within $2^{-6}$, some
#   roundings to bf16. They compile to the H100's instructions. **No kernel has run on a
#   GPU yet: its speed is not known**, and the floor rests on assumed rates.
# - Counted, not timed: bytes and operations.
#
# ## Exercises
#
# The [exercises](../exercises/08_moe.ipynb), about an hour: the gate, the ways to
# choose, the balance loss, a whole layer from the paper, and the sorted path. (After
# `make lab`, take your own copy in `work/`.)
#
# ## References
#
# - D. Dai and others, *DeepSeekMoE*, arXiv 2401.06066: §3.1 fine-grained experts,
#   §3.2 shared experts, §3.3 balance, §5.1 the 16B.
# - N. Shazeer and others, *Outrageously Large Neural Networks*, arXiv 1701.06538: the
#   gate with top-k, and balance as a loss.
# - D. Lepikhin and others, *GShard*, arXiv 2006.16668, and W. Fedus and others, *Switch
#   Transformers*, arXiv 2101.03961: coarse experts, 2 or 1 for a token.
# - L. Wang and others, *Auxiliary-Loss-Free Load Balancing*, arXiv 2408.15664: MaxVio.

# ===== exercises =====
# %% [markdown]
# # 08 · Mixture of experts: exercises
#
# Five exercises on lesson 08, about an hour in all. Write your answer where a cell
# raises `NotImplementedError`, run that cell and the one after it; `check` prints one
# line, and a hint when something is not right yet. What your function prints appears
# below the hint, for the inputs that failed. Every exercise has the formulas it needs
# and none needs another one: leave out what you like.
#
# `N` counts tokens, `D` channels, `E` experts, `K` experts for a token, `I` the width
# of an expert. Scores are a softmax over all experts, and the weights are those scores,
# not divided by anything. In the exercises in PyTorch all inputs are float32, and so is
# what you make of them.

# %%
from math import comb

import numpy as np
import torch
from torch.nn import functional as F

from deepseek_mini.lesson import check, setup

setup(seed=0)

# %% [markdown]
# ## 08.1 The gate
#
# *A few lines, 10 minutes.* In NumPy, float64: `u` [N, D] holds the tokens, `centroids`
# [E, D] a vector for each expert. Return the weights [N, E]:
#
# $$g_{i,t} = \begin{cases} s_{i,t} & \text{for the } K \text{ largest of token } t
# \\ 0 & \text{for all others} \end{cases} \qquad
# s_{i,t} = \frac{e^{u_t \cdot e_i}}{\sum_{j=1}^{E} e^{u_t \cdot e_j}}.$$
#
# Products may be in the thousands, where $e^x$ overflows; subtracting the same number
# from all products of a token leaves its scores as they are. No two scores of a token
# are equal.
#
# By hand: a token $u = (\ln 2, \ln 3)$ and three experts, $(1, 0)$, $(0, 1)$ and $(1,
# 1)$. The products are $\ln 2$, $\ln 3$ and $\ln 6$, the scores 2/11, 3/11 and 6/11.
# With $K = 2$ the weights are 0, 3/11, 6/11. A second token $(\ln 4, -\ln 2)$ has the
# products $\ln 4$, $-\ln 2$ and $\ln 2$, and the weights 8/13, 0, 4/13. A thousand times
# as long, both tokens give all their weight to their best expert.

# %%
def gate(u: np.ndarray, centroids: np.ndarray, K: int) -> np.ndarray:
    """Weights [N, E] of u [N, D]: the K largest scores of a token, 0 elsewhere."""
    ### BEGIN SOLUTION
    products = u @ centroids.T  # [N, E]
    scores = np.exp(products - products.max(axis=1, keepdims=True))  # [N, E]
    scores /= scores.sum(axis=1, keepdims=True)
    limit = np.sort(scores, axis=1)[:, -K, None]  # [N, 1]: the K-th largest
    return np.where(scores >= limit, scores, 0.0)  # [N, E]
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines. It should print
# [[0.     0.2727 0.5455]
#  [0.6154 0.     0.3077]]
# [[0. 0. 1.]
#  [1. 0. 0.]]
# u = np.log([[2.0, 3.0], [4.0, 0.5]])  # [N, D]
# centroids = np.array([[1.0, 0], [0, 1], [1, 1]])  # [E, D]
# print(gate(u, centroids, 2).round(4), gate(1000 * u, centroids, 2).round(4), sep="\n")
check("08.1", gate)

# %% [markdown]
# ## 08.2 Ways to choose
#
# *One line, 8 minutes.* A layer has `n_experts` experts, `n_activated` of them for a
# token. Every expert is cut into `m` narrower ones, and a token gets `m` times as many.
# Of the narrow experts `n_shared` are set aside as shared: they serve every token and
# count among those that it gets. In how many ways can the router choose the others?
# Return an `int` that is exact, however many digits it has.
#
# By hand: 4 experts, 2 for a token, can be chosen in 6 ways. Cut in $m = 2$: 8 experts,
# 4 for a token, 70 ways. With one shared, the router chooses 3 of 7: 35 ways.

# %%
def ways_to_choose(n_experts: int, n_activated: int, m: int, n_shared: int) -> int:
    """How many sets of routed experts a token can get."""
    ### BEGIN SOLUTION
    return comb(m * n_experts - n_shared, m * n_activated - n_shared)
    ### END SOLUTION

# %%
# To try it, take away the # of the next line. It should print 6 70 35
# print(*(ways_to_choose(4, 2, m, shared) for m, shared in ((1, 0), (2, 0), (2, 1))))
check("08.2", ways_to_choose)

# %% [markdown]
# ## 08.3 The balance loss
#
# *A few lines, 12 minutes.* In PyTorch: `scores` [N, E] are those of a batch, `chosen`
# [N, K] the experts of its tokens. Return the expert-level balance loss, without its
# factor $\alpha$, as a tensor with no axes:
#
# $$\sum_{i=1}^{E} f_i P_i, \qquad f_i = \frac{E}{K N} \cdot \#\{t : t
# \text{ chose } i\}, \qquad P_i = \frac1N \sum_{t=1}^{N} s_{i,t}.$$
#
# The gradient must reach the scores. Some experts may not be chosen at all.
#
# By hand: two tokens, five experts, two for a token. The scores are
# $(0.4, 0.3, 0.1, 0.1, 0.1)$ and $(0.5, 0.1, 0.2, 0.1, 0.1)$; the first token chooses the
# experts 0 and 1, the second 0 and 2. So $f = (2.5, 1.25, 1.25, 0, 0)$,
# $P = (0.45, 0.2, 0.15, 0.1, 0.1)$ and the loss is $1.125 + 0.25 + 0.1875 = 1.5625$. The
# gradient of every score of expert $i$ is $f_i / N$.

# %%
def balance_loss(scores: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Sum of f P over the experts; scores [N, E], chosen [N, K]."""
    ### BEGIN SOLUTION
    E = scores.shape[1]
    load = torch.bincount(chosen.flatten(), minlength=E)  # [E]
    f = load * E / chosen.numel()  # [E]: N K choices
    return (f * scores.mean(dim=0)).sum()
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines. It should print 1.5625 and, twice,
# [1.25, 0.625, 0.625, 0.0, 0.0]
# scores = torch.tensor([[0.4, 0.3, 0.1, 0.1, 0.1], [0.5, 0.1, 0.2, 0.1, 0.1]])
# scores.requires_grad = True
# loss = balance_loss(scores, torch.tensor([[0, 1], [0, 2]]))  # chosen [N, K]
# loss.backward()
# print(round(loss.item(), 5), *scores.grad.tolist(), sep="\n")
check("08.3", balance_loss)

# %% [markdown]
# ## 08.4 The layer
#
# *From the paper, 20 minutes.* In PyTorch, the whole layer (without the residual):
#
# $$h_t = \mathrm{FFN}^{\mathrm{shared}}(u_t) + \sum_{i=1}^{E} g_{i,t}\,
# \mathrm{FFN}_i(u_t), \qquad
# \mathrm{FFN}(u) = W_2 \big( \mathrm{silu}(W_1 u) \odot W_3 u \big)$$
#
# with the weights $g_{i,t}$ of 08.1: the $K$ largest of the scores, as they are, and 0
# for all others. The shared expert has weight 1. `F.silu` is
# $\mathrm{silu}(z) = z / (1 + e^{-z})$. A matrix has a row for each output, so `u @ w.T`
# applies it to every token. The shared expert may have another width than the routed ones.
#
# By hand, with $D = 2$, $I = 1$, three experts and $K = 2$. The tokens are $(1, 0)$ and
# $(0, 1)$, so that a token picks a column of every matrix. Let its products with the
# centroids be $\ln 5, \ln 3, \ln 2$ for the first token and $0, \ln 2, \ln 7$ for the
# second. The scores are 0.5, 0.3, 0.2 and 0.1, 0.2, 0.7: the first token chooses the
# experts 0 and 1, the second 2 and 1. Let all $W_1$ be $(20\ 20)$; silu(20) is 20.000.
# Let $W_3$ be $(1\ 1)$, $(2\ 2)$ and $(3\ 3)$, and all $W_2$ have the rows 1 and 10. Then
# the experts answer $(20, 200)$, $(40, 400)$ and $(60, 600)$. The shared expert has the
# same $W_1$, $W_3 = (2\ 4)$ and a $W_2$ with the rows 1 and 1, and answers $(40, 40)$ and
# $(80, 80)$. So $h$ is
#
# $$(40, 40) + 0.5\, (20, 200) + 0.3\, (40, 400) = (62, 260), \qquad
# (80, 80) + 0.7\, (60, 600) + 0.2\, (40, 400) = (130, 580).$$

# %%
def moe_layer(
    u: torch.Tensor,
    centroids: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    w3: torch.Tensor,
    shared: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    K: int,
) -> torch.Tensor:
    """u [N, D], centroids [E, D], w1 and w3 [E, I, D], w2 [E, D, I]; shared is (w1, w2,
    w3) of the shared expert. Returns h [N, D].
    """
    ### BEGIN SOLUTION
    def ffn(x, w1, w2, w3):
        return (F.silu(x @ w1.T) * (x @ w3.T)) @ w2.T  # [n, D]

    weights, chosen = (u @ centroids.T).softmax(-1).topk(K)  # [N, K] each
    out = ffn(u, *shared)  # [N, D]
    for e in range(len(w1)):
        token, place = torch.where(chosen == e)  # [n] each
        y = ffn(u[token], w1[e], w2[e], w3[e])  # [n, D]
        out = out.index_add(0, token, y * weights[token, place, None])  # [N, D]
    return out
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines. It should print
# [[ 62. 260.]
#  [130. 580.]]
# u, centroids = torch.eye(2), torch.tensor([[5.0, 1], [3, 2], [2, 7]]).log()
# w1 = torch.full((3, 1, 2), 20.0)  # [E, I, D]
# w2 = torch.tensor([[1.0], [10]]).expand(3, 2, 1)  # [E, D, I]
# w3 = torch.tensor([[[1.0, 1]], [[2, 2]], [[3, 3]]])  # [E, I, D]
# shared = torch.full((1, 2), 20.0), torch.ones(2, 1), torch.tensor([[2.0, 4]])
# h = moe_layer(u, centroids, w1, w2, w3, shared, 2)  # [N, D]
# print(h.numpy().round(3))
check("08.4", moe_layer)

# %% [markdown]
# ## 08.5 Sort by expert
#
# *Some thought, 15 minutes.* The fast path. `x` [N, D] holds the tokens, `chosen` [N,
# K] their experts, `weights` [N, K] the weights in the same places. `experts` is a list
# of E functions, each from [n, D] to [n, D]. Return $\sum_k \mathtt{weights}[t, k]
# \cdot \mathtt{experts[chosen[t, k]]}(x_t)$ for every token, as [N, D].
#
# Call every expert at most once, with exactly the tokens that chose it, in any order;
# one that nobody chose is not called at all. A token may choose the same expert twice:
# then it is there twice.
#
# By hand: three tokens, 1, 2 and 3 ($D = 1$), choose the experts 2, 0 and 1, 1 and 0,
# 2, with the weights 0.5, 0.25 and 1, 2 and 0.5, 0.25. In one row the choices are
# 2 0 1 1 0 2. Sorted by expert, the places are 1, 4, 2, 3, 0, 5, their tokens
# 0, 2, 1, 1, 0, 2. If expert $i$ multiplies by $10^i$, expert 0 gets [1, 3], expert 1
# gets [2, 2] and expert 2 gets [1, 3]. The outputs are
# $0.5 \cdot 100 + 0.25 \cdot 1 = 50.25$, $1 \cdot 20 + 2 \cdot 20 = 60$ and
# $0.5 \cdot 3 + 0.25 \cdot 300 = 76.5$.

# %%
def dispatch(
    x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, experts: list
) -> torch.Tensor:
    """x [N, D], chosen and weights [N, K]: the experts' weighted sum [N, D]."""
    ### BEGIN SOLUTION
    K = chosen.shape[1]
    order = chosen.flatten().argsort(stable=True)  # [N K]: places, by expert
    counts = chosen.flatten().bincount(minlength=len(experts)).tolist()
    slices = x[order // K].split(counts)  # E pieces [n, D]
    outs = [f(piece) for f, piece in zip(experts, slices) if len(piece)]
    y = torch.cat(outs) * weights.flatten()[order, None]  # [N K, D]
    return torch.zeros_like(x).index_add(0, order // K, y)  # [N, D]
    ### END SOLUTION

# %%
# To try it, take away the # of the next five lines. It should print [50.25, 60.0, 76.5]
# x = torch.tensor([[1.0], [2.0], [3.0]])  # [N, D]
# chosen = torch.tensor([[2, 0], [1, 1], [0, 2]])  # [N, K]
# weights = torch.tensor([[0.5, 0.25], [1.0, 2.0], [0.5, 0.25]])  # [N, K]
# experts = [lambda x, i=i: x * 10**i for i in range(3)]
# print(dispatch(x, chosen, weights, experts).flatten().tolist())
check("08.5", dispatch)

# %% [markdown]
# Next: [lesson 09](../notebooks/09_mla.ipynb), attention that stores a latent instead
# of keys and values.
