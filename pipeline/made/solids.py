"""Simple surfaces with normals and texture coordinates: the bricks that made objects are put together from.

Right-handed, +y up, +z to the front, one texture repeat per unit of length (around an axis: a whole number of repeats, so that
patterns close). All faces point outwards, counter-clockwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from trimesh.transformations import rotation_matrix, translation_matrix

Matrix = Float64[np.ndarray, "4 4"]


@dataclass(frozen=True)
class Surface:
    """A triangle surface: per vertex a unit normal and a texture coordinate (v = 0 at the bottom of the picture)."""

    vertices: Float64[np.ndarray, "v 3"]
    faces: Int64[np.ndarray, "f 3"]
    normals: Float64[np.ndarray, "v 3"]
    uv: Float64[np.ndarray, "v 2"]


def at(x: float, y: float, z: float) -> Matrix:
    """Move to a place."""
    return translation_matrix((x, y, z))


def turned(degrees: float, axis: str) -> Matrix:
    """Turn about x, y or z."""
    return rotation_matrix(np.radians(degrees), np.eye(3)["xyz".index(axis)])


def stretched(x: float, y: float, z: float) -> Matrix:
    """Scale along each axis."""
    return np.diag((x, y, z, 1.0))


def box(x: float, y: float, z: float) -> Surface:
    """A box with these extents, centred."""
    half = np.array((x, y, z)) / 2
    square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=np.float64)
    vertices, normals, uv = [], [], []
    for axis in range(3):
        across, up = (axis + 1) % 3, (axis + 2) % 3
        for side in (-1, 1):
            corners = np.zeros((4, 3))
            corners[:, axis], corners[:, across], corners[:, up] = side, side * square[:, 0], square[:, 1]
            vertices.append(corners * half)
            normals.append(np.tile(np.eye(3)[axis] * side, (4, 1)))
            flat = corners[:, [0, 2] if axis == 1 else [2, 1] if axis == 0 else [0, 1]]
            uv.append(flat * half[[0, 2] if axis == 1 else [2, 1] if axis == 0 else [0, 1]])
    faces = np.array([(0, 1, 2), (0, 2, 3)])[None] + 4 * np.arange(6)[:, None, None]
    return _facing_outwards(np.concatenate(vertices), faces.reshape(-1, 3), np.concatenate(normals), np.concatenate(uv))


def lathe(profile: Sequence[tuple[float, float]], segments: int = 24, smooth: float = 50.0) -> Surface:
    """A profile of (radius, y), turned about the y axis; the outside is to the right of the direction in which it runs.

    Edges of the profile sharper than `smooth` degrees stay edges. Few segments (`segments` <= 8) give flat sides.
    """
    line = np.array(profile, dtype=np.float64)
    step = np.diff(line, axis=0)
    length = np.linalg.norm(step, axis=1)
    facing = np.stack([step[:, 1], -step[:, 0]], axis=1) / length[:, None]  # (radius, y)
    soft = np.einsum("ij,ij->i", facing[:-1], facing[1:]) > np.cos(np.radians(smooth))
    lower, upper = facing.copy(), facing.copy()  # normals at the two ends of each band
    between = facing[:-1] + facing[1:]
    between /= np.maximum(np.linalg.norm(between, axis=1, keepdims=True), 1e-12)
    upper[:-1][soft], lower[1:][soft] = between[soft], between[soft]

    turn = np.arange(segments + 1) / segments
    angle = 2 * np.pi * turn
    repeats = max(1, round(2 * np.pi * line[:, 0].max()))
    run = np.concatenate([[0], np.cumsum(length)])
    rings, normals, uv, faces = [], [], [], []
    for band in range(len(step)):
        for (radius, y), (out, up), v in (
            (line[band], lower[band], run[band]),
            (line[band + 1], upper[band], run[band + 1]),
        ):
            rings.append(np.stack([radius * np.sin(angle), np.full_like(angle, y), radius * np.cos(angle)], axis=1))
            normals.append(np.stack([out * np.sin(angle), np.full_like(angle, up), out * np.cos(angle)], axis=1))
            uv.append(np.stack([turn * repeats, np.full_like(turn, v)], axis=1))
        a = 2 * band * (segments + 1) + np.arange(segments)
        b = a + segments + 1
        faces += [np.stack([a, a + 1, b + 1], axis=1), np.stack([a, b + 1, b], axis=1)]
    surface = _facing_outwards(np.concatenate(rings), np.concatenate(faces), np.concatenate(normals), np.concatenate(uv))
    return _faceted(surface) if segments <= 8 else surface


def cylinder(radius: float, height: float, segments: int = 20, top: float | None = None) -> Surface:
    """A closed cylinder, or a cone that ends in radius `top`, centred on the y axis."""
    top = radius if top is None else top
    line = [(0.0, -height / 2), (radius, -height / 2), (top, height / 2), (0.0, height / 2)]
    return lathe(line if top > 0 else line[:3], segments)


def ball(radius: float, segments: int = 20, rings: int = 10) -> Surface:
    """A sphere, centred."""
    polar = np.linspace(-np.pi / 2, np.pi / 2, rings + 1)
    return lathe([(max(radius * np.cos(p), 0.0), radius * np.sin(p)) for p in polar], segments, smooth=90)


def ring(radius: float, thickness: float, segments: int = 24, sides: int = 10) -> Surface:
    """A torus about the y axis; `radius` to the middle of the tube, `thickness` its radius."""
    angle = np.linspace(-np.pi, np.pi, sides + 1)
    return lathe([(radius + thickness * np.cos(a), thickness * np.sin(a)) for a in angle], segments, smooth=90)


def tube(path: Sequence[tuple[float, float, float]], radius: float, sides: int = 8) -> Surface:
    """A round bar along a path of points, closed at both ends."""
    points = np.array(path, dtype=np.float64)
    forward = np.gradient(points, axis=0)
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    normal = np.cross(forward[0], np.eye(3)[np.argmin(np.abs(forward[0]))])
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    run = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    vertices, normals, uv, faces = [], [], [], []
    for i, point in enumerate(points):
        normal = normal - forward[i] * (normal @ forward[i])  # carried along the path without twisting
        normal /= np.linalg.norm(normal)
        out = np.cos(angle)[:, None] * normal + np.sin(angle)[:, None] * np.cross(forward[i], normal)
        vertices.append(point + radius * out)
        normals.append(out)
        uv.append(np.stack([angle / (2 * np.pi), np.full_like(angle, run[i])], axis=1))
        if i:
            a = (i - 1) * (sides + 1) + np.arange(sides)
            b = a + sides + 1
            faces += [np.stack([a, a + 1, b + 1], axis=1), np.stack([a, b + 1, b], axis=1)]
    for i, outward in ((0, -forward[0]), (-1, forward[-1])):
        start = sum(len(v) for v in vertices)
        vertices.append(np.concatenate([vertices[i % len(points)], points[[i]]]))
        normals.append(np.tile(outward, (sides + 2, 1)))
        uv.append(np.zeros((sides + 2, 2)))
        a = start + np.arange(sides)
        faces.append(np.stack([a, a + 1, np.full_like(a, start + sides + 1)], axis=1))
    return _facing_outwards(np.concatenate(vertices), np.concatenate(faces), np.concatenate(normals), np.concatenate(uv))


def plate(outline: Sequence[tuple[float, float]], depth: float) -> Surface:
    """An outline (x, y) that its own centre sees whole, given thickness `depth` along z, centred in z."""
    corners = np.array(outline, dtype=np.float64)
    n = len(corners)
    following = np.roll(corners, -1, axis=0)
    area = np.sum(corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0])
    middle = corners.mean(axis=0)
    vertices, normals, uv, faces = [], [], [], []
    for side in (-1, 1):
        start = sum(len(v) for v in vertices)
        flat = np.concatenate([corners, middle[None]])
        vertices.append(np.column_stack([flat, np.full(n + 1, side * depth / 2)]))
        normals.append(np.tile((0.0, 0.0, side), (n + 1, 1)))
        uv.append(flat)
        a = np.arange(n)
        faces.append(start + np.stack([a, (a + 1) % n, np.full(n, n)], axis=1))
    run = 0.0
    for p, q in zip(corners, following, strict=True):
        start = sum(len(v) for v in vertices)
        vertices.append(np.array([(*p, -depth / 2), (*q, -depth / 2), (*q, depth / 2), (*p, depth / 2)]))
        length = np.linalg.norm(q - p)
        out = np.array((q[1] - p[1], p[0] - q[0], 0.0)) / length * np.sign(area)
        normals.append(np.tile(out, (4, 1)))
        uv.append(np.array([(run, 0), (run + length, 0), (run + length, depth), (run, depth)]))
        faces.append(start + np.array([(0, 1, 2), (0, 2, 3)]))
        run += length
    return _facing_outwards(np.concatenate(vertices), np.concatenate(faces), np.concatenate(normals), np.concatenate(uv))


def _facing_outwards(vertices, faces, normals, uv) -> Surface:
    """Drops triangles without area and winds the others the way their normals point."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    cross = np.cross(b - a, c - a)
    faces, cross = faces[np.linalg.norm(cross, axis=1) > 1e-12], cross[np.linalg.norm(cross, axis=1) > 1e-12]
    inwards = np.einsum("ij,ij->i", cross, normals[faces].sum(axis=1)) < 0
    return Surface(vertices, np.where(inwards[:, None], faces[:, ::-1], faces), normals, uv)


def _faceted(surface: Surface) -> Surface:
    """The same surface with every triangle flat."""
    corners = surface.vertices[surface.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    count = len(surface.faces)
    return Surface(
        corners.reshape(-1, 3),
        np.arange(3 * count).reshape(count, 3),
        np.repeat(normals, 3, axis=0),
        surface.uv[surface.faces].reshape(-1, 2),
    )
