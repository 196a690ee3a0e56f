"""Retrieval between shapes and captions, as MRD's tables have it, and from pictures and shapes to shapes: each query against all of
the other kind, blockwise.

Torch, because the same lines run on a CPU and, fast, on a GPU: at 46,205 x 46,205 in 1,280 dimensions it is all one matrix product.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Bool, Float, Float16, Float64, Int, Int64
from torch import Tensor

from schemas.corpus import CorpusError, Reader, quote
from schemas.tables import CAPTIONS

TOP = (1, 3, 5)
# Unit vectors are rounded to multiples of this. Products are then multiples of its square, and any sum of them, being at most 1,
# has 51 bits: float64 holds it whatever the order of the additions. It costs a cosine about 1e-8.
STEP = 2.0**-25
QUERIES_AT_ONCE = 512
# Pairs whose cosines are computed one by one; and from which share of all pairs on one matrix product of all is faster.
PAIRS_AT_ONCE, SHARE_BY_PAIR = 512, 1 / 64
# Pairs that are kept for each of a gallery's vectors while both ways are looked up at once; of more, each way goes by itself.
MOST_KEPT = 64


@dataclass(frozen=True)
class Retrieval:
    """Shares of queries of which at least one of the nearest 1, 3, 5 is what was looked for: `instance`, the query's own object;
    `category`, an object of the query's category."""

    queries: int
    instance: tuple[float, ...]
    category: tuple[float, ...]


def cosines(queries: Float[Tensor, "q d"], gallery: Float[Tensor, "g d"]) -> Float64[Tensor, "q g"]:
    """Cosines, the same to the last bit on any device and in blocks of any size; those with equal vectors are equal."""
    return _unit(queries) @ _unit(gallery).T


def ranked(queries: Float[Tensor, "q d"], gallery: Float[Tensor, "g d"], count: int) -> Int64[Tensor, "q k"]:
    """The `count` nearest of the gallery to each query (all, where it has fewer), by cosine, the nearest first; of those that are
    as near, the one with the lower number first.

    Works on the gallery's device, on a block of queries at a time; the lists are on the CPU. Raises ValueError for embeddings that
    are not finite.
    """
    count = min(count, len(gallery))
    units = _unit(gallery)
    rough = units.float() if torch.get_float32_matmul_precision() == "highest" else units
    lists = []
    for block in queries.split(QUERIES_AT_ONCE):
        block = _unit(block.to(gallery.device))
        near = block.to(rough.dtype) @ rough.T
        lists.append(_lists(*_candidates(near, block, units, count), len(block), count))
    return torch.cat(lists)


def ranked_both_ways(
    queries: Float[Tensor, "q d"], gallery: Float[Tensor, "g d"], count: int
) -> tuple[Int64[Tensor, "q k"], Int64[Tensor, "g l"]]:
    """`ranked(queries, gallery)` and `ranked(gallery, queries)`, by one matrix product instead of two."""
    there, back = min(count, len(gallery)), min(count, len(queries))
    alone = torch.get_float32_matmul_precision() != "highest"
    units = _unit(gallery)
    rough = units.float()
    least = 2 * off(rough.shape[1])
    lists, kept, best = [], [], rough.new_full((back, len(gallery)), -torch.inf)
    for block in () if alone else queries.split(QUERIES_AT_ONCE):
        block = _unit(block.to(gallery.device))
        near = block.float() @ rough.T
        lists.append(_lists(*_candidates(near, block, units, there), len(block), there))
        best = torch.cat([best, near.topk(min(back, len(block)), dim=0).values]).topk(back, dim=0).values
        query, item = (near >= best[-1] - least).nonzero(as_tuple=True)
        kept.append((query, item, near[query, item]))
        if alone := sum(len(query) for query, *_ in kept) > MOST_KEPT * len(gallery):
            break
    if alone:
        return ranked(queries, gallery, count), ranked(gallery, queries.to(gallery.device), count)
    pairs, first = [], 0
    for block, (query, item, near) in zip(queries.split(QUERIES_AT_ONCE), kept, strict=True):
        still = near >= best[-1][item] - least  # as later blocks have left it
        query, item = query[still], item[still]
        pairs.append((item, first + query, _products(_unit(block.to(gallery.device)), units, query, item)))
        first += len(block)
    return torch.cat(lists), _lists(*map(torch.cat, zip(*pairs, strict=True)), len(gallery), back)


