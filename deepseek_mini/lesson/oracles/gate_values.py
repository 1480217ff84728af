"""The values of exercise 11.5: what the gate gives, and what its update does.

They are judged as exercises of their own, with the known mistakes of 11.1 and 11.2.
"""

import numpy as np
import torch

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake
from deepseek_mini.lesson.oracles.bias_update import BIAS, bias_cases, moved_bias
from deepseek_mini.lesson.oracles.biased_gate import GATE, biased_gate

TOLERANCE = 1e-5


def fill(gate, weight, bias):
    with torch.no_grad():
        gate.weight.copy_(weight)
        gate.bias.copy_(bias)


def weights_of(theirs):
    def forward(x, weight, bias, K, route_scale):
        gate = theirs(x.shape[1], len(bias), K, route_scale)
        fill(gate, weight, bias)
        out = gate(x)
        return out.detach() if isinstance(out, torch.Tensor) else out

    return forward


def update_of(theirs):
    def update(bias, load, speed):
        gate = theirs(2, len(bias), 1, 1.0)
        with torch.no_grad():
            gate.bias.copy_(bias)
        try:
            gate.update(load, speed)
        except NotImplementedError:
            return bias.detach().clone()
        return gate.bias.detach().clone()

    return update


def _gated(gate=biased_gate, score=torch.sigmoid):
    """A gate of 11.2, in NumPy, on the scores of tokens."""

    def of(x, weight, bias, K, route_scale):
        scores = score(x.double() @ weight.double().T)
        out = gate(scores.numpy(), bias.double().numpy(), K, route_scale)
        return torch.from_numpy(out).to(x.dtype)

    return of


def _bias_in_sigmoid(x, weight, bias, K, route_scale):
    scores = torch.sigmoid(x.double() @ weight.double().T + bias)
    out = biased_gate(scores.numpy(), np.zeros(len(bias)), K, route_scale)
    return torch.from_numpy(out).to(x.dtype)


def _chosen_in_sigmoid(x, weight, bias, K, route_scale):
    products = (x.double() @ weight.double().T).numpy()

    def rank(s, b):
        return np.log(s / (1 - s)) + b

    scores = 1 / (1 + np.exp(-products))
    out = biased_gate(scores, bias.double().numpy(), K, route_scale, rank=rank)
    return torch.from_numpy(out).to(x.dtype)


def gate_cases(rng):
    for N, D, E, K in ((9, 4, 6, 2), (1, 5, 4, 1), (8, 3, 9, 4)):
        x = torch.from_numpy(rng.standard_normal((N, D))).float()
        weight = torch.from_numpy(rng.standard_normal((E, D)) * 0.8).float()
        bias = torch.from_numpy(rng.permutation(np.linspace(-0.5, 0.6, E))).float()
        scale = float(rng.choice((1.5, 2.5, 3.5)))
        said = f"x [{N}, {D}], weight [{E}, {D}], K = {K}"
        yield Case((x, weight, bias, K, scale), said, TOLERANCE)


def _moves(rng):
    for case in bias_cases(rng):
        bias, load, speed = case.args
        bias = torch.from_numpy(bias).float()
        yield Case((bias, torch.from_numpy(load), speed), case.label, TOLERANCE)


def _moved(move):
    def of(bias, load, speed):
        new = move(bias.double().numpy(), load.numpy(), speed)
        return torch.from_numpy(new).to(bias.dtype)

    return of


_SIGMOID = "the bias is added to the scores, after the sigmoid, not to the products"

WEIGHTS = Exercise(
    id="11.5",
    title="",
    signature="forward(x, weight, bias, K, route_scale)",
    difficulty="",
    minutes=15,
    right=_gated(),
    cases=gate_cases,
    mistakes=(
        *(Mistake(m.hint, gives=_gated(m.gives)) for m in GATE.mistakes if m.gives),
        Mistake(_SIGMOID, gives=_bias_in_sigmoid),
        Mistake(_SIGMOID, gives=_chosen_in_sigmoid),
        Mistake(
            "the scores are sigmoids, each for itself: no softmax",
            gives=_gated(score=lambda z: z.softmax(-1)),
        ),
        Mistake("the sigmoid is missing", gives=_gated(score=lambda z: z)),
        Mistake(
            "only the K weights of the chosen: put them in a row of E, at the places "
            "of their experts",
            when=lambda got, want, args: (
                np.shape(got) == (len(args[0]), args[3]) != np.shape(want)
            ),
        ),
    ),
    hint=GATE.hint,
)

UPDATE = Exercise(
    id="11.5",
    title="",
    signature="update(bias, load, speed)",
    difficulty="",
    minutes=15,
    right=_moved(moved_bias),
    cases=_moves,
    mistakes=(
        *(Mistake(m.hint, gives=_moved(m.gives)) for m in BIAS.mistakes if m.gives),
        Mistake(
            "`update` leaves the module's bias as it was: that one should move",
            gives=lambda bias, load, speed: bias,
        ),
        Mistake(
            "the load counts tokens, in int64, and torch takes means of floats alone",
            raises="could not infer output dtype",
        ),
        Mistake(
            "no tensor can take a parameter's place: its values can change in place",
            raises="cannot assign .* as parameter",
        ),
    ),
    hint=BIAS.hint,
    exact_dtype=False,
)
