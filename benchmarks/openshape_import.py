"""How fast OpenShape's files come in, against `np.load(allow_pickle=True)` of the same files alone.

python -m benchmarks.openshape_import FOLDER --objects 2000

Makes so many files of the real size under FOLDER (kept for the next time), loads them all with NumPy, imports them into a new
corpus, and prints objects per second of each, in one run. How the time splits is measured on some of the files.
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from pipeline.imports.openshape import ImportOpenShape, ImportTexts, OpenShapeFolder
from pipeline.imports.pickled import load_pickled
from pipeline.points import farthest_first
from pipeline.run import run
from pipeline.stage import rng_for
from pipeline.store import Corpus

WIDTH = 1280  # ViT-bigG-14


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What to measure."""

    # Where files and corpus are made.
    folder: tyro.conf.Positional[Path]
    # Files to make and import.
    objects: int = 2000


def main(benchmark: Benchmark) -> None:
    """Make what is missing, measure, print."""
    files = benchmark.folder / "openshape"
    for number in range(benchmark.objects):
        uid = f"{number:032x}"
        path = files / "Objaverse" / f"000-{number % 160:03d}" / f"{uid}.npy"
        if not path.exists():
            write_openshape(path, openshape_data("Objaverse", path.parent.name, uid, rng_for(uid)))
    paths = sorted(files.rglob("*.npy"))[: benchmark.objects]
    size = sum(path.stat().st_size for path in paths) / len(paths)
    for path in paths:  # into the page cache, for both alike
        path.read_bytes()

    began = time.perf_counter()
    for path in paths:
        np.load(path, allow_pickle=True).item()
    rival = len(paths) / (time.perf_counter() - began)

    shutil.rmtree(benchmark.folder / "corpus", ignore_errors=True)
    corpus, folder = Corpus.at(str(benchmark.folder / "corpus")), OpenShapeFolder(str(files))
    began = time.perf_counter()
    objects = run(corpus, ImportOpenShape(), records=folder.records())
    middle = time.perf_counter()
    texts = ImportTexts(folder=folder)
    [text] = run(corpus, texts, records=texts.records(corpus))
    ended = time.perf_counter()

    some = [(path, path.read_bytes()) for path in paths[:100]]
    read = _seconds(lambda path, content: load_pickled(path, content), some)
    points = [(np.random.default_rng(0).random((10_000, 3)).astype(np.float16), 1024)] * 20
    order = _seconds(farthest_first, points)

    failed = sum(summary.failed for summary in [*objects, text])
    print(f"files                    {len(paths):,} of {size / 1000:,.0f} kB each; failed {failed}")
    print(f"np.load, allow_pickle    {rival:9,.0f} objects/s   (runs what the file says; no check, nothing written)")
    print(f"import, objects          {objects[0].done / (middle - began):9,.0f} objects/s   (objects, points, captions, images)")
    print(f"import, texts            {text.done / (ended - middle):9,.0f} texts/s     ({text.done:,} distinct)")
    print(f"import, both             {objects[0].done / (ended - began):9,.0f} objects/s")
    print(f"of the time per object   {1000 * read:.2f} ms safe reading, {1000 * order:.2f} ms farthest-point order")


def _seconds(call, arguments: list[tuple]) -> float:
    began = time.perf_counter()
    for some in arguments:
        call(*some)
    return (time.perf_counter() - began) / len(arguments)


def features(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random features, about as long as ViT-bigG-14's."""
    return (rng.standard_normal((*shape, WIDTH)) * 1.5).astype(np.float32)


def text_features(text: str) -> dict[str, np.ndarray]:
    """Random features of one text, in every file the same."""
    rng = rng_for(text)
    return {"original": features(rng, 1), "prompt_avg": features(rng, 1)}


def openshape_data(dataset: str, group: str, id: str, rng: np.random.Generator, **changes) -> dict:
    """What one of OpenShape's files holds, with random points in a box beside the origin."""
    xyz = rng.uniform(-0.5, 0.5, (10_000, 3)) * [0.8, 0.4, 0.6] + [0.1, -0.2, 0.05]
    texts, found = [f"thing {id[-4:]}"], [f"a thing like {id[-4:]}", "something like it"]
    return {
        "dataset": dataset,
        "group": group,
        "id": id,
        "xyz": xyz.astype(np.float32),
        "rgb": rng.uniform(0, 1, (10_000, 3)).astype(np.float32),
        "image_feat": features(rng, 12),
        "thumbnail_feat": features(rng, 1)[0],
        "text": texts,
        "text_feat": [text_features(text) for text in texts],
        "blip_caption": "a 3d model of a thing",
        "blip_caption_feat": text_features("a 3d model of a thing"),
        "msft_caption": "",
        "msft_caption_feat": text_features(""),
        "retrieval_text": found,
        "retrieval_text_feat": [text_features(text) for text in found],
    } | changes


def write_openshape(path: Path, data: dict) -> None:
    """Write a file as OpenShape's are written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, data, allow_pickle=True)


if __name__ == "__main__":
    main(tyro.cli(Benchmark, description=__doc__))
