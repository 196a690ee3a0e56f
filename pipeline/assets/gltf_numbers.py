"""The numbers of a glTF, where they lie in the file and its buffers: nothing is read before its place is known to be there."""

import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.assets.gltf import Gltf
from pipeline.stage import ObjectError

Find = Callable[[str], Path | None]  # the file that a URI names; None: it is not there, or not to be opened

_COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_BLOCK = 1 << 18  # rows looked at at a time


class Numbers:
    """The numbers of accessors as they lie in the file and its buffers; nothing is read before its place is known to be there."""

    def __init__(self, gltf: Gltf, find: Find):
        self.name, self.document = gltf.path.name, gltf.document
        self.traits: set[str] = set()
        self._gltf, self.find = gltf, find
        self._buffers: dict[int, memoryview] = {}

    def wrong(self, what: str, reason: str = "parse_error") -> ObjectError:
        """The error of a file that contradicts itself."""
        return ObjectError(reason, f"{self.name} {what}: export or download it again")

    def view(self, index: int) -> memoryview:
        """The bytes of a buffer view."""
        view = self.document["bufferViews"][index]
        if "EXT_meshopt_compression" in view.get("extensions", {}):
            self.traits.add("meshopt")
            if "uri" not in self.document["buffers"][view["buffer"]] and view["buffer"]:
                raise self.wrong("has its data in EXT_meshopt_compression alone, which Blender lacks", "unsupported_extension")
        content = self._buffer(view["buffer"])
        start = view.get("byteOffset", 0)
        if start + view["byteLength"] > content.nbytes:
            needs = f"needs {start + view['byteLength']} bytes of a buffer that has {content.nbytes}"
            raise self.wrong(needs, "truncated")
        return content[start : start + view["byteLength"]]

    def _buffer(self, index: int) -> memoryview:
        if index not in self._buffers:
            content = self._gltf.inner_buffer(index)
            if content is None:
                uri = self.document["buffers"][index]["uri"]
                file = self.find(uri)
                if file is None or not file.is_file() or not file.stat().st_size:
                    raise ObjectError("missing_buffer", f"{self.name} needs the file {uri[:200]}, which is not there: download it")
                with open(file, "rb") as opened:
                    content = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
            self._buffers[index] = content
        return self._buffers[index]

    def array(self, entry: dict[str, Any], count: int, kind: str, component: int) -> np.ndarray:
        """(count, width) numbers of an accessor, or of one part of a sparse one, where they lie in the buffer."""
        if component not in _COMPONENTS or kind not in _WIDTHS:
            raise self.wrong(f"has an accessor of {kind} with components {component}, which glTF does not know")
        number, width = np.dtype(_COMPONENTS[component]), _WIDTHS[kind]
        content, start = self.view(entry["bufferView"]), entry.get("byteOffset", 0)
        stride = self.document["bufferViews"][entry["bufferView"]].get("byteStride") or width * number.itemsize
        needed = start + max(count - 1, 0) * stride + width * number.itemsize
        if count and needed > content.nbytes:
            raise self.wrong(f"needs {needed} bytes of a buffer view that has {content.nbytes}")
        return np.ndarray((count, width), number, content, start if count else 0, (stride, number.itemsize))

    def blocks(self, index: int) -> Iterator[tuple[int, np.ndarray]]:
        """First row and (rows, width) numbers, some at a time; what a sparse accessor replaces is replaced. Empty where all are
        zero by the format."""
        accessor = self.document["accessors"][index]
        count, kind, component = accessor["count"], accessor["type"], accessor["componentType"]
        base = self.array(accessor, count, kind, component) if "bufferView" in accessor else None
        where = values = None
        if "sparse" in accessor:
            sparse = accessor["sparse"]
            where = self.array(sparse["indices"], sparse["count"], "SCALAR", sparse["indices"]["componentType"])[:, 0]
            values = self.array(sparse["values"], sparse["count"], kind, component)
            if len(where) and where.max() >= count:
                raise self.wrong(f"replaces entry {where.max()} of the {count} of accessor {index}", "index_out_of_range")
        if base is None and values is not None:
            yield 0, values
            return
        for start in range(0, count if base is not None else 0, _BLOCK):
            block = base[start : start + _BLOCK]
            if where is not None:
                here = (where >= start) & (where < start + len(block))
                block = block.copy()
                block[where[here] - start] = values[here]
            yield start, block
