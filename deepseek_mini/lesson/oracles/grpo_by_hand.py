"""The oracle of exercise 17.5, its cases, and what people make of the objective.

It adds up the objective token by token; the keywords of `grpo` make known mistakes.
"""

import math

import torch

from deepseek_mini.lesson.oracles import Case
from deepseek_mini.lesson.oracles.group_signal import group_advantages


def grpo_loss(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    """The oracle: minus the objective, as a tensor without axes."""
    return grpo(logps, old_logps, ref_logps, rewards, mask, clip, beta)


def kl(new, ref):
    return math.exp(ref - new) - (ref - new) - 1


def _least(ratio, a, clip):
    return min(ratio * a, min(max(ratio, 1 - clip), 1 + clip) * a)


def grpo(logps, old, ref, rewards, mask, clip, beta, *, advantages=None, gain=_least,
         kl=kl, below=None, answers=None, sign=-1, kept=None):  # fmt: skip
    a = (advantages or _advantages)(rewards)
    B, T = mask.shape
    total, kept = 0.0, mask if kept is None else kept(mask)
    for i in range(B):
        n = int(mask[i].sum())
        answer = 0.0
        for t in range(T):
            if kept[i, t]:
                new, o, r = (float(x[i, t]) for x in (logps, old, ref))
                answer += gain(math.exp(new - o), a[i], clip) - beta * kl(new, r)
        total += answer / (below(n, T, int(mask.sum())) if below else n)
    value = sign * total / (answers(rewards) if answers else B)
    return torch.tensor(value, dtype=logps.dtype)


def _advantages(rewards):
    return group_advantages(rewards.double()).ravel().tolist()


def losing(**mistake):
    return lambda *args: grpo(*args, **mistake)


def gradient(logps, old, ref, rewards, mask, clip, beta, weight):
    """The loss's gradient in closed form: -(ρA where unclipped - β(1 - x)) / (B|o|)."""
    new, old, ref = (x.double().where(mask, 0.0) for x in (logps, old, ref))
    a = torch.tensor(_advantages(rewards), dtype=torch.float64)[:, None]
    ratio = (new - old).exp()
    stopped = ((a > 0) & (ratio > 1 + clip)) | ((a < 0) & (ratio < 1 - clip))
    slope = torch.where(stopped, 0.0, ratio * a) - beta * (1 - (ref - new).exp())
    weights = mask.double() / mask.sum(1, keepdim=True) / len(mask)
    return -slope * weights * weight


# --- what people do with the advantages


def batch(rewards):
    r = rewards.double()
    return ((r - r.mean()) / r.std(correction=0)).flatten().tolist()


def sample(rewards):
    G = rewards.shape[1]
    return [a * math.sqrt((G - 1) / G) for a in _advantages(rewards)]


def rounded(rewards):
    """Equal rewards are known by a std of exactly 0, which rounding can spoil."""
    r = rewards.double()
    away = r - r.mean(dim=1, keepdim=True)
    std = away.square().mean(dim=1, keepdim=True).sqrt()
    return (away / torch.where(std == 0, 1.0, std)).flatten().tolist()


def padded_std(rewards):
    """As TRL, with 1e-4 added to the std."""
    r = rewards.double()
    std = r.std(dim=1, keepdim=True, correction=0) + 1e-4
    return ((r - r.mean(dim=1, keepdim=True)) / std).flatten().tolist()


def tiny_std(rewards):
    """With 1e-8 added to the std, in the rewards' type: seen where all are equal."""
    std = rewards.std(dim=1, keepdim=True, correction=0) + 1e-8
    away = rewards - rewards.mean(dim=1, keepdim=True)
    return (away / std).flatten().tolist()


def dealt(rewards):
    """As if an answer's neighbours belonged to other questions."""
    a = torch.tensor(_advantages(rewards)).view(rewards.shape)
    return a.T.flatten().tolist()


def plain(rewards):
    return rewards.double().flatten().tolist()


def centred(rewards):
    r = rewards.double()
    return (r - r.mean(dim=1, keepdim=True)).flatten().tolist()


# --- what people do with everything else


def kl_apart(share):
    """The KL is averaged another way: share(kl [B, T], n [B]) is one number."""

    def wrong(logps, old, ref, rewards, mask, clip, beta):
        without = grpo(logps, old, ref, rewards, mask, clip, 0.0)
        log_x = (ref - logps).double().where(mask, 0.0)
        kl = share(log_x.exp() - log_x - 1, mask.sum(1))
        return without + (beta * kl).to(logps.dtype)

    return wrong


def kl_times_advantage(logps, old, ref, rewards, mask, clip, beta):
    """The advantage stands in front of the whole brace."""
    without = grpo(logps, old, ref, rewards, mask, clip, 0.0)
    log_x = (ref - logps).double().where(mask, 0.0)
    means = (log_x.exp() - log_x - 1).sum(1) / mask.sum(1)  # [B]
    a = torch.tensor(_advantages(rewards), dtype=torch.float64)
    return without + (beta * (a * means).mean()).to(logps.dtype)


def kl_of_answers(logps, old, ref, rewards, mask, clip, beta):
    """One KL for an answer, as R1 prints it."""
    without = grpo(logps, old, ref, rewards, mask, clip, 0.0)
    log_x = (ref - logps).double().where(mask, 0.0).sum(1)
    return without + (beta * (log_x.exp() - log_x - 1).mean()).to(logps.dtype)


def by_place(logps, old, ref, rewards, mask, clip, beta):
    """The mean over the answers first, at each place, and then over the places."""
    places = [t for t in range(mask.shape[1]) if mask[:, t].any()]
    alone = [mask & (torch.arange(mask.shape[1]) == t) for t in places]
    args = (logps, old, ref, rewards)
    sums = [grpo(*args, m, clip, beta, below=lambda *_: 1) * len(m) for m in alone]
    means = [x / m.sum() for x, m in zip(sums, alone)]
    return torch.stack(means).sum() / mask.shape[1]


def masked(change):
    """Another mask, and everything that follows from it."""

    def wrong(logps, old, ref, rewards, mask, clip, beta):
        return grpo(logps, old, ref, rewards, change(mask), clip, beta)

    return wrong


def later(mask):
    rolled = mask.roll(1, 1)
    rolled[:, 0] = False
    return rolled


def without_end(mask):
    following = mask.roll(-1, 1)
    following[:, -1] = False
    return mask & following


def one_ratio(logps, old, ref, rewards, mask, clip, beta):
    """One ratio for an answer, the exponential of the sum of its tokens' logarithms."""
    drift = (logps - old).where(mask, 0.0).sum(1, keepdim=True)  # [B, 1]
    without = grpo(old + drift, old, ref, rewards, mask, clip, 0.0)
    return without + grpo(logps, logps, ref, rewards * 0, mask, clip, beta)


def mean_of_ratios(logps, old, ref, rewards, mask, clip, beta):
    drift = (logps - old).where(mask, 0.0).sum(1, keepdim=True) / mask.sum(1)[:, None]
    without = grpo(old + drift, old, ref, rewards, mask, clip, 0.0)
    return without + grpo(logps, logps, ref, rewards * 0, mask, clip, beta)


def loss_cases(rng):
    for N, G, T, clip, dtype, label in (
        (2, 3, 7, 0.2, torch.float64, "two questions"),
        (1, 5, 4, 0.3, torch.float64, "one question"),
        (4, 3, 9, 0.1, torch.float64, "a question that all answered alike"),
        (3, 2, 6, 0.2, torch.float32, "float32"),
        (2, 7, 5, 0.25, torch.float32, "float32, a question all answered alike"),
    ):
        B = N * G
        least = 2 if label == "two questions" else 1  # without its end: nothing left
        lengths = rng.permutation(_lengths(rng, B, T, least))
        mask = torch.arange(T) < torch.tensor(lengths)[:, None]
        old = -torch.from_numpy(rng.uniform(0.5, 3, size=(B, T)))
        move = 0.5 * torch.from_numpy(rng.normal(size=(B, T)))
        away = 0.7 * torch.from_numpy(rng.normal(size=(B, T)))
        rewards = torch.from_numpy(rng.normal(size=(N, G)))
        rewards = rewards + 2 * torch.arange(N)[:, None]
        if "alike" in label:
            rewards[int(rng.integers(N))] = 0.7
        logps, ref = old + move, old + away
        noise = torch.from_numpy(rng.uniform(-4, 4, size=(B, T)))
        logps, ref = (x.where(mask, x + noise) for x in (logps, ref))
        args = [x.to(dtype) for x in (logps, old, ref, rewards)]
        said = f"{label}: N {N}, G {G}, T {T}, clip {clip}"
        beta = float(rng.uniform(0.2, 0.5))
        yield Case((*args, mask, clip, beta), said, 1e-5)


def _lengths(rng, B, T, least):
    """Lengths up to T, the extremes among them."""
    lengths = rng.integers(least, T + 1, size=B)
    lengths[:2] = (T, least)
    return lengths


def flat_group_fails(got, want, args):
    """NaN, or advantages made of rounding errors, where a group has nothing to tell."""
    rewards = args[3]
    flat = rewards.amax(1) == rewards.amin(1)
    return bool(flat.any()) and not torch.as_tensor(got).isfinite().all()
