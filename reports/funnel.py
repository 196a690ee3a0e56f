"""From what the sources name to objects that are complete: how many reach each step, and why each of the others does not.

An object reaches a step when it has what that step and all before it ask for. One that does not is lost at the first step that it
lacks something of, for one reason:
    failed      a stage that makes it failed: the stage and FAILURES' reason; of several stages, the first by name
    dropped     it has captions, none of which is kept: for which reason, or for several
    not_taken   the stages that have run so far leave such assets alone: the asset's format
    not_done    none of these: no run has come to it yet, or it was stopped
so that the losses of all steps and the complete objects add up to the objects named. Complete means the same as in `python -m jobs
status`: an asset, pictures (views, or what a teacher said of them), points, a kept caption, and embeddings of every teacher.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int

from reports.scans import scanned
from reports.section import Bar, Bars, Exhibit, Rows, Section, Tile, Tiles
from reports.spreads import percent, share_of
from schemas.corpus import Reader, any_of
from schemas.tables import CAPTIONS, FAILURES, OBJECTS, POINTS, VIEWS

KINDS = {
    "failed": "a stage failed",
    "dropped": "no caption is kept",
    "not_taken": "no stage that has run takes it",
    "not_done": "not done yet",
}
SEVERAL = "several reasons"
ASKED_FOR = {  # what the steps ask for, in words
    "ingested": "ingested",
    "pictures": "pictures",
    "points": "points",
    "kept_caption": "a kept caption",
    "image_embeddings": "pictures embedded",
    "text_embeddings": "captions embedded",
}

# Kind, stage and reason ("" where there is none).
Why = tuple[str, str, str]


@dataclass(frozen=True)
class Step:
    """What an object must have. `having` (n): which of the objects have it, whatever else they lack; `tables`: any of which gives
    it."""

    name: str
    having: Bool[np.ndarray, " n"]
    tables: tuple[str, ...]


def funnel(corpus: Reader) -> Section:
    """The section on what is complete and what is lost where, per source."""
    title = "From named to complete"
    if corpus.open(OBJECTS.name) is None:
        names = ("named", "complete", "complete_share", "lost", "lost_to_failure_share", "not_done_share")
        figures = dict.fromkeys((*names, "lacking", "steps", "sources"))
        lead = "There is no table of objects: this is no corpus yet."
        return Section(key="funnel", title=title, lead=lead, figures=figures, gates=_gates(figures))
    everything = named(corpus)
    sources, source = sources_of(everything)
    reached = [np.ones(len(everything), bool)]
    losses: list[dict[Why, Int[np.ndarray, " sources"]]] = []  # per step, how many of each source
    steps = list(steps_of(corpus, everything))
    for step in steps:
        lost = reached[-1] & ~step.having
        losses.append(_counted(corpus, everything, step, lost, source, len(sources)))
        reached.append(reached[-1] & step.having)
    by_step = [np.bincount(source[mask], minlength=len(sources)) for mask in reached]
    figures = _figures(sources, steps, by_step, losses)
    exhibits = _exhibits(sources, steps, by_step, losses, figures)
    return Section(key="funnel", title=title, lead=_lead(figures), figures=figures, gates=_gates(figures), exhibits=tuple(exhibits))


def labels(steps: list[Step]) -> dict[str, str]:
    """How a person calls the steps, by their names; a teacher is named where there are several."""
    teachers = {step.name.partition("/")[2] for step in steps} - {""}
    found = {}
    for step in steps:
        kind, _, teacher = step.name.partition("/")
        found[step.name] = f"{ASKED_FOR[kind]}, {teacher}" if len(teachers) > 1 and teacher else ASKED_FOR[kind]
    return found


def named(corpus: Reader) -> pa.Array:
    """Ids of all objects that the sources name: those that were ingested, and those that ingesting failed on."""
    ids = [piece["object_id"] for piece in scanned(corpus.open(OBJECTS.name), ["object_id"])]
    makers = any_of("stage", {*corpus.made_by(OBJECTS.name), "ingest"})
    ids += [piece["object_id"] for piece in scanned(corpus.open(FAILURES.name), ["object_id"], makers)]
    return pc.unique(pa.chunked_array([chunk for one in ids for chunk in one.chunks], pa.string()))


def sources_of(ids: pa.Array) -> tuple[list[str], Int[np.ndarray, " n"]]:
    """The sources that objects are of, by name, and for each object the number of its own."""
    found = pc.list_element(pc.split_pattern(ids, "/", max_splits=1), 0).dictionary_encode()
    names = found.dictionary.to_pylist()
    rank = np.argsort(np.argsort(names)) if names else np.empty(0, np.int64)
    return sorted(names), rank[found.indices.to_numpy()]


def positions(ids: pa.Array | pa.ChunkedArray, everything: pa.Array) -> Int[np.ndarray, " m"]:
    """Where these ids stand among all; -1: nowhere."""
    return pc.fill_null(pc.index_in(ids, everything), -1).to_numpy()


def having(corpus: Reader, table: str, everything: pa.Array, where: str | None = None) -> Bool[np.ndarray, " n"]:
    """Which of the objects have a row in a table."""
    found = np.zeros(len(everything) + 1, bool)  # the last one: those that are none of them
    for piece in scanned(corpus.open(table), ["object_id"], where):
        found[positions(pc.unique(piece["object_id"]), everything)] = True
    return found[:-1]


def steps_of(corpus: Reader, everything: pa.Array) -> Iterator[Step]:
    """The steps, in the order of the road."""
    tables = corpus.tables()
    pictures = [name for name in tables if name.startswith("image_embeddings/")]
    embedded = {name: having(corpus, name, everything) for name in pictures}
    pictured = having(corpus, VIEWS.name, everything)
    for mask in embedded.values():  # an import brings embeddings of views that it does not have
        pictured = pictured | mask
    yield Step("ingested", having(corpus, OBJECTS.name, everything), (OBJECTS.name,))
    yield Step("pictures", pictured, (VIEWS.name, *pictures))
    yield Step("points", having(corpus, POINTS.name, everything), (POINTS.name,))
    yield Step("kept_caption", having(corpus, CAPTIONS.name, everything, "kept"), (CAPTIONS.name,))
    for name, mask in embedded.items():
        yield Step(name, mask, (name,))
    for name in tables:
        if name.startswith("text_embeddings/"):
            yield Step(name, _with_text_in(corpus, name, everything), (name,))


def _with_text_in(corpus: Reader, table: str, everything: pa.Array) -> Bool[np.ndarray, " n"]:
    """Which objects have a kept caption that is embedded."""
    texts = pa.chunked_array([c for piece in scanned(corpus.open(table), ["text_sha256"]) for c in piece[0].chunks], pa.string())
    found = np.zeros(len(everything) + 1, bool)
    for piece in scanned(corpus.open(CAPTIONS.name), ["object_id", "text_sha256"], "kept"):
        there = piece["object_id"].filter(pc.is_in(piece["text_sha256"], texts))
        found[positions(pc.unique(there), everything)] = True
    return found[:-1]


def _counted(
    corpus: Reader, everything: pa.Array, step: Step, lost: Bool[np.ndarray, " n"], source: Int[np.ndarray, " n"], sources: int
) -> dict[Why, Int[np.ndarray, " sources"]]:
    """Why the objects lost at a step are lost, the most frequent first."""
    if not lost.any():
        return {}
    whys: list[Why] = [("not_done", "", "")]
    why = np.zeros(len(everything), np.int64)
    # What is said later holds: a failure says most.
    for kind in (_not_taken, _dropped, _failed):
        for one, objects in kind(corpus, everything, step):
            why[objects] = len(whys)
            whys.append(one)
    found = np.bincount(why[lost] * sources + source[lost], minlength=len(whys) * sources).reshape(len(whys), sources)
    order = np.argsort(-found.sum(1), kind="stable")
    return {whys[number]: found[number] for number in order if found[number].any()}


Explained = Iterator[tuple[Why, Int[np.ndarray, " m"]]]


def _not_taken(corpus: Reader, everything: pa.Array, step: Step) -> Explained:
    """Assets that no stage takes which made one of the step's tables from OBJECTS."""
    makers = [made for table in step.tables for made in corpus.made_by(table).values() if made["reads"] == OBJECTS.name]
    if not makers or any(made["where"] is None for made in makers):
        return
    where = " AND ".join(f"NOT ({made['where']})" for made in makers)
    formats: dict[str, list[np.ndarray]] = {}
    for piece in scanned(corpus.open(OBJECTS.name), ["object_id", "asset_format"], where):
        for one in pc.unique(piece["asset_format"]).to_pylist():
            ids = piece["object_id"].filter(pc.equal(piece["asset_format"], one))
            formats.setdefault(one, []).append(positions(ids, everything))
    for one, found in sorted(formats.items()):
        yield ("not_taken", "", one), np.concatenate(found)


