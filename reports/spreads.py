"""How numbers of many rows are spread, over all and by group; texts and ids of many rows as numbers, for 8 bytes a row at most."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int, Int32

from reports.section import Histogram

SERIES = 6  # groups that a histogram tells apart
OTHERS = "others"


def coded(pieces: Iterable[pa.Array | pa.ChunkedArray]) -> tuple[pa.Array, Int32[np.ndarray, " n"]]:
    """Texts that come in pieces: the distinct ones, and of each text its number among them; -1: null."""
    chunks = [chunk for piece in pieces for chunk in (piece.chunks if isinstance(piece, pa.ChunkedArray) else [piece])]
    if not chunks:
        return pa.array([], pa.string()), np.empty(0, np.int32)
    whole = pa.chunked_array([chunk.dictionary_encode() for chunk in chunks]).unify_dictionaries()
    codes = [pc.fill_null(chunk.indices, -1).to_numpy(zero_copy_only=False) for chunk in whole.chunks]
    return whole.chunk(0).dictionary, np.concatenate(codes).astype(np.int32, copy=False)


def share_of(part: int | None, whole: int | None) -> float | None:
    """A share, 0..1; None: of nothing, or not known."""
    return float(part / whole) if whole else None


def percent(share: float | None) -> str:
    """A share to be read, "3.1 %", not broken between lines; "–" where there is none."""
    return "–" if share is None else f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def number_of(number: int, noun: str) -> str:
    """ "1 object", "2,000 objects"; of nouns that take an s."""
    return f"{number:,} {noun}" + "s" * (number != 1)


def unknown(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The same figures by name, and none of them known."""
    return {name: unknown(value) if isinstance(value, Mapping) else None for name, value in figures.items()}


def spread_of(values: Float[np.ndarray, " n"]) -> dict[str, float | None]:
    """Mean, least, most and three quantiles, as figures; NaN is no value. All None where there is none."""
    there = values[~np.isnan(values)]
    if not len(there):
        return dict.fromkeys(("mean", "min", "p05", "median", "p95", "max"))
    low, median, high = np.quantile(there, (0.05, 0.5, 0.95))
    numbers = (there.mean(dtype=np.float64), there.min(), low, median, high, there.max())
    return {name: float(number) for name, number in zip(("mean", "min", "p05", "median", "p95", "max"), numbers, strict=True)}


def histogram(
    title: str,
    unit: str,
    edges: Sequence[float],
    values: Float[np.ndarray, " n"],
    groups: Sequence[str] = ("",),
    group: Int[np.ndarray, " n"] | None = None,
    *,
    log: bool = False,
    marks: dict[str, float] | None = None,
    note: str = "",
) -> Histogram:
    """A histogram with a series for each group that has values, of more than SERIES all but the largest together; `group`: each
    value's, as a number (-1: none; the value is left out). NaN is no value; what lies beyond the edges is counted in the outermost
    bins."""
    there = ~np.isnan(values) if group is None else ~np.isnan(values) & (group >= 0)
    bins = len(edges) - 1
    place = np.clip(np.searchsorted(edges, values[there], "right") - 1, 0, bins - 1)
    of = 0 if group is None else group[there]
    counts = np.bincount(of * bins + place, minlength=len(groups) * bins).reshape(len(groups), bins)
    filled = [number for number in range(len(groups)) if counts[number].any()]
    largest = sorted(filled, key=lambda number: -counts[number].sum())
    shown, rest = (filled, []) if len(filled) <= SERIES else (sorted(largest[: SERIES - 1]), largest[SERIES - 1 :])
    series = {groups[number]: tuple(counts[number].tolist()) for number in shown}
    if rest:
        series[OTHERS] = tuple(counts[rest].sum(axis=0).tolist())
    several = len(series) > 1
    return Histogram(
        title=title,
        unit=unit,
        edges=tuple(map(float, edges)),
        series=series or {groups[0] if groups else "": (0,) * bins},
        log=log,
        shares=several,
        marks=marks or {},
        note=note,
    )
