import csv
import gzip
import json
import os

import fsspec
import pytest

from pipeline.sources.abo import Abo

ADDRESS = "https://amazon-berkeley-objects.s3.amazonaws.com"


def said(*texts):
    return [{"language_tag": tag, "value": value} for tag, value in texts]


def listing(id, model=None, **changes):
    about = {
        "item_id": id,
        "3dmodel_id": model or id,
        "item_name": said(("zh_CN", "现代地毯"), ("en_GB", "Rug of wool"), ("en_US", "Wool Rug")),
        "bullet_point": said(("de_DE", "Pflegeleicht"), ("en_US", "Made of wool")),
        "color": said(("de_DE", "Gelb"), ("en_US", "Yellow")),
        "style": said(("en_IN", "Modern")),
        "product_type": [{"value": "RUG"}],
        "node": [{"node_id": 1, "node_name": "/カテゴリー別/ラグ"}],
        "main_image_id": f"image-{id}",
    } | changes
    return {key: value for key, value in about.items() if value is not None}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def list_products(home, *listings, file="0"):
    lines = (item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for item in listings)
    write(home / "listings" / "metadata" / f"listings_{file}.json.gz", "\n".join(lines))


@pytest.fixture
def home(tmp_path):
    home = tmp_path / "abo"
    for id in ("B1", "B2", "C1"):
        write(home / "3dmodels" / "original" / id[-1] / f"{id}.glb", id)
    models = [f"{id},{id[-1]}/{id}.glb,1" for id in ("B2", "B1", "C1", "C9")]
    write(home / "3dmodels" / "metadata" / "3dmodels.csv.gz", "\n".join(["3dmodel_id,path,meshes", *models]))
    list_products(home, listing("B1"), listing("XX", "", **{"3dmodel_id": None}), listing("B2"))
    return home


def records(root):
    return list(Abo("abo", str(root)).records())


def by_id(root):
    return {record["source_id"]: record for record in records(root)}


def test_a_record_says_in_english_all_that_the_product_says(home):
    write(home / "LICENSE-CC-BY-4.0.txt", "Creative Commons Attribution 4.0 International")
    record = by_id(home)["B1"]
    assert record["asset_uri"] == f"{home}/3dmodels/original/1/B1.glb"
    assert record["name"] == "Wool Rug"
    assert record["description"] == "Rug of wool\nMade of wool"
    assert (record["categories"], record["tags"]) == (["RUG"], ["Yellow", "Modern"])
    assert (record["license"], record["creator"], record["warnings"]) == ("CC-BY-4.0", "Amazon.com", [])


def test_what_is_on_disk_comes_folder_by_folder_and_what_is_listed_but_absent_last(home):
    list_products(home, listing("B1"), listing("D4"), file="f")
    found = records(home)
    assert [record["source_id"] for record in found] == ["B1", "C1", "B2", "C9", "D4"]
    assert [record["asset_stamp"] is None for record in found] == [False, False, False, True, True]
    assert found[-1]["asset_uri"] == f"{home}/3dmodels/original/4/D4.glb"


def test_a_model_without_a_product_has_nulls_and_a_warning(home):
    record = by_id(home)["C1"]
    assert (record["name"], record["description"], record["categories"], record["tags"]) == (None, None, [], [])
    assert (record["license"], record["creator"], record["warnings"]) == ("unknown", "Amazon.com", ["metadata_missing"])


def test_a_product_without_an_english_name_has_none_and_a_warning(home):
    list_products(home, listing("B1", item_name=said(("es_MX", "Alfombra"), ("ja_JP", "敷物")), color=said(("fr_FR", "Jaune"))))
    record = by_id(home)["B1"]
    assert (record["name"], record["tags"], record["warnings"]) == (None, ["Modern"], ["no_english_text"])


