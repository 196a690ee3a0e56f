"""Made lamps, a foot with a rod and a shade into which the rod goes, and what a bad detector makes of views of them: units."""

import json

import h5py
import numpy as np

from render.maps import encoded_depth
from trainer.partdistill.units import Box, of_boxes

PIXELS, BASE, SHADE = 24, 0, 1


def lamp(chance, points=400):
    """Points and parts of a lamp standing on the origin, of chance proportions."""
    height, shade, foot = chance.uniform(1.2, 2.0), chance.uniform(0.4, 0.7), chance.uniform(0.3, 0.5)
    around = chance.uniform(0, 2 * np.pi, points)
    part = np.repeat([BASE, BASE, SHADE], [points // 4, points // 4, points - 2 * (points // 4)])
    along = chance.uniform(0, 1, points)
    radius = np.select([np.arange(points) < points // 4, part == BASE], [foot * np.sqrt(along), 0.04], shade * (1 - along / 2))
    up = np.select([np.arange(points) < points // 4, part == BASE], [0.0, along * height * 0.9], height * (0.7 + 0.3 * along))
    xyz = np.stack([radius * np.cos(around), up, radius * np.sin(around)], axis=1).astype(np.float32)
    order = chance.permutation(points)
    return xyz[order], part[order]


def views_of(xyz, count=4):
    """Rows of MAPS of orthographic views from around; a view sees the nearest point in each pixel."""
    middle = (xyz.max(axis=0) + xyz.min(axis=0)) / 2
    size = 1.1 * np.abs(xyz - middle).max()
    for number in range(count):
        angle = np.pi * (2 * number + 1) / count
        across = (xyz - middle) @ [np.cos(angle), 0, -np.sin(angle)]
        toward = (xyz - middle) @ [np.sin(angle), 0, np.cos(angle)]
        column, row = (((one / size + 1) / 2 * PIXELS).astype(int) for one in (across, middle[1] - xyz[:, 1]))
        pixel = row * PIXELS + column
        nearest_first = np.argsort(-toward, kind="stable")
        seen = np.sort(nearest_first[np.unique(pixel[nearest_first], return_index=True)[1]])
        depth = np.full(PIXELS**2, np.nan)
        depth[pixel[seen]] = 10 - toward[seen]
        yield view_of(number, depth.reshape(PIXELS, PIXELS), seen, pixel[seen])


def boxes_of(views, part, chance, wrong=0.3):
    """What a detector makes of the views: the parts' boxes, with shaken edges; at times the shade is missed, or is a foot (`wrong`
    of them), and that it is surer of."""
    for view in views:
        down, across = np.divmod(np.asarray(view["pixels"]), PIXELS)
        for number in (BASE, SHADE):
            mine = part[view["seen"]] == number
            tight = across[mine].min(), down[mine].min(), across[mine].max() + 1, down[mine].max() + 1
            edges = tuple(float(edge) for edge in np.array(tight) + chance.normal(0, 0.7, 4))
            fate = chance.uniform()
            if number == SHADE and fate < wrong:
                yield Box(view["view"], edges, BASE, 0.95), False
            elif fate < 0.9:
                yield Box(view["view"], edges, number, float(chance.uniform(0.5, 0.8))), True


def taught_lamp(chance, wrong=0.3):
    """Units of a lamp, its true parts, and which of the units are good."""
    xyz, part = lamp(chance)
    views = list(views_of(xyz))
    boxes, good = zip(*boxes_of(views, part, chance, wrong), strict=True)
    units = of_boxes(xyz, views, boxes)
    assert len(units.part) == len(boxes)  # so that `good` is of the units
    return units, part, np.array(good)


def view_of(number, depth, seen, pixels):
    """A row of MAPS as far as units ask for it."""
    height, width = depth.shape
    row = {"view": number, "width": width, "height": height, "seen": seen, "pixels": pixels}
    return row | encoded_depth(depth.astype(np.float32), unit=1e-3)


def write_units(file, part, probability, truth, xyz=None):
    """A preprocess.h5 as the released code reads it."""
    file.parent.mkdir(parents=True)
    views, points = 10, len(probability)
    with h5py.File(file, "w") as stored:
        stored["xyz"] = np.arange(3.0 * points).reshape(points, 3) if xyz is None else xyz
        stored["cls_view"] = np.zeros((views, points, len(part)), np.int64)
        stored["conf_view"] = np.zeros((views, *probability.shape), np.float32)
        stored["cls_bbox"] = np.array([part], np.int64)
        stored["conf_bbox"] = probability
        stored["gt_semantic_seg"] = truth


# The category that they are written as, and its folder and parts in ShapeNetPart: it has two parts, as they have (lamps have four).
MUG, MUGS, FIRST, PARTS = "mug", "03797390", 36, 2


def write_lamps(root, units, counts, wrong=0.05, seed=0):
    """Lamps in ShapeNetPart's form below `root`, and their units in PartDistill's below `units`. counts: of each list."""
    chance = np.random.default_rng(seed)
    (root / MUGS).mkdir(parents=True)
    for folder in (root, units):
        (folder / "train_test_split").mkdir(parents=True)
    for name, count in counts.items():
        ids = [f"{name}{number:03d}" for number in range(count)]
        for id in ids:
            made, part, _ = taught_lamp(chance, wrong)
            normals = np.zeros_like(made.xyz)
            table = np.concatenate([made.xyz, normals, FIRST + part[:, None]], axis=1)
            np.savetxt(root / MUGS / f"{id}.txt", table, fmt="%.6f")
            probability = np.zeros((*made.score.shape, PARTS), np.float32)
            np.put_along_axis(probability, made.part[None, :, None], made.score[..., None], axis=2)
            write_units(units / MUGS / id / "extracted" / "preprocess.h5", made.part, probability, FIRST + part, made.xyz)
        for folder in (root, units):
            file = folder / "train_test_split" / f"shuffled_{name}_file_list.json"
            file.write_text(json.dumps([f"shape_data/{MUGS}/{id}" for id in ids]))
