"""How fast batches come from the tables, against the ways that trainers of this field read, and against what the machine can do.

    python -m benchmarks.loader                        2,048 made objects, 290 MB, a few minutes
    python -m benchmarks.loader --objects 16384 --folder /data/race --json race.json

Each object has 10,000 points (xyz float16, rgb uint8), 12 image embeddings and 3 to 14 text embeddings of 1,280 float16. Every
contestant has the same content in its own form, in random order yields batches of 64 objects as tensors: xyz, rgb, one image
embedding drawn by chance, one text embedding drawn by chance.

memcpy              rows copied from arrays in memory: no reader can be faster
flat file           the same, from memory-mapped files of nothing but these arrays
tables              trainer.data.Loader on a corpus made by pipeline.store, through mmap
tables, ahead       the same, a thread reading ahead
tables, taken       the same, without mmap: Lance takes the rows, as from an object store
openshape           one pickled .npy per object, loaded whole (github.com/Colin97/OpenShape_code, src/data.py): float32, each
                    text's embedding twice (plain and averaged over prompts) and a thumbnail's, as the format has it and as
                    `export openshape` writes it
openshape, halved   the same with the tables' own types and nothing twice: a best case that nobody has published
duoduoclip          HDF5, rows of an open file by number (https://github.com/3dlg-hcvc/DuoduoCLIP, which so reads its pictures)
webdataset          .tar shards of 128 objects, one .npy member per array, read from front to back in random order of shards and
                    mixed in a buffer of 512 objects; so its batches are less random than the others'. With `webdataset` where that
                    is installed, else with tarfile as it uses it
parquet             lists in row groups of 64, uncompressed; the rows of random groups, a group at a time: less random too
parquet, bytes      the same with each array as one binary value: a best case

What differs: OpenShape's arrays come as float32, as its trainer gets them; the loader's batches have more in them (ids, masks,
seeds). Nothing is normalised or augmented. All in one process.

samples/s per core: over the CPU seconds of all threads. Warm: the page cache has all files. Cold: the contestant's files are put
out of the page cache before it is opened (posix_fadvise; `MB read` tells how much came from the disk), one epoch; opening is not
timed. Contestants take turns, medians. Figures mean something on an idle machine alone.
"""

import argparse
import gc
import hashlib
import importlib.util
import io
import json
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float16, Int64, UInt8
from torch import Tensor

from pipeline.store import Corpus
from schemas.tables import CAPTIONS, POINTS, POINTS_PER_OBJECT, Table, image_embeddings, text_embeddings
from trainer.data import Draws, Loader

BATCH = 64
DIM = 1280
VIEWS = 12
TEXTS = (3, 14)
TEACHER = "made:up"
PER_SHARD, IN_BUFFER = 128, 512
IDLE = 0.1  # load per core, above which wall clock is not to be believed
AHEAD_OF, OF_FLAT, OF_BYTES = 4, 0.8, 0.4  # to reach: times openshape, of the flat file, of openshape's bytes

Batch = tuple[Tensor, Tensor, Tensor, Tensor]  # xyz (b, n, 3), rgb (b, n, 3), image (b, d), text (b, d)
Epoch = Callable[[int], Iterator[Batch]]


@dataclass(frozen=True)
class Content:
    """What everybody has: the texts of object i are `text[starts[i]:starts[i + 1]]`."""

    xyz: Float16[np.ndarray, "n p 3"]
    rgb: UInt8[np.ndarray, "n p 3"]
    image: Float16[np.ndarray, "n v d"]
    text: Float16[np.ndarray, "t d"]
    starts: Int64[np.ndarray, "n+1"]

    def __len__(self) -> int:
        return len(self.xyz)

    def texts(self, number: int) -> Float16[np.ndarray, "t d"]:
        """Those of one object."""
        return self.text[self.starts[number] : self.starts[number + 1]]


def made(objects: int, seed: int = 0) -> Content:
    """Random content; vectors have unit length."""
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(rng.integers(TEXTS[0], TEXTS[1], objects, endpoint=True))])
    xyz = (rng.random((objects, POINTS_PER_OBJECT, 3), np.float32) - 0.5).astype(np.float16)
    return Content(xyz, rng.integers(0, 256, xyz.shape, np.uint8), _unit(rng, objects, VIEWS), _unit(rng, starts[-1]), starts)


