"""Held-out objects: which they are, and what an encoder makes of them beside chance and beside what needs no training.

Asked are: the loss; zero-shot classification, whether the own class name is among the nearest 1, 3, 5 of all; and retrieval,
whether the own text is among the nearest of the held-out objects' texts (of the first MOST_TEXTS). The untrained figures are
those of the mean of the views' embeddings, which the teacher gives without anybody training anything.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from schemas.check import matrix, vectors_of
from schemas.corpus import CorpusError, Reader, quote
from schemas.labels import labels, usual_split
from schemas.tables import SPLITS
from trainer.data import Batch, Loader
from trainer.learner import Learner, fed
from trainer.losses.gathering import rank_and_ranks

TOP = (1, 3, 5)
AT_ONCE = 64  # objects that the encoder sees together
MOST_IN_LOSS = 1024  # the loss compares all with all, and its value depends on how many they are
MOST_TEXTS = 2048  # of so many objects; the share found depends on it as well


def is_held_out(object_id: str, share: float) -> bool:
    """Whether an object belongs to the share that is never trained on; of its id alone, so that every run agrees."""
    return int.from_bytes(hashlib.sha256(object_id.encode()).digest()[:8], "big") < share * 2**64


def divided(corpus: Reader, ids: Iterable[str], held_out: str | float, version: int | None = None) -> tuple[list[str], list[str]]:
    """Objects to train on and objects held out: those of a named split, or a share chosen by a hash of the id.

    `version`: of the table of splits. Raises CorpusError for a split that is not there or leaves nothing to train on.
    """
    if isinstance(held_out, str):
        splits = corpus.open(SPLITS.name, version)
        rows = None if splits is None else splits.to_table(columns=["object_id"], filter=f"split = {quote(held_out)}")
        if not rows:
            raise CorpusError(
                f"{corpus.root} has no split {held_out!r} to hold out: python -m jobs import {corpus.root} --split "
                f"{held_out}=FILE, or hold out a share, such as 0.1"
            )
        chosen = set(rows["object_id"].to_pylist())
        apart = {id: id in chosen for id in ids}
    else:
        apart = {id: is_held_out(id, held_out) for id in ids}
    kept, held = [id for id in apart if not apart[id]], [id for id in apart if apart[id]]
    if not kept:
        raise CorpusError(f"{corpus.root}: with {held_out!r} held out, no object is left to train on")
    return kept, held


@dataclass(frozen=True)
class Classes:
    """The names to choose from: `vectors`, unit length; `own`: numbers of the names of each object that has any among them."""

    vectors: Float32[np.ndarray, "m d"]
    own: dict[str, list[int]]
    split: str | None


def classes(corpus: Reader, teacher: str, ids: list[str], split: str | None) -> Classes | None:
    """The class names of a split (None: the usual one, else categories) as the teacher embeds them; None: the corpus has none for
    these objects. To choose from are the names of all objects, not of these alone."""
    split = split or usual_split(corpus)
    table = corpus.open(f"class_embeddings/{teacher}")
    named, names = labels(corpus, split)
    if table is None or not len(names):
        return None
    rows = table.to_table(columns=["name", "embedding"], filter=pc.field("name").isin(pc.unique(names)))
    mine = pc.is_in(named, pa.array(ids, pa.string()))
    numbers = pc.index_in(names.filter(mine), rows["name"].combine_chunks())
    own: dict[str, list[int]] = {}
    for id, number in zip(named.filter(mine).to_pylist(), numbers.to_pylist(), strict=True):
        if number is not None:
            own.setdefault(id, []).append(number)
    return Classes(_unit(matrix(rows["embedding"]).astype(np.float32)), own, split) if own else None


@dataclass(frozen=True)
class Seen:
    """Held-out objects: `shape` is what the encoder makes of them, `image` and `text` are what it was to be near; rows as `ids`."""

    ids: list[str]
    shape: Float32[np.ndarray, "n d"]
    image: Float32[np.ndarray, "n d"]
    text: Float32[np.ndarray, "n d"]
    has_image: Bool[np.ndarray, " n"]
    has_text: Bool[np.ndarray, " n"]


class HeldOut:
    """Looks at the held-out objects of a corpus, as often as asked, each time at the same views and texts: as training draws them
    in its first epoch, but as many views as it ever draws. Points are not augmented, and crops are in the middle.

    All ranks must make it and call it together; each embeds its share (which views are drawn depends on how many ranks there are).
    `objects`: how many there are that have all that is drawn.
    """

    def __init__(self, root: str, learner: Learner, teacher: str, ids: list[str], split: str | None, versions: dict[str, int]):
        recipe = learner.recipe
        self._learner = learner
        rank, self._ranks = rank_and_ranks()
        most = recipe.draws.views[1]
        # One by one, since a loader leaves out what is not a whole batch; here none may be.
        self._loader = Loader(
            root,
            teacher,
            replace(recipe.draws, views=(most, most)),
            batch=1,
            keep=ids[rank :: self._ranks],
            versions=versions,
            points=recipe.points,
        )
        self.objects = self._loader.objects
        if self._ranks > 1:
            count = torch.tensor(self.objects, device=learner.device)
            dist.all_reduce(count)
            self.objects = int(count)
        corpus = Reader.at(root)
        self.classes = classes(corpus, teacher, ids, split)
        self._means = means_of_views(corpus, teacher, ids, versions[f"image_embeddings/{teacher}"]) if rank == 0 else {}
        self._untrained: dict[str, float] = {}

    def figures(self) -> dict[str, float]:
        """Flat figures by name; complete on the first rank, the loss alone on the others."""
        seen = self._seen()
        told = {"held_out/loss": self._loss(seen)}
        if not self._means:
            return told
        if not self._untrained:
            self._untrained = self._asked(seen, np.stack([self._means[id] for id in seen.ids]), "untrained/")
        return told | self._asked(seen, seen.shape, "") | self._untrained

    @torch.no_grad()
    def _seen(self) -> Seen:
        learner = self._learner
        encoder = learner.evaluated
        encoder.eval()
        parts = []
        for batch in _joined(self._loader.epoch(0)):
            arguments, named = fed(batch, learner.recipe, learner.device)
            with learner.arithmetic():
                parts.append(_rows(batch, encoder(*arguments, **named)))
        encoder.train(encoder is learner.encoder)
        if self._ranks > 1:
            everyone: list[list[Seen]] = [[] for _ in range(self._ranks)]
            dist.all_gather_object(everyone, parts)
            parts = [part for one in everyone for part in one]
        return Seen(
            [id for part in parts for id in part.ids], *(np.concatenate(one) for one in zip(*map(_arrays, parts), strict=True))
        )

    @torch.no_grad()
    def _loss(self, seen: Seen) -> float:
        """Of the first MOST_IN_LOSS objects as one batch, of which each rank holds a share."""
        each = min(len(seen.ids), MOST_IN_LOSS) // self._ranks
        mine = slice(rank_and_ranks()[0] * each, (rank_and_ranks()[0] + 1) * each)
        device = self._learner.device
        shape, image, text = (torch.from_numpy(one[mine]).to(device) for one in (seen.shape, seen.image, seen.text))
        has_image, has_text = (torch.from_numpy(one[mine]).to(device) for one in (seen.has_image, seen.has_text))
        return self._learner.losses(shape, image, text, has_image, has_text)["loss"].item()

    def _asked(self, seen: Seen, vectors: Float32[np.ndarray, "n d"], who: str) -> dict[str, float]:
        """Zero-shot and retrieval of held-out objects by these vectors; beside the encoder's own figures, what chance gives."""
        vectors, told = _unit(vectors), {}
        if self.classes:
            named = [row for row, id in enumerate(seen.ids) if id in self.classes.own]
            own = np.zeros((len(named), len(self.classes.vectors)), bool)
            for row, place in enumerate(named):
                own[row, self.classes.own[seen.ids[place]]] = True
            told |= _shares("zero_shot", who, vectors[named] @ self.classes.vectors.T, own)
        texted = np.flatnonzero(seen.has_text)[:MOST_TEXTS]
        if len(texted):
            texts, place = np.unique(_unit(seen.text[texted]), axis=0, return_inverse=True)
            own = np.arange(len(texts)) == place.reshape(-1, 1)
            told |= _shares("text", who, vectors[texted] @ texts.T, own)
        return {f"held_out/{name}": share for name, share in told.items()}


