"""How materials, shapes and scenes come out: renders every exhibit of the gallery and lays them out on one labelled sheet.

    python -m benchmarks.gallery FOLDER -o SHEET.png             the gallery; its assets are written into FOLDER
    python -m benchmarks.gallery FOLDER -o SHEET.png --assets    the assets that lie in FOLDER instead

luminance, dark, bright   mean over the views of these columns of VIEWS
edge, contrast            the smallest and largest difference in mean sRGB luminance between the sides of an object that one view
                          sees (its surface by where it faces: one of six directions), mean over the views
"""

import argparse
import io
import shutil
import time
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image, ImageDraw, ImageFont

from pipeline.made.gallery import EXHIBITS
from pipeline.mesh import Mesh
from pipeline.quality import LUMINANCE
from pipeline.stage import ObjectError, Row
from pipeline.visibility import visible
from render.blender import Blender, BlenderSettings
from render.blender_pass import FromBlender, RenderViews
from render.cameras import Camera
from render.spec import AXES, Request

SIZE = 224
VIEWS = (0, 3, 6, 9)  # of openshape-12@1: two from above, from the side, from below
POINTS = 4000  # at which the light is read off
FEWEST = 20  # points of a side, to say how light it is
COLUMNS = 3  # exhibits side by side
LINE = 18
MEASURES = ("luminance", "dark_share", "bright_share")
PAPER, INK, GREY = (255, 255, 255), (24, 26, 30), (112, 118, 128)


class FourViews(RenderViews):
    """The stage `render`, with four of its twelve cameras."""

    def cameras(self, object_id: str) -> list[Camera]:
        cameras = super().cameras(object_id)
        return [cameras[number] for number in VIEWS]


STAGE = FourViews(width=SIZE, height=SIZE)


def render(blender: Blender, path: Path) -> tuple[list[Row], Mesh]:
    """The rows of VIEWS of an asset, and its mesh. Raises ObjectError."""
    asked = STAGE.asks(path.stem) | {"mesh": True}
    made = FromBlender(*blender.do(Request(asset=str(path), format=path.suffix[1:].lower(), **asked)))
    return STAGE.rows(path.stem, made), made.mesh


def differences(rows: list[Row], mesh: Mesh) -> tuple[float, float]:
    """`edge` and `contrast`, as in the module's docstring; NaN: no view sees two sides."""
    surface = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    points, faces = trimesh.sample.sample_surface(surface, POINTS, seed=0)
    normals, cameras, found = surface.face_normals[faces], STAGE.cameras(""), []
    in_sight = visible(mesh, points, np.stack([camera.position for camera in cameras]))
    for row, camera, seen in zip(rows, cameras, in_sight, strict=True):
        picture = np.asarray(Image.open(io.BytesIO(row["image"])).convert("RGBA"))
        column, line = np.clip(np.floor(camera.project(points[seen])[0]).astype(int), 0, SIZE - 1).T
        # What is seen faces the camera, whichever way its face is wound.
        facing = normals[seen] * np.sign(np.einsum("ij,ij->i", camera.position - points[seen], normals[seen]))[:, None]
        side = np.abs(facing).argmax(axis=1) * 2 + (np.take_along_axis(facing, np.abs(facing).argmax(axis=1)[:, None], 1)[:, 0] > 0)
        light = picture[line, column, :3] @ LUMINANCE / 255
        solid = picture[line, column, 3] >= 128
        means = sorted(light[solid & (side == one)].mean() for one in range(6) if (solid & (side == one)).sum() >= FEWEST)
        if len(means) > 1:
            found.append((min(np.diff(means)), means[-1] - means[0]))
    return tuple(np.mean(found, axis=0)) if found else (np.nan, np.nan)


def drawn(label: str, truth: str, rows: list[Row], numbers: str) -> Image.Image:
    """One band of the sheet."""
    tile = Image.new("RGB", (len(VIEWS) * SIZE, SIZE + 3 * LINE), PAPER)
    font = ImageFont.load_default(13)
    pen = ImageDraw.Draw(tile)
    for y, text, ink in ((0, f"{label}: {truth}", INK), (1, numbers, GREY)):
        pen.text((2, y * LINE), text, fill=ink, font=font)
    for number, row in enumerate(rows):
        picture = Image.open(io.BytesIO(row["image"])).convert("RGBA")
        board = Image.fromarray(
            np.where(np.indices((SIZE, SIZE)).sum(axis=0)[..., None] // 8 % 2, *np.uint8([[252], [243]])).repeat(3, 2)
        )
        tile.paste(Image.alpha_composite(board.convert("RGBA"), picture).convert("RGB"), (number * SIZE, 2 * LINE))
    return tile


def main() -> None:
    """Renders, prints the measures, and writes the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the gallery's assets are written")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the sheet, a PNG")
    parser.add_argument("--assets", action="store_true", help="show the assets that lie in the folder")
    parser.add_argument("--limit", type=int, help="so many assets, spread evenly over the folder's")
    asked = parser.parse_args()

    if asked.assets:
        files = sorted(path for path in asked.folder.rglob("*") if path.suffix[1:].lower() in AXES and path.is_file())
        if asked.limit:
            files = files[:: max(1, len(files) // asked.limit)][: asked.limit]
        shown = [(path.stem[:12], "", path) for path in files]
    else:
        folder = asked.folder / "gallery"
        shutil.rmtree(folder, ignore_errors=True)
        shown = [(exhibit.name, exhibit.truth, exhibit.write(folder)) for exhibit in EXHIBITS]

    tiles, table = [], []
    with Blender(BlenderSettings()) as blender:
        for label, truth, path in shown:
            since = time.monotonic()
            try:
                rows, mesh = render(blender, path)
            except ObjectError as error:
                tiles.append(drawn(label, truth, [], f"{error.reason}: {error}"))
                print(f"{label:22} {error.reason}: {error}")
                continue
            means = [float(np.mean([row[name] if row[name] is not None else np.nan for row in rows])) for name in MEASURES]
            table.append([*means, *differences(rows, mesh)])
            numbers = "luminance {:.3f}  dark {:.3f}  bright {:.3f}  edge {:.3f}  contrast {:.3f}".format(*table[-1])
            print(f"{label:22} {numbers}  {time.monotonic() - since:.2f} s", flush=True)
            tiles.append(drawn(label, truth, rows, numbers))
    print(
        "mean of all".ljust(22),
        "luminance {:.3f}  dark {:.3f}  bright {:.3f}  edge {:.3f}  contrast {:.3f}".format(*np.nanmean(table, axis=0)),
    )

    width, height = tiles[0].size
    sheet = Image.new("RGB", (COLUMNS * (width + LINE), -(-len(tiles) // COLUMNS) * height), PAPER)
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % COLUMNS * (width + LINE), number // COLUMNS * height))
    sheet.save(asked.output)


if __name__ == "__main__":
    main()
