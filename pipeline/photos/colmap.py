"""COLMAP's sparse models: where each photo was taken from, through which lens, and the points it was found by.

cameras, images and points3D, each .bin or .txt (https://colmap.github.io/format.html). COLMAP's axes are OpenCV's (x right, y down,
z forward); a photo's top left corner is (0, 0), the centre of its first pixel (0.5, 0.5). The world's unit and axes mean nothing.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from pipeline.stage import ObjectError

FILES = ("cameras", "images", "points3D")

_MODELS = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")  # by number; COLMAP has more
_PARAMETERS = (3, 4, 4, 5, 8)
_OBSERVATION = np.dtype([("x", "<f8"), ("y", "<f8"), ("point", "<i8")])


@dataclass(frozen=True, kw_only=True)
class Lens:
    """A camera of COLMAP's. Focal lengths and principal point in pixels; k1 k2 (radial), p1 p2 (tangential) as OpenCV has them."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    k1: float = 0.0
    k2: float = 0.0
    p1: float = 0.0
    p2: float = 0.0

    def pixels(self, rays: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Where the lens puts rays (x/z, y/z) on the photo. COLMAP's sensor models: src/colmap/sensor/models.h."""
        return self._bent(rays) * (self.fx, self.fy) + (self.cx, self.cy)

    def rays(self, pixels: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """The rays (x/z, y/z) that fall on pixels: `pixels` the other way round, to a hundredth of a pixel.

        Raises ObjectError("lens_folds") where the distortion is so strong that there is no way back.
        """
        wanted = (np.asarray(pixels, np.float64) - (self.cx, self.cy)) / (self.fx, self.fy)
        rays = wanted
        for _ in range(100):
            off = wanted - self._bent(rays)
            if np.abs(off).max(initial=0) * max(self.fx, self.fy) < 0.01:
                return rays
            rays = np.clip(rays + off, -10, 10)
        raise ObjectError("lens_folds", f"the lens {self} bends its picture so much that it cannot be made straight: leave it out")

    def _bent(self, rays: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        x, y = rays[..., 0], rays[..., 1]
        square = x * x + y * y
        radial = 1 + square * (self.k1 + square * self.k2)
        return np.stack(
            [
                x * radial + 2 * self.p1 * x * y + self.p2 * (square + 2 * x * x),
                y * radial + 2 * self.p2 * x * y + self.p1 * (square + 2 * y * y),
            ],
            axis=-1,
        )


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where a photo was taken from, and what was found on it.

    `rotation`, `translation`: world to camera. `seen` (k, 2): pixels of what was found; `points` (k,): ids of the points they show,
    -1: of none.
    """

    lens: Lens
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]
    seen: Float[np.ndarray, "k 2"]
    points: Int[np.ndarray, " k"]

    @property
    def position(self) -> Float[np.ndarray, "3"]:
        """Of the camera, in the world."""
        return -self.rotation.T @ self.translation


@dataclass(frozen=True, kw_only=True)
class Model:
    """`poses`: by the photo's name, in the order of the names; not every photo has one. `xyz`, `ids`: the points, in the world."""

    poses: dict[str, Pose]
    xyz: Float[np.ndarray, "n 3"]
    ids: Int[np.ndarray, " n"]


def read_model(files: Mapping[str, Path]) -> Model:
    """The model of three files, given by their names in the folder ("cameras.bin", ...); without points3D it has no points.

    Raises ObjectError: no_poses (files are missing), model_unreadable (cut short or not COLMAP's), unknown_lens.
    """
    lacks = [kind for kind in ("cameras", "images") if not any(f"{kind}.{form}" in files for form in ("bin", "txt"))]
    if lacks:
        raise ObjectError(
            "no_poses", f"there is no {lacks[0]}.bin or {lacks[0]}.txt: COLMAP found no model, or it was not unpacked"
        )
    lenses = _read(files, "cameras", _lenses, _lenses_of_text)
    found = _read(files, "images", _images, _images_of_text)
    xyz, ids = np.zeros((0, 3)), np.zeros(0, np.int64)
    if any(name.startswith("points3D.") for name in files):
        xyz, ids = _read(files, "points3D", _points, _points_of_text)
    poses = {}
    for name, (quaternion, translation, lens, seen, points) in sorted(found.items()):
        if lens not in lenses:
            raise ObjectError(
                "model_unreadable", f"the photo {name} was taken by camera {lens}, which cameras.bin lacks: get the model again"
            )
        poses[name] = Pose(
            lens=lenses[lens],
            rotation=_rotation(name, quaternion),
            translation=np.array(translation, np.float64),
            seen=seen,
            points=points,
        )
    return Model(poses=poses, xyz=xyz, ids=ids)


def _read(files: Mapping[str, Path], kind: str, of_bytes, of_text):
    """What a reader makes of a file of the model; whatever it stumbles over becomes an ObjectError that names the file."""
    name = f"{kind}.bin" if f"{kind}.bin" in files else f"{kind}.txt"
    try:
        if name.endswith(".bin"):
            return of_bytes(files[name].read_bytes())
        return of_text(files[name].read_text(encoding="utf-8", errors="surrogateescape").splitlines())
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise ObjectError(
            "model_unreadable", f"{name} is cut short or is no file of COLMAP's ({error}): get the model again"
        ) from error


def _lens(model: int | str, width: int, height: int, parameters) -> Lens:
    if isinstance(model, int):
        model = _MODELS[model] if 0 <= model < len(_MODELS) else f"number {model}"
    if model not in _MODELS:
        raise ObjectError(
            "unknown_lens",
            f"the photos were taken through a lens of COLMAP's model {model}; those understood are {', '.join(_MODELS)}",
        )
    parameters = [float(value) for value in parameters]
    if model.startswith(("SIMPLE", "RADIAL")):  # one focal length
        parameters.insert(0, parameters[0])
    lens = Lens(width=int(width), height=int(height), **dict(zip(_names(model), parameters, strict=True)))
    if not (
        np.isfinite(parameters).all() and min(lens.fx, lens.fy) > 0 and 0 < min(width, height) and max(width, height) < 1 << 20
    ):
        raise ValueError(f"a camera of {width} x {height} pixels with parameters {parameters}")
    return lens


def _names(model: str) -> tuple[str, ...]:
    bent = {"SIMPLE_RADIAL": ("k1",), "RADIAL": ("k1", "k2"), "OPENCV": ("k1", "k2", "p1", "p2")}
    return ("fx", "fy", "cx", "cy", *bent.get(model, ()))


def _rotation(name: str, quaternion) -> Float[np.ndarray, "3 3"]:
    length = np.linalg.norm(quaternion)
    if not (np.isfinite(length) and length > 1e-6):
        raise ObjectError(
            "model_unreadable", f"the photo {name} has the rotation {tuple(quaternion)}, which is none: get the model again"
        )
    w, x, y, z = np.asarray(quaternion) / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


# ----------------------------------------------------------------------------------------------------------------- binary


def _lenses(data: bytes) -> dict[int, Lens]:
    (count,), at, found = struct.unpack_from("<Q", data), 8, {}
    for _ in range(count):  # a count that is not true ends where the bytes do
        id, model, width, height = struct.unpack_from("<iiQQ", data, at)
        parameters = struct.unpack_from(f"<{_PARAMETERS[model] if 0 <= model < len(_PARAMETERS) else 0}d", data, at + 24)
        found[id] = _lens(model, width, height, parameters)
        at += 24 + 8 * len(parameters)
    return found


def _images(data: bytes) -> dict[str, tuple]:
    (count,), at, found = struct.unpack_from("<Q", data), 8, {}
    for _ in range(count):
        _, qw, qx, qy, qz, tx, ty, tz, lens = struct.unpack_from("<i7di", data, at)
        end = data.index(b"\0", at + 64)
        name = data[at + 64 : end].decode("utf-8", "surrogateescape")
        (seen,) = struct.unpack_from("<Q", data, end + 1)
        observed = np.frombuffer(data, _OBSERVATION, count=_affordable(seen), offset=end + 9)
        found[name] = ((qw, qx, qy, qz), (tx, ty, tz), lens, np.stack([observed["x"], observed["y"]], axis=1), observed["point"])
        at = end + 9 + _OBSERVATION.itemsize * seen
    return found


def _points(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    (count,), at, xyz, ids = struct.unpack_from("<Q", data), 8, [], []
    for _ in range(count):
        id, x, y, z, length = struct.unpack_from("<Q3d3x8xQ", data, at)
        xyz.append((x, y, z))
        ids.append(id)
        at += 51 + 8 * length
    if at > len(data):
        raise ValueError(f"{at - len(data)} bytes are missing")
    return np.array(xyz, np.float64).reshape(-1, 3), np.array(ids, np.int64)


def _affordable(count: int) -> int:
    if count > 1 << 40:
        raise ValueError(f"{count} observations on one photo")
    return count


# ------------------------------------------------------------------------------------------------------------------- text


def _lenses_of_text(lines: list[str]) -> dict[int, Lens]:
    found = {}
    for line in _told(lines):
        id, model, width, height, *parameters = line.split()
        found[int(id)] = _lens(model, int(width), int(height), parameters)
    return found


def _images_of_text(lines: list[str]) -> dict[str, tuple]:
    lines = [line for line in lines if not line.startswith("#")]
    found = {}
    for pose, observed in zip(lines[::2], lines[1::2] + [""] * (len(lines) % 2), strict=True):
        if not pose.strip():
            continue
        _, qw, qx, qy, qz, tx, ty, tz, lens, name = pose.split(maxsplit=9)
        numbers = np.array(observed.split(), np.float64).reshape(-1, 3)
        quaternion, translation = [float(value) for value in (qw, qx, qy, qz)], [float(value) for value in (tx, ty, tz)]
        found[name.rstrip()] = (quaternion, translation, int(lens), numbers[:, :2], numbers[:, 2].astype(np.int64))
    return found


def _points_of_text(lines: list[str]) -> tuple[np.ndarray, np.ndarray]:
    rows = [line.split(maxsplit=4)[:4] for line in _told(lines)]
    return np.array([row[1:] for row in rows], np.float64).reshape(-1, 3), np.array([int(row[0]) for row in rows], np.int64)


def _told(lines: list[str]) -> list[str]:
    return [line for line in lines if line.strip() and not line.startswith("#")]
