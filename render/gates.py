"""The gate before VIEWS: which renders are too bad to let in."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.stage import Row


@dataclass(frozen=True, kw_only=True)
class Gates:
    """Thresholds on the measures of VIEWS; an object beyond one of them becomes a failure. None: no limit."""


def judge(rows: Sequence[Row], gates: Gates) -> None:
    """Lets the rows of an object's views pass. Raises ObjectError, with a thumbnail, for the first gate that they do not pass."""
