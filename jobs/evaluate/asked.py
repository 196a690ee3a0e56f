"""What the jobs that evaluate have in common: benchmarks and methods as they are asked for, the leak check before any number, and
the table at the end.

    trials = trials_of(asked)                      # every method on every benchmark; what was trained on is told here
    for trial in trials:
        features = trial.features(asked)
        results.append(trial.result(task="zero-shot", fed="points", figures={...}))
    return finish(asked, results)
"""

import json
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from evaluate.benchmark import Benchmark
from evaluate.class_names import teacher_in_tables
from evaluate.features import IN_ORDER_DRAWN, SHORT, Features, are_raw, averages, features
from evaluate.leaks import Leaks, TrainedOn, leaks, trained_on
from evaluate.result import FILE, Figure, Result, Task, save, to_json
from evaluate.sets.named import open_benchmark
from evaluate.table import text
from jobs.arguments import Json
from jobs.evaluate.leaks import lines
from jobs.progress import progress
from jobs.refusal import Refusal
from pipeline.stage import ObjectError
from schemas.corpus import Reader
from trainer.checkpoints import OFFICIAL
from trainer.encode import Device, Encoder

MOST_NAMED = 5  # objects that failed, on one line


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Arguments of every job that evaluates; a job's own `Job` adds to them."""

    # What to evaluate on, each NAME=PLACE. NAME: modelnet40, scanobjectnn, scanobjectnn-obj-bg, scanobjectnn-pb-t50-rs, mvpnet,
    # objaverse-lvis, or a labelled split of a corpus. PLACE: its files in the official form, or the root of a corpus.
    benchmarks: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="BENCHMARK=PLACE …")]
    # Encoders: folders of checkpoints, names of published ones, or NAME=FILE for a published one that lies elsewhere.
    encoder: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CHECKPOINT …")] = ()
    # Teacher (ARCH:PRETRAINED) whose stored embeddings of an object's views are averaged: what needs no training.
    teacher: str | None = None
    # Lists or corpora that the encoders were trained on, where their own cards do not say: see `evaluate leaks`.
    trained_on: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LIST …")] = ()
    # Whether objects that were trained on are also looked for by shape, which takes minutes for large sets.
    near: bool = True
    # Leave the objects that were trained on out of the figures: these are then of other objects than the published ones.
    without_leaks: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    # cpu, cuda, or auto: a GPU if there is one.
    device: Device = "auto"
    # New folder for results.json, table.md and table.html.
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    # Print one JSON object instead of text.
    json: Json = False

    def say(self, line: str) -> None:
        """A line for a person."""
        if not self.json:
            print(line, flush=True)


class NothingEncoded(Refusal):
    """A method can say nothing of a benchmark; of others, perhaps."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """What is evaluated: an encoder, or (None) the mean of the teacher's embeddings of an object's views, which needs no training.

    `name`: as tables call it. `teacher`: whose space it is, as the corpus' tables call it; `weights_sha256` of its weights, None
    where that is not known.
    """

    name: str
    encoder: Encoder | None
    teacher: str
    weights_sha256: str | None = None

    @property
    def reads(self) -> Literal["points", "views"]:
        """What it is fed."""
        return self.encoder.reads if self.encoder else "views"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One method on one benchmark. `trained`: None: not known. `leaks`: None: nothing to compare with. `opened`: the benchmark as
    it was opened, with the objects that --without-leaks takes out of `benchmark`."""

    method: Method
    benchmark: Benchmark
    opened: Benchmark
    trained: TrainedOn | None
    leaks: Leaks | None

    def features(self, asked: Asked, *, views: int | None = None, seed: int = 0) -> Features:
        """What the method makes of the objects, a progress bar meanwhile; objects that cannot be had are named on a line."""
        told = f"{self.method.name} on {self.benchmark.name}" + (f", {views_told(views)}" if self.method.reads == "views" else "")
        with progress(f"{told}, seed {seed}", len(self.benchmark.ids), "objects", asked.json) as bar:
            report = {"progress": lambda done, failed: bar.update(done=done, failed=failed)}
            try:
                if self.method.encoder:
                    found = features(self.method.encoder, self.benchmark, views=views, seed=seed, **report)
                else:
                    found = averages(self.benchmark, self.method.teacher, views=views, seed=seed, **report)
            except ValueError as error:
                raise Refusal(f"{self.method.name} on {self.benchmark.name}: {error}") from error
        say_left_out(asked, told, found.failed)
        if not len(found.numbers):
            raise NothingEncoded(f"{told}: no object could be encoded", exit_code=1)
        return found

    def result(self, *, task: Task, fed: str, objects: int, figures: dict[str, Figure], **more: Any) -> Result:
        """A result of this trial; `more`: per_class, settings, seconds. Objects that could not be had are among the missing."""
        return Result(
            task=task,
            method=self.method.name,
            fed=fed,
            teacher=self.method.teacher,
            benchmark=self.benchmark.name,
            variant=self.benchmark.variant,
            objects=objects,
            missing=len(self.benchmark.missing) + len(self.benchmark.ids) - objects,
            classes=len(self.benchmark.classes),
            figures=figures,
            leaks=None if self.leaks is None else self.leaks.counts(),
            trained_on="nothing" if not self.method.encoder else self.trained.told if self.trained else None,
            **more,
        )


