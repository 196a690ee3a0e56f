"""Objects that a corpus holds more than once, and what of its splits and of benchmarks is also somewhere else.

The same files are told by their hashes, here. The same shapes (evaluate/duplicates.py) and what leaked from a benchmark
(evaluate/leaks.py) take longer and are found elsewhere; they come in as plain data.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int64
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from reports.portraits import Called, called, portraits
from reports.scans import scanned
from reports.section import Exhibit, Histogram, Picture, Pictures, Rows, Section, Tile, Tiles
from reports.spreads import percent
from schemas.corpus import Reader
from schemas.labels import labelled
from schemas.tables import OBJECTS, SPLITS

SHOWN = 12  # clusters in pictures
MEMBERS = 4  # of a cluster in one picture
LISTED = 100  # clusters and leaks that are named one by one
NAMED = 8  # members of a cluster that are named
SIDE, TILE = 160, 112  # pixels of a member; CSS pixels of one in the page
DISTANCES = tuple(step / 20 for step in range(25))  # edges: 0 to 1.2, beyond which nothing is a duplicate
WAYS = {"by_id": "by id", "by_hash": "by the hash of the file", "near": "by shape"}
TITLE = "Duplicates and leaks"

Cluster = tuple[str, ...]


@dataclass(frozen=True)
class Leak:
    """What of a benchmark is in the corpus: pairs (object of the benchmark, object of the corpus), of shapes also their distance; a
    pair stands under the first way that told it. `objects`: how many the benchmark has. `asked`: by way ("id", "hash",
    "near-duplicate") None, or why it could not be asked. As evaluate.leaks.Leaks has them."""

    benchmark: str
    objects: int
    by_id: Sequence[tuple[str, str]]
    by_hash: Sequence[tuple[str, str]]
    near: Sequence[tuple[str, str, float]]
    asked: dict[str, str | None]

    def leaked(self) -> dict[str, list[str]]:
        """Objects of the benchmark that leaked, each under the first way that told it."""
        told: dict[str, list[str]] = {}
        seen: set[str] = set()
        for way in WAYS:
            told[way] = sorted({pair[0] for pair in getattr(self, way)} - seen)
            seen.update(told[way])
        return told


def duplicates(
    corpus: Reader,
    *,
    near: Sequence[tuple[str, str, float]] | None = None,
    compared: int | None = None,
    leaks: Sequence[Leak] = (),
) -> Section:
    """The section on duplicates and leaks.

    near      pairs of objects of one shape, and how far apart they are; None: shapes were not compared
    compared  how many objects' shapes were
    leaks     of each benchmark that was compared with
    """
    objects = corpus.open(OBJECTS.name)
    if objects is None:
        figures = dict.fromkeys((*_GATES, "objects", "exact", "near", "splits", "overlaps", "leaks"))
        return Section(key="duplicates", title=TITLE, lead="There are no objects yet.", figures=figures, gates=_gates(figures))
    ids, group = _files(objects)
    exact = _clusters(ids, group)
    both, shapes = group, None
    if near is not None:
        both = _joined(ids, group, near)
        shapes = _clusters(ids, both)
    splits = _splits(corpus, ids)
    figures = {
        "objects": len(ids),
        "duplicate_share": _superfluous(exact) / len(ids) if len(ids) else None,
        "near_duplicate_share": _superfluous(shapes) / len(ids) if shapes is not None and len(ids) else None,
        "leaked_share": _leaked_share(leaks),
        "exact": _told(exact, len(ids)),
        "near": None if shapes is None else _told(shapes, compared) | {"pairs": len(near)},
        "splits": {
            name: _split(there, listed, ids, group, both if near is not None else None) for name, (there, listed) in splits.items()
        },
        "overlaps": list(_overlaps({name: there for name, (there, _) in splits.items()})),
        "leaks": {leak.benchmark: _leak(leak) for leak in leaks},
    }
    return Section(
        key="duplicates",
        title=TITLE,
        lead=_lead(figures),
        figures=figures,
        gates=_gates(figures),
        warnings=tuple(_warnings(corpus, figures)),
        exhibits=(_tiles(figures), *_exhibits(corpus, figures, exact, shapes, near, leaks)),
    )


_GATES = ("duplicate_share", "near_duplicate_share", "leaked_share")


def _gates(figures: dict[str, Any]) -> dict[str, float | None]:
    return {name: figures[name] for name in _GATES}


# ------------------------------------------------------------------------------------------------------------------- finding


def _files(objects: Any) -> tuple[pa.Array, Int64[np.ndarray, " n"]]:
    """Ids of the objects, and of each the number of its files: the same where the bytes are, those of the companions included."""
    ids, files = [pa.array([], pa.string())], [pa.array([], pa.string())]
    for piece in scanned(objects, ["object_id", "asset_sha256", "companions_sha256"]):
        ids += piece["object_id"].chunks
        companions = pc.fill_null(piece["companions_sha256"], "")
        files += pc.binary_join_element_wise(piece["asset_sha256"], companions, "/").chunks
    return pa.concat_arrays(ids), pa.concat_arrays(files).dictionary_encode().indices.to_numpy().astype(np.int64)


def _joined(ids: pa.Array, group: Int64[np.ndarray, " n"], near: Sequence[tuple[str, str, float]]) -> Int64[np.ndarray, " n"]:
    """Groups that are joined where a pair links them."""
    some, others = (pc.index_in(pa.array([pair[end] for pair in near], pa.string()), ids) for end in (0, 1))
    there = pc.and_(some.is_valid(), others.is_valid())
    links = [group[one.filter(there).to_numpy()] for one in (some, others)]
    size = int(group.max(initial=-1)) + 1
    parts = connected_components(coo_array((np.ones(len(links[0])), tuple(links)), shape=(size, size)), directed=False)[1]
    return parts[group].astype(np.int64)


def _clusters(ids: pa.Array, group: Int64[np.ndarray, " n"]) -> list[Cluster]:
    """Groups of more than one, the largest first, then by id."""
    several = np.flatnonzero(np.bincount(group)[group] > 1)
    ordered = several[np.argsort(group[several], kind="stable")]
    parts = np.split(ordered, np.flatnonzero(np.diff(group[ordered])) + 1) if len(ordered) else []
    found = [tuple(sorted(ids.take(pa.array(part)).to_pylist())) for part in parts]
    return sorted(found, key=lambda cluster: (-len(cluster), cluster))


def _superfluous(clusters: Sequence[Cluster]) -> int:
    """Objects that go when one of each cluster stays."""
    return sum(len(cluster) - 1 for cluster in clusters)


def _sources(cluster: Cluster) -> list[str]:
    return sorted({id.partition("/")[0] for id in cluster})


def _splits(corpus: Reader, ids: pa.Array) -> dict[str, tuple[Bool[np.ndarray, " n"], int]]:
    """Which of the objects are in each split, those that the collections name and those that were imported; and how many objects
    the split lists, be they here or not."""
    found: dict[str, tuple[np.ndarray, int]] = {}
    own = [
        (piece["split"], piece["object_id"])
        for piece in scanned(corpus.open(OBJECTS.name), ["object_id", "split"], "split IS NOT NULL")
    ]
    listed = [(piece["split"], piece["object_id"]) for piece in scanned(corpus.open(SPLITS.name), ["object_id", "split"])]
    for names, whose in own + listed:
        for name in pc.unique(names).to_pylist():
            members = whose.filter(pc.equal(names, name))
            there, count = found.get(name, (np.zeros(len(ids), bool), 0))
            there[pc.index_in(members, ids).drop_null().to_numpy()] = True
            found[name] = there, count + len(members)
    return dict(sorted(found.items()))


def _split(
    there: Bool[np.ndarray, " n"],
    listed: int,
    ids: pa.Array,
    group: Int64[np.ndarray, " n"],
    both: Int64[np.ndarray, " n"] | None,
) -> dict[str, Any]:
    exact = _twins(there, group)
    return {
        "listed": listed,
        "objects": int(there.sum()),
        "twins_outside": int(exact.sum()),
        "near_twins_outside": None if both is None else int(_twins(there, both).sum()),
        "examples": ids.take(pa.array(np.flatnonzero(exact)[:NAMED])).to_pylist(),
    }


def _twins(there: Bool[np.ndarray, " n"], group: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Objects outside a split of whose group some are in it."""
    inside = np.zeros(int(group.max(initial=-1)) + 1, bool)
    inside[group[there]] = True
    return inside[group] & ~there


