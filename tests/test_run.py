import dataclasses
import errno
import os
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest

from pipeline.on_ray import OnRay, cluster
from pipeline.run import Worker, here, made_by, run
from pipeline.stage import NoRoom, Single
from pipeline.status import status
from pipeline.store import Corpus, CorpusError
from schemas.check import to_table
from schemas.tables import CAPTIONS, OBJECTS
from shout import Both, Shout, Whisper, object_row, texts


@pytest.fixture(scope="module")
def ray_workers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # the workers import `shout`
        with cluster(None):
            yield OnRay(workers=2)


@pytest.fixture(params=["one by one", "overlapping"])
def calls(request, monkeypatch):
    """How many calls of the work run at once in a worker."""
    if request.param == "overlapping":
        monkeypatch.setattr(Shout, "overlap", 3, raising=False)


@pytest.fixture(params=["here", "on Ray"])
def where(request, calls):
    return here if request.param == "here" else request.getfixturevalue("ray_workers")


def failures(corpus):
    return {row["object_id"]: row for row in corpus.need("failures").to_table().to_pylist()}


def test_every_object_gets_its_row_or_its_failure(corpus, where):
    [summary] = run(corpus, Single(Shout(fails=("Thing 3", "Thing 5"))), where=where)
    assert texts(corpus) == {f"test/{n}": f"THING {n}!" for n in range(20) if n not in (3, 5)}
    assert {(row["object_id"], row["stage"], row["reason"], row["attempts"]) for row in failures(corpus).values()} == {
        ("test/3", "shout", "too_shy", 1),
        ("test/5", "shout", "too_shy", 1),
    }
    assert (summary.done, summary.failed, summary.skipped, summary.reasons) == (18, 2, 0, {"too_shy": 2})


def test_a_second_run_does_nothing(corpus, tmp_path):
    stage = Shout(fails=("Thing 3",), log=str(tmp_path / "log"))
    run(corpus, Single(stage))
    versions = {name: corpus.need(name).version for name in ("captions", "failures")}
    [summary] = run(corpus, Single(stage))
    assert (summary.done, summary.failed, summary.skipped) == (0, 0, 20)
    assert versions == {name: corpus.need(name).version for name in ("captions", "failures")}
    assert len((tmp_path / "log").read_text().split()) == 19


def test_a_changed_setting_redoes_all_and_leaves_nothing_old(corpus):
    run(corpus, Single(Shout(fails=("Thing 3",))))
    run(corpus, Single(Shout(mark="?", fails=("Thing 4",))))
    assert texts(corpus) == {f"test/{n}": f"THING {n}?" for n in range(20) if n != 4}
    assert set(failures(corpus)) == {"test/4"}


def test_a_changed_input_redoes_exactly_the_rows_that_depend_on_it(corpus, tmp_path):
    run(corpus, Single(Shout()))
    corpus.delete(OBJECTS, ["test/7", "test/8"])
    corpus.append(OBJECTS, corpus.write(OBJECTS, to_table(OBJECTS, [object_row(7, name="Cup"), object_row(8, creator="Ann")])))
    run(corpus, Single(Shout(log=str(tmp_path / "log"))))
    assert (tmp_path / "log").read_text().split() == ["test/7"]
    assert texts(corpus)["test/7"] == "CUP!"


def test_rows_of_an_object_that_is_gone_go_too(corpus):
    run(corpus, Single(Shout(fails=("Thing 1",))))
    corpus.delete(OBJECTS, ["test/0", "test/1"])
    run(corpus, Single(Shout(fails=("Thing 1",))))
    assert "test/0" not in texts(corpus) and not failures(corpus)


def test_a_bug_stops_the_run_and_keeps_what_was_made(corpus, where):
    with pytest.raises(ZeroDivisionError):
        run(corpus, Single(Shout(breaks=("Thing 3",))), where=where)
    kept = len(texts(corpus))
    assert not failures(corpus)
    [summary] = run(corpus, Single(Shout()), where=where)
    assert summary.done == 20 - kept
    assert len(texts(corpus)) == 20


