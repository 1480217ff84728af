# %% [markdown]
# # 18 · R1: reasoning from rules alone
#
# A small base model gets 128 sums that it has never seen and answers 12% of them right.
# After 40 steps in which a rule paid it for right answers, it answers 62% right. Nobody
# showed it a worked sum. What did it learn?
#
# DeepSeek-R1-Zero is that experiment on V3-Base: 671 billion parameters, GRPO, a rule for
# the answer and a rule for the format, no reward model and no worked example. Here it
# runs on a model of 0.34 million, small enough to ask the question with controls: SFT,
# no baseline, no clip, a reward that can be gamed, and the base itself, asked better.
#
# - **You will build** rewards from rules, a run from base to reasoner, and the measures
#   that say what changed: pass@1, pass@k, the majority's vote, format and length. Then you
#   distil it into a model of a third of its size.
# - **You need** lessons 15 (SFT) and 17 (GRPO).
# - **Time**: about 45 minutes, and half an hour for the exercises.
# - **Papers**: *DeepSeek-R1*, arXiv 2501.12948; pass@k: Chen and others, 2107.03374.

# %%
import json
from dataclasses import replace
from importlib.resources import files
from math import comb

import numpy as np

import deepseek_mini as dm
from deepseek_mini.lesson import PALETTE, figure, ladder, setup, show

setup(seed=0)

# %%
log = files("deepseek_mini") / "assets/logs/18_r1.jsonl"
head, *records = [json.loads(line) for line in log.read_text().splitlines()]
before, seeds = head["before"]["sampled"], (0, 1, 2)


def after(kind, name, what="sampled"):
    """A number for each seed: what runs of one kind can do on held-out problems."""
    runs = {r["seed"]: r for r in records if r["kind"] == kind}
    return np.array([runs[seed]["after"][what][name] for seed in seeds])  # [seeds]


def percent(values):
    return " ".join(f"{value:.0%}" for value in np.atleast_1d(values))


print(f"128 held-out sums, right: before {percent(before['pass@1'])},", end=" ")
print("after", percent(after("GRPO", "pass@1")), "(three seeds)")
assert before["pass@1"] < 0.13 and after("GRPO", "pass@1").min() > 0.55
assert round(after("GRPO", "pass@1").mean(), 2) == 0.62

# %% [markdown]
# ## By hand: one problem, two rules
#
# R1-Zero's template asks for `<think>`, the reasoning, `</think>`, and `<answer>`, the
# answer, `</answer>`. Two rules judge what comes:
#
# - **accuracy**: what stands between the answer's tags is right, which a program can
#   tell for a sum, a mathematical result or a unit test;
# - **format**: the text is the template and nothing else, each tag once.
#
# Ours pay 1 for accuracy and ¼ for the format. No rule reads the thought. Take `6+15+16`,
# and a group of four answers. **Predict** the four rewards, and which answers GRPO makes
# likelier.

# %%
from deepseek_mini.posttraining.rewards import accuracy_reward, format_reward
from deepseek_mini.posttraining.tasks import Chain, Problem, problems

task = Chain(3)
problem = Problem("chain", "6+15+16", "37", (), "")
group = [
    "32",
    "<answer>37</answer>",
    "<think>?</think><answer>35</answer>",
    "<think>6+15=21;21+16=37</think><answer>37</answer>",
]
right, form = accuracy_reward(task), format_reward
rewards = np.array([right(text, problem) + form(text) / 4 for text in group])  # [G]
advantages = (rewards - rewards.mean()) / rewards.std()  # [G]
for text, r, a in zip(group, rewards, advantages):
    print(f"reward {r:.2f}  advantage {a:+.2f}  {text}")
assert rewards.tolist() == [0, 1, 0.25, 1.25]

# %% [markdown]
# The mean is 0.625, so the two right answers go up and the two others go down, the one
# without tags most. The third is made less likely although it keeps the format: beside
# better answers its ¼ is too little.
#
# These are the package's rules:

# %%
from deepseek_mini.posttraining.rewards import extract_answer

show(extract_answer, accuracy_reward, format_reward, docstrings=False)

# %% [markdown]
# R1's rule for code ran unit tests. What a model writes is nothing to run beside your
# files, so our rule *reads* it: does it compile, and does the parsed expression have the
# right value in every test? An evaluator walks the tree with a list of what is allowed;
# the rest earns 0. The task: $x^2$, tested at 3 and −2. **Predict** which earn 1.

# %%
from deepseek_mini.posttraining.rewards import code_reward, compile_reward

square = Problem("code", "x squared", "x * x", (), "", [({"x": 3}, 9), ({"x": -2}, 4)])
earned = {}
for code in (
    "x * x", "3 * x", "x + 6", "x *", "9 ** 9 ** 9 ** 9", "[0] * 10 ** 12",
    "__import__('os').listdir()", "().__class__.__base__",
):  # fmt: skip
    text = f"<think>?</think><answer>{code}</answer>"
    earned[code] = compile_reward(text), code_reward(text, square)
    print("compiles {:.0f}  right {:.0f} ".format(*earned[code]), code)
