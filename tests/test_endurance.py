"""What befalls a Blender that nobody watches over, and what each of it comes to: a stand-in with faults, and Blender itself."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import trimesh

from pipeline import run as run_module
from pipeline.on_ray import OnRay, cluster
from pipeline.run import here, run
from pipeline.stage import NoRoom, ObjectError, Single, Task
from pipeline.store import Corpus
from render import blender as blender_module
from render.blender import LOG_BYTES, LOG_LINES, LOST, Blender, BlenderSettings
from render.blender_pass import BlenderPass, RenderViews, SamplePoints
from render.spec import SPARE_BYTES, Request
from render.views import read_pictures
from schemas.check import to_table
from schemas.tables import OBJECTS
from shout import Shout, object_row

# ------------------------------------------------------------------------------------------------------------ a stand-in

# It does what the asset says, a line of Python, and answers. `say` writes bytes to where answers are due.
STAND_IN = """\
#!{python}
import json, os, signal, subprocess, sys, time
from pathlib import Path
def say(text):
    while text:
        text = text[os.write(1, text):]
def compute(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
def stop():
    os.kill(os.getpid(), signal.SIGSTOP)
say(b"{{}}\\n")
for line in sys.stdin:
    then = None
    exec(Path(json.loads(line)["asset"]).read_text())
    say(b'{{"thickest": 7}}\\n')
    if then:
        then()
"""


@pytest.fixture
def faulty(tmp_path) -> BlenderSettings:
    program = tmp_path / "blender"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    return BlenderSettings(executable=str(program), timeout_s=4.0, stall_s=0.8, memory_mb=200, confine=False)


def asset(folder: Path, fault: str) -> Request:
    path = folder / "fault.ply"
    path.write_text(fault)
    return Request(asset=str(path), format="ply")


GARBAGE = {
    "a warning of some library": "say(b'Warning: no such font\\n')",
    "a truncated answer": """say(b'{"reason": nul\\n')""",
    "an answer that begins in somebody's line": "say(b'progress 50%')",
    "no UTF-8": "say(bytes(range(128, 256)) + b'\\n')",
    "a number": "say(b'5\\n')",
    "a list": "say(b'[1, 2]\\n')",
    "a text that holds the word": """say(b'"step"\\n')""",
    "another object": """say(b'{"thicket": 7}\\n')""",
    "lists in lists": "say(b'[' * 200_000 + b'\\n')",
    "a line without end": "[say(b'x' * (1 << 20)) for _ in range(1000)]",
}


@pytest.mark.parametrize("fault", GARBAGE.values(), ids=GARBAGE)
def test_what_is_no_answer_costs_its_object_and_no_memory(faulty, tmp_path, fault):
    with Blender(faulty) as blender:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ObjectError) as error:
            blender.do(asset(tmp_path, fault))
        assert (error.value.reason, error.value.attempts) == ("blender_garbage", LOST["blender_garbage"])
        assert len(str(error.value)) < 1000
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # kB; the endless line sends 1 GB
        assert blender.do(asset(tmp_path, ""))[0].thickest == 7


@pytest.mark.parametrize("then", ["say(b'{}\\n')", "say(b'half')", "sys.exit()"])
def test_what_comes_unasked_between_two_objects_is_not_taken_for_an_answer_and_costs_none_of_them(faulty, tmp_path, then):
    with Blender(faulty) as blender:
        blender.do(asset(tmp_path, f"then = lambda: {then}"))
        time.sleep(0.3)
        assert blender.do(asset(tmp_path, "Path('/proc/self/comm').read_text()"))[0].thickest == 7
        assert blender.ends == {"between_objects": 1}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("stop()", "stalled"),  # asleep for ever: no signal but SIGKILL reaches it
        ("time.sleep(1000)", "stalled"),
        ("subprocess.run(['sleep', '1000'])", "stalled"),
        ("compute(1000)", "timeout"),  # an endless loop
        ("""while True: say(b'{"step": "views"}\\n'); time.sleep(0.01)""", "timeout"),  # one that tells of progress
        ("""held = []\nwhile True: held.append(b'x' * (1 << 20)); say(b'{"step": "views"}\\n')""", "out_of_memory"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "blender_crashed"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "blender_crashed"),
        ("os.abort()", "blender_crashed"),
        ("os.close(1); time.sleep(1000)", "blender_crashed"),
    ],
)
def test_a_fault_costs_one_object_and_says_how_far_it_came(faulty, tmp_path, fault, reason):
    with Blender(replace(faulty, timeout_s=1.6)) as blender:
        blender.do(asset(tmp_path, ""))
        told = """say(b'{"step": "import"}\\n'); print('what the library says', file=sys.stderr, flush=True)\n"""
        began = time.monotonic()
        with pytest.raises(ObjectError) as error:
            blender.do(asset(tmp_path, told + fault))
        assert (error.value.reason, error.value.attempts) == (reason, LOST[reason])
        assert blender.ends == {reason: LOST[reason]}
        assert error.value.log_tail.startswith("what the library says")
        assert reason == "blender_crashed" or ": import" in str(error.value) or ": views" in str(error.value)
        assert time.monotonic() - began < 20
        blender.do(asset(tmp_path, ""))


def test_who_computes_or_tells_of_progress_does_not_stand_still(faulty, tmp_path):
    with Blender(replace(faulty, timeout_s=60)) as blender:
        blender.do(asset(tmp_path, "compute(2 * 0.8)"))
        blender.do(asset(tmp_path, """for _ in range(4): time.sleep(0.4); say(b'{"step": "views"}\\n')"""))
        blender.do(asset(tmp_path, "subprocess.run([sys.executable, '-c', 'import time\\nwhile time.process_time() < 1.2: pass'])"))
        assert not blender.ends


def test_one_that_sleeps_before_it_reads_a_request_larger_than_a_pipe_is_noticed(faulty, tmp_path):
    pictures = RenderViews(rig="fibonacci-999@1").pictures("made/1")
    with Blender(faulty) as blender:
        blender.do(asset(tmp_path, "then = stop"))
        assert blender.do(replace(asset(tmp_path, ""), pictures=pictures))[0].thickest == 7
        assert blender.ends == {"stalled": 1}


def test_a_flood_of_errors_fills_no_disk_and_its_end_is_kept(faulty, tmp_path):
    """300 MB of it, where 200 MB of memory and files are too much."""
    flood = "os.set_blocking(2, True)\nfor _ in range(300): os.write(2, b'a line of a flood\\n' * (1 << 16))\n"
    end = "os.write(2, b'\\xff\\xfe the end\\n'); os._exit(1)"
    with Blender(replace(faulty, timeout_s=60)) as blender, pytest.raises(ObjectError) as error:
        blender.do(asset(tmp_path, flood + end))
    assert error.value.reason == "blender_crashed"
    lines = error.value.log_tail.splitlines()
    assert lines[-1].endswith(" the end") and lines[-2] == "a line of a flood"
    assert len(lines) == LOG_LINES and len(error.value.log_tail) <= LOG_BYTES


def test_a_line_of_the_log_without_end_is_cut(faulty, tmp_path):
    with Blender(faulty) as blender, pytest.raises(ObjectError) as error:
        blender.do(asset(tmp_path, "os.write(2, b'x' * 50_000); os._exit(1)"))
    assert len(error.value.log_tail) == LOG_BYTES


def test_blender_that_keeps_much_memory_is_started_anew_between_two_objects(faulty, tmp_path):
    with Blender(replace(faulty, recycle_mb=100)) as blender:
        blender.do(asset(tmp_path, "held = 1"))
        assert not blender.ends
        blender.do(asset(tmp_path, "held = b'x' * (120 << 20)"))
        assert blender.ends == {"recycle_mb": 1}
        blender.do(asset(tmp_path, ""))
        assert blender.ends == {"recycle_mb": 1}


def test_what_a_process_leaves_among_its_temporary_files_goes_with_it(faulty, tmp_path):
    leave = "Path(os.environ['TMPDIR'], 'left').touch()"
    with Blender(replace(faulty, recycle_after=1)) as blender:
        _, folder = blender.do(asset(tmp_path, leave))
        assert folder.is_dir() and not list(folder.parent.rglob("left"))


# ------------------------------------------------------------------------------------------------------------ full disks


@contextmanager
def small_disk(place: Path, megabytes: int):
    """A memory disk of this size at a place that is made."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"may not mount a small disk here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def nearly_full(tmp_path, monkeypatch):
    """A memory disk with room for five of twelve pictures before what is to be spared of it."""
    with small_disk(tmp_path / "small", 2 + (SPARE_BYTES >> 20)) as disk:
        (disk / "others").write_bytes(b"x" * (1 << 20))
        monkeypatch.setattr(blender_module, "MEMORY_DISK", disk)
        monkeypatch.setattr(blender_module, "ROOM_BYTES", 0)
        yield disk


@pytest.fixture(scope="module")
def ball(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("assets") / "ball.glb"
    trimesh.creation.icosphere(subdivisions=2).export(path)
    return path


RENDER = RenderViews(samples=1, denoise=False)


def test_pictures_that_do_not_fit_the_memory_disk_are_made_again_on_the_other(nearly_full, ball):
    """Blender itself says nothing of it, and leaves empty files."""
    with Blender() as blender:
        _, folder = blender.do(Request(asset=str(ball), format="glb", pictures=RENDER.pictures("made/1")))
        assert folder.is_relative_to(tempfile.gettempdir()) and not folder.is_relative_to(nearly_full)
        assert len(read_pictures(folder, 12)) == 12
        assert blender.ends == {"disk_full": 1}
        assert [file.name for file in nearly_full.iterdir()] == ["others"]


def test_an_asset_that_does_not_fit_the_memory_disk_is_opened_on_the_other(nearly_full, tmp_path):
    large = tmp_path / "large.stl"
    trimesh.creation.icosphere(subdivisions=6).export(large)
    (nearly_full / "others").write_bytes(b"x" * (1 + (SPARE_BYTES >> 20) << 20))
    assert large.stat().st_size > shutil.disk_usage(nearly_full).free
    with Blender() as blender:
        _, folder = blender.do(Request(asset=str(large), format="stl", mesh=True))
        assert not folder.is_relative_to(nearly_full)


def test_a_crash_on_a_full_disk_is_the_disks_fault(nearly_full, faulty, tmp_path):
    """Who writes into a mapped file that the disk has no room for gets a SIGBUS."""
    fault = f"""
if os.environ["TMPDIR"].startswith({str(nearly_full)!r}):
    Path(os.environ["TMPDIR"], "mapped").write_bytes(b"x" * (3 << 20))
    os.kill(os.getpid(), signal.SIGBUS)
"""
    with Blender(faulty) as blender:
        assert blender.do(asset(tmp_path, fault))[0].thickest == 7
        assert blender.ends == {"disk_full": 1}


def test_when_no_disk_has_room_the_run_stops_with_a_sentence_and_no_object_is_blamed(nearly_full, ball, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(nearly_full))
    with pytest.raises(NoRoom, match=rf"the disk of {nearly_full} is full \(6\d MB left\).* set TMPDIR"), Blender() as blender:
        blender.do(Request(asset=str(ball), format="glb", pictures=RENDER.pictures("made/1")))
    assert [file.name for file in nearly_full.iterdir()] == ["others"]


@pytest.mark.parametrize("where", [here, pytest.param(OnRay(workers=1), marks=pytest.mark.slow)], ids=["here", "on Ray"])
def test_a_full_disk_of_the_corpus_stops_the_run_and_the_next_one_goes_on_with_nothing_lost_or_doubled(
    tmp_path, where, monkeypatch
):
    """Objects that take 2 MB of a disk, where there is 1 MB; commits after each batch, so that one is cut short as well."""
    monkeypatch.setattr(run_module, "COMMIT_SECONDS", 0)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # the workers import `shout`
    names = [f"{number:05d}" * 1000 for number in range(400)]
    with small_disk(tmp_path / "small", 5) as disk, cluster(None) if where is not here else nullcontext():
        corpus = Corpus(str(disk / "corpus"))
        corpus.create(OBJECTS)
        rows = [object_row(number, name=name) for number, name in enumerate(names)]
        corpus.append(OBJECTS, corpus.write(OBJECTS, to_table(OBJECTS, rows)))
        stage = Single(Shout())
        sentence = rf"that of {corpus.root} has 0 MB left. What was committed is kept"
        with pytest.raises(NoRoom, match=sentence), corpus.lock():
            run(corpus, stage, where=where)
        shouted = corpus.need("captions").to_table()
        assert 0 < len(shouted) < len(names)
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        with corpus.lock():
            [summary] = run(corpus, stage, where=where)
        assert (summary.done, summary.skipped) == (len(names) - len(shouted), len(shouted))
        assert sorted(corpus.need("captions").to_table()["object_id"].to_pylist()) == sorted(row["object_id"] for row in rows)


# ------------------------------------------------------------------------------------------------------------ Blender itself


@contextmanager
def struck(folder: Path, number: int, times: int):
    """Sends Blenders of this process a signal as soon as their first picture lies below `folder`, so many times; who was struck."""
    victims, over = [], threading.Event()

    def strike():
        while len(victims) < times and not over.wait(0.002):
            with suppress(psutil.NoSuchProcess, FileNotFoundError):
                began = [picture.stat().st_mtime for picture in folder.glob("tricorpus-blender-*/results/000.png")]
                for child in psutil.Process().children():
                    rendering = "blender_worker.py" in " ".join(child.cmdline()) and any(at > child.create_time() for at in began)
                    if rendering and child.pid not in victims:
                        victims.append(child.pid)
                        os.kill(child.pid, number)

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        yield victims
    finally:
        over.set()
        thread.join()


def test_points_survive_a_render_that_goes_to_sleep(ball, tmp_path, monkeypatch):
    """Whatever costs Blender its life while it renders: what else is asked of the asset is made alone."""
    monkeypatch.setattr(blender_module, "MEMORY_DISK", tmp_path)
    tries = LOST["stalled"]
    both = BlenderPass(stages=(RENDER, SamplePoints()), blender=BlenderSettings(stall_s=1.5))
    row = {"asset_uri": str(ball), "asset_format": "glb", "companions": [], "front": None}
    work = both.start()
    try:
        with struck(tmp_path, signal.SIGSTOP, 2 * tries) as victims:
            made = work([Task(id="made/1", keys={"render": "k", "points": "k"}, rows=[row])])
        assert len(victims) == 2 * tries and work.blender.ends == {"stalled": 2 * tries}
        assert [row["object_id"] for row in made.rows["points"]] == ["made/1"] and "render" not in made.rows
        [(stage, failed)] = made.failures.items()
        assert stage == "render" and failed["made/1"].reason == "stalled" and failed["made/1"].attempts == tries
        assert "view" in str(failed["made/1"])
        assert len(work([Task(id="made/1", keys={"render": "k"}, rows=[row])]).rows["render"]) == 12
    finally:
        work.close()


def test_a_segmentation_fault_in_the_middle_of_a_render_costs_nothing_when_it_does_not_come_back(ball, tmp_path, monkeypatch):
    monkeypatch.setattr(blender_module, "MEMORY_DISK", tmp_path)
    with Blender() as blender:
        with struck(tmp_path, signal.SIGSEGV, 1) as victims:
            _, folder = blender.do(Request(asset=str(ball), format="glb", pictures=RENDER.pictures("made/1")))
        assert len(victims) == 1 and blender.ends == {"blender_crashed": 1}
        assert len(read_pictures(folder, 12)) == 12
