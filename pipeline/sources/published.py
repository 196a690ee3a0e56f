"""How the collections are got: which files of those that anybody may fetch, and where to ask for the others."""

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from pipeline.sources.abo import ADDRESS
from pipeline.sources.objaverse import read_index


class Published(Protocol):
    """A collection that anybody may fetch file by file.

    kind      of the source that reads the folder
    place     the address of its official folder; paths are relative to it
    about     said before the download: how large it is, under which terms
    index     the file that lists the objects
    first     further files to fetch whatever is asked for
    optional  the same, but not missed
    subsets   names that `subset` knows
    """

    kind: str
    place: str
    about: str
    index: str
    first: tuple[str, ...]
    optional: tuple[str, ...]
    subsets: tuple[str, ...]

    def objects(self, folder: Path) -> dict[str, str]:
        """Every object's id and the path of its asset, in the order in which a limit takes them. ValueError: unreadable index."""
        ...

    def subset(self, folder: Path, name: str) -> list[str]:
        """The ids of a named subset, one of `subsets`. Raises ValueError when its list cannot be read."""
        ...

    def metadata(self, paths: list[str]) -> list[str]:
        """The further files that speak of these assets."""
        ...

    def bytes(self, folder: Path, paths: list[str]) -> dict[str, int] | None:
        """About how large the assets are, as far as the collection says; None: it does not at all, so its place must be asked."""
        ...


@dataclass(frozen=True)
class Objaverse:
    """Objaverse 1.0 (https://huggingface.co/datasets/allenai/objaverse)."""

    kind = "objaverse"
    place = "https://huggingface.co/datasets/allenai/objaverse/resolve/main"
    about = "Objaverse 1.0: 798,759 objects, 8.9 TB; ODC-By 1.0 as a whole, each object under a Creative Commons licence of its own"
    index = "object-paths.json.gz"
    first = ("lvis-annotations.json.gz",)
    optional = ()
    subsets = ("lvis",)

    def objects(self, folder: Path) -> dict[str, str]:
        """Folder by folder, so that a few objects need few metadata files."""
        listed = read_index(str(folder / self.index), {})
        return dict(sorted(listed.items(), key=lambda item: item[1]))

    def subset(self, folder: Path, name: str) -> list[str]:
        """lvis: those with an LVIS category."""
        categories = read_index(str(folder / "lvis-annotations.json.gz"), {})
        return sorted({uid for uids in categories.values() for uid in uids})

    def metadata(self, paths: list[str]) -> list[str]:
        """One file per folder of assets."""
        return [f"metadata/{shard}.json.gz" for shard in sorted({PurePosixPath(path).parent.name for path in paths})]

    def bytes(self, folder: Path, paths: list[str]) -> dict[str, int]:
        """What Sketchfab said when the collection was made; for a few objects nothing."""
        found = {}
        by_shard: dict[str, list[str]] = {}
        for path in paths:
            by_shard.setdefault(PurePosixPath(path).parent.name, []).append(path)
        for shard, of_shard in by_shard.items():
            annotations = read_index(str(folder / f"metadata/{shard}.json.gz"), {})
            for path in of_shard:
                archives = (annotations.get(PurePosixPath(path).stem) or {}).get("archives") or {}
                if size := (archives.get("glb") or {}).get("size"):
                    found[path] = size
        return found


@dataclass(frozen=True)
class Abo:
    """Amazon Berkeley Objects, its 3D models (https://amazon-berkeley-objects.s3.amazonaws.com/index.html)."""

    kind = "abo"
    place = ADDRESS
    about = "Amazon Berkeley Objects: 7,953 models, 150 GB; read the licence file that comes with it, and name Amazon.com"
    index = "3dmodels/metadata/3dmodels.csv.gz"
    first = tuple(f"listings/metadata/listings_{digit}.json.gz" for digit in "0123456789abcdef")
    # the licence has had two names, as the terms have changed
    optional = ("README.md", "LICENSE-CC-BY-4.0.txt", "LICENSE-CC-BY-NC-4.0.txt", "images/metadata/images.csv.gz")
    subsets = ()

    def objects(self, folder: Path) -> dict[str, str]:
        """In the order of the list."""
        return dict(_models(folder / self.index))

    def subset(self, folder: Path, name: str) -> list[str]:
        """There is none."""
        raise NotImplementedError

    def metadata(self, paths: list[str]) -> list[str]:
        """The listings speak of all models and come first."""
        return []

    def bytes(self, folder: Path, paths: list[str]) -> None:
        """The list does not say."""


def _models(index: Path) -> Iterator[tuple[str, str]]:
    try:
        with gzip.open(index, "rt", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                yield row["3dmodel_id"], f"3dmodels/original/{row['path']}"
    except (OSError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{index} cannot be read ({error}): download it again") from error


PUBLISHED: dict[str, Published] = {"objaverse": Objaverse(), "abo": Abo()}

# Collections that this program does not fetch: how a person gets them.
BY_HAND = {
    "shapenet": """ShapeNetCore.v2 is given out on request.
ask      make an account at https://shapenet.org, or ask for access at https://huggingface.co/datasets/ShapeNet/ShapeNetCore
terms    non-commercial research and education; give it only to people who agreed to the same terms
unpack   the zip of each category, and taxonomy.json, into one folder: ShapeNetCore.v2/02691156/<model>/models/model_normalized.obj
then     python -m jobs build CORPUS --source shapenet=/data/ShapeNetCore.v2""",
    "3d-future": """3D-FUTURE is given out on request.
ask      sign the Terms of Use and send them to 3dfront@list.alibaba-inc.com; links come back
terms    those Terms of Use: academic research; not to be passed on
unpack   3D-FUTURE-model.zip (or its four parts) into one folder: 3D-FUTURE-model/model_info.json and 3D-FUTURE-model/<model>/
then     python -m jobs build CORPUS --source 3d-future=/data/3D-FUTURE-model""",
    "mvimgnet": """MVImgNet is given out on request.
ask      the form at https://github.com/GAP-LAB-CUHK-SZ/MVImgNet; a link and a password come back (43 zips, 3.4 TB)
terms    the MVImgNet Terms of Use
unpack   the zips into one folder: mvimgnet/<class>/<instance>/images and sparse/0, and mvimgnet_category.txt
then     python -m jobs build CORPUS --source mvimgnet=/data/mvimgnet""",
    "mvpnet": """MVPNet, the point clouds of MVImgNet, is given out on request.
ask      the MVPNet form at https://github.com/GAP-LAB-CUHK-SZ/MVImgNet
terms    the MVImgNet Terms of Use
unpack   into one folder: mvpnet/<class>/<instance>.pcd
then     python -m jobs build CORPUS --source mvpnet=/data/mvpnet
or       with MVImgNet: clouds = "/data/mvpnet" below [sources.mvimgnet] in the settings file""",
    "objaverse-xl": """Objaverse-XL lies where its makers put it (GitHub, Thingiverse, ...); this program does not visit them.
ask      nobody: `pip install objaverse`, then objaverse.xl.get_annotations and download_objects with save_repo_format="files"
terms    ODC-By 1.0 as a whole, each object under a licence of its own
unpack   nothing: ~/.objaverse then holds github/, thingiverse/, smithsonian/ and hf-objaverse-v1/
then     python -m jobs build CORPUS --source objaverse-xl=~/.objaverse""",
}
