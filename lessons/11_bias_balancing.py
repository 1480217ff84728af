# %% [markdown]
# # 11 · Bias balancing: even experts without a second gradient
#
# Lesson 08 kept the experts busy with a balance loss. That loss has a gradient of its
# own: the gate must send a token where it is read best, and also where there is room.
# Without it, the busiest expert of the small model below gets more than three times its
# share. DeepSeek-V3 evens the load with 14,848 numbers that no gradient touches. Can
# balance be had for free?
#
# - **You will build** V3's gate in NumPy: sigmoid scores, a bias that chooses and never
#   weighs, the limit to groups, the rule that moves the bias, and the loss that V3
#   keeps; prove them equal to the package and to `transformers`; and compare four ways
#   of balancing on the same seeds.
# - **You need** lesson 08 (gate, balance loss, MaxVio).
# - **Time**: about 40 minutes, and an hour for the exercises.
# - **Papers**: *DeepSeek-V3*, arXiv 2412.19437, §2.1.2; *Auxiliary-Loss-Free Load
#   Balancing*, arXiv 2408.15664.

# %%
import json
from dataclasses import replace
from importlib.resources import files

import numpy as np
import torch

import deepseek_mini as dm
from deepseek_mini.config import MoE
from deepseek_mini.lesson import PALETTE, error, figure, ladder, setup, show

setup(seed=0)

# %%
log = files("deepseek_mini") / "assets/logs/11_bias_balancing.jsonl"
head, *records = [json.loads(line) for line in log.read_text().splitlines()]
of_nothing = [r for r in records if r["kind"] == "nothing"]
busiest = [1 + r["validation"]["max_vio"][-1] for r in of_nothing]
print("trained without balance: the last layer's busiest expert gets, over its share,")
print(*(f"{x:.1f}" for x in busiest), f"times ({len(busiest)} seeds)")
v3 = dm.Config.preset("deepseek-v3")
n_biases = (v3.n_layers - v3.n_dense_layers) * v3.moe.n_routed_experts
print(f"V3 has {n_biases:,} biases")
assert n_biases == 14_848 and min(busiest) > 3

# %% [markdown]
# ## By hand: who moves which way
#
# Every expert $i$ gets a **bias** $b_i$, zero at first. After a step of training, count
# the **load** $c_i$, the number of tokens that chose expert $i$, and compare it with the
# mean $\bar c$. With a fixed **speed** $\gamma$ (gamma):
#
# $$b_i \leftarrow b_i + \gamma\, \mathrm{sign}(\bar c - c_i).$$
#
# Four experts have the loads 6, 1, 1, 0. The mean is 2, so the first bias goes down by
# $\gamma$ and the other three go up by $\gamma$. The first is 4 too high and the second
# 1 too low; only the sign counts. An expert with exactly the mean load stays.
#
# A token's **scores** are sigmoids now, $s_i = \sigma(u \cdot e_i)$ with its vector $u$,
# the gate's vector $e_i$ for expert $i$ (lesson 08) and $\sigma(z) = 1 / (1 + e^{-z})$.
# The $K$ experts with the highest $s_i + b_i$ are chosen. They are weighed with the scores
# *alone*, divided by their sum and multiplied by a constant, V3's `route_scale` of 2.5:
#
# $$g_i = 2.5 \cdot \frac{s_i}{\sum_{j\ \text{chosen}} s_j}.$$
#
# | expert | 0 | 1 | 2 | 3 |
# |---|---|---|---|---|
# | score $s$ | 0.8 | 0.6 | 0.4 | 0.3 |
# | bias $b$ | −0.3 | 0 | +0.3 | 0 |
# | $s + b$ | 0.5 | **0.6** | **0.7** | 0.3 |
# | weight | | 1.5 | 1.0 | |
#
# Two are chosen, 1 and 2. Expert 2 has the highest sum and still the smaller weight:
# $2.5 \cdot 0.4 / (0.6 + 0.4) = 1$.
#
# ## In NumPy

# %%
def sigmoid(x):
    return 1 / (1 + np.exp(-x))  # as x


def choose(ranked, K):
    return np.argsort(-ranked, axis=1, kind="stable")[:, :K]  # [N, K]


def weigh(scores, chosen, scale):
    weights = np.take_along_axis(scores, chosen, axis=1)  # [N, K]: no bias here
    return scale * weights / weights.sum(axis=1, keepdims=True)  # [N, K]


def updated(bias, load, speed):
    return bias + speed * np.sign(load.mean() - load)  # [E]


loads = np.array([6, 1, 1, 0])  # [E]
print("moves, in units of the speed:", *updated(np.zeros(4), loads, 1.0))
scores = np.array([[0.8, 0.6, 0.4, 0.3]])  # [N, E]
bias = np.array([-0.3, 0, 0.3, 0])  # [E]
chosen = choose(scores + bias, K=2)  # [N, K]
weights = weigh(scores, chosen, scale=2.5)  # [N, K]
print("chosen:", *chosen[0], "  weights:", *weights[0].round(6))
assert chosen.tolist() == [[2, 1]] and np.allclose(weights, [[1.0, 1.5]])

# %% [markdown]
# ## A thermostat with its room
#
# A thermostat knows one thing: too cold or too warm. Here is the bias at work, with
# nothing else that could learn: eight experts, two for a token, 512 fresh tokens a step.
# Tokens draw their products at random, but the experts are skewed for good: the first
# is liked by nearly all tokens, the last by nearly none.

# %%
SKEW = np.linspace(1.5, -1.5, 8)  # [E]: what the products have in common


def simulate(speed, steps=400, n_tokens=512, schedule=lambda share: 1.0):
    rng = np.random.default_rng(0)
    bias, biases, loads = np.zeros(8), [], []
    for step in range(steps):
        scores = sigmoid(SKEW + rng.normal(size=(n_tokens, 8)))  # [N, E]
        load = np.bincount(choose(scores + bias, 2).ravel(), minlength=8)  # [E]
        bias = updated(bias, load, speed * schedule(step / steps))  # [E]
        biases.append(bias)
        loads.append(load / load.mean())
    return np.array(biases), np.array(loads)  # [steps, E] each


