"""Lesson 14, DeepSeek-V3: the oracles count matrix by matrix and block by block.

14.3 is in `layer_tensors.py`, 14.4 in `v3_layer.py`.
"""

import math

from deepseek_mini.config import MLA, MTP, Config, MoE, SwiGLU
from deepseek_mini.count import count
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake
from deepseek_mini.lesson.oracles.layer_tensors import TENSORS
from deepseek_mini.lesson.oracles.v3_layer import LAYER

LESSON = "14_deepseek_v3"

# --- 14.1 -------------------------------------------------------------------------


def met_by_a_token(config, total):
    """The oracle: takes one idle matrix after the other away."""
    return _met(config, total)


def _met(config, total, *, layers=None, idle=None, width=None, matrices=3, tables=1):
    """The oracle's work; keywords make the known mistakes."""
    moe = config.moe
    layers = range(config.n_dense_layers, config.n_layers) if layers is None else layers
    idle = moe.n_routed_experts - moe.n_activated_experts if idle is None else idle
    width = moe.inter_dim if width is None else width
    for _ in layers:
        for _ in range(matrices):
            total -= idle * config.dim * width
    return total - tables * config.vocab_size * config.dim


def _meeting(**mistake):
    """Each keyword is a number, or a function of the config that gives it."""

    def wrong(config, total):
        values = {k: v(config) if callable(v) else v for k, v in mistake.items()}
        return _met(config, total, **values)

    return wrong


def _chosen_taken_away(config, total):
    return _met(config, total, idle=config.moe.n_activated_experts)


def _gates_too(config, total):
    rows = config.moe.n_routed_experts - config.moe.n_activated_experts
    sparse = config.n_layers - config.n_dense_layers
    return _met(config, total) - sparse * rows * config.dim


def met_cases(rng):
    for dense, shared, label in (
        (1, 1, "one dense layer"),
        (3, 2, "three dense layers, two shared experts"),
        (2, 1, "a wide dense network"),
    ):
        config = Config(
            vocab_size=int(rng.integers(90, 900)),
            dim=int(rng.integers(30, 200)),
            n_layers=dense + int(rng.integers(3, 9)),
            max_seq_len=64,
            attention=MLA(2, 9, 8, 4, 2, 5),
            dense=SwiGLU(int(rng.integers(300, 900))),
            moe=MoE(
                n_routed_experts=int(rng.integers(12, 40)),
                n_shared_experts=shared,
                n_activated_experts=int(rng.integers(3, 6)),
                inter_dim=int(rng.integers(20, 50)),
                score="sigmoid",
                bias=True,
                norm_topk=True,
            ),
            n_dense_layers=dense,
            mtp=MTP(1),
        )
        yield Case((config, count(config).parameters), label)


MET = Exercise(
    id="14.1",
    title="What a token meets",
    signature="met_by_a_token(config, total)",
    difficulty="one line",
    minutes=8,
    right=met_by_a_token,
    cases=met_cases,
    mistakes=(
        Mistake(
            "every layer was counted as sparse: the first n_dense_layers are not",
            gives=_meeting(layers=lambda c: range(c.n_layers)),
        ),
        Mistake(
            "one layer was counted: all sparse layers have experts",
            gives=_meeting(layers=range(1)),
        ),
        Mistake(
            "the experts that a token chooses were taken away: the others should be",
            gives=_chosen_taken_away,
        ),
        Mistake(
            "all routed experts were taken away: a token meets those that it chooses",
            gives=_meeting(idle=lambda c: c.moe.n_routed_experts),
        ),
        Mistake(
            "shared experts were taken away: every token meets them",
            gives=_meeting(
                idle=lambda c: (
                    c.moe.n_routed_experts
                    + c.moe.n_shared_experts
                    - c.moe.n_activated_experts
                )
            ),
        ),
        Mistake(
            "shared experts were counted among those that a token chooses: they come "
            "on top of them",
            gives=_meeting(
                idle=lambda c: (
                    c.moe.n_routed_experts
                    - c.moe.n_shared_experts
                    - c.moe.n_activated_experts
                )
            ),
        ),
        Mistake("an expert has three matrices, not one", gives=_meeting(matrices=1)),
        Mistake("an expert has three matrices, not two", gives=_meeting(matrices=2)),
        Mistake(
            "the width of the dense network was used: an expert's is moe.inter_dim",
            gives=_meeting(width=lambda c: c.dense.inter_dim),
        ),
        Mistake(
            "the embedding is still in it: here it does not count",
            gives=_meeting(tables=0),
        ),
        Mistake(
            "embedding and head were both taken away: the head counts",
            gives=_meeting(tables=2),
        ),
        Mistake(
            "rows of the gate were taken away: a token is compared with every expert",
            gives=_gates_too,
        ),
        Mistake(
            "this is what a token does not meet: take it away from total",
            gives=lambda config, total: total - _met(config, total),
        ),
    ),
    hint="print how many layers are sparse, how many experts of one are idle, and how "
    "many numbers an expert has, and compare each with the example for V3",
)

