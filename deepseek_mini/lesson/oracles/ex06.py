"""Lesson 06, pretraining: the oracles loop number by number, in Python's floats.

None of them uses the package's loss, optimiser, schedules or counting.
"""

import math

import numpy as np

from deepseek_mini.config import GQA, Config, SwiGLU
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, array

LESSON = "06_pretraining"

# --- 06.1 -------------------------------------------------------------------------


def bits_per_byte(losses, targets, byte_lengths, *, base=2.0, **mistake):
    """The oracle: token by token; keywords make known mistakes."""
    bits, n_bytes, ratios = 0.0, 0, []
    for loss, target in zip(losses.flat, targets.flat):
        length = int(byte_lengths[target])
        if mistake.get("without_marks") and not length:
            continue
        bits += float(loss) / math.log(base)
        n_bytes += length
        ratios.append(float(loss) / math.log(2) / max(1, length))
    if mistake.get("mean_of_ratios"):
        return sum(ratios) / len(ratios)
    if mistake.get("a_token"):
        return bits / losses.size
    if mistake.get("vocabulary"):
        return bits / losses.size / float(np.mean(byte_lengths))
    return bits / n_bytes


def _bits(**mistake):
    return lambda *args: bits_per_byte(*args, **mistake)


def _rows_averaged(losses, targets, byte_lengths):
    rows = [bits_per_byte(losses[i : i + 1], targets[i : i + 1], byte_lengths)
            for i in range(len(losses))]  # fmt: skip
    return sum(rows) / len(rows)


def bits_cases(rng):
    for B, T, V, strided, label in (
        (3, 5, 12, False, ""),
        (1, 1, 7, False, "a single token"),
        (4, 7, 30, True, "arrays that are not contiguous"),
    ):
        lengths = rng.integers(1, 9, size=V)
        lengths[:2] = 0
        targets = rng.integers(V, size=(B, T))
        targets.flat[0], targets.flat[-1] = (0, 2) if B > 1 else (2, 2)
        losses = np.abs(array(rng, B, T, strided=strided)) + 0.1
        yield Case((losses, targets, lengths), label)


BITS = Exercise(
    id="06.1",
    title="Bits per byte",
    signature="bits_per_byte(losses, targets, byte_lengths)",
    difficulty="a few lines",
    minutes=6,
    right=bits_per_byte,
    cases=bits_cases,
    exact_dtype=False,
    mistakes=(
        Mistake(
            "these are nats per byte; a bit is ln 2 nats", gives=_bits(base=math.e)
        ),
        Mistake(
            "the nats were multiplied by ln 2; a bit is ln 2 nats, so there are more "
            "bits than nats",
            gives=lambda *args: bits_per_byte(*args) * math.log(2) ** 2,
        ),
        Mistake("log 10 is not the logarithm of a bit", gives=_bits(base=10)),
        Mistake("these are bits per token", gives=_bits(a_token=True)),
        Mistake(
            "a mean of ratios: a long token weighs more than a short one. Add up the "
            "bits, add up the bytes, and divide once",
            gives=_bits(mean_of_ratios=True),
        ),
        Mistake(
            "a mean of row means: the rows do not hold equally many bytes",
            gives=_rows_averaged,
        ),
        Mistake(
            "the mean length of the vocabulary's entries is not that of the text's "
            "tokens: frequent tokens are short",
            gives=_bits(vocabulary=True),
        ),
        Mistake(
            "a mark such as the end of a text stands for no byte, but its loss counts",
            gives=_bits(without_marks=True),
        ),
        Mistake(
            "bytes per bit: turn the ratio over",
            gives=lambda *args: 1 / bits_per_byte(*args),
        ),
    ),
    hint="print the sum of the bits and the sum of the bytes, and count both by hand "
    "for the example",
)

# --- 06.2 -------------------------------------------------------------------------


def plan(config, n_tokens, *, block=72, over_text=12, layers=True, **mistake):
    """The oracle: operations a layer, summed over the layers."""
    d, length, M = config.dim, config.max_seq_len, 0
    for _ in range(config.n_layers):
        M += block * d * d
        M += over_text * d * length if layers else 0
    M += 0 if layers else over_text * d * length
    if mistake.get("inference"):
        M //= 3
    C = float(M) * n_tokens
    peak = 0.3118 * math.exp(mistake.get("sign", -1) * 0.1250 * math.log(C))
    batch = 0.2920 * math.exp(0.3271 * math.log(C))
    return C, peak, batch / (1 if mistake.get("in_tokens") else length)


