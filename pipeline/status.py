"""How far a corpus is: per stage what is done, still to do and failed, as its tables say it."""

import json
from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.run import State, todo_of_table
from pipeline.store import Corpus, quote
from schemas.tables import CAPTIONS, FAILURES, OBJECTS, POINTS, VIEWS, Table


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
    return [_of_table(corpus, name) for name in names if corpus.made_by(name)]


@dataclass(frozen=True)
class Completeness:
    """`objects` that the sources name, those of them that are `complete`, and how many lack what."""

    objects: int
    complete: int
    lacking: dict[str, int]


def completeness(corpus: Corpus) -> Completeness:
    """How many objects have all there is to have: views, points, a kept caption, and embeddings of every teacher."""

    def column(table: str, name: str = "object_id", where: str | None = None) -> set[str]:
        dataset = corpus.open(table)
        return set() if dataset is None else set(dataset.to_table(columns=[name], filter=where)[name].to_pylist())

    everything = column(OBJECTS.name) | column(FAILURES.name, where="stage = 'ingest'")
    having = {"an asset": column(OBJECTS.name), "views": column(VIEWS.name), "points": column(POINTS.name)}
    having["a kept caption"] = column(CAPTIONS.name, where="kept")
    captions = corpus.open(CAPTIONS.name)
    said = captions.to_table(columns=["object_id", "text_sha256"], filter="kept") if captions else None
    for name in corpus.tables():
        if name.startswith("image_embeddings/"):
            having[name] = column(name)
        elif name.startswith("text_embeddings/") and said:
            embedded = pc.is_in(said["text_sha256"], pa.array(list(column(name, "text_sha256")), pa.string()))
            having[name] = set(said.filter(embedded)["object_id"].to_pylist())
    lacking = {what: len(everything - ids) for what, ids in having.items() if everything - ids}
    return Completeness(len(everything), len(everything.intersection(*having.values())), lacking)


def _of_table(corpus: Corpus, name: str) -> StageStatus:
    made_by = corpus.made_by(name)
    stored = corpus.need(name).schema
    state = State(corpus, Table(name, stored, tuple(json.loads(stored.metadata[b"key"]))), made_by)
    todo = None
    if made_by["reads"]:
        remaining = todo_of_table(corpus, {state.stage: state}, reads=made_by["reads"], per=made_by["per"], where=made_by["where"])
        todo = len(remaining)
    failures = corpus.need(FAILURES.name).to_table(columns=["reason"], filter=f"stage = {quote(state.stage)}")
    reasons = dict(Counter(failures["reason"].to_pylist()).most_common())
    return StageStatus(state.stage, name, done=len(state.done), todo=todo, failed=sum(reasons.values()), reasons=reasons)
