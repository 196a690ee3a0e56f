"""Remote assets as local files: a cache on this machine, shared by all its processes.

TRICORPUS_CACHE     its folder (default ~/.cache/tricorpus/assets)
TRICORPUS_CACHE_GB  how large it may grow (default 20)

A file of the cache is locked (flock, shared) while it is in use; what is locked is never removed. Its name is a hash of the URI and
of the state of what lies there, so that a changed asset is another file.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.fetch.persist import foreign_errors, persist

SCANS = 256  # the cache is measured whenever a process has added this fraction of its limit
KEPT = 0.9  # share of the limit that is left when something has to go, so that this is rare

_added: dict[Path, int] = {}  # bytes that this process added to a cache since it last measured it


def stamp_of(about: os.stat_result | dict[str, Any]) -> str:
    """A cheap fingerprint of a file's state: its size, and when it was changed (mtime, in nanoseconds) or its store's etag.

    `about`: what the file system says of the file; a dictionary is what fsspec's `info` gives.
    """
    if isinstance(about, os.stat_result):
        return f"{about.st_size}-{about.st_mtime_ns}"
    marks = ("etag", "ETag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")
    return f"{about['size']}-{next((about[mark] for mark in marks if about.get(mark)), '')}"


@contextmanager
def opened(place: str) -> Iterator[Path]:
    """The file at a place as a file on this machine, for as long as the context lasts.

    A local path is given as it is and not looked at. What a URI names is fetched once and kept, under a name with its extension.

    Raises FileNotFoundError when a URI names no file, PermissionError when its store says so, ObjectError("unreachable") when it
    could not be fetched in several tries, OSError when this machine's disk is in the way.
    """
    if "://" not in place:
        yield Path(place)
        return
    filesystem, remote = fsspec.url_to_fs(place)
    if isinstance(filesystem, LocalFileSystem):
        yield Path(remote)
        return
    # a listing made earlier would tell of an earlier state
    filesystem.invalidate_cache(str(PurePosixPath(remote).parent))

    def look() -> dict[str, Any]:
        with foreign_errors():
            return filesystem.info(remote)

    about = persist(place, look)
    if about.get("type") == "directory":
        raise FileNotFoundError(f"{place} is a folder, must be a file")
    folder = _folder()
    extension = re.search(r"\.\w{1,16}$", urlsplit(remote).path)
    key = hashlib.sha256(f"{place}\0{stamp_of(about)}".encode("utf-8", "surrogateescape")).hexdigest()
    path = folder / (key + (extension[0].lower() if extension else ""))
    while (file := _held(path)) is None:
        _make_room(folder, about["size"] or 0)
        _fetch(place, path, about["size"], lambda part: filesystem.get_file(remote, str(part)))
    with file:
        os.utime(path)  # in use now: the last to go
        yield path


def _folder() -> Path:
    folder = Path(os.environ.get("TRICORPUS_CACHE") or "~/.cache/tricorpus/assets").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RuntimeError(
            f"the cache {folder} cannot be made ({error.strerror}): set TRICORPUS_CACHE to another folder"
        ) from error
    return folder


def _limit() -> float:
    """How many bytes the cache may hold."""
    given = os.environ.get("TRICORPUS_CACHE_GB") or "20"
    try:
        limit = float(given)
    except ValueError:
        limit = 0.0
    if not limit > 0:
        raise RuntimeError(f"TRICORPUS_CACHE_GB is {given!r}: must be a number of gigabytes above 0")
    return limit * 1e9


def _held(path: Path) -> BinaryIO | None:
    """The file, locked against removal until it is closed, or None when it is not there."""
    try:
        file = open(path, "rb")
    except FileNotFoundError:
        return None
    fcntl.flock(file, fcntl.LOCK_SH)
    if os.fstat(file.fileno()).st_nlink == 0:  # removed between opening and locking
        file.close()
        return None
    return file


def _fetch(place: str, path: Path, size: int | None, get: Callable[[Path], None]) -> None:
    """Put the file there under its name, whole or not at all; of many processes that want it, one fetches and the others wait."""
    part = path.with_name(f"{path.name}.part")
    with open(part, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not part.exists() or os.fstat(file.fileno()).st_ino != part.stat().st_ino:
            return  # another process was done, or gave up, while this one waited

        def whole() -> None:
            with foreign_errors():
                get(part)
            if size is not None and part.stat().st_size != size:
                raise ConnectionError(f"{part.stat().st_size:,} of {size:,} bytes came")

        persist(place, whole)
        _added[path.parent] = _added.get(path.parent, 0) + part.stat().st_size
        part.rename(path)


def _make_room(folder: Path, wanted: int) -> None:
    """Remove the files that were not used for longest until the limit holds with `wanted` more bytes; those in use stay."""
    limit = _limit()
    if folder in _added and _added[folder] + wanted < limit / SCANS:
        return
    with os.scandir(folder) as entries:
        files = sorted((about.st_mtime, about.st_size, path) for path, about in _stated(entries))
    held = sum(size for _, size, _ in files) + wanted
    excess = held - KEPT * limit if held > limit else 0
    for _, size, path in files:
        if excess <= 0:
            break
        if _removed(path):
            excess -= size
    _added[folder] = 0


def _stated(entries: Iterator[os.DirEntry]) -> Iterator[tuple[str, os.stat_result]]:
    for entry in entries:
        try:
            yield entry.path, entry.stat()
        except FileNotFoundError:  # another process was faster
            continue


def _removed(path: str) -> bool:
    """Whether the file is gone from the cache: it stays while any process holds its lock."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        pass
    return True
