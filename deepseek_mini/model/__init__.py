"""How a model computes: one module for every part of a config."""

from deepseek_mini.model.attention import GQA
from deepseek_mini.model.cache import KVCache
from deepseek_mini.model.ffn import SwiGLU
from deepseek_mini.model.norm import RMSNorm
from deepseek_mini.model.ops import paths
from deepseek_mini.model.transformer import Block, Transformer

__all__ = ["GQA", "Block", "KVCache", "RMSNorm", "SwiGLU", "Transformer", "paths"]
