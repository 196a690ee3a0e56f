"""A gallery: the objects of a corpus as one unit vector each in a teacher's space, in which the nearest to a query are looked up.

A teacher's own gallery is the mean of its embeddings of each object's views; a checkpoint's is what the encoder makes of the stored
points or views. It is kept as a table (`schemas.tables.shape_embeddings`) that a stage fills, and a large one gets a vector index.
A corpus that nobody may write to is searched all the same: the vectors are then made on the way.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float32

from evaluate.retrieval import cosines
from pipeline.embed import half_unit
from pipeline.stage import Made, Task, Work
from pipeline.store import Corpus
from schemas.check import vectors_of
from schemas.corpus import CorpusError, Reader, any_of
from schemas.tables import POINTS, VIEWS, Table, shape_embeddings
from trainer.checkpoints import to_json
from trainer.encode import Device, Encoder

# Rows from which on an index is worth its place on disk, that of the vectors once more. On two cores, of 1,280 numbers: 20,000 rows
# are looked at in 0.2 s; 200,000 in 2 s, through the index, which is made in 19 s, in 35 ms.
INDEX_FROM = 20_000
# IVF_FLAT keeps the vectors as they are, so that what it finds has its own cosine. How many of its cells are looked into is left to
# Lance: of 200,000 clustered vectors it found all of the ten nearest, also of queries that are far from every vector, as texts are
# (20 of 48 cells: 99.2 %). IVF_PQ took eleven times as long to make (204 s), and had to be refined to find as much.
INDEX = "IVF_FLAT"
# More new rows than this share of the indexed ones: the index's cells are found anew.
RETRAIN_SHARE = 0.5

# A cosine in float32 may be off by this, whatever the order of its additions; what may be among the nearest is computed exactly.
ROUNDING = 1e-3
# Ids and unit vectors, in batches.
Vectors = Iterator[tuple[list[str], Float32[np.ndarray, "b d"]]]

_COLUMN = "embedding"
_OBJECTS_AT_ONCE = 4096


@dataclass(frozen=True)
class Hit:
    """An object that was found, and the cosine between it and the query."""

    object_id: str
    score: float


@dataclass(frozen=True, kw_only=True)
class MeanOfViews:
    """Per object the mean of a teacher's embeddings of its views, as the teacher gave them where their lengths are stored."""

    version: ClassVar[int] = 1
    per: ClassVar[str] = "object_id"
    columns: ClassVar[tuple[str, ...]] = ("object_id",)  # the vectors themselves are read as Arrow has them, not row by row
    depends: ClassVar[tuple[str, ...]] = ("stage_key",)
    where: ClassVar[None] = None
    batch: ClassVar[int] = _OBJECTS_AT_ONCE
    cpus: ClassVar[None] = None
    gpus: ClassVar[float] = 0.0

    root: str
    teacher: str
    dim: int

    @property
    def name(self) -> str:
        return self.writes.name

    @property
    def reads(self) -> str:
        return f"image_embeddings/{self.teacher}"

    @property
    def writes(self) -> Table:
        return shape_embeddings(self.teacher, self.dim)

    def settings(self) -> dict[str, Any]:
        return {"of": "mean of views"}

    def start(self) -> Work:
        return _each(self)

    def vectors(self, keep: Collection[str] | None) -> Vectors:
        """Ids and unit vectors of all objects, or at least of those to keep, in the table's order."""
        table = Reader.at(self.root).need(self.reads)
        for batch in table.to_batches(columns=["object_id", _COLUMN, "lengths"], filter=_only(keep), batch_size=_OBJECTS_AT_ONCE):
            if len(batch):
                yield batch["object_id"].to_pylist(), mean_of_views(batch[_COLUMN], batch["lengths"])


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What a checkpoint makes of each object's stored points or views."""

    version: ClassVar[int] = 1
    per: ClassVar[str] = "object_id"
    columns: ClassVar[tuple[str, ...]] = ("object_id",)
    depends: ClassVar[tuple[str, ...]] = ("stage_key",)
    where: ClassVar[None] = None
    batch: ClassVar[int] = 1024
    cpus: ClassVar[None] = None

    root: str
    # As `trainer.checkpoints.load` takes them.
    checkpoint: str
    published: str | None = None
    device: Device = "auto"

    @property
    def encoder(self) -> Encoder:
        """Loaded once in a process. Raises ValueError."""
        return _loaded(self.checkpoint, self.published, self.device)[0]

    @property
    def weights(self) -> str:
        """Hash of the encoder's weights and of how it is fed, hexadecimal."""
        return _loaded(self.checkpoint, self.published, self.device)[1]

    @property
    def name(self) -> str:
        return self.writes.name

    @property
    def reads(self) -> str:
        return POINTS.name if self.encoder.reads == "points" else VIEWS.name

    @property
    def writes(self) -> Table:
        made_by, card = self.encoder.card.made_by, self.encoder.card
        readable = re.sub(r"[^\w.+-]", "-", str(made_by.get("recipe") or made_by.get("published") or card.encoder))
        return shape_embeddings(f"{readable}-{self.weights[:12]}", card.config["out"])

    @property
    def gpus(self) -> float:
        return 1.0 if self.device == "cuda" else 0.0

    def settings(self) -> dict[str, Any]:
        return {"of": self.encoder.reads, "weights": self.weights, "space_of": (self.encoder.card.teacher or {}).get("name")}

    def start(self) -> Work:
        return _each(self)

    def vectors(self, keep: Collection[str] | None) -> Vectors:
        """Ids and unit vectors of all objects, or of those to keep, in the table's order."""
        return self.encoder.corpus(self.root, keep=keep)


