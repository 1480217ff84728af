"""Draw docs/ladder.png, the picture in the README: python -m tools.picture"""

from pathlib import Path

from deepseek_mini.lesson.atlas import draw_ladder
from deepseek_mini.lesson.plots import new_figure, use_style

TARGET = Path(__file__).parents[1] / "docs" / "ladder.png"


def draw(path: Path) -> None:
    """Write the ladder of lesson 00 as PNG, in twice the pixels for sharp screens."""
    use_style()
    fig = new_figure((8, 4))
    draw_ladder(fig)
    fig.savefig(path, dpi=160, metadata={"Software": None})


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    draw(TARGET)
    print(f"wrote {TARGET.name}")
