"""One of OpenShape's training files: what it says, in the columns of a corpus.

Its fields (https://github.com/Colin97/OpenShape_code, "Training Data"): xyz (10000, 3), y up; rgb (10000, 3) in 0..1; image_feat
(12, 1280); thumbnail_feat; text, blip_caption, msft_caption, retrieval_text, each with …_feat: {"original", "prompt_avg"}. No
feature has unit length. Of `tricorpus`, which our own exports add, see `pipeline.exports.openshape`.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float16, Float64

from pipeline.fetch.cache import opened
from pipeline.frame import ball_of, placed
from pipeline.imports.pickled import load_pickled, plain
from pipeline.points import farthest_first
from pipeline.stage import ObjectError, Row, rng_for
from pipeline.weights import dim, name_in_tables
from schemas.check import UNIT_TOLERANCE, SchemaError, to_table
from schemas.tables import CAPTIONS, OBJECTS, POINTS, POINTS_PER_OBJECT, Table

# Who wrote the texts of each field: origin and model, as CAPTIONS has them.
WRITERS = {
    "text": ("metadata", "OpenShape"),
    "blip_caption": ("captioner", "BLIP"),
    "msft_caption": ("captioner", "Azure"),
    "retrieval_text": ("retrieved", "OpenShape"),
}
NOISE = "gpt4_filtering"  # why the text of an object is not kept
OUR_KEY = "tricorpus"
OBJECT_COLUMNS = (
    *("name", "categories", "tags", "description", "license", "creator", "split", "thumbnail_uri", "traits", "warnings"),
)
POINTS_COLUMNS = ("canonical_from_asset", "vertices", "faces", "area", "warnings")
CAPTION_COLUMNS = ("origin", "text", "model", "kept", "dropped_because", "score")


@dataclass(frozen=True)
class OpenShapeFile:
    """A file that was read. Every method raises ObjectError where the file does not say what it must: malformed, bad_embedding, …

    `width`: numbers per embedding. `ours`: what our own export added, or None.
    """

    place: str
    sha256: str
    size: int
    width: int
    data: dict[str, Any]

    @property
    def ours(self) -> dict[str, Any] | None:
        ours = self.data.get(OUR_KEY)
        if ours is not None and not isinstance(ours, dict):
            raise self._malformed(OUR_KEY, "is no dictionary")
        return ours

    def object_columns(self) -> Row:
        """Columns of OBJECTS."""
        row = {"asset_sha256": self.sha256, "asset_bytes": self.size}
        if self.ours is None:
            return row
        row |= {name: self._of_ours("object").get(name) for name in OBJECT_COLUMNS}
        needed = dict.fromkeys(("source", "source_id", "asset_uri", "asset_format"), "")
        self._check(OBJECTS, row | needed | {"companions": []})
        return row

    def points(self, object_id: str) -> Row:
        """Columns of POINTS. Of more points than a corpus has, so many are drawn."""
        xyz, rgb = self._triples("xyz"), self._triples("rgb") if "rgb" in self.data else None
        if rgb is not None and (len(rgb) != len(xyz) or not (-0.001 <= rgb.min() and rgb.max() <= 1.001)):
            raise self._malformed("rgb", f"must hold a colour of 0..1 for each of the {len(xyz)} points")
        if len(xyz) < POINTS_PER_OBJECT:
            raise ObjectError("few_points", f"{self.place} has {len(xyz)} points, must have {POINTS_PER_OBJECT} or more")
        if self.ours is None:
            matrix = canonical_from_cloud(xyz)
            xyz = xyz @ matrix[:3, :3].T + matrix[:3, 3]
            about = {"canonical_from_asset": matrix.reshape(-1), "vertices": len(xyz), "faces": 0, "area": None, "warnings": []}
        else:
            about = {name: plain(self._of_ours("points").get(name)) for name in POINTS_COLUMNS}
            rgb = rgb if self._of_ours("points").get("has_color") else None
        chosen = np.arange(len(xyz))
        if len(xyz) > POINTS_PER_OBJECT:
            chosen = np.sort(rng_for(object_id, purpose="openshape-points").permutation(len(xyz))[:POINTS_PER_OBJECT])
        half = xyz[chosen].astype(np.float16)
        first = farthest_first(half, 1024)
        order = np.concatenate([first, np.setdiff1d(np.arange(len(half)), first)])
        row = about | {
            "xyz": half[order].reshape(-1),
            "rgb": None if rgb is None else np.rint(255 * np.clip(rgb[chosen[order]], 0, 1)).astype(np.uint8).reshape(-1),
        }
        if self.ours is not None:
            self._check(POINTS, row | {"object_id": object_id})
        return row

    def captions(self, *, noise: bool) -> list[Row]:
        """Columns of CAPTIONS, in the file's order. `noise`: the text from metadata is not to be kept."""
        if self.ours is not None:
            given = self.ours.get("captions")
            if not isinstance(given, list) or not all(isinstance(caption, dict) for caption in given):
                raise self._malformed(OUR_KEY, "has no list of captions")
            rows = [{name: caption.get(name) for name in CAPTION_COLUMNS} for caption in given]
            keys = {"object_id": "", "text_sha256": ""}
            self._check(CAPTIONS, *(row | keys | {"caption": number} for number, row in enumerate(rows)))
        else:
            rows = []
            for field, text, _ in self._texts():
                drop = noise and field == "text"
                origin, model = WRITERS[field]
                because = NOISE if drop else None
                rows.append(
                    {"origin": origin, "model": model, "text": text, "kept": not drop, "dropped_because": because, "score": None}
                )
        if not rows:
            raise ObjectError("no_text", f"{self.place} has no text of any kind")
        return rows

    def image_embeddings(self) -> Row:
        """Columns of the image embeddings."""
        if self.ours is None:
            embedding, lengths = self._units(self.data.get("image_feat"), "image_feat")
            thumbnail = self.data.get("thumbnail_feat")
            thumbnail = None if thumbnail is None else self._units(thumbnail, "thumbnail_feat")[0][0]
        else:
            about = self._of_ours("images")
            kept = plain(about.get("lengths"))
            embedding, lengths = self._units(self.data.get("image_feat"), "image_feat", [1.0] if kept is None else kept)
            lengths = None if kept is None else lengths
            has = about.get("has_thumbnail")
            thumbnail = self._units(self.data.get("thumbnail_feat"), "thumbnail_feat", [1.0])[0][0] if has else None
        return {"embedding": list(embedding), "lengths": lengths, "thumbnail": thumbnail}

    def text_embeddings(self) -> dict[str, Row]:
        """Rows of the text embeddings, by the text's hash. Of a text that occurs in several fields the first counts."""
        rows: dict[str, Row] = {}
        about = {} if self.ours is None else self._of_ours("texts")
        for field, text, features in self._texts(also_ours=True):
            key = hashlib.sha256(text.encode()).hexdigest()
            if key in rows or not isinstance(features, dict):
                continue
            told = about.get(text)
            told = told if isinstance(told, dict) else None
            kept = told["length"] if told and told.get("length") is not None else None
            given = None if told is None else [1.0 if kept is None else kept]
            embedding, lengths = self._units(features.get("original"), f"{field}_feat", given)
            averaged = features.get("prompt_avg") if told is None or told.get("prompt_averaged") else None
            if averaged is not None:
                averaged = self._units(averaged, f"{field}_feat", None if told is None else [1.0])[0][0]
            length = None if told is not None and kept is None else lengths[0]
            rows[key] = {"text_sha256": key, "text": text, "embedding": embedding[0], "length": length, "prompt_averaged": averaged}
        return rows

    def _texts(self, also_ours: bool = False) -> Iterator[tuple[str, str, Any]]:
        """Field, text and features of every text that is not blank."""
        for field in WRITERS:
            texts, features = plain(self.data.get(field)), plain(self.data.get(f"{field}_feat"))
            texts = [texts] if isinstance(texts, str) else texts or []
            features = [features] if isinstance(features, dict) else features or []
            if not (isinstance(texts, list) and isinstance(features, list) and all(isinstance(text, str) for text in texts)):
                raise self._malformed(field, "must hold a text or a list of texts, with features of each")
            for number, text in enumerate(texts):
                text = text.encode("utf-8", "replace").decode()
                if text.strip():
                    yield field, text, features[number] if number < len(features) else None
        more = self._of_ours("features") if also_ours and self.ours is not None else {}
        for text, features in more.items():
            yield OUR_KEY, text, features

    def _triples(self, field: str) -> Float64[np.ndarray, "n 3"]:
        values = plain(self.data.get(field))
        if not isinstance(values, np.ndarray) or values.ndim != 2 or values.shape[1] != 3 or values.dtype.kind not in "fiu":
            raise self._malformed(field, "must be an array (n, 3)")
        if not len(values) or not np.isfinite(values).all():
            raise ObjectError("not_finite", f"{self.place}: {field} has infinite or NaN numbers, or none at all")
        return values.astype(np.float64)

    def _units(self, vectors: Any, field: str, lengths: Any = None) -> tuple[Float16[np.ndarray, "n d"], list[float]]:
        """Unit vectors, and the lengths they had; `lengths`: what they are known to be."""
        vectors = plain(vectors)
        if not isinstance(vectors, np.ndarray) or vectors.dtype.kind != "f" or vectors.size == 0 or vectors.size % self.width:
            raise self._malformed(field, f"must be an array (n, {self.width}) of features")
        vectors = vectors.reshape(-1, self.width).astype(np.float64)
        if lengths is None:
            lengths = np.sqrt((vectors**2).sum(axis=1))
        elif (
            not isinstance(lengths, list) or len(lengths) not in (1, len(vectors)) or not all(type(one) is float for one in lengths)
        ):
            raise self._malformed(OUR_KEY, f"has not one length for each of the {len(vectors)} vectors of {field}")
        lengths = np.broadcast_to(lengths, len(vectors)).astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            half = (vectors / lengths[:, None].astype(np.float64)).astype(np.float16)
            off = np.abs(np.linalg.norm(half.astype(np.float32), axis=1) - 1)
        if not (off <= UNIT_TOLERANCE).all():  # NaN is wrong too
            raise ObjectError(
                "bad_embedding", f"{self.place}: {field} has a vector without direction, or not of the length it tells"
            )
        return half, lengths.tolist()

    def _of_ours(self, key: str) -> dict[str, Any]:
        value = (self.ours or {}).get(key)
        if not isinstance(value, dict):
            raise self._malformed(OUR_KEY, f"has no {key!r}")
        return value

    def _check(self, table: Table, *rows: Row) -> None:
        try:
            to_table(table, [{"object_id": "", "stage": "", "stage_key": ""} | row for row in rows])
        except (SchemaError, ValueError) as error:
            raise self._malformed(OUR_KEY, f"does not fit its table: {error}") from error

    def _malformed(self, field: str, what: str) -> ObjectError:
        return ObjectError("malformed", f"{self.place}: {field} {what}")


