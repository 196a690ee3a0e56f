"""What an evaluation found: figures, and all that decides whether they may stand beside others."""

from dataclasses import dataclass, field
from typing import Any, Literal

Task = Literal["zero-shot", "retrieval", "few-shot", "linear probe", "fine-tuning", "part segmentation"]


@dataclass(frozen=True)
class Figure:
    """A share, 0..1, once per seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return sum(self.values) / len(self.values)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over the seeds; None: there is one seed."""
        if len(self.values) < 2:
            return None
        return (sum((value - self.mean) ** 2 for value in self.values) / (len(self.values) - 1)) ** 0.5


@dataclass(frozen=True, kw_only=True)
class Result:
    """Figures of one method on one benchmark.

    `method`: what was evaluated, as a table calls it: a checkpoint's name, or "mean of views". `fed`: what it saw: "points",
    "1 view", "12 views". `teacher`: whose space it is. `benchmark`, `variant`, `objects`, `missing`, `classes`: of the Benchmark.
    `figures`: "top-1" "top-3" "top-5" "class mean" of classification; "instance top-1" … "category top-5" of retrieval (which way
    is in `settings`); "accuracy" of probes and fine-tuning; "mIoU" of part segmentation. `per_class`: by class name, top-1 and how
    many objects. `settings`: the protocol: rule of the class embeddings, seeds, shots, points and how they were drawn.
    `leaks`: how many of the benchmark's objects were trained on, by how that was told ("id", "hash", "near-duplicate"); None: it
    is not known what the method was trained on. `trained_on`: what that was, in words.
    """

    task: Task
    method: str
    fed: str
    teacher: str
    benchmark: str
    variant: str
    objects: int
    missing: int
    classes: int | None
    figures: dict[str, Figure]
    per_class: dict[str, tuple[float, int]] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    leaks: dict[str, int] | None = None
    trained_on: str | None = None
    seconds: float | None = None
