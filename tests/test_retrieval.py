"""Retrieval: exact lists, ties and all, and what counts as found."""

import hashlib
import json

import numpy as np
import pytest
import torch

from evaluate import retrieval as module
from evaluate.features import averages
from evaluate.result import from_json
from evaluate.retrieval import alike, both_ways, captions_of, cosines, ranked, retrieval, thumbnails_of
from evaluate.sets.named import open_benchmark
from jobs.__main__ import main
from jobs.evaluate.asked import Method, Trial
from jobs.evaluate.retrieval import Job, _others
from pipeline.store import Corpus
from schemas.check import to_table
from schemas.corpus import CorpusError
from schemas.tables import CAPTIONS, SPLITS, image_embeddings, text_embeddings
from separable import STAGE, TEACHER, separable


@pytest.fixture
def chance():
    return torch.Generator().manual_seed(0)


def near_each_other(count, dim, chance):
    """Embeddings like those of an untrained encoder: float32 cannot tell their cosines apart."""
    return 1 + 1e-3 * torch.randn(count, dim, generator=chance)


def brute_force(queries, gallery, count):
    cosine = cosines(queries, gallery).tolist()
    return [sorted(range(len(row)), key=lambda item: (-row[item], item))[:count] for row in cosine]


def test_cosines_are_cosines(chance):
    queries, gallery = torch.randn(7, 33, generator=chance), 5 * torch.randn(9, 33, generator=chance)
    exact = torch.nn.functional.cosine_similarity(queries.double()[:, None], gallery.double()[None], dim=2)
    assert (cosines(queries, gallery) - exact).abs().max() < 1e-7


def test_cosines_do_not_depend_on_what_else_is_computed(chance):
    queries, gallery = near_each_other(50, 1280, chance), near_each_other(301, 1280, chance)
    whole = cosines(queries, gallery)
    for one in range(0, 301, 13):
        assert torch.equal(whole[:, one], cosines(queries, gallery[one : one + 1])[:, 0])
    for one in range(50):
        assert torch.equal(whole[one], cosines(queries[one : one + 1], gallery)[0])


@pytest.mark.parametrize("make", [near_each_other, lambda count, dim, chance: torch.randn(count, dim, generator=chance)])
def test_lists_are_those_of_a_full_sort_in_blocks_of_any_size(chance, monkeypatch, make):
    queries, gallery = make(100, 64, chance), make(150, 64, chance)
    gallery = gallery[torch.randint(150, (400,), generator=chance)]  # every vector several times
    exact = torch.tensor(brute_force(queries, gallery, 7))
    for block in (1, 32, 1000):
        monkeypatch.setattr(module, "QUERIES_AT_ONCE", block)
        assert torch.equal(ranked(queries, gallery, 7), exact)


def test_of_equals_the_lower_number_is_nearer():
    gallery = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    assert ranked(torch.tensor([[3.0, 0.0]]), gallery, 3).tolist() == [[1, 2, 3]]


def test_a_vector_of_zeros_is_as_far_from_all():
    assert ranked(torch.zeros(1, 2), torch.tensor([[0.0, 1.0], [1.0, 0.0]]), 2).tolist() == [[0, 1]]


def test_what_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="1 of 2 embeddings are not finite"):
        ranked(torch.tensor([[0.0, 1.0], [torch.nan, 1.0]]), torch.eye(2), 1)


def test_instances_and_categories():
    """Four objects on a circle; the third and fourth captions are swapped."""
    shapes = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [0.0, -1.0]])
    captions = shapes[[0, 1, 3, 2]]
    found = retrieval(captions, shapes, torch.tensor([5, 6, 7, 6]))
    # nearest to each caption: 0 1 3 / 1 0 3 / 3 2 1 / 2 3 1
    assert found.instance == (0.5, 1.0, 1.0)
    assert found.category == (0.5, 1.0, 1.0)
    assert retrieval(captions, shapes, torch.tensor([5, 6, 6, 6])).category == (1.0, 1.0, 1.0)


def test_the_ways_are_not_the_same():
    """A caption that is like all shapes is nearest to each of them."""
    shapes, captions = torch.eye(3), torch.tensor([[1.0, 1.0, 1.0], [0.1, 0.0, -1.0], [0.0, -1.0, 0.1]])
    found = both_ways(shapes, captions, torch.arange(3))
    assert found["3d to text"].instance[0] == 1 / 3
    assert found["text to 3d"].instance[0] == 2 / 3


