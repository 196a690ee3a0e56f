"""The dataset card of a corpus, README.md as the Hugging Face hub wants it: a YAML header, and the report's figures in words.

Header: https://github.com/huggingface/hub-docs/blob/main/datasetcard.md; licences: https://huggingface.co/docs/hub/repositories-licenses.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from reports.section import Section
from reports.storage import size_text

# The hub's ids of licences that objects, pictures, texts and code come under; they are SPDX ids in lower case, or nearly so.
HUB_LICENCES = frozenset(
    "apache-2.0 mit afl-3.0 artistic-2.0 bsl-1.0 bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc0-1.0 cc-by-2.0 cc-by-2.5 "
    "cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 "
    "cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 "
    "wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 agpl-3.0 gpl-2.0 gpl-3.0 lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 "
    "osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib unknown".split()
)
OTHER_SPELLING = {"odc-by-1.0": "odc-by", "odbl-1.0": "odbl", "pddl-1.0": "pddl"}
MIXED = "mixed-see-below"
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")
TAGS = ("lance", "3d", "point-cloud", "multi-view", "captions", "clip", "tricorpus")
WHAT = {
    "objects": "one row per object: source, asset hash, licence, creator, names, categories, tags",
    "views": "one row per picture: encoded RGBA, intrinsics, camera to world, quality measures",
    "points": "one row per object: 10,000 points with colours, and the way from the asset's coordinates to the canonical frame",
    "maps": "one row per picture: depth, normals, which points it sees",
    "captions": "one row per caption: text, origin, whether it is for training and if not, why",
    "splits": "lists of objects by name, with labels where they are classes",
    "failures": "one row per object and stage that failed: reason, message, log",
    "runs": "one row per run of stages: when, how long, with what",
    "image_embeddings": "one row per object: a teacher's embeddings of its views",
    "text_embeddings": "one row per distinct text: a teacher's embedding",
    "class_embeddings": "one row per class name: a teacher's classifier",
    "shape_embeddings": "one row per object: a vector to look it up by",
}
LANGUAGES = {  # ISO 639-1, by the names that the section on captions has
    "English": "en",
    "German": "de",
    "French": "fr",
    "Spanish": "es",
    "Italian": "it",
    "Portuguese": "pt",
    "Dutch": "nl",
}
SPOKEN = 0.01  # share of the captions of known language from which on it is one of the corpus' languages
ABOVE = ("overview", "funnel", "failures", "licences", "categories")
TOLD = ("captions", "views", "points", "embeddings", "duplicates")  # sections that are told by their first sentences


def dataset_card(sections: Sequence[Section], *, name: str, root: str) -> str:
    """The card as Markdown, from all sections of a report. `name`: the corpus', as people call it; `root`: where it is, which is
    left out of the card: nobody else has that place."""
    by_key = {section.key: section for section in sections}
    data = DatasetCardData(
        pretty_name=name,
        **license_of(by_key["licences"].figures["licences"] or {}),
        language=languages_of(by_key["captions"].figures["languages"] or {}) or None,
        size_categories=size_category(by_key["overview"].figures["objects"] or 0),
        tags=list(TAGS),
        source_datasets=["original"],
        task_categories=["text-to-3d", "image-to-3d"],
        configs=_configs(by_key["overview"].figures["tables"]),
    )
    return str(DatasetCard("\n".join(["---", data.to_yaml(), "---", "", *_body(by_key, name)]).replace(root, "ROOT") + "\n"))


def license_of(mix: dict[str, Any]) -> dict[str, str]:
    """`license` of the header, and `license_name` where the hub has no id for it: one licence for all objects, or "other"."""
    if not mix:
        return {"license": "unknown"}
    if len(mix) > 1:
        return {"license": "other", "license_name": MIXED}
    [spdx] = mix
    id = re.sub(r"-(only|or-later)$", "", spdx.lower())
    id = OTHER_SPELLING.get(id, id)
    if id in HUB_LICENCES or id in OTHER_SPELLING.values():
        return {"license": id}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", id.removeprefix("licenseref-"))}


def languages_of(captions: dict[str, int]) -> list[str]:
    """Languages of the header, the most frequent first: `captions` by the name of their language."""
    known = {LANGUAGES[name]: count for name, count in captions.items() if name in LANGUAGES}
    whole = sum(known.values())
    return [id for id, count in sorted(known.items(), key=lambda pair: -pair[1]) if count and count >= SPOKEN * whole]


def size_category(objects: int) -> str:
    """The hub's class of so many objects."""
    return SIZES[min(sum(objects >= 1000 * 10**step for step in range(len(SIZES))), len(SIZES) - 1)]


