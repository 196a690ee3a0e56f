"""What makes a text unfit to be a caption: rules that each say keep or drop, from the text alone, with the reason's name.

    url               holds an address
    not_english       mostly other letters than English has, or more small words of another language than of English
    only_digits       no letters
    hash              an id: long hexadecimal or mixed letters and digits
    filename_noise    what files are called when nobody named them: untitled, scene, model 1, IMG_2034
    too_short         one letter; of a sentence, less than three words
    too_long          more words than a text encoder reads
    repetitive        the same words again and again
    boilerplate       about the file, its licence, its author or its reader, not about the object
    duplicate         another caption of the same object says the same

The rules are cheap and honest about it: a Latin-script name in another language passes as English.
"""

import re
from collections.abc import Callable
from itertools import pairwise

# CLIP reads 77 tokens, which is about this many English words. The bound on characters also keeps the rules fast.
MOST_WORDS = 50
MOST_CHARACTERS = 400

# Words about a file or a job, not about the object in it. A tag that is one is no tag; a name of these alone is no name.
NOISE_WORDS = frozenset(
    """3d 3dart 3dcoat 3december 3dmodel 3dmodeling 3dmodelling 3dmodels 3dprint 3dprintable 3dprinting 3ds 3dscan 3dscanning
    3dsmax agisoft animated animation ar arkit asset assets assetstore autocad autodesk b3d backup bake baked blend blender
    blender3d blendercycles cad capture cc0 cg cgi challenge cinema4d commission copy creativecommons dailychallenge
    dailymodel daz3d default demo download downloadable draft eevee export exported fanart fbx file files final finalversion
    finished fixed free freebie freedownload freemodel fusion360 gameart gameasset gameassets gamedev gameready glb gltf
    handpainted hd high-poly highpoly homework houdini hq hyper import indiegame inktober kitbash laserscan lidar lod lod0
    lod1 lod2 low low-poly low_poly lowpoly lowpolyart marmoset material materials maya mesh meshlab meshmixer metashape misc
    mixamo model modeling modelling models modo multi my nerf new nodevember nomad noname none null obj object objects optimized
    part pbr pbr-texturing pbrtextures photogrammetry photoscan ply poly polycam polygon portfolio postshot practice preview
    print printable printing project prop props quixel ready realitycapture realtime render rendered retopo retopology rig
    rigged sample scan scaniverse scanned scans scene sculpt sculpting sculptjanuary sculptober sculptris sfm sketch sketchfab
    sketchfab-challenge sketchfabweeklychallenge sketchup skp solidworks stl student study stuff substance substance-painter
    substancepainter test testing tests texture textured textures texturing tinkercad trnio ue4 ue5 uefn unfinished unity
    unity3d unity5 university unnamed unreal unrealengine untitled unwrap update updated upload uploaded uv version vr vray
    vrchat weeklychallenge wip work workinprogress www zbrush zbrushsculpt""".split()
)

_FILE_WORDS = NOISE_WORDS | frozenset(
    """a and asdasd asdf assembly baked cam clean cleaned collection complete component copia copie dae day des dsc empty exp
    exported first foo for full hp image img import in jpg last layer lp me merged mini mixed morph name nameless newmodel no
    node nouveau of original out output photo pic png pose qwerty result revised root simplified sin skinned subtool surface
    temp the title tmp try whole with without xxx xyz""".split()
)

