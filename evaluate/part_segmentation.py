"""Part segmentation: shapes whose points have true parts, and mean intersection over union, per shape, per category and overall.

ShapeNetPart's labels: Yi et al., "A Scalable Active Framework for Region Annotation in 3D Shape Collections" (SIGGRAPH Asia 2016);
PartNetE's: Liu et al., "PartSLIP" (CVPR 2023). Each has its own rule of which parts count. All figures are shares, 0..1.

Where the official files are read: evaluate/sets/shapenetpart.py, evaluate/sets/partnete.py.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int, Int64

# What a part counts in a shape that truly has none of it. "absent is right", ShapeNetPart's, of PointNet and PartDistill: 1 where
# it is not predicted either, 0 where it is. "absent is left out", PartNetE's, of PartSLIP: nothing, whether or not it is predicted.
Rule = Literal["absent is right", "absent is left out"]
NO_PART = -1


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
class PartShape:
    """Points of a shape, in the frame and unit of its file, and the true part of each, 0.. within the category; -1: none."""

    xyz: Float32[np.ndarray, "n 3"]
    part: Int64[np.ndarray, " n"]


@dataclass(frozen=True, kw_only=True)
class PartBenchmark:
    """Shapes to segment. `name`: shapenetpart or partnete; `variant`: which of its lists and forms, in words; `rule`: its own.

    `parts`: names of each category's parts. `first`: the number that the files give each category's first part. `shapes`: id and
    category of each, in the list's order; `missing`: ids that the list has and the files at hand do not. `read`: points and parts
    of shape i; raises ObjectError. `folder`: of each category, where the files of its shapes are: a synset, or its name.
    """

    name: str
    variant: str
    rule: Rule
    parts: Mapping[str, tuple[str, ...]]
    first: Mapping[str, int]
    folder: Mapping[str, str]
    shapes: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    read: Callable[[int], PartShape]


@dataclass(frozen=True)
class PartSegmentation:
    """`shapes`: how many there were of each category. `categories`: the mean over a category's parts of their means over its
    shapes, which for "absent is right" is also the mean over its shapes. `overall`: mean over categories, what PartDistill and
    PartSLIP report; `instances`: mean over all shapes. Parts that no shape of the category has are left out by "absent is left
    out"."""

    shapes: dict[str, int]
    categories: dict[str, float]
    overall: float
    instances: float


def part_ious(
    predicted: Int[np.ndarray, " n"], truth: Int[np.ndarray, " n"], parts: int, rule: Rule = "absent is right"
) -> Float64[np.ndarray, " {parts}"]:
    """Intersection over union of each part of a shape; NaN for a part that the rule leaves out.

    Both are numbers within the category, 0.. ; a point of no part has -1, truly so only in PartNetE, whose rule alone allows it:
    any part predicted there is wrong. Raises ValueError for a true part that the category does not have; a predicted one that it
    does not have is merely wrong.
    """
    least = 0 if rule == "absent is right" else NO_PART
    if not ((least <= truth) & (truth < parts)).all():
        raise ValueError(
            f"true parts run from {truth.min()} to {truth.max()}, the category has {parts}: subtract the number of its first part"
        )
    number = np.arange(parts)[:, None]
    both = ((predicted == number) & (truth == number)).sum(axis=1)
    either = ((predicted == number) | (truth == number)).sum(axis=1)
    ious = np.where(either, both / np.maximum(either, 1), 1.0)
    return ious if rule == "absent is right" else np.where((truth == number).any(axis=1), ious, np.nan)


def part_segmentation(
    shapes: Iterable[tuple[str, Int[np.ndarray, " n"], Int[np.ndarray, " n"]]],
    parts: Mapping[str, int] | None = None,
    rule: Rule = "absent is right",
) -> PartSegmentation:
    """The figures of shapes, each given as its category, its predicted and its true parts, as in `part_ious`.

    parts: how many each category has; None: ShapeNetPart's.
    """
    parts = {name: category.parts for name, category in CATEGORIES.items()} if parts is None else parts
    ious: dict[str, list[Float64[np.ndarray, " _r"]]] = {}
    for category, predicted, truth in shapes:
        ious.setdefault(category, []).append(part_ious(predicted, truth, parts[category], rule))
    return of_ious(ious)


def of_ious(ious: Mapping[str, Sequence[Float64[np.ndarray, " _r"]]]) -> PartSegmentation:
    """The figures of each category's shapes, from their `part_ious`."""
    of = {category: np.stack(ious[category]) for category in sorted(ious)}
    means = {category: _mean(_mean(table, axis=0)) for category, table in of.items()}
    return PartSegmentation(
        shapes={category: len(table) for category, table in of.items()},
        categories={category: float(mean) for category, mean in means.items()},
        overall=float(_mean(np.array(list(means.values())))),
        instances=float(_mean(np.concatenate([_mean(table, axis=1) for table in of.values()]))),
    )


def shape_iou(ious: Float64[np.ndarray, " r"]) -> float:
    """The mean over a shape's parts, given their `part_ious`; NaN: none of them counts."""
    return float(_mean(ious))


def _mean(values: Float64[np.ndarray, "*n"], axis: int | None = None) -> Float64[np.ndarray, "*m"] | np.float64:
    """Of those that count; NaN where none does."""
    counts = ~np.isnan(values)
    many = counts.sum(axis=axis)
    return np.where(many, np.where(counts, values, 0).sum(axis=axis) / np.maximum(many, 1), np.nan)
