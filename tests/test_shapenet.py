import csv
import json
import os

import fsspec
import pytest

from pipeline.sources.shapenet import ShapeNet

AIRPLANE, CHAIR = "02691156", "03001627"
TAXONOMY = [
    {"synsetId": AIRPLANE, "name": "airplane,aeroplane,plane", "children": ["02690373"], "numInstances": 2},
    {"synsetId": "02690373", "name": "airliner", "children": [], "numInstances": 1},
    {"synsetId": "02738535", "name": "", "children": [], "numInstances": 0},
]


def write(path, text="v 0 0 0\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def home(tmp_path):
    home = tmp_path / "ShapeNetCore.v2"
    for model in ("aa", "bb"):
        write(home / AIRPLANE / model / "models" / "model_normalized.obj")
        write(home / AIRPLANE / model / "models" / "model_normalized.mtl", "newmtl a\nmap_Kd ../images/texture0.jpg\n")
        write(home / AIRPLANE / model / "images" / "texture0.jpg", "jpeg")
    write(home / CHAIR / "aa" / "models" / "model_normalized.obj")
    write(home / "taxonomy.json", json.dumps(TAXONOMY))
    return home


def records(root):
    return list(ShapeNet("shapenet", str(root)).records())


def by_id(root):
    return {record["source_id"]: record for record in records(root)}


def test_a_model_is_known_by_its_synset_and_its_folder(home):
    found = by_id(home)
    assert list(found) == [f"{AIRPLANE}/aa", f"{AIRPLANE}/bb", f"{CHAIR}/aa"]
    record = found[f"{AIRPLANE}/aa"]
    folder = f"{home}/{AIRPLANE}/aa"
    assert record["object_id"] == f"shapenet/{AIRPLANE}/aa"
    assert record["asset_uri"] == f"{folder}/models/model_normalized.obj" and record["asset_format"] == "obj"
    assert record["home"] == folder
    assert record["categories"] == ["airplane", "aeroplane", "plane"]
    assert record["license"] == "LicenseRef-ShapeNet"
    assert (record["name"], record["split"], record["creator"], record["unusable"], record["warnings"]) == (None,) * 4 + ([],)


def test_without_a_taxonomy_or_where_it_is_silent_the_synsets_have_their_words(home):
    assert by_id(home)[f"{CHAIR}/aa"]["categories"] == ["chair"]
    (home / "taxonomy.json").unlink()
    assert by_id(home)[f"{AIRPLANE}/bb"]["categories"] == ["airplane", "aeroplane", "plane"]


def test_a_synset_that_nobody_names_gives_a_warning_and_no_category(home):
    write(home / "99999999" / "cc" / "models" / "model_normalized.obj")
    record = by_id(home)["99999999/cc"]
    assert (record["categories"], record["warnings"]) == ([], ["unknown_category"])


def test_the_list_of_splits_gives_the_split_and_the_finer_category(home):
    lines = ["id,synsetId,subSynsetId,modelId,split", "1,2691156,2690373,aa,train", f"2,{AIRPLANE},{AIRPLANE},bb,val"]
    write(home / "all.csv", "\n".join(lines))
    found = by_id(home)
    assert [record["split"] for record in found.values()] == ["train", "val", None]
    assert found[f"{AIRPLANE}/aa"]["categories"] == ["airplane", "airliner", "aeroplane", "plane"]
    assert found[f"{AIRPLANE}/bb"]["categories"] == ["airplane", "aeroplane", "plane"]


def test_version_1_has_other_names_and_a_table_for_each_synset(tmp_path):
    home = tmp_path / "ShapeNetCore.v1"
    write(home / CHAIR / "aa" / "model.obj")
    write(home / CHAIR / "bb" / "models" / "model.obj")
    write(
        home / f"{CHAIR}.csv",
        "fullId,wnsynset,wnlemmas,up,front,name,tags\n"
        '3dw.aa,n04373704,"swivel chair","0\\,0\\,1","0\\,-1\\,0","Herman Miller Aeron","office,""chair"",black"\n',
    )
    one, other = records(home)
    assert one["asset_uri"] == f"{home}/{CHAIR}/aa/model.obj"
    assert (one["name"], one["categories"], one["tags"]) == (
        "Herman Miller Aeron",
        ["chair", "swivel chair"],
        ["office", "chair", "black"],
    )
    assert other["asset_uri"] == f"{home}/{CHAIR}/bb/models/model.obj" and other["name"] is None


def test_a_folder_with_the_obj_of_both_versions_counts_as_version_2(home):
    write(home / AIRPLANE / "aa" / "model.obj")
    assert by_id(home)[f"{AIRPLANE}/aa"]["asset_uri"].endswith("/models/model_normalized.obj")


def test_a_folder_without_a_mesh_is_a_failure_that_names_it(home):
    write(home / AIRPLANE / "empty" / "images" / "texture0.jpg")
    reason, message = by_id(home)[f"{AIRPLANE}/empty"]["unusable"]
    assert reason == "asset_missing" and f"{home}/{AIRPLANE}/empty has neither models/model_normalized.obj" in message


@pytest.mark.parametrize("part", ["models/model_normalized.obj", "models/model_normalized.mtl", "images/texture0.jpg"])
def test_the_stamp_changes_with_each_part_of_the_object_and_no_other(home, part):
    before = by_id(home)
    os.utime(home / AIRPLANE / "aa" / part, (1, 1))
    after = by_id(home)
    changed = [id for id in before if before[id]["asset_stamp"] != after[id]["asset_stamp"]]
    assert changed == [f"{AIRPLANE}/aa"]


def test_what_is_no_part_of_the_asset_does_not_change_its_stamp(home):
    before = records(home)
    write(home / AIRPLANE / "aa" / "models" / "model_normalized.solid.binvox", "voxels")
    write(home / AIRPLANE / "aa" / "screenshots" / "aa-0.png", "png")
    assert records(home) == before


def test_the_folder_above_will_do_unless_it_holds_several(home):
    assert records(home.parent) == records(home)
    write(home.parent / "ShapeNetCore.v1" / CHAIR / "aa" / "model.obj")
    with pytest.raises(ValueError, match=r"holds the collection more than once: give one of .*v1, .*v2$"):
        records(home.parent)


def test_a_place_of_another_layout_is_refused(tmp_path):
    write(tmp_path / "parts" / CHAIR / "aa.txt", "0 0 0 1 0 0 12")  # ShapeNetPart
    write(tmp_path / "zips" / f"{CHAIR}.zip")
    for folder in ("parts", "zips"):
        with pytest.raises(ValueError, match="holds no ShapeNetCore: give the folder in which each synset has its folder"):
            ShapeNet("shapenet", str(tmp_path / folder))


@pytest.mark.parametrize("text", ["[{", "{}", "\x00"])
def test_a_broken_taxonomy_stops_the_run_with_a_sentence(home, text):
    write(home / "taxonomy.json", text)
    with pytest.raises(ValueError, match="taxonomy.json .*: download it again"):
        records(home)


def test_an_object_store_gives_the_same_objects(home):
    fsspec.filesystem("memory").put(str(home), "/shapenet", recursive=True)
    here, there = records(home), records("memory://shapenet")
    assert all(record.pop("asset_stamp") for record in here + there)
    for record in here:
        for column in ("asset_uri", "home"):
            record[column] = record[column].replace(str(home), "memory://shapenet")
    assert here == there


def test_the_real_part_of_shapenet_is_read_as_planted(assets):
    found = by_id(assets / "shapenet")
    with open(assets / "planted.csv") as file:
        planted = {row["id"] for row in csv.DictReader(file) if row["source"] == "shapenet"}
    assert len(found) == 21 and planted <= found.keys()
    assert all(record["asset_stamp"] and record["unusable"] is None for record in found.values())
    warned = {id: record["warnings"] for id, record in found.items() if record["warnings"]}
    assert warned == {"04398044/d5fc4f18db38b1fe914ac4cdc3388ccd": ["unknown_category"]}
    assert found["03991062/46cd6c7c7dd7a62d81b53afde544ff0e"]["categories"] == ["pot", "flowerpot"]


def test_every_model_faces_minus_z(home):
    assert {record["front"] for record in by_id(home).values()} == {"-z"}
