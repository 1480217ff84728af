"""Folders in and out: sound ones are read, bad ones named, nothing half-written."""

import errno
import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import random_tokens, small_config, small_model
from safetensors.torch import load_file, save_file

import deepseek_mini as dm
from deepseek_mini import hf_files
from deepseek_mini.config import GQA, Linear, Llama3, Rope, Yarn
from deepseek_mini.hf_config import read_config
from deepseek_mini.hf_names import released_name, to_half_split

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A sound folder in one file."""
    dm.save(small_model(), tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def sharded(tmp_path) -> Path:
    """A sound folder in several files."""
    dm.save(small_model(), tmp_path / "model", max_shard_bytes=40_000)
    return tmp_path / "model"


def edit_config(folder: Path, **changes) -> None:
    """Change fields of config.json; those set to `...` are removed."""
    values = json.loads((folder / "config.json").read_text()) | changes
    values = {name: value for name, value in values.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(values))


def edit_tensors(file: Path, **changes) -> None:
    tensors = load_file(file) | changes
    save_file({n: t for n, t in tensors.items() if t is not None}, file)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(f.relative_to(folder)): f.read_bytes()
        for f in folder.rglob("*")
        if f.is_file()
    }


def refuses(
    folder: Path | str, *words: str, kind: type[Exception] = ValueError
) -> None:
    """Loading fails with one line that holds all the words."""
    with pytest.raises(kind) as caught:
        dm.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


# In and out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_what_is_saved_is_loaded(tmp_path, dtype):
    model = small_model(attention=GQA(4, 1, 10, bias=True)).to(dtype)
    dm.save(model, tmp_path / "a" / "b")
    back = dm.load(tmp_path / "a" / "b", dtype=dtype)
    assert not back.training and back.config == model.config
    for (name, ours), (_, theirs) in zip(
        model.named_parameters(), back.named_parameters(), strict=True
    ):
        assert theirs.dtype == dtype and theirs.requires_grad, name
        assert torch.equal(ours, theirs), name
    assert torch.equal(back(random_tokens(2, 9)), model(random_tokens(2, 9)))


def test_types_are_converted(tmp_path):
    model = small_model().to(torch.bfloat16)
    dm.save(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    wide = dm.load(tmp_path)
    assert all(p.dtype == torch.float32 for p in wide.parameters())
    assert torch.equal(wide.head.weight, model.head.weight.float())
    with pytest.raises(ValueError, match=r"dtype is torch\.int8"):
        dm.load(tmp_path, dtype=torch.int8)


def test_tied_weights_stay_one_tensor(tmp_path):
    dm.save(small_model(tie_embeddings=True), tmp_path)
    back = dm.load(str(tmp_path))
    assert back.head.weight is back.embed.weight
    assert "lm_head.weight" not in load_file(tmp_path / SINGLE)


def test_a_loaded_model_trains(folder):
    model = dm.load(folder)
    model(random_tokens(2, 9)).square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_shards(sharded):
    index = json.loads((sharded / INDEX).read_text())
    files = sorted(set(index["weight_map"].values()))
    assert files == [f"model-{i:05}-of-00005.safetensors" for i in range(1, 6)]
    assert sorted(f.name for f in sharded.iterdir()) == sorted(
        [*files, INDEX, "config.json"]
    )
    model = small_model()
    assert index["metadata"]["total_size"] == sum(p.nbytes for p in model.parameters())
    for file in files:
        tensors = load_file(sharded / file)
        assert sum(t.nbytes for t in tensors.values()) <= 40_000
        assert all(index["weight_map"][name] == file for name in tensors)
    tokens = random_tokens(2, 9)
    assert torch.equal(dm.load(sharded)(tokens), model(tokens))
    with pytest.raises(ValueError, match="max_shard_bytes is 0"):
        dm.save(model, sharded, max_shard_bytes=0)


def test_shards_without_an_index_and_other_names(sharded):
    (sharded / INDEX).unlink()
    tokens = random_tokens(2, 9)
    assert torch.equal(dm.load(sharded)(tokens), small_model()(tokens))


def test_interleaved_is_saved_as_half_split(tmp_path):
    model = small_model(rope=Rope(1e4, "interleaved"))
    dm.save(model, tmp_path)
    assert dm.load(tmp_path).config.rope.layout == "half_split"
    rows = torch.arange(12)  # two heads of 6
    expected = [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]
    assert to_half_split(rows, 6).tolist() == expected
    assert to_half_split(rows[:, None], 6)[:, 0].tolist() == expected


def test_names():
    assert (
        released_name("layers.12.ffn.w2.weight")
        == "model.layers.12.mlp.down_proj.weight"
    )
    assert (
        released_name("layers.0.attn.wq.bias") == "model.layers.0.self_attn.q_proj.bias"
    )
    with pytest.raises(ValueError, match=r"layers\.0\.attn\.lora\.weight"):
        released_name("layers.0.attn.lora.weight")


def test_permissions_are_those_of_any_new_file(folder):
    plain = folder / "plain"
    plain.touch()
    assert (folder / SINGLE).stat().st_mode == plain.stat().st_mode


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_stays_near_the_size_of_the_model(tmp_path):
    """Shards of 30 MB in bfloat16, loaded as float32 by a process of its own, which
    imports neither the hub's package nor transformers for it.
    """
    config = small_config(
        vocab_size=8192, dim=512, n_layers=12, attention=GQA(8, 8, 64)
    )
    dm.save(dm.Transformer(config).to(torch.bfloat16), tmp_path, 30_000_000)
    dm.save(small_model(), tmp_path / "small")
    code = """
