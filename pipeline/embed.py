"""Views and captions to a teacher's embeddings: per object its views in order, and every distinct text once.

Another teacher means other tables; nothing else is touched.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float16, Float32

from pipeline.stage import Made, ObjectError, Task, Work
from pipeline.teacher import Device, Teacher
from pipeline.weights import DEFAULT_TEACHER, dim, identity, name_in_tables
from schemas import tables
from schemas.check import UNIT_TOLERANCE
from schemas.tables import Table


@dataclass(frozen=True, kw_only=True)
class TeacherStage:
    """What the stages that hold a teacher have in common.

    The device and how much goes into a forward pass are no part of the stage key: they change embeddings by rounding only.
    """

    version: ClassVar[int] = 1
    cpus: ClassVar[float] = 1.0

    # Frozen CLIP model, ARCH:PRETRAINED.
    teacher: str = DEFAULT_TEACHER
    # cpu, cuda, or auto: a GPU if the worker sees one. On a cluster only "cuda" asks for a GPU.
    device: Device = "auto"

    @property
    def gpus(self) -> float:
        return 1.0 if self.device == "cuda" else 0.0

    def settings(self) -> dict[str, Any]:
        return {"teacher": identity(self.teacher).to_json()}


@dataclass(frozen=True, kw_only=True)
class EmbedImages(TeacherStage):
    """A teacher's embeddings of each object's views."""

    reads: ClassVar[str] = tables.VIEWS.name
    per: ClassVar[str] = "object_id"
    columns: ClassVar[tuple[str, ...]] = ("object_id", "view", "image")
    depends: ClassVar[tuple[str, ...]] = ("stage_key",)
    where: ClassVar[None] = None
    batch: ClassVar[int] = 64

    # Pictures per forward pass.
    images_per_forward: int = 32
    # Threads that decode pictures.
    decoders: int = 4

    @property
    def name(self) -> str:
        return f"embed-images/{name_in_tables(self.teacher)}"

    @property
    def writes(self) -> Table:
        return tables.image_embeddings(name_in_tables(self.teacher), dim(self.teacher))

    def start(self) -> Work:
        teacher = Teacher(self.teacher, device=self.device, images_per_forward=self.images_per_forward)
        decoders = ThreadPoolExecutor(self.decoders)

        def work(tasks: list[Task]) -> Made:
            made = Made()
            ready: list[tuple[str, int]] = []
            waiting: list[torch.Tensor] = []
            vectors: list[np.ndarray] = []
            for task, images in zip(tasks, decoders.map(lambda task: _prepared(teacher, task), tasks), strict=True):
                if isinstance(images, ObjectError):
                    made.fail(self.name, task.id, images)
                    continue
                ready.append((task.id, len(images)))
                waiting += images
                while len(waiting) >= self.images_per_forward:  # while others are still being decoded
                    vectors.append(teacher.encode_prepared(waiting[: self.images_per_forward]))
                    del waiting[: self.images_per_forward]
            embeddings = iter(half_unit(np.concatenate([*vectors, teacher.encode_prepared(waiting)])))
            for id, count in ready:
                made.add(self.name, [{"object_id": id, "embedding": list(islice(embeddings, count))}])
            return made

        return work


def _prepared(teacher: Teacher, task: Task) -> list[torch.Tensor] | ObjectError:
    """The object's views as the model wants them, in `view` order; or why that cannot be."""
    images = []
    for row in sorted(task.rows, key=lambda row: row["view"]):
        try:
            images.append(teacher.prepare(row["image"]))
        except ObjectError as error:
            return ObjectError(error.reason, f"view {row['view']}: {error.message}")
    return images


@dataclass(frozen=True, kw_only=True)
class EmbedTexts(TeacherStage):
    """A teacher's embeddings of the captions that are kept, one per distinct text."""

    reads: ClassVar[str] = tables.CAPTIONS.name
    per: ClassVar[str] = "text_sha256"
    columns: ClassVar[tuple[str, ...]] = ("text",)
    depends: ClassVar[tuple[str, ...]] = ("text",)
    where: ClassVar[str] = "kept"
    batch: ClassVar[int] = 1024

    # Texts per forward pass.
    texts_per_forward: int = 64

    @property
    def name(self) -> str:
        return f"embed-texts/{name_in_tables(self.teacher)}"

    @property
    def writes(self) -> Table:
        return tables.text_embeddings(name_in_tables(self.teacher), dim(self.teacher))

    def start(self) -> Work:
        teacher = Teacher(self.teacher, device=self.device, texts_per_forward=self.texts_per_forward)

        def work(tasks: list[Task]) -> Made:
            texts = [task.rows[0]["text"] for task in tasks]
            vectors = half_unit(teacher.encode_texts(texts))
            made = Made()
            rows = ({"text_sha256": task.id, "text": t, "embedding": v} for task, t, v in zip(tasks, texts, vectors, strict=True))
            made.add(self.name, rows)
            return made

        return work


def half_unit(vectors: Float32[np.ndarray, "n d"]) -> Float16[np.ndarray, "n d"]:
    """Unit vectors in half precision. Raises RuntimeError for what is none: the weights or the device are at fault."""
    half = vectors.astype(np.float16)
    length = np.linalg.norm(half.astype(np.float32), axis=1)
    wrong = ~(np.abs(length - 1) < UNIT_TOLERANCE)  # NaN is wrong too
    if wrong.any():
        raise RuntimeError(f"{wrong.sum()} of {len(vectors)} embeddings have no unit length (the first: {length[wrong][0]})")
    return half
