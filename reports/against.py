"""A report of a corpus against another one, or against itself as it was: what changed, and both sides' numbers in its charts."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reports.changes import ObjectChange, TableChange, object_changes, settings_changes, table_changes
from reports.gate import Figure, figures
from reports.moved import LEVEL, REST, Moved, aligned, distributions, pairs, surely_moved
from reports.section import Bar, Bars, Exhibit, Histogram, Rows, Section, Tile, Tiles
from reports.spreads import number_of, percent
from schemas.corpus import Reader

FAR = 0.05  # distance from which on a distribution that moved is worth a warning
WARNED = 5  # distributions
MOST_SERIES = 2  # of each side, in one chart
LONGEST = 60  # letters of a setting's value
NAMED = 4  # objects in a warning
BEFORE = "before"  # in charts, for what the report is against
WORDS = {"added": "came", "removed": "went", "changed": "changed", "assets": "have other files"}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that was found. `told`: what it is against; `settings`: see settings_changes; `moved`: see surely_moved; `figures`: gates
    by name, now and then."""

    told: str
    objects: ObjectChange
    tables: dict[str, TableChange]
    settings: Sequence[tuple[str, str, str, Any, Any]]
    moved: Sequence[tuple[Moved, bool]]
    figures: dict[str, tuple[Figure, Figure]]


def against(
    ours: Sequence[Section], theirs: Sequence[Section], *, corpus: Reader, other: Reader, told: str, seed: int = 0
) -> tuple[Section, ...]:
    """What changed from `other` to `corpus`, and then our sections with the other's numbers in their charts. `ours`, `theirs`: the
    sections of the two; `told`: the other's name, short."""
    before = {section.key: section for section in theirs}
    now, then = figures(ours), figures(theirs)
    found = Comparison(
        told=told,
        objects=object_changes(corpus, other, seed=seed),
        tables=table_changes(corpus, other),
        settings=settings_changes(corpus, other),
        moved=surely_moved(
            [one for section in ours if section.key in before for one in distributions(section, before[section.key])]
        ),
        figures={name: (now[name], then.get(name)) for section in ours for name in section.gates},
    )
    return (what_changed(found), *(_beside(section, before.get(section.key)) for section in ours))


def _beside(ours: Section, theirs: Section | None) -> Section:
    """A section with the other's numbers in its figures, bars and histograms."""
    if theirs is None:
        return ours
    shown: list[Exhibit] = []
    for mine, other in pairs(ours, theirs):
        match mine, other:
            case Histogram(), Histogram():
                shown += _overlaid(mine, other)
            case Bars(), Bars():
                shown.append(_noted(mine, other))
            case Tiles(), _:
                before = {tile.label: tile.value for one in theirs.exhibits if isinstance(one, Tiles) for tile in one.tiles}
                shown.append(Tiles(tuple(_tile(tile, before.get(tile.label)) for tile in mine.tiles)))
            case _:
                shown.append(mine)
    return replace(ours, exhibits=tuple(shown))


def _overlaid(mine: Histogram, other: Histogram) -> list[Histogram]:
    if mine.edges != other.edges or len(mine.series) > MOST_SERIES:
        return [mine, replace(other, title=f"{other.title}, {BEFORE}", shares=mine.shares)]
    theirs = {f"{name}, {BEFORE}": counts for name, counts in other.series.items()}
    return [replace(mine, series=mine.series | theirs, shares=True)]


def _noted(mine: Bars, other: Bars) -> Bars:
    both = aligned(mine, other)
    wholes = [side.of or sum(bar.count for bar in side.bars) + side.left_out[1] for side in (mine, other)]

    def noted(bar: Bar) -> Bar:
        if bar.name not in both:
            return bar
        count = both[bar.name][1]
        share = f" ({percent(count / wholes[1])})" if wholes[1] else ""
        return replace(bar, note="; ".join(filter(None, [bar.note, f"{BEFORE} {count:,}{share}"])))

    gone = [Bar(name, 0) for name in both if name not in {REST, *(bar.name for bar in mine.bars)}]
    return replace(mine, bars=tuple(noted(bar) for bar in [*mine.bars, *gone]))


def _tile(tile: Tile, before: str | None) -> Tile:
    if before is None:
        return tile
    return replace(
        tile, note="; ".join(filter(None, [tile.note, f"{BEFORE} {before}" if before != tile.value else f"as {BEFORE}"]))
    )


def what_changed(found: Comparison) -> Section:
    """The section on what changed."""
    objects, counts = found.objects, found.objects.counts()
    common = objects.now - counts["added"]
    shares = {
        "objects_added_share": counts["added"] / objects.now if objects.now else None,
        "objects_removed_share": counts["removed"] / objects.before if objects.before else None,
        "objects_changed_share": counts["changed"] / common if common else None,
        "moved_distributions": sum(surely for _, surely in found.moved),
    }
    return Section(
        key="changed",
        title="What changed",
        lead=_lead(found),
        figures={
            "against": found.told,
            "objects": {"now": objects.now, "before": objects.before, **counts, "by_source": objects.by_source},
            **shares,
            "tables": {name: vars(change) for name, change in found.tables.items()},
            "settings": [dict(zip(("table", "stage", "setting", "now", "before"), one, strict=True)) for one in found.settings],
            "distributions": {one.name: _figures(one, surely) for one, surely in found.moved},
            "gates": {name: {"now": now, "before": before} for name, (now, before) in found.figures.items()},
        },
        gates=shares,
        warnings=_warnings(found),
        exhibits=tuple(_exhibits(found)),
    )


