"""What is near what: objects laid out in the plane, and the nearest neighbours of some, both by the mean of their views.

The map: principal components, then van der Maaten and Hinton 2008, "Visualizing Data using t-SNE".
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from reports.agreement import means_of, views_of
from schemas.check import vectors_of
from schemas.corpus import Reader

COMPONENTS, PERPLEXITY = 50, 30
FEWEST = 10  # objects that make a map
LEAST_SPREAD = 1e-6  # variance of vectors that are all the same, but for rounding
STREAMED_AT_ONCE = 256  # objects; Lance reads some batches ahead


def laid_out(vectors: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n 2"] | None:
    """Places in the plane; nothing of it is chance. One thread: with several, sums are added up in another order each time, and the
    map is another one. None: the vectors are too few, or all the same."""
    if len(vectors) < FEWEST or vectors.var(axis=0).sum() < LEAST_SPREAD:
        return None
    with threadpool_limits(1):
        components = min(COMPONENTS, *vectors.shape)
        few = PCA(components, svd_solver="covariance_eigh").fit_transform(vectors)
        perplexity = min(PERPLEXITY, (len(few) - 1) / 3)
        return TSNE(2, perplexity=perplexity, init="pca", random_state=0, n_jobs=1).fit_transform(few).astype(np.float32)


def nearest_of(corpus: Reader, teacher: str, ids: Sequence[str], count: int) -> dict[str, list[tuple[str, float]]]:
    """For each of these objects the `count` others that are nearest by the cosine of the means of their views, the nearest first:
    exactly, in one scan over the whole table."""
    images = corpus.need(f"image_embeddings/{teacher}")
    if not ids:
        return {}
    everything = images.to_table(columns=["object_id"])["object_id"].combine_chunks()
    asked = views_of(images, pc.index_in(pa.array(ids, pa.string()), everything).to_numpy())[1]
    best: list[list[tuple[float, str]]] = [[] for _ in ids]
    for batch in images.to_batches(columns=["object_id", "embedding"], batch_size=STREAMED_AT_ONCE):
        cosine = means_of(*vectors_of(batch["embedding"])) @ asked.T
        for number, id in enumerate(ids):
            likely = np.argsort(-cosine[:, number], kind="stable")[: count + 1]
            others = zip((-cosine[likely, number]).tolist(), batch["object_id"].take(pa.array(likely)).to_pylist(), strict=True)
            best[number] = sorted([*best[number], *((far, other) for far, other in others if other != id)])[:count]
    return {id: [(other, -far) for far, other in near] for id, near in zip(ids, best, strict=True)}


def various(ids: pa.Array, count: int) -> list[str]:
    """So many of the ids, of as many sources as there are: the first of each, then the second of each, …"""
    seen: Counter[str] = Counter()
    ranked = []
    for place, id in enumerate(ids.to_pylist()):
        source = id.partition("/")[0]
        ranked.append((seen[source], place, id))
        seen[source] += 1
    return [id for _, _, id in sorted(ranked)[:count]]
