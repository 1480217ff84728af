"""Pretraining: the loop, its schedules and optimiser, and runs that can be resumed."""

from deepseek_mini.training.balance import Balance, default_balance
from deepseek_mini.training.config import TrainConfig
from deepseek_mini.training.evaluation import evaluate
from deepseek_mini.training.loop import TrainResult, train
from deepseek_mini.training.optimizer import make_optimizer
from deepseek_mini.training.run_folder import check_out_dir
from deepseek_mini.training.schedules import (
    constant,
    cosine,
    multi_step,
    warmup_stable_decay,
)

__all__ = [
    "Balance",
    "TrainConfig",
    "TrainResult",
    "check_out_dir",
    "constant",
    "cosine",
    "default_balance",
    "evaluate",
    "make_optimizer",
    "multi_step",
    "train",
    "warmup_stable_decay",
]
