import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.mesh import load
from render import confine
from render.blender import Blender, BlenderSettings
from render.blender_pass import RenderViews
from render.spec import Request
from render.views import read_pictures

pytestmark = pytest.mark.skipif(not confine.version(), reason="this kernel has no Landlock")
PYTHON = (sys.prefix, sys.base_prefix)


def run(program: str, folder: Path, **settings) -> str:
    """What a confined Python program says last: "done", or the name of what it raised."""
    wrapped = f"try:\n    {program}\n    print('done')\nexcept OSError as error:\n    print(type(error).__name__)"
    command = confine.command([sys.executable, "-c", wrapped], readable=PYTHON, writable=[str(folder)], **settings)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()[-1]


@pytest.fixture
def places(tmp_path) -> dict[str, Path]:
    """A folder of the program's own, a secret beside it, and a link to the secret within."""
    own, secret = tmp_path / "own", tmp_path / "secret.txt"
    own.mkdir()
    secret.write_text("secret")
    (own / "link").symlink_to(secret)
    (own / "mine.txt").write_text("mine")
    return {"own": own, "secret": secret}


TRIES = {
    "a file outside its folder is read": "open({secret!r}).read()",
    "a link leads out of its folder": "open({own!r} + '/link').read()",
    "a folder outside its own is listed": "import os; os.listdir({outside!r})",
    "a file outside its folder is written": "open({outside!r} + '/new', 'w')",
    "a file outside its folder is cut": "import os; os.truncate({secret!r}, 0)",
    "a file outside its folder is removed": "import os; os.remove({secret!r})",
    "a link is made": "import os; os.symlink({secret!r}, {own!r} + '/new')",
    "/etc/passwd is read": "open('/etc/passwd').read()",
    "its parent's environment is read": "open('/proc/{parent}/environ').read()",
    "its parent gets a signal": "import os; os.kill({parent}, 0)",
    "a connection is made": "import socket; socket.create_connection(('127.0.0.1', {port}))",
    "a port is listened on": "import socket; socket.create_server(('127.0.0.1', 0))",
}


@pytest.mark.parametrize("what", TRIES)
def test_what_a_confined_program_cannot_do_it_could_unconfined(places, tmp_path, what):
    with socket.create_server(("127.0.0.1", 0)) as server:
        named = {name: str(path) for name, path in places.items()} | {"outside": str(tmp_path)}
        program = TRIES[what].format(**named, parent=os.getpid(), port=server.getsockname()[1])
        assert run(program, places["own"]) == "PermissionError"
        assert run(program, places["own"], confine=False) == "done"


def test_in_its_own_folder_it_may_do_what_it_likes(places):
    own = str(places["own"])
    makes = f"import os; os.mkdir({own!r} + '/a'); open({own!r} + '/a/b', 'w').write('x'); os.listdir({own!r})"
    removes = f"import os; os.remove({own!r} + '/mine.txt'); open('/dev/null', 'w').write('x'); open('/dev/urandom', 'rb').read(1)"
    assert run(makes, places["own"]) == run(removes, places["own"]) == "done"
    assert (places["own"] / "a" / "b").read_text() == "x" and not (places["own"] / "mine.txt").exists()


def test_what_it_starts_is_confined_as_well(places):
    program = f"import subprocess; print(subprocess.run(['/bin/cat', {str(places['secret'])!r}]).returncode)"
    command = confine.command([sys.executable, "-c", program], readable=PYTHON)
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.stdout == "1\n" and "denied" in ended.stderr


@pytest.mark.parametrize("confined", [True, False])
def test_a_file_grows_to_its_limit_and_no_further(places, confined):
    program = f"open({str(places['own'])!r} + '/big', 'wb', buffering=0).write(bytes(2000))"
    run(program, places["own"], file_bytes=1000, confine=confined)
    assert (places["own"] / "big").stat().st_size == 1000


