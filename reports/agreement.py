"""How much a teacher finds pictures and captions to belong together: cosines of a sample of objects, counted.

A caption must lie nearer to the views of its object than to those of another. How much nearer, and for which captions and which
views, is counted to a thousandth, so that any number of pairs takes the same room.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int, Int64

from reports.sample import chosen
from reports.scans import scanned
from schemas.check import matrix, vectors_of
from schemas.corpus import Reader
from schemas.tables import CAPTIONS

GRAIN = 1000  # cosines are counted to a thousandth; float16 keeps no more
BINS = 2 * GRAIN + 1
MOST_VIEWS = 64  # view numbers told apart; further views of an object count in the whole alone
WORST = 12  # objects that agree least with their captions
OBJECTS_AT_ONCE = 128


@dataclass(frozen=True)
class Agreement:
    """Cosines counted to a thousandth, of a sample of objects.

    `ids`: the objects, in an order by chance; `means`: of each the mean of its views, unit length. `texts`: of each how many kept
    captions are embedded. `score`: mean cosine of its views with its captions; not a number where it has none. `origins`: of the
    captions. `counts`: pairs of a view and a caption, the object's own (0) or another's (1), by the caption's origin and by the
    number of the view (the last one: all further). `views`: pairs of views, of one object (0) and of two (1). `worst`: objects by
    score, the lowest first, and the row of a caption of each in the text table.
    """

    ids: pa.Array
    means: Float32[np.ndarray, "n d"]
    texts: Int64[np.ndarray, " n"]
    score: Float32[np.ndarray, " n"]
    origins: list[str]
    counts: Int64[np.ndarray, "2 origins views bins"]
    views: Int64[np.ndarray, "2 bins"]
    worst: list[tuple[int, int]]


def agreement(corpus: Reader, teacher: str, *, sample: int, seed: int = 0) -> Agreement:
    """Count the cosines of at most so many objects. Another object's captions are those of the next one by chance, without those
    that the object has itself. Raises CorpusError when the views have not been embedded."""
    images, texts = corpus.need(f"image_embeddings/{teacher}"), corpus.open(f"text_embeddings/{teacher}")
    everything = images.to_table(columns=["object_id"])["object_id"].combine_chunks()
    ids = chosen(everything, sample, seed=seed)
    places = pc.index_in(ids, everything).to_numpy()
    said = _said(corpus, texts, ids)
    origins = sorted(pc.unique(said["origin"]).to_pylist())
    origin = pc.index_in(said["origin"], pa.array(origins, pa.string())).to_numpy()
    text, starts = said["row"].to_numpy(), np.searchsorted(said["object"].to_numpy(), np.arange(len(ids) + 1))
    counts = np.zeros((2, len(origins), MOST_VIEWS + 1, BINS), np.int64)
    of_views = np.zeros((2, BINS), np.int64)
    score, means = np.full(len(ids), np.nan, np.float32), []
    for begin in range(0, len(ids), OBJECTS_AT_ONCE):
        block = range(begin, min(begin + OBJECTS_AT_ONCE, len(ids)))
        views, mean = views_of(images, places[block.start : block.stop])
        means.append(mean)
        own = [slice(starts[object], starts[object + 1]) for object in block]
        wanted, inverse = np.unique(text[own[0].start : own[-1].stop], return_inverse=True)
        vectors = _texts(texts, wanted)
        told = [place for place in range(len(block)) if own[place].start < own[place].stop]
        for place, other in zip(told, np.roll(told, -1), strict=True):
            mine, theirs = (np.arange(own[one].start, own[one].stop) for one in (place, other))
            theirs = theirs[~np.isin(text[theirs], text[mine])]  # two objects may have one caption
            for whose, captions in enumerate((mine, theirs)):
                cosine = views[place] @ vectors[inverse[captions - own[0].start]].T
                number = np.minimum(np.arange(len(cosine)), MOST_VIEWS)
                np.add.at(counts[whose], (origin[captions][None], number[:, None], _bin(cosine)), 1)
                if whose == 0:
                    score[block[place]] = cosine.mean()
        for place in range(len(block)):
            several, next_one = views[place], views[(place + 1) % len(block)]
            pairs = [(several[1:], several[:-1])]
            if len(block) > 1:
                both = min(len(several), len(next_one))
                pairs.append((several[:both], next_one[:both]))
            for which, (one, other) in enumerate(pairs):
                of_views[which] += np.bincount(_bin((one * other).sum(axis=1)), minlength=BINS)
    worst = np.argsort(score, kind="stable")[: min(WORST, int(np.isfinite(score).sum()))]
    dim = images.schema.field("embedding").type.value_type.list_size
    return Agreement(
        ids=ids,
        means=np.concatenate([np.empty((0, dim), np.float32), *means]),
        texts=np.diff(starts),
        score=score,
        origins=origins,
        counts=counts,
        views=of_views,
        worst=[(int(object), int(text[starts[object]])) for object in worst],
    )


def _said(corpus: Reader, texts: Any, ids: pa.Array) -> pa.Table:
    """Kept captions of these objects that are embedded: number of the object among the ids, origin, row of the text; by these."""
    columns = ["object_id", "origin", "text_sha256"]
    pieces = [pa.table({name: pa.array([], pa.string()) for name in columns})]
    for piece in scanned(corpus.open(CAPTIONS.name), columns, "kept"):
        pieces.append(piece.filter(pc.is_in(piece["object_id"], ids)))
    said = pa.concat_tables(pieces, promote_options="default")
    keys, rows = _rows_of(texts, pc.unique(said["text_sha256"]))
    made = pa.table(
        {
            "object": pc.index_in(said["object_id"], ids).cast(pa.int64()),
            "origin": said["origin"],
            "row": rows.take(pc.index_in(said["text_sha256"], keys)),
        }
    )
    return made.filter(made["row"].is_valid()).sort_by([(name, "ascending") for name in made.column_names]).combine_chunks()


def _rows_of(texts: Any, wanted: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Which of the texts are embedded, and in which row of the table."""
    keys, rows, first = [pa.array([], pa.string())], [np.empty(0, np.int64)], 0
    for piece in scanned(texts, ["text_sha256"]):
        places = np.flatnonzero(pc.is_in(piece["text_sha256"], wanted).to_numpy())
        keys += piece["text_sha256"].take(places).chunks
        rows.append(first + places)
        first += len(piece)
    return pa.concat_arrays(keys), pa.array(np.concatenate(rows))


