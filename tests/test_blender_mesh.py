import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial

from pipeline.mesh import Mesh, load
from pipeline.points import paint, sample_points, srgb_from_linear
from render.blender import Blender
from render.spec import Request

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


# ------------------------------------------------------------------------------------------------- from a file to its points


@pytest.fixture(scope="module")
def mesh_of(tmp_path_factory):
    """A function from a trimesh scene, and changes to its glTF document, to the mesh that Blender makes of the file."""
    folder = tmp_path_factory.mktemp("assets")
    with Blender() as blender:

        def make(scene: trimesh.Scene, change=None) -> Mesh:
            asset = folder / f"{len(list(folder.iterdir()))}.glb"
            asset.write_bytes(scene.export(file_type="glb", tree_postprocessor=change))
            return load(blender.do(Request(asset=str(asset), format="glb", folder="", mesh=True))[1] / "mesh")

        yield make


def square_with(picture: np.ndarray) -> trimesh.Scene:
    """A square that faces +z with the picture on it, upright: x and y run from -1 to 1 as u and v from 0 to 1."""
    corners = np.array([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], dtype=np.float64)
    visual = trimesh.visual.TextureVisuals(
        uv=corners[:, :2] / 2 + 0.5, material=PBRMaterial(baseColorTexture=Image.fromarray(picture))
    )
    return trimesh.Scene(trimesh.Trimesh(corners, [(0, 1, 2), (0, 2, 3)], visual=visual, process=False))


def quarters() -> np.ndarray:
    """Top left red, top right green, lower left blue, lower right white."""
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[:32, :32], picture[:32, 32:] = (200, 0, 0, 255), (0, 100, 0, 255)
    picture[32:, :32], picture[32:, 32:] = (0, 0, 50, 255), (255, 255, 255, 255)
    return picture


def colors_at(mesh: Mesh, places) -> list[tuple[int, ...]]:
    """sRGB of the points of a flat object that are nearest to these places (x, y)."""
    row = sample_points(mesh, 4000, np.random.default_rng(0))
    xyz, rgb = row["xyz"].astype(np.float64).reshape(-1, 3), row["rgb"].reshape(-1, 3)
    nearest = [np.linalg.norm(xyz[:, :2] - place, axis=1).argmin() for place in places]
    return [tuple(rgb[i].tolist()) for i in nearest]


QUARTERS = [(-0.3, 0.3), (0.3, 0.3), (-0.3, -0.3), (0.3, -0.3)]


def test_a_picture_lies_upright_on_a_gltf_square(mesh_of):
    assert colors_at(mesh_of(square_with(quarters())), QUARTERS) == [(200, 0, 0), (0, 100, 0), (0, 0, 50), (255, 255, 255)]


def test_a_gltf_base_colour_factor_multiplies_the_texture_in_linear_space(mesh_of):
    def change(document):
        document["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"] = [0.5, 0.25, 1.0, 1.0]

    def factored(srgb, factor):
        linear = ((srgb / 255 + 0.055) / 1.055) ** 2.4
        return int(srgb_from_linear(np.array([linear * factor]))[0])

    assert colors_at(mesh_of(square_with(quarters()), change), QUARTERS) == [
        (factored(200, 0.5), 0, 0),
        (0, factored(100, 0.25), 0),
        (0, 0, 50),
        (factored(255, 0.5), factored(255, 0.25), 255),
    ]


def test_a_gltf_texture_transform_shifts_the_picture(mesh_of):
    def change(document):
        texture = document["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]
        texture["extensions"] = {"KHR_texture_transform": {"offset": [0.5, 0]}}
        document["extensionsUsed"] = ["KHR_texture_transform"]

    colors = colors_at(mesh_of(square_with(quarters()), change), QUARTERS)
    assert colors == [(0, 100, 0), (200, 0, 0), (255, 255, 255), (0, 0, 50)]


def test_an_unlit_gltf_material_keeps_its_picture(mesh_of):
    def change(document):
        document["materials"][0]["extensions"] = {"KHR_materials_unlit": {}}
        document["extensionsUsed"] = ["KHR_materials_unlit"]

    mesh = mesh_of(square_with(quarters()), change)
    assert colors_at(mesh, QUARTERS) == [(200, 0, 0), (0, 100, 0), (0, 0, 50), (255, 255, 255)]
    assert mesh.materials[0].guessed == ()


@pytest.mark.parametrize("unlit", [False, True])
@pytest.mark.parametrize("mode", ["MASK", "BLEND"])
def test_no_points_lie_in_the_transparent_part_of_a_gltf_picture(mesh_of, mode, unlit):
    picture = quarters()
    picture[:, :32, 3] = 0

    def change(document):
        document["materials"][0]["alphaMode"] = mode
        if unlit:
            document["materials"][0]["extensions"] = {"KHR_materials_unlit": {}}
            document["extensionsUsed"] = ["KHR_materials_unlit"]

    mesh = mesh_of(square_with(picture), change)
    x = sample_points(mesh, 2000, np.random.default_rng(0))["xyz"].reshape(-1, 3)[:, 0]
    transparent = (x < -0.02) & (x > -0.69)  # the picture repeats: at its left edge shows the right one, half a texel wide
    assert not transparent.any() and (x > 0).mean() > 0.95
    assert colors_at(mesh, [(0.3, 0.3), (0.3, -0.3)]) == [(0, 100, 0), (255, 255, 255)]


def test_an_opaque_gltf_material_ignores_the_pictures_alpha(mesh_of):
    picture = quarters()
    picture[:, :32, 3] = 0
    assert colors_at(mesh_of(square_with(picture)), QUARTERS)[0] == (200, 0, 0)


def test_gltf_vertex_colours_are_linear(mesh_of):
    """glTF says that COLOR_0 is linear: 128 / 255 is 188 in sRGB."""
    box = trimesh.creation.box()
    box.visual.vertex_colors = np.tile((128, 0, 255, 255), (8, 1)).astype(np.uint8)
    row = sample_points(mesh_of(trimesh.Scene(box)), 100, np.random.default_rng(0))
    np.testing.assert_allclose(row["rgb"].reshape(-1, 3), np.tile((188, 0, 255), (100, 1)), atol=1)


def test_node_transforms_also_mirrored_ones_place_what_they_hold(mesh_of):
    """A square tile of 1 with a picture, and the same tile mirrored to the other side: both halves of a butterfly."""
    tile = next(iter(square_with(quarters()).geometry.values()))
    scene = trimesh.Scene()
    scene.add_geometry(tile, transform=trimesh.transformations.translation_matrix((1, 0, 0)))
    scene.add_geometry(tile, transform=np.diag((-1.0, 1, 1, 1)) @ trimesh.transformations.translation_matrix((1, 0, 0)))
    mesh = mesh_of(scene)
    half = 1 / np.sqrt(5)  # the canonical size of a tile's half side
    right, left = [(0.5 * half, 0.5 * half), (1.5 * half, 0.5 * half)], [(-0.5 * half, 0.5 * half), (-1.5 * half, 0.5 * half)]
    assert colors_at(mesh, right) == colors_at(mesh, left) == [(200, 0, 0), (0, 100, 0)]
    a, b, c = mesh.vertices[mesh.faces].transpose(1, 0, 2)
    assert (np.cross(b - a, c - a)[:, 2] > 0).all()
