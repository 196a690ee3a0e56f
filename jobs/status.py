"""What is done, still to do and failed in a corpus, per stage."""

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from jobs.arguments import Json, Root
from jobs.refusal import Refusal
from pipeline.status import Completeness, StageStatus, completeness, pictured_failures, status
from pipeline.store import Corpus
from render.gates import GATE
from reports.contact_sheet import failure_sheet

MOST_THUMBNAILS = 100  # on a sheet


@dataclass(frozen=True, kw_only=True)
class Job:
    # Folder of the corpus.
    root: Root
    # Picture file (.png) to make: the views that a gate did not let in, and why.
    thumbnails: Path | None = None
    # Print one JSON object instead of text.
    json: Json = False


def main(job: Job) -> int:
    """Print the status page."""
    corpus = Corpus.at(job.root)
    corpus.need("objects")
    stages = status(corpus)
    whole = completeness(corpus)
    if job.json:
        stages = [dataclasses.asdict(stage) for stage in stages]
        print(json.dumps({"root": corpus.root, "stages": stages} | dataclasses.asdict(whole)))
    else:
        print(page(job.root, stages, whole))
    if job.thumbnails:
        said = write_thumbnails(corpus, job.thumbnails)
        print(said, file=sys.stderr if job.json else sys.stdout)
    return 0


def write_thumbnails(corpus: Corpus, file: Path) -> str:
    """Writes the sheet of failures with a picture, and says what is on it. Raises Refusal when the file cannot be written."""
    failures, count = pictured_failures(corpus, MOST_THUMBNAILS)
    if not failures:
        return f"no failure has a picture of what was made: {file} is not written"
    shown = f"{len(failures):,} of {count:,} failures with a picture" if len(failures) < count else f"{count:,} with a picture"
    try:
        failure_sheet(failures, caption=f"{corpus.root}: {shown}").save(file)
    except (OSError, ValueError) as error:  # ValueError: a kind of picture that Pillow does not know
        raise Refusal(f"--thumbnails {file}: {error}") from error
    return f"{file}: {shown}"


def source_lines(whole: Completeness) -> list[str]:
    """A line per source, and below it what failed, by stage and reason, and what the warnings are."""
    width = max([len(source) for source in whole.sources], default=6)
    lines = [f"{'source':<{width}} {'objects':>9} {'complete':>9} {'failed':>9}"]
    for source, found in whole.sources.items():
        lines.append(f"{source:<{width}} {found.objects:>9,} {found.complete:>9,} {sum(found.failed.values()):>9,}")
        lines += [f"{'':<{width}} {'':>9} {'':>9} {count:>9,} × {why}" for why, count in found.failed.items()]
        lines += [f"{'':<{width}} {'':>9} {'':>9} {count:>9,} warned: {warning}" for warning, count in found.warnings.items()]
    return lines


def page(root: str, stages: list[StageStatus], whole: Completeness) -> str:
    """The status page: a line per stage, its failures by reason below it."""
    share = f" ({whole.complete / whole.objects:.1%})" if whole.objects else ""
    lines = [f"{root}: {whole.complete:,} of {whole.objects:,} objects are complete{share}"]
    lines += [f"  {count:,} lack {what}" for what, count in whole.lacking.items()] + [""]
    lines += [*source_lines(whole), ""]
    width = max([len(stage.stage) for stage in stages], default=5)
    lines.append(f"{'stage':<{width}} {'done':>9} {'to do':>9} {'failed':>9}   table")
    for stage in stages:
        todo = "?" if stage.todo is None else f"{stage.todo:,}"
        lines.append(f"{stage.stage:<{width}} {stage.done:>9,} {todo:>9} {stage.failed:>9,}   {stage.table}")
        lines += [f"{'':<{width}} {'':>9} {'':>9} {count:>9,} × {reason}" for reason, count in stage.reasons.items()]
    failing = next((stage for stage in stages if stage.reasons), None)
    if failing:
        lines += ["", f"try again: python -m jobs retry {root} --stage {failing.stage} --reason {next(iter(failing.reasons))}"]
    if any(reason.startswith(GATE) for stage in stages for reason in stage.reasons):
        lines.append(f"see what the gates did not let in: python -m jobs status {root} --thumbnails FILE.png")
    return "\n".join(lines)
