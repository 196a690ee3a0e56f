"""An OBJ looked into before Blender opens it: in blocks of text, as arrays, so that half a gigabyte takes seconds.

Blender leaves out, without a word, faces with an index it cannot follow, and takes what is no number for zero. The format:
http://paulbourke.net/dataformats/obj/.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.assets.limits import Limits
from pipeline.assets.signature import HEAD_BYTES, OBJ_TEXT, text_encoding, what_it_is
from pipeline.assets.text_numbers import Lines, lines_of
from pipeline.stage import ObjectError

_BLOCK = 4 << 20  # bytes of text at a time
_LONGEST_LINE = 8 << 20  # one of words alone takes fifty times as much memory
_NUMERIC = np.zeros(256, bool)  # what a number begins with
_NUMERIC[list(b"0123456789+-.")] = True

_TOO_LARGE = re.compile(
    rb"^[ \t]*v[ \t](?=[^\n]*[eE])[^\n#]*?(?<![-+.\d])([-+.\d]++[eE]\+?0*(?:39|[4-9]\d|[1-9]\d\d))(?!\d)", re.MULTILINE
)


@dataclass
class _Seen:
    """What has been read so far."""

    vertices: int = 0
    coordinates: int = 0  # of textures
    normals: int = 0
    faces: int = 0  # triangles
    colored: int = 0  # vertices with a colour
    odd_colors: int = 0  # colours that are NaN or infinite


def examine_obj(path: Path, limits: Limits) -> tuple[set[str], set[str]]:
    """Traits and warnings of an OBJ, in UTF-8 or UTF-16.

    Raises ObjectError: not_a_mesh_file, parse_error, index_out_of_range, non_finite_geometry, no_vertices, no_faces,
    too_many_vertices, too_many_faces.
    """
    with open(path, "rb") as file:
        kind = what_it_is(file.read(HEAD_BYTES))
    if kind not in (None, OBJ_TEXT):
        raise ObjectError("not_a_mesh_file", f"{path.name} is no OBJ; it is {kind}")
    encoding = text_encoding(path)
    seen = _Seen()
    for block in _blocks(path, encoding):
        _look_into(path.name, block, seen)
        limits.check_geometry(path.name, seen.vertices, seen.faces)
    if not seen.vertices:
        raise ObjectError("no_vertices", f"{path.name} has no vertices")
    if not seen.faces:
        raise ObjectError("no_faces", f"{path.name} has no face with three corners or more")
    warnings = {
        "text_encoding": encoding is not None,
        "non_finite_color": seen.odd_colors > 0,
        "partial_vertex_colors": 0 < seen.colored < seen.vertices,
    }
    traits = {"vertex_colors"} if seen.colored else set()
    return traits, {name for name, is_so in warnings.items() if is_so}


def _blocks(path: Path, encoding: str | None) -> Iterator[bytes]:
    """The text in UTF-8, in blocks of whole lines; a line that is continued on the next ("\\" at its end) is one."""
    decoder = codecs.getincrementaldecoder(encoding or "utf-8")("replace")
    rest = b""
    with open(path, "rb") as file:
        while read := file.read(_BLOCK):
            text = rest + (decoder.decode(read).encode() if encoding else read)
            end = text.rfind(b"\n") + 1
            while end and text[:end].rstrip(b"\r\n")[-1:] == b"\\" and text[end - 2 : end - 1] in b"\r\\":
                end = text.rfind(b"\n", 0, end - 1) + 1
            rest = text[end:]
            if len(rest) > _LONGEST_LINE:
                raise ObjectError("parse_error", f"{path.name} has a line of more than {_LONGEST_LINE >> 20} MB: it is no OBJ")
            if end:
                yield _joined(text[:end])
    if rest:
        yield _joined(rest)


def _joined(text: bytes) -> bytes:
    return text.replace(b"\\\n", b"  ").replace(b"\\\r\n", b"   ") if b"\\" in text else text


def _look_into(name: str, block: bytes, seen: _Seen) -> None:
    lines = lines_of(block)
    if not len(lines.first):
        return
    begin = lines.words[lines.first]
    one, two = lines.text[begin], lines.text[begin + 1]
    alone, short = lines.is_space(begin + 1), lines.is_space(begin + 2)  # the keyword has one letter, two letters
    is_vertex = (one == ord("v")) & alone
    is_coordinate = (one == ord("v")) & (two == ord("t")) & short
    is_normal = (one == ord("v")) & (two == ord("n")) & short
    is_face = (one == ord("f")) & alone
    if is_vertex.any():
        if found := _TOO_LARGE.search(block):
            said = f"{name} has a vertex coordinate too large for a float32 ({found[1].decode()!r}): export it again"
            raise ObjectError("non_finite_geometry", said)
        _look_at_vertices(name, lines, is_vertex, seen)
    if is_face.any():
        totals = ((is_vertex, seen.vertices), (is_coordinate, seen.coordinates), (is_normal, seen.normals))
        _look_at_faces(name, lines, is_face, [(total + np.cumsum(is_so))[is_face] for is_so, total in totals], seen)
    seen.vertices += int(is_vertex.sum())
    seen.coordinates += int(is_coordinate.sum())
    seen.normals += int(is_normal.sum())


def _look_at_vertices(name: str, lines: Lines, chosen: np.ndarray, seen: _Seen) -> None:
    """Positions and colours (three numbers after the position) of lines of vertices."""
    text, words, first, length = lines.text, lines.words, lines.first[chosen], lines.length[chosen]
    if (length < 4).any():
        raise ObjectError("parse_error", f"{name} has a vertex with fewer than three coordinates: export it again")
    for number in (1, 2, 3):
        at = words[first + number]
        if (wrong := _not_finite(text, at)).any():
            said = lines.word(at[wrong][0])
            raise ObjectError("non_finite_geometry", f"{name} has the vertex coordinate {said!r}: export it again")
        if not (known := _NUMERIC[text[at]]).all():
            said = lines.word(at[~known][0])
            raise ObjectError("parse_error", f"{name} has the vertex coordinate {said!r}, which is no number: export it again")
    colored = first[length >= 7]
    odd = np.logical_or.reduce([_not_finite(text, words[colored + number]) for number in (4, 5, 6)])
    seen.odd_colors += int(odd.sum())
    seen.colored += int((_NUMERIC[text[words[colored + 4]]] | odd).sum())


def _not_finite(text: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Whether each word is a number that is not finite: nan, inf, 1.#IND."""
    at = at + np.isin(text[at], (ord("+"), ord("-")))
    letter, following = text[at] | 32, text[at + 1] | 32
    named = ((letter == ord("n")) & (following == ord("a"))) | ((letter == ord("i")) & (following == ord("n")))
    return named | ((text[at + 1] == ord(".")) & (text[at + 2] == ord("#")))


