import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from pipeline.store import Corpus, CorpusError
from schemas.check import to_table
from schemas.tables import FAILURES, OBJECTS, Table, text_embeddings
from shout import object_row


def rows(corpus, *numbers, **changes):
    return corpus.write(OBJECTS, to_table(OBJECTS, [object_row(number, **changes) for number in numbers]))


def ids(corpus):
    return sorted(corpus.need("objects").to_table(columns=["object_id"])["object_id"].to_pylist())


def test_written_fragments_are_invisible_until_they_are_appended(corpus):
    before = ids(corpus)
    fragments = rows(corpus, 100, 101)
    assert ids(corpus) == before
    corpus.append(OBJECTS, fragments)
    assert ids(corpus) == sorted([*before, "test/100", "test/101"])


def test_the_meaning_of_every_column_is_stored_in_the_data(corpus):
    for stored in corpus.need("objects").schema:
        declared = OBJECTS.schema.field(stored.name)
        assert stored.metadata[b"doc"] == declared.metadata[b"doc"]
        assert (stored.type, stored.nullable) == (declared.type, declared.nullable)


def test_the_settings_that_made_a_table_are_stored_with_it_and_columns_keep_their_docs(corpus):
    corpus.create(OBJECTS, {"stage": "ingest", "settings": {"a": 1}})
    corpus.create(OBJECTS, {"stage": "import", "settings": {}})
    corpus.create(OBJECTS, {"stage": "ingest", "settings": {"a": 2}})
    assert corpus.made_by("objects") == {
        "ingest": {"stage": "ingest", "settings": {"a": 2}},
        "import": {"stage": "import", "settings": {}},
    }
    declared = corpus.declared("objects")
    assert (declared.key, declared.shared) == (OBJECTS.key, OBJECTS.shared)
    assert len(ids(corpus)) == 20
    assert b"doc" in corpus.need("objects").schema.field("name").metadata


def test_deleting_takes_only_the_named_rows_whatever_their_names(corpus):
    corpus.append(OBJECTS, rows(corpus, 30, object_id="it's; DROP -- «模型»"))
    corpus.delete(OBJECTS, ["it's; DROP -- «模型»", "test/3"])
    assert ids(corpus) == sorted(f"test/{n}" for n in range(20) if n != 3)


def test_rows_are_taken_in_the_order_asked_for_from_the_version_asked_for(corpus):
    version = corpus.need("objects").version
    corpus.delete(OBJECTS, ["test/0"])
    taken = corpus.take("objects", version, np.array([5, 0, 7]), ["object_id"])
    assert [row["object_id"] for row in taken] == ["test/5", "test/0", "test/7"]


def test_a_key_that_occurs_twice_is_noticed(corpus):
    corpus.check_unique(OBJECTS)
    corpus.append(OBJECTS, rows(corpus, 4))
    with pytest.raises(CorpusError, match="'test/4'} occurs twice"):
        corpus.check_unique(OBJECTS)


def test_compaction_keeps_rows_and_order(corpus):
    for number in range(100, 170):
        corpus.append(OBJECTS, rows(corpus, number))
    before = corpus.need("objects").to_table()
    assert len(corpus.need("objects").get_fragments()) == 71
    corpus.compact(OBJECTS)
    assert len(corpus.need("objects").get_fragments()) == 1
    assert corpus.need("objects").to_table().equals(before)


def test_a_table_of_other_columns_is_refused(corpus):
    other = Table("objects", pa.schema([*OBJECTS.schema, pa.field("mood", pa.string())]), ("object_id",))
    with pytest.raises(CorpusError, match=r"other columns \(mood\)"):
        corpus.create(other)


def test_tables_of_teachers_are_found_by_name(corpus):
    corpus.create(text_embeddings("ViT-bigG-14:laion2b_s39b_b160k", 4))
    corpus.create(FAILURES)
    assert corpus.tables() == ["failures", "objects", "text_embeddings/ViT-bigG-14:laion2b_s39b_b160k"]


def test_a_folder_that_is_no_corpus_is_refused_with_its_name(tmp_path):
    with pytest.raises(CorpusError, match=f"{tmp_path} has no table 'objects'"):
        Corpus(str(tmp_path)).need("objects")


def test_a_killed_holder_frees_the_lock(corpus):
    code = f"""
import time
from pipeline.store import Corpus
with Corpus({corpus.root!r}).lock():
    print("locked", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(CorpusError, match=f"process {holder.pid} on"):
        with corpus.lock():
            pass
    holder.kill()
    holder.wait()
    with corpus.lock():
        pass
