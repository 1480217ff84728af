"""Root-mean-square normalisation."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Scale a vector to root mean square 1, then each channel by a learned weight.

    y = x / sqrt(mean(x²) + eps) · weight, over the last dimension (Zhang and Sennrich,
    arXiv 1910.07467, §4). The mean is taken in float32 (float64 stays float64), because
    squares of half-precision numbers overflow early.
    """

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        wide = x if x.dtype == torch.float64 else x.float()
        inverse_rms = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * (wide * inverse_rms).to(x.dtype)
