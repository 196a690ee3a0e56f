"""Encoders on points, pictures and corpora, in Python and as a job."""

import dataclasses
import io
import json

import numpy as np
import pyarrow.parquet
import pytest
import torch
import trimesh
from PIL import Image

from jobs.__main__ import main
from jobs.encode import Found, look
from pipeline.store import Corpus
from schemas.check import to_table
from schemas.corpus import CorpusError
from schemas.tables import POINTS, VIEWS
from trainer.card import PointInput, ViewInput
from trainer.checkpoints import built, load, save
from trainer.encode import Encoder, order_drawn, points_taken, views_drawn
from trainer.pictures import pixels, squared

from test_checkpoints import CARDS  # isort: skip

CPU = torch.device("cpu")
MADE = {"stage": "s", "stage_key": "k"}


class Seen(torch.nn.Module):
    """An encoder whose embedding is what it was fed."""

    def forward(self, *fed):
        return torch.cat([one.flatten(1) for one in fed], dim=1)


def seeing(**fields) -> Encoder:
    """Of points: the first half of what it gives are the places, the second the colours."""
    return Encoder(Seen(), dataclasses.replace(CARDS["uni3d"], input=PointInput(**fields)), CPU)


def watching(**fields) -> Encoder:
    """Of views."""
    return Encoder(Seen(), dataclasses.replace(CARDS["duoduo"], input=ViewInput(**fields)), CPU)


def seen(encoder, *arguments, **more):
    places, colors = np.split(encoder.points(*arguments, **more, unit=False), 2, axis=1)
    return places.reshape(len(places), -1, 3), colors.reshape(len(colors), -1, 3)


@pytest.fixture
def cloud(rng):
    return rng.normal((0.3, -0.2, 0.1), (0.5, 0.2, 0.3), (60, 3)), rng.integers(0, 256, (60, 3), dtype=np.uint8)


@pytest.fixture
def checkpoint(tmp_path):
    """A small random PointBERT as it is saved; it wants 2,000 points of the mirrored frame."""
    torch.manual_seed(0)
    card = dataclasses.replace(CARDS["pointbert"], input=PointInput(frame="yz-swapped", points=2000))
    save(tmp_path / "checkpoint", built(card), card)
    return tmp_path / "checkpoint"


@pytest.fixture
def watcher(tmp_path):
    """A small random multi-view encoder as it is saved."""
    torch.manual_seed(0)
    card = dataclasses.replace(CARDS["duoduo"], input=ViewInput(size=32))
    save(tmp_path / "watcher", built(card), card)
    return tmp_path / "watcher"


# ---------------------------------------------------------------------------------------------------------------- the card, obeyed


def test_the_frame_of_the_card_is_what_the_encoder_sees(cloud):
    for frame, columns in (("canonical", [0, 1, 2]), ("yz-swapped", [0, 2, 1])):
        places, _ = seen(seeing(frame=frame, normalisation="none"), *cloud, up="+y")
        np.testing.assert_array_equal(places[0], cloud[0].astype(np.float32)[:, columns])


def test_the_normalisation_of_the_card_is_what_the_encoder_sees(cloud):
    xyz = cloud[0]
    for way, middle in (("mean", xyz.mean(axis=0)), ("box", (xyz.min(axis=0) + xyz.max(axis=0)) / 2)):
        moved = xyz - middle
        places, _ = seen(seeing(normalisation=way), *cloud, up="+y")
        np.testing.assert_allclose(places[0], moved / np.linalg.norm(moved, axis=1).max(), atol=1e-6)
    assert (seen(seeing(), np.full((60, 3), 0.5), up="+y")[0] == 0).all()


def test_the_fill_of_the_card_is_the_colour_of_points_without_one(cloud):
    xyz, rgb = cloud
    for fill in (0.4, 100 / 255):
        assert (seen(seeing(fill=fill), xyz, up="+y")[1] == np.float32(fill)).all()
        np.testing.assert_array_equal(seen(seeing(fill=fill), xyz, rgb, up="+y")[1][0], rgb.astype(np.float32) / 255)
        np.testing.assert_array_equal(seen(seeing(fill=fill), xyz, rgb / 255, up="+y")[1][0], (rgb / 255).astype(np.float32))


