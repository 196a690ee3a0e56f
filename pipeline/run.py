"""A stage over a table: what is still to do, doing it in batches, and committing what was made.

    todo(corpus, stage)  ->  batches  ->  Worker.do (here, or on Ray)  ->  commit

What is to do is asked of the tables: an object needs a stage when neither a row nor a failure carries its stage key. So a run may
be killed at any point, and the same command goes on where it stopped.
"""

import hashlib
import json
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.cost import WHOLE_MACHINE, Clock, Share, Spent, kept
from pipeline.stage import Made, ObjectError, Pass, Row, Stage, Task, overlap
from pipeline.store import Corpus, CorpusError, quote
from schemas.check import to_table, violations
from schemas.tables import FAILURES, Table

COMMIT_SECONDS = 30.0
PLANNED_AT_ONCE = 50_000  # ids whose inputs are held in memory while looking for what is to do


@dataclass(frozen=True)
class Todo:
    """The tasks of a pass, shuffled in an order that is always the same (by a hash of the id): any run of rows is a fair sample.

    `ids` (n,); `keys`: per stage name (n,) stage keys, None where the stage has no need; `positions`: per task the positions of its
    input rows in version `version` of the input table, or `records`: the input row itself as JSON, when the input is no table.
    """

    ids: list[str]
    keys: dict[str, list[str | None]]
    version: int = 0
    positions: list[np.ndarray] = field(default_factory=list)
    records: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self, size: int) -> Iterator["Batch"]:
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield Batch(
                ids=self.ids[part],
                keys={stage: keys[part] for stage, keys in self.keys.items()},
                version=self.version,
                positions=self.positions[part],
                records=self.records[part],
            )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A few tasks, small enough to send: a slice of `Todo`."""

    ids: list[str]
    keys: dict[str, list[str | None]]
    version: int
    positions: list[np.ndarray]
    records: list[str]

    def singly(self) -> list["Batch"]:
        """The same tasks, one each."""
        return [
            Batch(
                ids=[id],
                keys={stage: [keys[number]] for stage, keys in self.keys.items()},
                version=self.version,
                positions=self.positions[number : number + 1],
                records=self.records[number : number + 1],
            )
            for number, id in enumerate(self.ids)
        ]


@dataclass
class Done:
    """What a batch came to, by stage and small enough to send: who was asked for, fragments nobody can see yet, who is in them, and
    the failures as FAILURES rows; and what it took."""

    asked: dict[str, list[str]] = field(default_factory=dict)
    fragments: dict[str, list[str]] = field(default_factory=dict)
    made: dict[str, list[str]] = field(default_factory=dict)
    failures: dict[str, list[Row]] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)


@dataclass
class Summary:
    """How one stage ended. `reasons`: failures of this run by reason; `skipped`: done or failed before."""

    stage: str
    done: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)


class Worker:
    """Does batches: reads the input rows, works, checks the rows made and writes them as fragments. `share`: what it has of its
    machine."""

    def __init__(self, corpus: Corpus, work_pass: Pass, share: Share = WHOLE_MACHINE):
        self.corpus, self.stages = corpus, {stage.name: stage for stage in work_pass.stages}
        self.reads, self.columns = work_pass.stages[0].reads, _all(stage.columns for stage in work_pass.stages)
        for stage in work_pass.stages:
            planned, mine = corpus.made_by(stage.writes.name).get(stage.name), json.loads(json.dumps(made_by(stage)))
            if planned != mine:  # its rows would carry the stage keys of what they are not
                raise CorpusError(
                    f"{socket.gethostname()} would do {stage.name} otherwise than this run is planned: planned {planned}, there "
                    f"{mine}. Its code, or a file that lies there under the same path, is another one"
                )
        self.share, self.clock = share, Clock()
        self.work = work_pass.start()

    def close(self) -> None:
        if close := getattr(self.work, "close", None):
            close()

    def do(self, batch: Batch) -> Done:
        done = Done(spent=self.share.spent())
        with self.clock.running(done.spent):
            tasks = list(self._tasks(batch))
            made = self.work(tasks)
            for name, stage in self.stages.items():
                keys = {task.id: task.keys[name] for task in tasks if name in task.keys}
                done.asked[name] = list(keys)
                self._keep(stage, keys, made, done)
        return done

    def _tasks(self, batch: Batch) -> Iterator[Task]:
        if batch.positions:
            counts = [len(positions) for positions in batch.positions]
            taken = iter(self.corpus.take(self.reads, batch.version, np.concatenate(batch.positions), self.columns))
            rows = [[next(taken) for _ in range(count)] for count in counts]
        else:
            rows = [[json.loads(record)] for record in batch.records]
        for number, id in enumerate(batch.ids):
            keys = {name: keys[number] for name, keys in batch.keys.items() if keys[number] is not None}
            yield Task(id=id, keys=keys, rows=rows[number])

    def _keep(self, stage: Stage, keys: dict[str, str], made: Made, done: Done) -> None:
        column = stage.writes.id_column
        rows = [row | {"stage": stage.name, "stage_key": keys[row[column]]} for row in made.rows.get(stage.name, [])]
        table = to_table(stage.writes, rows)
        failures = dict(made.failures.get(stage.name, {}))
        for violation in violations(stage.writes, table):
            failures.setdefault(
                rows[violation.row][column], ObjectError("refused_by_check", f"column {violation.column!r}: {violation.message}")
            )
        if failures:
            table = table.filter(pc.invert(pc.is_in(table[column], pa.array(list(failures), pa.string()))))
        made_ids = set(table[column].to_pylist())
        if lost := keys.keys() - made_ids - failures.keys():
            raise RuntimeError(f"stage {stage.name!r} made neither rows nor a failure of {sorted(lost)[:3]}")
        done.made[stage.name] = [id for id in keys if id in made_ids]
        done.fragments[stage.name] = self.corpus.write(stage.writes, table)
        self.share.name_devices(done.spent, table)
        done.failures[stage.name] = [
            {
                "object_id": id,
                "stage": stage.name,
                "stage_key": keys[id],
                "reason": error.reason,
                "message": error.message,
                "log_tail": error.log_tail,
                "attempts": error.attempts,
                "thumbnail": error.thumbnail,
            }
            for id, error in failures.items()
        ]


Where = Callable[[Corpus, Pass, Iterable[Batch]], Iterator[Done]]


def here(corpus: Corpus, work_pass: Pass, batches: Iterable[Batch]) -> Iterator[Done]:
    """Do the batches in this process, and give what they came to in their order."""
    worker = Worker(corpus, work_pass)
    try:
        yield from map(worker.do, batches) if overlap(work_pass) == 1 else _at_once(worker.do, batches, overlap(work_pass))
    finally:
        worker.close()


def _at_once(do: Callable[[Batch], Done], batches: Iterable[Batch], count: int) -> Iterator[Done]:
    """The batches, `count` of them at once, in their order. Before it ends, even by an error, those begun are done."""
    flying: deque[Future[Done]] = deque()
    pool = ThreadPoolExecutor(count)
    try:
        for batch in batches:
            flying.append(pool.submit(do, batch))
            if len(flying) > count:  # one is ready to begin whenever one ends
                yield flying.popleft().result()
        while flying:
            yield flying.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def run(
    corpus: Corpus,
    work_pass: Pass,
    *,
    where: Where = here,
    workers: int = 1,
    records: Iterable[Row] | None = None,
    whole: bool = False,
    watch: Callable[[int, dict[str, int]], None] = lambda total, counts: None,
) -> list[Summary]:
    """Bring the tables of a pass up to date with their input; one summary per stage.

    `records` is the input of a stage that reads no table; `whole`: they are all there are, so that rows of other ids go. `where`
    says who does the batches, `workers` how many there are (for the size of a batch). `watch(total, counts)` is called when batches
    come in: objects to do in all, and done and failed by now.
    The corpus must be locked by the caller.
    """
    began = time.monotonic()
    corpus.create(FAILURES)
    states = {}
    for stage in work_pass.stages:
        how = made_by(stage)
        corpus.create(stage.writes, how)
        states[stage.name] = State(corpus, stage.writes, how)
    if records is not None:
        seen: set[str] = set()
        todo = todo_of_records(states, records, seen, per=work_pass.stages[0].per)
        for stage in work_pass.stages if whole else ():
            forget_all_but(corpus, stage, states[stage.name], seen)
    else:
        for stage in work_pass.stages:
            forget_leftovers(corpus, stage, states[stage.name])
        first = work_pass.stages[0]
        todo = todo_of_table(corpus, states, reads=first.reads, per=first.per)
    summaries = {name: Summary(name, skipped=states[name].settled) for name in states}
    counts = {"done": 0, "failed": 0}
    spent = Spent()
    watch(len(todo), counts)

    def told() -> dict[str, Any]:
        return {"stages": [_told(stage, summaries[stage.name]) for stage in work_pass.stages], "tasks": sum(counts.values())}

    if len(todo):
        pending: list[Done] = []
        committed = time.monotonic()
        size = max(1, min(min(stage.batch for stage in work_pass.stages), -(-len(todo) // (4 * workers))))
        results = where(corpus, work_pass, todo.batches(size))
        with kept(corpus, began=began, workers=workers, spent=spent, told=told):
            try:
                for done in results:
                    pending.append(done)
                    spent.add(done.spent)
                    failed = {row["object_id"] for rows in done.failures.values() for row in rows}
                    asked = {id for ids in done.asked.values() for id in ids}
                    counts["done"] += len(asked - failed)
                    counts["failed"] += len(failed)
                    watch(len(todo), counts)
                    if time.monotonic() - committed > COMMIT_SECONDS:
                        # Taken out first: were it interrupted half-way and done again below, rows would come in twice.
                        ready, pending = pending, []
                        _commit(corpus, work_pass, states, ready, summaries)
                        committed = time.monotonic()
            finally:  # what was made is right, also when a bug or a key press ends the run
                _commit(corpus, work_pass, states, pending, summaries)
                results.close()
            for stage in work_pass.stages:
                corpus.check_unique(stage.writes)
                corpus.compact(stage.writes)
    for summary in summaries.values():
        summary.seconds = time.monotonic() - began
    return list(summaries.values())


def _told(stage: Stage, summary: Summary) -> dict[str, Any]:
    """One of RUNS.stages."""
    counts = {"done": summary.done, "failed": summary.failed, "skipped": summary.skipped}
    return {"stage": stage.name, "table": stage.writes.name, **counts, "made_by": json.dumps(made_by(stage), sort_keys=True)}


def made_by(stage: Stage) -> dict[str, Any]:
    """What the stage key is made of, except the input; stored with the table, so that `status` can tell what is still to do."""
    return {
        "stage": stage.name,
        "version": stage.version,
        "settings": stage.settings(),
        "reads": stage.reads,
        "per": stage.per,
        "depends": list(stage.depends),
        "where": stage.where,
    }


class State:
    """What the tables say of one stage: the stage key of each id that is done, and of each that failed.

    `taken`: ids that another stage has made rows of, in a table that is not shared; they are left alone. `settled` counts the tasks
    that needed nothing. `mine`: SQL condition for the stage's own rows and failures.
    """

    def __init__(self, corpus: Corpus, writes: Table, made_by: dict[str, Any]):
        self.stage, self.depends, self.where = made_by["stage"], made_by["depends"], made_by["where"]
        self.mine = f"stage = {quote(self.stage)}"
        self.done = _key_by_id(corpus, writes.name, writes.id_column, where=self.mine)
        self.failed = _key_by_id(corpus, FAILURES.name, FAILURES.id_column, where=self.mine)
        self.taken = set() if writes.shared else _ids(corpus.need(writes.name), writes.id_column, f"NOT ({self.mine})")
        self.settled = 0
        prefix = json.dumps([self.stage, made_by["version"], made_by["settings"]], sort_keys=True)
        self._prefix = hashlib.blake2b(prefix.encode(), digest_size=16)

    def key_if_needed(self, id: str, inputs: list[dict[str, Any]]) -> str | None:
        """The stage key of a task: a hash of stage, version, settings and what it depends on. None: a row or a failure carries it,
        or the rows of this id are another stage's.

        `inputs`: the distinct values of the columns it depends on, over the task's input rows.
        """
        digest = self._prefix.copy()
        digest.update(json.dumps([[row[name] for name in self.depends] for row in inputs], ensure_ascii=False).encode())
        key = digest.hexdigest()
        if id in self.taken or self.done.get(id) == key or self.failed.get(id) == key:
            self.settled += 1
            return None
        return key


def todo_of_table(corpus: Corpus, states: dict[str, State], *, reads: str, per: str) -> Todo:
    """What the stages still need of their common input table."""
    dataset = corpus.need(reads)
    depends = _all(state.depends for state in states.values())
    conditions = _all([state.where or "true"] for state in states.values())
    rows = dataset.to_table(
        columns=[*dict.fromkeys([per, *depends]), "_rowoffset"], filter=" OR ".join(f"({where})" for where in conditions)
    )
    # Where all stages look at the same rows, what was read is what counts; otherwise each asks for its own.
    wanted = {name: None if len(conditions) == 1 else _ids(dataset, per, state.where) for name, state in states.items()}
    positions = rows["_rowoffset"].to_numpy().astype(np.int64)
    ids = rows[per].combine_chunks().dictionary_encode()
    order = np.argsort(ids.indices.to_numpy(), kind="stable")  # rows of one id together, in the table's order
    starts = np.searchsorted(ids.indices.to_numpy()[order], np.arange(len(ids.dictionary) + 1))
    names = ids.dictionary.to_pylist()
    found: list[tuple[str, dict[str, str | None], np.ndarray]] = []
    for first in range(0, len(names), PLANNED_AT_ONCE):  # as Python objects, the inputs of a large corpus would fill the memory
        bounds = starts[first : first + PLANNED_AT_ONCE + 1]
        inputs = rows.select(depends).take(order[bounds[0] : bounds[-1]]).to_pylist()
        for id, start, end in zip(names[first:], bounds[:-1], bounds[1:], strict=False):
            mine = inputs[start - bounds[0] : end - bounds[0]]
            distinct = mine[:1] + [row for row in mine[1:] if row != mine[0]]
            keys = {
                name: state.key_if_needed(id, distinct) if wanted[name] is None or id in wanted[name] else None
                for name, state in states.items()
            }
            if any(keys.values()):
                found.append((id, keys, positions[order[start:end]]))
    found.sort(key=lambda task: _shuffled(task[0]))
    return Todo(
        ids=[id for id, _, _ in found],
        keys={name: [keys[name] for _, keys, _ in found] for name in states},
        version=dataset.version,
        positions=[rows for _, _, rows in found],
    )


def todo_of_records(states: dict[str, State], records: Iterable[Row], seen: set[str], *, per: str = "object_id") -> Todo:
    """What the stages still need of input rows that are in no table (the records of a source). The ids go into `seen`.

    Records may say `beside`: those with the same value come one after the other, as a file that several need is then read once.
    """
    found: list[tuple[str, dict[str, str | None], str, str]] = []
    for record in records:
        id = record[per]
        if id in seen:
            raise CorpusError(f"two records have the id {id!r}: give the sources different names (--source NAME:KIND=PATH)")
        seen.add(id)
        keys = {name: state.key_if_needed(id, [record]) for name, state in states.items()}
        if any(keys.values()):
            found.append((id, keys, json.dumps(record, ensure_ascii=False), record.get("beside", id)))
    found.sort(key=lambda task: (_shuffled(task[3]), task[0]))
    return Todo(
        ids=[id for id, _, _, _ in found],
        keys={name: [keys[name] for _, keys, _, _ in found] for name in states},
        records=[record for _, _, record, _ in found],
    )


def forget_leftovers(corpus: Corpus, stage: Stage, state: State) -> None:
    """Remove rows and failures of ids that the input table no longer has (an object given up, a text nobody says any more), and
    failures of ids that are done: a run that was killed between two commits leaves those."""
    forget_all_but(corpus, stage, state, _ids(corpus.need(stage.reads), stage.per, stage.where))


def forget_all_but(corpus: Corpus, stage: Stage, state: State, there: set[str]) -> None:
    """Remove the stage's rows and failures of ids that are not `there`, and its failures of ids that have rows."""
    corpus.delete(stage.writes, state.done.keys() - there, state.mine)
    leftover = {id for id in state.failed if id not in there or id in state.done or id in state.taken}
    corpus.delete(FAILURES, leftover, state.mine)


