"""Part segmentation by the published rule: intersection over union of parts, of PartDistill's students, of the units that taught
them, or of predictions made elsewhere; beside the published rows, and as a picture of the worst and the best shapes.

python -m jobs evaluate parts shapenetpart=/data/shapenetpart --student runs/chair runs/table -o tables/parts

python -m jobs evaluate parts shapenetpart=/data/shapenetpart --student runs/chair --units /data/units --align -o tables/aligned

python -m jobs evaluate parts partnete=/data/partnete --predictions mine.npz -o tables/mine
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from jaxtyping import Float64

from evaluate.part_segmentation import PartBenchmark, PartSegmentation, PartShape, of_ious, part_ious, shape_iou
from evaluate.result import FILE, Figure, Result, save, to_json
from evaluate.segmenters import Segmenter, of_predictions, of_students, of_units, read_students
from evaluate.sets.partnete import partnete
from evaluate.sets.shapenetpart import shapenetpart
from evaluate.table import text
from jobs.arguments import Json
from jobs.progress import progress
from jobs.refusal import Refusal
from pipeline.stage import ObjectError
from reports.part_sheet import Segmented, part_sheet
from trainer.encode import Device, Up
from trainer.partdistill.taught import device_of

BENCHMARKS: dict[str, Callable[[str], PartBenchmark]] = {"shapenetpart": shapenetpart, "partnete": partnete}
SHOWN = 4  # worst and best shapes of a picture
NAMED = 5  # shapes that failed, on one line


@dataclass(frozen=True, kw_only=True)
class Job:
    # What to evaluate on, NAME=PLACE: shapenetpart=FOLDER (<synset>/<id>.txt and train_test_split/) or partnete=FOLDER
    # (PartNetE_meta.json and data/test/).
    benchmark: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="BENCHMARK=PLACE")]
    # Students, folders that distill-parts made, one for each category; other categories are left out.
    student: tuple[Path, ...] = ()
    # Units of the shapes, in PartDistill's form: what the teacher alone makes of them is a row of its own.
    units: Path | None = None
    # Also teach the student's head each shape's own units before it is asked (test-time alignment) …
    align: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    # … in so many steps by the teacher's scores, and as many by how far the student agrees; the paper does not say how many.
    align_steps: tuple[int, int] = (50, 50)
    # .npz of predictions made elsewhere: an array for each shape, called <synset>/<id> or <category>/<id>, with the part of each
    # point in the file's order, numbered as the benchmark's files number them (ShapeNetPart 0..49; -1: no part).
    predictions: Path | None = None
    # At most so many shapes of each category, the first of the list.
    limit: int | None = None
    # Which way is up in the files' points, for the picture: +y with the front to +z, or +z with the front to -y.
    up: Up = "+y"
    # Seed of the order in which a student sees points.
    seed: int = 0
    # auto: a GPU where there is one.
    device: Device = "auto"
    # New folder for results.json, table.md, table.html and the pictures.
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    # Print one JSON object instead of text.
    json: Json = False


@dataclass
class Found:
    """What a method made of the shapes: IoU of parts of each, by shape number; seconds that it took."""

    ious: dict[int, Float64[np.ndarray, " _r"]] = field(default_factory=dict)
    seconds: float = 0.0

    def of(self, benchmark: PartBenchmark) -> PartSegmentation:
        """The figures."""
        by_category: dict[str, list[Float64[np.ndarray, " _r"]]] = {}
        for number, ious in self.ious.items():
            by_category.setdefault(benchmark.shapes[number][1], []).append(ious)
        return of_ious(by_category)


def main(job: Job) -> int:
    """Open, ask, print; write the table and the pictures."""
    _check(job)
    benchmark = opened(job.benchmark)
    tried = segmenters(job, benchmark)
    missing = f", {len(benchmark.missing):,} of its list are missing" if benchmark.missing else ""
    _say(job, f"benchmark    {benchmark.name}, {benchmark.variant}: {len(benchmark.shapes):,} shapes{missing}; {benchmark.rule}")
    for method in tried:
        _say(job, f"method       {method.name}: {', '.join(sorted(method.categories))}")
        _say(job, f"             {leak_line(method, benchmark)}")
    chosen = _chosen(job, benchmark, tried)
    found, failed = asked(job, benchmark, tried, chosen)
    if failed:
        some = "; ".join(f"{id}: {why}" for id, why in list(failed.items())[:NAMED])
        _say(job, f"left out: {len(failed):,} shapes: {some}{' …' if len(failed) > NAMED else ''}")
    if silent := [method.name for method in tried if not found[method.kind].ious]:
        raise Refusal(
            f"{silent[0]}: no shape could be evaluated{''.join(f': {why}' for why in list(failed.values())[:1])}", exit_code=1
        )
    results = [result(job, benchmark, method, found[method.kind], len(chosen[method.kind])) for method in tried]
    save(job.out, results)
    pictures = [str(picture(job, benchmark, method, found[method.kind])) for method in tried]
    if job.json:
        told = {"out": str(job.out), "results": [to_json(one) for one in results], "pictures": pictures, "failed": failed}
        print(json.dumps(told, ensure_ascii=False))
    else:
        print(f"\n{by_category(results)}\n\n{text(results)}\n\n{job.out}: {FILE}, table.md, table.html; {', '.join(pictures)}")
    return 0


def opened(asked: str) -> PartBenchmark:
    """The benchmark that is asked for as NAME=PLACE. Raises Refusal."""
    name, equals, place = asked.partition("=")
    if not equals or name not in BENCHMARKS:
        raise Refusal(f"{asked}: must be {' or '.join(f'{name}=FOLDER' for name in BENCHMARKS)}")
    try:
        return BENCHMARKS[name](place)
    except ValueError as error:
        raise Refusal(f"{asked}: {error}", exit_code=1) from error


# ---------------------------------------------------------------------------------------------------------------- what is evaluated


def segmenters(job: Job, benchmark: PartBenchmark) -> list[Segmenter]:
    """All that is asked for. Raises Refusal for what cannot be had."""
    if not (job.student or job.units or job.predictions):
        raise Refusal("say what to evaluate: --student FOLDER, --units FOLDER or --predictions FILE")
    if job.align and not (job.student and job.units):
        raise Refusal("--align teaches a student the units of the shape that it is asked: give --student and --units")
    try:
        tried = [of_predictions(job.predictions, benchmark)] if job.predictions else []
        if job.units:
            tried.append(of_units(job.units, benchmark))
        if job.student:
            students = read_students(job.student, benchmark, device_of(job.device))
            tried.append(of_students(students, seed=job.seed))
            if job.align:
                tried.append(of_students(students, seed=job.seed, units=job.units, steps=job.align_steps))
    except ValueError as error:
        raise Refusal(str(error), exit_code=1) from error
    return tried


def leak_line(method: Segmenter, benchmark: PartBenchmark) -> str:
    """Which of the shapes it was taught by, for a person."""
    if method.taught_by is None:
        return "leak check: not known what it was trained on"
    leaked = leaked_shapes(method, benchmark)
    if leaked:
        return f"leak check: {len(leaked):,} of the shapes taught it, by id: {', '.join(leaked[:NAMED])}"
    return "leak check: none of the shapes taught it, by id"


def leaked_shapes(method: Segmenter, benchmark: PartBenchmark) -> list[str]:
    """Ids of the benchmark's shapes whose units it was taught."""
    return [id for id, _ in benchmark.shapes if id in (method.taught_by or ())]


