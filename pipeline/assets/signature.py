"""What a file is by its first bytes, in words: for the message about a file that is not what its name says."""

import codecs
import re
from pathlib import Path

HEAD_BYTES = 4096  # how much of a file `what_it_is` wants to see
OBJ_TEXT = "an OBJ text"

_MAGIC = (
    (b"version https://git-lfs", "a Git LFS pointer and not yet the asset: fetch it with `git lfs pull`"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"PK\x03\x04", "a zip archive"),
    (b"Rar!", "a RAR archive: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (b"%PDF", "a PDF document"),
    (b"BLENDER", "a Blender file"),
    (b"glTF", "a binary glTF"),
    (b"ply", "a PLY mesh"),
    (b"Kaydara FBX Binary", "an FBX file"),
    (b"; FBX", "an FBX text"),
    (b"PXR-USDC", "a USD crate"),
    (b"#usda", "a USD text"),
    (b"Ogawa", "an Alembic file"),
    (b"\x89HDF", "an HDF5 (old Alembic) file"),
)
_HTML = re.compile(rb"\s*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_OBJ = re.compile(rb"(?:[ \t]*(?:#[^\n]*)?\r?\n)*(?:v[ \t]+[-+.\d]+[ \t]+[-+.\d]|(?:mtllib|usemtl|vn|vt|o|g)[ \t]+\S)")


def what_it_is(head: bytes) -> str | None:
    """What a file that begins like this is, as the end of a sentence ("it is ..."). None: nothing that is known here."""
    for magic, words in _MAGIC:
        if head.startswith(magic):
            return words
    if _HTML.match(head):
        return "an HTML page, such as a failed download leaves: download it again"
    if _OBJ.match(head):
        return OBJ_TEXT
    return "an XML text" if head.lstrip().startswith(b"<?xml") else None


def text_encoding(path: Path) -> str | None:
    """The encoding of a text that is not plain UTF-8 (or ASCII), by its byte order mark: utf-8-sig, utf-16. None: it has none."""
    with open(path, "rb") as file:
        head = file.read(3)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig" if head == codecs.BOM_UTF8 else None
