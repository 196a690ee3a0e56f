"""A triangle mesh with its materials, as it was rendered: what Blender hands out and points are sampled from."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt8

# A paint says how a material's colour (or alpha) comes about; a small expression tree, plain JSON, evaluated per surface point by
# `pipeline.points.paint`. All values are linear RGBA in 0..1.
#
#   {"kind": "constant", "value": [r, g, b, a]}
#   {"kind": "texture", "image": INDEX, "uv": LAYER, "srgb": bool, "extend": "repeat"|"mirror"|"clamp"|"clip",
#    "interpolation": "linear"|"nearest", "transform": [2x3 row-major, applied to (u, v, 1)] or null}
#   {"kind": "attribute", "name": LAYER}                      a per-corner colour layer (linear RGBA)
#   {"kind": "mix", "blend": "mix"|"multiply"|"add"|..., "factor": PAINT, "a": PAINT, "b": PAINT}
#   {"kind": "channel", "of": PAINT, "channel": 0..3}         one channel as a grey value
#   {"kind": "math", "operation": "multiply"|"add"|"subtract"|"greater_than"|"less_than"|..., "a": PAINT, "b": PAINT}
Paint = dict


@dataclass(frozen=True, kw_only=True)
class Material:
    """`color` and `alpha` (read from its first channel) are paints; `guessed` names what could not be followed exactly."""

    name: str
    color: Paint
    alpha: Paint
    guessed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """All visible surfaces of an object in the canonical frame (see schemas.tables), triangulated.

    `uvs` and `colors` are per corner: layer name -> (faces, 3, 2) and (faces, 3, 4) linear RGBA. A layer that only a part of the
    object has is 0 elsewhere. `material` is the index into `materials` per face; -1: none. `images` are (height, width, 4) in
    file order (first row at the top, u = 0 left, v = 0 at the BOTTOM row, as in Blender).
    `has_color`: whether the asset says anything about colour at all (a material, a texture or vertex colours).
    """

    vertices: Float32[np.ndarray, "v 3"]
    faces: Int32[np.ndarray, "f 3"]
    material: Int32[np.ndarray, " f"]
    uvs: dict[str, Float32[np.ndarray, "f 3 2"]] = field(default_factory=dict)
    colors: dict[str, Float32[np.ndarray, "f 3 4"]] = field(default_factory=dict)
    materials: tuple[Material, ...] = ()
    images: tuple[UInt8[np.ndarray, "h w 4"], ...] = ()
    has_color: bool = True
    canonical_from_asset: Float64[np.ndarray, "4 4"] = field(default_factory=lambda: np.eye(4))
