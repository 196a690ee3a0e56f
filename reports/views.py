"""The views of a corpus: how much of the picture the objects fill, how they are lit, which are suspicious, and pictures of some."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Float32, Int, Int32

from reports.contact_sheet import evenly, strip_of_views
from reports.embeddings import agreement
from reports.funnel import sources_of
from reports.portraits import facts
from reports.sample import chosen, rows_of
from reports.scans import counts, scanned
from reports.section import Bar, Bars, Exhibit, Histogram, Picture, Pictures, Rows, Section, Tile, Tiles
from reports.spreads import coded, histogram, percent, share_of, spread_of, unknown
from schemas.corpus import Reader
from schemas.tables import CAPTIONS, VIEWS

BLANK = 0.001  # alpha_coverage of a view in which next to nothing is seen: 50 of 224 x 224 pixels
RANDOM_SHOWN, RANKED_SHOWN, SUSPECTS_SHOWN = 16, 8, 4  # objects: by chance; best and worst; of each suspicion
RATED = 2_000  # objects whose views are compared with their captions, where captions have no score
STRIP_VIEWS, STRIP_TILE, STRIP_BYTES = 4, 80, 10_000  # of the picture of one object: views, pixels, bytes at most
MANY_SUSPICIOUS = 0.1  # share of the objects that is worth a warning
FROM_ALMOST_NONE = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)  # bins of what mostly is 0
SHARES = tuple(np.linspace(0, 1, 41))
VARIANCES = tuple(np.geomspace(1e-6, 1, 37))
SPREADS = tuple(np.linspace(0, 0.9, 46))

MEASURES = (
    "alpha_coverage",
    "border_coverage",
    "dark_share",
    "bright_share",
    "luminance",
    "color_spread",
    "view_variance",
    "missing_textures",
    "substituted_materials",
)
KINDS = ("kind", "rig", "width", "height", "device")


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """What may be wrong with an object's views: that the mean or the highest of a measure over them is above or below a limit."""

    name: str
    title: str
    measure: str
    of_views: Literal["mean", "max"] = "mean"
    above: float | None = None
    below: float | None = None
    means: str

    @property
    def rule(self) -> str:
        """The rule in a few words."""
        of = {"mean": "mean", "max": "highest"}[self.of_views]
        return f"{of} {self.measure} {'below' if self.above is None else 'above'} {self._limit:g}"

    @property
    def _limit(self) -> float:
        return self.below if self.above is None else self.above

    def excess(self, value: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """How far beyond the limit; not above 0, or NaN: not suspicious."""
        return self._limit - value if self.above is None else value - self._limit


# Of 277 good objects of five collections the thinnest cover 2 % of the picture on average, and the least varied views differ by
# 0.0012; a ball of one colour, which looks alike from all sides, by 0.000001. What is worse still was not let in (render/gates.py).
SUSPICIONS = (
    Suspicion(
        name="cut_off",
        title="Cut off at the border",
        measure="border_coverage",
        of_views="max",
        above=0.02,
        means="The object covers more than a fiftieth of some view's outermost pixels: it goes on beyond the picture.",
    ),
    Suspicion(
        name="nearly_blank",
        title="Nearly blank",
        measure="alpha_coverage",
        below=0.01,
        means="The object fills less than a hundredth of its pictures: it is thin, nearly clear, or made small by a stray part.",
    ),
    Suspicion(
        name="burnt_out",
        title="Burnt out",
        measure="bright_share",
        above=0.5,
        means="More than half of the object is white without any shading: it glows, or is lit too brightly.",
    ),
    Suspicion(
        name="dark",
        title="Dark",
        measure="dark_share",
        above=0.5,
        means="More than half of the object is black without any shading: its textures or its normals may be broken.",
    ),
    Suspicion(
        name="all_alike",
        title="All views alike",
        measure="view_variance",
        below=3e-4,
        means="The views hardly differ: a ball, a dot, or a camera that does not move.",
    ),
    Suspicion(
        name="one_color",
        title="Of one colour",
        measure="color_spread",
        below=0.03,
        means="The object's pixels hardly differ in colour: it is unlit, or flat and turned one way.",
    ),
    Suspicion(
        name="missing_textures",
        title="Textures are missing",
        measure="missing_textures",
        of_views="max",
        above=0,
        means="The asset names textures that could not be read.",
    ),
    Suspicion(
        name="substituted_materials",
        title="Materials were substituted",
        measure="substituted_materials",
        of_views="max",
        above=0,
        means="The asset names materials that are absent or not understood; something else stands for them.",
    ),
)


@dataclass(frozen=True)
class Measured:
    """All views (n): `object`: the number of each one's object among the `objects`; `of`: each measure, NaN where it is null."""

    objects: pa.Array
    object: Int32[np.ndarray, " n"]
    of: dict[str, Float32[np.ndarray, " n"]]

    def per_object(self, measure: str, how: Literal["mean", "max"]) -> Float[np.ndarray, " objects"]:
        """Mean or highest over the views of each object; NaN where no view has a value."""
        there = ~np.isnan(self.of[measure])
        object, values = self.object[there], self.of[measure][there]
        if how == "max":
            highest = np.full(len(self.objects), np.nan, np.float32)
            np.fmax.at(highest, object, values)
            return highest
        number, total = (np.bincount(object, weights, minlength=len(self.objects)) for weights in (None, values))
        return np.divide(total, number, out=np.full(len(self.objects), np.nan), where=number > 0)


@dataclass(frozen=True)
class _Order:
    """What tells good views from bad: a `score` of each object, NaN where there is none, its `name`, and what it is (`says`)."""

    score: Float[np.ndarray, " objects"]
    name: str
    says: str


@dataclass(frozen=True)
class _Group:
    """Objects to be shown together, in this order, with what is to be said of each."""

    title: str
    says: str
    notes: dict[str, str]


def views(
    corpus: Reader,
    *,
    teacher: str | None = None,
    seed: int = 0,
    rated: int = RATED,
    random_shown: int = RANDOM_SHOWN,
    ranked_shown: int = RANKED_SHOWN,
    suspects_shown: int = SUSPECTS_SHOWN,
) -> Section:
    """The section on views: pictures of `random_shown` objects drawn by `seed`, of `ranked_shown` of the best and as many of the
    worst, and of `suspects_shown` of each of SUSPICIONS, the most suspicious. Best and worst are told by cosines: the captions'
    scores, or those of `rated` objects drawn by `seed`, under `teacher` (None: the first by name)."""
    title = "Views"
    measured = read(corpus)
    excess = {one.name: one.excess(measured.per_object(one.measure, one.of_views)) for one in SUSPICIONS}
    figures = _figures(corpus, measured, excess)
    if corpus.open(VIEWS.name) is None:
        lead = f"No views have been made (python -m jobs render {corpus.root})."
        figures = unknown(figures)
        return Section(key="views", title=title, lead=lead, figures=figures, gates=_gates(figures))
    order = _order(corpus, measured, teacher, seed, rated)
    groups = list(_chosen(measured, excess, order, seed, random_shown, ranked_shown, suspects_shown))
    return Section(
        key="views",
        title=title,
        lead=_lead(figures),
        figures=figures,
        gates=_gates(figures),
        warnings=tuple(_warnings(figures)),
        exhibits=tuple(_exhibits(corpus, measured, figures, groups)),
    )


def read(corpus: Reader) -> Measured:
    """The measures of all views, by one scan; no picture is read."""
    table = corpus.open(VIEWS.name)
    there = [] if table is None else [name for name in MEASURES if name in table.schema.names]  # some came later
    ids, values = [], {name: [] for name in MEASURES}
    for piece in scanned(table, ["object_id", *there]):
        ids.append(piece["object_id"].combine_chunks().dictionary_encode())
        for name in there:
            values[name].append(piece[name].to_numpy().astype(np.float32))
    objects, object = coded(ids)
    absent = np.full(len(object), np.nan, np.float32)
    return Measured(objects, object, {name: np.concatenate(parts) if parts else absent for name, parts in values.items()})


def _figures(corpus: Reader, measured: Measured, excess: Mapping[str, Float[np.ndarray, " n"]]) -> dict[str, Any]:
    objects, number = len(measured.objects), len(measured.object)
    any_at_all = np.zeros(objects, bool)
    for one in excess.values():
        any_at_all |= one > 0
    coverage = measured.of["alpha_coverage"]
    names, source = sources_of(measured.objects)
    views = np.bincount(measured.object, minlength=objects)
    return {
        "views": number,
        "objects": objects,
        "views_per_object": spread_of(views.astype(np.float32)),
        "kinds": counts(corpus.open(VIEWS.name), KINDS).to_pylist(),
        "blank_views": int((coverage < BLANK).sum()),
        "blank_view_share": share_of((coverage < BLANK).sum(), (~np.isnan(coverage)).sum()),
        "suspicious": int(any_at_all.sum()),
        "suspicious_share": share_of(any_at_all.sum(), objects),
        "suspicions": {
            one.name: {
                "rule": one.rule,
                "objects": int((excess[one.name] > 0).sum()),
                "judged": int((~np.isnan(excess[one.name])).sum()),
                "share": share_of((excess[one.name] > 0).sum(), (~np.isnan(excess[one.name])).sum()),
            }
            for one in SUSPICIONS
        },
        "measures": {name: spread_of(values) for name, values in measured.of.items()},
        "sources": {
            name: {
                "objects": int((source == which).sum()),
                "views": int(views[source == which].sum()),
                "suspicious": int(any_at_all[source == which].sum()),
            }
            for which, name in enumerate(names)
        },
    }


def _gates(figures: Mapping[str, Any]) -> dict[str, float | None]:
    suspicions = figures["suspicions"]
    return {
        "blank_view_share": figures["blank_view_share"],
        "suspicious_share": figures["suspicious_share"],
        "cut_off_share": suspicions["cut_off"]["share"],
        "burnt_out_share": suspicions["burnt_out"]["share"],
        "dark_object_share": suspicions["dark"]["share"],
        "missing_texture_share": suspicions["missing_textures"]["share"],
    }


def _lead(figures: Mapping[str, Any]) -> str:
    if not figures["views"]:
        return "The table of views is empty."
    found = [
        f"{one.title.lower()}: {figures['suspicions'][one.name]['objects']:,}"
        for one in SUSPICIONS
        if figures["suspicions"][one.name]["objects"]
    ]
    said = f"{figures['views']:,} views of {figures['objects']:,} objects."
    if not found:
        return f"{said} None of the objects is suspicious."
    return (
        f"{said} {figures['suspicious']:,} objects ({percent(figures['suspicious_share'])}) are worth a look ({', '.join(found)})."
    )


def _warnings(figures: Mapping[str, Any]) -> Iterator[str]:
    for one in SUSPICIONS:
        found = figures["suspicions"][one.name]
        if (found["share"] or 0) > MANY_SUSPICIOUS:
            yield f"{one.title}: {found['objects']:,} objects, {percent(found['share'])} of those it is known of ({one.rule})."
    if len({(kind["rig"], kind["width"], kind["height"]) for kind in figures["kinds"] if kind["kind"] == "rendered"}) > 1:
        yield "Not all rendered views are of one rig and size: embeddings and models see different things of different objects."


def _exhibits(corpus: Reader, measured: Measured, figures: Mapping[str, Any], groups: Sequence["_Group"]) -> Iterator[Exhibit]:
    if not figures["views"]:
        return
    yield _tiles(figures)
    yield Bars(
        title="Suspicious objects",
        unit="objects",
        bars=tuple(
            Bar(one.title, figures["suspicions"][one.name]["objects"], one.rule)
            for one in sorted(SUSPICIONS, key=lambda one: -figures["suspicions"][one.name]["objects"])
        ),
        of=figures["objects"],
        note="An object may be suspicious and right: a needle is thin, a white ball looks alike from all sides.",
    )
    shown = sorted({id for group in groups for id in group.notes})
    strips, about = _strips(corpus, shown), facts(corpus, pa.array(shown, pa.string()), ["name"])
    for group in groups:
        yield Pictures(
            title=group.title,
            pictures=tuple(_picture(id, strips[id], about, note) for id, note in group.notes.items()),
            tile=STRIP_VIEWS * STRIP_TILE,
            note=group.says,
        )
    yield from _histograms(measured)
    yield from _tables(figures)


def _tiles(figures: Mapping[str, Any]) -> Tiles:
    per_object, median = figures["views_per_object"], figures["measures"]["alpha_coverage"]["median"]
    same = per_object["min"] == per_object["max"]
    each = f"{per_object['min']:.0f}" if same else f"{per_object['min']:.0f} to {per_object['max']:.0f}"
    tiles = [
        Tile("views", f"{figures['views']:,}", f"{each} per object"),
        Tile(
            "worth a look",
            f"{figures['suspicious']:,}",
            f"{percent(figures['suspicious_share'])} of {figures['objects']:,} objects",
        ),
    ]
    if figures["blank_view_share"] is not None:
        tiles.append(Tile("blank views", f"{figures['blank_views']:,}", f"less than {BLANK:.1%} of the picture is covered"))
        tiles.append(Tile("covered", percent(median), "of the picture, median over the views"))
    return Tiles(tuple(tiles))


def _chosen(
    measured: Measured,
    excess: Mapping[str, Float[np.ndarray, " objects"]],
    order: _Order,
    seed: int,
    random_shown: int,
    ranked_shown: int,
    suspects_shown: int,
) -> Iterator[_Group]:
    ids = measured.objects
    yield _Group("Some objects by chance", "", dict.fromkeys(chosen(ids, random_shown, seed=seed).to_pylist(), ""))
    there = np.flatnonzero(~np.isnan(order.score))
    for title, sign in (("Best", -1), ("Worst", 1)):
        first = there[_first(sign * order.score[there], ids.take(pa.array(there)), ranked_shown)]
        if len(first):
            yield _Group(title, order.says, {ids[number].as_py(): f"{order.name} {order.score[number]:.3g}" for number in first})
    for one in SUSPICIONS:
        found = np.flatnonzero(excess[one.name] > 0)
        first = found[_first(-excess[one.name][found], ids.take(pa.array(found)), suspects_shown)]
        if len(first):
            value = measured.per_object(one.measure, one.of_views)
            says = f"{one.means} The most suspicious of {len(found):,}."
            yield _Group(one.title, says, {ids[number].as_py(): f"{one.measure} {value[number]:.3g}" for number in first})


def _first(key: Float[np.ndarray, " n"], ids: pa.Array, count: int) -> Int[np.ndarray, " m"]:
    """Where the smallest keys stand, equal ones by id."""
    if len(key) > count:
        near = np.flatnonzero(key <= np.partition(key, count)[count])
    else:
        near = np.arange(len(key))
    names = ids.take(pa.array(near)).to_pylist()
    return near[sorted(range(len(near)), key=lambda place: (key[near[place]], names[place]))[:count]]


def _order(corpus: Reader, measured: Measured, teacher: str | None, seed: int, rated: int) -> _Order:
    """By cosines of views and captions: the captions' own scores, or else those of a sample under a teacher; where there are
    neither, by how much of the pictures the objects fill."""
    score = _caption_scores(corpus, measured)
    if not np.isnan(score).all():
        return _Order(score, "cosine", "By the mean score of their kept captions: cosine of caption and views.")
    teachers = [teacher] if teacher else corpus.teachers()
    if teachers:
        found = agreement(corpus, teachers[0], sample=rated, seed=seed)
        object = pc.fill_null(pc.index_in(found.ids, measured.objects), -1).to_numpy()
        score[object[object >= 0]] = found.score[object >= 0]
    if not np.isnan(score).all():
        says = f"By the mean cosine of their views and their kept captions under {teachers[0]}"
        among = "" if len(found.ids) < rated else f", of {rated:,} objects drawn by chance"
        return _Order(score, "cosine", f"{says}{among}.")
    says = "By how much of their pictures they fill, for no caption has a score and there are no embeddings."
    return _Order(measured.per_object("alpha_coverage", "mean"), "alpha_coverage", says)


def _caption_scores(corpus: Reader, measured: Measured) -> Float[np.ndarray, " objects"]:
    """Mean score of the kept captions of each object."""
    total, number = np.zeros(len(measured.objects)), np.zeros(len(measured.objects))
    for piece in scanned(corpus.open(CAPTIONS.name), ["object_id", "score"], "kept AND score IS NOT NULL"):
        object = pc.fill_null(pc.index_in(piece["object_id"], measured.objects), -1).to_numpy()
        score = piece["score"].to_numpy()[object >= 0]
        total += np.bincount(object[object >= 0], score, minlength=len(total))
        number += np.bincount(object[object >= 0], minlength=len(total))
    return np.divide(total, number, out=np.full(len(total), np.nan), where=number > 0)


def _strips(corpus: Reader, ids: Sequence[str]) -> dict[str, bytes]:
    """A picture of each object: some of its views side by side. Only these views are read."""
    table, rows = corpus.need(VIEWS.name), rows_of(corpus, VIEWS.name, pa.array(ids, pa.string()))
    numbers: dict[str, list[tuple[int, int]]] = {}
    for place, row in zip(rows.tolist(), table.take(rows, columns=["object_id", "view"]).to_pylist(), strict=True):
        numbers.setdefault(row["object_id"], []).append((row["view"], place))
    strips = {}
    for id, found in numbers.items():
        found.sort()
        places = [found[number][1] for number in evenly(len(found), STRIP_VIEWS)]
        read = table.take(sorted(places), columns=["view", "image"]).to_pylist()
        strips[id] = strip_of_views(sorted(read, key=lambda row: row["view"]), STRIP_TILE, STRIP_BYTES)
    return strips


def _picture(id: str, strip: bytes, about: Mapping[str, Mapping[str, Any]], note: str) -> Picture:
    name = about.get(id, {}).get("name")
    return Picture(strip, name or id, " · ".join(filter(None, [note, id if name else ""])))


def _histograms(measured: Measured) -> Iterator[Histogram]:
    names, source = sources_of(measured.objects)
    of_view = source[measured.object]

    def by_source(title: str, measure: str, edges: Sequence[float], note: str) -> Histogram:
        return histogram(title, f"{measure}, of views", edges, measured.of[measure], names, of_view, note=note)

    yield by_source(
        "Coverage", "alpha_coverage", SHARES, note="Share of the picture that the object covers. Unmasked photos tell none."
    )
    yield by_source("Brightness", "luminance", SHARES, note="Mean luminance of the object's pixels, sRGB; 0 is black, 1 is white.")
    yield by_source(
        "Variety of colour", "color_spread", SPREADS, note="How far the object's pixels lie from their mean colour; 0: one colour."
    )
    for title, measure, says in (
        ("Dark pixels", "dark_share", "Share of the object's pixels with luminance below 5/255."),
        ("Bright pixels", "bright_share", "Share of the object's pixels with luminance above 250/255."),
        ("At the border", "border_coverage", "Mean alpha of the outermost pixels of a view."),
    ):
        none = measured.of[measure] < FROM_ALMOST_NONE[0]
        note = f"{says} Left out are {none.sum():,} views with less than {FROM_ALMOST_NONE[0]:g}."
        yield histogram(
            title,
            f"{measure}, of views",
            FROM_ALMOST_NONE,
            np.where(none, np.nan, measured.of[measure]),
            names,
            of_view,
            log=True,
            note=note,
        )
    yield histogram(
        "How much the views of an object differ",
        "view_variance, of objects",
        VARIANCES,
        measured.per_object("view_variance", "max").astype(np.float32),
        names,
        source,
        log=True,
        note="Variance of each premultiplied value over the views, mean over the pixels that any of them covers.",
    )


def _tables(figures: Mapping[str, Any]) -> Iterator[Rows]:
    yield Rows(
        title="Kinds of views",
        head=("kind", "rig", "width", "height", "made by", "views"),
        rows=tuple(tuple(kind[name] for name in (*KINDS, "count")) for kind in figures["kinds"]),
        folded=len(figures["kinds"]) > 6,
    )
    yield Rows(
        title="Views per source",
        head=("source", "objects", "views", "worth a look", "% of objects"),
        rows=tuple(
            (name, one["objects"], one["views"], one["suspicious"], round(100 * one["suspicious"] / one["objects"], 1))
            for name, one in figures["sources"].items()
        ),
    )
