import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from render.cameras import RIGS
from reports.contact_sheet import (
    GAP,
    MARGIN,
    STRIP,
    Subject,
    _grown,
    _write,
    contact_sheet,
    evenly,
    failure_sheet,
    picture_of_points,
    project,
    share_inside,
)
from schemas.tables import POINTS_PER_OBJECT

SIZE = 96


def view_of_sphere(number: int, radius: float, center=(0.0, 0.0, 0.0)) -> dict:
    """A row of VIEWS: a red sphere, drawn ray by ray."""
    camera = RIGS["openshape-12@1"].cameras(SIZE, SIZE)[number]
    pixels = (np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1) + 0.5 - (camera.cx, camera.cy)) / (
        camera.fx,
        camera.fy,
    )
    rays = np.concatenate([pixels, np.ones((SIZE, SIZE, 1))], axis=-1) @ camera.camera_to_world[:3, :3].T
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    from_center = camera.position - center
    hit = (rays @ from_center) ** 2 - from_center @ from_center + radius**2 >= 0
    rgba = np.where(hit[..., None], [220, 20, 20, 255], 0).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(rgba).save(encoded, "WEBP", lossless=True)
    return {
        "view": number,
        "image": encoded.getvalue(),
        "width": SIZE,
        "height": SIZE,
        "intrinsics": [camera.fx, camera.fy, camera.cx, camera.cy],
        "camera_to_world": camera.camera_to_world.ravel().tolist(),
    }


def points_on_sphere(rng, radius: float, center=(0.0, 0.0, 0.0), rgb=(220, 20, 20)) -> dict:
    """A row of POINTS."""
    xyz = rng.normal(size=(POINTS_PER_OBJECT, 3))
    xyz = radius * xyz / np.linalg.norm(xyz, axis=1, keepdims=True) + center
    return {
        "xyz": xyz.astype(np.float16).ravel(),
        "rgb": None if rgb is None else np.tile(rgb, POINTS_PER_OBJECT).astype(np.uint8),
        "area": 4 * np.pi * radius**2,
    }


@pytest.mark.parametrize("number", [0, 5, 11])
def test_a_point_is_projected_as_the_camera_projects_it(rng, number):
    camera = RIGS["openshape-12@1"].cameras(SIZE, SIZE)[number]
    xyz = rng.uniform(-0.5, 0.5, (50, 3))
    pixels, depth = project(xyz, view_of_sphere(number, 0.5))
    expected_pixels, expected_depth = camera.project(xyz)
    np.testing.assert_allclose(pixels, expected_pixels, atol=1e-9)
    np.testing.assert_allclose(depth, expected_depth, atol=1e-12)


def test_points_of_the_object_in_the_view_are_all_on_it_and_mirrored_ones_are_not(rng):
    center = np.array([0.3, 0.2, -0.5])
    view = view_of_sphere(1, 0.3, center)
    assert share_inside(points_on_sphere(rng, 0.3, center), view) == 1
    assert share_inside(points_on_sphere(rng, 0.3, center * (1, 1, -1)), view) == 0


def test_the_picture_of_points_covers_what_the_view_shows_and_no_more_than_a_rim(rng):
    center = (0.3, 0.2, -0.4)
    view = view_of_sphere(2, 0.4, center)
    drawn = picture_of_points(points_on_sphere(rng, 0.4, center), view, SIZE)[..., 3] > 127
    shown = np.asarray(Image.open(io.BytesIO(view["image"])))[..., 3] > 127
    assert (shown & ~drawn).sum() <= 0.01 * shown.sum()
    assert not (drawn & ~_grown(_grown(shown))).any()