def test_so_many_points_as_the_card_says_are_taken_always_the_same_in_their_order(cloud):
    xyz, rgb = cloud
    encoder = seeing(points=25, normalisation="none")
    places, colors = seen(encoder, xyz, rgb, up="+y")
    found = [np.flatnonzero((xyz.astype(np.float32) == place).all(axis=1)).item() for place in places[0]]
    assert len(set(found)) == 25 and found == sorted(found) and found != list(range(25))
    np.testing.assert_array_equal(colors[0], rgb[found].astype(np.float32) / 255)
    np.testing.assert_array_equal(seen(encoder, xyz, rgb, up="+y")[0], places)
    assert seen(seeing(points=60), xyz, up="+y")[0].shape == seen(seeing(points=None), xyz, up="+y")[0].shape == (1, 60, 3)
    assert seen(seeing(points=100), xyz, up="+y")[0].shape == (1, 60, 3)  # fewer are taken as they are


def test_another_seed_takes_other_points(cloud):
    xyz, rgb = cloud
    encoder = seeing(points=25, normalisation="none")
    first, again, other = (seen(encoder, xyz, rgb, up="+y", seed=seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert {tuple(place) for place in other[0]} <= {tuple(place) for place in xyz.astype(np.float32)}
    np.testing.assert_array_equal(seen(encoder, xyz, rgb, up="+y")[0], seen(encoder, xyz, rgb, up="+y", seed=0)[0])


def test_of_a_cloud_with_fewer_points_so_many_are_drawn_with_replacement_where_that_is_asked_for(cloud):
    xyz, rgb = cloud
    encoder = seeing(points=6000, normalisation="none")
    places, colors = seen(encoder, xyz, rgb, up="+y", short="with replacement")
    assert places.shape == (1, 6000, 3)
    own = {tuple(place): number for number, place in enumerate(xyz.astype(np.float32))}
    drawn = np.array([own[tuple(place)] for place in places[0]])
    np.testing.assert_array_equal(colors[0], rgb[drawn].astype(np.float32) / 255)
    counts = np.bincount(drawn, minlength=60)  # 100 each, standard deviation 10
    assert 50 < counts.min() and counts.max() < 150 and 5 < counts.std() < 15
    assert not np.array_equal(seen(encoder, xyz, rgb, up="+y", short="with replacement", seed=1)[0], places)
    # A cloud that has as many, or more, is not drawn from with replacement.
    for points in (60, 25):
        places, _ = seen(seeing(points=points, normalisation="none"), xyz, rgb, up="+y", short="with replacement")
        assert len({tuple(place) for place in places[0]}) == points


def test_what_is_taken_of_a_cloud():
    for count, wanted, short in ((60, None, "with replacement"), (60, 60, "with replacement"), (60, 100, "as they are")):
        assert points_taken(count, wanted, seed=0, short=short) is None
    assert sorted(order_drawn(1000, 5).tolist()) == list(range(1000)) != order_drawn(1000, 5).tolist()


def test_views_are_drawn_for_each_object_its_own_all_alike_likely():
    drawn = np.array([[views_drawn(f"a/{number}", 12, 5, seed) for number in range(200)] for seed in range(5)])
    assert (np.diff(drawn, axis=-1) > 0).all() and drawn.min() == 0 and drawn.max() == 11
    counts = np.bincount(drawn.ravel())  # 5,000 draws, 417 each; a standard deviation of 16
    assert 340 < counts.min() and counts.max() < 500
    assert len({tuple(views) for views in drawn[0]}) > 100 and len({tuple(seed.ravel()) for seed in drawn}) == 5
    assert views_drawn("a/7", 3, 3, 9).tolist() == [0, 1, 2]


def test_up_is_said_and_turned_to_the_canonical_frame(cloud):
    xyz = cloud[0].astype(np.float32)
    places, _ = seen(seeing(normalisation="none"), xyz, up="+z")
    np.testing.assert_array_equal(places[0], np.stack([xyz[:, 0], xyz[:, 2], -xyz[:, 1]], axis=1))
    with pytest.raises(TypeError, match="up"):
        seeing().points(xyz)
    with pytest.raises(ValueError, match="up is 'z': it must be"):
        seeing().points(xyz, up="z")


def test_each_field_of_a_view_card_is_what_the_encoder_sees(rng):
    rgba = rng.integers(0, 256, (50, 40, 4), dtype=np.uint8)
    picture = Image.fromarray(rgba)
    for fields in (
        {},
        {"size": 24},
        {"crop": 6},
        {"background": (9, 99, 200)},
        {"mean": (0.0, 0.1, 0.2)},
        {"std": (1.0, 2.0, 3.0)},
    ):
        wanted = ViewInput(**{"size": 32, "background": (255, 255, 255)} | fields)
        made = watching(**dataclasses.asdict(wanted)).pictures([picture], unit=False)
        expected = pixels(squared(picture, wanted)[None, None], wanted)
        np.testing.assert_array_equal(made, expected.flatten(1).numpy())
        if fields:
            plain = watching(size=32).pictures([picture], unit=False)
            assert made.shape != plain.shape or np.abs(made - plain).max() > 0.01, fields


# ---------------------------------------------------------------------------------------------------------------- points, pictures


def test_a_saved_checkpoint_embeds_as_the_module_that_was_saved(checkpoint, cloud, rng):
    xyz = rng.normal(size=(3, 300, 3)).astype(np.float32)
    rgb = rng.integers(0, 256, xyz.shape, dtype=np.uint8)
    encoder = Encoder.load(checkpoint, device="cpu")
    module, card = load(checkpoint)
    assert encoder.card == card and encoder.reads == "points"
    raw = encoder.points(xyz, rgb, up="+y", unit=False)
    swapped = torch.from_numpy(xyz)[..., [0, 2, 1]]
    centred = swapped - swapped.mean(dim=1, keepdim=True)
    with torch.no_grad():
        expected = module(centred / centred.norm(dim=-1).amax(dim=1)[:, None, None], torch.from_numpy(rgb) / 255)
    np.testing.assert_allclose(raw, expected.numpy(), atol=1e-6)
    made = encoder.points(torch.from_numpy(xyz), torch.from_numpy(rgb), up="+y")
    assert made.shape == (3, 12) and made.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(made * np.linalg.norm(raw, axis=1, keepdims=True), raw, atol=1e-6)
    for one, its_xyz, its_rgb in zip(made, xyz, rgb, strict=True):
        np.testing.assert_allclose(encoder.points(its_xyz, its_rgb, up="+y")[0], one, atol=1e-6)


def test_views_are_embedded_together_and_have_no_order(watcher, tmp_path, rng):
    views = [Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)) for _ in range(3)]
    for number, view in enumerate(views):
        view.save(tmp_path / f"{number}.png")
    encoder = Encoder.load(watcher, device="cpu")
    made = encoder.pictures(views)
    assert made.shape == (1, 12) and np.linalg.norm(made) == pytest.approx(1)
    np.testing.assert_allclose(encoder.pictures([views[2], views[0], views[1]]), made, atol=1e-6)
    np.testing.assert_array_equal(encoder.pictures([tmp_path / "0.png", str(tmp_path / "1.png"), views[2]]), made)
    assert np.abs(encoder.pictures(views[:2]) - made).max() > 1e-3


