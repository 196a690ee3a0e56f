import numpy as np
import pytest
from scipy.stats import kstest

from pipeline.stage import rng_for
from render.blender_pass import RenderViews
from render.cameras import RIGS, Rig, rig_named

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


# ------------------------------------------------------------------------------------------------------------ other rigs

OTHERS = ["ring-12@1", "fibonacci-24@1", "shell-12@1"]


def directions(cameras) -> np.ndarray:
    positions = np.array([camera.position for camera in cameras])
    return positions / np.linalg.norm(positions, axis=1, keepdims=True)


@pytest.mark.parametrize("name", OTHERS)
def test_every_rig_has_as_many_proper_cameras_as_its_name_says_and_the_unit_sphere_in_frame(name, rng):
    rig = rig_named(name)
    points = rng.normal(size=(20_000, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    cameras = rig.cameras(320, 200, rng_for("made/1"))
    assert rig.name == name and len(cameras) == int(name.split("-")[1].split("@")[0])
    for camera in cameras:
        rotation = camera.camera_to_world[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1)
        np.testing.assert_allclose(rotation[:, 2], -camera.position / np.linalg.norm(camera.position), atol=1e-12)
        pixels, depth = camera.project(points)
        assert (depth > 0).all() and (pixels > 0).all() and (pixels < (320, 200)).all()


def test_the_ring_is_objaverse_renderings():
    """Its script puts camera k of n at (sin 60° cos t, sin 60° sin t, cos 60°) of Blender's frame, t = k / n turns."""
    for k, (x, y, z) in enumerate(directions(rig_named("ring-12@1").cameras(8, 8))):
        phi, theta = np.radians(60), k / 12 * 2 * np.pi
        in_blender = (np.sin(phi) * np.cos(theta), np.sin(phi) * np.sin(theta), np.cos(phi))
        np.testing.assert_allclose((x, -z, y), in_blender, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 12, 24, 100, 999])
def test_the_fibonacci_rig_is_spread_evenly(count):
    """No two cameras are much nearer than in a perfect packing of so many (hexagonal: each has 4 pi / count of the sphere)."""
    placed = directions(rig_named(f"fibonacci-{count}@1").cameras(8, 8))
    assert len(placed) == count
    np.testing.assert_allclose(np.sort(placed[:, 1]), (2 * np.arange(count) + 1) / count - 1, atol=1e-12)  # bands of equal area
    if count > 2:
        between = np.arccos(np.clip(placed @ placed.T, -1, 1)) + 10 * np.eye(count)
        assert between.min() > 0.75 * np.sqrt(4 * np.pi / count * 2 / np.sqrt(3))


def test_the_shell_is_drawn_evenly_from_the_sphere_and_from_its_range_of_distances():
    cameras = [camera for object in range(40) for camera in rig_named("shell-100@1").cameras(8, 8, rng_for(f"made/{object}"))]
    placed = directions(cameras)
    distances = np.linalg.norm([camera.position for camera in cameras], axis=1) / (1.04 / np.sin(np.radians(20)))
    # Archimedes: on an evenly covered sphere, each coordinate is evenly distributed
    for values, low, high in [*((axis, -1, 1) for axis in placed.T), (distances, 1, 2.2 / 1.5)]:
        assert kstest(values, "uniform", (low, high - low)).pvalue > 0.01
    assert distances.min() >= 1 and distances.max() <= 2.2 / 1.5


def test_chance_in_a_rig_is_the_objects_own():
    def placed(object_id, width, seed=0):
        cameras = RenderViews(rig="shell-12@1", width=width, seed=seed).cameras(object_id)
        return np.array([camera.position for camera in cameras])

    np.testing.assert_array_equal(placed("made/1", 64), placed("made/1", 640))
    for other in (placed("made/2", 64), placed("made/1", 64, seed=1)):
        assert np.linalg.norm(other - placed("made/1", 64), axis=1).min() > 1e-3


def test_a_rig_never_changes():
    np.testing.assert_allclose(
        directions(rig_named("fibonacci-24@1").cameras(8, 8))[1], (-0.3569771731, 0.875, -0.3270203325), atol=1e-9
    )
    np.testing.assert_allclose(
        rig_named("shell-12@1").cameras(8, 8, rng_for("made/1"))[0].position, (3.5606248852, -1.3611679687, 1.0687447780), atol=1e-9
    )


@pytest.mark.parametrize(
    "name", ["nowhere@1", "ring-0@1", "ring-12@2", "ring-12", "shell--1@1", "fibonacci-1000@1", "openshape-24@1"]
)
def test_an_unknown_rig_is_refused_with_those_there_are(name):
    with pytest.raises(ValueError, match=f"no camera rig {name}; there is openshape-12@1, ring-N@1, fibonacci-N@1, shell-N@1"):
        rig_named(name)
