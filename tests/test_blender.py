"""The outside of Blender with a stand-in that crashes, hangs and leaks, and the inside with Blender itself."""

import base64
import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import trimesh
from PIL import Image
from scipy.spatial import ConvexHull

from pipeline.mesh import load
from pipeline.stage import ObjectError
from render import blender as blender_module
from render.blender import Blender, BlenderSettings
from render.blender_pass import RenderViews
from render.cameras import Camera
from render.spec import Pictures, Request, View
from render.views import read_pictures

ROOT = Path(__file__).resolve().parent.parent
SMALL = RenderViews(width=96, height=96)
ALBEDO = replace(SMALL.pictures("made/1"), shading="albedo")


# ------------------------------------------------------------------------------------------------------------ a stand-in

STAND_IN = """\
#!{python}
import json, os, signal, subprocess, sys, time
from pathlib import Path
print("Stand-in for Blender 0.0", flush=True)
print("{{}}", flush=True)
for line in sys.stdin:
    asset = Path(Path(json.loads(line)["asset"]).read_text())
    print("asked for", asset.name, file=sys.stderr, flush=True)
    if asset.name == "crash" or asset.name == "crash_once" and not asset.exists():
        asset.touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    if asset.name == "hang":
        asset.write_text(str(subprocess.Popen(["sleep", "1000"]).pid))
        time.sleep(1000)
    if asset.name == "leak":
        held = b"x" * (300 << 20)
        time.sleep(1000)
    if asset.name == "leak_in_child":
        subprocess.run([sys.executable, "-c", "held = b'x' * (300 << 20); import time; time.sleep(1000)"])
    if asset.name == "leak_into_files":
        Path(os.environ["TMPDIR"], "file").write_bytes(b"x" * (300 << 20))
        time.sleep(1000)
    if asset.name == "silent":
        sys.exit(3)
    print(json.dumps({{"bug": "Traceback: it is broken"}} if asset.name == "bug" else {{}}), flush=True)
"""


@pytest.fixture
def stand_in(tmp_path) -> BlenderSettings:
    program = tmp_path / "blender"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    return BlenderSettings(executable=str(program), timeout_s=3.0, memory_mb=200, confine=False)  # it leaves marks for the tests


def asked(path: Path) -> Request:
    """An asset that tells the stand-in by the name of `path` what to do, and where to leave a mark."""
    told = path.with_name("told.ply")
    told.write_text(str(path))
    return Request(asset=str(told), format="ply")


@pytest.mark.parametrize(
    ("name", "reason", "message", "tries"),
    [
        ("crash", "blender_crashed", "SIGSEGV", 3),
        ("silent", "blender_crashed", "exit code 3", 3),
        ("hang", "timeout", "3 s", 2),
        ("leak", "out_of_memory", "200 MB", 2),
    ],
)
def test_a_lost_process_costs_one_object_after_some_tries(stand_in, tmp_path, name, reason, message, tries):
    with Blender(stand_in) as blender:
        blender.do(asked(tmp_path / "good"))
        with pytest.raises(ObjectError, match=message) as error:
            blender.do(asked(tmp_path / name))
        assert (error.value.reason, error.value.attempts) == (reason, tries)
        assert f"asked for {name}" in error.value.log_tail
        assert "asked for good" not in error.value.log_tail
        blender.do(asked(tmp_path / "good"))


def test_a_crash_that_does_not_come_back_costs_nothing(stand_in, tmp_path):
    with Blender(stand_in) as blender:
        blender.do(asked(tmp_path / "crash_once"))


