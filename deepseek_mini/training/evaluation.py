"""How good a model is on text that it has not read."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from deepseek_mini.data import MixedData, PackedData
from deepseek_mini.training.losses import next_token_loss


@torch.no_grad()
def evaluate(
    model: nn.Module,
    data: PackedData | MixedData,
    batch_size: int = 8,
    n_windows: int = 64,
) -> dict[str, float]:
    """Loss on validation text: ``val_loss`` in nats per token, ``val_bits_per_byte``.

    Bits per byte divide by the bytes that the predicted tokens stand for, so that
    models with different tokenizers can be compared. For mixed data both are those of
    the mixture, and ``val_loss/NAME``, ``val_bits_per_byte/NAME`` those of a source.
    """
    was_training = model.training
    model.eval()
    shares = {"": n_windows}
    if isinstance(data, MixedData):
        shares = data.validation_shares(n_windows)
    total, scores = torch.zeros(3, dtype=torch.float64), {}
    for name, share in shares.items():
        source = data.sources[name] if name else data
        batches = source.validation_batches(batch_size, share)
        sums = _sums(model, batches, torch.tensor(data.tokenizer.byte_lengths()))
        total += sums
        if name:
            scores |= _score(sums, f"/{name}")
    model.train(was_training)
    return _score(total) | scores


def _sums(model: nn.Module, batches: Iterable[Tensor], byte_lengths: Tensor) -> Tensor:
    """Nats, tokens and bytes of all targets: float64 [3]."""
    device = next(model.parameters()).device
    sums = torch.zeros(3, dtype=torch.float64)
    for tokens in batches:
        targets = tokens[:, 1:]
        nats = next_token_loss(model, tokens.to(device)).item() * targets.numel()
        n_bytes = int(byte_lengths[targets].sum())
        sums += torch.tensor([nats, targets.numel(), n_bytes], dtype=torch.float64)
    return sums


def _score(sums: Tensor, suffix: str = "") -> dict[str, float]:
    nats, n_tokens, n_bytes = sums.tolist()
    return {
        f"val_loss{suffix}": nats / n_tokens,
        f"val_bits_per_byte{suffix}": nats / math.log(2) / max(1, n_bytes),
    }
