"""Results as files: what was found is there again, and what is no result is refused."""

import json

import pytest

from evaluate.result import Figure, Result, from_json, load, save, to_json


def result(**other):
    said = dict(
        task="zero-shot",
        method="mine, step 10",
        fed="points",
        teacher="tricorpus-tiny:shapes-v1",
        benchmark="modelnet40",
        variant="OpenShape's clouds",
        objects=2468,
        missing=0,
        classes=40,
        figures={"top-1": Figure((0.5, 0.25, 0.75)), "top-5": Figure((1.0,))},
        per_class={"night stand": (0.5, 86), "Band_Aid": (0.0, 0)},
        settings={"rule": "unit templates", "points": 10_000},
        leaks={"id": 2, "hash": 0},
        trained_on="demo/corpus, 216 objects",
        seconds=1.5,
    )
    return Result(**(said | other))


def test_mean_and_spread_over_seeds():
    assert (Figure((0.5, 0.25, 0.75)).mean, Figure((0.5, 0.25, 0.75)).spread) == (0.5, 0.25)
    assert Figure((0.5,)).spread is None
    assert Figure((0.5, 0.5)).spread == 0


@pytest.mark.parametrize("one", [result(), result(per_class=None, leaks=None, trained_on=None, classes=None, settings={})])
def test_there_and_back_through_json(one):
    assert from_json(json.loads(json.dumps(to_json(one)))) == one


def test_figures_can_be_read_without_this_project():
    assert to_json(result())["figures"]["top-1"] == {"mean": 0.5, "spread": 0.25, "values": [0.5, 0.25, 0.75]}


def test_a_folder_holds_one_evaluation_in_three_files(tmp_path):
    one, other = result(), result(method="Überläufer", per_class=None)
    save(tmp_path / "new" / "folder", [one, other])
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["results.json", "table.html", "table.md"]
    assert load(tmp_path / "new" / "folder") == load(tmp_path / "new" / "folder" / "results.json") == [one, other]
    for name in ("table.md", "table.html"):
        assert "Überläufer" in (tmp_path / "new" / "folder" / name).read_text()
    save(tmp_path / "new" / "folder", [other])
    assert load(tmp_path / "new" / "folder") == [other]
    assert "mine, step 10" not in (tmp_path / "new" / "folder" / "table.md").read_text()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Expecting property name"),
        ("[]", "list indices"),
        ('{"results": [{}]}', "not the result of an evaluation \\(KeyError: 'figures'\\)"),
        (json.dumps({"results": [to_json(result()) | {"more": 1}]}), "unexpected keyword argument 'more'"),
        (json.dumps({"results": [to_json(result()) | {"figures": {"top-1": 0.5}}]}), "not the result of an evaluation"),
    ],
)
def test_what_is_no_result_is_refused_by_the_name_of_its_file(tmp_path, text, why):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match=f"results.json: .*{why}"):
        load(tmp_path)


def test_a_folder_without_an_evaluation(tmp_path):
    with pytest.raises(ValueError, match="there is no .*results.json: evaluate jobs write it"):
        load(tmp_path)
