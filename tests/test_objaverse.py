import csv
import gzip
import json
import shutil
from itertools import islice

import fsspec
import pytest

from pipeline.sources.objaverse import Objaverse

# Two shards of three objects; c is listed and not on disk, f has no annotation.
UIDS = {letter: letter * 32 for letter in "abcdef"}
SHARDS = {"a": "000-000", "b": "000-000", "c": "000-000", "d": "000-001", "e": "000-001", "f": "000-001"}


def annotation(letter, **changes):
    return {
        "uid": UIDS[letter],
        "name": f"Thing {letter}",
        "tags": [{"name": "thing", "slug": "thing"}, {"name": letter, "slug": letter}],
        "categories": [{"name": "food-drink"}],
        "thumbnails": {"images": [{"url": "https://m/small", "width": 64}, {"url": "https://m/large", "width": 1920}]},
        "user": {"username": "ann", "displayName": "Ann A."},
        "description": "<p>A thing.</p>",
        "isAgeRestricted": False,
        "license": "by",
    } | changes


def write_gzip(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(value).encode()))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "objaverse"
    for letter in "abdef":
        path = root / "glbs" / SHARDS[letter] / f"{UIDS[letter]}.glb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(letter.encode())
    write_gzip(root / "object-paths.json.gz", {UIDS[letter]: f"glbs/{SHARDS[letter]}/{UIDS[letter]}.glb" for letter in "fedcba"})
    write_gzip(root / "lvis-annotations.json.gz", {"pop_(soda)": [UIDS["a"], UIDS["c"]], "Ferris_wheel": [UIDS["a"]]})
    for shard in ("000-000", "000-001"):
        write_gzip(root / "metadata" / f"{shard}.json.gz", {UIDS[x]: annotation(x) for x in "abcde" if SHARDS[x] == shard})
    return root


def change(folder, letter, **changes):
    path = folder / "metadata" / f"{SHARDS[letter]}.json.gz"
    shard = json.loads(gzip.decompress(path.read_bytes()))
    shard[UIDS[letter]] |= changes
    write_gzip(path, shard)


def records(folder):
    return list(Objaverse("objaverse", str(folder)).records())


def by_letter(folder):
    return {record["source_id"][0]: record for record in records(folder)}


def test_a_record_says_all_that_the_collection_says(folder):
    record = by_letter(folder)["a"]
    about = (folder / "glbs" / "000-000" / f"{UIDS['a']}.glb").stat()
    assert record == {
        "object_id": f"objaverse/{UIDS['a']}",
        "source": "objaverse",
        "source_id": UIDS["a"],
        "asset_uri": f"{folder}/glbs/000-000/{UIDS['a']}.glb",
        "asset_format": "glb",
        "name": "Thing a",
        "categories": ["pop_(soda)", "Ferris_wheel", "food-drink"],
        "tags": ["thing", "a"],
        "description": "<p>A thing.</p>",
        "license": "CC-BY-4.0",
        "creator": "Ann A.",
        "split": None,
        "thumbnail_uri": "https://m/large",
        "asset_stamp": f"1-{about.st_mtime_ns}",
        "unusable": None,
        "front": None,
        "home": None,
        "texture": None,
        "cloud": None,
        "warnings": [],
        "sha256": None,
    }


def test_what_is_on_disk_comes_shard_by_shard_and_what_is_listed_but_absent_last(folder):
    assert [record["source_id"][0] for record in records(folder)] == list("bafedc")
    absent = records(folder)[-1]
    assert absent["asset_stamp"] is None and absent["name"] is None and absent["categories"] == ["pop_(soda)"]


def test_the_first_few_are_the_same_for_any_number(folder):
    source = Objaverse("objaverse", str(folder))
    everything = list(source.records())
    assert [list(islice(source.records(), number)) for number in range(7)] == [everything[:number] for number in range(7)]


def test_only_the_shards_that_are_asked_for_are_read(folder):
    source = Objaverse("objaverse", str(folder))
    first = source.records()
    begun = [next(first) for _ in range(2)]
    change(folder, "d", name="Changed while reading")
    assert [record["name"] for record in begun] == ["Thing b", "Thing a"]
    assert {record["name"] for record in first} >= {"Changed while reading"}


def test_an_object_without_annotation_has_nulls_and_an_unknown_license(folder):
    record = by_letter(folder)["f"]
    assert [record[name] for name in ("name", "description", "creator", "thumbnail_uri", "unusable")] == [None] * 5
    assert (record["license"], record["categories"], record["tags"]) == ("unknown", [], [])
    assert record["warnings"] == ["metadata_missing"]
    shutil.rmtree(folder / "metadata")
    assert all(record["name"] is None and record["unusable"] is None for record in records(folder))


