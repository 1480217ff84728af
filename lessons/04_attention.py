# %% [markdown]
# # 04 · Attention: heads, and the cache they fill
#
# DeepSeek-67B has 64 query heads. With a key and a value for each of them it would
# store 3.1 MB for every token that it has read. As released it stores 0.39 MB, because
# eight query heads share one key and one value. Why must anything be stored, and what
# did the model give up?
#
# - **You will build** one head by hand and many heads in NumPy; see multi-head,
#   grouped-query and multi-query attention as one picture; prove all of it equal to the
#   `transformers` library; count what a cache saves and what it costs; and read a GPU
#   kernel that never stores its scores.
# - **You need** lesson 00. Lesson 03 (RoPE) turns queries and keys before they meet; it
#   changes nothing in this lesson.
# - **Time**: about 60 minutes, and an hour for the exercises.
# - **Papers**: *Attention Is All You Need* §3.2; multi-query and grouped-query attention;
#   DeepSeek-LLM §2.2.

# %%
from dataclasses import replace

import numpy as np
import torch

import deepseek_mini as dm
from deepseek_mini.config import GQA, Config, SwiGLU
from deepseek_mini.lesson import PALETTE, error, figure, ladder, setup, show

setup(seed=0)

# %%
llm = dm.Config.preset("deepseek-llm-67b")
shapes = {
    "a key and a value for each head": replace(llm.attention, n_kv_heads=64),
    "as released": llm.attention,
}
per_token = {
    name: dm.count(replace(llm, attention=part)).kv_cache_bytes_per_token
    for name, part in shapes.items()
}
for name, size in per_token.items():
    print(f"{name:32}{size:>10,} bytes a token")
assert list(per_token.values()) == [3_112_960, 389_120]

# %% [markdown]
# ## By hand
#
# A token asks with its **query** $q$. Every token offers a **key** $k$, to be found by,
# and a **value** $v$, to be read. The weights with which the query of token $t$ reads
# the values are a softmax over its scores,
#
# $$a_{ts} = \frac{e^{q_t \cdot k_s / \sqrt d}}{\sum_{r \le t} e^{q_t \cdot k_r / \sqrt d}},
# \qquad \mathrm{out}_t = \sum_{s \le t} a_{ts} v_s.$$
#
# The sums stop at $t$: attention is **causal**, no token reads a later one. Take three
# tokens and heads of one channel, $d = 1$, with keys $0, \ln 2, \ln 3$ and values
# $6, 12, 0$. The first head asks with $q = 1$ for every token, so the exponentials are
# 1, 2 and 3:
#
# | token | weights | output |
# |---|---|---|
# | 0 | 1 | 6 |
# | 1 | 1/3, 2/3 | (6 + 24) / 3 = 10 |
# | 2 | 1/6, 2/6, 3/6 | (6 + 24 + 0) / 6 = 5 |
#
# A second head asks with $q = 0$. All its exponentials are 1 and it takes plain means:
# 6, then 9, then 6. Both heads used the *same* keys and values. That is all that this
# lesson's question is about.

# %%
def softmax(scores):
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))  # [T, S]: e^0 at most
    return e / e.sum(axis=-1, keepdims=True)  # [T, S]


def one_head(q, k, v):
    T, S = len(q), len(k)
    may_look = np.arange(S) <= np.arange(S - T, S)[:, None]  # [T, S]
    scores = q @ k.T / np.sqrt(q.shape[-1])  # [T, S]
    weights = softmax(np.where(may_look, scores, -np.inf))  # [T, S]
    return weights @ v, weights  # [T, d], [T, S]


k = np.array([[0.0], [np.log(2)], [np.log(3)]])  # [S, d]
v = np.array([[6.0], [12.0], [0.0]])  # [S, d]
heads = {q: one_head(np.full((3, 1), q), k, v) for q in (1.0, 0.0)}
for q, (out, _) in heads.items():
    print(f"q = {q:.0f}: outputs", out[:, 0].round(6))
by_hand = np.array([[6.0, 10.0, 5.0], [6.0, 9.0, 6.0]])  # [H, T]
assert np.allclose([out[:, 0] for out, _ in heads.values()], by_hand)

# %%
alt = """Two tables of weights, three queries by three keys, empty above the diagonal.
q = 1: rows 1; 0.33, 0.67; 0.17, 0.33, 0.50. q = 0: rows 1; 0.50, 0.50; 0.33 each."""
with figure(alt, size=(7.5, 3.1)) as fig:
    for ax, (q, (_, weights)) in zip(fig.subplots(1, 2), heads.items()):
        ax.imshow(np.ma.masked_equal(weights, 0), vmin=0, vmax=1, cmap="Blues")
        for t, s in zip(*np.nonzero(weights)):
            color = "white" if weights[t, s] > 0.6 else "black"
            shown = f"{weights[t, s]:.2f}"
            ax.text(s, t, shown, ha="center", va="center", color=color)
        ax.set(xlabel="key of token", ylabel="query of token")
        ax.set_title(f"head with q = {q:.0f}")
        ax.set(xticks=range(3), yticks=range(3))
        ax.grid(visible=False)

# %% [markdown]
# `may_look` already covers the case $T < S$, fewer queries than keys: the last query
# belongs to the last key. A cache will need it.
#
# Why divide by $\sqrt d$? A dot product of $d$ random channels is about $\sqrt d$ in
# size, and a softmax of large scores gives all weight to one key. Its gradient is then
# nearly zero.

# %%
rng = np.random.default_rng(0)
print("d     undivided: largest weight    divided: largest weight   (mean, 64 keys)")
for d in (4, 128):
    q, k = rng.normal(size=(2, 400, 64, d))  # [N, S, d] each
    scores = np.einsum("nd,nsd->ns", q[:, 0], k)  # [N, S]
    largest = [softmax(x).max(axis=-1).mean() for x in (scores, scores / np.sqrt(d))]
    print(f"{d:<5} {largest[0]:26.2f} {largest[1]:26.2f}")
assert largest[0] > 0.8 and largest[1] < 0.2

# %% [markdown]
# ## In NumPy: many heads, one parameter
#
# $H$ query heads work side by side, each with $d$ channels, and their outputs are joined.
# There are $G$ **key-value heads**, and consecutive groups of $H/G$ query heads share
# one:
#
# - $G = H$: **multi-head attention** (MHA), one each;
# - $1 < G < H$: **grouped-query attention** (GQA);
# - $G = 1$: **multi-query attention** (MQA), one for all.

# %%
def attention(q, k, v):
    H, G = q.shape[1], k.shape[1]
    out = np.empty((len(q), H, v.shape[-1]))  # [T, H, d]
    for h in range(H):
        g = h // (H // G)  # heads 0, 1, ... of a group share key-value head g
        out[:, h] = one_head(q[:, h], k[:, g], v[:, g])[0]  # [T, d]
    return out  # [T, H, d]


q = np.tile([1.0, 0.0], (3, 1))[..., None]  # [T, H, d]: both heads from above
k = np.log([1.0, 2.0, 3.0])[:, None, None]  # [S, G, d]: one key-value head
v = np.array([6.0, 12.0, 0.0])[:, None, None]  # [S, G, d]
from_numpy = attention(q, k, v)[..., 0].T  # [H, T]
print("the function gives what we had by hand:", np.allclose(from_numpy, by_hand))

