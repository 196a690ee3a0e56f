"""The stages that need Blender: views and points. One pass imports an asset once and makes whatever its stages ask for."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from pipeline.mesh import Mesh, load
from pipeline.points import sample_points
from pipeline.stage import Made, ObjectError, Row, Task, rng_for, settings_of
from render.blender import LOST, Blender, BlenderSettings
from render.cameras import Camera, rig_named
from render.eevee import gpu_of_eevee
from render.gates import Gates, judge
from render.outlines import with_clean_outlines
from render.spec import AXES, Answer, Cycles, Pictures, Request, View
from render.views import read_pictures, view_rows
from schemas.tables import POINTS, POINTS_PER_OBJECT, VIEWS, Table

ENGINES = ("cycles", "eevee")


@dataclass(frozen=True)
class FromBlender:
    """What Blender made of an asset: its answer, and the folder with the files."""

    answer: Answer
    folder: Path

    @cached_property
    def mesh(self) -> Mesh:
        return load(self.folder / "mesh")


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

    def start(self) -> "BlenderWork":
        return BlenderPass(stages=(self,)).start()

    def asks(self, object_id: str) -> dict[str, Any]:
        """What Blender is to make for this stage: fields of render.spec.Request."""
        raise NotImplementedError

    def rows(self, object_id: str, made: FromBlender) -> list[Row]:
        """The object's rows, from what Blender made. Raises ObjectError."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ThroughRig(AssetStage):
    """What the stages that look at an asset through the cameras of a rig have in common."""

    rig: str = "openshape-12@1"  # which cameras (render/cameras.py)
    seed: int = 0  # mixed with the object's id, for rigs that leave things to chance
    width: int = 224  # pixels
    height: int = 224

    def __post_init__(self):
        rig_named(self.rig)

    def cameras(self, object_id: str) -> list[Camera]:
        return rig_named(self.rig).cameras(self.width, self.height, rng_for(object_id, seed=self.seed, purpose=self.rig))


@dataclass(frozen=True, kw_only=True)
class RenderViews(ThroughRig):
    """Pictures of each object from the cameras of a rig."""

    version: ClassVar[int] = 2
    name: ClassVar[str] = "render"
    writes: ClassVar[Table] = VIEWS

    engine: Literal["cycles", "eevee"] = "cycles"  # eevee: less true, and on a GPU alone; of Cycles' settings, `samples` counts
    samples: int = Cycles.samples  # per pixel, at most
    noise_threshold: float = Cycles.noise_threshold  # a pixel this quiet gets no more samples
    denoise: bool = Cycles.denoise
    outline_rays: int = 32  # per pixel of an outline, to find its alpha (render/outlines.py); 0: alpha as it was rendered
    gates: Gates = Gates()

    def __post_init__(self):
        super().__post_init__()
        if self.engine not in ENGINES:
            raise ValueError(f"engine = {self.engine!r}: must be one of {', '.join(ENGINES)}")

    def pictures(self, object_id: str) -> Pictures:
        cycles = Cycles(samples=self.samples, noise_threshold=self.noise_threshold, denoise=self.denoise)
        views = tuple(map(seen_from, self.cameras(object_id)))
        return Pictures(views=views, width=self.width, height=self.height, engine=self.engine, cycles=cycles)

    def asks(self, object_id: str) -> dict[str, Any]:
        return {"pictures": self.pictures(object_id)} | ({"mesh": True} if self.outline_rays else {})

    def rows(self, object_id: str, made: FromBlender) -> list[Row]:
        cameras = self.cameras(object_id)
        pictures = read_pictures(made.folder, len(cameras))
        if self.outline_rays:
            pictures = with_clean_outlines(pictures, cameras, made.mesh, self.outline_rays)
        rows = view_rows(object_id, pictures, cameras, rig=self.rig, answer=made.answer)
        judge(rows, self.gates)
        return rows


def seen_from(camera: Camera) -> View:
    """A camera as Blender's side reads it."""
    placed = tuple(camera.camera_to_world.ravel().tolist())
    return View(fx=camera.fx, fy=camera.fy, cx=camera.cx, cy=camera.cy, camera_to_world=placed)


@dataclass(frozen=True, kw_only=True)
class SamplePoints(AssetStage):
    """Points on each object's surface with their colours, from the mesh as it is rendered."""

    version: ClassVar[int] = 2
    name: ClassVar[str] = "points"
    writes: ClassVar[Table] = POINTS

    seed: int = 0  # mixed with the object's id: a second run gives the same points

    def asks(self, object_id: str) -> dict[str, Any]:
        return {"mesh": True}

    def rows(self, object_id: str, made: FromBlender) -> list[Row]:
        rng = rng_for(object_id, seed=self.seed, purpose=self.name)
        return [{"object_id": object_id} | sample_points(made.mesh, POINTS_PER_OBJECT, rng)]


@dataclass(frozen=True, kw_only=True)
class BlenderPass:
    """Stages over OBJECTS in one piece of work, which opens each asset once."""

    stages: tuple[AssetStage, ...]
    blender: BlenderSettings = BlenderSettings()

    def start(self) -> "BlenderWork":
        """Raises DeviceError when a stage asks for EEVEE, and the worker's machine has no GPU for it."""
        if not any(isinstance(stage, RenderViews) and stage.engine == "eevee" for stage in self.stages):
            return BlenderWork(self)
        gpu_of_eevee(self.blender)
        return BlenderWork(replace(self, blender=replace(self.blender, device="cpu")))  # Cycles has nothing to do


class BlenderWork:
    """The work of a BlenderPass: owns a warm Blender until it is closed."""

    def __init__(self, settings: BlenderPass):
        self._stages = settings.stages
        self.blender = Blender(settings.blender)

    def close(self) -> None:
        self.blender.close()

    def __call__(self, tasks: list[Task]) -> Made:
        made = Made()
        for task in tasks:
            self._do(task, [stage for stage in self._stages if stage.name in task.keys], made)
        return made

    def _do(self, task: Task, asked: list[AssetStage], made: Made) -> None:
        try:
            opened = self._open(task, asked)
        except ObjectError as error:
            if error.reason in LOST and len(asked) > 1:  # what cost Blender its life may be one stage's alone
                for stage in asked:
                    self._do(task, [stage], made)
            else:
                for stage in asked:
                    made.fail(stage.name, task.id, error)
            return
        for stage in asked:
            try:
                made.add(stage.name, stage.rows(task.id, opened))
            except ObjectError as error:
                made.fail(stage.name, task.id, error)

    def _open(self, task: Task, asked: list[AssetStage]) -> FromBlender:
        """Has Blender open the asset and make what these stages need. Raises ObjectError."""
        [row] = task.rows
        request = Request(
            asset=row["asset_uri"],
            format=row["asset_format"],
            companions=tuple((file["role"], file["name"], file["uri"]) for file in row["companions"]),
            front=row["front"],
        )
        for stage in asked:
            request = replace(request, **stage.asks(task.id))
        return FromBlender(*self.blender.do(request))