def test_what_cannot_be_embedded_is_told(checkpoint, watcher, cloud):
    encoder, xyz = Encoder.load(checkpoint, device="cpu"), cloud[0]
    for arguments, sentence in (
        ((xyz[:5],), "8 farthest points of clouds of 5 points"),
        ((np.where(np.arange(60)[:, None] == 7, np.nan, xyz),), "1 points have infinite or NaN coordinates"),
        ((xyz, cloud[1] * 2.0), "colours as torch.float64 are 0..1, and these are "),
        ((xyz, cloud[1].astype(int) - 300), "colours as torch.int64 are 0..255, and these are -"),
        ((xyz, cloud[1][:7]), r"a cloud is .* this one is \(1, 60, 3\), and of colours \(1, 7, 3\)"),
        ((xyz[:, :2],), r"this one is \(1, 60, 2\)"),
    ):
        with pytest.raises(ValueError, match=sentence):
            encoder.points(*arguments, up="+y")
    with pytest.raises(ValueError, match=r"this encoder \(pointbert\) reads points"):
        encoder.pictures([Image.new("RGB", (32, 32))])
    seeing_views = Encoder.load(watcher, device="cpu")
    with pytest.raises(ValueError, match=r"this encoder \(duoduo\) reads views"):
        seeing_views.points(xyz, up="+y")
    with pytest.raises(ValueError, match="give at least one view"):
        seeing_views.pictures([])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told(checkpoint):
    with pytest.raises(ValueError, match='device "cuda" was asked for, but this machine shows no GPU'):
        Encoder.load(checkpoint, device="cuda")


