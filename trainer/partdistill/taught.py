"""Students on disk: what one is, and the run that makes one of a category's units (pre-alignment). The folder of a run holds

    run.json                          its settings
    log.jsonl, tensorboard/           loss, learning rate and figure of each epoch
    state.pt                          all that going on needs; written after each epoch, whole or not at all
    model.safetensors, config.json    the student, and its card; when all epochs are done

student, card = load("runs/chair")
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64
from safetensors.torch import save_file

from trainer.checkpoints import CONFIG, WEIGHTS, tensors
from trainer.logbook import Logbook
from trainer.partdistill import units
from trainer.partdistill.distill import Augment, Distillation, Settings, parts_of
from trainer.partdistill.student import Student, StudentConfig
from trainer.train import TrainingStopped, unseen

FORMAT = 1  # of config.json; a reader refuses a later one
KIND = "partdistill student"
RUN, STATE = "run.json", "state.pt"
SettledBy = Literal["nothing", "val", "test"]


@dataclass(frozen=True, kw_only=True)
class StudentCard:
    """A student's identity.

    `benchmark`, `category`: whose parts it tells apart, "shapenetpart" or "partnete" and a name there. `config`: sizes. `settings`:
    how it was taught, and by how many points it sees shapes. `encoder`: the file of its encoder's weights; None: they are chance.
    `teacher`: who made the units, in words; None: not told. `shapes`: ids of those it was taught by. `settled_by`: the list whose
    true parts chose which epoch's student this is; "test" leaks, "nothing" is the last. `epochs`: how many it was taught;
    `backward_from`: the first of backward distillation, from 1; None: it never began.
    """

    benchmark: str
    category: str
    config: StudentConfig
    settings: Settings
    encoder: str | None
    teacher: str | None
    shapes: tuple[str, ...]
    settled_by: SettledBy
    seed: int
    epochs: int
    backward_from: int | None


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Shapes with true parts that settle which epoch's student is kept. `figure`: of predicted and true parts of one shape, the
    larger the better, NaN for a shape that does not count; the student is judged by its mean."""

    by: SettledBy
    shapes: Sequence[tuple[np.ndarray, Int64[np.ndarray, " n"]]]
    figure: Callable[[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]], float]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Pre-alignment of one category. `out`: folder that keeps it. `shapes`: id and preprocess.h5 of each shape to be taught by. The
    rest as in StudentCard; `encoder`: a file, point_m2ae_pre-train.pth or what else Student.load_official takes."""

    out: Path
    benchmark: str
    category: str
    config: StudentConfig
    settings: Settings
    shapes: Sequence[tuple[str, Path]]
    encoder: Path | None = None
    teacher: str | None = None
    judge: Judge | None = None
    seed: int = 0
    device: torch.device = torch.device("cpu")

    def told(self) -> dict[str, Any]:
        """What may not change when the run goes on."""
        listed = hashlib.sha256("\n".join(id for id, _ in self.shapes).encode()).hexdigest()
        told = {
            "benchmark": self.benchmark,
            "category": self.category,
            "config": asdict(self.config),
            "settings": asdict(self.settings),
            "shapes": {"count": len(self.shapes), "sha256": listed},
            "encoder": self.encoder and self.encoder.name,
            "teacher": self.teacher,
            "settled_by": self.judge.by if self.judge else "nothing",
            "seed": self.seed,
        }
        return json.loads(json.dumps(told))


@dataclass(frozen=True)
class Taught:
    """What became of a run. `without_units`: shapes in which the teacher found nothing. `loss`: of the last epoch; `figure`: by
    which the student was settled, None: by nothing."""

    out: str
    shapes: int
    without_units: int
    units: int
    epochs: int
    backward_from: int | None
    loss: float
    figure: float | None
    seconds: float


def teach(run: Run, progress: Callable[..., AbstractContextManager[Any]] = unseen, say: Callable[[str], None] = print) -> Taught:
    """Teach a student, or go on after the last whole epoch, until all are done.

    Raises TrainingStopped for other settings than those the run was begun with, weights that do not fit, a loss that is no number;
    and where no shape has units.
    """
    began = time.monotonic()
    run.out.mkdir(parents=True, exist_ok=True)
    _check_settings(run)
    student = built(run.config, run.encoder, run.seed).to(run.device)
    read: list[units.Units] = []
    with progress("units", len(run.shapes), "shapes") as shown:
        for _, file in run.shapes:
            read.append(_read(file, run.config.parts))
            if shown:
                shown.update(done=len(read))
    figure = None
    if run.judge:
        judge = run.judge
        figure = lambda taught: mean_figure(taught, judge, run.settings.points, run.seed)  # noqa: E731
    chance = torch.Generator().manual_seed(run.seed)
    try:
        distillation = Distillation(student, read, run.settings, chance, figure)
    except ValueError as error:
        raise TrainingStopped(f"{run.category}: {error}") from error
    if (run.out / STATE).is_file():
        distillation.load(torch.load(run.out / STATE, map_location="cpu", weights_only=True))
        say(f"goes on after epoch {len(distillation.done)} of {run.settings.epochs}")
    log = Logbook(run.out, len(distillation.done), None, run.told())
    before = len(distillation.done)
    with progress("teach", run.settings.epochs - before, "epochs") as shown:
        while not distillation.finished:
            started = time.monotonic()
            epoch = distillation.epoch()
            done = len(distillation.done)
            if not math.isfinite(epoch.loss):
                raise TrainingStopped(
                    f"the loss of epoch {done} is {epoch.loss}: lower the learning rate (--rate), and begin again elsewhere (--out)"
                )
            figures = {"loss": epoch.loss, "lr": epoch.rate, "seconds": time.monotonic() - started}
            judged = {} if epoch.figure is None else {"figure": epoch.figure}
            log.write(done, figures | judged, backward=epoch.backward)
            _written(run.out / STATE, lambda part: torch.save(distillation.state(), part))
            if shown:
                shown.update(done=done - before)
    log.close()
    distillation.take_best()
    backward = next((number for number, epoch in enumerate(distillation.done, 1) if epoch.backward), None)
    card = StudentCard(
        benchmark=run.benchmark,
        category=run.category,
        config=run.config,
        settings=run.settings,
        encoder=run.encoder and run.encoder.name,
        teacher=run.teacher,
        shapes=tuple(id for (id, _), shape in zip(run.shapes, read, strict=True) if len(shape.part)),
        settled_by=run.judge.by if run.judge else "nothing",
        seed=run.seed,
        epochs=len(distillation.done),
        backward_from=backward,
    )
    save(run.out, student, card)
    return Taught(
        out=str(run.out),
        shapes=len(card.shapes),
        without_units=len(read) - len(card.shapes),
        units=sum(len(shape.part) for shape in read),
        epochs=card.epochs,
        backward_from=backward,
        loss=distillation.done[-1].loss,
        figure=distillation.best and distillation.best[0],
        seconds=time.monotonic() - began,
    )


def built(config: StudentConfig, encoder: Path | None, seed: int) -> Student:
    """A student whose head is chance, of `seed`, and so is its encoder unless a file of weights is given. Raises TrainingStopped
    for a file that does not fit."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = Student(config)
    if encoder is None:
        return student
    try:
        student.load_official(tensors(encoder))
    except (ValueError, RuntimeError) as error:
        raise TrainingStopped(f"{encoder} is not taken for the encoder: {' '.join(str(error).split())[:400]}") from error
    return student


