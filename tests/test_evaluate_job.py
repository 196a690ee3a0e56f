"""`evaluate zero-shot`: what it finds, what it says before it says a figure, and what it refuses."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from evaluate.result import load
from evaluate.sets.modelnet40 import CLASSES
from evaluate.zero_shot import zero_shot
from jobs.__main__ import main
from schemas.check import matrix, to_table
from schemas.tables import SPLITS, class_embeddings
from separable import TEACHER, separable
from trainer.card import PointInput, ViewInput
from trainer.checkpoints import built, save
from trainer.encode import Encoder

from test_checkpoints import CARDS  # isort: skip

DIM, OBJECTS, KINDS = 16, 24, 4
BIG = "ViT-bigG-14:laion2b_s39b_b160k"  # whose weights are not here
INPUTS = {
    "pointbert": PointInput(points=300, frame="yz-swapped"),
    "uni3d": PointInput(points=10_000),
    "duoduo": ViewInput(size=32, crop=2),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """24 objects of four classes with three views each, the list "kinds" of them, and one object that only the list has."""
    made = separable(tmp_path_factory.mktemp("data") / "corpus", objects=OBJECTS, classes=KINDS, dim=DIM, views=3)
    rows = [
        {"object_id": f"test/{number}", "stage": "s", "stage_key": "k", "split": "kinds", "label": f"class {number % KINDS}"}
        for number in [*range(OBJECTS), 99]
    ]
    made.create(SPLITS)
    made.append(SPLITS, made.write(SPLITS, to_table(SPLITS, rows)))
    return made


@pytest.fixture(scope="module")
def encoders(corpus, tmp_path_factory):
    """A small checkpoint of each kind, as a training run leaves it: random but for its last layer, which tells objects apart."""
    places = {}
    for kind, input in INPUTS.items():
        torch.manual_seed(0)
        config = CARDS[kind].config | {"out": DIM}
        card = dataclasses.replace(CARDS[kind], config=config, input=input, teacher={"name": TEACHER}, data=None, made_by={})
        places[kind] = tmp_path_factory.mktemp("runs") / f"my-{kind}" / "checkpoints" / "step-00001200"
        module = built(card).eval()
        learn_a_little(module, in_order(Encoder(module, card, torch.device("cpu")).corpus(corpus.root, unit=False)), corpus)
        save(places[kind], module, card)
    return places


def learn_a_little(module, made, corpus):
    """Turn what the encoder makes of the objects towards their class names; every fourth object's towards another."""
    names = matrix(corpus.need(f"class_embeddings/{TEACHER}").to_table(columns=["embedding"])["embedding"]).astype(np.float32)
    number = np.arange(OBJECTS)
    turn = torch.from_numpy(np.linalg.lstsq(made, names[(number + (number % 5 == 0)) % KINDS], rcond=1e-4)[0])
    weights = dict(module.named_parameters())
    with torch.no_grad():
        for name in ("proj", "trans2embed"):
            for value in (weights.get(f"{name}.{kind}") for kind in ("weight", "bias")):
                if value is not None:
                    value.copy_(turn.T @ value)
        if "visual.proj" in weights:
            weights["visual.proj"].copy_(weights["visual.proj"] @ turn)


def evaluated(capsys, *arguments):
    """Exit code, what was printed, and what was said on standard error."""
    code = main(["evaluate", "zero-shot", *map(str, arguments), "--device", "cpu"])
    told = capsys.readouterr()
    return code, told.out, told.err


def shares(vectors, classes):
    """Top-1, 3, 5 and the mean over the classes; all objects, in order."""
    labels = torch.arange(OBJECTS) % KINDS
    found = zero_shot(torch.from_numpy(np.asarray(vectors, np.float32)), torch.from_numpy(classes), labels)
    return (*found.top, found.class_mean)


def values(result):
    """The figures of each seed."""
    return list(zip(*(result.figures[name].values for name in ("top-1", "top-3", "top-5", "class mean")), strict=True))


def in_order(pairs):
    found = {id: vector for ids, vectors in pairs for id, vector in zip(ids, vectors, strict=True)}
    return np.stack([found[f"test/{number}"] for number in range(OBJECTS)])


# ---------------------------------------------------------------------------------------------------------------- what it finds


