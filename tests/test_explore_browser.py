"""Exploring in a browser: searching, opening, spinning, going back, by mouse, by keys and by touch; and no text that runs."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from chromium import PHONE, browser  # noqa: F401
from explored import BLUE, GREEN, HOSTILE, LOG, RED, REFUSED, YELLOW, made_corpus, served
from PIL import Image

DESKTOP = {"viewport": {"width": 1280, "height": 900}}


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    with served(made_corpus(str(tmp_path_factory.mktemp("explore") / "corpus")).root) as running:
        yield running.address


@pytest.fixture
def opened(browser, address) -> Iterator:  # noqa: F811
    """Opens a page in a tab. In the end no text of the corpus has run, nobody else was asked, and nothing was complained of."""
    contexts, bad = [], []

    def open_page(path="/", **settings):
        context = browser.new_context(**DESKTOP | settings)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: bad.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: bad.append(str(error)))
        tab.on("request", lambda request: None if request.url.startswith((address, "data:", "blob:")) else bad.append(request.url))
        tab.goto(address + path)
        return tab

    yield open_page
    owned = [tab.evaluate("window.owned") for context in contexts for tab in context.pages]
    for context in contexts:
        context.close()
    assert bad == [] and set(owned) <= {None}


def names(tab, count: int) -> list[str]:
    """Names on the cards, once there are so many."""
    tab.wait_for_function("count => document.querySelectorAll('#cards .card').length === count", arg=count)
    return tab.locator("#cards .card b").all_text_contents()


def at(tab) -> str:
    return tab.evaluate("decodeURIComponent(location.search)")


def loaded(tab, selector: str) -> int:
    """How many pictures of a part are there, after all of them were waited for."""
    tab.locator(selector).first.wait_for()
    tab.wait_for_function("where => [...document.querySelectorAll(where)].every((image) => image.complete)", arg=selector)
    return tab.evaluate("where => [...document.querySelectorAll(where)].filter((image) => image.naturalWidth > 0).length", selector)


def drawn(tab) -> dict[tuple, np.ndarray]:
    """Where the points of each colour are in their picture: (row, column) of each pixel."""
    tab.locator(".cloud canvas").first.wait_for()
    box = tab.locator(".cloud")
    box.scroll_into_view_if_needed()
    tab.wait_for_timeout(300)  # two frames, of a GPU that is none
    shown = np.asarray(Image.open(io.BytesIO(box.screenshot())).convert("RGB")).astype(int)
    return {color: np.argwhere(np.abs(shown - color).max(axis=-1) < 40) for color in (RED, GREEN, BLUE, YELLOW)}


def test_somebody_searches_opens_an_object_and_goes_back(opened):
    tab = opened()
    assert len(names(tab, 9)) == 9
    tab.keyboard.press("/")
    tab.keyboard.type("red")
    tab.wait_for_function("() => location.search === '?q=red'")
    tab.keyboard.type(" chair")
    tab.wait_for_function("() => location.search === '?q=red+chair'")
    assert names(tab, 1) == ["Red wooden chair"]
    assert at(tab) == "?q=red+chair" and tab.locator("#told").text_content() == "1 of 9 objects"
    tab.locator("#cards .card").click()
    tab.locator("#object h1", has_text="Red wooden chair").wait_for()
    assert at(tab) == "?q=red+chair&object=test/0"
    assert loaded(tab, ".views img") == 4
    assert tab.locator(".captions li:not(.dropped) q").all_text_contents() == ["a chair with four legs"]
    assert tab.locator(".captions .dropped q").all_text_contents() == ["nonsense nonsense"]
    assert "dropped: boilerplate" in tab.locator(".captions .dropped small").text_content()
    assert tab.locator(".badges").text_content() == "testCC-BY-4.0chairfurnitureby Ada"
    tab.go_back()
    assert names(tab, 1) == ["Red wooden chair"] and tab.locator("#object").is_hidden() and at(tab) == "?q=red+chair"
    tab.go_back()  # all that was typed is one step
    assert len(names(tab, 9)) == 9 and at(tab) == ""
    tab.go_forward()
    tab.go_forward()
    tab.locator("#object h1", has_text="Red wooden chair").wait_for()


def test_a_link_opens_the_object_and_the_search_it_stands_in(opened):
    tab = opened("/?q=furniture&object=test/1")
    tab.locator("#object h1", has_text="Armchair").wait_for()
    tab.locator(".where", has_text="2 of 2").wait_for()
    assert tab.locator(".next").is_disabled()
    tab.locator(".previous").click()
    tab.locator("#object h1", has_text="Red wooden chair").wait_for()
    tab.locator("#object .bar button").first.click()
    assert names(tab, 2) == ["Red wooden chair", "Armchair"] and tab.locator("#words").input_value() == "furniture"


def test_the_points_are_drawn_turned_and_set_into_a_grid(opened):
    tab = opened("/?object=test/2")
    before = drawn(tab)
    assert min(map(len, before.values())) > 500
    middle = {color: pixels.mean(axis=0) for color, pixels in before.items()}
    height = np.ptp(np.concatenate(list(before.values()))[:, 0])
    assert middle[BLUE][0] - middle[RED][0] > 0.2 * height  # +y is up
    assert middle[GREEN][1] - middle[YELLOW][1] > 0.3 * height  # from the front, +x is to the right: no mirror
    box = tab.locator(".cloud").bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] / 2 + 20, box["y"] + 20, steps=2)
    tab.mouse.up()
    turned = drawn(tab)
    assert max(np.abs(turned[color].mean(axis=0) - middle[color]).max() for color in turned if len(turned[color])) > 0.05 * height
    texts = "() => document.querySelector('.cloud')._fullLayout.scene.xaxis.visible"
    assert tab.evaluate(texts) is False
    tab.get_by_role("button", name="Grid").click()
    tab.wait_for_function(texts)
    tab.get_by_role("button", name="Colours").click()
    tab.wait_for_timeout(300)
    assert len(drawn(tab)[RED]) < 100


def test_points_without_colour_are_said_to_have_none(opened):
    tab = opened("/?object=test/3")
    tab.locator(".cloud canvas").first.wait_for()
    assert "no colour" in tab.locator(".tools").text_content()
    assert tab.get_by_role("button", name="Colours").count() == 0
    assert "It has no views." in tab.locator("#object").text_content()
    assert tab.locator("#object h1").text_content() == "lamp"


def test_a_view_is_enlarged_and_others_follow(opened):
    tab = opened("/?object=test/0")
    tab.locator(".views button").nth(2).click()
    large = tab.locator("#large")
    large.wait_for()
    assert tab.locator("#large-told").text_content().startswith("View 2 · 32 × 32 · rendered · 50.0 % covered")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#large-told").text_content().startswith("View 0")
    assert loaded(tab, "#large-view") == 1
    tab.keyboard.press("Escape")
    large.wait_for(state="hidden")
    assert tab.locator("#object").is_visible()  # Escape closed the view alone


def test_keys_lead_through_the_objects(opened):
    tab = opened("/?category=furniture")
    names(tab, 2)
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Enter")
    tab.locator("#object h1", has_text="Armchair").wait_for()
    tab.locator(".where", has_text="2 of 2").wait_for()
    tab.keyboard.press("ArrowLeft")
    tab.locator("#object h1", has_text="Red wooden chair").wait_for()
    tab.keyboard.press("Escape")
    assert names(tab, 2) and tab.locator("#object").is_hidden() and at(tab) == "?category=furniture"


def test_filters_narrow_and_are_cleared(opened):
    tab = opened()
    names(tab, 9)
    tab.get_by_label("Failures").select_option("any")
    assert len(names(tab, 3)) == 3 and at(tab) == "?failures=any"
    tab.get_by_label("Source").select_option(label="test (3)")
    tab.get_by_label("Views and points").select_option("no views")
    tab.get_by_text("Clear filters").click()
    assert len(names(tab, 9)) == 9 and at(tab) == ""
    tab.go_back()
    names(tab, 3)
    assert tab.get_by_label("Failures").input_value() == "any"


def test_a_failure_is_opened_from_the_list_of_reasons(opened):
    tab = opened()
    tab.locator("#to-failures").click()
    kind = tab.locator(".kind", has_text="render: gate: black")
    kind.locator("summary").click()
    case = kind.locator(".case", has_text="test/4")
    case.locator("pre").wait_for()
    assert case.locator("pre").text_content() == LOG and "Tried 3 times" in case.text_content()
    assert loaded(tab, ".case img") == 1
    assert "jobs retry" in kind.locator("code").text_content()
    assert at(tab) == "?show=failures&stage=render&reason=gate:+black"
    case.locator("a").click()
    tab.locator("#object h1", has_text="Car").wait_for()
    assert tab.locator("#object .case code").text_content().endswith("--stage render --reason 'gate: black'")
    tab.go_back()
    case.wait_for()
    tab.goto(tab.url.replace("render", "ingest").replace("gate%3A+black", "asset_missing"))
    tab.locator(".case a", has_text=REFUSED).click()
    tab.locator("#object", has_text="nothing but its failure is known").wait_for()


def test_a_hostile_text_is_shown_and_does_not_run(opened):
    tab = opened("/?q=owned")
    assert names(tab, 1) == [HOSTILE]
    tab.locator("#cards .card").click()
    tab.locator("#object h1").wait_for()
    assert tab.locator("#object h1").text_content() == HOSTILE
    assert tab.locator(".captions q").all_text_contents() == [HOSTILE, HOSTILE + " dropped"]
    assert tab.locator(".case pre").text_content() == HOSTILE
    assert tab.locator("#object script, #object img[src='x'], select b").count() == 0
    tab.goto(
        tab.url.split("?")[0]
        + "?q=%3Cimg src%3Dx onerror%3D'window.owned%3D1'%3E&source=%3Cimg src%3Dx onerror%3D'window.owned%3D1'%3E"
    )
    tab.get_by_text("Nothing is found").wait_for()
    tab.wait_for_timeout(200)


def test_what_looks_alike_is_shown_and_opened(opened):
    tab = opened("/?object=test/0")
    alike = tab.locator("#object .cards .card")
    alike.first.wait_for()
    assert alike.locator("b").all_text_contents() == ["Armchair", "Green_Tree (old)"]
    alike.first.click()
    tab.locator("#object h1", has_text="Armchair").wait_for()
    tab.go_back()
    tab.locator("#object h1", has_text="Red wooden chair").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_page_fits_into_its_window_and_can_be_read_and_touched(opened, size, scheme):
    for path, there in (
        ("/", "#cards .card"),
        ("/?object=test/5", "#object h1"),
        ("/?object=test/0", ".views"),
        ("/?show=failures&stage=render&reason=gate: black", ".case"),
    ):
        tab = opened(path, color_scheme=scheme, **size)
        tab.locator(there).first.wait_for()
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        small = tab.evaluate(
            """() => [...document.querySelectorAll('button, select, input, summary, header a')]
              .filter((one) => one.checkVisibility())
              .filter((one) => { const {width, height} = one.getBoundingClientRect(); return width < 40 || height < 40; })
              .map((one) => one.outerHTML.slice(0, 80))"""
        )
        assert small == [], path
        ink, paper = tab.evaluate("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
        dark = sum(map(int, paper.removeprefix("rgb(").rstrip(")").split(","))) < 300
        assert dark == (scheme == "dark") and ink != paper


def test_by_touch_filters_open_and_an_object_opens(opened):
    tab = opened("/", **PHONE)
    names(tab, 9)
    assert tab.get_by_label("Source").is_hidden()
    tab.locator("#filters summary").tap()
    tab.get_by_label("Category").select_option("furniture")
    names(tab, 2)
    tab.locator("#cards .card").first.tap()
    assert loaded(tab, ".views img") == 4