# ---------------------------------------------------------------------------------------------------------------- corpora


def points_row(rng, number, colored):
    xyz = rng.normal(size=(10_000, 3))
    xyz /= np.linalg.norm(xyz, axis=1).max()
    row = {"object_id": f"a/{number}", **MADE, "xyz": xyz.astype(np.float16).ravel(), "rgb": None, "warnings": []}
    row |= {"canonical_from_asset": np.eye(4).ravel(), "vertices": 8, "faces": 12, "area": 1.0}
    return row | ({"rgb": rng.integers(0, 256, 30_000, dtype=np.uint8)} if colored else {})


def view_row(rng, number, view):
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (32, 32, 4), dtype=np.uint8)).save(file, "PNG")
    row = {"object_id": f"a/{number}", "view": view, **MADE, "image": file.getvalue(), "width": 32, "height": 32}
    return row | {"intrinsics": [30.0, 30.0, 16.0, 16.0], "camera_to_world": np.eye(4).ravel(), "kind": "rendered"}


@pytest.fixture
def filled(tmp_path, rng):
    """A corpus of points of five objects, of which two have no colours, and of views of three objects in no good order."""
    corpus = Corpus(str(tmp_path / "filled"))
    clouds = [points_row(rng, number, colored=number not in (1, 4)) for number in range(5)]
    views = [view_row(rng, number, view) for number, view in ((2, 1), (0, 0), (1, 2), (2, 0), (0, 1), (1, 0), (1, 1))]
    for table, parts in ((POINTS, (clouds[:2], clouds[2:])), (VIEWS, (views[:3], views[3:]))):
        corpus.create(table)
        corpus.append(table, [fragment for part in parts for fragment in corpus.write(table, to_table(table, part))])
    return corpus.root, {row["object_id"]: row for row in clouds}, views


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_a_corpus_of_points_is_embedded_as_its_clouds_are(filled, batch):
    root, clouds, _ = filled
    encoder = seeing(points=500, frame="yz-swapped", fill=0.3)
    made = dict(pair for ids, vectors in encoder.corpus(root, batch=batch, unit=False) for pair in zip(ids, vectors, strict=True))
    assert list(made) == list(clouds)
    for id, row in clouds.items():  # of stored points the beginning is taken: every prefix is an even sample
        xyz = row["xyz"].reshape(-1, 3)[:500]
        rgb = None if row["rgb"] is None else row["rgb"].reshape(-1, 3)[:500]
        np.testing.assert_array_equal(made[id], encoder.points(xyz, rgb, up="+y", unit=False)[0])