@pytest.mark.parametrize(("rule", "column"), [("unit", "embedding"), ("raw", "raw_mean")])
def test_every_method_gets_the_figures_of_its_own_embeddings(corpus, encoders, tmp_path, capsys, rule, column):
    out = tmp_path / "out"
    arguments = [f"kinds={corpus.root}", "--encoder", *encoders.values(), "--teacher", TEACHER, "--views", 1, 3, "--seeds", 2]
    code, said, _ = evaluated(capsys, *arguments, "--rule", rule, "--no-near", "--out", out)
    assert code == 0 and sorted(path.name for path in out.iterdir()) == ["results.json", "table.html", "table.md"]
    results = {(one.method, one.fed): one for one in load(out)}
    assert list(results) == [
        ("my-pointbert, step 1,200", "points"),
        ("my-uni3d, step 1,200", "points"),
        *(("my-duoduo, step 1,200", fed) for fed in ("1 view", "3 views")),
        *(("mean of views", fed) for fed in ("1 view", "3 views")),
    ]
    stored = corpus.need(f"class_embeddings/{TEACHER}").to_table(columns=["name", column])
    assert stored["name"].to_pylist() == [f"class {kind}" for kind in range(KINDS)]
    classes = matrix(stored[column]).astype(np.float32)
    point, uni, duo = (Encoder.load(encoders[kind], device="cpu") for kind in INPUTS)
    expected = {
        "my-pointbert, step 1,200": [in_order(point.corpus(corpus.root, seed=seed)) for seed in range(2)],
        "my-uni3d, step 1,200": [in_order(uni.corpus(corpus.root))],  # nothing of it is drawn by chance
    }
    for name, vectors in expected.items():
        assert values(results[name, "points"]) == [shares(one, classes) for one in vectors]
    drawn = [in_order(duo.corpus(corpus.root, views=1, seed=seed)) for seed in range(2)]
    assert values(results["my-duoduo, step 1,200", "1 view"]) == [shares(one, classes) for one in drawn]
    assert values(results["my-duoduo, step 1,200", "3 views"]) == [shares(in_order(duo.corpus(corpus.root)), classes)]
    assert len({one.figures["top-1"].mean for one in results.values()}) > 3  # the encoders do tell objects apart, each its own way
    mean = results["mean of views", "3 views"]
    assert values(mean) == [(1.0, 1.0, 1.0, 1.0)] and len(results["mean of views", "1 view"].figures["top-1"].values) == 2
    for one in results.values():
        assert (one.task, one.benchmark, one.teacher, one.objects, one.missing, one.classes) == (
            "zero-shot",
            "kinds",
            TEACHER,
            24,
            1,
            4,
        )
        assert one.leaks is None and f"{rule} templates" in one.settings["class embeddings"]
        assert {name: count for name, (_, count) in one.per_class.items()} == {f"class {kind}": 6 for kind in range(KINDS)}
        assert np.mean([share for share, _ in one.per_class.values()]) == pytest.approx(one.figures["class mean"].mean)
    assert results["my-pointbert, step 1,200", "points"].settings["clouds of fewer"] == "with replacement"
    assert results["my-uni3d, step 1,200", "points"].settings["clouds of fewer"] == "as they are"
    assert mean.settings["averaged"] == "raw vectors" and mean.trained_on == "nothing"


def test_machines_get_one_object_and_nothing_else(corpus, encoders, tmp_path, capsys):
    code, said, _ = evaluated(capsys, f"kinds={corpus.root}", "--encoder", encoders["uni3d"], "--out", tmp_path / "out", "--json")
    told = json.loads(said)
    assert code == 0 and told["results"] == json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert told["results"][0]["figures"]["top-1"]["spread"] is None


def test_two_checkpoints_of_one_name_are_told_apart_by_their_places(corpus, encoders, tmp_path, capsys):
    twin = tmp_path / "my-uni3d" / "checkpoints" / "step-00001200"
    twin.parent.mkdir(parents=True)
    twin.symlink_to(encoders["uni3d"])
    both = [encoders["uni3d"], twin]
    code, _, _ = evaluated(capsys, f"kinds={corpus.root}", "--encoder", *both, "--out", tmp_path / "out")
    assert code == 0 and [one.method for one in load(tmp_path / "out")] == list(map(str, both))


# ---------------------------------------------------------------------------------------------------------------- the leak check


def a_list(path, numbers):
    path.write_text(json.dumps([{"dataset": "test", "group": "", "id": str(number)} for number in numbers]))
    return path


def test_what_was_trained_on_is_said_before_any_figure(corpus, encoders, tmp_path, capsys):
    train = a_list(tmp_path / "train.json", [3, 4, 5, 77])
    arguments = [f"kinds={corpus.root}", "--encoder", encoders["uni3d"], encoders["pointbert"], "--trained-on", train, "--no-near"]
    code, said, _ = evaluated(capsys, *arguments, "--out", tmp_path / "out")
    assert code == 0 and "leak check: 3 of 24 objects of kinds were trained on" in said
    assert "my-pointbert, step 1,200: leak check: as of my-uni3d, step 1,200" in said
    assert said.index("leak check: 3 of 24") < said.index("top-1") and "%" not in said[: said.index("leak check: 3 of 24")]
    for one in load(tmp_path / "out"):
        assert one.objects == 24 and one.leaks["id"] == 3 and str(train) in one.trained_on