def say_left_out(asked: Asked, told: str, failed: dict[str, str]) -> None:
    """Name the objects that failed, by id, and why."""
    if failed:
        some = [f"{id}: {why}" for id, why in list(failed.items())[:MOST_NAMED]]
        more = f"; and {len(failed) - MOST_NAMED:,} more" if len(failed) > MOST_NAMED else ""
        asked.say(f"left out of {told}: {len(failed):,} objects: {'; '.join(some)}{more}")


def views_told(views: int | None) -> str:
    """So many views, in words."""
    return "all views" if views is None else "1 view" if views == 1 else f"{views} views"


def fed_with(trial: Trial) -> dict[str, Any]:
    """How the objects came to the encoder, as a result tells it."""
    encoder = trial.method.encoder
    if encoder is None:
        return {"averaged": "raw vectors" if are_raw(trial.benchmark.corpus, trial.method.teacher) else "unit vectors"}
    kind, input = encoder.card.encoder, encoder.card.input
    if encoder.reads == "views":
        return {"crop": f"{input.crop} pixels, in the middle" if input.crop else None}
    return {
        "points": input.points,
        "clouds of fewer": SHORT[kind],
        "order of points": "drawn by chance" if kind in IN_ORDER_DRAWN else "as stored",
        "colour where there is none": round(input.fill, 4),
    }


def trials_of(asked: Asked, opened: list[Benchmark] | None = None) -> list[Trial]:
    """Every method on every benchmark, as asked for or as opened already; the settings are printed, and then what of the benchmark
    was trained on."""
    if asked.out.exists() and (not asked.out.is_dir() or (asked.out / FILE).exists()):
        raise Refusal(f"--out {asked.out}: there is an evaluation already: give a new folder")
    opened = benchmarks(asked) if opened is None else opened
    tried = methods(asked, opened)
    for one in opened:
        missing = f", {len(one.missing):,} of its list are missing" if one.missing else ""
        asked.say(f"benchmark    {one.name}, {one.variant}: {len(one.ids):,} objects, {len(one.classes):,} classes{missing}")
    for one in tried:
        asked.say(f"method       {one.name}, from {one.reads}, in the space of {one.teacher}")
    return leak_check(asked, tried, opened)


def benchmarks(asked: Asked, part: Literal["test", "train"] = "test") -> list[Benchmark]:
    """The benchmarks, opened: their lists are read, their objects not yet."""
    if not asked.benchmarks:
        raise Refusal("say what to evaluate on, such as modelnet40=/data/modelnet40")
    opened = []
    for one in asked.benchmarks:
        try:
            opened.append(open_benchmark(one, part=part))
        except (ValueError, ObjectError) as error:
            raise Refusal(f"{one}: {error}", exit_code=2 if isinstance(error, ValueError) else 1) from error
    return opened


def methods(asked: Asked, opened: list[Benchmark]) -> list[Method]:
    """The encoders, loaded, and the teacher. Raises Refusal for what is not there, or stands in no teacher's space."""
    if not asked.encoder and not asked.teacher:
        raise Refusal("say what to evaluate: --encoder CHECKPOINT, or --teacher ARCH:PRETRAINED for the mean of its views")
    if len(set(asked.encoder)) < len(asked.encoder):
        raise Refusal("--encoder: one of them is given twice")
    found = [_encoder(place, asked.device) for place in asked.encoder]
    names = [one.name for one in found]
    found = [
        replace(one, name=place) if names.count(one.name) > 1 else one for one, place in zip(found, asked.encoder, strict=True)
    ]
    if asked.teacher:
        name = teacher_in_tables(asked.teacher)
        roots = [one.corpus for one in opened if one.corpus]
        for root in roots:
            Reader.at(root).need(f"image_embeddings/{name}")
        identities = [Reader.at(root).teacher_of(name) for root in roots]
        weights = next((said["weights_sha256"] for said in identities if said), None)
        found.append(Method(name="mean of views", encoder=None, teacher=name, weights_sha256=weights))
    return found


