"""Configs: impossible ones are refused in one sentence, differences are listed."""

from dataclasses import FrozenInstanceError, replace

import pytest

import deepseek_mini as dm
from deepseek_mini.config import (
    GQA,
    MLA,
    MTP,
    Config,
    Linear,
    Llama3,
    MoE,
    Rope,
    SwiGLU,
    Yarn,
)
from deepseek_mini.presets import PRESETS


def small(**changes) -> Config:
    config = Config(
        vocab_size=50,
        dim=16,
        n_layers=2,
        max_seq_len=32,
        attention=GQA(n_heads=4, n_kv_heads=2, head_dim=4),
        dense=SwiGLU(inter_dim=24),
    )
    return replace(config, **changes)


def moe(**changes) -> MoE:
    values = {"n_routed_experts": 8, "n_shared_experts": 1, "n_activated_experts": 2}
    return MoE(**{**values, "inter_dim": 12, **changes})


@pytest.mark.parametrize(
    ("make", "field", "rule"),
    [
        (lambda: small(vocab_size=0), "Config.vocab_size is 0", "at least 1"),
        (lambda: small(dim=16.0), "Config.dim is 16.0", "whole number"),
        (lambda: small(n_layers=-1), "Config.n_layers is -1", "at least 1"),
        (lambda: small(max_seq_len=True), "Config.max_seq_len is True", "whole number"),
        (lambda: small(norm_eps=0), "Config.norm_eps is 0", "positive"),
        (lambda: small(attention=None), "Config.attention is None", "GQA"),
        (lambda: small(rope=None), "Config.rope is None", "Rope"),
        (lambda: GQA(6, 4, 8), "GQA.n_kv_heads is 4", "must divide n_heads (6)"),
        (lambda: GQA(6, 2, 7), "GQA.head_dim is 7", "must be even"),
        (lambda: SwiGLU(0), "SwiGLU.inter_dim is 0", "at least 1"),
        (lambda: Rope(theta=1.0), "Rope.theta is 1.0", "larger than 1"),
        (lambda: Rope(layout="half"), "Rope.layout is 'half'", "'half_split'"),
        (lambda: Rope(scaling="yarn"), "Rope.scaling is 'yarn'", "Yarn(...)"),
        (lambda: Linear(factor=0), "Linear.factor is 0", "positive"),
        (lambda: Yarn(4, 0), "Yarn.original_seq_len is 0", "at least 1"),
        (lambda: Yarn(4, 64, beta_fast=1), "Yarn.beta_fast is 1", "beta_slow (1)"),
        (lambda: Yarn(4, 64, mscale=-1), "Yarn.mscale is -1", "at least 0"),
        (lambda: Yarn(4, 64, mscale="1"), "Yarn.mscale is '1'", "number of at least 0"),
        (lambda: GQA(4, 2, 8, bias="no"), "GQA.bias is 'no'", "True or False"),
        (lambda: small(tie_embeddings=1), "Config.tie_embeddings is 1", "True or"),
        (lambda: Llama3(8, 64, 1, "4"), "Llama3.high_freq_factor is '4'", "positive"),
        (lambda: Config.preset(["x"]), "there is no preset ['x']", "deepseek-llm-7b"),
        (lambda: Llama3(8, 64, high_freq_factor=1), "high_freq_factor is 1", "larger"),
        (lambda: MLA(4, 0, 8, 8, 4, 8), "MLA.q_lora_rank is 0", "at least 1"),
        (lambda: MLA(4, None, None, 8, 4, 8), "MLA.kv_lora_rank is None", "at least 1"),
        (lambda: MLA(4, None, 8, 8, 3, 8), "MLA.qk_rope_head_dim is 3", "even"),
        (lambda: moe(n_routed_experts=0), "MoE.n_routed_experts is 0", "at least 1"),
        (lambda: moe(n_shared_experts=-1), "MoE.n_shared_experts is -1", "at least 0"),
        (lambda: moe(n_activated_experts=9), "MoE.n_activated_experts is 9", "only 8"),
        (lambda: moe(score="relu"), "MoE.score is 'relu'", "'sigmoid'"),
        (lambda: moe(bias=0), "MoE.bias is 0", "True or False"),
        (lambda: moe(norm_topk="no"), "MoE.norm_topk is 'no'", "True or False"),
        (lambda: moe(route_scale=0), "MoE.route_scale is 0", "positive"),
        (lambda: moe(n_groups=3), "MoE.n_groups is 3", "divide n_routed_experts (8)"),
        (
            lambda: moe(n_groups=2, n_limited_groups=3),
            "MoE.n_limited_groups is 3",
            "at most n_groups (2)",
        ),
        (
            lambda: moe(n_groups=4, n_activated_experts=3),
            "MoE.n_activated_experts is 3",
            "only 2 experts",
        ),
        (
            lambda: moe(n_groups=8, n_limited_groups=8, bias=True),
            "MoE.n_groups is 8",
            "at least two",
        ),
        (lambda: MTP(0), "MTP.depth is 0", "at least 1"),
        (lambda: small(moe="deepseek"), "Config.moe is 'deepseek'", "MoE(...) or None"),
        (lambda: small(mtp=1), "Config.mtp is 1", "MTP(...) or None"),
        (lambda: small(n_dense_layers=1), "Config.n_dense_layers is 1", "without moe"),
        (
            lambda: small(moe=moe(), n_dense_layers=3),
            "Config.n_dense_layers is 3",
            "at most n_layers (2)",
        ),
        (lambda: Config.preset("deepseek-v9"), "'deepseek-v9'", "deepseek-llm-7b"),
    ],
)
def test_an_impossible_config_names_field_value_and_rule(make, field, rule):
    with pytest.raises(ValueError) as error:
        make()
    assert field in str(error.value)
    assert rule in str(error.value)
    assert "\n" not in str(error.value)


