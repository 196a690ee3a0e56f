"""Reads rows of MAPS: depth, normals, and what a view shows of each point.

row = lance.dataset("/data/corpus/maps.lance").to_table(filter="object_id = 'abo/B07'").to_pylist()[0]
box = np.zeros((row["height"], row["width"]), bool)
box[60:120, 40:90] = True
points_in_box = np.asarray(row["seen"])[at_points(row, box)]        numbers of points of POINTS
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped
from PIL import Image


def depth_of(row: Mapping[str, Any]) -> Float32[np.ndarray, "h w"]:
    """Depth at each pixel's centre along the camera's z axis, canonical frame; NaN where nothing is seen."""
    steps = np.asarray(Image.open(io.BytesIO(row["depth"])))
    return np.where(steps > 0, steps * np.float32(row["depth_unit"]), np.float32(np.nan))


def normals_of(row: Mapping[str, Any]) -> Float32[np.ndarray, "h w 3"]:
    """Unit normal of the surface at each pixel's centre, canonical frame; NaN where nothing is seen."""
    picture = np.asarray(Image.open(io.BytesIO(row["normal"])).convert("RGBA"), np.float32)
    normals = picture[..., :3] / 255 * 2 - 1
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    return np.where(picture[..., 3:] > 0, normals, np.float32(np.nan))


def at_points(row: Mapping[str, Any], picture: Shaped[np.ndarray, "h w *channels"]) -> Shaped[np.ndarray, "m *channels"]:
    """What a picture of the view's own size (labels, a mask, colours) holds at each of the points `row["seen"]`, in that order.

    Raises ValueError for a picture of another size.
    """
    height, width = row["height"], row["width"]
    if picture.shape[:2] != (height, width):
        raise ValueError(f"the picture is {picture.shape[1]} x {picture.shape[0]}, the view {width} x {height}: resize the picture")
    return picture.reshape(height * width, *picture.shape[2:])[np.asarray(row["pixels"])]
