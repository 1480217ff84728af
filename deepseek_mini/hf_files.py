"""The safetensors files of a folder: found, checked, read in pieces, replaced together.

Only safetensors are read, never pickle, which can run code when it is opened.
"""

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from deepseek_mini.fp8 import BLOCK, dequantise
from deepseek_mini.hf_names import SCALE
from deepseek_mini.json_fields import read_fields

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FILE_NAME = re.compile(r"[ -.0-\[\]-~]{1,200}\.safetensors")  # no slash of any kind
CHUNK_BYTES = 2**25  # read at a time


class Stored(NamedTuple):
    """A tensor on disk: its file, its shape and safetensors' name of its type."""

    file: Path
    shape: list[int]
    dtype: str


def find_folder(path: str | os.PathLike) -> Path:
    """That folder, or the one that the hub's model of that name is downloaded to.

    Raises:
        FileNotFoundError: there is neither.
        NotADirectoryError: it is a file.
    """
    if not os.fspath(path):
        raise FileNotFoundError("the path is empty: give a model's folder or its id")
    folder = Path(os.path.expanduser(path))
    if folder.is_dir():
        return folder
    if folder.exists():
        raise NotADirectoryError(f"{folder} is a file; give the folder that it is in")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", str(path)):
        raise FileNotFoundError(f"there is no folder {folder}")
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors"]
    try:
        return Path(snapshot_download(str(path), allow_patterns=wanted))
    except Exception as error:  # network, permission, name: they share no base class
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        raise FileNotFoundError(
            f"there is no folder {path}, and no model of that name came from the hub: "
            f"{reason}"
        ) from error