def _unit(rng: np.random.Generator, *shape: int) -> Float16[np.ndarray, "*shape d"]:
    values = np.empty((*shape, DIM), np.float16)
    for row in values:
        wide = rng.standard_normal(row.shape, np.float32)
        row[:] = wide / np.linalg.norm(wide, axis=-1, keepdims=True)
    return values


def _order(content_size: int, epoch: int) -> Iterator[tuple[np.ndarray, np.random.Generator]]:
    """The objects of each batch, and what chance is left to draw with."""
    rng = np.random.default_rng([epoch, 7])
    order = rng.permutation(content_size)
    for start in range(0, content_size - content_size % BATCH, BATCH):
        yield order[start : start + BATCH], rng


# The limits


def gathered(xyz: np.ndarray, rgb: np.ndarray, image: np.ndarray, text: np.ndarray, starts: np.ndarray) -> Epoch:
    """Rows of arrays, in memory or mapped."""

    def epoch(number: int) -> Iterator[Batch]:
        for rows, rng in _order(len(xyz), number):
            views = rng.integers(0, VIEWS, BATCH)
            texts = starts[rows] + (rng.random(BATCH) * (starts[rows + 1] - starts[rows])).astype(np.int64)
            yield tuple(torch.from_numpy(part) for part in (xyz[rows], rgb[rows], image[rows, views], text[texts]))

    return epoch


def write_flat(content: Content, folder: Path) -> None:
    """One .npy for each array."""
    for name, array in vars(content).items():
        np.save(folder / f"{name}.npy", array)


def open_flat(folder: Path) -> Epoch:
    """The arrays as memory maps, as plain ndarrays: numpy indexes its own memmap class a little slower."""
    parts = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
    return gathered(*(parts[name].view(np.ndarray) for name in ("xyz", "rgb", "image", "text")), np.array(parts["starts"]))


# The tables


def write_tables(content: Content, folder: Path) -> None:
    """A corpus with the points, captions and embeddings, as the pipeline's own committer writes them."""
    corpus = Corpus.at(str(folder))
    ids = np.array([f"made/{number:08}" for number in range(len(content))])
    owner = np.repeat(ids, np.diff(content.starts))
    texts = np.array([f"text {number}" for number in range(len(owner))])
    hashes = np.array([hashlib.sha256(text.encode()).hexdigest() for text in texts])
    numbers = np.arange(len(owner)) - np.repeat(content.starts[:-1], np.diff(content.starts))
    for start in range(0, len(ids), 256):
        some = slice(start, start + 256)
        _put(corpus, POINTS, len(ids[some]), {
            "object_id": ids[some],
            "xyz": _vectors(content.xyz[some]),
            "rgb": _vectors(content.rgb[some]),
            "canonical_from_asset": _vectors(np.tile(np.eye(4), (len(ids[some]), 1, 1))),
            "vertices": np.full(len(ids[some]), 1000),
            "faces": np.full(len(ids[some]), 2000),
            "warnings": [[]] * len(ids[some]),
        })  # fmt: skip
        vectors = content.image[some]
        nested = pa.ListArray.from_arrays(
            np.arange(0, VIEWS * len(vectors) + 1, VIEWS, np.int32), _vectors(vectors.reshape(-1, DIM)),
            type=pa.list_(pa.field("item", pa.list_(pa.float16(), DIM), nullable=False)),
        )  # fmt: skip
        _put(corpus, image_embeddings(TEACHER, DIM), len(vectors), {"object_id": ids[some], "embedding": nested})
    for start in range(0, len(owner), 4096):
        some = slice(start, start + 4096)
        texted = {"text": texts[some], "text_sha256": hashes[some]}
        _put(corpus, CAPTIONS, len(owner[some]), texted | {
            "object_id": owner[some], "origin": ["metadata"] * len(owner[some]), "model": ["made"] * len(owner[some]),
            "caption": numbers[some], "kept": np.full(len(owner[some]), True),
        })  # fmt: skip
        _put(corpus, text_embeddings(TEACHER, DIM), len(owner[some]), texted | {"embedding": _vectors(content.text[some])})
    for table in (POINTS, CAPTIONS, image_embeddings(TEACHER, DIM), text_embeddings(TEACHER, DIM)):
        corpus.compact(table)


