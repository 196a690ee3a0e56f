"""Any encoder on any points, pictures or corpus: what its card declares is done to them first.

encoder = Encoder.load("uni3d-b")                                          # or a folder, see trainer/checkpoints.py
encoder.points(xyz, rgb, up="+z")                                          # (n, 3) or (b, n, 3) -> (b, d), unit length
encoder = Encoder.load("runs/mine/checkpoints/step-00010000")
encoder.pictures(["front.png", "left.png"])                                # of one object, if it reads views -> (1, d)
for ids, embeddings in encoder.corpus("/data/corpus"):
    ...
"""

import hashlib
import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Float16, Float32, Int, Int64, Shaped, UInt8
from PIL import Image
from torch import Tensor, nn

from schemas.corpus import Reader
from trainer.card import Card, PointInput, ViewInput
from trainer.chance import Stream, permutation, uniform
from trainer.checkpoints import load
from trainer.clouds import prepared
from trainer.pictures import pixels, squared

Up = Literal["+y", "+z"]
Device = Literal["auto", "cpu", "cuda"]
Short = Literal["as they are", "with replacement"]

T = TypeVar("T")

SUBSAMPLE_SEED = 0  # of the points that are taken of a larger cloud: the same ones each time


@dataclass(frozen=True)
class Encoder:
    """An encoder that is ready, in evaluation mode on its device, and the card that it obeys.

    Embeddings are float32, of unit length unless `unit` is False: then as the encoder gives them.
    """

    module: nn.Module
    card: Card
    device: torch.device

    @classmethod
    def load(cls, place: str | Path, *, name: str | None = None, device: Device = "auto") -> Self:
        """A checkpoint: see trainer.checkpoints.load. device: "auto" takes a GPU if there is one; "cuda" without one is an error.
        Raises ValueError.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError('device "cuda" was asked for, but this machine shows no GPU: use "cpu", or "auto"')
        module, card = load(place, name=name)
        on = torch.device("cpu" if device == "cpu" or not torch.cuda.is_available() else "cuda")
        return cls(module.to(on), card, on)

    @property
    def reads(self) -> Literal["points", "views"]:
        """What the encoder is fed."""
        return "points" if isinstance(self.card.input, PointInput) else "views"

    def points(
        self,
        xyz: Shaped[np.ndarray | Tensor, "*b n 3"],
        rgb: Shaped[np.ndarray | Tensor, "*b n 3"] | None = None,
        *,
        up: Up,
        unit: bool = True,
        seed: int = SUBSAMPLE_SEED,
        short: Short = "as they are",
    ) -> Float32[np.ndarray, "b d"]:
        """Embeddings of one cloud, (n, 3), or of several of the same size, (b, n, 3); arrays or tensors.

        `rgb`: whole numbers 0..255, or fractions 0..1; None: no colours, the card's fill. `up`: "+y" with the front to +z, the
        canonical frame, or "+z" with the front to -y, as Blender has it. Of a cloud with more points than the card says, so many
        are taken by chance, by `seed`, in the cloud's own order; what happens to one with fewer, says `short`: see `points_taken`.
        Raises ValueError for points that are not finite, colours out of range, and fewer points than the encoder makes groups of.
        """
        wanted = self._input(PointInput)
        xyz, rgb = (None if values is None else torch.as_tensor(values) for values in (xyz, rgb))
        xyz, rgb = (values[None] if values is not None and values.ndim == 2 else values for values in (xyz, rgb))
        if xyz.ndim != 3 or xyz.shape[-1] != 3 or (rgb is not None and rgb.shape != xyz.shape):
            told = "" if rgb is None else f", and of colours {tuple(rgb.shape)}"
            raise ValueError(f"a cloud is (n, 3) or (b, n, 3), and its colours are as many: this one is {tuple(xyz.shape)}{told}")
        xyz = _upright(xyz.float(), up)
        if not xyz.isfinite().all():
            raise ValueError(f"{int((~xyz.isfinite()).any(dim=-1).sum())} points have infinite or NaN coordinates: leave them out")
        rgb = None if rgb is None else _colors(rgb)
        taken = points_taken(xyz.shape[1], wanted.points, seed=seed, short=short)
        if taken is not None:
            xyz, rgb = xyz[:, taken], None if rgb is None else rgb[:, taken]
        return self._points(xyz, rgb, None, wanted, unit)

    def pictures(self, pictures: Sequence[Image.Image | str | Path], *, unit: bool = True) -> Float32[np.ndarray, "1 d"]:
        """The embedding of one object from its views, any number of pictures of any size, or their files; in no order."""
        wanted = self._input(ViewInput)
        if not pictures:
            raise ValueError("an object without a picture has no embedding: give at least one view")
        return self._views(torch.stack([_picture(one, wanted) for one in pictures])[None], wanted, unit)

    def corpus(
        self,
        root: str,
        *,
        keep: Collection[str] | None = None,
        batch: int = 32,
        unit: bool = True,
        views: int | None = None,
        seed: int | None = None,
    ) -> Iterator[tuple[list[str], Float32[np.ndarray, "b d"]]]:
        """Ids of objects and their embeddings, from the stored points or the stored views, in the table's order.

        `keep`: ids of the only objects that are wanted. `batch`: objects at once. `views`: so many of each object's views, drawn by
        chance, by `seed` (None is 0), for each object its own; one that has fewer is left out; None: all. Of the points, so many as
        the card says are taken: without a `seed` from the beginning, where every prefix is an even sample; with one, by chance and
        in an order drawn by chance, so that the encoder's farthest points begin elsewhere. Raises CorpusError where the table has
        not been made.
        """
        reader = Reader.at(root)
        if isinstance(self.card.input, PointInput):
            yield from self._corpus_points(reader, self.card.input, keep, batch, unit, seed)
        else:
            yield from self._corpus_views(reader, self.card.input, keep, batch, unit, views, seed or 0)

    def _corpus_points(
        self, reader: Reader, wanted: PointInput, keep: Collection[str] | None, batch: int, unit: bool, seed: int | None
    ) -> Iterator:
        table = reader.need("points")
        for some in _in_batches(_rows_of_objects(table.to_table(columns=["object_id"]), keep), batch):
            rows = table.take(np.concatenate([rows for _, rows in some]), columns=["xyz", "rgb"])
            xyz, rgb, has_color = _clouds(rows)
            taken = slice(wanted.points) if seed is None else order_drawn(xyz.shape[1], seed)[: wanted.points]
            yield [id for id, _ in some], self._points(xyz[:, taken], rgb[:, taken], has_color, wanted, unit)

    def _corpus_views(
        self, reader: Reader, wanted: ViewInput, keep: Collection[str] | None, batch: int, unit: bool, views: int | None, seed: int
    ) -> Iterator:
        table = reader.need("views")
        objects = _rows_of_objects(table.to_table(columns=["object_id", "view"]), keep)
        if views is not None:
            objects = ((id, rows[views_drawn(id, len(rows), views, seed)]) for id, rows in objects if len(rows) >= views)
        for _, alike in groupby(objects, key=lambda one: len(one[1])):  # objects of one batch have as many views
            for some in _in_batches(alike, batch):
                images = table.take(np.concatenate([rows for _, rows in some]), columns=["image"])["image"].to_pylist()
                pictures = torch.stack([_picture(io.BytesIO(image), wanted) for image in images]).unflatten(0, (len(some), -1))
                yield [id for id, _ in some], self._views(pictures, wanted, unit)

    def _input(self, kind: type) -> Any:
        if not isinstance(self.card.input, kind):
            raise ValueError(f"this encoder ({self.card.encoder}) reads {self.reads}: give it those, or take another checkpoint")
        return self.card.input

    def _points(self, xyz: Tensor, rgb: Tensor | None, has_color: Tensor | None, wanted: PointInput, unit: bool) -> np.ndarray:
        xyz, rgb, has_color = (None if values is None else values.to(self.device) for values in (xyz, rgb, has_color))
        with torch.inference_mode():
            return _finished(self.module(*prepared(xyz, rgb, has_color, wanted)), unit)

    def _views(self, pictures: UInt8[Tensor, "b f 3 s s"], wanted: ViewInput, unit: bool) -> np.ndarray:
        with torch.inference_mode():
            return _finished(self.module(pixels(pictures.to(self.device), wanted)), unit)


def order_drawn(count: int, seed: int) -> Int64[Tensor, " {count}"]:
    """The numbers of a cloud's points in random order."""
    return permutation(torch.tensor([seed]), Stream.SUBSAMPLE, count)[0]


