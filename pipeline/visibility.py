"""Which points of an object a camera sees."""

import numpy as np
import open3d as o3d
from jaxtyping import Bool, Float

from pipeline.mesh import Mesh

# A point counts as seen when nothing lies in front of it by more than this, in the unit of the canonical frame: points are stored
# as float16 and lie up to 4e-4 off the surface, which a flat angle of view stretches.
TOLERANCE = 0.005


def visible(
    mesh: Mesh,
    camera_to_world: Float[np.ndarray, "4 4"],
    intrinsics: tuple[float, float, float, float],
    size: tuple[int, int],
    points: Float[np.ndarray, "n 3"],
) -> Bool[np.ndarray, " n"]:
    """Mask of the points within the picture that no surface hides; transparent surface hides as well.

    `camera_to_world`, `intrinsics` (fx, fy, cx, cy) and the canonical frame as in schemas.tables; `size`: width, height in pixels.
    """
    position = camera_to_world[:3, 3]
    towards = points - position
    x, y, depth = (towards @ camera_to_world[:3, :3]).T
    fx, fy, cx, cy = intrinsics
    width, height = size
    with np.errstate(divide="ignore", invalid="ignore"):
        column, row = fx * x / depth + cx, fy * y / depth + cy
    framed = (depth > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)

    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(np.ascontiguousarray(mesh.vertices, np.float32), np.ascontiguousarray(mesh.faces, np.uint32))
    distance = np.sqrt((towards**2).sum(axis=1))
    rays = np.concatenate([np.broadcast_to(position, points.shape), towards / distance[:, None]], axis=1).astype(np.float32)
    return framed & (scene.cast_rays(rays)["t_hit"].numpy() >= distance - TOLERANCE)
