"""Embed meshes, point files, pictures or whole corpora with any checkpoint, as it wants them.

python -m jobs encode uni3d-b chairs/ scan.ply --up +z -o chairs.npz

python -m jobs encode runs/mine/checkpoints/step-00010000 photos/mug -o mug.parquet

A mesh is placed, sampled or rendered as a build does it: the same file in a corpus has the same points. Beside other files,
pictures are textures; a folder of nothing but pictures is one object seen in so many views. Nothing is downloaded.
"""

import json
import os
import re
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import tyro
from PIL import UnidentifiedImageError

from jobs.arguments import Json
from jobs.build import blender_step
from jobs.carry_out import Running, Step, carry_out
from jobs.progress import duration
from jobs.refusal import Refusal
from pipeline.assets.asset import absolute, format_of, stamps_in
from pipeline.assets.preflight import Limits
from pipeline.ingest import Ingest
from pipeline.photos.clouds import read_cloud
from pipeline.sources.folder import FORMATS, Folder
from pipeline.sources.record import record
from pipeline.stage import ObjectError, Row, Single
from pipeline.store import Corpus
from pipeline.teacher import unit
from schemas.corpus import Reader
from schemas.tables import POINTS_PER_OBJECT, column
from trainer.card import Card, PointInput
from trainer.checkpoints import to_json
from trainer.encode import Device, Encoder, Up

POINT_FILES = ("npy", "npz", "ply", "pcd", "off")
PICTURES = ("png", "jpg", "jpeg", "webp")
HEADER_BYTES = 64 << 10
TWICE = "is named twice, or is the name of two objects: encode these into two files"


@dataclass(frozen=True, kw_only=True)
class Job:
    # Folder of a trained encoder's checkpoint, name of a published one (uni3d-b, openshape-pointbert-vitg14-rgb,
    # duoduo-four-1to6f, …), or the file of one, with --name.
    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    # Files (meshes; points as npy, npz, ply, pcd, off; pictures), folders of them, or corpora.
    what: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="WHAT …")]
    # Where the embeddings go, .npz for scripts or .parquet for all else: object_id, embedding (unit length, float32) and length.
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    # Which published checkpoint the file is, or is laid out like.
    name: str | None = None
    # Which way is up in point files: +y with the front to +z, or +z with the front to -y. They do not say it themselves.
    up: Up | None = None
    # cpu, cuda, or auto: a GPU if there is one.
    device: Device = "auto"
    # TOML file with the settings of the stages that meshes go through: [limits] [render] [points] [blender].
    settings: Path | None = None
    # Print one JSON object instead of text.
    json: Json = False


@dataclass
class Found:
    """What the arguments name: corpora by root, meshes as records of a source, point files and pictures with their object's id."""

    corpora: list[str] = field(default_factory=list)
    meshes: list[Row] = field(default_factory=list)
    clouds: list[tuple[str, Path]] = field(default_factory=list)
    pictures: list[tuple[str, list[Path]]] = field(default_factory=list)

    def ids(self) -> list[str]:
        """Of all that is in no corpus."""
        return [row["object_id"] for row in self.meshes] + [id for id, _ in (*self.clouds, *self.pictures)]


@dataclass
class Made:
    """Embeddings as the encoder gave them, and why others could not be had, by object id."""

    say: Callable[[str], None]
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, id: str, vector: np.ndarray) -> None:
        if id in self.vectors:
            raise Refusal(f"{id} {TWICE}")
        self.vectors[id] = vector

    def encoded(self, id: str, vector: np.ndarray, seen: str) -> None:
        """An object for which a line is printed."""
        self.add(id, vector)
        self.say(f"  {id}: {seen}; length {np.linalg.norm(vector):.3f}")

    def fail(self, id: str, why: str) -> None:
        self.failed[id] = why
        self.say(f"  {id}: FAILED: {why}")


