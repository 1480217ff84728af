"""Exercise 09.3, scores against latents.

An answer that expands keys gives the right numbers, so operations are counted as well.
"""

from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from deepseek_mini.lesson.explain import NotYet
from deepseek_mini.lesson.judge import call, judge_exercise
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, tensor


def latent_scores(q_nope, q_pe, latent, k_pe, w_uk, *, width=None, parts="np"):
    """The oracle expands every key; the keywords make the known mistakes."""
    B, T, H, n = q_nope.shape
    width = n + q_pe.shape[-1] if width is None else width
    out = q_nope.new_zeros(B, H, T, latent.shape[1])
    for b in range(B):
        for h in range(H):
            scores = torch.zeros(T, latent.shape[1], dtype=torch.float64)
            if "n" in parts:
                keys = latent[b].double() @ w_uk[h].double().T  # [S, n]
                scores += q_nope[b, :, h].double() @ keys.T
            if "p" in parts:
                scores += q_pe[b, :, h].double() @ k_pe[b].double().T
            out[b, h] = (scores * width**-0.5).to(out.dtype)
    return out


def _scaled_by(width):
    return lambda q_nope, q_pe, latent, k_pe, w_uk: latent_scores(
        q_nope,
        q_pe,
        latent,
        k_pe,
        w_uk,
        width=width(q_nope.shape[-1], q_pe.shape[-1], latent.shape[-1]),
    )


def _other_axes(*order):
    """Whether the result would be right with its axes (B, H, T, S) in this order."""

    def when(got, want, _args):
        return (
            isinstance(got, torch.Tensor)
            and got.shape == want.permute(order).shape != want.shape
        )

    return when


def _has_mask(got, _want, _args):
    return isinstance(got, torch.Tensor) and bool((got < -1e4).any())


def _score_args(rng, B, T, S, H, n, r, C, dtype, strided=False):
    options = {"dtype": dtype, "strided": strided}
    return (
        tensor(rng, B, T, H, n, **options),
        tensor(rng, B, T, H, r, **options),
        tensor(rng, B, S, C, **options),
        tensor(rng, B, S, r, **options),
        tensor(rng, H, n, C, **options),
    )


def score_cases(rng):
    f32, f64 = torch.float32, torch.float64
    for sizes, dtype, strided, label in (
        ((2, 3, 7, 4, 5, 2, 6), f64, False, "three queries"),
        ((1, 1, 9, 3, 4, 6, 8), f32, False, "one query, a batch of one"),
        ((2, 1, 4, 2, 6, 4, 6), f64, False, "a latent as wide as a key"),
        ((3, 4, 5, 1, 3, 2, 9), f32, False, "one head"),
        ((2, 2, 6, 5, 4, 2, 7), f64, True, "tensors that are not contiguous"),
    ):
        args = _score_args(rng, *sizes, dtype, strided)
        said = ", ".join(f"{k} = {x}" for k, x in zip("BTSHnrC", sizes))
        yield Case(args, f"{label}: {said}")


def few_operations(theirs, args, enough, ex):
    """Raise NotYet when a call does over twice the `enough` operations."""
    counter = FlopCounterMode(display=False)
    with counter:
        call(theirs, *args, exercise=ex)
    count = counter.get_total_flops()
    if count > 2 * enough:
        raise NotYet(
            f"the numbers are right, but matrix products took {count:,} operations "
            f"where {enough:,} suffice",
            "something is expanded for every cached token: which product can be moved "
            "to the side that has few tokens?",
        )


def judge_scores(theirs, rng):
    judge_exercise(replace(SCORES, judge=None), theirs, rng)
    B, T, S, H, n, r, C = 1, 1, 400, 4, 16, 8, 24
    args = _score_args(rng, B, T, S, H, n, r, C, torch.float32)
    enough = 2 * T * H * (n * C + S * (C + r))
    few_operations(theirs, args, enough, SCORES)


SCORES = Exercise(
    id="09.3",
    title="Scores against latents",
    signature="latent_scores(q_nope, q_pe, latent, k_pe, w_uk)",
    difficulty="a few lines",
    minutes=12,
    right=latent_scores,
    cases=score_cases,
    judge=judge_scores,
    mistakes=(
        Mistake(
            "the scores are divided by the root of the latent's width; absorbing does "
            "not change the product, nor what it is divided by",
            gives=_scaled_by(lambda n, r, C: C + r),
        ),
        Mistake(
            "the scores are divided by the root of the latent's width; absorbing does "
            "not change the product, nor what it is divided by",
            gives=_scaled_by(lambda n, r, C: C),
        ),
        Mistake(
            "the scores are divided by the root of n alone; queries are wider",
            gives=_scaled_by(lambda n, r, C: n),
        ),
        Mistake(
            "the scores are not divided by a root",
            gives=_scaled_by(lambda n, r, C: 1),
        ),
        Mistake(
            "the scores are divided by n + r, not by its root",
            gives=_scaled_by(lambda n, r, C: (n + r) ** 2),
        ),
        Mistake(
            "the scores are multiplied by the root, not divided",
            gives=_scaled_by(lambda n, r, C: 1 / (n + r)),
        ),
        Mistake(
            "no softmax is wanted: return the scores that go into it",
            gives=lambda *args: latent_scores(*args).softmax(-1),
        ),
        Mistake(
            "no mask is wanted: every query has a score for every token",
            when=_has_mask,
        ),
        Mistake(
            "the part with position is missing",
            gives=lambda *args: latent_scores(*args, parts="n"),
        ),
        Mistake(
            "the part without position is missing",
            gives=lambda *args: latent_scores(*args, parts="p"),
        ),
        Mistake(
            "a head's matrix leads from the latent to its key: to bring a query to the "
            "latent's side, it is summed over the key's channels",
            gives=lambda q_nope, q_pe, latent, k_pe, w_uk: latent_scores(
                q_nope, q_pe, latent, k_pe, w_uk.transpose(1, 2)
            ),
        ),
        Mistake("scores are [B, H, T, S]", when=_other_axes(0, 2, 1, 3)),
        Mistake("scores are [B, H, T, S]", when=_other_axes(0, 2, 3, 1)),
        Mistake("scores are [B, H, T, S]", when=_other_axes(0, 1, 3, 2)),
    ),
    hint="with q_pe all zeros and one head only, print your scores beside those of the "
    "expanded key, w_uk[0] @ latent[0, s]",
)