def starting(tmp_path, condition: str) -> BlenderSettings:
    """A stand-in that kills itself before it is up, while the condition holds; `starts` is the file that counts its starts."""
    program, starts = tmp_path / "blender", tmp_path / "starts"
    lines = [f"#!{sys.executable}", "import os, signal, sys", "from pathlib import Path", f"starts = Path({str(starts)!r})"]
    lines += ["before = len(starts.read_text()) if starts.exists() else 0", "starts.open('a').write('x')"]
    lines += [f"if {condition}:", "    os.kill(os.getpid(), signal.SIGKILL)", "print('{}', flush=True)"]
    lines += ["for line in sys.stdin:", "    print('{}', flush=True)"]
    program.write_text("\n".join(lines))
    program.chmod(0o755)
    return BlenderSettings(executable=str(program), confine=False)


def test_a_process_killed_while_it_starts_is_started_again(tmp_path):
    with Blender(starting(tmp_path, "before == 0")) as blender:
        blender.do(asked(tmp_path / "good"))
    assert (tmp_path / "starts").read_text() == "xx"


def test_a_blender_that_never_comes_up_is_an_error_of_the_run_not_of_the_object(tmp_path):
    with Blender(starting(tmp_path, "True")) as blender, pytest.raises(RuntimeError, match="does not start"):
        blender.do(asked(tmp_path / "good"))
    assert (tmp_path / "starts").read_text() == "xxx"


@pytest.mark.parametrize("name", ["leak_in_child", "leak_into_files"])
def test_memory_of_what_it_starts_and_files_in_its_folder_count_as_well(stand_in, tmp_path, name):
    with Blender(stand_in) as blender, pytest.raises(ObjectError, match="200 MB") as error:
        blender.do(asked(tmp_path / name))
    assert error.value.reason == "out_of_memory"


def test_what_a_hanging_process_started_is_killed_with_it(stand_in, tmp_path):
    with Blender(stand_in) as blender, pytest.raises(ObjectError):
        blender.do(asked(tmp_path / "hang"))
    assert ended(int((tmp_path / "hang").read_text()))


def test_a_fault_on_blenders_side_stops_the_run(stand_in, tmp_path):
    with Blender(stand_in) as blender, pytest.raises(RuntimeError, match="it is broken"):
        blender.do(asked(tmp_path / "bug"))


def test_a_blender_that_does_not_start_is_named(tmp_path):
    with Blender(BlenderSettings(executable="/no/such/blender")) as blender, pytest.raises(RuntimeError, match="/no/such/blender"):
        blender.do(asked(tmp_path / "good"))


def test_blender_is_started_anew_after_so_many_objects(stand_in, tmp_path):
    with Blender(replace(stand_in, recycle_after=2)) as blender:
        seen = []
        for _ in range(4):
            blender.do(asked(tmp_path / "good"))
            seen.append(child_of(os.getpid()))
    assert seen[0] and seen[2] and seen[0] != seen[2]
    assert seen[1] is seen[3] is None


def test_closing_leaves_neither_process_nor_folder(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(blender_module, "MEMORY_DISK", tmp_path)
    blender = Blender(stand_in)
    _, folder = blender.do(asked(tmp_path / "good"))
    child = child_of(os.getpid())
    assert folder.is_relative_to(tmp_path)
    blender.close()
    blender.close()
    assert ended(child) and not list(tmp_path.glob("tricorpus-*"))


def test_the_folder_of_a_killed_owner_is_swept_up_and_a_living_ones_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(blender_module, "MEMORY_DISK", tmp_path)
    living = Blender()
    program = f"""
        import sys, time
        from pathlib import Path
        from render import blender
        blender.MEMORY_DISK = Path({str(tmp_path)!r})
        kept = blender.Blender()
        print("ready", flush=True)
        time.sleep(1000)
    """
    owner = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, cwd=ROOT)
    owner.stdout.readline()
    assert len(list(tmp_path.glob("tricorpus-*"))) == 2
    for folder in tmp_path.glob("tricorpus-*"):
        os.utime(folder, (0, 0))
    owner.kill()
    owner.wait()
    with Blender():
        assert len(list(tmp_path.glob("tricorpus-*"))) == 2
    living.close()
    assert not list(tmp_path.glob("tricorpus-*"))


