"""Teach a small model by a larger one's chains, or let it learn from the rule itself?

    python experiments/18_r1_distill.py student runs

R1's distilled models, in small (arXiv 2501.12948, §2.4 and §4.1). The student is a
third of lesson 18's base and pretrained on the same texts for as many steps: stage
`student`, which writes deepseek_mini/assets/checkpoints/r1-student. The teacher is the
base after experiment 18_r1's GRPO, a teacher for each seed. Stage `runs` then trains
the student in these ways, each with the same 640 problems:

- SFT: on the teacher's chains, 8 drawn for each problem, those kept that are right, in
  the format and different (rejection sampling);
- own SFT: the same with the student's own chains, no teacher;
- reverse KL: the student writes 5,120 answers and is pulled to the teacher at each of
  its tokens (on-policy distillation);
- GRPO: the recipe of experiment 18_r1, so 8 answers to each problem;
- GRPO, longer: three times the steps, on three times the problems;
- SFT, GRPO: the first and then the fourth.

SFT reads about as many chains as GRPO takes gradients of, 10,240. The rates of SFT,
reverse KL and GRPO are chosen first, by pass@1 on other training problems and with a
seed of its own; own SFT takes that of SFT. Held-out problems as in 18_r1.

The log goes to deepseek_mini/assets/logs/18_r1_distill.jsonl: a first line that says
what ran where and what the student can do before, then a line for each run (processor
seconds, the chains that were kept, the accuracy of GRPO's steps, what it can do `after`
and its answers to three held-out problems), the teachers among them. Lesson 18 plots
it.
"""

import argparse
import datetime
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib import import_module
from itertools import islice
from pathlib import Path

import torch
from shared import processor

import deepseek_mini as dm
from deepseek_mini.config import GQA, SwiGLU
from deepseek_mini.posttraining.chars import END_ID, ask
from deepseek_mini.posttraining.distill import on_policy_distill, right_chains
from deepseek_mini.posttraining.packing import PackedChats, pack_chats
from deepseek_mini.posttraining.r1 import (
    base_model,
    examine,
    reinforce,
    show,
    student_model,
)
from deepseek_mini.posttraining.sft import sft
from deepseek_mini.posttraining.tasks import problems, stream
from deepseek_mini.training import TrainConfig

base = import_module("18_r1_base")
first = import_module("18_r1")
ASSETS, TASK, RECIPE = first.ASSETS, first.TASK, first.RECIPE
CONFIG = replace(
    base.CONFIG,
    dim=64,
    n_layers=2,
    attention=GQA(n_heads=4, n_kv_heads=4, head_dim=16),
    dense=SwiGLU(inter_dim=192),
)
N_PROBLEMS = RECIPE.steps * RECIPE.questions
RATES = {"SFT": (3e-4, 1e-3, 3e-3), "reverse KL": (3e-4, 1e-3, 3e-3)}
RATES["GRPO"] = (3e-4, 1e-3)
ADAM = {"schedule": "cosine", "warmup": 5, "weight_decay": 0.0}
IMITATE = {"steps": 160, "batch_size": 16, **ADAM}  # rows of 128 tokens, 4 chains each
FOLLOW = {"steps": 80, "batch_size": 64, **ADAM}
TUNING_SEED = 100


def teacher(seed: int) -> dm.Transformer:
    """The base after the GRPO of experiment 18_r1."""
    model = base_model()
    reinforce(model, TASK, replace(RECIPE, seed=seed))
    return model


def drawn(seed: int) -> list:
    """The problems that GRPO sees with this seed."""
    return list(islice(stream(TASK, seed), N_PROBLEMS))


def gather(source: dm.Transformer, seed: int) -> PackedChats:
    """The right chains that `source` writes to the problems of a seed, packed."""
    room = RECIPE.max_new_tokens
    chains = right_chains(
        source, TASK, drawn(seed), samples=8, keep=8, max_new_tokens=room, seed=seed
    )
    return pack_chats(chains, CONFIG.max_seq_len, END_ID)


def imitate(model: dm.Transformer, rows: PackedChats, seed: int, lr: float) -> dict:
    """SFT on those chains; how many there are."""
    sft(model, rows, TrainConfig(**IMITATE, lr=lr, seed=seed), progress=False)
    return {"kept": int(rows.documents.amax(dim=1).sum())}


def follow(model: dm.Transformer, source: dm.Transformer, seed: int, lr: float) -> dict:
    """On-policy distillation; the last steps' divergence in nats a token."""
    prompts = [ask(problem.question) for problem in drawn(seed)]
    config = TrainConfig(**FOLLOW, lr=lr, seed=seed)
    options = {"max_new_tokens": RECIPE.max_new_tokens, "progress": False}
    history = on_policy_distill(model, source, prompts, END_ID, config, **options)
    kl = [row["kl"] for row in history]
    return {"kl": [round(sum(part) / 5, 4) for part in (kl[:5], kl[-5:])]}


