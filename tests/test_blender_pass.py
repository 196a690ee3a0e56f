import io

import numpy as np
import pytest
import trimesh
from PIL import Image

from pipeline.stage import Task
from render.blender import BlenderSettings
from render.blender_pass import BlenderPass, RenderViews, SamplePoints
from schemas.check import to_table
from schemas.tables import POINTS, VIEWS

VIEWS_STAGE = RenderViews(width=64, height=48)
BOTH = BlenderPass(stages=(VIEWS_STAGE, SamplePoints()))


@pytest.fixture(scope="module")
def work():
    running = BOTH.start()
    yield running
    running.close()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    ring = trimesh.creation.torus(major_radius=3, minor_radius=0.8)
    ring.apply_translation((100, 50, -20))
    path = tmp_path_factory.mktemp("assets") / "ring.glb"
    ring.export(path)
    return path


@pytest.fixture(scope="module")
def broken(good):
    path = good.with_name("broken.glb")
    path.write_bytes(good.read_bytes()[:500])
    return path


def task(path, *stages, front=None) -> Task:
    row = {"asset_uri": str(path), "asset_format": path.suffix[1:], "companions": [], "front": front}
    return Task(id=f"made/{path.stem}", keys=dict.fromkeys(stages, "k"), rows=[row])


def test_one_pass_makes_whichever_stages_are_asked_for(work, good):
    made = work([task(good, "render", "points")])
    assert not made.failures
    assert {stage: len(rows) for stage, rows in made.rows.items()} == {"render": 12, "points": 1}
    to_table(VIEWS, [row | {"stage": "s", "stage_key": "k"} for row in made.rows["render"]])
    to_table(POINTS, [row | {"stage": "s", "stage_key": "k"} for row in made.rows["points"]])
    assert set(work([task(good, "render")]).rows) == {"render"}


def test_an_object_that_faces_the_other_way_is_turned(work, good):
    """Half a turn about the up axis, in points and transform alike; the pictures are those of the other side."""
    as_is, turned = (work([task(good, "render", "points", front=front)]).rows for front in (None, "-z"))
    half_turn = np.array([-1, 1, -1])
    before, after = (np.reshape(rows["points"][0]["xyz"], (-1, 3)) for rows in (as_is, turned))
    assert np.array_equal(after, before * half_turn)
    before, after = (np.reshape(rows["points"][0]["canonical_from_asset"], (4, 4)) for rows in (as_is, turned))
    assert np.array_equal(after, np.diag([*half_turn, 1]) @ before)
    cameras = [np.reshape(row["camera_to_world"], (4, 4))[:3, 3] for row in as_is["render"]]
    opposite = {k: int(np.argmin([np.linalg.norm(other - half_turn * one) for other in cameras])) for k, one in enumerate(cameras)}
    for k, other in opposite.items():
        pictures = [np.asarray(Image.open(io.BytesIO(rows["render"][i]["image"]))) for rows, i in ((as_is, k), (turned, other))]
        assert (np.abs(pictures[0][..., 3].astype(int) - pictures[1][..., 3]) > 64).mean() < 0.01


@pytest.mark.parametrize("front", [None, "-z"])
def test_every_point_lands_on_the_object_in_every_view(work, good, front):
    made = work([task(good, "render", "points", front=front)])
    xyz = np.asarray(made.rows["points"][0]["xyz"], dtype=np.float64).reshape(-1, 3)
    for row in made.rows["render"]:
        alpha = np.asarray(Image.open(io.BytesIO(row["image"])).convert("RGBA"))[..., 3]
        to_world = np.reshape(row["camera_to_world"], (4, 4))
        seen = (xyz - to_world[:3, 3]) @ to_world[:3, :3]
        fx, fy, cx, cy = row["intrinsics"]
        column, line = np.floor(seen[:, :2] / seen[:, 2:] * (fx, fy) + (cx, cy)).astype(int).T
        # at the outline, less than half of the pixel that a point falls in may be covered
        assert (alpha[line, column] > 0).mean() > 0.995
        around = np.stack([alpha[np.clip(line + i, 0, 47), np.clip(column + j, 0, 63)] for i in (-1, 0, 1) for j in (-1, 0, 1)])
        assert (around.max(axis=0) > 0).all()
        covered = np.zeros_like(alpha, dtype=bool)
        covered[line, column] = True
        assert covered[alpha == 255].mean() > 0.95  # and no part of the object is without points


def test_an_asset_that_cannot_be_opened_fails_every_stage_asked_for(work, good, broken):
    made = work([task(broken, "render", "points"), task(good, "points"), task(broken, "points")])
    assert {stage: {id: error.reason for id, error in failed.items()} for stage, failed in made.failures.items()} == {
        "render": {"made/broken": "truncated"},
        "points": {"made/broken": "truncated"},
    }
    assert [row["object_id"] for row in made.rows["points"]] == ["made/ring"]


def test_the_same_object_gives_the_same_rows_alone_or_with_others(work, good):
    together = work([task(good, "render", "points")])
    alone = BlenderPass(stages=(SamplePoints(),)).start()
    [points] = alone([task(good, "points")]).rows["points"]
    alone.close()
    for column, value in together.rows["points"][0].items():
        np.testing.assert_array_equal(points[column], value)
    again = work([task(good, "render")])
    assert [row["image"] for row in again.rows["render"]] == [row["image"] for row in together.rows["render"]]


def test_what_changes_pixels_is_a_setting_of_the_stage_and_how_blender_is_run_is_not():
    settings = {"rig", "seed", "width", "height", "engine", "samples", "noise_threshold", "denoise", "outline_rays", "gates"}
    assert set(RenderViews().settings()) == settings
    assert SamplePoints().settings() == {"seed": 0}
    assert BOTH.stages == (VIEWS_STAGE, SamplePoints())
    assert BlenderPass(stages=(SamplePoints(),), blender=BlenderSettings(threads=9)).stages == (SamplePoints(),)


def test_an_unknown_rig_is_refused_by_name():
    with pytest.raises(ValueError, match="no camera rig nowhere@1"):
        RenderViews(rig="nowhere@1")