def _commit(corpus: Corpus, work_pass: Pass, states: dict[str, State], pending: list[Done], summaries: dict[str, Summary]) -> None:
    """Make what was done visible: old rows of the same ids out, new ones in, failures after."""
    for stage in work_pass.stages:
        state, summary = states[stage.name], summaries[stage.name]
        asked = _all(done.asked[stage.name] for done in pending)
        made = _all(done.made[stage.name] for done in pending)
        failures = [row for done in pending for row in done.failures[stage.name]]
        corpus.delete(stage.writes, [id for id in asked if id in state.done], state.mine)
        corpus.append(stage.writes, [fragment for done in pending for fragment in done.fragments[stage.name]])
        corpus.fail(stage.name, to_table(FAILURES, failures), forget=[id for id in made if id in state.failed])
        summary.done += len(made)
        summary.failed += len(failures)
        for row in failures:
            summary.reasons[row["reason"]] = summary.reasons.get(row["reason"], 0) + 1


def _ids(dataset, column: str, where: str | None) -> set[str]:
    return set(dataset.to_table(columns=[column], filter=where)[column].to_pylist())


def _key_by_id(corpus: Corpus, table: str, column: str, *, where: str | None) -> dict[str, str]:
    dataset = corpus.open(table)
    if dataset is None:
        return {}
    rows = dataset.to_table(columns=[column, "stage_key"], filter=where)
    return dict(zip(rows[column].to_pylist(), rows["stage_key"].to_pylist(), strict=True))


def _shuffled(id: str) -> bytes:
    return hashlib.blake2b(id.encode(), digest_size=8).digest()


def _all(parts: Iterable[Iterable[str]]) -> list[str]:
    """All items once, in the order of their first appearance."""
    return list(dict.fromkeys(item for part in parts for item in part))
