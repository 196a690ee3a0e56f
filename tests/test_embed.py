"""The embedding stages: vectors in view order, one per distinct text, and the same whoever is in the batch."""

import hashlib
import io
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import Transformer
from PIL import Image
from safetensors.torch import save_file
from torch.nn.modules.module import register_module_forward_pre_hook

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


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_embeddings_and_their_lengths_are_the_teachers_own_vectors_and_the_arithmetic_is_told(rng, dtype):
    teacher = Teacher(TINY_TEACHER, device="cpu", dtype=dtype)
    task = views("a/1", 3, rng)
    [row] = replace(IMAGES, dtype=dtype).start()([task]).rows[IMAGES.name]
    raw = teacher.image_vectors([teacher.prepare(view["image"]) for view in task.rows])
    np.testing.assert_allclose(
        np.array(row["embedding"], np.float32) * np.array(row["lengths"])[:, None], raw, atol=2e-3 * raw.max()
    )
    np.testing.assert_allclose(row["lengths"], np.linalg.norm(raw, axis=1), rtol=1e-6)
    [said] = replace(TEXTS, dtype=dtype).start()([Task(id="t", keys={}, rows=[{"text": "a mug"}])]).rows[TEXTS.name]
    raw = teacher.text_vectors(["a mug"])[0]
    np.testing.assert_allclose(said["embedding"].astype(np.float32) * said["length"], raw, atol=2e-3 * raw.max())
    assert row["dtype"] == said["dtype"] == {"auto": "float32"}.get(dtype, dtype)


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
    assert replace(IMAGES, images_per_forward=3, compile=True).settings() == IMAGES.settings()
    save_file(open_clip.create_model("tricorpus-tiny").state_dict(), tmp_path / "shapes-v1.safetensors")
    other = EmbedImages(teacher=f"tricorpus-tiny:{tmp_path}/shapes-v1.safetensors")
    assert other.name == IMAGES.name and other.settings() != IMAGES.settings()


def test_the_arithmetic_that_is_asked_for_is_part_of_the_stage_key_and_no_other_is_known():
    settings = [replace(IMAGES, dtype=dtype).settings() for dtype in ("auto", "float32", "bfloat16")]
    assert [one["dtype"] for one in settings] == ["auto", "float32", "bfloat16"]
    for wrong in ({"dtype": "float16"}, {"device": "gpu"}):
        with pytest.raises(ValueError, match="must be one of"):
            replace(TEXTS, **wrong)


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


# ---------------------------------------------------------------------------------------------------------------- backfill


@contextmanager
def forwards():
    """How many pictures and texts go through a model of one picture or text per pass: [pictures, texts]."""
    passes = [0, 0]

    def count(module, inputs):
        if isinstance(module, ModifiedResNet):
            passes[0] += len(inputs[0])
        elif isinstance(module, Transformer):
            passes[1] += len(inputs[0])

    hook = register_module_forward_pre_hook(count)
    try:
        yield passes
    finally:
        hook.remove()


ONE_IMAGE, ONE_TEXT = replace(IMAGES, images_per_forward=1), replace(TEXTS, texts_per_forward=1)


def embed_all(corpus: Corpus, **changes) -> list[int]:
    """Run both stages; the numbers of pictures and texts that went through the model."""
    with forwards() as passes:
        for stage in (ONE_IMAGE, ONE_TEXT):
            run(corpus, Single(replace(stage, **changes)))
    return passes


def versions(corpus: Corpus) -> dict[str, int]:
    return {name: corpus.need(name).version for name in corpus.tables()}


@pytest.fixture
def finished(tmp_path, rng) -> Corpus:
    """A corpus of five objects with three views and a caption each, four distinct texts, embedded by the tiny teacher."""
    corpus = Corpus(str(tmp_path / "corpus"))
    put(corpus, VIEWS, [view_row(row) for number in range(5) for row in views(f"a/{number}", 3, rng).rows])
    put(corpus, CAPTIONS, [caption_row(f"a/{number}", f"mug {min(number, 3)}", True) for number in range(5)])
    assert embed_all(corpus) == [15, 4]
    return corpus


