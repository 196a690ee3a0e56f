import base64
import json
import struct

import pytest

from pipeline.assets.gltf import MOST_VALUES, read, roots
from pipeline.stage import ObjectError

PLAIN = {"asset": {"version": "2.0"}}


def glb(document, binary=b"", *, length=None, json_length=None, binary_length=None, version=2):
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text) if json_length is None else json_length, b"JSON") + text
    if binary or binary_length is not None:
        chunks += struct.pack("<I4s", len(binary) if binary_length is None else binary_length, b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", version, 12 + len(chunks) if length is None else length) + chunks


def file_of(tmp_path, content):
    path = tmp_path / "a.glb"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def refusal(tmp_path, content, **settings):
    with pytest.raises(ObjectError) as error:
        read(file_of(tmp_path, content), **settings)
    assert "a.glb" in error.value.message
    return error.value.reason, error.value.message


def test_json_and_binary_are_found_by_the_bytes_whatever_the_name(tmp_path):
    found = read(file_of(tmp_path, glb(PLAIN, b"12345678")))
    assert found.document == PLAIN and bytes(found.binary) == b"12345678"
    found = read(file_of(tmp_path, PLAIN))
    assert found.document == PLAIN and found.binary.nbytes == 0


def test_what_follows_the_stated_length_and_a_byte_order_mark_are_let_in(tmp_path):
    assert read(file_of(tmp_path, glb(PLAIN) + b"more")).document == PLAIN
    assert read(file_of(tmp_path, glb(b"\xef\xbb\xbf" + json.dumps(PLAIN).encode()))).document == PLAIN


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty_file"),
        (b"glTF\2\0\0\0\x0c\0\0\0", "truncated"),
        (glb(PLAIN, b"12345678")[:-1], "truncated"),
        (glb(PLAIN, json_length=2**32 - 4), "truncated"),
        (glb(PLAIN, b"1234", binary_length=2**32 - 4), "truncated"),
        (glb(PLAIN, version=1), "unsupported_version"),
        ({"asset": {"version": "1.0"}}, "unsupported_version"),
        ({"asset": {"version": "2.1"}}, "unsupported_version"),
        ({"meshes": {}}, "unsupported_version"),
        (glb(b"{]"), "parse_error"),
        (glb(b"\xff{}"), "parse_error"),
        (b"\0" * 12, "parse_error"),
        (b"[]", "parse_error"),
        (b'{"a": NaN}', "parse_error"),
        (b'{"a": ' + b"[" * 100_000, "parse_error"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "parse_error"),
        (b"{" + b"," * MOST_VALUES, "json_too_large"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_reason(tmp_path, content, reason):
    assert refusal(tmp_path, content)[0] == reason


def test_more_json_than_is_let_in_is_refused(tmp_path):
    assert refusal(tmp_path, b'{"a": "' + b"x" * (1 << 20) + b'"}', most_json_mb=1)[0] == "json_too_large"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"\n  <html>", "an HTML page"),
        (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
        (b"\x1f\x8b\x08", "a gzip archive"),
        (b"# made by\n\nv 0.5 -1 2\n", "an OBJ text"),
        (b"mtllib a.mtl\n", "an OBJ text"),
        (b"ply\n", "a PLY mesh"),
    ],
)
def test_another_kind_of_file_is_named(tmp_path, content, words):
    reason, message = refusal(tmp_path, content)
    assert reason == "not_a_mesh_file" and words in message


ACCESSOR = {"componentType": 5126, "count": 1, "type": "VEC3"}


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"meshes": {"a": 1}}, "meshes is dict instead of an array"),
        ({"meshes": [5]}, "meshes[0] is int instead of an object"),
        ({"meshes": [{"primitives": {}}]}, "meshes[0].primitives is dict instead of an array"),
        ({"meshes": [{}]}, "meshes[0] lacks primitives"),
        ({"meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}]}, "POSITION is 0, and there are 0 accessors"),
        ({"meshes": 5, "nodes": [{"mesh": 0}]}, "nodes[0].mesh is 0, and there are 0 meshes"),
        ({"nodes": [{"children": [-1]}]}, "nodes[0].children[0] is -1, and there are 1 nodes"),
        ({"nodes": [{"children": [True]}]}, "nodes[0].children[0] is True instead of an index"),
        ({"accessors": [ACCESSOR | {"count": 2**53}]}, "accessors[0].count is 9007199254740992 instead of a whole number"),
        ({"accessors": [ACCESSOR | {"count": 1e300}]}, "accessors[0].count is 1e+300 instead of a whole number"),
        ({"buffers": [{"byteLength": "4"}]}, "buffers[0].byteLength is '4' instead of a whole number"),
        ({"images": [{"uri": 5}]}, "images[0].uri is 5 instead of a text"),
        ({"scenes": [{}], "scene": 1}, "scene 1 is the default, and there are 1 scenes"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_place(tmp_path, part, words):
    reason, message = refusal(tmp_path, PLAIN | part)
    assert reason == "parse_error" and words in message


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({}, []),
        ({"scene": 0}, []),
        ({"scenes": [{"nodes": [0]}, {"nodes": [1]}]}, [0]),
        ({"scenes": [{"nodes": [0]}, {"nodes": [1]}], "scene": 1}, [1]),
        ({"scenes": [{}]}, []),
        ({"nodes": [{}, {"children": [0]}, {}]}, [1, 2]),
    ],
)
def test_the_roots_are_those_of_the_default_scene_or_the_first_or_of_all_nodes(part, expected):
    assert roots(PLAIN | part) == expected


def test_a_buffer_inside_the_file_comes_from_its_binary_or_a_data_uri(tmp_path):
    uri = "data:application/octet-stream;base64," + base64.b64encode(b"abcd").decode()
    buffers = [{"byteLength": 4}, {"byteLength": 4, "uri": uri}, {"byteLength": 4, "uri": "a.bin"}]
    found = read(file_of(tmp_path, glb(PLAIN | {"buffers": buffers}, b"1234")))
    assert [found.inner_buffer(index) for index in range(3)] == [b"1234", b"abcd", None]


@pytest.mark.parametrize(
    ("buffer", "reason"),
    [
        ({"byteLength": 8 << 30, "uri": "data:;base64,AAAA"}, "truncated"),
        ({"byteLength": 8 << 30}, "truncated"),
        ({"byteLength": 4, "uri": "data:text/plain,AAAA"}, "parse_error"),
        ({"byteLength": 4, "uri": "data:;base64,A"}, "parse_error"),
    ],
)
def test_a_buffer_that_is_not_what_it_claims_is_refused(tmp_path, buffer, reason):
    found = read(file_of(tmp_path, glb(PLAIN | {"buffers": [buffer]}, b"1234")))
    with pytest.raises(ObjectError) as error:
        found.inner_buffer(0)
    assert error.value.reason == reason


def test_a_buffer_that_is_nowhere_is_missing(tmp_path):
    found = read(file_of(tmp_path, PLAIN | {"buffers": [{"byteLength": 4}]}))
    with pytest.raises(ObjectError) as error:
        found.inner_buffer(0)
    assert error.value.reason == "missing_buffer"