def read_file(place: str, teacher: str, most_mb: int) -> OpenShapeFile:
    """Read a file of at most `most_mb` MiB with features of a teacher. Raises ObjectError: asset_missing, asset_unreadable,
    asset_too_large, malformed, other_teacher, and what `load_pickled` raises."""
    try:
        with opened(place) as path:
            size = path.stat().st_size
            if size > most_mb << 20:
                raise ObjectError(
                    "asset_too_large", f"{place} has {size / (1 << 20):.0f} MiB, more than {most_mb} (setting most_mb)"
                )
            content = path.read_bytes()
    except FileNotFoundError:
        raise ObjectError("asset_missing", f"there is no {place} any more: download it again") from None
    except PermissionError as error:
        raise ObjectError("asset_unreadable", f"{place} may not be read ({error.strerror}): change its permissions") from error
    data = load_pickled(path, content)
    if not isinstance(data, dict):
        raise ObjectError("malformed", f"{place} holds a {type(data).__name__}, must be a dictionary")
    file = OpenShapeFile(place, hashlib.sha256(content).hexdigest(), len(content), dim(teacher), data)
    if file.ours is not None and file.ours.get("teacher") != name_in_tables(teacher):
        raise ObjectError("other_teacher", f"{place} has features of {file.ours.get('teacher')!r}, not {teacher}: say --teacher")
    return file


def canonical_from_cloud(xyz: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "4 4"]:
    """What takes a cloud that is y up to the canonical frame: its box's centre to the origin, its farthest point to distance 1.

    Raises ObjectError("degenerate") for points that are all one.
    """
    center, radius = ball_of(xyz)
    if radius == 0:
        raise ObjectError("degenerate", f"the {len(xyz)} points are one and the same")
    return placed(np.eye(3), center, radius)
