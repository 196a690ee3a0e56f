"""The report's page as text: all of it shown, none of it run, nothing loaded. In a browser: test_report_browser.py."""

import base64
import hashlib
import io
import json
import math
import re
from pathlib import Path

import lxml.html
import numpy as np
import pytest
from PIL import Image
from plotly.offline import get_plotlyjs

from reports import page as module
from reports.page import page
from reports.section import Bar, Bars, Case, Cases, Histogram, Map, Picture, Pictures, Rows, Samples, Section, Tile, Tiles

HOME = Path(module.__file__).with_name("page")
HOSTILE = "</script><script>owned()</script><img src=x onerror=owned()>'\"&amp;{{ 7 * 7 }}]]>"
NAMES = ("0", "A" * 300, "椅子", "كرسي خشبي", "🪑\u202egnp.exe", "line\nbreak", HOSTILE)


def encoded(color, size=(48, 32), format="WEBP") -> bytes:
    """A picture of one colour, encoded without loss."""
    file = io.BytesIO()
    Image.new("RGBA" if format != "JPEG" else "RGB", size, color).save(
        file, format, **({"lossless": True} if format == "WEBP" else {})
    )
    return file.getvalue()


def section(*exhibits, key="made", warnings=()) -> Section:
    return Section(key=key, title=f"Title of {key}", lead=f"Lead of {key}.", figures={}, warnings=warnings, exhibits=exhibits)


def parsed(*exhibits, **more) -> lxml.html.HtmlElement:
    return lxml.html.document_fromstring(page([section(*exhibits, **more)], title="Title", made="Made"))


def of_every_kind(name: str) -> list[Section]:
    """A section with an exhibit of every kind in which every text is `name`."""
    picture = encoded((200, 30, 30, 255))
    exhibits = (
        Tiles((Tile(name, name, name, "bad"),)),
        Bars(title=name, unit=name, bars=(Bar(name, 3, name, 1),), left_out=(2, 5), part=name, note=name),
        Histogram(title=name, unit=name, edges=(0.0, 1.0, 2.0), series={name: (1, 2), "b": (0, 4)}, marks={name: 1.0}, note=name),
        Rows(title=name, head=(name, "n"), rows=((name, 1), (None, None), (name, 2.5)), note=name),
        Rows(title=name, head=(name,), rows=((name,),), folded=True, note=name),
        Pictures(title=name, pictures=(Picture(picture, name, name),), note=name),
        Cases(title=name, count=1, cases=(Case(head=name, text=name, picture=picture, log=name, command=name),), note=name),
        Map(title=name, x=(0.0,), y=(0.0,), labels=(name,), colors={name: (name,)}, pictures=(picture,), note=name),
        Samples(title=name, samples=((name, name, name),), note=name),
    )
    return [Section(key="all", title=name, lead=name, figures={}, warnings=(name,), exhibits=exhibits)]


def empty_of_every_kind() -> tuple:
    return (
        Tiles(()),
        Bars(title="bars", unit="objects", bars=()),
        Histogram(title="histogram", unit="words", edges=(), series={}),
        Histogram(title="zeros", unit="words", edges=(0.0, 1.0), series={"a": (0,)}),
        Rows(title="rows", head=("name", "count"), rows=()),
        Rows(title="folded", head=(), rows=(), folded=True),
        Pictures(title="pictures", pictures=()),
        Cases(title="cases", count=0, cases=()),
        Map(title="map", x=(), y=(), labels=(), colors={}, pictures=()),
        Samples(title="samples", samples=()),
    )


# ---- nothing runs, nothing is loaded


@pytest.mark.parametrize("name", NAMES)
def test_no_text_becomes_markup(name):
    plain, told = (lxml.html.document_fromstring(page(of_every_kind(one), title=one, made=one)) for one in ("plain", name))
    assert [node.tag for node in told.iter()] == [node.tag for node in plain.iter()]
    assert not [key for node in told.iter() for key in node.attrib if key.startswith("on")]


