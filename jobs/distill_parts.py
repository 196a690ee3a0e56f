"""Teach a student the parts of a category from units, what a vision-language model said of unlabelled shapes (PartDistill). Kill
it at any time; the same command goes on after the last whole epoch.

python -m jobs distill-parts /data/units --category chair --encoder point_m2ae_pre-train.pth --out runs/chair

The units are brought, in the form that PartDistill's released code reads: UNITS/<synset>/<id>/extracted/preprocess.h5, with xyz
(points), cls_bbox (the part that each unit names) and conf_bbox (how sure the model is of it at each point; all zeros where the
unit does not cover it). Making them takes a detector such as GLIP, which is not part of this project; from Python,
trainer.partdistill.units.of_boxes and of_probabilities make units of what it found in the views of a corpus.
"""

import dataclasses
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from evaluate.part_segmentation import CATEGORIES, Rule, part_ious, shape_iou
from evaluate.sets.partnete import part_names
from evaluate.sets.shapenetpart import LISTS, listed_shapes
from jobs.arguments import Json
from jobs.progress import duration, progress
from jobs.refusal import Refusal
from trainer.encode import Device
from trainer.partdistill import units
from trainer.partdistill.distill import PAPER, RELEASED, Settings
from trainer.partdistill.student import SIZES
from trainer.partdistill.taught import Judge, Run, SettledBy, Taught, device_of, teach

RECIPES = {"released": RELEASED, "paper": PAPER}
NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Job:
    # Folder of the units: <synset>/<id>/extracted/preprocess.h5 (of PartNetE: <category>/<id>/…).
    units: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="UNITS")]
    # Whose parts: a category of ShapeNetPart, such as chair; with --meta one of PartNetE, such as Chair.
    category: str
    # Weights of the frozen encoder, Point-M2AE's point_m2ae_pre-train.pth; none: chance, which still sees where points are.
    encoder: str
    # Folder that keeps the run, and the student in the end.
    out: Path
    # Folder of the lists: shuffled_{train,val,test}_file_list.json; of PartNetE {train,test}.txt. Default: UNITS/train_test_split
    # or UNITS/split.
    lists: Path | None = None
    # PartNetE_meta.json: the category is one of PartNetE's.
    meta: Path | None = None
    # The settings to go by: those of the released code, or those that the paper gives.
    recipe: Literal["released", "paper"] = "released"
    # Instead of the recipe's: passes over the shapes …
    epochs: int | None = None
    # … shapes of a step …
    batch: int | None = None
    # … learning rate …
    rate: float | None = None
    # … points of a shape …
    points: int | None = None
    # … and when backward distillation starts: when the mean loss changes by less than 0.01, when it is less than 0.01, or never.
    backward: Literal["change", "level", "never"] | None = None
    # Size of the student; small is to try things out, and has no published encoder.
    size: Literal["point-m2ae", "small"] = "point-m2ae"
    # The list whose true parts say which epoch's student is kept, and with which one backward distillation starts. nothing: no
    # true part is looked at, the last epoch's. test: as the released code does it; it leaks, figures on the test set are too good.
    settled_by: SettledBy = "nothing"
    # Who made the units, in words, for the tables.
    teacher: str | None = None
    # Seed of all chance.
    seed: int = 0
    # auto: a GPU where there is one.
    device: Device = "auto"
    # Print one JSON object instead of text.
    json: Json = False


@dataclass(frozen=True)
class Wanted:
    """The category that was asked for: the benchmark it is of and that one's rule, the folder of its shapes, the number of its
    first part, and how many parts it has."""

    benchmark: str
    rule: Rule
    folder: str
    first: int
    parts: int


def main(job: Job) -> int:
    """Teach; print what was learnt from, and where the student is."""
    try:
        run = asked(job)
        _say(job, introduction(run))
        taught = teach(run, lambda *told: progress(*told, quiet=job.json), lambda line: _say(job, line))
    except ValueError as error:
        raise Refusal(str(error), exit_code=1) from error
    if job.json:
        print(json.dumps(dataclasses.asdict(taught), ensure_ascii=False))
    _say(job, last_line(job, taught))
    return 0


def asked(job: Job) -> Run:
    """The run that is asked for. Raises Refusal, and ValueError for what is right and not there."""
    settings = _settings(job)
    wanted = _wanted(job)
    return Run(
        out=job.out,
        benchmark=wanted.benchmark,
        category=job.category,
        config=replace(SIZES[job.size], parts=wanted.parts),
        settings=settings,
        shapes=_listed(job, wanted, "train"),
        encoder=None if job.encoder == NONE else Path(job.encoder),
        teacher=job.teacher,
        judge=_judge(job, wanted),
        seed=job.seed,
        device=device_of(job.device),
    )


