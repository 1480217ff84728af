# %% [markdown]
# # 10 · DeepSeek-V2: experts on a few devices, a latent cache, a long context
#
# DeepSeek-V2 holds 236 billion parameters, three and a half times as many as
# DeepSeek-67B. Yet a token meets only 21 billion of them, and 128K tokens are
# remembered in less than a fifth of the space: 9 GB. Lessons 08 and 09 built the two
# parts that do this. What else does it take to train such a model on many GPUs, and to
# read 128K tokens with it?
#
# - **You will build** V2's routing to a few devices and its three balance losses in
#   NumPy; prove the whole model equal to `transformers`' DeepSeek-V2, and move weights
#   between the two; train a small one on short texts and extend it with YaRN.
# - **You need** lesson 03 (YaRN), lesson 08 (gate, balance loss), lesson 09 (MLA).
# - **Time**: about 50 minutes, and an hour for the exercises.
# - **Paper**: *DeepSeek-V2*, arXiv 2405.04434, §2.2 and §3.1.

# %%
import json
import tempfile
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import deepseek_mini as dm
from deepseek_mini.config import Rope, Yarn
from deepseek_mini.lesson import error, figure, ladder, setup, show

setup(seed=0)

# %%
llm = dm.Config.preset("deepseek-llm-67b")
v2 = dm.Config.preset("deepseek-v2")
sizes = {}
print("               parameters   a token meets   cache of 128K tokens")
for name, config in (("67B", llm), ("V2", v2)):
    one = dm.count(config, seq_len=128 * 1024, cache_dtype=torch.bfloat16)
    sizes[name] = one.parameters, one.active_parameters, one.kv_cache_bytes
    row = [size / 1e9 for size in sizes[name]]
    print(f"DeepSeek-{name:4} {row[0]:10.1f} B {row[1]:13.1f} B {row[2]:19.2f} GB")
ratio = np.array(sizes["V2"]) / np.array(sizes["67B"])
print("V2 / 67B     ", *(f"{x:14.2f}" for x in ratio))
assert 3.4 < ratio[0] < 3.6 and ratio[1] < 1 / 3 and ratio[2] < 1 / 5

# %% [markdown]
# ## What changed
#
# From the 67B to V2, and from one miniature to the next:

# %%
for old, new in (("llm-67b", "v2"), ("llm-mini", "moe-mini"), ("moe-mini", "v2-mini")):
    print(f"deepseek-{old} -> deepseek-{new}")
    changes = dm.diff(*(dm.Config.preset(f"deepseek-{name}") for name in (old, new)))
    for field, before, after in changes:
        print(f"  {field}:\n    {before}\n    {after}")

# %% [markdown]
# Attention and feed-forward networks were exchanged whole. GQA, which the 67B has, is
# gone: "V2 uses MLA and GQA" is often read, and wrong. What is new against lessons 08
# and 09 is `n_groups` and `n_limited_groups` in the mixture, and YaRN on RoPE.
#
# ## Experts on devices
#
# In training, the 160 routed experts of a layer were spread over $D = 8$ devices, 20 on
# each. A token travels to every device that holds one of its $K = 6$ experts, and back.
# **Predict**: if the six were chosen at random, how many devices
# would a token visit?

# %%
from math import comb

missed = comb(140, 6) / comb(160, 6)  # no choice among a device's 20
print(f"a device is missed with probability {missed:.2f};", end=" ")
print(f"devices visited, on average: {8 * (1 - missed):.2f} of 8")
assert round(8 * (1 - missed), 2) == 4.46

# %% [markdown]
# V2 limits this to $M = 3$: first choose the $M$ devices with the best expert, then the
# $K$ best experts on these.
#
# ### By hand
#
# Eight experts on four devices, $K = 3$ and $M = 2$. One token's scores:
#
# | device | A | | B | | C | | D | |
# |---|---|---|---|---|---|---|---|---|
# | expert | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |
# | score | 0.20 | 0.02 | 0.16 | 0.15 | 0.18 | 0.01 | 0.145 | 0.135 |
#
# Without a limit the token gets experts 0, 4 and 2, on three devices. With it: the best
# scores of the devices are 0.20, 0.16, 0.18 and 0.145, so A and C stay; there the best
# three are 0, 4 and 1. Expert 2, with 0.16, is replaced by expert 1, with 0.02. A device
# is worth its *best* expert, not the sum of all.

# %%
def limited_choice(scores, n_devices, n_limited, K):
    """Chosen experts [N, K], best first, of scores [N, E]."""
    devices = scores.reshape(len(scores), n_devices, -1)  # [N, D, E / D]
    worth = devices.max(-1)  # [N, D]
    best = np.argsort(-worth, axis=1)[:, :n_limited]  # [N, M]
    allowed = np.zeros_like(worth, dtype=bool)  # [N, D]
    np.put_along_axis(allowed, best, True, axis=1)
    ranked = np.where(allowed[:, :, None], devices, 0.0)  # [N, D, E / D]
    return np.argsort(-ranked.reshape(scores.shape), axis=1)[:, :K]  # [N, K]


token = np.array([[0.20, 0.02, 0.16, 0.15, 0.18, 0.01, 0.145, 0.135]])  # [N, E]
free, limited = (limited_choice(token, 4, M, 3)[0].tolist() for M in (4, 2))
print("without a limit:", free, "  limited to two devices:", limited)
assert free == [0, 4, 2] and limited == [0, 4, 1]

# %% [markdown]
# Now V2's numbers, with random tokens and centroids: how many of a token's six experts
# live on each device?

# %%
rng = np.random.default_rng(0)
tokens, centroids = rng.normal(size=(2000, 64)), rng.normal(size=(160, 64)) / 8
products = tokens @ centroids.T  # [N, E]
scores = np.exp(products - products.max(1, keepdims=True))  # [N, E]
scores /= scores.sum(1, keepdims=True)


def visits(chosen, n_devices=8, n_experts=160):
    """How many of each token's experts live on each device, [N, D]."""
    device = chosen // (n_experts // n_devices)  # [N, K]
    return (device[:, :, None] == np.arange(n_devices)).sum(1)  # [N, D]


