"""`count` equals what the built model has, and what the papers publish."""

import dataclasses

import pytest
import torch
from helpers import small_config, small_model

import deepseek_mini as dm
from deepseek_mini.config import GQA
from deepseek_mini.presets import PRESETS

DENSE = [name for name, config in PRESETS.items() if isinstance(config.attention, GQA)]
PUBLISHED = {  # billions of parameters, from the papers and model cards
    "deepseek-llm-7b": 6.9,
    "deepseek-llm-67b": 67.4,
    "deepseek-coder-1.3b": 1.3,
    "deepseek-coder-6.7b": 6.7,
    "deepseek-coder-33b": 33.3,
    "deepseek-math-7b": 6.9,
    "deepseek-r1-distill-qwen-1.5b": 1.777,
    "deepseek-r1-distill-qwen-7b": 7.6,
    "deepseek-r1-distill-llama-8b": 8.0,
}


@pytest.mark.parametrize("name", DENSE)
def test_equals_the_built_model(name):
    config = dm.Config.preset(name)
    with torch.device("meta"):
        model = dm.Transformer(config)
    report = dm.count(config)
    assert report.parameters == sum(p.numel() for p in model.parameters())
    assert report.active_parameters == report.parameters == sum(report.parts.values())
    assert report.mtp_parameters == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"tie_embeddings": True},
        {"attention": GQA(4, 1, 10, bias=True)},
        {"attention": GQA(3, 3, 14), "n_layers": 1},
    ],
)
def test_equals_a_model_of_odd_sizes(changes):
    model = small_model(**changes)
    built = sum(p.numel() for p in model.parameters())
    assert dm.count(model.config).parameters == built


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


def test_cache_bytes_equal_a_real_cache():
    model = small_model()
    cache = model.new_cache(1, 48)
    assert cache.nbytes == dm.count(model.config, 48, torch.float32).kv_cache_bytes


@pytest.mark.parametrize("context", [2, 17])
def test_flops_equal_those_that_pytorch_counts(context):
    """One token decoded with a cache, every product counted by PyTorch itself."""
    from torch.utils.flop_counter import FlopCounterMode

    model = small_model(attention=GQA(4, 2, 10, bias=True))
    tokens = torch.zeros(1, context, dtype=torch.int64)
    cache = model.new_cache(1, context)
    with torch.no_grad(), dm.paths(attention="naive"):
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
