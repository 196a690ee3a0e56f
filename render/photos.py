"""The stages of what was photographed: its photos become views, its point cloud becomes points, both in one frame."""

import io
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from pipeline.fetch.cache import opened
from pipeline.photos.clouds import Cloud, read_cloud
from pipeline.photos.colmap import Model, Pose
from pipeline.photos.photo_folder import PhotoFolder
from pipeline.photos.photo_frame import AS_THE_FIRST_CAMERA, frame_of_cloud, frame_of_photos
from pipeline.points import points_of_cloud
from pipeline.quality import measures
from pipeline.stage import Made, ObjectError, Row, Stage, Task, Work, rng_for, settings_of
from render.photo_pictures import NotUsable, around_the_object, straightened
from render.views import encoded
from schemas.tables import POINTS, POINTS_PER_OBJECT, VIEWS, Table

# Which photos become views.
ALL = "photos-all@1"
SPREAD = {"photos-spread-12@1": 12}  # so many, spread around the object, in the order of their names


@dataclass(frozen=True, kw_only=True)
class PhotographedStage:
    """What the stages have in common."""

    version: ClassVar[int] = 1
    reads: ClassVar[str] = "objects"
    per: ClassVar[str] = "object_id"
    columns: ClassVar[tuple[str, ...]] = ("asset_uri", "asset_format", "companions")
    depends: ClassVar[tuple[str, ...]] = ("asset_sha256", "companions_sha256", "asset_format")
    batch: ClassVar[int] = 16
    cpus: ClassVar[float] = 1
    gpus: ClassVar[float] = 0

    def settings(self) -> dict[str, Any]:
        return settings_of(self)


@dataclass(frozen=True, kw_only=True)
class PhotoViews(PhotographedStage):
    """Photos as views: made straight, cut to a square around the object, with the camera that would have taken just that."""

    name: ClassVar[str] = "photos"
    writes: ClassVar[Table] = VIEWS
    where: ClassVar[str] = "asset_format = 'photos'"

    choice: str = "photos-spread-12@1"  # which photos: a name of SPREAD, or photos-all@1
    size: int = 224  # pixels, width and height
    least: int = 12  # an object with fewer photos that can be used fails

    def __post_init__(self):
        if self.choice not in (*SPREAD, ALL):
            raise ValueError(f"there is no choice of photos {self.choice}; there is {', '.join((*SPREAD, ALL))}")
        if min(self.size, self.least) < 1:
            raise ValueError(f"size {self.size} and least {self.least} must be 1 or more")

    def start(self) -> Work:
        return PhotoPass(photos=self).start()

    def rows(self, object_id: str, thing: "Photographed") -> list[Row]:
        """The object's rows, the photos in the order of their names. Raises ObjectError: too_few_views and those of the model."""
        candidates = thing.candidates()
        made: dict[str, Row] = {}
        while True:
            if len(candidates) < self.least:
                said = f"{len(candidates)} of its {len(thing.folder.photos)} photos have a pose, show the object and can be read"
                raise ObjectError("too_few_views", f"{said}; {self.least} are needed (least, below [photos] in the settings)")
            chosen = self._chosen(candidates, thing.frame)
            try:
                made |= {name: self._row(thing, name, pose) for name, pose in chosen.items() if name not in made}
            except NotUsable as error:  # the others are then chosen anew
                candidates.pop(error.name)
                continue
            return [made[name] | {"object_id": object_id, "view": number} for number, name in enumerate(chosen)]

    def _chosen(self, candidates: dict[str, Pose], frame: Float[np.ndarray, "4 4"]) -> dict[str, Pose]:
        names, count = list(candidates), SPREAD.get(self.choice, len(candidates))
        towards = np.stack([_placed(pose.position, frame) for pose in candidates.values()])
        return {names[i]: candidates[names[i]] for i in sorted(_spread(towards, min(count, len(names))))}

    def _row(self, thing: "Photographed", name: str, pose: Pose) -> Row:
        cut = around_the_object(pose, thing.frame)
        picture, masked = straightened(thing.folder, name, pose.lens, cut, self.size)
        camera = cut.camera(pose, thing.frame, self.size)
        return {
            "image": encoded(np.asarray(picture)) if masked else _encoded(picture),
            "width": camera.width,
            "height": camera.height,
            "intrinsics": [camera.fx, camera.fy, camera.cx, camera.cy],
            "camera_to_world": camera.camera_to_world.ravel().tolist(),
            "kind": "photo",
            "rig": self.choice,
            **measures(np.asarray(picture), masked=masked),
            "file": name,
        }


