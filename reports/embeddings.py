"""What the teachers say of a corpus: do pictures and captions belong together, what lies near what, and a map of it all.

A teacher puts pictures and texts into one space. There a caption must lie nearer to the views of its object than to those of
another; how much nearer, and for which captions and which views, is counted here over objects chosen by chance. Whether that is
good enough to train on the canary judges (python -m jobs evaluate canary). The map lays objects out so that those that look alike
are near each other.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int64

from reports.agreement import BINS, GRAIN, MOST_VIEWS, Agreement, agreement, compared, spread_of
from reports.neighbours import laid_out, nearest_of, various
from reports.portraits import Called, called, portraits
from reports.section import Exhibit, Histogram, Map, Picture, Pictures, Rows, Section, Tile, Tiles
from reports.spreads import percent
from schemas.corpus import CorpusError, Reader
from schemas.tables import OBJECTS

SAMPLE = 20_000  # objects whose cosines are counted
MAPPED = 3_000  # objects on the map, which are half a minute's work on one core
ASKED, NEIGHBOURS = 6, 5  # objects whose neighbours are shown, and how many of each

NARROW, WIDE = (-200, 600, 10), (-1000, 1000, 25)  # edges of histograms, thousandths: from, to, width
BEYOND = 0.001  # share of the cosines that may lie outside the narrow edges
ORIGINS = 6  # series of a histogram
GROUPS = 9  # that a colouring of the map tells apart, beside the others
OTHER = "other"
SIDE, MAP_SIDE, TILE = 192, 96, 112  # pixels of pictures; CSS pixels of those shown side by side

MATCHED, MISMATCHED = "its own caption", "another object's caption"
ONE, TWO = "two views of one object", "views of two objects"


def embeddings(
    corpus: Reader,
    *,
    teacher: str | None = None,
    sample: int = SAMPLE,
    mapped: int = MAPPED,
    asked: int = ASKED,
    problems: Sequence[str] = (),
    seed: int = 0,
) -> Section:
    """The section on embeddings: cosines under every teacher; a map and neighbours under one.

    teacher   whose map and neighbours are shown, and whose figures gates are built on; None: the first by name
    sample    objects whose cosines are counted, at most
    mapped    objects on the map, at most; no more than `sample`
    asked     objects whose neighbours are looked for in the whole table
    problems  what the canary found, a sentence each
    Raises CorpusError when there is no such teacher.
    """
    teachers = corpus.teachers()
    if teacher is not None and teacher not in teachers:
        there = ", ".join(teachers) or "none"
        raise CorpusError(f"{corpus.root} has no embeddings of teacher {teacher!r}; of these it has: {there}")
    if not teachers:
        lead = f"Nothing has been embedded yet (python -m jobs embed {corpus.root} --teacher NAME)."
        figures = dict.fromkeys((*_NAMES, "teacher", "teachers", "neighbours"))
        return Section(key="embeddings", title=_TITLE, lead=lead, figures=figures, gates=_gates(figures), warnings=tuple(problems))
    teachers = [teacher or teachers[0], *(name for name in teachers if name != (teacher or teachers[0]))]
    objects = corpus.open(OBJECTS.name)
    warnings, told, exhibits = list(problems), {}, []
    for number, name in enumerate(teachers):
        found = agreement(corpus, name, sample=sample, seed=seed)
        told[name] = _figures(corpus, name, found, None if objects is None else objects.count_rows())
        if said := _unlike(corpus, name):
            warnings.append(said)
        exhibits += [_tiles(name, told[name]), *_charts(name, found, told[name]), *_tables(name, told[name])]
        if number == 0:
            first = found
    main, neighbours = told[teachers[0]], nearest_of(corpus, teachers[0], various(first.ids, asked), NEIGHBOURS)
    exhibits += _looked_at(corpus, teachers[0], first, mapped, neighbours)
    figures = {key: main[key] for key in _NAMES} | {"teacher": teachers[0], "teachers": told}
    figures["neighbours"] = [
        {"object_id": id, "neighbours": [{"object_id": other, "cosine": cosine} for other, cosine in near]}
        for id, near in neighbours.items()
    ]
    return Section(
        key="embeddings",
        title=_TITLE,
        lead=_lead(teachers, main),
        figures=figures,
        gates=_gates(figures),
        warnings=tuple(warnings),
        exhibits=tuple(exhibits),
    )


_TITLE = "Embeddings"
# Of one teacher; those of the first are figures of the section as well.
_NAMES = (
    "embedded",
    "unembedded_share",
    "sampled",
    "without_text_share",
    "matched_above_mismatched",
    "matched",
    "mismatched",
    "embedding_spread",
)


def _gates(figures: dict[str, Any]) -> dict[str, float | None]:
    return {name: figures[name] for name in ("matched_above_mismatched", "embedding_spread", "unembedded_share")}


# -------------------------------------------------------------------------------------------------------------------- figures


def _figures(corpus: Reader, teacher: str, found: Agreement, objects: int | None) -> dict[str, Any]:
    images, texts = corpus.need(f"image_embeddings/{teacher}"), corpus.open(f"text_embeddings/{teacher}")
    embedded = images.count_rows()
    by_view = found.counts.sum(axis=1)
    return compared(found.counts.sum(axis=(1, 2))) | {
        "embedded": embedded,
        "unembedded_share": max(0.0, 1 - embedded / objects) if objects else None,
        "texts": None if texts is None else texts.count_rows(),
        "dim": found.means.shape[1],
        "sampled": len(found.ids),
        "without_text_share": float((found.texts == 0).mean()) if len(found.ids) else None,
        "embedding_spread": 1 - float((found.means.mean(axis=0, dtype=np.float64) ** 2).sum()) if len(found.ids) else None,
        "views_of_one_object": spread_of(found.views[0]),
        "views_of_two_objects": spread_of(found.views[1]),
        "origins": {origin: compared(found.counts[:, number].sum(axis=1)) for number, origin in enumerate(found.origins)},
        "views": {str(view): compared(by_view[:, view]) for view in range(MOST_VIEWS) if by_view[:, view].any()},
    }


def _unlike(corpus: Reader, teacher: str) -> str | None:
    """Why the cosines mean nothing, where the tables are known to be of different weights."""
    try:
        corpus.teacher_of(teacher)
    except CorpusError as error:
        return str(error)
    return None


# ------------------------------------------------------------------------------------------------------------------- exhibits


def _lead(teachers: Sequence[str], main: dict[str, Any]) -> str:
    also = f" (and {len(teachers) - 1} more: {', '.join(teachers[1:])})" if len(teachers) > 1 else ""
    said = f"{main['embedded']:,} objects have embedded views of {teachers[0]}{also}."
    if main["matched_above_mismatched"] is None:
        few = (
            "Too few of those looked at have embedded captions"
            if main["matched"]["pairs"]
            else "None of them has an embedded caption"
        )
        return f"{said} {few} to tell whether pictures and captions belong together."
    matched, mismatched = (main[whose]["median"] for whose in ("matched", "mismatched"))
    return (
        f"{said} The cosine of a view with a caption of its object is above that with a caption of another object in "
        f"{percent(main['matched_above_mismatched'])} of the cases (50 %: no better than chance); the medians are "
        f"{matched:.3f} and {mismatched:.3f}."
    )


def _tiles(teacher: str, told: dict[str, Any]) -> Tiles:
    auc, spread = told["matched_above_mismatched"], told["embedding_spread"]
    return Tiles(
        (
            Tile("embedded", f"{told['embedded']:,}", f"objects, by {teacher}: {told['dim']:,} numbers for each view and text"),
            Tile("own above another's", "–" if auc is None else percent(auc), "of pairs of a view and a caption; chance: 50 %"),
            Tile(
                "median cosine, own caption", _text(told["matched"]["median"]), f"another's: {_text(told['mismatched']['median'])}"
            ),
            Tile("spread", _text(spread), "mean of 1 - cosine between objects; 0: all the same"),
        )
    )


def _text(number: float | None) -> str:
    return "–" if number is None else f"{number:.3f}"


def _charts(teacher: str, found: Agreement, told: dict[str, Any]) -> Iterator[Histogram]:
    looked_at = f"{told['sampled']:,} of {told['embedded']:,} objects, chosen by chance."
    whole = found.counts.sum(axis=(1, 2))
    if whole.any():
        yield _histogram(
            f"Views and captions, {teacher}",
            {MATCHED: whole[0], MISMATCHED: whole[1]},
            f"Every view with every kept caption. {looked_at} The further apart the two, the better the pictures and captions are "
            "told apart.",
        )
    if len(found.origins) > 1:
        yield _histogram(f"Views and their own captions by origin, {teacher}", _by_origin(found), looked_at)
    yield _histogram(f"Views with views, {teacher}", {ONE: found.views[0], TWO: found.views[1]}, looked_at)


def _by_origin(found: Agreement) -> dict[str, Int64[np.ndarray, " bins"]]:
    """Cosines with the own captions of the origins that have the most pairs, and of the others together."""
    counts = found.counts[0].sum(axis=1)
    order = np.argsort(-counts.sum(axis=1), kind="stable")
    shown, rest = (order, []) if len(order) <= ORIGINS else (order[: ORIGINS - 1], order[ORIGINS - 1 :])
    return {found.origins[number]: counts[number] for number in shown} | ({OTHER: counts[rest].sum(axis=0)} if len(rest) else {})


def _histogram(title: str, counts: dict[str, Int64[np.ndarray, " bins"]], note: str) -> Histogram:
    """Edges from a ladder of two, so that other corpora have the same."""
    thousandths = np.arange(BINS) - GRAIN
    total = sum(counts.values())
    outside = total[(thousandths < NARROW[0]) | (thousandths > NARROW[1])].sum()
    low, high, width = NARROW if outside <= BEYOND * total.sum() else WIDE
    place = np.clip((thousandths - low) // width, 0, (high - low) // width - 1)
    series = {name: tuple(np.bincount(place, of).astype(int).tolist()) for name, of in counts.items()}
    edges = tuple(edge / GRAIN for edge in range(low, high + 1, width))
    return Histogram(title=title, unit="cosine", edges=edges, series=series, shares=True, note=note)


def _tables(teacher: str, told: dict[str, Any]) -> Iterator[Rows]:
    head = ("pairs", "median, own", "median, another's", "own above another's, %")

    def cells(one: dict[str, Any]) -> tuple[int | float | None, ...]:
        auc = one["matched_above_mismatched"]
        matched = one["matched"]
        return matched["pairs"], matched["median"], one["mismatched"]["median"], None if auc is None else round(100 * auc, 1)

    if told["origins"]:
        rows = tuple((origin, *cells(one)) for origin, one in told["origins"].items())
        yield Rows(title=f"Captions by origin, {teacher}", head=("origin", *head), rows=rows)
    if told["views"]:
        yield Rows(
            title=f"View by view, {teacher}",
            head=("view", *head),
            rows=tuple((int(view), *cells(one)) for view, one in told["views"].items()),
            note="A view that agrees with the captions much less than the others is of a camera that shows too little.",
        )


def _looked_at(
    corpus: Reader, teacher: str, found: Agreement, mapped: int, neighbours: dict[str, list[tuple[str, float]]]
) -> Iterator[Exhibit]:
    """The map, neighbours, and the objects that agree least with their captions."""
    on_map = found.ids[:mapped]
    near = [id for asked, several in neighbours.items() for id in (asked, *(other for other, _ in several))]
    worst = [found.ids[object].as_py() for object, _ in found.worst]
    shown = pa.array(dict.fromkeys([*near, *worst]), pa.string())
    about = called(corpus, pc.unique(pa.chunked_array([on_map, shown], pa.string())))
    xy = laid_out(found.means[:mapped])
    if xy is not None:
        yield _map(teacher, on_map.to_pylist(), xy, found.score[:mapped], about, portraits(corpus, on_map, side=MAP_SIDE))
    pictures = portraits(corpus, shown, side=SIDE)
    for asked, several in neighbours.items():
        said = {asked: "looked for"} | {id: f"cosine {cosine:.3f}" for id, cosine in several}
        yield Pictures(
            title=f"Nearest to {about[asked].name}",
            pictures=_pictures(said, pictures, about),
            tile=TILE,
            note=f"{asked}, and of all others those whose mean of the views has the highest cosine with its own.",
        )
    if worst:
        captions = _captions(corpus, teacher, [row for _, row in found.worst])
        scores = [found.score[object] for object, _ in found.worst]
        said = {id: f"{score:.3f}: {caption}" for id, score, caption in zip(worst, scores, captions, strict=True)}
        yield Pictures(
            title="Objects that agree least with their captions",
            pictures=_pictures(said, pictures, about),
            tile=TILE,
            note="The lowest mean cosines of views and captions among the objects looked at, and one of the captions of each.",
        )


def _pictures(said: dict[str, str], pictures: dict[str, bytes], about: dict[str, Called]) -> tuple[Picture, ...]:
    """Those of the objects that there are pictures of, and what is said of each."""
    return tuple(Picture(pictures[id], about[id].name, f"{note} · {id}") for id, note in said.items() if id in pictures)


def _captions(corpus: Reader, teacher: str, rows: Sequence[int]) -> list[str]:
    """Texts of rows of the text table, which may occur twice."""
    wanted, inverse = np.unique(rows, return_inverse=True)
    texts = corpus.need(f"text_embeddings/{teacher}").take(wanted, columns=["text"])["text"].to_pylist()
    return [texts[number] for number in inverse]


def _map(
    teacher: str,
    ids: Sequence[str],
    xy: Float32[np.ndarray, "n 2"],
    score: Float32[np.ndarray, " n"],
    about: dict[str, Called],
    pictures: dict[str, bytes],
) -> Map:
    return Map(
        title=f"Map of the objects, {teacher}",
        x=tuple(xy[:, 0].tolist()),
        y=tuple(xy[:, 1].tolist()),
        labels=tuple(f"{about[id].name}\n{id}" for id in ids),
        colors={
            "source": _grouped([about[id].source for id in ids]),
            "category": _grouped([about[id].category for id in ids]),
            "licence": _grouped([about[id].license for id in ids]),
            "cosine with its captions": tuple(None if np.isnan(one) else float(one) for one in score),
        },
        pictures=tuple(pictures.get(id) for id in ids),
        note=f"{len(ids):,} objects chosen by chance. Those that look alike to the teacher lie near each other; distances across "
        "the map mean little, and its axes nothing.",
    )


def _grouped(names: Sequence[str | None]) -> tuple[str | None, ...]:
    """The most frequent names; the rest are others."""
    counted = Counter(name for name in names if name is not None)
    shown = sorted(counted, key=lambda name: (-counted[name], name))[: len(counted) if len(counted) <= GROUPS + 1 else GROUPS]
    return tuple(name if name is None or name in shown else OTHER for name in names)
