"""The ladder of equalities: each rung equals the one below, or the cell fails."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deepseek_mini.lesson import plots
from deepseek_mini.lesson.display import publish_png

_FLOOR = 1e-18  # where an error of exactly 0 is drawn on the log axis


@dataclass(frozen=True)
class _Rung:
    name: str
    error: float  # NaN when the two could not be compared
    bound: float
    trouble: str  # "" when the rung holds


def ladder(title: str, rungs: Sequence[tuple[str, object, object, float]]) -> None:
    """Assert that values are equal within bounds, print the verdicts, draw the errors.

    rungs: tuples (name, got, want, bound) of tensors, arrays or numbers. The error is
        max|got - want| / max(1, max|want|), computed in float64, and must not exceed
        the bound; a bound of 0 asks for equality to the last bit.

    Printed are the bounds and verdicts. The measured errors differ from one CPU to
    the next in their second digit, so they are drawn, not printed.
    Raises AssertionError naming the first rung that fails: too large an error, another
    shape, a NaN, an infinity. Raises ValueError for no rungs or a negative bound.
    """
    results = [_climb(*rung) for rung in rungs]
    if not results:
        raise ValueError(f"the ladder {title!r} has no rungs, so it proves nothing")
    width = max(len(r.name) for r in results)
    print(title)
    for r in results:
        bound = f"error <= {r.bound:.0e}" if r.bound else "exactly equal "
        print(f"  {r.name:<{width}}  {bound}  {'FAILS' if r.trouble else 'holds'}")
    _draw(title, results)
    for r in results:
        if r.trouble:
            raise AssertionError(f"rung {r.name!r} fails: {r.trouble}")


def error(got: object, want: object) -> float:
    """max|got - want| / max(1, max|want|) in float64; the shapes must be the same."""
    got, want = _array(got), _array(want)
    return float(np.abs(got - want).max() / max(1.0, np.abs(want).max()))


def _array(value: object) -> np.ndarray:
    """Tensors (bfloat16 too), arrays and numbers as float64 or complex128 arrays."""
    if hasattr(value, "detach"):
        import torch

        value = value.detach().cpu()
        wide = torch.complex128 if value.is_complex() else torch.float64
        value = value.to(wide).numpy()
    array = np.asarray(value)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _climb(name: str, got: object, want: object, bound: float) -> _Rung:
    if not bound >= 0:
        raise ValueError(f"rung {name!r} has the bound {bound}; it must be 0 or more")
    a, b = _array(got), _array(want)
    if a.shape != b.shape:
        trouble = f"the shape is {a.shape}, but it should be {b.shape}"
    elif a.size == 0:
        trouble = f"both are empty (shape {a.shape}), which proves nothing"
    elif not (np.isfinite(a).all() and np.isfinite(b).all()):
        side = "the value" if np.isfinite(b).all() else "the expected value"
        trouble = f"{side} holds NaN or infinity"
    else:
        e = error(a, b)
        over = f"the error is {e:.1e}, more than the bound {bound:.0e}"
        return _Rung(name, e, bound, over if e > bound else "")
    return _Rung(name, float("nan"), bound, trouble)


def _draw(title: str, results: list[_Rung]) -> None:
    """A row for every rung: its bound as a bar's end, its error as a dot."""
    import matplotlib

    with matplotlib.rc_context(plots._style()):
        fig = plots.new_figure((7.0, 1.1 + 0.36 * len(results)))
        ax = fig.subplots()
        rows = range(len(results))
        for row, r in zip(rows, results):
            ok, bad = plots.PALETTE[0], plots.PALETTE[1]
            ax.barh(row, max(r.bound, _FLOOR), 0.5, color="#E3EDF4", zorder=1)
            ax.plot([max(r.bound, _FLOOR)] * 2, [row - 0.3, row + 0.3], "k-", lw=2)
            if r.error == r.error:
                dot = max(r.error, _FLOOR)
                ax.plot(
                    dot,
                    row,
                    "X" if r.trouble else "o",
                    color=bad if r.trouble else ok,
                    markersize=8,
                    zorder=3,
                )
                if r.error == 0:
                    ax.text(dot * 2.5, row, "exact", va="center", color=ok)
            else:
                ax.text(_FLOOR * 2.5, row, "not comparable", va="center", color=bad)
        ax.set_yticks(rows, [r.name for r in results])
        ax.invert_yaxis()
        ax.set_xscale("log")
        widest = max(
            [r.bound for r in results]
            + [r.error for r in results if r.error == r.error]
        )
        ax.set_xlim(_FLOOR / 3, max(widest * 10, 1e-3))
        ax.grid(axis="y", visible=False)
        ax.set_xlabel("error (dot) and bound (bar's end)")
        ax.set_title(title, loc="left")
        png = plots.figure_png(fig)
    names = "; ".join(f"{r.name} {'fails' if r.trouble else 'holds'}" for r in results)
    alt = f"{title}: the error of each rung against its bound, on a log axis. {names}."
    publish_png(png, alt, words=False)
