"""What Blender's importers hide, looked up in the file before they read it: cut files, and positions that are not numbers.

An importer moves a vertex that is NaN to the origin without a word, so only the file itself can tell.
"""

import base64
import json
import re
import struct
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from render.spec import AssetError

# A vertex line of an OBJ with a word in it that C's strtod would read as NaN or infinity.
OBJ_NOT_FINITE = re.compile(rb"^v[ \t][^\n#]*?[ \t][-+]?(?:nan|inf)", re.IGNORECASE | re.MULTILINE)
COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}


def check(path: Path, format: str) -> None:
    """Raises AssetError ("unreadable", "not_finite") for a file that an importer would read wrongly or not at all."""
    if not path.is_file():
        raise AssetError("unreadable", f"{path.name} is not a file")
    if path.stat().st_size == 0:
        raise AssetError("unreadable", f"{path.name} is empty")
    if format in ("glb", "gltf"):
        _check_gltf(path)
    if format == "obj" and OBJ_NOT_FINITE.search(path.read_bytes()):
        raise AssetError("not_finite", "a vertex position is NaN or infinite")


def _check_gltf(path: Path) -> None:
    document, binary = read_gltf(path)
    accessors = {
        primitive["attributes"]["POSITION"]
        for mesh in document.get("meshes", [])
        for primitive in mesh["primitives"]
        if "POSITION" in primitive["attributes"] and "KHR_draco_mesh_compression" not in primitive.get("extensions", {})
    }
    for index in sorted(accessors):
        positions = _positions(document, index, path.parent, binary)
        wrong = int((~np.isfinite(positions).all(axis=1)).sum())
        if wrong:
            raise AssetError("not_finite", f"{wrong} of {len(positions)} vertex positions are NaN or infinite (accessor {index})")


def read_gltf(path: Path) -> tuple[dict, bytes]:
    """The JSON of a .glb or .gltf, whichever the bytes are, and the binary chunk (empty if there is none)."""
    content = path.read_bytes()
    binary = b""
    if content[:4] == b"glTF":
        if len(content) < 20:
            raise AssetError("unreadable", f"{path.name} ends after {len(content)} bytes")
        version, length, size = struct.unpack_from("<III", content, 4)
        if version == 2 and length > len(content):
            raise AssetError("unreadable", f"{path.name} is cut: {len(content)} of {length} bytes are there")
        binary = content[20 + size + 8 :]
        content = content[20 : 20 + size]
    try:
        document = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise AssetError("unreadable", f"{path.name} is neither GLB nor glTF JSON: {error}") from None
    if not isinstance(document, dict):
        raise AssetError("unreadable", f"{path.name} holds no glTF object")
    return document, binary


def _positions(document: dict, index: int, folder: Path, binary: bytes) -> np.ndarray:
    """(count, 3) positions of an accessor as stored, without what a sparse accessor changes in them."""
    try:
        accessor = document["accessors"][index]
        if "bufferView" not in accessor:
            return np.zeros((accessor["count"] if "sparse" not in accessor else 0, 3))
        view = document["bufferViews"][accessor["bufferView"]]
        buffer = document["buffers"][view["buffer"]]
        kind = np.dtype(COMPONENTS[accessor["componentType"]])
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        data = _buffer(buffer["uri"], folder) if "uri" in buffer else binary
        stride = view.get("byteStride", 3 * kind.itemsize)
        return np.ndarray((accessor["count"], 3), kind, data, start, (stride, kind.itemsize))
    except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
        raise AssetError("unreadable", f"the positions of accessor {index} cannot be read: {error!r}") from None


def _buffer(uri: str, folder: Path) -> bytes:
    if uri.startswith("data:"):
        return base64.b64decode(uri.partition(",")[2])
    return (folder / unquote(uri)).read_bytes()
