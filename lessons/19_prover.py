# %% [markdown]
# # 19 · Prover: a judge that cannot be talked round
#
# A model of 0.34 million parameters gets 80 theorems that it has never seen, and 32 tries
# at each. It proves about 35 of them. Most tries are right up to some step and wrong from
# there on, and the judge says where. If the next try may begin at such a place, how many
# theorems more?
#
# The judge is Lean, a proof checker: a program that accepts a proof or does not. It runs
# in this notebook. (On Linux it comes with the course; elsewhere the cell with the imports
# may say what to install.) DeepSeek's provers were trained and searched against it. On
# miniF2F, a benchmark of 488 school and olympiad problems in Lean, V1 proved 52% in all,
# and V2 88.9% with 8,192 tries each.
#
# - **You will build** proofs that Lean judges live, a judge that refuses cheats, a small
#   prover, the tree search RMaxTS, and the two ways of learning from verdicts.
# - **You need** lessons 15 (SFT), 17 (GRPO) and 18 (rewards, pass@k).
# - **Time**: about 45 minutes, and an hour for the exercises.
# - **Papers**: *DeepSeek-Prover* V1, arXiv 2405.14333; V1.5, 2408.08152; V2, 2504.21801.

# %%
import json
from importlib.resources import files

import numpy as np
import torch

import deepseek_mini as dm
from deepseek_mini.lesson import PALETTE, figure, ladder, setup, show
from deepseek_mini.posttraining.lean import judge, missing

setup(seed=0)
assert missing() is None, missing()  # no Lean here? This says what to install

# %%
log = files("deepseek_mini") / "assets/logs/19_prover.jsonl"
head, *records = [json.loads(line) for line in log.read_text().splitlines()]
seeds, recipe = (0, 1, 2), head["recipe"]
budget, held_out = recipe["budget"], recipe["held_out"]


def runs(kind):
    """The records of one kind, a seed each."""
    return [r for s in seeds for r in records if (r["seed"], r["kind"]) == (s, kind)]


def found(kind, k=budget):
    """How many held-out theorems were proved with at most k samples each, by seed."""
    firsts = [[n for n in r["found"] if n is not None] for r in runs(kind)]
    return np.array([sum(n <= k for n in first) for first in firsts])  # [seeds]


print(f"{held_out} held-out theorems, {budget} tries each, three seeds")
print("each try begun anew:  ", *found("independent"), "proved")
print("going on in a tree:   ", *found("RMaxTS"), "proved")
assert round(found("independent").mean()) == 35

# %% [markdown]
# ## By hand: a proof is a program
#
# Take `a → b → a`: if $a$ holds, then, if $b$ holds, $a$ holds. In Lean a proof of $p \to
# q$ is a **function** that makes a proof of $q$ from a proof of $p$. So what we need is a
# function that takes a proof of $a$, then one of $b$, and returns a proof of $a$:
# `fun x => fun y => x`. Checking a proof is checking types, which a program can do without
# understanding.
#
# **Predict** Lean's word on each of three texts. The `_` in the third is a **hole**: the
# writer leaves something open.

# %%
statement = "(a b : Prop) : a → b → a"
for proof in ("fun x => fun y => x", "fun x => fun y => y", "fun x => fun y => _"):
    verdict = judge([(statement, proof)])[0]
    print(f"{proof}   proved: {verdict.proved}")
    if verdict.reason:
        print("   ", verdict.reason)
    for hole in verdict.holes:
        known = ", ".join(f"{name} : {kind}" for name, kind in hole.known)
        print(f"    a hole: known are {known}; to be shown is {hole.goal}")

# %% [markdown]
# The second returns a proof of the wrong thing, and Lean says so. The third is not wrong,
# only unfinished, and Lean says more than a mark could: what is known at the hole and what
# is to be shown, the **goal**. A search will live on that. (Lean reports a hole as an error;
# the package turns that error into what you see. Where $p$ is to be shown Lean writes ⊢ p.)
#
# Four more names are Lean's: `And a b` is $a$ and $b$, `Or a b` is $a$ or $b$, `True` holds,
# and `False` has no proof, so that `a → False` says not $a$.
#
# ## Cheats, and judges that fall for them
#
# A model that is paid for verdicts will find whatever the judge lets pass. Lean itself has
# doors that a proof must not use: `sorry` stands for any proof, `axiom` assumes anything.
# Here the second text begins harmlessly, and the fourth is proved only because of it:

# %%
from deepseek_mini.posttraining import lean

batch = [
    ("(a : Prop) : a → a", "fun x => x"),
    ("(a : Prop) : a → a", "fun x => x axiom cheat (p : Prop) : p"),
    ("(a b : Prop) : a → b", "fun x => x"),
    ("(a b : Prop) : a → b", "fun x => cheat b"),
    ("(a b : Prop) : a → b", "fun x => _"),
    ("(a b : Prop) : a → b", "sorry"),
]
alone = lean.judge_any_text(batch)  # Lean without the package's list of words
ours = judge(batch)
rules = {
    "no 'sorry' in it": ["sorry" not in proof for _, proof in batch],
    "no error in the file": [all(v.reason is None for v in alone)] * len(batch),
    "no error but holes": [v.reason is None for v in alone],
    "Lean, line by line": [v.proved for v in alone],
    "the package": [v.proved for v in ours],
}
for i, (_, proof) in enumerate(batch):
    print(f"{i + 1}: {proof}")
