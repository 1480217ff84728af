# %% [markdown]
# # 00 · Start here
#
# A language model keeps what it has read in a cache. For one text of 131,072 tokens, the 67-billion model of 2023 would need 408 GB of it if it were built the plain way. As released it needs 51 GB. DeepSeek-V3, ten times larger, needs 9.2 GB; V4.1-Flash 0.12 GB. How? And how would you know that you have understood it, rather than read about it?
#
# This course answers the second question first: you have understood a mechanism when you can build it and your version gives the same numbers as the real one.
#
# - **In this lesson**: how the course works, a test of what you need, a model that you train here and now, every model that DeepSeek has released and what each changed, and the symbols that all lessons share.
# - **You need** Python, some NumPy, some PyTorch. The self-test below tells you whether it is enough.
# - **Time**: about 35 minutes, and 25 for the exercises. Running every cell takes about a minute.

# %%
import copy
from dataclasses import replace

import numpy as np
import torch

import deepseek_mini as dm
from deepseek_mini.lesson import figure, ladder, setup

setup(seed=0)

# %% [markdown]
# The four numbers above, computed from the models' configurations. `dm.count` does the arithmetic of a config; exercise 00.3 asks you for this line of it. V3 keeps 512 + 64 numbers of 2 bytes in each of 61 layers. V4.1 has no config in the package yet, so its 890 bytes a token, for all layers together, are multiplied out.

# %%
from deepseek_mini.config import GQA

S = 131_072  # tokens in the cache
llm = dm.Config.preset("deepseek-llm-67b")
plain = replace(llm, attention=GQA(n_heads=64, n_kv_heads=64, head_dim=128))
cache = {
    "LLM 67B, if it were plain multi-head": dm.count(plain, S).kv_cache_bytes,
    "LLM 67B as released": dm.count(llm, S).kv_cache_bytes,
    "V3": dm.count(dm.Config.preset("deepseek-v3"), S).kv_cache_bytes,
    "V4.1-Flash": S * 890,
}
for name, size in cache.items():
    print(f"{name:38}{size / 1e9:8.2f} GB")

# %% [markdown]
# ## How the course proves what it says
#
# Every component climbs the same ladder, and each rung is asserted to equal the rung below it. The error of $a$ against $b$ is always $\max|a - b| \,/\, \max(1, \max|b|)$.

# %%
from deepseek_mini.lesson.atlas import draw_ladder

alt = """Five rungs, each on top of the one before: the equation, by hand and in NumPy;
the PyTorch module, equal within 1e-5; the whole model, equal to transformers within
1e-4; the fast path, equal to the readable path within 1e-5; the kernel at full size,
equal to PyTorch within a bound that its lesson states."""
with figure(alt, size=(8, 4)) as fig:
    draw_ladder(fig)

# %% [markdown]
# Here is a first climb, with the smallest component there is. **RMSNorm** divides a vector by its root mean square. By hand, for $(3, 4)$: the mean of the squares is $(9 + 16)/2 = 12.5$, its root $3.5355$, and so the result is $(0.8485, 1.1314)$.

# %%
def rms_norm(x):
    return x / np.sqrt((x**2).mean())  # [D]


by_hand = np.array([0.8485, 1.1314])  # [D]
in_numpy = rms_norm(np.array([3.0, 4.0]))  # [D]
module = dm.model.RMSNorm(2, 1e-12)
in_torch = module(torch.tensor([3.0, 4.0]))  # [D]
ladder(
    "RMSNorm of (3, 4)",
    [
        ("NumPy = by hand, to four digits", in_numpy, by_hand, 1e-4),
        ("PyTorch = NumPy", in_torch, in_numpy, 1e-5),
    ],
)

