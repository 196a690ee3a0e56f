"""A corpus as it was, what changed since, and which distributions moved."""

import json
import re
import time
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.run import run
from pipeline.stage import Single
from pipeline.store import Corpus
from reports.against import against
from reports.changes import object_changes, settings_changes, table_changes
from reports.moved import aligned, distance, distributions, log_p_value, surely_moved
from reports.overview import overview
from reports.section import Bar, Bars, Histogram, Rows, Section, Tile, Tiles
from reports.storage import storage
from schemas.check import to_table
from schemas.corpus import CorpusError, Reader
from schemas.tables import OBJECTS
from shout import Shout, object_row


def made(root, rows: list[dict]) -> Corpus:
    corpus = Corpus(str(root))
    corpus.create(OBJECTS)
    put(corpus, rows)
    return corpus


def put(corpus: Corpus, rows: list[dict]) -> None:
    corpus.append(OBJECTS, corpus.write(OBJECTS, to_table(OBJECTS, rows)))


def now() -> str:
    """A moment that is later than all before and earlier than all after."""
    time.sleep(0.002)
    moment = datetime.now(UTC)
    time.sleep(0.002)
    return moment.isoformat()


def names(reader: Reader, table: str = "objects", column: str = "object_id") -> list[str]:
    return sorted(reader.need(table).to_table(columns=[column])[column].to_pylist())


# ------------------------------------------------------------------------------------------------------- a corpus as it was


@pytest.fixture
def aged(corpus):
    """20 objects; their captions; two objects more; and the moments before each."""
    moments = [now()]
    run(corpus, Single(Shout()))
    moments.append(now())
    put(corpus, [object_row(20), object_row(21)])
    moments.append(now())
    run(corpus, Single(Shout(mark="?")))
    return corpus, moments


def test_a_moment_gives_every_table_as_it_was_then(aged):
    corpus, moments = aged
    reader = Reader(corpus.root)
    first, second, third = (reader.as_it_was(moment) for moment in moments)
    assert [len(names(one)) for one in (first, second, third, reader)] == [20, 20, 22, 22]
    assert first.tables() == ["objects"] and first.open("captions") is None  # not made yet
    assert names(second, "captions", "text") == sorted(f"THING {n}!" for n in range(20))
    assert names(third, "captions", "text") == names(second, "captions", "text")
    assert names(reader, "captions", "text") == sorted(f"THING {n}?" for n in range(22))
    with pytest.raises(CorpusError, match="has no table 'captions'"):
        first.need("captions")


def test_a_number_stands_for_the_last_moment_of_that_version(aged):
    corpus, moments = aged
    reader = Reader(corpus.root)
    number = reader.as_it_was(moments[0]).versions["objects"]
    assert reader.as_it_was(str(number)).versions == reader.as_it_was(moments[1]).versions
    assert reader.as_it_was(str(number + 1)).versions == reader.pinned().versions  # the newest one
    with pytest.raises(CorpusError, match="has no version 99 of its objects, or not any more; it has: 1, 2, 3"):
        reader.as_it_was("99")


def test_a_tag_stands_for_its_version_in_each_table_that_has_it(aged):
    corpus, moments = aged
    reader = Reader(corpus.root)
    second = reader.as_it_was(moments[1])
    corpus.need("objects").tags.create("v1", second.versions["objects"])
    assert reader.as_it_was("v1").versions == second.versions
    first = reader.need("captions").versions()[0]["version"]
    corpus.need("captions").tags.create("v1", first)
    assert reader.as_it_was("v1").versions["captions"] == first


def test_a_pinned_corpus_does_not_see_what_is_written_later(corpus):
    pinned = Reader(corpus.root).pinned()
    run(corpus, Single(Shout()))
    put(corpus, [object_row(20)])
    assert len(names(pinned)) == 20 and pinned.tables() == ["objects"] and len(names(Reader(corpus.root))) == 21


