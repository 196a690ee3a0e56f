"""A few stored embeddings made again from the stored pictures and texts, by the stages themselves: wrong preprocessing, stale rows
and swapped rows show, whatever the teacher knows of the objects."""

from dataclasses import dataclass

import numpy as np

from pipeline.classes import EmbedClasses
from pipeline.embed import EmbedImages, EmbedTexts
from pipeline.stage import Made, Row, Stage, Task
from pipeline.store import Corpus
from pipeline.weights import TeacherError, identity, name_in_tables
from schemas.corpus import any_of

# bfloat16 against float32 costs less than 1e-3.
LEAST_COSINE = 0.99
CLASS_NAMES = 8  # one for so many rows of the other tables: each is 64 texts


@dataclass(frozen=True, kw_only=True)
class Reencoded:
    """One table. `compared`: rows made again; `worst`: the smallest cosine of a stored vector and the one made again; `differing`:
    ids of rows where it is below LEAST_COSINE. `skipped`: why nothing was compared, or None."""

    table: str
    compared: int = 0
    worst: float | None = None
    differing: tuple[str, ...] = ()
    skipped: str | None = None


def reencode(corpus: Corpus, teacher: str, count: int, *, seed: int = 0) -> list[Reencoded]:
    """Make embeddings of `count` objects (of each one view), as many texts and a few class names again, chosen by chance, and
    compare. A table of which a tenth is wrong is found out by 32 rows 97 times in 100.

    teacher: ARCH:PRETRAINED; its weights must be here, the very ones that the tables name: otherwise all is `skipped`.
    """
    rng = np.random.default_rng(seed)
    try:
        here, name = identity(teacher), name_in_tables(teacher)
    except TeacherError as error:
        return [Reencoded(table="all tables", skipped=str(error))]
    said = corpus.teacher_of(name)
    if said and said["weights_sha256"] != here.weights_sha256:
        why = f"the tables were made with the weights {said['weights_sha256'][:12]}…, here are {here.weights_sha256[:12]}…"
        return [Reencoded(table="all tables", skipped=f"{why}: name the file, --teacher ARCH:PATH")]
    stages: list[Stage] = [EmbedImages(teacher=teacher), EmbedTexts(teacher=teacher)]
    classes = corpus.made_by(EmbedClasses(teacher=teacher).writes.name)
    stages += [EmbedClasses(teacher=teacher, prompts=made["settings"]["prompts"]) for made in classes.values()]
    counts = [count, count] + [max(1, count // CLASS_NAMES)] * len(classes)
    return [_compared(corpus, stage, some, rng) for stage, some in zip(stages, counts, strict=True)]


def _compared(corpus: Corpus, stage: Stage, count: int, rng: np.random.Generator) -> Reencoded:
    name, column = stage.writes.name, stage.writes.id_column
    dataset = corpus.open(name)
    if dataset is None or not dataset.count_rows():
        return Reencoded(table=name, skipped="there are no rows")
    places = np.sort(rng.choice(dataset.count_rows(), min(count, dataset.count_rows()), replace=False))
    taken = dataset.take(places, columns=[column, "embedding"]).to_pylist()
    stored = {row[column]: np.atleast_2d(np.array(row["embedding"], np.float32)) for row in taken}
    cosines: dict[str, float] = {}
    tasks, expected = [], {}
    for id, rows in _inputs(corpus, stage, list(stored)).items():
        view = rng.integers(len(stored[id]))
        if "view" in stage.columns and len(rows) != len(stored[id]):
            cosines[id] = -1.0  # views came or went
        else:
            tasks.append(Task(id=id, keys={}, rows=[rows[view]]))
            expected[id] = stored[id][view]
    if not cosines and not tasks:
        return Reencoded(table=name, skipped=f"{stage.reads} has nothing of these rows: they were imported, or it changed since")
    made = stage.start()(tasks) if tasks else Made()
    again = {row[column]: np.ravel(row["embedding"]).astype(np.float32) for row in made.rows.get(stage.name, [])}
    for id, vector in expected.items():
        cosines[id] = _cosine(vector, again[id]) if id in again else -1.0  # a picture that cannot be read any more
    differing = tuple(sorted(id for id, cosine in cosines.items() if cosine < LEAST_COSINE))
    return Reencoded(table=name, compared=len(cosines), worst=min(cosines.values()), differing=differing)


def _inputs(corpus: Corpus, stage: Stage, ids: list[str]) -> dict[str, list[Row]]:
    """The input rows of those of the ids that have any, in `view` order."""
    if not stage.reads:
        return {id: [{stage.per: id}] for id in ids}
    source = corpus.open(stage.reads)
    columns = [*dict.fromkeys([stage.per, *stage.columns])]
    found: dict[str, list[Row]] = {}
    for row in [] if source is None else source.to_table(columns=columns, filter=any_of(stage.per, ids)).to_pylist():
        found.setdefault(row[stage.per], []).append(row)
    return {id: sorted(found[id], key=lambda row: row.get("view", 0)) for id in ids if id in found}


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