def views_of(images: Any, places: Int[np.ndarray, " n"]) -> tuple[list[Float32[np.ndarray, "v d"]], Float32[np.ndarray, "n d"]]:
    """The views' vectors of objects, and each object's mean, of unit length."""
    column = images.take(places, columns=["embedding"])["embedding"].combine_chunks()
    vectors, counts = vectors_of(column)
    return np.split(vectors.astype(np.float32), np.cumsum(counts)[:-1]), means_of(vectors, counts)


def _texts(texts: Any, rows: Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n d"]:
    if not len(rows):
        return np.empty((0, 0), np.float32)
    return matrix(texts.take(rows, columns=["embedding"])["embedding"]).astype(np.float32)


def means_of(vectors: np.ndarray, counts: Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n d"]:
    """Of each so many vectors the mean, brought to unit length. Those of one count are summed in one go: this runs over tables."""
    sums = np.empty((len(counts), vectors.shape[1]), np.float32)
    for count in np.unique(counts):
        which = counts == count
        sums[which] = vectors[np.repeat(which, counts)].reshape(-1, count, vectors.shape[1]).sum(axis=1, dtype=np.float32)
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def _bin(cosine: Float32[np.ndarray, " *n"]) -> Int64[np.ndarray, " *n"]:
    return np.clip(np.rint((cosine + 1) * GRAIN), 0, BINS - 1).astype(np.int64)


def above(some: Int64[np.ndarray, " bins"], others: Int64[np.ndarray, " bins"]) -> float | None:
    """How often one of the first lies above one of the others, those as large counted half: the area under the ROC curve. None:
    there are none of either."""
    pairs = int(some.sum()) * int(others.sum())
    return float((some * (np.cumsum(others) - others / 2)).sum() / pairs) if pairs else None


def spread_of(counts: Int64[np.ndarray, " bins"]) -> dict[str, float | int | None]:
    """How many cosines there are, their mean, and quantiles to a thousandth."""
    total = int(counts.sum())
    if not total:
        return {"pairs": 0} | dict.fromkeys(("mean", "p05", "median", "p95"))
    below, value = np.cumsum(counts), np.arange(BINS) / GRAIN - 1
    quantiles = {name: float(value[np.searchsorted(below, q * total)]) for name, q in _QUANTILES.items()}
    return {"pairs": total, "mean": float(counts @ value / total)} | {name: round(q, 3) for name, q in quantiles.items()}


_QUANTILES = {"p05": 0.05, "median": 0.5, "p95": 0.95}


def compared(counts: Int64[np.ndarray, "2 bins"]) -> dict[str, Any]:
    """The figures of cosines with the own and with another's."""
    return {"matched": spread_of(counts[0]), "mismatched": spread_of(counts[1]), "matched_above_mismatched": above(*counts)}
