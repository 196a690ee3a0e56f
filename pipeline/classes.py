"""Class names to a teacher's zero-shot classifiers: each name in many prompts, and their mean.

A class name is what a list calls its objects (SPLITS), or a category of a collection (OBJECTS). It is put into the prompts as it is
spelt, underscores included: that is how Objaverse-LVIS is evaluated (OpenShape, Uni3D).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.embed import TeacherStage, half_unit
from pipeline.stage import Made, Row, Task, Work
from pipeline.store import Corpus
from pipeline.teacher import unit
from pipeline.weights import dim, name_in_tables
from schemas import tables
from schemas.tables import OBJECTS, SPLITS, Table

# Sets of prompts by name; a set never changes: its name has a version. `{}` is where the class name goes.
PROMPTS = {
    # Those of ULIP (Xue et al., CVPR 2023), in the order and spelling of Uni3D's data/templates.json ("modelnet40_64"): most are
    # CLIP's for ImageNet (Radford et al., 2021). The one without a full stop is so there, too.
    "ulip-64@1": (
        "a point cloud model of {}.",
        "There is a {} in the scene.",
        "There is the {} in the scene.",
        "a photo of a {} in the scene.",
        "a photo of the {} in the scene.",
        "a photo of one {} in the scene.",
        "itap of a {}.",
        "itap of my {}.",
        "itap of the {}.",
        "a photo of a {}.",
        "a photo of my {}.",
        "a photo of the {}.",
        "a photo of one {}.",
        "a photo of many {}.",
        "a good photo of a {}.",
        "a good photo of the {}.",
        "a bad photo of a {}.",
        "a bad photo of the {}.",
        "a photo of a nice {}.",
        "a photo of the nice {}.",
        "a photo of a cool {}.",
        "a photo of the cool {}.",
        "a photo of a weird {}.",
        "a photo of the weird {}.",
        "a photo of a small {}.",
        "a photo of the small {}.",
        "a photo of a large {}.",
        "a photo of the large {}.",
        "a photo of a clean {}.",
        "a photo of the clean {}.",
        "a photo of a dirty {}.",
        "a photo of the dirty {}.",
        "a bright photo of a {}.",
        "a bright photo of the {}.",
        "a dark photo of a {}.",
        "a dark photo of the {}.",
        "a photo of a hard to see {}.",
        "a photo of the hard to see {}.",
        "a low resolution photo of a {}.",
        "a low resolution photo of the {}.",
        "a cropped photo of a {}.",
        "a cropped photo of the {}.",
        "a close-up photo of a {}.",
        "a close-up photo of the {}.",
        "a jpeg corrupted photo of a {}.",
        "a jpeg corrupted photo of the {}.",
        "a blurry photo of a {}.",
        "a blurry photo of the {}.",
        "a pixelated photo of a {}.",
        "a pixelated photo of the {}.",
        "a black and white photo of the {}.",
        "a black and white photo of a {}",
        "a plastic {}.",
        "the plastic {}.",
        "a toy {}.",
        "the toy {}.",
        "a plushie {}.",
        "the plushie {}.",
        "a cartoon {}.",
        "the cartoon {}.",
        "an embroidered {}.",
        "the embroidered {}.",
        "a painting of the {}.",
        "a painting of a {}.",
    ),
    "photo@1": ("a photo of a {}.",),
}


@dataclass(frozen=True)
class ClassNames:
    """The distinct class names of a corpus, in alphabetical order, as records of `EmbedClasses`; read when they are asked for."""

    corpus: Corpus

    def __iter__(self) -> Iterator[Row]:
        names = pa.array([], pa.string())
        for table, column in ((SPLITS.name, "label"), (OBJECTS.name, "categories")):
            if (dataset := self.corpus.open(table)) is not None:
                for batch in dataset.to_batches(columns=[column]):
                    values = batch[column]
                    flat = values.flatten() if pa.types.is_list(values.type) else values
                    names = pc.unique(pa.concat_arrays([names, flat.cast(pa.string())]))
        yield from ({"name": name} for name in sorted(name for name in names.to_pylist() if name and name.strip()))


@dataclass(frozen=True, kw_only=True)
class EmbedClasses(TeacherStage):
    """A teacher's classifier of each class name."""

    reads: ClassVar[str] = ""
    per: ClassVar[str] = "name"
    columns: ClassVar[tuple[str, ...]] = ("name",)
    depends: ClassVar[tuple[str, ...]] = ("name",)
    where: ClassVar[None] = None
    batch: ClassVar[int] = 64  # with 64 prompts 4,096 texts a call

    # Name of the set of prompts: ulip-64@1 or photo@1.
    prompts: str = "ulip-64@1"
    # Texts per forward pass. None: found by trying on a GPU, 64 on a CPU.
    texts_per_forward: int | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.prompts not in PROMPTS:
            raise ValueError(f"prompts = {self.prompts!r}: there is no such set; there are {', '.join(PROMPTS)}")

    @property
    def name(self) -> str:
        return f"embed-classes/{name_in_tables(self.teacher)}"

    @property
    def writes(self) -> Table:
        return tables.class_embeddings(name_in_tables(self.teacher), dim(self.teacher))

    def settings(self) -> dict[str, Any]:
        digest = hashlib.sha256("\n".join(PROMPTS[self.prompts]).encode()).hexdigest()[:16]
        return super().settings() | {"prompts": self.prompts, "prompts_sha256": digest}

    def start(self) -> Work:
        teacher = self.load(texts_per_forward=self.texts_per_forward)
        prompts = PROMPTS[self.prompts]

        def work(tasks: list[Task]) -> Made:
            texts = [prompt.replace("{}", task.id) for task in tasks for prompt in prompts]
            raw = teacher.text_vectors(texts)
            means = [vectors.reshape(len(tasks), len(prompts), -1).mean(axis=1) for vectors in (unit(raw)[0], raw)]
            made = Made()
            for task, vector, raw_mean in zip(tasks, half_unit(unit(means[0])[0]), means[1], strict=True):
                row = {"name": task.id, "embedding": vector, "raw_mean": raw_mean, "dtype": teacher.dtype}
                made.add(self.name, [row])
            return made

        return work
