# %% [markdown]
# # 06 · Pretraining: what a budget of compute buys
#
# Training DeepSeek's 67B took about $10^{24}$ operations. A processor core that does $5 \cdot 10^{10}$ a second would need more than 600,000 years, and nobody trains such a model twice to try another learning rate. Rate, batch, size and number of tokens were chosen from far smaller runs. How far can a small run be trusted?
#
# - **You will build** a measure of loss that does not depend on the tokenizer, three schedules, a training that can be continued at any length, and a scaling law, fitted to your own kind of models and tested on one that it has not seen.
# - **You need** lesson 05: the model, the loss of the next token, what $C = MD$ means.
# - **Time**: about 50 minutes, and 55 for the exercises.
# - **Paper**: DeepSeek-LLM, sections 2.3 and 3.

# %%
import copy
import json
import math
from importlib.resources import files

import numpy as np
import torch
from torch import nn

import deepseek_mini as dm
from deepseek_mini.lesson import PALETTE, error, figure, ladder, setup, show

setup(seed=0)


def flops_per_token(layers, width, length):
    """M: operations to train on one token, without embedding and head."""
    return 72 * layers * width**2 + 12 * layers * width * length


C_67B = flops_per_token(95, 8192, 4096) * 2.0e12
years = C_67B / 5e10 / (365 * 24 * 3600)
print(f"67B on 2 trillion tokens: {C_67B:.2e} operations, {years:,.0f} core years")
assert 9.9e23 < C_67B < 1e24 and years > 600_000

# %% [markdown]
# ## By hand: bits per byte
#
# Two models read the same ten bytes, `x = x + 1` and a newline, but cut them differently, so their losses per token cannot be compared:
#
# - Model A cuts `x`, ` =`, ` x`, ` + 1\n`, and gives these tokens the probabilities 1/2, 1/4, 1/8, 1/16.
# - Model B reads bytes, and gives each of the ten the probability 1/2.
#
# **Predict**: which model is better, and which has the lower loss per token?
#
# The loss of a token is $-\ln p$ **nats**. A bit is $\ln 2$ nats, so A pays $1 + 2 + 3 + 4 = 10$ bits and B pays $10 \cdot 1$. Both gave the whole text the probability $2^{-10}$. What they share is the bytes:
#
# $$\text{bits per byte} = \frac{\sum_\text{tokens} -\ln p}{\ln 2 \cdot \text{bytes of these tokens}}$$

# %%
text = "x = x + 1\n"
models = {
    "A": (["x", " =", " x", " + 1\n"], np.array([1 / 2, 1 / 4, 1 / 8, 1 / 16])),
    "B": (list(text), np.full(10, 1 / 2)),
}
for name, (tokens, p) in models.items():
    assert "".join(tokens) == text
    nats = -np.log(p)  # [T], one number a token
    per_byte = nats.sum() / np.log(2) / len(text.encode())
    print(f"{name}: {nats.mean():.2f} nats per token, {per_byte:.2f} bits per byte")
    assert np.isclose(per_byte, 1.0)

# %% [markdown]
# A's loss per token is two and a half times B's, and the models are equally good. From here on every validation loss is in bits per byte.
#
# ## The text, and how much of it there is
#
# Python's standard library, code and English: the language reference and the docstrings. Whole modules are held out for validation. A zip file shows what such a text costs without any model.

# %%
import zlib

from deepseek_mini.data import english, pack, python_code

tokenizer = dm.Tokenizer.small()
corpus = python_code() + english()
data = pack(corpus, tokenizer, seq_len=128)
n_bytes = sum(len(document.text.encode()) for document in corpus.train)
held_out = "".join(document.text for document in corpus.validation).encode()
zipped = 8 * len(zlib.compress(held_out, 9)) / len(held_out)
print("training text of 5 to 7 MB:               ", 5e6 < n_bytes < 7e6)
print("in tokens, between 2.0 and 2.5 million:   ", 2.0e6 < len(data.train) < 2.5e6)
print("bytes a token, between 2.4 and 3:         ",
      2.4 < n_bytes / len(data.train) < 3)
print("zip, between 1.8 and 2.2 bits per byte:   ", 1.8 < zipped < 2.2)

# %% [markdown]
# That is tiny: DeepSeek-LLM read a million times as much. `data.batch(step, rows, seed)` gives the windows of a step. An epoch is a shuffle of all of them, so no run below sees a window twice. (A docstring stands in its module's code and again among the English, but always on the same side of the split.)
#
# ## Schedules, in NumPy
#
# The learning rate rises in a straight line (**warmup**), and falls at the end. Three ways to fall, for `steps` steps; each returns the factor of the peak at every step:
#
# - **cosine**: half a wave from 1 to 0.1.
# - **multi-step**, DeepSeek-LLM's: 1 until 80% of the steps, 0.316 until 90%, then 0.1.
# - **warmup-stable-decay** (WSD, from MiniCPM): 1 until 90%, then exponentially to 0.1.

# %%
def with_warmup(rate, warmup):
    t = np.arange(len(rate))  # [steps]
    return np.where(t < warmup, (t + 1) / warmup, rate)  # [steps]


def cosine(steps, warmup):
    done = (np.arange(steps) - warmup) / (steps - warmup)  # [steps]
    return with_warmup(0.1 + 0.45 * (1 + np.cos(np.pi * done)), warmup)  # [steps]


def multi_step(steps, warmup):
    done = np.arange(steps) / steps  # [steps]
    rate = np.select([done >= 0.9, done >= 0.8], [0.1, 0.316], 1.0)  # [steps]
    return with_warmup(rate, warmup)  # [steps]


def wsd(steps, warmup):
    done = np.arange(steps) / steps  # [steps]
    return with_warmup(0.1 ** np.maximum(0, 10 * done - 9), warmup)  # [steps]


# %%
alt = """The factor of the learning rate over the steps, for a training of 1,000 steps
and one of 2,000. The two cosines part after the warmup. The two multi-step curves and
the two WSD curves are the same until the shorter one begins to fall."""
with figure(alt, size=(9, 2.8)) as fig:
    for ax, schedule in zip(fig.subplots(1, 3, sharey=True), (cosine, multi_step, wsd)):
        for steps, color, ls in ((2000, PALETTE[0], "-"), (1000, PALETTE[1], "--")):
            ax.plot(schedule(steps, 50), color=color, ls=ls, label=f"{steps:,} steps")
        ax.set(title=schedule.__name__.replace("_", "-"), xlabel="step", ylim=(0, 1.1))
    fig.axes[0].set_ylabel("factor of the peak")
    fig.axes[1].legend(loc="lower left", fontsize=9)
for schedule in (cosine, multi_step, wsd):
    long, short = schedule(2000, 50), schedule(1000, 50)
    shared = int(np.argmax(long[:1000] != short))
    print(f"{schedule.__name__:10} the same for the first {shared} steps of 1,000")

