"""Objaverse 1.0 as it is published (https://objaverse.allenai.org/docs/objaverse-1.0):

object-paths.json.gz        {uid: "glbs/000-023/<uid>.glb"}; without it, what lies in glbs/ counts
lvis-annotations.json.gz    {category: [uid, ...]}; may be absent
metadata/000-023.json.gz    {uid: annotation}, one file per folder of glbs/; may be absent
glbs/000-023/<uid>.glb
thumbnails/000-023/<uid>.*  pictures, for those who downloaded them; otherwise the annotation's address counts
asked-for.txt               uids, of a download of a part: of what is not on disk only these count; without it, all
"""

import json
import posixpath
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import fsspec

from pipeline.assets.asset import stamps_in
from pipeline.sources.asked_for import asked_for
from pipeline.sources.record import AGE_RESTRICTED, SPDX, record
from pipeline.stage import Row

Unusable = tuple[str, str]


@dataclass(frozen=True)
class Objaverse:
    """A folder with Objaverse 1.0 or a part of it. What is on disk comes first, shard by shard; what is listed but absent, last."""

    name: str
    root: str

    def __post_init__(self) -> None:
        filesystem, path = fsspec.url_to_fs(self.root)
        if not filesystem.exists(path):
            raise FileNotFoundError(f"{self.root} does not exist: give the folder that holds Objaverse's object-paths.json.gz")
        if not (filesystem.exists(f"{path}/object-paths.json.gz") or filesystem.exists(f"{path}/glbs")):
            raise ValueError(
                f"{self.root} holds neither object-paths.json.gz nor glbs/, so it is no Objaverse 1.0: "
                "give the folder that does (the objaverse package downloads to ~/.objaverse/hf-objaverse-v1)"
            )

    def records(self) -> Iterator[Row]:
        """Every object. One metadata file is in memory at a time, and only those of shards with assets on disk are read."""
        categories: dict[str, list[str]] = {}
        for category, uids in self._json("lvis-annotations.json.gz", {}).items():
            for uid in uids:
                categories.setdefault(uid, []).append(category)
        asked = asked_for(self.root)
        absent: list[tuple[str, str]] = []
        for folder, paths in self._folders():
            present = stamps_in(f"{self.root}/{folder}")
            absent += [
                (uid, path)
                for uid, path in paths.items()
                if posixpath.basename(path) not in present and (asked is None or uid in asked)
            ]
            if present:
                yield from self._shard(posixpath.basename(folder), paths, present, categories)
        for uid, path in absent:
            yield record(
                source=self.name,
                source_id=uid,
                asset_uri=f"{self.root}/{path}",
                asset_stamp=None,
                categories=categories.get(uid, ()),
            )

    def _folders(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Each folder of assets in the order of their names, with its {uid: path}."""
        listed: dict[str, str] | None = self._json("object-paths.json.gz", None)
        if listed is not None:
            folders: dict[str, dict[str, str]] = {}
            for uid, path in listed.items():
                folders.setdefault(posixpath.dirname(path), {})[uid] = path
            for folder in sorted(folders):
                yield folder, folders.pop(folder)
            return
        filesystem, path = fsspec.url_to_fs(f"{self.root}/glbs")
        for shard in sorted(PurePosixPath(item).name for item in filesystem.ls(path, detail=False)):
            names = [PurePosixPath(name) for name in stamps_in(f"{self.root}/glbs/{shard}") if name.endswith(".glb")]
            yield f"glbs/{shard}", {name.stem: f"glbs/{shard}/{name}" for name in names}

    def _shard(self, shard: str, paths: dict[str, str], present: dict[str, str], categories: dict[str, list[str]]) -> Iterator[Row]:
        annotations, unusable = self._annotations(shard)
        pictures = {PurePosixPath(name).stem: name for name in stamps_in(f"{self.root}/thumbnails/{shard}")}
        for uid, path in paths.items():
            stamp = present.get(posixpath.basename(path))
            if stamp is None:
                continue
            about = annotations.get(uid) or {}
            texts = [about.get("name"), about.get("description"), *_names(about.get("tags")), *_names(about.get("categories"))]
            silent = not any(text and text.strip() for text in [*texts, *categories.get(uid, ())])
            warnings = {"metadata_missing": not about and not unusable, "no_text": silent and bool(about)}
            user = about.get("user") or {}
            yield record(
                source=self.name,
                source_id=uid,
                asset_uri=f"{self.root}/{path}",
                asset_stamp=stamp,
                name=about.get("name"),
                categories=[*categories.get(uid, ()), *_names(about.get("categories"))],
                tags=_names(about.get("tags")),
                description=about.get("description"),
                license=SPDX.get(about.get("license"), "unknown"),
                creator=user.get("displayName") or user.get("username"),
                thumbnail_uri=f"{self.root}/thumbnails/{shard}/{pictures[uid]}" if uid in pictures else _picture(about),
                unusable=unusable or (AGE_RESTRICTED if about.get("isAgeRestricted") else None),
                warnings=[name for name, is_so in warnings.items() if is_so],
            )

    def _annotations(self, shard: str) -> tuple[dict[str, Any], Unusable | None]:
        try:
            annotations = self._json(f"metadata/{shard}.json.gz", {})
        except ValueError as error:
            return {}, ("metadata_unreadable", str(error))
        return annotations, None

    def _json(self, path: str, otherwise: Any) -> Any:
        return read_index(f"{self.root}/{path}", otherwise)


def read_index(uri: str, otherwise: Any) -> Any:
    """The contents of a compressed JSON file, `otherwise` where there is none. Raises ValueError when it cannot be read."""
    try:
        with fsspec.open(uri, "rb", compression="gzip") as file:
            value = json.load(file)
    except FileNotFoundError:
        return otherwise
    except (EOFError, zlib.error, OSError, ValueError) as error:
        raise ValueError(f"{uri} cannot be read ({error}): download it again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{uri} holds a JSON {type(value).__name__}, must be an object by uid or category: download it again")
    return value


def _names(items: list[dict[str, Any]] | None) -> list[str]:
    return [item["name"] for item in items or () if item.get("name")]


def _picture(about: dict[str, Any]) -> str | None:
    """The address of the annotation's largest thumbnail."""
    images = (about.get("thumbnails") or {}).get("images") or []
    return max(images, key=lambda image: image.get("width") or 0)["url"] if images else None
