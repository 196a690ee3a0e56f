"""The report's section on captions, against counts made one by one in Python."""

import hashlib
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.store import Corpus
from reports.captions import LANGUAGES, SCRIPT_NAMES, captions, languages, scripts
from reports.page import page
from reports.section import Samples
from schemas.check import to_table
from schemas.corpus import Reader
from schemas.tables import CAPTIONS, OBJECTS
from shout import object_row


def caption(object_id: str, number: int, text: str, because: str | None = None, **changes) -> dict:
    return {
        "object_id": object_id,
        "origin": "metadata",
        "caption": number,
        "stage": "caption",
        "stage_key": "k",
        "text": text,
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "model": "name",
        "kept": because is None,
        "dropped_because": because,
        "score": None,
    } | changes


def made(folder: Path, rows: list[dict] | None, objects: int = 3, pieces: int = 1) -> Reader:
    """A corpus of so many objects, test/0 and on, and these captions, written in so many fragments."""
    corpus = Corpus(str(folder))
    corpus.create(OBJECTS)
    corpus.append(OBJECTS, corpus.write(OBJECTS, to_table(OBJECTS, [object_row(number) for number in range(objects)])))
    if rows is not None:
        corpus.create(CAPTIONS)
        for piece in range(pieces):
            if rows[piece::pieces]:
                corpus.append(CAPTIONS, corpus.write(CAPTIONS, to_table(CAPTIONS, rows[piece::pieces])))
    return Reader.at(corpus.root)


def exhibit(section, title: str):
    return next(one for one in section.exhibits if getattr(one, "title", None) == title)


ROWS = [
    caption("test/0", 0, "A wooden chair with four legs"),
    caption("test/0", 1, "see www.example.com", "url"),
    caption("test/0", 0, "Chair", stage="import-cap3d/test", origin="cap3d", model="Cap3D", score=0.25),
    caption("test/1", 0, "Chair"),
    caption(
        "test/1", 0, "ein Stuhl aus Holz mit einer Lehne", stage="import-cap3d/test", origin="cap3d", model="Cap3D", score=0.15
    ),
    caption("test/2", 0, "стул", "not_english"),
]


def test_every_figure_of_a_corpus_that_can_be_counted_by_hand(tmp_path):
    section = captions(made(tmp_path, ROWS))
    figures = section.figures
    assert {name: figures[name] for name in ("captions", "kept", "objects", "captionless", "distinct_texts")} == {
        "captions": 6,
        "kept": 4,
        "objects": 3,
        "captionless": 1,
        "distinct_texts": 3,
    }
    assert section.gates == {
        "captionless_share": 1 / 3,
        "dropped_caption_share": 2 / 6,
        "kept_captions_per_object": 4 / 3,
        "shared_caption_share": 2 / 4,
        "foreign_caption_share": 1 / 4,
    }
    assert figures["dropped"] == {"url": 1, "not_english": 1}
    assert figures["languages"] == {"not told": 2, "English": 1, "German": 1}
    assert figures["scripts"] == {"Latin": 4}
    assert (figures["english_share"], figures["foreign_share"], figures["untold_share"]) == (1 / 4, 1 / 4, 2 / 4)
    assert figures["most_shared"] == [{"text": "Chair", "objects": 2}]
    assert figures["words"]["median"] == np.median([6, 1, 1, 7])
    assert figures["score"]["mean"] == pytest.approx(0.2)
    assert figures["origins"]["cap3d"]["models"] == {"Cap3D": {"captions": 2, "kept": 2}}
    assert figures["origins"]["metadata"]["dropped"] == {"url": 1, "not_english": 1}
    assert [(bar.name, bar.count, bar.part) for bar in exhibit(section, "Where they come from").bars] == [
        ("metadata", 4, 2),
        ("cap3d", 2, 0),
    ]
    assert [(bar.name, bar.count) for bar in exhibit(section, "Kept captions per object").bars] == [("0", 1), ("1", 0), ("2", 2)]


def test_figures_agree_with_counting_one_by_one_however_the_rows_are_stored(tmp_path, rng):
    origins, words = ("metadata", "cap3d", "captioner"), "oak red the of chair".split()
    rows = [
        caption(
            f"test/{rng.integers(40)}",
            number,
            " ".join(rng.choice(words, rng.integers(1, 4))),
            [None, None, "url", "hash"][rng.integers(4)],
            origin=origins[rng.integers(3)],
        )
        for number in range(300)
    ]
    section = captions(made(tmp_path / "a", rows, objects=60, pieces=3))
    kept = [row for row in rows if row["kept"]]
    having, saying = defaultdict(set), defaultdict(set)
    for row in kept:
        having[row["object_id"]].add(row["text"])
        saying[row["text"]].add(row["object_id"])
    figures = section.figures
    assert figures["kept"] == len(kept)
    assert figures["captionless"] == 60 - len(having)
    assert figures["shared_share"] == pytest.approx(sum(len(saying[row["text"]]) > 1 for row in kept) / len(kept))
    assert figures["dropped"] == dict(Counter(row["dropped_because"] for row in rows if not row["kept"]).most_common())
    assert [one["objects"] for one in figures["most_shared"]] == sorted(map(len, saying.values()), reverse=True)[:20]
    assert all(one["objects"] == len(saying[one["text"]]) for one in figures["most_shared"])
    for origin in origins:
        assert figures["origins"][origin]["objects"] == len({row["object_id"] for row in kept if row["origin"] == origin})
    lengths = exhibit(section, "Lengths of kept captions")
    assert {name: sum(counts) for name, counts in lengths.series.items()} == Counter(row["origin"] for row in kept)
    other = captions(made(tmp_path / "b", rows[::-1], objects=60))
    assert [one for one in other.exhibits if isinstance(one, Samples)] == [
        one for one in section.exhibits if isinstance(one, Samples)
    ]
    assert other.figures | {"most_shared": None, "dropped": None} == figures | {"most_shared": None, "dropped": None}


