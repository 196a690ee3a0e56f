"""What was added, removed and changed between two corpora, or two states of one: table by table, by the ids of their rows.

Of each id and stage key 64 bits of a hash are kept and no text, so that tables of a million objects and many more rows compare in
little memory; the chance that two of ten million ids share theirs is 3 in 1,000,000.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from schemas.corpus import Reader
from schemas.tables import CAPTIONS, FAILURES, OBJECTS, SPLITS

ROWS_AT_ONCE = 1 << 17
NAMED = 8  # objects that are named of each kind
# What one thing of a table is, where it is not all rows of an id.
ONE = {CAPTIONS.name: ("object_id", "stage"), SPLITS.name: ("object_id", "split"), FAILURES.name: ("object_id", "stage")}
ASSET = ("asset_sha256", "companions_sha256")
MADE = ("stage", "stage_key")


@dataclass(frozen=True)
class TableChange:
    """Things of one table, each all rows of an object (captions and failures: of an object and a stage; splits: of an object and a
    split; texts: of a text): `added`, `removed`, `remade` (made of another input, with other settings or by another stage) and
    `same`; and the numbers of rows. None: the table is not there."""

    rows: int | None
    rows_before: int | None
    added: int
    removed: int
    remade: int
    same: int


@dataclass(frozen=True)
class ObjectChange:
    """Objects by what became of them, by source: `added`, `removed`, `changed` (another asset, or another stage key: other metadata
    or settings of ingest) and, of these, `assets`; and some ids of each, chosen by chance."""

    before: int
    now: int
    by_source: dict[str, dict[str, int]]
    examples: dict[str, tuple[str, ...]]

    def counts(self) -> dict[str, int]:
        """How many objects were added, removed, changed, and got other files, of all sources."""
        return {what: sum(source[what] for source in self.by_source.values()) for what in self.examples}


@dataclass(frozen=True)
class _Things:
    """Hashes of the ids of a table, ascending; of each what it was made of, by groups of columns; and one of its rows."""

    id: Int64[np.ndarray, " n"]
    made: Int64[np.ndarray, "n k"]
    row: Int64[np.ndarray, " n"]


def table_changes(now: Reader, before: Reader) -> dict[str, TableChange]:
    """Of every table that either has and whose rows carry stage keys."""
    return {
        name: change
        for name in sorted({*now.tables(), *before.tables()})
        if (change := _table_change(name, now, before)) is not None
    }


def object_changes(now: Reader, before: Reader, *, seed: int = 0) -> ObjectChange:
    """Of the objects. CorpusError: either has none."""
    tables = now.need(OBJECTS.name), before.need(OBJECTS.name)
    ours, theirs = (_things(table, ("object_id",), (MADE, ASSET)) for table in tables)
    _, here, there = np.intersect1d(ours.id, theirs.id, assume_unique=True, return_indices=True)
    differs = ours.made[here] != theirs.made[there]
    rows = {
        "added": (0, np.delete(ours.row, here)),
        "removed": (1, np.delete(theirs.row, there)),
        "changed": (0, ours.row[here[differs.any(axis=1)]]),
        "assets": (0, ours.row[here[differs[:, 1]]]),
    }
    sources = [table.to_table(columns=["source"])["source"] for table in tables]
    counted = {what: _counts(sources[whose].take(pa.array(which))) for what, (whose, which) in rows.items()}
    rng = np.random.default_rng(seed)
    return ObjectChange(
        before=len(theirs.id),
        now=len(ours.id),
        by_source={
            source: {what: counted[what].get(source, 0) for what in rows} for source in sorted(set().union(*map(_counts, sources)))
        },
        examples={what: _named(tables[whose], rng.permutation(which)[:NAMED]) for what, (whose, which) in rows.items()},
    )


def settings_changes(now: Reader, before: Reader) -> list[tuple[str, str, str, Any, Any]]:
    """Table, stage, setting, its value now and before (None: there is none), wherever these differ."""
    found = []
    for table in sorted({*now.tables(), *before.tables()}):
        ours, theirs = ({stage: _flat(made) for stage, made in one.made_by(table).items()} for one in (now, before))
        for stage in sorted(ours.keys() & theirs.keys()):  # a stage that is new is seen in its rows
            names = sorted(ours[stage].keys() | theirs[stage].keys())
            values = [(table, stage, name, ours[stage].get(name), theirs[stage].get(name)) for name in names]
            found += [value for value in values if value[3] != value[4]]
    return found


def _flat(made: Any, path: str = "") -> dict[str, Any]:
    """Innermost values of nested dictionaries, by path."""
    if not isinstance(made, dict):
        return {path: made}
    return {name: value for key, inner in made.items() for name, value in _flat(inner, f"{path}.{key}".lstrip(".")).items()}


def _table_change(name: str, now: Reader, before: Reader) -> TableChange | None:
    tables = now.open(name), before.open(name)
    first = next(table for table in tables if table is not None).schema.names
    if "stage_key" not in first:
        return None
    nothing = _Things(np.empty(0, np.int64), np.empty((0, 1), np.int64), np.empty(0, np.int64))
    columns = ONE.get(name, first[:1])
    ours, theirs = (nothing if table is None else _things(table, columns, (MADE,)) for table in tables)
    _, here, there = np.intersect1d(ours.id, theirs.id, assume_unique=True, return_indices=True)
    remade = int((ours.made[here] != theirs.made[there]).sum())
    return TableChange(
        *(None if table is None else table.count_rows() for table in tables),
        added=len(ours.id) - len(here),
        removed=len(theirs.id) - len(there),
        remade=remade,
        same=len(here) - remade,
    )


def _things(dataset: Any, columns: Sequence[str], groups: Sequence[Sequence[str]]) -> _Things:
    ids, made, rows, first = [np.empty(0, np.int64)], [np.empty((0, len(groups)), np.int64)], [np.empty(0, np.int64)], 0
    wanted = list(dict.fromkeys([*columns, *(name for group in groups for name in group)]))
    for batch in dataset.to_batches(columns=wanted, batch_size=ROWS_AT_ONCE):
        id = _hashed(batch, columns)
        starts = np.flatnonzero(np.diff(id, prepend=~id[:1]))  # rows of one object lie together, or nearly so
        ids.append(id[starts])
        made.append(np.stack([_hashed(batch, group)[starts] for group in groups], axis=1))
        rows.append(first + starts)
        first += len(batch)
    unique, where = np.unique(np.concatenate(ids), return_index=True)
    return _Things(unique, np.concatenate(made)[where], np.concatenate(rows)[where])


def _hashed(batch: pa.RecordBatch, columns: Sequence[str]) -> Int64[np.ndarray, " n"]:
    texts = [batch[name].cast(pa.string()) for name in columns]
    joined = pc.binary_join_element_wise(*texts, "\0", null_handling="replace", null_replacement="\1")
    return np.fromiter(map(hash, joined.to_pylist()), np.int64, len(joined))


def _counts(values: pa.ChunkedArray) -> dict[str, int]:
    return {one["values"]: one["counts"] for one in pc.value_counts(values).to_pylist()}


def _named(dataset: Any, rows: Int64[np.ndarray, " n"]) -> tuple[str, ...]:
    return tuple(dataset.take(rows, columns=["object_id"])["object_id"].to_pylist()) if len(rows) else ()