def _overlaps(splits: dict[str, Bool[np.ndarray, " n"]]) -> Iterator[dict[str, Any]]:
    """Pairs of splits that have objects in common."""
    names = list(splits)
    for number, one in enumerate(names):
        for other in names[number + 1 :]:
            if common := int((splits[one] & splits[other]).sum()):
                yield {"splits": [one, other], "objects": common}


# ------------------------------------------------------------------------------------------------------------------- figures


def _told(clusters: Sequence[Cluster], of: int | None) -> dict[str, Any]:
    return {
        "compared": of,
        "clusters": len(clusters),
        "objects": sum(map(len, clusters)),
        "superfluous": _superfluous(clusters),
        "largest": max(map(len, clusters), default=0),
        "across_sources": sum(len(_sources(cluster)) > 1 for cluster in clusters),
        "listed": [list(cluster) for cluster in clusters[:LISTED]],
    }


def _leak(leak: Leak) -> dict[str, Any]:
    leaked = leak.leaked()
    count = sum(map(len, leaked.values()))
    return {
        "objects": leak.objects,
        "leaked": count,
        "leaked_share": count / leak.objects if leak.objects else None,
        **{way: len(ids) for way, ids in leaked.items()},
        "not_asked": {way: why_not for way, why_not in leak.asked.items() if why_not is not None},
    }