at_will = visits(limited_choice(scores, 8, 8, 6))  # [N, D]
at_most_3 = visits(limited_choice(scores, 8, 3, 6))  # [N, D]
means = [(x > 0).sum(1).mean() for x in (at_will, at_most_3)]
print(f"devices a token visits, mean: {means[0]:.2f} without", end=", ")
print(f"{means[1]:.2f} with the limit")
alt = """Two grids, 20 tokens by 8 devices, with the number of a token's experts on
each device. Without the limit most rows have four or five filled cells, with it at
most three."""
with figure(alt, size=(8, 4)) as fig:
    for ax, grid, title in zip(
        fig.subplots(1, 2), (at_will, at_most_3), ("no limit", "at most 3 devices")
    ):
        ax.imshow(grid[:20], cmap="Blues", vmin=0, vmax=6, aspect="auto")
        for t, d in zip(*np.nonzero(grid[:20])):
            n = grid[t, d]
            color = "white" if n > 3 else "black"
            ax.text(d, t, n, ha="center", va="center", fontsize=8, color=color)
        ax.set(title=title, xlabel="device", ylabel="token")
        ax.set(xticks=range(8), yticks=range(0, 20, 5))
        ax.grid(visible=False)
assert abs(means[0] - 8 * (1 - missed)) < 0.1 and means[1] <= 3

# %% [markdown]
# **Predict**: at $M = 3$, how many of these tokens get the same six experts as without
# a limit? Move $M$.

# %%
from deepseek_mini.lesson import Slider, settings_figure, slider_figure

unlimited = limited_choice(scores, 8, 8, 6)  # [N, K]
BEST = np.take_along_axis(scores, unlimited, 1).sum()


def draw_limit(fig, M):
    chosen = limited_choice(scores, 8, M, 6)  # [N, K]
    reached = (visits(chosen) > 0).sum(1)  # [N]
    other = (np.sort(chosen, 1) != np.sort(unlimited, 1)).any(1).mean()
    kept = np.take_along_axis(scores, chosen, 1).sum() / BEST
    ax = fig.subplots()
    ax.bar(range(1, 9), np.bincount(reached, minlength=9)[1:] / len(reached) * 100)
    ax.set(xlabel="devices a token visits", ylabel="percent of tokens")
    ax.set(ylim=(0, 105), xticks=range(1, 9))
    said = f"mean {reached.mean():.2f}\n{other:.0%} changed\n{kept:.0%} of the score"
    ax.text(5.6, 98, said, va="top", fontsize=9)
    return f"{other:.0%} of the tokens get other experts than without the limit"


widget = slider_figure(
    draw_limit,
    alt="How many devices tokens visit when at most {M} of 8 are allowed.",
    size=(6, 3.2),
    M=Slider(1, 8, start=3, label="M, at most so many devices"),
)

# %%
settings_figure(
    draw_limit,
    {"M = 1": {"M": 1}, "M = 3": {"M": 3}, "M = 5": {"M": 5}},
    alt="""At M = 1 every token gets other experts than without a limit, at 3 most do
and visit three devices, at 5 few do.""",
    size=(11, 3.2),
)
same = (np.sort(limited_choice(scores, 8, 3, 6), 1) == np.sort(unlimited, 1)).all(1)
print(f"M = 3: {same.mean():.0%} of the tokens keep all six experts")
assert same.mean() < 0.2

# %% [markdown]
# Most tokens lose *some* expert, yet little of the sum of their six best scores. The
# paper finds that with $M \ge 3$ quality is about that of free choice (§2.2.2); with
# random scores we can only count what changes.
#
# ## Three losses
#
# Lesson 08 made the load of the *experts* even, by $\sum_i f_i P_i$. V2 has two more
# sums of that kind, over the devices $d$ ($N$ counts tokens; §2.2.3):
#
# | loss | $f$, a count | $P$, with a gradient | $\alpha$ in V2 |
# |---|---|---|---|
# | expert | $f_i$: choices of expert $i$, over an even share | $P_i$: its mean score | 0.003 |
# | device | $f'_d$: mean $f_i$ of the device's experts | $P'_d$: sum of their $P_i$ | 0.05 |
# | communication | $f''_d = \frac{D}{M N} \cdot \#\{t : t \text{ sent to } d\}$ | $P''_d = P'_d$ | 0.02 |
#
# The second asks that devices *compute* the same, the third that they *receive* the
# same: a token with three experts on one device is sent there once. The limit $M$ bounds
# what is sent; only this loss evens out what is received.
#
# By hand, two tokens, $K = 2$ of four experts, two on each of $D = 2$ devices, $M = 2$.
# Scores $(0.4, 0.3 \mid 0.2, 0.1)$ and $(0.5, 0.1 \mid 0.3, 0.1)$: the first token chooses
# experts 0 and 1, the second 0 and 2. Then $f = (2, 1, 1, 0)$, $P = (0.45, 0.2, 0.25,
# 0.1)$:
#
# - expert: $0.9 + 0.2 + 0.25 + 0 = 1.35$
# - device: $f' = (1.5, 0.5)$, $P' = (0.65, 0.35)$: $0.975 + 0.175 = 1.15$
# - communication: two tokens are sent to the first device, one to the second; $f'' = (1,
#   0.5)$: $0.65 + 0.175 = 0.825$

# %%
from deepseek_mini.training import balance


def three_losses(s, chosen, D, M):
    N, E = s.shape
    f = np.bincount(chosen.ravel(), minlength=E) * E / chosen.size  # [E]
    P = s.mean(0)  # [E]
    P_dev = P.reshape(D, -1).sum(1)  # [D]
    sent = (visits(chosen, D, E) > 0).sum(0)  # [D]
    device = f.reshape(D, -1).mean(1) @ P_dev
    return np.array([f @ P, device, sent * D / (M * N) @ P_dev])  # [3]


s = np.array([[0.4, 0.3, 0.2, 0.1], [0.5, 0.1, 0.3, 0.1]])  # [N, E]
chosen = np.array([[0, 1], [0, 2]])  # [N, K]
by_hand = three_losses(s, chosen, D=2, M=2)
print("expert, device, communication:", by_hand.round(3))
print("times 0.003, 0.05, 0.02, added up:", (by_hand @ [0.003, 0.05, 0.02]).round(5))
assert np.allclose(by_hand, [1.35, 1.15, 0.825])