import re, sys, deepseek_mini as dm
def peak():
    status = open("/proc/self/status").read()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024
dm.load(sys.argv[1] + "/small")  # what the libraries themselves need does not count
before = peak()
model = dm.load(sys.argv[1])
print((peak() - before) / sum(p.nbytes for p in model.parameters()))
assert not {"huggingface_hub", "transformers"} & set(sys.modules)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert 0.8 < float(run.stdout) < 1.2, run.stdout


# What config.json may say


def test_the_older_style_of_config(folder):
    edit_config(
        folder,
        rope_parameters=...,
        rope_theta=5e5,
        rope_scaling={
            "type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        head_dim=...,
        architectures=...,
        torch_dtype="bfloat16",
        dtype=...,
    )
    config = read_config(folder / "config.json")
    assert config.rope == Rope(5e5, "half_split", Llama3(8, 8192, 1, 4))
    assert config.attention.head_dim == 10


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"rope_scaling": None, "rope_theta": ..., "rope_parameters": ...}, None),
        ({"rope_scaling": {"type": "linear", "factor": 4}}, Linear(4)),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}},
            Yarn(2, 64),  # the original context is the present one unless it is said
        ),
        (
            {
                "rope_scaling": {"rope_type": "yarn", "factor": None},
                "original_max_position_embeddings": 16,
            },
            Yarn(4, 16),
        ),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4, "mscale": 0.7}},
            Yarn(4, 64),  # as in transformers, mscale counts only with mscale_all_dim
        ),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4, "attention_factor": 1.0}},
            Yarn(4, 64, mscale=0.0),
        ),
    ],
)
def test_rope_fields(folder, fields, expected):
    edit_config(folder, **fields)
    rope = read_config(folder / "config.json").rope
    assert rope == Rope(1e4, "half_split", expected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"architectures": ["MambaForCausalLM"]},
            ["architectures", "MambaForCausalLM"],
        ),
        ({"architectures": ..., "model_type": "mamba"}, ["model_type is 'mamba'"]),
        ({"architectures": ..., "model_type": ...}, ["model_type is missing"]),
        ({"hidden_size": ...}, ["hidden_size is missing"]),
        ({"hidden_size": "40"}, ["hidden_size is '40'", "int"]),
        ({"num_hidden_layers": True}, ["num_hidden_layers is True"]),
        ({"num_hidden_layers": 0}, ["num_hidden_layers is 0"]),
        ({"num_attention_heads": 0}, ["num_attention_heads is 0"]),
        ({"num_key_value_heads": 3}, ["n_kv_heads is 3"]),
        ({"hidden_act": "gelu"}, ["hidden_act is 'gelu'"]),
        ({"attention_bias": True}, ["attention_bias is True"]),
        ({"mlp_bias": True}, ["mlp_bias is True"]),
        ({"dtype": "float8_e4m3fn"}, ["dtype is 'float8_e4m3fn'"]),
        ({"torch_dtype": "int3"}, ["torch_dtype is 'int3'"]),
        ({"quantization_config": {"bits": 4}}, ["quantization_config"]),
        ({"use_sliding_window": True}, ["use_sliding_window is True"]),
        ({"layer_types": ["sliding_attention"] * 3}, ["layer_types"]),
        ({"partial_rotary_factor": 0.5}, ["partial_rotary_factor is 0.5"]),
        ({"rope_parameters": [1]}, ["rope_parameters is [1]"]),
        ({"rope_parameters": {"rope_type": "longrope"}}, ["rope_type is 'longrope'"]),
        ({"rope_parameters": {"rope_type": "linear"}}, ["rope_parameters.factor"]),
        ({"rope_scaling": {"type": "yarn", "factor": -1}}, ["Yarn.factor is -1"]),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4, "truncate": False}},
            ["rope_scaling.truncate is False"],
        ),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4, "attention_factor": 0}},
            ["rope_scaling.attention_factor is 0"],
        ),
        (
            {"rope_scaling": {"type": "yarn", "original_max_position_embeddings": 0}},
            ["rope_scaling.original_max_position_embeddings is 0"],
        ),
        ({"architectures": [["a"]]}, ["architectures is [['a']]"]),
        ({"architectures": [{"a": 1}]}, ["architectures is [{'a': 1}]"]),
        ({"architectures": {"a": 1}}, ["architectures is {'a': 1}"]),
        ({"layer_types": 5}, ["layer_types is 5", "list"]),
        ({"hidden_size": 10**30}, ["hidden_size is 1000", str(2**53)]),
        (
            {"hidden_size": 2**45, "vocab_size": 2**45},
            ["hidden_size is 35184372088832"],
        ),
        ({"num_hidden_layers": -1}, ["num_hidden_layers is -1"]),
        ({"rms_norm_eps": 10**400}, ["rms_norm_eps is 1000"]),
        ({"rms_norm_eps": float("nan")}, ["rms_norm_eps is nan"]),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 5e5}}},
            ["rope_parameters.full_attention is an object", "every layer"],
        ),
    ],
)
def test_fields_that_are_refused(folder, changes, words):
    edit_config(folder, **changes)
    refuses(folder, *words, "config.json")


