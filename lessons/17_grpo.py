# %% [markdown]
# # 17 · GRPO: learning from right and wrong
#
# A small model puts five digits in order in one of eight tries. From now on nobody shows
# it a list in order. Each try is told one word, right or wrong, and after 60 steps of
# that about half of its tries are right, on lists it has never seen. What is there to
# learn from one word?
#
# DeepSeekMath learned from scores of its own answers to 144,000 questions, and went from
# 46.8% to 51.7% on the benchmark MATH. It trained no second model that says what was to be
# expected (a **critic**): it asked each question 64 times and compared the answers with
# each other. That is **GRPO**, group relative policy optimisation; R1 was trained with it.
#
# - **You will build** a policy gradient on a bandit with three arms, by hand; then ratio,
#   clip, KL and length, until the whole objective stands in NumPy; prove it equal to the
#   package, value and gradient; and train a small model with it.
# - **You need** lessons 00 and 04, softmax, and the expectation of a random number.
# - **Time**: about 45 minutes, and an hour for the exercises.
# - **Papers**: *DeepSeekMath*, arXiv 2402.03300, §4.1; *DeepSeek-R1*, 2501.12948;
#   *DeepSeek-V3.2*, 2512.02556, §3.1.

# %%
import json
from importlib.resources import files

import numpy as np
import torch

import deepseek_mini as dm
from deepseek_mini.lesson import PALETTE, error, figure, ladder, setup, show

setup(seed=0)

# %%
log = files("deepseek_mini") / "assets/logs/17_grpo.jsonl"
head, *records = [json.loads(line) for line in log.read_text().splitlines()]
of_group = [r for r in records if r["kind"] == "group" and r["lr"] == 3e-4]
after = [r["test"][1] for r in of_group]
print(f"held-out lists of five digits in order: before {head['base'][1]:.0%},", end=" ")
print(f"after {head['steps']} steps", *(f"{x:.0%}" for x in after), "(three seeds)")
assert 0.1 < head["base"][1] < 0.15 and min(after) > 0.4

# %% [markdown]
# ## By hand: better than the group
#
# Ask one question $G$ times. The answers $o_1 \ldots o_G$ are paid **rewards** $r_1
# \ldots r_G$, here 1 for right and 0 for wrong. The **advantage** of answer $i$ says how
# much better than the group it was:
#
# $$\hat A_i = \frac{r_i - \mathrm{mean}(r)}{\mathrm{std}(r)}, \qquad \mathrm{std}(r) =
# \sqrt{\tfrac1G \textstyle\sum_i (r_i - \mathrm{mean}(r))^2}.$$
#
# Four answers, two right: rewards 1, 0, 0, 1 have the mean ½ and the std ½, so the
# advantages are +1, −1, −1, +1. One right: the mean is ¼, the std $\sqrt3/4$, and the
# right one counts $\sqrt3 = 1.73$, three times as much as each wrong one. All right: the
# std is 0, and so, by definition, are the advantages. There is nothing to learn: no answer
# was better than another.

# %%
def advantages(r):
    centred = r - r.mean(axis=-1, keepdims=True)  # [N, G]
    std = r.std(axis=-1, keepdims=True)  # [N, 1]
    flat = np.ptp(r, axis=-1, keepdims=True) == 0  # [N, 1]: all rewards equal
    return np.where(flat, 0, centred / np.where(flat, 1, std))  # [N, G]


groups = np.array([[1, 0, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1]])  # [N, G]
for r, a in zip(groups, advantages(groups)):
    print("rewards", *r, "  advantages", *(f"{x:+.2f}" for x in a))
assert advantages(groups)[0].tolist() == [1, -1, -1, 1]

# %% [markdown]
# ## Three arms, in NumPy
#
# The smallest policy: three levers, and a softmax over three numbers $\theta$ says how
# likely each is pulled, $\pi(a)$. Lever $a$ pays 1 with probability $q_a$, which the
# policy does not know. We want to climb the expected reward $J = \sum_a \pi(a)\, q_a$.
# Its gradient is an expectation over the policy's own pulls,
#
# $$\nabla J = \mathbb E_{a \sim \pi}\big[\, r\, \nabla \log \pi(a) \,\big], \qquad
# \frac{\partial \log \pi(a)}{\partial \theta_b} = [a = b] - \pi(b),$$
#
# where $\mathbb E$ is the mean and $[a = b]$ is 1 if $a = b$, else 0. So $G$ pulls give an
# estimate: **REINFORCE**. Taking the same number, a **baseline**, from every reward
# changes nothing in the mean, for $\mathbb E[\nabla \log \pi] = 0$. The group's mean is
# such a number, nearly: it contains the answer's own reward, which shrinks the estimate
# by $(G-1)/G$ and does not turn it.
#
# **Predict**: pay every lever 1 more, whatever happens. The best lever is the same. What
# happens to the two estimates, without and with the baseline?

# %%
q = np.array([0.2, 0.5, 0.8])  # [A]: how often each of A levers pays


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))  # as z
    return e / e.sum(axis=-1, keepdims=True)


def estimate(theta, more, baseline, rng, G=4):
    pi = softmax(theta)[:, None]  # [R, 1, A]: R policies at once
    arms = (rng.random((len(theta), G, 1)) > pi.cumsum(-1)).sum(-1)  # [R, G]
    r = (rng.random(arms.shape) < q[arms]) + more  # [R, G]
    if baseline:
        r = r - r.mean(axis=1, keepdims=True)  # [R, G]
    slope = np.eye(3)[arms] - pi  # [R, G, A]: the gradient of log π(arm)
    return (r[..., None] * slope).mean(axis=1)  # [R, A]


pi = softmax(np.zeros(3))  # [A]
exact = pi * (q - pi @ q)  # [A]
variance = {}
for baseline in (False, True):
    for more in (0, 1):
        rng = np.random.default_rng(0)
        each = estimate(np.zeros((100_000, 3)), more, baseline, rng)  # [R, A]
        wanted = exact * (3 / 4 if baseline else 1)
        off = np.abs(each.mean(axis=0) - wanted).max()
        variance[baseline, more] = each.var(axis=0).sum()
        print("group baseline" if baseline else "no baseline   ", f"rewards +{more}:",
              f"mean right to 0.01: {off < 0.01}, variance",
              f"{variance[baseline, more]:.2f}")  # fmt: skip
        assert off < 0.01
assert variance[False, 1] > 4 * variance[True, 1]
assert np.isclose(variance[True, 0], variance[True, 1])

# %% [markdown]
# All four are right in the mean. Without a baseline the variance grows more than fourfold
# when everybody is paid 1 more; with it nothing changes, since $r - \mathrm{mean}(r)$ is
# the same number. With rewards of 0 and 1 the group helps as well, but less.
#
# For learning it means this (500 policies of each kind, 4 pulls a step):

