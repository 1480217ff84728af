"""Eight, two or one key-value heads: what a smaller cache costs in loss.

    python experiments/04_attention.py

Small language models over bytes learn Python code. They differ in the number G of
key-value heads that serve their 8 query heads, and nothing else changes the number of
parameters: what the smaller key and value matrices save, a wider feed-forward network
gets. In a seed, all see the same windows of text in the same order.

The log goes to deepseek_mini/assets/logs/04_attention.jsonl: a first line that says
what ran where (seconds are the processor's), then a line for every seed and G, with the
validation loss in nats a byte. Lesson 04 plots it.
"""

import argparse
import datetime
import json
import platform
import time
from dataclasses import replace
from pathlib import Path

import torch
from shared import code, processor, train
from torch import Tensor
from torch.nn import functional as F

from deepseek_mini.config import GQA, Config, SwiGLU
from deepseek_mini.model import Transformer

LOG = Path(__file__).parent.parent / "deepseek_mini/assets/logs/04_attention.jsonl"
KV_HEADS = (8, 2, 1)
EIGHT = Config(
    vocab_size=256,
    dim=96,
    n_layers=2,
    max_seq_len=128,
    attention=GQA(n_heads=8, n_kv_heads=8, head_dim=12),
    dense=SwiGLU(inter_dim=256),
    init_std=0.05,
)
TRAIN = {"steps": 600, "rows": 16, "length": 128, "peak": 4e-3}


def config(n_kv_heads: int) -> Config:
    """EIGHT with fewer key-value heads, and exactly as many parameters.

    A key-value head has 2 * dim * head_dim parameters in a layer, a channel of the
    feed-forward network 3 * dim.
    """
    part = EIGHT.attention
    fewer = part.n_kv_heads - n_kv_heads
    return replace(
        EIGHT,
        attention=replace(part, n_kv_heads=n_kv_heads),
        dense=SwiGLU(EIGHT.dense.inter_dim + fewer * 2 * part.head_dim // 3),
    )


@torch.no_grad()
def loss_of(model: Transformer, data: Tensor, length: int, windows: int = 512) -> float:
    """Mean loss (nats a byte) over windows that are spread evenly over `data`."""
    start = torch.linspace(0, len(data) - length - 1, windows).long()[:, None]
    total = 0.0
    for part in data[start + torch.arange(length + 1)].split(64):
        logits = model(part[:, :-1]).transpose(1, 2)  # [rows, 256, length]
        total += F.cross_entropy(logits, part[:, 1:]).item() * len(part)
    return total / windows


def run(seed: int, n_kv_heads: int, training: Tensor, validation: Tensor) -> dict:
    """Train one model; its record."""
    torch.manual_seed(seed)
    model = Transformer(config(n_kv_heads))
    started = time.process_time()
    train(model, training, seed, **TRAIN)
    seconds = time.process_time() - started
    loss = loss_of(model, validation, TRAIN["length"])
    print(f"seed {seed}  {n_kv_heads} key-value heads  {loss:.4f}", flush=True)
    return {
        "seed": seed,
        "n_kv_heads": n_kv_heads,
        "inter_dim": model.config.dense.inter_dim,
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": round(loss, 4),
        "train_seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="models of each kind")
    parser.add_argument("--log", type=Path, default=LOG, help="where to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    training, validation, source = code()
    started = time.process_time()
    records = [
        run(seed, n_kv_heads, training, validation)
        for seed in range(args.seeds)
        for n_kv_heads in KV_HEADS
    ]
    header = {
        "experiment": "04_attention",
        "command": "python experiments/04_attention.py",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{processor()}, 1 thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seconds": round(time.process_time() - started),
        "text": source,
        "training_bytes": len(training),
        "validation_bytes": len(validation),
        "train": TRAIN,
    }
    args.log.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record) for record in [header, *records]]
    args.log.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
