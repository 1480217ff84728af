# %% [markdown]
# # 12 · Multi-token prediction: guess ahead, and never be wrong
#
# A language model writes one token for each pass through all of its layers. DeepSeek-V3
# has 61 layers, and a 62nd that guesses the token after the next one. The paper reports
# that 85 to 90% of its guesses are accepted, and 1.8 times as many tokens a second. Two
# questions: does a model that also guesses ahead learn more? And can the guess be used
# without changing one word of the output?
#
# - **You will build** the rule that makes a guess safe, by hand and in NumPy; the MTP
#   module from the paper's equations, equal to `transformers`' own; a small model with a
#   trained module; and decoding that is faster in passes and identical in tokens.
# - **You need** lesson 05 (a whole model), lesson 06 (the training loop) and, for the
#   words "probability" and "sampling", nothing more than this page.
# - **Time**: about 45 minutes, and an hour for the exercises.
# - **Papers**: DeepSeek-V3 §2.2 and §5.4.3; the rule: Leviathan and others, §2.3.

# %%
from dataclasses import replace

import numpy as np
import torch

import deepseek_mini as dm
from deepseek_mini.config import MTP
from deepseek_mini.lesson import PALETTE, error, figure, ladder, setup, show

setup(seed=0)

# %% [markdown]
# ## By hand: a rule that makes a guess safe
#
# A cheap model, the **draft**, says that the next token is a or b with probabilities
# $q = (0.5, 0.5)$. The model itself, the **target**, says $p = (0.8, 0.2)$. We draw a
# token from the draft, and want to keep it as often as possible. Yet the token that
# comes out must be distributed as $p$. The rule:
#
# 1. Accept the drafted token $x$ with probability $\min(1, p(x) / q(x))$.
# 2. If it is rejected, draw a token from the **residual**: $\max(0, p - q)$, divided by
#    its sum.
#
# Cell by cell. The draft says a in 0.5 of all cases, and $0.8 / 0.5 > 1$: always
# accepted. It says b in 0.5 of them, and $0.2 / 0.5 = 0.4$: accepted in 0.2 of all
# cases, rejected in 0.3. Accepted together: 0.7. The residual is $(0.3, 0)$, divided by
# its sum $(1, 0)$: the 0.3 rejected cases all become a. So a comes out in
# $0.5 + 0.3 = 0.8$ of all cases and b in 0.2. That is $p$.

# %%
q, p = np.array([0.5, 0.5]), np.array([0.8, 0.2])  # [V] each: draft and target
accepted = q * np.minimum(1, p / q)  # [V]: drafted and accepted
residual = np.maximum(0, p - q)  # [V]
residual = residual / residual.sum()  # [V]
out = accepted + (1 - accepted.sum()) * residual  # [V]
print("drafted and accepted:", accepted, "  in all:", accepted.sum().round(9))
print("residual:", residual, "  comes out:", out.round(9))
assert np.allclose(accepted, [0.5, 0.2]) and np.allclose(out, p)

# %% [markdown]
# It is no accident of these numbers. $q \cdot \min(1, p/q) = \min(p, q)$, and what $p$
# has above the common part, $\max(0, p - q)$, adds up to exactly what the common part
# lacks to 1. So the rejected cases, spread over the residual, give back
# $\max(0, p - q)$, and $\min(p, q) + \max(0, p - q) = p$, whatever $q$ is. A bad draft
# costs time and nothing else. The share of accepted drafts is
#
# $$\sum_x \min\bigl(p(x), q(x)\bigr).$$

# %%
rng = np.random.default_rng(0)
worst = 0.0
for _ in range(1000):
    p_any, q_any = rng.dirichlet(np.full(7, 0.3), size=2)  # [V] each
    kept = np.minimum(p_any, q_any)  # [V]
    rest = np.maximum(0, p_any - q_any)  # [V]
    came_out = kept + (1 - kept.sum()) * rest / rest.sum()  # [V]
    worst = max(worst, np.abs(came_out - p_any).max())
print("1,000 random pairs: what comes out is p, within 1e-12:", worst < 1e-12)

# %% [markdown]
# A third way: by counting. `step` is the rule as it would run. Beside it are two wrong
# rules that people write: one that **accepts whatever the draft says**, and one that
# draws from $p$ itself, not from the residual, after a rejection.
#
# **Predict**: how often does a come out under each wrong rule?

# %%
def step(rng, p, q, rule="right"):
    x = rng.choice(len(q), p=q)
    if rule == "never rejects" or rng.random() < p[x] / q[x]:
        return x
    rest = p if rule == "draws from p" else np.maximum(0, p - q)  # [V]
    return rng.choice(len(p), p=rest / rest.sum())


n = 20_000
for rule, expected in (("right", 0.8), ("never rejects", 0.5), ("draws from p", 0.74)):
    counts = np.bincount([step(rng, p, q, rule) for _ in range(n)], minlength=2)  # [V]
    share = counts[0] / n
    near = abs(share - expected) < 0.015  # over four standard deviations
    print(f"{rule:14} a comes out in {expected} of {n:,} draws, within 0.015: {near}")
    assert near

# %% [markdown]
# The first wrong rule gives the draft's distribution. The second gives
# $0.5 + 0.3 \cdot 0.8 = 0.74$: it hands back to b what b has already had. Nothing in the
# text that they write would show it.

