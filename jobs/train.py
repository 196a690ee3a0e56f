"""Train an encoder on a corpus: points or views in, the teacher's space out. Kill it at any time; the same command goes on.

python -m jobs train /data/corpus --recipe openshape-pointbert --out runs/pointbert --processes 8

python -m jobs train demo/corpus --recipe pointbert-small --out runs/small
"""

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import tyro

from evaluate.canary import FLOOR, canary
from jobs.arguments import Json, Root
from jobs.progress import duration, progress
from jobs.refusal import Refusal
from pipeline.on_ray import cluster, gpus
from pipeline.weights import TeacherError, name_in_tables, weights_file
from schemas.corpus import Reader
from schemas.tables import VIEWS
from trainer.encoders.duoduo import DuoduoConfig
from trainer.recipes import RECIPES, Recipe
from trainer.train import Run, Trained, TrainingStopped, in_words, spawned, train, under_torchrun

TERMINATED = 143  # the exit code of a program that SIGTERM ended
_FIRST = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts, each of which runs this job


@dataclass(frozen=True, kw_only=True)
class Job:
    # Folder or URI of the corpus.
    root: Root
    # How to train which encoder, by name: a published system (openshape-pointbert, mrd-b, uni3d-b, duoduo, …) or a small one
    # (pointbert-small, pointbert-small-mrd, uni3d-small, multiview-small).
    recipe: str
    # Folder or URI that keeps the run: checkpoints, logs, curves. With several machines, one that all of them see.
    out: str
    # Whose embeddings are the targets: ARCH:PRETRAINED, or a name as the tables have it. Default: the corpus' only teacher.
    teacher: str | None = None
    # Never trained on: a share of the objects, chosen by a hash of their ids, or the name of a split.
    held_out: str = "0.1"
    # List whose labels are the classes of the held-out figures. Default: objaverse-lvis, or the only list with labels; else
    # categories.
    labels: str | None = None
    # What to start from: a checkpoint's folder, a published checkpoint's name, or a file of weights. Default: for DuoduoCLIP the
    # teacher's own weights, else chance.
    initial: str | None = None

    # Instead of the recipe's: passes over the objects …
    epochs: int | None = None
    # … objects of a step, over all processes …
    batch: int | None = None
    # … learning rate …
    lr: float | None = None
    # … steps in which it rises …
    warmup_steps: int | None = None
    # … arithmetic of the encoder …
    precision: Literal["float32", "bfloat16", "float16"] | None = None
    # … and the seed of all chance.
    seed: int | None = None

    # Processes of this machine, with a GPU each where there are any; on a Ray cluster, its workers. (torchrun works as well.)
    processes: int = 1
    # Train on a Ray cluster of this machine.
    ray: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    # Train on this Ray cluster (ray://HOST:10001, or auto).
    address: str | None = None
    # Parts that each process cuts its share of a batch into, one after the other in memory; the gradient is that of the whole
    # batch.
    accumulate: int = 1
    # Compute activations again in the backward pass instead of keeping them: less memory, a third more time.
    checkpointing: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    # Let torch compile the encoder.
    compile: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    # auto: a GPU where there is one.
    device: Literal["auto", "cpu", "cuda"] = "auto"

    # Steps between checkpoints, and how many of them are kept beside the best.
    save_every: int = 1000
    keep: int = 2
    # Steps between looks at the held-out objects. Default: some 25 looks, none less than an epoch apart.
    look_every: int | None = None
    # Also log to this project of Weights & Biases (pip install wandb).
    wandb: str | None = None
    # Share of the published top-1 (where one is known) that the corpus' embeddings must reach, and whether to ask them at all.
    floor: float = FLOOR
    canary: bool = True
    # Print one JSON object instead of text.
    json: Json = False


