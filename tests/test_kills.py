"""Going on after a kill: kill -9 of anything at any time, then the same command again."""

import os
import random
import subprocess
import sys
import time

import psutil
import pytest
from conftest import ROOT

from pipeline.made.made_objects import write_objaverse
from pipeline.store import Corpus

OBJECTS = 24
KILLS = int(os.environ.get("TRICORPUS_KILLS", "10"))


def build(root, source, workers):
    command = [sys.executable, "-m", "jobs", "build", str(root), "--source", f"objaverse={source}"]
    command += ["--teacher", "tricorpus-tiny:shapes-v1", "--workers", str(workers)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def victims(driver):
    """The processes of a running build, by kind."""
    found = {"driver": [driver], "blender": [], "ray worker": [], "raylet": []}
    for child in driver.children(recursive=True):
        try:
            command = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if "blender_worker.py" in command:
            found["blender"].append(child)
        elif command.startswith("ray::Worker"):
            found["ray worker"].append(child)
        elif "raylet/raylet " in command:
            found["raylet"].append(child)
    return {kind: processes for kind, processes in found.items() if processes}


def rows(corpus, table, columns):
    keys = [name for name in columns if name in ("object_id", "view", "origin", "caption", "text_sha256", "name", "stage")]
    return corpus.need(table).to_table(columns=columns).sort_by([(name, "ascending") for name in keys])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_ten_kills_cost_no_object_and_double_none(tmp_path, workers):
    source = tmp_path / "hf-objaverse-v1"
    write_objaverse(source, OBJECTS, seed=11)
    reference, corpus = Corpus(str(tmp_path / "reference")), Corpus(str(tmp_path / "killed"))
    whole = build(reference.root, source, workers=0)
    assert "failed" in whole.communicate(timeout=1200)[0] and whole.returncode == 0

    chance = random.Random(workers)
    killed, runs, output = [], 0, ""
    while True:
        process, runs = build(corpus.root, source, workers), runs + 1
        driver = psutil.Process(process.pid)
        while len(killed) < KILLS and process.poll() is None:
            time.sleep(chance.uniform(1, 12))
            if process.poll() is not None or not (there := victims(driver)):
                break
            kind, victim = chance.choice([(kind, process) for kind in sorted(there) for process in there[kind]])
            try:
                victim.kill()
            except psutil.NoSuchProcess:
                continue
            killed.append(kind)
            if kind == "driver":
                break
        output = process.communicate(timeout=1200)[0]
        for table in corpus.tables() if os.path.isdir(corpus.root) else ():
            corpus.need(table).to_table()  # readable after every kill
        if len(killed) >= KILLS and process.returncode == 0:
            break
        assert runs < 3 * KILLS, f"no progress after {runs} runs and kills of {killed}:\n{output}"
    print(f"workers {workers}: killed {killed} over {runs} runs")

    same = {
        "objects": ["object_id", "asset_sha256", "stage_key"],
        "points": ["object_id", "xyz", "rgb", "canonical_from_asset", "stage_key"],
        "captions": ["object_id", "caption", "text", "kept", "stage_key"],
        "views": ["object_id", "view", "camera_to_world", "intrinsics", "stage_key"],
        "image_embeddings/tricorpus-tiny:shapes-v1": ["object_id", "stage_key"],
        "text_embeddings/tricorpus-tiny:shapes-v1": ["text_sha256", "stage_key"],
        "class_embeddings/tricorpus-tiny:shapes-v1": ["name", "stage_key"],
    }
    for table, columns in same.items():
        got, expected = (rows(one, table, columns) for one in (corpus, reference))
        print(f"  {table}: {len(got)} rows, expected {len(expected)}")
        assert got.equals(expected), table
    assert rows(corpus, "failures", ["object_id", "stage", "reason"]).equals(
        rows(reference, "failures", ["object_id", "stage", "reason"])
    )
