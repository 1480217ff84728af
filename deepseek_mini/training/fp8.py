"""Training in FP8, emulated: what the numbers are on a GPU, without its speed.

DeepSeek-V3 (arXiv 2412.19437, §3.3) rounds both factors of every product of a linear
layer to FP8: forward, for the gradient of the input and for that of the weight. Each
factor has its scales: of 1 x 128 tiles along the axis that is summed over, or of
128 x 128 blocks of a weight. Sums, the weights that the optimizer changes and its own
state stay float32.

Embedding, head, gates, norms and the attention core are not rounded (§3.3.1), nor is
the projection of MTP. V3 has a wider format for what `wo` reads (E5M6, §3.3.3); here it
is rounded like the rest.
"""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepseek_mini.fp8 import E4M3, Format, fake_quantise
from deepseek_mini.model.moe import Experts

# The linear layers that are rounded, by their names in attention, MLA and SwiGLU.
QUANTISED = ("wq", "wk", "wv", "wo", "wq_a", "wq_b", "wkv_a", "wkv_b", "w1", "w2", "w3")

SHORT_BITS = 14  # that Hopper's tensor cores keep of a running sum (§3.3.2)
INSTRUCTION = 32  # products that one of their FP8 instructions adds up
PROMOTE_EVERY = 128  # products until V3 moves the sum to a float32 register


@dataclass(frozen=True)
class Recipe:
    """How a product is rounded. The defaults are DeepSeek-V3's.

    tile: the side of tiles and blocks; None gives every tensor a single scale.
    fmt: of activations and weights; grad_fmt: of gradients. V3 has E4M3 for both,
        others E5M2 for gradients.
    ue8m0: scales are powers of two, as in DeepSeek-V3.1.
    short: sums are those of `short_matmul`, promoted to float32 every 128 products.
    """

    tile: int | None = 128
    fmt: Format = E4M3
    grad_fmt: Format = E4M3
    ue8m0: bool = False
    short: bool = False

    def __post_init__(self) -> None:
        if self.tile is not None and self.tile < 1:
            raise ValueError(f"Recipe.tile is {self.tile}, but it must be at least 1")

    def rows(self, x: Tensor, fmt: Format) -> Tensor:
        """Rounded in tiles of one row: 1 x 128."""
        block = (None, None) if self.tile is None else (1, self.tile)
        return fake_quantise(x, block, fmt, self.ue8m0)

    def columns(self, x: Tensor, fmt: Format) -> Tensor:
        """Rounded in tiles of one column: 128 x 1."""
        block = (None, None) if self.tile is None else (self.tile, 1)
        return fake_quantise(x, block, fmt, self.ue8m0)

    def blocks(self, x: Tensor) -> Tensor:
        """A weight, rounded in blocks of 128 x 128."""
        return fake_quantise(x, (self.tile, self.tile), self.fmt, self.ue8m0)

    def multiply(self, a: Tensor, b: Tensor) -> Tensor:
        return short_matmul(a, b, promote_every=PROMOTE_EVERY) if self.short else a @ b


class _Product(torch.autograd.Function):
    """x wᵀ for x [N, D] and w [O, D], with the two products of its gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, recipe: Recipe) -> Tensor:
        x, weight = recipe.rows(x, recipe.fmt), recipe.blocks(weight)
        ctx.save_for_backward(x, weight)
        ctx.recipe = recipe
        return recipe.multiply(x, weight.T)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (x, weight), recipe = ctx.saved_tensors, ctx.recipe
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:  # sums over O: tiles along a row of the gradient
            grad_x = recipe.multiply(recipe.rows(grad, recipe.grad_fmt), weight)
        if ctx.needs_input_grad[1]:  # sums over tokens: tiles along the columns
            # What was kept of x are its bytes, which are rounded once more (§3.5.2).
            x = recipe.columns(x, recipe.fmt)
            grad = recipe.columns(grad, recipe.grad_fmt)
            grad_weight = recipe.multiply(grad.T, x)
        return grad_x, grad_weight, None


def fp8_linear(
    x: Float[Tensor, "... D"], weight: Float[Tensor, "O D"], recipe: Recipe
) -> Float[Tensor, "... O"]:
    """x wᵀ with both factors rounded, and so in both products of its gradient."""
    product = _Product.apply(x.reshape(-1, x.shape[-1]).float(), weight.float(), recipe)
    return product.view(*x.shape[:-1], len(weight)).to(x.dtype)


class FP8Linear(nn.Linear):
    """A linear layer whose products are rounded as `recipe` says; a bias is not.

    Its parameters have the names, the types and the values of the layer it was made of.
    """

    def __init__(self, linear: nn.Linear, recipe: Recipe):
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias, self.recipe = linear.weight, linear.bias, recipe

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... O"]:
        out = fp8_linear(x, self.weight, self.recipe)
        return out if self.bias is None else out + self.bias


def use_fp8(model: nn.Module, recipe: Recipe | None = None) -> nn.Module:
    """Make a model compute in emulated FP8 from now on, in place; returns it.

    recipe: DeepSeek-V3's when not given. Called again, the new recipe takes the place
        of the old one.

    The parameters stay the same objects under the same names: an optimizer that was
    made before still holds them, and checkpoints do not change. MLA's absorbed path
    multiplies by its weight without a layer, and so without rounding.

    Raises:
        ValueError: the model has none of the layers in QUANTISED.
    """
    recipe = Recipe() if recipe is None else recipe
    changed = 0
    for module in list(model.modules()):
        if isinstance(module, Experts):
            module.linear = partial(fp8_linear, recipe=recipe)
            changed += 1
        for name, child in list(module.named_children()):
            if name in QUANTISED and isinstance(child, nn.Linear):
                setattr(module, name, FP8Linear(child, recipe))
                changed += 1
    if not changed:
        raise ValueError(
            f"{type(model).__name__} has no linear layer named {', '.join(QUANTISED)}"
        )
    return model


def short_matmul(
    a: Float[Tensor, "M K"],
    b: Float[Tensor, "K N"],
    bits: int = SHORT_BITS,
    promote_every: int | None = None,
) -> Float[Tensor, "M N"]:
    """A matrix product with a running sum of `bits` significant bits: a model.

    Assumed here: an instruction adds 32 products to the sum without error, and then
    everything below the sum's first `bits` bits is cut off, towards zero. Real tensor
    cores differ in detail. With `promote_every`, a multiple of 32, the sum is added to
    one of float32 after so many products and begins again at 0 (DeepSeek-V3, §3.3.2).

    Raises:
        ValueError: bits is not 1 to 24, or promote_every no multiple of 32.
    """
    if not 1 <= bits <= 24:
        raise ValueError(f"bits is {bits}, but it must be from 1 to 24")
    if promote_every is not None and (promote_every < 1 or promote_every % INSTRUCTION):
        raise ValueError(
            f"promote_every is {promote_every}, but it must be a multiple of 32"
        )
    kept = -(1 << 24 - bits)  # a float32 has 24 significant bits, 23 of them stored
    total = a.new_zeros(a.shape[0], b.shape[1], dtype=torch.float32)
    running = torch.zeros_like(total)
    for k in range(0, a.shape[1], INSTRUCTION):
        piece = a[:, k : k + INSTRUCTION].float() @ b[k : k + INSTRUCTION].float()
        running = (running + piece).view(torch.int32).bitwise_and_(kept).view_as(piece)
        running = running.view(torch.float32)
        if promote_every and (k + INSTRUCTION) % promote_every == 0:
            total, running = total + running, torch.zeros_like(running)
    return (total + running).to(a.dtype)
