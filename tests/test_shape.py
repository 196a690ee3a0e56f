from dataclasses import replace

import numpy as np
import pytest
import trimesh

from pipeline.mesh import Mesh
from pipeline.shape import warnings


def canonical(vertices, faces) -> Mesh:
    """A mesh of the canonical frame from vertices in the asset's coordinates."""
    vertices = np.asarray(vertices, np.float64)
    center = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    radius = np.linalg.norm(vertices - center, axis=1).max()
    matrix = np.eye(4) / radius
    matrix[:3, 3], matrix[3, 3] = -center / radius, 1
    return Mesh(
        vertices=((vertices - center) / radius).astype(np.float32),
        faces=np.asarray(faces, np.int32),
        material=np.full(len(faces), -1, np.int32),
        canonical_from_asset=matrix,
    )


def of(solid: trimesh.Trimesh) -> list[str]:
    return warnings(canonical(solid.vertices, solid.faces))


BALL = trimesh.creation.icosphere(subdivisions=2)


@pytest.mark.parametrize(
    "solid",
    [BALL, trimesh.creation.box(extents=(1, 1, 1e-3)), trimesh.creation.capsule(50, 1), trimesh.creation.annulus(0.9, 1, 0.01)],
)
def test_nothing_is_odd_about_balls_sheets_rods_and_rings(solid):
    assert of(solid) == []
    solid = solid.copy()
    solid.apply_transform(trimesh.transformations.rotation_matrix(1, (1, 2, 3)))
    solid.apply_translation((5, 6, 7))
    assert of(solid) == []


def test_a_plane_is_flat_however_it_is_turned():
    sheet = BALL.copy()
    sheet.apply_scale((1, 1, 0))
    assert of(sheet) == ["flat_geometry"]
    sheet.apply_transform(trimesh.transformations.rotation_matrix(1, (1, 2, 3)))
    assert of(sheet) == ["flat_geometry"]


@pytest.mark.parametrize(("scale", "expected"), [(1e-5, []), (1e5, []), (1e-7, ["extreme_scale"]), (1e7, ["extreme_scale"])])
def test_a_scale_is_extreme_beyond_a_million_either_way(scale, expected):
    assert of(BALL.copy().apply_scale(scale)) == expected


@pytest.mark.parametrize(("sizes", "expected"), [(90, []), (110, ["far_from_origin"]), (1e6, ["far_from_origin"])])
def test_far_from_the_origin_is_counted_in_sizes_of_the_object(sizes, expected):
    for scale in (0.01, 100):
        assert of(BALL.copy().apply_scale(scale).apply_translation((0, 0, 2 * scale * sizes))) == expected


def test_what_has_fewer_than_four_triangles_is_tiny():
    corners = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    sides = [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]
    assert warnings(canonical(corners, sides)) == []
    assert warnings(canonical(corners, sides[:3])) == ["tiny_mesh"]
    assert warnings(canonical(corners[:3], sides[:1])) == ["flat_geometry", "tiny_mesh"]


def test_a_stray_vertex_or_a_huge_floor_makes_the_object_a_dot():
    stray = BALL.copy()
    stray.vertices[5] = (0, 50_000, 0)
    assert of(stray) == ["outlier_geometry"]
    floor = trimesh.creation.box(extents=(400, 0.1, 400))
    assert of(trimesh.util.concatenate([BALL, floor])) == ["outlier_geometry"]
    sheet = BALL.copy().apply_scale((200, 0, 200))
    assert of(trimesh.util.concatenate([BALL, sheet])) == ["outlier_geometry"]
    assert of(trimesh.util.concatenate([BALL, trimesh.creation.box(extents=(10, 0.1, 10))])) == []


def test_many_fine_screws_on_a_large_plate_are_no_outliers():
    """Most triangles are in small things, which are spread all over the object."""
    screws = [BALL.copy().apply_scale(0.01).apply_translation((x, y, 0)) for x in range(-3, 4) for y in range(-3, 4)]
    assert of(trimesh.util.concatenate([*screws, trimesh.creation.box(extents=(7, 7, 0.1))])) == []


def test_a_mirroring_frame_has_a_scale_too():
    mesh = canonical(BALL.vertices, BALL.faces)
    assert warnings(replace(mesh, canonical_from_asset=mesh.canonical_from_asset @ np.diag([-1.0, 1, 1, 1]))) == []
