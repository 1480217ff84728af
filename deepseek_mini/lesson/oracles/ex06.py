"""Lesson 06, pretraining: the oracles loop number by number, in Python's floats.

None of them uses the package's loss, optimiser, schedules or counting. Exercises 06.3
to 06.5 are in adamw_step, batch_pieces and power_law.
"""

import math

import numpy as np

from deepseek_mini.config import GQA, Config, SwiGLU
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, array
from deepseek_mini.lesson.oracles.adamw_step import ADAMW
from deepseek_mini.lesson.oracles.batch_pieces import GATHER
from deepseek_mini.lesson.oracles.power_law import LAW
from deepseek_mini.lesson.oracles.several import in_one_array

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


def _ratios_averaged(marks):
    """The mean of each token's own ratio, with the infinite ones of marks or not."""

    def wrong(losses, targets, byte_lengths):
        lengths = byte_lengths[targets]
        kept = np.ones_like(targets, dtype=bool) if marks else lengths > 0
        with np.errstate(divide="ignore"):
            return float(np.mean(losses[kept] / math.log(2) / lengths[kept]))

    return wrong


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
        *(
            Mistake(
                "a mean of ratios: a long token weighs more than a short one. Add up "
                "the bits, add up the bytes, and divide once",
                gives=gives,
            )
            for gives in (
                _bits(mean_of_ratios=True),
                _ratios_averaged(marks=True),
                _ratios_averaged(marks=False),
            )
        ),
        Mistake(
            "the bytes of the whole vocabulary were added up, each entry once; what "
            "counts is the bytes of the tokens that were asked for",
            gives=lambda losses, targets, byte_lengths: (
                float(losses.sum()) / math.log(2) / float(byte_lengths.sum())
            ),
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


def _of_M(*places):
    """The outputs in these places are computed from M in place of C."""

    def wrong(config, n_tokens):
        of_C, of_M = plan(config, n_tokens), plan(config, 1)
        return tuple((of_M if i in places else of_C)[i] for i in range(3))

    return wrong


def _batch(change):
    """The right plan with a batch of `change(batch, length)` sequences."""

    def wrong(config, n_tokens):
        C, peak, batch = plan(config, n_tokens)
        return C, peak, change(batch, config.max_seq_len)

    return wrong


def _six(config, n_tokens):
    return plan(config, 6 * n_tokens)


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
        *(
            Mistake("the laws are of C, not of M", gives=_of_M(*places))
            for places in ((1, 2), (1,), (2,))
        ),
        *(
            Mistake(
                "the batch is a number of whole sequences here; it is to stay as the "
                "formula gives it",
                gives=_batch(lambda batch, length, rule=rule: rule(batch)),
            )
            for rule in (round, math.floor, math.ceil)
        ),
        Mistake(
            "there are more sequences than tokens here, but each sequence holds "
            "several tokens",
            gives=_batch(lambda batch, length: batch * length**2),
        ),
        Mistake(
            "the 6 of the rule C = 6ND is in M already: 72 is 6 times 12",
            gives=_six,
        ),
        in_one_array("C, rate, batch"),
        Mistake(
            "the first number is M; C is M times the tokens",
            gives=lambda c, n: (plan(c, n)[0] / n, *plan(c, n)[1:]),
        ),
        Mistake(
            "rate and batch have changed places",
            gives=lambda c, n: tuple(plan(c, n)[i] for i in (0, 2, 1)),
        ),
    ),
    hint="output 0 is C, 1 the learning rate, 2 the batch: compute the first that is "
    "off on paper for the example, part by part",
)

EXERCISES = (BITS, PLAN, ADAMW, GATHER, LAW)
