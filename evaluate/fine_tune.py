"""Fine-tuned classification: a point encoder and a small head learn the classes of a benchmark's training objects.

MRD's table of fine-tuning (Wang et al. 2024, arXiv 2407.14007, table 8) says "ULIP protocol", on the hardest variant of
ScanObjectNN. ULIP (Xue et al. 2023, arXiv 2212.05171) published no code for it; its authors say (issues 12, 17 and 20 of
salesforce/ULIP) that they carried the weights back to Point-BERT's code, and changed nothing there but such settings as the
learning rate, which they do not name. So `FineTune` is Point-BERT's published code for that variant (Yu et al. 2022, arXiv
2111.14819; cfgs/ScanObjectNN_models/PointTransformer_hardest.yaml, tools/runner_BERT_finetune.py, models/Point_BERT.py).

[reconstruction] What is not that code's: clouds are normalised and coloured as the encoder's card says, where it takes ScanObjectNN
as it is stored; the farthest points start at the first stored point in every epoch; OpenShape's PointBERT has no norm after its
last block, so that the head begins with one; other encoders give the head their embedding; no drop path (0.1 there). The published
cosine begins below the warm-up, so that it jumps down by 0.3 % after it; here it begins where the warm-up ends.

What the published code reports is the best test accuracy of any epoch, chosen on the test objects themselves, and beside it one of
ten augmented votes. Here the accuracy is that of the last epoch, without votes; the best of any epoch stands beside it, by name.
"""

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Float32, Int, Int64, UInt8
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from evaluate.benchmark import Benchmark
from pipeline.stage import ObjectError
from schemas.corpus import Reader
from trainer.card import Card, PointInput
from trainer.chance import Stream, permutation, uniform
from trainer.checkpoints import built, save
from trainer.clouds import prepared
from trainer.encoders.pointbert import PointBert
from trainer.encoders.uni3d import Uni3d
from trainer.learner import seed_of
from trainer.neighbours import farthest_points, gathered
from trainer.recipes import Schedule

HEAD = "head.safetensors"  # beside the encoder's files
AMONG = 75 / 64  # of so many times the points, the farthest from one another, those of a step are drawn: 1,200 for 1,024
AT_ONCE = 64  # objects that are only looked at
WIDTH, DROPOUT = 256, 0.5  # of the head's middle


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """Settings of a fine-tuning, by default those of Point-BERT's code for the hardest variant of ScanObjectNN.

    `points` of a cloud, `epochs`, `batch`: what a step sees. AdamW with `lr` and `weight_decay`, which spares what has one
    dimension, biases and tokens; the rate rises over `warmup`, a share of all steps, then falls as a cosine down to `least_lr`.
    `clip`: largest norm of the gradient. `scale`, `shift`: each axis of a training cloud by one factor of this range, and moved by
    up to so much.
    """

    points: int = 1024
    epochs: int = 300
    batch: int = 32
    lr: float = 5e-4
    least_lr: float = 1e-6
    weight_decay: float = 0.05
    warmup: float = 10 / 300
    clip: float = 10.0
    scale: tuple[float, float] = (2 / 3, 3 / 2)
    shift: float = 0.2


@dataclass(frozen=True)
class Clouds:
    """Clouds as an encoder wants them, in memory: `xyz` and `rgb` (m, n, 3), the farthest points first, so that the first k are the
    k farthest from one another. `numbers` (m,): which of the benchmark's objects they are, ascending; `labels` (m,). `failed`: why
    the others could not be read, by id."""

    numbers: Int64[np.ndarray, " m"]
    xyz: Float32[Tensor, "m n 3"]
    rgb: Float32[Tensor, "m n 3"]
    labels: Int64[Tensor, " m"]
    failed: dict[str, str]


@dataclass(frozen=True)
class Tuned:
    """A classifier after its last epoch. `guessed` (n,): what it says of the test objects. `losses`, `tests`: of each epoch, the
    mean loss, and the share of test objects that are right after it."""

    classifier: "Classifier"
    guessed: Int64[np.ndarray, " n"]
    losses: tuple[float, ...]
    tests: tuple[float, ...]


