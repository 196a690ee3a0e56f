import io

import numpy as np
import pytest
from PIL import Image

from pipeline.quality import view_variance
from pipeline.stage import ObjectError
from render.cameras import RIGS
from render.spec import Answer
from render.views import encoded, read_pictures, view_rows
from schemas.check import to_table
from schemas.tables import VIEWS

CAMERAS = RIGS["openshape-12@1"].cameras(16, 12)


def noise(rng, alpha=None):
    picture = rng.integers(0, 256, (12, 16, 4), dtype=np.uint8)
    if alpha is not None:
        picture[..., 3] = alpha
    return picture


def rows_of(pictures, **more):
    return view_rows(
        "s/1",
        pictures,
        CAMERAS,
        rig="openshape-12@1",
        answer=Answer(device="CPU", missing_textures=2, substituted_materials=1, **more),
    )


def test_rows_fit_the_table_and_carry_each_views_own_camera(rng):
    rows = rows_of([noise(rng) for _ in CAMERAS])
    table = to_table(VIEWS, [row | {"stage": "s", "stage_key": "k"} for row in rows])
    assert table["view"].to_pylist() == list(range(12))
    for row, camera in zip(table.to_pylist(), CAMERAS, strict=True):
        assert (row["width"], row["height"], row["kind"], row["rig"]) == (16, 12, "rendered", "openshape-12@1")
        assert (row["missing_textures"], row["substituted_materials"], row["device"]) == (2, 1, "CPU")
        np.testing.assert_allclose(np.reshape(row["camera_to_world"], (4, 4)), camera.camera_to_world, atol=1e-6)
        np.testing.assert_allclose(row["intrinsics"], (camera.fx, camera.fy, 8, 6), rtol=1e-6)


def test_every_row_of_an_object_tells_how_much_all_its_views_differ(rng):
    pictures = [noise(rng) for _ in CAMERAS]
    assert {row["view_variance"] for row in rows_of(pictures)} == {view_variance(pictures)}


def test_a_picture_comes_back_from_its_encoding_to_the_bit(rng):
    picture = noise(rng)
    decoded = np.asarray(Image.open(io.BytesIO(encoded(picture))).convert("RGBA"))
    np.testing.assert_array_equal(decoded, np.where(picture[..., 3:] > 0, picture, 0))


def test_color_under_transparent_pixels_is_zero_and_changes_no_byte(rng):
    transparent = rng.integers(0, 2, (12, 16)).astype(bool)
    one, other = (noise(np.random.default_rng(seed), alpha=255) for seed in (1, 2))
    other = np.where(transparent[..., None], other, one)
    one[transparent, 3] = other[transparent, 3] = 0
    assert not np.array_equal(one, other)
    assert encoded(one) == encoded(other)
    decoded = np.asarray(Image.open(io.BytesIO(encoded(one))).convert("RGBA"))
    assert not decoded[transparent].any()


def test_an_object_that_no_view_shows_is_invisible(rng):
    with pytest.raises(ObjectError) as error:
        rows_of([noise(rng, alpha=0) for _ in CAMERAS])
    assert error.value.reason == "invisible"
    one_speck = [noise(rng, alpha=0) for _ in CAMERAS]
    one_speck[7][3, 3, 3] = 1
    assert len(rows_of(one_speck)) == 12


@pytest.mark.parametrize(
    ("thickest", "why"), [(0.4, "all of it is transparent$"), (3e-6, "is 1.6e-05 pixels high.* a dot in the frame")]
)
def test_why_nothing_is_seen_is_told_from_the_size_of_the_triangles(rng, thickest, why):
    with pytest.raises(ObjectError, match=why):
        rows_of([noise(rng, alpha=0) for _ in CAMERAS], thickest=thickest)


def test_a_missing_picture_is_a_failed_render(tmp_path, rng):
    Image.fromarray(noise(rng)).save(tmp_path / "000.png")
    assert len(read_pictures(tmp_path, 1)) == 1
    with pytest.raises(ObjectError) as error:
        read_pictures(tmp_path, 2)
    assert error.value.reason == "render_failed"
