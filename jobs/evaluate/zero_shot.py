"""Zero-shot classification: the class whose name is nearest to what an encoder makes of an object. Top-1, 3, 5, and per class.

python -m jobs evaluate zero-shot modelnet40=/data/modelnet40 scanobjectnn=/data/scanobjectnn --encoder uni3d-b -o eval

python -m jobs evaluate zero-shot objaverse-lvis=/data/corpus --encoder runs/mine/checkpoints/step-00010000
  --teacher ViT-bigG-14:laion2b_s39b_b160k --views 1 6 12 -o eval

Class names become vectors by the encoder's own teacher: from the benchmark's corpus, from a published file, or where its weights
are here. What was trained on of a benchmark is told before any figure.
"""

import time
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Float32

from evaluate.benchmark import Benchmark
from evaluate.class_names import class_source, class_vectors, source_told, teacher_in_tables
from evaluate.result import Figure, Result
from evaluate.retrieval import TOP
from evaluate.zero_shot import Rule, ZeroShot, zero_shot
from jobs.evaluate.asked import Asked, Method, NothingEncoded, Trial, fed_with, finish, trials_of, views_told
from jobs.refusal import Refusal
from pipeline.stage import ObjectError
from pipeline.weights import TeacherError

RULES: dict[str, Rule] = {"unit": "unit templates", "raw": "raw templates"}
FULL = 12  # views, of the published tables


@dataclass(frozen=True, kw_only=True)
class Job(Asked):
    # How many of an object's views are seen, each number a row of the table; drawn by chance where there are more.
    views: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N …")] = (FULL,)
    # How often what is drawn by chance (points, their order, views) is drawn; figures are means, with their spread.
    seeds: int = 3
    # How a class name's prompts become one vector: the mean of unit vectors (Uni3D), or of the vectors as they are (DuoduoCLIP).
    rule: Literal["unit", "raw"] = "unit"
    # Where class vectors come from: a corpus; an .npy file, OpenShape's cat_name_pt_feat.npy or an array in the official order; or
    # "weights", the teacher itself. Default: the benchmark's corpus if it has all classes, else the teacher's weights.
    class_embeddings: Annotated[str | None, tyro.conf.arg(metavar="FILE_OR_CORPUS")] = None


def main(job: Job) -> int:
    """Check for leaks, embed the class names, then the objects, and set the shares beside what others published."""
    if job.seeds < 1 or min(job.views, default=0) < 1 or len(set(job.views)) < len(job.views):
        raise Refusal("--seeds and --views: must be 1 or more, and no number of views twice")
    trials = trials_of(job)
    classifiers = _classifiers(job, trials)
    results = []
    for trial in trials:
        try:
            for views in job.views if trial.method.reads == "views" else (None,):
                results.append(_result(job, trial, views, *classifiers[_key(trial)]))
        except NothingEncoded as error:
            job.say(f"left out: {error}")
    if not results:
        raise Refusal("nothing could be evaluated: no method could encode any object", exit_code=1)
    return finish(job, results)


def _key(trial: Trial) -> tuple:
    return trial.benchmark.corpus, trial.benchmark.classes, trial.method.teacher, trial.method.weights_sha256


def _classifiers(job: Job, trials: list[Trial]) -> dict[tuple, tuple[Float32[np.ndarray, "c d"], str]]:
    """The class vectors of each benchmark in each teacher's space, and where they are from, before any object is encoded."""
    made: dict[tuple, tuple[np.ndarray, str]] = {}
    for trial in trials:
        if _key(trial) not in made:
            made[_key(trial)] = _classifier(job, trial.method, trial.benchmark)
            job.say(f"class names  {trial.benchmark.name} in the space of {trial.method.teacher}: {made[_key(trial)][1]}")
    return made


def _classifier(job: Job, method: Method, benchmark: Benchmark) -> tuple[Float32[np.ndarray, "c d"], str]:
    # The name on a card has lost the path of a weights file; the argument has it.
    named = job.teacher is not None and teacher_in_tables(job.teacher) == method.teacher
    teacher, rule = job.teacher if named else method.teacher, RULES[job.rule]
    try:
        source = job.class_embeddings or class_source(benchmark, teacher)
        vectors = class_vectors(benchmark, teacher, rule, source=source, weights_sha256=method.weights_sha256, device=job.device)
    except (TeacherError, ObjectError) as error:
        raise Refusal(str(error), exit_code=1) from error
    wanted = method.encoder.card.config["out"] if method.encoder else vectors.shape[1]
    if vectors.shape[1] != wanted:
        raise Refusal(
            f"{source} has class vectors of {vectors.shape[1]:,} numbers, and {method.name} embeds into {wanted:,}: they are of "
            f"another teacher than {method.teacher}"
        )
    return vectors, source_told(source, teacher, rule)


def _result(job: Job, trial: Trial, views: int | None, classes: Float32[np.ndarray, "c d"], source: str) -> Result:
    began = time.monotonic()
    device = trial.method.encoder.device if trial.method.encoder else torch.device("cpu")
    labels = torch.from_numpy(trial.benchmark.labels)
    found: list[ZeroShot] = []
    for seed in range(job.seeds):
        features = trial.features(job, views=views, seed=seed)
        found.append(zero_shot(torch.from_numpy(features.vectors), torch.from_numpy(classes).to(device), labels[features.numbers]))
        if not features.by_chance:
            break
    figures = {f"top-{k}": Figure(tuple(one.top[place] for one in found)) for place, k in enumerate(TOP)}
    figures["class mean"] = Figure(tuple(one.class_mean for one in found))
    return trial.result(
        task="zero-shot",
        fed="points" if trial.method.reads == "points" else views_told(views),
        objects=found[0].objects,
        figures=figures,
        per_class=per_class(trial.benchmark.classes, found),
        settings={"class embeddings": source, "seeds": len(found)} | fed_with(trial),
        seconds=time.monotonic() - began,
    )


def per_class(names: tuple[str, ...], found: list[ZeroShot]) -> dict[str, tuple[float, int]]:
    """Top-1, the mean over the seeds, and how many objects, of the classes that have any."""
    of_seeds = zip(*(one.per_class for one in found), strict=True)
    return {
        name: (sum(share for share, _ in seeds) / len(seeds), seeds[0][1])
        for name, seeds in zip(names, of_seeds, strict=True)
        if seeds[0][1]
    }