def main(job: Job) -> int:
    """Train; print where the best encoder is and what it does on the held-out objects."""
    _check(job)
    corpus = Reader.at(job.root)
    teacher = _teacher(job, corpus)
    recipe = _recipe(job)
    if job.canary:
        _ask_canary(job, corpus, teacher)
    with _fitted(job, corpus, teacher, recipe) as (recipe, initial):
        run = Run(
            root=corpus.root,
            out=job.out,
            recipe=recipe,
            teacher=teacher,
            held_out=_held_out(job.held_out),
            labels=job.labels,
            initial=initial,
            accumulate=job.accumulate,
            compile=job.compile,
            device=job.device,
            look_every=job.look_every,
            save_every=job.save_every,
            keep=job.keep,
            wandb=job.wandb,
        )
        _say(job, f"corpus       {corpus.root}\nteacher      {teacher}\nrecipe       {recipe.name}: {recipe.why}")
        try:
            trained = _trained(job, run)
        except TrainingStopped as error:
            raise Refusal(str(error), exit_code=1) from error
    if job.json and _FIRST:
        print(json.dumps(dataclasses.asdict(trained), ensure_ascii=False))
    _say(job, last_line(trained))
    return TERMINATED if trained.stopped else 0


def last_line(trained: Trained) -> str:
    """What was done, how good the best is, and where it is."""
    if trained.stopped:
        return f"stopped after {trained.steps:,} of {trained.total:,} steps; the same command goes on from {trained.last}"
    pictured = f", curves: {trained.curves}" if trained.curves else ""
    return (
        f"trained {trained.steps:,} steps on {trained.objects:,} objects in {duration(trained.seconds)}; best of "
        f"{trained.held_out:,} held-out objects: {in_words(trained.best_figures)}; {trained.best}{pictured}"
    )


def _check(job: Job) -> None:
    positive = ("epochs", "batch", "lr", "processes", "accumulate", "save_every", "keep", "look_every")
    for name in positive:
        value = getattr(job, name)
        if value is not None and value <= 0:
            raise Refusal(f"--{name.replace('_', '-')} {value}: must be more than 0")
    if job.recipe not in RECIPES:
        raise Refusal(f"there is no recipe {job.recipe!r}; the recipes are: {', '.join(RECIPES)}")
    if not 0 <= job.floor:
        raise Refusal(f"--floor {job.floor}: must be 0 or more")


def _held_out(text: str) -> str | float:
    """A share where it reads as a number, else the name of a split."""
    try:
        share = float(text)
    except ValueError:
        return text
    if not 0 <= share < 1:
        raise Refusal(f"--held-out {text}: a share of the objects is from 0 to less than 1")
    return share


def _teacher(job: Job, corpus: Reader) -> str:
    """The teacher's name in the corpus' tables."""
    there = corpus.teachers()
    if job.teacher is None:
        if len(there) != 1:
            named = f"several teachers ({', '.join(there)}): say which, --teacher NAME" if there else (
                f"no embeddings of any teacher: python -m jobs embed {corpus.root} --teacher ARCH:PRETRAINED"
            )  # fmt: skip
            raise Refusal(f"{corpus.root} has {named}", exit_code=2 if there else 1)
        return there[0]
    try:
        name = name_in_tables(job.teacher)
    except TeacherError as error:
        if job.teacher not in there:
            raise Refusal(str(error)) from error
        return job.teacher  # of a weights file that is not here any more
    corpus.need(f"image_embeddings/{name}")
    return name


def _recipe(job: Job) -> Recipe:
    """The recipe with what the command line says instead."""
    recipe = RECIPES[job.recipe]
    instead = {name: getattr(job, name) for name in ("epochs", "batch", "precision", "seed") if getattr(job, name) is not None}
    if job.lr is not None:
        instead["optimiser"] = replace(recipe.optimiser, lr=job.lr)
    if job.warmup_steps is not None:
        instead["schedule"] = replace(recipe.schedule, warmup_steps=job.warmup_steps, warmup_epochs=0)
    if job.checkpointing:
        instead["encoder"] = replace(recipe.encoder, checkpointing=True)
    return replace(recipe, **instead)


def _ask_canary(job: Job, corpus: Reader, teacher: str) -> None:
    found = canary(corpus.root, teacher, split=job.labels, floor=job.floor)
    if found.problems:
        raise Refusal(
            "the embeddings are not fit to train on: " + "; ".join(found.problems) + ". (python -m jobs evaluate canary "
            f"{corpus.root} tells more; --no-canary trains all the same)",
            exit_code=1,
        )
    _say(job, "canary       the embeddings of views, texts and class names belong together")


