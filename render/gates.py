"""The gate before VIEWS: which renders are too bad to let in."""

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.stage import ObjectError, Row

GATE = "gate_"  # how the reasons of failures begin

THUMBNAIL_VIEWS = 4
THUMBNAIL_SIDE = 96  # pixels, of each view
THUMBNAIL_BYTES = 8192
QUALITIES = (80, 50, 20, 0)  # of the thumbnail, until it is small enough

MANY = 1_000_000  # the highest limit of a count


def _gate(default: float | None, column: str, says: str, most: int = 1) -> float | None:
    """A threshold, from 0 to `most`, on the mean of a column of VIEWS over an object's views; `says`: what is wrong beyond it."""
    return dataclasses.field(default=default, metadata={"column": column, "says": says, "most": most})


@dataclass(frozen=True, kw_only=True)
class Gates:
    """Thresholds on the measures of VIEWS, mean over an object's views; an object below a minimum or above a maximum becomes a
    failure. None: no limit. (TOML has no null: 0 as a minimum and 1 as a maximum of shares let everything pass as well.)

    What is on by default refused none of 319 real objects of which Blender made pictures, 42 of them malformed.
    """

    # A dot: 25 of 224 x 224 pixels. The thinnest of 277 good objects cover 2 %, a needle 400 times as long as thick 0.15 %.
    min_coverage: float | None = _gate(0.0005, "alpha_coverage", "the object is a dot in the picture, or nearly transparent")
    # Cut off: every rig has the whole object in frame. In pictures of 48 pixels the blur of a ball's outline covers 0.01 of the
    # border, in larger ones less; a box a fifth too large for the frame covers 0.04, one twice too large 0.8.
    max_border: float | None = _gate(0.05, "border_coverage", "the pictures' edge cuts the object off")
    # All views are one picture, to within a fortieth of a grey level: a smooth ball of one colour, which looks alike from all
    # sides and is lit alike, still has 1e-6 from its triangles.
    min_view_variance: float | None = _gate(1e-8, "view_variance", "all views are one picture: the camera or the object is stuck")

    # All black, or all white, in every view: in our light a white wall is not burnt out and a black one not sunk. Of those objects
    # one, flattened into a plane, is 0.94 black, the next 0.51, and none over 0.05 white; beyond is what broke on its way here, or
    # is unlit or glows: a bare silhouette, which teaches no more than its outline.
    max_dark: float | None = _gate(0.98, "dark_share", "the object is black")
    max_bright: float | None = _gate(0.98, "bright_share", "the object is burnt out to white")
    # Off: an unlit object of one colour is as it should be. 0.03 finds those, and some plain sheets that are all in one light: an
    # outline's own colours give 0.02. All 277 good objects have 0.047 and more.
    min_color_spread: float | None = _gate(None, "color_spread", "the object is of one colour, without any shading")
    # Off: what a texture or a material is missing from keeps its shape, and its other parts.
    max_missing_textures: int | None = _gate(None, "missing_textures", "textures cannot be read", MANY)
    max_substituted_materials: int | None = _gate(None, "substituted_materials", "something else stands for materials", MANY)

    def __post_init__(self):
        for gate in dataclasses.fields(self):
            threshold, most = getattr(self, gate.name), gate.metadata["most"]
            is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
            if threshold is not None and not (is_number and 0 <= threshold <= most):
                raise ValueError(f"{gate.name} is {threshold!r}; it limits {gate.metadata['column']}: a number from 0 to {most:,}")


def judge(rows: Sequence[Row], gates: Gates) -> None:
    """Lets the rows of an object's views pass. Raises ObjectError, with a thumbnail, for the first gate that they do not pass.

    The reason is `gate_` and what is limited: gate_coverage, gate_border, gate_view_variance, gate_dark, ... A measure that is null
    in all rows passes.
    """
    for gate in dataclasses.fields(gates):
        side, limited = gate.name.split("_", 1)
        threshold, column = getattr(gates, gate.name), gate.metadata["column"]
        measured = [row[column] for row in rows if row[column] is not None]
        if threshold is None or not measured:
            continue
        value = float(np.mean(measured))
        if value < threshold if side == "min" else value > threshold:
            beyond = "below" if side == "min" else "above"
            found = f"{column} is {value:.3g}, mean of {len(measured)} views, {beyond} {gate.name} = {threshold:g}"
            change = f"to let it in, {'lower' if side == 'min' else 'raise'} that below [gates] in the settings"
            raise ObjectError(GATE + limited, f"{gate.metadata['says']}: {found}; {change}", thumbnail=thumbnail(rows))


def thumbnail(rows: Sequence[Row]) -> bytes:
    """Some of the views side by side, evenly spread over all of them: a WebP with alpha of at most THUMBNAIL_BYTES."""
    count = min(THUMBNAIL_VIEWS, len(rows))
    strip = Image.new("RGBA", (count * THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    for place in range(count):
        view = Image.open(io.BytesIO(rows[place * len(rows) // count]["image"])).convert("RGBa")
        view.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        strip.paste(view.convert("RGBA"), (place * THUMBNAIL_SIDE, 0))
    for quality in QUALITIES:
        file = io.BytesIO()
        strip.save(file, "WEBP", quality=quality, alpha_quality=quality, method=4)
        if file.tell() <= THUMBNAIL_BYTES:
            break
    return file.getvalue()
