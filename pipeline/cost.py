"""What a run cost: time in the workers, what each of them took of its machine, and the row of RUNS that says so."""

import importlib.metadata
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.store import Corpus
from schemas.check import to_table
from schemas.tables import RUNS


class Clock:
    """Counts the time in which at least one call is under way, where several may be at once."""

    def __init__(self):
        self._lock, self._calls, self._counted = threading.Lock(), 0, 0.0

    @contextmanager
    def running(self, spent: "Spent") -> Iterator[None]:
        """A call; when it ends, what has not been counted yet goes to `spent.seconds`, so that their sum is the time."""
        with self._lock:
            now = time.monotonic()
            self._counted = self._counted if self._calls else now
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                now = time.monotonic()
                spent.seconds, self._counted = now - self._counted, now
                self._calls -= 1


@dataclass
class Spent:
    """What batches took: `seconds` of a worker that has `cpus` cores and `gpus` GPUs; `devices`: names of what computed."""

    seconds: float = 0.0
    cpus: float = 0.0
    gpus: float = 0.0
    devices: set[str] = field(default_factory=set)

    def add(self, other: "Spent") -> None:
        """Count another batch in; the workers of a run are all alike."""
        self.seconds += other.seconds
        self.cpus, self.gpus = max(self.cpus, other.cpus), max(self.gpus, other.gpus)
        self.devices |= other.devices


@dataclass(frozen=True)
class Share:
    """What a worker has of its machine: cores and GPUs. None: all cores that the process may use, and a GPU if it uses one."""

    cpus: float | None = None
    gpus: float | None = None

    def spent(self) -> Spent:
        """Nothing yet, of this share."""
        return Spent(cpus=len(os.sched_getaffinity(0)) if self.cpus is None else self.cpus, gpus=self.gpus or 0.0)

    def name_devices(self, spent: Spent, made: pa.Table) -> None:
        """Say in `spent` what has computed: this CPU, the GPU that PyTorch uses, and those that rendered the rows `made`."""
        rendered = pc.unique(made["device"]).to_pylist() if "device" in made.column_names else []
        # VIEWS.device: "CPU", or the backend before the GPU's name
        gpus = {device.partition(": ")[2] for device in rendered if device} | {_gpu_of_pytorch()}
        gpus -= {"", None}
        spent.devices |= gpus | _cpu()
        if gpus and self.gpus is None:
            spent.gpus = 1.0


WHOLE_MACHINE = Share()


def _gpu_of_pytorch() -> str | None:
    torch = sys.modules.get("torch")  # not imported: not used
    return torch.cuda.get_device_name() if torch and torch.cuda.is_initialized() else None


@cache
def _cpu() -> set[str]:
    """The CPU's model; nothing where the system does not tell."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    return {line.partition(": ")[2] for line in lines if line.startswith("model name")}


@contextmanager
def kept(corpus: Corpus, *, began: float, workers: int, spent: Spent, told: Callable[[], dict[str, Any]]) -> Iterator[None]:
    """Write a row of RUNS when the context ends, also by an error or a key press; none where no object was done and none failed.

    `began`: the run's begin by time.monotonic(). `spent`, and what `told` gives (`stages` and `tasks` of RUNS), count as they are
    at the end.
    """
    stopped_by = None
    try:
        yield
    except BaseException as error:
        stopped_by = type(getattr(error, "cause", error)).__name__  # Ray wraps what a worker raised
        raise
    finally:
        what = told()
        if any(stage["done"] or stage["failed"] for stage in what["stages"]):
            seconds = time.monotonic() - began
            row = what | {
                "began": datetime.now(UTC) - timedelta(seconds=seconds),
                "wall_seconds": seconds,
                "work_seconds": spent.seconds,
                "workers": workers,
                "cpus": spent.cpus,
                "gpus": spent.gpus,
                "devices": sorted(spent.devices),
                "python": platform.python_version(),
                "tricorpus": _version(),
                "stopped_by": stopped_by,
            }
            corpus.create(RUNS)
            corpus.append(RUNS, corpus.write(RUNS, to_table(RUNS, [row])))
            corpus.compact(RUNS)


def _version() -> str | None:
    try:
        return importlib.metadata.version("tricorpus")
    except importlib.metadata.PackageNotFoundError:  # a checkout that was not installed
        return None
