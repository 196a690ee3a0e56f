"""The report's page in a browser: what moves, what is pointed at, how it is on a phone, and that it asks nobody anything."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import PHONE, browser  # noqa: F401
from PIL import Image

from pipeline.store import Corpus
from reports.captions import captions
from reports.embeddings import embeddings
from reports.failures import failures
from reports.overview import overview
from reports.page import SVG_AT_MOST, page
from reports.section import Bar, Bars, Case, Cases, Histogram, Map, Picture, Pictures, Rows, Samples, Section, Tile, Tiles
from schemas.check import to_table
from schemas.tables import FAILURES
from separable import separable

HOSTILE = "</script><script>window.owned = 1</script><img src=x onerror='window.owned = 1'><b>bold</b>"
EVAL = " &#39;unsafe-eval&#39;"
GROUPS = ("objaverse", "shapenet")
COLORS = ((200, 30, 30, 255), (30, 60, 200, 255))
OBJECTS = 24


def picture(color, size=(64, 64)) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", size, color).save(file, "WEBP", lossless=True)
    return file.getvalue()


def map_of(count: int) -> Map:
    """Objects on a circle, the first of them called `HOSTILE`, every other one red."""
    angles = 2 * np.pi * np.arange(count) / count
    return Map(
        title="Map",
        x=tuple(np.cos(angles)),
        y=tuple(np.sin(angles)),
        labels=(HOSTILE, *(f"Thing {number}\ntest/{number}" for number in range(1, count))),
        colors={
            "source": tuple(GROUPS[number % 2] for number in range(count)),
            "score": tuple(None if number == 3 else number / count for number in range(count)),
        },
        pictures=tuple(picture(COLORS[number % 2]) if number != 5 else None for number in range(count)),
    )


def sections() -> list[Section]:
    long = "objaverse/" + "0123456789abcdef" * 8
    exhibits = {
        "overview": (
            Tiles(tuple(Tile(f"figure {number}", "1,000,000", long) for number in range(6))),
            Bars(title="Sources", unit="objects", bars=(Bar(long, 100, "note", 20), Bar("b", 0)), part="failed"),
            Rows(
                title="Tables",
                head=("name", "count", *(f"column {number}" for number in range(12))),
                rows=tuple((f"row {number}", (number * 7) % 30 if number else None, *([long[:20]] * 12)) for number in range(30)),
            ),
        ),
        "failures": (
            Cases(
                title="render: out-of-memory",
                count=900,
                cases=(
                    Case(
                        head="test/1",
                        text=f"Blender took more than 8 GB. {HOSTILE}",
                        picture=picture(COLORS[0], (384, 96)),
                        log="x" * 400,
                        command="python -m jobs retry /data/c --stage render --reason out-of-memory",
                    ),
                ),
            ),
        ),
        "captions": (
            *(
                Histogram(
                    title=f"{kind} words",
                    unit="words",
                    edges=edges,
                    series=series,
                    log=kind == "log",
                    marks={"limit": 12},
                )
                for kind, edges in {"linear": (0, 10, 20, 30), "log": (1, 10, 100, 1000)}.items()
                for series in ({"all": (1, 20, 3)}, {"kept": (1, 20, 3), HOSTILE: (4, 0, 6)})
            ),
            Samples(title="Captions", samples=((long, HOSTILE, ""), (long, "كرسي " * 60, long))),
            Pictures(title="Views", pictures=(Picture(picture(COLORS[0], (512, 64)), long, long),) * 3, tile=600),
        ),
        "embeddings": (map_of(OBJECTS),),
    }
    return [
        Section(key=key, title=key.title(), lead=f"Lead of {key}.", figures={}, warnings=(long,), exhibits=shown)
        for key, shown in exhibits.items()
    ]


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("page") / "report.html"
    made.write_text(page(sections(), title="A corpus", made="Made today"), encoding="utf-8")
    return made


@pytest.fixture
def opened(browser, file) -> Iterator:  # noqa: F811
    """Opens the report, or another file, in a tab. In the end there must have been no complaint and no request of any of them."""
    contexts, bad = [], []

    def open_page(place=file, **settings):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | settings)
        context.set_default_timeout(10_000)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: bad.append(message.text) if message.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: bad.append(str(error)))
        tab.on(
            "request", lambda request: bad.append(request.url) if not request.url.startswith(("file:", "data:", "blob:")) else None
        )
        tab.goto(place.as_uri())
        return tab

    yield open_page
    owned = [tab.evaluate("window.owned") for context in contexts for tab in context.pages]
    for context in contexts:
        context.close()
    assert bad == [] and set(owned) <= {None}


def drawn(tab, chart):
    """The chart, in the middle of the window and drawn."""
    middle = "node => node.scrollIntoView({block: 'center', behavior: 'instant'})"
    chart.evaluate(middle)
    plot = chart.locator(".plot:has(.main-svg)")
    plot.wait_for()
    plot.evaluate(middle)
    return chart


def point_at(tab, chart, x: float, y: float) -> None:
    """The mouse to a place of a map, in its own coordinates."""
    at = chart.locator(".plot").evaluate(
        """(plot, [x, y]) => {
          const {left, top} = plot.getBoundingClientRect(), {xaxis, yaxis} = plot._fullLayout;
          return [left + xaxis._offset + xaxis.d2p(x), top + yaxis._offset + yaxis.d2p(y)];
        }""",
        [x, y],
    )
    tab.mouse.move(at[0] + 2, at[1] + 2)
    tab.mouse.move(*at)


def test_a_corpus_is_audited_from_its_map_to_how_a_failure_is_tried_again(opened, tmp_path):
    corpus = separable(tmp_path / "corpus", objects=OBJECTS)
    _fail(corpus, "test/99", "render", "blender_crashed", f"Blender died of signal 11: {HOSTILE}")
    _fail(corpus, "test/98", "points", "no_surface", "The mesh has no faces.")
    made = tmp_path / "report.html"
    sections = [make(corpus) for make in (overview, failures, captions, embeddings)]
    made.write_text(page(sections, title="A corpus", made="Made today"), encoding="utf-8")
    tab = opened(made)

    chart = drawn(tab, tab.locator(".map"))
    data = json.loads(chart.locator("script").text_content())
    assert len(data["labels"]) == OBJECTS
    for number in (0, 11):
        point_at(tab, chart, data["x"][number], data["y"][number])
        name, id = data["labels"][number].split("\n")
        card = chart.locator(".card")
        card.locator("b", has_text=id).wait_for()
        assert (name, card.locator("b").text_content()) == (f"Thing {id.removeprefix('test/')}", f"{name}\n{id}")
        assert card.locator(".picture").is_visible()
    names = chart.locator("select option").all_text_contents()
    chart.locator("select").select_option("category")
    legend = [text.removesuffix("6") for text in chart.locator(".legend button").all_text_contents()]
    assert {"source", "category"} < set(names) and sorted(legend) == [f"class {number}" for number in range(4)]

    fold = tab.locator("#failures details", has_text="blender_crashed")
    fold.locator("summary").click()
    assert fold.locator(".case p").first.text_content().startswith(f"Blender died of signal 11: {HOSTILE}")
    command = fold.locator("code")
    assert command.is_visible()
    assert command.text_content() == f"python -m jobs retry {corpus.root} --stage render --reason blender_crashed"
    assert not tab.locator("#failures details", has_text="no_surface").locator("code").is_visible()


def _fail(corpus: Corpus, id: str, stage: str, reason: str, message: str) -> None:
    row = {"object_id": id, "stage": stage, "stage_key": "k", "reason": reason, "message": message, "attempts": 1}
    corpus.create(FAILURES)
    corpus.append(FAILURES, corpus.write(FAILURES, to_table(FAILURES, [row])))


def test_what_the_mouse_points_at_on_the_map_is_named_and_pictured(opened):
    tab = opened()
    chart = drawn(tab, tab.locator(".map"))
    place = map_of(OBJECTS)
    card = chart.locator(".card")
    for number, (said, color) in {
        6: ("Thing 6\ntest/6", COLORS[0]),
        7: ("Thing 7\ntest/7", COLORS[1]),
        0: (HOSTILE, COLORS[0]),
    }.items():
        point_at(tab, chart, place.x[number], place.y[number])
        card.locator("b", has_text=said.split("\n")[0]).wait_for()
        assert card.locator("b").text_content() == said
        assert card.locator("dd").all_text_contents() == [GROUPS[number % 2], f"{number / OBJECTS:.4g}"]
        shown = np.asarray(Image.open(io.BytesIO(card.locator(".picture").screenshot())).convert("RGB"))
        middle = shown[shown.shape[0] // 2, shown.shape[1] // 2].astype(int)
        assert np.abs(middle - color[:3]).max() < 12
    tab.mouse.move(5, 5)
    card.wait_for(state="hidden")
    point_at(tab, chart, place.x[5], place.y[5])
    card.wait_for()
    assert card.locator(".picture").count() == 0


def test_the_map_is_coloured_by_what_is_chosen_and_leaves_out_what_is_pressed(opened):
    tab = opened()
    chart = drawn(tab, tab.locator(".map"))
    legend = chart.locator(".legend button")
    points = chart.locator(".points path")
    assert legend.all_text_contents() == [f"{name}{OBJECTS // 2}" for name in GROUPS]
    fills = points.evaluate_all("paths => new Set(paths.map(path => getComputedStyle(path).fill)).size")
    assert (points.count(), fills) == (OBJECTS, 2)
    legend.first.click()
    assert points.count() == OBJECTS // 2 and legend.first.get_attribute("aria-pressed") == "false"
    chart.locator("select").select_option("score")
    assert points.count() == OBJECTS
    fills = points.evaluate_all("paths => new Set(paths.map(path => getComputedStyle(path).fill)).size")
    assert fills > OBJECTS // 2 and legend.all_text_contents() == ["not known1"]
    assert chart.locator(".scale").count() == 1


def test_an_object_is_found_by_its_name_and_the_map_zooms_without_holding_the_page(opened):
    tab = opened()
    chart = drawn(tab, tab.locator(".map"))
    chart.locator("input").fill("TEST/17")
    chart.locator("input").press("Enter")
    assert chart.locator(".card b").text_content() == "Thing 17\ntest/17"
    chart.locator("input").fill("nobody")
    chart.locator("input").press("Enter")
    assert chart.locator("input").evaluate("input => input.validationMessage") == "No object of this map is called so."
    width = "plot => plot._fullLayout.xaxis.range[1] - plot._fullLayout.xaxis.range[0]"
    plot = chart.locator(".plot")
    whole = plot.evaluate(width)
    chart.get_by_label("Zoom in").click()
    assert plot.evaluate(width) == pytest.approx(whole / 1.6)
    box = plot.bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    scrolled = tab.evaluate("scrollY")
    tab.mouse.wheel(0, -120)
    tab.wait_for_function("before => scrollY < before", arg=scrolled)
    assert plot.evaluate(width) == pytest.approx(whole / 1.6)
    tab.keyboard.down("Control")
    tab.mouse.wheel(0, -180)
    tab.keyboard.up("Control")
    tab.wait_for_function(f"least => ({width})(document.querySelector('.map .plot')) < least", arg=whole / 3)
    chart.get_by_label("Show the whole map").click()
    assert plot.evaluate(width) == pytest.approx(whole)


@pytest.mark.parametrize("webgl", [True, False])
def test_a_large_map_is_drawn_with_webgl_and_without(opened, tmp_path, webgl):
    made = tmp_path / "large.html"
    large = map_of(SVG_AT_MOST + 1)
    large = Map(title="Map", x=large.x, y=large.y, labels=large.labels, colors=large.colors, pictures=(None,) * len(large.x))
    text = page([Section(key="m", title="M", lead="", figures={}, exhibits=(large,))], title="t", made="m")
    assert text.count(EVAL) == 1
    made.write_text(text if webgl else text.replace(EVAL, ""), encoding="utf-8")  # without it WebGL fails as where there is none
    tab = opened(made)
    chart = drawn(tab, tab.locator(".map"))
    point_at(tab, chart, 0.0, 1.0)
    chart.locator(".card").wait_for()
    assert chart.locator(".points path").count() == (0 if webgl else SVG_AT_MOST + 1)
    assert chart.locator(".no-webgl").count() == 0


def test_a_failure_opens_and_says_what_happened_and_what_to_type(opened):
    tab = opened()
    fold = tab.locator("#failures details")
    said, command = fold.locator(".case p").first, fold.locator("code")
    assert not said.is_visible() and not command.is_visible()
    fold.locator("summary").click()
    assert said.is_visible() and said.text_content() == f"Blender took more than 8 GB. {HOSTILE}"
    assert command.is_visible() and command.text_content() == "python -m jobs retry /data/c --stage render --reason out-of-memory"
    tab.get_by_label("Copy the command").click()
    assert tab.evaluate("getSelection().toString()") == command.text_content()


def test_a_table_sorts_filters_and_opens(opened):
    tab = opened()
    box = tab.locator("#overview .exhibit", has=tab.locator("h3", has_text="Tables"))
    rows = box.locator("tbody tr:visible")
    cells = box.locator("tbody tr:visible td:nth-child(2)")
    assert rows.count() == 20
    box.get_by_text("Show all 30").click()
    assert rows.count() == 30
    box.get_by_role("button", name="count", exact=True).click()
    assert cells.all_text_contents() == [*map(str, sorted(((number * 7) % 30 for number in range(1, 30)), reverse=True)), "–"]
    box.get_by_role("button", name="count", exact=True).click()
    assert cells.all_text_contents() == [*map(str, sorted((number * 7) % 30 for number in range(1, 30))), "–"]
    box.get_by_role("button", name="name", exact=True).click()
    assert box.locator("tbody tr:visible td:first-child").all_text_contents() == [f"row {number}" for number in range(30)]
    box.get_by_label("Filter Tables").fill("ROW 1")
    assert rows.count() == 11
    assert box.get_by_role("status").text_content() == "11 of 30"


def test_a_histogram_tells_what_is_in_the_bin_that_is_pointed_at(opened):
    tab = opened()
    for which in range(4):
        logarithmic, several = which >= 2, which % 2 == 1
        chart = drawn(tab, tab.locator("#captions .chart").nth(which))
        point_at(tab, chart, 30 if logarithmic else 13, 5)
        card = chart.locator(".card")
        card.wait_for()
        assert card.locator("b").text_content() == f"10 to {100 if logarithmic else 20} words"
        assert card.locator("dt").all_text_contents() == (["kept", HOSTILE] if several else [""])
        assert card.locator("dd").all_text_contents() == ["20 (83.3 %)", "0 (0.0 %)"][: 1 + several]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_take_the_colours_of_the_scheme_and_change_with_it(opened, scheme):
    tab = opened(color_scheme=scheme)
    chart = drawn(tab, tab.locator("#captions .chart").first)
    fill = "node => getComputedStyle(node.querySelector('.bars path, .points path')).fill"
    ground = "getComputedStyle(document.body).backgroundColor"
    before = chart.evaluate(fill), tab.evaluate(ground)
    assert before[1] == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)")
    tab.locator("#scheme").click()
    assert chart.evaluate(fill) != before[0] and tab.evaluate(ground) != before[1]
    tab.locator("#scheme").click()
    assert (chart.evaluate(fill), tab.evaluate(ground)) == before


def test_on_a_phone_nothing_is_wider_than_it_and_all_can_be_touched(opened):
    tab = opened(**PHONE)
    tab.locator("#menu").tap()
    tab.locator("#folds").tap()
    tab.locator("nav a", has_text="Embeddings").tap()
    assert tab.locator("nav").is_hidden() and tab.evaluate("location.hash") == "#embeddings"
    for chart in tab.locator(".chart").all():
        drawn(tab, chart)
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    small = tab.evaluate(
        """[...document.querySelectorAll("button, select, input, summary")].filter(node => node.checkVisibility())
          .filter(node => node.offsetHeight < 40 || node.offsetWidth < 40).map(node => node.outerHTML)"""
    )
    assert small == []
    chart = tab.locator(".map")
    drawn(tab, chart)
    assert chart.locator(".nsewdrag").evaluate("node => getComputedStyle(node).touchAction") == "pan-x pan-y"
    at = chart.locator(".points path").first.bounding_box()
    tab.touchscreen.tap(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
    chart.locator(".card").wait_for()


def test_what_goes_to_the_printer_is_light_and_has_all_charts(opened):
    tab = opened(color_scheme="dark")
    assert tab.locator(".chart:has(.main-svg)").count() < tab.locator(".chart").count()
    assert tab.pdf(format="A4").startswith(b"%PDF")
    assert tab.locator(".chart:has(.main-svg)").count() == tab.locator(".chart").count()
    fill = "document.querySelector('#captions .chart .points path').style.fill"
    before = tab.evaluate(fill)
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.evaluate(fill) == "rgb(44, 104, 204)" != before  # --c0 in the light
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.evaluate(fill) == before
    tab.emulate_media(media="print")
    tab.set_viewport_size({"width": 688, "height": 1000})  # A4 within its margins
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert (
        tab.locator("nav, .top, .tools, .filter, .more, .command button").evaluate_all(
            "nodes => nodes.filter(node => node.checkVisibility()).length"
        )
        == 0
    )
    wider = tab.locator(".chart .main-svg").evaluate_all(
        "nodes => nodes.filter(node => node.getBoundingClientRect().right > 688).length"
    )
    assert wider == 0


def test_without_javascript_all_but_the_charts_can_be_read(opened):
    tab = opened(java_script_enabled=False)
    assert tab.locator("nav a").count() == 4 and tab.locator("#overview tbody tr:visible").count() == 2 + 30
    assert tab.locator(".tools").is_hidden() and tab.locator(".figures").count() == 4
