"""The job that trains the embedded tiny teacher, and what the teacher it made can do."""

import numpy as np
import open_clip
import pytest
import torch

from jobs.tiny_teacher import PROMPTS, Job, Pairs, _load, augmented, canonical_caption, captions, measure, save, train
from pipeline.made.made_objects import CATEGORIES, made_objects
from pipeline.made.recipes import KINDS
from pipeline.teacher import Teacher
from pipeline.weights import TINY_TEACHER, TINY_WEIGHTS


def test_the_weights_in_the_repository_are_small():
    assert TINY_WEIGHTS.stat().st_size < 8e6


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
    made = [made for _, made in made_objects(8, seed=9)]
    hues = rng.integers(0, 256, (8, 1, 1, 1, 4))
    hues[..., 3] = 255
    pairs = Pairs(made, np.broadcast_to(hues, (8, 2, 32, 32, 4)).astype(np.uint8))
    job = Job(objects=8, batch=8, epochs=40, views=2, size=32)
    model = train(job, pairs)
    save(model, tmp_path / "w.safetensors")
    teacher = Teacher(f"tricorpus-tiny:{tmp_path}/w.safetensors", device="cpu")
    found = measure(teacher, pairs)
    assert found["objects"] == found["distinct_texts"] == 8 and found["chance_top1"] == 12.5
    assert min(found["text_to_image_top1"], found["image_to_text_top1"]) >= 75
    [token] = open_clip.get_tokenizer("tricorpus-tiny").encode("xylophone")[:1]
    assert not model.token_embedding.weight[token].any()
    assert model.token_embedding.weight[open_clip.get_tokenizer("tricorpus-tiny").encode(made[0].category)[0]].any()


@pytest.mark.slow
def test_texts_and_pictures_of_objects_it_never_saw_find_each_other(tmp_path):
    job = Job(work=tmp_path, views=4, size=224)
    found = measure(Teacher(TINY_TEACHER), Pairs(*_load(job, "unseen", 40, 0)))
    assert found["text_to_image_top5"] >= 80 and found["image_to_text_top5"] >= 80
    assert found["category_top1"] >= 70


def test_text_embeddings_tell_kinds_and_colours_apart():
    teacher = Teacher(TINY_TEACHER, device="cpu")
    red_mug, a_red_mug, blue_mug, red_car = torch.from_numpy(
        teacher.encode_texts(["red mug", "a photo of a red mug", "a blue mug", "a red car"])
    )
    assert red_mug @ a_red_mug > max(red_mug @ blue_mug, red_mug @ red_car)
