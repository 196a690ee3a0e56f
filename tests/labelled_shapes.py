"""What probes and fine-tuning learn from, made on the spot: a corpus with labelled splits, ScanObjectNN's files, small encoders."""

from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import torch

from evaluate.fine_tune import fresh
from pipeline.store import Corpus
from schemas.check import to_table
from schemas.tables import SPLITS
from separable import STAGE, TEACHER, separable
from trainer.card import Card, PointInput
from trainer.checkpoints import save
from trainer.encoders.pointbert import PointBertConfig

POINTBERT = PointBertConfig(
    dim=32, depth=2, heads=2, hidden=64, head_width=16, sa_dim=32, groups=16, radius=0.5, group_size=16, out=16
)
AXES = np.array([[1, 1, 1], [1, 0.2, 1], [0.2, 1, 0.2]])  # a ball, a disc, a stick


def card(config: PointBertConfig = POINTBERT) -> Card:
    return Card(
        encoder="pointbert",
        config=asdict(config),
        input=PointInput(points=256),
        teacher={"name": TEACHER},
        data=None,
        made_by={"recipe": "by hand"},
    )


def checkpoint(folder: Path) -> Path:
    """A PointBERT that has learnt nothing, as it is saved."""
    save(folder, fresh(card(), 7), card())
    return folder


def form(kind: int, rng: np.random.Generator, points: int) -> np.ndarray:
    """An ellipsoid, of any size and anywhere."""
    xyz = rng.normal(size=(points, 3))
    xyz *= AXES[kind] * rng.uniform(0.8, 1.25, 3) / np.linalg.norm(xyz, axis=1, keepdims=True)
    return rng.uniform(1, 9) * xyz + rng.normal(size=3)


def labelled_corpus(root: Path, objects: int = 96, classes: int = 4, split: str = "shapes", train: int = 0) -> Corpus:
    """Separable objects in a labelled split; the first `train` of them in its training half, if any."""
    corpus = separable(root, objects=objects, classes=classes)
    rows = [
        STAGE | {"object_id": f"test/{number}", "split": f"{split}-train" if number < train else split,
                 "label": f"class {number % classes}"}
        for number in range(objects)
    ]  # fmt: skip
    corpus.create(SPLITS)
    corpus.append(SPLITS, corpus.write(SPLITS, to_table(SPLITS, rows)))
    return corpus


def scanobjectnn(root: Path, train: int = 24, test: int = 12, points: int = 2048) -> Path:
    """ScanObjectNN's hardest variant in its h5 form: three classes (bin, chair, table) that are ellipsoids."""
    folder = root / "h5_files" / "main_split"
    folder.mkdir(parents=True)
    for half, count, seed in (("training", train, 0), ("test", test, 1)):
        kinds = np.arange(count) % 3
        with h5py.File(folder / f"{half}_objectdataset_augmentedrot_scale75.h5", "w") as file:
            clouds = [form(kind, np.random.default_rng([seed, number]), points) for number, kind in enumerate(kinds)]
            file["data"] = np.stack(clouds).astype(np.float32)
            file["label"] = np.array([1, 4, 9], np.int32)[kinds]
            file["mask"] = np.zeros((count, points), np.int32)
    return root


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)
