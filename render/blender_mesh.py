"""The mesh out of Blender: all visible surfaces with what gives them their colour. Runs inside Blender.

`collect` reads the evaluated scene, `write` puts it into a folder that `pipeline.mesh.load` turns into a `pipeline.mesh.Mesh`; the
paints (how a material's colour comes about) are described there. Layers named "" are a mesh's own default: the UV map or colour
attribute that Blender renders where a material names none.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import bpy
import numpy as np

from render.blender_paints import MISSING, Materials, Picture, readable
from render.spec import AssetError

# A texture is stored with at most this many pixels a side: finer detail than 10,000 points, or views of 224 pixels, can show.
MAX_IMAGE_SIDE = 2048

LONGEST_NAME = 63  # bytes of a name that Blender keeps

MOST_FACES = 20_000_000  # as in pipeline.assets.limits; here they count as rendered, with what modifiers and instances make

# Heights of triangles, in the canonical frame: below the first all of it is the rounding of float32, the second is a pixel's size.
THINNEST, THICK = 5e-7, 0.01
BLOCK = 1 << 16  # triangles looked at together


@dataclass
class Collected:
    """What `collect` found, in Blender's world axes (z up).

    vertices (V, 3) float64, all of them used by a face; faces (F, 3) int32; material (F,) int32, index into `materials`, -1: none;
    uvs and colors: layer name -> (F, 3, 2) and (F, 3, 4) float32, linear RGBA, 0 where an object lacks the layer;
    materials: {name, color, alpha, guessed}; images: what `texture` paints refer to by index; not_understood: names of materials
    that have something which no paint, or Blender itself, can stand for.
    """

    vertices: np.ndarray
    faces: np.ndarray
    material: np.ndarray
    uvs: dict[str, np.ndarray]
    colors: dict[str, np.ndarray]
    materials: list[dict]
    images: list[Picture]
    not_understood: set[str]


# ---------------------------------------------------------------------------------------------------------------- surfaces


@dataclass
class _Part:
    """One mesh in its own coordinates; the arrays as in `Collected`."""

    vertices: np.ndarray
    faces: np.ndarray
    material: np.ndarray
    uvs: dict[str, np.ndarray]
    colors: dict[str, np.ndarray]


def collect(depsgraph: bpy.types.Depsgraph) -> Collected:
    """All surfaces of the scene that a render shows: evaluated, with instances, triangulated, and their materials' paints.

    Raises AssetError("too_many_faces").
    """
    materials = Materials()
    parts: dict[tuple, _Part] = {}
    placed: list[tuple[_Part, np.ndarray]] = []
    count = 0
    for instance in depsgraph.object_instances:
        shown = instance.object
        # The surface of a curve, text or metaball comes a second time, as an instance that is a mesh.
        if shown.type != "MESH" or not instance.show_self or shown.hide_render:
            continue
        mesh = shown.data
        slots = [materials.index(slot.material) for slot in shown.material_slots]
        key = (mesh.as_pointer(), tuple(slots))
        if key not in parts:
            parts[key] = _read(mesh, slots, materials)
        if len(parts[key].faces):
            placed.append((parts[key], np.array(instance.matrix_world, dtype=np.float64)))
        count += len(parts[key].faces)
        if count > MOST_FACES:
            raise AssetError("too_many_faces", f"with all its instances the asset shows more than {MOST_FACES:,} triangles")
    return _joined(placed, materials)


def thickest(collected: Collected, canonical_from_blender: np.ndarray) -> float:
    """The height of the thickest triangle in the canonical frame; it is looked for until one has THICK.

    Raises AssetError("no_area") when all of them are slivers that only rounding keeps from being lines.
    """
    scale, found = np.linalg.norm(canonical_from_blender[0, :3]), 0.0
    for start in range(0, len(collected.faces), BLOCK):
        a, b, c = (collected.vertices[collected.faces[start : start + BLOCK, corner]] * scale for corner in range(3))
        longest = np.max([np.linalg.norm(side, axis=1) for side in (b - a, c - b, a - c)], axis=0)
        height = np.divide(np.linalg.norm(np.cross(b - a, c - a), axis=1), longest, out=np.zeros_like(longest), where=longest > 0)
        found = max(found, float(height.max()))
        if found >= THICK:
            break
    if found < THINNEST:
        raise AssetError("no_area", f"the {len(collected.faces)} triangles have no area: all corners lie on points or lines")
    return found


def _read(mesh: bpy.types.Mesh, slots: list[int], materials: Materials) -> _Part:
    """The triangles of a mesh, and of its layers those that its materials read."""
    mesh.calc_loop_triangles()
    count = len(mesh.loop_triangles)
    vertices = _numbers(mesh.vertices, "co", len(mesh.vertices), 3, np.float32)
    faces = _numbers(mesh.loop_triangles, "vertices", count, 3, np.int32)
    corners = _numbers(mesh.loop_triangles, "loops", count, 3, np.int32)
    vertices, faces = _without_unused(vertices.astype(np.float64), faces)

    if slots:
        polygon = _numbers(mesh.loop_triangles, "polygon_index", count, 1, np.int32)[:, 0]
        slot = _numbers(mesh.polygons, "material_index", len(mesh.polygons), 1, np.int32)[polygon, 0]
        material = np.array(slots, dtype=np.int32)[np.clip(slot, 0, len(slots) - 1)]
    else:
        material = np.full(count, -1, dtype=np.int32)

    uvs, colors = {}, {}
    for name in sorted(set().union(*(materials.layers[i]["uv"] for i in slots if i >= 0))):
        layer = _default_uv(mesh) if name == "" else mesh.uv_layers.get(name)
        if layer is not None:
            uvs[name] = _numbers(layer.uv, "vector", len(mesh.loops), 2, np.float32)[corners]
    for name in sorted(set().union(*(materials.layers[i]["attribute"] for i in slots if i >= 0))):
        layer = _default_color(mesh) if name == "" else mesh.color_attributes.get(name)
        if layer is not None and layer.domain in {"POINT", "CORNER"}:
            values = _numbers(layer.data, "color", len(layer.data), 4, np.float32)  # Blender hands out linear colours
            if layer.domain == "POINT":
                values = values[_numbers(mesh.loops, "vertex_index", len(mesh.loops), 1, np.int32)[:, 0]]
            colors[name] = values[corners]
    return _Part(vertices, faces, material, uvs, colors)


def _numbers(collection, name: str, count: int, width: int, dtype) -> np.ndarray:
    values = np.empty(count * width, dtype=dtype)
    collection.foreach_get(name, values)
    return values.reshape(count, width)


def _default_uv(mesh: bpy.types.Mesh):
    return next((layer for layer in mesh.uv_layers if layer.active_render), None)


def _default_color(mesh: bpy.types.Mesh):
    return mesh.color_attributes[mesh.color_attributes.render_color_index] if len(mesh.color_attributes) else None


def _without_unused(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Loose vertices are not seen; left in, they would move the centre and the size of the object."""
    used = np.zeros(len(vertices), dtype=bool)
    used[faces] = True
    if used.all():
        return vertices, faces
    return vertices[used], (np.cumsum(used, dtype=np.int32) - 1)[faces]


