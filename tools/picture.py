"""Draw docs/ladder.png, the picture in the README: python tools/picture.py"""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

RUNGS = [  # from the ground up: what, where it is, equal to the rung below up to
    ("an equation, by hand and in NumPy", "the lesson's own cells", None),
    ("a PyTorch module", "deepseek_mini/model", "1e-5"),
    ("the whole model", "against transformers, same weights", "1e-4"),
    ("the fast path", "cached, fused", "1e-5"),
    ("the kernel at the released size", "to come", "a stated bound"),
]
INK, PALE, BLUE = "#1b2a41", "#e8eef5", "#0072b2"


def draw(path: Path) -> None:
    fig, ax = plt.subplots(figsize=(9, 4.6), dpi=160)
    for i, (what, where, bound) in enumerate(RUNGS):
        left, bottom = 0.55 * i, 1.15 * i
        last = i == len(RUNGS) - 1
        box = FancyBboxPatch(
            (left, bottom),
            5.2,
            0.72,
            boxstyle="round,pad=0.06",
            facecolor="white" if last else PALE,
            edgecolor=BLUE,
            linewidth=1.6,
            linestyle="--" if last else "-",
        )
        ax.add_patch(box)
        ax.text(left + 0.15, bottom + 0.46, what, color=INK, fontsize=13, va="center")
        ax.text(left + 0.15, bottom + 0.14, where, color=BLUE, fontsize=10, va="center")
        if bound:
            ax.text(
                left + 0.2,
                bottom - 0.215,
                f"=   equal to the rung below within {bound}",
                color=INK,
                fontsize=9.5,
                va="center",
            )
    ax.set_xlim(-0.1, 7.6)
    ax.set_ylim(-0.15, 5.5)
    ax.axis("off")
    fig.savefig(path, bbox_inches="tight", facecolor="white", metadata={"Software": ""})


if __name__ == "__main__":
    target = Path(__file__).parents[1] / "docs" / "ladder.png"
    target.parent.mkdir(exist_ok=True)
    draw(target)
    print(f"wrote {target.name}")
