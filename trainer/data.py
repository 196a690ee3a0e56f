"""The loader: random rows of a corpus' tables to batches, every epoch in another order, every object with other draws.

    loader = Loader("/data/corpus", "ViT-bigG-14:laion2b_s39b_b160k", Draws(), batch=512, seed=1)
    for batch in loader.epoch(0):
        batch.xyz, batch.rgb, batch.image, batch.text, batch.has_text

Needs the corpus, Lance and torch; of this project only the tables' description. The tables' versions are pinned when it is made
(`versions`: keep them with the run), so that rows which are added meanwhile change nothing. All chance comes from (seed, epoch,
step): a batch is a function of these three (`batch_at`), whichever process asks and however the global batch is divided among
ranks, so a run goes on in mid-epoch from two numbers. Every rank has as many steps; what is left of an epoch after the last whole
global batch is dropped.

What is stored on this machine is read through mmap (`trainer.mapped`), else Lance takes the rows: object stores through their URI,
with credentials from the environment. Threads read ahead; there is no need for worker processes, but it works in spawned ones
(Lance does not bear a fork).

Which text is drawn, of the kept captions that have an embedding. They are in four groups: raw texts (origin metadata, cap3d and all
that is in no other group), BLIP's (origin captioner, model BLIP), those of other captioners, retrieved ones.

openshape   one candidate of each group, and one of these at random: of the raw texts Objaverse's first (metadata before others),
            elsewhere any; of the captioners, by a coin, BLIP's or another's, if the one that came up is there; any retrieved one.
            Embeddings averaged over prompts where the table has them, but for retrieved texts
            (https://github.com/Colin97/OpenShape_code, src/data.py)
duoduo      the same, but any raw text everywhere, and plain embeddings (https://github.com/3dlg-hcvc/DuoduoCLIP)
any         any caption, plain embedding

Objects without one are masked (`has_text`), never given another text.
"""

import io
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Bool, Float, Float16, Float32, Float64, Int, Int64, UInt8
from PIL import Image
from torch import Tensor

from schemas.corpus import CorpusError, Reader
from schemas.tables import CAPTIONS, POINTS, POINTS_PER_OBJECT, VIEWS
from trainer.mapped import Mapped, Taken, Unmappable

