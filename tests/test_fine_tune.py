"""Fine-tuning: what is learnt, from what, and what stays as it was."""

import copy
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from labelled_shapes import POINTBERT, checkpoint, form, labelled_corpus, same_weights, scanobjectnn
from safetensors import safe_open
from safetensors.torch import load_file

from evaluate import fine_tune as tuning
from evaluate.benchmark import Benchmark, Cloud
from evaluate.fine_tune import Classifier, Clouds, FineTune, classified, clouds, fine_tune, fresh, save_tuned
from evaluate.linear_probe import halves as halves_of
from evaluate.result import load as load_results
from jobs.__main__ import main
from pipeline.stage import ObjectError
from separable import separable
from trainer.card import Card, PointInput
from trainer.checkpoints import load
from trainer.clouds import prepared
from trainer.encode import Encoder
from trainer.encoders.pointbert import PointBert, PointBertConfig
from trainer.encoders.uni3d import Uni3d, Uni3dConfig

CPU = torch.device("cpu")
UNI3D = Uni3dConfig(
    width=32, depth=2, heads=2, hidden=64, flavour="swiglu", groups=8, group_size=16, pc_encoder_dim=32, out=16, patch_dropout=0.25
)
QUICK = FineTune(points=128, epochs=8, batch=16, lr=2e-3)


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def card(config) -> Card:
    kind = "pointbert" if isinstance(config, PointBertConfig) else "uni3d"
    return Card(
        encoder=kind, config=asdict(config), input=PointInput(), teacher={"name": "t:t"}, data=None, made_by={"recipe": "by hand"}
    )


def shapes(objects: int, seed: int, *, up="+y", points: int = 300) -> Benchmark:
    """Ellipsoids of three forms, of any size and anywhere; every third of a class."""
    labels = np.arange(objects) % 3

    def cloud(number: int) -> Cloud:
        return Cloud(form(labels[number], np.random.default_rng([seed, number]), points), None, up)

    ids = tuple(f"{seed}/{number}" for number in range(objects))
    return Benchmark(name="shapes", variant="made", classes=("ball", "disc", "stick"), ids=ids, labels=labels, cloud=cloud)


def read(benchmark: Benchmark, points: int = QUICK.points, wanted: PointInput | None = None) -> Clouds:
    return clouds(benchmark, wanted or PointInput(), points, device=CPU)


@pytest.fixture(scope="module")
def halves() -> tuple[Clouds, Clouds]:
    return read(shapes(60, 0)), read(shapes(45, 1))


def tuned(halves, config=POINTBERT, settings=QUICK, seed=0, **changes):
    train, test = (replace(half, **changes) for half in halves)
    return fine_tune(fresh(card(config), 0), train, test, 3, settings, seed=seed, device=CPU)


@pytest.mark.parametrize(
    ("config", "settings"),
    [(POINTBERT, replace(QUICK, epochs=12)), (UNI3D, FineTune(points=64, epochs=9, batch=6, lr=1e-3))],
    ids=["pointbert", "uni3d"],
)
def test_shapes_that_differ_are_learnt_whole(halves, config, settings):
    found = tuned(halves, config, settings)
    np.testing.assert_array_equal(found.guessed, halves[1].labels)
    assert found.losses[-1] < 0.6 * found.losses[0]
    assert len(found.tests) == len(found.losses) == settings.epochs


def test_labels_dealt_out_by_chance_teach_nothing(halves):
    train, test = halves
    shuffled = replace(train, labels=train.labels[torch.from_numpy(np.random.default_rng(5).permutation(60))])
    tests = [fine_tune(fresh(card(POINTBERT), 0), shuffled, test, 3, QUICK, seed=seed, device=CPU).tests[-1] for seed in range(2)]
    assert np.mean(tests) < 0.7


