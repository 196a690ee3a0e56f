"""A page that shows what is in a corpus, what failed and why, under which licences, and what it took to make.

python -m jobs report /data/corpus -o report.html

python -m jobs report /data/corpus --against 2026-11-20

python -m jobs report /data/corpus --json --fail-if "failed_share>0.02" --fail-if "unknown_license_share>0"

The page is one file that needs nothing but a browser. The corpus is read as it is when the job begins; nothing is written to it.
"""

import io
import json
import math
import os
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import tyro
from pyarrow.csv import write_csv

from jobs.arguments import Json, Root
from jobs.progress import Progress, duration, progress
from jobs.refusal import Refusal
from reports.against import against
from reports.captions import captions
from reports.categories import categories
from reports.dataset_card import dataset_card
from reports.duplicates import duplicates
from reports.embeddings import embeddings
from reports.failures import failures
from reports.funnel import funnel
from reports.gate import Figure, figures, holds, parsed, value
from reports.licences import attribution, licences
from reports.overview import overview
from reports.page import page
from reports.points import points
from reports.section import Section
from reports.spreads import number_of
from reports.storage import size_text, storage
from reports.time_and_cost import time_and_cost
from reports.views import views
from schemas.corpus import Reader
from schemas.tables import OBJECTS

LINE = 100  # letters of a section's first sentence that are printed


@dataclass(frozen=True, kw_only=True)
class Job:
    # Folder or URI of the corpus.
    root: Root
    # The page, an HTML file; one that is there is replaced.
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",))] = Path("report.html")
    # What to compare with: the root of another corpus, or an earlier version of this one, by a time ("2026-11-20",
    # "2026-11-20T12:00", UTC), or by the tag or number of a version of its objects.
    against: str | None = None
    # A condition on a figure, "failed_share>0.02": where it holds, or the figure is not known, the exit code is 1. May be given
    # several times. --json shows all figures.
    fail_if: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    # Dataset card to write as well, a README.md as the Hugging Face hub wants it.
    card: Path | None = None
    # List of all creators to write as well, a CSV file: who made how many objects under which licence.
    attribution: Path | None = None
    # Whose embeddings to show (ARCH:PRETRAINED). Default: the only teacher, or the one that has embedded most objects.
    teacher: str | None = None
    # Objects whose embeddings are compared with their captions, at most; all that is counted is counted over all. Default: 20,000.
    sample: int | None = None
    # What an hour of one core costs; without this and the next, the report shows time and no money.
    price_cpu_hour: float | None = None
    # What an hour of one GPU costs.
    price_gpu_hour: float | None = None
    # What these prices are in.
    currency: str = "USD"
    # Benchmark to look for among the objects, NAME=PLACE as `evaluate leaks` takes it; may be given several times.
    leaks: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="BENCHMARK=PLACE")] = ()
    # Also compare objects by shape, with each other and with the benchmarks' objects: minutes for a thousand, hours for many.
    near: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    # Heading of the page. Default: the corpus' name.
    title: str | None = None
    # Print one JSON object instead of text.
    json: Json = False


def main(job: Job) -> int:
    """Compute the sections, write the page and what else was asked for, and say what to look at first."""
    began = time.monotonic()
    _refuse_wrong(job)
    corpus = Reader.at(job.root)
    corpus.need(OBJECTS.name)
    corpus = corpus.pinned()
    if job.teacher is not None and job.teacher not in corpus.teachers():
        raise Refusal(f"--teacher {job.teacher}: {corpus.root} has embeddings of: {', '.join(corpus.teachers()) or 'no teacher'}")
    other, told = (None, "") if job.against is None else _other(job.against, corpus)
    plan = _plan(job, corpus, **_compared(job, corpus))
    theirs_plan = {} if other is None else _plan(job, other)
    seconds: dict[str, float] = {}
    with progress("report", len(plan) + len(theirs_plan) + 1, "sections", quiet=job.json) as bar:
        sections = list(_made(plan, seconds, "", bar))
        if other is not None:
            theirs = list(_made(theirs_plan, seconds, f", {told}", bar))
            since = time.monotonic()
            sections = list(against(sections, theirs, corpus=corpus, other=other, told=told))
            seconds["changed"] = time.monotonic() - since
        since = time.monotonic()
        written = _written(job, corpus, sections)
        seconds["page"] = time.monotonic() - since
    known = figures(sections)
    failed = [said for one in job.fail_if if (said := _failed(one, known))]
    if job.json:
        print(json.dumps(_told(corpus, sections, written, failed, seconds, time.monotonic() - began), ensure_ascii=False))
    else:
        print("\n".join(_lines(sections, written, failed, seconds, time.monotonic() - began)))
    return 1 if failed else 0


def _refuse_wrong(job: Job) -> None:
    """Refusal for what can be told before anything is read."""
    for option, file in (("--output", job.output), ("--card", job.card), ("--attribution", job.attribution)):
        if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
            raise Refusal(f"{option} {file}: must be a file in a folder that is there")
    if job.sample is not None and job.sample < 1:
        raise Refusal(f"--sample {job.sample}: must be 1 or more")
    for option, price in (("--price-cpu-hour", job.price_cpu_hour), ("--price-gpu-hour", job.price_gpu_hour)):
        if price is not None and not 0 <= price < math.inf:
            raise Refusal(f"{option} {price:g}: must be 0 or more")
    for one in job.fail_if:
        try:
            parsed(one)
        except ValueError as error:
            raise Refusal(f"--fail-if: {error}") from error


