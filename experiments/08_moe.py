"""Mixtures of experts in small: collapse and balance, specialisation, granularity.

    python experiments/08_moe.py

Small models learn the standard library's code and the English about it, half and half.
The first of their three layers is dense; the other two have, for each kind of model,

- fine, no balance: 31 routed experts 12 wide, 7 for a token, and 1 shared expert;
- fine, balanced: with the expert-level balance loss (arXiv 2401.06066, §3.3);
- coarse, balanced: 8 experts 48 wide, 2 for a token, none shared;
- dense: one network as wide as what a token uses, 96.

In a seed, all see the same windows of text in the same order.

The log goes to deepseek_mini/assets/logs/08_moe.jsonl: a first line that says what ran
where, then a line for every model, appended as it ends (a run that was killed goes on
with the next model). Losses are nats a token; `load` has MaxVio, the busiest expert and
the number of unused ones for every 10 steps and both layers; `kinds_of_text` says which
experts code and English chose, and what the model loses without them.
"""

import argparse
import datetime
import json
import math
import platform
import time
from pathlib import Path

import torch
from shared import processor
from torch import Tensor
from torch.nn import functional as F

from deepseek_mini import Tokenizer
from deepseek_mini.config import GQA, Config, MoE, Rope, SwiGLU
from deepseek_mini.data import MixedData, PackedData, english, mix, pack, python_code
from deepseek_mini.model import Transformer
from deepseek_mini.model.moe import Experts, Routing, recording

LOG = Path(__file__).parent.parent / "deepseek_mini/assets/logs/08_moe.jsonl"
ALPHA = 0.01  # of the balance loss; ten times that of the 16B
LENGTH, WINDOW = 128, 10
TRAIN = {"steps": 600, "rows": 4, "length": LENGTH, "peak": 4e-3}
FINE = MoE(31, n_shared_experts=1, n_activated_experts=7, inter_dim=12)
KINDS = {  # the mixture, and the factor of the balance loss
    "fine, no balance": (FINE, 0.0),
    "fine, balanced": (FINE, ALPHA),
    "coarse, balanced": (MoE(8, 0, 2, inter_dim=48), ALPHA),
    "dense": (MoE(1, 0, 1, inter_dim=96), 0.0),  # of one expert the score is 1
}


def config(part: MoE) -> Config:
    """Three layers 96 wide, the first of them dense."""
    return Config(
        vocab_size=Tokenizer.small().vocab_size,
        dim=96,
        n_layers=3,
        max_seq_len=LENGTH,
        attention=GQA(n_heads=4, n_kv_heads=4, head_dim=24),
        dense=SwiGLU(inter_dim=256),
        rope=Rope(layout="half_split"),
        moe=part,
        n_dense_layers=1,
        init_std=0.06,
    )