def test_every_text_is_shown_where_it_belongs():
    told = lxml.html.document_fromstring(page(of_every_kind(HOSTILE), title=HOSTILE, made=HOSTILE))
    for style in told.xpath("//style | //script[not(@type)]"):
        style.drop_tree()
    places = {
        "h1",
        "h2",
        "h3",
        "h4",
        "dt",
        "b",
        "small",
        "th",
        "td",
        "figcaption",
        "p",
        "pre",
        "code",
        "q",
        "li",
        "summary",
        "span",
    }
    assert {tag for tag in places if not any(HOSTILE in node.text_content() for node in told.iter(tag))} == set()
    assert {image.get("alt") for image in told.iter("img")} == {HOSTILE}
    charts = [json.loads(node.text_content()) for node in told.xpath("//script[@type='application/json']")]
    assert (
        charts[0]["series"][0]["name"] == charts[0]["unit"] == charts[1]["labels"][0] == charts[1]["colors"][0]["name"] == HOSTILE
    )


def test_only_its_own_two_scripts_may_run_and_nothing_may_be_loaded():
    text = page(of_every_kind(HOSTILE), title="t", made="m")
    told = lxml.html.document_fromstring(text)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert scripts == [(HOME / "page.js").read_text("utf-8"), get_plotlyjs()]
    [policy] = told.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    allowed = dict(one.split(" ", 1) for one in policy.split("; "))
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert allowed.pop("script-src").split() == [f"'sha256-{one}'" for one in hashes]
    assert allowed.pop("style-src") == "'unsafe-inline'" and allowed.pop("img-src") == "data: blob:"
    assert allowed["default-src"] == "'none'" and set(allowed.values()) == {"'none'"}


@pytest.mark.parametrize("count", [module.SVG_AT_MOST, module.SVG_AT_MOST + 1])
def test_only_a_map_that_is_drawn_by_webgl_may_compile_functions(count):
    numbers = (0.0,) * count
    told = parsed(Map(title="m", x=numbers, y=numbers, labels=("a",) * count, colors={}, pictures=(None,) * count))
    [policy] = told.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    assert ("'unsafe-eval'" in policy) == (count > module.SVG_AT_MOST)


def test_no_address_leads_out_of_the_file():
    told = lxml.html.document_fromstring(page(of_every_kind("x"), title="t", made="m"))
    places = told.xpath("//@src | //@href | //@action | //@data | //@poster | //@srcset")
    assert len(places) > 5 and all(place.startswith(("data:image/", "#")) for place in places)
    assert not told.xpath("//link | //iframe | //object | //embed | //base | //form")
    style = (HOME / "colors.css").read_text("utf-8") + (HOME / "page.css").read_text("utf-8")
    assert "url(" not in style and "@import" not in style


def test_scripts_and_style_cannot_end_their_own_tag():
    assert "</script" not in (HOME / "page.js").read_text("utf-8").lower() + get_plotlyjs().lower()
    assert "</style" not in (HOME / "page.css").read_text("utf-8").lower()


# ---- the page as a whole


def test_what_is_empty_says_so_and_draws_nothing():
    told = parsed(*empty_of_every_kind())
    said = {
        node.getparent().find("h3").text: node.text
        for node in told.xpath("//p[@class='none']")
        if node.getparent().find("h3") is not None
    }
    assert said == {
        "bars": "None.",
        "histogram": "No values.",
        "zeros": "No values.",
        "rows": "None.",
        "pictures": "None.",
        "map": "No objects.",
        "samples": "None.",
    }
    assert not told.xpath("//*[@data-chart]")


def test_a_report_of_nothing_is_a_page():
    told = lxml.html.document_fromstring(page([], title="Nothing", made="Made"))
    assert told.xpath("//h1/text()") == ["Nothing"] and not told.xpath("//section")


def test_plotly_is_in_the_page_once_and_only_where_something_is_drawn():
    chart = Histogram(title="h", unit="u", edges=(0, 1), series={"a": (1,)})
    assert page([section(Samples(title="s", samples=()))], title="t", made="m").count("plotly.js v") == 0
    assert page([section(chart, chart), section(chart, key="b")], title="t", made="m").count("plotly.js v") == get_plotlyjs().count(
        "plotly.js v"
    )


