"""What files an asset names, format by format, as its bytes say it. Nothing is looked up here; that is pipeline.assets.asset's.

OBJ and MTL: http://paulbourke.net/dataformats/obj/ and /mtl/. Collada 1.4 and 1.5: https://www.khronos.org/collada/.
"""

import codecs
import mmap
import re
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import unescape

import pyarrow as pa

from pipeline.stage import ObjectError

Kind = Literal["buffer", "picture", "material", "layer"]
Bytes = bytes | mmap.mmap

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
LONGEST_NAME = 4096  # bytes of a file name, folders included
LARGEST_MTL = 64 << 20  # bytes

_MAP = re.compile(r"[\x00-\x20]*(map_[^\x00-\x20]+|bump|disp|decal|refl|norm)[\x00-\x20]+", re.IGNORECASE)
_NUMBER = r"[-+]?[\d.]+(?:[eE][-+]?\d+)?"
_OPTION = re.compile(
    rf"-(?:[ost](?:\s+{_NUMBER}){{1,3}}|mm\s+{_NUMBER}\s+{_NUMBER}|(?:bm|boost|texres)\s+{_NUMBER}"
    r"|(?:blendu|blendv|cc|clamp)\s+(?:on|off)|imfchan\s+[rgbmlz]|type\s+\w+)\s+",
    re.IGNORECASE,
)
_UNKNOWN_OPTION = re.compile(r"-[a-z]+\s+\S+\s+", re.IGNORECASE)
_TAG = re.compile(rb"<(/?)(?:\w+:)?(image|init_from)(?![\w.-])([^<>]*)>")
_ENDINGS = rb"png|jpe?g|tga|bmp|tiff?|webp|gif|exr|hdr|dds|psd|ktx2?"
_FILE_NAME_END = re.compile(rb"\.(?:" + _ENDINGS + rb")(?!\w)", re.IGNORECASE)
_LAYER_NAME_END = re.compile(rb"\.(?:" + _ENDINGS + rb"|usd[acz]?)(?!\w)", re.IGNORECASE)
_NOT_IN_NAMES = re.compile(rb'[\x00-\x1f"<>|*?@\x7f]')
_EMBEDDED_PICTURE = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff[\xc0-\xfe]|RIFF....WEBP", re.DOTALL)


@dataclass(frozen=True)
class Reference:
    """A file that an asset names. `name`: as it is spelt there; `percent`: it is a URI, in which %20 stands for a space."""

    name: str
    kind: Kind
    percent: bool = False


