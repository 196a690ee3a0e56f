"""Corpora with holes: objects of several sources, each stopped somewhere by chance, and what their report should say of them."""

import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.store import Corpus
from schemas.check import to_table
from schemas.tables import CAPTIONS, FAILURES, OBJECTS, POINTS, VIEWS, Table, image_embeddings, text_embeddings
from shout import object_row

TEACHERS = ("small:one", "small:two")
DIM = 4
FORMATS = ("glb", "glb", "glb", "pcd", "npy")


def made_by(stage: str, **changes) -> dict:
    """How a stage is recorded in its table's metadata."""
    usual = {"version": 1, "settings": {}, "reads": OBJECTS.name, "per": "object_id", "depends": [], "where": None}
    return {"stage": stage} | usual | changes


def put(corpus: Corpus, table: Table, rows: Iterable[dict], *stages: dict) -> None:
    """Rows into a table, which is made by these stages."""
    for stage in stages or [None]:
        corpus.create(table, stage)
    filled = [{field.name: None for field in table.schema if field.nullable} | row for row in rows]
    corpus.append(table, corpus.write(table, to_table(table, filled)))


def picture(color: tuple[int, int, int] = (90, 90, 90), size: int = 2) -> bytes:
    """An encoded picture of one colour."""
    file = io.BytesIO()
    Image.new("RGBA", (size, size), (*color, 255)).save(file, "PNG")
    return file.getvalue()


def view_row(object_id: str, view: int, **changes) -> dict:
    """A row of VIEWS."""
    square = {"width": 2, "height": 2, "intrinsics": [1.0] * 4, "camera_to_world": [0.0] * 16}
    row = {"object_id": object_id, "view": view, "stage": "render", "stage_key": "k", "image": picture(), "kind": "rendered"}
    return row | square | changes


def failure_row(object_id: str, stage: str, reason: str, **changes) -> dict:
    """A row of FAILURES."""
    row = {"object_id": object_id, "stage": stage, "stage_key": "k", "reason": reason}
    return row | {"message": f"{object_id}: {reason}", "attempts": 1} | changes


def caption_row(object_id: str, number: int, text: str, dropped: str | None = None) -> dict:
    """A row of CAPTIONS; its text stands for its own hash."""
    row = {"object_id": object_id, "caption": number, "stage": "caption", "stage_key": "k", "origin": "metadata", "model": "m"}
    return row | {"text": text, "text_sha256": text, "kept": dropped is None, "dropped_because": dropped}


def put_points(corpus: Corpus, ids: list[str], warnings: list[list[str]]) -> None:
    """Points that are all nothing: 10,000 of each object are too many to go through Python."""
    columns = {
        "object_id": pa.array(ids, pa.string()),
        "warnings": pa.array(warnings, POINTS.schema.field("warnings").type),
    }
    for field in POINTS.schema:
        if field.name in columns:
            continue
        if field.nullable:
            columns[field.name] = pa.nulls(len(ids), field.type)
        elif pa.types.is_fixed_size_list(field.type):
            size = field.type.list_size
            nothing = pa.array(np.zeros(size * len(ids), field.type.value_type.to_pandas_dtype()), field.type.value_type)
            columns[field.name] = pa.FixedSizeListArray.from_arrays(nothing, size)
        else:
            columns[field.name] = pa.array(["points" if pa.types.is_string(field.type) else 0] * len(ids), field.type)
    corpus.create(POINTS, made_by("points", where="asset_format IN ('glb', 'pcd')"))
    corpus.append(POINTS, corpus.write(POINTS, pa.table([columns[name] for name in POINTS.schema.names], schema=POINTS.schema)))