def test_a_kernel_without_landlock_starts_the_program_all_the_same(places, monkeypatch):
    monkeypatch.setattr(confine, "version", lambda: 0)
    confine.confine([(confine.READ, "/usr")])
    assert places["secret"].read_text() == "secret"


# ------------------------------------------------------------------------------------------------------------ Blender


TRIANGLE = """
    def Mesh "triangle" {
        int[] faceVertexCounts = [3]
        int[] faceVertexIndices = [0, 1, 2]
        point3f[] points = [(0, 0, Z), (1, 0, Z), (1, 1, Z)]
        texCoord2f[] primvars:st = [(0, 0), (1, 0), (1, 1)] (
            interpolation = "vertex"
        )
        rel material:binding = </asset/paint>
    }
"""
PAINT = """
    def Material "paint" {
        token outputs:surface.connect = </asset/paint/surface.outputs:surface>
        def Shader "surface" {
            uniform token info:id = "UsdPreviewSurface"
            color3f inputs:diffuseColor.connect = </asset/paint/picture.outputs:rgb>
            token outputs:surface
        }
        def Shader "picture" {
            uniform token info:id = "UsdUVTexture"
            asset inputs:file = @PICTURE@
            float2 inputs:st.connect = </asset/paint/layer.outputs:result>
            float3 outputs:rgb
        }
        def Shader "layer" {
            uniform token info:id = "UsdPrimvarReader_float2"
            token inputs:varname = "st"
            float2 outputs:result
        }
    }
"""


def usda(path: Path, *content: str, name: str = "asset") -> Path:
    path.write_text(f'#usda 1.0\n(\n    defaultPrim = "{name}"\n)\ndef Xform "{name}" {{\n{"".join(content)}\n}}\n')
    return path


def opened(blender: Blender, path: Path) -> tuple[int, int, np.ndarray]:
    """Triangles, missing textures and the pictures of an asset."""
    stage = RenderViews(width=32, height=32)
    answer, folder = blender.do(Request(asset=str(path), format="usda", pictures=stage.pictures("made/1"), mesh=True))
    return len(load(folder / "mesh").faces), answer.missing_textures, np.stack(read_pictures(folder, 12))


@pytest.fixture(scope="module")
def blenders():
    with Blender(BlenderSettings(confine=True)) as confined, Blender(BlenderSettings(confine=False)) as free:
        yield {True: confined, False: free}


@pytest.mark.parametrize(("confined", "faces"), [(True, 1), (False, 2)])
def test_blender_reads_no_file_outside_its_folder_that_an_asset_names(blenders, tmp_path, confined, faces):
    other = usda(tmp_path / "other.usda", TRIANGLE.replace("Z", "1"), name="other")
    (tmp_path / "asset").mkdir()
    more = f'    def Xform "more" (\n        references = @{other}@\n    ) {{\n    }}\n'
    path = usda(tmp_path / "asset" / "asset.usda", TRIANGLE.replace("Z", "0"), more)
    assert opened(blenders[confined], path)[0] == faces


@pytest.mark.parametrize("confined", [True, False])
def test_a_picture_outside_its_folder_is_missing_with_and_without_landlock(blenders, tmp_path, confined):
    (tmp_path / "asset").mkdir()
    red = Image.new("RGB", (8, 8), "red")
    red.save(tmp_path / "secret.png")
    red.save(tmp_path / "asset" / "own.png")
    seen = {}
    for name in (str(tmp_path / "secret.png"), str(tmp_path / "absent.png"), "./own.png"):
        path = usda(tmp_path / "asset" / "asset.usda", TRIANGLE.replace("Z", "0"), PAINT.replace("PICTURE", name))
        seen[Path(name).stem] = opened(blenders[confined], path)
    assert [seen[name][1] for name in ("secret", "absent", "own")] == [1, 1, 0]
    np.testing.assert_array_equal(seen["secret"][2], seen["absent"][2])
    assert (seen["own"][2] != seen["absent"][2]).any()
