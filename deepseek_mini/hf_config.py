"""config.json in the Hugging Face layout, to and from our `Config`.

Read are the style of transformers 5 (`rope_parameters`) and the older one (`rope_theta`
and `rope_scaling`), which the released folders have. What our model cannot compute is
refused by name rather than ignored.
"""

from pathlib import Path
from typing import Any

import torch

from deepseek_mini.config import GQA, Config, SwiGLU
from deepseek_mini.hf_rope import read_rope, rope_to_json
from deepseek_mini.hf_sparse import (
    OWN,
    mla_to_json,
    model_type_of,
    moe_to_json,
    read_mla,
    read_moe,
    read_mtp,
)
from deepseek_mini.json_fields import Fields, read_fields
from deepseek_mini.own_config import config_to_own, read_own

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "DeepseekForCausalLM": "deepseek",
    "DeepseekV2ForCausalLM": "deepseek_v2",
    "DeepseekV3ForCausalLM": "deepseek_v3",
    "DeepseekMiniForCausalLM": OWN,
}
DTYPES = ("float32", "float16", "bfloat16", "float64")


def read_config(file: Path) -> Config:
    """The config of a model from its config.json: Llama- and Qwen2-shaped, DeepSeekMoE,
    V2, V3, or a format of our own.

    Weights of MLA are in the "interleaved" layout unless the file says otherwise, all
    others in the "half_split" one, like those of every such folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, misses a field, or asks for what our model cannot
            compute; the message names the field and the file.
    """
    raw = read_fields(file)
    model_type = _model_type(raw)
    try:
        if model_type == OWN:
            return read_own(raw)
        _refuse(raw, model_type)
        return _read(raw, model_type)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if str(file) in text else f"{text} ({file})") from None


def _refuse(raw: Fields, model_type: str) -> None:
    raw.only("hidden_act", "silu")
    raw.only("use_sliding_window", False)
    raw.only("mlp_bias", False)
    if model_type != "qwen2":  # there attention_bias is one on wo as well
        raw.only("attention_bias", False)
    for name in ("dtype", "torch_dtype"):
        raw.only(name, *DTYPES)
    if any(kind != "full_attention" for kind in raw.get("layer_types", list, [])):
        raise raw.error("layer_types", "must all be 'full_attention' for deepseek_mini")
    if raw.get("quantization_config", dict, None) is None:
        return
    if model_type not in ("deepseek_v2", "deepseek_v3"):
        raise raw.error("quantization_config", f"is not read for {model_type}")
    quantised = Fields(
        raw.values["quantization_config"], raw.file, "quantization_config."
    )
    quantised.get("quant_method", str)
    quantised.only("quant_method", "fp8")
    quantised.only("fmt", "e4m3")
    quantised.only("weight_block_size", [128, 128])


def _read(raw: Fields, model_type: str) -> Config:
    mla = model_type in ("deepseek_v2", "deepseek_v3")
    sparse = mla or model_type == "deepseek"
    n_layers = raw.get("num_hidden_layers", int)
    max_seq_len = raw.get("max_position_embeddings", int)
    moe, n_dense = read_moe(raw, model_type, n_layers) if sparse else (None, 0)
    layout = "half_split"
    if model_type == "deepseek_v2":
        raw.only("rope_interleave", True)
    if mla and raw.get("rope_interleave", bool, True):
        layout = "interleaved"
    return Config(
        vocab_size=raw.get("vocab_size", int),
        dim=raw.get("hidden_size", int),
        n_layers=n_layers,
        max_seq_len=max_seq_len,
        attention=read_mla(raw) if mla else _read_gqa(raw, model_type),
        dense=SwiGLU(inter_dim=raw.get("intermediate_size", int)),
        rope=read_rope(raw, max_seq_len, layout, mla),
        moe=moe,
        n_dense_layers=n_dense,
        mtp=read_mtp(raw, model_type) if sparse else None,
        norm_eps=raw.get("rms_norm_eps", float, 1e-6),
        tie_embeddings=raw.get("tie_word_embeddings", bool, False),
        init_std=raw.get("initializer_range", float, 0.02) or 0.02,
    )


def _read_gqa(raw: Fields, model_type: str) -> GQA:
    n_heads, dim = raw.get("num_attention_heads", int), raw.get("hidden_size", int)
    return GQA(
        n_heads=n_heads,
        n_kv_heads=raw.get("num_key_value_heads", int, n_heads),
        head_dim=raw.get("head_dim", int, dim // n_heads),
        bias=model_type == "qwen2",
    )


def _model_type(raw: Fields) -> str:
    names = raw.values.get("architectures")
    if names:
        name = names[0] if isinstance(names, list) else names
        if isinstance(name, str) and name in ARCHITECTURES:
            return ARCHITECTURES[name]
        rule = f"deepseek_mini loads {', '.join(ARCHITECTURES)}"
        raise raw.error("architectures", f"is {names!r}, but {rule}")
    model_type = raw.get("model_type", str)
    if model_type not in ARCHITECTURES.values():
        rule = f"deepseek_mini loads {', '.join(ARCHITECTURES.values())}"
        raise raw.error("model_type", f"is {model_type!r}, but {rule}")
    return model_type


def config_to_json(config: Config, dtype: torch.dtype) -> dict[str, Any]:
    """What config.json says of a model whose weights are stored as `dtype`.

    The format is that of the released model which has the config's parts: Llama, or
    Qwen2 if there is a bias, DeepSeekMoE, V2 or V3; a combination that none of them
    has is written in a format of our own. RoPE is written in both styles, so that older
    readers do not fall back to their defaults.
    """
    model_type, name = model_type_of(config), str(dtype).removeprefix("torch.")
    types = {"dtype": name, "torch_dtype": name}
    architecture = {v: k for k, v in ARCHITECTURES.items()}[model_type]
    start = {"architectures": [architecture], "model_type": model_type}
    if model_type == OWN:
        return start | config_to_own(config) | types
    rope, attention = rope_to_json(config.rope), config.attention
    values = start | {
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "intermediate_size": config.dense.inter_dim,
        "num_hidden_layers": config.n_layers,
    }
    if isinstance(attention, GQA):
        values |= {
            "num_attention_heads": attention.n_heads,
            "num_key_value_heads": attention.n_kv_heads,
            "head_dim": attention.head_dim,
        }
    else:
        values |= mla_to_json(attention)
    if model_type.startswith("deepseek"):
        values |= moe_to_json(config, model_type)
    return values | {
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
        **types,
    }