RAW, BLIP, CAPTIONER, RETRIEVED = range(4)  # groups of captions
GROUPS = 4
FIRST_RAW_TEXT = "objaverse/"  # the source whose first raw text is taken, and whose thumbnails are: OpenShape's rule
PLANNED = 64  # steps that are drawn at once, as a few large arrays cost less than many small ones
READ_AHEAD = 64 << 20  # bytes, while the tables are joined
SCANNED = 1 << 19  # rows of ids in memory at once while the tables are joined


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What is drawn of an object, in each epoch anew. Nothing else is read.

    `text`: see above; "none": no captions are needed. `image`: "openshape": of Objaverse by a coin the thumbnail's embedding where
    there is one, else that of one view; "one-view"; "mean-of-views": the mean of the drawn views' vectors, at the lengths that the
    teacher gave them where these are known. `points`: clouds. `pictures`: the drawn views, laid on `background` (RGB, 0..255).
    `views`: least and most views, for pictures and "mean-of-views"; how many is drawn for each global batch, then which of each
    object's, without replacement, in ascending order. `shared_views`: all objects of a batch that have as many views give the same
    ones, as with DuoduoCLIP.
    """

    text: Literal["openshape", "duoduo", "any", "none"] = "openshape"
    image: Literal["openshape", "one-view", "mean-of-views"] = "openshape"
    points: bool = True
    pictures: bool = False
    views: tuple[int, int] = (1, 1)
    shared_views: bool = False
    background: tuple[int, int, int] = (255, 255, 255)


@dataclass(frozen=True)
class Batch:
    """One rank's slice of a global batch, on the CPU.

    `ids`: the objects. `seeds`: for all later chance, one per sample. `xyz`: canonical frame, stored order; `rgb`: 0..255, zeros
    where `has_color` is not. `image`, `text`: embeddings as they are stored, of unit length in float16; means of views are of any
    length, in float32. Zeros where there is none. `pictures`: sRGB, f views of each object.
    """

    epoch: int
    step: int
    ids: list[str]
    seeds: Int64[Tensor, " b"]
    xyz: Float16[Tensor, "b n 3"] | None
    rgb: UInt8[Tensor, "b n 3"] | None
    has_color: Bool[Tensor, " b"] | None
    image: Float[Tensor, "b d"]
    text: Float16[Tensor, "b d"]
    has_image: Bool[Tensor, " b"]
    has_text: Bool[Tensor, " b"]
    pictures: UInt8[Tensor, "b f 3 s s"] | None

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on a device; from pinned memory without waiting."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The batch in pinned memory; torch's DataLoader calls it too."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        tensors = {field.name: value for field in fields(self) if isinstance(value := getattr(self, field.name), Tensor)}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items()})


class Loader:
    """Batches of the objects that have all that is drawn.

    `root`: folder or URI of the corpus. `teacher`: whose embeddings, as its tables are called. `batch`: objects in a global batch,
    of which each of `ranks` gets its share. `keep`: ids of the objects to use (None: all). `versions`: of each table, by name
    (None: the newest). `points`: how many of each object's, from the first. `workers`: threads that read ahead, as many batches; 0:
    none. `pinned`: batches in pinned memory. `use_mmap`: read local tables through mmap where their pages allow it.

    Attributes: `versions`; `objects`: how many are used; `left_out`: how many are not, by what they lack; `dim`: numbers of an
    embedding; `taken`: columns that are not read through mmap, and why not; `teacher`: its identity as the corpus has it.

    Raises CorpusError for a table that is not there, a version that is gone, embeddings of several teachers; ValueError for
    settings that do not fit: a batch that cannot be divided, or is larger than what there is.
    """

    def __init__(
        self,
        root: str,
        teacher: str,
        draws: Draws,
        batch: int,
        *,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        keep: Sequence[str] | None = None,
        versions: Mapping[str, int] | None = None,
        points: int = POINTS_PER_OBJECT,
        workers: int = 2,
        pinned: bool = False,
        use_mmap: bool = True,
    ):
        if batch % ranks:
            raise ValueError(f"a global batch of {batch} cannot be divided among {ranks} ranks: choose a multiple")
        if not 1 <= points <= POINTS_PER_OBJECT:
            raise ValueError(f"points must be 1 to {POINTS_PER_OBJECT}, not {points}")
        self.reader, self.draws, self.batch, self.seed = Reader.at(root), draws, batch, seed
        self.rank, self.ranks, self.points = rank, ranks, points
        self.workers, self.pinned, self.use_mmap = workers, pinned, use_mmap
        self.teacher = self.reader.teacher_of(teacher) or {"name": teacher}
        self._images, self._texts = f"image_embeddings/{teacher}", f"text_embeddings/{teacher}"
        self._tables = self._opened(versions)
        self.versions = {name: table.version for name, table in self._tables.items()}
        self.dim = self._width()
        self.taken: dict[str, str] = {}
        self._columns = self._opened_columns()
        self._index, self.left_out = self._indexed(keep)
        self.objects = len(self._index.ids)
        self.steps_per_epoch = self.objects // batch
        if not self.steps_per_epoch:
            lack = ", ".join(f"{count} {what}" for what, count in self.left_out.items() if count)
            raise ValueError(
                f"{root} has {self.objects} objects to train on, fewer than a batch of {batch}"
                + (f" (left out: {lack})" if lack else "")
            )
        self._position = (0, 0)
        self._plans: dict[tuple[int, int], list[_Plan]] = {}

    def __len__(self) -> int:
        return self.steps_per_epoch

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from a step on: exactly those that a whole epoch has from there."""
        steps = range(first_step, self.steps_per_epoch)
        if not self.workers:
            yield from (self.batch_at(epoch, step) for step in steps)
            return
        ahead: deque = deque()
        with ThreadPoolExecutor(self.workers, thread_name_prefix="loader") as pool:
            try:
                for step in steps:
                    ahead.append(pool.submit(self.batch_at, epoch, step))
                    if len(ahead) > self.workers:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for waiting in ahead:
                    waiting.cancel()

    def batch_at(self, epoch: int, step: int) -> Batch:
        """This rank's share of one global batch."""
        plan = self._plan(epoch, step)
        objects = plan.objects
        xyz = rgb = has_color = pictures = None
        if self.draws.points:
            xyz, rgb, has_color = self._clouds(objects)
        if self.draws.pictures:
            pictures = torch.from_numpy(self._pictures(objects, plan.views))
        batch = Batch(
            epoch=epoch,
            step=step,
            ids=plan.ids,
            seeds=torch.from_numpy(plan.seeds),
            xyz=xyz,
            rgb=rgb,
            has_color=has_color,
            image=torch.from_numpy(self._image(plan)),
            text=torch.from_numpy(self._text(plan)),
            has_image=torch.ones(len(objects), dtype=torch.bool),
            has_text=torch.from_numpy(plan.text_rows >= 0),
            pictures=pictures,
        )
        return batch.pin_memory() if self.pinned else batch

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the epoch that the state is in; afterwards the state is at the start of the next."""
        epoch, step = self._position
        for batch in self.epoch(epoch, step):
            last = batch.step + 1 == self.steps_per_epoch
            self._position = (epoch + 1, 0) if last else (epoch, batch.step + 1)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Where `iter` is: what the next batch would be, and what it depends on."""
        epoch, step = self._position
        return {"epoch": epoch, "step": step} | self._identity()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. Raises ValueError when this loader would give other batches than the one that had it."""
        mine = self._identity()
        if differing := [name for name in mine if state[name] != mine[name]]:
            told = "; ".join(f"{name}: {state[name]}, here {mine[name]}" for name in differing)
            raise ValueError(f"the state is of a loader with other settings ({told}): make the loader with those")
        self._position = (state["epoch"], state["step"])

    def _identity(self) -> dict[str, Any]:
        return {"seed": self.seed, "batch": self.batch, "objects": self.objects, "versions": self.versions}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_tables", "_columns")} | {"_plans": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._tables = self._opened(self.versions)
        self._columns = self._opened_columns()

    # What an object has, and where

    def _needed(self) -> list[str]:
        needed = {self._images: True, POINTS.name: self.draws.points, VIEWS.name: self.draws.pictures}
        with_text = self.draws.text != "none"
        return [name for name, wanted in (needed | {CAPTIONS.name: with_text, self._texts: with_text}).items() if wanted]

    def _opened(self, versions: Mapping[str, int] | None) -> dict[str, lance.LanceDataset]:
        tables = {}
        for name in self._needed():
            if versions is None:
                tables[name] = self.reader.need(name)
                continue
            if name not in versions:
                raise CorpusError(f"versions does not say which version of {name} to read: give it, or no versions at all")
            if (table := self.reader.open(name, version=versions[name])) is None:
                self.reader.need(name)
                raise CorpusError(
                    f"{self.reader.uri(name)} has no version {versions[name]} any more: it was cleaned up or made anew; "
                    "a run can only go on from the newest version, as another run"
                )
            tables[name] = table
        return tables

    def _indexed(self, keep: Sequence[str] | None) -> tuple["_Index", dict[str, int]]:
        """The objects that have what is drawn, by id (so that other versions with the same objects give the same epochs), and how
        many have not."""
        ids = self._ids(self._images)
        left_out = {}

        def reduce(lack: str, has: pa.Array) -> None:
            nonlocal ids
            left_out[lack] = len(ids) - int(pc.sum(has).as_py() or 0)
            ids = ids.filter(has)

        if keep is not None:
            reduce("not to be kept", pc.is_in(ids, pa.array(keep, ids.type)))
        if self.draws.points:
            reduce("without points", pc.is_in(ids, self._ids(POINTS.name)))
        ids = ids.take(pc.array_sort_indices(ids))
        view_rows, view_starts = None, None
        if self.draws.pictures:
            view_rows, view_starts = _views(self._tables[VIEWS.name], ids)
            enough = np.diff(view_starts) >= self.draws.views[1]
            reduce(f"with fewer than {self.draws.views[1]} views", pa.array(enough))
            view_starts = np.stack([view_starts[:-1], view_starts[1:]], 1)[enough]
        text_rows, text_starts = None, None
        if self.draws.text != "none":
            text_rows, text_starts = _captions(self._tables[CAPTIONS.name], self._tables[self._texts], ids)
        return (
            _Index(
                ids=ids,
                first_raw=pc.starts_with(ids, FIRST_RAW_TEXT).to_numpy(zero_copy_only=False),
                image_rows=_places(ids, self._ids(self._images)),
                point_rows=_places(ids, self._ids(POINTS.name)) if self.draws.points else None,
                view_rows=view_rows,
                view_starts=view_starts,
                text_rows=text_rows,
                text_starts=text_starts,
                lengths=self._lengths(ids) if self.draws.image == "mean-of-views" else None,
            ),
            left_out,
        )

    def _ids(self, table: str) -> pa.Array:
        return self._tables[table].to_table(columns=["object_id"])["object_id"].combine_chunks()

    def _lengths(self, ids: pa.Array) -> Float32[np.ndarray, "objects views"]:
        """Lengths of the views' embeddings; 1 where the teacher's are not known."""
        found = self._tables[self._images].to_table(columns=["lengths"])["lengths"].combine_chunks()
        found = found.take(pa.array(_places(ids, self._ids(self._images))))
        counts = pc.fill_null(pc.list_value_length(found), 0).to_numpy(zero_copy_only=False)
        lengths = np.ones((len(ids), max(counts.max(initial=0), 1)), np.float32)
        lengths[np.arange(lengths.shape[1]) < counts[:, None]] = found.flatten().to_numpy(zero_copy_only=False)
        return lengths

    # Drawing

    def _plan(self, epoch: int, step: int) -> "_Plan":
        block = step // PLANNED
        if (epoch, block) not in self._plans:
            kept = list(self._plans.items())[-1:]  # threads may be at the end of the one before
            self._plans = dict([*kept, ((epoch, block), self._planned(epoch, block))])
        return self._plans[epoch, block][step % PLANNED]

    def _planned(self, epoch: int, block: int) -> list["_Plan"]:
        """The plans of a block of steps, of this rank. All chance is drawn for whole global batches, whoever needs which of it."""
        rng = np.random.default_rng([self.seed, epoch, block, 1])  # numpy takes [a, b] and [a, b, 0] for the same seed
        first = block * PLANNED
        steps = min(PLANNED, self.steps_per_epoch - first)
        shape = (steps, self.batch)
        seeds, for_image, for_text = rng.integers(0, 2**63, shape), rng.random((*shape, 2)), rng.random((*shape, 6))
        counts = rng.integers(*self.draws.views, steps, endpoint=True)
        for_views = rng.random((steps, 1 if self.draws.shared_views else self.batch, self.draws.views[1]))
        share = self.batch // self.ranks
        mine = slice(self.rank * share, (self.rank + 1) * share)
        order = epoch_order(self.objects, self.seed, epoch)[first * self.batch : (first + steps) * self.batch]
        objects = order.reshape(shape)[:, mine]
        seeds, for_image, for_text = (numbers[:, mine] for numbers in (seeds, for_image, for_text))
        for_views = np.broadcast_to(for_views, (*shape, for_views.shape[2]))[:, mine]
        ids = self._index.ids.take(pa.array(objects.reshape(-1))).to_pylist()
        coin = self._index.first_raw[objects] & (for_image[..., 0] < 0.5) & (self.draws.image == "openshape")
        rows, groups = self._texts_planned(objects.reshape(-1), for_text.reshape(-1, for_text.shape[2]))
        rows, averaged = rows.reshape(objects.shape), ((rows >= 0) & (groups != RETRIEVED)).reshape(objects.shape)
        return [
            _Plan(
                objects=objects[step],
                ids=ids[step * share : (step + 1) * share],
                seeds=seeds[step].copy(),
                thumbnail=np.flatnonzero(coin[step]),
                image=for_image[step, :, 1],
                views=for_views[step, :, : counts[step]],
                text_rows=rows[step],
                averaged=averaged[step] if self.draws.text == "openshape" else None,
            )
            for step in range(steps)
        ]

    def _texts_planned(
        self, objects: Int[np.ndarray, " n"], chance: Float64[np.ndarray, "n 6"]
    ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """The row of a text's embedding for each object, or -1, and its group."""
        if self.draws.text == "none":
            return np.full(len(objects), -1), np.zeros(len(objects), np.int64)
        starts = self._index.text_starts[objects[:, None] * GROUPS + np.arange(GROUPS + 1)]
        first_raw = self._index.first_raw[objects] & (self.draws.text == "openshape")
        places, groups, has = texts_drawn(starts, chance, first_raw, any_text=self.draws.text == "any")
        rows = np.full(len(objects), -1)
        rows[has] = self._index.text_rows[places[has]]
        return rows, groups

    # Reading

    def _width(self) -> int:
        widths = {self._images: self._tables[self._images].schema.field("embedding").type.value_type.list_size}
        if self.draws.text != "none":
            widths[self._texts] = self._tables[self._texts].schema.field("embedding").type.list_size
        if len(set(widths.values())) > 1:
            told = ", ".join(f"{table}: {width}" for table, width in widths.items())
            raise CorpusError(
                f"{self.reader.root} has embeddings of several sizes under one teacher's name ({told}): make one anew"
            )
        return widths[self._images]

    def _opened_columns(self) -> dict[tuple[str, str], Mapped | Taken]:
        openshape = self.draws.text == "openshape", self.draws.image == "openshape"
        wanted = {
            (POINTS.name, "xyz"): self.draws.points,
            (POINTS.name, "rgb"): self.draws.points,
            (self._images, "embedding"): True,
            (self._images, "thumbnail"): openshape[1],
            (self._texts, "embedding"): self.draws.text != "none",
            (self._texts, "prompt_averaged"): openshape[0],
        }
        columns = {}
        for table, name in (column for column, is_wanted in wanted.items() if is_wanted):
            width = 3 * POINTS_PER_OBJECT if table == POINTS.name else self.dim
            try:
                if not self.use_mmap:
                    raise Unmappable("use_mmap is off")
                columns[table, name] = Mapped(self._tables[table], name, width)
            except Unmappable as why:
                self.taken[f"{table}.{name}"] = str(why)
                columns[table, name] = Taken(self._tables[table], name, width)
        return columns

    def _clouds(self, objects: Int[np.ndarray, " b"]) -> tuple[Tensor, Tensor, Tensor]:
        rows = self._index.point_rows[objects]
        xyz, _ = self._columns[POINTS.name, "xyz"].rows(rows, 3 * self.points)
        rgb, has_color = self._columns[POINTS.name, "rgb"].rows(rows, 3 * self.points)
        xyz, rgb = (torch.from_numpy(values.reshape(len(rows), self.points, 3)) for values in (xyz, rgb))
        return xyz, rgb, torch.from_numpy(has_color)

    def _image(self, plan: "_Plan") -> Float[np.ndarray, "b d"]:
        if self.draws.image == "mean-of-views":
            return self._mean_of_views(plan.objects, plan.views)
        rows = self._index.image_rows[plan.objects]
        views = self._columns[self._images, "embedding"]

        def one(counts):  # without annotations, which Python evaluates at each call
            return (number * counts[:, None]).astype(np.int64)

        number, asked = plan.image[:, None], plan.thumbnail
        if not len(asked):
            return views.items(rows, one)[:, 0]
        image = np.zeros((len(rows), self.dim), np.float16)
        thumbnail = np.zeros(len(rows), bool)
        found, thumbnail[asked] = self._columns[self._images, "thumbnail"].rows(rows[asked])
        image[thumbnail] = found[thumbnail[asked]]
        number = number[~thumbnail]
        image[~thumbnail] = views.items(rows[~thumbnail], one)[:, 0]
        return image

    def _mean_of_views(self, objects: Int[np.ndarray, " b"], chance: Float64[np.ndarray, "b f"]) -> Float32[np.ndarray, "b d"]:
        index = self._index
        weights = np.zeros(0, np.float32)

        def choose(counts):
            nonlocal weights
            if self.draws.pictures and (wrong := np.flatnonzero(counts != np.diff(index.view_starts[objects])[:, 0])).size:
                id = index.ids[int(objects[wrong[0]])].as_py()
                raise CorpusError(
                    f"{id} has {counts[wrong[0]]} image embeddings, but another number of views: "
                    f"run python -m jobs embed {self.reader.root} --teacher {self.teacher['name']}"
                )
            chosen, used = views_drawn(counts, chance)
            weights = np.where(used, index.lengths[objects[:, None], np.minimum(chosen, index.lengths.shape[1] - 1)], 0)
            weights = weights / used.sum(axis=1, keepdims=True, dtype=np.float32)
            return chosen

        vectors = self._columns[self._images, "embedding"].items(index.image_rows[objects], choose).astype(np.float32)
        return (vectors * weights[:, :, None]).sum(axis=1)

    def _text(self, plan: "_Plan") -> Float16[np.ndarray, "b d"]:
        rows, averaged = plan.text_rows, plan.averaged
        plain = rows >= 0 if averaged is None else (rows >= 0) & ~averaged
        if plain.all():
            return self._columns[self._texts, "embedding"].rows(rows)[0]
        text = np.zeros((len(rows), self.dim), np.float16)
        if averaged is not None and averaged.any():
            values, made = self._columns[self._texts, "prompt_averaged"].rows(rows[averaged])
            text[averaged] = values
            plain[averaged] = ~made
        if plain.any():
            text[plain] = self._columns[self._texts, "embedding"].rows(rows[plain])[0]
        return text

    def _pictures(self, objects: Int[np.ndarray, " b"], chance: Float64[np.ndarray, "b f"]) -> UInt8[np.ndarray, "b f 3 s s"]:
        starts = self._index.view_starts[objects]
        chosen, _ = views_drawn(np.diff(starts)[:, 0], chance)
        rows, back = np.unique(self._index.view_rows[starts[:, :1] + chosen], return_inverse=True)
        found = self._tables[VIEWS.name].take(rows.tolist(), columns=["image"])["image"].to_pylist()
        pictures = np.stack([picture(found[at], self.draws.background) for at in back.reshape(-1)])
        return pictures.reshape(*chosen.shape, *pictures.shape[1:])


