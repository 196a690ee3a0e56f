import hashlib
import html

import pytest

from captions.filters import words
from captions.metadata import CaptionMetadata, sentences_of
from captions.templates import FRAME_WORDS
from pipeline.run import run
from pipeline.sources.objaverse import Objaverse
from pipeline.stage import Single, Task
from schemas.check import to_table, violations
from schemas.tables import CAPTIONS, OBJECTS
from shout import object_row

CASTLE = {
    "name": "Medieval_Castle_v2",
    "categories": ["castle", "architecture"],
    "tags": ["medieval", "castle", "stone", "lowpoly", "fantasy", "game-ready"],
    "description": "<p>A castle with towers &amp; a moat.</p><p>Made in Blender.</p>Its roofs are of wood.<br>A third sentence.",
}


def rows_of(stage=None, **about):
    about = {"object_id": "a/1", "name": None, "categories": [], "tags": [], "description": None, "asset_format": "glb"} | about
    made = (stage or CaptionMetadata()).start()([Task(id="a/1", keys={}, rows=[about])])
    return made.rows.get("caption", []) or made.failures["caption"]["a/1"].reason


def kept(**about):
    return [(row["model"], row["text"]) for row in rows_of(**about) if row["kept"]]


def dropped(**about):
    return [(row["dropped_because"], row["text"]) for row in rows_of(**about) if not row["kept"]]


def test_each_rule_makes_the_caption_a_person_would_write():
    assert kept(**CASTLE) == [
        ("name", "Medieval Castle"),
        ("category and adjectives", "a 3D model of a medieval castle"),
        ("category", "a 3D model of a castle"),
        ("tags", "Medieval Castle, stone, fantasy"),
        ("description", "A castle with towers & a moat."),
        ("description", "Its roofs are of wood."),
    ]
    assert dropped(**CASTLE) == [("boilerplate", "Made in Blender.")]


def test_what_was_photographed_is_no_3d_model():
    assert kept(categories=["apple"], tags=["red"], asset_format="photos") == [
        ("category and adjectives", "a photo of a red apple"),
        ("category", "a photo of an apple"),
    ]


def test_a_category_that_the_name_does_not_say_joins_it():
    assert kept(name="Sports Sedan", categories=["car_(automobile)"])[1] == (
        "name and category",
        "Sports Sedan, a car (automobile)",
    )
    for name, category in [
        ("Donut", "doughnut"),
        ("Cherries", "cherry"),
        ("Cup Tea", "teacup"),
        ("Taxi", "cab_(taxi)"),
        ("Corn", "edible_corn"),
    ]:
        assert [rule for rule, _ in kept(name=name, categories=[category])] == ["name", "category"]


def test_what_may_be_several_things_is_said_only_where_nothing_else_is():
    several = "a 3D model of a cabinet, shelf or desk"
    assert [text for _, text in kept(categories=["cabinet/shelf/desk"])] == [several]
    assert [text for _, text in kept(categories=["shelf", "cabinet/shelf/desk"])] == ["a 3D model of a shelf"]
    assert [text for _, text in kept(name="Wine Rack", categories=["cabinet/shelf/desk"])] == ["Wine Rack", several]


def test_the_further_names_of_a_product_are_captions_without_its_brand():
    names = "Amazon Brand – Rivet Oval Rug, Slate Grey\nMade of wool\nEasy to clean"
    assert [text for rule, text in kept(name="Oval Rug, Yellow", description=names) if rule == "description"] == [
        "Oval Rug, Slate Grey",
        "Made of wool",
    ]


def test_an_adjective_comes_from_a_tag_and_not_from_another_word_of_the_name():
    assert ("category and adjectives", "a 3D model of a large boat") in kept(
        name="Boat Large", categories=["boat"], tags=["boat", "large"]
    )
    assert ("category and adjectives", "a 3D model of a red figurine") in kept(
        name="Iron Man", categories=["figurine"], tags=["iron", "man", "red"]
    )