def test_sections_are_linked_and_warnings_are_said_first_and_counted():
    sections = [section(key="a"), section(key="b", warnings=("first", "second")), section(key="c", warnings=("third",))]
    told = lxml.html.document_fromstring(page(sections, title="t", made="m"))
    assert [node.get("id") for node in told.iter("section")] == ["a", "b", "c"]
    assert told.xpath("//nav//a/@href") == ["#a", "#b", "#c"]
    assert told.xpath("//nav//b/text()") == ["2", "1"]
    said = [" ".join(node.text_content().split()) for node in told.xpath("//aside//li")]
    assert said == ["Title of b first", "Title of b second", "Title of c third"]
    assert told.xpath("//section[@id='b']/ul[@class='warnings']/li/text()") == ["first", "second"]


def test_headings_go_down_one_by_one_and_ids_are_unique():
    told = lxml.html.document_fromstring(page(of_every_kind("x"), title="t", made="m"))
    levels = [int(node.tag[1]) for node in told.iter("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    ids = told.xpath("//@id")
    assert len(ids) == len(set(ids))
    assert set(told.xpath("//@aria-controls | //@aria-labelledby")) <= set(ids)


def test_two_sections_of_one_key_are_refused():
    with pytest.raises(ValueError, match="two sections of a report have the key 'a'"):
        page([section(key="a"), section(key="b"), section(key="a")], title="t", made="m")


def test_a_number_that_is_none_is_refused():
    chart = Map(title="m", x=(math.nan,), y=(0.0,), labels=("a",), colors={}, pictures=(None,))
    with pytest.raises(ValueError, match="not JSON compliant"):
        page([section(chart)], title="t", made="m")


# ---- kinds


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (None, "–"),
        (0, "0"),
        (1234567, "1,234,567"),
        (-1234, "-1,234"),
        (0.123456, "0.1235"),
        (12.0, "12"),
        (999.96, "1,000"),
        (1234.5678, "1,235"),
        (2.5e-7, "2.5e-07"),
        (np.float32(0.25), "0.25"),
        (np.int64(5000), "5,000"),
        ("1234567", "1234567"),
    ],
)
def test_numbers_are_written_for_people(value, read):
    told = parsed(Rows(title="r", head=("a",), rows=((value,),)))
    assert told.xpath("//td")[0].text_content() == read


def test_columns_of_numbers_are_set_to_the_right_and_sort_by_value():
    table = Rows(title="r", head=("text", "number", "mixed", "nothing"), rows=(("a", 1000, 1, None), ("b", None, "x" * 31, None)))
    told = parsed(table)
    assert [node.get("class") for node in told.xpath("//th")] == ["short", "number", "long", "short"]
    assert [node.get("data-value") for node in told.xpath("//td[2]")] == ["1000", ""]


def test_a_bar_is_as_long_as_its_share_of_a_full_one():
    bars = (Bar("half", 50, part=10), Bar("none", 0), Bar("all", 100))
    for of, widths in ((None, [50, 100]), (200, [25, 50])):
        told = parsed(Bars(title="b", unit="objects", bars=bars, of=of, part="failed", left_out=(3, 1234)))
        assert [float(style[6:-1]) for style in told.xpath("//td[@class='bar']/span/@style")] == widths
        assert told.xpath("//td[@class='bar']/span/i/@style") == ["width:20.00%"]
        assert told.xpath("//p[@class='note']/text()") == ["And 3 more with 1,234 objects together."]
        assert [node.text_content() for node in told.xpath("//td[2]")] == ["50", "0", "100"]


def test_a_histogram_has_its_figures_in_a_table_and_for_the_script():
    chart = Histogram(
        title="h",
        unit="words",
        edges=(1.0, 10.0, 100.0),
        series={"a": (1, 2000), "red": (0, 3)},
        log=True,
        shares=True,
        marks={"m": 7},
    )
    told = parsed(chart)
    cells = [[cell.text_content() for cell in row.iter("td", "th")] for row in told.xpath("//details//tr")]
    assert cells == [["from", "to (words)", "a", "red"], ["1", "10", "1", "0"], ["10", "100", "2,000", "3"]]
    assert json.loads(told.xpath("//script[@type='application/json']")[0].text) == {
        "unit": "words",
        "edges": [1, 10, 100],
        "series": [{"name": "a", "color": "c0", "counts": [1, 2000]}, {"name": "red", "color": "c5", "counts": [0, 3]}],
        "log": True,
        "shares": True,
        "marks": {"m": 7},
    }