@pytest.mark.parametrize(
    "broken", [lambda data: data[: len(data) // 2], lambda data: b"<html>", lambda data: gzip.compress(b"[1]")]
)
def test_a_broken_metadata_file_costs_its_own_objects_and_names_itself(folder, broken):
    path = folder / "metadata" / "000-001.json.gz"
    path.write_bytes(broken(path.read_bytes()))
    found = by_letter(folder)
    for letter in "def":
        reason, message = found[letter]["unusable"]
        assert reason == "metadata_unreadable" and str(path) in message
    assert found["a"]["unusable"] is None is found["c"]["unusable"]


def test_without_a_list_of_paths_what_lies_in_glbs_counts(folder):
    with_list = by_letter(folder)
    (folder / "object-paths.json.gz").unlink()
    without = by_letter(folder)
    assert without == {letter: record for letter, record in with_list.items() if letter != "c"}


def test_an_object_of_which_nothing_is_said_is_warned_of(folder):
    change(folder, "b", name="", description=None, tags=[], categories=[])
    assert {letter: record["warnings"] for letter, record in by_letter(folder).items() if letter in "ab"} == {
        "a": [],
        "b": ["no_text"],
    }


def test_of_a_part_only_what_was_asked_for_can_be_missing(folder):
    (folder / "asked-for.txt").write_text(f"{UIDS['a']}\n")
    assert set(by_letter(folder)) == set("abdef")
    (folder / "asked-for.txt").write_text(f"{UIDS['c']}\n")
    assert by_letter(folder)["c"]["asset_stamp"] is None


def test_age_restricted_objects_are_marked(folder):
    change(folder, "a", isAgeRestricted=True)
    assert [letter for letter, record in by_letter(folder).items() if record["unusable"]] == ["a"]
    assert by_letter(folder)["a"]["unusable"][0] == "age_restricted"


@pytest.mark.parametrize(
    "license, expected",
    [("by-nc-sa", "CC-BY-NC-SA-4.0"), ("cc0", "CC0-1.0"), ("by-nd", "CC-BY-ND-4.0"), ("st", "unknown"), (None, "unknown")],
)
def test_a_license_becomes_an_spdx_id_or_unknown(folder, license, expected):
    change(folder, "a", license=license)
    assert by_letter(folder)["a"]["license"] == expected


def test_a_downloaded_thumbnail_goes_before_an_address(folder):
    picture = folder / "thumbnails" / "000-000" / f"{UIDS['a']}.jpeg"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"jpeg")
    assert by_letter(folder)["a"]["thumbnail_uri"] == str(picture)
    assert by_letter(folder)["b"]["thumbnail_uri"] == "https://m/large"


def test_blank_texts_are_null_and_halves_of_emoji_are_replaced(folder):
    change(folder, "a", name=" ", description="", user=None, tags=[{"name": "cut \ud83d"}, {"name": None}])
    record = by_letter(folder)["a"]
    assert (record["name"], record["description"], record["creator"], record["tags"]) == (None, None, None, ["cut ?"])


@pytest.mark.parametrize("name", ["object-paths.json.gz", "lvis-annotations.json.gz"])
def test_a_broken_index_stops_the_run_with_a_sentence(folder, name):
    (folder / name).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=f"{name} cannot be read .*: download it again"):
        records(folder)


def test_an_object_store_gives_the_same_objects(folder):
    fsspec.filesystem("memory").put(str(folder), "/store", recursive=True)
    here, there = records(folder), records("memory://store")
    assert [record["asset_stamp"] is None for record in here] == [record["asset_stamp"] is None for record in there]
    for record in (*here, *there):
        record["asset_uri"] = record["asset_uri"].replace(str(folder), "memory://store")
        del record["asset_stamp"]
    assert here == there


def test_the_real_part_of_objaverse_is_read_as_planted(assets):
    found = {record["source_id"]: record for record in records(assets / "objaverse")}
    assert len(found) == 223
    planted = {}
    with open(assets / "planted.csv") as file:
        for row in csv.DictReader(file):
            planted.setdefault(row["expected"].split(":")[-1].strip() if row["source"] == "objaverse" else None, []).append(
                row["id"]
            )
    assert {uid for uid, record in found.items() if record["asset_stamp"] is None} == set(planted["not_downloaded"])
    assert [uid for uid, record in found.items() if record["unusable"]] == ["1569c256fba5413080c36dfdedbc15b8"]
    assert found["79835ea3522d3f99a86de822097693ca"]["name"] is None
    warned = {uid: record["warnings"] for uid, record in found.items() if record["warnings"]}
    assert warned == {"79835ea3522d3f99a86de822097693ca": ["no_text"], "f869ce1c8414a264bb11e14a2c8850ed": ["metadata_missing"]}
    assert found["f869ce1c8414a264bb11e14a2c8850ed"]["license"] == "unknown"
    assert found["fb6b49973e6d3a9cf0f2e6e4e8ce5209"]["license"] == "CC-BY-NC-4.0"
    assert found["50e5290c652bd2d65c0580403d285ed8"]["name"] == "りんご 🍏 «Pomme» Яблоко"
