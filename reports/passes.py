"""The runs of a corpus, summed by the pass they were of; and what the stages have settled and have still to do.

All of it comes from RUNS, which a run writes when it ends, and from the ids of the tables. Three times are told apart:
    wall      from a run's begin to its end
    worked    in which a worker had objects in hand, summed over workers: what the work takes
    held      workers times wall: what a cluster counts, waiting, starting and looking for work included
Hours of cores and GPUs are those worked, times what each worker took of its machine.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.corpus import Reader, quote
from schemas.tables import FAILURES

UNITS = {"object_id": "objects", "text_sha256": "texts", "name": "class names"}  # what a pass works on, by what its stages go by


@dataclass(frozen=True)
class Prices:
    """Money for an hour of a core and of a GPU, in `currency`. None: not given; where neither is, there is no talk of money."""

    cpu_hour: float | None = None
    gpu_hour: float | None = None
    currency: str = "USD"

    def of(self, cpu_hours: float, gpu_hours: float) -> float | None:
        """What these hours cost; one without a price costs nothing."""
        if self.cpu_hour is None and self.gpu_hour is None:
            return None
        return cpu_hours * (self.cpu_hour or 0) + gpu_hours * (self.gpu_hour or 0)


@dataclass
class Hours:
    """Runs of one pass, summed. `tasks`: objects (texts, class names) that were worked on; the hours as the file says above."""

    runs: int = 0
    tasks: int = 0
    wall: float = 0.0
    worked: float = 0.0
    held: float = 0.0
    cpu: float = 0.0
    gpu: float = 0.0

    def add(self, run: dict[str, Any]) -> None:
        """Count in a row of RUNS."""
        wall, worked = run["wall_seconds"] / 3600, run["work_seconds"] / 3600
        self.runs, self.tasks = self.runs + 1, self.tasks + run["tasks"]
        self.wall, self.worked, self.held = self.wall + wall, self.worked + worked, self.held + wall * run["workers"]
        self.cpu, self.gpu = self.cpu + worked * run["cpus"], self.gpu + worked * run["gpus"]

    def figures(self, prices: Prices) -> dict[str, int | float | None]:
        """The sums, what they come to per task, and the cost; `cost_held`: were waiting paid like working."""
        cost = prices.of(self.cpu, self.gpu)
        busy = self.worked / self.held if self.held else None
        return {
            "runs": self.runs,
            "tasks": self.tasks,
            "wall_hours": self.wall,
            "worker_hours": self.worked,
            "held_hours": self.held,
            "busy_share": busy,
            "cpu_hours": self.cpu,
            "gpu_hours": self.gpu,
            "tasks_per_worker_hour": self.tasks / self.worked if self.worked else None,
            "cost": cost,
            "cost_held": cost / busy if cost is not None and busy else None,
            "cost_per_1000": 1000 * cost / self.tasks if cost is not None and self.tasks else None,
        }


@dataclass
class Stage:
    """One stage as the tables have it: what it is made by, ids that it has settled (done or failed), and those still to do. None:
    only its source could tell."""

    made_by: dict[str, Any]
    settled: int
    todo: int | None


@dataclass
class Pass:
    """The runs of stages that were done together: all of them, those with the stages' present settings, and the last of these."""

    stages: tuple[str, ...]
    unit: str = "objects"
    all: Hours = field(default_factory=Hours)
    now: Hours = field(default_factory=Hours)
    last: dict[str, Any] | None = None
    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    stopped_by: Counter[str] = field(default_factory=Counter)
    devices: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        return " + ".join(self.stages)

    def add(self, run: dict[str, Any], stages: dict[str, Stage]) -> None:
        """Count in a row of RUNS."""
        self.all.add(run)
        made_by = [json.loads(one["made_by"]) for one in run["stages"]]
        self.unit = UNITS.get(made_by[0]["per"], self.unit)
        for one in run["stages"]:
            self.done[one["stage"]] += one["done"]
            self.failed[one["stage"]] += one["failed"]
        if run["stopped_by"]:
            self.stopped_by[run["stopped_by"]] += 1
        self.devices.update(run["devices"])
        if all(one["stage"] in stages and stages[one["stage"]].made_by == one for one in made_by):
            self.now.add(run)
            self.last = run

    def to_come(self, stages: Iterable[Stage], prices: Prices) -> dict[str, Any]:
        """What these stages of it still need, and what that takes at the pace of the runs with the present settings; None: not
        known."""
        todo, now = max((stage.todo for stage in stages if stage.todo is not None), default=None), self.now
        if todo is None or not now.tasks:
            return {"todo": todo} | dict.fromkeys(("worker_hours", "cpu_hours", "gpu_hours", "workers", "wall_hours", "cost"))
        worked, cpu, gpu = (todo * hours / now.tasks for hours in (now.worked, now.cpu, now.gpu))
        workers = self.last["workers"]
        hours = {"worker_hours": worked, "cpu_hours": cpu, "gpu_hours": gpu, "workers": workers, "wall_hours": worked / workers}
        return {"todo": todo} | hours | {"cost": prices.of(cpu, gpu)}


def stages_of(corpus: Reader, table: str) -> dict[str, Stage]:
    """The stages that make a table, by name. Objects count as to do that have neither rows nor a failure; those that a changed
    setting or asset will have done again do not, as only a run can tell them (`python -m jobs status`)."""
    made_by = corpus.made_by(table)
    if not made_by:
        return {}
    declared = corpus.declared(table)
    failures = corpus.open(FAILURES.name)
    found = {}
    for name, made in made_by.items():
        own = f"stage = {quote(name)}"
        done = _ids(corpus.need(table), declared.id_column, own)
        failed = pa.array([], pa.string()) if failures is None else _ids(failures, FAILURES.id_column, own)
        taken = done if declared.shared else _ids(corpus.need(table), declared.id_column, None)  # another stage's are left alone
        inputs = corpus.open(made["reads"]) if made["reads"] else None
        todo = None
        if inputs is not None:
            wanted = _ids(inputs, made["per"], made["where"])
            over = pa.chunked_array([taken, failed]).combine_chunks()
            todo = len(wanted) - (pc.sum(pc.is_in(wanted, over)).as_py() or 0)
        again = pc.sum(pc.is_in(failed, done)).as_py() or 0  # a run that was killed between two commits leaves those
        found[name] = Stage(made, settled=len(done) + len(failed) - again, todo=todo)
    return found


def _ids(dataset: Any, column: str, where: str | None) -> pa.Array:
    """The distinct values of a column, in memory that grows with these alone."""
    parts = [pc.unique(batch[column]) for batch in dataset.to_batches(columns=[column], filter=where)]
    return pc.unique(pa.chunked_array(parts, pa.string()))
