"""Training: the tables of a corpus in, an encoder out.

    from trainer.recipes import RECIPES
    from trainer.train import Run, train

    trained = train(Run(root="/data/corpus", out="runs/pointbert", recipe=RECIPES["pointbert-small"], teacher=TEACHER))
    trained.best                                   # the folder of the best checkpoint: trainer.checkpoints.load, trainer.encode

Killed at any time, the same call goes on from the last checkpoint and gives the same losses: the corpus' versions are those of the
first start, and no random number depends on what was drawn before.

Several processes train together under `torchrun`, by `spawned`, and on a cluster by trainer/on_ray.py: each calls `train`.
"""

import json
import math
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor

from schemas.corpus import Reader
from trainer import checkpoints, curves
from trainer.card import Card
from trainer.data import Loader
from trainer.encoders import duoduo, pointbert, uni3d
from trainer.kept import BEST, RUN, Kept
from trainer.learner import Clock, Learner
from trainer.logbook import Logbook
from trainer.losses.gathering import rank_and_ranks
from trainer.recipes import Recipe
from trainer.validation import HeldOut, divided

LOOKS = 25  # at the held-out objects in a short run; in a long one at least every MOST_BETWEEN steps; never twice in an epoch
MOST_BETWEEN = 5000
NAMED = 8  # objects of a step that failed
# What decides a run's outcome, and may not change when it goes on.
SETTINGS = ("recipe", "teacher", "held_out", "labels", "initial", "accumulate")


class TrainingStopped(ValueError):
    """The run cannot go on as asked; the message says why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run. `out`: folder or URI that keeps it, seen by all machines; `teacher`: its name in the corpus' tables.

    `held_out`: share of the objects, by a hash of their ids, or the name of a split, that is never trained on. `labels`: the split
    whose labels are the classes of zero-shot figures; None: the usual one. `initial`: what to start from: a checkpoint's folder,
    the name of a published one, or a weights file (of a picture model for Uni3D, of a CLIP model for Duoduo CLIP). `accumulate`:
    parts that a process cuts its share of a batch into. `device`: auto, cpu or cuda. `look_every`, `save_every`: steps between
    looks at the held-out objects (None: LOOKS) and between checkpoints; `keep`: last checkpoints kept, beside the best.
    `log_every`: steps between looks at the figures of steps, None: 1, or 10 on a GPU, for which a look is a wait. `wandb`: a
    project there.
    """

    root: str
    out: str
    recipe: Recipe
    teacher: str
    held_out: str | float = 0.1
    labels: str | None = None
    initial: str | None = None
    accumulate: int = 1
    compile: bool = False
    device: str = "auto"
    look_every: int | None = None
    save_every: int = 1000
    keep: int = 2
    log_every: int | None = None
    draw_curves: bool = True
    wandb: str | None = None

    def settings(self) -> dict[str, Any]:
        """What may not change when the run goes on."""
        settings = {name: value for name, value in asdict(self).items() if name in SETTINGS}
        settings["initial"] = self.initial and Path(self.initial).name  # other machines have it elsewhere
        return json.loads(json.dumps(settings))


@dataclass(frozen=True)
class Trained:
    """What became of a run: steps done and wanted, objects trained on and held out, and where the best and the last checkpoint are.
    `figures`: of the last look at the held-out objects; `best_figures`: of the best. `stopped`: it was told to stop before its end.
    """

    steps: int
    total: int
    objects: int
    held_out: int
    seconds: float
    last: str
    best: str
    figures: dict[str, float]
    best_figures: dict[str, float]
    curves: str | None
    stopped: bool


@contextmanager
def unseen(title: str, total: int, unit: str) -> Iterator[None]:
    """A progress that nobody watches. Others have `update(done=…)`."""
    yield None


def train(run: Run, progress: Callable[..., AbstractContextManager[Any]] = unseen, say: Callable[[str], None] = print) -> Trained:
    """Train, or go on where this run stopped, until its recipe's epochs are done.

    In a process group every process calls it and gets the same result; only the first writes, shows progress and says anything.
    Raises TrainingStopped for a loss that is no number, for settings other than those that the run was begun with, and for a batch
    or a schedule that cannot be; CorpusError for what the corpus lacks.
    """
    with _told_to_stop() as stop:
        return _Training(run, say).go(progress, stop)


