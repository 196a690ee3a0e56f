"""Probes on frozen features: what they learn, what they are given, and that nothing else learns."""

import numpy as np
import pytest

from evaluate import linear_probe
from evaluate.benchmark import Benchmark, Cloud
from evaluate.linear_probe import STRENGTHS, accuracy, drawn, halved, probe
from trainer.validation import is_held_out


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def classes_apart(rng, objects: int, noise: float = 0.3, classes: int = 5, dim: int = 16):
    """Unit vectors around their class's direction, and labels."""
    labels = np.arange(objects) % classes
    directions = np.random.default_rng(7).normal(size=(classes, dim))
    return unit(directions[labels] + noise * rng.normal(size=(objects, dim))), labels


@pytest.mark.parametrize("shots", [1, 4, None])
def test_classes_that_lie_apart_are_learnt_whole(rng, shots):
    features, labels = classes_apart(rng, 200)
    test, answers = classes_apart(rng, 100)
    chosen = drawn(labels, shots, seed=0) if shots else np.arange(200)
    found = probe(features[chosen], labels[chosen], test)
    np.testing.assert_array_equal(found.guessed, answers)
    assert (found.objects, found.classes, found.converged) == (5 * (shots or 40), 5, True)


def test_labels_dealt_out_by_chance_teach_nothing(rng):
    features, labels = classes_apart(rng, 400)
    test, answers = classes_apart(rng, 400)
    right = [
        (probe(features, np.random.default_rng(seed).permutation(labels), test).guessed == answers).mean() for seed in range(5)
    ]
    assert abs(np.mean(right) - 0.2) < 0.15


def test_so_many_objects_of_each_class_are_drawn_and_fewer_shots_are_among_more():
    labels = np.repeat([0, 1, 2, 4], [20, 3, 9, 1])
    before = set()
    for shots in (1, 2, 4, 8):
        numbers = drawn(labels, shots, seed=3)
        np.testing.assert_array_equal(np.bincount(labels[numbers]), np.minimum([20, 3, 9, 0, 1], shots))
        assert before < set(numbers.tolist()) and (np.diff(numbers) > 0).all()
        before = set(numbers.tolist())
    np.testing.assert_array_equal(drawn(labels, 4, seed=3), drawn(labels, 4, seed=3))
    assert len({tuple(drawn(labels, 4, seed)) for seed in range(10)}) == 10


def test_every_object_of_a_class_may_be_drawn_as_often_as_another():
    labels = np.arange(12) % 2
    count = np.bincount(np.concatenate([drawn(labels, 2, seed) for seed in range(600)]), minlength=12)
    assert count.sum() == 2400 and (abs(count - 200) < 60).all()


def test_the_strength_is_chosen_on_objects_set_aside(rng):
    # What tells the classes apart is small beside what does not: only a weak penalty lets it count.
    labels = np.arange(600) % 2
    features = unit(np.column_stack([0.03 * (2 * labels - 1), rng.normal(size=(600, 3))]))
    train, test = slice(0, 400), slice(400, 600)
    found = probe(features[train], labels[train], features[test])
    shares = {
        c: (probe(features[train], labels[train], features[test], strength=c).guessed == labels[test]).mean() for c in STRENGTHS
    }
    assert shares[STRENGTHS[0]] < 0.8 < 0.95 < shares[found.strength]
    assert found.strength > 1


def test_the_objects_set_aside_are_a_quarter_of_each_class_and_at_least_one_where_there_are_two():
    labels = np.random.default_rng(1).permutation(np.repeat([0, 1, 2, 3], [40, 8, 2, 1]))
    aside = linear_probe._set_aside(labels, seed=0)
    np.testing.assert_array_equal(np.bincount(labels[aside], minlength=4), [10, 2, 1, 0])
    assert (linear_probe._set_aside(labels, seed=1) != aside).any()


def test_of_one_object_per_class_none_is_set_aside_and_of_two_classes_the_nearer_one_wins(rng):
    features = unit(rng.normal(size=(2, 8)))
    test = unit(rng.normal(size=(500, 8)))
    found = probe(features, np.array([0, 1]), test)
    np.testing.assert_array_equal(found.guessed, (test @ features.T).argmax(axis=1))
    assert found.strength == linear_probe.ONE_SHOT_STRENGTH


def test_a_given_strength_is_taken(rng):
    features, labels = classes_apart(rng, 40)
    assert probe(features, labels, features, strength=0.5).strength == 0.5


def test_a_probe_that_was_stopped_says_so(rng, monkeypatch):
    features, labels = classes_apart(rng, 40)
    monkeypatch.setattr(linear_probe, "MOST_STEPS", 2)
    assert not probe(features, labels, features, strength=1e4).converged


def test_the_same_objects_and_seed_give_the_same_probe(rng):
    features, labels = classes_apart(rng, 60, noise=2)
    first, again = (probe(features, labels, features[::-1], seed=4) for _ in range(2))
    np.testing.assert_array_equal(first.guessed, again.guessed)
    assert first.strength == again.strength


def test_one_class_alone_is_refused(rng):
    features, _ = classes_apart(rng, 6)
    with pytest.raises(ValueError, match="6 training objects are all of one class"):
        probe(features, np.full(6, 3), features)


def test_a_class_without_training_objects_is_never_found_and_counts(rng):
    features, labels = classes_apart(rng, 100)
    known = labels != 2
    found = probe(features[known], labels[known], features)
    of = accuracy((found.guessed == labels).astype(float), labels, [f"class {number}" for number in range(6)])
    assert (of.top1, of.class_mean) == (0.8, 0.8)
    assert of.per_class == {f"class {number}": (float(number != 2), 20) for number in range(5)}


def test_accuracy_of_all_and_of_classes_differ_where_classes_differ_in_size():
    of = accuracy(np.array([1, 1, 1, 0.5, 0]), np.array([0, 0, 0, 0, 2]), ["a", "b", "c"])
    assert of.top1 == pytest.approx(3.5 / 5) and of.class_mean == pytest.approx(3.5 / 4 / 2)
    assert of.per_class == {"a": (0.875, 4), "c": (0.0, 1)}


def test_halves_share_nothing_and_what_no_encoder_saw_is_tested_on():
    ids = tuple(f"test/{number}" for number in range(400))
    whole = Benchmark(
        name="shapes",
        variant="",
        classes=("a", "b"),
        ids=ids,
        labels=np.arange(400) % 2,
        cloud=lambda number: Cloud(np.full((1, 3), number, np.float32), None, "+y"),
        file=lambda number: f"{number}.ply",
    )
    train, test = halved(whole)
    assert not set(train.ids) & set(test.ids) and set(train.ids) | set(test.ids) == set(ids)
    assert 150 < len(test.ids) < 250
    assert {id for id in ids if is_held_out(id, 0.2)} < set(test.ids)
    for half in (train, test):
        numbers = [int(id.removeprefix("test/")) for id in half.ids]
        assert half.labels.tolist() == [number % 2 for number in numbers]
        assert [half.cloud(place).xyz[0, 0] for place in range(len(numbers))] == numbers
        assert [half.file(place) for place in range(len(numbers))] == [f"{number}.ply" for number in numbers]
