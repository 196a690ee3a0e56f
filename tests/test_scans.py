from collections import Counter

import lance
import numpy as np
import pyarrow as pa
import pytest

from reports import scans
from reports.scans import counts, scanned, spread


@pytest.fixture
def table(tmp_path, rng):
    """Rows in many small fragments, with nulls, and lists that may be empty."""
    rows = [
        {
            "a": rng.choice(["x", "y", None], p=[0.5, 0.3, 0.2]),
            "b": int(rng.integers(3)),
            "tags": ["t", "u", "v"][: rng.integers(4)],
        }
        for _ in range(500)
    ]
    schema = pa.schema([("a", pa.string()), ("b", pa.int64()), ("tags", pa.list_(pa.string()))])
    return rows, lance.write_dataset(pa.Table.from_pylist(rows, schema), tmp_path / "t.lance", max_rows_per_file=13)


@pytest.mark.parametrize("at_once", [1, 40, 1000])
def test_pieces_are_the_rows_in_their_order_however_small_the_fragments(table, monkeypatch, at_once):
    rows, dataset = table
    monkeypatch.setattr(scans, "ROWS_AT_ONCE", at_once)
    pieces = list(scanned(dataset, ["b"]))
    assert [value for piece in pieces for value in piece["b"].to_pylist()] == [row["b"] for row in rows]
    assert all(at_once <= len(piece) < at_once + 13 for piece in pieces[:-1])
    assert len(list(scanned(dataset, ["b"], "b = 1"))) >= 1
    assert list(scanned(dataset, ["b"], "b = 9")) == list(scanned(None, ["b"])) == []


@pytest.mark.parametrize("at_once", [1, 40, 1000])
def test_counts_are_a_counters(table, monkeypatch, at_once):
    rows, dataset = table
    monkeypatch.setattr(scans, "ROWS_AT_ONCE", at_once)
    found = counts(dataset, ["a", "b"]).to_pylist()
    assert {(row["a"], row["b"]): row["count"] for row in found} == Counter((row["a"], row["b"]) for row in rows)
    assert [row["count"] for row in found] == sorted((row["count"] for row in found), reverse=True)
    of_lists = counts(dataset, ["a", "tags"], "b > 0").to_pylist()
    expected = Counter((row["a"], tag) for row in rows if row["b"] > 0 for tag in row["tags"])
    assert {(row["a"], row["tags"]): row["count"] for row in of_lists} == expected
    assert counts(dataset, ["a"], "b = 9").to_pylist() == counts(None, ["a"]).to_pylist() == []


def test_equal_counts_come_by_value(tmp_path):
    dataset = lance.write_dataset(pa.table({"a": np.array(["z", "b", "m", "m"])}), tmp_path / "t.lance")
    assert counts(dataset, ["a"])["a"].to_pylist() == ["m", "b", "z"]


def test_a_list_becomes_rows():
    table = pa.table({"id": ["a", "b", "c"], "tags": [["x", "y"], [], ["x"]]})
    assert spread(table).to_pylist() == [{"id": "a", "tags": "x"}, {"id": "a", "tags": "y"}, {"id": "c", "tags": "x"}]
    assert spread(table.select(["id"])).equals(table.select(["id"]))
