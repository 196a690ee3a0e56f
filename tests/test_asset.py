import hashlib
import os

from pipeline.assets.asset import absolute, format_of, sha256_of, stamps_in


def write(path, content):
    path.write_bytes(content)
    return path


def test_a_path_becomes_absolute_and_a_uri_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert absolute("a/../b.glb") == f"{tmp_path}/b.glb" == absolute("~/b.glb")
    assert absolute("s3://bucket/a/../b.glb") == "s3://bucket/a/../b.glb"


def test_the_format_is_the_lower_case_extension():
    assert [format_of(place) for place in ("/a.b/C.GLB", "s3://b/c.d/e.obj", "/a.b/c")] == ["glb", "obj", ""]


def test_a_stamp_changes_with_the_file_and_only_then(tmp_path):
    write(tmp_path / "b.glb", b"x")
    write(tmp_path / "a.glb", b"xx")
    first = stamps_in(str(tmp_path))
    assert list(first) == ["a.glb", "b.glb"] and first == stamps_in(str(tmp_path))
    write(tmp_path / "a.glb", b"yy")
    os.utime(tmp_path / "a.glb", ns=(0, 1))
    second = stamps_in(str(tmp_path))
    assert second["a.glb"] != first["a.glb"] and second["b.glb"] == first["b.glb"]
    assert stamps_in(str(tmp_path / "nowhere")) == stamps_in("memory://nowhere") == {}


def test_the_hash_is_that_of_the_bytes(tmp_path):
    content = bytes(range(256)) * 5000
    assert sha256_of(write(tmp_path / "a.glb", content)) == hashlib.sha256(content).hexdigest()