def _configs(tables: dict[str, Any]) -> list[dict[str, Any]]:
    """What the hub shows and `datasets` loads by name: tables that are not a teacher's, objects first."""
    plain = sorted((table for table in tables if "/" not in table), key=lambda table: (table != "objects", table))
    return [
        {"config_name": table, "data_files": f"{table}.lance/**"} | ({"default": True} if table == "objects" else {})
        for table in plain
    ]


def _body(by_key: dict[str, Section], name: str) -> Iterator[str]:
    overview, licences, funnel = (by_key[key].figures for key in ("overview", "licences", "funnel"))
    yield f"# {_safe(name)}"
    yield ""
    yield _safe(by_key["overview"].lead)
    yield ""
    yield (
        "A tri-modal corpus of 3D objects, made by tricorpus: points, pictures from known cameras, captions, and CLIP embeddings "
        "of pictures and captions, as [Lance](https://lance.org) tables. Every column says in its own metadata (`doc`) what it "
        "means, in which unit and frame."
    )
    yield from ("", "## Tables", "")
    sizes = by_key["storage"].figures["tables"]
    yield from _table(
        ("table", "rows", "size", "what it holds"),
        [
            (f"`{table}`", one["rows"], size_text(sizes[table]["live_bytes"]), WHAT.get(table.partition("/")[0], ""))
            for table, one in overview["tables"].items()
        ],
    )
    yield from ("", "## Loading", "")
    yield from _loading(overview)
    yield from ("", "## Where the objects come from", "")
    yield _safe(by_key["funnel"].lead)
    yield ""
    yield from _table(
        ("source", "objects named", "complete", "formats"),
        [
            (source, one["named"], one["complete"], ", ".join((overview["sources"] or {}).get(source, {}).get("formats", {})))
            for source, one in (funnel["sources"] or {}).items()
        ],
    )
    yield from ("", "## Licences", "")
    yield _safe(by_key["licences"].lead)
    yield ""
    yield (
        "Each object keeps the licence that it came with: columns `license` and `creator` of the table `objects`. None covers the "
        "corpus as a whole."
    )
    yield ""
    yield from _table(
        ("licence", "objects", "commercial use", "share-alike", "name the creator"),
        [
            (license, one["objects"], *(_yes(one[what]) for what in ("commercial", "share_alike", "named")))
            for license, one in (licences["licences"] or {}).items()
        ],
    )
    for key in TOLD:
        if key in by_key:
            yield from ("", f"## {by_key[key].title}", "", _safe(by_key[key].lead))
    yield from ("", "## How it was made", "")
    yield from _made(overview)
    warnings = [warning for key in (*ABOVE, *TOLD) if key in by_key for warning in by_key[key].warnings]
    if warnings:
        yield from ("", "## Known gaps", "", *(f"- {_safe(warning)}" for warning in warnings))


def _loading(overview: dict[str, Any]) -> Iterator[str]:
    yield "```python"
    yield "import lance  # pip install pylance"
    yield ""
    yield 'root = "hf://datasets/OWNER/NAME"  # or the folder that it was downloaded to'
    yield 'objects = lance.dataset(f"{root}/objects.lance")'
    yield 'objects.to_table(columns=["object_id", "name", "license"], filter="license = \'CC0-1.0\'", limit=10)'
    if "points" in overview["tables"]:
        yield ""
        yield 'points = lance.dataset(f"{root}/points.lance").take([0])'
        yield 'xyz = points["xyz"][0].values.to_numpy(zero_copy_only=False).reshape(-1, 3)  # +y up, +z to the front'
    yield "```"


def _made(overview: dict[str, Any]) -> Iterator[str]:
    if overview["teachers"]:
        yield from _table(
            ("teacher", "numbers", "weights (SHA-256)"),
            [(f"`{name}`", one["dim"], one["weights_sha256"]) for name, one in overview["teachers"].items()],
        )
        yield ""
    yield from _table(
        ("stage", "writes", "version of its code"),
        [
            (stage, f"`{table}`", made.get("version"))
            for table, one in overview["tables"].items()
            for stage, made in one["made_by"].items()
        ],
    )
    yield ""
    yield "The settings of each stage stand in the schema metadata of the table that it writes (`made_by`, JSON)."


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(f'{cell:,}' if isinstance(cell, int) else _safe(cell or '–') for cell in row)} |"


def _yes(allowed: bool | None) -> str:
    return "not known" if allowed is None else "yes" if allowed else "no"


def _safe(text: str) -> str:
    """A text of one line that is no markup of a table, a link or HTML."""
    text = " ".join(text.split())
    return re.sub(r"([|<\[\]])", r"\\\1", text)
