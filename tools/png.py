"""Make a plot's PNG a third of its size, so that a notebook stays under its limit."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

# A picture with more colours is a photograph or a fine heat map: it stays exact.
MAX_COLOURS = 8000
MAX_ERROR = 0.5  # mean difference of a channel, of 255


def smaller(encoded: str) -> str:
    """A base64 PNG with a palette where nobody sees it, or the same, never larger."""
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as file:
        picture = file.copy()
    if picture.mode not in ("RGB", "RGBA") or not opaque(picture):
        return encoded
    exact = picture.convert("RGB")
    if exact.getcolors(MAX_COLOURS) is None:
        return encoded
    few = exact.quantize(256, method=Image.Quantize.MEDIANCUT, dither=0)
    error = np.asarray(few.convert("RGB"), float) - np.asarray(exact, float)
    if np.abs(error).mean() > MAX_ERROR:
        return encoded
    result = io.BytesIO()
    few.save(result, "png", optimize=True, dpi=picture.info.get("dpi"))
    text = base64.b64encode(result.getvalue()).decode("ascii")
    return min(encoded, text, key=len)


def opaque(picture: Image.Image) -> bool:
    return picture.mode == "RGB" or picture.getchannel("A").getextrema() == (255, 255)