def child_of(pid: int) -> int | None:
    """The one Blender among the processes that `pid` started."""
    found = [child.pid for child in psutil.Process(pid).children() if "blender" in " ".join(child.cmdline())]
    return found[0] if found else None


def ended(pid: int) -> bool:
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


# ------------------------------------------------------------------------------------------------------------ Blender itself


@pytest.fixture(scope="module")
def blender():
    with Blender() as running:
        yield running


def pictures_of(blender: Blender, path: Path, pictures: Pictures = ALBEDO) -> list[np.ndarray]:
    _, folder = blender.do(Request(asset=str(path), format=path.suffix[1:], pictures=pictures))
    return read_pictures(folder, len(pictures.views))


def mesh_of(blender: Blender, path: Path):
    _, folder = blender.do(Request(asset=str(path), format=path.suffix[1:], mesh=True))
    return load(folder / "mesh")


def failure_of(blender: Blender, path: Path) -> ObjectError:
    with pytest.raises(ObjectError) as error:
        blender.do(Request(asset=str(path), format=path.suffix[1:], mesh=True))
    return error.value


# The sides of a box in the canonical frame, and their colours.
SIDES = {
    (1, 0, 0): (255, 0, 0),
    (-1, 0, 0): (0, 255, 255),
    (0, 1, 0): (0, 255, 0),
    (0, -1, 0): (255, 0, 255),
    (0, 0, 1): (0, 0, 255),
    (0, 0, -1): (255, 255, 0),
}
EXTENTS = np.array([2.0, 1.0, 0.5])
Z_UP_FROM_CANONICAL = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])


def colored_box(folder: Path, format: str) -> tuple[Path, np.ndarray]:
    """A box with six coloured sides, moved away from the origin; its file and the true canonical_from_asset."""
    box = trimesh.creation.box(extents=EXTENTS)
    box.unmerge_vertices()
    asset_from_canonical = trimesh.transformations.translation_matrix((10, 20, 30)) @ np.diag([3, 3, 3, 1.0])
    if format in ("ply", "off", "stl"):
        asset_from_canonical = Z_UP_FROM_CANONICAL @ asset_from_canonical
    colors = np.array([[*SIDES[tuple(np.rint(normal).astype(int))], 255] for normal in box.face_normals], np.uint8)
    box.apply_transform(asset_from_canonical)
    path = folder / f"box.{format}"
    if format == "obj":
        lines = [f"v {x} {y} {z}" for x, y, z in box.vertices]
        material = ""
        for (a, b, c), color in zip(box.faces + 1, colors, strict=True):
            name = "".join(f"{value:02x}" for value in color[:3])
            red, green, blue = color[:3] / 255
            material += f"newmtl {name}\nKd {red} {green} {blue}\n"
            lines += [f"usemtl {name}", f"f {a} {b} {c}"]
        path.write_text("mtllib box.mtl\n" + "\n".join(lines))
        path.with_suffix(".mtl").write_text(material)
    else:
        box.visual = trimesh.visual.ColorVisuals(box, vertex_colors=np.repeat(colors, 3, axis=0))
        box.export(path)
    radius = np.linalg.norm(EXTENTS) / 2
    return path, np.diag([1 / radius] * 3 + [1]) @ np.linalg.inv(asset_from_canonical)


@pytest.mark.parametrize("format", ["glb", "obj", "ply"])
def test_each_camera_sees_exactly_the_sides_of_a_box_that_face_it(blender, tmp_path, format):
    path, _ = colored_box(tmp_path, format)
    assert_sides(pictures_of(blender, path))


def assert_sides(pictures: list[np.ndarray]) -> None:
    """Each of the twelve cameras sees the colours of the sides that face it, and no other."""
    half = EXTENTS / np.linalg.norm(EXTENTS)
    for camera, picture in zip(SMALL.cameras("made/1"), pictures, strict=True):
        facing = {color for side, color in SIDES.items() if camera.position @ side > half @ np.abs(side) + 1e-6}
        opaque = picture[picture[..., 3] == 255][:, :3]
        seen = {color for color in SIDES.values() if (opaque == color).all(axis=1).sum() > 8}
        assert seen == facing