assert [code for code, (_, ok) in earned.items() if ok] == ["x * x", "x + 6"]
assert [code for code, (fine, _) in earned.items() if not fine] == ["x *"]

# %% [markdown]
# `x + 6` is right at 3 and at −2: a rule sees its tests and nothing else. The last four
# compile, and none of them ran. (A warning from practice: `tasks.Gym` takes problems of
# the package reasoning-gym, where it is installed, but judges them by comparing texts.
# Several of that package's own scorers hand the model's answer to Python's `eval`.)
#
# ## The base model
#
# The base was pretrained on sums by several "writers": some work, some guess, some
# use no tags, and some slip. Read eight of its answers (they may differ on your machine):

# %% tags=["nbval-ignore-output"]
from deepseek_mini.posttraining import r1

base = r1.base_model()
shown = problems(task, 8, seed=2, split="test")
for asked, text in zip(shown, r1.show(base, shown, 40)):
    print(f"{asked.question:9} = {asked.answer:3} {text}")

# %%
held_out = problems(task, 64, seed=0, split="test")
live = {"base": r1.examine(base, task, held_out, 8, (1, 8), 40)}
print(f"{dm.count(base.config).parameters:,} parameters")
print("right less than 20% of the time:", live["base"]["pass@1"] < 0.2)
print("in the format less than 60% of the time:", live["base"]["format"] < 0.6)
assert live["base"]["pass@1"] < 0.2 and live["base"]["format"] < 0.6

# %% [markdown]
# ## R1-Zero, live
#
# Every step draws 16 training problems, samples 8 answers to each, pays them, and
# takes GRPO's step twice on the same answers. The logged runs take 40 steps; here are 14
# (12 seconds of one core).

# %%
from deepseek_mini.posttraining.grpo import Objective

recipe = r1.Recipe(
    steps=14,
    questions=16,
    group=8,
    max_new_tokens=40,
    lr=3e-4,
    warmup=3,
    cooldown=4,
    updates=2,
    weights={"accuracy": 1.0, "format": 0.25},
    objective=Objective(beta=0.01),
)
zero = r1.base_model()
history = r1.reinforce(zero, task, recipe)
live["zero"] = r1.examine(zero, task, held_out, 8, (1, 8), 40)
gain = {name: live["zero"][name] - live["base"][name] for name in live["zero"]}
print("held-out problems, pass@1 up by more than 0.1:", gain["pass@1"] > 0.1)
print("format up by more than 0.2:", gain["format"] > 0.2)
print("answers longer by more than 2 tokens:", gain["length"] > 2)
assert gain["pass@1"] > 0.1 and gain["format"] > 0.2 and gain["length"] > 2

# %% [markdown]
# ## The whole run, three seeds
#
# From here on we read the log of `experiments/18_r1.py`. All numbers after training are of
# 128 held-out problems with 16 answers each.

# %%
alt = """Four panels over 40 steps, three seeds each, GRPO and REINFORCE without a
baseline. GRPO: reward from 0.27 to about 0.85, accuracy from 0.15 to about 0.6,
format from 0.45 to 0.97, length from 12 to 21 tokens. Without a baseline the format
rises as well, but accuracy stays near 0.1 and length falls to about 8."""
with figure(alt, size=(10, 5)) as fig:
    axes = fig.subplots(2, 2, sharex=True).flat
    for ax, name in zip(axes, ("reward", "accuracy", "format", "length")):
        for kind, color in (("GRPO", PALETTE[0]), ("no baseline", PALETTE[1])):
            for run in (r for r in records if r["kind"] == kind):
                label = kind if run["seed"] == 0 else None
                h = run["history"]
                ax.plot(h["step"], h[name], color=color, lw=1.2, ls="-", label=label)
        ax.set(title=name, xlabel="step")
    axes[0].legend()

# %%
run = next(r for r in records if r["kind"] == "GRPO" and r["seed"] == 0)
for i, question in enumerate(run["questions"]):
    for step, texts in run["chains"].items():
        print(f"{question if step == '0' else '':8} step {step:>2}: {texts[i]}")

# %% [markdown]
# Notice three ages. First it guesses, mostly without tags. At step 10 it still guesses, *in
# the format*: an empty thought. At step 40 it works, and sometimes slips: 21 + 16 is not
# 27. The length grows because working takes more characters than guessing. It stops
# there: a worked sum has about 22 tokens, and there is nothing longer to say.
#
# ## More right, or right more often?
#
# **pass@k** is the chance that one of $k$ answers is right. From $n$ answers of which $c$
# are right, count the draws of $k$ that miss, among all $\binom{n}{k}$ ways to draw:
#
# $$\text{pass@}k = 1 - \binom{n - c}{k} \Big/ \binom{n}{k}.$$
#
# The naive $1 - (1 - c/n)^k$ is wrong in the mean. It is a concave function of $c/n$, and
# the mean of such a function lies below the function of the mean.