# %%
alt = """Bars for the tokens a and b. Left: draft 0.5 and 0.5, target 0.8 and 0.2; the
common part is 0.5 and 0.2. Right: the output, 0.8 and 0.2, made of the common part and,
on top of a, the residual 0.3."""
with figure(alt, size=(7.5, 3)) as fig:
    left, right = fig.subplots(1, 2, sharey=True)
    place = np.arange(2)  # [V]
    left.bar(place - 0.2, q, 0.38, color=PALETTE[1], label="draft q")
    left.bar(place + 0.2, p, 0.38, color=PALETTE[0], label="target p")
    right.bar(place, accepted, 0.5, color="#999999", label="accepted: min(p, q)")
    right.bar(place, p - accepted, 0.5, bottom=accepted, color=PALETTE[0],
              label="after a rejection: max(0, p - q)")  # fmt: skip
    for ax, title in ((left, "two opinions"), (right, "what comes out")):
        ax.set_xticks(place, ["a", "b"])
        ax.set(title=title, ylim=(0, 1.25))
        ax.legend(loc="upper center", fontsize=9)
    left.set_ylabel("probability")

# %% [markdown]
# **Greedy decoding** is the special case in which $p$ is 1 for the likeliest token: a
# draft is accepted if it *is* that token, and after a rejection the residual leaves only
# that token. So greedily, the text is the same token for token.
#
# ## What it is worth
#
# The draft is checked by the next pass, which then has two rows: after the last sure
# token, and after the draft. If the draft is accepted, the second row gives a further
# token, so a pass writes two; otherwise one. If the share $p$ of drafts is accepted (one
# number now, the acceptance), that is $1 + p$ tokens a pass. Nothing is free: let
# drafting, and the second row, make a pass longer by the share $c$. What is left is the
# speed
#
# $$\frac{1 + p}{1 + c}.$$
#
# With a chain of $D$ drafts, each needed by the next, it would be
# $1 + p + p^2 + \dots + p^D$ tokens a pass. Move both sliders; a live one needs a running
# notebook.

# %%
from deepseek_mini.lesson import Slider, settings_figure, slider_figure


def draw_speed(fig, acceptance, cost):
    p, c = acceptance / 100, cost / 100
    ax = fig.subplots()
    x = np.linspace(0, 1, 50)  # [50]: acceptance
    ax.plot(x, 1 + x, label="tokens per pass")
    ax.plot(x, (1 + x) / (1 + c), label=f"speed, if c = {cost}%")
    ax.axhline(1, color="black", lw=1, ls="-")
    ax.plot([p], [(1 + p) / (1 + c)], "o", color=PALETTE[1])
    ax.set(xlim=(0, 1), ylim=(0.4, 2.1), xlabel="acceptance p")
    ax.set_title(f"{1 + p:.2f} tokens a pass, {(1 + p) / (1 + c):.2f} times the speed")
    ax.legend(loc="upper left", fontsize=9)


widget = slider_figure(
    draw_speed,
    alt="Tokens per pass and speed against acceptance: {acceptance}% at cost {cost}%.",
    size=(5, 3.4),
    acceptance=Slider(0, 100, start=70, label="acceptance, %"),
    cost=Slider(0, 150, start=10, label="cost of a draft, %"),
)

# %%
settings_figure(
    draw_speed,
    {
        "a good, cheap draft": {"acceptance": 85, "cost": 5},
        "as good, not cheap": {"acceptance": 85, "cost": 100},
        "bad and cheap": {"acceptance": 10, "cost": 5},
    },
    alt="""Three settings. 85% at cost 5%: 1.76 times the speed. 85% at cost 100%: 0.93,
    slower than without. 10% at cost 5%: 1.05, hardly faster.""",
    size=(12, 3.4),
)

# %% [markdown]
# A draft pays as soon as $p > c$. So it should be much cheaper than the model, and agree
# with it as often as possible. V3's answer: let the model itself learn to look ahead.
#
# ## The module, in NumPy
#
# The model has read tokens $t_0, \dots, t_i$, and its last state $h_i$ predicts
# $t_{i+1}$. An **MTP module** (multi-token prediction) of depth 1 takes that state and
# the *embedding of the next token*, and predicts the one after it, $t_{i+2}$. In general
# depth $k$ takes the state of depth $k - 1$, with $h^0 = h$ (§2.2, but for the last norm):
#
# $$h'^k_i = M_k\,[\mathrm{RMSNorm}(h^{k-1}_i);\ \mathrm{RMSNorm}(\mathrm{Emb}(t_{i+k}))],
# \qquad h^k = \mathrm{RMSNorm}(\mathrm{Block}_k(h'^k)).$$
#
# $[a; b]$ joins two vectors to one of twice the width, and the matrix $M_k$ brings it back
# to one. The head reads $h^k_i$ and predicts $t_{i+k+1}$. Embedding and head are the
# model's own; $M_k$, three norms and one transformer block are new. Here is which token
# each row reads and predicts:

# %%
words = ["The", "cat", "sat", "on", "the", "mat"]  # t_0 ... t_5
for k in (1, 2):
    for i in range(len(words) - k - 1):
        print(f"depth {k}, row {i}: has read up to {words[i]!r}, is told", end=" ")
        print(f"{words[i + k]!r}, predicts {words[i + k + 1]!r}")

# %% [markdown]
# In decoding $t_{i+1}$ is the token just written, so the module is *told* it and only
# guesses one further. That is why the guess is good, and the embedding is not optional.
# And the chain is causal: depth 2 gets the state of depth 1, which was told
# $t_{i+1}$, so no information is skipped.
#
# In NumPy. The block is the one of lesson 05 and is used as it is; everything around it
# is new.

# %%
def rms_norm(x, weight, eps=1e-6):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight  # like x


