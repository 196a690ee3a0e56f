import json
import struct

import numpy as np
import pytest
import trimesh
from PIL import Image
from test_companions import crate, glb, write

from pipeline.assets.references import content_of
from pipeline.assets.staging import staged
from pipeline.stage import ObjectError
from render.blender import Blender
from render.blender_pass import RenderViews
from render.spec import Request
from render.views import read_pictures


@pytest.fixture
def into(tmp_path):
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def copied(path, into, files=None, format=None):
    """The staged asset, and all files of the copy with their contents."""
    target = staged(str(path), format or path.suffix[1:], files, into)
    return target, {str(file.relative_to(into)): file.read_bytes() for file in into.rglob("*") if file.is_file()}


def gltf_document(path):
    content = path.read_bytes()
    return json.loads(content[20 : 20 + struct.unpack_from("<I", content, 12)[0]] if content[:4] == b"glTF" else content)


SCENES = {
    "asset": {"version": "2.0"},
    "scene": 1,
    "scenes": [{"nodes": [0]}, {"nodes": [1], "extras": {"file": "/etc/passwd"}}],
    "nodes": [{}, {"extensions": {"X_some": {"uri": "/etc/passwd", "inner": [{"uri": "x", "kept": 1}]}}}],
    "images": [{"uri": "odd%20näme.PNG"}, {"uri": "/etc/passwd"}, {"uri": "data:image/png;base64,AA=="}, {"uri": "gone.png"}],
    "textures": [{"source": number} for number in range(4)],
    "buffers": [{"byteLength": 4, "extras": 1}],
    "bufferViews": [{"buffer": 0, "byteLength": 4}],
}


def with_binary(document, binary):
    head = glb(json.dumps(document))
    chunk = struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return head[:8] + struct.pack("<I", len(head) + len(chunk)) + head[12:] + chunk


def test_a_glb_refers_to_nothing_but_plain_names_and_keeps_its_binary_and_one_scene(tmp_path, into):
    path = write(tmp_path / "in" / "a.glb", with_binary(SCENES, b"1234"))
    write(path.with_name("odd näme.PNG"), b"picture")
    target, files = copied(path, into)
    assert (target.name, files["0.png"], len(files)) == ("asset.glb", b"picture", 2)
    document = gltf_document(target)
    assert [image["uri"] for image in document["images"]] == [
        "0.png",
        "missing-1.png",
        "data:image/png;base64,AA==",
        "missing-2.png",
    ]
    assert (document["scene"], document["scenes"], len(document["nodes"])) == (0, [{"nodes": [1]}], 2)
    assert document["nodes"][1] == {"extensions": {"X_some": {"inner": [{"kept": 1}]}}}
    assert document["textures"] == SCENES["textures"] and "passwd" not in target.read_text("latin-1")
    assert files["asset.glb"].endswith(struct.pack("<I4s", 4, b"BIN\0") + b"1234")
    assert len(files["asset.glb"]) == struct.unpack_from("<I", files["asset.glb"], 8)[0]


def test_a_gltf_comes_with_its_buffers(tmp_path, into):
    document = SCENES | {"images": [], "textures": [], "buffers": [{"uri": "../b/ü.BIN", "byteLength": 4}]}
    path = write(tmp_path / "in" / "a.gltf", json.dumps(document))
    buffer = write(tmp_path / "b" / "ü.BIN", b"1234")
    target, files = copied(path, into, [("named", "../b/ü.BIN", str(buffer))])
    assert gltf_document(target)["buffers"][0]["uri"] == "0.bin" and files["0.bin"] == b"1234"


@pytest.mark.parametrize("format", ["glb", "gltf"])
def test_a_gltf_that_needs_no_change_is_copied_as_it_is(tmp_path, into, format):
    document = json.dumps({"asset": {"version": "2.0"}, "scenes": [{"nodes": []}], "x": 0.1}, indent=3)
    path = write(tmp_path / f"a'b $(x).{format}", glb(document) if format == "glb" else document)
    target, files = copied(path, into)
    assert files == {f"asset.{format}": path.read_bytes()}


OBJ = "o a\n\t mtllib a.mtl other.mtl\r\nv 0 0 0\ng mtllib x.mtl\nusemtl красный\nf 1 1 1\nmtllib gone.mtl\nmtllib /etc/passwd\n"


