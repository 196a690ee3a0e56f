"""What the objects of a corpus are called: labels of a list (SPLITS), or else the categories of their collections (OBJECTS)."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from schemas.corpus import CorpusError, Reader, quote
from schemas.tables import OBJECTS, SPLITS

_ROWS_AT_ONCE = 1 << 20  # of ids and names

# Table, column and condition of what is said of objects.
Said = tuple[str, str, str | None]


def labelled(corpus: Reader) -> list[str]:
    """The splits that have labels."""
    if corpus.open(SPLITS.name) is None:
        return []
    found = corpus.need(SPLITS.name).to_table(columns=["split"], filter="label IS NOT NULL")["split"]
    return sorted(pc.unique(found).to_pylist())


def usual_split(corpus: Reader) -> str | None:
    """objaverse-lvis, or else the only split with labels; None: neither, so that categories serve."""
    there = labelled(corpus)
    return "objaverse-lvis" if "objaverse-lvis" in there else there[0] if len(there) == 1 else None


def class_names(corpus: Reader, split: str | None) -> Said:
    """Where the class names of objects stand: the labels of a split; None: categories. CorpusError: there is no such split."""
    if split is None:
        return OBJECTS.name, "categories", None
    corpus.need(SPLITS.name)
    if split not in (there := labelled(corpus)):
        raise CorpusError(f"{corpus.root} has no split {split!r} with labels; it has: {', '.join(there) or 'none'}")
    return SPLITS.name, "label", f"split = {quote(split)} AND label IS NOT NULL"


def pairs(corpus: Reader, said: Said, version: int | None = None) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Object ids and what is said of them, in batches; an object occurs once for each thing that is said of it."""
    table, column, where = said
    dataset = corpus.open(table, version)
    if dataset is None:
        return
    for batch in dataset.to_batches(columns=["object_id", column], filter=where, batch_size=_ROWS_AT_ONCE):
        ids, names = batch["object_id"], batch[column]
        if pa.types.is_list(names.type):
            ids, names = ids.take(pc.list_parent_indices(names)), names.flatten()
        yield ids, names


def labels(corpus: Reader, split: str | None) -> tuple[pa.Array, pa.Array]:
    """Object ids and class names of a split (None: categories); an object occurs once for each of its names."""
    found = list(pairs(corpus, class_names(corpus, split)))
    nothing = pa.array([], pa.string())
    return pa.concat_arrays([nothing, *(ids for ids, _ in found)]), pa.concat_arrays([nothing, *(names for _, names in found)])
