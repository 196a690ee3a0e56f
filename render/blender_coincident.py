"""Runs inside Blender: faces that lie in one place are taken apart, because in Cycles they shade each other black.

Models are full of them: sheets given a face for either side, and parts that were pasted twice.
"""

import bmesh
import bpy
import numpy as np

SAME = 1e-6  # positions are compared to this share of the scene's size, about the precision of float32
APART = 1e-4  # two sides of a sheet are put so far apart, as a share of their object's size
NORMALS = "normals of before"
MANY = 2_000_000  # faces: with more, hardly one of them is as large as a pixel, and looking would take minutes


def part_coincident_faces() -> None:
    """Of faces in one place, the first stays. Another goes, unless it faces the other way and has another material: then it is
    the other side of a sheet and moves a little to where it faces. Of more than MANY faces all stay."""
    shown = [item for item in bpy.context.scene.objects if item.type == "MESH" and not item.hide_render and item.data.polygons]
    starts = np.cumsum([0, *(len(item.data.polygons) for item in shown)])
    if not shown or starts[-1] > MANY:
        return
    points = [_placed(item) for item in shown]
    grid = SAME * max(np.abs(each).max() for each in points) or 1.0
    cells = [np.rint(each / grid).astype(np.int64) for each in points]
    owners = [number if item.modifiers or item.data.shape_keys else -1 for number, item in enumerate(shown)]
    key = np.concatenate([_keys(item.data, each, owner) for item, each, owner in zip(shown, cells, owners, strict=True)])
    order = np.argsort(key, kind="stable")
    again = np.zeros(len(key), dtype=bool)
    again[order[1:]] = key[order[1:]] == key[order[:-1]]
    if not again.any():
        return
    first = np.empty(len(key), dtype=np.int64)  # of the faces in the same place
    first[order] = order[np.maximum.accumulate(np.where(again[order], 0, np.arange(len(key))))]
    normals, materials = (np.concatenate([of(item) for item in shown]) for of in (_normals, _materials))
    facing_away = np.einsum("ij,ij->i", normals, normals[first]) < 0
    other_sides = np.flatnonzero(again & facing_away & (materials != materials[first]))
    moves = np.zeros(len(key), dtype=bool)
    moves[other_sides[np.unique(first[other_sides], return_index=True)[1]]] = True  # one to a sheet
    for item, start, end in zip(shown, starts[:-1], starts[1:], strict=True):
        gone = np.flatnonzero(again[start:end] & ~moves[start:end])
        if len(gone) == end - start:
            item.hide_viewport = item.hide_render = True
        elif again[start:end].any():
            _part(item, gone, np.flatnonzero(moves[start:end]))


def _placed(item: bpy.types.Object) -> np.ndarray:
    vertices = np.empty(3 * len(item.data.vertices), np.float32)
    item.data.vertices.foreach_get("co", vertices)
    matrix = np.array(item.matrix_world)
    return vertices.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]


def _keys(mesh: bpy.types.Mesh, cells: np.ndarray, owner: int) -> np.ndarray:
    """A number for each face, the same for the same corners in any order, and `owner`: the mesh whose faces are compared with its
    own alone, as it is shown elsewhere than its vertices say; -1: any."""
    corners, starts = np.empty(len(mesh.loops), np.int32), np.empty(len(mesh.polygons), np.int32)
    mesh.loops.foreach_get("vertex_index", corners)
    mesh.polygons.foreach_get("loop_start", starts)
    hashed = _mixed(_mixed(_mixed(cells[:, 0].astype(np.uint64)) + cells[:, 1].astype(np.uint64)) + cells[:, 2].astype(np.uint64))
    return np.add.reduceat(hashed[corners], starts) + _mixed(np.array([owner + 1], np.uint64))


def _mixed(values: np.ndarray) -> np.ndarray:
    """Well-spread 64-bit numbers. Steele et al. 2014, "Fast Splittable Pseudorandom Number Generators" (SplitMix64)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _normals(item: bpy.types.Object) -> np.ndarray:
    """(faces, 3) where its faces face, in the world; not of unit length."""
    normals = np.empty(3 * len(item.data.polygons), np.float32)
    item.data.polygons.foreach_get("normal", normals)
    return normals.reshape(-1, 3) @ np.array(item.matrix_world.to_3x3().inverted_safe())


def _materials(item: bpy.types.Object) -> np.ndarray:
    """For each of its faces a number that stands for the material."""
    slots = np.empty(len(item.data.polygons), np.int32)
    item.data.polygons.foreach_get("material_index", slots)
    known = np.array([slot.material.as_pointer() if slot.material else 0 for slot in item.material_slots] or [0])
    return known[np.minimum(slots, len(known) - 1)]


def _part(item: bpy.types.Object, gone: np.ndarray, moved: np.ndarray) -> None:
    """Removes these faces of an object, and moves those. Its normals stay as they are."""
    if item.data.users > 1:
        item.data = item.data.copy()
    mesh = item.data
    normals = np.empty(3 * len(mesh.loops), np.float32)
    mesh.corner_normals.foreach_get("vector", normals)
    mesh.attributes.new(NORMALS, "FLOAT_VECTOR", "CORNER").data.foreach_set("vector", normals)
    edited = bmesh.new()
    edited.from_mesh(mesh)
    edited.faces.ensure_lookup_table()
    sides = [edited.faces[face] for face in moved]
    bmesh.ops.delete(edited, geom=[edited.faces[face] for face in gone], context="FACES")
    if sides:
        split = bmesh.ops.split(edited, geom=sides)["geom"]
        size = max(item.dimensions) / (max(map(abs, item.matrix_world.to_scale())) or 1.0)
        moves = {}
        for face in (part for part in split if isinstance(part, bmesh.types.BMFace)):
            for vertex in face.verts:
                moves.setdefault(vertex, []).append(face.normal.copy())
        for vertex, toward in moves.items():
            vertex.co += sum(toward[1:], toward[0]).normalized() * APART * size
    edited.to_mesh(mesh)
    edited.free()
    kept = np.empty(3 * len(mesh.loops), np.float32)
    mesh.attributes[NORMALS].data.foreach_get("vector", kept)
    mesh.normals_split_custom_set(kept.reshape(-1, 3))
    mesh.attributes.remove(mesh.attributes[NORMALS])
