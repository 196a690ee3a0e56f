"""What a run leaves in RUNS: its time, its workers, what it did, and how it ended."""

import dataclasses
import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pyarrow as pa
import pytest

import pipeline.cost
from pipeline.cost import WHOLE_MACHINE, Clock, Share, Spent
from pipeline.on_ray import OnRay, cluster
from pipeline.run import _shuffled, made_by, run
from pipeline.stage import Single
from pipeline.store import Corpus
from schemas.check import to_table
from schemas.tables import OBJECTS, RUNS
from shout import Both, Shout, Whisper, object_row, texts

SECONDS = 0.05  # that a batch takes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slow(Shout):
    """A stage whose batches take a time that is known, at least."""

    def start(self):
        work = super().start()

        def slowly(tasks):
            time.sleep(SECONDS)
            return work(tasks)

        return slowly


def rows(corpus: Corpus) -> list[dict]:
    return corpus.need("runs").to_table().sort_by("began").to_pylist()


def test_a_run_leaves_one_row_of_what_it_did_and_how_long_it_took(corpus):
    stage = Slow(fails=("Thing 3", "Thing 5"))
    before = datetime.now(UTC)
    run(corpus, Single(stage))
    after = datetime.now(UTC)
    [row] = rows(corpus)
    assert before <= row["began"] <= after
    assert row["stages"] == [
        {"stage": "shout", "table": "captions", "done": 18, "failed": 2, "skipped": 0}
        | {"made_by": json.dumps(made_by(stage), sort_keys=True)}
    ]
    assert json.loads(row["stages"][0]["made_by"]) == corpus.made_by("captions")["shout"]
    assert 5 * SECONDS <= row["work_seconds"] <= row["wall_seconds"] <= (after - before).total_seconds()
    assert (row["tasks"], row["workers"], row["gpus"], row["stopped_by"]) == (20, 1, 0, None)
    assert row["cpus"] == len(os.sched_getaffinity(0))
    assert row["python"] == ".".join(map(str, sys.version_info[:3]))


def test_no_row_names_a_machine_or_a_person(corpus):
    run(corpus, Single(Shout()))
    said = repr(rows(corpus)).lower()
    assert socket.gethostname().lower() not in said and str(Path.home()).lower() not in said
    assert getpass.getuser().lower() not in (said if len(getpass.getuser()) > 4 else [])  # "root" may be a part of any word


def test_a_run_that_does_nothing_leaves_no_row(corpus):
    run(corpus, Single(Shout(only="name = 'nobody'")))
    assert corpus.open("runs") is None
    run(corpus, Single(Shout(fails=("Thing 3",))))
    version = corpus.need("runs").version
    run(corpus, Single(Shout(fails=("Thing 3",))))
    assert (corpus.need("runs").version, len(rows(corpus))) == (version, 1)


def test_a_run_that_goes_on_leaves_a_row_of_its_own(corpus):
    run(corpus, Single(Shout(only="name IN ('Thing 1', 'Thing 2')")))
    run(corpus, Single(Shout()))
    counts = [{name: row["stages"][0][name] for name in ("done", "failed", "skipped")} for row in rows(corpus)]
    assert counts == [{"done": 2, "failed": 0, "skipped": 0}, {"done": 18, "failed": 0, "skipped": 2}]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_run_that_is_stopped_says_by_what_and_counts_what_was_kept(corpus, error):
    def watch(total, counts):
        if counts["done"] == 8:
            raise error

    with pytest.raises(error):
        run(corpus, Single(Slow()), watch=watch)
    [row] = rows(corpus)
    assert (row["stopped_by"], row["tasks"], row["stages"][0]["done"]) == (error.__name__, 8, len(texts(corpus)))
    assert row["work_seconds"] >= 2 * SECONDS


def test_a_run_that_made_nothing_before_it_was_stopped_leaves_no_table(corpus):
    with pytest.raises(FileNotFoundError):
        run(corpus, Single(Shout(cannot_start="no such weights")))
    assert "runs" not in corpus.tables()


def test_a_killed_run_leaves_none(corpus):
    code = f"""
import pipeline.run
from pipeline.stage import Single
from pipeline.store import Corpus
from shout import Shout
pipeline.run.COMMIT_SECONDS = 0.0
pipeline.run.run(Corpus({corpus.root!r}), Single(Shout(dies=("Thing 11",))))
"""
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    killed = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": paths})
    assert killed.returncode == -signal.SIGKILL
    assert corpus.open("runs") is None
    kept = len(texts(corpus))
    run(corpus, Single(Shout()))
    [row] = rows(corpus)
    assert (row["stages"][0]["done"], row["stages"][0]["skipped"]) == (20 - kept, kept)


