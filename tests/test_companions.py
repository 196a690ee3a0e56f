import csv
import json
import os
import struct

import fsspec
import pyarrow as pa
import pytest

from pipeline.assets.asset import format_of
from pipeline.assets.companions import companions
from pipeline.sources.folder import FORMATS
from pipeline.sources.record import record
from pipeline.stage import ObjectError


def write(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def gltf(*images, buffers=()):
    document = {
        "asset": {"version": "2.0"},
        "images": [{"uri": uri} for uri in images],
        "buffers": [{"uri": uri, "byteLength": 1} for uri in buffers],
    }
    return json.dumps(document)


def glb(document):
    text = document.encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text), len(text), b"JSON") + text


def crate(*words):
    """A binary USD that holds nothing but these words."""
    plain = b"".join(word.encode() + b"\0" for word in words)
    packed = b"\0" + pa.compress(plain, codec="lz4_raw", asbytes=True)
    section = struct.pack("<QQQ", len(words), len(plain), len(packed)) + packed
    head = b"PXR-USDC" + bytes([0, 8, 0, 0, 0, 0, 0, 0]) + struct.pack("<q", 24 + len(section))
    return head + section + struct.pack("<Q16sqq", 1, b"TOKENS", 24, len(section))


def found(path, **changes):
    return companions(path, record(source="s", source_id="x", asset_uri=str(path), asset_stamp="", **changes))


def names(path, **changes):
    """The companions by name: where they are, seen from the asset's folder; and the warnings."""
    seen = found(path, **changes)
    return {file["name"]: os.path.relpath(file["uri"], path.parent) for file in seen.files}, sorted(seen.warnings)


@pytest.mark.parametrize("format", ["gltf", "glb"])
def test_the_companions_of_a_gltf_are_its_buffers_and_images(tmp_path, format):
    text = gltf("b%20c.png", "data:image/png;base64,AA==", buffers=["d/e.bin"])
    path = write(tmp_path / f"a.{format}", glb(text) if format == "glb" else text)
    write(tmp_path / "b c.png")
    write(tmp_path / "d" / "e.bin")
    assert names(path) == ({"b%20c.png": "b c.png", "d/e.bin": "d/e.bin"}, [])


def test_the_companions_of_an_obj_are_its_material_files_and_their_textures(tmp_path):
    path = write(tmp_path / "a.obj", "o a\nmtllib first.mtl maps/second.mtl\n\tmtllib with space.mtl\nusemtl a\n#mtllib no.mtl\n")
    options = "map_Kd -s 1 1 1 -o 0.5 -bm 2 -clamp on my red.png"
    write(tmp_path / "first.mtl", options + '\r\nbump maps\\deep.png\r\n# map_Kd no.png\r\nKd 1 1 1\r\nrefl -type sphere "sky.png"')
    write(tmp_path / "maps" / "second.mtl", "MAP_KD here.png\n")
    write(tmp_path / "with space.mtl", "  map_d alpha.png\nnorm normal.png\n")
    write(tmp_path / "a.mtl", "disp -mm 0 1 own.png")  # Blender takes what is called as the OBJ is
    pictures = ["my red.png", "maps/deep.png", "sky.png", "maps/here.png", "alpha.png", "normal.png", "own.png"]
    for name in pictures:
        write(tmp_path / name)
    files, warnings = names(path)
    assert list(files) == [
        "first.mtl",
        "maps/second.mtl",
        "with space.mtl",
        "a.mtl",
        *pictures[:1],
        "maps\\deep.png",
        *pictures[2:],
    ]
    assert sorted(files.values()) == sorted(["first.mtl", "maps/second.mtl", "with space.mtl", "a.mtl", *pictures])
    assert warnings == ["texture_path_repaired"]


def test_an_obj_in_utf_16_is_read_as_well(tmp_path):
    path = write(tmp_path / "a.obj", "mtllib a b.mtl\nusemtl x\n".encode("utf-16"))
    write(tmp_path / "a b.mtl", "newmtl x\nmap_Kd é.png\n".encode("utf-16"))
    write(tmp_path / "é.png")
    assert names(path) == ({"a b.mtl": "a b.mtl", "é.png": "é.png"}, [])


def test_a_name_in_an_old_encoding_finds_its_file(tmp_path):
    path = write(tmp_path / "a.obj", "mtllib a.mtl\nusemtl x\n")
    write(tmp_path / "a.mtl", b"map_Kd caf\xe9.png\n")
    write(tmp_path / "café.png")
    assert names(path)[0]["café.png"] == "café.png"


