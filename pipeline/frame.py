"""The canonical frame (see schemas.tables) of points: their box's centre at the origin, their farthest point at distance 1."""

import numpy as np
from jaxtyping import Float


def ball_of(xyz: Float[np.ndarray, "n 3"]) -> tuple[Float[np.ndarray, "3"], float]:
    """Centre of the points' box, and the distance of the farthest point from there: 0 when all are one."""
    center = (xyz.min(axis=0) + xyz.max(axis=0)) / 2
    return center, float(np.linalg.norm(xyz - center, axis=1).max())


def placed(rotation: Float[np.ndarray, "3 3"], center: Float[np.ndarray, "3"], radius: float) -> Float[np.ndarray, "4 4"]:
    """The frame with these axes in which the ball of this centre and radius is the unit ball."""
    frame = np.eye(4)
    frame[:3, :3] = rotation / radius
    frame[:3, 3] = -rotation @ center / radius
    return frame
