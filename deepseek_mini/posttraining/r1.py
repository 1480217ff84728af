"""R1-Zero in small: a base model, a rule that judges, and nothing else.

The outer loop of DeepSeekMath's Algorithm 1 (arXiv 2402.03300, §4.1) with R1-Zero's
rewards (2501.12948): sample a group of answers to each question, judge them by rules,
improve the policy on them, and now and then make it the reference. And what is measured
before and after: pass@1, pass@k, the vote of the majority, format and length.
"""

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import comb
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from deepseek_mini.checkpoint import load
from deepseek_mini.model import Transformer
from deepseek_mini.posttraining.chars import END_ID, ask, decode
from deepseek_mini.posttraining.grpo import Objective, group_advantages, improve
from deepseek_mini.posttraining.rewards import (
    accuracy_reward,
    extract_answer,
    format_reward,
    total,
)
from deepseek_mini.posttraining.rollout import Rollout, sample_groups
from deepseek_mini.posttraining.tasks import Problem, Task, stream

CHECKPOINTS = Path(__file__).parents[1] / "assets/checkpoints"


def base_model() -> Transformer:
    """The base model of lesson 18, as experiments/18_r1_base.py left it."""
    return load(CHECKPOINTS / "r1-base")


def student_model() -> Transformer:
    """A third of it, pretrained like it by experiments/18_r1_distill.py."""
    return load(CHECKPOINTS / "r1-student")


@dataclass(frozen=True)
class Recipe:
    """How a policy is trained. A step samples `group` answers to `questions` questions
    at `temperature` and updates on them `updates` times (μ), in `minibatches` pieces;
    `lr` is reached after `warmup` steps and falls to 0 in the last `cooldown`.

    `weights` say what each reward is worth, `scale` is that of `group_advantages`, and
    every `ref_every` steps the policy becomes the reference (None: the base stays it).
    """

    steps: int = 100
    questions: int = 16
    group: int = 8
    max_new_tokens: int = 64
    temperature: float = 1.0
    lr: float = 5e-4
    warmup: int = 5
    cooldown: int = 0
    updates: int = 1
    minibatches: int = 1
    scale: str = "std"
    objective: Objective = field(default_factory=Objective)
    weights: dict[str, float] = field(
        default_factory=lambda: {"accuracy": 1.0, "format": 1.0}
    )
    ref_every: int | None = None
    seed: int = 0

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 1."""
        left = self.steps - step + 1
        up, down = step / max(1, self.warmup), left / max(1, self.cooldown)
        return self.lr * min(1, up, down)


def reinforce(
    model: Transformer,
    task: Task,
    recipe: Recipe,
    on_step: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Train `model` in place on the task's training problems; a row for each step.

    A row has the step (from 1), the means over its answers of "reward", every part of
    it, "length" (tokens), "ended", the share of groups "with_signal" (whose rewards are
    not all equal), and what `improve` reports. `on_step` is called with each.
    """
    questions = stream(task, recipe.seed, "train")
    reference = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(
        model.parameters(), recipe.lr, betas=(0.9, 0.95), weight_decay=0.0
    )
    shuffle = torch.Generator().manual_seed(recipe.seed)
    history = []
    for step in range(1, recipe.steps + 1):
        for parameters in optimizer.param_groups:
            parameters["lr"] = recipe.lr_at(step)
        drawn = list(islice(questions, recipe.questions))
        rollout = sample_groups(
            model,
            [ask(problem.question) for problem in drawn],
            recipe.group,
            recipe.max_new_tokens,
            END_ID,
            recipe.temperature,
            seed=1_000_003 * recipe.seed + step,
        )
        parts = judge(rollout, drawn, task)
        rewards = torch.tensor([total(part, recipe.weights) for part in parts])
        rewards = rewards.view(recipe.questions, recipe.group)
        moved = improve(
            model,
            optimizer,
            rollout,
            group_advantages(rewards, recipe.scale).flatten()[:, None],
            recipe.objective,
            reference,
            recipe.updates,
            recipe.minibatches,
            shuffle,
        )
        if recipe.ref_every and step % recipe.ref_every == 0:
            reference.load_state_dict(model.state_dict())
        signal = rewards.amax(dim=1) > rewards.amin(dim=1)
        row = {
            "step": step,
            "reward": float(rewards.mean()),
            **{name: mean(part[name] for part in parts) for name in parts[0]},
            "length": float(rollout.lengths.float().mean()),
            "ended": float(rollout.ended.float().mean()),
            "with_signal": float(signal.float().mean()),
            **moved,
        }
        history.append(row)
        if on_step is not None:
            on_step(row)
    return history