def _other(asked: str, corpus: Reader) -> tuple[Reader, str]:
    """What `--against` names, and a short name for it."""
    place = Reader.at(asked)
    if place.open(OBJECTS.name) is not None:
        if place.root.rstrip("/") == corpus.root.rstrip("/"):
            raise Refusal(f"--against {asked}: that is the corpus itself; give another one, or a time, tag or version of this one")
        return place.pinned(), _name(place.root)
    if "://" in asked or Path(asked).exists():
        raise Refusal(f"--against {asked}: there is no corpus (no table {OBJECTS.name})")
    try:
        return Reader(corpus.root).as_it_was(asked), asked
    except ValueError as error:
        raise Refusal(f"--against {asked}: there is no such corpus, and {error}") from error


def _plan(job: Job, corpus: Reader, **found: Any) -> dict[str, Callable[[], Section]]:
    """The sections, in their order in the page. `found`: what `duplicates` is told of what others computed."""
    sample = {} if job.sample is None else {"sample": job.sample}
    prices = {"cpu_hour": job.price_cpu_hour, "gpu_hour": job.price_gpu_hour, "currency": job.currency}
    return {
        "overview": lambda: overview(corpus),
        "funnel": lambda: funnel(corpus),
        "failures": lambda: failures(corpus),
        "licences": lambda: licences(corpus),
        "categories": lambda: categories(corpus),
        "captions": lambda: captions(corpus),
        "views": lambda: views(corpus),
        "points": lambda: points(corpus),
        "embeddings": lambda: embeddings(corpus, teacher=_teacher(job, corpus), **sample),
        "duplicates": lambda: duplicates(corpus, **found),
        "storage": lambda: storage(corpus),
        "time_and_cost": lambda: time_and_cost(corpus, **prices),
    }


def _teacher(job: Job, corpus: Reader) -> str | None:
    """The teacher that was asked for, or else the one that has embedded most objects; None: there is none."""
    there = corpus.teachers()
    if job.teacher in there:
        return job.teacher
    return max(there, key=lambda name: corpus.need(f"image_embeddings/{name}").count_rows(), default=None)


def _compared(job: Job, corpus: Reader) -> dict[str, Any]:
    """What is told to `duplicates`: of other benchmarks and of shapes, where these are asked for."""
    if not (job.near or job.leaks):
        return {}
    from jobs.report_leaks import compared  # PyTorch with all that belongs to it: seconds, and a gigabyte

    return compared(corpus, job.leaks, near=job.near, quiet=job.json)


def _made(plan: dict[str, Callable[[], Section]], seconds: dict[str, float], whose: str, bar: Progress) -> Iterator[Section]:
    """The sections, and how long each took by its name."""
    for name, section in plan.items():
        since = time.monotonic()
        made = section()
        seconds[name + whose] = time.monotonic() - since
        bar.update(done=bar.done + 1)
        yield made


def _written(job: Job, corpus: Reader, sections: Sequence[Section]) -> dict[str, Path]:
    """Write all files that were asked for; each is there in full or not at all."""
    name = job.title or _name(corpus.root)
    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, from {corpus.root}"
    files = {"report": (job.output, page(sections, title=name, made=made).encode())}
    if job.card is not None:
        files["card"] = job.card, dataset_card(sections, name=name, root=corpus.root).encode()
    if job.attribution is not None:
        sheet = io.BytesIO()
        write_csv(attribution(corpus), sheet)
        files["attribution"] = job.attribution, sheet.getvalue()
    for file, content in files.values():
        part = file.with_name(f".{file.name}.part")
        part.write_bytes(content)
        os.replace(part, file)
    return {what: file for what, (file, _) in files.items()}


def _failed(condition: str, known: dict[str, Figure]) -> str | None:
    """Why a condition of --fail-if makes the job fail; None: it does not."""
    try:
        answer, figure = holds(condition, known), value(parsed(condition).name, known)
    except ValueError as error:
        raise Refusal(f"--fail-if {condition}: {error}") from error
    if answer is None:
        return f"{condition}: {parsed(condition).name} is not known in this corpus"
    return f"{condition}: {parsed(condition).name} is {figure:.6g}" if answer else None


def _told(
    corpus: Reader,
    sections: Sequence[Section],
    written: dict[str, Path],
    failed: Sequence[str],
    seconds: dict[str, float],
    whole: float,
) -> dict[str, Any]:
    return {
        "root": corpus.root,
        "versions": corpus.versions,
        **{what: str(file) for what, file in written.items()},
        "bytes": written["report"].stat().st_size,
        "failed": list(failed),
        "warnings": {section.key: list(section.warnings) for section in sections if section.warnings},
        "gates": {name: number for section in sections for name, number in section.gates.items()},
        "figures": {section.key: section.figures for section in sections},
        "section_seconds": {name: round(one, 2) for name, one in seconds.items()},
        "seconds": round(whole, 2),
    }


def _lines(
    sections: Sequence[Section], written: dict[str, Path], failed: Sequence[str], seconds: dict[str, float], whole: float
) -> Iterator[str]:
    width = max(map(len, seconds))
    leads = {section.key: section.lead for section in sections}
    for name, one in seconds.items():
        yield f"{name:<{width}} {one:>7.1f} s  {textwrap.shorten(leads.get(name, ''), LINE, placeholder=' …')}".rstrip()
    for what in ("card", "attribution"):
        if what in written:
            yield f"{what}: {written[what]}"
    warnings = [f"  {section.key}: {warning}" for section in sections for warning in section.warnings]
    yield from ["look at first:", *warnings] if warnings else []
    yield from (f"fails: {said}" for said in failed)
    file = written["report"]
    size = size_text(file.stat().st_size)
    yield f"{file}: {size}, in {duration(whole)}; {number_of(len(warnings), 'warning')}; open it in a browser"


def _name(root: str) -> str:
    """The last part of a place, with the one before where that is a name for anything."""
    *above, last = root.rstrip("/").split("/")
    return f"{above[-1]}/{last}" if last == "corpus" and above and above[-1] else last
