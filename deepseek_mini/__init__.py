"""deepseek-mini: the DeepSeek models, rebuilt to be understood.

    import deepseek_mini as dm
    model = dm.Transformer(dm.Config.preset("deepseek-llm-mini"))

What is not needed to build and run a model is imported when it is first asked for.
"""

from importlib import import_module
from typing import Any

from deepseek_mini import config, model
from deepseek_mini.config import Config, diff
from deepseek_mini.count import count
from deepseek_mini.generate import generate, left_pad, stream
from deepseek_mini.model import KVCache, Transformer, paths

__version__ = "0.1.0"

_LAZY = {  # name: the module that it lives in
    "load": "checkpoint",
    "save": "checkpoint",
    "Tokenizer": "tokenizer",
    "infill": "infilling",
    "speculate": "speculative",
}

__all__ = [
    "Config",
    "KVCache",
    "Tokenizer",
    "Transformer",
    "config",
    "count",
    "diff",
    "generate",
    "infill",
    "left_pad",
    "load",
    "model",
    "paths",
    "save",
    "speculate",
    "stream",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"deepseek_mini.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'deepseek_mini' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