# --- 14.2 -------------------------------------------------------------------------


def folder_bytes(shapes, in_fp8):
    """The oracle: walks over the corners of the blocks."""
    return _bytes(shapes, in_fp8)


def _bytes(shapes, in_fp8, *, blocks=None, scale=4, other=2, one=1):
    """The oracle's work; keywords make the known mistakes."""
    total = 0
    for name, shape in shapes.items():
        numbers = math.prod(shape)
        if name not in in_fp8:
            total += other * numbers
            continue
        corners = [
            (i, j) for i in range(0, shape[0], 128) for j in range(0, shape[1], 128)
        ]
        count = len(corners) if blocks is None else blocks(*shape)
        total += one * numbers + scale * count
    return total


def _storing(**mistake):
    return lambda shapes, in_fp8: _bytes(shapes, in_fp8, **mistake)


def _every_matrix(shapes, in_fp8):
    return _bytes(shapes, {name for name, shape in shapes.items() if len(shape) == 2})


def _in_a_row(rows, columns):
    return math.ceil(rows * columns / 128**2)


def folder_cases(rng):
    def side():  # so large a rest that no two mistakes cut it into as many blocks
        return int(rng.integers(4, 6)) * 128 + int(rng.integers(90, 110))

    whole = (256, 640)
    yield Case(({"a": whole}, {"a"}), "whole blocks")
    yield Case(({"a": (side(), side())}, {"a"}), "ragged edges")
    yield Case(({"a": (side(), 256)}, {"a"}), "a ragged bottom")
    yield Case(({"b": (50, 70), "c": (40,)}, set()), "nothing in FP8")
    shapes = {f"{n}.weight": (side(), side()) for n in ("q", "gate", "w1", "eh")}
    shapes |= {"q.norm": (side(),), "small": (3, 5), "gate.bias": (side(),)}
    yield Case((shapes, {"q.weight", "w1.weight", "small"}), "a folder of seven")


FOLDER = Exercise(
    id="14.2",
    title="The bytes of an FP8 folder",
    signature="folder_bytes(shapes, in_fp8)",
    difficulty="a few lines",
    minutes=12,
    right=folder_bytes,
    cases=folder_cases,
    mistakes=(
        Mistake(
            "blocks that are left over at the edges have a scale, too",
            gives=_storing(blocks=lambda r, c: (r // 128) * (c // 128)),
        ),
        Mistake(
            "only one of the two edges was cut into smaller blocks",
            gives=_storing(blocks=lambda r, c: math.ceil(r / 128) * (c // 128)),
        ),
        Mistake(
            "only one of the two edges was cut into smaller blocks",
            gives=_storing(blocks=lambda r, c: (r // 128) * math.ceil(c / 128)),
        ),
        Mistake(
            "a whole block too many where a side is a multiple of 128",
            gives=_storing(blocks=lambda r, c: (r // 128 + 1) * (c // 128 + 1)),
        ),
        Mistake(
            "the numbers were divided by those of a block: blocks have two sides, and "
            "each side is cut by itself",
            gives=_storing(blocks=_in_a_row),
        ),
        Mistake(
            "the numbers were divided by those of a block: blocks have two sides, and "
            "each side is cut by itself",
            gives=_storing(blocks=lambda r, c: r * c // 128**2),
        ),
        Mistake(
            "a scale for each row of a block: here 128 rows share one",
            gives=_storing(blocks=lambda r, c: r * math.ceil(c / 128)),
        ),
        Mistake(
            "one scale for each matrix: it has one for each block",
            gives=_storing(blocks=lambda r, c: 1),
        ),
        Mistake("the scales are missing", gives=_storing(scale=0)),
        Mistake("a scale is a float32: four bytes", gives=_storing(scale=1)),
        Mistake("a scale is a float32: four bytes", gives=_storing(scale=2)),
        Mistake("a number in FP8 has one byte", gives=_storing(one=2)),
        Mistake("what is not in FP8 takes two bytes a number", gives=_storing(other=1)),
        Mistake("what is not in FP8 takes two bytes a number", gives=_storing(other=4)),
        Mistake(
            "tensors that are not in FP8 are missing: the folder has them too",
            gives=_storing(other=0),
        ),
        Mistake(
            "every matrix was counted as FP8: only the names in in_fp8 are",
            gives=_every_matrix,
        ),
        Mistake(
            "a tensor of one axis has no second side: is it in in_fp8 at all?",
            raises="IndexError|not enough values to unpack",
        ),
    ),
    hint="take the example's two tensors one by one: print numbers, blocks along each "
    "side, and bytes",
)

EXERCISES = (MET, FOLDER, TENSORS, LAYER)