@pytest.mark.parametrize("format", ["glb", "obj", "ply", "off", "stl"])
def test_canonical_from_asset_takes_the_files_coordinates_there(blender, tmp_path, format):
    path, expected = colored_box(tmp_path, format)
    answer, folder = blender.do(Request(asset=str(path), format=format, mesh=True))
    np.testing.assert_allclose(np.reshape(answer.canonical_from_asset, (4, 4)), expected, atol=1e-5)
    mesh = load(folder / "mesh")
    np.testing.assert_allclose(np.abs(mesh.vertices).max(axis=0), EXTENTS / np.linalg.norm(EXTENTS), atol=1e-6)
    np.testing.assert_array_equal(mesh.canonical_from_asset.ravel(), answer.canonical_from_asset)


def silhouette_distance(camera: Camera, corners: np.ndarray) -> np.ndarray:
    """(height, width) signed distance of each pixel's centre from the projected corners' convex hull, in pixels; outside: a lower
    bound. Negative inside."""
    hull = ConvexHull(camera.project(corners)[0])
    centers = np.stack(np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5), axis=-1)
    return (centers @ hull.equations[:, :2].T + hull.equations[:, 2]).max(axis=-1)


def assert_silhouette(picture: np.ndarray, distance: np.ndarray) -> None:
    """The object's outline is off by less than a pixel, and the pixel filter blurs it by less than two."""
    alpha = picture[..., 3]
    assert (alpha[distance < -1] >= 128).all() and (alpha[distance > 1] < 128).all()
    assert (alpha[distance < -2] == 255).all() and (alpha[distance > 2] == 0).all()


def corners_of_the_box() -> np.ndarray:
    signs = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), axis=-1).reshape(-1, 3)
    return signs * EXTENTS / np.linalg.norm(EXTENTS)


@pytest.mark.parametrize("stage", [SMALL, RenderViews(width=120, height=80), RenderViews(width=80, height=120)])
def test_a_boxs_silhouette_is_where_the_cameras_say_to_the_pixel(blender, tmp_path, stage):
    path, _ = colored_box(tmp_path, "glb")
    for camera, picture in zip(stage.cameras("made/1"), pictures_of(blender, path, stage.pictures("made/1")), strict=True):
        distance = silhouette_distance(camera, corners_of_the_box())
        assert_silhouette(picture, distance)


def test_any_pinhole_camera_is_honoured(blender, tmp_path):
    path, _ = colored_box(tmp_path, "glb")
    rolled = SMALL.cameras("made/1")[1].camera_to_world @ trimesh.transformations.rotation_matrix(0.5, (0, 0, 1))
    for fx, fy in ((110, 110), (110, 140), (140, 110)):
        camera = Camera(width=100, height=80, fx=fx, fy=fy, cx=61, cy=33, camera_to_world=rolled)
        view = View(fx=fx, fy=fy, cx=61, cy=33, camera_to_world=tuple(rolled.ravel()))
        [picture] = pictures_of(blender, path, Pictures(views=(view,), width=100, height=80, shading="albedo"))
        distance = silhouette_distance(camera, corners_of_the_box())
        assert_silhouette(picture, distance)


def test_the_same_request_gives_the_same_pixels_on_any_process_and_any_number_of_threads(blender, tmp_path):
    path, _ = colored_box(tmp_path, "glb")
    first = pictures_of(blender, path, SMALL.pictures("made/1"))
    again = pictures_of(blender, path, SMALL.pictures("made/1"))
    with Blender(BlenderSettings(threads=1)) as fresh:
        elsewhere = pictures_of(fresh, path, SMALL.pictures("made/1"))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, elsewhere)