# %% [markdown]
# **Predict**: with $H = 8$ and $G = 2$, which key-value head does query head 5 use?

# %%
def draw_heads(ax, H, G):
    """Query heads above, key-value heads below, a line for each that is used."""
    for h in range(H):
        g = h // (H // G)
        x_q, x_kv = (h + 0.5) / H, (g + 0.5) / G
        color = PALETTE[g % 4]
        ax.plot([x_q, x_kv], [1, 0], color=color, ls="-", lw=1.2)
        ax.plot(x_q, 1, "o", color=color, ms=max(3, 12 - H / 6), zorder=3)
        ax.plot(x_kv, 0, "s", color=color, ms=max(4, 13 - G / 6), zorder=3)
    ax.text(-0.02, 1, f"{H} queries", ha="right", va="center")
    ax.text(-0.02, 0, f"{G} key-value", ha="right", va="center")
    ax.set(xlim=(-0.3, 1.02), ylim=(-0.25, 1.25))
    ax.axis("off")


alt = """Eight query heads in a row above their key-value heads. MHA: eight below, one
line each. GQA: two below, four neighbouring queries lead to each. MQA: one below, all
eight lead to it."""
with figure(alt, size=(10, 2.3)) as fig:
    kinds = {"MHA: G = 8": 8, "GQA: G = 2": 2, "MQA: G = 1": 1}
    for ax, (name, G) in zip(fig.subplots(1, 3), kinds.items()):
        draw_heads(ax, 8, G)
        ax.set_title(name)

# %% [markdown]
# Head 5 uses key-value head 1: heads 0 to 3 are the first group, 4 to 7 the second.
#
# ## In PyTorch
#
# The package's own source. `naive_attention` is the equation; models run PyTorch's fused
# kernel for the same thing unless `ops.paths(attention="naive")` asks for this one.

# %%
from deepseek_mini.model import ops

show(ops.causal_mask, ops.naive_attention, docstrings=False)

# %%
show(dm.model.GQA, docstrings=False)

# %% [markdown]
# `wk` and `wv` have $G \cdot d$ rows, `wq` has $H \cdot d$: with fewer key-value heads,
# two matrices shrink along with the cache.
#
# The first rungs of the ladder, with five queries on nine keys:

# %%
rungs = [("NumPy = by hand", from_numpy, by_hand, 1e-12)]
for G in (8, 2, 1):
    q = rng.normal(size=(3, 5, 8, 16))  # [B, T, H, d]
    k, v = rng.normal(size=(2, 3, 9, G, 16))  # [B, S, G, d] each
    numpy = np.stack([attention(*row) for row in zip(q, k, v)])  # [B, T, H, d]
    inputs = [torch.from_numpy(x).float() for x in (q, k, v)]
    naive = ops.naive_attention(*inputs, scale=16**-0.5)  # [B, T, H, d]
    fused = ops.attention(*inputs, scale=16**-0.5)  # [B, T, H, d]
    rungs += [
        (f"G = {G}: naive (float32) = NumPy", naive, numpy, 1e-5),
        (f"G = {G}: fused = naive", fused, naive, 1e-5),
    ]
ladder("Attention of 8 query heads", rungs)

# %% [markdown]
# ## The cache
#
# A model writes one token at a time. The new token's query needs the keys and values of
# *all* tokens before it, in every layer. But attention is causal: what the model computed
# for the earlier tokens did not depend on the new one, and would come out the same again.
# So keep the keys and values. No old query is ever asked again, so queries are not kept.

# %%
from deepseek_mini.model import KVCache

show(KVCache.append, KVCache.truncate, docstrings=False)

# %% [markdown]
# The cache moves `length` on only when a piece has passed all layers. `truncate` forgets
# the end by moving `length` back.
#
# Reading the prompt is called **prefill**, each later step **decode**. A small model
# reads 32 tokens and then writes 96, and PyTorch counts the operations of every matrix
# product. (The naive path computes all $T \times S$ scores and then masks half of them.)
#
# **Predict**: the first step, the prefill, costs how much more or less with a cache?

# %%
from torch.utils.flop_counter import FlopCounterMode

mini = replace(dm.Config.preset("deepseek-llm-mini"), n_layers=2)  # H = G = 4
model = dm.Transformer(mini).eval()
text = torch.randint(mini.vocab_size, (1, 128))  # [B, T]


@torch.no_grad()
def operations(tokens, cache=None):
    counter = FlopCounterMode(display=False)
    with ops.paths(attention="naive"), counter:
        model(tokens, cache)  # [B, T, V]
    return counter.get_total_flops()


cache = model.new_cache(1)
lengths = np.arange(32, 129)  # [N]: tokens known after each step
with_cache = [operations(text[:, :32], cache)]
with_cache += [operations(text[:, n - 1 : n], cache) for n in lengths[1:]]
without = [operations(text[:, :n]) for n in lengths]
print("prefill of 32 tokens: the same operations:", with_cache[0] == without[0])
print(f"second step: {without[1] / with_cache[1]:.0f} times fewer with a cache")
print(f"last step:   {without[-1] / with_cache[-1]:.0f} times fewer")
print(f"all steps:   {sum(without) / sum(with_cache):.0f} times fewer")
assert with_cache[-1] == dm.count(mini, seq_len=128).flops_per_token
assert with_cache[0] == without[0] and without[-1] == 128 * with_cache[-1]

# %% [markdown]
# The prefill costs exactly the same: nothing is in the cache yet. It pays from the second
# step on, where 33 tokens would be read to learn about one. The cell also asserts that
# PyTorch counts the same operations a token as `dm.count` does on paper.

# %%
alt = """Operations of each step on a log axis, as the text grows from 32 to 128 tokens.
Without a cache they rise steadily. With one the first step is the same, the next falls
to a thirtieth, and the line stays nearly flat."""
with figure(alt) as fig:
    ax = fig.subplots()
    ax.plot(lengths, without, label="without a cache")
    ax.plot(lengths, with_cache, label="with a cache")
    ax.set(yscale="log", xlabel="tokens in the text", ylabel="operations of the step")
    ax.legend(loc="center right")

# %% [markdown]
# ## The whole model
#
# Second part of the ladder: whole models with 4, 2 and 1 key-value heads against
# `transformers`' Llama, on random weights; the same text read in three uneven pieces;
# and a short row that was padded to a longer one's length against the row alone.

# %%
import tempfile

from transformers import LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()


def randomised(G):
    part = replace(mini.attention, n_kv_heads=G)
    model = dm.Transformer(replace(mini, attention=part)).eval()
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


@torch.no_grad()
def in_pieces(model, tokens, *cuts):
    cache = model.new_cache(batch_size=len(tokens))
    pieces = tokens.tensor_split(cuts, dim=1)  # [B, T'] each
    return torch.cat([model(piece, cache) for piece in pieces], dim=1)  # [B, T, V]

