"""Official evaluation sets, in their forms, made on the spot."""

import csv
import json
import tracemalloc

import h5py
import numpy as np
import pytest

from evaluate.sets import modelnet40, scanobjectnn
from evaluate.sets.named import BENCHMARKS, open_benchmark
from pipeline.stage import ObjectError
from pipeline.store import Corpus
from schemas.check import to_table
from schemas.corpus import CorpusError
from schemas.tables import OBJECTS, SPLITS
from shout import object_row

UIDS = [f"{number:032x}" for number in range(6)]


def saved(place, value) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    np.save(place, value, allow_pickle=True)


def cloud(number: int, points: int = 5) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(points, 3)).astype(np.float32)


def labels_of(benchmark) -> list[str]:
    return [benchmark.classes[label] for label in benchmark.labels]


def reason(asked: str, number: int | None = None) -> str:
    """Why a set, or one of its objects, cannot be read."""
    with pytest.raises(ObjectError) as error:
        benchmark = open_benchmark(asked)
        assert number is not None, "it opened"
        benchmark.cloud(number)
    return error.value.reason


# ------------------------------------------------------------------------------------------------------------ ModelNet40


@pytest.fixture
def openshape(tmp_path):
    """OpenShape's form of ModelNet40: three clouds."""

    def make(clouds=None, names=("chair_0890", "night_stand_0201", "airplane_0627")):
        clouds = clouds or [{"xyz": cloud(n), "rgb": np.full((5, 3), 100.0, np.float32)} for n in range(len(names))]
        many = np.empty(len(clouds), object)
        many[:] = clouds
        saved(tmp_path / "test_pc.npy", many)
        entries = [{"name": name, "category": name.rpartition("_")[0]} for name in names]
        (tmp_path / "test_split.json").write_text(json.dumps(entries))
        return f"modelnet40={tmp_path}"

    return make


def test_openshapes_modelnet40_is_read_as_it_was_saved(openshape):
    found = open_benchmark(openshape())
    assert (found.name, found.ids[0], len(found.classes), found.missing) == ("modelnet40", "modelnet40/chair_0890", 40, ())
    assert labels_of(found) == ["chair", "night stand", "airplane"]
    for number in range(3):
        one = found.cloud(number)
        np.testing.assert_array_equal(one.xyz, cloud(number))
        assert (one.rgb == 100).all() and one.rgb.dtype == np.uint8 and one.up == "+y" and one.xyz.flags.writeable


def test_the_classes_are_the_alphabets():
    assert list(modelnet40.CLASSES) == sorted(modelnet40.CLASSES) and len(set(modelnet40.CLASSES)) == 40


def test_the_classes_are_those_of_the_official_lists(assets):
    names = (assets / "eval" / "modelnet40" / "modelnet40_shape_names.txt").read_text().replace("_", " ")
    assert modelnet40.CLASSES == tuple(names.splitlines())
    names = (assets / "eval" / "scanobjectnn" / "training_data" / "shape_names_ext.txt").read_text()
    assert scanobjectnn.CLASSES == tuple(names.split())


def test_opening_a_large_pickle_copies_none_of_its_clouds(openshape):
    names = [f"chair_{number:04d}" for number in range(100)]
    asked = openshape([{"xyz": cloud(n, 10_000), "rgb": np.full((10_000, 3), 100.0, np.float32)} for n in range(100)], names)
    open_benchmark(asked)  # whatever is imported on the way
    tracemalloc.start()
    try:
        found = open_benchmark(asked)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2 << 20  # of 24 MB
    np.testing.assert_array_equal(found.cloud(99).xyz, cloud(99, 10_000))


class Runs:
    def __reduce__(self):
        return eval, ("1",)


