"""Fetch a collection, or a part of it, into a folder that `build` reads; what is there already is not fetched again.

python -m jobs download objaverse /data/hf-objaverse-v1 --limit 1000
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jobs.arguments import Json
from jobs.carry_out import counted
from jobs.progress import duration, progress
from jobs.refusal import Refusal
from pipeline.assets.asset import absolute
from pipeline.fetch.download import SPARE, Outcome, download, sizes, verify
from pipeline.sources.asked_for import ask_for
from pipeline.sources.published import BY_HAND, PUBLISHED, Published
from pipeline.stage import ObjectError

SHOWN = 20  # failures that are printed; --json lists all

Collection = Literal["objaverse", "abo", "objaverse-xl", "shapenet", "3d-future", "mvimgnet", "mvpnet"]


@dataclass(frozen=True, kw_only=True)
class Job:
    # Which collection. Those that are given out on request are not fetched: for them the job says where to ask.
    collection: Annotated[Collection, tyro.conf.Positional]
    # The folder to fetch into.
    folder: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = None
    # Only N objects (of those asked for by --uids or --lvis, where given); a larger N adds to those of a smaller one.
    limit: int | None = None
    # Only the objects whose ids stand in this file, one per line.
    uids: Path | None = None
    # Only objects with an LVIS category (Objaverse).
    lvis: bool = False
    # Files fetched at the same time.
    workers: int = 8
    # A copy of the collection's folder to fetch from instead: a mirror's address, s3://…, file://… or a path.
    from_: Annotated[str | None, tyro.conf.arg(name="from")] = None
    # Fetch nothing: read what was fetched before and compare it with checksums.csv.
    verify: bool = False
    # Print one JSON object instead of text.
    json: Json = False


@dataclass
class Tally:
    """What came of the files so far."""

    fetched: int = 0
    skipped: int = 0
    bytes: int = 0
    checked: Counter = field(default_factory=Counter)
    failures: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one file."""
        self.bytes += outcome.came
        if outcome.error:
            self.failures.append(outcome)
            return
        self.fetched, self.skipped = self.fetched + outcome.new, self.skipped + (not outcome.new)
        self.checked[outcome.line.checked] += 1


def main(job: Job) -> int:
    """Fetch, or compare, or say where to ask."""
    if job.collection in BY_HAND:
        raise Refusal(f"nothing was fetched. {BY_HAND[job.collection]}", exit_code=1)
    if job.folder is None:
        raise Refusal(f"say where to: python -m jobs download {job.collection} FOLDER")
    if job.limit is not None and job.limit < 1 or job.workers < 1:
        raise Refusal(f"--limit {job.limit} --workers {job.workers}: must be 1 or more")
    if job.lvis and "lvis" not in PUBLISHED[job.collection].subsets:
        raise Refusal(f"{job.collection} has no LVIS categories: leave out --lvis")
    began, tally = time.monotonic(), Tally()
    folder = Path(absolute(str(job.folder)))
    try:
        if job.verify:
            _watched(job, "verify", None, verify(folder, workers=job.workers), tally)
        else:
            _fetch(job, PUBLISHED[job.collection], folder, tally)
    except BlockingIOError:
        raise Refusal(f"another download into {folder} is at work: wait for its end", exit_code=1) from None
    except OSError as error:  # the disk: no file would fare better
        raise Refusal(error.strerror or str(error), exit_code=1) from error
    return _finish(job, folder, tally, time.monotonic() - began)


def _fetch(job: Job, collection: Published, folder: Path, tally: Tally) -> None:
    given = _ids(job.uids) if job.uids else None
    place = absolute(job.from_ or collection.place).rstrip("/")
    _say(job, f"{collection.about}\nfrom         {place}\nto           {folder}")
    if not (folder / collection.index).exists():
        folder.mkdir(parents=True, exist_ok=True)
        ask_for(folder, [], afresh=True)
    first = [collection.index, *collection.first]
    _watched(job, "index files", len(first), download(place, first, folder, workers=job.workers), tally)
    if not (folder / collection.index).exists():
        why = next(outcome.error for outcome in tally.failures if outcome.path == collection.index)
        raise Refusal(f"the list of all objects could not be fetched: {why}", exit_code=1)
    for outcome in download(place, collection.optional, folder, workers=job.workers):
        if not outcome.error:
            tally.add(outcome)
    try:
        paths, everything = _chosen(job, given, collection, folder, tally)
        ask_for(folder, None if everything else paths)
        metadata = collection.metadata(list(paths.values()))
        _watched(job, "metadata", len(metadata), download(place, metadata, folder, workers=job.workers), tally)
        _need_room(job, collection, place, folder, [path for path in paths.values() if not (folder / path).exists()])
    except ValueError as error:
        raise Refusal(str(error), exit_code=1) from error
    _watched(job, "assets", len(paths), download(place, paths.values(), folder, workers=job.workers), tally)


