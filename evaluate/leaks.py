"""Which objects of a benchmark were trained on: by their ids, by the hashes of their files, and as near-duplicates.

    trained = trained_on(card, lists=["train_all.json"])      # None: nobody knows (`not_known` says why)
    found = leaks(trained, benchmark)
    found.counts()                                            # {"id": 2, "hash": 0, "near-duplicate": 1}

A checkpoint of this project says itself what it was trained on: corpus, versions and held-out objects stand on its card. Of a
published one somebody must say it, with lists as OpenShape publishes them (meta_data/split/train_all.json, train_no_lvis.json).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32

from evaluate.benchmark import Benchmark
from evaluate.duplicates import Clouds, alike, near_duplicates, of_benchmark, of_corpus
from pipeline.assets.asset import sha256_of
from pipeline.imports.splits import read_split
from schemas.corpus import CorpusError, Reader, quote
from schemas.tables import OBJECTS, POINTS, SPLITS, VIEWS
from trainer.card import Card
from trainer.validation import divided, means_of_views

LISTS = (".json", ".csv", ".txt")  # what read_split reads; anything else is a corpus
ID, HASH, NEAR = "id", "hash", "near-duplicate"


@dataclass(frozen=True)
class TrainedOn:
    """What an encoder was trained on. `told`: in words; `ids`: the objects; `sha256`: of their assets, by id, where known. `root`:
    the corpus that holds their points, and `versions` of its tables (None: the newest). `also`: the same of further corpora, whose
    ids and hashes are among these."""

    told: str
    ids: frozenset[str]
    sha256: dict[str, str]
    root: str | None
    versions: dict[str, int] | None
    also: tuple["TrainedOn", ...] = ()


@dataclass(frozen=True)
class Leaks:
    """What of a benchmark was trained on: (object of the benchmark, object trained on), and of near-duplicates how far apart they
    are (see evaluate/duplicates.py). A pair stands under the first of the three that told it.

    `asked`: for each of the three None, or why it could not be asked. `objects`: how many the benchmark has.
    """

    benchmark: str
    objects: int
    trained: str
    by_id: tuple[tuple[str, str], ...]
    by_hash: tuple[tuple[str, str], ...]
    near: tuple[tuple[str, str, float], ...]
    asked: dict[str, str | None]

    def counts(self) -> dict[str, int]:
        """Objects of the benchmark that leaked, each under the first way that told it; of ways that could be asked."""
        return {way: len(ids) for way, ids in self.by_way().items() if self.asked[way] is None}

    def by_way(self) -> dict[str, list[str]]:
        """The same objects by name, in the benchmark's order."""
        told: dict[str, list[str]] = {}
        seen: set[str] = set()
        for way, pairs in ((ID, self.by_id), (HASH, self.by_hash), (NEAR, self.near)):
            told[way] = [id for id in dict.fromkeys(pair[0] for pair in pairs) if id not in seen]
            seen.update(told[way])
        return told

    def trained_ids(self) -> set[str]:
        """The objects trained on that are in the benchmark: what to hold out."""
        return {pair[1] for pairs in (self.by_id, self.by_hash, self.near) for pair in pairs}


def trained_on(card: Card, *, lists: Sequence[str] = ()) -> TrainedOn | None:
    """What an encoder was trained on: what its card says, if that can still be read, and what `lists` say (see `listed`); None when
    neither says anything. Raises CorpusError, and ValueError with a sentence, for a list that cannot be read."""
    own = _of_card(card)
    parts = [*([own] if isinstance(own, TrainedOn) else []), *map(listed, lists)]
    return _joined(parts) if parts else None


def not_known(card: Card) -> str | None:
    """Why the card does not say what its encoder was trained on; None: it does."""
    own = _of_card(card)
    return own if isinstance(own, str) else None


def listed(place: str) -> TrainedOn:
    """All objects of a list (.json, .csv, .txt: see pipeline/imports/splits.py), of a corpus (ROOT), or of one of its splits
    (ROOT#SPLIT). Raises CorpusError, and ValueError with a sentence."""
    if place.endswith(LISTS):
        try:
            ids = frozenset(read_split(place))
        except FileNotFoundError:
            raise ValueError(f"there is no list {place}") from None
        return TrainedOn(f"{place}, {len(ids):,} objects", ids, {}, None, None)
    root, _, split = place.partition("#")
    corpus = Reader.at(root)
    wanted = None
    if split:
        rows = corpus.need(SPLITS.name).to_table(columns=["object_id"], filter=f"split = {quote(split)}")
        if not len(rows):
            raise ValueError(f"{corpus.root} has no split {split!r}: python -m jobs import {corpus.root} --split {split}=FILE")
        wanted = frozenset(rows["object_id"].to_pylist())
    known = _hashes(corpus.need(OBJECTS.name), wanted)
    ids = frozenset(known) if wanted is None else wanted
    return TrainedOn(f"{place}, {len(ids):,} objects", ids, known, corpus.root, None)


