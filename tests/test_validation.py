"""Held-out objects: which they are, that all of them are looked at, and that the figures are those of a plain count."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.store import Corpus
from schemas.check import to_table
from schemas.corpus import CorpusError, Reader
from schemas.tables import SPLITS
from separable import STAGE, TEACHER, separable
from trainer.learner import Learner
from trainer.recipes import RECIPES
from trainer.validation import AT_ONCE, HeldOut, chance, classes, divided, hits, is_held_out, means_of_views

IDS = [f"test/{number}" for number in range(40)]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Corpus:
    return separable(tmp_path_factory.mktemp("separable") / "corpus", objects=80)


def ids_of(corpus: Reader) -> list[str]:
    return corpus.need("objects").to_table(columns=["object_id"])["object_id"].to_pylist()


def versions(corpus: Reader) -> dict[str, int]:
    return {name: corpus.need(name).version for name in corpus.tables()}


@pytest.fixture(scope="module")
def learner() -> Learner:
    small = RECIPES["pointbert-small"]
    encoder = replace(small.encoder, dim=64, heads=1, depth=1, hidden=64, sa_dim=16, groups=8, group_size=8, out=16)
    return Learner(replace(small, encoder=encoder, input=replace(small.input, points=64)), torch.device("cpu"))


def test_a_share_is_chosen_by_the_id_alone_and_is_about_that_large():
    held = {id for id in (f"source/{n}" for n in range(20_000)) if is_held_out(id, 0.2)}
    assert len(held) == pytest.approx(4000, abs=4 * (20_000 * 0.2 * 0.8) ** 0.5)
    assert {id for id in held if is_held_out(id, 0.1)} < held  # a smaller share is a part of it
    assert not any(is_held_out(f"source/{n}", 0.0) for n in range(1000))


def test_every_object_is_on_one_side(built):
    kept, held = divided(built, IDS, 0.3)
    assert sorted(kept + held) == sorted(IDS) and kept and held
    assert divided(built, reversed(IDS), 0.3)[1] == held[::-1]


def test_a_split_is_held_out_as_it_was_at_a_version(tmp_path):
    corpus = separable(tmp_path / "corpus", objects=8)
    with pytest.raises(CorpusError, match="has no split 'mine' to hold out: python -m jobs import"):
        divided(corpus, IDS, "mine")
    corpus.create(SPLITS)
    for number in (3, 5):
        row = STAGE | {"object_id": f"test/{number}", "split": "mine"}
        corpus.append(SPLITS, corpus.write(SPLITS, to_table(SPLITS, [row])))
    assert divided(corpus, IDS, "mine")[1] == ["test/3", "test/5"]
    assert divided(corpus, IDS, "mine", corpus.need("splits").version - 1)[1] == ["test/3"]
    with pytest.raises(CorpusError, match="no object is left to train on"):
        divided(corpus, ["test/3"], "mine")


def test_hits_and_chance_are_those_of_a_plain_count(rng):
    cosines, own = rng.normal(size=(30, 7)), rng.random((30, 7)) < 0.25
    own[own.sum(axis=1) == 0, 0] = True
    order = np.argsort(-cosines, axis=1)
    plain = [np.mean([own[row, order[row, :k]].any() for row in range(30)]) for k in (1, 3, 5)]
    assert hits(cosines, own) == pytest.approx(plain)
    drawn = [
        np.mean([[any(own[row, list(of)]) for of in itertools.combinations(range(7), k)] for row in range(30)]) for k in (1, 3, 5)
    ]
    assert chance(own) == pytest.approx(drawn)


def test_what_is_as_near_as_everything_else_is_not_found():
    assert hits(np.ones((4, 6)), np.eye(4, 6, dtype=bool)) == [0.0, 0.0, 0.0]


def test_with_fewer_choices_than_asked_for_chance_finds_everything():
    assert chance(np.eye(2, dtype=bool)) == [0.5, 1.0, 1.0]


def test_class_names_are_those_of_all_objects(built):
    found = classes(built, TEACHER, ["test/0", "test/5"], None)
    stored = built.need(f"class_embeddings/{TEACHER}").to_table()
    names = stored["name"].to_pylist()
    assert found.vectors.shape == (4, 16)
    assert {id: [names[number] for number in own] for id, own in found.own.items()} == {
        "test/0": ["class 0"],
        "test/5": ["class 1"],
    }
    assert classes(built, TEACHER, ["nobody/1"], None) is None


def test_the_untrained_mean_is_that_of_all_views_at_the_teachers_lengths(built):
    table = f"image_embeddings/{TEACHER}"
    rows = {row["object_id"]: row for row in built.need(table).to_table().to_pylist()}
    means = means_of_views(built, TEACHER, ["test/2", "test/70"], built.need(table).version)
    assert means.keys() == {"test/2", "test/70"}
    for id, mean in means.items():
        expected = np.mean(
            [np.array(one) * length for one, length in zip(rows[id]["embedding"], rows[id]["lengths"], strict=True)], 0
        )
        np.testing.assert_allclose(mean, expected, rtol=1e-5)


def test_all_held_out_objects_are_looked_at_each_time_alike(built, learner):
    ids = ids_of(built)[: AT_ONCE + 3]  # not a whole number of batches
    held = HeldOut(built.root, learner, TEACHER, ids, None, versions(built))
    assert held.objects == len(ids)
    assert sorted(held._seen().ids) == sorted(ids)
    before = {name: value.clone() for name, value in learner.encoder.state_dict().items()}
    figures = held.figures()
    assert figures == held.figures()
    assert all(torch.equal(value, before[name]) for name, value in learner.encoder.state_dict().items())  # and nothing is learnt
    assert learner.encoder.training


def test_the_untrained_figures_are_those_of_the_means(built, learner):
    ids = ids_of(built)[:50]
    figures = HeldOut(built.root, learner, TEACHER, ids, None, versions(built)).figures()
    means = means_of_views(built, TEACHER, ids, versions(built)[f"image_embeddings/{TEACHER}"])
    names = np.array(built.need(f"class_embeddings/{TEACHER}").to_table()["embedding"].to_pylist())
    found = np.mean([np.argmax(names @ means[id]) == int(id[5:]) % 4 for id in ids])
    assert figures["held_out/zero_shot/untrained/top1"] == pytest.approx(found)
    assert figures["held_out/zero_shot/untrained/top1"] > 0.9 > figures["held_out/zero_shot/chance/top1"] == 0.25
    assert figures["held_out/text/chance/top1"] == pytest.approx(1 / sum(int(id[5:]) % 7 > 0 for id in ids))
