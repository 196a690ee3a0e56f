"""Amazon Berkeley Objects as they are published (https://amazon-berkeley-objects.s3.amazonaws.com/index.html):

3dmodels/metadata/3dmodels.csv.gz       3dmodel_id,path,...; without it, what lies in 3dmodels/original/ counts
3dmodels/original/9/B075QFCHM9.glb
listings/metadata/listings_0.json.gz    one product per line, texts in many languages; ..._1 to ..._f; may be absent
images/metadata/images.csv.gz           image_id,height,width,path; may be absent
images/small/44/4463cb9c.jpg            or images/original/; what was not downloaded is known by its address
LICENSE-CC-BY-4.0.txt                   or CC-BY-NC-4.0, as the terms were when the archive was made
abo_classes_3d.txt                      "B07Y5Y1262,table", of github.com/jazcollins/amazon-berkeley-objects; may be absent
asked-for.txt                           ids, of a download of a part: of what is not on disk only these count; without it, all

Only English is taken, en_US before the English of other places. Several products may share a model (mostly in other colours); the
one whose id is the model's goes first. Its name is the object's; other names are the first lines of the description, before what
the products say of themselves, so that captions are made of each. Colour, material and style are the first product's that has any.

Lines that cannot be read are left out. It is not known whose they were, so that all objects of such a file, and those without a
product, get the warning bad_metadata_lines.
"""

import functools
import json
import posixpath
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import fsspec

from pipeline.assets.asset import stamps_in
from pipeline.sources.asked_for import asked_for
from pipeline.sources.listing import files_in, folders_in, home_of, read_rows, unreadable
from pipeline.sources.record import SPDX, record
from pipeline.stage import Row

ADDRESS = "https://amazon-berkeley-objects.s3.amazonaws.com"
CREATOR = "Amazon.com"  # whom the licence wants named, for all images and models

_MODELS = "3dmodels/original"


@dataclass
class Product:
    """What the listings say of a model, all in English."""

    names: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)  # description, then its points
    types: list[str] = field(default_factory=list)
    tags: dict[str, list[str]] = field(default_factory=dict)  # colour, material, style
    image: str | None = None
    file_is_bad: bool = False  # a file with one of its listings has lines that cannot be read


@dataclass(frozen=True)
class Abo:
    """The folder of ABO, or the folder above it. What is on disk comes first; what is listed but absent, last."""

    name: str
    root: str

    def __post_init__(self) -> None:
        self._home()

    def records(self) -> Iterator[Row]:
        """Every model. The listings are read line by line before the first record; what they say of models stays in memory."""
        home = self._home()
        products, bad = _products(home)
        paths = {row["3dmodel_id"]: row["path"] for row in read_rows(f"{home}/3dmodels/metadata/3dmodels.csv.gz", _COLUMNS)}
        image_paths = _image_paths(home, {product.image for product in products.values()})
        classes = _classes(home)
        license = _license(home)
        pictures = _Pictures(home)

        def made(id: str, path: str, stamp: str | None) -> Row:
            product = products.get(id)
            warnings = {
                "metadata_missing": product is None,
                "no_english_text": product is not None and not product.names,
                "bad_metadata_lines": product.file_is_bad if product else bad,
            }
            told = product or Product()
            return record(
                source=self.name,
                source_id=id,
                asset_uri=f"{home}/{_MODELS}/{path}",
                asset_stamp=stamp,
                name=next(iter(told.names), None),
                categories=_categories([*classes.get(id, ()), *told.types]),
                tags=list(dict.fromkeys(value for values in told.tags.values() for value in values)),
                description="\n".join([*told.names[1:], *told.texts]),
                license=license,
                creator=CREATOR,
                thumbnail_uri=pictures.place_of(image_paths.get(told.image)),
                warnings=[name for name, is_so in warnings.items() if is_so],
            )

        there = set()
        for folder in folders_in(f"{home}/{_MODELS}"):
            for file, stamp in stamps_in(f"{home}/{_MODELS}/{folder}").items():
                id, extension = posixpath.splitext(file)
                if extension == ".glb":
                    there.add(id)
                    yield made(id, f"{folder}/{file}", stamp)
        asked = asked_for(home)
        for id in dict.fromkeys([*paths, *products]):
            if id not in there and (asked is None or id in asked):
                yield made(id, paths.get(id) or f"{id[-1]}/{id}.glb", None)

    def _home(self) -> str:
        home = home_of(self.root, lambda folder: bool(folders_in(f"{folder}/3dmodels")))
        if home is None:
            raise ValueError(
                f"{self.root} has no folder 3dmodels, so it holds no Amazon Berkeley Objects: give the folder with "
                "3dmodels/ and listings/, in which abo-3dmodels.tar and abo-listings.tar were unpacked"
            )
        return home


_COLUMNS = ("3dmodel_id", "path")


class _Pictures:
    """Where the pictures are: here, small ones if possible, or else at the collection's own address."""

    def __init__(self, home: str) -> None:
        self._sizes = [f"{home}/images/{size}" for size in ("small", "original") if folders_in(f"{home}/images/{size}")]
        self._names = functools.cache(lambda folder: frozenset(files_in(folder)))

    def place_of(self, path: str | None) -> str | None:
        """Place of a picture by its path in the list of pictures; each folder is listed once."""
        if path is None:
            return None
        folder, name = posixpath.split(path)
        here = (f"{size}/{path}" for size in self._sizes if name in self._names(f"{size}/{folder}"))
        return next(here, f"{ADDRESS}/images/small/{path}")


