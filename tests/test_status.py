import pytest

from jobs.status import page
from pipeline.run import run
from pipeline.stage import Single
from pipeline.status import SourceStatus, completeness, pictured_failures, status
from pipeline.store import Corpus
from schemas.check import to_table
from schemas.tables import FAILURES, OBJECTS
from shout import Shout, object_row


@pytest.fixture
def mixed(tmp_path) -> Corpus:
    """Objects of two sources, one of which ingest refused; captions but for one."""
    corpus = Corpus(str(tmp_path / "corpus"))
    corpus.create(OBJECTS)
    corpus.create(FAILURES)
    rows = [object_row(n) for n in range(3)]
    rows += [object_row(n, object_id=f"attic/{n}", source="attic", warnings=["missing_texture"]) for n in range(2)]
    corpus.append(OBJECTS, corpus.write(OBJECTS, to_table(OBJECTS, rows)))
    failure = {
        "object_id": "attic/9",
        "stage": "ingest",
        "stage_key": "k",
        "reason": "asset_missing",
        "message": "gone",
        "attempts": 1,
        "thumbnail": None,
    }
    corpus.fail("ingest", to_table(FAILURES, [failure]), forget=[])
    run(corpus, Single(Shout(fails=("Thing 2",))))
    return corpus


def test_each_source_is_counted_with_its_failures_and_warnings(mixed):
    whole = completeness(mixed)
    assert (whole.objects, whole.complete) == (6, 0)
    assert whole.lacking == {"an asset": 1, "views": 6, "points": 6, "a kept caption": 2}
    assert whole.sources == {
        "attic": SourceStatus(3, 0, failed={"ingest: asset_missing": 1}, warnings={"missing_texture": 2}),
        "test": SourceStatus(3, 0, failed={"shout: too_shy": 1}, warnings={}),
    }


def test_the_page_names_sources_stages_reasons_and_what_to_type_next(mixed):
    text = page("corpus", status(mixed), completeness(mixed))
    for words in (
        "attic",
        "1 × ingest: asset_missing",
        "2 warned: missing_texture",
        "1 × too_shy",
        "retry corpus --stage shout --reason too_shy",
    ):
        assert words in text


def test_of_many_pictured_failures_each_reason_gets_its_turn(tmp_path):
    corpus = Corpus(str(tmp_path / "corpus"))
    corpus.create(FAILURES)
    rows = [
        {"object_id": f"s/{n:02}", "stage": "render", "stage_key": "k", "reason": reason, "message": "", "attempts": 1} | more
        for n, (reason, more) in enumerate(
            [("gate_border", {"thumbnail": b"b"})] * 5 + [("timeout", {})] * 3 + [("gate_dark", {"thumbnail": b"d"})] * 2
        )
    ]
    corpus.fail("render", to_table(FAILURES, rows), forget=[])
    chosen, count = pictured_failures(corpus, 5)
    assert count == 7
    assert [(row["reason"], row["object_id"], row["thumbnail"]) for row in chosen] == [
        *(("gate_border", f"s/0{n}", b"b") for n in (0, 1, 2)),
        *(("gate_dark", f"s/0{n}", b"d") for n in (8, 9)),
    ]
    assert pictured_failures(Corpus(str(tmp_path / "none")), 5) == ([], 0)