# %%
tokens = torch.randint(mini.vocab_size, (2, 64))  # [B, T]
pad = torch.zeros(2, 64, dtype=torch.bool)  # [B, T]
pad[0, :20] = True  # row 0 is 44 tokens long
rungs = []
with torch.no_grad():
    for G in (4, 2, 1):
        model = randomised(G)
        whole = model(tokens)  # [B, T, V]
        want = as_llama(model)(tokens).logits  # [B, T, V]
        pieces = in_pieces(model, tokens, 40, 41)  # [B, T, V]
        padded = model(tokens, pad=pad)[0, 20:]  # [T', V]
        alone = model(tokens[:1, 20:])[0]  # [T', V]
        rungs += [
            (f"G = {G}: whole model = transformers", whole, want, 1e-4),
            (f"G = {G}: cached, in pieces = whole", pieces, whole, 1e-5),
            (f"G = {G}: padded row = row alone", padded, alone, 1e-5),
        ]
ladder("Logits of a whole model, 4 query heads", rungs)

# %% [markdown]
# ## How people get it wrong
#
# **Heads paired with the wrong keys.** To give every query head its key, code repeats
# the $G$ key heads until there are $H$. `repeat_interleave` makes 0, 0, 1, 1;
# `repeat` makes 0, 1, 0, 1. The shape is the same.
#
# **Predict**: for which of $G = 8, 2, 1$ does a test with 8 query heads notice?

# %%
for G in (8, 2, 1):
    q, k = torch.randn(1, 9, 8, 16), torch.randn(1, 9, G, 16)  # [B, T, H or G, d]
    wrong_k = k.repeat(1, 1, 8 // G, 1)  # [B, S, H, d]
    right = ops.naive_attention(q, k, k, scale=0.25)  # [B, T, H, d]
    wrong = ops.naive_attention(q, wrong_k, wrong_k, scale=0.25)  # [B, T, H, d]
    same = error(wrong, right) < 1e-5
    print(f"G = {G}: same shape {wrong.shape == right.shape}, equal {same}")
    assert same == (G != 2)

# %% [markdown]
# Only with a true group: tests with MHA or MQA pass. Training does not notice either,
# since the wrong pairing is grouped-query attention with its heads in another order. The
# bug shows when weights come from elsewhere.
#
# **A mask in the wrong corner.** During training $T = S$ and the mask is a square with
# its lower left half set. With a cache the mask is $T \times S$, and the diagonal has to
# end in the *bottom right* corner: the last query sees the last key. Code that builds it
# as `ones(T, S).tril()` lines up the top left corner. PyTorch's
# `scaled_dot_product_attention(..., is_causal=True)` does the same, by design.

# %%
def top_left(n_queries, n_keys, device="cpu"):
    return torch.ones(n_queries, n_keys, dtype=torch.bool, device=device).tril()


def off_by_one(n_queries, n_keys, device="cpu"):
    ones = torch.ones(n_queries, n_keys, dtype=torch.bool, device=device)
    return ones.tril(n_keys - n_queries + (n_keys > n_queries))  # one too far


masks = {"right": ops.causal_mask, "top left": top_left, "off by one": off_by_one}
alt = """Three masks of three queries by five keys, two of them cached. Right: the rows
see 3, 4 and 5 keys. Top left: 1, 2 and 3 keys. Off by one: 4, 5 and 5 keys."""
with figure(alt, size=(9, 2.5)) as fig:
    for ax, (name, make) in zip(fig.subplots(1, 3), masks.items()):
        ax.pcolormesh(make(3, 5), cmap="Blues", vmax=1.6, edgecolors="white", lw=2)
        ax.set(title=name, xlabel="key", ylabel="new query", aspect="equal")
        ax.set(xticks=np.arange(5) + 0.5, xticklabels=range(5))
        ax.set(yticks=np.arange(3) + 0.5, yticklabels=(2, 3, 4))
        ax.invert_yaxis()
        ax.grid(visible=False)

# %% [markdown]
# (`off_by_one` is wrong only when there is a cache: each new token also sees the one
# after it.) A model runs with each mask, on the naive path:

# %%
right_mask = ops.causal_mask
try:
    for name, make in masks.items():
        ops.causal_mask = make
        with torch.no_grad(), ops.paths(attention="naive"):
            trained_alike = error(model(tokens), whole) < 1e-5
            pieces = in_pieces(model, tokens, 40, 50)  # [B, T, V]
            one_by_one = in_pieces(model, tokens, *range(40, 64))  # [B, T, V]
        uneven, single = (error(x, whole) < 1e-5 for x in (pieces, one_by_one))
        print(f"{name:12} no cache: {trained_alike}", end="  ")
        print(f"in pieces: {uneven!s:6} one by one: {single}")
        assert trained_alike
        assert (uneven, single) == (name == "right", name != "top left")
finally:
    ops.causal_mask = right_mask

from torch.nn.functional import scaled_dot_product_attention as sdpa

q, k = torch.randn(1, 1, 3, 16), torch.randn(1, 1, 5, 16)  # [B, H, T or S, d]
built_in = sdpa(q, k, k, is_causal=True)  # [B, H, T, d]
same = torch.equal(built_in, sdpa(q, k, k, top_left(3, 5)))
print("PyTorch's is_causal=True is top left:", same)
assert same

# %% [markdown]
# Without a cache all three are the same, so **training is not affected and the loss
# falls as it should**. The off-by-one mask even survives ordinary decoding, because the
# last token has none after it. It breaks when several tokens follow a cache: a prompt
# read in pieces, a second turn of a chat, several tokens checked at once. The check that
# finds both is "uneven pieces equal the whole".
#
# ## Does it matter?
#
# The cache costs no quality. Fewer key-value heads may. Small models over bytes learned
# Python code with 8, 2 or 1 key-value heads for 8 query heads. What the smaller `wk` and
# `wv` save went into the feed-forward network, so all have the same number of parameters.
# Three seeds each; in a seed all saw the same text. The script is
# `experiments/04_attention.py`.
#
# **Predict**: how much higher is the loss with two heads, and with one?

# %%
import json
from importlib.resources import files

log = files("deepseek_mini") / "assets/logs/04_attention.jsonl"
head, *records = [json.loads(line) for line in log.read_text().splitlines()]
loss = {
    G: np.array([r["loss"] for r in records if r["n_kv_heads"] == G])  # [seeds]
    for G in (8, 2, 1)
}
print(f"{head['hardware']}, torch {head['torch']}, {head['date']}")
print(f"{head['seconds'] / 60:.0f} minutes of processor time")
print("parameters of every model:", *{f"{r['parameters']:,}" for r in records})
print("G   loss, nats per byte: mean   each seed       more than G = 8, each seed")
for G, runs in loss.items():
    each = " ".join(f"{x:.3f}" for x in runs)
    more = " ".join(f"{x:+.3f}" for x in runs - loss[8])
    print(f"{G}   {runs.mean():26.3f}   {each}   {more}")

# %%
alt = """Validation loss for 8, 2 and 1 key-value heads, three seeds each joined by a
line. The lines cross, and no number of heads is best in all seeds."""
with figure(alt, size=(6, 3.4)) as fig:
    ax = fig.subplots()
    for seed, runs in enumerate(zip(*loss.values())):
        ax.plot(range(3), runs, "o-", label=f"seed {seed}")
    ax.set(xticks=range(3), xticklabels=[f"G = {G}" for G in loss])
    ax.set(ylabel="loss (nats per byte)", xlim=(-0.3, 2.3))
    ax.legend()
for G in (2, 1):
    more = loss[G] - loss[8]  # [seeds]
    assert more.min() < 0 < more.max() and np.abs(more).max() < 0.04

# %% [markdown]
# **Within noise**: both are worse than 8 heads in some seeds and better in others, by less
# than 0.04 nats of about 1.6. What was given up is too small to be measured here. Large
# models are reported otherwise. In the GQA paper's T5, whose trained key-value heads were
# merged, one head costs a little quality and eight almost none. In DeepSeek-V2's
# appendix, three 7B models of equal size, multi-head attention is clearly ahead of both
# on four hard benchmarks. We have measured neither.
#
# A small version, live: one seed, a sixth of the steps, half the rows in each step.

# %%
from deepseek_mini.data import python_code
from torch.nn import functional as F

corpus = python_code()  # modules of Python's standard library
parts = ("".join(d.text for d in docs) for docs in (corpus.train, corpus.validation))
training, validation = (
    torch.tensor(bytearray(part, "utf-8"), dtype=torch.int64) for part in parts
)  # [N] each


def loss_on(model, data, start):
    window = data[start + torch.arange(129)]  # [B, T + 1]
    return F.cross_entropy(model(window[:, :-1]).mT, window[:, 1:])


def trained(config, steps=100, rows=8, peak=4e-3):
    torch.manual_seed(0)
    model = dm.Transformer(config)
    adam = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95))
    for step in range(steps):
        adam.param_groups[0]["lr"] = peak * min((step + 1) / 20, 1 - 0.9 * step / steps)
        loss = loss_on(model, training, torch.randint(len(training) - 129, (rows, 1)))
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
    return model.eval()

