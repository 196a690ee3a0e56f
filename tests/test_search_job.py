"""The search job, and its contact sheet."""

import dataclasses
import io
import json
import os

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from safetensors.torch import load_file, save_file

from jobs.__main__ import main
from pipeline.embed import EmbedImages
from pipeline.run import run
from pipeline.stage import Single
from pipeline.store import Corpus
from pipeline.teacher import Teacher
from pipeline.weights import TINY_TEACHER, TINY_WEIGHTS
from reports.contact_sheet import MARGIN, Found, Subject, search_sheet, views_around
from separable import TEACHER, separable
from trainer.card import PointInput, ViewInput
from trainer.checkpoints import built, save

from test_checkpoints import CARDS  # isort: skip

TINY = f"image_embeddings/{TINY_TEACHER}"


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> Corpus:
    """24 coloured ellipsoids of 4 classes, embedded by a made-up teacher and by the tiny one."""
    corpus = separable(tmp_path_factory.mktemp("seen") / "corpus", objects=24)
    with corpus.lock():
        run(corpus, Single(EmbedImages(teacher=TINY_TEACHER, device="cpu")))
    return corpus


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher(TINY_TEACHER, device="cpu")


@pytest.fixture
def search(seen, tmp_path, capsys, monkeypatch):
    """Runs the job with the tiny teacher, gives what it says as JSON."""
    monkeypatch.chdir(tmp_path)

    def searched(*arguments: str, root: str = seen.root, teacher: str | None = TINY_TEACHER) -> dict:
        more = ["--teacher", teacher] if teacher else []
        code = main(["search", root, *arguments, "--device", "cpu", "--json", *more])
        out = capsys.readouterr().out
        return json.loads(out) | {"code": code}

    return searched


def encoder(folder, kind: str, teacher: str | None) -> str:
    torch.manual_seed(0)
    card = CARDS[kind]
    input = PointInput(points=500) if kind == "pointbert" else ViewInput(size=32)
    said = {"name": teacher, "weights_sha256": "0" * 64} if teacher else None
    card = dataclasses.replace(card, input=input, teacher=said)
    save(folder, built(card), card)
    return str(folder)


def ids(found: dict) -> list[str]:
    return [row["object_id"] for row in found["found"]]


def means(corpus: Corpus) -> dict[str, np.ndarray]:
    """Mean of the tiny teacher's raw vectors, by object."""
    rows = corpus.need(TINY).to_table(columns=["object_id", "embedding", "lengths"]).to_pylist()
    made = {row["object_id"]: (np.array(row["embedding"]) * np.array(row["lengths"])[:, None]).mean(axis=0) for row in rows}
    return {id: vector / np.linalg.norm(vector) for id, vector in made.items()}


def view_of(corpus: Corpus, id: str, number: int = 0) -> bytes:
    return corpus.need("views").to_table(columns=["image"], filter=f"object_id = '{id}' AND view = {number}")["image"][0].as_py()


def files_in(root: str) -> dict[str, float]:
    found = [os.path.join(here, name) for here, _, names in os.walk(root) for name in names]
    return {path: os.stat(path).st_mtime_ns for path in found}


# What is found


def test_a_text_is_embedded_as_it_is_typed(search, seen, teacher):
    text = "  a RED thing_of Wood!"
    found = search(text, "--top", "24")
    query = teacher.encode_texts([text])[0]
    scores = {id: float(query @ vector) for id, vector in means(seen).items()}
    assert ids(found) == sorted(scores, key=lambda id: -scores[id])
    np.testing.assert_allclose([row["score"] for row in found["found"]], sorted(scores.values(), reverse=True), atol=1e-3)
    assert found["query"] == text and found["code"] == 0
    assert np.abs(query - teacher.encode_texts([text.replace("_", " ")])[0]).max() > 0.01