for rule, passes in {"text": range(1, 7), **rules}.items():
    cells = ("yes" if x is True else "no" if x is False else x for x in passes)
    print(f"{rule:20}", *(f"{cell!s:4}" for cell in cells))
assert rules["the package"] == [True] + [False] * 5
assert alone[1].proved and alone[3].proved and rules["no error but holes"][4]

# %% [markdown]
# - *The word "sorry"* is looked for: four of five cheats and errors have another name.
# - *No error in the file*: one wrong text condemns all others, right ones too.
# - *No error but holes*: a hole counts as proof, and an empty proof is one hole.
# - *Lean, line by line* takes 2, a right proof with an axiom behind it, and 4, where nothing
#   but that axiom speaks for $b$. `axiom` is Lean too, and what it assumes holds for all
#   that follows: one text can open the door for another.
# - *The package* shows Lean only texts of words from a short list, then judges each by the
#   errors on its own line, and holes are no proof. It has limits of time and memory too.
#
# The package's tests hold 45 cheats. Five more, and what is said of them:

# %%
cheats = ("by exact sorryAx _", "native_decide", "candidate_0 a b", "macro x : term",
          "fun x => lcProof")  # fmt: skip
for cheat, verdict in zip(cheats, judge([(statement, cheat) for cheat in cheats])):
    print(f"{cheat:20} {verdict.reason}")
    assert not verdict.proved

# %% [markdown]
# ## A proof as steps
#
# A model writes better in small pieces. One of our **steps** fills the leftmost hole of a
# term, possibly with new holes, as Lean's own steps, the **tactics**, do. `intro` takes
# what stands before an arrow as a new hypothesis (`h0`, `h1`, ... in order of making);
# `parts h` takes an And apart; `split` shows both sides of one; `exact h` is the end of a
# branch. The whole list, with `?` for a new hole, `k` and `l` for new names, and `x` for
# the name that is given (the last four are for equations and induction, which this lesson
# leaves out):

# %%
from deepseek_mini.posttraining.proofs import STEPS, lean_term

for word, written in STEPS.items():
    print(f"{word:7} {written}")

# %%
swap = "(a b : Prop) : And a b → And b a"
steps = ["intro", "parts h0", "split", "exact h2", "exact h1"]
terms = [lean_term(steps[:i]) for i in range(len(steps) + 1)]
for i, (term, v) in enumerate(zip(terms, judge([(swap, term) for term in terms]))):
    goals = " and ".join(hole.goal for hole in v.holes)
    print(f"{steps[i - 1] if i else '(nothing)':10} left to show: {goals or 'nothing'}")
    print("          ", term)
assert v.proved

# %% [markdown]
# After every step Lean can read the term, so that every beginning of a proof has a
# verdict: right so far with a **state** (its holes), or wrong.
#
# ## The small prover
#
# The theorems are random formulas over three propositions that hold without the law of the
# excluded middle (so `Or a (a → False)` is not among them). A plain search finds a proof
# for the training set, and Lean confirms it.
# A hash of the formula decides which theorems are held out. The model is a dense
# transformer over 52 words, taught by SFT with the loss on the proof alone. This is what
# it reads:

# %%
from itertools import islice

from deepseek_mini.posttraining import prover
from deepseek_mini.posttraining.theorems import Theorem, text, theorems

base = dm.load(files("deepseek_mini") / "assets/checkpoints/prover-base")
taught = next(islice(theorems(0, size=8, steps=3), 5, None))
ids = prover.proof_ids(taught, taught.proof)
print(" ".join(prover.WORDS[i] for i in ids))
learnt = prover.training_rows([(taught, taught.proof)])[1][0]
print("learnt:", " ".join(prover.WORDS[i] for i in learnt if i >= 0))
print(f"{dm.count(base.config).parameters:,} parameters, {len(prover.WORDS)} words,",
      f"{recipe['base']['proofs']:,} proofs")  # fmt: skip
assert len(prover.WORDS) == 52

# %% [markdown]
# Eight whole proofs of a held-out theorem (yours may differ), and where each goes wrong:

# %% tags=["nbval-ignore-output"]
goal = next(theorems(1, size=8, steps=5, held_out=True))
print("⊢", text(goal.formula))
for steps in prover.write_proofs(base, [(goal, ())] * 8, seed=1):
    terms = [lean_term(steps[:i]) for i in range(1, len(steps) + 1)]
    verdicts = judge([(goal.statement, term) for term in terms])
    wrong = [i for i, v in enumerate(verdicts) if v.reason is not None]
    kept, cut = (steps[: wrong[0]], steps[wrong[0] :]) if wrong else (steps, [])
    proved = bool(verdicts) and verdicts[-1].proved
    end = "proved" if proved else f"✗ {' ; '.join(cut)}" if cut else "unfinished"
    print(" ; ".join(kept), "|", end)