# %%
small = Config(
    vocab_size=256,
    dim=96,
    n_layers=2,
    max_seq_len=128,
    attention=GQA(n_heads=8, n_kv_heads=8, head_dim=12),
    dense=SwiGLU(inter_dim=256),
    init_std=0.05,
)
wider = {8: 256, 1: 312}  # the feed-forward width that makes up for G
start = torch.linspace(0, len(validation) - 129, 200).long()[:, None]  # [B, 1]
live = {}
for G in (8, 1):
    part = replace(small.attention, n_kv_heads=G)
    config = replace(small, attention=part, dense=SwiGLU(wider[G]))
    assert dm.count(config).parameters == dm.count(small).parameters
    model = trained(config)
    with torch.no_grad():
        live[G] = loss_on(model, validation, start).item()
print("both learn (below 2.9, guessing is 5.5):", max(live.values()) < 2.9)
print("8 and 1 heads within 0.2 nats:", abs(live[8] - live[1]) < 0.2)
assert max(live.values()) < 2.9 and abs(live[8] - live[1]) < 0.2

# %% [markdown]
# One short run has a wide bound, and agrees with the log: one key-value head learns as
# well as eight, as far as this can show.
#
# ## Prefill against decode
#
# Fewer operations are not the whole story. A processor must also fetch the numbers it
# works on. **Arithmetic intensity** is operations per byte fetched. An H100 does about
# 295 operations in bfloat16 in the time that it takes to fetch one byte (989 TFLOP/s
# over 3.35 TB/s, NVIDIA's data sheet); with fewer than that to do, it waits for memory.
#
# A step fetches all weights once, however many sequences $B$ run together, and each
# sequence's own cache.

# %%
def intensity(config, S, T=1, B=1):
    """Operations per byte when B sequences of S tokens read T more, in bfloat16."""
    one = dm.count(config, seq_len=S)
    embedding = one.parts["embedding"]  # a lookup: no products, hardly any bytes
    weights = 2 * (one.parameters - embedding)  # bytes
    return B * T * one.flops_per_token / (weights + B * one.kv_cache_bytes)


plain = replace(llm, attention=shapes["a key and a value for each head"])
multi_query = replace(llm, attention=replace(llm.attention, n_kv_heads=1))
print("67B at 4,096 tokens, operations per byte")
print(f"prefill, one sequence:           {intensity(llm, 4096, T=4096):7.1f}")
for B in (1, 16, 256):
    row = [intensity(config, 4096, B=B) for config in (plain, llm, multi_query)]
    print(f"decode, {B:3} sequences:", end=" ")
    print(", ".join(f"G = {G} {x:.1f}" for G, x in zip((64, 8, 1), row)))

# %% [markdown]
# (Weights and cache alone are counted as bytes, and a prefill's attention as if every
# token saw all 4,096.) Prefill is far above 295: it is bound by arithmetic. Decode of one
# sequence is near 1, because each weight is fetched for one product and one sum.
# **Predict**: does a larger batch cure that?

# %%
alt = """Operations per byte of a decode step of the 67B against the number of
sequences, 1 to 1,024, both axes logarithmic. All rise from about 1. G = 64 flattens
out at 13 and G = 8 below 92; only G = 1 rises past the line of the H100 at 295."""
batches = 2 ** np.arange(11)  # [N]
curves = {
    f"G = {G}": [intensity(config, 4096, B=B) for B in batches]
    for G, config in ((64, plain), (8, llm), (1, multi_query))
}
with figure(alt) as fig:
    ax = fig.subplots()
    for name, values in curves.items():
        ax.plot(batches, values, label=name)
    ax.axhline(295, color="black", lw=1, ls="-")
    ax.text(1, 330, "H100: 295")
    ax.set(xscale="log", yscale="log", ylabel="operations per byte")
    ax.set(xlabel="sequences decoded together", ylim=(0.7, 2000))
    ax.legend(loc="lower right")
limits = [
    one.flops_per_token / one.kv_cache_bytes
    for one in (dm.count(config, seq_len=4096) for config in (plain, llm, multi_query))
]
print("the limits for many sequences:", *(f"{x:.0f}" for x in limits))
heads_alone = [64 / config.attention.n_kv_heads for config in (plain, llm, multi_query)]
print("of attention alone, H / G:    ", *(f"{x:.0f}" for x in heads_alone))
assert limits[1] < 295 < curves["G = 1"][-1]

# %% [markdown]
# Not for $G = 64$, which can never pass 13, nor quite for the released model with its 92.
# A larger batch shares the weights, not the caches: each sequence has its own. Attention
# alone does $4Hd$ operations in a layer for each cached token and fetches $4Gd$ bytes, so
# **$H/G$ operations per byte**, whatever the context and the batch. A smaller $G$ takes
# less room and leaves less to fetch.
#
# ## At full size
#
# The caches of every dense model, in bfloat16. *Full* is one sequence at the model's own
# limit.

# %%
print(f"{'':29} {'H':>3} {'G':>3} {'bytes/token':>12} {'context':>8}", end=" ")
print(f"{'full':>8} {'weights':>9}")
for name, config in dm.presets.PRESETS.items():
    if "mini" in name or config.moe is not None:
        continue
    one, part = dm.count(config), config.attention
    print(f"{name:29} {part.n_heads:3} {part.n_kv_heads:3}", end=" ")
    print(f"{one.kv_cache_bytes_per_token:12,} {config.max_seq_len:8,}", end=" ")
    print(f"{one.kv_cache_bytes / 1e9:5.2f} GB {2 * one.parameters / 1e9:6.1f} GB")
