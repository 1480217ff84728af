# %% [markdown]
# # 07 · Coder: repositories in order, gaps to fill
#
# Twenty packages of Python's standard library have several files each, and 286 times one of these files imports another (in Python 3.11). Write the files of a package one after the other, by name: in 159 of the 286 cases the imported file stands before the file that needs it. By chance it would be half. A model that reads from left to right then learns, half of the time, to use what it has not seen. And it always learns to write at the end of a text, while a programmer's cursor stands in the middle of one.
#
# DeepSeek-Coder changed the *data*, not the model: files in the order of their imports, and half of the documents with their middle moved to the end.
#
# - **You will build** the pipeline in plain Python: which file imports which, an order that survives circles, near duplicates, and filling in the middle; train two small models, and let one fill a gap.
# - **You need** lesson 01 (tokens, special tokens) and lesson 05 (training, loss). A *document* is a text of the training data; *packing* joins documents into one long row of tokens and cuts it into windows.
# - **Time**: about 45 minutes, and an hour for the exercises.
# - **Paper**: DeepSeek-Coder, sections 2.2, 2.3 and 3.1.2.

# %%
import json
import random
import re
from dataclasses import replace
from importlib.resources import files

import numpy as np
import torch

import deepseek_mini as dm
from deepseek_mini.lesson import PALETTE, figure, label_lines, setup, show

setup(seed=0)

# %% [markdown]
# ## By hand
#
# A repository of four files. A type that `layers.py` wants from `model.py` closes a circle:
#
# | file | imports | how many |
# |---|---|---|
# | `config.py` | nothing | 0 |
# | `layers.py` | `config.py`, `model.py` | 2 |
# | `model.py` | `config.py`, `layers.py` | 2 |
# | `train.py` | `model.py` | 1 |
#
# Textbook sorting takes a file whose imports are all written, and again. After `config.py` it is stuck: `layers.py` waits for `model.py` and `model.py` for `layers.py`. DeepSeek's rule (Algorithm 1 of the paper) takes the file with the **fewest** imports that are not written yet, whether that is none or not.
#
# **Predict**: after `config.py`, how many does each of the other three still wait for, and which one is next?

# %%
repository = {
    "config.py": "WIDTH = 128",
    "layers.py": "from config import WIDTH\nfrom model import Model",
    "model.py": "import config\nimport layers\n\nclass Model: ...",
    "train.py": "from model import Model",
}


def imported_files(text, paths):
    names = re.findall(r"^\s*(?:from|import)\s+(\w+)", text, re.MULTILINE)
    return {f"{name}.py" for name in names} & set(paths)


def in_order(graph, explain=False):
    waits_for = {path: set(others) - {path} for path, others in graph.items()}
    ordered = []
    while waits_for:
        counts = {path: len(waits_for[path]) for path in sorted(waits_for)}
        chosen = min(counts, key=counts.get)  # of equals the first by name
        if explain:
            print(f"{chosen:10} from {counts}")
        del waits_for[chosen]
        for others in waits_for.values():
            others.discard(chosen)
        ordered.append(chosen)
    return ordered


graph = {path: imported_files(text, repository) for path, text in repository.items()}
assert in_order(graph, explain=True) == list(repository)

# %% [markdown]
# All three wait for one file, and the name decides. Had `train.py` been called `app.py`, it would have come before the model that it uses. So the rule is not perfect where there are circles. How much that costs on real code, we count below.
#
# The paper finds imports the same way, with a pattern (`import` in Python, `using` in C#, `include` in C): nothing is executed, and broken code does no harm.
#
# ## The package's version
#
# Real imports have folders, dots and brackets. The package resolves them to files; here are its search for import statements and its order.

# %%
from deepseek_mini.data import repository as repository_module
from deepseek_mini.data.repository import dependencies, imports, order

show(imports, dependencies)

# %%
show(order, repository_module._order_group)

# %% [markdown]
# A repository may fall into **groups** of files that no import connects; each becomes a document of its own. What the pattern misses is said in `imports`: fewer than 2% of the statements of the twenty packages, as a test finds with Python's own parser.
#
# Plain Python = package, on all twenty:

# %%
from deepseek_mini.data import python_packages

packages = python_packages()
graphs = {package.name: dependencies(package.files) for package in packages}
for name, graph in graphs.items():
    for group in order(graph):
        assert group == in_order({path: graph[path] for path in group}), name
print("the same order in all packages:", ", ".join(graphs))

# %% [markdown]
# ## See it
#
# The package `email`, its files in a row, once by name and once in order. An arc is an import. Above the line the imported file stands before, to the left; below the line it comes too late.

