"""The files that belong to an asset: what it refers to, looked up once, inside its home.

An asset may name any file of this machine and any address of a network. Its home is the folder it lies in, or the one above it that
its collection names: what is found there are its companions (column `companions` of OBJECTS), and nothing else is ever opened for
it.
"""

import functools
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import fsspec

from pipeline.assets import gltf
from pipeline.assets.asset import sha256_of
from pipeline.assets.references import (
    Reference,
    below,
    collada_pictures,
    content_of,
    gltf_items,
    holds_pictures,
    material_files,
    mtl_pictures,
    names_within,
    usd_names,
    uses_materials,
)
from pipeline.fetch.cache import opened
from pipeline.fetch.persist import foreign_errors, persist
from pipeline.stage import ObjectError, Row

MOST_COMPANIONS = 4096

_MISSING = {"picture": "missing_texture", "material": "missing_material", "layer": "missing_layer"}


@dataclass
class Companions:
    """The files that belong to an asset: `files` as in OBJECTS.companions, in the order in which they were met; `sha256` over role,
    name and contents of all (None: there are none); `warnings`: what was amiss with the references; `bytes`: size of all files."""

    files: list[dict[str, str]] = field(default_factory=list)
    sha256: str | None = None
    warnings: set[str] = field(default_factory=set)
    bytes: int = 0


def companions(
    path: Path, record: Row, *, most_mb: int = 2048, most_files: int = MOST_COMPANIONS, document: dict[str, Any] | None = None
) -> Companions:
    """The companions of an asset that lies at `path` on this machine and at the record's `asset_uri` in its collection.

    Of the record are used asset_uri, asset_format and, where it has them, home, texture and cloud. `document`: the JSON of a glTF,
    if it was read before. Warnings: texture_path_repaired, external_uri_blocked, unsafe_uri_blocked, missing_texture,
    missing_material, missing_layer, missing_cloud.
    Raises ObjectError: missing_buffer and unsafe_uri (a buffer), too_many_files, asset_too_large (in sum more than `most_mb`), and
    what the format's reader says of a file that is none.
    """
    search = _Search(path, record, most_files)
    search.follow(path, document)
    found = search.found
    digest, size = hashlib.sha256(), path.stat().st_size if path.is_file() else 0
    for file in found.files:
        with opened(file["uri"]) as local:
            size += local.stat().st_size
            if size > most_mb << 20:
                message = f"{record['asset_uri']} and its files have more than {most_mb} MB together (limits.asset_mb)"
                raise ObjectError("asset_too_large", message)
            digest.update(f"{file['role']}\0{file['name']}\0{sha256_of(local)}\n".encode())
    found.sha256, found.bytes = digest.hexdigest() if found.files else None, size
    return found


