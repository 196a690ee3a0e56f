import json

import fsspec
import pytest
from photo_scene import make_object

from pipeline.sources.mvimgnet import LICENSE, Mvimgnet, Mvpnet
from pipeline.sources.source import source_from

PLY = "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\nend_header\n1 2 3\n"


def by_id(source):
    return {record["source_id"]: record for record in source.records()}


@pytest.fixture
def root(tmp_path):
    """Two objects below the classes, one below a folder of a zip, and one without anything."""
    root = tmp_path / "mvimgnet"
    make_object(root / "10" / "0000aaaa", 4)
    make_object(root / "2" / "0000bbbb", 4)
    make_object(root / "mvi_07" / "2" / "0000cccc", 4)
    (root / "7" / "0000dddd" / "sparse").mkdir(parents=True)
    (root / "mvimgnet_category.txt").write_bytes(b"0,bag\r\n2,wahser\r\n10,Toy butterfly \r\n")
    return root


@pytest.fixture
def clouds(tmp_path):
    """A folder of MVPNet with clouds below data/ and beside it."""
    clouds = tmp_path / "mvpnet"
    for name in ("data/2/0000bbbb.pcd", "data/2/0000bbbb.ply", "10/0000aaaa.ply", "10/0000eeee.pcd", "10/readme.txt"):
        (clouds / name).parent.mkdir(parents=True, exist_ok=True)
        (clouds / name).write_text(PLY)
    (clouds / "split").mkdir()
    (clouds / "split" / "train.json").write_text(json.dumps(["2/0000bbbb.pcd", "9/0000ffff.pcd"]))
    (clouds / "split" / "val.json").write_text(json.dumps(["10/0000aaaa.pcd"]))
    return clouds


def test_every_object_is_a_record_wherever_its_zip_was_unpacked(root):
    found = by_id(Mvimgnet("mvimgnet", str(root)))
    assert list(found) == ["2/0000bbbb", "2/0000cccc", "7/0000dddd", "10/0000aaaa"]
    one = found["2/0000cccc"]
    assert (one["object_id"], one["asset_uri"]) == ("mvimgnet/2/0000cccc", str(root / "mvi_07" / "2" / "0000cccc"))
    assert (one["asset_format"], one["license"], one["categories"]) == ("photos", LICENSE, ["wahser"])
    assert (one["cloud"], one["split"], one["warnings"]) == (None, None, [])
    assert found["10/0000aaaa"]["categories"] == ["Toy butterfly"]
    assert (found["7/0000dddd"]["categories"], found["7/0000dddd"]["warnings"]) == ([], ["metadata_missing"])


def test_the_names_of_the_second_edition_are_read_too(root):
    (root / "mvimgnet2_categories.json").write_text(json.dumps({"7": "cup", "2": "not this"}))
    found = by_id(Mvimgnet("mvimgnet", str(root)))
    assert (found["7/0000dddd"]["categories"], found["2/0000bbbb"]["categories"]) == (["cup"], ["wahser"])


def test_a_change_of_a_file_that_counts_changes_one_stamp(root, clouds):
    def stamps():
        return {id: record["asset_stamp"] for id, record in by_id(Mvimgnet("m", str(root), str(clouds))).items()}

    before = stamps()
    (root / "2" / "0000bbbb" / "notes.txt").write_text("x")
    assert stamps() == before
    for file in (
        root / "2" / "0000bbbb/images/001.jpg",
        root / "2" / "0000bbbb/sparse/0/images.bin",
        clouds / "data/2/0000bbbb.pcd",
    ):
        file.write_bytes(file.read_bytes() + b"0")
        after = stamps()
        assert [id for id in after if after[id] != before[id]] == ["2/0000bbbb"]
        before = after


def test_objects_get_their_clouds_and_splits(root, clouds):
    found = by_id(source_from(f"mvimgnet={root}", {"mvimgnet": {"clouds": str(clouds)}}))
    assert found["2/0000bbbb"]["cloud"] == str(clouds / "data" / "2" / "0000bbbb.pcd")
    assert found["10/0000aaaa"]["cloud"] == str(clouds / "10" / "0000aaaa.ply")
    assert found["2/0000cccc"]["cloud"] is None
    assert [record["split"] for record in found.values()] == ["train", None, None, "val"]


def test_clouds_alone_are_objects_and_those_only_listed_come_last(clouds, root):
    found = by_id(source_from(f"mvpnet={clouds}", {"mvpnet": {"categories": str(root / "mvimgnet_category.txt")}}))
    assert list(found) == ["2/0000bbbb", "10/0000aaaa", "10/0000eeee", "9/0000ffff"]
    assert {record["asset_format"] for record in found.values()} == {"pcd"}
    assert [record["split"] for record in found.values()] == ["train", "val", None, "train"]
    assert (found["2/0000bbbb"]["categories"], found["2/0000bbbb"]["license"]) == (["wahser"], LICENSE)
    assert found["2/0000bbbb"]["asset_stamp"] and found["9/0000ffff"]["asset_stamp"] is None


def test_an_object_that_lies_in_two_places_is_refused(root):
    make_object(root / "mvi_08" / "2" / "0000bbbb", 4)
    with pytest.raises(ValueError, match="2/0000bbbb is there twice"):
        by_id(Mvimgnet("mvimgnet", str(root)))


def test_what_is_no_such_collection_is_refused_with_a_sentence(root, clouds, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no class of MVImgNet"):
        Mvimgnet("mvimgnet", str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="holds no class of MVPNet"):
        Mvpnet("mvpnet", str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match="the option clouds"):
        Mvimgnet("mvimgnet", str(root), str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="the option categories"):
        Mvpnet("mvpnet", str(clouds), str(tmp_path / "nowhere"))
    (root / "mvimgnet_category.txt").write_text("<html>")
    with pytest.raises(ValueError, match="does not hold the names of classes"):
        by_id(Mvimgnet("mvimgnet", str(root)))
    (clouds / "split" / "val.json").write_text('{"a": 1')
    with pytest.raises(ValueError, match="val.json is no JSON"):
        by_id(Mvpnet("mvpnet", str(clouds)))


def test_an_object_store_gives_the_same_objects(root, clouds):
    store = fsspec.filesystem("memory")
    store.put(str(root), "/mvimgnet", recursive=True)
    store.put(str(clouds), "/mvpnet", recursive=True)
    here, there = Mvimgnet("m", str(root), str(clouds)), Mvimgnet("m", "memory://mvimgnet", "memory://mvpnet")
    for one, other in zip(here.records(), there.records(), strict=True):
        assert one.pop("asset_stamp") and other.pop("asset_stamp")
        local = json.dumps(one).replace(str(root), "memory://mvimgnet").replace(str(clouds), "memory://mvpnet")
        assert json.loads(local) == other


def test_the_real_layouts_are_read(assets):
    found = by_id(Mvimgnet("mvimgnet", str(assets / "mvimgnet"), str(assets / "eval" / "mvpnet")))
    assert {id: record["categories"] for id, record in found.items()}["192/0a0ff1c0"] == ["Apple"]
    assert [id for id, record in found.items() if record["cloud"]] == ["53/0f0cca22", "192/0a0ff1c0"]
    splits = {id: record["split"] for id, record in by_id(Mvpnet("mvpnet", str(assets / "eval" / "mvpnet"))).items()}
    assert splits == {"6/000074b1": "train", "36/0000c4a1": "val", "53/0f0cca22": "train", "192/0a0ff1c0": "val"}