def _leaked_share(leaks: Sequence[Leak]) -> float | None:
    """Of the benchmark that leaked most."""
    shares = [share for leak in leaks if (share := _leak(leak)["leaked_share"]) is not None]
    return max(shares, default=None)


# ------------------------------------------------------------------------------------------------------------------- exhibits


def _lead(figures: dict[str, Any]) -> str:
    exact, near = figures["exact"], figures["near"]
    if not exact["clusters"]:
        said = [f"No two of the {figures['objects']:,} objects have the same files."]
    else:
        said = [
            f"{exact['objects']:,} of {figures['objects']:,} objects share their files with another one, in {exact['clusters']:,} "
            f"clusters: {exact['superfluous']:,} would go if one of each stayed ({percent(figures['duplicate_share'])})."
        ]
    if near is None:
        said.append("Shapes were not compared.")
    else:
        said.append(
            f"By shape it is {near['objects']:,} objects in {near['clusters']:,} clusters, {near['superfluous']:,} of them too "
            "many."
        )
    for name, leak in figures["leaks"].items():
        said.append(f"{leak['leaked']:,} of {leak['objects']:,} objects of {name} are in this corpus.")
    return " ".join(said)


def _warnings(corpus: Reader, figures: dict[str, Any]) -> Iterator[str]:
    def held_out(name: str, place: str) -> str:
        return f"python -m jobs evaluate leaks {corpus.root} --against {name}={place} --write-split leaked-{name}"

    for name in labelled(corpus):  # others are not evaluated on
        split = figures["splits"][name]
        if outside := max(split["twins_outside"], split["near_twins_outside"] or 0):
            yield (
                f"outside the split {name} {'is 1 object' if outside == 1 else f'are {outside:,} objects'} that it holds as well: "
                f"whoever holds {name} out still trains on that. To hold them out, too: {held_out(name, corpus.root)}"
            )
    for name, leak in figures["leaks"].items():
        if leak["leaked"]:
            yield (
                f"{leak['leaked']:,} of {leak['objects']:,} objects of the benchmark {name} are in this corpus: what is trained on "
                f"all of it must not be evaluated there. To hold them out: {held_out(name, 'PLACE')}"
            )


def _tiles(figures: dict[str, Any]) -> Tiles:
    exact, near = figures["exact"], figures["near"]
    tiles = [
        Tile(
            "same files",
            f"{exact['superfluous']:,}",
            f"objects too many, {percent(figures['duplicate_share'])}; in {exact['clusters']:,} clusters, "
            f"{exact['across_sources']:,} of them across sources",
        )
    ]
    if near is not None:
        tiles.append(
            Tile(
                "same shapes",
                f"{near['superfluous']:,}",
                f"objects too many, {percent(figures['near_duplicate_share'])}; in {near['clusters']:,} clusters, "
                f"{near['across_sources']:,} of them across sources",
            )
        )
    for name, leak in figures["leaks"].items():
        tone = "bad" if leak["leaked"] else "good"
        tiles.append(Tile(f"of {name}", f"{leak['leaked']:,}", f"of its {leak['objects']:,} objects are in this corpus", tone))
    return Tiles(tuple(tiles))


def _exhibits(
    corpus: Reader,
    figures: dict[str, Any],
    exact: Sequence[Cluster],
    shapes: Sequence[Cluster] | None,
    near: Sequence[tuple[str, str, float]] | None,
    leaks: Sequence[Leak],
) -> Iterator[Exhibit]:
    known = set(map(frozenset, exact))
    new = [cluster for cluster in shapes or () if frozenset(cluster) not in known]  # those that the hashes did not tell
    leaked = list(dict.fromkeys(pair[1] for leak in leaks for way in WAYS for pair in getattr(leak, way)))[:SHOWN]
    shown = [id for cluster in (*exact[:SHOWN], *new[:SHOWN]) for id in cluster[:MEMBERS]] + leaked
    ids = pa.array(dict.fromkeys(shown), pa.string())
    pictures, about = portraits(corpus, ids, side=SIDE), called(corpus, ids)
    if exact:
        yield _pictures("The same files", exact, pictures, about)
        yield _rows("Clusters of the same files", exact)
    if near:
        distances = np.histogram([pair[2] for pair in near], np.array(DISTANCES))[0]
        yield Histogram(
            title="Distances of pairs of one shape",
            unit="distance",
            edges=DISTANCES,
            series={"pairs": tuple(distances.tolist())},
            note="1: as far apart as two samples of points of one surface.",
        )
    if new:
        yield _pictures("The same shapes, other files", new, pictures, about)
        yield _rows("Clusters of the same shapes, other files", new)
    yield from _of_splits(figures)
    if leaks:
        yield from _of_leaks(figures, leaks, leaked, pictures, about)


