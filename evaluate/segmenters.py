"""What segments shapes: PartDistill's students, as they are or aligned with each shape's units; the units alone; predictions made
elsewhere and brought in a file."""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64
from scipy.spatial import cKDTree

from evaluate.part_segmentation import NO_PART, PartBenchmark, PartShape
from pipeline.stage import ObjectError
from trainer.clouds import prepared
from trainer.partdistill import units as knowledge
from trainer.partdistill.distill import align, parts_of
from trainer.partdistill.student import INPUT, Student
from trainer.partdistill.taught import StudentCard, load

MOST_NAMED = 4  # students in a name
ELSEWHERE = 0.1  # half of a shape's points are at most so far from those of its units, of its largest norm


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """What is evaluated. `kind`: in short; `name`: as a table calls it. `categories`: those it has an answer for.

    `ask`: the part, 0.. within the category, of each point of a shape, given its id, category and points; -1: none; the true parts
    are not looked at. None: it has no answer for this shape. Raises ObjectError. `taught_by`: ids of shapes; None: not known.
    """

    kind: Literal["predictions", "units", "student", "aligned"]
    name: str
    categories: frozenset[str]
    ask: Callable[[str, str, PartShape], Int64[np.ndarray, " n"] | None]
    teacher: str = "not told"
    trained_on: str | None = None
    taught_by: frozenset[str] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Taught:
    """A student, the folder it was read from, and its card."""

    folder: Path
    student: Student
    card: StudentCard


def read_students(folders: Sequence[Path], benchmark: PartBenchmark, device: torch.device) -> dict[str, Taught]:
    """Students by category. Raises ValueError for a folder without one, and for students of another benchmark, of the same
    category, or with other parts."""
    students: dict[str, Taught] = {}
    for folder in folders:
        student, card = load(folder)
        if card.benchmark != benchmark.name:
            raise ValueError(f"{folder} is a student of {card.benchmark}'s {card.category}, and the benchmark is {benchmark.name}")
        if card.category in students:
            raise ValueError(
                f"{folder} and {students[card.category].folder} are both students of {card.category}: give one of them"
            )
        if card.config.parts != len(benchmark.parts[card.category]):
            raise ValueError(
                f"{folder} tells {card.config.parts} parts, and {card.category} has {len(benchmark.parts[card.category])}"
            )
        students[card.category] = Taught(folder, student.to(device), card)
    return students


def of_students(
    students: Mapping[str, Taught], *, seed: int, units: Path | None = None, steps: tuple[int, int] = (50, 50)
) -> Segmenter:
    """Students by category, each of which sees all points of a shape, as many at a time as it was taught by, in an order of `seed`.

    units: folder of the shapes' units, by which the student's head is taught anew for each shape, in `steps` of forward and of
    backward distillation (test-time alignment); a shape without units is asked as it is. None: not aligned.
    """
    cards = [one.card for one in students.values()]
    names = ", ".join(one.folder.absolute().name for one in students.values())
    names = names if len(students) <= MOST_NAMED else f"{len(students)} categories"
    on_test = ", chosen by the test set" if any(card.settled_by == "test" for card in cards) else ""

    def ask(id: str, category: str, shape: PartShape) -> Int64[np.ndarray, " n"]:
        student, card = students[category].student, students[category].card
        own = units_of(units, id, shape) if units else None
        if own and len(own.part):
            student = align(student, own, card.settings, *steps)
        return parts_of(student, shape.xyz, card.settings.points, seed)

    return Segmenter(
        kind="aligned" if units else "student",
        name=f"PartDistill student ({names}){', aligned at the test' if units else ''}{on_test}",
        categories=frozenset(students),
        ask=ask,
        teacher=", ".join(sorted({card.teacher or "not told" for card in cards})),
        trained_on=f"units of {', '.join(f'{len(card.shapes):,} shapes of {card.category}' for card in cards)}",
        taught_by=frozenset(id for card in cards for id in card.shapes),
        settings={
            "points": "all of a shape, as many at a time as taught the student",
            "encoder": ", ".join(sorted({card.encoder or "chance" for card in cards})),
            "settled by": ", ".join(sorted({card.settled_by for card in cards})),
            "seed": seed,
        }
        | ({"align steps": list(steps)} if units else {}),
    )


