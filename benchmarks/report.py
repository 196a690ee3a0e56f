"""How long does the report of a large corpus take, and how much memory, section by section and as a whole?

    python -m benchmarks.report FOLDER [--objects 1000000] [--part 20000] [--dim 64] [--against] [--only captions funnel …]

FOLDER/OBJECTS-PART-DIM is a made corpus by the tables' own schemas, which is kept for the next time: objects of five sources and
1,156 classes, three captions each, embeddings of twelve views and of all texts, in which a class' objects lie together, failures;
and points and views, with real pictures, for `--part` of the objects.

Each section is computed in a process of its own, then `report` as a person calls it, also as one process: seconds by the clock,
and the peak of its resident memory, what Python and the packages take included. The rival reads the tables as wholes into pandas
data frames and counts the same (sources by licence; captions by origin and reason; words of kept captions; failures by reason),
as one would in a notebook. Both must count the same.
"""

import argparse
import hashlib
import importlib
import io
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageDraw

from pipeline.store import Corpus
from reports.scans import counts, scanned
from schemas.corpus import Reader
from schemas.tables import (
    CAPTIONS,
    FAILURES,
    OBJECTS,
    POINTS,
    POINTS_PER_OBJECT,
    RUNS,
    SPLITS,
    VIEWS,
    Table,
    class_embeddings,
    image_embeddings,
    text_embeddings,
)

TEACHER = "made:for-the-report"
SOURCE_OF = np.repeat(["objaverse", "shapenet", "abo", "3d-future", "mvimgnet"], [75, 10, 6, 5, 4])  # of each hundred
LICENCES = {"CC-BY-4.0": 0.6, "CC-BY-NC-4.0": 0.1, "CC-BY-SA-4.0": 0.05, "CC0-1.0": 0.1, "unknown": 0.15}
ORIGINS = {"metadata": None, "cap3d": "cap3d-2024", "captioner": "a-captioner"}
CLASSES = 1156
VIEWS_EACH = 12
AT_ONCE = 50_000  # objects
VIEWED_AT_ONCE = 1_000  # objects whose views and points are written together
PICTURES = 96  # different ones
FAILED = 0.02
FAILED_ON = {"render: timeout": 0.5, "render: gate_blank": 0.3, "points: no_faces": 0.2}
SECTIONS = (  # reports/NAME.py has a function NAME
    "overview",
    "funnel",
    "failures",
    "licences",
    "categories",
    "captions",
    "views",
    "points",
    "embeddings",
    "duplicates",
    "storage",
    "time_and_cost",
)
WORDS = np.array(
    "red blue green old small wooden metal round tall broken painted modern toy low-poly stylized chair table lamp house tree car "
    "sword robot castle with a of and on the in legs wheels door roof handle base glass top and for 3d model".split()
)
GB = 1e9


# ------------------------------------------------------------------------------------------------------------ the made corpus


