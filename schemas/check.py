"""Rows to an Arrow table that keeps the promises of `schemas.tables`.

Two kinds of wrong: a row of the wrong shape is a bug of the code that made it (`SchemaError`, stops the run); a row whose values
break a promise (not finite, outside the unit ball, all points equal, no unit length) belongs to an object that cannot be used
(`Violation`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.tables import CAPTIONS, MAPS, POINTS, POINTS_PER_OBJECT, VIEWS, Table

# float16 keeps 11 bits: coordinates of the unit ball round by up to 2.5e-4, unit vectors of 1,280 numbers by less than 1e-3.
BALL_TOLERANCE = 1e-3
UNIT_TOLERANCE = 2e-3


class SchemaError(Exception):
    """Rows that do not have the table's columns, types or nulls; names the table, the row and the column."""


@dataclass(frozen=True)
class Violation:
    """A row whose values break a promise of its table. `row`: its number; `message`: what was found."""

    row: int
    column: str
    message: str


def to_table(table: Table, rows: list[Mapping[str, Any]]) -> pa.Table:
    """The rows as an Arrow table with exactly the schema of `table`.

    Raises SchemaError for a missing, unknown or mistyped column, a null where none may be, or a key that occurs twice.
    """
    names = set(table.schema.names)
    optional = {field.name for field in table.schema if field.nullable}
    for number, row in enumerate(rows):
        if unknown := row.keys() - names:
            raise SchemaError(f"{table.name}: row {number} has columns the table lacks: {', '.join(sorted(unknown))}")
        if missing := names - row.keys() - optional:
            raise SchemaError(f"{table.name}: row {number} lacks {', '.join(sorted(missing))}")
    arrays = []
    for field in table.schema:
        values = [row.get(field.name) for row in rows]
        if not field.nullable and (absent := [number for number, value in enumerate(values) if value is None]):
            raise SchemaError(f"{table.name}: row {absent[0]}, column {field.name!r} is null and may not be")
        arrays.append(_array(table, field, values))
    made = pa.Table.from_arrays(arrays, schema=table.schema)
    if repeated := repeated_key(table, made):
        raise SchemaError(f"{table.name}: the key {dict(zip(table.key, repeated, strict=True))} occurs twice in one batch")
    return made


def repeated_key(table: Table, rows: pa.Table) -> tuple | None:
    """The first key that occurs more than once in `rows`, or None."""
    counted = rows.select(table.key).group_by(table.key).aggregate([([], "count_all")])
    twice = counted.filter(pc.greater(counted["count_all"], 1))
    return tuple(twice[name][0].as_py() for name in table.key) if len(twice) else None


def violations(table: Table, rows: pa.Table) -> list[Violation]:
    """Rows whose values break a promise, the first violation of each."""
    found: dict[int, Violation] = {}
    for violation in _violations(table, rows):
        found.setdefault(violation.row, violation)
    return [found[row] for row in sorted(found)]


def _array(table: Table, field: pa.Field, values: list) -> pa.Array:
    try:
        # Arrow converts a list of arrays of fixed size element by element, thousands of times slower than one buffer.
        if pa.types.is_fixed_size_list(field.type) and not any(value is None for value in values):
            size, item = field.type.list_size, field.type.value_type
            for number, value in enumerate(values):
                if np.shape(value) != (size,):
                    raise SchemaError(
                        f"{table.name}: row {number}, column {field.name!r} has shape {np.shape(value)}, must be ({size},)"
                    )
            flat = np.asarray(values, _dtype(item)).reshape(-1)
            return pa.FixedSizeListArray.from_arrays(pa.array(flat, item), type=field.type)
        return pa.array(values, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, TypeError) as error:
        for number, value in enumerate(values):
            try:
                pa.array([value], field.type)
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, TypeError) as one:
                raise SchemaError(f"{table.name}: row {number}, column {field.name!r} is no {field.type}: {one}") from error
        raise


def _violations(table: Table, rows: pa.Table) -> Iterator[Violation]:
    for field in table.schema:
        yield from _not_finite(field, rows[field.name])
    for prefix, rule in _RULES.items():
        if table.name.startswith(prefix):
            yield from rule(rows)


def _not_finite(field: pa.Field, values: pa.ChunkedArray) -> Iterator[Violation]:
    type = field.type
    if pa.types.is_floating(type):
        bad = pc.fill_null(pc.invert(pc.is_finite(values)), False).to_numpy()
    elif pa.types.is_fixed_size_list(type) and pa.types.is_floating(type.value_type):
        bad = ~np.isfinite(matrix(values)).all(axis=1)
    else:
        return
    for number in np.flatnonzero(bad):
        yield Violation(int(number), field.name, f"{field.name} holds numbers that are not finite")


def matrix(values: pa.ChunkedArray) -> np.ndarray:
    """A column of fixed-size lists as a (rows, size) array; null rows read as 0."""
    return np.concatenate([_flat(chunk) for chunk in values.chunks]) if values.num_chunks else np.zeros((0, values.type.list_size))


