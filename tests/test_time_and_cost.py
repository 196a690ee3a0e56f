"""The report's section on time and cost, and the sums of runs that it is made of."""

import dataclasses
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.run import made_by, run
from pipeline.stage import Single
from pipeline.status import status
from pipeline.store import Corpus
from reports.passes import stages_of
from reports.section import Rows
from reports.time_and_cost import time_and_cost
from schemas.check import to_table
from schemas.corpus import Reader
from schemas.tables import CAPTIONS, RUNS
from shout import Both, Shout, Whisper

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def row(number: int, *stages: Shout, done: int = 100, failed: int = 0, **changes) -> dict:
    """A row of RUNS: an hour of two workers, which had work for three quarters of it, with four cores and half a GPU each."""
    return {
        "began": BEGAN + timedelta(hours=number),
        "stages": [
            {"stage": stage.name, "table": "captions", "done": done, "failed": failed, "skipped": 0}
            | {"made_by": json.dumps(made_by(stage), sort_keys=True)}
            for stage in stages
        ],
        "tasks": done + failed,
        "wall_seconds": 3600.0,
        "work_seconds": 5400.0,
        "workers": 2,
        "cpus": 4.0,
        "gpus": 0.5,
        "devices": ["AMD EPYC", "NVIDIA H200"],
        "python": "3.11.0",
        "tricorpus": None,
        "stopped_by": None,
    } | changes


def put(corpus: Corpus, *rows: dict) -> None:
    """These runs, and no others."""
    shutil.rmtree(corpus.uri(RUNS.name), ignore_errors=True)
    corpus.create(RUNS)
    corpus.append(RUNS, corpus.write(RUNS, to_table(RUNS, list(rows))))


def table(section, title: str) -> list[dict]:
    """The rows of an exhibit, by their head."""
    [found] = [one for one in section.exhibits if isinstance(one, Rows) and one.title == title]
    return [dict(zip(found.head, one, strict=True)) for one in found.rows]


def test_hours_and_money_are_those_of_the_runs(corpus):
    run(corpus, Single(Shout()))
    put(corpus, row(0, Shout(), done=900, failed=100), row(1, Shout(), done=500, stopped_by="KeyboardInterrupt"))
    section = time_and_cost(corpus, cpu_hour=0.1, gpu_hour=2.0, currency="EUR")
    shout = section.figures["passes"]["shout"]
    expected = {
        "runs": 2,
        "tasks": 1500,
        "wall_hours": 2.0,
        "worker_hours": 3.0,
        "held_hours": 4.0,
        "busy_share": 0.75,
        "cpu_hours": 12.0,
        "gpu_hours": 1.5,
        "tasks_per_worker_hour": 500.0,
        "cost": 4.2,
        "cost_held": 5.6,
        "cost_per_1000": 2.8,
        "wall_share": 1.0,
    }
    assert {name: shout[name] for name in expected} == pytest.approx(expected)
    assert (shout["done"], shout["failed"], shout["stopped_by"]) == ({"shout": 1400}, {"shout": 100}, {"KeyboardInterrupt": 1})
    assert section.figures["cost"] == pytest.approx(4.2) and section.figures["stopped_runs"] == 1
    assert "2 runs took 2.0 h by the clock, 12.0 core hours and 1.5 GPU hours, 4.20 EUR" in section.lead
    [shown] = table(section, "Passes")
    assert (shown["worked on"], shown["failed"], shown["EUR"], shown["EUR per 1,000"]) == (1500, 100, 4.2, 2.8)
    assert {one["on"] for one in table(section, "Runs")} == {"AMD EPYC, NVIDIA H200"}
    json.dumps(section.figures)


def test_passes_share_the_time_and_their_sums_are_the_whole(corpus):
    run(corpus, Both((Shout(), Whisper())))
    put(corpus, row(0, Shout(), Whisper(), wall_seconds=7200.0), row(1, Shout(), gpus=0.0), row(2, Whisper(), workers=1))
    figures = time_and_cost(corpus).figures
    assert list(figures["passes"]) == ["shout + whisper", "shout", "whisper"]
    assert [one["wall_share"] for one in figures["passes"].values()] == [0.5, 0.25, 0.25]
    for name in ("runs", "wall_hours", "worker_hours", "held_hours", "cpu_hours", "gpu_hours"):
        assert figures[name] == pytest.approx(sum(one[name] for one in figures["passes"].values())), name


def test_without_prices_nobody_talks_of_money(corpus):
    run(corpus, Single(Shout()))
    section = time_and_cost(corpus)
    assert section.figures["cost"] is None and section.figures["passes"]["shout"]["cost_per_1000"] is None
    assert "USD" not in section.lead and not any("USD" in name for one in table(section, "Passes") for name in one)
    assert time_and_cost(corpus, gpu_hour=2.0).figures["cost"] == 0  # no GPU was used