def test_products_that_share_a_model_are_one_object_with_all_their_names(home):
    grey = {"item_name": said(("en_US", "Wool Rug, Grey")), "color": said(("en_US", "Grey")), "material": said(("en_US", "Wool"))}
    list_products(home, listing("AA", "B1", **grey), file="0")
    list_products(home, listing("B1"), listing("B1"), file="a")
    record = by_id(home)["B1"]
    assert record["name"] == "Wool Rug"  # the product's whose id is the model's
    assert record["description"] == "Rug of wool\nWool Rug, Grey\nMade of wool"
    assert record["tags"] == ["Yellow", "Wool", "Modern"]


def test_lines_that_cannot_be_read_cost_no_other_and_are_told(home):
    cut = json.dumps(listing("C1"))[:80]
    list_products(home, "\ufeff" + json.dumps(listing("B1")), "", cut, file="0")
    list_products(home, listing("B2"), file="1")
    found = by_id(home)
    assert found["B1"]["name"] == found["B2"]["name"] == "Wool Rug"
    assert found["B1"]["warnings"] == ["bad_metadata_lines"] and found["B2"]["warnings"] == []
    assert found["C1"]["warnings"] == ["bad_metadata_lines", "metadata_missing"]


@pytest.mark.parametrize("wrong", ['"3dmodel_id"', '{"3dmodel_id": 7}', '{"3dmodel_id": "../../etc/passwd"}', '["3dmodel_id"]'])
def test_a_line_of_another_form_is_no_product(home, wrong):
    list_products(home, wrong, listing("B1"))
    assert list(by_id(home)) == ["B1", "C1", "B2", "C9"]


def test_a_class_that_people_chose_goes_before_the_product_type(home):
    write(home / "abo_classes_3d.txt", "B1,picture frame or painting\nB2,rug\n")
    found = by_id(home)
    assert (found["B1"]["categories"], found["B2"]["categories"]) == (["picture frame or painting", "RUG"], ["rug"])


