"""Rendered pictures and their cameras to rows of VIEWS."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pipeline.quality import measures, view_variance
from pipeline.stage import ObjectError, Row
from render.cameras import Camera
from render.spec import Answer


def view_rows(
    object_id: str,
    pictures: Sequence[UInt8[np.ndarray, "h w 4"]],
    cameras: Sequence[Camera],
    *,
    rig: str,
    answer: Answer,
) -> list[Row]:
    """The rows of an object's views, in `view` order: pictures (sRGB, straight alpha), each with the camera that took it, and what
    Blender said of all of them. Raises ObjectError("invisible") when no picture shows anything.
    """
    if not any(picture[..., 3].any() for picture in pictures):
        raise ObjectError("invisible", f"nothing is seen in any of the {len(pictures)} views: {_why(answer.thickest, cameras)}")
    variance = view_variance(pictures)
    return [
        {
            "object_id": object_id,
            "view": number,
            "image": encoded(picture),
            "width": camera.width,
            "height": camera.height,
            "intrinsics": [camera.fx, camera.fy, camera.cx, camera.cy],
            "camera_to_world": camera.camera_to_world.ravel().tolist(),
            "kind": "rendered",
            "rig": rig,
            **measures(picture),
            "view_variance": variance,
            "missing_textures": answer.missing_textures,
            "substituted_materials": answer.substituted_materials,
            "device": answer.device,
        }
        for number, (picture, camera) in enumerate(zip(pictures, cameras, strict=True))
    ]


def _why(thickest: float | None, cameras: Sequence[Camera]) -> str:
    """Why a picture can be empty, from the object's size in pixels."""
    pixels = None if thickest is None else thickest * max(camera.fx / np.linalg.norm(camera.position) for camera in cameras)
    if pixels is None or pixels >= 1:
        return "all of it is transparent"
    return (
        f"its thickest triangle is {pixels:.2g} pixels high. Either it is all threads, or something stray lies so far off that the "
        "object is a dot in the frame, which holds both: remove the stray part"
    )


def encoded(picture: UInt8[np.ndarray, "h w 4"]) -> bytes:
    """Lossless WebP; what lies under transparent pixels is 0, so that it costs nothing and two equal pictures are equal bytes."""
    clean = np.where(picture[..., 3:] > 0, picture, 0)
    file = io.BytesIO()
    Image.fromarray(clean).save(file, "WEBP", lossless=True, quality=50, method=2, exact=True)
    return file.getvalue()


def read_pictures(folder: Path, count: int) -> list[UInt8[np.ndarray, "h w 4"]]:
    """The pictures that Blender put into a folder. Raises ObjectError("render_failed") when one is missing."""
    pictures = []
    for number in range(count):
        file = folder / f"{number:03d}.png"
        if not file.is_file():
            raise ObjectError("render_failed", f"Blender made {number} of {count} pictures")
        pictures.append(np.asarray(Image.open(file).convert("RGBA")))
    return pictures
