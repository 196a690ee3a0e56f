"""Point clouds as files, PCD and PLY, to positions and colours.

PCD: https://pointclouds.org/documentation/tutorials/pcd_file_format.html. PLY: http://paulbourke.net/dataformats/ply/.
Read here and not by Open3D, which makes an empty cloud of a broken file.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from pipeline.stage import ObjectError

FORMATS = ("pcd", "ply")

_HEADER_BYTES = 64 << 10
_MOST_PACKED = 100  # LZF makes at most 264 bytes of 3; a file that claims more was not made by it

_PLY_TYPES = {
    name: code
    for names, code in (
        (("char", "int8"), "i1"),
        (("uchar", "uint8"), "u1"),
        (("short", "int16"), "i2"),
        (("ushort", "uint16"), "u2"),
        (("int", "int32"), "i4"),
        (("uint", "uint32"), "u4"),
        (("float", "float32"), "f4"),
        (("double", "float64"), "f8"),
    )
    for name in names
}


@dataclass(frozen=True)
class Cloud:
    """Points with finite coordinates, in the file's frame, and their sRGB colours (None: the file has none).

    `count`: points in the file, those without a place (NaN: a sensor saw nothing there) included.
    """

    xyz: Float[np.ndarray, "n 3"]
    rgb: UInt8[np.ndarray, "n 3"] | None
    count: int


def read_cloud(path: Path) -> Cloud:
    """A PCD (ascii, binary, binary_compressed) or PLY (ascii, binary), told apart by their first bytes; faces are not looked at.

    Raises ObjectError: cloud_unreadable (cut short, or neither), no_points.
    """
    data = path.read_bytes()
    try:
        columns = _ply_columns(data) if data.startswith(b"ply") else _pcd_columns(data)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise ObjectError("cloud_unreadable", f"the point cloud {path.name} cannot be read ({error}): get it again") from error
    xyz = np.stack([columns[axis].astype(np.float64) for axis in "xyz"], axis=1)
    there = np.isfinite(xyz).all(axis=1)
    if not there.any():
        raise ObjectError("no_points", f"the point cloud {path.name} has no point with finite coordinates")
    rgb = np.stack([columns[color] for color in ("red", "green", "blue")], axis=1)[there] if "red" in columns else None
    return Cloud(xyz[there], rgb, len(xyz))


def _pcd_columns(data: bytes) -> dict[str, np.ndarray]:
    start = re.search(rb"^DATA[ \t]+(\w+)[ \t]*\r?\n", data[:_HEADER_BYTES], re.MULTILINE)
    if not start:
        raise ValueError("it has no header of a PCD or PLY")
    lines = (line.split() for line in data[: start.start()].decode("latin-1").splitlines())
    header = {words[0]: words[1:] for words in lines if words}
    names = header["FIELDS"]
    counts = [int(count) for count in header.get("COUNT", ["1"] * len(names))]
    codes = [{"F": "f", "U": "u", "I": "i"}[kind] + size for kind, size in zip(header["TYPE"], header["SIZE"], strict=True)]
    points = int(header["POINTS"][0]) if "POINTS" in header else int(header["WIDTH"][0]) * int(header["HEIGHT"][0])
    fields = list(zip(names, codes, counts, strict=True))
    body, form = data[start.end() :], start[1].decode()
    if form == "ascii":
        columns = _of_text(body, points, [(name, "<" + code) for name, code, count in fields for _ in range(count)])
    elif form in ("binary", "binary_compressed"):
        row = np.dtype([(str(number), "<" + code, (count,)) for number, (_, code, count) in enumerate(fields)])
        if form == "binary":
            rows = np.frombuffer(body, row, count=_fits(points, row, body))
            parts = [rows[str(number)] for number in range(len(fields))]
        else:
            parts = _unpacked_columns(body, points, fields)
        columns = {name: part[:, 0] for (name, _, _), part in zip(fields, parts, strict=True)}
    else:
        raise ValueError(f"its data are {form}, must be ascii, binary or binary_compressed")
    if packed := {"rgb", "rgba"} & columns.keys():
        columns |= _unpacked_colors(columns[packed.pop()])
    return columns


def _unpacked_columns(body: bytes, points: int, fields: Sequence[tuple[str, str, int]]) -> list[np.ndarray]:
    """Fields one after the other, each as a block, all of it in LZF."""
    packed, whole = (int(size) for size in np.frombuffer(body, "<u4", count=2))
    sizes = [points * np.dtype(code).itemsize * count for _, code, count in fields]
    if whole != sum(sizes) or whole > _MOST_PACKED * packed or packed > len(body) - 8:
        raise ValueError(f"it says {points} points in {packed} bytes, {whole} unpacked, and has {len(body) - 8}")
    unpacked, parts, at = _unpacked(body[8 : 8 + packed], whole), [], 0
    for (_, code, count), size in zip(fields, sizes, strict=True):
        parts.append(np.frombuffer(unpacked, "<" + code, count=points * count, offset=at).reshape(points, count))
        at += size
    return parts


def _unpacked(packed: bytes, size: int) -> bytearray:
    """LZF (http://oldhome.schmorp.de/marc/liblzf.html): runs of bytes, and copies of what came up to 8 kB before."""
    out, at = bytearray(), 0
    while at < len(packed) and len(out) <= size:
        control, at = packed[at], at + 1
        if control < 32:
            out += packed[at : at + control + 1]
            at += control + 1
            continue
        length, back = control >> 5, (control & 31) << 8
        if length == 7:
            length, at = length + packed[at], at + 1
        start, at, length = len(out) - back - packed[at] - 1, at + 1, length + 2
        if start < 0:
            raise ValueError("it copies from before its beginning")
        piece = bytes(out[start : start + length])  # shorter than the copy where that runs into itself
        out += (piece * (length // len(piece) + 1))[:length]
    if len(out) != size:
        raise ValueError(f"it unpacks to {len(out)} bytes, must be {size}")
    return out


def _unpacked_colors(values: np.ndarray) -> dict[str, np.ndarray]:
    """PCL's colours: 0x00RRGGBB in 32 bits, often said to be a float."""
    bits = values.astype(np.float32).view(np.uint32) if values.dtype.kind == "f" else values.astype(np.int64)
    return {name: ((bits >> shift) & 255).astype(np.uint8) for name, shift in (("red", 16), ("green", 8), ("blue", 0))}


def _ply_columns(data: bytes) -> dict[str, np.ndarray]:
    start = re.search(rb"^end_header[ \t]*\r?\n", data[:_HEADER_BYTES], re.MULTILINE)
    if not start:
        raise ValueError("its header has no end")
    lines = [line.split() for line in data[: start.start()].decode("latin-1").splitlines()]
    form = next(words[1] for words in lines if words[:1] == ["format"])
    elements = [number for number, words in enumerate(lines) if words[:1] == ["element"]]
    if not elements or lines[elements[0]][1] != "vertex":
        raise ValueError("its first element is not vertex")
    properties = [words for words in lines[elements[0] : (elements + [None])[1]] if words[:1] == ["property"]]
    if any(words[1] == "list" for words in properties):
        raise ValueError("its vertices have lists")
    order = {"binary_big_endian": ">", "binary_little_endian": "<", "ascii": "<"}[form]
    fields = [(words[2], order + _PLY_TYPES[words[1]]) for words in properties]
    points, body = int(lines[elements[0]][2]), data[start.end() :]
    if form == "ascii":
        columns = _of_text(body, points, fields)
    else:
        rows = np.frombuffer(body, np.dtype(fields), count=_fits(points, np.dtype(fields), body))
        columns = {name: rows[name] for name, _ in fields}
    colors = {name: columns[name] for name in ("red", "green", "blue") if name in columns}
    if colors and (len(colors) < 3 or any(values.dtype != np.uint8 for values in colors.values())):
        raise ValueError("its colours are not red, green and blue as uchar")
    return columns


def _of_text(body: bytes, points: int, fields: Sequence[tuple[str, str]]) -> dict[str, np.ndarray]:
    if points * len(fields) > len(body):  # a number takes a byte at least
        raise ValueError(f"it says {points} points and has {len(body)} bytes for them")
    words = body.split(maxsplit=points * len(fields))[: points * len(fields)]
    table = np.array(words).reshape(points, len(fields))
    read: Callable[[str, int], np.ndarray] = lambda code, number: table[:, number].astype(np.float64).astype(code)  # noqa: E731
    return {name: read(code, number) for number, (name, code) in reversed(list(enumerate(fields)))}


def _fits(points: int, row: np.dtype, body: bytes) -> int:
    if not 0 <= points * row.itemsize <= len(body):
        raise ValueError(f"it says {points} points of {row.itemsize} bytes and has {len(body)} bytes for them")
    return points
