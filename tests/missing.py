"""What this machine lacks for some of the tests, said in a sentence."""

from __future__ import annotations

import importlib.util
import shutil

import torch

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str | None:
    """The path of a Chromium or Chrome, if this machine has one."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


def missing(marker: str) -> str | None:
    """Why tests with this marker cannot run here, as a sentence."""
    if marker == "gpu" and not torch.cuda.is_available():
        return "no CUDA device here"
    if marker == "lean":
        # Late: the shapes must be checked before the package is imported.
        from deepseek_mini.posttraining.lean import missing as lean_missing

        return lean_missing()
    if marker == "browser":
        if not importlib.util.find_spec("playwright"):
            return "no playwright here: pip install playwright"
        if not chromium():
            return "no Chromium here: apt install chromium"
    return None
