"""A training run on disk: weights, optimiser, metrics; killed at any time, resumable.

    config.json, model.safetensors, tokenizer.json    a model that ``dm.load`` reads
    resume.safetensors                                all that resuming needs
    metrics.jsonl                                     one line a step

``resume.safetensors`` holds weights, optimiser and step in one file, which a rename
puts in place. There is no moment at which it is missing, or half of one step and half
of another; the price is that the weights are on disk twice.
"""

import contextlib
import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from deepseek_mini.checkpoint import save as save_model
from deepseek_mini.data import MixedData, PackedData
from deepseek_mini.training.config import TrainConfig

# A run may go on with other values of these: they change no loss.
MAY_CHANGE = ("eval_every", "eval_windows", "save_every")
CHECKPOINT = "resume.safetensors"


def check_out_dir(path: str | os.PathLike, resume: bool) -> None:
    """Raise an error unless a run can begin in a folder, or go on there.

    Raises:
        FileExistsError: it is to begin, and the folder holds a run or a model already.
        FileNotFoundError: it is to go on, and the folder holds no run.
        NotADirectoryError: the path is a file.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} is a file: give the folder of a run")
    taken = (path / CHECKPOINT).is_file()
    if resume and not taken:
        raise FileNotFoundError(f"{path} holds no training run to resume")
    if not resume and taken:
        raise FileExistsError(
            f"{path} already holds a training run: resume it or choose another folder"
        )
    if not resume and any([*path.glob("*.safetensors"), *path.glob("config.json")]):
        raise FileExistsError(f"{path} already holds a model: choose another folder")


class RunFolder:
    """The files of one run: made by ``create`` or taken up again by ``restore``."""

    def __init__(
        self,
        path: str | os.PathLike,
        model: nn.Module,
        data: PackedData | MixedData,
        config: TrainConfig,
    ):
        self.path = Path(path)
        self.checkpoint = self.path / CHECKPOINT
        self.metrics = self.path / "metrics.jsonl"
        self.model, self.data = model, data
        self.identity = _identity(model, data, config)
        self.saved_step: int | None = None

    def create(self, optimizer: torch.optim.Optimizer) -> None:
        """Begin a new run, saved at once: a full disk shows before the training.

        Raises what `check_out_dir` raises.
        """
        check_out_dir(self.path, resume=False)
        created = [p for p in (self.path, *self.path.parents) if not p.exists()]
        try:
            with self._writing("start a run"):
                self.path.mkdir(parents=True, exist_ok=True)
                self.metrics.unlink(missing_ok=True)  # of a run killed before this
            self.save(0, 0.0, optimizer)
        except OSError:
            for folder in created:  # innermost first
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
            raise

    def restore(
        self, optimizer: torch.optim.Optimizer
    ) -> tuple[int, float, list[dict[str, Any]]]:
        """Put back weights and optimiser; return step, seconds and metrics so far.

        FileNotFoundError if there is nothing to resume; ValueError if the checkpoint
        is damaged or is of a run with another model, recipe or data.
        """
        check_out_dir(self.path, resume=True)
        try:
            with safe_open(self.checkpoint, framework="pt") as file:
                about = json.loads((file.metadata() or {})["run"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError) as error:
            raise ValueError(
                f"{self.checkpoint} is not a checkpoint of a run: {error}"
            ) from None
        _check_same(self.path, about["identity"], self.identity)
        self._sweep()
        _put_back(tensors, self.model, optimizer)
        self.saved_step = about["step"]
        history = self._rewind_metrics(about["step"])
        return about["step"], about["seconds"], history

    def save(self, step: int, seconds: float, optimizer: torch.optim.Optimizer) -> None:
        """Write the checkpoint, then the model folder, each file by a rename."""
        about = {"step": step, "seconds": seconds, "identity": self.identity}
        part = self.checkpoint.with_name(f"{CHECKPOINT}.part")
        with self._writing(f"save step {step}"):
            try:
                save_file(
                    _tensors(self.model, optimizer),
                    part,
                    metadata={"run": json.dumps(about)},
                )
                _flush(part)
                os.replace(part, self.checkpoint)
            finally:
                part.unlink(missing_ok=True)
            self.saved_step = step
            save_model(self.model, self.path)
            self.data.tokenizer.save(self.path / "tokenizer.json")

    def record(self, row: dict[str, Any]) -> None:
        """Append a line to the metrics."""
        with (
            self._writing("write metrics"),
            self.metrics.open("a", encoding="utf-8") as file,
        ):
            file.write(json.dumps(row) + "\n")

    def _sweep(self) -> None:
        """Remove what a kill in the middle of a save has left at the side."""
        for left in [*self.path.glob("*.part"), *self.path.glob(".saving-*")]:
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    def _rewind_metrics(self, step: int) -> list[dict[str, Any]]:
        """Forget the lines after the checkpoint: those steps are done again."""
        history = []
        if self.metrics.exists():
            for line in self.metrics.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):  # a line cut off by the kill
                    history.append(json.loads(line))
        history = [row for row in history if row["step"] <= step]
        part = self.metrics.with_name("metrics.jsonl.part")
        with self._writing("write metrics"):
            part.write_text("".join(json.dumps(row) + "\n" for row in history))
            os.replace(part, self.metrics)
        return history

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            text = f"could not {what} in {self.path}: {reason}"
            if self.saved_step is not None:
                text += f"; the checkpoint of step {self.saved_step} is whole"
            # With its number an OSError keeps its kind (PermissionError ...).
            number = getattr(error, "errno", None) or errno.EIO
            raise OSError(number, text) from error


def _identity(
    model: nn.Module, data: PackedData | MixedData, config: TrainConfig
) -> dict:
    """What must be the same for a resumed run to give the same losses."""
    recipe = dataclasses.asdict(config)
    for name in MAY_CHANGE:
        del recipe[name]
    about_data = {"seq_len": data.seq_len, "tokens": data.fingerprint}
    model_config = dataclasses.asdict(model.config)
    identity = {"model": model_config, "train": recipe, "data": about_data}
    return json.loads(json.dumps(identity))  # tuples become lists, as they will be read


def _check_same(path: Path, before: Any, now: Any, field: str = "") -> None:
    if before == now:
        return
    if not (isinstance(before, dict) and isinstance(now, dict)):
        raise ValueError(
            f"cannot resume {path}: it was started with {field} = {before!r}, this is "
            f"{now!r}"
        )
    for name in {**before, **now}:
        inner = f"{field}.{name}" if field else name
        _check_same(path, before.get(name), now.get(name), inner)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers, a tied one once."""
    buffers = model.state_dict()
    kept = {name: b for name, b in model.named_buffers() if name in buffers}
    return {**dict(model.named_parameters()), **kept}


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {f"model.{name}": t.detach() for name, t in _weights(model).items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _put_back(
    tensors: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    with torch.no_grad():
        for name, tensor in _weights(model).items():
            tensor.copy_(tensors[f"model.{name}"])
    # The optimiser counts parameters in the order of its groups.
    ordered = [p for group in optimizer.param_groups for p in group["params"]]
    number = {parameter: i for i, parameter in enumerate(ordered)}
    parameters = dict(model.named_parameters())
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, key, parameter = name.split(".", 2)
            state.setdefault(number[parameters[parameter]], {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _flush(path: Path) -> None:
    """Have the bytes on the disk before the rename is: a power cut keeps the order."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
