"""Give back room: remove versions of the tables that nothing needs any more, and write tables anew that are full of deleted rows.

Safe beside whatever reads the corpus: a training run reads the versions it began with, and a version stays for --older-than days
after another took its place, tagged ones for ever. Set it longer than your longest training run. Where the corpus is in a folder,
no build can run meanwhile; on an object store nothing keeps it from that: see to it that none does.
"""

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from jobs.arguments import Json, Root
from jobs.progress import duration, progress
from jobs.refusal import Refusal
from pipeline.store import Corpus
from reports.storage import Room, room_of, size_text
from schemas.tables import OBJECTS

REWRITE_FROM = 0.1  # deleted rows' share of a table's files from which on it is written anew


@dataclass(frozen=True, kw_only=True)
class Job:
    # Folder or URI of the corpus.
    root: Root
    # Days that a version stays after another took its place; 0: only the newest ones stay, and those with a tag.
    older_than: float = 14.0
    # Say what is dead, and change nothing.
    dry_run: bool = False
    # Print one JSON object instead of text.
    json: Json = False


def main(job: Job) -> int:
    """Tidy every table, and say what that gave back."""
    began = time.monotonic()
    if job.older_than < 0:
        raise Refusal(f"--older-than {job.older_than:g}: must be 0 or more days")
    corpus = Corpus.at(job.root)
    if not corpus.tables():
        corpus.need(OBJECTS.name)  # says that it is no corpus
    keep = timedelta(days=job.older_than)
    if job.dry_run:
        gone = {table: len(corpus.superseded(table, datetime.now(UTC) - keep)) for table in corpus.tables()}
        told = {table: _told(room, room, gone[table]) for table in gone for room in [room_of(corpus.need(table))]}
    else:
        with corpus.lock(), progress("maintain", len(corpus.tables()), "tables", quiet=job.json) as bar:
            told = {}
            for table in corpus.tables():
                told[table] = tidied(corpus, table, keep)
                bar.update(done=len(told))
    seconds = time.monotonic() - began
    if job.json:
        print(json.dumps({"root": corpus.root, "dry_run": job.dry_run, "tables": told, "seconds": round(seconds, 2)}))
    else:
        print(page(told, job, seconds))
    return 0


def tidied(corpus: Corpus, table: str, keep: timedelta) -> dict[str, int]:
    """Tidy one table; versions that another took the place of longer ago than `keep` go."""
    before = room_of(corpus.need(table))
    gone = _forget(corpus, table, keep)  # first, so that there is room to write in
    if before.deleted > REWRITE_FROM * (before.live + before.deleted):
        corpus.rewrite(table)
        gone += _forget(corpus, table, keep)  # with nothing to be kept: what was written anew just now
    return _told(before, room_of(corpus.need(table)), gone)


def _forget(corpus: Corpus, table: str, keep: timedelta) -> int:
    versions = corpus.superseded(table, datetime.now(UTC) - keep)
    corpus.forget_versions(table, versions)
    return len(versions)


def page(told: dict[str, dict[str, int]], job: Job, seconds: float) -> str:
    """What was done, for a person: a line per table, and the sums."""
    width = max(map(len, told))
    gone = "would go" if job.dry_run else "removed"
    lines = [f"{'table':<{width}} {'before':>9} {'now':>9} {'dead':>9} {'versions':>9} {gone:>9}"]
    for table, one in sorted(told.items(), key=lambda pair: -pair[1]["bytes"]):
        sizes = [size_text(one[name]) for name in ("bytes_before", "bytes", "dead_bytes")]
        lines.append(f"{table:<{width}} {sizes[0]:>9} {sizes[1]:>9} {sizes[2]:>9} {one['versions']:>9,} {one['versions_gone']:>9,}")
    before, now, dead = (size_text(sum(one[name] for one in told.values())) for name in ("bytes_before", "bytes", "dead_bytes"))
    if job.dry_run:
        return "\n".join([*lines, f"{job.root}: {dead} of {now} are dead; nothing was changed"])
    kept = f"; {dead} stay for versions that are kept for {job.older_than:g} days after another took their place"
    return "\n".join([*lines, f"{job.root}: {before} before, {now} now{kept if job.older_than else ''}, in {duration(seconds)}"])


def _told(before: Room, now: Room, gone: int) -> dict[str, int]:
    sizes = {"bytes_before": before.bytes, "bytes": now.bytes, "dead_bytes": now.dead}
    return sizes | {"versions": now.versions, "versions_gone": gone}
