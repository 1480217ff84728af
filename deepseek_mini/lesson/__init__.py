"""What notebooks need: setup, show, ladder, check, progress, plots, widgets, GPU.

All are imported at once, although some are not used: several functions share the name
of their submodule, and only so does the function always win. The submodules import
matplotlib and ipywidgets when a figure or a widget is made, not before.
"""

from deepseek_mini.lesson.check import Result, check
from deepseek_mini.lesson.gpu import gpu_section, interpreted_section
from deepseek_mini.lesson.ladder import error, ladder
from deepseek_mini.lesson.plots import PALETTE, figure, label_lines, show_figure
from deepseek_mini.lesson.progress import progress
from deepseek_mini.lesson.setup import setup
from deepseek_mini.lesson.show import show
from deepseek_mini.lesson.widgets import (
    Choice,
    Slider,
    settings_figure,
    slider_figure,
    slider_html,
)

__all__ = [
    "PALETTE",
    "Choice",
    "Result",
    "Slider",
    "check",
    "error",
    "figure",
    "gpu_section",
    "interpreted_section",
    "label_lines",
    "ladder",
    "progress",
    "settings_figure",
    "setup",
    "show",
    "show_figure",
    "slider_figure",
    "slider_html",
]
