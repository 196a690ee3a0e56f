"""MVImgNet and its point clouds MVPNet (https://github.com/GAP-LAB-CUHK-SZ/MVImgNet), as they are unpacked:

<class>/<instance>/images/001.jpg ...    the photos, and what `pipeline.photos.photo_folder` says besides
mvi_00/<class>/<instance>/ ...           the same, for those who unpacked each zip into a folder of its own
mvimgnet_category.txt                    0,bag: the names of the classes; MVImgNet 2.0 has a JSON, {"0": "bag"}

<class>/<instance>.pcd or .ply           MVPNet: the clouds, also below data/
split/train.json, split/val.json         ["0/0000251e.pcd", ...]
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import fsspec

from pipeline.assets.asset import absolute, stamps_in
from pipeline.photos.clouds import FORMATS
from pipeline.photos.photo_folder import PhotoFolder
from pipeline.sources.record import record
from pipeline.stage import Row

LICENSE = "LicenseRef-MVImgNet"

_CLASS = re.compile(r"\d+")
_CATEGORIES = re.compile(r".*categor.*\.(txt|json)", re.IGNORECASE)


@dataclass(frozen=True)
class Mvimgnet:
    """MVImgNet or a part of it: every object a folder of photos."""

    name: str
    root: str
    clouds: str | None = None  # folder of MVPNet: the clouds of these objects, which also say how large they are

    def __post_init__(self) -> None:
        _check(self.root, "give the folder that holds MVImgNet's folders of classes (0, 1, 2, ...)")
        if not any(_classes(part) for part in self._parts()):
            layout = "give the folder with 0/<instance>/images/, or mvi_00/0/<instance>/images/, in it"
            raise ValueError(f"{self.root} holds no class of MVImgNet: {layout}")
        if self.clouds is not None:
            object.__setattr__(self, "clouds", absolute(self.clouds))
            _check(self.clouds, "the option clouds is the folder that holds MVPNet's <class>/<instance>.pcd")

    def records(self) -> Iterator[Row]:
        """Every object, by class and instance. One class of clouds is in memory at a time.

        Raises ValueError: an object lies in two places, the names of the classes or the splits cannot be read.
        """
        names = category_names(self.root)
        clouds = Clouds(self.clouds) if self.clouds else None
        parts_of: dict[str, list[str]] = {}
        for part in self._parts():
            for label in _classes(part):
                parts_of.setdefault(label, []).append(part)
        for label in sorted(parts_of, key=int):
            places: dict[str, str] = {}
            for part in parts_of[label]:
                for instance in _folders(f"{part}/{label}"):
                    if instance in places:
                        twice = f"{places[instance]} and {part}/{label}/{instance}"
                        raise ValueError(
                            f"the object {label}/{instance} is there twice: put what belongs to it into one of {twice}"
                        )
                    places[instance] = f"{part}/{label}/{instance}"
            cloud_of = clouds.of_class(label) if clouds else {}
            for instance in sorted(places):
                place, (cloud, cloud_stamp) = places[instance], cloud_of.get(instance, (None, None))
                files = PhotoFolder(place).files()
                marks = [*files.items(), *([(cloud, cloud_stamp)] if cloud else [])]
                yield _record(
                    self.name,
                    f"{label}/{instance}",
                    names,
                    asset_uri=place,
                    asset_format="photos",
                    asset_stamp=hashlib.blake2b(json.dumps(marks).encode(), digest_size=8).hexdigest(),
                    cloud=cloud,
                    split=clouds.splits.get(f"{label}/{instance}") if clouds else None,
                )

    def _parts(self) -> list[str]:
        return [self.root, *(f"{self.root}/{folder}" for folder in _folders(self.root) if folder.startswith("mvi_"))]


@dataclass(frozen=True)
class Mvpnet:
    """MVPNet or a part of it: every object a point cloud. What its splits list and is not there comes last."""

    name: str
    root: str
    categories: str | None = None  # file with the names of the classes; None: the one in the folder, where there is one

    def __post_init__(self) -> None:
        _check(self.root, "give the folder that holds MVPNet's <class>/<instance>.pcd")
        if not Clouds(self.root).classes():
            raise ValueError(f"{self.root} holds no class of MVPNet: give the folder in which 0/<instance>.pcd is, or data/0/")
        if self.categories is not None and not _exists(absolute(self.categories)):
            raise FileNotFoundError(f"{self.categories} does not exist: the option categories is the file mvimgnet_category.txt")

    def records(self) -> Iterator[Row]:
        """Every object, by class and instance. Raises ValueError: the names of the classes or the splits cannot be read."""
        names = _names_in(absolute(self.categories)) if self.categories else category_names(self.root)
        clouds = Clouds(self.root)
        absent = dict(clouds.splits)
        for label in clouds.classes():
            for instance, (place, stamp) in clouds.of_class(label).items():
                id = f"{label}/{instance}"
                split = absent.pop(id, None)
                yield _record(self.name, id, names, asset_uri=place, asset_format="pcd", asset_stamp=stamp, split=split)
        for id, split in absent.items():
            place = f"{self.root}/{id}.pcd"
            yield _record(self.name, id, names, asset_uri=place, asset_format="pcd", asset_stamp=None, split=split)


@dataclass(frozen=True)
class Clouds:
    """The clouds in a folder of MVPNet, and its splits."""

    root: str

    @cached_property
    def splits(self) -> dict[str, str]:
        """Split by "class/instance". Raises ValueError."""
        found = {}
        for split in ("train", "val"):
            for path in _json(f"{self.root}/split/{split}.json", list):
                found[posixpath.splitext(path)[0]] = split
        return found

    def classes(self) -> list[str]:
        """The classes with a folder."""
        return sorted({label for part in self._parts() for label in _classes(part)}, key=int)

    def of_class(self, label: str) -> dict[str, tuple[str, str]]:
        """Place and stamp of each instance's cloud, by instance; where there are several files, the PCD counts."""
        found = {}
        for part in self._parts():
            stamps = stamps_in(f"{part}/{label}")
            for name in sorted(stamps, key=lambda name: (PurePosixPath(name).stem, PurePosixPath(name).suffix.lower() != ".pcd")):
                if PurePosixPath(name).suffix[1:].lower() in FORMATS:
                    found.setdefault(PurePosixPath(name).stem, (f"{part}/{label}/{name}", stamps[name]))
        return found

    def _parts(self) -> tuple[str, str]:
        return self.root, f"{self.root}/data"