def test_what_is_to_come_goes_at_the_pace_of_the_present_settings(corpus):
    run(corpus, Single(Shout(mark="?", only="name < 'Thing 16'")))  # Thing 0, 1, 10 to 15
    put(corpus, row(0, Shout(), work_seconds=1.0), row(1, Shout(mark="?"), done=100, workers=3))
    corpus.create(CAPTIONS, made_by(Shout(mark="?")))  # of all objects
    section = time_and_cost(corpus, cpu_hour=1.0)
    coming = section.figures["passes"]["shout"]["to_come"]
    expected = {"todo": 12, "worker_hours": 0.18, "cpu_hours": 0.72, "gpu_hours": 0.09, "workers": 3, "wall_hours": 0.06}
    assert coming == pytest.approx(expected | {"cost": 0.72})
    [shown] = table(section, "Still to do")
    assert (shown["to do"], shown["worker h"], shown["USD"]) == (12, 0.18, 0.72)


def test_where_no_run_had_the_present_settings_the_pace_is_not_known(corpus):
    run(corpus, Single(Shout(only="name < 'Thing 16'")))
    put(corpus, row(0, Shout()))
    corpus.create(CAPTIONS, made_by(Shout(mark="?")))
    coming = time_and_cost(corpus, cpu_hour=1.0).figures["passes"]["shout"]["to_come"]
    assert coming["todo"] == 12 and {value for name, value in coming.items() if name != "todo"} == {None}


def test_what_is_still_to_do_is_told_once_in_the_pass_that_did_it_last(corpus):
    run(corpus, Single(Shout(only="name < 'Thing 16'")))
    run(corpus, Both((Shout(only="name < 'Thing 16'", mark="?"), Whisper(only="name < 'Thing 16'"))))
    corpus.create(CAPTIONS, made_by(Shout(mark="?")))
    corpus.create(CAPTIONS, made_by(Whisper()))
    passes = time_and_cost(corpus).figures["passes"]
    assert {name: one["to_come"]["todo"] for name, one in passes.items()} == {"shout": None, "shout + whisper": 12}


@pytest.mark.parametrize("shared", [True, False])
def test_done_and_to_do_are_counted_as_status_counts_them(corpus, monkeypatch, shared):
    writes = dataclasses.replace(CAPTIONS, shared=shared)
    monkeypatch.setattr(Shout, "writes", writes)
    monkeypatch.setattr(Whisper, "writes", writes)
    run(corpus, Single(Shout(fails=("Thing 3",), only="name < 'Thing 5'")))
    run(corpus, Single(Whisper(only="name IN ('Thing 3', 'Thing 4', 'Thing 6', 'Thing 7', 'Thing 8')", fails=("Thing 8",))))
    corpus.create(writes, made_by(Shout()))
    corpus.create(writes, made_by(Whisper(only="name > 'Thing 2'")))
    told = {one.stage: (one.done + one.failed, one.todo) for one in status(corpus) if one.table == "captions"}
    counted = {name: (stage.settled, stage.todo) for name, stage in stages_of(corpus, "captions").items()}
    assert counted == told and all(count for counts in told.values() for count in counts)


def test_results_of_runs_that_told_nothing_are_without_a_time(corpus):
    run(corpus, Single(Shout(only="name < 'Thing 16'", fails=("Thing 1",))))
    put(corpus, row(0, Whisper(), done=5))  # of another stage
    run(corpus, Single(Shout()))
    section = time_and_cost(corpus)
    # the failure of the first run was tried again: a setting that does not count changed nothing, so it was not
    assert section.figures["untimed"] == {"shout": 8}
    assert section.gates["untimed_share"] == 8 / 20
    assert "for at least 8 of 20 results no time is known" in section.lead
    [shown] = table(section, "Without a known time")
    assert tuple(shown.values()) == ("shout", 20, 8)


def test_a_run_told_all_where_none_was_killed(corpus):
    run(corpus, Single(Shout(fails=("Thing 1",))))
    run(corpus, Single(Whisper()))
    section = time_and_cost(Reader.at(corpus.root))
    assert section.gates["untimed_share"] == 0 and "no time is known" not in section.lead
    assert section.figures["passes"]["shout"]["tasks"] == 20 and section.figures["passes"]["shout"]["failed"] == {"shout": 1}
    assert [one["ended"] for one in table(section, "Runs")] == ["by itself", "by itself"]


def test_a_corpus_without_runs_and_a_folder_without_tables_have_a_section(corpus, tmp_path):
    run(corpus, Single(Shout()))
    known = time_and_cost(corpus)
    shutil.rmtree(Path(corpus.uri(RUNS.name)))
    before_runs, nothing = time_and_cost(corpus), time_and_cost(Reader.at(str(tmp_path / "nothing")))
    for section in (before_runs, nothing):
        assert section.lead.startswith("No run has left its time here")
        assert section.figures.keys() == known.figures.keys() and section.gates.keys() == known.gates.keys()
        assert section.figures["wall_hours"] is None and section.figures["runs"] == 0
    assert (before_runs.gates["untimed_share"], nothing.gates["untimed_share"]) == (1.0, None)
    assert nothing.exhibits == ()


def test_of_many_runs_the_last_are_shown(corpus, monkeypatch):
    monkeypatch.setattr("reports.time_and_cost.RUNS_SHOWN", 3)
    run(corpus, Single(Shout()))
    put(corpus, *(row(number, Shout()) for number in range(5)))
    section = time_and_cost(corpus)
    began = [one["began (UTC)"] for one in table(section, "Runs")]
    assert began == ["2026-01-01 04:00:00", "2026-01-01 03:00:00", "2026-01-01 02:00:00"]
    assert section.figures["runs"] == 5 and section.exhibits[-1].note == "The last 3 of 5."
