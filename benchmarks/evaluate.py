"""How long do the published sizes of evaluation take, and how much memory, beside the plain way?

    python -m benchmarks.evaluate [--objects 46205] [--classes 1156] [--dim 1280] [--part zero-shot retrieval] [--threads 2]

Made embeddings: a centre per class, objects around it, captions around the objects. `zero-shot`: all objects against all classes,
top-1, 3, 5 and the mean over classes. `retrieval`: objects against objects, both ways, by instance and by category. Rivals, which
must find the same: the plain way in PyTorch, a full matrix in float32 and topk; in NumPy, the same and argpartition; and
scikit-learn's top_k_accuracy_score on the full matrix (zero-shot alone). tricorpus' figures are exact, equals and all, and the
same on any device; theirs are as float32 has it.

Each runs in a process of its own: seconds by the clock and of all threads, and how far its memory grew beyond the embeddings that
it was given (peak resident set, less what it was before). `times`: of tricorpus' seconds.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float32, Int64
from sklearn.metrics import top_k_accuracy_score

from evaluate.retrieval import both_ways
from evaluate.zero_shot import zero_shot

TOP = (1, 3, 5)
PARTS = ("zero-shot", "retrieval")
MIB = 2**20
SORTED_AT_ONCE = 2048

Vectors = Float32[np.ndarray, "n d"]
Found = list[float]  # shares, in the order of TOP


def made(objects: int, classes: int, dim: int) -> tuple[Vectors, Vectors, Vectors, Int64[np.ndarray, " n"]]:
    """Objects, their captions, classes, labels; of unit length, so near that figures at the full size are far from 0 and 1."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((classes, dim), dtype=np.float32)
    labels = rng.integers(classes, size=objects)
    shapes = centres[labels]
    shapes += 11 * rng.standard_normal((objects, dim), dtype=np.float32)
    captions = shapes + 80 * rng.standard_normal((objects, dim), dtype=np.float32)
    for vectors in (centres, shapes, captions):
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return shapes, captions, centres, labels


def zero_shot_here(shapes: Vectors, _: Vectors, classes: Vectors, labels: Int64[np.ndarray, " n"]) -> Found:
    """As the job does."""
    found = zero_shot(torch.from_numpy(shapes), torch.from_numpy(classes), torch.from_numpy(labels))
    return [*found.top, found.class_mean]


def zero_shot_torch(shapes: Vectors, _: Vectors, classes: Vectors, labels: Int64[np.ndarray, " n"]) -> Found:
    """The full matrix, in float32."""
    nearest = (torch.from_numpy(shapes) @ torch.from_numpy(classes).T).topk(max(TOP)).indices
    right = (nearest == torch.from_numpy(labels)[:, None]).numpy()
    return [*_shares(right), _class_mean(right[:, 0], labels)]


def zero_shot_numpy(shapes: Vectors, _: Vectors, classes: Vectors, labels: Int64[np.ndarray, " n"]) -> Found:
    """The full matrix, in float32."""
    right = _nearest(shapes, classes) == labels[:, None]
    return [*_shares(right), _class_mean(right[:, 0], labels)]


def zero_shot_sklearn(shapes: Vectors, _: Vectors, classes: Vectors, labels: Int64[np.ndarray, " n"]) -> Found:
    """One call per k."""
    scores, every = shapes @ classes.T, np.arange(len(classes))
    shares = [float(top_k_accuracy_score(labels, scores, k=k, labels=every)) for k in TOP]
    return [*shares, _class_mean(scores.argmax(axis=1) == labels, labels)]


def retrieval_here(shapes: Vectors, captions: Vectors, _: Vectors, labels: Int64[np.ndarray, " n"]) -> Found:
    """As the job does."""
    ways = both_ways(torch.from_numpy(shapes), torch.from_numpy(captions), torch.from_numpy(labels))
    return [share for way in ways.values() for share in (*way.instance, *way.category)]


def retrieval_torch(shapes: Vectors, captions: Vectors, _: Vectors, labels: Int64[np.ndarray, " n"]) -> Found:
    """The full matrix once, in float32; sorted in parts, for topk copies what it sorts along columns."""
    cosines = torch.from_numpy(captions) @ torch.from_numpy(shapes).T
    there = cosines.topk(max(TOP), dim=1).indices
    back = torch.cat([part.topk(max(TOP), dim=0).indices for part in cosines.split(SORTED_AT_ONCE, dim=1)], dim=1)
    return _retrieved([there.numpy(), back.T.numpy()], labels)


