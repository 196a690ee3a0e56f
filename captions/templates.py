"""English phrases from names, nouns and adjectives. Nothing here adds a word that says something about the object."""

import re
from collections.abc import Sequence

# The words that the templates themselves bring along.
FRAME_WORDS = frozenset({"a", "an", "3d", "model", "photo", "of", "or"})

# In the order in which English puts them before a noun: size, shape, age, colour, material.
ADJECTIVES = (
    ("big", "giant", "huge", "large", "little", "long", "miniature", "short", "small", "tall", "tiny"),
    ("rectangular", "round", "square"),
    ("ancient", "antique", "futuristic", "medieval", "modern", "old", "retro", "rusty", "victorian", "vintage", "weathered"),
    ("beige", "black", "blue", "brown", "gray", "green", "grey", "orange", "pink", "purple", "red", "white", "yellow"),
    ("brass", "bronze", "ceramic", "concrete", "golden", "iron", "leather", "marble", "metal", "plastic", "steel", "wooden"),
)

# Last words of nouns that take no article.
_WITHOUT_ARTICLE = frozenset(
    """alcohol applesauce armor art asparagus bacon beef bread broccoli butter cattle cauliflower celery champagne cheese chess
    chinaware cider clothing coffee coleslaw corn cornbread cornmeal crabmeat cream cutlery detergent equipment escargot
    flannel floss flour food footwear fruit fudge furniture garlic gelatin ginger grass gravy guacamole ham honey hummus ice
    icecream jam jewelry juice kelp lasagna lemonade lettuce lighting lightning lingerie liquor lotion luggage machinery meat milk
    money mousse music oil paper parchment parsley pasta people perfume porridge pottery rice salami salsa salt sand sauce
    seafood sherbert silverware snow soap soup spinach sportswear steel string sugar sushi syrup tea tequila tinfoil tinsel
    tissue toast tofu toothpaste underwear vegetation vinegar vodka wasabi water wheat whiskey wine wool yogurt""".split()
)
_SINGULAR = frozenset({"atlas", "canvas", "lens", "pancreas", "species"})

_VOWEL_SOUND = re.compile(
    r"[aeio]|u(?!ni(?!n|m)|s[aeb]|b[aeio]|t[aei]|r[aeiou]|k[ue])|hour|heir|honest|honou?r|x(?=-|box)|8|1[18]\b", re.IGNORECASE
)
_CONSONANT_SOUND = re.compile(r"eu|ewe|one\b|once|ouija", re.IGNORECASE)
_VOWEL_LETTERS = "AEFHILMNORSX"  # whose names begin with a vowel: an LCD, an SUV


def model_of(noun: str, adjectives: Sequence[str] = (), *, photographed: bool = False) -> str:
    """ "a 3D model of a large boat"; of what was photographed, "a photo of a large boat"."""
    return f"a {'photo' if photographed else '3D model'} of {with_article(' '.join([*in_order(adjectives), noun]))}"


def name_and_kind(name: str, noun: str) -> str:
    """ "Sports Sedan, a car"."""
    return f"{name}, {with_article(noun)}"


def keywords(noun: str | None, tags: Sequence[str]) -> str:
    """ "Castle, medieval, stone, moat": a tag may be of any part of speech, so that no sentence holds it."""
    return ", ".join([*([noun] if noun else []), *tags])


def in_order(adjectives: Sequence[str]) -> list[str]:
    """Adjectives in the order of English, of each kind (size, colour, ...) the first."""
    return [found[0] for kind in ADJECTIVES if (found := [word for word in adjectives if word in kind])]


def with_article(noun: str) -> str:
    """The noun with a or an by its sound; without, where English has none (honey, scissors, grapes)."""
    head = re.sub(r"\s*\(.*?\)", "", noun).strip().lower().split(" ")[-1]
    if head in _WITHOUT_ARTICLE or is_plural(head):
        return noun
    return f"{'an' if _begins_with_vowel_sound(noun) else 'a'} {noun}"


def is_plural(word: str) -> bool:
    """Whether a noun looks like a plural: by its last letters, and a list of exceptions."""
    return len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) and word not in _SINGULAR


def _begins_with_vowel_sound(words: str) -> bool:
    first = words.split(" ")[0]
    if first.isupper() and first.isalpha() and len(first) <= 3:
        return first[0] in _VOWEL_LETTERS
    return bool(_VOWEL_SOUND.match(first)) and not _CONSONANT_SOUND.match(first)
