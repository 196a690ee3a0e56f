"""Linear probes: a linear classifier on frozen features, learnt from all labelled objects or from a few of each class.

Few-shot as OpenShape shows it (Liu et al. 2023, arXiv 2305.10764, section "Few-Shot Linear Probing", figure 5): the embeddings of
all objects are frozen, and a linear classifier learns from 1, 2, 4, 8, 16 labelled objects per class; top-1, the mean of 10 seeds.
Which classifier, and what it is tested on, the paper does not say. Here: logistic regression by L-BFGS, at most 1,000 steps, its
strength chosen on training objects that are set aside, as CLIP's probes are (Radford et al. 2021, arXiv 2103.00020, appendix A.3);
learnt from the training half and tested on all of the test half. [choice] Features are unit vectors, as retrieval and zero-shot
use them, and are not standardised: the axes of a CLIP space have a common scale.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from evaluate.benchmark import Benchmark
from evaluate.sets.named import open_benchmark
from schemas.corpus import Reader
from schemas.labels import labelled
from trainer.validation import is_held_out

SHOTS = (1, 2, 4, 8, 16)
SEEDS = 10
# Of scikit-learn's C, the inverse of the weight of the squared norm: CLIP's range where unit vectors notice it.
STRENGTHS = tuple(10.0**power for power in range(-2, 5))
# With one object of each class none can be set aside. Nor is there much to choose: whatever the strength, the probe is nearly the
# nearest neighbour.
ONE_SHOT_STRENGTH = 1.0
SET_ASIDE = 0.25  # of the training objects of each class, at least one where it has two
MOST_STEPS = 1000
TEST_SHARE = 0.5  # of a collection without official halves


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A classifier that was learnt, and what it says of the test objects: `guessed` (n,) labels. `objects`, `classes`: how many it
    was learnt from. `strength`: scikit-learn's C. `converged`: whether L-BFGS was done within MOST_STEPS."""

    guessed: Int64[np.ndarray, " n"]
    objects: int
    classes: int
    strength: float
    converged: bool


def drawn(labels: Int64[np.ndarray, " m"], shots: int, seed: int) -> Int64[np.ndarray, " k"]:
    """Numbers of `shots` objects of each class, ascending, by chance; of a class that has fewer, all. Those of fewer shots are
    among those of more."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    return np.sort(order[_place_in_class(labels[order]) < shots])


def probe(
    features: Float32[np.ndarray, "m d"],
    labels: Int64[np.ndarray, " m"],
    test: Float32[np.ndarray, "n d"],
    *,
    strength: float | None = None,
    seed: int = 0,
) -> Probe:
    """Learn from the labelled unit vectors, and classify the others.

    `strength`: scikit-learn's C; None: the one of STRENGTHS that is right most often of a quarter of each class, set aside by
    `seed` (of equally good ones the smallest, which changes least with the objects drawn); then all are learnt from. Raises
    ValueError where there are not two classes to tell apart.
    """
    if len(np.unique(labels)) < 2:
        raise ValueError(f"the {len(labels)} training objects are all of one class: there is nothing to learn to tell apart")
    if strength is None:
        aside = _set_aside(labels, seed)
        strength = _chosen(features, labels, aside) if aside.any() else ONE_SHOT_STRENGTH
    model = LogisticRegression(C=strength, max_iter=MOST_STEPS)
    _fit(model, features, labels)
    return Probe(
        guessed=model.predict(test.astype(np.float64)),
        objects=len(labels),
        classes=len(model.classes_),
        strength=strength,
        converged=int(model.n_iter_.max()) < MOST_STEPS,
    )


@dataclass(frozen=True)
class Accuracy:
    """Shares, 0..1: of all objects, and the mean over the classes that have any. `per_class`: by name, share and objects."""

    top1: float
    class_mean: float
    per_class: dict[str, tuple[float, int]]


def accuracy(right: Float[np.ndarray, " n"], labels: Int64[np.ndarray, " n"], classes: Sequence[str]) -> Accuracy:
    """Of objects that are right (1) or wrong (0), or right in a share of several runs."""
    count = np.bincount(labels, minlength=len(classes))
    hits = np.bincount(labels, right, minlength=len(classes))
    there = np.flatnonzero(count)
    shares = hits[there] / count[there]
    per_class = {classes[label]: (float(share), int(count[label])) for label, share in zip(there, shares, strict=True)}
    return Accuracy(float(right.mean()), float(shares.mean()), per_class)


def halves(asked: str) -> tuple[Benchmark, Benchmark]:
    """Training and test half of what NAME=PLACE says (evaluate/sets/named.py): the official ones, or, of Objaverse-LVIS and of a
    corpus' split NAME without a split NAME-train, those that `halved` makes. Raises as open_benchmark does."""
    test = open_benchmark(asked)
    has_none = (
        test.name == "objaverse-lvis" if test.corpus is None else f"{test.name}-train" not in labelled(Reader.at(test.corpus))
    )
    return halved(test) if has_none else (open_benchmark(asked, part="train"), test)