def test_what_is_dropped_stays_as_it_was_with_the_reason():
    assert dropped(name="untitled_3.blend", categories=["tomato"]) == [("filename_noise", "untitled_3.blend")]
    assert dropped(name="Bike", description="Bike") == [("duplicate", "Bike")]
    assert dropped(name="Стул", categories=["chair"]) == [("not_english", "Стул")]
    assert [rule for rule, _ in kept(name="Стул", categories=["chair"])] == ["category"]


@pytest.mark.parametrize("about", [{}, {"categories": ["food-drink"]}, {"tags": ["lowpoly"]}, {"description": "<p> </p>"}])
def test_an_object_of_which_nothing_is_said_fails(about):
    assert rows_of(**about) == "no_text"


def test_settings_bound_how_much_is_taken():
    many = {
        "categories": ["cup", "mug", "pot", "jar"],
        "tags": [*"red old tin big wet dry".split()],
        "description": "One good sentence here. " * 3,
    }
    stage = CaptionMetadata(categories=1, tags=2, sentences=0)
    assert {row["text"] for row in rows_of(stage, **many) if row["model"] in ("category", "tags")} == {
        "a 3D model of a cup",
        "cup, red, old",
    }
    assert stage.settings() == {"categories": 1, "tags": 2, "sentences": 0}


@pytest.mark.parametrize(
    "description, sentences",
    [
        ("<p>One &lt;b&gt; two.</p><ul><li>three</li></ul>four<br/>five", ["One <b> two.", "three", "four", "five"]),
        ("<script>x()</script><style>b{}</style>A <b>bold</b> chair", ["A bold chair"]),
        ("One. Two! Three? St. Mary's church by J. Smith.", ["One.", "Two!", "Three?", "St. Mary's church by J. Smith."]),
        ("- **A** [link](http://a.b/c) \u200b🐺 here", ["A link here"]),
        ("wide < long & tall", ["wide < long & tall"]),
        ("", []),
    ],
)
def test_a_description_is_read_without_its_markup(description, sentences):
    assert list(sentences_of(description)) == sentences


def test_rows_keep_the_promises_of_their_table():
    rows = [row | {"stage": "s", "stage_key": "k"} for row in rows_of(**CASTLE)]
    assert not violations(CAPTIONS, to_table(CAPTIONS, rows))
    assert [row["caption"] for row in rows] == list(range(len(rows)))
    assert [row["kept"] for row in rows] == sorted((row["kept"] for row in rows), reverse=True)
    assert all(row["text_sha256"] == hashlib.sha256(row["text"].encode()).hexdigest() for row in rows)


def test_in_a_corpus_every_object_gets_captions_or_a_failure(corpus):
    corpus.append(OBJECTS, corpus.write(OBJECTS, to_table(OBJECTS, [object_row(20, name=None), object_row(21, name="scene.gltf")])))
    [summary] = run(corpus, Single(CaptionMetadata()))
    assert (summary.done, summary.reasons) == (21, {"no_text": 1})
    assert run(corpus, Single(CaptionMetadata()))[0].skipped == 22


def test_nothing_is_said_that_the_collection_does_not_say(assets):
    captions = 0
    for record in Objaverse("objaverse", str(assets / "objaverse")).records():
        said = " ".join([record["name"] or "", *record["categories"], *record["tags"], record["description"] or ""])
        known = set(words(html.unescape(said.replace("_", " ")))) | FRAME_WORDS | {"d"}  # "3D" without its digit
        rows = rows_of(**{name: record[name] for name in ("name", "categories", "tags", "description")})
        for row in rows if isinstance(rows, list) else ():
            if row["kept"]:
                captions += 1
                assert set(words(row["text"])) <= known, (record["name"], row["text"])
    assert captions > 400


def test_of_the_real_objects_only_those_without_words_have_no_caption(assets):
    without = {}
    for record in Objaverse("objaverse", str(assets / "objaverse")).records():
        rows = rows_of(**{name: record[name] for name in ("name", "categories", "tags", "description")})
        if rows == "no_text" or not any(row["kept"] for row in rows):
            without[record["name"]] = rows if rows == "no_text" else rows[0]["dropped_because"]
    assert without == {None: "no_text", "CTS 212-1": "filename_noise", "りんご 🍏 «Pomme» Яблоко": "not_english"}
