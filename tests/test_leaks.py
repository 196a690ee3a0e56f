"""What an encoder was trained on, and what of a benchmark is among it: by id, by hash, by shape; and the job that writes it."""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from evaluate.benchmark import Benchmark, Cloud
from evaluate.leaks import TrainedOn, leaks, listed, not_known, trained_on
from jobs.__main__ import main
from jobs.evaluate.leaks import lines
from pipeline.imports.splits import read_split
from pipeline.store import Corpus
from schemas.check import to_table
from schemas.corpus import Reader
from schemas.tables import OBJECTS, POINTS, SPLITS
from separable import STAGE, TEACHER, separable
from trainer.card import Card, PointInput
from trainer.checkpoints import OFFICIAL
from trainer.data import Loader
from trainer.recipes import RECIPES
from trainer.train import Run
from trainer.validation import divided

UIDS = [f"{number:032x}" for number in range(6)]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Corpus:
    return separable(tmp_path_factory.mktemp("separable") / "corpus", objects=24)


def card_of(corpus: Reader, recipe: str = "pointbert-small", held_out: str | float = 0.3, **settings) -> Card:
    """As trainer/train.py writes it."""
    run = Run(root=corpus.root, out="", recipe=RECIPES[recipe], teacher=TEACHER, held_out=held_out)
    return Card(
        encoder="pointbert",
        config={},
        input=PointInput(),
        teacher=None,
        data={"root": corpus.root, "versions": {name: corpus.need(name).version for name in corpus.tables()}},
        made_by={"recipe": recipe, "settings": run.settings() | settings},
    )


def of(*ids: str, **changes) -> Benchmark:
    """A benchmark of these ids that has nothing else."""
    told = {"name": "b", "variant": "made", "classes": ("a",), "cloud": lambda number: None}
    return Benchmark(**told | {"ids": ids, "labels": np.zeros(len(ids), np.int64)} | changes)


def of_ids(*ids: str) -> TrainedOn:
    return TrainedOn("a list", frozenset(ids), {}, None, None)


# ---------------------------------------------------------------------------------------------------------- what was trained on


@pytest.mark.parametrize("recipe", ["pointbert-small", "multiview-small"])
def test_the_objects_trained_on_are_those_that_the_loader_has(built, recipe):
    draws = RECIPES[recipe].draws
    draws = replace(draws, views=(1, 2)) if draws.pictures else draws
    card = card_of(built, recipe)
    card.made_by["settings"]["recipe"]["draws"]["views"] = list(draws.views)
    versions = card.data["versions"]
    separable(built.root, objects=8, first=100 if recipe == "pointbert-small" else 200)  # later: of no concern
    ids = Reader(built.root).open(f"image_embeddings/{TEACHER}", versions[f"image_embeddings/{TEACHER}"])
    kept, held = divided(built, ids.to_table(columns=["object_id"])["object_id"].to_pylist(), 0.3)
    loader = Loader(built.root, TEACHER, draws, batch=1, keep=kept, versions=versions)
    found = trained_on(card)
    assert found.ids == {id for batch in loader.epoch(0) for id in batch.ids} and held
    assert found.told == f"{built.root}, {len(kept)} objects" and (found.root, found.versions) == (built.root, versions)
    assert found.sha256 == {id: f"{int(id.removeprefix('test/')):064x}" for id in found.ids}
    assert not_known(card) is None


def test_objects_without_points_or_with_too_few_views_were_not_trained_on(tmp_path):
    corpus = separable(tmp_path / "corpus", objects=12, views=3)
    corpus.need("points").delete("object_id = 'test/3'")
    corpus.need("views").delete("object_id = 'test/5' AND view = 2")
    every = {f"test/{number}" for number in range(12)}
    by_points, by_views = card_of(corpus, held_out=0.0), card_of(corpus, "multiview-small", held_out=0.0)
    by_views.made_by["settings"]["recipe"]["draws"]["views"] = [1, 3]
    assert trained_on(by_points).ids == every - {"test/3"}
    assert trained_on(by_views).ids == every - {"test/5"}


def test_a_split_that_was_held_out_was_not_trained_on(tmp_path):
    corpus = separable(tmp_path / "corpus", objects=8)
    corpus.create(SPLITS)
    rows = [STAGE | {"object_id": f"test/{number}", "split": "mine"} for number in (2, 5)]
    corpus.append(SPLITS, corpus.write(SPLITS, to_table(SPLITS, rows)))
    found = trained_on(card_of(corpus, held_out="mine"))
    assert found.ids == {f"test/{number}" for number in (0, 1, 3, 4, 6, 7)}
    assert listed(f"{corpus.root}#mine").ids == {"test/2", "test/5"}
    assert listed(f"{corpus.root}#mine").sha256.keys() == {"test/2", "test/5"}
    with pytest.raises(ValueError, match="has no split 'yours'"):
        listed(f"{corpus.root}#yours")