def vectors_of(column: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    """All vectors of a column of lists of vectors, (v, d), and how many each row has, (rows,)."""
    vectors = column.flatten()
    size = vectors.type.list_size
    return vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, size), pc.list_value_length(column).to_numpy()


def _flat(chunk: pa.FixedSizeListArray) -> np.ndarray:
    filled = np.zeros((len(chunk), chunk.type.list_size), _dtype(chunk.type.value_type))
    filled[chunk.is_valid().to_numpy(zero_copy_only=False)] = (
        chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, filled.shape[1])
    )
    return filled


def _dtype(type: pa.DataType) -> np.dtype:
    return pa.array([], type).to_numpy().dtype


def _points(rows: pa.Table) -> Iterator[Violation]:
    for number, flat in enumerate(matrix(rows["xyz"])):
        xyz = flat.reshape(-1, 3).astype(np.float32)
        farthest = float(np.sqrt((xyz**2).sum(axis=1).max()))
        if farthest > 1 + BALL_TOLERANCE:
            yield Violation(number, "xyz", f"a point lies {farthest:.4f} from the origin, outside the unit ball")
        if np.ptp(xyz, axis=0).max() < 0.5:
            yield Violation(number, "xyz", f"the points span only {np.ptp(xyz, axis=0).max():.4f}: the object is degenerate")


def _views(rows: pa.Table) -> Iterator[Violation]:
    yield from _cameras(rows)
    for number, row in enumerate(rows.select(["image", "width", "height", "intrinsics"]).to_pylist()):
        if min(row["width"], row["height"], row["intrinsics"][0], row["intrinsics"][1]) <= 0 or not row["image"]:
            yield Violation(number, "image", "a view without extent, focal length or picture")


def _cameras(rows: pa.Table) -> Iterator[Violation]:
    for number, flat in enumerate(rows["camera_to_world"].to_pylist()):
        pose = np.reshape(flat, (4, 4))
        rotation = pose[:3, :3]
        if not (np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-4) and np.linalg.det(rotation) > 0):
            yield Violation(number, "camera_to_world", "the camera's axes are not a rotation")
        if not np.array_equal(pose[3], [0, 0, 0, 1]):
            yield Violation(number, "camera_to_world", "the last row is not 0 0 0 1")


def _maps(rows: pa.Table) -> Iterator[Violation]:
    yield from _cameras(rows)
    for number, row in enumerate(rows.select(["width", "height", "depth_unit"]).to_pylist()):
        seen, pixels = (rows[name][number].values.to_numpy() for name in ("seen", "pixels"))
        if min(row.values()) <= 0:
            yield Violation(number, "depth_unit", "a view without extent, or a depth without unit")
        if len(seen) and (seen[-1] >= POINTS_PER_OBJECT or (seen[1:] <= seen[:-1]).any()):
            yield Violation(number, "seen", f"the points seen are not ascending numbers below {POINTS_PER_OBJECT}")
        if len(seen) != len(pixels) or (pixels >= row["width"] * row["height"]).any():
            yield Violation(number, "pixels", "the pixels are not one for each point seen, within the picture")


def _captions(rows: pa.Table) -> Iterator[Violation]:
    for number, (text, kept, because) in enumerate(
        zip(*(rows[name].to_pylist() for name in ("text", "kept", "dropped_because")), strict=True)
    ):
        if kept and not text.strip():
            yield Violation(number, "text", "a caption is kept that says nothing")
        if kept != (because is None):
            yield Violation(number, "dropped_because", "a caption must be either kept or dropped for a reason")


def _image_embeddings(rows: pa.Table) -> Iterator[Violation]:
    for number, value in enumerate(rows["embedding"]):
        if not len(value.values):
            yield Violation(number, "embedding", "no view has an embedding")
        elif message := _not_unit(matrix(pa.chunked_array([value.values]))):
            yield Violation(number, "embedding", message)


def _one_embedding(rows: pa.Table) -> Iterator[Violation]:
    for number, vector in enumerate(matrix(rows["embedding"])):
        if message := _not_unit(vector[None]):
            yield Violation(number, "embedding", message)


def _not_unit(vectors: np.ndarray) -> str | None:
    lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)
    worst = lengths[np.argmax(np.abs(lengths - 1))] if np.isfinite(lengths).all() else np.nan
    return None if abs(worst - 1) <= UNIT_TOLERANCE else f"an embedding has length {worst:.4f}, must be 1"


_RULES: dict[str, Callable[[pa.Table], Iterable[Violation]]] = {
    POINTS.name: _points,
    VIEWS.name: _views,
    MAPS.name: _maps,
    CAPTIONS.name: _captions,
    "image_embeddings/": _image_embeddings,
    "text_embeddings/": _one_embedding,
    "class_embeddings/": _one_embedding,
}