def mtp_numpy(h, embedded, w, block, k):
    """h [T - k + 1, D]: states of depth k - 1; embedded [T, D] -> [T - k, D]."""
    rows = len(embedded) - k
    e = rms_norm(embedded[k:], w["enorm"])  # [T - k, D]: token i + k
    h = rms_norm(h[:rows], w["hnorm"])  # [T - k, D]: state i
    both = np.concatenate([e, h], axis=-1)  # [T - k, 2 D]
    return rms_norm(block(both @ w["eh_proj"].T), w["norm"])  # [T - k, D]

# %% [markdown]
# Two things are as in the released weights. `both` is [embedding, state]: the paper
# writes $[h; \mathrm{Emb}]$, and the columns of the released matrix stand the other way
# round. That is a convention: moving the halves of $M_k$ along gives the same product. It
# must only be the right one for the weights at hand. And the last norm, which the paper
# does not write, is there.
#
# ## In PyTorch
#
# The package's own source. `mtp_hidden` forms the chain.

# %%
from deepseek_mini.model.mtp import MTPModule

show(MTPModule, dm.Transformer.mtp_hidden, docstrings=False)

# %%
mini = dm.Config.preset("deepseek-v3-mini")  # MLA, experts, and one MTP module
config = replace(mini, vocab_size=61, n_layers=2, n_dense_layers=0, mtp=MTP(depth=2))


def randomise(model, seed=1):
    torch.manual_seed(seed)
    for name, p in model.named_parameters():
        if p.ndim >= 2:
            torch.nn.init.normal_(p, 0, 0.6 / p.shape[-1] ** 0.5)
        else:
            torch.nn.init.normal_(p, 0 if name.endswith("bias") else 1, 0.3)
    return model.eval()


model = randomise(dm.Transformer(config))
tokens = torch.randint(61, (1, 20))  # [B, T]


def chain_in_numpy(model, tokens):
    """The states of every depth, by `mtp_numpy`."""
    h = model.hidden(tokens)[0].numpy()  # [T, D]
    embedded, states = model.embed(tokens)[0].numpy(), []  # [T, D]
    for k, module in enumerate(model.mtp, start=1):
        w = {n: getattr(module, n).weight.numpy() for n in
             ("enorm", "hnorm", "eh_proj", "norm")}  # fmt: skip

        def block(x, module=module):
            table = model._rope(len(x))
            x = torch.from_numpy(x).float()[None]  # [1, T - k, D]
            return module.block(x, *table)[0].numpy()  # [T - k, D]

        h = mtp_numpy(h, embedded, w, block, k)  # [T - k, D]
        states.append(h)
    return states

# %% [markdown]
# The ladder: NumPy = package; the paper's order of the halves, with the columns of the
# matrix moved along, = the released order; package = `transformers`' own `MtpModel`, on
# weights that went through a saved folder. At both depths. (Both layers of this model are
# sparse, because `transformers` 5.15 makes its modules like the *first* layer; V3's first
# is dense and its module sparse, which 5.23 has right.)

# %%
import tempfile

from transformers import AutoModelForCausalLM
from transformers.modeling_layers import MtpModel
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

disable_progress_bar()
set_verbosity_error()


def their_logits(model, tokens):
    """transformers' model and MTP layers, from the folder that ours is saved in."""
    n_layers, depth, T = model.config.n_layers, len(model.mtp), tokens.shape[1]
    with tempfile.TemporaryDirectory() as folder:
        dm.save(model, folder)
        theirs = AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation="eager", experts_implementation="eager"
        ).eval()
        # It knows the modules of the released V3 alone, by their number, 61.
        theirs._keys_to_ignore_on_load_unexpected = [
            rf"model\.layers\.{n_layers + k}\." for k in range(depth)
        ]
        modules = MtpModel.from_pretrained(theirs).eval()
    h, logits = theirs.model(tokens).last_hidden_state, []  # [B, T, D]
    for k in range(1, depth + 1):
        embedded = modules.embed_tokens(tokens[:, k:])  # [B, T - k, D]
        places = torch.arange(T - k)[None]  # [1, T - k]
        mask = torch.full((1, 1, T - k, T - k), -torch.inf).triu(1)
        table = modules.rotary_emb(h, places)
        layer = modules.layers[k - 1]
        h = layer(embedded, h[:, : T - k], table, mask, places, None)  # [B, T - k, D]
        logits.append(modules.shared_head(h))  # [B, T - k, V]
    return logits

# %%
class PaperOrder(MTPModule):
    """[state, embedding], as the paper writes it."""

    def forward(self, hidden, embedded, cos, sin, mask=None, cache=None):
        both = torch.cat((self.hnorm(hidden), self.enorm(embedded)), dim=-1)
        return self.norm(self.block(self.eh_proj(both), cos, sin, mask, cache))


def in_paper_order(model, move_columns):
    other = randomise(dm.Transformer(model.config))
    for module in other.mtp:
        module.__class__ = PaperOrder
        if move_columns:
            halves = module.eh_proj.weight.chunk(2, dim=1)  # [D, D] each
            module.eh_proj.weight.data = torch.cat(halves[::-1], dim=1)  # [D, 2 D]
    return other


