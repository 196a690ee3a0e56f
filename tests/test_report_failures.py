import io
import shlex
from collections import Counter

import numpy as np
import pytest
from patchy import failure_row, made_by, patchy, picture, put, put_points, view_row
from PIL import Image

from pipeline.status import completeness
from pipeline.store import Corpus
from reports.failures import LOG_SHOWN, failures
from reports.page import page
from reports.section import Bars, Cases, Rows
from schemas.tables import CAPTIONS, FAILURES, OBJECTS, VIEWS, text_embeddings
from shout import object_row


def shown(section, kind):
    return {exhibit.title: exhibit for exhibit in section.exhibits if isinstance(exhibit, kind)}


def color_of(image: bytes) -> tuple[int, ...]:
    return tuple(np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))[20, 20].tolist())


@pytest.fixture
def broken(tmp_path) -> Corpus:
    """Ten objects, most of them with failures; two have views, one a picture of what was refused."""
    corpus = Corpus(str(tmp_path / "a corpus"))
    warned = {1: ["missing_texture"], 2: ["missing_texture", "no_material"]}
    put(corpus, OBJECTS, [object_row(n, warnings=warned.get(n, [])) for n in range(8)], made_by("ingest", reads=""))
    views = [view_row("test/0", 1, image=picture((0, 0, 200), 300)), view_row("test/0", 0, image=picture((200, 0, 0), 300))]
    put(corpus, VIEWS, [*views, view_row("test/1", 0, image=picture((0, 200, 0)))], made_by("render"))
    put_points(corpus, ["test/1", "test/3"], [["tiny_mesh"], []])
    put(corpus, CAPTIONS, [], made_by("caption"))
    put(corpus, text_embeddings("a:b", 2), [], made_by("embed-texts/a:b", reads="captions", per="text_sha256"))
    rows = [failure_row(f"test/{n}", "render", "timeout", attempts=n, log_tail="x" * LOG_SHOWN + "END") for n in (2, 3, 4, 5)]
    rows += [failure_row(f"test/{n}", "caption", "no_text") for n in (0, 2)]
    rows += [failure_row("attic/9", "ingest", "asset_missing"), failure_row("test/9", "ingest", "asset_missing")]
    rows += [failure_row("test/6", "render", "gate_dark", thumbnail=picture((9, 9, 9), 90))]
    rows += [failure_row("ab" * 32, "embed-texts/a:b", "no_embedding")]
    put(corpus, FAILURES, rows)
    return corpus


def test_what_failed_is_counted(broken):
    section = failures(broken)
    figures = section.figures
    assert (figures["named"], figures["failures"], figures["objects"], figures["not_of_objects"]) == (10, 10, 8, 1)
    assert section.gates == {"failed_share": 0.8, "warned_share": 0.2}
    assert figures["tried_again"] == 4  # the objects 2 to 5, as often as their numbers say
    assert figures["reasons"] == {
        "render": {"timeout": 4, "gate_dark": 1},
        "caption": {"no_text": 2},
        "ingest": {"asset_missing": 2},
        "embed-texts/a:b": {"no_embedding": 1},
    }
    assert figures["sources"]["attic"] == {"named": 1, "objects": 1, "failures": {"ingest: asset_missing": 1}}
    assert "8 of 10 objects (80.0\N{NO-BREAK SPACE}%) have a failure" in section.lead
    assert "render: timeout, 4 of 10 failures" in section.lead
    assert section.warnings[0] == "render failed on 4 of 10 for one reason: timeout."


def test_a_failure_is_shown_in_full(broken):
    section = failures(broken)
    cases = shown(section, Cases)
    assert list(cases) == [
        *("render: timeout", "caption: no_text", "ingest: asset_missing", "embed-texts/a:b: no_embedding", "render: gate_dark")
    ]
    slow = cases["render: timeout"]
    assert slow.count == 4
    assert slow.note == "test 4. The command forgets them all; the next build tries them again."
    assert {case.head: case.text for case in slow.cases} == {
        f"test/{n}": f"test/{n}: timeout (Tried {n} times.)" for n in (2, 3, 4, 5)
    }
    log = slow.cases[0].log
    assert len(log) == LOG_SHOWN
    assert log.endswith("xEND")
    assert page([section], title="t", made="m").count("test/6: gate_dark") == 1


