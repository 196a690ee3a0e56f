"""The loader: batches are what the tables say, for any number of ranks, after any interruption, and drawn by the rules."""

import hashlib
import io
import math
import pickle
import subprocess
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from pipeline.store import Corpus
from schemas.check import to_table
from schemas.corpus import CorpusError
from schemas.tables import CAPTIONS, POINTS, POINTS_PER_OBJECT, VIEWS, image_embeddings, text_embeddings
from trainer.data import Draws, Loader, picture

TEACHER = "made:up"
DIM = 192
STAGE = {"stage": "s", "stage_key": "k"}
PLAIN = Draws(text="any", image="one-view", points=False)


def unit(rng, *shape):
    values = rng.normal(size=(*shape, DIM))
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float16)


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def put(corpus, table, rows):
    corpus.create(table)
    for start in range(0, len(rows), 13):  # several fragments
        corpus.append(table, corpus.write(table, to_table(table, rows[start : start + 13])))


class Made:
    """A small corpus, and all that is in it by object: the other way to everything that is asserted.

    Half of the objects are Objaverse's. Of each: points (but of one), colours (but of every fourth), 2 to 5 views and as many image
    embeddings, thumbnails (but of every third), texts by a pattern that has every set of groups; some captions are not kept, and
    some have no embedding.
    """

    def __init__(self, root, objects=33, *, seed=0, points=True, pictures=False, order=None, views=None):
        rng = np.random.default_rng(seed)
        self.corpus = Corpus.at(str(root))
        self.ids = [f"{'objaverse' if i % 2 else 'shapenet'}/{i:03}" for i in range(objects)]
        self.about = {}
        texts = {}
        for i, id in enumerate(self.ids):
            count = views or 2 + i % 4
            captions = self._captions(i)
            for row in captions:
                row["object_id"] = id
                made = {"embedding": unit(rng), "prompt_averaged": None if rng.random() < 0.3 else unit(rng)}
                if row["model"] != "nobody":
                    texts.setdefault(row["text"], made)
            self.about[id] = {
                "xyz": rng.normal(size=(POINTS_PER_OBJECT, 3)).astype(np.float16) if points else None,
                "rgb": rng.integers(0, 256, (POINTS_PER_OBJECT, 3), dtype=np.uint8) if points and i % 4 else None,
                "embedding": unit(rng, count),
                "lengths": rng.uniform(0.5, 20, count).astype(np.float32) if i % 3 else None,
                "thumbnail": unit(rng) if i % 3 else None,
                "captions": captions,
                "pictures": [rng.integers(0, 256, (16, 16, 4), dtype=np.uint8) for _ in range(count)] if pictures else None,
            }
        self.texts = texts
        order = order or self.ids
        if points:
            put(self.corpus, POINTS, [self._points(id) for id in order if id != self.ids[5]])
        put(self.corpus, image_embeddings(TEACHER, DIM), [
            STAGE | {"object_id": id} | {name: self.about[id][name] for name in ("lengths", "thumbnail")}
            | {"embedding": list(self.about[id]["embedding"])} for id in reversed(order)
        ])  # fmt: skip
        put(self.corpus, CAPTIONS, [row for id in order for row in self.about[id]["captions"]])
        put(self.corpus, text_embeddings(TEACHER, DIM), [
            STAGE | {"text": text, "text_sha256": sha256(text)} | made for text, made in sorted(texts.items())
        ])  # fmt: skip
        if pictures:
            put(self.corpus, VIEWS, [
                self._view(id, number) for id in order for number in reversed(range(len(self.about[id]["pictures"])))
            ])  # fmt: skip

    @staticmethod
    def _captions(i):
        """Raw texts, BLIP's, others', retrieved: each there or not, by the bits of i; objects 0 and 16 and such have none."""
        said = []
        if i & 1 or i % 8 == 4:
            said += [("cap3d", "Cap3D", "import", n, f"{i} cap3d {n}") for n in range(2)]
            said += [("metadata", "name", stage, n, f"{i} {stage} {n}") for stage in ("z", "b") for n in (3, 1)]
        if i & 2:
            said += [("captioner", "BLIP", "import", 5, f"{i} blip")]
        if i & 4:
            said += [("captioner", "Azure", "import", 6 + n, f"{i} azure {n}") for n in range(2)]
        if i & 8:
            said += [("retrieved", "OpenShape", "import", 9 + n, f"{i} retrieved {n}") for n in range(3)]
        said += [("metadata", "name", "a", 0, f"{i} dropped"), ("metadata", "nobody", "a", 1, f"{i} not embedded")]
        rows = [dict(zip(("origin", "model", "stage", "caption", "text"), one, strict=True)) for one in said]
        for row in rows:
            kept = not row["text"].endswith("dropped")
            row |= {"text_sha256": sha256(row["text"]), "kept": kept, "dropped_because": None if kept else "noise"}
        return [row | {"stage_key": "k"} for row in rows]

    def _points(self, id):
        about = self.about[id]
        row = {"object_id": id, "xyz": about["xyz"].reshape(-1), "rgb": None if about["rgb"] is None else about["rgb"].reshape(-1)}
        return STAGE | row | {"canonical_from_asset": np.eye(4).reshape(-1), "vertices": 3, "faces": 1, "area": 1.0, "warnings": []}

    def _view(self, id, number, size=16):
        file = io.BytesIO()
        Image.fromarray(self.about[id]["pictures"][number]).save(file, "WEBP", lossless=True, exact=True)
        row = {"object_id": id, "view": number, "image": file.getvalue(), "width": size, "height": size, "kind": "rendered"}
        return STAGE | row | {"intrinsics": np.ones(4, np.float32), "camera_to_world": np.eye(4, dtype=np.float32).reshape(-1)}

    def loader(self, draws, batch, **options):
        return Loader(self.corpus.root, TEACHER, draws, batch, **{"workers": 0} | options)

    def raw(self, id):
        """The raw texts, in the order that the rule has: metadata first, then by stage and number."""
        usable = [row for row in self.usable(id) if row["origin"] in ("metadata", "cap3d")]
        return sorted(usable, key=lambda row: (row["origin"] != "metadata", row["stage"], row["caption"]))

    def usable(self, id):
        return [row for row in self.about[id]["captions"] if row["kept"] and row["text"] in self.texts]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Made(tmp_path_factory.mktemp("made") / "corpus")


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """Without points, so that thousands of batches are drawn in seconds; with pictures."""
    return Made(tmp_path_factory.mktemp("light") / "corpus", points=False, pictures=True)


