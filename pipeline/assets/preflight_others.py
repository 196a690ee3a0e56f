"""STL, OFF and the formats that only their importers understand: what their first bytes tell at little cost."""

import re
import struct
import zipfile
from collections.abc import Callable
from itertools import islice

import numpy as np

from pipeline.assets.mesh_file import MeshFile
from pipeline.assets.preflight_ply import examine_ply
from pipeline.stage import ObjectError

_STL_ROW = np.dtype([("normal", "<f4", 3), ("corners", "<f4", 9), ("more", "<u2")])
_LINES = 5_000  # of a text looked at at a time


def examine_stl(mesh: MeshFile) -> None:
    """Raises ObjectError: not_a_mesh_file, parse_error, truncated, no_vertices, no_faces, non_finite_geometry.

    A binary STL is one whose size is what its count of triangles makes: so Blender takes it.
    """
    head, size = mesh.head, mesh.size
    count = int.from_bytes(head[80:84], "little")
    if size == 84 + 50 * count:
        mesh.check_shape(3 * count, count)
        if not np.isfinite(np.memmap(mesh.path, _STL_ROW, "r", 84, (count,))["corners"]).all():
            raise mesh.error("non_finite_geometry", "has corners that are NaN or infinite")
        return
    if not re.match(rb"\s*solid\b(?s:.*)(?:facet|endsolid)", head):
        error = mesh.no("STL")
        if error.reason == "not_a_mesh_file":
            raise error
        mesh.check_shape(3 * count, count)
        said = f"states {count} triangles, which take {84 + 50 * count} bytes, and has {size}"
        raise mesh.error("truncated" if size < 84 + 50 * count else "parse_error", said)
    corners = 0
    with open(mesh.path, "rb") as file:
        lines = mesh.lines(file)
        while block := list(islice(lines, _LINES)):
            vertices = [line for line in block if line.lstrip()[:6].lower() == b"vertex"]
            mesh.check_vertex_lines(iter(vertices), len(vertices))
            corners += len(vertices)
    mesh.check_shape(corners, corners // 3)


def examine_off(mesh: MeshFile) -> None:
    """Raises ObjectError: not_a_mesh_file, parse_error, truncated, no_vertices, no_faces, non_finite_geometry, index_out_of_range.

    The format: http://www.geomview.org/docs/html/OFF.html; ModelNet glues the counts to the word OFF.
    """
    with open(mesh.path, "rb") as file:
        lines = (line for line in mesh.lines(file) if line.strip() and not line.lstrip().startswith(b"#"))
        begin = re.match(rb"\s*(?:ST)?C?N?4?n?OFF(.*)", next(lines, b""), re.DOTALL)
        if not begin:
            raise mesh.no("OFF")
        stated = begin[1].strip() or next(lines, b"").strip()
        counts = re.match(rb"(\d+)\s+(\d+)\s+\d+", stated)
        if not counts:
            said = stated[:60].decode(errors="replace")
            raise mesh.error("parse_error", f"states {said!r} where an OFF has its three counts")
        vertices, faces = int(counts[1]), int(counts[2])
        mesh.check_shape(vertices, faces)
        if 6 * vertices + 2 * faces > mesh.size:  # of a vertex, three digits and what parts them
            raise mesh.error("truncated", f"states {vertices} vertices and {faces} faces, and has {mesh.size} bytes")
        mesh.check_vertex_lines(lines, vertices)
        mesh.check_face_lines(lines, faces, vertices)


def examine_zip(mesh: MeshFile) -> None:
    """Raises ObjectError: not_a_mesh_file, parse_error, truncated, unpacked_too_large.

    3MF and USDZ are zip archives: what they hold is added up before anything is unpacked.
    """
    if not mesh.head.startswith(b"PK"):
        raise mesh.no("zip archive, as 3MF and USDZ are")
    try:
        with zipfile.ZipFile(mesh.path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        raise mesh.error("truncated", f"is a broken zip archive ({error})") from None
    unpacked, most = sum(info.file_size for info in infos) >> 20, mesh.limits.unpacked_mb
    if unpacked > most:
        said = f"{mesh.path.name} holds {unpacked} MB once unpacked; {most} MB are let in (limits.unpacked_mb)"
        raise ObjectError("unpacked_too_large", said)
    endings = (".model",) if mesh.path.suffix.lower() == ".3mf" else (".usd", ".usda", ".usdc")
    if not any(info.filename.lower().endswith(endings) for info in infos):
        raise ObjectError("not_a_mesh_file", f"{mesh.path.name} is a zip archive without any file {' or '.join(endings)} inside")


def examine_fbx(mesh: MeshFile) -> None:
    """Raises ObjectError: not_a_mesh_file, parse_error, truncated. The records of a binary FBX say where they end, in 64 bits from
    version 7.5 on; a record that ends at 0 is the last."""
    head, size = mesh.head, mesh.size
    if not head.startswith(b"Kaydara FBX Binary"):
        if not re.search(rb"^\s*(?:; FBX|FBXHeaderExtension)", head, re.MULTILINE):
            raise mesh.no("FBX")
        return
    number = struct.Struct("<Q" if int.from_bytes(head[23:27], "little") >= 7500 else "<I")
    place = 27
    with open(mesh.path, "rb") as file:
        while place:
            file.seek(place)
            read = file.read(number.size)
            end = number.unpack(read)[0] if len(read) == number.size else size + 1
            if end > size or 0 < end <= place:
                raise mesh.error("truncated", f"is cut: its records go on after byte {place}, and it has {size}")
            place = end


def examine_dae(mesh: MeshFile) -> None:
    """Raises ObjectError: not_a_mesh_file, parse_error, truncated."""
    if b"<COLLADA" not in mesh.head.replace(b"\0", b""):  # as it may be UTF-16
        raise mesh.no("Collada")
    with open(mesh.path, "rb") as file:
        file.seek(max(mesh.size - 1024, 0))
        if b"</COLLADA" not in file.read().replace(b"\0", b""):
            raise mesh.error("truncated", "does not end as Collada does")


def examine_usd(mesh: MeshFile) -> None:
    """Raises ObjectError: not_a_mesh_file, parse_error, truncated. A crate says at byte 16 where its table of contents is
    (_BootStrap in pxr/usd/usd/crateFile.h)."""
    head = mesh.head
    if head.startswith(b"PXR-USDC"):
        if len(head) < 24 or int.from_bytes(head[16:24], "little") >= mesh.size:
            raise mesh.error("truncated", "is cut before its table of contents")
    elif head.startswith(b"PK"):
        examine_zip(mesh)
    elif not head.startswith(b"#usda"):
        raise mesh.no("USD")


def examine_abc(mesh: MeshFile) -> None:
    """Raises ObjectError: not_a_mesh_file, parse_error, truncated, unsupported_version. In Ogawa, byte 5 says whether the file was
    finished, bytes 8 to 16 where its root is."""
    head = mesh.head
    if head.startswith(b"\x89HDF"):
        said = f"{mesh.path.name} is an Alembic of the old kind (HDF5), which Blender cannot read: convert it with abcconvert"
        raise ObjectError("unsupported_version", said)
    if not head.startswith(b"Ogawa"):
        raise mesh.no("Alembic")
    if len(head) < 16 or head[5] != 0xFF or int.from_bytes(head[8:16], "little") >= mesh.size:
        raise mesh.error("truncated", "was not written to its end")


EXAMINERS: dict[str, Callable[[MeshFile], None]] = {
    "ply": examine_ply,
    "stl": examine_stl,
    "off": examine_off,
    "3mf": examine_zip,
    "usdz": examine_zip,
    "fbx": examine_fbx,
    "dae": examine_dae,
    "usd": examine_usd,
    "usda": examine_usd,
    "usdc": examine_usd,
    "abc": examine_abc,
}
