from dataclasses import replace

import numpy as np
import pytest
import trimesh
from PIL import Image

from pipeline.mesh import load
from render.blender import Blender, BlenderSettings
from render.blender_pass import RenderViews
from render.outlines import with_clean_outlines
from render.spec import Request
from render.views import read_pictures

FEW = RenderViews(width=96, height=96, samples=4, outline_rays=0)
MANY = replace(FEW, samples=256, noise_threshold=0.0, denoise=False)
VIEWS = slice(0, 12, 5)  # one of each polar angle


@pytest.fixture(scope="module")
def blender():
    with Blender(BlenderSettings()) as running:
        yield running


def rendered(blender, path, stage) -> tuple[list[np.ndarray], object]:
    """Three pictures of an asset and its mesh."""
    pictures = stage.pictures("made/1")
    pictures = replace(pictures, views=pictures.views[VIEWS])
    _, folder = blender.do(Request(asset=str(path), format="glb", pictures=pictures, mesh=True))
    return read_pictures(folder, len(pictures.views)), load(folder / "mesh")


def clean(pictures, mesh, count=32):
    return with_clean_outlines(pictures, FEW.cameras("made/1")[VIEWS], mesh, count)


def error(pictures, truth) -> float:
    """Root mean square difference over white, of 255."""

    def over_white(picture):
        alpha = picture[..., 3:] / 255
        return picture[..., :3] * alpha + 255 * (1 - alpha)

    return float(np.sqrt(np.mean([(over_white(a) - over_white(b)) ** 2 for a, b in zip(pictures, truth, strict=True)])))


def alpha_error(pictures, truth) -> float:
    apart = np.array([a[..., 3].astype(float) - b[..., 3] for a, b in zip(pictures, truth, strict=True)])
    return float(np.sqrt((apart**2).mean()))


@pytest.fixture(scope="module")
def knot(tmp_path_factory):
    """A dark ring with a stick through it: curved and straight outlines, a hole."""
    path = tmp_path_factory.mktemp("assets") / "knot.glb"
    parts = trimesh.creation.torus(major_radius=1, minor_radius=0.3), trimesh.creation.box(extents=(0.1, 0.1, 3))
    scene = trimesh.Scene()
    for part in parts:
        material = trimesh.visual.material.PBRMaterial(baseColorFactor=(40, 30, 90, 255), metallicFactor=0.0, roughnessFactor=0.8)
        part.visual = trimesh.visual.TextureVisuals(material=material)
        scene.add_geometry(part)
    scene.export(path)
    return path


def test_outlines_come_out_as_from_many_samples(blender, knot):
    few, mesh = rendered(blender, knot, FEW)
    truth, _ = rendered(blender, knot, MANY)
    cleaned = clean(few, mesh)
    assert alpha_error(cleaned, truth) < alpha_error(few, truth) / 5
    assert error(cleaned, truth) < error(few, truth) / 2


def test_holes_of_a_texture_have_clean_rims_too(blender, tmp_path):
    """A sheet with a soft-edged disc of alpha, blended: all that is see-through comes from the texture."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    pixels = np.full((64, 64, 4), (60, 120, 60, 255), np.uint8)
    pixels[..., 3] = np.clip(255 * 4 * (0.7 - np.hypot(x, y)), 0, 255)
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.fromarray(pixels), alphaMode="BLEND", metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True
    )
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], float)
    visual = trimesh.visual.TextureVisuals(uv=(corners[:, :2] + 1) / 2, material=material)
    trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False).export(tmp_path / "leaf.glb")
    few, mesh = rendered(blender, tmp_path / "leaf.glb", FEW)
    truth, _ = rendered(blender, tmp_path / "leaf.glb", MANY)
    assert alpha_error(clean(few, mesh), truth) < alpha_error(few, truth) / 3


def test_inside_and_outside_nothing_changes(blender, knot):
    few, mesh = rendered(blender, knot, FEW)
    for before, after in zip(few, clean(few, mesh), strict=True):
        alpha = before[..., 3]
        around = np.stack([np.roll(alpha, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)])
        flat = around.min(axis=0) == around.max(axis=0)
        assert flat.sum() > 5000
        np.testing.assert_array_equal(before[flat], after[flat])


def test_what_the_mesh_does_not_have_stays_as_it_was_rendered(blender, knot):
    """A picture of more than the mesh: a square in a corner, where no ray meets anything."""
    few, mesh = rendered(blender, knot, FEW)
    few = [picture.copy() for picture in few]
    for picture in few:
        picture[2:12, 2:12] = 200
        picture[2:12, 2:12, 3] = 255
    for after in clean(few, mesh):
        assert (after[2:12, 2:12] == (200, 200, 200, 255)).all()


def test_the_same_picture_gives_the_same_bytes(blender, knot):
    few, mesh = rendered(blender, knot, FEW)
    np.testing.assert_array_equal(clean(few, mesh), clean(few, mesh))
