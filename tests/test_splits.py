import json

import pytest

from pipeline.imports.ids import object_id, source_by_form, source_of
from pipeline.imports.splits import ImportSplit, read_split
from pipeline.run import run
from pipeline.stage import Single

UID, OTHER = "0" * 31 + "a", "0" * 31 + "b"
FUTURE = "0a0f0cf2-3a34-4ba2-b24f-34f361c36b3e"


@pytest.mark.parametrize(
    ("source", "group", "id", "named"),
    [
        ("objaverse", "000-004", UID, f"objaverse/{UID}"),
        ("shapenet", "02691156", "1a04e3ea", "shapenet/02691156/1a04e3ea"),
        ("shapenet", "", "02691156-1a04e3ea", "shapenet/02691156/1a04e3ea"),
        ("shapenet", "02691156", "02691156_1a04e3ea", "shapenet/02691156/1a04e3ea"),
        ("abo", "9", "B075QFCHM9", "abo/B075QFCHM9"),
        ("3d-future", "", FUTURE, f"3d-future/{FUTURE}"),
        ("mvimgnet", "", "5_2600746d", "mvimgnet/5/2600746d"),
        ("mvpnet", "", "0/0000251e.pcd", "mvpnet/0/0000251e"),
        ("chairs", "", "red/one.glb", "chairs/red/one.glb"),
    ],
)
def test_the_spellings_of_an_id_are_one(source, group, id, named):
    assert object_id(source, id, group) == named


@pytest.mark.parametrize(("source", "id"), [("objaverse", "chair"), ("abo", UID), ("mvimgnet", UID), ("chairs", ""), ("x", "/a")])
def test_what_cannot_be_an_id_is_refused(source, id):
    with pytest.raises(ValueError, match="is no id of"):
        object_id(source, id)


def test_a_source_is_known_by_its_name_or_by_the_form_of_its_ids():
    assert [source_of(name) for name in ("Objaverse", "3D-FUTURE", "MVImgNet", "mine")] == [
        "objaverse",
        "3d-future",
        "mvimgnet",
        "mine",
    ]
    forms = [UID, FUTURE, "02691156-1a04e3ea", "5_2600746d", "0/0000251e.pcd", "chair"]
    assert [source_by_form(id) for id in forms] == ["objaverse", "3d-future", "shapenet", "mvimgnet", "mvpnet", None]


LISTS = {
    "train_all.json": (
        f'[{{"dataset": "Objaverse", "group": "0", "id": "{UID}"}}, {{"dataset": "ShapeNet", "group": "02691156", "id": "ab"}}]',
        {f"objaverse/{UID}": None, "shapenet/02691156/ab": None},
    ),
    "lvis.json": (
        f'\n[ {{"uid": "{UID}", "category": "Bible", "group": "x", "data_path": "y"}} ,\n {{"uid":"{OTHER}","category":"ax"}}]\n',
        {f"objaverse/{UID}": "Bible", f"objaverse/{OTHER}": "ax"},
    ),
    "ids.json": (json.dumps([UID, OTHER, UID]), {f"objaverse/{UID}": None, f"objaverse/{OTHER}": None}),
    "val.json": ('["192/0a0ff1c0.pcd"]', {"mvpnet/192/0a0ff1c0": None}),
    "lvis-annotations.json": (json.dumps({"ax": [UID], "bun": [OTHER]}), {f"objaverse/{UID}": "ax", f"objaverse/{OTHER}": "bun"}),
    "lvis.csv": (
        f'5,Ferris_wheel,{UID}\r\n\r\n17,"speaker, loud",{OTHER}\r\n',
        {f"objaverse/{UID}": "Ferris_wheel", f"objaverse/{OTHER}": "speaker, loud"},
    ),
    "lvis_testset.txt": (f"5,Ferris_wheel,{UID},/Objaverse/000-000/{UID}.npy\n", {f"objaverse/{UID}": "Ferris_wheel"}),
    "mvimgnet_model_ids.txt": ("5_2600746d\n5_2600746e\n", {"mvimgnet/5/2600746d": None, "mvimgnet/5/2600746e": None}),
    "mvpnet_val.csv": ("0,bag,0_0000251e\n", {"mvimgnet/0/0000251e": "bag"}),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_every_published_form_is_read(name, tmp_path):
    text, expected = LISTS[name]
    (tmp_path / name).write_text(text)
    assert read_split(str(tmp_path / name)) == expected


def test_whose_ids_they_are_can_be_said(tmp_path):
    (tmp_path / "a.csv").write_text("0,bag,0_0000251e\n")
    assert read_split(str(tmp_path / "a.csv"), "mvpnet") == {"mvpnet/0/0000251e": "bag"}
    (tmp_path / "b.txt").write_text("red/one.glb\n")
    assert read_split(str(tmp_path / "b.txt"), "chairs") == {"chairs/red/one.glb": None}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", f"{UID}\nchair\n", "line 2: of which source is 'chair'"),
        ("a.csv", f"1,ax,{UID}\n2,bun\n", "line 2: .* is neither an id nor an entry"),
        ("a.csv", f"1,ax,{UID}\n2,bun,{UID}\n", "line 2: .* is called 'bun', and 'ax' before"),
        ("a.json", f'["{UID}", 5]', "entry 2: 5 is neither"),
        ("a.json", f'["{UID}"', "is no JSON: one of ,. is missing"),
        ("a.json", '[{"dataset": "ABO", "id": "?"}]', "entry 1: '\\?' is no id of abo"),
        ("a.json", "[]", "lists no objects"),
        ("a.txt", "", "lists no objects"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_its_number(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_split(str(tmp_path / name))


def brought_in(corpus, split, listed):
    records = [{"object_id": id, "label": label} for id, label in listed.items()]
    [summary] = run(corpus, Single(ImportSplit(split=split)), records=records, whole=True)
    rows = corpus.need("splits").to_table().to_pylist()
    return summary.done, {(row["split"], row["object_id"], row["label"]) for row in rows}


def test_a_list_replaces_the_one_of_its_name_and_no_other(corpus):
    assert brought_in(corpus, "a", {"x/1": "ax", "x/2": "bun"})[0] == 2
    assert brought_in(corpus, "b", {"x/1": None})[0] == 1
    done, rows = brought_in(corpus, "a", {"x/1": "ax", "x/3": "cup"})
    assert done == 1 and rows == {("a", "x/1", "ax"), ("a", "x/3", "cup"), ("b", "x/1", None)}


def test_the_lists_of_the_real_layouts_are_read(assets):
    root = assets / "eval"
    lvis, train = (read_split(str(root / f"objaverse_lvis/meta_data/split/{name}.json")) for name in ("lvis", "train_all"))
    others = [read_split(str(root / f"objaverse_lvis/{name}")) for name in ("lvis.csv", "lvis_testset.txt")]
    assert all(lvis.items() <= other.items() for other in others)
    assert len(lvis) > 100 and len(train) > 100 and None not in lvis.values()
    val = read_split(str(root / "mvpnet/mvpnet_val.csv"), "mvpnet")
    assert val.keys() == read_split(str(root / "mvpnet/split/val.json")).keys()