@pytest.mark.parametrize(
    "files, license",
    [
        ({"LICENSE-CC-BY-NC-4.0.txt": "Creative Commons Attribution-NonCommercial 4.0 International"}, "CC-BY-NC-4.0"),
        ({"LICENSE.txt": "# Creative Commons Attribution 4.0 International Public License"}, "CC-BY-4.0"),
        ({"LICENSE-CC-BY-4.0.txt": "", "LICENSE-CC-BY-NC-4.0.txt": ""}, "CC-BY-NC-4.0"),
        ({"LICENSE.txt": "All rights reserved"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_the_licence_is_the_one_that_came_with_the_archive(home, files, license):
    for name, text in files.items():
        write(home / name, text)
    assert {record["license"] for record in records(home)} == {license}


def test_a_picture_is_taken_where_it_lies_or_else_at_its_address(home):
    assert by_id(home)["B1"]["thumbnail_uri"] is None
    lines = ["image_id,height,width,path", "image-B1,9,9,44/b1.jpg", "image-B2,9,9,55/b2.jpg", "image-Z,9,9,44/z.jpg"]
    write(home / "images" / "metadata" / "images.csv.gz", "\n".join(lines))
    write(home / "images" / "original" / "44" / "b1.jpg", "jpeg")
    found = by_id(home)
    assert found["B1"]["thumbnail_uri"] == f"{home}/images/original/44/b1.jpg"
    assert found["B2"]["thumbnail_uri"] == f"{ADDRESS}/images/small/55/b2.jpg"
    write(home / "images" / "small" / "44" / "b1.jpg", "jpeg")
    assert by_id(home)["B1"]["thumbnail_uri"] == f"{home}/images/small/44/b1.jpg"


def test_of_a_part_that_was_asked_for_the_rest_is_not_missed(home):
    (home / "asked-for.txt").write_text("B1\nC8\n")
    assert list(by_id(home)) == ["B1", "C1", "B2"]


def test_the_stamp_changes_with_the_file(home):
    before = by_id(home)
    os.utime(home / "3dmodels" / "original" / "1" / "B1.glb", (1, 1))
    after = by_id(home)
    assert [id for id in before if before[id]["asset_stamp"] != after[id]["asset_stamp"]] == ["B1"]


def test_the_folder_above_will_do_and_the_folder_below_will_not(home):
    assert records(home.parent) == records(home)
    with pytest.raises(ValueError, match="has no folder 3dmodels, .*: give the folder with 3dmodels/ and listings/"):
        Abo("abo", str(home / "3dmodels"))


@pytest.mark.parametrize("path", ["listings/metadata/listings_0.json.gz", "3dmodels/metadata/3dmodels.csv.gz"])
def test_an_index_that_was_cut_off_stops_the_run_with_a_sentence(home, path):
    (home / path).write_bytes((home / path).read_bytes()[:-20])
    with pytest.raises(ValueError, match=f"{path} cannot be read .*: download it again"):
        records(home)


def test_an_index_of_another_form_stops_the_run_with_a_sentence(home):
    write(home / "3dmodels" / "metadata" / "3dmodels.csv.gz", "<html>")
    with pytest.raises(ValueError, match="has no column 3dmodel_id, path: download it again"):
        records(home)


def test_an_object_store_gives_the_same_objects(home):
    write(home / "images" / "metadata" / "images.csv.gz", "image_id,path\nimage-B1,44/b1.jpg")
    write(home / "images" / "small" / "44" / "b1.jpg", "jpeg")
    write(home / "LICENSE-CC-BY-4.0.txt", "")
    fsspec.filesystem("memory").put(str(home), "/abo", recursive=True)
    here, there = records(home), records("memory://abo")
    assert [bool(record.pop("asset_stamp")) for record in here] == [bool(record.pop("asset_stamp")) for record in there]
    for record in here:
        for column in ("asset_uri", "thumbnail_uri"):
            record[column] = record[column] and record[column].replace(str(home), "memory://abo")
    assert here == there


def test_the_real_part_of_abo_is_read_as_planted(assets):
    found = by_id(assets / "abo")
    with open(assets / "planted.csv") as file:
        planted = {row["id"] for row in csv.DictReader(file) if row["source"] == "abo"}
    assert planted - found.keys() == {"B0Z9XGSJMT", "B0ZXMC84HR"}  # a second product of a model, and one without
    assert len(found) == 24
    assert [id for id, record in found.items() if record["asset_stamp"] is None] == ["B0Z8G443ZX"]
    warned = {id: record["warnings"] for id, record in found.items() if record["warnings"]}
    missing = ["metadata_missing"]
    assert warned == {"B0ZJ2FMQ8J": ["no_english_text"], "B0ZJLJVIE9": missing, "B0Z8G443ZX": missing}
    assert found["B0ZJ2FMQ8J"]["name"] is None
    assert found["B0ZGTAAV4U"]["name"] == "Standing Picture Frame, Oak-Effect Colour"
    assert found["B0Z0UWE7L9"]["name"] == "Over-Ear Headphones 🎧"
    assert found["B0ZAAZI5SE"]["description"].splitlines()[0].endswith("Yellow, Slate Grey")
    texts = [text for record in found.values() for text in (record["name"] or "", record["description"] or "", *record["tags"])]
    assert all(ord(letter) < 0x250 or letter in "–🎧" for text in texts for letter in text)
    assert all(os.path.isfile(record["thumbnail_uri"]) for record in found.values() if record["thumbnail_uri"])


def test_a_real_file_with_bad_lines_is_read_as_the_manifest_says(assets, home):
    bad = assets / "malformed" / "108_datasets_abo_bad_line" / "listings" / "metadata" / "listings_0.json.gz"
    (home / "listings" / "metadata" / "listings_0.json.gz").write_bytes(bad.read_bytes())
    found = [record for record in records(home) if record["source_id"].startswith("B0Z")]
    assert len(found) == 10 and all(record["warnings"] == ["bad_metadata_lines"] for record in found)
