import hashlib
import json
import uuid

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest

from pipeline.ingest import Ingest
from pipeline.run import run
from pipeline.sources.objaverse_xl import ObjaverseXL
from pipeline.sources.record import spdx
from pipeline.sources.source import source_from
from pipeline.stage import Single
from pipeline.store import Corpus

REPOSITORY = "https://github.com/ann/models/blob/" + "c" * 40


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def annotated(identifier, content, license=None, metadata="{}"):
    return {"fileIdentifier": identifier, "license": license, "fileType": "glb", "sha256": sha256(content), "metadata": metadata}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def annotate(folder, part, rows, name=None):
    path = folder / part / f"{name or part}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pa.parquet.write_table(pa.Table.from_pylist([row | {"source": part} for row in rows]), path)


@pytest.fixture
def folder(tmp_path):
    """What objaverse.xl leaves after a few objects of each part; the annotations list more than is there."""
    root = tmp_path / "objaverse"
    annotate(
        root,
        "github",
        [
            annotated(f"{REPOSITORY}/a chair #1.glb", b"chair", "MIT License"),
            annotated(f"{REPOSITORY}/deep/er/table.obj", b"table", "GNU General Public License v3.0"),
            annotated(f"{REPOSITORY}/gone.glb", b"gone"),
            annotated(f"{REPOSITORY}/../../../secret.glb", b"secret"),
            annotated("https://github.com/bob/zipped/blob/d/x.fbx", b"x", "Other"),
            annotated("https://github.com/eve/never/blob/d/y.fbx", b"y"),
        ],
    )
    write(root / "github/repos/ann/models/a chair #1.glb", b"chair")
    write(root / "github/repos/ann/models/deep/er/table.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    write(root / "github/repos/ann/models/new.glb", b"found by nobody")
    write(root / "github/repos/bob/zipped.tar.gz", b"archive")
    thing = "https://www.thingiverse.com/thing:12/files?fileId=345"
    annotate(
        root,
        "thingiverse",
        [
            annotated(thing, b"stl", "Creative Commons - Attribution", '{"filename": "Gear v2.stl"}'),
            annotated(thing + "6", b"none"),
        ],
    )
    write(root / "thingiverse/thing-12-file-345.stl", b"stl")
    bust = "https://3d-api.si.edu/content/document/bust.glb"
    annotate(root, "smithsonian", [annotated(bust, b"bust", "CC0", json.dumps({"title": "Bust"})), annotated(bust + "2", b"chair")])
    write(root / f"smithsonian/objects/{uuid.uuid5(uuid.NAMESPACE_DNS, bust)}.glb", b"bust")
    write(root / f"smithsonian/objects/{uuid.uuid5(uuid.NAMESPACE_DNS, bust + '2')}.glb", b"chair")
    annotate(root, "sketchfab", [annotated(f"https://sketchfab.com/3d-models/{'f' * 32}", b"fox", "by")])
    write(root / f"hf-objaverse-v1/glbs/000-003/{'f' * 32}.glb", b"fox")
    return root


def by_content(folder, **options):
    contents = (b"chair", b"table", b"x", b"stl", b"bust")
    names = {sha256(content): content.decode() for content in contents} | {"f" * 32: "fox"}
    return {names[record["source_id"]]: record for record in ObjaverseXL("xl", str(folder), **options).records()}


def test_what_is_on_disk_and_annotated_counts_once_under_the_hash_of_its_annotation(folder):
    records = list(ObjaverseXL("xl", str(folder)).records())
    assert len(records) == 6
    assert list(by_content(folder)) == ["chair", "table", "x", "stl", "bust", "fox"]
    assert records[0]["object_id"] == f"xl/{sha256(b'chair')}"
    assert all(record["asset_stamp"] for record in records)


def test_names_licences_creators_and_homes_are_what_the_annotations_say(folder):
    found = by_content(folder)
    assert {key: (one["name"], one["license"], one["creator"]) for key, one in found.items()} == {
        "chair": ("a chair #1", "MIT", "ann"),
        "table": ("table", "GPL-3.0-only", "ann"),
        "x": ("x", "unknown", "bob"),
        "stl": ("Gear v2", "unknown", None),
        "bust": ("Bust", "CC0-1.0", "Smithsonian Institution"),
        "fox": (None, "unknown", None),
    }
    assert found["table"]["home"] == f"{folder}/github/repos/ann/models"
    assert found["table"]["asset_uri"] == f"{folder}/github/repos/ann/models/deep/er/table.obj"


def test_a_file_that_is_not_the_annotated_one_and_a_packed_repository_are_failures(folder, tmp_path):
    corpus = Corpus(str(tmp_path / "corpus"))
    stage = Ingest((ObjaverseXL("xl", str(folder), parts=("github",)),))
    run(corpus, Single(stage), records=stage.records())
    failures = {row["object_id"].removeprefix("xl/"): row for row in corpus.need("failures").to_table().to_pylist()}
    assert failures[sha256(b"table")]["reason"] == "sha256_differs" and "table.obj" in failures[sha256(b"table")]["message"]
    assert failures[sha256(b"x")]["reason"] == "packed_repository"


def test_parts_can_be_chosen_and_a_wrong_one_is_refused(folder):
    source = source_from(f"Objaverse-XL={folder}", {"objaverse-xl": {"parts": ["thingiverse"]}})
    assert [record["name"] for record in source.records()] == ["Gear v2"]
    with pytest.raises(ValueError, match="parts has 'polycam'"):
        source_from(f"objaverse-xl={folder}", {"objaverse-xl": {"parts": ["polycam"]}})


def test_the_alignment_subset_is_read_where_there_is_no_whole_list(folder):
    (folder / "github/github.parquet").rename(folder / "github/alignment.parquet")
    assert "chair" in by_content(folder)


def test_an_object_store_gives_the_same_objects(folder):
    fsspec.filesystem("memory").put(str(folder), "/xl", recursive=True)
    there = {record["object_id"]: record for record in ObjaverseXL("xl", "memory://xl").records()}
    for record in by_content(folder).values():
        other = there.pop(record["object_id"])
        assert other["asset_uri"] == record["asset_uri"].replace(str(folder), "memory://xl")
        assert [other[key] for key in ("name", "license", "sha256")] == [record[key] for key in ("name", "license", "sha256")]
        assert bool(other["unusable"]) == bool(record["unusable"])
    assert not there


def test_another_folder_is_refused_and_a_broken_list_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        ObjaverseXL("xl", str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds none of github/"):
        ObjaverseXL("xl", str(tmp_path / "empty"))
    (folder / "thingiverse/thingiverse.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(ValueError, match="thingiverse.parquet cannot be read"):
        list(ObjaverseXL("xl", str(folder)).records())


@pytest.mark.parametrize(
    ("license", "expected"),
    [
        ("by-nc", "CC-BY-NC-4.0"),
        ("https://creativecommons.org/licenses/by-sa/3.0/", "CC-BY-SA-3.0"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("https://creativecommons.org/licenses/by/3.0/us/", "unknown"),
        ("apache-2.0", "Apache-2.0"),
        ("Apache License 2.0", "Apache-2.0"),
        ("Creative Commons - Attribution", "unknown"),
        ("https://creativecommons.org/licenses/by-bad/4.0/", "unknown"),
        ("Other", "unknown"),
        (None, "unknown"),
    ],
)
def test_a_licence_is_an_spdx_id_where_its_spelling_means_exactly_one(license, expected):
    assert spdx(license) == expected
