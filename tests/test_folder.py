import os

import fsspec
import pytest

from pipeline.sources.folder import FORMATS, Folder


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "assets"
    for name in ("b/red chair.OBJ", "b/red chair.mtl", "b/maps/wood.png", "a.glb", "c/lamp.gltf", "c/lamp.bin", "notes.txt"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def records(folder):
    return {record["source_id"]: record for record in Folder("chairs", str(folder)).records()}


def stamps(folder):
    return {path: record["asset_stamp"] for path, record in records(folder).items()}


def test_every_asset_is_a_record_known_by_its_path_in_order(folder):
    found = records(folder)
    assert list(found) == ["a.glb", "b/red chair.OBJ", "c/lamp.gltf"]
    chair = found["b/red chair.OBJ"]
    assert (chair["object_id"], chair["asset_format"], chair["name"]) == ("chairs/b/red chair.OBJ", "obj", "red chair")
    assert (chair["asset_uri"], chair["license"]) == (str(folder / "b" / "red chair.OBJ"), "unknown")
    assert (chair["categories"], chair["description"], chair["unusable"]) == ([], None, None)


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_is_taken_in_any_case(tmp_path, format):
    (tmp_path / f"x.{format.upper()}").write_text("x")
    assert [record["asset_format"] for record in records(tmp_path).values()] == [format]


def test_hidden_files_and_folders_are_left_alone(folder):
    (folder / ".git").mkdir()
    (folder / ".git" / "x.glb").write_text("x")
    (folder / ".x.glb").write_text("x")
    assert ".git/x.glb" not in records(folder) and ".x.glb" not in records(folder)


def test_links_inside_are_followed_and_links_out_are_accounted_for(folder, tmp_path):
    (tmp_path / "out.glb").write_text("out")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.glb").write_text("x")
    (folder / "in.glb").symlink_to("a.glb")
    (folder / "out.glb").symlink_to("../out.glb")
    (folder / "lost.glb").symlink_to("nowhere.glb")
    (folder / "folder").symlink_to("../elsewhere")
    (folder / "loop").symlink_to(".")
    found = records(folder)
    assert found.keys() == {"a.glb", "b/red chair.OBJ", "c/lamp.gltf", "in.glb", "out.glb", "lost.glb"}
    assert found["in.glb"]["unusable"] is None and found["in.glb"]["asset_stamp"] == found["a.glb"]["asset_stamp"]
    assert found["out.glb"]["unusable"][0] == "link_outside"
    assert found["lost.glb"]["asset_stamp"] is None


def test_a_change_of_an_asset_or_its_parts_changes_its_stamp_and_no_other(folder):
    before = stamps(folder)
    assert before == stamps(folder)
    changes = {
        "a.glb": "a.glb",
        "b/maps/wood.png": "b/red chair.OBJ",
        "b/red chair.mtl": "b/red chair.OBJ",
        "c/lamp.bin": "c/lamp.gltf",
    }
    for file, asset in changes.items():
        (folder / file).write_text(f"{file} changed")
        after = stamps(folder)
        assert [path for path in after if after[path] != before[path]] == [asset]
        before = after
    (folder / "notes.txt").write_text("changed")
    assert stamps(folder) == before


def test_a_file_name_that_is_not_utf8_is_accounted_for(folder):
    with open(os.fsencode(folder) + b"/caf\xe9.glb", "w") as file:
        file.write("x")
    assert [record["unusable"][0] for record in records(folder).values() if record["unusable"]] == ["name_not_utf8"]
    assert all(path.encode() for path in records(folder))


def test_an_object_store_gives_the_same_objects(folder):
    fsspec.filesystem("memory").put(str(folder), "/folder", recursive=True)
    here, there = list(records(folder).values()), list(records("memory://folder").values())
    for record in (*here, *there):
        assert record.pop("asset_stamp")
        record["asset_uri"] = record["asset_uri"].replace(str(folder), "memory://folder")
    assert here == there


def test_a_folder_called_like_an_asset_is_told_and_what_is_in_it_is_found(folder):
    (folder / "chair.glb").mkdir()
    (folder / "chair.glb" / "real.glb").write_text("x")
    found = records(folder)
    assert found["chair.glb"]["unusable"][0] == "not_a_file"
    assert found["chair.glb/real.glb"]["unusable"] is None
