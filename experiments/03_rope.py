"""Trained on 64 bytes, read at 256: what each way to stretch RoPE costs.

    python experiments/03_rope.py

A small language model over bytes learns from windows of 64 bytes. Then it reads windows
of 256, four times longer than anything it was trained on, with its rotations plain,
slowed by 4 (linear), and scaled the YaRN way: first as it is, then after a few steps of
training on windows of 256, each of the three alike. Every seed is an independent model.

The log goes to deepseek_mini/assets/logs/03_rope.jsonl: a first line that says what ran
where (seconds are the processor's), then a line for every seed, scaling and stage, with
the validation loss (nats a byte) of each stretch of 16 positions. Lesson 03 plots it.
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

from deepseek_mini.config import GQA, Config, Linear, Rope, SwiGLU, Yarn
from deepseek_mini.model import Transformer

LOG = Path(__file__).parent.parent / "deepseek_mini/assets/logs/03_rope.jsonl"
SHORT, LONG, STRETCH = 64, 256, 16  # trained, read, and averaged over: positions
SCALINGS = {
    "plain": None,
    "linear": Linear(factor=LONG / SHORT),
    "yarn": Yarn(factor=LONG / SHORT, original_seq_len=SHORT),
}
CONFIG = Config(
    vocab_size=256,
    dim=128,
    n_layers=2,
    max_seq_len=LONG,
    attention=GQA(n_heads=4, n_kv_heads=4, head_dim=32),
    dense=SwiGLU(inter_dim=344),
    rope=Rope(theta=10_000.0),
    init_std=0.02,
)
PRETRAIN = {"steps": 400, "rows": 32, "length": SHORT, "peak": 3e-3}
FINETUNE = {"steps": 40, "rows": 8, "length": LONG, "peak": 1e-3}


@torch.no_grad()
def loss_by_position(model: Transformer, data: Tensor) -> list[float]:
    """Mean loss of each stretch of STRETCH positions, over windows of LONG bytes.

    Windows start every SHORT bytes of 24 runs of 2048: but for the ends of a run, every
    byte is read once in each quarter of a window, so the quarters are compared on the
    same text.
    """
    runs = torch.linspace(0, len(data) - 2049, 24).long()[:, None]
    start = (runs + torch.arange(0, 2049 - LONG, SHORT)).reshape(-1, 1)
    windows = data[start + torch.arange(LONG + 1)]
    total = torch.zeros(LONG)
    for window in windows.split(64):
        logits = model(window[:, :-1]).transpose(1, 2)  # [rows, 256, LONG]
        total += F.cross_entropy(logits, window[:, 1:], reduction="none").sum(0)
    mean = (total / len(windows)).unflatten(0, (-1, STRETCH)).mean(1)
    return [round(x, 4) for x in mean.tolist()]


def run(seed: int, training: Tensor, validation: Tensor) -> list[dict]:
    """The records of one seed: three scalings, before and after fine-tuning."""
    torch.manual_seed(seed)
    base = Transformer(CONFIG)
    started = time.process_time()
    train(base, training, seed, **PRETRAIN)
    seconds = time.process_time() - started
    records = []

    def record(scaling: str, steps: int, model: Transformer, seconds: float) -> None:
        loss = loss_by_position(model, validation)
        records.append(
            {
                "seed": seed,
                "scaling": scaling,
                "finetune_steps": steps,
                "loss": loss,
                "train_seconds": round(seconds, 1),
            }
        )
        far = sum(loss[-4:]) / 4
        print(
            f"seed {seed}  {scaling:6}  {steps:2} steps  {loss[3]:.3f} at positions "
            f"48 to 63, {far:.3f} at 192 to 255",
            flush=True,
        )

    for name, scaling in SCALINGS.items():
        model = Transformer(replace(CONFIG, rope=replace(CONFIG.rope, scaling=scaling)))
        model.load_state_dict(base.state_dict())
        record(name, 0, model, seconds)
        started = time.process_time()
        train(model, training, 1000 + seed, **FINETUNE)
        record(name, FINETUNE["steps"], model, time.process_time() - started)
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="models to train")
    parser.add_argument("--log", type=Path, default=LOG, help="where to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    training, validation, source = code()
    started = time.process_time()
    records = [r for s in range(args.seeds) for r in run(s, training, validation)]
    header = {
        "experiment": "03_rope",
        "command": "python experiments/03_rope.py",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{processor()}, 1 thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seconds": round(time.process_time() - started),
        "text": source,
        "training_bytes": len(training),
        "validation_bytes": len(validation),
        "parameters": sum(p.numel() for p in Transformer(CONFIG).parameters()),
        "pretrain": PRETRAIN,
        "finetune": FINETUNE,
        "trained_at": SHORT,
        "read_at": LONG,
        "stretch": STRETCH,
    }
    args.log.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record) for record in [header, *records]]
    args.log.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
