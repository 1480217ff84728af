# %% [markdown]
# # 05 · DeepSeek-LLM: the whole dense model
#
# DeepSeek-LLM came in two sizes. The 7B has 30 layers, the 67B has 95. The large one has 9.8 times as many parameters, and yet its key-value cache for a text of 4,096 tokens is *smaller*: 1.59 GB against 2.01 GB. What is in those layers, where do 6.91 and 67.43 billion parameters sit, and which choice made the cache shrink?
#
# - **You will build** the whole model in NumPy, in seven short functions; read it in PyTorch; prove both equal to the `transformers` library; load a checkpoint that was written elsewhere; train a small model on real code, and let it write.
# - **You need** lesson 00 and lesson 03 (RoPE). RMSNorm and SwiGLU (lesson 02) and attention (lesson 04) are recalled in a line where they are used.
# - **Time**: about 60 minutes, and 50 for the exercises.
# - **Paper**: DeepSeek-LLM, sections 2.2, 2.3, 3.1 and 3.2.

# %%
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

import deepseek_mini as dm
from deepseek_mini.lesson import PALETTE, error, figure, ladder, setup, show

setup(seed=0)

# %% [markdown]
# ## What is in a model
#
# The recipe is LLaMA's. A token's id picks a row of the **embedding**, a table of $V$ rows (the vocabulary) and $D$ columns (the width of the model). This vector passes through $L$ layers, also called **blocks**. The **head**, a matrix of $V \times D$, turns the last vector into $V$ scores, the **logits**, one for every possible next token. Each block holds:
#
# | part | its matrices | parameters |
# |---|---|---|
# | norm before attention | one weight a channel | $D$ |
# | attention: $H$ query heads, $G$ key-value heads, each $d$ wide | `wq`, `wo`: $D \cdot Hd$ each; `wk`, `wv`: $D \cdot Gd$ each | $2D(H {+} G)d$ |
# | norm before the feed-forward network | one weight a channel | $D$ |
# | SwiGLU, $F$ channels wide | `w1`, `w3`, `w2`: $D \cdot F$ each | $3DF$ |
#
# After the last block comes one more norm ($D$). There are no biases, and the head does not share its numbers with the embedding. Count:

# %%
def parameters_by_hand(V, D, L, H, G, d, F):
    attention = 2 * D * (H + G) * d
    feed_forward = 3 * D * F
    block = D + attention + D + feed_forward
    return V * D + L * block + D + V * D  # embedding, blocks, last norm, head


small = dm.Config.preset("deepseek-llm-7b")
large = dm.Config.preset("deepseek-llm-67b")
by_hand = {
    "7B": parameters_by_hand(V=102_400, D=4096, L=30, H=32, G=32, d=128, F=11_008),
    "67B": parameters_by_hand(V=102_400, D=8192, L=95, H=64, G=8, d=128, F=22_016),
}
for (name, number), config in zip(by_hand.items(), (small, large)):
    report = dm.count(config, seq_len=4096, cache_dtype=torch.bfloat16)
    assert number == report.parameters
    cache = f"{report.kv_cache_bytes / 1e9:.2f} GB of cache at 4,096 tokens"
    print(f"{name:>3}: {number:14,} parameters, {cache}")
print(f"ratio of the parameters: {by_hand['67B'] / by_hand['7B']:.1f}")

# %% [markdown]
# **Predict**: the embedding and the head have 102,400 rows each. What share of the 7B do they hold together, and what share of the 67B? And in a miniature of 1,024 rows, 128 channels and 4 layers?

# %%
PARTS = ("embedding", "attention", "feed-forward", "head")


def draw_shares(ax, configs):
    """One bar of 100% for each config, cut into its parts."""
    for row, config in enumerate(configs.values()):
        report, left = dm.count(config), 0.0
        for part, color in zip(PARTS, PALETTE):
            share = 100 * report.parts[part] / report.parameters
            ax.barh(row, share, 0.62, left=left, color=color, label=part)
            if share > 4:
                ax.text(left + share / 2, row, f"{share:.0f}%", color="white",
                        ha="center", va="center")
            left += share
    ax.set_yticks(range(len(configs)), configs)
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.set_xlabel("share of all parameters, in percent")
    ax.legend(ax.patches[: len(PARTS)], PARTS, ncols=4, loc="lower center",
              bbox_to_anchor=(0.5, 1.0))
    ax.grid(axis="y", visible=False)


mini = dm.Config.preset("deepseek-llm-mini")
alt = """Three bars of 100 percent. Embedding and head together are 12 percent of the
7B, 2 percent of the 67B and 25 percent of the miniature. The feed-forward networks
are 59, 76 and 50 percent, attention 29, 21 and 25."""
bars = {"7B (6.91 B)": small, "67B (67.43 B)": large, "mini (1.05 M)": mini}
with figure(alt, size=(7.5, 2.6)) as fig:
    draw_shares(fig.subplots(), bars)
for name, config in (("7B", small), ("67B", large), ("mini", mini)):
    parts = dm.count(config).parts
    share = (parts["embedding"] + parts["head"]) / sum(parts.values())
    print(f"{name:>4}: embedding and head hold {share:.1%}")

# %% [markdown]
# The two tables grow with the width alone, the blocks with its square and with the number of layers. (The norms are counted, but too small to be seen.) Most of a dense model is feed-forward networks; they are what the mixture-of-experts models split up (lesson 08).
#
# ### What DeepSeek kept, and what it changed
#
# Kept from LLaMA 2: RMSNorm before each part, SwiGLU, RoPE with $\theta = 10{,}000$, no biases, 4,096 tokens of context. Changed (sections 2.2 and 2.3 of the paper):
#
# - **Depth, not width.** LLaMA 2 70B has 80 layers with 28,672 feed-forward channels. DeepSeek 67B has 95 layers with 22,016, at the same width of 8,192.
# - **Grouped-query attention in the 67B only**: 64 query heads share 8 keys and values. The 7B keeps one key and value per query head.
# - **102,400 embedding rows** for a tokenizer of 100,015 entries, Chinese and English; the rest is padding.
# - **Initial weights from $N(0, 0.006^2)$**, normally distributed with the standard deviation 0.006, and a **multi-step learning rate** in place of a cosine (below).
#
# `dm.diff` prints what the 67B changed against the 7B:

# %%
from deepseek_mini.config import GQA, Config, Rope, SwiGLU

print(dm.diff(small, large))
print()
llama2_70b = replace(
    large, vocab_size=32_000, n_layers=80, dense=SwiGLU(inter_dim=28_672)
)
for name, config in (("LLaMA 2 70B", llama2_70b), ("DeepSeek 67B", large)):
    layers = dm.count(config).parts
    per_layer = (layers["attention"] + layers["feed-forward"]) / config.n_layers
    print(f"{name}: {config.n_layers} layers of {per_layer / 1e6:.0f} M parameters")