def points_taken(count: int, wanted: int | None, *, seed: int, short: Short) -> Int64[Tensor, " taken"] | None:
    """Which of a cloud's `count` points an encoder of `wanted` is fed; None: all, as they come.

    Of more than are wanted, so many by chance, ascending. Of fewer: "as they are", all (Uni3D); "with replacement", so many by
    chance, each as often as it is drawn (OpenShape, of ScanObjectNN's 2,048).
    """
    if wanted is None or count == wanted or (count < wanted and short == "as they are"):
        return None
    if count < wanted:
        return (uniform(torch.tensor([seed]), Stream.SUBSAMPLE, wanted)[0].double() * count).long()
    return order_drawn(count, seed)[:wanted].sort().values


def views_drawn(id: str, stored: int, wanted: int, seed: int) -> Int64[np.ndarray, " {wanted}"]:
    """So many of an object's views, ascending, without replacement: the same for this object and seed whoever else is read."""
    rng = np.random.default_rng([seed, int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big")])
    return np.sort(rng.choice(stored, wanted, replace=False))


def _upright(xyz: Float32[Tensor, "b n 3"], up: Up) -> Float32[Tensor, "b n 3"]:
    match up:
        case "+y":
            return xyz
        case "+z":  # a quarter turn about x
            x, y, z = xyz.unbind(-1)
            return torch.stack([x, z, -y], dim=-1)
    raise ValueError(f'up is {up!r}: it must be "+y" or "+z"')


def _colors(rgb: Tensor) -> Tensor:
    most = 1 if rgb.is_floating_point() else 255
    if not ((rgb >= 0) & (rgb <= most)).all():
        raise ValueError(f"colours as {rgb.dtype} are 0..{most}, and these are {rgb.min().item():g}..{rgb.max().item():g}")
    return rgb.float() if rgb.is_floating_point() else rgb.to(torch.uint8)


def _rows_of_objects(table: pa.Table, keep: Collection[str] | None) -> Iterator[tuple[str, Int[np.ndarray, " f"]]]:
    """Each object, as they first appear, and the numbers of its rows, by `view` where there is one."""
    ids = table["object_id"].combine_chunks().dictionary_encode()
    objects = ids.indices.to_numpy()
    view = table["view"].to_numpy() if "view" in table.column_names else objects
    ends = np.cumsum(np.bincount(objects, minlength=len(ids.dictionary)))
    kept = None if keep is None else frozenset(keep)
    for id, rows in zip(ids.dictionary.to_pylist(), np.split(np.lexsort((view, objects)), ends[:-1]), strict=False):
        if kept is None or id in kept:
            yield id, rows


def _in_batches(objects: Iterable[T], size: int) -> Iterator[list[T]]:
    objects = iter(objects)
    while some := list(islice(objects, size)):
        yield some


def _clouds(rows: pa.Table) -> tuple[Float16[Tensor, "b n 3"], UInt8[Tensor, "b n 3"], Bool[Tensor, " b"]]:
    """Places, colours (zeros where there are none), and which clouds have colours."""
    xyz, rgb = (rows[name].combine_chunks() for name in ("xyz", "rgb"))
    places = xyz.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), -1, 3)
    has_color = rgb.is_valid().to_numpy(zero_copy_only=False)
    colors = np.zeros(places.shape, np.uint8)
    colors[has_color] = rgb.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, *places.shape[1:])
    return torch.tensor(places), torch.from_numpy(colors), torch.tensor(has_color)


def _picture(picture: Image.Image | str | Path | io.BytesIO, wanted: ViewInput) -> UInt8[Tensor, "3 s s"]:
    if isinstance(picture, Image.Image):
        return squared(picture, wanted)
    with Image.open(picture) as opened:
        return squared(opened, wanted)


def _finished(embeddings: Float[Tensor, "b d"], unit: bool) -> Float32[np.ndarray, "b d"]:
    vectors = embeddings.float().cpu().numpy()
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise ValueError("an embedding has no direction (zero, infinite or NaN): the checkpoint is broken")
    return vectors / lengths if unit else vectors