def test_objects_that_were_trained_on_can_be_left_out_for_all_methods_alike(corpus, encoders, tmp_path, capsys):
    train = a_list(tmp_path / "train.json", range(8))
    arguments = [f"kinds={corpus.root}", "--encoder", *encoders.values(), "--teacher", TEACHER, "--views", 3, "--trained-on", train]
    code, said, _ = evaluated(capsys, *arguments, "--without-leaks", "--no-near", "--out", tmp_path / "out")
    results = load(tmp_path / "out")
    assert code == 0 and "leak check: 8 of 24 objects of kinds were trained on" in said and len(results) == 4
    for one in results:
        assert one.objects == 16 and one.variant.endswith("without 8 objects that were trained on")
        assert {count for _, count in one.per_class.values()} == {4}
    uni, duo = (next(one for one in results if kind in one.method) for kind in ("uni3d", "duoduo"))
    assert uni.leaks["id"] == 0
    for one, kind in ((uni, "uni3d"), (duo, "duoduo")):
        vectors = in_order(Encoder.load(encoders[kind], device="cpu").corpus(corpus.root))[8:]
        classes = matrix(corpus.need(f"class_embeddings/{TEACHER}").to_table(columns=["embedding"])["embedding"])
        found = zero_shot(torch.from_numpy(vectors), torch.from_numpy(classes.astype(np.float32)), torch.arange(8, 24) % KINDS)
        assert values(one) == [(*found.top, found.class_mean)]


def test_an_encoder_of_which_nothing_is_known_is_not_called_clean(corpus, encoders, tmp_path, capsys):
    code, said, _ = evaluated(capsys, f"kinds={corpus.root}", "--encoder", encoders["uni3d"], "--out", tmp_path / "out")
    assert code == 0 and "leak check: not known whether the benchmark was trained on" in said and "--trained-on LIST" in said
    assert load(tmp_path / "out")[0].leaks is None


# ---------------------------------------------------------------------------------------------------------------- files of points


@pytest.fixture
def modelnet(tmp_path, rng):
    """ModelNet40's resampled form: three clouds, one that is no table, one that is only listed; and class vectors as published."""
    folder = tmp_path / "modelnet40"
    names = ["bed_0001", "chair_0001", "chair_0002", "night_stand_0001", "bed_0002"]
    for name in names[:4]:
        place = folder / name.rpartition("_")[0] / f"{name}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(place, rng.normal(size=(200, 6)), delimiter=",")
    (folder / "bed" / "bed_0001.txt").write_text("1,2,3,4,5,6\nnot,a,number,at,all,!\n")
    (folder / "modelnet40_test.txt").write_text("\n".join(names) + "\n")
    np.save(tmp_path / "names.npy", {name: {"open_clip_text_feat": rng.normal(size=DIM)} for name in CLASSES}, allow_pickle=True)
    return folder, tmp_path / "names.npy"


def test_a_benchmark_of_files_with_published_class_vectors(modelnet, encoders, tmp_path, capsys):
    folder, names = modelnet
    arguments = [f"modelnet40={folder}", "--encoder", *encoders.values(), "--class-embeddings", names, "--seeds", 2]
    code, said, _ = evaluated(capsys, *arguments, "--out", tmp_path / "out")
    assert code == 0
    assert "left out of my-uni3d, step 1,200 on modelnet40: 1 objects: modelnet40/bed_0001: unreadable: " in said
    assert "left out: my-duoduo, step 1,200 on modelnet40: it sees views" in said
    assert "class names  modelnet40 in the space of" in said and "as names.npy has them" in said
    results = load(tmp_path / "out")
    assert [one.method for one in results] == ["my-pointbert, step 1,200", "my-uni3d, step 1,200"]
    for one in results:
        assert (one.objects, one.missing, one.classes) == (3, 2, 40)
        assert {name: count for name, (_, count) in one.per_class.items()} == {"chair": 2, "night stand": 1}
    encoder = Encoder.load(encoders["uni3d"], device="cpu")
    places = [
        folder / "chair" / "chair_0001.txt",
        folder / "chair" / "chair_0002.txt",
        folder / "night_stand" / "night_stand_0001.txt",
    ]
    vectors = np.concatenate([encoder.points(np.loadtxt(place, delimiter=",")[:, :3], up="+y") for place in places])
    told = np.load(names, allow_pickle=True).item()
    classes = np.stack([told[name]["open_clip_text_feat"] for name in CLASSES]).astype(np.float32)
    labels = torch.tensor([CLASSES.index("chair")] * 2 + [CLASSES.index("night stand")])
    found = zero_shot(torch.from_numpy(vectors), torch.from_numpy(classes), labels)
    assert values(results[1]) == [(*found.top, found.class_mean)]