# %% [markdown]
# ## Cut and go on
#
# A try is not worthless because it failed. **Whole-proof generation** throws it away.
# **Truncate and resume**, V1.5's way, keeps what stands before the first error as the
# nodes of a tree, and lets the model write a whole rest from some node. One sample is one
# rest. Which node?
#
# Call the ways on from a node **arms**: to let the model write from here, or to go to one
# of its children. After a sample every arm on the way to its node earns $r$; V1.5 pays the
# **intrinsic reward**
#
# $$r = 1 \text{ if the sample added a node to the tree (or is a proof), else } 0.$$
#
# While there is no proof there is no other reward, and this one drives the search to where
# something new is found. It fades: a place that brought new states may be used up. So old
# rewards count less. For arm $a$, chosen $n_a$ times with rewards $r_1 \ldots r_{n_a}$, and
# a discount $\gamma$,
#
# $$W_a = \sum_{t=1}^{n_a} \gamma^{n_a - t} r_t, \qquad N_a = \sum_{t=0}^{n_a - 1} \gamma^t,
# \qquad Q_a = \frac{W_a}{N_a} + \sqrt{\frac{2 \ln \sum_b N_b}{N_a}}.$$
#
# The sum over $b$ is over the arms of the same node. The first part is the mean reward,
# the second a bonus for what was chosen rarely; an arm that was never chosen has $Q =
# \infty$. From the root go to the arm with the largest $Q$, again and again, until it is
# the arm that writes. **Predict**, for $\gamma = \frac12$, which of three arms is next:
# paid early, paid late, or paid once out of once?

# %%
histories = {"early": [1, 1, 0, 0], "late": [0, 0, 1, 1], "once": [1]}


def ducb(rewards, gamma):
    weights = [gamma ** np.arange(len(r))[::-1] for r in rewards]  # [n_a] each arm
    W = np.array([w @ r for w, r in zip(weights, rewards)])  # [A]
    N = np.array([w.sum() for w in weights])  # [A]
    return W, N, W / N + np.sqrt(2 * np.log(N.sum()) / N)  # [A] each


scores = {}
for gamma in (0.5, 1.0):
    W, N, scores[gamma] = ducb(histories.values(), gamma)
    for name, *row in zip(histories, W, N, W / N, scores[gamma]):
        print(f"γ = {gamma}  {name:6} W {row[0]:.3f}  N {row[1]:.3f}",
              f"mean {row[2]:.2f}  Q {row[3]:.2f}")  # fmt: skip
assert scores[0.5].argmax() == 2 and scores[0.5][1] > scores[0.5][0] + 0.5
assert np.isclose(scores[1.0][0], scores[1.0][1])

# %% [markdown]
# Chosen once and paid: the bonus puts it first. And early and late differ only with the
# discount. The package keeps $W \leftarrow \gamma W + r$ and $N \leftarrow \gamma N + 1$:

# %%
from deepseek_mini.posttraining import rmaxts

arms = {gamma: [rmaxts.Arm() for _ in histories] for gamma in scores}
for gamma, row in arms.items():
    for arm, rewards in zip(row, histories.values()):
        for r in rewards:
            arm.update(r, gamma)
ladder(
    "discounted UCB",
    [
        (f"step by step = the sum, γ = {g}", rmaxts.scores(row), scores[g], 1e-12)
        for g, row in arms.items()
    ],
)  # fmt: skip
show(rmaxts.Arm, rmaxts.Search.select, rmaxts.Search.update, docstrings=False)

# %%
from deepseek_mini.lesson import Slider, settings_figure, slider_figure


def draw_arms(fig, gamma, dry):
    """An arm that paid 6 times and then not, beside one that pays every third time."""
    rewards = [np.r_[np.ones(6), np.zeros(dry)], np.tile([0.0, 0, 1], 4)]
    W, N, Q = ducb(rewards, gamma)
    ax = fig.subplots()
    ax.bar(("used up", "steady"), W / N, color=PALETTE[0], label="mean")
    ax.bar(("used up", "steady"), Q - W / N, bottom=W / N, color=PALETTE[5],
           label="bonus")  # fmt: skip
    ax.set(ylabel="Q", ylim=(0, 3))
    ax.legend()
    return f"next: {('used up', 'steady')[Q.argmax()]}"


widget = slider_figure(
    draw_arms,
    alt="Q of two arms for the discount {gamma}, after {dry} unpaid choices of one.",
    size=(5, 3),
    gamma=Slider(0.5, 1.0, start=0.8, step=0.01, label="discount γ"),
    dry=Slider(0, 20, start=4, label="unpaid choices"),
)

# %%
settings_figure(
    draw_arms,
    {f"γ = {g}, {d} unpaid": {"gamma": g, "dry": d}
     for g, d in ((1.0, 4), (0.8, 4), (0.5, 4), (1.0, 14))},
    alt="""Mean and bonus of an arm that is used up and of a steady one. Without
discount the used up arm leads after 4 unpaid choices and not after 14; with a discount
of 0.8 or 0.5 the steady one leads already after 4.""",
    size=(10, 2.8),
)  # fmt: skip