# %% [markdown]
# (Layers, widths, heads and key-value heads are from the official README. The feed-forward widths and $\theta$ are not in it and unverified here; with them the totals are the published ones. LLaMA 2's shape is that of its released config, likewise.)
#
# ## By hand: one token through one block
#
# The vector that travels through the model is called the **residual stream**. A block never replaces it. Each part reads a *normed copy* and *adds* its result:
#
# $$x \leftarrow x + \mathrm{attn}(\mathrm{norm}(x)), \qquad
#   x \leftarrow x + \mathrm{ffn}(\mathrm{norm}(x))$$
#
# with $\mathrm{norm}(x) = x / \sqrt{\mathrm{mean}(x^2)}$ times a weight (here 1), and $\mathrm{ffn}(n) = W_2\,(\mathrm{silu}(W_1 n) \cdot W_3 n)$, where $\mathrm{silu}(z) = z / (1 + e^{-z})$. Take $D = 2$ channels, one head, $F = 1$, and the very first token, with $x = [1, 7]$. A token alone attends to itself with weight 1, and RoPE does not turn position 0, so attention is $W_o W_v\,n$.

# %%
Wv, Wo = np.eye(2), np.array([[0.0, 5.0], [5.0, 0.0]])
W1, W3, W2 = np.array([[1.0, 1.0]]), np.array([[0.5, 0.5]]), np.array([[1.0], [-1.0]])
head = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # [V, D]: three tokens

x = np.array([1.0, 7.0])
n = x / np.sqrt((x**2).mean())
lengths = [np.linalg.norm(x)]
print("stream", x, " normed", n, "  mean of squares", (x**2).mean())
x = x + Wo @ Wv @ n
n = x / np.sqrt((x**2).mean())
print("stream", x, " normed", n, "    after attention")
gate = (W1 @ n) / (1 + np.exp(-W1 @ n))
x = x + W2 @ (gate * (W3 @ n))
n = x / np.sqrt((x**2).mean())
print("stream", x.round(2), " normed", n.round(2), "after the feed-forward network")
lengths.append(np.linalg.norm(x))
print("logits", (head @ n).round(2), "-> token", (head @ n).argmax())
print(f"length of the stream: {lengths[0]:.1f} before, {lengths[1]:.1f} after")

# %% [markdown]
# On paper: the mean of $1$ and $49$ is $25$, so $n = [0.2, 1.4]$; attention swaps it and multiplies by 5, and $[1, 7] + [7, 1] = [8, 8]$. The gate is $\mathrm{silu}(2) = 1.76$, and $W_2$ adds it to the first channel and subtracts it from the second. The stream grew from length 7.1 to 11.6; the last norm brings it to one scale for the head.
#
# ## In NumPy: the whole forward pass
#
# $T$ is the number of tokens. `w` holds the weights under the names of our PyTorch model, and `c` is a `Config`. A weight matrix has a row for each output, so `x @ w.T` applies it to every token. First what treats each token alone:

# %%
def rms_norm(x, weight, eps):
    mean_square = (x * x).mean(axis=-1, keepdims=True)  # [T, 1]
    return x / np.sqrt(mean_square + eps) * weight  # [T, D]


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))  # as x; the largest becomes 1
    return e / e.sum(axis=-1, keepdims=True)  # as x; sums to 1


def swiglu(x, w):
    gate, up = x @ w["w1.weight"].T, x @ w["w3.weight"].T  # [T, F] each
    return (gate / (1 + np.exp(-gate)) * up) @ w["w2.weight"].T  # [T, D]


# %% [markdown]
# RoPE (lesson 03) in the *half-split* layout that Llama-shaped checkpoints use: channel $i$ turns together with channel $i + d/2$, by the token's position times $\theta^{-2i/d}$.

# %%
def rope(x, theta):
    half = x.shape[-1] // 2
    freqs = theta ** (-np.arange(half) / half)  # [d/2], radians per position
    angles = np.outer(np.arange(len(x)), freqs)[:, None]  # [T, 1, d/2]
    cos, sin = np.cos(angles), np.sin(angles)  # [T, 1, d/2] each
    a, b = x[..., :half], x[..., half:]  # [T, H, d/2] each
    return np.concatenate((a * cos - b * sin, a * sin + b * cos), axis=-1)  # [T, H, d]


# %% [markdown]
# Attention: each head scores a token's query against the keys of that token and of earlier ones, and mixes their values in proportion to the softmax of the scores. $H / G$ neighbouring query heads share a key and a value.

