"""A folder of assets: every file below it that has the name of a 3D format, known by its path in the folder."""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import fsspec

from pipeline.assets.asset import format_of
from pipeline.fetch.cache import stamp_of
from pipeline.sources.listing import PARTS
from pipeline.sources.record import record
from pipeline.stage import Row

FORMATS = ("glb", "gltf", "obj", "ply", "stl", "off", "fbx", "dae", "usd", "usda", "usdc", "usdz", "abc", "3mf")

_IN_PARTS = ("gltf", "obj", "dae", "fbx", "usd", "usda", "usdc")  # keep buffers, materials and textures in files beside them


@dataclass(frozen=True)
class Folder:
    """Assets in a folder and its subfolders. Hidden files are left alone; a link that leads out of the folder is not followed."""

    name: str
    root: str

    def __post_init__(self) -> None:
        filesystem, path = fsspec.url_to_fs(self.root)
        if not filesystem.exists(path):
            raise FileNotFoundError(f"{self.root} does not exist: give a folder of assets")
        if not filesystem.isdir(path):
            raise ValueError(f"{self.root} is a file: give the folder it is in")
        if not any(format_of(path) in FORMATS for path, _ in self._files()):
            raise ValueError(f"{self.root} holds no assets: give a folder with files of the formats {', '.join(FORMATS)}")

    def records(self) -> Iterator[Row]:
        """Every asset, in the order of their paths. The only name a file has is its own, without the extension."""
        files = dict(self._files())
        parts = _parts_below(files)
        for path in sorted(files):
            format = format_of(path)
            if format not in FORMATS:
                continue
            stamp = files[path]
            if stamp is not None and format in _IN_PARTS:
                stamp += "-" + parts.get(str(PurePosixPath(path).parent), "")
            yield record(
                source=self.name,
                source_id=path,
                asset_uri=f"{self.root}/{path}",
                asset_stamp=stamp,
                name=PurePosixPath(path).stem,
                unusable=self._unusable(path),
            )

    def _files(self) -> Iterator[tuple[str, str | None]]:
        """Path in the folder and stamp of every file that is not hidden; the stamp is None where there is nothing to read."""
        if "://" in self.root:
            filesystem, root = fsspec.url_to_fs(self.root)
            for found, about in filesystem.find(root, detail=True).items():
                path = PurePosixPath(found).relative_to(root)
                if not any(part.startswith(".") for part in path.parts):
                    yield str(path), stamp_of(about)
            return
        for here, folders, names in os.walk(self.root, onerror=_stop):  # enters no linked folders
            folders[:] = [folder for folder in folders if not folder.startswith(".")]
            # A folder that is called like an asset is one that was lost on the way, and is told.
            for name in [*names, *(folder for folder in folders if format_of(folder) in FORMATS)]:
                if not name.startswith("."):
                    file = os.path.join(here, name)
                    path = PurePosixPath(os.path.relpath(file, self.root))
                    yield str(path), self._stamp(file)

    def _stamp(self, file: str) -> str | None:
        if self._leads_out(file):
            return None
        try:
            about = os.stat(file)
        except FileNotFoundError:  # a link to nothing
            return None
        return stamp_of(about) if stat.S_ISREG(about.st_mode) else None

    def _leads_out(self, file: str) -> bool:
        return os.path.islink(file) and not os.path.realpath(file).startswith(os.path.realpath(self.root) + os.sep)

    def _unusable(self, path: str) -> tuple[str, str] | None:
        if "://" in self.root:
            return None
        file = os.path.join(self.root, path)
        if self._leads_out(file):
            return (
                "link_outside",
                f"{file} is a link out of {self.root}: copy the file there, or give the folder it is in as a source",
            )
        if os.path.isdir(file):
            return "not_a_file", f"{file} is a folder and is called like an asset: give the asset, or rename the folder"
        try:
            path.encode()
        except UnicodeEncodeError:
            return "name_not_utf8", f"the file name {path!r} is not UTF-8 and cannot be an id: rename the file"
        return None


def _stop(error: OSError) -> None:
    raise error


def _parts_below(files: dict[str, str | None]) -> dict[str, str]:
    """For each folder, a digest over all files in it and below it that may be parts of an asset.

    Which of them an asset really needs is not known before it is read. To read it once too often is cheap: what comes after
    asks for the hashes of the files that count.
    """
    digests: dict[str, hashlib._Hash] = {}
    for path in sorted(files):
        if format_of(path) in PARTS:
            for folder in PurePosixPath(path).parents:
                digest = digests.setdefault(str(folder), hashlib.blake2b(digest_size=8))
                digest.update(f"{path}\0{files[path]}\n".encode("utf-8", "surrogateescape"))
    return {folder: digest.hexdigest() for folder, digest in digests.items()}