# %% [markdown]
# Notice the price of forgetting: with a small $\gamma$ no $N_a$ exceeds $1 / (1 - \gamma)$,
# so the bonus never gets small. V1.5 takes $\gamma = 0.99$.
#
# ## A tree
#
# One of the logged searches. A dot is a state that Lean described; its size says how often
# the model wrote from it.

# %%
tree = runs("RMaxTS")[0]["tree"]
parents = [None, *(parent for parent, _ in tree["nodes"])]
labels = ["", *(step for _, step in tree["nodes"])]
depth, path, left = [0], {0}, list(tree["proof"])
for parent in parents[1:]:
    depth.append(depth[parent] + 1)
node = 0
while left:  # the nodes of the proof
    step = left.pop(0)
    ways = [i for i, p in enumerate(parents) if p == node and labels[i] == step]
    node = ways[0] if ways else None  # the last step ends the proof: no node
    path.add(node)
height, row = {}, 0
for i in sorted(range(len(parents)), key=lambda i: -depth[i]):
    children = [j for j, p in enumerate(parents) if p == i]
    if children:
        height[i] = np.mean([height[j] for j in children])
    else:
        height[i], row = row, row + 1
alt = """A tree of unfinished proofs, from the empty one at the left. Edges are steps;
a path of coloured nodes leads to the proof, others end without."""
with figure(alt, size=(9, 3.6)) as fig:
    ax = fig.subplots()
    for i, parent in enumerate(parents):
        color = PALETTE[1] if i in path else PALETTE[0]
        if parent is not None:
            ax.plot((depth[parent], depth[i]), (height[parent], height[i]), "-",
                    color=color, lw=1)  # fmt: skip
            middle = depth[i] - 0.5, (height[parent] + height[i]) / 2
            ax.text(*middle, labels[i], ha="center", va="center", fontsize=9,
                    bbox={"fc": "white", "ec": "none", "pad": 1})  # fmt: skip
        ax.plot(depth[i], height[i], "o", color=color, ms=4 + 2 * tree["visits"][i])
    ax.set(title="⊢ " + tree["statement"].split(" : ")[-1], xlabel="steps", yticks=[])
    ax.margins(0.06, 0.12)

# %% [markdown]
# ## Does the search help?
#
# In the log, 80 held-out theorems get 32 samples each from the same model, in four ways:
#
# - **independent**: whole proofs, each begun anew;
# - **RMaxTS**, as above;
# - **no reward**: the same tree, but no arm ever earns anything, so that only the bonus
#   decides;
# - **random node**: the model goes on from any node of the tree, all equally likely.
#
# **Predict** their order.

# %%
KINDS = ("independent", "RMaxTS", "no reward", "random node")
alt = """Theorems proved against samples a theorem, 1 to 32, mean and range of three
seeds. The four ways lie together up to 8 samples; at 32 RMaxTS and no reward lie above
the independent tries, and random node above all."""
ks = np.arange(1, budget + 1)  # [k]
with figure(alt, size=(7, 3.6)) as fig:
    ax = fig.subplots()
    for kind, color in zip(KINDS, PALETTE):
        curves = np.array([found(kind, k) for k in ks])  # [k, seeds]
        ax.plot(ks, curves.mean(axis=1), color=color, label=kind)
        ax.fill_between(ks, curves.min(1), curves.max(1), color=color, alpha=0.12)
    ax.set_xscale("log", base=2)
    ax.set(xlabel="samples a theorem", ylabel="theorems proved")
    ax.set_xticks((1, 2, 4, 8, 16, 32), labels=(1, 2, 4, 8, 16, 32))
    ax.legend()
for kind in KINDS:
    print(f"{kind:12} proved", *found(kind), end="")
    if kind == "independent":
        print()
        continue
    begun = np.array([r["begun"] for r in runs(kind)])  # [seeds, steps]
    root = begun[:, 0].sum() / begun.sum()
    nodes = [f"{r['nodes']:.1f}" for r in runs(kind)]
    print("   nodes a tree", *nodes, f"  samples from the root {root:.0%}")
print(f"bonus of an arm chosen 8 of 32 times: {np.sqrt(2 * np.log(32) / 8):.2f}")
assert (found("RMaxTS") > found("independent")).all()
assert abs(found("RMaxTS", 8) - found("independent", 8)).mean() < 3
assert abs(found("no reward") - found("RMaxTS")).max() <= 2
assert (found("random node") > found("RMaxTS")).all()

# %% [markdown]
# Two answers. **The tree helps**: in every seed RMaxTS proves more theorems than independent
# tries do with 32 samples, two to five more. Up to 8 samples it does not; the tree has to
# grow first. **The reward does not**, here: without it the search proves up to two more
# or fewer, and from a random node more, in every seed. So what counts at this budget is to
# keep what was right.
#
# Why? A tree gets six or seven states in 32 samples. A mean is at most 1, and an arm chosen
# 8 of 32 times has a bonus of 0.93: counts decide more than rewards. And RMaxTS spends half
# of its samples at the root, where a try would have begun anyway. V1.5 has 6,400 samples a
# theorem, and its reward far more to learn from; what it does there we cannot say.
#
#
# A small version, live: 24 of the theorems, 8 samples each. It is too small to tell the two
# ways apart; it shows that the search runs, and that Lean accepts what it finds.

