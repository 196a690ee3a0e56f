import numpy as np
import pytest

from render.cameras import RIGS, Rig

CAMERAS = RIGS["openshape-12@1"].cameras(224, 224)


def test_default_rig_has_openshapes_twelve_directions():
    expected = [(60, 30 + 90 * k) for k in range(4)] + [(90, 60 + 90 * k) for k in range(4)] + [(120, 90 * k) for k in range(4)]
    for camera, (polar, azimuth) in zip(CAMERAS, np.radians(expected), strict=True):
        x, y, z = camera.position / np.linalg.norm(camera.position)
        in_blender = (np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar))
        np.testing.assert_allclose((x, -z, y), in_blender, atol=1e-12)  # Blender's axes from the canonical ones


def test_azimuth_270_is_in_front():
    front = Rig(name="front", directions=((90.0, 270.0),)).cameras(8, 8)[0]
    np.testing.assert_allclose(front.position / np.linalg.norm(front.position), (0, 0, 1), atol=1e-12)
    pixels, depth = front.project(np.array([[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]))
    assert pixels[0, 0] > 4 and pixels[1, 1] < 4  # +x is on the right, +y at the top
    assert depth[2] < depth[0]  # +z is nearer


@pytest.mark.parametrize("size", [(224, 224), (320, 200), (200, 320)])
def test_the_unit_sphere_fills_the_picture_and_no_more(size, rng):
    points = rng.normal(size=(20_000, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    for camera in RIGS["openshape-12@1"].cameras(*size):
        pixels, depth = camera.project(points)
        assert (depth > 0).all()
        assert (pixels > 0).all() and (pixels < size).all()
        assert np.ptp(pixels, axis=0).min() > 0.9 * min(size)


def test_camera_to_world_is_a_right_handed_rigid_motion_that_looks_at_the_origin_upright():
    for camera in CAMERAS:
        rotation = camera.camera_to_world[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1)
        np.testing.assert_allclose(camera.camera_to_world[3], (0, 0, 0, 1))
        np.testing.assert_allclose(rotation[:, 2], -camera.position / np.linalg.norm(camera.position), atol=1e-12)
        assert rotation[1, 0] == pytest.approx(0, abs=1e-12) and rotation[1, 1] < 0  # no roll; y points down


def test_a_camera_at_the_pole_is_defined():
    above = Rig(name="above", directions=((0.0, 270.0),)).cameras(8, 8)[0]
    pixels, _ = above.project(np.array([[0.0, 0, 0], [0.5, 0, 0], [0, 0, 0.5]]))
    np.testing.assert_allclose(pixels[0], (4, 4))
    assert pixels[1, 0] > 4 and pixels[2, 1] > 4  # +x on the right, the front below


def test_project_inverts_the_ray_through_a_pixel(rng):
    camera = CAMERAS[5]
    pixels, depth = rng.uniform(0, 224, (100, 2)), rng.uniform(1, 4, 100)
    rays = np.column_stack([(pixels - (camera.cx, camera.cy)) / (camera.fx, camera.fy), np.ones(100)]) * depth[:, None]
    seen, seen_depth = camera.project(rays @ camera.camera_to_world[:3, :3].T + camera.position)
    np.testing.assert_allclose(seen, pixels, atol=1e-9)
    np.testing.assert_allclose(seen_depth, depth, atol=1e-12)
