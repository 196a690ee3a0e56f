"""Reading a corpus: which tables and teachers it has, and what made them. Needs neither Blender nor Ray nor a model.

corpus = Reader.at("/data/corpus")
corpus.teachers()                                # ["ViT-bigG-14:laion2b_s39b_b160k"]
corpus.need("points").to_table(columns=["object_id", "xyz"])
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
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
    """The folder or URI that holds `<table>.lance`, to be read."""

    root: str

    @classmethod
    def at(cls, root: str) -> Self:
        """The corpus at a URI, or at a local path, which may be relative."""
        return cls(root if "://" in root else str(Path(root).absolute()))

    def uri(self, table: str) -> str:
        return f"{self.root.rstrip('/')}/{table}.lance"

    def open(self, table: str, version: int | None = None) -> lance.LanceDataset | None:
        """The table, or None when it has not been made."""
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
        files, root = fsspec.url_to_fs(self.root)
        found = [*files.glob(f"{root}/*.lance"), *files.glob(f"{root}/*/*.lance")]
        return sorted(path[len(root) + 1 :].removesuffix(".lance") for path in found)

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


def quote(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def any_of(column: str, values: Iterable[str]) -> str:
    """SQL condition: the column has one of these values."""
    return f"{column} IN ({', '.join(map(quote, values))})"
