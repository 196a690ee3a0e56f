"""What lies in the folders of a collection, here or in an object store, and what its index files say."""

import csv
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

import fsspec

from pipeline.assets.asset import format_of, stamps_in

_MOST_COLLECTIONS = 100  # folders beside each other; where there are more, they are objects of something else
# Buffers, materials and textures: what an asset in parts has in files beside it.
PARTS = (
    "bin",
    "mtl",
    "png",
    "jpg",
    "jpeg",
    "webp",
    "ktx2",
    "tga",
    "bmp",
    "dds",
    "tif",
    "tiff",
    "gif",
    "exr",
    "hdr",
    "psd",
    "usd",
    "usda",
    "usdc",
)


def folders_in(folder: str) -> list[str]:
    """Names of the folders directly in a folder, sorted, without hidden ones. A folder that is not there holds none."""
    return [name for name, is_folder in _entries(folder) if is_folder]


def files_in(folder: str) -> list[str]:
    """The same of files: their names alone, which costs less than their stamps."""
    return [name for name, is_folder in _entries(folder) if not is_folder]


def _entries(folder: str) -> list[tuple[str, bool]]:
    try:
        if "://" in folder:
            filesystem, path = fsspec.url_to_fs(folder)
            listed = filesystem.ls(path, detail=True)
            found = [(PurePosixPath(about["name"]).name, about["type"] == "directory") for about in listed]
        else:
            with os.scandir(folder) as entries:
                found = [(entry.name, entry.is_dir()) for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(entry for entry in found if not entry[0].startswith("."))


def home_of(root: str, holds: Callable[[str], bool]) -> str | None:
    """The folder that holds a collection: `root`, or else a folder directly in it. None: neither.

    Raises FileNotFoundError when there is no `root`, ValueError when several folders in it hold one.
    """
    filesystem, path = fsspec.url_to_fs(root)
    if not filesystem.exists(path):
        raise FileNotFoundError(f"{root} does not exist: give the folder that holds the collection")
    if holds(root):
        return root
    inner = folders_in(root)
    found = [f"{root}/{name}" for name in inner if holds(f"{root}/{name}")] if len(inner) <= _MOST_COLLECTIONS else []
    if len(found) > 1:
        raise ValueError(f"{root} holds the collection more than once: give one of {', '.join(found)}")
    return found[0] if found else None


def stamps_below(folder: str, inner: tuple[str, ...]) -> dict[str, str]:
    """The files in a folder and in its folders of these names: path in the folder to stamp."""
    return stamps_in(folder) | {f"{name}/{file}": stamp for name in inner for file, stamp in stamps_in(f"{folder}/{name}").items()}


def stamp_with_parts(path: str, stamps: dict[str, str]) -> str | None:
    """A stamp that changes when the asset or anything that may be a part of it does. None: the asset is not there.

    Which parts an asset needs is not known before it is read. To read it once too often is cheap: what comes after asks for the
    hashes of the files that count.
    """
    if path not in stamps:
        return None
    lines = sorted(f"{part}\0{stamp}\n" for part, stamp in stamps.items() if format_of(part) in PARTS)
    digest = hashlib.blake2b("".join(lines).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    return f"{stamps[path]}-{digest}"


def read_list(uri: str) -> list[dict[str, Any]] | None:
    """The JSON objects of a list in a file. None: there is no such file. Raises ValueError when it cannot be read as one."""
    try:
        with fsspec.open(uri, "rb") as file:
            value = json.loads(file.read().decode("utf-8-sig"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(uri, error) from error
    if not isinstance(value, list):
        raise ValueError(f"{uri} holds a JSON {type(value).__name__}, must be a list: download it again")
    return [item for item in value if isinstance(item, dict)]


def read_rows(uri: str, needed: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """The rows of a CSV file with a header, one by one; none without a file. What is no UTF-8 is replaced.

    Raises ValueError when it cannot be read, or lacks a column of `needed`.
    """
    try:
        with fsspec.open(uri, "rt", encoding="utf-8-sig", errors="replace", newline="", compression="infer") as file:
            rows = csv.DictReader(file, restval="")
            if missing := set(needed) - set(rows.fieldnames or ()):
                raise ValueError(f"{uri} has no column {', '.join(sorted(missing))}: download it again")
            yield from rows
    except FileNotFoundError:
        return
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise unreadable(uri, error) from error


def unreadable(uri: str, error: Exception) -> ValueError:
    """What to raise about an index file that is damaged."""
    return ValueError(f"{uri} cannot be read ({error}): download it again")