# %%
def learn(more, baseline, steps=100, lr=1.0):
    rng, theta = np.random.default_rng(1), np.zeros((500, 3))  # [R, A]
    best = []
    for _ in range(steps):
        theta = theta + lr * estimate(theta, more, baseline, rng)  # [R, A]
        best.append(softmax(theta)[:, 2])  # [R]
    return np.array(best)  # [steps, R]


curves = {}
for baseline, label in ((True, "group baseline"), (False, "no baseline")):
    for more in (0, 1):
        curves[f"{label}, rewards +{more}"] = learn(more, baseline)
alt = """Two panels, mean probability of the best of three levers over 100 steps, with a
band for the middle 80% of 500 policies. With the group's mean as baseline it rises to
nearly 1, whether rewards are shifted or not. Without, it does so for rewards of 0 and
1, but with 1 more it stops at about 0.8 and the band reaches from 0 to 1."""
with figure(alt, size=(9, 3)) as fig:
    for ax, more in zip(fig.subplots(1, 2, sharey=True), (0, 1)):
        for color, label in zip(PALETTE, ("group baseline", "no baseline")):
            best = curves[f"{label}, rewards +{more}"]
            ax.plot(best.mean(axis=1), color=color, label=label, ls="-")
            low, high = np.quantile(best, (0.1, 0.9), axis=1)
            ax.fill_between(np.arange(100), low, high, color=color, alpha=0.2)
        ax.set(title=f"rewards +{more}", xlabel="step", ylim=(0, 1))
        ax.set_ylabel("π(best lever)" if more == 0 else "")
    fig.axes[0].legend(loc="lower right")
lost = {name: (best[-1] < 0.1).mean() for name, best in curves.items()}
for name, share in lost.items():
    print(f"{name:27} the best lever nearly given up: {share:.0%} of the policies")
assert max(v for k, v in lost.items() if "group" in k) < 0.02
assert lost["no baseline, rewards +1"] > 0.1

# %% [markdown]
# When every pull is paid, every pull is made likelier, and a lever that happens to be
# pulled first can win for good. In 17% of these policies one did.
#
# ## A language model is a bandit with many arms
#
# An answer $o$ of up to ten characters out of 64 is one of more than $10^{18}$ levers. The
# policy does not hold a number for each: the probability of an answer is a product over
# its tokens, so its logarithm is a sum, and so is the gradient:
#
# $$\log \pi(o \mid x) = \sum_{t=1}^{|o|} \log \pi(o_t \mid x, o_{<t}),$$
#
# with the question $x$ and $|o|$ tokens, the token that ends the answer included. One
# reward for the answer therefore means one advantage for each of its tokens, blameless or
# not. Here are two groups of our base model:

# %%
from deepseek_mini.posttraining.chars import END_ID, ask, decode
from deepseek_mini.posttraining.rollout import sample_groups
from deepseek_mini.posttraining.tasks import Sort, problems, stream

TASKS = (Sort(3), Sort(5))
base = dm.load(files("deepseek_mini") / "assets/checkpoints/sort-base")