# %%
def pass_at_k(n, c, k):
    return 1 - comb(n - c, k) / comb(n, k)


def means(p, n):
    c = np.arange(n + 1)  # [n + 1]: how many of n answers can be right
    weight = np.array([comb(n, i) * p**i * (1 - p) ** (n - i) for i in c])  # [n + 1]
    ks = np.arange(1, n + 1)  # [n]
    good = [weight @ [pass_at_k(n, int(i), int(k)) for i in c] for k in ks]  # [n]
    naive = [weight @ (1 - (1 - c / n) ** k) for k in ks]  # [n]
    return ks, 1 - (1 - p) ** ks, np.array(good), np.array(naive)  # [n] each


ks, truth, good, naive = means(0.1, 16)
pairs = [(n, c, k) for n in (4, 9) for c in range(n + 1) for k in (1, 2, 4)]
ladder(
    "pass@k",
    [
        ("the package = the formula", [r1.pass_at_k(*x) for x in pairs],
         [pass_at_k(*x) for x in pairs], 1e-12),
        ("its mean = the truth", good, truth, 1e-12),
    ],
)  # fmt: skip
print(f"p = 0.1, n = 16, k = 8: truth {truth[7]:.3f}, naive in the mean {naive[7]:.3f}")
assert (naive[1:] < truth[1:] - 1e-6).all()

# %%
from deepseek_mini.lesson import Slider, settings_figure, slider_figure


def draw_means(fig, p, n):
    ks, truth, good, naive = means(p, n)
    ax = fig.subplots()
    ax.plot(ks, truth, color="black", lw=1, ls="-", label="truth")
    ax.plot(ks, good, "o", color=PALETTE[0], ms=4, label="unbiased")
    ax.plot(ks, naive, "x", color=PALETTE[1], ms=5, label="naive")
    ax.set(xlabel="k", ylabel="pass@k, mean", ylim=(0, 1.03))
    ax.legend(loc="upper left" if p < 0.3 else "lower right")
    return f"at k = {n}: truth {truth[-1]:.2f}, naive {naive[-1]:.2f}"


widget = slider_figure(
    draw_means,
    alt="pass@k against k: truth, unbiased and naive, {n} answers, pass rate {p}.",
    size=(6, 3),
    p=Slider(0.01, 0.99, start=0.1, step=0.01, label="pass rate p"),
    n=Slider(2, 32, start=16, label="answers n"),
)

# %%
settings_figure(
    draw_means,
    {
        f"p = {p}, n = {n}": {"p": p, "n": n}
        for p, n in ((0.1, 4), (0.1, 16), (0.6, 16))
    },
    alt="""Mean pass@k against k in three settings. The unbiased estimate lies on the
true curve; the naive one lies below it, most where k is near n.""",
    size=(9, 2.8),
)

# %% [markdown]
# Now the models. **Predict**: pass@1 rises fivefold. What happens to pass@16?

# %%
KS = (1, 2, 4, 8, 16)
alt = """pass@k against k from 1 to 16. Base: 0.12 to 0.83. GRPO, three seeds: 0.62
to 0.98. Without a baseline, three seeds: below the base, 0.1 to between 0.3 and
0.6."""
with figure(alt, size=(6.5, 3.2)) as fig:
    ax = fig.subplots()
    ax.plot(KS, [before[f"pass@{k}"] for k in KS], "k-o", ms=4, label="base")
    for kind, color in (("GRPO", PALETTE[0]), ("no baseline", PALETTE[1])):
        curves = np.array([after(kind, f"pass@{k}") for k in KS])  # [ks, seeds]
        lines = ax.plot(KS, curves, color=color, lw=1.2, ls="-")
        lines[0].set_label(kind)
    ax.set_xscale("log", base=2)
    ax.set(xlabel="k", ylabel="pass@k", ylim=(0, 1.03), xticks=KS, xticklabels=KS)
    ax.legend(loc="lower right")
for name in ("pass@1", "pass@16", "majority", "format", "right_in_format"):
    print(f"{name:15} {percent(before[name]):>4} -> {percent(after('GRPO', name))}")
lengths = [before["length"], *after("GRPO", "length")]
print(f"tokens in an answer: {lengths[0]:.0f} ->", *(f"{x:.0f}" for x in lengths[1:]))
first = after("GRPO", "pass@1") - before["pass@1"]
sixteenth = after("GRPO", "pass@16") - before["pass@16"]
assert (first > 2 * sixteenth).all() and (sixteenth > 0.05).all()
assert (after("GRPO", "pass@1") > before["majority"] + 0.05).all()
assert (after("GRPO", "right_in_format") > before["right_in_format"] + 0.2).all()
assert (after("GRPO", "length") > 1.5 * before["length"]).all()

