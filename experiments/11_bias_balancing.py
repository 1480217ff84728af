"""Four ways to balance experts, and what they cost: the same seeds for all.

    python experiments/11_bias_balancing.py

`deepseek-v3-mini` with three layers and without multi-token prediction learns the
standard library's code. In a seed, all kinds start from the same weights and read the
same windows in the same order; they differ in what keeps the experts in balance:

- nothing: the bias stays zero and no loss asks for balance;
- loss 0.001, loss 0.01: the expert-level loss of DeepSeekMoE with that factor;
- bias: V3's, moved by 0.01 in a step for 14.3 / 14.8 of the steps, then kept; and its
  sequence-wise loss with the factor 0.0001.

The log goes to deepseek_mini/assets/logs/11_bias_balancing.jsonl: a first line that
says what ran where, then a line for every model, appended as it ends (a run that was
killed goes on with the next model). `max_vio` has an entry for every 10 steps, of
their load together, for both sparse layers, and `step_max_vio` the mean of MaxVio of
each of these steps; `bias` is the second layer's after every 10 steps; `validation` is
measured on 64 windows of other modules.
"""

import argparse
import datetime
import json
import platform
import time
from dataclasses import replace
from pathlib import Path

import torch
from shared import processor
from torch import Tensor
from torch.nn import functional as F

from deepseek_mini import Config, Tokenizer
from deepseek_mini.data import PackedData, pack, python_code
from deepseek_mini.model import Transformer
from deepseek_mini.model.moe import Experts, recording
from deepseek_mini.training import TrainConfig, train
from deepseek_mini.training.balance import Balance, max_vio

LOG = Path(__file__).parent.parent / "deepseek_mini/assets/logs/11_bias_balancing.jsonl"
STEPS, ROWS, LENGTH, WINDOW = 400, 4, 96, 10
KINDS = {
    "nothing": Balance(),
    "loss 0.001": Balance(expert_loss=0.001),
    "loss 0.01": Balance(expert_loss=0.01),
    "bias": Balance(bias_speed=0.01, sequence_loss=1e-4),
}


def all_at_once(self: Experts, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """What `Experts` computes, by way of every expert for every token. That is more
    arithmetic, but at this size a few large products take less time than many small.
    """
    up = [w.flatten(0, 1) for w in (self.w1, self.w3)]  # [E I, D] each
    gated = F.silu(x @ up[0].T) * (x @ up[1].T)  # [N, E I]
    weight = x.new_zeros(len(x), len(self.w1)).scatter(1, chosen, weights)  # [N, E]
    gated = gated.unflatten(1, (*weight.shape[1:], -1)) * weight[..., None]
    return gated.flatten(1) @ self.w2.transpose(1, 2).flatten(0, 1)  # [N, D]


@torch.no_grad()
def validation_load(model: Transformer, data: PackedData) -> list[float]:
    """MaxVio of 64 validation windows together, a sparse layer."""
    loads = 0
    for rows in data.validation_batches(16, 64):
        with recording() as routings:
            model.hidden(rows[:, :-1])
        loads = loads + torch.stack([r.load for r in routings])  # [layers, E]
    return [round(max_vio(load), 4) for load in loads]


def run(seed: int, kind: str, data: PackedData, steps: int) -> dict:
    """Train one model; its record."""
    config = replace(Config.preset("deepseek-v3-mini"), n_layers=3, mtp=None)
    torch.manual_seed(seed)
    model = Transformer(config)
    recipe = TrainConfig(
        steps=steps,
        batch_size=ROWS,
        seed=seed,
        eval_every=steps,
        balance=KINDS[kind],
    )
    started = time.process_time()
    result = train(model, data, recipe, progress=False)
    seconds = time.process_time() - started
    loads = torch.tensor([row["load"] for row in result.history])  # [steps, layers, E]
    steps_vio = torch.tensor([row["max_vio"] for row in result.history])
    means = steps_vio.unflatten(0, (-1, WINDOW)).mean(1)  # [windows, layers]
    windows = loads.unflatten(0, (-1, WINDOW)).sum(1)
    biases = [row["bias"][-1] for row in result.history][WINDOW - 1 :: WINDOW]
    end = result.history[-1]
    record = {
        "seed": seed,
        "kind": kind,
        "validation": {
            "loss": round(end["val_loss"], 4),
            "bits_per_byte": round(end["val_bits_per_byte"], 4),
            "max_vio": validation_load(model, data),
        },
        "max_vio": [[round(max_vio(x), 3) for x in layers] for layers in windows],
        "step_max_vio": [[round(x, 3) for x in row] for row in means.tolist()],
        "train_seconds": round(seconds, 1),
    }
    if kind == "bias":
        record["bias"] = biases
    return record


def header(data: PackedData, steps: int) -> dict:
    return {
        "experiment": "11_bias_balancing",
        "command": "python experiments/11_bias_balancing.py",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{processor()}, 1 thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "text": data.source,
        "steps": steps,
        "tokens_a_step": ROWS * LENGTH,
        "window": WINDOW,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="models of each kind")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--log", type=Path, default=LOG, help="where to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    Experts.forward = all_at_once
    data = pack(python_code(), Tokenizer.small(), seq_len=LENGTH)
    lines = args.log.read_text().splitlines() if args.log.exists() else []
    done = {(r["seed"], r["kind"]) for r in map(json.loads, lines[1:])}
    args.log.parent.mkdir(parents=True, exist_ok=True)
    with args.log.open("a", encoding="utf-8") as log:
        if not lines:
            log.write(json.dumps(header(data, args.steps)) + "\n")
        for seed in range(args.seeds):
            for kind in KINDS:
                if (seed, kind) not in done:
                    record = run(seed, kind, data, args.steps)
                    print(seed, kind, record["validation"], flush=True)
                    log.write(json.dumps(record) + "\n")
                    log.flush()


if __name__ == "__main__":
    main()