def sampled(model, drawn, G, seed):
    """G answers to each problem, and their rewards [N, G]: 1 for right, else 0."""
    prompts = [ask(problem.question) for problem in drawn]
    rollout = sample_groups(model, prompts, G, 12, END_ID, seed=seed)
    right = [
        TASKS[0].verify(drawn[i // G], decode(ids)) and ended
        for i, (ids, ended) in enumerate(zip(rollout.answers(), rollout.ended.tolist()))
    ]
    return rollout, torch.tensor(right).float().view(-1, G)

# %% tags=["nbval-ignore-output"]
drawn = [problems(task, 4, 1, "test")[1] for task in TASKS]
rollout, rewards = sampled(base, drawn, G=4, seed=8)
texts = [decode(ids) for ids in rollout.answers()]
for n, (problem, paid) in enumerate(zip(drawn, rewards.int().tolist())):
    print(f"{problem.question}:", " | ".join(texts[4 * n : 4 * n + 4]), "  paid", *paid)

# %%
print(f"{dm.count(base.config).parameters:,} parameters; 64^10 = {64**10:.1e} levers")
print("each answer is 1 to 12 tokens:", bool((rollout.lengths <= 12).all()))
assert 64**10 > 1e18 and rollout.lengths.min() > 0

# %% [markdown]
# ## Ratio and clip
#
# Answers are expensive, so one wants several updates from a batch. After the first they
# come from an older policy, $\pi_\text{old}$. The **ratio** mends the expectation:
#
# $$\rho = \frac{\pi(a)}{\pi_\text{old}(a)}, \qquad
# \mathbb E_{a \sim \pi_\text{old}}[\rho\, \hat A] = \mathbb E_{a \sim \pi}[\hat A].$$
#
# Far from 1 few samples carry all the weight. So GRPO, like PPO, pays for moving no further
# than $1 \pm \varepsilon$:
#
# $$\min\big[\rho \hat A,\ \mathrm{clip}(\rho,\, 1 - \varepsilon,\, 1 + \varepsilon)\,
# \hat A\big].$$

# %%
def clipped(ratio, A, eps=0.2):
    return np.minimum(ratio * A, np.clip(ratio, 1 - eps, 1 + eps) * A)


new, old = softmax(np.array([[1.0, 0, 2], [0, 0.5, 1]]))  # [A] each
gain = q - old @ q  # [A]: an advantage for each lever
same = np.isclose(old @ (new / old * gain), new @ gain)
print("the ratio gives the new policy's mean from the old one's pulls:", bool(same))
for A in (1, -1):
    said = (f"ratio {r} gains {clipped(r, A):+.1f};" for r in (0.5, 1.5))
    print(f"A = {A:+}:", *said)
assert same and clipped(1.5, 1) == 1.2 and clipped(1.5, -1) == -1.5

# %%
alt = """Two panels: gain against the ratio, from 0 to 2. For an advantage of +1 it
rises with the ratio up to 1.2 and is flat from there. For -1 it is flat at -0.8 up to
the ratio 0.8, and falls from there without end."""
ratio = np.linspace(0, 2, 201)
with figure(alt, size=(8, 2.8)) as fig:
    for ax, A, color in zip(fig.subplots(1, 2), (1, -1), PALETTE):
        ax.plot(ratio, ratio * A, color="grey", lw=1, ls="--", label="not clipped")
        ax.plot(ratio, clipped(ratio, A), color=color, lw=2.5, ls="-", label="GRPO")
        ax.axvline(1, color="black", lw=0.8, ls=":")
        ax.set(title=f"advantage {A:+}", xlabel="ratio π / π_old", ylabel="gain")
        ax.legend()

# %% [markdown]
# The flat parts have no gradient: a good answer that is 20% likelier has been paid
# enough. Notice what is *not* clipped: where the policy has gone the wrong way (a bad answer
# made likelier) the gradient remains, however far it went.
#
# ## A KL that is never negative
#
# Rewards can be gamed, so the policy is held near a **reference** $\pi_\text{ref}$, the
# model that training began with, by the divergence $\mathrm{KL}(\pi \| \pi_\text{ref}) =
# \mathbb E_{\pi}[-\log x]$ with $x = \pi_\text{ref} / \pi$. The sum over all answers is out
# of reach, but every sampled token gives an estimate. The obvious one is $-\log x$.
# GRPO takes
#
# $$\mathrm{KL}_t = x - \log x - 1.$$
#
# **Predict**: $\mathbb E_\pi[x] = 1$, so both have the same mean. What is the difference?

# %%
both = np.array([[1.0, 0.5, 0, -0.5, -1], [0, 0.8, 0.2, 0, -0.3]])  # [2, V]
policy, reference = softmax(both)  # [V] each
x = reference / policy  # [V]: for every token that can be drawn
kl = (policy * np.log(policy / reference)).sum()
draws = np.random.default_rng(0).choice(5, size=100_000, p=policy)  # [samples]
print(f"KL by its definition: {kl:.4f}")
for name, k in {"-log x": -np.log(x), "x - log x - 1": x - np.log(x) - 1,
                "(log x)² / 2": np.log(x) ** 2 / 2}.items():  # fmt: skip
    mean, std = policy @ k, np.sqrt(policy @ (k - policy @ k) ** 2)
    near = abs(k[draws].mean() - mean) < 4 * std / np.sqrt(len(draws))
    print(f"{name:14} mean {mean:.4f}, std {std:.3f}, lowest {k.min():+.3f};", end=" ")
    print("100,000 samples agree:", bool(near))
    assert near and np.isclose(mean, kl) == (name != "(log x)² / 2")

# %% [markdown]
# Both are unbiased; GRPO's has less than a quarter of the spread here, and no token can
# earn anything by it. Half the square is biased. (Right in the mean is not yet
# right in the gradient: see V3.2 below.)
#
# ## The objective in NumPy
#
# $N$ questions with $G$ answers each make $B = NG$ rows of at most $T$ tokens. DeepSeekMath
# maximises, with a weight $\beta$ for the KL,
#
# $$J = \frac1G \sum_{i=1}^{G} \frac{1}{|o_i|} \sum_{t=1}^{|o_i|} \Big\{ \min\big[\rho_{it}
# \hat A_i,\ \mathrm{clip}(\rho_{it}, 1 - \varepsilon, 1 + \varepsilon) \hat A_i\big] -
# \beta\, \mathrm{KL}_{it} \Big\},$$
#
# and the mean of that over the questions. $\rho_{it}$ and $\mathrm{KL}_{it}$ are those of
# token $t$ of answer $i$. A **mask** [B, T] is True for the tokens of an answer. The loss is
# $-J$.

# %%
def objective(logps, old_logps, ref_logps, A, mask, eps=0.2, beta=0.04):
    ratio = np.exp(logps - old_logps)  # [B, T]
    log_x = ref_logps - logps  # [B, T]
    kl = np.exp(log_x) - log_x - 1  # [B, T]
    terms = clipped(ratio, A, eps) - beta * kl  # [B, T]
    each = (terms * mask).sum(axis=1) / mask.sum(axis=1)  # [B]
    return each.mean()


rng = np.random.default_rng(0)
N, G, T = 3, 4, 9
lengths = rng.integers(2, T + 1, size=(N * G, 1))  # [B, 1]
mask = np.arange(T) < lengths  # [B, T]
old = -rng.uniform(0.1, 3, size=mask.shape)  # [B, T]
logps, ref = (old + 0.4 * rng.normal(size=mask.shape) for _ in range(2))  # [B, T]
r = rng.normal(size=(N, G))  # [N, G]
A = advantages(r).reshape(-1, 1)  # [B, 1]
J = objective(logps, old, ref, A, mask)
stopped = (np.abs(np.exp(logps - old) - 1) > 0.2)[mask].mean()
print(f"{mask.sum()} tokens, {stopped:.0%} with a ratio outside 0.8 ... 1.2")
assert stopped > 0.4

# %% [markdown]
# ## In PyTorch
#
# The package's functions. `Objective` holds $\varepsilon$ (`clip_low`, `clip_high`),
# $\beta$ and the options that the rest of this lesson explains; `where(mask, 0.0)` keeps
# padding out of the gradient, even if it is NaN.

# %%
from deepseek_mini.posttraining.grpo import (
    Objective,
    group_advantages,
    grpo_loss,
    improve,
    kl_estimate,
    process_advantages,
)

show(group_advantages, kl_estimate, grpo_loss, docstrings=False)

# %% [markdown]
# The ladder. The gradient of the NumPy objective comes from finite differences: move one
# log-probability by $\pm 10^{-6}$ and see what becomes of $J$. The last rung is about the
# place of a token: `logps` of a rollout (the long list's four answers) are the log-softmax
# of what the model said *one place before* it.

# %%
def differences(f, at, h=1e-6):
    grad = np.zeros_like(at)
    for i in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[i] = h
        grad[i] = (f(at + step) - f(at - step)) / (2 * h)
    return grad


PLAIN = Objective()


def in_torch(objective=PLAIN, mask=mask, A=A):
    leaf = torch.tensor(logps, requires_grad=True)  # [B, T]
    fixed = [torch.tensor(x) for x in (old, A, mask)]
    loss = grpo_loss(leaf, *fixed, objective, torch.tensor(ref))
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


grad = differences(lambda z: -objective(z, old, ref, A, mask), logps)  # [B, T]
loss, ours = in_torch()
size = np.abs(grad).max()
with torch.no_grad():
    scores = base(rollout.tokens).double().numpy()  # [B, P + T, V]
P = rollout.tokens.shape[1] - rollout.mask.shape[1]
chosen = rollout.tokens[:, P:, None].numpy()  # [B, T, 1]
said = np.log(softmax(scores))[:, P - 1 : -1]  # [B, T, V]: one place before
said = np.take_along_axis(said, chosen, axis=2)[..., 0]  # [B, T]
long = rollout.mask.numpy() & (np.arange(8) > 3)[:, None]  # its prompts have no padding
ladder("GRPO", [
    ("by hand: 1 0 0 1", advantages(groups)[0], np.array([1.0, -1, -1, 1]), 0),
    ("advantages = NumPy", group_advantages(torch.tensor(r)), A.reshape(N, G), 1e-12),
    ("KL estimate = NumPy", kl_estimate(*map(torch.tensor, (logps, ref))),
     np.exp(ref - logps) - (ref - logps) - 1, 1e-12),
    ("loss = NumPy", loss, -J, 1e-12),
    ("gradient = finite differences", ours / size, grad / size, 1e-6),
    ("log π of a rollout = NumPy", rollout.logps.numpy()[long], said[long], 1e-4),
])  # fmt: skip

# %% [markdown]
# ## Who pays for length
#
# $1/|o|$ means: every answer weighs the same, so a token of a long answer weighs less.
# Look at two wrong answers with the advantage −1, of 4 and of 40 tokens, and at three
# ways to average: DeepSeekMath's; the mean over all tokens of the batch; and the sum over
# an answer's tokens, which is the gradient of the form that V2 and R1 print, with one
# ratio for the whole answer.
#
# **Predict**: under which of them does a model that will be wrong anyway do better to
# write more?

# %%
wrong = torch.arange(40) < torch.tensor([[4], [40]])  # [B, T]
flat = torch.full((2, 40), -1.0, requires_grad=True)  # [B, T]: log π = log π_old
down = {}
for average in ("length", "tokens", "sum"):
    plain = Objective(average=average, beta=0.0)
    loss = grpo_loss(flat, flat, -torch.ones(2, 1), wrong, plain)
    (push,) = torch.autograd.grad(loss, flat)  # [B, T]: what lowers log π
    down[average] = push[:, 0].tolist(), push.sum(dim=1).tolist()
    print(f"{average:7}push on a token: {push[0, 0]:.4f} of 4, {push[1, 0]:.4f} of 40;",
          " on the answer:", *(f"{row.sum():.3f}" for row in push))  # fmt: skip
assert np.isclose(down["length"][0][0] / down["length"][0][1], 10)
assert down["tokens"][0][0] == down["tokens"][0][1]

# %% [markdown]
# Under $1/|o|$: a wrong answer of 40 tokens is pushed down a tenth as hard, token by
# token, as one of 4. Right answers gain the other way round: short ones are pulled up
# harder. A model that is mostly wrong thus drifts towards long wrong answers. *Dr. GRPO*
# (arXiv 2503.20783) found this and divides by a constant (`average="constant"`); DAPO
# takes "tokens". (R1 prints no $1/|o|$.)
#
# ## Which questions teach?
#
# With the probability $p$ that an answer is right, a group has a signal unless all $G$
# are right or all are wrong: $1 - p^G - (1 - p)^G$.
#
# **Predict**: a question that succeeds one time in ten, asked 8 times: in how many of 100
# groups is there anything to learn?

# %%
from deepseek_mini.lesson import Slider, settings_figure, slider_figure

RATES = np.linspace(0, 1, 201)  # [pass rates]


def signal(p, G):
    return 1 - p**G - (1 - p) ** G


def draw_signal(fig, p, G):
    ax = fig.subplots()
    ax.plot(RATES, signal(RATES, G), color=PALETTE[0], ls="-")
    ax.plot([p, p, 0], [0, signal(p, G), signal(p, G)], "--", color=PALETTE[1], lw=1)
    ax.plot([p], [signal(p, G)], "o", color=PALETTE[1])
    ax.set(xlabel="pass rate p", ylabel="groups with a signal", ylim=(0, 1.03))
    return f"p = {p:.2f}, G = {G}: {signal(p, G):.2f} of the groups teach something"


widget = slider_figure(
    draw_signal,
    alt="Share of groups with a signal against the pass rate, for groups of {G}.",
    size=(6, 3),
    p=Slider(0, 1, start=0.1, step=0.01, label="pass rate p"),
    G=Slider(2, 64, start=8, label="group size G"),
)
print(f"p = 0.1, G = 8: {signal(0.1, 8):.2f};  G = 64: {signal(0.1, 64):.4f};", end=" ")
print(f"p = 0.01, G = 64: {signal(0.01, 64):.2f}")
assert round(signal(0.1, 8), 2) == 0.57

# %%
settings_figure(
    draw_signal,
    {f"G = {G}": {"p": 0.1, "G": G} for G in (2, 8, 64)},
    alt="""Share of groups with a signal against the pass rate. Groups of 2: a low arch
with the top ½ at p = ½, and 0.18 at p = 0.1. Groups of 8: 0.57 at 0.1 and nearly 1 in
the middle. Groups of 64: 1 nearly everywhere.""",
    size=(9, 2.6),
)

# %% [markdown]
# In 57 of them. With DeepSeekMath's $G = 64$ it is nearly all, and a question that succeeds
# once in a hundred still teaches in about half of its groups. Questions that are
# always or never right cost as much as the others, and teach nothing.
#
# ## How people get it wrong
#
# **Advantages over the batch.** One mean and one std for all rewards; shapes agree, the
# loss falls. An easy question, seven of eight right, a hard one, one of eight, and one
# that nobody can answer:

# %%
three = np.repeat([[1.0, 0.0]], 3, axis=0)  # [N, 2]: a right and a wrong answer
counts = np.array([[7, 1], [1, 7], [0, 8]])  # [N, 2]: how many of each
paid = np.array([[1.0] * n + [0.0] * m for n, m in counts])  # [N, G]
ways = {"group": advantages(paid), "batch": (paid - paid.mean()) / paid.std()}
for name, a in ways.items():
    print(f"{name}: easy, right {a[0, 0]:+.2f} wrong {a[0, -1]:+.2f};", end=" ")
    print(f"hard, right {a[1, 0]:+.2f} wrong {a[1, -1]:+.2f};", end=" ")
    print(f"impossible {a[2, 0]:+.2f}")
share = {k: a[0, :7].sum() / np.maximum(a, 0).sum() for k, a in ways.items()}
print("of all pull upwards, on right answers to the easy one:", end=" ")
print(*(f"{name} {x:.0%}" for name, x in share.items()))
assert np.isclose(share["group"], 0.5) and share["batch"] > 0.8

# %% [markdown]
# Over the batch, the hard question drowns. The one right answer to it counts no more than
# each of seven right answers to the easy one, and eight answers to the impossible one are
# pushed down, though nobody did better.
#
# **The KL with the wrong sign**, and **a mask off by one**: the token that ends the answer
# is left out, and so nobody ever learns to stop. Both give a loss that an optimiser can
# lower. A policy over eight tokens that are all paid alike, 200 steps at $\beta = 1$:

# %%
def drift(sign):
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(8, generator=generator).log_softmax(0)  # [V]
    theta = (0.3 * torch.arange(8.0)).requires_grad_()
    distances = []
    for _ in range(200):
        new = theta.log_softmax(0)
        kl = (new.exp() * (new - reference)).sum()
        distances.append(kl.item())
        (slope,) = torch.autograd.grad(sign * kl, theta)
        theta = (theta - 0.2 * slope).detach().requires_grad_()
    return distances


for name, sign in (("+ β KL in the loss", 1), ("- β KL in the loss", -1)):
    first, *_, last = drift(sign)
    print(f"{name}: the KL falls: {last < first / 2}, it grows: {last > 2 * first}")
    assert (last < first / 2) == (sign == 1) and (last > 2 * first) == (sign == -1)
beyond = mask & np.roll(mask, -1, axis=1)
beyond[:, -1] = False
upwards = differences(lambda z: -objective(z, old, ref, A, mask, beta=-0.04), logps)
bugs = {
    "the loss": in_torch(),
    "KL with the wrong sign": (None, upwards),
    "advantages over the batch": in_torch(A=((r - r.mean()) / r.std()).reshape(-1, 1)),
    "mask without the end": in_torch(mask=beyond),
    "mask one to the right": in_torch(mask=np.roll(mask, 1, axis=1)),
    "1/|o| of all tokens": in_torch(Objective(average="tokens")),
}
for name, (_, g) in bugs.items():
    caught = error(g / size, grad / size) > 0.01
    print(f"{name:26} caught by the ladder: {caught}")
    assert caught == (name != "the loss")

# %% [markdown]
# ## One verdict, or one for each step
#
# So far every token of an answer is judged alike: **outcome supervision**. If somebody
# judges each step, **process supervision** (§4.1.3) normalises all the step rewards of a
# group together, and a token's advantage is the sum of those still to come. By hand: two
# answers of five and three tokens. The first has steps that end at tokens 1 and 3 and are
# paid 1 and 0; the second has one step, ending at token 2 and paid 1. The three rewards
# have the mean ⅔ and the std √2/3: they become $+0.71$, $-1.41$ and $+0.71$. The first
# token of the first answer gets $0.71 - 1.41 = -0.71$: good so far, but look what it leads
# to.

# %%
paid = torch.tensor([[[0.0, 1, 0, 0, 0], [0, 0, 1, 0, 0]]])  # [N, G, T]
ends = torch.tensor([[[0, 1, 0, 1, 0], [0, 0, 1, 0, 0]]]).bool()  # [N, G, T]
steps = process_advantages(paid, ends)
for answer in steps[0]:
    print(*(f"{a:+.2f}" for a in answer))
want = torch.tensor([-1, -1, -2, -2, 0.0]) / 2**0.5  # [T]
assert error(steps[0, 0], want) < 1e-6

# %% [markdown]
# DeepSeekMath found process supervision a little better, with a trained judge of steps.
# R1 gave it up: steps are hard to define and to judge, and a trained judge gets gamed.
#
# ## The loop
#
# Algorithm 1 of DeepSeekMath: sample groups, judge them, update $\mu$ times on the same
# answers, and now and then make the policy the new reference (**iterative** GRPO; R1-Zero
# does so every 400 steps). With $\mu = 1$ and no minibatches the ratio is always 1 and
# the clip never acts: DeepSeekMath trained so.

# %%
def trained(kind, steps, seed=0, updates=1, lr=3e-4):
    """A copy of the base after `steps`; the report of its last one."""
    model = dm.load(files("deepseek_mini") / "assets/checkpoints/sort-base")
    adam = torch.optim.AdamW(model.parameters(), lr, (0.9, 0.95), weight_decay=0.0)
    questions = [stream(task, 1000 + seed) for task in TASKS]
    for step in range(steps):
        for options in adam.param_groups:
            options["lr"] = lr * min(1, (step + 1) / 5)
        drawn = [next(questions[i % 2]) for i in range(16)]
        rollout, r = sampled(model, drawn, G=8, seed=1_000_003 * seed + step)
        r = r + 1 if "+1" in kind else r  # [N, G]
        A = group_advantages(r, "none" if "none" in kind else "std")  # [N, G]
        A = A.flatten()[:, None]  # [B, 1]
        without_kl = Objective(beta=0.0)
        report = improve(model, adam, rollout, A, without_kl, updates=updates)
    return model, report


for updates in (1, 4):
    report = trained("group", steps=4, updates=updates)[1]
    moved = report["ratio_max"] > 1.01
    print(f"μ = {updates}: a ratio has left 1 by more than 0.01: {moved}")
    assert moved == (updates > 1)

# %% [markdown]
# ## Does it matter?
#
# `experiments/17_grpo.py` trained the base from the beginning of this lesson in five ways,
# three seeds each: 60 steps, 16 questions (half of three digits, half of five), 8 answers
# to each, 1 for right and 0 for wrong. Three of the ways also ran at a larger learning rate.
#
# - **group**: GRPO's advantages; **batch**: mean and std of the whole batch;
# - **none**: the rewards themselves, REINFORCE without a baseline;
# - **group +1**, **none +1**: every answer is paid 1 more. R1-Zero's format reward is like
#   this once every answer keeps the format.
#
# **Predict** the order of the five.

# %%
KINDS = ("group", "batch", "none", "group +1", "none +1")
print(f"{head['hardware']}, torch {head['torch']}, {head['date']};", end=" ")
minutes = (sum(r["train_seconds"] for r in records) + head["base_seconds"]) / 60
print(f"{minutes:.0f} minutes of processor time")
long, short = {}, {}
for run in sorted(records, key=lambda r: r["seed"]):
    for i, scores in enumerate((short, long)):
        scores.setdefault((run["kind"], run["lr"]), []).append(run["test"][i])
short, long = ({k: np.array(v) for k, v in x.items()} for x in (short, long))
print("held-out                 3 digits                  5 digits")
space = " " * 19
print(f"base {space[:15]}{head['base'][0]:6.2f}{space} {head['base'][1]:6.2f}")
for kind, lr in sorted(long, key=lambda k: (k[1], KINDS.index(k[0]))):
    print(f"{kind:9} lr {lr:.0e}", *(f"{x:6.2f}" for x in short[kind, lr]), "     ",
          *(f"{x:6.2f}" for x in long[kind, lr]))  # fmt: skip
assert len(long) == 8 and all(len(x) == 3 for x in long.values())

# %%
alt = """Two panels over 60 steps at the smaller rate, mean of three seeds: share of
right answers among the samples of training, for lists of three and of five digits. All
kinds rise. For five digits no baseline with rewards 0 and 1 ends highest, group and
batch close together below it, and no baseline with every reward raised by 1 lowest."""
with figure(alt, size=(9.5, 3.2)) as fig:
    for i, ax in enumerate(fig.subplots(1, 2)):
        for kind in (k for k in KINDS if k != "group +1"):
            of_kind = [r for r in records if (r["kind"], r["lr"]) == (kind, 3e-4)]
            curve = np.mean([r["train"] for r in of_kind], axis=0)[:, i]  # [windows]
            ax.plot((np.arange(len(curve)) + 0.5) * head["window"], curve, label=kind)
        ax.set(title=f"{(3, 5)[i]} digits", xlabel="step", ylabel="right", ylim=(0, 1))
        ax.axhline(head["base"][i], color="black", lw=0.8, ls=":")
    ax.legend(loc="upper left")

# %%
same = (long["group", 3e-4] == long["group +1", 3e-4]).all()
print("+1 changes nothing for the group, to the last answer:", bool(same))
apart = np.abs(long["group", 3e-4] - long["batch", 3e-4]).max()
print("group and batch within 0.1 of each other:", bool(apart < 0.1))
for lr in (3e-4, 1e-3):
    worse = (long["none +1", lr] < long["group", lr] - 0.05).all()
    print(f"lr {lr:.0e}: +1 without a baseline below the group in every seed:", worse)
    more = (long["none", lr] > long["group", lr]).sum()
    print(f"         0 and 1 without a baseline above it in {more} of 3")
    assert worse
lost = long["none +1", 1e-3].max() < 0.01
print("+1 without a baseline at 1e-3 sorts no five digits:", bool(lost))
assert same and apart < 0.1 and lost
won = [(long["none", lr] > long["group", lr]).sum() for lr in (3e-4, 1e-3)]
assert won == [3, 2]

# %% [markdown]
# Three findings, one of them unwelcome.
#
# A baseline makes learning independent of what zero means: with 1 more for everybody the
# group learns exactly the same. Without a baseline much of the gain is gone, and at three
# times the learning rate the model forgets long lists altogether.
#
# With rewards of 0 and 1, REINFORCE *without* a baseline beats the group in all three seeds
# at the smaller rate, and in two of them at the larger. It imitates right answers and
# ignores wrong ones, and our base, which has seen the right order mixed with slips, may
# need no more. That is no law: 0.05 million parameters are no language model.
#
# And the batch's advantages, caught above as another gradient, cost nothing that three
# seeds could show. With two kinds of questions, neither impossible, none drowned.
#
# A shorter version, live: does it point the same way?

# %%
again = {}
for kind in ("group", "none +1"):
    model, _ = trained(kind, steps=25, lr=1e-3)
    with torch.no_grad():
        rewards = sampled(model, problems(TASKS[1], 80, 0, "test"), 4, seed=0)[1]
    again[kind] = rewards.mean().item()
print("25 steps at 1e-3, five digits: group above the base:", end=" ")
print(again["group"] > head["base"][1] + 0.05, end="; ")
print("and above no baseline, +1:", again["group"] > again["none +1"])
assert again["group"] > max(again["none +1"], head["base"][1] + 0.05)

# %% [markdown]
# ## What V3.2 corrected
#
# **The KL's gradient.** Differentiate $x - \log x - 1$ on samples of $\pi$, and what comes
# out in the mean is not the gradient of $\mathrm{KL}(\pi \| \pi_\text{ref})$, but that of
# the other KL: the samples depend on $\theta$ as well. Weighing each term by $\rho$, which
# is 1 and still has a gradient, brings that dependence back:

# %%
jacobian = np.eye(5) - policy  # [V, V]: row a is the gradient of log π(a)
true = (policy * -np.log(x)) @ jacobian  # [V]: of KL(π ‖ π_ref), by the definition
plain = (policy * (1 - x)) @ jacobian  # [V]: of x - log x - 1
weighed = (policy * (1 - x + (x - np.log(x) - 1))) @ jacobian  # [V]: of ρ (...)
other = policy - reference  # [V]: of KL(π_ref ‖ π), the other way round
print("gradient of the estimate = that of KL(π ‖ π_ref):", np.allclose(plain, true))
print("                         = that of KL(π_ref ‖ π):", np.allclose(plain, other))
print("weighed by the ratio     = that of KL(π ‖ π_ref):", np.allclose(weighed, true))
assert np.allclose(weighed, true) and not np.allclose(plain, true)
assert np.allclose(plain, other)

# %% [markdown]
# Where $\pi$ has fallen far below $\pi_\text{ref}$, $x$ is huge, and so is the plain
# gradient of that token: noise that V3.2 reports to unsettle training. (`unbiased_kl`)
#
# **Off-policy masking.** After several updates, or when the sampling engine rounds
# differently, answers may stem from a policy that is far away. V3.2 drops answers with
# $\hat A_i < 0$ whose mean $\log (\pi_\text{old} / \pi)$ over the tokens exceeds a
# threshold $\delta$: one need not unlearn what one would hardly say. Right answers stay.
# (`off_policy`; the clip is opened wide below, so that the mask acts alone.)

# %%
far = torch.tensor([[-0.1, -0.2], [-2.0, -3.0], [-2.0, -3.0]])  # [B, T]: new - old
leaf = torch.zeros(3, 2).add(far).requires_grad_()  # [B, T]
A3 = torch.tensor([[-1.0], [-1.0], [1.0]])  # [B, 1]
open_clip = {"clip_low": 0.9999, "clip_high": 9.0, "beta": 0.0, "off_policy": 1.0}
loss = grpo_loss(leaf, torch.zeros(3, 2), A3, far < 0, Objective(**open_clip))
(push,) = torch.autograd.grad(loss, leaf)  # [B, T]
print("near and wrong, far and wrong, far and right: learned from",
      *(bool(row.any()) for row in push))  # fmt: skip
assert [bool(row.any()) for row in push] == [True, False, True]

# %% [markdown]
# V3.2 also lets the new policy choose only among the tokens that top-p had left to the old
# one (else $\rho$ compares unlike things), keeps each token's experts as they were when it
# was sampled, and leaves out the std, as Dr. GRPO does: dividing by it weighs questions by
# how rarely they succeed.
#
# ## At full size
#
# | | DeepSeekMath 7B | R1-Zero |
# |---|---|---|
# | reward | a trained model | rules: accuracy, format |
# | G, answers a step | 64, 1,024 | 16, 512 |
# | longest answer | 1,024 tokens | 32,768, later 65,536 |
# | learning rate, β | 1e-6, 0.04 | 3e-6, 0.001 |
# | epochs over the answers (μ) | 1, in one piece | 1, in 16 minibatches |

# %%
critic = dm.count(dm.Config.preset("deepseek-math-7b")).parameters
print(f"a critic of the policy's size: {critic / 1e9:.1f} B parameters more,", end=" ")
print(f"{critic * 16 / 1e9:.0f} GB to train them (16 bytes each with Adam)")
print(f"questions a step: DeepSeekMath {1024 // 64}, R1-Zero {512 // 16}")
print(f"R1-Zero, 10,400 steps: {10_400 * 512 / 1e6:.1f} million answers")
assert critic > 6.9e9

# %% [markdown]
# That is what the group saves. It pays with samples.
#
# ## What this proves, and what it does not
#
# - Proved: NumPy's objective and its finite differences equal the package's loss and
#   gradient; its tests say the same of TRL's trainer. The KL estimate is unbiased, its
#   plain gradient is not the KL's, and the weighed one is.
# - Shown: a group of equal rewards is silent; a baseline makes rewards' zero irrelevant;
#   $1/|o|$ pushes long wrong answers less.
# - Measured: 0.05 million parameters, sorting, three seeds. RL more than triples the
#   accuracy on held-out lists of five; with rewards of 0 and 1 the group's baseline was
#   not needed.
# - Not shown: reasoning. This base knew how to sort and did so rarely. Whether RL teaches
#   more than that is lesson 18's question, on a model that was pretrained.
#
# ## Exercises
#
# The [exercises](../exercises/17_grpo.ipynb), about an hour: the advantages, a KL that is
# never negative, ratio and clip, what a token weighs, and the whole loss from the paper.
# (After `make lab`, take your own copy in `work/`.)
#
# ## References
#
# - Z. Shao and others, *DeepSeekMath*, arXiv 2402.03300: §4.1 GRPO, Algorithm 1; §4.2 the
#   values.
# - *DeepSeek-R1*, arXiv 2501.12948: §2.2, equation 1. *DeepSeek-V2*, 2405.04434, §4.2.
#   *DeepSeek-V3.2*, 2512.02556, §3.1.
# - J. Schulman and others, *Proximal Policy Optimization*, 1707.06347: the clip.
#   R. Williams, 1992: REINFORCE. J. Schulman, *Approximating KL divergence*, 2020.
# - Z. Liu and others (Dr. GRPO), 2503.20783; Q. Yu and others (DAPO), 2503.14476.

# ===== exercises =====
# %% [markdown]
# # 17 · GRPO: exercises
#
# Five exercises on lesson 17, about an hour in all. Write your answer where a cell raises
# `NotImplementedError`, run that cell and the one after it; `check` prints one line, and a
# hint when something is not right yet. What your function prints appears below the hint,
# for the inputs that failed. Every exercise has the formulas it needs and none needs
# another one: leave out what you like.
#
# `N` counts questions, `G` answers to each, `B` answers in all, `T` tokens of the longest.
# 17.1, 17.2 and 17.4 are in NumPy, 17.3 and 17.5 in PyTorch. Results may be float32 or
# float64.

# %%
import numpy as np
import torch

from deepseek_mini.lesson import check, setup

setup(seed=0)

# %% [markdown]
# ## 17.1 Better than the group
#
# *One line, 5 minutes.* `rewards` [N, G] holds a row for each question. Return the
# advantages [N, G]:
#
# $$\hat A_{ni} = \frac{r_{ni} - \mathrm{mean}(r_n)}{\mathrm{std}(r_n)}, \qquad
# \mathrm{std}(r_n) = \sqrt{\tfrac1G \textstyle\sum_i (r_{ni} - \mathrm{mean}(r_n))^2},$$
#
# with mean and std over the $G$ rewards of question $n$. Where all rewards of a question
# are equal its advantages are 0, even if the computed mean is a rounding error away from
# them. Add nothing to the std. (An error of 1e-5 is allowed.)
#
# By hand: rewards 1, 0, 0, 0, 1 have the mean 0.4 and the std $\sqrt{0.24} = 0.4899$: the
# advantages are 1.2247 and −0.8165. Rewards of 5, 7, 6, 6, 6 have the mean 6 and the std
# $\sqrt{0.4}$: −1.5811, 1.5811 and 0.

# %%
def group_advantages(rewards: np.ndarray) -> np.ndarray:
    """Advantages [N, G] of rewards [N, G], each within its question."""
    ### BEGIN SOLUTION
    centred = rewards - rewards.mean(axis=1, keepdims=True)  # [N, G]
    flat = np.ptp(rewards, axis=1, keepdims=True) == 0  # [N, 1]: no spread
    std = np.where(flat, 1.0, rewards.std(axis=1, keepdims=True))  # [N, 1]
    return np.where(flat, 0.0, centred / std)  # [N, G]
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines. It should print
# [1.2247, -0.8165, -0.8165, -0.8165, 1.2247]
# [-1.5811, 1.5811, 0.0, 0.0, 0.0] and five zeros
# rewards = np.array([[1, 0, 0, 0, 1], [5, 7, 6, 6, 6], [0.11] * 5])  # [N, G]
# for row in group_advantages(rewards).tolist():
#     print([round(x, 4) + 0.0 for x in row])
check("17.1", group_advantages)

# %% [markdown]
# ## 17.2 A KL that is never negative
#
# *A few lines, 7 minutes.* `logps` and `ref_logps` [B, T] are $\log \pi$ and $\log
# \pi_\text{ref}$ of sampled tokens. Return for each token, [B, T],
#
# $$x - \log x - 1 \qquad \text{with } x = \frac{\pi_\text{ref}}{\pi}.$$
#
# By hand: a token that the policy gives ½ and the reference ¼ has $x = \frac12$ and the
# estimate $\frac12 + \log 2 - 1 = 0.1931$. With ¼ and ½, $x = 2$: $2 - \log 2 - 1 =
# 0.3069$. With ½ and ½ it is 0.

# %%
def kl_estimate(logps: np.ndarray, ref_logps: np.ndarray) -> np.ndarray:
    """The estimate [B, T] of KL(π ‖ π_ref) that every token gives."""
    ### BEGIN SOLUTION
    log_x = ref_logps - logps  # [B, T]
    return np.exp(log_x) - log_x - 1  # [B, T]
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines. It should print [[0.1931, 0.3069, 0.0]]
# logps, ref_logps = np.log([[0.5, 0.25, 0.5]]), np.log([[0.25, 0.5, 0.5]])  # [B, T]
# kl = kl_estimate(logps, ref_logps).tolist()
# print([[round(x, 4) + 0.0 for x in row] for row in kl])
check("17.2", kl_estimate)

# %% [markdown]
# ## 17.3 Ratio and clip
#
# *A few lines, 12 minutes.* In PyTorch. `logps` and `old_logps` [B, T] are $\log \pi$ and
# $\log \pi_\text{old}$ of sampled tokens, `advantages` [B, 1] has one $\hat A$ for each
# answer, never 0, and `clip` is $\varepsilon$. Return the gain of each token, [B, T],
#
# $$\min\big[\rho \hat A,\ \mathrm{clip}(\rho,\, 1 - \varepsilon,\, 1 + \varepsilon)\,
# \hat A\big] \qquad \text{with } \rho = \frac{\pi}{\pi_\text{old}}.$$
#
# The gradient must reach `logps`. `old_logps` may ask for one and must get none.
#
# By hand, $\varepsilon = 0.2$: ratios 0.5, 1, 1.5 gain 0.5, 1, 1.2 when $\hat A = 1$, with
# the gradients 0.5, 1, 0 by `logps`. When $\hat A = -2$ they gain −1.6, −2, −3, with the
# gradients 0, −2, −3.

# %%
def clipped_gain(
    logps: torch.Tensor, old_logps: torch.Tensor, advantages: torch.Tensor, clip: float
) -> torch.Tensor:
    """What every token gains, [B, T]."""
    ### BEGIN SOLUTION
    ratio = torch.exp(logps - old_logps.detach())  # [B, T]
    bounded = ratio.clamp(1 - clip, 1 + clip)  # [B, T]
    return torch.minimum(ratio * advantages, bounded * advantages)  # [B, T]
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines. It should print
# [[0.5, 1.0, 1.2], [-1.6, -2.0, -3.0]] and [[0.5, 1.0, 0.0], [0.0, -2.0, -3.0]]
# old = torch.tensor([[-1.0, -2.0, -3.0]]).repeat(2, 1)  # [B, T]
# new = (old + torch.tensor([0.5, 1.0, 1.5]).log()).requires_grad_()  # [B, T]
# gain = clipped_gain(new, old, torch.tensor([[1.0], [-2.0]]), 0.2)  # [B, T]
# gain.sum().backward()
# for x in (gain.detach(), new.grad):
#     print([[round(n, 4) + 0.0 for n in row] for row in x.tolist()])
check("17.3", clipped_gain)

# %% [markdown]
# ## 17.4 What a token weighs
#
# *Some thought, 13 minutes.* In NumPy. `answers` [B, T] holds token ids. An answer goes up
# to its first `end_id`, *which belongs to it*; what follows is noise, and may hold `end_id`
# again. An answer without `end_id` ran out of room, and all its $T$ tokens count.
#
# Return what each token's gain is multiplied by before all are added up, [B, T], 0 for
# noise. With $|o_i|$ tokens in answer $i$, `average` is
#
# - `"length"`: $1 / (B\, |o_i|)$, the mean of an answer's tokens, then of the answers;
# - `"tokens"`: $1 / \sum_j |o_j|$, the mean over all tokens of the batch;
# - `"sum"`: $1 / B$, the sum over an answer's tokens, then the mean over answers.
#
# By hand: the answers 7 0 5 0 and 7 5 8 9, with `end_id` 0, have 2 and 4 tokens. "length"
# gives ¼, ¼, 0, 0 and four times ⅛; "tokens" gives ⅙ six times; "sum" ½ six times.

# %%
def token_weights(answers: np.ndarray, end_id: int, average: str) -> np.ndarray:
    """The weight [B, T] of every token; average is "length", "tokens" or "sum"."""
    ### BEGIN SOLUTION
    ends = answers == end_id  # [B, T]
    mask = (np.cumsum(ends, axis=1) - ends == 0).astype(float)  # [B, T]: none before
    if average == "length":
        return mask / mask.sum(axis=1, keepdims=True) / len(mask)  # [B, T]
    if average == "tokens":
        return mask / mask.sum()  # [B, T]
    return mask / len(mask)  # [B, T]
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines. It should print
# [[0.25, 0.25, 0.0, 0.0], [0.125, 0.125, 0.125, 0.125]]
# [[0.1667, 0.1667, 0.0, 0.0], [0.1667, 0.1667, 0.1667, 0.1667]]
# [[0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5]]
# answers = np.array([[7, 0, 5, 0], [7, 5, 8, 9]])  # [B, T]
# for average in ("length", "tokens", "sum"):
#     weights = token_weights(answers, 0, average).tolist()
#     print([[round(x, 4) for x in row] for row in weights])
check("17.4", token_weights)

# %% [markdown]
# ## 17.5 The objective from the paper
#
# *Build it from the paper, 25 minutes.* In PyTorch. `rewards` [N, G] holds a row for each
# question. The $B = N G$ answers lie in the same order: answers 0 to $G - 1$ belong to the
# first question. `logps`, `old_logps` and `ref_logps` [B, T] are $\log \pi$, $\log
# \pi_\text{old}$ and $\log \pi_\text{ref}$ of their tokens, and `mask` [B, T] is True where
# there is a token: $|o_i|$ times in row $i$, at least once. Elsewhere there are numbers
# without meaning, all of them finite. Return the loss, a tensor without axes:
#
# $$-\frac{1}{B} \sum_{i=1}^{B} \frac{1}{|o_i|} \sum_{t=1}^{|o_i|} \Big\{ \min\big[\rho_{it}
# \hat A_i,\ \mathrm{clip}(\rho_{it}, 1 - \varepsilon, 1 + \varepsilon) \hat A_i\big] -
# \beta \big(x_{it} - \log x_{it} - 1\big) \Big\}$$
#
# with $\rho_{it} = \pi / \pi_\text{old}$ and $x_{it} = \pi_\text{ref} / \pi$ of token $t$
# of answer $i$, $\varepsilon$ = `clip` and $\beta$ = `beta`. $\hat A_i = (r_i -
# \mathrm{mean}) / \mathrm{std}$ over the $G$ rewards of its question, with the std of 17.1
# ($\frac1G$ under the root, nothing added), and 0 where these are all equal, even if a
# mean is rounded. The gradient must reach `logps`; `old_logps` and `ref_logps` may ask for
# one and must get none.
#
# By hand: two questions with two answers each, rewards 1, 0 and 3, 3, so the advantages are
# 1, −1, 0, 0. $\varepsilon = 0.2$ and $\beta = 0.5$. Every old log-probability is −1. The
# first answer has the tokens with the ratios 1.5 and 0.5, which gain 1.2 and 0.5; the
# second one token, ratio 1.5, which gains −1.5; the other two one token each, which gain
# nothing. Where the reference equals the policy, the loss is $-(0.85 - 1.5) / 4 = 0.1625$.
# Where it is twice the policy's everywhere, each token costs $0.5\, (2 - \log 2 - 1)$ more:
# 0.3159.

# %%
def grpo_loss(
    logps: torch.Tensor,
    old_logps: torch.Tensor,
    ref_logps: torch.Tensor,
    rewards: torch.Tensor,
    mask: torch.Tensor,
    clip: float,
    beta: float,
) -> torch.Tensor:
    """Minus GRPO's objective, a tensor without axes."""
    ### BEGIN SOLUTION
    centred = rewards - rewards.mean(dim=1, keepdim=True)  # [N, G]
    flat = (rewards == rewards[:, :1]).all(dim=1, keepdim=True)  # [N, 1]
    std = rewards.std(dim=1, keepdim=True, correction=0)  # [N, 1]
    scaled = centred / torch.where(flat, 1.0, std)  # [N, G]
    advantages = torch.where(flat, 0.0, scaled).reshape(-1, 1)  # [B, 1]
    ratio = torch.exp(logps - old_logps.detach())  # [B, T]
    bounded = ratio.clamp(1 - clip, 1 + clip)  # [B, T]
    gain = torch.minimum(ratio * advantages, bounded * advantages)  # [B, T]
    log_x = ref_logps.detach() - logps  # [B, T]
    kl = log_x.exp() - log_x - 1  # [B, T]
    terms = torch.where(mask, gain - beta * kl, 0.0)  # [B, T]
    return -(terms.sum(dim=1) / mask.sum(dim=1)).mean()
    ### END SOLUTION

# %%
# To try it, take away the # of the next lines. It should print 0.1625 and 0.3159
# mask = torch.tensor([[1, 1], [1, 0], [1, 0], [1, 0]]).bool()  # [B, T]
# ratios = torch.tensor([[1.5, 0.5], [1.5, 9.0], [0.7, 9.0], [1.1, 9.0]])  # [B, T]
# rewards = torch.tensor([[1.0, 0.0], [3.0, 3.0]])  # [N, G]
# old = torch.full((4, 2), -1.0)  # [B, T]
# new = old + ratios.log()  # [B, T]
# for x in (1.0, 2.0):
#     ref = new + torch.tensor(x).log()  # [B, T]
#     print(round(float(grpo_loss(new, old, ref, rewards, mask, 0.2, 0.5)), 4))
check("17.5", grpo_loss)

# %% [markdown]
# Next: R1, where nothing but rules judges a model that was pretrained.