# %%
def draw_arcs(ax, paths, graph, title):
    at = {path: x for x, path in enumerate(paths)}
    late = 0
    for path, imported in graph.items():
        for other in imported:
            middle, radius = (at[path] + at[other]) / 2, abs(at[path] - at[other]) / 2
            early = at[other] < at[path]
            late += not early
            angle = np.linspace(0, np.pi, 40)  # [40]
            height = np.sin(angle) * radius * (1 if early else -1)  # [40]
            look = {"color": PALETTE[0 if early else 1], "ls": "-", "lw": 1.2}
            ax.plot(middle + radius * np.cos(angle), height, **look)
    ax.plot(range(len(paths)), [0] * len(paths), "o", color="black", ms=4, ls="")
    names = [path.removesuffix(".py").removeprefix("email/") for path in paths]
    ax.set_xticks(range(len(paths)), names, rotation=90, fontsize=9)
    ax.set_title(f"{title}: {late} of {sum(map(len, graph.values()))} too late")
    ax.set_yticks([])
    ax.grid(False)
    return late


email = graphs["email"]
alt = """Two rows of the 22 files of the package email with an arc for each import. By
name many arcs lie below the line, too late; in order only four do."""
with figure(alt, size=(9, 7)) as fig:
    upper, lower = fig.subplots(2, 1)
    by_name = draw_arcs(upper, sorted(email), email, "by name")
    ordered = draw_arcs(lower, order(email)[0], email, "in order of imports")
print("in order, fewer than half as many are late:", 2 * ordered < by_name)
assert 2 * ordered < by_name

# %% [markdown]
# Now all packages, and a second question: it does not help a model that a file stood earlier if it stood *too far* back. Say an import is **in reach** at a context of $n$ tokens when the imported file begins at most $n$ tokens before the importing one; then it is read whole.
#
# **Predict**: our miniatures read 1,024 tokens, DeepSeek-Coder 16,384. In the best order, which share of the imports is in reach of each?

# %%
tokenizer = dm.Tokenizer.small()
length = {
    file.name: len(tokenizer.encode(file.text)) for p in packages for file in p.files
}


def distances(arrange):
    """For every import the tokens from the imported file's start; inf if it is late."""
    found = []
    for graph in graphs.values():
        start, position = {}, 0
        for path in arrange(graph):
            start[path] = position
            position += length[path]
        for path, imported in graph.items():
            back = [start[path] - start[other] for other in imported]
            found += [d if d > 0 else np.inf for d in back]
    return np.array(found)


def shuffled(graph):
    return random.Random(0).sample(sorted(graph), len(graph))


def one_after_the_other(graph):
    return [path for group in order(graph) for path in group]


arrangements = {
    "order of imports": one_after_the_other,
    "by name": sorted,
    "shuffled": shuffled,
    "reversed order": lambda graph: one_after_the_other(graph)[::-1],
}
reach = {name: distances(arrange) for name, arrange in arrangements.items()}

# %%
context = np.geomspace(512, 2**18, 60)  # tokens
alt = """Share of imports in reach against context, 512 to 262,144 tokens, four
orders. All are near zero at 1,024. At 16,384 the order of imports has about a third, by
name and shuffled under a fifth; at the right end 87, 56, 46 and 13 percent."""
with figure(alt) as fig:
    ax = fig.subplots()
    for name, tokens in reach.items():
        ax.plot(context, [(tokens <= n).mean() for n in context], label=name)
    ax.vlines((1024, 16_384), 0, 1, color="black", lw=1)
    for n in (1024, 16_384):
        ax.text(n * 1.06, 0.93, f"{n:,}")
    ax.set(xscale="log", xlabel="context (tokens of our tokenizer)")
    ax.set(ylabel="share of imports in reach", ylim=(-0.02, 1))
    label_lines(ax)

earlier = {name: np.isfinite(tokens).mean() for name, tokens in reach.items()}
print("imported file earlier, in order: over 80%:", earlier["order of imports"] > 0.8)
print("by name and shuffled: from 40% to 65%:", 0.4 < earlier["shuffled"] < 0.65)
assert earlier["order of imports"] > 0.8 and 0.4 < earlier["by name"] < 0.65
near, far = ((reach["order of imports"] <= n).mean() for n in (1024, 16_384))
print("in reach of 1,024 tokens, under 5%:", near < 0.05)
print("in reach of 16,384 tokens, over 25%:", far > 0.25)
assert near < 0.05 and far > 0.25

# %% [markdown]
# In order, 87% of the imports look back. The rest are circles: of the 38 late imports all but one are between files that import each other, directly or through others. (The numbers are for Python 3.11.)
#
# And a miniature's context is shorter than a single file, so on these packages order can do next to nothing for it. DeepSeek's 16,384 tokens reach a third of the imports, and its tokens are longer than ours. We keep that in mind for the experiment.
#
# ## Near duplicates
#
# Code is copied more than any other text. Comparing every pair of repositories is out of the question, so each text is reduced to 128 numbers, its **MinHash** signature. Cut the text into all runs of five words (**shingles**); hash them; keep the smallest hash; do so with 128 hash functions. The smallest hash over two texts together is equally likely to be any of their shingles, and both have it exactly when that shingle is common to both. So the share of equal numbers in two signatures estimates |both| / |either|, the share of shingles in common (*Jaccard similarity*).

# %%
from deepseek_mini.data.dedup import minhash, shingles, similarity

show(shingles, minhash)

# %% [markdown]
# One word changed in every twenty-five, in a text of 1,000 words: how similar is the copy? Each change touches five shingles, so 200 of about 1,000 are lost on either side, and about 800 of 1,200 are common.