# %% [markdown]
# The dot is the measured error, the end of the bar the bound. If a rung did not hold, the cell would fail, and with it the test that runs every notebook of this course whenever something changes. So what you read here ran, with these results.
#
# ## How to read a lesson
#
# | part | what it does |
# |---|---|
# | the question | a number that needs explaining |
# | by hand | the smallest example, every digit of which you can check on paper |
# | in NumPy | the equation as a few lines of code |
# | in PyTorch | the package's own source, shown in the lesson: what you read is what runs |
# | see it | a figure, and a widget to play with; a fixed figure below it shows some of its settings |
# | how people get it wrong | a bug from real code, and the check that catches it |
# | does it matter | a small experiment, asserted as a claim; sometimes the answer is no |
# | at full size | what it means for the released models |
# | what this proves, and what it does not | both |
#
# Run a cell with Shift+Enter, or all of them from the menu (Run, Run All Cells). **Predict** marks a place to stop and guess before you run the next cell. A wrong guess teaches more than a cell that was read.
#
# **Exercises** are in a notebook of their own. You write a function and call `check("00.1", yours)`. It compares yours with an independent solution on random inputs and prints one line: passed, not attempted, or what is wrong with a hint. `progress()` shows what you have passed. `make lab` puts your copies of all exercises into the folder `work/`; nothing in this repository ever overwrites them. Answers are in `solutions/`.
#
# **On Colab** the badge at the top opens a notebook, and the first code cell installs the package. Save a copy to your Drive to keep your work. Everything runs on a CPU; no lesson needs a GPU or, once installed, a network.
#
# | | lesson | you build | minutes |
# |---|---|---|---|
# | 00 | Start here | a first model that writes code | 35 |
# | 01 | [Tokenizer](01_tokenizer.ipynb) | byte-level BPE, from bytes to merges | 35 |
# | 02 | [RMSNorm and SwiGLU](02_norm_and_swiglu.ipynb) | the norm and the gated network; a fused kernel of the norm | 40 |
# | 03 | [RoPE](03_rope.ipynb) | rotary positions, linear scaling, YaRN | 50 |
# | 04 | [Attention](04_attention.ipynb) | MHA, MQA, GQA, the KV cache; the running softmax of the kernels | 60 |
# | 05 | [DeepSeek-LLM](05_deepseek_llm.ipynb) | the dense model of 2023, whole: in NumPy, in PyTorch, equal to transformers, trained | 60 |
# | 06 | [Pretraining](06_pretraining.ipynb) | schedules, batch and learning rate, a scaling law with its uncertainty | 50 |
# | 07 | [Coder](07_coder_fim.ipynb) | repositories in order of their imports, fill-in-the-middle, infilling | 45 |
# | 08 | [MoE](08_moe.ipynb) | a gate, fine-grained and shared experts, a balance loss, the grouped path and its kernels | 65 |
# | 09 | [MLA](09_mla.ipynb) | latent attention: compress, expand, absorb; why RoPE must be decoupled | 60 |
# | 10 | [DeepSeek-V2](10_deepseek_v2.ipynb) | the whole model: device-limited routing, three balance losses, YaRN | 50 |
# | 11 | [Bias balancing](11_bias_balancing.ipynb) | V3's gate, and balance without a gradient | 40 |
# | 12 | [Multi-token prediction](12_multi_token_prediction.ipynb) | an MTP module, and exact speculative decoding with it | 45 |
# | 13 | [FP8](13_fp8.ipynb) | eight-bit floats from their bits, scales for tiles, a linear layer that trains in them | 60 |
# | 14 | [DeepSeek-V3](14_deepseek_v3.ipynb) | all of it on a page, equal to transformers layer by layer; a small one trained, resumed and drafting | 60 |
# | 15 | [SFT and chat](15_sft_and_chat.ipynb) | chat templates, the loss on answers only, packed rows, a small chat model | 40 |
# | 16 | [ESFT](16_esft.ipynb) | relevance scores, experts of which only the chosen are trained, beside full fine-tuning and LoRA | 35 |
# | 17 | [GRPO](17_grpo.ipynb) | a policy gradient from a three-armed bandit to the whole objective; a model that learns to sort from right or wrong | 45 |
# | 18 | [R1](18_r1.ipynb) | rewards from rules, a run from base to reasoner, measures that tell a new ability from a better choice; a distilled model of a third of its size | 45 |
# | 19 | [Prover](19_prover.ipynb) | proofs that Lean judges, a small prover, the tree search RMaxTS, learning from verdicts | 45 |
# | 20 | [GPU kernels](20_gpu_kernels.ipynb) | Triton from a vector sum to a matrix product in tiles, every byte counted, on a CPU | 50 |
#
# ## Do you have what you need?
#
# Seven questions. Answer them in your head, then choose below.
#
# 1. What is the shape of `np.ones((3, 1)) + np.ones(4)`?
# 2. What is the shape of `torch.ones(2, 5, 3) @ torch.ones(3, 4)`?
# 3. `x` is [2, 3] and `w` is [7, 3]. What is the shape of `torch.einsum("td,vd->tv", x, w)`?
# 4. What is `np.arange(6).reshape(2, 3).T[0]`?
# 5. 100 is added to every input of a softmax. The first output becomes …
# 6. $y = x^2 + 2x$. After `y.backward()` at $x = 3$, what is `x.grad`?
# 7. A model gives each of 1,024 tokens the same probability. What is its cross-entropy, in nats?