seven = dm.count(dm.Config.preset("deepseek-llm-7b")).kv_cache_bytes_per_token
assert seven > dm.count(llm).kv_cache_bytes_per_token

# %% [markdown]
# The 7B, with a key and a value per head, stores more for each token than the 67B, which
# has over three times the layers. And Coder 6.7B fills its 16,384 tokens with 8.59 GB, more
# than half of what its weights take.
#
# Move the number of key-value heads of the 67B and the context. (A live slider needs a
# running notebook; below it are three settings.)

# %%
from deepseek_mini.lesson import Choice, Slider, settings_figure, slider_figure


def draw_cache(fig, G, context):
    above, below = fig.subplots(2, 1, height_ratios=(2, 1))
    draw_heads(above, 64, G)
    config = replace(llm, attention=replace(llm.attention, n_kv_heads=G))
    size = dm.count(config, seq_len=context * 1024).kv_cache_bytes / 1e9
    below.barh(0, size, color=PALETTE[0])
    below.set_title(f"{size:.2f} GB of cache", loc="left", fontsize=10)
    below.axvline(80, color="black", lw=1, ls="-")
    below.text(86, 0.55, "80 GB: one H100", fontsize=9)
    below.set(xlim=(0, 510), ylim=(-0.5, 1.1), yticks=[], xlabel="GB")


widget = slider_figure(
    draw_cache,
    alt="64 query heads fan into {G} key-value heads; the cache of {context}K tokens.",
    size=(7, 3.6),
    G=Choice((64, 32, 16, 8, 4, 2, 1), start=8, label="key-value heads G"),
    context=Slider(1, 128, start=128, label="context (K tokens)"),
)

# %%
settings_figure(
    draw_cache,
    {f"G = {G}, 128K tokens": {"G": G, "context": 128} for G in (64, 8, 1)},
    alt="""Three settings at 128K tokens. G = 64: 408 GB of cache. G = 8: 51 GB. G = 1:
    6.4 GB. One H100 has 80 GB.""",
    size=(11, 3.6),
)

# %% [markdown]
# The 67B was trained on 4,096 tokens; 128K is the context of later models, which needed
# more than a smaller $G$ (lesson 09).
#
# ## A softmax in pieces
#
# During prefill the cache is not the problem. DeepSeek-V3 has 128 heads, and for 8,192
# tokens `naive_attention` would make $128 \cdot 8192^2$ scores: 34 GB in float32. The
# fused path never has them all. It takes the keys a block at a time and keeps three
# things per query: the largest score $m$ so far, the sum $z$ of $e^{x - m}$ over all
# scores $x$ so far, and the sum $a$ of the values, each times its $e^{x - m}$. They start
# at $-\infty$, 0 and 0. For a block of scores $x_s$ and values $v_s$,
#
# $$m' = \max(m, \max_s x_s), \quad
# z' = z\,e^{m - m'} + \sum_s e^{x_s - m'}, \quad
# a' = a\,e^{m - m'} + \sum_s e^{x_s - m'} v_s.$$
#
# When a larger score appears, $e^{m - m'}$ shrinks what was summed with the smaller one.
# At the end the output is $a / z$. By hand, token 2 of the first head: scores $0, \ln 2,
# \ln 3$ and values $6, 12, 0$, two keys and then one.
#
# | after | $m$ | $z$ | $a$ | output |
# |---|---|---|---|---|
# | keys 0 and 1 | $\ln 2$ | 1/2 + 1 = 1.5 | 6/2 + 12 = 15 | 10 |
# | key 2 | $\ln 3$ | 1.5 · 2/3 + 1 = 2 | 15 · 2/3 + 0 = 10 | 5 |
#
# 5, as above; and after two keys 10, what token 1 read. This is the **running softmax**.

# %%
def in_blocks(scores, v, block):
    top = np.full(len(scores), -np.inf)  # [T]
    total = np.zeros(len(scores))  # [T]
    acc = np.zeros((len(scores), v.shape[-1]))  # [T, d]
    for start in range(0, len(v), block):
        x = scores[:, start : start + block]  # [T, block]
        new_top = np.maximum(top, x.max(axis=-1))  # [T]
        p = np.exp(x - new_top[:, None])  # [T, block]
        shrink = np.exp(top - new_top)  # [T]: 0 at first, e^-inf
        total = total * shrink + p.sum(axis=-1)  # [T]
        acc = acc * shrink[:, None] + p @ v[start : start + block]  # [T, d]
        top = new_top
    return acc / total[:, None]  # [T, d]


scores = np.log([[1.0, 2.0, 3.0]])  # [T, S]
hand = in_blocks(scores, np.array([[6.0], [12.0], [0.0]]), block=2)  # [T, d]
print("by hand:", hand.round(12))
q, k, v = 9 * rng.normal(size=(3, 50, 16))  # [S, d] each
q = q[-37:]  # [T, d]: the last 37 of 50 tokens ask
may_look = ops.causal_mask(37, 50).numpy()  # [T, S]
scores = np.where(may_look, q @ k.T / 4, -np.inf)  # [T, S]
whole = one_head(q, k, v)[0]  # [T, d]
ladder(
    "The running softmax",
    [(f"blocks of {n} = at once", in_blocks(scores, v, n), whole, 1e-12)
     for n in (1, 7, 16, 50)],
)  # fmt: skip
print("scores beyond 88, where float32's exponential ends:", scores.max() > 88)
assert np.isclose(hand, 5) and scores.max() > 88

# %% [markdown]
# Less the largest score so far, no exponential is above 1. A query's first block must
# hold a key that it sees, or $m$ stays $-\infty$ and $-\infty + \infty$ is not a number.
# Key 0 is in the first block, and every query sees it.
#
# ## The kernel
#
# A **kernel** is a function that a GPU runs many times at once; ours is written in
# Triton, a Python dialect for kernels (lesson 20 starts from zero). It is DeepSeek-V3's
# prefill: all $H = 128$ heads have keys and values of their own, made from a latent
# (lesson 09). A key has $128 + 64 = 192$ channels; the last 64, which RoPE turns, are the
# same for all heads. A value has 128.

# %%
show("kernels.mla_prefill_parts.load_rows", docstrings=False)
show("kernels.mla_prefill_parts.block_scores", docstrings=False)
show("kernels.mla_prefill.attend")

# %%
show("kernels.mla_prefill.prefill_kernel", "kernels.mla_prefill.TILES")