def _planned(**mistake):
    return lambda *args: plan(*args, **mistake)


def _of_M(config, n_tokens):
    C = plan(config, n_tokens)[0]
    return C, *plan(config, 1)[1:]


def plan_cases(rng):
    for label in ("", "short texts", "a wide model"):
        heads = int(rng.integers(3, 9)) * (16 if label == "a wide model" else 1)
        config = Config(
            vocab_size=int(rng.integers(50, 500)),
            dim=heads * 16,
            n_layers=int(rng.integers(3, 9)),
            max_seq_len=int(rng.integers(5, 40)) * (1 if label else 64),
            attention=GQA(heads, heads, 16),
            dense=SwiGLU(int(rng.integers(20, 200))),
        )
        yield Case((config, int(rng.integers(10**6, 10**9))), label, tolerance=1e-7)


PLAN = Exercise(
    id="06.2",
    title="The plan of a training",
    signature="plan(config, n_tokens)",
    difficulty="a few lines",
    minutes=8,
    right=plan,
    cases=plan_cases,
    exact_dtype=False,
    mistakes=(
        Mistake(
            "attention over the text is missing from M: 12 n d l",
            gives=_planned(over_text=0),
        ),
        Mistake(
            "attention over the text happens in every layer",
            gives=_planned(layers=False),
        ),
        Mistake(
            "this batch is in tokens; sequences are asked for",
            gives=_planned(in_tokens=True),
        ),
        Mistake(
            "the learning rate rises with the compute here: its exponent is negative",
            gives=_planned(sign=1),
        ),
        Mistake(
            "M counts training: the backward pass costs twice the forward pass",
            gives=_planned(inference=True),
        ),
        Mistake("the laws are of C, not of M", gives=_of_M),
        Mistake(
            "the first number is M; C is M times the tokens",
            gives=lambda c, n: (plan(c, n)[0] / n, *plan(c, n)[1:]),
        ),
        Mistake(
            "rate and batch have changed places",
            gives=lambda c, n: tuple(plan(c, n)[i] for i in (0, 2, 1)),
        ),
    ),
    hint="print M, and compare 72 n d² and 12 n d l each with a calculation on paper",
)

# --- 06.3 -------------------------------------------------------------------------


def adamw(
    w, grad, m, v, step, lr, beta1, beta2, eps, decay, *, late=0, correct=(True, True),
    coupled=False, **mistake
):  # fmt: skip
    """The oracle: one number at a time."""
    new = [np.empty_like(w) for _ in range(3)]
    for i in np.ndindex(*w.shape):
        g = grad[i] + (decay * w[i] if coupled else 0)
        mean = beta1 * m[i] + (1 - beta1) * g
        square = beta2 * v[i] + (1 - beta2) * g * g
        up = mean / (1 - beta1 ** (step + late) if correct[0] else 1)
        down = square / (1 - beta2 ** (step + late) if correct[1] else 1)
        if mistake.get("eps_inside"):
            move = up / math.sqrt(down + eps)
        else:
            move = up / (math.sqrt(down) + eps)
        shrink = 0 if coupled else decay * (1 if mistake.get("rate_free") else lr)
        if mistake.get("no_decay"):
            shrink = 0
        start = w[i] * (1 - shrink)
        if mistake.get("decay_last"):
            values = ((w[i] - lr * move) * (1 - shrink), mean, square)
        elif mistake.get("keeps_corrected"):
            values = (start - lr * move, up, down)
        else:
            values = (start - lr * move, mean, square)
        for array_, value in zip(new, values):
            array_[i] = value
    return tuple(new)


def _stepping(**mistake):
    return lambda *args: adamw(*args, **mistake)


def adamw_cases(rng):
    for shape, step, strided, label in (
        ((3, 4), 1, False, "the first step"),
        ((5,), 7, False, "the seventh step, one axis"),
        ((2, 3, 4), 200, True, "arrays that are not contiguous"),
    ):
        w, grad, m = (array(rng, *shape, strided=strided) for _ in range(3))
        v = np.square(array(rng, *shape)) + 0.01
        if step == 1:
            m, v = np.zeros(shape), np.zeros(shape)
        rates = (float(rng.uniform(0.05, 0.2)), 0.8, float(rng.uniform(0.9, 0.97)))
        yield Case((w, grad, m, v, step, *rates, 0.02, 0.3), label)


