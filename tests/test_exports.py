import io
import json
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.spatial import cKDTree

from benchmarks.openshape_import import openshape_data, write_openshape
from captions.imported import ImportCap3d
from jobs.__main__ import main
from pipeline.exports.output import Output
from pipeline.exports.parquet import readable
from pipeline.exports.rows import Rows, choose
from pipeline.imports.openshape import ImportOpenShape, ImportTexts, OpenShapeFolder
from pipeline.imports.splits import ImportSplit
from pipeline.run import run
from pipeline.stage import Single
from pipeline.store import Corpus
from schemas.check import to_table
from schemas.tables import OBJECTS, POINTS, VIEWS
from shout import object_row

TEACHER = "ViT-bigG-14:laion2b_s39b_b160k"
UIDS = [f"{number:032x}" for number in range(10, 15)]
OTHERS = {
    "ShapeNet": ("02691156", "1a04e3ea"),
    "ABO": ("9", "B075QFCHM9"),
    "3D-FUTURE": ("", "0a0f0cf2-3a34-4ba2-b24f-34f361c36b3e"),
}


def bring_in(corpus, folder):
    files = OpenShapeFolder(str(folder))
    texts = ImportTexts(folder=files)
    made = run(corpus, ImportOpenShape(), records=files.records()) + run(corpus, texts, records=texts.records(corpus))
    assert not any(summary.failed for summary in made)


@pytest.fixture
def corpus(tmp_path, rng):
    """A corpus of eight of OpenShape's objects: one without colour and thumbnail, one whose text is noise, one with nothing but
    retrieved texts, one without an average over prompts; and a split of three."""
    root = tmp_path / "openshape"
    for uid in UIDS:
        data = openshape_data("Objaverse", "000-004", uid, rng)
        if uid == UIDS[0]:
            del data["rgb"], data["thumbnail_feat"]
        if uid == UIDS[2]:
            data |= {"text": [], "text_feat": [], "blip_caption": ""}
        if uid == UIDS[3]:
            data["text_feat"][0].pop("prompt_avg")
        write_openshape(root / f"Objaverse/000-004/{uid}.npy", data)
    for dataset, (group, id) in OTHERS.items():
        write_openshape(root / dataset / group / f"{id}.npy", openshape_data(dataset, group, id, rng))
    (root / "meta_data").mkdir()
    (root / "meta_data" / "gpt4_filtering.json").write_text(json.dumps({uid: {"flag": "YN"[uid == UIDS[1]]} for uid in UIDS}))
    made = Corpus(str(tmp_path / "corpus"))
    bring_in(made, root)
    records = [{"object_id": f"objaverse/{uid}", "label": "ax"} for uid in UIDS[:3]]
    run(made, Single(ImportSplit(split="lvis")), records=records, whole=True)
    return made


def rows(corpus, table, without=("stage_key",)):
    key = "text_sha256" if table.startswith("text_embeddings/") else "object_id"
    found = corpus.need(table).to_table().drop_columns(list(without))
    by = [(key, "ascending"), *([("caption", "ascending")] if table == "captions" else [])]
    return found.sort_by(by).combine_chunks()


def export(corpus, *arguments) -> int:
    return main(["export", corpus.root, *map(str, arguments)])


def there_and_back(corpus, tmp_path):
    """Export, import into a new corpus, and compare: every table to the bit, OBJECTS but for the file."""
    assert export(corpus, "--openshape", tmp_path / "out") == 0
    back = Corpus(str(tmp_path / "back"))
    bring_in(back, tmp_path / "out")
    for table in ("points", "captions", f"image_embeddings/{TEACHER}", f"text_embeddings/{TEACHER}"):
        assert rows(back, table).equals(rows(corpus, table)), table
    file = ("asset_uri", "asset_sha256", "asset_bytes", "stage_key")
    assert rows(back, "objects", file).equals(rows(corpus, "objects", file))
    return back


def test_what_comes_in_goes_out_and_comes_back_to_the_bit(corpus, tmp_path):
    there_and_back(corpus, tmp_path)


def test_the_real_layout_goes_there_and_back_to_the_bit(assets, tmp_path):
    corpus = Corpus(str(tmp_path / "corpus"))
    bring_in(corpus, assets / "eval" / "objaverse_lvis")
    there_and_back(corpus, tmp_path)