def test_what_nobody_knows_is_none_with_a_sentence(tmp_path, built):
    published = OFFICIAL["uni3d-b"].card("uni3d-b")
    assert trained_on(published) is None
    assert not_known(published) == "uni3d-b was trained elsewhere, and its card does not say on what"
    gone = card_of(separable(tmp_path / "corpus", objects=8))
    shutil.rmtree(tmp_path / "corpus")
    assert trained_on(gone) is None
    assert "whose table objects is not there any more in version" in not_known(gone)
    assert lines(None, gone)[0].startswith("leak check: not known whether the benchmark was trained on: it was trained on ")
    assert lines(None, gone)[0].endswith("give --trained-on LIST")
    later = card_of(built)
    later.data["versions"]["points"] = 999
    assert trained_on(later) is None and "table points is not there any more in version 999" in not_known(later)


def test_a_start_from_other_weights_is_told(built):
    told = trained_on(card_of(built, initial="uni3d-b.pt")).told
    assert told.endswith("begun from uni3d-b.pt, which may have seen others")


def test_lists_say_what_a_published_checkpoint_was_trained_on_and_add_to_a_card(tmp_path, built):
    train_all = tmp_path / "train_all.json"
    entries = [{"dataset": "Objaverse", "group": "000-000", "id": uid, "data_path": "x"} for uid in UIDS[:3]]
    entries += [{"dataset": "ShapeNet", "group": "02691156", "id": "1a04", "data_path": "x"}]
    train_all.write_text(json.dumps(entries))
    ids = {*(f"objaverse/{uid}" for uid in UIDS[:3]), "shapenet/02691156/1a04"}
    found = trained_on(OFFICIAL["uni3d-b"].card("uni3d-b"), lists=[str(train_all)])
    assert (found.ids, found.root, found.told) == (ids, None, f"{train_all}, 4 objects")
    card = card_of(built, held_out=0.0)
    both = trained_on(card, lists=[str(train_all), built.root])
    assert both.ids == trained_on(card).ids | listed(built.root).ids | ids
    assert both.root == built.root and both.versions == card.data["versions"]
    assert [(part.root, part.versions) for part in both.also] == [(built.root, None)]
    with pytest.raises(ValueError, match="there is no list"):
        trained_on(card, lists=[str(tmp_path / "absent.json")])


# -------------------------------------------------------------------------------------------------------------------- leaks


def test_an_object_is_known_by_its_id_under_all_its_names():
    trained = of_ids("objaverse/a", "mvimgnet/0/12", "shapenet/02691156/1a04", "objaverse-xl/b", "other/x")
    benchmark = of("mvpnet/0/12", "objaverse/b", "shapenet/03001627/1a04", "objaverse/a", "mvpnet/1/12", "objaverse/x")
    found = leaks(trained, benchmark, near=False)
    assert found.by_id == (
        ("mvpnet/0/12", "mvimgnet/0/12"),
        ("objaverse/b", "objaverse-xl/b"),
        ("shapenet/03001627/1a04", "shapenet/02691156/1a04"),
        ("objaverse/a", "objaverse/a"),
    )
    assert found.counts() == {"id": 4}  # nothing else could be asked
    assert found.asked["hash"] == "no hashes of a list are known" and found.asked["near-duplicate"] == "not asked for"


def test_a_file_is_known_by_its_hash_and_counts_once(tmp_path):
    files = [tmp_path / f"{number}.off" for number in range(3)]
    for number, file in enumerate(files):
        file.write_bytes(b"OFF %d" % number)
    sha256 = hashlib.sha256(b"OFF 1").hexdigest()
    trained = TrainedOn("t", frozenset({"t/1", "t/2", "b/2"}), {"t/1": sha256, "t/2": sha256, "b/2": "0" * 64}, None, None)
    benchmark = of("b/0", "b/1", "b/2", file=lambda number: str(files[number]))
    found = leaks(trained, benchmark, near=False)
    assert found.by_hash == (("b/1", "t/1"), ("b/1", "t/2"))
    assert found.counts() == {"id": 1, "hash": 1}
    assert found.trained_ids() == {"t/1", "t/2", "b/2"}
    in_one = leaks(trained, of("b/0"), near=False)
    assert in_one.by_hash == () and in_one.asked["hash"] == "the objects of b (made) have no files of their own"
    assert in_one.counts() == {"id": 0}


