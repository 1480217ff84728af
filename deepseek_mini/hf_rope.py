"""RoPE in a config.json, both ways: the style of transformers 5, and the older one."""

import math
from dataclasses import replace
from typing import Any

from deepseek_mini.config import Linear, Llama3, Rope, Yarn
from deepseek_mini.json_fields import Fields
from deepseek_mini.model.rope import amplitude, yarn_temperature


def read_rope(
    raw: Fields, max_seq_len: int, layout: str = "half_split", mla: bool = False
) -> Rope:
    """The RoPE of a config.json, in the style of transformers 5 or the older one."""
    name = "rope_scaling" if raw.values.get("rope_scaling") else "rope_parameters"
    values = raw.get(name, dict, {})
    params = Fields(values, raw.file, f"{name}.")
    for inner, value in values.items():
        if isinstance(value, dict):  # {"full_attention": {...}, ...}
            rule = "deepseek_mini needs the same RoPE for every layer"
            raise params.error(inner, f"is an object, but {rule}")
    for fields in (raw, params):
        fields.only("partial_rotary_factor", 1)
    theta = params.get("rope_theta", float, raw.get("rope_theta", float, 10_000.0))
    kind = values.get("rope_type", values.get("type", "default"))
    original = params.get("original_max_position_embeddings", int, max_seq_len)
    original = raw.get("original_max_position_embeddings", int, original)
    if kind == "default":
        scaling = None
    elif kind == "linear":
        scaling = Linear(params.get("factor", float))
    elif kind == "yarn":
        scaling = _read_yarn(params, max_seq_len, original, mla)
    elif kind == "llama3":
        scaling = Llama3(
            factor=params.get("factor", float),
            original_seq_len=original,
            low_freq_factor=params.get("low_freq_factor", float),
            high_freq_factor=params.get("high_freq_factor", float),
        )
    else:
        rule = "deepseek_mini knows 'default', 'linear', 'yarn' and 'llama3'"
        raise params.error("rope_type", f"is {kind!r}, but {rule}")
    return Rope(theta=theta, layout=layout, scaling=scaling)


def _read_yarn(params: Fields, max_seq_len: int, original: int, mla: bool) -> Yarn:
    """Three ways to say what cosine and sine are multiplied by: `attention_factor`
    itself; `mscale` and `mscale_all_dim`, which count only together; or neither, which
    means m(1), see `Yarn`. In MLA mscale_all_dim counts for the softmax in any case.
    """
    params.only("truncate", True)
    factor = params.get("factor", float, max_seq_len / original)
    mscale = params.get("mscale", float, 0.0)
    all_dim = params.get("mscale_all_dim", float, 0.0)
    wanted = params.get("attention_factor", float, None)
    if wanted is None and not (mscale and all_dim):
        mscale, all_dim = 1.0, all_dim if mla else 0.0
        wanted = yarn_temperature(factor, 1.0)
    yarn = Yarn(
        factor=factor,
        original_seq_len=original,
        beta_fast=params.get("beta_fast", float, 32.0) or 32.0,
        beta_slow=params.get("beta_slow", float, 1.0) or 1.0,
        mscale=mscale,
        mscale_all_dim=all_dim,
    )
    if wanted is None or math.isclose(amplitude(Rope(scaling=yarn)), wanted):
        return yarn
    rule = "it must be positive, and 1 where factor is 1 or less"
    if wanted > 0 and factor > 1:
        if not mla:
            all_dim = 0.0 if wanted >= 1 else _mscale(factor, 1 / wanted)
        mscale = _mscale(factor, wanted * yarn_temperature(factor, all_dim))
        if mscale >= 0:
            return replace(yarn, mscale=mscale, mscale_all_dim=all_dim)
        rule = f"with mscale_all_dim {all_dim} it must be larger"
    raise params.error("attention_factor", f"is {wanted!r}, but {rule}")


def _mscale(factor: float, temperature: float) -> float:
    """The mscale that gives this temperature: `yarn_temperature` turned round."""
    value = (temperature - 1) / (0.1 * math.log(factor))
    return round(value, 12) + 0.0  # 0.1 ln(s) + 1 is not exact: 1 and not 0.99...


def rope_to_json(rope: Rope) -> dict[str, Any]:
    """RoPE as `rope_parameters` say it."""
    values: dict[str, Any] = {"rope_type": "default", "rope_theta": float(rope.theta)}
    match rope.scaling:
        case Linear(factor):
            values |= {"rope_type": "linear", "factor": float(factor)}
        case Llama3() as llama3:
            values |= {
                "rope_type": "llama3",
                "factor": float(llama3.factor),
                "original_max_position_embeddings": llama3.original_seq_len,
                "low_freq_factor": float(llama3.low_freq_factor),
                "high_freq_factor": float(llama3.high_freq_factor),
            }
        case Yarn() as yarn:
            values |= {
                "rope_type": "yarn",
                "factor": float(yarn.factor),
                "original_max_position_embeddings": yarn.original_seq_len,
                "beta_fast": float(yarn.beta_fast),
                "beta_slow": float(yarn.beta_slow),
                "mscale": float(yarn.mscale),
                "mscale_all_dim": float(yarn.mscale_all_dim),
                "attention_factor": float(amplitude(rope)),
            }
    return values