def _dropped(corpus: Reader, everything: pa.Array, step: Step) -> Explained:
    """Objects by why their captions are dropped."""
    if step.name != "kept_caption":
        return
    reasons: list[str] = []
    first = np.full(len(everything) + 1, np.iinfo(np.int64).max)
    last = np.full(len(everything) + 1, -1)
    for piece in scanned(corpus.open(CAPTIONS.name), ["object_id", "dropped_because"], "NOT kept"):
        said = pc.unique(piece["dropped_because"]).to_pylist()
        reasons += [reason for reason in said if reason not in reasons]
        codes = pc.index_in(piece["dropped_because"], pa.array(reasons)).to_numpy()
        objects = positions(piece["object_id"], everything)
        np.minimum.at(first, objects, codes)
        np.maximum.at(last, objects, codes)
    for code, reason in enumerate(reasons):
        yield ("dropped", "", reason), np.flatnonzero(first[:-1] == code)
    yield ("dropped", "", SEVERAL), np.flatnonzero((first < last)[:-1])  # said later, so it holds


def _failed(corpus: Reader, everything: pa.Array, step: Step) -> Explained:
    """Objects that the stages failed on which make the step's tables, or on a text of theirs, by stage and reason."""
    failures = corpus.open(FAILURES.name)
    for table in reversed(step.tables):  # a later one's reason gives way to that of the table which is asked for
        stages = corpus.made_by(table).keys() | ({"ingest"} if table == OBJECTS.name else set())
        pieces = list(scanned(failures, ["object_id", "stage", "reason"], any_of("stage", stages))) if stages else []
        if not pieces:
            continue
        rows = pa.concat_tables(pieces)
        whys = (
            rows.group_by(["stage", "reason"], use_threads=False)
            .aggregate([])
            .sort_by([("stage", "ascending"), ("reason", "ascending")])
        )
        keys = pc.binary_join_element_wise(rows["stage"], rows["reason"], "\0")
        codes = pc.index_in(keys, pc.binary_join_element_wise(whys["stage"], whys["reason"], "\0").combine_chunks()).to_numpy()
        first = np.full(len(everything) + 1, len(whys))
        if table.startswith("text_embeddings/"):
            for piece in scanned(corpus.open(CAPTIONS.name), ["object_id", "text_sha256"], "kept"):
                which = positions(piece["text_sha256"], rows["object_id"].combine_chunks())
                objects = positions(piece["object_id"].filter(pa.array(which >= 0)), everything)
                np.minimum.at(first, objects, codes[which[which >= 0]])
        else:
            np.minimum.at(first, positions(rows["object_id"], everything), codes)
        for code, row in enumerate(whys.to_pylist()):
            yield ("failed", row["stage"], row["reason"]), np.flatnonzero(first[:-1] == code)


