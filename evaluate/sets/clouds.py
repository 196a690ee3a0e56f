"""Clouds and labels as official files have them: what every reader of a set checks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64

from evaluate.benchmark import Cloud, Up
from pipeline.imports.pickled import plain
from pipeline.stage import ObjectError

Half = Literal["test", "train"]


def checked(place: str | Path, xyz: Any, rgb: Any = None, *, up: Up, most: float = 255.0) -> Cloud:
    """The points, and the colours where there are any: numbers 0..`most`, brought to whole numbers 0..255.

    Raises ObjectError, which names `place`: shape_mismatch, not_finite, bad_colors.
    """
    xyz, rgb = plain(xyz), plain(rgb)
    for what, values in (("points", xyz), *([] if rgb is None else [("colours", rgb)])):
        if not isinstance(values, np.ndarray) or values.ndim != 2 or values.shape[1:] != (3,) or values.dtype.kind not in "fiu":
            shape = f"array {values.shape} of {values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
            raise ObjectError("shape_mismatch", f"{place}: the {what} are no numbers (n, 3) but: {shape}; get the file again")
        if not len(xyz) or len(values) != len(xyz):
            raise ObjectError("shape_mismatch", f"{place} has {len(values)} {what} for {len(xyz)} points; get the file again")
        if not np.isfinite(values).all():
            wrong = int((~np.isfinite(values)).any(axis=1).sum())
            raise ObjectError("not_finite", f"{place}: {wrong} {what} have infinite or NaN numbers; get the file again")
    if rgb is not None and not (rgb.min() >= 0 and rgb.max() <= most):
        raise ObjectError("bad_colors", f"{place}: colours are {rgb.min():g}..{rgb.max():g}, must be 0..{most:g}")
    # copies: what was read may be a view of a file
    xyz = xyz.astype(np.float32 if xyz.dtype.kind == "f" and xyz.dtype.itemsize <= 4 else np.float64)
    return Cloud(xyz, None if rgb is None else np.rint(rgb * (255 / most)).astype(np.uint8), up)


def numbered(place: str | Path, names: Sequence[str], classes: Sequence[str]) -> Int64[np.ndarray, " n"]:
    """Numbers of the names among the classes. Raises ValueError, which names `place`, for a name that is none of them."""
    number = {name: index for index, name in enumerate(classes)}
    if unknown := sorted(set(names) - number.keys()):
        raise ValueError(f"{place} calls objects {', '.join(map(repr, unknown[:5]))}: that is none of the {len(classes)} classes")
    return np.array([number[name] for name in names], np.int64)