def device_of(asked: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """ "auto" takes a GPU if there is one. Raises ValueError for "cuda" without one."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: this machine shows no GPU: --device cpu, or auto")
    return torch.device("cpu" if asked == "cpu" or not torch.cuda.is_available() else "cuda")


def mean_figure(student: Student, judge: Judge, points: int, seed: int) -> float:
    """The mean of a judge's figure over its shapes."""
    figures = [judge.figure(parts_of(student, xyz, points, seed), truth) for xyz, truth in judge.shapes]
    return float(np.nanmean(figures))


# ------------------------------------------------------------------------------------------------------------------------- on disk


def save(folder: Path, student: Student, card: StudentCard) -> None:
    """Write a student and its card into a folder, each file whole or not at all, the card last."""
    state = {name: value.detach().cpu().contiguous() for name, value in student.state_dict().items()}
    _written(folder / WEIGHTS, lambda part: save_file(state, part))
    told = json.dumps({"format": FORMAT, "kind": KIND} | asdict(card), indent=1, allow_nan=False)
    _written(folder / CONFIG, lambda part: part.write_text(told + "\n"))


def load(folder: str | Path) -> tuple[Student, StudentCard]:
    """A student, on the CPU and in evaluation mode, and its card. Raises ValueError, with a sentence, for a folder that holds none,
    or a damaged one."""
    path = Path(folder) / CONFIG
    try:
        told = json.loads(path.read_text())
    except FileNotFoundError:
        begun = "a run that is not done: the same command goes on with it" if (Path(folder) / RUN).is_file() else "no student"
        raise ValueError(f"{folder} holds {begun} (there is no {CONFIG})") from None
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): the student is damaged") from error
    if not isinstance(told, dict) or told.pop("kind", None) != KIND:
        raise ValueError(f"{path} is not the card of a PartDistill student, as `distill-parts` makes it")
    if told.pop("format") > FORMAT:
        raise ValueError(f"{path} was written by a later version of tricorpus: update it")
    try:
        config = StudentConfig(**{name: tuple(one) if isinstance(one, list) else one for name, one in told["config"].items()})
        settings = Settings(**told["settings"] | {"augment": Augment(**told["settings"]["augment"])})
        card = StudentCard(**told | {"config": config, "settings": settings, "shapes": tuple(told["shapes"])})
        student = Student(card.config)
        student.load_state_dict(tensors(Path(folder) / WEIGHTS))
    except (TypeError, KeyError, RuntimeError) as error:
        raise ValueError(f"{folder} holds no whole student ({' '.join(str(error).split())[:300]})") from error
    return student.eval(), card


def _read(file: Path, parts: int) -> units.Units:
    try:
        shape = units.read(file)
    except ValueError as error:
        raise TrainingStopped(str(error)) from error
    if len(shape.part) and not (0 <= shape.part.min() and shape.part.max() < parts):
        raise TrainingStopped(
            f"{file}: its units say parts {shape.part.min()} to {shape.part.max()}, and the category has {parts}, numbered from 0"
        )
    return shape


def _check_settings(run: Run) -> None:
    path, told = run.out / RUN, run.told()
    if not path.is_file():
        _written(path, lambda part: part.write_text(json.dumps(told, indent=1)))
        return
    before = json.loads(path.read_text())
    if different := [name for name in told if before.get(name) != told[name]]:
        raise TrainingStopped(
            f"{run.out} holds a run with other settings ({', '.join(different)}; see {RUN}): go on with those, or take another "
            "--out"
        )


def _written(path: Path, write: Callable[[Path], Any]) -> None:
    part = path.with_name(f"{path.name}.part")
    write(part)
    os.replace(part, path)