def packaged(s, chosen, D, M):
    s, chosen = torch.from_numpy(s), torch.from_numpy(chosen)
    last = balance.communication_loss(s, chosen, D, M)
    both = balance.expert_loss(s, chosen), balance.device_loss(s, chosen, D)
    return torch.stack([*both, last])  # [3]


chosen_3 = limited_choice(scores, 8, 3, 6)  # [N, K]
ladder("V2's three losses: package = NumPy", [
    ("two tokens by hand", packaged(s, chosen, 2, 2), by_hand, 1e-12),
    ("2,000 tokens, V2's shape", packaged(scores, chosen_3, 8, 3),
     three_losses(scores, chosen_3, 8, 3), 1e-12),
])  # fmt: skip

# %% [markdown]
# An even load gives 1, except in the third: 0.825 is below 1 because the first token
# uses one device where it may use two. That is no fault: it communicates less.
#
# **Token dropping.** Losses only ask. In training, V2 also lets no device compute more
# than its even share: beyond it, the choices with the lowest scores are dropped. One
# sequence in ten is spared, and V2 was evaluated without dropping (§2.2.4). Above, each
# device may compute 2 of the 4 choices, and the first has 3:

# %%
from deepseek_mini.training.dropping import dropped

none_spared = torch.zeros(2, dtype=torch.bool)  # [N]
gone = dropped(torch.from_numpy(s), torch.from_numpy(chosen), 2, 1.0, none_spared)
for n, k in gone.nonzero().tolist():
    print(f"dropped: token {n}, expert {chosen[n, k]}, score {s[n, chosen[n, k]]}")
assert gone.tolist() == [[False, True], [False, False]]

# %% [markdown]
# ## In PyTorch
#
# The gate of lesson 08, with the limit. `_limit` has two variants, V2's where there is
# no bias and V3's where there is one (lesson 11).

# %%
show(dm.model.moe.Gate, docstrings=False)

# %% [markdown]
# The block around it is that of lesson 05: `attn` is now an `MLA` and `ffn`, from the
# second layer on, a `MoE`.

# %%
mini = dm.Config.preset("deepseek-v2-mini")
torch.manual_seed(0)
print(dm.Transformer(mini).layers[1])

# %% [markdown]
# ## The ladder
#
# First the gate against NumPy; then the whole miniature against `transformers`. The
# models meet in a **folder**: `dm.save` writes `config.json` and tensors, and
# `from_pretrained` reads them, or the other way round. So the names of all tensors and
# fields are under test too.

# %%
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM
from transformers.utils import logging as transformers_logging

transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()
EAGER = {"attn_implementation": "eager", "experts_implementation": "eager"}


@torch.no_grad()
def randomised(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        noise = torch.randn(p.shape, generator=generator)
        p.copy_(noise * 0.6 / p.shape[-1] ** 0.5 if p.ndim > 1 else 1 + 0.3 * noise)
    return model.eval().requires_grad_(False)


def through_a_folder(model):
    """Our model, as transformers reads it from what dm.save wrote."""
    with tempfile.TemporaryDirectory() as folder:
        dm.save(model, folder)
        theirs = DeepseekV2ForCausalLM.from_pretrained(folder, **EAGER)
    return theirs.eval().requires_grad_(False)


gate = randomised(dm.Transformer(mini)).layers[1].ffn.gate
x = torch.randn(50, mini.dim)  # [N, D]
routing, part = gate(x), mini.moe
logits = x.double().numpy() @ gate.weight.double().numpy().T  # [N, E]
want = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)  # [N, E]
groups = part.n_groups, part.n_limited_groups, part.n_activated_experts
numpy_chosen = limited_choice(want, *groups)  # [N, K]
ladder("The gate of deepseek-v2-mini: module = NumPy", [
    ("scores", routing.scores, want, 1e-5),
    ("chosen", routing.chosen, numpy_chosen, 0),
    ("weights", routing.weights, np.take_along_axis(want, numpy_chosen, 1), 1e-5),
])  # fmt: skip

# %%
ids = torch.randint(mini.vocab_size, (2, 70))  # [B, T]
yarn = Yarn(factor=4, original_seq_len=64, mscale=0.707, mscale_all_dim=0.707)
VARIANTS = {
    "groups": mini,
    "greedy": replace(mini, moe=replace(part, n_groups=1, n_limited_groups=1)),
    "no q latent": replace(mini, attention=replace(mini.attention, q_lora_rank=None)),
    "scale 16": replace(mini, moe=replace(part, route_scale=16.0)),
    "YaRN": replace(mini, rope=Rope(scaling=yarn)),
}
rungs, whole = [], {}
for name, config in VARIANTS.items():
    model = randomised(dm.Transformer(config))
    theirs = through_a_folder(model)(ids).logits  # [B, T, V]
    whole[name] = model, model(ids), theirs
    rungs += [(f"{name}: dm.save -> transformers", whole[name][1], theirs, 1e-4)]
for name in ("groups", "YaRN"):
    model, logits, theirs = whole[name]
    cache = model.new_cache(batch_size=2)
    pieces = [model(p, cache) for p in ids.split((40, 1, 1, 20, 8), 1)]
    joined = torch.cat(pieces, 1)  # [B, T, V]
    rungs += [(f"{name}: cached, in pieces = whole", joined, logits, 1e-5)]
    for attention, moe in (("naive", "loop"), ("absorbed", "grouped")):
        with dm.paths(attention=attention, moe=moe):
            rungs += [(f"{name}: {attention}, {moe} = whole", model(ids), logits, 1e-5)]
ladder("deepseek-v2-mini with random weights", rungs)

# %% [markdown]
# Now a folder that `transformers` wrote. Four fields of its config are traps:
# `topk_method` is "greedy" by default (no groups, whatever `n_group` says),
# `first_k_dense_replace` is 0 (no dense layer), `num_experts_per_tok` is None, and
# `norm_topk_prob` is ignored.