def test_a_corpus_of_views_is_embedded_object_by_object(filled):
    root, _, views = filled
    encoder = watching(size=32)
    for batch in (1, 32):
        made = dict(
            pair for ids, vectors in encoder.corpus(root, batch=batch, unit=False) for pair in zip(ids, vectors, strict=True)
        )
        assert list(made) == ["a/2", "a/0", "a/1"]
        for id, vector in made.items():
            rows = sorted((row for row in views if row["object_id"] == id), key=lambda row: row["view"])
            own = [Image.open(io.BytesIO(row["image"])) for row in rows]
            np.testing.assert_array_equal(vector, encoder.pictures(own, unit=False)[0])


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_stored_points_are_taken_in_an_order_drawn_by_seed(filled, batch):
    root, clouds, _ = filled
    encoder = seeing(points=500)
    made = dict(
        pair for ids, vectors in encoder.corpus(root, batch=batch, unit=False, seed=4) for pair in zip(ids, vectors, strict=True)
    )
    order = order_drawn(10_000, 4)[:500].numpy()
    assert order.tolist() != sorted(order.tolist()) and len(set(order.tolist())) == 500
    for id, row in clouds.items():
        xyz = row["xyz"].reshape(-1, 3)[order]
        rgb = None if row["rgb"] is None else row["rgb"].reshape(-1, 3)[order]
        np.testing.assert_array_equal(made[id], encoder.points(xyz, rgb, up="+y", unit=False)[0])


def test_so_many_stored_views_are_drawn_and_objects_with_fewer_left_out(filled):
    root, _, views = filled
    encoder = watching(size=32)
    for seed in (0, 1, 2):
        for batch in (1, 32):
            pairs = [
                pair
                for ids, vectors in encoder.corpus(root, batch=batch, unit=False, views=2, seed=seed)
                for pair in zip(ids, vectors, strict=True)
            ]
            assert [id for id, _ in pairs] == ["a/2", "a/0", "a/1"]
            for id, vector in pairs:
                rows = sorted((row for row in views if row["object_id"] == id), key=lambda row: row["view"])
                own = [Image.open(io.BytesIO(rows[place]["image"])) for place in views_drawn(id, len(rows), 2, seed)]
                np.testing.assert_array_equal(vector, encoder.pictures(own, unit=False)[0])
    assert [id for ids, _ in encoder.corpus(root, views=3) for id in ids] == ["a/1"]


def test_only_the_objects_that_are_wanted_are_embedded(filled):
    for encoder, expected in ((seeing(points=8), ["a/1", "a/2"]), (watching(size=32), ["a/2", "a/1"])):
        assert [id for ids, _ in encoder.corpus(filled[0], keep=["a/2", "a/1", "b/9"]) for id in ids] == expected
        assert list(encoder.corpus(filled[0], keep=[])) == []


def test_a_corpus_without_the_table_is_told_which_job_makes_it(tmp_path):
    for encoder, job in ((seeing(), "points"), (watching(), "render")):
        with pytest.raises(CorpusError, match=f"has no table .* jobs {job} "):
            next(encoder.corpus(str(tmp_path)))


# ---------------------------------------------------------------------------------------------------------------- the job


def encoded(capsys, *arguments):
    """Exit code, what was printed, and what was said on standard error."""
    code = main(["encode", *map(str, arguments)])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_the_job_embeds_a_mesh_as_a_corpus_build_and_tells_what_fails(checkpoint, tmp_path, capsys):
    folder = tmp_path / "things"
    (folder / "deeper").mkdir(parents=True)
    box = trimesh.creation.box((1, 2, 3))
    box.visual.vertex_colors = np.random.default_rng(0).integers(0, 256, (8, 4), dtype=np.uint8) | [0, 0, 0, 255]
    box.export(folder / "deeper" / "box.glb")
    trimesh.creation.icosphere(subdivisions=2).export(folder / "ball.obj")
    (folder / "broken.glb").write_bytes(b"glTF and then nothing")
    code, said, _ = encoded(capsys, checkpoint, folder, "-o", tmp_path / "out.npz", "--device", "cpu")
    assert code == 0
    assert "frame yz-swapped, normalisation mean" in said
    assert "things/deeper/box.glb: mesh, 10,000 points, with colours" in said
    assert "things/ball.obj: mesh, 10,000 points, without colours" in said
    assert "things/broken.glb: FAILED: " in said
    assert f"{tmp_path / 'out.npz'}: 2 embeddings of 12 numbers, 1 failed" in said.splitlines()[-1]
    corpus = str(tmp_path / "corpus")
    for job in (["ingest", corpus, "--source", f"things:folder={folder}"], ["points", corpus]):
        assert main(job) == 0
    encoder = Encoder.load(checkpoint, device="cpu")
    expected = dict(pair for ids, vectors in encoder.corpus(corpus) for pair in zip(ids, vectors, strict=True))
    with np.load(tmp_path / "out.npz", allow_pickle=False) as made:
        found = dict(zip(made["object_id"].tolist(), made["embedding"], strict=True))
        assert found.keys() == expected.keys() == {"things/deeper/box.glb", "things/ball.obj"}
        for id, vector in found.items():
            np.testing.assert_allclose(vector, expected[id], rtol=0, atol=1e-6)
        assert json.loads(str(made["encoder"]))["input"]["frame"] == "yz-swapped"
    # The same file alone, and the corpus itself.
    code, said, _ = encoded(capsys, checkpoint, folder / "ball.obj", corpus, "-o", tmp_path / "two.npz")
    assert code == 2  # things/ball.obj comes twice
    code, said, _ = encoded(capsys, checkpoint, corpus, "-o", tmp_path / "again.npz")
    assert code == 0 and f"{corpus}: 2 objects, from the points stored in the canonical frame" in said
    with np.load(tmp_path / "again.npz") as again:
        for id, vector in zip(again["object_id"].tolist(), again["embedding"], strict=True):
            np.testing.assert_allclose(vector, expected[id], rtol=0, atol=1e-6)


