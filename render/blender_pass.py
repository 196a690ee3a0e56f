"""The stages that need Blender: views and points. One pass imports an asset once and makes whichever of the two is asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pipeline.mesh import load
from pipeline.points import sample_points
from pipeline.stage import Made, ObjectError, Row, Stage, Task, Work, rng_for, settings_of
from render.blender import Blender, BlenderSettings
from render.cameras import RIGS, Camera
from render.spec import AXES, Answer, Cycles, Pictures, Request, View
from render.views import read_pictures, view_rows
from schemas.tables import POINTS, POINTS_PER_OBJECT, VIEWS, Table


@dataclass(frozen=True, kw_only=True)
class AssetStage:
    """What the stages that open assets in Blender have in common."""

    version: ClassVar[int] = 1
    reads: ClassVar[str] = "objects"
    per: ClassVar[str] = "object_id"
    columns: ClassVar[tuple[str, ...]] = ("asset_uri", "asset_format", "companions", "front")
    depends: ClassVar[tuple[str, ...]] = ("asset_sha256", "companions_sha256", "asset_format", "front")
    where: ClassVar[str] = f"asset_format IN ({', '.join(map(repr, AXES))})"
    batch: ClassVar[int] = 8
    cpus: ClassVar[float] = 1
    gpus: ClassVar[float] = 0

    def settings(self) -> dict[str, Any]:
        return settings_of(self)


@dataclass(frozen=True, kw_only=True)
class RenderViews(AssetStage):
    """Pictures of each object from the cameras of a rig."""

    name: ClassVar[str] = "render"
    writes: ClassVar[Table] = VIEWS

    rig: str = "openshape-12@1"  # which cameras (render/cameras.py)
    width: int = 224  # pixels
    height: int = 224
    samples: int = Cycles.samples  # per pixel, at most
    noise_threshold: float = Cycles.noise_threshold  # a pixel this quiet gets no more samples
    denoise: bool = Cycles.denoise

    def __post_init__(self):
        if self.rig not in RIGS:
            raise ValueError(f"there is no camera rig {self.rig}; there is {', '.join(RIGS)}")

    def start(self) -> Work:
        return BlenderPass(render=self).start()

    def cameras(self) -> list[Camera]:
        return RIGS[self.rig].cameras(self.width, self.height)

    def pictures(self) -> Pictures:
        """What Blender is asked for."""
        views = tuple(
            View(fx=c.fx, fy=c.fy, cx=c.cx, cy=c.cy, camera_to_world=tuple(c.camera_to_world.ravel().tolist()))
            for c in self.cameras()
        )
        cycles = Cycles(samples=self.samples, noise_threshold=self.noise_threshold, denoise=self.denoise)
        return Pictures(views=views, width=self.width, height=self.height, cycles=cycles)

    def rows(self, object_id: str, answer: Answer, folder: Path) -> list[Row]:
        """The object's rows, from what Blender put into a folder. Raises ObjectError."""
        cameras = self.cameras()
        return view_rows(
            object_id,
            read_pictures(folder, len(cameras)),
            cameras,
            rig=self.rig,
            device=answer.device,
            missing_textures=answer.missing_textures,
            thickest=answer.thickest,
        )


@dataclass(frozen=True, kw_only=True)
class SamplePoints(AssetStage):
    """Points on each object's surface with their colours, from the mesh as it is rendered."""

    name: ClassVar[str] = "points"
    writes: ClassVar[Table] = POINTS

    seed: int = 0  # mixed with the object's id: a second run gives the same points

    def start(self) -> Work:
        return BlenderPass(points=self).start()

    def rows(self, object_id: str, answer: Answer, folder: Path) -> list[Row]:
        """The object's row, from what Blender put into a folder. Raises ObjectError."""
        rng = rng_for(object_id, seed=self.seed, purpose=self.name)
        return [{"object_id": object_id} | sample_points(load(folder / "mesh"), POINTS_PER_OBJECT, rng)]


@dataclass(frozen=True, kw_only=True)
class BlenderPass:
    """Both stages over OBJECTS in one piece of work, which opens each asset once; either may be left out."""

    render: RenderViews | None = None
    points: SamplePoints | None = None
    blender: BlenderSettings = BlenderSettings()

    @property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(stage for stage in (self.render, self.points) if stage)

    def start(self) -> "BlenderWork":
        return BlenderWork(self)


class BlenderWork:
    """The work of a BlenderPass: owns a warm Blender until it is closed."""

    def __init__(self, settings: BlenderPass):
        self._render, self._points = settings.render, settings.points
        self._blender = Blender(settings.blender)

    def close(self) -> None:
        self._blender.close()

    def __call__(self, tasks: list[Task]) -> Made:
        made = Made()
        for task in tasks:
            asked = [stage for stage in (self._render, self._points) if stage and stage.name in task.keys]
            try:
                answer, folder = self._open(task, asked)
            except ObjectError as error:
                for stage in asked:
                    made.fail(stage.name, task.id, error)
                continue
            for stage in asked:
                try:
                    made.add(stage.name, stage.rows(task.id, answer, folder))
                except ObjectError as error:
                    made.fail(stage.name, task.id, error)
        return made

    def _open(self, task: Task, asked: list[Stage]) -> tuple[Answer, Path]:
        """Has Blender open the asset and make what these stages need. Raises ObjectError."""
        [row] = task.rows
        return self._blender.do(
            Request(
                asset=row["asset_uri"],
                format=row["asset_format"],
                companions=tuple((file["role"], file["name"], file["uri"]) for file in row["companions"]),
                front=row["front"],
                pictures=self._render.pictures() if self._render in asked else None,
                mesh=self._points in asked,
            )
        )