# %%
from itertools import count

from deepseek_mini.posttraining.lean import judge_once

calls, known = count(), {}


def write(rows):
    return prover.write_proofs(base, rows, seed=next(calls))


some = list(islice(theorems(1, 8, 5, held_out=True), 24))
single = [proof for proof in rmaxts.independent(some, write, 8) if proof]
searches = rmaxts.rmaxts(some, write, 8, known=known)
pairs = [(s.theorem.statement, lean_term(s.proof)) for s in searches if s.proof]
accepted = all(v.proved for v in judge(pairs))
near = abs(len(pairs) - len(single)) <= 3
print("Lean accepts all proofs of the search:", accepted)
print("no more than three theorems apart, as in the log at 8:", near)
assert accepted and near

# %% [markdown]
# ## Learning from verdicts: V1 and V1.5
#
# Search leaves the model as it is. Statements without proofs can also teach:
#
# - **Expert iteration** (V1): sample proofs, keep what Lean accepts, fine-tune on it, and
#   again with the better model.
# - **RLPAF**, reinforcement learning from proof assistant feedback (V1.5): GRPO (lesson 17)
#   with Lean's verdict, 0 or 1, as the reward. Statements that the model always or never
#   proves have groups without spread, so V1.5 chooses those in between. So do we.
#
# Both got 360 statements here. Beside them a control: as many more steps of SFT on the old
# proofs. **Predict** what happens to pass@1, and what to pass@32.

# %%
from deepseek_mini.posttraining.r1 import pass_at_k

MODELS = {"independent": "base", "expert iteration": "expert iteration",
          "more SFT": "more SFT", "RLPAF": "RLPAF"}  # fmt: skip


def rate(kind, k):
    """pass@k on the held-out theorems, by seed."""
    rights = [r["right"] for r in runs(kind)]
    return np.array([np.mean([pass_at_k(budget, c, k) for c in row]) for row in rights])


alt = """Two panels. Left: the share of accepted proofs over 24 steps of RLPAF rises in
three seeds. Right: pass@k from 1 to 32; expert iteration and RLPAF begin above the base
at k = 1 and end below it at 32."""
with figure(alt, size=(10, 3.4)) as fig:
    left, ax = fig.subplots(1, 2)
    for r in runs("RLPAF"):
        rewards = [row["reward"] for row in r["history"]]
        left.plot(np.arange(1, len(rewards) + 1), rewards, "-", color=PALETTE[3], lw=1)
    left.set(title="RLPAF, its own statements", xlabel="step", ylabel="share accepted")
    ks = (1, 2, 4, 8, 16, 32)
    for (kind, label), color in zip(MODELS.items(), (PALETTE[6], *PALETTE[1:])):
        curves = np.array([rate(kind, k) for k in ks])  # [k, seeds]
        ax.plot(ks, curves.mean(axis=1), "-o", ms=4, color=color, label=label)
    ax.set_xscale("log", base=2)
    ax.set_xticks(ks, labels=ks)
    ax.set(title="held-out theorems, mean of three seeds", xlabel="k", ylabel="pass@k")
    ax.legend()
for kind, label in MODELS.items():
    cells = (" ".join(f"{x:.1%}" for x in rate(kind, k)) for k in (1, budget))
    print(f"{label:17} pass@1 {next(cells)}   pass@{budget} {next(cells)}")
counts = [r["proved"] for r in runs("expert iteration")]
print("statements proved after each round, of 360:", *counts)
for kind in ("expert iteration", "RLPAF"):
    assert (rate(kind, 1) > rate("independent", 1)).all()
    assert rate(kind, 1).mean() > rate("more SFT", 1).mean() + 0.01
    assert (rate(kind, 32) < rate("independent", 32) - 0.05).all()

# %% [markdown]
# Both raise pass@1 in every seed, by one to four points. The control rises by half a point
# in the mean, and in one seed as far as RLPAF: what the verdicts add shows in the mean, not
# in each seed. And both lower pass@32: the model does more of what was accepted, and tries
# less else. (In lesson 18 pass@16 rose as well.) With 32 tries and Lean at hand the base is
# better.
#
#
# RLPAF, live and small: eight statements that the base proves sometimes, eight steps.

# %%
import copy


def rates_of(model, statements, seed=0, n=8):
    """For each statement, the share of n whole proofs that Lean accepts."""
    rows = [(t, ()) for t in statements for _ in range(n)]
    written = prover.write_proofs(model, rows, seed=seed)
    pairs = [(t.statement, lean_term(s)) for (t, _), s in zip(rows, written)]
    right = [v.proved for v in judge_once(pairs, known)]
    return np.reshape(right, (-1, n)).mean(axis=1)  # [statements]


statements = list(islice(theorems(2, size=8, steps=4), 48))
rates = rates_of(base, statements)
mixed = [t for t, r in zip(statements, rates) if 0 < r < 1][:8]
model = copy.deepcopy(base)
adam = torch.optim.AdamW(model.parameters(), 2e-4, weight_decay=0.0)
before = rates_of(base, mixed, seed=1, n=32).mean()
for step in range(8):
    _ = prover.reinforce(model, adam, mixed, known, reference=base, seed=step)