ADAMW = Exercise(
    id="06.3",
    title="One step of AdamW",
    signature="adamw(w, grad, m, v, step, lr, beta1, beta2, eps, decay)",
    difficulty="from the paper",
    minutes=12,
    right=adamw,
    cases=adamw_cases,
    mistakes=(
        Mistake(
            "the decay went into the gradient, where Adam divides it away again; that "
            "is Adam with an L2 penalty, and not AdamW",
            gives=_stepping(coupled=True),
        ),
        Mistake(
            "m and v are not corrected: they start at 0, and are too small at first",
            gives=_stepping(correct=(False, False)),
        ),
        Mistake(
            "only m is corrected; v starts at 0 as well",
            gives=_stepping(correct=(True, False)),
        ),
        Mistake(
            "only v is corrected; m starts at 0 too",
            gives=_stepping(correct=(False, True)),
        ),
        Mistake(
            "the corrected m and v were kept; the next step needs those that are not",
            gives=_stepping(keeps_corrected=True),
        ),
        Mistake("eps stands outside the square root", gives=_stepping(eps_inside=True)),
        Mistake(
            "the correction is one step ahead: the first step is number 1",
            gives=_stepping(late=1),
        ),
        Mistake(
            "the decay is multiplied by the learning rate, too",
            gives=_stepping(rate_free=True),
        ),
        Mistake("the decay is missing", gives=_stepping(no_decay=True)),
        Mistake(
            "the decay shrinks the weights from before the step, not those after it",
            gives=_stepping(decay_last=True),
        ),
    ),
    hint="set decay to 0 and step to 1: then w should move by lr times the gradient's "
    "sign, almost. Bring the decay back when that holds",
)

# --- 06.4 -------------------------------------------------------------------------


def gather(pieces, counts, max_norm, *, weigh=True, divide=True, clip="all"):
    """The oracle: every number's weighted mean, then one common factor."""
    total = sum(counts) if weigh else len(counts)
    mean = []
    for number in range(len(pieces[0])):
        value = np.zeros_like(pieces[0][number])
        for piece, count in zip(pieces, counts):
            value = value + piece[number] * (count if weigh else 1)
        mean.append(value / (total if divide else 1))
    squares = [float(np.sum(np.square(value))) for value in mean]
    norms = [math.sqrt(square) for square in squares]
    norm = sum(norms) if clip == "sum of norms" else math.sqrt(sum(squares))
    if clip == "each":
        return [g * min(1, max_norm / n) for g, n in zip(mean, norms)]
    if clip == "values":
        return [np.clip(g, -max_norm, max_norm) for g in mean]
    if clip == "always":
        return [g * (max_norm / norm) for g in mean]
    factor = 1.0 if clip == "none" else min(1.0, max_norm / norm)
    return [g * factor for g in mean]


def _gathering(**mistake):
    return lambda *args: gather(*args, **mistake)


def _clipped_first(pieces, counts, max_norm):
    clipped = [gather([piece], [1], max_norm) for piece in pieces]
    return gather(clipped, counts, max_norm)


def gather_cases(rng):
    for shapes, counts, factor, label in (
        (((3, 4), (5,)), (7, 2, 4), 0.5, "a gradient that is too long"),
        (((2, 3), (3,), (1,)), (1, 9), 30.0, "a gradient that is short enough"),
        (((4,),), (6,), 0.3, "one piece, one parameter"),
    ):
        scale = rng.uniform(0.5, 3, size=len(counts))
        pieces = [[s * array(rng, *shape) for shape in shapes] for s in scale]
        exact = gather(pieces, counts, math.inf)
        norm = math.sqrt(sum(float(np.square(g).sum()) for g in exact))
        yield Case((pieces, list(counts), factor * norm), label)


