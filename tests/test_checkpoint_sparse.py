"""Folders of DeepSeekMoE, V2 and V3: experts, MTP, FP8, and a format of our own."""

import json
import math
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import (
    EXPERTS,
    LATENTS,
    error,
    random_tokens,
    small_model,
    sparse_config,
    sparse_model,
)
from safetensors.torch import load_file, save_file
from test_checkpoint import SINGLE, edit_config, edit_tensors, refuses

import deepseek_mini as dm
from deepseek_mini import hf_files
from deepseek_mini.config import GQA, MTP, Linear, Rope, Yarn
from deepseek_mini.fp8 import quantise
from deepseek_mini.hf_config import read_config
from deepseek_mini.hf_names import (
    SPARSE_NAMES,
    mtp_copies,
    released_name,
    to_half_split,
    to_interleaved,
)
from deepseek_mini.model.rope import amplitude

FAMILIES = ("moe", "v2", "v3")
MTP_LAYER = "model.layers.3."
EXPERT = "model.layers.1.mlp.experts.7.gate_proj.weight"
BIAS = "model.layers.2.mlp.gate.e_score_correction_bias"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A sound folder of a V3 with one MTP module, in one file."""
    dm.save(sparse_model("v3"), tmp_path / "model")
    return tmp_path / "model"


def equal(a: dm.Transformer, b: dm.Transformer) -> bool:
    pairs = zip(a.named_parameters(), b.named_parameters(), strict=True)
    return all(n == m and torch.equal(p, q) for (n, p), (m, q) in pairs)


# In and out


@pytest.mark.parametrize("shard_bytes", [30_000, 10**9])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_saved_is_loaded(tmp_path, family, shard_bytes):
    rope = Rope(1e4, "half_split" if family == "moe" else "interleaved")
    model = sparse_model(family, rope=rope)
    dm.save(model, tmp_path, max_shard_bytes=shard_bytes)
    with warnings.catch_warnings(action="error"):
        back = dm.load(tmp_path)
    assert not back.training and back.config == model.config
    assert equal(back, model)
    for (name, ours), (_, theirs) in zip(
        model.named_parameters(), back.named_parameters(), strict=True
    ):
        assert ours.requires_grad == theirs.requires_grad, name


def test_the_names_of_the_released_folders(folder):
    assert released_name("layers.4.ffn.experts.w2") == (
        "model.layers.4.mlp.experts.*.down_proj.weight"
    )
    assert released_name("layers.4.ffn.gate.bias") == (
        "model.layers.4.mlp.gate.e_score_correction_bias"
    )
    assert released_name("layers.4.ffn.gate.weight") == "model.layers.4.mlp.gate.weight"
    assert released_name("mtp.0.norm.weight", 61) == (
        "model.layers.61.shared_head.norm.weight"
    )
    assert released_name("mtp.1.block.attn.wkv_a.weight", 61) == (
        "model.layers.62.self_attn.kv_a_proj_with_mqa.weight"
    )
    for name in ("mtp.0.head.weight", "mtp.0.block.enorm.weight"):
        with pytest.raises(ValueError, match=re.escape(name)):
            released_name(name)
    names = set(load_file(folder / SINGLE))
    assert len([name for name in names if name.startswith(MTP_LAYER)]) == 56
    assert len(set(SPARSE_NAMES.values())) == len(SPARSE_NAMES)


def test_an_expert_is_one_tensor_of_its_own(folder):
    model, tensors = sparse_model("v3"), load_file(folder / SINGLE)
    assert torch.equal(tensors[EXPERT], model.layers[1].ffn.experts.w1[7])
    assert torch.equal(tensors[BIAS], model.layers[2].ffn.gate.bias)


def test_copies_of_embedding_and_head_stand_in_the_mtp_module(folder):
    """As in the released V3. They need not be there, and their values do not count."""
    model, tensors = sparse_model("v3"), load_file(folder / SINGLE)
    embed = MTP_LAYER + "embed_tokens.weight"
    head = MTP_LAYER + "shared_head.head.weight"
    assert set(mtp_copies(model.config)) == {embed, head}
    assert torch.equal(tensors[embed], model.embed.weight)
    assert torch.equal(tensors[head], model.head.weight)
    edit_tensors(folder / SINGLE, **{embed: None, head: torch.zeros(61, 40)})
    assert equal(dm.load(folder), model)
    edit_tensors(folder / SINGLE, **{head: torch.zeros(40, 61)})
    refuses(folder, head, "[40, 61]", "[61, 40]")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_only_the_correction_bias_stays_in_float32(folder, dtype):
    model = dm.load(folder, dtype=dtype)
    for name, parameter in model.named_parameters():
        bias = name.endswith("gate.bias") and dtype != torch.float64
        assert parameter.dtype == (torch.float32 if bias else dtype), name
    assert torch.equal(model.layers[1].ffn.gate.bias.float(),
                       sparse_model("v3").layers[1].ffn.gate.bias)  # fmt: skip
    assert (
        error(model(random_tokens(2, 9)), sparse_model("v3")(random_tokens(2, 9))) < 0.3
    )


def test_orders_of_rows_are_each_others_inverse():
    rows = torch.arange(24).view(12, 2)
    assert torch.equal(to_interleaved(to_half_split(rows, 6), 6), rows)
    assert to_interleaved(rows, 6)[:6, 0].tolist() == [0, 6, 2, 8, 4, 10]


@pytest.mark.parametrize("number", ["num_hidden_layers", "n_routed_experts",
                                    "num_nextn_predict_layers"])  # fmt: skip
def test_a_number_far_too_large_is_refused_at_once(folder, number):
    edit_config(folder, **{number: 10**12})
    refuses(folder, f"{number} is 1000000000000", "holds only", str(folder))


# MTP modules


def test_a_folder_without_mtp_loads_with_one_warning(folder):
    tensors = load_file(folder / SINGLE)
    kept = {n: t for n, t in tensors.items() if not n.startswith(MTP_LAYER)}
    save_file(kept, folder / SINGLE)
    with pytest.warns(UserWarning, match="MTP modules") as caught:
        model = dm.load(folder)
    assert len(caught) == 1
    assert model.mtp is None and model.config == sparse_config("v3", mtp=None)
    tokens = random_tokens(2, 9)
    assert torch.equal(model(tokens), sparse_model("v3")(tokens))


@pytest.mark.parametrize("name", ["enorm.weight", "shared_head.norm.weight",
                                  "mlp.experts.11.up_proj.weight"])  # fmt: skip
def test_a_partly_present_mtp_is_an_error(folder, name):
    edit_tensors(folder / SINGLE, **{MTP_LAYER + name: None})
    refuses(folder, MTP_LAYER + name, SINGLE)


def test_one_depth_of_two_is_an_error(folder):
    edit_config(folder, num_nextn_predict_layers=2)
    refuses(folder, "model.layers.4.", "more", SINGLE)


def test_mtp_tensors_that_no_config_names(folder):
    edit_config(folder, num_nextn_predict_layers=0)
    refuses(folder, MTP_LAYER, "has no place")


# Tensors and fields that do not fit


def test_experts_that_are_missing_extra_or_misshapen(folder):
    edit_tensors(folder / SINGLE, **{EXPERT: None})
    refuses(folder, EXPERT, SINGLE)
    edit_tensors(folder / SINGLE, **{EXPERT: torch.ones(40, 12)})
    refuses(folder, EXPERT, "[40, 12]", "[12, 40]")
    extra = EXPERT.replace(".7.", ".12.")
    edit_tensors(folder / SINGLE, **{EXPERT: torch.ones(12, 40)})
    edit_tensors(folder / SINGLE, **{extra: torch.ones(12, 40)})
    refuses(folder, extra, "has no place")
    edit_config(folder, n_routed_experts=13, n_group=1, topk_group=1)
    refuses(folder, ".12.", "not in")


def test_a_missing_correction_bias(folder):
    edit_tensors(folder / SINGLE, **{BIAS: None})
    refuses(folder, BIAS, SINGLE)


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("v3", {"moe_layer_freq": 2}, ["moe_layer_freq is 2", "1"]),
        ("v3", {"scoring_func": "softmax"}, ["scoring_func is 'softmax'"]),
        ("v3", {"topk_method": "greedy"}, ["topk_method is 'greedy'", "noaux_tc"]),
        ("v3", {"norm_topk_prob": ...}, ["norm_topk_prob is missing"]),
        ("v3", {"n_group": None}, ["n_group is missing"]),
        ("v3", {"n_group": 5}, ["n_groups is 5", "divide"]),
        ("v3", {"num_experts_per_tok": 99}, ["n_activated_experts is 99"]),
        ("v3", {"n_shared_experts": -1}, ["n_shared_experts is -1"]),
        ("v3", {"num_key_value_heads": 2}, ["num_key_value_heads is 2", "4"]),
        ("v3", {"attention_bias": True}, ["attention_bias is True"]),
        ("v3", {"kv_lora_rank": ...}, ["kv_lora_rank is missing"]),
        ("v3", {"rope_interleave": 1}, ["rope_interleave is 1", "bool"]),
        ("v3", {"first_k_dense_replace": -1}, ["first_k_dense_replace is -1"]),
        ("v2", {"scoring_func": "sigmoid"}, ["scoring_func is 'sigmoid'"]),
        ("v2", {"topk_method": "noaux_tc"}, ["topk_method is 'noaux_tc'"]),
        ("v2", {"norm_topk_prob": True}, ["norm_topk_prob is True"]),
        ("v2", {"rope_interleave": False}, ["rope_interleave is False"]),
        ("v2", {"num_nextn_predict_layers": 1}, ["num_nextn_predict_layers is 1"]),
        ("moe", {"routed_scaling_factor": 2.0}, ["routed_scaling_factor is 2.0"]),
        ("moe", {"scoring_func": "sigmoid"}, ["scoring_func is 'sigmoid'"]),
        ("moe", {"attention_bias": True}, ["attention_bias is True"]),
        ("moe", {"n_routed_experts": ...}, ["n_routed_experts is missing"]),
        ("moe", {"quantization_config": {"quant_method": "fp8"}}, ["quantization"]),
        ("v3", {"quantization_config": {}}, ["quantization_config.quant_method"]),
        (
            "v3",
            {"quantization_config": {"quant_method": "gptq"}},
            ["quantization_config.quant_method is 'gptq'"],
        ),
        (
            "v3",
            {
                "quantization_config": {
                    "quant_method": "fp8",
                    "weight_block_size": [64, 64],
                }
            },
            ["quantization_config.weight_block_size is [64, 64]", "[128, 128]"],
        ),
    ],
)
def test_fields_that_are_refused(tmp_path, family, changes, words):
    dm.save(sparse_model(family), tmp_path)
    edit_config(tmp_path, **changes)
    refuses(tmp_path, *words, "config.json")


def test_fields_of_the_released_config_that_change_nothing(folder):
    """For training and for running on many machines, or said otherwise."""
    edit_config(
        folder,
        ep_size=1,
        aux_loss_alpha=0.001,
        seq_aux=True,
        auto_map={"AutoConfig": "configuration_deepseek.DeepseekV3Config"},
        pretraining_tp=1,
        attention_dropout=0.0,
        use_cache=True,
        head_dim=8,
        qk_head_dim=18,
        topk_method=...,
        scoring_func=...,
        moe_layer_freq=...,
        rope_interleave=...,
    )
    assert read_config(folder / "config.json") == sparse_config("v3")


def test_softmax_temperature_and_amplitude_of_yarn_are_read_apart(tmp_path):
    dm.save(sparse_model("v2"), tmp_path)
    fields = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 16}

    def read(**more) -> Yarn:
        edit_config(tmp_path, rope_scaling={**fields, **more}, rope_parameters=...)
        return read_config(tmp_path / "config.json").rope.scaling

    assert read(mscale=0.707, mscale_all_dim=0.707) == Yarn(40, 16, 32, 1, 0.707, 0.707)
    assert read() == Yarn(40, 16, 32, 1, 1.0, 0.0)
    assert read(mscale=0.707) == Yarn(40, 16, 32, 1, 1.0, 0.0)  # as in transformers
    alone = read(mscale_all_dim=0.5)  # cosine and sine m(1), the softmax m(0.5)²
    assert alone.mscale_all_dim == 0.5
    temperature = 0.1 * math.log(40) + 1
    assert amplitude(Rope(scaling=alone)) == pytest.approx(temperature)
    assert read(attention_factor=1.0, mscale_all_dim=0.5).mscale == 0.5
    refuses_factor = {"attention_factor": 0.2, "mscale_all_dim": 0.5}
    with pytest.raises(
        ValueError, match=r"attention_factor is 0\.2, but with mscale_all"
    ):
        read(**refuses_factor)


# FP8


def to_fp8(folder: Path, keep: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    """Quantise as released: the matrices of attention and experts, in blocks. Returns
    what the matrices are afterwards.
    """
    tensors, after = load_file(folder / SINGLE), {}
    for name in list(tensors):
        module = name.rpartition(".")[0]
        linear = module.endswith(("_proj", "_proj_with_mqa")) and "eh_proj" not in name
        if linear and name not in keep:
            values, scale_inv = quantise(tensors[name], (128, 128))
            tensors[name] = values.contiguous()
            tensors[f"{name}_scale_inv"] = scale_inv
            wide = scale_inv.repeat_interleave(128, 0).repeat_interleave(128, 1)
            rows, columns = values.shape
            after[name] = values.float() * wide[:rows, :columns]
    save_file(tensors, folder / SINGLE)
    quantised = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}
    edit_config(
        folder, quantization_config={**quantised, "weight_block_size": [128, 128]}
    )
    return after


@pytest.fixture(scope="module")
def fp8(tmp_path_factory):
    """A V3 whose matrices have several blocks, the last ones not whole, and what they
    are after quantising.
    """
    attention = replace(LATENTS, n_heads=9, q_lora_rank=130, kv_lora_rank=150)
    moe = replace(
        sparse_config("v3").moe, inter_dim=140, n_routed_experts=4, n_groups=2
    )
    changes = {"dim": 264, "attention": attention, "moe": moe, "n_layers": 2}
    folder = tmp_path_factory.mktemp("fp8")
    dm.save(sparse_model("v3", **changes), folder)
    return folder, to_fp8(folder)


@pytest.mark.parametrize("chunk_bytes", [2**25, 1, 300_000])
def test_an_fp8_folder_is_loaded_dequantised(fp8, monkeypatch, chunk_bytes):
    monkeypatch.setattr(hf_files, "CHUNK_BYTES", chunk_bytes)
    folder, expected = fp8
    assert len(expected) == 8 + 20 + 20  # a dense layer, a sparse one, MTP's block
    model = dm.load(folder)
    found = dict(released_values(model))
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert model(random_tokens(1, 9)).isfinite().all()
    assert dm.load(folder, dtype=torch.bfloat16).embed.weight.dtype == torch.bfloat16


def released_values(model: dm.Transformer):
    for name, parameter in model.named_parameters():
        released = released_name(name, model.config.n_layers)
        if "*" in released:
            for e, value in enumerate(parameter):
                yield released.replace("*", str(e)), value
        else:
            yield released, parameter


def test_fp8_scales_that_are_missing_or_misshapen(folder):
    to_fp8(folder)
    scales = f"{EXPERT}_scale_inv"
    edit_tensors(folder / SINGLE, **{scales: None})
    refuses(folder, EXPERT, "F8_E4M3", scales, SINGLE)
    for wrong in (torch.ones(1), torch.ones(2, 1), torch.ones(1, 1).bfloat16()):
        edit_tensors(folder / SINGLE, **{scales: wrong})
        refuses(folder, scales, str(list(wrong.shape)), "[1, 1]", "128 x 128", SINGLE)
    edit_tensors(folder / SINGLE, **{scales: torch.ones(1, 1)})
    dm.load(folder)
    edit_tensors(folder / SINGLE, **{"model.norm.weight_scale_inv": torch.ones(1, 1)})
    refuses(folder, "model.norm.weight_scale_inv", "has no place")


def test_scales_of_what_is_not_fp8(folder):
    to_fp8(folder, keep=(EXPERT,))
    dm.load(folder)
    edit_tensors(folder / SINGLE, **{f"{EXPERT}_scale_inv": torch.ones(1, 1)})
    refuses(folder, f"{EXPERT}_scale_inv", "has no place")


# A format of our own, for what no release has


OWN = {
    "gqa_mtp": {"mtp": MTP(2)},
    "gqa_v3": {"moe": sparse_config("v3").moe, "n_dense_layers": 1},
    "gqa_bias_moe": {"attention": GQA(4, 2, 10, bias=True), "moe": EXPERTS},
    "wide_heads_moe": {"attention": GQA(4, 2, 12), "moe": EXPERTS},
    "no_shared": {"attention": LATENTS, "moe": replace(EXPERTS, n_shared_experts=0)},
    "softmax_norm": {"attention": LATENTS, "moe": replace(EXPERTS, norm_topk=True)},
    "softmax_bias": {"attention": LATENTS, "moe": replace(EXPERTS, bias=True)},
    "sigmoid": {"attention": LATENTS, "moe": replace(EXPERTS, score="sigmoid")},
    "v2_mtp": {"attention": LATENTS, "moe": EXPERTS, "mtp": MTP(1)},
    "yarn": {"mtp": MTP(1), "rope": Rope(100, "interleaved", Yarn(4, 16))},
    "linear": {"mtp": MTP(1), "rope": Rope(100, "half_split", Linear(2.5))},
}


@pytest.mark.parametrize("name", OWN)
def test_what_no_release_has_is_saved_in_a_format_of_our_own(tmp_path, name):
    model = small_model(**OWN[name])
    with pytest.warns(UserWarning, match="no model there has these parts") as caught:
        dm.save(model, tmp_path)
    assert len(caught) == 1
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == (
        "deepseek_mini"
    )
    back = dm.load(tmp_path)
    assert back.config == model.config and equal(back, model)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("dim"), ["dim is missing"]),
        (lambda c: c.update(width=3), ["width is no field of Config"]),
        (lambda c: c.update(dim="40"), ["Config.dim is '40'"]),
        (lambda c: c.update(rope=None), ["Config.rope is None"]),
        (lambda c: c["attention"].pop("n_heads"), ["attention.n_heads is missing"]),
        (lambda c: c["attention"].update(kind="Mamba"), ["attention.kind is 'Mamba'"]),
        (lambda c: c["attention"].pop("kind"), ["attention.kind is None"]),
        (lambda c: c["mtp"].update(depth=0), ["MTP.depth is 0"]),
        (
            lambda c: c.update(attention={"kind": "MTP", "depth": 1}),
            ["attention is MTP"],
        ),
    ],
)
def test_what_our_own_format_refuses(tmp_path, change, words):
    with warnings.catch_warnings(action="ignore"):
        dm.save(small_model(mtp=MTP(1)), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    change(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    refuses(tmp_path, *words, "config.json")


@pytest.mark.parametrize("name", ["deepseek-moe-mini", "deepseek-v2-mini",
                                  "deepseek-v3-mini"])  # fmt: skip
def test_the_miniatures_are_saved_as_the_released_models_are(tmp_path, name):
    model = dm.Transformer(dm.Config.preset(name))
    with warnings.catch_warnings(action="error"):
        dm.save(model, tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())["model_type"]
    kinds = {"moe": "deepseek", "v2": "deepseek_v2", "v3": "deepseek_v3"}
    assert said == kinds[name.split("-")[1]]
    assert dm.load(tmp_path).config == model.config


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_stays_near_the_size_of_the_model(tmp_path):
    """Of experts that are stacked from tensors in FP8."""
    moe = replace(sparse_config("v3").moe, inter_dim=256, n_routed_experts=24)
    config = sparse_config("v3", dim=512, n_layers=5, moe=moe, mtp=None)
    dm.save(dm.Transformer(config), tmp_path)
    dm.save(sparse_model("v3"), tmp_path / "small")
    to_fp8(tmp_path / "small")
    to_fp8(tmp_path)
    code = """
import re, sys, deepseek_mini as dm
def peak():
    status = open("/proc/self/status").read()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024
dm.load(sys.argv[1] + "/small")  # what the libraries themselves need does not count
before = peak()
model = dm.load(sys.argv[1])
print((peak() - before) / sum(p.nbytes for p in model.parameters()))
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert 0.8 < float(run.stdout) < 1.25, run.stdout