# %% [markdown]
# In 16 tries the base found a right answer to 83% of the problems; a right try was there to
# be found, and RL moved pass@1 much more than pass@16. One answer of the trained model
# beats the vote of 16 of the base. And it is not the format alone: of the answers *that
# keep the format*, 27% were right before and more than 60% are now.
#
# ## What RL taught, and what not
#
# Ask the base differently, without training it: begin its answer with `<think>` and the
# first number, so that it must work. And draw at temperature 0.3, where slips are rare.

# %%
told = head["told_to_work"]
cool = after("GRPO", "pass@1", "cool")
rows = {
    "base": head["before"]["cool"]["pass@1"],
    "base, made to begin its work": told["0.3"],
    "GRPO": cool,
}
for name, values in rows.items():
    print(f"right at temperature 0.3: {name:29} {percent(values)}")
print(f"made to work, at temperature 1: base {percent(told['1.0'])}")
assert told["0.3"] >= cool.max() and told["1.0"] < after("GRPO", "pass@1").min() - 0.1

# %% [markdown]
# The base could add all along: made to work and cooled, it is as good as the trained model.
# So RL taught a *choice*, to work and not to guess, and at temperature 1 fewer slips. We
# see no new arithmetic. The base had read worked sums in which one step in ten was wrong.
# Now the controls, three seeds each:

# %%
kinds = ("GRPO", "no baseline", "equal weights", "no clip", "SFT", "cold start")
print(f"{'seeds 0 1 2':18} {'pass@1':14} {'pass@16':14} {'format':14} five numbers")
for kind in kinds:
    cells = [percent(after(kind, name)) for name in ("pass@1", "pass@16", "format")]
    print(f"{kind:18}", *(f"{c:14}" for c in cells),
          percent(after(kind, "pass@1", "five numbers")))  # fmt: skip
print(f"base, five numbers: {percent(head['before']['five numbers']['pass@1'])}")
took = {k: max(r["train_seconds"] for r in records if r["kind"] == k) for k in kinds}
print(f"seconds of one core, at most: GRPO {took['GRPO']:.0f}, SFT {took['SFT']:.0f}")
grpo, flat = after("GRPO", "pass@1"), after("no baseline", "pass@1")
assert (flat < before["pass@1"] + 0.02).all()
assert (after("no baseline", "format") > 0.9).all()
assert (after("no baseline", "pass@16") < before["pass@16"] - 0.1).all()
assert (after("no baseline", "length") < before["length"] - 2).all()
assert (grpo > after("no clip", "pass@1") + 0.03).all()
assert abs(after("SFT", "pass@1") - grpo).max() < 0.05
assert after("cold start", "pass@1").mean() > grpo.mean()
longer = after("GRPO", "pass@1", "five numbers")
assert (longer > head["before"]["five numbers"]["pass@1"] + 0.15).all()

# %% [markdown]
# - **No baseline**: the reward itself is the advantage. It is never negative, so whatever
#   keeps the format is made likelier, right or wrong. The model collapses to short guesses
#   in perfect format, and even pass@16 falls.
# - **Equal weights**, 1 for the format too: gets there here, at this learning rate.
# - **No clip**: worse in every seed.
# - **SFT** on 128 sums that a program worked out: as good as RL, in a second instead of half
#   a minute. With a teacher, imitation is cheap. RL's case is that of no teacher.
# - **Cold start**, that SFT and then GRPO: a little better in the mean.
# - **Five numbers** were never asked for in RL; the way of answering carries over.
#
# ## A smaller model: a teacher's chains, or the rule itself?
#
# R1's distilled models are smaller ones after SFT on its chains, without RL. Why not RL on
# the small model? The paper tried (§4.1): Qwen-32B with RL for over 10,000 steps solves
# 47.0% of AIME 2024, with SFT on R1's chains 72.6% (its Table 6).
#
# Our **student** has 115,008 parameters, a third of the base, and read the same texts for
# as many steps. The **teacher** is the base after GRPO. By *rejection sampling* it writes
# 8 answers a problem; those are kept that are right, in the format and different.
# First live, with the 14-step model as the teacher and 128 problems:

# %%
from itertools import islice

from deepseek_mini.posttraining.chars import END_ID
from deepseek_mini.posttraining.distill import right_chains
from deepseek_mini.posttraining.packing import pack_chats
from deepseek_mini.posttraining.sft import sft
from deepseek_mini.posttraining.tasks import stream
from deepseek_mini.training import TrainConfig

show(right_chains, docstrings=False)
asked = list(islice(stream(task, seed=1), 128))
chains = right_chains(zero, task, asked, samples=8, keep=8, max_new_tokens=40)
student = r1.student_model()
live["student"] = r1.examine(student, task, held_out, 8, (1, 8), 40)
config = TrainConfig(40, batch_size=8, lr=3e-3, schedule="cosine", weight_decay=0.0)
_ = sft(student, pack_chats(chains, 128, END_ID), config, progress=False)
live["taught"] = r1.examine(student, task, held_out, 8, (1, 8), 40)
gain = live["taught"]["pass@1"] - live["student"]["pass@1"]
print("more than 80 chains kept of 1,024:", len(chains) > 80)
print("held-out problems, pass@1 up by more than 0.1:", gain > 0.1)
assert len(chains) > 80 and gain > 0.1
assert dm.count(student.config).parameters == 115_008