with torch.no_grad():
    states = model.mtp_hidden(model.hidden(tokens), tokens)  # [B, T - k, D] each
    ours = [model.head(x) for x in states]  # [B, T - k, V] each
    numpy = chain_in_numpy(model, tokens)  # [T - k, D] each
    want = their_logits(model, tokens)  # [B, T - k, V] each
    paper = in_paper_order(model, True).mtp_logits(tokens)  # [B, T, V] each
    rungs = []
    for k in (1, 2):
        a = ours[k - 1]
        rungs += [
            (f"depth {k}: module = NumPy", states[k - 1][0], numpy[k - 1], 1e-5),
            (f"depth {k}: paper's order = released", paper[k - 1][:, :-k], a, 1e-5),
            (f"depth {k}: logits = transformers", a, want[k - 1], 1e-4),
        ]
ladder("Multi-token prediction", rungs)

# %% [markdown]
# ## How people get it wrong: the module
#
# Two bugs that keep every shape. **The order**: the halves exchanged, and the matrix as
# it was. **Blind**: no embedding of the next token goes in; people read
# "multi-token prediction" as a second head on the same state.

# %%
class Blind(torch.nn.Module):
    """In place of `enorm`: the module is not told the next token."""

    def forward(self, embedded):
        return torch.zeros_like(embedded)


with torch.no_grad():
    blind = randomise(dm.Transformer(config))
    for module in blind.mtp:
        module.enorm = Blind()
    for name, wrong in (
        ("wrong order", in_paper_order(model, False)),
        ("blind", blind),
    ):
        logits = wrong.mtp_logits(tokens)[0][:, :-1]  # [B, T - 1, V]
        print(f"{name}: right shape: {logits.shape == want[0].shape};", end=" ")
        print("equal to transformers:", error(logits, want[0]) < 1e-4)
        assert error(logits, want[0]) > 0.1

# %% [markdown]
# Trained from the start, a model with the wrong order simply learns its matrix the other
# way round: only released weights show the bug. The blind one learns too, as we shall see
# below, but less.
#
# ## Training it
#
# The loss is the usual one plus the mean over depths of the modules' cross-entropies,
# times a weight $\lambda$. V3 had $\lambda = 0.3$ for the first 10 of 14.8 trillion
# tokens and 0.1 for the rest; the training loop of this course does the same by shares.

# %%
from deepseek_mini.training import TrainConfig, losses, train

show(losses.mtp_loss, docstrings=False)
recipe = TrainConfig(steps=300, batch_size=4)
early, late = recipe.mtp_weight_at(0), recipe.mtp_weight_at(299)
print(f"lambda: {early:.1f} at first, {late:.1f} at the end")

# %% [markdown]
# A small model, live: two dense layers and an MTP module, 300 steps of 256 tokens of
# Python code.

# %%
from deepseek_mini.data import pack, python_code

tok = dm.Tokenizer.small()
code = pack(python_code(), tok, seq_len=64)
llm = dm.Config.preset("deepseek-llm-mini")
torch.manual_seed(0)
trained = dm.Transformer(replace(llm, n_layers=2, mtp=MTP(depth=1)))
result = train(trained, code, recipe, progress=False)


@torch.no_grad()
def on_text(model, data):
    """Draft against model on validation text; both have read up to token i + 1."""
    tokens = torch.cat(list(data.validation_batches(32, 64)))  # [B, T]
    p = model(tokens)[:, 1:-1]  # [B, T - 2, V]
    q = model.mtp_logits(tokens)[0][:, :-2]  # [B, T - 2, V]: no NaN left
    agree = (p.argmax(-1) == q.argmax(-1)).double().mean()
    overlap = torch.minimum(p.softmax(-1), q.softmax(-1)).sum(-1).mean()
    return agree.item(), overlap.item()


agree, overlap = on_text(trained, code)
first, last = result.history[0]["mtp_loss"], result.history[-1]["mtp_loss"]
print(f"MTP loss fell by more than 2 nats: {first - last > 2}")
print(f"the draft's likeliest token is the model's, over a third: {agree > 1 / 3}")
print(f"sampled drafts accepted, over 60%: {overlap > 0.6}")
assert first - last > 2 and agree > 1 / 3 and overlap > 0.6

# %% [markdown]
# The second share is $\sum \min(p, q)$ from above, at temperature 1, on text that the
# model has not seen.
#
# ## Decoding with drafts
#
# `speculate` is the loop. A pass reads the last sure token and the draft; `verify` is
# the rule; the caches forget what was refused (`truncate`); the module drafts again from
# the states that the pass has left behind.

# %%
from deepseek_mini import speculative

show(speculative.verify, docstrings=False)

# %% [markdown]
# The rule, run: we look over `verify`'s shoulder while the model continues a piece of
# validation code.

# %%
seen = []


def watched(drafts, draft_probs, probs, generator=None):
    n, token = rule(drafts, draft_probs, probs, generator)
    seen.append((drafts.tolist(), n, token))
    return n, token


prompt = next(code.validation_batches(8, 8))[3:4, :40]  # [1, 40]
rule, speculative.verify = speculative.verify, watched
out = speculative.speculate(trained, prompt, max_new_tokens=48)
speculative.verify = rule
same = torch.equal(out.tokens, dm.generate(trained, prompt, max_new_tokens=48))
print("token for token what generate writes:", same)
print("passes + accepted drafts = tokens:", out.passes + out.accepted == 48)
print("fewer passes than tokens:", out.passes < 48)
assert same and out.passes + out.accepted == 48 and out.passes < 48

# %%
def shown(token):
    text = tok.decode([token]).replace("\n", "\\n").replace(" ", "·")
    return text if len(text) < 7 else text[:5] + "…"