def test_the_last_epoch_decides_and_every_epoch_is_told(halves):
    told = []
    found = fine_tune(
        fresh(card(POINTBERT), 0), *halves, 3, QUICK, seed=0, device=CPU, after_epoch=lambda *one: told.append(one)
    )  # fmt: skip
    assert told == list(zip(range(8), found.losses, found.tests, strict=True))
    again = classified(found.classifier, halves[1], QUICK.points)
    np.testing.assert_array_equal(found.guessed, again)
    assert found.tests[-1] == (again == halves[1].labels.numpy()).mean()
    assert not found.classifier.training
    cut = replace(halves[1], xyz=torch.nn.functional.pad(halves[1].xyz[:, :128], (0, 0, 0, 22)))
    np.testing.assert_array_equal(found.guessed, classified(found.classifier, cut, QUICK.points))


@pytest.mark.parametrize("config", [POINTBERT, UNI3D], ids=["pointbert", "uni3d"])
def test_tuning_changes_all_that_the_head_sees_and_not_the_encoder_it_was_given(halves, config):
    encoder = fresh(card(config), 0)
    before = copy.deepcopy(encoder.state_dict())
    found = fine_tune(encoder, *halves, 3, replace(QUICK, epochs=1), seed=0, device=CPU)
    after = found.classifier.encoder.state_dict()
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in before.items())
    same = {name for name, value in after.items() if torch.equal(value, before[name])}
    # A PointBERT's head reads its tokens, so that the projection of the class token learns nothing.
    assert same == ({"proj.weight", "proj.bias"} if config is POINTBERT else set())


@pytest.mark.parametrize("config", [POINTBERT, UNI3D], ids=["pointbert", "uni3d"])
def test_the_same_seed_gives_the_same_figures_and_another_others(halves, config):
    few = replace(QUICK, points=64, epochs=1)
    first, again, other = (tuned(halves, config, few, seed) for seed in (0, 0, 1))
    assert (first.losses, first.tests) == (again.losses, again.tests)
    for name, value in first.classifier.state_dict().items():
        assert torch.equal(value, again.classifier.state_dict()[name])
    assert first.losses != other.losses