def test_a_config_that_is_none(folder):
    (folder / "config.json").write_text("{")
    refuses(folder, "config.json", "JSON")
    (folder / "config.json").write_text("[]")
    refuses(folder, "config.json", "JSON object")
    (folder / "config.json").write_bytes(b"\xff\xfe{}")
    refuses(folder, "config.json")
    (folder / "config.json").write_text('{"a":' * 200_000)
    refuses(folder, "config.json is nested too deeply")
    (folder / "config.json").unlink()
    refuses(folder, "config.json", kind=FileNotFoundError)
    (folder / "config.json").mkdir()
    refuses(folder, "config.json is a folder", kind=IsADirectoryError)


def test_a_byte_order_mark_is_skipped(sharded):
    for name in ("config.json", INDEX):
        (sharded / name).write_bytes(b"\xef\xbb\xbf" + (sharded / name).read_bytes())
    assert dm.load(sharded).config == small_config()


# Tensors that do not fit

GATE = "model.layers.1.mlp.gate_proj.weight"


def test_a_missing_tensor(folder):
    edit_tensors(folder / SINGLE, **{GATE: None})
    refuses(folder, GATE, SINGLE, str(folder))


def test_a_tensor_missing_from_shards_and_index(sharded):
    index = json.loads((sharded / INDEX).read_text())
    file = index["weight_map"].pop(GATE)
    edit_tensors(sharded / file, **{GATE: None})
    (sharded / INDEX).write_text(json.dumps(index))
    refuses(sharded, GATE, INDEX)
    index["weight_map"][GATE] = file
    (sharded / INDEX).write_text(json.dumps(index))
    refuses(sharded, GATE, str(sharded / file), INDEX)


def test_an_extra_tensor(folder):
    edit_tensors(folder / SINGLE, **{"model.layers.9.mlp.bias": torch.ones(3)})
    refuses(folder, "model.layers.9.mlp.bias", str(folder / SINGLE))


