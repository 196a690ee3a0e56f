"""Class names as vectors: from the teacher, a corpus and published files; what is not there, and what is of another teacher."""

import numpy as np
import pytest

from evaluate import class_names
from evaluate.benchmark import Benchmark
from evaluate.class_names import WEIGHTS, class_source, class_vectors, source_told
from pipeline.classes import PROMPTS
from pipeline.stage import ObjectError
from pipeline.store import Corpus
from pipeline.teacher import Teacher, unit
from pipeline.weights import TINY_TEACHER, TeacherError, identity
from schemas.check import to_table
from schemas.corpus import CorpusError, Reader
from schemas.tables import class_embeddings

BIG = "ViT-bigG-14:laion2b_s39b_b160k"  # whose weights are not here
DIM = 64  # of the tiny teacher


def of(*classes, corpus=None) -> Benchmark:
    where = {"corpus": corpus} if corpus else {"cloud": lambda number: None}
    return Benchmark(name="made", variant="", classes=classes, ids=(), labels=np.zeros(0, np.int64), **where)


@pytest.fixture
def stored(tmp_path, rng):
    """A corpus that has the class embeddings of three names by the tiny teacher, and the vectors themselves."""
    corpus = Corpus(str(tmp_path / "stored"))
    table = class_embeddings(TINY_TEACHER, DIM)
    raw = rng.normal(size=(3, DIM)).astype(np.float32)
    units = unit(raw[::-1].copy())[0].astype(np.float16)  # not those of `raw`, so that the columns cannot be mistaken
    names = ("mug", "chair", "flower pot")
    rows = [
        {"name": name, "embedding": units[number], "raw_mean": raw[number], "stage": "embed-classes", "stage_key": "k"}
        for number, name in enumerate(names)
    ]
    settings = {"teacher": identity(TINY_TEACHER).to_json(), "prompts": "ulip-64@1"}
    corpus.create(table, {"stage": "embed-classes", "settings": settings})
    corpus.append(table, corpus.write(table, to_table(table, rows)))
    return corpus.root, dict(zip(names, raw, strict=True)), dict(zip(names, units.astype(np.float32), strict=True))


def test_the_teacher_gives_the_mean_of_the_prompts_by_either_rule():
    names = ("sofa", "night stand")
    teacher = Teacher(TINY_TEACHER, device="cpu")
    found = {rule: class_vectors(of(*names), TINY_TEACHER, rule, source=WEIGHTS) for rule in class_names.COLUMNS}
    for number, name in enumerate(names):
        vectors = teacher.text_vectors([prompt.replace("{}", name) for prompt in PROMPTS["ulip-64@1"]])
        np.testing.assert_allclose(found["raw templates"][number], vectors.mean(axis=0), atol=1e-5)
        mean = unit(vectors)[0].mean(axis=0)
        np.testing.assert_allclose(found["unit templates"][number], mean / np.linalg.norm(mean), atol=1e-3)


def test_a_corpus_gives_the_column_of_the_rule_in_the_benchmarks_order(stored):
    root, raw, units = stored
    order = ("flower pot", "mug")
    for rule, expected in (("raw templates", raw), ("unit templates", units)):
        found = class_vectors(of(*order), TINY_TEACHER, rule, source=root)
        np.testing.assert_array_equal(found, [expected[name] for name in order])
        assert found.dtype == np.float32
        np.testing.assert_array_equal(class_vectors(of(*order, corpus=root), TINY_TEACHER, rule), found)


def test_the_benchmarks_corpus_is_taken_if_it_has_all_names_and_the_weights_otherwise(stored, tmp_path):
    root = stored[0]
    assert class_source(of("mug", "chair", corpus=root), TINY_TEACHER) == root
    assert class_source(of("mug", "sofa", corpus=root), TINY_TEACHER) == WEIGHTS
    assert class_source(of("mug"), TINY_TEACHER) == WEIGHTS
    assert class_source(of("mug", corpus=str(tmp_path / "nothing")), TINY_TEACHER) == WEIGHTS
    with pytest.raises(TeacherError, match="class names of made have no vectors of .* Give --class-embeddings .* are not on this"):
        class_source(of("mug"), BIG)


def test_what_a_source_is_called(stored):
    assert source_told(WEIGHTS, TINY_TEACHER, "unit templates") == "unit templates, ulip-64@1, made by the teacher"
    assert source_told(stored[0], TINY_TEACHER, "raw templates") == f"raw templates, ulip-64@1, of {stored[0]}"
    assert source_told("/a/cat_name_pt_feat.npy", BIG, "raw templates") == "as cat_name_pt_feat.npy has them"


def test_a_corpus_that_lacks_a_class_is_refused_by_its_name(stored):
    with pytest.raises(CorpusError, match="has no class embeddings by tricorpus-tiny:shapes-v1 of 'sofa', 'bed'"):
        class_vectors(of("mug", "sofa", "bed"), TINY_TEACHER, "unit templates", source=stored[0])
    many = [f"thing {number}" for number in range(9)]
    with pytest.raises(CorpusError, match="'thing 4' and 4 more classes"):
        class_vectors(of(*many), TINY_TEACHER, "unit templates", source=stored[0])
    with pytest.raises(CorpusError, match=f"has no table 'class_embeddings/{BIG}'"):
        class_vectors(of("mug"), BIG, "unit templates", source=stored[0])


