from dataclasses import replace

import numpy as np
import pytest
import trimesh

from pipeline.mesh import Material, Mesh
from pipeline.points import FARTHEST_FIRST, farthest_first, paint, sample_points, srgb_from_linear
from pipeline.stage import ObjectError

WHITE = {"kind": "constant", "value": [1.0, 1.0, 1.0, 1.0]}
UV = {"kind": "uv", "name": ""}


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def colored(value):
    return {"kind": "constant", "value": list(value)}


def textured(image=0, *, vector=UV, srgb=True, extend="repeat", interpolation="linear"):
    return {
        "kind": "texture",
        "image": image,
        "vector": vector,
        "srgb": srgb,
        "extend": extend,
        "interpolation": interpolation,
    }


def alpha_of(paint):
    return {"kind": "channel", "of": paint, "channel": 3}


def mesh_of(solid: trimesh.Trimesh, color=WHITE, alpha=WHITE, **more) -> Mesh:
    """A mesh of one material."""
    return Mesh(
        vertices=solid.vertices.astype(np.float32),
        faces=solid.faces.astype(np.int32),
        material=np.zeros(len(solid.faces), np.int32),
        materials=(Material(name="only", color=color, alpha=alpha),),
        **more,
    )


def square(color=WHITE, alpha=WHITE, **more) -> Mesh:
    """x and y from -0.5 to 0.5; u and v from 0 to 1 along them."""
    vertices = np.array([(-0.5, -0.5, 0), (0.5, -0.5, 0), (0.5, 0.5, 0), (-0.5, 0.5, 0)])
    faces = np.array([(0, 1, 2), (0, 2, 3)])
    uv = (vertices[:, :2] + 0.5).astype(np.float32)[faces]
    return mesh_of(trimesh.Trimesh(vertices, faces, process=False), color, alpha, uvs={"": uv}, **more)


def points_of(row):
    return row["xyz"].astype(np.float64).reshape(-1, 3)


def colors_of(row):
    return row["rgb"].reshape(-1, 3)


# ------------------------------------------------------------------------------------------------------------------ places


def test_points_of_a_box_lie_on_its_six_sides(rng):
    row = sample_points(mesh_of(trimesh.creation.box(extents=(1, 1, 1))), 3000, rng)
    xyz = points_of(row)
    np.testing.assert_array_equal(np.abs(xyz).max(axis=1), 0.5)
    side, sign = np.abs(xyz).argmax(axis=1), xyz[np.arange(3000), np.abs(xyz).argmax(axis=1)] > 0
    counts = np.bincount(2 * side + sign, minlength=6)
    assert counts.min() > 420 and counts.max() < 580  # 500 expected, 4 standard deviations
    assert (row["vertices"], row["faces"]) == (8, 12)
    assert row["area"] == pytest.approx(6)


def test_points_are_even_by_area_over_faces_of_very_unequal_areas(rng):
    """A strip of triangles whose areas grow a thousandfold: chi-square of 200 counts stays where chance puts it."""
    x = np.concatenate([[0], np.cumsum(np.geomspace(1, 1000, 100))])
    x = x / x[-1] - 0.5
    vertices = np.concatenate([np.stack([x, np.full_like(x, y), 0 * x], axis=1) for y in (-0.2, 0.2)])
    i, n = np.arange(100), len(x)
    faces = np.concatenate([np.stack([i, i + 1, n + i], axis=1), np.stack([i + 1, n + i + 1, n + i], axis=1)])
    row = sample_points(mesh_of(trimesh.Trimesh(vertices, faces, process=False)), 10_000, rng)
    counts, _ = np.histogram(points_of(row)[:, 0], np.linspace(-0.5, 0.5, 201))
    assert ((counts - 50) ** 2 / 50).sum() < 199 + 4 * np.sqrt(2 * 199)
    assert abs((points_of(row)[:, 1] > 0).mean() - 0.5) < 0.02


