"""Probes on frozen features: what they learn, what they are given, and that nothing else learns."""

import json
import shutil

import numpy as np
import pytest
from labelled_shapes import checkpoint, labelled_corpus, scanobjectnn

from evaluate import linear_probe
from evaluate.benchmark import Benchmark, Cloud
from evaluate.linear_probe import STRENGTHS, accuracy, drawn, halved, halves, probe
from evaluate.result import load
from jobs.__main__ import main
from schemas.check import to_table
from schemas.tables import SPLITS
from separable import STAGE, TEACHER
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


def test_official_halves_are_taken_where_there_are_any(tmp_path):
    labelled_corpus(tmp_path / "corpus", objects=40, train=30)
    train, test = halves(f"shapes={tmp_path / 'corpus'}")
    assert set(train.ids) == {f"test/{number}" for number in range(30)} and len(test.ids) == 10
    assert train.classes == test.classes == tuple(f"class {number}" for number in range(4))
    scanobjectnn(tmp_path / "scans", train=6, test=3)
    nobg = tmp_path / "scans/h5_files/main_split_nobg"
    nobg.mkdir()
    for half in ("training", "test"):
        shutil.copy(nobg.parent / f"main_split/{half}_objectdataset_augmentedrot_scale75.h5", nobg / f"{half}_objectdataset.h5")
    train, test = halves(f"scanobjectnn-pb-t50-rs={tmp_path / 'scans'}")
    assert (len(train.ids), len(test.ids)) == (6, 3) and train.classes == test.classes
    with pytest.raises(ValueError, match="both halves as one"):
        halves(f"scanobjectnn={tmp_path / 'scans'}")


# As a job


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A corpus with labels and no official halves, and an encoder."""
    folder = tmp_path_factory.mktemp("probe")
    corpus = labelled_corpus(folder / "corpus")
    seen = [STAGE | {"object_id": id, "split": "seen"} for id in of_test_half()[:10]]
    corpus.append(SPLITS, corpus.write(SPLITS, to_table(SPLITS, seen)))
    return folder / "corpus", checkpoint(folder / "encoder")


def of_test_half() -> list[str]:
    return [id for id in (f"test/{number}" for number in range(96)) if is_held_out(id, 0.5)]


def run(made, out, *arguments) -> list[str]:
    corpus, encoder = made
    return ["evaluate", "probe", f"shapes={corpus}", "--encoder", str(encoder), "--no-near", "-o", str(out), *arguments]


def test_probes_of_an_encoder_and_of_the_mean_of_views(made, tmp_path, capsys):
    before = {file.name: file.read_bytes() for file in made[1].iterdir()}
    told = ["--teacher", TEACHER, "--shots", "1", "4", "all", "--seeds", "3"]
    assert main(run(made, tmp_path / "out", *told, "--json")) == 0
    printed = json.loads(capsys.readouterr().out)
    results = load(tmp_path / "out")
    assert len(printed["results"]) == len(results) == 6
    test = of_test_half()
    for one in results:
        few = one.settings["shots"] is not None
        assert one.task == ("few-shot" if few else "linear probe")
        assert len(one.figures["top-1"].values) == one.settings["seeds"] == (3 if few else 1)
        assert (one.objects, one.missing, one.classes) == (len(test), 0, 4)
        assert sum(count for _, count in one.per_class.values()) == len(test)
        hits = sum(share * count for share, count in one.per_class.values())
        assert hits / len(test) == pytest.approx(one.figures["top-1"].mean)
        assert one.settings["labelled objects"] == (4 * one.settings["shots"] if few else 96 - len(test))
    encoder, teacher = results[:3], results[3:]
    assert {one.fed for one in encoder} == {"points"} and {one.fed for one in teacher} == {"all views"}
    # The teacher's vectors lie around their class's direction; even an encoder of no training sees that the forms differ.
    assert teacher[2].figures["top-1"].values == (1.0,) and teacher[1].figures["top-1"].mean == 1.0
    assert encoder[2].figures["top-1"].mean > 0.8
    assert encoder[1].figures["top-1"].spread is not None
    assert {file.name: file.read_bytes() for file in made[1].iterdir()} == before


def test_the_same_question_has_the_same_answer(made, tmp_path):
    figures = []
    for out in ("one", "two"):
        assert main(run(made, tmp_path / out, "--shots", "2", "--seeds", "4", "--json")) == 0
        figures += [one.figures for one in load(tmp_path / out)]
    assert figures[0] == figures[1]


def test_objects_that_were_trained_on_can_be_left_out_of_the_test(made, tmp_path):
    told = ["--trained-on", f"{made[0]}#seen", "--shots", "all"]
    assert main(run(made, tmp_path / "with", *told)) == 0
    assert main(run(made, tmp_path / "without", *told, "--without-leaks")) == 0
    [with_leaks], [without] = load(tmp_path / "with"), load(tmp_path / "without")
    assert with_leaks.leaks["id"] == 10 and without.leaks["id"] == 0
    assert without.objects == with_leaks.objects - 10
    assert without.settings["labelled objects"] == with_leaks.settings["labelled objects"] == 96 - len(of_test_half())


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (("--shots", "0"), "--shots 0: must be whole numbers from 1 on, or all"),
        (("--shots", "many"), "--shots many: must be"),
        (("--seeds", "0"), "--seeds"),
        (("--strength", "-1"), "--strength"),
    ],
)
def test_wrong_arguments_are_refused(made, tmp_path, capsys, told, sentence):
    assert main(run(made, tmp_path / "out", *told)) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_set_without_a_training_half_is_refused(made, tmp_path, capsys):
    place = scanobjectnn(tmp_path, train=3, test=3)
    (place / "h5_files/main_split/training_objectdataset_augmentedrot_scale75.h5").unlink()
    asked = ["evaluate", "probe", f"scanobjectnn-pb-t50-rs={place}", "--encoder", str(made[1]), "-o", str(tmp_path / "out")]
    assert main(asked) == 2
    assert "holds no training half of PB_T50_RS" in capsys.readouterr().err