# %% [markdown]
# This is the argument for the multi-step schedule. A cosine must know its end before it starts; a multi-step run of 1,000 is, for 80% of its way, the beginning of one of 2,000. Whoever keeps the checkpoint from just before the first drop can decide later to go on. Section 2.3 of the paper finds about the final loss of a cosine. Both claims are tested below.
#
# ## The loop
#
# The package's own: what happens in a step, and the optimiser. `loss_of` is the loss of the next token (lesson 05). `config.accumulate` cuts a batch into pieces of equally many rows when memory is short. The gradient is **clipped**: if its length, over all parameters together, exceeds 1, it is scaled down to 1. (`Measures` and `update_biases` come in lesson 11.)

# %%
from deepseek_mini.training import TrainConfig, evaluate, make_optimizer, train
from deepseek_mini.training import schedules
from deepseek_mini.training.losses import next_token_loss
from deepseek_mini.training.step import update

show(update, make_optimizer, docstrings=False)

# %% [markdown]
# ### A small model, live
#
# Two layers, 64 channels, 0.23 million parameters; 150 steps of 4 rows with 128 tokens each. Its matrices start from $N(0, 0.7^2/D)$, and its embedding from $N(0, 1)$; that the embedding starts so wide is the result of a failure, told below.

# %%
from deepseek_mini.config import GQA, Config, Rope, SwiGLU


def config(width, layers):
    return Config(
        vocab_size=1024, dim=width, n_layers=layers, max_seq_len=128,
        attention=GQA(n_heads=width // 16, n_kv_heads=width // 16, head_dim=16),
        dense=SwiGLU(inter_dim=round(width / 3) * 8),  # 12 width² parameters a block
        rope=Rope(theta=10_000.0, layout="half_split"),
        init_std=0.7 / width**0.5,
    )


def fresh(width, layers, seed=0):
    torch.manual_seed(seed)
    model = dm.Transformer(config(width, layers))
    model.embed.weight.data /= model.config.init_std  # from N(0, 1)
    return model


recipe = TrainConfig(steps=150, batch_size=4, lr=8e-3, schedule="multi-step",
                     warmup=20, eval_every=150, eval_windows=256)  # fmt: skip
model = fresh(64, 2)
before = evaluate(model, data, 32, 64)["val_bits_per_byte"]
result = train(model, data, recipe, progress=False)
after = result.validation[-1]["val_bits_per_byte"]
print(f"parameters: {sum(p.numel() for p in model.parameters()):,}")
print("before, above 3.5 bits per byte:", before > 3.5)
print("after, below 2.7:               ", after < 2.7)
assert before > 3.5 and after < 2.7

# %% [markdown]
# ## The ladder
#
# Four equalities hold this lesson up. The last is the argument above in its strictest form: a training that goes on *from a copy* of a checkpoint at 80%, with model and optimiser, ends with **exactly** the weights of one that was never interrupted. (The batch of a step depends on the seed and the step, and on nothing else.)

# %%
class Run:
    """A model in training that can be copied, and go on in two ways."""

    def __init__(self, width, layers, peak, seed=0):
        self.model = fresh(width, layers, seed)
        self.peak, self.seed, self.step = peak, seed, 0
        self.optimizer = make_optimizer(self.model, recipe)

    def copy(self):
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model)
        other.optimizer = make_optimizer(other.model, recipe)
        state = copy.deepcopy(self.optimizer.state_dict())
        other.optimizer.load_state_dict(state)
        return other

    def train(self, until, schedule):
        for step in range(self.step, until):
            for group in self.optimizer.param_groups:
                group["lr"] = self.peak * schedule(step)
            loss = next_token_loss(self.model, data.batch(step, 4, self.seed))
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
        self.step = until
        return self

    def bits(self):
        return evaluate(self.model, data, 32, 256)["val_bits_per_byte"]


def decayed(run, steps):
    """A copy, taken to `steps` by the multi-step schedule."""
    return run.copy().train(steps, lambda t: schedules.multi_step(t, steps, 20))


# %%
trunk = Run(64, 2, peak=8e-3).train(120, lambda t: schedules.constant(t, 120, 20))
short = decayed(trunk, 150)

with torch.no_grad():
    rows = next(iter(data.validation_batches(8, 8)))  # [B, T + 1]
    logits = model(rows[:, :-1]).double().numpy()  # [B, T, V]
log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))  # [B, T, V]
targets = rows[:, 1:].numpy()  # [B, T]
nats = -np.take_along_axis(log_p, targets[..., None], axis=-1).sum()
by_hand = nats / np.log(2) / np.array(tokenizer.byte_lengths())[targets].sum()

weights = []
for pieces in (1, 4):
    whole = TrainConfig(steps=2, batch_size=4, accumulate=pieces, eval_windows=1)
    tested = fresh(32, 2)
    train(tested, data, whole, progress=False)
    weights.append(torch.cat([p.detach().flatten() for p in tested.parameters()]))

names = ("cosine", "multi_step", "warmup_stable_decay")
table = [[getattr(schedules, n)(t, 500, 20) for t in range(500)] for n in names]
ours = [schedule(500, 20) for schedule in (cosine, multi_step, wsd)]
ladder("What pretraining rests on", [
    ("schedules: NumPy = package", np.array(ours), np.array(table), 1e-12),
    ("bits per byte: NumPy = evaluate", by_hand,
     evaluate(model, data, 8, 8)["val_bits_per_byte"], 1e-5),
    ("four pieces = one batch", weights[1], weights[0], 1e-4),
    ("continued = never interrupted", short.model.head.weight, model.head.weight, 0),
])

# %% [markdown]
# ## Does the schedule matter?
#
# First in large, from the log of `experiments/06_pretraining.py`: a model of 25 thousand parameters (without embedding and head), 200 steps, four peaks, three seeds, four ways to end. `line` falls straight from 1 to 0.1 over the last fifth.
#
# **Predict**: the rate of the multi-step schedule stays at the peak for four fifths of the training. Whose best peak is the higher one, its own or the cosine's?

# %%
log = files("deepseek_mini") / "assets/logs/06_pretraining.jsonl"
head, *records = [json.loads(line) for line in log.read_text().splitlines()]
print(f"{head['hardware']}, torch {head['torch']}, {head['date']}")
print(f"{head['seconds'] / 60:.0f} minutes of processor time")


def select(part, **wanted):
    """The runs of a part of the experiment, in the log's order."""
    return [r for r in records if {"part": part, **wanted}.items() <= r.items()]


def bits_of(part, **wanted):
    return np.array([r["bits_per_byte"] for r in select(part, **wanted)])


KINDS = ("constant", "cosine", "multi-step", "line")
PEAKS = sorted({r["peak"] for r in select("schedules")})
bits = np.array([[bits_of("schedules", schedule=kind, peak=peak) for peak in PEAKS]
                 for kind in KINDS])  # [kinds, peaks, seeds]
