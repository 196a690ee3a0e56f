import base64
import json
import struct

import numpy as np
import pytest

from render.preflight import check_file, check_gltf, check_obj
from render.spec import AssetError


def gltf(path, positions, *, count=None, stride=None, start=0, uri=None, binary=False):
    """A file with one accessor of positions, interleaved when a stride is given; as GLB when `binary`."""
    positions = np.asarray(positions, "<f4")
    data = bytes(start) + b"".join(row.tobytes().ljust(stride or 12, b"\0") for row in positions)
    document = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": len(data)}],
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": len(data) - start} | ({"byteStride": stride} if stride else {})
        ],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": count or len(positions), "type": "VEC3"}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
    }
    if binary:
        text = json.dumps(document).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
    else:
        document["buffers"][0]["uri"] = uri or "data:;base64," + base64.b64encode(data).decode()
        path.write_text(json.dumps(document))
    return path


def failure(check, path) -> AssetError:
    with pytest.raises(AssetError) as error:
        check(path)
    return error.value


@pytest.mark.parametrize("form", [{}, {"binary": True}, {"stride": 20}, {"start": 8, "stride": 16, "binary": True}])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_each_position_that_is_no_number_is_counted(tmp_path, form, value):
    positions = np.arange(30.0).reshape(10, 3)
    assert check_gltf(gltf(tmp_path / "a.glb", positions, **form))["accessors"][0]["count"] == 10
    positions[[2, 5, 9], [0, 1, 2]] = value
    found = failure(check_gltf, gltf(tmp_path / "a.glb", positions, **form))
    assert found.reason == "not_finite" and str(found).startswith("3 vertex positions")


def test_a_count_beyond_the_buffer_is_refused_without_reading_it(tmp_path):
    found = failure(check_gltf, gltf(tmp_path / "a.gltf", np.zeros((3, 3)), count=2**31 - 1))
    assert found.reason == "unreadable" and "25769803764 bytes" in str(found)


def test_a_missing_buffer_is_named(tmp_path):
    found = failure(check_gltf, gltf(tmp_path / "a.gltf", np.zeros((3, 3)), uri="gone%20away.bin"))
    assert found.reason == "unreadable" and "gone away.bin" in str(found)


@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1\n",
        b"glTF",
        b"[" * 100_000,
        b"[]",
        b'{"asset": {"version": "1.0"}}',
        b'{"asset": {"version": "2.0"}, "meshes": {"a": "b"}}',
        b'{"asset": {"version": "2.0"}, "meshes": [{"primitives": [{"attributes": {"POSITION": 7}}]}]}',
    ],
)
def test_what_is_no_gltf_is_unreadable(tmp_path, content):
    path = tmp_path / "a.glb"
    path.write_bytes(content)
    assert failure(check_gltf, path).reason == "unreadable"


@pytest.mark.parametrize("line", ["v nan 0 0", "v 0 0 -NaN(ind)", "v 0 INF 0", "v\t0 0 infinity 1 1 1"])
def test_an_obj_with_a_position_that_is_no_number_is_found(tmp_path, line):
    path = tmp_path / "a.obj"
    path.write_text(f"o thing\nv 1 2 3\n{line}\nf 1 2 3\n")
    assert failure(check_obj, path).reason == "not_finite"


def test_names_and_comments_of_an_obj_are_no_numbers(tmp_path):
    path = tmp_path / "a.obj"
    path.write_text("o v nan\n# v nan 0 0\nv 1 2 3 # inf\nvn nan 0 0\nusemtl inf\n")
    check_obj(path)


def test_nothing_and_folders_are_no_files(tmp_path):
    (tmp_path / "empty.glb").touch()
    for path in (tmp_path, tmp_path / "gone.glb", tmp_path / "empty.glb"):
        assert failure(check_file, path).reason == "unreadable"
