"""Released weights in and out: config.json and safetensors, Hugging Face layout."""

import errno
import json
import os
import tempfile
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from deepseek_mini.config import Config
from deepseek_mini.devices import find_device
from deepseek_mini.hf_check import check_tensors, config_of_tensors
from deepseek_mini.hf_config import config_to_json, read_config
from deepseek_mini.hf_files import (
    INDEX,
    find_folder,
    find_tensors,
    read_into,
    replace_files,
    shard_names,
    write_tensors,
)
from deepseek_mini.hf_names import (
    EMBED,
    HEAD,
    NAMES,
    SCALE,
    mtp_copies,
    released_name,
    released_tensors,
    with_layout,
)
from deepseek_mini.hf_sparse import OWN, model_type_of
from deepseek_mini.model import Transformer

__all__ = ["NAMES", "load", "released_name", "save"]
LAYOUTS = {  # of RoPE, in a format that has but one
    "llama": "half_split",
    "qwen2": "half_split",
    "deepseek": "half_split",
    "deepseek_v2": "interleaved",
}


def load(
    path: str | os.PathLike,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Transformer:
    """A model from a folder, or from the hub by its id, in eval().

    A hub id looks like "deepseek-ai/deepseek-llm-7b-base". A folder has config.json and
    model.safetensors, or shards with their index, of a Llama- or Qwen2-shaped model, of
    DeepSeekMoE, V2 or V3, or what `save` wrote. The weights are converted to `dtype`,
    FP8 ones with their scales; only a correction bias stays in float32, since its steps
    are too small for less. They are read piece by piece, so that memory peaks little
    above the model's own bytes.

    Warns (UserWarning) where config.json names MTP modules and the folder has none of
    their tensors: the model is loaded without them. Their copies of embedding and head
    are not read; the model's own are used.

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
    config = config_of_tensors(config, stored, folder)
    model = _without_memory(config, folder)
    parameters = dict(model.named_parameters())  # a tied head is not among them
    shapes = {
        released: list(tensor.shape)
        for name, parameter in parameters.items()
        for released, tensor in released_tensors(name, parameter, config).items()
    }
    check_tensors(stored, shapes, config, folder)
    for name, parameter in parameters.items():
        wide = torch.promote_types(dtype, torch.float32)
        kept = wide if name.endswith("gate.bias") else dtype
        value = torch.empty(parameter.shape, dtype=kept, device=device)
        for released, piece in released_tensors(name, value, config).items():
            scales = stored.get(released + SCALE)
            read_into(piece, stored[released], released, scales)
        module, _, kind = name.rpartition(".")
        loaded = nn.Parameter(value, requires_grad=parameter.requires_grad)
        setattr(model.get_submodule(module), kind, loaded)
    if config.tie_embeddings:
        model.head.weight = model.embed.weight
    return model.eval()


def _without_memory(config: Config, folder: Path) -> Transformer:
    """The model on the meta device: shapes and no values."""
    try:
        with torch.device("meta"):
            return Transformer(config)
    except (RuntimeError, OverflowError, TypeError) as error:  # beyond 64 bits
        raise ValueError(
            f"{folder / 'config.json'} asks for a tensor larger than any can be: its "
            f"hidden_size is {config.dim}, its vocab_size {config.vocab_size}"
        ) from error


def save(
    model: Transformer, path: str | os.PathLike, max_shard_bytes: int = 4 * 10**9
) -> None:
    """Write a model, in its own dtype, as a folder that `load` and transformers read.

    Rows change places where the format has another layout of RoPE than the model, which
    computes the same: Llama, Qwen2 and DeepSeekMoE have "half_split", V2 "interleaved".
    MTP modules are written as the released V3 has them, after the last layer and each
    with copies of the embedding and the head. More than `max_shard_bytes` bytes are cut
    into shards with an index.

    All files are first written to the side and then put in place together: whatever
    fails, the folder holds what it held before. Of what is there, only an earlier
    model's config.json, weights and index are replaced.

    Warns (UserWarning) where transformers refuses what `load` reads: a dim that is no
    multiple of n_heads, which Llama and V2 do not allow, or parts that no released
    model has together. DeepSeekMoE's own format is read by DeepSeek's code for it.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
        ValueError: the model has no values (meta device), or a parameter that released
            folders do not have.
    """
    config = model.config
    tensors = _released(model)
    sizes = {released: value.nbytes for released, (_, value) in tensors.items()}
    layout = LAYOUTS.get(model_type_of(config), config.rope.layout)
    shards = shard_names(sizes, max_shard_bytes)
    texts = {"config.json": config_to_json(config, model.embed.weight.dtype)}
    if len(shards) > 1:
        where = {name: file for file, names in shards.items() for name in names}
        total = {"total_size": sum(sizes.values())}
        texts[INDEX] = {"metadata": total, "weight_map": where}

    def write(folder: Path) -> None:
        for file, names in shards.items():
            parts = {r: with_layout(config, *tensors[r], layout) for r in names}
            write_tensors(parts, folder / file)
        for file, values in texts.items():
            text = json.dumps(values, indent=2) + "\n"
            (folder / file).write_text(text, encoding="utf-8")

    _write_safely(write, Path(path).expanduser())
    refused = _refused_elsewhere(config)
    if refused:
        warnings.warn(
            f"deepseek_mini reads what was saved to {path}, but transformers will "
            f"refuse it: {refused}",
            stacklevel=2,
        )


def _released(model: Transformer) -> dict[str, tuple[str, Tensor]]:
    """By released names: of which parameter each tensor is, and its values."""
    tensors = {}
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ValueError(f"{name} is on the meta device: it has no values to save")
        value = parameter.detach()
        for released, piece in released_tensors(name, value, model.config).items():
            tensors[released] = name, piece
    shared = {EMBED: model.embed.weight, HEAD: model.head.weight}
    for copy, original in mtp_copies(model.config).items():
        tensors[copy] = copy, shared[original].detach().clone()  # no shared memory
    return tensors


def _refused_elsewhere(config: Config) -> str | None:
    """Why transformers will not read a saved model, if it will not."""
    model_type, n_heads = model_type_of(config), config.attention.n_heads
    if model_type == OWN:
        return "no model there has these parts together"
    if model_type in ("llama", "deepseek_v2") and config.dim % n_heads:
        return f"dim is {config.dim}, which is no multiple of n_heads, {n_heads}"
    return None


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
