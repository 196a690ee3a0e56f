"""The copy of an asset that Blender gets: the asset and its companions in one folder, under plain names, and nothing else.

What the asset refers to is rewritten to these names where the format is a text (glTF, OBJ, MTL, Collada); what is no companion
becomes the name of a file that is not there, so that Blender counts it as missing. FBX and USD find their companions by the names
and places that they know.
"""

import errno
import json
import posixpath
import re
import shutil
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.assets import gltf
from pipeline.assets.asset import absolute
from pipeline.assets.companions import companions
from pipeline.assets.references import (
    below,
    collada_pictures,
    content_of,
    encoded,
    gltf_items,
    map_line,
    material_files,
    mtl_lines,
    statements,
)
from pipeline.fetch.cache import opened
from pipeline.stage import ObjectError

Companion = tuple[str, str, str]  # role, name, uri, as in OBJECTS.companions

_USD = ("usd", "usda", "usdc")
_BLOCK = 16 << 20  # bytes copied at a time


def staged(place: str, format: str, files: Sequence[Companion] | None, into: Path) -> Path:
    """Copies the asset at a place with its companions into an empty folder; where the asset is now.

    `files`: the companions; None: those that it refers to in its own folder.

    Raises ObjectError: asset_missing (or a companion, which was there before), asset_unreadable, not_a_file, no_room (on the disk
    of `into`), and what the format's reader or `pipeline.assets.companions` says of the asset.
    """
    try:
        with opened(absolute(place)) as asset:
            if files is None:
                found = companions(asset, {"asset_uri": absolute(place), "asset_format": format})
                files = [(file["role"], file["name"], file["uri"]) for file in found.files]
            return _Copy(asset, format, files, into).make()
    except FileNotFoundError as error:
        raise ObjectError("asset_missing", f"there is no {error.filename or error}: bring it back, or ingest again") from error
    except PermissionError as error:
        raise ObjectError("asset_unreadable", f"{error.filename} may not be read: change its permissions") from error
    except IsADirectoryError as error:
        raise ObjectError("not_a_file", f"{error.filename} is a folder: give the asset in it") from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(into).free >> 20
        message = f"{place} and its files do not fit beside {into}, which has {free} MB left: make room or set TMPDIR"
        raise ObjectError("no_room", message) from error