@pytest.mark.parametrize(
    ("one", "why"),
    [
        ({"xyz": cloud(0)[:, :2]}, "shape_mismatch"),
        ({"xyz": np.zeros((0, 3), np.float32)}, "shape_mismatch"),
        ({"xyz": "text"}, "shape_mismatch"),
        ({"xyz": cloud(0), "rgb": np.zeros((4, 3), np.float32)}, "shape_mismatch"),
        ({"xyz": np.where(cloud(0) > 0, np.nan, cloud(0))}, "not_finite"),
        ({"xyz": cloud(0), "rgb": np.full((5, 3), 256.0)}, "bad_colors"),
        ({"xyz": cloud(0), "rgb": np.full((5, 3), -1.0)}, "bad_colors"),
        ({"points": cloud(0)}, "malformed"),
        ("text", "malformed"),
    ],
)
def test_a_cloud_that_cannot_be_one_is_refused_alone(openshape, one, why):
    asked = openshape([{"xyz": cloud(0)}, one, {"xyz": cloud(2)}])
    assert reason(asked, 1) == why
    np.testing.assert_array_equal(open_benchmark(asked).cloud(2).xyz, cloud(2))


def test_a_pickle_that_is_a_program_is_not_run(openshape):
    assert reason(openshape([{"xyz": Runs()}, {}, {}])) == "unsafe_pickle"


def test_more_clouds_than_names_are_refused(openshape):
    assert reason(openshape([{"xyz": cloud(0)}] * 2)) == "shape_mismatch"


def test_a_cut_pickle_is_refused(openshape, tmp_path):
    asked = openshape()
    (tmp_path / "test_pc.npy").write_bytes((tmp_path / "test_pc.npy").read_bytes()[:-40])
    assert reason(asked) == "unreadable"
    (tmp_path / "test_pc.npy").write_bytes(b"")
    assert reason(asked) == "empty_file"


def test_a_class_that_modelnet40_does_not_have_is_named(openshape, tmp_path):
    with pytest.raises(ValueError, match="test_split.json calls objects 'chairs': that is none of the 40 classes"):
        open_benchmark(openshape(names=("chairs_0001", "bed_0001", "bed_0002")))
    (tmp_path / "test_split.json").write_text("[{]")
    with pytest.raises(ValueError, match="test_split.json cannot be read"):
        open_benchmark(f"modelnet40={tmp_path}")


def test_openshapes_modelnet40_has_no_training_half(openshape):
    with pytest.raises(ValueError, match="is the test half alone"):
        open_benchmark(openshape(), part="train")


def test_resampled_modelnet40(tmp_path):
    (tmp_path / "modelnet40_test.txt").write_text("night_stand_0201\nchair_0890\n")
    (tmp_path / "modelnet40_train.txt").write_text("chair_0001\n")
    for name in ("night_stand/night_stand_0201", "chair/chair_0001"):
        (tmp_path / name).parent.mkdir()
        np.savetxt(tmp_path / f"{name}.txt", np.hstack([cloud(1), cloud(2)]), delimiter=",")
    test, train = (open_benchmark(f"modelnet40={tmp_path}", part=part) for part in ("test", "train"))
    assert (labels_of(test), labels_of(train)) == (["night stand"], ["chair"])
    assert (test.missing, train.missing) == (("modelnet40/chair_0890",), ())
    np.testing.assert_allclose(test.cloud(0).xyz, cloud(1), rtol=1e-6)
    assert test.cloud(0).up == "+y" and test.cloud(0).rgb is None
    assert test.file(0) == str(tmp_path / "night_stand" / "night_stand_0201.txt")
    (tmp_path / "chair" / "chair_0001.txt").write_text("1,2,chair\n")
    with pytest.raises(ObjectError, match="lines that are no numbers"):
        train.cloud(0)


# A box of 4 x 2 x 1, of two triangles and five quads, with the header as ModelNet has it, and blank lines.
BOX = """OFF8 7 0

0 0 0
4 0 0
4 2 0
0 2 0

0 0 1
4 0 1
4 2 1
0 2 1
3 0 1 2
3 0 2 3
4 4 5 6 7
4 0 1 5 4
4 1 2 6 5
4 2 3 7 6
4 3 0 4 7
"""