# %%
hf = DeepseekV2Config(
    vocab_size=97, hidden_size=40, intermediate_size=56, moe_intermediate_size=12,
    num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=256,
    q_lora_rank=None, kv_lora_rank=20, qk_nope_head_dim=12, qk_rope_head_dim=8,
    v_head_dim=10, n_routed_experts=12, n_shared_experts=2, num_experts_per_tok=3,
    first_k_dense_replace=1, topk_method="group_limited_greedy", n_group=4,
    topk_group=2, routed_scaling_factor=1.7, norm_topk_prob=False,
    rope_parameters={"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0,
                     "original_max_position_embeddings": 64, "mscale": 1.0,
                     "mscale_all_dim": 1.0},
)  # fmt: skip
hf._attn_implementation = hf._experts_implementation = "eager"
theirs = randomised(DeepseekV2ForCausalLM(hf))
with tempfile.TemporaryDirectory() as folder:
    theirs.save_pretrained(folder)
    written = json.loads(Path(folder, "config.json").read_text())
    loaded = dm.load(folder)
print("config.json says", written["model_type"], written["topk_method"])
print(loaded.config.moe)
few = torch.randint(97, (2, 70))  # [B, T]
rung = ("transformers -> dm.load", loaded(few), theirs(few).logits, 1e-4)
ladder("A folder written elsewhere", [rung])

# %% [markdown]
# The released weights come in such a folder. This cell does nothing until you fill in
# the name: V2-Lite, the smallest, has 15.7 billion parameters.

# %%
RELEASED = ""  # "deepseek-ai/DeepSeek-V2-Lite": 31 GB to download, and to hold
if RELEASED:
    released = dm.load(RELEASED, dtype=torch.bfloat16)
    print(dm.count(released.config))
size = 2 * dm.count(dm.Config.preset("deepseek-v2-lite")).parameters
print(f"DeepSeek-V2-Lite in bfloat16: {size / 1e9:.0f} GB")

# %% [markdown]
# ## How people get it wrong
#
# Three gates with one slip each. Shapes are right, and all of them train.
#
# - **A device is worth its sum.** (V3 does sum, over the best two of each.)
# - **The wrong fill.** A softmax keeps order, so why not rank the raw products, and put
#   0 where a device is not allowed? Products can be negative: then 0 *beats* them.
# - **Weights that add up to 1**, as in V3. V2 takes the scores as they are.

# %%
from deepseek_mini.model.moe import Gate, Routing


class WrongGate(Gate):
    slip = "none"

    def forward(self, x):
        logits, part = F.linear(x, self.weight), self.part  # [N, E]
        ranked = scores = logits.softmax(-1)  # [N, E]
        if self.slip == "raw products":
            ranked = logits
        groups = ranked.unflatten(1, (part.n_groups, -1))  # [N, G, E / G]
        worth = groups.sum(-1) if self.slip == "sum" else groups.amax(-1)  # [N, G]
        best = worth.topk(part.n_limited_groups).indices  # [N, M]
        out = torch.ones_like(worth).bool().scatter(1, best, False)  # [N, G]
        ranked = groups.masked_fill(out[..., None], 0).flatten(1)  # [N, E]
        chosen = ranked.topk(part.n_activated_experts).indices  # [N, K]
        weights = scores.gather(1, chosen)  # [N, K]
        if self.slip == "renormalised":
            weights = weights / weights.sum(-1, keepdim=True)
        return Routing(scores, chosen, weights)


model, logits, theirs = whole["groups"]
for layer in model.layers[1:]:
    layer.ffn.gate.__class__ = WrongGate
equal = {}
for slip in ("none", "sum", "raw products", "renormalised"):
    WrongGate.slip = slip
    with dm.model.recording() as routings:
        equal[slip] = error(model(ids), theirs) < 1e-4
    visited = visits(routings[0].chosen.numpy(), 4, 16)  # [N, D]
    print(f"{slip:13} = transformers: {equal[slip]!s:5}", end="   ")
    print(f"most devices visited: {(visited > 0).sum(1).max()}")
for layer in model.layers[1:]:
    layer.ffn.gate.__class__ = Gate
assert list(equal.values()) == [True, False, False, False]

# %% [markdown]
# Only the raw products break the limit in the open. The other two look healthy, and
# only equality with the right model tells. (Softmax scores are positive, so 0 is a safe
# fill. V3's scores plus bias can be negative, and V3 fills with $-\infty$.)
#
# ## Long texts: YaRN on a latent cache
#
# V2 was trained on 4,096 tokens and extended with factor $s = 40$, by 1,000 further
# steps at 32K (§3.1.4). Only the $r$ channels of $q^R$ and of the shared key $k^R$ turn;
# their frequencies change as in lesson 03.
#
# YaRN's second half is a temperature $m = 0.1\, c \ln s + 1$, with $c$ from the config:
# a softmax over more keys is flatter, and multiplying all scores by $m^2$ sharpens it
# again. The YaRN paper multiplies cosines and sines by $m$, which multiplies scores by
# $m^2$, for free. But in MLA a score has two parts:
#
# $$q_t \cdot k_s = \underbrace{q^C_t \cdot k^C_s}_{n\text{ channels, not turned}} +
# \underbrace{q^R_t \cdot k^R_s}_{r\text{ channels, turned}}$$
#
# **Predict**: the parts are 3 and 1, $s = 4$, $c = 1$. What does each way make of 4?

# %%
def temperature(s, c):
    return 0.1 * c * np.log(s) + 1


m = temperature(4, 1.0)
print(f"m = {m:.4f}, m² = {m**2:.4f}")
print(f"on cos and sin:       3 + 1 m² = {3 + m**2:.4f}")
print(f"on the softmax scale: (3 + 1) m² = {4 * m**2:.4f}")
n, r = v2.attention.qk_nope_head_dim, v2.attention.qk_rope_head_dim
print(f"V2: {n} of {n + r} channels of a head are not turned")
assert np.allclose([m, m**2, 4 * m**2], [1.1386, 1.2965, 5.1859], atol=1e-4)

# %% [markdown]
# On cosines and sines the temperature reaches a third of V2's channels, and favours
# position over content. So V2's code multiplies the *softmax scale* by $m^2$. Two config
# fields say it. Let $m_1$ be $m$ with `mscale` as $c$, and $m_2$ be $m$ with
# `mscale_all_dim` as $c$: cosines get $m_1 / m_2$, which is 1 when both are equal, and the
# scale gets $m_2^2$.