def test_a_row_that_breaks_a_promise_becomes_a_failure(corpus):
    corpus.delete(OBJECTS, ["test/2"])
    corpus.append(OBJECTS, corpus.write(OBJECTS, to_table(OBJECTS, [object_row(2, name="")])))
    run(corpus, Single(Shout(mark="")))
    assert len(texts(corpus)) == 19
    assert failures(corpus)["test/2"]["reason"] == "refused_by_check"


def test_an_object_that_kills_its_worker_costs_only_itself(corpus, calls, ray_workers):
    run(corpus, Single(Shout(dies=("Thing 3",))), where=ray_workers)
    assert texts(corpus) == {f"test/{n}": f"THING {n}!" for n in range(20) if n != 3}
    assert failures(corpus)["test/3"]["reason"] == "worker_died"


def test_here_and_on_ray_make_the_same_rows(corpus, calls, tmp_path, ray_workers):
    other = dataclasses.replace(corpus, root=str(tmp_path / "other"))
    other.create(OBJECTS)
    other.append(OBJECTS, other.write(OBJECTS, corpus.need("objects").to_table()))
    run(corpus, Single(Shout()), where=here)
    run(other, Single(Shout()), where=ray_workers, workers=2)
    key = [("object_id", "ascending")]
    assert corpus.need("captions").to_table().sort_by(key).equals(other.need("captions").to_table().sort_by(key))


def test_more_workers_than_the_cluster_has_room_for_do_not_hang_the_run(corpus, ray_workers):
    [summary] = run(corpus, Single(Shout()), where=OnRay(workers=50), workers=50)
    assert summary.done == 20 and len(texts(corpus)) == 20


def test_two_runs_at_once_are_refused(corpus):
    with corpus.lock():
        with pytest.raises(CorpusError, match="another run is writing"):
            with corpus.lock():
                pass
    with corpus.lock():
        pass


def test_two_records_of_one_id_are_refused(corpus):
    with pytest.raises(CorpusError, match="two records have the id 'a/1'"):
        run(corpus, Single(Shout()), records=[{"object_id": "a/1", "name": "x"}] * 2)


def test_a_worker_that_cannot_be_set_up_stops_the_run_with_its_own_error(corpus, where):
    with pytest.raises(Exception, match="no such weights"):
        run(corpus, Single(Shout(cannot_start="no such weights")), where=where)
    assert not texts(corpus) and not failures(corpus)


def test_a_worker_on_whose_machine_the_stage_is_another_is_refused(corpus):
    planned = Shout(mark="?")
    corpus.create(planned.writes, made_by(planned))
    Worker(corpus, Single(planned))
    with pytest.raises(CorpusError, match=r"'mark': '\?'.*there .*'mark': '!'"):
        Worker(corpus, Single(Shout(mark="!")))


def test_a_key_press_in_the_middle_of_a_commit_doubles_no_row(corpus, calls, monkeypatch):
    monkeypatch.setattr("pipeline.run.COMMIT_SECONDS", 0.0)
    append, appended = Corpus.append, []

    def append_and_press(self, table, fragments):
        append(self, table, fragments)
        appended.append(table.name)
        if appended.count("captions") == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Corpus, "append", append_and_press)
    with pytest.raises(KeyboardInterrupt):
        run(corpus, Single(Shout()))
    monkeypatch.setattr(Corpus, "append", append)
    assert len(texts(corpus)) == 8  # `texts` asserts that no object is there twice
    [summary] = run(corpus, Single(Shout()))
    assert (summary.done, len(texts(corpus))) == (12, 20)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Together(Shout):
    """A stage whose calls wait for one another, and end in another order than they began."""

    overlap: ClassVar = 3

    def start(self):
        work, meeting, at_once = super().start(), threading.Barrier(3), threading.Semaphore(3)

        def meet(tasks):
            assert at_once.acquire(blocking=False)  # never more than three
            place = meeting.wait(timeout=10)
            time.sleep(0.05 * place)
            at_once.release()
            return work(tasks)

        return meet