# ---------------------------------------------------------------------------------------------------------------- asking


def asked(
    job: Job, benchmark: PartBenchmark, tried: list[Segmenter], chosen: dict[str, list[int]]
) -> tuple[dict[str, Found], dict[str, str]]:
    """What every method makes of its shapes, each read once; and why others failed, by id."""
    found: dict[str, Found] = {method.kind: Found() for method in tried}
    failed: dict[str, str] = {}
    numbers = sorted(set().union(*chosen.values()))
    with progress("parts", len(numbers), "shapes", job.json) as bar:
        for done, number in enumerate(numbers, 1):
            id, category = benchmark.shapes[number]
            try:
                shape = benchmark.read(number)
                for method in tried:
                    if category in method.categories:
                        _ask(benchmark, method, number, shape, found[method.kind])
            except ObjectError as error:
                failed[id] = f"{error.reason}: {error}"
            bar.update(done=done - len(failed), failed=len(failed))
    for one in found.values():  # the methods stand beside each other on the same shapes
        one.ious = {number: ious for number, ious in one.ious.items() if benchmark.shapes[number][0] not in failed}
    return found, failed


def _ask(benchmark: PartBenchmark, method: Segmenter, number: int, shape: PartShape, found: Found) -> None:
    (id, category), began = benchmark.shapes[number], time.monotonic()
    predicted = method.ask(id, category, shape)
    found.seconds += time.monotonic() - began
    if predicted is None:
        return
    ious = part_ious(predicted, shape.part, len(benchmark.parts[category]), benchmark.rule)
    if np.isnan(ious).all():
        raise ObjectError("no_parts", "none of its points has a part")
    found.ious[number] = ious