def find_tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor of the model in `folder`, by name: model.safetensors, or else the
    files that the index names, or else all safetensors that there are.

    Raises:
        FileNotFoundError: there are none, or one that the index names is missing.
        ValueError: a file or the index is damaged, or they contradict each other.
    """
    index, promised = folder / INDEX, {}
    if (folder / SINGLE).exists():
        files = [folder / SINGLE]
    elif index.exists():
        promised = read_index(index)
        files = [folder / name for name in dict.fromkeys(promised.values())]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(
            f"there are no *.safetensors in {folder}{_pickle(folder)}"
        )
    found: dict[str, Stored] = {}
    for file in files:
        if file.is_dir():
            raise IsADirectoryError(f"{file} is a folder, but must be a file")
        if not file.is_file():
            reason = f"{index} names it" if promised else "it is a link to nothing"
            raise FileNotFoundError(f"{file} is missing: {reason}")
        for name, stored in _contents(file).items():
            if name in found:
                raise ValueError(
                    f"tensor {name} is in {found[name].file} and in {file}"
                )
            found[name] = stored
    if not found:
        raise ValueError(f"there is no tensor in {files[0]}")
    for name, file_name in promised.items():
        if name not in found or found[name].file.name != file_name:
            raise ValueError(
                f"tensor {name} is not in {folder / file_name}, where {index} puts it"
            )
    return found


def _pickle(folder: Path) -> str:
    for pattern in ("*.bin", "*.pt", "*.pth", "*.bin.index.json"):
        for file in folder.glob(pattern):
            return (
                f" ({file.name} is of pickled weights, which can run code when they "
                "are opened: convert them to safetensors first)"
            )
    return ""


def read_index(index: Path) -> dict[str, str]:
    """The index's weight_map: for every tensor the name of the file that holds it.

    Raises:
        ValueError: it is not JSON, or names what is no file of the same folder.
    """
    fields = read_fields(index)
    weight_map = fields.get("weight_map", dict)
    if not weight_map:
        raise fields.error("weight_map", "is empty, but must name every tensor's file")
    for name, file in weight_map.items():
        if not isinstance(file, str) or not FILE_NAME.fullmatch(file):
            rule = "it must be the name of a *.safetensors file in the same folder"
            raise fields.error("weight_map", f"puts {name} in {file!r}, but {rule}")
    return weight_map


def _contents(file: Path) -> dict[str, Stored]:
    try:
        with safe_open(file, "pt") as tensors:
            names = tensors.keys()
            slices = {name: tensors.get_slice(name) for name in names}
            return {
                name: Stored(file, list(part.get_shape()), part.get_dtype())
                for name, part in slices.items()
            }
    except SafetensorError as error:
        raise ValueError(_damage(file) or f"{file} is damaged: {error}") from None


def _damage(file: Path) -> str | None:
    """Which tensor a truncated file breaks off in, if its header can still be read."""
    size = file.stat().st_size
    try:
        with open(file, "rb") as opened:
            header_bytes = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(min(header_bytes, size)))
        ends = {
            name: 8 + header_bytes + value["data_offsets"][1]
            for name, value in header.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{file} is truncated or no safetensors file: its header cannot be read"
    cut = [name for name in sorted(ends, key=ends.get) if ends[name] > size]
    if not cut:
        return None
    return (
        f"{file} is truncated: it has {size} of {max(ends.values())} bytes and breaks "
        f"off in tensor {cut[0]}"
    )


def read_into(
    value: Tensor, stored: Stored, name: str, scales: Stored | None = None
) -> None:
    """Copy a tensor of the same shape, in FP8 with its scales, some rows at a time.

    The file is opened anew for each piece, because what has been read counts as this
    process's memory for as long as it is open.
    """
    step = max(CHUNK_BYTES // max(value[0].nbytes, 1), 1)
    if scales is not None:  # whole blocks
        step = max(step // BLOCK[0], 1) * BLOCK[0]
        with safe_open(scales.file, "pt") as tensors:
            scale_inv = tensors.get_tensor(name + SCALE).float()
    for start in range(0, len(value), step):
        with safe_open(stored.file, "pt") as tensors:
            rows = tensors.get_slice(name)[start : start + step]
            if scales is not None:
                first, n = start // BLOCK[0], -(-len(rows) // BLOCK[0])
                rows = dequantise(rows, scale_inv[first : first + n], BLOCK)
            value[start : start + step].copy_(rows)
            del rows


def write_tensors(tensors: dict[str, Tensor], file: Path) -> None:
    """One safetensors file, readable by whom a new file of this user is readable."""
    file.touch()
    mode = file.stat().st_mode
    on_cpu = {name: t.to("cpu").contiguous() for name, t in tensors.items()}
    save_file(on_cpu, file, metadata={"format": "pt"})  # transformers asks for "pt"
    file.chmod(mode)  # save_file lets only the owner read


def shard_names(sizes: dict[str, int], max_bytes: int) -> dict[str, list[str]]:
    """File names and the tensors in each, in order, each filled up to `max_bytes`.

    A tensor larger than that has a file of its own.
    """
    if max_bytes < 1:
        raise ValueError(f"max_shard_bytes is {max_bytes}, but it must be at least 1")
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    if len(shards) == 1:
        return {SINGLE: shards[0]}
    n = len(shards)
    return {f"model-{i:05}-of-{n:05}.safetensors": s for i, s in enumerate(shards, 1)}


def replace_files(new: Path, old: Path, target: Path) -> None:
    """Move the files of the folder `new` into `target`, all or none of them.

    Files of the same names and the rest of an earlier model (its index, and the shards
    that it names) go to the folder `old`, from which they come back if a move fails.
    """
    names = sorted((f.name for f in new.iterdir()), key=lambda n: n == "config.json")
    earlier = {SINGLE, INDEX, *_indexed_shards(target / INDEX)}
    before = {n for n in {*names, *earlier} if os.path.lexists(target / n)}
    old.mkdir()
    try:
        for name in before:
            os.replace(target / name, old / name)
        for name in names:
            os.replace(new / name, target / name)
    except BaseException:
        for name in names:
            if name not in before:
                (target / name).unlink(missing_ok=True)
        for file in old.iterdir():
            os.replace(file, target / file.name)
        raise


def _indexed_shards(index: Path) -> set[str]:
    try:
        names = set(read_index(index).values())
    except (OSError, ValueError):
        return set()
    return {n for n in names if re.fullmatch(r"model-\d+-of-\d+\.safetensors", n)}