# %% [markdown]
# `attend` is the body of our loop, with the same names (`scores` is its `x`). Line by
# line:
#
# - **A program**, one run of `prefill_kernel`, takes `BLOCK_M` queries, from `first` on, of
#   head `h` of text `b` (`program_id` tells which) and walks over the keys, `BLOCK_N` at a
#   time. `TILES` has `BLOCK_M`, `BLOCK_N`, `num_warps` and `num_stages` by architecture.
#   90 is the H100: 128 queries and 128 keys.
# - **Addresses.** `q_nope` is the address of the tensor's first number. Its *strides*
#   `q_n_b`, `q_n_t`, `q_n_h` tell how far on the next text, token and head lie. Texts may
#   differ in length: `length` and `new` are this one's $S$ and $T$.
# - **`load_rows`** fetches a **tile**, a block of numbers: $k$ in two parts, of `N` = 128
#   and `R` = 64 channels. `k_r_at` has no `h` in it: the shared part is read where it lies,
#   never copied to the heads. With `MASKED`, rows behind the end of a text are not read
#   and count as zeros.
# - **`block_scores`** adds the products of both parts. `tl.dot` multiplies tiles on the
#   *tensor cores*, the units for matrix products. A GPU has an instruction for $2^x$ and
#   none for $e^x$, so scores are in base 2: `scale_log2` holds $1/\sqrt{192}$ and
#   $1/\ln 2$ in one. (With YaRN it also holds the temperature, lesson 03.) With `MASKED`,
#   a key later than the query's own has the score `NEVER`, $-\infty$. Only float32 inputs
#   notice `"ieee"`: they are not rounded.
# - **Types.** `top`, `total` and `acc` are float32 and stay in *registers*, the places that
#   a GPU's threads compute in. The weights `p` are rounded to bfloat16 before they meet
#   `v`, because both factors of a product must have one type. Its sums are in float32.
# - **Two loops.** Up to `whole` every query of the program sees every key: no mask. From
#   there to `end` the tile lies on the diagonal and is masked. A tile that begins at or
#   behind `end` is never fetched. `position` is the query's own key, so with a cache the
#   diagonal ends in the bottom right corner.
# - **Order.** The last queries have the longest walk, so they get the first programs. A
#   GPU promises no order but usually starts those first; then no long one is left over
#   when the short ones are done.
# - **The end.** The output is `acc` over `total`, and 0 for a query that is only padding
#   (not `real`). **`lse`**, the logarithm of the sum of exponentials, back in base $e$, is
#   kept for the backward pass.

