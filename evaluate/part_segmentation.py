"""Part segmentation of ShapeNetPart: mean intersection over union, per shape, per category and overall.

Yi et al., "A Scalable Active Framework for Region Annotation in 3D Shape Collections" (SIGGRAPH Asia 2016) made the labels; the
rules are PartDistill's (Umam et al., CVPR 2024), which are those of PointNet. All figures are shares, 0..1.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int


@dataclass(frozen=True)
class Category:
    """A category of ShapeNetPart. `synset`: its folder. `first`: the number of its first part among the 50 of all; `parts`: how
    many it has, whether or not a prompt stands for each (PartDistill's prompts for lamps name two of four)."""

    synset: str
    first: int
    parts: int


CATEGORIES = {
    "airplane": Category("02691156", 0, 4),
    "bag": Category("02773838", 4, 2),
    "cap": Category("02954340", 6, 2),
    "car": Category("02958343", 8, 4),
    "chair": Category("03001627", 12, 4),
    "earphone": Category("03261776", 16, 3),
    "guitar": Category("03467517", 19, 3),
    "knife": Category("03624134", 22, 2),
    "lamp": Category("03636649", 24, 4),
    "laptop": Category("03642806", 28, 2),
    "motorbike": Category("03790512", 30, 6),
    "mug": Category("03797390", 36, 2),
    "pistol": Category("03948459", 38, 3),
    "rocket": Category("04099429", 41, 3),
    "skateboard": Category("04225987", 44, 3),
    "table": Category("04379243", 47, 3),
}


@dataclass(frozen=True)
class PartSegmentation:
    """`shapes`: how many there were of each category. `categories`: mean over a category's shapes. `overall`: mean over categories,
    what PartDistill reports; `instances`: mean over all shapes."""

    shapes: dict[str, int]
    categories: dict[str, float]
    overall: float
    instances: float


def part_ious(predicted: Int[np.ndarray, " n"], truth: Int[np.ndarray, " n"], parts: int) -> Float64[np.ndarray, " {parts}"]:
    """Intersection over union of each part of a shape. A part that is neither there nor predicted has 1: nothing is wrong with it.

    Both are numbers within the category, 0.. . Raises ValueError for a true part that the category does not have; a predicted one
    that it does not have is merely wrong.
    """
    if not ((0 <= truth) & (truth < parts)).all():
        raise ValueError(
            f"true parts run from {truth.min()} to {truth.max()}, the category has {parts}: subtract the number of its first part"
        )
    number = np.arange(parts)[:, None]
    both = ((predicted == number) & (truth == number)).sum(axis=1)
    either = ((predicted == number) | (truth == number)).sum(axis=1)
    return np.where(either, both / np.maximum(either, 1), 1.0)


def part_segmentation(
    shapes: Iterable[tuple[str, Int[np.ndarray, " n"], Int[np.ndarray, " n"]]],
) -> PartSegmentation:
    """The figures of shapes, each given as its category, its predicted and its true parts, as in `part_ious`."""
    ious: dict[str, list[float]] = {}
    for category, predicted, truth in shapes:
        ious.setdefault(category, []).append(float(part_ious(predicted, truth, CATEGORIES[category].parts).mean()))
    means = {category: float(np.mean(ious[category])) for category in sorted(ious)}
    return PartSegmentation(
        shapes={category: len(ious[category]) for category in means},
        categories=means,
        overall=float(np.mean(list(means.values()))),
        instances=float(np.mean([iou for of_category in ious.values() for iou in of_category])),
    )
