"""What is asked of Blender and what it answers: the JSON that both sides read. Standard library only."""

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

# The formats that can be read, and the axes of "the asset's coordinates" in each:
#   y-up      +y is up and +z the front: the format says so, or (OBJ) it is the custom
#   declared  the file declares its axes and its unit; coordinates are counted as in y-up, in metres
#   as-is     the format says nothing; the numbers are taken as Blender takes them: +z is up, -y the front
# Not read: .blend, which may carry programs.
AXES = {
    "glb": "y-up",
    "gltf": "y-up",
    "obj": "y-up",
    "fbx": "declared",
    "dae": "declared",
    "usd": "declared",
    "usda": "declared",
    "usdc": "declared",
    "usdz": "declared",
    "abc": "y-up",
    "ply": "as-is",
    "stl": "as-is",
    "off": "as-is",
    "3mf": "as-is",
}


# With less room than this left on its disk, Blender answers with this reason: it says nothing of a picture that was cut short.
SPARE_BYTES = 64 << 20
DISK_FULL = "disk_full"


class AssetError(Exception):
    """The asset cannot be used; `reason` as in pipeline.stage.ObjectError. Raised inside Blender, handed out as JSON."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason, self.message = reason, message


@dataclass(frozen=True, kw_only=True)
class View:
    """One camera: intrinsics in pixels, `camera_to_world` row-major 4x4, OpenCV axes to the canonical frame."""

    fx: float
    fy: float
    cx: float
    cy: float
    camera_to_world: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Cycles:
    """How exactly the pictures are computed. The defaults are the fewest samples that look clean at 224 x 224, denoised."""

    samples: int = 8  # per pixel, at most
    noise_threshold: float = 0.05  # a pixel this quiet gets no more samples; looked at after every 16
    denoise: bool = True


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """`lit`: as the materials look under a soft light. `albedo`: their unlit base colour, exact in sRGB, to measure with."""

    views: tuple[View, ...]
    width: int
    height: int
    shading: Literal["lit", "albedo"] = "lit"
    engine: Literal["cycles", "eevee"] = "cycles"
    cycles: Cycles = Cycles()


@dataclass(frozen=True, kw_only=True)
class Maps:
    """Depth and normals at the centre of each pixel, of these views."""

    views: tuple[View, ...]
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Request:
    """One asset, and what to make of it: pictures (000.png, 001.png, ... in view order), maps (in `maps/`), its mesh (in `mesh/`).

    `asset`: a path or a URI; inside Blender, the copy that it gets. `companions`: its other files, (role, name, uri)
    each, as in OBJECTS.companions; None: those that it refers to in its own folder. `front`: as in OBJECTS. `device`: cpu, or a
    backend of Cycles. `device`, `threads` and where the results go are filled in by render.blender.Blender.
    """

    asset: str
    format: str
    companions: tuple[tuple[str, str, str], ...] | None = None
    front: str | None = None
    pictures: Pictures | None = None
    maps: Maps | None = None
    mesh: bool = False
    folder: str | None = None
    device: str = "cpu"
    threads: int | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Request":
        values = json.loads(text)
        if pictures := values.pop("pictures"):
            views = tuple(View(**view) for view in pictures.pop("views"))
            values["pictures"] = Pictures(views=views, cycles=Cycles(**pictures.pop("cycles")), **pictures)
        if maps := values.pop("maps"):
            values["maps"] = Maps(views=tuple(View(**view) for view in maps.pop("views")), **maps)
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a request.

    `reason` and `message`: why the asset cannot be used; null: it could. `bug`: a traceback, when Blender's side itself is at
    fault. `canonical_from_asset`: row-major 4x4. `missing_textures`: textures that the asset names and that could not be read.
    `thickest`: the height of the thickest triangle in the canonical frame (of the first that are looked at to find a thick one).
    `substituted_materials` and `device`: as in VIEWS. `seconds`: wall clock of each step: import, mesh, first view, views, maps.
    """

    reason: str | None = None
    message: str | None = None
    bug: str | None = None
    canonical_from_asset: tuple[float, ...] | None = None
    missing_textures: int = 0
    substituted_materials: int = 0
    thickest: float | None = None
    device: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Answer":
        return cls(**json.loads(text))
