"""Distillation: units of unlabelled shapes teach a student, first as the teacher scored them (forward), then as the student agrees
with them (backward). Over a collection (pre-alignment) or on one shape (test-time alignment).

Nothing here sees a true part, unless a figure is given that does: the released code chose by the labels of the test set which
student to go on with and which to report. It also stayed in evaluation mode after the first epoch, and it re-scored units by what a
student said of points that were not normalised, when it had been trained on such as were; neither is here.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from trainer.chance import Stream, normal, permutation, uniform
from trainer.clouds import prepared
from trainer.partdistill.losses import ClassWeights, Form, class_weights, distillation, rescored
from trainer.partdistill.student import INPUT, Student
from trainer.partdistill.units import Batch, Units, collated


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What training does to prepared points, in this order: for each axis one factor, up to `scale` from 1, and one shift of up to
    `shift`; and every coordinate moved by a normal number of deviation `jitter`, at most `most`."""

    scale: float = 0.1
    shift: float = 0.1
    jitter: float = 0.01
    most: float = 0.02


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a student is taught. `points` of each shape in each epoch; `rate`, of Adam, falls along a cosine, epoch by epoch, to
    `last_rate` of itself.

    `backward`, when backward distillation starts, told from the mean loss of the last `window` epochs: "change", the released code:
    when from one epoch to the next it moves by less than `threshold`; "level", the paper: when it is less than `threshold`; or
    "never". The level depends on the form of the loss, on the number of units and on how sure the teacher is; the change does not
    nearly as much, and so it is the default.
    """

    form: Form = "per point"
    weights: ClassWeights = "log"
    points: int = INPUT.points
    epochs: int = 25
    batch: int = 16
    rate: float = 0.003
    last_rate: float = 0.01
    augment: Augment = Augment()
    backward: Literal["change", "level", "never"] = "change"
    threshold: float = 0.01
    window: int = 5


RELEASED = Settings()
PAPER = replace(RELEASED, form="per unit", weights="effective number", rate=0.001, backward="level")


@dataclass(frozen=True)
class Epoch:
    """What is left of an epoch: its mean loss, whether it was one of backward distillation, the learning rate, and the figure of
    the student after it (None: it is not judged)."""

    loss: float
    backward: bool
    rate: float
    figure: float | None


class Distillation:
    """Pre-alignment while it goes on, an epoch at a time: the head of `student` is taught the units of a category's shapes. Shapes
    without units are left out.

    Units are re-scored once, when backward distillation starts, from all points of each shape. The student keeps its device, and
    its mode.

    `figure`: what the student is judged by after each epoch, the larger the better. With it, backward distillation starts from the
    best student so far and re-scores with that one, and `best` is what is left in the end: the released code, whose figure is the
    mIoU of the test set by its true parts. None, which asks for no true part: the last student is the result.

    Raises ValueError where no shape has units.
    """

    def __init__(
        self,
        student: Student,
        shapes: Sequence[Units],
        settings: Settings,
        chance: torch.Generator,
        figure: Callable[[Student], float] | None = None,
    ):
        self.shapes = [shape for shape in shapes if len(shape.part)]
        if not self.shapes:
            raise ValueError("no shape has units: the teacher found nothing, there is nothing to learn")
        self.student, self.settings, self.chance, self.figure = student, settings, chance, figure
        self.optimizer = torch.optim.Adam(student.head_parameters(), lr=settings.rate)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimizer, settings.epochs, settings.rate * settings.last_rate
        )
        self.done: list[Epoch] = []
        self.beliefs: list[Float[Tensor, " _d"]] | None = None
        self.best: tuple[float, dict[str, Tensor]] | None = None

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return len(self.done) >= self.settings.epochs

    def epoch(self) -> Epoch:
        """Teach all shapes once."""
        student, settings = self.student, self.settings
        mode, device = student.training, student.fc4.weight.device
        if self.beliefs is None and turns([epoch.loss for epoch in self.done], settings):
            self.take_best()
            self.beliefs = [believed(student, shape) for shape in self.shapes]
        student.train()
        order = torch.randperm(len(self.shapes), generator=self.chance).tolist()
        losses = []
        for first in range(0, len(order), settings.batch):
            chosen = order[first : first + settings.batch]
            seeds = torch.randint(2**62, (len(chosen),), generator=self.chance)
            drawn = [some_points(self.shapes[one], settings.points, seed) for one, seed in zip(chosen, seeds.split(1), strict=True)]
            units = collated(drawn).to(device)
            beliefs = self.beliefs
            score = units.score if beliefs is None else pad_sequence([beliefs[one] for one in chosen], True).unsqueeze(1)
            xyz = augmented(_prepared(units.xyz), seeds.to(device), settings.augment)
            loss = _loss(student(xyz), units, score, settings)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach() * len(chosen))
        rate = self.schedule.get_last_lr()[0]
        self.schedule.step()
        told = Epoch(float(torch.stack(losses).sum() / len(self.shapes)), self.beliefs is not None, rate, self._judged())
        self.done.append(told)
        student.train(mode)
        return told

    def take_best(self) -> None:
        """Give the student the head that was judged the best, if any was judged."""
        if self.best:
            self.student.load_state_dict(self.best[1], strict=False)

    def state(self) -> dict[str, Any]:
        """All that going on needs, but the student's encoder, which never changes."""
        return {
            "head": _head(self.student),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "chance": self.chance.get_state(),
            "done": [asdict(epoch) for epoch in self.done],
            "beliefs": self.beliefs,
            "best": self.best,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave, with the same encoder, shapes and settings."""
        device = self.student.fc4.weight.device
        self.student.load_state_dict(state["head"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.chance.set_state(state["chance"])
        self.done = [Epoch(**epoch) for epoch in state["done"]]
        self.beliefs = state["beliefs"] and [belief.to(device) for belief in state["beliefs"]]
        self.best = state["best"]

    def _judged(self) -> float | None:
        if self.figure is None:
            return None
        figure = self.figure(self.student)
        if self.best is None or figure > self.best[0]:
            self.best = (figure, {name: value.clone() for name, value in _head(self.student).items()})
        return figure


def distill(
    student: Student,
    shapes: Sequence[Units],
    settings: Settings,
    chance: torch.Generator,
    after_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """All epochs of a Distillation that asks for no true part."""
    distillation = Distillation(student, shapes, settings, chance)
    while not distillation.finished:
        after_epoch(distillation.epoch())
    return distillation.done


def align(student: Student, shape: Units, settings: Settings, forward_steps: int = 50, backward_steps: int = 50) -> Student:
    """A copy of the student that has been taught the units of one shape (test-time alignment): its head alone, on all points of the
    shape as they are, so that the encoder runs once and nothing is left to chance.

    The paper says neither how many steps there are nor when backward distillation starts; both are given here. Raises ValueError
    for a shape without units.
    """
    if not len(shape.part):
        raise ValueError("the shape has no units: the teacher found nothing, there is nothing to learn")
    aligned = copy.deepcopy(student)
    units = collated([shape]).to(student.fc4.weight.device)
    features = aligned.features(_prepared(units.xyz))
    optimizer = torch.optim.Adam(aligned.head_parameters(), lr=settings.rate)
    score = units.score
    for step in range(forward_steps + backward_steps):
        logits = aligned.head(features)
        if step == forward_steps:
            score = _believed(logits, units).unsqueeze(1)
        loss = _loss(logits, units, score, settings)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return aligned


def logits_of(student: Student, xyz: Float32[np.ndarray, "n 3"]) -> Float[Tensor, "n r"]:
    """What the student says of each point of a shape, prepared as in training; its mode is left as it was."""
    mode = student.training
    student.eval()
    with torch.no_grad():
        logits = student(_prepared(torch.from_numpy(xyz)[None].to(student.fc4.weight.device)))[0]
    student.train(mode)
    return logits


def parts_of(student: Student, xyz: Float32[np.ndarray, "n 3"], points: int, seed: int, batch: int = 8) -> Int64[np.ndarray, " n"]:
    """The likeliest part of each point of a shape, which the student sees `points` at a time, as many as it was trained with, since
    what a neighbourhood is depends on how dense the points are: in random order, the last pass filled up from the beginning."""
    order = permutation(torch.tensor([seed]), Stream.SHUFFLE, len(xyz))[0].numpy()
    passes = -(-len(xyz) // points)
    order = np.resize(order, passes * points)
    cloud = _prepared(torch.from_numpy(xyz)[None].to(student.fc4.weight.device))[0]
    mode = student.training
    student.eval()
    with torch.no_grad():
        chunks = torch.from_numpy(order.copy()).unflatten(0, (passes, points)).to(cloud.device).split(batch)
        told = torch.cat([student(cloud[some]).argmax(2) for some in chunks]).flatten().cpu().numpy()
    student.train(mode)
    part = np.empty(len(xyz), np.int64)
    part[order[: len(xyz)]] = told[: len(xyz)]
    return part


def believed(student: Student, shape: Units) -> Float[Tensor, " d"]:
    """How far the student agrees with each unit of the shape, on all of its points (eq. 4)."""
    units = collated([shape]).to(student.fc4.weight.device)
    return _believed(logits_of(student, shape.xyz)[None], units)[0]


def turns(losses: Sequence[float], settings: Settings) -> bool:
    """Whether backward distillation starts, after epochs of these losses."""
    if settings.backward == "never" or len(losses) < settings.window:
        return False
    average = fmean(losses[-settings.window :])
    if settings.backward == "level":
        return average < settings.threshold
    return len(losses) > settings.window and abs(average - fmean(losses[-settings.window - 1 : -1])) < settings.threshold


def some_points(shape: Units, count: int, seed: Int64[Tensor, "1"]) -> Units:
    """The shape with `count` of its points, in random order: none twice, or, where it has too few, each as often as the others but
    for what is left over."""
    points = np.resize(permutation(seed, Stream.SHUFFLE, len(shape.xyz))[0].numpy(), count)
    return replace(shape, xyz=shape.xyz[points], score=shape.score[points])


def augmented(xyz: Float[Tensor, "b n 3"], seeds: Int64[Tensor, " b"], augment: Augment) -> Float[Tensor, "b n 3"]:
    """Prepared points with all of `augment`; they are not prepared again."""
    scale = 1 + augment.scale * (2 * uniform(seeds, Stream.SCALE, 3) - 1)
    shift = augment.shift * (2 * uniform(seeds, Stream.SHIFT, 3) - 1)
    jitter = (augment.jitter * normal(seeds, Stream.JITTER, 3 * xyz.shape[1])).clamp(-augment.most, augment.most)
    return xyz * scale[:, None] + shift[:, None] + jitter.unflatten(1, (-1, 3))


def _head(student: Student) -> dict[str, Tensor]:
    return {name: value for name, value in student.state_dict().items() if not name.startswith("extractor.")}


def _prepared(xyz: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
    return prepared(xyz, None, None, INPUT)[0]


def _believed(logits: Float[Tensor, "b n r"], units: Batch) -> Float[Tensor, "b d"]:
    return rescored(logits.argmax(2), units.part, units.covered)


def _loss(logits: Float[Tensor, "b n r"], units: Batch, score: Float[Tensor, "b #n d"], settings: Settings) -> Float[Tensor, ""]:
    weights = class_weights(units.part, units.covered, logits.shape[2], settings.weights)
    return distillation(logits, units.part, units.covered, score, weights, settings.form)
