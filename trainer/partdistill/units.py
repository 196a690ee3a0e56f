"""Knowledge units: what a vision-language model says of a shape's points. Read from the released format, or made here from boxes or
from maps of probabilities over the views of a corpus.

A unit is a part, and for each point it covers how sure the model is of that part there (Umam et al., "PartDistill", CVPR 2024,
section 3.2). How views and points hang together is in the table MAPS: which points a view sees, and in which pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Int64
from scipy import ndimage
from torch import Tensor

from schemas.maps import at_points, depth_of

# Pixels that touch at a corner are one component: a lamp's slanted rod is one part, not a flight of stairs.
NEIGHBOURING = np.ones((3, 3))


@dataclass(frozen=True)
class Units:
    """The units of one shape. `xyz` (n, 3): its points, in any frame of +y up. `part` (d,): what each unit says, 0.. within the
    category. `score` (n, d): how sure it is at each point, 0..1; 0: the unit does not cover the point."""

    xyz: Float32[np.ndarray, "n 3"]
    part: Int64[np.ndarray, " d"]
    score: Float32[np.ndarray, "n d"]


@dataclass(frozen=True)
class Batch:
    """Units of several shapes with as many points each; a shape that has fewer units than another is filled up with such that cover
    nothing."""

    xyz: Float[Tensor, "b n 3"]
    part: Int[Tensor, "b d"]
    score: Float[Tensor, "b n d"]

    @property
    def covered(self) -> Bool[Tensor, "b n d"]:
        """Which points each unit says something of."""
        return self.score > 0

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return Batch(self.xyz.to(device), self.part.to(device), self.score.to(device))


def collated(shapes: Sequence[Units]) -> Batch:
    """A batch of shapes that have the same number of points."""
    most = max(len(shape.part) for shape in shapes)
    missing = [most - len(shape.part) for shape in shapes]
    return Batch(
        torch.from_numpy(np.stack([shape.xyz for shape in shapes])),
        torch.from_numpy(np.stack([np.pad(shape.part, (0, gap)) for shape, gap in zip(shapes, missing, strict=True)])),
        torch.from_numpy(np.stack([np.pad(shape.score, ((0, 0), (0, gap))) for shape, gap in zip(shapes, missing, strict=True)])),
    )


def integrated(units: Units, parts: int) -> Float32[np.ndarray, "n {parts}"]:
    """The teacher's own answer, all views together: the sum of the scores for each part. A point that no unit covers has zeros."""
    return units.score @ np.eye(parts, dtype=np.float32)[units.part]


# The released format


def read(file: Path) -> Units:
    """The units in a preprocess.h5 of the released code. A shape without predictions has none, and is nothing to learn from.

    Raises ValueError for a file that is not one, or holds what is no number.
    """
    xyz, part, probability = _stored(file, "xyz", "cls_bbox", "conf_bbox")
    part = part.reshape(-1).astype(np.int64)
    if len(part) and probability.shape[:2] != (len(xyz), len(part)):
        raise ValueError(f"{file}: conf_bbox is {probability.shape}, and there are {len(xyz):,} points and {len(part)} units")
    score = probability.max(axis=2) if len(part) else np.zeros((len(xyz), 0))
    if not np.isfinite(xyz).all() or not np.isfinite(score).all():
        raise ValueError(f"{file} has points or scores that are no numbers: make its units again")
    return Units(xyz.astype(np.float32), part, score.astype(np.float32))


def labels(file: Path, first: int) -> Int64[np.ndarray, " n"]:
    """The true parts in a preprocess.h5, 0.. within the category. first: the number, among all of ShapeNetPart's parts, of the
    category's first. Only who evaluates asks for them."""
    return _stored(file, "gt_semantic_seg")[0].astype(np.int64) - first