def test_an_obj_and_its_material_files_become_two_files_of_plain_names(tmp_path, into):
    path = write(tmp_path / "in" / "a.obj", OBJ)
    write(path.with_name("a.mtl"), "# a\r\nnewmtl красный\r\nmap_Kd -s 2 2 2 -x /etc/hosts my red.JPG\r\nbump /etc/passwd")
    write(path.with_name("other.mtl"), "map_Kd /etc/hosts\nnewmtl b\n\tmap_Kd -clamp on my red.JPG\nrefl -type sphere gone.png\n")
    write(path.with_name("my red.JPG"), b"red")
    write(path.with_name("stray.png"))
    files = copied(path, into)[1]
    assert files["0.jpg"] == b"red" and len(files) == 3
    assert files["asset.mtl"].decode().splitlines() == [
        "newmtl красный",
        "map_Kd -s 2 2 2 0.jpg",
        "bump missing-1.png",
        "newmtl b",
        "map_Kd -clamp on 0.jpg",
        "refl -type sphere missing-2.png",
        "",
    ]
    kept = "o a\n\r\nv 0 0 0\ng mtllib x.mtl\nusemtl красный\nf 1 1 1\n\n\n"
    assert files["asset.obj"].decode() == "mtllib asset.mtl\n" + kept


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-8"])
def test_an_obj_with_a_byte_order_mark_becomes_plain_utf_8(tmp_path, into, encoding):
    path = write(tmp_path / "a.obj", ("\ufeffmtllib /etc/é.mtl\nusemtl é\n").encode(encoding))
    assert copied(path, into)[1] == {"asset.obj": "\nusemtl é\n".encode()}


def test_bytes_that_are_no_utf_8_stay_as_they_are(tmp_path, into):
    path = write(tmp_path / "a.obj", b"mtllib a.mtl\nusemtl caf\xe9\n")
    write(tmp_path / "a.mtl", b"newmtl caf\xe9\nKd 1 0 0")
    files = copied(path, into)[1]
    assert b"usemtl caf\xe9" in files["asset.obj"] and b"newmtl caf\xe9" in files["asset.mtl"]


@pytest.mark.parametrize(
    ("obj", "mtl", "expected"),
    [
        ("v 0 0 0", None, "newmtl texture\nKd 1 1 1\nmap_Kd 0.png\n"),
        ("usemtl a\nusemtl b\nusemtl a", None, "newmtl a\nKd 1 1 1\nmap_Kd 0.png\nnewmtl b\nKd 1 1 1\nmap_Kd 0.png\n"),
        ("usemtl a", "newmtl a\nKd 1 0 0", "newmtl a\nKd 1 0 0\nmap_Kd 0.png\n"),
        ("usemtl a", "newmtl a\nmap_Kd gone.png\nd 1", "newmtl a\nd 1\nmap_Kd 0.png\n"),
        ("usemtl a", "newmtl a\nmap_Kd own.png", "newmtl a\nmap_Kd 0.png\n"),
    ],
)
def test_materials_without_a_picture_get_the_companion_texture(tmp_path, into, obj, mtl, expected):
    path = write(tmp_path / "raw.obj", f"mtllib m.mtl\n{obj}\n")
    given = [("texture", "texture.png", str(write(tmp_path / "texture.png")))]
    if mtl:
        given += [("named", "m.mtl", str(write(tmp_path / "m.mtl", mtl)))]
    if mtl and "own.png" in mtl:
        given = [("named", "own.png", str(write(tmp_path / "own.png"))), *given]
    _, files = copied(path, into, given)
    assert files["asset.mtl"].decode() == expected and files["0.png"] == b"x"
    asks = "usemtl texture\n" if "usemtl" not in obj else ""
    assert files["asset.obj"].decode() == f"mtllib asset.mtl\n{asks}\n{obj}\n"


def test_collada_names_its_pictures_by_plain_names(tmp_path, into):
    text = "<COLLADA><image><init_from>{}</init_from></image><image><init_from><ref>{}</ref></init_from></image></COLLADA>"
    path = write(tmp_path / "in" / "a.dae", text.format("file:///etc/passwd", "./a%20b.png"))
    write(path.with_name("a b.png"), b"x")
    target, files = copied(path, into)
    assert files == {"asset.dae": text.format("missing-0.png", "1.png").encode(), "1.png": b"x"}


def test_fbx_finds_its_pictures_beside_it(tmp_path, into):
    path = write(tmp_path / "in" / "a.fbx", b'"C:\\textures\\Red.png" "../x/secret.png"')
    write(path.with_name("red.PNG"), b"red")
    write(tmp_path / "x" / "secret.png")
    assert copied(path, into)[1] == {"asset.fbx": path.read_bytes(), "Red.png": b"red"}


