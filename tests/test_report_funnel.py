from collections import Counter

import numpy as np
import pytest
from patchy import TEACHERS, caption_row, failure_row, made_by, patchy, put, put_points, view_row

from pipeline.status import completeness
from pipeline.store import Corpus
from reports.funnel import by_count, funnel
from reports.section import Bars, Rows
from schemas.tables import CAPTIONS, FAILURES, OBJECTS, VIEWS, image_embeddings
from shout import object_row

# What `completeness` calls the steps.
CALLED = {"an asset": "ingested", "views": "pictures", "points": "points", "a kept caption": "kept_caption"}


@pytest.fixture(params=range(5))
def case(request, tmp_path):
    return patchy(tmp_path / "corpus", np.random.default_rng(request.param), count=80)


def test_every_object_is_complete_or_lost_once_for_the_reason_that_was_dealt_out(case):
    corpus, expected = case
    found = Counter()
    for source, one in funnel(corpus).figures["sources"].items():
        found[source, "complete", ""] = one["complete"]
        for step, losses in one["losses"].items():
            for why, count in losses.items():
                found[source, step, why] = count
    assert +found == expected


def test_the_losses_of_each_step_are_what_fewer_objects_reach_it(case):
    figures = funnel(case[0]).figures
    before = figures["named"]
    for step in figures["steps"].values():
        assert step["lost"] == before - step["reached"] == sum(step["losses"].values())
        before = step["reached"]
    assert before == figures["complete"] == figures["named"] - sum(figures["lost"].values())
    for one in figures["sources"].values():
        assert one["complete"] == one["named"] - sum(sum(losses.values()) for losses in one["losses"].values())
        assert list(one["reached"].values())[-1] == one["complete"]


def test_status_counts_the_same(case):
    corpus = case[0]
    whole, figures = completeness(corpus), funnel(corpus).figures
    assert (figures["named"], figures["complete"]) == (whole.objects, whole.complete)
    assert {name: n for name, n in figures["lacking"].items() if n} == {
        CALLED.get(name, name): n for name, n in whole.lacking.items()
    }
    assert {source: (one["named"], one["complete"]) for source, one in figures["sources"].items()} == {
        source: (one.objects, one.complete) for source, one in whole.sources.items()
    }


def test_what_is_shown_adds_up(case):
    section = funnel(case[0])
    figures = section.figures
    [bars] = [exhibit for exhibit in section.exhibits if isinstance(exhibit, Bars)]
    tables = {exhibit.title: exhibit for exhibit in section.exhibits if isinstance(exhibit, Rows)}
    assert [bar.count for bar in bars.bars] == [figures["named"], *(step["reached"] for step in figures["steps"].values())]
    assert sum(row[2] for row in tables["Every loss"].rows) == figures["named"] - figures["complete"]
    assert sum(row[-2] for row in tables["By source"].rows) == figures["complete"]
    assert any(TEACHERS[1] in bar.name for bar in bars.bars)  # of two teachers each is named
    assert f"{figures['complete']:,} of {figures['named']:,}" in section.lead
    assert section.gates["complete_share"] == figures["complete"] / figures["named"]


def test_a_small_corpus_by_hand(tmp_path):
    corpus = Corpus(str(tmp_path / "corpus"))
    put(corpus, OBJECTS, [object_row(n, asset_format="pcd" if n == 3 else "glb") for n in range(5)], made_by("ingest", reads=""))
    put(corpus, VIEWS, [view_row("test/0", 0), view_row("test/0", 1)], made_by("render", where="asset_format = 'glb'"))
    failures = [failure_row("test/1", "render", "timeout"), failure_row("test/1", "import", "malformed")]
    failures += [failure_row("test/2", "import", "malformed"), failure_row("gone/9", "ingest", "asset_missing")]
    put(corpus, FAILURES, [*failures, failure_row("test/0", "maps", "no_room")])  # maps are not asked for
    row = {"object_id": "test/4", "stage": "import", "stage_key": "k", "embedding": [[1.0, 0.0]]}
    put(corpus, image_embeddings("a:b", 2), [row], made_by("import", reads=""))
    section = funnel(corpus)
    steps = section.figures["steps"]
    assert steps["ingested"] == {"reached": 5, "lost": 1, "losses": {"failed: ingest: asset_missing": 1}}
    pictures = {"failed: import: malformed": 1, "failed: render: timeout": 1, "not_taken: pcd": 1}
    assert steps["pictures"] == {"reached": 2, "lost": 3, "losses": pictures}
    assert steps["points"] == {"reached": 0, "lost": 2, "losses": {"not_done": 2}}
    assert section.figures["lost"] == {"failed": 3, "dropped": 0, "not_taken": 1, "not_done": 2}
    assert "0 of 6 objects" in section.lead
    assert "3 failed, 1 are of a kind that no stage has been run for, 2 are not done yet" in section.lead
    assert any(
        isinstance(e, Rows) and ("pictures", "no stage that has run takes pcd", 1, 16.7, "test 1") in e.rows
        for e in section.exhibits
    )


