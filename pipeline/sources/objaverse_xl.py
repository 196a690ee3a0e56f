"""Objaverse-XL as the package `objaverse.xl` leaves it on disk (https://github.com/allenai/objaverse-xl, version 0.1.7):

github/github.parquet             annotations: fileIdentifier, source, license, fileType, sha256, metadata; or alignment.parquet
github/repos/<org>/<repo>/...     repositories, saved with save_repo_format="files"
thingiverse/thingiverse.parquet   thingiverse/thing-<thing>-file-<file>.stl
smithsonian/smithsonian.parquet   smithsonian/objects/<UUID 5 of the fileIdentifier>.glb
sketchfab/sketchfab.parquet       hf-objaverse-v1/, which is Objaverse 1.0 in its own layout

Ten million objects are annotated and hardly anybody has them all, so only what is on disk counts. An object's id is the SHA-256 of
its annotation, which is how captions and lists of this collection name it, and for Sketchfab its uid. A file with other bytes is
another object and is refused (sha256_differs): where the annotated commit is gone, the package takes the newest one instead.
"""

import json
import posixpath
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet

from pipeline.assets.asset import stamps_in
from pipeline.sources.objaverse import Objaverse
from pipeline.sources.record import record, spdx
from pipeline.stage import Row

PARTS = ("github", "thingiverse", "smithsonian", "sketchfab")
PACKED = (".tar.gz", ".tar", ".zip")  # the other ways in which the package saves a repository


