"""R1-Zero in small: what a base model learns from a rule, and what does not teach it.

    python experiments/18_r1.py [--workers 2]

Every run starts from the base model of experiment 18_r1_base and adds up three numbers,
16 questions a step with 8 answers each. A rule pays 1 for a right answer in its tags
and 0.25 for the whole format. The kinds change one thing each:

- GRPO: the group's mean and std make the advantages, the ratio is clipped, and a step's
  answers are gone over twice (μ = 2);
- no baseline: REINFORCE, the rewards themselves are the advantages;
- no clip: GRPO with an unbounded ratio;
- equal weights: the format is paid 1 as well;
- SFT: 128 sums worked out in the format, 4 times over, and no RL;
- cold start: that SFT, then GRPO.

Before and after, 128 held-out problems get 16 answers each at temperature 1 and 2 at
0.3, and 48 with five numbers, which RL never asks for, 4 each. The base is also made to
work: its answers begin with "<think>" and the first number.

The log goes to deepseek_mini/assets/logs/18_r1.jsonl: a first line that says what ran
where and what the base can do, then a line for each run, as they end: its `history` (an
entry a step), what it can do `after`, and the answers to three held-out problems at
three steps. Lesson 18 plots it.
"""

import argparse
import datetime
import json
import platform
import random
import re
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from itertools import islice, product
from math import inf
from multiprocessing import get_context
from pathlib import Path

import torch
from shared import processor

import deepseek_mini as dm
from deepseek_mini.posttraining.chars import END_ID, ask, decode, encode
from deepseek_mini.posttraining.grpo import Objective
from deepseek_mini.posttraining.r1 import (
    Recipe,
    base_model,
    examine,
    reinforce,
    show,
)
from deepseek_mini.posttraining.rewards import accuracy_reward
from deepseek_mini.posttraining.rollout import (
    answer_logits,
    sample_groups,
    token_logps,
)
from deepseek_mini.posttraining.tasks import Chain, problems, stream

ASSETS = Path(__file__).parent.parent / "deepseek_mini/assets"
TASK, LONGER = Chain(3), Chain(5)
RECIPE = Recipe(
    steps=40,
    questions=16,
    group=8,
    max_new_tokens=40,
    lr=3e-4,
    warmup=5,
    cooldown=15,
    updates=2,
    weights={"accuracy": 1.0, "format": 0.25},
    objective=Objective(beta=0.01),
)
UNBOUNDED = Objective(clip_low=inf, clip_high=inf, beta=RECIPE.objective.beta)
KINDS = {  # None: no RL
    "GRPO": RECIPE,
    "no baseline": replace(RECIPE, scale="none"),
    "equal weights": replace(RECIPE, weights={"accuracy": 1.0, "format": 1.0}),
    "SFT": None,
    "no clip": replace(RECIPE, objective=UNBOUNDED),
    "cold start": RECIPE,
}
SFT = {"chains": 128, "epochs": 4, "rows": 16, "lr": 3e-4}


def ability(model: dm.Transformer) -> dict:
    """What a model can do on held-out problems."""
    held_out = problems(TASK, 128, seed=0, split="test")
    longer = problems(LONGER, 48, seed=0, split="test")
    rows = {
        "sampled": examine(model, TASK, held_out, 16, (1, 2, 4, 8, 16), 40),
        "cool": examine(model, TASK, held_out, 2, (1, 2), 40, temperature=0.3),
        "five numbers": examine(model, LONGER, longer, 4, (1, 4), 64),
    }
    return {kind: rounded(row) for kind, row in rows.items()}