def halved(benchmark: Benchmark, test_share: float = TEST_SHARE) -> tuple[Benchmark, Benchmark]:
    """Training and test objects of a collection that has no official halves, by a hash of the id.

    It is the hash that holds objects out of training (trainer/validation.py): up to a share of `test_share`, what an encoder never
    saw is among the test objects.
    """

    def half(told: str, test: bool) -> Benchmark:
        mine = np.array([is_held_out(id, test_share) == test for id in benchmark.ids], bool)
        missing = tuple(id for id in benchmark.missing if is_held_out(id, test_share) == test)
        variant = f"{benchmark.variant}, {told} half by a hash of the id"
        return replace(part_of(benchmark, np.flatnonzero(mine)), variant=variant, missing=missing)

    return half("training", False), half("test", True)


def part_of(benchmark: Benchmark, numbers: Int64[np.ndarray, " k"]) -> Benchmark:
    """Some objects of a benchmark, to be told apart among the same classes."""
    cloud, file = benchmark.cloud, benchmark.file
    return replace(
        benchmark,
        ids=tuple(benchmark.ids[number] for number in numbers),
        labels=benchmark.labels[numbers],
        cloud=cloud and (lambda number: cloud(int(numbers[number]))),
        file=lambda number: file(int(numbers[number])),
    )


def _place_in_class(labels: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """Of sorted labels: the how manieth of its label each is, from 0."""
    return np.arange(len(labels)) - np.searchsorted(labels, labels)


def _set_aside(labels: Int64[np.ndarray, " m"], seed: int) -> Bool[np.ndarray, " m"]:
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    _, of, count = np.unique(labels[order], return_inverse=True, return_counts=True)
    wanted = np.where(count > 1, np.maximum(1, count * SET_ASIDE), 0).astype(int)
    aside = np.zeros(len(labels), bool)
    aside[order] = _place_in_class(labels[order]) < wanted[of]
    return aside


def _chosen(features: Float32[np.ndarray, "m d"], labels: Int64[np.ndarray, " m"], aside: Bool[np.ndarray, " m"]) -> float:
    model = LogisticRegression(max_iter=MOST_STEPS, warm_start=True)
    shares = []
    for strength in STRENGTHS:
        _fit(model.set_params(C=strength), features[~aside], labels[~aside])
        shares.append((model.predict(features[aside].astype(np.float64)) == labels[aside]).mean())
    return STRENGTHS[int(np.argmax(shares))]


def _fit(model: LogisticRegression, features: Float32[np.ndarray, "m d"], labels: Int64[np.ndarray, " m"]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `Probe.converged` tells it
        warnings.filterwarnings("ignore", message="The number of unique classes is greater")  # of few shots they are
        model.fit(features.astype(np.float64), labels)  # in float32 L-BFGS gives up before the weak strengths are learnt