def introduction(run: Run) -> str:
    """The settings of the run, for a person."""
    settings, judge = run.settings, run.judge
    settled = (
        "the last epoch's, no true part is looked at" if judge is None else f"the best by the true parts of the {judge.by} list"
    )
    lines = [
        f"category     {run.category} of {run.benchmark}, {run.config.parts} parts; {len(run.shapes):,} shapes to learn from",
        f"encoder      {run.encoder or 'chance (no weights)'}, frozen, on {run.device}",
        f"recipe       loss {settings.form}, weights of parts by {settings.weights}, {settings.epochs} epochs of batches of "
        f"{settings.batch}, {settings.points:,} points, rate {settings.rate:g}; backward distillation by {settings.backward}",
        f"student      {settled}",
    ]
    if judge and judge.by == "test":
        lines.append("warning      chosen by the test list, as in the released code: its figures on the test set are no measure")
    return "\n".join(lines)


def last_line(job: Job, taught: Taught) -> str:
    """What was done and where it is."""
    backward = f"backward from epoch {taught.backward_from}" if taught.backward_from else "backward distillation never began"
    without = f" ({taught.without_units:,} more have none)" if taught.without_units else ""
    settled = "" if taught.figure is None else f"; mIoU {taught.figure:.1%} on the {job.settled_by} list that it was chosen by"
    return (
        f"taught {taught.epochs:,} epochs by {taught.units:,} units of {taught.shapes:,} shapes{without} in "
        f"{duration(taught.seconds)}, {backward}; loss {taught.loss:.4f}{settled}; {taught.out}\n"
        f"python -m jobs evaluate parts NAME=PLACE --student {taught.out} --out FOLDER"
    )


def _settings(job: Job) -> Settings:
    instead = {name: getattr(job, name) for name in ("epochs", "batch", "rate", "points", "backward")}
    instead = {name: value for name, value in instead.items() if value is not None}
    for name, value in instead.items():
        if name != "backward" and value <= 0:
            raise Refusal(f"--{name} {value}: must be more than 0")
    return replace(RECIPES[job.recipe], **instead)


def _wanted(job: Job) -> Wanted:
    if job.meta is None:
        if job.category not in CATEGORIES:
            raise Refusal(
                f"--category {job.category}: ShapeNetPart has {', '.join(CATEGORIES)}; for PartNetE's give --meta "
                "PartNetE_meta.json"
            )
        category = CATEGORIES[job.category]
        return Wanted("shapenetpart", "absent is right", category.synset, category.first, category.parts)
    try:
        parts = part_names(job.meta)
    except ValueError as error:
        raise Refusal(f"--meta: {error}") from error
    if job.category not in parts:
        raise Refusal(f"--category {job.category}: PartNetE has {', '.join(parts)}")
    return Wanted("partnete", "absent is left out", job.category, 0, len(parts[job.category]))


def _listed(job: Job, wanted: Wanted, which: Literal["train", "val", "test"]) -> list[tuple[str, Path]]:
    """Id and file of the category's shapes in one of the lists."""
    if wanted.benchmark == "partnete":
        file = (job.lists or job.units / "split") / f"{which}.txt"
    else:
        file = (job.lists or job.units / LISTS) / f"shuffled_{which}_file_list.json"
    if not file.is_file():
        raise Refusal(f"there is no {file}, the list of {which} shapes: say where it is with --lists FOLDER")
    try:
        entries = file.read_text().split() if file.suffix == ".txt" else ["/".join(one) for one in listed_shapes(file)]
        files = units.listed(job.units, entries, wanted.folder)
    except ValueError as error:
        raise Refusal(str(error), exit_code=1) from error
    if not files:
        raise Refusal(f"{file} lists no shapes of {job.category} ({wanted.folder})", exit_code=1)
    return [(f"{wanted.folder}/{one.parent.parent.name}", one) for one in files]


def _judge(job: Job, wanted: Wanted) -> Judge | None:
    if job.settled_by == "nothing":
        return None
    files = [file for _, file in _listed(job, wanted, job.settled_by)]
    return Judge(
        by=job.settled_by,
        shapes=[(units.read(file).xyz, units.labels(file, wanted.first)) for file in files],
        figure=lambda predicted, truth: shape_iou(part_ious(predicted, truth, wanted.parts, wanted.rule)),
    )


def _say(job: Job, text: str) -> None:
    if not job.json:
        print(text, flush=True)