def test_a_layer_too_many_and_too_few(folder):
    edit_config(folder, num_hidden_layers=2)
    refuses(folder, "model.layers.2.", str(folder / SINGLE))
    edit_config(folder, num_hidden_layers=4)
    refuses(folder, "model.layers.3.", "more", SINGLE)
    edit_config(folder, num_hidden_layers=10**12)  # refused at once
    refuses(folder, "num_hidden_layers is 1000000000000", "holds only", str(folder))


def test_biases_that_the_architecture_does_not_have(folder):
    edit_config(folder, architectures=["Qwen2ForCausalLM"])
    refuses(folder, "model.layers.0.self_attn.q_proj.bias", "8 more", SINGLE)


def test_a_misshapen_tensor(folder):
    edit_tensors(folder / SINGLE, **{GATE: torch.ones(40, 52)})
    refuses(folder, GATE, "[40, 52]", "[52, 40]", str(folder / SINGLE))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_a_tensor_of_an_unknown_type(folder, dtype):
    edit_tensors(folder / SINGLE, **{GATE: torch.ones(52, 40).to(dtype)})
    refuses(folder, GATE, "I8" if dtype == torch.int8 else "F8_E4M3", SINGLE)


def test_stored_rotary_frequencies_are_ignored(folder):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    edit_tensors(folder / SINGLE, **{name: torch.ones(5)})
    assert torch.equal(dm.load(folder).embed.weight, small_model().embed.weight)


def test_a_tied_folder_that_stores_its_head(tmp_path):
    model = small_model(tie_embeddings=True)
    dm.save(model, tmp_path)
    edit_tensors(tmp_path / SINGLE, **{"lm_head.weight": model.embed.weight.detach()})
    back = dm.load(tmp_path)
    assert back.head.weight is back.embed.weight
    edit_tensors(tmp_path / SINGLE, **{"lm_head.weight": torch.ones(61, 40)})
    refuses(tmp_path, "lm_head.weight", "tie_word_embeddings", SINGLE)
    edit_tensors(tmp_path / SINGLE, **{"lm_head.weight": torch.ones(40, 61)})
    refuses(tmp_path, "lm_head.weight", "[40, 61]")


@pytest.mark.parametrize("keep", [0, 5, 300, 10_000, -1])
def test_a_truncated_shard(sharded, keep):
    shard = sorted(sharded.glob("*.safetensors"))[2]
    data = shard.read_bytes()
    shard.write_bytes(data[:keep])
    refuses(sharded, str(shard), "truncated")
    if keep == -1:  # the last tensor lacks its last byte
        last = max(load_order(data).items(), key=lambda item: item[1])[0]
        refuses(sharded, last, f"{len(data) - 1} of {len(data)} bytes")


def load_order(data: bytes) -> dict[str, int]:
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header.pop("__metadata__", None)
    return {name: value["data_offsets"][1] for name, value in header.items()}


def test_weights_that_are_none(folder):
    save_file({}, folder / SINGLE)
    refuses(folder, "there is no tensor in", str(folder / SINGLE))
    (folder / SINGLE).unlink()
    (folder / SINGLE).mkdir()
    refuses(folder, SINGLE, "is a folder", kind=IsADirectoryError)
    (folder / SINGLE).rmdir()
    for file in "abc":
        tensors = {f"{file}.{i}": torch.ones(2) for i in range(3)}
        save_file(tensors, folder / f"{file}.safetensors")
    refuses(folder, "any shard of", "*.safetensors")
    if os.name == "nt":  # links need a right of their own there
        return
    (folder / "d.safetensors").symlink_to(folder / "nowhere")
    refuses(folder, "d.safetensors", "link to nothing", kind=FileNotFoundError)


def test_a_file_that_is_no_safetensors(folder):
    (folder / SINGLE).write_bytes(b"version https://git-lfs.github.com/spec/v1\n" * 9)
    refuses(folder, str(folder / SINGLE))


def test_a_missing_shard(sharded):
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.unlink()
    refuses(sharded, shard.name, INDEX, kind=FileNotFoundError)


