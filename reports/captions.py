"""The captions of a corpus: where they come from, their lengths and languages, which were dropped and why, and some to read.

Languages are told by a rule that can be said in a sentence, not by a detector: most captions are names and phrases of a few words,
which detectors guess at. A text is in the script that most of its letters belong to. One in Latin letters is English when it has
more small words of English (the, with, of, …) than of any other language in SMALL_WORDS, another language when it has at least
FOREIGN of that one and more than of any other, and otherwise it is not told: "wooden chair" may be anything.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float32, Int, Int8, Int32

from reports.sample import chosen
from reports.scans import scanned
from reports.section import Bar, Bars, Exhibit, Rows, Samples, Section, Tile, Tiles
from reports.spreads import coded, histogram, percent, share_of, spread_of, unknown
from schemas.corpus import Reader
from schemas.tables import CAPTIONS, OBJECTS

KEPT_SHOWN = 12  # captions of an origin, to be read
DROPPED_SHOWN = 3  # of each reason of an origin
ORIGINS_SHOWN = 12  # of which samples are shown
SHARED_SHOWN = 20  # texts that most objects share
READABLE = 280  # characters of a text that are shown; a dropped one may be a whole page
MOST_PER_OBJECT = 10  # kept captions; objects with more stand together
WORDS = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256)  # bins of the lengths
COSINES = tuple(np.linspace(-0.2, 0.6, 41).round(2))
MANY_SHARE = 0.01  # of all objects: a text that more of them share says little
MANY_CAPTIONLESS = 0.05  # share of objects without a kept caption that is worth a warning
MANY_FOREIGN = 0.05  # share of kept captions in another language that is

# What the letters of a script match, as RE2 writes Unicode's scripts.
SCRIPTS = {
    "Latin": r"\p{Latin}",
    "Cyrillic": r"\p{Cyrillic}",
    "Greek": r"\p{Greek}",
    "Chinese characters": r"\p{Han}",
    "Kana": r"[\p{Hiragana}\p{Katakana}]",
    "Hangul": r"\p{Hangul}",
    "Arabic": r"\p{Arabic}",
    "Hebrew": r"\p{Hebrew}",
    "Thai": r"\p{Thai}",
    "Devanagari": r"\p{Devanagari}",
}
ANOTHER_SCRIPT, NO_LETTERS = "another script", "no letters"
SCRIPT_NAMES = (*SCRIPTS, ANOTHER_SCRIPT, NO_LETTERS)

# Frequent words that have no other meaning in a language beside it here, but that some share.
SMALL_WORDS = {
    "English": "a an and are at by for from has in is it its of on or that the this to with",
    "German": "am auf aus das dem den der des die ein eine einem einer für im in ist mit ohne und von zu zum zur",
    "French": "au aux avec dans de des du en est et la le les ou par pour sans sur un une",
    "Spanish": "al con de del el en es la las los para por sin un una y",
    "Italian": "al alla con da dei del della di e gli il in la le nel per sono un una",
    "Portuguese": "ao as com da das de do dos e em na no o os para por sem um uma",
    "Dutch": "aan de een en het in is met of op te van voor zonder",
}
FOREIGN = 2  # small words
UNTOLD = "not told"
LANGUAGES = (*SMALL_WORDS, UNTOLD)
ENGLISH = LANGUAGES.index("English")


@dataclass(frozen=True)
class Texts:
    """What is known of each caption (n), in the order of the table's rows; -1: null. `objects`, `distinct`: the distinct object ids
    and (by their hashes) texts; `origins`, `models`, `reasons`: their names."""

    objects: pa.Array
    distinct: pa.Array
    origins: tuple[str, ...]
    models: tuple[str, ...]
    reasons: tuple[str, ...]
    object: Int32[np.ndarray, " n"]
    text: Int32[np.ndarray, " n"]
    origin: Int32[np.ndarray, " n"]
    model: Int32[np.ndarray, " n"]
    reason: Int32[np.ndarray, " n"]
    kept: Bool[np.ndarray, " n"]
    words: Int32[np.ndarray, " n"]
    score: Float32[np.ndarray, " n"]
    script: Int8[np.ndarray, " n"]
    language: Int8[np.ndarray, " n"]

    @cached_property
    def kept_of(self) -> Int[np.ndarray, " objects"]:
        """How many kept captions each object has."""
        return np.bincount(self.object[self.kept], minlength=len(self.objects))

    @cached_property
    def objects_of(self) -> Int[np.ndarray, " distinct"]:
        """How many objects have each text as a kept caption."""
        pairs = np.unique(self.text[self.kept].astype(np.int64) * len(self.objects) + self.object[self.kept])
        return np.bincount(pairs // max(len(self.objects), 1), minlength=len(self.distinct))


def captions(corpus: Reader, *, seed: int = 0, kept_shown: int = KEPT_SHOWN, dropped_shown: int = DROPPED_SHOWN) -> Section:
    """The section on captions: up to `kept_shown` of each origin to read, `dropped_shown` of each reason, drawn by `seed`."""
    title = "Captions"
    texts = read(corpus)
    figures = _figures(corpus, texts)
    if corpus.open(CAPTIONS.name) is None:
        lead = f"No captions have been made (python -m jobs caption {corpus.root})."
        figures = unknown(figures)
        return Section(key="captions", title=title, lead=lead, figures=figures, gates=_gates(figures))
    return Section(
        key="captions",
        title=title,
        lead=_lead(figures),
        figures=figures,
        gates=_gates(figures),
        warnings=tuple(_warnings(figures)),
        exhibits=tuple(_exhibits(corpus, texts, figures, seed, kept_shown, dropped_shown)),
    )


def read(corpus: Reader) -> Texts:
    """All captions, by one scan; of the texts nothing is kept but what is counted here."""
    pieces: dict[str, list[Any]] = {}
    columns = ["object_id", "text_sha256", "origin", "model", "dropped_because", "kept", "score", "text"]
    for piece in scanned(corpus.open(CAPTIONS.name), columns):
        for name in columns[:5]:
            pieces.setdefault(name, []).append(piece[name].combine_chunks().dictionary_encode())
        text = piece["text"].combine_chunks()
        words = pc.list_value_length(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(text))).to_numpy()
        script = scripts(text)
        measured = {
            "kept": piece["kept"].to_numpy(),
            "score": piece["score"].to_numpy(),
            "words": words,
            "script": script,
            "language": languages(text, script),
        }
        for name, values in measured.items():
            pieces.setdefault(name, []).append(values)
    names, codes = zip(*(coded(pieces.get(name, [])) for name in columns[:5]), strict=True)
    kinds = {"kept": bool, "words": np.int32, "score": np.float32, "script": np.int8, "language": np.int8}
    return Texts(
        *names[:2],
        *(tuple(some.to_pylist()) for some in names[2:]),
        *codes,
        *(np.concatenate([np.empty(0, kind), *pieces.get(name, [])]).astype(kind, copy=False) for name, kind in kinds.items()),
    )


def scripts(texts: pa.Array) -> Int8[np.ndarray, " n"]:
    """Of each text the script that most of its letters belong to (the first of equals), as a number of SCRIPT_NAMES."""
    found = np.where(pc.match_substring_regex(texts, r"\p{L}").to_numpy(zero_copy_only=False), 0, len(SCRIPT_NAMES) - 1)
    ascii = pc.string_is_ascii(texts).to_numpy(zero_copy_only=False)
    rest = texts.filter(pa.array(~ascii & (found == 0)))
    if len(rest):
        counts = np.stack([pc.count_substring_regex(rest, pattern).to_numpy() for pattern in SCRIPTS.values()])
        found[~ascii & (found == 0)] = np.where(counts.any(axis=0), counts.argmax(axis=0), len(SCRIPTS))
    return found.astype(np.int8)


def languages(texts: pa.Array, script: Int8[np.ndarray, " n"]) -> Int8[np.ndarray, " n"]:
    """Of each text its language as a number of LANGUAGES, by the rule that the file says; only of texts in Latin letters."""
    found = np.full(len(texts), len(LANGUAGES) - 1, np.int8)
    latin = script == 0
    # Words with a space around each, so that a pattern that takes both finds neighbours too.
    spaced = pc.replace_substring_regex(pc.utf8_lower(texts.filter(pa.array(latin))), r"[^\p{L}]+", "  ")
    spaced = pc.binary_join_element_wise("", " ", spaced, " ", "")
    counts = np.stack(
        [pc.count_substring_regex(spaced, f" (?:{words.replace(' ', '|')}) ").to_numpy() for words in SMALL_WORDS.values()]
    )
    most, best = counts.max(axis=0, initial=0), counts.argmax(axis=0)
    told = ((counts == most).sum(axis=0) == 1) & (most >= np.where(best == ENGLISH, 1, FOREIGN))
    found[latin] = np.where(told, best, len(LANGUAGES) - 1)
    return found


def _figures(corpus: Reader, texts: Texts) -> dict[str, Any]:
    kept, count = texts.kept, len(texts.kept)
    objects, captionless = _captionless(corpus, texts)
    language = np.bincount(texts.language[kept], minlength=len(LANGUAGES))
    script = np.bincount(texts.script[kept], minlength=len(SCRIPT_NAMES))
    foreign = language[:-1].sum() - language[ENGLISH] + script[1:-1].sum()
    most = np.argsort(-texts.objects_of, kind="stable")[:SHARED_SHOWN]
    most = most[texts.objects_of[most] > 1]
    most_shared = [{"text": text, "objects": int(texts.objects_of[number])} for number, text in _texts(corpus, texts, most)]
    with_any = texts.kept_of[texts.kept_of > 0]
    return {
        "captions": count,
        "kept": int(kept.sum()),
        "kept_share": share_of(kept.sum(), count),
        "dropped_share": share_of((~kept).sum(), count),
        "objects": objects,
        "captionless": captionless,
        "captionless_share": share_of(captionless, objects),
        "kept_per_object": share_of(kept.sum(), objects),
        "kept_per_object_with_any": spread_of(with_any.astype(np.float32)),
        "words": spread_of(texts.words[kept].astype(np.float32)),
        "score": spread_of(texts.score),
        "distinct_texts": int((texts.objects_of > 0).sum()),
        "shared_share": share_of((texts.objects_of[texts.text[kept]] > 1).sum(), kept.sum()),
        "most_shared": most_shared,
        "most_shared_share": share_of(most_shared[0]["objects"] if most_shared else 0, len(with_any)),
        "english_share": share_of(language[ENGLISH], kept.sum()),
        "foreign_share": share_of(foreign, kept.sum()),
        "untold_share": share_of(kept.sum() - language[ENGLISH] - foreign, kept.sum()),
        "scripts": _counted(SCRIPT_NAMES, texts.script[kept]),
        "languages": _counted(LANGUAGES, texts.language[kept & (texts.script == 0)]),
        "dropped": _counted(texts.reasons, texts.reason[~kept]),
        "origins": {name: _origin(texts, number) for number, name in sorted(enumerate(texts.origins), key=lambda pair: pair[1])},
    }


def _origin(texts: Texts, number: int) -> dict[str, Any]:
    here = texts.origin == number
    kept = here & texts.kept
    models = {
        name: {"captions": int((here & (texts.model == model)).sum()), "kept": int((kept & (texts.model == model)).sum())}
        for model, name in enumerate(texts.models)
        if (here & (texts.model == model)).any()
    }
    return {
        "captions": int(here.sum()),
        "kept": int(kept.sum()),
        "kept_share": share_of(kept.sum(), here.sum()),
        "objects": len(np.unique(texts.object[kept])),
        "words": spread_of(texts.words[kept].astype(np.float32)),
        "score": spread_of(texts.score[here]),
        "dropped": _counted(texts.reasons, texts.reason[here & ~texts.kept]),
        "models": dict(sorted(models.items(), key=lambda pair: -pair[1]["captions"])),
    }


def _captionless(corpus: Reader, texts: Texts) -> tuple[int | None, int | None]:
    """How many objects there are, and how many of them have no kept caption."""
    if corpus.open(OBJECTS.name) is None:
        return None, None
    having = texts.objects.filter(pa.array(texts.kept_of > 0))
    objects = without = 0
    for piece in scanned(corpus.open(OBJECTS.name), ["object_id"]):
        objects += len(piece)
        without += len(piece) - pc.sum(pc.is_in(piece["object_id"], having)).as_py()
    return objects, without


def _counted(names: tuple[str, ...], codes: Int[np.ndarray, " n"]) -> dict[str, int]:
    """By name how often it occurs, the most frequent first."""
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    return {names[code]: int(counts[code]) for code in np.argsort(-counts, kind="stable") if counts[code]}


def _texts(corpus: Reader, texts: Texts, numbers: Int[np.ndarray, " m"]) -> Iterator[tuple[int, str]]:
    """The texts of these numbers."""
    rows = [int(np.argmax(texts.text == number)) for number in numbers]
    order = np.argsort(rows)
    read = corpus.need(CAPTIONS.name).take([rows[place] for place in order], columns=["text"])["text"].to_pylist() if rows else []
    found = dict(zip(order.tolist(), read, strict=True))
    yield from ((int(number), found[place]) for place, number in enumerate(numbers))


def _gates(figures: Mapping[str, Any]) -> dict[str, float | None]:
    return {
        "captionless_share": figures["captionless_share"],
        "dropped_caption_share": figures["dropped_share"],
        "kept_captions_per_object": figures["kept_per_object"],
        "shared_caption_share": figures["shared_share"],
        "foreign_caption_share": figures["foreign_share"],
    }


def _lead(figures: Mapping[str, Any]) -> str:
    if not figures["captions"]:
        return "The table of captions is empty."
    said = (
        f"{figures['kept']:,} of {figures['captions']:,} captions are kept for training "
        f"({percent(figures['kept_share'])}); half of them have {figures['words']['median']:.0f} words or fewer."
        if figures["kept"]
        else f"None of {figures['captions']:,} captions is kept for training."
    )
    if figures["captionless"]:
        said += (
            f" {figures['captionless']:,} of {figures['objects']:,} objects ({percent(figures['captionless_share'])}) have none."
        )
    elif figures["objects"]:
        said += " Every object has at least one."
    return said


def _warnings(figures: Mapping[str, Any]) -> Iterator[str]:
    if (figures["captionless_share"] or 0) > MANY_CAPTIONLESS:
        yield (
            f"{percent(figures['captionless_share'])} of the objects have no kept caption: they are not trained on where captions "
            "are asked for."
        )
    for one in figures["most_shared"][:1]:
        if figures["most_shared_share"] > MANY_SHARE and one["objects"] > MOST_PER_OBJECT:
            yield (
                f"One text, “{_short(one['text'])}”, is a kept caption of {one['objects']:,} objects: in a batch each of "
                "them is a wrong negative of the others."
            )
    if (figures["foreign_share"] or 0) > MANY_FOREIGN:
        yield f"{percent(figures['foreign_share'])} of the kept captions are not English, as far as it can be told."


def _exhibits(
    corpus: Reader, texts: Texts, figures: Mapping[str, Any], seed: int, kept_shown: int, dropped_shown: int
) -> Iterator[Exhibit]:
    if not figures["captions"]:
        return
    yield _tiles(figures)
    origins = sorted(figures["origins"].items(), key=lambda pair: -pair[1]["captions"])
    yield Bars(
        title="Where they come from",
        unit="captions",
        bars=tuple(Bar(name, one["captions"], part=one["captions"] - one["kept"]) for name, one in origins),
        part="dropped",
    )
    yield Bars(title="Why captions were dropped", unit="captions", bars=tuple(Bar(*pair) for pair in figures["dropped"].items()))
    yield _per_object(texts, figures)
    kept = texts.kept
    yield histogram(
        "Lengths of kept captions",
        "words",
        WORDS,
        texts.words[kept].astype(np.float32),
        texts.origins,
        texts.origin[kept],
        log=True,
        marks={"median": figures["words"]["median"]} if figures["kept"] else {},
        note="CLIP's text encoders read some 50 English words and cut off the rest.",
    )
    if (~np.isnan(texts.score)).any():
        yield histogram(
            "How well captions fit their objects",
            "cosine of caption and views",
            COSINES,
            texts.score,
            texts.origins,
            texts.origin,
            note="As measured when the caption was judged; captions without a score are left out.",
        )
    yield Bars(
        title="Languages of kept captions in Latin letters",
        unit="captions",
        bars=tuple(Bar(*pair) for pair in figures["languages"].items()),
        note="By small words alone: English has more of its own (the, with, of, …) than of any other language, another language "
        "at least two of its own and the most. Names and phrases without such words are not told.",
    )
    if set(figures["scripts"]) - {"Latin"}:
        yield Bars(
            title="Scripts of kept captions",
            unit="captions",
            bars=tuple(Bar(*pair) for pair in figures["scripts"].items()),
            note="The script that most letters of a caption belong to.",
        )
    yield _models_table(origins)
    if figures["most_shared"]:
        yield Rows(
            title="Texts that most objects share",
            head=("text", "objects"),
            rows=tuple((_short(one["text"]), one["objects"]) for one in figures["most_shared"]),
            folded=True,
            note="Kept captions that say the same, letter by letter, of several objects.",
        )
    yield from _samples(corpus, texts, [name for name, _ in origins][:ORIGINS_SHOWN], seed, kept_shown, dropped_shown)


def _tiles(figures: Mapping[str, Any]) -> Tiles:
    tiles = [Tile("kept", f"{figures['kept']:,}", f"{percent(figures['kept_share'])} of {figures['captions']:,}")]
    if figures["objects"]:
        without = figures["captionless"]
        tone = "bad" if figures["captionless_share"] > MANY_CAPTIONLESS else "plain"
        tiles.append(Tile("objects without one", f"{without:,}", percent(figures["captionless_share"]) + " of all", tone))
        tiles.append(Tile("kept per object", f"{figures['kept_per_object']:.1f}", "mean over all objects"))
    if figures["kept"]:
        tiles.append(Tile("different texts", f"{figures['distinct_texts']:,}", "among those kept"))
        tiles.append(Tile("shared", percent(figures["shared_share"]), "of those kept say what another object's says"))
        tiles.append(Tile("told as English", percent(figures["english_share"]), f"{percent(figures['untold_share'])} are not told"))
    return Tiles(tuple(tiles))


def _per_object(texts: Texts, figures: Mapping[str, Any]) -> Bars:
    counts = np.bincount(np.minimum(texts.kept_of[texts.kept_of > 0], MOST_PER_OBJECT), minlength=MOST_PER_OBJECT + 1)
    counts[0] = figures["captionless"] or 0
    last = int(counts.nonzero()[0].max(initial=0))
    names = [f"{number} or more" if number == MOST_PER_OBJECT else str(number) for number in range(last + 1)]
    return Bars(
        title="Kept captions per object",
        unit="objects",
        bars=tuple(Bar(name, int(count)) for name, count in zip(names, counts, strict=False)),
    )


def _models_table(origins: list[tuple[str, dict[str, Any]]]) -> Rows:
    return Rows(
        title="Who wrote them",
        head=("origin", "model or rule", "captions", "kept", "kept %"),
        rows=tuple(
            (origin, name, model["captions"], model["kept"], round(100 * model["kept"] / model["captions"], 1))
            for origin, one in origins
            for name, model in one["models"].items()
        ),
    )


def _samples(corpus: Reader, texts: Texts, origins: list[str], seed: int, kept_shown: int, dropped_shown: int) -> Iterator[Samples]:
    """Captions by chance: for each origin some that were kept, and some of each reason that were not."""
    for name in origins:
        here = texts.origin == texts.origins.index(name)
        kept = _drawn(corpus, texts, here & texts.kept, kept_shown, seed)
        if kept:
            yield Samples(title=f"Kept, {name}", samples=tuple(kept), note="One caption each of objects drawn by chance.")
        dropped = [
            sample
            for reason in _counted(texts.reasons, texts.reason[here & ~texts.kept])
            for sample in _drawn(
                corpus, texts, here & ~texts.kept & (texts.reason == texts.reasons.index(reason)), dropped_shown, seed
            )
        ]
        if dropped:
            yield Samples(title=f"Dropped, {name}", samples=tuple(dropped), note="Some of each reason, drawn by chance.")


def _drawn(corpus: Reader, texts: Texts, mask: Bool[np.ndarray, " n"], count: int, seed: int) -> list[tuple[str, str, str]]:
    """One caption each of `count` objects, both by chance, whatever order they are stored in."""
    with_any = np.zeros(len(texts.objects), bool)
    with_any[texts.object[mask]] = True
    ids = chosen(texts.objects.filter(pa.array(with_any)), count, seed=seed)
    wanted = np.zeros(len(texts.objects), bool)
    wanted[pc.index_in(ids, texts.objects).to_numpy()] = True
    columns = ["object_id", "stage", "caption", "text", "model", "dropped_because", "score"]
    found: dict[str, list[dict[str, Any]]] = {}
    for row in corpus.need(CAPTIONS.name).take(np.flatnonzero(mask & wanted[texts.object]), columns=columns).to_pylist():
        found.setdefault(row["object_id"], []).append(row)
    rng = np.random.default_rng(seed)
    rows = []
    for id in ids.to_pylist():
        several = sorted(found[id], key=lambda row: (row["stage"], row["caption"]))
        rows.append(several[rng.integers(len(several))])
    return [(row["object_id"], _short(row["text"]), _said(row)) for row in rows]


def _said(row: Mapping[str, Any]) -> str:
    said = [row["dropped_because"], row["model"], None if row["score"] is None else f"cosine {row['score']:.2f}"]
    return " · ".join(filter(None, said))


def _short(text: str) -> str:
    return text if len(text) <= READABLE else f"{text[:READABLE].rstrip()} … ({len(text):,} characters)"