class _Training:
    """One process of a run."""

    def __init__(self, run: Run, say: Callable[[str], None]):
        recipe = run.recipe
        self.run, self.recipe, self.say = run, recipe, say
        self.began = time.monotonic()
        self.rank, self.ranks = rank_and_ranks()
        self.device = _device(run.device)
        self.kept = Kept(run.out)
        self.corpus = Reader.at(run.root)
        self.versions = self._versions()
        self.loader, held = self._loader()
        self.per_epoch = self.loader.steps_per_epoch
        self.total = recipe.epochs * self.per_epoch
        self._check()
        initial = initial_weights(recipe, run.initial) if run.initial else None
        self.learner = Learner(recipe, self.device, initial=initial, accumulate=run.accumulate, compiled=run.compile)
        self.held_out = self._held_out(held) if len(held) >= self.ranks else None
        self.look_every = run.look_every or max(self.per_epoch, min(math.ceil(self.total / LOOKS), MOST_BETWEEN))
        self.log_every = run.log_every or (10 if self.device.type == "cuda" else 1)
        self.done, self.figures, self.saved = 0, {}, 0
        checkpoints_here = self.kept.done()
        if self.ranks > 1:
            dist.barrier()  # before any is made or removed
        if checkpoints_here:
            weights, state = self.kept.load(checkpoints_here[-1])
            self.learner.load(weights, state["learner"])
            self.done, self.figures, self.saved = state["done"], state["figures"], state["done"]

    def _versions(self) -> dict[str, int]:
        """Versions of all tables at the run's first start."""
        told: list[Any] = [None]
        if self.rank == 0:
            told = [self._begun()]
        if self.ranks > 1:
            dist.broadcast_object_list(told)
        if isinstance(told[0], str):
            raise TrainingStopped(told[0])
        return told[0]

    def _begun(self) -> dict[str, int] | str:
        settings = self.run.settings()
        before = self.kept.read(RUN)
        if before is None:
            return {name: self.corpus.need(name).version for name in self.corpus.tables()}
        if different := list(_different(before["settings"], settings)):
            return (
                f"{self.run.out} holds a run with other settings ({'; '.join(different)}): go on with those, or train with another "
                "--out"
            )
        return before["versions"]

    def _loader(self) -> tuple[Loader, list[str]]:
        """Of the objects to train on; and those held out."""
        table = f"image_embeddings/{self.run.teacher}"
        embedded = self.corpus.need(table) and self.corpus.open(table, self.versions[table])
        ids = embedded.to_table(columns=["object_id"])["object_id"].to_pylist()
        kept, held = divided(self.corpus, ids, self.run.held_out, self.versions.get("splits"))
        try:
            loader = Loader(
                self.run.root,
                self.run.teacher,
                self.recipe.draws,
                batch=self.recipe.batch,
                seed=self.recipe.seed,
                rank=self.rank,
                ranks=self.ranks,
                keep=kept,
                versions=self.versions,
                points=self.recipe.points,
                pinned=self.device.type == "cuda",
            )
        except ValueError as error:  # too few objects for a batch
            raise TrainingStopped(f"{error}; {len(kept):,} are not held out (--batch N, --held-out SHARE)") from error
        return loader, held

    def _held_out(self, ids: list[str]) -> HeldOut:
        try:
            return HeldOut(self.run.root, self.learner, self.run.teacher, ids, self.run.labels, self.versions)
        except ValueError as error:
            raise TrainingStopped(
                f"none of the {len(ids):,} objects held out can be looked at ({error}): hold out others, or none (--held-out 0)"
            ) from error

    def _check(self) -> None:
        """Raise TrainingStopped for what would not train."""
        batch, parts = self.recipe.batch, self.ranks * self.run.accumulate
        if batch % parts:
            raise TrainingStopped(
                f"a batch of {batch} cannot be cut into equal parts for {self.ranks} processes that accumulate "
                f"{self.run.accumulate}: make --batch a multiple of {parts}"
            )
        warmup = self.recipe.schedule.warmup(self.per_epoch)
        if warmup >= self.total:
            raise TrainingStopped(
                f"the learning rate would rise for {warmup:,} steps, and the run has {self.total:,}: it would never be there; "
                f"shorten the rise, e.g. --warmup-steps {self.total // 10}, or train for more --epochs"
            )

    def go(self, progress: Callable[..., AbstractContextManager[Any]], stop: threading.Event) -> Trained:
        """Train to the end, or until told to stop."""
        recipe = self.recipe
        log = None
        if self.rank == 0:
            told = {"settings": self.run.settings(), "root": self.corpus.root, "versions": self.versions}
            try:
                log = Logbook(self.kept.folder, self.done, self.run.wandb, told)
            except ValueError as error:
                raise TrainingStopped(str(error)) from error
            if not self.kept.read(RUN):
                self.kept.write(RUN, told)
            self._introduce()
        stopped = False
        pending: list[_Step] = []
        before = self.done
        with (progress if self.rank == 0 else unseen)("train", self.total - before, "steps") as shown:
            while self.done < self.total and not stopped:
                asked = time.perf_counter()
                for batch in self.loader.epoch(*divmod(self.done, self.per_epoch)):
                    waited = time.perf_counter() - asked
                    told, clock = self.learner.step(batch, recipe.schedule.at(self.done, self.per_epoch, recipe.epochs))
                    self.done += 1
                    pending.append(_Step(self.done, batch.epoch, batch.ids, told, clock, waited, asked))
                    due = self.done == self.total
                    look, save = due or not self.done % self.look_every, due or not self.done % self.run.save_every
                    if look or save or not self.done % self.log_every:
                        stopped = self._written(pending, log, stop)
                        pending = []
                        if shown:
                            shown.update(done=self.done - before)
                    if look or save or stopped:
                        self._look_and_save(look, log)
                    asked = time.perf_counter()
                    if stopped:
                        break
        return self._finished(log, stopped)

    def _written(self, steps: list["_Step"], log: Logbook | None, stop: threading.Event) -> bool:
        """Write down the figures of some steps, the mean over the ranks; whether any rank was told to stop. Raises TrainingStopped
        for a loss that is no number."""
        names = list(steps[0].told)
        table = torch.stack([torch.stack([step.told[name].double() for name in names]) for step in steps])
        table = torch.cat([table, torch.full_like(table[:, :1], float(stop.is_set()))], dim=1)
        if self.ranks > 1:
            dist.all_reduce(table)
        rows = (table / self.ranks).tolist()  # the only wait for the device
        now = time.perf_counter()
        seconds = (now - steps[0].asked) / len(steps)
        for step, (*values, _) in zip(steps, rows, strict=True):
            figures = dict(zip(names, values, strict=True))
            bad = [name for name in ("loss", "grad_norm") if not math.isfinite(figures[name])]
            if bad and not (bad == ["grad_norm"] and self.learner.scaler.is_enabled()):  # there an overflow leaves the step out
                where = " on this process" if self.ranks > 1 else ""
                objects = f"{', '.join(step.ids[:NAMED])}{' …' if len(step.ids) > NAMED else ''}"
                raise TrainingStopped(
                    f"step {step.done} (epoch {step.epoch}): {bad[0]} is {figures[bad[0]]}. Its objects{where}: {objects}. Look at "
                    f"their rows (python -m jobs evaluate canary {self.corpus.root}); if those are sound, lower the learning rate, "
                    f"or train in bfloat16 or float32. The last checkpoint, of step {self.saved}, is as it was"
                )
            if log:
                split = {f"seconds/{name}": spent for name, spent in {"wait": step.waited, **step.clock.seconds()}.items()}
                figures |= {"samples_per_second": self.recipe.batch / seconds, **split}
                log.write(step.done, figures, epoch=step.epoch)
        return any(row[-1] > 0 for row in rows)

    def _look_and_save(self, look: bool, log: Logbook | None) -> None:
        """Look at the held-out objects, if it is time and there are any, and make a checkpoint."""
        best = None
        if look and self.held_out:
            first = not self.figures
            self.figures = self.held_out.figures()
            best = _is_better(self.figures, (self.kept.read(BEST) or {}).get("figures")) if self.rank == 0 else None
            if log:
                log.write(self.done, self.figures)
                epoch = (self.done - 1) // self.per_epoch + 1
                self.say(f"step {self.done:,} (epoch {epoch}): {in_words(self.figures, alone=not first)}")
        if self.rank == 0:
            log.flush()
            self.kept.save(self.done, self.learner.evaluated, self._card(), self._state())
            if best:
                self.kept.write(BEST, {"step": self.done, "figures": self.figures})
            self.kept.publish()
            self.kept.prune(self.run.keep)
        self.saved = self.done

    def _state(self) -> dict[str, Any]:
        return {"done": self.done, "figures": self.figures, "learner": self.learner.state()}

    def _card(self) -> Card:
        recipe = self.recipe
        return Card(
            encoder=recipe.kind,
            config=asdict(recipe.encoder),
            input=recipe.input,
            teacher=self.loader.teacher,
            data={"root": self.corpus.root, "versions": self.versions},
            made_by={"recipe": recipe.name, "settings": self.run.settings()},
            steps=self.done,
            epochs=self.done / self.per_epoch,
        )

    def _introduce(self) -> None:
        learning = sum(one.numel() for one in self.learner.encoder.parameters() if one.requires_grad)
        everything = sum(one.numel() for one in self.learner.encoder.parameters())
        lines = [
            f"encoder      {self.recipe.kind}, {everything:,} parameters, of which {learning:,} learn, on {self.device}"
            + (f" x {self.ranks} processes" if self.ranks > 1 else ""),
            f"objects      {self.loader.objects:,} to train on; held out: {self.run.held_out}",
            f"steps        {self.total:,} in {self.recipe.epochs} epochs"
            + (f", of which {self.done:,} are done" if self.done else ""),
        ]
        self.say("\n".join(lines))

    def _finished(self, log: Logbook | None, stopped: bool) -> Trained:
        told: list[Any] = [None]
        if log:
            log.close()
            picture = None
            if self.run.draw_curves:
                picture = self.kept.folder / "curves.png"
                curves.draw([self.kept.folder], picture)
            self.kept.publish()
            best = self.kept.read(BEST) or {"step": self.done, "figures": self.figures}
            told = [
                Trained(
                    steps=self.done,
                    total=self.total,
                    objects=self.loader.objects,
                    held_out=self.held_out.objects if self.held_out else 0,
                    seconds=time.monotonic() - self.began,
                    last=self.kept.place(self.done),
                    best=self.kept.place(best["step"]),
                    figures=self.figures,
                    best_figures=best["figures"],
                    curves=str(picture) if picture else None,
                    stopped=stopped,
                )
            ]
        if self.ranks > 1:
            dist.broadcast_object_list(told)
        return told[0]


