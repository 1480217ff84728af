"""A picture or a text that follows sliders.

    slider_figure(draw, alt="Two arrows at positions {m} and {n}.",
                  m=Slider(0, 32, start=3), n=Slider(0, 32, start=1))

`draw(fig, m, n)` draws on a fresh figure each time a slider is let go. Nothing here
needs an Output widget, so the notebook tests can run it; the same code works with
ipywidgets 7.7 and 8. For those who only read, `settings_figure` draws a few settings
side by side.
"""

import base64
import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from deepseek_mini.lesson import plots
from deepseek_mini.lesson.display import publish, publish_png


@dataclass(frozen=True)
class Slider:
    """A number between `low` and `high`; whole numbers when all of it are.

    label: what stands beside it; the parameter's name when not given.
    """

    low: float
    high: float
    start: float
    step: float = 1
    label: str = ""

    def __post_init__(self) -> None:
        if not self.low <= self.start <= self.high:
            raise ValueError(
                f"start is {self.start}, but it must be from {self.low} to {self.high}"
            )


@dataclass(frozen=True)
class Choice:
    """One of a few named settings; the first, or `start`, to begin with."""

    options: Sequence[object]
    start: object = None
    label: str = ""

    def __post_init__(self) -> None:
        if self.start is not None and self.start not in self.options:
            raise ValueError(
                f"start is {self.start!r}, but it must be one of {list(self.options)}"
            )


@dataclass
class Controls:
    """The live widget: `controls` by parameter name, and the HTML they change."""

    controls: dict[str, object] = field(default_factory=dict)
    view: object = None
    box: object = None

    def _ipython_display_(self) -> None:
        """Shown once, by the function that made it."""


def slider_figure(
    draw: Callable[..., object],
    *,
    alt: str,
    size: tuple[float, float] | None = None,
    **controls: Slider | Choice,
) -> Controls:
    """Display sliders and a picture that follows them.

    draw: called as draw(fig, **values) with a fresh matplotlib figure; a string that
        it returns is shown below the picture.
    alt: the picture's alternative text; "{m}" stands for the value of slider m and
        takes a format, "{m:.1f}".
    size: of the picture in inches, 100 pixels each.
    """

    def picture(**values: object) -> str:
        png, note = _drawn(draw, values, size)
        source = base64.b64encode(png).decode("ascii")
        text = html.escape(_filled(alt, values), quote=True)
        image = f'<img src="data:image/png;base64,{source}" alt="{text}">'
        return image + (f"<p>{html.escape(note)}</p>" if note else "")

    return _show(picture, alt, controls)


def slider_html(
    make: Callable[..., str], *, alt: str, **controls: Slider | Choice
) -> Controls:
    """Display sliders and a text that follows them: make(**values) returns HTML.

    alt: one line that says what the widget does, for pages where it is not alive.
    """
    return _show(make, alt, controls)


def settings_figure(
    draw: Callable[..., object],
    settings: Mapping[str, Mapping[str, object]] | Sequence[Mapping[str, object]],
    *,
    alt: str,
    size: tuple[float, float] = (9.0, 3.2),
) -> None:
    """Display what `slider_figure(draw, ...)` would show at a few settings.

    settings: the values for each panel, {title: {"m": 3, "n": 1}, ...}; a plain list
        is titled by its values.
    """
    if not isinstance(settings, Mapping):
        settings = {
            ", ".join(f"{k} = {v}" for k, v in values.items()): values
            for values in settings
        }
    import matplotlib

    with matplotlib.rc_context(plots._style()):
        fig = plots.new_figure(size)
        panels = fig.subfigures(1, len(settings), squeeze=False)[0]
        for panel, (title, values) in zip(panels, settings.items()):
            panel.suptitle(title, fontsize=11)
            draw(panel, **values)
        png = plots.figure_png(fig)
    publish_png(png, alt)


def _drawn(draw, values, size) -> tuple[bytes, str]:
    import matplotlib

    with matplotlib.rc_context(plots._style()):
        fig = plots.new_figure(size)
        note = draw(fig, **values)
        return plots.figure_png(fig), note if isinstance(note, str) else ""


def _filled(alt: str, values: Mapping[str, object]) -> str:
    """The text with "{m}" and "{n:.1f}" filled in; other braces stay (LaTeX)."""

    def value(match: re.Match) -> str:
        name, spec = match.groups()
        return format(values[name], spec or "") if name in values else match[0]

    return " ".join(re.sub(r"\{(\w+)(?::([^{}]*))?\}", value, alt).split())


def _show(
    make: Callable[..., str], alt: str, controls: Mapping[str, Slider | Choice]
) -> Controls:
    """Sliders above an HTML widget whose value is make(**values)."""
    if not alt.strip():
        raise ValueError(
            "alt is empty, but a widget needs a sentence that describes it"
        )
    if not controls:
        raise ValueError("a widget needs at least one Slider or Choice")
    import ipywidgets

    made = {name: _control(name, spec) for name, spec in controls.items()}
    view = ipywidgets.HTML()

    def current() -> dict[str, object]:
        return {name: control.value for name, control in made.items()}

    def follow(_change) -> None:
        try:
            view.value = make(**current())
        except Exception as problem:  # a callback's exception is shown nowhere else
            view.value = (
                f"<pre>{html.escape(f'{type(problem).__name__}: {problem}')}</pre>"
            )

    view.value = make(**current())  # the first time, an exception fails the cell
    for control in made.values():
        control.observe(follow, names="value")
    box = ipywidgets.VBox([*made.values(), view])
    start = _filled(alt, current())
    publish(
        {
            "application/vnd.jupyter.widget-view+json": {
                "version_major": 2,
                "version_minor": 0,
                "model_id": box.model_id,
            },
            "text/plain": f"[sliders {', '.join(made)}: {start}]",
        }
    )
    return Controls(made, view, box)


def _control(name: str, spec: Slider | Choice) -> object:
    import ipywidgets

    look = {
        "description": spec.label or name,
        "style": {"description_width": "initial"},
        "layout": {"width": "460px"},
    }
    if isinstance(spec, Choice):
        start = spec.options[0] if spec.start is None else spec.start
        return ipywidgets.Dropdown(options=list(spec.options), value=start, **look)
    numbers = (spec.low, spec.high, spec.start, spec.step)
    whole = all(isinstance(n, int) for n in numbers)
    kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    return kind(
        min=spec.low,
        max=spec.high,
        value=spec.start,
        step=spec.step,
        continuous_update=False,  # draw when the slider is let go, not on the way
        **look,
    )