# %%
rng = np.random.default_rng(0)
words = [f"w{i}" for i in rng.integers(500, size=1000)]
copy = ["changed" if i % 25 == 12 else word for i, word in enumerate(words)]
a, b = shingles(" ".join(words)), shingles(" ".join(copy))
truth = len(a & b) / len(a | b)
estimate = similarity(minhash(" ".join(words)), minhash(" ".join(copy)))
print(f"true {truth:.2f}; the estimate is within 0.1: {abs(estimate - truth) < 0.1}")
assert abs(estimate - truth) < 0.1

# %% [markdown]
# DeepSeek compares *whole repositories*, with their files joined, and drops a whole one. Why not file by file? Let a second project contain a copy of two of `json`'s files, and a file of its own that uses them.

# %%
from deepseek_mini.data import Document, Repository, deduplicate

library = next(package for package in packages if package.name == "json")
copied = [f for f in library.files if f.name in ("json/decoder.py", "json/scanner.py")]
own = Document("app.py", "from json import decoder\n\n" + " ".join(words))
project = Repository("project", (*copied, own))
fork = Repository(
    "fork of json",
    tuple(Document(f.name, f.text + "\n# forked\n") for f in library.files),
)
everything = [library, project, fork]
for level in ("repository", "file"):
    kept = deduplicate(everything, level=level)
    print(f"by {level}: {kept}")

broken = deduplicate(everything, level="file")[1]
print("imports in the project:", sum(map(len, dependencies(project.files).values())))
print("after the file level:", sum(map(len, dependencies(broken.files).values())))
assert [r.name for r in deduplicate(everything)] == ["json", "project"]
assert not any(dependencies(broken.files).values())

# %% [markdown]
# Both levels drop the fork. The file level also tore two files out of the project, and left one that imports what is no longer there.
#
# ## Fill in the middle, by hand
#
# Cut a text at two places: **prefix**, **middle**, **suffix**. Write the middle last:
#
# `<｜fim▁begin｜>` prefix `<｜fim▁hole｜>` suffix `<｜fim▁end｜>` middle
#
# The loss stays the next token's, and nothing in the architecture changes, but now the model writes the middle *after* it has read both sides. The twelve characters of `print(a + b)`, cut at 6 and 11:

# %%
text, first, second = "print(a + b)", 6, 11
prefix, middle, suffix = text[:first], text[first:second], text[second:]
print([prefix, middle, suffix])
cut_text = f"<｜fim▁begin｜>{prefix}<｜fim▁hole｜>{suffix}<｜fim▁end｜>{middle}"
print(cut_text)
assert prefix + middle + suffix == text

# %% [markdown]
# This order is called PSM. (SPM, with the suffix first, exists elsewhere; DeepSeek does not use it.) The cuts fall between *characters*, anywhere: a user's cursor stands in half-written words. Move the cuts:

# %%
from deepseek_mini.lesson import Slider, slider_figure

COLORS = {"prefix": "#CFE3F2", "middle": "#F6D5B8", "suffix": "#CDEADF"}


def draw_cut(fig, first, second):
    first, second = sorted((first, second))
    ax = fig.subplots()
    kinds = ["prefix"] * first + ["middle"] * (second - first)
    kinds += ["suffix"] * (len(text) - second)
    chars = list(zip(text, kinds))
    pick = {k: [c for c in chars if c[1] == k] for k in COLORS}
    marks = [[(m, "mark")] for m in ("begin", "hole", "end", "EOS")]
    row = marks[0] + pick["prefix"] + marks[1] + pick["suffix"] + marks[2]
    for y, cells in ((1.6, chars), (0, row + pick["middle"] + marks[3])):
        x = 0.0
        for label, kind in cells:
            wide = 2.2 if kind == "mark" else 1
            box = {"color": COLORS.get(kind, "#E4E4E4"), "ec": "white"}
            ax.barh(y, wide, left=x, height=0.8, **box)
            size = 9 if kind == "mark" else 13
            ax.text(x + wide / 2, y, label, ha="center", va="center", fontsize=size)
            x += wide
    for place in (first, second):
        ax.plot([place, place], [1.1, 2.1], color="black", lw=2, ls="-")
    ax.set(xlim=(-0.3, 21.3), ylim=(-0.6, 2.3))
    ax.axis("off")


widget = slider_figure(
    draw_cut,
    alt="The 12 characters of print(a + b), cut at {first} and {second}, and as PSM.",
    size=(8, 2),
    first=Slider(0, 12, start=6, label="first cut"),
    second=Slider(0, 12, start=11, label="second cut"),
)

# %%
alt = """Three cuts of print(a + b). Above the text in its order, below begin, prefix,
hole, suffix, end, middle, EOS. At 0 and 5 the prefix is empty, at 7 and 12 the suffix
is."""
with figure(alt, size=(8, 6)) as fig:
    for panel, first, second, title in zip(
        fig.subfigures(3, 1),
        (6, 0, 7),
        (11, 5, 12),
        ("the middle goes to the end", "no prefix", "no suffix, as in completion"),
    ):
        panel.suptitle(f"cut at {first} and {second}: {title}", fontsize=11)
        draw_cut(panel, first, second)