# %% [markdown]
# The log has the long runs, three seeds each with a teacher of its own, all on the same
# 640 problems. **Predict** the order by pass@1:
#
# - **SFT** on the teacher's chains; **own SFT**, on the student's own right chains;
# - **reverse KL**, V4's way (lesson [15](15_sft_and_chat.ipynb)): the student writes and is
#   pulled to the teacher's distribution;
# - **GRPO**, no teacher; **GRPO, longer**, 120 steps on three times the problems, which
#   costs about as much as the teacher's GRPO and the student's SFT together;
# - **SFT, GRPO**: one after the other (the seconds are those of GRPO).

# %%
second = files("deepseek_mini") / "assets/logs/18_r1_distill.jsonl"
about, *pupils = [json.loads(line) for line in second.read_text().splitlines()]
WAYS = ("teacher", "SFT", "own SFT", "reverse KL", "GRPO", "GRPO, longer", "SFT, GRPO")


def pupil(kind, name, what="sampled"):
    """A number for each seed: what the students of one way can do."""
    runs = {r["seed"]: r for r in pupils if r["kind"] == kind}
    return np.array([runs[seed]["after"][what][name] for seed in seeds])  # [seeds]


MEASURES = {  # the name of a column: what is measured, and where
    "pass@1": ("pass@1", "sampled"), "pass@16": ("pass@16", "sampled"),
    "T = 0.3": ("pass@1", "cool"), "five numbers": ("pass@1", "five numbers"),
}  # fmt: skip
start = {column: about["before"][w][n] for column, (n, w) in MEASURES.items()}
print(f"{'seeds 0 1 2':15}", *(f"{column:13}" for column in MEASURES), "seconds")
print(f"{'student before':15}", *(f"{percent(value):13}" for value in start.values()))
costs = {}
for kind in WAYS:
    cells = [percent(pupil(kind, *measure)) for measure in MEASURES.values()]
    costs[kind] = np.mean([r["seconds"] for r in pupils if r["kind"] == kind])
    print(f"{kind:15}", *(f"{cell:13}" for cell in cells), f"{costs[kind]:.0f}")
assert 0.8 < costs["GRPO, longer"] / (costs["teacher"] + costs["SFT"]) < 1.2

# %%
alt = """Three panels of dots, a row for each way, three seeds in a row, and a dashed
line for the student before. pass@1: SFT leads with 0.67 to 0.74, above the teacher;
reverse KL and longer GRPO are near 0.6; GRPO has 0.43, 0.37 and, in one seed, 0.08,
where it began. pass@16: reverse KL is level with the teacher at 0.98, SFT has 0.95,
own SFT 0.78, GRPO's bad seed 0.55. Five numbers: reverse KL and longer GRPO have about
0.2, SFT 0.04, as before."""
with figure(alt, size=(10, 3.2)) as fig:
    columns = ("pass@1", "pass@16", "five numbers")
    for ax, column in zip(fig.subplots(1, 3, sharey=True), columns):
        for row, kind in enumerate(WAYS):
            color = PALETTE[1] if kind == "teacher" else PALETTE[0]
            values = pupil(kind, *MEASURES[column])
            ax.plot(values, [row] * 3, "o", ms=5, alpha=0.7, color=color)
        ax.axvline(start[column], color="black", lw=1, ls="--")
        ax.set(title=column, yticks=range(len(WAYS)), yticklabels=WAYS, xlim=(0, 1.02))
    ax.invert_yaxis()
one = {kind: pupil(kind, "pass@1") for kind in WAYS}
assert (one["SFT"] > one["GRPO"] + 0.2).all()
assert (one["reverse KL"] > one["GRPO"] + 0.1).all()
assert (one["SFT"] > one["GRPO, longer"] + 0.08).all()
assert (one["SFT"] > one["teacher"] + 0.03).all()
assert (one["own SFT"] < one["SFT"] - 0.2).all() and (one["own SFT"] > 0.4).all()

# %% [markdown]
# For equally many problems the paper's verdict holds: in every seed both ways of
# distilling leave GRPO far behind. One GRPO run in three learned *the format alone*: where
# 9% of the answers are right, there is little to reward. In 120 steps that seed learned
# to work as well.
#
# By pass@1 SFT also beats the longer GRPO, and even its teacher. Is it the better student?

# %%
cool = {kind: pupil(kind, *MEASURES["T = 0.3"]) for kind in WAYS}
five = {kind: pupil(kind, *MEASURES["five numbers"]) for kind in WAYS}
wide = {kind: pupil(kind, "pass@16") for kind in WAYS}
lost = {name: pupil("GRPO", name)[1] for name in ("pass@1", "format", "length")}
print(f"GRPO, seed 1: right {lost['pass@1']:.0%}, in the format {lost['format']:.0%},",
      f"{lost['length']:.0f} tokens; longer: {one['GRPO, longer'][1]:.0%}")  # fmt: skip
