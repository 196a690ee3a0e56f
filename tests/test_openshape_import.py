import hashlib
import json
import os
import shutil
from collections import Counter

import numpy as np
import pytest

from benchmarks.openshape_import import openshape_data, text_features, write_openshape
from pipeline.imports.openshape import ImportOpenShape, ImportTexts, OpenShapeFolder
from pipeline.points import farthest_first
from pipeline.run import run
from pipeline.store import Corpus
from schemas.check import to_table
from schemas.tables import OBJECTS
from shout import object_row

TEACHER = "ViT-bigG-14:laion2b_s39b_b160k"
UIDS = [f"{number:032x}" for number in range(10, 13)]


@pytest.fixture
def folder(tmp_path, rng):
    """Three objects of Objaverse, one each of the other collections; the text of the second is noise."""
    root = tmp_path / "openshape"
    for uid in UIDS:
        write_openshape(root / f"Objaverse/000-004/{uid}.npy", openshape_data("Objaverse", "000-004", uid, rng))
    others = {
        "ShapeNet": ("02691156", "1a04e3ea"),
        "ABO": ("9", "B075QFCHM9"),
        "3D-FUTURE": ("x", "0a0f0cf2-3a34-4ba2-b24f-34f361c36b3e"),
    }
    for dataset, (group, id) in others.items():
        data = openshape_data(dataset, group, id, rng)
        del data["thumbnail_feat"]
        write_openshape(root / dataset / group / f"{id}.npy", data)
    (root / "meta_data").mkdir()
    flags = {uid: {"flag": "N" if uid == UIDS[1] else "Y"} for uid in UIDS}
    (root / "meta_data" / "gpt4_filtering.json").write_text(json.dumps(flags))
    return root


@pytest.fixture
def corpus(tmp_path):
    return Corpus(str(tmp_path / "corpus"))


def bring_in(corpus, folder, **more):
    """(done, failed, skipped) per stage."""
    files = OpenShapeFolder(str(folder))
    texts = ImportTexts(folder=files)
    first = run(corpus, ImportOpenShape(), records=files.records(), **more)
    return {
        summary.stage.split("/")[1]: (summary.done, summary.failed, summary.skipped)
        for summary in [*first, *run(corpus, texts, records=texts.records(corpus), **more)]
    }


def rows(corpus, table, by="object_id"):
    found = corpus.need(table).to_table().to_pylist()
    return {row[by]: row for row in found}


def reasons(corpus):
    return Counter((row["stage"].split("/")[1], row["reason"]) for row in corpus.need("failures").to_table().to_pylist())


def loaded(folder, uid=UIDS[0]):
    return np.load(folder / f"Objaverse/000-004/{uid}.npy", allow_pickle=True).item()


def test_every_file_becomes_rows_of_all_tables_and_a_second_run_does_nothing(corpus, folder):
    assert bring_in(corpus, folder) == {
        "objects": (6, 0, 0),
        "points": (6, 0, 0),
        "captions": (6, 0, 0),
        "image_embeddings": (6, 0, 0),
        "text_embeddings": (6 + 1 + 6 + 1, 0, 0),  # its own twice each, and two that all have
    }
    assert {summary[0] for summary in bring_in(corpus, folder).values()} == {0}
    assert rows(corpus, "objects").keys() == {
        *(f"objaverse/{uid}" for uid in UIDS),
        "shapenet/02691156/1a04e3ea",
        "abo/B075QFCHM9",
        "3d-future/0a0f0cf2-3a34-4ba2-b24f-34f361c36b3e",
    }


def test_an_object_is_the_file_it_came_as(corpus, folder):
    bring_in(corpus, folder)
    row = rows(corpus, "objects")[f"objaverse/{UIDS[0]}"]
    content = (folder / f"Objaverse/000-004/{UIDS[0]}.npy").read_bytes()
    assert (row["asset_format"], row["asset_sha256"]) == ("npy", hashlib.sha256(content).hexdigest())
    assert (row["name"], row["license"], row["stage"]) == (None, "unknown", "import-openshape/objects")


