"""Trained in emulated FP8 and in float32: the gap in loss, and what outliers do.

    python experiments/13_fp8.py

A small language model over bytes learns Python code, once in float32 and once with each
recipe for FP8. In a seed, all start from the same weights and see the same text in the
same order. One more run in float32 starts from weights that are changed by one percent,
which is as good a start: a gap like that is noise.

Tiles have 32 channels here: with 128, as in DeepSeek-V3, this model would have a single
tile in a row.

Then outliers are planted into the model that was trained in float32: one channel of
each norm's gain is multiplied by a factor, and the weights that read this channel are
divided by it. In float32 that changes nothing. The model is read with FP8 products,
with tiles and with one scale a tensor, for factors from 1 to a million.

The log goes to deepseek_mini/assets/logs/13_fp8.jsonl: a first line that says what ran
where (seconds are the processor's), then a line for every seed and recipe and for every
seed, factor and recipe, with the validation loss in nats a byte. Lesson 13 plots it.
"""

import argparse
import copy
import datetime
import json
import platform
import time
from pathlib import Path

import torch
from shared import code, processor, train
from torch import Tensor
from torch.nn import functional as F

from deepseek_mini.config import GQA, Config, SwiGLU
from deepseek_mini.fp8 import E5M2
from deepseek_mini.model import Transformer
from deepseek_mini.training.fp8 import Recipe, use_fp8

LOG = Path(__file__).parent.parent / "deepseek_mini/assets/logs/13_fp8.jsonl"
TILE = 32
RECIPES = {
    "float32": None,
    "float32, nudged": None,
    "E4M3, tiles": Recipe(tile=TILE),
    "E4M3, tiles, short sums": Recipe(tile=TILE, short=True),
    "E4M3, one scale": Recipe(tile=None),
    "E5M2, one scale": Recipe(tile=None, fmt=E5M2, grad_fmt=E5M2),
}
FACTORS = [10**power for power in range(7)]
READ = ("float32", "E4M3, tiles", "E4M3, one scale", "E5M2, one scale")
CONFIG = Config(
    vocab_size=256,
    dim=128,
    n_layers=2,
    max_seq_len=64,
    attention=GQA(n_heads=4, n_kv_heads=4, head_dim=32),
    dense=SwiGLU(inter_dim=352),
    init_std=0.05,
)
TRAIN = {"steps": 200, "rows": 16, "length": 64, "peak": 3e-3}


@torch.no_grad()
def loss_of(model: Transformer, data: Tensor, length: int, windows: int = 256) -> float:
    """Mean loss (nats a byte) over windows that are spread evenly over `data`."""
    start = torch.linspace(0, len(data) - length - 1, windows).long()[:, None]
    total = 0.0
    for part in data[start + torch.arange(length + 1)].split(64):
        logits = model(part[:, :-1]).transpose(1, 2)  # [rows, 256, length]
        total += F.cross_entropy(logits, part[:, 1:]).item() * len(part)
    return total / windows


@torch.no_grad()
def planted(model: Transformer, factor: float, channel: int = 5) -> Transformer:
    """A copy that computes the same, with an outlier in what its linear layers read."""
    model = copy.deepcopy(model)
    for layer in model.layers:
        layer.attn_norm.weight[channel] *= factor
        layer.ffn_norm.weight[channel] *= factor
        attn, ffn = layer.attn, layer.ffn
        for linear in (attn.wq, attn.wk, attn.wv, ffn.w1, ffn.w3):
            linear.weight[:, channel] /= factor
    return model


def run(seed: int, training: Tensor, validation: Tensor) -> list[dict]:
    """Train one model with every recipe, then plant outliers into the first."""
    torch.manual_seed(seed)
    start, records = Transformer(CONFIG), []
    nudge = torch.Generator().manual_seed(100 + seed)
    for name, recipe in RECIPES.items():
        model = copy.deepcopy(start)
        if name == "float32, nudged":
            for p in model.parameters():
                p.data *= 1 + 0.01 * torch.randn(p.shape, generator=nudge)
        if recipe is not None:
            use_fp8(model, recipe)
        started = time.process_time()
        train(model, training, seed, **TRAIN)
        seconds = time.process_time() - started
        loss = loss_of(model, validation, TRAIN["length"])
        print(f"seed {seed}  {name:24} {loss:.4f}  {seconds:.0f} s", flush=True)
        record = {"seed": seed, "recipe": name, "loss": round(loss, 5)}
        records.append({**record, "train_seconds": round(seconds, 1)})
        if name == "float32":
            trained = model
    for factor in FACTORS:
        for name in READ:
            model = planted(trained, factor)
            if name != "float32":
                use_fp8(model, RECIPES[name])
            loss = loss_of(model, validation, TRAIN["length"], windows=128)
            print(f"seed {seed}  factor {factor:9,} {name:16} {loss:.4f}", flush=True)
            record = {"seed": seed, "factor": factor, "recipe": name}
            records.append({**record, "loss": round(loss, 5)})
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="models of each kind")
    parser.add_argument("--log", type=Path, default=LOG, help="where to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    training, validation, source = code()
    started = time.process_time()
    records = [r for s in range(args.seeds) for r in run(s, training, validation)]
    header = {
        "experiment": "13_fp8",
        "command": "python experiments/13_fp8.py",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{processor()}, 1 thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seconds": round(time.process_time() - started),
        "text": source,
        "training_bytes": len(training),
        "validation_bytes": len(validation),
        "parameters": sum(p.numel() for p in Transformer(CONFIG).parameters()),
        "train": TRAIN,
        "tile": TILE,
    }
    args.log.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record) for record in [header, *records]]
    args.log.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