def test_shapes_look_up_the_others_of_their_class(chance):
    """Every vector several times, so that a shape is not always the first among its equals, and more often than are looked at."""
    shapes = near_each_other(12, 8, chance)[torch.randint(12, (90,), generator=chance)]
    shapes[:9] = shapes[0]
    category = torch.randint(7, (90,), generator=chance)
    cosine = cosines(shapes, shapes).tolist()
    right = []
    for one, row in enumerate(cosine):
        others = sorted((item for item in range(90) if item != one), key=lambda item: (-row[item], item))
        right.append([bool(category[item] == category[one]) for item in others[:5]])
    expected = tuple(sum(any(hits[:k]) for hits in right) / 90 for k in (1, 3, 5))
    assert alike(shapes, category) == pytest.approx(expected, abs=1e-12)
    assert alike(shapes, torch.arange(90)) == (0, 0, 0)


# Captions and pictures of a corpus


@pytest.fixture
def told(tmp_path) -> Corpus:
    """14 objects with a label each. Of Cap3D objects 2 to 9 have two captions, of which the first of object 5 is not kept; text
    "first 4" was never embedded. Objects 3, 6 and 9 have a thumbnail."""
    corpus = separable(tmp_path / "corpus", objects=14, classes=3)
    rng = np.random.default_rng(0)
    rows = []
    for number in range(2, 10):
        for place, text in enumerate((f"first {number}", f"second {number}")):
            dropped = {"kept": False, "dropped_because": "hash"} if (number, place) == (5, 0) else {"kept": True}
            row = {"object_id": f"test/{number}", "origin": "cap3d", "caption": place, "text": text, "text_sha256": sha256(text)}
            rows.append(STAGE | {"stage": "import-cap3d/test", "model": "Cap3D"} | row | dropped)
    put(corpus, CAPTIONS, rows[::-1])  # not in their order
    texts = [row["text"] for row in rows if row["text"] != "first 4"]
    vectors = rng.normal(size=(len(texts), DIM))
    put(corpus, text_embeddings(TEACHER, DIM), [
        STAGE | {"text_sha256": sha256(text), "text": text, "embedding": unit(vector)}
        for text, vector in zip(texts, vectors, strict=True)
    ])  # fmt: skip
    put(corpus, SPLITS, [STAGE | {"object_id": f"test/{n}", "split": "mine", "label": f"class {n % 3}"} for n in range(14)])
    table = image_embeddings(TEACHER, DIM)
    pictured = corpus.need(table.name).to_table(filter="object_id IN ('test/3', 'test/6', 'test/9')").to_pylist()
    corpus.delete(table, [row["object_id"] for row in pictured])
    put(corpus, table, [row | {"thumbnail": unit(rng.normal(size=DIM))} for row in pictured])
    return corpus


DIM = 16
IDS = [f"test/{number}" for number in (13, 9, 6, 5, 3, 2, 0)]


def put(corpus, table, rows):
    corpus.create(table)
    corpus.append(table, corpus.write(table, to_table(table, rows)))


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def unit(vector):
    return (vector / np.linalg.norm(vector)).astype(np.float16)


def test_the_first_kept_caption_of_an_object_speaks_for_it(told):
    numbers, vectors = captions_of(told, TEACHER, IDS, "cap3d")
    assert [IDS[number] for number in numbers] == ["test/9", "test/6", "test/5", "test/3", "test/2"]
    stored = {row["text"]: row["embedding"] for row in told.need(f"text_embeddings/{TEACHER}").to_table().to_pylist()}
    expected = [stored[text] for text in ("first 9", "first 6", "second 5", "first 3", "first 2")]
    np.testing.assert_array_equal(vectors, np.array(expected, np.float16))


def test_captions_that_are_not_there_are_said(told):
    with pytest.raises(CorpusError, match="has not embedded 1 of 2 captions"):
        captions_of(told, TEACHER, ["test/4", "test/6"], "cap3d")
    with pytest.raises(
        CorpusError, match="none of these 2 objects has a caption of origin 'cap3d'; its captions are of: cap3d, meta"
    ):
        captions_of(told, TEACHER, ["test/12", "test/13"], "cap3d")


def test_thumbnails_are_of_their_objects(told):
    numbers, vectors = thumbnails_of(told, TEACHER, IDS)
    assert [IDS[number] for number in numbers] == ["test/9", "test/6", "test/3"]
    stored = told.need(f"image_embeddings/{TEACHER}").to_table(columns=["object_id", "thumbnail"]).to_pylist()
    thumbnails = {row["object_id"]: row["thumbnail"] for row in stored}
    np.testing.assert_array_equal(vectors, np.array([thumbnails[id] for id in ("test/9", "test/6", "test/3")], np.float16))
    with pytest.raises(CorpusError, match="no thumbnail of these 1 objects"):
        thumbnails_of(told, TEACHER, ["test/2"])


