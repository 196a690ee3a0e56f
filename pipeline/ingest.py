"""The first stage: what the sources say of an object, and the hash of its asset, become a row of OBJECTS."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, ClassVar

from pipeline.assets.preflight import Limits, examine
from pipeline.photos.photo_folder import examine_cloud, examine_photos
from pipeline.sources.record import AGE_RESTRICTED, RECORD_COLUMNS
from pipeline.sources.source import Source
from pipeline.stage import ObjectError, Row, Task, Work, one_by_one
from schemas.tables import OBJECTS

# What is no file with a mesh is looked into by its own function.
_EXAMINERS = {"photos": examine_photos, "pcd": examine_cloud}


@dataclass(frozen=True)
class Ingest:
    """Objects of the sources. Its input is no table but `records()`; a row depends on its record and the limits, not on others."""

    name: ClassVar = "ingest"
    version: ClassVar = 2
    reads: ClassVar = ""
    per: ClassVar = "object_id"
    columns: ClassVar = RECORD_COLUMNS
    depends: ClassVar = RECORD_COLUMNS
    where: ClassVar = None
    writes: ClassVar = OBJECTS
    batch: ClassVar = 256
    cpus: ClassVar = 1.0
    gpus: ClassVar = 0.0

    sources: tuple[Source, ...]
    age_restricted: bool = False  # whether objects that a collection marks as age-restricted are let in
    limits: Limits = Limits()

    def settings(self) -> dict[str, Any]:
        """The limits; the other fields decide what the records are, and a row depends on its record."""
        return {"limits": asdict(self.limits)}

    def records(self, limit: int | None = None) -> Iterator[Row]:
        """The records of all sources, of each at most the first `limit`; a larger limit adds to those of a smaller one."""
        for source in self.sources:
            for record in islice(source.records(), limit):
                lets_in = self.age_restricted and record["unusable"] == list(AGE_RESTRICTED)
                yield record | {"unusable": None} if lets_in else record

    def start(self) -> Work:
        """Work that looks into assets and hashes them."""
        return one_by_one(self.name, lambda task: objects_row(task, self.limits))


def objects_row(task: Task, limits: Limits) -> list[Row]:
    """The row of OBJECTS of one record.

    Raises ObjectError: what the source says (age_restricted, metadata_unreadable, link_outside, ...), asset_missing,
    asset_unreadable, sha256_differs, and the reasons of `pipeline.assets.preflight` and `pipeline.photos.photo_folder`.
    """
    [record] = task.rows
    place = record["asset_uri"]
    if record["unusable"]:
        raise ObjectError(*record["unusable"])
    if record["asset_stamp"] is None:
        raise _missing(place)
    try:
        seen = _EXAMINERS.get(record["asset_format"], examine)(record, limits)
    except FileNotFoundError:
        raise _missing(place) from None
    except PermissionError as error:
        raise ObjectError("asset_unreadable", f"{place} may not be read ({error.strerror}): change its permissions") from error
    if record["sha256"] not in (None, seen["asset_sha256"]):
        message = f"{place} is another file than the collection lists (SHA-256 {record['sha256']}): download it again"
        raise ObjectError("sha256_differs", message)
    return [{name: record[name] for name in OBJECTS.schema.names if name in record} | seen]


def _missing(place: str) -> ObjectError:
    return ObjectError("asset_missing", f"there is no {place}, though the collection lists it: download it")
