"""Supervised fine-tuning: go on training, on the answers of conversations only."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor, nn
from tqdm.auto import tqdm

from deepseek_mini.posttraining.packing import PackedChats, answer_loss
from deepseek_mini.training import TrainConfig
from deepseek_mini.training.optimizer import make_optimizer


def sft(
    model: nn.Module, data: PackedChats, config: TrainConfig, *, progress: bool = True
) -> list[dict[str, float]]:
    """Train `model` in place on packed conversations; a row of metrics for each step.

    A step takes `config.batch_size` rows. Its loss is the mean over all the trained
    tokens in them: a long answer counts more than a short one. Of the config, steps,
    batch_size, lr, schedule, warmup, betas, weight_decay, clip and seed are used. The
    biases of a router stay as they are.

    Raises:
        ValueError: no token is trained, or the rows are longer than the model reads.
        FloatingPointError: the loss is no longer finite.
    """
    _check(model, data)
    device = next(model.parameters()).device
    optimizer = make_optimizer(model, config)
    history = []
    model.train()
    with tqdm(total=config.steps, disable=not progress, unit="step") as bar:
        for step, rows in enumerate(_batches(len(data), config)):
            lr = config.lr_at(step)
            for group in optimizer.param_groups:
                group["lr"] = lr
            total, n_trained = answer_loss(model, data.rows(rows).to(device))
            loss = total / n_trained.clamp(min=1)
            if not math.isfinite(loss.item()):
                raise FloatingPointError(
                    f"the loss is {loss.item()} at step {step + 1}: lower the learning "
                    f"rate (now {lr:g})"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            grad_norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            row = {"step": step + 1, "loss": loss.item(), "lr": lr}
            history.append(row | {"grad_norm": grad_norm.item()})
            bar.set_postfix({"loss": f"{loss.item():.3f}"}, refresh=False)
            bar.update()
    model.eval()
    return history


def _batches(n_rows: int, config: TrainConfig) -> Iterator[Int[Tensor, " n"]]:
    """The rows of each step: every epoch in a new order, none left out."""
    generator = torch.Generator().manual_seed(config.seed)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(config.steps):
        while len(order) < config.batch_size:
            order = torch.cat([order, torch.randperm(n_rows, generator=generator)])
        yield order[: config.batch_size]
        order = order[config.batch_size :]


def _check(model: nn.Module, data: PackedChats) -> None:
    if not data.trained.any():
        raise ValueError(
            "no token of the conversations is trained: none ends with an answer that "
            "its template asks for (see render)"
        )
    length, limit = data.tokens.shape[1], model.config.max_seq_len
    if length - 1 > limit:
        raise ValueError(
            f"the rows have {length} tokens, but the model reads at most {limit}: pack "
            "into shorter rows"
        )
