"""ShapeNetPart from its official files, shapenetcore_partanno_segmentation_benchmark_v0_normal (Yi et al., SIGGRAPH Asia 2016):

<synset>/<id>.txt                                              a line per point: x y z nx ny nz part, parts numbered 0..49 over all
train_test_split/shuffled_{train,val,test}_file_list.json      ["shape_data/<synset>/<id>", ...]
"""

import json
from pathlib import Path
from typing import Literal

import numpy as np

from evaluate.part_segmentation import CATEGORIES, Category, PartBenchmark, PartShape
from pipeline.stage import ObjectError

LISTS = "train_test_split"
COLUMNS = 7  # of a line


def shapenetpart(place: str, *, part: Literal["test", "val", "train"] = "test") -> PartBenchmark:
    """The shapes of one of its lists, called "<synset>/<id>".

    place: the folder with the synsets' folders, or the one that holds it. Raises ValueError when it is not that.
    """
    root = _root(Path(place))
    file = root / LISTS / f"shuffled_{part}_file_list.json"
    if not file.is_file():
        raise ValueError(f"{root} has no {file.relative_to(root)}, which says what the {part} shapes are: fetch it with the shapes")
    of_synset = {category.synset: name for name, category in CATEGORIES.items()}
    listed = listed_shapes(file)
    if unknown := sorted({synset for synset, _ in listed} - of_synset.keys()):
        raise ValueError(f"{file} has shapes of {', '.join(unknown[:3])}, which is no category of ShapeNetPart")
    shapes = [(f"{synset}/{shape}", of_synset[synset]) for synset, shape in listed]
    here = [(id, category) for id, category in shapes if (root / f"{id}.txt").is_file()]
    if not here:
        raise ValueError(f"{root} has none of the {len(shapes):,} {part} shapes of its list: unpack the synsets' folders there")
    return PartBenchmark(
        name="shapenetpart",
        variant=f"{part} list",
        rule="absent is right",
        parts={
            name: tuple(f"part {number}" for number in range(one.first, one.first + one.parts)) for name, one in CATEGORIES.items()
        },
        first={name: category.first for name, category in CATEGORIES.items()},
        folder={name: category.synset for name, category in CATEGORIES.items()},
        shapes=tuple(here),
        missing=tuple(sorted({id for id, _ in shapes} - {id for id, _ in here})),
        read=lambda number: read_shape(root / f"{here[number][0]}.txt", here[number][1]),
    )


def listed_shapes(file: Path) -> list[tuple[str, str]]:
    """Synset and id of each shape in a list. Raises ValueError for a file that is none."""
    try:
        return [tuple(entry.split("/")[-2:]) for entry in json.loads(file.read_text())]
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f'{file} is no list of shapes, ["shape_data/<synset>/<id>", …]: {error}') from error


def read_shape(file: Path, category: str) -> PartShape:
    """A shape's points and parts. Raises ObjectError: parse_error, non_finite_geometry, label_out_of_range."""
    try:
        with file.open() as lines:
            table = np.loadtxt(lines, dtype=np.float64, ndmin=2)
    except ValueError as error:
        raise ObjectError("parse_error", f"{file} is no table of numbers ({error}): get it again") from error
    if table.shape[1] != COLUMNS or not len(table):
        found = f"{len(table):,} lines of {table.shape[1]} columns" if len(table) else "no lines"
        raise ObjectError("parse_error", f"{file} has {found}, must have {COLUMNS}: x y z nx ny nz part")
    xyz, number = table[:, :3], table[:, -1]
    if bad := int((~np.isfinite(xyz)).any(axis=1).sum()):
        raise ObjectError("non_finite_geometry", f"{file}: {bad:,} of {len(xyz):,} points have no place (NaN or infinite)")
    _check(file, number, category, CATEGORIES[category])
    return PartShape(xyz.astype(np.float32), number.astype(np.int64) - CATEGORIES[category].first)


def _check(file: Path, number: np.ndarray, name: str, category: Category) -> None:
    last = category.first + category.parts - 1
    wrong = ~((category.first <= number) & (number <= last) & (number == np.round(number)))
    if wrong.any():
        raise ObjectError(
            "label_out_of_range",
            f"{file}: {int(wrong.sum()):,} points have parts such as {number[wrong][0]:g}; those of {name} are {category.first} to "
            f"{last}",
        )


def _root(place: Path) -> Path:
    if not place.is_dir():
        raise ValueError(f"there is no folder {place}")
    below = sorted(path.parent for path in place.glob(f"*/{LISTS}"))
    root = place if (place / LISTS).is_dir() or not below else below[0]
    if not any((root / category.synset).is_dir() for category in CATEGORIES.values()):
        raise ValueError(
            f"{place} holds no ShapeNetPart: give the folder with 02691156, 02773838, … and {LISTS} in it "
            "(shapenetcore_partanno_segmentation_benchmark_v0_normal)"
        )
    return root