def _stored(file: Path, *names: str) -> list[np.ndarray]:
    try:
        with h5py.File(file) as stored:
            return [stored[name][()] for name in names]
    except (OSError, KeyError) as error:
        raise ValueError(f"{file} cannot be read as units, in PartDistill's form ({error})") from error


def listed(folder: Path, entries: Sequence[str], synset: str) -> list[Path]:
    """The preprocess.h5 files, below `folder`, of a category's shapes in one of ShapeNetPart's lists ("shape_data/<synset>/<id>").

    Raises ValueError when one is not there.
    """
    ours = [entry.split("/")[-2:] for entry in entries]
    files = [folder / synset / model / "extracted" / "preprocess.h5" for group, model in ours if group == synset]
    if missing := [file for file in files if not file.is_file()]:
        raise ValueError(
            f"{len(missing)} of {len(files)} shapes of {synset} have no units, the first {missing[0]}: make them first"
        )
    return files


# Units made from views


@dataclass(frozen=True)
class Box:
    """What a detector found in a view. `edges`: left, top, right, bottom in pixels, (0, 0) being the picture's top left corner; a
    pixel is in the box when its centre is."""

    view: int
    edges: tuple[float, float, float, float]
    part: int
    score: float


def of_boxes(xyz: Float[np.ndarray, "n 3"], views: Sequence[Mapping[str, Any]], boxes: Sequence[Box]) -> Units:
    """A unit per box: the points that its view sees in it. Boxes in which there are none make no unit.

    views: the shape's rows of MAPS; xyz: its points, in the order of POINTS.
    """
    rows = {row["view"]: row for row in views}
    part, scores = [], []
    for box in boxes:
        row = rows[box.view]
        down, across = np.divmod(np.asarray(row["pixels"], np.int64), row["width"])
        left, top, right, bottom = box.edges
        inside = (left <= across + 0.5) & (across + 0.5 < right) & (top <= down + 0.5) & (down + 0.5 < bottom)
        part.append(box.part)
        scores.append(_spread(len(xyz), row, np.where(inside, np.float32(box.score), np.float32(0))))
    return _units(xyz, part, scores)


def of_probabilities(
    xyz: Float[np.ndarray, "n 3"], views: Sequence[Mapping[str, Any]], maps: Mapping[int, Float[np.ndarray, "h w r"]]
) -> Units:
    """A unit per connected patch of pixels, on the object, whose likeliest part is the same: the points that the view sees in it.

    maps: by view number, the probability of each part at each pixel. A point's score is the probability at its pixel; one whose
    pixel's centre just misses the object is in no patch.
    """
    part, scores = [], []
    for row in views:
        if row["view"] not in maps:
            continue
        probability = maps[row["view"]]
        likeliest, sure = probability.argmax(axis=2), at_points(row, probability.max(axis=2)).astype(np.float32)
        on_object = np.isfinite(depth_of(row))
        for number in range(probability.shape[2]):
            patches, found = ndimage.label((likeliest == number) & on_object, NEIGHBOURING)
            patch = at_points(row, patches)
            for one in range(1, found + 1):
                part.append(number)
                scores.append(_spread(len(xyz), row, np.where(patch == one, sure, np.float32(0))))
    return _units(xyz, part, scores)


def _spread(points: int, row: Mapping[str, Any], of_seen: Float32[np.ndarray, " m"]) -> Float32[np.ndarray, " {points}"]:
    """Scores of the points that a view sees, among all points."""
    score = np.zeros(points, np.float32)
    score[np.asarray(row["seen"], np.int64)] = of_seen
    return score


def _units(xyz: Float[np.ndarray, "n 3"], part: list[int], scores: list[Float32[np.ndarray, " n"]]) -> Units:
    """The units that cover a point at all."""
    score = np.stack(scores, axis=1) if scores else np.zeros((len(xyz), 0), np.float32)
    speak = (score > 0).any(axis=0)
    return Units(np.asarray(xyz, np.float32), np.array(part, np.int64)[speak], score[:, speak])