def _lists(
    query: Int64[Tensor, " c"], item: Int64[Tensor, " c"], cosine: Float64[Tensor, " c"], queries: int, count: int
) -> Int64[Tensor, "{queries} {count}"]:
    """The first `count` items of each query, from pairs in which a query's items ascend."""
    order = cosine.argsort(descending=True, stable=True)
    order = order[query[order].argsort(stable=True)]
    starts = torch.searchsorted(query[order], torch.arange(queries, device=query.device))
    return item[order][starts[:, None] + torch.arange(count, device=query.device)].cpu()


def off(dim: int) -> float:
    """How far a product of two unit vectors in float32 can be from the exact one, whatever the order of its additions: d / 2^24 and
    a little (Higham, Accuracy and Stability of Numerical Algorithms, 2002, eq. 3.5), 2 / 2^24 for the rounding of the vectors,
    and as much to be safe."""
    return 1.01 * (dim + 4) * 2.0**-24


def _candidates(
    near: Float[Tensor, "q g"], queries: Float64[Tensor, "q d"], gallery: Float64[Tensor, "g d"], count: int
) -> tuple[Int64[Tensor, " c"], Int64[Tensor, " c"], Float64[Tensor, " c"]]:
    """Pairs of a query and an item that hold all of its `count` nearest and what is as near as the last of them, ordered by query,
    then by item; and their cosines, exactly. `near`: the cosines, in float64 exactly, in float32 roughly.

    What lies twice the error of a rough one below the last of the nearest is none of them. The rest, few, are computed exactly,
    unless they are too many.
    """
    exact = near.dtype == torch.float64
    least = 0.0 if exact else 2 * off(queries.shape[1])
    query, item = (near >= near.topk(count).values[:, -1:] - least).nonzero(as_tuple=True)
    if exact:
        return query, item, near[query, item]
    if len(query) > SHARE_BY_PAIR * near.numel():
        return _candidates(queries @ gallery.T, queries, gallery, count)
    return query, item, _products(queries, gallery, query, item)


def _products(
    queries: Float64[Tensor, "q d"], gallery: Float64[Tensor, "g d"], query: Int64[Tensor, " c"], item: Int64[Tensor, " c"]
) -> Float64[Tensor, " c"]:
    """The exact cosines of these pairs."""
    pairs = zip(query.split(PAIRS_AT_ONCE), item.split(PAIRS_AT_ONCE), strict=True)
    return torch.cat([(queries[one] * gallery[other]).sum(dim=1) for one, other in pairs])


def retrieval(queries: Float[Tensor, "n d"], gallery: Float[Tensor, "n d"], category: Int[Tensor, " n"]) -> Retrieval:
    """Look up every query; row i of both is of object i, which is of category `category[i]`."""
    return _found(ranked(queries, gallery, max(TOP)), category.cpu())


def both_ways(shapes: Float[Tensor, "n d"], captions: Float[Tensor, "n d"], category: Int[Tensor, " n"]) -> dict[str, Retrieval]:
    """MRD's main text has texts as queries, its appendix shapes; here are both."""
    to_shapes, to_captions = ranked_both_ways(captions, shapes, max(TOP))
    return {"text to 3d": _found(to_shapes, category.cpu()), "3d to text": _found(to_captions, category.cpu())}


def _found(lists: Int64[Tensor, "n k"], category: Int[Tensor, " n"]) -> Retrieval:
    return Retrieval(
        queries=len(lists),
        instance=shares_found(lists == torch.arange(len(lists))[:, None]),
        category=shares_found(category[lists] == category[:, None]),
    )


