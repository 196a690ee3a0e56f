"""A corpus as OpenShape's training files, for trainers that read those (OpenShape, Uni3D and their kin):

Objaverse/000-000/UID.npy …  ShapeNet/SYNSET/MODEL.npy  ABO/…  3D-FUTURE/…  SOURCE/SOURCE_ID.npy    one pickled dictionary each
meta_data/split/train_all.json     [{dataset, group, id, data_path}], paths absolute
meta_data/split/NAME.json          of a split with labels: [{uid, category, group, data_path}], as OpenShape's lvis.json
meta_data/gpt4_filtering.json      {uid: {"flag": "Y" or "N"}} of every object of Objaverse

xyz are in the canonical frame (y up, as theirs); features are direction times length where the length was kept. `text` has the
kept captions that are neither BLIP's, Azure's nor retrieved. What has no place, and what the format cannot leave out, is told in
one more key, `tricorpus`, which their loaders do not look at and `pipeline.imports.openshape` does: lengths and averages that were
not kept, captions that are not kept, no colour (0.4 grey stands in), no thumbnail (the first view stands in), licence, creator, …
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from pipeline.exports.output import Output, Watch
from pipeline.exports.rows import Chosen, Rows, by_id, captions_of, images_of, points_of, texts_of
from pipeline.imports.ids import DATASETS, source_of
from pipeline.imports.openshape_file import CAPTION_COLUMNS, NOISE, OBJECT_COLUMNS, OUR_KEY, POINTS_COLUMNS, WRITERS
from pipeline.stage import ObjectError, Row
from pipeline.store import Corpus
from schemas.tables import CAPTIONS, OBJECTS, POINTS

AT_ONCE = 128  # objects in memory
_GREY = 0.4  # OpenShape's colour of what has none
_LONGEST_NAME = 200  # bytes; file systems allow 255


@dataclass(frozen=True)
class Place:
    """Where an object goes: OpenShape's dataset, group and id, and the file."""

    dataset: str
    group: str
    id: str

    @property
    def file(self) -> str:
        return "/".join(part for part in (self.dataset, self.group, self.id) if part) + ".npy"


def export_openshape(
    corpus: Corpus, chosen: Chosen, teacher: str, output: Output, split: str | None, watch: Watch
) -> dict[str, int]:
    """Write the files that are not there yet, and the lists; returns how many objects were left out, by reason: no_points,
    no_views, no_text, no_file_name."""
    source = _Source(corpus, teacher)
    left_out: Counter[str] = Counter()
    labelled = any(label is not None for label in chosen.labels.values())
    seen = 0
    with (
        output.writing("meta_data/split/train_all.json") as train,
        output.writing("meta_data/gpt4_filtering.json") as filtering,
    ):
        lists = {train: _List(train, "[]"), filtering: _List(filtering, "{}")}
        named: list[Row] = []
        for first in range(0, len(chosen.ids), AT_ONCE):
            for id, found in source.of(chosen.ids[first : first + AT_ONCE], output):
                seen += 1
                if isinstance(found, ObjectError):
                    left_out[found.reason] += 1
                    continue
                place, noise = found
                path = str((output.folder / place.file).absolute())
                entry = {"dataset": place.dataset, "group": place.group, "id": place.id, "data_path": path}
                lists[train].add(json.dumps(entry))
                if place.dataset == "Objaverse":
                    lists[filtering].add(f'"{place.id}": {json.dumps({"flag": "N" if noise else "Y"})}')
                if labelled and (label := chosen.labels[id]) is not None:
                    named.append({"uid": place.id, "category": label, "group": place.group, "data_path": path})
            watch(seen, left_out.total())
        for made in lists.values():
            made.close()
    if named:
        with output.writing(f"meta_data/split/{split}.json") as file:
            file.write(json.dumps(named).encode())
    return dict(left_out)


class _List:
    """A JSON list or dictionary that is written as it comes."""

    def __init__(self, file: BinaryIO, brackets: str):
        self.file, self.end, self.before = file, brackets[1], "\n"
        file.write(brackets[0].encode())

    def add(self, item: str) -> None:
        self.file.write((self.before + item).encode())
        self.before = ",\n"

    def close(self) -> None:
        self.file.write(f"\n{self.end}\n".encode())