alt = """A timeline of the first 18 passes. Each pass shows its draft, orange in the
lowest row if it was rejected, blue in the middle row if accepted, and on top the token
that the model itself wrote. Passes with an accepted draft wrote two tokens."""
with figure(alt, size=(11, 3)) as fig:
    ax = fig.subplots()
    for x, (drafts, n, token) in enumerate(seen[:18]):
        boxes = [(2, token, "#CCCCCC")]
        if drafts:
            boxes.append((n, drafts[0], PALETTE[0] if n else PALETTE[1]))
        for y, written, color in boxes:
            ax.bar(x, 0.8, 0.92, bottom=y - 0.4, color=color, alpha=0.5)
            ax.text(x, y, shown(written), ha="center", va="center", fontsize=9)
    ax.set(xlim=(-0.6, 17.6), ylim=(-0.6, 2.6), xlabel="pass", xticks=range(18))
    ax.set_yticks(range(3), ["draft, rejected", "draft, accepted", "model's token"])
    ax.grid(False)

# %% [markdown]
# Read a column from below: the draft that the pass has checked, then the token that the
# pass itself gives (a dot is a space). Pass 0 reads the prompt and has no draft. After a
# rejection the model's token stands in the draft's place.
#
# ## How people get it wrong: the rule
#
# Accept whatever the draft says: more tokens per pass, a perfect acceptance rate, and
# another text. It must be compared with `generate` to be noticed.

# %%
def never_rejects(drafts, draft_probs, probs, generator=None):
    return len(drafts), int(probs[-1].argmax())


speculative.verify = never_rejects
wrong = speculative.speculate(trained, prompt, max_new_tokens=48)
speculative.verify = rule
print("accepted of the drafts:", f"{wrong.acceptance:.0%}")
print("the same text:", torch.equal(wrong.tokens, out.tokens))
assert wrong.acceptance == 1 and not torch.equal(wrong.tokens, out.tokens)

# %% [markdown]
# For sampling, no single text can show the mistake; only counts can. The tests of the
# package draw 600 texts of three tokens with drafts and compare them with the model's
# exact probabilities.
#
# ## Does it matter?
#
# Two questions, three seeds. Models of two dense layers learned code and English, half
# and half; in a seed all had the same first weights and the same text in the same order.
# *Plain* has no module, *MTP* has one, *blind* has one that is not told the next token.
# The script is `experiments/12_multi_token_prediction.py`.
#
# **Predict**: does MTP make the main model better at this size? And where are drafts
# accepted more often: in code or in English?

# %%
import json
from importlib.resources import files

log = files("deepseek_mini") / "assets/logs/12_multi_token_prediction.jsonl"
head, *records = [json.loads(line) for line in log.read_text().splitlines()]
SOURCES = ("code", "english")


def each(kind, *path):
    """One number of every seed: [seeds]."""
    rows = sorted((r for r in records if r["kind"] == kind), key=lambda r: r["seed"])
    for key in path:
        rows = [row[key] for row in rows]
    return np.array(rows)


print(f"{head['hardware']}, torch {head['torch']}, {head['date']}")
seconds = sum(r["train_seconds"] for r in records)
print(f"{len(each('MTP', 'seed'))} seeds, {len(records)} models,", end=" ")
print(f"{seconds:.0f} seconds of processor time in training")
slower = each("MTP", "train_seconds").mean() / each("plain", "train_seconds").mean()
print(f"a step with the module takes {slower:.1f} times as long")
assert 1.3 < slower < 2
print("bits per byte of the main model on validation text, seed by seed")
gains = {}
for source in SOURCES:
    plain = each("plain", "bits_per_byte", source)  # [seeds]
    print(f"{source:8} {'plain':18}", *(f"{x:7.3f}" for x in plain))
    for kind in ("MTP", "blind"):
        gains[kind, source] = plain - each(kind, "bits_per_byte", source)  # [seeds]
        print(f"{'':8} better with {kind:6}", end=" ")
        print(*(f"{x:+7.3f}" for x in gains[kind, source]))
for source in SOURCES:
    assert (gains["MTP", source] > 0).all() and (gains["MTP", source] < 0.08).all()
    assert (gains["MTP", source] > gains["blind", source]).all()

# %%
alt = """Left: MTP loss over 600 steps, mean of the seeds: falling for both modules, the
blind one staying above. Right: agreement of draft and model on text for code and
English, one dot a seed, far higher for MTP than for the blind module."""
with figure(alt, size=(9, 3.4)) as fig:
    left, right = fig.subplots(1, 2)
    for kind, color in (("MTP", PALETTE[0]), ("blind", PALETTE[1])):
        curves = each(kind, "curves", "mtp_loss")  # [seeds, steps / 20]
        step_numbers = head["every"] * np.arange(1, curves.shape[1] + 1)
        left.plot(step_numbers, curves.mean(0), color=color, label=kind)
        for x, source in enumerate(SOURCES):
            dots = each(kind, "text", source, "agree")  # [seeds]
            right.plot([x] * len(dots), dots, "o", color=color, ms=6)
    left.set(xlabel="step", ylabel="MTP loss (nats per token)", title="training")
    left.legend()
    right.set(xlim=(-0.5, 1.5), ylim=(0, 0.8), title="draft = model's likeliest token")
    right.set_xticks([0, 1], SOURCES)

# %%
print("                    draft = model   sum min(p, q)   tokens per pass, greedy")
for kind in ("MTP", "blind"):
    for source in SOURCES:
        agree = each(kind, "text", source, "agree").mean()
        overlap = each(kind, "text", source, "overlap").mean()
        tokens_written = each(kind, "written", source, "tokens")
        per_pass = (tokens_written / each(kind, "written", source, "passes")).mean()
        print(f"{kind:6} {source:10} {agree:12.0%} {overlap:15.0%} {per_pass:16.2f}")
