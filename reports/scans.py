"""Reading columns of a table in pieces of bounded size, and counting what stands in them."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

ROWS_AT_ONCE = 1 << 20


def scanned(dataset: Any, columns: Sequence[str], where: str | None = None) -> Iterator[pa.Table]:
    """The columns of a table (a lance dataset; None: it has no rows), some ROWS_AT_ONCE rows at a time however small its fragments
    are: what is looked up in each piece is then looked up few times. `where`: SQL condition."""
    held, count = [], 0
    batches = () if dataset is None else dataset.to_batches(columns=list(columns), filter=where, batch_size=ROWS_AT_ONCE)
    for batch in batches:
        held.append(batch)
        count += len(batch)
        if count >= ROWS_AT_ONCE:
            yield pa.Table.from_batches(held).combine_chunks()
            held, count = [], 0
    if count:
        yield pa.Table.from_batches(held).combine_chunks()


def counts(dataset: Any, columns: Sequence[str], where: str | None = None) -> pa.Table:
    """How often each combination of values of these columns occurs: the columns and `count`, the largest first, then by value. A
    row counts once for each item of a column that is a list (one of the columns may be), and not at all where the list is empty.
    """
    columns = list(columns)
    parts = [
        spread(piece).group_by(columns, use_threads=False).aggregate([([], "count_all")])
        for piece in scanned(dataset, columns, where)
    ]
    if not parts:
        return pa.table({name: pa.array([], pa.string()) for name in columns} | {"count": pa.array([], pa.int64())})
    whole = pa.concat_tables(parts).group_by(columns, use_threads=False).aggregate([("count_all", "sum")])
    whole = whole.rename_columns([*columns, "count"])
    return whole.sort_by([("count", "descending"), *((name, "ascending") for name in columns)])


def spread(table: pa.Table) -> pa.Table:
    """The table with a row for each item of its list column, if it has one."""
    for name in table.column_names:
        if pa.types.is_list(table.schema.field(name).type):
            items = table[name].combine_chunks()
            rows = table.take(pc.list_parent_indices(items))
            return rows.set_column(table.column_names.index(name), name, items.flatten())
    return table