def uneven(loads):
    return (loads.max(axis=-1) - 1).mean()  # MaxVio, mean over the steps


biases, loads = simulate(speed=0.005)
print("MaxVio of the first 10 steps above 1.5:", bool(uneven(loads[:10]) > 1.5))
print("MaxVio of the last 100 below 0.2:", bool(uneven(loads[-100:]) < 0.2))
assert uneven(loads[:10]) > 1.5 and uneven(loads[-100:]) < 0.2

# %%
alt = """Two panels over 400 steps, a line for each of 8 experts. The biases fan out in
straight lines from zero and then stay level, the most liked expert's lowest. The loads
start between 0 and nearly 3 times the mean and meet at 1 after about 60 steps."""


def draw_thermostat(fig, speed):
    biases, loads = simulate(speed)
    axes = fig.subplots(1, 2)
    colors = [PALETTE[0] if skew > 0 else PALETTE[1] for skew in SKEW]
    for ax, lines in zip(axes, (biases, loads)):
        for i, color in enumerate(colors):
            light = 0.35 + 0.65 * abs(SKEW[i]) / 1.5
            ax.plot(lines[:, i], color=color, alpha=light, lw=1, ls="-")
        ax.set(xlabel="step", xlim=(0, 400 if speed < 0.02 else 60))
    axes[0].set(ylabel="bias")
    axes[1].set(ylabel="load / mean", ylim=(-0.1, 4.1))
    axes[1].axhline(1, color="black", lw=1, ls="-")


with figure(alt, size=(9, 3.2)) as fig:
    draw_thermostat(fig, 0.005)
    for ax, title in zip(fig.axes, ("the thermostat: biases", "the room: loads")):
        ax.set_title(title)

# %% [markdown]
# Nobody told the bias how skewed the experts are. It walks until the loads agree, and
# then steps up and down around that place. Blue experts are liked more than average,
# orange ones less.
#
# **Predict**: what if $\gamma$ is ten times smaller? Fifty times larger? (Large speeds
# are drawn for the first 60 steps only.)

# %%
from deepseek_mini.lesson import Choice, settings_figure, slider_figure

SPEEDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25)
widget = slider_figure(
    draw_thermostat,
    alt="Biases and loads of eight experts over 400 steps, with speed {speed}.",
    size=(9, 3),
    speed=Choice(SPEEDS, start=0.005, label="speed γ"),
)
end = {speed: uneven(simulate(speed)[1][-100:]) for speed in (0.0005, 0.005, 0.25)}
print("MaxVio over the last 100 steps")
print("γ = 0.0005, too small, on its way: above 0.5", bool(end[0.0005] > 0.5))
print("γ = 0.005, settled:                below 0.2", bool(end[0.005] < 0.2))
print("γ = 0.25, too large, oscillating:  above 1.0", bool(end[0.25] > 1))
assert end[0.0005] > 0.5 and end[0.005] < 0.2 and end[0.25] > 1

# %%
def draw_loads(fig, speed):
    ax = fig.subplots()
    steps, window = (400, 10) if speed < 0.02 else (20, 1)
    loads = simulate(speed)[1][:steps].reshape(-1, window, 8).mean(axis=1)
    for i in (0, 2, 5, 7):  # eight lines would hide each other
        color = PALETTE[0] if SKEW[i] > 0 else PALETTE[1]
        ax.plot(np.arange(0, steps, window), loads[:, i], color=color, lw=1, ls="-")
    ax.axhline(1, color="black", lw=1, ls="-")
    ax.set(xlabel="step", ylabel="load / mean", ylim=(-0.1, 4.1))


settings_figure(
    draw_loads,
    {f"γ = {speed}": {"speed": speed} for speed in (0.0005, 0.05, 0.25)},
    alt="""Loads of four of the experts for three speeds. 0.0005: after 400 steps, in
    means of ten, they are still on their way. 0.05, first 20 steps: they arrive within
    six and tremble. 0.25, first 20 steps: they swing between 0 and 3.""",
    size=(9, 2.6),
)

# %% [markdown]
# A large $\gamma$ arrives sooner and trembles more: tokens on the edge change sides, all
# at once. V3 keeps $\gamma$ at 0.001 for 14.3 of its 14.8 trillion
# tokens and then sets it to 0. **Predict**: does that calm a room that trembles?

# %%
SCHEDULES = {
    "kept": lambda share: 1.0,
    "set to 0 after half the steps": lambda share: float(share < 0.5),
    "falling to 0 in a line": lambda share: 1 - share,
}
for speed, bound in ((0.1, 0.3), (0.005, 0.2)):
    for name, schedule in SCHEDULES.items():
        last = uneven(simulate(speed, schedule=schedule)[1][-100:])
        print(f"γ = {speed:5}, {name:29} MaxVio below {bound}: {last < bound}")
        assert (last < bound) == (speed == 0.005 or "line" in name)

# %% [markdown]
# No: switching off a large $\gamma$ keeps the error of the last step; only a falling one
# finds the place. Where $\gamma$ is small already, what is left is the chance of 512
# tokens. V3's switch is of this kind: 0.001 is small against scores between 0 and 1. It
# ends the stepping; it does not improve the place.
#
# ## All biases at once
#
# **Predict**: add 0.7 to all biases of a gate. Which tokens go elsewhere? Which weights
# change? And with groups?
#
# First the groups (lesson 10 says why a token may only go to some devices). In V2 a
# **group** of experts is worth its best score, in V3 the sum of its two best, scores plus
# biases. For two groups of two with (0.9, 0.1) and (0.6, 0.5), V2 prefers the first, V3
# the second: a token must find its eight experts in four of eight groups, so one
# brilliant expert alone is not enough. Experts of the other groups are set to $-\infty$.

# %%
def limit(ranked, n_groups, n_limited):
    groups = ranked.reshape(len(ranked), n_groups, -1)  # [N, G, E / G]
    worth = np.sort(groups, axis=-1)[..., -2:].sum(axis=-1)  # [N, G]
    kept = choose(worth, n_limited)  # [N, limited]
    out = np.ones_like(worth, dtype=bool)  # [N, G]
    np.put_along_axis(out, kept, False, axis=1)
    return np.where(out[..., None], -np.inf, groups).reshape(ranked.shape)  # [N, E]


