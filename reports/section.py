"""What a report is made of: sections, each with figures for machines and exhibits for people.

A section is computed from the tables alone (reports/*.py, one file per section) and knows nothing of the page; the page
(reports/page.py) shows exhibits by their kind and knows nothing of the tables. Two reports are compared figure by figure and
exhibit by exhibit (reports/against.py).
"""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Tile:
    """One figure that must be seen at once. `value` as it is to be read ("12,345", "3.2 %"); `note`: what it means, or of what."""

    label: str
    value: str
    note: str = ""
    tone: Literal["plain", "good", "bad"] = "plain"


@dataclass(frozen=True)
class Tiles:
    """Figures side by side."""

    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Bar:
    """`count` of what is called `name`; `note`: a word on it. `part`: so many of them are marked (failed, non-commercial, …)."""

    name: str
    count: int
    note: str = ""
    part: int = 0


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Counts of named things, the largest first unless the order means something. `of`: what a full bar is; None: the largest.
    `left_out`: how many names more there are, and their count together. `part`: what a bar's marked part is."""

    title: str
    unit: str
    bars: tuple[Bar, ...]
    of: int | None = None
    left_out: tuple[int, int] = (0, 0)
    part: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How a number is spread. `edges` (n + 1) of the bins in `unit`; `series`: by name, how many fall into each of the n bins.
    `log`: bins are even on a logarithmic scale. `shares`: draw each series as shares of its sum, so that unlike numbers compare.
    `marks`: by name, values worth a line (a threshold, a median). `sampled`: of how many of how many, where it is a sample."""

    title: str
    unit: str
    edges: tuple[float, ...]
    series: dict[str, tuple[int, ...]]
    log: bool = False
    shares: bool = False
    marks: dict[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A table of texts and numbers; numbers are set to the right. `folded`: closed until somebody opens it."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str | int | float | None, ...], ...]
    folded: bool = False
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """An encoded picture (WebP, PNG or JPEG) with what is written below it. Transparent ones are laid on a checkerboard."""

    image: bytes
    title: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures of one kind. `tile`: width of one in the page, CSS pixels; they flow."""

    title: str
    pictures: tuple[Picture, ...]
    tile: int = 112
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing that went wrong, in full: `head` names it, `text` says what happened, `log` is the tail of a tool's log, `command`
    what to type next."""

    head: str
    text: str
    picture: bytes | None = None
    log: str | None = None
    command: str | None = None


@dataclass(frozen=True, kw_only=True)
class Cases:
    """Examples of one reason, closed until somebody opens them. `count`: how many there are of it in all."""

    title: str
    count: int
    cases: tuple[Case, ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Map:
    """Objects laid out in the plane: `x`, `y` (n); `labels` (n) shown when one is pointed at; `colors`: by name of a colouring
    either n texts (groups) or n numbers (a scale), None where absent; `pictures`: a small WebP for each, None: without."""

    title: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    labels: tuple[str, ...]
    colors: dict[str, tuple[str | float | None, ...]]
    pictures: tuple[bytes | None, ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Texts to be read: (head, text, note) each."""

    title: str
    samples: tuple[tuple[str, str, str], ...]
    note: str = ""


Exhibit = Tiles | Bars | Histogram | Rows | Pictures | Cases | Map | Samples


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of a report.

    `key`: funnel, captions, …, by which its figures are named ("captions.kept_share"). `title`, `lead`: a heading, and one to three
    sentences with what matters, the figures in them. `figures`: every figure, as JSON (numbers, texts, None, lists and dictionaries
    of these); shares are 0..1. `gates`: those of the figures a gate may be built on without a path: a flat name, unique in the
    report ("failed_share"), and its number, None: not known. `warnings`: sentences an auditor must not miss. `exhibits`: what is
    shown, in this order.
    """

    key: str
    title: str
    lead: str
    figures: dict[str, Any]
    gates: dict[str, float | None] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    exhibits: tuple[Exhibit, ...] = ()
