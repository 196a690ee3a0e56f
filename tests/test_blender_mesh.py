import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.mesh import load
from pipeline.points import paint, sample_points

SCENES = Path(__file__).with_name("blender_scenes.py")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """All scenes of blender_scenes.py, put out by one Blender."""
    folder = tmp_path_factory.mktemp("scenes")
    done = subprocess.run([sys.executable, SCENES, folder], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def on_the_square(mesh, size):
    """Face and weights of its corners under each pixel of a picture of the square -1..1, row by row from the top."""
    along = (np.arange(size) + 0.5) / size * 2 - 1
    points = np.stack(np.meshgrid(along, -along), axis=-1).reshape(-1, 2)
    weights = []
    for a, b, c in mesh.vertices[mesh.faces][:, :, :2].astype(np.float64):
        second_third = (points - a) @ np.linalg.inv(np.stack([b - a, c - a], axis=1)).T
        weights.append(np.concatenate([1 - second_third.sum(axis=1, keepdims=True), second_third], axis=1))
    weights = np.stack(weights)
    face = weights.min(axis=2).argmax(axis=0)
    return face, weights[face, np.arange(len(points))]


# The name of every material that blender_scenes.py builds, read from its text: to import it takes Blender.
TEXT = SCENES.read_text()
MATERIALS = re.findall(r"@material\ndef (\w+)", TEXT)
MATERIALS += [f"{e}_{i}" for e in ("repeat", "mirror", "extend", "clip") for i in ("linear", "closest")]
MATERIALS += [f"blend_{b}" for b in "mix multiply add subtract screen divide difference darken lighten overlay".split()]


@pytest.mark.parametrize("name", MATERIALS)
def test_a_paint_gives_the_colours_that_cycles_renders(scenes, name):
    rendered = np.load(scenes / name / "rendered.npy")
    mesh = load(scenes / name)
    rgba = paint(mesh, *on_the_square(mesh, len(rendered))).reshape(rendered.shape)
    assert mesh.materials[0].guessed == ()
    wrong = (np.abs(rgba[..., :3] - rendered[..., :3]) > 0.006).any(axis=-1) & (rendered[..., 3] > 0.01)
    wrong |= np.abs(rgba[..., 3] - rendered[..., 3]) > 0.006
    assert wrong.mean() < 0.005  # unfiltered texels: a pixel on their border may fall to either side


def test_the_scenes_that_the_tests_name_are_all_there_are(scenes):
    assert {folder.parent.name for folder in scenes.glob("*/rendered.npy")} == set(MATERIALS)


def test_every_instance_of_a_collection_is_there(scenes):
    mesh = load(scenes / "instances")
    np.testing.assert_array_equal(mesh.vertices[mesh.faces][:, :, 0].min(axis=1), [0, 2, 4])


def test_a_mirrored_object_keeps_its_outside_and_its_picture(scenes):
    mesh = load(scenes / "mirrored")
    corners = mesh.vertices[mesh.faces[0]]
    assert np.cross(corners[1] - corners[0], corners[2] - corners[0])[2] > 0
    np.testing.assert_array_equal(mesh.uvs[""][0], corners[:, :2] * (-1, 1))  # u grows along the object's own x


def test_a_filled_curve_is_one_disc_with_its_material(scenes):
    mesh = load(scenes / "curves")
    assert sample_points(mesh, 100, np.random.default_rng(0))["area"] == pytest.approx(50 * np.sin(2 * np.pi / 100))
    assert [material.name for material in mesh.materials] == ["red"] and (mesh.material == 0).all()


def test_text_has_a_surface_and_a_line_has_none(scenes):
    mesh = load(scenes / "text")
    assert len(mesh.faces) > 20
    assert np.ptp(mesh.vertices[:, 0]) > 0.5  # "tri", not the line that stands still at the origin


def test_what_a_render_hides_is_left_out(scenes):
    assert load(scenes / "hidden").vertices[:, 0].max() == 1


def test_vertices_without_a_face_are_left_out(scenes):
    mesh = load(scenes / "loose")
    np.testing.assert_array_equal(mesh.vertices[mesh.faces[0]], [(0, 0, 0), (1, 0, 0), (0, 1, 0)])
    assert len(mesh.vertices) == 3


def test_an_object_without_material_has_no_colour(scenes):
    assert not load(scenes / "no_material").has_color


def test_an_object_without_material_takes_its_vertex_colours(scenes):
    mesh = load(scenes / "only_vertex_colors")
    np.testing.assert_allclose(paint(mesh, np.zeros(3, int), np.eye(3))[:, :3], np.eye(3), atol=1e-6)


def test_faces_have_the_material_of_the_object_that_shows_them(scenes):
    mesh = load(scenes / "two_materials")
    middle = np.full((4, 3), 1 / 3)
    colors = paint(mesh, np.arange(4), middle)[:, :3]
    np.testing.assert_array_equal(colors, [(0, 1, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)])


def test_a_large_texture_is_stored_smaller_with_the_same_colours(scenes):
    mesh = load(scenes / "large_texture")
    assert mesh.images[0].shape == (1, 1667, 4)
    weights = np.array([(0.7, 0.2, 0.1), (0.1, 0.8, 0.1)])  # u = 0.2 and 0.8
    np.testing.assert_array_equal(paint(mesh, np.zeros(2, int), weights)[:, :3], [(1, 0, 0), (0, 0, 1)])


def test_a_texture_that_cannot_be_read_is_counted_and_white(scenes):
    mesh = load(scenes / "broken")
    assert (scenes / "broken" / "missing").read_text() == "2"  # the base colour's and the normal map's
    np.testing.assert_allclose(paint(mesh, np.array([0]), np.full((1, 3), 1 / 3))[0], (0.5, 0.25, 1, 1), atol=1e-6)
    assert mesh.materials[0].guessed == ("a texture that cannot be read: white",)


def test_a_node_that_cannot_be_followed_gives_way_to_the_sockets_value_and_is_named(scenes):
    mesh = load(scenes / "broken")
    np.testing.assert_allclose(paint(mesh, np.array([1]), np.full((1, 3), 1 / 3))[0], (0.4, 0.5, 0.6, 1), atol=1e-6)
    assert mesh.materials[1].guessed == ("Checker Texture node at Base Color",)
