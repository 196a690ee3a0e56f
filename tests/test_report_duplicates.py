"""Duplicates and leaks in the report: who shares files or a shape with whom, on which side of a split, and in which benchmark."""

import io

import numpy as np
import pytest
from patchy import put, view_row
from PIL import Image

from pipeline.store import Corpus
from reports.duplicates import SIDE, Leak, duplicates
from reports.page import page
from reports.section import Histogram, Pictures, Rows
from schemas.corpus import Reader
from schemas.tables import OBJECTS, SPLITS, VIEWS
from shout import object_row

STAGE = {"stage": "s", "stage_key": "k"}
SHA = {letter: letter * 64 for letter in "abcdef"}
# Object, bytes, bytes of its companions: x/1 = y/1 = x/2, and x/4 = x/5; x/6 and x/7 have the same asset with other companions.
FILES = [
    ("x/1", "a", None),
    ("y/1", "a", None),
    ("x/2", "a", None),
    ("x/3", "b", None),
    ("x/4", "c", "f"),
    ("x/5", "c", "f"),
    ("x/6", "d", "e"),
    ("x/7", "d", "f"),
    ("y/8", "d", None),
]
ASKED = {"id": None, "hash": None, "near-duplicate": None}


def made(folder, files=FILES, splits=(), **changes) -> Reader:
    corpus = Corpus(str(folder))
    rows = []
    for number, (id, asset, other) in enumerate(files):
        hashes = {"asset_sha256": SHA[asset], "companions_sha256": other and SHA[other]}
        named = {"object_id": id, "source": id[0], "name": f"Name {id}"}
        rows.append(object_row(number, **hashes, **named, **changes.get(id.replace("/", ""), {})))
    put(corpus, OBJECTS, rows)
    put(corpus, VIEWS, [view_row(id, 0) for id, _, _ in files])
    if splits:
        put(corpus, SPLITS, [STAGE | {"object_id": id, "split": split, "label": label} for split, id, label in splits])
    return Reader.at(str(folder))


def of(section, kind, title=""):
    return [exhibit for exhibit in section.exhibits if isinstance(exhibit, kind) and exhibit.title.startswith(title)]


def test_the_same_files_are_told_by_their_hashes_those_of_companions_included(tmp_path):
    section = duplicates(made(tmp_path))
    exact = section.figures["exact"]
    assert exact["listed"] == [["x/1", "x/2", "y/1"], ["x/4", "x/5"]]
    assert {name: exact[name] for name in ("clusters", "objects", "superfluous", "largest", "across_sources")} == {
        "clusters": 2, "objects": 5, "superfluous": 3, "largest": 3, "across_sources": 1
    }  # fmt: skip
    assert section.gates == {"duplicate_share": 3 / 9, "near_duplicate_share": None, "leaked_share": None}
    assert section.figures["near"] is None and "Shapes were not compared" in section.lead and not section.warnings


def test_the_order_of_the_rows_changes_nothing(tmp_path):
    near = [("x/3", "x/2", 1.0), ("x/6", "y/8", 0.9)]
    one = duplicates(made(tmp_path / "one"), near=near, compared=9)
    other = duplicates(made(tmp_path / "other", FILES[::-1]), near=near[::-1], compared=9)
    assert one.figures == other.figures and one.exhibits == other.exhibits


def test_a_shape_joins_clusters_of_files(tmp_path):
    near = [("x/2", "x/3", 1.05), ("x/3", "x/5", 1.1), ("x/6", "x/7", 0.95), ("x/6", "x/99", 1.0)]  # the last one is gone by now
    section = duplicates(made(tmp_path), near=near, compared=8)
    told = section.figures["near"]
    assert told["listed"] == [["x/1", "x/2", "x/3", "x/4", "x/5", "y/1"], ["x/6", "x/7"]]
    assert (told["compared"], told["pairs"], told["superfluous"]) == (8, 4, 6)
    assert section.gates["near_duplicate_share"] == 6 / 9 and section.gates["duplicate_share"] == 3 / 9
    (distances,) = of(section, Histogram)
    assert sum(distances.series["pairs"]) == 4 and distances.edges[-1] == pytest.approx(1.2)
    assert np.flatnonzero(distances.series["pairs"]).tolist() == [
        np.searchsorted(distances.edges, far, "right") - 1 for far in (0.95, 1.0, 1.05, 1.1)
    ]


def test_clusters_that_the_files_tell_are_not_shown_again_among_the_shapes(tmp_path):
    section = duplicates(made(tmp_path), near=[("x/4", "x/5", 0.0), ("x/6", "x/7", 1.0)], compared=9)
    (shapes,) = of(section, Rows, "Clusters of the same shapes")
    assert [row[2] for row in shapes.rows] == ["x/6, x/7"]
    assert section.figures["near"]["clusters"] == 3


