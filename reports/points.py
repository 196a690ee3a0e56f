"""The point clouds of a corpus: how large and how even, coloured or not, of what meshes; and pictures of some.

Of the meshes' sizes and the warnings everything is read. Points themselves are read of a sample of objects, and in that of each
object's distances between neighbours of fewer still.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float16, Float32, Float64, Int64
from scipy.spatial import cKDTree

from reports.contact_sheet import ONE_COLOR, strip, views_around
from reports.funnel import sources_of
from reports.portraits import facts
from reports.sample import chosen, rows_of
from reports.scans import counts, scanned
from reports.section import Bar, Bars, Exhibit, Histogram, Picture, Pictures, Rows, Section, Tile, Tiles
from reports.spreads import histogram, percent, share_of, spread_of, unknown
from schemas.check import matrix
from schemas.corpus import Reader
from schemas.tables import POINTS, POINTS_PER_OBJECT

LOOKED_AT = 1_000  # objects whose points are read
NEIGHBOURED = 200  # of these, whose nearest neighbours are looked for
SHOWN = 12  # of these, pictures
AT_ONCE = 64  # objects whose points are held
SIDES, TILE, STRIP_BYTES = 4, 80, 10_000  # of the picture of a cloud: from how many sides, pixels, bytes at most
GREY = 8  # 0..255: channels that differ less are grey
MANY_WARNED = 0.05  # share of the objects that is worth a warning
UNEVEN = 0.5  # evenness below which points lie in clumps
NORMAL = 0.9  # from the origin: where the farthest of 10,000 points is nearer, what makes the object as large has no surface
WARNINGS = {  # of pipeline/shape.py, in words
    "extreme_scale": "beyond a millionth or a million of its file's unit",
    "far_from_origin": "more than 100 times its size from its file's origin",
    "flat_geometry": "all in one plane",
    "outlier_geometry": "a dot, and something stray far off",
    "tiny_mesh": "fewer than four triangles",
}

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709, as for views
CHANNELS = ("red", "green", "blue")
SIZES = tuple(np.geomspace(1, 1e8, 33))
AREAS = tuple(np.geomspace(1e-4, 1e3, 36))
EXTENTS = tuple(np.linspace(0, 2, 41))
LEVELS = tuple(np.linspace(0, 1, 41))
EVENNESS = tuple(np.linspace(0, 2, 41))
DISTANCES = tuple(np.geomspace(1e-4, 1, 41))


@dataclass(frozen=True)
class Sizes:
    """All rows of POINTS (n) but their points: numbers of vertices and faces (0: a point cloud), and `area` in the canonical frame
    (NaN: a point cloud)."""

    objects: pa.Array
    vertices: Int64[np.ndarray, " n"]
    faces: Int64[np.ndarray, " n"]
    area: Float64[np.ndarray, " n"]


@dataclass(frozen=True)
class Clouds:
    """What the points of some objects (n) say.

    objects   their ids
    extent    of the bounding box along x, y and z, canonical frame
    farthest  distance of the farthest point from the origin: 1, or less where the points missed the object's own farthest one
    color     mean colour, sRGB 0..1; NaN: there are no colours
    grey      whether all colours are greys; one_color: whether they are all alike; both False without colours
    repeated  share of the points that lie just where another one does
    spacing   mean distance of a point to the nearest other one, canonical frame; NaN: not looked for
    evenness  `spacing` over that of points thrown by chance on a plane as dense: 1 by chance, less in clumps (or where two surfaces
              lie on each other), more in a grid; NaN: not looked for, or the area is not known. Clark and Evans 1954, "Distance to
              nearest neighbor as a measure of spatial relationships in populations"
    """

    objects: pa.Array
    extent: Float64[np.ndarray, "n 3"]
    farthest: Float64[np.ndarray, " n"]
    color: Float64[np.ndarray, "n 3"]
    grey: Bool[np.ndarray, " n"]
    one_color: Bool[np.ndarray, " n"]
    repeated: Float64[np.ndarray, " n"]
    spacing: Float64[np.ndarray, " n"]
    evenness: Float64[np.ndarray, " n"]


def points(
    corpus: Reader, *, seed: int = 0, looked_at: int = LOOKED_AT, neighboured: int = NEIGHBOURED, shown: int = SHOWN
) -> Section:
    """The section on points. Those of `looked_at` objects drawn by `seed` are read; for `neighboured` of them the distances between
    neighbours are measured, and `shown` of them are drawn."""
    title = "Points"
    sizes = read(corpus)
    drawn = chosen(sizes.objects, looked_at, seed=seed)
    clouds = clouds_of(corpus, drawn, drawn[:neighboured])
    figures = _figures(corpus, sizes, clouds)
    if corpus.open(POINTS.name) is None:
        lead = f"No points have been made (python -m jobs points {corpus.root})."
        figures = unknown(figures)
        return Section(key="points", title=title, lead=lead, figures=figures, gates=_gates(figures))
    return Section(
        key="points",
        title=title,
        lead=_lead(figures),
        figures=figures,
        gates=_gates(figures),
        warnings=tuple(_warnings(figures)),
        exhibits=tuple(_exhibits(corpus, sizes, clouds, figures, drawn[:shown])),
    )


def read(corpus: Reader) -> Sizes:
    """The meshes' sizes, by one scan."""
    kinds = {"vertices": np.int64, "faces": np.int64, "area": np.float64}
    pieces = list(scanned(corpus.open(POINTS.name), ["object_id", *kinds]))
    ids = [pa.array([], pa.string()), *(piece["object_id"].combine_chunks() for piece in pieces)]
    numbers = {
        name: np.concatenate([np.empty(0, kind), *(piece[name].to_numpy() for piece in pieces)]) for name, kind in kinds.items()
    }
    return Sizes(pa.concat_arrays(ids), **numbers)


