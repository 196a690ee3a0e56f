"""A PLY looked into before Blender opens it. The format: http://paulbourke.net/dataformats/ply/."""

from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from pipeline.assets.mesh_file import MeshFile

_NUMBERS = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass
class _Element:
    """One kind of thing in a PLY. `properties`: the kind of the number and "", or of a list's length and of its items; the name."""

    name: str
    count: int
    properties: list[tuple[str, str, str]] = field(default_factory=list)

    def fewest_bytes(self, order: str) -> int:
        """What it takes at the least: in a text a digit and a space per number; a face has three corners."""
        numbers = [kind for kind, _, _ in self.properties]
        if self.name == "face":
            numbers += 3 * [items for _, items, name in self.properties if name in ("vertex_indices", "vertex_index")]
        return self.count * sum(np.dtype(kind).itemsize if order else 2 for kind in numbers)


def examine_ply(mesh: MeshFile) -> None:
    """Raises ObjectError: not_a_mesh_file, parse_error, truncated, no_vertices, no_faces, non_finite_geometry, index_out_of_range.

    The faces of a binary PLY are looked at where all have as many corners; else they are left to Blender.
    """
    with open(mesh.path, "rb") as file:
        order, elements = _header(mesh, file)
        start = file.tell()
        counts = {element.name: element.count for element in elements}
        vertices, faces = counts.get("vertex", 0), counts.get("face", 0)
        mesh.check_shape(vertices, faces)
        fewest = start + sum(element.fewest_bytes(order) for element in elements)
        if fewest - (not order) > mesh.size:  # the last line of a text may lack its end
            said = f"states {vertices} vertices and {faces} faces, and has {mesh.size} bytes"
            raise mesh.error("truncated", said)
        if [element.name for element in elements[:2]] != ["vertex", "face"]:
            return  # an order that hardly anybody writes
        if not order:
            lines = mesh.lines(file)
            mesh.check_vertex_lines(lines, vertices)
            if len(elements[1].properties) == 1:
                mesh.check_face_lines(lines, faces, vertices)
            return
    if not any(items for _, items, _ in elements[0].properties):
        _check_binary(mesh, order, start, *elements[:2])


def _header(mesh: MeshFile, file) -> tuple[str, list[_Element]]:
    """The order of bytes, "" for a text, and what comes after the header."""
    if file.readline(100).strip() != b"ply":
        raise mesh.no("PLY")
    order, elements = "", []
    for line in islice(mesh.lines(file), 1000):
        words = line.decode(errors="replace").split()
        try:
            match words:
                case ["format", kind, *_]:
                    order = _ORDERS[kind]
                case ["element", name, count] if count.isdecimal():
                    elements.append(_Element(name, int(count)))
                case ["property", "list", length, kind, name] if _NUMBERS[length][0] != "f":
                    elements[-1].properties.append((_NUMBERS[length], _NUMBERS[kind], name))
                case ["property", kind, name]:
                    elements[-1].properties.append((_NUMBERS[kind], "", name))
                case ["end_header"]:
                    return order, elements
                case ["element" | "property" | "format", *_]:
                    raise ValueError
        except (KeyError, ValueError, IndexError):
            raise mesh.error("parse_error", f"has the line {' '.join(words)[:60]!r} in its header") from None
    raise mesh.error("truncated", "ends in its header")


def _check_binary(mesh: MeshFile, order: str, start: int, vertex: _Element, face: _Element) -> None:
    columns = [(name, order + kind) for kind, _, name in vertex.properties]
    if len(dict(columns)) < len(columns):
        raise mesh.error("parse_error", "has two properties of one name")
    rows = np.memmap(mesh.path, np.dtype(columns), "r", start, (vertex.count,))
    for name in {"x", "y", "z"} & set(rows.dtype.names):
        if not np.isfinite(rows[name]).all():
            raise mesh.error("non_finite_geometry", f"has vertices whose {name} is NaN or infinite")
    if len(face.properties) != 1 or not face.properties[0][1]:
        return
    [(length, kind, _)] = face.properties
    start += rows.nbytes
    corners = max(int(np.fromfile(mesh.path, order + length, 1, offset=start)[0]), 0)
    if start + face.count * (np.dtype(length).itemsize + corners * np.dtype(kind).itemsize) <= mesh.size:
        row = np.dtype([("length", order + length), ("corners", order + kind, (corners,))])
        faces = np.memmap(mesh.path, row, "r", start, (face.count,))
        if (faces["length"] == corners).all():
            mesh.check_corners(faces["corners"], vertex.count)
