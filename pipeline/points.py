"""Points on the surface of a mesh, with the colours that its materials give them there."""

from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float, Int, UInt8

from pipeline.mesh import Mesh, Paint
from pipeline.photos.clouds import Cloud
from pipeline.shape import warnings, warnings_of_cloud
from pipeline.stage import ObjectError

# So many points come first, each the farthest from all before it: every prefix of them covers the object as evenly as it can.
FARTHEST_FIRST = 1024

# A point less opaque than this cannot be made out in a picture, so it is no point of the object.
VISIBLE_ALPHA = 0.1

# Where there is no material: what Blender renders.
DEFAULT_COLOR = (0.8, 0.8, 0.8, 1.0)


def sample_points(mesh: Mesh, count: int, rng: np.random.Generator) -> dict[str, Any]:
    """The columns of POINTS but the object's id: `count` points, even by area over all of the surface that can be seen.

    The same mesh and rng give the same bytes. Raises ObjectError: no_faces; non_finite_geometry; no_area; invisible (next to
    nothing of the surface is opaque enough to be seen).
    """
    area = _areas(mesh)
    xyz, color = _visible_points(mesh, area, count, rng)
    xyz = xyz.astype(np.float16)
    first = farthest_first(xyz, min(FARTHEST_FIRST, count))
    # The rest stays as it was drawn: at random, so that every longer prefix is even too.
    order = np.concatenate([first, np.setdiff1d(np.arange(count), first)])
    return {
        "xyz": xyz[order].reshape(-1),
        "rgb": srgb_from_linear(color[order, :3]).reshape(-1) if mesh.has_color else None,
        "canonical_from_asset": mesh.canonical_from_asset.reshape(-1),
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        "area": float(area.sum()),
        "warnings": warnings(mesh),
    }


def points_of_cloud(
    cloud: Cloud, canonical_from_cloud: Float[np.ndarray, "4 4"], count: int, rng: np.random.Generator
) -> dict[str, Any]:
    """The columns of POINTS but the object's id: `count` points of a cloud as they are, in the canonical frame.

    Of more than that, one of each cell of a grid so fine that about `count` cells are taken: even, however dense the cloud is in
    places. Fewer are repeated, all of them before any a second time, so that every prefix up to their number has each but once.
    """
    xyz = (cloud.xyz @ canonical_from_cloud[:3, :3].T + canonical_from_cloud[:3, 3]).astype(np.float16)
    taken = _one_per_cell(xyz.astype(np.float64), count, rng)
    first = farthest_first(xyz[taken], min(FARTHEST_FIRST, len(np.unique(xyz[taken], axis=0))))
    order = taken[np.resize(np.concatenate([first, np.setdiff1d(np.arange(len(taken)), first)]), count)]
    return {
        "xyz": xyz[order].reshape(-1),
        "rgb": cloud.rgb[order].reshape(-1) if cloud.rgb is not None else None,
        "canonical_from_asset": canonical_from_cloud.reshape(-1),
        "vertices": cloud.count,
        "faces": 0,
        "area": None,
        "warnings": warnings_of_cloud(xyz),
    }


def _one_per_cell(xyz: Float[np.ndarray, "n 3"], count: int, rng: np.random.Generator) -> Int[np.ndarray, " m"]:
    """Indices of `count` points, or of all where there are fewer, at random among those of a cell and in random order."""
    shuffled = rng.permutation(len(xyz))
    if len(xyz) <= count:
        return shuffled

    def one_each(cells: int) -> Int[np.ndarray, " k"]:
        """Of each cell of a grid with so many cells per unit the point that comes first, by its place among the shuffled."""
        x, y, z = (np.floor((xyz[shuffled] + 2) * cells).astype(np.int64)).T
        return np.unique((x * 4 * cells + y) * 4 * cells + z, return_index=True)[1]

    coarse, fine = 1, 4096  # a float16 tells no more apart
    while fine - coarse > 1:
        middle = (coarse + fine) // 2
        coarse, fine = (coarse, middle) if len(one_each(middle)) >= count else (middle, fine)
    kept = rng.permutation(one_each(fine))  # in the order they come, those of crowded cells would be first
    return shuffled[kept[:count]] if len(kept) >= count else shuffled[:count]


def _areas(mesh: Mesh) -> Float[np.ndarray, " f"]:
    if len(mesh.faces) == 0:
        raise ObjectError("no_faces", "the asset has no surface: no triangle of it is shown")
    vertices = mesh.vertices.astype(np.float64)
    if not np.isfinite(vertices).all():
        raise ObjectError(
            "non_finite_geometry", f"{(~np.isfinite(vertices).all(axis=1)).sum()} vertices have infinite or NaN coordinates"
        )
    a, b, c = (vertices[mesh.faces[:, corner]] for corner in range(3))
    area = np.sqrt((np.cross(b - a, c - a) ** 2).sum(axis=1)) / 2
    if area.sum() == 0:
        raise ObjectError("no_area", f"the {len(mesh.faces)} triangles have no area: all their corners lie on points or lines")
    return area


