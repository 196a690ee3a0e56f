"""What a source is: a collection of assets at some place, which knows how the collection is laid out there.

A new collection is one more file here and one more line in `KINDS`.
"""

from collections.abc import Iterator
from typing import Protocol

from pipeline.asset import absolute
from pipeline.sources.folder import Folder
from pipeline.sources.objaverse import Objaverse
from pipeline.stage import Row

KINDS: dict[str, type["Source"]] = {"objaverse": Objaverse, "folder": Folder}


class Source(Protocol):
    """A frozen dataclass. To make one raises FileNotFoundError or ValueError, with a sentence, when `root` has no such collection.

    name    first part of its objects' ids
    root    absolute path or URI of the collection
    """

    name: str
    root: str

    def records(self) -> Iterator[Row]:
        """Every object, in an order that stays, as `pipeline.sources.record.record` makes them; read as they are asked for."""
        ...


def source_from(text: str) -> Source:
    """The source a command line asks for: `NAME=PATH`, NAME a kind of collection, or `NAME:KIND=PATH` with a name of your own.

    `folder=~/chairs` and `chairs:folder=~/chairs` are the same files; the ids of their objects begin with `folder/` and `chairs/`.
    Raises ValueError for a text of another form, an unknown kind or a place of another layout; FileNotFoundError for no such place.
    """
    names, equals, place = text.partition("=")
    name, colon, kind = names.partition(":")
    kind, kinds = kind if colon else name, ", ".join(KINDS)
    if not (equals and name and place):
        raise ValueError(
            f"source {text!r} has the wrong form: write NAME=PATH with NAME one of {kinds}; "
            "NAME:KIND=PATH with one of these as KIND gives the objects a name of your own"
        )
    if kind not in KINDS:
        raise ValueError(f"source {text!r} names the unknown kind of collection {kind!r}: there are {kinds}")
    if "/" in name:
        raise ValueError(f"source {text!r} has the name {name!r}: a name may not hold a slash, since object ids are NAME/ID")
    return KINDS[kind](name=name, root=absolute(place))