def _record(source: str, id: str, names: dict[str, str], **about: Any) -> Row:
    name = names.get(id.partition("/")[0])
    return record(
        source=source,
        source_id=id,
        categories=[name] if name else [],
        license=LICENSE,
        warnings=[] if name else ["metadata_missing"],
        **about,
    )


def category_names(root: str) -> dict[str, str]:
    """Names by class, of all files in a folder that are named for them; the later file says what the earlier one does not."""
    names: dict[str, str] = {}
    for file in sorted(stamps_in(root), reverse=True):
        if _CATEGORIES.fullmatch(file):
            names = _names_in(f"{root}/{file}") | names
    return names


def _names_in(place: str) -> dict[str, str]:
    """Names by class as they are spelt, without blanks around them. Raises ValueError."""
    if place.endswith(".json"):
        pairs = list(_json(place, dict).items())
    else:
        with fsspec.open(place, "rt", encoding="utf-8-sig", newline=None) as file:
            lines = [line.strip() for line in file]
        pairs = [line.partition(",")[::2] for line in lines if line]
    if not all(_CLASS.fullmatch(str(label).strip()) and isinstance(name, str) and name.strip() for label, name in pairs):
        raise ValueError(f"{place} does not hold the names of classes (0,bag on each line, or a JSON object): get it again")
    return {str(label).strip(): name.strip() for label, name in pairs}


def _json(place: str, kind: type) -> Any:
    """A JSON file with an object or a list of texts; empty where there is no file. Raises ValueError."""
    try:
        with fsspec.open(place, "rt", encoding="utf-8-sig") as file:
            value = json.load(file)
    except FileNotFoundError:
        return kind()
    except ValueError as error:
        raise ValueError(f"{place} is no JSON ({error}): get it again") from error
    if not isinstance(value, kind) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{place} holds no JSON {'list of texts' if kind is list else 'object'}: get it again")
    return value


def _classes(folder: str) -> list[str]:
    return [name for name in _folders(folder) if _CLASS.fullmatch(name)]


def _folders(place: str) -> list[str]:
    """Names of the folders in a folder, sorted; none where there is no folder."""
    filesystem, path = fsspec.url_to_fs(place)
    if not filesystem.isdir(path):
        return []
    return sorted(PurePosixPath(about["name"]).name for about in filesystem.ls(path, detail=True) if about["type"] == "directory")


def _exists(place: str) -> bool:
    filesystem, path = fsspec.url_to_fs(place)
    return filesystem.exists(path)


def _check(root: str, advice: str) -> None:
    if not _exists(root):
        raise FileNotFoundError(f"{root} does not exist: {advice}")