def _look_at_faces(name: str, lines: Lines, chosen: np.ndarray, counts: list[np.ndarray], seen: _Seen) -> None:
    """Indices of lines of faces: each must name what stands above it. `counts`: for each line, how many vertices, texture
    coordinates and normals do."""
    text, first, corners = lines.text, lines.first[chosen], lines.length[chosen] - 1
    line = np.repeat(np.arange(len(first)), corners)
    nth = np.arange(len(line)) - np.repeat(np.cumsum(corners) - corners, corners)
    at = lines.words[first[line] + 1 + nth]
    comment = np.flatnonzero(text[at] == ord("#"))
    if len(comment):  # the rest of the line says nothing
        until = corners.copy()
        np.minimum.at(until, line[comment], nth[comment])
        kept = nth < until[line]
        line, at, corners = line[kept], at[kept], until
    seen.faces += int(np.maximum(corners - 2, 0).sum())
    for kind, count in zip(("vertices", "texture coordinates", "normals"), counts, strict=True):
        value, end = lines.integers(at)
        wrong = (np.abs(value) > count[line]) | (value == 0)
        if kind != "vertices":  # Blender does not look at these in a file that has nothing for them to name
            wrong &= (end > at) & (count[line] > 0)
        if wrong.any():
            number = int(np.flatnonzero(wrong)[0])
            said = f"{lines.word(at[number])!r} where {count[line][number]} {kind} stand above it"
            raise ObjectError("index_out_of_range", f"{name} has a face with {said}: Blender would leave it out; export it again")
        more = text[end] == ord("/")
        line, at = line[more], end[more] + 1
