import csv
import json
import os
import shutil

import fsspec
import pytest

from pipeline.sources.future3d import Future3D
from pipeline.sources.source import source_from

SOFA, LAMP, BARE, ABSENT = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abcd")
BROKEN = "7e101ef3-7722-4af8-90d5-7c562834fabd"
FILES = ("raw_model.obj", "normalized_model.obj", "model.mtl", "texture.png", "image.jpg")


def entry(id, **changes):
    about = {"super-category": "Sofa", "category": "Loveseat Sofa", "style": "Modern", "theme": "Smooth Net", "material": "Suede"}
    return {"model_id": id} | about | changes


def list_models(home, *entries):
    (home / "model_info.json").write_text(json.dumps(entries))


@pytest.fixture
def home(tmp_path):
    home = tmp_path / "3D-FUTURE-model"
    for id in (SOFA, LAMP, BARE):
        (home / id).mkdir(parents=True)
        for name in FILES:
            (home / id / name).write_bytes(b"\xff\xd8" + name.encode())
    (home / BARE / "texture.png").unlink()
    list_models(home, entry(SOFA), entry(ABSENT), entry(LAMP, category=None, theme=None, material=None, style=None))
    return home


def records(root, **options):
    return list(Future3D("3d-future", str(root), **options).records())


def by_id(root, **options):
    return {record["source_id"]: record for record in records(root, **options)}


def test_a_record_says_all_that_the_list_says(home):
    record = by_id(home)[SOFA]
    assert record["asset_uri"] == f"{home}/{SOFA}/raw_model.obj" and record["asset_format"] == "obj"
    assert record["texture"] == f"{home}/{SOFA}/texture.png"
    assert record["thumbnail_uri"] == f"{home}/{SOFA}/image.jpg"
    assert record["categories"] == ["loveseat sofa", "sofa"]
    assert record["tags"] == ["Modern", "Smooth Net", "Suede"]
    assert (record["license"], record["front"]) == ("LicenseRef-3D-FUTURE", "+z")
    assert (record["name"], record["description"], record["unusable"], record["warnings"]) == (None, None, None, [])


def test_what_is_on_disk_comes_first_and_what_is_listed_but_absent_last(home):
    found = records(home)
    assert [record["source_id"] for record in found] == [SOFA, LAMP, BARE, ABSENT]
    assert [record["asset_stamp"] is None for record in found] == [False, False, False, True]


def test_what_the_list_does_not_say_is_absent(home):
    found = by_id(home)
    assert (found[LAMP]["categories"], found[LAMP]["tags"], found[LAMP]["warnings"]) == (["sofa"], [], [])
    assert (found[BARE]["categories"], found[BARE]["warnings"]) == ([], ["metadata_missing", "missing_texture"])
    assert found[BARE]["texture"] is None and found[ABSENT]["warnings"] == []


@pytest.mark.parametrize(
    "category, written",
    [
        ("Single bed", "single bed"),
        ("L-shaped Sofa", "L-shaped sofa"),
        ("TV Stand", "TV stand"),
        ("Footstool / Sofastool / Bed End Stool / Stool", "footstool / sofastool / bed end stool / stool"),
    ],
)
def test_one_category_has_one_spelling(home, category, written):
    list_models(home, entry(SOFA, category=category))
    assert by_id(home)[SOFA]["categories"][0] == written


def test_of_entries_that_disagree_the_first_counts_with_a_warning(home):
    list_models(home, entry(SOFA), entry(LAMP), entry(SOFA, category="Wardrobe"), entry(LAMP))
    found = by_id(home)
    assert (found[SOFA]["categories"][0], found[SOFA]["warnings"]) == ("loveseat sofa", ["metadata_conflict"])
    assert found[LAMP]["warnings"] == []


def test_either_obj_may_be_the_asset(home):
    raw, normalized = by_id(home)[SOFA], by_id(home, model="normalized")[SOFA]
    assert normalized["asset_uri"] == f"{home}/{SOFA}/normalized_model.obj"
    assert normalized["asset_stamp"] != raw["asset_stamp"]
    source = source_from(f"future3d={home}", {"3d-future": {"model": "normalized"}})
    assert (source.name, source.model) == ("3d-future", "normalized")
    with pytest.raises(ValueError, match="the option model of 3d-future is 'best': must be one of raw, normalized"):
        Future3D("3d-future", str(home), model="best")


