"""Maps of made scenes of which every depth and normal is known, and of a small corpus."""

import io
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from jobs.__main__ import main
from pipeline.ingest import Ingest
from pipeline.mesh import load
from pipeline.points import sample_points
from pipeline.run import run
from pipeline.sources.source import source_from
from pipeline.stage import Single, Task
from pipeline.store import Corpus
from pipeline.visibility import visible
from render.blender import Blender, BlenderSettings
from render.blender_pass import BlenderPass, RenderViews, SamplePoints, seen_from
from render.cameras import Camera
from render.maps import STEPS, RenderMaps, encoded_depth, encoded_normals
from render.spec import Maps, Request
from schemas.check import to_table, violations
from schemas.maps import at_points, depth_of, normals_of
from schemas.tables import MAPS, POINTS_PER_OBJECT

EXTENTS = np.array([2.0, 1.0, 0.5])
HALF = EXTENTS / np.linalg.norm(EXTENTS)  # of the box, in the canonical frame


@pytest.fixture(scope="module")
def blender():
    with Blender(BlenderSettings(threads=1)) as running:
        yield running


def maps_of(blender: Blender, path: Path, cameras: list[Camera]) -> list[np.ndarray]:
    maps = Maps(views=tuple(map(seen_from, cameras)), width=cameras[0].width, height=cameras[0].height)
    _, folder = blender.do(Request(asset=str(path), format=path.suffix[1:], maps=maps))
    return [np.load(folder / "maps" / f"{number:03d}.npy") for number in range(len(cameras))]


