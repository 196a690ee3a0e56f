"""Reading a corpus: which tables and teachers it has, and what made them. Needs neither Blender nor Ray nor a model.

corpus = Reader.at("/data/corpus")
corpus.teachers()                                # ["ViT-bigG-14:laion2b_s39b_b160k"]
corpus.need("points").to_table(columns=["object_id", "xyz"])
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import fsspec
import lance

from schemas.tables import CAPTIONS, MAPS, OBJECTS, POINTS, SPLITS, VIEWS, Table

# The job that makes a table, for the person who lacks it.
MADE_BY_JOB = {
    OBJECTS.name: "ingest {root} --source NAME=PATH",
    VIEWS.name: "render {root}",
    POINTS.name: "points {root}",
    MAPS.name: "maps {root}",
    CAPTIONS.name: "caption {root}",
    SPLITS.name: "import {root} --split NAME=FILE",
    "image_embeddings": "embed {root} --teacher {teacher}",
    "text_embeddings": "embed {root} --teacher {teacher}",
    "class_embeddings": "embed {root} --teacher {teacher}",
}
EMBEDDINGS = ("image_embeddings", "text_embeddings", "class_embeddings")  # each followed by "/" and the teacher's name


class CorpusError(Exception):
    """The corpus cannot be used as asked; the message says what to do."""


@dataclass(frozen=True)
class Reader:
    """The folder or URI that holds `<table>.lance`, to be read. `versions`: by table, which one; None: the newest of each."""

    root: str
    versions: dict[str, int] | None = field(default=None, hash=False)

    @classmethod
    def at(cls, root: str) -> Self:
        """The corpus at a URI, or at a local path, which may be relative."""
        return cls(root if "://" in root else str(Path(root).absolute()))

    def uri(self, table: str) -> str:
        return f"{self.root.rstrip('/')}/{table}.lance"

    def open(self, table: str, version: int | None = None) -> lance.LanceDataset | None:
        """The table, or None when it has not been made."""
        if version is None and self.versions is not None:
            if table not in self.versions:
                return None
            version = self.versions[table]
        try:
            return lance.dataset(self.uri(table), version=version)
        except (ValueError, FileNotFoundError) as error:
            if "was not found" in str(error) or isinstance(error, FileNotFoundError):
                return None
            raise

    def need(self, table: str) -> lance.LanceDataset:
        """The table; CorpusError, naming the job that makes it, when it has not been made."""
        dataset = self.open(table)
        if dataset is None:
            kind, _, teacher = table.partition("/")
            job = MADE_BY_JOB.get(kind, "build {root}").format(root=self.root, teacher=teacher)
            raise CorpusError(
                f"{self.root} has no table {table!r}: it is not a corpus, or what makes the table has not been run "
                f"(python -m jobs {job})"
            )
        return dataset

    def tables(self) -> list[str]:
        """Names of the tables there are."""
        if self.versions is not None:
            return sorted(self.versions)
        files, root = fsspec.url_to_fs(self.root)
        found = [*files.glob(f"{root}/*.lance"), *files.glob(f"{root}/*/*.lance")]
        return sorted(path[len(root) + 1 :].removesuffix(".lance") for path in found)

    def pinned(self) -> Self:
        """The corpus as it is now: what is written from now on is not seen."""
        return replace(self, versions={table: self.need(table).version for table in self.tables()})

    def as_it_was(self, when: str) -> Self:
        """The corpus at an earlier time: each table at the version that was the newest one then, none where it was not made yet.

        `when`: a date ("2026-11-20", its first moment), a time ("2026-11-20T12:00"), both UTC where they do not say otherwise; or a
        tag or number of a version of `objects`, which stand for the last moment at which that version was the newest. Tables that
        have the same tag are taken at it. ValueError: it is none of these. CorpusError: that version is not there, or not any more.
        """
        objects = self.need(OBJECTS.name)
        tags = objects.tags.list()
        number = tags[when]["version"] if when in tags else int(when) if when.isdecimal() else None
        moment = _moment(when) if number is None else None
        versions: dict[str, int | None] = {}
        for table in self.tables():
            dataset = self.need(table)
            tagged = dataset.tags.list().get(when)
            if tagged is not None:
                versions[table] = tagged["version"]
            elif table == OBJECTS.name and number is not None:
                versions[table] = number
            else:
                moment = moment or self._end_of(objects, number)
                versions[table] = _newest(dataset, moment)
        found = replace(self, versions={table: version for table, version in versions.items() if version is not None})
        if found.open(OBJECTS.name) is None:
            first = _versions(objects)[0]
            raise CorpusError(f"{self.root} had no objects at {when}: the first version of them is of {_told(first[1])}")
        return found

    def _end_of(self, objects: lance.LanceDataset, number: int) -> datetime:
        """The last moment at which a version was the newest one of `objects`."""
        times = dict(_versions(objects))
        if number not in times:
            there = ", ".join(map(str, times))
            raise CorpusError(f"{self.root} has no version {number} of its objects, or not any more; it has: {there}")
        if number == max(times):
            return datetime.now(UTC)
        if number + 1 not in times:
            raise CorpusError(
                f"{self.root}: until when version {number} of its objects was the newest is not known any more, for version "
                f"{number + 1} was cleaned away: give a time instead; version {number} is of {_told(times[number])}"
            )
        return times[number + 1] - timedelta(microseconds=1)

    def teachers(self) -> list[str]:
        """Names of the teachers that have embedded the objects' views."""
        return [name.partition("/")[2] for name in self.tables() if name.startswith("image_embeddings/")]

    def made_by(self, table: str) -> dict[str, dict[str, Any]]:
        """The settings that made a table, by stage; empty where there is no table."""
        dataset = self.open(table)
        stored = None if dataset is None else (dataset.schema.metadata or {}).get(b"made_by")
        return json.loads(stored) if stored else {}

    def declared(self, table: str) -> Table:
        """A table of this corpus as its own schema metadata describe it."""
        schema = self.need(table).schema
        return Table(table, schema, tuple(json.loads(schema.metadata[b"key"])), json.loads(schema.metadata[b"shared"]))

    def identities(self, table: str) -> dict[str, dict[str, Any]]:
        """What the stages that made a table of embeddings say of their teacher, by stage: `name`, `weights_sha256`, `dim`,
        `image_size`, `mean`, `std`, `interpolation`, `resize_mode`, `background`. An import says nothing: its files do not know."""
        settings = {stage: made["settings"] for stage, made in self.made_by(table).items()}
        return {stage: said["teacher"] for stage, said in settings.items() if isinstance(said.get("teacher"), dict)}

    def teacher_of(self, teacher: str) -> dict[str, Any] | None:
        """The one teacher behind the image, text and class embeddings called by this name, as `identities` has it; None: no stage
        says (an import). Raises CorpusError when the tables' stages had different weights or prepared pictures differently: cosines
        between such embeddings mean nothing.
        """
        said = [
            (f"{kind}/{teacher}", stage, identity)
            for kind in EMBEDDINGS
            for stage, identity in self.identities(f"{kind}/{teacher}").items()
        ]
        if not said:
            return None
        first_table, first_stage, first = said[0]
        for table, stage, identity in said[1:]:
            if differing := [key for key in first if key in identity and first[key] != identity[key]]:
                values = "; ".join(f"{key}: {first[key]} against {identity[key]}" for key in differing)
                raise CorpusError(
                    f"{self.root}: {table} (stage {stage}) and {first_table} (stage {first_stage}) were made with different "
                    f"teachers, though both are called {teacher} ({values}): remove the tables of the one that is wrong and run "
                    f"python -m jobs embed {self.root} --teacher {teacher}"
                )
        return first


