"""Released weights in and out: config.json and safetensors, Hugging Face layout."""

import errno
import json
import os
import re
import tempfile
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from deepseek_mini.config import Config
from deepseek_mini.devices import find_device
from deepseek_mini.hf_config import config_to_json, read_config
from deepseek_mini.hf_files import (
    INDEX,
    Stored,
    find_folder,
    find_tensors,
    read_into,
    replace_files,
    shard_names,
    write_tensors,
)
from deepseek_mini.model import Transformer

# Our module names and those of released Llama- and Qwen2-shaped folders; # is a number.
NAMES = {
    "embed": "model.embed_tokens",
    "layers.#.attn_norm": "model.layers.#.input_layernorm",
    "layers.#.attn.wq": "model.layers.#.self_attn.q_proj",
    "layers.#.attn.wk": "model.layers.#.self_attn.k_proj",
    "layers.#.attn.wv": "model.layers.#.self_attn.v_proj",
    "layers.#.attn.wo": "model.layers.#.self_attn.o_proj",
    "layers.#.ffn_norm": "model.layers.#.post_attention_layernorm",
    "layers.#.ffn.w1": "model.layers.#.mlp.gate_proj",
    "layers.#.ffn.w3": "model.layers.#.mlp.up_proj",
    "layers.#.ffn.w2": "model.layers.#.mlp.down_proj",
    "norm": "model.norm",
    "head": "lm_head",
}
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
COMPUTED = re.compile(r".*\.rotary_emb\.inv_freq")  # in old folders; we compute them
STORED_DTYPES = ("F32", "BF16", "F16", "F64")  # safetensors' names


def released_name(name: str) -> str:
    """The released tensor's name for one of our parameters.

    Raises:
        ValueError: the table of names does not know it.
    """
    module, _, kind = name.rpartition(".")  # kind: weight or bias
    pattern = re.sub(r"\b\d+\b", "#", module)
    if pattern not in NAMES:
        raise ValueError(f"the parameter {name} has no name in released folders")
    numbers = iter(re.findall(r"\b\d+\b", module))
    return re.sub("#", lambda _: next(numbers), NAMES[pattern]) + f".{kind}"


