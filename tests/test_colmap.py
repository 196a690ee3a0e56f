import struct

import numpy as np
import pytest
from photo_scene import LENS, SPOTS, in_world, make_object

from pipeline.photos.colmap import Lens, read_model
from pipeline.stage import ObjectError


def files_of(folder):
    return {path.name: path for path in (folder / "sparse" / "0").iterdir()}


def reprojection_errors(model):
    """Pixels between where COLMAP found a point on a photo and where its pose and lens put it."""
    row_of = {int(id): row for row, id in enumerate(model.ids)}
    errors = []
    for pose in model.poses.values():
        known = pose.points >= 0
        seen = model.xyz[[row_of[int(id)] for id in pose.points[known]]] @ pose.rotation.T + pose.translation
        errors.append(np.linalg.norm(pose.lens.pixels(seen[:, :2] / seen[:, 2:]) - pose.seen[known], axis=1))
    return np.concatenate(errors)


@pytest.mark.parametrize("text", [False, True])
def test_what_colmap_wrote_is_read_and_its_points_fall_on_what_it_saw(tmp_path, text):
    model = read_model(files_of(make_object(tmp_path / "a", 5, text=text)))
    assert list(model.poses) == [f"{number:03d}.jpg" for number in range(1, 6)]
    assert model.poses["001.jpg"].lens == LENS
    np.testing.assert_allclose(model.xyz, in_world(SPOTS))
    assert reprojection_errors(model).max() < 1e-9


def test_a_model_without_points_has_none(tmp_path):
    files = files_of(make_object(tmp_path / "a", 5))
    del files["points3D.bin"]
    assert read_model(files).xyz.shape == (0, 3)


def test_a_file_that_is_cut_anywhere_is_refused_by_its_name(tmp_path):
    files = files_of(make_object(tmp_path / "a", 5))
    for name, path in files.items():
        whole = path.read_bytes()
        for length in {0, 3, 8, 20, len(whole) // 2, len(whole) - 9, len(whole) - 1}:
            path.write_bytes(whole[:length])
            with pytest.raises(ObjectError, match=f"{name} is cut short or is no file of COLMAP's") as raised:
                read_model(files)
            assert raised.value.reason == "model_unreadable"
        path.write_bytes(whole)


@pytest.mark.parametrize("kind", ["cameras", "images", "points3D"])
def test_a_count_that_is_not_true_costs_nothing(tmp_path, kind):
    files = files_of(make_object(tmp_path / "a", 5))
    path = files[f"{kind}.bin"]
    path.write_bytes(struct.pack("<Q", 1 << 62) + path.read_bytes()[8:])
    with pytest.raises(ObjectError, match="cut short"):
        read_model(files)


@pytest.mark.parametrize("lost", ["cameras.bin", "images.bin"])
def test_without_its_files_there_are_no_poses(tmp_path, lost):
    files = files_of(make_object(tmp_path / "a", 5))
    del files[lost]
    with pytest.raises(ObjectError, match=lost) as raised:
        read_model(files)
    assert raised.value.reason == "no_poses"


def test_a_lens_of_another_model_is_refused_by_its_name(tmp_path):
    files = files_of(make_object(tmp_path / "a", 5, text=True))
    path = files["cameras.txt"]
    path.write_text(path.read_text().replace("OPENCV", "OPENCV_FISHEYE"))
    with pytest.raises(ObjectError, match="model OPENCV_FISHEYE; those understood are SIMPLE_PINHOLE") as raised:
        read_model(files)
    assert raised.value.reason == "unknown_lens"


@pytest.mark.parametrize(
    "told, lens",
    [
        ("SIMPLE_PINHOLE 240 320 300 118 165", Lens(width=240, height=320, fx=300, fy=300, cx=118, cy=165)),
        ("PINHOLE 240 320 300 290 118 165", Lens(width=240, height=320, fx=300, fy=290, cx=118, cy=165)),
        ("SIMPLE_RADIAL 240 320 300 118 165 0.1", Lens(width=240, height=320, fx=300, fy=300, cx=118, cy=165, k1=0.1)),
        ("RADIAL 240 320 300 118 165 0.1 0.2", Lens(width=240, height=320, fx=300, fy=300, cx=118, cy=165, k1=0.1, k2=0.2)),
    ],
)
def test_each_model_of_a_lens_has_its_own_order_of_parameters(tmp_path, told, lens):
    files = files_of(make_object(tmp_path / "a", 5, text=True))
    files["cameras.txt"].write_text(f"7 {told}\n")
    assert read_model(files).poses["001.jpg"].lens == lens


def test_a_ray_goes_through_the_lens_and_back(rng):
    rays = rng.uniform(-0.5, 0.5, (200, 2))
    assert np.abs(LENS.pixels(LENS.rays(LENS.pixels(rays))) - LENS.pixels(rays)).max() < 0.01


def test_a_lens_bends_as_opencv_says():
    lens = Lens(width=2, height=2, fx=10, fy=20, cx=1, cy=2, k1=0.1, k2=0.01, p1=0.2, p2=0.3)
    x, y, r2 = 0.5, -0.25, 0.3125
    radial = 1 + 0.1 * r2 + 0.01 * r2**2
    across = x * radial + 2 * 0.2 * x * y + 0.3 * (r2 + 2 * x**2)
    down = y * radial + 0.2 * (r2 + 2 * y**2) + 2 * 0.3 * x * y
    np.testing.assert_allclose(lens.pixels(np.array([x, y])), [10 * across + 1, 20 * down + 2])


def test_a_lens_that_folds_its_picture_is_refused():
    with pytest.raises(ObjectError, match="bends its picture"):
        Lens(width=100, height=100, fx=50, fy=50, cx=50, cy=50, k1=-2.0).rays(np.array([[0.0, 0.0]]))


@pytest.mark.parametrize("id, photos", [("192/0a0ff1c0", 13), ("53/0f0cca22", 22)])
def test_real_models_are_read_to_colmaps_own_accuracy(assets, id, photos):
    model = read_model(files_of(assets / "mvimgnet" / id))
    assert len(model.poses) == photos
    assert reprojection_errors(model).mean() < 1.0