def reward(model: dm.Transformer, seed: int, lr: float, times: int = 1) -> dict:
    """GRPO; the accuracy of every step."""
    recipe = replace(RECIPE, seed=seed, lr=lr, steps=times * RECIPE.steps)
    history = reinforce(model, TASK, recipe)
    return {"accuracy": [round(row["accuracy"], 4) for row in history]}


def record(kind: str, seed: int, model: dm.Transformer, **said) -> dict:
    """A line of the log."""
    after = first.ability(model)
    shown = problems(TASK, 3, seed=1, split="test")
    texts = show(model, shown, RECIPE.max_new_tokens)
    print(f"seed {seed}  {kind}  {said}  {after['sampled']}", flush=True)
    asked = [problem.question for problem in shown]
    row = {"kind": kind, "seed": seed, **said, "after": after}
    return row | {"questions": asked, "chains": texts}


def tune() -> dict[str, dict[float, float]]:
    """pass@1 on 96 other training problems, for each way and learning rate."""
    seed, asked = TUNING_SEED, problems(TASK, 96, seed=999)
    source = teacher(seed)
    rows = gather(source, seed)
    ways = {
        "SFT": lambda model, lr: imitate(model, rows, seed, lr),
        "reverse KL": lambda model, lr: follow(model, source, seed, lr),
        "GRPO": lambda model, lr: reward(model, seed, lr),
    }
    found = {kind: {} for kind in ways}
    for kind, way in ways.items():
        for lr in RATES[kind]:
            model = student_model()
            way(model, lr)
            row = examine(model, TASK, asked, 4, (1,), RECIPE.max_new_tokens)
            found[kind][lr] = round(row["pass@1"], 4)
        print(kind, found[kind], flush=True)
    return found


def ways(seed: int, lr: dict[str, float]) -> Iterator[dict]:
    """Every way with one seed: the records."""

    def timed(kind: str, model: dm.Transformer, way, *args) -> dict:
        started = time.process_time()
        said = way(model, seed, *args)
        seconds = round(time.process_time() - started, 1)
        return record(kind, seed, model, seconds=seconds, **said)

    def taught(model, seed, source):
        return imitate(model, gather(source, seed), seed, lr["SFT"])

    def led(model, seed, source):
        return follow(model, source, seed, lr["reverse KL"])

    started = time.process_time()
    source = teacher(seed)
    seconds = round(time.process_time() - started, 1)
    yield record("teacher", seed, source, seconds=seconds)
    pupil = student_model()
    yield timed("SFT", pupil, taught, source)
    yield timed("own SFT", student_model(), taught, student_model())
    yield timed("reverse KL", student_model(), led, source)
    yield timed("GRPO", student_model(), reward, lr["GRPO"])
    yield timed("GRPO, longer", student_model(), reward, lr["GRPO"], 3)
    yield timed("SFT, GRPO", pupil, reward, lr["GRPO"])


def student(log: Path) -> None:
    """Pretrain the student, save it, and log the loss (nats a token) of 50 steps."""
    started = time.process_time()
    model, losses = base.pretrain(**base.TRAIN, config=CONFIG)
    dm.save(model.half(), ASSETS / "checkpoints/r1-student")
    header = where("18_r1_student", started) | {
        "parameters": dm.count(CONFIG).parameters,
        "train": base.TRAIN,
    }
    curve = [
        {"step": i + 50, "loss": round(sum(losses[i : i + 50]) / 50, 4)}
        for i in range(0, len(losses), 50)
    ]
    write(log, [header, *curve])


def where(experiment: str, started: float) -> dict:
    """What ran where; seconds are the processor's."""
    return {
        "experiment": experiment,
        "command": "python experiments/18_r1_distill.py student runs",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{processor()}, 1 thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seconds": round(time.process_time() - started),
    }


def write(log: Path, rows: list[dict]) -> None:
    lines = [json.dumps(row) for row in rows]
    log.write_text("\n".join(lines) + "\n", encoding="utf-8")


def runs(log: Path, seeds: int) -> None:
    """Tune, then every way with every seed."""
    started = time.process_time()
    tuning = tune()
    lr = {kind: max(row, key=row.get) for kind, row in tuning.items()}
    before = first.ability(student_model())
    print(f"student  {before}", flush=True)
    records = [row for seed in range(seeds) for row in ways(seed, lr)]
    sizes = [dm.count(m.config).parameters for m in (base_model(), student_model())]
    header = where("18_r1_distill", started) | {
        "parameters": dict(zip(("teacher", "student"), sizes)),
        "problems": N_PROBLEMS,
        "pass@1 while tuning": tuning,
        "lr": lr,
        "sft": IMITATE,
        "on policy": FOLLOW,
        "grpo": {k: v for k, v in asdict(RECIPE).items() if k not in ("seed", "lr")},
        "before": before,
    }
    write(log, [header, *records])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stages", nargs="+", choices=("student", "runs"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--logs", type=Path, default=ASSETS / "logs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if "student" in args.stages:
        student(args.logs / "18_r1_student.jsonl")
    if "runs" in args.stages:
        runs(args.logs / "18_r1_distill.jsonl", args.seeds)


if __name__ == "__main__":
    main()
