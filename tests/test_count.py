"""`count` equals what the built model has, and what the papers publish."""

import dataclasses

import pytest
import torch
from helpers import small_config, small_model, sparse_model

import deepseek_mini as dm
from deepseek_mini.config import GQA, MTP
from deepseek_mini.model import ops
from deepseek_mini.presets import PRESETS

PUBLISHED = {  # billions of parameters, from the papers and model cards
    "deepseek-llm-7b": 6.9,
    "deepseek-llm-67b": 67.4,
    "deepseek-coder-1.3b": 1.3,
    "deepseek-coder-6.7b": 6.7,
    "deepseek-coder-33b": 33.3,
    "deepseek-math-7b": 6.9,
    "deepseek-moe-16b": 16.4,
    "deepseek-v2-lite": 15.7,
    "deepseek-v2": 235.7,
    "deepseek-coder-v2-lite": 15.7,
    "deepseek-coder-v2": 235.7,
    "deepseek-v3": 671.0,
    "deepseek-r1": 671.0,
    "deepseek-r1-distill-qwen-1.5b": 1.777,
    "deepseek-r1-distill-qwen-7b": 7.6,
    "deepseek-r1-distill-llama-8b": 8.0,
}


# Billions of active parameters by three conventions: without the embedding and the
# head, with the head, with both; then what the papers print, which follows no single
# one of them.
ACTIVE = {
    "deepseek-moe-16b": (2.41, 2.62, 2.83, 2.8),
    "deepseek-v2-lite": (2.24, 2.45, 2.66, 2.4),
    "deepseek-v2": (20.3, 20.9, 21.4, 21),
    "deepseek-v3": (35.7, 36.6, 37.6, 37),
}


def parameters_of(model, mtp: bool) -> int:
    named = model.named_parameters()
    return sum(p.numel() for n, p in named if n.startswith("mtp.") == mtp)


def check_against_the_model(model):
    report = dm.count(model.config)
    assert report.parameters == parameters_of(model, mtp=False)
    assert report.mtp_parameters == parameters_of(model, mtp=True)
    assert report.parameters == sum(report.parts.values())
    moe, selected = model.config.moe, report.parameters
    if moe is not None:  # an expert's numbers, as they stand in the stack
        layers = [layer.ffn for layer in model.layers if hasattr(layer.ffn, "gate")]
        one = sum(p[0].numel() for p in layers[0].experts.parameters())
        idle = moe.n_routed_experts - moe.n_activated_experts
        selected -= len(layers) * idle * one
    assert report.active_parameters == selected


@pytest.mark.parametrize("name", PRESETS)
def test_equals_the_built_model(name):
    with torch.device("meta"):
        check_against_the_model(dm.Transformer(dm.Config.preset(name)))


@pytest.mark.parametrize(
    "changes",
    [
        {"tie_embeddings": True},
        {"attention": GQA(4, 1, 10, bias=True)},
        {"attention": GQA(3, 3, 14), "n_layers": 1},
        {"mtp": MTP(2)},
    ],
)
def test_equals_a_model_of_odd_sizes(changes):
    check_against_the_model(small_model(**changes))


@pytest.mark.parametrize("family", ["moe", "v2", "v3"])
@pytest.mark.parametrize("n_dense_layers", [0, 1, 3])
def test_equals_a_sparse_model_of_odd_sizes(family, n_dense_layers):
    model = sparse_model(family, n_dense_layers=n_dense_layers, mtp=MTP(2))
    if n_dense_layers < 3:
        check_against_the_model(model)
    else:
        report = dm.count(model.config)
        assert report.active_parameters == parameters_of(model, mtp=False)
    attention = dataclasses.replace(model.config.attention)
    if hasattr(attention, "q_lora_rank"):
        attention = dataclasses.replace(attention, q_lora_rank=None)
    check_against_the_model(sparse_model(family, attention=attention))


@pytest.mark.parametrize("name", ACTIVE)
def test_active_parameters_by_three_conventions(name):
    config = dm.Config.preset(name)
    vocabulary = config.vocab_size * config.dim
    both = dm.count(config).active_parameters
    counted = [(both - n * vocabulary) / 1e9 for n in (2, 1, 0)]
    *conventions, published = ACTIVE[name]
    for ours, expected in zip(counted, conventions, strict=True):
        assert float(f"{ours:.3g}") == expected
    assert counted[0] < published * 1.03 and published < counted[2]


def test_mtp_parameters_of_v3():
    report = dm.count(dm.Config.preset("deepseek-v3"))
    assert round(report.mtp_parameters / 1e9, 1) == 11.6
    assert dm.count(dm.Config.preset("deepseek-v2")).mtp_parameters == 0