@pytest.mark.parametrize(
    ("content", "warnings"),
    [
        ("v 0 0 0\n", []),
        ("mtllib gone.mtl\n", []),  # nothing asks for a material
        ("vt 0 0\n", ["missing_material"]),
        ("usemtl a\n", ["missing_material"]),
        ("mtllib gone.mtl\nusemtl a\n", ["missing_material"]),
        ("mtllib ../a.mtl\nusemtl a\n", ["missing_material", "unsafe_uri_blocked"]),
    ],
)
def test_an_obj_that_asks_for_materials_and_has_none_is_told(tmp_path, content, warnings):
    path = write(tmp_path / "in" / "b.obj", content)
    write(tmp_path / "a.mtl", "map_Kd x.png")
    assert names(path) == ({}, warnings)
    write(path.with_name("t.png"))
    assert "missing_material" not in found(path, texture=str(path.with_name("t.png"))).warnings


PLACES = {
    "../secret": "unsafe_uri_blocked",
    "a/../../secret": "unsafe_uri_blocked",
    "../in/../secret": "unsafe_uri_blocked",
    "/etc/passwd": "unsafe_uri_blocked",
    "//server/share/secret": "unsafe_uri_blocked",
    "\\\\server\\share\\secret": "unsafe_uri_blocked",
    "file:///etc/passwd": "unsafe_uri_blocked",
    "C:\\secret": "unsafe_uri_blocked",
    "..\\secret": "unsafe_uri_blocked",
    "link": "unsafe_uri_blocked",
    "folder/secret": "unsafe_uri_blocked",
    "http://a.b/c.png": "external_uri_blocked",
    "s3://a/c.png": "external_uri_blocked",
    "gone.png": "missing_texture",
    "pipe": "missing_texture",
    "n" * 4000: "missing_texture",
}


@pytest.fixture
def guarded(tmp_path):
    """A folder with ways out of it, and a secret outside."""
    write(tmp_path / "secret")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to("../secret")
    (tmp_path / "in" / "folder").symlink_to("..")
    os.mkfifo(tmp_path / "in" / "pipe")
    return tmp_path / "in"


@pytest.mark.parametrize("name", PLACES)
def test_nothing_outside_of_the_folder_is_followed(guarded, name):
    path = write(guarded / "a.gltf", gltf(name))
    other = write(guarded / "b.obj", "mtllib b.mtl\nusemtl a\n")
    write(guarded / "b.mtl", f"map_Kd {name}\n")
    collada = write(guarded / "c.dae", f"<COLLADA><image><init_from>{name}</init_from></image></COLLADA>")
    assert names(path) == names(collada) == ({}, [PLACES[name]])
    assert names(other) == ({"b.mtl": "b.mtl"}, [PLACES[name]])
    for scanned in ("d.fbx", "e.usda", "f.abc"):
        content = f'#usda 1.0\n@{name}@ Filename: "{name}"\n'
        assert names(write(guarded / scanned, content))[0] == {}


@pytest.mark.parametrize("name", ["..%2fsecret", "%2e%2e/secret", "%2Fetc/passwd"])
def test_percent_signs_hide_no_way_out(guarded, name):
    assert names(write(guarded / "a.gltf", gltf(name))) == ({}, ["unsafe_uri_blocked"])


@pytest.mark.parametrize("name", [name for name in PLACES if PLACES[name] != "missing_texture"])
def test_a_buffer_outside_of_the_folder_is_refused(guarded, name):
    with pytest.raises(ObjectError, match="outside its own folder") as error:
        found(write(guarded / "a.gltf", gltf(buffers=[name])))
    assert error.value.reason == "unsafe_uri"


