"""Exercise 16.4, a stack with some trained matrices: judged by a step of AdamW."""

import torch

from deepseek_mini.lesson.compare import difference
from deepseek_mini.lesson.explain import NotAttempted, NotYet
from deepseek_mini.lesson.judge import attribute, call
from deepseek_mini.lesson.oracles import Exercise, tensor

LR, DECAY = 0.05, 0.5


def judge_part(theirs, rng):
    """Equal at first; one step moves the chosen as it should, and nothing else."""
    for E, n_out, n_in, ids in (
        (5, 4, 3, [3, 1]),
        (4, 2, 6, [0]),
        (3, 3, 3, [2, 0, 1]),
    ):
        given = tensor(rng, E, n_out, n_in, dtype=torch.float32)
        stack = given.clone()
        module = call(theirs, given, ids, exercise=PART)
        if not isinstance(module, torch.nn.Module):
            raise NotYet(
                "the object is no torch.nn.Module", "keep the class line that was given"
            )
        about = f" (for E = {E}, experts {ids})"
        out = _forward(module)
        _equal(out, stack, "a new module should give the stack as it was" + about)
        _trained(module, len(ids) * n_out * n_in, about)
        _step(module, stack, ids, about, rng)
        if not torch.equal(given, stack):
            raise NotYet(
                "a step of the optimiser changed the stack that was given",
                "the parameter shares its memory: make it of a copy",
            )
        _saved(theirs, module, stack, ids)


def _forward(module):
    try:
        return call(attribute(module, "forward"))
    except NotAttempted:
        raise NotYet(
            "`forward` is still empty", "both __init__ and forward are asked for"
        ) from None


def _equal(got, want, reason):
    diff = difference(got, want, 0.0)
    if diff is not None:
        raise NotYet(
            f"{reason}: {diff.reason}",
            diff.hint or "which place of the stack does each trained matrix come from?",
        )


def _trained(module, n, about):
    count = sum(p.numel() for p in module.parameters() if p.requires_grad)
    if count == 0:
        raise NotYet(
            "an optimiser finds nothing to train" + about,
            "it trains parameters that ask for a gradient",
        )
    if count != n:
        raise NotYet(
            f"{count} numbers are trained, but the chosen matrices have {n}" + about,
            "what is frozen should not be among what an optimiser is given: it keeps "
            "two more numbers for each",
        )


def _step(module, stack, ids, about, rng):
    """A step of AdamW with decay, beside the same step on the chosen matrices alone."""
    direction = tensor(rng, *stack.shape, dtype=torch.float32)
    adam = torch.optim.AdamW(module.parameters(), lr=LR, weight_decay=DECAY)
    out = module()
    if out.grad_fn is None:
        raise NotYet(
            "no gradient reaches the trained matrices" + about,
            "what cuts the graph: .detach(), .data, no_grad, or a tensor made anew?",
        )
    (out * direction).sum().backward()
    adam.step()
    want = torch.nn.Parameter(stack[ids].clone())
    reference = torch.optim.AdamW([want], lr=LR, weight_decay=DECAY)
    (want * direction[ids]).sum().backward()
    reference.step()
    after = stack.clone()
    after[ids] = want.detach()
    got = _forward(module)
    frozen = [e for e in range(len(stack)) if e not in ids]
    if torch.equal(got, stack):
        raise NotYet(
            "after a step of AdamW `forward` still gives the old stack" + about,
            "forward runs again after every step: what does it read, and when was that "
            "made?",
        )
    if not torch.equal(got[frozen], stack[frozen]):
        raise NotYet(
            "a step of AdamW has moved a frozen matrix" + about,
            "its gradient may be zero: weight decay needs none",
        )
    diff = difference(got, after, 1e-5)
    if diff is not None:
        raise NotYet(
            f"after a step of AdamW a chosen matrix is not what it should be{about}: "
            f"{diff.reason}",
            "its gradient is that of its own place in the stack, once",
        )


def _saved(theirs, module, stack, ids):
    """What is saved and loaded elsewhere gives the same stack."""
    other = call(theirs, torch.zeros_like(stack), ids)
    try:
        other.load_state_dict(module.state_dict())
    except RuntimeError as problem:
        raise NotYet(
            f"its `state_dict()` cannot be loaded: {problem}", "names must not change"
        ) from None
    if not torch.equal(_forward(other), _forward(module)):
        raise NotYet(
            "saved and loaded into another module, it gives another stack",
            "a tensor in a plain attribute is not saved: parameters and buffers are",
        )


PART = Exercise(
    id="16.4",
    title="Train a part of a stack",
    signature="PartOfStack(stack, ids)",
    difficulty="from the paper",
    minutes=15,
    judge=judge_part,
    hint="which tensors does an optimiser hold, and which does forward put together?",
)