print("SFT and longer GRPO at temperature 0.3, means:",
      percent(cool["SFT"].mean()), percent(cool["GRPO, longer"].mean()))  # fmt: skip
known = [np.mean(r["accuracy"][:8]) for r in pupils if r["kind"] == "SFT, GRPO"]
print("SFT, GRPO: right in the first 8 steps, on SFT's own problems:", percent(known))
assert lost["pass@1"] < 0.1 and lost["format"] > 0.95 and lost["length"] < 11
assert one["GRPO, longer"][1] > 0.45
assert abs(cool["SFT"].mean() - cool["GRPO, longer"].mean()) < 0.03
assert (cool["reverse KL"] > cool["SFT"] + 0.03).all()
assert (wide["SFT"] < wide["reverse KL"] - 0.02).all()
assert (wide["own SFT"] < wide["reverse KL"] - 0.1).all()
assert (five["SFT"] < 0.05).all() and (five["reverse KL"] > 0.15).all()
assert (five["GRPO, longer"] > 0.2).all() and min(known) > 0.8
assert abs(one["SFT, GRPO"] - one["SFT"]).max() < 0.05

# %% [markdown]
# - Much of **SFT**'s lead is sharpness. At temperature 0.3, where all are sharp, it is level
#   with longer GRPO and behind reverse KL in every seed; so it is by pass@16. And it solves
#   no more sums of *five* than before: it learned these chains, not to work. (Its learning
#   rate was chosen by pass@1 at temperature 1. A gentler one might forget less.)
# - **Reverse KL** keeps the teacher's pass@16 and most of its transfer: the best student
#   here, all in all.
# - **Own SFT**: one round of the rule without a teacher brings half of it, and little
#   pass@16.
# - **GRPO after SFT** found little to learn in problems that SFT had nearly memorised.
#
# ## How people get it wrong
#
# Two rewards that can be gamed. The first pays for the format alone, in the hope that
# thinking tags bring thought. **Predict** what 6 steps of that do to accuracy.

# %%
hopeful = replace(recipe, steps=6, lr=1e-3, weights={"format": 1.0})
gamed = r1.base_model()
_ = r1.reinforce(gamed, task, hopeful)
live["gamed"] = r1.examine(gamed, task, held_out, 8, (1, 8), 40)
print("format above 90%:", live["gamed"]["format"] > 0.9)
print("and right less often than the base:",
      live["gamed"]["pass@1"] < live["base"]["pass@1"])  # fmt: skip
print("answers shorter than the base's:",
      live["gamed"]["length"] < live["base"]["length"] - 2)  # fmt: skip
assert live["gamed"]["format"] > 0.9
assert live["gamed"]["pass@1"] < live["base"]["pass@1"]
assert live["gamed"]["length"] < live["base"]["length"] - 2

# %% [markdown]
# The reward is nearly full and the model worse: an empty thought earns as much as a good
# one. The second accepts the right number anywhere, to be kind to broken formats:

# %%
def kind_reward(text, problem):
    return float(problem.answer in text)


guesses = "<answer>" + " ".join(map(str, range(61))) + "</answer>"
paid = [kind_reward(guesses, p) for p in held_out]
strict = [right(guesses, p) for p in held_out]
print(f"one text for all problems: the kind rule pays {np.mean(paid):.0%},", end=" ")
print(f"ours {np.mean(strict):.0%}")
assert np.mean(paid) == 1 and np.mean(strict) == 0

# %% [markdown]
# All 61 possible results in a row earn everything. RL looks for such texts.
#
# ## At full size: from V3-Base to R1 and its pupils
#
# R1-Zero (all from the paper): batches of 32 questions with 16 answers each, 10,400 steps,
# learning rate $3 \cdot 10^{-6}$, $\beta = 0.001$, temperature 1, answers of up to 32,768
# tokens, 65,536 from step 8,200 on, and the policy becomes the reference every 400 steps.
# R1 itself comes from four stages, since R1-Zero's answers mixed languages and were hard
# to read. Each arrow names the lesson that runs it:

# %%
BOXES = {  # column, row and half the width in points
    "V3-Base": (0, 1, 34), "R1-Zero": (0, 2, 26), "cold start": (1, 1, 30),
    "reasoner": (2, 1, 28), "800k samples": (3, 1, 40), "new SFT": (3, 0, 27),
    "R1": (2, 0, 14), "distilled\nQwen, Llama": (4, 1, 38), "Prover-V2": (0, 0, 30),
}  # fmt: skip
ARROWS = (
    ("V3-Base", "R1-Zero", "GRPO, two rules\nlessons 17, 18"),
    ("V3-Base", "cold start", "SFT\nlessons 15, 18"),
    ("cold start", "reasoner", "GRPO, rules\nlessons 17, 18"),
    ("reasoner", "800k samples", "rejection\nsampling: 15, 18"),
    ("800k samples", "new SFT", "SFT of V3-Base\nlesson 15"),
    ("new SFT", "R1", "GRPO, all tasks\nlesson 17"),
    ("800k samples", "distilled\nQwen, Llama", "SFT\nlesson 18"),
    ("V3-Base", "Prover-V2", "SFT, GRPO with\nLean: lesson 19"),
)
alt = """V3-Base (lesson 14) with three arrows. Up: GRPO with two rules, lessons 17
and 18, to R1-Zero. Down: SFT and GRPO with Lean, lesson 19, to Prover-V2. Right: SFT,
lessons 15 and 18, to cold start; GRPO, 17 and 18, to reasoner; rejection sampling, 15
and 18, to 800k samples. From these SFT of V3-Base, 15, then GRPO on all tasks, 17, to
R1; and SFT, 18, to distilled Qwen and Llama."""
with figure(alt, size=(11, 4.2)) as fig:
    ax = fig.subplots()
    for a, b, label in ARROWS:
        (x, y, left), (u, v, right) = BOXES[a], BOXES[b]
        gaps = (20, 14) if x == u else (left, right + 2)
        style = {"arrowstyle": "-|>", "color": "grey"}
        style |= dict(zip(("shrinkA", "shrinkB"), gaps))
        ax.annotate("", (u, v), (x, y), arrowprops=style)
        middle = (x + u) / 2 + (0.06 if x == u else 0), (y + v) / 2
        ha, dy = ("left", 0) if x == u else ("center", 0.2)
        ax.text(middle[0], middle[1] + dy, label, ha=ha, va="center", fontsize=8)
    for name, (x, y, _) in BOXES.items():
        color = PALETTE[1] if "R1" in name or "dist" in name else PALETTE[0]
        box = {"boxstyle": "round,pad=0.5", "fc": "white", "ec": color, "lw": 1.5}
        text = "V3-Base\n(lesson 14)" if name == "V3-Base" else name
        ax.text(x, y, text, ha="center", va="center", fontsize=9, bbox=box)
    ax.set(xlim=(-0.5, 4.5), ylim=(-0.4, 2.4))
    ax.axis("off")

# %% [markdown]
# | arrow | in the paper | run by |
# |---|---|---|
# | V3-Base → R1-Zero | GRPO; rules for the answer and the format | [17](17_grpo.ipynb), here |
# | V3-Base → cold start | SFT on thousands of chains | [15](15_sft_and_chat.ipynb), here in small |
# | cold start → reasoner | GRPO; a third rule pays for staying in one language | [17](17_grpo.ipynb), here |
# | reasoner → 800k samples | 600,000 of reasoning, kept where right, and 200,000 others | [15](15_sft_and_chat.ipynb), here |
# | 800k samples → new SFT → R1 | SFT of V3-Base, two epochs; GRPO on all tasks | [15](15_sft_and_chat.ipynb), [17](17_grpo.ipynb) |
# | 800k samples → distilled | SFT of Qwen and Llama, no RL | here |
# | V3-Base → Prover-V2 | SFT on proofs, GRPO with Lean's verdict as the rule | [19](19_prover.ipynb) |
#
# V3-Base itself is lesson [14](14_deepseek_v3.ipynb).
#
# ## What this proves, and what it does not
#
# - Proved: the pass@k estimate has no bias and the naive one has; both gamed rewards are.
# - Measured, three seeds, 0.34 million parameters, sums of three numbers: rules alone take
#   pass@1 from 12% to 60% and more on unseen problems.
# - Measured too: the base, made to work at temperature 0.3, is as good. RL chose a way of
#   answering that pretraining had put there.
# - Not shown: reflection, answers that grow for thousands of steps, or new abilities.
#   Our base has none to find, and a sum needs none. Nothing here says what RL does to a
#   model of 671 billion parameters.
# - Measured: for the same 640 problems distillation beats RL on the student; with three
#   times the problems RL is level at temperature 0.3. One task, one student, learning
#   rates from two or three values each.
#
# ## Exercises
#
# The [exercises](../exercises/18_r1.ipynb), about half an hour: pass@k, a reward that
# cannot be gamed, and the majority's vote. (After `make lab`, take your own copy in
# `work/`.)
#
# ## References
#
# - *DeepSeek-R1*, arXiv 2501.12948: §2.2 R1-Zero, §2.3 R1's four stages, §2.4 distillation,
#   §4.1 distillation against RL.
# - *DeepSeek-Prover-V2*, arXiv 2504.21801; *DeepSeek-V4*, 2606.19348 (on-policy).
# - M. Chen and others, *Evaluating Large Language Models Trained on Code*, 2107.03374: §2.1
#   pass@k.
# - Z. Shao and others, *DeepSeekMath*, 2402.03300, §5.2: RL moves Maj@K and not Pass@K.

# ===== exercises =====
# %% [markdown]
# # 18 · R1: exercises
#
# Three exercises on lesson 18, about half an hour in all. Write your answer where a cell
# raises `NotImplementedError`, run that cell and the one after it; `check` prints one line,
# and a hint when something is not right yet. What your function prints appears below the
# hint, for the inputs that failed. Every exercise has the formulas it needs and none needs
# another one.

