"""Distillation: units of unlabelled shapes teach a student, first as the teacher scored them (forward), then as the student agrees
with them (backward). Over a collection (pre-alignment) or on one shape (test-time alignment).

Nothing here sees a true part. The released code chose by the labels of the test set which student to go on with and which to
report; it stayed in evaluation mode after the first epoch; and it re-scored units by what a student said of points that were not
normalised, when it had been trained on such as were. None of that is here.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

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
    """What is left of an epoch: its mean loss, and whether it was one of backward distillation."""

    loss: float
    backward: bool


def distill(
    student: Student,
    shapes: Sequence[Units],
    settings: Settings,
    chance: torch.Generator,
    after_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Teach the student's head the units of a category's shapes (pre-alignment). Shapes without units are left out.

    Units are re-scored once, when backward distillation starts, from all points of each shape. The student keeps its device, and
    its mode. Raises ValueError where no shape has units.
    """
    shapes = [shape for shape in shapes if len(shape.part)]
    if not shapes:
        raise ValueError("no shape has units: the teacher found nothing, there is nothing to learn")
    optimizer = torch.optim.Adam(student.head_parameters(), lr=settings.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs, settings.rate * settings.last_rate)
    mode, device = student.training, student.fc4.weight.device
    done: list[Epoch] = []
    beliefs: list[Float[Tensor, " _d"]] | None = None
    for _ in range(settings.epochs):
        if beliefs is None and turns([epoch.loss for epoch in done], settings):
            beliefs = [believed(student, shape) for shape in shapes]
        student.train()
        order = torch.randperm(len(shapes), generator=chance).tolist()
        losses = []
        for first in range(0, len(order), settings.batch):
            chosen = order[first : first + settings.batch]
            seeds = torch.randint(2**62, (len(chosen),), generator=chance)
            drawn = [some_points(shapes[one], settings.points, seed) for one, seed in zip(chosen, seeds.split(1), strict=True)]
            units = collated(drawn).to(device)
            score = units.score if beliefs is None else pad_sequence([beliefs[one] for one in chosen], True).unsqueeze(1)
            xyz = augmented(_prepared(units.xyz), seeds.to(device), settings.augment)
            loss = _loss(student(xyz), units, score, settings)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach() * len(chosen))
        schedule.step()
        done.append(Epoch(float(torch.stack(losses).sum() / len(shapes)), beliefs is not None))
        after_epoch(done[-1])
    student.train(mode)
    return done


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


def _prepared(xyz: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
    return prepared(xyz, None, None, INPUT)[0]


def _believed(logits: Float[Tensor, "b n r"], units: Batch) -> Float[Tensor, "b d"]:
    return rescored(logits.argmax(2), units.part, units.covered)


def _loss(logits: Float[Tensor, "b n r"], units: Batch, score: Float[Tensor, "b #n d"], settings: Settings) -> Float[Tensor, ""]:
    weights = class_weights(units.part, units.covered, logits.shape[2], settings.weights)
    return distillation(logits, units.part, units.covered, score, weights, settings.form)