def _encoder(place: str, device: Device) -> Method:
    name, equals, file = place.partition("=")
    official = bool(equals) and name in OFFICIAL
    try:
        encoder = Encoder.load(file if official else place, name=name if official else None, device=device)
    except ValueError as error:
        raise Refusal(f"--encoder {place}: {error}", exit_code=1) from error
    teacher = encoder.card.teacher
    if teacher is None:
        raise Refusal(f"--encoder {place}: its card names no teacher, and nothing can be looked up in a space that nobody knows")
    called = encoder.card.made_by.get("published") or _checkpoint_name(Path(place))
    return Method(name=called, encoder=encoder, teacher=teacher["name"], weights_sha256=teacher.get("weights_sha256"))


def _checkpoint_name(folder: Path) -> str:
    """runs/mine/checkpoints/step-00000420 is called "mine, step 420"."""
    folder = folder.absolute()
    if folder.parent.name == "checkpoints" and folder.name.startswith("step-"):
        return f"{folder.parent.parent.name}, step {int(folder.name.removeprefix('step-')):,}"
    return folder.name


def leak_check(asked: Asked, tried: list[Method], opened: list[Benchmark]) -> list[Trial]:
    """Ask of every method which objects of every benchmark it was trained on, and print it; what does not go together is left out
    with a line."""
    trials: list[Trial] = []
    known = {method.name: _trained_on(asked, method) for method in tried}
    for method, benchmark in product(tried, opened):
        if method.reads == "views" and benchmark.corpus is None:
            asked.say(
                f"left out: {method.name} on {benchmark.name}: it sees views, and these are files of points; views are in a "
                f"corpus, as in {benchmark.name}=ROOT"
            )
            continue
        trained, found = known[method.name], None
        same = [one for one in trials if trained is not None and one.trained == trained and one.benchmark is benchmark]
        if same:
            found = same[0].leaks
            asked.say(f"{method.name}: leak check: as of {same[0].method.name}, which was trained on the same")
        elif method.encoder is None:
            asked.say(f"{method.name}: leak check: nothing was trained here; what {method.teacher} has seen is not known")
        else:
            found = None if trained is None else _leaks(asked, trained, benchmark)
            for line in lines(found, method.encoder.card):
                asked.say(f"{method.name}: {line}")
        trials.append(Trial(method=method, benchmark=benchmark, opened=benchmark, trained=trained, leaks=found))
    if not trials:
        raise Refusal("no method can be evaluated on any of the benchmarks")
    return [rest for benchmark in opened for rest in without_leaks(benchmark, trials)] if asked.without_leaks else trials


def without_leaks(benchmark: Benchmark, trials: list[Trial]) -> list[Trial]:
    """The trials of one benchmark, without the objects that any of the methods was trained on: all are asked about the same."""
    mine = [one for one in trials if one.benchmark is benchmark]
    leaked = {id for one in mine if one.leaks for ids in one.leaks.by_way().values() for id in ids}
    kept = [number for number, id in enumerate(benchmark.ids) if id not in leaked]
    if not leaked:
        return mine
    if not kept:
        raise Refusal(f"--without-leaks: all {len(leaked):,} objects of {benchmark.name} were trained on", exit_code=1)
    rest = replace(
        benchmark,
        variant=f"{benchmark.variant}, without {len(leaked):,} objects that were trained on",
        ids=tuple(benchmark.ids[number] for number in kept),
        labels=benchmark.labels[kept],
        cloud=benchmark.cloud and (lambda number: benchmark.cloud(kept[number])),
        file=lambda number: benchmark.file(kept[number]),
    )
    nothing = {"objects": len(kept), "by_id": (), "by_hash": (), "near": ()}
    return [replace(one, benchmark=rest, leaks=one.leaks and replace(one.leaks, **nothing)) for one in mine]


def _leaks(asked: Asked, trained: TrainedOn, benchmark: Benchmark) -> Leaks:
    with progress(f"leak check of {benchmark.name}", None, "clouds and pairs", asked.json) as bar:
        try:
            return leaks(trained, benchmark, near=asked.near, progress=lambda done, total: bar.update(done=done, total=total))
        except ObjectError as error:
            raise Refusal(f"leak check of {benchmark.name}: {error}; --no-near leaves shapes out", exit_code=1) from error


def _trained_on(asked: Asked, method: Method) -> TrainedOn | None:
    if method.encoder is None:
        return None
    try:
        return trained_on(method.encoder.card, lists=asked.trained_on)
    except (ValueError, ObjectError) as error:
        raise Refusal(f"--trained-on: {error}") from error


def finish(asked: Asked, results: list[Result]) -> int:
    """Write the results and their tables into the folder, and print them."""
    save(asked.out, results)
    if asked.json:
        print(json.dumps({"out": str(asked.out), "results": [to_json(one) for one in results]}, ensure_ascii=False))
    else:
        print(f"\n{text(results)}\n\n{asked.out}: {len(results)} results in {FILE}, table.md and table.html")
    return 0