Source = MeanOfViews | Encoded


@dataclass(frozen=True)
class Gallery:
    """The objects of a corpus as vectors: the kept table where there is one, else made on the way from where they come."""

    source: Source

    @property
    def corpus(self) -> Corpus:
        return Corpus.at(self.source.root)

    @property
    def table(self) -> str:
        """Name of the table that keeps it."""
        return self.source.writes.name

    def count(self) -> tuple[int, int]:
        """Objects in the kept table, and objects of which there could be vectors. They differ when it has to be brought up to
        date (whether objects were replaced meanwhile, `pipeline.status` tells)."""
        kept = self.corpus.open(self.table)
        there = self.corpus.need(self.source.reads)
        objects = there.count_rows() if self.source.reads != VIEWS.name else there.count_rows("view = 0")
        return 0 if kept is None else kept.count_rows(), objects

    def indexed(self) -> bool:
        """Whether the kept table has a vector index."""
        kept = self.corpus.open(self.table)
        return kept is not None and _index(kept) is not None

    def vectors(self, keep: Collection[str] | None = None) -> Vectors:
        """Ids and unit vectors of all objects, or at least of those to keep."""
        kept = self.corpus.open(self.table)
        if kept is None:
            yield from self.source.vectors(keep)
            return
        for batch in kept.to_batches(columns=["object_id", _COLUMN], filter=_only(keep), batch_size=_OBJECTS_AT_ONCE):
            if len(batch):
                yield batch["object_id"].to_pylist(), _flat(batch[_COLUMN]).reshape(len(batch), -1).astype(np.float32)

    def vector(self, object_id: str) -> Float32[np.ndarray, " d"]:
        """The unit vector of one object. Raises CorpusError when it has none."""
        for _, vectors in self.vectors([object_id]):
            return vectors[0]
        raise CorpusError(
            f"{self.corpus.root} has no object {object_id!r} in {self.source.reads}: give an id as its table objects has it"
        )

    def nearest(
        self,
        query: Float32[np.ndarray, " d"],
        count: int,
        *,
        among: Collection[str] | None = None,
        without: Collection[str] = (),
        exact: bool = False,
        watch: Callable[[int], None] = lambda done: None,
    ) -> list[Hit]:
        """The objects nearest to a query by cosine, the nearest first; of equals the one that stands first in the table.

        Through the index where there is one, unless `exact`, or `among` says which objects may be found: then all vectors are
        looked at. `without`: objects that may not be found. `watch` is told how many objects have been looked at.
        """
        kept = self.corpus.open(self.table)
        if kept is None or exact or among is not None or _index(kept) is None:
            return nearest(_watched(self.vectors(among), watch), query, count, among=among, without=without)
        found = kept.to_table(
            columns=["object_id", "_distance"],
            nearest={"column": _COLUMN, "q": query, "k": count + len(without), "metric": "cosine"},
        ).to_pylist()
        hits = [Hit(row["object_id"], 1 - row["_distance"]) for row in found if row["object_id"] not in without]
        return hits[:count]


