"""What went wrong, by stage and reason, with examples; and what was odd and did not stop an object."""

import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reports.funnel import by_count, named, positions, sources_of
from reports.portraits import portraits
from reports.sample import chosen
from reports.scans import scanned, spread
from reports.section import Bar, Bars, Case, Cases, Exhibit, Rows, Section, Tile, Tiles
from reports.spreads import percent, share_of
from schemas.corpus import Reader
from schemas.tables import FAILURES, OBJECTS, POINTS

REASONS_SHOWN = 40  # with examples
EXAMPLES = 6  # of each reason
LOG_SHOWN = 4000  # characters of a log, its last ones
PICTURE = 144  # pixels, the longer side of an object's picture
MUCH = 0.05  # of all objects failed for one reason: worth a warning
OF_WARNING = 2  # objects named for each warning
WARNED = {OBJECTS.name: "asset", POINTS.name: "shape"}  # what the warnings of a table are about

Row = dict[str, Any]


def failures(
    corpus: Reader, *, seed: int = 0, reasons_shown: int = REASONS_SHOWN, examples: int = EXAMPLES, of_warning: int = OF_WARNING
) -> Section:
    """The section on failures and warnings: counts by stage and reason, per source, and up to `examples` of each of the
    `reasons_shown` most frequent reasons, drawn by chance from `seed`."""
    table = corpus.open(FAILURES.name)
    everything = named(corpus)
    warned, objects_warned = _warnings(corpus, everything, of_warning, seed)
    # Warnings stand in other tables, and are told whether or not there were failures.
    columns = ["object_id", "stage", "reason", "attempts"]
    pieces = list(scanned(table, columns))
    rows = pa.concat_tables(pieces).combine_chunks() if pieces else pa.table({name: pa.array([], pa.string()) for name in columns})
    of_objects = pc.is_in(rows["stage"], pa.array(sorted(_stages_of_objects(corpus)), pa.string()))
    whys = _by_reason(rows)
    failing = np.zeros(len(everything) + 1, bool)
    failing[positions(rows["object_id"], everything)] = True
    objects = int(failing[:-1].sum())
    figures = {
        "named": len(everything),
        "failures": len(rows),
        "objects": objects,
        "failed_share": share_of(objects, len(everything)),
        "not_of_objects": len(rows) - int(pc.sum(of_objects).as_py() or 0),
        "tried_again": int(pc.sum(pc.greater(rows["attempts"], 1)).as_py()) if len(rows) else 0,
        "reasons": _nested(whys),
        "sources": _by_source(rows.filter(of_objects), everything, failing[:-1]),
        "warned": objects_warned,
        "warned_share": share_of(objects_warned, len(everything)),
        "warnings": {
            of: {row["warning"]: {key: row[key] for key in ("objects", "sources")} for row in warned if row["of"] == of}
            for of in WARNED.values()
        },
    }
    if table is None and corpus.open(OBJECTS.name) is None:
        figures = dict.fromkeys(figures)
    shown = whys[:reasons_shown]
    return Section(
        key="failures",
        title="Failures and warnings",
        lead=_lead(figures, whys),
        figures=figures,
        gates={name: figures[name] for name in ("failed_share", "warned_share")},
        warnings=tuple(_to_look_at(figures, whys)),
        exhibits=tuple(_exhibits(figures, whys, _cases(corpus, rows, shown, examples, seed), warned)),
    )


def _stages_of_objects(corpus: Reader) -> set[str]:
    """Stages whose failures are objects; of the others they are texts or class names."""
    made = [made for table in corpus.tables() for made in corpus.made_by(table).values()]
    return {"ingest"} | {one["stage"] for one in made if one["per"] == "object_id"}