def gate(u, centroids, bias, part):
    scores = sigmoid(u @ centroids.T)  # [N, E]
    ranked = limit(scores + bias, part.n_groups, part.n_limited_groups)  # [N, E]
    chosen = choose(ranked, part.n_activated_experts)  # [N, K]
    return scores, chosen, weigh(scores, chosen, part.route_scale)


four = np.array([[0.9, 0.1, 0.6, 0.5]])  # [N, E]
print("two groups, one allowed:", *limit(four, 2, 1)[0])
rng = np.random.default_rng(0)
u, centroids, bias = (rng.normal(size=s) for s in ((50, 12), (16, 12), 16))
for n_groups, n_limited in ((1, 1), (4, 2)):
    part = MoE(16, 1, 4, 8, "sigmoid", True, n_groups, n_limited, True, 2.5)
    before = gate(u, centroids, bias, part)
    for shift in (0.7, -40):
        after = gate(u, centroids, bias + shift, part)
        same = all(np.allclose(a, b) for a, b in zip(after, before))
        print(f"groups {n_groups}: all biases {shift:+}: the same output: {same}")
        assert same
assert np.isneginf(limit(four, 2, 1)[0, :2]).all()

# %% [markdown]
# Nothing changes. Both sides of every comparison rise alike, and the weights never see
# the bias. So only differences between biases mean anything, and a common drift is
# harmless. ($-\infty$ is needed for this: with V2's 0 in its place, biased scores below
# zero would lose against the experts that are out of reach.)
#
# ## In PyTorch
#
# The gate, and what the training loop does after the optimiser's step:

# %%
from deepseek_mini.model.moe import Gate, Routing
from deepseek_mini.training.balance import sequence_loss, update_bias
from deepseek_mini.training.step import update_biases

show(Gate.__init__, Gate.forward, Gate._limit, docstrings=False)

# %%
show(update_bias, update_biases, docstrings=False)

# %% [markdown]
# Three things to notice. `chosen` comes from `ranked`, with the bias, and `weights` from
# `scores`, without: this is what people get wrong. `requires_grad=False` keeps the bias
# out of the optimiser, and so out of weight decay. And the update comes *after* the
# step, with the load of the whole batch.
#
# ## The loss that V3 keeps
#
# Even over a batch is not even within a text: one sequence could use two experts and
# the next one two others. V3 adds a balance loss for each sequence, with a factor so
# small, $\alpha = 0.0001$, that it only prevents extremes. It is lesson 08's $\sum f_i
# P_i$ over the $T$ tokens of one sequence, with sigmoids first divided by their sum:
#
# $$s'_{i,t} = \frac{s_{i,t}}{\sum_j s_{j,t}}, \qquad P_i = \frac1T \sum_t s'_{i,t},
# \qquad f_i = \frac{E}{K T} \cdot \#\{t : i \text{ among the } K \text{ largest }
# s_t\}.$$
#
# (The # counts tokens, and $s_t$ are all scores of token $t$.)
# By hand: $T = 2$, $E = 2$, $K = 1$, scores $(0.6, 0.2)$ and $(0.9, 0.1)$. Normalised
# they are $(0.75, 0.25)$ and $(0.9, 0.1)$, so $P_0 = 0.825$. Both choose expert 0:
# $f = (2, 0)$, and the loss is 1.65.

# %%
def sequence_balance(scores, K):
    B, T, E = scores.shape
    P = (scores / scores.sum(-1, keepdims=True)).mean(axis=1)  # [B, E]
    best = np.argsort(-scores, axis=-1)[..., :K].reshape(B, -1)  # [B, T K]
    counts = np.stack([np.bincount(row, minlength=E) for row in best])  # [B, E]
    return (counts * E / (K * T) * P).sum(axis=-1).mean()


two = np.array([[[0.6, 0.2], [0.9, 0.1]]])  # [B, T, E]
by_hand = sequence_balance(two, K=1)
print(f"sequence-wise loss by hand: {by_hand:.2f}")
apart = np.array([[[0.9, 0.1]] * 4, [[0.1, 0.9]] * 4])  # [B, T, E]: two texts
together = apart.reshape(1, 8, 2)  # [B, T, E]: as if they were one
print("two texts, each with an expert of its own:", end=" ")
print(f"sequence by sequence {sequence_balance(apart, 1):.2f},", end=" ")
print(f"over the batch {sequence_balance(together, 1):.2f}")
assert np.isclose(by_hand, 1.65) and np.isclose(sequence_balance(together, 1), 1)

# %% [markdown]
# ## The ladder
#
# The module against NumPy, with and without groups. Then all of `deepseek-v3-mini`
# (without multi-token prediction, which is lesson 12) against `transformers`'
# DeepSeek-V3, through a saved folder. **The biases are drawn at random** too: with zeros
# nobody could see whether someone adds them to the weights.

# %%
import tempfile

from transformers import DeepseekV3ForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()


