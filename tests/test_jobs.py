"""What a person reads: the jobs through their command line, on a few made objects."""

import json

import pytest

from jobs.__main__ import JOBS, main
from pipeline.made.made_objects import write_broken, write_objaverse
from pipeline.store import Corpus

TINY = "tricorpus-tiny:shapes-v1"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Four made objects and two broken ones in Objaverse's layout."""
    folder = tmp_path_factory.mktemp("source") / "hf-objaverse-v1"
    write_objaverse(folder, 4, seed=5)
    write_broken(folder)
    return folder


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    """A corpus built from them."""
    root = str(tmp_path_factory.mktemp("built") / "corpus")
    assert main(["build", root, "--source", f"objaverse={source}", "--teacher", TINY]) == 0
    return root


def refused(capsys, *arguments):
    """Exit code and what is said on standard error."""
    try:
        code = main(list(arguments))
    except SystemExit as exit:  # tyro's own way out for arguments it cannot read
        code = exit.code
    return code, capsys.readouterr().err


def test_help_names_every_job(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in JOBS)


@pytest.mark.parametrize("name", sorted(JOBS))
def test_every_job_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as exit:
        main([*name.split(), "--help"])
    assert exit.value.code == 0
    assert f"python -m jobs {name}" in capsys.readouterr().out


def test_build_makes_every_table_and_says_what_failed(built, source, capsys):
    corpus = Corpus(built)
    embeddings = [f"{kind}_embeddings/{TINY}" for kind in ("image", "text", "class")]
    assert corpus.tables() == sorted(["objects", "views", "points", "captions", "failures", "runs", *embeddings])
    assert corpus.need("views").count_rows() == 4 * 12
    assert corpus.need("points").count_rows() == 4
    assert corpus.need(f"image_embeddings/{TINY}").count_rows() == 4
    failed = corpus.need("failures").to_table().to_pylist()
    assert {(row["stage"], row["reason"]) for row in failed} == {("ingest", "truncated"), ("ingest", "empty_scene")}
    assert main(["status", built]) == 0
    page = capsys.readouterr().out
    assert "4 of 6 objects are complete" in page
    assert all(row["reason"] in page for row in failed)


def test_workers_on_ray_make_the_same_corpus_to_the_byte(built, source, tmp_path):
    root = str(tmp_path / "corpus")
    assert main(["build", root, "--source", f"objaverse={source}", "--teacher", TINY, "--workers", "2"]) == 0
    for table in set(Corpus(built).tables()) - {"runs"}:  # these say how long it took
        here, on_ray = (Corpus(one).need(table).to_table() for one in (built, root))
        if table == "failures":  # the log's tail names temporary files
            here, on_ray = here.drop_columns("log_tail"), on_ray.drop_columns("log_tail")
            order = [("object_id", "ascending"), ("stage", "ascending")]
        else:
            order = [(name, "ascending") for name in json.loads(here.schema.metadata[b"key"])]
        assert here.sort_by(order).equals(on_ray.sort_by(order)), table


def test_a_second_build_does_nothing_and_says_so(built, source, capsys):
    versions = {name: Corpus(built).need(name).version for name in Corpus(built).tables()}
    assert main(["build", built, "--source", f"objaverse={source}", "--teacher", TINY, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(stage["done"], stage["failed"]) for stage in told["stages"]] == [(0, 0)] * 7
    assert versions == {name: Corpus(built).need(name).version for name in Corpus(built).tables()}


def test_retry_forgets_exactly_the_failures_asked_for(source, tmp_path, capsys):
    root = str(tmp_path / "corpus")
    assert main(["ingest", root, "--source", f"objaverse={source}"]) == 0
    reasons = [row["reason"] for row in Corpus(root).need("failures").to_table().to_pylist()]
    assert main(["retry", root, "--stage", "ingest", "--reason", reasons[0]]) == 0
    left = [row["reason"] for row in Corpus(root).need("failures").to_table().to_pylist()]
    assert left == [reason for reason in reasons if reason != reasons[0]]
    capsys.readouterr()
    assert main(["ingest", root, "--source", f"objaverse={source}", "--json"]) == 0
    [stage] = json.loads(capsys.readouterr().out)["stages"]
    assert (stage["done"], stage["failed"]) == (0, reasons.count(reasons[0]))


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["bulid", "x"], 2, "there is no job 'bulid'"),
        (["build"], 2, "ROOT"),
        (["status", "/nowhere/at/all"], 1, "/nowhere/at/all has no table 'objects'"),
        (["embed", "/nowhere/at/all"], 1, "has no table 'views'"),
        (["build", "{root}", "--source", "objaverse=/nowhere"], 2, "/nowhere"),
        (["build", "{root}", "--source", "objavers={source}"], 2, "there are objaverse, "),
        (["build", "{root}", "--source", "{source}"], 2, "NAME=PATH"),
        (["build", "{root}", "--source", "objaverse={source}", "--teacher", "ViT-bigG-41:laion2b_s39b_b160k"], 2, "ViT-bigG-14"),
        (["build", "{root}", "--source", "objaverse={source}"], 1, "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"),
        (["build", "{root}", "--source", "objaverse={source}", "--limit", "0"], 2, "--limit 0"),
        (["build", "{root}", "--source", "objaverse={source}", "--settings", "/nowhere.toml"], 2, "/nowhere.toml"),
        (["retry", "{built}", "--stage", "rendr"], 2, "the stages that have: ingest"),
        (["retry", "{root}", "--stage", "render"], 1, "has no table 'failures'"),
    ],
)
def test_a_wrong_call_gets_its_exit_code_and_a_sentence(arguments, code, words, source, built, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "no weights here"))
    given = [argument.format(root=tmp_path / "c", source=source, built=built) for argument in arguments]
    got, said = refused(capsys, *given)
    assert got == code, said
    assert any(word in said for word in words.split("|")), said
    assert not (tmp_path / "c").exists()  # nothing was made


def test_a_settings_file_changes_a_stage_and_a_wrong_one_is_refused(source, tmp_path, capsys):
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text("[render]\nwidth = 64\nheight = 64\n")
    bad.write_text("[render]\nwidht = 64\n")
    root = str(tmp_path / "corpus")
    assert main(["ingest", root, "--source", f"objaverse={source}", "--limit", "1"]) == 0
    assert refused(capsys, "render", root, "--settings", str(bad))[0] == 2
    assert main(["render", root, "--settings", str(good)]) == 0
    views = Corpus(root).need("views").to_table(columns=["width", "height"]).to_pylist()
    assert views == [{"width": 64, "height": 64}] * 12
    assert Corpus(root).made_by("views")["render"]["settings"]["width"] == 64


def test_texts_are_embedded_where_there_are_no_views(source, tmp_path, capsys):
    root = str(tmp_path / "corpus")
    assert main(["ingest", root, "--source", f"objaverse={source}"]) == 0
    assert main(["caption", root]) == 0
    assert main(["embed", root, "--teacher", TINY]) == 0
    assert f"text_embeddings/{TINY}" in Corpus(root).tables()
    assert f"image_embeddings/{TINY}" not in Corpus(root).tables()
