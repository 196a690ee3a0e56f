"""Reading a corpus without the pipeline: what is there, what made it, and that it is one teacher's."""

import subprocess
import sys

import numpy as np
import pytest

from pipeline.store import Corpus
from schemas.corpus import CorpusError, Reader, any_of
from schemas.tables import OBJECTS, VIEWS, class_embeddings, image_embeddings, text_embeddings

TEACHER = "ViT-B-32:mine"


def made_with(stage: str, **identity) -> dict:
    return {
        "stage": stage,
        "settings": {"teacher": {"name": TEACHER, "weights_sha256": "a" * 64, "mean": [0.5] * 3, "dim": 4} | identity},
    }


@pytest.fixture
def embedded(corpus) -> Corpus:
    corpus.create(image_embeddings(TEACHER, 4), made_with("embed-images"))
    corpus.create(text_embeddings(TEACHER, 4), made_with("embed-texts"))
    return corpus


def test_a_reader_sees_what_the_pipeline_wrote(corpus):
    reader = Reader.at(corpus.root)
    assert reader.tables() == ["objects"] and reader.teachers() == []
    assert reader.need("objects").to_table().equals(corpus.need("objects").to_table())
    assert reader.need("objects").to_table(filter=any_of("object_id", ["test/3", "it's"]))["name"].to_pylist() == ["Thing 3"]


def test_reading_needs_nothing_of_the_pipeline():
    code = "import sys, schemas.corpus; print({'pipeline', 'ray', 'torch', 'open_clip', 'bpy'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_what_lacks_names_the_job_that_makes_it(corpus):
    for table, job in ((VIEWS.name, f"render {corpus.root}"), ("text_embeddings/a:b", f"embed {corpus.root} --teacher a:b")):
        assert corpus.open(table) is None and corpus.made_by(table) == {}
        with pytest.raises(CorpusError, match=f"has no table '{table}'.*python -m jobs {job}\\)"):
            corpus.need(table)


def test_the_teachers_are_those_that_have_embedded_views(embedded):
    embedded.create(text_embeddings("a:texts-alone", 4))
    embedded.create(image_embeddings("a:another", 4))
    assert embedded.teachers() == [TEACHER, "a:another"]


def test_tables_tell_what_their_teacher_was_and_imports_do_not(embedded):
    embedded.create(image_embeddings(TEACHER, 4), {"stage": "import-openshape", "settings": {}})
    identity = made_with("x")["settings"]["teacher"]
    assert embedded.identities(f"image_embeddings/{TEACHER}") == {"embed-images": identity}
    assert embedded.teacher_of(TEACHER) == identity
    embedded.create(OBJECTS, {"stage": "ingest", "settings": {}})
    assert embedded.identities("objects") == {} and embedded.teacher_of("a:stranger") is None


@pytest.mark.parametrize("other", [{"weights_sha256": "b" * 64}, {"mean": [0.4] * 3}, {"dim": 5}])
def test_tables_of_two_teachers_by_one_name_are_refused_and_both_are_named(embedded, other):
    embedded.create(class_embeddings(TEACHER, 4), made_with("embed-classes", **other))
    [(key, value)] = other.items()
    with pytest.raises(CorpusError) as refused:
        embedded.teacher_of(TEACHER)
    said = str(refused.value)
    assert f"class_embeddings/{TEACHER}" in said and f"image_embeddings/{TEACHER}" in said
    assert f"{key}: {made_with('x')['settings']['teacher'][key]} against {value}" in said


def test_a_writer_is_a_reader(corpus):
    assert isinstance(corpus, Reader) and Corpus.at(corpus.root) == corpus
    assert corpus.take("objects", corpus.need("objects").version, np.array([2]), ["name"]) == [{"name": "Thing 2"}]