def test_a_grey_box_is_lit_alike_from_all_sides_neither_black_nor_burnt_out(blender, tmp_path):
    trimesh.creation.box(extents=(1, 1, 1)).export(tmp_path / "box.stl")
    for picture in pictures_of(blender, tmp_path / "box.stl", replace(SMALL, denoise=False).pictures("made/1")):
        opaque = picture[picture[..., 3] == 255][:, :3].astype(int)
        assert 60 < opaque.min() and opaque.max() < 250
        assert (np.ptp(opaque, axis=1) <= 1).all()  # grey


EXPORT = """
import sys
import bpy
folder, *sides = sys.argv[1:]
bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
bpy.ops.mesh.primitive_cube_add(size=1)
box = bpy.context.object
box.scale = (2, 0.5, 1)  # x, y, z of Blender: canonical x, -z, y
bpy.ops.object.transform_apply(scale=True)
for polygon in box.data.polygons:
    x, y, z = (round(value) for value in polygon.normal)
    color = [value / 255 for value in {SIDES}[x, z, -y]]
    material = bpy.data.materials.new("side")
    material.use_nodes = True
    material.node_tree.nodes["Principled BSDF"].inputs["Base Color"].default_value = (*color, 1)
    box.data.materials.append(material)
    polygon.material_index = len(box.data.materials) - 1
bpy.ops.export_scene.fbx(filepath=folder + "/box.fbx")
bpy.ops.wm.collada_export(filepath=folder + "/box.dae")
bpy.ops.wm.usd_export(filepath=folder + "/box.usdz")
bpy.ops.wm.usd_export(filepath=folder + "/turned.usda", convert_orientation=True)
bpy.ops.wm.alembic_export(filepath=folder + "/box.abc")
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    program = EXPORT.replace("{SIDES}", repr(SIDES))
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.mark.parametrize("name", ["box.fbx", "box.dae", "box.usdz", "turned.usda"])
def test_formats_that_declare_their_axes_stand_as_they_say(blender, exported, name):
    assert_sides(pictures_of(blender, exported / name))


def test_alembic_stands_upright(blender, exported):
    mesh = mesh_of(blender, exported / "box.abc")
    np.testing.assert_allclose(np.abs(mesh.vertices).max(axis=0), EXTENTS / np.linalg.norm(EXTENTS), atol=1e-6)


def test_the_worker_runs_in_a_blender_executable_which_has_numpy_alone(tmp_path):
    """Blender's executable greets on the standard output and runs the program by its path, last of its arguments."""
    program = tmp_path / "blender"
    program.write_text(
        f"#!{sys.executable}\n"
        "import runpy, sys\n"
        "print('Blender 4.5.15', flush=True)\n"
        "sys.modules |= dict.fromkeys(('jaxtyping', 'trimesh', 'psutil', 'PIL', 'pyarrow', 'schemas', 'pipeline'))\n"
        "assert sys.argv[1:-1] == ['--background', '--factory-startup', '--python']\n"
        "runpy.run_path(sys.argv[-1], run_name='__main__')\n"
    )
    program.chmod(0o755)
    path, _ = colored_box(tmp_path, "glb")
    with Blender(BlenderSettings(executable=str(program))) as running:
        answer, folder = running.do(Request(asset=str(path), format="glb", pictures=ALBEDO, mesh=True))
        assert_sides(read_pictures(folder, 12))
        assert len(load(folder / "mesh").faces) == 12


def test_a_killed_blender_costs_nothing(blender, tmp_path):
    path, _ = colored_box(tmp_path, "glb")
    mesh_of(blender, path)
    os.kill(child_of(os.getpid()), signal.SIGKILL)
    assert len(mesh_of(blender, path).faces) == 12