# %%
from deepseek_mini.model import rope as rope_module

show(rope_module.amplitude, rope_module.softmax_temperature, docstrings=False)

# %% [markdown]
# The bug, live: the same weights, the factor on cosines and sines (`mscale_all_dim` = 0).

# %%
model, logits, theirs = whole["YaRN"]
wrong_yarn = replace(yarn, mscale_all_dim=0.0)
wrong = dm.Transformer(replace(mini, rope=Rope(scaling=wrong_yarn))).eval()
wrong.load_state_dict(model.state_dict())
with torch.no_grad():
    misplaced = wrong(ids)  # [B, T, V]
print("on the softmax scale = transformers:", error(logits, theirs) < 1e-4)
print("on cos and sin = transformers:      ", error(misplaced, theirs) < 1e-4)
assert error(logits, theirs) < 1e-4 < 0.01 < error(misplaced, theirs)

# %% [markdown]
# **Which $c$?** The sources do not agree. The paper prints $0.0707 \ln s + 1$ for V2. In
# the official code V2-Lite's config says 0.707, which is that; the 236B's says nothing,
# and the default is 1.0. Our presets follow the code: weights are run with it.

# %%
for name, c in (("paper, V2-Lite's config", 0.707), ("236B's config", 1.0)):
    print(f"{name:24} c = {c:5}: softmax scale times {temperature(40, c) ** 2:.3f}")
for name, c in (("v2-lite", 0.707), ("v2", 1.0)):
    scaling = dm.Config.preset(f"deepseek-{name}").rope.scaling
    assert scaling.mscale == scaling.mscale_all_dim == c
assert round(temperature(40, 1.0) ** 2, 3) == 1.874

# %% [markdown]
# ## Does it matter?
#
# A small V2 (two layers, one sparse with 16 experts on 4 devices, $M = 2$, trained with
# the three losses) learned Python code, as bytes, from windows of 64. Then it read 256,
# $s = 4$: with plain RoPE, and with YaRN with the temperature nowhere, on cosines and
# sines, and on the softmax scale; first as it was, then after some steps on windows of
# 256 (`experiments/10_deepseek_v2.py`).
#
# **Predict**: 24 of a head's 40 channels do not turn here. Does plain RoPE break as it
# did in lesson 03? And which place for the temperature reads best?

# %%
log = files("deepseek_mini") / "assets/logs/10_deepseek_v2.jsonl"
head, *records = [json.loads(line) for line in log.read_text().splitlines()]
NO, ON_COS, ON_SOFTMAX = (
    f"yarn, {place}" for place in ("no temperature", "on cos and sin", "on the softmax")
)
WAYS, STEPS = ("plain", NO, ON_COS, ON_SOFTMAX), (0, head["finetune"]["steps"])


def of(way, steps):
    rows = [r for r in records if (r["scaling"], r["finetune_steps"]) == (way, steps)]
    return np.array([r["loss"] for r in rows])  # [seeds, stretches of 16 positions]


loss = {(way, steps): of(way, steps) for way in WAYS for steps in STEPS}
seeds = len(loss["plain", 0])
print(f"{seeds} seeds, {head['parameters']:,} parameters, {STEPS[1]} steps at 256")
print(f"{head['hardware']}, torch {head['torch']}, {head['date']}")
once = {(r["seed"], r["train_seconds"]) for r in records if not r["finetune_steps"]}
then = [r["train_seconds"] for r in records if r["finetune_steps"]]
spent = sum(each for _, each in once) + sum(then)
print(f"{spent / 60:.1f} minutes of processor time to train")

# %%
alt = """Loss by position, 0 to 256. Left, as trained: plain climbs steeply after 64;
the three kinds of YaRN rise slightly, the one without a temperature most. Right, after
30 steps: YaRN is flat in all three, plain still rises after 64."""
with figure(alt, size=(9, 3.8)) as fig:
    axes = fig.subplots(1, 2, sharey=True)
    for ax, steps in zip(axes, STEPS):
        for way in WAYS:
            runs = loss[way, steps]  # [seeds, 16]
            (line,) = ax.plot(np.arange(8, 256, 16), runs.mean(0))
            line.set_label(way.replace("yarn", "YaRN"))
            band = runs.min(0), runs.max(0)  # [16] each: over the seeds
            ax.fill_between(line.get_xdata(), *band, color=line.get_color(), alpha=0.15)
        ax.axvline(64, color="black", lw=1, ls="-")
        ax.set(xlabel="position in the window (bytes)")
    axes[0].set(title="as trained on 64", ylabel="loss (nats per byte)")
    axes[1].set(title=f"after {STEPS[1]} steps at 256")
    axes[1].legend(loc="upper right", fontsize=8)
print(f"{'mean loss at positions':25} as trained 0-63  192-255", end="   ")
print(f"after {STEPS[1]} steps 0-63  192-255")
near = {key: runs[:, :4].mean(1) for key, runs in loss.items()}  # [seeds]
far = {key: runs[:, 12:].mean(1) for key, runs in loss.items()}  # [seeds]
for way in WAYS:
    cells = [x[way, steps].mean() for steps in STEPS for x in (near, far)]
    print(f"{way:25} {cells[0]:15.3f} {cells[1]:8.3f} {cells[2]:21.3f} {cells[3]:8.3f}")

# %%
late = STEPS[1]
claims = {  # of every seed, at positions 192 to 255: [seeds] each
    "as trained, YaRN (V2) below plain": far["plain", 0] - far[ON_SOFTMAX, 0],
    "as trained, and below no temperature": far[NO, 0] - far[ON_SOFTMAX, 0],
    "at 0 to 63, YaRN (V2) above plain": near[ON_SOFTMAX, 0] - near["plain", 0],
    f"after {late} steps, YaRN (V2) below plain": far["plain", late]
    - far[ON_SOFTMAX, late],
    f"after {late} steps, and below no temperature": far[NO, late]
    - far[ON_SOFTMAX, late],
    "as trained, cos and sin below softmax": far[ON_SOFTMAX, 0] - far[ON_COS, 0],
}
for claim, margin in claims.items():
    print(f"{claim:44} by {margin.min():.3f} to {margin.max():.3f}")
    assert (margin > 0).all()
