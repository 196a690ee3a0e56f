"""Evaluations beside the published rows: nothing is left out, nothing stands where it may not, and what differs is said."""

import json
import re
from html import unescape
from html.parser import HTMLParser

import pytest

from evaluate.published import published
from evaluate.result import Figure, Result, load, save
from evaluate.table import WIDTH, html, markdown, percent, tables, text
from jobs.__main__ import main

WHOLE = dict(objects=46_205, missing=0, classes=1_156)


def result(method="mine, step 10", *shares, **other):
    said = dict(
        task="zero-shot",
        method=method,
        fed="points",
        teacher="ViT-bigG-14:laion2b_s39b_b160k",
        benchmark="objaverse-lvis",
        variant="the list of the four sources",
        figures={f"top-{k}": Figure((share,)) for k, share in zip((1, 3, 5), shares or (0.5, 0.7, 0.8), strict=True)},
        leaks={"id": 0, "hash": 0},
        trained_on="demo/corpus, 216 objects",
        settings={"rule": "unit templates"},
    )
    return Result(**(WHOLE | said | other))


def methods(lines):
    return [line.split("|")[1].strip().strip("*") for line in lines.splitlines() if re.match(r"\| (?!---|Method)", line)]


def test_all_published_rows_and_ours_sorted_by_the_first_figure():
    (table,) = tables([result("high", 0.54, 0.7, 0.8), result("low", 0.01, 0.02, 0.03)])
    others = published("zero-shot", "objaverse-lvis")
    assert len(table.rows) == len(others) + 2
    firsts = [row.figures["top-1"].mean for row in table.rows]
    assert firsts == sorted(firsts, reverse=True)
    place = [row.method for row in table.rows].index("high")
    assert (table.rows[place - 1].method, table.rows[place - 1].fed) == ("DuoduoCLIP", "5 views")  # 54.1
    assert table.rows[-1].method == "low" and table.rows[-1].ours
    assert {table.sources[row.source - 1] for row in table.rows if not row.ours} == {one.source for one in others}


def test_a_row_keeps_its_own_source():
    (table,) = tables([result()])
    told = {(row.method, row.trained_on, row.fed): table.sources[row.source - 1] for row in table.rows if not row.ours}
    assert told == {(one.method, one.trained_on, one.fed): one.source for one in published("zero-shot", "objaverse-lvis")}


def test_one_table_per_task_benchmark_variant_and_way():
    looked_up = {name: Figure((0.5,)) for name in ("category top-1", "category top-3", "category top-5")}
    found = tables(
        [
            result(),
            result(task="retrieval", figures=looked_up, settings={"way": "text to 3d"}),
            result(task="retrieval", figures=looked_up, settings={"way": "3d to 3d"}),
            result(variant="split of a corpus"),
            result("other"),
        ]
    )
    assert [one.title for one in found] == [
        "Zero-shot classification on Objaverse-LVIS",
        "Retrieval on Objaverse-LVIS, text to 3d",
        "Retrieval on Objaverse-LVIS, 3d to 3d",
        "Zero-shot classification on Objaverse-LVIS",
    ]
    assert [sum(row.ours for row in one.rows) for one in found] == [2, 1, 1, 1]
    # MRD looked up texts and shapes, nothing else
    assert [sum(not row.ours for row in one.rows) for one in found[1:3]] == [3, 0]
    assert "No published figures of this task on Objaverse-LVIS are known here" in found[2].about


def test_published_figures_that_ours_has_not_are_not_shown_and_the_other_way_round():
    (table,) = tables([result(figures={"class mean": Figure((0.5,))})])
    assert [row.ours for row in table.rows] == [True]
    (table,) = tables([result(figures={"top-1": Figure((0.5,)), "class mean": Figure((0.4,))})])
    assert table.columns == ("top-1", "class mean")
    assert all("class mean" not in row.figures for row in table.rows if not row.ours)


@pytest.mark.parametrize(
    ("differs", "said"),
    [
        ({}, ()),
        ({"objects": 46_000, "missing": 205}, ()),  # nearly all
        ({"objects": 240}, ("mine, step 10: NOT comparable: 240 of the benchmark's 46,205 objects",)),
        ({"classes": 5}, ("mine, step 10: NOT comparable: 5 classes to choose among, not 1,156",)),
        (
            {"leaks": {"id": 2, "hash": 0, "near-duplicate": 1}},
            ("mine, step 10: LEAKED: 3 of its 46,205 objects were trained on (2 by id, 1 as near-duplicates)",),
        ),
        ({"task": "few-shot", "benchmark": "shapes", "objects": 3, "classes": 2}, ()),
        (
            {"task": "fine-tuning", "benchmark": "scanobjectnn-pb-t50-rs", "objects": 64, "classes": 15},
            ("mine, step 10: NOT comparable: 64 of the benchmark's 2,882 objects",),
        ),
    ],
)
def test_what_keeps_a_figure_from_being_compared_is_said_above_everywhere(differs, said):
    one = result(**differs)
    (table,) = tables([one])
    assert table.warnings == said
    for made in (text([one]), markdown([one]), html([one])):
        plain = re.sub(r"\s+", " ", unescape(made))
        assert [plain.count(words) for words in said] == [1] * len(said)
        assert ("NOT comparable" in plain or "LEAKED" in plain) == bool(said)
        for words in said:
            assert plain.index(words) < plain.index("here", plain.index(words))