# %%
from deepseek_mini.lesson.selftest import QUESTIONS, self_test

test = self_test()

# %% [markdown]
# Six or seven right: go on. Fewer: the line below a wrong answer says what to read; the free book *Dive into Deep Learning* (d2l.ai), chapters 2 to 4, covers all of it. Without the widget, open the answers.

# %%
from deepseek_mini.lesson.display import publish

answers = "; ".join(f"{q.name}: {q.computed()}" for q in QUESTIONS)
assert all(q.computed() == q.right for q in QUESTIONS)
folded = f"<details><summary>Answers, computed just now</summary>{answers}</details>"
publish({"text/html": folded, "text/plain": "[answers, folded]"})

# %% [markdown]
# ## A model, here and now
#
# The fastest way to see what the course is about is to train a model. This one has the shape of DeepSeek-LLM with every number made smaller: 128 channels instead of 4,096, two layers instead of 30, a vocabulary of 1,024 entries instead of 102,400. It learns from the Python standard library on this machine, 5.7 MB of code, and never sees the tenth of the modules that is held out.

# %%
from deepseek_mini.data import pack, python_code

tokenizer = dm.Tokenizer.small()
data = pack(python_code(), tokenizer, seq_len=64)
mini = dm.Config.preset("deepseek-llm-mini")
config = replace(mini, n_layers=2)
model = dm.Transformer(config)
untrained = copy.deepcopy(model)

print(dm.diff(dm.Config.preset("deepseek-llm-7b"), config))
print(f"\n{dm.count(config).parameters:,} parameters")

# %% [markdown]
# The text becomes **tokens**, pieces of up to a few letters with a number each. For every position in it the model gives each of the 1,024 tokens a probability of coming next. Its **loss** is $-\ln p$ of the token that did come, in nats: 0 if it was certain and right.
#
# **Predict**: what is the loss of the untrained model? (Question 7 of the self-test.)
#
# The next cell takes about half a minute: 1,400 steps of 4 windows of 64 tokens, with the learning rate of DeepSeek-LLM, which rises, stays, and falls in two steps.

# %%
from deepseek_mini.training import TrainConfig, evaluate, train

before = evaluate(untrained, data, batch_size=4, n_windows=128)
recipe = TrainConfig(
    steps=1400, batch_size=4, lr=2e-3, eval_every=350, eval_windows=128
)
run = train(model, data, recipe)
after = run.validation[-1]

print("steps:", len(run.history))
guess = np.log(config.vocab_size)  # nats
print("untrained, about as good as guessing:", abs(before["val_loss"] - guess) < 0.3)
print("trained, below 4.1 nats:", after["val_loss"] < 4.1)
assert abs(before["val_loss"] - guess) < 0.3 and after["val_loss"] < 4.1

# %% [markdown]
# Is that good? A loss means little alone, so we compare with two tables that need no training, only counting. The first knows how often each token occurs. The second knows how often each token follows each other token, mixed with the first where a pair is rare. Both are counted on the same training text and judged on the same held-out text as the model.

# %%
V = config.vocab_size
seen = data.train  # [N]
single = torch.bincount(seen, minlength=V) + 1.0  # [V]
single /= single.sum()  # [V]
pairs = torch.bincount(seen[:-1] * V + seen[1:], minlength=V * V)  # [V * V]
pairs = pairs.reshape(V, V) + 100 * single  # [V, V]
pairs /= pairs.sum(dim=1, keepdim=True)  # [V, V]

held_out = torch.cat(list(data.validation_batches(4, 128)))  # [B, T + 1]
x, y = held_out[:, :-1], held_out[:, 1:]  # [B, T] each
loss = {
    "guessing": guess,
    "table of tokens": -single[y].log().mean().item(),
    "table of pairs": -pairs[x, y].log().mean().item(),
    "the model": after["val_loss"],
}
order = sorted(loss, key=loss.get, reverse=True)
print("from worst to best:", ", ".join(order))
assert order == list(loss)