@contextmanager
def content_of(path: Path) -> Iterator[Bytes]:
    """The bytes of a file, mapped; what is UTF-16 text comes as UTF-8."""
    with open(path, "rb") as file:
        head = file.read(2)
        if not head:
            yield b""
        elif head not in UTF16:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                yield content
        else:
            with open(path, encoding="utf-16", errors="replace", newline="") as text, tempfile.TemporaryFile() as copy:
                writer = codecs.getwriter("utf-8")(copy, errors="replace")
                shutil.copyfileobj(text, writer, 1 << 20)
                copy.flush()
                with mmap.mmap(copy.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    yield content


def text_of(content: bytes) -> str:
    """A text file's text; bytes that are no UTF-8 survive the way back through `encoded`."""
    if content[:2] in UTF16:
        return content.decode("utf-16", "replace")
    return content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def encoded(text: str) -> bytes:
    """The bytes that `text_of` read."""
    return text.encode("utf-8", "surrogateescape")


def storable(name: str) -> str:
    """A name that can be stored: one that is no UTF-8 is read as Latin-1."""
    raw = encoded(name)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def below(name: str, inner: str) -> str:
    """What a file called `name` names `inner`, as seen from where `name` is named: in `maps/a.mtl`, `b.png` is `maps/b.png`."""
    folder = name.replace("\\", "/").rpartition("/")[0]
    return f"{folder}/{inner}" if folder else inner


# ------------------------------------------------------------------------------------------------------------ glTF


def gltf_items(document: dict[str, Any]) -> Iterator[tuple[Reference, dict[str, Any]]]:
    """The buffers and images of a glTF that lie in other files, each with its place in the document."""
    for part, kind in (("buffers", "buffer"), ("images", "picture")):
        for item in document.get(part, ()):
            if isinstance(uri := item.get("uri"), str) and not uri.startswith("data:"):
                yield Reference(storable(uri.encode("utf-8", "replace").decode()), kind, percent=True), item


# ------------------------------------------------------------------------------------------------------------ OBJ and MTL


def statements(content: Bytes, keyword: bytes) -> Iterator[tuple[int, int, str]]:
    """The lines of an OBJ that begin with a keyword: where each starts and ends (without its line end), and what it says."""
    at = content.find(keyword)
    while at >= 0:
        start = at
        while start and content[start - 1] <= 32 and content[start - 1] not in b"\r\n":
            start -= 1
        if start == 3 and content[:3] == codecs.BOM_UTF8:
            start = 0
        end, behind = at + len(keyword), content[at + len(keyword) : at + len(keyword) + 1]
        if (start == 0 or content[start - 1] in b"\r\n") and behind and behind[0] <= 32:
            line_end = re.compile(rb"[\r\n]").search(content, end)
            end = line_end.start() if line_end else len(content)
            said = content[at + len(keyword) : min(end, at + len(keyword) + LONGEST_NAME)]
            yield start, end, text_of(said).strip()
        at = content.find(keyword, end)


def uses_materials(content: Bytes) -> bool:
    """Whether an OBJ asks for materials: it names some, or has texture coordinates."""
    has_coordinates = content[:3] == b"vt " or content.find(b"\nvt ") >= 0
    return has_coordinates or next(statements(content, b"usemtl"), None) is not None


def material_files(content: Bytes, stem: str, there: Callable[[str], bool]) -> list[str]:
    """The names of an OBJ's material files. A line may hold several, and a name may hold spaces: `there` tells which is meant.

    Blender also takes the file that is called as the OBJ is (`stem`.mtl), where it is there.
    """
    names: dict[str, None] = {}
    for _, _, said in statements(content, b"mtllib"):
        line = _unquoted(storable(said))
        names |= dict.fromkeys([line] if there(line) else line.split())
    if there(f"{stem}.mtl"):
        names[f"{stem}.mtl"] = None
    return list(names)


@dataclass(frozen=True)
class MapLine:
    """A line of a material file that names a picture: its keyword, the options that the format knows, the picture's name."""

    keyword: str
    options: str
    name: str


def map_line(line: str) -> MapLine | None:
    """What a line of a material file says of a picture. None: it speaks of something else, or names none."""
    if not (start := _MAP.match(line)):
        return None
    rest, options = line[start.end() :].strip(), ""
    while option := _OPTION.match(rest) or _UNKNOWN_OPTION.match(rest):
        options += option[0] if option.re is _OPTION else ""
        rest = rest[option.end() :]
    return MapLine(start[1], options, storable(_unquoted(rest))) if rest else None


def mtl_lines(path: Path) -> list[str]:
    """The lines of a material file. Raises ObjectError("asset_too_large")."""
    if path.stat().st_size > LARGEST_MTL:
        raise ObjectError("asset_too_large", f"{path.name} has more than {LARGEST_MTL >> 20} MB, too much for a material file")
    return re.split(r"\r\n|\r|\n", text_of(path.read_bytes()))


def mtl_pictures(path: Path) -> Iterator[Reference]:
    """The pictures of a material file."""
    for line in mtl_lines(path):
        if found := map_line(line):
            yield Reference(found.name, "picture")


def _unquoted(name: str) -> str:
    return name[1:-1] if len(name) > 1 and name[0] == name[-1] == '"' else name


# ------------------------------------------------------------------------------------------------------------ the others


def collada_pictures(content: Bytes, name: str) -> Iterator[tuple[int, int, Reference]]:
    """The pictures of a Collada file, with the part of it, from byte to byte, that names them.

    Raises ObjectError: parse_error (UTF-16), unsafe_uri (entities, by which XML takes in other files). `name`: for the message.
    """
    if b"\0" in content[:64] or content[:2] in UTF16:
        raise ObjectError("parse_error", f"{name} is XML in UTF-16: save it as UTF-8")
    if content.find(b"<!ENTITY") >= 0:
        raise ObjectError("unsafe_uri", f"{name} declares XML entities, which may take in any file: export it again without them")
    inside = False
    for tag in _TAG.finditer(content):
        closing, element, attributes = tag.groups()
        if element == b"image":
            inside = not closing and not attributes.endswith(b"/")
        elif inside and not closing and not attributes.endswith(b"/"):
            end = content.find(b"</", tag.end(), tag.end() + LONGEST_NAME)
            if end < 0:
                continue
            start = max(tag.end(), content.rfind(b"<ref>", tag.end(), end) + len(b"<ref>"))  # Collada 1.5
            plain = re.sub(rb"<!\[CDATA\[|\]\]>", b"", content[start:end])
            if plain.strip():
                text = unescape(text_of(plain), {"&quot;": '"', "&apos;": "'"}).strip()
                yield start, end, Reference(storable(text), "picture", percent=True)


def names_within(content: Bytes, *, layers: bool = False) -> list[Reference]:
    """The names of pictures (with `layers`, of USD layers too) among the bytes of a file of a format that is not taken apart here.

    Some of them may be no references at all: what is not there is nothing to complain of by itself.
    """
    found: dict[Reference, None] = {}
    for end in (_LAYER_NAME_END if layers else _FILE_NAME_END).finditer(content):
        before = _NOT_IN_NAMES.split(content[max(0, end.start() - 512) : end.start()])[-1]
        name = storable(text_of(before + end[0])).strip()
        if len(before.strip()) and name:
            found[Reference(name, "layer" if b".usd" in end[0].lower() else "picture")] = None
    return list(found)


def holds_pictures(content: Bytes) -> bool:
    """Whether a file seems to hold pictures in itself."""
    return _EMBEDDED_PICTURE.search(content) is not None


def usd_names(content: Bytes, name: str) -> list[Reference]:
    """The pictures and layers of a USD file, text or binary. Raises ObjectError("parse_error"); `name`: for the message."""
    if content[:8] != b"PXR-USDC":
        return names_within(content, layers=True)
    try:
        return names_within(_usd_tokens(content), layers=True)
    except (struct.error, ValueError, OSError, pa.ArrowException) as error:
        raise ObjectError("parse_error", f"{name} is no readable binary USD: {error}") from None


def _usd_tokens(content: Bytes) -> bytes:
    """All words of a binary USD, in which every path is one: the section TOKENS, as LZ4 blocks.

    The format is that of OpenUSD's pxr/usd/usd/crateFile.h: a table of contents at the place that bytes 16 to 24 state, entries of
    (name in 16 bytes, start, size); from version 0.4, (count, size, packed size), then the packed words, each ended by a zero.
    """
    [table] = struct.unpack_from("<q", content, 16)
    [sections] = struct.unpack_from("<Q", content, table)
    for index in range(min(sections, 64)):
        section, start, _ = struct.unpack_from("<16sqq", content, table + 8 + 32 * index)
        if section.rstrip(b"\0") == b"TOKENS":
            break
    else:
        return b""
    if content[8:10] < b"\0\x04":
        _, size = struct.unpack_from("<QQ", content, start)
        return content[start + 16 : start + 16 + size]
    _, size, packed = struct.unpack_from("<QQQ", content, start)
    if size > 255 * packed + 1024 or packed > len(content):
        raise ValueError(f"{packed} bytes cannot hold {size} bytes of words")
    blocks, data = content[start + 24], content[start + 25 : start + 24 + packed]
    if blocks == 0:
        return pa.decompress(data, decompressed_size=size, codec="lz4_raw", asbytes=True)
    raise ValueError("it has more words than are read here")  # several blocks: more than 2 GB of words