def test_meshes_are_sampled_evenly_by_area_the_same_each_time(tmp_path):
    for name in ("box_0001", "box_0002"):
        place = tmp_path / "ModelNet40" / "glass_box" / "test" / f"{name.replace('box', 'glass_box')}.off"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(BOX)
    found = open_benchmark(f"modelnet40={tmp_path}")
    assert labels_of(found) == ["glass box"] * 2 and found.ids[1] == "modelnet40/glass_box_0002"
    one = found.cloud(0)
    assert one.xyz.shape == (10_000, 3) and one.up == "+z" and one.rgb is None
    low, high = np.isclose(one.xyz, 0), np.isclose(one.xyz, [4, 2, 1])
    assert (low | high).any(axis=1).all()  # each on a side
    shares = np.concatenate([low.mean(axis=0), high.mean(axis=0)])
    np.testing.assert_allclose(shares, np.tile([2, 4, 8], 2) / 28, atol=0.02)
    np.testing.assert_array_equal(one.xyz, open_benchmark(f"modelnet40={tmp_path}").cloud(0).xyz)
    assert not np.array_equal(one.xyz, found.cloud(1).xyz)


def test_broken_meshes_are_refused(tmp_path):
    place = tmp_path / "bed" / "train" / "bed_0001.off"
    place.parent.mkdir(parents=True)
    for content, why in (
        (BOX[:60], "truncated"),
        ("OFF\n3 1 0\n0 0 0\n0 0 0\n0 0 0\n3 0 1 2\n", "no_area"),
        ("solid", "parse_error"),
    ):
        place.write_text(content)
        with pytest.raises(ObjectError) as error:
            open_benchmark(f"modelnet40={tmp_path}", part="train").cloud(0)
        assert error.value.reason == why


# ---------------------------------------------------------------------------------------------------------- ScanObjectNN