print("bits per byte: mean of three seeds (largest distance from it)")
print("peak      ", *(f"{peak:>15}" for peak in PEAKS))
for kind, of_kind in zip(KINDS, bits):
    each = (f"{x.mean():8.3f} ({abs(x - x.mean()).max():.3f})" for x in of_kind)
    print(f"{kind:10}", *each)

# %%
alt = """Validation bits per byte against the peak of the learning rate for four
schedules, with a point for each of three seeds. At low peaks the cosine is the worst
of all; at high peaks it is the best."""
with figure(alt, size=(7, 3.4)) as fig:
    ax = fig.subplots()
    for i, (kind, of_kind) in enumerate(zip(KINDS, bits)):
        place = np.arange(len(PEAKS)) + 0.06 * (i - 1.5)
        ax.plot(place, of_kind.mean(axis=1), color=PALETTE[i], ls="-", label=kind)
        for seed in range(3):
            ax.plot(place, of_kind[:, seed], ".", color=PALETTE[i])
    ax.set(xticks=range(len(PEAKS)), xticklabels=PEAKS, xlabel="peak learning rate")
    ax.set(ylabel="bits per byte")
    ax.legend(ncols=2)
best = {kind: x[x.mean(axis=1).argmin()] for kind, x in zip(KINDS, bits)}  # [seeds]
for kind in KINDS[1:]:
    gain = best["constant"] - best[kind]  # [seeds]
    print(f"{kind:10} at its best peak: {gain.mean():.3f} below constant, each seed",
          *(f"{x:.3f}" for x in gain))
behind = best["multi-step"] - best["cosine"]
print("multi-step behind the cosine in every seed:", (behind > 0).all())
print("at a peak of 0.016, ahead in every seed:   ", (bits[2, 1] < bits[1, 1]).all())
assert (behind > 0).all() and behind.max() < 0.04
assert (bits[2, 1] < bits[1, 1]).all() and PEAKS[1] == 0.016

# %% [markdown]
# **Notice** that each schedule has a best peak of its own. A cosine spends most of the training well below its peak, so it wants a higher one. At the same peak of 0.016 the multi-step schedule wins in every seed; each at its best, the cosine does, by 0.02 to 0.03 bits per byte. Whoever picks the peak picks the winner.
#
# So the paper's "about the same" is not quite what we find. The price is small, and the next section is about what it buys.
#
# ### What can be continued
#
# 200 steps are done, and there is text for 200 more. Four ways on:
#
# - **multi-step, continued**: from the checkpoint at 80%, which had not fallen yet: 160 of the 200 steps are kept.
# - **cosine, anew**: a cosine of 400 steps from the start. Nothing is kept.
# - **cosine, continued at its end**: 200 steps at a tenth of the peak. Everything is kept.
# - **cosine, restarted**: a second cosine from the final weights, up to the peak again. Everything is kept.

# %%
WAYS = ("multi-step, continued", "cosine, anew", "cosine, continued at its end",
        "cosine, restarted")  # fmt: skip
new_steps = {way: select("double", way=way)[0]["new_steps"] for way in WAYS}
second = {}  # way: its better peak, and the three seeds at it
for way in WAYS:
    tried = {peak: bits_of("double", way=way, peak=peak) for peak in (0.016, 0.032)}
    second[way] = min(tried.items(), key=lambda item: item[1].mean())
alt = """Bits per byte after 400 steps against the new steps that each way costs, three
seeds each."""
with figure(alt, size=(7, 3.2)) as fig:
    ax = fig.subplots()
    for way, mark, color in zip(WAYS, "osD^", PALETTE):
        ax.plot([new_steps[way]] * 3, second[way][1], mark, color=color, label=way)
    ax.set(xlabel="new steps, after the first 200", ylabel="bits per byte after 400")
    ax.set(xlim=(150, 450))
    ax.legend(fontsize=9)
for way, (peak, seeds) in second.items():
    each = " ".join(f"{x:.3f}" for x in seeds)
    print(f"{way:28} {new_steps[way]} new steps, peak {peak}:", end=" ")
    print(f"{each}  mean {seeds.mean():.3f}")

# %% [markdown]
# Going on from the checkpoint costs 60% of the steps of a new cosine, and its loss is 0.02 higher: the same gap as before, no new one. The two ways that keep all 200 steps of the cosine cost least, and end higher in every seed: a rate that has fallen once has to rise again, and what the decay had gained is lost on the way.
#
# The scaling law below uses just that: every length that we need is a short branch of one trunk.

# %%
cost = {way: seeds for way, (_, seeds) in second.items()}
assert (cost["cosine, anew"] < cost["multi-step, continued"]).all()
assert (cost["multi-step, continued"] < cost["cosine, restarted"]).all()
assert (cost["cosine, restarted"] < cost["cosine, continued at its end"]).all()

# %% [markdown]
# In small, live: 64 channels and 150 steps, the multi-step run of the ladder at a peak of 0.008, and a cosine at that peak and at twice that. Then the trunk, on to 300 steps.

# %%
def cosine_run(peak):
    run = Run(64, 2, peak)
    return run.train(150, lambda t: schedules.cosine(t, 150, 20)).bits()


stepped, low_peak = short.bits(), cosine_run(8e-3)
print("the same peak: multi-step is ahead:      ", stepped < low_peak - 0.01)
assert stepped < low_peak - 0.01

# %%
high_peak = cosine_run(16e-3)
print("twice the peak: the cosine is ahead:     ", high_peak < stepped - 0.01)
assert high_peak < stepped - 0.01

# %%
longer = decayed(trunk.copy().train(240, lambda t: 1.0), 300).bits()
print("continued to 300 steps, another 0.15 less:", longer < stepped - 0.15)
assert longer < stepped - 0.15

# %% [markdown]
# ## How people get it wrong
#
# **The schedule counts the pieces.** With accumulation, a step is several pieces, and one line at the wrong indentation moves the schedule at every piece. With four pieces the rate warms up in 5 steps, falls after 30 of 150, and rests at a tenth of the peak for the rest. Nothing crashes, and the loss falls.
#
# **The mean of means.** The pieces hold different numbers of tokens that count, as in chats or padded rows. Then a token in a short piece weighs more in the mean of the pieces' mean losses. This was in widely used training libraries until October 2024. (The package's own loop is safe because its windows are full.)

# %%
hasty = Run(64, 2, peak=8e-3)
hasty.train(150, lambda t: schedules.multi_step(min(4 * t, 149), 150, 20))
worse = hasty.bits() - stepped
print("schedule stepped at every piece: over 0.1 bits per byte worse:", worse > 0.1)


def gradient(rows, ends, mean_of_means):
    """Of the loss over the first ends[i] questions of each row, two rows a piece."""
    tested, total, whole = fresh(32, 2), 0.0, sum(ends)
    for piece in (slice(0, 2), slice(2, 4)):
        tokens, counted = rows[piece], torch.tensor(ends[piece])  # [2, T + 1], [2]
        logits = tested(tokens[:, :-1]).mT  # [2, V, T]
        losses = nn.functional.cross_entropy(logits, tokens[:, 1:], reduction="none")
        keep = torch.arange(losses.shape[1]) < counted[:, None]  # [2, T]
        share = 2 * counted.sum() if mean_of_means else whole
        total = total + losses[keep].sum() / share
    total.backward()
    return torch.cat([p.grad.flatten() for p in tested.parameters()])


