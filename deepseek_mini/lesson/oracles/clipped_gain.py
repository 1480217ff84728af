"""Exercise 17.3, ratio and clip: the oracle says token by token which side counts."""

import math

import torch

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake
from deepseek_mini.lesson.oracles.returned import NUMBER
from deepseek_mini.lesson.oracles.through_logps import judge_with_gradient


def clipped_gain(logps, old_logps, advantages, clip):
    """The oracle: ρA, unless ρ has already gone too far the way that A points."""
    rows = []
    for new, old, (a,) in zip(
        logps.tolist(), old_logps.tolist(), advantages.tolist(), strict=True
    ):
        rows.append([_counted(math.exp(n - o), a, clip) * a for n, o in zip(new, old)])
    return torch.tensor(rows, dtype=logps.dtype)


def _counted(ratio, advantage, clip):
    return min(ratio, 1 + clip) if advantage > 0 else max(ratio, 1 - clip)


def clipped_gradient(logps, old_logps, advantages, clip, weights):
    """ρA where the clip has not stopped it, else 0; times the weights."""
    ratio = (logps.double() - old_logps.double()).exp()
    a = advantages.double().expand(ratio.shape)
    stopped = ((a > 0) & (ratio > 1 + clip)) | ((a < 0) & (ratio < 1 - clip))
    return torch.where(stopped, 0.0, ratio * a) * weights


def _gaining(gain):
    """A wrong version as a function of (ρ, A, clip)."""

    def wrong(logps, old_logps, advantages, clip):
        return gain((logps - old_logps).exp(), advantages, clip)

    return wrong


def _one_ratio(logps, old_logps, advantages, clip):
    ratio = (logps - old_logps).sum(dim=1, keepdim=True).exp()
    bounded = ratio.clamp(1 - clip, 1 + clip)
    return torch.min(ratio * advantages, bounded * advantages).expand(logps.shape)


def _upside_down(logps, old_logps, advantages, clip):
    return clipped_gain(old_logps, logps, advantages, clip)


def clip_cases(rng):
    for B, T, clip, dtype, label in (
        (4, 7, 0.2, torch.float64, "float64"),
        (1, 5, 0.3, torch.float64, "one answer"),
        (3, 1, 0.1, torch.float64, "answers of one token"),
        (5, 6, 0.2, torch.float32, "float32"),
        (2, 9, 0.25, torch.float64, "a wide spread of ratios"),
    ):
        old = -torch.from_numpy(rng.uniform(0.5, 3, size=(B, T)))
        move = torch.from_numpy(rng.normal(size=(B, T))) * (0.9 if B == 2 else 0.4)
        # Of every kind some: far up and far down, with either sign of the advantage.
        far = torch.tensor([0.5, -0.6, 0.02, 0.9, -0.9])
        flat = move.view(-1)
        flat[: len(far)] += far[: len(flat)]
        signs = 1 - 2.0 * (torch.arange(B) % 2)
        a = torch.from_numpy(rng.uniform(0.4, 1.6, size=B)) * signs
        args = ((old + move).to(dtype), old.to(dtype), a.to(dtype)[:, None], clip)
        yield Case(args, f"{label}: logps [{B}, {T}], clip {clip}", 1e-5)


def judge_clip(theirs, rng):
    constants = {1: "old_logps"}
    judge_with_gradient(CLIP, theirs, rng, clipped_gradient, constants)


CLIP = Exercise(
    id="17.3",
    title="Ratio and clip",
    signature="clipped_gain(logps, old_logps, advantages, clip)",
    difficulty="a few lines",
    minutes=12,
    right=clipped_gain,
    cases=clip_cases,
    judge=judge_clip,
    mistakes=(
        Mistake(
            "the larger of the two was taken: this pays for going too far",
            gives=_gaining(lambda r, a, c: torch.max(r * a, r.clamp(1 - c, 1 + c) * a)),
        ),
        Mistake(
            "the clipped ratio always counts: where π has gone the wrong way, there is "
            "then no gradient that brings it back",
            gives=_gaining(lambda r, a, c: r.clamp(1 - c, 1 + c) * a),
        ),
        Mistake("nothing is clipped", gives=_gaining(lambda r, a, c: r * a)),
        Mistake(
            "the ratio is only held below 1 + clip: that is the side of the good "
            "answers; for a negative advantage it is the other side that counts",
            gives=_gaining(lambda r, a, c: r.clamp(max=1 + c) * a),
        ),
        Mistake(
            "the smaller ratio was chosen before it met the advantage: with a negative "
            "advantage the smaller product has the larger ratio",
            gives=_gaining(lambda r, a, c: torch.min(r, r.clamp(1 - c, 1 + c)) * a),
        ),
        Mistake(
            "the ratio is only held above 1 - clip: that is the side of the bad "
            "answers; for a positive advantage it is the other side that counts",
            gives=_gaining(lambda r, a, c: r.clamp(min=1 - c) * a),
        ),
        Mistake(
            "the product with the advantage was clipped: it is the ratio that is held "
            "between the bounds",
            gives=_gaining(
                lambda r, a, c: torch.min(r * a, (r * a).clamp(1 - c, 1 + c))
            ),
        ),
        Mistake(
            "the ratio is upside down: the new policy stands above the line",
            gives=_upside_down,
        ),
        Mistake(
            "the ratio here is a difference of logarithms: it is the exponential of "
            "that",
            gives=lambda n, o, a, c: torch.min(
                (n - o) * a, (n - o).clamp(1 - c, 1 + c) * a
            ),
        ),
        Mistake(
            "this is a quotient of logarithms: the ratio is one of probabilities",
            gives=lambda n, o, a, c: torch.min(
                n / o * a, (n / o).clamp(1 - c, 1 + c) * a
            ),
        ),
        Mistake(
            "there is one ratio for the whole answer: here each token has its own",
            gives=_one_ratio,
        ),
        Mistake(
            "the bounds are -clip and clip: a ratio that has not moved is 1",
            gives=_gaining(lambda r, a, c: torch.min(r * a, r.clamp(-c, c) * a)),
        ),
        Mistake(
            "the old log-probabilities play no part, so every ratio is 1: the policy "
            "has moved since they were measured",
            gives=_gaining(lambda r, a, c: a.expand(r.shape)),
        ),
        Mistake(
            "the sign is reversed: return the gain itself, not minus it",
            gives=lambda *args: -clipped_gain(*args),
        ),
        NUMBER,
        Mistake(
            "one number is too few: return the gain of every token",
            when=lambda got, want, args: (
                isinstance(got, torch.Tensor) and got.ndim < want.ndim
            ),
        ),
    ),
    exact_dtype=False,
    hint="take a token whose ratio is 1.5 and one of 0.5, each with both signs of the "
    "advantage: which of the four has gone too far?",
)
