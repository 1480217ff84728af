"""The pictures and tables of lesson 00: the family, the ladder, the claims."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deepseek_mini.lesson.display import publish
from deepseek_mini.lesson.family import (
    CLAIMS,
    LANGUAGE,
    REASONING,
    VISION,
    Release,
)
from deepseek_mini.lesson.plots import PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Marker, colour and name in the legend of each kind of attention.
KINDS = {
    "MHA": ("o", PALETTE[0], "multi-head (MHA)"),
    "GQA": ("s", PALETTE[4], "grouped-query (GQA)"),
    "MLA": ("D", PALETTE[2], "latent (MLA)"),
    "DSA": ("^", PALETTE[3], "latent, sparse (MLA + DSA)"),
    "CSA": ("P", PALETTE[1], "window + compressed (CSA, HCA)"),
}
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun")
MONTHS += ("Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# Where a label stands, in points from its marker: right, up. Tuned by eye.
LABELS = {
    "Coder 1.3B": (8, -3), "Coder 6.7B": (8, -12), "Coder 33B": (8, -3),
    "LLM 7B": (8, 6), "LLM 67B": (8, -3), "MoE 16B": (8, -3),
    "Coder 7B v1.5": (8, -3), "V2": (-4, 9), "V2-Lite": (8, -3),
    "Coder-V2": (-4, -16), "V2.5": (8, -3), "V3": (-6, 9), "V3-0324": (-6, -16),
    "V3.1": (-22, 9), "V3.2-Exp": (-12, -16), "V3.2": (4, 9), "V4-Flash": (8, -3),
    "V4-Pro": (8, -3), "V4.1-Flash": (-28, -17),
}  # fmt: skip


def draw_timeline(fig: "Figure") -> None:
    """Language models by date and total parameters; the other lines below."""
    from matplotlib.ticker import FuncFormatter

    top, below = fig.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": [4.0, 1.9]}
    )
    for kind, (marker, colour, name) in KINDS.items():
        group = [r for r in LANGUAGE if r.attention == kind]
        top.plot(
            [_year(r) for r in group],
            [r.total for r in group],
            linestyle="none",
            marker=marker,
            color=colour,
            label=name,
            markersize=8,
        )
    for r in LANGUAGE:
        top.annotate(
            r.name,
            (_year(r), r.total),
            xytext=LABELS.get(r.name, (8, -3)),
            textcoords="offset points",
            fontsize=9,
        )
    top.set_yscale("log")
    top.set_ylim(0.8, 3200)
    top.yaxis.set_major_formatter(FuncFormatter(_billions))
    top.set_ylabel("total parameters")
    top.legend(loc="lower right", fontsize=9)
    _draw_lines(below)
    below.set_xlim(2023.75, 2027.05)
    below.set_xlabel("date of release")
    years = (2024, 2025, 2026, 2027)
    below.set_xticks(years, [str(y) for y in years])


def _draw_lines(ax) -> None:
    """Reasoning and vision releases as two rows of names, without sizes."""
    for releases, height in ((REASONING, 1.0), (VISION, 0.0)):
        last = [-1.0] * 4  # where the last name on each level ends
        for r in releases:
            name, x = SHORT.get(r.name, r.name), _year(r)
            if not name:
                continue
            level = next((i for i, end in enumerate(last) if x > end), 3)
            last[level] = x + 0.025 * len(name) + 0.06
            foot, head = height, height + 0.11 + 0.19 * level
            ax.plot([x, x], [foot, head + 0.14], "-", color="#999999", linewidth=0.8)
            white = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
            ax.text(x + 0.015, head, name, fontsize=8.5, bbox=white)
        ax.axhline(height, color="#999999", linewidth=0.8)
    ax.set_yticks([1.0, 0.0], ["reasoning\nand proof", "vision"])
    ax.set_ylim(-0.08, 1.85)
    ax.grid(axis="y", visible=False)


SHORT = {
    "DeepSeekMath 7B": "Math",
    "ESFT models": "ESFT",
    "R1-Zero, R1": "R1-Zero, R1, distilled",
    "R1-Distill Qwen 1.5B, 7B, 14B, 32B": "",
    "R1-Distill Llama 8B, 70B": "",
    "Prover V2 7B, 671B": "Prover V2",
    "DeepSeekMath-V2": "Math-V2",
    "VL 1.3B, 7B": "VL",
    "Janus 1.3B": "Janus",
    "JanusFlow 1.3B": "JanusFlow",
    "VL2 Tiny, Small, Base": "VL2",
    "Janus-Pro 1B, 7B": "Janus-Pro",
}


def _year(release: Release) -> float:
    year, month = release.date.split("-")
    return int(year) + (int(month) - 0.5) / 12


def _billions(value: float, _position: object) -> str:
    return f"{value:g} B" if value < 1000 else f"{value / 1000:g} T"


def family_table(releases: Sequence[Release]) -> None:
    """Show releases as a table, in order of their dates."""
    heads = ("date", "model", "parameters", "attention", "context")
    heads += ("what changed, and why", "source")
    rows = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for r in releases:
        cells = (_month(r.date), f"**{r.name}**", r.sizes, r.attention, r.context)
        cells += (r.changed, _linked(r.source))
        rows.append("| " + " | ".join(cells) + " |")
    names = ", ".join(r.name for r in releases)
    publish(
        {
            "text/markdown": "\n".join(rows),
            "text/plain": f"[table of {len(releases)} releases: {names}]",
        }
    )


def _month(date: str) -> str:
    """2023-11 as "Nov 2023", never broken over two lines."""
    year, month = date.split("-")
    return f"{MONTHS[int(month) - 1]}&nbsp;{year}"


def claims_table() -> None:
    """Show what is often said wrongly, what is so, and the source."""
    rows = ["| it is said | it is so | source |", "|---|---|---|"]
    rows += [f"| {said} | {so} | {_linked(source)} |" for said, so, source in CLAIMS]
    publish(
        {
            "text/markdown": "\n".join(rows),
            "text/plain": f"[table of {len(CLAIMS)} claims and corrections]",
        }
    )


def _linked(source: str) -> str:
    """arXiv numbers as links."""
    words = source.split(" ")
    for i, word in enumerate(words):
        number = word.rstrip(",")
        if len(number) == 10 and number[4] == "." and number.replace(".", "").isdigit():
            comma = word[len(number) :]
            words[i] = f"[{number}](https://arxiv.org/abs/{number}){comma}"
    return " ".join(words)


RUNGS = (
    ("the equation", "by hand, then NumPy, in the lesson's own cells", ""),
    ("the PyTorch module", "the package's source, shown in the lesson", "1e-5"),
    ("the whole model", "against transformers, on the same weights", "1e-4"),
    ("the fast path", "cached, fused: against the readable path", "1e-5"),
    (
        "the kernel at full size",
        "in Triton: interpreted here, compiled for a GPU",
        "a stated bound",
    ),
)


def draw_ladder(fig: "Figure") -> None:
    """The five rungs, from the equation up to the kernel."""
    from matplotlib.patches import FancyBboxPatch

    ax = fig.subplots()
    for i, (name, what, bound) in enumerate(RUNGS):
        x, y = 0.9 * i, 1.0 * i
        box = {"facecolor": "#E3EDF4", "edgecolor": PALETTE[0], "linewidth": 1.4}
        shape = FancyBboxPatch((x, y), 6.6, 0.62, boxstyle="round,pad=0.02", **box)
        ax.add_patch(shape)
        ax.text(x + 0.2, y + 0.38, name, fontsize=12, va="center", weight="bold")
        ax.text(x + 0.2, y + 0.13, what, fontsize=10, va="center", color="#333333")
        if bound:
            ax.text(
                x + 0.2,
                y - 0.19,
                f"=  equal to the rung below, error at most {bound}",
                fontsize=10,
                va="center",
                color=PALETTE[1],
            )
    ax.set_xlim(-0.1, 10.4)
    ax.set_ylim(-0.1, 4.75)
    ax.axis("off")
