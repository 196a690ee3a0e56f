"""Fine-tuned classification: an encoder of points and a small head learn a benchmark's classes; tested after the last epoch.

python -m jobs evaluate fine-tune scanobjectnn-pb-t50-rs=/data/scanobjectnn --encoder openshape-pointbert-vitg14-rgb -o tuned

python -m jobs evaluate fine-tune modelnet40=/data/ModelNet40 --encoder runs/mine/checkpoints/step-00010000 --scratch
  --epochs 30 -o tuned

Settings are by default those of Point-BERT's published code, which ULIP and MRD fine-tuned with (evaluate/fine_tune.py says what
of it is a reconstruction). Published figures are the best of all epochs on the test objects; that best is told, too, by that name.
"""

import re
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from evaluate.benchmark import Benchmark
from evaluate.fine_tune import Clouds, FineTune, Tuned, clouds, fine_tune, fresh, save_tuned
from evaluate.linear_probe import accuracy
from evaluate.result import Figure, Result
from jobs.evaluate.asked import Asked, Trial, finish, say_left_out, trials_of
from jobs.evaluate.probe import opened_halves
from jobs.progress import progress
from jobs.refusal import Refusal

USUAL = FineTune()
BEST = "best-on-test top-1"


@dataclass(frozen=True, kw_only=True)
class Job(Asked):
    # How often all training objects are gone through.
    epochs: int = USUAL.epochs
    # Points of a cloud that the encoder is fed.
    points: int = USUAL.points
    # Objects of a step.
    batch: int = USUAL.batch
    # Learning rate, at its highest.
    lr: float = USUAL.lr
    # How often it is learnt, each time with other chance; figures are means, with their spread.
    seeds: int = 1
    # Also learn with the same encoder before it had learnt anything, for comparison.
    scratch: bool = False
    # Also write the fine-tuned encoder and its head, of the first seed, into the folder.
    save: bool = False


def main(job: Job) -> int:
    """Check for leaks, read both halves into memory, learn, test, and write the table."""
    for name in ("epochs", "points", "batch", "lr", "seeds"):
        if getattr(job, name) <= 0:
            raise Refusal(f"--{name} {getattr(job, name)}: must be more than 0")
    if job.teacher:
        raise Refusal("--teacher: stored embeddings do not learn; give --encoder")
    settings = replace(USUAL, epochs=job.epochs, points=job.points, batch=job.batch, lr=job.lr)
    opened = opened_halves(job)
    training = {id(test): train for train, test in opened}
    trials = trials_of(job, [test for _, test in opened])
    if of_views := [trial.method.name for trial in trials if trial.method.reads == "views"]:
        raise Refusal(f"{of_views[0]} reads views, and only encoders of points are fine-tuned: probe it instead")
    job.say(f"settings     {', '.join(f'{name} {value}' for name, value in _protocol(settings).items())}")
    return finish(job, [result for trial in trials for result in _results(job, settings, trial, training[id(trial.opened)])])


def _results(job: Job, settings: FineTune, trial: Trial, training: Benchmark) -> list[Result]:
    train, test = (_read(job, settings, trial, half) for half in (training, trial.benchmark))
    results = [_result(job, settings, trial, train, test, scratch=False)]
    if job.scratch:
        results.append(_result(job, settings, trial, train, test, scratch=True))
    return results


def _read(job: Job, settings: FineTune, trial: Trial, half: Benchmark) -> Clouds:
    encoder = trial.method.encoder
    with progress(f"reading {half.name}, {half.variant}", len(half.ids), "objects", job.json) as bar:
        try:
            found = clouds(
                half,
                encoder.card.input,
                settings.points,
                device=encoder.device,
                after=lambda done, failed: bar.update(done=done, failed=failed),
            )
        except ValueError as error:
            raise Refusal(str(error), exit_code=1) from error
    say_left_out(job, f"{half.name}, {half.variant}", found.failed)
    return found


def _result(job: Job, settings: FineTune, trial: Trial, train: Clouds, test: Clouds, *, scratch: bool) -> Result:
    encoder, name = trial.method.encoder, trial.method.name
    name = f"{name}, its architecture from scratch" if scratch else f"{name}, fine-tuned"
    began = time.monotonic()
    found: list[Tuned] = []
    with progress(name, job.seeds * settings.epochs, "epochs", job.json) as bar:
        for seed in range(job.seeds):
            module = fresh(encoder.card, seed) if scratch else encoder.module
            try:
                tuned = fine_tune(
                    module,
                    train,
                    test,
                    len(trial.benchmark.classes),
                    settings,
                    seed=seed,
                    device=encoder.device,
                    after_epoch=lambda *epoch: bar.update(done=bar.done + 1),
                )
            except ValueError as error:  # fewer points than the encoder makes groups of
                raise Refusal(f"{name} on {trial.benchmark.name}: {error}") from error
            found.append(tuned)
    if job.save:
        folder = job.out / re.sub(r"[^\w.-]+", "-", f"{trial.benchmark.name} {name}")
        save_tuned(folder, found[0].classifier, encoder.card, settings, trial.benchmark.classes)
        job.say(f"saved        {folder}")
    labels, classes = test.labels.numpy(), trial.benchmark.classes
    right = np.stack([one.guessed == labels for one in found]).astype(float)
    of_seeds = [accuracy(one, labels, classes) for one in right]
    made = trial.result(
        task="fine-tuning",
        fed="points",
        objects=len(labels),
        figures={
            "top-1": Figure(tuple(one.top1 for one in of_seeds)),
            "class mean": Figure(tuple(one.class_mean for one in of_seeds)),
            BEST: Figure(tuple(max(one.tests) for one in found)),
        },
        per_class=accuracy(right.mean(axis=0), labels, classes).per_class,
        settings={
            "seeds": job.seeds,
            "training objects": len(train.labels),
            "the head reads": found[0].classifier.reads,
            "reported": f"the last epoch, no votes; published figures are what {BEST} is",
        }
        | _protocol(settings),
        seconds=time.monotonic() - began,
    )
    made = replace(made, method=name)
    return replace(made, trained_on="nothing before", leaks={}) if scratch else made


def _protocol(settings: FineTune) -> dict[str, Any]:
    return {name.replace("_", " "): _rounded(value) for name, value in asdict(settings).items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_rounded(one) for one in value]
    return float(f"{value:.3g}") if isinstance(value, float) else value
