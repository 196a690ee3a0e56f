"""Objects of the same shape, however they are turned, mirrored, scaled and sampled: from points alone, as benchmarks have no more.

    duplicates("/data/corpus")                                    # clusters within a corpus
    near_duplicates(of_benchmark(benchmark), of_corpus(root))     # pairs between two collections

First each cloud gets a descriptor that none of these changes: quantiles of the distances from the centre and between points (Osada,
Funkhouser, Chazelle, Dobkin 2002, "Shape Distributions"), and its extent along its own axes. Much of what two descriptors of one
object differ by goes along few directions; so they are compared in units of that noise, which is measured on the clouds
themselves, each cut into two. Those that are near are candidates. Then the clouds themselves are laid on each other, from 112
turns and mirrors on, and are called duplicates when the points of one are as near to the other as those of another sample of the
same surface would be. Colours are not looked at: one shape with two textures is a duplicate.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float, Float32, Int, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor

from evaluate.benchmark import Benchmark
from pipeline.stage import ObjectError
from schemas.corpus import CorpusError, Reader
from schemas.tables import OBJECTS, POINTS

# Chosen on real and made objects: `python -m benchmarks.duplicates threshold ROOT …` prints what is missed by it.
SAME = 1.2  # distance of two clouds up to which they are of one shape; 1: two samples of one surface
HOPELESS = 1.9, 1.6  # the same as a few points tell it before fitting and after it: such pairs are not looked at any closer

FEWEST = 64  # distinct points that a cloud must have to be compared
DESCRIBED = 4096  # points of a descriptor, at most
QUANTILES = 32
STEPS = 16  # each point is paired with so many others
COMPARED = 1024  # points of each of two samples of a cloud, in the proof
COARSE = 256  # of these that choose the poses
POSES = 8, 2  # that are fitted roughly, and of these well
FITTED = 3, 8  # times, roughly and well
MEASURED = 512  # clouds of a collection on which the descriptors' noise is measured
CUT = 1024  # points of each half of these, at most
LEAST_CUTS = 128  # so many halves are compared, though the clouds be fewer
RIDGE = 0.03  # share of the mean variance that is added to each direction's noise
REACH = 1.0  # candidates are at most this many times as far apart as almost all halves of one cloud
ALMOST_ALL = 0.99
MOST = 16  # candidates for each object
LOOKS_ALIKE, MOST_ALIKE = 0.97, 4  # cosine of embeddings, and candidates for each object, of those told by their views
AT_ONCE = 64  # clouds in memory, and each one's candidates
QUERIES, GALLERY = 1024, 1 << 16  # descriptors of a block of distances


@dataclass(frozen=True)
class Clouds:
    """Clouds of objects, read when they are needed: `read` takes numbers of `ids` and gives the points of each, (n, 3), in any unit
    and frame; None: it cannot be read, and is compared with nothing."""

    ids: Sequence[str]
    read: Callable[[Sequence[int]], list[Float[np.ndarray, "n 3"] | None]]


def of_corpus(root: str, *, keep: Iterable[str] | None = None, version: int | None = None) -> Clouds:
    """The stored points of a corpus, of a version of the table; `keep`: of these objects only. Raises CorpusError."""
    reader = Reader.at(root)
    table = reader.need(POINTS.name) if version is None else reader.open(POINTS.name, version)
    if table is None:
        raise CorpusError(f"{reader.root} has no version {version} of its points any more")
    ids = table.to_table(columns=["object_id"])["object_id"].combine_chunks()
    rows = np.arange(len(ids)) if keep is None else np.flatnonzero(pc.is_in(ids, pa.array(list(keep), pa.string())))

    def read(numbers: Sequence[int]) -> list[np.ndarray]:
        xyz = table.take(rows[numbers], columns=["xyz"])["xyz"].combine_chunks()
        return list(xyz.flatten().to_numpy(zero_copy_only=False).reshape(len(numbers), -1, 3))

    return Clouds(ids.take(pa.array(rows)).to_pylist(), read)


def of_benchmark(benchmark: Benchmark) -> Clouds:
    """The clouds of a benchmark. Raises CorpusError."""
    if benchmark.corpus is not None:
        return of_corpus(benchmark.corpus, keep=benchmark.ids)

    def one(number: int) -> np.ndarray | None:
        try:
            return benchmark.cloud(number).xyz
        except ObjectError:
            return None

    return Clouds(benchmark.ids, lambda numbers: [one(int(number)) for number in numbers])


# ------------------------------------------------------------------------------------------------------------------ the whole


def near_duplicates(
    some: Clouds,
    others: Clouds | None = None,
    *,
    also: Iterable[tuple[int, int]] = (),
    known: Iterable[tuple[int, int]] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[int, int, float]]:
    """Pairs of the same shape: number of the one, number of the other, and their `distance`, by number. `others` None: among
    themselves, each pair once. `also`: pairs that are to be compared whatever their descriptors are; `known`: pairs that are not to
    be. `progress` is told how many clouds are described and pairs compared, of how many."""
    within, others = others is None, some if others is None else others
    clouds = len(some.ids) + (0 if within else len(others.ids))
    mine = descriptors(some, lambda done: progress(done, clouds))
    theirs = mine if within else descriptors(others, lambda done: progress(len(some.ids) + done, clouds))
    compared, reach = _measured(others) if within else _measured(some, others)
    near = {(i, j) for i, j in candidates(mine @ compared, theirs @ compared, MOST + within, reach)}
    pairs = np.array(sorted({*near, *also}.difference(known)), np.int64).reshape(-1, 2)
    if within:
        pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
    return list(_proven(some, others, pairs, lambda done: progress(clouds + done, clouds + len(pairs))))


def _proven(
    some: Clouds, others: Clouds, pairs: Int64[np.ndarray, "p 2"], progress: Callable[[int], None]
) -> Iterator[tuple[int, int, float]]:
    firsts = np.unique(pairs[:, 0])
    done = 0
    with ThreadPoolExecutor() as pool:
        for begin in range(0, len(firsts), AT_ONCE):
            block = pairs[np.isin(pairs[:, 0], firsts[begin : begin + AT_ONCE])]
            left, right = _samples(some, np.unique(block[:, 0])), _samples(others, np.unique(block[:, 1]))
            found = pool.map(lambda pair, left=left, right=right: distance(left[pair[0]], right[pair[1]]), block.tolist())
            yield from ((i, j, far) for (i, j), far in zip(block.tolist(), found, strict=True) if far <= SAME)
            done += len(block)
            progress(done)


def _samples(clouds: Clouds, numbers: Int64[np.ndarray, " n"]) -> dict[int, Float32[np.ndarray, "m 3"]]:
    """Points of clouds that the proof compares. Clouds without candidates are never among them, so that each can be read."""
    made = {}
    for begin in range(0, len(numbers), AT_ONCE):
        some = numbers[begin : begin + AT_ONCE]
        made |= {int(number): _sample(xyz, 2 * COMPARED) for number, xyz in zip(some, clouds.read(some), strict=True)}
    return made


# ----------------------------------------------------------------------------------------------------------------- descriptors


def descriptors(clouds: Clouds, progress: Callable[[int], None] = lambda done: None) -> Float32[np.ndarray, "n d"]:
    """A row for each cloud; not a number for those that cannot be read or have too few distinct points."""
    rows = np.full((len(clouds.ids), 2 * QUANTILES + 3), np.nan, np.float32)
    for begin in range(0, len(rows), AT_ONCE):
        numbers = np.arange(begin, min(begin + AT_ONCE, len(rows)))
        for number, xyz in zip(numbers, clouds.read(numbers), strict=True):
            sample = None if xyz is None else _sample(xyz, DESCRIBED)
            if sample is not None:
                rows[number] = descriptor(sample)
        progress(int(numbers[-1]) + 1)
    return rows


def descriptor(xyz: Float[np.ndarray, "n 3"]) -> Float32[np.ndarray, " d"]:
    """Quantiles of the distances from the mean and between points, and the spread along the three axes, of a cloud in random order;
    in units of the root mean square distance from the mean."""
    xyz = _normalised(xyz.astype(np.float32))
    between = [np.linalg.norm(xyz - np.roll(xyz, step, axis=0), axis=1) for step in range(1, STEPS + 1)]
    spread = np.sqrt(np.linalg.eigvalsh(xyz.T @ xyz / len(xyz)).clip(0))
    return np.concatenate([_quantiles(np.linalg.norm(xyz, axis=1)), _quantiles(np.concatenate(between)), spread]).astype(np.float32)


def candidates(some: Float[np.ndarray, "n d"], others: Float[np.ndarray, "m d"], most: int, reach: float) -> list[tuple[int, int]]:
    """Pairs of rows that are at most `reach` apart; of each row of the first at most the `most` nearest. Blockwise: memory does not
    grow with n times m. Rows that are not finite are near nothing."""
    others = torch.from_numpy(np.ascontiguousarray(others, np.float32))
    middle = others[others.isfinite().all(dim=1)].mean(dim=0).nan_to_num()
    some = torch.from_numpy(np.ascontiguousarray(some, np.float32)) - middle
    found = []
    for begin in range(0, len(some), QUERIES):
        block = some[begin : begin + QUERIES]
        bound = torch.full((len(block),), reach**2)
        query, item, far = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0)
        for first in range(0, len(others), GALLERY):
            squares = _squares(block, others[first : first + GALLERY] - middle)
            rows, columns = torch.nonzero(squares <= bound[:, None], as_tuple=True)
            query, item = torch.cat([query, rows]), torch.cat([item, columns + first])
            far = torch.cat([far, squares[rows, columns]])
            query, item, far, bound = _nearest(query, item, far, bound, most)
        found += zip((query + begin).tolist(), item.tolist(), strict=True)
    return found


def alike(some: Float32[np.ndarray, "n d"], others: Float32[np.ndarray, "m d"]) -> list[tuple[int, int]]:
    """Candidates by embeddings of views: pairs of a cosine of LOOKS_ALIKE or more. Rows that are not finite are like nothing."""
    some, others = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (some, others))
    return candidates(some, others, MOST_ALIKE, (2 - 2 * LOOKS_ALIKE) ** 0.5)


def _squares(some: Float32[Tensor, "n d"], others: Float32[Tensor, "m d"]) -> Float32[Tensor, "n m"]:
    """Squared distances."""
    squares = torch.addmm((others**2).sum(dim=1), some, others.T, alpha=-2)
    return squares.add_((some**2).sum(dim=1, keepdim=True))


def _nearest(
    query: Int[Tensor, " p"], item: Int[Tensor, " p"], far: Float32[Tensor, " p"], bound: Float32[Tensor, " q"], most: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The `most` nearest pairs of each query; and what a further one must be nearer than, where a query has that many."""
    order = far.argsort(stable=True)
    order = order[query[order].argsort(stable=True)]
    query, item, far = query[order], item[order], far[order]
    place = torch.arange(len(query)) - torch.searchsorted(query, query)
    kept, last = place < most, place == most - 1
    bound = bound.clone()
    bound[query[last]] = far[last]
    return query[kept], item[kept], far[kept], bound