def test_views_of_an_object_as_pictures_find_it(search, seen, tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.webp").write_bytes(view_of(seen, "test/5", number))
    pictures = [word for number in range(3) for word in ("--picture", str(tmp_path / f"{number}.webp"))]
    found = search(*pictures)
    assert ids(found)[0] == "test/5" and found["found"][0]["score"] == pytest.approx(1, abs=2e-3)
    assert search(*pictures[:2])["found"][0]["score"] < 0.999


def test_a_picture_is_turned_as_its_camera_noted(search, seen, tmp_path):
    picture = Image.open(io.BytesIO(view_of(seen, "test/5"))).convert("RGBA")
    ground = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    ground.alpha_composite(picture)
    ground = ground.convert("RGB")
    ground.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    ground.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "noted.png", exif=exif)
    one, other = (search("--picture", str(tmp_path / name)) for name in ("upright.png", "noted.png"))
    assert one["found"] == other["found"]


def test_the_like_of_an_object_leaves_it_out(search, seen):
    found = search("--like", "test/5", "--top", "23")
    vectors = means(seen)
    scores = {id: float(vectors["test/5"] @ vector) for id, vector in vectors.items() if id != "test/5"}
    assert ids(found) == sorted(scores, key=lambda id: -scores[id])


def test_only_objects_that_the_conditions_hold_for(search):
    wanted = {f"test/{number}" for number in range(24) if number % 4 == 2}
    assert set(ids(search("thing", "--top", "24", "--where", "array_has(categories, 'class 2')"))) == wanted
    assert set(ids(search("thing", "--where", "name = 'Thing 3' OR name = 'Thing 4'", "--license", "CC0-1.0"))) == {
        "test/3",
        "test/4",
    }
    assert len(ids(search("thing", "--source", "test", "--top", "99"))) == 24
    said = search("thing", "--source", "it's not there")
    assert said["code"] == 1 and "there is no object with source = 'it''s not there'" in said["error"]


def test_points_find_the_object_that_they_are_of(search, seen, tmp_path):
    row = seen.need("points").to_table(filter="object_id = 'test/9'").to_pylist()[0]
    xyz, rgb = (np.array(row[name]).reshape(-1, 3)[:500] for name in ("xyz", "rgb"))
    x, y, z = xyz.T
    np.savez(tmp_path / "cloud.npz", xyz=np.stack([x, -z, y], axis=1), rgb=rgb.astype(np.uint8))
    place = encoder(tmp_path / "encoder", "pointbert", None)
    found = search("--mesh", str(tmp_path / "cloud.npz"), "--up", "+z", "--encoder", place, teacher=None)
    assert ids(found)[0] == "test/9" and found["found"][0]["score"] == pytest.approx(1, abs=1e-4)
    said = search("--mesh", str(tmp_path / "cloud.npz"), "--encoder", place, teacher=None)
    assert said["code"] == 2 and "give --up +y, or --up +z" in said["error"]
    assert "points have no views" in search("--mesh", str(tmp_path / "cloud.npz"))["error"]


def test_pictures_go_through_an_encoder_of_views(search, seen, tmp_path):
    place = encoder(tmp_path / "encoder", "duoduo", None)
    for number in range(3):
        (tmp_path / f"{number}.webp").write_bytes(view_of(seen, "test/5", number))
    pictures = [word for number in range(3) for word in ("--picture", str(tmp_path / f"{number}.webp"))]
    found = search(*pictures, "--encoder", place, teacher=None)
    assert ids(found)[0] == "test/5" and found["found"][0]["score"] == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_a_mesh_finds_what_is_coloured_and_formed_like_it(search, seen, tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=3)
    ball.export(tmp_path / "ball.glb")
    found = search(
        "--mesh", str(tmp_path / "ball.glb"), "--encoder", encoder(tmp_path / "encoder", "pointbert", None), teacher=None
    )
    assert found["code"] == 0 and len(ids(found)) == 10
    by_views = search("--mesh", str(tmp_path / "ball.glb"))
    assert by_views["code"] == 0 and by_views["query"] == "ball.glb"
    (tmp_path / "broken.glb").write_bytes(b"glTF")
    said = search("--mesh", str(tmp_path / "broken.glb"))
    assert said["code"] == 2 and "broken.glb" in said["error"]