def _vectors(values: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values[0].size)


def _put(corpus: Corpus, table: Table, count: int, columns: dict) -> None:
    columns = {"stage": ["made"] * count, "stage_key": ["0"] * count} | columns
    arrays = [
        pa.nulls(count, field.type) if field.name not in columns
        else columns[field.name] if isinstance(columns[field.name], pa.Array) else pa.array(columns[field.name], field.type)
        for field in table.schema
    ]  # fmt: skip
    corpus.create(table)
    corpus.append(table, corpus.write(table, pa.Table.from_arrays(arrays, schema=table.schema)))


def open_tables(folder: Path, **options) -> Epoch:
    """The trainer's loader."""
    loader = Loader(str(folder), TEACHER, Draws(text="any", image="one-view"), BATCH, **options)
    return lambda number: ((batch.xyz, batch.rgb, batch.image, batch.text) for batch in loader.epoch(number))


# OpenShape


def write_openshape(content: Content, folder: Path, *, halved: bool) -> None:
    """A pickled dictionary for each object, with the fields of the original; `halved`: in the tables' types, and nothing twice."""
    for number in range(len(content)):
        xyz, rgb, image, texts = content.xyz[number], content.rgb[number], content.image[number], content.texts(number)
        if not halved:
            xyz, rgb, image, texts = (
                xyz.astype(np.float32),
                rgb.astype(np.float32) / 255,
                *(a.astype(np.float32) for a in (image, texts)),
            )
        data = {"dataset": "made", "group": "0", "id": f"{number:08}", "xyz": xyz, "rgb": rgb, "image_feat": image}
        data |= {"text": [f"text {i}" for i in range(len(texts))], "text_feat": [{"original": text[None]} for text in texts]}
        if not halved:
            data["thumbnail_feat"] = image[0].copy()
            for features in data["text_feat"]:
                features["prompt_avg"] = features["original"].copy()
        np.save(folder / f"{number:08}.npy", data, allow_pickle=True)


