"""An asset as a place: an absolute path, or a URI that fsspec can open (`s3://bucket/chair.glb`); its format, state and hash."""

import hashlib
import os
from pathlib import Path, PurePosixPath

import fsspec

from pipeline.fetch.cache import stamp_of


def absolute(place: str) -> str:
    """A path as an absolute path, with `~` for the home folder; a URI as it is."""
    return place if "://" in place else os.path.abspath(os.path.expanduser(place))


def format_of(place: str) -> str:
    """The format of an asset by its name: lower-case extension without the dot."""
    return os.path.splitext(place)[1][1:].lower()


def stamps_in(folder: str) -> dict[str, str]:
    """The files directly in a folder: name to stamp, in the order of their names. A folder that is not there holds none."""
    filesystem, path = fsspec.url_to_fs(folder)
    if "://" in folder:
        try:
            found = {
                PurePosixPath(about["name"]).name: about for about in filesystem.ls(path, detail=True) if about["type"] == "file"
            }
        except FileNotFoundError:
            return {}
    else:
        if not os.path.isdir(folder):
            return {}
        with os.scandir(folder) as entries:
            found = {entry.name: entry.stat() for entry in entries if entry.is_file()}
    return {name: stamp_of(found[name]) for name in sorted(found)}


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
