"""Exercise 17.5, the whole objective: its hints; the oracle is `grpo_by_hand.py`."""

import numpy as np
import torch

from deepseek_mini.lesson.oracles import Exercise, Mistake
from deepseek_mini.lesson.oracles.grpo_by_hand import (
    batch,
    by_place,
    centred,
    dealt,
    flat_group_fails,
    gradient,
    grpo,
    grpo_loss,
    kl,
    kl_apart,
    kl_of_answers,
    kl_times_advantage,
    later,
    losing,
    loss_cases,
    masked,
    mean_of_ratios,
    one_ratio,
    padded_std,
    plain,
    rounded,
    sample,
    tiny_std,
    without_end,
)
from deepseek_mini.lesson.oracles.returned import NUMBER
from deepseek_mini.lesson.oracles.through_logps import judge_with_gradient


def judge_loss(theirs, rng):
    constants = {1: "old_logps", 2: "ref_logps"}
    judge_with_gradient(LOSS, theirs, rng, gradient, constants)


_ADVANTAGES = (
    ("the advantages are taken over all rewards together: every question has a group "
     "of its own", batch),
    ("the std is the sample's, with G - 1 below the line: this one has G", sample),
    ("the advantages have reached other answers: the G of one question are neighbours",
     dealt),
    ("the rewards themselves were taken for advantages", plain),
    ("a question whose rewards are all equal has a std of 0, or one that is a rounding "
     "error away: its advantages are 0, so look at the rewards themselves", rounded),
    ("the number added to the std changes the result: nothing is added here",
     padded_std),
    ("the number added to the std changes the result: nothing is added here, and equal "
     "rewards are a case of their own", tiny_std),
    ("the rewards are centred, but not divided by their group's std", centred),
)  # fmt: skip