def judge(
    rollout: Rollout, drawn: Sequence[Problem], task: Task
) -> list[dict[str, float]]:
    """What each answer earns, by the name of the reward. An answer that ran out of room
    has no end, and so no format.
    """
    accuracy = accuracy_reward(task)
    group = len(rollout.tokens) // len(drawn)
    parts = []
    for i, (ids, ended) in enumerate(zip(rollout.answers(), rollout.ended.tolist())):
        text, problem = decode(ids), drawn[i // group]
        earned = {"accuracy": accuracy(text, problem), "format": format_reward(text)}
        parts.append(earned if ended else dict.fromkeys(earned, 0.0))
    return parts


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The chance that one of k answers is right, drawn from n of which `correct` are:
    1 - C(n - c, k) / C(n, k), which is without bias (Chen et al., arXiv 2107.03374).

    Raises:
        ValueError: k is less than 1 or more than n.
    """
    if not 1 <= k <= n:
        raise ValueError(f"k is {k}, but of {n} answers it must be from 1 to {n}")
    return 1 - comb(n - correct, k) / comb(n, k)


def examine(
    model: Transformer,
    task: Task,
    problems: Sequence[Problem],
    samples: int = 8,
    ks: Sequence[int] = (1, 8),
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    rows: int = 256,
) -> dict[str, float]:
    """What a model can do on some problems, from `samples` answers to each, of which
    about `rows` are decoded at a time.

    "pass@k" for every k; "majority", the share of problems whose commonest answer is
    right (no answer is no vote, of equals the first given counts); "format";
    "right_in_format", the accuracy of those answers that keep the format, which tells
    learning the task from learning the format (nan if none does); "length" (tokens, the
    end included) and "ended".
    """
    right, formatted, lengths, ended, votes = [], [], [], [], []
    piece = max(1, rows // samples)
    for start in range(0, len(problems), piece):
        asked = problems[start : start + piece]
        rollout = sample_groups(
            model,
            [ask(problem.question) for problem in asked],
            samples,
            max_new_tokens,
            END_ID,
            temperature,
            seed=seed + start,
        )
        parts = judge(rollout, asked, task)
        right += [part["accuracy"] for part in parts]
        formatted += [part["format"] for part in parts]
        lengths += rollout.lengths.tolist()
        ended += rollout.ended.tolist()
        votes += [extract_answer(decode(ids)) for ids in rollout.answers()]
    groups = [slice(i, i + samples) for i in range(0, len(right), samples)]
    counts = [int(sum(right[group])) for group in groups]
    kept = [r for r, f in zip(right, formatted) if f]
    return {
        **{f"pass@{k}": mean(pass_at_k(samples, c, k) for c in counts) for k in ks},
        "majority": mean(_vote(votes[group], right[group]) for group in groups),
        "format": mean(formatted),
        "right_in_format": mean(kept) if kept else float("nan"),
        "length": mean(lengths),
        "ended": mean(map(float, ended)),
    }


def _vote(answers: Sequence[str | None], right: Sequence[float]) -> float:
    """Whether the commonest of some answers is right: 1 or 0."""
    votes = Counter(answer for answer in answers if answer is not None)
    return right[answers.index(votes.most_common(1)[0][0])] if votes else 0.0


def show(
    model: Transformer,
    problems: Sequence[Problem],
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[str]:
    """One sampled answer to each problem, as text, for a person to read."""
    prompts = [ask(problem.question) for problem in problems]
    rollout = sample_groups(
        model, prompts, 1, max_new_tokens, END_ID, temperature, seed=seed
    )
    return [decode(ids) for ids in rollout.answers()]