def test_vectors_of_other_weights_than_the_encoders_teacher_are_refused(stored):
    own = identity(TINY_TEACHER).weights_sha256
    for source in (stored[0], WEIGHTS):
        class_vectors(of("mug"), TINY_TEACHER, "unit templates", source=source, weights_sha256=own)
    with pytest.raises(CorpusError, match=f"are of weights {own}, and the encoder's teacher had 00ff: two models of one name"):
        class_vectors(of("mug"), TINY_TEACHER, "unit templates", source=stored[0], weights_sha256="00ff")
    with pytest.raises(TeacherError, match=f"have SHA-256 {own}, and the encoder's teacher had 00ff: two models of one name"):
        class_vectors(of("mug"), TINY_TEACHER, "unit templates", source=WEIGHTS, weights_sha256="00ff")


# ---------------------------------------------------------------------------------------------------------------- published files


def openshape_file(path, vectors):
    """As OpenShape writes cat_name_pt_feat.npy: a pickled dictionary of dictionaries."""
    np.save(path, {name: {"open_clip_text_feat": one} for name, one in vectors.items()}, allow_pickle=True)
    return str(path)


def test_openshapes_file_is_read_by_name_in_any_order_and_spelling(tmp_path, rng):
    vectors = {name: rng.normal(size=1280).astype(np.float32) for name in ("night_stand", "airplane", "chair", "xbox")}
    for number, shape in enumerate(((1280,), (1, 1280))):
        given = {name: one.reshape(shape) for name, one in vectors.items()}
        place = openshape_file(tmp_path / f"{number}.npy", given)
        for rule in class_names.COLUMNS:
            found = class_vectors(of("airplane", "night stand", "xbox"), BIG, rule, source=place)
            np.testing.assert_array_equal(found, [vectors[name] for name in ("airplane", "night_stand", "xbox")])


def test_an_array_has_a_row_for_each_class_in_the_official_order(tmp_path, rng):
    vectors = rng.normal(size=(3, 1280)).astype(np.float16)
    np.save(tmp_path / "lvis.npy", vectors)
    found = class_vectors(of("Band_Aid", "Bible", "ax"), BIG, "unit templates", source=str(tmp_path / "lvis.npy"))
    np.testing.assert_array_equal(found, vectors.astype(np.float32))
    with pytest.raises(ObjectError, match=r"an array \(3, 1280\) of float16; made needs .* each of its 2 classes"):
        class_vectors(of("Band_Aid", "Bible"), BIG, "unit templates", source=str(tmp_path / "lvis.npy"))


class Calls:
    """Pickled, it would run a function when it is loaded."""

    def __reduce__(self):
        return (print, ("run",))


def test_a_file_that_is_something_else_is_refused(tmp_path, rng, capsys):
    some = rng.normal(size=8).astype(np.float32)
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY\x01\x00")
    (tmp_path / "text.npy").write_text("not numpy")
    np.save(tmp_path / "nan.npy", np.full((1, 8), np.nan))
    np.save(tmp_path / "whole.npy", np.ones((1, 8), np.int64))
    np.save(tmp_path / "list.npy", {"mug": some}, allow_pickle=True)
    np.save(tmp_path / "calls.npy", {"mug": {"open_clip_text_feat": Calls()}}, allow_pickle=True)
    openshape_file(tmp_path / "lacks.npy", {"cup": some})
    openshape_file(tmp_path / "ragged.npy", {"mug": some, "cup": some[:4]})
    for name, sentence in (
        ("absent", "there is no .*absent.npy"),
        ("torn", "torn.npy is no NumPy file"),
        ("text", "text.npy is no NumPy file"),
        ("nan", "needs finite numbers"),
        ("whole", "of int64"),
        ("list", r'is not OpenShape\'s \{name: \{"open_clip_text_feat"'),
        ("calls", "would call builtins.print: it is a program, not data"),
        ("lacks", "lacks.npy has no vectors of 'mug'; it has 1 classes"),
        ("ragged", "the vectors of 'cup' have other sizes"),
    ):
        classes = ("mug", "cup") if name == "ragged" else ("mug",)
        with pytest.raises(ObjectError, match=sentence):
            class_vectors(of(*classes), BIG, "unit templates", source=str(tmp_path / f"{name}.npy"))
    assert capsys.readouterr().out == ""


def test_an_import_which_does_not_know_its_weights_is_taken_as_it_is(tmp_path, rng):
    vectors = rng.normal(size=(2, DIM)).astype(np.float32)
    corpus = Corpus(str(tmp_path / "imported"))
    table = class_embeddings(TINY_TEACHER, DIM)
    rows = [
        {"name": name, "embedding": unit(one[None])[0][0].astype(np.float16), "raw_mean": one, "stage": "s", "stage_key": "k"}
        for name, one in zip(("mug", "chair"), vectors, strict=True)
    ]
    corpus.create(table)
    corpus.append(table, corpus.write(table, to_table(table, rows)))
    assert Reader.at(corpus.root).teacher_of(TINY_TEACHER) is None
    found = class_vectors(of("chair", "mug"), TINY_TEACHER, "raw templates", source=corpus.root, weights_sha256="00ff")
    np.testing.assert_array_equal(found, vectors[::-1])
    assert source_told(corpus.root, TINY_TEACHER, "raw templates") == f"raw templates, prompts not known, of {corpus.root}"