def test_a_buffer_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ObjectError, match=r"gone\.bin.*not there") as error:
        found(write(tmp_path / "a.gltf", gltf(buffers=["gone.bin"])))
    assert error.value.reason == "missing_buffer"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("C:\\Users\\Kay\\wood.png", "wood.png"),
        ("/home/kay/wood.png", "wood.png"),
        ("textures/wood.png", "wood.png"),
        ("../../wood.png", "wood.png"),
        ("maps\\wood.png", "maps/wood.png"),
        ("WOOD.PNG", "wood.png"),
        ("Maps/Wood.png", "maps/wood.png"),
        ("my wood.png", "my_wood.png"),
        ("cafe\u0301.png", "caf\u00e9.png"),  # as a Mac spells it
    ],
)
def test_a_name_from_another_machine_is_repaired(tmp_path, name, file):
    write(tmp_path / file)
    write(tmp_path / "a.mtl", f"map_Kd {name}\n")
    files, warnings = names(write(tmp_path / "a.obj", "mtllib a.mtl\n"))
    assert files == {"a.mtl": "a.mtl", name: file} and warnings == ["texture_path_repaired"]
    assert names(write(tmp_path / "b.gltf", gltf(name))) == ({name: file}, ["texture_path_repaired"])


def test_references_may_lead_anywhere_in_the_home_that_the_collection_names(tmp_path):
    path = write(tmp_path / "m" / "models" / "a.obj", "mtllib a.mtl\n")
    write(path.with_name("a.mtl"), "map_Kd ../images/t.png\nmap_d ../../secret.png\n")
    write(tmp_path / "m" / "images" / "t.png")
    write(tmp_path / "secret.png")
    assert names(path, home=str(tmp_path / "m")) == (
        {"a.mtl": "a.mtl", "../images/t.png": "../images/t.png"},
        ["unsafe_uri_blocked"],
    )
    assert names(path) == ({"a.mtl": "a.mtl"}, ["unsafe_uri_blocked"])


def test_what_the_collection_adds_has_a_role_of_its_own(tmp_path):
    path = write(tmp_path / "in" / "a.obj", "v 0 0 0\n")
    texture, cloud = write(path.with_name("t.png")), write(tmp_path / "cloud.pcd")
    roles = [(file["role"], file["name"]) for file in found(path, texture=str(texture), cloud=str(cloud)).files]
    assert roles == [("texture", "t.png"), ("cloud", "cloud.pcd")]
    assert found(path, texture=str(tmp_path / "in" / "gone.png"), cloud=str(tmp_path / "gone.pcd")).warnings == {
        "missing_texture",
        "missing_cloud",
    }
    path.with_name("l.png").symlink_to(cloud)
    assert found(path, texture=str(path.with_name("l.png"))).warnings == {"unsafe_uri_blocked"}
    assert found(path, texture=str(cloud)).files == []


def test_the_pictures_of_collada_are_followed_and_its_ids_are_not(tmp_path):
    path = write(
        tmp_path / "a.dae",
        '<COLLADA><image id="i"><init_from>my%20red&amp;.png</init_from></image>'
        "<image><init_from><ref>./b.png</ref></init_from></image><image><init_from><![CDATA[c.png]]></init_from></image>"
        "<surface><init_from>i</init_from></surface></COLLADA>",
    )
    for name in ("my red&.png", "b.png", "c.png"):
        write(tmp_path / name)
    assert names(path) == ({"my%20red&.png": "my red&.png", "./b.png": "b.png", "c.png": "c.png"}, [])


def test_collada_that_takes_in_files_is_refused(tmp_path):
    with pytest.raises(ObjectError) as error:
        found(write(tmp_path / "a.dae", '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><COLLADA>&x;</COLLADA>'))
    assert error.value.reason == "unsafe_uri"


def test_an_fbx_is_searched_for_names_of_pictures(tmp_path):
    content = b"Kaydara FBX Binary\0S\x1c\0\0\0C:\\Users\\Kay\\textures\\red.PNG\x00S\x07\0\0\0red.PNGS\x00gone.tga\0"
    path = write(tmp_path / "a.fbx", content)
    write(tmp_path / "red.png")
    files, warnings = names(path)
    assert set(files.values()) == {"red.png"} and warnings == ["missing_texture", "texture_path_repaired"]
    assert names(write(path, content + b"\x89PNG\r\n\x1a\n"))[1] == ["texture_path_repaired"]  # the others may be inside


@pytest.mark.parametrize("binary", [False, True])
def test_layers_of_usd_bring_their_own_pictures(tmp_path, binary):
    def content(*words):
        return crate(*words) if binary else "#usda 1.0\n" + "".join(f"@{word}@\n" for word in words)

    path = write(tmp_path / "a.usd", content("./parts/wheel.usd", "body.png", "a.usd"))
    write(tmp_path / "parts" / "wheel.usd", content("../a.usd", "tyre.png", "gone.png", "../../out.usd"))
    write(tmp_path / "parts" / "tyre.png")
    write(tmp_path / "body.png")
    files, warnings = names(path)
    assert set(files.values()) == {"parts/wheel.usd", "body.png", "parts/tyre.png"}
    assert warnings == ["missing_layer", "missing_texture"]


