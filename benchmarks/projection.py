"""Do points and views share one frame and one set of colours? Projects each object's points into its pictures.

    python -m benchmarks.projection ROOT                 a corpus: its stored points, in its stored views
    python -m benchmarks.projection FOLDER --pictures P  a folder of assets: both made anew; the worst objects as pictures in P

landed   share of points, over all views, within one pixel of the object's mask (alpha above 0); target: 99.5 %. What is flat and
         seen exactly edge-on has no mask: such an object falls short without a fault.
colour   median over the points that a view sees of their difference from a render of the unlit base colour (mean of the absolute
         differences of red, green and blue, of 255); target: 6. Where two surfaces lie in one place, or one shines through the
         other, the render shows one or a blend, the points both.
"""

import argparse
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import lance
import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation

from pipeline.mesh import load
from pipeline.points import sample_points
from pipeline.stage import ObjectError, rng_for
from pipeline.visibility import visible
from render.blender import Blender, BlenderSettings
from render.cameras import RIGS, Camera
from render.spec import AXES, Cycles, Pictures, Request, View
from render.views import read_pictures
from schemas.tables import POINTS_PER_OBJECT

RIG = "openshape-12@1"
SIZE = 224


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An object to measure. `points` (a row of POINTS) and `views` (camera and mask) are None where they are to be made;
    `companions` and `front` as in render.spec.Request."""

    id: str
    asset: str
    format: str
    companions: tuple[tuple[str, str, str], ...] | None = None
    front: str | None = None
    points: dict | None = None
    views: list[tuple[Camera, np.ndarray]] | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was measured of an object; `picture` shows the view with the most points that miss it."""

    id: str
    landed: float
    color: float | None  # None: no colour, or no point in sight
    guessed: tuple[str, ...]
    picture: Image.Image


def in_corpus(root: str, limit: int | None) -> Iterator[Subject]:
    """The objects of a corpus that have both points and views."""
    tables = {name: lance.dataset(f"{root}/{name}.lance") for name in ("objects", "points", "views")}
    sampled = tables["points"].to_table(columns=["object_id", "xyz", "rgb"], filter="faces > 0", limit=limit)  # no point clouds
    for points in sampled.to_pylist():
        where = f"object_id = '{points['object_id'].replace(chr(39), chr(39) * 2)}'"
        [asset] = tables["objects"].to_table(columns=["asset_uri", "asset_format", "companions", "front"], filter=where).to_pylist()
        views = sorted(tables["views"].to_table(filter=where).to_pylist(), key=lambda view: view["view"])
        if views:
            yield Subject(
                id=points["object_id"],
                asset=asset["asset_uri"],
                format=asset["asset_format"],
                companions=tuple((file["role"], file["name"], file["uri"]) for file in asset["companions"]),
                front=asset["front"],
                points=points,
                views=[(_camera(view), np.asarray(Image.open(io.BytesIO(view["image"])))[..., 3]) for view in views],
            )


def _camera(view: dict) -> Camera:
    fx, fy, cx, cy = view["intrinsics"]
    to_world = np.array(view["camera_to_world"]).reshape(4, 4)
    return Camera(width=view["width"], height=view["height"], fx=fx, fy=fy, cx=cx, cy=cy, camera_to_world=to_world)


def in_folder(folder: str, limit: int | None) -> Iterator[Subject]:
    """The assets in a folder and all below it."""
    files = sorted(file for file in Path(folder).rglob("*") if file.suffix[1:].lower() in AXES and file.is_file())
    for file in files[:limit]:
        yield Subject(id=str(file.relative_to(folder)), asset=str(file), format=file.suffix[1:].lower())


def measure(subject: Subject, blender: Blender) -> Result:
    """Raises ObjectError for what cannot be imported, rendered or sampled."""
    cameras = [camera for camera, _ in subject.views] if subject.views else RIGS[RIG].cameras(SIZE, SIZE)
    views = tuple(View(fx=c.fx, fy=c.fy, cx=c.cx, cy=c.cy, camera_to_world=tuple(c.camera_to_world.ravel())) for c in cameras)
    pictures = Pictures(
        views=views,
        width=cameras[0].width,
        height=cameras[0].height,
        shading="albedo",
        cycles=Cycles(samples=4, denoise=False),
    )
    request = Request(
        asset=subject.asset,
        format=subject.format,
        companions=subject.companions,
        front=subject.front,
        pictures=pictures,
        mesh=True,
    )
    _, folder = blender.do(request)
    rendered, mesh = read_pictures(folder, len(cameras)), load(folder / "mesh")
    points = subject.points or sample_points(mesh, POINTS_PER_OBJECT, rng_for(subject.id, purpose="points"))
    xyz = np.asarray(points["xyz"], dtype=np.float64).reshape(-1, 3)
    rgb = None if points["rgb"] is None else np.asarray(points["rgb"], dtype=np.float64).reshape(-1, 3)
    masks = [mask for _, mask in subject.views] if subject.views else [picture[..., 3] for picture in rendered]

    landed = np.stack([_landed(camera, mask, xyz) for camera, mask in zip(cameras, masks, strict=True)])
    in_sight = visible(mesh, xyz, np.stack([camera.position for camera in cameras]))
    seen = [_seen(camera, picture, xyz, sight) for camera, picture, sight in zip(cameras, rendered, in_sight, strict=True)]
    errors = [np.zeros(0)]
    if rgb is not None:
        for camera, picture, sight in zip(cameras, rendered, seen, strict=True):
            row, column = _pixels(camera, xyz[sight])
            errors.append(np.abs(picture[row, column, :3] - rgb[sight]).mean(axis=1))
    worst = int(landed.mean(axis=1).argmin())
    return Result(
        id=subject.id,
        landed=float(landed.mean()),
        color=float(np.median(np.concatenate(errors))) if sum(map(len, errors)) else None,
        guessed=tuple(sorted({guess for material in mesh.materials for guess in material.guessed})),
        picture=_side_by_side(rendered[worst], cameras[worst], xyz, rgb, seen[worst], landed[worst]),
    )


