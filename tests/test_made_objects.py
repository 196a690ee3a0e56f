"""Made objects: sound geometry, true words, Objaverse's layout, and the same bytes every time."""

import gzip
import io
import json

import numpy as np
import pytest
import trimesh

from pipeline.made.made_objects import (
    CATEGORIES,
    COLORS,
    LICENSES,
    joined,
    made_objects,
    make_object,
    write_broken,
    write_objaverse,
)
from pipeline.made.recipes import KINDS
from pipeline.made.solids import ball, box, cylinder, lathe, plate, ring, tube


def read_json(path):
    return json.loads(gzip.decompress(path.read_bytes()))


def load(glb: bytes) -> trimesh.Scene:
    return trimesh.load(io.BytesIO(glb), file_type="glb")


@pytest.mark.parametrize(
    ("surface", "volume"),
    [
        (box(1, 2, 3), 6.0),
        (plate([(0, 0), (2, 0), (2, 1), (0, 1)], 0.5), 1.0),
        (plate([(0, 1), (2, 1), (2, 0), (0, 0)], 0.5), 1.0),  # the outline the other way round
        (cylinder(1, 2, 200), 2 * np.pi),
        (cylinder(1, 2, 4), 4.0),
        (cylinder(1, 3, 200, top=0), np.pi),
        (ball(1, 200, 100), 4 / 3 * np.pi),
        (ring(2, 0.5, 200, 100), 2 * np.pi * 2 * np.pi * 0.25),
        (tube([(0, 0, 0), (0, 0, 1), (0, 0, 2)], 0.5, 200), 2 * np.pi * 0.25),
        (lathe([(0, 0), (1, 0), (1, 1), (0.5, 1), (0.5, 0.5), (0, 0.5)], 200), np.pi * (1 - 0.125)),
    ],
)
def test_solids_are_closed_face_outwards_and_hold_their_volume(surface, volume):
    mesh = trimesh.Trimesh(surface.vertices, surface.faces)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.volume == pytest.approx(volume, rel=2e-3)


@pytest.mark.parametrize("surface", [box(1, 2, 3), cylinder(1, 2), ball(1), ring(1, 0.3), cylinder(1, 1, 4)])
def test_normals_have_unit_length_and_agree_with_the_faces(surface):
    np.testing.assert_allclose(np.linalg.norm(surface.normals, axis=1), 1)
    a, b, c = (surface.vertices[surface.faces[:, i]] for i in range(3))
    facing = np.cross(b - a, c - a)
    facing /= np.linalg.norm(facing, axis=1, keepdims=True)
    assert (np.einsum("fj,fkj->fk", facing, surface.normals[surface.faces]) > 0.8).all()


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_kind_stands_upright_about_two_units_large(category):
    for seed in range(3):
        made = make_object(category, np.random.default_rng(seed))
        low, high = load(made.scene.export(file_type="glb", include_normals=True)).bounds
        assert 0.9 < (high - low).max() < 3.2
        assert -0.3 < low[1] < 0.3
        assert high[1] > 0.3


def test_a_glb_shows_the_same_surface_as_the_scene_whatever_its_root_undoes():
    seen = set()
    for uid, made in made_objects(12, seed=5):
        root = made.scene.graph["Sketchfab_model"][0]
        seen.add((round(float(np.linalg.norm(root[:3, 0])), 6), bool(abs(root[1, 1]) < 1e-9)))
        loaded = load(made.scene.export(file_type="glb", include_normals=True))
        np.testing.assert_allclose(loaded.bounds, made.scene.bounds, atol=1e-4, err_msg=uid)
    assert len(seen) >= 4  # several units, and both up axes


def test_the_words_name_kind_and_colour_that_are_there():
    for _, made in made_objects(3 * len(CATEGORIES), seed=3):
        kind = KINDS[made.category]
        assert made.category in made.subject
        assert made.category.replace(" ", "") == made.tags[0]
        assert made.categories == (kind.sketchfab,)
        assert not made.description or made.category in made.description
        color = next((name for name in sorted(COLORS, key=len, reverse=True) if made.looks.startswith(name)), None)
        if color is None:
            assert "wooden" in made.looks
            continue
        pictured = {geometry.visual.material.name: geometry.visual.material for geometry in made.scene.geometry.values()
                    if geometry.visual.kind == "texture"}  # fmt: skip
        if "main" in pictured:  # else its colour is stored at the vertices
            distance = np.abs(frequent_colors(pictured["main"]) - COLORS[color]).max(axis=1)
            assert distance.min() <= 40, (made.subject, distance)


