"""Do the points of a photographed object lie on it? Draws its stored points into its stored views, through the stored cameras.

    python -m benchmarks.photo_overlay ROOT OBJECT_ID -o FILE

Upper rows: the views. Lower rows: the same, darkened, with the points in their colours; the nearer ones cover the farther ones.
"""

import argparse
import io

import lance
import numpy as np
from PIL import Image

from reports.contact_sheet import project

_PER_ROW = 6


def overlay(points: dict, views: list[dict], zoom: int) -> Image.Image:
    """A picture of pictures: `points` a row of POINTS, `views` rows of VIEWS, each `zoom` times as large."""
    xyz = np.asarray(points["xyz"], np.float64).reshape(-1, 3)
    rgb = np.full(xyz.shape, 255, np.uint8) if points["rgb"] is None else np.asarray(points["rgb"], np.uint8).reshape(-1, 3)
    rows = [_side_by_side(views[first : first + _PER_ROW], xyz, rgb, zoom) for first in range(0, len(views), _PER_ROW)]
    return Image.fromarray(np.concatenate([np.pad(row, ((0, 0), (0, rows[0].shape[1] - row.shape[1]), (0, 0))) for row in rows]))


def _side_by_side(views: list[dict], xyz: np.ndarray, rgb: np.ndarray, zoom: int) -> np.ndarray:
    pairs = []
    for view in views:
        picture = Image.open(io.BytesIO(view["image"])).convert("RGB")
        picture = np.asarray(picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.BICUBIC))
        pairs.append(np.concatenate([picture, _with_points(picture, view, xyz, rgb, zoom)]))
    return np.concatenate(pairs, axis=1)


def _with_points(picture: np.ndarray, view: dict, xyz: np.ndarray, rgb: np.ndarray, zoom: int) -> np.ndarray:
    pixels, depth = project(xyz, view)
    order = np.argsort(-depth)
    order = order[depth[order] > 0]
    drawn = picture // 3
    column, row = np.floor(pixels[order] * zoom).astype(np.int64).T
    for down in (0, 1):
        for right in (0, 1):
            inside = (row + down >= 0) & (row + down < drawn.shape[0]) & (column + right >= 0) & (column + right < drawn.shape[1])
            drawn[row[inside] + down, column[inside] + right] = rgb[order[inside]]
    return drawn


def main() -> None:
    """Draws one object of a corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="the corpus")
    parser.add_argument("object_id")
    parser.add_argument("-o", "--output", required=True, help="the picture to write")
    parser.add_argument("--zoom", type=int, default=1)
    asked = parser.parse_args()
    where = f"object_id = '{asked.object_id.replace(chr(39), chr(39) * 2)}'"
    points, views = (
        lance.dataset(f"{asked.root}/{table}.lance").to_table(filter=where).to_pylist() for table in ("points", "views")
    )
    if not points or not views:
        parser.error(f"{asked.object_id} has {len(points)} rows of points and {len(views)} views in {asked.root}: both are needed")
    overlay(points[0], sorted(views, key=lambda view: view["view"]), asked.zoom).save(asked.output)
    print(f"{asked.output}: {len(views)} views")


if __name__ == "__main__":
    main()
