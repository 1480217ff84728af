"""Exercise 09.5, one decoded token; the oracle is in `mla.py`.

An answer that expands the cache gives the right numbers, so operations are counted.
"""

from dataclasses import replace

import torch

from deepseek_mini.config import MLA
from deepseek_mini.lesson.judge import judge_exercise
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, mla, tensor
from deepseek_mini.lesson.oracles.latent_scores import few_operations
from deepseek_mini.lesson.oracles.mla_layer import PART, TOLERANCE, common, weights_of


def step_args(rng, B, S, D, part, size=2):
    x = size * tensor(rng, B, 1, D)
    latents = tensor(rng, B, S, part.kv_lora_rank)
    keys = tensor(rng, B, S, part.qk_rope_head_dim)
    return x, latents, keys, weights_of(rng, part, D), part


def step_cases(rng):
    wide = replace(PART, n_heads=2, v_head_dim=6, qk_nope_head_dim=6)
    single = replace(PART, n_heads=1)
    for B, S, D, part, size, label in (
        (2, 5, 7, PART, 2, "five cached tokens"),
        (1, 8, 6, wide, 2, "a batch of one"),
        (2, 1, 5, single, 2, "one cached token, one head"),
        (1, 6, 8, replace(wide, kv_lora_rank=9), 2, "a wider latent"),
        (2, 0, 7, PART, 2, "an empty cache"),
        (1, 3, 7, PART, 2e-3, "small numbers in x"),
    ):
        args = step_args(rng, B, S, D, part, size)
        yield Case(args, f"{label}: B = {B}, S = {S}", TOLERANCE)


def step_oracle(x, latents, keys, w, part):
    return mla.step(x, latents, keys, w, part)


def _stepping(**wrong):
    return lambda *args: mla.step(*args, **wrong)


def _parts(got):
    """The three tensors of a result, else nothing."""
    fits = isinstance(got, tuple | list) and len(got) == 3
    fits = fits and all(isinstance(part, torch.Tensor) for part in got)
    return tuple(got) if fits else ()


def _key_for_each_head(got, _want, _args):
    return bool(_parts(got)) and got[2].ndim == 4


def _pair_in_pair(got, _want, _args):
    return (
        isinstance(got, tuple | list)
        and len(got) == 2
        and isinstance(got[1], tuple | list)
    )


def _cut_off(length):
    """Whether both parts of the cache have `length(S)` tokens."""

    def when(got, _want, args):
        S = args[1].shape[1]
        return bool(_parts(got)) and all(
            part.ndim == 3 and part.shape[1] == length(S) for part in got[1:]
        )

    return when


def judge_step(theirs, rng):
    judge_exercise(replace(STEP, judge=None), theirs, rng)
    part = MLA(4, 16, 24, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16)
    S, D = 400, 32
    args = step_args(rng, 1, S, D, part)
    w = args[3]
    matrices = sum(value.numel() for value in w.values() if value.ndim == 2)
    enough = 2 * (matrices + (S + 1) * 4 * (2 * 24 + 8))
    few_operations(theirs, args, enough, STEP)


STEP = Exercise(
    id="09.5",
    title="Decode from latents",
    signature="decode_step(x, latents, keys, w, part)",
    difficulty="build it",
    minutes=25,
    right=step_oracle,
    cases=step_cases,
    judge=judge_step,
    mistakes=(
        *common(mla.step),
        Mistake(
            "the new token's query and key are not turned, or as if it were the first "
            "token, which is the same: its position is S",
            gives=_stepping(turn_queries=False, turn_keys=False),
        ),
        Mistake(
            "the new token was turned as if it were the last cached one: with S tokens "
            "before it, its position is S",
            gives=_stepping(shift=-1),
        ),
        Mistake("the new token was turned one too far", gives=_stepping(shift=1)),
        Mistake(
            "the new token does not see itself: off by one",
            gives=_stepping(itself=False),
        ),
        Mistake("the cached tokens are not read", gives=_stepping(alone=True)),
        Mistake(
            "the cached tokens are not read, and the new one is turned as if it were "
            "the first: its position is S",
            gives=_stepping(alone=True, at_zero=True),
        ),
        *(
            Mistake(
                "the cached keys were turned again: they were turned when they came in",
                gives=_stepping(turn_again=True, **how),
            )
            for how in (
                {},
                {"keep_read": True},
                {"all_at_S": True},
                {"all_at_S": True, "keep_read": True},
            )
        ),
        *(
            Mistake(
                "a latent that is in the cache has been normed already, and was normed "
                "again",
                gives=_stepping(norm_again=True, **how),
            )
            for how in (
                {},
                {"keep_read": True},
                {"norm_new_again": True},
                {"norm_new_again": True, "keep_read": True},
            )
        ),
        Mistake(
            "the new latent was normed twice",
            gives=_stepping(norm_new_again=True, keep_read=True),
        ),
        Mistake(
            "the output is right, but the latent that was cached is the one before its "
            "norm",
            gives=_stepping(keep_raw=True),
        ),
        Mistake(
            "the output is right, but the key that was cached is not turned",
            gives=_stepping(keep_unturned=True),
        ),
        Mistake(
            "the turned pairs lie as two halves, all a and then all b; the cached keys "
            "have a pair's two channels side by side, and so must the new one",
            gives=_stepping(halves=True),
        ),
        Mistake(
            "the new token stands in front of the cached ones: it is to be appended at "
            "the end",
            gives=_stepping(in_front=True),
        ),
        Mistake(
            "three values are asked for, side by side: return out, latents, keys",
            when=_pair_in_pair,
        ),
        Mistake(
            "the new token's entry alone came back: the cached ones belong before it",
            when=_cut_off(lambda S: 1),
        ),
        Mistake(
            "the cache came back as it was: the new token's entry is to be appended",
            when=_cut_off(lambda S: S),
        ),
        Mistake(
            "a RoPE key for each head in the cache: it takes one [B, S + 1, r] for all",
            when=_key_for_each_head,
        ),
    ),
    hint="compare the new latent and the new key first: they depend on x, wkv_a, "
    "kv_norm and S; with an empty cache the output is wo times the new token's values",
)
