"""What a report tells of shapes that occur twice and of benchmarks' objects, where a person asks for it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from evaluate.benchmark import Benchmark
from evaluate.duplicates import near_duplicates, of_corpus
from evaluate.leaks import TrainedOn, leaks, listed
from evaluate.sets.named import open_benchmark
from jobs.progress import progress
from jobs.refusal import Refusal
from pipeline.stage import ObjectError
from reports.duplicates import Leak
from schemas.corpus import Reader
from schemas.tables import POINTS

UNIT = "clouds and pairs"


def compared(corpus: Reader, asked: Sequence[str], *, near: bool, quiet: bool) -> dict[str, Any]:
    """Arguments of reports.duplicates: what of the benchmarks `asked` (NAME=PLACE) is in the corpus and, if `near`, which of its
    objects are of one shape. Refusal: there is no such benchmark."""
    benchmarks = [_opened(one) for one in asked]
    shapes = _near(corpus, quiet) if near else {}
    held = listed(corpus.root) if benchmarks else None
    return shapes | {"leaks": [_leak(held, benchmark, near, quiet) for benchmark in benchmarks]}


def _opened(asked: str) -> Benchmark:
    try:
        return open_benchmark(asked)
    except (ValueError, ObjectError) as error:
        raise Refusal(f"--leaks {error}", exit_code=2 if isinstance(error, ValueError) else 1) from error


def _near(corpus: Reader, quiet: bool) -> dict[str, Any]:
    """Pairs of objects of the same shape, by id, and among how many they were looked for."""
    table = corpus.open(POINTS.name)
    if table is None:
        return {}
    clouds = of_corpus(corpus.root, version=table.version)
    with progress("compare shapes", None, UNIT, quiet=quiet) as bar:
        pairs = near_duplicates(clouds, progress=lambda done, total: bar.update(done=done, total=total))
    return {"near": [(clouds.ids[one], clouds.ids[other], apart) for one, other, apart in pairs], "compared": len(clouds.ids)}


def _leak(held: TrainedOn, benchmark: Benchmark, near: bool, quiet: bool) -> Leak:
    with progress(f"compare with {benchmark.name}", None, UNIT, quiet=quiet) as bar:
        found = leaks(held, benchmark, near=near, progress=lambda done, total: bar.update(done=done, total=total))
    return Leak(**{field.name: getattr(found, field.name) for field in dataclasses.fields(Leak)})