def _products(home: str) -> tuple[dict[str, Product], bool]:
    """What the listings say of each model, and whether any line of any file cannot be read."""
    own: dict[str, list[tuple[dict[str, Any], bool]]] = {}
    any_bad = False
    for name in files_in(f"{home}/listings/metadata"):
        if re.fullmatch(r"listings_\w+\.json(\.gz)?", name):
            found, bad = _listings(f"{home}/listings/metadata/{name}")
            any_bad |= bad
            for listing in found:
                own.setdefault(listing["3dmodel_id"], []).append((listing, bad))
    return {id: _product(id, listings) for id, listings in own.items()}, any_bad


def _listings(uri: str) -> tuple[list[dict[str, Any]], bool]:
    """The parts that count of the listings with a model, and whether there are lines that cannot be read.

    Nineteen of twenty listings have no model. They are known without being parsed, and cut ones by their last letter.
    """
    found, bad = [], False
    try:
        with fsspec.open(uri, "rb", compression="infer") as file:
            for line in file:
                line = line.removeprefix(b"\xef\xbb\xbf").strip()
                if not line:
                    continue
                if b'"3dmodel_id"' not in line and line.startswith(b"{") and line.endswith(b"}"):
                    continue
                try:
                    listing = json.loads(line)
                except (ValueError, RecursionError):
                    bad = True
                    continue
                if isinstance(listing, dict) and isinstance(id := listing.get("3dmodel_id"), str) and _ID.fullmatch(id):
                    found.append({key: listing[key] for key in _KEYS if key in listing})
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(uri, error) from error
    return found, bad


_ID = re.compile(r"[\w-]+")  # part of a path
_TAGS = ("color", "material", "style")
_KEYS = ("3dmodel_id", "item_id", "main_image_id", "item_name", "product_type", "product_description", "bullet_point", *_TAGS)


def _product(id: str, listings: list[tuple[dict[str, Any], bool]]) -> Product:
    in_order = [listing for listing, _ in sorted(listings, key=lambda item: item[0].get("item_id") != id)]

    def all_of(key: str) -> list[str]:
        return list(dict.fromkeys(text for listing in in_order for text in _english(listing.get(key))))

    types = [item.get("value") for listing in in_order for item in _items(listing.get("product_type"))]
    return Product(
        names=all_of("item_name"),
        texts=[*all_of("product_description"), *all_of("bullet_point")],
        types=list(dict.fromkeys(text for text in types if isinstance(text, str) and text.strip())),
        tags={key: next((texts for listing in in_order if (texts := _english(listing.get(key)))), []) for key in _TAGS},
        image=next((image for listing in in_order if isinstance(image := listing.get("main_image_id"), str)), None),
        file_is_bad=any(bad for _, bad in listings),
    )


def _english(values: Any) -> list[str]:
    """The English texts of a list of {language_tag, value}, those of the United States first."""
    texts = [
        (tag != "en_US", value.strip())
        for item in _items(values)
        if isinstance(tag := item.get("language_tag"), str) and re.match(r"en([_-]|$)", tag)
        if isinstance(value := item.get("value"), str) and value.strip()
    ]
    return [value for _, value in sorted(texts, key=lambda text: text[0])]


def _items(values: Any) -> list[dict[str, Any]]:
    return [item for item in values if isinstance(item, dict)] if isinstance(values, list) else []


def _image_paths(home: str, wanted: set[str | None]) -> dict[str | None, str]:
    rows = read_rows(f"{home}/images/metadata/images.csv.gz", ("image_id", "path"))
    return {row["image_id"]: row["path"] for row in rows if row["image_id"] in wanted}


def _classes(home: str) -> dict[str, list[str]]:
    """The class of each model, as people sorted them."""
    try:
        with fsspec.open(f"{home}/abo_classes_3d.txt", "rt", encoding="utf-8-sig", errors="replace") as file:
            lines = [line.strip().partition(",") for line in file]
    except FileNotFoundError:
        return {}
    return {id: [kind] for id, _, kind in lines if kind}


def _categories(found: list[str]) -> list[str]:
    """The categories without those that another says already: rug and RUG."""
    first: dict[str, str] = {}
    for kind in found:
        first.setdefault(kind.casefold().replace("_", " "), kind)
    return list(first.values())


def _license(home: str) -> str:
    """The SPDX id of the licence by the file that came with the archive; of two, the stricter."""
    said = ""
    for name in files_in(home):
        if name.upper().startswith("LICENSE"):
            with fsspec.open(f"{home}/{name}", "rt", encoding="utf-8", errors="replace") as file:
                said += f"{name}\n{file.read(4096)}\n".lower()
    if re.search(r"attribution-noncommercial 4\.0|\bby-nc[-/ ]4\.0", said):
        return SPDX["by-nc"]
    return SPDX["by"] if re.search(r"attribution 4\.0|\bby[-/ ]4\.0", said) else "unknown"
