"""How a lesson shows something, in a notebook, in IPython and in plain Python.

Everything goes through `publish` as a ready-made bundle of MIME types. So the text
that `pytest --nbval` compares is ours and the same under every version of IPython,
ipywidgets and matplotlib; the reprs of those libraries' objects are not.
"""

import base64
import html
import sys


def in_ipython() -> bool:
    """Whether an IPython shell or kernel runs this process."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def publish(data: dict[str, object], metadata: dict[str, object] | None = None) -> None:
    """Display a bundle {MIME type: content}; in plain Python print its text/plain."""
    if not in_ipython():
        print(data["text/plain"])
        return
    from IPython.display import display

    display(data, metadata=metadata or {}, raw=True)


def publish_png(png: bytes, alt: str, *, words: bool = True) -> None:
    """Display a PNG picture with its alternative text.

    The text goes into the picture's metadata (nbconvert's classic pages and Colab read
    it there), into text/plain, and, because JupyterLab and GitHub read neither, into a
    folded line "In words" below the picture. `words=False` leaves that line out, where
    the text around the picture says the same.

    Raises ValueError when the alternative text is empty.
    """
    alt = " ".join(alt.split())
    if not alt:
        raise ValueError(
            "alt is empty, but every picture needs a sentence that says what it shows"
        )
    picture = base64.b64encode(png).decode("ascii")
    publish(
        {"image/png": picture, "text/plain": f"[figure: {alt}]"},
        {"image/png": {"alt": alt}},
    )
    if words and in_ipython():
        folded = f"<details><summary>In words</summary>{html.escape(alt)}</details>"
        publish({"text/html": folded, "text/plain": alt})