# %%
def attention(x, w, c):
    T, H, G = len(x), c.attention.n_heads, c.attention.n_kv_heads
    q = rope((x @ w["wq.weight"].T).reshape(T, H, -1), c.rope.theta)  # [T, H, d]
    k = rope((x @ w["wk.weight"].T).reshape(T, G, -1), c.rope.theta)  # [T, G, d]
    v = (x @ w["wv.weight"].T).reshape(T, G, -1)  # [T, G, d]
    k, v = np.repeat(k, H // G, axis=1), np.repeat(v, H // G, axis=1)  # [T, H, d]
    scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(q.shape[-1])  # [H, T, T]
    future = np.triu(np.ones((T, T), dtype=bool), k=1)  # [T, T], key after query
    weights = softmax(np.where(future, -np.inf, scores))  # [H, T, T]
    mixed = np.einsum("hts,shd->thd", weights, v).reshape(T, -1)  # [T, H d]
    return mixed @ w["wo.weight"].T  # [T, D]


# %% [markdown]
# A block puts the parts in order, and the model is the embedding, the blocks, a norm and the head. `inside(w, "attn.")` are the weights whose names begin so, with that beginning cut off.

# %%
def inside(w, prefix):
    return {k.removeprefix(prefix): v for k, v in w.items() if k.startswith(prefix)}


def block(x, w, c):
    n = rms_norm(x, w["attn_norm.weight"], c.norm_eps)  # [T, D]
    x = x + attention(n, inside(w, "attn."), c)  # [T, D]
    n = rms_norm(x, w["ffn_norm.weight"], c.norm_eps)  # [T, D]
    return x + swiglu(n, inside(w, "ffn."))  # [T, D]


# %%
def forward(tokens, w, c):
    x = w["embed.weight"][tokens]  # [T, D]
    for i in range(c.n_layers):
        x = block(x, inside(w, f"layers.{i}."), c)  # [T, D]
    return rms_norm(x, w["norm.weight"], c.norm_eps) @ w["head.weight"].T  # [T, V]


# %% [markdown]
# The first thing to test is the block on the numbers we know:

# %%
toy = Config(vocab_size=3, dim=2, n_layers=1, max_seq_len=4, norm_eps=1e-12,
                attention=GQA(n_heads=1, n_kv_heads=1, head_dim=2),
                dense=SwiGLU(inter_dim=1))
toy_weights = {
    "attn_norm.weight": np.ones(2), "ffn_norm.weight": np.ones(2),
    "attn.wq.weight": np.eye(2), "attn.wk.weight": np.eye(2),  # no matter, alone
    "attn.wv.weight": Wv, "attn.wo.weight": Wo,
    "ffn.w1.weight": W1, "ffn.w3.weight": W3, "ffn.w2.weight": W2,
}
out = block(np.array([[1.0, 7.0]]), toy_weights, toy)  # [T, D]
print("the block gives", out.round(2), " by hand:", np.allclose(out, x))

# %% [markdown]
# ## In PyTorch
#
# The package's own source: one block, and the walk through all of them. `cache` keeps the keys and values of earlier tokens, `pad` marks positions that hold no text, `documents` numbers texts that share a row (lesson 15); all three may be absent. `MLA` and `MoE` are parts of later models (lessons 08 and 09); here attention is `GQA` and every block is dense.

# %%
show(dm.model.Block, dm.Transformer.forward, dm.Transformer.hidden, docstrings=False)

# %% [markdown]
# ## The ladder
#
# The model below is odd on purpose (width 40, heads that do not add up to it, two query heads to a key), with random numbers everywhere, norms included: zeros and ones would hide mistakes. The independent implementation is `LlamaForCausalLM` of `transformers`, given the same weights. Error means max|a − b| / max(1, max|b|); `B` counts the texts of a batch.

# %%
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from deepseek_mini.checkpoint import NAMES, released_name

transformers_logging.disable_progress_bar()


def randomise(model, seed=0):
    """Matrices N(0, 0.6² / columns), norms 1 + N(0, 0.3²)."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        noise = torch.randn(p.shape, generator=generator)
        p.data = noise * 0.6 / p.shape[1] ** 0.5 if p.ndim == 2 else 1 + 0.3 * noise
    return model.eval().requires_grad_(False)


tiny = Config(
    vocab_size=97, dim=40, n_layers=3, max_seq_len=64,
    attention=GQA(n_heads=4, n_kv_heads=2, head_dim=12),
    dense=SwiGLU(inter_dim=56),
    rope=Rope(theta=10_000.0, layout="half_split"),
)
model = randomise(dm.Transformer(tiny))
llama = LlamaForCausalLM(LlamaConfig(
    vocab_size=97, hidden_size=40, num_hidden_layers=3, max_position_embeddings=64,
    num_attention_heads=4, num_key_value_heads=2, head_dim=12, intermediate_size=56,
    rms_norm_eps=1e-6, attn_implementation="eager",
)).eval().requires_grad_(False)
theirs = {released_name(k): v for k, v in model.state_dict().items()}
print(f"{len(theirs)} tensors:", llama.load_state_dict(theirs))

# %%
rows = torch.randint(97, (2, 11))  # [B, T]: two texts of 11 tokens
weights = {k: v.double().numpy() for k, v in model.state_dict().items()}
numpy_logits = np.stack([forward(row, weights, tiny) for row in rows.numpy()])
logits = model(rows)
with dm.paths(attention="naive"):
    naive = model(rows)

cache = model.new_cache(batch_size=2)
pieces = torch.cat([model(p, cache=cache) for p in rows.split((4, 1, 3, 1, 2), 1)], 1)

batch, pad = dm.left_pad([rows[0].tolist(), rows[1, :6].tolist()])  # 5 pads in row 1
padded = model(batch, pad=pad)
llama_padded = llama(batch, attention_mask=(~pad).long()).logits
ladder("A DeepSeek-LLM with random weights", [
    ("PyTorch = NumPy", logits, numpy_logits, 1e-5),
    ("fused attention = step by step", logits, naive, 1e-5),
    ("PyTorch = transformers", logits, llama(rows).logits, 1e-4),
    ("cached, pieces 4 1 3 1 2 = whole", pieces, logits, 1e-5),
    ("padded row = the row alone", padded[1, 5:], model(rows[1:, :6])[0], 1e-5),
    ("padded batch = transformers", padded[~pad], llama_padded[~pad], 1e-4),
])

# %% [markdown]
# All errors lie near the rounding of float32. Generation will rely on the cached rung, batches of unequal prompts on the padded ones.
#
# ## A checkpoint from elsewhere
#
# A released model is a folder: `config.json` says what to build, `*.safetensors` hold the tensors, cut into shards, and an index says which shard has which tensor. We let `transformers` write such a folder, in shards of at most 40 kB, and read it with the code that reads the real ones.

# %%
with tempfile.TemporaryDirectory() as folder:
    theirs, ours = Path(folder, "theirs"), Path(folder, "ours")
    llama.save_pretrained(theirs, max_shard_size="40KB")
    print("written by transformers:")
    print(*sorted(f"  {p.name}" for p in theirs.iterdir()), sep="\n")
    index = json.loads((theirs / "model.safetensors.index.json").read_text())
    print("the index says: lm_head.weight is in", index["weight_map"]["lm_head.weight"])
    loaded = dm.load(theirs)
    dm.save(loaded, ours)
    print("written by dm.save:")
    print(*sorted(f"  {p.name}" for p in ours.iterdir()), sep="\n")
    back = LlamaForCausalLM.from_pretrained(ours, attn_implementation="eager")

print("the config that was read:")
print(" ", loaded.config.attention)
print(" ", loaded.config.rope)
before, after = model.state_dict(), loaded.state_dict()
same = before.keys() == after.keys()
same = same and all(torch.equal(after[name], before[name]) for name in before)
print("every tensor is as it was, to the last bit:", same)
assert same
ladder("Through the folder and back", [
    ("dm.load = transformers", loaded(rows), llama(rows).logits, 1e-4),
    ("transformers from dm.save = dm.load", back(rows).logits, loaded(rows), 1e-4),
])

# %% [markdown]
# The folder's names are those of `transformers`; ours are DeepSeek's own. This is the whole table, with `#` for the number of a block:

# %%
for ours, released in NAMES.items():
    print(f"{ours:22} {released}")

# %% [markdown]
# Online, the same call takes a name on the Hugging Face hub. This cell does nothing until you fill in the name; DeepSeek-Coder 1.3B is the smallest dense release, and `dm.load` reads safetensors only, never pickle files (`*.bin`), which can run code.

# %%
RELEASED = ""  # "deepseek-ai/deepseek-coder-1.3b-base": 2.7 GB to download
if RELEASED:
    released = dm.load(RELEASED, dtype=torch.bfloat16)
    print(dm.count(released.config))
size = 2 * dm.count(dm.Config.preset("deepseek-coder-1.3b")).parameters
print(f"DeepSeek-Coder 1.3B in bfloat16: {size / 1e9:.1f} GB")

# %% [markdown]
# ## Trained small, on real text
#
# The miniature has the mechanisms of the 7B at 1.05 million parameters, and its tokenizer has 1,024 entries. The text is Python's own standard library, split into training and validation text by module. A batch is 8 rows of 65 tokens: position $t$ is asked for token $t + 1$, so 65 tokens make 64 questions. The **loss** is the mean of $-\ln p$, $p$ being the probability that the model gave to the token that came.

# %%
from deepseek_mini.data import pack, python_code
from deepseek_mini.training.schedules import multi_step

tokenizer = dm.Tokenizer.small()
data = pack(python_code(), tokenizer, seq_len=64)
held_out = torch.cat(list(data.validation_batches(batch_size=64, n_windows=64)))
narrow_start = replace(mini, init_std=0.02)  # the preset has 0.06: see below
print("more than a million tokens to train on:", len(data.train) > 1e6)
print("a validation batch:", list(held_out.shape), " vocabulary:", tokenizer.vocab_size)
show(multi_step)

# %% [markdown]
# This is the paper's schedule (section 2.3): warm up, stay at the peak for 80% of the training, then 31.6% of it ($\sqrt{0.1}$), and 10% for the last tenth. The paper finds about the same final loss as with a cosine, and one advantage: the long first stage can be continued with more data. AdamW with $\beta = (0.9, 0.95)$, weight decay 0.1 and gradients clipped to length 1 are the paper's too.
#
# Ours are: 300 steps, a peak of 0.004, initial matrices from $N(0, 0.02^2)$, and an embedding that starts from $N(0, 1)$. (0.02 is the default of `transformers`; the preset's own 0.06 suits so narrow a model better.) A section below shows what the embedding's start does.

# %%
def next_token_loss(logits, tokens):
    """tokens [B, T + 1], logits [B, T, V] of the first T of them."""
    return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def train(model, steps, total=300, loss_of=next_token_loss, peak=0.004):
    """The first `steps` of a training of `total`; returns the loss of each."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=peak, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = peak * multi_step(step, total, warmup=20)
        tokens = data.batch(step, batch_size=8)  # [B, T + 1]
        loss = loss_of(model(tokens[:, :-1]), tokens)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def held_out_loss(model):
    with torch.no_grad():
        return next_token_loss(model(held_out[:, :-1]), held_out).item()


def fresh(make=dm.Transformer, embedding_std=1.0):
    torch.manual_seed(0)
    model = make(narrow_start)
    model.embed.weight.data *= embedding_std / narrow_start.init_std
    return model


writer = fresh()
untrained = held_out_loss(writer)
losses = train(writer, steps=300)
trained = held_out_loss(writer)

# %% [markdown]
# What is a good loss? Two yardsticks. A model that knows nothing spreads its bets over 1,024 tokens: $\ln 1024 = 6.93$. A model that knows only how often each token occurs, and never looks at the context, pays the **unigram** loss. What lies below it was learned from context. And one number that does not depend on the tokenizer: **bits per byte**, the loss in bits divided by the bytes that a token stands for.

# %%
counts = np.bincount(data.train.numpy(), minlength=1024) + 1
unigram = -np.log(counts / counts.sum())[held_out[:, 1:].numpy()].mean()
lengths = torch.tensor(tokenizer.byte_lengths())[held_out[:, 1:]]
bits_per_byte = trained / np.log(2) * lengths.numel() / lengths.sum().item()

alt = """The training loss falls from about 7, crosses the unigram line at 6 within 50
steps, and goes on falling to 4 ever more slowly. The learning rate warms up over 20
steps, stays, and steps down at 240 and 270 of 300 steps."""
with figure(alt, size=(8, 3.4)) as fig:
    left, right = fig.subplots(1, 2, width_ratios=(3, 2))
    smooth = [np.mean(losses[max(0, i - 9) : i + 1]) for i in range(len(losses))]
    left.plot(losses, color="#BBBBBB", ls="-", lw=1, label="loss of each step")
    left.plot(smooth, color=PALETTE[0], ls="-", label="mean of 10 steps")
    for level, color, name in (
        (np.log(1024), "black", "ln 1024: knows nothing"),
        (unigram, PALETTE[1], "unigram: knows no context"),
    ):
        left.axhline(level, color=color, ls="--")
        left.text(300, level + 0.06, name, color=color, ha="right")
    left.set(xlabel="step", ylabel="loss (nats per token)", ylim=(3, 7.4))
    left.legend(loc="lower left")
    rates = [0.004 * multi_step(step, 300, 20) for step in range(300)]
    right.plot(rates, color=PALETTE[2], ls="-")
    right.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
print("untrained, no better than ln 1024:  ", untrained > np.log(1024))
print("trained, 1.5 nats below the unigram:", trained < unigram - 1.5)
print("validation loss below 4.3:          ", trained < 4.3)
print("bits per byte between 1.9 and 2.3:  ", 1.9 < bits_per_byte < 2.3)
assert untrained > np.log(1024) and trained < min(4.3, unigram - 1.5)

# %% [markdown]
# The losses are drawn and not printed, because from the third or fourth digit on they depend on the processor.
#
# What happened inside? A block can only add to the residual stream. What it adds might cancel what is there; the figure shows the stream's root mean square (RMS) after each block, before and after training.

# %%
def stream_rms(model, tokens):
    """Root mean square of the stream: after the embedding and after every block."""
    sizes = [model.embed(tokens).square().mean().sqrt().item()]
    hooks = [layer.register_forward_hook(
        lambda _module, _inputs, x: sizes.append(x.square().mean().sqrt().item())
    ) for layer in model.layers]
    with torch.no_grad():
        model.hidden(tokens)
    for hook in hooks:
        hook.remove()
    return sizes


before, after = (stream_rms(m, held_out[:, :-1]) for m in (fresh(), writer))
alt = """The root mean square of the residual stream after the embedding and after each
of four blocks. It stays near 1 in the fresh model and grows in the trained one."""
with figure(alt, size=(6, 3)) as fig:
    ax = fig.subplots()
    ax.plot(before, marker="o", label="untrained")
    ax.plot(after, marker="s", label="trained")
    ax.set(ylabel="RMS of the stream", ylim=(0, None))
    ax.set_xticks(range(5), ["embedding", *(f"block {i}" for i in range(4))])
    ax.legend()
print("trained: grows with every block:", after == sorted(after))
print("trained: at least doubles:      ", after[-1] > 2 * after[0])

# %% [markdown]
# In the trained model the stream grows from block to block, and the last norm undoes the growth.
#
# ## How people get it wrong
#
# Here are two models with one bug each. Their shapes are right, and they train.
#
# - **The shift is forgotten.** The loss compares the output at position $t$ with token $t$, which the model has just read. (`transformers` shifts inside when it is given `labels`: who shifts before as well trains a model to skip a token.)
# - **The residual starts from the normed copy**: `x = norm(x)`, then `x = x + attn(x)`. (Some models are built so on purpose: the config of BLOOM has a switch for it.)
#
# **Predict**: which of the three curves below belongs to the right model?

# %%
def forgotten_shift_loss(logits, tokens):
    return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, :-1].flatten())


