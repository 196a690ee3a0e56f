"""Lists of objects that others train or evaluate on, as rows of SPLITS. The forms that are read:

.json       [{"dataset", "group", "id"}] (OpenShape's train_all.json), [{"uid", "category"}] (its lvis.json), ["192/0a0ff1c0.pcd"]
            (MVPNet), or any list of ids, or {category: [ids]} (Objaverse's LVIS annotations)
.csv .txt   one id per line; or index,category,id (DuoduoCLIP's lvis.csv and mvpnet_val.csv); or index,category,id,path (Uni3D's
            lvis_testset.txt)

A list is kept whole, also the objects that the corpus does not have: who evaluates on it must know how many are missing.
"""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import fsspec

from pipeline.imports.ids import object_id, source_by_form, source_of
from pipeline.stage import Row, Task, Work, one_by_one
from schemas.tables import SPLITS


@dataclass(frozen=True, kw_only=True)
class ImportSplit:
    """One named list. Its input is no table but what `read_split` found; all of it, so that what a newer list lacks goes."""

    version: ClassVar = 1
    reads: ClassVar = ""
    per: ClassVar = "object_id"
    columns: ClassVar = ()
    depends: ClassVar = ("label",)
    where: ClassVar = None
    writes: ClassVar = SPLITS
    batch: ClassVar = 65_536
    cpus: ClassVar = 1.0
    gpus: ClassVar = 0.0

    split: str

    @property
    def name(self) -> str:
        return f"import-split/{self.split}"

    def settings(self) -> dict[str, Any]:
        return {"split": self.split}

    def start(self) -> Work:
        """Work that copies."""
        return one_by_one(self.name, self._rows)

    def _rows(self, task: Task) -> list[Row]:
        return [{"object_id": task.id, "split": self.split, "label": task.rows[0]["label"]}]


def read_split(place: str, source: str | None = None) -> dict[str, str | None]:
    """The objects of a list and what it calls them (None: it has no names), in its order.

    `source`: whose ids they are where the list does not say; None: as their form tells. Raises FileNotFoundError, and ValueError
    that names the line (of JSON the entry) that cannot be understood or calls an object something else than another did.
    """
    found: dict[str, str | None] = {}
    where, entries = ("entry", _json(place)) if place.endswith(".json") else ("line", _lines(place))
    for number, entry in entries:
        try:
            dataset, group, id, label = _understood(entry)
            its = source_of(dataset) if dataset else source or source_by_form(id)
            if its is None:
                raise ValueError(f"of which source is {id!r}? Say it with --source")
            named = object_id(its, id, group)
            if found.setdefault(named, label) != label:
                raise ValueError(f"{named} is called {label!r}, and {found[named]!r} before")
        except ValueError as error:
            raise ValueError(f"{place}, {where} {number}: {error}") from error
    if not found:
        raise ValueError(f"{place} lists no objects")
    return found


def _understood(entry: Any) -> tuple[str, str, str, str | None]:
    """Dataset and group ("" where they are not said), id, label."""
    match entry:
        case str(id) | [str(id)]:
            return "", "", id, None
        case [str(index), str(label), str(id)] | [str(index), str(label), str(id), str()] if index.isdecimal() and label:
            return "", "", id, label
        case {"id": str(id)} | {"uid": str(id)}:
            fields = [entry.get(name) for name in ("dataset", "group", "category")]
            if all(isinstance(value, str | None) for value in fields):
                return fields[0] or "", fields[1] or "", id, fields[2]
    raise ValueError(f"{json.dumps(entry)[:80]} is neither an id nor an entry with one")


def _lines(place: str) -> Iterator[tuple[int, list[str]]]:
    with fsspec.open(place, "rt", encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, skipinitialspace=True)
        try:
            for line in lines:
                if line:
                    yield lines.line_num, [field.strip() for field in line]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{place}, line {lines.line_num}: {error}") from error


def _json(place: str) -> Iterator[tuple[int, Any]]:
    with fsspec.open(place, "rt", encoding="utf-8-sig") as file:
        text = file.read()
    try:
        if text.lstrip().startswith("{"):
            named = json.loads(text)
            yield from enumerate(({"uid": id, "category": label} for label, ids in named.items() for id in ids), 1)
        else:
            yield from enumerate(_elements(text), 1)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} is no JSON: {error}") from error


def _elements(text: str) -> Iterator[Any]:
    """The elements of a JSON list one after the other: all at once, a list of 876,000 dictionaries takes a gigabyte."""
    decoder, position, wanted = json.JSONDecoder(), 0, "["
    while True:
        position = _SPACE.match(text, position).end()
        mark = text[position : position + 1]
        if not mark or mark not in wanted:
            raise json.JSONDecodeError(f"one of {wanted} is missing", text, position)
        position = _SPACE.match(text, position + 1).end()
        if mark == "]" or (mark == "[" and text.startswith("]", position)):
            return
        element, position = decoder.raw_decode(text, position)
        yield element
        wanted = ",]"


_SPACE = re.compile(r"\s*")