def rays(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Where the rays through the pixels' centres begin, and (height, width, 3) how far they go per unit of depth."""
    column, row = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    seen = np.stack([(column - camera.cx) / camera.fx, (row - camera.cy) / camera.fy, np.ones_like(row)], axis=-1)
    return camera.position, seen @ camera.camera_to_world[:3, :3].T


def box_seen_by(camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth (inf: the box is missed) and normals at the pixels' centres, and which of these lie on an edge, but for rounding."""
    origin, direction = rays(camera)
    with np.errstate(divide="ignore"):
        one, other = (-HALF - origin) / direction, (HALF - origin) / direction
    enter, leave = np.minimum(one, other), np.maximum(one, other)
    axis = enter.argmax(axis=-1)
    normal = -np.sign(np.take_along_axis(direction, axis[..., None], -1)) * np.eye(3)[axis]
    hit = enter.max(axis=-1) < leave.min(axis=-1)
    depth = np.where(hit, enter.max(axis=-1), np.inf)
    room = np.abs(np.sort(enter)[..., -1] - np.sort(enter)[..., -2])  # between the two sides that come into question
    edge = (np.abs(enter.max(axis=-1) - leave.min(axis=-1)) < 2e-4) | (room < 2e-4)
    return depth, normal, edge


def cameras_of_any_kind() -> list[list[Camera]]:
    rolled = RenderViews().cameras("a/1")[1].camera_to_world @ trimesh.transformations.rotation_matrix(0.5, (0, 0, 1))
    odd = [Camera(width=100, height=80, fx=fx, fy=fy, cx=61, cy=33, camera_to_world=rolled) for fx, fy in ((110, 140), (140, 110))]
    return [RenderViews(width=96, height=64).cameras("a/1"), odd[:1], odd[1:]]


@pytest.mark.parametrize("cameras", cameras_of_any_kind(), ids=["rig", "flat pixels", "tall pixels"])
def test_depth_and_normals_of_a_box_are_exact_at_the_centre_of_every_pixel(blender, tmp_path, cameras):
    path = tmp_path / "box.glb"
    trimesh.creation.box(extents=EXTENTS).apply_translation((5, 6, 7)).export(path)
    for camera, made in zip(cameras, maps_of(blender, path, cameras), strict=True):
        depth, normal, edge = box_seen_by(camera)
        hit = np.isfinite(depth) & ~edge
        assert hit.sum() > 300
        assert np.isnan(made[np.isinf(depth) & ~edge]).all()
        np.testing.assert_allclose(made[hit][:, 0], depth[hit], atol=1e-5)
        np.testing.assert_allclose(made[hit][:, 1:], normal[hit], atol=1e-5)


def test_normals_are_those_that_are_shaded_with_not_those_of_the_triangles(blender, tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=3)
    ball.visual = trimesh.visual.TextureVisuals(material=trimesh.visual.material.PBRMaterial(metallicFactor=1, roughnessFactor=0.1))
    path = tmp_path / "ball.glb"
    path.write_bytes(trimesh.exchange.gltf.export_glb(trimesh.Scene(ball), include_normals=True))
    [camera] = RenderViews(width=64, height=64).cameras("a/1")[:1]
    [made] = maps_of(blender, path, [camera])
    origin, direction = rays(camera)
    surface = origin + direction * made[..., :1]
    outwards = surface / np.linalg.norm(surface, axis=-1, keepdims=True)
    hit = np.isfinite(made[..., 0])
    np.testing.assert_allclose(made[hit][:, 1:], outwards[hit], atol=0.01)  # a triangle's own is off by up to 0.08


def leaves(path: Path, material: dict, *, extensions=(), picture: Image.Image | None = None) -> None:
    """A square of this glTF material in front (canonical z = 0.5) of a larger one that is opaque (z = -0.5)."""
    front, back = ([(-s, -s, z), (s, -s, z), (s, s, z), (-s, s, z)] for s, z in ((0.4, 0.5), (0.7, -0.5)))
    positions = np.array([front, back], np.float32).tobytes()
    uv, faces = np.array([(0, 1), (1, 1), (1, 0), (0, 0)], np.float32).tobytes(), np.array([0, 1, 2, 0, 2, 3], np.uint32).tobytes()
    file = io.BytesIO()
    (picture or Image.new("RGBA", (1, 1))).save(file, "PNG")
    parts = [positions, uv, faces, file.getvalue()]
    starts = np.cumsum([0, *map(len, parts)])
    data = b"".join(parts)
    attributes = [{"POSITION": 0, "TEXCOORD_0": 2}, {"POSITION": 1, "TEXCOORD_0": 2}]
    gltf = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": a, "indices": 3, "material": i} for i, a in enumerate(attributes)]}],
        "materials": [material, {"pbrMetallicRoughness": {}}],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [{"magFilter": 9728, "minFilter": 9728}],
        "images": [{"bufferView": 3, "mimeType": "image/png"}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3", "min": [-s, -s, z], "max": [s, s, z]} | offset
            for s, z, offset in ((0.4, 0.5, {}), (0.7, -0.5, {"byteOffset": 48}))
        ]
        + [
            {"bufferView": 1, "componentType": 5126, "count": 4, "type": "VEC2"},
            {"bufferView": 2, "componentType": 5125, "count": 6, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": int(start), "byteLength": len(part)} for start, part in zip(starts, parts, strict=False)
        ],
        "buffers": [{"byteLength": len(data)}],
        "extensionsUsed": list(extensions),
    }
    text = json.dumps(gltf).encode()
    text += b" " * (-len(text) % 4)
    data += b"\0" * (-len(data) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(data), 0x004E4942) + data
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)


def glass(name: str, value: dict) -> dict:
    return {"material": {"pbrMetallicRoughness": {"roughnessFactor": 0}, "extensions": {name: value}}, "extensions": [name]}


def blended(alpha: float, **more) -> dict:
    return {"material": {"pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, alpha]}, "alphaMode": "BLEND", **more}}


LEFT_HALF = Image.fromarray(np.array([[(255, 255, 255, 255), (255, 255, 255, 0)]], np.uint8))
TEXTURED = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}


@pytest.mark.parametrize(
    "left, right, front",
    [
        ("back", "back", blended(0.4)),
        ("front", "front", blended(0.6)),
        ("front", "front", {"material": {"pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0.1]}}}),  # alphaMode OPAQUE
        ("front", "back", {"material": TEXTURED | {"alphaMode": "MASK"}, "picture": LEFT_HALF}),
        ("front", "back", {"material": TEXTURED | {"alphaMode": "BLEND"}, "picture": LEFT_HALF}),
        ("back", "back", blended(0.4, extensions={"KHR_materials_unlit": {}}) | {"extensions": ["KHR_materials_unlit"]}),
        ("front", "front", blended(0.6, extensions={"KHR_materials_unlit": {}}) | {"extensions": ["KHR_materials_unlit"]}),
        ("front", "front", glass("KHR_materials_transmission", {"transmissionFactor": 1})),
    ],
    ids=["blend 0.4", "blend 0.6", "opaque", "mask", "blend by texture", "unlit 0.4", "unlit 0.6", "glass"],
)
def test_what_is_less_than_half_opaque_is_passed_by_in_depth_and_for_points_alike(blender, tmp_path, left, right, front):
    path = tmp_path / "leaves.glb"
    leaves(path, **front)
    placed = np.diag([1.0, -1, -1, 1])
    placed[2, 3] = 3
    camera = Camera(width=48, height=48, fx=60, fy=60, cx=24, cy=24, camera_to_world=placed)
    maps = Maps(views=(seen_from(camera),), width=48, height=48)
    answer, folder = blender.do(Request(asset=str(path), format="glb", mesh=True, maps=maps))
    depth = np.load(folder / "maps" / "000.npy")[..., 0]
    scale = answer.canonical_from_asset[0]
    near = 3 - 0.5 * scale
    nearest = {"front": near, "back": 3 + 0.5 * scale}
    for x, expected in ((-0.2, left), (0.2, right)):  # the middle of the front square's left and right half
        (column, row), _ = (part[0] for part in camera.project(np.array([[x * scale, 0.01, 0.5 * scale]])))
        assert depth[int(row), int(column)] == pytest.approx(nearest[expected], abs=1e-4)

    mesh = load(folder / "mesh")
    xyz = sample_points(mesh, 4000, np.random.default_rng(0))["xyz"].reshape(-1, 3).astype(np.float64)
    [seen] = visible(mesh, xyz, camera.position[None])
    crossing = xyz * (near / (3 - xyz[:, 2:])) / scale  # where the ray from the camera crosses the plane of the front square
    for x, expected in ((-0.2, left), (0.2, right)):
        behind = (xyz[:, 2] < 0) & (np.abs(crossing[:, :2] - (x, 0)) < (0.19, 0.39)).all(axis=1)
        assert behind.sum() > 100
        assert (seen[behind] == (expected == "back")).all()
    assert seen[xyz[:, 2] > 0].all()


def test_what_is_stored_is_read_back_to_half_a_step_of_depth_and_half_a_degree(rng):
    depth = rng.uniform(2, 4, (40, 50)).astype(np.float32)
    normals = rng.normal(size=(40, 50, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    depth[3:9], normals[3:9] = np.nan, np.nan
    row = encoded_depth(depth, unit=4.05 / STEPS) | {"normal": encoded_normals(normals)}
    np.testing.assert_allclose(depth_of(row), depth, atol=0.51 * 4.05 / STEPS)
    assert (np.isnan(normals_of(row)) == np.isnan(normals)).all()
    angle = np.degrees(np.arccos(np.minimum((normals_of(row) * normals).sum(axis=2), 1)))
    assert np.nanmax(angle) < 0.5


# ------------------------------------------------------------------------------------------------------------------ a corpus

RIG, SIZE = "fibonacci-6@1", 128
VIEWS = RenderViews(rig=RIG, width=SIZE, height=SIZE, samples=4)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A lamp of two parts, a red foot and a blue shade, and a ring."""
    folder = tmp_path_factory.mktemp("source")
    foot, shade = trimesh.creation.cylinder(0.2, 1.5), trimesh.creation.icosphere(subdivisions=4, radius=0.6)
    shade.apply_translation((0, 0, 1))
    for part, color in ((foot, (255, 0, 0, 255)), (shade, (0, 0, 255, 255))):
        part.visual.vertex_colors = color
    trimesh.util.concatenate([foot, shade]).export(folder / "lamp.glb")
    trimesh.creation.torus(major_radius=3, minor_radius=0.8).export(folder / "ring.glb")
    return folder


@pytest.fixture(scope="module")
def viewed(source, tmp_path_factory):
    """A corpus of them with views and points, of another rig, size and seed than the default."""
    corpus = Corpus(str(tmp_path_factory.mktemp("viewed") / "corpus"))
    ingest = Ingest(sources=(source_from(f"made:folder={source}", {}),))
    run(corpus, Single(ingest), records=ingest.records(None))
    run(corpus, BlenderPass(stages=(VIEWS, SamplePoints(seed=7))))
    return corpus.root


@pytest.fixture(scope="module")
def mapped(viewed):
    """The same with maps; the job is told nothing."""
    assert main(["maps", viewed]) == 0
    return viewed


def rows_of(root: str, table: str, name: str) -> list[dict]:
    return sorted(
        Corpus(root).need(table).to_table(filter=f"object_id = 'made/{name}'").to_pylist(), key=lambda row: row.get("view", 0)
    )


def camera_of(row: dict) -> Camera:
    fx, fy, cx, cy = row["intrinsics"]
    to_world = np.reshape(row["camera_to_world"], (4, 4))
    return Camera(width=row["width"], height=row["height"], fx=fx, fy=fy, cx=cx, cy=cy, camera_to_world=to_world)


def xyz_of(root: str, name: str) -> np.ndarray:
    [row] = rows_of(root, "points", name)
    return np.reshape(row["xyz"], (-1, 3)).astype(np.float64)


@pytest.mark.parametrize("name", ["lamp.glb", "ring.glb"])
def test_maps_are_of_the_views_there_are_and_number_the_points_there_are(mapped, name):
    maps, views, xyz = rows_of(mapped, "maps", name), rows_of(mapped, "views", name), xyz_of(mapped, name)
    assert len(maps) == len(views) == 6
    for row, view in zip(maps, views, strict=True):
        for column in ("view", "rig", "width", "height", "intrinsics", "camera_to_world"):
            assert row[column] == view[column]
        alpha = np.asarray(Image.open(io.BytesIO(view["image"])).convert("RGBA"))[..., 3]
        depth, normals = depth_of(row), normals_of(row)
        assert (np.isfinite(depth) == np.isfinite(normals).all(axis=2)).all()
        assert np.isfinite(depth[alpha == 255]).all() and np.isnan(depth[alpha == 0]).all()

        camera, seen = camera_of(row), np.array(row["seen"])
        pixel, own_depth = camera.project(xyz[seen])
        column, line = np.floor(pixel).astype(int).T
        np.testing.assert_array_equal(line * SIZE + column, row["pixels"])  # so they are these points, and no others
        # Where the surface is not too steep, the depth at its pixel's centre is that of the point, but for pixels that the edge
        # of something nearer runs through.
        _, towards = rays(camera)
        towards /= -np.linalg.norm(towards, axis=2, keepdims=True)
        steep = at_points(row, np.nan_to_num((normals * towards).sum(axis=2))) < 0.7
        off = np.abs(at_points(row, depth) - own_depth)[~steep]
        assert (~steep).sum() > 300
        assert (off < 2 * own_depth[~steep] / camera.fx).mean() > 0.95
        hidden = np.setdiff1d(np.arange(POINTS_PER_OBJECT), seen)
        column, line = np.floor(camera.project(xyz[hidden])[0]).astype(int).T
        behind = camera.project(xyz[hidden])[1] - depth[line, column]
        behind = behind[np.isfinite(behind)]  # the rest lies at the outline
        assert (behind > -5 / camera.fx).mean() > 0.99


def test_parts_told_apart_in_the_pictures_are_told_apart_on_the_points(mapped):
    """What part segmentation by views rests on: a unit is a box or region of a view, its points are those seen there (PartDistill,
    Umam et al. 2024, section 3.1)."""
    [points] = rows_of(mapped, "points", "lamp.glb")
    part = np.reshape(points["rgb"], (-1, 3))[:, 2] > 128  # blue: the shade
    assert 0.1 < part.mean() < 0.95
    right, total, boxes = 0, 0, 0
    for row, view in zip(rows_of(mapped, "maps", "lamp.glb"), rows_of(mapped, "views", "lamp.glb"), strict=True):
        picture = np.asarray(Image.open(io.BytesIO(view["image"])).convert("RGBA")).astype(int)
        blue = picture[..., 2] > picture[..., 0]
        seen = np.array(row["seen"])
        there = at_points(row, picture[..., 3]) > 0
        right += (at_points(row, blue) == part[seen])[there].sum()
        total += len(seen)

        # A box around what is blue: its unit is exactly the points seen whose projection lies in it.
        lines, columns = np.nonzero(blue & (picture[..., 3] > 0))
        box = np.zeros((SIZE, SIZE), bool)
        box[lines.min() : lines.max() + 1, columns.min() : columns.max() + 1] = True
        unit = seen[at_points(row, box)]
        pixel, _ = camera_of(row).project(xyz_of(mapped, "lamp.glb"))
        low, high = (columns.min(), lines.min()), (columns.max() + 1, lines.max() + 1)
        assert set(unit) == set(seen) & set(np.flatnonzero(((pixel >= low) & (pixel < high)).all(axis=1)))
        assert np.isin(seen[part[seen]], unit).mean() > 0.99  # it holds the shade
        boxes += len(unit)
    assert right / total >= 0.99
    assert boxes > 5000


def test_all_views_together_see_all_points_of_a_ring(mapped):
    seen = {number for row in rows_of(mapped, "maps", "ring.glb") for number in row["seen"]}
    assert len(seen) > 0.97 * POINTS_PER_OBJECT


def test_made_together_with_the_pictures_both_are_the_same(mapped, source):
    stages = (VIEWS, RenderMaps(rig=RIG, width=SIZE, height=SIZE, points=SamplePoints(seed=7)))
    row = {"asset_uri": str(source / "lamp.glb"), "asset_format": "glb", "companions": [], "front": None}
    work = BlenderPass(stages=stages).start()
    made = work([Task(id="made/lamp.glb", keys={"render": "k", "maps": "k"}, rows=[row])]).rows
    work.close()
    assert [row["image"] for row in made["render"]] == [row["image"] for row in rows_of(mapped, "views", "lamp.glb")]
    for row, alone in zip(made["maps"], rows_of(mapped, "maps", "lamp.glb"), strict=True):
        assert all(np.array_equal(row[column], alone[column]) for column in ("depth", "normal", "seen", "pixels"))


def test_a_picture_of_another_size_is_refused(mapped):
    row = rows_of(mapped, "maps", "ring.glb")[0]
    with pytest.raises(ValueError, match="the picture is 64 x 32, the view 128 x 128"):
        at_points(row, np.zeros((32, 64)))


def test_a_second_run_does_nothing_and_another_size_makes_them_anew(mapped, tmp_path, capsys):
    root, larger = str(tmp_path / "corpus"), tmp_path / "larger.toml"
    shutil.copytree(mapped, root)
    larger.write_text("[maps]\nwidth = 140\n")
    for more, done, width in (([], 0, SIZE), (["--settings", str(larger)], 2, 140)):
        assert main(["maps", root, "--json", *more]) == 0
        [stage] = json.loads(capsys.readouterr().out)["stages"]
        assert (stage["stage"], stage["done"], stage["failed"]) == ("maps", done, 0)
        assert {row["width"] for row in rows_of(root, "maps", "lamp.glb")} == {width}


def test_what_they_depend_on_is_in_their_settings(monkeypatch):
    before = RenderMaps().settings()
    assert before.keys() == {"rig", "seed", "width", "height", "points", "points_version"}
    assert RenderMaps(points=SamplePoints(seed=1)).settings() != before
    monkeypatch.setattr(SamplePoints, "version", SamplePoints.version + 1)
    assert RenderMaps().settings() != before
    with pytest.raises(ValueError, match="no camera rig nowhere@1"):
        RenderMaps(rig="nowhere@1")


def test_what_cannot_be_asked_for_is_refused_with_a_sentence(mapped, tmp_path, capsys, monkeypatch):
    def said(*arguments):
        code = main(["maps", *arguments])
        return code, capsys.readouterr().err

    other = tmp_path / "other.toml"
    other.write_text('[maps]\nrig = "ring-3@1"\n')
    code, words = said(mapped, "--settings", str(other))
    assert code == 2 and "[maps] has no setting 'rig'; it has: width, height" in words
    bare = tmp_path / "bare"
    shutil.copytree(Path(mapped, "objects.lance"), bare / "objects.lance")
    code, words = said(str(bare))
    assert code == 1 and "has no table 'views'" in words
    monkeypatch.setattr(SamplePoints, "version", SamplePoints.version + 1)
    code, words = said(mapped)
    assert code == 1 and "run the job `points` first" in words


@pytest.mark.parametrize(
    "column, changes",
    [
        (None, {}),
        (None, {"seen": [], "pixels": []}),
        ("camera_to_world", {"camera_to_world": 2 * np.eye(4).reshape(-1)}),
        ("depth_unit", {"depth_unit": 0.0}),
        ("depth_unit", {"width": 0}),
        ("seen", {"seen": [5, 5]}),
        ("seen", {"seen": [5, POINTS_PER_OBJECT]}),
        ("pixels", {"pixels": [7]}),
        ("pixels", {"pixels": [7, 1200]}),
    ],
)
def test_a_row_that_breaks_a_promise_is_found(column, changes):
    row = {"object_id": "a/1", "view": 0, "stage": "maps", "stage_key": "k", "rig": RIG, "width": 40, "height": 30}
    row |= {"intrinsics": [50.0, 50, 20, 15], "camera_to_world": np.eye(4).reshape(-1), "depth": b"x", "depth_unit": 1e-4}
    table = to_table(MAPS, [row | {"normal": b"x", "seen": [3, 9], "pixels": [1199, 0]} | changes])
    assert [violation.column for violation in violations(MAPS, table)] == ([column] if column else [])
