"""How objects are shown where there is room for a small picture and a name: in maps, beside neighbours, in clusters."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64
from PIL import Image

from reports.contact_sheet import views_around
from reports.sample import rows_of
from schemas.corpus import Reader
from schemas.tables import OBJECTS, POINTS, VIEWS

QUALITY = 80  # WebP's
DRAWN = 3_000  # points of an object; every prefix of them is a good subsample
AT_ONCE = 64  # pictures, or clouds, in memory


@dataclass(frozen=True)
class Called:
    """What an object is called, its name or else its category or else its id; its source, its first category, its licence."""

    name: str
    source: str
    category: str | None
    license: str | None


def portraits(corpus: Reader, ids: pa.Array, *, side: int) -> dict[str, bytes]:
    """A WebP, `side` pixels on its longer side, of each of these objects: its first view, or else its points. An object that has
    neither is not in it."""
    made: dict[str, bytes] = {}
    views, first = corpus.open(VIEWS.name), _first_views(corpus, ids)
    clouds, rows = corpus.open(POINTS.name), rows_of(corpus, POINTS.name, ids.filter(pc.invert(pc.is_in(ids, first[0]))))

    def of_view(picture: bytes) -> bytes:
        with Image.open(io.BytesIO(picture)) as opened:
            return _small(opened, side)

    with ThreadPoolExecutor() as pool:
        for begin in range(0, len(first[1]), AT_ONCE):
            taken = views.take(first[1][begin : begin + AT_ONCE], columns=["object_id", "image"])
            made.update(zip(taken["object_id"].to_pylist(), pool.map(of_view, taken["image"].to_pylist()), strict=True))
        for begin in range(0, len(rows), AT_ONCE):
            taken = clouds.take(rows[begin : begin + AT_ONCE], columns=["object_id", "xyz", "rgb", "area"])
            for number, name in ((1, "xyz"), (2, "rgb")):
                taken = taken.set_column(number, name, pc.list_slice(taken[name], 0, 3 * DRAWN))
            taken = taken.to_pylist()
            drawn = pool.map(lambda row: _small(views_around(row, 1, side)[0], side), taken)
            made.update(zip((row["object_id"] for row in taken), drawn, strict=True))
    return made


def facts(corpus: Reader, ids: pa.Array, columns: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Columns of OBJECTS for these objects, by id."""
    rows = rows_of(corpus, OBJECTS.name, ids)
    if not len(rows):
        return {}
    taken = corpus.need(OBJECTS.name).take(rows, columns=["object_id", *columns])
    return {row.pop("object_id"): row for row in taken.to_pylist()}


def called(corpus: Reader, ids: pa.Array) -> dict[str, Called]:
    """How each of these objects is called; of one that is not in OBJECTS, its id and source alone are known."""
    known = facts(corpus, ids, ["name", "categories", "license"])
    made = {}
    for id in ids.to_pylist():
        row = known.get(id, {"name": None, "categories": [], "license": None})
        category = row["categories"][0] if row["categories"] else None
        made[id] = Called(row["name"] or category or id, id.partition("/")[0], category, row["license"])
    return made


def _first_views(corpus: Reader, ids: pa.Array) -> tuple[pa.Array, Int64[np.ndarray, " n"]]:
    """Those of the objects that have views, and of each the row of its view of the lowest number; ascending by row."""
    rows = rows_of(corpus, VIEWS.name, ids)
    if not len(rows):
        return pa.array([], pa.string()), rows
    views = corpus.need(VIEWS.name).take(rows, columns=["object_id", "view"]).append_column("row", pa.array(rows))
    ordered = views.sort_by([("object_id", "ascending"), ("view", "ascending")])
    first = ordered.group_by("object_id", use_threads=False).aggregate([("row", "first")]).sort_by("row_first")
    return first["object_id"].combine_chunks(), first["row_first"].to_numpy()


def _small(picture: Image.Image, side: int) -> bytes:
    """Scaled with premultiplied alpha, so that no dark rim appears."""
    picture = picture.convert("RGBA").convert("RGBa")
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    picture.convert("RGBA").save(encoded, "WEBP", quality=QUALITY)
    return encoded.getvalue()