class NormedResidual(dm.model.Block):
    def forward(self, x, cos, sin, mask=None, cache=None):
        x = self.attn_norm(x)
        x = x + self.attn(x, cos, sin, mask, cache)
        x = self.ffn_norm(x)
        return x + self.ffn(x)


def with_normed_residual(config):
    model = dm.Transformer(config)
    blocks = (NormedResidual(config, i) for i in range(config.n_layers))
    model.layers = nn.ModuleList(blocks)
    return model.apply(model._initialise)


leaking = fresh(embedding_std=0.02)
curves = {
    "A": train(fresh(with_normed_residual, embedding_std=0.02), steps=60),
    "B": train(leaking, steps=60, loss_of=forgotten_shift_loss),
    "C": train(fresh(embedding_std=0.02), steps=60),
}
alt = """Three loss curves over 60 steps, all falling from 7. B falls below 2. A is
below C, which stays near 6."""
with figure(alt, size=(6.5, 3)) as fig:
    ax = fig.subplots()
    for name, curve in curves.items():
        ax.plot(curve, label=name)
    ax.set(xlabel="step", ylabel="loss (nats per token)", ylim=(0, None))
    ax.legend(ncols=3, loc="lower left")
ends = {name: np.mean(curve[-10:]) for name, curve in curves.items()}
print("in falling order, by the last 10 steps:", sorted(ends, key=ends.get)[::-1])
assert ends["C"] > ends["A"] + 0.3 > ends["B"]

