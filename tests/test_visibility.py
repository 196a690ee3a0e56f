from dataclasses import replace

import numpy as np
import pytest
import trimesh

from pipeline.mesh import Material, Mesh
from pipeline.visibility import visible

ABOVE, BELOW = np.array([[0, 0, 3.0]]), np.array([[0, 0, -3.0]])


def constant(alpha):
    return {"kind": "constant", "value": [alpha, alpha, alpha, 1.0]}


def mesh_of(*solids: tuple[trimesh.Trimesh, dict], images=()) -> Mesh:
    """One mesh of several solids, each with the paint of its alpha; u and v are x and y plus a half."""
    whole = trimesh.util.concatenate([solid for solid, _ in solids])
    return Mesh(
        vertices=whole.vertices.astype(np.float32),
        faces=whole.faces.astype(np.int32),
        material=np.repeat(np.arange(len(solids), dtype=np.int32), [len(solid.faces) for solid, _ in solids]),
        materials=tuple(Material(name=str(n), color=constant(1.0), alpha=alpha) for n, (_, alpha) in enumerate(solids)),
        uvs={"": (whole.vertices[:, :2] + 0.5).astype(np.float32)[whole.faces]},
        images=images,
    )


def square(z=0.0) -> trimesh.Trimesh:
    """x and y from -0.5 to 0.5."""
    corners = [(-0.5, -0.5, z), (0.5, -0.5, z), (0.5, 0.5, z), (-0.5, 0.5, z)]
    return trimesh.Trimesh(corners, [(0, 1, 2), (0, 2, 3)], process=False)


def on(z, rng, count=500):
    """Points of the square at height z, stored as POINTS stores them."""
    xy = rng.uniform(-0.49, 0.49, (count, 2))
    return np.column_stack([xy, np.full(count, z)]).astype(np.float16).astype(np.float64)


def test_each_position_sees_the_near_side_of_a_ball_up_to_its_horizon():
    ball = trimesh.creation.icosphere(subdivisions=5)
    points = ball.vertices
    positions = np.concatenate([ABOVE, BELOW, [[2.0, 0, 0]]])
    for position, seen in zip(positions, visible(mesh_of((ball, constant(1.0))), points, positions), strict=True):
        above_horizon = points @ position - 1  # a point p of the unit sphere is seen from c where p.c > 1
        clear = np.abs(above_horizon) > 0.1  # which side of it a triangle at the horizon shows is a matter of its slope
        np.testing.assert_array_equal(seen[clear], above_horizon[clear] > 0)


@pytest.mark.parametrize("angle", [0.5, 2, 10])
def test_a_stored_point_is_seen_at_a_flat_angle_though_its_rounding_took_it_below_the_surface(rng, angle):
    turned = trimesh.transformations.rotation_matrix(1.0, (1, 2, 3))  # so that rounding goes across the surface
    plane = square()
    points = trimesh.sample.sample_surface(plane, 2000, seed=0)[0]
    position = 3 * np.array([np.cos(np.radians(angle)), 0, np.sin(np.radians(angle))])
    plane.apply_transform(turned)
    stored = trimesh.transform_points(points, turned).astype(np.float16).astype(np.float64)
    assert (np.abs((stored @ turned[:3, :3])[:, 2]) > 5e-5).mean() > 0.1  # it did
    assert visible(mesh_of((plane, constant(1.0))), stored, (turned[:3, :3] @ position)[None]).all()


def test_a_thin_wall_hides_its_far_side(rng):
    """Two millimetres of a metre: less than a ray from the camera may fall short of a point that is seen at a flat angle."""
    wall = mesh_of((trimesh.creation.box((1, 1, 0.004)), constant(1.0)))
    points = np.concatenate([on(0.002, rng), on(-0.002, rng)])
    seen = visible(wall, points, np.concatenate([ABOVE, BELOW]))
    np.testing.assert_array_equal(seen, [[True] * 500 + [False] * 500, [False] * 500 + [True] * 500])


def test_what_lies_in_one_place_does_not_hide_itself(rng):
    turned_over = square()
    turned_over.invert()
    twice = mesh_of((square(), constant(1.0)), (turned_over, constant(1.0)))
    assert visible(twice, on(0, rng), np.concatenate([ABOVE, BELOW])).all()


def test_a_triangle_without_area_does_no_harm():
    line = trimesh.Trimesh([(-0.5, -0.5, 0), (0, 0, 0), (0.5, 0.5, 0)], [(0, 1, 2)], process=False)
    covered = mesh_of((line, constant(1.0)), (square(), constant(1.0)), (square(0.5), constant(1.0)))
    points = np.array([(x, x, 0) for x in (-0.25, 0.125, 0.375)])  # on it
    np.testing.assert_array_equal(visible(covered, points, np.concatenate([ABOVE, BELOW])), [[False] * 3, [True] * 3])


@pytest.mark.parametrize("alpha, hides", [(0.0, False), (0.49, False), (0.5, True), (1.0, True)])
def test_a_surface_hides_what_is_behind_it_from_half_opaque_on(rng, alpha, hides):
    glazed = mesh_of((square(), constant(1.0)), (square(0.5), constant(alpha)))
    behind, glass = on(0, rng), on(0.5, rng)
    assert (visible(glazed, behind, ABOVE) != hides).all()
    assert visible(glazed, behind, BELOW).all()
    assert visible(glazed, glass, ABOVE).all()


def test_through_the_holes_of_a_pattern_one_sees_and_through_the_rest_not(rng):
    """Behind two fences, one with a hole at the left and one with a hole at the bottom, only the corner of both is seen."""
    texture = {"kind": "texture", "image": 0, "vector": {"kind": "uv", "name": ""}, "srgb": False}
    fence = texture | {"extend": "repeat", "interpolation": "nearest"}
    left, bottom = np.zeros((1, 2, 4), np.uint8), np.zeros((2, 1, 4), np.uint8)
    left[0, 1], bottom[0, 0] = 255, 255
    fenced = mesh_of((square(), constant(1.0)), (square(0.3), fence), (square(0.6), fence | {"image": 1}), images=(left, bottom))
    points = on(0, rng, 2000)
    points = points[(np.abs(points[:, :2]) > 0.01).all(axis=1)]
    far = np.array([[0, 0, 1e4]])  # rays that are all but parallel
    np.testing.assert_array_equal(visible(fenced, points, far)[0], (points[:, :2] < 0).all(axis=1))
    assert visible(fenced, points, BELOW).all()


@pytest.mark.parametrize("alpha", [constant(1.0), {"kind": "attribute", "name": "alpha"}], ids=["solid", "patterned"])
def test_what_is_behind_the_camera_hides_nothing(rng, alpha):
    room = mesh_of((square(), constant(1.0)), (square(1.0), alpha))
    room = replace(room, colors={"alpha": np.ones((len(room.faces), 3, 4), np.float32)})
    seen = visible(room, on(0, rng), np.array([[0, 0, 0.5], [0, 0, 1.5]]))
    assert seen[0].all() and not seen[1].any()