@lru_cache(maxsize=2)
def epoch_order(objects: int, seed: int, epoch: int) -> Int[np.ndarray, " objects"]:
    """The objects' numbers in the order of an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(objects)


@dataclass(frozen=True)
class _Plan:
    """What a rank's share of a batch is: objects by number, and all that is drawn. `thumbnail`: places in the batch for which the
    coin says so; `image`, `views`: numbers in [0, 1) that choose among views; `text_rows`: -1 where there is none; `averaged`:
    which texts are wanted averaged over prompts (None: none).
    """

    objects: Int[np.ndarray, " b"]
    ids: list[str]
    seeds: Int64[np.ndarray, " b"]
    thumbnail: Int[np.ndarray, " t"]
    image: Float64[np.ndarray, " b"]
    views: Float64[np.ndarray, "b f"]
    text_rows: Int[np.ndarray, " b"]
    averaged: Bool[np.ndarray, " b"] | None


def views_drawn(
    counts: Int[np.ndarray, " b"], chance: Float64[np.ndarray, "b f"]
) -> tuple[Int[np.ndarray, "b f"], Bool[np.ndarray, "b f"]]:
    """f of each object's views, ascending, without replacement (the first steps of Fisher and Yates' shuffle), and which of them to
    use: all, but of an object with fewer than f, which gives those it has and 0 for the rest."""
    wanted = chance.shape[1]
    objects = np.arange(len(counts))
    deck = np.tile(np.arange(max(counts.max(initial=0), wanted)), (len(counts), 1))
    for place in range(wanted):
        other = place + (chance[:, place] * np.maximum(counts - place, 1)).astype(np.int64)
        deck[objects, place], deck[objects, other] = deck[objects, other], deck[objects, place].copy()
    chosen = np.sort(deck[:, :wanted], axis=1)
    used = chosen < counts[:, None]
    return np.where(used, chosen, 0), used


def texts_drawn(
    starts: Int[np.ndarray, "b g"], chance: Float64[np.ndarray, "b 6"], first_raw: Bool[np.ndarray, " b"], *, any_text: bool
) -> tuple[Int[np.ndarray, " b"], Int[np.ndarray, " b"], Bool[np.ndarray, " b"]]:
    """One caption of each object: its place among all, its group, and whether there is one at all.

    `starts`: where each group of the object's captions begins, and the last ends. `first_raw`: of these the first raw text is the
    candidate. `any_text`: whichever, without a rule.
    """
    objects, counts = np.arange(len(starts)), np.diff(starts)
    if any_text:
        total = starts[:, -1] - starts[:, 0]
        place = starts[:, 0] + (chance[:, 0] * total).astype(np.int64)
        return place, (place[:, None] >= starts[:, 1:]).sum(axis=1), total > 0
    places = starts[:, :-1] + (chance[:, 2:] * counts).astype(np.int64)
    places[first_raw, RAW] = starts[first_raw, RAW]
    captioner = np.where(chance[:, 1] < 0.5, BLIP, CAPTIONER)
    groups = np.stack([np.full(len(starts), RAW), captioner, np.full(len(starts), RETRIEVED)], axis=1)
    there = counts[objects[:, None], groups] > 0
    nth = (chance[:, 0] * there.sum(axis=1)).astype(np.int64)
    group = groups[objects, np.argmax(np.cumsum(there, axis=1) > nth[:, None], axis=1)]
    return places[objects, group], group, there.any(axis=1)


def picture(encoded: bytes, background: tuple[int, int, int]) -> UInt8[np.ndarray, "3 h w"]:
    """A stored view laid on a colour: each channel (value * alpha + background * (255 - alpha)) / 255, rounded to the nearest."""
    view = Image.open(io.BytesIO(encoded)).convert("RGBA")
    canvas = Image.new("RGB", view.size, background)
    canvas.paste(view, mask=view)
    return np.ascontiguousarray(np.asarray(canvas).transpose(2, 0, 1))


@dataclass(frozen=True)
class _Index:
    """What the objects that are used have, and in which rows of the tables. Everything is in the objects' order.

    `text_rows`: rows of the embeddings of all captions, by object and group, of which group g of object i is `text_starts[4 i + g]`
    to `[4 i + g + 1]`. `view_rows`: rows of VIEWS, those of object i from `view_starts[i, 0]` to `view_starts[i, 1]`.
    """

    ids: pa.Array
    first_raw: Bool[np.ndarray, " objects"]
    image_rows: Int[np.ndarray, " objects"]
    point_rows: Int[np.ndarray, " objects"] | None
    view_rows: Int[np.ndarray, " views"] | None
    view_starts: Int[np.ndarray, "objects 2"] | None
    text_rows: Int[np.ndarray, " captions"] | None
    text_starts: Int[np.ndarray, " groups"] | None
    lengths: Float32[np.ndarray, "objects views"] | None


def _places(ids: pa.Array, among: pa.Array) -> Int[np.ndarray, " n"]:
    """Where each id is; -1: nowhere."""
    return pc.fill_null(pc.index_in(ids, value_set=among), -1).to_numpy(zero_copy_only=False).astype(np.int64)


def _scanned(table: lance.LanceDataset, columns: list[str], where: str | None = None) -> Iterator[pa.Table]:
    """The rows of some small columns, many at once."""
    waiting: list[pa.RecordBatch] = []
    # by default Lance may hold 2 GB that were read ahead
    scanner = table.scanner(columns=columns, filter=where, io_buffer_size=READ_AHEAD, batch_readahead=2, fragment_readahead=2)
    for batch in scanner.to_batches():
        waiting.append(batch)
        if sum(map(len, waiting)) >= SCANNED:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting)


def _views(table: lance.LanceDataset, ids: pa.Array) -> tuple[Int[np.ndarray, " views"], Int[np.ndarray, " starts"]]:
    """The rows of each object's views in `view` order, and where those of each object begin, and the last's end."""
    keys, rows, sizes, read = [], [], set(), 0
    for part in _scanned(table, ["object_id", "view", "width", "height"]):
        objects = _places(part["object_id"].combine_chunks(), ids)
        known = objects >= 0
        keys.append((objects << 20 | part["view"].to_numpy())[known])
        rows.append(np.flatnonzero(known) + read)
        read += len(part)
        sizes |= {
            tuple(size) for size in np.unique(np.stack([part[side].to_numpy()[known] for side in ("width", "height")], 1), axis=0)
        }
    if len(sizes) > 1 or any(width != height for width, height in sizes):
        told = ", ".join(f"{width} x {height}" for width, height in sorted(sizes))
        raise CorpusError(
            f"{table.uri} has pictures of {told}: render them all in one square size, or keep only the objects of one"
        )
    key = np.concatenate([np.zeros(0, np.int64), *keys])
    order = np.argsort(key)
    rows = np.concatenate([np.zeros(0, np.int64), *rows])[order]
    return rows, np.searchsorted(key[order], np.arange(len(ids) + 1) << 20)


def _captions(
    captions: lance.LanceDataset, texts: lance.LanceDataset, ids: pa.Array
) -> tuple[Int[np.ndarray, " captions"], Int[np.ndarray, " groups"]]:
    """The rows of the embeddings of each object's kept captions, by group, and where each group begins; see `_Index`. Raw texts are
    in the order metadata, others; then by stage and number."""
    first, second = (
        np.concatenate(part)
        for part in zip(*(_halves(part["text_sha256"]) for part in _scanned(texts, ["text_sha256"])), strict=True)
    )
    order = np.argsort(first)
    first, second = first[order], second[order]
    stages: dict[str, int] = {}
    found = []
    for part in _scanned(captions, ["object_id", "origin", "model", "stage", "caption", "text_sha256"], "kept"):
        keys = _halves(part["text_sha256"])
        place = np.empty(len(part), np.int64)
        ascending = np.argsort(keys[0])  # what is sought in order is found ten times as fast
        place[ascending] = np.minimum(np.searchsorted(first, keys[0][ascending]), len(order) - 1)
        objects = _places(part["object_id"].combine_chunks(), ids)
        usable = (objects >= 0) & (first[place] == keys[0]) & (second[place] == keys[1])
        origin, by_blip = part["origin"], pc.equal(part["model"], "BLIP")
        captioner, retrieved, metadata = (pc.equal(origin, name) for name in ("captioner", "retrieved", "metadata"))
        group = pc.case_when(
            pc.make_struct(pc.and_(captioner, by_blip), captioner, retrieved),
            *(pa.scalar(group, pa.int64()) for group in (BLIP, CAPTIONER, RETRIEVED, RAW)),
        )
        named = part["stage"].combine_chunks().dictionary_encode()
        codes = np.array([stages.setdefault(name, len(stages)) for name in named.dictionary.to_pylist()])
        found.append(
            np.stack(
                [
                    objects << 2 | group.to_numpy(),
                    1 - metadata.to_numpy().astype(np.int64),
                    codes[named.indices.to_numpy()],
                    part["caption"].to_numpy(),
                    order[place],
                ]
            )[:, usable]
        )
    group, later, stage, number, rows = np.concatenate([np.zeros((5, 0), np.int64), *found], axis=1)
    ranks = np.argsort(np.argsort(list(stages)))
    by = np.lexsort((number, ranks[stage] if len(stage) else stage, later, group))
    return rows[by].astype(np.int32), np.searchsorted(group[by], np.arange(GROUPS * len(ids) + 1))


def _halves(sha256: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """The first 128 bits of hashes, in two numbers: too many for two texts to share, and half as long as text."""
    fixed = sha256.combine_chunks().cast(pa.binary()).cast(pa.binary(64))
    digits = np.frombuffer(fixed.buffers()[1], np.uint8)[64 * fixed.offset :][: 64 * len(fixed)].reshape(-1, 64)[:, :32]
    values = (digits & 15) + 9 * (digits >> 6)
    both = (values[:, ::2] << 4 | values[:, 1::2]).copy().view(np.uint64)
    return both[:, 0].copy(), both[:, 1].copy()
