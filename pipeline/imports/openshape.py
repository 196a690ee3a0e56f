"""OpenShape's training files as rows of a corpus (https://huggingface.co/datasets/OpenShape/openshape-training-data, unpacked):

Objaverse/000-000/UID.npy …  ShapeNet/…  ABO/…  3D-FUTURE/…     one pickled dictionary per object
meta_data/gpt4_filtering.json                                   {uid: {"flag": "N"}}: its text is noise; may be absent

A file holds points, colours, what ViT-bigG-14 said of 12 views, of a thumbnail and of each text, and the texts: from metadata, by
two captioners, retrieved. `ImportOpenShape` makes of it rows of four tables; `ImportTexts` the embeddings of the texts.

What `pipeline.exports.openshape` wrote has one more key, `tricorpus`, with what the format has no place for; then the rows come
back as they were.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.assets.asset import stamp_of
from pipeline.imports.ids import DATASETS, object_id, source_of
from pipeline.imports.openshape_file import NOISE, OpenShapeFile, read_file
from pipeline.sources.record import RECORD_COLUMNS, record
from pipeline.stage import Made, ObjectError, Row, Task, Work
from pipeline.store import Corpus, quote
from pipeline.weights import DEFAULT_TEACHER, dim, name_in_tables
from schemas.tables import CAPTIONS, OBJECTS, POINTS, Table, image_embeddings, text_embeddings


@dataclass(frozen=True)
class OpenShapeFolder:
    """A folder with OpenShape's files, or some of them. FileNotFoundError or ValueError, with a sentence, where there are none."""

    root: str

    def __post_init__(self) -> None:
        filesystem, path = fsspec.url_to_fs(self.root)
        if not filesystem.isdir(path):
            raise FileNotFoundError(
                f"there is no folder {self.root}: give the one that holds Objaverse, ShapeNet, ABO or 3D-FUTURE"
            )
        if next(self.records(), None) is None:
            packed = filesystem.glob(f"{path}/*.tar.gz") + filesystem.glob(f"{path}/*/*.tar.gz")
            todo = f"unpack {packed[0]} and the others first" if packed else f"give the folder that holds {', '.join(DATASETS)}"
            raise ValueError(f"{self.root} holds no OpenShape files (DATASET/…/ID.npy): {todo}")

    def records(self) -> Iterator[Row]:
        """Every file's record, in the order of their paths. `text_is_noise`: what gpt4_filtering.json says; None: nothing."""
        noise = self._noise()
        filesystem, root = fsspec.url_to_fs(self.root)
        for folder, folders, files in filesystem.walk(root, detail=True):
            for name in [name for name in folders if name.startswith(".") or (folder == root and name == "meta_data")]:
                del folders[name]
            where = PurePosixPath(folder).relative_to(root)
            if where.parts:
                for name in sorted(name for name in files if name.endswith(".npy") and not name.startswith(".")):
                    yield self._record(where, name.removesuffix(".npy"), stamp_of(files[name]), noise)

    def _record(self, where: PurePosixPath, id: str, stamp: str, noise: dict[str, bool]) -> Row:
        dataset, *groups = where.parts
        source, uri, unusable = source_of(dataset), f"{self.root.rstrip('/')}/{where}/{id}.npy", None
        try:
            known = source in DATASETS.values()
            named = object_id(source, id, groups[-1] if groups else "") if known else f"{source}/{'/'.join([*groups, id])}"
        except ValueError as error:
            named, unusable = f"{source}/{'/'.join([*groups, id])}", ("id_not_understood", f"{uri}: {error}: rename the file")
        return record(
            source=source,
            source_id=named.removeprefix(f"{source}/"),
            asset_uri=uri,
            asset_stamp=stamp,
            unusable=unusable,
            asset_format="npy",
        ) | {"text_is_noise": noise.get(id) if source == "objaverse" else None}

    def _noise(self) -> dict[str, bool]:
        uri = f"{self.root.rstrip('/')}/meta_data/gpt4_filtering.json"
        try:
            with fsspec.open(uri, "rb") as file:
                return {uid: about["flag"] == "N" for uid, about in json.load(file).items()}
        except FileNotFoundError:
            return {}
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            raise ValueError(f'{uri} cannot be read ({error}): it must hold {{uid: {{"flag": "Y" or "N"}}}}') from error


@dataclass(frozen=True, kw_only=True)
class Part:
    """The stage that fills one table from OpenShape's files; its input is no table but records, and it is done in a pass."""

    version: ClassVar = 1
    reads: ClassVar = ""
    columns: ClassVar = ()
    where: ClassVar = None
    cpus: ClassVar = 1.0
    gpus: ClassVar = 0.0

    writes: Table
    depends: tuple[str, ...]
    per: str = "object_id"
    batch: int = 64

    @property
    def name(self) -> str:
        return f"import-openshape/{self.writes.name}"

    def settings(self) -> dict[str, Any]:
        return {}


_FILE = ("asset_stamp", "unusable")


