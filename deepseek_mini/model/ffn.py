"""The dense feed-forward network."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class SwiGLU(nn.Module):
    """Gated feed-forward network: w2(silu(w1 x) · w3 x) (Shazeer, arXiv 2002.05202).

    w1 is the gate, w3 the value that it lets through, w2 the way back to width `dim`.
    `inter_dim` is the width in between; there are no biases.
    """

    def __init__(self, dim: int, inter_dim: int):
        super().__init__()
        self.w1 = nn.Linear(dim, inter_dim, bias=False)
        self.w2 = nn.Linear(inter_dim, dim, bias=False)
        self.w3 = nn.Linear(dim, inter_dim, bias=False)

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))