class _Search:
    """Follows the references of one asset."""

    def __init__(self, path: Path, record: Row, most_files: int):
        uri = record["asset_uri"]
        folder = uri.rpartition("/")[0]
        home = _Home((record.get("home") or folder).rstrip("/"))
        self.home = home if home.parts(folder) is not None else _Home(folder)
        self.folder = self.home.parts(folder)
        self.record, self.most_files = record, most_files
        self.found = Companions()
        self.met: dict[str, str | None] = {}  # names met so far, and where the files are

    def follow(self, path: Path, document: dict[str, Any] | None) -> None:
        """Finds all that the asset refers to, and what its collection says belongs to it."""
        format = self.record["asset_format"]
        if format in ("glb", "gltf"):
            for reference, _ in gltf_items(gltf.read(path).document if document is None else document):
                self.look_up(reference)
        elif format == "obj":
            self._follow_obj(path)
        elif format == "dae":
            with content_of(path) as content:
                for _, _, reference in collada_pictures(content, path.name):
                    self.look_up(reference)
        elif format in ("usd", "usda", "usdc"):
            self._follow_usd(path)
        elif format in ("fbx", "abc"):
            with content_of(path) as content:
                self._guess(names_within(content), tells=not holds_pictures(content))
        for role in ("texture", "cloud"):
            if place := self.record.get(role):
                self._add_given(role, place)

    def look_up(self, reference: Reference, *, name: str | None = None) -> str | None:
        """Where the file is, which becomes a companion under `name` (None: the reference's own). None: it may not be followed or is
        not there, which is a warning, or for a buffer the end."""
        name = name or reference.name
        if name not in self.met:
            if len(self.met) >= self.most_files:
                message = f"{self.record['asset_uri']} names more than {self.most_files} files"
                raise ObjectError("too_many_files", message)
            uri, warning = self.home.find(self.folder, name, percent=reference.percent)
            self.met[name] = uri
            if uri is None and reference.kind == "buffer":
                self._refuse(name, warning)
            if warning:
                self.found.warnings.add(_MISSING[reference.kind] if warning == "missing" else warning)
            if uri not in (None, self.record["asset_uri"]):
                self.found.files.append({"role": "named", "name": name, "uri": uri})
        return self.met[name]

    def _refuse(self, name: str, warning: str | None) -> None:
        place = self.record["asset_uri"]
        if warning == "missing":
            raise ObjectError("missing_buffer", f"{place} needs {name!r}, which is not there: put it beside the asset")
        raise ObjectError("unsafe_uri", f"{place} takes its geometry from {name!r}, outside its own folder: it is not opened")

    def _follow_obj(self, path: Path) -> None:
        with content_of(path) as content:
            stem = PurePosixPath(self.record["asset_uri"]).stem
            names = material_files(content, stem, functools.cache(self._is_there))
            needed = uses_materials(content)
        materials = {name: self.look_up(Reference(name, "material")) for name in names}
        self.found.warnings.discard("missing_material")  # a name of several words is tried as one and as several
        if needed and not any(materials.values()) and not self.record.get("texture"):
            self.found.warnings.add("missing_material")
        for name, uri in materials.items():
            if uri is None:
                continue
            with opened(uri) as local:
                for reference in mtl_pictures(local):
                    self.look_up(reference, name=below(name, reference.name))

    def _is_there(self, name: str) -> bool:
        return self.home.find(self.folder, name, percent=False)[0] is not None

    def _follow_usd(self, path: Path) -> None:
        """The pictures and layers of a USD file, and those of its layers."""
        seen, waiting = set(), [("", self.record["asset_uri"])]
        while waiting:
            name, uri = waiting.pop()
            if uri in seen:
                continue
            seen.add(uri)
            with opened(uri) if name else nullcontext(path) as local, content_of(local) as content:
                named = [Reference(below(name, one.name), one.kind) for one in usd_names(content, local.name)]
            self._guess(named, tells=True)
            waiting += [(one.name, uri) for one in named if one.kind == "layer" and (uri := self.met.get(one.name))]

    def _guess(self, references: Iterable[Reference], *, tells: bool) -> None:
        """Follows what may be references, or one spelt in several ways. A file that none of its spellings finds is missing, if the
        asset `tells`, having no pictures in itself."""
        there: dict[tuple[str, str], bool] = {}
        before = set(self.found.warnings)
        for reference in references:
            file = reference.kind, re.split(r"[\\/:]", reference.name)[-1].lower()
            there[file] = self.look_up(reference) is not None or there.get(file, False)
        missing = {_MISSING[kind] for (kind, _), found in there.items() if tells and not found}
        self.found.warnings = before | (self.found.warnings & {"texture_path_repaired"}) | missing

    def _add_given(self, role: str, place: str) -> None:
        """A file that the collection itself says belongs to the asset; only a point cloud may lie elsewhere than in its home."""
        inside = self.home.parts(place)
        state = (
            self.home.state(inside) if inside is not None else _Home(place.rpartition("/")[0]).state((place.rpartition("/")[2],))
        )
        if role == "texture" and (inside is None or state == "outside"):
            self.found.warnings.add("unsafe_uri_blocked")
        elif state == "file":
            self.found.files.append({"role": role, "name": place.rpartition("/")[2], "uri": place})
        else:
            self.found.warnings.add(_MISSING["picture"] if role == "texture" else "missing_cloud")


Parts = tuple[str, ...]  # a path inside a home, folder by folder


