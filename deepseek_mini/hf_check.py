"""Whether the tensors of a folder are those of the model that its config describes."""

import re
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open

from deepseek_mini.config import Config
from deepseek_mini.fp8 import BLOCK
from deepseek_mini.hf_files import INDEX, Stored
from deepseek_mini.hf_names import EMBED, HEAD, SCALE, mtp_copies, mtp_layers

COMPUTED = re.compile(r".*\.rotary_emb\.inv_freq")  # in old folders; we compute them
STORED_DTYPES = ("F32", "BF16", "F16", "F64")  # safetensors' names
FP8 = "F8_E4M3"


def config_of_tensors(
    config: Config, stored: dict[str, Stored], folder: Path
) -> Config:
    """The config, without MTP modules if the folder has no tensor of theirs: then with
    a warning, since many copies of V3 leave them out.

    Raises:
        ValueError: more layers or experts than there are tensors, which could take an
            hour to find out one by one.
    """
    moe = config.moe
    for field, number in (
        ("num_hidden_layers", config.n_layers),
        ("num_nextn_predict_layers", config.mtp.depth if config.mtp else 0),
        ("n_routed_experts", moe.n_routed_experts if moe else 0),
    ):
        if number > len(stored):
            said = f"{field} is {number}"
            raise ValueError(f"{said}, but {folder} holds only {len(stored)} tensors")
    layers = tuple(mtp_layers(config))
    if not layers or any(name.startswith(layers) for name in stored):
        return config
    warnings.warn(
        f"{folder} has no tensor of the MTP modules that its config.json names: the "
        "model is loaded without them",
        stacklevel=3,
    )
    return replace(config, mtp=None)


def check_tensors(
    stored: dict[str, Stored],
    shapes: dict[str, list[int]],
    config: Config,
    folder: Path,
) -> None:
    """Refuse tensors that are not those of the model, whose `shapes` these are.

    Superfluous but not wrong are the head of a tied model, if it is the embedding, and
    the copies of embedding and head in released MTP modules, if they have their shape:
    the model's own are used.

    Raises:
        ValueError: a tensor is missing, extra, misshapen, or of an unknown type; the
            message names it and the file.
    """
    _check_missing(stored, shapes, folder)
    allowed = dict(shapes)
    if config.tie_embeddings:
        allowed[HEAD] = shapes[EMBED]
    for copy, original in mtp_copies(config).items():
        allowed[copy] = allowed[original]
    for name, (file, shape, dtype) in stored.items():
        if COMPUTED.fullmatch(name):
            continue
        where = f"tensor {name} in {file}"
        scaled = stored.get(name.removesuffix(SCALE))
        if name.endswith(SCALE) and scaled is not None and scaled.dtype == FP8:
            continue
        if name not in allowed:
            raise ValueError(f"{where} has no place in what config.json describes")
        if shape != allowed[name]:
            raise ValueError(
                f"{where} has shape {shape}, but by config.json it is {allowed[name]}"
            )
        if dtype == FP8 and name + SCALE in stored:
            _check_scales(stored[name + SCALE], name + SCALE, shape)
        elif dtype not in STORED_DTYPES:
            rule = f"must be one of {', '.join(STORED_DTYPES)}"
            if dtype == FP8:
                rule = f"goes only with the scales {name + SCALE}, which are missing"
            raise ValueError(f"{where} has dtype {dtype}, but it {rule}")
    if config.tie_embeddings and HEAD in stored:
        _check_tied_head(stored)


def _check_missing(
    stored: dict[str, Stored], shapes: dict[str, list[int]], folder: Path
) -> None:
    missing = [name for name in shapes if name not in stored]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        files = {tensor.file for tensor in stored.values()}
        shards = INDEX if (folder / INDEX).is_file() else "*.safetensors"
        where = files.pop() if len(files) == 1 else f"any shard of {folder / shards}"
        raise ValueError(f"tensor {missing[0]}{more} is not in {where}")


def _check_scales(scales: Stored, name: str, shape: list[int]) -> None:
    """One float32 number for each block of 128 x 128 of an FP8 matrix."""
    blocks = [-(-size // block) for size, block in zip(shape, BLOCK)]
    if len(shape) != 2 or scales.shape != blocks or scales.dtype != "F32":
        raise ValueError(
            f"tensor {name} in {scales.file} is {scales.dtype} of shape "
            f"{scales.shape}, but for a tensor of shape {shape} in blocks of "
            f"{BLOCK[0]} x {BLOCK[1]} it must be F32 of shape {blocks}"
        )


def _check_tied_head(stored: dict[str, Stored]) -> None:
    files = stored[HEAD].file, stored[EMBED].file
    with safe_open(files[0], "pt") as head, safe_open(files[1], "pt") as embed:
        same = torch.equal(head.get_tensor(HEAD), embed.get_tensor(EMBED))
    if not same:
        raise ValueError(
            f"tensor {HEAD} in {files[0]} is not the embedding, but by "
            "tie_word_embeddings in config.json it is"
        )