def test_caches_of_the_family():
    """A latent and a key of RoPE: 576 numbers a token and layer, in V2 as in V3."""
    for name, layers in (("deepseek-v2-lite", 27), ("deepseek-v2", 60)):
        report = dm.count(dm.Config.preset(name), seq_len=131_072)
        assert report.kv_cache_bytes_per_token == 2 * 576 * layers
    v3 = dm.count(dm.Config.preset("deepseek-v3"), seq_len=131_072)
    assert v3.kv_cache_bytes_per_token == 70_272
    assert round(v3.kv_cache_bytes / 1e9, 1) == 9.2
    moe = dm.count(dm.Config.preset("deepseek-moe-16b"))
    assert moe.kv_cache_bytes_per_token == 2 * 2 * 2048 * 28


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_totals(name):
    digits = len(str(PUBLISHED[name]).split(".")[1])
    billions = dm.count(dm.Config.preset(name)).parameters / 1e9
    assert abs(billions - PUBLISHED[name]) < 0.6 * 10**-digits


def test_tied_distill_would_be_smaller():
    config = dm.Config.preset("deepseek-r1-distill-qwen-1.5b")
    tied = dataclasses.replace(config, tie_embeddings=True)
    assert round(dm.count(tied).parameters / 1e9, 3) == 1.544


def test_67b_cache_with_and_without_grouped_queries():
    config = dm.Config.preset("deepseek-llm-67b")
    full = dataclasses.replace(config, attention=GQA(64, 64, 128))
    assert dm.count(config).kv_cache_bytes_per_token == 389_120  # 0.39 MB
    assert dm.count(full).kv_cache_bytes_per_token == 3_112_960  # 3.1 MB
    at_128k = dm.count(full, seq_len=131_072)
    assert round(at_128k.kv_cache_bytes / 1e9) == 408
    halved = dm.count(full, seq_len=131_072, cache_dtype=torch.float8_e4m3fn)
    assert halved.kv_cache_bytes * 2 == at_128k.kv_cache_bytes


@pytest.mark.parametrize("family", [None, "moe", "v2", "v3"])
def test_cache_bytes_equal_a_real_cache(family):
    model = sparse_model(family) if family else small_model()
    cache = model.new_cache(1, 48)
    assert cache.nbytes == dm.count(model.config, 48, torch.float32).kv_cache_bytes


MODELS = {
    "gqa": lambda: small_model(attention=GQA(4, 2, 10, bias=True)),
    "moe": lambda: sparse_model("moe"),
    "v2": lambda: sparse_model("v2"),
    "v3": lambda: sparse_model("v3"),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("context", [2, 17])
def test_flops_equal_those_that_pytorch_counts(monkeypatch, name, context):
    """One token decoded with a cache, every product counted by PyTorch itself, which
    does not know its own fused attention on a CPU: so that is the readable one. The
    latents' keys are handed over as values too, for the fused one's sake: what counts
    is the latents among them.
    """
    from torch.utils.flop_counter import FlopCounterMode

    model = MODELS[name]()
    latent = getattr(model.config.attention, "kv_lora_rank", None)

    def readable(q, k, v, *rest):
        return ops.naive_attention(q, k, v[..., :latent] if v is k else v, *rest)

    monkeypatch.setattr(ops, "attention", readable)
    tokens = torch.zeros(1, context, dtype=torch.int64)
    cache = model.new_cache(1, context)
    with torch.no_grad(), dm.paths(attention="absorbed", moe="loop"):
        model(tokens[:, 1:], cache=cache)
        with FlopCounterMode(display=False) as counter:
            model(tokens[:, :1], cache=cache)
    assert dm.count(model.config, context).flops_per_token == counter.get_total_flops()


def test_no_module_is_built(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("count built a module")

    monkeypatch.setattr(torch.nn.Module, "__init__", refuse)
    assert dm.count(dm.Config.preset("deepseek-llm-67b")).parameters > 67e9


def test_print_has_units():
    text = str(dm.count(dm.Config.preset("deepseek-llm-67b"), seq_len=4096))
    for expected in ("67.4 B", "389 kB", "1.59 GB", "146 GFLOP/token", "4,096 tokens"):
        assert expected in text, text
    assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seq_len": 0}, "seq_len is 0"),
        ({"seq_len": -5}, "seq_len is -5"),
        ({"cache_dtype": "bfloat16"}, "cache_dtype"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(Exception, match=words):
        dm.count(small_config(), **arguments)


def test_what_is_no_config():
    with pytest.raises(Exception, match="Config"):
        dm.count("deepseek-llm-7b")
