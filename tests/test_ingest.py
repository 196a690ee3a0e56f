import hashlib
import os

import fsspec
import pytest

from pipeline.ingest import Ingest
from pipeline.run import run
from pipeline.sources.folder import Folder
from pipeline.sources.objaverse import Objaverse
from pipeline.sources.source import source_from
from pipeline.stage import Single
from pipeline.store import Corpus
from triangle import triangle


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "assets"
    root.mkdir()
    for number, name in enumerate(("a.glb", "b.glb", "c.glb")):
        (root / name).write_text(triangle(1 + number))
    (root / "d.obj").write_text("mtllib d.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (root / "d.mtl").write_text("newmtl d\n")
    return root


@pytest.fixture
def corpus(tmp_path):
    return Corpus(str(tmp_path / "corpus"))


def ingest(corpus, *sources, limit=None, **settings):
    stage = Ingest(sources, **settings)
    [summary] = run(corpus, Single(stage), records=stage.records(limit))
    return summary.done, summary.failed, summary.skipped


def objects(corpus):
    return {row["object_id"]: row for row in corpus.need("objects").to_table().to_pylist()}


def reasons(corpus):
    return {row["object_id"]: row["reason"] for row in corpus.need("failures").to_table().to_pylist()}


def test_every_asset_becomes_a_row_with_the_hash_of_its_bytes(corpus, folder):
    assert ingest(corpus, Folder("folder", str(folder))) == (4, 0, 0)
    rows = objects(corpus)
    content = (folder / "a.glb").read_bytes()
    row = rows["folder/a.glb"]
    assert (row["asset_sha256"], row["asset_bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
    assert row["companions_sha256"] is None and rows["folder/d.obj"]["companions_sha256"] is not None


def test_a_second_run_does_only_what_changed(corpus, folder):
    source = Folder("folder", str(folder))
    ingest(corpus, source)
    before = objects(corpus)
    assert ingest(corpus, source) == (0, 0, 4)
    (folder / "b.glb").write_text(triangle(10))
    (folder / "d.mtl").write_text("newmtl changed\n")
    (folder / "e.glb").write_text(triangle(11))
    assert ingest(corpus, source) == (3, 0, 2)
    after = objects(corpus)
    assert {id for id in before if before[id] != after[id]} == {"folder/b.glb", "folder/d.obj"}
    assert after["folder/d.obj"]["asset_sha256"] == before["folder/d.obj"]["asset_sha256"]
    assert after["folder/d.obj"]["companions_sha256"] != before["folder/d.obj"]["companions_sha256"]


def test_another_source_leaves_the_rows_of_the_first_as_they_are(corpus, folder):
    one, two = Folder("one", str(folder)), source_from(f"two:folder={folder}")
    ingest(corpus, one, limit=2)
    assert ingest(corpus, one, two, limit=3) == (4, 0, 2)
    assert objects(corpus).keys() == {f"{name}/{file}.glb" for name in ("one", "two") for file in "abc"}


def test_what_cannot_be_used_is_a_failure_with_its_reason_and_is_done_once_it_can(corpus, folder):
    (folder / "a.glb").write_text("")
    (folder / "b.glb").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (folder / "c.glb").unlink()
    (folder / "c.glb").symlink_to("nowhere.glb")
    (folder / "e.glb").symlink_to("../out.glb")
    source = Folder("folder", str(folder))
    assert ingest(corpus, source) == (1, 4, 0)
    assert reasons(corpus) == {
        "folder/a.glb": "empty_file",
        "folder/b.glb": "not_a_mesh_file",
        "folder/c.glb": "asset_missing",
        "folder/e.glb": "link_outside",
    }
    assert ingest(corpus, source) == (0, 0, 5)
    for name in "abce":
        (folder / f"{name}.glb").unlink()
        (folder / f"{name}.glb").write_text(triangle())
    assert ingest(corpus, source) == (4, 0, 1)
    assert len(objects(corpus)) == 5 and not reasons(corpus)


def test_an_asset_that_goes_away_or_may_not_be_read_is_a_failure(corpus, folder):
    stage = Ingest((Folder("folder", str(folder)),))
    records = list(stage.records())
    (folder / "a.glb").unlink()
    os.chmod(folder / "b.glb", 0)
    run(corpus, Single(stage), records=records)
    expected = {"folder/a.glb": "asset_missing"}
    assert reasons(corpus) == (expected if os.geteuid() == 0 else expected | {"folder/b.glb": "asset_unreadable"})


def test_an_object_store_gives_the_same_hashes(tmp_path, folder):
    fsspec.filesystem("memory").put(str(folder), "/ingest", recursive=True)
    here, there = Corpus(str(tmp_path / "here")), Corpus(str(tmp_path / "there"))
    ingest(here, Folder("folder", str(folder)))
    ingest(there, Folder("folder", "memory://ingest"))
    hashes = ("asset_sha256", "asset_bytes", "companions_sha256", "source_id", "name")
    found = [{id: [row[name] for name in hashes] for id, row in objects(corpus).items()} for corpus in (here, there)]
    assert found[0] == found[1] and len(found[0]) == 4


def test_the_real_part_of_objaverse_comes_in_whole(corpus, assets):
    source = Objaverse("objaverse", str(assets / "objaverse"))
    assert ingest(corpus, source, limit=10) == (10, 0, 0)
    assert ingest(corpus, source) == (209, 4, 10)
    assert sorted(reasons(corpus).values()) == ["age_restricted", "asset_missing", "asset_missing", "asset_missing"]
    assert ingest(corpus, source, age_restricted=True) == (1, 0, 222)
    assert ingest(corpus, source, age_restricted=True) == (0, 0, 223)
    rows = objects(corpus)
    assert len(rows) == 220
    same = [
        rows[f"objaverse/{uid}"]["asset_sha256"] for uid in ("80917f25e8589c6baf997046e6c54177", "b427d0498cb51f3d5ccd89f712692823")
    ]
    assert same[0] == same[1]


def test_a_cut_metadata_file_costs_only_its_own_objects(corpus, assets, tmp_path):
    root = tmp_path / "objaverse"
    (root / "glbs" / "000-000").mkdir(parents=True)
    (root / "glbs" / "000-001").mkdir()
    for shard in ("000-000", "000-001"):
        (root / "glbs" / shard / f"{shard[-1] * 32}.glb").write_text(triangle())
    (root / "metadata").mkdir()
    cut = assets / "malformed" / "107_datasets_objaverse_shard_truncated" / "metadata" / "000-001.json.gz"
    (root / "metadata" / "000-001.json.gz").write_bytes(cut.read_bytes())
    assert ingest(corpus, Objaverse("objaverse", str(root))) == (1, 1, 0)
    [failure] = corpus.need("failures").to_table().to_pylist()
    assert failure["reason"] == "metadata_unreadable" and str(root / "metadata" / "000-001.json.gz") in failure["message"]


def test_an_object_of_two_collections_keeps_two_ids_and_one_hash(corpus, folder, tmp_path):
    shard = tmp_path / "objaverse" / "glbs" / "000-000"
    shard.mkdir(parents=True)
    (shard / "0123.glb").write_bytes((folder / "a.glb").read_bytes())
    ingest(corpus, Folder("folder", str(folder)), Objaverse("objaverse", str(tmp_path / "objaverse")))
    rows = objects(corpus)
    same = {id for id, row in rows.items() if row["asset_sha256"] == rows["folder/a.glb"]["asset_sha256"]}
    assert same == {"folder/a.glb", "objaverse/0123"}