@pytest.mark.parametrize("count", [1, 5, 700])
def test_the_sprite_holds_each_objects_picture_where_its_cell_says(count, rng):
    colors = [tuple(int(value) for value in rng.integers(0, 255, 3)) + (255,) for _ in range(count)]
    pictures = [None if number % 4 == 3 else encoded(color, (64, 64)) for number, color in enumerate(colors)]
    numbers = tuple(float(value) for value in rng.normal(size=count))
    chart = Map(title="m", x=numbers, y=numbers, labels=("a",) * count, colors={"s": numbers}, pictures=tuple(pictures))
    data = json.loads(parsed(chart).xpath("//script[@type='application/json']")[0].text)
    sprite = data["sprite"]
    sheet = np.asarray(
        Image.open(io.BytesIO(base64.b64decode(sprite["src"].removeprefix("data:image/webp;base64,")))).convert("RGB")
    )
    tile, columns = sprite["tile"], sprite["columns"]
    for color, picture, cell in zip(colors, pictures, data["cells"], strict=True):
        assert (picture is None) == (cell == -1)
        if picture is not None:
            x, y = (cell % columns) * tile, (cell // columns) * tile
            seen = sheet[y + tile // 2 - 4 : y + tile // 2 + 4, x + tile // 2 - 4 : x + tile // 2 + 4].mean(axis=(0, 1))
            assert np.abs(seen - color[:3]).max() < 12
    assert np.allclose(data["x"], numbers, atol=1e-4) and data["colors"][0]["groups"] is False


def test_a_map_without_pictures_has_no_sprite_and_texts_make_groups():
    chart = Map(title="m", x=(0.0, 1.0), y=(0.0, 1.0), labels=("a", "b"), colors={"s": (None, "x")}, pictures=(None, None))
    data = json.loads(parsed(chart).xpath("//script[@type='application/json']")[0].text)
    assert (data["sprite"], data["cells"], data["colors"]) == (
        None,
        [-1, -1],
        [{"name": "s", "groups": True, "values": [None, "x"]}],
    )


@pytest.mark.parametrize(("format", "mime"), [("WEBP", "image/webp"), ("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_a_picture_is_in_the_page_as_it_was_encoded_and_with_its_size(format, mime):
    picture = encoded((10, 200, 30), format=format)
    [image] = parsed(Pictures(title="p", pictures=(Picture(picture, "name"),), tile=200)).iter("img")
    assert image.get("src") == f"data:{mime};base64,{base64.b64encode(picture).decode()}"
    assert (image.get("width"), image.get("height"), image.get("alt")) == ("48", "32", "name")


def test_failures_are_folded_and_say_how_many_of_how_many():
    case = Case(head="test/1", text="what happened", log="tail", command="python -m jobs retry ROOT")
    [fold] = parsed(Cases(title="render: memory", count=1200, cases=(case,))).xpath("//details")
    assert fold.get("open") is None
    assert " ".join(fold.find("summary").text_content().split()) == "render: memory 1,200, 1 shown"
    assert [fold.xpath(f".//{tag}")[0].text_content() for tag in ("h4", "pre", "code")] == [
        "test/1",
        "tail",
        "python -m jobs retry ROOT",
    ]


# ---- colours


def luminance(color: str) -> float:
    """Relative luminance, WCAG 2.2."""
    channels = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    red, green, blue = (channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_texts_and_charts_stand_out_from_their_ground_in_both_schemes():
    told = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", (HOME / "colors.css").read_text("utf-8"))
    colors = {name: pair for name, *pair in told}
    texts = [(ink, ground, 4.5) for ink in ("ink", "grey", "accent", "bad", "good") for ground in ("paper", "raised")]
    texts += [("ink", "bad-paper", 4.5), ("bad", "bad-paper", 4.5), ("accent", "bad-paper", 4.5)]
    charts = [(f"c{number}", "paper", 3) for number in range(10)]
    for ink, ground, least in texts + charts:
        for scheme in (0, 1):
            low, high = sorted(luminance(colors[name][scheme]) for name in (ink, ground))
            assert (high + 0.05) / (low + 0.05) >= least, (ink, ground, ("light", "dark")[scheme])
