"""A glTF file taken apart: its JSON, checked for its form, and the binary that may come with it.

Sections and names are those of the glTF 2.0 specification: https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html
"""

import base64
import binascii
import json
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.assets.signature import HEAD_BYTES, what_it_is
from pipeline.stage import ObjectError

# JSON takes some 60 to 100 bytes of memory per value, however short it is in the file: two million are a few hundred MB at worst.
MOST_VALUES = 2_000_000

_BASE64 = ";base64,"

# The form of what is read here or by Blender. A name: an index into that array of the document; int: a whole number, 0 or more;
# [x]: an array of x; {...}: an object that may have these properties, and must have those with "!"; "*": whatever its names are.
_TEXTURE = {"index!": "textures"}
_SPARSE = {
    "count!": int,
    "indices!": {"bufferView!": "bufferViews", "byteOffset": int, "componentType!": int},
    "values!": {"bufferView!": "bufferViews", "byteOffset": int},
}
_PRIMITIVE = {
    "attributes!": {"*": "accessors"},
    "indices": "accessors",
    "material": "materials",
    "mode": int,
    "targets": [{"*": "accessors"}],
    "extensions": {"KHR_draco_mesh_compression": {"bufferView!": "bufferViews", "attributes!": {"*": int}}},
}
_SPECULAR = {"diffuseTexture": _TEXTURE, "specularGlossinessTexture": _TEXTURE}
_FORM = {
    "scene": int,
    "scenes": [{"nodes": ["nodes"]}],
    "nodes": [
        {
            "children": ["nodes"],
            "mesh": "meshes",
            "skin": "skins",
            "extensions": {"EXT_mesh_gpu_instancing": {"attributes!": {"*": "accessors"}}},
        }
    ],
    "meshes": [{"primitives!": [_PRIMITIVE]}],
    "accessors": [
        {"bufferView": "bufferViews", "byteOffset": int, "componentType!": int, "count!": int, "type!": str, "sparse": _SPARSE}
    ],
    "bufferViews": [
        {
            "buffer!": "buffers",
            "byteOffset": int,
            "byteLength!": int,
            "byteStride": int,
            "extensions": {"EXT_meshopt_compression": {"buffer!": "buffers", "byteLength!": int}},
        }
    ],
    "buffers": [{"uri": str, "byteLength!": int}],
    "images": [{"uri": str, "bufferView": "bufferViews"}],
    "textures": [
        {
            "source": "images",
            "extensions": {"EXT_texture_webp": {"source": "images"}, "KHR_texture_basisu": {"source": "images"}},
        }
    ],
    "materials": [
        {
            "pbrMetallicRoughness": {"baseColorTexture": _TEXTURE, "metallicRoughnessTexture": _TEXTURE},
            "normalTexture": _TEXTURE,
            "occlusionTexture": _TEXTURE,
            "emissiveTexture": _TEXTURE,
            "extensions": {"KHR_materials_pbrSpecularGlossiness": _SPECULAR},
        }
    ],
    "skins": [{"joints!": ["nodes"], "skeleton": "nodes", "inverseBindMatrices": "accessors"}],
    "animations": [
        {
            "channels!": [{"sampler!": int, "target!": {"node": "nodes"}}],
            "samplers!": [{"input!": "accessors", "output!": "accessors"}],
        }
    ],
    "extensionsUsed": [str],
    "extensionsRequired": [str],
}


@dataclass(frozen=True)
class Gltf:
    """A glTF file. `document`: its JSON; `binary`: the binary chunk of a .glb where it lies in the file, mapped; empty: none."""

    path: Path
    document: dict[str, Any]
    binary: memoryview

    def inner_buffer(self, index: int) -> memoryview | None:
        """The bytes of a buffer that the file itself holds, in its binary chunk or a data URI. None: another file holds them.

        Raises ObjectError: truncated (fewer bytes than byteLength says), missing_buffer (none at all), parse_error.
        """
        buffer = self.document["buffers"][index]
        uri = buffer.get("uri")
        if uri is None:
            if index or not self.binary.nbytes:
                raise ObjectError("missing_buffer", f"{self.path.name} says nowhere where the bytes of its buffer {index} are")
            data = self.binary
        elif uri.startswith("data:"):
            data = memoryview(data_of(uri, self.path.name))
        else:
            return None
        if data.nbytes + 3 < buffer["byteLength"]:  # some exporters count the padding to four bytes and leave it out
            there = f"{data.nbytes} of the {buffer['byteLength']} bytes of buffer {index}"
            raise ObjectError("truncated", f"{self.path.name} is cut: {there} are there; download or export it again")
        return data