def test_blender_dies_with_its_parent_even_when_it_does_not_read(tmp_path):
    path, _ = colored_box(tmp_path, "stl")
    program = f"""
        import os, time
        from render.blender import Blender, Request
        blender = Blender()
        blender.do(Request(asset={str(path)!r}, format="stl", mesh=True))
        print("ready", flush=True)
        time.sleep(1000)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, cwd=ROOT)
    parent.stdout.readline()
    child = child_of(parent.pid)
    os.kill(child, signal.SIGSTOP)
    parent.kill()
    parent.wait()
    assert ended(child)


# ------------------------------------------------------------------------------------------------------------ glTF


def gltf(path: Path, *, triangles: int = 1, **changes) -> Path:
    """A glTF file with meshes of 1, 2, ... triangles; `changes` replaces parts of it."""
    positions = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4")
    data = np.concatenate([positions + (0, 0, number) for number in range(triangles)]).astype("<f4").tobytes()
    document = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": len(data), "uri": "data:;base64," + base64.b64encode(data).decode()}],
        "bufferViews": [{"buffer": 0, "byteLength": len(data)}],
        "accessors": [
            {
                "bufferView": 0,
                "componentType": 5126,
                "count": 3 * (number + 1),
                "type": "VEC3",
                "min": [0, 0, 0],
                "max": [1, 1, number],
            }
            for number in range(triangles)
        ],
        "meshes": [{"primitives": [{"attributes": {"POSITION": number}}]} for number in range(triangles)],
        "nodes": [{"mesh": number} for number in range(triangles)],
        "scenes": [{"nodes": list(range(triangles))}],
        "scene": 0,
    }
    path.write_text(json.dumps(document | changes))
    return path


@pytest.mark.parametrize(
    ("changes", "faces"),
    [
        ({"scenes": [{"nodes": [0, 1]}]}, 2),  # node 2 is in no scene; one triangle is in nodes 0 and 1, and stays once
        ({"scenes": [{"nodes": [2]}], "scene": None}, 3),
    ],
)
def test_nodes_of_no_scene_are_not_taken(blender, tmp_path, changes, faces):
    changes = {key: value for key, value in changes.items() if value is not None}
    path = gltf(tmp_path / "scenes.gltf", triangles=3, **changes)
    if "scene" not in changes:
        path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "scene"}))
    assert len(mesh_of(blender, path).faces) == faces


def test_an_assets_own_lights_and_cameras_change_nothing(blender, tmp_path):
    plain = gltf(tmp_path / "plain.gltf")
    lit = gltf(
        tmp_path / "lit.gltf",
        nodes=[{"mesh": 0}, {"extensions": {"KHR_lights_punctual": {"light": 0}}}, {"camera": 0, "translation": [0, 0, 5]}],
        scenes=[{"nodes": [0, 1, 2]}],
        cameras=[{"type": "perspective", "perspective": {"yfov": 1, "znear": 0.1}}],
        extensionsUsed=["KHR_lights_punctual"],
        extensions={"KHR_lights_punctual": {"lights": [{"type": "directional", "intensity": 1000}]}},
    )
    np.testing.assert_array_equal(
        pictures_of(blender, plain, SMALL.pictures("made/1")), pictures_of(blender, lit, SMALL.pictures("made/1"))
    )


def test_an_animated_asset_is_taken_at_the_animations_start(blender, tmp_path):
    """In the mesh and in the pictures alike; it starts elsewhere than the node's own transform and moves fast."""
    times = np.array([0, 0.04], "<f4").tobytes()
    moves = np.array([[0, 1, 0], [0, 9, 0]], "<f4").tobytes()
    data = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [0, 1, 1]], "<f4").tobytes() + times + moves
    parts = {
        "buffers": [{"byteLength": len(data), "uri": "data:;base64," + base64.b64encode(data).decode()}],
        "bufferViews": [{"buffer": 0, "byteOffset": a, "byteLength": b - a} for a, b in ((0, 72), (72, 80), (80, 104))],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
            {"bufferView": 0, "componentType": 5126, "count": 6, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5126, "count": 2, "type": "SCALAR", "min": [0], "max": [0.04]},
            {"bufferView": 2, "componentType": 5126, "count": 2, "type": "VEC3"},
        ],
    }
    channel = {"sampler": 0, "target": {"node": 0, "path": "translation"}}
    moving = {"animations": [{"samplers": [{"input": 2, "output": 3}], "channels": [channel]}]}
    still = gltf(tmp_path / "still.gltf", triangles=2, **parts, nodes=[{"mesh": 0, "translation": [0, 1, 0]}, {"mesh": 1}])
    animated = gltf(tmp_path / "animated.gltf", triangles=2, **parts, **moving)
    np.testing.assert_array_equal(mesh_of(blender, still).vertices, mesh_of(blender, animated).vertices)
    np.testing.assert_array_equal(pictures_of(blender, still), pictures_of(blender, animated))