four = data.batch(0, 4)  # [4, T + 1]
right = gradient(four, [128, 128, 10, 6], mean_of_means=False)
wrong = gradient(four, [128, 128, 10, 6], mean_of_means=True)
full = [gradient(four, [128] * 4, mean_of_means=flag) for flag in (False, True)]
apart = (wrong - right).norm() / right.norm()
print("rows of equal length: the two are the same gradient:", error(*full) < 1e-5)
print("rows of 128, 128, 10 and 6: off by more than a third:", bool(apart > 1 / 3))
assert worse > 0.1 and apart > 1 / 3 and error(*full) < 1e-5

# %% [markdown]
# The first bug is found by printing the rate; no curve looks broken. The second is found by an equality, the gradient of the pieces against that of the whole, and not with rows of equal length.
#
# ## Batch and learning rate
#
# How large should a batch be? At a fixed number of tokens, a larger batch means fewer steps. From the log: two sizes and budgets, multi-step, one seed, all pairs of batch and peak.

# %%
VALLEY = [(r["dim"], r["tokens"]) for r in select("valley")]
BUDGETS = sorted(set(VALLEY))
ROWS = sorted({r["rows"] for r in select("valley")})
RATES = sorted({r["peak"] for r in select("valley")})
valley = np.array([[[bits_of("valley", dim=dim, rows=rows, peak=peak)[0]
                     for peak in RATES] for rows in ROWS]
                   for dim, _ in BUDGETS])  # [budgets, rows, rates]


alt = """Two heat maps of validation bits per byte, rows a batch against peak learning
rate. In both, a valley runs from small batches with low rates to larger batches with
higher rates."""
with figure(alt, size=(9, 3.4)) as fig:
    for ax, grid, (dim, tokens) in zip(fig.subplots(1, 2), valley, BUDGETS):
        image = ax.imshow(grid - grid.min(), vmin=0, vmax=0.4, origin="lower",
                          aspect="auto")
        for i, j in np.ndindex(*grid.shape):
            dark = grid[i, j] - grid.min() < 0.2
            ax.text(j, i, f"{grid[i, j]:.2f}", ha="center", va="center", fontsize=9,
                    color="white" if dark else "black")
        ax.set(xticks=range(len(RATES)), xticklabels=RATES, xlabel="peak")
        ax.set(yticks=range(len(ROWS)), yticklabels=ROWS, ylabel="rows of 128 tokens")
        ax.set_title(f"width {dim}, {tokens:,} tokens")
        ax.grid(visible=False)

# %%
for grid, (dim, tokens) in zip(valley, BUDGETS):
    C = flops_per_token(2, dim, 128) * tokens
    best_rate = [RATES[j] for j in grid.argmin(axis=1)]
    best_rows = ROWS[grid.min(axis=1).argmin()]
    print(f"C = {C:.1e}: best batch {best_rows * 128} tokens; best rates:", end=" ")
    print(", ".join(f"{rate} for {rows}" for rows, rate in zip(ROWS, best_rate)))
    print(f"   the paper's formula: {0.2920 * C**0.3271:,.0f} tokens", end=" ")
    print(f"at {0.3118 * C**-0.1250:.4f}")
    assert best_rate == sorted(best_rate)

# %% [markdown]
# In both maps the floor of the valley is a diagonal: a larger batch wants a higher rate. Along the floor little changes from 1 to 4 rows; beyond that there are too few steps left, and no rate makes up for it. The paper's formula, fitted far above, asks for two to four times the best batch of our grid, and for a rate within a factor of two of the best. For so long a way that is close. Whether the batch grows with the compute, one seed and two budgets that are a factor of four apart cannot tell.
#
# ## A scaling law of our own
#
# Five sizes, 100 to 800 steps, a second seed up to 400. Each size and seed has one trunk at a constant rate; every length is a multi-step decay from it. $M$ is the operations per token (without embedding and head), $D$ the tokens. We fit
#
# $$L(M, D) = E + \frac{A}{M^a} + \frac{B}{D^b}$$
#
# in bits per byte: $E$ is what no size and no text would remove, the second term is the price of a small model, the third that of little text (the form of Hoffmann et al., with $M$ in place of the number of parameters). For given exponents the other three are a linear least-squares problem, so a search over $a$ and $b$ is enough.

# %%
EXPONENTS = np.arange(0.06, 1.5, 0.04)


def fit(M, D, L):
    """E, A, a, B, b; M in millions of operations, D in millions of tokens."""
    best, law = np.inf, None
    for a in EXPONENTS:
        for b in EXPONENTS:
            X = np.stack([np.ones_like(L), M**-a, D**-b], axis=1)  # [runs, 3]
            w = np.linalg.lstsq(X, L, rcond=None)[0]
            squares = np.square(X @ w - L).sum()
            if squares < best and (w > 0).all():
                best, law = squares, (w[0], w[1], a, w[2], b)
    return law


def predict(law, M, D):
    E, A, a, B, b = law
    return E + A / M**a + B / D**b


def arrays(runs):
    M = [flops_per_token(r["layers"], r["dim"], 128) / 1e6 for r in runs]
    D = [r["steps"] * 512 / 1e6 for r in runs]
    return np.array(M), np.array(D), np.array([r["bits_per_byte"] for r in runs])


runs, unseen = select("scaling"), select("held out")
law = fit(*arrays(runs))
residual = predict(law, *arrays(runs)[:2]) - arrays(runs)[2]
E, A, a, B, b = law
print(f"{len(runs)} runs, sizes:", *sorted({r["dim"] for r in runs}))
print(f"L = {E:.2f} + {A:.2f} / M^{a:.2f} + {B:.2f} / D^{b:.2f}  (M and D in millions)")
of_seed = [bits_of("scaling", seed=seed, dim=r["dim"], steps=r["steps"])[0]
           for r in select("scaling", seed=1) for seed in (0, 1)]
apart = np.abs(np.subtract(of_seed[::2], of_seed[1::2]))
print(f"root mean square of the residuals: {np.sqrt((residual**2).mean()):.3f}")
print(f"two seeds of a size and length are up to {apart.max():.3f} apart")
assert np.abs(residual).max() < 0.03 and len({r["dim"] for r in runs}) == 5

# %% [markdown]
# How sure is this? The runs of one trunk share their start, so we draw ten *trunks* with replacement and fit again, 100 times (a **bootstrap**; a draw with fewer than four sizes is drawn again). And then the only test that counts: before a sixth size was trained, the experiment wrote down what the law says of it.