def _pictures(title: str, clusters: Sequence[Cluster], pictures: dict[str, bytes], about: dict[str, Called]) -> Pictures:
    made = []
    for cluster in clusters[:SHOWN]:
        there = [pictures[id] for id in cluster[:MEMBERS] if id in pictures]
        if there:
            names = " = ".join(dict.fromkeys(about[id].name for id in cluster[:MEMBERS]))
            made.append(Picture(beside(there), names, f"{len(cluster):,} objects: {_named(cluster)}"))
    return Pictures(title=title, pictures=tuple(made), tile=2 * TILE, note="The largest clusters, and some members of each.")


def beside(pictures: Sequence[bytes]) -> bytes:
    """Encoded pictures side by side in one, as a WebP."""
    opened = [Image.open(io.BytesIO(picture)).convert("RGBA") for picture in pictures]
    sheet = Image.new("RGBA", (SIDE * len(opened), SIDE))
    for number, picture in enumerate(opened):
        sheet.paste(picture, (SIDE * number + (SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    encoded = io.BytesIO()
    sheet.save(encoded, "WEBP", quality=80)
    return encoded.getvalue()


def _named(cluster: Cluster) -> str:
    return ", ".join(cluster[:NAMED]) + (", …" if len(cluster) > NAMED else "")


def _rows(title: str, clusters: Sequence[Cluster]) -> Rows:
    left_out = len(clusters) - LISTED
    return Rows(
        title=title,
        head=("objects", "sources", "which"),
        rows=tuple((len(cluster), ", ".join(_sources(cluster)), _named(cluster)) for cluster in clusters[:LISTED]),
        folded=True,
        note=f"And {left_out:,} smaller ones." if left_out > 0 else "",
    )


def _of_splits(figures: dict[str, Any]) -> Iterator[Rows]:
    if figures["splits"]:
        yield Rows(
            title="Splits, and what is the same as something in them",
            head=("split", "listed", "in this corpus", "outside it, same files", "outside it, same shape"),
            rows=tuple(
                (name, one["listed"], one["objects"], one["twins_outside"], one["near_twins_outside"])
                for name, one in figures["splits"].items()
            ),
            note="Outside a split: objects that have the files, or the shape, of one in it. Who holds a split out holds these out "
            "too.",
        )
    if figures["overlaps"]:
        yield Rows(
            title="Objects in two splits",
            head=("split", "and split", "objects"),
            rows=tuple((*one["splits"], one["objects"]) for one in figures["overlaps"]),
            folded=True,
        )


def _of_leaks(
    figures: dict[str, Any], leaks: Sequence[Leak], leaked: Sequence[str], pictures: dict[str, bytes], about: dict[str, Called]
) -> Iterator[Exhibit]:
    told = figures["leaks"]
    not_asked = [f"{name}, {way}: {why}" for name, one in told.items() for way, why in one["not_asked"].items()]
    yield Rows(
        title="Benchmarks",
        head=("benchmark", "objects", "in this corpus", *WAYS.values()),
        rows=tuple((name, one["objects"], one["leaked"], *(one[way] for way in WAYS)) for name, one in told.items()),
        note=f"Not compared: {'; '.join(not_asked)}." if not_asked else "",
    )
    pairs = [(leak.benchmark, *pair[:2], said) for leak in leaks for way, said in WAYS.items() for pair in getattr(leak, way)]
    if pairs:
        yield Rows(
            title="Objects of benchmarks that are in this corpus",
            head=("benchmark", "its object", "object of this corpus", "how it was told"),
            rows=tuple(pairs[:LISTED]),
            folded=True,
            note=f"And {len(pairs) - LISTED:,} more." if len(pairs) > LISTED else "",
        )
        yield Pictures(
            title="What leaked",
            pictures=tuple(Picture(pictures[id], about[id].name, id) for id in leaked if id in pictures),
            tile=TILE,
        )
