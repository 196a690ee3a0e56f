"""A corpus that can be learnt in seconds: objects of a few classes, told apart by shape, colour and what a made-up teacher says."""

import hashlib
import io

import numpy as np
from PIL import Image

from pipeline.store import Corpus
from schemas.check import to_table
from schemas.tables import (
    CAPTIONS,
    OBJECTS,
    POINTS,
    POINTS_PER_OBJECT,
    VIEWS,
    class_embeddings,
    image_embeddings,
    text_embeddings,
)
from shout import object_row

TEACHER = "ViT-B-32:laion2b_s34b_b79k"
STAGE = {"stage": "s", "stage_key": "k"}
IDENTITY = np.eye(4).reshape(-1)


def separable(
    root, *, objects: int = 96, first: int = 0, classes: int = 4, dim: int = 16, views: int = 3, pixels: int = 32, seed: int = 0
) -> Corpus:
    """Write the corpus, or add the objects from `first` on to it. A class is an ellipsoid of its own form and colour; the teacher's
    vectors are the class's direction, the object's own, and noise. Every seventh object has no text."""
    rng = np.random.default_rng(seed)
    names = rng.normal(size=(classes, dim))
    axes = 0.2 + 0.8 * rng.random((classes, 3))
    colors = rng.integers(40, 255, (classes, 3))
    rng = np.random.default_rng([seed, first])
    labels = np.arange(first, first + objects) % classes
    own = names[labels] + 0.3 * rng.normal(size=(objects, dim))
    seen = own[:, None] + 0.3 * rng.normal(size=(objects, views, dim))
    said = own + 0.3 * rng.normal(size=(objects, dim))
    numbers = range(first, first + objects)
    ids = [f"test/{number}" for number in numbers]
    texts = [f"text {number}" for number in numbers]
    clouds = [_ellipsoid(axes[label] * rng.uniform(0.9, 1.1, 3), rng) for label in labels]
    corpus = Corpus.at(str(root))
    _put(corpus, OBJECTS, [object_row(number, categories=[f"class {labels[row]}"]) for row, number in enumerate(numbers)])
    _put(corpus, POINTS, [
        STAGE | {"object_id": id, "xyz": cloud.reshape(-1), "rgb": np.tile(colors[label], POINTS_PER_OBJECT).astype(np.uint8),
                 "canonical_from_asset": IDENTITY, "vertices": 1, "faces": 0, "warnings": []}
        for id, cloud, label in zip(ids, clouds, labels, strict=True)
    ])  # fmt: skip
    _put(corpus, VIEWS, [
        STAGE | {"object_id": id, "view": view, "image": _picture(colors[label], axes[label], pixels, rng), "width": pixels,
                 "height": pixels, "intrinsics": np.ones(4), "camera_to_world": IDENTITY, "kind": "rendered"}
        for id, label in zip(ids, labels, strict=True) for view in range(views)
    ])  # fmt: skip
    _put(corpus, CAPTIONS, [
        STAGE | {"object_id": id, "origin": "metadata", "caption": 0, "text": text, "text_sha256": _sha256(text),
                 "model": "by hand", "kept": True}
        for number, id, text in zip(numbers, ids, texts, strict=True) if number % 7
    ])  # fmt: skip
    _put(corpus, image_embeddings(TEACHER, dim), [
        STAGE | {"object_id": id, "embedding": list(_unit(vectors)), "lengths": np.linalg.norm(vectors, axis=1).astype(np.float32)}
        for id, vectors in zip(ids, seen, strict=True)
    ])  # fmt: skip
    _put(corpus, text_embeddings(TEACHER, dim), [
        STAGE | {"text_sha256": _sha256(text), "text": text, "embedding": _unit(vector)}
        for text, vector in zip(texts, said, strict=True)
    ])  # fmt: skip
    if not first:
        _put(corpus, class_embeddings(TEACHER, dim), [
            STAGE | {"name": f"class {label}", "embedding": _unit(name), "raw_mean": name.astype(np.float32)}
            for label, name in enumerate(names)
        ])  # fmt: skip
    return corpus


def _put(corpus: Corpus, table, rows: list[dict]) -> None:
    corpus.create(table)
    corpus.append(table, corpus.write(table, to_table(table, rows)))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float16)


def _ellipsoid(axes: np.ndarray, rng) -> np.ndarray:
    points = rng.normal(size=(POINTS_PER_OBJECT, 3))
    points *= axes / np.linalg.norm(points, axis=1, keepdims=True)
    return (points / np.linalg.norm(points, axis=1).max()).astype(np.float16)


def _picture(color: np.ndarray, axes: np.ndarray, pixels: int, rng) -> bytes:
    """An ellipse of the class's colour and form on nothing, somewhere near the middle."""
    y, x = (np.mgrid[:pixels, :pixels] + 0.5) / pixels * 2 - 1 + rng.uniform(-0.2, 0.2, (2, 1, 1))
    inside = (x / axes[0]) ** 2 + (y / axes[1]) ** 2 < 1
    rgba = np.where(inside[..., None], np.append(color, 255), 0).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(rgba).save(file, "webp", lossless=True)
    return file.getvalue()