def test_calls_that_overlap_are_as_many_as_the_stage_says_and_leave_the_rows_in_their_order(corpus, tmp_path):
    other = dataclasses.replace(corpus, root=str(tmp_path / "other"))
    for number in range(20, 24):
        corpus.append(OBJECTS, corpus.write(OBJECTS, to_table(OBJECTS, [object_row(number)])))
    other.create(OBJECTS)
    other.append(OBJECTS, other.write(OBJECTS, corpus.need("objects").to_table()))
    run(corpus, Single(Shout()))
    run(other, Single(Together()))  # six batches of four: two meetings of three
    assert corpus.need("captions").to_table().equals(other.need("captions").to_table())


def test_a_full_disk_met_by_one_of_several_calls_stops_the_run_and_keeps_what_was_made_before(corpus, monkeypatch):
    monkeypatch.setattr(Shout, "overlap", 3, raising=False)
    write, written = Corpus.write, []

    def write_until_full(self, table, rows):
        if table.name == "captions":
            written.append(table.name)
            if len(written) == 4:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, table, rows)

    monkeypatch.setattr(Corpus, "write", write_until_full)
    with pytest.raises(NoRoom), corpus.lock():
        run(corpus, Single(Shout()))
    monkeypatch.setattr(Corpus, "write", write)
    kept = len(texts(corpus))
    assert kept in (0, 4, 8, 12, 16) and not failures(corpus)
    [summary] = run(corpus, Single(Shout()))
    assert (summary.done, len(texts(corpus))) == (20 - kept, 20)


def test_stages_of_one_shared_table_leave_each_others_rows_alone(corpus):
    run(corpus, Single(Shout()))
    run(corpus, Single(Whisper(mark="...")))
    run(corpus, Single(Shout(mark="?")))
    rows = corpus.need("captions").to_table().to_pylist()
    assert sorted((row["stage"], row["text"][-1]) for row in rows) == [("shout", "?")] * 20 + [("whisper", ".")] * 20
    assert set(corpus.made_by("captions")) == {"shout", "whisper"}
    assert [(s.stage, s.done, s.todo) for s in status(corpus) if s.table == "captions"] == [("shout", 20, 0), ("whisper", 20, 0)]


def test_in_any_other_table_an_object_is_the_stages_that_was_first(corpus, monkeypatch):
    alone = dataclasses.replace(CAPTIONS, shared=False)
    monkeypatch.setattr(Shout, "writes", alone)
    monkeypatch.setattr(Whisper, "writes", alone)
    run(corpus, Single(Shout(only="name <> 'Thing 3'")))
    [summary] = run(corpus, Single(Whisper()))
    assert (summary.done, summary.skipped) == (1, 19)
    assert texts(corpus) == {f"test/{n}": f"THING {n}!" for n in range(20)}
    [summary] = run(corpus, Single(Whisper()))
    assert (summary.done, summary.skipped) == (0, 20)


def test_a_condition_says_which_rows_of_the_input_count(corpus):
    run(corpus, Single(Shout()))
    run(corpus, Single(Shout(only="name IN ('Thing 3', 'Thing 4')")))
    assert texts(corpus) == {"test/3": "THING 3!", "test/4": "THING 4!"}


def test_stages_of_one_pass_may_want_different_objects(corpus):
    stages = (Shout(only="name IN ('Thing 1', 'Thing 2')"), Whisper(only="name IN ('Thing 2', 'Thing 3')"))
    run(corpus, Both(stages))
    rows = corpus.need("captions").to_table().to_pylist()
    made = {(row["object_id"], row["stage"]) for row in rows}
    assert made == {("test/1", "shout"), ("test/2", "shout"), ("test/2", "whisper"), ("test/3", "whisper")}
    assert [summary.done for summary in run(corpus, Both(stages))] == [0, 0]


def test_records_that_are_the_whole_take_the_rest_away_and_others_do_not(tmp_path):
    corpus, stage = Corpus.at(str(tmp_path / "c")), Shout()
    records = [{"object_id": f"test/{n}", "name": f"Thing {n}"} for n in range(5)]
    run(corpus, Single(stage), records=records)
    run(corpus, Single(stage), records=records[:3])
    assert len(texts(corpus)) == 5
    run(corpus, Single(stage), records=records[:3], whole=True)
    assert sorted(texts(corpus)) == ["test/0", "test/1", "test/2"]
