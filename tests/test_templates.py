import pytest

from captions.templates import keywords, model_of, name_and_kind, with_article

A = """banana unicycle uniform user utensil ukulele unicorn European_chair one-piece USB_stick CD_player UFO
glass_(drink_container) bus compass canvas cactus dress mattress lens heron T-shirt Ferris_wheel yacht boat"""
AN = """apple hourglass heirloom umbrella uncle urn axe ox eagle oar igloo SUV LCD_screen 8-ball X-ray unknown_thing elephant
orange_(fruit) hour honest_man alarm_clock eggbeater"""
NO_ARTICLE = "honey broccoli beef_(food) peanut_butter olive_oil scissors glasses jeans grapes sweat_pants whipped_cream underwear"


@pytest.mark.parametrize(
    "article, noun",
    [(article, noun.replace("_", " ")) for article, nouns in (("a ", A), ("an ", AN), ("", NO_ARTICLE)) for noun in nouns.split()],
)
def test_the_article_goes_with_the_sound_and_only_before_what_can_be_counted(article, noun):
    assert with_article(noun) == article + noun


def test_phrases_read_as_english():
    assert model_of("boat") == "a 3D model of a boat"
    assert model_of("vase", ["ceramic", "blue", "antique"]) == "a 3D model of an antique blue ceramic vase"
    assert model_of("car", ["red", "blue"]) == "a 3D model of a red car"
    assert model_of("car", ["red"], photographed=True) == "a photo of a red car"
    assert name_and_kind("Sports Sedan", "car (automobile)") == "Sports Sedan, a car (automobile)"
    assert keywords("Castle", ["stone", "moat"]) == "Castle, stone, moat"
    assert keywords(None, ["stone"]) == "stone"
