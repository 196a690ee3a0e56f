"""Files of a published collection, from where it is published into a folder: in parallel, resumed where they broke off, checked.

What is half there lies in the folder's `.parts`, under a name that holds a hash of what the place said of the file: when the place
says otherwise the next time, the bytes are not continued but fetched anew.

`checksums.csv` in the folder holds a line per whole file: path, bytes, sha256, and `checked`, what the file was compared with when
it came: `sha256` or `md5` as the place publishes it, `size` where it publishes neither, `nothing` where it does not even say that.
"""

import csv
import errno
import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from pipeline.assets.asset import sha256_of
from pipeline.fetch.persist import persist
from pipeline.fetch.places import Promise, opened_at, piece_of, promise_of
from pipeline.stage import ObjectError

PIECE = 1 << 16  # bytes read at once
SPARE = 64 << 20  # bytes of disk that stay free
RECORD = "checksums.csv"
PARTS = ".parts"

Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Line:
    """A whole file: what stands of it in checksums.csv."""

    path: str
    bytes: int
    sha256: str
    checked: str


@dataclass(frozen=True)
class Outcome:
    """How it ended with one file: its line, or why there is none. `came`: bytes fetched for it now; `new`: it was fetched now."""

    path: str
    line: Line | None = None
    error: ObjectError | None = None
    came: int = 0
    new: bool = True


