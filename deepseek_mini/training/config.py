"""How a model is trained: one frozen dataclass."""

import math
from dataclasses import dataclass

from deepseek_mini.training.schedules import SCHEDULES


@dataclass(frozen=True)
class TrainConfig:
    """A recipe. The defaults train ``deepseek-llm-mini`` on one CPU core.

    ``betas``, ``weight_decay`` and ``clip`` are DeepSeek-LLM's (arXiv 2401.02954,
    §2.3); ``lr`` (the peak), ``warmup`` (in steps) and ``batch_size`` (in rows of the
    data's seq_len tokens) are for models a thousandth of its width.
    ``eval_windows`` rows of validation text are read every ``eval_every`` steps and
    after the last; a run with a folder is saved every ``save_every`` steps.
    ValueError, naming the field, for a value that cannot be meant.
    """

    steps: int
    batch_size: int = 4
    lr: float = 2e-3
    schedule: str = "multi-step"
    warmup: int = 20
    betas: tuple[float, ...] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0
    seed: int = 0
    eval_every: int = 100
    eval_windows: int = 64
    save_every: int = 100

    def __post_init__(self):
        object.__setattr__(self, "betas", tuple(self.betas))
        for name in ("steps", "batch_size", "eval_every", "eval_windows", "save_every"):
            self._whole(name, least=1)
        for name in ("warmup", "seed"):
            self._whole(name, least=0)
        self._require(self.seed < 2**64, "seed", "less than 2**64")
        for name in ("lr", "clip"):
            positive = 0 < getattr(self, name) < math.inf
            self._require(positive, name, "a positive number")
        self._require(0 <= self.weight_decay < math.inf, "weight_decay", "0 or more")
        in_range = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        self._require(in_range, "betas", "two numbers of [0, 1)")
        known = ", ".join(SCHEDULES)
        self._require(self.schedule in SCHEDULES, "schedule", f"one of {known}")

    def _whole(self, name: str, least: int) -> None:
        value = getattr(self, name)
        valid = isinstance(value, int) and value >= least
        self._require(valid, name, f"a whole number of at least {least}")

    def _require(self, valid: bool, name: str, rule: str) -> None:
        if not valid:
            value = getattr(self, name)
            raise ValueError(f"TrainConfig.{name} must be {rule}, got {value!r}")

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        factor = SCHEDULES[self.schedule](step, self.steps, self.warmup)
        return self.lr * factor