for kind in ("MTP", "blind"):
    for source in SOURCES:
        assert each(kind, "written", source, "identical").all()
print("every continuation, of every model, is generate's token for token: True")
agree = {
    (kind, source): each(kind, "text", source, "agree")  # [seeds]
    for kind in ("MTP", "blind")
    for source in SOURCES
}
assert abs(agree["MTP", "code"].mean() - agree["MTP", "english"].mean()) < 0.04
for source in SOURCES:
    assert (agree["MTP", source] > agree["blind", source] + 0.25).all()

# %% [markdown]
# **Does it learn more?** In each of the three seeds, and on both kinds of text, the main
# model is better with MTP than without, by 0.02 to 0.06 bits per byte: one or two
# percent. The paper's ablations at full size point the same way. But the lead is about as
# large as its own spread over three seeds, and it is a lead at equal *tokens*: in the time
# of those steps the plain model would have read half as much text again. One recipe and
# three seeds do not settle it.
#
# The blind module is a control: the same added loss, nearly the same cost, and no lead
# that could be told from noise.
#
# **Where are drafts accepted?** In code and in English nearly equally often; English is
# ahead by two points. Acceptance does not ask whether a guess is *right*. It asks whether
# draft and model agree, and our models know either kind of text equally little.
#
# Something else is odd. The draft is right about the real text *more* often than the
# model that checks it:

# %%
for source in SOURCES:
    model_right = each("MTP", "text", source, "model_right")  # [seeds]
    draft_right = each("MTP", "text", source, "draft_right")  # [seeds]
    print(f"{source:8} likeliest token right: model {model_right.mean():.1%},", end=" ")
    print(f"draft {draft_right.mean():.1%}, blind", end=" ")
    print(f"{each('blind', 'text', source, 'draft_right').mean():.1%}")
    assert (draft_right > model_right).all()

# %% [markdown]
# It has read the same tokens, and it stands on top of two layers: at this size the module
# is half a model more, and a rejected draft is often the better word. No matter: the rule
# keeps the model's word. On top of 61 layers one more is a small step.
#
# **Blind**: its loss falls, it drafts, its text is exact, and every test of shapes
# passes. It only guesses badly, and the price is time. This bug does not show in the
# output at all; comparing with an independent implementation shows it at once.
#
# ## At full size
#
# V3's module by our count, and what one draft costs there in parameters that a token
# uses: a 62nd layer, the matrix $M$, and the head once more.

# %%
v3 = dm.Config.preset("deepseek-v3")
counted = dm.count(v3)
deeper = dm.count(replace(v3, n_layers=v3.n_layers + 1))
one_layer = deeper.active_parameters - counted.active_parameters
draft = one_layer + 2 * v3.dim**2 + v3.vocab_size * v3.dim
c = draft / counted.active_parameters
print(f"the MTP module: {counted.mtp_parameters / 1e9:.2f} billion own parameters")
print(f"a draft uses {draft / 1e9:.2f} billion, a token of the model", end=" ")
print(f"{counted.active_parameters / 1e9:.1f} billion: c = {c:.1%} for drafting alone")
for p_v3 in (0.85, 0.90):
    print(f"acceptance {p_v3:.0%}: {1 + p_v3:.2f} tokens a pass,", end=" ")
    print(f"at most {(1 + p_v3) / (1 + c):.2f} times the speed")
assert round(counted.mtp_parameters / 1e9, 1) == 11.6 and c < 0.07

# %% [markdown]
# The 85 to 90% are the paper's (§5.4.3: the acceptance of the second token, over
# several kinds of text), and so are the 1.8 times as many tokens a second; we have not
# measured either. They fit together: about 1.8 is what the arithmetic leaves.
#
# Why is checking two rows nearly free? A pass for one token is bound by fetching weights,
# and the second row uses weights that are there already. That holds for a few texts at a
# time, and not entirely: the second token chooses experts of its own. In a large batch
# arithmetic is the limit, and every row costs its full share.
#
# At our size a draft is not cheap: one block next to two, and the head again. By
# parameters and by the clock:

# %%
small = dm.count(trained.config)
one_head = llm.vocab_size * llm.dim
c_small = (small.mtp_parameters + one_head) / (small.parameters - one_head)
print(f"by parameters: c = {c_small:.0%}")  # without the embedding, a mere look-up
for source in SOURCES:
    slow = each("MTP", "written", source, "seconds", "speculate")
    fast = each("MTP", "written", source, "seconds", "generate")
    print(f"{source}: processor time of speculate / generate:", end=" ")
    print(f"{(slow / fast).mean():.1f}")
    assert (slow > fast).all()