def leaks(
    trained: TrainedOn,
    benchmark: Benchmark,
    *,
    near: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Leaks:
    """Compare. An object that has another name in another collection made of the same is the same: MVPNet's clouds are MVImgNet's
    objects, a ShapeNet model is filed under several synsets, Objaverse's part of Objaverse-XL is Objaverse.

    `near`: also compare shapes, which takes a while (`progress`: see evaluate.duplicates.near_duplicates); else ids and hashes
    alone. Raises CorpusError and ObjectError."""
    by_id = _same_ids(trained.ids, benchmark.ids)
    theirs, why_not = _hashes_of(benchmark) if trained.sha256 else ({}, f"no hashes of {trained.told} are known")
    known = set(by_id)
    by_hash = [pair for pair in _same_hashes(trained.sha256, theirs) if pair not in known]
    shapes, why_not_near = _near(trained, benchmark, known.union(by_hash), progress) if near else ([], "not asked for")
    return Leaks(
        benchmark=benchmark.name,
        objects=len(benchmark.ids),
        trained=trained.told,
        by_id=_in_order(by_id, benchmark),
        by_hash=_in_order(by_hash, benchmark),
        near=_in_order(shapes, benchmark),
        asked={ID: None, HASH: why_not, NEAR: why_not_near},
    )


def _of_card(card: Card) -> TrainedOn | str:
    """The objects that the encoder was trained on, exactly: those with embeddings, not held out, that have what its recipe draws;
    or why they are not known."""
    if card.data is None:
        name = card.made_by.get("published", "this encoder")
        return f"{name} was trained elsewhere, and its card does not say on what"
    corpus, versions = Reader.at(card.data["root"]), card.data["versions"]
    settings = card.made_by["settings"]
    draws = settings["recipe"]["draws"]
    images = f"image_embeddings/{settings['teacher']}"
    wanted = {OBJECTS.name: True, images: True, POINTS.name: draws["points"], VIEWS.name: draws["pictures"]}
    tables = {name: corpus.open(name, versions[name]) for name, is_wanted in wanted.items() if is_wanted}
    if gone := [name for name, table in tables.items() if table is None]:
        return f"it was trained on {corpus.root}, whose table {gone[0]} is not there any more in version {versions[gone[0]]}"
    ids = tables[images].to_table(columns=["object_id"])["object_id"].to_pylist()
    try:
        kept = frozenset(divided(corpus, ids, settings["held_out"], versions.get(SPLITS.name))[0])
    except CorpusError as error:
        return f"it was trained on {corpus.root}, but not on {settings['held_out']}, and {error}"
    if draws["points"]:
        kept &= frozenset(tables[POINTS.name].to_table(columns=["object_id"])["object_id"].to_pylist())
    if draws["pictures"]:
        counted = pc.value_counts(tables[VIEWS.name].to_table(columns=["object_id"])["object_id"])
        kept &= frozenset(one["values"] for one in counted.to_pylist() if one["counts"] >= draws["views"][1])
    began = f", begun from {settings['initial']}, which may have seen others" if settings["initial"] else ""
    told = f"{corpus.root}, {len(kept):,} objects{began}"
    return TrainedOn(told, kept, _hashes(tables[OBJECTS.name], kept), corpus.root, versions)


def _joined(parts: list[TrainedOn]) -> TrainedOn:
    if len(parts) == 1:
        return parts[0]
    with_points = [part for part in parts if part.root]
    first = with_points[0] if with_points else parts[0]
    return replace(
        first,
        told="; ".join(part.told for part in parts),
        ids=frozenset().union(*(part.ids for part in parts)),
        sha256={id: sha256 for part in parts for id, sha256 in part.sha256.items()},
        also=tuple(with_points[1:]),
    )


def _hashes(objects: Any, wanted: Iterable[str] | None) -> dict[str, str]:
    """SHA-256 of the assets in a table of objects, by id; `wanted` None: of all."""
    rows = objects.to_table(columns=["object_id", "asset_sha256"])
    if wanted is not None:
        rows = rows.filter(pc.is_in(rows["object_id"], pa.array(list(wanted), pa.string())))
    return dict(zip(rows["object_id"].to_pylist(), rows["asset_sha256"].to_pylist(), strict=True))


def _hashes_of(benchmark: Benchmark) -> tuple[dict[str, str], str | None]:
    """SHA-256 of the files of a benchmark's objects, by id, and why there are none."""
    if benchmark.corpus is not None:
        return _hashes(Reader.at(benchmark.corpus).need(OBJECTS.name), benchmark.ids), None
    files = {id: file for number, id in enumerate(benchmark.ids) if (file := benchmark.file(number)) is not None}
    if not files:
        return {}, f"the objects of {benchmark.name} ({benchmark.variant}) have no files of their own"
    return {id: sha256_of(Path(file)) for id, file in files.items()}, None


def _same_ids(trained: Iterable[str], theirs: Sequence[str]) -> list[tuple[str, str]]:
    named = {_one_name(id): id for id in theirs}
    return [(named[name], id) for id in trained if (name := _one_name(id)) in named]


def _one_name(id: str) -> str:
    """One name for an object that has several."""
    source, _, own = id.partition("/")
    match source:
        case "mvpnet":
            return f"mvimgnet/{own}"
        case "shapenet":
            return f"shapenet/{own.rpartition('/')[2]}"
        case "objaverse-xl":
            return f"objaverse/{own}"
    return id


def _same_hashes(trained: dict[str, str], theirs: dict[str, str]) -> list[tuple[str, str]]:
    named = defaultdict(list)
    for id, sha256 in theirs.items():
        named[sha256].append(id)
    return [(their, id) for id, sha256 in trained.items() if sha256 in named for their in named[sha256]]


def _near(
    trained: TrainedOn, benchmark: Benchmark, known: set[tuple[str, str]], progress: Callable[[int, int], None]
) -> tuple[list[tuple[str, str, float]], str | None]:
    """Pairs of the same shape that are not known otherwise, and why there are none."""
    parts = [part for part in (trained, *trained.also) if part.root]
    if not parts:
        return [], f"the points of {trained.told} are not at hand: give their corpus, --trained-on ROOT"
    theirs = of_benchmark(benchmark)
    found: dict[tuple[str, str], float] = {}
    for part in parts:
        ours = of_corpus(part.root, keep=part.ids, version=part.versions and part.versions[POINTS.name])
        their_number, our_number = ({id: number for number, id in enumerate(clouds.ids)} for clouds in (theirs, ours))
        told = [(their_number[i], our_number[j]) for i, j in known if i in their_number and j in our_number]
        also = _seen_alike(part, ours, benchmark, theirs)
        pairs = near_duplicates(theirs, ours, also=also, known=told, progress=progress)
        found |= {(theirs.ids[i], ours.ids[j]): apart for i, j, apart in pairs}
    return [(*pair, apart) for pair, apart in found.items()], None


def _seen_alike(trained: TrainedOn, ours: Clouds, benchmark: Benchmark, theirs: Clouds) -> list[tuple[int, int]]:
    """Further pairs to compare, where both are in corpora that one teacher has embedded: those whose views look alike."""
    if benchmark.corpus is None:
        return []
    corpora = Reader.at(benchmark.corpus), Reader.at(trained.root)
    for teacher in corpora[0].teachers():
        if teacher in corpora[1].teachers() and corpora[0].teacher_of(teacher) == corpora[1].teacher_of(teacher):
            return alike(*(
                _means(corpus, teacher, clouds.ids) for corpus, clouds in zip(corpora, (theirs, ours), strict=True)
            ))  # fmt: skip
    return []


def _means(corpus: Reader, teacher: str, ids: Sequence[str]) -> Float32[np.ndarray, "n d"]:
    """Mean embedding of each object's views, not a number for those without any."""
    table = corpus.need(f"image_embeddings/{teacher}")
    means = means_of_views(corpus, teacher, list(ids), table.version)
    nothing = np.full(table.schema.field("embedding").type.value_type.list_size, np.nan, np.float32)
    return np.array([means.get(id, nothing) for id in ids], np.float32).reshape(len(ids), -1)


def _in_order(pairs: list[tuple], benchmark: Benchmark) -> tuple[tuple, ...]:
    number = {id: number for number, id in enumerate(benchmark.ids)}
    return tuple(sorted(pairs, key=lambda pair: (number[pair[0]], pair[1])))
