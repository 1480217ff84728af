"""config.json in the Hugging Face layout, to and from our `Config`.

Read are the style of transformers 5 (`rope_parameters`) and the older one (`rope_theta`
and `rope_scaling`), which the released folders have. What our model cannot compute is
refused by name rather than ignored.
"""

import math
from pathlib import Path
from typing import Any

import torch

from deepseek_mini.config import GQA, Config, Linear, Llama3, Rope, SwiGLU, Yarn
from deepseek_mini.json_fields import Fields, read_fields
from deepseek_mini.model.rope import amplitude

ARCHITECTURES = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}
DTYPES = ("float32", "float16", "bfloat16", "float64")


def read_config(file: Path) -> Config:
    """The config of a Llama- or Qwen2-shaped model from its config.json.

    Its weights are in the "half_split" layout, like those of every such folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, misses a field, or asks for what our model cannot
            compute; the message names the field and the file.
    """
    raw = read_fields(file)
    model_type = _model_type(raw)
    raw.only("hidden_act", "silu")
    raw.only("quantization_config")
    raw.only("use_sliding_window", False)
    raw.only("mlp_bias", False)
    if model_type == "llama":  # there attention_bias is one on wo as well
        raw.only("attention_bias", False)
    for name in ("dtype", "torch_dtype"):
        raw.only(name, *DTYPES)
    if any(kind != "full_attention" for kind in raw.get("layer_types", list, [])):
        raise raw.error("layer_types", "must all be 'full_attention' for deepseek_mini")
    n_heads, dim = raw.get("num_attention_heads", int), raw.get("hidden_size", int)
    max_seq_len = raw.get("max_position_embeddings", int)
    try:
        return Config(
            vocab_size=raw.get("vocab_size", int),
            dim=dim,
            n_layers=raw.get("num_hidden_layers", int),
            max_seq_len=max_seq_len,
            attention=GQA(
                n_heads=n_heads,
                n_kv_heads=raw.get("num_key_value_heads", int, n_heads),
                head_dim=raw.get("head_dim", int, dim // n_heads),
                bias=model_type == "qwen2",
            ),
            dense=SwiGLU(inter_dim=raw.get("intermediate_size", int)),
            rope=_read_rope(raw, max_seq_len),
            norm_eps=raw.get("rms_norm_eps", float, 1e-6),
            tie_embeddings=raw.get("tie_word_embeddings", bool, False),
            init_std=raw.get("initializer_range", float, 0.02) or 0.02,
        )
    except ValueError as error:
        text = str(error)
        raise ValueError(text if str(file) in text else f"{text} ({file})") from None


def _model_type(raw: Fields) -> str:
    names = raw.values.get("architectures")
    if names:
        name = names[0] if isinstance(names, list) else names
        if isinstance(name, str) and name in ARCHITECTURES:
            return ARCHITECTURES[name]
        rule = f"deepseek_mini loads {' and '.join(ARCHITECTURES)}"
        raise raw.error("architectures", f"is {names!r}, but {rule}")
    model_type = raw.get("model_type", str)
    if model_type not in ARCHITECTURES.values():
        rule = f"deepseek_mini loads {' and '.join(ARCHITECTURES.values())}"
        raise raw.error("model_type", f"is {model_type!r}, but {rule}")
    return model_type


def _read_rope(raw: Fields, max_seq_len: int) -> Rope:
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
        scaling = _read_yarn(params, max_seq_len, original)
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
    return Rope(theta=theta, layout="half_split", scaling=scaling)


def _read_yarn(params: Fields, max_seq_len: int, original: int) -> Yarn:
    """Three ways to say what cosine and sine are multiplied by: `attention_factor`
    itself; `mscale` and `mscale_all_dim`, which count only together; or neither, which
    means mscale = 1.
    """
    params.only("truncate", True)
    factor = params.get("factor", float, max_seq_len / original)
    mscale = params.get("mscale", float, 0.0)
    all_dim = params.get("mscale_all_dim", float, 0.0)
    wanted = params.get("attention_factor", float, None)
    if wanted is None and not (mscale and all_dim):
        mscale, all_dim = 1.0, 0.0
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
    if wanted <= 0 or factor <= 1:
        rule = "it must be positive, and 1 where factor is 1 or less"
        raise params.error("attention_factor", f"is {wanted!r}, but {rule}")
    per_mscale = 0.1 * math.log(factor)  # m(x) = 1 + per_mscale * x, see `Yarn`
    if wanted >= 1:
        mscale, all_dim = (wanted - 1) / per_mscale, 0.0
    else:
        mscale, all_dim = 0.0, (1 / wanted - 1) / per_mscale
    return Yarn(factor, original, yarn.beta_fast, yarn.beta_slow, mscale, all_dim)


def config_to_json(config: Config, dtype: torch.dtype) -> dict[str, Any]:
    """What config.json says of a model whose weights are stored as `dtype`.

    A bias makes it a Qwen2ForCausalLM, otherwise it is a LlamaForCausalLM. RoPE is
    written in both styles, so that older readers do not fall back to their defaults.
    """
    attention, rope = config.attention, _rope_to_json(config.rope)
    architecture = "Qwen2ForCausalLM" if attention.bias else "LlamaForCausalLM"
    name = str(dtype).removeprefix("torch.")
    return {
        "architectures": [architecture],
        "model_type": ARCHITECTURES[architecture],
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "intermediate_size": config.dense.inter_dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": attention.n_heads,
        "num_key_value_heads": attention.n_kv_heads,
        "head_dim": attention.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_seq_len,
        "initializer_range": config.init_std,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "rope_parameters": rope,
        "rope_scaling": None if rope["rope_type"] == "default" else rope,
        "rope_theta": float(config.rope.theta),
        "bos_token_id": None,  # the tokenizer's business; the readers' defaults are not
        "eos_token_id": None,  # those of DeepSeek
        "dtype": name,
        "torch_dtype": name,
    }


def _rope_to_json(rope: Rope) -> dict[str, Any]:
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