def main(job: Job) -> int:
    """Find what was named, encode it, write."""
    began = time.monotonic()
    if job.output.suffix not in (".npz", ".parquet"):
        raise Refusal(f"--output {job.output}: the name must end in .npz or .parquet")
    if not job.output.absolute().parent.is_dir():
        raise Refusal(f"--output {job.output}: there is no folder {job.output.absolute().parent}")
    found = Found()
    for place in job.what:
        look(place, found)
    if twice := [id for id, count in Counter(found.ids()).items() if count > 1]:
        raise Refusal(f"{twice[0]} {TWICE}")
    if found.clouds and job.up is None:
        raise Refusal(f"{found.clouds[0][1]} does not say which way is up: give --up +y, or --up +z")
    try:
        encoder = Encoder.load(job.checkpoint, name=job.name, device=job.device)
    except ValueError as error:
        raise Refusal(str(error), exit_code=1) from error
    made = Made(say=lambda text: None if job.json else print(text, flush=True))
    made.say(introduction(encoder))
    if found.meshes:
        encode_meshes(job, encoder, found.meshes, made)
    for id, path in found.clouds:
        encode_cloud(encoder, id, path, job.up, made)
    for id, paths in found.pictures:
        encode_pictures(encoder, id, paths, made)
    for root in found.corpora:
        before = len(made.vectors)
        for ids, vectors in encoder.corpus(root, unit=False):
            for id, vector in zip(ids, vectors, strict=True):
                made.add(id, vector)
        made.say(f"  {root}: {len(made.vectors) - before:,} objects, from the {encoder.reads} stored in the canonical frame")
    if not made.vectors:
        first = "; ".join(f"{id}: {why}" for id, why in list(made.failed.items())[:1]) or "there are no objects"
        raise Refusal(f"nothing could be encoded: {first}", exit_code=1)
    write(job.output, made.vectors, encoder.card)
    finish(job, made, time.monotonic() - began)
    return 0


def introduction(encoder: Encoder) -> str:
    """What the encoder is and how it is fed, for a person."""
    card, input = encoder.card, encoder.card.input
    space = f"the space of {card.teacher['name']}" if card.teacher else "no teacher's space that it knows of"
    if isinstance(input, PointInput):
        count = "any number of" if input.points is None else f"{input.points:,}"
        fed = f"{count} points, frame {input.frame}, normalisation {input.normalisation}, points without colour {input.fill:g}"
    else:
        fed = f"pictures of {input.size} pixels on {input.background}" + (f", {input.crop} cut off" if input.crop else "")
    return f"encoder      {card.encoder} on {encoder.device}, {card.config['out']} numbers in {space}\nfed with     {fed}"


# ---------------------------------------------------------------------------------------------------------------- what is there


def look(place: str, found: Found) -> None:
    """Add what an argument names. Raises Refusal for what does not exist or is nothing that can be encoded."""
    path = Path(absolute(place))
    if ("://" in place or path.is_dir()) and Reader.at(place).tables():
        found.corpora.append(place)
    elif "://" in place:
        raise Refusal(f"{place} is no corpus: of what is not on this machine, only corpora can be encoded", exit_code=1)
    elif path.is_dir():
        _look_in_folder(path, found)
    elif path.is_file():
        id, format = f"{path.parent.name}/{path.name}", format_of(path.name)
        if format in POINT_FILES and is_cloud(path):
            found.clouds.append((id, path))
        elif format in FORMATS:
            stamp = stamps_in(str(path.parent))[path.name]
            found.meshes.append(record(source=path.parent.name, source_id=path.name, asset_uri=str(path), asset_stamp=stamp))
        elif format in PICTURES:
            found.pictures.append((id, [path]))
        else:
            known = ", ".join(dict.fromkeys((*FORMATS, *POINT_FILES, *PICTURES)))
            raise Refusal(f"{path} is of no kind that can be encoded: {known}")
    else:
        raise Refusal(f"there is no {path}")