after = rates_of(model.eval(), mixed, seed=1, n=32).mean()
print("right on these statements more often by a fifth:", bool(after > before + 0.2))
assert after > before + 0.2
show(prover.reinforce, docstrings=False)

# %% [markdown]
# ## Subgoals: V2
#
# A long proof fails somewhere. V2 lets V3 write a sketch: a chain of `have`, each a lemma
# without its proof. Lean, which names what is open, turns the holes into theorems of their
# own, and a 7B model proves each, with the lemmas before as premises. Here is a sketch:

# %%
long = "(a b c : Prop) : (a → b) → (b → c) → a → And c b"
sketch = "fun f => fun g => fun x => have y : b := {}; have z : c := {}; {}"
verdict = judge([(long, sketch.format("_", "_", "_"))])[0]
for hole in verdict.holes:
    known_here = ", ".join(f"{n} : {kind}" for n, kind in hole.known if kind != "Prop")
    print(f"lemma: from {known_here} show {hole.goal}")
stitched = sketch.format("f x", "g y", "And.intro z y")
print("stitched:", stitched)
print("proved:", judge([(long, stitched)])[0].proved)
assert len(verdict.holes) == 3 and judge([(long, stitched)])[0].proved

# %% [markdown]
# Our small prover on a theorem of which the lemma is known. The sketch is a `use` step of a
# proof that the plain search found, and so the work of an expert:

# %%
from deepseek_mini.posttraining.subgoals import first_cut
from deepseek_mini.posttraining.theorems import prove

formula = ("→", ("→", ("Or", ("→", "a", "a"), "a"), "a"), ("Or", "b", "a"))
theorem = Theorem(formula, prove(formula))
cut = first_cut(theorem)
print("⊢", text(formula), "   sketch:", " ; ".join(cut.steps))
parts = []
for part in cut.parts:
    print("  part ⊢", text(part.formula))
    tries = prover.write_proofs(base, [(part, ())] * 96, seed=2)
    pairs = [(part.statement, lean_term(steps)) for steps in tries]
    good = [s for s, v in zip(tries, judge_once(pairs, known)) if v.proved]
    parts.append(good[0] if good else None)
print("both parts proved in 96 tries each:", None not in parts)
whole = judge([(theorem.statement, lean_term(cut.stitched(*parts)))])[0]
print("stitched proof accepted by Lean:", whole.proved)
assert whole.proved

# %% [markdown]
# If the lemma is proved in a share $p$ of the tries and the rest in a share $q$, a whole
# proof along this way needs both at once, about $pq$. Apart they need $p$ and $q$.
#
# ## At full size
#
# (All from the papers.) **V1**: DeepSeekMath 7B, fine-tuned on 8 million synthetic pairs of
# statement and proof; miniF2F 46.3% with 64 samples. **V1.5**: SFT on 9 billion tokens,
# with the tactic state as a comment in the proof, which the model learns to write itself.
# RLPAF with $G = 32$, learning rate $5 \cdot 10^{-6}$ and $\beta = 0.02$. RMaxTS with 6,400
# samples a theorem, $\gamma = 0.99$, temperature 1. **V2**: 671B, the stitched proofs with
# V3's thoughts as a cold start (the SFT before RL), then GRPO on 256 problems with 32
# proofs each, on the verdict
# and, early, on keeping to the sketch; 88.9% with 8,192 samples.

# %%
ours = held_out * budget
print(f"V1.5's budget for one theorem is {6400 // budget} times ours,", end=" ")
print(f"{6400 / ours:.1f} times that of all our {held_out} theorems")
assert 6400 // budget == 200

# %% [markdown]
# ## What this proves, and what it does not
#
# - Proved, by Lean: every proof that was counted. Refused: 45 cheats. A list of cheats is
#   no proof that there is no other; that is why texts are made of a few allowed words.
# - Measured, three seeds of the sampling on one base, 80 theorems: with 32 samples the tree
#   proves more than independent tries; its intrinsic reward adds nothing.
# - Measured: expert iteration and RLPAF raise pass@1 on held-out theorems by one to four
#   points and lower pass@32.
# - Shown on one theorem: a sketch. How often one helps was not measured, and ours came from
#   a program that had the proof.
# - Not shown: mathematics. A plain search proves all these theorems; the prover is a model
#   of how one learns from a checker, not a rival to the search.
#
# ## Exercises
#
# The [exercises](../exercises/19_prover.ipynb), about an hour: whose error it is, what a
# sample brings, discounted UCB, and five proofs that Lean judges. (After `make lab`, take
# your own copy in `work/`.)
#
# ## References
#
# - H. Xin and others, *DeepSeek-Prover*, arXiv 2405.14333: §3 the data, expert iteration.
# - H. Xin and others, *DeepSeek-Prover-V1.5*, 2408.08152: §2.3 RLPAF; §3 truncate and
#   resume, RMaxTS, discounted UCB.
# - Z. Ren and others, *DeepSeek-Prover-V2*, 2504.21801: §2 subgoals, cold start, RL.
# - L. de Moura and S. Ullrich, *The Lean 4 Theorem Prover and Programming Language*, 2021.
#   R. Brafman and M. Tennenholtz, *R-max*, 2002. A. Garivier and E. Moulines, *On
#   Upper-Confidence Bound Policies for Non-Stationary Bandit Problems*, 0805.3415.

