"""The first line of every lesson: seeds, threads, plot style, quiet libraries."""

import os
import random
import warnings

import numpy as np
import torch

from deepseek_mini.lesson import plots

# Warnings that every reader would see and nobody can act on.
_NOISE = (
    r".*IProgress not found.*",  # tqdm without ipywidgets
    r".*torch\.utils\._pytree\._register_pytree_node.*",
    r".*`clean_up_tokenization_spaces`.*",
    r".*lazy_load.*",
)


def setup(seed: int = 0, threads: int = 1) -> None:
    """Make a lesson repeatable: seed every generator, fix the threads and the style.

    seed: for Python's, NumPy's and torch's global generators.
    threads: of torch on the CPU; sums in another order give other last digits, so a
        lesson that compares what it prints runs on one.

    May be called again at any time; prints nothing. Raises ValueError when `threads`
    is less than 1.
    """
    if threads < 1:
        raise ValueError(f"threads is {threads}, but it must be at least 1")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    plots.use_style()
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
    # Read by transformers and tokenizers when they are imported, later.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
