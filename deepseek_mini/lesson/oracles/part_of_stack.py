"""Exercise 16.4, a stack with some trained matrices: judged by steps of training."""

import torch

from deepseek_mini.lesson.compare import difference
from deepseek_mini.lesson.explain import NotAttempted, NotYet
from deepseek_mini.lesson.judge import attribute, call
from deepseek_mini.lesson.oracles import Exercise, tensor

LR, DECAY, STEPS = 0.05, 0.5, 2
SHARED = "the module shares memory with the tensor that was given: make it of a copy"


def _sgd(parameters):
    return torch.optim.SGD(parameters, lr=LR)


def _adamw(parameters):
    return torch.optim.AdamW(parameters, lr=LR, weight_decay=DECAY)


# SGD sees the size of a gradient, and AdamW moves what has none.
OPTIMISERS = (
    ("SGD", _sgd, "its gradient is that of its own place in the stack, once"),
    ("AdamW", _adamw, "weight decay pulls the parameter to 0: is that the matrix?"),
)


def judge_part(theirs, rng):
    """Equal at first; steps move the chosen as they should, and nothing else."""
    for E, n_out, n_in, ids in (
        (5, 4, 3, [3, 1]),
        (4, 2, 6, [0]),
        (3, 3, 3, [2, 0, 1]),
    ):
        about = f" (for E = {E}, experts {ids})"
        stack = tensor(rng, E, n_out, n_in, dtype=torch.float32)
        for optimiser in OPTIMISERS:
            given = stack.clone()
            module = call(theirs, given, list(ids), exercise=PART)
            if not isinstance(module, torch.nn.Module):
                raise NotYet(
                    "the object is no torch.nn.Module",
                    "keep the class line that was given",
                )
            _new(module, stack, ids, about)
            _train(module, stack, ids, optimiser, about, rng)
            if not torch.equal(given, stack):
                raise NotYet("training changed the stack that was given", SHARED)
            _saved(theirs, module, stack, ids, rng)
            _on_its_own(module, given)


def _forward(module):
    try:
        return call(attribute(module, "forward"))
    except NotAttempted:
        raise NotYet(
            "`forward` is still empty", "both __init__ and forward are asked for"
        ) from None


def _new(module, stack, ids, about):
    """A new module gives the stack, and trains the chosen matrices."""
    got = _forward(module)
    diff = difference(got, stack, 0.0)
    if diff is not None:
        hint = (
            diff.hint or "which place of the stack does each trained matrix come from?"
        )
        others = [e for e in range(len(stack)) if e not in ids]
        if not diff.hint and torch.equal(got[ids], stack[ids]):
            hint = f"only experts {others}, which are not trained, are wrong"
        raise NotYet(
            f"a new module should give the stack as it was{about}: {diff.reason}", hint
        )
    trained = [p.detach().flatten() for p in module.parameters() if p.requires_grad]
    if not trained:
        raise NotYet(
            "an optimiser finds nothing to train" + about,
            "it trains parameters that ask for a gradient",
        )
    numbers, want = torch.cat(trained), stack[ids].flatten()
    if len(numbers) != len(want):
        raise NotYet(
            f"{len(numbers)} numbers are trained, but the chosen matrices have "
            f"{len(want)}{about}",
            "what is frozen should not be among what an optimiser is given: it keeps "
            "two more numbers for each"
            if len(numbers) > len(want)
            else "every matrix of `ids` has to be in a parameter",
        )
    if not torch.equal(numbers.sort().values, want.sort().values):
        raise NotYet(
            "the trained parameters hold other numbers than the chosen matrices"
            + about,
            "weight decay pulls a parameter to 0: of a difference that begins at 0, "
            "that is not where it pulls the matrix",
        )


def _train(module, stack, ids, optimiser, about, rng):
    """Steps of training, beside the same steps on the chosen matrices alone."""
    name, make, hint = optimiser
    alone = torch.nn.Parameter(stack[ids].clone())
    theirs, reference = make(module.parameters()), make([alone])
    others = [e for e in range(len(stack)) if e not in ids]
    want = stack.clone()
    for step in range(STEPS):
        direction = tensor(rng, *stack.shape, dtype=torch.float32)
        theirs.zero_grad()
        reference.zero_grad()
        out = _forward(module)
        _backward(out, direction, step, about)
        (alone * direction[ids]).sum().backward()
        theirs.step()
        reference.step()
        before, want[ids] = want.clone(), alone.detach()
        got = _forward(module)
        if torch.equal(got, before):
            raise NotYet(
                f"after a step of {name} `forward` still gives the old stack{about}",
                "forward runs again after every step: what does it read, and when was "
                "that made?",
            )
        if not torch.equal(out, before):
            raise NotYet(
                f"a step, or the next `forward`, changed an earlier result{about}",
                "every call has to return a tensor of its own",
            )
        if not torch.equal(got[others], stack[others]):
            raise NotYet(
                f"a step of {name} has moved a frozen matrix{about}",
                "its gradient may be zero: weight decay needs none",
            )
        diff = difference(got, want, 1e-5)
        if diff is not None:
            raise NotYet(
                f"after a step of {name} a chosen matrix is not what it should be"
                f"{about}: {diff.reason}",
                hint,
            )


def _backward(out, direction, step, about):
    if out.grad_fn is None:
        raise NotYet(
            "no gradient reaches the trained matrices" + about,
            "what cuts the graph: .detach(), .data, no_grad, or a tensor made anew?",
        )
    try:
        (out * direction).sum().backward()
    except RuntimeError as problem:
        said = str(problem).split(" (")[0]
        raise NotYet(
            f"backward of training step {step + 1} raises RuntimeError: {said}{about}",
            "a tensor that the module keeps has become part of a graph: put the stack "
            "together in a new one, at every call",
        ) from None


def _saved(theirs, module, stack, ids, rng):
    """What is saved and loaded elsewhere gives the same stack."""
    another = tensor(rng, *stack.shape, dtype=torch.float32)
    given = another.clone()
    other = call(theirs, given, list(ids))
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
    if not torch.equal(given, another):
        raise NotYet("loading wrote into the stack that was given", SHARED)


def _on_its_own(module, given):
    """What happens to the tensor that was given is not seen by the module."""
    before = _forward(module).detach().clone()
    given.add_(1)
    if not torch.equal(_forward(module), before):
        raise NotYet(
            "the stack that was given changed afterwards, and `forward` with it", SHARED
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