# Where it is looked up


def test_nothing_is_written_but_the_sheet(search, seen, tmp_path):
    before = files_in(seen.root)
    assert search("a thing")["sheet"] == "search.png" and (tmp_path / "search.png").is_file()
    assert files_in(seen.root) == before


def test_kept_vectors_are_made_once_and_used(search, tmp_path):
    corpus = separable(tmp_path / "corpus", objects=6)
    before = search("--like", "test/1", root=corpus.root, teacher=None)
    assert "shape_embeddings" not in " ".join(corpus.tables())
    made = search("--index", root=corpus.root, teacher=None)
    assert made == {"root": corpus.root, "table": f"shape_embeddings/{TEACHER}", "index": made["index"], "code": 0}
    after = search("--like", "test/1", root=corpus.root, teacher=None)
    assert ids(after) == ids(before) and after["table"] in corpus.tables()
    separable(corpus.root, objects=2, first=6)
    late = search("--like", "test/1", root=corpus.root, teacher=None)
    assert "2 more are not kept yet" in late["compared"] and len(ids(late)) == 5
    assert len(ids(search("--like", "test/1", "--index", root=corpus.root, teacher=None))) == 7


# What cannot be had


def test_what_is_missing_is_said(search, seen, tmp_path):
    said = search("a chair", teacher=TEACHER)
    assert said["code"] == 1 and f"the weights of teacher {TEACHER} are not on this machine" in said["error"]
    assert search("--like", "test/1", teacher=TEACHER)["code"] == 0  # which needs none
    said = search("a chair", teacher=None)
    assert said["code"] == 2 and TEACHER in said["error"] and TINY_TEACHER in said["error"]
    said = search("a chair", "--encoder", encoder(tmp_path / "one", "pointbert", None), teacher=None)
    assert said["code"] == 2 and "its card names no teacher" in said["error"]
    said = search("a chair", "--encoder", encoder(tmp_path / "two", "pointbert", TINY_TEACHER), teacher=None)
    assert said["code"] == 1 and "into the space of another one (weights_sha256 0000" in said["error"]
    assert "has no object 'test/77'" in search("--like", "test/77")["error"]


def test_a_query_is_not_read_by_other_weights_of_the_same_name(search, tmp_path):
    """Cosines between spaces mean nothing."""
    weights = load_file(TINY_WEIGHTS)
    save_file({name: 2 * value for name, value in weights.items()}, tmp_path / "shapes-v1.safetensors")
    said = search("a chair", teacher=f"{TINY_TEACHER.partition(':')[0]}:{tmp_path}/shapes-v1.safetensors")
    assert said["code"] == 1 and "rows of another teacher that is called" in said["error"]


def test_wrong_arguments_are_refused(search, tmp_path):
    (tmp_path / "no.png").write_text("no picture")
    for arguments, why in (
        ([], "say what to look for"),
        (["a chair", "--like", "test/1"], "say what to look for"),
        (["a chair", "--top", "0"], "--top 0"),
        (["a chair", "-o", "nowhere/sheet.png"], "there is no folder"),
        (["a chair", "-o", "sheet.txt"], "the name must end in .png"),
        (["a chair", "--where", "colour = 3"], "is no condition on the table objects"),
        (["--picture", "no.png"], "no.png: cannot identify image file"),
        (["--picture", "absent.png"], "No such file"),
    ):
        said = search(*arguments)
        assert said["code"] == 2 and why in said["error"], said
    said = search("a chair", root=str(tmp_path))
    assert said["code"] == 1 and "has no table 'objects'" in said["error"]