def test_the_points_are_the_files_in_the_canonical_frame(corpus, folder):
    bring_in(corpus, folder)
    row, data = rows(corpus, "points")[f"objaverse/{UIDS[0]}"], loaded(folder)
    xyz, rgb = np.reshape(row["xyz"], (-1, 3)).astype(np.float64), np.reshape(row["rgb"], (-1, 3))
    matrix = np.reshape(row["canonical_from_asset"], (4, 4))
    canonical = data["xyz"] @ matrix[:3, :3].T + matrix[:3, 3]
    assert np.abs(np.linalg.norm(canonical, axis=1).max() - 1) < 1e-9
    np.testing.assert_allclose(canonical.max(axis=0), -canonical.min(axis=0), atol=1e-9)
    order = np.lexsort(canonical.astype(np.float16).T), np.lexsort(xyz.T)
    np.testing.assert_array_equal(canonical.astype(np.float16)[order[0]], xyz[order[1]])
    assert (row["vertices"], row["faces"], row["area"]) == (10_000, 0, None)
    colors = {
        tuple(point): tuple(color) for point, color in zip(canonical.astype(np.float16), np.rint(255 * data["rgb"]), strict=True)
    }
    assert sum(colors[tuple(point)] == tuple(color) for point, color in zip(xyz.astype(np.float16), rgb, strict=True)) > 9_990
    np.testing.assert_array_equal(farthest_first(xyz.astype(np.float16), 1024), np.arange(1024))


def test_an_embedding_is_a_unit_vector_and_its_length(corpus, folder):
    bring_in(corpus, folder)
    data, images = loaded(folder), rows(corpus, f"image_embeddings/{TEACHER}")
    row = images[f"objaverse/{UIDS[0]}"]
    back = np.array(row["embedding"]) * np.array(row["lengths"])[:, None]
    assert np.abs(back - data["image_feat"]).max() < np.abs(data["image_feat"]).max() * 2**-11
    assert abs(np.linalg.norm(row["thumbnail"]) - 1) < 1e-3 and images["abo/B075QFCHM9"]["thumbnail"] is None
    text = rows(corpus, f"text_embeddings/{TEACHER}", "text")[data["text"][0]]
    original, averaged = (data["text_feat"][0][kind][0] for kind in ("original", "prompt_avg"))
    assert np.abs(np.array(text["embedding"]) * text["length"] - original).max() < np.abs(original).max() * 2**-11
    assert np.dot(text["prompt_averaged"], averaged) / np.linalg.norm(averaged) == pytest.approx(1, abs=1e-3)


def test_captions_say_who_wrote_them_and_noise_is_not_kept(corpus, folder):
    bring_in(corpus, folder)
    found = corpus.need("captions").to_table().to_pylist()
    said = {
        uid: [
            (row["origin"], row["model"], row["text"], row["kept"], row["dropped_because"])
            for row in found
            if row["object_id"] == uid
        ]
        for uid in (f"objaverse/{UIDS[0]}", f"objaverse/{UIDS[1]}")
    }
    first, second = said.values()
    assert first == [
        ("metadata", "OpenShape", f"thing {UIDS[0][-4:]}", True, None),
        ("captioner", "BLIP", "a 3d model of a thing", True, None),
        ("retrieved", "OpenShape", f"a thing like {UIDS[0][-4:]}", True, None),
        ("retrieved", "OpenShape", "something like it", True, None),
    ]
    assert [caption[3:] for caption in second] == [(False, "gpt4_filtering"), (True, None), (True, None), (True, None)]


def test_what_the_corpus_has_from_its_own_stages_stays(corpus, folder):
    own = object_row(0, object_id=f"objaverse/{UIDS[0]}", source="objaverse", source_id=UIDS[0], license="CC-BY-4.0")
    corpus.create(OBJECTS)
    corpus.append(OBJECTS, corpus.write(OBJECTS, to_table(OBJECTS, [own])))
    assert bring_in(corpus, folder)["objects"] == (5, 0, 1)
    row = rows(corpus, "objects")[f"objaverse/{UIDS[0]}"]
    assert (row["license"], row["asset_format"], row["stage"]) == ("CC-BY-4.0", "glb", "ingest")
    assert len(rows(corpus, "points")) == 6 and len(rows(corpus, f"text_embeddings/{TEACHER}", "text")) == 14