def test_objects_of_a_corpus_are_known_by_their_hashes(tmp_path):
    ours, theirs = separable(tmp_path / "ours", objects=8), separable(tmp_path / "theirs", objects=4)
    changed = theirs.need(OBJECTS.name)
    changed.update({"object_id": "'b/' || source_id"})
    benchmark = of("b/0", "b/3", cloud=None, corpus=theirs.root)
    found = leaks(listed(ours.root), benchmark, near=False)
    assert found.by_id == () and found.by_hash == (("b/0", "test/0"), ("b/3", "test/3"))


def solid(number: int) -> trimesh.Trimesh:
    arm = trimesh.creation.box((1, 0.2, 0.2), trimesh.transformations.translation_matrix((0.5, 0.2 * number, 0)))
    return trimesh.util.concatenate([trimesh.creation.box((0.2 + 0.1 * number, 2, 0.3)), arm])


def with_shapes(root, numbers: list[int], rng) -> Corpus:
    """A corpus whose points lie on these solids."""
    corpus = separable(root, objects=len(numbers))
    points = corpus.need("points").to_table()
    xyz = [trimesh.sample.sample_surface(solid(number), 10_000, seed=rng)[0] / 2 for number in numbers]
    rows = [row | {"xyz": some.reshape(-1)} for row, some in zip(points.to_pylist(), xyz, strict=True)]
    corpus.need("points").delete("true")
    corpus.append(POINTS, corpus.write(POINTS, to_table(POINTS, rows)))
    return corpus


def test_a_shape_is_known_in_a_file_that_has_another_name_and_other_points(tmp_path, rng):
    corpus = with_shapes(tmp_path / "corpus", [0, 2, 4], rng)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    clouds = [30 * trimesh.sample.sample_surface(solid(number), 2048, seed=rng)[0] @ turn for number in (3, 2, 0)]
    benchmark = of("b/x", "b/y", "b/z", cloud=lambda number: Cloud(clouds[number], None, "+z"))
    told = []
    found = leaks(listed(corpus.root), benchmark, progress=lambda done, total: told.append((done, total)))
    assert [pair[:2] for pair in found.near] == [("b/y", "test/1"), ("b/z", "test/0")]
    assert found.counts() == {"id": 0, "near-duplicate": 2} and found.asked["near-duplicate"] is None
    assert told[-1][0] == told[-1][1]
    assert lines(found)[0] == (
        f"leak check: 2 of 3 objects of b were trained on ({corpus.root}, 3 objects; 2 as near-duplicates): b/y, b/z"
    )
    # what was held out is not compared, and a list has no points
    only = replace(listed(corpus.root), ids=frozenset({"test/0"}))
    assert [pair[:2] for pair in leaks(only, benchmark).near] == [("b/z", "test/0")]
    assert "give their corpus, --trained-on ROOT" in leaks(of_ids("test/0"), benchmark).asked["near-duplicate"]


def test_a_pair_is_told_once_by_the_surest_way(tmp_path, rng):
    corpus = with_shapes(tmp_path / "corpus", [0, 2, 2], rng)
    found = leaks(listed(corpus.root), of("test/0", "test/1", cloud=None, corpus=corpus.root))
    assert found.by_id == (("test/0", "test/0"), ("test/1", "test/1")) and found.by_hash == ()
    assert [pair[:2] for pair in found.near] == [("test/1", "test/2")]
    assert found.counts() == {"id": 2, "hash": 0, "near-duplicate": 0}


def test_lines_say_when_nothing_was_found():
    [first, *rest] = lines(leaks(of_ids("x/1"), of("b/0"), near=False))
    assert first == "leak check: none of 1 objects of b found among what was trained on (a list), compared by id"
    assert rest == [
        "leak check: not compared by the hash of the file: no hashes of a list are known",
        "leak check: not compared as near-duplicates: not asked for",
    ]


# -------------------------------------------------------------------------------------------------------------------- the job


@pytest.fixture
def lvis(tmp_path) -> Corpus:
    """A corpus of six objects, of which a benchmark has the first three; another has the same bytes as one of these."""
    corpus = separable(tmp_path / "corpus", objects=6)
    corpus.need(OBJECTS.name).update({"asset_sha256": f"'{1:064x}'"}, where="object_id = 'test/5'")
    file = tmp_path / "lvis.csv"
    file.write_text("".join(f"{number % 2},class {number % 2},{number}\n" for number in range(3)))
    assert main(["import", corpus.root, "--split", f"objaverse-lvis={file}", "--source", "test"]) == 0
    return corpus


