"""A triangle mesh with its materials, as it was rendered: what Blender hands out and points are sampled from."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float16, Float32, Float64, Int32, UInt8

# A paint says how a material's colour (or alpha) comes about: a small expression tree, plain JSON, evaluated per surface point by
# `pipeline.points.paint`. Every value is four numbers: a linear colour with alpha, a vector in the first three, or one number in
# the first three.
#
#   {"kind": "constant", "value": [r, g, b, a]}
#   {"kind": "attribute", "name": LAYER}                   a colour layer of the mesh
#   {"kind": "uv", "name": LAYER}                          a texture coordinate (u, v, 0, 1) of the mesh
#   {"kind": "affine", "of": PAINT, "matrix": [3][4]}      a texture coordinate moved
#   {"kind": "texture", "image": INDEX, "vector": PAINT, "srgb": bool, "extend": "repeat" | "mirror" | "clamp" | "clip",
#    "interpolation": "linear" | "nearest"}
#   {"kind": "channel", "of": PAINT, "channel": 0..3}      one channel in all
#   {"kind": "grey", "of": PAINT, "weights": [3]}          weighted sum of the first three channels in all
#   {"kind": "combine", "channels": [PAINT, PAINT, PAINT]} red, green and blue from the first channel of each
#   {"kind": "mix", "blend": "mix" | "multiply" | "add" | ..., "factor": PAINT, "a": PAINT, "b": PAINT, "clamp": bool}
#   {"kind": "math", "operation": "add" | "less_than" | ..., "operands": [PAINT, ...], "clamp": bool}      channel by channel
Paint = dict


@dataclass(frozen=True, kw_only=True)
class Material:
    """`color` and `alpha` (its first channel) are paints; `guessed` names what could not be followed exactly."""

    name: str
    color: Paint
    alpha: Paint
    guessed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """All visible surfaces of an object in the canonical frame (see schemas.tables), triangulated.

    `uvs` and `colors` are per corner: layer name -> (faces, 3, 2) and (faces, 3, 4) linear RGBA. A layer that only a part of the
    object has is 0 elsewhere. `material` is the index into `materials` per face; -1: none. `images` are (height, width, 4) in
    file order (first row at the top, u = 0 left, v = 0 at the BOTTOM row, as in Blender): uint8, or float16 where the file holds
    more than 8 bits.
    """

    vertices: Float32[np.ndarray, "v 3"]
    faces: Int32[np.ndarray, "f 3"]
    material: Int32[np.ndarray, " f"]
    uvs: dict[str, Float32[np.ndarray, "f 3 2"]] = field(default_factory=dict)
    colors: dict[str, Float32[np.ndarray, "f 3 4"]] = field(default_factory=dict)
    materials: tuple[Material, ...] = ()
    images: tuple[UInt8[np.ndarray, "_ _ 4"] | Float16[np.ndarray, "_ _ 4"], ...] = ()
    canonical_from_asset: Float64[np.ndarray, "4 4"] = field(default_factory=lambda: np.eye(4))

    @property
    def has_color(self) -> bool:
        """Whether the asset says anything about colour at all: a material, or vertex colours."""
        return bool((self.material >= 0).any())


def load(folder: Path) -> Mesh:
    """The mesh that render/blender_mesh.py wrote into a folder."""
    about = json.loads((folder / "mesh.json").read_text())
    with np.load(folder / "mesh.npz") as arrays:
        return Mesh(
            vertices=arrays["vertices"],
            faces=arrays["faces"],
            material=arrays["material"],
            uvs={name: arrays[f"uv{i}"] for i, name in enumerate(about["uvs"])},
            colors={name: arrays[f"color{i}"] for i, name in enumerate(about["colors"])},
            materials=tuple(Material(**(m | {"guessed": tuple(m["guessed"])})) for m in about["materials"]),
            images=tuple(np.load(folder / "images" / f"{i}.npy") for i in range(about["images"])),
            canonical_from_asset=np.array(about["canonical_from_asset"]),
        )