# ===== exercises =====
# %% [markdown]
# # 19 · Prover: exercises
#
# Four exercises on lesson 19, about an hour in all. Write your answer where a cell raises
# `NotImplementedError`, run that cell and the one after it; `check` prints one line, and a
# hint when something is not right yet. What your function prints appears below the hint,
# for the inputs that failed. Every exercise has what it needs and none needs another one.
# The first three are plain Python and NumPy; in the last, Lean is the judge.

# %%
import numpy as np

from deepseek_mini.lesson import check, setup

setup(seed=0)

# %% [markdown]
# ## 19.1 Whose error is it?
#
# *A few lines, 10 minutes.* Lean has read a file in which proof $i$ of $n$ stands on line
# `first` + $i$, for $i = 0 \ldots n - 1$. `messages` is the list of what it said, in no
# order, each a dictionary with the keys "line", "severity" ("error", "warning" or
# "information") and "data", the text. Return a list of $n$ bools, True where a proof is
# accepted:
#
# - It is refused if an error is on its line. (A hole is one: Lean reports it as an error.)
# - It is refused if any message on its line, whatever its severity, has the words
#   `declaration uses 'sorry'` somewhere in its text.
# - Other warnings and informations do not matter, whatever names they mention. Nor does what
#   is said of other lines, those before the first proof and behind the last included.
# - If `messages` is None, Lean died, and nothing is accepted.
#
# By hand: three proofs from line 40 on, an error on line 41 and a warning "unused variable"
# on line 42: accepted are the first and the third.

# %%
def accepted(messages: list[dict] | None, first: int, n: int) -> list[bool]:
    """Which of the n proofs count as proved."""
    ### BEGIN SOLUTION
    if messages is None:
        return [False] * n
    refused = {
        message["line"]
        for message in messages
        if message["severity"] == "error"
        or "declaration uses 'sorry'" in message["data"]
    }
    return [first + i not in refused for i in range(n)]
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines. It should print
# [True, False, False, False] and [False, False]
# said = [{"line": 40, "severity": "warning", "data": "unused variable 'sorry'"},
#         {"line": 41, "severity": "error", "data": "Type mismatch"},
#         {"line": 41, "severity": "warning", "data": "unused variable `x`"},
#         {"line": 42, "severity": "information", "data": "Try this: exact h"},
#         {"line": 42, "severity": "error", "data": "don't know how to synthesize"},
#         {"line": 43, "severity": "warning", "data": "declaration uses 'sorry'"},
#         {"line": 39, "severity": "error", "data": "Type mismatch"},
#         {"line": 44, "severity": "error", "data": "Type mismatch"}]
# print(accepted(said, 40, 4), accepted(None, 40, 2))
check("19.1", accepted)

# %% [markdown]
# ## 19.2 What a sample brings
#
# *Some thought, 12 minutes.* A model wrote some steps. `states[i]` is what Lean says after
# step $i + 1$: a text, the state, with what is left to show; `""` where nothing is left, so
# that the proof is whole; `None` where it reports an error. `seen` is a list of the states
# that the tree has. Walk along `states`:
#
# - At an error the walk ends, and so it does when the proof is whole. What follows has no
#   place in the tree, however good it looks.
# - A state that is in `seen` brings nothing, and the walk goes on. (The package's search
#   also ends the walk where the known state hangs elsewhere in its tree.)
# - Any other state is new. If it comes a second time it has been seen.
#
# Return the pair `new, reward`: the list of the new states in their order (`""` is no
# state), and 1.0 if there is a new one, wherever on the walk, or the proof is whole, even
# through known states; else 0.0. `seen` must stay as it is.
#
# By hand: `["p", "q", None, "r"]` with `["p"]` seen brings `["q"]` and 1.0. `["p", ""]` with
# `["p"]` seen brings `[]` and 1.0, for the proof. `["p", None]` then brings `[]` and 0.0.

# %%
def take_in(states: list[str | None], seen: list[str]) -> tuple[list[str], float]:
    """The new states of a sample, and its intrinsic reward."""
    ### BEGIN SOLUTION
    new = []
    for state in states:
        if state is None:
            break
        if state == "":
            return new, 1.0
        if state not in seen and state not in new:
            new.append(state)
    return new, 1.0 if new else 0.0
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines. It should print
# (['q'], 1.0) ([], 1.0) ([], 0.0) (['q', 'r'], 1.0) (['q'], 1.0) (['q'], 1.0)
# and then ['p']
# walks = [["p", "q", None, "r"], ["p", ""], ["p", None], ["q", "p", "q", "r"],
#          ["q", "", "r"], ["q", "p"]]
# seen = ["p"]
# print(*(take_in(states, seen) for states in walks))
# print(seen)
check("19.2", take_in)