# %% [markdown]
# C, the highest, is the right one. B forgot the shift: it has learned to repeat its input. A has the wrong residual, and it *learns faster*. No curve tells you that a model is the one it should be. Two checks do. Nobody can predict uniformly random tokens better than $\ln 1024$ on average, so a loss well below it is a leak. And a block that differs from the original cannot give the original's logits on the same random weights.

# %%
random_rows = torch.randint(1024, (16, 65))  # [B, T + 1]
with torch.no_grad():
    honest = next_token_loss(writer(random_rows[:, :-1]), random_rows).item()
    leak = forgotten_shift_loss(leaking(random_rows[:, :-1]), random_rows).item()
print("the right model on random tokens, 1 nat below ln 1024:", honest < 5.93)
print("model B on random tokens, 1 nat below ln 1024:        ", leak < 5.93)

wrong = with_normed_residual(tiny).eval().requires_grad_(False)
wrong.load_state_dict(model.state_dict())
print("model A equals transformers on the same weights:      ",
      error(wrong(rows), llama(rows).logits) < 1e-4)
theirs = llama(rows, labels=rows).loss  # shifts inside
print("our loss equals that of transformers:                 ",
      error(next_token_loss(model(rows[:, :-1]), rows), theirs) < 1e-5)
assert leak < 5.93 < honest and error(wrong(rows), llama(rows).logits) > 0.1

# %% [markdown]
# Why is A ahead? In C the embedding starts at 0.02, and the untrained blocks add noise on top until the stream is more than three times as large: which token it was is nearly drowned. A's first norm lifts the embedding to size 1 before anything is added. A right model gets most of that head start by starting there, as our `writer` did:

# %%
start, *_, end = stream_rms(fresh(embedding_std=0.02), held_out[:, :-1])
print("C, untrained: stream more than 3 times the embedding:", end > 3 * start)
ends["writer"] = np.mean(losses[50:60])
regained = (ends["C"] - ends["writer"]) / (ends["C"] - ends["A"])
print("the writer, after 60 steps, regains over half of A's lead:", regained > 0.5)
assert end > 3 * start and regained > 0.5

# %% [markdown]
# ## Text
#
# To write, the model's logits become probabilities, a token is chosen, appended, and read in its turn. **Greedy** takes the likeliest. **Temperature** $\tau$ divides the logits before the softmax: below 1 sharpens, above 1 flattens. **Top-p** keeps the fewest likeliest tokens that together hold probability $p$, and draws among them. With the cache, each step feeds one token instead of the whole text. That is a speed-up, so it must not change a single token:

# %%
prompts = ["def __init__(self", "import os\n", "class Reader"]
ids = [tokenizer.encode(p, bos=True) for p in prompts]
batch, pad = dm.left_pad(ids)
greedy = dm.generate(writer, batch, 40, pad=pad)
sampled = dm.generate(writer, batch, 40, temperature=0.8, top_p=0.9, seed=1, pad=pad)

slow = dm.generate(writer, batch, 40, pad=pad, use_cache=False)
alone = [dm.generate(writer, torch.tensor([row]), 40)[0] for row in ids]
again = dm.generate(writer, batch, 40, temperature=0.8, top_p=0.9, seed=1, pad=pad)
narrow = dm.generate(writer, batch, 40, temperature=0.8, top_p=1e-6, seed=1, pad=pad)
print("cached = uncached, token for token:", torch.equal(greedy, slow))
print("padded batch = each prompt alone:  ",
      all(torch.equal(g[-40:], a[-40:]) for g, a in zip(greedy, alone)))
print("same seed, same text:              ", torch.equal(sampled, again))
print("top-p of almost 0 is greedy:       ", torch.equal(narrow, greedy))

# %% tags=["nbval-ignore-output"]
for name, out in (("greedy", greedy), ("temperature 0.8, top-p 0.9", sampled)):
    for row, prompt in zip(out, ids):
        text = tokenizer.decode(row[-40 - len(prompt) + 1 :])
        print(f"--- {name}\n{text}\n")

# %% [markdown]
# Another machine writes other text, so this cell is not compared. The model knows what Python looks like (indents, `self`, brackets) and nothing of what it means; greedy text repeats itself. What the settings do to a single step:

# %%
from deepseek_mini.sampling import next_token_probabilities

with torch.no_grad():
    last = writer(torch.tensor(ids[:1]))[:, -1]  # [1, V], after "def __init__(self"
settings = {
    "τ = 0.5": {"temperature": 0.5}, "τ = 1": {}, "τ = 1, top-p 0.7": {"top_p": 0.7}
}  # fmt: skip
order = last[0].argsort(descending=True)[:12]  # [12]: the likeliest
names = [repr(tokenizer.decode([i]))[1:-1] for i in order.tolist()]
entropies = []
alt = """Three panels, the 12 likeliest next tokens in each. Temperature 0.5 piles the
probability on the first few; 1 spreads it; top-p cuts the tail and rescales the
rest."""
with figure(alt, size=(8.5, 3.4)) as fig:
    axes = fig.subplots(1, 3, sharey=True)
    for ax, (title, setting) in zip(axes, settings.items()):
        p = next_token_probabilities(last, **setting)[0]  # [V]
        entropies.append(torch.special.entr(p).sum().item())
        ax.barh(range(12), p[order])
        ax.set(title=title, xlabel="probability")
        ax.set_yticks(range(12), names)
    axes[0].invert_yaxis()
    axes[0].set_ylabel("next token")