def alike(shapes: Float[Tensor, "n d"], category: Int[Tensor, " n"]) -> tuple[float, ...]:
    """Shares of shapes of which another one of the same category is among the nearest 1, 3, 5 others. A shape that is alone in its
    category finds none."""
    most, category = max(TOP), category.cpu()
    lists = ranked(shapes, shapes, most + 1)
    own = lists == torch.arange(len(shapes))[:, None]
    # A shape with many equals may itself be none of the first: then the last is left out in its place.
    own[~own.any(dim=1), -1] = True
    others = lists[~own].reshape(len(shapes), -1)
    return shares_found(category[others] == category[:, None])


def captions_of(
    corpus: Reader, teacher: str, ids: Sequence[str], origin: str
) -> tuple[Int64[np.ndarray, " m"], Float16[np.ndarray, "m d"]]:
    """Numbers of the objects that have a kept caption of this origin, ascending, and the teacher's embedding of the first one of
    each. Raises CorpusError where no object has one, and where some texts have not been embedded."""
    rows = corpus.need(CAPTIONS.name).to_table(
        columns=["object_id", "stage", "caption", "text_sha256"], filter=f"kept AND origin = {quote(origin)}"
    )
    rows = rows.sort_by([("stage", "ascending"), ("caption", "ascending")])
    place = pc.index_in(pa.array(ids, pa.string()), rows["object_id"].combine_chunks())  # of the first
    numbers = np.flatnonzero(place.is_valid().to_numpy(zero_copy_only=False))
    if not len(numbers):
        there = ", ".join(sorted(pc.unique(corpus.need(CAPTIONS.name).to_table(columns=["origin"])["origin"]).to_pylist()))
        raise CorpusError(
            f"{corpus.root}: none of these {len(ids):,} objects has a caption of origin {origin!r}; its captions are of: "
            f"{there or 'none'} (python -m jobs import {corpus.root} --cap3d FILE takes over Cap3D's)"
        )
    texts = corpus.need(f"text_embeddings/{teacher}")
    wanted = rows["text_sha256"].take(place.drop_null())
    embedded = pc.index_in(wanted, texts.to_table(columns=["text_sha256"])["text_sha256"].combine_chunks()).combine_chunks()
    if embedded.null_count:
        raise CorpusError(
            f"{corpus.root}: {teacher} has not embedded {embedded.null_count:,} of {len(numbers):,} captions: "
            f"python -m jobs embed {corpus.root} --teacher {teacher}"
        )
    return numbers, _vectors(texts.take(embedded.to_numpy(), columns=["embedding"])["embedding"].combine_chunks())


def thumbnails_of(corpus: Reader, teacher: str, ids: Sequence[str]) -> tuple[Int64[np.ndarray, " m"], Float16[np.ndarray, "m d"]]:
    """Numbers of the objects whose collection's own picture the teacher has embedded, ascending, and that embedding. Raises
    CorpusError where no object has one."""
    table = corpus.need(f"image_embeddings/{teacher}")
    rows = table.to_table(columns=["object_id", "_rowoffset"], filter="thumbnail IS NOT NULL")
    place = pc.index_in(pa.array(ids, pa.string()), rows["object_id"].combine_chunks())
    numbers = np.flatnonzero(place.is_valid().to_numpy(zero_copy_only=False))
    if not len(numbers):
        raise CorpusError(f"{corpus.root}: {teacher} has embedded no thumbnail of these {len(ids):,} objects: take a view instead")
    taken = table.take(rows["_rowoffset"].take(place.drop_null()).to_numpy().astype(np.int64), columns=["thumbnail"])
    return numbers, _vectors(taken["thumbnail"].combine_chunks())


def shares_found(right: Bool[Tensor, "q k"]) -> tuple[float, ...]:
    """Shares of the lists with something right among their first 1, 3, 5."""
    return tuple(float(right[:, :k].any(dim=1).double().mean()) for k in TOP)


def _unit(vectors: Float[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
    """To length 1, rounded to STEP; a vector of zeros stays one."""
    if not vectors.isfinite().all():
        raise ValueError(
            f"{int((~vectors.isfinite()).any(dim=1).sum())} of {len(vectors)} embeddings are not finite: nothing is near them"
        )
    return (torch.nn.functional.normalize(vectors.double(), dim=1) / STEP).round() * STEP


def _vectors(rows: pa.Array) -> Float16[np.ndarray, "m d"]:
    return rows.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), -1)