def test_warnings_that_all_share_are_said_once():
    (table,) = tables([result(objects=240), result("other", objects=240)])
    assert table.warnings == ("all: NOT comparable: 240 of the benchmark's 46,205 objects",)


def test_what_differs_is_said_of_each_and_what_they_share_once():
    mine = result(
        teacher="tricorpus-tiny:shapes-v1",
        missing=7,
        figures={"top-1": Figure((0.5, 0.4, 0.6))},
        settings={"rule": "unit templates", "views": [1, 12], "absent": None, "seeds": 3},
    )
    other = result("other", leaks=None, trained_on=None, figures={"top-1": Figure((0.1,))})
    (table,) = tables([mine, other])
    assert table.differences == (
        ("all", ("1,156 classes", "rule: unit templates")),
        (
            "mine, step 10 (points)",
            (
                "46,205 objects (7 missing or not readable)",
                "teacher tricorpus-tiny:shapes-v1 (theirs: EVA02-E-14-plus:laion2b_s9b_b144k, ViT-B-32:laion2b_s34b_b79k, "
                "ViT-bigG-14:laion2b_s39b_b160k)",
                "trained on demo/corpus, 216 objects",
                "nothing of it found among what was trained on",
                "3 seeds",
                "views: 1, 12",
            ),
        ),
        (
            "other (points)",
            (
                "46,205 objects",
                "teacher ViT-bigG-14:laion2b_s39b_b160k",
                "what it was trained on is not known",
                "not compared with what was trained on",
                "one seed",
            ),
        ),
    )


def test_percent_with_one_decimal_and_the_spread_over_seeds():
    assert percent(Figure((0.5, 0.25, 0.75))) == "50.0 ± 25.0"
    assert percent(Figure((0.12345,))) == "12.3"
    assert percent(None) == "–"


def test_shots_stand_behind_what_it_saw():
    (table,) = tables([result(task="few-shot", settings={"shots": shots}) for shots in (1, 16)])
    assert [row.fed for row in table.rows] == ["points, 1 shot", "points, 16 shots"]


def test_text_fits_a_terminal_and_every_row_is_there():
    names = ("instance", "category")
    figures = {f"{name} top-{k}": Figure((0.1, 0.2, 0.3)) for name in names for k in (1, 3, 5)}
    long = result("a name that is much longer than there is room for, step 120,000", task="retrieval", figures=figures)
    for results in ([long], [result(), result("other")]):
        lines = text(results).splitlines()
        assert max(map(len, lines)) <= WIDTH
        rows = [line for line in lines if re.search(r"(\[\d+\]|here)$", line)]
        assert len(rows) == len(tables(results)[0].rows)
    assert "20.0±10.0" in text([long])


def test_markdown_is_one_table_in_which_no_sign_of_a_name_ends_a_cell():
    made = markdown([result("a|b_c*d <i>", variant="x")])
    rows = [line for line in made.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {10}
    assert r"▶ a\|b\_c\*d \<i\>" in made
    assert len(methods(made)) == len(published("zero-shot", "objaverse-lvis")) + 1


class Balanced(HTMLParser):
    """Every element that is opened is closed in turn; nothing is fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.rows = [], 0

    def handle_starttag(self, tag, attributes):
        assert not {"src", "href"} & {name for name, _ in attributes}
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.rows += tag == "tr"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else():
    per_class = {f"class {number}": (number / 100, 1 + number % 3) for number in range(100)} | {"empty": (0.0, 0)}
    made = html([result("<script>alert(1)</script>", per_class=per_class)])
    page = Balanced()
    page.feed(made)
    assert page.open == [] and "<script" not in made and "@import" not in made and "url(" not in made
    assert page.rows == 1 + len(published("zero-shot", "objaverse-lvis")) + 1 + 2 * (1 + 12)
    worst, best = (re.findall(r"<tr><td>(class \d+|empty)</td>", part) for part in made.split("<th>Worst")[1].split("<th>Best"))
    assert worst == [f"class {number}" for number in range(12)]
    assert best == [f"class {number}" for number in range(99, 87, -1)]


def test_few_classes_are_all_shown_once():
    made = html([result(per_class={f"class {number}": (number / 30, 5) for number in range(23)})])
    assert re.findall(r"<tr><td>(class \d+)</td>", made) == [f"class {number}" for number in range(23)]


def test_the_job_sets_several_side_by_side(tmp_path, capsys):
    save(tmp_path / "a", [result("first"), result("second")])
    save(tmp_path / "b", [result("second"), result("third")])
    assert main(["evaluate", "table", str(tmp_path / "a"), str(tmp_path / "b" / "results.json"), "-o", str(tmp_path / "c")]) == 0
    assert [one.method for one in load(tmp_path / "c")] == ["first", "second", "third"]
    out = capsys.readouterr().out
    assert all(f"▶ {name}" in out for name in ("first", "second", "third"))
    assert main(["evaluate", "table", str(tmp_path / "a"), "--json"]) == 0
    assert [one["method"] for one in json.loads(capsys.readouterr().out)["results"]] == ["first", "second"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [([], "say which evaluations"), (["nowhere"], "there is no .*nowhere"), (["a", "-o", "a"], "there is an evaluation already")],
)
def test_the_job_refuses(tmp_path, monkeypatch, capsys, arguments, why):
    monkeypatch.chdir(tmp_path)
    save("a", [result()])
    assert main(["evaluate", "table", *arguments]) == 2
    assert re.search(why, capsys.readouterr().err)