# %% [markdown]
# ## In the package
#
# A **rate** says which share of the documents is cut: 0.5 for DeepSeek-Coder. A hash of seed, name and text decides, so that a run can be repeated and resumed.

# %%
from deepseek_mini.data import fim

show(fim.cut, fim.psm, fim.encode_with_fim)

# %% [markdown]
# The marks are put between ids, never into text. If they were written as text, a file that happens to contain `<｜fim▁hole｜>` (this lesson, for one) would open a hole of its own. By hand = package, on a document that tries:

# %%
sneaky = "x = '<｜fim▁hole｜>'\n" * 3
(ids,) = fim.encode_with_fim([Document("sneaky", sneaky)], tokenizer, rate=1, seed=0)
marks = [tokenizer.id(f"fim_{name}") for name in ("begin", "hole", "end")]
places = [i for i, id in enumerate(ids) if id in marks]
assert [ids[i] for i in places] == marks  # each once, in this order
begin, hole, end = places
pieces = ids[begin + 1 : hole], ids[end + 1 :], ids[hole + 1 : end]
prefix, middle, suffix = map(tokenizer.decode, pieces)
print("one of each mark, and the pieces join to the text:", end=" ")
print(prefix + middle + suffix == sneaky)
by_hand = [marks[0], *tokenizer.encode(prefix), marks[1], *tokenizer.encode(suffix)]
by_hand += [marks[2], *tokenizer.encode(middle)]
assert ids == by_hand and prefix + middle + suffix == sneaky

# %% [markdown]
# ## How people get it wrong
#
# `pack(corpus, tokenizer, seq_len, fim_rate=0.5)` cuts documents and *then* packs them, with BOS before and EOS after each. By the EOS behind the middle a model learns to stop. The bug: **pack first, then cut the windows.** It is easier to write, the shapes are right, and the loss falls.
#
# **Predict**: the documents here are single functions, 117 tokens long on average; a window has 256. In how many windows does the middle belong to one function? In how many does EOS end it?

# %%
from deepseek_mini.data import pack
from deepseek_mini.data.functions import python_functions