def test_points_within_a_triangle_are_even(rng):
    corner = trimesh.Trimesh([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [(0, 1, 2)], process=False)
    x, y, z = points_of(sample_points(mesh_of(corner), 8000, rng)).T
    assert (z == 0).all() and (x + y <= 1 + 1e-3).all()
    assert [x.mean(), y.mean(), (x < 0.5).mean(), (x * y).mean()] == pytest.approx([1 / 3, 1 / 3, 3 / 4, 1 / 12], abs=0.015)


def test_points_of_the_unit_ball_stay_in_it_as_float16(rng):
    ball = trimesh.creation.icosphere(subdivisions=4)
    ball.vertices /= np.linalg.norm(ball.vertices, axis=1, keepdims=True)
    row = sample_points(mesh_of(ball), 10_000, rng)
    assert row["xyz"].dtype == np.float16 and row["xyz"].shape == (30_000,)
    assert np.linalg.norm(points_of(row), axis=1).max() <= 1 + 1e-3


def test_the_first_points_are_in_farthest_point_order(rng):
    """By brute force over all distances: each point is as far from those before it as any point is."""
    xyz = points_of(sample_points(mesh_of(trimesh.creation.torus(0.7, 0.2)), 10_000, rng))
    nearest = np.full(len(xyz), np.inf)
    for i in range(FARTHEST_FIRST):
        if i:
            assert nearest[i] >= nearest.max() - 1e-6
        nearest = np.minimum(nearest, np.linalg.norm(xyz - xyz[i], axis=1))


@pytest.mark.parametrize("size", [64, 256, 1024])
def test_a_prefix_covers_the_object_better_than_random_points_do(rng, size):
    xyz = points_of(sample_points(mesh_of(trimesh.creation.torus(0.7, 0.2)), 10_000, rng))

    def covering_radius(chosen):
        return np.linalg.norm(xyz[:, None] - xyz[chosen][None], axis=2).min(axis=1).max()

    at_random = [covering_radius(rng.choice(10_000, size, replace=False)) for _ in range(3)]
    assert covering_radius(np.arange(size)) < 0.7 * min(at_random)


def test_the_order_holds_every_point_once(rng):
    cloud = rng.random((3000, 3)).astype(np.float16)
    order = farthest_first(cloud, 3000)
    assert order[0] == 0
    np.testing.assert_array_equal(np.sort(order), np.arange(3000))


def test_the_same_rng_gives_the_same_bytes_and_another_gives_other_points():
    mesh = square(textured(), images=(np.random.default_rng(0).integers(0, 256, (8, 8, 4), np.uint8),))
    one, same, other = (sample_points(mesh, 2000, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one["xyz"].tobytes() == same["xyz"].tobytes() and one["rgb"].tobytes() == same["rgb"].tobytes()
    assert one["xyz"].tobytes() != other["xyz"].tobytes()


def test_fewer_points_than_the_farthest_first_are_possible(rng):
    assert sample_points(square(), 100, rng)["xyz"].shape == (300,)


# ---------------------------------------------------------------------------------------------------------- what cannot be


def test_a_mesh_without_faces_is_no_faces(rng):
    empty = replace(square(), faces=np.zeros((0, 3), np.int32), material=np.zeros(0, np.int32), uvs={})
    with pytest.raises(ObjectError, match="no surface") as caught:
        sample_points(empty, 100, rng)
    assert caught.value.reason == "no_faces"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_infinite_or_nan_coordinates_are_not_finite(rng, bad):
    vertices = square().vertices.copy()
    vertices[2, 1] = bad
    with pytest.raises(ObjectError, match="1 vertices") as caught:
        sample_points(replace(square(), vertices=vertices), 100, rng)
    assert caught.value.reason == "non_finite_geometry"


def test_faces_on_one_line_are_no_area(rng):
    line = replace(square(), vertices=np.array([(0, 0, 0), (0.1, 0, 0), (0.2, 0, 0), (0.4, 0, 0)], np.float32))
    with pytest.raises(ObjectError) as caught:
        sample_points(line, 100, rng)
    assert caught.value.reason == "no_area"


@pytest.mark.parametrize("alpha", [colored((0.0, 0, 0, 1)), alpha_of(textured())])
def test_a_surface_that_is_transparent_all_over_is_invisible(rng, alpha):
    with pytest.raises(ObjectError) as caught:
        sample_points(square(alpha=alpha, images=(np.zeros((4, 4, 4), np.uint8),)), 100, rng)
    assert caught.value.reason == "invisible"


# ----------------------------------------------------------------------------------------------------------------- colours


def test_a_two_coloured_texture_gives_exactly_those_colours_on_the_right_halves(rng):
    """Left red, right green; the first row of the picture is at the top, where v is 1: there blue is full."""
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[:, :32, 0], picture[:, 32:, 1], picture[:32, :, 2], picture[..., 3] = 200, 100, 255, 255
    row = sample_points(square(textured(), images=(picture,)), 5000, rng)
    (x, y, _), (red, green, blue) = points_of(row).T, colors_of(row).T
    inside = (np.abs(x) > 0.01) & (np.abs(y) > 0.01) & (np.abs(x) < 0.49) & (np.abs(y) < 0.49)
    assert inside.sum() > 4500
    np.testing.assert_array_equal(red[inside], np.where(x < 0, 200, 0)[inside])
    np.testing.assert_array_equal(green[inside], np.where(x < 0, 0, 100)[inside])
    np.testing.assert_array_equal(blue[inside], np.where(y > 0, 255, 0)[inside])


def test_a_factor_multiplies_a_texture_in_linear_space(rng):
    picture = np.full((2, 2, 4), (188, 255, 100, 255), np.uint8)
    half = {
        "kind": "mix",
        "blend": "multiply",
        "factor": WHITE,
        "a": textured(),
        "b": colored((0.5, 0.5, 0.0, 1.0)),
        "clamp": False,
    }
    row = sample_points(square(half, images=(picture,)), 100, rng)
    # 188 is 0.5029 linear, half of that is 137 in sRGB (94 would be half of the encoded value); half of full white is 188.
    np.testing.assert_array_equal(colors_of(row), np.tile((137, 188, 0), (100, 1)))


def test_a_transformed_texture_coordinate_shifts_the_picture(rng):
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[:, :16, 0], picture[..., 3] = 255, 255
    moved = {"kind": "affine", "of": UV, "matrix": [[1, 0, 0, 0.25], [0, 1, 0, 0], [0, 0, 1, 0]]}
    row = sample_points(square(textured(vector=moved), images=(picture,)), 3000, rng)
    u = points_of(row)[:, 0] + 0.5
    red = colors_of(row)[:, 0]
    assert (red[(u > 0.77) & (u < 0.98)] == 255).all()  # u + 0.25 wraps to 0..0.25
    assert (red[(u > 0.02) & (u < 0.73)] == 0).all()


def test_a_masked_hole_gets_no_points_and_the_rest_gets_all_of_them(rng):
    picture = np.full((64, 64, 4), 255, np.uint8)
    picture[16:48, 16:48, 3] = 0
    mask = {"kind": "math", "operation": "less_than", "operands": [alpha_of(textured()), colored([0.5] * 4)], "clamp": False}
    opaque = {"kind": "math", "operation": "subtract", "operands": [WHITE, mask], "clamp": False}
    row = sample_points(square(alpha=opaque, images=(picture,)), 4000, rng)
    x, y, _ = np.abs(points_of(row)).T
    assert len(x) == 4000 and not ((x < 0.245) & (y < 0.245)).any()
    assert ((x > 0.26) | (y > 0.26)).mean() > 0.95
    assert row["area"] == pytest.approx(1)


def test_a_huge_invisible_wall_takes_no_points(rng):
    box = trimesh.creation.box(extents=(0.02, 0.02, 0.02))
    wall = trimesh.Trimesh([(-0.5, -0.5, 0.5), (0.5, -0.5, 0.5), (0.5, 0.5, 0.5)], [(0, 1, 2)], process=False)
    both = mesh_of(trimesh.util.concatenate([box, wall]))
    clear = Material(name="clear", color=WHITE, alpha=colored((0.0, 0, 0, 1)))
    both = replace(both, material=np.array([0] * 12 + [1], np.int32), materials=(*both.materials, clear))
    assert np.abs(points_of(sample_points(both, 1000, rng))).max() <= 0.011


def test_vertex_colours_are_interpolated_linearly():
    mesh = square({"kind": "attribute", "name": "Color"})
    corners = np.array([(1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 1, 1)], np.float32)
    mesh = replace(mesh, colors={"Color": np.tile(corners, (2, 1, 1))})
    weights = np.array([(1, 0, 0), (0.5, 0.5, 0), (0.2, 0.3, 0.5)])
    np.testing.assert_allclose(paint(mesh, np.array([0, 1, 0]), weights)[:, :3], weights, atol=1e-7)


def test_each_face_has_the_colour_of_its_own_material(rng):
    mesh = square(colored((1.0, 0, 0, 1)))
    green = Material(name="green", color=colored((0, 1.0, 0, 1)), alpha=WHITE)
    mesh = replace(mesh, material=np.array([0, 1], np.int32), materials=(*mesh.materials, green))
    row = sample_points(mesh, 1000, rng)
    lower = points_of(row)[:, 0] - points_of(row)[:, 1] > 1e-3  # the first face lies below the diagonal
    upper = points_of(row)[:, 0] - points_of(row)[:, 1] < -1e-3
    assert (colors_of(row)[lower] == (255, 0, 0)).all() and (colors_of(row)[upper] == (0, 255, 0)).all()


def test_an_asset_that_says_nothing_about_colour_has_none(rng):
    assert sample_points(replace(square(), material=np.full(2, -1, np.int32)), 100, rng)["rgb"] is None


def test_where_only_a_part_has_a_material_the_rest_is_blenders_default(rng):
    row = sample_points(replace(square(colored((0, 0, 0, 1))), material=np.array([0, -1], np.int32)), 200, rng)
    assert set(map(tuple, colors_of(row).tolist())) == {(0, 0, 0), (231, 231, 231)}  # 0.8 linear


def test_wild_texture_coordinates_are_read_without_harm():
    mesh = square(textured(), images=(np.full((4, 4, 4), 255, np.uint8),))
    wild = mesh.uvs[""].copy()
    wild[0, 0], wild[0, 1], wild[0, 2] = (np.nan, 0), (1e30, -1e30), (np.inf, 3)
    mesh = replace(mesh, uvs={"": wild})
    np.testing.assert_array_equal(paint(mesh, np.array([0, 0]), np.eye(3)[:2]), 1)


def test_srgb_holds_its_published_values():
    np.testing.assert_array_equal(srgb_from_linear(np.array([0, 0.0031308, 0.18, 0.5, 1, 7, -1])), [0, 10, 118, 188, 255, 255, 0])
