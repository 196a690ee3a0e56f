"""Give back room: join small files, leave out deleted rows, and remove versions of the tables that nothing needs any more.

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
        told = {table: _told(room_of(corpus.need(table)), count, 0) for table, count in gone.items()}
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
    first = _forget(corpus, table, keep)  # so that there is room to join fragments in
    corpus.rewrite(table)
    second = _forget(corpus, table, keep)  # with nothing to be kept: what was joined just now
    versions, given_back = (sum(pair) for pair in zip(first, second, strict=True))
    return _told(room_of(corpus.need(table)), versions, given_back)


def _forget(corpus: Corpus, table: str, keep: timedelta) -> tuple[int, int]:
    versions = corpus.superseded(table, datetime.now(UTC) - keep)
    return len(versions), corpus.forget_versions(table, versions)


def page(told: dict[str, dict[str, int]], job: Job, seconds: float) -> str:
    """What was done, for a person: a line per table, and the sums."""
    width = max(map(len, told))
    gone = "would go" if job.dry_run else "removed"
    lines = [f"{'table':<{width}} {'on disk':>9} {'dead':>9} {'given back':>11} {'versions':>9} {gone:>9}"]
    for table, one in sorted(told.items(), key=lambda pair: -pair[1]["bytes"]):
        sizes = [size_text(one[name]) for name in ("bytes", "dead_bytes", "given_back_bytes")]
        lines.append(
            f"{table:<{width}} {sizes[0]:>9} {sizes[1]:>9} {sizes[2]:>11} {one['versions']:>9,} {one['versions_gone']:>9,}"
        )
    dead, back = (size_text(sum(one[name] for one in told.values())) for name in ("dead_bytes", "given_back_bytes"))
    if job.dry_run:
        return "\n".join([*lines, f"{job.root}: {dead} are dead; nothing was changed"])
    later = f"; {dead} of dead bytes stay, for versions that are to be kept for {job.older_than:g} days after they were superseded"
    return "\n".join([*lines, f"{job.root}: {back} given back{later if job.older_than else ''}, in {duration(seconds)}"])


def _told(room: Room, gone: int, given_back: int) -> dict[str, int]:
    now = {"bytes": room.bytes, "dead_bytes": room.dead, "versions": room.versions}
    return now | {"versions_gone": gone, "given_back_bytes": given_back}
