"""What a source is: a collection of assets at some place, which knows how the collection is laid out there.

A new collection is one more file here and one more line in `KINDS`.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

from pipeline.assets.asset import absolute
from pipeline.sources.abo import Abo
from pipeline.sources.folder import Folder
from pipeline.sources.future3d import Future3D
from pipeline.sources.mvimgnet import Mvimgnet, Mvpnet
from pipeline.sources.objaverse import Objaverse
from pipeline.sources.objaverse_xl import ObjaverseXL
from pipeline.sources.shapenet import ShapeNet
from pipeline.stage import Row

KINDS: dict[str, type["Source"]] = {
    "objaverse": Objaverse,
    "objaverse-xl": ObjaverseXL,
    "shapenet": ShapeNet,
    "3d-future": Future3D,
    "abo": Abo,
    "mvimgnet": Mvimgnet,
    "mvpnet": Mvpnet,
    "folder": Folder,
}


class Source(Protocol):
    """A frozen dataclass. To make one raises FileNotFoundError or ValueError, with a sentence, when `root` has no such collection.

    name    first part of its objects' ids
    root    absolute path or URI of the collection

    Further fields, with defaults, are its options: `[sources.NAME]` in a settings file.
    """

    name: str
    root: str

    def records(self) -> Iterator[Row]:
        """Every object, in an order that stays, as `pipeline.sources.record.record` makes them; read as they are asked for."""
        ...


def source_from(text: str, options: dict[str, dict[str, Any]] | None = None) -> Source:
    """The source a command line asks for: `NAME=PATH`, NAME a kind of collection, or `NAME:KIND=PATH` with a name of your own.

    `folder=~/chairs` and `chairs:folder=~/chairs` are the same files; the ids of their objects begin with `folder/` and `chairs/`.
    A kind may be spelt with or without hyphens and capitals: 3D-FUTURE, 3dfuture. `options`: per name of a source the values of its
    further fields.

    Raises ValueError for a text of another form, an unknown kind or option, or a place of another layout; FileNotFoundError for no
    such place.
    """
    names, equals, place = text.partition("=")
    name, colon, kind = names.partition(":")
    kind, kinds = _KIND_BY_SPELLING.get(spelt(kind if colon else name), kind if colon else name), ", ".join(KINDS)
    name = name if colon else kind
    if not (equals and name and place):
        raise ValueError(
            f"source {text!r} has the wrong form: write NAME=PATH with NAME one of {kinds}; "
            "NAME:KIND=PATH with one of these as KIND gives the objects a name of your own"
        )
    if kind not in KINDS:
        raise ValueError(f"source {text!r} names the unknown kind of collection {kind!r}: there are {kinds}")
    if "/" in name:
        raise ValueError(f"source {text!r} has the name {name!r}: a name may not hold a slash, since object ids are NAME/ID")
    given = (options or {}).get(name, {})
    known = [field.name for field in dataclasses.fields(KINDS[kind]) if field.name not in ("name", "root")]
    if unknown := given.keys() - set(known):
        has = f"it has: {', '.join(known)}" if known else "it has none"
        raise ValueError(f"source {name!r} ({kind}) has no option {', '.join(map(repr, sorted(unknown)))}; {has}")
    return KINDS[kind](name=name, root=absolute(place), **given)


def spelt(kind: str) -> str:
    """A name without what its spellings differ in: 3D-FUTURE and 3dfuture are one."""
    return "".join(letter for letter in kind.lower() if letter.isalnum())


_KIND_BY_SPELLING = {spelt(kind): kind for kind in KINDS} | {"future3d": "3d-future"}
