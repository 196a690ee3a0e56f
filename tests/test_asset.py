import hashlib
import json
import os
import struct

import fsspec
import pytest

from pipeline.asset import absolute, companions, companions_sha256, format_of, local_copy, sha256_of, stamps_in
from pipeline.sources.folder import FORMATS


def write(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def gltf(*images, buffers=()):
    return json.dumps({"images": [{"uri": uri} for uri in images], "buffers": [{"uri": uri} for uri in buffers]})


def glb(document):
    text = document.encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text), len(text), b"JSON") + text


def names(folder, found):
    return [path.relative_to(folder).as_posix() for path in found]


def test_a_path_becomes_absolute_and_a_uri_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert absolute("a/../b.glb") == f"{tmp_path}/b.glb" == absolute("~/b.glb")
    assert absolute("s3://bucket/a/../b.glb") == "s3://bucket/a/../b.glb"


def test_the_format_is_the_lower_case_extension():
    assert [format_of(place) for place in ("/a.b/C.GLB", "s3://b/c.d/e.obj", "/a.b/c")] == ["glb", "obj", ""]


def test_a_stamp_changes_with_the_file_and_only_then(tmp_path):
    write(tmp_path / "b.glb")
    write(tmp_path / "a.glb", b"xx")
    first = stamps_in(str(tmp_path))
    assert list(first) == ["a.glb", "b.glb"] and first == stamps_in(str(tmp_path))
    write(tmp_path / "a.glb", b"yy")
    os.utime(tmp_path / "a.glb", ns=(0, 1))
    second = stamps_in(str(tmp_path))
    assert second["a.glb"] != first["a.glb"] and second["b.glb"] == first["b.glb"]
    assert stamps_in(str(tmp_path / "nowhere")) == stamps_in("memory://nowhere") == {}


def test_a_local_asset_is_not_copied(tmp_path):
    with local_copy(str(tmp_path / "a.glb")) as path:
        assert path == tmp_path / "a.glb"


@pytest.mark.parametrize("uri", ["memory://bucket/a/model.gltf", "memory://bucket/b/model.obj"])
def test_a_remote_asset_comes_with_its_companions_and_goes_again(uri):
    bucket = fsspec.filesystem("memory")
    bucket.pipe(
        {
            "/bucket/a/model.gltf": gltf("maps/blue%20sky.png", "gone.png", buffers=["model.bin"]).encode(),
            "/bucket/a/model.bin": b"buffer",
            "/bucket/a/maps/blue sky.png": b"picture",
            "/bucket/b/model.obj": b"mtllib model.mtl\n",
            "/bucket/b/model.mtl": b"newmtl a\nmap_Kd maps/red.png\n",
            "/bucket/b/maps/red.png": b"red",
        }
    )
    with local_copy(uri) as path:
        here = sorted(names(path.parent, [file for file in path.parent.rglob("*") if file.is_file()]))
        expected = {"gltf": ["maps/blue sky.png", "model.bin", "model.gltf"], "obj": ["maps/red.png", "model.mtl", "model.obj"]}
        assert here == expected[format_of(uri)]
        assert all((path.parent / name).read_bytes() == bucket.cat(uri.rsplit("/", 1)[0] + "/" + name) for name in here)
    assert not path.parent.exists()


def test_a_remote_asset_that_is_not_there_is_an_error():
    with pytest.raises(FileNotFoundError), local_copy("memory://bucket/nothing.glb"):
        pass


def test_the_hash_is_that_of_the_bytes(tmp_path):
    content = bytes(range(256)) * 5000
    assert sha256_of(write(tmp_path / "a.glb", content)) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("format", ["gltf", "glb"])
def test_the_companions_of_a_gltf_are_its_buffers_and_images(tmp_path, format, version):
    document = {
        "images": [{"uri": "b%20c.png"}, {"bufferView": 0}, {"uri": "data:image/png;base64,AA=="}],
        "buffers": [{"uri": "d/e.bin"}],
    }
    if version == 1:
        document = {kind: {str(number): item for number, item in enumerate(items)} for kind, items in document.items()}
    text = json.dumps(document)
    path = write(tmp_path / f"a.{format}", glb(text) if format == "glb" else text)
    assert names(tmp_path, companions(path, format)) == ["b c.png", "d/e.bin"]


def test_the_companions_of_an_obj_are_its_material_files_and_their_textures(tmp_path):
    path = write(tmp_path / "a.obj", "o a\nmtllib first.mtl second.mtl\nmtllib with space.mtl\n")
    write(
        tmp_path / "first.mtl",
        "map_Kd -s 1 1 1 -o 0.5 -bm 2 -clamp on my red.png\nbump maps\\deep.png\n# map_Kd no.png\nKd 1 1 1\n",
    )
    write(tmp_path / "with space.mtl", "  map_d alpha.png\nnorm normal.png\n")
    assert names(tmp_path, companions(path, "obj")) == [
        "alpha.png",
        "first.mtl",
        "maps/deep.png",
        "my red.png",
        "normal.png",
        "second.mtl",
        "with space.mtl",
    ]


OUTSIDE = [
    "../secret",
    "a/../../secret",
    "/etc/passwd",
    "http://a.b/c.png",
    "file:///etc/passwd",
    "C:\\a.png",
    "..\\secret",
    "link",
    "",
]


@pytest.mark.parametrize("name", [*OUTSIDE, "\0", "n" * 5000])
def test_nothing_outside_of_the_folder_is_followed(tmp_path, name):
    write(tmp_path / "secret")
    path = write(tmp_path / "in" / "a.gltf", gltf(name))
    other = write(tmp_path / "in" / "b.obj", "mtllib b.mtl\n")
    write(tmp_path / "in" / "b.mtl", f"map_Kd {name}\n")
    (tmp_path / "in" / "link").symlink_to("../secret")
    inside = ["n" * 5000] if name.startswith("n") else []
    assert names(path.parent, companions(path, "gltf")) == inside
    assert names(path.parent, companions(other, "obj")) == ["b.mtl", *inside]
    assert companions_sha256(other, "obj")


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, '{"images": 5}', '{"images": [1, {"uri": 5}]}', "glTF"])
@pytest.mark.parametrize("format", ["gltf", "glb"])
def test_an_asset_that_makes_no_sense_has_no_companions(tmp_path, content, format):
    path = write(tmp_path / "a", glb(content) if format == "glb" and content != "glTF" else content)
    assert companions(path, format) == [] and companions_sha256(path, format) is None


def test_the_companions_hash_follows_their_contents_and_not_their_place(tmp_path):
    made = [write(tmp_path / folder / "a.gltf", gltf("b.png", "c.png")) for folder in ("one", "two")]
    for path in made:
        write(path.parent / "b.png", b"red")
    one, two = made
    first = companions_sha256(one, "gltf")
    assert first == companions_sha256(two, "gltf")
    write(one.parent / "b.png", b"blue")
    write(two.parent / "c.png", b"new")
    assert len({first, companions_sha256(one, "gltf"), companions_sha256(two, "gltf")}) == 3


def test_no_real_broken_asset_leads_out_of_its_folder(assets):
    files = [path for path in (assets / "malformed").rglob("*") if path.is_file() and format_of(path.name) in FORMATS]
    assert len(files) > 100
    for path in files:
        assert all(file.resolve().is_relative_to(path.parent.resolve()) for file in companions(path, format_of(path.name)))
        companions_sha256(path, format_of(path.name))