def clouds_of(corpus: Reader, ids: pa.Array, neighboured: pa.Array) -> Clouds:
    """What the points of these objects say, read some at a time; distances between neighbours only of `neighboured`."""
    table, rows = corpus.open(POINTS.name), rows_of(corpus, POINTS.name, ids)
    names, count = [pa.array([], pa.string())], len(rows)
    extent, color = np.empty((count, 3)), np.full((count, 3), np.nan)
    farthest, repeated = np.empty(count), np.empty(count)
    grey, one_color = np.zeros(count, bool), np.zeros(count, bool)
    spacing, evenness = np.full(count, np.nan), np.full(count, np.nan)
    for first in range(0, count, AT_ONCE):
        piece = table.take(rows[first : first + AT_ONCE], columns=["object_id", "xyz", "rgb", "area"])
        names.append(piece["object_id"].combine_chunks())
        xyz, rgb = (matrix(piece[name]).reshape(len(piece), POINTS_PER_OBJECT, 3) for name in ("xyz", "rgb"))
        colored, area = piece["rgb"].is_valid().to_pylist(), piece["area"].to_numpy()
        near = pc.is_in(piece["object_id"], neighboured).to_pylist()
        for number, place in enumerate(range(first, first + len(piece))):
            cloud = xyz[number].astype(np.float32)
            extent[place] = np.ptp(cloud, axis=0)
            farthest[place] = np.linalg.norm(cloud, axis=1).max()
            repeated[place] = _repeated(xyz[number])
            if colored[number]:
                channels = rgb[number].astype(np.int16)
                color[place] = channels.mean(axis=0) / 255
                grey[place] = np.ptp(channels, axis=1).max() < GREY
                one_color[place] = channels.std(axis=0).max() < ONE_COLOR
            if near[number]:
                spacing[place] = _spacing(cloud)
                evenness[place] = spacing[place] / (0.5 * np.sqrt(area[number] / POINTS_PER_OBJECT))
    return Clouds(pa.concat_arrays(names), extent, farthest, color, grey, one_color, repeated, spacing, evenness)


def _repeated(xyz: Float16[np.ndarray, "n 3"]) -> float:
    """Share of the points that lie just where another one does. As stored: rounding alone puts few of 10,000 onto each other."""
    bits = (xyz + np.float16(0)).view(np.uint16).astype(np.uint64)  # + 0: no -0
    _, counts = np.unique(bits[:, 0] << 32 | bits[:, 1] << 16 | bits[:, 2], return_counts=True)
    return float(counts[counts > 1].sum() / len(xyz))