print("both are less uncertain than τ = 1:", max(entropies[::2]) < entropies[1])

# %% [markdown]
# ## At full size
#
# What does one token cost? To *infer* it, two operations for every number in a matrix, plus the attention over the tokens before it. To *remember* it, $2Gd$ numbers in each layer. `dm.count` gives both, here for 4,096 tokens in bfloat16 (2 bytes a number). The third row is a 67B that does not exist: 64 heads with keys and values of their own.
#
# **Predict**: which row remembers a token most cheaply?

# %%
all_heads = replace(large, attention=replace(large.attention, n_kv_heads=64))
print("                 parameters  GFLOP/token  cache/token  cache of 4,096")
for name, config in (("7B", small), ("67B", large), ("67B, 64 kv heads", all_heads)):
    c = dm.count(config, seq_len=4096)
    token, all_of_it = c.kv_cache_bytes_per_token / 1e6, c.kv_cache_bytes / 1e9
    print(f"{name:16} {c.parameters / 1e9:8.2f} B {c.flops_per_token / 1e9:12.1f}"
          f" {token:9.2f} MB {all_of_it:11.2f} GB")
assert dm.count(large).kv_cache_bytes < dm.count(small).kv_cache_bytes

# %% [markdown]
# So the answer to the opening question: the 67B has 3.2 times the layers and the same 128 channels a head, but 8 keys and values instead of 32, a quarter. With 64 it would store 3.11 MB a token, eight times as much. The operations are a little more than twice the parameters; the rest is attention.
#
# Try to spend 67 billion parameters yourself: more layers or more width, and how many query heads share a key. The cache is that of 4,096 tokens, and the parts have the colours of the first figure: attention orange, feed-forward green. (A live slider needs a running notebook; below it are four of its settings.)

# %%
from deepseek_mini.lesson import Choice, Slider, settings_figure, slider_figure


