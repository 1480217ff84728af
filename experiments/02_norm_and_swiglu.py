"""What the norm and the gate are worth: small language models that differ in one part.

    python experiments/02_norm_and_swiglu.py

A language model over bytes, four layers deep, learns Python code. Its parts are those
of the package: RMSNorm before each part of a layer, and SwiGLU. Each variant changes
one of the two:

- `layernorm`: LayerNorm with weight and bias; `no norm`: no normalisation anywhere;
- `gelu`, `relu`: two matrices with that function between them, at the width that has
  exactly as many parameters.

All are trained from several seeds at two learning rates, because one rate favours the
variant that it suits. Seed and rate fix the batches, so variants are compared in pairs.

The log goes to deepseek_mini/assets/logs/02_norm_and_swiglu.jsonl: a first line that
says what ran where (seconds are the processor's), then a line for every run with its
validation loss (nats a byte), and, with RMSNorm, the share of the mean square of the
norms' inputs that is the square of their mean. Lesson 02 plots it.
"""

import argparse
import datetime
import json
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from shared import code, processor, train
from torch import Tensor, nn
from torch.nn import functional as F

from deepseek_mini.config import GQA, Config, SwiGLU
from deepseek_mini.model import RMSNorm, Transformer

LOG = (
    Path(__file__).parent.parent / "deepseek_mini/assets/logs/02_norm_and_swiglu.jsonl"
)
CONFIG = Config(
    vocab_size=256,
    dim=64,
    n_layers=4,
    max_seq_len=64,
    attention=GQA(n_heads=2, n_kv_heads=2, head_dim=32),
    dense=SwiGLU(inter_dim=172),
    init_std=0.06,
)
TRAINING = {"steps": 200, "rows": 16, "length": 64}
PEAKS = (0.003, 0.01)
VARIANTS = ("swiglu, rmsnorm", "gelu", "relu", "layernorm", "no norm")


class MLP(nn.Module):
    """Two matrices and a function between them: w2 f(w1 x)."""

    def __init__(self, dim: int, width: int, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.w1 = nn.Linear(dim, width, bias=False)
        self.w2 = nn.Linear(width, dim, bias=False)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(self.function(self.w1(x)))


def build(variant: str, seed: int) -> Transformer:
    """A freshly initialised model with one part changed."""
    torch.manual_seed(seed)
    model = Transformer(CONFIG)
    dim, width = CONFIG.dim, CONFIG.dense.inter_dim * 3 // 2
    norms = {
        "layernorm": lambda: nn.LayerNorm(dim, CONFIG.norm_eps),
        "no norm": nn.Identity,
    }
    if variant in norms:
        for layer in model.layers:
            layer.attn_norm, layer.ffn_norm = norms[variant](), norms[variant]()
        model.norm = norms[variant]()
    if variant in ("gelu", "relu"):
        for layer in model.layers:
            layer.ffn = MLP(dim, width, getattr(F, variant))
            layer.ffn.apply(model._initialise)
    return model


@torch.no_grad()
def validate(model: Transformer, data: Tensor, rows: int = 600) -> tuple[float, float]:
    """The loss over windows of all the text, and the share that is the mean's.

    The share is mean(x)² / mean(x²) of the inputs of every RMSNorm, averaged over
    tokens and norms; NaN without RMSNorm.
    """
    shares: list[float] = []

    def look(module: nn.Module, args: tuple[Tensor]) -> None:
        (x,) = args
        shares.append((x.mean(-1).square() / x.square().mean(-1)).mean().item())

    norms = [m for m in model.modules() if isinstance(m, RMSNorm)]
    hooks = [m.register_forward_pre_hook(look) for m in norms]
    length = TRAINING["length"]
    start = torch.linspace(0, len(data) - length - 1, rows).long()[:, None]
    window = data[start + torch.arange(length + 1)]  # [rows, length + 1]
    loss = F.cross_entropy(model(window[:, :-1]).transpose(1, 2), window[:, 1:])
    for hook in hooks:
        hook.remove()
    return loss.item(), sum(shares) / len(shares) if shares else math.nan


def run(
    variant: str, peak: float, seed: int, training: Tensor, validation: Tensor
) -> dict:
    """The record of one model."""
    model = build(variant, seed)
    started = time.process_time()
    train(model, training, seed, peak=peak, **TRAINING)
    seconds = time.process_time() - started
    loss, share = validate(model, validation)
    print(f"{variant:16} rate {peak}  seed {seed}  loss {loss:.4f}", flush=True)
    return {
        "variant": variant,
        "peak": peak,
        "seed": seed,
        "loss": round(loss, 4),
        "mean_share": None if math.isnan(share) else round(share, 5),
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=4, help="models of each kind")
    parser.add_argument("--log", type=Path, default=LOG, help="where to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    training, validation, source = code()
    started = time.process_time()
    records = [
        run(variant, peak, seed, training, validation)
        for seed in range(args.seeds)
        for peak in PEAKS
        for variant in VARIANTS
    ]
    header = {
        "experiment": "02_norm_and_swiglu",
        "command": "python experiments/02_norm_and_swiglu.py",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{processor()}, 1 thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seconds": round(time.process_time() - started),
        "text": source,
        "training_bytes": len(training),
        "validation_bytes": len(validation),
        "seeds": args.seeds,
        "training": TRAINING,
        "peaks": PEAKS,
    }
    args.log.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record) for record in [header, *records]]
    args.log.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