def test_assets_that_one_of_several_stages_takes_are_not_left_alone(tmp_path):
    corpus = Corpus(str(tmp_path / "corpus"))
    rows = [object_row(n, asset_format=format) for n, format in enumerate(["glb", "photos", "pcd"])]
    put(corpus, OBJECTS, rows, made_by("ingest", reads=""))
    render, photos = made_by("render", where="asset_format = 'glb'"), made_by("photos", where="asset_format = 'photos'")
    put(corpus, VIEWS, [], render, photos)
    assert funnel(corpus).figures["steps"]["pictures"]["losses"] == {"not_done": 2, "not_taken: pcd": 1}
    put(corpus, VIEWS, [], made_by("everything"))
    assert funnel(corpus).figures["steps"]["pictures"]["losses"] == {"not_done": 3}


def test_of_several_explanations_a_failure_is_told(tmp_path):
    """An import failed on an asset that is not rendered, the captions' stage on an object whose other captions are dropped."""
    corpus = Corpus(str(tmp_path / "corpus"))
    rows = [object_row(0, asset_format="npy"), object_row(1), object_row(2)]
    put(corpus, OBJECTS, rows, made_by("import", reads=""))
    put(
        corpus,
        VIEWS,
        [view_row(f"test/{n}", 0) for n in (1, 2)],
        made_by("render", where="asset_format = 'glb'"),
        made_by("import"),
    )
    put_points(corpus, ["test/1", "test/2"], [[], []])
    put(corpus, CAPTIONS, [caption_row(f"test/{n}", 0, "http://", "url") for n in (1, 2)], made_by("caption"))
    failures = [failure_row("test/0", "import", "malformed"), failure_row("test/1", "caption", "no_text")]
    put(corpus, FAILURES, [*failures, failure_row("test/9", "ingest", "asset_missing")])
    steps = funnel(corpus).figures["steps"]
    assert steps["ingested"]["losses"] == {"failed: ingest: asset_missing": 1}  # though an import made what objects there are
    assert steps["pictures"]["losses"] == {"failed: import: malformed": 1}
    assert steps["kept_caption"]["losses"] == {"dropped: url": 1, "failed: caption: no_text": 1}


@pytest.mark.parametrize("made", [(), (OBJECTS, FAILURES, CAPTIONS)])
def test_nothing_is_no_error(tmp_path, made):
    corpus = Corpus(str(tmp_path / "corpus"))
    for table in made:
        corpus.create(table)
    section = funnel(corpus)
    whole = patchy(tmp_path / "whole", np.random.default_rng(0), count=10)[0]
    assert section.figures.keys() == funnel(whole).figures.keys()
    assert section.gates == {"complete_share": None, "lost_to_failure_share": None, "not_done_share": None}
    assert section.lead == ("The sources name no object." if made else "There is no table of objects: this is no corpus yet.")
    assert section.exhibits == ()


def test_counts_in_words():
    assert by_count({"a": 2, "b": 1000, "c": 0, "d": 2}) == "b 1,000, a 2, d 2"
    assert by_count({"a": 3, "b": 2, "c": 1, "d": 1}, most=2) == "a 3, b 2, 2 more"
