"""Judging a gradient with respect to log-probabilities, for 17.3 and 17.5.

A function is asked for its value first. Then its sum, weighed token by token, is
differentiated: the gradient must be that of `logps` as the oracle gives it in closed
form, and no other input may have one.
"""

from dataclasses import replace

import torch

from deepseek_mini.lesson.compare import difference
from deepseek_mini.lesson.explain import NotYet
from deepseek_mini.lesson.judge import call, judge_exercise


def judge_with_gradient(exercise, theirs, rng, gradient, constants):
    """gradient(*args, weights) is right; `constants` names inputs that get none,
    {position: its name}. The first input is `logps`.
    """
    judge_exercise(replace(exercise, judge=None), theirs, rng)
    for case in exercise.cases(rng):
        args = [
            x.clone().requires_grad_() if i == 0 or i in constants else x
            for i, x in enumerate(case.args)
        ]
        got = call(theirs, *args, exercise=exercise)
        if not isinstance(got, torch.Tensor) or got.grad_fn is None:
            raise NotYet(
                "the values are right, but no gradient reaches logps",
                "what cuts the graph: .detach(), .data, no_grad, or a new tensor made "
                "of numbers?",
            )
        for i, name in constants.items():
            if not args[i].requires_grad:
                raise NotYet(
                    f"your function changed {name}: it no longer asks for a gradient",
                    f"leave the input as it is, and compute with {name}.detach()",
                )
        weights = torch.linspace(0.5, 1.5, got.numel(), dtype=got.dtype)
        weights = weights.view(got.shape)
        scalar = (got * weights).sum()
        grads = torch.autograd.grad(
            scalar, [args[0], *(args[i] for i in constants)], allow_unused=True
        )
        if grads[0] is None:
            raise NotYet(
                "the values are right, but no gradient reaches logps",
                "is it detached where the ratio is made?",
            )
        for name, grad in zip(constants.values(), grads[1:]):
            if grad is not None and bool(grad.abs().max() > 1e-6):
                raise NotYet(
                    f"the values are right, but {name} gets a gradient as well",
                    f"for this update {name} is a constant: it was measured before",
                )
        want = gradient(*case.args, weights.double())
        scale = float(want.abs().max()) or 1.0  # a mean's gradients are small
        diff = difference(grads[0].double() / scale, want / scale, 1e-4)
        if diff is not None:
            raise NotYet(
                "the values are right, but the gradient by logps (in units of its "
                f"largest) is not: {diff.reason} (with {case.label})",
                "all that depends on logps takes part, and nothing is cut: is there a "
                ".detach() or a .data too many?",
            )