def _figures(one: Moved, surely: bool) -> dict[str, Any]:
    p = None if one.log_p is None else math.exp(one.log_p)
    return {"distance": one.distance, "p": p, "moved": surely, "counts": one.counts, "counts_before": one.counts_before}


def _lead(found: Comparison) -> str:
    objects, counts, told = found.objects, found.objects.counts(), found.told
    if not (counts["added"] or counts["removed"] or counts["changed"]):
        came = f"The {number_of(objects.now, 'object')} are those of {told}, and none has changed."
    else:
        came = (
            f"Against {told}, {number_of(counts['added'], 'object')} came, {counts['removed']:,} went, and {counts['changed']:,} "
            f"changed ({counts['assets']:,} of them have other files): {objects.before:,} then, {objects.now:,} now."
        )
    surely = [one for one, yes in found.moved if yes]
    if not surely:
        return f"{came} None of {number_of(len(found.moved), 'distribution')} moved beyond what chance explains."
    return f"{came} {len(surely):,} of {number_of(len(found.moved), 'distribution')} moved; most surely, {surely[0].name}."


def _warnings(found: Comparison) -> tuple[str, ...]:
    said = []
    if gone := found.objects.counts()["removed"]:
        named = found.objects.examples["removed"][:NAMED]
        more = " …" if gone > len(named) else ""
        said.append(f"{number_of(gone, 'object')} of {found.told} not here any more: {', '.join(named)}{more}")
    if found.settings:
        said.append(
            f"{number_of(len(found.settings), 'setting')} not as in {found.told}: rows made with these and with those may be "
            "unlike."
        )
    far = [one for one, surely in found.moved if surely and one.distance >= FAR]
    said += [f"{one.name}: moved by {percent(one.distance)} against {found.told} (p = {_p(one)})." for one in far[:WARNED]]
    return tuple(said)


def _exhibits(found: Comparison) -> Iterator[Exhibit]:
    objects, counts = found.objects, found.objects.counts()
    yield Tiles(
        tuple(
            Tile(f"objects {word}", f"{counts[what]:,}", tone="bad" if what == "removed" and counts[what] else "plain")
            for what, word in WORDS.items()
        )
    )
    yield Rows(
        title="Objects by source",
        head=("source", *WORDS.values()),
        rows=tuple((source, *(counted[what] for what in WORDS)) for source, counted in objects.by_source.items()),
        note="Changed: another asset, other metadata, or ingested with other settings. Here and in all that follows, "
        f"“{BEFORE}” is {found.told}.",
    )
    if any(objects.examples.values()):
        yield Rows(
            title="Some of these objects",
            head=("what became of it", "object"),
            rows=tuple((word, id) for what, word in WORDS.items() for id in objects.examples[what]),
            folded=True,
        )
    yield Rows(
        title="Tables",
        head=("table", "rows now", f"rows {BEFORE}", "new", "gone", "made anew", "as they were"),
        rows=tuple(
            (name, one.rows, one.rows_before, one.added, one.removed, one.remade, one.same) for name, one in found.tables.items()
        ),
        note="New, gone, made anew: objects (captions and failures: objects of each stage; texts and class names of teachers), not "
        "rows. Made anew: from another input, with other settings or other code.",
    )
    if found.settings:
        yield Rows(
            title="Settings that differ",
            head=("table", "stage", "setting", "now", BEFORE),
            rows=tuple((table, stage, name, _text(now), _text(before)) for table, stage, name, now, before in found.settings),
        )
    yield Rows(
        title="Distributions, the most surely moved first",
        head=("distribution", "moved", "distance", "p", "counted now", f"counted {BEFORE}"),
        rows=tuple(
            (
                one.name,
                "yes" if surely else "no" if one.log_p is not None else "not tested",
                None if one.distance is None else round(one.distance, 4),
                _p(one),
                one.counts,
                one.counts_before,
            )
            for one, surely in found.moved
        ),
        note="Distance: share that would have to lie in another bin for the two to be alike (total variation). p: of Pearson's "
        "chi-squared test that both are of one distribution, not asked of too few counts; moved: p below "
        f"{LEVEL} after Holm's correction for all of these tests. Many counts make small differences sure, so look at the distance "
        "too; and views of one object are alike, which the test does not know.",
    )
    yield Rows(
        title="Figures",
        head=("figure", "now", BEFORE, "difference"),
        rows=tuple((name, now, before, _difference(now, before)) for name, (now, before) in found.figures.items()),
        folded=True,
    )


def _difference(now: Figure, before: Figure) -> Figure:
    return None if now is None or before is None else now - before


def _p(one: Moved) -> str:
    if one.log_p is None:
        return "–"
    exponent = one.log_p / math.log(10)
    return f"{math.exp(one.log_p):.2g}" if exponent > -300 else f"1e{exponent:.0f}"


def _text(value: Any) -> str:
    text = "–" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