apart = abs(far[ON_COS, late] - far[ON_SOFTMAX, late])  # [seeds]
print(f"after {late} steps the two places differ by at most {apart.max():.3f}")
assert apart.max() < 0.01

# %% [markdown]
# (The zigzag repeats every 64 positions because each quarter reads the same bytes.)
# Plain RoPE breaks here too. YaRN can be used at once, for a small price within 64;
# after the few steps it is as good far out as near, and plain is still behind.
#
# The temperature helps, in every seed, and by less than the new frequencies do. But
# **where it stands hardly matters here**: as trained, cosines and sines are even ahead
# by 0.01 to 0.02, and after the steps the two are equal to within 0.01. So V2's place is
# right because V2's weights were trained with it; that it is the better place is not
# shown. Factor 4 asks for much less sharpening than 40.
#
# A small version, live: fewer steps, one seed, plain against YaRN as V2 has it, with
# V2's three losses.

# %%
from deepseek_mini.data import python_code
from deepseek_mini.training import TrainConfig, default_balance
from deepseek_mini.training.losses import training_loss

corpus = python_code()  # modules of Python's standard library
parts = ("".join(d.text for d in docs) for docs in (corpus.train, corpus.validation))
training, validation = (
    torch.tensor(bytearray(text, "utf-8"), dtype=torch.int64) for text in parts
)  # [N] each
small = replace(
    mini, vocab_size=256, dim=96, n_layers=2, dense=dm.config.SwiGLU(inter_dim=256)
)


def trained(config, steps=150, rows=16, length=64, peak=4e-3):
    torch.manual_seed(0)
    model = dm.Transformer(config)
    recipe = TrainConfig(steps=steps, balance=default_balance(config))
    adam = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(steps):
        adam.param_groups[0]["lr"] = peak * min((step + 1) / 20, 1 - 0.9 * step / steps)
        start = torch.randint(len(training) - length, (rows, 1))
        window = training[start + torch.arange(length + 1)]  # [B, T + 1]
        loss, _ = training_loss(model, window, recipe, step)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
    return model.eval()


alphas = default_balance(small)
print(alphas.expert_loss, alphas.device_loss, alphas.comm_loss)
reader = trained(small)

# %%
@torch.no_grad()
def by_quarter(scaling):
    model = dm.Transformer(replace(small, rope=Rope(scaling=scaling))).eval()
    model.load_state_dict(reader.state_dict())
    start = torch.linspace(0, len(validation) - 257, 200).long()[:, None]  # [B, 1]
    window = validation[start + torch.arange(257)]  # [B, T + 1]
    with dm.model.recording() as routings:
        logits = model(window[:, :-1])  # [B, T, V]
    each = F.cross_entropy(logits.mT, window[:, 1:], reduction="none")  # [B, T]
    quarters = each.unflatten(1, (4, 64)).mean((0, 2))  # [4]
    return quarters.tolist(), visits(routings[0].chosen.numpy(), 4, 16)


plain, sent = by_quarter(None)
like_v2, _ = by_quarter(Yarn(4, 64, mscale=1.0, mscale_all_dim=1.0))
print("plain: the last quarter is worse than the first:", plain[3] > plain[0] + 0.1)
print("last quarter: YaRN better than plain:", like_v2[3] < plain[3])
print("no token visits more than 2 of 4 devices:", (sent > 0).sum(1).max() <= 2)
shares = sent.sum(0) / sent.sum()  # [D]
even = bool((abs(shares - 0.25) < 0.1).all())
print("each device does 15% to 35% of the work:", even)
assert plain[3] > plain[0] + 0.1 and like_v2[3] < plain[3]
assert (sent > 0).sum(1).max() <= 2 and even

# %% [markdown]
# ## At full size
#
# Published sizes, and `dm.count`'s. The *active* parameters, those that one token
# meets, are published in conventions that are not stated: the embedding and the head
# may count or not.

# %%
PUBLISHED = {  # billions: total, active
    "moe-16b": (16.4, 2.8), "v2-lite": (15.7, 2.4), "v2": (236, 21), "v3": (671, 37)
}  # fmt: skip
print("                total  published   active: neither   + head   + both  published")
for name, (total, active) in PUBLISHED.items():
    one = dm.count(dm.Config.preset(f"deepseek-{name}"))
    both, table = one.active_parameters, one.parts["embedding"]
    counts = np.array([both - 2 * table, both - table, both]) / 1e9
    assert abs(one.parameters / 1e9 / total - 1) < 0.005
    assert min(abs(counts - active)) < 0.03 * active
    cells = " ".join(f"{x:8.2f}" for x in counts)
    print(f"{name:11} {one.parameters / 1e9:8.2f} B {total:8} B", end=" ")
    print(f"{cells:>36} {active:7} B")

# %% [markdown]
# No single column gives all four. With the head alone V2's 21 and V3's 37 come out, and
# V2-Lite's 2.4 if 2.45 is cut; MoE-16B's 2.8 needs both. `dm.count` always says "both".
#
# Where V2's parameters are, and its cache at 128K tokens, in bfloat16:

# %%
one = dm.count(v2, seq_len=128 * 1024)
for name, number in one.parts.items():
    if number:
        print(f"{name:16} {number / 1e9:8.2f} B {number / one.parameters:7.1%}")
lite = dm.count(dm.Config.preset("deepseek-v2-lite"), seq_len=128 * 1024)
print(f"cache at 128K tokens: V2 {one.kv_cache_bytes / 1e9:.2f} GB", end=", ")
print(f"V2-Lite {lite.kv_cache_bytes / 1e9:.2f} GB", end=", ")
print(f"67B {sizes['67B'][2] / 1e9:.2f} GB")
for name, config in (("V2", v2), ("67B", llm)):
    work = [dm.count(config, seq_len=n).flops_per_token for n in (1, 4096, 131_072)]
    print(f"{name:3}: GFLOP a token with 1, 4,096, 131,072 in view:", end=" ")
    print(*(f"{x / 1e9:,.0f}" for x in work))