def test_the_job_writes_what_to_hold_out_and_what_may_be_trained_on(lvis, tmp_path, capsys):
    without = tmp_path / "train_no_lvis.json"
    asked = ["evaluate", "leaks", lvis.root, "--against", f"objaverse-lvis={lvis.root}", "--no-near"]
    assert main([*asked, "--write-split", "leaked-objaverse-lvis", "--write-list", str(without)]) == 0
    told = capsys.readouterr().out
    assert "3 of 3 objects of objaverse-lvis were trained on" in told and "3 by id" in told
    assert "4 of 6 objects trained on are in the benchmarks" in told
    kept, held = divided(lvis, [f"test/{number}" for number in range(6)], "leaked-objaverse-lvis")
    assert (kept, held) == (["test/3", "test/4"], ["test/0", "test/1", "test/2", "test/5"])
    assert list(read_split(str(without))) == kept
    # and with them held out, nothing leaks
    again = trained_on(card_of(lvis, held_out="leaked-objaverse-lvis"))
    assert again.ids == set(kept)
    assert main(["evaluate", "leaks", str(without), "--against", f"objaverse-lvis={lvis.root}", "--no-near", "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)["benchmarks"]
    assert found["counts"] == {"id": 0} and found["by_id"] == []


def test_without_the_benchmark_s_ids_a_list_is_that_which_openshape_publishes(tmp_path, lvis, capsys):
    """train_no_lvis.json is train_all.json less what lvis.json has."""
    every = [("Objaverse", "000-000", uid) for uid in UIDS] + [("ShapeNet", "02691156", "1a04"), ("ABO", "", "B0ZJ2FMQ8J")]
    lists = {"train_all": every, "train_no_lvis": every[2:]}
    for name, entries in lists.items():
        rows = [{"dataset": dataset, "group": group, "id": id, "data_path": "x"} for dataset, group, id in entries]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    corpus = separable(tmp_path / "of_objaverse", objects=4)
    corpus.need(OBJECTS.name).update({"object_id": "'objaverse/0000000000000000000000000000000' || source_id"})
    (tmp_path / "lvis.json").write_text(json.dumps([{"uid": uid, "category": "chair"} for uid in UIDS[:2]]))
    assert main(["import", corpus.root, "--split", f"objaverse-lvis={tmp_path / 'lvis.json'}"]) == 0
    written = tmp_path / "mine.json"
    asked = ["evaluate", "leaks", str(tmp_path / "train_all.json"), "--against", f"objaverse-lvis={corpus.root}"]
    assert main([*asked, "--write-list", str(written)]) == 0
    assert set(read_split(str(written))) == set(read_split(str(tmp_path / "train_no_lvis.json")))
    assert "not compared as near-duplicates: the points of" in capsys.readouterr().out


def test_the_job_refuses_what_it_cannot_do_with_a_sentence(tmp_path, lvis, capsys):
    (tmp_path / "list.json").write_text(json.dumps(["a" * 32]))
    against = ["--against", f"objaverse-lvis={lvis.root}"]
    for wrong, sentence in (
        (["uni3d-b", *against], "uni3d-b does not say what it was trained on"),
        ([str(tmp_path / "list.json"), *against, "--write-split", "mine"], "is no corpus that could have a split"),
        ([lvis.root, *against, "--write-list", "list.csv"], "must end in .json"),
        ([lvis.root, "--against", "modelnet40=/nowhere"], "there is no /nowhere"),
        ([str(tmp_path / "absent.json"), *against], "there is no list"),
    ):
        assert main(["evaluate", "leaks", *wrong]) == 2
        assert sentence in capsys.readouterr().err
    assert main(["evaluate", "leaks", str(tmp_path), *against]) == 1
    assert "is not a corpus" in capsys.readouterr().err


def test_nothing_is_written_where_nothing_leaked(tmp_path, lvis, capsys):
    other = separable(tmp_path / "other", objects=2, first=50)
    asked = ["evaluate", "leaks", other.root, "--against", f"objaverse-lvis={lvis.root}", "--no-near", "--write-split", "leaked"]
    assert main(asked) == 0
    assert "no split leaked was written: nothing leaked" in capsys.readouterr().out
    assert Reader.at(other.root).open(SPLITS.name) is None
