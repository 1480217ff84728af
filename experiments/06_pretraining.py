"""Pretraining in small: learning rates, batches, schedules, and a scaling law.

    python experiments/06_pretraining.py

Dense models of 25 to 790 thousand parameters (without embedding and head) learn
the standard library's code and the English about it, in one pass: no token is read
twice in a run. Validation is in bits per byte, over 256 windows of other documents.

- rates: the peak of the learning rate, for three sizes and two starts of the embedding.
- scaling: five sizes, 100 to 800 steps, and up to 400 with a second seed. A trunk at a
  constant rate for each; the multi-step decay of every duration starts from it.
  `prediction` is written before the sixth size, `held out`, is trained.
- schedules: constant, multi-step, a straight line, cosine, each at four peaks.
- double: what twice the steps cost and give, from a checkpoint or anew.
- valley: batch against learning rate, for a small and a larger compute.

The log goes to deepseek_mini/assets/logs/06_pretraining.jsonl: a first line that says
what ran where (seconds are the processor's), then a line for every run, appended as it
ends: a run that was killed goes on where it stopped. Lesson 06 plots it.
"""

import argparse
import copy
import datetime
import itertools
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from shared import processor
from torch import nn

from deepseek_mini import Tokenizer, Transformer
from deepseek_mini.config import GQA, Config, Rope, SwiGLU
from deepseek_mini.data import PackedData, english, pack, python_code
from deepseek_mini.training import TrainConfig, evaluate, make_optimizer
from deepseek_mini.training.loop import next_token_loss
from deepseek_mini.training.schedules import constant, cosine, multi_step

LOG = Path(__file__).parent.parent / "deepseek_mini/assets/logs/06_pretraining.jsonl"
LENGTH, ROWS, WARMUP = 128, 4, 20
SIZES = ((32, 2), (48, 2), (64, 2), (80, 2), (96, 3))  # dim, layers
HELD_OUT = (128, 4)
STEPS = (100, 200, 400, 800)
PEAK = 0.512  # divided by the width: near what `rates` finds best
Schedule = Callable[[int], float]  # step -> factor of the peak