def _versions(dataset: lance.LanceDataset) -> list[tuple[int, datetime]]:
    """Number and time of the versions that are there, ascending."""
    found = ((version["version"], version["timestamp"].astimezone(UTC)) for version in dataset.versions())
    return sorted(found)


def _newest(dataset: lance.LanceDataset, moment: datetime) -> int | None:
    """The version of a table that was the newest one at that moment; None: it was not made yet. CorpusError: it, or one that may
    have been, was cleaned away."""
    versions = _versions(dataset)
    before = [number for number, time in versions if time <= moment]
    if len(before) == len(versions):
        return before[-1]
    following, time = versions[len(before)]
    if not before and following == 1:
        return None
    if not before or before[-1] + 1 != following:
        raise CorpusError(
            f"{dataset.uri}: the version that was the newest at {_told(moment)} was cleaned away; the oldest one from there on is "
            f"version {following} of {_told(time)}: compare with that time or a later one"
        )
    return before[-1]


def _moment(when: str) -> datetime:
    try:
        moment = datetime.fromisoformat(when)
    except ValueError:
        raise ValueError(f"{when!r} is no tag, number or time of a version (2026-11-20, 2026-11-20T12:00)") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _told(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")  # to the microsecond, so that it can be given as a time


def quote(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def any_of(column: str, values: Iterable[str]) -> str:
    """SQL condition: the column has one of these values."""
    return f"{column} IN ({', '.join(map(quote, values))})"