def _spacing(xyz: Float32[np.ndarray, "n 3"]) -> float:
    """Mean distance of a point to the nearest other one."""
    distance, _ = cKDTree(xyz).query(xyz, k=2)
    return float(distance[:, 1].mean())


def _figures(corpus: Reader, sizes: Sizes, clouds: Clouds) -> dict[str, Any]:
    names, source = sources_of(sizes.objects)
    meshes, colored = sizes.faces > 0, ~np.isnan(clouds.color[:, 0])
    return {
        "objects": len(sizes.objects),
        "meshes": int(meshes.sum()),
        "clouds": int((~meshes).sum()),
        "vertices": spread_of(sizes.vertices.astype(np.float64)),
        "faces": spread_of(sizes.faces[meshes].astype(np.float64)),
        "area": spread_of(sizes.area),
        "warnings": {row["warnings"]: row["count"] for row in counts(corpus.open(POINTS.name), ["warnings"]).to_pylist()},
        "warned": (warned := _warned(corpus)),
        "warned_share": share_of(warned, len(sizes.objects)),
        "looked_at": len(clouds.objects),
        "colored_share": share_of(colored.sum(), len(colored)),
        "grey_share": share_of(clouds.grey.sum(), len(colored)),
        "one_color_share": share_of(clouds.one_color.sum(), len(colored)),
        "color": {name: spread_of(clouds.color[:, channel]) for channel, name in enumerate(CHANNELS)},
        "extent": {axis: spread_of(clouds.extent[:, number]) for number, axis in enumerate("xyz")},
        "farthest": spread_of(clouds.farthest),
        "repeated": spread_of(clouds.repeated),
        "neighboured": int((~np.isnan(clouds.spacing)).sum()),
        "spacing": spread_of(clouds.spacing),
        "evenness": spread_of(clouds.evenness),
        "uneven_share": share_of((clouds.evenness < UNEVEN).sum(), (~np.isnan(clouds.evenness)).sum()),
        "sources": {
            name: {
                "objects": int((source == which).sum()),
                "clouds": int((~meshes[source == which]).sum()),
                "faces": spread_of(sizes.faces[meshes & (source == which)].astype(np.float64)),
            }
            for which, name in enumerate(names)
        },
    }


def _warned(corpus: Reader) -> int:
    """How many objects have a warning about their shape."""
    table = corpus.open(POINTS.name)
    return 0 if table is None else table.count_rows(filter="array_length(warnings) > 0")


def _gates(figures: Mapping[str, Any]) -> dict[str, float | None]:
    return {
        "colored_share": figures["colored_share"],
        "one_color_share": figures["one_color_share"],
        "shape_warning_share": figures["warned_share"],
        "uneven_share": figures["uneven_share"],
    }


def _lead(figures: Mapping[str, Any]) -> str:
    if not figures["objects"]:
        return "The table of points is empty."
    said = f"{figures['objects']:,} objects have {POINTS_PER_OBJECT:,} points each"
    if figures["meshes"]:
        said += f", of meshes with a median of {figures['faces']['median']:,.0f} triangles"
    if figures["clouds"]:
        said += f"; {figures['clouds']:,} are point clouds themselves" if figures["meshes"] else ", of point clouds"
    sampled = "" if figures["looked_at"] == figures["objects"] else f" of the {figures['looked_at']:,} looked at"
    return f"{said}. {percent(figures['colored_share'])}{sampled} are coloured."


def _warnings(figures: Mapping[str, Any]) -> Iterator[str]:
    if figures["objects"] and figures["warned_share"] > MANY_WARNED:
        which = ", ".join(figures["warnings"])
        yield f"{percent(figures['warned_share'])} of the objects have a warning about their shape ({which})."
    nearest = figures["farthest"]["min"]
    if nearest is not None and nearest < NORMAL:
        yield (
            f"All points of some object lie within {nearest:.2f} of its centre, though objects are scaled to 1: something that has "
            "next to no surface makes it as large."
        )