def test_nothing_is_left_of_the_asset_before(blender, tmp_path):
    path, _ = colored_box(tmp_path, "glb")
    small = gltf(tmp_path / "small.gltf")
    alone = pictures_of(blender, small, SMALL.pictures("made/1"))
    pictures_of(blender, path, SMALL.pictures("made/1"))
    np.testing.assert_array_equal(pictures_of(blender, small, SMALL.pictures("made/1")), alone)


def test_an_object_of_one_point_or_without_faces_or_out_of_all_scale_is_named(blender, tmp_path):
    (tmp_path / "point.obj").write_text("v 1 2 3\nv 1 2 3\nv 1 2 3\nf 1 2 3\n")
    (tmp_path / "wire.obj").write_text("v 0 0 0\nv 1 0 0\nl 1 2\n")
    (tmp_path / "huge.obj").write_text("v 0 0 0\nv 1e30 0 0\nv 0 1e30 0\nf 1 2 3\n")
    line = "".join(f"v {x / 10} {(x + 1) / 10} {(x + 2) / 10}\n" for x in range(1, 5))  # in decimals: it bends by the last bit
    (tmp_path / "line.obj").write_text(line + "f 1 2 3\nf 1 2 4\n")
    (tmp_path / "other.blend").write_bytes(b"BLENDER")
    assert failure_of(blender, tmp_path / "point.obj").reason == "no_extent"
    assert failure_of(blender, tmp_path / "line.obj").reason == "no_area"
    assert failure_of(blender, tmp_path / "wire.obj").reason == "no_faces"
    assert failure_of(blender, tmp_path / "huge.obj").reason == "extreme_scale"
    assert failure_of(blender, tmp_path / "other.blend").reason == "unsupported_format"


def test_a_cut_file_that_nobody_looked_into_never_reaches_blender(blender, tmp_path):
    path, _ = colored_box(tmp_path, "glb")
    path.write_bytes(path.read_bytes()[:-50])
    assert failure_of(blender, path).reason == "truncated"
    path.write_bytes(b"")
    assert failure_of(blender, path).reason == "empty_file"


def test_an_importers_error_is_told_in_one_line(blender, tmp_path):
    unknown = gltf(tmp_path / "unknown.gltf", extensionsUsed=["EXT_unknown"], extensionsRequired=["EXT_unknown"])
    failure = failure_of(blender, unknown)
    assert failure.reason == "unsupported_extension" and "EXT_unknown" in str(failure) and "\n" not in str(failure)


def test_a_texture_that_cannot_be_read_is_counted_and_not_magenta(blender, tmp_path):
    (tmp_path / "quad.obj").write_text(
        "mtllib quad.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nusemtl a\nf 1/1 2/2 3/3 4/4\n"
    )
    (tmp_path / "quad.mtl").write_text("newmtl a\nKd 1 1 1\nmap_Kd gone.png\n")
    answer, folder = blender.do(Request(asset=str(tmp_path / "quad.obj"), format="obj", pictures=ALBEDO))
    assert answer.missing_textures == 1
    seen = np.stack(read_pictures(folder, 12))
    assert (seen[seen[..., 3] == 255] == 255).all()


