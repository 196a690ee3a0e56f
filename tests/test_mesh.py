import json

import numpy as np

from pipeline.mesh import Material, load


def test_load_gives_what_the_folder_holds(tmp_path):
    """The folder as render/blender_mesh.py writes it; layer names may be any text."""
    rng = np.random.default_rng(0)
    arrays = {
        "vertices": rng.random((4, 3), np.float32),
        "faces": np.array([(0, 1, 2), (0, 2, 3)], np.int32),
        "material": np.array([0, -1], np.int32),
        "uv0": rng.random((2, 3, 2), np.float32),
        "uv1": rng.random((2, 3, 2), np.float32),
        "color0": rng.random((2, 3, 4), np.float32),
    }
    pictures = [rng.integers(0, 256, (3, 5, 4), np.uint8), rng.random((2, 2, 4)).astype(np.float16)]
    paint = {"kind": "attribute", "name": "a/b"}
    np.savez(tmp_path / "mesh.npz", **arrays)
    (tmp_path / "images").mkdir()
    for i, picture in enumerate(pictures):
        np.save(tmp_path / "images" / f"{i}.npy", picture)
    about = {
        "uvs": ["", "Ünwrap/2"],
        "colors": ["a/b"],
        "materials": [{"name": "m", "color": paint, "alpha": paint, "guessed": ["x"]}],
        "images": 2,
        "canonical_from_asset": np.diag((2.0, 2, 2, 1)).tolist(),
    }
    (tmp_path / "mesh.json").write_text(json.dumps(about))

    mesh = load(tmp_path)
    for name in ("vertices", "faces", "material"):
        np.testing.assert_array_equal(getattr(mesh, name), arrays[name])
    assert list(mesh.uvs) == ["", "Ünwrap/2"] and list(mesh.colors) == ["a/b"]
    np.testing.assert_array_equal(mesh.uvs["Ünwrap/2"], arrays["uv1"])
    np.testing.assert_array_equal(mesh.colors["a/b"], arrays["color0"])
    assert mesh.materials == (Material(name="m", color=paint, alpha=paint, guessed=("x",)),)
    for picture, loaded in zip(pictures, mesh.images, strict=True):
        assert loaded.dtype == picture.dtype
        np.testing.assert_array_equal(loaded, picture)
    np.testing.assert_array_equal(mesh.canonical_from_asset, np.diag((2.0, 2, 2, 1)))
    assert mesh.has_color


def test_a_mesh_without_any_material_has_no_colour(tmp_path):
    np.savez(
        tmp_path / "mesh.npz",
        vertices=np.zeros((3, 3), np.float32),
        faces=np.array([(0, 1, 2)], np.int32),
        material=np.array([-1], np.int32),
    )
    about = {"uvs": [], "colors": [], "materials": [], "images": 0, "canonical_from_asset": np.eye(4).tolist()}
    (tmp_path / "mesh.json").write_text(json.dumps(about))
    assert not load(tmp_path).has_color
