import numpy as np
import pytest

from pipeline.mesh import Material, Mesh
from pipeline.rays import Rays

SQUARE = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
UV = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
TRIANGLES = np.array([[0, 1, 2], [0, 2, 3]], np.int32)


def constant(value: float) -> dict:
    return {"kind": "constant", "value": [value] * 4}


def sheets(*alphas: dict, images=()) -> Mesh:
    """Squares of these alphas one behind the other, 0.1 apart, seen along -z."""
    count = len(alphas)
    return Mesh(
        vertices=np.concatenate([SQUARE - (0, 0, 0.1 * number) for number in range(count)]).astype(np.float32),
        faces=np.concatenate([TRIANGLES + 4 * number for number in range(count)]).astype(np.int32),
        material=np.repeat(np.arange(count, dtype=np.int32), 2),
        uvs={"": np.tile(UV[TRIANGLES], (count, 1, 1))},
        materials=tuple(Material(name=str(number), color=constant(1.0), alpha=alpha) for number, alpha in enumerate(alphas)),
        images=images,
    )


def down(*places: tuple[float, float]) -> np.ndarray:
    """Rays along -z from above these places."""
    return np.array([[x, y, 2, 0, 0, -1] for x, y in places], np.float32)


@pytest.mark.parametrize(
    "alphas, expected",
    [([1.0], 1), ([0.5], 0.5), ([0.5, 0.5], 0.75), ([0.0], 0), ([0.0, 1.0], 1), ([0.2, 0.3, 0.5], 1 - 0.8 * 0.7 * 0.5)],
)
def test_each_surface_stops_its_share_of_what_comes_to_it(alphas, expected):
    rays = Rays(sheets(*map(constant, alphas)))
    np.testing.assert_allclose(rays.stopped(down((0.3, -0.2), (1.2, 0))), [expected, 0], atol=1e-12)


def test_a_hole_in_a_texture_lets_rays_through():
    holes = np.zeros((2, 2, 4), np.uint8)
    holes[0, 0] = holes[1, 1] = 255  # upper left and lower right are there
    texture = {
        "kind": "texture",
        "image": 0,
        "vector": {"kind": "uv", "name": ""},
        "srgb": False,
        "extend": "clamp",
        "interpolation": "nearest",
    }
    rays = Rays(sheets({"kind": "channel", "of": texture, "channel": 3}, images=(holes,)))
    np.testing.assert_array_equal(rays.stopped(down((-0.5, 0.5), (0.5, 0.5), (-0.5, -0.5), (0.5, -0.5))), [1, 0, 0, 1])


def test_where_nothing_is_see_through_the_same_comes_out():
    solid, mixed = Rays(sheets(constant(1.0))), Rays(sheets(constant(1.0), constant(0.5)))
    around = np.random.default_rng(0).uniform(-1.5, 1.5, (500, 2))
    np.testing.assert_array_equal(solid.stopped(down(*around)), mixed.stopped(down(*around)))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_no_rays_are_none_stopped(alpha):
    """What cannot be seen at all has no outline, and so no rays."""
    assert Rays(sheets(constant(alpha))).stopped(np.zeros((0, 6), np.float32)).shape == (0,)
