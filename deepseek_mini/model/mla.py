"""Multi-head latent attention: keys and values of all heads from one small latent."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from deepseek_mini.config import Config
from deepseek_mini.model import ops
from deepseek_mini.model.cache import KVCache
from deepseek_mini.model.norm import RMSNorm
from deepseek_mini.model.rope import apply_rope, softmax_temperature

LATENT_EPS = 1e-6  # of q_norm and kv_norm, whatever the other norms have


class MLA(nn.Module):
    """Attention whose cache is one latent and one RoPE key a token, for all H heads
    (DeepSeek-V2, arXiv 2405.04434, §2.1 and appendix C).

    `wkv_a` compresses a token to a latent of C channels and makes the shared RoPE key
    of r channels; `wkv_b` expands the latent to each head's key without position (n
    channels) and value (v channels). Two paths give the same numbers. The naive one
    expands the latents of all S tokens and attends as usual. The absorbed one moves the
    expansion to the other side of each product, q·(W c) = (Wᵀq)·c, and so attends to
    the latents as they lie in the cache, as if they were the one key and value of
    multi-query attention.
    """

    def __init__(self, config: Config, layer: int):
        super().__init__()
        part = config.attention
        self.layer, self.layout = layer, config.rope.layout
        self.n_heads, self.v_dim = part.n_heads, part.v_head_dim
        self.nope_dim, self.rope_dim = part.qk_nope_head_dim, part.qk_rope_head_dim
        self.latent_dim = part.kv_lora_rank
        q_dim = part.n_heads * (self.nope_dim + self.rope_dim)
        if part.q_lora_rank is None:
            self.wq = nn.Linear(config.dim, q_dim, bias=False)
        else:
            self.wq_a = nn.Linear(config.dim, part.q_lora_rank, bias=False)
            self.q_norm = RMSNorm(part.q_lora_rank, LATENT_EPS)
            self.wq_b = nn.Linear(part.q_lora_rank, q_dim, bias=False)
        latent_and_key = self.latent_dim + self.rope_dim
        self.wkv_a = nn.Linear(config.dim, latent_and_key, bias=False)
        self.kv_norm = RMSNorm(self.latent_dim, LATENT_EPS)
        kv_dim = part.n_heads * (self.nope_dim + self.v_dim)
        self.wkv_b = nn.Linear(self.latent_dim, kv_dim, bias=False)
        self.wo = nn.Linear(part.n_heads * self.v_dim, config.dim, bias=False)
        # The width is that of a query, also where latents are compared; YaRN's
        # temperature is for channels without RoPE too, so it stands here.
        head_dim = self.nope_dim + self.rope_dim
        self.scale = head_dim**-0.5 * softmax_temperature(config.rope)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        cos: Float[Tensor, "*B T half"],
        sin: Float[Tensor, "*B T half"],
        mask: Bool[Tensor, "B T S"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Attend from the T tokens of x to themselves and to what the cache holds."""
        q = self.queries(x).unflatten(-1, (self.n_heads, -1))  # [B, T, H, n + r]
        q_nope, q_pe = q.split((self.nope_dim, self.rope_dim), dim=-1)
        latent, k_pe = self.wkv_a(x).split((self.latent_dim, self.rope_dim), dim=-1)
        latent = self.kv_norm(latent)  # [B, T, C]
        q_pe = apply_rope(q_pe, cos, sin, self.layout)
        k_pe = apply_rope(k_pe[:, :, None], cos, sin, self.layout)[:, :, 0]  # [B, T, r]
        if cache is not None:
            latent, k_pe = cache.append(self.layer, latent, k_pe)  # of all S
        attend = self.absorbed if self._absorb(x, latent) else self.naive
        out = attend(q_nope, q_pe, latent, k_pe, mask)  # [B, T, H, v]
        return self.wo(out.flatten(-2))

    def queries(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T q"]:
        """Every head's query, its channels without position before those with."""
        if hasattr(self, "wq"):
            return self.wq(x)
        return self.wq_b(self.q_norm(self.wq_a(x)))

    def naive(
        self,
        q_nope: Float[Tensor, "B T H n"],
        q_pe: Float[Tensor, "B T H r"],
        latent: Float[Tensor, "B S C"],
        k_pe: Float[Tensor, "B S r"],
        mask: Bool[Tensor, "B T S"] | None,
    ) -> Float[Tensor, "B T H v"]:
        """Expand every latent to H keys and values, then attend."""
        kv = self.wkv_b(latent).unflatten(-1, (self.n_heads, -1))  # [B, S, H, n + v]
        k_nope, v = kv.split((self.nope_dim, self.v_dim), dim=-1)
        k_pe = k_pe[:, :, None].expand(-1, -1, self.n_heads, -1)  # one key, H heads
        q = torch.cat((q_nope, q_pe), dim=-1)
        k = torch.cat((k_nope, k_pe), dim=-1)
        return ops.attention(q, k, v, self.scale, mask)

    def absorbed(
        self,
        q_nope: Float[Tensor, "B T H n"],
        q_pe: Float[Tensor, "B T H r"],
        latent: Float[Tensor, "B S C"],
        k_pe: Float[Tensor, "B S r"],
        mask: Bool[Tensor, "B T S"] | None,
    ) -> Float[Tensor, "B T H v"]:
        """Attend to the latents themselves; expand only the T results."""
        weight = self.wkv_b.weight.unflatten(0, (self.n_heads, -1))  # [H, n + v, C]
        w_k, w_v = weight.split((self.nope_dim, self.v_dim), dim=1)
        q = torch.einsum("bthn,hnc->bthc", q_nope, w_k)  # [B, T, H, C]
        q = torch.cat((q, q_pe), dim=-1)
        k = torch.cat((latent, k_pe), dim=-1)[:, :, None]  # one head for all
        # The values are the latents, the first C channels of k. Flash kernels want
        # values as wide as keys: they get k, and the last r channels are dropped.
        out = ops.attention(q, k, k, self.scale, mask)[..., : self.latent_dim]
        return torch.einsum("bthc,hvc->bthv", out, w_v)

    def _absorb(self, x: Tensor, latent: Tensor) -> bool:
        """Whether to take the absorbed path: as forced, else what multiplies less."""
        path = ops.chosen_path("attention")
        if path != "auto":
            return path == "absorbed"
        T, S, C = x.shape[1], latent.shape[1], self.latent_dim
        widths = self.nope_dim + self.v_dim
        naive = S * C * widths + T * S * (widths + self.rope_dim)  # for each head
        absorbed = T * C * widths + T * S * (2 * C + self.rope_dim)
        return absorbed < naive
