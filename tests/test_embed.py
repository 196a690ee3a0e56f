"""The embedding stages: vectors in view order, one per distinct text, and the same whoever is in the batch."""

import hashlib
import io
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pipeline.embed import EmbedImages, EmbedTexts, half_unit
from pipeline.run import run
from pipeline.stage import Single, Task
from pipeline.store import Corpus
from pipeline.teacher import Teacher
from pipeline.weights import TINY_TEACHER
from schemas.check import to_table, violations
from schemas.tables import CAPTIONS, VIEWS

IMAGES = EmbedImages(teacher=TINY_TEACHER, device="cpu")
TEXTS = EmbedTexts(teacher=TINY_TEACHER, device="cpu")


@pytest.fixture(scope="module")
def embed():
    return IMAGES.start()


def picture(rng) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (64, 64, 4), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def views(id: str, count: int, rng) -> Task:
    rows = [{"object_id": id, "view": view, "image": picture(rng)} for view in range(count)]
    return Task(id=id, keys={IMAGES.name: "k"}, rows=rows)


def vectors(made) -> dict[str, np.ndarray]:
    return {row["object_id"]: np.array(row["embedding"]) for row in made.rows[IMAGES.name]}


def test_an_object_gets_its_views_embeddings_in_view_order(embed, rng):
    task = views("a/1", 12, rng)
    expected = Teacher(TINY_TEACHER, device="cpu").encode_images([row["image"] for row in task.rows]).astype(np.float16)
    shuffled = replace(task, rows=[task.rows[i] for i in rng.permutation(12)])
    assert np.array_equal(vectors(embed([shuffled]))["a/1"], expected)


def test_an_object_has_the_same_embeddings_whoever_is_in_its_batch(embed, rng):
    tasks = [views(f"a/{number}", count, rng) for number, count in enumerate((12, 1, 5, 30, 12))]
    together = vectors(embed(tasks))
    for task in tasks:
        assert np.array_equal(vectors(embed([task]))[task.id], together[task.id])
    assert [len(together[task.id]) for task in tasks] == [12, 1, 5, 30, 12]


def test_rows_fit_their_table_and_have_unit_length(embed, rng):
    made = embed([views("a/1", 3, rng), views("a/2", 2, rng)])
    table = to_table(IMAGES.writes, [row | {"stage": "s", "stage_key": "k"} for row in made.rows[IMAGES.name]])
    assert not list(violations(IMAGES.writes, table))
    assert np.concatenate(list(vectors(made).values())).dtype == np.float16


def test_a_picture_that_cannot_be_read_costs_its_object_alone(embed, rng):
    good, bad = views("a/1", 2, rng), views("a/2", 3, rng)
    bad.rows[1]["image"] = bad.rows[1]["image"][:100]
    made = embed([bad, good])
    assert set(vectors(made)) == {"a/1"}
    error = made.failures[IMAGES.name]["a/2"]
    assert error.reason == "image_unreadable" and error.message.startswith("view 1: ")


def test_no_readable_object_makes_no_row(embed, rng):
    bad = views("a/1", 1, rng)
    bad.rows[0]["image"] = b"nothing"
    made = embed([bad])
    assert not made.rows.get(IMAGES.name) and set(made.failures[IMAGES.name]) == {"a/1"}


def test_the_stage_key_depends_on_the_weights_and_not_on_how_the_machine_is_used(tmp_path):
    for stage in (IMAGES, TEXTS):
        assert replace(stage, device="auto").settings() == replace(stage, device="cuda").settings() == stage.settings()
    assert replace(IMAGES, images_per_forward=3).settings() == IMAGES.settings()
    save_file(open_clip.create_model("tricorpus-tiny").state_dict(), tmp_path / "shapes-v1.safetensors")
    other = EmbedImages(teacher=f"tricorpus-tiny:{tmp_path}/shapes-v1.safetensors")
    assert other.name == IMAGES.name and other.settings() != IMAGES.settings()


def test_a_gpu_is_asked_for_by_the_device_alone():
    assert [replace(IMAGES, device=device).gpus for device in ("cpu", "auto", "cuda")] == [0, 0, 1]
    assert [replace(TEXTS, device=device).gpus for device in ("cpu", "auto", "cuda")] == [0, 0, 1]


def test_vectors_without_unit_length_stop_the_run():
    good = np.eye(3, dtype=np.float32)
    assert np.array_equal(half_unit(good), good)
    for bad in (good * 1.01, good * np.nan, good * 0):
        with pytest.raises(RuntimeError, match="3 of 3 embeddings"):
            half_unit(bad)


def test_broken_weights_stop_the_run(tmp_path, rng):
    weights = open_clip.create_model("tricorpus-tiny").state_dict()
    save_file({name: torch.full_like(value, torch.nan) if value.is_floating_point() else value for name, value in weights.items()},
              tmp_path / "nan.safetensors")  # fmt: skip
    with pytest.raises(RuntimeError, match="unit length"):
        replace(IMAGES, teacher=f"tricorpus-tiny:{tmp_path}/nan.safetensors").start()([views("a/1", 1, rng)])


def test_a_corpus_gets_embeddings_of_all_views_and_of_each_kept_text_once(tmp_path, rng):
    corpus = Corpus(str(tmp_path / "corpus"))
    tasks = [views(f"a/{number}", 2, rng) for number in range(5)]
    put(corpus, VIEWS, [view_row(row) for task in tasks for row in task.rows])
    said = [("a/0", "a mug", True), ("a/1", "a mug", True), ("a/2", "a vase", True), ("a/3", "spam", False)]
    put(corpus, CAPTIONS, [caption_row(*row) for row in said])
    for stage in (IMAGES, TEXTS):
        [summary] = run(corpus, Single(stage))
        assert (summary.failed, summary.skipped) == (0, 0)
    images = {row["object_id"]: row["embedding"] for row in corpus.need(IMAGES.writes.name).to_table().to_pylist()}
    teacher = Teacher(TINY_TEACHER, device="cpu")
    for task in tasks:
        assert np.array_equal(images[task.id], teacher.encode_images([row["image"] for row in task.rows]).astype(np.float16))
    texts = {row["text"]: row for row in corpus.need(TEXTS.writes.name).to_table().to_pylist()}
    assert set(texts) == {"a mug", "a vase"}
    for text, row in texts.items():
        assert row["text_sha256"] == hashlib.sha256(text.encode()).hexdigest()
        assert np.array_equal(row["embedding"], teacher.encode_texts([text])[0].astype(np.float16))
    assert [run(corpus, Single(stage))[0].done for stage in (IMAGES, TEXTS)] == [0, 0]


def put(corpus: Corpus, table, rows: list[dict]) -> None:
    corpus.create(table)
    corpus.append(table, corpus.write(table, to_table(table, rows)))


def view_row(row: dict) -> dict:
    return row | {
        "stage": "s",
        "stage_key": "k",
        "width": 64,
        "height": 64,
        "intrinsics": [80.0, 80.0, 32.0, 32.0],
        "camera_to_world": np.eye(4).ravel().tolist(),
        "kind": "photo",
        "rig": None,
        "alpha_coverage": 1.0,
        "border_coverage": 1.0,
        "dark_share": 0.0,
        "bright_share": 0.0,
        "luminance": 0.5,
        "missing_textures": None,
        "device": None,
    }


def caption_row(id: str, text: str, kept: bool) -> dict:
    return {
        "object_id": id,
        "origin": "metadata",
        "caption": 0,
        "stage": "s",
        "stage_key": "k",
        "text": text,
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "model": "by hand",
        "kept": kept,
        "dropped_because": None if kept else "spam",
        "score": None,
    }