def _visible_points(
    mesh: Mesh, area: Float[np.ndarray, " f"], count: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "{count} 3"], Float[np.ndarray, "{count} 4"]]:
    """Points and their linear colours; where a texture makes the surface transparent, more are drawn and thinned out."""
    clear = np.array([_is_clear(material.alpha) for material in mesh.materials] + [False])  # the last: no material
    weight = np.where(clear[mesh.material], 0.0, area)
    surface = trimesh.Trimesh(mesh.vertices.astype(np.float64), mesh.faces, process=False)
    points, colors, found = [], [], 0
    for share in (1, 4, 16, 64) if weight.any() else ():
        xyz, face, barycentric = trimesh.sample.sample_surface(
            surface, share * count, face_weight=weight, return_barycentric=True, seed=rng
        )
        color = paint(mesh, face, barycentric)
        seen = color[:, 3] >= VISIBLE_ALPHA
        points.append(xyz[seen])
        colors.append(color[seen])
        found += int(seen.sum())
        if found >= count:
            return np.concatenate(points)[:count], np.concatenate(colors)[:count]
    raise ObjectError("invisible", f"less than a hundredth of the surface is opaque: alpha below {VISIBLE_ALPHA} elsewhere")


def _is_clear(alpha: Paint) -> bool:
    return alpha["kind"] == "constant" and alpha["value"][0] < VISIBLE_ALPHA


def farthest_first(xyz: Float[np.ndarray, "n 3"], count: int) -> Int[np.ndarray, "{count}"]:
    """Indices of `count` points: the first one, then always the point farthest from all before it (the first of equals).

    Gonzalez 1985, "Clustering to minimize the maximum intercluster distance". Coordinate by coordinate, so that it rounds alike
    everywhere. (Open3D's is twice as fast, but returns the points without their order.)
    """
    coordinates = np.ascontiguousarray(xyz.T, dtype=np.float32)
    nearest = np.full(len(xyz), np.inf, dtype=np.float32)  # squared distance to the nearest point taken
    square = np.empty_like(coordinates)
    order = np.empty(count, dtype=np.int64)
    last = 0
    for i in range(count):
        order[i] = last
        np.subtract(coordinates, coordinates[:, last, None], out=square)
        np.square(square, out=square)
        np.minimum(nearest, square[0] + square[1] + square[2], out=nearest)
        last = int(nearest.argmax())
    return order


# ---------------------------------------------------------------------------------------------------------------- colours