def _measured(*collections: Clouds) -> tuple[Float32[np.ndarray, "d d"], float]:
    """What brings descriptors to units of their noise, and how far apart those of one object may be: from clouds cut into two, of
    fewer points than clouds usually have, so that the noise is no smaller than any that is met."""
    differences = []
    rng = np.random.default_rng(0)
    for clouds in collections:
        chosen = np.sort(rng.permutation(len(clouds.ids))[:MEASURED])
        for begin in range(0, len(chosen), AT_ONCE):
            for xyz in clouds.read(chosen[begin : begin + AT_ONCE]):
                sample = None if xyz is None else _sample(xyz, 2 * CUT)
                for _ in range(0 if sample is None else math.ceil(LEAST_CUTS / len(chosen))):
                    one, other = np.array_split(rng.permutation(sample), 2)
                    differences.append(descriptor(one).astype(np.float64) - descriptor(other))
    if not differences:
        return np.eye(2 * QUANTILES + 3, dtype=np.float32), 0.0
    differences = np.array(differences)
    noise = differences.T @ differences / len(differences)
    noise += np.eye(len(noise)) * max(RIDGE * np.trace(noise) / len(noise), np.finfo(np.float32).eps)
    compared = np.linalg.cholesky(np.linalg.inv(noise))
    return compared.astype(np.float32), REACH * float(np.quantile(np.linalg.norm(differences @ compared, axis=1), ALMOST_ALL))


