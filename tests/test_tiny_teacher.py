"""The job that trains the embedded tiny teacher, and what the teacher it made can do."""

import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch

from jobs.tiny_teacher import (
    PACKAGES,
    PROMPTS,
    Job,
    Pairs,
    augmented,
    canonical_caption,
    captions,
    main,
    measure,
    pictured,
    save,
    train,
)
from pipeline.made.made_objects import CATEGORIES, made_objects
from pipeline.made.recipes import KINDS
from pipeline.teacher import Teacher
from pipeline.weights import TINY_FOLDER, TINY_TEACHER, TINY_WEIGHTS
from render.blender_pass import RenderViews

CARD = (TINY_FOLDER / "README.md").read_text()


def flat_colours(count: int, rng) -> Pairs:
    """Made objects with two pictures each that show nothing but a colour of their own."""
    hues = rng.integers(0, 256, (count, 1, 1, 1, 4))
    hues[..., 3] = 255
    return Pairs([made for _, made in made_objects(count, seed=9)], np.broadcast_to(hues, (count, 2, 32, 32, 4)).astype(np.uint8))


def test_the_weights_in_the_repository_are_small_and_those_of_the_card():
    content = TINY_WEIGHTS.read_bytes()
    assert len(content) < 8e6
    assert re.findall(r"\b[0-9a-f]{64}\b", CARD) == [hashlib.sha256(content).hexdigest()]


def test_the_card_names_the_teacher_and_the_packages_that_made_it():
    assert CARD.startswith(f"# {TINY_TEACHER}\n")
    assert all(re.search(rf"\b{package} \d+\.\d+", CARD) for package in PACKAGES)


def test_captions_name_the_object_and_no_other_kind():
    for _, made in made_objects(2 * len(CATEGORIES), seed=9):
        kind = KINDS[made.category]
        names = {made.category, *kind.also, *([made.lvis.replace("_", " ")] if made.lvis else [])}
        parts = " ".join(made.details)
        others = {name for name in CATEGORIES if name not in parts and not any(name in own or own in name for own in names)}
        for caption in captions(made):
            said = f" {caption.lower().replace(',', ' ').replace('.', ' ')} "
            assert any(f" {name}" in said for name in (*names, made.category.replace(" ", "_"))), caption
            assert not [name for name in others if f" {name} " in said], caption
        assert canonical_caption(made) in captions(made)
    assert all(prompt.count("{}") == 1 for prompt in PROMPTS)


def test_augmented_pictures_are_shaped_and_scaled_for_the_model(rng):
    white = augmented(np.full((4, 32, 32, 4), 255, np.uint8), 24, rng)
    assert white.shape == (4, 3, 24, 24)
    std, mean = np.array(open_clip.OPENAI_DATASET_STD), np.array(open_clip.OPENAI_DATASET_MEAN)
    shown = white.numpy().transpose(0, 2, 3, 1) * std + mean
    assert -1e-5 < shown.min() and shown.max() < 1 + 1e-5
    assert (shown[:, 12, 12] >= 0.8 - 1e-5).all()  # white, by at most a fifth darker


def test_training_learns_its_own_pictures_and_leaves_unknown_words_without_meaning(tmp_path, rng):
    pairs = flat_colours(8, rng)
    model = train(Job(batch=8, epochs=80), pairs)
    save(model, tmp_path / "w.safetensors")
    teacher = Teacher(f"tricorpus-tiny:{tmp_path}/w.safetensors", device="cpu")
    found = measure(teacher, pairs)
    assert found["objects"] == found["distinct_texts"] == 8 and found["chance_top1"] == 12.5
    assert min(found["text_to_image_top1"], found["image_to_text_top1"]) >= 75
    tokens = open_clip.get_tokenizer("tricorpus-tiny")
    [token] = tokens.encode("xylophone")[:1]
    assert not model.token_embedding.weight[token].any()
    for word in (pairs.made[0].category, "rendering"):  # of a caption, of a prompt
        assert model.token_embedding.weight[tokens.encode(word)[0]].any()


def test_training_again_makes_the_same_bytes_and_another_seed_others(tmp_path, rng):
    pairs = flat_colours(8, rng)
    job = Job(batch=4, epochs=3)
    made = {}
    for name, again in (("first", job), ("again", job), ("other", replace(job, seed=1))):
        save(train(again, pairs), tmp_path / name)
        made[name] = (tmp_path / name).read_bytes()
    assert made["first"] == made["again"] != made["other"]


def test_the_job_measures_the_weights_in_the_repository_on_objects_they_never_saw(tmp_path, capsys):
    assert main(Job(work=tmp_path, only_measure=True, held_out=6, workers=0)) == 0
    out = capsys.readouterr().out
    printed = json.loads(out[out.index("\n{\n") :])
    assert printed["weights_sha256"] == hashlib.sha256(TINY_WEIGHTS.read_bytes()).hexdigest()
    assert printed["packages"].keys() == set(PACKAGES)
    found = printed["held_out"]
    assert found["objects"] == found["distinct_texts"] == 6
    assert min(found["text_to_image_top1"], found["image_to_text_top1"], found["category_top1"]) == 100


@pytest.mark.slow
def test_texts_and_pictures_of_objects_it_never_saw_find_each_other(tmp_path):
    found = measure(Teacher(TINY_TEACHER, device="cpu"), pictured(Job(work=tmp_path), "unseen", 78, 3003, RenderViews()))
    assert found["text_to_image_top1"] >= 80 and found["image_to_text_top1"] >= 80
    assert found["text_to_image_top5"] >= 95 and found["image_to_text_top5"] >= 95
    assert found["category_top1"] >= 90


def test_text_embeddings_tell_kinds_and_colours_apart():
    teacher = Teacher(TINY_TEACHER, device="cpu")
    red_mug, a_red_mug, blue_mug, red_car = torch.from_numpy(
        teacher.encode_texts(["red mug", "a photo of a red mug", "a blue mug", "a red car"])
    )
    assert red_mug @ a_red_mug > max(red_mug @ blue_mug, red_mug @ red_car)
