"""What the experiments share: models over bytes of code, and what ran where."""

import math
import platform
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from deepseek_mini.data import python_code
from deepseek_mini.model import Transformer


def code() -> tuple[Tensor, Tensor, str]:
    """Bytes to train on, bytes of other modules to validate on, and their source."""
    corpus = python_code()
    parts = []
    for documents in (corpus.train, corpus.validation):
        text = "".join(document.text for document in documents)
        parts.append(torch.tensor(bytearray(text, "utf-8"), dtype=torch.int64))
    return *parts, corpus.source


def train(
    model: Transformer,
    data: Tensor,
    seed: int,
    steps: int,
    rows: int,
    length: int,
    peak: float,
) -> None:
    """AdamW with 20 steps of warm-up and a cosine down to a tenth of `peak`."""
    generator = torch.Generator().manual_seed(seed)
    adam = torch.optim.AdamW(
        model.parameters(), lr=peak, betas=(0.9, 0.95), weight_decay=0.1
    )
    for step in range(steps):
        cosine = 0.55 + 0.45 * math.cos(math.pi * step / steps)
        for group in adam.param_groups:
            group["lr"] = peak * cosine * min(1, (step + 1) / 20)
        start = torch.randint(len(data) - length, (rows, 1), generator=generator)
        window = data[start + torch.arange(length + 1)]  # [rows, length + 1]
        logits = model(window[:, :-1])  # [rows, length, 256]
        loss = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()


def processor() -> str:
    """The processor's name, as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()