# %%
alt = """Loss against training step. It falls steeply at first, passes the table of
single tokens within a few hundred steps, and ends below the table of pairs."""
with figure(alt, size=(8, 3.8)) as fig:
    ax = fig.subplots()
    window = 25
    means = np.convolve(run.losses, np.ones(window) / window, mode="valid")
    steps = np.arange(window, len(run.losses) + 1)
    ax.plot(steps, means, color="#56B4E9", linestyle="-", label="training text")
    points = [(row["step"], row["val_loss"]) for row in run.validation]
    ax.plot(*zip(*points), "o-", color="#0072B2", label="held-out text")
    for name in ("guessing", "table of tokens", "table of pairs"):
        ax.axhline(loss[name], color="#555555", linestyle="--", linewidth=1)
        ax.text(1405, loss[name] + 0.06, name, ha="right", color="#555555")
    ax.set_xlabel("training step")
    ax.set_ylabel("loss (nats per token)")
    ax.set_ylim(3.4, 7.3)
    ax.legend(loc=(0.3, 0.70))

# %% [markdown]
# The second table looks at one token. A model that beats it uses what stands further back. Nats per token depend on how the text was cut into tokens; **bits per byte** do not, so the lessons compare models by them. The conversion is exercise 00.4.
#
# What has it learned? Ask for the likeliest next token.

# %%
@torch.no_grad()
def likeliest(model, text):
    tokens = torch.tensor([tokenizer.encode(text, bos=True)])  # [1, T]
    return tokenizer.decode([model(tokens)[0, -1].argmax().item()])


for text, expected in (
    ("    def __init__(", "self"),
    ("        if x is not", " None"),
    ("        if not isinstance", "("),
):
    found = likeliest(model, text)
    print(f"{text.strip()!r} goes on with {expected!r}: {found == expected}")

# %% [markdown]
# Now let it write, before and after. Every token is drawn from the model's probabilities and then becomes part of what it reads. What this cell prints differs a little from machine to machine, because the standard library and the last digits do; so it is one of the few cells whose output no test compares.

# %% tags=["nbval-ignore-output"]
def write(model, text, seed):
    prompt = torch.tensor([tokenizer.encode(text, bos=True)])  # [1, P]
    out = dm.generate(model, prompt, 90, temperature=0.6, top_p=0.9, seed=seed)
    return tokenizer.decode(out[0, 1:])


print(data.source)
print(f"held-out loss {after['val_loss']:.2f} nats per token,", end=" ")
print(f"{after['val_bits_per_byte']:.2f} bits per byte\n")
print("--- untrained\n" + write(untrained, "    def __init__(self", seed=0))
print("\n--- trained\n" + write(model, "    def __init__(self", seed=0))
start = "class Reader:\n    def __init__(self, name):\n"
print("\n--- trained, a longer prompt\n" + write(model, start, seed=1))

# %% [markdown]
# It makes no sense, but it is recognisably Python: `self`, indented blocks, docstrings, names with underscores. Half a minute on one core gave it the manner. The matter needs a larger model, more text and more computing, and the rest of the course is about how to afford them.
#
# One more rung of the ladder, on the model that you just trained: reading a text token by token through the cache, computing attention by the equation instead of PyTorch's fused operation, and saving and loading must not change what it says.

# %%
import tempfile

tokens = x[:2]  # [B, T]: held-out text
with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
    at_once = model(tokens)  # [B, T, V]
    cache = model.new_cache(batch_size=2)
    one_by_one = [model(tokens[:, t : t + 1], cache) for t in range(64)]
    with dm.paths(attention="naive"):
        by_equation = model(tokens)  # [B, T, V]
    dm.save(model, folder)
    loaded = dm.load(folder)(tokens)  # [B, T, V]
ladder(
    "Logits of the trained model",
    [
        ("cached, token by token = at once", torch.cat(one_by_one, 1), at_once, 1e-5),
        ("attention by the equation = fused", by_equation, at_once, 1e-5),
        ("saved and loaded = in memory", loaded, at_once, 0),
    ],
)

# %% [markdown]
# ## The family
#
# Not quite three years, one idea after the other, most of them about the same two costs: the memory of the cache and the arithmetic of a token.

# %%
from deepseek_mini.lesson.atlas import draw_timeline, family_table
from deepseek_mini.lesson.family import LANGUAGE, REASONING, VISION