def all_at_once(self: Experts, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """What `Experts` computes, by way of every expert for every token. That is more
    arithmetic, but at this size a few large products take less time than many small.
    """
    up = [w.flatten(0, 1) for w in (self.w1, self.w3)]  # [E I, D] each
    gated = F.silu(x @ up[0].T) * (x @ up[1].T)  # [N, E I]
    weight = x.new_zeros(len(x), len(self.w1)).scatter(1, chosen, weights)  # [N, E]
    gated = gated.unflatten(1, (*weight.shape[1:], -1)) * weight[..., None]
    return gated.flatten(1) @ self.w2.transpose(1, 2).flatten(0, 1)  # [N, D]


def balance_loss(routing: Routing) -> Tensor:
    """Sum over experts of f P: 1 for an even load, up to E / K for a collapsed one."""
    n_tokens, n_experts = routing.scores.shape
    even = n_tokens * routing.chosen.shape[1] / n_experts
    return (routing.load / even * routing.scores.mean(dim=0)).sum()


def train(model: Transformer, data: MixedData, seed: int, alpha: float) -> list[dict]:
    """AdamW, 20 steps of warm-up, a cosine to a tenth; loads of every WINDOW steps."""
    steps, peak = TRAIN["steps"], TRAIN["peak"]
    adam = torch.optim.AdamW(
        model.parameters(), lr=peak, betas=(0.9, 0.95), weight_decay=0.1
    )
    history, loads = [], 0
    for step in range(steps):
        cosine = 0.55 + 0.45 * math.cos(math.pi * step / steps)
        for group in adam.param_groups:
            group["lr"] = peak * cosine * min(1, (step + 1) / 20)
        window = data.batch(step, TRAIN["rows"], seed)  # [B, T + 1]
        with recording() as routings:
            logits = model(window[:, :-1])  # [B, T, V]
        loss = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        loss = loss + alpha * sum(balance_loss(r) for r in routings)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        loads = loads + torch.stack([r.load for r in routings])  # [L, E]
        if (step + 1) % WINDOW == 0:
            max_vio = loads.amax(dim=1) / loads.double().mean(dim=1) - 1
            history.append(
                {
                    "max_vio": [round(x, 3) for x in max_vio.tolist()],
                    "busiest": loads.argmax(dim=1).tolist(),
                    "unused": (loads == 0).sum(dim=1).tolist(),
                }
            )
            loads = 0
    return history


def windows(data: PackedData, n: int) -> Tensor:
    """Validation windows [n, T + 1], evenly spaced."""
    return torch.cat(list(data.validation_batches(64, n)))


@torch.no_grad()
def loss_of(model: Transformer, rows: Tensor) -> float:
    parts = [
        F.cross_entropy(model(part[:, :-1]).mT, part[:, 1:], reduction="sum").item()
        for part in rows.split(32)
    ]
    return round(sum(parts) / rows[:, 1:].numel(), 4)


@torch.no_grad()
def choices(model: Transformer, rows: Tensor) -> Tensor:
    """0/1 [layers, tokens, E]: whether a token chose an expert."""
    found = []
    for part in rows.split(32):
        with recording() as routings:
            model(part[:, :-1])
        n_experts = routings[0].scores.shape[1]
        found.append(
            torch.stack([F.one_hot(r.chosen, n_experts).sum(1) for r in routings])
        )
    return torch.cat(found, dim=1).double()


def distance(a: Tensor, b: Tensor) -> list[float]:
    """Total variation, a layer, between two loads [L, E]: 0 the same, 1 no expert in
    common.
    """
    a, b = a / a.sum(dim=1, keepdim=True), b / b.sum(dim=1, keepdim=True)
    return [round(x, 4) for x in ((a - b).abs().sum(dim=1) / 2).tolist()]


def matched(a: Tensor, a_ids: Tensor, b: Tensor, b_ids: Tensor) -> list[float]:
    """`distance` when both texts are counted as if every token occurred equally often
    in them: what is left is not due to the token itself.
    """
    size = Tokenizer.small().vocab_size
    n_a, n_b = a_ids.bincount(minlength=size), b_ids.bincount(minlength=size)
    common = torch.minimum(n_a, n_b).double()
    weight_a, weight_b = common / n_a.clamp(min=1), common / n_b.clamp(min=1)
    loads_a = torch.einsum("lne,n->le", a, weight_a[a_ids])
    return distance(loads_a, torch.einsum("lne,n->le", b, weight_b[b_ids]))


def kinds_of_text(model: Transformer, sources: dict[str, PackedData]) -> dict:
    """Which experts code and English choose, and the loss without the favourites."""
    rows = {name: windows(data, 128) for name, data in sources.items()}
    chosen = {name: choices(model, x) for name, x in rows.items()}
    ids = {name: x[:, :-1].flatten() for name, x in rows.items()}
    report = {
        "share": {
            name: [[round(p, 4) for p in row] for row in x.mean(dim=1).tolist()]
            for name, x in chosen.items()
        },
        "distance": distance(*(x.sum(dim=1) for x in chosen.values())),
        "distance_matched": matched(*(x[n] for n in rows for x in (chosen, ids))),
    }
    for name, x in chosen.items():  # other documents of the same kind
        halves, ids_halves = x.chunk(2, dim=1), ids[name].chunk(2)
        report[f"halves_{name}"] = distance(*(h.sum(dim=1) for h in halves))
        pairs = [y for pair in zip(halves, ids_halves) for y in pair]
        report[f"halves_{name}_matched"] = matched(*pairs)
    report["without"] = without_favourites(model, chosen, sources)
    return report


@torch.no_grad()
def without_favourites(model: Transformer, chosen: dict, sources: dict) -> dict:
    """Losses when a quarter of the experts of each layer are silent: those that a
    text chooses most above the other, found in windows that are not measured here.
    """
    layers = [layer.ffn.experts for layer in model.layers[1:]]
    losses = {}
    for name, other in (("code", "english"), ("english", "code")):
        lead = (chosen[name].mean(dim=1) - chosen[other].mean(dim=1)).argsort(dim=1)
        favourites = lead[:, -(lead.shape[1] // 4) :]
        kept = [experts.w2.clone() for experts in layers]
        for experts, silent in zip(layers, favourites):
            experts.w2[silent] = 0
        losses[name] = {n: loss_of(model, test_rows(d)) for n, d in sources.items()}
        for experts, w2 in zip(layers, kept):
            experts.w2.copy_(w2)
    return losses


def test_rows(data: PackedData) -> Tensor:
    """256 validation windows that are not among the 128 of `kinds_of_text`."""
    seen = {tuple(row.tolist()) for row in windows(data, 128)}
    rows = [row for row in windows(data, 400) if tuple(row.tolist()) not in seen]
    return torch.stack(rows[:256])


def run(seed: int, kind: str, data: MixedData) -> dict:
    """Train one model; its record."""
    part, alpha = KINDS[kind]
    torch.manual_seed(seed)
    model = Transformer(config(part))
    started = time.process_time()
    history = train(model, data, seed, alpha)
    seconds = time.process_time() - started
    idle = part.n_routed_experts - part.n_activated_experts
    total = sum(p.numel() for p in model.parameters())
    record = {
        "seed": seed,
        "kind": kind,
        "parameters": total,
        "active_parameters": total - 2 * 3 * 96 * part.inter_dim * idle,
        "loss": {n: loss_of(model, test_rows(d)) for n, d in data.sources.items()},
        "train_seconds": round(seconds, 1),
    }
    if part.n_routed_experts > 1:
        record["load"] = history
        record["kinds_of_text"] = kinds_of_text(model, data.sources)
    return record


def header(data: MixedData) -> dict:
    return {
        "experiment": "08_moe",
        "command": "python experiments/08_moe.py",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{processor()}, 1 thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "text": data.source,
        "alpha": ALPHA,
        "train": TRAIN,
        "window": WINDOW,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="models of each kind")
    parser.add_argument("--log", type=Path, default=LOG, help="where to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    Experts.forward = all_at_once
    tokenizer = Tokenizer.small()
    code = pack(python_code(), tokenizer, seq_len=LENGTH)
    text = pack(english(), tokenizer, seq_len=LENGTH)
    data = mix({"code": (code, 1), "english": (text, 1)})
    lines = args.log.read_text().splitlines() if args.log.exists() else []
    done = {(r["seed"], r["kind"]) for r in map(json.loads, lines[1:])}
    args.log.parent.mkdir(parents=True, exist_ok=True)
    with args.log.open("a", encoding="utf-8") as log:
        if not lines:
            log.write(json.dumps(header(data)) + "\n")
        for seed in range(args.seeds):
            for kind in KINDS:
                if (seed, kind) not in done:
                    record = run(seed, kind, data)
                    print(seed, kind, record["loss"], flush=True)
                    log.write(json.dumps(record) + "\n")
                    log.flush()


if __name__ == "__main__":
    main()
