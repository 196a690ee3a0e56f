"""Rays cast at a mesh whose surfaces may be see-through."""

import numpy as np
import open3d as o3d
from jaxtyping import Float, Float32

from pipeline.mesh import Mesh
from pipeline.points import paint

LAYERS = 16  # see-through surfaces that a ray is followed through, as many as Cycles follows
STEP = 1e-4  # beyond a surface that was passed, canonical frame: the next one is farther off, or lies in the same place


class Rays:
    """A mesh made ready to be looked at."""

    def __init__(self, mesh: Mesh):
        self._mesh = mesh
        self._scene = o3d.t.geometry.RaycastingScene()
        self._scene.add_triangles(np.ascontiguousarray(mesh.vertices, np.float32), np.ascontiguousarray(mesh.faces, np.uint32))
        solid = [material.alpha["kind"] == "constant" and material.alpha["value"][0] >= 1 for material in mesh.materials]
        self._solid = np.array([*solid, True])  # the last: no material

    def stopped(self, rays: Float32[np.ndarray, "n 6"]) -> Float[np.ndarray, " n"]:
        """How much of each ray (origin, direction) the surfaces in its way stop, 0..1: 1 - Π (1 - alpha)."""
        if self._solid[np.unique(self._mesh.material)].all():
            return self._scene.test_occlusions(rays).numpy().astype(np.float64)
        passed, going, rays = np.ones(len(rays)), np.arange(len(rays)), rays.copy()
        for _ in range(LAYERS):
            found = self._scene.cast_rays(rays[going])
            distance = found["t_hit"].numpy()
            hit = np.isfinite(distance)
            going = going[hit]
            alpha = self._alpha(found["primitive_ids"].numpy()[hit].astype(np.int64), found["primitive_uvs"].numpy()[hit])
            passed[going] *= 1 - alpha
            rays[going, :3] += rays[going, 3:] * (distance[hit, None] + STEP)
            going = going[alpha < 1]
            if not len(going):
                break
        return 1 - passed

    def _alpha(self, face: np.ndarray, uv: np.ndarray) -> Float[np.ndarray, " n"]:
        """Opacity of the surface at points of faces; `uv`: the weights of a face's second and third corner."""
        alpha = np.ones(len(face))
        there = np.flatnonzero(~self._solid[self._mesh.material[face]])
        if len(there):
            u, v = uv[there].astype(np.float64).T
            alpha[there] = np.clip(paint(self._mesh, face[there], np.stack([1 - u - v, u, v], axis=1))[:, 3], 0, 1)
        return alpha