def told_to_work(model: dm.Transformer, temperature: float) -> float:
    """How often a model is right that has been made to begin its work."""
    held_out = problems(TASK, 128, seed=0, split="test")
    begun = [f"<think>{re.match('[0-9]+', p.question)[0]}" for p in held_out]
    prompts = [ask(p.question) + encode(text) for p, text in zip(held_out, begun)]
    rollout = sample_groups(model, prompts, 4, 40, END_ID, temperature, seed=0)
    right = accuracy_reward(TASK)
    texts = [decode(ids) for ids in rollout.answers()]
    scores = [right(text, held_out[i // 4]) for i, text in enumerate(texts)]
    return round(sum(scores) / len(scores), 4)


def fine_tune(model: dm.Transformer, seed: int) -> None:
    """SFT on a few chains worked without a slip, in the format; loss on the answers."""
    adam = torch.optim.AdamW(model.parameters(), SFT["lr"], weight_decay=0.0)
    drawn = list(islice(stream(TASK, 1000 + seed), SFT["chains"]))
    rng = random.Random(seed)
    for _ in range(SFT["epochs"]):
        rng.shuffle(drawn)
        for start in range(0, len(drawn), SFT["rows"]):
            part = drawn[start : start + SFT["rows"]]
            answers = [
                [*encode(f"<think>{';'.join(p.steps)}</think>"
                         f"<answer>{p.answer}</answer>"), END_ID]
                for p in part
            ]  # fmt: skip
            n_new = max(map(len, answers))
            new = torch.tensor([a + [END_ID] * (n_new - len(a)) for a in answers])
            mask = torch.arange(n_new) < torch.tensor([[len(a)] for a in answers])
            prompts, pad = dm.left_pad([ask(p.question) for p in part])
            tokens = torch.cat((prompts, new), dim=1)
            pad = torch.cat((pad, torch.zeros_like(mask)), dim=1)
            logps = token_logps(answer_logits(model, tokens, n_new, pad), new)
            adam.zero_grad()
            (-logps[mask].mean()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adam.step()


def run(kind: str, seed: int) -> dict:
    """Train one model; its record."""
    torch.set_num_threads(1)
    started = time.process_time()
    model = base_model()
    recipe, history, chains = KINDS[kind], [], {}
    shown = problems(TASK, 3, seed=1, split="test")
    if kind in ("SFT", "cold start"):
        fine_tune(model, seed)
    if recipe is not None:
        recipe = replace(recipe, seed=seed)
        chains["0"] = show(model, shown, recipe.max_new_tokens)

        def keep(row: dict) -> None:
            if row["step"] in (recipe.steps // 4, recipe.steps):
                texts = show(model, shown, recipe.max_new_tokens)
                chains[str(row["step"])] = texts

        history = reinforce(model, TASK, recipe, keep)
    trained = time.process_time() - started
    after = ability(model)
    sampled = after["sampled"]
    print(f"seed {seed}  {kind}  {trained:.0f} s  {sampled}", flush=True)
    rows = [rounded(row) for row in history]
    columns = {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
    return {
        "seed": seed,
        "kind": kind,
        "train_seconds": round(trained, 1),
        "history": columns,
        "after": after,
        "questions": [p.question for p in shown],
        "chains": chains,
    }


def rounded(row: dict) -> dict:
    """Four digits are enough; JSON has no NaN, and so null."""
    return {k: None if v != v else round(v, 4) for k, v in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--log", type=Path, default=ASSETS / "logs/18_r1.jsonl")
    args = parser.parse_args()
    torch.set_num_threads(1)
    started = time.time()
    base = base_model()
    before = ability(base)
    print(f"base  {before}", flush=True)
    header = {
        "experiment": "18_r1",
        "command": "python experiments/18_r1.py",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{processor()}, {args.workers} processes of 1 thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "recipe": {k: v for k, v in asdict(RECIPE).items() if k != "seed"},
        "sft": SFT,
        "before": before,
        "told_to_work": {str(t): told_to_work(base, t) for t in (1.0, 0.3)},
    }
    records, jobs = [], list(product(args.kinds, range(args.seeds)))
    args.log.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(args.workers, get_context("spawn")) as pool:
        for record in pool.map(run, *zip(*jobs)):
            records.append(record)
            header["seconds"] = round(time.time() - started)
            spent = sum(record["train_seconds"] for record in records)
            header["train_seconds"] = round(spent)  # of processor time, all together
            lines = [json.dumps(line) for line in [header, *records]]
            args.log.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
