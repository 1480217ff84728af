"""The whole DeepSeek-V3, small: trained beside its ancestors, in float32 and in FP8.

    python experiments/14_deepseek_v3.py

The miniatures of the family learn the standard library's code and the English about it,
half and half, through the training loop of the course. In a seed all read the same
windows in the same order. The kinds:

- LLM, MoE, V2, V3: `deepseek-llm-mini` to `deepseek-v3-mini`, each balanced the way of
  its paper; V3 has its bias, the sequence-wise loss and an MTP module;
- V3, FP8: the same as V3, from the same weights, its products rounded to emulated FP8.

The log goes to deepseek_mini/assets/logs/14_deepseek_v3.jsonl: a first line that says
what ran where, then a line for every model, appended as it ends (a run that was killed
goes on with the next model). `curves` are means over 20 steps; `max_vio` has, for each
of these stretches, the MaxVio of its load together, an entry a sparse layer, the MTP
module's last. `validation` is of other modules: bits per byte, and MaxVio of the main
model's layers. `written` continues validation text greedily, with the MTP module's
drafts and without. `train_seconds` are the processor's.
"""

import argparse
import datetime
import json
import platform
import time
from pathlib import Path

import torch
from shared import processor
from torch import Tensor

from deepseek_mini import Config, Tokenizer, generate
from deepseek_mini.data import MixedData, PackedData, english, mix, pack, python_code
from deepseek_mini.model import Transformer, recording
from deepseek_mini.speculative import speculate
from deepseek_mini.training import TrainConfig, default_balance, evaluate, train
from deepseek_mini.training.balance import max_vio

LOG = Path(__file__).parent.parent / "deepseek_mini/assets/logs/14_deepseek_v3.jsonl"
STEPS, ROWS, LENGTH, EVERY = 500, 4, 64, 20
WINDOWS, PROMPTS, PROMPT, NEW = 192, 12, 40, 48
KINDS = {
    "LLM": "deepseek-llm-mini",
    "MoE": "deepseek-moe-mini",
    "V2": "deepseek-v2-mini",
    "V3": "deepseek-v3-mini",
    "V3, FP8": "deepseek-v3-mini",
}


def run(seed: int, kind: str, data: MixedData, steps: int) -> dict:
    """Train one model; its record."""
    config = Config.preset(KINDS[kind])
    torch.manual_seed(seed)
    model = Transformer(config)
    recipe = TrainConfig(
        steps=steps,
        batch_size=ROWS,
        seed=seed,
        eval_every=steps,
        balance=default_balance(config),
        fp8=kind.endswith("FP8"),
    )
    started = time.process_time()
    result = train(model, data, recipe, progress=False)
    seconds = time.process_time() - started
    history = result.history
    mtp = 0 if model.mtp is None else sum(p.numel() for p in model.mtp.parameters())
    record = {
        "seed": seed,
        "kind": kind,
        "parameters": sum(p.numel() for p in model.parameters()) - mtp,
        "mtp_parameters": mtp,
        "train_seconds": round(seconds, 1),
        "curves": {
            name: means([row[name] for row in history])
            for name in ("loss", "mtp_loss")
            if name in history[0]
        },
        "validation": {
            "bits_per_byte": {
                name: round(evaluate(model, part, 8, WINDOWS)["val_bits_per_byte"], 4)
                for name, part in data.sources.items()
            }
        },
    }
    if config.moe is not None:
        loads = torch.tensor([row["load"] for row in history])  # [steps, layers, E]
        stretches = loads.unflatten(0, (-1, EVERY)).sum(1)
        record["max_vio"] = [[round(max_vio(x), 3) for x in part] for part in stretches]
        record["validation"]["max_vio"] = validation_load(model, data)
    if model.mtp is not None:
        record["written"] = {
            name: written(model, part) for name, part in data.sources.items()
        }
    return record


def means(values: list[float]) -> list[float]:
    """Over each stretch of EVERY steps."""
    return [round(x, 4) for x in torch.tensor(values).view(-1, EVERY).mean(1).tolist()]


@torch.no_grad()
def validation_load(model: Transformer, data: MixedData) -> list[float]:
    """MaxVio of WINDOWS validation windows together, a sparse layer."""
    loads: Tensor | int = 0
    for rows in data.validation_batches(16, WINDOWS):
        with recording() as routings:
            model.hidden(rows[:, :-1])
        loads = loads + torch.stack([r.load for r in routings])  # [layers, E]
    return [round(max_vio(load), 4) for load in loads]


def written(model: Transformer, data: PackedData) -> dict:
    """Greedy continuations of validation text, with drafts and without."""
    sums, identical = {"passes": 0, "drafted": 0, "accepted": 0}, True
    prompts = torch.cat(list(data.validation_batches(PROMPTS, PROMPTS)))[:, :PROMPT]
    for prompt in prompts:
        out = speculate(model, prompt[None], NEW)
        identical &= torch.equal(out.tokens, generate(model, prompt[None], NEW))
        for name in sums:
            sums[name] += getattr(out, name)
    return {**sums, "tokens": PROMPTS * NEW, "identical": identical}


def header(data: MixedData, steps: int) -> dict:
    return {
        "experiment": "14_deepseek_v3",
        "command": "python experiments/14_deepseek_v3.py",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{processor()}, 1 thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "text": data.source,
        "train": {"steps": steps, "rows": ROWS, "length": LENGTH},
        "lr": TrainConfig(steps=steps).lr,
        "every": EVERY,
        "windows": WINDOWS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="models of each kind")
    parser.add_argument("--steps", type=int, default=STEPS, help="a multiple of 20")
    parser.add_argument("--log", type=Path, default=LOG, help="where to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = Tokenizer.small()
    code = pack(python_code(), tokenizer, seq_len=LENGTH)
    text = pack(english(), tokenizer, seq_len=LENGTH)
    data = mix({"code": (code, 1), "english": (text, 1)})
    lines = args.log.read_text().splitlines() if args.log.exists() else []
    done = {(r["seed"], r["kind"]) for r in map(json.loads, lines[1:])}
    args.log.parent.mkdir(parents=True, exist_ok=True)
    with args.log.open("a", encoding="utf-8") as log:
        if not lines:
            log.write(json.dumps(header(data, args.steps)) + "\n")
            log.flush()
        for kind in KINDS:
            for seed in range(args.seeds):
                if (seed, kind) not in done:
                    record = run(seed, kind, data, args.steps)
                    print(seed, kind, record["train_seconds"], record["validation"])
                    log.write(json.dumps(record) + "\n")
                    log.flush()


if __name__ == "__main__":
    main()
