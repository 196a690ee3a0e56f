"""Captions made by others: Cap3D's lists (https://huggingface.co/datasets/tiange/Cap3D), `uid,caption` without a header."""

import csv
import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import fsspec

from captions.filters import machine_fault, same_text
from pipeline.imports.ids import object_id
from pipeline.stage import Row, Task, Work, one_by_one
from schemas.tables import CAPTIONS


@dataclass(frozen=True, kw_only=True)
class ImportCap3d:
    """Captions of origin "cap3d" of the objects of one source. Its input is no table but what `read_cap3d` found."""

    version: ClassVar = 1
    reads: ClassVar = ""
    per: ClassVar = "object_id"
    columns: ClassVar = ()
    depends: ClassVar = ("texts",)
    where: ClassVar = None
    writes: ClassVar = CAPTIONS
    batch: ClassVar = 4096
    cpus: ClassVar = 1.0
    gpus: ClassVar = 0.0

    source: str = "objaverse"

    @property
    def name(self) -> str:
        return f"import-cap3d/{self.source}"

    def settings(self) -> dict[str, Any]:
        return {}

    def start(self) -> Work:
        """Work that judges captions one by one."""
        return one_by_one(self.name, _rows)


def _rows(task: Task) -> list[Row]:
    """Rows of CAPTIONS, in the list's order; one that cannot serve stays, with the reason."""
    rows, seen = [], set()
    for number, text in enumerate(task.rows[0]["texts"]):
        fault = machine_fault(text) or ("duplicate" if same_text(text) in seen else None)
        seen.add(same_text(text))
        rows.append(
            {
                "object_id": task.id,
                "origin": "cap3d",
                "caption": number,
                "text": text,
                "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
                "model": "Cap3D",
                "kept": fault is None,
                "dropped_because": fault,
                "score": None,
            }
        )
    return rows


def read_cap3d(place: str, source: str) -> dict[str, list[str]]:
    """The captions of a list by object id, in its order.

    An id that `source` does not have (those of Objaverse-XL are no uids) stays as it is, in no corpus.
    Raises FileNotFoundError, and ValueError for a line that is not an id and a caption.
    """
    found: dict[str, list[str]] = {}
    with fsspec.open(place, "rt", encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file)
        try:
            for line in lines:
                if not line:
                    continue
                if len(line) != 2 or not line[0].strip():
                    raise ValueError(f"it has {len(line)} fields, must have two: uid,caption")
                id = line[0].strip()
                try:
                    id = object_id(source, id)
                except ValueError:
                    pass
                found.setdefault(id, []).append(" ".join(line[1].split()))
        except (csv.Error, ValueError) as error:  # UnicodeDecodeError is a ValueError too
            raise ValueError(f"{place}, line {lines.line_num}: {error}") from error
    return found
