"""Multi-token prediction: one more block that guesses one token further."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from deepseek_mini.config import Config
from deepseek_mini.model.cache import KVCache
from deepseek_mini.model.norm import RMSNorm


class MTPModule(nn.Module):
    """One depth of prediction (DeepSeek-V3, arXiv 2412.19437, §2.2).

    From the hidden state of position i and the embedding of the token k places after
    it, the state that predicts the token k + 1 places after it; k is the module's depth
    from 1. Embedding and head are the model's own. The norm's output is both what the
    head reads and what the next depth starts from.

    `eh_proj` reads [embedding, hidden], the order of the released weights; the paper
    writes them the other way round.
    """

    def __init__(self, config: Config, block: nn.Module):
        super().__init__()
        self.enorm = RMSNorm(config.dim, config.norm_eps)
        self.hnorm = RMSNorm(config.dim, config.norm_eps)
        self.eh_proj = nn.Linear(2 * config.dim, config.dim, bias=False)
        self.block = block
        self.norm = RMSNorm(config.dim, config.norm_eps)

    def forward(
        self,
        hidden: Float[Tensor, "B T D"],
        embedded: Float[Tensor, "B T D"],
        cos: Float[Tensor, "*B T half"],
        sin: Float[Tensor, "*B T half"],
        mask: Bool[Tensor, "B T S"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "B T D"]:
        both = torch.cat((self.enorm(embedded), self.hnorm(hidden)), dim=-1)
        return self.norm(self.block(self.eh_proj(both), cos, sin, mask, cache))