def _figures(
    sources: list[str],
    steps: list[Step],
    by_step: list[Int[np.ndarray, " sources"]],
    losses: list[dict[Why, Int[np.ndarray, " sources"]]],
) -> dict[str, Any]:
    named, complete = int(by_step[0].sum()), int(by_step[-1].sum())
    lost = {kind: sum(int(n.sum()) for step in losses for why, n in step.items() if why[0] == kind) for kind in KINDS}
    return {
        "named": named,
        "complete": complete,
        "complete_share": share_of(complete, named),
        "lost": lost,
        "lost_to_failure_share": share_of(lost["failed"], named),
        "not_done_share": share_of(lost["not_done"], named),
        "lacking": {step.name: int((~step.having).sum()) for step in steps},
        "steps": {
            step.name: {
                "reached": int(there.sum()),
                "lost": int((before - there).sum()),
                "losses": {_words(why): int(n.sum()) for why, n in lost_there.items()},
            }
            for step, before, there, lost_there in zip(steps, by_step, by_step[1:], losses, strict=False)
        },
        "sources": {
            source: {
                "named": int(by_step[0][number]),
                "complete": int(by_step[-1][number]),
                "complete_share": float(by_step[-1][number] / by_step[0][number]),
                "reached": {step.name: int(there[number]) for step, there in zip(steps, by_step[1:], strict=True)},
                "losses": {
                    step.name: {_words(why): int(n[number]) for why, n in lost_there.items() if n[number]}
                    for step, lost_there in zip(steps, losses, strict=True)
                    if any(n[number] for n in lost_there.values())
                },
            }
            for number, source in enumerate(sources)
        },
    }