def _chosen(job: Job, given: list[str] | None, collection: Published, folder: Path, tally: Tally) -> tuple[dict[str, str], bool]:
    """The objects to fetch, id to path, and whether these are all there are."""
    objects = collection.objects(folder)
    wanted: Iterable[str] = objects
    if job.lvis:
        of_subset = frozenset(collection.subset(folder, "lvis"))
        wanted = [id for id in objects if id in of_subset]
    if given is not None:
        for id in given:
            if id not in objects:
                tally.add(Outcome(id, error=_unknown(id, collection)))
        among = frozenset(given)
        wanted = [id for id in wanted if id in among]
    chosen = {id: objects[id] for id in list(wanted)[: job.limit]}
    return chosen, len(chosen) == len(objects)


def _unknown(id: str, collection: Published) -> ObjectError:
    return ObjectError("unknown_id", f"{id} is no id of {collection.kind}: {collection.index} does not list it")


def _ids(place: Path) -> list[str]:
    try:
        lines = place.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"--uids {place} cannot be read: {error}") from error
    if ids := list(dict.fromkeys(line.strip() for line in lines if line.strip())):
        return ids
    raise Refusal(f"--uids {place} holds no ids: write one per line")


def _need_room(job: Job, collection: Published, place: str, folder: Path, missing: list[str]) -> None:
    """Refuse before hours of fetching what the disk cannot hold. Objects of unknown size count as the others do on average."""
    known = collection.bytes(folder, missing)
    known = sizes(place, missing, workers=job.workers) if known is None else known
    if not known:
        return
    mean = sum(known.values()) / len(known)
    needed, free = mean * len(missing), shutil.disk_usage(folder).free - SPARE
    _say(job, f"size         about {amount(needed)} in {len(missing):,} assets; {amount(free)} are free")
    if needed > free:
        fits = f"--limit {int(free / mean)} about fits" if free > mean else "not even one fits"
        raise Refusal(
            f"{folder} has {free / 1e9:,.1f} GB free, {needed / 1e9:,.1f} GB are needed: make room, or {fits}", exit_code=1
        )


def _watched(job: Job, title: str, total: int | None, outcomes: Iterable[Outcome], tally: Tally) -> None:
    """Count outcomes and show how far it is."""
    done = failed = 0
    with progress(title, total, "files", quiet=job.json) as bar:
        for outcome in outcomes:
            tally.add(outcome)
            done, failed = done + (outcome.error is None), failed + (outcome.error is not None)
            bar.update(done=done, failed=failed)


def _finish(job: Job, folder: Path, tally: Tally, seconds: float) -> int:
    """The failures and the last line; one JSON object with --json. Returns the exit code: 1 when --verify found differences."""
    reasons = Counter(outcome.error.reason for outcome in tally.failures)
    code = 1 if job.verify and tally.failures else 0
    if job.json:
        failures = [{"path": one.path, "reason": one.error.reason, "message": str(one.error)} for one in tally.failures]
        counts = {"fetched": tally.fetched, "skipped": tally.skipped, "failed": len(failures), "bytes": tally.bytes}
        print(
            json.dumps(
                {"folder": str(folder)} | counts | {"checked": tally.checked, "failures": failures} | {"seconds": round(seconds, 2)}
            )
        )
        return code
    for outcome in tally.failures[:SHOWN]:
        print(f"failed: {outcome.path}: {outcome.error.reason}: {outcome.error}")
    if len(tally.failures) > SHOWN:
        print(f"failed: {len(tally.failures) - SHOWN:,} more; --json lists all")
    why = f" ({counted(reasons)})" if reasons else ""
    if job.verify:
        kept = f"{tally.skipped:,} files are as they were fetched"
        print(f"{folder}: {kept}, {len(tally.failures):,} are not{why}, in {duration(seconds)}")
        if tally.failures:
            print("the same command without --verify fetches these again")
        return code
    failed = f"{len(tally.failures):,} failed{why}"
    run = f"this run: {tally.fetched:,} fetched, {tally.skipped:,} skipped, {failed}, in {duration(seconds)}"
    came = f"{amount(tally.bytes)}, {amount(tally.bytes / seconds)}/s"
    print(f"{folder}: {run}; came: {came}; checked by: {counted(tally.checked)}")
    print(f"then: python -m jobs build CORPUS --source {job.collection}={folder}")
    return code


def amount(size: float) -> str:
    """Bytes for people, in the thousands that disks are sold by: 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


def _say(job: Job, text: str) -> None:
    if not job.json:
        print(text, flush=True)
