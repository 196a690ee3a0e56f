"""Objects chosen by chance, the same ones for the same ids and seed whatever order they come in, and their rows in any table."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from schemas.corpus import Reader


def chosen(ids: pa.Array, count: int, *, seed: int = 0) -> pa.Array:
    """At most `count` of the ids, each as likely as any other, in an order by chance: the first m of them are a sample as well."""
    order = np.random.default_rng(seed).permutation(len(ids))[:count]
    return pc.take(ids.take(pc.sort_indices(ids)), pa.array(order))


def rows_of(corpus: Reader, table: str, ids: pa.Array) -> Int64[np.ndarray, " n"]:
    """Numbers of the rows of these objects in a table, ascending, for `take`; one scan over the ids alone."""
    dataset = corpus.open(table)
    if dataset is None:
        return np.empty(0, np.int64)
    found, first = [], 0
    for batch in dataset.to_batches(columns=["object_id"], batch_size=1 << 20):
        found.append(first + np.flatnonzero(pc.is_in(batch["object_id"], ids).to_numpy(zero_copy_only=False)))
        first += len(batch)
    return np.concatenate(found) if found else np.empty(0, np.int64)