def ply(xyz, rgb):
    header = f"ply\nformat ascii 1.0\nelement vertex {len(xyz)}\nproperty float x\nproperty float y\nproperty float z\n"
    header += "property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
    return header + "".join(
        f"{x!r} {y!r} {z!r} {r} {g} {b}\n" for (x, y, z), (r, g, b) in zip(xyz.tolist(), rgb.tolist(), strict=True)
    )


def pcd(xyz, rgb):
    header = "VERSION 0.7\nFIELDS x y z rgb\nSIZE 8 8 8 4\nTYPE F F F U\nCOUNT 1 1 1 1\n"
    header += f"WIDTH {len(xyz)}\nHEIGHT 1\nPOINTS {len(xyz)}\nDATA ascii\n"
    packed = (rgb.astype(np.int64) * [1 << 16, 1 << 8, 1]).sum(axis=1)
    return header + "".join(f"{x!r} {y!r} {z!r} {color}\n" for (x, y, z), color in zip(xyz.tolist(), packed.tolist(), strict=True))


def off(xyz):
    return f"OFF # points\n{len(xyz)} 0 0\n" + "".join(f"{x!r} {y!r} {z!r}\n" for x, y, z in xyz.tolist())


def test_point_files_of_every_kind_are_the_same_points(checkpoint, tmp_path, capsys, rng):
    xyz, rgb = rng.normal(size=(300, 3)).astype(np.float32).astype(np.float64), rng.integers(0, 256, (300, 3), dtype=np.uint8)
    folder = tmp_path / "scans"
    folder.mkdir()
    np.save(folder / "of255.npy", np.concatenate([xyz, rgb], axis=1))
    np.save(folder / "shares.npy", np.concatenate([xyz, rgb / 255], axis=1))
    np.savez(folder / "both.npz", xyz=xyz, rgb=rgb)
    (folder / "text.ply").write_text(ply(xyz, rgb))
    (folder / "text.pcd").write_text(pcd(xyz, rgb))
    np.save(folder / "grey.npy", xyz)
    np.savez(folder / "grey.npz", xyz=xyz)
    (folder / "grey.off").write_text(off(xyz))
    code, said, _ = encoded(capsys, checkpoint, folder, "--up", "+z", "-o", tmp_path / "out.npz")
    assert code == 0 and "8 embeddings" in said and "0 failed" in said
    assert "scans/text.ply: 300 points, with colours, +z up; length " in said
    encoder = Encoder.load(checkpoint, device="cpu")
    with np.load(tmp_path / "out.npz") as made:
        found = dict(zip(made["object_id"].tolist(), made["embedding"] * made["length"][:, None], strict=True))
    for id, vector in found.items():
        expected = encoder.points(xyz, None if "grey" in id else rgb, up="+z", unit=False)[0]
        np.testing.assert_allclose(vector, expected, atol=1e-5, err_msg=id)
    assert np.abs(found["scans/grey.npy"] - found["scans/shares.npy"]).max() > 1e-4


