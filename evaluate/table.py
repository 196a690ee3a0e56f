"""An evaluation beside what others have published on the same benchmark, with what differs said: Markdown, HTML, text.

    print(text(results))
    Path("table.md").write_text(markdown(results))

One table per task, benchmark, variant and way of looking up, sorted by the first figure. What keeps a figure from being compared
(a part of the objects, other classes, objects that were trained on) is said above its table; the rest below it.
"""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2

from evaluate.published import CLASSES, OBJECTS, TEST_OBJECTS, Published, published
from evaluate.result import Figure, Result, Task

WIDTH = 120  # columns of the terminal
COMPLETE = 0.99  # share of a benchmark's objects from which on a figure is one of the whole
SHOWN_CLASSES = 12  # of the worst, and of the best
MARK = "▶"  # of what was evaluated here
LEAST = {2: 12, 0: 14, 1: 8}  # columns of words that are cut where a terminal's line is too long, in this order, and down to what

TITLES: dict[Task, str] = {
    "zero-shot": "Zero-shot classification",
    "retrieval": "Retrieval",
    "few-shot": "Few-shot classification",
    "linear probe": "Linear probe",
    "fine-tuning": "Fine-tuned classification",
    "part segmentation": "Part segmentation",
}
NAMES = {
    "objaverse-lvis": "Objaverse-LVIS",
    "modelnet40": "ModelNet40",
    "scanobjectnn": "ScanObjectNN",
    "scanobjectnn-obj-only": "ScanObjectNN, OBJ_ONLY",
    "scanobjectnn-obj-bg": "ScanObjectNN, OBJ_BG",
    "scanobjectnn-pb-t50-rs": "ScanObjectNN, PB_T50_RS",
    "mvpnet": "MVPNet",
    "shapenetpart": "ShapeNetPart",
    "partnete": "PartNetE",
}
TOLD = ("way", "shots", "seeds")  # settings that a table says elsewhere
LEAKED = {"id": "by id", "hash": "by the hash of the file", "near-duplicate": "as near-duplicates"}
# Tasks that ask all objects of a benchmark; the others are asked of its test half.
PUBLISHED_WAYS = ("", "text to 3d", "3d to text")  # of looking up
_WHOLE: tuple[Task, ...] = ("zero-shot", "retrieval")


@dataclass(frozen=True, kw_only=True)
class Row:
    """`figures`: those of the table's columns that it has. `parameters`: millions, where published. `source`: number of the table's
    source; None: evaluated here."""

    method: str
    fed: str
    trained_on: str
    teacher: str
    parameters: float | None
    objects: int | None
    figures: dict[str, Figure]
    source: int | None
    result: Result | None = None

    @property
    def ours(self) -> bool:
        """Evaluated here."""
        return self.result is not None


@dataclass(frozen=True, kw_only=True)
class Table:
    """`columns`: names of figures. `warnings`: what keeps figures from being compared; `differences`: what else differs, by row."""

    title: str
    about: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]
    differences: tuple[tuple[str, tuple[str, ...]], ...]
    sources: tuple[str, ...]


def tables(results: Sequence[Result]) -> list[Table]:
    """In the order in which their first results come."""
    together: dict[tuple[str, ...], list[Result]] = {}
    for one in results:
        together.setdefault((one.task, one.benchmark, one.variant, str(one.settings.get("way", ""))), []).append(one)
    return [_table(way, found) for (*_, way), found in together.items()]


def _table(way: str, results: list[Result]) -> Table:
    first = results[0]
    columns = tuple(dict.fromkeys(name for one in results for name in one.figures))
    others = [one for one in published(first.task, first.benchmark) if set(columns) & set(one.figures) and way in PUBLISHED_WAYS]
    sources = tuple(dict.fromkeys(one.source for one in others))
    rows = [_ours(one) for one in results] + [_theirs(one, sources.index(one.source) + 1, columns) for one in others]
    rows.sort(key=lambda row: (-row.figures[columns[0]].mean if columns[0] in row.figures else 0.0, row.source or 0))
    named = NAMES.get(first.benchmark, first.benchmark)
    kept: dict[str, list[Result]] = {}  # by what keeps them from being compared
    for one in results:
        if why := "; ".join(_keeping(one)):
            kept.setdefault(why, []).append(one)
    return Table(
        title=f"{TITLES[first.task]} on {named}" + (f", {way}" if way else ""),
        about=_about(first, others, named),
        columns=columns,
        rows=tuple(rows),
        warnings=tuple(f"{_named(those, results)}: {why}" for why, those in kept.items()),
        differences=tuple(_told([(f"{one.method} ({_fed(one)})", _differing(one, others)) for one in results])),
        sources=sources,
    )


def _named(those: list[Result], results: list[Result]) -> str:
    return "all" if len(those) == len(results) > 1 else ", ".join(dict.fromkeys(one.method for one in those))


