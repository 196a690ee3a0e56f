"""Ask a corpus whether it is fit to train on. Exit code 0: fit; 1: not fit, or could not be asked; 2: wrong arguments.

python -m jobs evaluate canary /data/corpus
"""

import dataclasses
import json
from dataclasses import dataclass

from evaluate.canary import FLOOR, MOST_CLASSIFIED, TOP, Canary, Found, canary
from jobs.arguments import Json, Root
from jobs.refusal import Refusal
from pipeline.reencode import LEAST_COSINE, Reencoded, reencode
from pipeline.store import Corpus
from pipeline.weights import TeacherError, name_in_tables


@dataclass(frozen=True, kw_only=True)
class Job:
    # Folder or URI of the corpus.
    root: Root
    # ARCH:PRETRAINED, or a name as the tables have it. Default: every teacher of the corpus, one after the other.
    teacher: str | None = None
    # List whose labels are the objects' classes. Default: objaverse-lvis, or the only list with labels; else categories.
    split: str | None = None
    # Share of the published top-1 (where one is known) that must be reached.
    floor: float = FLOOR
    # Objects that are classified, at most; chosen by chance.
    objects: int = MOST_CLASSIFIED
    # Objects of which a view is encoded again and compared, where the teacher's weights are here; as many texts. 0: none.
    recompute: int = 32
    # Print one JSON object instead of text.
    json: Json = False


def main(job: Job) -> int:
    """Print what was found of each teacher, and the verdict."""
    for name, value, least in (("objects", job.objects, 1), ("recompute", job.recompute, 0)):
        if value < least:
            raise Refusal(f"--{name} {value}: must be {least} or more")
    corpus = Corpus.at(job.root)
    teachers = [job.teacher] if job.teacher else corpus.teachers()
    if not teachers:
        raise Refusal(
            f"{corpus.root} has no embeddings of any teacher: python -m jobs embed {corpus.root} --teacher ARCH:PRETRAINED",
            exit_code=1,
        )
    found = [judged(corpus, teacher, job) for teacher in teachers]
    if job.json:
        told = [
            dataclasses.asdict(one) | {"reencoded": [dataclasses.asdict(table) for table in again], "fit": not problems(one, again)}
            for one, again in found
        ]
        print(json.dumps({"root": corpus.root, "teachers": told}, ensure_ascii=False))
    else:
        print("\n\n".join(page(one, again) for one, again in found))
    return 1 if any(problems(one, again) for one, again in found) else 0


def judged(corpus: Corpus, teacher: str, job: Job) -> tuple[Canary, list[Reencoded]]:
    """What the canary and the encoding anew found of one teacher."""
    try:
        name = name_in_tables(teacher)
    except TeacherError as error:
        if teacher not in corpus.teachers():
            raise Refusal(str(error)) from error
        name = teacher  # of a weights file that is not here any more
    found = canary(corpus.root, name, split=job.split, floor=job.floor, classified=job.objects)
    return found, reencode(corpus, teacher, job.recompute) if job.recompute else []


def problems(found: Canary, again: list[Reencoded]) -> list[str]:
    """Why not to train on it."""
    differ = [
        f"{one.table}: {len(one.differing)} of {one.compared} rows are not what the teacher makes of the stored pictures or texts "
        f"(cosine {one.worst:.3f}, must be {LEAST_COSINE}): {', '.join(one.differing[:4])}{' …' if len(one.differing) > 4 else ''}"
        for one in again
        if one.differing
    ]
    return [*found.problems, *differ]


def page(found: Canary, again: list[Reencoded]) -> str:
    """What was looked up, what was found beside what chance finds, view by view, what was encoded again; the verdict last."""
    lines = [f"{found.teacher} in {found.root}: {found.objects:,} objects with embedded views"]
    if found.weights_sha256:
        lines.append(f"weights {found.weights_sha256[:12]}…, views averaged as {found.averaged}")
    for one in (found.classes, found.captions):
        if one:
            lines += ["", *_found_lines(one)]
    if found.known:
        lines += ["", "published     " + "  ".join(f"top-{k} {share:6.1%}" for k, share in zip(TOP, found.known, strict=True))]
    if again:
        lines += ["", "encoded again from what is stored, smallest cosine:"]
        lines += [f"  {one.table}: {one.skipped or f'{one.worst:.4f} of {one.compared} rows'}" for one in again]
    if found.notes:
        lines += ["", *(f"note: {note}" for note in found.notes)]
    if found.problems and again and not any(one.skipped or one.differing for one in again):
        lines += [
            "",
            "note: what was encoded again is as it is stored: so the teacher knows too little of these objects to check by",
        ]
    if why := problems(found, again):
        lines += ["", *(f"problem: {problem}" for problem in why), "", "verdict: NOT fit to train on"]
    else:
        lines += ["", "verdict: fit to train on"]
    return "\n".join(lines)


def _found_lines(found: Found) -> list[str]:
    needed = "too few objects to tell" if found.z_needed is None else f"{found.z_needed:.1f} needed"
    above = f"{found.z:.1f} σ above chance ({needed})"
    lines = [f"{found.objects:,} objects looked up among {found.choices:,} {found.asked}: whether their own are the nearest"]
    for name, shares, more in (("mean of views", found.top, f"   {above}"), ("by chance", found.chance, "")):
        lines.append(f"  {name:<14}" + "  ".join(f"top-{k} {share:6.1%}" for k, share in zip(TOP, shares, strict=True)) + more)
    lines.append("  view by view  top-1")
    for first in range(0, len(found.views), 12):
        row = found.views[first : first + 12]
        lines.append(f"  {f'  from {first}':<14}" + " ".join(f"{share:6.1%}" for share, _ in row))
    return lines
