"""An object that was photographed: a folder of photos with COLMAP's model of where they were taken from, as MVImgNet lays it out.

images/    the photos
sparse/0/  the model; it speaks of photos by name and need not know all of them
masks/     optional: for 001.jpg a picture 001.jpg.png, 001.png or 001.jpg that is 0 where the object is not
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from pipeline.assets.asset import sha256_of, stamps_in
from pipeline.assets.limits import Limits
from pipeline.assets.picture import picture_warnings
from pipeline.fetch.cache import opened
from pipeline.photos.clouds import read_cloud
from pipeline.photos.colmap import Model, read_model
from pipeline.stage import ObjectError, Row

IMAGES, MODEL, MASKS = "images", "sparse/0", "masks"

FEWEST = 4  # photos below which nothing can be made of an object, whatever the settings

_MODEL_FILES = tuple(f"{kind}.{form}" for kind in ("cameras", "images", "points3D") for form in ("bin", "txt"))
_PHOTOS = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class PhotoFolder:
    """The files of one object; `place`: an absolute path or URI."""

    place: str

    def files(self) -> dict[str, str]:
        """Path in the folder and stamp of every file that counts, in a fixed order."""
        found = {f"{IMAGES}/{name}": stamp for name, stamp in self._pictures(IMAGES)}
        model = stamps_in(f"{self.place}/{MODEL}")
        found |= {f"{MODEL}/{name}": model[name] for name in _MODEL_FILES if name in model}
        return found | {f"{MASKS}/{name}": stamp for name, stamp in self._pictures(MASKS)}

    @cached_property
    def photos(self) -> frozenset[str]:
        """Names of the photos."""
        return frozenset(name for name, _ in self._pictures(IMAGES))

    @cached_property
    def _masks(self) -> frozenset[str]:
        return frozenset(name for name, _ in self._pictures(MASKS))

    def mask_of(self, photo: str) -> str | None:
        """Place of a photo's mask, or None."""
        names = (f"{photo}.png", f"{PurePosixPath(photo).stem}.png", photo)
        return next((f"{self.place}/{MASKS}/{name}" for name in names if name in self._masks), None)

    def model(self) -> Model:
        """Raises ObjectError as `read_model` does."""
        there = stamps_in(f"{self.place}/{MODEL}")
        with ExitStack() as stack:
            names = [name for name in _MODEL_FILES if name in there]
            return read_model({name: stack.enter_context(opened(f"{self.place}/{MODEL}/{name}")) for name in names})

    def _pictures(self, folder: str) -> Iterator[tuple[str, str]]:
        for name, stamp in stamps_in(f"{self.place}/{folder}").items():
            if name.lower().endswith(_PHOTOS) and not name.startswith("."):
                yield name, stamp


def _check_link(place: str, name: str) -> None:
    """Raises ObjectError("link_outside"): an archive may bring links, and what they lead to is nobody's photo of this object."""
    file = f"{place}/{name}"
    if "://" not in place and not os.path.realpath(file).startswith(os.path.realpath(place) + os.sep):
        raise ObjectError("link_outside", f"{file} is, or lies behind, a link out of {place}: put the file itself there")


def examine_photos(record: Row, limits: Limits) -> Row:
    """What `pipeline.assets.preflight.examine` says, of a folder of photos.

    traits    masks, cloud, unposed_photos (COLMAP did not find where some were taken from)
    warnings  unreadable_photo (or mask), cloud_unreadable: the object is done without

    Raises ObjectError: link_outside, too_few_views, no_poses, model_unreadable, unknown_lens, texture_too_large, asset_too_large,
    no_points.
    """
    folder = PhotoFolder(record["asset_uri"])
    digest, size, unreadable = hashlib.sha256(), 0, set()
    for name in folder.files():
        _check_link(folder.place, name)
        with opened(f"{folder.place}/{name}") as path:
            size += path.stat().st_size
            if size > limits.asset_mb << 20:
                said = f"{folder.place} has more than the {limits.asset_mb} MB that are let in (limits.asset_mb)"
                raise ObjectError("asset_too_large", said)
            digest.update(f"{name}\0{sha256_of(path)}\n".encode("utf-8", "surrogateescape"))
            if not name.startswith(f"{MODEL}/") and (picture_warnings(name, path, limits) or _is_cut(path)):
                unreadable.add(name)
    readable = {photo for photo in folder.photos if f"{IMAGES}/{photo}" not in unreadable}
    if len(readable) < FEWEST:
        raise ObjectError("too_few_views", f"{folder.place} has {len(readable)} photos that can be read: get it again")
    posed = readable & folder.model().poses.keys()
    if len(posed) < FEWEST:
        said = (
            f"of the {len(readable)} photos in {folder.place} COLMAP knows where {len(posed)} were taken from; {FEWEST} are needed"
        )
        raise ObjectError("too_few_views", said)
    cloud, cloud_hash, cloud_warnings = _cloud(record["cloud"])
    traits = {"masks": any(map(folder.mask_of, posed)), "cloud": bool(cloud), "unposed_photos": len(posed) < len(readable)}
    return {
        "asset_sha256": digest.hexdigest(),
        "asset_bytes": size,
        "companions": cloud,
        "companions_sha256": cloud_hash,
        "traits": sorted(name for name, is_so in traits.items() if is_so),
        "warnings": sorted({*record["warnings"], *cloud_warnings, *(["unreadable_photo"] if unreadable else [])}),
    }


def examine_cloud(record: Row, limits: Limits) -> Row:
    """What `pipeline.assets.preflight.examine` says, of a point cloud.

    Raises ObjectError: asset_too_large, too_many_vertices, and those of `read_cloud`.
    """
    place = record["asset_uri"]
    with opened(place) as path:
        size = path.stat().st_size
        if size > limits.asset_mb << 20:
            raise ObjectError("asset_too_large", f"{place} has {size >> 20} MB; {limits.asset_mb} are let in (limits.asset_mb)")
        cloud = read_cloud(path)
        limits.check_geometry(place, cloud.count, 0)
        return {
            "asset_sha256": sha256_of(path),
            "asset_bytes": size,
            "companions": [],
            "companions_sha256": None,
            "traits": ["vertex_colors"] if cloud.rgb is not None else [],
            "warnings": record["warnings"],
        }


def _cloud(place: str | None) -> tuple[list[Row], str | None, set[str]]:
    """The companions with their hash, and warnings. A cloud that cannot be read is no companion."""
    if place is None:
        return [], None, set()
    name = PurePosixPath(place).name
    with opened(place) as path:
        try:
            read_cloud(path)
        except ObjectError:
            return [], None, {"cloud_unreadable"}
        hash = hashlib.sha256(f"cloud\0{name}\0{sha256_of(path)}\n".encode("utf-8", "surrogateescape")).hexdigest()
    return [{"role": "cloud", "name": name, "uri": place}], hash, set()


def _is_cut(path: Path) -> bool:
    """Whether a JPEG ends before its end: the marker EOI, which no compressed data hold (ITU-T T.81, B.1.1.2), comes last."""
    data = path.read_bytes()
    return data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