def test_a_version_that_was_cleaned_away_is_told_and_never_replaced_by_its_neighbour(aged):
    corpus, moments = aged
    reader = Reader(corpus.root)
    gone, kept = reader.as_it_was(moments[0]).versions["objects"], reader.as_it_was(moments[2]).versions["objects"]
    corpus.forget_versions("objects", [gone])
    for asked in moments[:2]:
        with pytest.raises(CorpusError, match="the newest at .* was cleaned away; the oldest one from there on") as error:
            reader.as_it_was(asked)
    [offered] = re.findall(r"of (\S+Z): compare", str(error.value))
    assert reader.as_it_was(offered).versions["objects"] == kept  # what the sentence offers can be asked
    with pytest.raises(CorpusError, match=f"until when version {gone - 1} of its objects was the newest is not known"):
        reader.as_it_was(str(gone - 1))


def test_what_is_no_version_is_told(corpus):
    with pytest.raises(CorpusError, match="had no objects at 2001-01-01: the first version of them is of 20"):
        Reader(corpus.root).as_it_was("2001-01-01")
    with pytest.raises(ValueError, match="'last week' is no tag, number or time of a version"):
        Reader(corpus.root).as_it_was("last week")


def test_a_time_without_a_zone_is_utc(aged):
    corpus, moments = aged
    naive = moments[1].removesuffix("+00:00")
    east = datetime.fromisoformat(moments[1]).astimezone(timezone(timedelta(hours=5)))
    expected = Reader(corpus.root).as_it_was(moments[1])
    assert Reader(corpus.root).as_it_was(naive) == expected == Reader(corpus.root).as_it_was(east.isoformat())


# ------------------------------------------------------------------------------------------------------------- what changed

STATES = st.dictionaries(
    st.integers(0, 11), st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from(["abo", "shapenet"])), max_size=12
)


@settings(max_examples=25, deadline=None)
@given(STATES, STATES)
def test_every_object_is_counted_once_for_what_became_of_it(tmp_path_factory, before, after):
    folder = tmp_path_factory.mktemp("two")
    corpora = []
    for name, state in (("before", before), ("after", after)):
        rows = [
            object_row(n, object_id=f"s/{n}", asset_sha256=asset, stage_key=key, source=source)
            for n, (asset, key, source) in state.items()
        ]
        corpora.append(made(folder / name, rows))
    found = object_changes(corpora[1], corpora[0])
    counted = Counter()
    for n in before.keys() | after.keys():
        if n not in before:
            counted[after[n][2], "added"] += 1
        elif n not in after:
            counted[before[n][2], "removed"] += 1
        else:
            counted[after[n][2], "changed"] += before[n][:2] != after[n][:2]
            counted[after[n][2], "assets"] += before[n][0] != after[n][0]
    assert {(source, what): count for source, its in found.by_source.items() for what, count in its.items() if count} == +counted
    assert (found.before, found.now) == (len(before), len(after))
    assert found.by_source.keys() == {one[2] for one in [*before.values(), *after.values()]}
    gone = {f"s/{n}" for n in before.keys() - after.keys()}
    assert set(found.examples["removed"]) <= gone and len(found.examples["removed"]) == min(8, len(gone))
    change = table_changes(corpora[1], corpora[0])["objects"]
    assert change.added + change.same + change.remade == len(after) and change.removed + change.same + change.remade == len(before)
    assert change.remade == sum(before[n][1] != after[n][1] for n in before.keys() & after.keys())


def test_tables_are_compared_by_object_and_stage_key(aged):
    corpus, moments = aged
    reader = Reader(corpus.root)
    changes = table_changes(reader, reader.as_it_was(moments[1]))
    assert vars(changes["captions"]) == {"rows": 22, "rows_before": 20, "added": 2, "removed": 0, "remade": 20, "same": 0}
    assert vars(changes["objects"]) == {"rows": 22, "rows_before": 20, "added": 2, "removed": 0, "remade": 0, "same": 20}
    assert "runs" not in changes  # it has no objects
    back = table_changes(reader.as_it_was(moments[0]), reader)["captions"]
    assert (back.rows, back.rows_before, back.removed) == (None, 22, 22)


def test_settings_that_differ_are_named_with_both_values(aged):
    corpus, moments = aged
    reader = Reader(corpus.root)
    assert settings_changes(reader, reader.as_it_was(moments[1])) == [("captions", "shout", "settings.mark", "?", "!")]
    assert settings_changes(reader, reader.pinned()) == []