@dataclass(frozen=True)
class _Step:
    """A step whose figures nobody has looked at yet. `waited`: seconds for its batch; `asked`: when it was asked for."""

    done: int
    epoch: int
    ids: list[str]
    told: dict[str, Tensor]
    clock: Clock
    waited: float
    asked: float


def in_words(figures: dict[str, float], *, alone: bool = False) -> str:
    """Held-out figures for people: top-1, unless `alone` beside what needs no training and what chance gives."""
    said = [f"held-out loss {figures['held_out/loss']:.3f}"] if "held_out/loss" in figures else []
    for what, title in (("zero_shot", "zero-shot"), ("text", "own text")):
        if (own := f"held_out/{what}/top1") in figures:
            untrained, chance = (figures[f"held_out/{what}/{who}/top1"] for who in ("untrained", "chance"))
            beside = "" if alone else f" (mean of the views, untrained: {untrained:.1%}; chance: {chance:.1%})"
            said.append(f"{title} top-1 {figures[own]:.1%}{beside}")
    return ", ".join(said) or "no held-out objects"


def _is_better(figures: dict[str, float], best: dict[str, float] | None) -> bool:
    """By zero-shot top-1, and among equals, or where nothing is named, by the held-out loss."""

    def merit(of: dict[str, float]) -> tuple[float, float]:
        return of.get("held_out/zero_shot/top1", 0.0), -of["held_out/loss"]

    return best is None or merit(figures) > merit(best)