# %%
rng = np.random.default_rng(0)
trunks = sorted({(r["dim"], r["seed"]) for r in runs})
laws = []
while len(laws) < 100:
    drawn = [trunks[i] for i in rng.integers(len(trunks), size=len(trunks))]
    if len({dim for dim, _ in drawn}) >= 4:
        again = [r for t in drawn for r in runs if (r["dim"], r["seed"]) == t]
        laws.append(fit(*arrays(again)))
laws = np.array(laws).T  # [5, 100]
for name, value, many in zip("EAaBb", law, laws):
    low, high = np.quantile(many, (0.05, 0.95))
    print(f"{name} = {value:.2f}, nine in ten bootstraps from {low:.2f} to {high:.2f}")

M, D, measured = arrays(unseen)
said = np.array([r["bits_per_byte"] for r in select("prediction")])
low, high = np.quantile([predict(one, M, D) for one in laws.T], (0.05, 0.95), axis=0)
print("\ntokens    predicted  measured  difference   band of the bootstrap")
for i, r in enumerate(unseen):
    print(f"{r['steps'] * 512:8,} {said[i]:9.3f} {measured[i]:9.3f}"
          f" {measured[i] - said[i]:+11.3f}   {low[i]:.3f} to {high[i]:.3f}")
print(f"M of the held-out size: {M[0] / arrays(runs)[0].max():.1f} times the largest's")
assert error(predict(law, M, D), said) < 0.01  # the same law as in the experiment
assert np.abs(measured - said).max() < 0.02

# %%
alt = """Left: bits per byte against tokens, a line of the law for each of five sizes,
with the measured points near them; the held-out size with its band. Right: the same
points against compute; where two sizes have the same compute, the smaller is ahead."""
with figure(alt, size=(10, 3.8)) as fig:
    left, right = fig.subplots(1, 2, sharey=True)
    dims = sorted({r["dim"] for r in runs}) + [unseen[0]["dim"]]
    D_line = np.geomspace(0.04, 0.5, 40)  # [40], millions of tokens
    for color, dim in zip(PALETTE, dims):
        m, d, y = arrays([r for r in runs + unseen if r["dim"] == dim])
        name = f"width {dim}" + (", held out" if dim == dims[-1] else "")
        for ax, scale in ((left, 1.0), (right, m[0] * 1e12)):
            ax.plot(d * scale, y, "o", color=color, ms=4)
            ax.plot(D_line * scale, predict(law, m[0], D_line), color=color, ls="-",
                    label=name)  # fmt: skip
    band = [predict(one, M[0], D_line) for one in laws.T]  # [100, 40]
    left.fill_between(D_line, *np.quantile(band, (0.05, 0.95), axis=0),
                      color=PALETTE[5], alpha=0.3, lw=0)  # fmt: skip
    left.set(xscale="log", xlabel="million tokens D", ylabel="bits per byte")
    left.set_xticks([0.05, 0.1, 0.2, 0.4], [0.05, 0.1, 0.2, 0.4])
    left.minorticks_off()
    right.set(xscale="log", xlabel="compute C = M D, operations")
    right.legend(fontsize=8)

# %% [markdown]
# For 2.3 times the operations per token of any size in the fit, the law is off by at most 0.013 bits per byte: less than two seeds of one size differ. At 51,200 tokens the measured point still lies *below* the band: a bootstrap says how much the law would wobble with other runs, and the noise of the run that tests it comes on top, and so does whatever the form of the law leaves out.
#
# A confession: the sixth size had been trained for 200 steps in the search for the rule of the peaks, $0.512 / \text{width}$. No point of that is in the fit.
#
# ### Where to spend a budget
#
# In the right picture, wherever two sizes have the same compute, the smaller one is ahead: all our models are too large for the text that they have read. By how much? With $D = C/M$ put into the law, the derivative with respect to $M$ is zero at $M_\text{opt} \propto C^{\,b/(a+b)}$, and $D_\text{opt} \propto C^{\,a/(a+b)}$. DeepSeek's own fit (section 3.2; the constants are unverified here) is $M_\text{opt} = 0.1715\, C^{0.5243}$ and $D_\text{opt} = 5.8316\, C^{0.4757}$.

# %%
def best_size(law, C):
    """M_opt in operations a token, for C in operations."""
    _, A, a, B, b = law
    return (a * A / (b * B)) ** (1 / (a + b)) * (C / 1e12) ** (b / (a + b)) * 1e6


share = laws[4] / (laws[2] + laws[4])  # [100]: the exponent of M_opt
low, high = np.quantile(share, (0.05, 0.95))
print(f"M_opt grows as C to the {b / (a + b):.2f};", end=" ")
print(f"nine in ten bootstraps from {low:.2f} to {high:.2f}; the paper's: 0.5243")
for C in (1e11, 1e12):  # operations
    M_best, M_paper = best_size(law, C), 0.1715 * C**0.5243
    print(f"C = {C:.0e}, in millions: ours M = {M_best / 1e6:.2f},", end=" ")
    print(f"D = {C / M_best / 1e6:.2f}; the paper's formula", end=" ")
    print(f"M = {M_paper / 1e6:.2f}, D = {C / M_paper / 1e6:.2f}")
C = (M * D).max() * 1e12
too_large, text = M[0] * 1e6 / best_size(law, C), C / best_size(law, C)
print(f"our largest run, C = {C:.1e}: {too_large:.0f} times too large;", end=" ")
print(f"the best size would read {text / len(data.train):.1f} times our text")
assert too_large > 5 and text > len(data.train) and low < 0.5243 < high

# %% [markdown]
# The exponents agree, and even the sizes do, a million million times below the compute of the 67B. Before you believe it, wait for the section after the next picture. And our largest run had the wrong shape: for its compute, a model several times smaller should have read more text than we have.
#
# Move the compute. The curve is the law's loss over sizes, all at the same compute (an **isoFLOP** curve). Its floor is flat: half or twice the best size costs little. Outside the grey stripe no run of ours has been. (A live slider needs a running notebook; below it are three settings.)

# %%
from deepseek_mini.lesson import Slider, settings_figure, slider_figure

C_seen = np.concatenate([arrays(part)[0] * arrays(part)[1] for part in (runs, unseen)])
C_range = C_seen.min() * 1e12, C_seen.max() * 1e12


def draw_budget(fig, power):
    C = 10.0**power
    best, formula = best_size(law, C), 0.1715 * C**0.5243
    sizes = np.geomspace(best / 30, best * 30, 200)  # [200], operations a token
    ax = fig.subplots()
    ax.plot(sizes, predict(law, sizes / 1e6, C / sizes / 1e6), ls="-")
    ax.axvspan(arrays(runs)[0].min() * 1e6, M[0] * 1e6, color="#DDDDDD", lw=0)
    ax.axvline(best, color=PALETTE[1], ls="--", label="ours")
    ax.axvline(formula, color=PALETTE[2], ls="-.", label="paper's")
    ax.set(xscale="log", xlabel="M, operations a token", ylabel="bits per byte")
    ax.set(ylim=(E, predict(law, best / 1e6, C / best / 1e6) + 1))
    ax.legend(loc="lower left", fontsize=9)
    seen = "" if C_range[0] <= C <= C_range[1] else "outside of all our runs; "
    return f"{seen}best M {best:.1e} operations, D {C / best:.1e} tokens"


