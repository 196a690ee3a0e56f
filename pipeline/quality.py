"""Measures of the pictures of an object, to find empty, cut-off, badly lit and useless views by."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

DARK = 5 / 255
BRIGHT = 250 / 255
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709


def measures(rgba: UInt8[np.ndarray, "h w 4"], *, masked: bool = True) -> dict[str, float | None]:
    """The measures of schemas.tables.VIEWS for one picture (sRGB, straight alpha).

    The object's pixels are those at least half covered. Where there are none, what is said of them is null. Not `masked`: opaque,
    because nobody knows where the object is in it; then all pixels count, and how much the object covers is null.
    """
    alpha = rgba[..., 3] / 255
    colors = rgba[rgba[..., 3] >= 128, :3] / 255
    luminance = colors @ LUMINANCE
    some = len(colors) > 0
    return {
        "alpha_coverage": float(alpha.mean()) if masked else None,
        "border_coverage": float(_border(alpha).mean()) if masked else None,
        "dark_share": float((luminance < DARK).mean()) if some else None,
        "bright_share": float((luminance > BRIGHT).mean()) if some else None,
        "luminance": float(luminance.mean()) if some else None,
        "color_spread": float(np.sqrt(colors.var(axis=0).sum())) if some else None,
    }


def view_variance(pictures: Sequence[UInt8[np.ndarray, "h w 4"]]) -> float | None:
    """How much the views of an object differ, as in schemas.tables.VIEWS; None for a single view, and where nothing is seen."""
    views = np.stack(pictures)
    seen = views[:, views[..., 3].any(axis=0)] / np.float32(255)
    if len(pictures) < 2 or not seen.size:
        return None
    seen[..., :3] *= seen[..., 3:]
    return float(seen.var(axis=0).mean())


def _border(alpha: np.ndarray) -> np.ndarray:
    """The outermost pixels, each once."""
    outermost = np.ones(alpha.shape, dtype=bool)
    outermost[1:-1, 1:-1] = False
    return alpha[outermost]