def test_chance_elsewhere_goes_on_as_if_nothing_had_been_learnt(halves):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    tuned(halves, settings=replace(QUICK, epochs=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_checkpoint_gets_further_in_one_epoch_than_a_fresh_encoder(halves):
    learnt = tuned(halves, settings=replace(QUICK, epochs=15)).classifier.encoder
    once = replace(QUICK, epochs=1)
    ahead = [fine_tune(learnt, *halves, 3, once, seed=seed, device=CPU).losses[0] for seed in range(3)]
    scratch = [fine_tune(fresh(card(POINTBERT), seed), *halves, 3, once, seed=seed, device=CPU).losses[0] for seed in range(3)]
    assert max(ahead) < min(scratch)


def test_the_head_of_a_pointbert_reads_the_class_token_and_the_largest_of_the_groups(halves):
    encoder = fresh(card(POINTBERT), 0).eval()
    xyz, rgb = halves[1].xyz[:4, :128], halves[1].rgb[:4, :128]
    tokens = encoder.tokens(xyz, rgb)
    assert tokens.shape == (4, 1 + POINTBERT.groups, POINTBERT.dim)
    assert torch.equal(encoder.proj(tokens[:, 0]), encoder(xyz, rgb))
    classifier = Classifier(encoder, 3).eval()
    normed = classifier.norm(tokens)
    expected = classifier.head(torch.cat([normed[:, 0], normed[:, 1:].max(dim=1).values], dim=1))
    assert torch.equal(classifier(xyz, rgb), expected)
    assert [tuple(one.weight.shape) for one in classifier.head if hasattr(one, "weight")] == [(256, 64), (3, 256)]


def test_weights_of_one_dimension_biases_and_tokens_do_not_decay():
    for config, spared in ((POINTBERT, "ppat.cls_token"), (UNI3D, "cls_token")):
        classifier = Classifier(fresh(card(config), 0), 3)
        decayed, other = tuning._adamw(classifier, FineTune()).param_groups
        names = {parameter: name for name, parameter in classifier.named_parameters()}
        assert decayed["weight_decay"] == 0.05 and other["weight_decay"] == 0 and decayed["lr"] == 5e-4
        assert {names[one] for one in decayed["params"]} | {names[one] for one in other["params"]} == set(names.values())
        assert f"encoder.{spared}" in {names[one] for one in other["params"]}
        assert all(one.ndim > 1 and not names[one].endswith("bias") for one in decayed["params"])


def test_training_clouds_are_scaled_axis_by_axis_moved_and_of_other_points_each_time():
    rng = np.random.default_rng(0)
    xyz, rgb = (torch.from_numpy(rng.random((200, 80, 3)).astype(np.float32)) for _ in range(2))
    settings = FineTune(points=64)
    some, colors = tuning._drawn(xyz, rgb, torch.arange(200), settings)
    assert some.shape == colors.shape == (200, 64, 3)
    # A point is known by its colour: which it was, and what became of it.
    index = (colors[:, :, None] == rgb[:, None]).all(dim=-1).int().argmax(dim=-1)
    assert all(len(set(one.tolist())) == 64 for one in index)
    assert (index[:100] != index[100:]).any(dim=1).all()
    was = torch.stack([cloud[order] for cloud, order in zip(xyz, index, strict=True)])
    scale = (some[:, 0] - some[:, 1]) / (was[:, 0] - was[:, 1])
    shift = some[:, 0] - scale * was[:, 0]
    torch.testing.assert_close(some, was * scale[:, None] + shift[:, None], atol=1e-3, rtol=1e-3)
    assert 0.66 < scale.min() < 0.70 and 1.45 < scale.max() < 1.501 and -0.201 < shift.min() < -0.19 and 0.19 < shift.max() < 0.201
    assert (scale.std(dim=1) > 0.01).all()


# What is learnt from


def test_points_come_farthest_first_so_that_the_first_spread_over_the_whole(halves):
    test = halves[1]
    assert test.xyz.shape == test.rgb.shape == (45, 150, 3)  # 75/64 of 128
    assert (test.numbers == np.arange(45)).all() and test.failed == {}
    assert (test.rgb == 0.4).all()
    first, later = (torch.cdist(test.xyz[:, part], test.xyz[:, part]) for part in (slice(0, 20), slice(130, 150)))
    nearest = [(one + 9 * torch.eye(20)).amin(dim=(1, 2)) for one in (first, later)]
    assert (nearest[0] > nearest[1]).float().mean() > 0.9


def test_clouds_are_as_the_card_wants_them():
    objects = shapes(3, 0, points=140)
    wanted = PointInput(frame="yz-swapped", normalisation="box", fill=0.7)
    found = read(objects, wanted=wanted)
    for number in range(3):
        xyz, rgb = prepared(torch.from_numpy(objects.cloud(number).xyz).float()[None], None, None, wanted)
        assert found.xyz[number].sort(dim=0).values.equal(xyz[0].sort(dim=0).values)
        assert (found.rgb == 0.7).all()


def test_what_stands_on_z_is_turned_as_the_encoder_turns_it():
    upright, lying = read(shapes(6, 0, points=140)), read(shapes(6, 0, points=140, up="+z"))
    x, y, z = lying.xyz.unbind(-1)
    torch.testing.assert_close(torch.stack([x, -z, y], dim=-1), upright.xyz)


def test_smaller_clouds_repeat_themselves_and_the_objects_keep_their_order():
    large, small = shapes(70, 0, points=160), shapes(70, 0, points=100)
    mixed = replace(large, cloud=lambda number: (small if number % 2 else large).cloud(number))
    found = read(mixed)
    assert found.xyz.shape == (70, 150, 3)
    assert found.xyz[1::2, 100:].equal(found.xyz[1::2, :50])
    assert found.xyz[0::2].equal(read(large).xyz[0::2]) and found.xyz[1::2, :100].equal(read(small).xyz[1::2])


def test_objects_that_cannot_be_read_are_named_and_left_out():
    whole = shapes(9, 0)

    def cloud(number: int) -> Cloud:
        if number in (2, 5):
            raise ObjectError("truncated", f"object {number} is cut off")
        return whole.cloud(number)

    told = []
    found = clouds(
        replace(whole, cloud=cloud), PointInput(), 64, device=CPU, after=lambda done, failed: told.append((done, failed))
    )
    assert found.numbers.tolist() == [0, 1, 3, 4, 6, 7, 8] and found.labels.tolist() == [0, 1, 0, 1, 0, 1, 2]
    assert found.failed == {"0/2": "truncated: object 2 is cut off", "0/5": "truncated: object 5 is cut off"}
    assert told[-1] == (7, 2)
    with pytest.raises(ValueError, match="none of the 9 objects of shapes could be read"):
        clouds(replace(whole, cloud=lambda number: cloud(2)), PointInput(), 64, device=CPU)


def test_objects_of_a_corpus_have_the_points_and_colours_that_are_stored(tmp_path):
    separable(tmp_path / "corpus", objects=6, classes=2)
    ids = ("test/4", "test/9", "test/1")
    stored = Benchmark(
        name="made", variant="", classes=("a", "b"), ids=ids, labels=np.array([0, 1, 1]), corpus=str(tmp_path / "corpus")
    )
    found = read(stored, wanted=PointInput(normalisation="none"))
    assert found.numbers.tolist() == [0, 2] and found.failed == {"test/9": "the corpus has no points of it"}
    rows = {row["object_id"]: row for row in tables_points(tmp_path / "corpus")}
    for place, id in enumerate(("test/4", "test/1")):
        xyz = np.array(rows[id]["xyz"], np.float32).reshape(-1, 3)[:300]
        assert {tuple(one) for one in found.xyz[place].tolist()} <= {tuple(one) for one in xyz.tolist()}
        assert torch.unique(found.rgb[place], dim=0)[0].mul(255).round().tolist() == rows[id]["rgb"][:3]


def tables_points(root):
    from schemas.corpus import Reader

    return Reader.at(str(root)).need("points").to_table(columns=["object_id", "xyz", "rgb"]).to_pylist()


# Afterwards


def test_what_was_tuned_can_be_saved_and_loaded(halves, tmp_path):
    found = tuned(halves, settings=replace(QUICK, epochs=1))
    save_tuned(tmp_path / "tuned", found.classifier, card(POINTBERT), QUICK, ("ball", "disc", "Stück"))
    encoder, told = load(tmp_path / "tuned")
    assert told.made_by == {"fine_tuned": json.loads(json.dumps(asdict(QUICK))), "from": {"recipe": "by hand"}}
    again = Classifier(encoder, 3)
    with safe_open(tmp_path / "tuned" / tuning.HEAD, "pt") as head:
        assert json.loads(head.metadata()["classes"]) == ["ball", "disc", "Stück"]
        missing = again.load_state_dict({name: head.get_tensor(name) for name in head.keys()}, strict=False)  # noqa: SIM118
    assert all(name.startswith("encoder.") for name in missing.missing_keys) and not missing.unexpected_keys
    np.testing.assert_array_equal(classified(again, halves[1], QUICK.points), found.guessed)


def test_a_fresh_encoder_is_of_its_seed_and_has_learnt_nothing():
    for config, kind in ((POINTBERT, PointBert), (UNI3D, Uni3d)):
        first, again, other = (fresh(card(config), seed).state_dict() for seed in (0, 0, 1))
        assert isinstance(fresh(card(config), 0), kind)
        assert all(torch.equal(value, again[name]) for name, value in first.items())
        assert any(not torch.equal(value, other[name]) for name, value in first.items())


def test_an_encoder_reads_what_it_read_before_its_tokens_could_be_had():
    encoder = Encoder(fresh(card(POINTBERT), 0).eval(), card(POINTBERT), CPU)
    cloud = shapes(3, 0).cloud(1)
    assert encoder.points(cloud.xyz, up="+y").shape == (1, 16)
    assert set(fresh(card(POINTBERT), 0).state_dict()) == set(PointBert(POINTBERT).state_dict())


# As a job


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    return scanobjectnn(folder), checkpoint(folder / "encoder")


def run(scans, out, *arguments) -> list[str]:
    place, encoder = scans
    asked = ["evaluate", "fine-tune", f"scanobjectnn-pb-t50-rs={place}", "--encoder", str(encoder), "--no-near", "-o", str(out)]
    return [*asked, *arguments]


def test_an_encoder_is_tuned_on_the_official_files_and_beside_it_a_fresh_one(scans, tmp_path):
    told = ["--epochs", "3", "--batch", "8", "--points", "128", "--lr", "2e-3", "--seeds", "2", "--scratch", "--save"]
    before = {file.name: file.read_bytes() for file in scans[1].iterdir()}
    assert main(run(scans, tmp_path / "out", *told)) == 0
    tuned, scratch = load_results(tmp_path / "out")
    assert (tuned.task, tuned.benchmark, tuned.objects, tuned.classes) == ("fine-tuning", "scanobjectnn-pb-t50-rs", 12, 15)
    assert tuned.method == "encoder, fine-tuned" and scratch.method == "encoder, its architecture from scratch"
    assert scratch.trained_on == "nothing before" and tuned.trained_on is None
    for one in (tuned, scratch):
        last, best = one.figures["top-1"].values, one.figures["best-on-test top-1"].values
        assert len(last) == len(best) == 2 and all(most >= share for most, share in zip(best, last, strict=True))
        assert one.per_class.keys() == {"bin", "chair", "table"}
        assert (one.settings["training objects"], one.settings["epochs"], one.settings["batch"]) == (24, 3, 8)
        assert one.settings["the head reads"] == "tokens"
    assert {file.name: file.read_bytes() for file in scans[1].iterdir()} == before
    [folder] = (tmp_path / "out").glob("*-fine-tuned")
    assert not same_weights(load(folder)[0], load(scans[1])[0])
    [beside] = (tmp_path / "out").glob("*-from-scratch")
    # The projection, which the head does not read, still tells what each began as.
    assert same_weights(load(folder)[0].proj, load(scans[1])[0].proj)
    assert same_weights(load(beside)[0].proj, fresh(load(scans[1])[1], 0).proj)
    test = clouds_of(scans[0], 128)
    classifier = Classifier(load(folder)[0], 15)
    classifier.load_state_dict(load_file(folder / tuning.HEAD), strict=False)
    right = (classified(classifier, test, 128) == test.labels.numpy()).mean()
    assert right == tuned.figures["top-1"].values[0]


def clouds_of(place, points: int) -> Clouds:
    _, test = halves_of(f"scanobjectnn-pb-t50-rs={place}")
    return clouds(test, PointInput(points=256), points, device=CPU)


def test_objects_of_a_corpus_are_learnt_from_as_well(scans, tmp_path, capsys):
    labelled_corpus(tmp_path / "corpus", objects=24, train=16)
    told = ["evaluate", "fine-tune", f"shapes={tmp_path / 'corpus'}", "--encoder", str(scans[1]), "--epochs", "1", "--points", "64"]
    assert main([*told, "--no-near", "-o", str(tmp_path / "out"), "--json"]) == 0
    [found] = load_results(tmp_path / "out")
    assert (found.objects, found.settings["training objects"]) == (8, 16)
    assert json.loads(capsys.readouterr().out)["results"][0]["task"] == "fine-tuning"


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (("--epochs", "0"), "--epochs 0: must be more than 0"),
        (("--lr", "-1"), "--lr -1.0: must be"),
        (("--teacher", "ViT-B-32:laion2b_s34b_b79k"), "stored embeddings do not learn"),
        (("--points", "8"), "16 farthest points of clouds of 8 points"),
    ],
)
def test_what_cannot_be_tuned_is_refused(scans, tmp_path, capsys, told, sentence):
    assert main(run(scans, tmp_path / "out", *told)) == 2
    assert sentence in capsys.readouterr().err