def test_a_config_is_frozen():
    with pytest.raises(FrozenInstanceError):
        small().dim = 32


def test_diff_compares_parts_field_by_field():
    llm_7b, llm_67b = Config.preset("deepseek-llm-7b"), PRESETS["deepseek-llm-67b"]
    changed = {field: (a, b) for field, a, b in dm.diff(llm_7b, llm_67b)}
    assert changed == {
        "dim": (4096, 8192),
        "n_layers": (30, 95),
        "attention.n_heads": (32, 64),
        "attention.n_kv_heads": (32, 8),
        "dense.inter_dim": (11_008, 22_016),
    }


def test_diff_shows_a_part_of_another_kind_as_a_whole():
    a, b = small(), small(rope=Rope(scaling=Linear(4)))
    assert list(dm.diff(a, b)) == [("rope.scaling", None, Linear(4))]
    assert str(dm.diff(a, a)) == "no difference"
    assert str(dm.diff(a, b)) == "rope.scaling  None -> Linear(factor=4)"


def test_the_family_is_a_list_of_small_changes():
    def fields(a: str, b: str) -> set[str]:
        return {name for name, _, _ in dm.diff(PRESETS[a], PRESETS[b])}

    assert fields("deepseek-llm-mini", "deepseek-moe-mini") == {"moe", "n_dense_layers"}
    assert fields("deepseek-moe-mini", "deepseek-v2-mini") == {
        "attention",
        "rope.layout",
        "moe.n_groups",
        "moe.n_limited_groups",
    }
    assert fields("deepseek-v2-mini", "deepseek-v3-mini") == {
        "moe.score",
        "moe.bias",
        "moe.norm_topk",
        "moe.route_scale",
        "mtp",
    }
    assert fields("deepseek-v3", "deepseek-r1") == set()


@pytest.mark.parametrize("name", PRESETS)
def test_heads_of_the_released_models_are_128_wide(name):
    config, part = PRESETS[name], PRESETS[name].attention
    if isinstance(part, MLA):
        if not name.endswith("mini"):
            widths = part.qk_nope_head_dim, part.qk_rope_head_dim, part.v_head_dim
            assert widths == (128, 64, 128)
    else:
        if not name.endswith("mini"):
            assert part.head_dim == 128
        assert part.n_heads * part.head_dim == config.dim
