"""What an evaluation found: figures, and all that decides whether they may stand beside others.

A folder holds one evaluation: `results.json`, from which everything can be made again, and `table.md` and `table.html`, which set
it beside what others have published (evaluate/table.py). Several are set side by side by `python -m jobs evaluate table`.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

FILE = "results.json"

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


def to_json(result: Result) -> dict[str, Any]:
    """What JSON can hold; each figure with its mean and spread, for those who read it without this project."""
    figures = {name: {"mean": one.mean, "spread": one.spread, "values": list(one.values)} for name, one in result.figures.items()}
    return asdict(result) | {"figures": figures}


def from_json(found: dict[str, Any]) -> Result:
    """The result of which `to_json` made this. Raises ValueError for what is none."""
    try:
        figures = {name: Figure(tuple(one["values"])) for name, one in found["figures"].items()}
        per_class = found["per_class"] and {name: (share, objects) for name, (share, objects) in found["per_class"].items()}
        return Result(**(found | {"figures": figures, "per_class": per_class}))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not the result of an evaluation ({type(error).__name__}: {error})") from error


def save(folder: str | Path, results: Sequence[Result]) -> None:
    """Write results.json, table.md and table.html into a folder, which is made if it is not there; what they held is replaced."""
    from evaluate import table  # which reads this file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps({"results": [to_json(one) for one in results]}, indent=1, ensure_ascii=False) + "\n")
    (folder / "table.md").write_text(table.markdown(results))
    (folder / "table.html").write_text(table.html(results))


def load(place: str | Path) -> list[Result]:
    """The results of a folder, or of a file like its results.json. Raises ValueError, which says what is wrong with which file."""
    file = Path(place) / FILE if Path(place).is_dir() else Path(place)
    try:
        found = json.loads(file.read_text())
        return [from_json(one) for one in found["results"]]
    except FileNotFoundError as error:
        raise ValueError(f"there is no {file}: evaluate jobs write it into the folder of their --out") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from error