def _by_reason(rows: pa.Table) -> list[Row]:
    """Stage, reason, count, and `rows`: where they stand in the table; the most frequent first."""
    if not len(rows):
        return []
    found = rows.select(["stage", "reason"]).append_column("row", pa.array(np.arange(len(rows))))
    found = found.group_by(["stage", "reason"], use_threads=False).aggregate([("row", "list"), ([], "count_all")])
    found = found.rename_columns(["stage", "reason", "rows", "count"])
    ordered = found.sort_by([("count", "descending"), ("stage", "ascending"), ("reason", "ascending")])
    ids = rows["object_id"].combine_chunks()
    whys = []
    for row in range(len(ordered)):
        why = {name: ordered[name][row].as_py() for name in ("stage", "reason", "count")}
        numbers = ordered["rows"][row].values
        names, source = sources_of(ids.take(numbers))
        whys.append(why | {"rows": numbers, "sources": dict(zip(names, np.bincount(source).tolist(), strict=True))})
    return whys


def _nested(whys: list[Row]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for why in whys:
        found.setdefault(why["stage"], {})[why["reason"]] = why["count"]
    return found


def _by_source(rows: pa.Table, everything: pa.Array, failing: np.ndarray) -> dict[str, Any]:
    """Per source the objects named and failed, and its failures by stage and reason, as `python -m jobs status` counts them."""
    names, source = sources_of(everything)
    found = {
        name: {"named": int((source == number).sum()), "objects": int((failing & (source == number)).sum()), "failures": {}}
        for number, name in enumerate(names)
    }
    for why in _by_reason(rows):
        for name, count in why["sources"].items():
            if name in found:
                found[name]["failures"][f"{why['stage']}: {why['reason']}"] = count
    return found


def _warnings(corpus: Reader, everything: pa.Array, of_warning: int, seed: int) -> tuple[list[Row], int]:
    """The warnings of assets and shapes: how many objects have each, of which sources, and a few of their ids; and how many objects
    have any."""
    found, warned = [], np.zeros(len(everything) + 1, bool)
    for table, of in WARNED.items():
        where = "array_length(warnings) > 0"
        pieces = [spread(piece) for piece in scanned(corpus.open(table), ["object_id", "warnings"], where)]
        if not pieces:
            continue
        rows = pa.concat_tables(pieces).combine_chunks()
        warned[positions(rows["object_id"], everything)] = True
        for warning in pc.unique(rows["warnings"]).to_pylist():
            ids = rows["object_id"].filter(pc.equal(rows["warnings"], warning)).combine_chunks()
            names, source = sources_of(ids)
            counts = dict(zip(names, np.bincount(source).tolist(), strict=True))
            some = chosen(ids, of_warning, seed=seed).to_pylist()
            found.append({"warning": warning, "of": of, "objects": len(ids), "sources": counts, "some": some})
    return sorted(found, key=lambda row: (-row["objects"], row["warning"])), int(warned[:-1].sum())


def _cases(corpus: Reader, rows: pa.Table, whys: list[Row], examples: int, seed: int) -> list[Cases]:
    """Examples of each reason, the same ones for the same seed."""
    ids = rows["object_id"].combine_chunks() if len(rows) else pa.array([], pa.string())
    drawn = []
    for why in whys:
        own = ids.take(why["rows"])
        drawn.append(why["rows"].take(pc.index_in(chosen(own, examples, seed=seed), own)).to_pylist())
    places = sorted(place for some in drawn for place in some)
    if not places:
        return []
    full = dict(zip(places, corpus.need(FAILURES.name).take(places).to_pylist(), strict=True))
    without = pa.array([row["object_id"] for row in full.values() if row.get("thumbnail") is None], pa.string())
    seen = portraits(corpus, pc.unique(without), side=PICTURE)
    return [
        Cases(
            title=f"{why['stage']}: {why['reason']}",
            count=why["count"],
            cases=tuple(_case(corpus.root, full[place], seen) for place in some),
            note=f"{by_count(why['sources'])}. The command forgets them all; the next build tries them again.",
        )
        for why, some in zip(whys, drawn, strict=True)
    ]


def _case(root: str, row: Row, seen: dict[str, bytes]) -> Case:
    tried = f" (Tried {row['attempts']} times.)" if row["attempts"] > 1 else ""
    return Case(
        head=row["object_id"],
        text=row["message"] + tried,
        picture=row.get("thumbnail") or seen.get(row["object_id"]),
        log=row["log_tail"][-LOG_SHOWN:] if row["log_tail"] else None,
        command=retry(root, row["stage"], row["reason"]),
    )


def retry(root: str, stage: str, reason: str) -> str:
    """What to type to have the objects tried again that a stage failed on for a reason."""
    return shlex.join(["python", "-m", "jobs", "retry", root, "--stage", stage, "--reason", reason])


def _lead(figures: Row, whys: list[Row]) -> str:
    if figures["named"] is None:
        return "There is no table of failures, and none of objects: this is no corpus yet."
    said = "No stage failed on anything."
    if whys:
        share = f" ({percent(figures['failed_share'])})" if figures["failed_share"] else ""
        said = f"{figures['objects']:,} of {figures['named']:,} objects{share} have a failure. "
        often = f"{whys[0]['stage']}: {whys[0]['reason']}"
        said += f"Most frequent of {len(whys):,} kinds: {often}, {whys[0]['count']:,} of {figures['failures']:,} failures."
    return f"{said} {figures['warned']:,} objects have a warning." if figures["warned"] else said


def _to_look_at(figures: Row, whys: list[Row]) -> Iterator[str]:
    for why in whys:
        if figures["named"] and why["count"] > MUCH * figures["named"]:
            yield f"{why['stage']} failed on {why['count']:,} of {figures['named']:,} for one reason: {why['reason']}."


def _exhibits(figures: Row, whys: list[Row], cases: list[Cases], warned: list[Row]) -> Iterator[Exhibit]:
    if figures["named"] is None:
        return
    share = f"{percent(figures['failed_share'] or 0)} of all that are named"
    tiles = [Tile("objects with a failure", f"{figures['objects']:,}", share, "bad" if figures["objects"] else "good")]
    tiles.append(Tile("failures", f"{figures['failures']:,}", f"of {len(whys):,} kinds" if whys else ""))
    if figures["not_of_objects"]:
        tiles.append(Tile("of texts or class names", f"{figures['not_of_objects']:,}"))
    if figures["tried_again"]:
        tiles.append(Tile("tried more than once", f"{figures['tried_again']:,}"))
    yield Tiles((*tiles, Tile("objects with a warning", f"{figures['warned']:,}", "made all the same")))
    if whys:
        yield _bars(whys)
        yield Rows(
            title="Failures by source",
            head=("source", "objects named", "with a failure", "%", "most frequent"),
            rows=tuple(
                (source, one["named"], one["objects"], round(100 * one["objects"] / one["named"], 1), by_count(one["failures"], 3))
                for source, one in figures["sources"].items()
            ),
        )
        yield from cases
    if warned:
        yield Rows(
            title="Warnings",
            head=("warning", "about the", "objects", "%", "of which sources", "such as"),
            rows=tuple(
                (
                    row["warning"],
                    row["of"],
                    row["objects"],
                    round(100 * row["objects"] / figures["named"], 1),
                    by_count(row["sources"]),
                    ", ".join(row["some"]),
                )
                for row in warned
            ),
            note="What was found to be odd and did not stop the object. Of assets: their files and metadata. Of shapes: the mesh.",
        )


def _bars(whys: list[Row]) -> Bars:
    rest = whys[REASONS_SHOWN:]
    return Bars(
        title="Failures by reason",
        unit="failures",
        bars=tuple(Bar(f"{why['stage']}: {why['reason']}", why["count"]) for why in whys[:REASONS_SHOWN]),
        left_out=(len(rest), sum(why["count"] for why in rest)),
    )
