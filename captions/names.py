"""Names, categories and tags as a person would say them: without what belongs to a file, an upload or an advert."""

import re
import unicodedata
from collections.abc import Iterator

from captions.filters import MOST_CHARACTERS, NOISE_WORDS, URL, name_fault, without_codes

# Shelves, not names of things: Sketchfab's categories, 3D-FUTURE's Others, and some product types of Amazon's.
SHELVES = frozenset(
    """animals-pets architecture art-abstract cars-vehicles characters-creatures cultural-heritage-history electronics-gadgets
    fashion-style food-drink furniture-home music nature-plants news-politics people places-travel science-technology
    sports-fitness weapons-military
    others
    home home-bed-and-bath home-furniture-and-decor kitchen musical-instruments outdoor-living sporting-goods""".split()
)

# Pictures, accents without a letter, control and format characters: no part of a caption.
UNSPOKEN = ("So", "Sk", "Cc", "Cf", "Cs", "Co", "Cn")


def clean_name(raw: str) -> str:
    """The words of a name that are about the object, in its order; empty when there are none.

    wooden_chair-02.fbx -> Wooden chair; MODERN CHAIR (free download) -> Modern chair; Day 12 - Robot v1.3 -> Robot
    """
    if len(raw) > MOST_CHARACTERS:
        return raw
    text = unicodedata.normalize("NFC", raw).replace("%20", " ").replace("&amp;", "&")
    text = "".join(" " if unicodedata.category(letter) in UNSPOKEN else letter for letter in text).strip()
    text = without_brand(URL.sub(" ", _EXTENSION.sub(" ", text)).strip())
    identifier = not re.search(r"\s", text)
    text = _split_identifier(text) if identifier else text.replace("_", " ")
    text = without_codes(_DATE.sub(" ", text)).replace("*", " ")
    text = _BRACKETS.sub(lambda found: " " if is_noise(found[0]) else found[0], text)
    for pattern in (_ADVERT, _VERSION):
        text = pattern.sub(" ", text)
    text = re.sub(r"(?<=\d)[\"”″]", "", text)  # inches, whose mark at the end would go as a quotation's
    text = _tidy(_join(part for part in _parts(_tidy(text)) if not is_noise(part[0])))
    text = _AUTHOR.sub("", text)
    text = _tidy(_NUMBER_AT_END.sub("", text))
    text = _strip_edges(text, _IDENTIFIER_NOISE if identifier else _EDGE_NOISE)
    return "" if is_noise(text) else _calm(text, capital=identifier)


def without_brand(text: str) -> str:
    """A product's name without the brands of the shop itself: Amazon Brand – Rivet Wool Rug -> Wool Rug."""
    return _BRAND.sub("", _BRAND.sub("", text))


def is_shelf(category: str) -> bool:
    """Whether a category is a shelf (cars-vehicles, Cars & Vehicles, SPORTING_GOODS) and no name of a thing."""
    return re.sub(r" & |[ _]", "-", category.lower()) in SHELVES


def clean_category(raw: str) -> str:
    """A category as a noun: Ferris_wheel -> Ferris wheel, OFFICE CHAIR and Office Chair -> office chair.

    One of several things: sideboard / side cabinet / console table -> sideboard, side cabinet or console table
    """
    text = _tidy(raw.replace("_", " "))
    text = text.lower() if text.isupper() or (" " in text and text.istitle()) else text
    *others, last = (part.strip() for part in _SEATING.sub("", text).split("/"))
    return f"{', '.join(others)} or {last}" if others else last


def is_one_of_several(category: str) -> bool:
    """Whether a cleaned category leaves open which of several things it is."""
    return " or " in category


def clean_tag(raw: str) -> str | None:
    """A tag in lower case; None when it says nothing about the object or is no English word."""
    text = _tidy(raw.replace("_", " ").replace("#", " ").lower())
    return None if is_noise(text) or re.sub(r"[ -]", "", text) in NOISE_WORDS or name_fault(text) else text


def is_noise(text: str) -> bool:
    """Whether a part of a name says nothing about the object: it has no words, or noise words and numbers only."""
    found = re.findall(r"[^\W_]+", text.lower())
    return all(word in NOISE_WORDS or word in _LITTLE_WORDS or re.fullmatch(r"\d+[a-z]?|v\d+", word) for word in found)


_LITTLE_WORDS = frozenset("a and copy day final first for free high in low my new no of only part poly set the v week with".split())

