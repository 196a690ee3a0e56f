"""3D-FUTURE as it is given out (https://tianchi.aliyun.com/dataset/98063):

model_info.json        [{model_id, super-category, category, style, theme, material}], any of them null; may be absent
<model_id>/raw_model.obj           in metres, for nearly all models
<model_id>/normalized_model.obj    centred, largest coordinate 1
<model_id>/model.mtl               not named by every OBJ
<model_id>/texture.png             the base colour, not named by every MTL
<model_id>/image.jpg               a picture of the object

The list has a category in several spellings (King-size Bed, Single bed, Console table), so that they are given in small letters. Of
several entries of one model the first counts.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.assets.asset import stamps_in
from pipeline.sources.listing import files_in, folders_in, home_of, read_list, stamp_with_parts
from pipeline.sources.record import record
from pipeline.stage import Row

LICENSE = "LicenseRef-3D-FUTURE"  # one agreement for all

# Which OBJ is the asset. Views and points hardly differ; only with raw does canonical_from_asset tell the object's size.
MODELS = ("raw", "normalized")

_BROKEN = {"7e101ef3-7722-4af8-90d5-7c562834fabd": "the release has a broken OBJ for this model; BlenderProc leaves it out too"}
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True)
class Future3D:
    """The folder 3D-FUTURE-model, or the folder above it. What is on disk comes first; what is listed but absent, last."""

    name: str
    root: str
    model: str = "raw"

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"the option model of {self.name} is {self.model!r}: must be one of {', '.join(MODELS)}")
        self._home()

    def records(self) -> Iterator[Row]:
        """Every folder of a model and every other entry of the list; one folder is listed at a time."""
        home = self._home()
        listed, conflicts = _listed(home)
        folders = [name for name in folders_in(home) if name in listed or _ID.fullmatch(name)]
        for id in folders:
            yield self._record(home, id, listed.get(id), stamps_in(f"{home}/{id}"), id in conflicts)
        there = set(folders)
        for id, about in listed.items():
            if id not in there:
                yield self._record(home, id, about, {}, id in conflicts)

    def _home(self) -> str:
        home = home_of(self.root, _holds_models)
        if home is None:
            raise ValueError(
                f"{self.root} holds neither model_info.json nor folders of models, so it is no 3D-FUTURE: "
                "give the folder 3D-FUTURE-model, with the zip files unpacked in it"
            )
        return home

    def _record(self, home: str, id: str, about: dict[str, Any] | None, stamps: dict[str, str], conflict: bool) -> Row:
        folder, asset = f"{home}/{id}", f"{self.model}_model.obj"
        parts = {name: stamp for name, stamp in stamps.items() if name != "image.jpg"}
        textured = "texture.png" in stamps
        warnings = {
            "metadata_missing": about is None,
            "metadata_conflict": conflict,
            "missing_texture": bool(stamps) and not textured,
            "wrong_extension": "image.jpg" in stamps and _is_no_jpeg(f"{folder}/image.jpg"),
        }
        told = about or {}
        return record(
            source=self.name,
            source_id=id,
            asset_uri=f"{folder}/{asset}",
            asset_stamp=stamp_with_parts(asset, parts),
            categories=list(dict.fromkeys(_in_small_letters(text) for text in _texts(told, "category", "super-category"))),
            tags=_texts(told, "style", "theme", "material"),
            license=LICENSE,
            front="+z",
            thumbnail_uri=f"{folder}/image.jpg" if "image.jpg" in stamps else None,
            texture=f"{folder}/texture.png" if textured else None,
            unusable=("known_broken", f"{id}: {_BROKEN[id]}") if id in _BROKEN else None,
            warnings=[name for name, is_so in warnings.items() if is_so],
        )


def _holds_models(folder: str) -> bool:
    return "model_info.json" in files_in(folder) or any(map(_ID.fullmatch, folders_in(folder)))


def _is_no_jpeg(place: str) -> bool:
    """Whether a picture on this machine is something else than its name says. In an object store, to know would take a request for
    each object on each run."""
    if "://" in place:
        return False
    with open(place, "rb") as file:
        return file.read(2) != b"\xff\xd8"


def _listed(home: str) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """The first entry of each model, in the order of the list, and the models of which another entry says something else."""
    first: dict[str, dict[str, Any]] = {}
    conflicts = set()
    for entry in read_list(f"{home}/model_info.json") or ():
        id = entry.get("model_id")
        if isinstance(id, str) and id and "/" not in id and first.setdefault(id, entry) != entry:
            conflicts.add(id)
    return first, conflicts


def _texts(about: dict[str, Any], *names: str) -> list[str]:
    return [value.strip() for name in names if isinstance(value := about.get(name), str) and value.strip()]


def _in_small_letters(category: str) -> str:
    """Lounge Chair / Cafe Chair -> lounge chair / cafe chair; L-shaped Sofa and TV Stand keep what is a letter or a short form."""
    return re.sub(r"\b[A-Z](?=[a-z])", lambda first: first[0].lower(), category)