def _shares(what: str, who: str, cosines: Float32[np.ndarray, "n m"], own: Bool[np.ndarray, "n m"]) -> dict[str, float]:
    told = {f"{what}/{who}top{k}": share for k, share in zip(TOP, hits(cosines, own), strict=True)}
    if not who:
        told |= {f"{what}/chance/top{k}": share for k, share in zip(TOP, chance(own), strict=True)}
    return told


def hits(cosines: Float[np.ndarray, "n m"], own: Bool[np.ndarray, "n m"]) -> list[float]:
    """Shares of the rows that have one of their own among the nearest 1, 3, 5. What is as near as the own counts as nearer: an
    encoder that gives everything the same vector finds nothing."""
    nearest = np.where(own, cosines, -np.inf).max(axis=1, keepdims=True)
    nearer = ((cosines >= nearest) & ~own).sum(axis=1)
    return [float((nearer < k).mean()) for k in TOP]


def chance(own: Bool[np.ndarray, "n m"]) -> list[float]:
    """What `hits` is on average for choices drawn without looking: 1 less the chance that all of the k are others'."""
    choices, others = own.shape[1], own.shape[1] - own.sum(axis=1)
    missed = [np.prod([np.maximum(others - i, 0) / max(choices - i, 1) for i in range(k)], axis=0) for k in TOP]
    return [float(1 - one.mean()) for one in missed]


