"""What the advantages are worth: a small model learns to sort from right or wrong.

    python experiments/17_grpo.py

The base, a model of 0.05 million parameters, has read lists of three and of five digits
with answers that others scribbled: half of the short ones and one in fifty of the long
ones are in order, in the rest neighbours have been swapped, once or twice. From it,
every kind is trained on the same questions for the same steps by the same rule, 1 for a
list in order and 0 for any other. Kinds differ in what becomes of the rewards:

- group: GRPO's advantages, (r - mean) / std of the question's own group;
- batch: (r - mean) / std of all rewards of the step;
- none: the rewards themselves, REINFORCE without a baseline;
- group +1, none +1: every answer is paid 1 more, as for a format that all keep to.

Three of them are run at a learning rate three times as large, too.

The base goes to deepseek_mini/assets/checkpoints/sort-base (float16) unless it is there
already, the log to deepseek_mini/assets/logs/17_grpo.jsonl: a first line that says what
ran where and what the base can do, then a line for every run, appended as it ends (a
run that was killed goes on with the next). Accuracies are of held-out lists, 4 answers
each at temperature 1, for 3 and for 5 digits; `train` has the same of every 5 steps'
own samples.
"""

import argparse
import datetime
import json
import platform
import random
import time
from itertools import islice
from pathlib import Path

import torch
from shared import processor
from torch import Tensor
from torch.nn import functional as F

import deepseek_mini as dm
from deepseek_mini.config import GQA, Config, Rope, SwiGLU
from deepseek_mini.posttraining.chars import END_ID, ask, decode, encode
from deepseek_mini.posttraining.grpo import Objective, group_advantages, improve
from deepseek_mini.posttraining.rollout import Rollout, sample_groups
from deepseek_mini.posttraining.tasks import Problem, Sort, problems, stream

ASSETS = Path(__file__).parent.parent / "deepseek_mini/assets"
LOG, BASE = ASSETS / "logs/17_grpo.jsonl", ASSETS / "checkpoints/sort-base"
CONFIG = Config(
    vocab_size=64,
    dim=48,
    n_layers=2,
    max_seq_len=32,
    attention=GQA(n_heads=4, n_kv_heads=4, head_dim=12),
    dense=SwiGLU(inter_dim=96),
    rope=Rope(theta=1000.0),
    init_std=0.06,
)
TASKS = (Sort(3), Sort(5))  # even questions are short, odd ones long
IN_ORDER = {3: 0.5, 5: 0.02}
KINDS = ("group", "batch", "none", "group +1", "none +1")
STEPS, QUESTIONS, GROUP, WINDOW = 60, 16, 8, 5
RUNS = {3e-4: KINDS, 1e-3: ("group", "none", "none +1")}  # by learning rate