def draw_model(fig, layers, width, share):
    heads = width // 128
    config = replace(
        large, n_layers=layers, dim=width,
        attention=GQA(heads, heads // share, 128),
        dense=SwiGLU(width * 43 // 16),  # the 7B's and the 67B's ratio
    )
    c = dm.count(config, seq_len=4096)
    top, bottom = fig.subplots(2, 1)
    start = 0.0
    for part, color in zip(PARTS, PALETTE):
        top.barh(0, c.parts[part] / 1e9, left=start, color=color)
        start += c.parts[part] / 1e9
    top.axvline(67.4, color="black", lw=1, ls="-")
    top.set(xlim=(0, 140), yticks=[], xlabel=f"{start:.1f} B parameters (line: 67.4)")
    cache = c.kv_cache_bytes / 1e9
    bottom.barh(0, cache, color=PALETTE[5])
    bottom.set(xlim=(0, 18), yticks=[], xlabel=f"{cache:.2f} GB of cache")
    return f"{c.flops_per_token / 1e9:.0f} GFLOP per token"


widget = slider_figure(
    draw_model,
    alt="Parameters by part, and cache, of {layers} layers of width {width}.",
    size=(6, 3),
    layers=Slider(8, 100, start=95, label="layers"),
    width=Slider(2048, 10240, start=8192, step=1024, label="width"),
    share=Choice((1, 2, 4, 8), start=8, label="query heads per key"),
)

# %%
settings_figure(
    draw_model,
    {
        "7B": {"layers": 30, "width": 4096, "share": 1},
        "67B": {"layers": 95, "width": 8192, "share": 8},
        "67B, no sharing": {"layers": 81, "width": 8192, "share": 1},
        "67B, wider": {"layers": 60, "width": 10240, "share": 8},
    },
    alt="""Four settings. The 7B and the 67B as released; 81 layers without shared keys,
    as large as the 67B, need 11 GB of cache where it needs 1.6; 60 layers of width
    10,240 are as large again.""",
    size=(12, 3),
)

# %% [markdown]
# Without shared keys 81 layers already fill the same 67 billion. The paper made the 67B deeper rather than wider for better performance (section 2.2); it prints no comparison, and neither do we.
#
# ### Compute, batch and learning rate
#
# The usual estimate of training compute is $C = 6ND$, for $N$ parameters and $D$ tokens of text (the paper's letters, in this section only). It leaves attention out and counts the embedding, a lookup. The paper replaces $6N$ by the operations per token without embedding and head, $M = 72\,L\,w^2 + 12\,L\,w\,l$, with width $w$ and sequence length $l = 4096$ (section 3.2), and fits the best settings to it, $C = MD$ (section 3.1):
#
# $$\eta_\text{opt} = 0.3118\; C^{-0.1250}, \qquad B_\text{opt} = 0.2920\; C^{0.3271} \text{ tokens}$$
#
# Do the released models follow their own law? They were trained on 2 trillion tokens, in batches of 2,304 and 4,608 sequences, with peaks of 4.2e-4 and 3.2e-4. (The formula for $M$ could not be checked against the paper here; that it leads to the settings that were used is its only test.)

# %%
for name, config, batch_used, peak_used in (
    ("7B", small, 2304, 4.2e-4), ("67B", large, 4608, 3.2e-4)
):
    L, w, N = config.n_layers, config.dim, dm.count(config).parameters
    M = 72 * L * w**2 + 12 * L * w * 4096
    C = M * 2.0e12
    peak, batch = 0.3118 * C**-0.1250, 0.2920 * C**0.3271 / 4096
    rule = 6 * N * 2.0e12
    print(f"{name:>3}: 6ND = {rule:.2e}, MD = {C:.2e}, ratio {C / rule:.2f}")
    print(f"     peak  {peak:.2e}, used {peak_used:.1e}")
    print(f"     batch {batch:,.0f} sequences, used {batch_used:,}")
    assert abs(peak / peak_used - 1) < 0.05 and abs(batch / batch_used - 1) < 0.1

# %% [markdown]
# The 7B is within 3% of the law and the 67B within 10%. For the 67B the two estimates of compute differ by 23%. $M$ holds the attention over 4,096 tokens, and its $72w^2$ assumes blocks of $12w^2$ numbers, as with a key and a value for every head; with shared keys the real block is smaller:

# %%
for name, config in (("7B", small), ("67B", large)):
    parts, w = dm.count(config).parts, config.dim
    per_block = (parts["attention"] + parts["feed-forward"]) / config.n_layers
    over_text = 12 * w * 4096 / (72 * w**2 + 12 * w * 4096)
    print(f"{name:>3}: a block has {per_block / w**2:.2f} w² parameters;", end=" ")
    print(f"attention over the text is {over_text:.0%} of M")

# %% [markdown]
# ## What this proves, and what it does not
#
# - On the same random weights the package computes what `transformers`' Llama computes, to float32 rounding: whole, cached in pieces, padded. The NumPy model does so for whole texts.
# - A folder written elsewhere loads without losing a bit, and what we save loads there. We did not download the released weights; the cell above lets you try.
# - A loss below that of the unigram shows that context is used, and no more.
# - One bug made the loss fall faster. Curves do not prove a model right; equality on the same weights does.
# - Whether depth beats width, or the multi-step schedule the cosine, was not tested.
#
# **Next**: [the exercises](../exercises/05_deepseek_llm.ipynb), then lesson 06, which trains for longer.
#
# **References**
#
# - DeepSeek-AI, *DeepSeek LLM: Scaling Open-Source Language Models with Longtermism*, arXiv 2401.02954: sections 2.2 (architecture), 2.3 (hyper-parameters), 3.1 and 3.2 (scaling laws). Released models: github.com/deepseek-ai/DeepSeek-LLM.
# - Touvron et al., *LLaMA* (arXiv 2302.13971) and *Llama 2* (arXiv 2307.09288).
# - Ainslie et al., *GQA*, arXiv 2305.13245. Shazeer, *GLU Variants Improve Transformer*, arXiv 2002.05202.
# - Holtzman et al., *The Curious Case of Neural Text Degeneration*, arXiv 1904.09751, section 3.1 (top-p).
# - The independent implementation: `transformers`, `models/llama/modeling_llama.py`.

# ===== exercises =====

# %% [markdown]
# # 05 · DeepSeek-LLM: exercises
#
# Five exercises on [the lesson](../notebooks/05_deepseek_llm.ipynb), 50 minutes in all. Write your code in place of `raise NotImplementedError`, and run that cell and the two after it: the first tries your answer on an example, the second calls `check`, which prints one line, and a hint when something is not right yet. No exercise needs the one before it.

# %%
import math
from dataclasses import replace

import numpy as np
import torch

import deepseek_mini as dm
from deepseek_mini.lesson import check, setup

setup(seed=0)

# %% [markdown]
# ## 05.1 How many parameters? (a few lines, 8 minutes)
#
# Count the numbers that a dense model learns, from its config and without building it: one of the models in the check fits into no memory. The model has
#
# | where | what | the config's fields |
# |---|---|---|
# | at the start | the embedding: a row of `dim` numbers for each of `vocab_size` tokens | `vocab_size`, `dim` |
# | in each of `n_layers` blocks | attention: a matrix each for queries, keys and values, which lead from `dim` channels to the heads', and one that leads from all query heads together back to `dim` | `attention.n_heads` (of queries), `attention.n_kv_heads` (of keys, and of values), `attention.head_dim` (channels of every head) |
# | in each block | SwiGLU: two matrices from `dim` to `inter_dim` channels, and one back | `dense.inter_dim` |
# | in each block | a norm before attention and one before SwiGLU, `dim` numbers each | |
# | at the end | one more norm, and the head, of the embedding's size. When `tie_embeddings` is true, the head *is* the embedding: it has no numbers of its own | `tie_embeddings` |
#
# There are no biases. The heads need not fill `dim`: in the example 4 heads of 16 channels make 64, and `dim` is 40.

# %%
def parameters(config):
    """The number of parameters of a dm.Config, an int."""
    ### BEGIN SOLUTION
    a, dim = config.attention, config.dim
    attention = 2 * dim * (a.n_heads + a.n_kv_heads) * a.head_dim
    feed_forward = 3 * dim * config.dense.inter_dim
    block = attention + feed_forward + 2 * dim
    tables = 1 if config.tie_embeddings else 2
    return tables * config.vocab_size * dim + config.n_layers * block + dim
    ### END SOLUTION

# %%
# To try it, take away the # of the last two lines: they should print 52920 and 48920.
example = dm.Config(
    vocab_size=100, dim=40, n_layers=3, max_seq_len=32,
    attention=dm.config.GQA(n_heads=4, n_kv_heads=2, head_dim=16),
    dense=dm.config.SwiGLU(inter_dim=60),
)
# print(parameters(example))
# print(parameters(replace(example, tie_embeddings=True)))

# %%
check("05.1", parameters)

# %% [markdown]
# ## 05.2 The loss of the next token (some thought, 12 minutes)
#
# A model has read a batch of texts, `tokens` [B, T] (int64), and given for each position a score for every token of the vocabulary, `logits` [B, T, V]. The output at position $t$ is a guess at token $t + 1$. So the last output of a row has nothing to be compared with: $T$ tokens make $T - 1$ questions.
#
# Some positions are padding: `pad` [B, T] is True there, at the start or at the end of a row. A question counts only when both its positions hold text, the one that is read and the one that is asked for.
#
# Return the mean of $-\ln p$ over all questions of the batch that count, where $p$ is the softmax probability of the token that came: a tensor without dimensions, with a gradient, as a model is to be trained with it. At least one question counts. Logits may be hundreds apart.
#
# By hand, one row of $T = 4$ and a vocabulary of 3:
#
# | $t$ | token | padding | softmax of the logits | asked for | counts | $-\ln p$ |
# |---|---|---|---|---|---|---|
# | 0 | 2 | yes | 1/8, 1/8, 3/4 | 0 | no | |
# | 1 | 0 | | 1/4, 1/2, 1/4 | 1 | yes | $\ln 2$ |
# | 2 | 1 | | 1/2, 1/4, 1/4 | 1 | yes | $\ln 4$ |
# | 3 | 1 | | 1/8, 1/8, 3/4 | nothing | no | |
#
# The loss is $(\ln 2 + \ln 4) / 2 = 1.0397$.

# %%
def next_token_loss(logits, tokens, pad):
    """Mean of -ln p over the questions that count, a tensor without dimensions."""
    ### BEGIN SOLUTION
    log_p = logits[:, :-1].log_softmax(dim=-1)  # [B, T - 1, V]
    picked = log_p.gather(-1, tokens[:, 1:, None])[..., 0]  # [B, T - 1]
    counts = ~pad[:, :-1] & ~pad[:, 1:]  # [B, T - 1]
    return -picked[counts].mean()
    ### END SOLUTION

# %%
# To try it, take away the # of the last line: it should print tensor(1.0397).
p = [[1 / 8, 1 / 8, 3 / 4], [1 / 4, 1 / 2, 1 / 4],
     [1 / 2, 1 / 4, 1 / 4], [1 / 8, 1 / 8, 3 / 4]]  # [T, V]
tokens, pad = torch.tensor([[2, 0, 1, 1]]), torch.tensor([[True, False, False, False]])
# print(next_token_loss(torch.tensor([p]).log(), tokens, pad))

# %%
check("05.2", next_token_loss)

# %% [markdown]
# ## 05.3 One block (a few lines, 5 minutes)
#
# What travels through the model is the stream `x`, an array [T, D]. A block has two parts: attention first, then the feed-forward network. A block never replaces the stream. Each part reads a *normed copy* of it, made by the norm of its own, and what the part returns is added to the stream itself, which was not normed.
#
# `attn_norm`, `attn`, `ffn_norm` and `ffn` are functions from [T, D] arrays to [T, D] arrays. Return the stream after the block, and leave the `x` that you were given as it was.
#
# By hand, with functions that are easy to follow: `attn_norm` doubles, `attn` adds 1, `ffn_norm` multiplies by 10 and `ffn` takes away 3. A stream of 1 becomes 4 by attention (its copy is 2, and attention makes 3 of it), and then 41 (the copy is 40, and the network makes 37 of it).

# %%
def block(x, attn_norm, attn, ffn_norm, ffn):
    """The stream after the block, [T, D]."""
    ### BEGIN SOLUTION
    x = x + attn(attn_norm(x))
    return x + ffn(ffn_norm(x))
    ### END SOLUTION

# %%
# To try it, take away the # of the last two lines: they should print [[41.]].
double, add_1 = lambda x: 2 * x, lambda x: x + 1
times_10, minus_3 = lambda x: 10 * x, lambda x: x - 3
# x = np.array([[1.0]])
# print(block(x, attn_norm=double, attn=add_1, ffn_norm=times_10, ffn=minus_3))

# %%
check("05.3", block)

# %% [markdown]
# ## 05.4 The multi-step learning rate (from the paper, 10 minutes)
#
# Section 2.3 of the paper: the learning rate rises in a straight line to its peak during the warmup, stays there, drops to 31.6% of the peak after 80% of the training, and to 10% of the peak after 90%. To be exact:
#
# - Steps are counted from 0. Step 0 has the rate `peak / warmup`, each step of the warmup as much more, and step `warmup - 1` has the peak.
# - The shares are of all `steps`, warmup included. The first step with 31.6% is number `0.8 * steps`, and the first with 10% is number `0.9 * steps`.
# - `steps` is a multiple of 10. The warmup has at least 1 step and ends before step `0.8 * steps`.
# - The paper's 31.6% is $\sqrt{0.1}$, rounded. Both pass, and so does $0.316^2$ for the 10%.
#
# By hand, for 20 steps, a warmup of 4 and a peak of 1: steps 0 to 3 have 0.25, 0.5, 0.75 and 1, steps 4 to 15 have 1, steps 16 and 17 have 0.316, steps 18 and 19 have 0.1.

# %%
def multi_step(step, steps, warmup, peak):
    """The learning rate of a step, a float."""
    ### BEGIN SOLUTION
    if step < warmup:
        return peak * (step + 1) / warmup
    if 10 * step < 8 * steps:
        return peak
    return peak * (0.316 if 10 * step < 9 * steps else 0.1)
    ### END SOLUTION

# %%
# To try it, take away the # of the next two lines and compare with the example.
# for step in range(20):
#     print(step, round(multi_step(step, steps=20, warmup=4, peak=1.0), 3))

# %%
check("05.4", multi_step)

# %% [markdown]
# ## 05.5 Top-p (some thought, 15 minutes)
#
# Before a token is drawn, top-p leaves out the unlikely ones. `logits` is a float tensor [B, V]; the softmax of a row gives its probabilities. In every row keep the fewest tokens, likeliest first, whose probabilities together are at least `top_p`. The kept logits stay as they are and where they are; all others become minus infinity.
#
# `top_p` is above 0 and at most 1, and 1 keeps every token, even where rounding makes the sum of the first ones 1. No two probabilities in a row are equal.
#
# By hand: with probabilities 0.1, 0.4, 0.2, 0.3 and `top_p` 0.6, the likeliest token alone holds 0.4, which is not enough; with the next it is 0.7. So tokens 1 and 3 stay, with their logits $\ln 0.4 = -0.9163$ and $\ln 0.3 = -1.2040$.

# %%
def keep_top_p(logits, top_p):
    """logits with -inf where a token is left out, [B, V]."""
    ### BEGIN SOLUTION
    if top_p == 1:
        return logits
    probs, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
    likelier = probs.cumsum(dim=-1) - probs  # what the tokens before hold
    out = torch.zeros_like(likelier, dtype=torch.bool)
    out = out.scatter(-1, order, likelier >= top_p)  # from ranks back to ids
    return logits.masked_fill(out, -math.inf)
    ### END SOLUTION

# %%
# To try it, take away the # of the next two lines. They should print
# tensor([[   -inf, -0.9163,    -inf, -1.2040]]).
# p = torch.tensor([[0.1, 0.4, 0.2, 0.3]])  # [B, V]
# print(keep_top_p(p.log(), top_p=0.6))

# %%
check("05.5", keep_top_p)

# %% [markdown]
# ## All together
#
# The cell below trains two layers of the miniature on one short text until they know it by heart, and lets them write it. It uses the package's own loss, schedule and sampling. Below each of the three stands the line that uses yours: take away its `#`, and what the cell prints must not change.

# %%
from deepseek_mini.sampling import next_token_probabilities
from deepseek_mini.training import loop, schedules

text = "def twice(x):\n    return x + x\n\n\nprint(twice(21))  # 42\n"
tokens = torch.tensor([dm.Tokenizer.small().encode(text, bos=True)])  # [1, T]
torch.manual_seed(0)
model = dm.Transformer(replace(dm.Config.preset("deepseek-llm-mini"), n_layers=2))
optimizer = torch.optim.AdamW(model.parameters())
for step in range(40):
    rate = 0.003 * schedules.multi_step(step, 40, 5)
    # rate = multi_step(step, 40, 5, 0.003)
    loss = loop.next_token_loss(model, tokens)
    # loss = next_token_loss(model(tokens), tokens, torch.zeros_like(tokens).bool())
    optimizer.param_groups[0]["lr"] = rate
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

written = tokens[:, :1]  # [1, 1]: the model gets the start of the text, and no more
while written.shape[1] < tokens.shape[1]:
    logits = model(written)[:, -1]  # [1, V]
    probs = next_token_probabilities(logits, top_p=0.5)  # [1, V]
    # probs = keep_top_p(logits, 0.5).softmax(dim=-1)
    written = torch.cat([written, torch.multinomial(probs, num_samples=1)], dim=1)
print("the loss is below 0.1:", loss.item() < 0.1)
print("it writes the text:   ", torch.equal(written, tokens))

# %% [markdown]
# Next: lesson 06, which trains for longer.