@dataclass(frozen=True)
class ObjaverseXL:
    """A download folder of `objaverse.xl` (by default ~/.objaverse). `parts`: which of the four it is read for."""

    name: str
    root: str
    parts: tuple[str, ...] = PARTS

    def __post_init__(self) -> None:
        if unknown := set(self.parts) - set(PARTS):
            raise ValueError(f"source {self.name!r}: parts has {sorted(unknown)[0]!r}; there are {', '.join(PARTS)}")
        filesystem, path = fsspec.url_to_fs(self.root)
        if not filesystem.exists(path):
            raise FileNotFoundError(f"{self.root} does not exist: give the folder that objaverse.xl downloads to (~/.objaverse)")
        if not any(filesystem.exists(f"{path}/{folder}") for folder in (*PARTS[:3], "hf-objaverse-v1")):
            raise ValueError(
                f"{self.root} holds none of github/, thingiverse/, smithsonian/ and hf-objaverse-v1/, so it is no Objaverse-XL: "
                "give the folder that objaverse.xl downloads to (~/.objaverse)"
            )

    def records(self) -> Iterator[Row]:
        """Every object on disk, part by part, in the order of the annotations."""
        seen: set[str] = set()
        for part in self.parts:
            for one in getattr(self, f"_{part}")():
                if one["source_id"] not in seen:  # the same bytes at two sites are one object
                    seen.add(one["source_id"])
                    yield one

    def _github(self) -> Iterator[Row]:
        owners = {place: self._repositories(place) for place in _names_in(f"{self.root}/github/repos")}
        listed = lru_cache(maxsize=4096)(stamps_in)
        for row in self._annotations("github") if owners else ():
            # https://github.com/<org>/<repo>/blob/<commit>/<path>, the path as it is on disk
            fields = row["fileIdentifier"].split("/", 7)
            if len(fields) < 8 or fields[4] not in owners.get(fields[3], {}):
                continue
            owner, repository, path = fields[3], fields[4], PurePosixPath(fields[7])
            if ".." in path.parts:
                continue
            home, packed = f"{self.root}/github/repos/{owner}/{repository}", owners[owner][repository]
            place = f"{home}/{path}"
            stamp = packed or listed(posixpath.dirname(place)).get(path.name)
            if stamp is not None:
                unusable = _packed(place) if packed else None
                yield self._record(row, place, stamp, name=path.stem, creator=owner, home=home, unusable=unusable)

    def _repositories(self, owner: str) -> dict[str, str | None]:
        """The repositories of an owner that are on disk; for a packed one the stamp of its archive."""
        place = f"{self.root}/github/repos/{owner}"
        files = stamps_in(place)
        found: dict[str, str | None] = {name: None for name in _names_in(place) if name not in files}
        for name, stamp in files.items():
            if packing := next((ending for ending in PACKED if name.endswith(ending)), None):
                found.setdefault(name.removesuffix(packing), stamp)
        return found

    def _thingiverse(self) -> Iterator[Row]:
        """fileIdentifier: https://www.thingiverse.com/thing:<thing>/files?fileId=<file>"""
        present = stamps_in(f"{self.root}/thingiverse")
        for row in self._annotations("thingiverse") if present else ():
            thing, _, file = row["fileIdentifier"].rpartition("thing:")[2].partition("/")
            name = f"thing-{thing}-file-{file.rpartition('fileId=')[2]}.stl"
            if name in present:
                yield self._record(row, f"{self.root}/thingiverse/{name}", present[name])

    def _smithsonian(self) -> Iterator[Row]:
        present = stamps_in(f"{self.root}/smithsonian/objects")
        for row in self._annotations("smithsonian") if present else ():
            name = f"{_uid(row['fileIdentifier'])}.glb"
            if name in present:
                yield self._record(row, f"{self.root}/smithsonian/objects/{name}", present[name], creator="Smithsonian Institution")

    def _sketchfab(self) -> Iterator[Row]:
        place = f"{self.root}/hf-objaverse-v1"
        if not _names_in(place):
            return
        sha256 = {row["fileIdentifier"].rpartition("/")[2]: row["sha256"] for row in self._annotations("sketchfab")}
        for one in Objaverse(self.name, place).records():
            if one["asset_stamp"] is not None:
                yield one | {"sha256": sha256.get(one["source_id"])}

    def _annotations(self, part: str) -> Iterator[dict[str, Any]]:
        """The rows of a part's annotation file, as they are asked for; none where there is no file."""
        for name in (part, "alignment"):
            uri = f"{self.root}/{part}/{name}.parquet"
            filesystem, path = fsspec.url_to_fs(uri)
            if not filesystem.exists(path):
                continue
            try:
                with filesystem.open(path, "rb") as file:
                    table = pyarrow.parquet.ParquetFile(file)
                    columns = [
                        name for name in ("fileIdentifier", "sha256", "license", "metadata") if name in table.schema_arrow.names
                    ]
                    if columns[:2] != ["fileIdentifier", "sha256"]:
                        raise ValueError("it has no columns fileIdentifier and sha256")
                    for batch in table.iter_batches(columns=columns):
                        yield from (row for row in batch.to_pylist() if row["fileIdentifier"])
            except (pa.ArrowException, OSError, ValueError) as error:
                raise ValueError(f"{uri} cannot be read ({error}): download it again") from error
            return

    def _record(self, row: dict[str, Any], uri: str, stamp: str, *, name: str | None = None, **more: Any) -> Row:
        return record(
            source=self.name,
            source_id=row["sha256"] or _uid(row["fileIdentifier"]),
            asset_uri=uri,
            asset_stamp=stamp,
            name=_title(row.get("metadata")) or name,
            license=spdx(row.get("license")),
            sha256=row["sha256"],
            **more,
        )


def _uid(identifier: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, identifier))


def _title(metadata: Any) -> str | None:
    """What the site calls the object: `metadata` is a JSON object as text, with fields that differ from site to site."""
    try:
        fields = json.loads(metadata) if isinstance(metadata, str) else metadata
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return None
    title = next((fields[key] for key in ("name", "title") if isinstance(fields.get(key), str)), None)
    file = fields.get("filename")
    return title or (PurePosixPath(file).stem if isinstance(file, str) else None)


def _packed(uri: str) -> tuple[str, str]:
    return "packed_repository", f'{uri} is inside an archive: unpack it into a folder of its name, or save repositories as "files"'


def _names_in(folder: str) -> list[str]:
    filesystem, path = fsspec.url_to_fs(folder)
    try:
        return sorted(PurePosixPath(item.rstrip("/")).name for item in filesystem.ls(path, detail=False))
    except (FileNotFoundError, NotADirectoryError):
        return []