def load(
    path: str | os.PathLike,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Transformer:
    """A model from a folder, or from the hub by its id, in eval().

    A hub id looks like "deepseek-ai/deepseek-llm-7b-base". A folder has config.json and
    model.safetensors, or shards with their index, of a Llama- or Qwen2-shaped model.
    The weights are converted to `dtype`. They are read piece by piece, so that memory
    peaks little above the model's own bytes.

    Raises:
        FileNotFoundError: no such folder or file, or the hub has no such model or
            cannot be reached.
        ValueError: a tensor is missing, extra, misshapen or truncated, or the
            architecture or a type is unknown; the message names the tensor or field,
            and the file. Or this machine has no such device.
    """
    if dtype not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        raise ValueError(
            f"dtype is {dtype}, but a model computes in torch.float32, bfloat16, "
            "float16 or float64"
        )
    device = find_device(device)
    folder = find_folder(path)
    config = read_config(folder / "config.json")
    stored = find_tensors(folder)
    if config.n_layers > len(stored):  # else a wrong number could take an hour
        said = f"num_hidden_layers is {config.n_layers}"
        raise ValueError(f"{said}, but {folder} holds only {len(stored)} tensors")
    try:
        with torch.device("meta"):  # shapes without memory
            model = Transformer(config)
    except (RuntimeError, OverflowError, TypeError) as error:  # beyond 64 bits
        raise ValueError(
            f"{folder / 'config.json'} asks for a tensor larger than any can be: its "
            f"hidden_size is {config.dim}, its vocab_size {config.vocab_size}"
        ) from error
    parameters = dict(model.named_parameters())  # a tied head is not among them
    shapes = {released_name(n): list(p.shape) for n, p in parameters.items()}
    _check_tensors(stored, shapes, config, folder)
    for name, parameter in parameters.items():
        value = torch.empty(parameter.shape, dtype=dtype, device=device)
        released = released_name(name)
        read_into(value, stored[released].file, released)
        module, _, kind = name.rpartition(".")
        setattr(model.get_submodule(module), kind, nn.Parameter(value))
    if config.tie_embeddings:
        model.head.weight = model.embed.weight
    return model.eval()


def _check_tensors(
    stored: dict[str, Stored],
    shapes: dict[str, list[int]],
    config: Config,
    folder: Path,
) -> None:
    """Refuse tensors that are not those of the model."""
    missing = [name for name in shapes if name not in stored]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        files = {tensor.file for tensor in stored.values()}
        shards = INDEX if (folder / INDEX).is_file() else "*.safetensors"
        where = files.pop() if len(files) == 1 else f"any shard of {folder / shards}"
        raise ValueError(f"tensor {missing[0]}{more} is not in {where}")
    tied_head = config.tie_embeddings and HEAD in stored  # superfluous, not wrong
    if tied_head:
        shapes = {**shapes, HEAD: shapes[EMBED]}
    for name, (file, shape, dtype) in stored.items():
        if COMPUTED.fullmatch(name):
            continue
        where = f"tensor {name} in {file}"
        if name not in shapes:
            raise ValueError(f"{where} has no place in what config.json describes")
        if shape != shapes[name]:
            raise ValueError(
                f"{where} has shape {shape}, but by config.json it is {shapes[name]}"
            )
        if dtype not in STORED_DTYPES:
            known = ", ".join(STORED_DTYPES)
            raise ValueError(
                f"{where} has dtype {dtype}, but it must be one of {known}"
            )
    if tied_head:
        files = stored[HEAD].file, stored[EMBED].file
        with safe_open(files[0], "pt") as head, safe_open(files[1], "pt") as embed:
            same = torch.equal(head.get_tensor(HEAD), embed.get_tensor(EMBED))
        if not same:
            raise ValueError(
                f"tensor {HEAD} in {files[0]} is not the embedding, but by "
                "tie_word_embeddings in config.json it is"
            )


def save(
    model: Transformer, path: str | os.PathLike, max_shard_bytes: int = 4 * 10**9
) -> None:
    """Write a model, in its own dtype, as a folder that `load` and transformers read.

    Weights of the "interleaved" layout are written as "half_split", which those folders
    have: the rows of wq and wk change places within each head, and the model computes
    the same. More than `max_shard_bytes` bytes are cut into shards with an index.

    All files are first written to the side and then put in place together: whatever
    fails, the folder holds what it held before. Of what is there, only an earlier
    model's config.json, weights and index are replaced.

    Warns (UserWarning) where transformers refuses what `load` reads: a model without
    biases whose dim is no multiple of n_heads, which its Llama must be.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
        ValueError: the model has no values (meta device), or a parameter that released
            folders do not have.
    """
    parameters = {released_name(n): (n, p) for n, p in model.named_parameters()}
    for name, parameter in parameters.values():
        if parameter.is_meta:
            raise ValueError(f"{name} is on the meta device: it has no values to save")
    sizes = {released: p.nbytes for released, (_, p) in parameters.items()}
    shards = shard_names(sizes, max_shard_bytes)
    texts = {"config.json": config_to_json(model.config, model.embed.weight.dtype)}
    if len(shards) > 1:
        where = {name: file for file, names in shards.items() for name in names}
        total = {"total_size": sum(sizes.values())}
        texts[INDEX] = {"metadata": total, "weight_map": where}

    def write(folder: Path) -> None:
        for file, names in shards.items():
            tensors = {r: _released(model.config, *parameters[r]) for r in names}
            write_tensors(tensors, folder / file)
        for file, values in texts.items():
            text = json.dumps(values, indent=2) + "\n"
            (folder / file).write_text(text, encoding="utf-8")

    _write_safely(write, Path(path).expanduser())
    dim, n_heads = model.config.dim, model.config.attention.n_heads
    if dim % n_heads and not model.config.attention.bias:
        warnings.warn(
            f"deepseek_mini reads what was saved to {path}, but transformers will "
            f"refuse it: dim is {dim}, which is no multiple of n_heads, {n_heads}",
            stacklevel=2,
        )


def _write_safely(write, target: Path) -> None:
    """Let `write` fill a folder at the side, then move its files to `target`."""
    created = [p for p in (target, *target.parents) if not p.exists()]
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=target) as aside:
            new, old = Path(aside, "new"), Path(aside, "old")
            new.mkdir()
            write(new)
            replace_files(new, old, target)
    except BaseException as error:
        for folder in created:  # innermost first
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        if not isinstance(error, (OSError, SafetensorError)):
            raise
        full = "No space left" in str(error)  # safetensors' error has no errno
        number = getattr(error, "errno", None) or (errno.ENOSPC if full else errno.EIO)
        text = f"the model was not saved and {target} is as it was: {error}"
        raise OSError(number, text) from error


def _released(config: Config, name: str, parameter: nn.Parameter) -> Tensor:
    """A parameter as released folders have it."""
    value = parameter.detach()
    if config.rope.layout == "interleaved" and name.split(".")[-2] in ("wq", "wk"):
        return to_half_split(value, config.attention.head_dim)
    return value


def to_half_split(rows: Tensor, head_dim: int) -> Tensor:
    """Reorder the rows of wq or wk, [H · head_dim, D], or of a bias, [H · head_dim]: in
    every head the even ones come first, then the odd ones.

    Interleaved RoPE pairs channels 2i and 2i + 1, half-split RoPE i and i + head_dim/2;
    scores do not depend on an order of channels that queries and keys share.
    """
    pairs = rows.unflatten(0, (-1, head_dim // 2, 2))  # [H, head_dim/2, 2, ...]
    return pairs.transpose(1, 2).flatten(0, 2)