def test_near_points_cover_far_ones(rng):
    view = view_of_sphere(0, 0.5)
    towards_camera = np.reshape(view["camera_to_world"], (4, 4))[:3, 3]
    far = points_on_sphere(rng, 0.3, -0.1 * towards_camera, rgb=(0, 0, 255))
    near = points_on_sphere(rng, 0.3, 0.1 * towards_camera, rgb=(255, 0, 0))
    for pair in ([near, far], [far, near]):
        both = {column: np.concatenate([row[column] for row in pair]) for column in ("xyz", "rgb")} | {
            "area": 12.0
        }  # discs that leave no gap
        middle = picture_of_points(both, view, SIZE)[SIZE // 2 - 5 : SIZE // 2 + 5, SIZE // 2 - 5 : SIZE // 2 + 5]
        assert (middle == (255, 0, 0, 255)).all()


def test_points_without_colour_are_grey_and_the_nearest_the_darkest(rng):
    picture = picture_of_points(points_on_sphere(rng, 0.8, rgb=None), view_of_sphere(0, 0.8), SIZE)
    drawn = picture[picture[..., 3] > 0]
    assert (drawn[:, :1] == drawn[:, :3]).all()
    middle, rim = picture[SIZE // 2 - 8 : SIZE // 2 + 8, SIZE // 2 - 8 : SIZE // 2 + 8], picture[picture[..., 3] == 255]
    assert np.median(middle[..., 0]) < np.quantile(rim[:, 0], 0.2)


def test_points_behind_the_camera_are_not_drawn(rng):
    view = view_of_sphere(0, 0.5)
    behind = 2 * np.reshape(view["camera_to_world"], (4, 4))[:3, 3]
    points = points_on_sphere(rng, 0.3, behind)
    assert picture_of_points(points, view, SIZE).max() == 0
    assert share_inside(points, view) == 0


def test_a_view_that_is_not_square_keeps_its_shape(rng):
    view = view_of_sphere(0, 0.5) | {"height": SIZE // 2}
    assert picture_of_points(points_on_sphere(rng, 0.5), view, 60).shape == (30, 60, 4)


def test_every_object_has_a_band_and_the_sheet_is_as_wide_whatever_they_have(rng):
    full = Subject(
        object_id="made/ball",
        name="ball",
        captions=("a red ball",),
        views=[view_of_sphere(number, 0.9) for number in range(12)],
        points=points_on_sphere(rng, 0.9),
    )
    bare = Subject(object_id="made/nothing", views=[])
    one, two, three = (contact_sheet(subjects, tile=80) for subjects in ([full], [full, bare], [full, bare, full]))
    assert one.width == two.width == three.width
    assert three.height - two.height == two.height - one.height > 80
    top = np.asarray(two)[: one.height]
    np.testing.assert_array_equal(top, np.asarray(one))  # what comes after does not change a band


def failure(message="the object is a dot", color=(200, 30, 40), size=STRIP) -> dict:
    """A row of FAILURES whose picture is transparent but for its middle."""
    strip = np.zeros((size[1], size[0], 4), np.uint8)
    strip[size[1] // 4 : -size[1] // 4, size[0] // 4 : -size[0] // 4] = (*color, 255)
    encoded = io.BytesIO()
    Image.fromarray(strip).save(encoded, "WEBP", lossless=True)
    return {"object_id": "a/1", "stage": "render", "reason": "gate_x", "message": message, "thumbnail": encoded.getvalue()}


def test_every_failure_has_a_band_with_its_picture_beside_what_is_said(rng):
    red, blue = failure(), failure(color=(0, 0, 255), size=(STRIP[0] // 4, STRIP[1]))  # of one view
    one, two = np.asarray(failure_sheet([red])), np.asarray(failure_sheet([red, blue]))
    np.testing.assert_array_equal(two[: len(one)], one)
    middle = MARGIN + STRIP[0] // 2
    assert (one[MARGIN + STRIP[1] // 2, middle] == (200, 30, 40)).all()
    assert (two[len(one) + STRIP[1] // 2, middle] == (0, 0, 255)).all()
    behind = one[MARGIN + 2, MARGIN : MARGIN + STRIP[0]]
    assert (behind > 150).all() and (behind < 220).all()  # a checker on which white and black are seen
    beside = one[MARGIN : MARGIN + STRIP[1], MARGIN + STRIP[0] + 2 * GAP :]
    assert (beside < 128).any()


@pytest.mark.parametrize("text", ["short", "several words " * 200, "x" * 3000, "", "日本語の椅子\n" * 40])
def test_what_is_said_of_a_failure_stays_in_its_band(text):
    sheet = np.asarray(failure_sheet([failure(text), failure(text)]))
    between = slice(MARGIN + STRIP[1] + 4, MARGIN + STRIP[1] + MARGIN - 1)
    assert (sheet[between] == 255).all() and (sheet[:, -MARGIN + 2 :] == 255).all()


@pytest.mark.parametrize(
    "text", ["日本語の椅子", "стул", "كرسي", "a\nb\tc\x00\x1b[0m", "\ud800 lone surrogate", "👩‍🚀" * 50, "", "word " * 500]
)
def test_any_text_fits_on_its_line(text):
    sheet = Image.new("RGB", (300, 40), "white")
    used = _write(ImageDraw.Draw(sheet), (10, 5), text, size=16, ink=(0, 0, 0), room=200)
    assert used <= 200
    assert (np.asarray(sheet)[:, 10 + 202 :] == 255).all()


@pytest.mark.parametrize(
    ("count", "wanted", "numbers"),
    [(12, 6, [0, 2, 4, 6, 8, 10]), (12, 3, [0, 4, 8]), (2, 6, [0, 1]), (0, 6, []), (5, 3, [0, 1, 3])],
)
def test_the_views_shown_are_spread_evenly(count, wanted, numbers):
    assert evenly(count, wanted) == numbers
