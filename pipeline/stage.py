"""What a stage is: a name, a version, what it depends on, and a plain function over a batch of tasks.

    Stage --start()--> Work --(tasks)--> Made: rows of each stage, and the objects that failed

An object may fail (`ObjectError`: it is recorded and the run goes on). A full disk (`NoRoom`) stops the run with a sentence.
Anything else that is raised is a bug and stops the run.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from schemas.tables import Table

Row = dict[str, Any]


class ObjectError(Exception):
    """This object cannot be done by this stage.

    `reason` is a short name to count by (no_faces, unreadable, timeout, ...); `message` a sentence for the person who must act;
    `log_tail` the last lines of the tool that failed, if one did; `attempts` how often it was tried; `thumbnail` an encoded picture
    of what was made and not let in.
    """

    def __init__(
        self, reason: str, message: str, *, log_tail: str | None = None, attempts: int = 1, thumbnail: bytes | None = None
    ):
        super().__init__(message)
        self.reason, self.message = reason, message
        self.log_tail, self.attempts, self.thumbnail = log_tail, attempts, thumbnail

    def __reduce__(self):
        return _object_error, (self.reason, self.message, self.log_tail, self.attempts, self.thumbnail)


def _object_error(reason: str, message: str, log_tail: str | None, attempts: int, thumbnail: bytes | None) -> ObjectError:
    return ObjectError(reason, message, log_tail=log_tail, attempts=attempts, thumbnail=thumbnail)


class NoRoom(Exception):
    """A disk is full. No object is at fault: what was made is kept, and the same command goes on once there is room."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One object (or text) to do.

    `id`: its id. `keys`: for each stage that still needs it, the stage key its rows must carry.
    `rows`: the rows of the input table that belong to it (one for most tables, 12 for VIEWS, in `view` order).
    """

    id: str
    keys: dict[str, str]
    rows: list[Row]


@dataclass
class Made:
    """What a batch of tasks came to: per stage name the rows made (without `stage` and `stage_key`) and the failures by id."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    failures: dict[str, dict[str, ObjectError]] = field(default_factory=dict)

    def add(self, stage: str, rows: Iterable[Row]) -> None:
        self.rows.setdefault(stage, []).extend(rows)

    def fail(self, stage: str, id: str, error: ObjectError) -> None:
        self.failures.setdefault(stage, {})[id] = error


Work = Callable[[list[Task]], Made]


class Stage(Protocol):
    """One table in, one table out. A stage is a frozen dataclass; its fields are its settings.

    name       as in FAILURES and in `status`
    version    raised by hand when the code changes what the rows hold
    reads      name of the input table; "" when the input is no table
    per        column of the input table whose values are the tasks' ids: object_id, or text_sha256
    columns    columns of the input table that the work needs
    depends    columns of the input table that the output depends on; they go into the stage key
    where      SQL condition that says which rows of the input table count, or None: all of them
    writes     the output table; its id column holds the tasks' ids; its rows carry the stage's name in `stage`
    batch      objects per call of the work, at most
    cpus gpus  what one worker takes of a cluster; cpus None: it takes one, and its libraries use an even share of the cores

    A stage may also have `overlap`: how many calls of its work may run at once, in threads of one worker. Without it: one.
    """

    name: str
    version: int
    reads: str
    per: str
    columns: tuple[str, ...]
    depends: tuple[str, ...]
    where: str | None
    writes: Table
    batch: int
    cpus: float | None
    gpus: float

    def settings(self) -> dict[str, Any]:
        """What the rows depend on besides the input, as JSON."""
        ...

    def start(self) -> Work:
        """Called once per worker: loads weights and returns the work. (Stages that only run in a pass of several have none.)"""
        ...


class Pass(Protocol):
    """Stages over the same input table that one piece of work does together; most passes hold one stage (`Single`)."""

    stages: tuple[Stage, ...]

    def start(self) -> Work:
        """Called once per worker. The work may have a `close()`."""
        ...


@dataclass(frozen=True)
class Single:
    """A pass of one stage."""

    stage: Stage

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (self.stage,)

    def start(self) -> Work:
        return self.stage.start()


def overlap(work_pass: Pass) -> int:
    """How many calls of the pass's work may run at once in one worker: while one computes, others read and write."""
    return min(getattr(stage, "overlap", 1) for stage in work_pass.stages)


def settings_of(stage) -> dict[str, Any]:
    """The fields of a settings dataclass as plain JSON values."""
    return json.loads(json.dumps(asdict(stage), default=str))


def rng_for(object_id: str, *, seed: int = 0, purpose: str = "") -> np.random.Generator:
    """The random numbers of one object: the same on any machine, for any number of workers, in any order."""
    digest = hashlib.blake2b(f"{purpose}\0{seed}\0{object_id}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def one_by_one(stage: str, make: Callable[[Task], list[Row]]) -> Work:
    """Work that makes the rows of one object at a time."""

    def work(tasks: list[Task]) -> Made:
        made = Made()
        for task in tasks:
            try:
                made.add(stage, make(task))
            except ObjectError as error:
                made.fail(stage, task.id, error)
        return made

    return work