def frequent_colors(material) -> np.ndarray:
    """The sRGB colours that cover at least a quarter of a material, factor times picture; of a mottled one, the most frequent."""
    linear = np.array(material.baseColorFactor[:3]) / 255
    factor = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    if material.baseColorTexture is None:
        return factor[None] * 255
    colors, counts = np.unique(np.array(material.baseColorTexture).reshape(-1, 3), axis=0, return_counts=True)
    return factor * colors[counts >= min(counts.sum() / 4, counts.max())]


def test_colours_are_kept_in_all_three_ways_and_with_pictures_times_factors():
    ways = set()
    for _, made in made_objects(4 * len(CATEGORIES), seed=4):
        for geometry in made.scene.geometry.values():
            if geometry.visual.kind == "vertex":
                ways.add("vertex")
            elif geometry.visual.material.baseColorTexture is None:
                ways.add("factor")
            else:
                ways.add("picture" if min(geometry.visual.material.baseColorFactor) == 255 else "picture times factor")
    assert ways == {"vertex", "factor", "picture", "picture times factor"}


def test_a_collection_has_the_layout_of_objaverse_and_only_true_counts(tmp_path):
    uids = write_objaverse(tmp_path, len(CATEGORIES) + 5, seed=0)
    paths = read_json(tmp_path / "object-paths.json.gz")
    annotations = read_json(tmp_path / "metadata" / "000-000.json.gz")
    lvis = read_json(tmp_path / "lvis-annotations.json.gz")
    assert list(paths) == list(annotations) == uids
    assert all(len(uid) == 32 and int(uid, 16) >= 0 for uid in uids) and len(set(uids)) == len(uids)
    assert {annotation["license"] for annotation in annotations.values()} <= set(LICENSES)
    assert len({annotation["license"] for annotation in annotations.values()}) >= 3
    made = dict(made_objects(len(uids), seed=0))
    assert {name for name in lvis} == {m.lvis for m in made.values() if m.lvis}
    for category, members in lvis.items():
        assert all(made[uid].lvis == category for uid in members)
    for uid in uids[:8]:
        glb = (tmp_path / paths[uid]).read_bytes()
        loaded, annotation = load(glb), annotations[uid]
        assert annotation["archives"]["glb"]["size"] == len(glb) < 150_000
        nodes = loaded.graph.nodes_geometry
        assert annotation["faceCount"] == sum(len(loaded.geometry[loaded.graph[node][1]].faces) for node in nodes)
        assert annotation["name"] == made[uid].name
        assert tuple(tag["name"] for tag in annotation["tags"]) == made[uid].tags


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_objaverse(tmp_path / name, 6, seed=seed)
        write_broken(tmp_path / name)
    a, b, c = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in sorted((tmp_path / name).rglob("*.gz"))}
        | {i: path.read_bytes() for i, path in enumerate(sorted((tmp_path / name).rglob("*.glb")))}
        for name in "abc"
    )
    assert a == b
    assert all(a[key] != c[key] for key in a if isinstance(key, int) and key < 6 or str(key).startswith("object"))


def test_broken_assets_are_listed_and_cannot_be_used(tmp_path):
    whole = write_objaverse(tmp_path, 3)
    truncated, faceless = write_broken(tmp_path)
    paths = read_json(tmp_path / "object-paths.json.gz")
    assert list(paths) == [*whole, truncated, faceless] == list(read_json(tmp_path / "metadata" / "000-000.json.gz"))
    content = (tmp_path / paths[truncated]).read_bytes()
    assert content[:4] == b"glTF" and int.from_bytes(content[8:12], "little") > len(content)
    assert not load((tmp_path / paths[faceless]).read_bytes()).geometry


def test_details_are_joined_to_a_sentence():
    assert joined("a mug", ()) == "a mug"
    assert joined("a mug", ("full of coffee", "with a lid", "with a spoon", "with a handle")) == (
        "a mug full of coffee with a lid, a spoon and a handle"
    )
