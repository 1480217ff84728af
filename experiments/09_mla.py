"""Latent attention beside its rivals: what it costs in loss, and in time to decode.

    python experiments/09_mla.py

Quality. Small language models over bytes learn Python code with 8 heads of 12 channels
and latent attention in V2's proportions: a latent of 4 heads' width and a RoPE key of
half a head's. They are experiment 04's models (8, 2 or 1 key-value heads) in all else:
what attention needs in parameters, the feed-forward network gives back, and in a seed
all see the same windows of text in the same order. Experiment 04's losses are taken
from its log, after one of its models has been trained again for a check.

Speed. One decode step of one attention layer with S tokens in its cache, at a toy's
width and at V2-Lite's, in float32 on one thread: the least processor time of several
steps, with the kinds taken in turn.

The log goes to deepseek_mini/assets/logs/09_mla.jsonl: a first line that says what ran
where (seconds are the processor's, those of experiment 04 not among them), then a line
for each timing (milliseconds) and one for each model (loss in nats a byte). Lesson 09
plots it.
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

from deepseek_mini.config import GQA, MLA, Config, Rope, SwiGLU
from deepseek_mini.model import KVCache, Transformer
from deepseek_mini.model.rope import rope_table

LOGS = Path(__file__).parent.parent / "deepseek_mini/assets/logs"
BASE = Config(
    vocab_size=256,
    dim=96,
    n_layers=2,
    max_seq_len=128,
    attention=GQA(n_heads=8, n_kv_heads=8, head_dim=12),
    dense=SwiGLU(inter_dim=256),
    init_std=0.05,
)
TRAIN = {"steps": 600, "rows": 16, "length": 128, "peak": 4e-3}
LATENT = MLA(8, None, 48, qk_nope_head_dim=12, qk_rope_head_dim=6, v_head_dim=12)
KINDS = {  # attention, and the feed-forward width that keeps the parameters equal
    "MHA": (BASE.attention, 256),
    "MLA": (LATENT, 254),
}
HEADS = {8: "MHA", 2: "GQA", 1: "MQA"}  # by key-value heads, as in experiment 04
SPEED = {  # a model with MLA, and multi-head attention with as many heads
    "toy": (Config.preset("deepseek-v2-mini"), GQA(4, 4, head_dim=32)),
    "lite": (Config.preset("deepseek-v2-lite"), GQA(16, 16, head_dim=128)),
}
CONTEXTS = (128, 512, 2048, 8192)


@torch.no_grad()
def loss_of(model: Transformer, data: Tensor, length: int, windows: int = 512) -> float:
    """Mean loss (nats a byte) over windows that are spread evenly over `data`."""
    start = torch.linspace(0, len(data) - length - 1, windows).long()[:, None]
    total = 0.0
    for part in data[start + torch.arange(length + 1)].split(64):
        logits = model(part[:, :-1]).transpose(1, 2)  # [rows, 256, length]
        total += F.cross_entropy(logits, part[:, 1:]).item() * len(part)
    return total / windows


def run(seed: int, kind: str, training: Tensor, validation: Tensor) -> dict:
    """Train one model; its record."""
    attention, inter_dim = KINDS[kind]
    torch.manual_seed(seed)
    config = replace(BASE, attention=attention, dense=SwiGLU(inter_dim))
    model = Transformer(config)
    started = time.process_time()
    train(model, training, seed, **TRAIN)
    seconds = time.process_time() - started
    loss = loss_of(model, validation, TRAIN["length"])
    print(f"seed {seed}  {kind}  {loss:.4f}  {seconds:.0f} s", flush=True)
    return {
        "seed": seed,
        "kind": kind,
        "inter_dim": inter_dim,
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": round(loss, 4),
        "train_seconds": round(seconds, 1),
    }


def rivals(training: Tensor, validation: Tensor) -> list[dict]:
    """The records of experiment 04, if its first model comes out the same here."""
    lines = (LOGS / "04_attention.jsonl").read_text(encoding="utf-8").splitlines()
    head, *records = [json.loads(line) for line in lines]
    if head["train"] != TRAIN or head["training_bytes"] != len(training):
        raise ValueError("experiment 04 was run otherwise; run it again first")
    again = run(0, "MHA", training, validation)
    if again["loss"] != records[0]["loss"]:
        raise ValueError(
            f"the loss of experiment 04's first model is {records[0]['loss']} in its "
            f"log and {again['loss']} here; run it again on this machine first"
        )
    for record in records:
        record["kind"] = HEADS[record.pop("n_kv_heads")]
        record["from"] = "04_attention"
    return records


def stepper(config: Config, n_cached: int, expand: bool = False):
    """A function that decodes one token after `n_cached` in one attention layer, and
    returns the milliseconds. `expand`: MLA expands its latents, which it never does by
    itself for one token.
    """
    config = replace(config, n_layers=1, rope=Rope(), max_seq_len=2 * n_cached)
    layer = Transformer(replace(config, vocab_size=2, moe=None, n_dense_layers=0))
    layer = layer.layers[0].attn.eval()
    if expand:
        layer._absorb = lambda *_: False
    cache = KVCache(config, 1, n_cached + 1)
    for part in cache.parts:
        part.normal_()
    cache.length = n_cached
    part = config.attention
    width = part.qk_rope_head_dim if isinstance(part, MLA) else part.head_dim
    cos, sin = rope_table(config.rope, width, torch.tensor([n_cached]))
    x = torch.randn(1, 1, config.dim)

    @torch.no_grad()
    def step() -> float:
        started = time.process_time()
        layer(x, cos, sin, None, cache)
        return 1000 * (time.process_time() - started)

    return step


def speed(size: str, context: int) -> list[dict]:
    """The times of a step, for every kind of attention at one size and context."""
    latent, plain = SPEED[size]
    shared = replace(plain, n_kv_heads=max(1, plain.n_heads // 8))
    steps = {
        "MHA": stepper(replace(latent, attention=plain), context - 1),
        "GQA": stepper(replace(latent, attention=shared), context - 1),
        "MLA, expanded": stepper(latent, context - 1, expand=True),
        "MLA, absorbed": stepper(latent, context - 1),
    }
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(9 if size == "lite" else 100):
        for name, step in steps.items():
            best[name] = min(best[name], step())
    row = ", ".join(f"{name} {ms:.3f}" for name, ms in best.items())
    print(f"{size}, {context} tokens, milliseconds: {row}", flush=True)
    return [
        {"size": size, "kind": name, "context": context, "ms": round(ms, 4)}
        for name, ms in best.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="models with MLA")
    parser.add_argument("--log", type=Path, default=LOGS / "09_mla.jsonl")
    args = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    records = [row for size in SPEED for S in CONTEXTS for row in speed(size, S)]
    training, validation, source = code()
    records += [run(seed, "MLA", training, validation) for seed in range(args.seeds)]
    records += rivals(training, validation)
    header = {
        "experiment": "09_mla",
        "command": "python experiments/09_mla.py",
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
