"""What a source says of one object before its asset is read: a record, a plain row that survives JSON."""

import re
from collections.abc import Sequence

from pipeline.assets.asset import format_of
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

# Other spellings that mean exactly one licence, in lower case: the names that GitHub gives (https://choosealicense.com/appendix). A
# text of the GPL alone grants no later version.
_SPDX_BY_NAME = {
    "mit license": "MIT",
    "apache license 2.0": "Apache-2.0",
    'bsd 2-clause "simplified" license': "BSD-2-Clause",
    'bsd 3-clause "new" or "revised" license': "BSD-3-Clause",
    "boost software license 1.0": "BSL-1.0",
    "creative commons zero v1.0 universal": "CC0-1.0",
    "creative commons attribution 4.0 international": "CC-BY-4.0",
    "creative commons attribution share alike 4.0 international": "CC-BY-SA-4.0",
    "eclipse public license 2.0": "EPL-2.0",
    "gnu affero general public license v3.0": "AGPL-3.0-only",
    "gnu general public license v2.0": "GPL-2.0-only",
    "gnu general public license v3.0": "GPL-3.0-only",
    "gnu lesser general public license v2.1": "LGPL-2.1-only",
    "gnu lesser general public license v3.0": "LGPL-3.0-only",
    "isc license": "ISC",
    "mozilla public license 2.0": "MPL-2.0",
    "the unlicense": "Unlicense",
    "zlib license": "Zlib",
}
_SPDX_BY_ID = {id.lower(): id for id in (*SPDX.values(), *_SPDX_BY_NAME.values())}
_CC_ADDRESS = re.compile(
    r"https?://creativecommons\.org/(?:licenses/(by(?:-nc)?(?:-sa|-nd)?)|publicdomain/(zero))/(\d\.\d)/?(?:deed.*|legalcode.*)?"
)

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
    front: str | None = None,
    warnings: Sequence[str] = (),
    sha256: str | None = None,
) -> Row:
    """A record: the columns of OBJECTS that need no look into the asset, and a few more.

    `asset_stamp` changes when the asset or what belongs to it does (`pipeline.fetch.cache.stamp_of`); None: the asset is not there.
    `asset_format`: None: what the asset's name says. `home`: the folder, the asset's own or one above it, inside which its
    references may lead; None: the asset's own. `texture`: a picture that is the base colour of materials that have none. `cloud`:
    the collection's own point cloud of the object. `front`: +z or -z, where the collection's objects face, y being up.
    `warnings`: short names of what is wrong with the metadata.
    `sha256`: of the asset, as the collection publishes it: another file is refused.
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
        "front": front,
        "home": home,
        "texture": texture,
        "cloud": cloud,
        "warnings": sorted(set(warnings)),
        "sha256": sha256,
    }


def spdx(license: str | None) -> str:
    """The SPDX id of a licence in one of the spellings that collections use, "unknown" where it is not exactly one licence.

    "Creative Commons - Attribution", without a version, is not.
    """
    text = (license or "").strip().lower()
    if found := _CC_ADDRESS.fullmatch(text):
        return f"CC-{found[1].upper()}-{found[3]}" if found[1] else f"CC0-{found[3]}"
    return SPDX.get(text) or _SPDX_BY_NAME.get(text) or _SPDX_BY_ID.get(text, "unknown")


def _text(value: str | None) -> str | None:
    return _utf8(value) if value and value.strip() else None


def _utf8(text: str) -> str:
    """The text with halves of surrogate pairs replaced: they come from broken JSON and cannot be stored."""
    return text.encode("utf-8", "replace").decode()


RECORD_COLUMNS = tuple(record(source="", source_id="", asset_uri="", asset_stamp=None))