def scribble(problem: Problem, rng: random.Random) -> str:
    """The answer, or one in which neighbours have been swapped (n - 1) / 2 times."""
    digits = problem.answer.split()
    if rng.random() > IN_ORDER[len(digits)]:
        for _ in range((len(digits) - 1) // 2):
            i = rng.randrange(len(digits) - 1)
            digits[i : i + 2] = reversed(digits[i : i + 2])
    return " ".join(digits)


def pretrain(steps: int = 300, rows: int = 64, peak: float = 4e-3) -> dm.Transformer:
    """The base, by next-token prediction on the answers alone."""
    torch.manual_seed(0)
    model, rng = dm.Transformer(CONFIG), random.Random(0)
    adam = torch.optim.AdamW(
        model.parameters(), peak, betas=(0.9, 0.95), weight_decay=0.0
    )
    streams = [stream(task, 0) for task in TASKS]
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = peak * min(1, (step + 1) / 20) * (1 - 0.9 * step / steps)
        texts, answers = [], []
        for i in range(rows):
            problem = next(streams[i % 2])
            prompt = ask(problem.question)
            answer = [*encode(scribble(problem, rng)), END_ID]
            texts.append(torch.tensor(prompt + answer))
            answers.append(torch.tensor([-100] * len(prompt) + answer))
        tokens = torch.nn.utils.rnn.pad_sequence(texts, True, END_ID)
        wanted = torch.nn.utils.rnn.pad_sequence(answers, True, -100)
        logits = model(tokens[:, :-1]).flatten(0, 1)
        loss = F.cross_entropy(logits, wanted[:, 1:].flatten())
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
    return model


def sampled(
    model: dm.Transformer, drawn: list[Problem], group: int, seed: int
) -> tuple[Rollout, Tensor]:
    """Answers in groups and their rewards [N, G]: 1 for a list in order, else 0."""
    prompts = [ask(problem.question) for problem in drawn]
    rollout = sample_groups(model, prompts, group, 12, END_ID, seed=seed)
    right = [
        TASKS[0].verify(drawn[i // group], decode(ids)) and ended
        for i, (ids, ended) in enumerate(zip(rollout.answers(), rollout.ended.tolist()))
    ]
    return rollout, torch.tensor(right).float().view(-1, group)


def examine(model: dm.Transformer) -> list[float]:
    """The accuracy on 40 short and 80 long held-out lists."""
    scores = []
    for task, n in zip(TASKS, (40, 80)):
        rewards = sampled(model, problems(task, n, 0, "test"), 4, seed=0)[1]
        scores.append(round(float(rewards.mean()), 4))
    return scores


def advantages(rewards: Tensor, kind: str) -> Tensor:
    """[N, G] of what each answer counts for."""
    rewards = rewards + 1 if "+1" in kind else rewards
    if kind == "batch":
        return (rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-8)
    return group_advantages(rewards, "none" if "none" in kind else "std")


def run(seed: int, kind: str, lr: float, steps: int) -> dict:
    """Improve a copy of the base; the run's record."""
    model = dm.load(BASE)
    adam = torch.optim.AdamW(
        model.parameters(), lr, betas=(0.9, 0.95), weight_decay=0.0
    )
    streams = [stream(task, 1000 + seed) for task in TASKS]
    started, history = time.process_time(), []
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 5)
        drawn = [
            problem
            for pair in islice(zip(*streams), QUESTIONS // 2)
            for problem in pair
        ]
        rollout, rewards = sampled(model, drawn, GROUP, 1_000_003 * seed + step)
        counts = advantages(rewards, kind).flatten()[:, None]
        improve(model, adam, rollout, counts, Objective(beta=0.0))
        history.append([rewards[0::2].mean(), rewards[1::2].mean()])
    curve = torch.tensor(history).unflatten(0, (-1, WINDOW)).mean(1)
    return {
        "seed": seed,
        "kind": kind,
        "lr": lr,
        "test": examine(model),
        "train": [[round(x, 3) for x in row] for row in curve.tolist()],
        "train_seconds": round(time.process_time() - started, 1),
    }


def header(steps: int, seconds: float) -> dict:
    return {
        "experiment": "17_grpo",
        "command": "python experiments/17_grpo.py",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{processor()}, 1 thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "steps": steps,
        "questions": QUESTIONS,
        "group": GROUP,
        "window": WINDOW,
        "base": examine(dm.load(BASE)),
        "base_seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="runs of each kind")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--log", type=Path, default=LOG, help="where to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    if not BASE.exists():
        dm.save(pretrain().half(), BASE)
    lines = args.log.read_text().splitlines() if args.log.exists() else []
    done = {(r["seed"], r["kind"], r["lr"]) for r in map(json.loads, lines[1:])}
    wanted = [(kind, lr) for lr, kinds in RUNS.items() for kind in kinds]
    with args.log.open("a", encoding="utf-8") as log:
        if not lines:
            seconds = time.process_time() - started
            log.write(json.dumps(header(args.steps, seconds)) + "\n")
        for seed in range(args.seeds):
            for kind, lr in wanted:
                if (seed, kind, lr) not in done:
                    record = run(seed, kind, lr, args.steps)
                    print(seed, kind, lr, record["test"], flush=True)
                    log.write(json.dumps(record) + "\n")
                    log.flush()


if __name__ == "__main__":
    main()
