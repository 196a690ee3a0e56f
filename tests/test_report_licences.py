import pyarrow.csv
import pytest
from patchy import made_by, put

from pipeline.sources import record
from pipeline.store import Corpus
from reports.licences import Terms, attribution, licences, terms_of
from reports.section import Bars, Rows
from schemas.tables import OBJECTS
from shout import object_row


def corpus_of(folder, *objects: tuple[str, str, str | None]) -> Corpus:
    """A corpus with an object for each source, licence and creator."""
    corpus = Corpus(str(folder / "corpus"))
    rows = [
        object_row(n, object_id=f"{source}/{n}", source=source, license=license, creator=creator)
        for n, (source, license, creator) in enumerate(objects)
    ]
    put(corpus, OBJECTS, rows, made_by("ingest", reads=""))
    return corpus


@pytest.fixture
def mixed(tmp_path) -> Corpus:
    objects = [("a", "CC-BY-4.0", "Ada")] * 4 + [("a", "CC-BY-NC-SA-4.0", "Bo")] * 2 + [("a", "CC-BY-ND-4.0", None)]
    objects += [("b", "unknown", None), ("b", "LicenseRef-ShapeNet", None), ("b", "GPL-3.0-only", "Ada")]
    return corpus_of(tmp_path, *objects)


def test_shares_are_of_the_objects(mixed):
    figures = licences(mixed).figures
    assert figures["commercial_share"] == 0.6  # BY 4, BY-ND 1, GPL 1
    assert figures["noncommercial_share"] == 0.3  # BY-NC-SA 2, ShapeNet 1
    assert figures["unknown_license_share"] == 0.1
    assert figures["unclear_license_share"] == 0
    assert figures["sharealike_share"] == 0.3  # BY-NC-SA 2, GPL 1
    assert figures["noderivatives_share"] == 0.1
    assert figures["attribution_share"] == 0.8
    assert figures["not_to_give_on_share"] == 0.1
    assert figures["nobody_to_name_share"] == 0.1  # the BY-ND without a creator
    assert figures["sources"]["b"]["commercial_share"] == 1 / 3
    assert figures["licences"]["CC-BY-4.0"]["sources"] == {"a": 4}


def test_what_an_auditor_must_not_miss_is_said(mixed):
    section = licences(mixed)
    assert len(section.warnings) == 4
    for words in (
        "1 objects (10.0\N{NO-BREAK SPACE}%) say nothing",
        "may not be given on",
        "allow no adaptations",
        "none is known of them",
    ):
        assert any(words in warning for warning in section.warnings)
    assert "6 licences, most often CC-BY-4.0 (40.0\N{NO-BREAK SPACE}%)" in section.lead
    assert "60.0\N{NO-BREAK SPACE}% may be used commercially, 30.0\N{NO-BREAK SPACE}% may not" in section.lead


def test_a_clean_corpus_has_nothing_to_warn_of(tmp_path):
    section = licences(corpus_of(tmp_path, *[("a", "CC0-1.0", "Ada")] * 3))
    assert section.warnings == ()
    assert section.lead == "All CC0-1.0. Of the objects 100.0\N{NO-BREAK SPACE}% may be used commercially. 1 creator is known."


def test_creators_are_listed_once_per_licence_and_source(mixed, tmp_path):
    table = attribution(mixed)
    assert table.to_pylist()[:3] == [
        {"creator": "Ada", "license": "CC-BY-4.0", "source": "a", "objects": 4},
        {"creator": "Bo", "license": "CC-BY-NC-SA-4.0", "source": "a", "objects": 2},
        {"creator": "Ada", "license": "GPL-3.0-only", "source": "b", "objects": 1},
    ]
    pyarrow.csv.write_csv(table, tmp_path / "attribution.csv")
    assert (tmp_path / "attribution.csv").read_text().splitlines()[1] == '"Ada","CC-BY-4.0","a",4'
    figures = licences(mixed).figures
    assert (figures["creators"], figures["creators_of_half"], figures["without_creator"]) == (2, 1, 3)


def test_many_creators_make_no_large_page(tmp_path):
    corpus = corpus_of(tmp_path, *[("a", "MIT", f"creator {n}") for n in range(300)])
    section = licences(corpus, creators_shown=20, creators_kept=50)
    [table] = [exhibit for exhibit in section.exhibits if isinstance(exhibit, Rows) and exhibit.title == "Creators"]
    assert table.folded
    assert len(table.rows) == 20
    assert table.note.startswith("The first 20 of 300")
    assert (len(section.figures["attribution"]), section.figures["attribution_left_out"]) == (50, 250)
    assert section.figures["creators"] == 300
    assert section.figures["creators_of_half"] == 150
    assert len(attribution(corpus)) == 300


def test_bars_mark_what_may_not_be_sold(mixed):
    bars = {exhibit.title: exhibit for exhibit in licences(mixed).exhibits if isinstance(exhibit, Bars)}
    assert [(bar.name, bar.count, bar.part) for bar in bars["By source"].bars] == [("a", 7, 2), ("b", 3, 1)]
    assert sum(bar.count for bar in bars["Licences"].bars) == bars["Licences"].of == 10


@pytest.mark.parametrize(
    ("license", "terms"),
    [
        ("CC0-1.0", Terms(commercial=True, adapted=True, share_alike=False, named=False, given_on=True)),
        ("CC-BY-4.0", Terms(commercial=True, adapted=True, share_alike=False, named=True, given_on=True)),
        ("CC-BY-NC-ND-3.0-DE", Terms(commercial=False, adapted=False, share_alike=False, named=True, given_on=True)),
        ("CC-BY-NC-SA-4.0", Terms(commercial=False, adapted=True, share_alike=True, named=True, given_on=True)),
        ("MIT", Terms(commercial=True, adapted=True, share_alike=False, named=True, given_on=True)),
        ("MPL-2.0", Terms(commercial=True, adapted=True, share_alike=True, named=True, given_on=True)),
        ("LicenseRef-3D-FUTURE", Terms(commercial=False, given_on=False)),
        ("LicenseRef-MVImgNet", Terms()),
        ("unknown", Terms()),
        ("CC-BY-NC-4.0 OR MIT", Terms()),
        ("cc-by-4.0", Terms()),
    ],
)
def test_what_a_licence_allows(license, terms):
    assert terms_of(license) == terms


def test_every_licence_that_a_source_gives_by_name_is_known():
    given = {*record.SPDX.values(), *record._SPDX_BY_NAME.values()}
    assert [license for license in given if terms_of(license) == Terms()] == []


@pytest.mark.parametrize("made", [False, True])
def test_nothing_is_no_error(tmp_path, mixed, made):
    corpus = Corpus(str(tmp_path / "none"))
    if made:
        corpus.create(OBJECTS)
    section = licences(corpus)
    whole = licences(mixed)
    assert section.figures.keys() == whole.figures.keys()
    assert section.gates.keys() == whole.gates.keys()
    assert set(section.gates.values()) == {None}
    assert section.lead == ("There are no objects." if made else "There is no table of objects.")
