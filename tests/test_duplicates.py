"""Duplicates by shape: found however they are turned, mirrored, scaled and sampled; others not; and clusters within a corpus."""

import numpy as np
import pytest
import trimesh

from evaluate import duplicates as found_by
from evaluate.benchmark import Benchmark, Cloud
from evaluate.duplicates import (
    SAME,
    Clouds,
    Duplicates,
    alike,
    candidates,
    descriptor,
    descriptors,
    distance,
    duplicates,
    near_duplicates,
    of_benchmark,
    of_corpus,
)
from pipeline.stage import ObjectError
from pipeline.store import Corpus
from schemas.check import to_table
from schemas.tables import OBJECTS, POINTS, POINTS_PER_OBJECT
from shout import object_row

MIRROR = np.diag([-1.0, 1.0, 1.0])


def shapes() -> list[trimesh.Trimesh]:
    """Eight solids that nobody takes for one another."""
    box, cylinder = trimesh.creation.box, trimesh.creation.cylinder
    table = [box((2, 0.1, 1), trimesh.transformations.translation_matrix((0, 1, 0)))]
    table += [box((0.1, 1, 0.1), trimesh.transformations.translation_matrix((x, 0.5, z))) for x in (-0.9, 0.9) for z in (-0.4, 0.4)]
    arm = box((1, 0.2, 0.2), trimesh.transformations.translation_matrix((0.5, 0.8, 0)))
    foot = box((0.3, 0.2, 0.9), trimesh.transformations.translation_matrix((0.1, -0.6, 0.4)))
    return [
        trimesh.util.concatenate(table),
        trimesh.util.concatenate([box((0.2, 2, 0.2)), arm, foot]),  # no mirror image of itself
        trimesh.creation.torus(1, 0.2),
        trimesh.creation.cone(0.5, 2),
        box((1, 2, 3)),
        trimesh.creation.icosphere(3),
        cylinder(0.2, 3),
        trimesh.util.concatenate([cylinder(0.1, 3), trimesh.creation.icosphere(3)]),
    ]


def sampled(mesh: trimesh.Trimesh, count: int, rng: np.random.Generator) -> np.ndarray:
    return trimesh.sample.sample_surface(mesh, count, seed=rng)[0]


def any_turn(rng: np.random.Generator) -> np.ndarray:
    """Of determinant 1 or -1."""
    return np.linalg.qr(rng.normal(size=(3, 3)))[0]


def clouds(arrays: list) -> Clouds:
    return Clouds([f"test/{number}" for number in range(len(arrays))], lambda numbers: [arrays[number] for number in numbers])


def corpus_of(root, arrays: list[np.ndarray], **columns) -> Corpus:
    """OBJECTS and POINTS of clouds of POINTS_PER_OBJECT points; `columns`: further ones of OBJECTS, by number."""
    corpus = Corpus.at(str(root))
    objects = [object_row(n, **{name: values[n] for name, values in columns.items()}) for n in range(len(arrays))]
    points = [
        {"object_id": f"test/{n}", "stage": "s", "stage_key": "k", "xyz": xyz.reshape(-1).astype(np.float16),
         "canonical_from_asset": np.eye(4).reshape(-1), "vertices": 1, "faces": 0, "warnings": []}
        for n, xyz in enumerate(arrays)
    ]  # fmt: skip
    for table, rows in ((OBJECTS, objects), (POINTS, points)):
        corpus.create(table)
        corpus.append(table, corpus.write(table, to_table(table, rows)))
    return corpus


def test_a_descriptor_does_not_know_how_a_cloud_is_turned_mirrored_scaled_and_moved(rng):
    xyz = sampled(shapes()[1], 500, rng)
    same = descriptor(7 * xyz @ any_turn(rng).T + 3)
    np.testing.assert_allclose(same, descriptor(xyz), atol=1e-4)
    assert np.abs(descriptor(xyz * [1, 1, 1.2]) - descriptor(xyz)).max() > 0.02


@pytest.mark.parametrize("turn", ["as it is", "mirror", "axes", "about the vertical", "anyhow"])
def test_two_samples_of_a_shape_are_one_apart_however_it_is_turned_and_those_of_different_shapes_are_not(turn, rng):
    angle = np.radians(40)
    about_y = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    by = {
        "as it is": np.eye(3),
        "mirror": MIRROR,
        "axes": np.eye(3)[[2, 0, 1]],
        "about the vertical": about_y,
        "anyhow": any_turn(np.random.default_rng(3)),  # far from every turn that is tried but for those of the clouds' own axes
    }
    solids = shapes()[:3]
    first = [sampled(solid, 2048, rng).astype(np.float32) for solid in solids]
    second = [(3 * sampled(solid, 2048, rng) @ by[turn].T + 5).astype(np.float32) for solid in solids]
    far = np.array([[distance(one, other) for other in second] for one in first])
    assert far.diagonal() == pytest.approx(1, abs=0.15)
    assert far[~np.eye(3, dtype=bool)].min() > 1.5


def test_duplicates_are_found_between_collections_sampled_differently_and_nothing_else_is(rng):
    solids = shapes()
    some = [sampled(solids[n], 2048, rng) for n in (1, 4, 7, 2)]
    others = [4 * sampled(solids[n], 10_000, rng) @ any_turn(rng).T + 1 for n in (7, 0, 1, 3, 5)]
    pairs = near_duplicates(clouds(some), clouds(others))
    assert [(i, j) for i, j, _ in pairs] == [(0, 2), (2, 0)]
    assert all(0.8 < apart <= SAME for *_, apart in pairs)


