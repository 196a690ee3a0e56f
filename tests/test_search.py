"""Galleries: one vector per object, kept or made on the way, with an index or without."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch

from evaluate import gallery as module
from evaluate.gallery import Encoded, Gallery, Hit, MeanOfViews, index, mean_of_views, nearest
from evaluate.retrieval import cosines
from pipeline.run import run
from pipeline.stage import Single
from pipeline.status import status
from pipeline.store import Corpus
from schemas.check import to_table
from schemas.corpus import CorpusError
from schemas.tables import POINTS, image_embeddings, shape_embeddings
from separable import STAGE, TEACHER, separable
from trainer.card import PointInput, ViewInput
from trainer.checkpoints import built, save
from trainer.encode import Encoder

from test_checkpoints import CARDS  # isort: skip

DIM = 16


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> str:
    """A corpus of 20 objects that nobody changes."""
    return separable(tmp_path_factory.mktemp("small") / "corpus", objects=20).root


def of_teacher(corpus: Corpus | str) -> Gallery:
    return Gallery(MeanOfViews(root=getattr(corpus, "root", corpus), teacher=TEACHER, dim=DIM))


def bring_up_to_date(gallery: Gallery):
    with gallery.corpus.lock():
        [summary] = run(gallery.corpus, Single(gallery.source))
    return summary


def of_all(gallery: Gallery) -> dict[str, np.ndarray]:
    return {id: vector for ids, vectors in gallery.vectors() for id, vector in zip(ids, vectors, strict=True)}


def checkpoint(folder, kind: str, seed: int) -> str:
    torch.manual_seed(seed)
    input = PointInput(points=500) if kind == "pointbert" else ViewInput(size=32)
    card = dataclasses.replace(CARDS[kind], input=input)
    save(folder, built(card), card)
    return str(folder)


def filled(corpus: Corpus, vectors: np.ndarray, first: int = 0) -> None:
    """Put vectors into the kept gallery of the teacher as if the stage had made them."""
    table = shape_embeddings(TEACHER, vectors.shape[1])
    ids = [f"test/{first + number}" for number in range(len(vectors))]
    rows = [STAGE | {"object_id": id, "embedding": vector} for id, vector in zip(ids, vectors.astype(np.float16), strict=True)]
    corpus.create(table)
    corpus.append(table, corpus.write(table, to_table(table, rows)))


def scattered(rng, count: int) -> np.ndarray:
    """Unit vectors around a few centres."""
    vectors = rng.normal(size=(8, DIM))[rng.integers(8, size=count)] + 0.5 * rng.normal(size=(count, DIM))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# Vectors


def test_the_mean_is_of_what_the_teacher_gave_where_lengths_are_kept(rng):
    counts, unit = [2, 3, 1], rng.normal(size=(6, 4)).astype(np.float16)
    rows = np.split(unit, np.cumsum(counts)[:-1])
    lengths = [[1.0, 9.0], None, [3.0]]
    type = image_embeddings("t", 4).schema.field("embedding").type
    made = mean_of_views(pa.array([list(row) for row in rows], type), pa.array(lengths, pa.list_(pa.float32())))
    for vector, row, length in zip(made, rows, lengths, strict=True):
        mean = (row.astype(float) * (np.array(length)[:, None] if length else 1)).mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)


def test_what_is_kept_is_what_is_made_on_the_way(tmp_path):
    gallery = of_teacher(separable(tmp_path / "corpus", objects=20))
    before = of_all(gallery)
    assert gallery.count() == (0, 20) and not gallery.indexed()
    assert bring_up_to_date(gallery).done == 20 and gallery.count() == (20, 20)
    kept = of_all(gallery)
    assert gallery.corpus.open(gallery.table) is not None and kept.keys() == before.keys() == {f"test/{n}" for n in range(20)}
    for id, vector in kept.items():
        np.testing.assert_array_equal(vector, before[id].astype(np.float16))


def test_only_what_changed_is_made_again(tmp_path):
    corpus = separable(tmp_path / "corpus", objects=20)
    gallery = of_teacher(corpus)
    bring_up_to_date(gallery)
    before = of_all(gallery)
    assert (summary := bring_up_to_date(gallery)).done == 0 and summary.skipped == 20
    table = image_embeddings(TEACHER, DIM)
    corpus.delete(table, ["test/3", "test/4"])
    new = np.eye(DIM, dtype=np.float16)[:1]
    row = STAGE | {"stage_key": "another", "object_id": "test/3", "embedding": list(new), "lengths": [1.0]}
    corpus.append(table, corpus.write(table, to_table(table, [row])))
    separable(corpus.root, objects=2, first=20)
    told = {one.table: one for one in status(corpus) if one.stage == gallery.source.name}
    assert told[gallery.table].todo == 3 and gallery.count() == (20, 21)
    assert bring_up_to_date(gallery).done == 3
    after = of_all(gallery)
    assert after.keys() == before.keys() - {"test/4"} | {"test/20", "test/21"}
    np.testing.assert_array_equal(after["test/3"], new[0])
    np.testing.assert_array_equal(after["test/5"], before["test/5"])


@pytest.mark.parametrize("kind", ["pointbert", "duoduo"])
def test_a_checkpoint_has_a_gallery_of_its_own(tmp_path, kind):
    corpus = separable(tmp_path / "corpus", objects=5)
    place = checkpoint(tmp_path / "one", kind, seed=0)
    gallery = Gallery(Encoded(root=corpus.root, checkpoint=place, device="cpu"))
    batches = Encoder.load(place, device="cpu").corpus(corpus.root)
    made = {id: vector for ids, vectors in batches for id, vector in zip(ids, vectors, strict=True)}
    on_the_way = of_all(gallery)
    assert bring_up_to_date(gallery).done == 5
    for id, vector in of_all(gallery).items():
        np.testing.assert_allclose(on_the_way[id], made[id], atol=1e-6)
        np.testing.assert_allclose(vector, made[id], atol=1e-3)
    other = Gallery(Encoded(root=corpus.root, checkpoint=checkpoint(tmp_path / "two", kind, seed=1), device="cpu"))
    assert other.table != gallery.table and other.count() == (0, 5)
    recipe = "openshape" if kind == "pointbert" else "duoduo"
    assert gallery.table == f"shape_embeddings/{recipe}-{gallery.source.weights[:12]}"
    again = Gallery(Encoded(root=corpus.root, checkpoint=checkpoint(tmp_path / "three", kind, seed=0), device="cpu"))
    assert again.table == gallery.table and bring_up_to_date(again).done == 0  # the same weights from another place


def test_points_that_changed_are_encoded_again(tmp_path):
    corpus = separable(tmp_path / "corpus", objects=4)
    gallery = Gallery(Encoded(root=corpus.root, checkpoint=checkpoint(tmp_path / "one", "pointbert", 0), device="cpu"))
    bring_up_to_date(gallery)
    rows = corpus.need("points").to_table(filter="object_id = 'test/2'").to_pylist()
    corpus.delete(POINTS, ["test/2"])
    corpus.append(POINTS, corpus.write(POINTS, to_table(POINTS, [rows[0] | {"stage_key": "another"}])))
    summary = bring_up_to_date(gallery)
    assert (summary.done, summary.skipped) == (1, 3)


def test_an_object_that_is_not_there_is_said(small):
    with pytest.raises(CorpusError, match="has no object 'test/99'"):
        of_teacher(small).vector("test/99")
    np.testing.assert_array_equal(of_teacher(small).vector("test/7"), of_all(of_teacher(small))["test/7"])


# Looking up


@pytest.mark.parametrize("apart", [1.0, 1e-4])  # of the latter float32 cannot tell the cosines apart
@pytest.mark.parametrize("size", [1, 7, 100])
def test_the_nearest_are_those_of_a_full_sort_in_batches_of_any_size(rng, size, apart):
    vectors = 1 - apart + apart * np.round(scattered(rng, 60), 1)[rng.integers(60, size=100)]  # every vector several times
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    query = np.round(5 * rng.normal(size=DIM)).astype(np.float32)
    ids = [f"o{number}" for number in range(100)]
    batches = [(ids[at : at + size], vectors[at : at + size]) for at in range(0, 100, size)]
    scores = cosines(torch.from_numpy(query[None]), torch.from_numpy(vectors))[0].numpy()
    order = np.argsort(-scores, kind="stable")
    found = nearest(iter(batches), query, 9)
    assert [hit.object_id for hit in found] == [ids[row] for row in order[:9]]
    np.testing.assert_allclose([hit.score for hit in found], scores[order[:9]], atol=1e-6)
    among, without = {ids[row] for row in order[5:50]}, {ids[order[7]]}
    left = [ids[row] for row in order[5:50] if ids[row] not in without]
    assert [hit.object_id for hit in nearest(iter(batches), query, 9, among=among, without=without)] == left[:9]
    assert len(nearest(iter(batches), query, 1000)) == 100


def test_a_kept_gallery_and_one_made_on_the_way_find_the_same(tmp_path, rng):
    gallery = of_teacher(separable(tmp_path / "corpus", objects=30))
    query = rng.normal(size=DIM).astype(np.float32)
    seen = []
    before = gallery.nearest(query, 5, watch=seen.append)
    assert seen == [30]
    bring_up_to_date(gallery)
    after = gallery.nearest(query, 5)
    assert [hit.object_id for hit in before] == [hit.object_id for hit in after]
    np.testing.assert_allclose([hit.score for hit in before], [hit.score for hit in after], atol=1e-3)


# The index


@pytest.fixture
def large(tmp_path, rng, monkeypatch) -> Gallery:
    """A kept gallery of 3,000 vectors, large enough for an index."""
    corpus = separable(tmp_path / "corpus", objects=2)
    filled(corpus, scattered(rng, 3000))
    monkeypatch.setattr(module, "INDEX_FROM", 3000)
    return of_teacher(corpus)


def agreement(gallery: Gallery, queries: np.ndarray) -> float:
    """Share of the ten nearest that the index finds."""
    pairs = [(gallery.nearest(query, 10), gallery.nearest(query, 10, exact=True)) for query in queries]
    return float(np.mean([len({h.object_id for h in one} & {h.object_id for h in other}) / 10 for one, other in pairs]))


def test_the_index_finds_what_looking_at_all_finds(large, rng):
    queries = scattered(rng, 20).astype(np.float32)
    assert not large.indexed() and index(large) == "IVF_FLAT index of 3,000 objects made" and large.indexed()
    assert agreement(large, queries) == 1
    for fast, slow in zip(large.nearest(queries[0], 10), large.nearest(queries[0], 10, exact=True), strict=True):
        assert fast.score == pytest.approx(slow.score, abs=1e-3)


def test_the_index_is_what_answers_unless_all_are_to_be_looked_at(large, rng):
    index(large)
    query, seen = scattered(rng, 1)[0].astype(np.float32), []
    large.nearest(query, 3, watch=seen.append)
    assert seen == []
    large.nearest(query, 3, exact=True, watch=seen.append)
    assert seen[-1] == 3000


def test_new_objects_are_found_before_and_after_they_are_put_into_the_index(large, rng):
    index(large)
    assert index(large) == "the index is up to date: 3,000 objects"
    new = scattered(rng, 100)
    filled(large.corpus, new, first=3000)
    for _ in range(2):
        assert large.nearest(new[42].astype(np.float32), 1)[0].object_id == "test/3042"
        said = index(large)
    assert said == "the index is up to date: 3,100 objects"
    assert agreement(large, scattered(rng, 20).astype(np.float32)) == 1


def test_what_is_done_to_the_index_goes_by_how_much_is_new(large, rng, monkeypatch):
    index(large)
    filled(large.corpus, scattered(rng, 100), first=3000)
    assert index(large) == "100 new objects put into the index"
    filled(large.corpus, scattered(rng, 2000), first=3100)
    assert index(large) == "IVF_FLAT index of 5,100 objects made"


def test_what_was_removed_is_not_found(large, rng):
    index(large)
    query = scattered(rng, 1)[0].astype(np.float32)
    first, second = large.nearest(query, 2)
    large.corpus.delete(shape_embeddings(TEACHER, DIM), [first.object_id])
    assert large.nearest(query, 1)[0].object_id == second.object_id


def test_a_few_objects_get_no_index(tmp_path, rng):
    corpus = separable(tmp_path / "corpus", objects=2)
    filled(corpus, scattered(rng, 300))
    assert "no index" in index(of_teacher(corpus)) and not of_teacher(corpus).indexed()


def test_the_query_itself_is_left_out_and_as_many_are_found(large):
    index(large)
    query = large.vector("test/5")
    found = large.nearest(query, 4, without=["test/5"])
    assert len(found) == 4 and Hit("test/5", 1.0).object_id not in {hit.object_id for hit in found}
    assert large.nearest(query, 1)[0] == Hit("test/5", pytest.approx(1, abs=1e-3))
