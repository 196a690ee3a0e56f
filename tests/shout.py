"""A small real stage, and rows for it to read."""

import os
from dataclasses import dataclass
from typing import ClassVar

from pipeline.stage import Made, ObjectError, Task, Work, one_by_one
from pipeline.store import Corpus
from schemas.tables import CAPTIONS


def object_row(number: int, **changes) -> dict:
    """A row of OBJECTS that no asset stands behind."""
    return {
        "object_id": f"test/{number}",
        "stage": "ingest",
        "stage_key": "k",
        "source": "test",
        "source_id": str(number),
        "asset_uri": f"/nowhere/{number}.glb",
        "asset_format": "glb",
        "asset_sha256": f"{number:064x}",
        "asset_bytes": 1,
        "companions": [],
        "traits": [],
        "warnings": [],
        "name": f"Thing {number}",
        "categories": [],
        "tags": [],
        "license": "CC0-1.0",
    } | changes


@dataclass(frozen=True, kw_only=True)
class Shout:
    """A small real stage: one caption per object, its name in capitals. Fails, dies or breaks on the names it is told to."""

    name: ClassVar = "shout"
    version: ClassVar = 1
    reads: ClassVar = "objects"
    per: ClassVar = "object_id"
    columns: ClassVar = ("object_id", "name")
    depends: ClassVar = ("name",)
    writes: ClassVar = CAPTIONS
    batch: ClassVar = 4
    cpus: ClassVar = 0.5
    gpus: ClassVar = 0

    mark: str = "!"
    fails: tuple[str, ...] = ()
    dies: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()
    cannot_start: str | None = None
    log: str | None = None  # a file that gets a line per object done
    only: str | None = None

    @property
    def where(self) -> str | None:
        return self.only

    def settings(self) -> dict:
        return {"mark": self.mark}

    def start(self) -> Work:
        if self.cannot_start:
            raise FileNotFoundError(self.cannot_start)

        def make(task: Task) -> list[dict]:
            row = task.rows[0]
            if row["name"] in self.fails:
                raise ObjectError("too_shy", f"{row['name']} does not shout")
            if row["name"] in self.dies:
                os.kill(os.getpid(), 9)
            if row["name"] in self.breaks:
                raise ZeroDivisionError(row["name"])
            if self.log:
                with open(self.log, "a") as file:
                    file.write(task.id + "\n")
            return [
                {
                    "object_id": task.id,
                    "origin": "shout",
                    "caption": 0,
                    "text": row["name"].upper() + self.mark,
                    "text_sha256": "0" * 64,
                    "model": "shout",
                    "kept": True,
                }
            ]

        return one_by_one(self.name, make)


def texts(corpus: Corpus) -> dict[str, str]:
    rows = corpus.need("captions").to_table().to_pylist()
    assert len({row["object_id"] for row in rows}) == len(rows)
    return {row["object_id"]: row["text"] for row in rows}


@dataclass(frozen=True, kw_only=True)
class Whisper(Shout):
    """Another stage with captions of its own."""

    name: ClassVar = "whisper"


@dataclass(frozen=True)
class Both:
    """Two stages in one pass."""

    stages: tuple

    def start(self):
        works = [stage.start() for stage in self.stages]

        def work(tasks):
            made = Made()
            for stage, one in zip(self.stages, works, strict=True):
                part = one([task for task in tasks if stage.name in task.keys])
                made.rows |= part.rows
                made.failures |= part.failures
            return made

        return work
