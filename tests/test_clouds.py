import numpy as np
import open3d
import pytest

from pipeline.photos.clouds import Cloud, read_cloud
from pipeline.points import FARTHEST_FIRST, points_of_cloud
from pipeline.stage import ObjectError
from schemas.tables import POINTS_PER_OBJECT


@pytest.fixture
def cloud(rng):
    """5,000 points on a sphere, coloured in stripes, so that there is something to pack."""
    xyz = rng.normal(size=(5000, 3)).astype(np.float32).astype(np.float64)
    xyz /= np.linalg.norm(xyz, axis=1, keepdims=True)
    xyz = xyz.astype(np.float32).astype(np.float64)
    rgb = np.where(xyz[:, :1] > 0, [[255, 128, 1]], [[0, 17, 254]]).astype(np.uint8)
    return Cloud(xyz, rgb, 5000)


def written(path, cloud, **how):
    made = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(cloud.xyz))
    if cloud.rgb is not None:
        made.colors = open3d.utility.Vector3dVector(cloud.rgb / 255)
    assert open3d.io.write_point_cloud(str(path), made, **how)
    return path


@pytest.mark.parametrize("format", ["pcd", "ply"])
@pytest.mark.parametrize("how", [{}, {"write_ascii": True}, {"compressed": True}])
def test_every_form_gives_the_same_cloud(tmp_path, cloud, format, how):
    read = read_cloud(written(tmp_path / f"a.{format}", cloud, **how))
    np.testing.assert_allclose(read.xyz, cloud.xyz, atol=2e-6)
    np.testing.assert_array_equal(read.rgb, cloud.rgb)
    assert read.count == 5000


def test_a_cloud_without_colours_has_none(tmp_path, cloud):
    assert read_cloud(written(tmp_path / "a.pcd", Cloud(cloud.xyz, None, 5000))).rgb is None


@pytest.mark.parametrize("order, kind", [("<", "little"), (">", "big")])
def test_a_ply_of_either_byte_order_with_faces_and_more_properties(tmp_path, order, kind):
    header = (
        f"ply\nformat binary_{kind}_endian 1.0\ncomment x\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\n"
    )
    header += "property float nx\nproperty uchar red\nproperty uchar green\nproperty uchar blue\nelement face 1\n"
    header += "property list uchar int vertex_indices\nend_header\n"
    rows = np.array(
        [((1, 2, 3), 9, (4, 5, 6)), ((7, 8, 9), 9, (1, 2, 3))], [("p", order + "f4", 3), ("n", order + "f4"), ("c", "u1", 3)]
    )
    (tmp_path / "a.ply").write_bytes(header.encode() + rows.tobytes() + b"\x01\0\0\0\0")
    read = read_cloud(tmp_path / "a.ply")
    assert (read.xyz.tolist(), read.rgb.tolist()) == ([[1, 2, 3], [7, 8, 9]], [[4, 5, 6], [1, 2, 3]])


def test_colours_packed_into_a_float_are_unpacked_and_points_nowhere_left_out(tmp_path):
    packed = np.array([0x0A141E, 0xFF8001, 1], np.uint32).view(np.float32)
    lines = [f"{x} 0 1 {color!r}" for x, color in zip(("1", "nan", "2"), packed.tolist(), strict=True)]
    header = "VERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\nWIDTH 3\nHEIGHT 1\nPOINTS 3\nDATA ascii\n"
    (tmp_path / "a.pcd").write_text(header + "\n".join(lines) + "\n")
    read = read_cloud(tmp_path / "a.pcd")
    assert (read.xyz.tolist(), read.rgb.tolist(), read.count) == ([[1, 0, 1], [2, 0, 1]], [[10, 20, 30], [0, 0, 1]], 3)


