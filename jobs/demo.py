"""Make 40 small objects in Objaverse's layout, two of them broken on purpose besides, and build a corpus from them.

Leaves DEMO/hf-objaverse-v1 (the assets), DEMO/corpus (the tables), DEMO/contact_sheet.png (views beside projected points) and
DEMO/report.html (what is in the corpus, what failed and why).
"""

import time
from dataclasses import dataclass
from pathlib import Path

from jobs.build import Job as Build
from jobs.build import main as build
from jobs.evaluate.canary import Job as Evaluate
from jobs.evaluate.canary import main as evaluate
from jobs.progress import duration
from jobs.report import Job as Report
from jobs.report import main as report
from jobs.status import page
from pipeline.made.made_objects import write_broken, write_objaverse
from pipeline.stage import Row
from pipeline.status import completeness, status
from pipeline.store import Corpus
from pipeline.weights import TINY_TEACHER
from reports.contact_sheet import Subject, contact_sheet
from schemas.corpus import any_of


@dataclass(frozen=True, kw_only=True)
class Job:
    # Folder for all that the demo makes.
    folder: Path = Path("demo")
    # How many objects to make.
    objects: int = 40
    # Ray workers. 0: in this process.
    workers: int = 2


def main(job: Job) -> int:
    """Make, build, look."""
    began = time.monotonic()
    source = job.folder / "hf-objaverse-v1"
    if not source.exists():
        write_objaverse(source, job.objects, seed=0)
        write_broken(source)
    root = str(job.folder / "corpus")
    code = build(Build(root=root, source=(f"objaverse={source}",), teacher=TINY_TEACHER, workers=job.workers))
    if code:
        return code
    corpus = Corpus.at(root)
    sheet = job.folder / "contact_sheet.png"
    contact_sheet(subjects(corpus, 12), caption=f"{root}: views, and points seen through the same cameras").save(sheet)
    print(f"\n{page(root, status(corpus), completeness(corpus))}\n")
    evaluate(Evaluate(root=root))
    print()
    audit = job.folder / "report.html"
    report(Report(root=root, output=audit, title="The demo"))
    print(f"\nlook at {sheet} and, in a browser, at {audit}; all of it took {duration(time.monotonic() - began)}")
    return 0


def subjects(corpus: Corpus, count: int) -> list[Subject]:
    """The first objects of a corpus, by id, that have views and points, as the contact sheet wants them."""
    ids = [set(corpus.need(table).to_table(columns=["object_id"])["object_id"].to_pylist()) for table in ("views", "points")]
    chosen = sorted(ids[0] & ids[1])[:count]

    def rows(table: str, columns: list[str] | None = None, kept: str = "") -> list[Row]:
        return corpus.need(table).to_table(columns=columns, filter=any_of("object_id", chosen) + kept).to_pylist()

    views = sorted(rows("views"), key=lambda row: (row["object_id"], row["view"]))
    points = {row["object_id"]: row for row in rows("points")}
    names = {row["object_id"]: row["name"] for row in rows("objects", ["object_id", "name"])}
    captions = rows("captions", ["object_id", "text"], kept=" AND kept")
    return [
        Subject(
            object_id=id,
            name=names[id],
            captions=[row["text"] for row in captions if row["object_id"] == id],
            views=[row for row in views if row["object_id"] == id],
            points=points[id],
        )
        for id in chosen
    ]
