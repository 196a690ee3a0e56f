"""A condition on the figures of a report, for a job that must stop when a corpus is not what it should be.

    holds("failed_share > 0.02", figures(sections))

A figure has a name of its own where it stands among a section's gates ("failed_share"), and always a path ("funnel.failed_share",
"licences.by_license.CC-BY-4.0").
"""

import difflib
import operator
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reports.section import Section

COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
LIKE = 5  # names that are offered in place of one that is not there

Figure = int | float | None


@dataclass(frozen=True)
class Gate:
    """`name` of a figure, how it is compared, and with what."""

    name: str
    compare: str
    limit: float


def parsed(expression: str) -> Gate:
    """What an expression asks. ValueError: it is not one."""
    found = re.fullmatch(r"\s*(\S.*?)\s*(>=|<=|==|!=|>|<)\s*([^<>=!]+?)\s*", expression)
    try:
        return Gate(found[1], found[2], float(found[3]))
    except (TypeError, ValueError):
        raise ValueError(
            f"{expression!r} is no condition: give a figure, one of {' '.join(COMPARE)} and a number, as in 'failed_share>0.02'"
        ) from None


def figures(sections: Sequence[Section]) -> dict[str, Figure]:
    """Every figure of a report that is a number, or None where it is not known, by its path; gates by their flat names as well.
    ValueError: two sections have a gate of one name."""
    found: dict[str, Figure] = {}
    for section in sections:
        if twice := sorted(section.gates.keys() & found.keys()):
            raise ValueError(f"two sections of a report have a gate {twice[0]!r}; one of them is {section.key}")
        found |= section.gates
    return found | {path: number for section in sections for path, number in _paths(section.key, section.figures)}


def value(name: str, figures: dict[str, Figure]) -> Figure:
    """The figure of this name. ValueError, with the names that are most like it: there is none."""
    if name in figures:
        return figures[name]
    last = {}
    for path in figures:
        last.setdefault(path.rpartition(".")[2], path)
    like = [last.get(one, one) for one in difflib.get_close_matches(name, [*figures, *last], LIKE, cutoff=0.5)]
    offered = f"; there is: {', '.join(dict.fromkeys(like))}" if like else "; --json prints all of them"
    raise ValueError(f"the report has no figure {name!r}{offered}")


def holds(expression: str, figures: dict[str, Figure]) -> bool | None:
    """Whether a condition holds. None: its figure is not known in this corpus. ValueError: no condition, or no such figure."""
    gate = parsed(expression)
    number = value(gate.name, figures)
    return None if number is None else bool(COMPARE[gate.compare](number, gate.limit))


def _paths(path: str, figure: Any) -> Iterator[tuple[str, Figure]]:
    if isinstance(figure, dict):
        for name, inner in figure.items():
            yield from _paths(f"{path}.{name}", inner)
    elif figure is None or isinstance(figure, int | float):
        yield path, figure