def test_what_cannot_be_read_or_has_too_few_points_is_like_nothing(rng):
    good, flat = sampled(shapes()[1], 2048, rng), np.tile([[1.0, 2.0, 3.0]], (2048, 1))
    bad = [None, flat, good[:20], np.where(np.arange(2048)[:, None] == 7, np.nan, good)]
    rows = descriptors(clouds([good, *bad]))
    assert np.isfinite(rows[0]).all() and np.isnan(rows[1:]).all()
    assert [(i, j) for i, j, _ in near_duplicates(clouds([good, *bad]), clouds([*bad, good[::-1].copy()]))] == [(0, 4)]
    assert near_duplicates(clouds(bad)) == []


def test_points_drawn_with_replacement_are_the_shape_they_are_drawn_from(rng):
    xyz = sampled(shapes()[1], 2048, rng)
    [(i, j, apart)] = near_duplicates(clouds([xyz[rng.integers(0, 2048, 10_000)]]), clouds([sampled(shapes()[1], 10_000, rng)]))
    assert apart == pytest.approx(1, abs=0.15)


def test_candidates_are_the_nearest_within_reach_whatever_the_blocks(rng, monkeypatch):
    some, others = rng.normal(size=(30, 5)).astype(np.float32), rng.normal(size=(200, 5)).astype(np.float32)
    others[17] = np.nan
    far = np.linalg.norm(some[:, None] - others[None], axis=2)
    nearest = np.argsort(np.where(np.isnan(far), np.inf, far), axis=1)[:, :6]
    wanted = {(i, int(j)) for i in range(30) for j in nearest[i] if far[i, j] <= 1.5}
    assert len({i for i, _ in wanted}) > 20 and len(wanted) < 180  # both limits are felt
    for queries, gallery in ((1024, 1 << 16), (7, 11), (30, 6)):
        monkeypatch.setattr(found_by, "QUERIES", queries)
        monkeypatch.setattr(found_by, "GALLERY", gallery)
        assert sorted(candidates(some, others, 6, 1.5)) == sorted(wanted)


def test_objects_that_look_alike_are_candidates(rng):
    views = rng.normal(size=(20, 16)).astype(np.float32)
    others = np.concatenate([3 * views[[4, 9]] + 0.05 * rng.normal(size=(2, 16)), rng.normal(size=(20, 16))]).astype(np.float32)
    views[0] = np.nan
    assert sorted(alike(views, others)) == [(4, 0), (9, 1)]


def test_pairs_that_are_asked_for_are_compared_whatever_their_descriptors_are(rng, monkeypatch):
    monkeypatch.setattr(found_by, "REACH", 0.0)
    one, other = clouds([sampled(shapes()[1], 2048, rng)]), clouds([sampled(shapes()[1], 2048, rng)])
    assert near_duplicates(one, other) == []
    assert [(i, j) for i, j, _ in near_duplicates(one, other, also=[(0, 0)])] == [(0, 0)]


def test_clouds_of_a_benchmark_are_those_that_can_be_read(rng):
    xyz = sampled(shapes()[0], 100, rng)

    def cloud(number):
        if number == 1:
            raise ObjectError("no_points", "it has none")
        return Cloud(xyz, None, "+y")

    benchmark = Benchmark(name="b", variant="v", classes=("a",), ids=("b/0", "b/1"), labels=np.zeros(2, np.int64), cloud=cloud)
    read = of_benchmark(benchmark)
    assert read.read([0])[0] is xyz and read.read([1, 0])[0] is None and read.ids == ("b/0", "b/1")


def test_duplicates_of_a_corpus_by_bytes_and_by_shape(tmp_path, rng):
    solids = [shapes()[n] for n in (1, 2, 1, 0, 1, 3)]
    arrays = [sampled(solid, POINTS_PER_OBJECT, rng) / 4 for solid in solids]
    arrays[2] = arrays[2] @ MIRROR.T[[1, 0, 2]]
    arrays[5] = arrays[3]
    hashes = ["a" * 64, "b" * 64, "c" * 64, "d" * 64, "b" * 64, "d" * 64]
    companions = [None, "x", None, None, "y", None]  # 1 and 4 are one file with other textures
    corpus = corpus_of(tmp_path / "corpus", arrays, asset_sha256=hashes, companions_sha256=companions)
    told = []
    found = duplicates(corpus.root, progress=lambda done, total: told.append((done, total)))
    assert found.exact == (("test/3", "test/5"),)
    assert found.near == (("test/0", "test/2", "test/4"), ("test/3", "test/5"))
    assert (found.objects, found.compared) == (6, 6)
    assert Duplicates.superfluous(found.near) == 3
    assert told[-1][0] == told[-1][1] > 6 and told == sorted(told)
    by_bytes = duplicates(corpus.root, near=False)
    assert (by_bytes.exact, by_bytes.near, by_bytes.compared) == (found.exact, None, None)


def test_a_corpus_without_duplicates_has_none(tmp_path, rng):
    corpus = corpus_of(tmp_path / "corpus", [sampled(solid, POINTS_PER_OBJECT, rng) / 4 for solid in shapes()[:4]])
    found = duplicates(corpus.root)
    assert found.exact == found.near == ()
    assert of_corpus(corpus.root, keep=["test/3", "test/1"]).ids == ["test/1", "test/3"]
