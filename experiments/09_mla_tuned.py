"""Latent attention given a fair chance: is it still behind when it has been tuned?

    python experiments/09_mla_tuned.py lr init shape again full

Experiment 09 compares four kinds of attention at the settings of experiment 04, which
nobody tuned for MLA. Here each kind is tuned by itself, in five stages, the first four
in runs of half the steps and rows:

- `lr`: three learning rates for every kind;
- `init`: half and twice the initial standard deviation, at each kind's best rate;
- `shape`: other latents and RoPE keys for MLA, as wide in the cache as GQA's or MQA's
  keys and values, or with one thing undone that sets MLA apart;
- `again`: the rivals' learning rate for the shape with GQA's cache;
- `full`: that shape as it came out best, two seeds, with as many steps and rows as
  experiment 09 had. Its rivals were trained at the learning rate that the first stage
  finds best for all three of them, so they are not trained again.

A stage reads the stages before it from the log, so they can be run one by one. Rows are
only ever added to deepseek_mini/assets/logs/09_mla.jsonl: a line for each stage that
says what ran where (seconds are the processor's), then a line for each model with its
loss in nats a byte. `stores` is what a token takes in one layer's cache.
"""

import argparse
import datetime
import json
import platform
import time
from dataclasses import replace
from importlib import import_module

import torch
from shared import code, processor, train

from deepseek_mini.config import GQA, MLA, Rope, SwiGLU
from deepseek_mini.model import Transformer

first = import_module("09_mla")
LOG = first.LOGS / "09_mla.jsonl"
HALF = {"steps": 300, "rows": 8, "length": 128}
STAGES = ("lr", "init", "shape", "again", "full")
KINDS = ("MHA", "GQA", "MQA", "MLA")
PEAKS = (2e-3, 4e-3, 8e-3)
STDS = (0.025, 0.1)  # and 0.05, which the first stage has


def latent(C: int, r: int, heads: int = 8, width: int = 12) -> MLA:
    """MLA whose heads are `width` wide without position, as their values."""
    return MLA(heads, None, C, width, r, width)


ATTENTION = {
    "MHA": GQA(8, 8, 12),
    "GQA": GQA(8, 2, 12),
    "MQA": GQA(8, 1, 12),
    "MLA": latent(48, 6),  # V2's proportions
    "MLA, GQA's cache": latent(36, 12),
    "MLA, MQA's cache": latent(18, 6),
    "MLA, twice the RoPE": latent(48, 12),
    "MLA, no bottleneck": latent(96, 6),
}


LAST = "MLA, GQA's cache"  # the shape that goes into the last stage


def stores(part: GQA | MLA) -> int:
    """Numbers that a layer keeps of a token."""
    if isinstance(part, MLA):
        return part.kv_lora_rank + part.qk_rope_head_dim
    return 2 * part.n_kv_heads * part.head_dim


def configured(kind: str, init_std: float, theta: float):
    """The config, its feed-forward width chosen for as many parameters as MHA has."""
    config = replace(first.BASE, attention=ATTENTION[kind], init_std=init_std)
    config = replace(config, rope=Rope(theta=theta))

    def parameters(config) -> int:
        return sum(p.numel() for p in Transformer(config).parameters())

    over = parameters(config) - parameters(first.BASE)
    channel = 3 * config.dim * config.n_layers
    return replace(config, dense=SwiGLU(config.dense.inter_dim - round(over / channel)))


def run(stage, texts, kind, seed=0, peak=4e-3, init_std=0.05, theta=1e4, size=HALF):
    """Train one model; its record."""
    training, validation = texts
    config = configured(kind, init_std, theta)
    torch.manual_seed(seed)
    model = Transformer(config)
    started = time.process_time()
    train(model, training, seed, peak=peak, **size)
    seconds = time.process_time() - started
    windows = 512 if stage == "full" else 256
    loss = first.loss_of(model, validation, size["length"], windows)
    record = {"tuning": stage, "kind": kind, "seed": seed, "peak": peak}
    record |= {"init_std": init_std, "theta": theta, **size}
    record |= {"stores": stores(config.attention), "inter_dim": config.dense.inter_dim}
    record |= {"parameters": sum(p.numel() for p in model.parameters())}
    record |= {"loss": round(loss, 4), "train_seconds": round(seconds, 1)}
    print(*record.values(), flush=True)
    return record


def tuned(kind: str) -> dict:
    """The learning rate and initial deviation with the lowest loss in the log, of this
    kind or, where it was not trained yet, of the kind that it is a shape of.
    """
    rows = [r for r in read() if r.get("theta") == 1e4 and r["tuning"] != "full"]
    own = [r for r in rows if r["kind"] == kind]
    own = own or [r for r in rows if r["kind"] == kind.split(",")[0]]
    best = min(own, key=lambda r: r["loss"])
    return {"peak": best["peak"], "init_std": best["init_std"]}


def read() -> list[dict]:
    return [json.loads(line) for line in LOG.read_text("utf-8").splitlines()]


def plan(stage: str, seeds: list[int]) -> list[dict]:
    """The arguments of every run of a stage."""
    if stage == "lr":
        return [{"kind": kind, "peak": peak} for peak in PEAKS for kind in KINDS]
    if stage == "init":
        rates = {kind: tuned(kind)["peak"] for kind in KINDS}
        return [
            {"kind": k, "peak": rates[k], "init_std": s} for s in STDS for k in KINDS
        ]
    if stage == "shape":
        runs = [{"kind": k, **tuned(k)} for k in ATTENTION if ", " in k]
        return runs + [{"kind": k, **tuned(k), "theta": 100.0} for k in ("MLA", "MHA")]
    if stage == "again":  # 8e-3 is in the stage before
        return [{"kind": LAST, "peak": 4e-3}]
    size = {k: x for k, x in first.TRAIN.items() if k != "peak"}
    return [{"kind": LAST, "seed": s, "size": size, **tuned(LAST)} for s in seeds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stages", nargs="+", choices=STAGES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="full")
    args = parser.parse_args()
    torch.set_num_threads(1)
    training, validation, source = code()
    for stage in args.stages:
        started = time.process_time()
        runs = plan(stage, args.seeds)
        records = [run(stage, (training, validation), **each) for each in runs]
        header = {
            "experiment": "09_mla_tuned",
            "command": f"python experiments/09_mla_tuned.py {stage}",
            "seeds": sorted({record["seed"] for record in records}),
            "date": datetime.date.today().isoformat(),
            "hardware": f"{processor()}, 1 thread",
            "python": platform.python_version(),
            "torch": torch.__version__,
            "seconds": round(time.process_time() - started),
            "text": source,
        }
        with LOG.open("a", encoding="utf-8") as file:
            for record in [header, *records]:
                file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
