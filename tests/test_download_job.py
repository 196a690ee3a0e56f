"""The job `download`, from a local copy of a collection: what a person gets and reads."""

import csv
import gzip
import json

import pytest

from jobs.__main__ import main
from jobs.download import amount
from pipeline.ingest import Ingest
from pipeline.made.made_objects import write_objaverse
from pipeline.run import run
from pipeline.sources.asked_for import NAME, asked_for
from pipeline.sources.objaverse import Objaverse
from pipeline.sources.published import BY_HAND
from pipeline.stage import Single
from pipeline.store import Corpus


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """Twelve made objects in Objaverse's layout, of which the last, in the order of the paths, is listed and not there."""
    folder = tmp_path_factory.mktemp("mirror") / "hf-objaverse-v1"
    write_objaverse(folder, 12, seed=3)
    (folder / paths(folder)[-1]).unlink()
    return folder


def paths(folder):
    return sorted(json.loads(gzip.decompress((folder / "object-paths.json.gz").read_bytes())).values())


def told(capsys, *arguments):
    """Exit code and the JSON object that the job prints."""
    code = main(["download", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def ingested(folder, root):
    """How many objects of the folder become rows, and what failed."""
    corpus, stage = Corpus(str(root)), Ingest((Objaverse("objaverse", str(folder)),))
    [summary] = run(corpus, Single(stage), records=stage.records())
    return summary.done, summary.reasons


def test_a_part_is_fetched_with_its_metadata_and_ingests_without_a_failure(mirror, tmp_path, capsys):
    code, said = told(capsys, "objaverse", tmp_path / "o", "--from", mirror, "--limit", 5)
    assert (code, said["failed"]) == (0, 0)
    here = sorted(str(path.relative_to(tmp_path / "o")) for path in (tmp_path / "o").rglob("*.glb"))
    assert here == paths(mirror)[:5]
    assert ingested(tmp_path / "o", tmp_path / "corpus") == (5, {})


def test_a_larger_limit_adds_and_the_whole_needs_no_list(mirror, tmp_path, capsys):
    folder = tmp_path / "o"
    told(capsys, "objaverse", folder, "--from", mirror, "--limit", 5)
    _, said = told(capsys, "objaverse", folder, "--from", mirror, "--limit", 8)
    assert len(asked_for(str(folder))) == 8 and len(list(folder.rglob("*.glb"))) == 8
    code, said = told(capsys, "objaverse", folder, "--from", f"file://{mirror}")
    assert (code, said["failed"], said["failures"][0]["reason"]) == (0, 1, "not_there")
    assert not (folder / NAME).exists()
    assert ingested(folder, tmp_path / "corpus") == (11, {"asset_missing": 1})
    told(capsys, "objaverse", folder, "--from", mirror, "--limit", 2)  # what was whole stays so
    assert not (folder / NAME).exists()


def test_an_object_that_was_asked_for_and_did_not_come_is_missing_in_the_corpus(mirror, tmp_path, capsys):
    last = paths(mirror)[-1].split("/")[-1].removesuffix(".glb")
    (tmp_path / "uids.txt").write_text(f"{last}\nnobody\n\n{last}\n")
    code, said = told(capsys, "objaverse", tmp_path / "o", "--from", mirror, "--uids", tmp_path / "uids.txt")
    assert code == 0 and [one["reason"] for one in said["failures"]] == ["unknown_id", "not_there"]
    assert ingested(tmp_path / "o", tmp_path / "corpus") == (0, {"asset_missing": 1})


def test_lvis_takes_only_objects_with_a_category(mirror, tmp_path, capsys):
    lvis = json.loads(gzip.decompress((mirror / "lvis-annotations.json.gz").read_bytes()))
    told(capsys, "objaverse", tmp_path / "o", "--from", mirror, "--lvis")
    assert asked_for(str(tmp_path / "o")) == {uid for uids in lvis.values() for uid in uids}


def test_verify_needs_no_place_and_finds_what_changed(mirror, tmp_path, capsys):
    folder = tmp_path / "o"
    told(capsys, "objaverse", folder, "--from", mirror, "--limit", 3)
    assert told(capsys, "objaverse", folder, "--verify")[0] == 0
    changed = next(folder.rglob("*.glb"))
    changed.write_bytes(bytes(changed.stat().st_size))
    code, said = told(capsys, "objaverse", folder, "--verify")
    assert code == 1 and [one["reason"] for one in said["failures"]] == ["file_differs"]
    told(capsys, "objaverse", folder, "--from", mirror, "--limit", 3)
    assert told(capsys, "objaverse", folder, "--verify")[0] == 0


def test_abo_comes_with_its_listings(tmp_path, capsys):
    mirror = tmp_path / "abo"
    (mirror / "3dmodels/metadata").mkdir(parents=True)
    with gzip.open(mirror / "3dmodels/metadata/3dmodels.csv.gz", "wt", newline="") as file:
        csv.writer(file).writerows([["3dmodel_id", "path"], *([f"B{n}", f"{n}/B{n}.glb"] for n in range(3))])
    for digit in "0123456789abcdef":
        (mirror / "listings/metadata").mkdir(parents=True, exist_ok=True)
        (mirror / f"listings/metadata/listings_{digit}.json.gz").write_bytes(gzip.compress(b""))
    for n in range(3):
        (mirror / f"3dmodels/original/{n}").mkdir(parents=True)
        (mirror / f"3dmodels/original/{n}/B{n}.glb").write_bytes(b"glb")
    code, said = told(capsys, "abo", tmp_path / "o", "--from", mirror, "--limit", 2)
    assert (code, said["fetched"], said["failed"]) == (0, 1 + 16 + 2, 0)
    assert (tmp_path / "o/3dmodels/original/1/B1.glb").read_bytes() == b"glb"
    assert asked_for(str(tmp_path / "o")) == {"B0", "B1"}


@pytest.mark.parametrize("collection", sorted(BY_HAND))
def test_collections_on_request_are_not_fetched_and_the_job_says_where_to_ask(collection, capsys):
    assert main(["download", collection]) == 1
    said = capsys.readouterr().err
    assert "nothing was fetched" in said and f"--source {collection}=" in said


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["objaverse"], 2, "say where to"),
        (["objaverse", "{folder}", "--limit", "0"], 2, "must be 1 or more"),
        (["objaverse", "{folder}", "--uids", "/nowhere"], 2, "/nowhere cannot be read"),
        (["objaverse", "{folder}", "--from", "/nowhere"], 1, "/nowhere/object-paths.json.gz is not there"),
        (["abo", "{folder}", "--lvis"], 2, "no LVIS categories"),
        (["objaverse", "{folder}", "--verify"], 1, "has no checksums.csv"),
    ],
)
def test_a_wrong_call_is_a_sentence(arguments, code, words, tmp_path, capsys):
    assert main(["download", *(argument.format(folder=tmp_path / "o") for argument in arguments)]) == code
    assert words in capsys.readouterr().err


def test_amounts_are_for_people():
    assert [amount(size) for size in (0, 999, 1500, 19.8e6, 8.9e12)] == ["0 B", "999 B", "1.5 kB", "19.8 MB", "8.9 TB"]