def srgb_from_linear(color: Float[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n"]:
    """0..1 to 0..255; IEC 61966-2-1."""
    color = np.clip(color, 0, 1)
    return np.rint(255 * np.where(color <= 0.0031308, 12.92 * color, 1.055 * color ** (1 / 2.4) - 0.055)).astype(np.uint8)


def linear_from_srgb(color: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """0..1 to 0..1; IEC 61966-2-1."""
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def paint(mesh: Mesh, face_index: Int[np.ndarray, " n"], barycentric: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 4"]:
    """Linear RGBA of the unlit surface at points given by their triangle and their weights of its corners."""
    rgba = np.tile(DEFAULT_COLOR, (len(face_index), 1))
    material = mesh.material[face_index]
    for index in np.unique(material[material >= 0]):
        here = np.flatnonzero(material == index)
        at = _At(mesh, face_index[here], barycentric[here])
        rgba[here, :3] = at.value(mesh.materials[index].color)[:, :3]
        rgba[here, 3] = at.value(mesh.materials[index].alpha)[:, 0]
    return rgba


class _At:
    """Evaluates paints (see `pipeline.mesh`) at points of a mesh."""

    def __init__(self, mesh: Mesh, face_index: Int[np.ndarray, " n"], barycentric: Float[np.ndarray, "n 3"]):
        self.mesh, self.face_index, self.barycentric = mesh, face_index, barycentric

    def value(self, paint: Paint) -> Float[np.ndarray, "n 4"]:
        match paint["kind"]:
            case "constant":
                return np.tile(np.array(paint["value"], dtype=np.float64), (len(self.face_index), 1))
            case "attribute":
                return self._layer(self.mesh.colors, paint["name"], 4)
            case "uv":
                uv = self._layer(self.mesh.uvs, paint["name"], 2)
                return np.concatenate([uv, np.zeros_like(uv[:, :1]), np.ones_like(uv[:, :1])], axis=1)
            case "affine":
                x, y, z = self.value(paint["of"])[:, :3].T
                rows = [a * x + b * y + c * z + d for a, b, c, d in paint["matrix"]]
                return np.stack([*rows, np.ones_like(x)], axis=1)
            case "texture":
                u, v = self.value(paint["vector"])[:, :2].T
                texels = _texels(self.mesh.images[paint["image"]], u, v, paint["extend"], paint["interpolation"])
                if paint["srgb"]:
                    texels[:, :3] = linear_from_srgb(texels[:, :3])
                return texels
            case "channel":
                return np.repeat(self.value(paint["of"])[:, paint["channel"], None], 4, axis=1)
            case "grey":
                r, g, b = self.value(paint["of"])[:, :3].T
                wr, wg, wb = paint["weights"]
                return np.repeat((wr * r + wg * g + wb * b)[:, None], 4, axis=1)
            case "combine":
                r, g, b = (self.value(channel)[:, 0] for channel in paint["channels"])
                return np.stack([r, g, b, np.ones_like(r)], axis=1)
            case "mix":
                factor, a, b = (self.value(paint[key]) for key in ("factor", "a", "b"))
                mixed = _BLENDS[paint["blend"]](factor, a, b)
            case "math":
                mixed = _MATH[paint["operation"]](*(self.value(operand) for operand in paint["operands"]))
            case kind:
                raise ValueError(f"a paint of kind {kind}, which render/blender_mesh.py must not write")
        return np.clip(mixed, 0, 1) if paint["clamp"] else mixed

    def _layer(self, layers: dict[str, np.ndarray], name: str, width: int) -> Float[np.ndarray, "n width"]:
        if name not in layers:  # no object has it: 0, as Blender renders
            return np.zeros((len(self.face_index), width))
        corners = np.nan_to_num(layers[name][self.face_index].astype(np.float64), nan=0, posinf=0, neginf=0)
        a, b, c = corners.transpose(1, 0, 2)
        wa, wb, wc = self.barycentric.T[:, :, None]
        return wa * a + wb * b + wc * c


def _texels(
    pixels: np.ndarray, u: Float[np.ndarray, " n"], v: Float[np.ndarray, " n"], extend: str, interpolation: str
) -> Float[np.ndarray, "n 4"]:
    """What Cycles reads from a picture at (u, v), as encoded in it: pixel centres at halves, v = 0 at the lower edge."""
    height, width = pixels.shape[:2]
    full = 255 if pixels.dtype == np.uint8 else 1
    finite = np.isfinite(u) & np.isfinite(v)
    x, y = np.where(finite, u, 0) * width, (1 - np.where(finite, v, 0)) * height

    def texel(column, row):
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        value = pixels[_wrapped(row, height, extend), _wrapped(column, width, extend)] / np.float64(full)
        return np.where(inside[:, None], value, 0) if extend == "clip" else value

    if interpolation == "nearest":
        return texel(np.floor(x), np.floor(y))
    left, top = np.floor(x - 0.5), np.floor(y - 0.5)
    right_share, lower_share = (x - 0.5 - left)[:, None], (y - 0.5 - top)[:, None]
    upper = texel(left, top) * (1 - right_share) + texel(left + 1, top) * right_share
    lower = texel(left, top + 1) * (1 - right_share) + texel(left + 1, top + 1) * right_share
    return upper * (1 - lower_share) + lower * lower_share


def _wrapped(index: Float[np.ndarray, " n"], size: int, extend: str) -> Int[np.ndarray, " n"]:
    """Pixel numbers within 0..size-1. (Whole numbers as floats come in: a wild texture coordinate does not fit an integer.)"""
    if extend == "repeat":
        index = index % size
    elif extend == "mirror":
        index = index % (2 * size)
        index = np.minimum(index, 2 * size - 1 - index)
    return np.clip(index, 0, size - 1).astype(np.int64)


def _divided(a, b):
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)


def _power(a, b):
    defined = (a > 0) | ((a == 0) & (b >= 0)) | (b == np.rint(b)) & (a != 0)
    return np.power(a, b, out=np.zeros_like(a), where=defined)


def _wrap(value, high, low):
    span = high - low
    return np.where(span != 0, value - span * np.floor(_divided(value - low, span)), low)


def _pingpong(value, scale):
    turns = _divided(value - scale, 2 * scale)
    return np.abs((turns - np.floor(turns)) * 2 * scale - scale)


# Blender's names and definitions: https://docs.blender.org/manual/en/latest/render/shader_nodes/converter/math.html
_MATH = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": _divided,
    "multiply_add": lambda a, b, c: a * b + c,
    "power": _power,
    "sqrt": lambda a: np.sqrt(np.maximum(a, 0)),
    "minimum": np.minimum,
    "maximum": np.maximum,
    "less_than": lambda a, b: (a < b).astype(np.float64),
    "greater_than": lambda a, b: (a > b).astype(np.float64),
    "absolute": np.abs,
    "round": lambda a: np.floor(a + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
    "fract": lambda a: a - np.floor(a),
    "modulo": lambda a, b: np.fmod(a, b, out=np.zeros_like(a), where=b != 0),
    "wrap": _wrap,
    "pingpong": _pingpong,
}

_BLENDS = {
    name: (lambda f, a, b, blend=blend: (1 - f) * a + f * blend(a, b))
    for name, blend in {
        "mix": lambda a, b: b,
        "multiply": lambda a, b: a * b,
        "add": lambda a, b: a + b,
        "subtract": lambda a, b: a - b,
        "screen": lambda a, b: 1 - (1 - a) * (1 - b),
        "divide": lambda a, b: np.divide(a, b, out=a.copy(), where=b != 0),
        "difference": lambda a, b: np.abs(a - b),
        "darken": np.minimum,
        "lighten": np.maximum,
        "overlay": lambda a, b: np.where(a < 0.5, 2 * a * b, 1 - 2 * (1 - a) * (1 - b)),
    }.items()
}