def test_a_pass_of_two_stages_is_one_run_and_counts_an_object_once(corpus):
    run(corpus, Both((Shout(), Whisper(fails=("Thing 4",), only="name <> 'Thing 2'"))))
    [row] = rows(corpus)
    assert [(stage["stage"], stage["done"], stage["failed"]) for stage in row["stages"]] == [("shout", 20, 0), ("whisper", 18, 1)]
    assert row["tasks"] == 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlapping(Slow):
    """As slow, but four calls at once."""

    overlap: ClassVar = 4


def test_calls_that_overlap_are_one_workers_time(corpus):
    run(corpus, Single(Overlapping()))
    [row] = rows(corpus)
    assert 2 * SECONDS <= row["work_seconds"] <= row["wall_seconds"]  # five batches, of which four are at once


def test_a_clock_counts_the_time_in_which_anything_runs(monkeypatch):
    times = iter((0.0, 1.0, 3.0, 4.0, 10.0, 12.0))
    monkeypatch.setattr(pipeline.cost, "time", SimpleNamespace(monotonic=lambda: next(times)))
    clock, spent = Clock(), [Spent() for _ in range(3)]
    first, second, third = (clock.running(one) for one in spent)
    # |---first---|
    #     |---second---|          |--third--|
    # 0   1       3    4          10       12
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    with third:
        pass
    assert [one.seconds for one in spent] == [3.0, 1.0, 2.0]  # in all 6, as the clock on the wall has it


def test_workers_on_ray_say_what_they_took_and_their_time_is_summed(corpus, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    last = max((f"test/{number}" for number in range(20)), key=_shuffled).removeprefix("test/")
    with cluster(None):
        run(corpus, Single(Slow()), where=OnRay(workers=2), workers=2)
        with pytest.raises(ZeroDivisionError):
            run(corpus, Single(Slow(mark="?", breaks=(f"Thing {last}",))), where=OnRay(workers=1, cpus=2), workers=1)
    whole, broken = rows(corpus)
    assert (whole["workers"], whole["cpus"], whole["gpus"], whole["tasks"]) == (2, 0.5, 0, 20)
    assert 7 * SECONDS <= whole["work_seconds"] <= 2 * whole["wall_seconds"]  # batches of three
    assert (broken["stopped_by"], broken["cpus"]) == ("ZeroDivisionError", 2)


def test_gpus_are_known_by_name_and_counted_where_nobody_shares_them_out():
    views = pa.table({"device": ["OPTIX: NVIDIA H200", "CPU", None]})
    alone, sharing = WHOLE_MACHINE.spent(), Share(cpus=1, gpus=0.25).spent()
    WHOLE_MACHINE.name_devices(alone, views)
    Share(cpus=1, gpus=0.25).name_devices(sharing, views)
    assert "NVIDIA H200" in alone.devices and "CPU" not in alone.devices
    assert (alone.gpus, sharing.gpus, sharing.cpus) == (1.0, 0.25, 1)
    plain = WHOLE_MACHINE.spent()
    WHOLE_MACHINE.name_devices(plain, views.slice(1))
    assert plain.gpus == 0


def test_a_corpus_behind_a_uri_keeps_its_runs_too(tmp_path):
    corpus = Corpus.at(f"file://{tmp_path}/corpus")
    corpus.create(OBJECTS)
    corpus.append(OBJECTS, corpus.write(OBJECTS, to_table(OBJECTS, [object_row(number) for number in range(3)])))
    run(corpus, Single(Shout()))
    assert corpus.tables() == ["captions", "failures", "objects", "runs"]
    assert [row["tasks"] for row in rows(corpus)] == [3]


def test_many_runs_are_kept_in_few_fragments(corpus, monkeypatch):
    monkeypatch.setattr("pipeline.store.SMALL_FRAGMENTS", 8)
    for number in range(20):
        run(corpus, Single(Shout(mark="!" * (number % 2 + 1), only="name = 'Thing 1'")))
    assert len({row["began"] for row in rows(corpus)}) == 20
    assert len(corpus.need(RUNS.name).get_fragments()) < 8