def test_exporters_copies_of_color_neither_glow_nor_shine_through(blender, tmp_path):
    box = trimesh.creation.box(extents=(1, 1, 1))
    text = (
        "".join(f"v {x} {y} {z}\n" for x, y, z in box.vertices)
        + "usemtl a\n"
        + "".join(f"f {a} {b} {c}\n" for a, b, c in box.faces + 1)
    )
    seen = []
    for name, mtl in (("plain", ""), ("copied", "Ke 0.2 0.4 0.6\nTf 1 1 1\n")):
        (tmp_path / f"{name}.obj").write_text(f"mtllib {name}.mtl\n" + text)
        (tmp_path / f"{name}.mtl").write_text("newmtl a\nKd 0.2 0.4 0.6\nillum 2\n" + mtl)
        seen.append(pictures_of(blender, tmp_path / f"{name}.obj", SMALL.pictures("made/1")))
    np.testing.assert_array_equal(*seen)


def test_triangles_are_counted_with_all_their_instances_before_there_is_an_array_of_them(blender, tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=6)  # 81,920 triangles
    scene = trimesh.Scene({"ball": ball})
    for number in range(244):
        scene.graph.update(frame_to=f"at {number}", matrix=np.eye(4), geometry="ball")
    scene.export(tmp_path / "balls.glb")
    failure = failure_of(blender, tmp_path / "balls.glb")
    assert failure.reason == "too_many_faces" and "20,000,000" in str(failure)


def test_a_picture_that_fills_memory_costs_its_object_and_no_more(tmp_path):
    """A PNG of 35 kB that takes 144 MB in Blender, and four times as much as numbers."""
    Image.new("L", (6000, 6000)).save(tmp_path / "bomb.png")
    faces = "v 0 0 0\nv 1 0 0\nv 1 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nusemtl a\nf 1/1 2/2 3/3\n"
    (tmp_path / "bomb.obj").write_text("mtllib bomb.mtl\n" + faces)
    (tmp_path / "bomb.mtl").write_text("newmtl a\nmap_Kd bomb.png\n")
    (tmp_path / "good.obj").write_text(faces)
    with Blender(BlenderSettings(memory_mb=500)) as running:
        assert len(mesh_of(running, tmp_path / "good.obj").faces) == 1
        assert failure_of(running, tmp_path / "bomb.obj").reason == "out_of_memory"
        assert len(mesh_of(running, tmp_path / "good.obj").faces) == 1


# ------------------------------------------------------------------------------------------------------------ real assets


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("061", "truncated"),
        ("062", "draco_corrupt"),
        ("063", "empty_file"),
        ("064", "not_a_mesh_file"),
        ("074", "no_extent"),
        ("089", "unreadable"),
        ("095", "unsupported_extension"),
    ],
)
def test_broken_files_are_told_apart(blender, assets, number, reason):
    [path] = (assets / "malformed").glob(f"{number}_*/*.glb")
    assert failure_of(blender, path).reason == reason


@pytest.mark.parametrize(("number", "faces"), [("040", 2), ("093", 252), ("094", 252)])
def test_awkward_files_give_their_own_faces_and_no_more(blender, assets, number, faces):
    """Among them a skinned file, to which Blender would add an icosphere."""
    [path] = (assets / "malformed").glob(f"{number}_*/*.glb")
    assert len(mesh_of(blender, path).faces) == faces


def test_draco_meshes_have_the_triangles_that_their_file_declares(blender, assets):
    compressed = 0
    for path in sorted((assets / "objaverse" / "glbs" / "000-001").glob("*.glb"))[:6]:
        content = path.read_bytes()
        document = json.loads(content[20 : 20 + struct.unpack_from("<I", content, 12)[0]])
        if "KHR_draco_mesh_compression" not in document.get("extensionsUsed", []) or len(document["meshes"]) != 1:
            continue
        compressed += 1
        declared = sum(document["accessors"][p["indices"]]["count"] // 3 for p in document["meshes"][0]["primitives"])
        assert 0.98 * declared <= len(mesh_of(blender, path).faces) <= declared
    assert compressed