def make(root: Path, objects: int, part: int, dim: int) -> None:
    """A corpus with so many objects, `part` of them with views and points, embeddings of `dim` numbers."""
    corpus, rng = Corpus(str(root)), np.random.default_rng(0)
    centres = _unit(rng.normal(size=(CLASSES, dim)))
    image, text, classes = image_embeddings(TEACHER, dim), text_embeddings(TEACHER, dim), class_embeddings(TEACHER, dim)
    stages = {
        OBJECTS: ("ingest", None, "object_id"),
        VIEWS: ("render", "objects", "object_id"),
        POINTS: ("points", "objects", "object_id"),
        CAPTIONS: ("caption", "objects", "object_id"),
        image: (f"embed-images/{TEACHER}", "views", "object_id"),
        text: (f"embed-texts/{TEACHER}", "captions", "text_sha256"),
        classes: (f"embed-classes/{TEACHER}", "objects", "name"),
    }
    made_by = {
        table: {"stage": stage, "version": 1, "settings": {}, "reads": reads, "per": per, "depends": [], "where": None}
        for table, (stage, reads, per) in stages.items()
    }
    for table, how in made_by.items():
        corpus.create(table, how)
    for table in (FAILURES, SPLITS, RUNS):
        corpus.create(table)
    seen: set[str] = set()
    for first in range(0, objects, AT_ONCE):
        ids, classes_of = _objects(corpus, first, min(AT_ONCE, objects - first), rng)
        _embedded(corpus, image, text, ids, classes_of, centres, rng, seen)
    _put(corpus, classes, {"name": [f"class {n}" for n in range(CLASSES)], "embedding": _rows(centres), "raw_mean": _rows(centres)})
    pictures = [_picture(number) for number in range(PICTURES)]
    for first in range(0, part, VIEWED_AT_ONCE):
        ids = _ids(first, min(VIEWED_AT_ONCE, part - first))
        _put(corpus, POINTS, _points(ids, rng))
        _put(corpus, VIEWS, _views(ids, rng, pictures))
    stage = {"stage": "render", "table": "views", "done": part, "failed": 0, "skipped": 0}
    stage["made_by"] = json.dumps(made_by[VIEWS])
    run = {"began": datetime(2026, 1, 1, tzinfo=UTC), "stages": [stage], "tasks": part, "wall_seconds": 3600.0, "python": "3.11"}
    run |= {"work_seconds": 25_200.0, "workers": 8, "cpus": 2.0, "gpus": 0.0, "devices": ["CPU"]}
    corpus.append(RUNS, corpus.write(RUNS, pa.Table.from_pylist([run], RUNS.schema)))


def _put(corpus: Corpus, table: Table, columns: dict[str, Any]) -> None:
    """Rows as columns; `stage` and `stage_key` where they are not given, and null for what is absent."""
    rows = len(next(iter(columns.values())))
    given = {"stage": ["made"] * rows, "stage_key": ["k"] * rows} | columns
    arrays = [
        pa.array(given[field.name], field.type) if field.name in given else pa.nulls(rows, field.type) for field in table.schema
    ]
    corpus.append(table, corpus.write(table, pa.table(arrays, schema=table.schema)))


def _ids(first: int, count: int) -> list[str]:
    return [f"{SOURCE_OF[37 * number % 100]}/{number:032x}" for number in range(first, first + count)]