def h5(place, labels, *, first: int = 0, clouds=None, **options) -> None:
    """A file of ScanObjectNN; row r holds cloud `first` + r."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(place, "w") as file:
        clouds = np.stack([cloud(first + row, 8) for row in range(len(labels))]) if clouds is None else clouds
        file.create_dataset("data", data=clouds, **options)
        file["label"] = np.array(labels, np.int32)


@pytest.fixture
def scans(tmp_path):
    for folder, first in (("main_split_nobg", 0), ("main_split", 100)):
        h5(tmp_path / "h5_files" / folder / "training_objectdataset.h5", [4, 0, 14], first=first, compression="gzip", chunks=True)
        h5(tmp_path / "h5_files" / folder / "test_objectdataset.h5", [9, 4], first=first + 50)
    h5(tmp_path / "h5_files" / "main_split" / "test_objectdataset_augmentedrot_scale75.h5", [9, 9, 4], first=200)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "told", "part", "labels", "clouds"),
    [
        ("scanobjectnn", "OBJ_ONLY", "test", ["chair", "bag", "toilet", "table", "chair"], [0, 1, 2, 50, 51]),
        ("scanobjectnn-obj-only", "OBJ_ONLY", "train", ["chair", "bag", "toilet"], [0, 1, 2]),
        ("scanobjectnn-obj-only", "OBJ_ONLY", "test", ["table", "chair"], [50, 51]),
        ("scanobjectnn-obj-bg", "OBJ_BG", "train", ["chair", "bag", "toilet"], [100, 101, 102]),
        ("scanobjectnn-obj-bg", "OBJ_BG", "test", ["table", "chair"], [150, 151]),
        ("scanobjectnn-pb-t50-rs", "PB_T50_RS", "test", ["table", "table", "chair"], [200, 201, 202]),
    ],
)
def test_each_variant_of_scanobjectnn_is_of_its_own_files(scans, name, told, part, labels, clouds):
    halves = "both halves" if name == "scanobjectnn" else "training half" if part == "train" else "test half"
    for place in (scans, scans / "h5_files"):
        found = open_benchmark(f"{name}={place}", part=part)
        assert labels_of(found) == labels and len(found.classes) == 15 and found.name == name
        assert len(set(found.ids)) == len(labels)
        assert found.variant == f"{told}, {halves}"
        for number, seed in enumerate(clouds):
            one = found.cloud(number)
            np.testing.assert_array_equal(one.xyz, cloud(seed, 8))
            assert one.rgb is None and one.up == "+y"


def test_the_whole_of_scanobjectnn_has_no_half_and_needs_both(scans):
    with pytest.raises(ValueError, match="ask for scanobjectnn-obj-only="):
        open_benchmark(f"scanobjectnn={scans}", part="train")
    (scans / "h5_files" / "main_split_nobg" / "training_objectdataset.h5").unlink()
    with pytest.raises(ValueError, match="there is no .*main_split_nobg/training_objectdataset.h5"):
        open_benchmark(f"scanobjectnn={scans}")


def test_a_file_of_another_variant_is_not_taken(scans):
    for place in ("main_split/test_objectdataset.h5", "main_split", "main_split_nobg/test_objectdataset_augmentedrot.h5"):
        (scans / "h5_files" / "main_split_nobg" / "test_objectdataset_augmentedrot.h5").touch()
        with pytest.raises(ValueError, match="is not of OBJ_ONLY|holds no test half of OBJ_ONLY"):
            open_benchmark(f"scanobjectnn-obj-only={scans}/h5_files/{place}")
    found = open_benchmark(f"scanobjectnn-obj-only={scans}/h5_files/main_split_nobg/test_objectdataset.h5")
    assert labels_of(found) == ["table", "chair"] and "main_split_nobg/test_objectdataset.h5" in found.variant


def test_the_other_splits_say_which_they_are(scans):
    h5(scans / "split3_nobg" / "test_objectdataset.h5", [1])
    found = open_benchmark(f"scanobjectnn-obj-only={scans}/split3_nobg")
    assert labels_of(found) == ["bin"] and "split3_nobg" in found.variant


def test_broken_files_of_scanobjectnn_are_refused(scans):
    place = scans / "h5_files" / "main_split" / "test_objectdataset.h5"
    asked = f"scanobjectnn-obj-bg={scans}"
    whole = place.read_bytes()
    place.write_bytes(whole[: len(whole) // 2])
    assert reason(asked) == "truncated"
    place.write_bytes(b"<html>")
    assert reason(asked) == "unreadable"
    h5(place, [0, 1, 2], clouds=np.zeros((4, 8, 3), np.float32))
    assert reason(asked) == "shape_mismatch"
    h5(place, [0, 15])
    assert reason(asked) == "bad_label"
    h5(place, [0, -1])
    assert reason(asked) == "bad_label"
    h5(place, [0], clouds=np.full((1, 8, 3), np.inf, np.float32))
    assert reason(asked, 0) == "not_finite"
    with h5py.File(place, "w") as file:
        file["points"] = np.zeros((4, 8, 3))
    assert reason(asked) == "malformed"


def test_openshapes_scanobjectnn(tmp_path):
    data = {"xyz": np.stack([cloud(0), cloud(1)]), "label": np.array([14, 0])}
    for colors in ({}, {"rgb": np.full((2, 5, 3), 0.25)}):
        saved(tmp_path / "xyz_label.npy", data | colors)
        for place in (tmp_path, tmp_path / "xyz_label.npy"):
            found = open_benchmark(f"scanobjectnn={place}")
            assert labels_of(found) == ["toilet", "bag"]
            np.testing.assert_array_equal(found.cloud(1).xyz, cloud(1))
            assert (found.cloud(1).rgb == 64).all() if colors else found.cloud(1).rgb is None
    with pytest.raises(ValueError, match="does not tell the halves apart"):
        open_benchmark(f"scanobjectnn-obj-only={tmp_path}/xyz_label.npy")
    for broken, why in (
        ({"label": np.zeros(3, np.int64)}, "shape_mismatch"),
        ({"rgb": np.zeros((2, 4, 3))}, "shape_mismatch"),
        ({"label": np.array([0, 15])}, "bad_label"),
        ({"label": [0, 1]}, "malformed"),
    ):
        saved(tmp_path / "xyz_label.npy", data | broken)
        assert reason(f"scanobjectnn={tmp_path}") == why


def test_scans_of_scanobjectnn(tmp_path):
    def scan(name, object, around):
        points = np.zeros((object + around, 11), np.float32)
        points[:, :3], points[:, 6:9], points[:object, 9] = cloud(object, object + around), 200, 7
        place = tmp_path / "object_dataset" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        np.concatenate([np.array([len(points)], np.float32), points.ravel()]).tofile(place)

    scan("chair/014_00018.bin", 2000, 100)
    scan("bed/scene0005_01_00010.bin", 3000, 5)
    scan("bed/016_00000.bin", 2000, 47)  # a point too few
    (tmp_path / "main_split.txt").write_text(
        "014_00018.bin\t4\tt\nscene0005_01_00010.bin\t10\n016_00000.bin\t10\n255_00001.bin\t3\tt\n"
    )
    (tmp_path / "object_labels.txt").write_text("014\t00018\tchair\t7\nscene0005_01\t00010\tbed\t7\n")
    around, whole = open_benchmark(f"scanobjectnn-obj-bg={tmp_path}"), open_benchmark(f"scanobjectnn={tmp_path}")
    assert (around.ids, around.missing) == (("scanobjectnn/014_00018",), ("scanobjectnn/255_00001",))
    assert (labels_of(whole), labels_of(around)) == (["chair", "bed"], ["chair"])
    np.testing.assert_array_equal(around.cloud(0).xyz, cloud(2000, 2100))
    np.testing.assert_array_equal(whole.cloud(0).xyz, cloud(2000, 2100)[:2000])
    assert (whole.cloud(0).rgb == 200).all() and "colours" in whole.variant
    place = tmp_path / "object_dataset" / "chair" / "014_00018.bin"
    place.write_bytes(place.read_bytes()[:-4])
    with pytest.raises(ObjectError, match="not as many as it says itself"):
        around.cloud(0)
    (tmp_path / "main_split.txt").write_text("014_00018.bin\t15\n")
    with pytest.raises(ValueError, match="main_split.txt, line 1"):
        open_benchmark(f"scanobjectnn={tmp_path}")


# -------------------------------------------------------------------------------------------------------- Objaverse-LVIS


def written(place, rows) -> None:
    with open(place, "w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def lvis(tmp_path):
    """Six objects listed, in all three forms; clouds of four of them."""
    names = ["apple", "Band_Aid", "bell_pepper", "apple", "beef_(food)", "CD_player"]
    ids = list(zip(UIDS, names, strict=True))
    (tmp_path / "meta_data" / "split").mkdir(parents=True)
    entries = [{"uid": uid, "category": name, "group": "000-000", "data_path": f"/mnt/data/{uid}.npy"} for uid, name in ids]
    (tmp_path / "meta_data" / "split" / "lvis.json").write_text(json.dumps(entries))
    written(tmp_path / "lvis.csv", [(0, name, uid) for uid, name in ids])
    written(tmp_path / "lvis_testset.txt", [(0, name, uid, f"/Objaverse/{uid}.npy") for uid, name in ids])
    for number in range(4):
        one = {"xyz": cloud(number), "rgb": np.full((5, 3), number / 3), "image_feat": np.zeros((12, 4))}
        saved(tmp_path / "Objaverse" / f"000-00{number % 2}" / f"{UIDS[number]}.npy", one)
    (tmp_path / "Objaverse" / "000-000" / f"{'f' * 32}.npy").touch()  # of no list
    return tmp_path


@pytest.mark.parametrize("place", ["", "meta_data/split/lvis.json", "lvis.csv", "lvis_testset.txt"])
def test_the_lists_of_objaverse_lvis_say_the_same(lvis, place):
    found = open_benchmark(f"objaverse-lvis={lvis / place}")
    assert found.classes == ("Band_Aid", "CD_player", "apple", "beef_(food)", "bell_pepper")  # capitals first
    assert found.ids == tuple(f"objaverse/{uid}" for uid in UIDS[:4])
    assert found.missing == tuple(f"objaverse/{uid}" for uid in UIDS[4:])
    assert labels_of(found) == ["apple", "Band_Aid", "bell_pepper", "apple"]
    for number in range(4):
        one = found.cloud(number)
        np.testing.assert_array_equal(one.xyz, cloud(number))
        assert (one.rgb == 85 * number).all() and one.up == "+y" and found.file(number).endswith(f"{UIDS[number]}.npy")


def test_clouds_of_objaverse_lvis_are_read_one_by_one(lvis):
    for place in (lvis / "Objaverse").rglob("*.npy"):
        place.write_bytes(b"")
    found = open_benchmark(f"objaverse-lvis={lvis}")
    assert len(found.ids) == 4
    with pytest.raises(ObjectError, match=f"{UIDS[0]}.npy is no NumPy file"):
        found.cloud(0)


def test_what_is_no_objaverse_lvis_is_refused(lvis, tmp_path):
    saved(lvis / "Objaverse" / "000-000" / f"{UIDS[0]}.npy", {"xyz": cloud(0), "rgb": np.full((5, 3), 100.0)})
    assert reason(f"objaverse-lvis={lvis}", 0) == "bad_colors"
    with pytest.raises(ValueError, match="it has no training half"):
        open_benchmark(f"objaverse-lvis={lvis}", part="train")
    (tmp_path / "ids.txt").write_text("\n".join(UIDS))
    with pytest.raises(ValueError, match="ids.txt does not say what objaverse/0+ is, and 6 in all"):
        open_benchmark(f"objaverse-lvis={tmp_path}/ids.txt")
    written(tmp_path / "lvis.csv", [(0, "apple", UIDS[0]), (1, "ax", UIDS[0])])
    with pytest.raises(ValueError, match="'ax', and 'apple' before"):
        open_benchmark(f"objaverse-lvis={tmp_path}/lvis.csv")
    written(tmp_path / "lvis.csv", [(0, "apple", UIDS[5])])
    with pytest.raises(ValueError, match="none of the 1 listed objects is there"):
        open_benchmark(f"objaverse-lvis={tmp_path}/lvis.csv")


# ---------------------------------------------------------------------------------------------------------------- MVPNet


@pytest.fixture
def mvpnet(tmp_path):
    """Three clouds of two classes; numbers of classes have gaps, and names are as in the real list."""
    (tmp_path / "mvimgnet_category.txt").write_bytes(b"0,bag\r\n2,wahser\r\n10,Toy butterfly \r\n192,Apple\r\n")
    root = tmp_path / "MVPNet"
    for label, instance in ((10, "0a0ff1c0"), (2, "0000c4a1"), (10, "00000003")):
        place = root / "data" / str(label) / f"{instance}.pcd"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(
            "VERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F U\nCOUNT 1 1 1 1\nWIDTH 2\nHEIGHT 1\nPOINTS 2\nDATA ascii\n"
            f"1 2 3 {0x0A141E}\n4 5 {label} 0\n"
        )
    (root / "split").mkdir()
    (root / "split" / "val.json").write_text('["10/0a0ff1c0.pcd", "2/0000c4a1.pcd", "2/0000ffff.pcd"]')
    (root / "split" / "train.json").write_text('["10/00000003.pcd"]')
    return root


def test_mvpnet_chooses_among_all_classes_of_mvimgnet(mvpnet):
    for listed in (None, "mvpnet_val.csv"):
        if listed:
            rows = [(2, "Toy butterfly", "10_0a0ff1c0"), (1, "wahser", "2_0000c4a1"), (1, "wahser", "2_0000ffff")]
            written(mvpnet / listed, rows)
        for place in ("", listed or "split/val.json"):
            found = open_benchmark(f"mvpnet={mvpnet / place}")
            assert found.classes == ("bag", "wahser", "Toy butterfly", "Apple") and labels_of(found) == ["Toy butterfly", "wahser"]
            assert found.ids == ("mvpnet/10/0a0ff1c0", "mvpnet/2/0000c4a1") and found.missing == ("mvpnet/2/0000ffff",)
            assert "COLMAP" in found.variant and found.file(1).endswith("/2/0000c4a1.pcd")
            one = found.cloud(0)
            assert one.xyz.tolist() == [[1, 2, 3], [4, 5, 10]] and one.rgb.tolist() == [[10, 20, 30], [0, 0, 0]]
    train = open_benchmark(f"mvpnet={mvpnet}", part="train")
    assert (train.ids, train.classes) == (("mvpnet/10/00000003",), found.classes)


def test_without_the_list_of_names_mvpnet_has_those_of_its_own_list(mvpnet):
    (mvpnet.parent / "mvimgnet_category.txt").unlink()
    with pytest.raises(ValueError, match="nothing says what class 10 .*put mvimgnet_category.txt into"):
        open_benchmark(f"mvpnet={mvpnet}")
    written(mvpnet / "mvpnet_val.csv", [(1, "Toy butterfly", "10_0a0ff1c0"), (0, "wahser", "2_0000c4a1")])
    assert open_benchmark(f"mvpnet={mvpnet}").classes == ("wahser", "Toy butterfly")


def test_a_list_of_mvpnet_that_contradicts_the_names_is_refused(mvpnet):
    written(mvpnet / "mvpnet_val.csv", [(0, "bag", "10_0a0ff1c0")])
    with pytest.raises(ValueError, match="calls mvpnet/10/0a0ff1c0 'bag', and its class is 'Toy butterfly'"):
        open_benchmark(f"mvpnet={mvpnet}")


# ------------------------------------------------------------------------------------------------------- splits of a corpus


def listed(corpus: Corpus, **splits: dict[str, str]) -> str:
    """The corpus' root, once it has these lists."""
    rows = [
        {"object_id": id, "stage": f"import-split/{split}", "stage_key": "k", "split": split.replace("_", "-"), "label": label}
        for split, said in splits.items()
        for id, label in said.items()
    ]
    corpus.create(SPLITS)
    corpus.append(SPLITS, corpus.write(SPLITS, to_table(SPLITS, rows)))
    return corpus.root


