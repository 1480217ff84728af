"""Exercise 09.4, a layer; the oracle is in `mla.py`.

Everything is float64, and right to five digits is right: angles may be float32.
"""

from dataclasses import replace

import torch

from deepseek_mini.config import MLA
from deepseek_mini.lesson.compare import difference
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, mla, tensor

TOLERANCE = 1e-5
PART = MLA(3, 5, 6, qk_nope_head_dim=4, qk_rope_head_dim=4, v_head_dim=3)
_TOLD = {
    "kv_norm": "the norm of the latent (kv_norm) is missing",
    "q_norm": "the norm of the query's latent (q_norm) is missing",
    "n": "the scores are divided by the root of n alone; queries are wider",
    "C": "the scores are divided by the root of the latent's width; a query and a key "
    "have n + r channels",
    "1": "the scores are not divided by a root",
    "half": "channel i is paired with i + r/2 when turning; here neighbours are pairs",
    "queries": "the queries' r channels are not turned",
    "keys": "the RoPE keys are not turned",
    "rope_first": "of a head's rows in wq_b, the first n make the part that is not "
    "turned",
    "parts_first": "wq_b holds head 0's n + r rows, then head 1's, not first all "
    "heads' n and then all heads' r",
    "kv_parts_first": "wkv_b holds head 0's n key rows and v value rows, then head "
    "1's, not first all heads' keys and then all heads' values",
    "kv_values_first": "of a head's rows in wkv_b, the first n make its key",
    "kv_heads_inside": "a head's n + v rows in wkv_b are neighbours",
    "back": "channels are turned the other way, by the angle's negative",
    "slow": "the angles are wrong: pair j has 2j in the exponent, not j",
    "down": "the softmax runs over the queries: for one query, the weights of the "
    "tokens that it reads have the sum 1",
    "eps": "the norms' small number, 10^-6, is added to the mean square under the root",
    "key_first": "of the rows of wkv_a, the first C make the latent and the last r the "
    "key",
}


def common(oracle):
    """The mistakes of the layer and of a decode step."""

    def told(name, **wrong):
        return Mistake(_TOLD[name], gives=lambda *args: oracle(*args, **wrong))

    def scaled(name, width):
        return Mistake(
            _TOLD[name], gives=lambda *args: oracle(*args, width=width(args[-1]))
        )

    return (
        told("kv_norm", kv_norm=False),
        told("q_norm", q_norm=False),
        Mistake(
            "the norms of both latents are missing",
            gives=lambda *args: oracle(*args, kv_norm=False, q_norm=False),
        ),
        scaled("n", lambda p: p.qk_nope_head_dim),
        scaled("C", lambda p: p.kv_lora_rank + p.qk_rope_head_dim),
        scaled("C", lambda p: p.kv_lora_rank),
        scaled("1", lambda p: 1),
        told("half", half=True),
        told("queries", turn_queries=False),
        told("keys", turn_keys=False),
        told("rope_first", rope_first=True),
        told("parts_first", parts_first=True),
        told("key_first", key_first=True),
        told("kv_parts_first", kv_parts_first=True),
        told("kv_values_first", kv_values_first=True),
        told("kv_heads_inside", kv_heads_inside=True),
        told("back", back=True),
        told("slow", slow=True),
        told("down", down=True),
        told("eps", eps="outside"),
        told("eps", eps="none"),
        Mistake(
            "every input is float64: which tensor on that line is of another dtype?",
            raises="scalar type|same dtype",
        ),
        Mistake(
            "shapes are matched from the right; apply_rope takes the heads on axis 2, "
            "[B, T, H, r], and the key that all heads share is one head",
            raises="must match the size of tensor",
        ),
        Mistake(
            "the numbers are nearly right: what is computed with few digits, or with "
            "another small number in the norm?",
            when=_near,
        ),
    )


def _near(got, want, _args):
    """Whether every number is right to a thousandth of the largest."""
    pairs = zip(got, want) if isinstance(want, tuple) else [(got, want)]
    return all(difference(a, b, 1e-3, exact_dtype=False) is None for a, b in pairs)


def weights_of(rng, part, dim):
    """Random matrices and norms of a layer, by name."""
    H, C, r = part.n_heads, part.kv_lora_rank, part.qk_rope_head_dim
    n, v = part.qk_nope_head_dim, part.v_head_dim
    shapes = {
        "wq_a": (part.q_lora_rank, dim),
        "q_norm": (part.q_lora_rank,),
        "wq_b": (H * (n + r), part.q_lora_rank),
        "wkv_a": (C + r, dim),
        "kv_norm": (C,),
        "wkv_b": (H * (n + v), C),
        "wo": (dim, H * v),
    }
    made = {name: tensor(rng, *shape) for name, shape in shapes.items()}
    for name, value in made.items():
        made[name] = (
            1 + 0.3 * value if value.ndim == 1 else value * value.shape[1] ** -0.5
        )
    return made


def layer_cases(rng):
    wide = replace(PART, n_heads=2, v_head_dim=6, qk_nope_head_dim=6)
    for B, T, D, part, size, label in (
        (2, 5, 7, PART, 2, "five tokens"),
        (1, 4, 6, wide, 2, "a batch of one"),
        (3, 1, 5, replace(PART, n_heads=1), 2, "one token and one head"),
        (1, 6, 8, replace(wide, kv_lora_rank=9), 2, "a wider latent"),
        (1, 3, 7, PART, 2e-3, "small numbers in x"),
    ):
        x = size * tensor(rng, B, T, D)
        said = f"{label}: x [{B}, {T}, {D}], H = {part.n_heads}"
        yield Case((x, weights_of(rng, part, D), part), said, TOLERANCE)


def mla_oracle(x, w, part):
    return mla.layer(x, w, part)


_ITSELF = "a token must see itself too: the first has nothing else to look at"


def _first_is_nan(got, _want, _args):
    return (
        isinstance(got, torch.Tensor)
        and got.ndim == 3
        and bool(got[:, 0].isnan().all() and not got[:, 1:].isnan().any())
    )


LAYER = Exercise(
    id="09.4",
    title="The layer from the paper",
    signature="mla(x, w, part)",
    difficulty="from the paper",
    minutes=25,
    right=mla_oracle,
    cases=layer_cases,
    mistakes=(
        *common(mla.layer),
        Mistake(
            "neither queries nor keys are turned",
            gives=lambda *args: mla.layer(*args, turn_queries=False, turn_keys=False),
        ),
        Mistake(
            "tokens see later ones: nothing is hidden",
            gives=lambda *args: mla.layer(*args, causal=False),
        ),
        Mistake(
            "later tokens are hidden after the softmax: the weights that are left no "
            "longer have the sum 1",
            gives=lambda *args: mla.layer(*args, late=True),
        ),
        Mistake(_ITSELF, when=_first_is_nan),
        Mistake(_ITSELF, gives=lambda *args: mla.layer(*args, strict=True)),
        Mistake(_ITSELF, gives=lambda *args: mla.layer(*args, strict=True, fill=-1e9)),
        Mistake(
            "the outputs are joined with the heads inside: head 0's v channels come "
            "first, then head 1's",
            gives=lambda *args: mla.layer(*args, heads_inside=True),
        ),
        Mistake(
            "the outputs [B, H, T, v] were reshaped as they lie: numbers of different "
            "tokens came into one row",
            gives=lambda *args: mla.layer(*args, heads_first=True),
        ),
    ),
    hint="give one token only: its output is wo times the values that its own latent "
    "expands to; if that is right, look at the scores",
)