def nearest(
    vectors: Vectors,
    query: Float32[np.ndarray, " d"],
    count: int,
    *,
    among: Collection[str] | None = None,
    without: Collection[str] = (),
) -> list[Hit]:
    """The nearest to a query of unit vectors that come in batches, as `Gallery.nearest` gives them; all of them are looked at."""
    query = query / np.linalg.norm(query)
    best: list[Hit] = []
    for ids, some in vectors:
        floor = best[-1].score if len(best) == count else -np.inf
        rows = [row for row in np.flatnonzero(some @ query >= floor - ROUNDING) if ids[row] not in without]
        rows = [row for row in rows if among is None or ids[row] in among]
        scores = cosines(torch.from_numpy(query[None]), torch.from_numpy(some[rows]))[0].tolist()
        found = [Hit(ids[row], score) for row, score in zip(rows, scores, strict=True)]
        best = sorted(best + found, key=lambda hit: -hit.score)[:count]  # stable: of equals the earlier stays ahead
    return best


def index(gallery: Gallery) -> str:
    """Give the kept table an index if it is large enough, or put the rows that came since into the one it has; says what was done.
    The corpus must be locked by the caller."""
    kept = gallery.corpus.need(gallery.table)
    rows = kept.count_rows()
    there = _index(kept)
    if there is None and rows < INDEX_FROM:
        return f"no index: of fewer than {INDEX_FROM:,} objects, all are looked at"
    if there is not None:
        new = rows - there.num_rows_indexed
        if not new:
            return f"the index is up to date: {rows:,} objects"
        if new <= RETRAIN_SHARE * there.num_rows_indexed:
            kept.optimize.optimize_indices(num_indices_to_merge=1)
            return f"{new:,} new objects put into the index"
    kept.create_index(_COLUMN, INDEX, metric="cosine", replace=True)
    return f"{INDEX} index of {rows:,} objects made"


def mean_of_views(embedding: pa.ListArray, lengths: pa.ListArray) -> Float32[np.ndarray, "n d"]:
    """Unit vectors of objects from the columns `embedding` and `lengths` of image_embeddings: the mean over an object's views, of
    the vectors as the teacher gave them, or of unit vectors where their lengths were not kept."""
    vectors, counts = vectors_of(embedding)
    stored = np.repeat(lengths.is_valid().to_numpy(zero_copy_only=False), counts)
    factors = np.ones(len(vectors), np.float32)
    factors[stored] = lengths.drop_null().flatten().to_numpy(zero_copy_only=False)
    sums = np.add.reduceat(vectors.astype(np.float32) * factors[:, None], np.cumsum(counts) - counts, axis=0)
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def _only(keep: Collection[str] | None) -> str | None:
    """SQL condition for a few objects; None: all, of which many are sooner told apart than by a condition that names them."""
    return None if keep is None or len(keep) > _OBJECTS_AT_ONCE else any_of("object_id", keep)


def _watched(batches: Vectors, watch: Callable[[int], None]) -> Vectors:
    done = 0
    for ids, vectors in batches:
        yield ids, vectors
        watch(done := done + len(ids))


def _flat(vectors: pa.FixedSizeListArray) -> np.ndarray:
    return vectors.flatten().to_numpy(zero_copy_only=False)


def _each(source: Source) -> Work:
    """Work that makes the rows of the objects of a call together."""

    def work(tasks: list[Task]) -> Made:
        made = Made()
        for ids, vectors in source.vectors([task.id for task in tasks]):
            rows = zip(ids, half_unit(vectors), strict=True)
            made.add(source.name, [{"object_id": id, _COLUMN: vector} for id, vector in rows])
        return made

    return work


@cache
def _loaded(checkpoint: str, published: str | None, device: Device) -> tuple[Encoder, str]:
    """The encoder, and the hash of all that its embeddings depend on."""
    encoder = Encoder.load(checkpoint, name=published, device=device)
    card = to_json(encoder.card)
    digest = hashlib.sha256(json.dumps({key: card[key] for key in ("encoder", "config", "input")}, sort_keys=True).encode())
    for name, weight in sorted(encoder.module.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy().data)
    return encoder, digest.hexdigest()


def _index(table: Any) -> Any | None:
    return next((one for one in table.describe_indices() if one.field_names == [_COLUMN]), None)
