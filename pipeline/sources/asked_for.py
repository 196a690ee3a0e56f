"""asked-for.txt: which objects of a collection were asked for, one id per line, in a folder that holds a part of it.

A part of a collection comes with index files of the whole. An object that they list and that is not there was either never asked
for, which is nothing to speak of, or it was and could not be had, which is a failure: this file tells the two apart.
"""

from collections.abc import Iterable
from pathlib import Path

import fsspec

NAME = "asked-for.txt"


def asked_for(root: str) -> frozenset[str] | None:
    """The ids that were asked for, or None: all of them."""
    try:
        with fsspec.open(f"{root}/{NAME}", "rt", encoding="utf-8") as file:
            return frozenset(line.strip() for line in file if line.strip())
    except FileNotFoundError:
        return None


def ask_for(folder: Path, ids: Iterable[str] | None, *, afresh: bool = False) -> None:
    """Note ids besides those that were asked for before; None: everything.

    A folder without a list holds the whole collection, and goes on doing so, unless `afresh` begins a list.
    """
    before = asked_for(str(folder))
    if ids is None:
        (folder / NAME).unlink(missing_ok=True)
    elif afresh or before is not None:
        part = folder / f"{NAME}.part"
        part.write_text("".join(f"{id}\n" for id in sorted(frozenset(ids) | (before or frozenset()))), encoding="utf-8")
        part.rename(folder / NAME)
