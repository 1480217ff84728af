"""One look for every figure: colours that survive colour blindness and grey print.

    with figure("What the figure shows, in a sentence.") as fig:
        ax = fig.subplots()
        ax.plot(x, y)

The figure is displayed as PNG with its alternative text when the block ends. The text
is compared by the notebook tests, so it says what is to be seen, not measured digits.
"""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deepseek_mini.lesson.display import publish_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, yellow left out (too pale on white), dark colours first, so
# that the first curves also differ in lightness. Line styles change with the colour.
PALETTE = (
    "#0072B2",  # blue
    "#D55E00",  # vermilion
    "#009E73",  # green
    "#CC79A7",  # purple
    "#E69F00",  # orange
    "#56B4E9",  # sky
    "#000000",  # black
)
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
SEQUENTIAL = "cividis"  # for heat maps: even in lightness, safe for all eyes
DIVERGING = "RdBu_r"

STYLE = {
    "figure.figsize": (7.0, 3.6),
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "savefig.dpi": 100,
    "savefig.facecolor": "white",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "image.cmap": SEQUENTIAL,
}


def _style() -> dict[str, object]:
    from cycler import cycler

    cycle = cycler(color=PALETTE) + cycler(linestyle=DASHES)
    return {**STYLE, "axes.prop_cycle": cycle}


def use_style() -> None:
    """Make the course's style matplotlib's default in this process."""
    import matplotlib

    matplotlib.rcParams.update(_style())


def new_figure(size: tuple[float, float] | None = None) -> "Figure":
    """A figure that belongs to nobody: pyplot does not know it, so no cell shows it."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=size or STYLE["figure.figsize"], layout="constrained")
    fig.get_layout_engine().set(w_pad=0.08, h_pad=0.06)  # inches of white around
    return fig


def figure_png(fig: "Figure") -> bytes:
    """The figure as PNG bytes, the same bytes each time."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(_style()):
        fig.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def show_figure(fig: "Figure", alt: str) -> None:
    """Display a matplotlib figure as PNG with alternative text `alt`.

    A figure made by pyplot is closed, so that the cell does not show it twice.
    Raises ValueError when `alt` is empty.
    """
    publish_png(figure_png(fig), alt)
    if getattr(fig, "number", None) is not None:
        import matplotlib.pyplot

        matplotlib.pyplot.close(fig)


@contextmanager
def figure(alt: str, size: tuple[float, float] | None = None) -> Iterator["Figure"]:
    """A fresh figure to draw on, displayed with alternative text when the block ends.

    alt: one or two sentences that carry what the picture carries.
    size: width and height in inches, 100 pixels each; (7, 3.6) when not given.
    """
    import matplotlib

    if not alt.strip():
        raise ValueError(
            "alt is empty, but every picture needs a sentence that says what it shows"
        )
    with matplotlib.rc_context(_style()):
        fig = new_figure(size)
        yield fig
    show_figure(fig, alt)


def label_lines(ax, labels: Sequence[str] | None = None) -> None:
    """Write each line's name at its right end, in its colour, in place of a legend.

    Names whose lines end close together are moved apart. Call it last, when the axes
    have their final limits and scales.
    """
    lines = [line for line in ax.get_lines() if len(line.get_xdata())]
    names = labels or [str(line.get_label()) for line in lines]
    ax.get_xlim(), ax.get_ylim()  # asking makes matplotlib settle the limits
    to_axes = ax.transData + ax.transAxes.inverted()
    ends = [(line.get_xdata()[-1], line.get_ydata()[-1]) for line in lines]
    heights = [float(to_axes.transform(end)[1]) for end in ends]
    apart = 1.3 * _line_height(ax)
    last = -math.inf
    for i in sorted(range(len(lines)), key=heights.__getitem__):
        last = max(heights[i], last + apart)
        ax.annotate(
            names[i],
            xy=(1.01, last),
            xycoords="axes fraction",
            color=lines[i].get_color(),
            va="center",
            annotation_clip=False,
        )


def _line_height(ax) -> float:
    """The height of a line of text as a fraction of the axes' height."""
    import matplotlib

    points = ax.get_window_extent().height / ax.get_figure().dpi * 72
    return matplotlib.rcParams["font.size"] / points


def draw_load(ax, loads: Sequence[Sequence[float]], first_step: int = 1):
    """A sparse layer's load over training as a heat map; returns the image.

    loads: a row a step, an entry an expert, such as
        ``[row["load"][layer] for row in result.history]``. Colour is load over mean:
        white is an even share, blue less, red twice as much or more. More than 120
        steps are drawn as means over windows.
    """
    import numpy

    share = numpy.asarray(loads, dtype=float)  # [steps, E]
    share = share / share.mean(axis=1, keepdims=True)
    windows = numpy.array_split(share, min(len(share), 120))
    picture = numpy.stack([window.mean(axis=0) for window in windows], axis=1)
    n_experts, last_step = len(picture), first_step + len(share) - 1
    image = ax.imshow(
        picture,
        aspect="auto",
        cmap=DIVERGING,
        vmin=0,
        vmax=2,
        extent=(first_step - 0.5, last_step + 0.5, n_experts - 0.5, -0.5),
        interpolation="nearest",
    )
    ax.grid(False)
    ax.set(xlabel="step", ylabel="expert")
    return image