def test_more_points_than_the_encoder_takes_are_said(checkpoint, tmp_path, capsys, rng):
    np.save(tmp_path / "many.npy", rng.normal(size=(5000, 3)))
    code, said, _ = encoded(capsys, checkpoint, tmp_path / "many.npy", "--up", "+y", "-o", tmp_path / "out.npz")
    assert code == 0 and "many.npy: 5,000 points (2,000 taken), without colours, +y up" in said


def test_files_that_are_no_points_fail_alone(checkpoint, tmp_path, capsys, rng):
    folder = tmp_path / "scans"
    folder.mkdir()
    np.save(folder / "good.npy", rng.normal(size=(50, 3)))
    np.save(folder / "flat.npy", rng.normal(size=(50, 2)))
    np.save(folder / "pickled.npy", np.array({"xyz": [0]}, dtype=object), allow_pickle=True)
    np.savez(folder / "unnamed.npz", points=np.zeros((50, 3)))
    (folder / "none.off").write_text("OFF\n0 0 0\n")
    (folder / "colored.off").write_text("COFF\n1 0 0\n0 0 0 255 0 0\n")
    (folder / "short.off").write_text("OFF\n5 0 0\n0 0 0\n")
    (folder / "cut.npz").write_bytes(b"PK\x03\x04")
    np.save(folder / "few.npy", rng.normal(size=(3, 3)))
    code, said, _ = encoded(capsys, checkpoint, folder, "--up", "+y", "-o", tmp_path / "out.parquet", "--json")
    told = json.loads(said)
    assert code == 0 and told["done"] == 1 and len(told["failed"]) == 8
    for name, sentence in (
        ("flat.npy", r"its array is (50, 2), must be (n, 3)"),
        ("pickled.npy", "Object arrays cannot be loaded when allow_pickle=False"),
        ("unnamed.npz", "it has no array xyz, but points"),
        ("none.off", "none.off has no points"),
        ("colored.off", "it begins with COFF"),
        ("short.off", "short.off cannot be read as points"),
        ("cut.npz", "cut.npz cannot be read as points"),
        ("few.npy", "8 farthest points of clouds of 3 points"),
    ):
        assert sentence in told["failed"][f"scans/{name}"]


def test_pictures_of_a_folder_are_one_object(watcher, tmp_path, capsys, rng):
    pictures = {
        "mug/0.png": (32, 32), "mug/1.webp": (50, 40), "mug/other/2.jpg": (64, 64), "single.png": (32, 32),
    }  # fmt: skip
    for name, size in pictures.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "mug" / "other" / ".hidden.png").write_bytes(b"")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no picture")
    inputs = [tmp_path / "mug", tmp_path / "single.png", tmp_path / "bad"]
    code, said, _ = encoded(capsys, watcher, *inputs, "-o", tmp_path / "out.parquet")
    assert code == 0 and "mug: 2 pictures; length" in said and "mug/other: 1 pictures" in said and "bad: FAILED: " in said
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["object_id", "embedding", "length"]
    assert table["object_id"].to_pylist() == ["mug", "mug/other", f"{tmp_path.name}/single.png"]
    assert json.loads(table.schema.metadata[b"encoder"])["encoder"] == "duoduo"
    expected = Encoder.load(watcher).pictures([tmp_path / "mug/0.png", tmp_path / "mug/1.webp"])[0]
    np.testing.assert_allclose(table["embedding"][0].as_py(), expected, atol=1e-6)


