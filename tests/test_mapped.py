"""Rows through mmap are what Lance reads, bit for bit, or are refused."""

import shutil
from types import SimpleNamespace

import lance
import numpy as np
import pyarrow as pa
import pytest
from lance.file import LanceFileReader

import trainer.mapped
from trainer.mapped import Mapped, Unmappable

VECTORS = pa.list_(pa.float16(), 384)
COLUMNS = {
    "plain": pa.field("plain", VECTORS, nullable=False),
    "narrow": pa.field("narrow", pa.list_(pa.float16(), 24), nullable=False),  # in chunks
    "colors": pa.field("colors", pa.list_(pa.uint8(), 600)),
    "masked": pa.field("masked", pa.list_(pa.uint8(), 600)),
    "nested": pa.field("nested", pa.list_(pa.field("item", VECTORS, nullable=False)), nullable=False),
    "some": pa.field("some", pa.list_(pa.float16())),
    "all": pa.field("all", pa.list_(pa.float16())),
    "none": pa.field("none", pa.list_(pa.float16())),
    "no_colors": pa.field("no_colors", pa.list_(pa.uint8(), 600)),
}
WIDTHS = {
    "plain": 384,
    "narrow": 24,
    "colors": 600,
    "masked": 600,
    "nested": 384,
    "some": 384,
    "all": 384,
    "none": 384,
    "no_colors": 600,
}
SCHEMA = pa.schema([pa.field("id", pa.int64()), *COLUMNS.values()])


def rows(rng, ids, *, nulls: float = 0.3) -> pa.Table:
    def vector(size=384):
        return rng.normal(size=size).astype(np.float16)

    def colors():
        return rng.integers(0, 256, 600, dtype=np.uint8)

    def perhaps(value):
        return None if rng.random() < nulls else value

    made = [
        {
            "id": id,
            "plain": vector(),
            "narrow": vector(24),
            "colors": perhaps(colors()),  # Arrow makes the numbers of null rows null too
            "masked": colors(),
            "nested": [vector() for _ in range(rng.integers(1, 6))],
            "some": perhaps(vector()),
            "all": vector(),
            "none": None,
            "no_colors": None,
        }
        for id in ids
    ]
    table = pa.Table.from_pylist(made, SCHEMA)
    flat = pa.array(np.concatenate([row["masked"] for row in made]))
    masked = pa.FixedSizeListArray.from_arrays(flat, 600, mask=pa.array(rng.random(len(made)) < nulls))
    return table.set_column(SCHEMA.get_field_index("masked"), SCHEMA.field("masked"), masked)


def same(dataset: lance.LanceDataset, name: str, rng) -> None:
    """All rows of a column, asked for in a random order and some twice, against `to_pylist`."""
    mapped = Mapped(dataset, name, WIDTHS[name])
    expected = dataset.to_table(columns=[name])[name].to_pylist()
    assert len(mapped) == len(expected)
    order = rng.permutation(np.concatenate([np.arange(len(expected)), rng.integers(0, len(expected), 7)]))
    if name == "nested":
        for number in order:
            found = mapped.items(np.array([number]), lambda counts: np.arange(counts[0])[None])
            assert found.shape[1] == len(expected[number])
            np.testing.assert_array_equal(found[0], np.array(expected[number], np.float16))
        last = mapped.items(order, lambda counts: np.stack([counts - 1, counts * 0], axis=1))
        np.testing.assert_array_equal(last, np.array([[expected[i][-1], expected[i][0]] for i in order], np.float16))
        return
    values, valid = mapped.rows(order)
    assert valid.tolist() == [expected[i] is not None for i in order]
    for value, number in zip(values, order, strict=True):
        np.testing.assert_array_equal(value, expected[number] or np.zeros(WIDTHS[name]))
    prefix, _ = mapped.rows(order, 15)
    np.testing.assert_array_equal(prefix, values[:, :15])


@pytest.fixture
def made(tmp_path, rng):
    """Three fragments: of many rows with nulls, of one row, of rows without a null."""
    uri = str(tmp_path / "made.lance")
    lance.write_dataset(rows(rng, range(150)), uri)
    lance.write_dataset(rows(rng, [150], nulls=0), uri, mode="append")
    return lance.write_dataset(rows(rng, range(151, 200), nulls=0), uri, mode="append")


@pytest.mark.parametrize("name", COLUMNS)
def test_every_row_is_what_lance_reads(made, name, rng):
    same(made, name, rng)