def equal(one, other):
    assert (one.epoch, one.step, one.ids) == (other.epoch, other.step, other.ids)
    for name in ("seeds", "xyz", "rgb", "has_color", "image", "text", "has_image", "has_text", "pictures"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None) and (a is None or (a.dtype == b.dtype and torch.equal(a, b))), name


def joined(batches):
    """Ranks' batches as one."""
    first = batches[0]
    tensors = {
        name: torch.cat([getattr(batch, name) for batch in batches])
        for name in ("seeds", "xyz", "rgb", "has_color", "image", "text", "has_image", "has_text", "pictures")
        if getattr(first, name) is not None
    }
    return type(first)(**{"pictures": None, "xyz": None, "rgb": None, "has_color": None, "epoch": first.epoch, "step": first.step,
                          "ids": [id for batch in batches for id in batch.ids]} | tensors)  # fmt: skip


def drawn(loader, epochs):
    """Of each object, how often which text and which image came, by their bytes; and the batches' ids."""
    texts, images = defaultdict(Counter), defaultdict(Counter)
    for epoch in range(epochs):
        for batch in loader.epoch(epoch):
            for id, text, has, image in zip(batch.ids, batch.text, batch.has_text, batch.image, strict=True):
                texts[id][text.numpy().tobytes() if has else None] += 1
                images[id][image.numpy().tobytes()] += 1
    return texts, images


def as_predicted(found: Counter, chances: dict) -> None:
    """Only what has a chance came, and as often as that within five standard deviations."""
    total = found.total()
    assert set(found) <= set(chances)
    assert sum(chances.values()) == pytest.approx(1)
    for key, chance in chances.items():
        assert abs(found[key] - chance * total) <= 5 * math.sqrt(total * chance * (1 - chance)) + 1e-9, (found[key] / total, chance)


