import numpy as np
import pytest
from patchy import made_by, put

from pipeline.store import Corpus
from reports.categories import categories, tail
from reports.section import Bars, Histogram, Rows
from schemas.tables import OBJECTS, SPLITS
from shout import object_row


def split_row(object_id: str, split: str, label: str | None) -> dict:
    return {"object_id": object_id, "stage": f"split/{split}", "stage_key": "k", "split": split, "label": label}


@pytest.fixture
def named(tmp_path) -> Corpus:
    """Two sources; cups and chairs, a bed that is a chair too, and two objects without a category; two lists."""
    corpus = Corpus(str(tmp_path / "corpus"))
    names = [["cup"]] * 5 + [["chair"]] * 2 + [["chair", "bed"], [], []]
    rows = [object_row(n, categories=own, split="val" if n > 7 else None) for n, own in enumerate(names)]
    rows += [object_row(20, object_id="attic/20", source="attic", categories=["lamp"])]
    put(corpus, OBJECTS, rows, made_by("ingest", reads=""))
    listed = [split_row(f"test/{n}", "o'lvis", "cup" if n < 4 else "mug") for n in range(6)]
    listed += [split_row("gone/1", "o'lvis", None), split_row("test/0", "train", None)]
    put(corpus, SPLITS, listed, made_by("split/o'lvis", reads=""))
    return corpus


def exhibits(section, kind):
    return {exhibit.title: exhibit for exhibit in section.exhibits if isinstance(exhibit, kind)}


def test_categories_are_counted(named):
    section = categories(named)
    figures = section.figures
    assert (figures["objects"], figures["uncategorised"], figures["classes"]) == (11, 2, 4)
    assert figures["largest"] == {"cup": 5, "chair": 3, "bed": 1, "lamp": 1}
    assert (figures["classes_of_half"], figures["single"], figures["rare"]) == (1, 2, 3)
    assert figures["sources"]["attic"]["largest"] == {"lamp": 1}
    assert figures["sources"]["test"]["uncategorised"] == 2
    assert figures["own_splits"] == {"val": 2}
    assert section.gates == {"uncategorised_share": 2 / 11, "categories": 4, "rare_category_share": 0.75}
    assert section.lead.startswith(
        "4 categories; the largest holds half of all mentions, and 2 have a single object. 2 of 11 objects"
    )


def test_lists_and_their_labels_are_counted(named):
    section = categories(named)
    lvis = section.figures["splits"]["o'lvis"]
    assert (lvis["listed"], lvis["in_corpus"], lvis["labelled"], lvis["largest"]) == (7, 6, 6, {"cup": 4, "mug": 2})
    assert section.figures["splits"]["train"]["classes"] == 0
    assert section.warnings == ("1 of the 7 objects that the list o'lvis names are not in this corpus.",)
    assert [bar.name for bar in exhibits(section, Bars)["Largest labels of o'lvis"].bars] == ["cup", "mug"]
    assert ("train", 1, 1, 0, 0, 0, 0, "") in exhibits(section, Rows)["Lists of objects, and their labels"].rows


def test_of_many_categories_the_largest_are_shown_and_the_rest_counted(tmp_path):
    corpus = Corpus(str(tmp_path / "corpus"))
    names = [f"class {n}" for n in range(50) for _ in range(50 - n)]
    put(corpus, OBJECTS, [object_row(n, categories=[name]) for n, name in enumerate(names)], made_by("ingest", reads=""))
    section = categories(corpus, classes_shown=10, classes_kept=20)
    bars = exhibits(section, Bars)["Largest categories"]
    assert [bar.count for bar in bars.bars] == list(range(50, 40, -1))
    assert bars.left_out == (40, sum(range(1, 41)))
    assert (len(section.figures["largest"]), section.figures["left_out"]) == (20, 30)
    assert section.figures["classes"] == 50
    histograms = exhibits(section, Histogram)
    assert sum(histograms["How large the categories are"].series["categories"]) == 50
    # the first, the next two, the next four, …
    assert histograms["The long tail"].series["objects"] == (
        50,
        49 + 48,
        sum(range(44, 48)),
        sum(range(36, 44)),
        *(sum(range(20, 36)), 190),
    )


def test_the_tail():
    found = tail(np.array([1, 10, 1, 4, 4]))
    assert (found["classes"], found["classes_of_half"], found["single"], found["rare"], found["median"]) == (5, 1, 2, 4, 4.0)
    assert tail(np.array([5, 5, 5, 5]))["classes_of_half"] == 2
    assert tail(np.array([5, 5, 6]))["half_share"] == 2 / 3
    assert tail(np.array([], np.int64)) == {"classes": 0, "classes_of_half": 0, "single": 0, "rare": 0} | dict.fromkeys(
        ("half_share", "single_share", "rare_share", "median")
    )


@pytest.mark.parametrize("made", [False, True])
def test_nothing_is_no_error(tmp_path, named, made):
    corpus = Corpus(str(tmp_path / "none"))
    if made:
        corpus.create(OBJECTS)
    section = categories(corpus)
    assert section.figures.keys() == categories(named).figures.keys()
    assert section.gates["uncategorised_share"] is None
    assert section.exhibits == ()
    assert section.lead == ("There are no objects." if made else "There is no table of objects.")


def test_objects_without_any_category(tmp_path):
    corpus = Corpus(str(tmp_path / "corpus"))
    put(corpus, OBJECTS, [object_row(n) for n in range(3)], made_by("ingest", reads=""))
    section = categories(corpus)
    assert section.lead == "None of the 3 objects has a category."
    assert section.figures["uncategorised_share"] == 1