def patchy(folder: Path, rng: np.random.Generator, count: int = 60) -> tuple[Corpus, Counter]:
    """A corpus of `count` objects that a source names, and how many of each source are (source, step, why) lost, or (source,
    "complete", ""). What is expected is written down object by object while the tables are made, not asked of them."""
    corpus = Corpus(str(folder))
    objects, views, points, captions, failures = [], [], [], [], []
    images = {teacher: [] for teacher in TEACHERS}
    odds: dict[str, list[str]] = {}
    expected: Counter = Counter()
    texts = [f"text {number}" for number in range(count // 2)]
    fate_of_text = {  # by teacher: embedded, failed for a reason, or not done
        teacher: {text: str(rng.choice(["done", "done", "done", "done", "too_long", "not_done"])) for text in texts}
        for teacher in TEACHERS
    }

    def fate(*fates: str) -> str:
        return str(rng.choice(["done"] * 8 + list(fates)))

    def fail(id: str, stage: str, reason: str) -> str:
        failures.append(failure_row(id, stage, reason, attempts=int(rng.integers(1, 4))))
        return f"failed: {stage}: {reason}"

    for number in range(count):
        source = str(rng.choice(["alpha", "beta", "beta-2"], p=[0.6, 0.3, 0.1]))
        id = f"{source}/{number}/part"
        losses: list[tuple[str, str]] = []  # every step that the object lacks something of, and why
        if rng.random() < 0.15:
            expected[source, "ingested", fail(id, "ingest", str(rng.choice(["asset_missing", "truncated"])))] += 1
            continue
        format = str(rng.choice(FORMATS))
        odd = sorted({str(one) for one in rng.choice(["missing_texture", "no_material"], rng.integers(0, 3))})
        objects.append(object_row(number, object_id=id, source=source, asset_format=format, warnings=odd))
        # Pictures: rendered, or brought by an import as embeddings alone
        imported = rng.random() < 0.1
        end = fate("no_faces", "timeout", "not_done", "not_done") if format == "glb" else "not_taken"
        if end == "done":
            views += [view_row(id, view) for view in range(2)]
        elif not imported:
            why = {"not_done": "not_done", "not_taken": f"not_taken: {format}"}
            losses.append(("pictures", why[end] if end in why else fail(id, "render", end)))
        elif end not in ("not_done", "not_taken"):
            fail(id, "render", end)  # and yet it has pictures
        end = fate("no_faces", "not_done") if format != "npy" else "not_taken"
        if end == "done":
            points.append(id)
            odds[id] = ["tiny_mesh"] if rng.random() < 0.2 else []
        else:
            why = {"not_done": "not_done", "not_taken": f"not_taken: {format}"}
            losses.append(("points", why[end] if end in why else fail(id, "points", end)))
        end = fate("no_text", "not_done", "dropped", "dropped")
        own = [str(text) for text in rng.choice(texts, rng.integers(1, 4), replace=False)]
        if end == "done":
            captions += [caption_row(id, place, text) for place, text in enumerate(own)]
            captions += [caption_row(id, len(own), "http://", "url")] * int(rng.integers(0, 2))
        elif end == "dropped":
            reasons = [str(reason) for reason in rng.choice(["url", "hash", "too_short"], len(own))]
            captions += [caption_row(id, place, *one) for place, one in enumerate(zip(own, reasons, strict=True))]
            losses.append(("kept_caption", f"dropped: {reasons[0] if len(set(reasons)) == 1 else 'several reasons'}"))
        else:
            losses.append(("kept_caption", "not_done" if end == "not_done" else fail(id, "caption", end)))
        rendered = bool(views) and views[-1]["object_id"] == id
        for place, teacher in enumerate(TEACHERS):
            stage = f"embed-images/{teacher}"
            end = "done" if imported and place == 0 else fate("image_unreadable", "not_done") if rendered else "not_done"
            if end == "done":
                row = {"object_id": id, "stage": stage, "stage_key": "k", "embedding": [[0.5] * DIM] * 2}
                images[teacher].append(row)
            else:
                losses.append((f"image_embeddings/{teacher}", end if end == "not_done" else fail(id, stage, end)))
        for teacher in TEACHERS:
            fates = {fate_of_text[teacher][text] for text in own} if (not losses or losses[-1][0] != "kept_caption") else set()
            if "done" not in fates:
                why = f"failed: embed-texts/{teacher}: too_long" if "too_long" in fates else "not_done"
                losses.append((f"text_embeddings/{teacher}", why))
        order = ["pictures", "points", "kept_caption", *(f"{kind}_embeddings/{t}" for kind in ("image", "text") for t in TEACHERS)]
        step, why = min(losses, key=lambda loss: order.index(loss[0]), default=("complete", ""))
        expected[source, step, why] += 1
    said = {row["text"] for row in captions if row["kept"]}
    for teacher, fates in fate_of_text.items():
        failures += [
            failure_row(text, f"embed-texts/{teacher}", end) for text, end in fates.items() if end == "too_long" and text in said
        ]
    put(corpus, OBJECTS, objects, made_by("ingest", reads=""))
    put(corpus, VIEWS, views, made_by("render", where="asset_format = 'glb'"))
    put_points(corpus, points, [odds[id] for id in points])
    put(corpus, CAPTIONS, captions, made_by("caption"))
    for teacher in TEACHERS:
        table = image_embeddings(teacher, DIM)
        put(corpus, table, images[teacher], made_by(f"embed-images/{teacher}", reads=VIEWS.name))
        rows = [
            {"text_sha256": text, "text": text, "stage": f"embed-texts/{teacher}", "stage_key": "k", "embedding": [0.5] * DIM}
            for text, end in fate_of_text[teacher].items()
            if end == "done" and text in said
        ]
        made = made_by(f"embed-texts/{teacher}", reads=CAPTIONS.name, per="text_sha256", where="kept")
        put(corpus, text_embeddings(teacher, DIM), rows, made)
    put(corpus, FAILURES, failures)
    return corpus, expected
