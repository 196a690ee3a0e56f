"""A corpus as WebDataset shards: tar files, one after the other whole, in which the files of an object share the name before the
first dot. Any tool that reads tar reads them; the same corpus gives the same bytes.

What an object has, each only where the corpus has it (`FIELDS`; also in export.json):
"""

import io
import json
import tarfile
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from pipeline.exports.output import Output, Watch
from pipeline.exports.rows import Chosen, Rows, by_id, captions_of, digest, images_of, points_of, texts_of
from pipeline.stage import Row
from pipeline.store import Corpus
from schemas.tables import CAPTIONS, OBJECTS, POINTS, VIEWS

AT_ONCE = 64  # objects in memory
FIELDS = {
    "json": "the object's row; canonical_from_asset, vertices, faces, area of its points; captions (embedding: row of "
    "text_embeddings.npy, or null); views with their cameras and files; lengths of the image embeddings",
    "xyz.npy": "(10000, 3) float16, canonical frame: y up, box centred, farthest point at 1; 1,024 in farthest-point order first",
    "rgb.npy": "(10000, 3) uint8 sRGB; absent: the object has no colour",
    "image_embeddings.npy": "(views, d) float16, unit length, in view order",
    "thumbnail_embedding.npy": "(d,) float16, unit length: the collection's own picture",
    "text_embeddings.npy": "(texts, d) float16, unit length",
    "prompt_averaged.npy": "(texts, d) float16, unit length: the mean over ULIP's 64 prompts; rows of 0 where it was not made",
    "viewNN.webp": "view NN as a picture with alpha",
}
_OBJECT = [field.name for field in OBJECTS.schema if field.name not in ("stage", "stage_key")]
_CAPTION = ("origin", "text", "model", "kept", "dropped_because", "score")
_CAMERA = ("view", "width", "height", "intrinsics", "camera_to_world", "kind")


def export_webdataset(
    corpus: Corpus, chosen: Chosen, teacher: str | None, output: Output, objects_per_shard: int, watch: Watch
) -> dict[str, int]:
    """Write the shards that are not there yet; returns how many objects were left out, by reason: nothing (neither points nor
    pictures)."""
    source = _Source(corpus, teacher)
    ids = source.having(chosen.ids)
    left_out = len(chosen.ids) - len(ids)
    for number, first in enumerate(range(0, len(ids), objects_per_shard)):
        name, part = f"{number:06d}.tar", ids[first : first + objects_per_shard]
        if not output.has(name):
            with output.writing(name) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as shard:
                for start in range(0, len(part), AT_ONCE):
                    for id, files in source.of(part[start : start + AT_ONCE]):
                        _add(shard, digest(id).hex(), files)
        watch(left_out + first + len(part), left_out)
    return {"nothing": left_out} if left_out else {}


def _add(shard: tarfile.TarFile, key: str, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        about = tarfile.TarInfo(f"{key}.{name}")
        about.size, about.mode = len(content), 0o644
        shard.addfile(about, io.BytesIO(content))


class _Source:
    """Reads objects from the tables as the files of a shard."""

    def __init__(self, corpus: Corpus, teacher: str | None):
        names = (OBJECTS.name, POINTS.name, VIEWS.name, CAPTIONS.name)
        self.objects, self.points, self.views, self.captions = (Rows(corpus.open(name)) for name in names)
        self.images = Rows(corpus.open(f"image_embeddings/{teacher}") if teacher else None)
        self.texts = Rows(corpus.open(f"text_embeddings/{teacher}") if teacher else None, "text_sha256")

    def having(self, ids: list[str]) -> list[str]:
        """The ids that have points or pictures, or what a teacher said of these."""
        has = self.points.has(ids) | self.views.has(ids) | self.images.has(ids)
        return [ids[number] for number in np.flatnonzero(has)]

    def of(self, ids: list[str]) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Each object's files by the part of their names after the first dot."""
        objects, points = by_id(self.objects.of(ids, _OBJECT)), points_of(self.points.of(ids))
        images, captions = (
            images_of(self.images.of(ids)),
            captions_of(self.captions.of(ids, [*_CAPTION, "stage", "caption", "text_sha256"])),
        )
        views = defaultdict(list)
        found = self.views.of(ids, [*_CAMERA, "image"])
        for row in sorted(found.to_pylist() if found else [], key=lambda row: row["view"]):
            views[row["object_id"]].append(row)
        texts = texts_of(self.texts.of([row["text_sha256"] for rows in captions.values() for row in rows]))
        for id in ids:
            yield id, _files(objects[id], points.get(id), images.get(id), views[id], captions.get(id, []), texts)


def _files(
    about: Row, points: Row | None, images: Row | None, views: list[Row], captions: list[Row], texts: dict[str, Row]
) -> dict[str, bytes]:
    said = list(dict.fromkeys(row["text_sha256"] for row in captions if row["text_sha256"] in texts))
    row_of = {key: number for number, key in enumerate(said)}
    about = about | {
        "captions": [{name: row[name] for name in _CAPTION} | {"embedding": row_of.get(row["text_sha256"])} for row in captions],
        "views": [{name: row[name] for name in _CAMERA} | {"file": f"view{row['view']:02d}.webp"} for row in views],
        "text_lengths": [texts[key]["length"] for key in said],
    }
    arrays: dict[str, np.ndarray | None] = {}
    if points:
        about |= {name: value for name, value in points.items() if name not in ("xyz", "rgb", "warnings")}
        arrays["xyz"] = points["xyz"].reshape(-1, 3)
        arrays["rgb"] = None if points["rgb"] is None else points["rgb"].reshape(-1, 3)
    if images:
        about["image_lengths"] = None if images["lengths"] is None else images["lengths"][:, 0].tolist()
        arrays["image_embeddings"], arrays["thumbnail_embedding"] = images["embedding"], _half(images["thumbnail"])
    if said:
        averaged = [texts[key]["prompt_averaged"] for key in said]
        arrays["text_embeddings"] = np.stack([texts[key]["embedding"] for key in said])
        if any(one is not None for one in averaged):
            nothing = np.zeros(arrays["text_embeddings"].shape[1])
            arrays["prompt_averaged"] = _half(np.stack([nothing if one is None else one for one in averaged]))
    files = {"json": json.dumps(about, ensure_ascii=False, sort_keys=True).encode()}
    files |= {f"{name}.npy": _npy(array) for name, array in arrays.items() if array is not None}
    return files | {f"view{row['view']:02d}.webp": row["image"] for row in views}


def _half(values: np.ndarray | None) -> np.ndarray | None:
    return None if values is None else values.astype(np.float16)


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()
