"""Features: what each encoder is fed of a benchmark's objects, what is drawn by chance, and what is left out."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image

from evaluate.benchmark import Benchmark, Cloud
from evaluate.features import MOST_WAITING, averages, features
from pipeline.stage import ObjectError
from schemas.corpus import CorpusError, Reader
from separable import TEACHER, separable
from trainer.card import PointInput
from trainer.checkpoints import built
from trainer.encode import Encoder

from test_checkpoints import CARDS  # isort: skip
from test_encode import Seen, seeing, watching  # isort: skip

CPU = torch.device("cpu")


def of_clouds(clouds, **fields) -> Benchmark:
    """A benchmark of clouds; one that is an error is raised when it is read."""

    def cloud(number):
        if isinstance(clouds[number], ObjectError):
            raise clouds[number]
        return clouds[number]

    ids = tuple(f"made/{number}" for number in range(len(clouds)))
    labels = np.zeros(len(clouds), np.int64)
    return Benchmark(name="made", variant="", classes=("thing",), ids=ids, labels=labels, cloud=cloud, **fields)


def of_corpus(root, ids) -> Benchmark:
    return Benchmark(
        name="made", variant="", classes=("thing",), ids=tuple(ids), labels=np.zeros(len(ids), np.int64), corpus=str(root)
    )


def a_cloud(rng, count, *, colored=True, up="+y") -> Cloud:
    return Cloud(rng.normal(size=(count, 3)), rng.integers(0, 256, (count, 3), dtype=np.uint8) if colored else None, up)


def seen_by(kind, cloud, *, points, seed=0):
    """What is made of one cloud by an encoder of this kind, and the points it is fed, as they come."""
    card = dataclasses.replace(CARDS[kind], input=PointInput(points=points, normalisation="none"))
    made = features(Encoder(Seen(), card, CPU), of_clouds([cloud]), seed=seed)
    fed = made.vectors[0, : made.vectors.shape[1] // 2].reshape(-1, 3)
    return made, fed


def order_of(fed, cloud):
    """Which of the cloud's points these are; they have been scaled together."""
    inner = fed / np.linalg.norm(fed, axis=1, keepdims=True)
    own = cloud.xyz / np.linalg.norm(cloud.xyz, axis=1, keepdims=True)
    cosine = inner @ own.T
    assert (cosine.max(axis=1) > 1 - 1e-6).all()
    return cosine.argmax(axis=1)