def test_a_split_of_a_corpus_is_kept_whole(corpus):
    root = listed(corpus, objaverse_lvis={"test/7": "ax", "test/30": "Zebra", "test/3": "bed"}, other={"test/1": "cup"})
    found = open_benchmark(f"objaverse-lvis={root}")
    assert (found.ids, found.missing) == (("test/3", "test/7"), ("test/30",))
    assert (found.classes, labels_of(found)) == (("Zebra", "ax", "bed"), ["bed", "ax"])
    assert found.corpus == root and found.cloud is None
    assert open_benchmark(f"other={root}").classes == ("cup",)


def test_halves_of_a_split_have_the_same_classes(corpus):
    root = listed(corpus, mine={"test/1": "b", "test/2": "c"}, mine_train={"test/3": "a", "test/4": "c"})
    test, train = (open_benchmark(f"mine={root}", part=part) for part in ("test", "train"))
    assert test.classes == train.classes == ("a", "b", "c")
    assert (labels_of(test), labels_of(train)) == (["b", "c"], ["a", "c"])
    with pytest.raises(CorpusError, match="has no split 'mine-train-train' with labels; it has: mine, mine-train"):
        open_benchmark(f"mine-train={root}", part="train")


def test_halves_that_share_an_object_are_refused(corpus):
    root = listed(corpus, mine={"test/1": "b"}, mine_train={"test/1": "b", "test/4": "c"})
    for part in ("test", "train"):
        with pytest.raises(CorpusError, match="1 objects are in both halves of 'mine', as test/1"):
            open_benchmark(f"mine={root}", part=part)


