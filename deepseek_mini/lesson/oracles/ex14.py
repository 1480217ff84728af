"""Lesson 14, DeepSeek-V3: the oracles count matrix by matrix and block by block.

14.2 is in `fp8_slice.py`, 14.3 in `layer_tensors.py` and `layer_mistakes.py`, 14.4 in
`v3_layer.py`.
"""

from deepseek_mini.config import MLA, MTP, Config, MoE, SwiGLU
from deepseek_mini.count import count
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake
from deepseek_mini.lesson.oracles.fp8_slice import SLICE
from deepseek_mini.lesson.oracles.layer_mistakes import TENSORS
from deepseek_mini.lesson.oracles.v3_layer import LAYER

LESSON = "14_deepseek_v3"

# --- 14.1 -------------------------------------------------------------------------


def held_by_a_gpu(config, total, n_gpus, extra):
    """The oracle: takes one matrix after the other away."""
    return _held(config, total, n_gpus, extra)


def _held(config, total, n_gpus, extra, *, layers=None, held=None, **other):
    """The oracle's work; keywords make the known mistakes."""
    moe = config.moe
    if layers is None:
        layers = config.n_layers - config.n_dense_layers
    held = moe.n_routed_experts // n_gpus + extra if held is None else held
    elsewhere = other.get("elsewhere", moe.n_routed_experts - held)
    width = other.get("width", moe.inter_dim)
    for _ in range(layers * other.get("matrices", 3)):
        total -= elsewhere * config.dim * width
    return total


def _holding(**mistake):
    """Each keyword is a number, or a function of (config, n_gpus, extra)."""

    def wrong(config, total, n_gpus, extra):
        values = {
            k: v(config, n_gpus, extra) if callable(v) else v
            for k, v in mistake.items()
        }
        return _held(config, total, n_gpus, extra, **values)

    return wrong


def _networks(config, n):
    """The numbers of n experts in every sparse layer."""
    sparse = config.n_layers - config.n_dense_layers
    return 3 * n * sparse * config.dim * config.moe.inter_dim


def _all_divided(config, total, n_gpus, extra):
    return total // n_gpus + _networks(config, extra)


def _shared_divided(config, total, n_gpus, extra):
    shared = config.moe.n_shared_experts
    away = shared - shared // n_gpus
    return _held(config, total, n_gpus, extra) - _networks(config, away)


def _gates_too(config, total, n_gpus, extra):
    rows = config.moe.n_routed_experts * (n_gpus - 1) // n_gpus - extra
    sparse = config.n_layers - config.n_dense_layers
    return _held(config, total, n_gpus, extra) - sparse * rows * config.dim


def held_cases(rng):
    for dense, sparse, shared, n_gpus, extra, label in (
        (2, 11, 1, 4, 1, "two dense layers, one expert more"),
        (1, 7, 2, 8, 2, "eight GPUs, two shared experts"),
        (4, 5, 1, 5, 0, "a wide dense network, no expert more"),
    ):
        config = Config(
            vocab_size=int(rng.integers(90, 900)),
            dim=int(rng.integers(30, 200)),
            n_layers=dense + sparse,
            max_seq_len=64,
            attention=MLA(2, 9, 8, 4, 2, 5),
            dense=SwiGLU(int(rng.integers(300, 900))),
            moe=MoE(
                n_routed_experts=n_gpus * int(rng.integers(6, 12)),
                n_shared_experts=shared,
                n_activated_experts=5,
                inter_dim=int(rng.integers(20, 50)),
                score="sigmoid",
                bias=True,
                norm_topk=True,
            ),
            n_dense_layers=dense,
            mtp=MTP(1),
        )
        said = f"{label}: {dense} dense of {dense + sparse} layers, {n_gpus} GPUs"
        yield Case((config, count(config).parameters, n_gpus, extra), said)


HELD = Exercise(
    id="14.1",
    title="What a GPU holds",
    signature="held_by_a_gpu(config, total, n_gpus, extra)",
    difficulty="a few lines",
    minutes=8,
    right=held_by_a_gpu,
    cases=held_cases,
    mistakes=(
        Mistake(
            "every layer was counted as sparse: the first n_dense_layers are not",
            gives=_holding(layers=lambda c, n, x: c.n_layers),
        ),
        Mistake(
            "MTP modules were counted as layers: total has none of them",
            gives=_holding(layers=lambda c, n, x: c.n_layers - c.n_dense_layers + 1),
        ),
        Mistake(
            "three dense layers, as V3 has: here it is config.n_dense_layers",
            gives=_holding(layers=lambda c, n, x: c.n_layers - 3),
        ),
        Mistake(
            "58 sparse layers, as V3 has: here it is for the config to say",
            gives=_holding(layers=58),
        ),
        Mistake(
            "one layer was counted: all sparse layers have experts",
            gives=_holding(layers=1),
        ),
        Mistake(
            "the experts that the GPU holds were taken away: the others should be",
            gives=_holding(elsewhere=lambda c, n, x: c.moe.n_routed_experts // n + x),
        ),
        Mistake(
            "all routed experts were taken away: the GPU holds its share of them",
            gives=_holding(held=0),
        ),
        Mistake(
            "the `extra` experts are missing: every GPU holds so many more in each "
            "layer",
            gives=_holding(held=lambda c, n, x: c.moe.n_routed_experts // n),
        ),
        Mistake(
            "the `extra` experts were taken away: the GPU holds them, too",
            gives=_holding(held=lambda c, n, x: c.moe.n_routed_experts // n - x),
        ),
        Mistake(
            "the experts that a token chooses do not matter here: a GPU holds its "
            "share, whoever chooses them",
            gives=_holding(held=lambda c, n, x: c.moe.n_activated_experts),
        ),
        Mistake(
            "all of the model was divided by the number of GPUs: only the routed "
            "experts are shared out, the rest lies on every GPU",
            gives=_all_divided,
        ),
        Mistake(
            "shared experts were shared out: they lie on every GPU",
            gives=_shared_divided,
        ),
        Mistake("an expert has three matrices, not one", gives=_holding(matrices=1)),
        Mistake("an expert has three matrices, not two", gives=_holding(matrices=2)),
        Mistake(
            "the width of the dense network was used: an expert's is moe.inter_dim",
            gives=_holding(width=lambda c, n, x: c.dense.inter_dim),
        ),
        Mistake(
            "rows of the gate were taken away: every GPU scores all experts",
            gives=_gates_too,
        ),
        Mistake(
            "this is what the GPU does not hold: take it away from total",
            gives=lambda c, total, n, x: total - _held(c, total, n, x),
        ),
    ),
    hint="print how many layers are sparse, how many experts of one layer lie "
    "elsewhere, and how many numbers an expert has: for V3 the text has all three",
)

EXERCISES = (HELD, SLICE, TENSORS, LAYER)
