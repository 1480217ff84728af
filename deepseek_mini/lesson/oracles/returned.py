"""Mistakes in what is returned that many exercises invite, whatever they compute."""

import numpy as np
import torch

from deepseek_mini.lesson.oracles import Mistake

NUMBER = Mistake(
    "the value may be right, but it is a plain number: `.item()` and `float()` take it "
    "out of its tensor, so leave them away",
    when=lambda got, want, args: (
        isinstance(want, torch.Tensor) and isinstance(got, int | float | np.number)
    ),
)


def wrong_product(hint: str) -> Mistake:
    """Torch's exception where the inner widths of a matrix product differ."""
    return Mistake(
        hint,
        raises="shapes cannot be multiplied|size mismatch|expected .* batch.* to be",
    )