def _exhibits(corpus: Reader, sizes: Sizes, clouds: Clouds, figures: Mapping[str, Any], shown: pa.Array) -> Iterator[Exhibit]:
    if not figures["objects"]:
        return
    yield _tiles(figures)
    if len(shown):
        yield Pictures(
            title="Some clouds by chance",
            pictures=tuple(_pictures(corpus, shown)),
            tile=SIDES * TILE,
            note="All points, from four sides, a little from above. What is of one colour is drawn by depth, in greys.",
        )
    if figures["warnings"]:
        yield Bars(
            title="What is odd about shapes",
            unit="objects",
            bars=tuple(Bar(name, count, WARNINGS.get(name, "")) for name, count in figures["warnings"].items()),
        )
    yield from _histograms(sizes, clouds, figures)
    yield Rows(
        title="Meshes per source",
        head=("source", "objects", "point clouds", "median triangles", "most triangles"),
        rows=tuple(
            (name, one["objects"], one["clouds"], one["faces"]["median"], one["faces"]["max"])
            for name, one in figures["sources"].items()
        ),
    )


def _tiles(figures: Mapping[str, Any]) -> Tiles:
    of = f"of {figures['looked_at']:,} objects looked at"
    tiles = [
        Tile("objects", f"{figures['objects']:,}", f"{figures['meshes']:,} meshes, {figures['clouds']:,} point clouds"),
        Tile("coloured", percent(figures["colored_share"]), of),
        Tile("of one colour", percent(figures["one_color_share"]), of),
        Tile("warned", f"{figures['warned']:,}", f"{percent(figures['warned_share'])} have an odd shape"),
    ]
    if figures["evenness"]["median"] is not None:
        tiles.append(
            Tile(
                "evenness", f"{figures['evenness']['median']:.2f}", f"median of {figures['neighboured']:,}; 1: even but for chance"
            )
        )
    return Tiles(tuple(tiles))


def _histograms(sizes: Sizes, clouds: Clouds, figures: Mapping[str, Any]) -> Iterator[Histogram]:
    names, source = sources_of(sizes.objects)
    meshes = sizes.faces > 0
    yield histogram("Vertices", "vertices", SIZES, sizes.vertices.astype(np.float64), names, source, log=True)
    yield histogram(
        "Triangles",
        "triangles",
        SIZES,
        np.where(meshes, sizes.faces, np.nan),
        names,
        source,
        log=True,
        note="As rendered; meshes only.",
    )
    note = "In the canonical frame, where the farthest point is 1 from the centre: a ball has 12.6, and what has more is folded."
    yield histogram("Surface", "area", AREAS, sizes.area, names, source, log=True, note=note)
    looked_at = f"Of {figures['looked_at']:,} of {figures['objects']:,} objects, drawn by chance."
    axes, every = ("x (across)", "y (up)", "z (to the front)"), np.tile(np.arange(3), len(clouds.objects))
    yield histogram(
        "Extent", "canonical frame", EXTENTS, clouds.extent.ravel(), axes, every, note=f"Of the bounding boxes. {looked_at}"
    )
    names, source = sources_of(clouds.objects)
    note = f"Mean luminance of the points' colours, sRGB; 0 is black, 1 is white. {looked_at}"
    yield histogram("Brightness", "luminance", LEVELS, clouds.color @ LUMINANCE, names, source, note=note)
    near = f"Of {figures['neighboured']:,} objects, drawn by chance."
    yield histogram(
        "Distance to the nearest point",
        "canonical frame",
        DISTANCES,
        clouds.spacing,
        names,
        source,
        log=True,
        note=f"Means. {near}",
    )
    yield histogram(
        "Evenness",
        "distance to the nearest point over that by chance",
        EVENNESS,
        clouds.evenness,
        names,
        source,
        marks={"by chance": 1},
        note=f"Less than 1 where points lie in clumps or two surfaces on each other, as the two sides of a sheet. {near}",
    )


def _pictures(corpus: Reader, ids: pa.Array) -> Iterator[Picture]:
    about = facts(corpus, ids, ["name"])
    rows = rows_of(corpus, POINTS.name, ids)
    for row in corpus.need(POINTS.name).take(rows, columns=["object_id", "xyz", "rgb", "area", "vertices", "faces"]).to_pylist():
        name = about.get(row["object_id"], {}).get("name")
        size = f"{row['faces']:,} triangles" if row["faces"] else f"a cloud of {row['vertices']:,} points"
        note = " · ".join(filter(None, [size, row["object_id"] if name else ""]))
        yield Picture(strip(views_around(row, SIDES, TILE), TILE, STRIP_BYTES), name or row["object_id"], note)
