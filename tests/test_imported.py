import pytest

from captions.imported import ImportCap3d, read_cap3d
from pipeline.run import run
from pipeline.stage import Single

UID, OTHER = "0" * 31 + "a", "0" * 31 + "b"


def brought_in(corpus, found, source="objaverse"):
    records = [{"object_id": id, "texts": texts} for id, texts in found.items()]
    [summary] = run(corpus, Single(ImportCap3d(source=source)), records=records, whole=True)
    rows = corpus.need("captions").to_table().to_pylist()
    return summary.done, {(row["object_id"], row["text"]): row["dropped_because"] for row in rows}


def test_a_list_is_read_with_its_commas_and_quotes(tmp_path):
    list = tmp_path / "a.csv"
    list.write_text(f'{UID},"A 3D model, with ""flat"" colours."\n\n{OTHER},Axe.\n{UID},Two  lines.\nxl-name,A thing.\n')
    assert read_cap3d(str(list), "objaverse") == {
        f"objaverse/{UID}": ['A 3D model, with "flat" colours.', "Two lines."],
        f"objaverse/{OTHER}": ["Axe."],
        "xl-name": ["A thing."],
    }


@pytest.mark.parametrize(("text", "line"), [(f"{UID},a,b\n", 1), (f"{UID},a\n{OTHER}\n", 2), (",a\n", 1)])
def test_a_line_of_another_form_is_refused_by_its_number(text, line, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=f"line {line}: "):
        read_cap3d(str(tmp_path / "a.csv"), "objaverse")


def test_captions_are_kept_unless_they_say_nothing(corpus):
    done, rows = brought_in(
        corpus,
        {"objaverse/1": ["a red car", "A red car.", "", "car car car car car car car car"], "objaverse/2": ["see www.a.com"]},
    )
    assert done == 2 and rows == {
        ("objaverse/1", "a red car"): None,
        ("objaverse/1", "A red car."): "duplicate",
        ("objaverse/1", ""): "only_digits",
        ("objaverse/1", "car car car car car car car car"): "repetitive",
        ("objaverse/2", "see www.a.com"): "url",
    }


def test_a_newer_list_replaces_the_older_one_of_the_same_source(corpus):
    brought_in(corpus, {"objaverse/1": ["a car"], "objaverse/2": ["a cat"]})
    brought_in(corpus, {"abo/1": ["a chair"]}, "abo")
    done, rows = brought_in(corpus, {"objaverse/2": ["a cat"], "objaverse/3": ["a cup"]})
    assert done == 1 and rows.keys() == {("objaverse/2", "a cat"), ("objaverse/3", "a cup"), ("abo/1", "a chair")}


def test_the_real_form_is_read(assets):
    found = read_cap3d(str(assets / "eval/cap3d/Cap3D_automated_Objaverse_full.csv"), "objaverse")
    assert len(found) > 100 and all(id.startswith("objaverse/") for id in found)