def of_units(folder: Path, benchmark: PartBenchmark) -> Segmenter:
    """What the teacher alone says: of all units that cover a point the part with the largest sum of scores; none where none does.
    Raises ValueError for a folder without units of the benchmark's shapes."""
    there = frozenset(name for name, place in benchmark.folder.items() if (folder / place).is_dir())
    if not there & {category for _, category in benchmark.shapes}:
        raise ValueError(f"{folder} has no folder of a category of {benchmark.name}, <folder>/<id>/extracted/preprocess.h5")

    def ask(id: str, category: str, shape: PartShape) -> Int64[np.ndarray, " n"] | None:
        own = units_of(folder, id, shape)
        if own is None:
            return None
        votes = knowledge.integrated(own, len(benchmark.parts[category]))[_nearest(own.xyz, shape.xyz)[1]]
        return np.where(votes.any(axis=1), votes.argmax(axis=1), NO_PART)

    return Segmenter(
        kind="units",
        name="units alone",
        categories=there,
        ask=ask,
        trained_on="nothing",
        taught_by=frozenset(),
        settings={"points": "all; those that no unit covers are of no part"},
    )


def units_of(folder: Path, id: str, shape: PartShape) -> knowledge.Units | None:
    """The units of a shape; None: it has no file. Raises ObjectError: units_unreadable, units_elsewhere (of another shape, or of
    points in another frame)."""
    file = folder / id / "extracted" / "preprocess.h5"
    if not file.is_file():
        return None
    try:
        own = knowledge.read(file)
    except ValueError as error:
        raise ObjectError("units_unreadable", str(error)) from error
    away = float(np.median(_nearest(own.xyz, shape.xyz)[0]))
    if away > ELSEWHERE:
        raise ObjectError("units_elsewhere", f"{file}: its points are not those of the shape, half of them are off by {away:.2f}")
    return own


def _nearest(there: np.ndarray, here: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each point here the nearest one there, both in the box of their shape: how far away, and its number."""
    there, here = (prepared(torch.from_numpy(one)[None], None, None, INPUT)[0][0].numpy() for one in (there, here))
    return cKDTree(there).query(here)


def of_predictions(file: Path, benchmark: PartBenchmark) -> Segmenter:
    """Predictions in an .npz: for each shape, by its id, the part of each point in the file's order, numbered as the benchmark's
    files number parts. Raises ValueError for another file, and for shapes that the benchmark does not have."""
    category_of = dict(benchmark.shapes)
    try:
        stored = np.load(file, allow_pickle=False)
        ids = list(stored.keys())
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is no .npz of arrays: {error}") from error
    known = category_of.keys() | set(benchmark.missing)
    if unknown := [id for id in ids if id not in known]:
        raise ValueError(
            f"{file}: {benchmark.name} has no shape {unknown[0]} ({len(unknown):,} such); its shapes are called like "
            f"{benchmark.shapes[0][0]}"
        )

    def ask(id: str, category: str, shape: PartShape) -> Int64[np.ndarray, " n"] | None:
        if id not in stored:
            return None
        part = stored[id]
        if part.shape != shape.part.shape or part.dtype.kind not in "iu":
            wanted = f"must be {shape.part.shape} whole numbers, one per point"
            raise ObjectError("prediction_differs", f"{file}: {id} is {part.shape} of {part.dtype}, {wanted}")
        return np.where(part == NO_PART, NO_PART, part.astype(np.int64) - benchmark.first[category])

    return Segmenter(
        kind="predictions",
        name=file.stem,
        categories=frozenset(category_of[id] for id in ids if id in category_of),
        ask=ask,
        settings={"predictions": file.name},
    )
