"""Views and captions to a teacher's embeddings: per object its views in order, and every distinct text once.

Another teacher means other tables; nothing else is touched.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, ClassVar, get_args

import numpy as np
import torch
from jaxtyping import Float16, Float32

from pipeline.stage import Made, ObjectError, Task, Work
from pipeline.teacher import Device, Dtype, Teacher, unit
from pipeline.weights import DEFAULT_TEACHER, dim, identity, name_in_tables
from schemas import tables
from schemas.check import UNIT_TOLERANCE
from schemas.tables import Table

# Calls of a worker with a GPU: one computes, the next is read and decoded, the last is written. A model on a CPU needs all cores.
OVERLAP_ON_GPU = 3


@dataclass(frozen=True, kw_only=True)
class TeacherStage:
    """What the stages that hold a teacher have in common.

    The device, how much goes into a forward pass and whether it is compiled are no part of the stage key: they change embeddings by
    rounding only. Nor is the arithmetic that "auto" comes to; the rows tell it.
    """

    version: ClassVar[int] = 2
    cpus: ClassVar[None] = None

    # Frozen CLIP model, ARCH:PRETRAINED.
    teacher: str = DEFAULT_TEACHER
    # cpu, cuda, or auto: a GPU if the worker sees one. On a cluster only "cuda" asks for a GPU.
    device: Device = "auto"
    # Arithmetic of the products: float32, bfloat16, or auto: bfloat16 on a GPU, float32 on a CPU.
    dtype: Dtype = "auto"
    # Compile the model when a worker starts: takes minutes, may pay on a GPU.
    compile: bool = False

    def __post_init__(self):
        for name, known in (("device", get_args(Device)), ("dtype", get_args(Dtype))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}, must be one of {', '.join(known)}")

    @property
    def gpus(self) -> float:
        return 1.0 if self.device == "cuda" else 0.0

    @property
    def overlap(self) -> int:
        on_gpu = self.device == "cuda" or (self.device == "auto" and torch.cuda.is_available())
        return OVERLAP_ON_GPU if on_gpu else 1

    def settings(self) -> dict[str, Any]:
        return {"teacher": identity(self.teacher).to_json(), "dtype": self.dtype}

    def load(self, **sizes: int | None) -> Teacher:
        """The teacher, in this worker; `sizes` as for Teacher."""
        # Ray may have been told of more cores than there are.
        torch.set_num_threads(min(torch.get_num_threads(), len(os.sched_getaffinity(0))))
        return Teacher(self.teacher, device=self.device, dtype=self.dtype, compile=self.compile, **sizes)


@dataclass(frozen=True, kw_only=True)
class EmbedImages(TeacherStage):
    """A teacher's embeddings of each object's views."""

    reads: ClassVar[str] = tables.VIEWS.name
    per: ClassVar[str] = "object_id"
    columns: ClassVar[tuple[str, ...]] = ("object_id", "view", "image")
    depends: ClassVar[tuple[str, ...]] = ("stage_key",)
    where: ClassVar[None] = None
    batch: ClassVar[int] = 64

    # Pictures per forward pass. None: found by trying on a GPU, 16 on a CPU.
    images_per_forward: int | None = None
    # Threads that decode pictures. None: one for each core of the worker.
    decoders: int | None = None

    @property
    def name(self) -> str:
        return f"embed-images/{name_in_tables(self.teacher)}"

    @property
    def writes(self) -> Table:
        return tables.image_embeddings(name_in_tables(self.teacher), dim(self.teacher))

    def start(self) -> Work:
        teacher = self.load(images_per_forward=self.images_per_forward)
        decoders = ThreadPoolExecutor(self.decoders or torch.get_num_threads())

        def work(tasks: list[Task]) -> Made:
            made = Made()
            ready: list[tuple[str, list[torch.Tensor]]] = []
            for task, images in zip(tasks, decoders.map(partial(_prepared, teacher), tasks), strict=True):
                if isinstance(images, ObjectError):
                    made.fail(self.name, task.id, images)
                else:
                    ready.append((task.id, images))
            vectors, lengths = unit(teacher.image_vectors([image for _, images in ready for image in images]))
            pairs = zip(half_unit(vectors), lengths.tolist(), strict=True)
            for id, images in ready:
                embedding, length = zip(*islice(pairs, len(images)), strict=True)
                row = {"object_id": id, "embedding": list(embedding), "lengths": list(length), "dtype": teacher.dtype}
                made.add(self.name, [row])
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

    # Texts per forward pass. None: found by trying on a GPU, 32 on a CPU.
    texts_per_forward: int | None = None

    @property
    def name(self) -> str:
        return f"embed-texts/{name_in_tables(self.teacher)}"

    @property
    def writes(self) -> Table:
        return tables.text_embeddings(name_in_tables(self.teacher), dim(self.teacher))

    def start(self) -> Work:
        teacher = self.load(texts_per_forward=self.texts_per_forward)

        def work(tasks: list[Task]) -> Made:
            texts = [task.rows[0]["text"] for task in tasks]
            vectors, lengths = unit(teacher.text_vectors(texts))
            made = Made()
            for task, text, vector, length in zip(tasks, texts, half_unit(vectors), lengths.tolist(), strict=True):
                row = {"text_sha256": task.id, "text": text, "embedding": vector, "length": length, "dtype": teacher.dtype}
                made.add(self.name, [row])
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