def rows_of(corpus: Corpus, table) -> dict[str, dict]:
    return {row[table.id_column]: row for row in corpus.need(table.name).to_table().to_pylist()}


def test_a_second_teacher_encodes_all_and_touches_no_other_table(finished, tmp_path):
    torch.manual_seed(7)
    save_file(open_clip.create_model("tricorpus-tiny").state_dict(), tmp_path / "other.safetensors")
    before, teacher = versions(finished), f"tricorpus-tiny:{tmp_path}/other.safetensors"
    assert embed_all(finished, teacher=teacher) == [15, 4]
    other = [replace(stage, teacher=teacher).writes for stage in (IMAGES, TEXTS)]
    assert {table.name for table in other} == versions(finished).keys() - before.keys()
    after = versions(finished)
    assert after.pop("runs") > before.pop("runs")  # who worked, and how long, is the corpus' own affair
    assert {name: version for name, version in after.items() if name in before} == before
    for mine, theirs in zip((IMAGES.writes, TEXTS.writes), other, strict=True):
        one, two = rows_of(finished, mine), rows_of(finished, theirs)
        assert one.keys() == two.keys() and all(one[id]["embedding"] != two[id]["embedding"] for id in one)
        [made_by] = finished.made_by(theirs.name).values()
        assert made_by["settings"]["teacher"]["name"] == "tricorpus-tiny:other" and made_by["settings"]["dtype"] == "auto"


def test_a_finished_corpus_costs_no_forward_pass_and_no_version(finished):
    before = versions(finished)
    assert embed_all(finished) == [0, 0]
    assert versions(finished) == before


def test_objects_and_texts_that_came_later_are_all_that_is_encoded(finished, rng):
    before = rows_of(finished, IMAGES.writes), rows_of(finished, TEXTS.writes)
    put(finished, VIEWS, [view_row(row) for row in views("a/9", 2, rng).rows])
    put(finished, CAPTIONS, [caption_row("a/9", "mug 3", True), caption_row("a/8", "jug", True), caption_row("a/7", "pot", False)])
    assert embed_all(finished) == [2, 1]
    after = rows_of(finished, IMAGES.writes), rows_of(finished, TEXTS.writes)
    assert after[0].keys() - before[0].keys() == {"a/9"} and [row["text"] for row in after[1].values()].count("jug") == 1
    assert all(after[kind][id] == row for kind in (0, 1) for id, row in before[kind].items())


def test_objects_that_were_rendered_again_are_all_that_is_encoded(finished, rng):
    before = rows_of(finished, IMAGES.writes)
    finished.delete(VIEWS, ["a/1", "a/3"])
    anew = [view_row(row) | {"stage_key": "new"} for id in ("a/1", "a/3") for row in views(id, 4, rng).rows]
    put(finished, VIEWS, anew)
    assert embed_all(finished) == [8, 0]
    after = rows_of(finished, IMAGES.writes)
    assert {id for id in before if after[id] != before[id]} == {"a/1", "a/3"}
    assert [len(after[f"a/{number}"]["embedding"]) for number in range(5)] == [3, 4, 3, 4, 3]


def test_a_text_that_nobody_says_any_more_goes_and_costs_nothing(finished):
    finished.delete(CAPTIONS, ["a/0"])
    assert embed_all(finished) == [0, 0]
    assert {row["text"] for row in rows_of(finished, TEXTS.writes).values()} == {"mug 1", "mug 2", "mug 3"}


def test_what_a_gpu_embedded_is_not_done_again_by_a_cpu_unless_the_arithmetic_is_asked_for(finished):
    assert embed_all(finished, device="auto") == [0, 0]
    assert embed_all(finished, dtype="bfloat16") == [15, 4]
    assert {row["dtype"] for table in (IMAGES.writes, TEXTS.writes) for row in rows_of(finished, table).values()} == {"bfloat16"}


# ---------------------------------------------------------------------------------------------------------------- a corpus


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