class _Home:
    """The folder that an asset's references may not leave, on this machine or elsewhere."""

    def __init__(self, place: str):
        self.place = place
        self.filesystem, self.root = fsspec.url_to_fs(place) if "://" in place else (None, place)
        self.listed: dict[Parts, list[str]] = {}

    def parts(self, place: str) -> Parts | None:
        """A place as a path inside this home. None: it lies elsewhere."""
        if place == self.place:
            return ()
        return tuple(place[len(self.place) + 1 :].split("/")) if place.startswith(self.place + "/") else None

    def find(self, folder: Parts, name: str, *, percent: bool) -> tuple[str | None, str | None]:
        """Where the file is that an asset in `folder` calls `name`, and a warning: what was done to find it, or why it was not.

        A name that leads nowhere may have come from another machine: then the file counts that lies beside the asset under the last
        part of the name. Case, Unicode's ways to write one letter, and blanks that became underscores are of no account.
        """
        if re.match(r"[a-z][\w+.-]+://", name, re.IGNORECASE) and not name.lower().startswith("file:"):
            return None, "external_uri_blocked"
        path = unquote(name) if percent else name
        slashed = path.replace("\\", "/")
        absolute = slashed.startswith("/") or re.match(r"file:|[a-z]:", slashed, re.IGNORECASE) is not None
        inside = None if absolute else _down(folder, slashed)
        outside = inside is None
        if inside is not None:
            state = self.state(inside)
            if state == "file":
                return self.at(inside), None if slashed == path else "texture_path_repaired"
            outside = state == "outside"
        for wanted in (inside, _down(folder, slashed.rpartition("/")[2])):
            if wanted and (found := self._spelt_otherwise(wanted)):
                return self.at(found), "texture_path_repaired"
        return None, "unsafe_uri_blocked" if outside else "missing"

    def at(self, parts: Parts) -> str:
        """The place of a path inside."""
        return "/".join((self.place, *parts))

    def state(self, parts: Parts) -> str | None:
        """file; outside: a link that leads out; None: nothing there, or no file. Names that cannot be stored are not there."""
        try:
            "/".join(parts).encode()
        except UnicodeEncodeError:
            return None
        path = "/".join((self.root, *parts))
        if self.filesystem is not None:
            return "file" if persist(self.at(parts), lambda: self._type(path)) == "file" else None
        if not os.path.isfile(path):
            return None
        home = os.path.realpath(self.root or "/").rstrip("/") + "/"
        return "file" if os.path.realpath(path).startswith(home) else "outside"

    def _type(self, path: str) -> str | None:
        """What a file system elsewhere says a path is."""
        try:
            with foreign_errors():
                return self.filesystem.info(path)["type"]
        except FileNotFoundError:
            return None

    def _spelt_otherwise(self, parts: Parts) -> Parts | None:
        """The file that a path means whose parts may be spelt in another way. The exact spelling comes first, then the alphabet."""
        found: Parts = ()
        for part in parts:  # each folder that is listed is one that the listing above it names
            names = self._names(found)
            if part not in names:
                alike = sorted(name for name in names if _plain(name) == _plain(part))
                if not alike:
                    return None
                part = alike[0]
            found += (part,)
        return found if self.state(found) == "file" else None

    def _names(self, folder: Parts) -> list[str]:
        """The names in a folder; none where there is no such folder."""
        if folder not in self.listed:
            path = "/".join((self.root, *folder))
            try:
                if self.filesystem is None:
                    self.listed[folder] = os.listdir(path or "/")
                else:
                    self.listed[folder] = persist(path, lambda: self._listing(path))
            except (FileNotFoundError, NotADirectoryError, PermissionError, UnicodeEncodeError):
                self.listed[folder] = []
        return self.listed[folder]

    def _listing(self, path: str) -> list[str]:
        with foreign_errors():
            return [str(name).rstrip("/").rpartition("/")[2] for name in self.filesystem.ls(path, detail=False)]


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().replace(" ", "_")


def _down(folder: Parts, path: str) -> Parts | None:
    """A path taken from a folder on. None: it leads above all folders."""
    parts = list(folder)
    for part in path.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return tuple(parts)