def test_what_comes_out_is_what_came_in_but_for_rounding(corpus, tmp_path):
    export(corpus, "--openshape", tmp_path / "out")
    before, after = (
        np.load(tmp_path / folder / f"Objaverse/000-004/{UIDS[4]}.npy", allow_pickle=True).item() for folder in ("openshape", "out")
    )
    for field in ("dataset", "group", "id", "text", "blip_caption", "msft_caption", "retrieval_text"):
        assert before[field] == after[field]
    pairs = [(before["image_feat"], after["image_feat"])]
    for field in ("text", "retrieval_text"):
        pairs += [(a["original"], b["original"]) for a, b in zip(before[f"{field}_feat"], after[f"{field}_feat"], strict=True)]
    for a, b in pairs:
        assert a.dtype == b.dtype == np.float32 and a.shape == b.shape
        assert (np.abs(a - b).max(axis=1) <= 2**-11 * np.abs(a).max(axis=1)).all()  # float16 rounds to 11 bits
    direction = before["thumbnail_feat"] / np.linalg.norm(before["thumbnail_feat"])
    assert np.abs(direction - after["thumbnail_feat"]).max() < 2**-11 * np.abs(direction).max()
    matrix = np.reshape(after["tricorpus"]["points"]["canonical_from_asset"], (4, 4))
    back = (after["xyz"] - matrix[:3, 3]) / matrix[0, 0]
    distance, nearest = cKDTree(before["xyz"]).query(back)
    assert distance.max() < 2**-11 / matrix[0, 0]
    close = np.abs(before["rgb"][nearest] - after["rgb"]).max(axis=1) <= 0.5 / 255 + 1e-6
    assert close.mean() > 0.999  # two points may lie so close that the nearest is the other


def test_openshapes_own_loader_finds_all_it_looks_for(corpus, tmp_path):
    """The same look-ups in the same order as in its `src/data.py`, with every choice of text."""
    export(corpus, "--openshape", tmp_path / "out", "--split", "lvis")
    export(corpus, "--openshape", tmp_path / "all")
    meta = tmp_path / "all" / "meta_data"
    flags, entries = json.loads((meta / "gpt4_filtering.json").read_text()), json.loads((meta / "split/train_all.json").read_text())
    assert len(entries) == 8 and {uid for uid, about in flags.items() if about["flag"] == "N"} == {UIDS[1], UIDS[2]}
    for entry in entries:
        data = np.load(entry["data_path"], allow_pickle=True).item()
        assert data["xyz"].shape == data["rgb"].shape == (10_000, 3) and not np.isnan(data["xyz"]).any()
        found = []
        if entry["dataset"] == "Objaverse":
            if flags[entry["id"]]["flag"] != "N":
                found.append(data["text_feat"][0]["prompt_avg"])
            found.append(data["thumbnail_feat"])
        else:
            found += [features["prompt_avg"] for features, _ in zip(data["text_feat"], data["text"], strict=True)]
            assert found
        for field in ("blip_caption", "msft_caption"):
            if len(data[field]) > 0:
                found.append(data[f"{field}_feat"]["prompt_avg"])
        found += [data["retrieval_text_feat"][number]["original"] for number in range(len(data["retrieval_text"]))]
        found += list(data["image_feat"])
        assert {features.reshape(-1).shape for features in found} == {(1280,)}
    lvis = json.loads((tmp_path / "out/meta_data/split/lvis.json").read_text())
    assert {entry["uid"] for entry in lvis} == set(UIDS[:3]) and {entry["category"] for entry in lvis} == {"ax"}


def test_other_captions_go_out_as_text_and_come_back_with_their_origin(corpus, tmp_path):
    run(corpus, Single(ImportCap3d()), records=[{"object_id": f"objaverse/{UIDS[2]}", "texts": ["something like it", "", "a cup"]}])
    export(corpus, "--openshape", tmp_path / "out")
    data = np.load(tmp_path / "out" / f"Objaverse/000-004/{UIDS[2]}.npy", allow_pickle=True).item()
    assert data["text"] == ["something like it"]  # the only one of the three that is kept and embedded
    back = Corpus(str(tmp_path / "back"))
    bring_in_some(back, tmp_path / "out")
    found = back.need("captions").to_table(filter=f"object_id = 'objaverse/{UIDS[2]}'").to_pylist()
    assert [(row["origin"], row["text"], row["kept"]) for row in found if row["origin"] == "cap3d"] == [
        ("cap3d", "something like it", True),
        ("cap3d", "", False),
        ("cap3d", "a cup", True),
    ]
    reasons = [row["reason"] for row in back.need("failures").to_table().to_pylist()]
    assert reasons == ["no_embedding"]  # of "a cup", which no teacher has seen


