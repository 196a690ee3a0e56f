"""Rays cast at a mesh whose surfaces may be see-through."""

import numpy as np
import open3d as o3d
from jaxtyping import Float, Float32, Int

from pipeline.mesh import Mesh, Paint
from pipeline.points import paint


class Rays:
    """A mesh made ready to be looked at."""

    def __init__(self, mesh: Mesh):
        self._mesh = mesh
        solid = np.array([*(_is_solid(material.alpha) for material in mesh.materials), True])[
            mesh.material
        ]  # the last: no material
        self._solid = scene_of(mesh, np.flatnonzero(solid))
        self._clear_faces = np.flatnonzero(~solid)
        self._clear = scene_of(mesh, self._clear_faces)

    def stopped(self, rays: Float32[np.ndarray, "n 6"], end: float = np.inf) -> Float[np.ndarray, " n"]:
        """How much of each ray (origin, direction) is stopped by the surfaces in its way, 0..1: 1 - Π (1 - alpha).

        `end`: where the way ends, in lengths of the ray's direction.
        """
        passed = 1.0 - self._solid.test_occlusions(rays, tfar=end).numpy()
        if len(self._clear_faces) and len(rays):  # without any, Open3D ends the process
            met = {name: values.numpy() for name, values in self._clear.list_intersections(rays).items()}
            before = met["t_hit"] < end
            u, v = met["primitive_uvs"][before].T.astype(np.float64)
            alpha = paint(self._mesh, self._clear_faces[met["primitive_ids"][before]], np.stack([1 - u - v, u, v], axis=1))[:, 3]
            np.multiply.at(passed, met["ray_ids"][before], 1 - np.clip(alpha, 0, 1))
        return 1 - passed


def scene_of(mesh: Mesh, faces: Int[np.ndarray, " f"]) -> o3d.t.geometry.RaycastingScene:
    """Some of a mesh's faces, for Open3D."""
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(np.ascontiguousarray(mesh.vertices, np.float32), np.ascontiguousarray(mesh.faces[faces], np.uint32))
    return scene


def _is_solid(alpha: Paint) -> bool:
    return alpha["kind"] == "constant" and alpha["value"][0] >= 1
