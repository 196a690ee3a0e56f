"""How well the pictures of some objects fit their kept captions: mean cosine of all pairs of view and caption under a teacher."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Float32, Int

from reports.sample import rows_of
from reports.scans import scanned
from schemas.check import matrix
from schemas.corpus import Reader
from schemas.tables import CAPTIONS

AT_ONCE = 256  # objects whose pictures' vectors are held


def fit(corpus: Reader, teacher: str, ids: pa.Array) -> Float[np.ndarray, " n"]:
    """Of each of these objects the mean cosine; NaN: no view of it, or no kept caption, has an embedding."""
    found = np.full(len(ids), np.nan)
    pictures, texts = corpus.open(f"image_embeddings/{teacher}"), corpus.open(f"text_embeddings/{teacher}")
    if pictures is None or texts is None or corpus.open(CAPTIONS.name) is None:
        return found
    captions, captioned = _captions(corpus, texts, ids)
    rows = rows_of(corpus, f"image_embeddings/{teacher}", ids)
    for first in range(0, len(rows), AT_ONCE):
        piece = pictures.take(rows[first : first + AT_ONCE], columns=["object_id", "embedding"])
        for object, views in zip(pc.index_in(piece["object_id"], ids).to_pylist(), piece["embedding"], strict=True):
            if captioned[object]:
                # The mean of all cosines of unit vectors is the product of their means.
                found[object] = captions[object] @ matrix(pa.chunked_array([views.values])).mean(axis=0, dtype=np.float64)
    return found


def _captions(corpus: Reader, texts: Any, ids: pa.Array) -> tuple[Float32[np.ndarray, "n dim"], Int[np.ndarray, " n"]]:
    """The mean vector of the kept captions of each of these objects, and how many of them have one."""
    said = corpus.need(CAPTIONS.name).take(rows_of(corpus, CAPTIONS.name, ids), columns=["object_id", "text_sha256", "kept"])
    said = said.filter(said["kept"])
    rows, first = [np.empty(0, np.int64)], 0
    for piece in scanned(texts, ["text_sha256"]):
        rows.append(first + np.flatnonzero(pc.is_in(piece["text_sha256"], said["text_sha256"].combine_chunks()).to_numpy()))
        first += len(piece)
    embedded = texts.take(np.concatenate(rows), columns=["text_sha256", "embedding"])
    vectors = matrix(embedded["embedding"]).astype(np.float32)
    text = pc.index_in(said["text_sha256"], embedded["text_sha256"].combine_chunks())
    there = text.is_valid()
    object = pc.index_in(said["object_id"].filter(there), ids).to_numpy()
    total, number = np.zeros((len(ids), vectors.shape[1]), np.float32), np.bincount(object, minlength=len(ids))
    np.add.at(total, object, vectors[text.filter(there).to_numpy()])
    return total / np.maximum(number, 1)[:, None], number
