"""PartNetE from PartSLIP's files (Liu et al., CVPR 2023; https://huggingface.co/datasets/minghua/PartSLIP):

PartNetE_meta.json                             {category: [its parts' names]}
data/<set>/<category>/<id>/pc.ply              points
data/<set>/<category>/<id>/label.npy           {"semantic_seg": part of each point, -1: none, "instance_seg": ...}, pickled
split/test.txt                                 <category>/<id> a line; may be absent, then what lies there counts
"""

import json
from pathlib import Path
from typing import Literal

import numpy as np

from evaluate.part_segmentation import NO_PART, PartBenchmark, PartShape
from pipeline.imports.pickled import load_pickled, plain
from pipeline.photos.clouds import read_cloud
from pipeline.stage import ObjectError

META = "PartNetE_meta.json"
LISTS = {"test": "test.txt", "few_shot": "few-shot.txt"}


def partnete(place: str, *, part: Literal["test", "few_shot"] = "test") -> PartBenchmark:
    """The shapes of its test set or of the eight per category for few shots, called "<category>/<id>".

    Raises ValueError for a folder that holds no PartNetE.
    """
    root = Path(place)
    parts = part_names(root / META)
    data, list_file = root / "data" / part, root / "split" / LISTS[part]
    there = sorted(f"{path.parent.parent.name}/{path.parent.name}" for path in data.glob("*/*/pc.ply"))
    listed = list_file.read_text().split() if list_file.is_file() else there
    shapes = [(entry, entry.split("/")[0]) for entry in ("/".join(line.split("/")[-2:]) for line in listed)]
    if unknown := sorted({category for _, category in shapes} - parts.keys()):
        raise ValueError(f"{root} has shapes of {', '.join(unknown[:3])}, which {META} does not know")
    here = [(id, category) for id, category in shapes if id in set(there)]
    if not here:
        raise ValueError(f"{data} has no shapes (CATEGORY/ID/pc.ply and label.npy): unpack PartSLIP's data there")
    return PartBenchmark(
        name="partnete",
        variant=f"{part} set",
        rule="absent is left out",
        parts=parts,
        first=dict.fromkeys(parts, 0),
        folder={category: category for category in parts},
        shapes=tuple(here),
        missing=tuple(sorted({id for id, _ in shapes} - {id for id, _ in here})),
        read=lambda number: read_shape(data / here[number][0], parts[here[number][1]]),
    )


def part_names(file: Path) -> dict[str, tuple[str, ...]]:
    """What PartNetE_meta.json says: names of each category's parts. Raises ValueError for a file that is not that."""
    try:
        told = json.loads(file.read_text())
        return {category: tuple(names) for category, names in told.items()}
    except FileNotFoundError:
        raise ValueError(f"there is no {file}: give the folder of PartSLIP's files, with {META} in it") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{file} is not PartSLIP's {META}: {error}") from error


def read_shape(folder: Path, parts: tuple[str, ...]) -> PartShape:
    """A shape's points and parts. Raises ObjectError: cloud_unreadable, no_points, non_finite_geometry, of the points; not_npy,
    unsafe_pickle, unreadable, label_out_of_range, of the labels."""
    cloud, file = read_cloud(folder / "pc.ply"), folder / "label.npy"
    if cloud.count != len(cloud.xyz):
        bad = cloud.count - len(cloud.xyz)
        raise ObjectError("non_finite_geometry", f"{folder}: {bad:,} of {cloud.count:,} points have no place (NaN or infinite)")
    if not file.is_file():
        raise ObjectError("unreadable", f"{folder} has points and no label.npy: get it again")
    told = load_pickled(file, file.read_bytes())
    part = plain(told.get("semantic_seg")) if isinstance(told, dict) else None
    if not isinstance(part, np.ndarray) or part.dtype.kind not in "iu" or part.shape != (cloud.count,):
        found = f"an array {part.shape} of {part.dtype}" if isinstance(part, np.ndarray) else "none"
        raise ObjectError("unreadable", f"{file}: its semantic_seg is {found}, must be {cloud.count:,} whole numbers")
    wrong = (part < NO_PART) | (part >= len(parts))
    if wrong.any():
        raise ObjectError(
            "label_out_of_range",
            f"{file}: {int(wrong.sum()):,} points have parts such as {part[wrong][0]}; there are 0 to {len(parts) - 1} "
            f"({', '.join(parts)}), and -1 for none",
        )
    return PartShape(cloud.xyz.astype(np.float32), part.astype(np.int64))