def as_stored(vector) -> bytes:
    return vector.astype(np.float16).tobytes()


# What is in a batch


@pytest.mark.parametrize("mapped", [True, False])
def test_a_batch_is_what_the_tables_say(made, mapped):
    loader = made.loader(Draws(text="openshape", image="openshape"), 8, use_mmap=mapped)
    assert bool(loader.taken) != mapped, loader.taken
    seen = []
    for batch in loader.epoch(0):
        assert batch.xyz.dtype == torch.float16 and batch.rgb.dtype == torch.uint8 and batch.xyz.shape == (8, POINTS_PER_OBJECT, 3)
        for i, id in enumerate(batch.ids):
            about = made.about[id]
            np.testing.assert_array_equal(batch.xyz[i], about["xyz"])
            assert bool(batch.has_color[i]) == (about["rgb"] is not None)
            np.testing.assert_array_equal(batch.rgb[i], 0 if about["rgb"] is None else about["rgb"])
            vectors = [*about["embedding"]] + [about["thumbnail"]] * (about["thumbnail"] is not None)
            assert batch.image[i].numpy().tobytes() in {as_stored(vector) for vector in vectors}
            text = batch.text[i].numpy().tobytes()
            assert (text if batch.has_text[i] else None) in chances_of_texts(made, id, "openshape")
            assert batch.has_text[i] or text == bytes(2 * DIM)
        assert batch.has_image.all() and (batch.image.norm(dim=1) - 1).abs().max() < 2e-3
        seen += batch.ids
    assert len(seen) == len(set(seen)) == 32 and set(seen) <= set(made.ids) - {made.ids[5]}
    assert loader.left_out == {"without points": 1}


@pytest.mark.parametrize(
    "draws", [Draws(), Draws(text="any", image="mean-of-views", views=(1, 4)), Draws(text="duoduo", image="one-view")]
)
def test_mapped_rows_and_taken_rows_give_the_same_batches(made, draws):
    mapped, taken = (made.loader(draws, 16, use_mmap=use) for use in (True, False))
    for one, other in zip(mapped.epoch(3), taken.epoch(3), strict=True):
        equal(one, other)


def test_a_uri_is_read_as_it_is(made):
    local = made.loader(Draws(), 16)
    there = Loader(f"file://{made.corpus.root}", TEACHER, Draws(), 16, workers=2)
    assert set(there.taken) > {"points.xyz", f"text_embeddings/{TEACHER}.embedding"}
    for one, other in zip(local.epoch(0), there.epoch(0), strict=True):
        equal(one, other)


def test_the_first_points_are_a_prefix(made):
    for use in (True, False):
        [batch, *_] = made.loader(Draws(), 8, points=1000, use_mmap=use).epoch(0)
        assert batch.xyz.shape == batch.rgb.shape == (8, 1000, 3)
        for xyz, rgb, id in zip(batch.xyz, batch.rgb, batch.ids, strict=True):
            np.testing.assert_array_equal(xyz, made.about[id]["xyz"][:1000])
            np.testing.assert_array_equal(rgb, 0 if made.about[id]["rgb"] is None else made.about[id]["rgb"][:1000])


def test_nothing_is_read_that_is_not_drawn(light):
    loader = light.loader(Draws(text="none", image="one-view", points=False), 8)
    assert set(loader.versions) == {f"image_embeddings/{TEACHER}"}
    [batch, *_] = loader.epoch(0)
    assert batch.xyz is batch.rgb is batch.has_color is batch.pictures is None
    assert not batch.has_text.any() and not batch.text.any()


def test_only_the_objects_to_keep_are_used(light):
    keep = [*light.ids[3:20], "objaverse/that-is-not-there"]
    loader = light.loader(PLAIN, 17, keep=keep)
    [batch] = loader.epoch(0)
    assert set(batch.ids) == set(keep[:-1]) and loader.left_out == {"not to be kept": 16}


# The order


