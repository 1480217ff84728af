"""How a model is trained: one frozen dataclass."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from deepseek_mini.training.balance import Balance
from deepseek_mini.training.schedules import SCHEDULES

# The share of the steps with the full mtp_weight: 10 of V3's 14.8 trillion tokens.
MTP_FULL = 10 / 14.8


@dataclass(frozen=True)
class TrainConfig:
    """A recipe. The defaults train ``deepseek-llm-mini`` on one CPU core.

    ``betas``, ``weight_decay`` and ``clip`` are DeepSeek-LLM's (arXiv 2401.02954,
    §2.3); ``lr`` (the peak), ``warmup`` (in steps) and ``batch_size`` (in rows of the
    data's seq_len tokens) are for models a thousandth of its width.
    ``eval_windows`` rows of validation text are read every ``eval_every`` steps and
    after the last; a run with a folder is saved every ``save_every`` steps.

    A step's rows go through the model in ``accumulate`` equal pieces, whose gradients
    add up: the memory is that of one piece, the step is that of the whole.
    ``autocast`` computes matrix products in bfloat16 while weights and optimiser stay
    as they are; validation is not cast. ``compile`` puts the layers through
    ``torch.compile`` where there is a compiler. ``fp8`` trains in emulated FP8, which
    the model goes on computing in.

    Models with sparse layers are kept in balance as ``balance`` says, those with MTP
    modules train them with the weight ``mtp_weight``, a third of it after two thirds of
    the steps (V3, §4.2: 0.3 for 10 of 14.8 trillion tokens, then 0.1).

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
    accumulate: int = 1
    autocast: bool = False
    compile: bool = False
    fp8: bool = False
    balance: Balance = field(default_factory=Balance)
    mtp_weight: float = 0.3

    def __post_init__(self):
        if isinstance(self.betas, list):
            object.__setattr__(self, "betas", tuple(self.betas))
        for name in ("steps", "batch_size", "eval_every", "eval_windows", "save_every"):
            self._whole(name, least=1)
        for name in ("warmup", "seed"):
            self._whole(name, least=0)
        self._require(self.seed < 2**64, "seed", "less than 2**64")
        for name in ("lr", "clip"):
            self._number(name, lambda x: 0 < x < math.inf, "a positive number")
        self._number("weight_decay", lambda x: 0 <= x < math.inf, "a number, 0 or more")
        pair = isinstance(self.betas, tuple) and len(self.betas) == 2
        in_range = pair and all(_is_number(b) and 0 <= b < 1 for b in self.betas)
        self._require(in_range, "betas", "two numbers of [0, 1)")
        known = isinstance(self.schedule, str) and self.schedule in SCHEDULES
        self._require(known, "schedule", f"one of {', '.join(SCHEDULES)}")
        self._whole("accumulate", least=1)
        divides = self.batch_size % self.accumulate == 0
        rule = f"a divisor of batch_size ({self.batch_size})"
        self._require(divides, "accumulate", rule)
        for name in ("autocast", "compile", "fp8"):
            valid = isinstance(getattr(self, name), bool)
            self._require(valid, name, "True or False")
        both = self.autocast and self.fp8  # the products of FP8 add up in float32
        self._require(not both, "fp8", "False with autocast")
        is_balance = isinstance(self.balance, Balance)
        self._require(is_balance, "balance", "a Balance(...)")
        self._number("mtp_weight", lambda x: 0 <= x < math.inf, "a number, 0 or more")

    def _whole(self, name: str, least: int) -> None:
        value = getattr(self, name)
        whole = isinstance(value, int) and not isinstance(value, bool)
        rule = f"a whole number of at least {least}"
        self._require(whole and value >= least, name, rule)

    def _number(self, name: str, valid: Callable[[float], bool], rule: str) -> None:
        value = getattr(self, name)
        self._require(_is_number(value) and valid(value), name, rule)

    def _require(self, valid: bool, name: str, rule: str) -> None:
        if not valid:
            value = getattr(self, name)
            raise ValueError(f"TrainConfig.{name} must be {rule}, got {value!r}")

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        factor = SCHEDULES[self.schedule](step, self.steps, self.warmup)
        return self.lr * factor

    def mtp_weight_at(self, step: int) -> float:
        """λ of a step, counted from 0: what the MTP loss is multiplied by."""
        early = step < MTP_FULL * self.steps
        return self.mtp_weight if early else self.mtp_weight / 3


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