def open_openshape(folder: Path) -> Epoch:
    """Object by object, each loaded whole and put together as its collate function does."""
    paths = sorted(folder.glob("*.npy"))

    def item(path: Path, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        data = np.load(path, allow_pickle=True).item()
        texts = data["text_feat"]
        return data["xyz"], data["rgb"], data["image_feat"][rng.integers(VIEWS)], texts[rng.integers(len(texts))]["original"][0]

    def epoch(number: int) -> Iterator[Batch]:
        for rows, rng in _order(len(paths), number):
            yield _stacked([item(paths[row], rng) for row in rows])

    return epoch


def _stacked(items: list[tuple[np.ndarray, ...]]) -> Batch:
    return tuple(torch.from_numpy(np.stack(part)) for part in zip(*items, strict=True))


# DuoduoCLIP


def write_hdf5(content: Content, folder: Path) -> None:
    """One file; each array a contiguous dataset, the texts of all objects one after the other."""
    with h5py.File(folder / "content.h5", "w") as file:
        for name, array in vars(content).items():
            file.create_dataset(name, data=array)


def open_hdf5(folder: Path) -> Epoch:
    """Row by row, as a Dataset's items are read."""
    file = h5py.File(folder / "content.h5", "r")
    starts = file["starts"][:]

    def epoch(number: int) -> Iterator[Batch]:
        for rows, rng in _order(len(starts) - 1, number):
            yield _stacked([
                (file["xyz"][row], file["rgb"][row], file["image"][row, rng.integers(VIEWS)],
                 file["text"][rng.integers(starts[row], starts[row + 1])])
                for row in rows
            ])  # fmt: skip

    return epoch


# WebDataset


def write_tar(content: Content, folder: Path) -> None:
    """Shards of `PER_SHARD` objects; an array is a member, object.name.npy."""
    for start in range(0, len(content), PER_SHARD):
        with tarfile.open(folder / f"{start:08}.tar", "w") as tar:
            for number in range(start, min(start + PER_SHARD, len(content))):
                arrays = (content.xyz[number], content.rgb[number], content.image[number], content.texts(number))
                for name, array in zip(("xyz", "rgb", "image", "text"), arrays, strict=True):
                    file = io.BytesIO()
                    np.save(file, array)
                    member = tarfile.TarInfo(f"{number:08}.{name}.npy")
                    member.size = file.tell()
                    file.seek(0)
                    tar.addfile(member, file)


def open_tar(folder: Path) -> Epoch:
    """Shards in random order, their objects through a buffer from which each next one is drawn."""
    shards = sorted(map(str, folder.glob("*.tar")))

    def objects(rng: np.random.Generator) -> Iterator[dict[str, bytes]]:
        for shard in rng.permutation(shards):
            found: dict[str, bytes] = {}
            with open(shard, "rb") as file, tarfile.open(fileobj=file, mode="r|*") as tar:
                for member in tar:
                    name = member.name.split(".", 1)[1]
                    if name in found:
                        yield found
                        found = {}
                    found[name] = tar.extractfile(member).read()
                    tar.members = []  # else it keeps them all
            yield found

    def packaged(rng: np.random.Generator) -> Iterator[dict[str, bytes]]:
        import webdataset

        yield from webdataset.WebDataset([str(shard) for shard in rng.permutation(shards)], shardshuffle=False)

    source = packaged if importlib.util.find_spec("webdataset") else objects

    def mixed(rng: np.random.Generator) -> Iterator[dict[str, bytes]]:
        buffer = []
        for one in source(rng):
            buffer.append(one)
            if len(buffer) > IN_BUFFER:
                yield buffer.pop(rng.integers(len(buffer)))
        while buffer:
            yield buffer.pop(rng.integers(len(buffer)))

    def epoch(number: int) -> Iterator[Batch]:
        rng = np.random.default_rng([number, 7])
        waiting = []
        for one in mixed(rng):
            xyz, rgb, image, text = (np.load(io.BytesIO(one[f"{name}.npy"])) for name in ("xyz", "rgb", "image", "text"))
            waiting.append((xyz, rgb, image[rng.integers(VIEWS)], text[rng.integers(len(text))]))
            if len(waiting) == BATCH:
                yield _stacked(waiting)
                waiting = []

    return epoch


# Parquet


def write_parquet(content: Content, folder: Path, *, as_bytes: bool) -> None:
    """Row groups of `BATCH` objects; arrays as lists of numbers, or `as_bytes`."""
    columns = {"xyz": content.xyz, "rgb": content.rgb, "image": content.image}
    if as_bytes:
        arrays = {name: pa.array([row.tobytes() for row in array], pa.binary()) for name, array in columns.items()}
        arrays["text"] = pa.array([content.texts(number).tobytes() for number in range(len(content))], pa.binary())
    else:
        arrays = {name: _vectors(array) for name, array in columns.items()}
        arrays["text"] = pa.ListArray.from_arrays(pa.array(content.starts * DIM, pa.int32()), pa.array(content.text.reshape(-1)))
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(pa.table(arrays), folder / "content.parquet", row_group_size=BATCH, **options)


def open_parquet(folder: Path) -> Epoch:
    """A row group is a batch, in random order."""
    file = pq.ParquetFile(folder / "content.parquet", memory_map=True)
    as_bytes = pa.types.is_binary(file.schema_arrow.field("xyz").type)

    def arrays(table: pa.Table, name: str, dtype: type, row: int) -> np.ndarray:
        value = table[name][row]
        return np.frombuffer(value.as_buffer(), dtype) if as_bytes else value.values.to_numpy(zero_copy_only=False)

    def epoch(number: int) -> Iterator[Batch]:
        rng = np.random.default_rng([number, 7])
        whole = [group for group in range(file.num_row_groups) if file.metadata.row_group(group).num_rows == BATCH]
        for group in rng.permutation(whole):
            table = file.read_row_group(int(group))
            items = []
            for row in range(BATCH):
                texts = arrays(table, "text", np.float16, row).reshape(-1, DIM)
                images = arrays(table, "image", np.float16, row).reshape(VIEWS, DIM)
                cloud = (arrays(table, name, dtype, row).reshape(-1, 3) for name, dtype in (("xyz", np.float16), ("rgb", np.uint8)))
                items.append((*cloud, images[rng.integers(VIEWS)], texts[rng.integers(len(texts))]))
            yield _stacked(items)

    return epoch


# The race


@dataclass(frozen=True)
class Contestant:
    """`folder`: where its files are; `write`: how they are made; `open`: how they are read."""

    folder: str
    write: Callable[[Content, Path], None]
    open: Callable[[Path], Epoch]


def contestants(content: Content) -> dict[str, Contestant]:
    """All of them; the first needs the content itself."""
    return {
        "memcpy": Contestant("", lambda *_: None, lambda _: gathered(*vars(content).values())),
        "flat file": Contestant("flat", write_flat, open_flat),
        "tables": Contestant("tables", write_tables, lambda folder: open_tables(folder, workers=0)),
        "tables, ahead": Contestant("tables", write_tables, lambda folder: open_tables(folder, workers=1)),
        "tables, taken": Contestant("tables", write_tables, lambda folder: open_tables(folder, workers=0, use_mmap=False)),
        "openshape": Contestant("openshape", lambda *to: write_openshape(*to, halved=False), open_openshape),
        "openshape, halved": Contestant("halved", lambda *to: write_openshape(*to, halved=True), open_openshape),
        "duoduoclip": Contestant("hdf5", write_hdf5, open_hdf5),
        "webdataset": Contestant("tar", write_tar, open_tar),
        "parquet": Contestant("parquet", lambda *to: write_parquet(*to, as_bytes=False), open_parquet),
        "parquet, bytes": Contestant("bytes", lambda *to: write_parquet(*to, as_bytes=True), open_parquet),
    }


@dataclass(frozen=True)
class Lap:
    """Rates of one turn, and what came from the disk, opening included."""

    per_core: float
    per_second: float
    read_mb: float = 0.0


def lap(epoch: Epoch, first: int, seconds: float) -> Lap:
    """Whole epochs from a number on, for so long at least."""
    samples, number = 0, first
    wall, cpu = time.perf_counter(), time.process_time()
    while samples == 0 or time.perf_counter() - wall < seconds:
        samples += sum(len(batch[0]) for batch in epoch(number))
        number += 1
    return Lap(samples / (time.process_time() - cpu), samples / (time.perf_counter() - wall))


def _read() -> int:
    return psutil.Process().io_counters().read_bytes


def put_out_of_cache(folder: Path) -> None:
    """Ask the kernel to forget the files; it does so for pages that are on disk and that nobody has mapped."""
    gc.collect()  # what was opened before may still be mapped
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def race(content: Content, folder: Path, *, warm_rounds: int, cold_rounds: int, seconds: float) -> dict[str, dict]:
    """Every contestant's bytes on disk, and the medians of its laps, warm and cold."""
    field = contestants(content)
    for one in field.values():
        place = folder / one.folder
        if one.folder and not place.exists():
            place.mkdir(parents=True)
            one.write(content, place)
    laps: dict[str, dict[str, list[Lap]]] = {name: {"warm": [], "cold": []} for name in field}
    for turn in range(cold_rounds):
        for name, one in _turn(field, turn):
            if one.folder:
                put_out_of_cache(folder / one.folder)
                before = _read()
                found = lap(one.open(folder / one.folder), turn, 0)
                laps[name]["cold"].append(replace(found, read_mb=(_read() - before) / 1e6))
    opened = {name: one.open(folder / one.folder) for name, one in field.items()}
    for epoch in opened.values():
        lap(epoch, 0, 0)
    for turn in range(warm_rounds):
        for name, epoch in _turn(opened, turn):
            laps[name]["warm"].append(lap(epoch, turn, seconds))
    found = {
        name: {"bytes": _bytes(folder / one.folder) if one.folder else sum(array.nbytes for array in vars(content).values())}
        | {state: _medians(found) for state, found in laps[name].items() if found}
        for name, one in field.items()
    }
    found["openshape"]["twice"] = 4 * DIM * (len(content.text) + len(content))
    return found


def _turn(field: dict, turn: int) -> list:
    """The contestants, another one first each time."""
    names = list(field.items())
    return names[turn % len(names) :] + names[: turn % len(names)]


def _medians(laps: list[Lap]) -> dict[str, float]:
    return {key: statistics.median(asdict(one)[key] for one in laps) for key in asdict(laps[0])}


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def told(found: dict[str, dict]) -> list[str]:
    """The table, with every rate over that of `tables`, and what was to be reached."""
    tables, openshape, flat = (found[name] for name in ("tables", "openshape", "flat file"))
    lines = [f"{'':18} {'MB':>7} {'warm: per core':>17} {'wall':>8} {'cold: per core':>17} {'wall':>8} {'MB read':>8}"]
    for name, one in found.items():
        rates = []
        for state in ("warm", "cold"):
            if state in one and state in tables:
                times = tables[state]["per_core"] / one[state]["per_core"]
                rates.append(f"{one[state]['per_core']:9,.0f} {f'({times:.2f}x)':>8} {one[state]['per_second']:8,.0f}")
            else:
                rates.append(f"{'':27}")
        read = f"{one['cold']['read_mb']:8,.0f}" if "cold" in one else ""
        lines.append(f"{name:18} {one['bytes'] / 1e6:7,.0f} {rates[0]} {rates[1]} {read}")
    lines.append("(samples/s; in brackets: how many times as fast the tables are)")
    for state in ("warm", "cold"):
        if state in tables:
            others = {name: one[state]["per_core"] for name, one in found.items() if state in one and name not in _NO_RIVALS}
            best = max(others, key=others.__getitem__)
            times, nearest = (tables[state]["per_core"] / one for one in (openshape[state]["per_core"], others[best]))
            of_flat = tables[state]["per_core"] / flat[state]["per_core"]
            lines.append(
                f"{state}: {times:.1f} times openshape (to reach: {AHEAD_OF}), {nearest:.2f} times the nearest, {best} (1), "
                f"{of_flat:.0%} of the flat file ({OF_FLAT:.0%})"
            )
    lines.append(
        f"bytes on disk: {tables['bytes'] / openshape['bytes']:.1%} of openshape's (to reach: {OF_BYTES:.0%} or less), "
        f"{tables['bytes'] / (openshape['bytes'] - found['openshape']['twice']):.1%} without what its format has twice"
    )
    return lines


_NO_RIVALS = {"memcpy", "flat file", "tables", "tables, ahead", "tables, taken"}


def main(arguments: list[str] | None = None) -> int:
    """Race, and print the table."""
    parser = argparse.ArgumentParser(description="The loader race: tables against published ways to read the same content.")
    parser.add_argument("--objects", type=int, default=2048)
    parser.add_argument("--folder", type=Path, help="where the files are made, and stay (default: a folder that is removed)")
    parser.add_argument("--warm-rounds", type=int, default=7)
    parser.add_argument("--cold-rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.7, help="of a warm lap, at least")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    if asked.objects < BATCH:
        parser.error(f"--objects must be {BATCH} or more, a batch")
    load = os.getloadavg()[0] / os.cpu_count()
    if load > IDLE:
        print(f"load per core is {load:.2f}: these figures are not those of an idle machine", flush=True)
    with tempfile.TemporaryDirectory() as removed:
        folder = asked.folder or Path(removed)
        rounds = {"warm_rounds": asked.warm_rounds, "cold_rounds": asked.cold_rounds, "seconds": asked.seconds}
        found = race(made(asked.objects), folder, **rounds)
    print(f"{asked.objects:,} objects, batches of {BATCH}")
    print("\n".join(told(found)))
    if asked.json:
        asked.json.write_text(json.dumps({"objects": asked.objects, "load_per_core": load, "contestants": found}, indent=1))
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)  # a second one would wait in a loop for work, and its seconds would count
    raise SystemExit(main())