# ----------------------------------------------------------------------------------------------------------------- the proof


def distance(one: Float[np.ndarray, "n 3"], other: Float[np.ndarray, "m 3"]) -> float:
    """How far apart two clouds, each in random order, are when one is laid on the other as well as may be: mean distance of a point
    to the nearest of the other cloud, both ways, over what that is for two samples of the same cloud. About 1: one surface. A pair
    that a few points tell to be hopeless is not fitted; its distance is as these have it."""
    count = min(len(one) // 2, len(other) // 2, COMPARED)
    one, other = _normalised(one[: 2 * count].astype(np.float32)), _normalised(other[: 2 * count].astype(np.float32))
    moved, fixed, few = one[:count], other[:count], min(count, COARSE)
    turns = _turns(one, other)
    far = _apart_turned(moved[:few], fixed[:few], turns)
    own = np.mean([_apart(cloud[:few], cloud[count : count + few]) for cloud in (one, other)])
    if far.min() > HOPELESS[0] * own:
        return float(far.min() / own)
    poses = [(turns[pose], np.zeros(3, np.float32)) for pose in far.argsort()[: POSES[0]]]
    for times, kept in zip(FITTED, (POSES[1], 1), strict=True):
        fitted = [_fitted(moved[:few], fixed[:few], pose, times) for pose in poses]
        poses = sorted(fitted, key=lambda pose: _apart(_at(moved[:few], *pose), fixed[:few]))[:kept]
    apart = _apart(_at(moved[:few], *poses[0]), fixed[:few])
    if apart > HOPELESS[1] * own:
        return float(apart / own)
    own = np.mean([_apart(cloud[:count], cloud[count:]) for cloud in (one, other)])
    return float(_apart(_at(moved, *_fitted(moved, fixed, poses[0], FITTED[1])), fixed) / own)


def _turns(one: Float32[np.ndarray, "n 3"], other: Float32[np.ndarray, "m 3"]) -> Float32[np.ndarray, "p 3 3"]:
    """Where fitting may start: the 24 turns that take axes to axes, and their mirrors; the same between the clouds' own axes, for
    those that are turned anyhow; and turns about the vertical, for those whose own axes are anywhere."""
    own = [np.linalg.eigh(cloud.T @ cloud)[1] for cloud in (one, other)]
    return np.concatenate([AXES, own[1] @ AXES @ own[0].T, ABOUT_Y], dtype=np.float32)


def _axes() -> Float32[np.ndarray, "48 3 3"]:
    orders, signs = itertools.permutations(range(3)), list(itertools.product((1, -1), repeat=3))
    return np.array([np.eye(3)[list(order)] * sign for order in orders for sign in signs], np.float32)


def _about_y() -> Float32[np.ndarray, "16 3 3"]:
    """By 30 degrees and 60 from an axis, and mirrored: fitting finds what is between."""
    turns = [np.radians(30 * step) for step in range(12) if step % 3]
    turns = np.array([[[np.cos(t), 0, np.sin(t)], [0, 1, 0], [-np.sin(t), 0, np.cos(t)]] for t in turns], np.float32)
    return np.concatenate([turns, turns * np.array([-1, 1, 1], np.float32)])


AXES, ABOUT_Y = _axes(), _about_y()


def _apart_turned(
    moved: Float32[np.ndarray, "n 3"], fixed: Float32[np.ndarray, "n 3"], turns: Float32[np.ndarray, "p 3 3"]
) -> Float32[np.ndarray, " p"]:
    """`_apart` for each turn; by all distances at once, which for few points is faster than a tree."""
    turned = moved @ turns.transpose(0, 2, 1)
    squares = (turned**2).sum(axis=2)[:, :, None] + (fixed**2).sum(axis=1) - 2 * turned @ fixed.T
    return sum(np.sqrt(squares.min(axis=axis).clip(0)).mean(axis=1) for axis in (1, 2)) / 2


def _fitted(
    moved: Float32[np.ndarray, "n 3"],
    fixed: Float32[np.ndarray, "n 3"],
    pose: tuple[Float32[np.ndarray, "3 3"], Float32[np.ndarray, " 3"]],
    times: int,
) -> tuple[Float32[np.ndarray, "3 3"], Float32[np.ndarray, " 3"]]:
    """Besl and McKay 1992: each point to its nearest of the other cloud, both ways; the best turn and shift for these pairs (Kabsch
    1976); and again. A mirror stays one."""
    tree, (turn, shift) = cKDTree(fixed), pose
    for _ in range(times):
        at = _at(moved, turn, shift)
        pairs = tree.query(at)[1], cKDTree(at).query(fixed)[1]
        source, target = np.concatenate([at, at[pairs[1]]]), np.concatenate([fixed[pairs[0]], fixed])
        middles = source.mean(axis=0), target.mean(axis=0)
        left, _, right = np.linalg.svd((target - middles[1]).T @ (source - middles[0]))
        more = left @ np.diag([1, 1, np.sign(np.linalg.det(left @ right))]).astype(np.float32) @ right
        turn, shift = more @ turn, more @ (shift - middles[0]) + middles[1]
    return turn, shift


def _at(xyz: Float32[np.ndarray, "n 3"], turn: Float32[np.ndarray, "3 3"], shift: Float32[np.ndarray, " 3"]) -> np.ndarray:
    return xyz @ turn.T + shift


def _apart(one: Float32[np.ndarray, "n 3"], other: Float32[np.ndarray, "n 3"]) -> float:
    """Mean distance of a point to the nearest of the other cloud, both ways."""
    return (cKDTree(one).query(other)[0].mean() + cKDTree(other).query(one)[0].mean()) / 2


# ------------------------------------------------------------------------------------------------------------------- clouds


def _sample(xyz: Float[np.ndarray, "n 3"], count: int) -> Float32[np.ndarray, "m 3"] | None:
    """Distinct points of a cloud in random order, at most so many; None: it has too few, or some are not finite."""
    if not np.isfinite(xyz).all():
        return None
    order = np.random.default_rng(0).permutation(len(xyz))
    xyz = xyz[order].astype(np.float32)
    _, first = np.unique(xyz.astype(np.float64) @ _TELLS_APART, return_index=True)
    return xyz[np.sort(first)[:count]] if len(first) >= FEWEST else None


_TELLS_APART = np.array([1, np.e, np.pi])  # of points with few bits, no two have the same product


def _normalised(xyz: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
    """The mean at the origin, the root mean square distance from it 1. The points are distinct, so that they have a size."""
    xyz = xyz - xyz.mean(axis=0)
    return xyz / np.sqrt((xyz**2).sum(axis=1).mean())


def _quantiles(values: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " q"]:
    """QUANTILES of them, in the middle of as many equal shares."""
    places = (np.arange(QUANTILES) + 0.5) / QUANTILES * (len(values) - 1)
    return np.interp(places, np.arange(len(values)), np.sort(values))


# ------------------------------------------------------------------------------------------------------------- within a corpus


@dataclass(frozen=True)
class Duplicates:
    """Clusters of objects of a corpus, each a tuple of ids, the largest first. `exact`: the same bytes, and the same companions.
    `near`: the same shape; what is exact is in them too. `compared`: objects whose shapes could be compared; None: not asked."""

    objects: int
    exact: tuple[tuple[str, ...], ...]
    near: tuple[tuple[str, ...], ...] | None
    compared: int | None

    @staticmethod
    def superfluous(clusters: Iterable[tuple[str, ...]]) -> int:
        """Objects that go when one of each cluster stays."""
        return sum(len(cluster) - 1 for cluster in clusters)


def duplicates(root: str, *, near: bool = True, progress: Callable[[int, int], None] = lambda done, total: None) -> Duplicates:
    """Duplicates within a corpus: by the hashes of the files, and by shape, which takes a while. Raises CorpusError."""
    reader = Reader.at(root)
    rows = reader.need(OBJECTS.name).to_table(columns=["object_id", "asset_sha256", "companions_sha256"])
    ids = rows["object_id"].to_pylist()
    files = pc.binary_join_element_wise(rows["asset_sha256"], pc.fill_null(rows["companions_sha256"], ""), "/").combine_chunks()
    files = files.dictionary_encode().indices.to_numpy()
    exact = _clusters(ids, files)
    if not near:
        return Duplicates(len(ids), exact, None, None)
    clouds = of_corpus(root)
    number = {id: place for place, id in enumerate(ids)}
    linked = [(number[clouds.ids[i]], number[clouds.ids[j]]) for i, j, _ in near_duplicates(clouds, progress=progress)]
    linked += [(number[cluster[0]], number[id]) for cluster in exact for id in cluster[1:]]
    return Duplicates(len(ids), exact, _clusters(ids, _components(len(ids), linked)), len(clouds.ids))


def _components(count: int, linked: list[tuple[int, int]]) -> Int[np.ndarray, " n"]:
    """For each of so many things the number of the group that its links put it in."""
    first, second = np.array(linked, np.int64).reshape(-1, 2).T
    return connected_components(coo_array((np.ones(len(first)), (first, second)), shape=(count, count)), directed=False)[1]


def _clusters(ids: Sequence[str], group: Int[np.ndarray, " n"]) -> tuple[tuple[str, ...], ...]:
    """Groups of more than one, the largest first, then by id."""
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(group))[:-1]) if len(group) else []
    found = [tuple(sorted(ids[number] for number in part)) for part in parts if len(part) > 1]
    return tuple(sorted(found, key=lambda cluster: (-len(cluster), cluster)))
