"""torch.compile for training, where it works."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn


def compiled_layers(
    model: nn.Module, loss: Callable[[], Tensor]
) -> Callable[[], contextmanager]:
    """Make a context, ``with context():``, in which the model's layers run compiled.

    Layer by layer: all have the same shape, so one compilation serves them all, and
    what the model does around them (looking at token ids, choosing RoPE's rows, which
    `dm.paths` is in force) stays plain Python. Outside the context the layers run as
    they are.

    ``loss`` is tried forward and backward at once. If that fails (no C++ compiler, a
    system or a Python that torch.compile does not know) there is one warning, and the
    context does nothing.
    """
    compiled = [(layer, torch.compile(layer.forward)) for layer in model.layers]

    @contextmanager
    def context() -> Iterator[None]:
        for layer, forward in compiled:
            layer.forward = forward
        try:
            yield
        finally:
            for layer, _ in compiled:
                del layer.forward

    try:
        with context():
            loss().backward()
    except Exception as error:  # whatever it was: without it there is another way
        reason = str(error).strip().splitlines() or [type(error).__name__]
        warnings.warn(
            f"torch.compile does not work here ({reason[0]}), so the model is trained "
            "without it",
            stacklevel=3,
        )
        context = nullcontext
    model.zero_grad(set_to_none=True)
    return context