def _told(differing: list[tuple[str, list[str]]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What all have in common once, then what each has for itself."""
    (_, first), *rest = differing
    common = [one for one in first if all(one in said for _, said in rest)] if rest else []
    if common:
        yield "all", tuple(common)
    for name, said in differing:
        if own := tuple(one for one in said if one not in common):
            yield name, own


def _fed(result: Result) -> str:
    """What it saw, and of how many labelled objects per class it learnt."""
    shots = result.settings.get("shots")
    return result.fed if shots is None else f"{result.fed}, {shots} shot{'s' * (shots != 1)}"


def _ours(result: Result) -> Row:
    return Row(
        method=result.method,
        fed=_fed(result),
        trained_on=result.trained_on or "not known",
        teacher=result.teacher,
        parameters=None,
        objects=result.objects,
        figures=result.figures,
        source=None,
        result=result,
    )


def _theirs(row: Published, source: int, columns: Iterable[str]) -> Row:
    return Row(
        method=row.method,
        fed=row.fed,
        trained_on=row.trained_on,
        teacher=row.teacher or "not known",
        parameters=row.parameters,
        objects=OBJECTS.get(row.benchmark) if row.task in _WHOLE else None,
        figures={name: Figure((row.figures[name],)) for name in columns if name in row.figures},
        source=source,
    )


def _about(result: Result, others: Sequence[Published], named: str) -> str:
    seeds = {len(figure.values) for figure in result.figures.values()}
    told = f"{result.variant[:1].upper()}{result.variant[1:]}. Percent"
    told += f"; mean ± standard deviation over {max(seeds)} seeds" if max(seeds) > 1 else ""
    if not others:
        return f"{told}. No published figures of this task on {named} are known here."
    told += "; what is marked was evaluated here, the others are as published"
    if result.benchmark == "objaverse-lvis" and any(one.trained_on == "four sources" for one in others):
        told += '. The "four sources" are OpenShape\'s data, which hold the objects of Objaverse-LVIS too unless it says "no LVIS"'
    return f"{told}."


def _keeping(result: Result) -> list[str]:
    """What keeps a result from being compared with the published ones."""
    kept = []
    whole = (OBJECTS if result.task in _WHOLE else TEST_OBJECTS).get(result.benchmark)
    classes = CLASSES.get(result.benchmark)
    apart = []
    if whole and result.objects < COMPLETE * whole:
        apart.append(f"{result.objects:,} of the benchmark's {whole:,} objects")
    if classes and result.classes not in (classes, None):
        apart.append(f"{result.classes:,} classes to choose among, not {classes:,}")
    if apart:
        kept.append(f"NOT comparable: {', '.join(apart)}")
    if leaked := {way: count for way, count in (result.leaks or {}).items() if count}:
        ways = ", ".join(f"{count:,} {LEAKED[way]}" for way, count in leaked.items())
        kept.append(f"LEAKED: {sum(leaked.values()):,} of its {result.objects:,} objects were trained on ({ways})")
    return kept


def _differing(result: Result, others: Sequence[Published]) -> list[str]:
    """The rest of what one should know when reading the figures side by side, as phrases."""
    told = [f"{result.objects:,} objects" + (f" ({result.missing:,} missing or not readable)" if result.missing else "")]
    if result.classes and result.task != "part segmentation":
        told.append(f"{result.classes:,} classes")
    theirs = sorted({one.teacher for one in others if one.teacher})
    told.append(
        f"teacher {result.teacher}" + (f" (theirs: {', '.join(theirs)})" if theirs and result.teacher not in theirs else "")
    )
    told.append(f"trained on {result.trained_on}" if result.trained_on else "what it was trained on is not known")
    if result.leaks is None:
        told.append("not compared with what was trained on")
    elif not any(result.leaks.values()):
        told.append("nothing of it found among what was trained on")
    seeds = max(len(figure.values) for figure in result.figures.values())
    told.append("one seed" if seeds == 1 else f"{seeds} seeds")
    rest = {name: value for name, value in result.settings.items() if value is not None and name not in TOLD}
    told += [f"{name.replace('_', ' ')}: {_said(value)}" for name, value in rest.items()]
    return told


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(one)}" for name, one in value.items())
    return ", ".join(map(_said, value)) if isinstance(value, list | tuple) else str(value)


def percent(figure: Figure | None) -> str:
    """One decimal, with its spread over seeds; a dash for what is not there."""
    return _mean(figure) + _spread(figure).replace("±", " ± ")


def _mean(figure: Figure | None) -> str:
    return f"{100 * figure.mean:.1f}" if figure else "–"


def _spread(figure: Figure | None) -> str:
    return f"±{100 * figure.spread:.1f}" if figure and figure.spread is not None else ""


def markdown(results: Sequence[Result]) -> str:
    """As GitHub shows it."""
    return "\n\n".join(_markdown(one) for one in tables(results)) + "\n"


def _markdown(table: Table) -> str:
    heads = ["Method", "Saw", "Trained on", "Teacher", "Objects", *(name[0].upper() + name[1:] for name in table.columns), "Source"]
    numbers = [False] * 4 + [True] * (1 + len(table.columns)) + [False]
    lines = [f"## {table.title}", "", table.about, ""]
    lines += [line for warning in table.warnings for line in (f"> **{_escaped(warning)}**", ">")][:-1]
    lines += [""] * bool(table.warnings)
    lines += [f"| {' | '.join(heads)} |", f"| {' | '.join('---:' if right else '---' for right in numbers)} |"]
    for row in table.rows:
        cells = [
            f"{MARK} {row.method}" if row.ours else row.method + (f" ({row.parameters:g} M)" if row.parameters else ""),
            row.fed,
            row.trained_on,
            row.teacher,
            "–" if row.objects is None else f"{row.objects:,}",
            *(percent(row.figures.get(name)) for name in table.columns),
            "here" if row.ours else f"[{row.source}]",
        ]
        lines.append(f"| {' | '.join(f'**{_escaped(cell)}**' if row.ours else _escaped(cell) for cell in cells)} |")
    lines += ["", "How it was evaluated here:", ""]
    lines += [f"- **{_escaped(name)}**: {_escaped('; '.join(said))}" for name, said in table.differences]
    if table.sources:
        lines += ["", "Published:", ""] + [f"- [{number}] {source}" for number, source in enumerate(table.sources, 1)]
    return "\n".join(lines)


def _escaped(words: str) -> str:
    for sign in "\\|*_<>`[]":
        words = words.replace(sign, f"\\{sign}")
    return words


def text(results: Sequence[Result]) -> str:
    """For a terminal of 120 columns."""
    return "\n\n".join(_text(one) for one in tables(results))


def _text(table: Table) -> str:
    heads = [["", "method"], ["", "saw"], ["", "trained on"], ["", "objects"]]
    heads += [["", name] if " " not in name else name.split(" ", 1) for name in table.columns] + [["", "from"]]
    spread = {name: max(len(_spread(row.figures.get(name))) for row in table.rows) for name in table.columns}
    cells = [
        [
            f"{MARK} {row.method}" if row.ours else f"  {row.method}",
            row.fed,
            row.trained_on,
            "–" if row.objects is None else f"{row.objects:,}",
            *(_mean(row.figures.get(name)) + _spread(row.figures.get(name)).ljust(spread[name]) for name in table.columns),
            "here" if row.ours else f"[{row.source}]",
        ]
        for row in table.rows
    ]
    widths = [max(map(len, column)) for column in zip(*(head for head in zip(*heads, strict=True)), *cells, strict=True)]
    for place, least in LEAST.items():
        too_long = sum(widths) + 2 * (len(widths) - 1) - WIDTH
        widths[place] -= min(max(too_long, 0), max(widths[place] - least, 0))

    def line(row: Sequence[str]) -> str:
        fitted = [_cut(cell, width) for cell, width in zip(row, widths, strict=True)]
        justify = [str.ljust] * 3 + [str.rjust] * (len(widths) - 3)
        return "  ".join(side(cell, width) for side, cell, width in zip(justify, fitted, widths, strict=True)).rstrip()

    above, below = zip(*heads, strict=True)
    lines = [table.title, *_wrapped(table.about), *(line for warning in table.warnings for line in _wrapped(f"! {warning}", "  "))]
    lines += ["", *([line(above)] if any(above) else []), line(below), *map(line, cells), ""]
    for name, said in table.differences:
        lines += _wrapped(f"{MARK} {name}: {'; '.join(said)}", "  ")
    lines += [kept for number, source in enumerate(table.sources, 1) for kept in _wrapped(f"[{number}] {source}", "    ")]
    return "\n".join(lines)


def _cut(words: str, width: int) -> str:
    """What is too long without its end; the place of a corpus, without its beginning."""
    if len(words) <= width:
        return words
    return f"…{words[1 - width :]}" if "/" in words else f"{words[: width - 1]}…"


def _wrapped(words: str, indent: str = "") -> list[str]:
    return textwrap.wrap(words, WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def html(results: Sequence[Result]) -> str:
    """One page that needs nothing else: light and dark, for a phone, a desktop and paper; with the worst and the best classes."""
    return _page().render(tables=tables(results), mean=_mean, classes=_classes, longest=_longest)


def _longest(table: Table) -> float:
    """The largest first figure, by which the bars are drawn."""
    return max(row.figures[table.columns[0]].mean for row in table.rows if table.columns[0] in row.figures) or 1.0


def _classes(result: Result) -> list[tuple[str, list[tuple[str, float, int]]]]:
    """Lists of (class, share, objects) under their headings: the worst, the worst first, and the best, the best first; or, where
    they are few, all, the worst first, in two halves. Without classes that have no objects; nothing where they are not known."""
    found = [(name, share, objects) for name, (share, objects) in (result.per_class or {}).items() if objects]
    worst = sorted(found, key=lambda one: (one[1], -one[2], one[0]))  # of equals, those of the most objects
    best = sorted(found, key=lambda one: (-one[1], -one[2], one[0]))
    half = (len(found) + 1) // 2
    if half > SHOWN_CLASSES:
        return [("Worst", worst[:SHOWN_CLASSES]), ("Best", best[:SHOWN_CLASSES])]
    return [(heading, ones) for heading, ones in (("Class", worst[:half]), ("Class", worst[half:])) if ones]


@cache
def _page() -> jinja2.Template:
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(loader=folder, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template("table.html")
