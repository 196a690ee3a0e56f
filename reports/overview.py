"""What a corpus is: its sources, what it holds, whose embeddings, and the settings that made each table."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc

from reports.funnel import by_count
from reports.scans import counts, scanned
from reports.section import Bar, Bars, Exhibit, Rows, Section, Tile, Tiles
from reports.storage import size_text
from schemas.corpus import EMBEDDINGS, CorpusError, Reader
from schemas.tables import CAPTIONS, OBJECTS, POINTS, RUNS, VIEWS

HASH_SHOWN = 12  # digits
ROAD = (OBJECTS.name, VIEWS.name, POINTS.name, CAPTIONS.name)  # these tables first, the others by name


def overview(corpus: Reader) -> Section:
    """The section on what this corpus is."""
    names = sorted(corpus.tables(), key=lambda name: (ROAD.index(name) if name in ROAD else len(ROAD), name))
    tables = {name: _table(corpus, name) for name in names}
    teachers, warnings = _teachers(corpus, tables)
    runs = corpus.open(RUNS.name)
    run_by = [] if runs is None else runs.to_table(columns=["began", "tricorpus", "python"]).to_pylist()
    changed = [table["changed"] for table in tables.values()]
    began = [run["began"].astimezone(UTC).isoformat(timespec="seconds") for run in run_by]
    captions = corpus.open(CAPTIONS.name)
    figures = {
        "objects": tables[OBJECTS.name]["rows"] if OBJECTS.name in tables else None,
        "asset_bytes": _asset_bytes(corpus),
        "views": tables[VIEWS.name]["rows"] if VIEWS.name in tables else None,
        "clouds": tables[POINTS.name]["rows"] if POINTS.name in tables else None,
        "kept_captions": None if captions is None else captions.count_rows(filter="kept"),
        "began": min(began + [table["oldest_kept"] for table in tables.values()], default=None),
        "changed": max(changed, default=None),
        "made_with": sorted({f"tricorpus {run['tricorpus'] or '?'}, Python {run['python']}" for run in run_by}) or None,
        "sources": _sources(corpus),
        "teachers": teachers,
        "tables": tables,
    }
    return Section(
        key="overview",
        title="What this corpus is",
        lead=_lead(figures),
        figures=figures,
        gates={"objects": figures["objects"], "kept_captions": figures["kept_captions"]},
        warnings=warnings,
        exhibits=tuple(_exhibits(figures)) if tables else (),
    )


def _table(corpus: Reader, name: str) -> dict[str, Any]:
    dataset = corpus.need(name)
    current = dataset.get_version()
    return {
        "rows": dataset.count_rows(),
        "version": current["version"],
        "changed": _utc(current["timestamp"]),
        "oldest_kept": _utc(min(version["timestamp"] for version in dataset.versions())),
        "made_by": corpus.made_by(name),
    }


def _utc(naive: datetime) -> str:
    """A time as Lance gives it (this machine's own) in UTC."""
    return naive.astimezone(UTC).isoformat(timespec="seconds")


def _asset_bytes(corpus: Reader) -> int | None:
    objects = corpus.open(OBJECTS.name)
    return None if objects is None else sum(pc.sum(piece[0]).as_py() for piece in scanned(objects, ["asset_bytes"]))


def _sources(corpus: Reader) -> dict[str, Any] | None:
    """Objects of each source, the largest first, and the formats of their assets."""
    objects = corpus.open(OBJECTS.name)
    if objects is None:
        return None
    found: dict[str, Any] = {}
    for row in counts(objects, ["source", "asset_format"]).to_pylist():
        source = found.setdefault(row["source"], {"objects": 0, "formats": {}})
        source["objects"] += row["count"]
        source["formats"][row["asset_format"]] = row["count"]
    return dict(sorted(found.items(), key=lambda pair: (-pair[1]["objects"], pair[0])))


def _teachers(corpus: Reader, tables: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """By a teacher's name: who it is, as its tables say (nothing where they were imported: the files do not know), and how much it
    has embedded; and what is wrong with them."""
    found, wrong = {}, []
    for name in sorted({name.partition("/")[2] for name in tables if name.partition("/")[0] in EMBEDDINGS}):
        try:
            identity = corpus.teacher_of(name) or {}
        except CorpusError as error:
            identity, wrong = {}, [*wrong, str(error)]
        rows = {kind: tables[f"{kind}/{name}"]["rows"] if f"{kind}/{name}" in tables else None for kind in EMBEDDINGS}
        prompts = {
            made["settings"].get("prompts") for made in tables.get(f"class_embeddings/{name}", {"made_by": {}})["made_by"].values()
        }
        known = ("weights_sha256", "dim", "image_size", "resize_mode", "interpolation")
        found[name] = (
            {key: identity.get(key) for key in known} | {"prompts": ", ".join(sorted(filter(None, prompts))) or None} | rows
        )
    return found, tuple(wrong)


def _lead(figures: dict[str, Any]) -> str:
    if figures["objects"] is None:
        return "There is no table of objects: this is no corpus yet."
    held = [
        _count(figures["views"], "view"),
        _count(figures["clouds"], "point cloud"),
        _count(figures["kept_captions"], "caption to train on", "captions to train on"),
    ]
    names = list(figures["sources"])
    of = f" of {_listed(names)}" if names else ""
    teachers = f", embedded by {_listed(list(figures['teachers']))}" if figures["teachers"] else ", not embedded by any teacher"
    return (
        f"{_count(figures['objects'], 'object')}{of}: {', '.join(filter(None, held)) or 'neither views nor points nor captions'}"
        f"{teachers}. Last changed on {_day(figures['changed'])}."
    )


def _exhibits(figures: dict[str, Any]) -> Iterator[Exhibit]:
    if figures["objects"] is not None:
        yield _tiles(figures)
        yield Bars(
            title="Objects by source",
            unit="objects",
            bars=tuple(Bar(name, one["objects"], by_count(one["formats"])) for name, one in figures["sources"].items()),
            note="Beside each its assets' formats.",
        )
    if figures["teachers"]:
        yield Rows(
            title="Teachers",
            head=("teacher", "weights (SHA-256)", "dim", "picture px", "objects", "texts", "class names", "prompts"),
            rows=tuple(
                (
                    name,
                    one["weights_sha256"][:HASH_SHOWN] if one["weights_sha256"] else "not known: imported",
                    one["dim"],
                    one["image_size"],
                    *(one[kind] for kind in EMBEDDINGS),
                    one["prompts"],
                )
                for name, one in figures["teachers"].items()
            ),
        )
    yield Rows(
        title="Tables",
        head=("table", "rows", "version", "last changed (UTC)", "made by"),
        rows=tuple(
            (
                name,
                one["rows"],
                one["version"],
                _minute(one["changed"]),
                ", ".join(f"{s} {m['version']}" for s, m in one["made_by"].items()),
            )
            for name, one in figures["tables"].items()
        ),
        note=f"Made by: the stages, and the version of each one's code. {_made_with(figures)} The oldest trace of it here is of "
        f"{_day(figures['began'])}.",
    )
    yield Rows(
        title="Settings that made each table",
        head=("table", "stage", "setting", "value"),
        rows=tuple(
            (table, stage, setting, value)
            for table, one in figures["tables"].items()
            for stage, made in one["made_by"].items()
            for setting, value in flat({key: made[key] for key in made if key != "stage"})
        ),
        folded=True,
        note="A changed setting makes the rows anew that depend on it, and no others.",
    )


def flat(settings: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Settings as dotted names and values in JSON, texts without quotes; lists of texts with commas between them."""
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{above}{name}.")
        elif isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            yield f"{above}{name}", ", ".join(value)
        else:
            yield f"{above}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _tiles(figures: dict[str, Any]) -> Tiles:
    names = {"views": "views", "clouds": "point clouds", "kept_captions": "captions to train on"}
    return Tiles(
        (
            Tile("objects", f"{figures['objects']:,}", f"{size_text(figures['asset_bytes'])} of assets"),
            Tile("sources", f"{len(figures['sources']):,}"),
            *(Tile(label, "none" if figures[name] is None else f"{figures[name]:,}") for name, label in names.items()),
            Tile("teachers", f"{len(figures['teachers']):,}"),
        )
    )


def _made_with(figures: dict[str, Any]) -> str:
    return f"Run by {_listed(figures['made_with'])}." if figures["made_with"] else "What ran them is not known."


def _count(number: int | None, one: str, several: str | None = None) -> str:
    return "" if number is None else f"{number:,} {one if number == 1 else several or one + 's'}"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _day(time: str) -> str:
    return time[:10]


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")
