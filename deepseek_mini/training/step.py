"""One step of training: loss, gradient, update, and what it saw."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from deepseek_mini.data import MixedData, PackedData
from deepseek_mini.model.moe import Gate
from deepseek_mini.training.balance import update_bias
from deepseek_mini.training.config import TrainConfig
from deepseek_mini.training.losses import Measures, training_loss


def update(
    model: nn.Module,
    data: PackedData | MixedData,
    config: TrainConfig,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> dict[str, Any]:
    """One optimiser step; returns its row of metrics."""
    lr = config.lr_at(step)
    for group in optimizer.param_groups:
        group["lr"] = lr
    tokens = data.batch(step, config.batch_size, config.seed)
    optimizer.zero_grad(set_to_none=True)
    measures = Measures()
    rows_of_piece = config.batch_size // config.accumulate
    for i, piece in enumerate(tokens.split(rows_of_piece)):
        first_row = step * config.batch_size + i * rows_of_piece
        loss, measured = loss_of(model, piece, config, step, first_row)
        (loss / config.accumulate).backward()
        measures.add(measured, 1 / config.accumulate)
    loss = measures.parts["loss"]
    if not math.isfinite(sum(measures.parts.values())):
        raise FloatingPointError(
            f"the loss is {loss} at step {step + 1}: lower the learning rate "
            f"(now {lr:g})"
        )
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    optimizer.step()
    row = {
        "step": step + 1,
        **measures.row(),
        "lr": lr,
        "grad_norm": grad_norm.item(),
        "tokens": (step + 1) * config.batch_size * data.seq_len,
    }
    return row | update_biases(model, measures.loads, config, step)


def update_biases(
    model: nn.Module, loads: list[Tensor], config: TrainConfig, step: int
) -> dict[str, Any]:
    """V3's balancing after the step; loads are in the order of the gates."""
    gates = [module for module in model.modules() if isinstance(module, Gate)]
    speed = config.balance.speed_at(step, config.steps)
    biases = []
    for gate, load in zip(gates, loads):  # no MTP loss: its gates saw nothing
        if gate.bias is not None:
            if speed:
                update_bias(gate.bias, load, speed)
            biases.append([round(b, 6) for b in gate.bias.tolist()])
    return {"bias": biases} if biases else {}


def loss_of(
    model: nn.Module,
    tokens: Tensor,
    config: TrainConfig,
    step: int,
    first_row: int = 0,
) -> tuple[Tensor, Measures]:
    """`training_loss` on the model's device, its products in bfloat16 if asked for."""
    device = next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=config.autocast):
        return training_loss(model, tokens.to(device), config, step, first_row)