@pytest.mark.parametrize(
    "name, how", [("a.pcd", {}), ("a.pcd", {"compressed": True}), ("a.pcd", {"write_ascii": True}), ("a.ply", {})]
)
def test_a_cloud_that_is_cut_anywhere_is_refused(tmp_path, cloud, name, how):
    path = written(tmp_path / name, cloud, **how)
    whole = path.read_bytes()
    for length in (0, 2, 30, 150, 250, len(whole) // 2, len(whole) - 50):
        path.write_bytes(whole[:length])
        with pytest.raises(ObjectError, match=f"the point cloud {name} cannot be read") as raised:
            read_cloud(path)
        assert raised.value.reason == "cloud_unreadable"


def test_counts_that_are_not_true_cost_nothing(tmp_path, cloud):
    for how in ({}, {"write_ascii": True}, {"compressed": True}):
        path = written(tmp_path / "a.pcd", cloud, **how)
        path.write_bytes(path.read_bytes().replace(b"POINTS 5000", b"POINTS 4000000000"))
        with pytest.raises(ObjectError, match="it says 4000000000 points"):
            read_cloud(path)


def test_a_cloud_of_nothing_has_no_points(tmp_path):
    (tmp_path / "a.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\nend_header\nnan 0 0\n"
    )
    with pytest.raises(ObjectError) as raised:
        read_cloud(tmp_path / "a.ply")
    assert raised.value.reason == "no_points"


def test_real_clouds_are_the_same_as_pcd_and_as_ply(assets):
    for path in sorted((assets / "eval" / "mvpnet" / "data").glob("*/*.pcd")):
        one, two = read_cloud(path), read_cloud(path.with_suffix(".ply"))
        np.testing.assert_allclose(one.xyz, two.xyz, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(one.rgb, two.rgb)


def test_fewer_points_are_repeated_all_of_them_before_any_again(cloud, rng):
    made = points_of_cloud(cloud, np.eye(4), POINTS_PER_OBJECT, rng)
    xyz, rgb = made["xyz"].reshape(-1, 3), made["rgb"].reshape(-1, 3)
    rows = np.concatenate([xyz.astype(np.float64), rgb], axis=1)
    stored = np.concatenate([cloud.xyz.astype(np.float16).astype(np.float64), cloud.rgb], axis=1)
    np.testing.assert_array_equal(np.sort(rows[:5000], axis=0), np.sort(stored, axis=0))
    np.testing.assert_array_equal(rows[5000:], rows[:5000])
    assert (made["vertices"], made["faces"], made["area"], made["warnings"]) == (5000, 0, None, [])


def test_three_points_are_enough_to_be_repeated(rng):
    cloud = Cloud(np.array([[1.0, 0, 0], [-1, 0, 0], [0, 0.5, 0]]), None, 3)
    made = points_of_cloud(cloud, np.eye(4), POINTS_PER_OBJECT, rng)
    assert len(np.unique(made["xyz"].reshape(-1, 3)[:3], axis=0)) == 3 and made["rgb"] is None


def test_of_a_cloud_that_is_dense_in_places_points_are_taken_evenly(rng):
    height = np.concatenate([rng.uniform(-1, 0, 160_000), rng.uniform(0, 1, 40_000)])  # one half four times as dense
    angle = rng.uniform(0, 2 * np.pi, len(height))
    xyz = np.stack([np.cos(angle) / 2, np.sin(angle) / 2, height * 0.8], axis=1)
    cloud = Cloud(xyz, None, len(xyz))
    made = points_of_cloud(cloud, np.eye(4), POINTS_PER_OBJECT, np.random.default_rng(1))
    taken = made["xyz"].reshape(-1, 3)
    assert len(np.unique(taken, axis=0)) > 0.99 * POINTS_PER_OBJECT
    for prefix in (FARTHEST_FIRST, 4000, POINTS_PER_OBJECT):
        assert abs((taken[:prefix, 2] > 0).mean() - 0.5) < 0.05
    again = points_of_cloud(cloud, np.eye(4), POINTS_PER_OBJECT, np.random.default_rng(1))
    np.testing.assert_array_equal(again["xyz"], made["xyz"])


def test_the_matrix_that_is_stored_takes_the_file_to_the_points(rng):
    frame = np.diag([0.5, 0.5, 0.5, 1.0])
    frame[:3, 3] = (0.1, 0.2, 0.3)
    made = points_of_cloud(Cloud(np.array([[1.0, 0, 0], [0, 1, 0]]), None, 2), frame, 4, rng)
    np.testing.assert_allclose(np.sort(made["xyz"].reshape(-1, 3), axis=0)[[0, -1]], [[0.1, 0.2, 0.3], [0.6, 0.7, 0.3]], atol=1e-3)
    np.testing.assert_array_equal(made["canonical_from_asset"].reshape(4, 4), frame)
