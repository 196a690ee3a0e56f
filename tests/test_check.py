import hashlib

import numpy as np
import pytest

from schemas.check import SchemaError, to_table, violations
from schemas.tables import CAPTIONS, OBJECTS, POINTS, VIEWS, class_embeddings, image_embeddings, text_embeddings
from shout import object_row

MADE = {"stage": "s", "stage_key": "k"}


def points_row(xyz, **changes):
    row = {"object_id": "a/1", **MADE, "xyz": np.asarray(xyz, np.float16).reshape(-1), "rgb": None}
    return row | {"canonical_from_asset": np.eye(4).reshape(-1), "vertices": 8, "faces": 12, "area": 1.0, "warnings": []} | changes


def view_row(number=0, **changes):
    row = {"object_id": "a/1", **MADE, "view": number, "image": b"x", "width": 224, "height": 224, "kind": "rendered"}
    row |= {"intrinsics": [300.0, 300.0, 112.0, 112.0], "camera_to_world": np.eye(4).reshape(-1)}
    return row | {"alpha_coverage": 0.5, "border_coverage": 0.0} | changes


def sphere(rng, count=10_000):
    xyz = rng.normal(size=(count, 3))
    return 0.99 * xyz / np.linalg.norm(xyz, axis=1, keepdims=True)


def found(table, *rows):
    return [(violation.row, violation.column) for violation in violations(table, to_table(table, list(rows)))]


def test_good_rows_come_back_as_they_went_in_with_the_schema_to_the_letter(rng):
    rgb = rng.integers(0, 256, 30_000, dtype=np.uint8)
    row = points_row(sphere(rng), rgb=rgb)
    table = to_table(POINTS, [row, points_row(sphere(rng), object_id="a/2")])
    assert table.schema.equals(POINTS.schema, check_metadata=True)
    assert np.array_equal(table["xyz"][0].values.to_numpy(), row["xyz"])
    assert np.array_equal(table["rgb"][0].values.to_numpy(), rgb)
    assert table["rgb"][1].as_py() is None
    assert not violations(POINTS, table)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"nmae": "x"}, "objects: row 1 has columns the table lacks: nmae"),
        ({"source": None}, "row 1, column 'source' is null"),
        ({"asset_bytes": "many"}, "row 1, column 'asset_bytes' is no int64"),
        ({"object_id": "test/0"}, "key {'object_id': 'test/0'} occurs twice"),
    ],
)
def test_a_row_of_the_wrong_shape_is_named_by_table_row_and_column(changes, message):
    with pytest.raises(SchemaError) as error:
        to_table(OBJECTS, [object_row(0), object_row(1, **changes)])
    assert message in str(error.value)


def test_a_missing_column_is_an_error_and_a_missing_optional_one_is_null():
    row = object_row(0)
    del row["license"]
    with pytest.raises(SchemaError, match="row 0 lacks license"):
        to_table(OBJECTS, [row])
    assert to_table(OBJECTS, [object_row(0)])["creator"][0].as_py() is None


def test_too_few_points_are_an_error(rng):
    with pytest.raises(SchemaError, match=r"'xyz' has shape \(300,\), must be \(30000,\)"):
        to_table(POINTS, [points_row(sphere(rng, 100))])


def test_points_that_are_not_finite_outside_the_ball_or_degenerate_are_found(rng):
    good = sphere(rng)
    nan, out, flat = good.copy(), good.copy(), np.zeros_like(good)
    nan[17, 1] = np.nan
    out[5] *= 1.1
    rows = [points_row(xyz, object_id=f"a/{n}") for n, xyz in enumerate([good, nan, out, flat, good])]
    assert found(POINTS, *rows) == [(1, "xyz"), (2, "xyz"), (3, "xyz")]


def test_a_camera_that_mirrors_or_scales_is_found():
    mirror, scaled = np.eye(4), np.eye(4)
    mirror[0, 0], scaled[:3, :3] = -1, 2 * np.eye(3)
    rows = [view_row(0), view_row(1, camera_to_world=mirror.reshape(-1)), view_row(2, camera_to_world=scaled.reshape(-1))]
    assert found(VIEWS, *rows, view_row(3, image=b"")) == [(1, "camera_to_world"), (2, "camera_to_world"), (3, "image")]


def test_embeddings_must_be_finite_and_of_unit_length(rng):
    table = image_embeddings("t", 8)
    unit = rng.normal(size=(3, 8))
    unit = (unit / np.linalg.norm(unit, axis=1, keepdims=True)).astype(np.float16)
    rows = [{"object_id": f"a/{n}", **MADE, "embedding": list(value)} for n, value in enumerate([unit, unit * 0.9, unit[:0]])]
    assert found(table, *rows) == [(1, "embedding"), (2, "embedding")]
    texts = text_embeddings("t", 8)
    bad = unit[1].copy()
    bad[0] = np.inf
    rows = [{"text_sha256": str(n), **MADE, "text": "a", "embedding": value} for n, value in enumerate([unit[0], bad])]
    assert found(texts, *rows) == [(1, "embedding")]
    classes = class_embeddings("t", 8)  # where the mean as the teacher gave it may have any length
    rows = [
        {"name": str(n), **MADE, "embedding": value, "raw_mean": 3 * unit[0]} for n, value in enumerate([unit[0], unit[0] * 0.9])
    ]
    assert found(classes, *rows) == [(1, "embedding")]


def test_a_caption_is_kept_or_dropped_for_a_reason():
    def row(number, **changes):
        text = {"object_id": "a/1", **MADE, "origin": "o", "caption": number, "text": "a cup", "model": "m", "kept": True}
        return text | {"text_sha256": hashlib.sha256(b"a cup").hexdigest()} | changes

    dropped = row(2, kept=False, dropped_because="hash")
    assert found(CAPTIONS, row(0), row(1, kept=False), dropped, row(3, text=" "), row(4, dropped_because="hash")) == [
        (1, "dropped_because"),
        (3, "text"),
        (4, "dropped_because"),
    ]
