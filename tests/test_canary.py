"""The canary: figures as a plain count makes them, and what it must notice in embeddings that were spoilt on purpose."""

import dataclasses
import hashlib
import io
import json
import shutil
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image, ImageDraw

from evaluate.canary import canary
from jobs.__main__ import main
from pipeline.classes import ClassNames, EmbedClasses
from pipeline.embed import EmbedImages, EmbedTexts
from pipeline.reencode import reencode
from pipeline.run import run
from pipeline.stage import Single
from pipeline.store import Corpus
from pipeline.weights import TINY_TEACHER
from schemas.check import to_table
from schemas.corpus import CorpusError
from schemas.tables import CAPTIONS, OBJECTS, SPLITS, VIEWS, class_embeddings, image_embeddings, text_embeddings
from shout import object_row

TEACHER = "ViT-B-32:laion2b_s34b_b79k"
STAGE = {"stage": "s", "stage_key": "k"}


@dataclass
class Made:
    """Objects of some classes and what a teacher would say of them: direction of the class, of the object, noise for each view. As
    with CLIP, all pictures have a direction in common, and all texts another. A third of the objects is in one class."""

    objects: int = 300
    classes: int = 12
    views: int = 4
    dim: int = 48
    noise: float = 0.3
    seed: int = 0
    lengths: bool = True
    images: np.ndarray = field(init=False)  # (objects, views, dim), of any length
    texts: np.ndarray = field(init=False)  # (texts, dim); every fourth object also has a text that is another's
    names: np.ndarray = field(init=False)  # (classes, dim)
    raw_means: np.ndarray = field(init=False)  # (classes, dim), near them

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        self.names = rng.normal(size=(self.classes, self.dim))
        self.labels = np.minimum(rng.integers(0, self.classes * 3 // 2, self.objects), self.classes - 1)
        own = self.names[self.labels] + rng.normal(size=(self.objects, self.dim))
        self.images = own[:, None] + self.noise * rng.normal(size=(self.objects, self.views, self.dim)) * self.dim**0.5
        self.images += 2 * rng.normal(size=self.dim)
        self.images *= rng.uniform(0.5, 2, (self.objects, self.views, 1))
        common = rng.normal(size=self.dim)
        self.texts = own + rng.normal(size=(self.objects, self.dim)) + common
        self.names += common
        self.raw_means = self.names + rng.normal(size=self.names.shape)
        self.said = [(object, object) for object in range(self.objects)]
        self.said += [(object, (7 * object + 1) % self.objects) for object in range(0, self.objects, 4)]

    def write(self, root, *, split: str | None = None, tables: tuple[str, ...] = ("images", "texts", "names")) -> Corpus:
        """The corpus; `split`: the classes are its labels instead of categories."""
        corpus = Corpus.at(str(root))
        label = [f"class {number}" for number in self.labels]
        lists = [[]] * self.objects if split else [[name, f"nonsense {i % 3}"] for i, name in enumerate(label)]
        put(corpus, OBJECTS, [object_row(i, categories=list) for i, list in enumerate(lists)])
        if split:
            put(corpus, SPLITS, [STAGE | {"object_id": f"test/{i}", "split": split, "label": name} for i, name in enumerate(label)])
        put(
            corpus, CAPTIONS, [caption(f"test/{object}", number, f"text {text}") for number, (object, text) in enumerate(self.said)]
        )
        if "images" in tables:
            put(corpus, image_embeddings(TEACHER, self.dim), [
                STAGE | {"object_id": f"test/{i}", "embedding": list(unit(views)), "lengths": norm(views) if self.lengths else None}
                for i, views in enumerate(self.images)
            ])  # fmt: skip
        if "texts" in tables:
            put(corpus, text_embeddings(TEACHER, self.dim), [
                STAGE | {"text_sha256": sha256(f"text {i}"), "text": f"text {i}", "embedding": unit(text)}
                for i, text in enumerate(self.texts)
            ])  # fmt: skip
        if "names" in tables:
            put(corpus, class_embeddings(TEACHER, self.dim), [
                STAGE | {"name": f"class {i}", "embedding": unit(name), "raw_mean": raw.astype(np.float32)}
                for i, (name, raw) in enumerate(zip(self.names, self.raw_means, strict=True))
            ])  # fmt: skip
        return corpus


def put(corpus: Corpus, table, rows: list[dict]) -> None:
    corpus.create(table)
    corpus.append(table, corpus.write(table, to_table(table, rows)))


def caption(id: str, number: int, text: str) -> dict:
    row = {"object_id": id, "origin": "metadata", "caption": number, "text": text, "text_sha256": sha256(text), "model": "by hand"}
    return STAGE | row | {"kept": True}


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def norm(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors, axis=-1).astype(np.float32)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float16)


def shuffled(values: np.ndarray, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
    """The values with these rows in another order; none keeps its place."""
    made = values.copy()
    made[rows] = np.roll(made[rows], 1, axis=0)
    return made


def plain(cosine: np.ndarray, own: list[set[int]]) -> tuple[list[float], list[float]]:
    """Top-1, 3, 5 by counting, with every object's own row and on average over all rows."""
    order = np.argsort(-cosine, axis=1)
    hits = [[[bool(own[j] & set(order[i, :k])) for j in range(len(own))] for i in range(len(own))] for k in (1, 3, 5)]
    return [float(np.mean(np.diag(hit))) for hit in hits], [float(np.mean(hit)) for hit in hits]


@pytest.mark.parametrize("lengths", [True, False])
def test_the_figures_are_those_of_a_plain_count(tmp_path, lengths):
    made = Made(objects=80, noise=0.7, lengths=lengths)
    found = canary(made.write(tmp_path).root, TEACHER)
    views = made.images if lengths else unit(made.images).astype(float)
    mean = unit(views.mean(axis=1)).astype(float)
    said = [{text for object, text in made.said if object == i} for i in range(80)]
    assert sum(len(mine) == 2 for mine in said) > 15
    for one, gallery, right in (
        (found.classes, made.raw_means if lengths else made.names, [{label} for label in made.labels]),
        (found.captions, made.texts, said),
    ):
        top, chance = plain(mean @ unit(gallery).T.astype(float), right)
        assert np.allclose(one.top, top, atol=1.01 / 80) and np.allclose(one.chance, chance, atol=2e-3)  # float16: one may tip over
        alone = [plain(unit(made.images[:, view]).astype(float) @ unit(gallery).T.astype(float), right)[0][0] for view in range(4)]
        assert np.allclose([share for share, _ in one.views], alone, atol=1.01 / 80) and {count for _, count in one.views} == {80}
    assert (found.classes.choices, found.captions.choices, found.classes.objects) == (12, 80, 80)
    assert found.averaged == ("raw vectors" if lengths else "unit vectors")


def test_the_z_is_that_of_real_shuffles(tmp_path):
    made = Made(objects=60, noise=0.7)
    found = canary(made.write(tmp_path).root, TEACHER).classes
    cosine = unit(made.images.mean(axis=1)).astype(float) @ unit(made.raw_means).T.astype(float)
    rng = np.random.default_rng(0)
    dealt = [cosine[np.arange(60), rng.permutation(made.labels)].mean() for _ in range(20_000)]
    z = (cosine[np.arange(60), made.labels].mean() - np.mean(dealt)) / np.std(dealt)
    assert found.z == pytest.approx(z, rel=0.03)


def test_sound_embeddings_are_fit_to_train_on(tmp_path):
    found = canary(Made().write(tmp_path).root, TEACHER)
    assert found.problems == () and found.classes.z > 20 and found.captions.z > 20
    assert found.notes == ("class names: 3 of 15 have no embedding yet (python -m jobs embed "
                           f"{tmp_path} --teacher {TEACHER})",)  # fmt: skip
    json.dumps(dataclasses.asdict(found))


@pytest.mark.parametrize(
    ("what", "noticed"), [("images", ["class names", "captions"]), ("texts", ["captions"]), ("raw_means", ["class names"])]
)
def test_swapped_rows_are_noticed_where_they_are(tmp_path, what, noticed):
    made = Made()
    setattr(made, what, shuffled(getattr(made, what)))
    found = canary(made.write(tmp_path).root, TEACHER)
    assert [problem.partition(":")[0] for problem in found.problems] == noticed
    assert all("swapped" in problem for problem in found.problems)


def test_a_swapped_run_of_rows_is_noticed_and_said_where(tmp_path):
    made = Made(objects=1200)
    made.images = shuffled(made.images, slice(480, 600))
    found = canary(made.write(tmp_path).root, TEACHER)
    assert found.classes.shuffled_runs == found.captions.shuffled_runs == ((480, 539), (540, 599))
    assert "rows 480 to 539" in found.problems[0] and len(found.problems) == 4


def test_a_tenth_of_the_rows_strewn_about_is_not_noticed(tmp_path):
    """What the canary cannot do, as its file says; encoding again can (below)."""
    made = Made(objects=1200)
    made.images = shuffled(made.images, np.random.default_rng(1).choice(1200, 120, replace=False))
    assert canary(made.write(tmp_path).root, TEACHER).problems == ()


def test_embeddings_of_another_teacher_and_constant_ones_are_noticed(tmp_path, rng):
    made = Made()
    made.images = rng.normal(size=made.images.shape)
    found = canary(made.write(tmp_path / "other").root, TEACHER)
    assert len(found.problems) == 2 and all("the teacher does not know these objects" in problem for problem in found.problems)
    made.images = np.broadcast_to(made.names[0] + 1e-4 * rng.normal(size=made.images.shape), made.images.shape)
    found = canary(made.write(tmp_path / "constant").root, TEACHER)
    assert len(found.problems) == 2 and all("nearly the same" in problem for problem in found.problems)
    assert found.classes.top[0] <= 0.5


def test_what_is_as_near_as_everything_else_is_not_found(tmp_path):
    made = Made()
    made.texts[:] = made.texts[0]
    found = canary(made.write(tmp_path).root, TEACHER)
    assert found.captions.top == (0, 0, 0) and found.captions.z == 0 and [one[:9] for one in found.problems] == ["captions:"]


def test_tables_of_two_teachers_by_one_name_are_not_compared(tmp_path):
    corpus = Made(objects=40).write(tmp_path)
    for kind, make in (("image", image_embeddings), ("text", text_embeddings)):
        corpus.create(make(TEACHER, 48), {"stage": f"embed-{kind}s", "settings": {"teacher": {"weights_sha256": kind}}})
    with pytest.raises(CorpusError, match="weights_sha256: image against text"):
        canary(corpus.root, TEACHER)


def test_a_camera_that_shows_nothing_is_named(tmp_path, rng):
    made = Made(views=12)
    made.images[:, 7] = rng.normal(size=made.images[:, 7].shape)
    found = canary(made.write(tmp_path).root, TEACHER)
    assert [problem.partition(" alone")[0] for problem in found.problems] == ["class names: view 7", "captions: view 7"]


def test_objects_of_several_numbers_of_views_are_counted_view_by_view(tmp_path):
    made = Made(objects=40)
    made.images = [views[: 1 + number % 4] for number, views in enumerate(made.images)]
    assert [count for _, count in canary(made.write(tmp_path).root, TEACHER).classes.views] == [40, 30, 20, 10]


@pytest.mark.parametrize(("noise", "problems"), [(0.5, 0), (6.0, 1)])
def test_what_is_published_is_the_measure_on_objaverse_lvis(tmp_path, noise, problems):
    found = canary(Made(objects=1000, classes=100, noise=noise).write(tmp_path, split="objaverse-lvis").root, TEACHER)
    assert found.known == (0.357, 0.548, 0.621) and found.classes.asked == "labels of objaverse-lvis"
    assert [problem for problem in found.problems if "35.7%" in problem] == list(found.problems) and len(found.problems) == problems
    if problems:  # the floor is the caller's to set
        assert canary(found.root, TEACHER, floor=found.classes.top[0] / 0.357 - 0.01).problems == ()


def test_few_objects_are_not_compared_with_what_is_published(tmp_path):
    found = canary(Made(noise=6.0, objects=999).write(tmp_path, split="objaverse-lvis").root, TEACHER)
    assert found.known is None and "999 objects are too few" in found.notes[0]


def test_the_split_may_be_said_and_must_be_there(tmp_path):
    corpus = Made().write(tmp_path, split="mine")
    assert (
        canary(corpus.root, TEACHER).classes.asked == canary(corpus.root, TEACHER, split="mine").classes.asked == "labels of mine"
    )
    with pytest.raises(CorpusError, match="no split 'yours' with labels; it has: mine"):
        canary(corpus.root, TEACHER, split="yours")


def test_what_is_missing_is_named_with_the_job_that_makes_it(tmp_path):
    made = Made(objects=40)
    with pytest.raises(CorpusError, match=f"image_embeddings/{TEACHER}.*jobs embed .* --teacher {TEACHER}"):
        canary(made.write(tmp_path / "a", tables=()).root, TEACHER)
    found = canary(made.write(tmp_path / "b", tables=("images", "texts")).root, TEACHER)
    assert found.classes is None and found.problems == () and f"no table class_embeddings/{TEACHER}" in found.notes[0]
    found = canary(made.write(tmp_path / "c", tables=("images",)).root, TEACHER)
    assert len(found.problems) == 1 and "nothing of" in found.problems[0] and "jobs caption" in found.problems[0]


def test_captions_of_other_objects_alone_are_nothing_to_look_up(tmp_path):
    made = Made(objects=40)
    corpus = made.write(tmp_path, tables=("images", "texts"))
    corpus.delete(CAPTIONS, [f"test/{number}" for number in range(40)])
    put(corpus, CAPTIONS, [caption("other/0", 0, "text 0")])
    found = canary(corpus.root, TEACHER)
    assert found.captions is None and len(found.problems) == 1
    assert "captions: no object with embedded views has any" in found.notes


def test_few_objects_tell_nothing_and_that_is_said(tmp_path):
    made = Made(objects=4)
    made.images = shuffled(made.images)
    found = canary(made.write(tmp_path).root, TEACHER)
    assert found.captions.z_needed is None and "captions: too few objects" in found.notes[-1]


def test_a_sample_is_as_large_as_asked_and_the_same_each_time(tmp_path):
    root = Made().write(tmp_path).root
    one, again, other = (canary(root, TEACHER, classified=100, captioned=50, seed=seed) for seed in (0, 0, 1))
    assert (one.classes.objects, one.captions.objects) == (100, 50) and one.classes.choices == 12
    assert one == again and one.classes.z != other.classes.z


# With a teacher that is here: the whole story, and encoding again

COLOURS = ("red", "green", "blue", "yellow", "black", "orange")
STAGES = [kind(teacher=TINY_TEACHER, device="cpu") for kind in (EmbedImages, EmbedTexts)]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Corpus:
    """Coloured discs and squares, embedded by the tiny teacher."""
    corpus = Corpus.at(str(tmp_path_factory.mktemp("tiny") / "corpus"))
    rng = np.random.default_rng(0)
    things = [(f"test/{number}", COLOURS[number % 6], ("disc", "square")[number // 6 % 2]) for number in range(36)]
    put(corpus, OBJECTS, [object_row(i, categories=[colour]) for i, (_, colour, _) in enumerate(things)])
    put(corpus, VIEWS, [view(id, number, picture(colour, shape, rng)) for id, colour, shape in things for number in range(3)])
    put(corpus, CAPTIONS, [caption(id, 0, f"a {colour} {shape}") for id, colour, shape in things])
    for stage in STAGES:
        run(corpus, Single(stage))
    run(corpus, Single(EmbedClasses(teacher=TINY_TEACHER, device="cpu")), records=ClassNames(corpus), whole=True)
    return corpus


def picture(colour: str, shape: str, rng) -> bytes:
    image = Image.new("RGBA", (96, 96))
    x, y = (int(value) for value in rng.integers(5, 30, 2))
    draw = ImageDraw.Draw(image)
    (draw.ellipse if shape == "disc" else draw.rectangle)((x, y, x + 55, y + 55), fill=colour)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def view(id: str, number: int, image: bytes) -> dict:
    measures = dict.fromkeys(("alpha_coverage", "border_coverage", "dark_share", "bright_share", "luminance"), 0.5)
    camera = {"intrinsics": [80.0, 80.0, 48.0, 48.0], "camera_to_world": np.eye(4).ravel().tolist(), "kind": "photo"}
    return STAGE | measures | camera | {"object_id": id, "view": number, "image": image, "width": 96, "height": 96}


def rewritten(built: Corpus, tmp_path, change) -> Corpus:
    """A copy of the corpus with other image embeddings: `change` takes and gives the list of them."""
    name = f"image_embeddings/{TINY_TEACHER}"
    copy = Corpus.at(str(tmp_path / "copy"))
    shutil.copytree(built.root, copy.root)
    shutil.rmtree(copy.uri(name))
    copy.create(built.declared(name), *built.made_by(name).values())
    rows = to_table(built.declared(name), change(built.need(name).to_table().to_pylist()))
    copy.append(built.declared(name), copy.write(built.declared(name), rows))
    return copy


def test_encoding_again_gives_what_is_stored(built):
    found = reencode(built, TINY_TEACHER, 5)
    assert [one.table for one in found] == [f"{kind}_embeddings/{TINY_TEACHER}" for kind in ("image", "text", "class")]
    assert [one.compared for one in found] == [5, 5, 1]
    assert all(one.worst > 0.9999 and one.differing == () and one.skipped is None for one in found)


def test_encoding_again_finds_the_very_rows_that_are_swapped(built, tmp_path):
    def swap(rows):
        for column in ("embedding", "lengths"):
            rows[3][column], rows[20][column] = rows[20][column], rows[3][column]
        return rows

    copy = rewritten(built, tmp_path, swap)
    ids = copy.need(f"image_embeddings/{TINY_TEACHER}").to_table()["object_id"].to_pylist()
    images, *_ = reencode(copy, TINY_TEACHER, 36)
    assert images.compared == 36 and images.differing == tuple(sorted((ids[3], ids[20])))


def test_encoding_again_notices_views_in_another_order_and_lost_ones(built, tmp_path):
    turned = rewritten(built, tmp_path / "a", lambda rows: [row | {"embedding": row["embedding"][::-1]} for row in rows])
    assert len(reencode(turned, TINY_TEACHER, 36)[0].differing) > 12  # of two in three, another view
    fewer = rewritten(
        built, tmp_path / "b", lambda rows: [row | {"embedding": row["embedding"][:2], "lengths": None} for row in rows]
    )
    assert reencode(fewer, TINY_TEACHER, 4)[0].worst == -1


def test_weights_that_are_not_here_or_others_are_no_problem_of_the_corpus(built, tmp_path):
    [found] = reencode(built, "ViT-B-32:openai", 4)
    assert found.compared == 0 and "not on this machine" in found.skipped
    copy = rewritten(built, tmp_path, list)
    for kind in ("image", "text", "class"):
        name = f"{kind}_embeddings/{TINY_TEACHER}"
        [made] = copy.made_by(name).values()
        copy.create(
            copy.declared(name), made | {"settings": {"teacher": made["settings"]["teacher"] | {"weights_sha256": "b" * 64}}}
        )
    [found] = reencode(copy, TINY_TEACHER, 4)
    assert "made with the weights bbbbbbbbbbbb…" in found.skipped


def test_the_job_tells_a_fit_corpus_from_one_that_is_not(built, tmp_path, capsys):
    assert main(["evaluate", "canary", built.root]) == 0
    page = capsys.readouterr().out
    assert "36 objects looked up among 12 captions" in page and page.endswith("verdict: fit to train on\n")
    spoilt = rewritten(
        built, tmp_path, lambda rows: [row | {"embedding": rows[number - 1]["embedding"]} for number, row in enumerate(rows)]
    )
    assert main(["evaluate", "canary", spoilt.root, "--recompute", "0"]) == 1
    page = capsys.readouterr().out
    assert "problem: captions: " in page and page.endswith("verdict: NOT fit to train on\n")
    assert main(["evaluate", "canary", spoilt.root, "--json", "--teacher", TINY_TEACHER]) == 1
    [told] = json.loads(capsys.readouterr().out)["teachers"]
    assert told["fit"] is False and told["captions"]["objects"] == 36 and len(told["reencoded"][0]["differing"]) > 25


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--teacher", "ViT-B-33:openai"], 2, "no architecture 'ViT-B-33'"),
        (["--teacher", "ViT-B-32:openai"], 1, "--teacher ViT-B-32:openai"),
        (["--objects", "0"], 2, "--objects 0: must be 1 or more"),
        (["--split", "nowhere"], 1, "has no table 'splits'"),
    ],
)
def test_wrong_arguments_are_answered_with_a_sentence(built, arguments, code, said, capsys):
    assert main(["evaluate", "canary", built.root, *arguments]) == code
    assert said in capsys.readouterr().err