GATHER = Exercise(
    id="06.4",
    title="A large batch in pieces",
    signature="gather(pieces, counts, max_norm)",
    difficulty="some thought",
    minutes=12,
    right=gather,
    cases=gather_cases,
    mistakes=(
        Mistake(
            "a short gradient was made longer; only a long one changes",
            gives=_gathering(clip="always"),
        ),
        Mistake(
            "the pieces have equal weight; a piece with more tokens counts for more",
            gives=_gathering(weigh=False),
        ),
        Mistake(
            "this is the sum of the pieces' gradients; divide by what was counted",
            gives=_gathering(weigh=False, divide=False),
        ),
        Mistake(
            "the weights are the counts, but they must add up to 1",
            gives=_gathering(divide=False),
        ),
        Mistake(
            "each parameter was clipped by itself, which turns the gradient: the "
            "length is that of all parameters together",
            gives=_gathering(clip="each"),
        ),
        Mistake(
            "each number was clipped, which turns the gradient; here it is shortened",
            gives=_gathering(clip="values"),
        ),
        Mistake(
            "lengths do not add up: the squares of all numbers do",
            gives=_gathering(clip="sum of norms"),
        ),
        Mistake("nothing was clipped", gives=_gathering(clip="none")),
        Mistake(
            "the pieces were clipped before they were added up; what counts is the "
            "length of the whole gradient",
            gives=_clipped_first,
        ),
    ),
    hint="first let max_norm be infinite and compare the mean; then look at the length",
)

# --- 06.5 -------------------------------------------------------------------------


def power_law(x, y, *, freedom=2, root=True, **mistake):
    """The oracle: sums over pairs of points."""
    points = [(math.log(p), math.log(q)) for p, q in zip(x, y)]
    n = len(points)
    spread = sum((p - r) ** 2 for p, _ in points for r, _ in points) / (2 * n)
    together = sum((p - r) * (q - s) for p, q in points for r, s in points) / (2 * n)
    b = together / spread
    at_one = sum(q - b * p for p, q in points) / n
    rest = sum((q - at_one - b * p) ** 2 for p, q in points) / (n - freedom)
    variance = rest if mistake.get("of_residuals") else rest / spread
    return (
        at_one if mistake.get("log_a") else math.exp(at_one),
        b,
        math.sqrt(variance) if root else variance,
    )


def _fitting(**mistake):
    return lambda *args: power_law(*args, **mistake)


def _straight_line(x, y):
    """A line through the points as they are."""
    return power_law(np.exp(x), np.exp(y), log_a=True)


def law_cases(rng):
    for n, exponent, label in (
        (6, -0.3, ""),
        (3, 0.5, "three points"),
        (9, -0.05, "an exponent near 0"),
    ):
        x = np.exp(rng.uniform(-1, 1) + rng.permutation(n) * 0.7)
        noise = np.exp(0.05 * rng.standard_normal(n))
        yield Case((x, rng.uniform(2, 5) * x**exponent * noise), label, tolerance=1e-7)


LAW = Exercise(
    id="06.5",
    title="A power law and its uncertainty",
    signature="power_law(x, y)",
    difficulty="some thought",
    minutes=15,
    right=power_law,
    cases=law_cases,
    exact_dtype=False,
    mistakes=(
        Mistake(
            "this is a straight line through the points; a power law is one through "
            "their logarithms",
            gives=_straight_line,
        ),
        Mistake("a is e to the line's value at 0", gives=_fitting(log_a=True)),
        Mistake(
            "a was taken from a logarithm of another base",
            when=lambda got, want, _: any(
                np.allclose(got, (other, *want[1:]))
                for other in (10 ** math.log(want[0]), math.exp(math.log10(want[0])))
            ),
        ),
        Mistake(
            "two numbers were fitted, so n - 2 residuals are free, not n",
            gives=_fitting(freedom=0),
        ),
        Mistake(
            "two numbers were fitted, so n - 2 residuals are free, not n - 1",
            gives=_fitting(freedom=1),
        ),
        Mistake(
            "this is the variance of b; its square root is asked for",
            gives=_fitting(root=False),
        ),
        Mistake(
            "this is how far the points are from the line; b's error also depends on "
            "how far apart the points lie on the x axis",
            gives=_fitting(of_residuals=True),
        ),
        Mistake(
            "x and y have changed places",
            gives=lambda x, y: power_law(y, x),
        ),
        Mistake(
            "the exponent's sign is wrong: the law is a x^b, also when it falls",
            gives=lambda x, y: (
                power_law(x, y)[0],
                -power_law(x, y)[1],
                power_law(x, y)[2],
            ),
        ),
    ),
    hint="draw ln y over ln x with your line; then compare each of the three numbers "
    "with the example",
)

EXERCISES = (BITS, PLAN, ADAMW, GATHER, LAW)