def bring_in_some(corpus, folder):
    files = OpenShapeFolder(str(folder))
    texts = ImportTexts(folder=files)
    run(corpus, ImportOpenShape(), records=files.records())
    run(corpus, texts, records=texts.records(corpus))


def test_an_object_that_lacks_something_or_has_no_file_name_is_counted(corpus, tmp_path, capsys):
    strange = [object_row(1), object_row(2, object_id="x/../up", source="x", source_id="../up")]
    corpus.append(OBJECTS, corpus.write(OBJECTS, to_table(OBJECTS, strange)))
    export(corpus, "--openshape", tmp_path / "out", "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["objects"] == 8 and told["left_out"] == {"no_points": 1, "no_file_name": 1}
    assert told["licenses"] == {"unknown": 8, "CC0-1.0": 2}
    assert not (tmp_path / "up.npy").exists()


def test_shards_read_back_with_plain_tarfile_and_hold_the_rows(corpus, tmp_path):
    camera = {
        "intrinsics": [1.0, 1, 1, 1],
        "camera_to_world": list(np.eye(4).reshape(-1)),
        "width": 2,
        "height": 2,
        "kind": "rendered",
    }
    view = {"object_id": f"objaverse/{UIDS[4]}", "stage": "render", "stage_key": "k", "image": b"picture", **camera}
    corpus.create(VIEWS)
    corpus.append(VIEWS, corpus.write(VIEWS, to_table(VIEWS, [view | {"view": number} for number in (1, 0)])))
    assert export(corpus, "--webdataset", tmp_path / "shards", "--shard", 3) == 0
    names = sorted(path.name for path in (tmp_path / "shards").iterdir())
    assert names == ["000000.tar", "000001.tar", "000002.tar", "export.json"]
    samples: dict[str, dict] = {}
    for name in names[:-1]:
        with tarfile.open(tmp_path / "shards" / name) as shard:
            for member in shard:
                key, _, field = member.name.partition(".")
                samples.setdefault(key, {})[field] = shard.extractfile(member).read()
    plan = json.loads((tmp_path / "shards/export.json").read_text())
    fields = {field for sample in samples.values() for field in sample}
    assert fields - {"view00.webp", "view01.webp"} == plan["fields"].keys() - {"viewNN.webp"} and plan["done"]["objects"] == 8
    points = {row["object_id"]: row for row in corpus.need("points").to_table().to_pylist()}
    texts = {row["text"]: row for row in corpus.need(f"text_embeddings/{TEACHER}").to_table().to_pylist()}
    images = {row["object_id"]: row for row in corpus.need(f"image_embeddings/{TEACHER}").to_table().to_pylist()}
    for sample in samples.values():
        about = json.loads(sample["json"])
        arrays = {field: np.load(io.BytesIO(sample[field])) for field in sample if field.endswith(".npy")}
        row = points[about["object_id"]]
        np.testing.assert_array_equal(arrays["xyz.npy"].reshape(-1), np.array(row["xyz"], np.float16))
        assert ("rgb.npy" in arrays) == (row["rgb"] is not None) and about["canonical_from_asset"] == row["canonical_from_asset"]
        np.testing.assert_array_equal(arrays["image_embeddings.npy"], np.array(images[about["object_id"]]["embedding"], np.float16))
        for caption in about["captions"]:
            expected = np.array(texts[caption["text"]]["embedding"], np.float16)
            np.testing.assert_array_equal(arrays["text_embeddings.npy"][caption["embedding"]], expected)
    [shown] = [sample for sample in samples.values() if "view00.webp" in sample]
    assert [view["file"] for view in json.loads(shown["json"])["views"]] == ["view00.webp", "view01.webp"]
    assert shown["view01.webp"] == b"picture"


def test_the_same_corpus_gives_the_same_shards_and_a_killed_export_goes_on(corpus, tmp_path):
    for folder in ("one", "two"):
        export(corpus, "--webdataset", tmp_path / folder, "--shard", 3)
    contents = [{path.name: path.read_bytes() for path in (tmp_path / folder).glob("*.tar")} for folder in ("one", "two")]
    assert contents[0] == contents[1]
    (tmp_path / "two" / "000001.tar").unlink()
    kept = (tmp_path / "two" / "000000.tar").stat().st_mtime_ns
    assert export(corpus, "--webdataset", tmp_path / "two", "--shard", 3) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "two").glob("*.tar")} == contents[0]
    assert (tmp_path / "two" / "000000.tar").stat().st_mtime_ns == kept


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    output = Output(str(tmp_path / "out"), {"form": "x"})
    with pytest.raises(KeyError), output.writing("a/b.npy") as file:
        file.write(b"half")
        raise KeyError
    assert not output.has("a/b.npy") and list((tmp_path / "out" / "a").iterdir()) == []