class _Source:
    """Reads objects from the tables and writes their files."""

    def __init__(self, corpus: Corpus, teacher: str):
        self.teacher = teacher
        self.objects, self.points, self.captions, self.images = (
            Rows(corpus.open(name)) for name in (OBJECTS.name, POINTS.name, CAPTIONS.name, f"image_embeddings/{teacher}")
        )
        self.texts = Rows(corpus.open(f"text_embeddings/{teacher}"), "text_sha256")

    def of(self, ids: list[str], output: Output) -> Iterator[tuple[str, tuple[Place, bool] | ObjectError]]:
        """Each object's place, and whether its text is noise; or why it is left out. Its file is then there."""
        objects = by_id(self.objects.of(ids, [*OBJECT_COLUMNS, "source", "source_id", "asset_uri"]))
        captions = captions_of(self.captions.of(ids, [*CAPTION_COLUMNS, "stage", "caption", "text_sha256"]))
        points = points_of(self.points.of(ids))
        images = images_of(self.images.of(ids))
        said = {row["text_sha256"] for rows in captions.values() for row in rows}
        texts = texts_of(self.texts.of(list(said)))
        for id in ids:
            try:
                place = place_of(objects[id])
                if id not in points or id not in images:
                    raise ObjectError("no_points" if id not in points else "no_views", f"{id} has none")
                data, noise = self._data(place, objects[id], points[id], images[id], captions.get(id, []), texts)
                if not output.has(place.file):
                    with output.writing(place.file) as file:
                        np.save(file, data, allow_pickle=True)
                yield id, (place, noise)
            except ObjectError as error:
                yield id, error

    def _data(
        self, place: Place, about: Row, points: Row, images: Row, captions: list[Row], texts: dict[str, Row]
    ) -> tuple[dict[str, Any], bool]:
        fields, noise = placed(captions, texts, needs_text=place.dataset != "Objaverse")
        shown = {row["text_sha256"] for rows in fields.values() for row in rows}
        embedded = {row["text_sha256"]: row["text"] for row in captions if row["text_sha256"] in texts}
        features = {key: _features(texts[key]) for key in embedded}
        data = {
            "dataset": place.dataset,
            "group": place.group,
            "id": place.id,
            "xyz": points["xyz"].reshape(-1, 3).astype(np.float32),
            "rgb": np.full((len(points["xyz"]) // 3, 3), _GREY, np.float32),
            "image_feat": _scaled(images["embedding"], images["lengths"]),
            "thumbnail_feat": images["thumbnail"],
            OUR_KEY: {
                "teacher": self.teacher,
                "object": {name: about[name] for name in OBJECT_COLUMNS},
                "points": {name: points[name] for name in POINTS_COLUMNS} | {"has_color": points["rgb"] is not None},
                "captions": [{name: row[name] for name in CAPTION_COLUMNS} for row in captions],
                "images": {
                    "lengths": None if images["lengths"] is None else images["lengths"][:, 0].tolist(),
                    "has_thumbnail": images["thumbnail"] is not None,
                },
                "texts": {
                    text: {"length": texts[key]["length"], "prompt_averaged": texts[key]["prompt_averaged"] is not None}
                    for key, text in embedded.items()
                },
                "features": {text: features[key] for key, text in embedded.items() if key not in shown},
            },
        }
        if points["rgb"] is not None:
            data["rgb"] = points["rgb"].reshape(-1, 3).astype(np.float32) / np.float32(255)
        if images["thumbnail"] is None:
            data["thumbnail_feat"] = data["image_feat"][0]
        for field, rows in fields.items():
            data[field] = [row["text"] for row in rows]
            data[f"{field}_feat"] = [features[row["text_sha256"]] for row in rows]
            if field.endswith("_caption"):  # one each
                data[field], data[f"{field}_feat"] = next(iter(data[field]), ""), next(iter(data[f"{field}_feat"]), {})
        return data, noise


def place_of(about: Row) -> Place:
    """Where an object's file goes. Raises ObjectError("no_file_name") for an id that no file can have."""
    source, id = about["source"], about["source_id"]
    dataset = {ours: theirs for theirs, ours in DATASETS.items()}.get(source, source)
    *groups, name = id.split("/")
    if source == "objaverse":
        folder = re.search(r"/(\d{3}-\d{3})/[^/]+$", about["asset_uri"])
        groups = [folder[1] if folder else "000-000"]
    elif source == "abo":
        groups = [id[-1:]]
    parts = [dataset, *groups, f"{name}.npy"]
    strange = any(not part or part.startswith(".") or "\0" in part or len(part.encode()) > _LONGEST_NAME for part in parts)
    if strange or name == "" or source_of(dataset) != source or dataset == "meta_data":
        raise ObjectError("no_file_name", f"no file can be called {source}/{id}")
    return Place(dataset, "/".join(groups), name)


def placed(captions: list[Row], texts: dict[str, Row], *, needs_text: bool) -> tuple[dict[str, list[Row]], bool]:
    """The captions of each field, and whether `text` is noise: none of it is kept.

    Where none is kept, what OpenShape calls noise comes back, which its loaders skip by the flag; `needs_text`: of this dataset
    they skip none, so another kept caption stands in. Raises ObjectError("no_text") when no caption has an embedding.
    """
    usable = [row for row in captions if row["text_sha256"] in texts]
    kept = [row for row in usable if row["kept"]]
    by_writer = {writer: field for field, writer in WRITERS.items() if field != "text"}
    fields: dict[str, list[Row]] = {field: [] for field in WRITERS}
    for row in kept:
        field = by_writer.get((row["origin"], row["model"]), "retrieval_text" if row["origin"] == "retrieved" else "text")
        full = field.endswith("_caption") and fields[field]
        fields["text" if full else field].append(row)
    noise = not fields["text"]
    if noise:
        skipped = [] if needs_text else [row for row in usable if row["dropped_because"] == NOISE]
        fields["text"] = skipped or kept[:1]
    if not fields["text"]:
        raise ObjectError("no_text", "no caption of it has an embedding")
    return fields, noise


def _scaled(vectors: np.ndarray, lengths: Any) -> np.ndarray:
    return vectors.astype(np.float32) * np.asarray(1 if lengths is None else lengths, np.float32)


def _features(row: Row) -> dict[str, np.ndarray]:
    original = _scaled(row["embedding"][None], row["length"])
    averaged = row["prompt_averaged"]
    return {"original": original, "prompt_avg": original if averaged is None else averaged[None]}
