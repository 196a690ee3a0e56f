"""The canonical frame of an object that was photographed; its views and its points both take it from here.

COLMAP's world has no up, no front and no unit, so they are taken from how people take photos:

up      where the tops of the photos point, tilt left out: the direction to which the cameras' right-hand axes are most nearly
        at right angles. Handheld cameras roll by a few degrees and pitch by many.
front   where the first photo (by name) was taken from, seen from the object: its capture began there. The true front is unknown.
centre  with a point cloud of the object: the centre of its box along these axes, its farthest point at distance 1, as everywhere.
size    Without: where the optical axes come closest to each other, and the ball around it with most of COLMAP's points near it.
"""

import numpy as np
from jaxtyping import Float

from pipeline.frame import ball_of, placed
from pipeline.photos.colmap import Model, Pose
from pipeline.stage import ObjectError

ROLL = np.radians(3)  # of a camera in a hand, standard deviation

# Without a cloud: COLMAP's points within this share of the cameras' distance are looked at, and the ball holds this share of them.
NEAR, HELD = 0.35, 0.9
FEWEST = 20  # points below which nothing is said of the size

# What has been measured in COLMAP's world without a photo: it stands as its first camera stood, which people hold upright.
AS_THE_FIRST_CAMERA = np.diag([1.0, -1.0, -1.0])


def frame_of_photos(model: Model, cloud: Float[np.ndarray, "n 3"] | None) -> Float[np.ndarray, "4 4"]:
    """COLMAP's world to the canonical frame; `cloud`: the object's own points in COLMAP's world, where there are any.

    Raises ObjectError("no_common_view"): without a cloud, the photos must show one thing from several sides.
    """
    poses = list(model.poses.values())
    center = cloud.mean(axis=0) if cloud is not None else _where_axes_meet(poses)
    rotation = _upright(_up(poses), poses[0].position - center)
    if cloud is not None:
        return frame_of_cloud(cloud, rotation)
    distance = float(np.median([np.linalg.norm(pose.position - center) for pose in poses]))
    return placed(rotation, center, _radius(model.xyz, center, distance))


def frame_of_cloud(cloud: Float[np.ndarray, "n 3"], rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "4 4"]:
    """The frame with these axes, the centre of the cloud's box at the origin and its farthest point at distance 1.

    Raises ObjectError("no_extent") for a cloud that is one point.
    """
    turned = cloud @ rotation.T
    center, radius = ball_of(turned)
    if not radius > 0:
        raise ObjectError("no_extent", f"the {len(cloud)} points of the cloud all lie in one place")
    return placed(rotation, rotation.T @ center, radius)


def _up(poses: list[Pose]) -> Float[np.ndarray, "3"]:
    """The least-squares answer to "at right angles to all right-hand axes", which leans on the mean of the photos' tops where all
    photos were taken from about one side."""
    rights = np.stack([pose.rotation[0] for pose in poses])
    tops = -np.stack([pose.rotation[1] for pose in poses]).mean(axis=0)
    return np.linalg.solve(rights.T @ rights / len(rights) + ROLL**2 * np.eye(3), tops)


def _upright(up: Float[np.ndarray, "3"], front: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """World to axes with y up and z as near to `front` as can be."""
    y = up / np.linalg.norm(up)
    level = front - (front @ y) * y
    if np.linalg.norm(level) < 1e-3 * np.linalg.norm(front):  # taken from straight above: any side will do
        level = np.eye(3)[np.abs(y).argmin()]
        level = level - (level @ y) * y
    z = level / np.linalg.norm(level)
    return np.stack([np.cross(y, z), y, z])


def _where_axes_meet(poses: list[Pose]) -> Float[np.ndarray, "3"]:
    """The point with the least sum of squared distances to the optical axes."""
    positions, ahead = np.stack([pose.position for pose in poses]), np.stack([pose.rotation[2] for pose in poses])
    across = np.eye(3) - ahead[:, :, None] * ahead[:, None, :]
    summed = across.sum(axis=0)
    if np.linalg.eigvalsh(summed)[0] < 1e-4 * len(poses):  # half a degree between the axes
        raise ObjectError("no_common_view", f"all {len(poses)} photos look in one direction: where the object is cannot be told")
    meet = np.linalg.solve(summed, (across @ positions[:, :, None]).sum(axis=0)[:, 0])
    if np.median(((meet - positions) * ahead).sum(axis=1)) <= 0:
        raise ObjectError("no_common_view", f"the {len(poses)} photos look away from each other: they do not show one object")
    return meet


def _radius(xyz: Float[np.ndarray, "n 3"], center: Float[np.ndarray, "3"], distance: float) -> float:
    apart = np.linalg.norm(xyz - center, axis=1)
    near = apart[apart < NEAR * distance]
    return float(np.quantile(near, HELD)) if len(near) >= FEWEST else NEAR * distance