def _pixels(camera: Camera, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels under points; outside the picture, those at its edge."""
    column, row = np.floor(camera.project(xyz)[0]).astype(int).T
    return np.clip(row, 0, camera.height - 1), np.clip(column, 0, camera.width - 1)


def _landed(camera: Camera, mask: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    return binary_dilation(mask > 0, np.ones((3, 3)))[_pixels(camera, xyz)]


def _seen(camera: Camera, picture: np.ndarray, xyz: np.ndarray, in_sight: np.ndarray) -> np.ndarray:
    """The points whose own pixel shows them, and nothing else: in sight, on a pixel that the object covers."""
    return in_sight & (picture[(*_pixels(camera, xyz), 3)] >= 250)


def _side_by_side(picture, camera, xyz, rgb, seen, landed) -> Image.Image:
    """The unlit picture; the points that it should show, in their colours; in magenta, those that miss the object."""
    drawn = np.full((*picture.shape[:2], 3), 60, dtype=np.uint8)
    drawn[_pixels(camera, xyz[seen])] = 200 if rgb is None else rgb[seen].astype(np.uint8)
    drawn[_pixels(camera, xyz[~landed])] = (255, 0, 255)
    alpha = picture[..., 3:] / 255
    flat = (picture[..., :3] * alpha + 60 * (1 - alpha)).astype(np.uint8)
    return Image.fromarray(np.concatenate([flat, drawn], axis=1)).resize((4 * SIZE, 2 * SIZE), Image.Resampling.NEAREST)


def main() -> None:
    """Measures in several Blenders side by side and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("where", help="a corpus (it holds points.lance) or a folder of assets")
    parser.add_argument("--limit", type=int, help="so many objects")
    parser.add_argument("--workers", type=int, default=2, help="Blenders side by side")
    parser.add_argument("--worst", type=int, default=10, help="how many objects to name at the bad end of either measure")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of these")
    asked = parser.parse_args()

    find = in_corpus if (Path(asked.where) / "points.lance").exists() else in_folder
    todo = list(find(asked.where, asked.limit))
    if not todo:
        parser.error(f"{asked.where} holds no objects with points and views, and no assets ({', '.join(AXES)})")

    def work(number):
        results, failed = [], []
        with Blender(BlenderSettings(threads=1)) as blender:
            for subject in todo[number :: asked.workers]:
                try:
                    results.append(measure(subject, blender))
                except ObjectError as error:
                    failed.append(f"{subject.id}: {error.reason}: {error}")
        return results, failed

    with ThreadPoolExecutor(asked.workers) as threads:
        parts = list(threads.map(work, range(asked.workers)))
    results = [result for found, _ in parts for result in found]
    failed = [line for _, lines in parts for line in lines]
    colored = [result for result in results if result.color is not None]

    by_landed = sorted(results, key=lambda result: result.landed)[: asked.worst]
    by_color = sorted(colored, key=lambda result: -result.color)[: asked.worst]
    for title, worst in (("landed", by_landed), ("colour", by_color)):
        print(f"worst by {title}:")
        for result in worst:
            color = "-" if result.color is None else f"{result.color:.1f}"
            print(f"  {result.landed:8.3%}  {color:>6}  {result.id}  {'; '.join(result.guessed)}")
            if asked.pictures:
                asked.pictures.mkdir(parents=True, exist_ok=True)
                result.picture.save(asked.pictures / f"{title}-{result.id.replace('/', '_')}.png")
    for line in sorted(failed):
        print(f"failed: {line}")
    print(f"{len(results)} objects, {len(failed)} failed")
    landed = np.array([result.landed for result in results])
    if len(landed):
        reach = (landed >= 0.995).mean()
        print(f"landed: {landed.mean():.3%} of points; {reach:.1%} of objects reach 99.5 %, the worst {landed.min():.3%}")
    color = np.array([result.color for result in colored])
    if len(color):
        reach = (color <= 6).mean()
        print(f"colour: median {np.median(color):.2f} of 255; {reach:.1%} of objects reach 6, the worst {color.max():.1f}")


if __name__ == "__main__":
    main()
