"""The training loop: batch, loss, gradient, step, and again."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from tqdm.auto import tqdm

from deepseek_mini.data import MixedData, PackedData
from deepseek_mini.training.compiling import compiled_layers
from deepseek_mini.training.config import TrainConfig
from deepseek_mini.training.evaluation import evaluate
from deepseek_mini.training.fp8 import use_fp8
from deepseek_mini.training.losses import next_token_loss as next_token_loss
from deepseek_mini.training.optimizer import make_optimizer
from deepseek_mini.training.run_folder import RunFolder
from deepseek_mini.training.step import loss_of, update


@dataclass(frozen=True)
class TrainResult:
    """What a run did. ``history`` has a row a step, as in metrics.jsonl:

    ``step`` (from 1), ``loss`` (nats per token, of the batch before its update),
    ``lr``, ``grad_norm`` (before clipping), ``tokens`` (read so far), ``seconds``; and
    on some rows ``val_loss`` (nats per token) and ``val_bits_per_byte``, of the main
    model alone (see ``evaluate``).

    A model with MTP modules adds ``mtp_loss`` (nats per token, before its weight), one
    with sparse layers ``balance_loss`` (as it was added, if it was) and lists with an
    entry a sparse layer, MTP's last: ``load`` (tokens that chose each expert, of the
    whole batch), ``max_vio``, ``load_entropy`` (nats), ``bias`` (after the step), and
    ``dropped`` (share of the choices).
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
    data: PackedData | MixedData,
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
    if model.config.moe is not None:
        config.balance.devices(model.config.moe)  # do they divide its experts?
    if config.fp8:
        use_fp8(model)
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
    fast = contextlib.nullcontext
    if config.compile:
        rows = data.batch(0, config.batch_size // config.accumulate, config.seed)
        fast = compiled_layers(model, lambda: loss_of(model, rows, config, 0)[0])
    began = time.perf_counter()
    bar = tqdm(total=config.steps, initial=start, disable=not progress, unit="step")
    step = start
    with bar, _interrupts() as interrupted:
        while step < config.steps and not interrupted.is_set():
            with fast():
                row = update(model, data, config, optimizer, step)
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


def _check_fit(model: nn.Module, data: PackedData | MixedData) -> None:
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
