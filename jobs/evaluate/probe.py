"""Few-shot and linear probe: how well a linear classifier on frozen embeddings tells the classes of a benchmark apart.

python -m jobs evaluate probe scanobjectnn-obj-only=/data/scanobjectnn modelnet40=/data/ModelNet40 --encoder uni3d-b -o probes

python -m jobs evaluate probe objaverse-lvis=/data/corpus --encoder runs/mine/checkpoints/step-00010000
  --teacher ViT-bigG-14:laion2b_s39b_b160k --shots 1 16 all -o probes

It learns from the training half and is tested on the test half: the official ones where there are any, else halves by a hash of
the id. Few-shot figures are means over seeds, each of which draws other labelled objects. What was trained on of the test half is
told before any figure.
"""

import time
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import tyro

from evaluate.benchmark import Benchmark
from evaluate.features import Features
from evaluate.linear_probe import SEEDS, SHOTS, Probe, accuracy, drawn, halves, probe
from evaluate.result import Figure, Result
from jobs.evaluate.asked import Asked, Trial, fed_with, finish, trials_of, views_told
from jobs.progress import progress
from jobs.refusal import Refusal
from pipeline.stage import ObjectError

ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Job(Asked):
    # Labelled objects of each class that are learnt from, or "all" of the training half; each a row of the table.
    shots: Annotated[tuple[str, ...], tyro.conf.arg(metavar="N|all …")] = (*map(str, SHOTS), ALL)
    # How often labelled objects are drawn; figures are means, with their spread.
    seeds: int = SEEDS
    # How many of an object's views are seen, drawn by chance where there are more. Default: all.
    views: int | None = None
    # scikit-learn's C of the logistic regression. Default: chosen on a quarter of the labelled objects, each time anew.
    strength: float | None = None


def main(job: Job) -> int:
    """Check for leaks, encode both halves once, learn and test each probe, and write the table."""
    if not job.shots or any(one != ALL and not (one.isdecimal() and int(one) > 0) for one in job.shots):
        raise Refusal(f"--shots {' '.join(job.shots)}: must be whole numbers from 1 on, or {ALL}")
    if job.seeds < 1 or (job.views is not None and job.views < 1) or (job.strength is not None and job.strength <= 0):
        raise Refusal("--seeds, --views: must be 1 or more; --strength: more than 0")
    opened = opened_halves(job)
    training = {id(test): train for train, test in opened}
    trials = trials_of(job, [test for _, test in opened])
    return finish(job, [result for trial in trials for result in _results(job, trial, training[id(trial.opened)])])


def opened_halves(asked: Asked) -> list[tuple[Benchmark, Benchmark]]:
    """Training and test half of each benchmark that was asked for; raises Refusal for what has none."""
    found = []
    for one in asked.benchmarks:
        try:
            train, test = halves(one)
        except (ValueError, ObjectError) as error:
            raise Refusal(f"{one}: {error}", exit_code=2 if isinstance(error, ValueError) else 1) from error
        for half, told in ((train, "training"), (test, "test")):
            if not half.ids:
                raise Refusal(f"{one}: its {told} half has no objects", exit_code=1)
        asked.say(f"learnt from  {train.name}, {train.variant}: {len(train.ids):,} objects")
        found.append((train, test))
    return found


def _results(job: Job, trial: Trial, training: Benchmark) -> list[Result]:
    train = replace(trial, benchmark=training).features(job, views=job.views)
    test = trial.features(job, views=job.views)
    runs = {shots: 1 if shots == ALL else job.seeds for shots in job.shots}  # of all, there is nothing to draw
    results = []
    with progress(f"probes on {trial.method.name}", sum(runs.values()), "probes", job.json) as bar:
        for shots, seeds in runs.items():
            began = time.monotonic()
            found = []
            for seed in range(seeds):
                found.append(_probe(job, shots, seed, train, training.labels[train.numbers], test))
                bar.update(done=bar.done + 1)
            results.append(_result(job, trial, shots, found, test, time.monotonic() - began))
    return results


def _probe(job: Job, shots: str, seed: int, train: Features, labels: np.ndarray, test: Features) -> Probe:
    chosen = np.arange(len(labels)) if shots == ALL else drawn(labels, int(shots), seed)
    try:
        return probe(train.vectors[chosen], labels[chosen], test.vectors, strength=job.strength, seed=seed)
    except ValueError as error:
        raise Refusal(str(error), exit_code=1) from error


def _result(job: Job, trial: Trial, shots: str, found: list[Probe], test: Features, seconds: float) -> Result:
    labels, names = trial.benchmark.labels[test.numbers], trial.benchmark.classes
    right = np.stack([one.guessed == labels for one in found]).astype(float)
    of_seeds = [accuracy(one, labels, names) for one in right]
    stopped = sum(not one.converged for one in found)
    return trial.result(
        task="linear probe" if shots == ALL else "few-shot",
        fed="points" if trial.method.reads == "points" else views_told(job.views),
        objects=len(labels),
        figures={
            "top-1": Figure(tuple(one.top1 for one in of_seeds)),
            "class mean": Figure(tuple(one.class_mean for one in of_seeds)),
        },
        per_class=accuracy(right.mean(axis=0), labels, names).per_class,
        settings={
            "shots": None if shots == ALL else int(shots),
            "seeds": len(found),
            "classifier": "logistic regression on unit vectors",
            "labelled objects": found[0].objects,
            "labelled classes": found[0].classes,
            "strength (C)": sorted({one.strength for one in found}),
            "stopped before they converged": stopped or None,
        }
        | fed_with(trial),
        seconds=seconds,
    )