def config(dim: int, layers: int) -> Config:
    """Blocks of 12 dim² parameters, heads of 16 channels."""
    return Config(
        vocab_size=Tokenizer.small().vocab_size,
        dim=dim,
        n_layers=layers,
        max_seq_len=LENGTH,
        attention=GQA(n_heads=dim // 16, n_kv_heads=dim // 16, head_dim=16),
        dense=SwiGLU(inter_dim=round(dim / 3) * 8),
        rope=Rope(theta=10_000.0, layout="half_split"),
        init_std=0.7 / dim**0.5,
    )


class Run:
    """A model in training, which can be copied and go on in two ways."""

    def __init__(
        self,
        data: PackedData,
        size: tuple[int, int],
        peak: float,
        seed: int,
        rows: int = ROWS,
        embedding_std: float = 1.0,
    ):
        torch.manual_seed(seed)
        self.data, self.peak, self.seed, self.rows = data, peak, seed, rows
        self.model = Transformer(config(*size))
        self.model.embed.weight.data *= embedding_std / self.model.config.init_std
        self.optimizer = make_optimizer(self.model, TrainConfig(steps=1, lr=peak))
        self.step = 0

    def copy(self) -> "Run":
        """The same model at the same step; the optimiser's state comes along."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model)
        other.optimizer = make_optimizer(other.model, TrainConfig(steps=1))
        other.optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        return other

    def train(self, until: int, schedule: Schedule) -> "Run":
        """Go on to step `until`. The batch of a step depends on seed and step alone."""
        for step in range(self.step, until):
            for group in self.optimizer.param_groups:
                group["lr"] = self.peak * schedule(step)
            tokens = self.data.batch(step, self.rows, self.seed)
            loss = next_token_loss(self.model, tokens)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
        self.step = until
        return self

    def bits(self) -> float:
        """Bits per byte of the validation text."""
        return round(evaluate(self.model, self.data, 32, 256)["val_bits_per_byte"], 4)


def decayed(run: Run, steps: int) -> Run:
    """A copy of a trunk, taken to `steps` by the multi-step schedule's last fifth."""
    return run.copy().train(steps, lambda step: multi_step(step, steps, WARMUP))


def trunk(run: Run, until: int) -> Run:
    return run.train(until, lambda step: constant(step, until, WARMUP))


class Log:
    """Records by key; a finished one is not computed again."""

    def __init__(self, path: Path):
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.records = [json.loads(line) for line in lines]
        self.records = [record for record in self.records if "part" in record]
        self.clock = time.process_time()

    def has(self, **key: object) -> bool:
        return any(key.items() <= record.items() for record in self.records)

    def forget(self, **key: object) -> None:
        """Drop what a kill in the middle of several runs has left."""
        self.records = [r for r in self.records if not key.items() <= r.items()]

    def add(self, run: Run | None = None, **record: object) -> None:
        """`seconds` are those since the last record: a trunk counts once."""
        if run is not None:
            record |= {
                "steps": run.step,
                "seed": run.seed,
                "peak": run.peak,
                "bits_per_byte": run.bits(),
                "seconds": round(time.process_time() - self.clock, 1),
            }
        self.clock = time.process_time()
        print(record, flush=True)
        self.records.append(record)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def rates(data: PackedData, log: Log) -> None:
    """Peaks for three sizes, with an embedding that starts small, and from N(0, 1)."""
    for size, small_peaks, peaks in (
        ((32, 2), (2e-3, 4e-3, 8e-3, 16e-3), (8e-3, 16e-3)),
        ((64, 2), (2e-3, 4e-3, 8e-3, 16e-3), (8e-3, 16e-3)),
        ((128, 4), (1e-3, 2e-3, 4e-3), (4e-3, 8e-3)),
    ):
        small = config(*size).init_std
        for std, steps, tried in ((small, 500, small_peaks), (1.0, 200, peaks)):
            for peak in tried:
                key = {"part": "rates", "dim": size[0], "layers": size[1]}
                key |= {"peak": peak, "embedding_std": round(std, 3)}
                if not log.has(**key):
                    run = Run(data, size, peak, seed=0, embedding_std=std)
                    run.train(steps, lambda s, n=steps: multi_step(s, n, WARMUP))
                    log.add(run, **key)


def scaling(
    data: PackedData,
    log: Log,
    sizes: tuple,
    seed: int,
    durations: tuple = STEPS,
    part: str = "scaling",
) -> None:
    for dim, layers in sizes:
        key = {"part": part, "dim": dim, "layers": layers, "seed": seed}
        if log.has(**key, steps=durations[-1]):
            continue
        log.forget(**key)
        run = Run(data, (dim, layers), PEAK / dim, seed)
        for steps in durations:
            trunk(run, steps * 8 // 10)
            log.add(decayed(run, steps), **key)


def flops(dim: int, layers: int) -> int:
    """DeepSeek-LLM's M: operations a token in training, without embedding and head."""
    return 72 * layers * dim**2 + 12 * layers * dim * LENGTH


def fit(M: np.ndarray, D: np.ndarray, L: np.ndarray) -> np.ndarray:
    """E, A, a, B, b of L = E + A / M**a + B / D**b, by least squares.

    For given exponents the rest is linear; the exponents are searched on a grid.
    """
    grid = np.arange(0.05, 1.5, 0.02)
    best, answer = np.inf, None
    for a in grid:
        for b in grid:
            X = np.stack([np.ones_like(L), (M / 1e6) ** -a, (D / 1e6) ** -b], axis=1)
            w = np.linalg.lstsq(X, L, rcond=None)[0]
            error = np.square(X @ w - L).sum()
            if error < best and (w > 0).all():
                best, answer = error, (w[0], w[1] * 1e6**a, a, w[2] * 1e6**b, b)
    return np.array(answer)


def predict(law: np.ndarray, M: np.ndarray, D: np.ndarray) -> np.ndarray:
    E, A, a, B, b = law
    return E + A / M**a + B / D**b


def prediction(log: Log) -> None:
    """What the law of the five sizes says of the sixth, before it is trained."""
    if log.has(part="prediction"):
        return
    done = [record for record in log.records if record["part"] == "scaling"]
    M = np.array([flops(r["dim"], r["layers"]) for r in done], dtype=float)
    D = np.array([r["steps"] * ROWS * LENGTH for r in done], dtype=float)
    law = fit(M, D, np.array([r["bits_per_byte"] for r in done]))
    for steps in STEPS:
        tokens = np.array(steps * ROWS * LENGTH)
        bits = predict(law, np.array(float(flops(*HELD_OUT))), tokens).item()
        log.add(part="prediction", dim=HELD_OUT[0], layers=HELD_OUT[1], steps=steps,
                runs=len(done), bits_per_byte=round(bits, 4))  # fmt: skip


def schedules(data: PackedData, log: Log) -> None:
    """Four schedules of 200 steps, four peaks, three seeds."""
    for seed in range(3):
        for peak in (8e-3, 16e-3, 32e-3, 64e-3):
            key = {"part": "schedules", "peak": peak, "seed": seed}
            if log.has(**key, schedule="cosine"):
                continue
            log.forget(**key)
            run = trunk(Run(data, (32, 2), peak, seed), 160)
            log.add(decayed(run, 200), **key, schedule="multi-step")
            line = run.copy().train(200, lambda step: 1 - 0.9 * (step + 1 - 160) / 40)
            log.add(line, **key, schedule="line")
            log.add(trunk(run, 200), **key, schedule="constant")
            run = Run(data, (32, 2), peak, seed)
            run.train(200, lambda step: cosine(step, 200, WARMUP))
            log.add(run, **key, schedule="cosine")


def double(data: PackedData, log: Log) -> None:
    """200 steps are done, 200 more are wanted. `new_steps` is what these cost."""
    for peak, seed in itertools.product((16e-3, 32e-3), range(3)):
        key = {"part": "double", "peak": peak, "seed": seed}
        if log.has(**key, way="cosine, restarted"):
            continue
        log.forget(**key)
        run = trunk(Run(data, (32, 2), peak, seed), 320)
        log.add(decayed(run, 400), **key, way="multi-step, continued", new_steps=240)
        run = Run(data, (32, 2), peak, seed)
        run.train(400, lambda step: cosine(step, 400, WARMUP))
        log.add(run, **key, way="cosine, anew", new_steps=400)
        run = Run(data, (32, 2), peak, seed)
        run.train(200, lambda step: cosine(step, 200, WARMUP))
        end = run.copy().train(400, lambda step: 0.1)
        log.add(end, **key, way="cosine, continued at its end", new_steps=200)
        run.train(400, lambda step: cosine(step - 200, 200, WARMUP))
        log.add(run, **key, way="cosine, restarted", new_steps=200)


def valley(data: PackedData, log: Log) -> None:
    """Batches of 1 to 16 rows, at two computes; multi-step, at most a tenth warmup."""
    for size, tokens in (((32, 2), 64_000), ((48, 2), 128_000)):
        for rows in (1, 2, 4, 8, 16):
            for peak in (4e-3, 8e-3, 16e-3, 32e-3):
                key = {"part": "valley", "dim": size[0], "rows": rows, "peak": peak}
                if log.has(**key):
                    continue
                steps = tokens // (rows * LENGTH)
                run, warmup = Run(data, size, peak, 0, rows), min(20, steps // 10)
                run.train(steps, lambda s, n=steps, w=warmup: multi_step(s, n, w))
                log.add(run, **key, layers=size[1], tokens=tokens)


def experiment(data: PackedData, log: Log) -> None:
    """Everything, in order; the sixth size comes after its prediction."""
    rates(data, log)
    scaling(data, log, SIZES, seed=0)
    scaling(data, log, SIZES, seed=1, durations=STEPS[:-1])
    prediction(log)
    scaling(data, log, (HELD_OUT,), seed=0, part="held out")
    double(data, log)
    schedules(data, log)
    valley(data, log)


def header(data: PackedData, log: Log) -> dict:
    return {
        "experiment": "06_pretraining",
        "command": "python experiments/06_pretraining.py",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{processor()}, 1 thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seconds": round(sum(record.get("seconds", 0) for record in log.records)),
        "text": data.source,
        "training_tokens": len(data.train),
        "validation_tokens": len(data.validation),
        "length": LENGTH,
        "rows": ROWS,
        "warmup": WARMUP,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--log", type=Path, default=LOG, help="where to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = pack(python_code() + english(), Tokenizer.small(), LENGTH)
    args.log.parent.mkdir(parents=True, exist_ok=True)
    log = Log(args.log)
    experiment(data, log)
    lines = [json.dumps(record) for record in [header(data, log), *log.records]]
    args.log.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