class Record:
    """checksums.csv of a folder. Lines are appended as files become whole; of several lines of one path the last counts."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.lines: dict[str, Line] = {}
        if (folder / RECORD).exists():
            with open(folder / RECORD, newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    if (row.get("bytes") or "").isdigit() and row.get("checked"):  # a line may be cut, where a machine went down
                        self.lines[row["path"]] = Line(row["path"], int(row["bytes"]), row["sha256"], row["checked"])

    def has(self, path: str) -> bool:
        """Whether the file is there and was found whole before; told by its size, no byte of it is read."""
        try:
            return path in self.lines and (self.folder / path).stat().st_size == self.lines[path].bytes
        except FileNotFoundError:
            return False

    def add(self, line: Line) -> None:
        """Append a line; it is in the file when this returns."""
        self.lines[line.path] = line
        place = self.folder / RECORD
        with open(place, "a", newline="", encoding="utf-8") as file:
            if file.tell() == 0:
                csv.writer(file).writerow(Line.__dataclass_fields__)
            csv.writer(file).writerow(vars(line).values())

    def forget(self, paths: Iterable[str]) -> None:
        """Take lines out, so that `download` looks at those files again."""
        for path in paths:
            self.lines.pop(path, None)
        part = self.folder / f"{RECORD}.part"
        with open(part, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([Line.__dataclass_fields__, *(vars(line).values() for line in self.lines.values())])
        part.rename(self.folder / RECORD)


def download(place: str, paths: Iterable[str], folder: Path, *, workers: int = 8) -> Iterator[Outcome]:
    """Fetch files: first come those that are there already, then the others in the order in which they become whole.

    `paths` are relative to the place and, the same, to the folder. What is left half fetched when the iteration ends early (a key
    press, a kill) is continued the next time.

    Raises BlockingIOError when another process downloads into the folder, and OSError when this machine's disk is in the way (full,
    read-only): no file would fare better.
    """
    (folder / PARTS).mkdir(parents=True, exist_ok=True)
    with open(folder / PARTS / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        record, stop, todo = Record(folder), threading.Event(), []
        for path in paths:
            if record.has(path):
                yield Outcome(path, record.lines[path], new=False)
            else:
                todo.append(path)

        def fetch(path: str) -> Outcome:
            try:
                return _fetch(place, path, folder, stop)
            except ObjectError as error:
                return Outcome(path, error=error)

        for outcome in _in_parallel(fetch, todo, workers, stop):
            if outcome.line:
                record.add(outcome.line)
            yield outcome


def verify(folder: Path, *, workers: int = 8) -> Iterator[Outcome]:
    """Read every file that checksums.csv lists and compare; needs no network. Those that differ lose their line, so that `download`
    mends them.

    Raises FileNotFoundError for a folder without checksums.csv.
    """
    record = Record(folder)
    if not record.lines:
        raise FileNotFoundError(f"{folder} has no {RECORD}, or an empty one: nothing was downloaded here by this program")

    def look(line: Line) -> Outcome:
        path = folder / line.path
        if not path.exists():
            return Outcome(line.path, error=ObjectError("file_missing", f"there is no {path}, which {RECORD} lists"))
        if path.stat().st_size != line.bytes or sha256_of(path) != line.sha256:
            return Outcome(line.path, error=ObjectError("file_differs", f"{path} is not the file that {RECORD} lists"))
        return Outcome(line.path, line, new=False)

    bad = []
    for outcome in _in_parallel(look, list(record.lines.values()), workers, threading.Event()):
        if outcome.error:
            bad.append(outcome.path)
        yield outcome
    if bad:
        record.forget(bad)


def sizes(place: str, paths: list[str], *, workers: int = 8) -> dict[str, int]:
    """The sizes in bytes that the place gives for files; those it says nothing of are left out."""

    def ask(path: str) -> tuple[str, int | None]:
        try:
            return path, persist(f"{place}/{path}", lambda: promise_of(place, path)).size
        except ObjectError:  # the download itself will say so, of this file
            return path, None

    return {path: size for path, size in _in_parallel(ask, paths, workers, threading.Event()) if size is not None}


def _in_parallel(act: Callable[[Item], Made], items: Iterable[Item], workers: int, stop: threading.Event) -> Iterator[Made]:
    """What `act` makes of the items, as it gets ready; `stop` is set when that ends, in whatever way."""
    with ThreadPoolExecutor(workers) as pool:
        running: set[Future] = set()
        try:
            for item in items:
                if len(running) >= 2 * workers:
                    ended, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in ended)
                running.add(pool.submit(act, item))
            yield from (future.result() for future in as_completed(running))
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _fetch(place: str, path: str, folder: Path, stop: threading.Event) -> Outcome:
    """Bring one file, whole and checked, under its name."""
    goal, uri = folder / path, f"{place}/{path}"
    if not os.path.normpath(goal).startswith(os.path.join(folder, "")):  # such paths come from files of the place
        raise ObjectError("unsafe_path", f"{path!r} leads out of {folder}: the place lists a path that it should not")
    goal.parent.mkdir(parents=True, exist_ok=True)
    if goal.exists():  # from another tool, or from a run that was killed at the last moment
        promise = persist(uri, lambda: promise_of(place, path), stop=stop)
        size, sha256, md5 = _digests(goal)
        if checked := promise.kept_by(size, sha256, md5):
            return Outcome(path, Line(path, size, sha256, checked), new=False)
    came = 0
    for last in (False, True):  # bytes that are wrong are fetched a second time, from the start
        part, promise, more = _whole_part(place, path, folder, stop)
        came += more
        size, sha256, md5 = _digests(part)
        if checked := promise.kept_by(size, sha256, md5):
            part.rename(goal)
            return Outcome(path, Line(path, size, sha256, checked), came=came)
        part.unlink()
        if last:
            break
    promised = promise.sha256 or promise.md5 or f"{promise.size:,} bytes"
    found = sha256 if promise.sha256 else md5 if promise.md5 else f"{size:,} bytes"
    raise ObjectError(
        "checksum_differs", f"{uri} gave {found} twice, its place promises {promised}: it is damaged there", attempts=2
    )


def _whole_part(place: str, path: str, folder: Path, stop: threading.Event) -> tuple[Path, Promise, int]:
    """Fetch until nothing is missing: the part file, what was promised of it, and how many bytes came."""
    came = 0

    def go_on() -> tuple[Path, Promise]:
        nonlocal came
        promise, stream, part = _continued(place, path, folder)
        with closing(stream), open(part, "ab") as file:
            while piece := piece_of(stream, PIECE):
                if stop.is_set():
                    raise ObjectError("stopped", f"{place}/{path} was left half fetched: the same command goes on from there")
                file.write(piece)
                came += len(piece)
        if promise.size is not None and part.stat().st_size < promise.size:
            raise ConnectionError(f"{part.stat().st_size:,} of {promise.size:,} bytes came")
        return part, promise

    part, promise = persist(f"{place}/{path}", go_on, came=lambda: came, stop=stop)
    return part, promise, came


def _continued(place: str, path: str, folder: Path) -> tuple[Promise, BinaryIO, Path]:
    """The file as a stream that begins where its part ends."""
    of_path = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    for found in (folder / PARTS).glob(f"{of_path}.*"):
        have = found.stat().st_size
        promise, stream, start = opened_at(place, path, have)
        if found.suffix == f".{promise.state}" and start == have:
            return promise, stream, found
        stream.close()
        found.unlink()
    promise, stream, _ = opened_at(place, path, 0)
    part = folder / PARTS / f"{of_path}.{promise.state}"
    part.unlink(missing_ok=True)
    _need_room(folder, path, promise.size or 0)
    return promise, stream, part


def _need_room(folder: Path, path: str, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + SPARE:
        raise OSError(errno.ENOSPC, f"{folder} has {free / 1e9:.1f} GB free, {path} needs {size / 1e9:.1f} GB: make room")


def _digests(path: Path) -> tuple[int, str, str]:
    """Size in bytes, sha256 and md5 of a file."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            sha256.update(piece)
            md5.update(piece)
        return file.tell(), sha256.hexdigest(), md5.hexdigest()
