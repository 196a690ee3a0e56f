"""How far a corpus is: per stage what is done, still to do and failed, as its tables say it."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.run import State, todo_of_table
from pipeline.stage import Row
from pipeline.store import Corpus, quote
from schemas.corpus import any_of
from schemas.tables import CAPTIONS, FAILURES, OBJECTS, POINTS, VIEWS


@dataclass(frozen=True)
class StageStatus:
    """One stage. `todo`: None where only the source itself could tell (ingest). `reasons`: failures by reason."""

    stage: str
    table: str
    done: int
    todo: int | None
    failed: int
    reasons: dict[str, int] = field(default_factory=dict)


# The order of the road; tables of teachers come after, by name.
_ORDER = [OBJECTS.name, VIEWS.name, POINTS.name, CAPTIONS.name]


def status(corpus: Corpus) -> list[StageStatus]:
    """Every stage that has been started, judged by the settings its table was last made with."""
    names = [name for name in corpus.tables() if name != FAILURES.name]
    names.sort(key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))
    return [_of_stage(corpus, name, made_by) for name in names for made_by in corpus.made_by(name).values()]


@dataclass(frozen=True)
class SourceStatus:
    """The objects of one source: how many it names, how many are complete, how many failed, by stage and reason, and how many have
    which warning, of the asset or of its shape."""

    objects: int
    complete: int
    failed: dict[str, int]
    warnings: dict[str, int]


@dataclass(frozen=True)
class Completeness:
    """`objects` that the sources name, those of them that are `complete`, how many lack what, and the same per source."""

    objects: int
    complete: int
    lacking: dict[str, int]
    sources: dict[str, SourceStatus]


def completeness(corpus: Corpus) -> Completeness:
    """How many objects have all there is to have: pictures (views, or what a teacher said of them), points, a kept caption, and
    embeddings of every teacher."""

    def column(table: str, name: str = "object_id", where: str | None = None) -> set[str]:
        dataset = corpus.open(table)
        return set() if dataset is None else set(dataset.to_table(columns=[name], filter=where)[name].to_pylist())

    failures = corpus.open(FAILURES.name)
    failed = [] if failures is None else failures.to_table(columns=["object_id", "stage", "reason"]).to_pylist()
    warned = [
        row
        for dataset in (corpus.open(OBJECTS.name), corpus.open(POINTS.name))
        if dataset is not None
        for row in dataset.to_table(columns=["object_id", "warnings"]).to_pylist()
    ]
    having = {"an asset": column(OBJECTS.name), "views": column(VIEWS.name), "points": column(POINTS.name)}
    makes_objects = corpus.made_by(OBJECTS.name).keys() | {"ingest"}
    everything = having["an asset"] | {row["object_id"] for row in failed if row["stage"] in makes_objects}
    having["a kept caption"] = column(CAPTIONS.name, where="kept")
    captions = corpus.open(CAPTIONS.name)
    said = captions.to_table(columns=["object_id", "text_sha256"], filter="kept") if captions else None
    for name in corpus.tables():
        if name.startswith("image_embeddings/"):
            having[name] = column(name)
            having["views"] |= having[name]  # an import brings embeddings of views that it does not have
        elif name.startswith("text_embeddings/") and said:
            embedded = pc.is_in(said["text_sha256"], pa.array(list(column(name, "text_sha256")), pa.string()))
            having[name] = set(said.filter(embedded)["object_id"].to_pylist())
    lacking = {what: len(everything - ids) for what, ids in having.items() if everything - ids}
    complete = everything.intersection(*having.values())
    named, whole = (Counter(id.partition("/")[0] for id in ids) for ids in (everything, complete))
    reasons = Counter((row["object_id"].partition("/")[0], f"{row['stage']}: {row['reason']}") for row in failed)
    warnings = Counter((row["object_id"].partition("/")[0], warning) for row in warned for warning in row["warnings"])
    sources = {
        source: SourceStatus(named[source], whole[source], failed=_of(source, reasons), warnings=_of(source, warnings))
        for source in sorted(named)
    }
    return Completeness(len(everything), len(complete), lacking, sources)


def pictured_failures(corpus: Corpus, most: int) -> tuple[list[Row], int]:
    """Failures that keep a picture of what was made, by stage and reason, and how many there are. Of more than `most` as many of
    each reason as go round, the first by object_id."""
    failures = corpus.open(FAILURES.name)
    if failures is None or "thumbnail" not in failures.schema.names:  # a corpus from before there were any
        return [], 0
    having = failures.to_table(columns=["stage", "reason", "object_id"], filter="thumbnail IS NOT NULL").to_pylist()
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in sorted(having, key=lambda row: tuple(row.values())):
        reasons.setdefault((row["stage"], row["reason"]), []).append(row["object_id"])
    turns = sorted((turn, *why, id) for why, ids in reasons.items() for turn, id in enumerate(ids))
    chosen = sorted((stage, reason, id) for _, stage, reason, id in turns[:most])
    rows = {}
    for stage in {stage for stage, _, _ in chosen}:
        ids = any_of("object_id", [id for other, _, id in chosen if other == stage])
        for row in failures.to_table(filter=f"stage = {quote(stage)} AND {ids}").to_pylist():
            rows[stage, row["reason"], row["object_id"]] = row
    return [rows[key] for key in chosen], len(having)


def _of(source: str, counts: Counter[tuple[str, str]]) -> dict[str, int]:
    return {what: count for (where, what), count in counts.most_common() if where == source}


def _of_stage(corpus: Corpus, table: str, made_by: dict[str, Any]) -> StageStatus:
    state = State(corpus, corpus.declared(table), made_by)
    todo = None
    if made_by["reads"]:
        todo = len(todo_of_table(corpus, {state.stage: state}, reads=made_by["reads"], per=made_by["per"]))
    failures = corpus.need(FAILURES.name).to_table(columns=["reason"], filter=state.mine)
    reasons = dict(Counter(failures["reason"].to_pylist()).most_common())
    return StageStatus(state.stage, table, done=len(state.done), todo=todo, failed=sum(reasons.values()), reasons=reasons)