# Amazon's own. Rivet and such are ordinary words as well, and brands only where the name says so.
_BRAND = re.compile(
    r"^\s*(?:an?\s+)?amazon\s+brand\s*[-–—:|]\s*(?:(?:rivet|symbol|umi|find\.?|alkove)\b[\s,:–—-]*)?"
    r"|^\s*(?:amazon\s?basics|stone\s(?:&|and)\sbeam|ravenna\shome|strathwood|solimo|pinzon|movian)\b[\s,:–—-]*",
    re.IGNORECASE,
)
_SEATING = re.compile(r"(?<=stool) seating$")  # of Amazon's STOOL_SEATING
_EXTENSION = re.compile(
    r"\.(?:3dm|3ds|3mf|abc|blend\d?|c4d|cleaner|dae|dwg|dxf|fbx|gles|glb|gltf|hip|iges|igs|jpe?g|lwo|ma|materialmerger|max|mb|obj|"
    r"off|osgb?|pdf|ply|png|rar|skp|sldprt|spp|step|stl|stp|usd[acz]?|vox|wrl|x3d|zip|ztl)\b",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"\b(?:(?:19|20)\d\d[-./ ]?[01]\d[-./ ]?[0-3]\d|[0-3]?\d[-./][01]?\d[-./](?:19|20)?\d\d)\b"
    r"(?:[ T-]*[0-2]\d[-:.]?[0-5]\d(?:[-:.]?[0-5]\d)?\b)?"
)
_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}|【[^【】]*】|<[^<>]*>")
_ADVERT = re.compile(
    r"\b(?:free\s+(?:3d\s+)?(?:models?|downloads?|assets?|to\s+use)|downloads?\s+(?:for\s+)?free|for\s+free|free\s+for\s+\w+|"
    r"link\s+in\s+(?:the\s+)?description|(?:made|created|modell?ed|designed|sculpted|scanned|rendered|done)\s+(?:by|in|with|using)\s.*|"
    r"game[- ]?ready|3d[- ](?:models?|scans?|prints?)(?:\s+of(?:\s+(?:an?|the))?)?|(?:[248]k\s+|pbr\s+)+textures?)(?!\w)",
    re.IGNORECASE,
)
# A "v" with a point or a leading zero, or any at the end that is neither an engine nor the rocket.
_VERSION = re.compile(
    r"\b(?:v(?:er|ersion)?\.?\s*\d+(?:\.\d+)+[a-z]?|ver(?:sion)?\.?\s*\d+|v\.\s*\d+|v0\d+|rev\.?\s?\d+)\b|\bv(?!(?:2|6|8|10|12)\b)\d+$",
    re.IGNORECASE,
)
_AUTHOR = re.compile(r"(?<=\S)[\s,|-]+by(?:$|\s+(?!(?:me|my|the|an?|step|side|hand|day|night)\b)@?[^\W\d_][\w.@' -]{0,40})$")
_NUMBER_AT_END = re.compile(r"(?:\s*#\s?\d+|[\s._-]+(?!007)0\d+(?:\.\d+)?|\s+-?\s*(?:copy|no\.?|nr\.?)\s*\d*)$", re.IGNORECASE)
_SEPARATOR = re.compile(r"\s+[-–—|~•·/\\]+\s+|\s*[|•]\s*|:\s+")
# Words that say nothing where a name begins or ends, though they may in its middle.
_EDGE_NOISE = re.compile(
    r"(?:untitled|free|wip|[248]k|pbr|lod\d*|copy\s+of)\s+|\s+(?:final|wip|exported|export|lod\d*|test|copy|rigged|[248]k|pbr|3d)$",
    re.IGNORECASE,
)
_IDENTIFIER_NOISE = re.compile(
    r"(?:untitled|free|wip|[248]k|pbr|lod\d*|sm|sk|mesh|char|prop|lp|hp|geo|grp|scan|test|new|my|obj|mdl|3d)\s+"
    r"|\s+(?:final|wip|exported|export|lod\d*|test|copy|rigged|rig|anim|animated|mesh|geo|grp|lp|hp|low|high|tex|mat|model|v\d+|\d+)$",
    re.IGNORECASE,
)


def _split_identifier(text: str) -> str:
    """wooden_chair-old02, WoodenChairOld and kitchen-table-set as words; T-Rex, McLaren and iPhone stay."""
    text = re.sub(r"[_+.,]", " ", text)
    if text.count("-") > 1 or " " in text:
        text = text.replace("-", " ")
    text = re.sub(r"(?<=[a-z])(?<!\bMc)(?<!\bMac)(?<!\b[a-z])(?=[A-Z][a-z])", " ", text)
    return re.sub(r"(?<=[a-z]{3})\d+$", "", text.strip())


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """The text between separators, each with the separator after it."""
    begin = 0
    for separator in _SEPARATOR.finditer(text):
        yield text[begin : separator.start()], separator[0]
        begin = separator.end()
    yield text[begin:], ""


def _join(parts: Iterator[tuple[str, str]]) -> str:
    """Parts put together again; the separator after the last is let go by `_tidy`."""
    return "".join(part + separator for part, separator in parts)


def _strip_edges(text: str, noise: re.Pattern) -> str:
    """Take words away at both ends as long as something is left."""
    while True:
        shorter = (
            noise.sub("", text, count=1)
            if (found := noise.search(text)) and (found.start() == 0 or found.end() == len(text))
            else text
        )
        if shorter == text or not shorter.strip():
            return text
        text = _tidy(shorter)


def _tidy(text: str) -> str:
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\s+([,;:!?.)\]])", r"\1", text)
    text = re.sub(r"([(\[])\s+|\(\s*\)|\[\s*\]", r"\1", text)
    return text.strip(" \t-–—_,;:.|/\\+~#=&'\"“”!?*•·")


def _calm(text: str, *, capital: bool) -> str:
    """A name shouted in capitals, in ordinary ones; words without vowels (TV, BMW) and with digits (M3) stay. What is all in
    small letters begins with a capital; `capital`: whatever is."""
    if text.isupper() and any(len(word) > 4 for word in re.findall(r"[^\W\d_]+", text)):
        ordinary = (
            word if re.search(r"\d", word) or not re.search(r"[AEIOUY]", word) else word.lower() for word in text.split(" ")
        )
        text, capital = " ".join(ordinary), True
    return text[0].upper() + text[1:] if (capital or text.islower()) and not re.match(r"[a-z][A-Z]", text) else text