widget = slider_figure(
    draw_budget, alt="The law's loss over sizes at a compute of 10 to the {power:.1f}.",
    size=(6, 3.2), power=Slider(10.0, 24.0, start=12.0, step=0.5, label="log10 of C"),
)

# %%
settings_figure(
    draw_budget,
    {"C = 1e11": {"power": 11.0}, "C = 1e12": {"power": 12.0},
     "C = 1e24: not to be believed": {"power": 24.0}},
    alt="""Loss over sizes at three computes. At 1e11 and 1e12 a wide valley, its floor
    farther right with more compute. At 1e24 a flat line, and the grey stripe of our
    sizes lies far to its left.""",
    size=(12, 3),
)

# %% [markdown]
# At $10^{24}$ the law has nothing left to say: whatever the size, the loss is $E$, the constant that it knows least about.
#
# ### What counts as compute
#
# Section 3.2 of the paper chooses $M$ over $6N$ ($N$ parameters) because the difference matters for small models. In ours the head alone costs as much as the blocks. The same runs, fitted with three measures of the cost of a token:

# %%
def cost(r, measure):
    d, layers = r["dim"], r["layers"]
    blocks = {"6N, blocks only": 72 * layers * d * d}
    blocks["M"] = flops_per_token(layers, d, 128)
    blocks["M and the head"] = blocks["M"] + 6 * 1024 * d
    return blocks[measure] / 1e6


exponents = {}
for measure in ("6N, blocks only", "M", "M and the head"):
    each = np.array([cost(r, measure) for r in runs])
    *_, a_, B_, b_ = fit(each, *arrays(runs)[1:])
    exponents[measure] = b_ / (a_ + b_)
    print(f"{measure:15} {each.min():.2f} to {each.max():.2f} million", end=" ")
    print(f"operations a token; M_opt grows as C to the {exponents[measure]:.2f}")
assert exponents["6N, blocks only"] - exponents["M and the head"] > 0.1

# %% [markdown]
# Not one model was trained again, and the exponent moved by 0.14, about as far as from the middle of the bootstrap's band to its end. Leave out attention and head, and small models look cheaper than they are; the law then sends every further operation into size. The agreement of our 0.50 with the paper's 0.52 is luck as much as law. An exponent means nothing without the measure that it was fitted with.
#
# ## At full size
#
# What do the paper's formulas say of its own models? The operations to train on a token as `dm.count` counts them (three times inference, each token seeing half of the 4,096 tokens on average), the two estimates, and the size that $M_\text{opt}$ gives for the compute that was spent:

# %%
for name, tokens in (("7b", 2.0e12), ("67b", 2.0e12)):
    c = dm.Config.preset(f"deepseek-llm-{name}")
    counted = 3 * dm.count(c, seq_len=2048).flops_per_token
    rule = 6 * dm.count(c).parameters
    M_ = flops_per_token(c.n_layers, c.dim, 4096)
    M_best = 0.1715 * (M_ * tokens) ** 0.5243
    print(f"{name:>3}: counted {counted:.2e}, 6N {rule:.2e}, M {M_:.2e}", end="; ")
    print(f"M_opt {M_best:.2e} = {M_best / M_:.1f} M,"
          f" D_opt {M_ * tokens / M_best / 1e12:.2f} T")
    assert 0.75 < counted / M_ < 1.1 and M_best > M_

# %% [markdown]
# For the 7B the three agree within 2%. For the 67B $M$ is a fifth above what is computed: it counts a key and a value for every head, and each token as if it saw the whole sequence. By the formula, the compute of the 7B would have bought the lowest loss with 4.3 times the $M$ and a quarter of the text; the 67B is close to its optimum. The 7B is small on purpose, one may guess: a model is trained once and used often, and the law knows only the cost of training.
#
# ## What did not work
#
# **A small embedding.** In the first attempt the embedding started as small as every other matrix, and the larger model was the *worse* one: the first blocks drown a small embedding in their noise (lesson 05). From $N(0, 1)$ the order is right, already after 200 steps:

# %%
for width in (32, 64, 128):
    tried = select("rates", dim=width)
    best = {}
    for std in sorted({r["embedding_std"] for r in tried}):
        one = [r for r in tried if r["embedding_std"] == std]
        best[std] = min(one, key=lambda r: r["bits_per_byte"])
    told = "; ".join(
        f"N(0, {std}²), {r['steps']} steps: {r['bits_per_byte']:.2f} at {r['peak']}"
        for std, r in best.items()
    )
    print(f"width {width:3}: {told}")
    if width == 128:
        assert best[0.062]["bits_per_byte"] > bits_of("rates", dim=64, peak=0.004)[0]

# %% [markdown]
# (Each at the best of two to four peaks.) We had measured the initialisation and believed it was the size. A scaling law describes a *recipe*, and a bad recipe has a bad law.
#
# **One rate for all widths.** The best peak falls with the width, about as $1/\text{width}$ among those tried; the paper's formula knows the compute only. So every size here has its own peak, $0.512 / \text{width}$, searched for at 200 steps and not for each length, which may favour short runs.
#
# **More text.** The plan was 4,000 steps a size and sizes up to 1.8 million. Processor time ran out, and the corners of the fit that would pin down $E$ and the exponents are missing: $E$ is uncertain by more than 0.1 bits per byte.
#
# ## What this proves, and what it does not
#
# - Continued from a checkpoint, the multi-step training is the uninterrupted one, to the last bit: a fact about the code. How near its loss comes to the cosine's is a measurement, at one small size, three seeds.
# - The law described 35 runs over a factor of 10 in $M$ and 8 in $D$, and predicted four of a size 2.3 times beyond. It says nothing about a size a thousand times beyond.
# - Its exponent hangs on what is counted as compute, on the peak chosen for each size, and on this text. The paper reports that better text moves the optimum towards larger models.
# - Losses are validation losses of one small text, and no benchmark of anything that a model is for.
#
# **Next**: [the exercises](../exercises/06_pretraining.ipynb), then lesson 07, where the order of the files and the holes in them are part of the training.
#
# **References**
#
# - DeepSeek-AI, *DeepSeek LLM: Scaling Open-Source Language Models with Longtermism*, arXiv 2401.02954: sections 2.3 (schedule, optimiser), 3.1 (batch and rate), 3.2 (size and data).
# - Hoffmann et al., *Training Compute-Optimal Large Language Models*, arXiv 2203.15556, section 3.3 (the form of the law).
# - Hu et al., *MiniCPM*, arXiv 2404.06395, section 4 (warmup-stable-decay). Hägele et al., *Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations*, arXiv 2405.18392 (trunks and decays in place of whole runs).
# - Loshchilov and Hutter, *Decoupled Weight Decay Regularization*, arXiv 1711.05101 (AdamW).