def retrieval_numpy(shapes: Vectors, captions: Vectors, _: Vectors, labels: Int64[np.ndarray, " n"]) -> Found:
    """The full matrix, in float32, once per way."""
    return _retrieved([_nearest(captions, shapes), _nearest(shapes, captions)], labels)


def _retrieved(lists: list[np.ndarray], labels: Int64[np.ndarray, " n"]) -> Found:
    shares: Found = []
    for nearest in lists:
        shares += _shares(nearest == np.arange(len(labels))[:, None]) + _shares(labels[nearest] == labels[:, None])
    return shares


def _nearest(queries: Vectors, gallery: Vectors) -> Int64[np.ndarray, "n k"]:
    scores, lists = queries @ gallery.T, []
    for first in range(0, len(scores), SORTED_AT_ONCE):  # argpartition's numbers take twice the room of the scores
        part = scores[first : first + SORTED_AT_ONCE]
        some = np.argpartition(part, -max(TOP), axis=1)[:, -max(TOP) :]
        order = np.take_along_axis(part, some, axis=1).argsort(axis=1)[:, ::-1]
        lists.append(np.take_along_axis(some, order, axis=1))
    return np.concatenate(lists)


def _shares(right: np.ndarray) -> Found:
    return [float(right[:, :k].any(axis=1).mean()) for k in TOP]


def _class_mean(right: np.ndarray, labels: Int64[np.ndarray, " n"]) -> float:
    count = np.bincount(labels)
    return float((np.bincount(labels, right)[count > 0] / count[count > 0]).mean())


WAYS: dict[str, dict[str, Callable[..., Found]]] = {
    "zero-shot": {
        "tricorpus": zero_shot_here,
        "torch, full": zero_shot_torch,
        "numpy, full": zero_shot_numpy,
        "scikit-learn": zero_shot_sklearn,
    },
    "retrieval": {"tricorpus": retrieval_here, "torch, full": retrieval_torch, "numpy, full": retrieval_numpy},
}


def measured(part: str, way: str, asked: argparse.Namespace) -> None:
    """What a process of its own does: prints what it found and what it took, as JSON."""
    torch.set_num_threads(asked.threads)
    WAYS[part][way](*made(64, 8, asked.dim))  # what is loaded at the first use is nobody's
    given = made(asked.objects, asked.classes, asked.dim)
    before = _peak()
    began, cpu = time.perf_counter(), time.process_time()
    found = WAYS[part][way](*given)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(json.dumps({"seconds": took, "cpu": cpu, "memory": _peak() - before, "found": found}))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Prints the table; fails if somebody found something else."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=46_205)
    parser.add_argument("--classes", type=int, default=1_156)
    parser.add_argument("--dim", type=int, default=1_280)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs=2, metavar=("PART", "WAY"), help=argparse.SUPPRESS)  # in a process of its own
    asked = parser.parse_args()
    if asked.only:
        return measured(*asked.only, asked)

    sizes = [f"--{name}={getattr(asked, name)}" for name in ("objects", "classes", "dim", "threads")]
    print(f"{asked.objects:,} objects, {asked.classes:,} classes, {asked.dim:,} dimensions, {asked.threads} threads")
    for part in asked.part:
        against = f"{asked.classes:,} classes" if part == "zero-shot" else f"{asked.objects:,} captions, both ways"
        print(f"\n{part}: {asked.objects:,} objects x {against}")
        print(f"{'by':14} {'seconds':>9} {'CPU s':>9} {'times':>7} {'memory MiB':>11}   found")
        ours = None
        for way in WAYS[part]:
            command = [sys.executable, "-m", "benchmarks.evaluate", *sizes, "--only", part, way]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(
                    f"{way:14} could not: {(done.stderr.strip().splitlines() or [f'ended by signal {-done.returncode}'])[-1][:90]}"
                )
                continue
            told = json.loads(done.stdout)
            ours = ours or told
            shares = " ".join(f"{100 * share:.2f}" for share in told["found"])
            times = told["seconds"] / ours["seconds"]
            print(f"{way:14} {told['seconds']:9.2f} {told['cpu']:9.2f} {times:7.2f} {told['memory'] / MIB:11,.0f}   {shares}")
            furthest = max(abs(a - b) for a, b in zip(told["found"], ours["found"], strict=True))
            if furthest > 2 / asked.objects:  # an object or two whose nearest float32 cannot tell apart
                sys.exit(f"{way} found something else than tricorpus")


if __name__ == "__main__":
    main()