@pytest.mark.parametrize("cut", [9, 20, 40, -20])
def test_a_cut_binary_usd_is_refused(tmp_path, cut):
    with pytest.raises(ObjectError) as error:
        found(write(tmp_path / "a.usdc", crate("a.png", "b.png")[:cut]))
    assert error.value.reason == "parse_error"


def test_files_without_end_are_refused(tmp_path):
    path = write(tmp_path / "a.gltf", gltf(*(f"{number}.png" for number in range(20))))
    about = record(source="s", source_id="x", asset_uri=str(path), asset_stamp="")
    with pytest.raises(ObjectError, match="more than 10 files") as error:
        companions(path, about, most_files=10)
    assert error.value.reason == "too_many_files"
    write(tmp_path / "0.png", bytes(1 << 20))
    with pytest.raises(ObjectError, match="more than 1 MB") as error:
        companions(path, about, most_mb=1)
    assert error.value.reason == "asset_too_large"


def test_the_hash_follows_contents_and_names_and_not_the_place(tmp_path):
    made = [write(tmp_path / folder / "a.gltf", gltf("b.png", "c.png")) for folder in ("one", "two")]
    assert found(made[0]).sha256 is None
    for path in made:
        write(path.with_name("b.png"), b"red")
    one, two = made
    first = found(one).sha256
    assert first and first == found(two).sha256
    write(one.with_name("b.png"), b"blue")
    write(two.with_name("c.png"), b"new")
    assert len({first, found(one).sha256, found(two).sha256}) == 3


def test_companions_far_away_are_found_like_those_here(tmp_path, monkeypatch):
    monkeypatch.setenv("TRICORPUS_CACHE", str(tmp_path))
    fsspec.filesystem("memory").pipe(
        {
            "/bucket/m/models/b.obj": b"mtllib B.mtl\nusemtl a\n",
            "/bucket/m/models/b.mtl": b"newmtl a\nmap_Kd ../images/blue sky.png\nmap_d gone.png\nbump ../../secret.png\n",
            "/bucket/m/images/blue sky.png": b"red",
            "/bucket/secret.png": b"secret",
        }
    )
    path = write(tmp_path / "b.obj", b"mtllib B.mtl\nusemtl a\n")
    uri = "memory://bucket/m/models/b.obj"
    seen = companions(path, record(source="s", source_id="x", asset_uri=uri, asset_stamp="", home="memory://bucket/m"))
    assert {file["uri"] for file in seen.files} == {
        "memory://bucket/m/models/b.mtl",
        "memory://bucket/m/images/blue sky.png",
    }
    assert seen.warnings == {"texture_path_repaired", "missing_texture", "unsafe_uri_blocked"}


WARNED = {"missing_material", "missing_texture", "external_uri_blocked", "unsafe_uri_blocked", "texture_path_repaired"}
REFUSED = {"missing_buffer", "unsafe_uri"}


def test_real_awkward_assets_are_told_as_their_manifest_says(assets):
    with open(assets / "malformed" / "manifest.csv") as file:
        lines = [line for line in csv.DictReader(file) if format_of(line["path"]) in FORMATS and "directory" not in line["path"]]
    assert len(lines) > 100
    told = 0
    for line in lines:
        path = assets / "malformed" / line["path"]
        try:
            seen = found(path)
            assert all(os.path.realpath(file["uri"]).startswith(f"{path.parent.resolve()}/") for file in seen.files)
            outcome = seen.warnings
        except ObjectError as error:
            outcome = {error.reason}
        if line["reason"] in WARNED | REFUSED:
            told += 1
            assert line["reason"] in outcome, line
    assert told > 10


def test_real_collections_hold_together(assets):
    for path in sorted((assets / "shapenet").glob("*/*/models/model_normalized.obj")):
        warnings = found(path, home=str(path.parent.parent)).warnings
        expected = {
            "90065dba60ae92ed08cf349b695838e0": {"texture_path_repaired"},
            "2704f62d4c9bf5bc06f87cff3492ef4a": {"missing_texture"},
        }
        assert warnings == expected.get(path.parts[-3], set()), path