# %% [markdown]
# ## 19.3 Discounted UCB
#
# *A few lines, 12 minutes.* In NumPy. `rewards` is a list with an array for each of $A$
# arms: what it earned, the oldest first. An arm that was chosen $n$ times has $n$ entries,
# maybe none. Return the scores [A]:
#
# $$W_a = \sum_{t=1}^{n_a} \gamma^{n_a - t} r_t, \qquad N_a = \sum_{t=0}^{n_a - 1} \gamma^t,
# \qquad Q_a = \frac{W_a}{N_a} + \sqrt{\frac{2 \ln \sum_b N_b}{N_a}},$$
#
# and $Q_a = \infty$ (`np.inf`) for an arm that was never chosen. $\ln$ is the natural
# logarithm, and the sum under it is over all arms.
#
# By hand, $\gamma = \frac12$: the rewards 1, 0 make $W = \frac12$ and $N = 1\frac12$, the
# reward 1 alone $W = N = 1$. $\ln 2.5 = 0.9163$. So $Q = \frac13 + \sqrt{1.8326 / 1.5} =
# 1.4386$ and $1 + \sqrt{1.8326} = 2.3537$.

# %%
def ducb(rewards: list[np.ndarray], gamma: float) -> np.ndarray:
    """The scores [A] of the arms."""
    ### BEGIN SOLUTION
    weights = [gamma ** np.arange(len(r))[::-1] for r in rewards]  # [n_a] each arm
    W = np.array([w @ r for w, r in zip(weights, rewards)])  # [A]
    N = np.array([w.sum() for w in weights])  # [A]
    chosen = N > 0  # [A]
    scores = np.full(len(N), np.inf)  # [A]
    bonus = np.sqrt(2 * np.log(N.sum()) / N[chosen]) if chosen.any() else 0
    scores[chosen] = W[chosen] / N[chosen] + bonus
    return scores
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines. It should print
# [1.4386, 2.3537], [1.5541, 1.8257, inf] and [1.5481, 2.4823]
# arms = [np.array([1.0, 0.0]), np.array([1.0])]
# print([round(float(q), 4) for q in ducb(arms, 0.5)])
# arms = [np.array([0.0, 1.0, 0.0, 1.0]), np.array([1.0, 0.0, 1.0]), np.array([])]
# print([round(float(q), 4) for q in ducb(arms, 0.9)])
# arms = [np.array([1.0, 0.0]), np.array([1.0])]
# print([round(float(q), 4) for q in ducb(arms, 1.0)])
check("19.3", ducb)

# %% [markdown]
# ## 19.4 Five proofs for Lean
#
# *Some thought, 20 minutes.* Write the steps of five proofs. Each step fills the leftmost
# hole; hypotheses are h0, h1, ... in the order of their making on the way to that hole. So
# after `cases` both branches call theirs by the same name.
#
# | step | what it does |
# |---|---|
# | `intro` | to show p → q: take p as a new hypothesis, show q |
# | `exact h` | h is what is to be shown |
# | `apply h` | h is p → q, and exactly that q is to be shown: show p |
# | `use h` | h is p → q: show p first, then go on with a new hypothesis q |
# | `split` | to show And p q: show p, then q |
# | `parts h` | h is And p q: two new hypotheses, p and q |
# | `inl`, `inr` | to show Or p q: show p, or show q |
# | `cases h` | h is Or p q: go on with p as new hypothesis, then again with q |
# | `absurd h` | h is False: done |
#
# Return a dictionary with a list of steps for each name:
#
# - "swap": And a b → And b a
# - "either": Or a b → Or b a
# - "chain": (a → b) → (b → c) → a → c
# - "refute": And a (a → False) → b
# - "share": Or (And a b) c → And (Or a c) (Or b c)
#
# By hand, for another one, a → b → And b a: intro (h0 : a), intro (h1 : b), split, exact h1,
# exact h0.

# %%
def proofs() -> dict[str, list[str]]:
    """The steps of the five proofs, by name."""
    ### BEGIN SOLUTION
    return {
        "swap": ["intro", "parts h0", "split", "exact h2", "exact h1"],
        "either": ["intro", "cases h0", "inr", "exact h1", "inl", "exact h1"],
        "chain": ["intro", "intro", "intro", "apply h1", "apply h0", "exact h2"],
        "refute": ["intro", "parts h0", "use h2", "exact h1", "absurd h3"],
        "share": [
            *("intro", "cases h0", "parts h1", "split"),
            *("inl", "exact h2", "inl", "exact h3"),
            *("split", "inr", "exact h1", "inr", "exact h1"),
        ],
    }
    ### END SOLUTION

# %%
# To see what is left after some steps, take away the # of the next lines. They print
# False None b a: not proved, nothing wrong so far, b and a left to show.
# from deepseek_mini.posttraining.lean import judge
# from deepseek_mini.posttraining.proofs import lean_term
# begun = lean_term(["intro", "parts h0", "split"])
# verdict = judge([("(a b c : Prop) : And a b → And b a", begun)])[0]
# print(verdict.proved, verdict.reason, *(hole.goal for hole in verdict.holes))
check("19.4", proofs)

# %% [markdown]
# Next: the GPU, and kernels that run at the real size.