# %% [markdown]
# So here the guess saves passes and costs time. The clock is harsher than the parameters,
# because it also counts the Python around them.
#
# ## What this proves, and what it does not
#
# - Proved: the rule gives exactly the target's distribution, by algebra, in NumPy, by
#   counting; and greedy text is the same token for token, in every run.
# - Proved: our module at depths 1 and 2 equals the equations and `transformers`, on
#   random weights; the two orders of concatenation are one function.
# - Measured: acceptance and bits per byte of small models, three seeds, on two kinds of
#   text.
# - Not shown: that MTP improves a large model. The paper's ablations (§4.5.1) say that it
#   does; ours are too small to tell.
# - Not shown: a speed-up. Ours is counted in passes; the time saved at full size is the
#   paper's claim.
#
# ## Exercises
#
# The [exercises](../exercises/12_multi_token_prediction.ipynb) take about an hour: tokens
# per pass, the rule and its residual, the loss of every depth, and the module from the
# equations. (After `make lab`, take your own copy in `work/`.)
#
# ## References
#
# - *DeepSeek-V3*, arXiv 2412.19437, §2.2 (the module and its loss), §4.2 (the weight),
#   §4.5.1 (ablations), §5.4.3 (acceptance and speed).
# - Y. Leviathan and others, *Fast Inference from Transformers via Speculative Decoding*,
#   arXiv 2211.17192, §2.3 and appendix A.1 (the rule and its proof).
# - F. Gloeckle and others, *Better & Faster Large Language Models via Multi-token
#   Prediction*, arXiv 2404.19737: several heads on one state, without the chain.
# - The released weights: layer 61 of DeepSeek-V3's folder (`enorm`, `hnorm`, `eh_proj`,
#   `shared_head`).

# ===== exercises =====
# %% [markdown]
# # 12 · Multi-token prediction: exercises
#
# Four exercises on lesson 12, about an hour in all. Write your answer where a cell raises
# `NotImplementedError`, run that cell and the one after it; `check` prints one line, and
# a hint when something is not right yet. What your function prints appears below the
# hint, for the inputs that failed. Every exercise has the formulas it needs and none
# needs another one: leave out what you like. In the exercises in PyTorch all inputs are
# float32, and so is what you make of them.

# %%
import numpy as np
import torch
from torch.nn import functional as F

from deepseek_mini.lesson import check, setup

setup(seed=0)

# %% [markdown]
# ## 12.1 What a chain of drafts is worth
#
# *A few lines, 8 minutes.* Before each pass of the model $D$ tokens are drafted, one
# after the other. Each is accepted with probability $p$ if all before it were, and never
# if one before it was rejected. After the last accepted one the pass gives one token of
# its own. Making one draft makes a pass longer by the share $c$.
#
# Return two numbers: the expected tokens of a pass, and the speed, which is tokens per
# unit of time when a pass without drafts takes 1. $p$ may be 0 or 1, and $D$ may be 0.
#
# By hand, with $p = 0.5$, $D = 2$, $c = 0.1$: one token for certain, a second with
# probability 0.5, a third with 0.25, so 1.75 tokens; the pass takes 1.2, so the speed is
# 1.4583.

# %%
def worth(p: float, D: int, c: float) -> tuple[float, float]:
    """Expected tokens of a pass, and the speed relative to no drafts."""
    ### BEGIN SOLUTION
    tokens = sum(p**k for k in range(D + 1))
    return tokens, tokens / (1 + D * c)
    ### END SOLUTION

# %%
# To try it, take away the # of the next line. It should print 1.7500 1.4583.
# print(*(f"{x:.4f}" for x in worth(0.5, 2, 0.1)))
check("12.1", worth)

# %% [markdown]
# ## 12.2 The rule
#
# *Some thought, 12 minutes.* In NumPy, float64: `p` and `q` [V] are the probabilities
# that model and draft give the next token. Return two arrays [V]:
#
# - for every token $x$ the probability with which it is accepted *when it was drafted*:
#   $\min(1, p(x) / q(x))$; where $q(x) = 0$ (it is never drafted) say 1;
# - the probabilities from which a token is drawn after a rejection: $\max(0, p - q)$
#   divided by its sum. If $p = q$ nothing is ever rejected: return `p` then.
#
# By hand, with $p = (0.6, 0.3, 0.1, 0, 0)$ and $q = (0.2, 0.4, 0, 0.4, 0)$: accepted
# with $(1, 0.75, 1, 0, 1)$. Above the draft are $(0.4, 0, 0.1, 0, 0)$, so the residual is
# $(0.8, 0, 0.2, 0, 0)$.

