"""A small DeepSeek-V2, trained on 64 bytes, read at 256: YaRN and its temperature.

    python experiments/10_deepseek_v2.py

Latent attention, one dense and one sparse layer, routing limited to 2 of 4 devices,
V2's three balance losses: the model learns from windows of 64 bytes. Then it reads
windows of 256, with the rotations of its RoPE channels plain and scaled the YaRN way.
YaRN's temperature stands in one of three places: nowhere, on cosine and sine (so on the
RoPE channels alone, the convention of the YaRN paper), or on the softmax scale (so on
all channels, V2's). Each is measured as it is, then after a few steps at 256.

The log (deepseek_mini/assets/logs/10_deepseek_v2.jsonl) has a first line that says what
ran where, then one for every seed, scaling and stage, with the validation loss (nats a
byte) of each stretch of 16 positions. It grows seed by seed, and a run that was stopped
goes on with the next seed. Lesson 10 plots it.
"""

import argparse
import datetime
import json
import math
import platform
import time
from dataclasses import replace
from pathlib import Path

import torch
from shared import code, processor
from torch import Tensor
from torch.nn import functional as F

from deepseek_mini.config import Config, Rope, SwiGLU, Yarn
from deepseek_mini.model import Transformer
from deepseek_mini.training import TrainConfig, default_balance
from deepseek_mini.training.losses import training_loss

LOG = Path(__file__).parent.parent / "deepseek_mini/assets/logs/10_deepseek_v2.jsonl"
SHORT, LONG, STRETCH = 64, 256, 16  # trained, read, and averaged over: positions
YARN = Yarn(factor=LONG / SHORT, original_seq_len=SHORT, mscale=0.0)
SCALINGS = {
    "plain": None,
    "yarn, no temperature": YARN,
    "yarn, on cos and sin": replace(YARN, mscale=1.0),
    "yarn, on the softmax": replace(YARN, mscale=1.0, mscale_all_dim=1.0),
}
CONFIG = replace(
    Config.preset("deepseek-v2-mini"),
    vocab_size=256,
    dim=96,
    n_layers=2,
    dense=SwiGLU(inter_dim=256),
    max_seq_len=LONG,
)
PRETRAIN = {"steps": 320, "rows": 16, "length": SHORT, "peak": 4e-3}
FINETUNE = {"steps": 30, "rows": 4, "length": LONG, "peak": 1e-3}


def train(
    model: Transformer,
    data: Tensor,
    seed: int,
    steps: int,
    rows: int,
    length: int,
    peak: float,
) -> None:
    """AdamW, 20 steps of warm-up, a cosine to a tenth of `peak`, V2's three losses."""
    generator = torch.Generator().manual_seed(seed)
    recipe = TrainConfig(steps=steps, balance=default_balance(model.config))
    adam = torch.optim.AdamW(
        model.parameters(), lr=peak, betas=(0.9, 0.95), weight_decay=0.1
    )
    for step in range(steps):
        cosine = 0.55 + 0.45 * math.cos(math.pi * step / steps)
        for group in adam.param_groups:
            group["lr"] = peak * cosine * min(1, (step + 1) / 20)
        start = torch.randint(len(data) - length, (rows, 1), generator=generator)
        window = data[start + torch.arange(length + 1)]  # [rows, length + 1]
        loss, _ = training_loss(model, window, recipe, step)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()


@torch.no_grad()
def loss_by_position(model: Transformer, data: Tensor) -> list[float]:
    """Mean loss of each stretch of STRETCH positions, over windows of LONG bytes.

    Windows start every SHORT bytes of 6 runs of 2048: but for the ends of a run, every
    byte is read once in each quarter of a window, so the quarters are compared on the
    same text.
    """
    runs = torch.linspace(0, len(data) - 2049, 6).long()[:, None]
    start = (runs + torch.arange(0, 2049 - LONG, SHORT)).reshape(-1, 1)
    windows = data[start + torch.arange(LONG + 1)]
    total = torch.zeros(LONG)
    for window in windows.split(64):
        logits = model(window[:, :-1]).transpose(1, 2)  # [rows, 256, LONG]
        total += F.cross_entropy(logits, window[:, 1:], reduction="none").sum(0)
    mean = (total / len(windows)).unflatten(0, (-1, STRETCH)).mean(1)
    return [round(x, 4) for x in mean.tolist()]


def run(seed: int, training: Tensor, validation: Tensor, log: Path) -> None:
    """Appends the records of one seed: four scalings, before and after fine-tuning."""
    torch.manual_seed(seed)
    base = Transformer(CONFIG)
    started = time.process_time()
    train(base, training, seed, **PRETRAIN)
    seconds, records = time.process_time() - started, []

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
        near, far = sum(loss[:4]) / 4, sum(loss[-4:]) / 4
        print(f"seed {seed} {scaling:21} {steps:2} {near:.3f} {far:.3f}", flush=True)

    for name, scaling in SCALINGS.items():
        model = Transformer(replace(CONFIG, rope=Rope(scaling=scaling)))
        model.load_state_dict(base.state_dict())
        record(name, 0, model, seconds)
        started = time.process_time()
        train(model, training, 1000 + seed, **FINETUNE)
        record(name, FINETUNE["steps"], model, time.process_time() - started)
    with log.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="models to train")
    parser.add_argument("--log", type=Path, default=LOG, help="where to append")
    args = parser.parse_args()
    torch.set_num_threads(1)
    training, validation, source = code()
    header = {
        "experiment": "10_deepseek_v2",
        "command": "python experiments/10_deepseek_v2.py",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{processor()}, 1 thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
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
    if not args.log.exists():
        args.log.write_text(json.dumps(header) + "\n", encoding="utf-8")
    lines = args.log.read_text(encoding="utf-8").splitlines()[1:]
    done = {json.loads(line)["seed"] for line in lines}
    for seed in range(args.seeds):
        if seed not in done:
            run(seed, training, validation, args.log)


if __name__ == "__main__":
    main()