alt = """Language models by date and total parameters, on a log axis. Multi-head and
grouped-query models of 1 to 67 billion in 2023; latent attention from V2 in 2024, at
236 billion, to V3.1 at 671 billion; sparse latent attention in V3.2 in 2025; window and
compressed attention in V4 and V4.1 in 2026, up to 1.6 trillion. Below, the reasoning
and vision models by date."""
with figure(alt, size=(9, 6)) as fig:
    draw_timeline(fig)

# %% [markdown]
# Read the colours from left to right: each is a way to store or read less of the past.
#
# - **MHA**, multi-head attention: every query head has a key and a value of its own, all cached.
# - **GQA**, grouped-query attention: several query heads share a key and a value (lesson 04).
# - **MLA**, multi-head latent attention: all heads expand their keys and values from one small latent, and only the latent is cached (lesson 09).
# - **DSA**, DeepSeek sparse attention: MLA, but a query attends only to the tokens that an indexer picks.
# - **CSA and HCA**: the cache holds one entry for several tokens, beside a window of the latest ones.
#
# What each changed, and why, in one line. "Total" counts all parameters, "active" those that work on one token: in a mixture of experts (MoE) most are idle at any moment. † marks what could be read only in copies of a release, not in a paper, model card or official repository; months are those of the release or, where only that is dated, of the paper.

# %%
family_table(LANGUAGE)

# %% [markdown]
# The models that reason and prove, and the methods that came with them. The distilled models are Qwen and Llama models that DeepSeek trained further, so their shape is not DeepSeek's own.

# %%
family_table(REASONING)

# %% [markdown]
# And those that see. Their lessons are to come.

# %%
family_table(VISION)

# %% [markdown]
# The parameters of those that the package has a config for, counted from the config and compared with the table:

# %%
for release in (r for r in LANGUAGE if r.preset):
    billions = dm.count(dm.Config.preset(release.preset)).parameters / 1e9
    agrees = abs(billions / release.total - 1) < 0.005
    print(f"{release.preset:24}{billions:7.2f} B   as in the table: {agrees}")
    assert agrees

# %% [markdown]
# ## Explore
#
# Choose two models and a length of context, with the mouse or with Tab and the arrow keys. Below the sizes stands every field in which the two configs differ. Only models that the package can build so far are listed. The slider goes up to 128K tokens (K = 1,024), beyond what some of them were trained for.
#
# **Predict**: the 67B model is ten times the 7B. Is its cache larger or smaller, at the same context?

# %%
from deepseek_mini.lesson import Choice, Slider, slider_html
from deepseek_mini.presets import PRESETS


def compare(first, second, context):
    configs = [dm.Config.preset(name) for name in (first, second)]
    counts = [dm.count(config, 1024 * context) for config in configs]
    rows = [
        ("", first, second),
        ("parameters", *(f"{c.parameters / 1e9:.3f} B" for c in counts)),
        ("largest context", *(f"{c.max_seq_len:,}" for c in configs)),
        (f"cache at {1024 * context:,} tokens",
         *(f"{c.kv_cache_bytes / 1e9:.3f} GB" for c in counts)),
        ("cache for each token",
         *(f"{c.kv_cache_bytes_per_token / 1e3:.1f} kB" for c in counts)),
        *(dm.diff(*configs) or [("the config", "the same", "the same")]),
    ]  # fmt: skip
    style = "text-align: left; padding: 2px 16px 2px 0; line-height: 1.3"
    cell = f"<td style='{style}'>{{}}</td>"
    lines = ["".join(cell.format(value) for value in row) for row in rows]
    lines = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table style='margin-left: 0; width: auto'>{lines}</table>"


names = list(PRESETS)
explorer = slider_html(
    compare,
    alt="A table of the sizes of two models, and of the fields that differ.",
    first=Choice(names, start="deepseek-llm-7b", label="first"),
    second=Choice(names, start="deepseek-llm-67b", label="second"),
    context=Slider(1, 128, start=4, label="context (K tokens)"),
)

# %% [markdown]
# Five of its settings, for those who only read:

# %%
settings = (
    ("deepseek-llm-7b", "deepseek-llm-67b", 4),
    ("deepseek-coder-6.7b", "deepseek-coder-33b", 16),
    ("deepseek-llm-7b", "deepseek-math-7b", 4),
    ("deepseek-v2", "deepseek-v3", 128),
    ("deepseek-r1-distill-qwen-7b", "deepseek-r1-distill-llama-8b", 128),
)
parts = [compare(*setting) for setting in settings]
publish({"text/html": "<hr>".join(parts), "text/plain": "[five comparisons]"})

