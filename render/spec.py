"""What is asked of Blender and what it answers: the JSON that both sides read. Standard library only."""

import json
from dataclasses import asdict, dataclass
from typing import Literal

# Which axes an importer finds in a file. "y-up": the format says +y is up (or is read so), Blender turns it into its z-up frame.
# "as-is": the format says nothing, the coordinates are taken as Blender's own (z up, front -y).
AXES = {
    "glb": "y-up",
    "gltf": "y-up",
    "obj": "y-up",
    "ply": "as-is",
    "stl": "as-is",
    "off": "as-is",
}


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
    """How exactly the pictures are computed. The defaults measured best for 224 x 224: a quarter of a CPU-second per view."""

    samples: int = 16  # per pixel, at most
    min_samples: int = 8
    noise_threshold: float = 0.05  # a pixel this quiet gets no more samples
    denoise: bool = True


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """`lit`: as the materials look under a soft light. `albedo`: their unlit base colour, exact in sRGB, to measure with."""

    views: tuple[View, ...]
    width: int
    height: int
    shading: Literal["lit", "albedo"] = "lit"
    cycles: Cycles = Cycles()


@dataclass(frozen=True, kw_only=True)
class Request:
    """One asset, and what to make of it: pictures (000.png, 001.png, ... in view order), its mesh (in `mesh/`), or both.

    Where the results go and the number of threads are filled in by render.blender.Blender.
    """

    asset: str
    format: str
    pictures: Pictures | None = None
    mesh: bool = False
    folder: str | None = None
    threads: int | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Request":
        values = json.loads(text)
        if pictures := values.pop("pictures"):
            views = tuple(View(**view) for view in pictures.pop("views"))
            values["pictures"] = Pictures(views=views, cycles=Cycles(**pictures.pop("cycles")), **pictures)
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a request.

    `reason` and `message`: why the asset cannot be used; null: it could. `bug`: a traceback, when Blender's side itself is at
    fault. `canonical_from_asset`: row-major 4x4. `missing_textures`: textures that the asset names and that could not be read.
    """

    reason: str | None = None
    message: str | None = None
    bug: str | None = None
    canonical_from_asset: tuple[float, ...] | None = None
    missing_textures: int = 0
    device: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Answer":
        return cls(**json.loads(text))
