"""python -m jobs report: which files it writes, what it says, and when it fails."""

import csv
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard

from benchmarks.report import TEACHER, make
from jobs.__main__ import main
from pipeline.store import Corpus
from schemas.check import to_table
from schemas.tables import OBJECTS, SPLITS
from shout import object_row

ORDER = [
    *("overview", "funnel", "failures", "licences", "categories", "captions", "views", "points", "embeddings", "duplicates"),
    *("storage", "time_and_cost"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> str:
    """A corpus with all tables: 40 objects, 4 of them with points and views."""
    root = tmp_path_factory.mktemp("report") / "made-things"
    make(root, 40, 4, 8)
    return str(root)


def report(capsys, *arguments) -> tuple[int, str, str]:
    code = main(["report", *map(str, arguments)])
    return code, *capsys.readouterr()


def put(corpus: Corpus, rows: list[dict]) -> None:
    corpus.append(OBJECTS, corpus.write(OBJECTS, to_table(OBJECTS, rows)))


def test_the_page_has_all_sections_in_order_and_the_lines_say_what_was_written(whole, tmp_path, capsys):
    page, card, sheet = (tmp_path / name for name in ("report.html", "README.md", "credits.csv"))
    files = ("-o", page, "--card", card, "--attribution", sheet)
    code, out, _ = report(capsys, whole, *files, "--price-cpu-hour", 0.05, "--currency", "EUR", "--title", "Made <things>")
    assert code == 0
    html = page.read_text("utf-8")
    assert re.findall(r'<section[^>]*id="([a-z_]+)"', html) == ORDER
    assert "Made &lt;things&gt;" in html and "Made <things>" not in html and "EUR" in html
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[: len(ORDER) + 1]] == [*ORDER, "page"]
    assert all(re.match(r"\w+ +\d+\.\d s", line) for line in lines[: len(ORDER)])
    assert f"card: {card}" in lines and f"attribution: {sheet}" in lines and "look at first:" in lines
    assert re.fullmatch(rf"{page}: [\d.]+ MB, in .*; \d+ warnings?; open it in a browser", lines[-1])
    assert DatasetCard.load(card).data.pretty_name == "Made <things>"
    rows = list(csv.DictReader(sheet.open(encoding="utf-8")))
    assert sum(int(row["objects"]) for row in rows) == 40 and {"creator", "license", "source"} < rows[0].keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "credits.csv", "report.html"]  # nothing half done


def test_json_has_every_figure(whole, tmp_path, capsys):
    code, out, err = report(capsys, whole, "-o", tmp_path / "r.html", "--json", "--teacher", TEACHER, "--sample", 20)
    told = json.loads(out, parse_constant=pytest.fail)
    assert (code, err) == (0, "")
    assert [*told["figures"]] == ORDER
    assert told["gates"]["objects"] == told["figures"]["overview"]["objects"] == 40
    assert told["bytes"] == (tmp_path / "r.html").stat().st_size
    assert told["section_seconds"].keys() == {*ORDER, "page"}
    assert told["versions"]["objects"] == Corpus(whole).need("objects").version


def test_objects_of_a_benchmark_and_of_one_shape_are_found_where_asked_for(whole, tmp_path, capsys):
    page = tmp_path / "r.html"
    code, out, err = report(capsys, whole, "-o", page, "--json", "--near", "--leaks", f"objaverse-lvis={whole}")
    told = json.loads(out)
    labelled = Corpus(whole).need(SPLITS.name).count_rows()
    assert (code, err) == (0, "")
    assert labelled and f"{labelled} of {labelled} objects of the benchmark objaverse-lvis" in " ".join(
        told["warnings"]["duplicates"]
    )
    assert told["gates"]["near_duplicate_share"] is not None
    code, out, _ = report(capsys, whole, "-o", page, "--json")
    assert json.loads(out)["gates"]["near_duplicate_share"] is None  # not asked for