def test_what_is_outside_a_split_and_the_same_as_something_in_it(tmp_path):
    splits = [
        *(("lvis", id, "chair") for id in ("x/1", "x/4", "x/6", "x/77")),
        *(("train", id, None) for id in ("x/4", "x/5", "y/1", "x/2")),
        *(("apart", id, "lamp") for id in ("x/3",)),
    ]
    corpus = made(tmp_path, splits=splits, x7={"split": "theirs"}, y8={"split": "theirs"})
    section = duplicates(corpus, near=[("x/6", "x/7", 1.0)], compared=9)
    told = section.figures["splits"]
    assert list(told) == ["apart", "lvis", "theirs", "train"]
    assert told["lvis"] == {
        "listed": 4, "objects": 3, "twins_outside": 3, "near_twins_outside": 4, "examples": ["y/1", "x/2", "x/5"]
    }  # fmt: skip
    assert (told["train"]["twins_outside"], told["train"]["objects"]) == (1, 4)
    assert (told["theirs"]["twins_outside"], told["theirs"]["near_twins_outside"], told["theirs"]["listed"]) == (0, 1, 2)
    assert told["apart"]["twins_outside"] == told["apart"]["near_twins_outside"] == 0
    assert section.figures["overlaps"] == [{"splits": ["lvis", "train"], "objects": 1}]
    (warning,) = section.warnings  # of splits with labels alone, on which something may be evaluated
    assert warning.startswith("outside the split lvis are 4 objects that it holds as well")
    assert warning.endswith(f"evaluate leaks {corpus.root} --against lvis={corpus.root} --write-split leaked-lvis")


def test_without_shapes_a_split_has_twins_by_files_alone(tmp_path):
    section = duplicates(made(tmp_path, splits=[("lvis", "x/1", "chair")]))
    assert section.figures["splits"]["lvis"]["twins_outside"] == 2
    assert section.figures["splits"]["lvis"]["near_twins_outside"] is None
    assert section.warnings[0].startswith("outside the split lvis are 2 objects that it holds as well")


def test_an_object_of_a_benchmark_leaks_once_whichever_ways_tell_it(tmp_path):
    leak = Leak(
        "modelnet40",
        10,
        by_id=[("m/1", "x/1")],
        by_hash=[("m/1", "x/2"), ("m/2", "x/3")],
        near=[("m/2", "x/4", 1.1), ("m/3", "x/4", 1.0), ("m/3", "x/5", 1.0)],
        asked=ASKED,
    )
    none = Leak("mvpnet", 4, [], [], [], ASKED | {"hash": "its objects have no files"})
    section = duplicates(made(tmp_path), leaks=[leak, none])
    told = section.figures["leaks"]
    assert told["modelnet40"] == {
        "objects": 10, "leaked": 3, "leaked_share": 0.3, "by_id": 1, "by_hash": 1, "near": 1, "not_asked": {}
    }  # fmt: skip
    assert told["mvpnet"]["leaked"] == 0 and told["mvpnet"]["not_asked"] == {"hash": "its objects have no files"}
    assert section.gates["leaked_share"] == 0.3
    (warning,) = section.warnings
    assert warning.startswith("3 of 10 objects of the benchmark modelnet40 are in this corpus")
    assert "3 of 10 objects of modelnet40" in section.lead and "0 of 4 objects of mvpnet" in section.lead
    (benchmarks,) = of(section, Rows, "Benchmarks")
    assert benchmarks.rows == (("modelnet40", 10, 3, 1, 1, 1), ("mvpnet", 4, 0, 0, 0, 0))
    assert "mvpnet, hash: its objects have no files" in benchmarks.note
    (leaked,) = of(section, Pictures, "What leaked")
    assert [picture.note for picture in leaked.pictures] == ["x/1", "x/2", "x/3", "x/4", "x/5"]
    assert "modelnet40" in page([section], title="a corpus", made="by hand")


def test_members_of_a_cluster_stand_side_by_side(tmp_path):
    section = duplicates(made(tmp_path))
    (files,) = of(section, Pictures, "The same files")
    sizes = [Image.open(io.BytesIO(picture.image)).size for picture in files.pictures]
    assert sizes == [(3 * SIDE, SIDE), (2 * SIDE, SIDE)]
    assert files.pictures[0].title == "Name x/1 = Name x/2 = Name y/1"
    assert files.pictures[0].note == "3 objects: x/1, x/2, y/1"


def test_a_corpus_without_objects_or_without_duplicates(tmp_path):
    nothing = duplicates(Reader.at(str(tmp_path / "nothing")))
    assert set(nothing.gates.values()) == {None} and not nothing.exhibits
    alone = duplicates(made(tmp_path / "alone", [("x/1", "a", None), ("x/2", "b", None)]), near=[], compared=2)
    assert alone.figures.keys() == nothing.figures.keys()
    assert alone.gates == {"duplicate_share": 0, "near_duplicate_share": 0, "leaked_share": None}
    assert alone.lead.startswith("No two of the 2 objects have the same files.")
    empty = duplicates(made(tmp_path / "empty", []), near=[], compared=0)
    assert empty.gates["duplicate_share"] is None and empty.figures["objects"] == 0
    assert page([alone], title="a corpus", made="by hand")
