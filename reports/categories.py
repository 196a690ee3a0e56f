"""What the objects are called: categories of their collections, labels of lists, and how long the tail of rare ones is."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int

from reports.funnel import by_count, having
from reports.scans import counts, scanned
from reports.section import Bar, Bars, Exhibit, Histogram, Rows, Section, Tile, Tiles
from reports.spreads import percent, share_of
from schemas.corpus import Reader, quote
from schemas.tables import OBJECTS, SPLITS

CLASSES_SHOWN = 30  # as bars
CLASSES_KEPT = 1000  # of each list, with their counts, among the figures
MOST_FREQUENT = 3  # classes, of each source and list
RARE = 5  # a class with fewer objects can hardly be learnt, or tested on


def categories(corpus: Reader, *, classes_shown: int = CLASSES_SHOWN, classes_kept: int = CLASSES_KEPT) -> Section:
    """The section on categories and their long tail, and on the splits and their labels: of each the `classes_shown` largest in the
    page, and `classes_kept` among the figures."""
    objects = corpus.open(OBJECTS.name)
    each = counts(objects, ["source", "categories"]).rename_columns(["source", "class", "count"])
    sizes = _sizes(each)
    whole = 0 if objects is None else objects.count_rows()
    without = _without(objects)
    figures = {
        "objects": whole,
        "uncategorised": sum(without.values()),
        "uncategorised_share": share_of(sum(without.values()), whole),
        **tail(sizes["count"].to_numpy()),
        "largest": _largest(sizes, classes_kept),
        "left_out": max(0, len(sizes) - classes_kept),
        "sources": {
            row["source"]: {
                "objects": row["count"],
                "uncategorised": without.get(row["source"], 0),
                **tail(own["count"].to_numpy()),
                "largest": _largest(own, classes_kept),
            }
            for row in counts(objects, ["source"]).to_pylist()
            for own in [each.filter(pc.equal(each["source"], row["source"]))]
        },
        "splits": _splits(corpus, classes_kept),
        "own_splits": {row["split"]: row["count"] for row in counts(objects, ["split"], "split IS NOT NULL").to_pylist()},
    }
    if objects is None:
        figures = dict.fromkeys(figures)
    return Section(
        key="categories",
        title="Categories and their long tail",
        lead=_lead(figures),
        figures=figures,
        gates={
            "uncategorised_share": figures["uncategorised_share"],
            "categories": figures["classes"],
            "rare_category_share": figures["rare_share"],
        },
        warnings=tuple(_to_look_at(figures)) if whole else (),
        exhibits=tuple(_exhibits(figures, sizes, classes_shown)) if whole else (),
    )


def tail(sizes: Int[np.ndarray, " classes"]) -> dict[str, Any]:
    """What is to be known of classes by how many objects each has: `classes`; how many of the largest hold half of all (an object
    counts in each of its classes), and their share of the classes; those with a single object, those with few, their shares; the
    size of the `median` one."""
    classes = len(sizes)
    sums = np.cumsum(np.sort(sizes)[::-1])
    half = int((sums < sums[-1] / 2).sum()) + 1 if classes else 0
    single, rare = int((sizes == 1).sum()), int((sizes < RARE).sum())
    return {
        "classes": classes,
        "classes_of_half": half,
        "half_share": share_of(half, classes),
        "single": single,
        "single_share": share_of(single, classes),
        "rare": rare,
        "rare_share": share_of(rare, classes),
        "median": float(np.median(sizes)) if classes else None,
    }


def _sizes(each: pa.Table) -> pa.Table:
    """Classes of all sources together, the largest first."""
    whole = each.group_by("class", use_threads=False).aggregate([("count", "sum")]).rename_columns(["class", "count"])
    return whole.sort_by([("count", "descending"), ("class", "ascending")])


def _largest(sizes: pa.Table, most: int) -> dict[str, int]:
    first = sizes.slice(0, most)
    return dict(zip(first["class"].to_pylist(), first["count"].to_pylist(), strict=True))


def _without(objects: Any) -> dict[str, int]:
    """Objects without a category, by source."""
    rows = counts(objects, ["source"], "array_length(categories) = 0 OR array_length(categories) IS NULL")
    return dict(zip(rows["source"].to_pylist(), rows["count"].to_pylist(), strict=True))


def _splits(corpus: Reader, classes_kept: int) -> dict[str, Any]:
    """Per split: how many objects its list has, how many of them are in the corpus, how many have a label, and the labels."""
    table = corpus.open(SPLITS.name)
    if table is None:
        return {}
    names = [row["split"] for row in counts(table, ["split"]).to_pylist()]
    ids = [piece["object_id"] for piece in scanned(corpus.open(OBJECTS.name), ["object_id"])]
    everything = pa.chunked_array([chunk for one in ids for chunk in one.chunks], pa.string()).combine_chunks()
    found = {}
    for name in sorted(names):
        where = f"split = {quote(name)}"
        labels = counts(table, ["label"], f"{where} AND label IS NOT NULL").rename_columns(["class", "count"])
        listed = table.count_rows(filter=where)
        there = int(having(corpus, SPLITS.name, everything, where).sum())
        found[name] = {
            "listed": listed,
            "in_corpus": there,
            "labelled": int(pc.sum(labels["count"]).as_py() or 0),
            **tail(labels["count"].to_numpy()),
            "largest": _largest(labels, classes_kept),
        }
    return found


def _lead(figures: dict[str, Any]) -> str:
    if not figures["objects"]:
        return "There is no table of objects." if figures["objects"] is None else "There are no objects."
    if not figures["classes"]:
        said = f"None of the {figures['objects']:,} objects has a category."
    else:
        said = (
            f"{figures['classes']:,} categories; {_these(figures['classes_of_half'])} half of all mentions, and "
            f"{_have(figures['single'])} a single object. {figures['uncategorised']:,} of {figures['objects']:,} objects "
            f"({percent(figures['uncategorised_share'])}) have none."
        )
    if figures["splits"]:
        there = {name: one["in_corpus"] for name, one in figures["splits"].items()}
        said += f" Lists of objects: {by_count(there)}."
    return said


def _these(number: int) -> str:
    return "the largest holds" if number == 1 else f"the {number:,} largest hold"


def _have(number: int) -> str:
    return "1 has" if number == 1 else f"{number:,} have"


def _to_look_at(figures: dict[str, Any]) -> Iterator[str]:
    for name, one in figures["splits"].items():
        if absent := one["listed"] - one["in_corpus"]:
            yield f"{absent:,} of the {one['listed']:,} objects that the list {name} names are not in this corpus."


def _exhibits(figures: dict[str, Any], sizes: pa.Table, classes_shown: int) -> Iterator[Exhibit]:
    yield Tiles(
        (
            Tile("categories", f"{figures['classes']:,}"),
            Tile("of these hold half", f"{figures['classes_of_half']:,}", "the largest ones; an object counts in each that it has"),
            Tile("with a single object", f"{figures['single']:,}", f"{figures['rare']:,} with fewer than {RARE}"),
            Tile("without a category", percent(figures["uncategorised_share"]), f"{figures['uncategorised']:,} objects"),
        )
    )
    if figures["classes"]:
        yield _bars("Largest categories", sizes["class"].to_pylist()[:classes_shown], sizes["count"].to_numpy(), classes_shown)
        yield _by_size(sizes["count"].to_numpy())
        yield _by_rank(sizes["count"].to_numpy())
    yield Rows(
        title="Categories by source",
        head=("source", "objects", "without one", "categories", "hold half", "with one object", "most frequent"),
        rows=tuple(
            (
                source,
                *(one[name] for name in ("objects", "uncategorised", "classes", "classes_of_half", "single")),
                by_count(dict(list(one["largest"].items())[:MOST_FREQUENT])),
            )
            for source, one in figures["sources"].items()
        ),
    )
    if figures["splits"]:
        yield Rows(
            title="Lists of objects, and their labels",
            head=(
                "list",
                "objects named",
                "in the corpus",
                "with a label",
                "labels",
                "hold half",
                "with one object",
                "most frequent",
            ),
            rows=tuple(
                (
                    name,
                    *(one[key] for key in ("listed", "in_corpus", "labelled", "classes", "classes_of_half", "single")),
                    by_count(dict(list(one["largest"].items())[:MOST_FREQUENT])),
                )
                for name, one in figures["splits"].items()
            ),
        )
    for name, one in figures["splits"].items():
        if one["classes"]:
            first = list(one["largest"].items())[:classes_shown]
            rest = (one["classes"] - len(first), one["labelled"] - sum(count for _, count in first))
            bars = tuple(Bar(label, count) for label, count in first)
            yield Bars(title=f"Largest labels of {name}", unit="objects", bars=bars, left_out=rest)


def _bars(title: str, names: list[str], sizes: Int[np.ndarray, " classes"], shown: int) -> Bars:
    bars = tuple(Bar(name, int(count)) for name, count in zip(names, sizes[:shown], strict=True))
    return Bars(title=title, unit="objects", bars=bars, left_out=(max(0, len(sizes) - shown), int(sizes[shown:].sum())))


def _by_size(sizes: Int[np.ndarray, " classes"]) -> Histogram:
    edges = 2.0 ** np.arange(np.floor(np.log2(sizes.max())) + 2)
    return Histogram(
        title="How large the categories are",
        unit="objects in the category",
        edges=tuple(edges.tolist()),
        series={"categories": tuple(np.histogram(sizes, edges)[0].tolist())},
        log=True,
        marks={"median": float(np.median(sizes))},
        note="Each bar: categories with at least so many objects, and fewer than twice as many.",
    )


def _by_rank(sizes: Int[np.ndarray, " classes"]) -> Histogram:
    """How the objects are spread over the categories, ordered by size: the first, the next two, the next four, …"""
    edges = 2.0 ** np.arange(np.floor(np.log2(len(sizes))) + 2)
    ranks = np.arange(1, len(sizes) + 1)
    return Histogram(
        title="The long tail",
        unit="rank of the category, the largest first",
        edges=tuple(edges.tolist()),
        series={"objects": tuple(np.histogram(ranks, edges, weights=sizes)[0].astype(int).tolist())},
        log=True,
        note="Each bar: the objects of twice as many categories as the bar before it.",
    )