def test_usd_finds_its_files_where_it_names_them(tmp_path, into):
    path = write(tmp_path / "m" / "a" / "b.usd", crate("../parts/c.usda", "../../out.png", "./d.png"))
    write(tmp_path / "m" / "parts" / "c.usda", "#usda 1.0\n@e/f.png@")
    for name in ("a/d.png", "parts/e/f.png", "../out.png"):
        write(tmp_path / "m" / name)
    given = [("named", name, str(tmp_path / "m" / file)) for name, file in (
        ("../parts/c.usda", "parts/c.usda"), ("./d.png", "a/d.png"), ("../parts/e/f.png", "parts/e/f.png"))]  # fmt: skip
    target, files = copied(path, into, given)
    assert set(files) == {"0/asset.usd", "0/d.png", "parts/c.usda", "parts/e/f.png"} and target == into / "0" / "asset.usd"


def test_what_has_gone_since_is_told(tmp_path, into):
    with pytest.raises(ObjectError, match=r"gone\.ply") as error:
        copied(tmp_path / "gone.ply", into)
    assert error.value.reason == "asset_missing"
    path = write(tmp_path / "a.obj", "mtllib a.mtl\n")
    with pytest.raises(ObjectError, match=r"a\.mtl") as error:
        copied(path, into, [("named", "a.mtl", str(tmp_path / "a.mtl"))])
    assert error.value.reason == "asset_missing"
    with pytest.raises(ObjectError) as error:
        copied(tmp_path, into, [], "ply")
    assert error.value.reason == "not_a_file"


def test_text_in_utf_16_is_read_as_utf_8_piece_by_piece(tmp_path):
    text = "v 1 2 3\r\n# é€😀\n" * 200_000
    with content_of(write(tmp_path / "a.obj", text.encode("utf-16"))) as content:
        assert content[:] == text.encode()


# ------------------------------------------------------------------------------------------------------------ in Blender

STAGE = RenderViews(width=32, height=32)


@pytest.fixture(scope="module")
def blender():
    with Blender() as running:
        yield running


def seen(blender, path, **request):
    """Textures that are missing, and the opaque pixels."""
    answer, folder = blender.do(Request(asset=str(path), format=path.suffix[1:], pictures=STAGE.pictures("made/1"), **request))
    pixels = np.stack(read_pictures(folder, 12))
    return answer.missing_textures, pixels[pixels[..., 3] == 255][:, :3].astype(int)


def is_red(pixels):
    return len(pixels) > 0 and (pixels[:, 0] > pixels[:, 1] + 50).all()


QUAD = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n{}\nf 1/1 2/2 3/3 4/4\n"


@pytest.mark.parametrize("inside", [False, True])
def test_a_picture_that_an_obj_names_outside_its_folder_is_not_in_its_views(blender, tmp_path, inside):
    picture = tmp_path / ("in" if inside else "out") / "secret.png"
    path = write(tmp_path / "in" / "quad.obj", "mtllib quad.mtl\n" + QUAD.format("usemtl a"))
    picture.parent.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(picture)
    write(path.with_name("quad.mtl"), f"newmtl a\nKd 1 1 1\nmap_Kd {picture}\n")
    missing, pixels = seen(blender, path)
    assert (missing, is_red(pixels)) == ((0, True) if inside else (1, False))


@pytest.mark.parametrize("name", ["{}", "file://{}", "../out/secret.png", "https://a.invalid/secret.png"])
def test_a_picture_that_a_gltf_names_outside_its_folder_is_missing(blender, tmp_path, name):
    box = trimesh.creation.box(extents=(1, 1, 1))
    box.visual = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), image=Image.new("RGB", (8, 8), "red"))
    files = trimesh.exchange.gltf.export_gltf(box)
    for file, content in files.items():
        write(tmp_path / "in" / file, content)
    secret = tmp_path / "out" / "secret.png"
    secret.parent.mkdir()
    Image.new("RGB", (8, 8), "red").save(secret)
    path = tmp_path / "in" / "model.gltf"
    assert is_red(seen(blender, path)[1])
    document = json.loads(path.read_text())
    document["images"] = [{"uri": name.format(secret)}]
    path.write_text(json.dumps(document))
    missing, pixels = seen(blender, path)
    assert missing == 1 and not is_red(pixels)


@pytest.mark.parametrize("material", ["", "usemtl wire"])
def test_an_obj_shows_the_texture_that_its_collection_gives_it(blender, tmp_path, material):
    path = write(tmp_path / "raw_model.obj", QUAD.format(material))
    Image.new("RGB", (8, 8), "red").save(tmp_path / "texture.jpg", "png")  # called JPEG, and is PNG, as such things are
    missing, pixels = seen(blender, path, companions=(("texture", "texture.jpg", str(tmp_path / "texture.jpg")),))
    assert missing == 0 and is_red(pixels)