# The job


def evaluated(capsys, told, tmp_path, *arguments):
    out = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
    more = ["--teacher", TEACHER, "--out", str(out), "--json"]
    code = main(["evaluate", "retrieval", f"mine={told.root}", *more, *arguments])
    said = json.loads(capsys.readouterr().out)
    return (said, code) if code else [from_json(one) for one in said["results"]]


def test_every_way_is_what_the_stored_embeddings_give(capsys, told, tmp_path):
    put(
        told,
        text_embeddings(TEACHER, DIM),
        [STAGE | {"text_sha256": sha256("first 4"), "text": "first 4", "embedding": np.eye(DIM)[0]}],
    )
    found = {one.settings["way"]: one for one in evaluated(capsys, told, tmp_path, "--views", "3", "--seeds", "2")}
    benchmark = open_benchmark(f"mine={told.root}")
    ids, labels = benchmark.ids, torch.from_numpy(benchmark.labels)
    assert labels.tolist() == [int(id.removeprefix("test/")) % 3 for id in ids]
    rows = {row["object_id"]: row for row in told.need(f"image_embeddings/{TEACHER}").to_table().to_pylist()}
    raw = [np.array(rows[id]["embedding"], np.float32) * np.array(rows[id]["lengths"], np.float32)[:, None] for id in ids]
    shapes = torch.from_numpy(np.stack([vectors.mean(axis=0) for vectors in raw]))
    numbers, captions = captions_of(told, TEACHER, ids, "cap3d")
    expected = both_ways(shapes[numbers], torch.from_numpy(captions.astype(np.float32)), labels[numbers])
    assert set(found) == {"text to 3d", "3d to text", "image to 3d", "3d to 3d"}
    for way in ("text to 3d", "3d to text"):
        one = found[way]
        assert (one.task, one.benchmark, one.objects, one.missing, one.classes) == ("retrieval", "mine", 8, 6, 3)
        for what in ("instance", "category"):
            figures = [one.figures[f"{what} top-{k}"].values for k in (1, 3, 5)]
            assert figures == [(share,) for share in getattr(expected[way], what)]
    category = tuple(found["3d to 3d"].figures[f"category top-{k}"].mean for k in (1, 3, 5))
    assert category == alike(shapes, labels) and set(found["3d to 3d"].figures) == {f"category top-{k}" for k in (1, 3, 5)}
    assert found["3d to 3d"].objects == found["image to 3d"].objects == 14
    for seed in range(2):
        views = averages(benchmark, TEACHER, views=1, seed=seed)
        one = retrieval(torch.from_numpy(views.vectors), shapes, labels)
        assert found["image to 3d"].figures["instance top-1"].values[seed] == one.instance[0]
    assert "one of those that its shape was made of" in found["image to 3d"].settings["query"]
    [pictured] = evaluated(capsys, told, tmp_path, "--views", "3", "--ways", "image-to-3d", "--image", "thumbnail")
    assert pictured.objects == 3 and pictured.settings["seeds"] == 1


def test_each_seed_draws_other_views_as_queries(told, tmp_path):
    benchmark = open_benchmark(f"mine={told.root}")
    trial = Trial(
        method=Method(name="m", encoder=None, teacher=TEACHER), benchmark=benchmark, opened=benchmark, trained=None, leaks=None
    )
    drawn = _others(Job(benchmarks=("mine",), out=tmp_path), trial, "image-to-3d")
    for seed in range(2):
        np.testing.assert_array_equal(drawn(seed)[1], averages(benchmark, TEACHER, views=1, seed=seed).vectors)
    assert (drawn(0)[1] != drawn(1)[1]).any()


def test_what_cannot_be_looked_up_is_said(capsys, told, tmp_path):
    said, code = evaluated(capsys, told, tmp_path)
    assert code == 1 and "has not embedded 1 of 8 captions" in said["error"]
    said, code = evaluated(capsys, told, tmp_path, "--captions", "captioner", "--ways", "text-to-3d")
    assert code == 1 and "no" in said["error"] and "of origin 'captioner'" in said["error"]
    said, code = evaluated(capsys, told, tmp_path, "--seeds", "0")
    assert code == 2
    assert not list(tmp_path.glob("out*"))