def _gates(figures: dict[str, Any]) -> dict[str, float | None]:
    return {name: figures[name] for name in ("complete_share", "lost_to_failure_share", "not_done_share")}


def _words(why: Why) -> str:
    """Kind, stage and reason in one: "failed: render: timeout"; the name of a loss among the figures."""
    return ": ".join(filter(None, why))


def _lead(figures: dict[str, Any]) -> str:
    if not figures["named"]:
        return "The sources name no object."
    whole = f"{figures['complete']:,} of {figures['named']:,} objects that the sources name are complete"
    lost = [f"{count:,} {_KIND_OF_LOSS[kind]}" for kind, count in figures["lost"].items() if count]
    share = f" ({percent(figures['complete_share'])})" if lost else ""
    return f"{whole}{share}; of the others {', '.join(lost)}." if lost else f"{whole}: none is lost."


_KIND_OF_LOSS = {
    "failed": "failed",
    "dropped": "have no caption that is kept",
    "not_taken": "are of a kind that no stage has been run for",
    "not_done": "are not done yet",
}


def _exhibits(
    sources: list[str],
    steps: list[Step],
    by_step: list[Int[np.ndarray, " sources"]],
    losses: list[dict[Why, Int[np.ndarray, " sources"]]],
    figures: dict[str, Any],
) -> Iterator[Exhibit]:
    if not figures["named"]:
        return
    whole, called = figures["named"], labels(steps)
    tone = "good" if figures["complete"] == whole else "plain"
    yield Tiles(
        (
            Tile("named by the sources", f"{whole:,}"),
            Tile("complete", percent(figures["complete_share"]), f"{figures['complete']:,} objects", tone),
            *(
                Tile(KINDS[kind], f"{count:,}", f"{percent(count / whole)} of all", "bad" if kind == "failed" else "plain")
                for kind, count in figures["lost"].items()
                if count
            ),
        )
    )
    bars = [Bar("named by the sources", whole)]
    for step in steps:
        there = figures["steps"][step.name]
        bars.append(Bar(called[step.name], there["reached"], f"{there['lost']:,} lost here" if there["lost"] else ""))
    yield Bars(
        title="Objects that reach each step",
        unit="objects",
        bars=tuple(bars),
        of=whole,
        note="An object reaches a step when it has what this step and all above it ask for; after the last it is complete.",
    )
    yield Rows(
        title="By source",
        head=("source", "named", *(called[step.name] for step in steps), "complete %"),
        rows=tuple(
            (source, *(int(there[number]) for there in by_step), round(100 * by_step[-1][number] / by_step[0][number], 1))
            for number, source in enumerate(sources)
        ),
    )
    if any(losses):
        yield Rows(
            title="Every loss",
            head=("lost at", "because", "objects", "% of all", "of which sources"),
            rows=tuple(
                (
                    called[step.name],
                    _because(why),
                    int(n.sum()),
                    round(100 * int(n.sum()) / whole, 1),
                    by_count(dict(zip(sources, n.tolist(), strict=True))),
                )
                for step, there in zip(steps, losses, strict=True)
                for why, n in there.items()
            ),
            note="Each object is lost once, at the first step that it lacks something of; with the complete ones these are all.",
        )
    if any(figures["lacking"].values()):
        yield Rows(
            title="What objects lack",
            head=("what", "objects without it"),
            rows=tuple((called[step.name], figures["lacking"][step.name]) for step in steps if figures["lacking"][step.name]),
            folded=True,
            note="Whatever else they lack: an object may count in several rows.",
        )


def _because(why: Why) -> str:
    kind, stage, reason = why
    said = {
        "failed": f"{stage} failed: {reason}",
        "dropped": f"captions dropped: {reason}",
        "not_taken": f"no stage that has run takes {reason}",
    }
    return said.get(kind, KINDS[kind])


def by_count(counts: dict[str, int], most: int = 8) -> str:
    """Names with their counts, the largest first: "objaverse 3, abo 1"; beyond `most`, how many more there are."""
    ordered = sorted(((name, count) for name, count in counts.items() if count), key=lambda pair: (-pair[1], pair[0]))
    said = [f"{name} {count:,}" for name, count in ordered[:most]]
    return ", ".join([*said, f"{len(ordered) - most:,} more"] if len(ordered) > most else said)