class _Copy:
    """One asset being copied."""

    def __init__(self, asset: Path, format: str, files: Sequence[Companion], into: Path):
        self.asset, self.format, self.into = asset, format, into
        self.named = {name: uri for role, name, uri in files if role == "named"}
        self.texture = next((uri for role, _, uri in files if role == "texture"), None)
        self.plain: dict[str, str] = {}  # by place, or by name for what is missing

    def make(self) -> Path:
        """Copies everything; where the asset is now."""
        if self.format in ("glb", "gltf"):
            return self._gltf()
        if self.format == "obj":
            return self._obj()
        if self.format == "dae":
            return self._collada()
        if self.format in _USD:
            return self._usd()
        target = self.into / f"asset.{self.format}"
        shutil.copyfile(self.asset, target)
        for name, uri in self.named.items():  # FBX: Blender looks for the last part of a path beside the file
            self._put(uri, self.into / re.split(r"[\\/]", name)[-1])
        return target

    def _put(self, uri: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened(uri) as local:
            shutil.copyfile(local, target)

    def _plain_name(self, name: str) -> str:
        """What the file that the asset calls `name` is called in the copy, where it is put when first asked for; the name of no
        file for what is no companion."""
        uri = self.named.get(name)
        return self._plain_file(uri) if uri is not None else self.plain.setdefault(name, f"missing-{len(self.plain)}.png")

    def _plain_file(self, uri: str) -> str:
        if uri not in self.plain:
            ending = re.search(r"\.[a-z0-9]{1,5}$", uri.lower())  # by its ending Blender tells apart some kinds of pictures
            self.plain[uri] = f"{len(self.plain)}{ending[0] if ending else ''}"
            self._put(uri, self.into / self.plain[uri])
        return self.plain[uri]

    # -------------------------------------------------------------------------------------------------------- glTF

    def _gltf(self) -> Path:
        """A file that names no other and has one scene is copied as it is."""
        read = gltf.read(self.asset)
        with open(self.asset, "rb") as file:
            binary = file.read(4) == b"glTF"
        target = self.into / ("asset.glb" if binary else "asset.gltf")
        document = _with_one_scene(_without_extras(read.document))
        for reference, item in gltf_items(document):
            item["uri"] = self._plain_name(reference.name)
        if document == read.document:
            shutil.copyfile(self.asset, target)
            return target
        text = json.dumps(document, separators=(",", ":")).encode()
        with open(target, "wb") as file:
            if binary:
                text += b" " * (-len(text) % 4)
                length = 20 + len(text) + (8 + read.binary.nbytes if read.binary.nbytes else 0)
                file.write(struct.pack("<4sIII4s", b"glTF", 2, length, len(text), b"JSON"))
            file.write(text)
            if binary and read.binary.nbytes:
                file.write(struct.pack("<I4s", read.binary.nbytes, b"BIN\0"))
                for start in range(0, read.binary.nbytes, _BLOCK):
                    file.write(read.binary[start : start + _BLOCK])
        return target

    # -------------------------------------------------------------------------------------------------------- OBJ

    def _obj(self) -> Path:
        """Its material files become one. Materials without a picture get the companion `texture`, if there is one, and so does an
        OBJ that asks for no material or for one that is in no file."""
        target = self.into / "asset.obj"
        with content_of(self.asset) as content:
            named_there = set(material_files(content, "", self.named.__contains__))
            materials, defined = [], set()
            for name, uri in self.named.items():
                if name in named_there or name.lower().endswith(".mtl"):  # the latter: Blender takes the one called as the OBJ is
                    materials += self._materials(name, uri, defined)
            head = b""
            if self.texture:
                asked = dict.fromkeys(said for _, _, said in statements(content, b"usemtl"))
                for name in [name for name in asked if name not in defined] or ([] if asked else ["texture"]):
                    materials += [f"newmtl {name}", "Kd 1 1 1", f"map_Kd {self._plain_file(self.texture)}"]
                head = b"" if asked else b"usemtl texture\n"
            if materials:
                (self.into / "asset.mtl").write_bytes(encoded("\n".join(materials) + "\n"))
                head = b"mtllib asset.mtl\n" + head
            with open(target, "wb") as file:
                file.write(head)
                start = 3 if content[:3] == b"\xef\xbb\xbf" else 0
                for line_start, line_end, _ in statements(content, b"mtllib"):
                    _copy_part(content, max(start, line_start), start, file)
                    start = line_end
                _copy_part(content, len(content), start, file)
        return target

    def _materials(self, name: str, uri: str, defined: set[str]) -> Iterator[str]:
        """The lines of a material file called `name`, with plain names; the names of its materials are added to `defined`."""
        material, textured = None, True
        with opened(uri) as local:
            lines = mtl_lines(local)
        for line in lines:
            words = line.split(maxsplit=1)
            if words and words[0] == "newmtl":
                yield from self._with_texture(textured)
                material, textured = words[1].strip() if len(words) > 1 else "", False
                defined.add(material)
            if material is None:
                continue  # it would change the last material of the file before
            found = map_line(line)
            if not found:
                yield line
                continue
            inner = below(name, found.name)
            is_color = found.keyword.lower() == "map_kd"
            if is_color and self.texture and inner not in self.named:
                continue
            textured |= is_color
            yield f"{found.keyword} {found.options}{self._plain_name(inner)}"
        yield from self._with_texture(textured)

    def _with_texture(self, textured: bool) -> Iterator[str]:
        if self.texture and not textured:
            yield f"map_Kd {self._plain_file(self.texture)}"

    # -------------------------------------------------------------------------------------------------------- Collada and USD

    def _collada(self) -> Path:
        target = self.into / "asset.dae"
        with content_of(self.asset) as content, open(target, "wb") as file:
            start = 0
            for name_start, name_end, reference in collada_pictures(content, self.asset.name):
                _copy_part(content, name_start, start, file)
                file.write(self._plain_name(reference.name).encode())
                start = name_end
            _copy_part(content, len(content), start, file)
        return target

    def _usd(self) -> Path:
        """Its files lie as it names them, since a binary USD cannot be rewritten: so far down that `../` leads nowhere else."""
        paths = {name: posixpath.normpath(name.replace("\\", "/")) for name in self.named}
        depth = max((path.split("/").count("..") for path in paths.values()), default=0)
        folder = self.into.joinpath(*map(str, range(depth)))
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"asset.{self.format}"
        shutil.copyfile(self.asset, target)
        for name, path in paths.items():
            place = Path(posixpath.normpath(posixpath.join(folder, path)))
            if not path.startswith("/") and ":" not in path and place != target and place.is_relative_to(self.into):
                self._put(self.named[name], place)
        return target


def _copy_part(content: Any, end: int, start: int, file: Any) -> None:
    for at in range(start, end, _BLOCK):
        file.write(content[at : min(end, at + _BLOCK)])


def _with_one_scene(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its default scene alone."""
    scenes = document.get("scenes", [])
    return document | {"scenes": [scenes[document.get("scene", 0)]], "scene": 0} if len(scenes) > 1 else document


def _without_extras(value: Any, *, inside_extension: bool = False) -> Any:
    """A copy without what the format leaves open: `extras`, and the URIs that extensions name."""
    if isinstance(value, dict):
        return {
            name: _without_extras(inner, inside_extension=inside_extension or name == "extensions")
            for name, inner in value.items()
            if name != "extras" and not (inside_extension and name == "uri")
        }
    if isinstance(value, list):
        if value and not isinstance(value[0], dict | list):
            return list(value)
        return [_without_extras(item, inside_extension=inside_extension) for item in value]
    return value
