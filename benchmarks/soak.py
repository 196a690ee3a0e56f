"""Does a long run stay as fast and as small as it began, and lose nothing? Renders many objects into a real corpus and looks on.

    python -m benchmarks.soak --objects 1000                          made objects
    python -m benchmarks.soak --assets FOLDER --workers 4             a folder's assets, in turn, as often as it takes
    python -m benchmarks.soak --objects 200 --faults 8 --stall 5      a Blender is killed, broken or put to sleep every 8 s or so

Each worker is a thread of this process with a Blender of its own; views and points are made, checked and committed as in a build.
The table is by time: objects per minute, then memory (MB) of this process and of its Blenders: USS is what a process has for
itself alone, RSS counts shared pages too; then open files of this process, what lies on the memory disk, and Blenders started.
Lost: objects of which there is neither a row nor a failure; doubled: rows that are there twice. Both must be 0 (else exit code 1).
"""

import argparse
import importlib.util
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from queue import Queue
from statistics import mean
from typing import Any

import psutil

from pipeline.assets.companions import companions
from pipeline.made.made_objects import write_objaverse
from pipeline.run import Batch, Done, Worker, run
from pipeline.stage import ObjectError, Pass
from pipeline.store import Corpus
from render import blender as blender_module
from render.blender import Blender, BlenderSettings
from render.blender_pass import BlenderPass, RenderViews, SamplePoints
from render.spec import AXES
from schemas.check import to_table
from schemas.tables import FAILURES, OBJECTS, POINTS, VIEWS