def test_parquet_has_every_row_with_the_docs_of_its_columns(corpus, tmp_path):
    assert export(corpus, "--parquet", tmp_path / "out") == 0
    for name in corpus.tables():
        found = pq.read_table(tmp_path / "out" / name)
        stored = corpus.need(name).to_table()
        assert found.equals(stored.cast(readable(stored.schema))), name
        assert all(field.metadata and field.metadata[b"doc"] for field in found.schema)
    schema = pq.read_schema(tmp_path / "out" / "points" / "00000.parquet")
    assert schema.field("xyz").metadata == POINTS.schema.field("xyz").metadata and b"made_by" in schema.metadata


def test_a_choice_of_objects_takes_their_rows_and_texts_and_no_others(corpus, tmp_path):
    own = object_row(1, license="CC-BY-4.0")
    corpus.append(OBJECTS, corpus.write(OBJECTS, to_table(OBJECTS, [own])))
    assert choose(corpus, licenses=["CC-BY-4.0"]).ids == ["test/1"]
    assert choose(corpus, split="lvis", licenses=["CC-BY-4.0"]).ids == []
    export(corpus, "--parquet", tmp_path / "out", "--split", "lvis", "--teacher", TEACHER)
    chosen = {f"objaverse/{uid}" for uid in UIDS[:3]}
    for name in ("objects", "points", "captions", "splits", f"image_embeddings/{TEACHER}"):
        assert set(pq.read_table(tmp_path / "out" / name)["object_id"].to_pylist()) == chosen, name
    said = pq.read_table(tmp_path / "out" / "captions")["text_sha256"].to_pylist()
    embedded = pq.read_table(tmp_path / "out" / "text_embeddings")["text_sha256"].to_pylist()
    assert sorted(set(said)) == sorted(embedded)


def test_a_folder_of_something_else_or_a_changed_corpus_is_refused(corpus, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    assert export(corpus, "--parquet", tmp_path / "mine") == 2 and "is not empty" in capsys.readouterr().err
    assert export(corpus, "--webdataset", tmp_path / "out") == 0
    assert export(corpus, "--parquet", tmp_path / "out") == 2 and "differs in fields, form, shard" in capsys.readouterr().err
    run(corpus, Single(ImportSplit(split="b")), records=[{"object_id": "x/1", "label": None}], whole=True)
    assert export(corpus, "--webdataset", tmp_path / "out") == 2 and "differs in versions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say one form"),
        (("--parquet", "a", "--webdataset", "b"), "say one form"),
        (("--parquet", "a", "--split", "nope"), "no split 'nope'; it has: lvis"),
        (("--parquet", "a", "--license", "MIT"), "no object has the licence 'MIT'; the corpus has: unknown"),
        (("--webdataset", "a", "--teacher", "x:y"), f"no image embeddings of 'x:y'; it has: {TEACHER}"),
        (("--webdataset", "a", "--shard", "0"), "must be 1 or more"),
        (("--webdataset", "s3://a"), "is a URI"),
    ],
)
def test_wrong_arguments_are_told(corpus, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert export(corpus, *arguments) == 2 and message in capsys.readouterr().err


def test_rows_are_found_by_id_whatever_was_deleted(corpus):
    dataset = corpus.need("points")
    dataset.delete(f"object_id = 'objaverse/{UIDS[0]}'")
    found = Rows(corpus.need("points"))
    ids = [f"objaverse/{uid}" for uid in UIDS] + ["x/1"]
    assert found.has(ids).tolist() == [False, True, True, True, True, False]
    assert sorted(found.of(ids, ["faces"])["object_id"].to_pylist()) == ids[1:5] and found.of(["x/1"]) is None
