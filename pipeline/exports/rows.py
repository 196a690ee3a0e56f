"""Which objects leave a corpus, and their rows, table by table, a few objects at a time."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.stage import Row
from pipeline.store import Corpus, quote
from pipeline.weights import DEFAULT_TEACHER
from schemas.check import matrix
from schemas.tables import OBJECTS, SPLITS


@dataclass(frozen=True)
class Chosen:
    """Objects to export: `ids` in an order that is always the same and mixes the sources (by a hash of the id), how many have which
    `licenses`, and what the `split` calls them."""

    ids: list[str]
    licenses: dict[str, int]
    labels: dict[str, str | None]


def choose(corpus: Corpus, *, split: str | None = None, licenses: Sequence[str] = ()) -> Chosen:
    """The objects of a split (None: all) that have one of the `licenses` ("unknown" is one; none given: any).

    Raises ValueError, with a sentence, for a split or a licence that the corpus does not have.
    """
    rows = corpus.need(OBJECTS.name).to_table(columns=["object_id", "license"])
    had = Counter(rows["license"].to_pylist())
    if unknown := set(licenses) - had.keys():
        raise ValueError(f"no object has the licence {sorted(unknown)[0]!r}; the corpus has: {', '.join(sorted(had))}")
    labels = {} if split is None else _labels(corpus, split)
    if licenses:
        rows = rows.filter(pc.is_in(rows["license"], pa.array(list(licenses), pa.string())))
    if split is not None:
        rows = rows.filter(pc.is_in(rows["object_id"], pa.array(list(labels), pa.string())))
    ids = sorted(rows["object_id"].to_pylist(), key=digest)
    return Chosen(ids, dict(Counter(rows["license"].to_pylist()).most_common()), labels)


def _labels(corpus: Corpus, split: str) -> dict[str, str | None]:
    dataset = corpus.open(SPLITS.name)
    names = set(dataset.to_table(columns=["split"])["split"].to_pylist()) if dataset else set()
    if split not in names:
        has = f"it has: {', '.join(sorted(names))}" if names else "it has none: `import ROOT --split NAME=FILE` brings one in"
        raise ValueError(f"the corpus has no split {split!r}; {has}")
    rows = dataset.to_table(columns=["object_id", "label"], filter=f"split = {quote(split)}")
    return dict(zip(rows["object_id"].to_pylist(), rows["label"].to_pylist(), strict=True))


def choose_teacher(corpus: Corpus, asked: str | None) -> str | None:
    """The teacher whose embeddings are exported: the one asked for, the only one, or the default one; None: the corpus has none.

    Raises ValueError when it has not the one asked for, or several of which none is the default; CorpusError when its tables hold
    embeddings of different weights.
    """
    teachers = corpus.teachers()
    if asked is not None and asked not in teachers:
        raise ValueError(f"the corpus has no image embeddings of {asked!r}; it has: {', '.join(teachers) or 'none'}")
    if asked is None and len(teachers) > 1 and DEFAULT_TEACHER not in teachers:
        raise ValueError(f"the corpus has several teachers: say --teacher with one of {', '.join(teachers)}")
    chosen = asked or (DEFAULT_TEACHER if DEFAULT_TEACHER in teachers else next(iter(teachers), None))
    if chosen:
        corpus.teacher_of(chosen)  # raises
    return chosen


class Rows:
    """The rows of an open table (None: it was never made), found by an id. Of each row 16 bytes are kept in memory."""

    def __init__(self, dataset: Any, column: str = "object_id"):
        self.dataset, self.column = dataset, column
        batches = dataset.to_batches(columns=[column]) if dataset else ()
        hashes = np.concatenate([np.zeros(0, np.uint64), *(_hashes(batch.column(0).to_pylist()) for batch in batches)])
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]

    def has(self, ids: Sequence[str]) -> np.ndarray:
        """(n,) bool: which of the ids have rows."""
        return np.isin(_hashes(ids), self._sorted)

    def of(self, ids: Sequence[str], columns: Sequence[str] | None = None) -> pa.Table | None:
        """The rows of some ids, in the table's order; None: there are none."""
        wanted = _hashes(ids)
        starts, ends = (np.searchsorted(self._sorted, wanted, side) for side in ("left", "right"))
        positions = np.concatenate([np.zeros(0, np.int64), *(self._order[a:b] for a, b in zip(starts, ends, strict=True) if a < b)])
        if not len(positions):
            return None
        names = self.dataset.schema.names if columns is None else [*dict.fromkeys([self.column, *columns])]
        rows = self.dataset.take(np.sort(positions), columns=list(names))
        return rows.filter(pc.is_in(rows[self.column], pa.array(list(ids), pa.string())))  # two ids may have one hash


def digest(id: str) -> bytes:
    """A hash of an id that sorts at random and serves as a name."""
    return hashlib.blake2b(id.encode(), digest_size=16).digest()


def _hashes(ids: Iterable[str]) -> np.ndarray:
    return np.frombuffer(b"".join(digest(id)[:8] for id in ids), np.uint64)


_POINTS_COLUMNS = ("canonical_from_asset", "vertices", "faces", "area", "warnings")


def by_id(rows: pa.Table | None) -> dict[str, Row]:
    """Plain rows by object; for small columns."""
    return {} if rows is None else {row["object_id"]: row for row in rows.to_pylist()}


def captions_of(rows: pa.Table | None) -> dict[str, list[Row]]:
    """The captions of each object, in the order of stage and number."""
    grouped: dict[str, list[Row]] = defaultdict(list)
    for row in [] if rows is None else sorted(rows.to_pylist(), key=lambda row: (row["stage"], row["caption"])):
        grouped[row["object_id"]].append(row)
    return grouped


def points_of(rows: pa.Table | None) -> dict[str, Row]:
    """The rows of POINTS by object, xyz and rgb as flat arrays."""
    if rows is None:
        return {}
    about = rows.select(["object_id", *_POINTS_COLUMNS]).to_pylist()
    colored = rows["rgb"].is_valid().to_pylist()
    return {
        row["object_id"]: row | {"xyz": xyz, "rgb": rgb if has else None}
        for row, xyz, rgb, has in zip(about, matrix(rows["xyz"]), matrix(rows["rgb"]), colored, strict=True)
    }


def images_of(rows: pa.Table | None) -> dict[str, Row]:
    """The image embeddings by object: embedding (v, d) float16, lengths (v, 1) float32 or None, thumbnail (d,) float32 or None."""
    if rows is None:
        return {}
    found = {}
    for number, id in enumerate(rows["object_id"].to_pylist()):
        vectors = rows["embedding"][number].values
        lengths, thumbnail = (rows[name][number].values for name in ("lengths", "thumbnail"))
        found[id] = {
            "embedding": vectors.flatten().to_numpy().reshape(len(vectors), -1),
            "lengths": None if lengths is None else lengths.to_numpy()[:, None],
            "thumbnail": None if thumbnail is None else thumbnail.to_numpy().astype(np.float32),
        }
    return found


def texts_of(rows: pa.Table | None) -> dict[str, Row]:
    """The text embeddings by the text's hash: embedding (d,) float16, length or None, prompt_averaged (d,) float32 or None."""
    if rows is None:
        return {}
    return {
        key: {"embedding": vector, "length": length, "prompt_averaged": _float32(averaged.values)}
        for key, vector, length, averaged in zip(
            rows["text_sha256"].to_pylist(),
            matrix(rows["embedding"]),
            rows["length"].to_pylist(),
            rows["prompt_averaged"],
            strict=True,
        )
    }


def _float32(values) -> np.ndarray | None:
    return None if values is None else values.to_numpy().astype(np.float32)
