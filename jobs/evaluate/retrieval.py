"""Retrieval: captions look up shapes and shapes captions, as MRD's tables have it; pictures and shapes look up shapes.

python -m jobs evaluate retrieval objaverse-lvis=/data/corpus --encoder uni3d-b -o eval

An instance is found when the query's own object is among the nearest 1, 3, 5; a category, when an object of the same class is.
Captions, their embeddings and those of pictures are the corpus' own; all are looked at, without an index. What was trained on of a
benchmark is told before any figure.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import numpy as np
import torch
import tyro

from evaluate.benchmark import Benchmark
from evaluate.features import Features, averages
from evaluate.result import Figure, Result
from evaluate.retrieval import TOP, alike, captions_of, retrieval, thumbnails_of
from jobs.evaluate.asked import Asked, Method, Trial, fed_with, finish, trials_of, views_told
from jobs.evaluate.zero_shot import FULL
from jobs.refusal import Refusal
from schemas.corpus import Reader

Way = Literal["text-to-3d", "3d-to-text", "image-to-3d", "3d-to-3d"]
# Numbers of the objects that queries are of, and the vectors that look up, or are looked up.
Others = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Job(Asked):
    # What looks up what.
    ways: Annotated[tuple[Way, ...], tyro.conf.arg(metavar="WAY …")] = get_args(Way)
    # Whose captions: cap3d, metadata, captioner, …; of several of an object, the first.
    captions: str = "cap3d"
    # Which picture looks up shapes: a stored view, drawn by chance, or the collection's own picture.
    image: Literal["view", "thumbnail"] = "view"
    # How many of an object's views are seen, each number a row of the table; drawn by chance where there are more.
    views: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N …")] = (FULL,)
    # How often what is drawn by chance (points, their order, views) is drawn; figures are means, with their spread.
    seeds: int = 3


def main(job: Job) -> int:
    """Check for leaks, read captions and pictures, embed the objects, look up, and set the shares beside what others published."""
    if job.seeds < 1 or min(job.views, default=0) < 1 or len(set(job.views)) < len(job.views):
        raise Refusal("--seeds and --views: must be 1 or more, and no number of views twice")
    if not job.ways:
        raise Refusal(f"--ways: say what looks up what: {', '.join(get_args(Way))}")
    trials = trials_of(job)
    others = {(id(trial), way): _others(job, trial, way) for trial in trials for way in job.ways}  # before any object is encoded
    results = [
        one
        for trial in trials
        for views in (job.views if trial.method.reads == "views" else (None,))
        for one in _results(job, trial, views, {way: others[id(trial), way] for way in job.ways})
    ]
    return finish(job, results)


def _others(job: Job, trial: Trial, way: Way) -> Callable[[int], Others] | None:
    """What stands on the other side than the shapes, by seed; None: the shapes themselves do."""
    if way == "3d-to-3d":
        return None
    benchmark, method = trial.benchmark, trial.method
    if benchmark.corpus is None:
        raise Refusal(
            f"{way} needs captions and pictures, and {benchmark.name} is files of shapes: give {benchmark.name}=ROOT, a corpus, or "
            "--ways 3d-to-3d"
        )
    _same_teacher(benchmark, method)
    if way == "image-to-3d":
        if job.image == "view":
            return lambda seed: _found(averages(benchmark, method.teacher, views=1, seed=seed))
        pictures = thumbnails_of(Reader.at(benchmark.corpus), method.teacher, benchmark.ids)
        return lambda _: pictures
    captions = captions_of(Reader.at(benchmark.corpus), method.teacher, benchmark.ids, job.captions)
    return lambda _: captions


def _same_teacher(benchmark: Benchmark, method: Method) -> None:
    """Refuse a corpus whose embeddings are of another teacher of the same name."""
    said = Reader.at(benchmark.corpus).teacher_of(method.teacher)
    if said and method.weights_sha256 and said["weights_sha256"] != method.weights_sha256:
        raise Refusal(
            f"{benchmark.corpus} has embeddings of a teacher {method.teacher} with other weights ({said['weights_sha256'][:12]}…) "
            f"than {method.name} embeds into the space of ({method.weights_sha256[:12]}…)"
        )


def _found(features: Features) -> Others:
    return features.numbers, features.vectors


def _results(job: Job, trial: Trial, views: int | None, others: dict[Way, Callable[[int], Others] | None]) -> list[Result]:
    """One result for each way. Where nothing is drawn by chance, there is one seed."""
    shares: dict[Way, list[dict[str, float]]] = {way: [] for way in others}
    counts: dict[Way, int] = {}
    seconds = dict.fromkeys(others, 0.0)
    shapes = None
    for seed in range(job.seeds):
        if shapes is None or shapes.by_chance:
            shapes = trial.features(job, views=views, seed=seed)
        for way, other in others.items():
            if seed and not shapes.by_chance and not (way == "image-to-3d" and job.image == "view"):
                continue
            began = time.monotonic()
            found, counts[way] = _looked_up(trial, way, shapes, other and other(seed))
            shares[way].append(found)
            seconds[way] += time.monotonic() - began
    return [
        trial.result(
            task="retrieval",
            fed="points" if trial.method.reads == "points" else views_told(views),
            objects=counts[way],
            figures={name: Figure(tuple(one[name] for one in found)) for name in found[0]},
            settings={"way": way.replace("-", " "), "seeds": len(found)} | _told(job, trial, way) | fed_with(trial),
            seconds=seconds[way],
        )
        for way, found in shares.items()
    ]


def _looked_up(trial: Trial, way: Way, shapes: Features, others: Others | None) -> tuple[dict[str, float], int]:
    """Shares by the figure's name, and how many objects there were on both sides."""
    device = trial.method.encoder.device if trial.method.encoder else torch.device("cpu")
    if others is None:
        vectors = torch.from_numpy(shapes.vectors).to(device)
        found = alike(vectors, torch.from_numpy(trial.benchmark.labels[shapes.numbers]))
        return _named("category", found), len(vectors)
    numbers, mine, theirs = np.intersect1d(shapes.numbers, others[0], assume_unique=True, return_indices=True)
    if not len(numbers):
        raise Refusal(f"{trial.method.name} on {trial.benchmark.name}, {way}: no object has both sides", exit_code=1)
    made, given = torch.from_numpy(shapes.vectors[mine]), torch.from_numpy(others[1][theirs].astype(np.float32))
    queries, gallery = (made, given) if way == "3d-to-text" else (given, made)
    found = retrieval(queries, gallery.to(device), torch.from_numpy(trial.benchmark.labels[numbers]))
    return _named("instance", found.instance) | _named("category", found.category), len(numbers)


def _named(what: str, shares: tuple[float, ...]) -> dict[str, float]:
    return {f"{what} top-{k}": share for k, share in zip(TOP, shares, strict=True)}


def _told(job: Job, trial: Trial, way: Way) -> dict[str, Any]:
    """What of the protocol decides the figures of a way."""
    match way:
        case "3d-to-3d":
            alone = int((np.bincount(trial.benchmark.labels) == 1).sum())
            return {"left out": "the query itself", "alone in their class": alone}
        case "image-to-3d" if job.image == "thumbnail":
            return {"query": "the collection's picture"}
        case "image-to-3d":
            among = ", which is one of those that its shape was made of" if trial.method.reads == "views" else ""
            return {"query": f"one stored view, drawn by chance{among}"}
    return {"captions": f"{job.captions}, the first of each object"}