# %%
import re
from math import comb

import numpy as np

from deepseek_mini.lesson import check, setup

setup(seed=0)

# %% [markdown]
# ## 18.1 pass@k without bias
#
# *A few lines, 8 minutes.* Each of $P$ problems got $n$ answers; `correct` [P], an integer
# array, says how many of them were right: $c$, from 0 to $n$. Return, as one float, the mean
# over the problems of
#
# $$1 - \binom{n - c}{k} \Big/ \binom{n}{k}, \qquad \binom{a}{k} = 0 \text{ where } a < k,$$
#
# with $1 \le k \le n$: the chance that $k$ of the $n$ answers, drawn without putting back,
# are not all wrong.
#
# By hand: of 4 answers 2 are right. One of the 6 pairs is two wrong ones, so pass@2 is
# $5/6$. With 0 right it is 0, with 3 right 1. The mean of the three is 0.6111.

# %%
def pass_at_k(n: int, correct: np.ndarray, k: int) -> float:
    """The mean over problems of the chance that one of k answers is right."""
    ### BEGIN SOLUTION
    missed = [comb(n - int(c), k) / comb(n, k) for c in correct]
    return 1 - sum(missed) / len(missed)
    ### END SOLUTION

# %%
# To try it, take away the # of the next line. It should print 0.6111 0.4167
# print(*(round(pass_at_k(4, np.array([2, 0, 3]), k), 4) for k in (2, 1)))
check("18.1", pass_at_k)

# %% [markdown]
# ## 18.2 Two rules
#
# *Some thought, 15 minutes.* `text` is what a model wrote, `answer` the right answer as
# text. Return accuracy + `bonus` · format, a float, where each of the two is 0 or 1:
#
# - **accuracy** is 1 if `<answer>` and `</answer>` stand in the text once each, in this
#   order, and what is between them, without white space at its ends, equals `answer`,
#   character by character ("37.0" is not "37"). The rest of the text does not matter.
# - **format** is 1 if each of `<think>`, `</think>`, `<answer>`, `</answer>` stands in the
#   text once, in this order, and outside of the two pairs (before, between, behind) there is
#   white space or nothing. What is inside does not matter: it may be empty or have several
#   lines.
#
# By hand, for the answer "37" and a bonus of 0.25: `<answer>37</answer>` earns 1,
# `<think>?</think><answer>35</answer>` earns 0.25, both rules together pay 1.25, and
# `37` alone nothing.

# %%
def reward(text: str, answer: str, bonus: float) -> float:
    """What an answer earns by the two rules."""
    ### BEGIN SOLUTION
    tags = ("<think>", "</think>", "<answer>", "</answer>")
    once = [text.count(tag) == 1 for tag in tags]
    found = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
    accuracy = all(once[2:]) and found is not None and found[1].strip() == answer
    pattern = r"\s*<think>.*?</think>\s*<answer>.*?</answer>\s*"
    form = all(once) and re.fullmatch(pattern, text, re.DOTALL) is not None
    return float(accuracy) + bonus * float(form)
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines. It should print
# 1.25 1.0 0.25 0.0 0.0 1.0 1.0
# work = "<think>6+15=21;21+16=37</think>"
# texts = [work + "\n<answer> 37 </answer>", "<answer>37</answer>",
#          work + "<answer>35</answer>", "37",
#          work + "<answer>35</answer><answer>37</answer>",
#          work + " so <answer>37</answer>", "Sure! " + work + "<answer>37</answer>"]
# print(*(reward(text, "37", 0.25) for text in texts))
check("18.2", reward)

# %% [markdown]
# ## 18.3 The vote of the majority
#
# *A few lines, 8 minutes.* `answers` is a list of what a model answered to one problem, in
# the order given: texts, and `None` where no answer was found. Return the text that comes
# most often. `None` is no vote. Any text is one, as it stands: an empty one too, and " 37"
# is another text than "37". Of texts that come equally often return the one whose first
# place in the list is earliest, and `None` if nobody voted.
#
# By hand: of "37", None, "27", None, "27", None the vote goes to "27". Of "27", "17", "17",
# "27", "37", "37" each has two votes, and "27" was given first.

# %%
def majority(answers: list[str | None]) -> str | None:
    """The commonest answer, the first given of equals; None without any."""
    ### BEGIN SOLUTION
    votes = {}
    for answer in answers:
        if answer is not None:
            votes[answer] = votes.get(answer, 0) + 1
    return max(votes, key=votes.get, default=None)
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines. It should print 27 27 None
# lists = [["37", None, "27", None, "27", None], ["27", "17", "17", "27", "37", "37"],
#          [None]]
# print(*(majority(answers) for answers in lists))
check("18.3", majority)

# %% [markdown]
# Next: the Prover, where the rule that judges is a proof checker.