# ===== exercises =====

# %% [markdown]
# # 06 · Pretraining: exercises
#
# Five exercises on [the lesson](../notebooks/06_pretraining.ipynb), 53 minutes in all. Write your code in place of `raise NotImplementedError`, and run that cell and the two after it: the first tries your answer on an example, the second calls `check`, which prints one line, and a hint when something is not right yet. No exercise needs the one before it.

# %%
import math

import numpy as np
import torch

import deepseek_mini as dm
from deepseek_mini.lesson import check, setup

setup(seed=0)

# %% [markdown]
# ## 06.1 Bits per byte (a few lines, 6 minutes)
#
# A model has been asked for tokens, and paid a loss for each. `losses` [B, T] holds $-\ln p$ in nats, `targets` [B, T] the ids of the tokens, and `byte_lengths` [V] how many bytes each entry of the vocabulary stands for. All three are NumPy arrays. Return the bits per byte of the whole batch, a number:
#
# $$\frac{\text{bits of all tokens}}{\text{bytes of all tokens}}, \qquad 1 \text{ bit} = \ln 2 \text{ nats}$$
#
# A mark, such as the end of a text, stands for 0 bytes. Its loss counts.
#
# By hand, two rows: three tokens of 3, 1 and 0 bytes with probabilities 1/4, 1/2 and 1/2 cost $2 + 1 + 1 = 4$ bits for 4 bytes; three of 3, 3 and 0 bytes with 1/8, 1/16 and 1/2 cost $3 + 4 + 1 = 8$ bits for 6 bytes. Together 12 bits for 10 bytes: 1.2.

# %%
def bits_per_byte(losses, targets, byte_lengths):
    """Bits of all tokens by bytes of all tokens, a number."""
    ### BEGIN SOLUTION
    bits = losses.sum() / np.log(2)
    return bits / byte_lengths[targets].sum()
    ### END SOLUTION

# %%
# To try it, take away the # of the last line: it should print 1.2, or nearly.
losses = -np.log([[1 / 4, 1 / 2, 1 / 2], [1 / 8, 1 / 16, 1 / 2]])  # [B, T]
targets, byte_lengths = np.array([[2, 1, 0], [2, 2, 0]]), np.array([0, 1, 3])
# print(bits_per_byte(losses, targets, byte_lengths))

# %%
check("06.1", bits_per_byte)

# %% [markdown]
# ## 06.2 The plan of a training (a few lines, 8 minutes)
#
# Before DeepSeek-LLM is trained, its compute, learning rate and batch are known from formulas. For $n$ layers of width $d$, sequences of $l$ tokens and $D$ tokens in all:
#
# $$M = 72\,n\,d^2 + 12\,n\,d\,l, \qquad C = M D, \qquad \eta = 0.3118\; C^{-0.1250}, \qquad B = 0.2920\; C^{0.3271} \text{ tokens}$$
#
# `config` is a `dm.Config`: `n_layers`, `dim`, and `max_seq_len` for $l$. Return three numbers, in this order: $C$, $\eta$, and the batch **in sequences** of $l$ tokens, $B / l$, not rounded.
#
# By hand, for 2 layers of width 10 and sequences of 5 tokens: $M = 14{,}400 + 1{,}200 = 15{,}600$, and with 1,000 tokens $C = 1.56 \cdot 10^7$. Then $B = 65.8$ tokens, 13.16 sequences.

# %%
def plan(config, n_tokens):
    """C, the peak learning rate, and the batch in sequences: three numbers."""
    ### BEGIN SOLUTION
    n, d, length = config.n_layers, config.dim, config.max_seq_len
    C = (72 * n * d**2 + 12 * n * d * length) * n_tokens
    return C, 0.3118 * C**-0.1250, 0.2920 * C**0.3271 / length
    ### END SOLUTION

# %%
# To try it, take away the # of the last two lines. They should print about
# 15600000, 0.0393, 13.16 for the example, and 8.46e+22, 4.25e-04, 2251.61 for the 7B.
example = dm.Config(
    vocab_size=100, dim=10, n_layers=2, max_seq_len=5,
    attention=dm.config.GQA(n_heads=1, n_kv_heads=1, head_dim=10),
    dense=dm.config.SwiGLU(inter_dim=20),
)
released = dm.Config.preset("deepseek-llm-7b")
# print("{:.0f}, {:.4f}, {:.2f}".format(*plan(example, 1000)))
# print("{:.2e}, {:.2e}, {:.2f}".format(*plan(released, 2e12)))

# %%
check("06.2", plan)

# %% [markdown]
# ## 06.3 One step of AdamW (from the paper, 12 minutes)
#
# AdamW keeps two running means of each number's gradient: `m` of the gradient $g$, and `v` of its square. Both start at 0, so they are too small at first; $\hat m$ and $\hat v$ correct that. Steps are counted from 1.
#
# $$m \leftarrow \beta_1 m + (1 - \beta_1)\, g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2$$
# $$\hat m = \frac{m}{1 - \beta_1^{\,\text{step}}}, \qquad \hat v = \frac{v}{1 - \beta_2^{\,\text{step}}}$$
# $$w \leftarrow (1 - \eta\lambda)\, w - \eta\, \frac{\hat m}{\sqrt{\hat v} + \epsilon}$$
#
# The **decay** $\lambda$ acts on the weights directly and stays out of the gradient: that is the W of AdamW. The arguments `lr`, `beta1`, `beta2`, `eps` and `decay` are $\eta, \beta_1, \beta_2, \epsilon, \lambda$. All arrays are float64. Return the new `w`, `m` and `v`, in this order and as new arrays of the old ones' shape; $m$ and $v$ as the next step needs them, without the correction.
#
# By hand: $w = 1$, $g = 2$, $m = v = 0$, step 1, $\eta = 0.1$, $\beta_1 = 0.9$, $\beta_2 = 0.99$, $\epsilon = 0$, $\lambda = 0.5$. Then $m = 0.2$, $v = 0.04$, $\hat m = 2$, $\hat v = 4$, and $w = 0.95 - 0.1 \cdot 2/2 = 0.85$. The first step has the length of the learning rate, however large the gradient is. A second step from there with $g = 1$ and, to see it, $\epsilon = 1$: $m = 0.28$, $v = 0.0496$, $\hat m = 0.28 / 0.19 = 1.474$, $\hat v = 0.0496 / 0.0199 = 2.492$, and $w = 0.95 \cdot 0.85 - 0.1 \cdot 1.474 / 2.579 = 0.7504$.

