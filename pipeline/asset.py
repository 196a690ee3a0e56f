"""An asset as files: where it is, what else it refers to, and its fingerprint.

A place is an absolute path, or a URI that fsspec can open (`s3://bucket/chair.glb`).
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import fsspec

from pipeline.cache import stamp_of

# The formats whose references to other files are followed. Collada, FBX and USD may have textures of their own beside them; those
# count as no companions here.
WITH_COMPANIONS = ("glb", "gltf", "obj")


def absolute(place: str) -> str:
    """A path as an absolute path, with `~` for the home folder; a URI as it is."""
    return place if "://" in place else os.path.abspath(os.path.expanduser(place))


def format_of(place: str) -> str:
    """The format of an asset by its name: lower-case extension without the dot."""
    return os.path.splitext(place)[1][1:].lower()


def stamps_in(folder: str) -> dict[str, str]:
    """The files directly in a folder: name to stamp, in the order of their names. A folder that is not there holds none."""
    filesystem, path = fsspec.url_to_fs(folder)
    if "://" in folder:
        try:
            found = {
                PurePosixPath(about["name"]).name: about for about in filesystem.ls(path, detail=True) if about["type"] == "file"
            }
        except FileNotFoundError:
            return {}
    else:
        if not os.path.isdir(folder):
            return {}
        with os.scandir(folder) as entries:
            found = {entry.name: entry.stat() for entry in entries if entry.is_file()}
    return {name: stamp_of(found[name]) for name in sorted(found)}


@contextmanager
def local_copy(place: str) -> Iterator[Path]:
    """The asset as a file on this machine: a path as it is, a URI in a temporary folder, together with its companions.

    Raises FileNotFoundError for a URI that holds nothing; a path is not looked at.
    """
    if "://" not in place:
        yield Path(place)
        return
    filesystem, remote = fsspec.url_to_fs(place)
    with tempfile.TemporaryDirectory(prefix="asset-") as folder:
        local = Path(folder) / PurePosixPath(remote).name
        filesystem.get_file(remote, str(local))
        tried: set[Path] = set()
        while wanted := [path for path in companions(local, format_of(place)) if path not in tried]:
            for path in wanted:  # an OBJ names its materials, and these, once here, their textures
                tried.add(path)
                beside = str(PurePosixPath(remote).parent / path.relative_to(local.parent).as_posix())
                if filesystem.isfile(beside):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    filesystem.get_file(beside, str(path))
        yield local


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def companions(path: Path, format: str) -> list[Path]:
    """The files that a glTF or OBJ refers to (buffers, images, material files and their textures), there or not, sorted.

    Only files in the asset's folder and below: what lies elsewhere, also by way of a link, and what is named by scheme or by
    absolute path, is not followed. An asset that cannot be understood refers to nothing: to refuse it is the importer's task.
    """
    folder = path.parent
    if format == "obj":
        materials = _inside(folder, _material_files(path))
        textures = [_inside(folder, _texture_files(file)) for file in materials if os.path.isfile(file)]
        found = [*materials, *(file for files in textures for file in files)]
    elif format in ("gltf", "glb"):
        found = _inside(folder, _gltf_files(path, format))
    else:
        found = []
    return sorted(set(found) - {path})


def companions_sha256(path: Path, format: str) -> str | None:
    """SHA-256 over name and contents of all companions, hexadecimal; a missing one counts as absent. None: no companions."""
    files = companions(path, format)
    lines = (
        f"{file.relative_to(path.parent).as_posix()}\0{sha256_of(file) if os.path.isfile(file) else 'absent'}\n" for file in files
    )
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest() if files else None


def _inside(folder: Path, names: Iterable[str]) -> list[Path]:
    home = os.path.realpath(folder)
    found = []
    for name in names:
        name = name.strip().replace("\\", "/")
        if not name or name.startswith("/") or re.match(r"[a-zA-Z][\w+.-]*:", name) or "\0" in name:
            continue
        file = os.path.normpath(folder / name)
        if os.path.realpath(file).startswith(home + os.sep) and Path(file).is_relative_to(folder):
            found.append(Path(file))
    return found


def _gltf_files(path: Path, format: str) -> Iterator[str]:
    try:
        document = json.loads(_glb_json(path) if format == "glb" else path.read_bytes())
    except (ValueError, RecursionError):  # no JSON, or nested beyond reading
        return
    for kind in ("buffers", "images"):
        items = document.get(kind) if isinstance(document, dict) else None
        items = list(items.values()) if isinstance(items, dict) else items  # glTF 1.0 has dictionaries
        for item in items if isinstance(items, list) else ():
            uri = item.get("uri") if isinstance(item, dict) else None
            if isinstance(uri, str) and not uri.startswith("data:"):
                yield unquote(uri)


def _glb_json(path: Path) -> bytes:
    """The first chunk of a binary glTF (glTF 2.0 specification, section 4.4); empty when the file is no such thing."""
    with open(path, "rb") as file:
        header = file.read(20)
        if len(header) < 20 or header[:4] != b"glTF" or header[16:20] != b"JSON":
            return b""
        return file.read(min(int.from_bytes(header[12:16], "little"), path.stat().st_size))


def _material_files(path: Path) -> Iterator[str]:
    with open(path, "rb") as file:
        for line in file:
            if line.startswith(b"mtllib"):
                names = os.fsdecode(line[len(b"mtllib") :].strip())
                yield from [names] if os.path.isfile(path.parent / names) else names.split()


_TEXTURE = re.compile(r"\s*(?:map_\w+|bump|disp|decal|refl|norm)\s+(.*)", re.IGNORECASE)
_NUMBER = r"[-+]?[\d.]+(?:[eE][-+]?\d+)?"
_OPTION = re.compile(rf"-(?:(?:[ost](?:\s+{_NUMBER}){{1,3}})|mm\s+\S+\s+\S+|[a-z]+\s+\S+)\s+", re.IGNORECASE)


def _texture_files(path: Path) -> Iterator[str]:
    """Textures of a material file: http://paulbourke.net/dataformats/mtl/ (the name is what is left after the options)."""
    for line in path.read_bytes().splitlines():
        if found := _TEXTURE.match(os.fsdecode(line)):
            name = found[1]
            while option := _OPTION.match(name):
                name = name[option.end() :]
            yield name
