"""What is done, still to do and failed in a corpus, per stage."""

import dataclasses
import json
from dataclasses import dataclass

from jobs.arguments import Json, Root
from pipeline.status import Completeness, StageStatus, completeness, status
from pipeline.store import Corpus


@dataclass(frozen=True, kw_only=True)
class Job:
    # Folder of the corpus.
    root: Root
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
    return 0


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
    return "\n".join(lines)