def test_an_object_with_two_names_is_refused_and_one_that_is_listed_twice_is_one(corpus):
    corpus.create(SPLITS)
    for stage, label in (("a", "cup"), ("b", "cup"), ("c", "mug")):
        row = {"object_id": "test/1", "stage": stage, "stage_key": "k", "split": "mine", "label": label}
        if label == "mug":
            assert open_benchmark(f"mine={corpus.root}").ids == ("test/1",)
        fragment = corpus.write(SPLITS, to_table(SPLITS, [row]))
        corpus.append(SPLITS, fragment)
    with pytest.raises(CorpusError, match="'mine': test/1 is called 'cup' and 'mug'"):
        open_benchmark(f"mine={corpus.root}")


def test_mvimgnet_in_a_corpus_chooses_among_all_its_classes(tmp_path):
    corpus = Corpus(str(tmp_path / "deep" / "corpus"))
    ids = {"192/0a0ff1c0": "Apple", "2/0000c4a1": "wahser", "0/00000000": "bag"}
    rows = [
        object_row(0, object_id=f"mvimgnet/{id}", source="mvimgnet", source_id=id, categories=[name]) for id, name in ids.items()
    ]
    corpus.create(OBJECTS)
    corpus.append(OBJECTS, corpus.write(OBJECTS, to_table(OBJECTS, [*rows, object_row(1, categories=["not of these"])])))
    root = listed(corpus, mvpnet={"mvimgnet/192/0a0ff1c0": "Apple", "mvimgnet/2/0000c4a1": "wahser"})
    found = open_benchmark(f"mvpnet={root}")
    assert found.classes == ("bag", "wahser", "Apple") and labels_of(found) == ["Apple", "wahser"]
    (tmp_path / "mvimgnet_category.txt").write_bytes(b"0,bag\r\n2,wahser\r\n10,Toy butterfly \r\n192,Apple\r\n")
    assert open_benchmark(f"mvpnet={root}").classes == ("bag", "wahser", "Toy butterfly", "Apple")
    (tmp_path / "mvimgnet_category.txt").write_text("2,washer\n")
    with pytest.raises(CorpusError, match="class of MVImgNet 2 is called 'washer' and 'wahser'"):
        open_benchmark(f"mvpnet={root}")