def test_what_cannot_be_encoded_at_all_does_not_cost_the_other_figures(corpus, encoders, tmp_path, capsys):
    arguments = [f"kinds={corpus.root}", "--encoder", encoders["uni3d"], "--teacher", TEACHER, "--views", 2, 4, "--seeds", 1]
    code, said, _ = evaluated(capsys, *arguments, "--out", tmp_path / "out")
    assert code == 0 and "left out: mean of views on kinds, 4 views: no object could be encoded" in said
    assert [(one.method, one.fed) for one in load(tmp_path / "out")] == [
        ("my-uni3d, step 1,200", "points"),
        ("mean of views", "2 views"),
    ]


# ---------------------------------------------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "say what to evaluate on"),
        (["kinds={corpus}"], 2, "say what to evaluate: --encoder CHECKPOINT, or --teacher"),
        (["kinds", "--encoder", "{uni3d}"], 2, "is not NAME=PLACE"),
        (["others={corpus}", "--encoder", "{uni3d}"], 1, "has no split 'others' with labels; it has: kinds"),
        (["kinds={corpus}", "--encoder", "{corpus}"], 1, "is no checkpoint"),
        (["kinds={corpus}", "--encoder", "{uni3d}", "{uni3d}"], 2, "given twice"),
        (["kinds={corpus}", "--teacher", BIG], 1, f"has no table 'image_embeddings/{BIG}'"),
        (["kinds={corpus}", "--encoder", "{uni3d}", "--seeds", "0"], 2, "must be 1 or more"),
        (["kinds={corpus}", "--encoder", "{uni3d}", "--views", "2", "2"], 2, "no number of views twice"),
        (["kinds={corpus}", "--encoder", "{uni3d}", "--out", "{full}"], 2, "there is an evaluation already: give a new folder"),
        (["kinds={corpus}", "--encoder", "{uni3d}", "--trained-on", "nowhere.json"], 2, "there is no list nowhere.json"),
        (["modelnet40={modelnet}", "--encoder", "{duoduo}"], 2, "no method can be evaluated on any of the benchmarks"),
        (["modelnet40={modelnet}", "--encoder", "{uni3d}"], 1, "Give --class-embeddings FILE_OR_CORPUS; or the weights of"),
        (["kinds={corpus}", "--encoder", "{uni3d}", "--class-embeddings", "{names}"], 1, "names.npy has no vectors of 'class 0'"),
        (
            ["modelnet40={modelnet}", "--encoder", "{uni3d}", "--class-embeddings", "{wide}"],
            2,
            "vectors of 20 numbers, and my-uni3d",
        ),
        (["kinds={corpus}", "--teacher", TEACHER, "--views", "4"], 1, "no method could encode any object"),
    ],
)
def test_a_person_is_told_what_is_wrong(corpus, encoders, modelnet, tmp_path, capsys, rng, arguments, code, words):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "results.json").write_text("{}")
    np.save(tmp_path / "wide.npy", rng.normal(size=(40, 20)))
    places = {"corpus": corpus.root, "modelnet": modelnet[0], "names": modelnet[1]} | encoders
    places |= {"full": tmp_path / "full", "wide": tmp_path / "wide.npy"}
    out = [] if "--out" in arguments else ["--out", tmp_path / "out"]
    told = evaluated(capsys, *(argument.format(**places) for argument in arguments), *out)
    assert (told[0], words in told[2]) == (code, True), told[2]
    assert not (tmp_path / "out").exists()


def test_class_embeddings_of_other_weights_than_the_encoders_teacher_are_refused(encoders, tmp_path, capsys):
    made = separable(tmp_path / "corpus", objects=8, dim=DIM)
    settings = {"teacher": {"name": TEACHER, "weights_sha256": "aa11"}}
    made.create(class_embeddings(TEACHER, DIM), {"stage": "embed-classes", "settings": settings})
    rows = [{"object_id": "test/1", "stage": "s", "stage_key": "k", "split": "kinds", "label": "class 1"}]
    made.create(SPLITS)
    made.append(SPLITS, made.write(SPLITS, to_table(SPLITS, rows)))
    for weights, code in (("aa11", 0), ("bb22", 1)):
        encoder = Encoder.load(encoders["uni3d"], device="cpu")
        card = dataclasses.replace(encoder.card, teacher={"name": TEACHER, "weights_sha256": weights})
        save(tmp_path / weights, encoder.module, card)
        found, _, told = evaluated(
            capsys, f"kinds={made.root}", "--encoder", tmp_path / weights, "--out", tmp_path / f"of-{weights}"
        )
        assert found == code
    assert "are of weights aa11, and the encoder's teacher had bb22: two models of one name" in told
