"""A split of a corpus as a benchmark: a list of objects and what it calls them (`import ROOT --split NAME=FILE`)."""

import re
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from evaluate.benchmark import Benchmark
from evaluate.sets.clouds import Half, numbered
from evaluate.sets.mvpnet import names_above
from schemas.corpus import CorpusError, Reader, any_of
from schemas.labels import labelled, labels
from schemas.tables import OBJECTS

_OF_MVIMGNET = re.compile(r"[^/]+/(\d+)/[^/]+")  # source, number of the class, instance


def in_corpus(name: str, root: str, part: Half) -> Benchmark:
    """The objects of the split `name`, or of its training half `name`-train, by id. The list is kept whole: what it has and the
    corpus lacks is `missing`.

    Classes: the sorted labels of both halves. Of "mvpnet": all classes of MVImgNet, in the order of their numbers, from
    mvimgnet_category.txt beside the corpus' tables or up to two folders above, from the list, and from the objects' categories:
    238, or fewer where there is no such file and no object of some class. Raises CorpusError: no such split; it calls one object
    two things.
    """
    reader = Reader.at(root)
    halves = {"test": name, "train": f"{name}-train"}
    known = {half: _said(reader, split) for half, split in halves.items() if half == part or split in labelled(reader)}
    said, everywhere = known[part], [pair for half in known.values() for pair in half.items()]
    if len(shared := [id for id in said if all(id in half for half in known.values())]) and len(known) == 2:
        raise CorpusError(
            f"{reader.root}: {len(shared)} objects are in both halves of {name!r}, as {shared[0]}: import other lists"
        )
    classes = _classes_of_mvimgnet(reader, everywhere) if name == "mvpnet" else tuple(sorted({label for _, label in everywhere}))
    there = pc.is_in(pa.array(said.keys()), reader.need(OBJECTS.name).to_table(columns=["object_id"])["object_id"]).to_pylist()
    ids = tuple(id for id, here in zip(said, there, strict=True) if here)
    return Benchmark(
        name=name,
        variant=f"split {halves[part]} of the corpus",
        classes=classes,
        ids=ids,
        labels=numbered(reader.root, [said[id] for id in ids], classes),
        missing=tuple(id for id, here in zip(said, there, strict=True) if not here),
        corpus=reader.root,
    )


def _said(reader: Reader, split: str) -> dict[str, str]:
    """What a split calls its objects, by id, sorted."""
    return _agreed(
        sorted(zip(*(column.to_pylist() for column in labels(reader, split)), strict=True)), f"{reader.root}, split {split!r}:"
    )


def _classes_of_mvimgnet(reader: Reader, said: list[tuple[str, str]]) -> tuple[str, ...]:
    """The ids have the numbers of the classes."""
    if strange := [id for id, _ in said if not _OF_MVIMGNET.fullmatch(id)]:
        raise CorpusError(f"{reader.root}: {strange[0]!r} is no id of MVImgNet: call this split something other than mvpnet")
    sources = sorted({id.partition("/")[0] for id, _ in said})
    known = reader.need(OBJECTS.name).to_table(columns=["object_id", "categories"], filter=any_of("source", sources)).to_pydict()
    objects = zip(known["object_id"], known["categories"], strict=True)
    named = [*said, *((id, categories[0]) for id, categories in objects if categories)]
    numbers = [*names_above(reader.root).items(), *((_OF_MVIMGNET.fullmatch(id)[1], name) for id, name in named)]
    names = _agreed(((int(number), name) for number, name in numbers), f"{reader.root}: class of MVImgNet")
    return tuple(names[number] for number in sorted(names))


def _agreed(pairs: Iterable[tuple], whose: str) -> dict:
    """One name of each. Raises CorpusError."""
    names: dict = {}
    for one, name in pairs:
        if names.setdefault(one, name) != name:
            raise CorpusError(f"{whose} {one} is called {names[one]!r} and {name!r}: import a list in which it has one name")
    return names
