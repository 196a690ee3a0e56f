import time

import pytest

from captions.filters import category_fault, name_fault, same_text, sentence_fault, without_codes

NAMES = {
    None: [
        "Chair",
        "Ax",
        "TV",
        "AK-47",
        "R2-D2",
        "BMW M3",
        "Cube",
        "School",
        "Café Noir",
        "Boeing 747",
        "T-Rex",
        "M4A1 Carbine",
        "Porsche 911",
    ],
    "url": ["www.site.com", "see https://a.b/c", "ann@example.org", "@ann"],
    "not_english": ["Стул", "椅子", "りんご 🍏 «Pomme» Яблоко", "كرسي"],
    "only_digits": ["12345", "2021 03", "#7", "..."],
    "hash": ["8476c4170df24cf5bbe6967222d1a42d", "5e2f9a1b-1234-4abc-9def-001122334455", "a1b2c3d4e5f6g7"],
    "filename_noise": [
        "untitled",
        "Scene 3",
        "model final 2",
        "DSC01234",
        "IMG 2034",
        "CTS 212-1",
        "test",
        "asdf",
        "New Project",
        "Q7K3 ZX81 TT42",
    ],
    "too_short": ["e", "X"],
    "too_long": ["word " * 60, "x" * 500],
}
SENTENCES = {
    None: [
        "A small medieval castle with four towers & a moat.",
        "The Eiffel Tower is a wrought-iron lattice tower in Paris.",
        "Coffee shop with a license plate on its wall.",
        "Tank from World War I with riveted plates.",
        "Les Paul, a solid body guitar.",
        "A commercial airliner with two engines.",
        "Apple Half - low poly food model",
    ],
    "boilerplate": [
        "Easy to clean",
        "Free returns for 30 days.",
        "Made in Blender 2.8.",
        "I made this for school.",
        "This was fun, so i added more.",
        "Licensed under CC-BY, free to use.",
        "Follow me on Instagram!",
        "Includes 4k PBR textures.",
        "Please like and subscribe.",
        "The model has 3400 tris.",
        "My first model ever here.",
        "Export by Alan Grice Staircase",
        "Scanned with an Artec Eva",
    ],
    "url": ["See http://example.com/?q=1 for more.", "Find it at my-shop.com today and enjoy."],
    "not_english": [
        "Ein kleiner Stuhl mit einem Kissen.",
        "Une chaise en bois avec des pieds.",
        "Télécharger & réutiliser — 100 % libre",
        "小さな木の椅子",
    ],
    "repetitive": ["fire hydrant fire hydrant fire hydrant fire hydrant"],
    "too_short": ["Nice chair.", "Height: 34 cm", "Dimensions: 10 x 5 x 12 cm"],
    "too_long": ["lorem ipsum " * 30],
    "only_digits": ["12.5 / 8"],
}


def cases(table):
    return [pytest.param(reason, text, id=f"{reason}: {text[:30]}") for reason, texts in table.items() for text in texts]


@pytest.mark.parametrize("reason, text", cases(NAMES))
def test_a_name_is_kept_or_dropped_for_its_reason(reason, text):
    assert name_fault(text) == reason


@pytest.mark.parametrize("reason, text", cases(SENTENCES))
def test_a_sentence_is_kept_or_dropped_for_its_reason(reason, text):
    assert sentence_fault(text) == reason


@pytest.mark.parametrize(
    "category, reason", [("blender", None), ("camera", None), ("ax", None), ("椅子", "not_english"), ("7", "only_digits")]
)
def test_a_category_may_be_a_word_that_as_a_name_is_noise(category, reason):
    assert category_fault(category) == reason


def test_codes_go_and_words_and_numbers_stay():
    text = "chair 8476c4170df24cf5bbe6967222d1a42d of 1967 from a1b2c3d4e5f6g7 deadbeef cafe AK47"
    assert without_codes(text).split() == "chair of 1967 from deadbeef cafe AK47".split()


def test_texts_that_differ_in_case_and_marks_say_the_same():
    assert same_text("Low-Poly  Tree!") == same_text("low poly tree") != same_text("low poly trees")


@pytest.mark.parametrize("piece", ["a", "a1", "b1", "(", "- ", "@", "a.b", "1 ", "i ", "bbbb1234"])
def test_no_text_takes_long(piece):
    began = time.perf_counter()
    for text in (piece * (400 // len(piece)), piece * 100_000):
        name_fault(text), sentence_fault(text), category_fault(text)
    assert time.perf_counter() - began < 1