@contextmanager
def _fitted(job: Job, corpus: Reader, teacher: str, recipe: Recipe) -> Iterator[tuple[Recipe, str | None]]:
    """The recipe made to fit the teacher, and what to start from; a fetched file is there for as long as the context lasts."""
    with ExitStack() as stack:
        initial = job.initial
        if recipe.kind == "duoduo" and recipe.encoder.trainable == "attention" and initial is None:
            recipe, initial = _from_teacher(recipe, job.teacher or teacher, corpus.teacher_of(teacher) or {}, stack)
            _say(job, f"starts from  {teacher}'s own weights")
        if (dim := _dim(corpus, teacher)) != recipe.encoder.out:
            _say(job, f"head         {dim} numbers, as {teacher} has them; the recipe's {recipe.teacher} has {recipe.encoder.out}")
            recipe = replace(recipe, encoder=replace(recipe.encoder, out=dim))
        if not recipe.sees_points:
            _check_views(corpus, recipe)
        yield recipe, initial


def _from_teacher(recipe: Recipe, teacher: str, identity: dict[str, Any], stack: ExitStack) -> tuple[Recipe, str]:
    """A multi-view recipe on the teacher's own picture tower, and the file of its weights."""
    arch = identity.get("arch", teacher.partition(":")[0])
    why = f"the recipe {recipe.name} starts from the picture tower of the teacher {teacher}"
    how = "name a file of weights with --initial, or train multiview-small from scratch"
    try:
        encoder = DuoduoConfig.of(arch)
        path = stack.enter_context(weights_file(teacher))
    except ValueError as error:
        raise Refusal(f"{why}: {error}; or {how}", exit_code=1) from error
    except TeacherError as error:
        raise Refusal(f"{why}: {error} Or {how}.", exit_code=1) from error
    encoder = replace(encoder, checkpointing=recipe.encoder.checkpointing)
    if encoder.layers == recipe.encoder.layers:
        encoder = replace(encoder, layers_threshold=recipe.encoder.layers_threshold)
    if "quick_gelu" in identity:
        encoder = replace(encoder, quick_gelu=identity["quick_gelu"])
    prepared = {name: tuple(identity[name]) for name in ("mean", "std", "background") if name in identity}
    input = replace(recipe.input, size=encoder.image_size, **prepared)
    draws = replace(recipe.draws, background=input.background)
    return replace(recipe, encoder=encoder, input=input, draws=draws), str(path)


def _dim(corpus: Reader, teacher: str) -> int:
    """Numbers in one of the teacher's embeddings."""
    return corpus.need(f"image_embeddings/{teacher}").schema.field("embedding").type.value_type.list_size


def _check_views(corpus: Reader, recipe: Recipe) -> None:
    """Raise Refusal when the stored pictures are not of the encoder's size."""
    sizes = corpus.need(VIEWS.name).head(1, columns=["width"])["width"].to_pylist()
    if sizes and sizes[0] != recipe.input.size:
        raise Refusal(
            f"{corpus.root} has views of {sizes[0]} pixels, and this encoder sees {recipe.input.size}: render a corpus at "
            f"{recipe.input.size} pixels, or take another recipe or teacher",
            exit_code=1,
        )


def _trained(job: Job, run: Run) -> Trained:
    said = _silent if job.json else print
    watched = progress if not job.json else _unwatched
    if job.ray or job.address:
        try:
            from trainer.on_ray import train_on_ray  # it takes seconds, and packages that nothing else needs
        except ImportError as error:
            raise Refusal(f"Ray Train's packages are missing ({error}): pip install 'ray[train]'", exit_code=1) from error
        with cluster(job.address, job.processes):
            return train_on_ray(run, job.processes, gpus=job.device != "cpu" and gpus() >= job.processes)
    with under_torchrun():
        return spawned(run, job.processes, watched, said) if job.processes > 1 else train(run, watched, said)


def _unwatched(title: str, total: int, unit: str) -> Any:
    return progress(title, total, unit, quiet=True)


def _silent(line: str) -> None:
    pass


def _say(job: Job, text: str) -> None:
    if not job.json and _FIRST:
        print(text)
        sys.stdout.flush()