def _chosen(job: Job, benchmark: PartBenchmark, tried: list[Segmenter]) -> dict[str, list[int]]:
    """Numbers of the shapes that each method is asked about."""
    of_category: dict[str, list[int]] = {}
    for number, (_, category) in enumerate(benchmark.shapes):
        of_category.setdefault(category, []).append(number)
    chosen = {
        method.kind: [number for category in sorted(method.categories) for number in of_category.get(category, [])[: job.limit]]
        for method in tried
    }
    for method in tried:
        if not chosen[method.kind]:
            raise Refusal(
                f"{method.name}: {benchmark.name} here has no shapes of {', '.join(sorted(method.categories))}", exit_code=1
            )
    return chosen


# ---------------------------------------------------------------------------------------------------------------- what was found


def result(job: Job, benchmark: PartBenchmark, method: Segmenter, found: Found, chosen: int) -> Result:
    """A method's row."""
    figures = found.of(benchmark)
    missing = [id for id in benchmark.missing if _category(benchmark, id) in method.categories]
    limit = {} if job.limit is None else {"shapes of each category, at most": job.limit}
    return Result(
        task="part segmentation",
        method=method.name,
        fed="points",
        teacher=method.teacher,
        benchmark=benchmark.name,
        variant=benchmark.variant,
        objects=len(found.ious),
        missing=len(missing) + chosen - len(found.ious),
        classes=len(figures.categories),
        figures={"mIoU": Figure((figures.overall,)), "mIoU over shapes": Figure((figures.instances,))},
        per_class={category: (share, figures.shapes[category]) for category, share in figures.categories.items()},
        settings={"rule": benchmark.rule, "categories": len(figures.categories)} | limit | dict(method.settings),
        leaks=None if method.taught_by is None else {"id": len(leaked_shapes(method, benchmark))},
        trained_on=method.trained_on,
        seconds=found.seconds,
    )


def by_category(results: list[Result]) -> str:
    """mIoU of each category, a column per method."""
    lines = ["mIoU of each category (shapes)"]
    for category in sorted({category for one in results for category in one.per_class}):
        told = [one.per_class.get(category) for one in results]
        cells = "".join(f"{'–':>18}" if cell is None else f"{cell[0]:>10.1%} {f'({cell[1]:,})':>7}" for cell in told)
        lines.append(f"  {category:<18}{cells}")
    return "\n".join([*lines, *(f"  column {number}: {one.method}" for number, one in enumerate(results, 1))])


def picture(job: Job, benchmark: PartBenchmark, method: Segmenter, found: Found) -> Path:
    """The worst and the best shapes, prediction beside truth, as a PNG in the folder of the results."""
    scores = {number: shape_iou(ious) for number, ious in found.ious.items()}
    ranked = sorted(scores, key=scores.__getitem__)
    sections = [("worst", ranked[:SHOWN]), ("best", ranked[-SHOWN:][::-1])] if len(ranked) > 2 * SHOWN else [("all", ranked)]
    shown = [
        (f"{method.name}: {told}", [_segmented(benchmark, method, one, scores[one]) for one in some]) for told, some in sections
    ]
    file = job.out / f"parts-{method.kind}.png"
    part_sheet(shown, up=job.up).save(file)
    return file


def _segmented(benchmark: PartBenchmark, method: Segmenter, number: int, iou: float) -> Segmented:
    (id, category), shape = benchmark.shapes[number], benchmark.read(number)
    predicted = method.ask(id, category, shape)
    parts = benchmark.parts[category]
    return Segmented(id=id, category=category, xyz=shape.xyz, predicted=predicted, truth=shape.part, parts=parts, iou=iou)


def _category(benchmark: PartBenchmark, id: str) -> str:
    folder = id.split("/")[0]
    return next(category for category, place in benchmark.folder.items() if place == folder)


def _check(job: Job) -> None:
    if job.out.exists() and (not job.out.is_dir() or (job.out / FILE).exists()):
        raise Refusal(f"--out {job.out}: there is an evaluation already: give a new folder")
    if job.limit is not None and job.limit < 1:
        raise Refusal(f"--limit {job.limit}: must be 1 or more")
    if min(job.align_steps) < 0 or not any(job.align_steps):
        raise Refusal("--align-steps: two numbers that are 0 or more, one of them more than 0")


def _say(job: Job, line: str) -> None:
    if not job.json:
        print(line, flush=True)
