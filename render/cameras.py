"""Where cameras stand: named, versioned rigs of pinhole cameras around the unit sphere, in the canonical frame.

Directions are counted as the field counts them, in Blender's z-up frame: a polar angle from the up axis and an azimuth around it,
(sin θ cos φ, sin θ sin φ, cos θ). The canonical frame of schemas.tables has +y up and +z to the front; canonical x is Blender's x,
canonical y is Blender's z, and canonical z is minus Blender's y. So a camera stands, in the canonical frame, in the direction
(sin θ cos φ, cos θ, -sin θ sin φ): azimuth 270° is in front of the object.

Distance and field of view are ours in every rig: the unit sphere is in the picture. The field's scripts scale the object into a
cube of side 1 and stand so near (1.2, at 49°) that corners of it are cut off.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import acos, degrees

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera. Pixels: the image's top left corner is (0, 0), the centre of its first pixel (0.5, 0.5).

    `camera_to_world` takes camera coordinates (OpenCV axes: x right, y down, z forward) to the canonical frame.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    camera_to_world: Float[np.ndarray, "4 4"]

    @property
    def position(self) -> Float[np.ndarray, "3"]:
        """Where the camera stands, canonical frame."""
        return self.camera_to_world[:3, 3]

    def project(self, points: Float[np.ndarray, "n 3"]) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
        """Points of the canonical frame to pixels (x right, y down) and depth along the view axis; negative: behind the camera."""
        seen = (points - self.position) @ self.camera_to_world[:3, :3]
        return seen[:, :2] / seen[:, 2:] * (self.fx, self.fy) + (self.cx, self.cy), seen[:, 2]


@dataclass(frozen=True, kw_only=True)
class Rig:
    """Cameras that all look at the origin, from so far that the unit sphere fills the picture but for a margin, or farther.

    `directions`: (polar angle, azimuth) in degrees, in `view` order; or a function that draws them by an object's own chance, each
    with how many times that distance its camera stands away. `fov`: field of view of the picture's shorter side, degrees.
    A rig never changes: another set of cameras gets another name or version.
    """

    name: str
    directions: tuple[tuple[float, float], ...] | Callable[[np.random.Generator], list[tuple[float, float, float]]]
    fov: float = 40.0
    margin: float = 1.04

    def cameras(self, width: int, height: int, rng: np.random.Generator | None = None) -> list[Camera]:
        """The rig's cameras for pictures of this size, in `view` order; `rng`: an object's own, for rigs with chance in them."""
        half = np.radians(self.fov) / 2
        focal = min(width, height) / 2 / np.tan(half)
        directions = self.directions(rng) if callable(self.directions) else [(*each, 1.0) for each in self.directions]
        return [
            Camera(
                width=width,
                height=height,
                fx=focal,
                fy=focal,
                cx=width / 2,
                cy=height / 2,
                camera_to_world=_looking_inwards(polar, azimuth, farther * self.margin / np.sin(half)),
            )
            for polar, azimuth, farther in directions
        ]


def _looking_inwards(polar: float, azimuth: float, distance: float) -> Float[np.ndarray, "4 4"]:
    """Camera to canonical frame, of a camera that looks at the origin; upright, and defined at the poles too.

    Its axes are the unit vectors of spherical coordinates: x (right) along growing azimuth, y (down) along growing polar angle.
    """
    sin_polar, cos_polar = np.sin(np.radians(polar)), np.cos(np.radians(polar))
    sin_azimuth, cos_azimuth = np.sin(np.radians(azimuth)), np.cos(np.radians(azimuth))
    outwards = np.array([sin_polar * cos_azimuth, cos_polar, -sin_polar * sin_azimuth])
    right = np.array([-sin_azimuth, 0, -cos_azimuth])
    down = np.array([cos_polar * cos_azimuth, -sin_polar, -cos_polar * sin_azimuth])
    camera_to_world = np.eye(4)
    camera_to_world[:3] = np.stack([right, down, -outwards, distance * outwards], axis=1)
    return camera_to_world


def _rings(*rings: tuple[float, float, int]) -> tuple[tuple[float, float], ...]:
    """(polar angle, first azimuth, count) per ring to directions, evenly spaced on each ring."""
    return tuple((polar, first + 360 * k / count) for polar, first, count in rings for k in range(count))


def _fibonacci(count: int) -> tuple[tuple[float, float], ...]:
    """Directions spread evenly over the sphere, from the top down: in the middle of bands of equal area, a golden angle apart.
    Gonzalez 2010, "Measurement of areas on a sphere using Fibonacci and latitude-longitude lattices"."""
    golden = 180 * (3 - 5**0.5)
    return tuple((degrees(acos(1 - (2 * k + 1) / count)), k * golden % 360) for k in range(count))


def _shell(count: int) -> Callable[[np.random.Generator], list[tuple[float, float, float]]]:
    """Directions drawn evenly from the sphere, and distances evenly between the nearest and 2.2 / 1.5 times as far.

    The range is that of Zero-1-to-3's script (Liu et al. 2023), 1.5 to 2.2; its directions crowd towards the corners of a cube.
    """

    def draw(rng: np.random.Generator) -> list[tuple[float, float, float]]:
        return [(degrees(acos(1 - 2 * up)), 360 * around, 1 + (2.2 / 1.5 - 1) * far) for up, around, far in rng.random((count, 3))]

    return draw


RIGS = {
    rig.name: rig
    for rig in (
        # The twelve fixed views of OpenShape (Liu et al. 2023), which most point-image-text encoders were trained on.
        Rig(name="openshape-12@1", directions=_rings((60.0, 30.0, 4), (90.0, 60.0, 4), (120.0, 0.0, 4))),
    )
}

# Rigs of any number of cameras: by the name's beginning, what that number makes.
FAMILIES = {
    # objaverse-rendering's (Deitke et al. 2023; 12 unless told): from azimuth 0, the canonical +x, round by the back.
    "ring": lambda count: _rings((60.0, 0.0, count)),
    "fibonacci": _fibonacci,
    "shell": _shell,
}


def rig_named(name: str) -> Rig:
    """The rig of this name. Raises ValueError when there is none."""
    if name in RIGS:
        return RIGS[name]
    if (parts := re.fullmatch(r"([a-z]+)-([1-9]\d{0,2})@1", name)) and parts[1] in FAMILIES:
        return Rig(name=name, directions=FAMILIES[parts[1]](int(parts[2])))
    there_is = [*RIGS, *(f"{family}-N@1" for family in FAMILIES)]
    raise ValueError(f"there is no camera rig {name}; there is {', '.join(there_is)} (N: how many cameras, 1 to 999)")
