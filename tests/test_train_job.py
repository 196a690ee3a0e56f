"""The job `train`: what it prints, what it refuses, and that a command that was killed is simply given again."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.__main__ import main
from jobs.train import last_line
from pipeline.store import Corpus
from schemas.check import to_table
from schemas.tables import image_embeddings
from separable import TEACHER, separable
from trainer import checkpoints, curves
from trainer.recipes import RECIPES
from trainer.train import Trained

SMALL = ["--recipe", "pointbert-small", "--epochs", "2", "--batch", "16", "--warmup-steps", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Corpus:
    return separable(tmp_path_factory.mktemp("separable") / "corpus", objects=72)


@pytest.fixture(autouse=True)
def few_points(monkeypatch):
    """The small recipe, smaller: 128 points and one block."""
    small = RECIPES["pointbert-small"]
    encoder = replace(small.encoder, depth=1, groups=16, group_size=8, dim=64, heads=1)
    monkeypatch.setitem(RECIPES, "pointbert-small", replace(small, encoder=encoder, input=replace(small.input, points=128)))


def test_it_trains_and_says_where_the_best_is(built, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", built.root, *SMALL, "--out", str(out), "--held-out", "0.25"]) == 0
    said = capsys.readouterr().out
    assert f"teacher      {TEACHER}" in said and "canary       " in said
    assert f"head         16 numbers, as {TEACHER} has them" in said
    last = said.splitlines()[-1]
    assert last.startswith("trained 6 steps on 55 objects in ") and "held-out objects: held-out loss" in last
    assert f"curves: {out}/curves.png" in last and (out / "curves.png").exists()
    encoder, card = checkpoints.load(last.partition("; ")[2].split("; ")[-1].split(", curves")[0])
    assert card.config["out"] == 16 and encoder(torch.rand(1, 64, 3), torch.rand(1, 64, 3)).shape == (1, 16)


def test_as_json_it_says_one_thing(built, tmp_path, capsys):
    assert main(["train", built.root, *SMALL, "--out", str(tmp_path / "run"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["steps"] == said["total"] == 8 and not said["stopped"]
    assert Path(said["best"]).is_dir() and "held_out/zero_shot/top1" in said["best_figures"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--recipe", "pointbrt"], 2, "there is no recipe 'pointbrt'; the recipes are: openshape-pointbert"),
        (["--recipe", "pointbert-small", "--held-out", "1.5"], 2, "a share of the objects is from 0 to less than 1"),
        (["--recipe", "pointbert-small", "--held-out", "nolist"], 1, "has no split 'nolist' to hold out"),
        (["--recipe", "pointbert-small", "--batch", "0"], 2, "--batch 0: must be more than 0"),
        (["--recipe", "pointbert-small", "--teacher", "ViT-L-14:openai"], 1, "has no table 'image_embeddings/ViT-L-14:openai'"),
        (["--recipe", "uni3d-ti", "--batch", "8"], 1, "would rise for 10,000 steps"),
        (["--recipe", "duoduo", "--batch", "8"], 1, "the recipe duoduo starts from the picture tower of the teacher"),
        (["--recipe", "multiview-small", "--batch", "8"], 1, "has views of 32 pixels, and this encoder sees 224"),
        (["--recipe", "pointbert-small", "--batch", "8", "--initial", "nowhere"], 1, "there is no nowhere to start from"),
    ],
)
def test_what_cannot_be_done_is_answered_with_a_sentence(built, tmp_path, arguments, code, said, capsys):
    assert main(["train", built.root, "--out", str(tmp_path / "run"), "--device", "cpu", *arguments]) == code
    assert said in capsys.readouterr().err


def test_a_corpus_that_is_not_fit_is_not_trained_on(tmp_path, capsys):
    corpus = separable(tmp_path / "corpus", objects=72)
    table = image_embeddings(TEACHER, 16)
    rows = corpus.need(table.name).to_table().to_pylist()
    for row, other in zip(rows, np.roll([row["object_id"] for row in rows], 7), strict=True):
        row["object_id"] = str(other)  # rows dealt out to other objects
    import lance

    lance.write_dataset(to_table(table, rows), corpus.uri(table.name), mode="overwrite")
    command = ["train", corpus.root, *SMALL, "--out", str(tmp_path / "run")]
    assert main(command) == 1
    told = capsys.readouterr()
    assert "the embeddings are not fit to train on: " in told.err and "--no-canary" in told.err
    assert not (tmp_path / "run").exists()
    assert main([*command, "--no-canary"]) == 0


def test_a_corpus_without_or_with_several_teachers_asks_which(built, tmp_path, capsys):
    corpus = separable(tmp_path / "corpus", objects=8)
    other = image_embeddings("ViT-L-14:openai", 4)
    corpus.create(other)
    assert main(["train", corpus.root, *SMALL, "--out", str(tmp_path / "run")]) == 2
    assert f"has several teachers ({TEACHER}, ViT-L-14:openai): say which" in capsys.readouterr().err


def test_the_last_line_of_a_run_that_was_stopped_says_how_to_go_on():
    stopped = Trained(
        steps=1200, total=5000, objects=9, held_out=1, seconds=3.0, last="/runs/a/checkpoints/step-00001200", best="", figures={},
        best_figures={}, curves=None, stopped=True,
    )  # fmt: skip
    assert last_line(stopped) == (
        "stopped after 1,200 of 5,000 steps; the same command goes on from /runs/a/checkpoints/step-00001200"
    )


@pytest.mark.slow
def test_a_killed_command_is_given_again(built, tmp_path):
    """Two processes, killed in mid-epoch, the first and its children; then told to stop; then let run."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "jobs", "train", built.root, "--recipe", "uni3d-small", "--epochs", "6", "--batch", "16"]
    command += ["--warmup-steps", "2", "--device", "cpu", "--out", str(out), "--save-every", "2", "--processes", "2"]
    root = Path(__file__).parent.parent
    for how in (signal.SIGKILL, signal.SIGTERM):
        before = len(lines(out))
        process = subprocess.Popen(command, cwd=root, start_new_session=True, stdout=subprocess.PIPE, text=True)
        until = time.monotonic() + 300
        while len(lines(out)) < before + 5 and time.monotonic() < until and process.poll() is None:
            time.sleep(0.05)
        if how == signal.SIGKILL:
            os.killpg(process.pid, how)
            assert process.wait() == -how
        else:
            process.send_signal(how)
            said, _ = process.communicate()
            assert process.returncode == 143 and "the same command goes on from" in said
    assert subprocess.run(command, cwd=root).returncode == 0
    steps = [line["step"] for line in curves.read_log(out)[0]]
    assert steps == list(range(1, 25))


def lines(out: Path) -> list[str]:
    return (out / "log.jsonl").read_text().splitlines() if (out / "log.jsonl").exists() else []


@pytest.mark.slow
def test_on_ray_it_is_the_same(built, tmp_path):
    pytest.importorskip("ray.train", reason="Ray Train's packages: pip install 'ray[train]'", exc_type=ImportError)
    command = ["train", built.root, "--recipe", "pointbert-small", "--epochs", "1", "--batch", "16", "--warmup-steps", "1"]
    command += ["--device", "cpu", "--processes", "2"]
    assert main([*command, "--out", str(tmp_path / "here")]) == 0
    assert main([*command, "--out", str(tmp_path / "ray"), "--ray"]) == 0
    here, on_ray = ({line["step"]: line["loss"] for line in curves.read_log(tmp_path / name)[0]} for name in ("here", "ray"))
    assert on_ray == here