def test_what_is_printed(seen, tmp_path, capsys):
    assert main(["search", seen.root, "a red thing", "--teacher", TINY_TEACHER, "--top", "3", "-o", str(tmp_path / "s.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "looked for   a red thing" and f"24 objects of {seen.root} by mean of views, {TINY_TEACHER}" in lines[1]
    assert lines[3].split() == ["rank", "score", "object", "name", "categories", "licence"]
    assert [line.split()[0] for line in lines[4:7]] == ["1", "2", "3"] and all("CC0-1.0" in line for line in lines[4:7])
    assert lines[-1].startswith(f"{tmp_path / 's.png'}: the objects with their views")


# The sheet


def colored(rgb, size=32) -> dict:
    file = io.BytesIO()
    Image.new("RGBA", (size, size), (*rgb, 255)).save(file, "webp", lossless=True)
    return {"view": 0, "image": file.getvalue()}


def test_the_sheet_shows_query_and_hits_in_their_order():
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    found = [Found(subject=Subject(object_id=f"o/{n}", views=[colored(rgb)] * 9), score=0.5) for n, rgb in enumerate(colors)]
    query = Image.new("RGB", (50, 20), (200, 200, 0))
    sheet = np.asarray(search_sheet("a thing", [query], found, tile=60))
    rows = [np.flatnonzero((sheet == rgb).all(axis=2).any(axis=1)) for rgb in [(200, 200, 0), *colors]]
    assert [len(one) for one in rows] == [24, 60, 60, 60]
    assert all(one.max() < other.min() for one, other in zip(rows, rows[1:], strict=False))
    assert [(sheet == rgb).all(axis=2).any(axis=0).sum() for rgb in colors] == [6 * 60] * 3  # of nine views six
    assert (sheet[-MARGIN // 2 :] == 255).all() and (sheet[:, 1 - MARGIN :] == 255).all()
    bare = search_sheet("a thing", [], found, tile=60)
    assert bare.height < sheet.shape[0]
    assert search_sheet("a thing " * 40, [], found, tile=60).height > bare.height


def test_an_object_without_views_is_shown_as_its_points(rng):
    """Red above blue, and green on the right of yellow for who looks from the front."""
    xyz = rng.uniform(-0.5, 0.5, (4000, 3))
    points = {"xyz": xyz, "rgb": np.where(xyz[:, 1:2] > 0, (255, 0, 0), (0, 0, 255)).astype(np.uint8), "area": None}
    for picture in views_around(points, 6, 80):
        shown = np.asarray(picture).astype(int)
        assert shown.shape == (80, 80, 4) and (shown[[0, -1]] == 0).all() and (shown[:, [0, -1]] == 0).all()
        red, blue = ((shown[..., channel] > 200) & (shown[..., 3] > 200) for channel in (0, 2))
        assert red.nonzero()[0].mean() < 33 < 45 < blue.nonzero()[0].mean()
    points["rgb"] = np.where(xyz[:, :1] > 0, (0, 255, 0), (255, 255, 0)).astype(np.uint8)
    front = np.asarray(views_around(points, 1, 80)[0]).astype(int)  # 30 degrees from the front
    yellow, green = front[..., 0] > 200, (front[..., 0] < 50) & (front[..., 1] > 200)
    assert yellow.nonzero()[1].mean() < 40 < green.nonzero()[1].mean()
    found = Found(subject=Subject(object_id="o", views=[], points=points), score=0.1)
    assert (np.asarray(search_sheet("a thing", [], [found])) == (0, 255, 0)).all(axis=2).any()


def test_points_of_one_colour_are_shaded(rng):
    xyz = rng.uniform(-0.5, 0.5, (4000, 3))
    white = {"xyz": xyz, "rgb": np.full((4000, 3), 255, np.uint8), "area": None}
    shown = np.asarray(views_around(white, 1, 80)[0])
    assert shown[shown[..., 3] > 200][:, :3].std() > 10 and shown[..., :3].max() < 200
