"""The report's section on room: every byte of a corpus is live or dead, and dead for one of three reasons."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.run import run
from pipeline.stage import Single
from pipeline.store import Corpus
from reports.storage import room_of, size_text, storage
from schemas.check import to_table
from schemas.corpus import Reader
from schemas.tables import OBJECTS
from shout import Shout, object_row


def bytes_below(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def put(corpus: Corpus, *numbers: int) -> None:
    corpus.append(OBJECTS, corpus.write(OBJECTS, to_table(OBJECTS, [object_row(number) for number in numbers])))


@pytest.fixture
def folder(corpus) -> Path:
    return Path(corpus.root, "objects.lance")


def data_file(corpus: Corpus, fragment: int) -> int:
    """Bytes of a fragment's file."""
    [file] = corpus.need("objects").get_fragments()[fragment].data_files()
    return Path(corpus.root, "objects.lance", "data", file.path).stat().st_size


def test_all_bytes_of_all_files_are_counted_and_each_once(corpus, folder):
    put(corpus, 30, 31)
    corpus.delete(OBJECTS, ["test/3"])
    (folder / "data" / "nobodys.lance").write_bytes(b"x" * 1234)
    corpus.need("objects").tags.create("kept", 2)
    room = room_of(corpus.need("objects"))
    assert room.bytes == bytes_below(folder)
    assert room.live + room.deleted + room.old + room.loose == room.bytes
    assert room.loose == 1234


def test_a_deleted_row_is_its_share_of_its_file(corpus):
    put(corpus, 30, 31)
    assert room_of(corpus.need("objects")).deleted == 0
    corpus.delete(OBJECTS, ["test/3", "test/4", "test/30"])
    expected = data_file(corpus, 0) * 2 / 20 + data_file(corpus, 1) / 2
    assert room_of(corpus.need("objects")).deleted == round(expected)


def test_what_only_earlier_versions_need_is_old_until_they_are_cleaned_away(corpus, folder):
    first, rows = corpus.need("objects").version, data_file(corpus, 0)
    corpus.need("objects").delete("true")
    assert room_of(corpus.need("objects")).old > rows  # and the manifest of the version that had them
    then = room_of(corpus.open("objects", version=first))
    assert then.live > rows and then.deleted == 0  # what it needed when it was the newest
    put(corpus, 50)
    assert room_of(corpus.open("objects", version=first)).live == then.live  # later files are none of its
    corpus.need("objects").cleanup_old_versions(older_than=timedelta(0))
    room = room_of(corpus.need("objects"))
    assert (room.dead, room.bytes) == (0, bytes_below(folder))


def test_fragments_that_were_never_committed_belong_to_no_version(corpus, folder):
    [fragment] = corpus.write(OBJECTS, to_table(OBJECTS, [object_row(77)]))
    before = data_file(corpus, 0)
    assert room_of(corpus.need("objects")).loose == bytes_below(folder / "data") - before > 0
    corpus.append(OBJECTS, [fragment])
    assert room_of(corpus.need("objects")).loose == 0


def test_the_section_has_every_table_and_agrees_with_the_disk(corpus):
    run(corpus, Single(Shout()))
    run(corpus, Single(Shout(mark="?", fails=("Thing 2",))))  # all captions anew
    section = storage(Reader.at(corpus.root))
    tables = section.figures["tables"]
    assert sorted(tables) == corpus.tables() == ["captions", "failures", "objects", "runs"]
    assert {name: one["bytes"] for name, one in tables.items()} == {
        name: bytes_below(Path(corpus.root, f"{name}.lance")) for name in tables
    }
    assert section.figures["bytes"] == sum(one["bytes"] for one in tables.values())
    assert (tables["captions"]["rows"], tables["runs"]["rows"]) == (19, 2)
    assert tables["captions"]["versions"] == len(corpus.need("captions").versions()) and tables["captions"]["fragments"] == 5
    assert tables["captions"]["bytes_per_object"] == tables["captions"]["live_bytes"] / 20
    assert section.gates["dead_bytes_share"] == section.figures["dead_bytes"] / section.figures["bytes"] > 0
    assert section.gates["bytes_per_object"] == pytest.approx(sum(one["bytes_per_object"] for one in tables.values()))
    json.dumps(section.figures)
    columns = {(one["table"], one["column"]) for one in section.figures["columns"]}
    assert {("captions", "text"), ("objects", "companions"), ("runs", "stages")} <= columns


def test_columns_weigh_what_is_in_them(tmp_path):
    corpus = Corpus(str(tmp_path / "corpus"))
    corpus.create(OBJECTS)
    rows = [object_row(number, description=(chr(33 + number) * 3 + str(number)) * 1000) for number in range(40)]
    corpus.append(OBJECTS, corpus.write(OBJECTS, to_table(OBJECTS, rows)))
    largest = storage(corpus).figures["columns"][0]
    assert (largest["table"], largest["column"]) == ("objects", "description")


def test_a_folder_without_tables_and_one_without_objects_have_a_section(tmp_path, corpus):
    empty = storage(Reader.at(str(tmp_path / "nothing")))
    assert (
        empty.gates == {"dead_bytes_share": None, "bytes_per_object": None}
        and empty.figures["bytes_per_object"] is None
        and empty.lead == "This corpus has no tables."
    )
    corpus.need("objects").delete("true")
    assert storage(corpus).figures["tables"]["objects"]["bytes_per_row"] is None


def test_much_that_is_dead_is_warned_of(corpus, monkeypatch):
    assert storage(corpus).warnings == ()
    monkeypatch.setattr("reports.storage.NOT_WORTH_IT", 0)
    Path(corpus.root, "objects.lance", "data", "nobodys.lance").write_bytes(b"x" * 100_000)
    dead, loose = storage(corpus).warnings
    assert "are dead" in dead and loose.startswith("100 kB belong to no version")


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (123_456, "123 kB"), (1.5e9, "1.5 GB"), (2e15, "2,000 TB")]
)
def test_sizes_are_told_in_thousands(size, text):
    assert size_text(size) == text


def test_a_uri_is_read_like_a_folder(corpus):
    there = storage(Reader.at(f"file://{corpus.root}"))
    assert there.figures == storage(corpus).figures