def randomised(module, seed=0):
    """Matrices N(0, 0.6² / columns), norms 1 + N(0, 0.3²), biases N(0, 0.3²)."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in module.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        around = 0.3 * noise + (0 if name.endswith("bias") else 1)
        p.data = noise * 0.6 / p.shape[-1] ** 0.5 if p.ndim > 1 else around
    return module.eval()


def as_transformers(model):
    with tempfile.TemporaryDirectory() as folder:
        dm.save(model, folder)
        how = {"experts_implementation": "eager", "attn_implementation": "eager"}
        return DeepseekV3ForCausalLM.from_pretrained(folder, **how).float().eval()

# %%
by_hand = np.array([[1.0, 1.5]])  # [N, K]
rungs = [("by hand: weights of experts 2 and 1", weights, by_hand, 1e-12)]
x = torch.randn(60, 12)  # [N, D]
for groups in ((1, 1), (4, 2)):
    part = MoE(16, 1, 4, 8, "sigmoid", True, *groups, norm_topk=True, route_scale=2.5)
    module = randomised(Gate(12, part))
    ours = [p.detach().double().numpy() for p in (x, module.weight, module.bias)]
    scores, chosen, weights = gate(*ours, part)
    r, said = module(x), f"{groups[1]} of {groups[0]} groups"
    rungs += [
        (f"gate, {said}: chosen = NumPy", r.chosen, chosen, 0),
        (f"gate, {said}: weights = NumPy", r.weights, weights, 1e-5),
    ]
load = r.load.numpy()  # [E]
moved = module.bias.detach().clone()  # [E]
update_bias(moved, r.load, speed=0.001)
in_numpy = sequence_balance(scores.reshape(3, 20, 16), K=4)
in_torch = sequence_loss(r.scores, n_rows=3, n_activated=4).detach()
rungs += [
    ("the moved bias = NumPy", moved, updated(ours[2], load, 0.001), 1e-6),
    ("sequence-wise loss = NumPy", in_torch, in_numpy, 1e-5),
]
ladder("Gate, update and loss", rungs)

# %%
mini = replace(dm.Config.preset("deepseek-v3-mini"), mtp=None)
model = randomised(dm.Transformer(mini))
tokens = torch.randint(mini.vocab_size, (2, 40))  # [B, T]
theirs = as_transformers(model)
with torch.no_grad():
    logits, want = model(tokens), theirs(tokens).logits  # [B, T, V]
    with dm.paths(moe="loop", attention="naive"):
        readable = model(tokens)  # [B, T, V]
    cache = model.new_cache(2)
    pieces = [model(piece, cache=cache) for piece in tokens.split((23, 1, 16), dim=1)]
    gates = [layer.ffn.gate for layer in model.layers[1:]]
    for g in gates:
        g.bias += 0.7
    shifted = model(tokens)  # [B, T, V]
    for g in gates:
        g.bias -= 0.7
ladder("deepseek-v3-mini, random weights and biases", [
    ("whole model = transformers", logits, want, 1e-4),
    ("readable paths = fast paths", readable, logits, 1e-5),
    ("cached, in pieces 23 1 16 = whole", torch.cat(pieces, dim=1), logits, 1e-5),
    ("all biases + 0.7 = as before", shifted, logits, 1e-5),
])

# %% [markdown]
# ## How people get it wrong
#
# **The bias in the weights.** `scores = scores + bias` once, at the top. Shapes agree,
# and while all biases are zero, so does every number.
#
# **The bias that receives a gradient.** It is a parameter, so why not let it learn? A
# choice has no gradient, so the bias gets one only if it is in the weights as well. Then
# the gradient asks: would the loss fall if this expert weighed more? That is a question
# about language. The load does not occur in it.
#
# **Predict**: both train for 80 steps, beside the right one and one without balance.
# Whose loss falls? Whose load is even?

# %%
from deepseek_mini.data import pack, python_code
from deepseek_mini.training import TrainConfig, train
from deepseek_mini.training.balance import Balance

text = pack(python_code(), dm.Tokenizer.small(), seq_len=96)
small = replace(mini, n_layers=3)
right_gate, V3_WAY = Gate.forward, Balance(bias_speed=0.01, sequence_loss=1e-4)


def bias_in_weights(self, x):
    biased = torch.sigmoid(x @ self.weight.T) + self.bias  # [N, E]
    ranked = self._limit(biased) if self.part.n_groups > 1 else biased
    chosen = ranked.topk(self.part.n_activated_experts).indices  # [N, K]
    weights = biased.gather(1, chosen)  # [N, K]
    weights = weights / weights.sum(-1, keepdim=True) * self.part.route_scale
    return Routing(torch.sigmoid(x @ self.weight.T), chosen, weights)


def trained(balance=V3_WAY, forward=right_gate, learned=False, steps=80):
    torch.manual_seed(0)
    model = dm.Transformer(small)
    for layer in model.layers[1:]:
        layer.ffn.gate.bias.requires_grad_(learned)
    recipe = TrainConfig(steps=steps, balance=balance, eval_every=steps)
    try:
        Gate.forward = forward
        rows = train(model, text, recipe, progress=False).history
    finally:
        Gate.forward = right_gate
    loads = np.array([row["load"] for row in rows], dtype=float)  # [steps, layers, E]
    return model, rows, loads

# %%
runs = {
    "no balance": trained(Balance()),
    "bias": trained(),
    "bias, in the weights too": trained(forward=bias_in_weights),
    "bias, learned by gradient": trained(Balance(), bias_in_weights, learned=True),
}
late = {}
for name, (_, rows, loads) in runs.items():
    summed = loads[-40:].sum(axis=0)  # [layers, E]
    late[name] = uneven(summed / summed.mean(axis=-1, keepdims=True))
    fell = rows[-1]["loss"] < rows[0]["loss"] - 1.5
    print(f"{name:26} loss fell by 1.5: {fell}", end="   ")
    print(f"MaxVio of 40 steps together below 0.6: {late[name] < 0.6}")
    assert fell and (late[name] < 0.6 or late[name] > 1.2)
with torch.no_grad():
    Gate.forward = bias_in_weights
    wrong = error(model(tokens), want) < 1e-4
    Gate.forward = right_gate
print("with the bias in the weights the whole model = transformers:", wrong)
balanced = [name for name in runs if late[name] < 0.6]
assert balanced == ["bias", "bias, in the weights too"] and not wrong

# %% [markdown]
# The first bug is balanced, too: only the comparison on random biases tells it from V3.
# The second ends as uneven as no balance at all. (Exercise 11.5 builds a gate that has
# neither.)
#
# **One sign for each piece.** When a batch goes through the model in pieces, the update
# is tempting after every piece. But signs do not add up as loads do. Let an expert get
# 5, 1, 1 and 1 tokens of four pieces, where 2 would be the mean of each.

# %%
pieces = np.array([5, 1, 1, 1])  # [pieces]: loads of one expert, mean load 2 in each
each = np.sign(2 - pieces)
whole = np.sign(2 * 4 - pieces.sum())
print("moves after each piece:", *each, end="; ")
print(f"in all: {each.sum()}; once, at the end: {whole}")
assert each.sum() == 2 and whole == 0

# %% [markdown]
# The expert had exactly its share, and went up by $2\gamma$. Worse, a layer that is
# computed a second time in the backward pass, to save memory, would choose other experts
# than it did the first time.
#
# ## Does it matter?
#
# The script `experiments/11_bias_balancing.py` trained this small model (two sparse
# layers, 16 experts, 4 for a token) in four ways: with **nothing** that balances; with
# lesson 08's balance loss, $\alpha$ = **0.001** and **0.01**; and with the **bias**,
# $\gamma = 0.01$ and 0 at the very end, and the sequence-wise loss. In a seed, all four
# start from the same weights and read the same text; the gate is V3's in all. MaxVio is
# of 64 windows of validation text together, mean of both layers; it can be at most
# $16/4 - 1 = 3$.
#
# **Predict**: which is the most even? And which predicts text best?

# %%
KINDS = ("nothing", "loss 0.001", "loss 0.01", "bias")
by_kind = {k: sorted((r for r in records if r["kind"] == k), key=lambda r: r["seed"])
           for k in KINDS}  # fmt: skip
n_seeds = min(map(len, by_kind.values()))
by_kind = {kind: rs[:n_seeds] for kind, rs in by_kind.items()}
minutes = sum(r["train_seconds"] for r in records) / 60
print(f"{head['hardware']}, torch {head['torch']}, {head['date']}")
print(f"{dm.count(small, seq_len=96).parameters:,} parameters,", end=" ")
print(f"{head['steps']} steps, {n_seeds} seeds,", end=" ")
assert n_seeds == 5
print(f"{minutes:.0f} minutes of processor time")
vio = {k: np.array([np.mean(r["validation"]["max_vio"]) for r in rs])
       for k, rs in by_kind.items()}  # fmt: skip
bits = {k: np.array([r["validation"]["bits_per_byte"] for r in rs])
        for k, rs in by_kind.items()}  # fmt: skip
print("            MaxVio of validation text       bits per byte, and less nothing")
for kind in KINDS:
    less = bits[kind] - bits["nothing"]
    print(f"{kind:11}", *(f"{x:5.2f}" for x in vio[kind]), end="    ")
    print(f"{bits[kind].mean():.3f}", *(f" {x:+.3f}" for x in less))

# %%
alt = """Two panels. MaxVio of ten steps over the training, mean of seeds and layers:
all rise at first. Without balance it stays above 1.5, with the weak loss above 1; with
the strong loss it falls to about 0.4, with the bias within 80 steps to 0.2 or less.
Bits per byte: four dots for every seed, joined by a line; the lines cross."""
with figure(alt, size=(10, 3.6)) as fig:
    left, right = fig.subplots(1, 2)
    for kind in KINDS:
        curves = np.array([r["max_vio"] for r in by_kind[kind]]).mean(axis=(0, 2))
        left.plot((np.arange(len(curves)) + 1) * head["window"], curves, label=kind)
    left.axhline(3, color="black", lw=1, ls="-")
    left.set(xlabel="step", ylabel="MaxVio of ten steps", ylim=(0, 3.2))
    left.legend(ncol=2, loc="upper right", bbox_to_anchor=(1, 0.93))
    for s in range(n_seeds):
        right.plot(KINDS, [bits[k][s] for k in KINDS], "o-", lw=1, label=f"seed {s}")
    right.set(ylabel="validation bits per byte")
    right.legend(fontsize=8)

# %%
spread = max(bits["nothing"]) - min(bits["nothing"])
gaps = {k: bits[k] - bits["nothing"] for k in KINDS[1:]}
widest = max(np.abs(x).max() for x in gaps.values())
print("MaxVio, in every seed: bias below every loss:", bool(
    all((vio["bias"] < vio[k]).all() for k in KINDS[:3])))  # fmt: skip
print("bits per byte: all within 0.01 of nothing:", bool(widest < 0.01))
print(f"seeds alone differ by {spread:.3f}, the ways by {widest:.3f} at most")
for kind, x in gaps.items():
    better = (x < 0).sum()
    print(f"{kind:10} better than nothing in {better} of {n_seeds} seeds", end=", ")
    print(f"mean {x.mean():+.4f}")
assert all((vio["bias"] < vio[k]).all() for k in KINDS[:3]) and widest < 0.01
left = {k: (vio[k] / vio["nothing"]).mean() for k in KINDS[1:]}
print("left of the MaxVio without balance:", *(f"{k} {x:.0%}" for k, x in left.items()))

# %% [markdown]
# **Balance**: the bias is the most even in all five seeds. The weak loss leaves about
# two thirds of the imbalance, the strong one a fifth, and the bias less than a tenth.
#
# **Quality**: nothing to see. Every way is within 0.01 bits per byte of no balance in
# all five seeds, above it in some and below it in others, while the seeds alone lie 0.02
# apart. At this size no way costs or gains anything that can be measured: the reason for
# V3's change, a loss that disturbs the language, is not visible, nor is a harm from
# having no balance. The papers report better text from the bias at 1 and 3 billion
# parameters (2408.15664, §4) and at 16 and 229 billion (V3, §4.5.2). V3 also reports
# (§4.5.3) that a loss counted over a *batch*, as our two are, does about as well as the
# bias; what lost there was a strong loss in every sequence.
#
# Our $\gamma = 0.01$ is ten times V3's: in 400 steps a bias at 0.001 could not travel
# further than 0.4.
#
# The biases of one run. **Predict**: do as many go up as down?

# %%
run = by_kind["bias"][0]
path = np.array(run["bias"])  # [windows, E]
alt = """Biases of the 16 experts of the last layer over 400 steps. They fan out within
the first 50 steps, up and down by one or two tenths. Then nearly all drift upwards."""
with figure(alt, size=(8, 3)) as fig:
    ax = fig.subplots()
    steps = (np.arange(len(path)) + 1) * head["window"]
    for i, line in enumerate(path.T):
        ax.plot(steps, line, color=PALETTE[i % len(PALETTE)], lw=1, ls="-")
    ax.set(xlabel="step", ylabel="bias, last layer")
width = path[-1].max() - path[-1].min()
still = bool((path[-1] == path[-2]).all())
print(f"highest less lowest bias at the end: {width:.2f}; still at the end: {still}")
print("mean of all biases at the end above 0.1:", bool(path[-1].mean() > 0.1))
assert still and width > 0.05 and path[-1].mean() > 0.1

# %% [markdown]
# More go up. When a few experts are far too busy, most others are below the mean, and
# every sign counts alike. So all drift together, which is harmless.
#
# The runs in this notebook had 80 steps. Do they point the same way as the log?

# %%
print("80 steps: MaxVio with the bias is less than half of that without:", end=" ")
print(bool(late["bias"] < late["no balance"] / 2))
assert late["bias"] < late["no balance"] / 2
losses = [runs[k][1][-1]["val_loss"] for k in ("no balance", "bias")]
print("and the validation losses within 0.1 nats:", abs(losses[0] - losses[1]) < 0.1)
assert abs(losses[0] - losses[1]) < 0.1

# %% [markdown]
# ## At full size
#
# V3 has 61 layers, the first three dense. Each of the other 58 has 256 experts, 8 for a
# token, out of 4 of 8 groups. (Training as in the paper, §4.2: 4,096 tokens a sequence,
# 15,360 sequences a step once the batch has grown.)

# %%
layers, E, K = v3.n_layers - v3.n_dense_layers, 256, v3.moe.n_activated_experts
assert (layers, v3.moe.n_routed_experts, v3.moe.route_scale) == (58, E, 2.5)
share = n_biases / dm.count(v3).parameters
print(f"{layers} layers x {E} = {n_biases:,} biases, {share:.0e} of all parameters")
print(f"beside {layers * E * v3.dim:,} numbers in the gates themselves")
tokens_a_step = 15_360 * 4_096
print(f"tokens a step: {tokens_a_step / 1e6:.0f} million,", end=" ")
print(f"mean load of an expert: {tokens_a_step * K / E / 1e6:.1f} million")
steps = 14.3e12 / tokens_a_step
print(f"14.3 T tokens are at least {steps:,.0f} steps:", end=" ")
print(f"at γ = 0.001 a bias could travel {0.001 * steps:.0f};", end=" ")
print("scores differ by less than 1")
small_mean = 4 * 96 * 4 / 16
print(f"mean load in our small model: {small_mean:.0f}")
print("chance alone, in one standard deviation of an expert's load:", end=" ")
for mean in (small_mean, tokens_a_step * K / E):
    print(f"{mean**-0.5:.2%}", end="  ")
print()
assert small_mean == 96 and round(steps, -3) == 227_000

# %% [markdown]
# Here lies a difference that no config shows. V3 counts two million tokens for an
# expert before it moves a bias, we count about a hundred: in a step of ours an expert is
# 10% off by luck alone. So we report MaxVio of many steps or of a whole validation text,
# and so should you.
#
# What balance is worth on many GPUs, where all wait for the busiest, one processor
# cannot show. V3 reports that it drops no token, in training or after.
#
# ## What this proves, and what it does not
#
# - Proved: NumPy, the module and `transformers` choose and weigh alike with random
#   biases, with groups; NumPy and package move the bias and compute the sequence-wise
#   loss alike; a common shift of the biases changes nothing.
# - Shown, live: a bias in the weights trains and balances, and is another model; one that
#   learns by gradient does not balance.
# - Measured: 0.83 million parameters, 400 steps, five seeds, on code. The bias balances
#   best. No way of balancing differs from none in quality.
# - Not shown: that a balance loss harms, that experts specialise more without one (V3's
#   figure 9), or anything about speed.
#
# ## Exercises
#
# The [exercises](../exercises/11_bias_balancing.ipynb), about an hour: the thermostat, a
# gate that chooses with the bias and weighs without it, the limit to groups, the
# sequence-wise loss, and a module whose bias no gradient reaches. (After `make lab`, take
# your own copy in `work/`.)
#
# ## References
#
# - *DeepSeek-V3*, arXiv 2412.19437: §2.1.2 gate, bias and sequence-wise loss, §4.2 the
#   values, §4.5.2 and §4.5.3 the comparison. Its official `inference/model.py`, `Gate`.
# - L. Wang and others, *Auxiliary-Loss-Free Load Balancing*, arXiv 2408.15664: the
#   rule, MaxVio, other updates (with the magnitude, or a bias that multiplies).
# - D. Dai and others, *DeepSeekMoE*, arXiv 2401.06066, §3.3: the loss of lesson 08.

# ===== exercises =====
# %% [markdown]
# # 11 · Bias balancing: exercises
#
# Five exercises on lesson 11, about an hour in all. Write your answer where a cell
# raises `NotImplementedError`, run that cell and the one after it; `check` prints one
# line, and a hint when something is not right yet. What your function prints appears
# below the hint, for the inputs that failed. Every exercise has the formulas it needs
# and none needs another one: leave out what you like.
#
# `N` counts tokens, `E` experts, `K` experts for a token, `G` groups, `B` sequences of
# `T` tokens. The first three are in NumPy, float64; 11.4 and 11.5 are in PyTorch.

# %%
import numpy as np
import torch

from deepseek_mini.lesson import check, setup

setup(seed=0)

# %% [markdown]
# ## 11.1 The thermostat
#
# *One line, 5 minutes.* `load` [E] counts the tokens that chose each expert in a step.
# Return the new biases [E]; leave the old ones as they are.
#
# $$b_i \leftarrow b_i + \gamma\, \mathrm{sign}(\bar c - c_i)$$
#
# with the mean load $\bar c$ and $\gamma$ = `speed`. Loads are whole numbers, their mean
# need not be one. The sign of 0 is 0.
#
# By hand: loads 5, 2, 1, 0 have the mean 2. With biases 0.1, 0.2, 0.3, 0.4 and
# $\gamma = 0.01$ the new ones are 0.09, 0.2, 0.31, 0.41. Loads 4, 3, 2, 0 have the mean
# 2.25, and the new biases are 0.09, 0.19, 0.31, 0.41.

# %%
def moved_bias(bias: np.ndarray, load: np.ndarray, speed: float) -> np.ndarray:
    """The biases [E] after a step with these loads [E]."""
    ### BEGIN SOLUTION
    return bias + speed * np.sign(load.mean() - load)
    ### END SOLUTION

# %%
# To try it, take away the # of the next three lines. It should print
# [0.09, 0.2, 0.31, 0.41] and [0.09, 0.19, 0.31, 0.41]
# bias = np.array([0.1, 0.2, 0.3, 0.4])  # [E]
# for load in (np.array([5, 2, 1, 0]), np.array([4, 3, 2, 0])):  # [E] each
#     print(moved_bias(bias, load, 0.01).round(4).tolist())
check("11.1", moved_bias)

# %% [markdown]
# ## 11.2 Choose with it, weigh without it
#
# *A few lines, 12 minutes.* `scores` [N, E] are the sigmoid scores of N tokens, all
# positive, `bias` [E] the biases. Return the weights [N, E]: for every token
#
# $$g_i = \lambda\, \frac{s_i}{\sum_{j\ \text{chosen}} s_j} \ \text{ for the } K
# \text{ experts with the highest } s_i + b_i, \qquad g_i = 0 \ \text{ for all others},$$
#
# with $\lambda$ = `route_scale`. No two sums of a token are equal.
#
# By hand: biases −0.5, 0, 0.5, 0, $K = 2$ and $\lambda = 2.5$. A token with the scores
# 0.9, 0.6, 0.2, 0.3 chooses 1 and 2, whose scores add up to 0.8: its weights are 0,
# 1.875, 0.625, 0. One with the scores 0.8, 0.2, 0.1, 0.4 chooses 2 and 3: 0, 0, 0.5, 2.

# %%
def biased_gate(
    scores: np.ndarray, bias: np.ndarray, K: int, route_scale: float
) -> np.ndarray:
    """Weights [N, E], 0 where an expert was not chosen."""
    ### BEGIN SOLUTION
    ranked = scores + bias  # [N, E]
    limit = np.sort(ranked, axis=1)[:, -K, None]  # [N, 1]: the K-th highest
    kept = np.where(ranked >= limit, scores, 0.0)  # [N, E]
    return route_scale * kept / kept.sum(axis=1, keepdims=True)  # [N, E]
    ### END SOLUTION

# %%
# To try it, take away the # of the next three lines. It should print
# [[0.0, 1.875, 0.625, 0.0], [0.0, 0.0, 0.5, 2.0]]
# scores = np.array([[0.9, 0.6, 0.2, 0.3], [0.8, 0.2, 0.1, 0.4]])  # [N, E]
# bias = np.array([-0.5, 0, 0.5, 0])  # [E]
# print(biased_gate(scores, bias, 2, 2.5).round(4).tolist())
check("11.2", biased_gate)

# %% [markdown]
# ## 11.3 The limit to groups
#
# *Some thought, 15 minutes.* `ranked` [N, E] holds scores plus biases. An entry may be
# negative, and there is no bound below which it cannot be. The experts stand in `n_groups` groups of neighbours: with E = 6 and 2
# groups, experts 0, 1, 2 and 3, 4, 5. For each token:
#
# - a group is worth the sum of its two highest entries (it has at least two);
# - only the `n_limited` groups that are worth most are open;
# - the $K$ experts with the highest entries *in open groups* are chosen.
#
# Return which they are as a bool array [N, E], with $K$ times True for each token. There
# are no ties, and the open groups have at least $K$ experts.
#
# By hand: groups (0.9, 0.1, 0) and (0.6, 0.5, −0.2). They are worth 1.0 and 1.1, so with
# one open group it is the second. With $K = 3$ it is chosen whole, −0.2 included. A token
# with (−31, −32, −39) and (−33, −35, −34) has the first group open: it is worth −63.

# %%
def chosen_in_groups(
    ranked: np.ndarray, n_groups: int, n_limited: int, K: int
) -> np.ndarray:
    """bool [N, E]: the K experts of each token, out of its n_limited best groups."""
    ### BEGIN SOLUTION
    groups = ranked.reshape(len(ranked), n_groups, -1)  # [N, G, E / G]
    worth = np.sort(groups, axis=-1)[..., -2:].sum(axis=-1)  # [N, G]
    limit = np.sort(worth, axis=1)[:, -n_limited, None]  # [N, 1]
    is_open = (worth >= limit)[..., None]  # [N, G, 1]
    ranked = np.where(is_open, groups, -np.inf).reshape(ranked.shape)  # [N, E]
    chosen = np.argsort(-ranked, axis=1)[:, :K]  # [N, K]
    out = np.zeros(ranked.shape, dtype=bool)  # [N, E]
    np.put_along_axis(out, chosen, True, axis=1)
    return out
    ### END SOLUTION

# %%
# To try it, take away the # of the next three lines. It should print
# bool [[0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0]]
# ranked = np.array([[0.9, 0.1, 0, 0.6, 0.5, -0.2], [-31, -32, -39, -33, -35, -34]])
# chosen = chosen_in_groups(ranked, 2, 1, 3)  # [N, E]
# print(chosen.dtype, chosen.astype(int).tolist())
check("11.3", chosen_in_groups)

# %% [markdown]
# ## 11.4 The sequence-wise loss
#
# *Some thought, 13 minutes.* In PyTorch. `scores` [B, T, E] are the sigmoid scores of
# `B` sequences. Return V3's balance loss, without its factor $\alpha$, as a tensor with
# no axes, float32 or float64: the mean over the sequences of $\sum_i f_i P_i$, where for one sequence
#
# $$s'_{i,t} = \frac{s_{i,t}}{\sum_{j=1}^{E} s_{j,t}}, \qquad
# P_i = \frac1T \sum_{t=1}^{T} s'_{i,t}, \qquad
# f_i = \frac{E}{K T} \cdot \#\{t : s_{i,t} \text{ is among token } t\text{'s } K
# \text{ highest}\}.$$
#
# The gradient must reach the scores, through $P$ alone.
#
# By hand: one sequence of two tokens, three experts, $K = 2$, scores $(0.8, 0.5, 0.7)$
# and $(0.3, 0.15, 0.05)$. $s'$ is $(0.4, 0.25, 0.35)$ and $(0.6, 0.3, 0.1)$, so $P = (0.5,
# 0.275, 0.225)$. Expert 0 is chosen twice, 1 and 2 once: $f = (1.5, 0.75, 0.75)$, and the
# loss is 1.125. A second sequence has the scores $(0.15, 0.75, 0.6)$ both times and the
# loss 1.35; the mean is 1.2375.

# %%
def sequence_balance(scores: torch.Tensor, K: int) -> torch.Tensor:
    """Mean over the sequences of the sum of f P; scores [B, T, E]."""
    ### BEGIN SOLUTION
    T, E = scores.shape[1:]
    P = (scores / scores.sum(-1, keepdim=True)).mean(dim=1)  # [B, E]
    chosen = scores.topk(K).indices  # [B, T, K]
    counts = torch.nn.functional.one_hot(chosen, E).sum(dim=(1, 2))  # [B, E]
    return (counts * E / (K * T) * P).sum(-1).mean()
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines. It should print 1.125 and 1.2375
# one = torch.tensor([[0.8, 0.5, 0.7], [0.3, 0.15, 0.05]])  # [T, E]
# other = torch.tensor([[0.15, 0.75, 0.6], [0.15, 0.75, 0.6]])  # [T, E]
# for scores in (one[None], torch.stack((one, other))):  # [B, T, E]
#     print(round(float(sequence_balance(scores, 2)), 4))
check("11.4", sequence_balance)

# %% [markdown]
# ## 11.5 A bias that no gradient reaches
#
# *Build it from the paper, 15 minutes.* V3's gate as a PyTorch module, float32. With
# $D$ = `dim` and $E$ = `n_experts` a new one has
#
# - `weight` [E, D], which is learned: a row for each expert, drawn at random;
# - `bias` [E], zero at first. It is saved with the module, in `state_dict()`, but
#   `bias.requires_grad` is False, backward gives it no gradient, and no optimiser moves
#   it.
#
# `forward(x)` returns the weights [N, E] of the tokens `x` [N, D], those of 11.2: with
# $s_i = \sigma(x \cdot w_i)$, $w_i$ the rows of `weight`, a token gets the $K$ experts with
# the highest $s_i + b_i$, of which each weighs $\lambda s_i / \sum_{j\ \text{chosen}} s_j$;
# the others weigh 0. Through these weights a gradient reaches `weight`. `forward` leaves
# the bias as it is.
#
# `update(load, speed)` is called after the optimiser's step, with the `load` [E] of its
# batch, int64. It moves the module's own bias, as in 11.1: $b_i \leftarrow b_i + \gamma\,
# \mathrm{sign}(\bar c - c_i)$, with $c$ = `load` and $\gamma$ = `speed`.
#
# By hand: $D = 1$, $x = 1$, so that the rows of `weight` are the products. They are the
# logarithms of 4, 3/2, 2/3 and 3/7, and the scores 0.8, 0.6, 0.4 and 0.3. With the biases
# −0.3, 0, 0.3, 0, $K = 2$ and $\lambda = 2.5$ the weights are 0, 1.5, 1, 0. The second
# weight has the gradient 0, 0.24, −0.36, 0 by the rows of `weight`, and none by the biases. Loads 4,
# 3, 2, 0 and $\gamma = 0.01$ move these to −0.31, −0.01, 0.31, 0.01.

# %%
class BiasGate(torch.nn.Module):
    """V3's gate: the bias chooses, the scores weigh, the load moves the bias."""

    def __init__(self, dim: int, n_experts: int, K: int, route_scale: float):
        super().__init__()
        ### BEGIN SOLUTION
        self.K, self.route_scale = K, route_scale
        self.weight = torch.nn.Parameter(torch.randn(n_experts, dim) * dim**-0.5)
        self.register_buffer("bias", torch.zeros(n_experts))
        ### END SOLUTION

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Weights [N, E] of tokens x [N, D], 0 where an expert was not chosen."""
        ### BEGIN SOLUTION
        scores = torch.sigmoid(x @ self.weight.T)  # [N, E]
        chosen = (scores + self.bias).topk(self.K).indices  # [N, K]
        mask = torch.zeros_like(scores).scatter(1, chosen, 1.0)  # [N, E]
        kept = scores * mask  # [N, E]: no bias here
        return self.route_scale * kept / kept.sum(dim=1, keepdim=True)  # [N, E]
        ### END SOLUTION

    def update(self, load: torch.Tensor, speed: float) -> None:
        """Move the bias, by the load [E] of a step."""
        ### BEGIN SOLUTION
        self.bias += speed * torch.sign(load.float().mean() - load)
        ### END SOLUTION

# %%
# To try it, take away the # of the next lines, from gate on. It should print
# [0.0, 1.5, 1.0, 0.0] None False [0.0, 0.24, -0.36, 0.0]
# [-0.31, -0.01, 0.31, 0.01]
# gate = BiasGate(1, 4, 2, 2.5)
# gate.weight.data = torch.tensor([4, 3 / 2, 2 / 3, 3 / 7]).log()[:, None]  # [E, D]
# gate.bias.data = torch.tensor([-0.3, 0, 0.3, 0])  # [E]
# weights = gate(torch.ones(1, 1))  # [N, E]
# weights[0, 1].backward()
# gate.update(torch.tensor([4, 3, 2, 0]), 0.01)
# say = lambda x: [round(n, 4) + 0.0 for n in x.flatten().tolist()]
# print(say(weights), gate.bias.grad, gate.bias.requires_grad, say(gate.weight.grad))
# print(say(gate.bias))
check("11.5", BiasGate)

# %% [markdown]
# Next: [lesson 12](../notebooks/12_multi_token_prediction.ipynb), more than one token
# predicted from every position.