def _joined(placed: list[tuple[_Part, np.ndarray]], materials: Materials) -> Collected:
    faces_total = sum(len(part.faces) for part, _ in placed)
    uvs = {name: np.zeros((faces_total, 3, 2), np.float32) for part, _ in placed for name in part.uvs}
    colors = {name: np.zeros((faces_total, 3, 4), np.float32) for part, _ in placed for name in part.colors}
    faces = np.empty((faces_total, 3), np.int32)
    material = np.empty(faces_total, np.int32)
    vertices, first_face, first_vertex = [np.empty((0, 3))], 0, 0
    for part, matrix in placed:
        here = slice(first_face, first_face + len(part.faces))
        # A mirroring transform turns triangles inside out: their corners are taken the other way round.
        order = [0, 2, 1] if np.linalg.det(matrix[:3, :3]) < 0 else [0, 1, 2]
        faces[here] = part.faces[:, order] + first_vertex
        material[here] = part.material
        for name, values in part.uvs.items():
            uvs[name][here] = values[:, order]
        for name, values in part.colors.items():
            colors[name][here] = values[:, order]
        vertices.append(moved(part.vertices, matrix))
        first_face, first_vertex = here.stop, first_vertex + len(part.vertices)
    return Collected(
        np.concatenate(vertices), faces, material, uvs, colors, materials.found, materials.images, materials.not_understood
    )


def moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points (n, 3) under a 4x4 affine matrix. Written out, because a matrix product rounds differently from machine to machine."""
    x, y, z = points.T
    return np.stack([row[0] * x + row[1] * y + row[2] * z + row[3] for row in matrix[:3]], axis=1)


# ---------------------------------------------------------------------------------------------------------------- pictures


def repair_missing_images() -> int:
    """Put white where a texture cannot be read, which Blender would show in magenta, and return how many there are.

    White leaves the material's own factors as they are. A normal map is taken away altogether.
    """
    white, missing = None, set()
    trees = [material.node_tree for material in bpy.data.materials if material.node_tree] + list(bpy.data.node_groups)
    for tree in trees:
        for node in [node for node in tree.nodes if node.type == "TEX_IMAGE"]:
            if node.image is not None and readable(node.image):
                continue
            missing.add(node.image.name_full if node.image else (tree.name_full, node.name))
            for link in [link for link in node.outputs["Color"].links if link.to_node.type == "NORMAL_MAP"]:
                tree.links.remove(link)
            if white is None:
                white = bpy.data.images.new(MISSING, 1, 1)
                white.generated_color = (1, 1, 1, 1)
            node.image = white
    return len(missing)


def substituted_materials(collected: Collected, asset: Path) -> int:
    """How many of the materials shown are not as the asset has them: not understood, or named by an OBJ and in no MTL (of which
    Blender makes a grey one and says nothing).

    `asset`: the copy that pipeline.assets.staging makes; it has all the materials of an OBJ in the file beside it.
    """
    if asset.suffix != ".obj":
        return len(collected.not_understood)
    mtl = asset.with_suffix(".mtl")
    lines = mtl.read_text(encoding="utf-8").split("\n") if mtl.exists() else ()
    known = {line.split(maxsplit=1)[1].strip() for line in lines if re.match(r"newmtl\s+\S", line)}
    kept = {name.encode()[:LONGEST_NAME].decode(errors="ignore") for name in known}
    # A material that shows vertex colours is ours: an OBJ has no way to ask for one.
    named = {material["name"] for material in collected.materials if material["color"]["kind"] != "attribute"}
    return len(named - kept)


def _pixels(used: Picture) -> np.ndarray:
    """(height, width, 4), first row at the top: uint8 as in the file, or float16 for a picture of more than 8 bits."""
    image = used.image
    width, height = image.size
    pixels = np.empty(height * width * 4, dtype=np.float32)
    image.pixels.foreach_get(pixels)
    pixels = pixels.reshape(height, width, 4)[::-1]
    step = -(-max(width, height) // MAX_IMAGE_SIDE)
    if step > 1:
        pixels = _reduced(pixels, step)
    if used.alpha == "multiplied":
        pixels[..., :3] *= pixels[..., 3:]
    elif used.alpha == "ignored":
        pixels[..., 3] = 1
    return pixels.astype(np.float16) if image.is_float else np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def _reduced(pixels: np.ndarray, step: int) -> np.ndarray:
    """Means over squares of `step` pixels; what is left at the lower and right edge goes into smaller ones."""
    rows, columns = (np.arange(0, size, step) for size in pixels.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(pixels, rows, axis=0), columns, axis=1)
    counts = np.diff([*rows, pixels.shape[0]])[:, None] * np.diff([*columns, pixels.shape[1]])[None]
    return sums / counts[..., None].astype(np.float32)


# ---------------------------------------------------------------------------------------------------------------- the folder


def write(collected: Collected, canonical_from_blender: np.ndarray, folder: Path, canonical_from_asset: np.ndarray) -> None:
    """Write mesh.json, mesh.npz and images/*.npy into `folder`, which must exist; `pipeline.mesh.load` reads them.

    canonical_from_blender and canonical_from_asset: 4x4, to the canonical frame of schemas.tables, from Blender's world and from
    the coordinates of the asset's file.
    """
    folder = Path(folder)
    arrays = {
        "vertices": moved(collected.vertices, np.asarray(canonical_from_blender, dtype=np.float64)).astype(np.float32),
        "faces": collected.faces,
        "material": collected.material,
    }
    # A layer's name may be any text, an array's name becomes a file's name: arrays are numbered, names stand in the JSON.
    for kind, layers in (("uv", collected.uvs), ("color", collected.colors)):
        arrays |= {f"{kind}{i}": values for i, values in enumerate(layers.values())}
    np.savez(folder / "mesh.npz", **arrays)
    if collected.images:
        (folder / "images").mkdir(exist_ok=True)
    for i, used in enumerate(collected.images):
        np.save(folder / "images" / f"{i}.npy", _pixels(used))
    (folder / "mesh.json").write_text(
        json.dumps(
            {
                "uvs": list(collected.uvs),
                "colors": list(collected.colors),
                "materials": collected.materials,
                "images": len(collected.images),
                "canonical_from_asset": np.asarray(canonical_from_asset, dtype=np.float64).tolist(),
            }
        )
    )