@pytest.fixture(scope="module")
def small():
    """A small random Uni3D of 300 points."""
    torch.manual_seed(0)
    card = dataclasses.replace(CARDS["uni3d"], input=PointInput(points=300))
    return Encoder(built(card).eval(), card, CPU)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Twelve objects with three views each; the tables are read, never changed."""
    return separable(tmp_path_factory.mktemp("corpus"), objects=12, views=3).root


IDS = tuple(f"test/{number}" for number in range(6))


# ---------------------------------------------------------------------------------------------------------------- clouds


def test_clouds_of_any_size_colour_and_frame_are_embedded_as_each_alone(small, rng):
    kinds = [(90, True, "+y"), (120, True, "+y"), (90, False, "+y"), (500, True, "+z"), (90, True, "+z"), (400, True, "+y")]
    clouds = [a_cloud(rng, count, colored=colored, up=up) for _ in range(5) for count, colored, up in kinds]
    for batch in (1, 3, 32):
        made = features(small, of_clouds(clouds), batch=batch, seed=7)
        numbers, vectors = made.numbers, made.vectors
        assert numbers.tolist() == list(range(30)) and vectors.dtype == np.float32
        for cloud, vector in zip(clouds, vectors, strict=True):
            alone = small.points(cloud.xyz, cloud.rgb, up=cloud.up, seed=7)[0]
            np.testing.assert_allclose(vector, alone, atol=1e-5)


def test_clouds_of_sizes_that_no_two_share_do_not_pile_up(rng):
    alive, most = 0, 0

    class Counted(Cloud):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def cloud(number):
        nonlocal alive, most
        alive, most = alive + 1, max(most, alive + 1)
        return Counted(np.full((number + 1, 3), 1.0), None, "+y")

    count = 2 * MOST_WAITING
    ids = tuple(map(str, range(count)))
    benchmark = Benchmark(name="made", variant="", classes=("a",), ids=ids, labels=np.zeros(count, np.int64), cloud=cloud)
    shape_of = Encoder(Sized(), dataclasses.replace(CARDS["uni3d"], input=PointInput(points=None)), CPU)
    made = features(shape_of, benchmark)
    assert made.numbers.tolist() == list(range(count)) and MOST_WAITING <= most <= MOST_WAITING + 1
    np.testing.assert_allclose(made.vectors[:, 1] / made.vectors[:, 0], np.arange(1, count + 1), rtol=1e-5)


class Sized(torch.nn.Module):
    """An encoder whose embedding tells how many points it was fed."""

    def forward(self, xyz, rgb):
        return torch.tensor([1.0, xyz.shape[1]]).expand(len(xyz), 2)


def test_what_cannot_be_read_or_embedded_is_left_out_and_named(small, rng):
    clouds = [a_cloud(rng, 90) for _ in range(6)]
    expected = features(small, of_clouds(clouds)).vectors
    broken = list(clouds)
    broken[1] = ObjectError("unreadable", "the file is cut off")
    broken[3] = Cloud(np.where(np.arange(90)[:, None] == 7, np.nan, clouds[3].xyz), clouds[3].rgb, "+y")
    broken[4] = a_cloud(rng, 3)
    seen = []
    made = features(small, of_clouds(broken), progress=lambda done, failed: seen.append((done, failed)))
    assert made.numbers.tolist() == [0, 2, 5] and seen[-1] == (3, 3)
    np.testing.assert_allclose(made.vectors, expected[[0, 2, 5]], atol=1e-5)
    assert made.failed.keys() == {"made/1", "made/3", "made/4"}
    assert made.failed["made/1"] == "unreadable: the file is cut off"
    assert "1 points have infinite or NaN" in made.failed["made/3"] and "of clouds of 3 points" in made.failed["made/4"]


def test_nothing_but_failures_is_no_error(small):
    made = features(small, of_clouds([ObjectError("unreadable", "no")] * 2))
    assert len(made.numbers) == len(made.vectors) == 0 and len(made.failed) == 2


def test_uni3d_is_fed_the_points_as_they_are_and_of_more_some_by_chance(rng):
    cloud = a_cloud(rng, 60, colored=False)
    for points in (60, 100, None):
        made, fed = seen_by("uni3d", cloud, points=points)
        assert order_of(fed, cloud).tolist() == list(range(60)) and not made.by_chance
    orders = []
    for seed in (0, 1):
        made, fed = seen_by("uni3d", cloud, points=25, seed=seed)
        orders.append(order_of(fed, cloud).tolist())
        assert made.by_chance and len(set(orders[-1])) == 25 and orders[-1] == sorted(orders[-1])
    assert orders[0] != orders[1]


def test_openshape_is_fed_points_in_an_order_drawn_by_chance_and_fewer_with_replacement(rng):
    cloud = a_cloud(rng, 60, colored=False)
    for points, fed_count, distinct in ((60, 60, 60), (25, 25, 25), (None, 60, 60), (500, 500, 60)):
        orders = []
        for seed in (0, 0, 1):
            made, fed = seen_by("pointbert", cloud, points=points, seed=seed)
            order = order_of(fed, cloud).tolist()
            assert made.by_chance and len(order) == fed_count and len(set(order)) == distinct and order != sorted(order)
            orders.append(order)
        assert orders[0] == orders[1] != orders[2]
    counts = np.bincount(orders[2], minlength=60)
    assert counts.sum() == 500 and 1 < counts.std() < 5  # 8.3 each, give or take 2.9


def test_colours_go_with_their_points(rng):
    cloud = Cloud(rng.normal(size=(40, 3)), np.arange(120, dtype=np.uint8).reshape(40, 3), "+y")
    card = dataclasses.replace(CARDS["pointbert"], input=PointInput(points=30, normalisation="none"))
    fed = features(Encoder(Seen(), card, CPU), of_clouds([cloud])).vectors[0]
    places, colors = np.split(fed, 2)
    number = order_of(places.reshape(-1, 3), cloud)
    scale = np.linalg.norm(places) / np.linalg.norm(cloud.xyz[number])
    np.testing.assert_allclose(colors.reshape(-1, 3), scale * cloud.rgb[number] / 255, atol=1e-6)


def test_files_of_points_are_nothing_for_an_encoder_of_views(rng):
    with pytest.raises(ValueError, match="its files hold points, and this encoder .duoduo. reads views: .* made=ROOT"):
        features(watching(size=32), of_clouds([a_cloud(rng, 9)]))
    with pytest.raises(ValueError, match="its files hold points: embeddings of views are averaged where a corpus has them"):
        averages(of_clouds([a_cloud(rng, 9)]), TEACHER)


# ---------------------------------------------------------------------------------------------------------------- corpora


def test_a_corpus_gives_the_objects_in_the_benchmarks_order_and_names_those_it_lacks(corpus):
    ids = ("test/10", "other/1", "test/0", "test/3", "test/2")
    made = features(seeing(points=50), of_corpus(corpus, ids))
    assert made.numbers.tolist() == [0, 2, 3, 4] and not made.by_chance
    assert made.failed == {"other/1": f"{corpus} has no points of it"}
    every = dict(pair for some, vectors in seeing(points=50).corpus(corpus) for pair in zip(some, vectors, strict=True))
    np.testing.assert_array_equal(made.vectors, [every[id] for id in ("test/10", "test/0", "test/3", "test/2")])


def test_openshape_draws_stored_points_by_seed(corpus):
    card = dataclasses.replace(CARDS["pointbert"], input=PointInput(points=50))
    encoder = Encoder(Seen(), card, CPU)
    first, again, other = (
        features(encoder, of_corpus(corpus, IDS), seed=seed, batch=batch) for seed, batch in ((1, 2), (1, 6), (2, 6))
    )
    assert first.by_chance
    np.testing.assert_array_equal(first.vectors, again.vectors)
    assert np.abs(first.vectors - other.vectors).max() > 0.01


def test_so_many_views_are_drawn_for_each_object_by_its_seed(corpus):
    encoder, benchmark = watching(size=32), of_corpus(corpus, IDS)
    pictures = {}
    for row in Reader.at(corpus).need("views").to_table(columns=["object_id", "view", "image"]).to_pylist():
        pictures[row["object_id"], row["view"]] = Image.open(io.BytesIO(row["image"]))
    drawn = []
    for seed in range(4):
        made = features(encoder, benchmark, views=2, seed=seed, batch=4)
        assert made.by_chance and made.numbers.tolist() == list(range(6)) and not made.failed
        np.testing.assert_array_equal(made.vectors, features(encoder, benchmark, views=2, seed=seed, batch=1).vectors)
        for id, vector in zip(IDS, made.vectors, strict=True):
            pairs = [(0, 1), (0, 2), (1, 2)]
            alone = [encoder.pictures([pictures[id, view] for view in pair])[0] for pair in pairs]
            drawn.append([np.array_equal(vector, one) for one in alone].index(True))
    assert set(drawn) == {0, 1, 2}  # of 24 draws
    assert len({tuple(drawn[first : first + 6]) for first in range(0, 24, 6)}) > 1  # seeds differ
    assert len(set(drawn[:6])) > 1  # and so do objects


def test_all_views_are_not_drawn_and_too_few_are_named(corpus):
    encoder, benchmark = watching(size=32), of_corpus(corpus, IDS)
    for views in (3, None):
        made = features(encoder, benchmark, views=views, seed=views or 0)
        assert not made.by_chance and len(made.numbers) == 6
    made = features(encoder, benchmark, views=4)
    assert not len(made.numbers) and set(made.failed.values()) == {"it has 3 of the 4 views that were asked for"}
    made = averages(benchmark, TEACHER, views=4)
    assert not len(made.numbers) and set(made.failed.values()) == {"it has 3 of the 4 views that were asked for"}


# ---------------------------------------------------------------------------------------------------------------- means of views


def stored(corpus):
    rows = Reader.at(corpus).need(f"image_embeddings/{TEACHER}").to_table(columns=["object_id", "embedding", "lengths"]).to_pylist()
    return {row["object_id"]: (np.array(row["embedding"], np.float32), np.array(row["lengths"], np.float32)) for row in rows}


def test_the_mean_of_the_views_is_that_of_the_teachers_own_vectors(corpus):
    ids = ("test/5", "other/1", "test/2")
    made = averages(of_corpus(corpus, ids), TEACHER)
    assert made.numbers.tolist() == [0, 2] and not made.by_chance
    assert made.failed == {"other/1": f"{corpus} has no embeddings of its views by {TEACHER}"}
    for id, vector in zip(("test/5", "test/2"), made.vectors, strict=True):
        views, lengths = stored(corpus)[id]
        mean = (views * lengths[:, None]).mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)
        unit = views.mean(axis=0) / np.linalg.norm(views.mean(axis=0))
        assert np.abs(vector - unit).max() > 1e-3  # the lengths do count


def test_views_of_the_mean_are_those_that_an_encoder_would_see(corpus):
    made = averages(of_corpus(corpus, IDS), TEACHER, views=1, seed=3)
    assert made.by_chance
    seen = features(watching(size=32), of_corpus(corpus, IDS), views=1, seed=3).vectors
    for number, id in enumerate(IDS):
        cosine = stored(corpus)[id][0] @ made.vectors[number]
        view = int(cosine.argmax())
        assert cosine[view] == pytest.approx(1, abs=1e-3)
        row = (
            Reader.at(corpus)
            .need("views")
            .to_table(columns=["image"], filter=f"object_id = '{id}' AND view = {view}")
            .to_pylist()[0]
        )
        np.testing.assert_array_equal(seen[number], watching(size=32).pictures([Image.open(io.BytesIO(row["image"]))])[0])


def test_without_lengths_the_mean_is_of_unit_vectors(tmp_path):
    corpus = separable(tmp_path / "corpus", objects=4)
    table = corpus.need(f"image_embeddings/{TEACHER}")
    table.update({"lengths": "NULL"}, where="object_id = 'test/3'")
    made = averages(of_corpus(corpus.root, IDS[:4]), TEACHER)
    numbers, vectors = made.numbers, made.vectors
    assert numbers.tolist() == [0, 1, 2, 3]
    for row in corpus.need(f"image_embeddings/{TEACHER}").to_table(columns=["object_id", "embedding"]).to_pylist():
        mean = np.array(row["embedding"], np.float32).mean(axis=0)
        np.testing.assert_allclose(vectors[IDS.index(row["object_id"])], mean / np.linalg.norm(mean), atol=1e-6)


def test_a_corpus_without_such_embeddings_is_told(corpus):
    with pytest.raises(CorpusError, match="no table 'image_embeddings/ViT-L-14:openai'"):
        averages(of_corpus(corpus, IDS), "ViT-L-14:openai")
