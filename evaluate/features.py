"""What an encoder makes of a benchmark's objects: one unit vector each, wherever the benchmark has them from, and with whatever
its publication left to chance.

    OpenShape (pointbert)   the points in an order drawn by chance, since its farthest points begin anywhere; of clouds with fewer
                            points than it wants (ScanObjectNN's 2,048) so many are drawn with replacement
    Uni3D                   the points as they are, and of fewer those there are; of more so many by chance
    multi-view encoders     so many of the stored views, drawn by chance for each object
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int64

from evaluate.benchmark import Benchmark, Cloud
from pipeline.stage import ObjectError
from schemas.check import vectors_of
from schemas.corpus import Reader
from schemas.tables import VIEWS
from trainer.encode import Encoder, Short, order_drawn, points_taken, views_drawn

BATCH = 32  # objects that the encoder sees together
MOST_WAITING = 8 * BATCH  # clouds that wait for others of their size
ROWS_AT_ONCE = 256  # of stored embeddings

# Told how many objects are done and how many have failed by now.
Progress = Callable[[int, int], None]

SHORT: dict[str, Short] = {"pointbert": "with replacement", "uni3d": "as they are"}
IN_ORDER_DRAWN = {"pointbert"}


@dataclass
class Features:
    """`numbers`: which of the benchmark's objects, ascending; `vectors`: theirs, of unit length. `failed`: why the others have
    none, by id. `by_chance`: whether another seed gives others."""

    numbers: Int64[np.ndarray, " m"]
    vectors: Float32[np.ndarray, "m d"]
    failed: dict[str, str] = field(default_factory=dict)
    by_chance: bool = False


def features(
    encoder: Encoder,
    benchmark: Benchmark,
    *,
    views: int | None = None,
    seed: int = 0,
    batch: int = BATCH,
    progress: Progress | None = None,
) -> Features:
    """The encoder's embeddings of the objects, in its evaluation's own way (above).

    `views`: so many of each object's stored views; an object that has fewer is left out; None: all. `seed`: of all that is drawn.
    `batch`: objects at once. Raises ValueError when an encoder of views is asked about files that hold points, and CorpusError
    where the corpus lacks a table.
    """
    if benchmark.corpus is not None:
        return _of_corpus(encoder, benchmark, benchmark.corpus, views, seed, batch, progress)
    if encoder.reads == "views":
        raise ValueError(
            f"its files hold points, and this encoder ({encoder.card.encoder}) reads views: build a corpus of its objects, "
            f"and give {benchmark.name}=ROOT"
        )
    return _of_clouds(encoder, benchmark, seed, batch, progress)


def averages(
    benchmark: Benchmark, teacher: str, *, views: int | None = None, seed: int = 0, progress: Progress | None = None
) -> Features:
    """The mean of the teacher's stored embeddings of each object's views, brought to unit length: no training (DuoduoCLIP's
    zero-shot baseline).

    `teacher`: its name in tables. `views`, `seed`: as for `features`. The mean is that of the vectors as the teacher gave them, if
    the corpus has the lengths of all; else of unit vectors (`are_raw`). Raises ValueError for a benchmark that is in no corpus,
    CorpusError where there are no such embeddings.
    """
    if benchmark.corpus is None:
        raise ValueError("its files hold points: embeddings of views are averaged where a corpus has them, as in NAME=ROOT")
    images = Reader.at(benchmark.corpus).need(f"image_embeddings/{teacher}")
    raw = are_raw(benchmark.corpus, teacher)
    wanted = _wanted(benchmark, images.to_table(columns=["object_id"])["object_id"].combine_chunks())
    made = Features(np.zeros(0, np.int64), np.zeros((0, 0), np.float32))
    vectors: dict[int, np.ndarray] = {}
    for first in range(0, len(wanted), ROWS_AT_ONCE):
        numbers, places = wanted[first : first + ROWS_AT_ONCE].T
        rows = images.take(places, columns=["embedding", "lengths"])
        lengths = rows["lengths"].to_pylist() if raw else [None] * len(rows)
        for number, embedding, length in zip(numbers.tolist(), _views_of_rows(rows), lengths, strict=True):
            id, stored = benchmark.ids[number], len(embedding)
            if views is not None and stored < views:
                made.failed[id] = _too_few(stored, views)
                continue
            seen = np.arange(stored) if views is None else views_drawn(id, stored, views, seed)
            made.by_chance |= len(seen) < stored
            mean = (embedding[seen] * (1 if length is None else np.array(length, np.float32)[seen, None])).mean(axis=0)
            vectors[number] = mean / np.linalg.norm(mean)
        if progress:
            progress(len(vectors), len(made.failed))
    return _gathered(made, benchmark, vectors, f"{benchmark.corpus} has no embeddings of its views by {teacher}")


def are_raw(corpus: str, teacher: str) -> bool:
    """Whether a corpus has the lengths of all the teacher's embeddings of views, so that their mean can be that of the vectors as
    the teacher gave them."""
    images = Reader.at(corpus).need(f"image_embeddings/{teacher}")
    return images.count_rows() > 0 and images.count_rows("lengths IS NULL") == 0


# ---------------------------------------------------------------------------------------------------------------- corpora


def _of_corpus(
    encoder: Encoder, benchmark: Benchmark, root: str, views: int | None, seed: int, batch: int, progress: Progress | None
) -> Features:
    made = Features(np.zeros(0, np.int64), np.zeros((0, 0), np.float32))
    number_of = {id: number for number, id in enumerate(benchmark.ids)}
    order = {}
    if encoder.reads == "views":
        counts = _views_stored(root, number_of)
        made.failed |= {id: _too_few(stored, views) for id, stored in counts.items() if views is not None and stored < views}
        made.by_chance = views is not None and any(stored > views for stored in counts.values())
        order = {"views": views, "seed": seed}
    elif encoder.card.encoder in IN_ORDER_DRAWN:
        made.by_chance = True
        order = {"seed": seed}
    vectors: dict[int, np.ndarray] = {}
    keep = number_of.keys() - made.failed.keys()
    for ids, embeddings in encoder.corpus(root, keep=keep, batch=batch, **order):
        vectors |= {number_of[id]: vector for id, vector in zip(ids, embeddings, strict=True)}
        if progress:
            progress(len(vectors), len(made.failed))
    return _gathered(made, benchmark, vectors, f"{root} has no {encoder.reads} of it")


def _views_stored(root: str, ids: dict[str, int]) -> dict[str, int]:
    """How many views each of these objects has, where it has any."""
    counted = pc.value_counts(Reader.at(root).need(VIEWS.name).to_table(columns=["object_id"])["object_id"])
    pairs = zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)
    return {id: count for id, count in pairs if id in ids}


def _too_few(stored: int, wanted: int) -> str:
    return f"it has {stored} of the {wanted} views that were asked for"


def _wanted(benchmark: Benchmark, stored: pa.Array) -> Int64[np.ndarray, "m 2"]:
    """Of the benchmark's objects that a table has, number and row, in the table's order."""
    rows = pc.index_in(pa.array(benchmark.ids, pa.string()), stored)
    there = rows.is_valid().to_numpy(zero_copy_only=False)
    found = np.stack([np.flatnonzero(there), rows.drop_null().to_numpy().astype(np.int64)], axis=1)
    return found[np.argsort(found[:, 1])]


def _views_of_rows(rows: pa.Table) -> list[Float32[np.ndarray, "views d"]]:
    vectors, counts = vectors_of(rows["embedding"].combine_chunks())
    return np.split(vectors.astype(np.float32), np.cumsum(counts)[:-1])


# ---------------------------------------------------------------------------------------------------------------- clouds


def _of_clouds(encoder: Encoder, benchmark: Benchmark, seed: int, batch: int, progress: Progress | None) -> Features:
    made = Features(np.zeros(0, np.int64), np.zeros((0, 0), np.float32), by_chance=encoder.card.encoder in IN_ORDER_DRAWN)
    vectors: dict[int, np.ndarray] = {}
    waiting: dict[tuple, list[tuple[int, Cloud]]] = defaultdict(list)  # clouds of the same size go together

    def encode(clouds: list[tuple[int, Cloud]]) -> None:
        vectors.update(_together(encoder, clouds, made.failed, benchmark))
        if progress:
            progress(len(vectors), len(made.failed))

    for number, cloud in _clouds(benchmark, made.failed):
        fed = _fed(encoder, cloud, seed)
        made.by_chance |= len(fed.xyz) < len(cloud.xyz)
        alike = waiting[len(fed.xyz), fed.rgb is None, fed.up]
        alike.append((number, fed))
        if len(alike) == batch:
            encode(alike)
            alike.clear()
        elif sum(map(len, waiting.values())) >= MOST_WAITING:  # of sizes that hardly any two share
            most = max(waiting.values(), key=len)
            encode(most)
            most.clear()
    for alike in waiting.values():
        if alike:
            encode(alike)
    return _gathered(made, benchmark, vectors, "")


def _clouds(benchmark: Benchmark, failed: dict[str, str]) -> Iterator[tuple[int, Cloud]]:
    for number, id in enumerate(benchmark.ids):
        try:
            yield number, benchmark.cloud(number)
        except ObjectError as error:
            failed[id] = f"{error.reason}: {error.message}"


def _fed(encoder: Encoder, cloud: Cloud, seed: int) -> Cloud:
    """The points that the encoder is fed, in their order."""
    kind, count = encoder.card.encoder, len(cloud.xyz)
    taken = points_taken(count, encoder.card.input.points, seed=seed, short=SHORT[kind])
    if kind in IN_ORDER_DRAWN and (taken is None or len(taken) < count):
        taken = order_drawn(count, seed)[: encoder.card.input.points]
    if taken is None:
        return cloud
    return Cloud(cloud.xyz[taken.numpy()], None if cloud.rgb is None else cloud.rgb[taken.numpy()], cloud.up)


def _together(
    encoder: Encoder, clouds: list[tuple[int, Cloud]], failed: dict[str, str], benchmark: Benchmark
) -> dict[int, Float32[np.ndarray, " d"]]:
    """Embeddings by number, of clouds of one size; where one of them cannot be encoded, of each alone."""
    first = clouds[0][1]
    rgb = None if first.rgb is None else np.stack([cloud.rgb for _, cloud in clouds])
    try:
        made = encoder.points(np.stack([cloud.xyz for _, cloud in clouds]), rgb, up=first.up)
        return {number: vector for (number, _), vector in zip(clouds, made, strict=True)}
    except ValueError as error:
        if len(clouds) == 1:
            failed[benchmark.ids[clouds[0][0]]] = str(error)
            return {}
    return {number: vector for one in clouds for number, vector in _together(encoder, [one], failed, benchmark).items()}


def _gathered(made: Features, benchmark: Benchmark, vectors: dict[int, np.ndarray], why: str) -> Features:
    """What was made, in the benchmark's order; objects that nothing was said of have failed for this reason."""
    made.numbers = np.array(sorted(vectors), np.int64)
    made.vectors = np.stack([vectors[number] for number in made.numbers.tolist()]) if vectors else made.vectors
    made.failed |= {id: why for number, id in enumerate(benchmark.ids) if number not in vectors and id not in made.failed}
    return made