@pytest.mark.parametrize("name", COLUMNS)
def test_rows_are_numbered_as_in_the_version_after_deletions_appends_and_compaction(made, name, rng):
    first = made.version
    made.delete("id % 7 = 3 or id = 0 or id = 199")
    same(made, name, rng)
    made.insert(rows(rng, range(200, 230)))
    same(made, name, rng)
    made.optimize.compact_files(target_rows_per_fragment=10_000)
    assert len(made.get_fragments()) == 1
    same(made, name, rng)
    same(lance.dataset(made.uri, version=first), name, rng)


def test_rows_that_were_put_in_place_of_others_are_found(made, rng):
    changed = rows(rng, range(40, 60), nulls=0)
    made.merge_insert("id").when_matched_update_all().write_mode("rewrite_columns").execute(changed.select(["id", "plain"]))
    made.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(rows(rng, range(190, 210)))
    made = lance.dataset(made.uri)
    for name in ("plain", "colors", "nested"):
        try:
            same(made, name, rng)
        except Unmappable as why:  # columns of a fragment in several files are not known
            assert "files" in str(why)


def test_a_mapped_column_outlives_the_files_it_reads(made, rng):
    expected = made.to_table(columns=["plain"])["plain"].to_pylist()
    mapped = Mapped(made, "plain", 384)
    shutil.rmtree(made.uri)
    np.testing.assert_array_equal(mapped.rows(np.arange(200))[0], np.array(expected, np.float16))


def written(tmp_path, array: pa.Array, **options) -> lance.LanceDataset:
    table = pa.table({"x": array}, schema=options.pop("schema", None))
    return lance.write_dataset(table, str(tmp_path / "one.lance"), **options)


def fixed(rng, count: int = 50, width: int = 384) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=count * width).astype(np.float16)), width)


@pytest.mark.parametrize("version", ["2.0", "2.1"])
def test_files_of_other_versions_are_refused(tmp_path, rng, version):
    with pytest.raises(Unmappable, match=f"version {version}"):
        Mapped(written(tmp_path, fixed(rng), data_storage_version=version), "x", 384)


def test_what_is_not_known_is_refused(tmp_path, rng):
    lists = [rng.normal(size=size).astype(np.float16) for size in (384, 384, 300, 468)]
    empty = pa.array([[lists[0]], [], [lists[1]]], pa.list_(VECTORS))
    holes = pa.array([[1.0] * 383 + [None], [2.0] * 384], VECTORS)
    zstd = pa.field("item", pa.float16(), metadata={"lance-encoding:compression": "zstd"})
    compressed = pa.schema([pa.field("x", pa.list_(zstd))])
    same_lists = pa.array([lists[0]] * 40, pa.list_(zstd))
    for number, (array, schema) in enumerate([(empty, None), (holes, None), (same_lists, compressed)]):
        with pytest.raises(Unmappable):
            Mapped(written(tmp_path / str(number), array, schema=schema), "x", 384)
    with pytest.raises(ValueError, match="has 300 numbers in a row, must have 384"):
        Mapped(written(tmp_path / "several", pa.array(lists, pa.list_(pa.float16()))), "x", 384)
    with pytest.raises(Unmappable, match="384 numbers"):
        Mapped(written(tmp_path, fixed(rng)), "x", 383)


def test_a_uri_is_refused(tmp_path, rng):
    written(tmp_path, fixed(rng))
    with pytest.raises(Unmappable, match="not a local folder"):
        Mapped(lance.dataset(f"file://{tmp_path}/one.lance"), "x", 384)


def test_a_table_without_rows_is_refused(tmp_path, rng):
    table = written(tmp_path, fixed(rng))
    table.delete("true")
    with pytest.raises(Unmappable, match="no rows"):
        Mapped(table, "x", 384)


def test_pages_that_lie_elsewhere_than_told_are_noticed(tmp_path, rng, monkeypatch):
    """A later Lance might describe its pages in the same words and lay them out otherwise."""
    table = written(tmp_path, fixed(rng))
    real = LanceFileReader.metadata

    def moved(reader):
        told = real(reader)
        [page] = told.columns[0].pages
        [buffer] = page.buffers
        page = SimpleNamespace(encoding=page.encoding, buffers=[SimpleNamespace(position=buffer.position + 2, size=buffer.size)])
        return SimpleNamespace(columns=[SimpleNamespace(pages=[page])])

    monkeypatch.setattr(trainer.mapped.LanceFileReader, "metadata", moved)
    with pytest.raises(Unmappable, match="are not what Lance reads"):
        Mapped(table, "x", 384)