URL = re.compile(
    r"\bhttps?:\S+|\bwww\.\S+|\S+@\S+|(?<!\w)@\w+|\b[\w-]+\.(?:com|net|org|io|co|de|ru|fr|gov|edu|info|me|tv|gg|ly|be)\b(?:/\S*)?",
    re.IGNORECASE,
)
_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)
_HEXADECIMAL = re.compile(r"(?=\D*\d)(?=\d*[a-f])[0-9a-f]{8,}", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")

# Small words that tell languages apart; those that two of the languages share are left out.
_ENGLISH = frozenset("the and of with from this that is are was were it its a an by in for on at has have as to which be".split())
_FOREIGN = frozenset(
    """alla als auch auf aux avec bei bir ce cette che com como con da dans das de del della dem den der des di die dla do du
    een ein eine el em es est esta este et für gli het il ist için jest la las le les los mit na nel nicht niet no não o os
    para per por pour que qui się sono sur um uma una und une van ve von voor w y z""".split()
) - frozenset("a die do in no com per van w z o".split())

_BOILERPLATE = re.compile(
    r"""
    \b(?:licen[cs]ed?(?!\ plate)|copyright(?:ed)?|creative\ commons|cc[ -]by|cc0|public\ domain|royalty[ -]free)\b
  | \b(?:all\ rights\ reserved|non-?commercial|commercial(?:ly)?\ (?:use|project|purpose|licen[cs]e)s?|attribution)\b
  | \b(?:download\w*|upload\w*|purchas\w+|buy|sale|price|free\ (?:to|for|model|asset|use)|for\ free|patreon|ko-?fi|paypal)\b
  | \b(?:instagram|twitter|facebook|youtube|artstation|deviantart|discord|tiktok|linkedin|behance|turbosquid|cgtrader)\b
  | \b(?:sketchfab|e-?mail|follow\ me|subscribe|likes?\ (?:and|it|this|if|or)|comments?|feedback|contact|commissions?)\b
  | \b(?:credits?|thanks?|please|enjoy|feel\ free|hope|sorry|lol|hello|hi|hey|updated?|wip|portfolio|homework|assignment)\b
  | \b(?:you|your|you['’]re|i['’](?:m|ve|d|ll)|me|my|mine|myself|we|our|donat\w+|lorem\ ipsum)\b
  | (?:^|[.,;:(]|\b(?:and|but|so|that|as|which|what|where|when|because|if)\s)\s*i\s
  | \b(?:blender|maya|3ds\ ?max|zbrush|cinema\ ?4d|houdini|substance\ painter|marmoset|unity|unreal|ue[45]|photoshop)\b
  | \b(?:sketchup|solidworks|autocad|autodesk|fusion\ ?360|agisoft|metashape|photoscan|reality\ ?capture|polycam|meshlab)\b
  | \b(?:quixel|keyshot|eevee|blockbench|poly(?:gon)?s?\ ?count|tri(?:angle)?s|verts|vertices|polys|polygons|\d+\ faces)\b
  | \b(?:uvs?|unwrapped|pbr|texels?|[248]k|textures?\ (?:are|is|included|maps?)|game[- ]?ready|fully\ rigged|is\ rigged)\b
  | \b(?:fbx|obj|gltf|glb|stl|\.blend|file\ formats?|export(?:ed)?\ (?:by|with|from|as))\b
  | \b(?:made|created|modell?ed|rendered|textured|sculpted|designed)\ (?:with|in|for|by|using)\b
  | \b(?:warrant(?:y|ies)|guarantee[ds]?|satisfaction|free\ returns?|return\ policy|(?:easy|no)\ assembly|assembly\ required)\b
  | \b(?:(?:easy|simple)\ to\ (?:assemble|carry|clean|install|store|use)|(?:dry|spot|wipe)[- ]clean|machine[- ]wash\w*)\b
  | \b(?:dishwasher|microwave)[- ]safe\b
  | \b(?:scann?ed|captured|photographed)\ (?:with|using|by)|rigged\ and|animations?|comes\ with\b
    """,
    re.IGNORECASE | re.VERBOSE,
)


def words(text: str) -> list[str]:
    """The words of a text in lower case: letters only."""
    return [word.lower() for word in _WORD.findall(text)]


def name_fault(text: str) -> str | None:
    """Why a name, category or tag is no caption; None: it may be one."""
    return _first_fault(text, _NAME_RULES)


def sentence_fault(text: str) -> str | None:
    """Why a sentence of a description is no caption; None: it may be one."""
    return _first_fault(text, _SENTENCE_RULES)


def machine_fault(text: str) -> str | None:
    """Why a caption that a model wrote is none; None: it may be one. What people write about files and licences, models do not."""
    return _first_fault(text, _MACHINE_RULES)


def category_fault(text: str) -> str | None:
    """Why a category is no caption; None: it may be one. It may be a word that as a name is noise: blender, camera, sketch."""
    return _first_fault(text, _CATEGORY_RULES)


def without_codes(text: str) -> str:
    """The text without ids: UUIDs, long hexadecimal words, and long words in which letters and digits take turns."""
    return re.sub(r"[^\W_]+", lambda word: " " if _is_code(word[0]) else word[0], _UUID.sub(" ", text))


def same_text(text: str) -> str:
    """What two texts have in common that say the same: letters and digits, without case, punctuation and space."""
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def _first_fault(text: str, rules: "_Rules") -> str | None:
    return next((reason for reason, breaks in rules if breaks(text)), None)


def _is_foreign(text: str) -> bool:
    letters = [letter for letter in text if letter.isalpha()]
    return sum(not letter.isascii() for letter in letters) > 0.3 * len(letters)


def _is_foreign_sentence(text: str) -> bool:
    found = words(text)
    english, foreign = sum(word in _ENGLISH for word in found), sum(word in _FOREIGN for word in found)
    accented = sum(not word.isascii() and "’" not in word for word in found)
    return foreign > max(english, 1) or (accented > 1 and not english)


def _is_only_digits(text: str) -> bool:
    return not any(letter.isalpha() for letter in text)


def _is_hash(text: str) -> bool:
    return bool(words(text)) and not words(without_codes(text))


def _is_code(word: str) -> bool:
    turns = sum(a.isdigit() != b.isdigit() for a, b in pairwise(word))
    return bool(_HEXADECIMAL.fullmatch(word)) or (len(word) >= 10 and turns > 2)


def _is_file_name(text: str) -> bool:
    found = re.findall(r"[^\W_]+", text.lower())
    named_by_nobody = all(word in _FILE_WORDS or not word.strip("0123456789") for word in found)
    codes = len(found) > 1 and all(len(word) > 3 and re.search(r"\d", word) for word in found)
    return named_by_nobody or codes or _is_serial_number(text)


def _is_serial_number(text: str) -> bool:
    """Three digits in a row and no letters but a few consonants: DSC01234, CTS 212-1."""
    return bool(re.fullmatch(r"(?i:[b-df-hj-np-tv-z]{1,4}(?![a-z])|[\d\s_-])+", text) and re.search(r"\d{3}", text))


def _is_short(text: str) -> bool:
    return sum(letter.isalnum() for letter in text) < 2


def _has_few_words(text: str) -> bool:
    return len([word for word in words(text) if word != "x"]) < 3  # 10 x 5 x 12 cm is no sentence


def _is_long(text: str) -> bool:
    return len(text) > MOST_CHARACTERS or len(text.split()) > MOST_WORDS


def _is_repetitive(text: str) -> bool:
    found = words(text)
    return len(found) > 7 and len(set(found)) < len(found) / 2


_Rules = list[tuple[str, Callable[[str], bool]]]
_ANY_RULES: _Rules = [
    ("too_long", _is_long),
    ("url", lambda text: bool(URL.search(text))),
    ("not_english", _is_foreign),
    ("only_digits", _is_only_digits),
]
_CATEGORY_RULES: _Rules = [*_ANY_RULES, ("hash", _is_hash), ("too_short", _is_short)]
_NAME_RULES: _Rules = [*_ANY_RULES, ("hash", _is_hash), ("filename_noise", _is_file_name), ("too_short", _is_short)]
_SENTENCE_RULES: _Rules = [
    *_ANY_RULES,
    ("not_english", _is_foreign_sentence),
    ("repetitive", _is_repetitive),
    ("boilerplate", lambda text: bool(_BOILERPLATE.search(text))),
    ("too_short", _has_few_words),
]
_MACHINE_RULES: _Rules = [*_ANY_RULES, ("repetitive", _is_repetitive), ("too_short", _is_short)]
