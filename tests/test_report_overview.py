import json
from datetime import UTC, datetime

import pytest
from patchy import caption_row, made_by, put, put_points, view_row

from pipeline.store import Corpus
from reports.overview import flat, overview
from reports.section import Bars, Rows, Tiles
from schemas.tables import CAPTIONS, OBJECTS, RUNS, VIEWS, image_embeddings, text_embeddings
from shout import object_row

TEACHER = {"name": "small:one", "weights_sha256": "ab" * 32, "dim": 2, "image_size": 32, "resize_mode": "shortest"}


@pytest.fixture
def small(tmp_path) -> Corpus:
    """Three objects, two of them with views, points and captions; embedded by one teacher, and by one whose files were imported."""
    corpus = Corpus(str(tmp_path / "corpus"))
    rows = [object_row(n, asset_bytes=1000) for n in range(2)]
    rows += [object_row(2, object_id="attic/2", source="attic", asset_format="obj", asset_bytes=500)]
    put(corpus, OBJECTS, rows, made_by("ingest", reads="", settings={"limits": {"faces": 7}}))
    put(
        corpus,
        VIEWS,
        [view_row(f"test/{n}", view) for n in range(2) for view in range(2)],
        made_by("render", settings={"rig": "a@1"}),
    )
    put_points(corpus, ["test/0", "test/1"], [[], []])
    put(corpus, CAPTIONS, [caption_row("test/0", 0, "cup"), caption_row("test/0", 1, "http", "url")], made_by("caption"))
    stages = {"stage": "embed", "stage_key": "k"}
    rows = [stages | {"object_id": "test/0", "embedding": [[1.0, 0.0]]}]
    put(corpus, image_embeddings("small:one", 2), rows, made_by("embed", settings={"teacher": TEACHER, "dtype": "auto"}))
    put(corpus, image_embeddings("other:two", 2), rows, made_by("import", reads=""))
    return corpus


def exhibits(section, kind):
    return {getattr(exhibit, "title", ""): exhibit for exhibit in section.exhibits if isinstance(exhibit, kind)}


def test_what_there_is_is_counted(small):
    section = overview(small)
    figures = section.figures
    assert {name: figures[name] for name in ("objects", "asset_bytes", "views", "clouds", "kept_captions")} == {
        "objects": 3,
        "asset_bytes": 2500,
        "views": 4,
        "clouds": 2,
        "kept_captions": 1,
    }
    assert figures["sources"] == {"test": {"objects": 2, "formats": {"glb": 2}}, "attic": {"objects": 1, "formats": {"obj": 1}}}
    assert section.gates == {"objects": 3, "kept_captions": 1}
    assert section.lead.startswith(
        "3 objects of test and attic: 4 views, 2 point clouds, 1 caption to train on, embedded by other:two and small:one. "
    )
    assert [(bar.name, bar.count, bar.note) for bar in exhibits(section, Bars)["Objects by source"].bars] == [
        ("test", 2, "glb 2"),
        ("attic", 1, "obj 1"),
    ]
    [tiles] = exhibits(section, Tiles).values()
    assert {tile.label: tile.value for tile in tiles.tiles}["captions to train on"] == "1"


def test_teachers_are_who_their_tables_say(small):
    section = overview(small)
    assert section.figures["teachers"]["small:one"]["weights_sha256"] == "ab" * 32
    assert section.figures["teachers"]["small:one"]["image_embeddings"] == 1
    assert section.figures["teachers"]["small:one"]["text_embeddings"] is None
    assert section.figures["teachers"]["other:two"]["weights_sha256"] is None
    assert exhibits(section, Rows)["Teachers"].rows == (
        ("other:two", "not known: imported", None, None, 1, None, None, None),
        ("small:one", "abababababab", 2, 32, 1, None, None, None),
    )
    assert section.warnings == ()


def test_two_teachers_under_one_name_are_warned_of(small):
    other = made_by("embed-texts", reads="captions", settings={"teacher": TEACHER | {"weights_sha256": "cd" * 32}})
    put(small, text_embeddings("small:one", 2), [], other)
    section = overview(small)
    [warning] = section.warnings
    assert "made with different teachers" in warning
    assert section.figures["teachers"]["small:one"]["weights_sha256"] is None


def test_tables_come_with_their_versions_and_settings(small):
    before = overview(small).figures["tables"]["captions"]
    put(small, CAPTIONS, [caption_row("test/1", 0, "mug")])
    section = overview(small)
    after = section.figures["tables"]["captions"]
    assert (after["rows"], after["version"]) == (3, before["version"] + 1)
    assert after["oldest_kept"] <= before["changed"] <= after["changed"] == section.figures["changed"]
    assert abs(datetime.fromisoformat(after["changed"]) - datetime.now(UTC)).total_seconds() < 60
    assert after["made_by"] == {"caption": made_by("caption")}
    tables = exhibits(section, Rows)
    assert [row[0] for row in tables["Tables"].rows][:4] == ["objects", "views", "points", "captions"]
    settings = tables["Settings that made each table"]
    assert settings.folded
    assert ("views", "render", "settings.rig", "a@1") in settings.rows
    assert ("objects", "ingest", "settings.limits.faces", "7") in settings.rows


def test_an_earlier_version_is_told_as_it_was(small):
    """A reader may open tables as they were."""

    class Earlier(Corpus):
        def open(self, table, version=None):
            return super().open(table, 2 if table == "captions" else version)

    put(small, CAPTIONS, [caption_row("test/1", 0, "mug")])
    figures = overview(Earlier(small.root)).figures
    assert (figures["kept_captions"], figures["tables"]["captions"]["version"]) == (0, 2)


def test_runs_say_what_made_them_and_since_when(small):
    at = datetime(2020, 5, 17, 12, tzinfo=UTC)
    numbers = {"tasks": 1, "wall_seconds": 1.0, "work_seconds": 1.0, "workers": 1, "cpus": 1.0, "gpus": 0.0}
    put(small, RUNS, [{"began": at, "stages": [], "devices": [], "python": "3.11.9", "tricorpus": "0.9"} | numbers])
    section = overview(small)
    assert section.figures["began"] == "2020-05-17T12:00:00+00:00"
    assert section.figures["made_with"] == ["tricorpus 0.9, Python 3.11.9"]
    assert "Run by tricorpus 0.9, Python 3.11.9." in exhibits(section, Rows)["Tables"].note
    assert "2020-05-17" in exhibits(section, Rows)["Tables"].note


def test_settings_become_rows():
    settings = {"a": {"b": {"c": None, "d": [1, 2]}, "e": "text"}, "f": ["x", "y"], "g": {}, "h": 0.5}
    assert list(flat(settings)) == [
        ("a.b.c", "null"),
        ("a.b.d", "[1, 2]"),
        ("a.e", "text"),
        ("f", "x, y"),
        ("g", "{}"),
        ("h", "0.5"),
    ]


@pytest.mark.parametrize("made", [(), (OBJECTS,)])
def test_nothing_is_no_error(tmp_path, small, made):
    corpus = Corpus(str(tmp_path / "none"))
    for table in made:
        corpus.create(table)
    section = overview(corpus)
    assert section.figures.keys() == overview(small).figures.keys()
    assert section.gates == {"objects": 0 if made else None, "kept_captions": None}
    assert "neither views nor points nor captions" in section.lead if made else "no corpus yet" in section.lead
    json.dumps(section.figures, allow_nan=False)