assert one.parts["routed experts"] > 0.9 * one.parameters

# %% [markdown]
# With next to no context V2 does a third of the 67B's work. At 128K it does four times
# as much, because nearly all of a token's arithmetic is then attention to latents: what
# MLA saves is memory, and it pays in operations (lesson 09).
#
# ## What this proves, and what it does not
#
# - Proved: on random weights our V2 is `transformers`' V2, with groups and without, with
#   YaRN, cached, and through folders both ways. We did not load the released weights.
# - Proved: the three losses by hand, in NumPy and in the package are one.
# - Counted: what the limit changes for *random* scores.
# - Measured: a model of 0.3 million parameters, factor 4, five seeds. It says little
#   about factor 40 at 236 billion.
# - Not shown: quality at $M = 3$, and time saved by sending less.
#
# ## Exercises
#
# The [exercises](../exercises/10_deepseek_v2.ipynb), about an hour: the choice within
# devices, the communication loss, YaRN's softmax scale, and V2's parameters from its
# config. (After `make lab`, take your own copy in `work/`.)
#
# ## References
#
# - *DeepSeek-V2*, arXiv 2405.04434: §2.2.2 device-limited routing, §2.2.3 the losses,
#   §2.2.4 token dropping, §3.1.2 sizes, §3.1.4 long context, appendix B V2-Lite.
# - B. Peng and others, *YaRN*, arXiv 2309.00071, §3.3 (the temperature).
# - Official code: `inference/configs/config_236B.json`, `config_16B.json` and `model.py`
#   of DeepSeek-V3, which also runs V2.
# - The independent implementation: `transformers`,
#   `models/deepseek_v2/modeling_deepseek_v2.py`.

# ===== exercises =====
# %% [markdown]
# # 10 · DeepSeek-V2: exercises
#
# Four exercises on lesson 10, about an hour in all. Write your answer where a cell
# raises `NotImplementedError`, run that cell and the one after it; `check` prints one
# line, and a hint when something is not right yet. What your function prints appears
# below the hint, for the inputs that failed. Every exercise has the formulas it needs
# and none needs another one: leave out what you like.
#
# $N$ counts tokens, $E$ experts, $K$ experts for a token, $D$ devices, $M$ the most
# devices for a token. The experts lie on the devices in order, $E / D$ on each.

# %%
import math
from dataclasses import replace

import numpy as np
import torch

import deepseek_mini as dm
from deepseek_mini.lesson import check, setup

setup(seed=0)

# %% [markdown]
# ## 10.1 Experts on a few devices
#
# *A few lines, 15 minutes.* In NumPy, float64: `scores` [N, E], all positive, no two of
# a token equal. For each token:
#
# - a device is worth the largest score among its experts;
# - the `n_limited` devices that are worth most are allowed;
# - of the experts on these the `K` with the largest scores are chosen.
#
# Return the weights [N, E]: the scores of the chosen, as they are, 0 for all others.
#
# By hand: 8 experts on 4 devices, $M = 2$, $K = 3$, scores (0.20, 0.02), (0.16, 0.15),
# (0.18, 0.01), (0.145, 0.135). The devices are worth 0.20, 0.16, 0.18, 0.145; the first
# and the third are allowed, and the weights are 0.20, 0.02, 0, 0, 0.18, 0, 0, 0.

# %%
def limited_weights(
    scores: np.ndarray, n_devices: int, n_limited: int, K: int
) -> np.ndarray:
    """Weights [N, E] of scores [N, E]."""
    ### BEGIN SOLUTION
    devices = scores.reshape(len(scores), n_devices, -1)  # [N, D, E / D]
    worth = devices.max(axis=-1)  # [N, D]
    last = np.sort(worth, axis=1)[:, -n_limited, None]  # [N, 1]: the M-th best
    allowed = (worth >= last)[:, :, None]  # [N, D, 1]
    ranked = np.where(allowed, devices, 0.0).reshape(scores.shape)  # [N, E]
    limit = np.sort(ranked, axis=1)[:, -K, None]  # [N, 1]: the K-th best
    return np.where(ranked >= limit, ranked, 0.0)  # [N, E]
    ### END SOLUTION

# %%
# To try it, take away the # of the next two lines. It should print
# [[0.2, 0.02, 0.0, 0.0, 0.18, 0.0, 0.0, 0.0]]
# scores = np.array([[0.20, 0.02, 0.16, 0.15, 0.18, 0.01, 0.145, 0.135]])  # [N, E]
# print(limited_weights(scores, 4, 2, 3).tolist())
check("10.1", limited_weights)

# %% [markdown]
# ## 10.2 The communication loss
#
# *A few lines, 15 minutes.* In PyTorch: `scores` [N, E] are those of a batch, `chosen`
# [N, K] the experts of its tokens. Return V2's communication loss, without its factor
# $\alpha$, as a tensor with no axes, float32 or float64:
#
# $$\sum_{d=1}^{D} f''_d P''_d, \qquad
# f''_d = \frac{D}{M N} \cdot \#\{t : t \text{ is sent to } d\}, \qquad
# P''_d = \sum_{i \text{ on } d} \frac1N \sum_{t=1}^{N} s_{i,t}.$$
#
# A token is sent to a device if at least one of its experts lies there, and only once.
# $M$ is `n_limited`. The gradient must reach the scores.
#
# By hand: two tokens, six experts on $D = 3$ devices, $K = 3$, $M = 2$; scores $(0.35, 0.2
# \mid 0.25, 0.05 \mid 0.1, 0.05)$ and $(0.2, 0.05 \mid 0.1, 0.05 \mid 0.35, 0.25)$; the
# first chooses 0, 1 and 2, the second 0, 4 and 5. Both are sent to the first device, one
# to each of the others: $f'' = (1.5, 0.75, 0.75)$. $P'' = (0.4, 0.225, 0.375)$, and the
# loss is 1.05.

