"""What is odd about the shape of a mesh: nothing that stops it, but what a person who trains on it may want to leave out."""

import numpy as np

from pipeline.mesh import Mesh

FEWEST_FACES = 4  # a tetrahedron's: what has fewer encloses nothing
# In the canonical frame, where the farthest point is 1 from the centre and a float32 rounds by up to 6e-8.
FLAT = 1e-6
# So many of the triangles within so small a ball: the others are stray, or a floor. Of 278 good objects of four collections the
# most crowded has them within 0.070; an object on a sheet of as many triangles and 200 times its size, within 0.008.
CROWD, CROWDED = 0.4, 0.02
FAR = 100.0  # sizes of the object: from there a float32 coordinate has less than 5 of its 7 digits left for the shape
SCALES = (1e-6, 1e6)  # of the asset's unit


def warnings(mesh: Mesh) -> list[str]:
    """Sorted, of a mesh with at least one face: extreme_scale (across, in the asset's unit, beyond SCALES), far_from_origin (in the
    asset's coordinates), flat_geometry (all in one plane), outlier_geometry (few triangles make the object as large as it is: the
    rest is a dot), tiny_mesh (fewer than four triangles)."""
    linear, moved = mesh.canonical_from_asset[:3, :3], mesh.canonical_from_asset[:3, 3]
    across = 2 / np.cbrt(abs(np.linalg.det(linear)))
    center = np.linalg.solve(linear, -moved)
    found = {
        "extreme_scale": not SCALES[0] <= across <= SCALES[1],
        "far_from_origin": np.linalg.norm(center) > FAR * across,
        "flat_geometry": _thickness(mesh.vertices) < FLAT,
        "outlier_geometry": len(mesh.faces) >= FEWEST_FACES and _crowd_within(mesh) < CROWDED,
        "tiny_mesh": len(mesh.faces) < FEWEST_FACES,
    }
    return [name for name, is_so in found.items() if is_so]


def warnings_of_cloud(xyz: np.ndarray) -> list[str]:
    """Sorted, of points (n, 3) in the canonical frame: flat_geometry, outlier_geometry, as for a mesh.

    The unit and the origin of what was measured in photos mean nothing."""
    found = {"flat_geometry": _thickness(xyz) < FLAT, "outlier_geometry": _crowd_of(xyz.astype(np.float64)) < CROWDED}
    return [name for name, is_so in found.items() if is_so]


def _thickness(vertices: np.ndarray) -> float:
    """How far the vertices reach along the direction in which they vary least."""
    centered = vertices.astype(np.float64) - vertices.mean(axis=0, dtype=np.float64)
    _, directions = np.linalg.eigh(centered.T @ centered)
    return float(np.ptp(centered @ directions[:, 0]))


def _crowd_within(mesh: Mesh) -> float:
    """Radius of the ball around the triangles' median centre that holds CROWD of them. By count, not by area: a stray vertex draws
    triangles out to slivers as long as the object, and a floor has nearly all the area."""
    return _crowd_of(mesh.vertices[mesh.faces].mean(axis=1, dtype=np.float64))


def _crowd_of(centers: np.ndarray) -> float:
    return float(np.quantile(np.linalg.norm(centers - np.median(centers, axis=0), axis=1), CROWD))
