"""What a source says of one object before its asset is read: a record, a plain row that survives JSON."""

from collections.abc import Sequence

from pipeline.asset import format_of
from pipeline.stage import Row

# Licences in the spelling of Sketchfab and Creative Commons, as SPDX ids.
SPDX = {
    "by": "CC-BY-4.0",
    "by-sa": "CC-BY-SA-4.0",
    "by-nd": "CC-BY-ND-4.0",
    "by-nc": "CC-BY-NC-4.0",
    "by-nc-sa": "CC-BY-NC-SA-4.0",
    "by-nc-nd": "CC-BY-NC-ND-4.0",
    "cc0": "CC0-1.0",
}

# Why an object that the collection marks as unfit for minors is left out (`unusable` of a record).
AGE_RESTRICTED = ("age_restricted", "the collection marks it as age-restricted: the setting age_restricted of ingest lets it in")


def record(
    *,
    source: str,
    source_id: str,
    asset_uri: str,
    asset_stamp: str | None,
    name: str | None = None,
    categories: Sequence[str] = (),
    tags: Sequence[str] = (),
    description: str | None = None,
    license: str = "unknown",
    creator: str | None = None,
    split: str | None = None,
    thumbnail_uri: str | None = None,
    unusable: tuple[str, str] | None = None,
    asset_format: str | None = None,
    home: str | None = None,
    texture: str | None = None,
    cloud: str | None = None,
    warnings: Sequence[str] = (),
) -> Row:
    """A record: the columns of OBJECTS that need no look into the asset, and a few more.

    `asset_stamp` changes when the asset or what belongs to it does (`pipeline.cache.stamp_of`); None: the asset is not there.
    `asset_format`: None: what the asset's name says. `home`: the folder, the asset's own or one above it, inside which its
    references may lead; None: the asset's own. `texture`: a picture that is the base colour of materials that have none. `cloud`:
    the collection's own point cloud of the object. `warnings`: short names of what is wrong with the metadata.
    `unusable`: reason and message, when the collection itself says that the object cannot be used.
    Blank texts become None.
    """
    return {
        "object_id": f"{source}/{_utf8(source_id)}",
        "source": source,
        "source_id": _utf8(source_id),
        "asset_uri": _utf8(asset_uri),
        "asset_format": asset_format or format_of(asset_uri),
        "name": _text(name),
        "categories": [_utf8(category) for category in categories],
        "tags": [_utf8(tag) for tag in tags],
        "description": _text(description),
        "license": license,
        "creator": _text(creator),
        "split": split,
        "thumbnail_uri": thumbnail_uri,
        "asset_stamp": asset_stamp,
        "unusable": list(unusable) if unusable else None,
        "home": home,
        "texture": texture,
        "cloud": cloud,
        "warnings": sorted(set(warnings)),
    }


def _text(value: str | None) -> str | None:
    return _utf8(value) if value and value.strip() else None


def _utf8(text: str) -> str:
    """The text with halves of surrogate pairs replaced: they come from broken JSON and cannot be stored."""
    return text.encode("utf-8", "replace").decode()


RECORD_COLUMNS = tuple(record(source="", source_id="", asset_uri="", asset_stamp=None))
