"""Lesson 09, latent attention: the oracles expand every key, one token and head at a
time, where the exercises are about never doing so. 09.2 is in `latent_expand.py`, 09.3
in `latent_scores.py`, 09.4 in `mla_layer.py` and 09.5 in `mla_step.py`.
"""

from dataclasses import replace

from deepseek_mini.config import MLA, Config, SwiGLU
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake
from deepseek_mini.lesson.oracles.latent_expand import EXPAND
from deepseek_mini.lesson.oracles.latent_scores import SCORES
from deepseek_mini.lesson.oracles.mla_layer import LAYER
from deepseek_mini.lesson.oracles.mla_step import STEP

LESSON = "09_mla"

# --- 09.1 -------------------------------------------------------------------------


def latent_cache_bytes(config, seq_len, bytes_per_number):
    """The oracle counts the cache of one token in one layer, part by part."""
    part, total = config.attention, 0
    for width in (part.kv_lora_rank, part.qk_rope_head_dim):
        total += width * bytes_per_number * seq_len * config.n_layers
    return total


def _instead(numbers):
    """A count with another number for each token and layer."""

    def gives(config, seq_len, bytes_per_number):
        return config.n_layers * numbers(config.attention) * seq_len * bytes_per_number

    return gives


def cache_cases(rng):
    for seq_len, size in ((1, 2), (4096, 2), (int(rng.integers(100, 999)), 1), (7, 4)):
        part = MLA(
            n_heads=int(rng.integers(3, 40)),
            q_lora_rank=int(rng.integers(40, 90)),
            kv_lora_rank=int(rng.integers(100, 600)),
            qk_nope_head_dim=int(rng.integers(9, 60)),
            qk_rope_head_dim=2 * int(rng.integers(2, 30)),
            v_head_dim=int(rng.integers(61, 99)),
        )
        config = Config(
            vocab_size=100,
            dim=int(rng.integers(65, 500)),
            n_layers=int(rng.integers(2, 60)),
            max_seq_len=8192,
            attention=part,
            dense=SwiGLU(8),
        )
        yield Case((config, seq_len, size), f"seq_len {seq_len}, {size} bytes a number")


CACHE = Exercise(
    id="09.1",
    title="The bytes of a latent cache",
    signature="latent_cache_bytes(config, seq_len, bytes_per_number)",
    difficulty="one line",
    minutes=5,
    right=latent_cache_bytes,
    cases=cache_cases,
    mistakes=(
        Mistake(
            "those are V2-Lite's widths: print those of `config.attention`",
            gives=_instead(lambda p: 512 + 64),
        ),
        Mistake(
            "those are V2-Lite's numbers: print those of `config`",
            gives=lambda config, seq_len, size: 27 * (512 + 64) * seq_len * size,
        ),
        Mistake(
            "that is a RoPE key for each head: how many heads share one?",
            gives=_instead(lambda p: p.kv_lora_rank + p.n_heads * p.qk_rope_head_dim),
        ),
        Mistake(
            "the latent was counted for each head: all heads expand the same one",
            gives=_instead(lambda p: p.n_heads * (p.kv_lora_rank + p.qk_rope_head_dim)),
        ),
        Mistake(
            "counted twice, as if for keys and for values: both are made from the same "
            "latent",
            gives=_instead(lambda p: 2 * (p.kv_lora_rank + p.qk_rope_head_dim)),
        ),
        Mistake(
            "the latent twice and the RoPE key once: keys and values are made from the "
            "same latent",
            gives=_instead(lambda p: 2 * p.kv_lora_rank + p.qk_rope_head_dim),
        ),
        Mistake(
            "the RoPE key is missing: it does not come from the latent, so it must be "
            "kept too",
            gives=_instead(lambda p: p.kv_lora_rank),
        ),
        Mistake(
            "those are the expanded keys and values, which are never stored",
            gives=_instead(
                lambda p: (
                    p.n_heads * (p.qk_nope_head_dim + p.qk_rope_head_dim + p.v_head_dim)
                )
            ),
        ),
        Mistake(
            "the latent of the queries is not kept: no old query is asked again",
            gives=_instead(
                lambda p: p.q_lora_rank + p.kv_lora_rank + p.qk_rope_head_dim
            ),
        ),
        Mistake(
            "counted for one layer: every layer has a cache of its own",
            gives=lambda config, seq_len, size: latent_cache_bytes(
                replace(config, n_layers=1), seq_len, size
            ),
        ),
        Mistake(
            "those are numbers, not bytes",
            gives=lambda config, seq_len, size: latent_cache_bytes(config, seq_len, 1),
        ),
    ),
    hint="write down what one token leaves behind in one layer, and how wide each part "
    "of it is",
)

EXERCISES = (CACHE, EXPAND, SCORES, LAYER, STEP)