def test_an_index_that_is_wrong(sharded):
    index = json.loads((sharded / INDEX).read_text())
    first, second, *_ = sorted(set(index["weight_map"].values()))
    moved = dict(index["weight_map"], **{"model.embed_tokens.weight": second})
    (sharded / INDEX).write_text(json.dumps({"weight_map": moved}))
    refuses(sharded, "model.embed_tokens.weight", second, INDEX)
    moved = dict(index["weight_map"], **{"model.norm.weight": f"../{first}"})
    (sharded / INDEX).write_text(json.dumps({"weight_map": moved}))
    refuses(sharded, INDEX, "same folder")
    name = "model.norm.weight"
    for file in ("..", "", "a\0b.safetensors", "a" * 300 + ".safetensors", "a\\b", 7):
        moved = json.dumps({"weight_map": index["weight_map"] | {name: file}})
        (sharded / INDEX).write_text(moved)
        refuses(sharded, f"weight_map puts {name} in {file!r}", INDEX, "same folder")
    for text in (
        "",
        "[]",
        "{}",
        '{"weight_map": 3}',
        '{"weight_map": {}}',
        "[" * 10**5,
    ):
        (sharded / INDEX).write_text(text)
        refuses(sharded, INDEX)


def test_a_tensor_in_two_files(sharded):
    (sharded / INDEX).unlink()
    save_file({"model.norm.weight": torch.ones(40)}, sharded / "zz.safetensors")
    refuses(sharded, "model.norm.weight", "zz.safetensors")


def test_pickles_are_not_read(folder):
    model = dm.load(folder)
    (folder / SINGLE).unlink()
    refuses(folder, "no *.safetensors", str(folder), kind=FileNotFoundError)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    refuses(folder, "pytorch_model.bin", "pickle", kind=FileNotFoundError)


# Folders and the hub


def test_no_folder(tmp_path):
    refuses(tmp_path / "nowhere", "nowhere", kind=FileNotFoundError)
    refuses("", "the path is empty", kind=FileNotFoundError)
    refuses("~no-such-user/x/y", "~no-such-user", kind=FileNotFoundError)
    (tmp_path / "file").write_text("")
    refuses(tmp_path / "file", "is a file", kind=NotADirectoryError)


def test_a_hub_id(monkeypatch, folder):
    import huggingface_hub

    asked = []

    def download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert dm.load("deepseek-ai/some-model").config == small_config()
    assert asked == [("deepseek-ai/some-model", ["*.json", "*.safetensors"])]


def test_a_hub_that_cannot_be_reached(monkeypatch):
    import huggingface_hub

    def download(*args, **kwargs):
        raise ConnectionError("\nno route to host\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(FileNotFoundError, match=r"deepseek-ai/no, .*no route to host$"):
        dm.load("deepseek-ai/no")


@pytest.mark.parametrize("device", ["foo", "meta", "cuda:99", "xpu", "mps:99"])
def test_a_device_that_is_not_there(folder, device):
    words = re.escape(f"device is '{device}', but a model can be on one of: cpu")
    with pytest.raises(ValueError, match=words):
        dm.load(folder, device=device)
    assert dm.load(folder, device=torch.device("cpu")).embed.weight.device.type == "cpu"


# Saving is all or nothing


def fail_on_call(monkeypatch, owner, name, number, failure):
    """Make the `number`-th call of a function fail, and those after it work again."""
    real, calls = getattr(owner, name), []

    def wrapped(*args, **kwargs):
        calls.append(args)
        if len(calls) == number:
            raise failure
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapped)


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("failure", [FULL, KeyboardInterrupt()])
@pytest.mark.parametrize("call", [1, 3])
@pytest.mark.parametrize("shard_bytes", [40_000, 10**9])
def test_failing_while_writing(monkeypatch, tmp_path, failure, call, shard_bytes):
    target = tmp_path / "model"
    dm.save(small_model(), target, max_shard_bytes=40_000)
    (target / "tokenizer.json").write_text("mine")
    before = contents(target)
    if shard_bytes > 40_000 and call > 1:  # one file: fail at config.json instead
        fail_on_call(monkeypatch, Path, "write_text", 1, failure)
    else:
        fail_on_call(monkeypatch, hf_files, "save_file", call, failure)
    with pytest.raises(type(failure)) as caught:
        dm.save(small_model(seed=1), target, max_shard_bytes=shard_bytes)
    if failure is FULL:
        assert caught.value.errno == errno.ENOSPC
        assert "was not saved" in str(caught.value) and str(target) in str(caught.value)
    assert contents(target) == before
    assert sorted(f.name for f in target.iterdir()) == sorted(before)


