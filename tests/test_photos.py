import io

import fsspec
import numpy as np
import pytest
from photo_scene import LENS, SPOTS, in_world, make_object
from PIL import Image

from jobs.__main__ import main
from pipeline.photos.colmap import Lens, Pose
from pipeline.stage import ObjectError, Task
from pipeline.store import Corpus
from render.photo_pictures import around_the_object
from render.photos import ALL, CloudPoints, PhotoPass, PhotoViews
from reports.contact_sheet import project
from schemas.check import to_table, violations
from schemas.tables import POINTS, POINTS_PER_OBJECT, VIEWS

SPREAD_VIEWS, CLOUD_POINTS = PhotoViews(), CloudPoints()


def write_cloud(path, xyz):
    header = f"ply\nformat ascii 1.0\nelement vertex {len(xyz)}\n"
    header += "".join(f"property double {axis}\n" for axis in "xyz")
    path.write_text(header + "end_header\n" + "".join(f"{x!r} {y!r} {z!r}\n" for x, y, z in xyz.tolist()))
    return str(path)


def made(folder, *, cloud=None, photos=SPREAD_VIEWS, clouds=CLOUD_POINTS, format="photos"):
    """What the pass makes of one object; the rows keep their tables' promises."""
    companions = [{"role": "cloud", "name": "a.ply", "uri": cloud}] if cloud else []
    row = {"asset_uri": str(folder), "asset_format": format, "companions": companions}
    stages = {stage.name: "key" for stage in (photos, clouds) if stage}
    task = Task(id="m/0/a", keys=stages, rows=[row])
    done = PhotoPass(photos=photos, clouds=clouds).start()([task])
    for table, name in ((VIEWS, "photos"), (POINTS, "clouds")):
        rows = to_table(table, [row | {"stage": name, "stage_key": "key"} for row in done.rows.get(name, [])])
        assert violations(table, rows) == []
    return done


def views(folder, **settings):
    about = {name: settings.pop(name) for name in ("cloud",) if name in settings}
    done = made(folder, photos=PhotoViews(**settings), clouds=None, **about)
    assert not done.failures
    return done.rows["photos"]


def failure(folder, stage="photos", **how) -> ObjectError:
    return made(folder, **how).failures[stage]["m/0/a"]


def picture(view):
    return np.asarray(Image.open(io.BytesIO(view["image"])).convert("RGBA"))


def spots(view):
    """Where the middle of each of the three lights is in the picture, pixels."""
    light = np.clip(picture(view)[..., :3].astype(float) - 60, 0, None)
    down, across = np.mgrid[: view["height"], : view["width"]] + 0.5
    return np.stack([((light * axis[..., None]).sum((0, 1)) / light.sum((0, 1))) for axis in (across, down)], axis=1)


@pytest.fixture
def cloud(tmp_path):
    return write_cloud(tmp_path / "a.ply", in_world(SPOTS))


def test_a_stored_point_projected_through_a_stored_camera_lands_on_the_object(tmp_path, cloud):
    done = made(make_object(tmp_path / "a"), cloud=cloud)
    [points] = done.rows["clouds"]
    xyz = np.asarray(points["xyz"], np.float64).reshape(-1, 3)[:3]
    frame = np.asarray(points["canonical_from_asset"]).reshape(4, 4)
    exact = in_world(SPOTS) @ frame[:3, :3].T + frame[:3, 3]
    exact = exact[np.linalg.norm(exact[:, None] - xyz, axis=-1).argmin(axis=0)]
    np.testing.assert_allclose(xyz, exact, atol=1e-3)
    assert len(done.rows["photos"]) == 12
    for view in done.rows["photos"]:
        expected, depth = project(in_world(SPOTS) @ frame[:3, :3].T + frame[:3, 3], view)
        assert (depth > 0).all() and ((expected > 0) & (expected < 224)).all()
        assert np.abs(spots(view) - expected).max() < 0.25


@pytest.mark.parametrize("size", [50, 100, 333])
def test_so_it_does_at_every_size(tmp_path, cloud, size):
    folder = make_object(tmp_path / "a", 12)
    frame = np.asarray(made(folder, cloud=cloud).rows["clouds"][0]["canonical_from_asset"]).reshape(4, 4)
    for view in views(folder, cloud=cloud, size=size):
        expected, _ = project(in_world(SPOTS) @ frame[:3, :3].T + frame[:3, 3], view)
        assert np.abs(spots(view) - expected).max() < 0.25 * max(1, size / 224)