def _look_in_folder(folder: Path, found: Found) -> None:
    below = [Path(here, name) for here, _, names in os.walk(folder) for name in names]
    files = sorted(path for path in below if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    clouds = {
        f"{folder.name}/{path.relative_to(folder)}": path
        for path in files
        if format_of(path.name) in POINT_FILES and is_cloud(path)
    }
    found.clouds += clouds.items()
    meshes = [path for path in files if format_of(path.name) in FORMATS and path not in clouds.values()]
    if meshes:
        records = Folder(name=folder.name, root=str(folder)).records()
        found.meshes += [row for row in records if row["object_id"] not in clouds]
    if meshes or clouds:
        return
    pictures: dict[str, list[Path]] = {}
    for path in files:
        if format_of(path.name) in PICTURES:
            pictures.setdefault(str(path.parent.relative_to(folder.parent)), []).append(path)
    if not pictures:
        raise Refusal(f"{folder} is no corpus, and has no meshes, point files or pictures")
    found.pictures += pictures.items()


def is_cloud(path: Path) -> bool:
    """Whether a file of a format for points holds only these: PLY and OFF may have faces, and then are meshes."""
    with path.open("rb") as file:
        begin = file.read(HEADER_BYTES)
    match format_of(path.name):
        case "ply":
            faces = re.search(rb"^element\s+face\s+(\d+)", begin.partition(b"end_header")[0], re.MULTILINE)
            return faces is None or int(faces[1]) == 0
        case "off":
            counts = re.match(rb"\s*\w*OFF\s+\d+\s+(\d+)", re.sub(rb"#[^\n]*", b"", begin))
            return counts is not None and int(counts[1]) == 0
    return True


def read_points(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Places (n, 3) and colours (n, 3), whole numbers 0..255 or fractions 0..1, None where there are none.

    npy: (n, 3), or (n, 6) with colours 0..1, or 0..255 if any is above 1. npz: xyz, and rgb of the same two kinds. Raises
    ObjectError: cloud_unreadable, no_points.
    """
    format = format_of(path.name)
    if format in ("ply", "pcd"):
        cloud = read_cloud(path)
        return cloud.xyz, cloud.rgb
    try:
        xyz, rgb = {"npy": _npy_points, "npz": _npz_points, "off": _off_points}[format](path)
    except (ValueError, IndexError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ObjectError("cloud_unreadable", f"{path.name} cannot be read as points: {error}") from error
    if not len(xyz):
        raise ObjectError("no_points", f"{path.name} has no points")
    return xyz, rgb / 255 if rgb is not None and rgb.dtype.kind == "f" and rgb.max() > 1 else rgb


def _npy_points(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    with path.open("rb") as file:
        table = np.lib.format.read_array(file, allow_pickle=False)
    if table.ndim != 2 or table.shape[1] not in (3, 6):
        raise ValueError(f"its array is {table.shape}, must be (n, 3), or (n, 6) with colours")
    return table[:, :3], table[:, 3:] if table.shape[1] == 6 else None


def _npz_points(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    with np.load(path, allow_pickle=False) as arrays:
        if "xyz" not in arrays:
            raise ValueError(f"it has no array xyz, but {', '.join(arrays)}")
        return arrays["xyz"], arrays["rgb"] if "rgb" in arrays else None


def _off_points(path: Path) -> tuple[np.ndarray, None]:
    words = re.sub(rb"#[^\n]*", b"", path.read_bytes()).split()
    if words[0] != b"OFF":
        raise ValueError(f"it begins with {words[0].decode(errors='replace')}, and of OFF files only plain ones (OFF) are read")
    return np.array(words[4 : 4 + 3 * int(words[1])], dtype=np.float64).reshape(int(words[1]), 3), None


# ---------------------------------------------------------------------------------------------------------------- encoding


@contextmanager
def corpus_of(meshes: list[Row], reads: Literal["points", "views"], *, settings: Path | None, json: bool) -> Iterator[Corpus]:
    """Meshes by the stages of a build, in a corpus that is gone afterwards: their points or their views, and what failed."""
    with tempfile.TemporaryDirectory() as root:
        running = Running(root=root, settings=settings, json=json)
        ingest = running.setting("ingest", Ingest, sources=(), limits=running.setting("limits", Limits))
        blender = blender_step(running, render=reads == "views", points=reads == "points")
        carry_out(running, [Step(Single(ingest), records=meshes), blender])
        yield running.corpus


def encode_meshes(job: Job, encoder: Encoder, meshes: list[Row], made: Made) -> None:
    """Meshes, as a build would have made them."""
    with corpus_of(meshes, encoder.reads, settings=job.settings, json=job.json) as corpus:
        told = corpus.need("failures").to_table(columns=["object_id", "reason", "message"]).to_pylist()
        if len(told) < len(meshes):
            colors = {} if encoder.reads == "views" else _colors_of_meshes(corpus)
            for ids, vectors in encoder.corpus(corpus.root, unit=False):
                for id, vector in zip(ids, vectors, strict=True):
                    seen = "its views" if encoder.reads == "views" else f"{POINTS_PER_OBJECT:,} points, {colors[id]}"
                    made.encoded(id, vector, f"mesh, {seen}, in the canonical frame")
        for row in told:
            made.fail(row["object_id"], f"{row['reason']}: {row['message']}")


def _colors_of_meshes(corpus: Reader) -> dict[str, str]:
    rows = corpus.need("points").to_table(columns=["object_id", "rgb"])
    return {
        id: "with colours" if colored else "without colours"
        for id, colored in zip(rows["object_id"].to_pylist(), rows["rgb"].is_valid().to_pylist(), strict=True)
    }


def encode_cloud(encoder: Encoder, id: str, path: Path, up: Up, made: Made) -> None:
    """A point file."""
    try:
        xyz, rgb = read_points(path)
        vector = encoder.points(xyz, rgb, up=up, unit=False)[0]
    except (ObjectError, ValueError) as error:
        made.fail(id, str(error))
        return
    most = encoder.card.input.points
    taken = f" ({most:,} taken)" if most is not None and len(xyz) > most else ""
    made.encoded(id, vector, f"{len(xyz):,} points{taken}, {'without' if rgb is None else 'with'} colours, {up} up")


def encode_pictures(encoder: Encoder, id: str, paths: list[Path], made: Made) -> None:
    """The pictures of one object."""
    try:
        vector = encoder.pictures(paths, unit=False)[0]
    except (UnidentifiedImageError, OSError, ValueError) as error:
        made.fail(id, str(error))
        return
    made.encoded(id, vector, f"{len(paths)} pictures")


def write(output: Path, vectors: dict[str, np.ndarray], card: Card) -> None:
    """All embeddings as one file, which appears whole; the encoder's card goes with them, as JSON."""
    embeddings, lengths = unit(np.stack(list(vectors.values())))
    told = json.dumps(to_json(card))
    part = output.with_name(f".{output.name}.part")
    if output.suffix == ".npz":
        with part.open("wb") as file:
            np.savez(file, object_id=np.array(list(vectors)), embedding=embeddings, length=lengths, encoder=np.array(told))
    else:
        schema = pa.schema(
            [
                column("object_id", pa.string(), "The object: file or folder as it was named, or the corpus' own id."),
                column("embedding", pa.list_(pa.float32(), embeddings.shape[1]), "The encoder's embedding, unit length."),
                column("length", pa.float32(), "Length of the embedding as the encoder gave it."),
            ],
            metadata={"encoder": told},
        )
        rows = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), embeddings.shape[1])
        pa.parquet.write_table(pa.table([pa.array(list(vectors)), rows, pa.array(lengths)], schema=schema), part)
    os.replace(part, output)


def finish(job: Job, made: Made, seconds: float) -> None:
    """The last line."""
    if job.json:
        told = {"output": str(job.output), "done": len(made.vectors), "failed": made.failed, "seconds": round(seconds, 2)}
        print(json.dumps(told, ensure_ascii=False))
        return
    dim = len(next(iter(made.vectors.values())))
    print(f"{job.output}: {len(made.vectors):,} embeddings of {dim:,} numbers, {len(made.failed):,} failed, in {duration(seconds)}")
