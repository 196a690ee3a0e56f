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

# A vertex line of an OBJ that names NaN or infinity, in any of the ways that C reads them.
OBJ_NOT_FINITE = re.compile(rb"^v(?=[ \t])[^\n#]*?[ \t][-+]?(?:nan|inf)", re.IGNORECASE | re.MULTILINE)

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}


def check_file(path: Path) -> None:
    """Raises AssetError("unreadable") for what is no file, or an empty one."""
    if not path.is_file():
        raise AssetError("unreadable", f"{path.name} is not a file")
    if path.stat().st_size == 0:
        raise AssetError("unreadable", f"{path.name} is empty")


def check_obj(path: Path) -> None:
    """Raises AssetError ("unreadable", "not_finite")."""
    content = path.read_bytes()
    if content[:2] in (b"\xfe\xff", b"\xff\xfe"):
        raise AssetError("unreadable", f"{path.name} is UTF-16 text, which Blender takes for zeros: save it as UTF-8")
    if OBJ_NOT_FINITE.search(content):
        raise AssetError("not_finite", "a vertex position is NaN or infinite")


def check_gltf(path: Path) -> dict:
    """The JSON of a .glb or .gltf, whichever the bytes are. Raises AssetError ("unreadable", "not_finite")."""
    document, binary = _read(path)
    try:
        version = str(document["asset"]["version"])
        if not version.startswith("2."):
            raise AssetError("unreadable", f"{path.name} is glTF {version}; glTF 2.0 can be read")
        for index in sorted(_position_accessors(document)):
            wrong = _count_not_finite(_positions(document, index, path.parent, binary))
            if wrong:
                raise AssetError("not_finite", f"{wrong} vertex positions are NaN or infinite (accessor {index})")
    except FileNotFoundError as error:
        raise AssetError("unreadable", f"{path.name} needs the file {Path(error.filename).name}, which is not there") from None
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OSError) as error:
        raise AssetError("unreadable", f"{path.name} contradicts itself or the glTF format: {error!r}") from None
    return document


def _read(path: Path) -> tuple[dict, bytes]:
    """The JSON and the binary chunk (empty if there is none)."""
    content = path.read_bytes()
    start, binary = content[:16], b""
    if content[:4] == b"glTF":
        if len(content) < 20:
            raise AssetError("unreadable", f"{path.name} ends after {len(content)} bytes")
        version, length, size = struct.unpack_from("<III", content, 4)
        if version == 2 and length > len(content):
            raise AssetError("unreadable", f"{path.name} is cut: {len(content)} of {length} bytes are there")
        binary = content[20 + size + 8 :]
        content = content[20 : 20 + size]
    try:
        document = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise AssetError("unreadable", f"{path.name}, which begins with {start!r}, holds no glTF JSON: {error}") from None
    return document, binary


def _position_accessors(document: dict) -> set[int]:
    """Accessors of vertex positions that stand in the file as they are, uncompressed."""
    primitives = [primitive for mesh in document.get("meshes", []) for primitive in mesh["primitives"]]
    return {
        primitive["attributes"]["POSITION"]
        for primitive in primitives
        if "POSITION" in primitive["attributes"] and "KHR_draco_mesh_compression" not in primitive.get("extensions", {})
    }


def _positions(document: dict, index: int, folder: Path, binary: bytes) -> np.ndarray:
    """(count, 3) positions of an accessor; without what a sparse accessor changes in them."""
    accessor = document["accessors"][index]
    if "bufferView" not in accessor:
        return np.zeros((0, 3))  # zeros, by the format
    view = document["bufferViews"][accessor["bufferView"]]
    buffer = document["buffers"][view["buffer"]]
    kind = np.dtype(COMPONENTS[accessor["componentType"]])
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    data = _content(buffer["uri"], folder) if "uri" in buffer else binary
    stride = view.get("byteStride", 3 * kind.itemsize)
    needed = start + (accessor["count"] - 1) * stride + 3 * kind.itemsize
    if needed > len(data):
        raise ValueError(f"accessor {index} needs {needed} bytes of a buffer that has {len(data)}")
    return np.ndarray((accessor["count"], 3), kind, data, start, (stride, kind.itemsize))


def _count_not_finite(positions: np.ndarray) -> int:
    return int((~np.isfinite(positions)).any(axis=1).sum())


def _content(uri: str, folder: Path) -> bytes:
    if uri.startswith("data:"):
        return base64.b64decode(uri.partition(",")[2])
    return (folder / unquote(uri)).read_bytes()