def test_a_model_in_text_gives_the_same_views(tmp_path):
    one, two = (views(make_object(tmp_path / str(text), text=text)) for text in (False, True))
    for row, other in zip(one, two, strict=True):
        np.testing.assert_allclose(row.pop("camera_to_world"), other.pop("camera_to_world"), atol=1e-9)
        np.testing.assert_allclose(row.pop("intrinsics"), other.pop("intrinsics"), atol=1e-9)
        assert row["file"] == other["file"] and abs(row["luminance"] - other["luminance"]) < 1e-3


def test_twelve_photos_spread_around_the_object_become_views_in_the_order_of_their_names(tmp_path):
    folder = make_object(tmp_path / "a", 24, unposed=3)
    rows = views(folder)
    assert [row["view"] for row in rows] == list(range(12))
    numbers = [int(row["file"][:3]) for row in rows]
    assert numbers == sorted(numbers) and np.diff([*numbers, numbers[0] + 24]).max() <= 3  # of 24 around the object
    assert {(row["kind"], row["rig"]) for row in rows} == {("photo", "photos-spread-12@1")}
    everything = views(folder, choice=ALL)
    assert [row["file"] for row in everything] == [f"{number:03d}.jpg" for number in range(1, 25)]
    assert views(folder) == rows


def test_a_photo_without_a_mask_is_opaque_and_says_nothing_of_the_object(tmp_path):
    for view in views(make_object(tmp_path / "a")):
        assert (picture(view)[..., 3] == 255).all()
        assert view["alpha_coverage"] is None and view["border_coverage"] is None and view["luminance"] > 0


def test_a_mask_becomes_alpha_and_nothing_shines_through_where_it_is_0(tmp_path):
    folder = make_object(tmp_path / "a", masks=True)
    for view in views(folder):
        rgba = picture(view)
        assert (rgba[rgba[..., 3] == 0] == 0).all()
        x, y = np.floor(spots(view)).astype(int).T
        assert (rgba[y, x, 3] == 255).all()
        assert view["alpha_coverage"] == pytest.approx(rgba[..., 3].mean() / 255) and 0.05 < view["alpha_coverage"] < 0.9


def test_a_mask_of_ones_is_one_of_whites(tmp_path):
    folder = make_object(tmp_path / "a", masks=True)
    before = views(folder)
    for path in (folder / "masks").iterdir():
        Image.fromarray((np.asarray(Image.open(path).convert("L")) > 0).astype(np.uint8)).save(path)
    assert views(folder) == before


def test_a_photo_that_cannot_be_used_gives_its_place_to_another(tmp_path):
    folder = make_object(tmp_path / "a", 24)
    images = folder / "images"
    (images / "001.jpg").write_bytes((images / "001.jpg").read_bytes()[:3000])
    (images / "003.jpg").write_bytes(b"")
    (images / "005.jpg").unlink()
    Image.new("RGB", (50, 50)).save(images / "007.jpg")
    files = {row["file"] for row in views(folder)}
    assert len(files) == 12 and not files & {"001.jpg", "003.jpg", "005.jpg", "007.jpg"}


def test_too_few_photos_are_a_failure_that_says_how_many(tmp_path):
    folder = make_object(tmp_path / "a", 11, unposed=5)
    error = failure(folder)
    assert error.reason == "too_few_views" and "11 of its 16 photos" in str(error) and "12 are needed" in str(error)
    assert len(views(folder, least=11)) == 11


def test_how_a_photo_was_held_counts_only_where_colmap_saw_it_turned(tmp_path):
    folder = make_object(tmp_path / "a", 12)
    before = views(folder)
    orientation = Image.Exif()
    orientation[0x0112] = 6  # to be turned by a quarter to the right
    for path in sorted((folder / "images").iterdir())[:12]:
        photo = Image.open(path).convert("RGB")
        photo.save(path, quality=100, subsampling=0, exif=orientation)  # as COLMAP saw it: what EXIF says is not followed
    for view, other in zip(views(folder), before, strict=True):
        np.testing.assert_allclose(spots(view), spots(other), atol=0.1)
    for path in sorted((folder / "images").iterdir())[:12]:
        turned = Image.open(path).convert("RGB").transpose(Image.Transpose.ROTATE_90)
        turned.save(path, quality=100, subsampling=0, exif=orientation)  # stored lying, seen by COLMAP upright
    for view, other in zip(views(folder), before, strict=True):
        np.testing.assert_allclose(spots(view), spots(other), atol=0.1)


