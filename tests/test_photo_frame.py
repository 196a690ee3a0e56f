import numpy as np
import pytest
from photo_scene import DISTANCE, LENS, MOVE, SCALE, TURN, in_world, poses

from pipeline.photos.colmap import Model, Pose
from pipeline.photos.photo_frame import NEAR, frame_of_cloud, frame_of_photos
from pipeline.stage import ObjectError

UP = TURN @ (0, 1, 0)


def model(cameras, xyz=None):
    """Photos without anything found on them."""
    nothing = {"seen": np.zeros((0, 2)), "points": np.zeros(0, np.int64)}
    photos = {
        f"{number:03d}.jpg": Pose(lens=LENS, rotation=rotation, translation=translation, **nothing)
        for number, (rotation, translation) in enumerate(cameras)
    }
    xyz = np.zeros((0, 3)) if xyz is None else xyz
    return Model(poses=photos, xyz=xyz, ids=np.arange(len(xyz)))


def degrees_from_up(frame):
    up = np.linalg.inv(frame[:3, :3]) @ (0, 1, 0)
    return np.degrees(np.arccos(min(1, up @ UP / np.linalg.norm(up))))


def rolled(cameras, rng, degrees):
    """The cameras, each turned around its optical axis by a few degrees."""
    for rotation, translation in cameras:
        angle = np.radians(rng.normal(scale=degrees))
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        yield turn @ rotation, turn @ translation


@pytest.mark.parametrize("pitch", [0, 30, 60])
@pytest.mark.parametrize("around", [120, 180, 360])
def test_up_is_found_whatever_the_cameras_look_down_by(around, pitch, rng):
    cameras = poses(30, around=around, pitch=pitch)
    assert degrees_from_up(frame_of_photos(model(cameras), None)) < 2
    assert degrees_from_up(frame_of_photos(model(list(rolled(cameras, rng, 3))), None)) < 5


def test_up_of_photos_from_one_side_leans_on_their_tops():
    assert degrees_from_up(frame_of_photos(model(poses(10, around=5, pitch=10)), None)) < 11


def test_the_first_photo_was_taken_from_the_front():
    frame = frame_of_photos(model(poses(12, pitch=40)), None)
    x, y, z = frame[:3, :3] @ model(poses(12, pitch=40)).poses["000.jpg"].position + frame[:3, 3]
    assert abs(x) < 1e-6 and z > 0 and y > 0


def test_with_a_cloud_its_box_is_centred_and_its_farthest_point_at_distance_1(rng):
    cloud = in_world(rng.uniform(-1, 1, (500, 3)) * (1, 0.5, 0.2) + (0.3, 0.2, 0.1))
    frame = frame_of_photos(model(poses(12)), cloud)
    placed = cloud @ frame[:3, :3].T + frame[:3, 3]
    np.testing.assert_allclose(placed.min(axis=0), -placed.max(axis=0), atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(placed, axis=1).max(), 1)
    assert np.ptp(placed, axis=0).argsort().tolist() == [2, 1, 0]  # deep, high and wide as it was made


def test_a_frame_turns_moves_and_scales_and_does_nothing_else(rng):
    for cloud in (None, rng.normal(size=(50, 3))):
        frame = frame_of_photos(model(poses(12)), cloud)
        scale = np.cbrt(np.linalg.det(frame[:3, :3]))
        assert scale > 0
        np.testing.assert_allclose(frame[:3, :3] @ frame[:3, :3].T, scale**2 * np.eye(3), atol=1e-12)
        np.testing.assert_array_equal(frame[3], [0, 0, 0, 1])


def test_without_a_cloud_the_centre_is_what_the_photos_aim_at_and_the_size_is_that_of_the_points_near_it(rng):
    near = rng.normal(size=(300, 3))
    near *= 0.5 / np.linalg.norm(near, axis=1, keepdims=True)
    far = rng.normal(size=(1000, 3))
    far *= 5 / np.linalg.norm(far, axis=1, keepdims=True)
    frame = frame_of_photos(model(poses(12), in_world(np.concatenate([near, far]))), None)
    np.testing.assert_allclose(frame[:3, :3] @ MOVE + frame[:3, 3], 0, atol=1e-9)
    assert np.cbrt(np.linalg.det(frame[:3, :3])) == pytest.approx(1 / (0.5 * SCALE))
    alone = frame_of_photos(model(poses(12)), None)
    assert np.cbrt(np.linalg.det(alone[:3, :3])) == pytest.approx(1 / (NEAR * DISTANCE * SCALE))


def test_photos_that_show_no_common_thing_are_refused():
    one = poses(1)[0]
    aside = [(one[0], one[1] + (step, 0, 0)) for step in range(5)]
    outwards = [(np.diag([-1.0, 1, -1]) @ rotation, np.diag([-1.0, 1, -1]) @ translation) for rotation, translation in poses(8)]
    for cameras, said in ((aside, "look in one direction"), (outwards, "look away from each other")):
        with pytest.raises(ObjectError, match=said) as raised:
            frame_of_photos(model(cameras), None)
        assert raised.value.reason == "no_common_view"


def test_a_cloud_that_is_one_point_is_refused():
    with pytest.raises(ObjectError) as raised:
        frame_of_cloud(np.ones((7, 3)), np.eye(3))
    assert raised.value.reason == "no_extent"