@dataclass(frozen=True, kw_only=True)
class CloudPoints(PhotographedStage):
    """The points of each object's cloud, as they were measured."""

    name: ClassVar[str] = "clouds"
    writes: ClassVar[Table] = POINTS
    where: ClassVar[str] = "asset_format IN ('photos', 'pcd')"

    seed: int = 0  # mixed with the object's id: a second run takes the same points

    def start(self) -> Work:
        return PhotoPass(clouds=self).start()

    def rows(self, object_id: str, thing: "Photographed") -> list[Row]:
        """The object's row. Raises ObjectError: no_cloud, and those of the cloud and the model."""
        cloud = thing.cloud
        if cloud is None:
            said = "the object has photos and no point cloud: with MVPNet, give its folder as the option clouds of the source"
            raise ObjectError("no_cloud", f'{said}, in the settings file: [sources.mvimgnet] clouds = "/data/mvpnet"')
        rng = rng_for(object_id, seed=self.seed, purpose=self.name)
        return [{"object_id": object_id} | points_of_cloud(cloud, thing.frame, POINTS_PER_OBJECT, rng)]


@dataclass(frozen=True, kw_only=True)
class PhotoPass:
    """Both stages over OBJECTS in one piece of work, which reads each model and cloud once; either may be left out."""

    photos: PhotoViews | None = None
    clouds: CloudPoints | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(stage for stage in (self.photos, self.clouds) if stage)

    def start(self) -> Work:
        return self._work

    def _work(self, tasks: list[Task]) -> Made:
        made = Made()
        for task in tasks:
            [row] = task.rows
            thing = Photographed(row)
            for stage in self.stages:
                if stage.name not in task.keys:
                    continue
                try:
                    made.add(stage.name, stage.rows(task.id, thing))
                except ObjectError as error:
                    made.fail(stage.name, task.id, error)
                except FileNotFoundError as error:
                    gone = f"{error.filename or row['asset_uri']} was there when the object was ingested and is not now"
                    made.fail(stage.name, task.id, ObjectError("asset_missing", f"{gone}: bring it back, or ingest again"))
        return made


class Photographed:
    """One object while it is worked on: its model, cloud and frame, each read when first asked for."""

    def __init__(self, row: Row):
        self.is_cloud = row["asset_format"] == "pcd"
        self.folder = PhotoFolder(row["asset_uri"])
        clouds = [file["uri"] for file in row["companions"] if file["role"] == "cloud"]
        self._cloud = row["asset_uri"] if self.is_cloud else clouds[0] if clouds else None

    @cached_property
    def model(self) -> Model:
        return self.folder.model()

    @cached_property
    def cloud(self) -> Cloud | None:
        if self._cloud is None:
            return None
        with opened(self._cloud) as path:
            return read_cloud(path)

    @cached_property
    def frame(self) -> Float[np.ndarray, "4 4"]:
        """COLMAP's world to the canonical frame."""
        if self.is_cloud:
            return frame_of_cloud(self.cloud.xyz, AS_THE_FIRST_CAMERA)
        return frame_of_photos(self.model, self.cloud.xyz if self.cloud else None)

    def candidates(self) -> dict[str, Pose]:
        """The photos that are there and show the object, in the order of their names."""
        there = {name: pose for name, pose in self.model.poses.items() if name in self.folder.photos}
        return {name: pose for name, pose in there.items() if around_the_object(pose, self.frame) is not None}


def _spread(positions: Float[np.ndarray, "n 3"], count: int) -> Int[np.ndarray, " {count}"]:
    """`count` of the directions from the origin to these positions: the first, then always the one farthest from all before it."""
    directions = positions / np.linalg.norm(positions, axis=1, keepdims=True)
    closest, order = np.full(len(directions), -np.inf), []
    for _ in range(count):
        order.append(int(closest.argmin()) if order else 0)
        closest = np.maximum(closest, directions @ directions[order[-1]])
        closest[order] = np.inf
    return np.array(order)


def _placed(position: Float[np.ndarray, "3"], frame: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "3"]:
    return frame[:3, :3] @ position + frame[:3, 3]


def _encoded(picture: Image.Image) -> bytes:
    """WebP that loses next to nothing; not for pictures with alpha, where it would put colour under what is transparent."""
    file = io.BytesIO()
    picture.convert("RGB").save(file, "WEBP", quality=95, method=4)
    return file.getvalue()