def read(path: Path, *, most_json_mb: int = 256) -> Gltf:
    """Reads a .glb or .gltf, whichever its bytes are, and checks that every number and index of the JSON can be one.

    Raises ObjectError: empty_file, truncated, not_a_mesh_file, unsupported_version, json_too_large, parse_error.
    """
    size = path.stat().st_size
    if size == 0:
        raise ObjectError("empty_file", f"{path.name} has no bytes: download it again")
    with open(path, "rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    text, binary = _chunks(path.name, content) if content[:4] == b"glTF" else (content, content[:0])
    if text.nbytes > most_json_mb << 20:
        raise ObjectError("json_too_large", f"{path.name} holds {text.nbytes >> 20} MB of JSON; {most_json_mb} MB are let in")
    document = _document(path.name, bytes(text))
    version = _version(document)
    if version != "2.0":
        raise ObjectError("unsupported_version", f"{path.name} is glTF {version}; glTF 2.0 can be read: convert it")
    wrong = next(_malformed(document, _FORM, document, ""), None)
    scenes, scene = document.get("scenes"), document.get("scene", 0)
    if not wrong and scenes and scene >= len(scenes):
        wrong = f"scene {scene} is the default, and there are {len(scenes)} scenes"
    if wrong:
        raise ObjectError("parse_error", f"{path.name} is no valid glTF: {wrong}")
    return Gltf(path, document, binary)


def roots(document: dict[str, Any]) -> list[int]:
    """The root nodes of the default scene; of the first scene where none is the default, and of all nodes where there is none."""
    if scenes := document.get("scenes"):
        return scenes[document.get("scene", 0)].get("nodes", [])
    nodes = document.get("nodes", [])
    below = {child for node in nodes for child in node.get("children", [])}
    return [index for index in range(len(nodes)) if index not in below]


def data_of(uri: str, name: str) -> bytes:
    """The bytes of a data URI; `name` is the file's, for the message. Raises ObjectError("parse_error")."""
    kind, base, data = uri.partition(_BASE64)
    try:
        if not base:
            raise ValueError("it is not in base64")
        return base64.b64decode(data)
    except (ValueError, binascii.Error) as error:
        raise ObjectError("parse_error", f"a data URI in {name} ({kind[:40]!r}...) cannot be decoded: {error}") from None


def _chunks(name: str, content: memoryview) -> tuple[memoryview, memoryview]:
    """The JSON and the binary chunk of a binary glTF (section 4.4), the latter empty if there is none."""
    if content.nbytes < 20:
        raise ObjectError("truncated", f"{name} ends after {content.nbytes} bytes, with its header: download it again")
    version, length = _number(content, 4), _number(content, 8)
    if version != 2:
        raise ObjectError("unsupported_version", f"{name} is a binary glTF {version}; glTF 2 can be read: convert it")
    if length > content.nbytes:
        raise ObjectError("truncated", f"{name} is cut: {content.nbytes} of {length} bytes are there; download it again")
    if content[16:20] != b"JSON":
        raise ObjectError("parse_error", f"{name} begins with a chunk {bytes(content[16:20])!r} where glTF has JSON")
    json_end = 20 + _number(content, 12)
    if json_end > length:
        raise ObjectError("truncated", f"{name} is cut: its JSON ends at byte {json_end}, the file at {length}; download it again")
    binary = content[:0]
    if json_end + 8 <= length and content[json_end + 4 : json_end + 8] == b"BIN\0":
        end = json_end + 8 + _number(content, json_end)
        if end > length:
            raise ObjectError("truncated", f"{name} is cut: its binary ends at byte {end}, the file at {length}; download it again")
        binary = content[json_end + 8 : end]
    return content[20:json_end], binary


def _number(content: memoryview, start: int) -> int:
    return int.from_bytes(content[start : start + 4], "little")


def _document(name: str, text: bytes) -> dict[str, Any]:
    """The JSON of a glTF. A byte order mark is let in: some exporters write one."""
    if not text[:HEAD_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        if kind := what_it_is(text[:HEAD_BYTES]):
            raise ObjectError("not_a_mesh_file", f"{name} is no glTF; it is {kind}")
        raise ObjectError("parse_error", f"{name}, which begins with {text[:12]!r}, is no glTF: download or export it again")
    values = sum(map(text.count, (b",", b"{", b"[")))
    if values > MOST_VALUES:
        raise ObjectError("json_too_large", f"{name} has some {values} values in its JSON; {MOST_VALUES} are let in")
    try:
        return json.loads(text.decode("utf-8-sig"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ObjectError("parse_error", f"the JSON of {name} cannot be read: {error}") from None


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is no number in JSON")


def _version(document: dict[str, Any]) -> str:
    """The version a document states; one that states none, as glTF 1.0 may, is taken for that."""
    asset = document.get("asset")
    return str(asset.get("version", "1.0")) if isinstance(asset, dict) else "1.0"


def _malformed(value: Any, form: Any, document: dict[str, Any], place: str) -> Iterator[str]:
    """What of a value does not have its form, one sentence each (see _FORM)."""
    if isinstance(form, str):
        items = document.get(form)
        there = len(items) if isinstance(items, list) else 0
        if not isinstance(value, int) or isinstance(value, bool):
            yield f"{place} is {value!r:.40} instead of an index"
        elif not 0 <= value < there:
            yield f"{place} is {value}, and there are {there} {form}"
    elif form is int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
            yield f"{place} is {value!r:.40} instead of a whole number"
    elif form is str:
        if not isinstance(value, str):
            yield f"{place} is {value!r:.40} instead of a text"
    elif isinstance(form, list):
        if not isinstance(value, list):
            yield f"{place} is {type(value).__name__} instead of an array"
        else:
            for index, item in enumerate(value):
                yield from _malformed(item, form[0], document, f"{place}[{index}]")
    elif not isinstance(value, dict):
        yield f"{place} is {type(value).__name__} instead of an object"
    else:
        for name, inner in form.items():
            key = name.removesuffix("!")
            if name == "*":
                for any_key, item in value.items():
                    yield from _malformed(item, inner, document, f"{place}.{any_key}")
            elif key in value:
                yield from _malformed(value[key], inner, document, f"{place}.{key}".lstrip("."))
            elif name != key:
                yield f"{place} lacks {key}"