def test_pictures_beside_a_mesh_are_textures(checkpoint, tmp_path, rng):
    trimesh.creation.box().export(tmp_path / "box.ply")
    (tmp_path / "box.png").write_bytes(b"")
    (tmp_path / "points.ply").write_text(ply(rng.normal(size=(9, 3)), np.zeros((9, 3), np.uint8)))
    found = Found()
    look(str(tmp_path), found)
    assert [row["source_id"] for row in found.meshes] == ["box.ply"]
    assert found.clouds == [(f"{tmp_path.name}/points.ply", tmp_path / "points.ply")] and found.pictures == found.corpora == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{ok}", "{cloud}", "--up", "+y", "-o", "{out}.lance"], 2, "must end in .npz or .parquet"),
        (["{ok}", "{cloud}", "--up", "+y", "-o", "/nowhere/at/out.npz"], 2, "there is no folder /nowhere/at"),
        (["{ok}", "{cloud}", "-o", "{out}.npz"], 2, "cloud.npy does not say which way is up: give --up +y, or --up +z"),
        (["{ok}", "/nowhere/at", "-o", "{out}.npz"], 2, "there is no /nowhere/at"),
        (["{ok}", "{empty}", "-o", "{out}.npz"], 2, "is no corpus, and has no meshes, point files or pictures"),
        (["{ok}", "{text}", "-o", "{out}.npz"], 2, "notes.txt is of no kind that can be encoded: glb, "),
        (["{ok}", "memory://nowhere", "-o", "{out}.npz"], 1, "is no corpus: of what is not on this machine"),
        (["{empty}", "{cloud}", "--up", "+y", "-o", "{out}.npz"], 1, "is no checkpoint: it has no config.json"),
        (["uni3d-huge", "{cloud}", "--up", "+y", "-o", "{out}.npz"], 1, "the name of a published one"),
        (["{views}", "{cloud}", "--up", "+y", "-o", "{out}.npz"], 1, "this encoder (duoduo) reads views"),
    ],
)
def test_a_person_is_told_what_is_wrong(arguments, code, words, checkpoint, watcher, tmp_path, capsys, rng):
    np.save(tmp_path / "cloud.npy", rng.normal(size=(50, 3)))
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    places = {"ok": checkpoint, "views": watcher, "cloud": tmp_path / "cloud.npy", "out": tmp_path / "out"}
    places |= {"empty": tmp_path / "empty", "text": tmp_path / "notes.txt"}
    told = encoded(capsys, *(argument.format(**places) for argument in arguments))
    assert told[0] == code
    assert words in told[2]
    assert not (tmp_path / "out.npz").exists()


def test_two_objects_of_one_name_are_told(checkpoint, tmp_path, capsys, rng):
    for folder in ("a/scans", "b/scans"):
        (tmp_path / folder).mkdir(parents=True)
        np.save(tmp_path / folder / "1.npy", rng.normal(size=(50, 3)))
    inputs = [tmp_path / "a" / "scans", tmp_path / "b" / "scans" / "1.npy"]
    code, _, told = encoded(capsys, checkpoint, *inputs, "--up", "+y", "-o", tmp_path / "out.npz")
    assert code == 2 and "scans/1.npy is named twice, or is the name of two objects" in told


@pytest.mark.slow
def test_the_job_renders_a_mesh_for_an_encoder_of_views(watcher, tmp_path, capsys):
    (tmp_path / "things").mkdir()
    trimesh.creation.box((1, 2, 3)).export(tmp_path / "things" / "box.glb")
    (tmp_path / "quick.toml").write_text("[render]\nsamples = 4\noutline_rays = 0\n")
    quick = ["--settings", str(tmp_path / "quick.toml")]
    code, said, _ = encoded(capsys, watcher, tmp_path / "things", "-o", tmp_path / "out.npz", *quick)
    assert code == 0 and "things/box.glb: mesh, its views, in the canonical frame" in said
    corpus = str(tmp_path / "corpus")
    for job in (["ingest", corpus, "--source", f"things:folder={tmp_path / 'things'}"], ["render", corpus, *quick]):
        assert main(job) == 0
    [(ids, expected)] = Encoder.load(watcher).corpus(corpus)
    with np.load(tmp_path / "out.npz") as made:
        assert made["object_id"].tolist() == ids
        np.testing.assert_allclose(made["embedding"], expected, rtol=0, atol=1e-6)