functions = python_functions()
plain = pack(functions, tokenizer, seq_len=256)
bos, eos = tokenizer.id("bos"), tokenizer.id("eos")
windows = plain.train[: len(plain.train) // 256 * 256].view(-1, 256).numpy()  # [N, 256]

rng = np.random.default_rng(0)
torn = ended = 0
for window in windows:
    i, j = sorted(rng.integers(257, size=2))
    middle = window[i:j]
    torn += bos in middle or eos in middle[:-1]  # parts of two functions
    ended += len(middle) > 0 and middle[-1] == eos
torn, ended = torn / len(windows), ended / len(windows)
print("middles that span functions, over a third:", torn > 1 / 3)
print("middles that end with EOS, under 5%:", ended < 0.05)
assert torn > 1 / 3 and ended < 0.05

# %% [markdown]
# Two more from the same family: prompting a PSM model with the suffix first (it was never asked so), and forgetting BOS before `<｜fim▁begin｜>`. All of these run.
#
# ## Fill a gap
#
# Two small models with 0.2 million parameters, from the same first weights, learn functions for half a minute, one without FIM and one with rate 0.5.

# %%
from deepseek_mini.config import GQA, SwiGLU
from deepseek_mini.training import TrainConfig, train

tiny = replace(
    dm.Config.preset("deepseek-coder-mini"),
    dim=64,
    n_layers=2,
    attention=GQA(n_heads=2, n_kv_heads=2, head_dim=32),
    dense=SwiGLU(inter_dim=168),
)
recipe = TrainConfig(steps=150, batch_size=4, lr=4e-3, eval_every=150)


def trained(rate):
    data = pack(functions, tokenizer, seq_len=192, fim_rate=rate, seed=0)
    torch.manual_seed(0)
    model = dm.Transformer(tiny)
    train(model, data, recipe, progress=False)
    return model


models = {rate: trained(rate) for rate in (0.0, 0.5)}

# %%
from deepseek_mini.infilling import infill

show(infill)

# %% tags=["nbval-ignore-output"]
prefix, suffix = "def close(self):\n    self.", ".close()\n"
for rate, model in models.items():
    said = dm.infill(model, tokenizer, prefix, suffix, max_new_tokens=12)
    print(f"rate {rate}: {said!r}")

# %% [markdown]
# Neither has closed the gap well. (The text depends on the processor.) So let us measure instead of look. In 120 functions of modules that were held out, one line is hidden. Three ways to read before writing it: the left side alone, as plain text; both sides, as PSM; and PSM with the right side of *another* function. The loss is in bits per byte of the hidden line.
#
# **Predict**: the order of the six numbers. Is the right side worth as much as you think?

# %%
from torch.nn import functional as F

gaps = []  # (before, line, after)
for text in [d.text for d in functions.validation if len(d.text) < 400][:120]:
    lines = text.splitlines(keepends=True)
    i = random.Random(text).randrange(1, len(lines))
    after = "\n" + "".join(lines[i + 1 :])
    gaps.append(("".join(lines[:i]), lines[i].rstrip("\n"), after))


@torch.no_grad()
def line_loss(model, right_side):
    bits = n_bytes = 0
    for k, (before, line, after) in enumerate(gaps):
        left, target = tokenizer.encode(before), tokenizer.encode(line)
        if right_side == "none":
            read = [bos, *left]
        else:
            after = gaps[k - 1][2] if right_side == "another's" else after
            read = [bos, *fim.psm(left, tokenizer.encode(after), tokenizer)]
        logits = model(torch.tensor([[*read, *target]]))[0]  # [T, V]
        logits = logits[len(read) - 1 : -1]  # [target, V]
        loss = F.cross_entropy(logits, torch.tensor(target, dtype=int), reduction="sum")
        bits += loss.item() / np.log(2)
        n_bytes += len(line.encode())
    return bits / n_bytes


sides = ("none", "its own", "another's")
live = {rate: {s: line_loss(m, s) for s in sides} for rate, m in models.items()}
learned = live[0.0]["its own"] - live[0.5]["its own"]
price = live[0.5]["none"] - live[0.0]["none"]
use = live[0.5]["another's"] - live[0.5]["its own"]
print("with FIM, PSM is read better than without, by over 0.1:", learned > 0.1)
print("plain text costs less than 0.1 more:", price < 0.1)
print("whose right side it is makes under 0.05 of difference:", abs(use) < 0.05)
assert learned > 0.1 and price < 0.1 and abs(use) < 0.05

# %% [markdown]
# The model has learned what PSM *looks* like, at next to no price, and not to look at the other side. Is that only because it is so small?
#
# ## Does it matter?
#
# The experiment (`experiments/07_coder_fim.py`, its log comes with the package) has models of 0.53 million parameters. First 500 steps on functions of up to 25 lines, rate 0 or 0.5, three seeds. Then one longer pair, 2,000 steps on functions of up to 10 lines. (The preset's rotations are stretched by 4, as in the released Coder; the longer pair has plain ones, so the two parts differ in more than their length.) Functions of held-out modules that nearly repeat a training function were dropped, by MinHash. In 200 of the others a line is hidden, and in 194 of them a name below the first line.

# %%
log = (files("deepseek_mini") / "assets/logs/07_coder_fim.jsonl").read_text()
head, *records = [json.loads(line) for line in log.splitlines()]


def logged(part, variant):
    return [r for r in records if (r["part"], r["variant"]) == (part, variant)]


print(f"{head['hardware']}, torch {head['torch']}, {head['date']}")
print(f"{head['seconds'] / 60:.0f} minutes of processor time")
print(f"{'mean over seeds':28}{'rate 0':>9}{'rate 0.5':>9}{'long 0':>9}{'long 0.5':>9}")
for label, key in (
    ("hidden line, exact: left", "line_left"),
    ("hidden line, exact: both", "line_both"),
    ("hidden name, exact: left", "name_left"),
    ("hidden name, exact: both", "name_both"),
    ("line filled, parses: left", "line_left_compiles"),
    ("line filled, parses: both", "line_both_compiles"),
    ("loss of line: left", "loss_left"),
    ("loss of line: both", "loss_both"),
    ("loss of line: other's right", "loss_wrong"),
    ("loss of whole functions", "loss_whole"),
):
    runs = [logged(part, rate) for part in ("fim", "long") for rate in (0.0, 0.5)]
    means = [np.mean([r[key] for r in group]) for group in runs]
    form = "9.2f" if "loss" in key else "9.1%"
    print(f"{label:28}" + "".join(format(mean, form) for mean in means))

# %% [markdown]
# *Left* means plain completion from what stands before; *both* means PSM. *Parses* says whether the function is Python with what was written in the gap.

# %%
def per_seed(part, rate, key):
    return np.array([r[key] for r in logged(part, rate)])  # [seeds]


for part in ("fim", "long"):
    plain_loss = [per_seed(part, rate, "loss_whole") for rate in (0.0, 0.5)]
    assert (plain_loss[1] - plain_loss[0] < 0.03).all()  # the price
    both = [per_seed(part, rate, "loss_both") for rate in (0.0, 0.5)]
    assert (both[0] - both[1] > 0.1).all()  # the format is learned
    assert (np.abs(per_seed(part, 0.5, "loss_wrong") - both[1]) < 0.02).all()
    assert (both[1] > per_seed(part, 0.5, "loss_left") + 0.1).all()
    assert (per_seed(part, 0.5, "name_left") > 0.1).all()
    assert not per_seed(part, 0.5, "name_both").any()
print("in every seed, in bits a byte: plain text costs under 0.03 more with FIM;")
print("PSM is read better by over 0.1; whose right side it is matters under 0.02;")
print("and the left side alone, as plain text, is better than PSM by over 0.1")

# %% [markdown]
# This is a negative result, and a plain one. From the left these models hit one name in seven, the longer pair one in five or six. From both sides they hit none, although PSM contains everything that the left side does. The paper reports the opposite for its 1.3B model, over two thousand times the size and trained on far more text: the more FIM, the better it fills gaps. What is missing here? Look at *where* in the middle the loss is, in the longer pair, on randomly cut middles of 25 tokens and more.

# %%
alt = """Loss against place in the middle, 0 to 24, three curves. At place 0 reading
PSM with FIM training is best. At places 2 to 8 it is worse than reading the left side
alone. From about place 13 on all run together."""
with figure(alt) as fig:
    ax = fig.subplots()
    with_fim, without = logged("long", 0.5)[0], logged("long", 0.0)[0]
    ax.plot(with_fim["places_left"], label="rate 0.5, left side alone")
    ax.plot(with_fim["places_both"], label="rate 0.5, both sides (PSM)")
    ax.plot(without["places_both"], label="rate 0, both sides (PSM)")
    ax.set(xlabel="place in the middle (tokens)", ylabel="loss (nats per token)")
    ax.legend()
gap = np.array(with_fim["places_both"]) - np.array(with_fim["places_left"])  # [25]
print("place 0: PSM better by over 0.5:", gap[0] < -0.5)
print("places 2 to 8: worse by over 0.1 on average:", gap[2:9].mean() > 0.1)
print("places 15 to 24: within 0.05 on average:", abs(gap[15:].mean()) < 0.05)
assert gap[0] < -0.5 and gap[2:9].mean() > 0.1 and abs(gap[15:].mean()) < 0.05

# %% [markdown]
# At place 0 the trained model knows that a middle may begin inside a word; plain text never does. At the places after it, it does not find the *join*: to go on where the prefix stopped, a head must look from `<｜fim▁end｜>` back to the token before `<｜fim▁hole｜>`, far away. After fifteen tokens the middle is its own context and all are alike. So infilling does not come for free with the format: it needs a mechanism that these models, after two million tokens, do not have. Whether a wider miniature or ten times the text would find it, we have not measured.
#
# **The order of files.** Since a standard-library file does not fit into a miniature's context, the experiment cuts each *module* into a repository: a file for every definition, importing the others that it uses. The three models of rate 0 are trained on for 120 steps, files in order, shuffled, or reversed. Then 143 held-out files are read after the files that they import; after as many tokens of other files of the same module; and after nothing.

# %%
print("loss of importing files (nats per token), mean over seeds")
print(f"{'trained on':16}{'imported first':>16}{'others first':>14}{'nothing':>10}")
orders = ("imports first", "shuffled", "reversed")
table = {}
for how in orders:
    table[how] = {k: per_seed("order", how, k) for k in ("imported", "others", "none")}
    row = [table[how][k].mean() for k in ("imported", "others", "none")]
    print(f"{how:16}{row[0]:16.3f}{row[1]:14.3f}{row[2]:10.3f}")

spread = np.ptp([table[how]["imported"] for how in orders], axis=0)  # [seeds]
worth = np.array([table[how]["others"] - table[how]["imported"] for how in orders])
print("between the orders under 0.02 in every seed:", (spread < 0.02).all())
print("the imported file is worth more than 0, less than 0.01:", end=" ")
print((worth > 0).all() and (worth < 0.01).all())
assert (spread < 0.02).all() and (worth > 0).all() and (worth < 0.01).all()

# %% [markdown]
# Again nil for the order of training, and reading nothing first is as good as reading the imported files. The one sign of life: in all nine models these files help more than others of the same module, by a few thousandths of a nat. That may still be chance, for it is the same 143 files nine times. The authors themselves wrote, of function-level benchmarks, that repository order neither helped nor hurt (issue 43 of their repository).
#
# There is a reason to expect little from a *total*. By the chain rule, $\log p(A) + \log p(B \mid A) = \log p(B) + \log p(A \mid B)$: for a perfect model two files cost the same in either order. Order decides which direction the model practises, and a user writes the file that imports, with the imported one at hand.
#
# ## At full size
#
# DeepSeek-Coder was trained at 4,096 tokens and then at 16,384, with FIM at rate 0.5. Of its ablation at 1.3B, the paper reports that rate 1.0 fills gaps best and completes worst; 0.5 is the compromise. Coder-V2-Lite kept 0.5, the large Coder-V2 used none, V3 0.1, all PSM. The three marks cost almost nothing; a repository as prompt costs cache:

# %%
for name in ("deepseek-coder-1.3b", "deepseek-coder-6.7b", "deepseek-coder-33b"):
    config = dm.Config.preset(name)
    report = dm.count(config, seq_len=16_384, cache_dtype=torch.bfloat16)
    cache = report.kv_cache_bytes / 1e9
    print(f"{name:20} {report.parameters / 1e9:5.1f} B parameters,", end=" ")
    print(f"{cache:.1f} GB of cache at 16,384 tokens")
    assert config.max_seq_len == 16_384

# %% [markdown]
# ## What this proves, and what it does not
#
# - Proved: our order is the paper's rule, circles included; every file comes once, and without circles every import is earlier (tests draw random graphs).
# - Proved: the pieces of a cut join to the document, the marks cannot be smuggled in, and EOS ends every middle.
# - Measured: 87% of the imports within twenty packages look back in this order, 56% by name; a third is in reach of 16,384 of our tokens, 3% of 1,024.
# - Measured, and negative: half a million parameters and two million tokens learn the format of FIM, at no price, and not the skill; no order of files matters to them.
# - Not shown: that FIM or repository order help at full size. For that there is only the paper's word.
#
# ## Exercises
#
# The [exercises](../exercises/07_coder_fim.ipynb) take about an hour: PSM, what a relative import means, the order of files, MinHash, and packing. (After `make lab`, take your own copy in `work/`.)
#
# ## References
#
# - *DeepSeek-Coder*, arXiv 2401.14196, §2.2 (order, Algorithm 1), §2.3 (near duplicates), §3.1.2 (FIM and its rate). Questions on the order: github.com/deepseek-ai/DeepSeek-Coder, issue 43.
# - M. Bavarian and others, *Efficient Training of Language Models to Fill in the Middle*, arXiv 2207.14255 (PSM, SPM, cuts between characters).
# - A. Broder, *On the resemblance and containment of documents*, 1997 (MinHash).
# - *DeepSeek-Coder-V2*, arXiv 2406.11931; *DeepSeek-V3*, arXiv 2412.19437 (their rates).

# ===== exercises =====
# %% [markdown]
# # 07 · Coder: exercises
#
# Five exercises on lesson 07, about an hour in all. Write your answer where a cell raises `NotImplementedError`, run that cell and the one after it; `check` prints one line, and a hint when something is not right yet. Every exercise has what it needs and none needs another one: leave out what you like.

# %%
import numpy as np

from deepseek_mini.lesson import check, setup

setup(seed=0)

# %% [markdown]
# ## 07.1 Prefix, suffix, middle
#
# *One line, 4 minutes.* `text` is cut before its characters number `first` and `second` (counted from 0, `first <= second`): the prefix is what stands before the first cut, the middle between the cuts, the suffix after the second. Return one text: the begin mark, the prefix, the hole mark, the suffix, the end mark, the middle. Each piece may be empty.
#
# By hand: `print(a + b)`, cut at 6 and 11, becomes `<｜fim▁begin｜>print(<｜fim▁hole｜>)<｜fim▁end｜>a + b`. `x = x`, cut at 4 and 5, has the middle `x` and no suffix; cut at 3 and 3, it has the prefix `x =`, the suffix ` x` and no middle.

# %%
BEGIN, HOLE, END = "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"


def fill_in_the_middle(text: str, first: int, second: int) -> str:
    """The text in the order PSM, its marks spelled out."""
    ### BEGIN SOLUTION
    return BEGIN + text[:first] + HOLE + text[second:] + END + text[first:second]
    ### END SOLUTION

# %%
# To try it, take away the # of the last three lines. It should print
# <｜fim▁begin｜>print(<｜fim▁hole｜>)<｜fim▁end｜>a + b
# <｜fim▁begin｜>x = <｜fim▁hole｜><｜fim▁end｜>x
# <｜fim▁begin｜>x =<｜fim▁hole｜> x<｜fim▁end｜>
# print(fill_in_the_middle("print(a + b)", 6, 11))
# print(fill_in_the_middle("x = x", 4, 5))
# print(fill_in_the_middle("x = x", 3, 3))
check("07.1", fill_in_the_middle)

# %% [markdown]
# ## 07.2 What an import means
#
# *A few lines, 10 minutes.* A file `importer` says `from ..d.e import name`. The two dots are `dots`, and `"d.e"` is `module`, which may be empty. One dot means the folder that the file is in, and every further dot one folder up. Return the path of the module inside the repository, without `.py`: folders joined by slashes. If the dots lead above the repository's own folder, return `None`. When there is no module, return the folder itself; the repository's own folder is `""`.
#
# By hand, in the file `a/b/c.py`: two dots and `d.e` give `a/d/e`; one dot and `d` give `a/b/d`; two dots and no module give `a`, and three `""`; four dots give `None`, with a module or without.

# %%
def imported_module(importer: str, dots: int, module: str) -> str | None:
    """The path that a relative import in the file `importer` means."""
    ### BEGIN SOLUTION
    folders = importer.split("/")[:-1]
    up = dots - 1
    if up > len(folders):
        return None
    parts = module.split(".") if module else []
    return "/".join(folders[: len(folders) - up] + parts)
    ### END SOLUTION

# %%
# To try it, take away the # of the last two lines. It should print
# ['a/d/e', 'a/b/d', 'a', '', None]
here, cases = "a/b/c.py", ((2, "d.e"), (1, "d"), (2, ""), (3, ""), (4, "d"))
# found = [imported_module(here, dots, module) for dots, module in cases]
# print(found)
check("07.2", imported_module)

# %% [markdown]
# ## 07.3 The order of files
#
# *From the paper (arXiv 2401.14196, Algorithm 1), 20 minutes.* `imports` says for every file which others it imports; all of them are keys, and no file imports itself. Return the list of all files in this order: each time, count for every file that is left how many of its imports are not in the list yet, and append the file with the smallest count. Of equal counts the first by name. `imports` itself stays as it was.
#
# By hand: a imports b, b imports c, c imports a, and d imports a. At first each counts one, so a is first, by name. Now c and d count none: c. Then b and d count none: b, then d.

# %%
def order_files(imports: dict[str, list[str]]) -> list[str]:
    """Every file once, the fewest missing imports first."""
    ### BEGIN SOLUTION
    ordered = []
    while len(ordered) < len(imports):
        left = sorted(file for file in imports if file not in ordered)
        missing = {file: len(set(imports[file]) - {*ordered}) for file in left}
        ordered.append(min(left, key=missing.get))
    return ordered
    ### END SOLUTION

# %%
# To try it, take away the # of the next line. It should print ['a', 'c', 'b', 'd'].
# print(order_files({"d": ["a"], "c": ["a"], "b": ["c"], "a": ["b"]}))
check("07.3", order_files)

# %% [markdown]
# ## 07.4 Near duplicates
#
# *A few lines, 12 minutes.* `a` and `b` are the hashes of the shingles of two texts: NumPy arrays of int64, no number twice in one array, in any order, one array perhaps longer than the other. Hash function $k$ gives the hash $x$ the value $(f_k x + t_k) \bmod p$ with $p = 2^{31} - 1$, where $f_k$ = `factors[k]` and $t_k$ = `terms[k]`. A text's signature holds, for every $k$, the smallest value that function $k$ gives to any of its hashes. Return the share of the functions for which the two signatures are equal, a number from 0 to 1. (All products fit into 64 bits.)
#
# By hand, with $a = \{3, 5, 2\}$, $b = \{4, 3\}$, factors 1, 1, 2, 2 and terms 0, $p - 3$, $p - 5$, $p - 7$. Function 0 gives $a$ the values 3, 5, 2 and $b$ 4, 3; the smallest are 2 and 3. Function 1 is $x - 3$, but $-1$ becomes $p - 1$: 0, 2, $p - 1$ and 1, 0; the smallest are 0 and 0. Function 2: 1, 5, $p - 1$ and 3, 1, the smallest 1 and 1. Function 3: $p - 1$, 3, $p - 3$ and 1, $p - 1$, the smallest 3 and 1. Two of four are equal: 0.5.

# %%
def similarity(
    a: np.ndarray, b: np.ndarray, factors: np.ndarray, terms: np.ndarray
) -> float:
    """The MinHash estimate of two sets' similarity; factors and terms [K]."""
    ### BEGIN SOLUTION
    def signature(hashes):
        values = (factors[:, None] * hashes + terms[:, None]) % (2**31 - 1)  # [K, n]
        return values.min(axis=1)  # [K]

    return float((signature(a) == signature(b)).mean())
    ### END SOLUTION

# %%
# To try it, take away the # of the last line. It should print 0.5.
p = 2**31 - 1
f, t = np.array([1, 1, 2, 2]), np.array([0, p - 3, p - 5, p - 7])  # [K] each
# print(similarity(np.array([3, 5, 2]), np.array([4, 3]), f, t))
check("07.4", similarity)

# %% [markdown]
# ## 07.5 Cut, then pack
#
# *A few lines, 12 minutes.* `documents` are lists of token ids, and `cuts` says for each where it is to be cut: a pair `(first, second)` of places between tokens, or `None` for a document that stays as it is. (Places between tokens keep the example small; DeepSeek cuts characters.) Return one list: BOS, document, EOS, BOS, document, EOS and so on, where a document that is cut stands in the order PSM, with its marks. EOS ends every document, so after a cut one's middle. Each of the three pieces may be empty; the marks stay. The ids are those of our small tokenizer: BOS 0, EOS 1, hole 3, begin 4, end 5.
#
# By hand: the documents 11 12 13 14, then 21 22 and 31 32, the first cut at 1 and 3, the last at 0 and 0, give 0, 4 11, 3 14, 5 12 13, 1, then 0, 21 22, 1, and 0, 4, 3 31 32, 5, 1.

# %%
def pack_documents(
    documents: list[list[int]], cuts: list[tuple[int, int] | None]
) -> list[int]:
    """All documents in one row, some of them as prefix, suffix, middle."""
    ### BEGIN SOLUTION
    row = []
    for ids, cut in zip(documents, cuts):
        if cut is not None:
            first, second = cut
            ids = [4, *ids[:first], 3, *ids[second:], 5, *ids[first:second]]
        row += [0, *ids, 1]
    return row
    ### END SOLUTION

# %%
# To try it, take away the # of the last line. It should print
# [0, 4, 11, 3, 14, 5, 12, 13, 1, 0, 21, 22, 1, 0, 4, 3, 31, 32, 5, 1]
documents, cuts = [[11, 12, 13, 14], [21, 22], [31, 32]], [(1, 3), None, (0, 0)]
# print(pack_documents(documents, cuts))
check("07.5", pack_documents)

# %% [markdown]
# Next: lesson 08, models with many experts.
