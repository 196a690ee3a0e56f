"""Who is compared by benchmarks/render.py: the assets, and what peer, reference and our stages make of them."""

import hashlib
import io
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from ast import dump, parse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import psutil
from PIL import Image

from benchmarks.likeness import Picture, reduced
from pipeline.assets.limits import Limits
from pipeline.assets.staging import staged
from pipeline.fetch.cache import stamp_of
from pipeline.ingest import objects_row
from pipeline.sources.folder import Folder
from pipeline.sources.record import record
from pipeline.sources.source import source_from
from pipeline.stage import ObjectError, Row, Task
from render.blender import BlenderSettings
from render.blender_pass import AssetStage, BlenderPass, RenderViews
from render.spec import AXES, Cycles, Request

ROOT = Path(__file__).resolve().parent.parent

PEER_SIZE = 512
# A reference is made anew when the code of its scene changes: that of Blender's side but for what comes after the scene.
AFTER_THE_SCENE = {"engine", "facts", "maps", "mesh", "paints", "pass", "worker"}
SCENE_CODE = [
    path
    for path in sorted([*ROOT.glob("render/blender_*.py"), *ROOT.glob("benchmarks/blender_*.py")])
    if path.stem.removeprefix("blender_") not in AFTER_THE_SCENE
]

RESULT_SECONDS = 1800  # within which one of our workers must have done an object; if not, it has been killed


class TimedViews(RenderViews):
    """The stage `render`, which leaves in `clock` how long the object's steps took: in Blender, and from there to rows."""

    clock: ClassVar[dict[str, float]] = {}

    def rows(self, object_id, made):
        began = time.perf_counter()
        rows = super().rows(object_id, made)
        self.clock.update(made.answer.seconds, rows=time.perf_counter() - began)
        return rows


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Who is compared with whom. `views`: those that are looked at; `workers`: our Blenders side by side; `kept`: where references
    are; `peer_light`: as LIGHT of benchmarks/blender_peer.py."""

    kept: Path
    workers: int
    stage: TimedViews = TimedViews()
    views: tuple[int, ...] = (0, 5, 10)  # of openshape-12@1: one of each ring
    peer_light: Literal["ours", "own"] = "ours"
    peer_samples: int = 32
    reference_samples: int = 2048


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds of wall clock and of CPU time (all processes) that an object took; ours is wall clock over workers."""

    wall: float
    cpu: float


# ---------------------------------------------------------------------------------------------------------------- assets


def records(place: str) -> Iterator[Row]:
    """What lies at a place of the command line, as `pipeline.sources.record` has it. Raises ValueError and FileNotFoundError."""
    if "=" in place:
        yield from source_from(place).records()
    elif os.path.isdir(place):
        yield from Folder(name=Path(place).resolve().name, root=os.path.abspath(place)).records()
    else:
        path = os.path.abspath(place)
        yield record(source="file", source_id=path, asset_uri=path, asset_stamp=stamp_of(os.stat(path)))


def chosen(places: Sequence[str], limit: int | None) -> list[Row]:
    """The rows of OBJECTS of the assets to measure, ascending by size. `limit`: so many, evenly over the order of sizes."""
    usable = [one for place in places for one in records(place) if one["asset_format"] in AXES and one["asset_stamp"]]
    usable = sorted(
        (one for one in usable if not one["unusable"]), key=lambda one: (os.path.getsize(one["asset_uri"]), one["object_id"])
    )
    if limit is not None and limit < len(usable):
        usable = [usable[place] for place in np.linspace(0, len(usable) - 1, limit).round().astype(int)]
    rows = []
    for one in usable:
        try:
            rows += objects_row(Task(id=one["object_id"], keys={}, rows=[one]), Limits())
        except ObjectError as error:
            print(f"{one['object_id']}: left out, {error.reason}: {error}", file=sys.stderr)
    return rows


def request_of(row: Row, asset: Path, folder: Path) -> Request:
    """A request for the copy of an asset, with its results in `folder`."""
    return Request(asset=str(asset), format=row["asset_format"], companions=(), front=row["front"], folder=str(folder))


def copied(row: Row, into: Path) -> Path:
    """The copy of an asset that Blender gets, in an empty folder. Raises ObjectError."""
    into.mkdir(parents=True)
    files = [(file["role"], file["name"], file["uri"]) for file in row["companions"]]
    return staged(row["asset_uri"], row["asset_format"], files, into)


# ---------------------------------------------------------------------------------------------------------------- peer, reference