def _unit(vectors: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)


def means_of_views(corpus: Reader, teacher: str, ids: list[str], version: int) -> dict[str, Float32[np.ndarray, " d"]]:
    """The mean of each object's view embeddings, of the lengths that the teacher gave them where these are kept."""
    table, means = corpus.open(f"image_embeddings/{teacher}", version), {}
    wanted = pc.is_in(table.to_table(columns=["object_id"])["object_id"], pa.array(ids, pa.string()))
    rows = np.flatnonzero(wanted.to_numpy())
    for first in range(0, len(rows), AT_ONCE):  # of a large corpus, few are held out
        [batch] = (
            table.take(rows[first : first + AT_ONCE], columns=["object_id", "embedding", "lengths"]).combine_chunks().to_batches()
        )
        batch = batch.filter(pc.greater(pc.list_value_length(batch["embedding"]), 0))
        if not len(batch):
            continue
        views, counts = vectors_of(batch["embedding"])
        views = views.astype(np.float32)
        known = np.repeat(batch["lengths"].is_valid().to_numpy(zero_copy_only=False), counts)
        views[known] *= batch["lengths"].flatten().to_numpy(zero_copy_only=False)[:, None]
        sums = np.add.reduceat(views, np.cumsum(counts) - counts, axis=0)
        means.update(zip(batch["object_id"].to_pylist(), sums / counts[:, None], strict=True))
    return means


def _joined(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Batches, AT_ONCE put together."""
    left = iter(batches)
    while parts := list(islice(left, AT_ONCE)):
        of = {field.name: [getattr(part, field.name) for part in parts] for field in fields(Batch)}
        tensors = {name: torch.cat(values) for name, values in of.items() if isinstance(values[0], Tensor)}
        yield replace(parts[0], ids=[id for ids in of["ids"] for id in ids], **tensors)


def _rows(batch: Batch, shape: Tensor) -> Seen:
    arrays = (shape.float(), batch.image.float(), batch.text.float(), batch.has_image, batch.has_text)
    return Seen(batch.ids, *(one.cpu().numpy() for one in arrays))


def _arrays(seen: Seen) -> tuple[np.ndarray, ...]:
    return seen.shape, seen.image, seen.text, seen.has_image, seen.has_text
