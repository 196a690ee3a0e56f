"""What `maintain` gives back, and what it leaves alone."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.__main__ import main
from pipeline.run import run
from pipeline.stage import Single
from pipeline.store import Corpus
from reports.storage import room_of
from schemas.check import to_table
from schemas.tables import OBJECTS
from shout import Shout, object_row, texts


def put(corpus: Corpus, *numbers: int) -> None:
    corpus.append(OBJECTS, corpus.write(OBJECTS, to_table(OBJECTS, [object_row(number) for number in numbers])))


def versions(corpus: Corpus, table: str = "objects") -> list[int]:
    return sorted(version["version"] for version in corpus.need(table).versions())


def files(corpus: Corpus) -> dict[str, int]:
    return {str(file): file.stat().st_size for file in Path(corpus.root).glob("*.lance/**/*") if file.is_file()}


@pytest.fixture
def worn(corpus) -> Corpus:
    """A corpus that was written to often: rows deleted, captions made three times."""
    for number in range(30, 36):
        put(corpus, number)
    corpus.delete(OBJECTS, [f"test/{number}" for number in range(2, 18)])
    for mark in "!?.":
        run(corpus, Single(Shout(mark=mark)))
    return corpus


def test_a_version_counts_from_when_another_took_its_place(corpus):
    first = corpus.need("objects").version
    before, _ = datetime.now(UTC), put(corpus, 30)
    between, _ = datetime.now(UTC), put(corpus, 31)
    assert first - 1 in corpus.superseded("objects", before) and first not in corpus.superseded("objects", before)
    assert corpus.superseded("objects", between)[-1] == first
    assert corpus.superseded("objects", datetime.now(UTC) + timedelta(days=1))[-1] == first + 1  # never the newest
    corpus.need("objects").tags.create("published", first)
    assert first not in corpus.superseded("objects", between)


def test_all_that_is_dead_goes_and_what_there_is_stays_in_its_order(worn, capsys):
    rows, said = worn.need("objects").to_table(), texts(worn)
    before = sum(files(worn).values())
    assert main(["maintain", worn.root, "--older-than", "0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["tables"]
    assert worn.need("objects").to_table().equals(rows) and texts(worn) == said
    assert {name: len(versions(worn, name)) for name in worn.tables()} == dict.fromkeys(worn.tables(), 1)
    assert {name: room_of(worn.need(name)).dead for name in worn.tables()} == dict.fromkeys(worn.tables(), 0)
    assert len(worn.need("objects").get_fragments()) == 1
    assert sum(files(worn).values()) < before / 2
    held = {name: sum(one[name] for one in told.values()) for name in ("bytes_before", "bytes")}
    assert held == {"bytes_before": before, "bytes": sum(files(worn).values())}
    assert set(told) == set(worn.tables()) and all(one["dead_bytes"] == 0 for one in told.values())
    [summary] = run(worn, Single(Shout(mark=".")))  # nothing is to be done again
    assert (summary.done, summary.skipped) == (0, 10)


def test_a_tagged_version_stays_readable(worn):
    first = versions(worn)[2]
    then = worn.open("objects", version=first).to_table()
    worn.need("objects").tags.create("published", first)
    assert main(["maintain", worn.root, "--older-than", "0"]) == 0
    assert len(versions(worn)) == 2 and worn.open("objects", version=first).to_table().equals(then)


def test_by_default_what_was_the_newest_of_late_stays_readable(worn, capsys):
    read = {version: worn.open("objects", version=version).to_table() for version in versions(worn)}
    assert main(["maintain", worn.root]) == 0
    assert all(worn.open("objects", version=version).to_table().equals(rows) for version, rows in read.items())
    assert room_of(worn.need("objects")).deleted == 0  # the rows were left out, and the files as they were kept
    assert "are kept for 14 days after another took their place" in capsys.readouterr().out


def test_a_table_with_few_deleted_rows_is_not_written_anew(corpus):
    put(corpus, 30)
    corpus.delete(OBJECTS, ["test/3"])
    before = files(corpus)
    assert main(["maintain", corpus.root]) == 0
    assert files(corpus) == before


def test_a_dry_run_says_what_would_go_and_changes_nothing(worn, capsys):
    before, count = files(worn), len(versions(worn))
    assert main(["maintain", worn.root, "--older-than", "0", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["tables"]["objects"]
    assert (told["versions"], told["versions_gone"], told["bytes"]) == (count, count - 1, told["bytes_before"])
    assert main(["maintain", worn.root, "--dry-run"]) == 0
    assert "nothing was changed" in capsys.readouterr().out and files(worn) == before


def test_fragments_that_wait_to_be_committed_are_left_alone(worn):
    waiting = worn.write(OBJECTS, to_table(OBJECTS, [object_row(99)]))
    assert main(["maintain", worn.root, "--older-than", "0"]) == 0
    worn.append(OBJECTS, waiting)
    assert "test/99" in worn.need("objects").to_table()["object_id"].to_pylist()


def test_it_does_not_run_beside_a_build(worn, capsys):
    before = files(worn)
    with worn.lock():
        assert main(["maintain", worn.root, "--older-than", "0"]) == 1
    assert "another run is writing" in capsys.readouterr().err
    assert files(worn) == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["/nowhere/at/all"], 1, "has no table 'objects'"),
        (["{root}", "--older-than", "-1"], 2, "--older-than -1: must be 0 or more"),
    ],
)
def test_a_wrong_call_gets_its_exit_code_and_a_sentence(arguments, code, words, corpus, capsys):
    assert main(["maintain", *(argument.format(root=corpus.root) for argument in arguments)]) == code
    assert words in capsys.readouterr().err