def test_the_command_is_the_one_that_tries_again(broken, capsys):
    """It is typed as it stands, for a corpus whose path has a space."""
    from jobs.__main__ import main

    command = shown(failures(broken), Cases)["render: timeout"].cases[0].command
    words = shlex.split(command)
    assert words[:4] == ["python", "-m", "jobs", "retry"]
    assert main(words[3:]) == 0
    assert capsys.readouterr().out.startswith("4 failures of render forgotten")
    assert failures(broken).figures["reasons"]["render"] == {"gate_dark": 1}


def test_a_failure_has_the_picture_that_was_refused_or_the_first_view(broken):
    cases = shown(failures(broken), Cases)
    assert color_of(cases["render: gate_dark"].cases[0].picture) == (9, 9, 9)
    views = {case.head: case.picture for case in cases["caption: no_text"].cases}
    assert views["test/2"] is None
    assert np.allclose(color_of(views["test/0"]), (200, 0, 0), atol=12)  # lossy
    assert Image.open(io.BytesIO(views["test/0"])).size == (144, 144)


def test_examples_are_drawn_by_chance_and_the_same_again(tmp_path):
    corpus = Corpus(str(tmp_path / "corpus"))
    put(corpus, OBJECTS, [object_row(n) for n in range(200)], made_by("ingest", reads=""))
    rows = [failure_row(f"test/{n}", "render", f"reason {n % 50}") for n in range(200)]
    put(corpus, FAILURES, rows)

    def heads(**changes):
        return [[case.head for case in one.cases] for one in shown(failures(corpus, **changes), Cases).values()]

    first = heads(seed=1)
    assert [len(one) for one in first] == [4] * 40
    assert heads(seed=1) == first != heads(seed=2)
    assert [one[:2] for one in first[:3]] == heads(seed=1, reasons_shown=3, examples=2)
    [bars] = shown(failures(corpus), Bars).values()
    assert (len(bars.bars), bars.left_out) == (40, (10, 40))


def test_warnings_of_assets_and_shapes_are_told(broken):
    section = failures(broken)
    assert section.figures["warnings"] == {
        "asset": {"missing_texture": {"objects": 2, "sources": {"test": 2}}, "no_material": {"objects": 1, "sources": {"test": 1}}},
        "shape": {"tiny_mesh": {"objects": 1, "sources": {"test": 1}}},
    }
    assert section.figures["warned"] == 2  # the second object has all three
    assert ("tiny_mesh", "shape", 1, 10.0, "test 1", "test/1") in shown(section, Rows)["Warnings"].rows


@pytest.mark.parametrize("seed", range(3))
def test_status_counts_the_same(tmp_path, seed):
    corpus = patchy(tmp_path / "corpus", np.random.default_rng(seed))[0]
    whole, figures = completeness(corpus), failures(corpus).figures
    assert {source: one["failures"] for source, one in figures["sources"].items()} == {
        source: one.failed for source, one in whole.sources.items()
    }
    for source, one in whole.sources.items():
        kinds = [(warning, found) for of in figures["warnings"].values() for warning, found in of.items()]
        assert {warning: found["sources"][source] for warning, found in kinds if source in found["sources"]} == one.warnings
    assert figures["failures"] == sum(Counter(count for by in figures["reasons"].values() for count in by.values()).elements())


@pytest.mark.parametrize("made", [(), (OBJECTS,), (OBJECTS, FAILURES)])
def test_nothing_is_no_error(tmp_path, broken, made):
    corpus = Corpus(str(tmp_path / "none"))
    for table in made:
        corpus.create(table)
    section = failures(corpus)
    assert section.figures.keys() == failures(broken).figures.keys()
    assert section.figures["failures"] == (0 if made else None)
    assert section.gates == {"failed_share": None, "warned_share": None}
    assert "no corpus yet" in section.lead if not made else section.lead == "No stage failed on anything."


def test_pictures_of_failures_are_not_asked_of_a_corpus_that_keeps_none(tmp_path):
    """FAILURES had no thumbnails once."""
    corpus = Corpus(str(tmp_path / "corpus"))
    put(corpus, OBJECTS, [object_row(0)], made_by("ingest", reads=""))
    put(corpus, FAILURES, [failure_row("test/0", "render", "timeout")])
    corpus.need(FAILURES.name).drop_columns(["thumbnail"])
    [cases] = shown(failures(corpus), Cases).values()
    assert cases.cases[0].picture is None