# %%
def rule(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Acceptance of every token [V], and the residual [V]."""
    ### BEGIN SOLUTION
    accept = np.ones_like(p)  # [V]
    drafted = q > 0  # [V]
    accept[drafted] = np.minimum(1, p[drafted] / q[drafted])
    rest = np.maximum(0, p - q)  # [V]
    total = rest.sum()
    return accept, (rest / total if total > 0 else p)
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines. It should print
# [1.   0.75 1.   0.   1.  ] [0.8 0.  0.2 0.  0. ], then p again: [0.6 0.3 0.1 0.  0. ],
# and what there is if both are p: [1. 1. 1. 1. 1.] [0.6 0.3 0.1 0.  0. ].
# p, q = np.array([0.6, 0.3, 0.1, 0, 0]), np.array([0.2, 0.4, 0, 0.4, 0])  # [V]
# accept, rest = rule(p, q)  # [V] each
# print(accept, rest.round(9))
# print((q * accept + (1 - (q * accept).sum()) * rest).round(9))
# print(*rule(p, p))
check("12.2", rule)

# %% [markdown]
# ## 12.3 The loss
#
# *Some thought, 15 minutes.* `tokens` is [B, T], and `logits` is a list with one tensor
# [B, T - k, V] for each depth $k = 1, \dots, D$. Row $i$ of depth $k$ predicts token
# $i + k + 1$ of the same text. It was told token $i + k$, which is why depth $k$ has $k$
# rows fewer than the text has tokens. The last row of each depth predicts a token that is
# not there, and does not count.
#
# Return the mean over depths of each depth's mean cross-entropy (in nats, over all rows
# of the batch that have a target), a tensor with no axes:
#
# $$L = \frac{1}{D} \sum_k \mathrm{CE}_k.$$
#
# (The paper divides each depth's sum by all positions of the text; here, as in the
# package, it is a mean over the rows that count.)
#
# By hand: with $T = 5$ depth 2 has three rows; row 0 predicts token 3, row 1 predicts
# token 4, and row 2 does not count. Let there be two texts and two depths. If every row
# that counts is sure of its token, the loss is 0. If those of depth 2 are sure of a wrong
# token in one of the texts, with a score 20 above all others, they lose 20 nats each:
# $\mathrm{CE}_1 = 0$, $\mathrm{CE}_2 = 10$ and $L = 5$.

# %%
def mtp_loss(logits: list[torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    """Mean over depths of the mean cross-entropy of logits [B, T - k, V]: no axes."""
    ### BEGIN SOLUTION
    losses = []
    for k, at_k in enumerate(logits, start=1):
        predicted = at_k[:, :-1]  # [B, T - k - 1, V]
        targets = tokens[:, k + 1 :]  # [B, T - k - 1]
        losses.append(F.cross_entropy(predicted.flatten(0, 1), targets.flatten()))
    return torch.stack(losses).mean()
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines. It should print 0.0000 5.0000
# tokens = torch.tensor([[0, 1, 2, 3, 4], [4, 2, 1, 0, 3]])  # [B, T]
# first = torch.tensor([[2, 3, 4, 1], [1, 0, 3, 1]])  # [B, T - 1]: what is predicted
# for wrong in ([0, 3, 1], [2, 2, 1]):
#     second = torch.tensor([[3, 4, 1], wrong])  # [B, T - 2]
#     sure = [20 * F.one_hot(said, 5).float() for said in (first, second)]
#     print(f"{mtp_loss(sure, tokens).item():.4f}", end=" ")
check("12.3", mtp_loss)

# %% [markdown]
# ## 12.4 The module
#
# *From the paper (arXiv 2412.19437, §2.2), 20 minutes.* Depth $k$ of the chain.
# `hidden` [B, T - k + 1, D] holds the states $h^{k-1}_i$ of the depth before,
# `embedded` [B, T, D] the embeddings of the text's tokens $t_0, \dots, t_{T-1}$. For all
# $i = 0, \dots, T - k - 1$:
#
# $$h'_i = M\,[\mathrm{RMSNorm}_e(\mathrm{Emb}(t_{i+k}));\
# \mathrm{RMSNorm}_h(h^{k-1}_i)], \qquad
# \text{result} = \mathrm{RMSNorm}_n(\mathrm{block}(h')).$$
#
# $[a; b]$ joins two vectors of $D$ channels to one of $2D$, the embedding's first: that
# is the released order. `w` is a dict of four tensors. `w["eh_proj"]` [D, 2D] is $M$, a
# row for each output, so `x @ M.T` applies it to all rows. `w["enorm"]`, `w["hnorm"]` and
# `w["norm"]` [D] are the gains of the norms $e$ (of the embedding), $h$ (of the state)
# and $n$ (of the result):
#
# $$\mathrm{RMSNorm}(x)_j = \mathrm{gain}_j \cdot
# \frac{x_j}{\sqrt{\frac1D \sum_m x_m^2 + 10^{-6}}}.$$
#
# `block` is a function from [B, R, D] to [B, R, D], with its residuals inside. Its rows
# read those before them; call it once, with all rows.
#
# By hand: with $T = 4$ and $k = 2$ there are three states, and two rows come out: state
# 0 with token 2, state 1 with token 3. In the cell below $D = 2$ and $M$ has the rows
# $(1, 0, 0, 1)$ and $(0, 2, 1, 0)$. Token 2, $(3, 0)$, has the mean square 4.5 and becomes
# $(\sqrt2, 0)$ times its gains. Token 3, $(0.001, 0.001)$, has the mean square $10^{-6}$
# and becomes $(1, 1) / \sqrt2$ times its gains.

# %%
def mtp_module(hidden, embedded, w, block, k):
    """hidden [B, T - k + 1, D], embedded [B, T, D] -> [B, T - k, D]."""
    ### BEGIN SOLUTION
    def rms_norm(x, gain):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * gain

    rows = embedded.shape[1] - k
    e = rms_norm(embedded[:, k:], w["enorm"])  # [B, T - k, D]
    h = rms_norm(hidden[:, :rows], w["hnorm"])  # [B, T - k, D]
    both = torch.cat((e, h), dim=-1)  # [B, T - k, 2 D]
    return rms_norm(block(both @ w["eh_proj"].T), w["norm"])  # [B, T - k, D]
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines (this block adds up the rows so far). It
# should print
# [[1.2649 6.3245]
#  [1.2989 5.5931]]
# w = {"enorm": torch.tensor([2.0, 1]), "hnorm": torch.tensor([1.0, 3])}  # [D] each
# w["norm"] = torch.tensor([1.0, 10])  # [D]
# w["eh_proj"] = torch.tensor([[1.0, 0, 0, 1], [0, 2, 1, 0]])  # [D, 2D]
# text = torch.tensor([[[9.0, 9], [9, 9], [3, 0], [0.001, 0.001]]])  # [B, T, D]
# states = torch.tensor([[[1.0, 0], [1, 2], [5, 5]]])  # [B, T - 1, D]
# made = mtp_module(states, text, w, lambda x: x.cumsum(1), 2)  # [B, T - 2, D]
# print(made[0].numpy().round(4))
check("12.4", mtp_module)

# %% [markdown]
# Next: lesson 13 asks how few bits a number needs.