@pytest.mark.parametrize(
    "part, counts", [("raw_model.obj", True), ("model.mtl", True), ("texture.png", True), ("image.jpg", False)]
)
def test_the_stamp_changes_with_each_part_of_the_asset(home, part, counts):
    before = by_id(home)
    os.utime(home / SOFA / part, (1, 1))
    after = by_id(home)
    assert [id for id in before if before[id]["asset_stamp"] != after[id]["asset_stamp"]] == [SOFA] * counts


def test_the_model_that_is_known_to_be_broken_is_not_opened(home):
    shutil.copytree(home / SOFA, home / BROKEN)
    reason, message = by_id(home)[BROKEN]["unusable"]
    assert reason == "known_broken" and BROKEN in message


def test_a_picture_that_is_no_jpeg_is_told(home):
    (home / SOFA / "image.jpg").write_bytes(b"\x89PNG")
    assert {id: record["warnings"] for id, record in by_id(home).items()}[SOFA] == ["wrong_extension"]


def test_the_folder_above_will_do(home):
    assert records(home.parent) == records(home)


def test_without_a_list_the_folders_count(home):
    (home / "model_info.json").unlink()
    assert {id: "metadata_missing" in record["warnings"] for id, record in by_id(home).items()} == dict.fromkeys(
        [SOFA, LAMP, BARE], True
    )


def test_a_place_of_another_layout_is_refused(tmp_path):
    (tmp_path / "other" / "models").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds neither model_info.json nor folders of models"):
        Future3D("3d-future", str(tmp_path / "other"))


def test_a_broken_list_stops_the_run_with_a_sentence(home):
    (home / "model_info.json").write_text('[{"model_id": ')
    with pytest.raises(ValueError, match="model_info.json cannot be read .*: download it again"):
        records(home)


def test_an_object_store_gives_the_same_objects(home):
    fsspec.filesystem("memory").put(str(home), "/future", recursive=True)
    here, there = records(home), records("memory://future")
    assert [bool(record.pop("asset_stamp")) for record in here] == [bool(record.pop("asset_stamp")) for record in there]
    for record in here:
        for column in ("asset_uri", "texture", "thumbnail_uri"):
            record[column] = record[column] and record[column].replace(str(home), "memory://future")
    assert here == there


def test_the_real_part_of_3d_future_is_read_as_planted(assets):
    found = by_id(assets / "3d-future")
    with open(assets / "planted.csv") as file:
        planted = {row["id"] for row in csv.DictReader(file) if row["source"] == "3d-future"}
    assert len(found) == 15 and planted <= found.keys()
    short = {id[:8]: record for id, record in found.items()}
    assert [id for id, record in short.items() if record["asset_stamp"] is None] == ["1f1f1f1f"]
    warned = {id: record["warnings"] for id, record in short.items() if record["warnings"]}
    assert warned == {
        "4f7fe1c0": ["missing_texture"],
        "5e1df3d5": ["wrong_extension"],
        "83d63574": ["metadata_missing"],
    }
    assert short["1bbdf563"]["texture"].endswith("/texture.png")
    assert (short["2982fa3c"]["categories"], short["2982fa3c"]["tags"]) == (["others"], [])
    assert short["ae59398b"]["tags"] == ["Industrial"]
    assert short["c5da208f"]["categories"] == ["round end table", "table"]


def test_a_real_list_with_an_entry_twice_is_read_as_the_manifest_says(assets):
    found = by_id(assets / "malformed" / "109_datasets_3dfuture_dup_ids")
    assert {id[:8] for id, record in found.items() if record["warnings"]} == {"b510d870"}
    assert found["b510d870-9509-5027-a22b-a43e5300f319"]["categories"] == ["king-size bed", "bed"]
    assert found["b8e8e911-f31c-5176-a37f-72fac60a1976"]["categories"] == ["others"]