# %% [markdown]
# The larger model has the smaller cache: 0.39 MB a token against 0.49. Its 95 layers instead of 30 would make it larger, but it keeps 8 keys and values in each instead of 32. DeepSeekMath is DeepSeek-LLM's 7B in every field: what changed is the training. V3 is V2 made larger, with another gate for its experts and one module more; lessons 08 to 13 are about these fields. The two distilled models differ in most fields, because one was a Qwen and the other a Llama before.
#
# The same over the whole story; the newest model, which is to come, has its published figure.

# %%
lengths = 2 ** np.arange(12, 18)  # tokens
per_token = {
    "LLM 67B, plain": dm.count(plain, 1).kv_cache_bytes,
    "LLM 67B (GQA)": dm.count(llm, 1).kv_cache_bytes,
    "V3 (MLA)": dm.count(dm.Config.preset("deepseek-v3"), 1).kv_cache_bytes,
    "V4.1-Flash": 890,
}
alt = """Bytes of cache against length of context, four parallel lines on log axes: the
plain 67B on top, GQA a factor of 8 below, MLA five to six times lower still, and
V4.1-Flash far below. A line marks the 80 GB of one large GPU."""
with figure(alt, size=(8, 3.8)) as fig:
    ax = fig.subplots()
    for name, size in per_token.items():
        line = ax.plot(lengths, lengths * size / 1e9, marker="o", markersize=4)[0]
        end = (lengths[-1] * 1.08, lengths[-1] * size / 1e9)
        ax.text(*end, name, color=line.get_color(), va="center")
    ax.axhline(80, color="#777777", linewidth=1)
    ax.text(lengths[0], 95, "80 GB, one large GPU", color="#777777")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xlim(lengths[0] * 0.9, lengths[-1] * 3.4)
    ax.set_xticks(lengths, [f"{n // 1024}K" for n in lengths])
    ax.set_xlabel("context (tokens, K = 1,024)")
    ax.set_ylabel("KV cache of one text (GB)")
    ax.yaxis.set_major_formatter("{x:g}")

plain_bytes, gqa, mla, _ = per_token.values()
print(f"GQA: {plain_bytes / gqa:.1f} times less; MLA: {gqa / mla:.1f} times less again")
seven = dm.count(dm.Config.preset("deepseek-llm-7b"), 1).kv_cache_bytes
assert (round(gqa / 1e6, 2), round(seven / 1e6, 2)) == (0.39, 0.49)

# %% [markdown]
# ## What is often said, and what is so
#
# Much has been written about these models, not all of it from the sources. These errors are common enough to be worth a table; later lessons show the code behind most of them.

# %%
from deepseek_mini.lesson.atlas import claims_table

claims_table()

# %% [markdown]
# ## Notation
#
# The same letters in every lesson, in shape comments like `# [B, T, D]` and in signatures. Names in code are those of DeepSeek's own inference code where it has one.
#
# | symbol | what it counts or is | in code |
# |---|---|---|
# | $B$ | sequences in a batch | |
# | $T$ | tokens that are read now; with a cache, the new ones | |
# | $S$ | tokens that are attended to: the cache and the new ones | |
# | $V$ | rows of the embedding, one for each token of the vocabulary | `vocab_size` |
# | $D$ | width of the model | `dim` |
# | $L$ | layers | `n_layers` |
# | $H$ | query heads | `n_heads` |
# | $G$ | key-value heads; $G = H$ is multi-head, $G = 1$ multi-query | `n_kv_heads` |
# | $d$ | width of one head | `head_dim` |
# | $F$ | width of a feed-forward network, or of one expert | `inter_dim` |
# | $E$, $K$ | routed experts, and how many of them a token uses | `n_routed_experts`, `n_activated_experts` |
# | $C$ | width of the latent that MLA caches | `kv_lora_rank` |
# | $\theta$, $f_i$ | RoPE's base, and the frequency of pair $i$ in radians per position | `theta` |
# | $m$, $n$ | positions of a query and of a key | |
# | $T_0$ | tokens of context that a model was trained on before RoPE was stretched | `original_seq_len` |
# | $s$ | the factor by which RoPE is stretched | `factor` |
# | `w1`, `w3`, `w2` | gate, up and down matrix of a SwiGLU | |
# | `wq`, `wk`, `wv`, `wo` | matrices to queries, keys and values, and out | |
# | nat, bit | units of $-\ln p$ and $-\log_2 p$; a nat is 1.4427 bits | |
# | $N(0, \sigma^2)$ | random numbers, normally distributed, with mean 0 and standard deviation $\sigma$ | |
# | K, M, B, T after a number | of tokens: K = 1,024; of parameters: M, B, T = $10^6$, $10^9$, $10^{12}$ | |
# | GB | $10^9$ bytes | |
#
# The numbers among these are fields of one frozen dataclass, `Config`, which describes a whole model. This is the mini's:

