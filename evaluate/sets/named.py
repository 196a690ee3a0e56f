"""Benchmarks by name, from wherever their files lie: modelnet40=/data/ModelNet40, objaverse-lvis=/data/corpus."""

from collections.abc import Callable
from pathlib import Path

from evaluate.benchmark import Benchmark
from evaluate.sets.clouds import Half
from evaluate.sets.in_corpus import in_corpus
from evaluate.sets.modelnet40 import modelnet40
from evaluate.sets.mvpnet import mvpnet
from evaluate.sets.objaverse_lvis import objaverse_lvis
from evaluate.sets.scanobjectnn import VARIANTS
from schemas.corpus import Reader
from schemas.tables import OBJECTS

# The readers of official files: a folder or file, and the half that is asked for.
BENCHMARKS: dict[str, Callable[[str, Half], Benchmark]] = {
    "modelnet40": modelnet40,
    **{variant.name: variant for variant in VARIANTS},
    "mvpnet": mvpnet,
    "objaverse-lvis": objaverse_lvis,
}


def open_benchmark(asked: str, *, part: Half = "test") -> Benchmark:
    """What NAME=PLACE says. NAME: one of BENCHMARKS, or a split of a corpus with labels. PLACE: the root of a corpus, or a
    folder or file in one of the official forms; which one is told from what lies there.

    `part`: "train" for the training half, where the set has one. Lists are read and no clouds. Raises CorpusError, ObjectError,
    ValueError.
    """
    name, equals, place = asked.partition("=")
    if not (name and equals and place):
        raise ValueError(f"{asked!r} is not NAME=PLACE: for instance modelnet40=/data/modelnet40, or a split of a corpus=its root")
    if "://" not in place and not Path(place).exists():
        raise ValueError(f"there is no {place}")
    if "://" in place or (Path(place).is_dir() and Reader.at(place).open(OBJECTS.name) is not None):
        benchmark = in_corpus(name, place, part)
    elif name in BENCHMARKS:
        benchmark = BENCHMARKS[name](place, part)
    else:
        raise ValueError(f"{place} is no corpus, which could have a split {name!r}; of files are read: {', '.join(BENCHMARKS)}")
    if not benchmark.ids:
        raise ValueError(f"none of the {len(benchmark.missing):,} listed objects is there")
    return benchmark
