"""Where cameras stand: named, versioned rigs of pinhole cameras around the unit sphere, in the canonical frame.

Directions are counted as the field counts them, in Blender's z-up frame: a polar angle from the up axis and an azimuth around it,
(sin θ cos φ, sin θ sin φ, cos θ). The canonical frame of schemas.tables has +y up and +z to the front; canonical x is Blender's x,
canonical y is Blender's z, and canonical z is minus Blender's y. So a camera stands, in the canonical frame, in the direction
(sin θ cos φ, cos θ, -sin θ sin φ): azimuth 270° is in front of the object.
"""

from dataclasses import dataclass

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
    """Cameras that all look at the origin from the same distance, so far that the unit sphere fills the picture but for a margin.

    `directions`: (polar angle, azimuth) in degrees, in `view` order. `fov`: field of view of the picture's shorter side, degrees.
    A rig never changes: another set of cameras gets another name or version.
    """

    name: str
    directions: tuple[tuple[float, float], ...]
    fov: float = 40.0
    margin: float = 1.04

    def cameras(self, width: int, height: int, rng: np.random.Generator | None = None) -> list[Camera]:
        """The rig's cameras for pictures of this size, in `view` order; `rng`: an object's own, for rigs with chance in them."""
        half = np.radians(self.fov) / 2
        focal = min(width, height) / 2 / np.tan(half)
        return [
            Camera(
                width=width,
                height=height,
                fx=focal,
                fy=focal,
                cx=width / 2,
                cy=height / 2,
                camera_to_world=_looking_inwards(polar, azimuth, self.margin / np.sin(half)),
            )
            for polar, azimuth in self.directions
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


RIGS = {
    rig.name: rig
    for rig in (
        # The twelve fixed views of OpenShape (Liu et al. 2023), which most point-image-text encoders were trained on.
        Rig(name="openshape-12@1", directions=_rings((60.0, 30.0, 4), (90.0, 60.0, 4), (120.0, 0.0, 4))),
    )
}


def rig_named(name: str) -> Rig:
    """The rig of this name. Raises ValueError when there is none."""
    if name not in RIGS:
        raise ValueError(f"there is no camera rig {name}; there is {', '.join(RIGS)}")
    return RIGS[name]
