"""The stage `maps`: depth, normals, and which points are seen at which pixel, of the views of each object."""

import io
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float32
from PIL import Image

from pipeline.stage import ObjectError, Row, settings_of
from pipeline.visibility import visible
from render.blender_pass import FromBlender, SamplePoints, ThroughRig, seen_from
from render.cameras import Camera
from render.spec import Maps
from render.views import encoded
from schemas.tables import MAPS, Table

STEPS = 2**16 - 1  # of a depth


@dataclass(frozen=True, kw_only=True)
class RenderMaps(ThroughRig):
    """Depth, normals and visible points in the views of RenderViews of the same settings.

    The points are not read but made anew, as SamplePoints does: the same ones, to the bit. So the rows depend on its settings too.
    """

    name: ClassVar[str] = "maps"
    writes: ClassVar[Table] = MAPS

    points: SamplePoints = SamplePoints()

    def settings(self) -> dict[str, Any]:
        return settings_of(self) | {"points_version": self.points.version}

    def asks(self, object_id: str) -> dict[str, Any]:
        maps = Maps(views=tuple(map(seen_from, self.cameras(object_id))), width=self.width, height=self.height)
        return {"maps": maps} | self.points.asks(object_id)

    def rows(self, object_id: str, made: FromBlender) -> list[Row]:
        cameras = self.cameras(object_id)
        maps = [np.load(made.folder / "maps" / f"{number:03d}.npy") for number in range(len(cameras))]
        if all(np.isnan(each).all() for each in maps):
            raise ObjectError("invisible", f"no pixel's centre meets a surface in any of the {len(maps)} views")
        [sampled] = self.points.rows(object_id, made)
        points = np.reshape(sampled["xyz"], (-1, 3)).astype(np.float64)
        seen = visible(made.mesh, points, np.stack([camera.position for camera in cameras]))
        return [
            {
                "object_id": object_id,
                "view": number,
                "rig": self.rig,
                "width": camera.width,
                "height": camera.height,
                "intrinsics": [camera.fx, camera.fy, camera.cx, camera.cy],
                "camera_to_world": camera.camera_to_world.ravel().tolist(),
                **encoded_depth(here[..., 0], unit=farthest(camera) / STEPS),
                "normal": encoded_normals(here[..., 1:]),
                **seen_at(camera, points, in_sight),
            }
            for number, (camera, here, in_sight) in enumerate(zip(cameras, maps, seen, strict=True))
        ]


def farthest(camera: Camera) -> float:
    """A depth that no point of an object has, as it lies in the unit sphere."""
    return float(np.linalg.norm(camera.position)) + 1.01


def encoded_depth(depth: Float32[np.ndarray, "h w"], *, unit: float) -> Row:
    """The columns `depth` and `depth_unit` of MAPS; NaN: nothing is seen."""
    steps = np.where(np.isnan(depth), 0, np.rint(depth / np.float32(unit)))
    file = io.BytesIO()
    Image.fromarray(steps.astype(np.uint16)).save(file, "PNG")
    return {"depth": file.getvalue(), "depth_unit": unit}


def encoded_normals(normals: Float32[np.ndarray, "h w 3"]) -> bytes:
    """The column `normal` of MAPS; NaN: nothing is seen."""
    there = ~np.isnan(normals).any(axis=2, keepdims=True)
    colors = np.rint((np.where(there, normals, 0) + 1) / 2 * 255)
    return encoded(np.concatenate([colors, 255 * there], axis=2).astype(np.uint8))


def seen_at(camera: Camera, points: np.ndarray, in_sight: Bool[np.ndarray, " n"]) -> Row:
    """The columns `seen` and `pixels` of MAPS: of the points (n, 3) in sight those within the picture, and where."""
    column, row = np.floor(camera.project(points)[0]).T
    framed = (0 <= column) & (column < camera.width) & (0 <= row) & (row < camera.height)
    seen = np.flatnonzero(in_sight & framed)
    return {"seen": seen.astype(np.uint16), "pixels": (row * camera.width + column)[seen].astype(np.uint32)}
