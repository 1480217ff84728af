"""The base model of lesson 18: pretrained on sums that others have scribbled.

    python experiments/18_r1_base.py

A dense model of 0.35 million parameters reads questions and answers, one character a
token, as a web crawl might have them: many only guess, some work it out, few keep to
the format that will be asked for, and a step of a worked sum is wrong with a
probability of 0.1. `STYLES` says how often each kind comes. Problems of the test split
are never among them.

It writes deepseek_mini/assets/checkpoints/r1-base (float16, one file with its
config) and the log deepseek_mini/assets/logs/18_r1_base.jsonl: a first line that says
what ran where and what the model can do on held-out problems, then the loss (nats a
token) of every 50 steps.
"""

import argparse
import datetime
import json
import math
import platform
import random
import time
from pathlib import Path

import torch
from shared import processor
from torch.nn import functional as F

import deepseek_mini as dm
from deepseek_mini.config import GQA, Config, Rope, SwiGLU
from deepseek_mini.posttraining.chars import END_ID, ask, encode
from deepseek_mini.posttraining.r1 import examine, show
from deepseek_mini.posttraining.tasks import Chain, Problem, problems, stream

ASSETS = Path(__file__).parent.parent / "deepseek_mini/assets"
CONFIG = Config(
    vocab_size=64,
    dim=96,
    n_layers=3,
    max_seq_len=128,
    attention=GQA(n_heads=4, n_kv_heads=4, head_dim=24),
    dense=SwiGLU(inter_dim=256),
    rope=Rope(theta=1000.0),
    init_std=0.06,
)
TRAIN = {"steps": 1200, "rows": 64, "peak": 3e-3, "seed": 0}
STYLES = {  # what comes after the question, and how often
    "guess": 0.30,
    "worked": 0.25,
    "guess in the format": 0.22,
    "worked in the format": 0.18,
    "worked, tags forgotten": 0.05,
}
TERMS = (3, 4, 5)
SLIP = 0.1  # the probability that a step is wrong


def scribble(problem: Problem, rng: random.Random) -> str:
    """An answer in some style. A slip is carried on, as people do."""
    style = rng.choices(list(STYLES), list(STYLES.values()))[0]
    if style == "guess":
        return problem.answer
    if style == "guess in the format":
        return f"<think>?</think><answer>{problem.answer}</answer>"
    steps, total = [], None
    for step in problem.steps:
        first, sign, number = split(step)
        first = first if total is None else total
        total = first + number if sign == "+" else first - number
        if rng.random() < SLIP:
            total += rng.choice((-10, -2, -1, 1, 2, 10))
        steps.append(f"{first}{sign}{number}={total}")
    worked = ";".join(steps)
    if style == "worked":
        return f"{worked} so {total}"
    if style == "worked in the format":
        return f"<think>{worked}</think><answer>{total}</answer>"
    return f"<think>{worked} so {total}</answer>"


def split(step: str) -> tuple[int, str, int]:
    """The parts of "22-8=14" before the equals sign."""
    left = step.partition("=")[0]
    sign = "-" if "-" in left[1:] else "+"
    first, _, number = left.rpartition(sign)
    return int(first), sign, int(number)


def batch(streams: list, rng: random.Random, rows: int) -> torch.Tensor:
    """Texts of `rows` problems, filled up with the token that ends one: [B, N]."""
    texts = []
    for _ in range(rows):
        problem = next(rng.choice(streams))
        answer = encode(scribble(problem, rng))
        texts.append([*ask(problem.question), *answer, END_ID])
    width = max(map(len, texts))
    return torch.tensor([text + [END_ID] * (width - len(text)) for text in texts])


def pretrain(
    steps: int, rows: int, peak: float, seed: int, config: Config = CONFIG
) -> tuple[dm.Transformer, list[float]]:
    """The model and its losses: next-token prediction of whole texts."""
    torch.manual_seed(seed)
    model = dm.Transformer(config)
    rng = random.Random(seed)
    streams = [stream(Chain(terms), seed) for terms in TERMS]
    adam = torch.optim.AdamW(
        model.parameters(), peak, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    losses = []
    for step in range(steps):
        cosine = 0.55 + 0.45 * math.cos(math.pi * step / steps)
        for group in adam.param_groups:
            group["lr"] = peak * cosine * min(1, (step + 1) / 50)
        tokens = batch(streams, rng, rows)
        targets = tokens[:, 1:].clone()
        after = (tokens[:, :-1] == END_ID).cumsum(dim=1) > 0
        targets[after] = -100  # one end is enough to learn
        logits = model(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            last = sum(losses[-50:]) / 50
            print(f"step {step + 1}  loss {last:.4f}", flush=True)
    return model, losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=TRAIN["steps"])
    parser.add_argument("--out", type=Path, default=ASSETS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    settings = TRAIN | {"steps": args.steps}
    model, losses = pretrain(**settings)
    folder = args.out / "checkpoints/r1-base"
    dm.save(model.half(), folder)
    model = dm.load(folder)  # float32 again, with the weights as they were stored
    able = {}
    for terms in TERMS:
        task = Chain(terms)
        held_out = problems(task, 128, seed=0, split="test")
        able[terms] = examine(model, task, held_out, samples=8)
        print(terms, {k: round(v, 3) for k, v in able[terms].items()}, flush=True)
        for problem, text in zip(held_out[:4], show(model, held_out[:4])):
            print(f"  {problem.question}={problem.answer}:  {text}")
    header = {
        "experiment": "18_r1_base",
        "command": "python experiments/18_r1_base.py",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{processor()}, 1 thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seconds": round(time.process_time() - started),
        "parameters": sum(p.numel() for p in model.parameters()),
        "train": settings,
        "styles": STYLES,
        "slip": SLIP,
        "held_out": {
            terms: {name: round(value, 4) for name, value in row.items()}
            for terms, row in able.items()
        },
    }
    curve = [
        {"step": step + 1, "loss": round(sum(losses[step - 49 : step + 1]) / 50, 4)}
        for step in range(49, len(losses), 50)
    ]
    log = args.out / "logs/18_r1_base.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record) for record in [header, *curve]]
    log.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
