"""Take over what others have made: OpenShape's training files, Cap3D's captions, lists of objects.

python -m jobs import /data/corpus --openshape /data/openshape --split openshape-train=train_all.json
python -m jobs import /data/corpus --cap3d Cap3D_automated_Objaverse_full.csv --split objaverse-lvis=lvis.csv
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import tyro

from captions.imported import ImportCap3d, read_cap3d
from jobs.carry_out import Running, Step, carry_out, finish, say
from jobs.refusal import Refusal
from pipeline.assets.asset import absolute
from pipeline.imports.openshape import ImportOpenShape, ImportTexts, OpenShapeFolder
from pipeline.imports.splits import ImportSplit, read_split
from pipeline.stage import Single
from pipeline.weights import DEFAULT_TEACHER, TeacherError, dim
from schemas.tables import OBJECTS


@dataclass(frozen=True, kw_only=True)
class Job(Running):
    # Folder with OpenShape's unpacked files: Objaverse/000-000/UID.npy …, meta_data/. They are read as data, never run.
    openshape: str | None = None
    # Whose features these files hold.
    teacher: str = DEFAULT_TEACHER
    # CSV file of Cap3D, uid,caption: captions of objects that the corpus has.
    cap3d: str | None = None
    # A list of objects as NAME=FILE (.json, .csv, .txt); may be given several times. A list of the same name is replaced.
    split: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=FILE")] = ()
    # Whose ids --cap3d has (default: objaverse), and lists that do not say it (default: as their form tells).
    source: str | None = None


def main(job: Job) -> int:
    """Run the imports, in this order."""
    began = time.monotonic()
    if not (job.openshape or job.cap3d or job.split):
        raise Refusal("say what to import: --openshape FOLDER, --cap3d FILE or --split NAME=FILE")
    if not job.openshape:
        job.corpus.need(OBJECTS.name)
    try:
        dim(job.teacher)
    except TeacherError as error:
        raise Refusal(str(error)) from error
    try:  # what cannot be read is told now, not after hours of work
        folder = OpenShapeFolder(absolute(job.openshape)) if job.openshape else None
        lists = {name: read_split(absolute(file), job.source) for name, file in map(_named, job.split)}
        cap3d = read_cap3d(absolute(job.cap3d), job.source or "objaverse") if job.cap3d else {}
    except FileNotFoundError as error:
        raise Refusal(f"there is no file {error.filename}" if error.filename else str(error)) from error
    except ValueError as error:
        raise Refusal(str(error)) from error
    return finish(job, carry_out(job, _steps(job, folder, cap3d, lists)), began)


def _named(text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise Refusal(f"--split {text!r} has the wrong form: write NAME=FILE")
    return name, file


def _steps(
    job: Job, folder: OpenShapeFolder | None, cap3d: dict[str, list[str]], lists: dict[str, dict[str, str | None]]
) -> Iterator[Step]:
    if folder:
        yield Step(job.setting("openshape", ImportOpenShape, teacher=job.teacher), records=folder.records())
        texts = job.setting("openshape", ImportTexts, teacher=job.teacher, folder=folder)
        yield Step(texts, records=texts.records(job.corpus))
    known = set(job.corpus.need(OBJECTS.name).to_table(columns=["object_id"])["object_id"].to_pylist())
    if job.cap3d:
        records = [{"object_id": id, "texts": texts} for id, texts in cap3d.items() if id in known]
        absent = len(cap3d) - len(records)
        say(job, f"{job.cap3d}: captions of {len(cap3d):,} objects, {absent:,} of them not in the corpus and left out")
        yield Step(Single(ImportCap3d(source=job.source or "objaverse")), records=records, whole=True)
    for name, listed in lists.items():
        absent = sum(id not in known for id in listed)
        say(job, f"{name}: a list of {len(listed):,} objects, {absent:,} of them not in the corpus; it is kept whole")
        records = [{"object_id": id, "label": label} for id, label in listed.items()]
        yield Step(Single(ImportSplit(split=name)), records=records, whole=True)