MADE = 100  # different objects at most; they are rendered again and again
FAULTS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP)
LINES = 20  # of the table


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What was seen at one moment. Memory in MB; `settled`: objects done or failed by then; `pids`: the Blenders there were."""

    second: float
    settled: int
    driver_rss: float
    driver_uss: float
    blender_rss: float  # of the largest
    blender_uss: float  # of all together
    disk: float  # in the folders of all Blenders
    files: int  # open in this process
    pids: frozenset[int]


class Onlooker:
    """Takes a sample every second and, where asked for, lets faults happen to Blenders at random times."""

    def __init__(self, *, faults_every: float | None, rng: random.Random):
        self.samples: list[Sample] = []
        self.struck: Counter[str] = Counter()
        self.settled = 0
        self._every, self._rng, self._began, self._over = faults_every, rng, time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._look_on)

    def __enter__(self) -> "Onlooker":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self._thread.join()

    def _look_on(self) -> None:
        strike_at = self._next_strike(0)
        while not self._over.wait(1):
            blenders = list(_blenders())
            self.samples.append(self._sample(blenders))
            if self.samples[-1].second > strike_at and blenders:
                victim, fault = self._rng.choice(blenders), self._rng.choice(FAULTS)
                try:
                    victim.send_signal(fault)
                except psutil.NoSuchProcess:
                    continue
                self.struck[fault.name] += 1
                strike_at = self._next_strike(strike_at)

    def _next_strike(self, since: float) -> float:
        return since + self._rng.expovariate(1 / self._every) if self._every else float("inf")

    def _sample(self, blenders: list[psutil.Process]) -> Sample:
        own, theirs = _memory(psutil.Process()), [_memory(blender) for blender in blenders]
        folders = blender_module.MEMORY_DISK.glob(blender_module.FOLDER_PREFIX + "*")
        return Sample(
            second=time.monotonic() - self._began,
            settled=self.settled,
            driver_rss=own[0],
            driver_uss=own[1],
            blender_rss=max((rss for rss, _ in theirs), default=0),
            blender_uss=sum(uss for _, uss in theirs),
            disk=sum(_size(folder) for folder in folders),
            files=len(os.listdir("/proc/self/fd")),
            pids=frozenset(blender.pid for blender in blenders),
        )


def _blenders() -> Iterator[psutil.Process]:
    for child in psutil.Process().children():
        try:
            if "blender_worker.py" in " ".join(child.cmdline()):
                yield child
        except psutil.NoSuchProcess:
            pass


def _memory(process: psutil.Process) -> tuple[float, float]:
    """RSS and USS, MB."""
    try:
        memory = process.memory_full_info()
    except psutil.NoSuchProcess:
        return 0.0, 0.0
    return memory.rss / 2**20, memory.uss / 2**20


def _size(top: Path) -> float:
    """MB of what lies in a folder while others write and remove files there."""
    size = 0
    for folder, _, names in os.walk(top):
        for name in names:
            try:
                size += os.lstat(f"{folder}/{name}").st_size
            except FileNotFoundError:
                pass
    return size / 2**20


def in_threads(workers: int, blenders: list[Blender]) -> Callable[[Corpus, Pass, Iterable[Batch]], Iterator[Done]]:
    """Does the batches in threads of this process; fits `pipeline.run.Where`. The Blenders of the workers go into `blenders`."""

    def where(corpus: Corpus, work_pass: Pass, batches: Iterable[Batch]) -> Iterator[Done]:
        left, taking, came = iter(batches), threading.Lock(), Queue()

        def work() -> None:
            worker = Worker(corpus, work_pass)
            blenders.append(worker.work.blender)
            try:
                while batch := take():
                    came.put(worker.do(batch))
                came.put(None)
            except BaseException as error:
                came.put(error)
            finally:
                worker.close()

        def take() -> Batch | None:
            with taking:
                return next(left, None)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
        for thread in threads:
            thread.start()
        working = workers
        while working:
            done = came.get()
            if isinstance(done, BaseException):
                raise done
            if done is None:
                working -= 1
            else:
                yield done
        for thread in threads:
            thread.join()

    return where


def corpus_of(root: Path, assets: list[Path], count: int) -> Corpus:
    """A corpus of `count` objects, for which the assets take turns."""
    corpus, opened = Corpus(str(root)), [_opened(asset) for asset in assets[:count]]
    rows = []
    for number in range(count):
        name = {"object_id": f"soak/{number:06d}", "source": "soak", "source_id": f"{number:06d}", "asset_sha256": f"{number:064x}"}
        rows.append(name | opened[number % len(opened)])
    corpus.create(OBJECTS)
    corpus.append(OBJECTS, corpus.write(OBJECTS, to_table(OBJECTS, rows)))
    return corpus


def _opened(asset: Path) -> dict[str, Any]:
    """What a row of OBJECTS says of an asset."""
    row = {"stage": "ingest", "stage_key": "soak", "asset_uri": str(asset), "asset_format": asset.suffix[1:].lower()}
    row |= {"asset_bytes": asset.stat().st_size, "traits": [], "warnings": [], "categories": [], "tags": [], "license": "unknown"}
    try:
        return row | {"companions": companions(asset, row).files}
    except ObjectError:  # Blender's side will say so again
        return row | {"companions": []}


def tell_over_time(samples: list[Sample]) -> None:
    """The table."""
    size = max(5, -(-len(samples) // LINES))
    print("   minute  objects/min  driver RSS    USS  largest Blender RSS  all Blenders' USS  open files  on disk  started")
    seen: set[int] = set()
    for start in range(0, len(samples), size):
        part = samples[start : start + size]
        before = samples[start - 1] if start else Sample(**{field.name: 0 for field in fields(Sample)})
        seconds, settled = part[-1].second - before.second, part[-1].settled - before.settled
        started = set().union(*(sample.pids for sample in part)) - seen
        seen |= started
        high = {name: max(getattr(sample, name) for sample in part) for name in ("blender_rss", "blender_uss", "files", "disk")}
        print(
            f"{part[-1].second / 60:9.2f}{60 * settled / seconds:13.1f}{part[-1].driver_rss:12.0f}{part[-1].driver_uss:7.0f}"
            f"{high['blender_rss']:21.0f}{high['blender_uss']:19.0f}{high['files']:12d}{high['disk']:9.1f}{len(started):9d}"
        )


def tell_change(samples: list[Sample]) -> None:
    """How the last third of the run differs from the middle one; in the first, packages are loaded and tables made."""
    third = len(samples) // 3
    if third < 10:
        return print("too short a run to tell whether it grows slower or larger")
    middle, last = samples[third : 2 * third], samples[-third:]
    rates = [60 * (part[-1].settled - part[0].settled) / (part[-1].second - part[0].second) for part in (middle, last)]
    print(
        f"objects/min: {rates[0]:.1f} in the middle third, {rates[1]:.1f} in the last ({rates[1] / max(rates[0], 1e-9) - 1:+.1%})"
    )
    for name in ("driver_uss", "blender_uss", "files"):
        means = [mean(getattr(sample, name) for sample in part) for part in (middle, last)]
        print(f"{name}: {means[0]:.0f} in the middle third, {means[1]:.0f} in the last")


def lost_and_doubled(corpus: Corpus) -> tuple[int, int]:
    """Objects of which a stage has made neither rows nor a failure, and rows that are there twice."""
    ids = set(corpus.need(OBJECTS.name).to_table(columns=["object_id"])["object_id"].to_pylist())
    lost, doubled = 0, 0
    for stage, table in (("render", VIEWS), ("points", POINTS)):
        rows = corpus.need(table.name).to_table(columns=list(table.key)).to_pylist()
        failed = corpus.need(FAILURES.name).to_table(columns=["object_id"], filter=f"stage = '{stage}'")["object_id"].to_pylist()
        lost += len(ids - {row["object_id"] for row in rows} - set(failed))
        doubled += len(rows) - len({tuple(row.values()) for row in rows}) + len(failed) - len(set(failed))
    return lost, doubled


def plot(samples: list[Sample], file: Path) -> None:
    """The same as a picture: objects, and memory, over time."""
    import matplotlib.pyplot as pyplot

    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(10, 7))
    minutes = [sample.second / 60 for sample in samples]
    above.plot(minutes, [sample.settled for sample in samples])
    above.set_ylabel("objects")
    for name in ("driver_uss", "blender_rss", "blender_uss"):
        below.plot(minutes, [getattr(sample, name) for sample in samples], label=name)
    below.set(xlabel="minutes", ylabel="MB")
    below.legend()
    figure.savefig(file)


def main() -> int:
    """One run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--assets", type=Path, help="a folder of assets instead of made objects")
    parser.add_argument("--rig", default=RenderViews.rig)
    parser.add_argument("--size", type=int, default=RenderViews.width, help="of the square views, pixels")
    parser.add_argument("--samples", type=int, default=RenderViews.samples)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=BlenderSettings.threads, help="of one Blender")
    parser.add_argument("--device", default=BlenderSettings.device)
    parser.add_argument("--timeout", type=float, default=BlenderSettings.timeout_s)
    parser.add_argument("--stall", type=float, default=BlenderSettings.stall_s)
    parser.add_argument("--recycle-after", type=int, default=BlenderSettings.recycle_after)
    parser.add_argument("--recycle-mb", type=int, default=BlenderSettings.recycle_mb)
    parser.add_argument("--faults", type=float, metavar="SECONDS", help="let one happen so often, on average")
    parser.add_argument("--seed", type=int, default=0, help="of the made objects and of the faults")
    parser.add_argument("--root", type=Path, help="where to make the corpus; left out: a temporary folder")
    parser.add_argument("--plot", type=Path, help="a PNG; needs matplotlib")
    asked = parser.parse_args()
    settings = BlenderSettings(
        device=asked.device,
        threads=asked.threads,
        timeout_s=asked.timeout,
        stall_s=asked.stall,
        recycle_after=asked.recycle_after,
        recycle_mb=asked.recycle_mb,
    )
    render = RenderViews(rig=asked.rig, width=asked.size, height=asked.size, samples=asked.samples)
    work = BlenderPass(stages=(render, SamplePoints()), blender=settings)
    with tempfile.TemporaryDirectory(prefix="tricorpus-soak-") as scratch:
        if asked.assets:
            assets = sorted(path for path in asked.assets.resolve().rglob("*") if path.suffix[1:].lower() in AXES)
        else:
            write_objaverse(Path(scratch, "made"), min(MADE, asked.objects), asked.seed)
            assets = sorted(Path(scratch, "made").rglob("*.glb"))
        corpus = corpus_of(asked.root or Path(scratch, "corpus"), assets, asked.objects)
        blenders: list[Blender] = []
        began = time.monotonic()
        with corpus.lock(), Onlooker(faults_every=asked.faults, rng=random.Random(asked.seed)) as onlooker:

            def watch(_: int, counts: dict[str, int]) -> None:
                onlooker.settled = counts["done"] + counts["failed"]

            summaries = run(corpus, work, where=in_threads(asked.workers, blenders), workers=asked.workers, watch=watch)
        seconds = time.monotonic() - began
        lost, doubled = lost_and_doubled(corpus)
    tell_over_time(onlooker.samples)
    tell_change(onlooker.samples)
    ends = sum((blender.ends for blender in blenders), Counter())
    print(f"faults: {dict(onlooker.struck)}; Blender was ended for: {dict(ends)}")
    for summary in summaries:
        print(f"{summary.stage}: {summary.done} done, {summary.failed} failed {summary.reasons or ''}")
    print(
        f"{asked.objects} objects in {seconds:.0f} s, {60 * asked.objects / seconds:.1f} a minute; {lost} lost, {doubled} doubled"
    )
    if asked.plot and importlib.util.find_spec("matplotlib"):
        plot(onlooker.samples, asked.plot)
    elif asked.plot:
        print("no plot: matplotlib is not installed")
    return 1 if lost or doubled else 0


if __name__ == "__main__":
    sys.exit(main())