@pytest.mark.parametrize("failure", [FULL, KeyboardInterrupt()])
@pytest.mark.parametrize("call", range(1, 11))
def test_failing_while_files_are_put_in_place(monkeypatch, tmp_path, failure, call):
    """Five shards, index and config.json go out, two files come in, at any point."""
    target = tmp_path / "model"
    dm.save(small_model(), target, max_shard_bytes=40_000)
    before = contents(target)
    fail_on_call(monkeypatch, hf_files.os, "replace", call, failure)
    if call == 10:  # more moves than there are: it succeeds
        dm.save(small_model(seed=1), target)
        assert sorted(f.name for f in target.iterdir()) == ["config.json", SINGLE]
        return
    with pytest.raises(type(failure)):
        dm.save(small_model(seed=1), target)
    assert contents(target) == before
    assert torch.equal(dm.load(target).embed.weight, small_model().embed.weight)


@pytest.mark.parametrize("function", ["save_file", "replace"])
def test_failing_leaves_no_new_folder(monkeypatch, tmp_path, function):
    owner = hf_files if function == "save_file" else hf_files.os
    fail_on_call(monkeypatch, owner, function, 2, FULL)
    with pytest.raises(OSError, match="No space left"):
        dm.save(small_model(), tmp_path / "a" / "b", max_shard_bytes=40_000)
    assert list(tmp_path.iterdir()) == []


def test_saving_replaces_the_earlier_model_and_nothing_else(tmp_path):
    dm.save(small_model(), tmp_path, max_shard_bytes=40_000)
    others = {"tokenizer.json": b"{}", "adapter.safetensors": b"x", "notes/a.txt": b"y"}
    (tmp_path / "notes").mkdir()
    for name, data in others.items():
        (tmp_path / name).write_bytes(data)
    dm.save(small_model(seed=1), tmp_path)
    assert set(contents(tmp_path)) == {*others, "config.json", SINGLE}
    assert {n: d for n, d in contents(tmp_path).items() if n in others} == others
    assert torch.equal(dm.load(tmp_path).embed.weight, small_model(1).embed.weight)
    dm.save(small_model(seed=2), tmp_path, max_shard_bytes=40_000)
    assert SINGLE not in contents(tmp_path)  # it would be read before the shards
    assert torch.equal(dm.load(tmp_path).embed.weight, small_model(2).embed.weight)


def test_a_target_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="was not saved"):
        dm.save(small_model(), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_model_without_values(tmp_path):
    with torch.device("meta"):
        model = dm.Transformer(small_config())
    with pytest.raises(
        ValueError, match=re.escape("embed.weight is on the meta device")
    ):
        dm.save(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_parameter_that_released_folders_do_not_have(tmp_path):
    model = small_model()
    model.layers[0].attn.gate = torch.nn.Linear(3, 3)
    with pytest.raises(ValueError, match=r"layers\.0\.attn\.gate\.weight"):
        dm.save(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_config_survives(tmp_path):
    yarn = Yarn(40, 4096, 32, 1, 0.707, 0.707)
    for scaling in (None, Linear(4), yarn, replace(yarn, mscale_all_dim=0.0)):
        model = small_model(rope=Rope(1e4, "half_split", scaling), init_std=0.01)
        dm.save(model, tmp_path)
        assert dm.load(tmp_path).config == model.config


@pytest.mark.parametrize("bias", [False, True])
def test_what_transformers_refuses_is_saved_with_a_warning(tmp_path, bias):
    """Its Llama wants dim to be a multiple of n_heads; its Qwen2 does not."""
    from transformers import AutoConfig

    model = small_model(attention=GQA(3, 1, 10, bias=bias))
    if bias:
        with warnings.catch_warnings(action="error"):
            dm.save(model, tmp_path)
        AutoConfig.from_pretrained(tmp_path)
    else:
        with pytest.warns(UserWarning, match=r"dim is 40, .* multiple of n_heads, 3"):
            dm.save(model, tmp_path)
        with pytest.raises(
            Exception, match="not a multiple of the number of attention"
        ):
            AutoConfig.from_pretrained(tmp_path)
    assert dm.load(tmp_path).config == model.config