# %%
def adamw(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
    """The new w, m and v, arrays of one shape."""
    ### BEGIN SOLUTION
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    w = (1 - lr * decay) * w - lr * m_hat / (np.sqrt(v_hat) + eps)
    return w, m, v
    ### END SOLUTION

# %%
# To try it, take away the # of the last four lines. It should print
# [0.85] [0.2] [0.04]
# [0.7504] [0.28] [0.0496]
w, grad, m, v = (np.array([x]) for x in (1.0, 2.0, 0.0, 0.0))
# first = adamw(w, grad, m, v, 1, 0.1, 0.9, 0.99, 0.0, 0.5)
# print(*(x.round(4) for x in first))
# second = adamw(first[0], grad / 2, *first[1:], 2, 0.1, 0.9, 0.99, 1.0, 0.5)
# print(*(x.round(4) for x in second))

# %%
check("06.3", adamw)

# %% [markdown]
# ## 06.4 A large batch in pieces (some thought, 12 minutes)
#
# A batch does not fit into memory, so its pieces go through the model one after the other. Of each piece you have the gradient of the piece's *mean* loss, a list of arrays, one for each parameter. `pieces` is the list of these lists, and `counts` says how many tokens each piece's mean was taken over. They differ.
#
# 1. Compute the gradient of the mean loss over all tokens of the batch.
# 2. Clip it: let its **length** be the root of the sum of the squares of all its numbers, in all parameters together. If it is above `max_norm`, multiply the whole gradient by one factor, so that the length is `max_norm`. A shorter gradient stays as it is.
#
# Return a list of new arrays, one for each parameter.
#
# By hand: two pieces with 1 and 3 tokens and two parameters of one number each. The gradients $[8], [0]$ and $[4], [16/3]$ have the mean $[5], [4]$: the second piece counts three times. Its length is $\sqrt{25 + 16}$. With half of that as `max_norm` the result is $[2.5], [2]$; with 10 it stays $[5], [4]$.

# %%
def gather(pieces, counts, max_norm):
    """The clipped gradient of the whole batch, a list of arrays."""
    ### BEGIN SOLUTION
    total = sum(counts)
    grads = [sum(n * g for n, g in zip(counts, of_one)) / total
             for of_one in zip(*pieces)]
    length = math.sqrt(sum((g**2).sum() for g in grads))
    return [g * min(1.0, max_norm / length) for g in grads]
    ### END SOLUTION

# %%
# To try it, take away the # of the last two lines. It should print, or nearly,
# [2.5] [2.]
# [5.] [4.]
pieces = [[np.array([8.0]), np.array([0.0])], [np.array([4.0]), np.array([16 / 3])]]
# print(*gather(pieces, [1, 3], max_norm=math.sqrt(41) / 2))
# print(*gather(pieces, [1, 3], max_norm=10.0))

# %%
check("06.4", gather)

# %% [markdown]
# ## 06.5 A power law and its uncertainty (some thought, 15 minutes)
#
# Points $(x_i, y_i)$ are to lie on $y = a\,x^b$. In logarithms that is a straight line, $\ln y = \ln a + b \ln x$. Fit it by least squares. With $p_i = \ln x_i$, $q_i = \ln y_i$ and their means $\bar p, \bar q$ over $n$ points:
#
# $$b = \frac{\sum_i (p_i - \bar p)(q_i - \bar q)}{\sum_i (p_i - \bar p)^2}, \qquad \ln a = \bar q - b\,\bar p$$
#
# An exponent without its error is a rumour. With the residuals $r_i = q_i - \ln a - b\,p_i$, the **standard error** of $b$ is
#
# $$s_b = \sqrt{\frac{\sum_i r_i^2}{n - 2} \Big/ \sum_i (p_i - \bar p)^2}$$
#
# ($n - 2$, because the line took two numbers from the data.) `x` and `y` are NumPy arrays of at least 3 positive numbers, in any order. Return the three numbers $a$, $b$ and $s_b$.
#
# By hand: for $x = 1, e, e^2$ and $y = 1, e^3, e^3$ the logarithms are $p = 0, 1, 2$ and $q = 0, 3, 3$. So $b = 3/2$, $\ln a = 2 - 3/2$, the residuals are $-0.5, 1, -0.5$, and $s_b = \sqrt{1.5 / 1 / 2} = 0.866$: an exponent that may as well be 1.

# %%
def power_law(x, y):
    """a, b and the standard error of b, three numbers."""
    ### BEGIN SOLUTION
    p, q = np.log(x), np.log(y)
    spread = ((p - p.mean()) ** 2).sum()
    b = ((p - p.mean()) * (q - q.mean())).sum() / spread
    log_a = q.mean() - b * p.mean()
    residuals = q - log_a - b * p
    variance = (residuals**2).sum() / (len(x) - 2) / spread
    return np.exp(log_a), b, np.sqrt(variance)
    ### END SOLUTION

# %%
# To try it, take away the # of the last line: it should print 1.649, 1.500, 0.866.
x, y = np.exp([0.0, 1.0, 2.0]), np.exp([0.0, 3.0, 3.0])
# print("{:.3f}, {:.3f}, {:.3f}".format(*power_law(x, y)))

# %%
check("06.5", power_law)

# %% [markdown]
# ## All together
#
# The cell takes 40 steps towards the line $y = 2x + 1$, from forty points in two pieces of unequal size, by PyTorch's own clipping and AdamW. Below each stand the lines that use yours: take away their `#`, and what the cell prints must not change, to the last digit.

# %%
rng = np.random.default_rng(0)
xs, counts = rng.normal(size=40), (30, 10)
line = [torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(2)]
optimizer = torch.optim.AdamW(line, betas=(0.9, 0.95), weight_decay=0.02)
means = [(np.zeros(1), np.zeros(1)) for _ in line]  # m and v, of slope and height
for step in range(1, 41):
    optimizer.param_groups[0]["lr"] = rate = 0.05 * min(1, step / 20)
    w, pieces = [p.detach().numpy().copy() for p in line], []
    for x in np.split(xs, [30]):
        off = w[0] * x + w[1] - (2 * x + 1)  # [points of the piece]
        pieces.append([2 * (off * x).mean(keepdims=True), 2 * off.mean(keepdims=True)])
    for p, of_p in zip(line, zip(*pieces)):
        p.grad = torch.tensor(np.average(of_p, axis=0, weights=counts))
    torch.nn.utils.clip_grad_norm_(line, 1.0)
    # for p, grad in zip(line, gather(pieces, counts, max_norm=1.0)):
    #     p.grad = torch.tensor(grad)
    grads = [p.grad.numpy().copy() for p in line]
    optimizer.step()
    # for i, p in enumerate(line):
    #     new = adamw(w[i], grads[i], *means[i], step, rate, 0.9, 0.95, 1e-8, 0.02)
    #     p.data, means[i] = torch.tensor(new[0]), new[1:]
    if step in (10, 40):
        slope, height = (p.item() for p in line)
        print(f"after {step} steps: slope {slope:.5f}, height {height:.5f}")

# %% [markdown]
# Next: lesson 07, in which the text itself is prepared: whole repositories, and holes to fill.