# ------------------------------------------------------------------------------------------------------ distributions that moved


def test_the_distance_is_the_share_that_lies_elsewhere():
    assert distance(np.array([10, 0]), np.array([0, 70])) == 1
    assert distance(np.array([1, 1]), np.array([30, 30])) == 0
    assert distance(np.array([3, 1]), np.array([1, 1])) == pytest.approx(0.25)
    assert distance(np.array([0, 0]), np.array([1, 1])) is None


def test_where_nothing_moved_the_test_says_so_as_often_as_it_must(rng):
    """The p-value of two samples of one distribution is below any level as often as the level says."""
    shares = rng.dirichlet(np.ones(12))
    p = np.array([np.exp(log_p_value(rng.multinomial(300, shares), rng.multinomial(900, shares))) for _ in range(2000)])
    for level in (0.01, 0.05, 0.5):
        assert abs((p < level).mean() - level) < 4 * np.sqrt(level * (1 - level) / len(p)) + 0.003


def test_the_test_knows_how_many_were_counted():
    small, large = log_p_value(np.array([60, 40]), np.array([50, 50])), log_p_value(np.array([600, 400]), np.array([500, 500]))
    assert np.exp(small) > 0.1 and np.exp(large) < 1e-4
    # Pearson's statistic of [[600, 400], [500, 500]], by hand: 20.202
    assert large == pytest.approx(np.log(6.96e-6), abs=0.01)


@pytest.mark.parametrize("many", [10, 100, 10**4, 10**7])
def test_the_surest_too_are_told_apart(many):
    """Of three bins the p-value is exp(-statistic / 2), be it too small for a float."""
    ours, theirs = many * np.array([2, 3, 4]), many * np.array([4, 3, 2])
    expected = (ours + theirs) / 2
    statistic = ((ours - expected) ** 2 / expected).sum() * 2
    assert log_p_value(ours, theirs) == pytest.approx(-statistic / 2)


def test_beyond_what_a_float_holds_the_p_value_goes_on_where_it_was():
    """Many bins: from one side of the float's limit to the other the logarithm falls as it fell before."""
    logs = [log_p_value(many * np.arange(1, 31), many * np.arange(30, 0, -1)) for many in (4, 5, 6, 7, 8)]
    assert logs[0] > -700 > logs[-1]  # a float ends at -745
    steps = np.diff(logs)
    assert (np.abs(np.diff(steps)) < 0.05 * np.abs(steps[0])).all()


def test_too_few_counts_are_not_tested():
    assert log_p_value(np.array([4, 0]), np.array([0, 4])) is None
    assert log_p_value(np.array([0, 0]), np.array([100, 100])) is None


def section(**changes) -> Section:
    shown = {
        "words": Histogram(title="Words", unit="words", edges=(0, 5, 10), series={"captions": (900, 100)}),
        "mix": Bars(title="Licences", unit="objects", bars=(Bar("CC0-1.0", 600), Bar("CC-BY-4.0", 400))),
        "reached": Bars(title="Reached", unit="objects", bars=(Bar("views", 990), Bar("points", 500)), of=1000),
        "bytes": Bars(title="Size", unit="bytes", bars=(Bar("views", 10**9), Bar("points", 1))),
        "tiles": Tiles((Tile("objects", "1,000"), Tile("sources", "2"))),
    } | changes
    return Section(
        key="made", title="Made", lead="", figures={"objects": 1000}, gates={"share": 0.5}, exhibits=tuple(shown.values())
    )


def test_distributions_are_found_by_title_and_those_that_moved_are_told():
    other = section(
        words=Histogram(title="Words", unit="words", edges=(0, 5, 10), series={"captions": (90, 10)}),
        mix=Bars(title="Licences", unit="objects", bars=(Bar("CC-BY-4.0", 600), Bar("CC0-1.0", 400))),
        reached=Bars(title="Reached", unit="objects", bars=(Bar("points", 999), Bar("views", 985)), of=1000),
    )
    found = {one.name: (one, surely) for one, surely in surely_moved(list(distributions(section(), other)))}
    assert {name for name, (_, surely) in found.items() if surely} == {"made: Licences", "made: Reached, points"}
    assert found["made: Licences"][0].distance == pytest.approx(0.2)  # by name, not by place
    assert found["made: Reached, points"][0].distance == pytest.approx(0.499)
    assert (found["made: Words"][0].counts, found["made: Words"][0].counts_before) == (1000, 100)
    assert list(found)[:2] == ["made: Reached, points", "made: Licences"]  # the surest first
    assert not any("Size" in name for name in found)  # bytes are no sample