def _objects(corpus: Corpus, first: int, count: int, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """Objects and their failures; their ids, and the class of each: a long tail."""
    ids, numbers = _ids(first, count), range(first, first + count)
    classes = np.minimum(rng.zipf(1.3, count) - 1, CLASSES - 1)
    assets = rng.bytes(32 * count).hex()
    hashes = [assets[64 * n : 64 * n + 64] for n in range(count)]
    for n in np.flatnonzero(rng.random(count) < 0.02):  # the same bytes under another name
        hashes[n] = hashes[n // 2]
    _put(
        corpus,
        OBJECTS,
        {
            "object_id": ids,
            "source": [id.partition("/")[0] for id in ids],
            "source_id": [id.partition("/")[2] for id in ids],
            "asset_uri": [f"/data/assets/{number:032x}.glb" for number in numbers],
            "asset_format": ["glb"] * count,
            "asset_sha256": hashes,
            "asset_bytes": rng.lognormal(14, 1.5, count).astype(np.int64),
            "companions": [[]] * count,
            "traits": [["animated"] if one else [] for one in rng.random(count) < 0.05],
            "warnings": [["missing_texture"] if one else [] for one in rng.random(count) < 0.03],
            "name": [f"Thing {number}" for number in numbers],
            "categories": [[f"class {one}"] for one in classes],
            "tags": [["made", f"tag {one % 977}"] for one in classes],
            "license": rng.choice(list(LICENCES), count, p=list(LICENCES.values())),
            "creator": [f"creator {one}" for one in rng.zipf(1.2, count) % 200_000],
        },
    )
    labelled = np.flatnonzero(rng.random(count) < 0.046)
    _put(
        corpus,
        SPLITS,
        {
            "object_id": [ids[n] for n in labelled],
            "split": ["objaverse-lvis"] * len(labelled),
            "label": [f"class {classes[n]}" for n in labelled],
        },
    )
    failed = np.flatnonzero(rng.random(count) < FAILED)
    why = [one.split(": ") for one in rng.choice(list(FAILED_ON), len(failed), p=list(FAILED_ON.values()))]
    _put(
        corpus,
        FAILURES,
        {
            "object_id": [ids[n] for n in failed],
            "stage": [stage for stage, _ in why],
            "reason": [reason for _, reason in why],
            "message": [f"{ids[n]} was not done" for n in failed],
            "log_tail": ["a line of a log\n" * 40] * len(failed),
            "attempts": [1] * len(failed),
        },
    )
    return ids, classes


def _embedded(
    corpus: Corpus,
    image: Table,
    text: Table,
    ids: list[str],
    classes: np.ndarray,
    centres: np.ndarray,
    rng: np.random.Generator,
    seen: set[str],
) -> None:
    """Captions, and embeddings of views and of texts that were not embedded yet (`seen`)."""
    dim = centres.shape[1]
    own = centres[classes] + 0.4 * _unit(rng.normal(size=(len(ids), dim)))
    views = _unit(own[:, None] + 0.5 * _unit(rng.normal(size=(len(ids), VIEWS_EACH, dim)))).astype(np.float16)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(views.ravel()), dim)
    lists = pa.ListArray.from_arrays(
        np.arange(0, len(flat) + 1, VIEWS_EACH, dtype=np.int32), flat, type=image.schema.field("embedding").type
    )
    _put(corpus, image, {"object_id": ids, "embedding": lists, "dtype": ["float32"] * len(ids)})
    new: dict[str, tuple[str, int]] = {}
    rows: dict[str, list] = {name: [] for name in ("object_id", "origin", "caption", "stage", "text", "text_sha256", "model")}
    for origin, model in ORIGINS.items():
        words = WORDS[rng.integers(len(WORDS), size=(len(ids), 16))]
        lengths = np.minimum(1 + rng.poisson(3 if origin == "metadata" else 9, len(ids)), 16)
        texts = [f"class {one} {' '.join(some[:length])}" for one, some, length in zip(classes, words, lengths, strict=True)]
        hashes = [hashlib.sha256(one.encode()).hexdigest() for one in texts]
        new.update((key, (one, n)) for n, (key, one) in enumerate(zip(hashes, texts, strict=True)) if key not in seen)
        rows["object_id"] += ids
        rows["origin"] += [origin] * len(ids)
        rows["stage"] += [f"caption-{origin}"] * len(ids)
        rows["caption"] += [0] * len(ids)
        rows["text"] += texts
        rows["text_sha256"] += hashes
        rows["model"] += [model or "name"] * len(ids)
    dropped = rng.random(len(rows["text"])) < 0.1
    because = np.where(dropped, np.where(rng.random(len(dropped)) < 0.5, "file_name", "duplicate"), None)
    _put(corpus, CAPTIONS, rows | {"kept": ~dropped, "dropped_because": because.tolist()})
    seen.update(new)
    vectors = _unit(own[[n for _, n in new.values()]] + 0.5 * _unit(rng.normal(size=(len(new), dim))))
    texts = [one for one, _ in new.values()]
    _put(corpus, text, {"text_sha256": list(new), "text": texts, "embedding": _rows(vectors), "dtype": ["float32"] * len(new)})


def _points(ids: list[str], rng: np.random.Generator) -> dict[str, Any]:
    sides = rng.uniform(0.2, 1, (len(ids), 1, 3))
    xyz = (
        rng.uniform(
            -1,
            1,
            (len(ids), POINTS_PER_OBJECT, 3),
        )
        * sides
    )
    xyz /= np.linalg.norm(xyz, axis=2).max(axis=1)[:, None, None]
    rgb = rng.integers(0, 256, (len(ids), POINTS_PER_OBJECT, 3), dtype=np.uint8)
    return {
        "object_id": ids,
        "xyz": _rows(xyz.astype(np.float16).reshape(len(ids), -1)),
        "rgb": _rows(rgb.reshape(len(ids), -1)),
        "canonical_from_asset": _rows(np.tile(np.eye(4).ravel(), (len(ids), 1))),
        "vertices": rng.lognormal(8, 2, len(ids)).astype(np.int64),
        "faces": rng.lognormal(8.5, 2, len(ids)).astype(np.int64),
        "area": rng.lognormal(1, 0.5, len(ids)),
        "warnings": [["tiny_mesh"] if one else [] for one in rng.random(len(ids)) < 0.02],
    }


def _views(ids: list[str], rng: np.random.Generator, pictures: list[bytes]) -> dict[str, Any]:
    rows = len(ids) * VIEWS_EACH
    measured = {name: rng.beta(2, 6, rows) for name in ("alpha_coverage", "luminance", "color_spread")}
    rare = {
        name: np.where(rng.random(rows) < 0.03, rng.random(rows), 0) for name in ("border_coverage", "dark_share", "bright_share")
    }
    return {
        "object_id": [id for id in ids for _ in range(VIEWS_EACH)],
        "view": np.tile(np.arange(VIEWS_EACH, dtype=np.int32), len(ids)),
        "image": [pictures[n] for n in rng.integers(len(pictures), size=rows)],
        "width": np.full(rows, 224, np.int32),
        "height": np.full(rows, 224, np.int32),
        "intrinsics": _rows(np.tile(np.float32([245, 245, 112, 112]), (rows, 1))),
        "camera_to_world": _rows(np.tile(np.eye(4, dtype=np.float32).ravel(), (rows, 1))),
        "kind": ["rendered"] * rows,
        "rig": ["openshape-12@1"] * rows,
        "view_variance": np.repeat(rng.beta(2, 30, len(ids)), VIEWS_EACH),
        "missing_textures": np.zeros(rows, np.int32),
        "substituted_materials": np.zeros(rows, np.int32),
        "device": ["CPU"] * rows,
        **measured,
        **rare,
    }


def _picture(number: int) -> bytes:
    rng = np.random.default_rng(number)
    picture = Image.new("RGBA", (224, 224))
    ImageDraw.Draw(picture).ellipse((20 + number % 50, 30, 200 - number % 40, 190), (*rng.integers(0, 256, 3).tolist(), 255))
    encoded = io.BytesIO()
    picture.save(encoded, "WEBP", lossless=True)
    return encoded.getvalue()


def _rows(values: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


# ------------------------------------------------------------------------------------------------------------------ the rival


def by_pandas(root: str) -> dict[str, Any]:
    """The counts, the way of a notebook."""
    reader = Reader.at(root)
    objects, captions, failures = (reader.need(table.name).to_table().to_pandas() for table in (OBJECTS, CAPTIONS, FAILURES))
    return {
        "licences": {" ".join(key): int(n) for key, n in objects.groupby(["source", "license"]).size().items()},
        "origins": captions.origin.value_counts().to_dict(),
        "dropped": captions.dropped_because.value_counts().to_dict(),
        "words": int(captions.text[captions.kept].str.split().str.len().sum()),
        "reasons": (failures.stage + ": " + failures.reason).value_counts().to_dict(),
    }


def by_scans(root: str) -> dict[str, Any]:
    """The same counts, the way of the report: its own functions over batches."""
    reader = Reader.at(root)

    def counted(table: Table, *columns: str, glue: str = " ") -> dict[str, int]:
        rows = counts(reader.need(table.name), columns).to_pylist()
        return {glue.join(row[name] for name in columns): row["count"] for row in rows if row[columns[0]] is not None}

    words = 0
    for piece in scanned(reader.need(CAPTIONS.name), ["text"], "kept"):
        words += pc.sum(pc.list_value_length(pc.utf8_split_whitespace(piece["text"]))).as_py()
    return {
        "licences": counted(OBJECTS, "source", "license"),
        "origins": counted(CAPTIONS, "origin"),
        "dropped": counted(CAPTIONS, "dropped_because"),
        "words": words,
        "reasons": counted(FAILURES, "stage", "reason", glue=": "),
    }


# -------------------------------------------------------------------------------------------------------------- the measuring


def measured(*command: str) -> dict[str, Any]:
    """What a child process of `within` printed."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.report", "--within", *command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def within(what: str, root: str, *rest: str) -> dict[str, Any]:
    """Compute one thing in this process: its seconds, and the peak of the process' resident memory, bytes."""
    found = None
    match what:
        case "tables opened":
            began = time.monotonic()
            Reader.at(root).pinned()
        case "packages loaded":
            began = time.monotonic()
            importlib.import_module("jobs.report")
        case "pandas" | "scans":
            count = {"pandas": by_pandas, "scans": by_scans}[what]
            began = time.monotonic()
            found = count(root)
        case "report":
            job = importlib.import_module("jobs.__main__")
            began = time.monotonic()
            job.main(["report", root, *rest])
        case _:
            section = getattr(importlib.import_module(f"reports.{what}"), what)
            began = time.monotonic()
            section(Reader.at(root).pinned())
    seconds = time.monotonic() - began
    [peak] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return {"what": what, "seconds": seconds, "peak": int(peak) * 1024, "found": found}


def main() -> None:
    """Makes the corpus if need be, measures, prints."""
    if sys.argv[1:2] == ["--within"]:
        print(json.dumps(within(*sys.argv[2:])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--part", type=int, default=20_000, help="objects with points and views")
    parser.add_argument("--dim", type=int, default=64, help="numbers of an embedding")
    parser.add_argument("--only", nargs="+", default=[*SECTIONS, "report"], help="sections, and `report`: the whole")
    parser.add_argument("--against", action="store_true", help="also the report against the corpus as it was at half its objects")
    asked = parser.parse_args()
    if wrong := set(asked.only) - {*SECTIONS, "report"}:
        parser.error(f"--only: there is no {', '.join(sorted(wrong))}; there are: {', '.join(SECTIONS)}, report")

    root = asked.folder / f"{asked.objects}-{asked.part}-{asked.dim}"
    if not root.exists():
        began, unfinished = time.monotonic(), root.with_suffix(".part")
        make(unfinished, asked.objects, asked.part, asked.dim)
        unfinished.rename(root)
        print(f"{root}: made in {time.monotonic() - began:.0f} s")
    sizes = {name: Reader.at(str(root)).need(name).count_rows() for name in Reader.at(str(root)).tables()}
    print(", ".join(f"{name} {count:,}" for name, count in sizes.items()))
    print(f"{'':<16} {'seconds':>9} {'peak GB':>9}")

    def line(name: str, one: dict[str, Any]) -> None:
        print(f"{name:<16} {one['seconds']:>9.1f} {one['peak'] / GB:>9.2f}", flush=True)

    for name in ["tables opened", *(name for name in SECTIONS if name in asked.only)]:
        line(name, measured(name, str(root)))
    page = asked.folder / "report.html"
    if "report" in asked.only:
        line("packages loaded", measured("packages loaded", str(root)))
        line("report", measured("report", str(root), "-o", str(page)))
        print(f"{page}: {page.stat().st_size / 1e6:.1f} MB")
    if asked.against:
        version = len(Reader.at(str(root)).need(OBJECTS.name).versions()) // 2
        line("report --against", measured("report", str(root), "-o", str(page), "--against", str(max(version, 3))))
    ours, theirs = measured("scans", str(root)), measured("pandas", str(root))
    line("counts", ours)
    line("counts, pandas", theirs)
    differing = [name for name in theirs["found"] if theirs["found"][name] != ours["found"][name]]
    print(f"both count differently: {', '.join(differing)}" if differing else "both count the same")


if __name__ == "__main__":
    main()
