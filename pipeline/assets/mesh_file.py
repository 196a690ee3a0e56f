"""A mesh file that is being looked into: what it is held against, and the errors it gives rise to."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from pipeline.assets.limits import Limits
from pipeline.assets.signature import HEAD_BYTES, what_it_is
from pipeline.assets.text_numbers import lines_of
from pipeline.stage import ObjectError

_NOT_FINITE = re.compile(rb"(?<![\w.])[-+]?(?:nan|inf)", re.IGNORECASE)
_LINES = 5_000  # of a text looked at at a time
_LONGEST_LINE = 1 << 16


@dataclass(frozen=True)
class MeshFile:
    """A file of some format, and what it may cost."""

    path: Path
    limits: Limits

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.path.stat().st_size

    @property
    def head(self) -> bytes:
        """Its first bytes."""
        with open(self.path, "rb") as file:
            return file.read(HEAD_BYTES)

    def error(self, reason: str, what: str) -> ObjectError:
        """The error of a file that is broken; `what` goes on from its name."""
        return ObjectError(reason, f"{self.path.name} {what}: export or download it again")

    def no(self, format: str) -> ObjectError:
        """The error of a file that does not begin as its format does: not_a_mesh_file where it is known what it is."""
        if kind := what_it_is(self.head):
            return ObjectError("not_a_mesh_file", f"{self.path.name} is no {format}; it is {kind}")
        return self.error("parse_error", f"does not begin as {format} does")

    def check_shape(self, vertices: int, faces: int) -> None:
        """Raises ObjectError: too_many_vertices, too_many_faces, no_vertices, no_faces."""
        self.limits.check_geometry(self.path.name, vertices, faces)
        if not vertices:
            raise ObjectError("no_vertices", f"{self.path.name} has no vertices")
        if not faces:
            raise ObjectError("no_faces", f"{self.path.name} has vertices and no faces: it is a point cloud")

    def lines(self, file) -> Iterator[bytes]:
        """The lines of a text from where `file` stands; one without end is no line."""
        for line in iter(lambda: file.readline(_LONGEST_LINE), b""):
            if len(line) == _LONGEST_LINE:
                raise self.error("parse_error", f"has a line of more than {_LONGEST_LINE >> 10} kB")
            yield line

    def check_vertex_lines(self, lines: Iterator[bytes], count: int) -> None:
        """Reads the next `count` lines. Raises ObjectError: non_finite_geometry, truncated."""
        for block in self._blocks(lines, count, "vertices"):
            if found := _NOT_FINITE.search(block):
                raise self.error("non_finite_geometry", f"has the vertex coordinate {found[0].decode()!r}")

    def check_face_lines(self, lines: Iterator[bytes], count: int, vertices: int) -> None:
        """Reads the next `count` lines, each how many corners a face has and, from 0, their vertices; what follows is not looked
        at. Raises ObjectError: index_out_of_range, parse_error, truncated."""
        for block in self._blocks(lines, count, "faces"):
            found = lines_of(block)
            stated, end = found.integers(found.words[found.first])
            if (stated >= found.length).any() or (stated < 0).any() or (end == found.words[found.first]).any():
                raise self.error("parse_error", "has a face that does not have the corners it states")
            line = np.repeat(np.arange(len(stated)), stated)
            nth = np.arange(len(line)) - np.repeat(np.cumsum(stated) - stated, stated)
            at = found.words[found.first[line] + 1 + nth]
            corners, end = found.integers(at)
            if (end == at).any():
                raise self.error("parse_error", f"has the corner {found.word(at[end == at][0])!r} in a face")
            self.check_corners(corners, vertices)

    def _blocks(self, lines: Iterator[bytes], count: int, what: str) -> Iterator[bytes]:
        while count:
            block = list(islice(lines, min(count, _LINES)))
            if not block:
                raise self.error("truncated", f"ends {count} {what} too early")
            count -= len(block)
            yield b"".join(block)

    def check_corners(self, corners: np.ndarray, vertices: int) -> None:
        """Raises ObjectError("index_out_of_range"): importers leave out such a face without a word."""
        if corners.size and not 0 <= corners.min() <= corners.max() < vertices:
            wrong = corners.min() if corners.min() < 0 else corners.max()
            said = f"has a face with vertex {wrong}, and there are {vertices} (counted from 0)"
            raise self.error("index_out_of_range", said)