def test_holms_correction_asks_more_of_many_tests():
    one = section(words=Histogram(title="Words", unit="words", edges=(0, 5, 10), series={"captions": (855, 145)}))
    [moved] = [found for found in distributions(one, section()) if found.title == "Words"]
    assert 0.0005 < np.exp(moved.log_p) < 0.01
    assert [surely for _, surely in surely_moved([moved])] == [True]
    calm = [found for found in distributions(section(), section()) if found.title == "Words"] * 40
    assert not any(surely for _, surely in surely_moved([moved, *calm]))


def test_histograms_of_other_bins_are_not_compared_but_shown_beside_each_other(tmp_path):
    other = section(words=Histogram(title="Words", unit="words", edges=(0, 7, 10), series={"captions": (900, 100)}))
    assert not [one for one in distributions(section(), other) if one.title == "Words"]
    corpora = [made(tmp_path / name, [object_row(1)]) for name in "ab"]
    _, shown = against([section()], [other], corpus=corpora[0], other=corpora[1], told="then")
    assert [one.title for one in shown.exhibits if isinstance(one, Histogram)] == ["Words", "Words, before"]


def test_names_that_one_side_leaves_out_are_compared_as_the_rest():
    mine = Bars(title="t", unit="objects", bars=(Bar("a", 5), Bar("b", 3)))
    other = Bars(title="t", unit="objects", bars=(Bar("a", 4), Bar("c", 2)), left_out=(7, 9))
    assert aligned(mine, other) == {"a": (5, 4), "c": (0, 2), "all others": (3, 9)}


# ----------------------------------------------------------------------------------------------------------------- the report


def test_the_report_shows_both_sides_in_its_charts(tmp_path):
    corpora = [made(tmp_path / "a", [object_row(1)]), made(tmp_path / "b", [object_row(1), object_row(2)])]
    other = section(
        mix=Bars(title="Licences", unit="objects", bars=(Bar("CC0-1.0", 30), Bar("MIT", 10))),
        tiles=Tiles((Tile("objects", "40"), Tile("sources", "2"))),
    )
    first, shown = against([section()], [other], corpus=corpora[0], other=corpora[1], told="then")
    assert (first.key, shown.key, shown.figures) == ("changed", "made", {"objects": 1000})
    histogram, mix, *_, tiles = shown.exhibits
    assert histogram.series == {"captions": (900, 100), "captions, before": (900, 100)} and histogram.shares
    assert [(bar.name, bar.count, bar.note) for bar in mix.bars] == [
        ("CC0-1.0", 600, "before 30 (75.0\N{NO-BREAK SPACE}%)"),
        ("CC-BY-4.0", 400, "before 0 (0.0\N{NO-BREAK SPACE}%)"),
        ("MIT", 0, "before 10 (25.0\N{NO-BREAK SPACE}%)"),
    ]
    assert [tile.note for tile in tiles.tiles] == ["before 40", "as before"]
    assert first.figures["objects"]["removed"] == 1 and first.gates["objects_removed_share"] == 0.5
    assert first.warnings[0] == "1 object of then not here any more: test/2"
    [figures] = [one for one in first.exhibits if isinstance(one, Rows) and one.title == "Figures"]
    assert figures.rows == (("share", 0.5, 0.5, 0.0),)


def test_a_corpus_against_itself_has_not_changed(corpus):
    run(corpus, Single(Shout()))
    reader = Reader(corpus.root).pinned()
    sections = [overview(reader), storage(reader)]
    first, *_ = against(sections, sections, corpus=reader, other=reader, told="itself")
    assert first.lead.startswith("The 20 objects are those of itself, and none has changed. None of ")
    assert first.warnings == () and first.gates["moved_distributions"] == 0
    json.dumps(first.figures, allow_nan=False)
