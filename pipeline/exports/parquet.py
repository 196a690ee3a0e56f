"""A corpus as Parquet: a folder per table, in it parts of as many rows each. Column docs travel along (in Arrow's schema, kept in
each file), and so does how each stage made its rows (`made_by` in the schema's metadata).

Arrow's Parquet reader cannot read lists of fixed size of which some are null; such columns (rgb) are plain lists here.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.exports.output import Output, Watch
from pipeline.exports.rows import Chosen
from pipeline.store import Corpus
from schemas.tables import CAPTIONS, RUNS

ROWS_PER_PART = 16_384
_ROWS_AT_ONCE = 512  # also the size of a row group: 90 MB of points


def export_parquet(
    corpus: Corpus, chosen: Chosen, teacher: str | None, output: Output, *, everything: bool, watch: Watch
) -> dict[str, int]:
    """Write the parts that are not there yet; returns the rows written, by table.

    `teacher`: the only one whose embeddings are wanted; None: all. `everything`: all rows of all tables; otherwise those of the
    chosen objects and of the texts said of them, and all class names.
    """
    ids = None if everything else set(chosen.ids)
    texts = None if everything else _texts(corpus, ids)
    written = {}
    tables = [name for name in corpus.tables() if teacher is None or "/" not in name or name.endswith(f"/{teacher}")]
    for number, name in enumerate(tables):
        # Class names go along whole: they are few, and any object may be asked about all of them. So do the runs, which are of all.
        column, wanted = {
            "text_embeddings": ("text_sha256", texts),
            "class_embeddings": ("name", None),
            RUNS.name: ("began", None),
        }.get(name.partition("/")[0], ("object_id", ids))
        written[name] = _export(corpus.need(name), name, column, wanted, output)
        watch(number + 1, 0)
    return written


def _export(dataset: Any, name: str, column: str, wanted: set[str] | None, output: Output) -> int:
    rows = 0
    for number, first in enumerate(range(0, max(1, dataset.count_rows()), ROWS_PER_PART)):
        part = f"{name}/{number:05d}.parquet"
        if not output.has(part):
            with (
                output.writing(part) as file,
                pq.ParquetWriter(file, readable(dataset.schema), compression="zstd") as writer,
            ):
                for batch in _batches(dataset, first, column, wanted):
                    writer.write_table(pa.Table.from_batches([batch]).cast(readable(dataset.schema)))
        rows += pq.read_metadata(output.folder / part).num_rows
    return rows


def readable(schema: pa.Schema) -> pa.Schema:
    """The schema with plain lists in place of lists of fixed size that may be null."""
    fields = [
        field.with_type(pa.list_(field.type.value_type)) if field.nullable and pa.types.is_fixed_size_list(field.type) else field
        for field in schema
    ]
    return pa.schema(fields, schema.metadata)


def _batches(dataset: Any, first: int, column: str, wanted: set[str] | None) -> Iterator[pa.RecordBatch]:
    for batch in dataset.to_batches(offset=first, limit=ROWS_PER_PART, batch_size=_ROWS_AT_ONCE):
        if wanted is None:
            yield batch
        else:
            yield batch.filter(pa.array([id in wanted for id in batch.column(column).to_pylist()], pa.bool_()))


def _texts(corpus: Corpus, ids: set[str]) -> set[str]:
    dataset = corpus.open(CAPTIONS.name)
    if dataset is None:
        return set()
    said = dataset.to_table(columns=["object_id", "text_sha256"])
    return set(pc.unique(said.filter(pc.is_in(said["object_id"], pa.array(list(ids), pa.string())))["text_sha256"]).to_pylist())