def test_a_split_that_is_called_mvpnet_and_is_not_is_refused(corpus):
    root = listed(corpus, mvpnet={"test/1": "b"})
    with pytest.raises(CorpusError, match="'test/1' is no id of MVImgNet"):
        open_benchmark(f"mvpnet={root}")


# ----------------------------------------------------------------------------------------------------------------- names


def test_what_cannot_be_opened_is_said(corpus, tmp_path):
    with pytest.raises(ValueError, match="is not NAME=PLACE"):
        open_benchmark("modelnet40")
    with pytest.raises(ValueError, match="there is no .*/nowhere"):
        open_benchmark(f"modelnet40={tmp_path}/nowhere")
    with pytest.raises(CorpusError, match="has no table 'splits'"):
        open_benchmark(f"mine={corpus.root}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is no corpus, which could have a split 'mine'"):
        open_benchmark(f"mine={tmp_path}/empty")
    for name in BENCHMARKS:
        with pytest.raises(ValueError, match="empty holds no "):
            open_benchmark(f"{name}={tmp_path}/empty")


# ---------------------------------------------------------------------------------------------------------- the real forms


@pytest.mark.parametrize(
    ("asked", "objects", "classes", "missing"),
    [
        ("modelnet40=modelnet40", 8, 40, 0),
        ("modelnet40=modelnet40/raw", 8, 40, 0),
        ("modelnet40=modelnet40/modelnet40_normal_resampled", 2, 40, 0),
        ("scanobjectnn=scanobjectnn", 11, 15, 0),
        ("scanobjectnn-obj-only=scanobjectnn", 11, 15, 0),
        ("scanobjectnn-obj-bg=scanobjectnn", 11, 15, 0),
        ("scanobjectnn-pb-t50-rs=scanobjectnn", 11, 15, 0),
        ("mvpnet=mvpnet", 2, 2, 0),
        ("objaverse-lvis=objaverse_lvis", 8, 125, 153),
        ("objaverse-lvis=objaverse_lvis/lvis.csv", 8, 127, 156),
        ("objaverse-lvis=objaverse_lvis/lvis_testset.txt", 8, 125, 153),
    ],
)
def test_official_files_of_the_pack(assets, asked, objects, classes, missing):
    name, _, place = asked.partition("=")
    found = open_benchmark(f"{name}={assets}/eval/{place}")
    assert (len(found.ids), len(found.classes), len(found.missing)) == (objects, classes, missing)
    for number in range(objects):
        one = found.cloud(number)
        assert len(one.xyz) >= 1800 and one.xyz.std() > 0


def test_one_chair_stands_the_same_way_in_all_forms_of_modelnet40(assets):
    """Upright, and seen from the front: extents over the height, and where along each axis the mean lies in the box."""

    def told(place: str) -> np.ndarray:
        found = open_benchmark(f"modelnet40={assets}/eval/modelnet40/{place}")
        one = found.cloud(found.ids.index("modelnet40/chair_0890"))
        x, y, z = one.xyz.T
        upright = np.stack([x, z, -y] if one.up == "+z" else [x, y, z], axis=1)
        box = upright.max(axis=0) - upright.min(axis=0)
        return np.concatenate([box / box[1], (upright.mean(axis=0) - upright.min(axis=0)) / box])

    np.testing.assert_allclose(told("raw"), told(""), atol=0.03)
    np.testing.assert_allclose(told("modelnet40_normal_resampled"), told(""), atol=0.03)


@pytest.mark.parametrize(("file", "why"), [("test_objectdataset.h5", "shape_mismatch"), ("truncated.h5", "truncated")])
def test_malformed_files_of_the_pack(assets, file, why):
    assert reason(f"scanobjectnn={assets}/malformed/112_datasets_scanobjectnn_bad/{file}") == why
