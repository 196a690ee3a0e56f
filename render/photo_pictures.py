"""A photo as a pinhole camera would have taken it: straight, cut to a square around the object, with alpha if it has a mask."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps

from pipeline.fetch.cache import opened
from pipeline.photos.colmap import Lens, Pose
from pipeline.photos.photo_folder import IMAGES, PhotoFolder
from render.cameras import Camera

MARGIN = 1.1  # the square is so much larger than the unit sphere, where the photo has room
_INSET = 0.25  # pixels from the edge of a photo that are not used: beyond it there is nothing to blend with
_SAMPLES = 2  # per side of a pixel of the result, at least, where the photo has them
_BLOCK = 8  # pixels of the result; within a block the lens is taken to bend evenly


class NotUsable(Exception):
    """A photo that cannot be read, is not the one its camera belongs to, or shows nothing."""

    def __init__(self, name: str, message: str):
        super().__init__(message)
        self.name = name


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The square of a straight picture that is kept: its centre and half of its side, as rays (x/z, y/z)."""

    x: float
    y: float
    half: float

    def camera(self, pose: Pose, frame: Float[np.ndarray, "4 4"], size: int) -> Camera:
        """The camera of the square at `size` pixels; `frame`: COLMAP's world to the canonical frame."""
        focal = size / (2 * self.half)
        scale = np.cbrt(np.linalg.det(frame[:3, :3]))
        camera_to_world = np.eye(4)
        camera_to_world[:3, :3] = frame[:3, :3] / scale @ pose.rotation.T
        camera_to_world[:3, 3] = frame[:3, :3] @ pose.position + frame[:3, 3]
        return Camera(
            width=size,
            height=size,
            fx=focal,
            fy=focal,
            cx=focal * (self.half - self.x),
            cy=focal * (self.half - self.y),
            camera_to_world=camera_to_world,
        )


def around_the_object(pose: Pose, frame: Float[np.ndarray, "4 4"]) -> Cut | None:
    """The square around the unit sphere; where the photo ends before it, the largest in the photo, as near to its middle as the
    sphere allows (it is larger than the object when something stray belongs to it). None: nothing of the sphere is in the photo.

    Raises ObjectError("lens_folds").
    """
    center, radius = np.linalg.solve(frame[:3, :3], -frame[:3, 3]), 1 / np.cbrt(np.linalg.det(frame[:3, :3]))
    seen = pose.rotation @ center + pose.translation
    distance = np.linalg.norm(seen)
    first, last = _straight_part(pose.lens)
    middle, room = (first + last) / 2, (last - first).min() / 2
    if distance <= radius:
        return Cut(x=middle[0], y=middle[1], half=room)
    ball, reach = seen[:2] / seen[2], radius / np.sqrt(distance**2 - radius**2)
    if seen[2] <= 0 or (ball + reach < first).any() or (ball - reach > last).any():
        return None
    half = min(MARGIN * reach, room)
    around = np.clip(middle, ball - abs(half - reach), ball + abs(half - reach))
    x, y = np.clip(around, first + half, last - half)
    return Cut(x=x, y=y, half=half)


def straightened(folder: PhotoFolder, name: str, lens: Lens, cut: Cut, size: int) -> tuple[Image.Image, bool]:
    """The square of a photo, `size` x `size` RGBA with straight alpha, 0 where that is 0; and whether the photo has a mask.

    Each pixel is the mean of all that the photo has there. Raises NotUsable.
    """
    canvas, mask = _opened(folder, name, lens)
    if mask:
        canvas.putalpha(mask)
        canvas = canvas.convert("RGBa")  # colour weighted by alpha: what is around the object does not shine in at its edge
    pixel = 2 * cut.half * max(lens.fx, lens.fy) / size  # of the result, in pixels of the photo
    shrunk = max(1, int(pixel / _SAMPLES))
    canvas = canvas.reduce(shrunk)
    samples = int(np.ceil(max(1, pixel / shrunk)))
    fine = size * samples
    edges = np.append(np.arange(0, fine, _BLOCK * samples), fine)
    x, y = (at - cut.half + edges * (2 * cut.half / fine) for at in (cut.x, cut.y))
    corners = lens.pixels(np.stack(np.meshgrid(x, y), axis=-1)) / shrunk
    blocks = [
        (
            (int(edges[j]), int(edges[i]), int(edges[j + 1]), int(edges[i + 1])),
            tuple(np.concatenate([corners[i, j], corners[i + 1, j], corners[i + 1, j + 1], corners[i, j + 1]]).tolist()),
        )
        for i in range(len(edges) - 1)
        for j in range(len(edges) - 1)
    ]
    canvas = canvas.transform((fine, fine), Image.Transform.MESH, blocks, Image.Resampling.BILINEAR)
    picture = canvas.reduce(samples).convert("RGBA")
    if not picture.getextrema()[3][1]:
        raise NotUsable(name, f"the mask of {name} leaves nothing of it")
    return picture, mask is not None


@lru_cache(maxsize=64)
def _straight_part(lens: Lens) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]:
    """Upper left and lower right corner of the largest upright rectangle of rays all of which fall on the photo."""
    across, down = (np.linspace(_INSET, end - _INSET, 17) for end in (lens.width, lens.height))
    edges = [(np.full(17, across[side]), down) for side in (0, -1)] + [(across, np.full(17, down[side])) for side in (0, -1)]
    left, right, top, bottom = (lens.rays(np.stack(edge, axis=1)) for edge in edges)
    return np.array([left[:, 0].max(), top[:, 1].max()]), np.array([right[:, 0].min(), bottom[:, 1].min()])


def _opened(folder: PhotoFolder, name: str, lens: Lens) -> tuple[Image.Image, Image.Image | None]:
    size = (lens.width, lens.height)
    photo = _read(name, f"{folder.place}/{IMAGES}/{name}", "RGB", size)
    place = folder.mask_of(name)
    if place is None:
        return photo, None
    mask = _read(name, place, "L", size)
    return photo, mask.point(lambda value: 255 * value) if mask.getextrema()[1] == 1 else mask


def _read(name: str, place: str, mode: str, size: tuple[int, int]) -> Image.Image:
    with opened(place) as path:
        try:
            with Image.open(path) as picture:
                # COLMAP counts pixels as they are stored; of a photo that it saw turned, the stored one has another size
                picture = picture if picture.size == size else ImageOps.exif_transpose(picture)
                picture.load()
                picture = picture if picture.mode == mode else picture.convert(mode)
        except FileNotFoundError:
            raise
        except Exception as error:  # Pillow's decoders are foreign code on foreign data; they raise errors of many kinds
            raise NotUsable(name, f"{place} cannot be read ({error})") from error
    if picture.size != size:
        raise NotUsable(name, f"{place} has {picture.width} x {picture.height} pixels, its camera {size[0]} x {size[1]}")
    return picture
