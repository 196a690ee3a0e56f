"""Near-duplicates: which threshold tells one shape from two, and how long do large sets take?

    python -m benchmarks.duplicates threshold ROOT … [--objects 200]
    python -m benchmarks.duplicates speed [--benchmark 4096] [--trained 65536] [--within 65536]

threshold: from the stored points of corpora, each cloud is cut into two that have no point in common; one of them is turned in one
of four ways, mirrored, scaled and moved. Told are the distances of the two (that of one shape), and of each object to others that
its descriptor calls candidates, and how many of both are on the wrong side of each threshold. Others that are one shape, as two
exports of one model, count as wrong here; they are printed, nearest first, for a person to look at.

speed: made clouds and made descriptors; each of the three steps is timed on fewer, and what the full sets take is extrapolated:
descriptors and proofs grow with the number of clouds and pairs, the search with the product of the two numbers. Times are of
processor time, all threads together, of a single core: so another program on the machine does not change them much.
"""

import argparse
import resource
import time

import numpy as np
import torch

from evaluate import duplicates
from evaluate.duplicates import MOST, Clouds, candidates, descriptor, descriptors, distance, of_corpus
from schemas.tables import POINTS_PER_OBJECT

THRESHOLDS = (1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.4, 1.5)
FULL = {"benchmark": 46_205, "trained": 800_000, "within": 1_000_000}
DIM = 2 * duplicates.QUANTILES + 3
SHOWN = 40
PER_OBJECT = 8  # candidates that are within reach, on average


def turned(xyz: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """As it is, axes to axes, about the vertical and mirrored, or anyhow; and scaled and moved."""
    angle = rng.uniform(0, 2 * np.pi)
    about = np.array([[-np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    turns = np.eye(3), duplicates.AXES[rng.integers(len(duplicates.AXES))], about, np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return 2.5 * xyz @ turns[number % len(turns)].T + 0.3


def threshold(roots: list[str], objects: int) -> None:
    """Print both distributions and what each threshold gets wrong."""
    rng = np.random.default_rng(0)
    for root in roots:
        clouds = of_corpus(root)
        numbers = np.sort(rng.permutation(len(clouds.ids))[:objects])
        whole = [xyz.astype(np.float32)[rng.permutation(len(xyz))] for xyz in clouds.read(numbers)]
        same = []
        for number, xyz in enumerate(whole):
            halves = xyz[: len(xyz) // 2], turned(xyz[len(xyz) // 2 :], number, rng)
            same.append(distance(*(half[: 2 * duplicates.COMPARED] for half in halves)))
        halves = [Clouds(numbers, lambda some, k=k, whole=whole: [whole[i][k::2] for i in some]) for k in (0, 1)]
        compared, reach = duplicates._measured(halves[0])
        pairs = candidates(*(descriptors(half) @ compared for half in halves), MOST, reach)
        found = sum(i == j for i, j in pairs)
        others = sorted(
            (distance(whole[i][: 2 * duplicates.COMPARED], whole[j][: 2 * duplicates.COMPARED]), i, j) for i, j in pairs if i < j
        )
        far = np.array([one for one, *_ in others])
        print(f"{root}: {len(whole)} objects; their own other half among the candidates: {found}; {len(far)} pairs of others")
        shares = (50, 90, 95, 99, 100)
        print("same   percentiles " + "  ".join(f"{k}: {v:.3f}" for k, v in zip(shares, np.percentile(same, shares), strict=True)))
        for limit in THRESHOLDS:
            print(f"  {limit:.2f}  same missed {sum(one > limit for one in same):4}  others found {int((far <= limit).sum()):4}")
        for one, i, j in others[:SHOWN]:
            print(f"  {one:.3f}  {clouds.ids[numbers[i]]}  {clouds.ids[numbers[j]]}")


def speed(benchmark: int, trained: int, within: int) -> None:
    """Print seconds of each step, and what the full sets take."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    made = [rng.normal(size=(POINTS_PER_OBJECT, 3)) * rng.uniform(0.2, 1, 3) for _ in range(32)]
    begun = time.process_time()
    for xyz in made:
        descriptor(duplicates._sample(xyz, duplicates.DESCRIBED))
    each = (time.process_time() - begun) / len(made)
    print(f"descriptor      {1e3 * each:.1f} ms a cloud of {POINTS_PER_OBJECT} points, without reading it")
    for who, clouds in FULL.items():
        print(f"  {who:<12}  {clouds:>9,} clouds: {clouds * each / 60:.0f} min (extrapolated)")
    for name, (some, others), full in (
        ("benchmark x trained", (benchmark, trained), FULL["benchmark"] * FULL["trained"]),
        ("within", (within, within), FULL["within"] ** 2),
    ):
        # Correlated, as descriptors are, so that some rows have more candidates than are kept and most have few.
        places = rng.normal(size=(8, DIM))
        rows = [(rng.normal(size=(n, 8)) @ places + 0.1 * rng.normal(size=(n, DIM))).astype(np.float32) for n in (some, others)]
        apart = np.linalg.norm(rows[0][:256, None] - rows[1][None, :2048], axis=2)
        reach = float(np.quantile(apart, PER_OBJECT / others))
        begun = time.process_time()
        found = candidates(*rows, MOST, reach)
        seconds = time.process_time() - begun
        print(f"{name}: {some:,} x {others:,}: {seconds:.1f} s, {len(found) / some:.1f} candidates each;", end=" ")
        print(f"full: {seconds * full / (some * others) / 60:.0f} min (extrapolated)")
    pairs = {"one shape": (0, 0), "others": (1, 2)}
    for name, (i, j) in pairs.items():
        halves = duplicates._sample(made[i][::2], 2048), duplicates._sample(made[j][1::2], 2048)
        begun = time.process_time()
        for _ in range(10):
            distance(*halves)
        print(f"proof, {name:<10} {1e3 * (time.process_time() - begun) / 10:.0f} ms a pair")
    each = (time.process_time() - begun) / 10
    for who in ("benchmark", "within"):
        print(f"  {who:<12}  {FULL[who]:>9,} x {MOST} candidates, at most: {FULL[who] * MOST * each / 3600:.0f} h (extrapolated)")
    print(f"peak memory of all of this {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB; ", end="")
    print(f"descriptors of {FULL['within']:,} clouds are {4 * DIM * FULL['within'] / 1e9:.2f} GB, and twice that when in units")


def main() -> None:
    """Read what is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    asked = what.add_parser("threshold")
    asked.add_argument("roots", nargs="+")
    asked.add_argument("--objects", type=int, default=200, help="of each corpus")
    asked = what.add_parser("speed")
    asked.add_argument("--benchmark", type=int, default=4096)
    asked.add_argument("--trained", type=int, default=65_536)
    asked.add_argument("--within", type=int, default=32_768)
    given = parser.parse_args()
    if given.what == "threshold":
        threshold(given.roots, given.objects)
    else:
        speed(given.benchmark, given.trained, given.within)


if __name__ == "__main__":
    main()
