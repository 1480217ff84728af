"""Lesson 10, DeepSeek-V2: the oracles go token by token and tensor by tensor.

10.1 is in `device_limit.py`, 10.2 in `communication.py`, 10.4 in
`count_latent_moe.py`.
"""

import math
from dataclasses import replace

from deepseek_mini.config import MLA, Config, Rope, SwiGLU, Yarn
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake
from deepseek_mini.lesson.oracles.communication import COMMUNICATION
from deepseek_mini.lesson.oracles.count_latent_moe import COUNT
from deepseek_mini.lesson.oracles.device_limit import CHOICE

LESSON = "10_deepseek_v2"

# --- 10.3 -------------------------------------------------------------------------


def softmax_scale(config):
    """The oracle, with powers in place of roots and squares."""
    return _scale(config)


def _scale(config, width=None, power=2, base=math.e, c=None, m=None, sign=-0.5):
    part, yarn = config.attention, config.rope.scaling
    channels = part.qk_nope_head_dim + part.qk_rope_head_dim
    channels = width(part) if width else channels
    if yarn is None:
        factor = 1.0
    elif m:
        factor = m(yarn)
    else:
        number = yarn.mscale_all_dim if c is None else c(yarn)
        factor = 1 + number * math.log(yarn.factor, base) / 10
    return channels**sign * factor**power


def _scaling(**mistake):
    return lambda config: _scale(config, **mistake)


def _one_without(config):
    return 1.0 if config.rope.scaling is None else _scale(config)


def scale_cases(rng):
    for label in ("YaRN", "another mscale", "no YaRN", "an mscale of 0"):
        yarn = Yarn(
            factor=float(rng.uniform(2, 60)),
            original_seq_len=4096,
            mscale=float(rng.uniform(0.3, 0.8)),
            mscale_all_dim=float(rng.uniform(0.9, 1.5)),
        )
        if label == "YaRN":
            yarn = replace(yarn, mscale=yarn.mscale_all_dim)
        if label == "an mscale of 0":
            yarn = replace(yarn, mscale=0.0)
        part = MLA(
            n_heads=int(rng.integers(2, 9)),
            q_lora_rank=None,
            kv_lora_rank=int(rng.integers(300, 600)),
            qk_nope_head_dim=int(rng.integers(20, 130)),
            qk_rope_head_dim=2 * int(rng.integers(4, 9)),
            v_head_dim=int(rng.integers(140, 200)),
        )
        config = Config(
            vocab_size=100,
            dim=int(rng.integers(65, 500)),
            n_layers=2,
            max_seq_len=8192,
            attention=part,
            dense=SwiGLU(8),
            rope=Rope(scaling=None if label == "no YaRN" else yarn),
        )
        yield Case((config,), label, 1e-7)


SCALE = Exercise(
    id="10.3",
    title="YaRN's softmax scale",
    signature="softmax_scale(config)",
    difficulty="one line",
    minutes=8,
    right=softmax_scale,
    cases=scale_cases,
    mistakes=(
        Mistake(
            "the temperature m is in it once: the formula has its square",
            gives=_scaling(power=1),
        ),
        Mistake("without the temperature", gives=_scaling(power=0)),
        Mistake(
            "divided by m squared: a longer text needs sharper scores, not flatter",
            gives=_scaling(power=-2),
        ),
        Mistake(
            "c is mscale_all_dim: mscale has to do with cosine and sine",
            gives=_scaling(c=lambda yarn: yarn.mscale),
        ),
        Mistake(
            "c is the config's mscale_all_dim: it is not always 1",
            gives=_scaling(c=lambda yarn: 1.0),
        ),
        Mistake(
            "ln is the natural logarithm, not that to base 10",
            gives=_scaling(base=10),
        ),
        Mistake(
            "ln is the natural logarithm, not that to base 2", gives=_scaling(base=2)
        ),
        Mistake(
            "the + 1 is missing in m",
            gives=_scaling(
                m=lambda yarn: 0.1 * yarn.mscale_all_dim * math.log(yarn.factor)
            ),
        ),
        Mistake(
            "the root of n alone: the r channels with RoPE are in the product too",
            gives=_scaling(width=lambda part: part.qk_nope_head_dim),
        ),
        Mistake(
            "the root of r alone: the n channels without RoPE are in the product too",
            gives=_scaling(width=lambda part: part.qk_rope_head_dim),
        ),
        Mistake(
            "the root of a value's width: scores are products of queries and keys",
            gives=_scaling(width=lambda part: part.v_head_dim),
        ),
        Mistake(
            "the root of the latent's width: the score is the same number as with "
            "expanded keys, of n + r channels",
            gives=_scaling(width=lambda part: part.kv_lora_rank),
        ),
        Mistake(
            "the root of the latent's width: the score is the same number as with "
            "expanded keys, of n + r channels",
            gives=_scaling(
                width=lambda part: part.kv_lora_rank + part.qk_rope_head_dim
            ),
        ),
        Mistake(
            "multiplied by n + r, or its root: divide",
            gives=_scaling(sign=0.5),
        ),
        Mistake(
            "divided by n + r itself: the root is missing", gives=_scaling(sign=-1)
        ),
        Mistake(
            "a tensor is not asked for: `math` computes with numbers",
            when=lambda got, *_: hasattr(got, "numpy"),
        ),
        Mistake(
            "without YaRN it is m that is 1, not the whole scale: the root stays",
            gives=_one_without,
        ),
        Mistake(
            "s is the factor by which the context is stretched, not its new length",
            gives=_scaling(
                m=lambda yarn: (
                    1
                    + 0.1
                    * yarn.mscale_all_dim
                    * math.log(yarn.factor * yarn.original_seq_len)
                )
            ),
        ),
        Mistake(
            "without YaRN scaling is None and has no fields: m is 1 then",
            raises="AttributeError: 'NoneType'",
        ),
    ),
    hint="compute m, its square and the root one by one for V2-Lite, and compare each "
    "with the example",
)

EXERCISES = (CHOICE, COMMUNICATION, SCALE, COUNT)