def test_without_captions_the_same_figures_are_named_and_none_is_known(tmp_path):
    there, absent = captions(made(tmp_path / "a", ROWS)), captions(made(tmp_path / "b", None))
    assert absent.figures.keys() == there.figures.keys()
    assert absent.figures["words"] == dict.fromkeys(there.figures["words"])
    assert not any(value for value in absent.figures.values() if not isinstance(value, dict))
    assert absent.gates == dict.fromkeys(there.gates)
    assert "python -m jobs caption" in absent.lead and absent.exhibits == () and absent.warnings == ()


def test_captions_in_another_script_are_foreign_and_those_without_letters_are_not_told(tmp_path):
    rows = [caption("test/0", number, text) for number, text in enumerate(("стул", "木の椅子", "1 2 3", "the chair"))]
    figures = captions(made(tmp_path, rows)).figures
    assert (figures["foreign_share"], figures["untold_share"], figures["english_share"]) == (0.5, 0.25, 0.25)


def test_an_empty_table_of_captions_is_no_error(tmp_path):
    section = captions(made(tmp_path, []))
    assert (section.figures["captions"], section.figures["kept_share"], section.gates["captionless_share"]) == (0, None, 1.0)


def test_samples_are_of_what_they_say_and_long_texts_are_cut(tmp_path):
    page_long = "lorem ipsum " * 100
    rows = [caption(f"test/{number}", 0, f"chair {number}") for number in range(30)]
    rows += [
        caption(f"test/{number}", 1, page_long if number == 3 else "x y", "too_long" if number < 9 else "url")
        for number in range(20)
    ]
    corpus = made(tmp_path, rows, objects=30)
    section = captions(corpus, kept_shown=7, dropped_shown=9)
    kept, dropped = exhibit(section, "Kept, metadata").samples, exhibit(section, "Dropped, metadata").samples
    assert len(kept) == len({head for head, _, _ in kept}) == 7
    assert all(text == f"chair {head.partition('/')[2]}" for head, text, _ in kept)
    assert Counter(note for _, _, note in dropped) == {"too_long · name": 9, "url · name": 9}
    shown = next(text for _, text, _ in dropped if text.startswith("lorem"))
    assert len(shown) < 320 and shown.endswith("(1,200 characters)")
    assert exhibit(captions(corpus, seed=1, kept_shown=7), "Kept, metadata").samples != kept


def test_one_text_of_many_objects_and_objects_without_captions_are_warned_of(tmp_path):
    rows = [caption(f"test/{number}", 0, "a 3D model") for number in range(12)]
    warnings = captions(made(tmp_path, rows, objects=20)).warnings
    assert any("40.0" in warning and "no kept caption" in warning for warning in warnings)
    assert any("“a 3D model”" in warning and "12 objects" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("a wooden chair with four legs", "English"),
        ("The handle of a knife", "English"),
        ("ein Stuhl aus Holz mit einer Lehne", "German"),
        ("une chaise en bois avec des accoudoirs", "French"),
        ("una silla de madera con los brazos", "Spanish"),
        ("una sedia di legno con il cuscino", "Italian"),
        ("uma cadeira de madeira com os braços", "Portuguese"),
        ("een houten stoel met het kussen", "Dutch"),
        ("wooden chair", "not told"),
        ("sedia con una", "not told"),  # as much Spanish as Italian
        ("die cast car", "not told"),  # one German word is none
        ("die-cast car of the fifties", "English"),
        ("Théière", "not told"),
        ("", "not told"),
        ("стул the of", "not told"),  # not in Latin letters: the script says it
    ],
)
def test_languages_by_their_small_words(text, language):
    texts = pa.array(["padding", text])
    script = scripts(texts)
    script[1] = 1 if text.startswith("стул") else script[1]
    assert LANGUAGES[languages(texts, script)[1]] == language


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("chair", "Latin"),
        ("Théière n° 5", "Latin"),
        ("деревянный стул", "Cyrillic"),
        ("стул (chair)", "Latin"),  # five letters of nine
        ("木の椅子", "Chinese characters"),
        ("いすです", "Kana"),
        ("의자", "Hangul"),
        ("كرسي", "Arabic"),
        ("כיסא", "Hebrew"),
        ("καρέκλα", "Greek"),
        ("เก้าอี้", "Thai"),
        ("कुर्सी", "Devanagari"),
        ("աթոռ", "another script"),
        ("123 – 45", "no letters"),
        ("№ ☃", "no letters"),
        ("", "no letters"),
    ],
)
def test_scripts_by_most_letters(text, script):
    assert SCRIPT_NAMES[scripts(pa.array(["chair", text]))[1]] == script


def test_the_section_is_json_and_makes_a_page(tmp_path):
    section = captions(made(tmp_path, ROWS))
    json.dumps(section.figures, allow_nan=False)
    assert "A wooden chair with four legs" in page([section], title="t", made="m")