def test_a_condition_that_holds_fails_the_job_and_the_page_is_written_all_the_same(corpus, tmp_path, capsys):
    page = tmp_path / "r.html"
    gates = ("--fail-if", "objects < 5", "--fail-if", "unknown_license_share>0", "--fail-if", "overview.sources.test.objects>=20")
    code, out, _ = report(capsys, corpus.root, "-o", page, *gates)
    assert code == 1 and page.exists()
    assert [line for line in out.splitlines() if "fails" in line] == [
        "fails: overview.sources.test.objects>=20: overview.sources.test.objects is 20"
    ]
    code, out, _ = report(capsys, corpus.root, "-o", page, *gates[:4])
    assert code == 0 and "fails" not in out


def test_a_figure_that_is_not_known_fails_and_one_that_is_not_there_is_a_wrong_argument(corpus, tmp_path, capsys):
    page = tmp_path / "r.html"
    code, out, _ = report(capsys, corpus.root, "-o", page, "--json", "--fail-if", "matched_above_mismatched<0.7")
    assert code == 1
    assert json.loads(out)["failed"] == ["matched_above_mismatched<0.7: matched_above_mismatched is not known in this corpus"]
    code, out, err = report(capsys, corpus.root, "-o", page, "--fail-if", "objekts<7")
    assert code == 2 and "no figure 'objekts'; there is: objects" in err


def test_an_earlier_time_of_the_corpus_is_compared_with(corpus, tmp_path, capsys):
    time.sleep(0.002)
    then = datetime.now(UTC).isoformat()
    put(corpus, [object_row(20), object_row(21)])
    code, out, _ = report(capsys, corpus.root, "-o", tmp_path / "r.html", "--json", "--against", then)
    told = json.loads(out)
    assert code == 0 and [*told["figures"]] == ["changed", *ORDER]
    assert told["gates"]["objects_added_share"] == pytest.approx(2 / 22)
    assert told["figures"]["changed"]["gates"]["objects"] == {"now": 22, "before": 20}
    assert {f"{name}, {then}" for name in ORDER} < told["section_seconds"].keys()
    assert "What changed" in (tmp_path / "r.html").read_text("utf-8")


def test_another_corpus_is_compared_with(corpus, tmp_path, capsys):
    other = Corpus(str(tmp_path / "other"))
    other.create(OBJECTS)
    put(other, [object_row(0, asset_sha256="f" * 64), object_row(99)])
    code, out, _ = report(capsys, corpus.root, "-o", tmp_path / "r.html", "--against", other.root)
    assert code == 0
    assert "changed" in out and "1 object of other not here any more: test/99" in out
    assert "19 objects came, 1 went, and 1 changed (1 of them have other files)" in (tmp_path / "r.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{root}", "-o", "{tmp}/no/r.html"], 2, "--output .*: must be a file in a folder that is there"),
        (["{root}", "--card", "{tmp}"], 2, "--card .*: must be a file"),
        (["{root}", "--fail-if", "objects"], 2, "--fail-if: 'objects' is no condition"),
        (["{root}", "--sample", "0"], 2, "--sample 0: must be 1 or more"),
        (["{root}", "--price-gpu-hour", "-1"], 2, "--price-gpu-hour -1: must be 0 or more"),
        (["{root}", "--teacher", "nobody"], 2, "--teacher nobody: .* has embeddings of: no teacher"),
        (["{root}", "--leaks", "modelnet40"], 2, "--leaks 'modelnet40' is not NAME=PLACE"),
        (["{root}", "--against", "{root}"], 2, "that is the corpus itself"),
        (["{root}", "--against", "{tmp}"], 2, "there is no corpus"),
        (["{root}", "--against", "yesterday"], 2, "there is no such corpus, and 'yesterday' is no tag, number or time"),
        (["{root}", "--against", "2001-01-01"], 1, "had no objects at 2001-01-01"),
        (["{tmp}/nothing"], 1, "has no table 'objects'"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_is_written(arguments, code, words, corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    got, _, err = report(capsys, *(one.format(root=corpus.root, tmp=tmp_path) for one in arguments))
    assert got == code and re.search(words, err)
    assert {path.name for path in tmp_path.iterdir()} == before
    assert not Path("report.html").exists()
