"""Numbers of many rows: their histograms and figures; texts as numbers."""

import numpy as np
import pyarrow as pa
import pytest

from reports.spreads import OTHERS, SERIES, coded, histogram, share_of, spread_of, unknown


def test_texts_in_pieces_become_numbers_of_the_distinct_ones():
    names, codes = coded([pa.array(["b", "a"]), pa.array([None, "b"]), pa.chunked_array([["c"], ["a", None]])])
    assert [None if code < 0 else names[code].as_py() for code in codes] == ["b", "a", None, "b", "c", "a", None]
    assert len(names) == 3
    names, codes = coded([])
    assert (len(names), len(codes)) == (0, 0)


def test_a_histogram_counts_every_value_once_and_no_value_nowhere(rng):
    values = rng.normal(0.5, 0.4, 1000).astype(np.float32)
    values[::7] = np.nan
    edges = np.linspace(0, 1, 11)
    made = histogram("t", "u", edges, values)
    there = values[~np.isnan(values)]
    assert made.series[""] == tuple(np.histogram(np.clip(there, 0, 1 - 1e-6), edges)[0].tolist())
    assert sum(made.series[""]) == len(there) and not made.shares


def test_a_value_on_an_edge_is_counted_above_it_and_one_beyond_the_edges_in_the_outermost_bin():
    assert histogram("t", "u", (0, 1, 2, 3), np.array([1.0, 1, 2, 3, 9, -1])).series == {"": (1, 2, 3)}


def test_the_smallest_groups_stand_together():
    groups = [f"g{number}" for number in range(SERIES + 3)]
    group = np.repeat(np.arange(len(groups)), np.arange(1, len(groups) + 1))  # the last one is the largest
    made = histogram("t", "u", (0, 1, 2), np.full(len(group), 0.5), groups, group)
    assert list(made.series) == [*groups[-SERIES + 1 :], OTHERS]
    assert sum(map(sum, made.series.values())) == len(group) and made.shares
    without = histogram("t", "u", (0, 1, 2), np.full(3, 1.5), groups, np.array([0, -1, 1]))
    assert without.series == {"g0": (0, 1), "g1": (0, 1)}


def test_a_histogram_of_nothing_has_a_series():
    assert histogram("t", "u", (0, 1), np.full(3, np.nan), ["a"], np.zeros(3, int)).series == {"a": (0,)}
    assert histogram("t", "u", (0, 1), np.empty(0), [], np.empty(0, int)).series == {"": (0,)}


def test_figures_of_numbers_leave_out_what_is_none(rng):
    values = rng.random(500)
    values[:100] = np.nan
    found = spread_of(values)
    assert found["median"] == pytest.approx(np.nanmedian(values)) and found["max"] == np.nanmax(values)
    assert found["p05"] == pytest.approx(np.nanquantile(values, 0.05)) and found["mean"] == pytest.approx(np.nanmean(values))
    assert spread_of(np.full(3, np.nan)) == dict.fromkeys(found)


def test_shares_and_figures_that_are_not_known():
    assert (share_of(1, 4), share_of(0, 0), share_of(None, None)) == (0.25, None, None)
    assert unknown({"a": 1, "b": {"c": [2], "d": {}}}) == {"a": None, "b": {"c": None, "d": {}}}
