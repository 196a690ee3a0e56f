"""Captions from what the collection itself says of an object: its name, category, tags and description.

Each rule is the `model` of its captions:

name                     Sports Sedan
name and category        Sports Sedan, a car (automobile)
category and adjectives  a 3D model of a red car (automobile)
category                 a 3D model of a car (automobile); of what was photographed, a photo of a car
tags                     Castle, medieval, stone, moat
description              its first good sentences

Nothing is invented: every word is the collection's own or one of `templates.FRAME_WORDS`. What is not fit stays, with the reason.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from html.parser import HTMLParser
from itertools import islice
from typing import Any, ClassVar

from captions import templates
from captions.filters import category_fault, name_fault, same_text, sentence_fault, words
from captions.names import UNSPOKEN, clean_category, clean_name, clean_tag, is_one_of_several, is_shelf, without_brand
from pipeline.stage import ObjectError, Row, Task, Work, one_by_one, settings_of
from schemas.tables import CAPTIONS

# How much of a description is looked at: what says something about the object comes first, or not at all.
_CHARACTERS_READ = 20_000
_SENTENCES_READ = 10


@dataclass(frozen=True, kw_only=True)
class CaptionMetadata:
    """Captions of origin "metadata". An object that has texts of which none is fit gets only captions that are not kept."""

    name: ClassVar = "caption"
    version: ClassVar = 2
    reads: ClassVar = "objects"
    per: ClassVar = "object_id"
    columns: ClassVar = ("object_id", "name", "categories", "tags", "description", "asset_format")
    depends: ClassVar = ("name", "categories", "tags", "description", "asset_format")
    where: ClassVar = "asset_format <> 'npy'"  # of an import, the texts come along
    writes: ClassVar = CAPTIONS
    batch: ClassVar = 4096
    cpus: ClassVar = 1.0
    gpus: ClassVar = 0.0

    categories: int = 3  # most categories that become captions
    tags: int = 5  # most tags in a caption
    sentences: int = 2  # most sentences of the description that are kept

    def settings(self) -> dict[str, Any]:
        return settings_of(self)

    def start(self) -> Work:
        return one_by_one(self.name, self.captions)

    def captions(self, task: Task) -> list[Row]:
        """Rows of CAPTIONS, the kept ones first. Raises ObjectError("no_text") for an object of which nothing is said."""
        [about] = task.rows
        found: list[Candidate] = []
        seen: set[str] = set()
        for candidate in self._candidates(about):
            same = same_text(candidate.text)
            if same in seen:
                candidate = Candidate(candidate.rule, candidate.text, "duplicate")
            if candidate.fault is None:
                seen.add(same)
            found.append(candidate)
        if not found:
            raise ObjectError(
                "no_text", "the collection gives no name, no description, and no category or tag that says what the object is"
            )
        found.sort(key=lambda candidate: candidate.fault is not None)
        return [
            {
                "object_id": task.id,
                "origin": "metadata",
                "caption": number,
                "text": candidate.text,
                "text_sha256": hashlib.sha256(candidate.text.encode()).hexdigest(),
                "model": candidate.rule,
                "kept": candidate.fault is None,
                "dropped_because": candidate.fault,
                "score": None,
            }
            for number, candidate in enumerate(found)
        ]

    def _candidates(self, about: Row) -> Iterator["Candidate"]:
        name = None
        if about["name"]:
            cleaned = clean_name(about["name"])
            fault = name_fault(cleaned) if cleaned else name_fault(about["name"]) or "filename_noise"
            yield Candidate("name", about["name"] if fault else cleaned, fault)
            name = None if fault else cleaned
        kinds: list[str] = []
        for category in [category for category in about["categories"] if not is_shelf(category)][: self.categories]:
            if fault := category_fault(kind := clean_category(category)):
                yield Candidate("category", category, fault)
            elif not (kinds and is_one_of_several(kind)):  # cabinet, shelf or desk says nothing after shelf
                kinds.append(kind)
        tags = list(dict.fromkeys(tag for raw in about["tags"] if (tag := clean_tag(raw))))
        known = {word for text in [name or "", *about["categories"]] for word in words(text)}
        photographed = about["asset_format"] == "photos"
        for kind in kinds:
            if name and not (_says_the_same(name, kind) or is_one_of_several(kind)):
                yield Candidate("name and category", templates.name_and_kind(name, kind))
            if adjectives := _adjectives(name, kind, tags):
                text = templates.model_of(kind, adjectives, photographed=photographed)
                yield Candidate("category and adjectives", text)
            yield Candidate("category", templates.model_of(kind, photographed=photographed))
        new = [tag for tag in tags if not known.issuperset(words(tag))][: self.tags]
        if len(new) > 1 or (new and not name and not kinds):
            yield Candidate("tags", templates.keywords(name or next(iter(kinds), None), new))
        kept = 0
        for sentence in islice(sentences_of(about["description"] or ""), _SENTENCES_READ):
            fault = sentence_fault(sentence)
            yield Candidate("description", sentence, fault)
            kept += fault is None
            if kept == self.sentences:
                return


@dataclass(frozen=True)
class Candidate:
    """A text that may become a caption: the rule that made it, and why it is not kept (None: it is)."""

    rule: str
    text: str
    fault: str | None = None


def _says_the_same(name: str, kind: str) -> bool:
    """Whether the category is in the name already, perhaps spelt otherwise: Donut and doughnut, Cherries and cherry."""
    bare, _, meaning = kind.partition(" (")
    here, there = set(words(name)), set(words(bare))
    if here <= there or there <= here or same_text(bare) in same_text(name) or here & set(words(meaning)):
        return True
    return any(SequenceMatcher(None, word, same_text(bare)).ratio() > 0.65 for word in words(name))


def _adjectives(name: str | None, kind: str, tags: list[str]) -> list[str]:
    """The tags that are adjectives of the category. One that the name has too may be about another word of it (an iron man, white
    wine), unless the category holds all of those."""
    others = set(words(name or "")) - set(words(kind))
    return [tag for tag in templates.in_order(tags) if tag not in words(kind) and (tag not in others or others == {tag})]


def sentences_of(description: str) -> Iterator[str]:
    """The sentences of a description, without markup: HTML, Markdown links, list marks and pictures."""
    text = re.sub(r"!?\[([^\[\]]*)\]\([^()]*\)", r"\1", _text_of_html(description[:_CHARACTERS_READ]))
    text = re.sub(r"\*\*|__|`", "", unicodedata.normalize("NFC", text))
    for line in text.splitlines():
        for sentence in _SENTENCE_END.split(without_brand(line)):
            sentence = "".join(" " if unicodedata.category(c) in UNSPOKEN else c for c in sentence)
            sentence = re.sub(r"\bmisc\b\.?", " ", sentence)
            sentence = re.sub(r"\s+", " ", sentence).strip(" -–—*•·#>=~|\t")
            if sentence:
                yield sentence


# A stop before a capital letter, but not after an initial or an abbreviated title.
_SENTENCE_END = re.compile(r"(?<=[.!?…])(?<!\b[A-Z]\.)(?<!\b(?:St|Dr|Mr|Ms|No|ca)\.)(?<!\bMrs\.)\s+(?=[^\W\d_a-z])")


class _Text(HTMLParser):
    """Collects the text of HTML; tags that begin a line in a browser begin one here."""

    LINES = frozenset("p br div li ul ol tr table h1 h2 h3 h4 h5 h6 blockquote hr".split())

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.silent = 0

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.silent += tag in ("script", "style")
        if tag in self.LINES:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.silent -= tag in ("script", "style") and self.silent > 0
        if tag in self.LINES:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.parts.append(data)


def _text_of_html(html: str) -> str:
    parser = _Text()
    parser.feed(html)
    parser.close()
    return "".join(parser.parts)