# %%
def communication_loss(
    scores: torch.Tensor, chosen: torch.Tensor, n_devices: int, n_limited: int
) -> torch.Tensor:
    """Sum of f'' P'' over the devices; scores [N, E], chosen [N, K]."""
    ### BEGIN SOLUTION
    N, E = scores.shape
    device = chosen // (E // n_devices)  # [N, K]
    sent = torch.zeros(N, n_devices, dtype=scores.dtype).scatter(1, device, 1.0)
    f = sent.sum(dim=0) * n_devices / (n_limited * N)  # [D]
    P = scores.mean(dim=0).reshape(n_devices, -1).sum(dim=1)  # [D]
    return (f * P).sum()
    ### END SOLUTION

# %%
# To try it, take away the # of the next five lines. It should print 1.05
# one = [0.35, 0.2, 0.25, 0.05, 0.1, 0.05]
# other = [0.2, 0.05, 0.1, 0.05, 0.35, 0.25]
# chosen = torch.tensor([[0, 1, 2], [0, 4, 5]])  # [N, K]
# loss = communication_loss(torch.tensor([one, other]), chosen, 3, 2)
# print(round(float(loss), 4))
check("10.2", communication_loss)

# %% [markdown]
# ## 10.3 YaRN's softmax scale
#
# *One line, 8 minutes.* What does V2's attention multiply the products of queries and
# keys with, before the softmax?
#
# $$\frac{m^2}{\sqrt{n + r}}, \qquad m = 0.1 \cdot c \cdot \ln s + 1.$$
#
# $n$ and $r$ are a head's channels without and with RoPE, $s$ is the factor by which the
# context is stretched, and $c$ the config's `mscale_all_dim` (not its `mscale`, which
# has to do with cosines). Without YaRN $m$ is 1.
#
# `config.attention` has `n_heads`, `q_lora_rank`, `kv_lora_rank`, `qk_nope_head_dim`,
# `qk_rope_head_dim` and `v_head_dim`; `config.rope.scaling` is None without YaRN, else
# it has `factor`, `original_seq_len`, `mscale` and `mscale_all_dim`. `math` is imported.
#
# By hand: V2-Lite, $n + r = 192$, $s = 40$, $c = 0.707$. $m = 1.2608$, $m^2 = 1.5896$,
# and the scale is 0.1147. Another `mscale` would not change it.

# %%
def softmax_scale(config: dm.Config) -> float:
    """What V2's scores are multiplied by."""
    ### BEGIN SOLUTION
    part, yarn = config.attention, config.rope.scaling
    m = 1.0 if yarn is None else 0.1 * yarn.mscale_all_dim * math.log(yarn.factor) + 1
    return m**2 / math.sqrt(part.qk_nope_head_dim + part.qk_rope_head_dim)
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines. It should print 0.1147 0.0722 0.1147
# lite = dm.Config.preset("deepseek-v2-lite")
# bare = replace(lite, rope=replace(lite.rope, scaling=None))
# yarn = replace(lite.rope.scaling, mscale=0.0)
# other = replace(lite, rope=replace(lite.rope, scaling=yarn))
# print(*(round(softmax_scale(config), 4) for config in (lite, bare, other)))
check("10.3", softmax_scale)

# %% [markdown]
# ## 10.4 All parameters of a V2
#
# *Build it from the paper, 25 minutes.* How many numbers does a model like V2 learn?
# Count from the config, without building it. With $D$ = `dim`:
#
# | where | what |
# |---|---|
# | at the start and the end | an embedding and a head, `vocab_size` × $D$ each; a norm of $D$ |
# | in each of `n_layers` layers | a norm of $D$ before attention, a norm of $D$ before the feed-forward network |
# | in each layer, queries | with `q_lora_rank`: a matrix from $D$ to it, a norm of that width, a matrix from it to all heads' $n + r$ channels; if it is None, one matrix from $D$ to these |
# | in each layer, keys and values | a matrix from $D$ to latent and RoPE key together (one key for all heads), a norm of the latent's width, a matrix from the latent to all heads' $n + v$ channels |
# | in each layer, output | a matrix from all heads' $v$ channels to $D$ |
# | in the first `n_dense_layers` layers | a SwiGLU `dense.inter_dim` wide: three matrices |
# | in all other layers | a gate: $D$ numbers for each routed expert; `moe.n_routed_experts` and `moe.n_shared_experts` experts, each a SwiGLU `moe.inter_dim` wide |
#
# There are no biases. The fields of `config.attention` are those of 10.3; the latent is
# `kv_lora_rank`, $v$ is `v_head_dim`.
#
# V2-Lite has 15,706,484,224, V2 235,741,434,880. If yours differ, compare by parts:
# `dm.count(config).parts` has the package's, all layers together. There "attention" is
# all matrices of queries, keys and values, and output; "norms" are all norms, those
# within attention too; "feed-forward" is that of the dense layers; "correction biases"
# are V3's, here 0.

# %%
def parameters(config: dm.Config) -> int:
    """The number of parameters of a model like V2."""
    ### BEGIN SOLUTION
    a, moe, dim = config.attention, config.moe, config.dim
    q_dim = a.n_heads * (a.qk_nope_head_dim + a.qk_rope_head_dim)
    if a.q_lora_rank is None:
        queries = dim * q_dim
    else:
        queries = (dim + 1 + q_dim) * a.q_lora_rank
    kv = dim * (a.kv_lora_rank + a.qk_rope_head_dim) + a.kv_lora_rank
    kv += a.kv_lora_rank * a.n_heads * (a.qk_nope_head_dim + a.v_head_dim)
    layer = 2 * dim + queries + kv + a.n_heads * a.v_head_dim * dim
    experts = moe.n_routed_experts + moe.n_shared_experts
    sparse = moe.n_routed_experts * dim + experts * 3 * dim * moe.inter_dim
    dense, n_dense = 3 * dim * config.dense.inter_dim, config.n_dense_layers
    total = 2 * config.vocab_size * dim + dim + config.n_layers * layer
    return total + n_dense * dense + (config.n_layers - n_dense) * sparse
    ### END SOLUTION

# %%
# To try it, take away the # of the next two lines. It should print
# 15,706,484,224 235,741,434,880
# models = [dm.Config.preset(f"deepseek-{name}") for name in ("v2-lite", "v2")]
# print(*(f"{parameters(config):,}" for config in models))
check("10.4", parameters)

# %% [markdown]
# Next: lesson 11 replaces the losses by a bias.