def in_blender(recipe: str, lights: str, request: Request) -> Cost:
    """Has a new process render a request (benchmarks/blender_peer.py); what that cost. Raises ObjectError("render_failed")."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.blender_peer", recipe, lights],
        input=request.to_json(),
        text=True,
        cwd=ROOT,
        env=os.environ | {"BLENDER_USER_RESOURCES": request.folder},  # no settings of the user's
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise ObjectError("render_failed", f"the {recipe}'s Blender ended with {done.returncode}", log_tail=done.stdout[-2000:])
    return Cost(wall=wall, cpu=after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def peers(row: Row, how: Comparison) -> tuple[Cost, list[Picture]]:
    """What all views of an object cost by the peer's recipe, and those looked at in the stage's size. Raises ObjectError."""
    stage = how.stage
    large = replace(stage, width=PEER_SIZE * stage.width // stage.height, height=PEER_SIZE)
    with tempfile.TemporaryDirectory() as folder:
        request = request_of(row, copied(row, Path(folder, "asset")), Path(folder))
        pictures = replace(large.pictures(row["object_id"]), cycles=Cycles(samples=how.peer_samples))
        cost = in_blender("peer", how.peer_light, replace(request, pictures=pictures))
        return cost, [reduced(_read(Path(folder, f"{view:03d}.png")), stage.width, stage.height) for view in how.views]


def references(row: Row, how: Comparison, lights: str) -> list[Picture]:
    """The views looked at of an object as they are when all noise is gone; kept ones where there are. Raises ObjectError."""
    stage, kept = how.stage, how.kept
    pictures = replace(stage.pictures(row["object_id"]), cycles=Cycles(samples=how.reference_samples))
    code = [dump(parse(path.read_text())) for path in SCENE_CODE]  # not its comments
    looks = [row["asset_sha256"], row["companions_sha256"], row["front"], lights, *code]
    looks += [how.reference_samples, stage.width, stage.height]
    files = [kept / f"{_hashed([*looks, asdict(pictures.views[view])])}.png" for view in how.views]
    missing = [number for number, file in enumerate(files) if not file.exists()]
    if missing:
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept) as folder:
            request = request_of(row, copied(row, Path(folder, "asset")), Path(folder))
            wanted = tuple(pictures.views[how.views[number]] for number in missing)
            in_blender("reference", lights, replace(request, pictures=replace(pictures, views=wanted)))
            for place, number in enumerate(missing):
                os.rename(Path(folder, f"{place:03d}.png"), files[number])
    return [_read(file) for file in files]


def _hashed(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _read(file: Path | io.BytesIO) -> Picture:
    return np.asarray(Image.open(file).convert("RGBA"))


# ---------------------------------------------------------------------------------------------------------------- ours


@dataclass(frozen=True, kw_only=True)
class Ours:
    """What an object came to: its cost, seconds of wall clock by step, and its chosen views."""

    cost: Cost
    seconds: dict[str, float]
    pictures: list[Picture]


def ours(
    rows: list[Row], stages: tuple[AssetStage, ...], views: Sequence[int], workers: int
) -> tuple[float, dict[str, Ours | ObjectError]]:
    """Makes the stages' rows of all objects, the largest assets first; wall clock of all, and each object's by its id.

    `workers` processes, each with a Blender of one thread, which has done an object before time counts.
    """
    context = multiprocessing.get_context("spawn")
    tasks, results = context.Queue(), context.Queue()
    arguments = (stages, views, workers, rows[0], tasks, results)
    processes = [context.Process(target=_work, args=arguments, daemon=True) for _ in range(workers)]
    for process in processes:
        process.start()
    for _ in processes:
        _next(results)
    began = time.perf_counter()
    for row in [*reversed(rows), *[None] * workers]:
        tasks.put(row)
    made = dict(_next(results) for _ in rows)
    wall = time.perf_counter() - began
    for process in processes:
        process.join()
    return wall, made


def _work(stages: tuple[AssetStage, ...], views: Sequence[int], workers: int, first: Row, tasks, results) -> None:
    work = BlenderPass(stages=stages, blender=BlenderSettings(threads=1, device="cpu")).start()
    try:
        _made(work, stages, first, views, workers)
        results.put("warm")
        while row := tasks.get():
            results.put((row["object_id"], _made(work, stages, row, views, workers)))
    except BaseException as error:
        results.put(error)
        raise
    finally:
        work.close()


def _next(results) -> Any:
    """The next result. Raises what a worker raised."""
    result = results.get(timeout=RESULT_SECONDS)
    if isinstance(result, BaseException):
        raise result
    return result


def _made(work, stages: tuple[AssetStage, ...], row: Row, views: Sequence[int], workers: int) -> Ours | ObjectError:
    TimedViews.clock.clear()
    cpu, began = _cpu_seconds(), time.perf_counter()
    made = work([Task(id=row["object_id"], keys={stage.name: "" for stage in stages}, rows=[row])])
    wall, cpu = time.perf_counter() - began, _cpu_seconds() - cpu
    for failed in made.failures.values():
        return failed[row["object_id"]]
    found = made.rows[TimedViews.name]
    pictures = [_read(io.BytesIO(found[view]["image"])) for view in views]
    seconds = {"whole": wall} | TimedViews.clock
    return Ours(cost=Cost(wall=wall / workers, cpu=cpu), seconds=seconds, pictures=pictures)


def _cpu_seconds() -> float:
    """User and system time of this process and of all that it started, also of what has ended."""
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:4]) for process in (own, *own.children(recursive=True)))