def test_an_epoch_is_a_permutation_that_seed_and_epoch_give(light):
    def order(seed, epoch):
        return [id for batch in light.loader(PLAIN, 3, seed=seed).epoch(epoch) for id in batch.ids]

    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(one) == sorted(light.ids) for one in orders)
    assert len({tuple(one) for one in orders}) == 4
    assert order(1, 1) == orders[3]
    loader = light.loader(PLAIN, 3, seed=7)
    firsts = Counter(loader.batch_at(epoch, 0).ids[0] for epoch in range(200))
    assert len(firsts) > 28  # of 33


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_ranks_together_see_what_one_process_sees(made, ranks):
    draws = Draws(image="mean-of-views", views=(1, 4))
    whole = made.loader(draws, 8, seed=3)
    shares = [made.loader(draws, 8, seed=3, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert {share.steps_per_epoch for share in shares} == {whole.steps_per_epoch} == {4}
    for batch, *mine in zip(whole.epoch(1), *(share.epoch(1) for share in shares), strict=True):
        assert {len(one.ids) for one in mine} == {8 // ranks}
        equal(batch, joined(mine))


def test_the_last_incomplete_batch_is_dropped(light):
    assert [light.loader(PLAIN, batch).steps_per_epoch for batch in (33, 32, 17, 16, 2)] == [1, 1, 1, 2, 16]
    assert len(list(light.loader(PLAIN, 17).epoch(0))) == 1


def test_seeds_are_each_samples_own(light):
    seeds = torch.cat([batch.seeds for epoch in range(5) for batch in light.loader(PLAIN, 11).epoch(epoch)])
    assert len(seeds.unique()) == 5 * 33 and (seeds >= 0).all()
    other = torch.cat([batch.seeds for batch in light.loader(PLAIN, 11, seed=1).epoch(0)])
    assert not set(seeds.tolist()) & set(other.tolist())


def test_what_is_drawn_does_not_change_with_what_else_is(light):
    """The same text for the same object whether or not pictures are wanted."""
    alone = light.loader(PLAIN, 8)
    with_pictures = light.loader(Draws(text="any", image="one-view", points=False, pictures=True, views=(1, 2)), 8)
    for one, other in zip(alone.epoch(0), with_pictures.epoch(0), strict=True):
        assert one.ids == other.ids and torch.equal(one.text, other.text) and torch.equal(one.seeds, other.seeds)


# Interruptions


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_epoch_goes_on_from_any_step(made, workers):
    draws = Draws(image="mean-of-views", views=(1, 3))
    whole = list(made.loader(draws, 4, seed=5).epoch(2))
    assert len(whole) == 8
    for first in (0, 3, 7, 8):
        rest = list(made.loader(draws, 4, seed=5, workers=workers).epoch(2, first))
        assert len(rest) == 8 - first
        for one, other in zip(whole[first:], rest, strict=True):
            equal(one, other)


def test_iteration_goes_on_from_its_state(light):
    loader = light.loader(PLAIN, 8, seed=9)
    expected = [batch for epoch in (0, 1) for batch in loader.epoch(epoch)]
    first = [batch for batch, _ in zip(loader, range(3), strict=False)]
    other = light.loader(PLAIN, 8, seed=9, workers=2)
    other.load_state_dict(loader.state_dict() | {"step": 3, "epoch": 0})
    found = [*first, *other]
    assert other.state_dict()["epoch"] == 1 and other.state_dict()["step"] == 0
    found += [*other]
    for one, two in zip(expected, found, strict=True):
        equal(one, two)
    with pytest.raises(ValueError, match="seed: 9, here 10"):
        light.loader(PLAIN, 8, seed=10).load_state_dict(loader.state_dict())


def test_the_state_is_that_after_the_batch_in_hand(light):
    loader = light.loader(PLAIN, 8)
    states = [(batch.step, loader.state_dict()["epoch"], loader.state_dict()["step"]) for batch in loader]
    assert states == [(0, 0, 1), (1, 0, 2), (2, 0, 3), (3, 1, 0)]


def test_leaving_an_epoch_early_leaves_no_thread(light):
    import threading

    for _ in light.loader(PLAIN, 2, workers=3).epoch(0):
        break
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


# Versions


def test_rows_that_are_added_meanwhile_change_nothing(tmp_path):
    made = Made(tmp_path / "corpus", 20, points=False)
    loader = made.loader(Draws(points=False), 5)
    before = list(loader.epoch(0))
    rng = np.random.default_rng(3)
    table = image_embeddings(TEACHER, DIM)
    added = [STAGE | {"object_id": f"objaverse/new{i}", "embedding": list(unit(rng, 3)), "lengths": None} for i in range(9)]
    put(made.corpus, table, added)
    made.corpus.delete(CAPTIONS, made.ids[:10])
    for one, other in zip(before, loader.epoch(0), strict=True):
        equal(one, other)
    again = made.loader(Draws(points=False), 5, versions=loader.versions)
    for one, other in zip(before, again.epoch(0), strict=True):
        equal(one, other)
    newest = made.loader(Draws(points=False), 5)
    assert (newest.objects, loader.objects) == (29, 20) and newest.versions != loader.versions


def test_other_versions_with_the_same_objects_give_the_same_epochs(tmp_path):
    first = Made(tmp_path / "first", 20, points=False)
    order = list(np.random.default_rng(1).permutation(first.ids))
    second = Made(tmp_path / "second", 20, points=False, order=order)
    second.corpus.delete(CAPTIONS, order[:4])
    put(second.corpus, CAPTIONS, [row for id in order[:4] for row in second.about[id]["captions"]])
    for one, other in zip(
        first.loader(Draws(points=False), 4).epoch(1), second.loader(Draws(points=False), 4).epoch(1), strict=True
    ):
        equal(one, other)


def test_a_version_that_is_gone_is_told(tmp_path):
    made = Made(tmp_path / "corpus", 5, points=False)
    versions = made.loader(PLAIN, 1).versions
    with pytest.raises(CorpusError, match="captions.lance has no version 99 any more"):
        made.loader(PLAIN, 1, versions=versions | {"captions": 99})
    with pytest.raises(CorpusError, match="does not say which version of captions"):
        made.loader(PLAIN, 1, versions={name: version for name, version in versions.items() if name != "captions"})
    with pytest.raises(CorpusError, match="no table 'points'"):
        made.loader(Draws(), 1)


def test_tables_of_two_teachers_do_not_mix(tmp_path):
    made = Made(tmp_path / "corpus", 5, points=False)
    for kind, weights in (("image", "a" * 64), ("text", "b" * 64)):
        table = (image_embeddings if kind == "image" else text_embeddings)(TEACHER, DIM)
        teacher = {"name": TEACHER, "weights_sha256": weights}
        made.corpus.create(table, {"stage": f"embed-{kind}", "settings": {"teacher": teacher}})
    with pytest.raises(CorpusError, match="made with different teachers"):
        made.loader(PLAIN, 1)


def test_settings_that_do_not_fit_are_told(light):
    with pytest.raises(ValueError, match="batch of 9 cannot be divided among 2 ranks"):
        light.loader(PLAIN, 9, ranks=2)
    with pytest.raises(ValueError, match=r"has 33 objects to train on, fewer than a batch of 34"):
        light.loader(PLAIN, 34)
    with pytest.raises(ValueError, match=r"has 8 objects .* \(left out: 25 with fewer than 5 views\)"):
        light.loader(Draws(text="none", image="one-view", points=False, pictures=True, views=(1, 5)), 9)


# Texts


def chances_of_texts(made, id, rule):
    """Of each embedding the chance that the rule gives it, by writing out every case."""
    groups = {name: [row for row in made.usable(id) if row["origin"] == name] for name in ("captioner", "retrieved")}
    raw = made.raw(id)
    if rule == "openshape" and id.startswith("objaverse/"):
        raw = raw[:1]
    chances = Counter()
    for blip in (True, False):
        captioner = [row for row in groups["captioner"] if (row["model"] == "BLIP") == blip]
        there = [group for group in (raw, captioner, groups["retrieved"]) if group]
        for group in there:
            for row in group:
                averaged = made.texts[row["text"]]["prompt_averaged"]
                plain = rule == "duoduo" or row["origin"] == "retrieved" or averaged is None
                vector = made.texts[row["text"]]["embedding"] if plain else averaged
                chances[as_stored(vector)] += 1 / 2 / len(there) / len(group)
        if not there:
            chances[None] += 1 / 2
    return chances


@pytest.mark.parametrize("rule", ["openshape", "duoduo"])
def test_texts_are_drawn_by_the_systems_rule(light, rule):
    texts, _ = drawn(light.loader(Draws(text=rule, image="one-view", points=False), 33), 500)
    assert len(texts) == 33 and len({len(chances_of_texts(light, id, rule)) for id in light.ids}) > 4
    for id, found in texts.items():
        as_predicted(found, chances_of_texts(light, id, rule))


def test_any_text_is_any_of_the_kept_ones(light):
    texts, _ = drawn(light.loader(PLAIN, 33), 500)
    for id, found in texts.items():
        usable = light.usable(id)
        as_predicted(found, {as_stored(light.texts[row["text"]]["embedding"]): 1 / len(usable) for row in usable} or {None: 1})


def test_objects_without_a_text_are_masked_and_nobody_else(light):
    without = {id for id in light.ids if not light.usable(id)}
    assert len(without) >= 2
    for rule in ("openshape", "any"):
        [batch] = light.loader(Draws(text=rule, image="one-view", points=False), 33).epoch(0)
        assert {id for id, has in zip(batch.ids, batch.has_text, strict=True) if not has} >= without
        assert not batch.text[~batch.has_text].any() and (batch.text[batch.has_text].norm(dim=1) > 0.9).all()
    assert {id for id, has in zip(batch.ids, batch.has_text, strict=True) if not has} == without


# Images


def test_objaverses_images_are_thumbnails_by_a_coin(light):
    _, images = drawn(light.loader(Draws(text="none", points=False), 33), 500)
    for id, found in images.items():
        about = light.about[id]
        coin = 0.5 if id.startswith("objaverse/") and about["thumbnail"] is not None else 0
        chances = {as_stored(vector): (1 - coin) / len(about["embedding"]) for vector in about["embedding"]}
        as_predicted(found, chances | ({as_stored(about["thumbnail"]): coin} if coin else {}))


def test_one_view_is_any_view(light):
    _, images = drawn(light.loader(Draws(text="none", image="one-view", points=False), 33), 500)
    for id, found in images.items():
        as_predicted(found, {as_stored(vector): 1 / len(light.about[id]["embedding"]) for vector in light.about[id]["embedding"]})


def mean_of(about, chosen):
    lengths = np.ones(len(about["embedding"]), np.float32) if about["lengths"] is None else about["lengths"]
    return (about["embedding"][chosen].astype(np.float64) * lengths[chosen, None]).mean(axis=0)


def test_a_mean_of_views_is_that_of_the_raw_vectors_of_the_views_in_the_pictures(light):
    draws = Draws(text="none", image="mean-of-views", points=False, pictures=True, views=(1, 2))
    sizes, sets = Counter(), Counter()
    known = {
        id: {picture(light._view(id, view)["image"], (255, 255, 255)).tobytes(): view for view in range(len(about["pictures"]))}
        for id, about in light.about.items()
    }
    loader = light.loader(draws, 8)
    for epoch in range(40):
        for batch in loader.epoch(epoch):
            sizes[batch.pictures.shape[1]] += 1
            for id, pictures, image in zip(batch.ids, batch.pictures, batch.image, strict=True):
                chosen = [known[id][shown.numpy().tobytes()] for shown in pictures]
                assert chosen == sorted(set(chosen))
                np.testing.assert_allclose(image, mean_of(light.about[id], chosen), rtol=1e-5, atol=1e-6)
                if len(known[id]) == 5 and len(chosen) == 2:
                    sets[tuple(chosen)] += 1
    as_predicted(sizes, {1: 0.5, 2: 0.5})
    as_predicted(sets, {(a, b): 0.1 for b in range(5) for a in range(b)})


def test_an_object_with_fewer_views_than_asked_gives_those_it_has(light):
    for batch in light.loader(Draws(text="none", image="mean-of-views", points=False, views=(4, 4)), 11).epoch(0):
        for id, image in zip(batch.ids, batch.image, strict=True):
            about = light.about[id]
            if len(about["embedding"]) <= 4:
                np.testing.assert_allclose(image, mean_of(about, range(len(about["embedding"]))), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shared", [True, False])
def test_views_are_shared_by_the_batch_when_asked(tmp_path, shared):
    made = Made(tmp_path / "corpus", 12, points=False, views=6)
    draws = Draws(text="none", image="mean-of-views", points=False, views=(2, 3), shared_views=shared)
    same = []
    for epoch in range(12):
        [batch] = made.loader(draws, 12).epoch(epoch)
        sets = set()
        for id, image in zip(batch.ids, batch.image.numpy(), strict=True):
            pairs = [(a, b) for b in range(6) for a in range(b)]
            triples = [(a, *pair) for pair in pairs for a in range(pair[0])]
            sets.add(next(one for one in [*pairs, *triples] if np.allclose(image, mean_of(made.about[id], list(one)), atol=1e-4)))
        same.append(len(sets) == 1)
        assert len({len(one) for one in sets}) == 1
    assert all(same) == shared and any(same) == shared


# Pictures


def test_a_picture_is_laid_on_its_background_exactly():
    value, alpha = np.meshgrid(np.arange(256), np.arange(256))
    for background in ((255, 255, 255), (0, 17, 200)):
        rgba = np.stack([value, 255 - value, value // 2, alpha], axis=2).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(rgba).save(file, "PNG")
        found = picture(file.getvalue(), background)
        exact = rgba[..., :3].astype(int) * alpha[..., None] + np.array(background) * (255 - alpha[..., None])
        np.testing.assert_array_equal(found, ((2 * exact + 255) // 510).transpose(2, 0, 1))


def test_pictures_of_several_sizes_are_told(tmp_path):
    made = Made(tmp_path / "corpus", 4, points=False, pictures=True)
    made.corpus.delete(VIEWS, made.ids[:1])
    put(made.corpus, VIEWS, [made._view(made.ids[0], number, size=32) for number in range(2)])
    draws = Draws(text="none", image="one-view", points=False, pictures=True)
    with pytest.raises(CorpusError, match="16 x 16, 32 x 32"):
        made.loader(draws, 1)
    assert made.loader(draws, 1, keep=made.ids[1:]).objects == 3


def test_views_that_are_not_those_of_the_embeddings_are_told(tmp_path):
    made = Made(tmp_path / "corpus", 4, points=False, pictures=True)
    made.corpus.delete(VIEWS, made.ids[3:], where="view = 4")
    draws = Draws(text="none", image="mean-of-views", points=False, pictures=True)
    with pytest.raises(
        CorpusError, match="objaverse/003 has 5 image embeddings, but another number of views: run python -m jobs embed"
    ):
        list(made.loader(draws, 4).epoch(0))


# Other processes


class Steps(Dataset):
    """A rank's epoch for torch's own loader."""

    def __init__(self, loader, epoch):
        self.loader, self.epoch = loader, epoch

    def __len__(self):
        return len(self.loader)

    def __getitem__(self, step):
        return self.loader.batch_at(self.epoch, step)


def test_it_works_in_spawned_workers(made):
    loader = made.loader(Draws(image="mean-of-views", views=(1, 3)), 8, rank=1, ranks=2)
    expected = list(loader.epoch(0))
    equal(expected[0], pickle.loads(pickle.dumps(loader)).batch_at(0, 0))
    found = DataLoader(Steps(loader, 0), batch_size=None, num_workers=2, multiprocessing_context="spawn")
    for one, other in zip(expected, found, strict=True):
        equal(one, other)


def test_it_needs_nothing_else_of_the_project():
    code = (
        "import sys, trainer.data; ours = {'pipeline', 'render', 'captions', 'jobs', 'evaluate', 'reports'};"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ours | {'ray', 'bpy', 'timm', 'open_clip'}),"
        "sorted(name for name in sys.modules if name.split('.')[0] in ('trainer', 'schemas')))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[] ['schemas', 'schemas.corpus', 'schemas.tables', 'trainer', 'trainer.data', 'trainer.mapped']"
