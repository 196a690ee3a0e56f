"""Under which licences the objects are, what those allow, and whom to name.

What a licence allows is told from its SPDX id: a Creative Commons id says it itself (https://creativecommons.org/licenses/); for
the software licences that sources name it is as https://choosealicense.com/appendix has it; for collections that have none it is
what their terms are known to say. Of anything else it is not known. This is no legal advice, and a collection as a whole may have
terms of its own.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reports.funnel import by_count
from reports.scans import counts
from reports.section import Bar, Bars, Exhibit, Rows, Section, Tile, Tiles
from reports.spreads import percent, share_of
from schemas.corpus import Reader
from schemas.tables import OBJECTS

LICENCES_SHOWN = 40
CREATORS_SHOWN = 100  # in the page
CREATORS_KEPT = 1000  # among the figures; `attribution` has all
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Terms:
    """What a licence allows and asks for. None: not known."""

    commercial: bool | None = None  # use for money
    adapted: bool | None = None  # adaptations may be given on
    share_alike: bool | None = None  # and then only under the same licence
    named: bool | None = None  # the creator, or the notice of copyright, has to be named
    given_on: bool | None = None  # the work itself may be given to anyone


_FREE = Terms(commercial=True, adapted=True, share_alike=False, named=False, given_on=True)
_NOTICE = Terms(commercial=True, adapted=True, share_alike=False, named=True, given_on=True)
_COPYLEFT = Terms(commercial=True, adapted=True, share_alike=True, named=True, given_on=True)

TERMS = {
    **dict.fromkeys(("CC0-1.0", "Unlicense"), _FREE),
    **dict.fromkeys(("MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "ISC", "Zlib"), _NOTICE),
    **dict.fromkeys(("AGPL-3.0-only", "GPL-2.0-only", "GPL-3.0-only", "LGPL-2.1-only", "LGPL-3.0-only"), _COPYLEFT),
    **dict.fromkeys(("EPL-2.0", "MPL-2.0"), _COPYLEFT),
    # Research and education; to be given only to people who agreed to the same.
    "LicenseRef-ShapeNet": Terms(commercial=False, given_on=False),
    # Academic research; not to be passed on.
    "LicenseRef-3D-FUTURE": Terms(commercial=False, given_on=False),
}
_CREATIVE_COMMONS = re.compile(r"CC-BY((?:-(?:NC|ND|SA))*)-\d\.\d(?:-[A-Z]+)?")


def terms_of(license: str) -> Terms:
    """What a licence allows, by its SPDX id."""
    if found := _CREATIVE_COMMONS.fullmatch(license):
        said = found[1].split("-")
        adapted = "ND" not in said
        return Terms(commercial="NC" not in said, adapted=adapted, share_alike="SA" in said, named=True, given_on=True)
    return TERMS.get(license, Terms())


def licences(corpus: Reader, *, creators_shown: int = CREATORS_SHOWN, creators_kept: int = CREATORS_KEPT) -> Section:
    """The section on licences and creators: `creators_shown` of them in the page, `creators_kept` among the figures, those of most
    objects first."""
    objects = corpus.open(OBJECTS.name)
    by_source: dict[str, Counter[str]] = {}
    for row in counts(objects, ["source", "license"]).to_pylist():
        by_source.setdefault(row["source"], Counter())[row["license"]] = row["count"]
    mix = sum(by_source.values(), Counter())
    whole = mix.total()
    credits = attribution(corpus)
    names = pc.unique(credits["creator"]).drop_null()
    nameless = credits.filter(pc.is_null(credits["creator"]))
    figures: dict[str, Any] = {
        "objects": whole,
        **_shares(mix),
        "licences": {
            name: {"objects": count, "sources": {source: its[name] for source, its in by_source.items() if its[name]}}
            | vars(terms_of(name))
            for name, count in mix.most_common()
        },
        "sources": {
            source: {"objects": its.total(), **_shares(its), "licences": dict(its.most_common())}
            for source, its in sorted(by_source.items(), key=lambda pair: (-pair[1].total(), pair[0]))
        },
        "creators": len(names),
        "creators_of_half": _of_half(credits),
        "without_creator": pc.sum(nameless["objects"]).as_py() or 0,
        "nobody_to_name": sum(row["objects"] for row in nameless.to_pylist() if terms_of(row["license"]).named),
        "attribution": credits.slice(0, creators_kept).to_pylist(),
        "attribution_left_out": max(0, len(credits) - creators_kept),
    }
    figures["nobody_to_name_share"] = share_of(figures["nobody_to_name"], whole)
    if objects is None:
        figures = dict.fromkeys(figures)
    gates = (*(name for name in figures if name.endswith("_share")),)
    return Section(
        key="licences",
        title="Licences and creators",
        lead=_lead(figures, mix),
        figures=figures,
        gates={name: figures[name] for name in gates},
        warnings=tuple(_to_look_at(figures)) if whole else (),
        exhibits=tuple(_exhibits(figures, credits, creators_shown)) if whole else (),
    )


def attribution(corpus: Reader) -> pa.Table:
    """All creators, those of most objects first: `creator` (null: not known), `license`, `source`, and `objects`, of how many. Of a
    large corpus it is a file of its own: pyarrow.csv.write_csv(attribution(corpus), "attribution.csv")."""
    return counts(corpus.open(OBJECTS.name), ["creator", "license", "source"]).rename_columns(
        ["creator", "license", "source", "objects"]
    )


def _shares(mix: Counter[str]) -> dict[str, float | None]:
    """Shares of the objects by what their licences say. Those of which it is not known count in none but the last two."""
    whole = mix.total()

    def share(holds) -> float | None:
        return share_of(sum(count for name, count in mix.items() if holds(terms_of(name), name)), whole)

    return {
        "commercial_share": share(lambda terms, _: terms.commercial is True),
        "noncommercial_share": share(lambda terms, _: terms.commercial is False),
        "sharealike_share": share(lambda terms, _: terms.share_alike is True),
        "noderivatives_share": share(lambda terms, _: terms.adapted is False),
        "attribution_share": share(lambda terms, _: terms.named is True),
        "not_to_give_on_share": share(lambda terms, _: terms.given_on is False),
        "unclear_license_share": share(lambda terms, name: terms.commercial is None and name != UNKNOWN),
        "unknown_license_share": share(lambda _, name: name == UNKNOWN),
    }


def _of_half(credits: pa.Table) -> int | None:
    """How many creators made half of the objects whose creator is known."""
    known = credits.filter(pc.is_valid(credits["creator"]))
    if not len(known):
        return None
    each = known.group_by("creator").aggregate([("objects", "sum")]).sort_by([("objects_sum", "descending")])["objects_sum"]
    sums = pc.cumulative_sum(each).to_numpy()
    return int((sums < sums[-1] / 2).sum()) + 1


def _lead(figures: dict[str, Any], mix: Counter[str]) -> str:
    if not figures["objects"]:
        return "There is no table of objects." if figures["objects"] is None else "There are no objects."
    first, count = mix.most_common(1)[0]
    said = {
        "commercial_share": "may be used commercially",
        "noncommercial_share": "may not",
        "sharealike_share": "ask for the same licence in what is made of them",
        "unclear_license_share": "are under terms that nothing is known of here",
        "unknown_license_share": "say nothing of a licence",
    }
    parts = [f"{percent(figures[name])} {what}" for name, what in said.items() if figures[name] or name == "commercial_share"]
    many = f"{len(mix)} licences, most often {first} ({percent(count / figures['objects'])})" if len(mix) > 1 else f"All {first}"
    return f"{many}. Of the objects {', '.join(parts)}. {_people(figures)}"


def _people(figures: dict[str, Any]) -> str:
    if not figures["creators"]:
        return "No creator is known."
    return f"{figures['creators']:,} {'creator is' if figures['creators'] == 1 else 'creators are'} known."


def _to_look_at(figures: dict[str, Any]) -> Iterator[str]:
    def counted(name: str) -> str:
        return f"{round(figures[name] * figures['objects']):,} objects ({percent(figures[name])})"

    if figures["unknown_license_share"]:
        yield f"{counted('unknown_license_share')} say nothing of their licence: nothing may be assumed of them."
    if figures["not_to_give_on_share"]:
        yield f"{counted('not_to_give_on_share')} are under terms by which they may not be given on to anyone: do not publish them."
    if figures["noderivatives_share"]:
        counts = counted("noderivatives_share")
        yield f"{counts} allow no adaptations to be given on: ask somebody who knows the law whether views and points are such."
    if figures["nobody_to_name"]:
        yield f"{figures['nobody_to_name']:,} objects ask for their creator to be named, and none is known of them."


def _exhibits(figures: dict[str, Any], credits: pa.Table, creators_shown: int) -> Iterator[Exhibit]:
    tiles = [
        Tile("commercial use allowed", percent(figures["commercial_share"]), "of the objects"),
        Tile("non-commercial only", percent(figures["noncommercial_share"])),
        Tile("share-alike", percent(figures["sharealike_share"]), "what is made of them stays under their licence"),
        Tile("creator has to be named", percent(figures["attribution_share"]), f"{figures['creators']:,} creators known"),
    ]
    for name, label in (("unclear_license_share", "other terms"), ("unknown_license_share", "no licence known")):
        if figures[name]:
            tiles.append(Tile(label, percent(figures[name]), "", "bad"))
    yield Tiles(tuple(tiles))
    its = figures["licences"]
    rest = list(its.values())[LICENCES_SHOWN:]
    yield Bars(
        title="Licences",
        unit="objects",
        bars=tuple(Bar(name, one["objects"], by_count(one["sources"], 3)) for name, one in list(its.items())[:LICENCES_SHOWN]),
        of=figures["objects"],
        left_out=(len(rest), sum(one["objects"] for one in rest)),
    )
    yield Bars(
        title="By source",
        unit="objects",
        bars=tuple(
            Bar(source, one["objects"], by_count(one["licences"], 3), round(one["noncommercial_share"] * one["objects"]))
            for source, one in figures["sources"].items()
        ),
        part="not for commercial use",
    )
    yield Rows(
        title="What the licences allow and ask for",
        head=("licence", "objects", "%", "commercial use", "adaptations", "share-alike", "name the creator", "give on"),
        rows=tuple(
            (
                name,
                one["objects"],
                round(100 * one["objects"] / figures["objects"], 1),
                *(_said(one[what]) for what in ("commercial", "adapted", "share_alike", "named", "given_on")),
            )
            for name, one in list(its.items())[:LICENCES_SHOWN]
        ),
        note="By the ids alone; a collection as a whole may have terms of its own. Not legal advice.",
    )
    yield Rows(
        title="Creators",
        head=("creator", "objects", "licence", "has to be named", "source"),
        rows=tuple(
            (row["creator"] or "(not known)", row["objects"], row["license"], _said(terms_of(row["license"]).named), row["source"])
            for row in credits.slice(0, creators_shown).to_pylist()
        ),
        folded=True,
        note=f"The first {creators_shown:,} of {len(credits):,}, those of most objects; `report --attribution FILE.csv` lists all."
        if len(credits) > creators_shown
        else "",
    )


def _said(known: bool | None) -> str:
    return "?" if known is None else "yes" if known else "no"