LOSS = Exercise(
    id="17.5",
    title="The objective from the paper",
    signature="grpo_loss(logps, old_logps, ref_logps, rewards, mask, clip, beta)",
    difficulty="from the paper",
    minutes=25,
    right=grpo_loss,
    cases=loss_cases,
    judge=judge_loss,
    mistakes=(
        *(Mistake(hint, gives=losing(advantages=a)) for hint, a in _ADVANTAGES),
        Mistake(
            "this is the objective, which should rise: an optimiser lowers its loss",
            gives=losing(sign=1),
        ),
        Mistake(
            "the KL has the wrong sign: this pays for leaving the reference",
            gives=lambda *args: grpo(*args[:-1], -args[-1]),
        ),
        Mistake("the KL is missing", gives=lambda *args: grpo(*args[:-1], 0.0)),
        Mistake(
            "beta is missing: it weighs the KL", gives=lambda *a: grpo(*a[:-1], 1.0)
        ),
        Mistake(
            "the KL is the difference of logarithms alone, which can be negative",
            gives=losing(kl=lambda new, ref: new - ref),
        ),
        Mistake(
            "the KL is half the square of the difference of logarithms: that is "
            "another estimator than the one asked for",
            gives=losing(kl=lambda new, ref: (ref - new) ** 2 / 2),
        ),
        Mistake(
            "the KL is multiplied by the advantage: a bad answer's counts as a good "
            "one's does",
            gives=kl_times_advantage,
        ),
        Mistake(
            "the ratio in the KL is upside down: the reference stands above the line",
            gives=losing(kl=lambda new, ref: kl(ref, new)),
        ),
        Mistake(
            "the KL compares the reference with the old policy: it is the new one that "
            "should stay near",
            gives=lambda n, o, r, w, m, c, b: (
                grpo(n, o, r, w, m, c, 0.0) + grpo(o, o, r, w * 0, m, c, b)
            ),
        ),
        Mistake(
            "the KL is not divided by |o| as the gain is: both stand under one sum",
            gives=kl_apart(lambda kl, n: kl.sum(1).mean()),
        ),
        Mistake(
            "the KL is averaged over all tokens, and the gain over each answer's: both "
            "stand under one sum",
            gives=kl_apart(lambda kl, n: kl.sum() / n.sum()),
        ),
        Mistake(
            "there is one KL for a whole answer: in this form each token has its own",
            gives=kl_of_answers,
        ),
        Mistake(
            "the answers were averaged place by place: average the tokens of an answer "
            "first, then the answers",
            gives=by_place,
        ),
        Mistake(
            "the ratio compares with the reference: it is the old policy that the "
            "answers were drawn from",
            gives=lambda n, o, r, w, m, c, b: grpo(n, r, r, w, m, c, b),
        ),
        Mistake(
            "the KL compares with the old policy: it is the reference that the new one "
            "should stay near",
            gives=lambda n, o, r, w, m, c, b: grpo(n, o, o, w, m, c, b),
        ),
        Mistake(
            "nothing is clipped", gives=losing(gain=lambda ratio, a, clip: ratio * a)
        ),
        Mistake(
            "the ratio is clipped at 0.8 and 1.2 whatever `clip` is",
            gives=lambda n, o, r, w, m, c, b: grpo(n, o, r, w, m, 0.2, b),
        ),
        Mistake(
            "the larger of clipped and not was taken",
            gives=losing(
                gain=lambda r, a, c: max(r * a, min(max(r, 1 - c), 1 + c) * a)
            ),
        ),
        Mistake(
            "the clipped ratio always counts: it should be the smaller product",
            gives=losing(gain=lambda r, a, c: min(max(r, 1 - c), 1 + c) * a),
        ),
        Mistake(
            "the ratio is only held below 1 + clip: for a negative advantage it is the "
            "other side that counts",
            gives=losing(gain=lambda r, a, c: min(r, 1 + c) * a),
        ),
        Mistake(
            "there is one ratio for an answer: in this form each token has its own",
            gives=one_ratio,
        ),
        Mistake(
            "there is one ratio for an answer: in this form each token has its own",
            gives=mean_of_ratios,
        ),
        Mistake(
            "all tokens of the batch are averaged together: the paper averages an "
            "answer's tokens, then the answers",
            gives=lambda *a: grpo(*a, below=lambda n, T, all_: all_ / len(a[4])),
        ),
        Mistake(
            "each answer is divided by the width of the batch: divide by its own "
            "number of tokens",
            gives=losing(below=lambda n, T, all_: T),
        ),
        Mistake(
            "1/|o| is missing: an answer's tokens are averaged",
            gives=losing(below=lambda n, T, all_: 1),
        ),
        Mistake(
            "the answers are added up: return their mean",
            gives=losing(answers=lambda rewards: 1),
        ),
        Mistake(
            "the sum was divided by G alone: all N G answers are averaged",
            gives=losing(answers=lambda rewards: rewards.shape[1]),
        ),
        Mistake(
            "the sum was divided by N alone: all N G answers are averaged",
            gives=losing(answers=len),
        ),
        Mistake(
            "places where the mask is False were counted as well",
            gives=masked(torch.ones_like),
        ),
        Mistake(
            "places where the mask is False were counted as well",
            gives=lambda *a: grpo(*a, kept=torch.ones_like),
        ),
        Mistake(
            "the mask is off by one: it says of each place whether its token counts",
            gives=masked(later),
        ),
        Mistake(
            "the mask is off by one: it says of each place whether its token counts",
            gives=lambda *a: grpo(*a, kept=later),
        ),
        Mistake(
            "the last token of each answer is missing: its end was chosen too",
            gives=masked(without_end),
        ),
        Mistake(
            "the last token of each answer is missing: its end was chosen too",
            gives=lambda *a: grpo(*a, kept=without_end),
        ),
        Mistake(
            "a question whose rewards are all equal divides by a std of 0, or nearly: "
            "its advantages are 0",
            when=flat_group_fails,
        ),
        NUMBER,
        Mistake(
            "one number for each answer or token: return their mean",
            when=lambda got, want, args: np.ndim(got) > 0 and want.ndim == 0,
        ),
    ),
    exact_dtype=False,
    hint="try beta = 0, then equal rewards: which of the two parts is off?",
)