# %%
assert round(1 / np.log(2), 4) == 1.4427  # bits in a nat
for field, value in vars(mini).items():
    print(f"{field:16}{value}")

# %% [markdown]
# ## What this proves, and what it does not
#
# - It proves that a model of this shape, trained here, beats two tables of counts on text that it has not seen, and that its cached, fused and saved forms say the same.
# - It proves the sizes in the table for the models that have a config here. Dates, and sizes of the other models, are quoted.
# - It does not prove that our model is DeepSeek's. Lesson 05 does, against an independent implementation on the same weights.
# - It does not show that any of the later ideas helps. Each lesson asks that of its own.
#
# ## Where to go next
#
# 1. The [exercises](../exercises/00_start_here.ipynb) of this lesson, 25 minutes: a softmax that does not overflow, the scores of attention, the bytes of a cache, bits per byte. (After `make lab`, take your own copy in `work/`.)
# 2. Lessons [01](01_tokenizer.ipynb), [02](02_norm_and_swiglu.ipynb), [03](03_rope.ipynb) and [04](04_attention.ipynb): the parts of the dense model, in any order.
# 3. Lesson 05, [DeepSeek-LLM](05_deepseek_llm.ipynb): the whole dense model.
#
# **References.** DeepSeek-LLM, arXiv [2401.02954](https://arxiv.org/abs/2401.02954): §2.2 the shape, §2.3 the learning rate used above. DeepSeek-V2, [2405.04434](https://arxiv.org/abs/2405.04434), §2.1: MLA and its cache. DeepSeek-V3, [2412.19437](https://arxiv.org/abs/2412.19437). All other sources stand in the tables. This course is not affiliated with DeepSeek AI.

# ===== exercises =====
# %% [markdown]
# # 00 · Start here: exercises
#
# Four exercises, about 25 minutes in all, on what the [lesson](../notebooks/00_start_here.ipynb) showed. The first, second and last need its self-test only; the third uses the `Config` of its section on notation.
#
# Write your answer where a cell raises `NotImplementedError`, and run that cell. The next cell is for trying it: take away the `#` at its lines, run it, and compare with what should come out. The cell with `check` then compares your answer with an independent one on inputs that you do not see, and prints one line; below it a hint, and what your function printed, when something is not right yet. The exercises do not depend on each other.

# %%
import math

import numpy as np
import torch

import deepseek_mini as dm
from deepseek_mini.lesson import check, setup

setup(seed=0)

# %% [markdown]
# ## 00.1 A softmax that survives large numbers
#
# *A few lines, 8 minutes, NumPy.* $\mathrm{softmax}(x)_i = e^{x_i} / \sum_j e^{x_j}$, along the last axis of an array of any shape. Inputs may be as large as 1,000, rows may differ by thousands, and an element may be $-\infty$ (attention masks with it); no row is $-\infty$ everywhere. Leave `x` as it was.
#
# By hand: $(0, \ln 3, -\infty)$ has the exponentials 1, 3 and 0 and becomes $(1/4, 3/4, 0)$. $(1000, 1000, 1000 + \ln 2)$ becomes $(1/4, 1/4, 1/2)$.

# %%
def softmax(x: np.ndarray) -> np.ndarray:
    """Softmax along the last axis: same shape and dtype as x [..., N]."""
    ### BEGIN SOLUTION
    exp = np.exp(x - x.max(axis=-1, keepdims=True))  # [..., N], at most 1
    return exp / exp.sum(axis=-1, keepdims=True)
    ### END SOLUTION

# %%
# It should print
# [[0.25 0.75 0.  ]
#  [0.25 0.25 0.5 ]]
# x = np.array([[0, np.log(3), -np.inf], [1000, 1000, 1000 + np.log(2)]])
# print(softmax(x))

# %%
check("00.1", softmax)

