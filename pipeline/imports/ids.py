"""How other people's lists and folders spell the ids of objects, and how we do: "source/source_id"."""

import re

from pipeline.sources.source import spelt

# OpenShape's names of its four collections, and ours.
DATASETS = {"Objaverse": "objaverse", "ShapeNet": "shapenet", "ABO": "abo", "3D-FUTURE": "3d-future"}

_UID = re.compile(r"[0-9a-f]{32}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SYNSET_AND_MODEL = re.compile(r"(\d{8})[-_/]([\w-]+)")
_CLASS_AND_INSTANCE = re.compile(r"(\d{1,3})[_/]([0-9a-f]{8})(\.pcd|\.ply)?")

# What an id of a source looks like; of any other source, any text without a slash at its ends.
_FORMS = {
    "objaverse": _UID,
    "shapenet": _SYNSET_AND_MODEL,
    "abo": re.compile(r"[0-9A-Z]{10}(?:_[0-9A-Z]+)?"),
    "3d-future": _UUID,
    "mvimgnet": _CLASS_AND_INSTANCE,
    "mvpnet": _CLASS_AND_INSTANCE,
}
_OTHER = re.compile(r"[^/\s](?:.*[^/\s])?")


def object_id(source: str, id: str, group: str = "") -> str:
    """The object that `source` calls `id`, within its `group` where that is part of the id (ShapeNet's synset).

    ShapeNet's 02691156-1a04e3ea…, 02691156_1a04e3ea… and group 02691156 with id 1a04e3ea… are one; so are MVImgNet's 5_2600746d and
    5/2600746d.pcd. Raises ValueError, with a sentence, for an id that `source` cannot have.
    """
    form = _FORMS.get(source, _OTHER)
    found = form.fullmatch(id)
    if form is _SYNSET_AND_MODEL and not found:
        found = form.fullmatch(f"{group}/{id}")
    if not found:
        raise ValueError(f"{id!r} is no id of {source}")
    return f"{source}/{'/'.join(found.groups()[:2]) if form.groups else id}"


def source_of(dataset: str) -> str:
    """Our name of a collection, however its own name is spelt: 3D-FUTURE, 3dfuture. Of one that is not known, the name as it is."""
    return _BY_SPELLING.get(spelt(dataset), dataset)


def source_by_form(id: str) -> str | None:
    """The source whose ids look like this one; None: several do, or none."""
    if found := _CLASS_AND_INSTANCE.fullmatch(id):
        return "mvpnet" if found[3] else "mvimgnet"
    return next((source for source in ("objaverse", "3d-future", "shapenet") if _FORMS[source].fullmatch(id)), None)


_BY_SPELLING = {spelt(source): source for source in _FORMS}