def _different(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """The settings that differ, by their full name, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before | now:
            yield from _different(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{name}: {before} then, {now} now"


def initial_weights(recipe: Recipe, place: str) -> dict[str, Tensor]:
    """The weights that `Run.initial` names, by the keys of the recipe's encoder. Raises TrainingStopped for what is not there or is
    of something else."""
    try:
        if place in checkpoints.OFFICIAL or Path(place).is_dir():
            return checkpoints.load(place)[0].state_dict()
        if not Path(place).exists():
            raise FileNotFoundError(place)
        state = checkpoints.tensors(Path(place))
        match recipe.kind:
            case "duoduo":
                return duoduo.official(state)
            case "pointbert":
                return pointbert.official(state)
            case "uni3d":
                of_pictures = any(key.startswith("blocks.") for key in state)
                return uni3d.initial_2d(state, recipe.encoder) if of_pictures else uni3d.official(state)
    except FileNotFoundError as error:
        raise TrainingStopped(
            f"there is no {place} to start from: a checkpoint's folder, a published name, or a weights file"
        ) from error
    except Exception as error:  # every format and every mismatch has its own way to say so
        raise TrainingStopped(f"cannot start from {place}: {error}") from error


def _device(asked: str) -> torch.device:
    if asked == "cpu" or asked == "auto" and not torch.cuda.is_available():
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise TrainingStopped(f"device {asked}: there is no GPU that torch can use here; --device cpu trains on the cores")
    return torch.device("cuda", torch.cuda.current_device())  # which one, whoever made the process has said


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """Set when this process is told to end (SIGTERM): the step is finished and a checkpoint made."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # someone else looks after signals (Ray)
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


# Several processes


@contextmanager
def process_group(rank: int, ranks: int, meeting: str, gpu: int | None) -> Iterator[None]:
    """This process as one of a group: nccl where each has a `gpu`, else gloo. `meeting`: where they find each other, as
    torch.distributed's init_method has it."""
    if gpu is not None:
        torch.cuda.set_device(gpu)
    dist.init_process_group("gloo" if gpu is None else "nccl", init_method=meeting, rank=rank, world_size=ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def under_torchrun() -> Iterator[None]:
    """The group that torchrun's variables describe, if it started this process and nobody has made the group yet."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or dist.is_initialized():
        yield
        return
    gpu = int(os.environ["LOCAL_RANK"]) if torch.cuda.is_available() else None
    with process_group(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), "env://", gpu):
        yield


def spawned(
    run: Run,
    processes: int,
    progress: Callable[..., AbstractContextManager[Any]] = unseen,
    say: Callable[[str], None] = print,
) -> Trained:
    """As `train`, by so many processes of this machine, with a GPU each where there are any. `progress` and `say` must be
    picklable. Told to end (SIGTERM), they all finish their step. Raises what `train` raises."""
    gpus = 0 if run.device == "cpu" else torch.cuda.device_count()
    if gpus and processes > gpus:
        raise TrainingStopped(f"{processes} processes, but {gpus} GPUs here: one process has one GPU (--device cpu uses the cores)")
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="tricorpus-meeting-") as folder, _told_to_stop() as stop:
        threads = max(1, (os.cpu_count() or 1) // processes)
        ends = [context.Pipe(duplex=False) for _ in range(processes)]
        workers = [
            context.Process(
                target=_one_of, args=(end, rank, processes, f"file://{folder}/meeting", gpus > 0, threads, run, progress, say)
            )
            for rank, (_, end) in enumerate(ends)
        ]
        for worker, (_, end) in zip(workers, ends, strict=True):
            worker.start()
            end.close()
        try:
            return _first_word(workers, [end for end, _ in ends], stop)
        finally:
            for worker in workers:
                worker.kill()  # those that wait for one that is gone; the others have ended
                worker.join()


def _first_word(workers: list[Any], ends: list[Any], stop: threading.Event) -> Trained:
    """What the first process says in the end, or what any of them stumbled over."""
    open_ends, told, result = list(ends), False, None
    while open_ends:
        if stop.is_set() and not told:
            told = True
            for worker in workers:
                worker.terminate()
        for end in wait(open_ends, timeout=0.2):
            open_ends.remove(end)
            try:
                said = end.recv()
            except EOFError:
                code = workers[ends.index(end)].exitcode
                raise TrainingStopped(
                    f"process {ends.index(end)} of the run died (exit code {code}; -9 is often memory running out): the same "
                    "command goes on from the last checkpoint"
                ) from None
            if isinstance(said, Exception):
                raise said
            result = said
    return result


def _one_of(
    end: Any, rank: int, ranks: int, meeting: str, on_gpu: bool, threads: int, run: Run, progress: Any, say: Callable[[str], None]
) -> None:
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a key press reaches all; the first process is who answers it
    try:
        with process_group(rank, ranks, meeting, rank if on_gpu else None):
            said: Any = train(run, progress, say)
    except Exception as error:  # it is raised again where the processes were started
        error.add_note(f"in process {rank} of {ranks}")
        said = error
    end.send(said)