class Classifier(nn.Module):
    """An encoder and Point-BERT's head for classification: two linear layers on the class token beside the largest values of the
    groups' tokens (of a PointBERT), or on the embedding (of any other)."""

    def __init__(self, encoder: nn.Module, classes: int):
        super().__init__()
        self.encoder = encoder
        width = encoder.config.dim if self.reads == "tokens" else encoder.config.out
        self.norm = nn.LayerNorm(width)
        self.head = nn.Sequential(
            nn.Linear(2 * width if self.reads == "tokens" else width, WIDTH),
            nn.ReLU(inplace=True),
            nn.Dropout(DROPOUT),
            nn.Linear(WIDTH, classes),
        )

    @property
    def reads(self) -> Literal["tokens", "embedding"]:
        """What of the encoder the head sees."""
        return "tokens" if isinstance(self.encoder, PointBert) else "embedding"

    def forward(
        self, xyz: Float[Tensor, "b n 3"], rgb: Float[Tensor, "b n 3"], seeds: Int64[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b c"]:
        """Logits. `seeds`: one per cloud in training, where a Uni3D's patch dropout takes its chance from."""
        if self.reads == "tokens":
            tokens = self.norm(self.encoder.tokens(xyz, rgb))
            return self.head(torch.cat([tokens[:, 0], tokens[:, 1:].amax(dim=1)], dim=1))
        named = {"seeds": seeds} if isinstance(self.encoder, Uni3d) else {}
        return self.head(self.norm(self.encoder(xyz, rgb, **named)))


def fine_tune(
    encoder: nn.Module,
    train: Clouds,
    test: Clouds,
    classes: int,
    settings: FineTune,
    *,
    seed: int,
    device: torch.device,
    after_epoch: Callable[[int, float, float], None] = lambda epoch, loss, share: None,
) -> Tuned:
    """Learn the training clouds' labels, and look at the test clouds after each epoch; `encoder` itself stays as it was.

    Each epoch goes through the training clouds in another order, and leaves out what is no whole batch. On a CPU the same seed
    gives the same figures. `after_epoch`: is told each epoch, its mean loss and its share of right test objects.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed_of(seed))  # of the head's first weights, and of dropout
        classifier = Classifier(copy.deepcopy(encoder), classes).to(device)
        optimiser = _adamw(classifier, settings)
        batch = min(settings.batch, len(train.labels))
        steps = len(train.labels) // batch
        schedule = Schedule(
            kind="cosine",
            warmup_steps=round(settings.warmup * settings.epochs * steps),
            per_epoch=True,
            least=settings.least_lr / settings.lr,
        )
        losses, tests = [], []
        for epoch in range(settings.epochs):
            classifier.train()
            order = np.random.default_rng([seed, epoch]).permutation(len(train.labels))[: steps * batch].reshape(steps, batch)
            spent = 0.0
            for step, rows in enumerate(torch.from_numpy(order)):
                for group in optimiser.param_groups:
                    group["lr"] = settings.lr * schedule.at(epoch * steps + step, steps, settings.epochs)
                seeds = (rows + seed_of(seed, epoch)).to(device)
                xyz, rgb = _drawn(train.xyz[rows].to(device), train.rgb[rows].to(device), seeds, settings)
                loss = functional.cross_entropy(classifier(xyz, rgb, seeds), train.labels[rows].to(device))
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(classifier.parameters(), settings.clip)
                optimiser.step()
                spent += loss.item()
            guessed = classified(classifier, test, settings.points)
            losses.append(spent / steps)
            tests.append(float((guessed == test.labels.numpy()).mean()))
            after_epoch(epoch, losses[-1], tests[-1])
    return Tuned(classifier.eval(), guessed, tuple(losses), tuple(tests))


def fresh(card: Card, seed: int) -> nn.Module:
    """The encoder of a card before anything was learnt."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed))
        return built(card)


def classified(classifier: Classifier, clouds: Clouds, points: int) -> Int64[np.ndarray, " n"]:
    """The label that a classifier gives each cloud, of its `points` farthest points."""
    classifier.eval()
    device = next(classifier.parameters()).device
    with torch.inference_mode():
        guessed = [
            classifier(xyz[:, :points].to(device), rgb[:, :points].to(device)).argmax(dim=1).cpu()
            for xyz, rgb in zip(clouds.xyz.split(AT_ONCE), clouds.rgb.split(AT_ONCE), strict=True)
        ]
    return torch.cat(guessed).numpy()


def save_tuned(folder: str | Path, classifier: Classifier, card: Card, settings: FineTune, classes: tuple[str, ...]) -> None:
    """Write the encoder as trainer.checkpoints.save does, and beside it the head, with the names of its classes in its metadata.

    Of a PointBERT the projection into the teacher's space is as it was: its embeddings are no longer the teacher's.
    """
    made_by = {"fine_tuned": asdict(settings), "from": card.made_by}
    save(folder, classifier.encoder, replace(card, made_by=made_by))
    state = {name: value.detach().cpu() for name, value in classifier.state_dict().items() if not name.startswith("encoder.")}
    save_file(state, Path(folder) / HEAD, metadata={"classes": json.dumps(classes, ensure_ascii=False)})


# What is learnt from


def clouds(
    benchmark: Benchmark,
    wanted: PointInput,
    points: int,
    *,
    device: torch.device,
    after: Callable[[int, int], None] = lambda read, failed: None,
) -> Clouds:
    """Read a benchmark's objects into memory: of each cloud, prepared as the encoder's card says, the AMONG * `points` that are
    farthest from one another, or all; a smaller cloud than others is repeated from its beginning.

    Objects that cannot be read are left out. Of a corpus, whose every prefix of points is an even sample, only twice as many are
    looked at. `after`: is told how many were read by now, and how many could not be. Raises ValueError if none could.
    """
    most = int(points * AMONG)
    numbers, parts, failed = [], [], {}
    read = _of_files(benchmark) if benchmark.cloud else _of_corpus(benchmark, 2 * most)
    for (size, _), alike in groupby(read, key=lambda one: (0, False) if isinstance(one[1], str) else one[1].form):
        while some := list(islice(alike, AT_ONCE)):
            if size:
                numbers += [number for number, _ in some]
                parts.append(_farthest([cloud for _, cloud in some], wanted, min(size, most), device))
            else:
                failed |= {benchmark.ids[number]: why for number, why in some}
            after(len(numbers), len(failed))
    if not numbers:
        raise ValueError(f"none of the {len(benchmark.ids):,} objects of {benchmark.name} could be read")
    size = max(xyz.shape[1] for xyz, _ in parts)
    xyz, rgb = (torch.cat([_repeated(part[of], size) for part in parts]) for of in (0, 1))
    numbers = np.array(numbers)
    return Clouds(numbers, xyz, rgb, torch.from_numpy(benchmark.labels[numbers]), failed)


@dataclass(frozen=True)
class _Stored:
    """Points of the canonical frame, and colours 0..255 where there are any."""

    xyz: Float[np.ndarray, "n 3"]
    rgb: UInt8[np.ndarray, "n 3"] | None

    @property
    def form(self) -> tuple[int, bool]:
        """Clouds of the same form can go through the same arithmetic together."""
        return len(self.xyz), self.rgb is not None


Read = Iterator[tuple[int, _Stored | str]]  # each object's number, and its points or why there are none


def _of_files(benchmark: Benchmark) -> Read:
    for number in range(len(benchmark.ids)):
        try:
            cloud = benchmark.cloud(number)
        except ObjectError as error:
            yield number, f"{error.reason}: {error.message}"
            continue
        x, y, z = cloud.xyz.T
        yield number, _Stored(cloud.xyz if cloud.up == "+y" else np.stack([x, z, -y], axis=1), cloud.rgb)


def _of_corpus(benchmark: Benchmark, most: int) -> Read:
    table = Reader.at(benchmark.corpus).need("points")
    place = {id: row for row, id in enumerate(table.to_table(columns=["object_id"])["object_id"].to_pylist())}
    yield from ((number, "the corpus has no points of it") for number, id in enumerate(benchmark.ids) if id not in place)
    there = [number for number, id in enumerate(benchmark.ids) if id in place]
    for first in range(0, len(there), AT_ONCE):
        some = there[first : first + AT_ONCE]
        rows = table.take([place[benchmark.ids[number]] for number in some], columns=["xyz", "rgb"])
        for number, xyz, rgb in zip(some, rows["xyz"], rows["rgb"], strict=True):
            yield number, _Stored(_first(xyz, most), _first(rgb, most) if rgb.is_valid else None)


def _first(values: pa.ListScalar, count: int) -> Float[np.ndarray, "n 3"] | UInt8[np.ndarray, "n 3"]:
    return values.values.to_numpy().reshape(-1, 3)[:count]


def _farthest(
    some: list[_Stored], wanted: PointInput, count: int, device: torch.device
) -> tuple[Float32[Tensor, "b k 3"], Float32[Tensor, "b k 3"]]:
    xyz = torch.from_numpy(np.stack([one.xyz for one in some]).astype(np.float32)).to(device)
    rgb = None if some[0].rgb is None else torch.from_numpy(np.stack([one.rgb for one in some])).to(device)
    xyz, rgb = prepared(xyz, rgb, None, wanted)
    order = farthest_points(xyz, count)
    return gathered(xyz, order).cpu(), gathered(rgb, order).cpu()


def _repeated(values: Float32[Tensor, "b k 3"], size: int) -> Float32[Tensor, "b {size} 3"]:
    return values[:, torch.arange(size) % values.shape[1]]


def _drawn(
    xyz: Float32[Tensor, "b n 3"], rgb: Float32[Tensor, "b n 3"], seeds: Int64[Tensor, " b"], settings: FineTune
) -> tuple[Float32[Tensor, "b k 3"], Float32[Tensor, "b k 3"]]:
    """Points by chance, in random order, scaled and moved axis by axis."""
    taken: Int[Tensor, "b k"] = permutation(seeds, Stream.SUBSAMPLE, xyz.shape[1])[:, : settings.points]
    least, most = settings.scale
    scale = least + (most - least) * uniform(seeds, Stream.SCALE, 3)
    shift = settings.shift * (2 * uniform(seeds, Stream.SHIFT, 3) - 1)
    return gathered(xyz, taken) * scale[:, None] + shift[:, None], gathered(rgb, taken)


def _adamw(classifier: Classifier, settings: FineTune) -> torch.optim.AdamW:
    decayed, spared = [], []
    for name, parameter in classifier.named_parameters():
        (spared if parameter.ndim <= 1 or name.endswith(".bias") or "token" in name else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.lr)
