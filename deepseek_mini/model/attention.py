"""Multi-head, grouped-query and multi-query attention in one module."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from deepseek_mini.config import Config
from deepseek_mini.model import ops
from deepseek_mini.model.cache import KVCache
from deepseek_mini.model.rope import apply_rope


class GQA(nn.Module):
    """Attention with H query heads over G key-value heads (arXiv 2305.13245).

    G = H is multi-head attention (DeepSeek-LLM 7B), 1 < G < H grouped-query attention
    (67B has H = 64, G = 8), G = 1 multi-query attention. Only the G keys and values go
    into the cache.
    """

    def __init__(self, config: Config, layer: int):
        super().__init__()
        part = config.attention
        self.layer = layer
        self.n_heads, self.n_kv_heads = part.n_heads, part.n_kv_heads
        self.head_dim, self.layout = part.head_dim, config.rope.layout
        self.scale = part.head_dim**-0.5
        q_dim, kv_dim = part.n_heads * part.head_dim, part.n_kv_heads * part.head_dim
        self.wq = nn.Linear(config.dim, q_dim, bias=part.bias)
        self.wk = nn.Linear(config.dim, kv_dim, bias=part.bias)
        self.wv = nn.Linear(config.dim, kv_dim, bias=part.bias)
        self.wo = nn.Linear(q_dim, config.dim, bias=False)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        cos: Float[Tensor, "*B T half"],
        sin: Float[Tensor, "*B T half"],
        mask: Bool[Tensor, "B T S"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Attend from the T tokens of x to themselves and to what the cache holds."""
        q = self.wq(x).unflatten(-1, (self.n_heads, self.head_dim))  # [B, T, H, d]
        k = self.wk(x).unflatten(-1, (self.n_kv_heads, self.head_dim))  # [B, T, G, d]
        v = self.wv(x).unflatten(-1, (self.n_kv_heads, self.head_dim))
        q = apply_rope(q, cos, sin, self.layout)
        k = apply_rope(k, cos, sin, self.layout)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)  # [B, S, G, d]
        out = ops.attention(q, k, v, self.scale, mask)  # [B, T, H, d]
        return self.wo(out.flatten(-2))