# %%
def kinds_of_tiles(T, S, M=128, N=128):
    """As the kernel's bounds have it: 0 skipped, 1 masked, 2 whole."""
    kinds = np.zeros((-(-T // M), -(-S // N)), dtype=int)  # [programs, blocks of keys]
    for program, first in enumerate(range(0, T, M)):
        end = min(S - T + first + M, S)
        whole = min(S - T + first + 1, end) // N * N
        kinds[program, : -(-end // N)] = 1
        kinds[program, : whole // N] = 2
    return kinds


def from_mask(T, S, M=128, N=128):
    """The same from the mask itself: no key of the tile is seen, some are, all are."""
    blocks = -(-S // N)
    seen = np.zeros((T, blocks * N), dtype=bool)  # [T, S or more]
    seen[:, :S] = ops.causal_mask(T, S).numpy()
    tiles = [rows.reshape(-1, blocks, N) for rows in np.split(seen, range(M, T, M))]
    any_all = [(t.any((0, 2)), t.all((0, 2))) for t in tiles]
    return np.array([a.astype(int) + b for a, b in any_all])  # [programs, blocks]


texts = {"a text of 1,024": (1024, 1024), "400 more after 600": (400, 1000)}
for name, (T, S) in texts.items():
    kinds = kinds_of_tiles(T, S)
    print(f"{name:20} skipped, masked, whole:", np.bincount(kinds.ravel(), minlength=3))
    assert (kinds == from_mask(T, S)).all()

# %%
alt = """Queries by keys in tiles of 128. A text of 1,024: eight by eight tiles, blue
below the diagonal, orange on it, white above. 400 tokens after 600: four rows of eight;
the orange tiles begin at key 512 and go down to the right to the last one."""
with figure(alt, size=(10, 4.6)) as fig:
    colors = ["white", PALETTE[4], PALETTE[5]]
    for ax, (name, (T, S)) in zip(fig.subplots(1, 2), texts.items()):
        for (program, block), kind in np.ndenumerate(kinds_of_tiles(T, S)):
            top, left = 128 * program, 128 * block
            corner = {"height": min(128, T - top), "left": left, "align": "edge"}
            ax.barh(top, 128, color=colors[kind], ec="#888888", **corner)
        ax.plot([S - T, S], [0, T], color="black", lw=1, ls="-")
        ax.set(xlim=(0, 1024), ylim=(T, 0), aspect="equal", title=name)
        ax.set(xticks=range(0, 1025, 256), xlabel="key", ylabel="query")
        ax.set_yticks(range(0, T, 128))
        ax.grid(visible=False)
    from matplotlib.patches import Patch

    names = ("skipped", "masked", "whole")
    keys = [Patch(fc=c, ec="#888888", label=n) for c, n in zip(colors, names)]
    fig.legend(handles=keys, loc="outside lower center", ncols=3)

# %% [markdown]
# A row of tiles is one program, and the black line is each query's own key. (Keys behind
# the 1,000th are masked, too.)
#
# Why tiles of this size? Each key that a program fetches serves all of its queries, so a
# taller tile fetches less. A program runs on one of the GPU's *multiprocessors*. The limits
# are its *shared memory*, where tiles wait (227 KB on an H100), and the 255 registers of a
# thread; a *warp* is 32 threads, so 8 are 256. Two `num_stages` mean that the next tile of
# keys and values arrives while this one is multiplied. The tests compile this tile for an
# H100, and assert that it has the instruction of its tensor cores and that no register
# spills into memory.

# %%
M = N = 128
key, value, T, H = 192, 128, 8192, 128  # channels of each; tokens; heads
shared = 2 * (M * key + 2 * N * (key + value))  # bytes: queries, two stages
print(f"shared memory: {shared / 1024:.0f} KB of 227")
print(f"registers a thread: {M * value // 256} for acc, {M * N // 256} for scores")
pairs = T * (T + 1) // 2  # of a query and a key that it sees
flops = 2 * H * pairs * (key + value)
moved = 2 * T * (H * (128 + key + 2 * value) + 64)  # k, q, v, out; the shared part
times = [flops / 800e12, moved / 3.0e12]  # seconds
print(f"{flops / 1e12:.2f} T operations: {times[0] * 1e3:.2f} ms", end="; ")
print(f"{moved / 1e9:.2f} GB: {times[1] * 1e3:.2f} ms; floor {max(times) * 1e3:.2f} ms")
tiles = np.bincount(kinds_of_tiles(T, T).ravel())
done = (tiles[1] + tiles[2]) * M * N
fetched = 2 * H * (tiles[1] + tiles[2]) * N * (key + value)
print(f"the tiles compute {done / pairs - 1:.1%} more scores than are seen")
print(f"they fetch {fetched / 1e9:.1f} GB of keys and values: {fetched / 3.0e9:.1f} ms")
print(f"keys and values of one head: {2 * T * (key + value) / 1e6:.1f} MB")
print(f"programs of one head: {T // M}")
print(f"all scores in float32: {4 * H * T * T / 1e9:.0f} GB")
assert shared == 208 * 1024 and round(max(times) * 1e5) == 344

# %% [markdown]
# The **floor** is the time that no kernel can beat at given rates: the larger of operations
# over their rate and bytes over bandwidth, for an H100 of 800 TFLOP/s in bfloat16 and 3.0
# TB/s. Both are assumed, below its data sheet and not measured. Unlike decode, prefill
# would be bound by arithmetic if each number came from memory once. But a key is fetched
# by every program whose queries see it, and from memory that alone would take longer than
# the floor. So the order of programs matters.
# An H100 has 132 multiprocessors, with room in shared memory for one program each. If the
# programs that run together are neighbours, they belong to three or four heads, whose keys
# and values fit into the 50 MB of cache between memory and multiprocessors.
#
# **The backward pass** does not store the weights either: it computes them again, as
# $e^{x - \text{lse}}$. It walks twice. A program of `queries_kernel` holds queries and
# walks over their keys, along a row of the picture, for the gradient of $q$. A program of
# `keys_kernel` holds keys and walks over the queries that see them, down a column, for
# the gradients of $k$ and $v$. So no two programs add to the same place, at the price of
# computing the scores and the weights' gradient twice:

# %%
rows = key + value + key  # scores; gradient of the weights; of q
columns = key + value + value + key  # scores; gradient of v; of the weights; of k
print(f"backward: {(rows + columns) / (key + value):.1f} times the forward's products")
print(f"without the second walk: {(rows + value + key) / (key + value):.1f} times")

# %% [markdown]
# Is it right? Triton's interpreter runs it here on the CPU, on 70 tokens with keys of 48
# channels and values of 32, against PyTorch in float32:

# %%
from deepseek_mini.lesson import gpu_section, interpreted_section

interpreted_section("mla_prefill")

# %% [markdown]
# The bound is $2^{-7}$ of the largest number: the weights and the result are rounded to
# bfloat16, $2^{-8}$ each. The gradients have two such products in a row, and twice the
# bound. And on a GPU:

# %% tags=["nbval-ignore-output"]
gpu_section("mla_prefill")

# %% [markdown]
# GQA as in the 67B has no kernel in this course; the decode kernel is MLA's (lesson 09).
#
# ## What this proves, and what it does not
#
# - Proved: NumPy, the naive and the fused path and `transformers` compute the same
#   attention for MHA, GQA and MQA on random weights; cached in pieces equals whole.
# - Counted, not timed: operations and bytes. A real step also waits for launches, for
#   norms and for communication between GPUs.
# - Measured: 0.27 million parameters and 128 bytes of context. The order of 8, 2 and 1
#   heads here says little about 67 billion.
# - Not shown: what a smaller $G$ costs a large model. The reports above say: something.
# - Proved: the prefill kernel computes what PyTorch computes, interpreted on a CPU at
#   small sizes, forward and backward. Its floor is counted from assumed rates; no kernel
#   has run on a GPU yet, so its speed is not known.
#
# ## Exercises
#
# The [exercises](../exercises/04_attention.ipynb), about an hour: the mask with a cache,
# one head, grouped heads, a cache, and the operations per byte of a decode step. (After
# `make lab`, take your own copy in `work/`.)
#
# ## References
#
# - A. Vaswani and others, *Attention Is All You Need*, arXiv 1706.03762, §3.2.
# - N. Shazeer, *Fast Transformer Decoding: One Write-Head is All You Need*, arXiv
#   1911.02150 (multi-query attention, and the ratio of memory to arithmetic).
# - J. Ainslie and others, *GQA*, arXiv 2305.13245, §2.2.
# - *DeepSeek LLM*, arXiv 2401.02954, §2.2: GQA in the 67B. *DeepSeek-V2*, arXiv
#   2405.04434, appendix D.1: MHA, GQA and MQA compared at 7B.
# - PyTorch's documentation of `scaled_dot_product_attention` has the mask that
#   `is_causal` makes.

# ===== exercises =====
# %% [markdown]
# # 04 · Attention: exercises
#
# Five exercises on [lesson 04](../notebooks/04_attention.ipynb), about an hour in all.
# Each has the formulas it needs, and none needs another one: leave out what you like.
#
# Write your answer where a cell raises `NotImplementedError`, and run that cell. The
# next cell is for trying it: take away the `#` at its lines of code, run it, and compare
# with what should come out. The cell with `check` then calls your answer on other
# inputs, and prints one line; below it a hint, and what your function printed, when
# something is not right yet. If a cell never ends, stop it (the square button).
#
# `T` counts the new tokens, which ask; `S` counts the keys: those in the cache and those
# of the new tokens, which come last. `B` is the number of sequences in a batch, `H` of
# query heads, `G` of key-value heads, and `d` the width of a head's queries and keys.

# %%
import numpy as np
import torch

import deepseek_mini as dm
from deepseek_mini.lesson import check, setup

setup(seed=0)

# %% [markdown]
# ## 04.1 The mask
#
# *One line, 5 minutes.* Return a boolean tensor [T, S] that is True where a query may
# look. The keys are those of the whole text so far, and the T queries belong to its
# *last* T tokens. A query sees its own token's key and all before it, none after it.
#
# By hand, 2 new tokens after 3 cached ones, so $T = 2$ and $S = 5$: the first query
# belongs to token 3 and sees keys 0 to 3, the second sees all five.

# %%
def causal_mask(n_queries: int, n_keys: int) -> torch.Tensor:
    """True where a query may look: bool [n_queries, n_keys]."""
    ### BEGIN SOLUTION
    ones = torch.ones(n_queries, n_keys, dtype=torch.bool)  # [T, S]
    return ones.tril(n_keys - n_queries)
    ### END SOLUTION

# %%
# To try it, take away the # of the last line. It should print
# [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
# print(causal_mask(2, 5).int().tolist())

# %%
check("04.1", causal_mask)

# %% [markdown]
# ## 04.2 One head
#
# *A few lines, 12 minutes.* One head in NumPy, float64. `q` [T, d] holds the queries of
# the last T of S tokens, `k` [S, d] and `v` [S, c] the keys and values of all S. Return
#
# $$\mathrm{out}_t = \sum_s a_{ts} v_s, \qquad
#   a_{ts} = \frac{e^{q_t \cdot k_s / \sqrt d}}{\sum_r e^{q_t \cdot k_r / \sqrt d}},$$
#
# for $t = 0, \dots, T - 1$, both sums over the keys that the query may see: its own token's
# and all before it. Query $t$ belongs to token $S - T + t$. Scores may be in the
# thousands, above 0 and below, where $e^x$ overflows or is 0; subtracting the same number
# from all scores of a row leaves its weights as they are.
# The values may have another width than the keys.
#
# By hand, with $d = 4$, so that scores are halved: keys $(0, 0, 0, 0)$ and
# $(2\ln 3, 0, 0, 0)$, values 8 and 4. A query $(1, 0, 0, 0)$ of the second token has the
# scores 0 and $\ln 3$, so the weights 1/4 and 3/4, and reads $2 + 3 = 5$. If both tokens
# ask so, the first sees only itself and reads 8.

# %%
def one_head(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Causal attention of the last T of S tokens: q [T, d], k [S, d], v [S, c]."""
    ### BEGIN SOLUTION
    T, S = len(q), len(k)
    scores = q @ k.T / np.sqrt(q.shape[-1])  # [T, S]
    hidden = np.arange(S) > np.arange(S - T, S)[:, None]  # [T, S]
    scores = np.where(hidden, -np.inf, scores)  # [T, S]
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))  # [T, S]
    return weights / weights.sum(axis=-1, keepdims=True) @ v  # [T, c]
    ### END SOLUTION

# %%
# To try it, take away the # of the lines of code. It should print [8. 5.] [5.]
# q = np.array([[1.0, 0, 0, 0], [1, 0, 0, 0]])  # [T, d]
# k = np.array([[0.0, 0, 0, 0], [2 * np.log(3), 0, 0, 0]])  # [S, d]
# v = np.array([[8.0], [4.0]])  # [S, c]
# print(one_head(q, k, v)[:, 0].round(6), one_head(q[1:], k, v)[:, 0].round(6))

# %%
check("04.2", one_head)

# %% [markdown]
# ## 04.3 Scores of grouped heads
#
# *Some thought, 12 minutes.* In PyTorch: H query heads and G key-value heads; G divides
# H, and each $H/G$ *consecutive* query heads share a key head. Return every query head's
# scores $q \cdot k / \sqrt d$, as [B, H, T, S]. No mask, no softmax.
#
# By hand, with $d = 4$, $H = 4$, $G = 2$ and one token: in the first channel are the
# queries 1, 2, 3, 4 and the keys 20 and 200, in the others zeros. Heads 0 and 1 share
# the first key, heads 2 and 3 the second, and scores are halved: 10, 20, 300, 400.

# %%
def grouped_scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """q [B, T, H, d], k [B, S, G, d]: scores [B, H, T, S]."""
    ### BEGIN SOLUTION
    H, G = q.shape[2], k.shape[2]
    k = k.repeat_interleave(H // G, dim=2)  # [B, S, H, d]
    return torch.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5  # [B, H, T, S]
    ### END SOLUTION

# %%
# To try it, take away the # of the lines of code. It should print
# [10.0, 20.0, 300.0, 400.0]
# [2, 6, 3, 5]
# q, k = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 2, 4)  # [B, T or S, H or G, d]
# q[0, 0, :, 0] = torch.tensor([1.0, 2.0, 3.0, 4.0])
# k[0, 0, :, 0] = torch.tensor([20.0, 200.0])
# print(grouped_scores(q, k).flatten().tolist())
# q, k = torch.randn(2, 3, 6, 4), torch.randn(2, 5, 2, 4)  # [B, T or S, H or G, d]
# print(list(grouped_scores(q, k).shape))

# %%
check("04.3", grouped_scores)

# %% [markdown]
# ## 04.4 A cache
#
# *A few lines each, 15 minutes.* Write a cache for one layer. It starts empty.
# `append(k, v)` takes the keys and values of T new tokens, [B, T, G, d] each, and
# returns those of *all* tokens so far as a pair, [B, S, G, d] each, oldest first. B, G
# and d are the same in every call; T is 1 or more and may change. `truncate(length)`
# keeps the first `length` tokens, from 0 to all of them, and forgets the rest; the next
# `append` goes on from there. (An empty cache may be truncated to 0.) The attribute or
# property `length` tells how many tokens the cache holds.
#
# By hand: append tokens a, b, c; then d: the second call returns a, b, c, d. Truncate to
# 1 and append e: it returns a, e, and `length` is 2.

# %%
class Cache:
    """Keys and values of one layer's tokens so far."""

    def __init__(self):
        ### BEGIN SOLUTION
        self.keys = self.values = None
        self.length = 0
        ### END SOLUTION

    def append(
        self, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add k, v [B, T, G, d]; return all keys and all values, [B, S, G, d] each."""
        ### BEGIN SOLUTION
        if self.length:
            k = torch.cat((self.keys, k), dim=1)  # [B, S, G, d]
            v = torch.cat((self.values, v), dim=1)  # [B, S, G, d]
        self.keys, self.values, self.length = k, v, k.shape[1]
        return k, v
        ### END SOLUTION

    def truncate(self, length: int) -> None:
        """Keep the first `length` tokens."""
        ### BEGIN SOLUTION
        if length:
            self.keys, self.values = self.keys[:, :length], self.values[:, :length]
        self.length = length
        ### END SOLUTION

# %%
# To try it, take away the # of the lines of code. It should print
# 0
# [0, 1, 2, 3] then [0, 4] [0, -4] 2
# print(Cache().length)
# cache, x = Cache(), torch.arange(5.0).reshape(1, 5, 1, 1)  # [B, T, G, d]: a to e
# _ = cache.append(x[:, :3], -x[:, :3])
# print(cache.append(x[:, 3:4], -x[:, 3:4])[0].flatten().int().tolist(), end=" then ")
# cache.truncate(1)
# pair = cache.append(x[:, 4:], -x[:, 4:])  # [B, S, G, d] each
# print(*(y.flatten().int().tolist() for y in pair), cache.length)

# %%
check("04.4", Cache)

# %% [markdown]
# ## 04.5 Operations per byte of a decode step
#
# *Some thought, 12 minutes.* B sequences are decoded together, one new token each. Every
# sequence attends to `context` tokens, the new one included. Return the step's
# operations divided by the bytes that it fetches, as a float.
#
# - Operations, for each sequence: each of the `weights` numbers in the matrices of all
#   layers together takes part in one product and one sum, so 2. In each layer each of the H query heads does,
#   for every token of the context, $2d$ operations for the score and $2d$ to add up the
#   weighted values.
# - Bytes: every number has 2. The matrices are fetched once for all sequences; each
#   sequence's cache is its own, and all of it is fetched: in each layer and for every
#   token of the context, a key and a value of $d$ numbers for each of the G key-value
#   heads.
#
# `config` has `n_layers` and `attention` with `n_heads` (H), `n_kv_heads` (G) and
# `head_dim` (d).
#
# By hand, with two layers, $H = 2$, $G = 1$, $d = 4$, 1,000 weights, a context of 10 and
# one sequence. A head does $2d + 2d = 4 \cdot 4$ operations for a token of the context:
# $2000 + 2 \cdot 10 \cdot 2 \cdot (4 \cdot 4) = 2640$ operations in all. A key and a value
# are 8 numbers: $2 \cdot (1000 + 2 \cdot 10 \cdot 8) = 2320$ bytes, and so 1.1379. With
# two sequences it is $5280 / 2640 = 2$.

# %%
def decode_intensity(
    config: dm.Config, weights: int, context: int, batch_size: int
) -> float:
    """Operations per byte of one decode step of `batch_size` sequences."""
    ### BEGIN SOLUTION
    part, L = config.attention, config.n_layers
    attended = 4 * L * context * part.n_heads * part.head_dim
    cached = 2 * L * context * part.n_kv_heads * part.head_dim
    operations = batch_size * (2 * weights + attended)
    return operations / (2 * (weights + batch_size * cached))
    ### END SOLUTION

# %%
# To try it, take away the # of the lines of code. It should print 1.1379 2.0
# heads = dm.config.GQA(n_heads=2, n_kv_heads=1, head_dim=4)
# ffn = dm.config.SwiGLU(inter_dim=8)
# tiny = dm.Config(50, dim=8, n_layers=2, max_seq_len=64, attention=heads, dense=ffn)
# print(*(round(decode_intensity(tiny, 1000, 10, B), 4) for B in (1, 2)))

# %%
check("04.5", decode_intensity)

# %% [markdown]
# Next: [lesson 05](../notebooks/05_deepseek_llm.ipynb) puts attention and everything
# else together into DeepSeek-LLM.