def test_the_square_is_around_the_object_and_within_the_photo(tmp_path):
    lens = Lens(width=400, height=300, fx=200, fy=200, cx=200, cy=150)
    pose = Pose(lens=lens, rotation=np.eye(3), translation=np.array([1.5, 0, 10.0]), seen=np.zeros((0, 2)), points=np.zeros(0, int))
    around = around_the_object(pose, np.eye(4))
    assert around.x == pytest.approx(0.15, abs=0.02) and around.y == pytest.approx(0, abs=0.02) and 0.1 < around.half < 0.12
    for scale in (0.5, 0.1, 0.05, 0.01):  # the smaller the scale, the larger the object
        cut = around_the_object(pose, np.diag([scale] * 3 + [1]))
        assert abs(cut.x) + cut.half <= 1 + 1e-9 and abs(cut.y) + cut.half <= 0.75 + 1e-9
    behind = Pose(lens=lens, rotation=np.eye(3), translation=np.array([0, 0, -10.0]), seen=pose.seen, points=pose.points)
    aside = Pose(lens=lens, rotation=np.eye(3), translation=np.array([50, 0, 10.0]), seen=pose.seen, points=pose.points)
    assert around_the_object(behind, np.eye(4)) is None and around_the_object(aside, np.eye(4)) is None


def test_a_white_photo_is_white_to_its_edges(tmp_path):
    folder = make_object(tmp_path / "a", 12)
    for path in (folder / "images").iterdir():
        Image.new("RGB", (LENS.width, LENS.height), "white").save(path)
    for view in views(folder, size=97):
        assert picture(view).min() >= 254


def test_an_object_without_a_cloud_has_views_and_a_failure_that_says_what_to_set(tmp_path):
    done = made(make_object(tmp_path / "a"))
    assert len(done.rows["photos"]) == 12
    error = done.failures["clouds"]["m/0/a"]
    assert error.reason == "no_cloud" and "option clouds" in str(error)


def test_a_cloud_alone_stands_as_the_first_camera_saw_it(tmp_path):
    xyz = np.array([[0.0, -1, 5], [0, 1, 5], [0.2, 0, 4], [0.1, 0.3, 6]])  # COLMAP's axes: y down, z ahead
    write_cloud(tmp_path / "a.ply", xyz)
    done = made(tmp_path / "a.ply", format="pcd", photos=None)
    points = np.asarray(done.rows["clouds"][0]["xyz"], np.float64).reshape(-1, 3)
    assert len(points) == POINTS_PER_OBJECT
    frame = np.asarray(done.rows["clouds"][0]["canonical_from_asset"]).reshape(4, 4)
    top, bottom, near, far = xyz @ frame[:3, :3].T + frame[:3, 3]
    assert top[1] > bottom[1] and near[2] > far[2]
    assert np.linalg.norm([top, bottom, near, far], axis=1).max() == pytest.approx(1)


def test_what_is_gone_since_it_was_ingested_is_a_failure(tmp_path, cloud):
    folder = make_object(tmp_path / "a")
    (tmp_path / "a.ply").unlink()
    assert failure(folder, "clouds", cloud=cloud).reason == "asset_missing"


@pytest.mark.parametrize("wrong", [{"choice": "some"}, {"size": 0}, {"least": 0}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError):
        PhotoViews(**wrong)


def test_a_corpus_of_photos_and_clouds_is_built_and_a_second_run_does_nothing(assets, tmp_path, capsys):
    settings = tmp_path / "settings.toml"
    settings.write_text(f'[sources.mvimgnet]\nclouds = "{assets}/eval/mvpnet"\n')
    root = str(tmp_path / "corpus")
    sources = ["--source", f"mvimgnet={assets}/mvimgnet", "--source", f"mvpnet={assets}/eval/mvpnet"]
    assert main(["ingest", root, *sources, "--settings", str(settings)]) == 0
    for job in ("render", "points"):
        assert main([job, root]) == 0
    tables = {name: Corpus.at(root).need(name).to_table().to_pylist() for name in ("views", "points", "failures")}
    assert {row["object_id"] for row in tables["views"]} == {"mvimgnet/192/0a0ff1c0", "mvimgnet/53/0f0cca22"}
    assert len(tables["views"]) == 24 and len(tables["points"]) == 6
    assert [(row["object_id"], row["reason"]) for row in tables["failures"]] == [("mvimgnet/218/0ca4e008", "no_poses")]
    capsys.readouterr()
    assert main(["points", root]) == 0
    assert "this run: 0 done, 6 skipped, 0 failed" in capsys.readouterr().out


def test_photos_on_an_object_store_make_the_same_rows(tmp_path, cloud, monkeypatch):
    monkeypatch.setenv("TRICORPUS_CACHE", str(tmp_path / "cache"))
    folder = make_object(tmp_path / "a", masks=True)
    store = fsspec.filesystem("memory")
    store.put(str(folder), "/photographed", recursive=True)
    store.put(cloud, "/photographed.ply")
    here, there = made(folder, cloud=cloud), made("memory://photographed", cloud="memory://photographed.ply")
    assert here.rows["photos"] == there.rows["photos"]
    np.testing.assert_array_equal(here.rows["clouds"][0]["xyz"], there.rows["clouds"][0]["xyz"])
