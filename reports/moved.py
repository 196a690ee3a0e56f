"""Which distributions of a report moved against those of another report, how far, and how surely.

How far is told as the total variation distance: the share of the one that would have to lie in another bin for the two to be alike,
0..1. How surely, as the p-value of Pearson's chi-squared test of homogeneity, neighbouring bins joined until each has FEWEST counts
to expect; a distribution has moved when p is below LEVEL after Holm's correction for the number of tests ("A simple
sequentially rejective multiple test procedure", 1979). The test takes counts for independent: views of one object are not, nor are
objects that both corpora hold (these only make it say "moved" less often). Bytes and seconds are not tested.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy.special import gammaln
from scipy.stats import chi2

from reports.section import Bars, Exhibit, Histogram, Section

LEVEL = 0.01  # chance to call anything moved where nothing has
FEWEST = 5.0  # counts to expect in a bin
REST = "all others"
NOT_COUNTS = ("byte", "second")  # in the name of a unit


@dataclass(frozen=True)
class Moved:
    """One distribution on both sides. `distance` as the file says; None: either side is empty. `log_p`: natural logarithm of the
    test's p-value, None: not tested. `counts`, `counts_before`: how many were counted."""

    section: str
    title: str
    counts: int
    counts_before: int
    distance: float | None
    log_p: float | None

    @property
    def name(self) -> str:
        return f"{self.section}: {self.title}"


def pairs(ours: Section, theirs: Section) -> Iterator[tuple[Exhibit, Exhibit | None]]:
    """Our exhibits, and the other's of the same kind and title."""
    there = {(type(exhibit), getattr(exhibit, "title", None)): exhibit for exhibit in reversed(theirs.exhibits)}
    for exhibit in ours.exhibits:
        yield exhibit, there.get((type(exhibit), getattr(exhibit, "title", None)))


def distributions(ours: Section, theirs: Section) -> Iterator[Moved]:
    """Every histogram and every row of bars that both sections have, compared."""
    for mine, other in pairs(ours, theirs):
        if isinstance(mine, Histogram) and other is not None and mine.edges == other.edges:
            for name in (name for name in mine.series if name in other.series):
                title = mine.title if len(mine.series) == 1 else f"{mine.title}, {name}"
                yield _moved(ours.key, title, np.array([mine.series[name], other.series[name]], np.int64))
        elif isinstance(mine, Bars) and other is not None and not any(unit in mine.unit for unit in NOT_COUNTS):
            if mine.of is None and other.of is None:
                counts = list(aligned(mine, other).values())
                yield _moved(ours.key, mine.title, np.array(counts, np.int64).reshape(-1, 2).T)
            elif mine.of and other.of:  # not parts of one whole: each bar by itself
                for name, (count, before) in aligned(mine, other).items():
                    if name != REST:
                        halves = [[count, mine.of - count], [before, other.of - before]]
                        yield _moved(ours.key, f"{mine.title}, {name}", np.array(halves, np.int64).clip(0))


def surely_moved(moved: Sequence[Moved]) -> list[tuple[Moved, bool]]:
    """The distributions, the most surely moved first, and whether sampling does not explain it (Holm 1979)."""
    tested = sorted((one for one in moved if one.log_p is not None), key=lambda one: one.log_p)
    found, rejected = [], True
    for number, one in enumerate(tested):
        rejected = rejected and one.log_p < math.log(LEVEL / (len(tested) - number))
        found.append((one, rejected))
    return found + [(one, False) for one in moved if one.log_p is None]


def distance(ours: Int64[np.ndarray, " n"], theirs: Int64[np.ndarray, " n"]) -> float | None:
    """Total variation distance of two rows of counts, each as shares of its sum; None: a sum is 0."""
    if not ours.sum() or not theirs.sum():
        return None
    return float(np.abs(ours / ours.sum() - theirs / theirs.sum()).sum() / 2)


def log_p_value(ours: Int64[np.ndarray, " n"], theirs: Int64[np.ndarray, " n"]) -> float | None:
    """Natural logarithm of the p-value of Pearson's chi-squared test that two rows of counts are of one distribution; None: too few
    counts to ask."""
    table = np.stack([ours, theirs]).astype(np.float64)
    sums, total = table.sum(axis=1), table.sum()
    if not sums.all():
        return None
    table = _joined(table, least=FEWEST * total / sums.min())
    if table.shape[1] < 2:
        return None
    expected = sums[:, None] * table.sum(axis=0) / total
    return _log_tail(float(((table - expected) ** 2 / expected).sum()), table.shape[1] - 1)


def _log_tail(statistic: float, freedom: int) -> float:
    """Logarithm of the chance that chi-squared of so many degrees of freedom is beyond `statistic`."""
    chance = float(chi2.sf(statistic, freedom))
    if chance > 0:
        return math.log(chance)
    z, a = statistic / 2, freedom / 2  # too small for a float: the incomplete gamma function for z far above a (DLMF 8.11.2)
    return (a - 1) * math.log(z) - z - float(gammaln(a)) + math.log1p((a - 1) / z)


def _joined(table: Float64[np.ndarray, "2 n"], least: float) -> Float64[np.ndarray, "2 m"]:
    """Neighbouring bins joined until each has `least` counts of both sides together; what is left at the end joins the last."""
    bins: list[np.ndarray] = []
    open_ = np.zeros(2)
    for column in table.T:
        open_ = open_ + column
        if open_.sum() >= least:
            bins.append(open_)
            open_ = np.zeros(2)
    if bins:
        bins[-1] = bins[-1] + open_
    return np.array(bins).reshape(-1, 2).T


def aligned(ours: Bars, theirs: Bars) -> dict[str, tuple[int, int]]:
    """Counts on both sides by name. What only one side names and the other may have left out is among REST."""
    mine, other = ({bar.name: bar.count for bar in side.bars} for side in (ours, theirs))
    rest = [ours.left_out[1], theirs.left_out[1]]
    found = {}
    for name in dict.fromkeys([*mine, *other]):
        left_out = (name not in mine and ours.left_out[0]) or (name not in other and theirs.left_out[0])
        if left_out:
            rest = [rest[0] + mine.get(name, 0), rest[1] + other.get(name, 0)]
        else:
            found[name] = mine.get(name, 0), other.get(name, 0)
    return found | ({REST: tuple(rest)} if any(rest) else {})


def _moved(section: str, title: str, counts: Int64[np.ndarray, "2 n"]) -> Moved:
    now, before = (int(side) for side in counts.sum(axis=1))
    return Moved(section, title, now, before, distance(*counts), log_p_value(*counts))