class Malicious:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_a_file_that_is_a_program_or_broken_is_a_failure_and_the_others_come_in(corpus, folder, tmp_path, rng):
    mark = tmp_path / "mark"
    good = openshape_data("Objaverse", "000-009", UIDS[0], rng)
    nan = good["xyz"].copy()
    nan[5] = np.nan
    broken = {
        "a": good | {"xyz": Malicious(mark)},
        "b": good | {"xyz": good["xyz"][:9], "rgb": good["rgb"][:9]},
        "c": good | {"xyz": nan},
        "d": good | {"image_feat": np.zeros((12, 1280), np.float32)},
        "e": good | {"xyz": good["xyz"] * 0},
        "f": good | {"text": 5, "rgb": good["rgb"] * 255},
        "1": good | {"text": [], "blip_caption": "", "retrieval_text": []},
        "2": good | {"image_feat": np.zeros((12, 7), np.float32)},
        "3": good
        | {"tricorpus": {"teacher": TEACHER, "object": {"name": 5}, "points": 3, "captions": [1], "images": {}, "texts": []}},
        "5": good | {"tricorpus": {"teacher": "ViT-B-32:openai"}},
    }
    for letter, data in broken.items():
        write_openshape(folder / f"Objaverse/000-009/{letter * 32}.npy", data)
    (folder / f"Objaverse/000-009/{'4' * 32}.npy").write_bytes(b"version https://git-lfs")
    write_openshape(folder / "Objaverse/000-009/no uid.npy", good)
    bring_in(corpus, folder)
    assert not mark.exists()
    found = reasons(corpus)
    assert found == {
        **{(stage, "unsafe_pickle"): 1 for stage in ("objects", "points", "captions", "image_embeddings")},
        **{(stage, "not_npy"): 1 for stage in ("objects", "points", "captions", "image_embeddings")},
        **{(stage, "id_not_understood"): 1 for stage in ("objects", "points", "captions", "image_embeddings")},
        **{(stage, "other_teacher"): 1 for stage in ("objects", "points", "captions", "image_embeddings")},
        ("points", "few_points"): 1,
        ("points", "not_finite"): 1,
        ("points", "degenerate"): 1,
        ("points", "malformed"): 2,
        ("objects", "malformed"): 1,
        ("captions", "malformed"): 2,
        ("captions", "no_text"): 1,
        ("image_embeddings", "bad_embedding"): 2,
        ("image_embeddings", "malformed"): 1,
    }
    assert len([id for id in rows(corpus, "objects")]) == 6 + 7


def test_more_points_are_drawn_from_and_features_may_be_missing(corpus, folder, rng):
    data = openshape_data("Objaverse", "000-004", UIDS[0], rng)
    for field in ("rgb", "thumbnail_feat"):
        del data[field]
    data["xyz"] = np.concatenate([data["xyz"], data["xyz"] + 0.01])
    data["retrieval_text_feat"] = [{"original": features["original"]} for features in data["retrieval_text_feat"]]
    write_openshape(folder / f"Objaverse/000-004/{UIDS[0]}.npy", data)
    assert {failed for _, failed, _ in bring_in(corpus, folder).values()} == {0}
    assert rows(corpus, "points")[f"objaverse/{UIDS[0]}"]["rgb"] is None
    assert rows(corpus, f"text_embeddings/{TEACHER}", "text")[data["retrieval_text"][0]]["prompt_averaged"] is None


def test_a_changed_file_is_done_again_and_a_moved_folder_with_the_same_files_is_not(corpus, folder, tmp_path, rng):
    bring_in(corpus, folder)
    write_openshape(
        folder / f"Objaverse/000-004/{UIDS[0]}.npy",
        openshape_data("Objaverse", "000-004", UIDS[0], rng, blip_caption="new", blip_caption_feat=text_features("new")),
    )
    made = bring_in(corpus, folder)
    assert {part: made[part][0] for part in made} == {
        "objects": 1,
        "points": 1,
        "captions": 1,
        "image_embeddings": 1,
        "text_embeddings": 1,
    }
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    made = bring_in(corpus, moved)
    assert made["objects"][0] == 6 and {made[part][0] for part in made if part != "objects"} == {0}


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        OpenShapeFolder(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"holds no OpenShape files .* Objaverse, ShapeNet, ABO, 3D-FUTURE"):
        OpenShapeFolder(str(tmp_path))
    (tmp_path / "Objaverse").mkdir()
    (tmp_path / "Objaverse" / "000-000.tar.gz").touch()
    with pytest.raises(ValueError, match=r"unpack .*000-000.tar.gz"):
        OpenShapeFolder(str(tmp_path))


def test_the_real_layout_comes_in_whole(corpus, assets):
    made = bring_in(corpus, assets / "eval" / "objaverse_lvis")
    assert {part: made[part][:2] for part in made if part != "text_embeddings"} == {
        part: (8, 0) for part in ("objects", "points", "captions", "image_embeddings")
    }
    assert made["text_embeddings"] == (16, 0, 0)
