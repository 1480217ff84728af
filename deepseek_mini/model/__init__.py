"""How a model computes: one module for every part of a config."""

from deepseek_mini.model.attention import GQA
from deepseek_mini.model.cache import KVCache
from deepseek_mini.model.ffn import SwiGLU
from deepseek_mini.model.mla import MLA
from deepseek_mini.model.moe import MoE, Routing, recording
from deepseek_mini.model.mtp import MTPModule
from deepseek_mini.model.norm import RMSNorm
from deepseek_mini.model.ops import paths
from deepseek_mini.model.transformer import Block, Transformer

__all__ = [
    "GQA",
    "MLA",
    "Block",
    "KVCache",
    "MTPModule",
    "MoE",
    "RMSNorm",
    "Routing",
    "SwiGLU",
    "Transformer",
    "paths",
    "recording",
]
