"""The training loop: batch, loss, gradient, step, and again."""

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from deepseek_mini.data import PackedData
from deepseek_mini.training.config import TrainConfig
from deepseek_mini.training.optimizer import make_optimizer
from deepseek_mini.training.run_folder import RunFolder


@dataclass(frozen=True)
class TrainResult:
    """What a run did. ``history`` has a row a step, as in metrics.jsonl:

    ``step`` (from 1), ``loss`` (nats per token, of the batch before its update),
    ``lr``, ``grad_norm`` (before clipping), ``tokens`` (read so far), ``seconds``; and
    on some rows ``val_loss`` (nats per token) and ``val_bits_per_byte``.
    """

    history: list[dict[str, Any]]
    interrupted: bool
    out_dir: Path | None

    @property
    def losses(self) -> list[float]:
        """The training loss of every step."""
        return [row["loss"] for row in self.history]

    @property
    def validation(self) -> list[dict[str, Any]]:
        """The rows with a validation loss."""
        return [row for row in self.history if "val_loss" in row]

    def __repr__(self) -> str:
        end = self.validation[-1] if self.validation else None
        score = (
            f", {end['val_bits_per_byte']:.2f} validation bits per byte" if end else ""
        )
        stopped = ", interrupted" if self.interrupted else ""
        return f"TrainResult({len(self.history)} steps{score}{stopped})"


def train(
    model: nn.Module,
    data: PackedData,
    config: TrainConfig,
    out_dir: str | os.PathLike | None = None,
    *,
    resume: bool = False,
    progress: bool = True,
    log: Callable[[str], None] | None = None,
) -> TrainResult:
    """Train ``model`` in place, on its device, and leave it in ``eval()``.

    With ``out_dir`` the run is saved there, and ``resume=True`` goes on where it
    stopped: the losses are those of a run that was never stopped, to the last bit, on
    the same machine and number of threads. Nothing in a step is random: its batch
    depends on the seed and the step alone. Ctrl-C finishes the step, saves, and
    returns with ``interrupted`` set. ``progress`` draws a bar; ``log`` is given a line
    of text for each evaluation.

    Raises:
        ValueError: model and data do not fit, or a resumed run differs.
        FileExistsError, FileNotFoundError: ``out_dir`` is taken, or holds no run.
        OSError: it cannot be written; the last checkpoint is left as it was.
        FloatingPointError: the loss is no longer finite.
    """
    _check_fit(model, data)
    optimizer = make_optimizer(model, config)
    start, before, history = 0, 0.0, []
    folder = RunFolder(out_dir, model, data, config) if out_dir is not None else None
    if resume and folder is None:
        raise ValueError("resume=True needs out_dir: the folder of the run")
    if resume:
        start, before, history = folder.restore(optimizer)
    elif folder is not None:
        folder.create(optimizer)
    model.train()
    began = time.perf_counter()
    bar = tqdm(total=config.steps, initial=start, disable=not progress, unit="step")
    step = start
    with bar, _interrupts() as interrupted:
        while step < config.steps and not interrupted.is_set():
            row = _update(model, data, config, optimizer, step)
            step += 1
            if step % config.eval_every == 0 or step == config.steps:
                row |= evaluate(model, data, config.batch_size, config.eval_windows)
                if log is not None:
                    log(_describe(row, config.steps))
            elapsed = time.perf_counter() - began
            row["seconds"] = round(before + elapsed, 3)
            history.append(row)
            if folder is not None:
                folder.record(row)
                if step % config.save_every == 0:
                    folder.save(step, before + elapsed, optimizer)
            _show(bar, row, elapsed, (step - start) * config.batch_size * data.seq_len)
        if folder is not None:
            folder.save(step, before + time.perf_counter() - began, optimizer)
    model.eval()
    return TrainResult(history, step < config.steps, folder and folder.path)


def _update(
    model: nn.Module,
    data: PackedData,
    config: TrainConfig,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> dict[str, Any]:
    """One optimiser step; returns its row of metrics."""
    lr = config.lr_at(step)
    for group in optimizer.param_groups:
        group["lr"] = lr
    tokens = data.batch(step, config.batch_size, config.seed)
    loss = next_token_loss(model, tokens.to(_device(model)))
    if not math.isfinite(loss.item()):
        raise FloatingPointError(
            f"the loss is {loss.item()} at step {step + 1}: lower the learning rate "
            f"(now {lr:g})"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    optimizer.step()
    return {
        "step": step + 1,
        "loss": loss.item(),
        "lr": lr,
        "grad_norm": grad_norm.item(),
        "tokens": (step + 1) * config.batch_size * data.seq_len,
    }


def next_token_loss(
    model: nn.Module, tokens: Int[Tensor, "B window"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy, in nats, of every token given those before it in its row."""
    logits = model(tokens[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())


@torch.no_grad()
def evaluate(
    model: nn.Module, data: PackedData, batch_size: int = 8, n_windows: int = 64
) -> dict[str, float]:
    """Loss on validation text: ``val_loss`` in nats per token, ``val_bits_per_byte``.

    Bits per byte divide by the bytes that the predicted tokens stand for, so that
    models with different tokenizers can be compared.
    """
    was_training = model.training
    model.eval()
    byte_lengths = torch.tensor(data.tokenizer.byte_lengths())
    nats, n_tokens, n_bytes = 0.0, 0, 0
    for tokens in data.validation_batches(batch_size, n_windows):
        loss = next_token_loss(model, tokens.to(_device(model)))
        n_targets = tokens[:, 1:].numel()
        nats += loss.item() * n_targets
        n_tokens += n_targets
        n_bytes += int(byte_lengths[tokens[:, 1:]].sum())
    model.train(was_training)
    bits = nats / math.log(2)
    return {"val_loss": nats / n_tokens, "val_bits_per_byte": bits / max(1, n_bytes)}


def _check_fit(model: nn.Module, data: PackedData) -> None:
    config = model.config
    if data.seq_len > config.max_seq_len:
        raise ValueError(
            f"the data's seq_len is {data.seq_len}, but the model reads at most "
            f"{config.max_seq_len} tokens"
        )
    if data.tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {data.tokenizer.vocab_size} entries, but the model "
            f"only {config.vocab_size}"
        )


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _describe(row: dict[str, Any], steps: int) -> str:
    return (
        f"step {row['step']}/{steps}: loss {row['loss']:.3f}, validation "
        f"{row['val_loss']:.3f} nats/token, {row['val_bits_per_byte']:.3f} bits/byte"
    )


def _show(bar: tqdm, row: dict[str, Any], elapsed: float, n_tokens: int) -> None:
    figures = {"loss": f"{row['loss']:.3f}", "tokens/s": f"{n_tokens / elapsed:,.0f}"}
    bar.set_postfix(figures, refresh=False)
    bar.update()


@contextlib.contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into an event: a half-done update must not be saved.

    The second one interrupts at once, as usual. Only a main thread may do this; in
    another one Ctrl-C never arrives.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = signal.getsignal(signal.SIGINT)

    def finish_the_step(number, frame):
        event.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, finish_the_step)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)