@dataclass(frozen=True, kw_only=True)
class ImportOpenShape:
    """One look into each file makes its rows of OBJECTS, POINTS, CAPTIONS and the image embeddings.

    Rows that other stages have made are left alone, so an object that the corpus has from its own collection keeps its name and
    licence and gets the rest. Its points then lie in the frame of OpenShape's points, not of its mesh: what is rendered later does
    not share it to the last digit.
    """

    teacher: str = DEFAULT_TEACHER  # whose features the files hold
    most_mb: int = 64  # a file beyond it is refused unread

    @property
    def stages(self) -> tuple[Part, ...]:
        name, width = name_in_tables(self.teacher), dim(self.teacher)
        return (
            Part(writes=OBJECTS, depends=RECORD_COLUMNS),
            Part(writes=POINTS, depends=_FILE),
            Part(writes=CAPTIONS, depends=(*_FILE, "text_is_noise")),
            Part(writes=image_embeddings(name, width), depends=_FILE),
        )

    def start(self) -> Work:
        """Work that opens one file after the other."""
        rows_of = dict(zip((stage.name for stage in self.stages), (_object, _points, _captions, _images), strict=True))

        def work(tasks: list[Task]) -> Made:
            made = Made()
            for task in tasks:
                [about] = task.rows
                try:
                    if about["unusable"]:
                        raise ObjectError(*about["unusable"])
                    file = read_file(about["asset_uri"], self.teacher, self.most_mb)
                except ObjectError as error:
                    for name in task.keys:
                        made.fail(name, task.id, error)
                    continue
                for name in task.keys:
                    try:
                        made.add(name, rows_of[name](file, about))
                    except ObjectError as error:
                        made.fail(name, task.id, error)
            return made

        return work


def _texts_in(place: str, teacher: str, most_mb: int) -> dict[str, Row] | ObjectError:
    try:
        return read_file(place, teacher, most_mb).text_embeddings()
    except ObjectError as error:
        return error


def _object(file: OpenShapeFile, about: Row) -> list[Row]:
    columns = {name: about[name] for name in OBJECTS.schema.names if name in about}
    return [columns | {"companions": [], "traits": []} | file.object_columns() | {"object_id": about["object_id"]}]


def _points(file: OpenShapeFile, about: Row) -> list[Row]:
    return [{"object_id": about["object_id"]} | file.points(about["object_id"])]


def _captions(file: OpenShapeFile, about: Row) -> list[Row]:
    return [
        {
            "object_id": about["object_id"],
            "caption": number,
            "text_sha256": hashlib.sha256(caption["text"].encode()).hexdigest(),
        }
        | caption
        for number, caption in enumerate(file.captions(noise=bool(about["text_is_noise"])))
    ]


def _images(file: OpenShapeFile, about: Row) -> list[Row]:
    return [{"object_id": about["object_id"]} | file.image_embeddings()]


@dataclass(frozen=True, kw_only=True)
class ImportTexts:
    """The embeddings of the imported captions that are kept or noise, one per distinct text; comes after `ImportOpenShape`.

    A text that several files have is taken from the first of them, by object id. Its row depends on the text alone: a teacher says
    the same of it in every file.
    """

    folder: OpenShapeFolder
    teacher: str = DEFAULT_TEACHER
    most_mb: int = 64

    @property
    def stages(self) -> tuple[Part, ...]:
        table = text_embeddings(name_in_tables(self.teacher), dim(self.teacher))
        return (Part(writes=table, depends=("text_sha256",), per="text_sha256", batch=1024),)

    def records(self, corpus: Corpus) -> Iterator[Row]:
        """One per distinct text of the folder's objects: its hash, and the file that has it."""
        uris = {row["object_id"]: row["asset_uri"] for row in self.folder.records()}
        [captions] = [stage.name for stage in ImportOpenShape().stages if stage.writes is CAPTIONS]
        said = corpus.need(CAPTIONS.name).to_table(
            columns=["text_sha256", "object_id"],
            filter=f"stage = {quote(captions)} AND (kept OR dropped_because = {quote(NOISE)})",
        )
        said = said.filter(pc.is_in(said["object_id"], pa.array(list(uris), pa.string())))  # others came from another folder
        first = said.group_by("text_sha256").aggregate([("object_id", "min")])
        for batch in first.to_batches(max_chunksize=10_000):
            for row in batch.to_pylist():
                yield {"text_sha256": row["text_sha256"], "beside": uris[row["object_id_min"]]}

    def start(self) -> Work:
        """Work that opens a file once for all texts in a row that are taken from it."""
        [stage] = self.stages

        def work(tasks: list[Task]) -> Made:
            made = Made()
            opened: str | None = None
            texts: dict[str, Row] | ObjectError = {}
            for task in tasks:
                place = task.rows[0]["beside"]
                if place != opened:
                    opened, texts = place, _texts_in(place, self.teacher, self.most_mb)
                if isinstance(texts, ObjectError):
                    made.fail(stage.name, task.id, texts)
                elif task.id not in texts:
                    made.fail(stage.name, task.id, ObjectError("no_embedding", f"{place} has no embedding of this text of its own"))
                else:
                    made.add(stage.name, [texts[task.id]])
            return made

        return work
