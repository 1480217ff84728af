"""Exercise 11.5, V3's gate as a module: what reaches its bias, and what may not.

The module is put through a step of training: forward, backward, AdamW, update. Values
are judged by `gate_values.py`.
"""

import numpy as np
import torch

from deepseek_mini.lesson.compare import difference
from deepseek_mini.lesson.explain import NotAttempted, NotYet
from deepseek_mini.lesson.judge import attribute, call, judge_exercise
from deepseek_mini.lesson.oracles import Exercise
from deepseek_mini.lesson.oracles.gate_values import (
    TOLERANCE,
    UPDATE,
    WEIGHTS,
    fill,
    gate_cases,
    update_of,
    weights_of,
)

_BY_LOAD = (
    "a gradient asks whether the loss would fall if an expert weighed more, and knows "
    "nothing of the load: which way does the bias take into the weights?"
)


def judge_module(theirs, rng):
    """Its parts, then what a backward and an optimiser do, then all values."""
    for number, case in enumerate(gate_cases(rng)):
        x, weight, bias, K, scale = case.args
        gate = call(theirs, x.shape[1], len(bias), K, scale, exercise=MODULE)
        _parts(gate, x.shape[1], len(bias))
        fill(gate, weight, bias)
        out = _method(gate, "forward", x)
        if _moved(gate, bias):
            raise NotYet(
                "`forward` has changed the bias",
                "only `update` moves it, once in a step: forward may run several times",
            )
        seen = isinstance(out, torch.Tensor) and out.grad_fn is not None
        if seen:
            (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
            _no_gradient(gate)
        if number == 0:
            again = np.random.default_rng(rng.integers(2**32))
            _values("forward", WEIGHTS, weights_of(theirs), again)
        if not seen or gate.weight.grad is None:
            raise NotYet(
                "the weights are right, but no gradient reaches `weight`",
                "what cuts the graph: .detach(), .data, no_grad, or a new tensor made "
                "of numbers?",
            )
        _gradient_of_scores(gate, x, weight, bias, K, scale)
        _optimiser(gate, bias)
    _values("update", UPDATE, update_of(theirs), rng)


def _values(name, exercise, method, rng):
    try:
        judge_exercise(exercise, method, rng)
    except NotYet as problem:
        problem.reason = f"`{name}`: {problem.reason}"
        raise


def _parts(gate, D, E):
    if not isinstance(gate, torch.nn.Module):
        raise NotYet(
            "the object is no torch.nn.Module", "keep the class line that was given"
        )
    for name, shape in (("weight", (E, D)), ("bias", (E,))):
        part = attribute(gate, name)
        if not isinstance(part, torch.Tensor) or part.shape != shape:
            seen = getattr(part, "shape", None)
            seen = "no tensor" if seen is None else f"of shape {tuple(seen)}"
            raise NotYet(
                f"`{name}` is {seen}, but should be a tensor of shape {shape}",
                f"here dim is {D} and n_experts {E}",
            )
        if name not in gate.state_dict():
            raise NotYet(
                f"`state_dict()` has no `{name}`, so it would not be saved",
                "a tensor in a plain attribute is unknown to the module: parameters "
                "and buffers are known",
            )
    if gate.bias.any():
        raise NotYet("the bias of a new gate is not zero", "it begins at 0")
    if not isinstance(gate.weight, torch.nn.Parameter) or not gate.weight.requires_grad:
        raise NotYet("`weight` is not learned", "an optimiser learns parameters")


def _no_gradient(gate):
    grad, weight = gate.bias.grad, gate.weight.grad
    largest = 1.0 if weight is None else float(weight.abs().max())
    if grad is not None and float(grad.abs().max()) > 1e-5 * largest:
        raise NotYet(
            "after backward the bias has a gradient, but only the load may move it",
            _BY_LOAD,
        )


def _gradient_of_scores(gate, x, weight, bias, K, scale):
    """The gradient of `weight` is that of the scores without a bias."""
    grads = []
    for detached in (False, True):
        leaf = weight.double().requires_grad_()
        scores = torch.sigmoid(x.double() @ leaf.T)  # [N, E]
        kept = scores * (scores + bias >= (scores + bias).topk(K).values[:, -1:])
        total = kept.sum(1, keepdim=True)
        out = scale * kept / (total.detach() if detached else total)
        spread = torch.linspace(-1, 1, out.numel()).view_as(out)
        grads += torch.autograd.grad((out * spread).sum(), leaf)
    diff = difference(gate.weight.grad, grads[0].float(), TOLERANCE)
    if diff is None:
        return
    hint = "all that depends on `weight` takes part, and nothing else"
    if difference(gate.weight.grad, grads[1].float(), TOLERANCE) is None:
        hint = "the sum that the scores are divided by depends on `weight` too"
    raise NotYet(
        f"the weights are right, but the gradient of `weight` is not: {diff.reason}",
        hint,
    )


def _optimiser(gate, bias):
    torch.optim.AdamW(gate.parameters(), lr=0.1, weight_decay=0.1).step()
    if _moved(gate, bias):
        raise NotYet(
            "a step of AdamW has moved the bias",
            "its gradient need not be large: one of zeros is enough for weight decay",
        )
    if gate.bias.requires_grad:
        raise NotYet(
            "`bias.requires_grad` is True",
            "nothing should ask for its gradient: it is part of the state, and not of "
            "what is learned",
        )


def _moved(gate, bias):
    return difference(gate.bias, bias, 0.0, exact_dtype=False) is not None


def _method(gate, name, *args):
    try:
        return call(attribute(gate, name), *args)
    except NotAttempted:
        raise NotYet(
            f"`{name}` is still empty",
            "__init__, forward and update are asked for; the rest was right so far",
        ) from None


MODULE = Exercise(
    id="11.5",
    title="A bias that no gradient reaches",
    signature="BiasGate(dim, n_experts, K, route_scale)",
    difficulty="from the paper",
    minutes=15,
    judge=judge_module,
    hint="follow the bias: who reads it, and who writes it?",
)