# %% [markdown]
# ## 00.2 The scores of attention
#
# *One line, 8 minutes, PyTorch.* Queries are `q` [B, T, H, d], keys are `k` [B, S, H, d]. Return all scores, [B, H, T, S]: for each head the dot product of every query with every key, divided by $\sqrt d$. No softmax yet, no mask.
#
# By hand, one query and two keys, in two heads of width 4. In head 0 the query $(1, 1, 1, 1)$ meets the keys $(1, 2, 3, 4)$ and $(9, 10, 11, 12)$: $10 / 2 = 5$ and $42 / 2 = 21$. In head 1 the query $(4, 0, 0, 0)$ meets $(5, 6, 7, 8)$ and $(13, 14, 15, 16)$: $20 / 2 = 10$ and $52 / 2 = 26$.

# %%
def attention_scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """q [B, T, H, d] and k [B, S, H, d] to scores [B, H, T, S], scaled."""
    ### BEGIN SOLUTION
    return torch.einsum("bthd,bshd->bhts", q, k) / math.sqrt(q.shape[-1])
    ### END SOLUTION

# %%
# It should print [[[[5.0, 21.0]], [[10.0, 26.0]]]].
# q = torch.tensor([[1.0, 1, 1, 1], [4, 0, 0, 0]]).reshape(1, 1, 2, 4)  # [B, T, H, d]
# k = torch.arange(1.0, 17).reshape(1, 2, 2, 4)  # [B, S, H, d]
# print(attention_scores(q, k).tolist())

# %%
check("00.2", attention_scores)

# %% [markdown]
# ## 00.3 The bytes of a KV cache
#
# *One line, 6 minutes.* Every layer keeps something of each token that was read, so that it need not be computed again: the KV cache. In a model with grouped-query attention (GQA), several of the `n_heads` query heads read from one **key-value head**; there are `n_kv_heads` of those, and every head is `head_dim` numbers wide. How many bytes does the cache of one sequence of `seq_len` tokens take, if a number takes `bytes_per_number`? Three questions lead there: what does a token leave behind in a layer, for how many heads, and how wide is it?
#
# The cell below shows where a config keeps these numbers. By hand, for this one (DeepSeek-LLM 67B), 3 tokens and 4 bytes a number: 2,334,720 bytes.

# %%
example = dm.Config.preset("deepseek-llm-67b")
print("config.n_layers: ", example.n_layers)
print("config.attention:", example.attention)

# %%
def kv_cache_bytes(config: dm.Config, seq_len: int, bytes_per_number: int) -> int:
    """Bytes that the keys and values of one sequence take, over all layers."""
    ### BEGIN SOLUTION
    part = config.attention
    per_token = 2 * config.n_layers * part.n_kv_heads * part.head_dim  # numbers
    return per_token * seq_len * bytes_per_number
    ### END SOLUTION

# %%
# It should print 2334720.
# print(kv_cache_bytes(example, seq_len=3, bytes_per_number=4))

# %%
check("00.3", kv_cache_bytes)

# %% [markdown]
# ## 00.4 From nats per token to bits per byte
#
# *One line, 6 minutes, NumPy.* `losses` [N] holds the loss of every token of a text, $-\ln p$ of the probability that the model gave it. Its unit is the **nat**; with $\log_2$ it would be the bit, and a bit is $\ln 2 = 0.693$ nats. `byte_lengths` [N] holds how many bytes of text each token stands for. Return the bits that the model needs for the whole text, divided by the bytes of the whole text.
#
# A special token, such as the one that begins a text, stands for 0 bytes. Its loss counts all the same: it adds bits, and no bytes.
#
# By hand: three tokens with losses of $\ln 4$, $\ln 4$ and $\ln 16$ cost 2, 2 and 4 bits. They stand for 3, 1 and 0 bytes: 8 bits for 4 bytes, 2 bits per byte.

# %%
def bits_per_byte(losses: np.ndarray, byte_lengths: np.ndarray) -> float:
    """Bits per byte of a text whose tokens cost losses [N], in nats."""
    ### BEGIN SOLUTION
    return losses.sum() / math.log(2) / byte_lengths.sum()
    ### END SOLUTION

# %%
# It should print 2.0.
# print(bits_per_byte(np.log([4, 4, 16]), np.array([3, 1, 0])))

# %%
check("00.4", bits_per_byte)

# %% [markdown]
# What you have passed so far is remembered in `work/.progress.json`. To see it, run `from deepseek_mini.lesson import progress; progress()` in a new cell.
