import pytest

from pipeline.sources.folder import Folder
from pipeline.sources.source import KINDS, source_from


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a=b").mkdir()
    (tmp_path / "a=b" / "cube.obj").write_text("v 0 0 0")
    return tmp_path / "a=b"


def test_a_source_is_named_for_its_kind_or_as_it_is_told(folder, monkeypatch):
    assert source_from(f"folder={folder}") == Folder("folder", str(folder))
    assert source_from(f"chairs:folder={folder}") == Folder("chairs", str(folder))
    monkeypatch.chdir(folder.parent)
    assert source_from("folder=a=b/.") == Folder("folder", str(folder))


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("folder", f"wrong form: write NAME=PATH with NAME one of {', '.join(KINDS)}; NAME:KIND=PATH"),
        ("folder=", "wrong form"),
        ("=/tmp", "wrong form"),
        (":folder=/tmp", "wrong form"),
        ("shapes=/tmp", f"unknown kind of collection 'shapes': there are {', '.join(KINDS)}"),
        ("chairs:shapes=/tmp", "unknown kind of collection 'shapes'"),
        ("a/b:folder=/tmp", "may not hold a slash"),
    ],
)
def test_a_source_that_cannot_be_meant_is_refused_with_a_sentence(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        source_from(text)


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_that_is_not_there_is_refused(kind, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/nowhere does not exist: give"):
        source_from(f"{kind}={tmp_path}/nowhere")


def test_a_place_of_another_layout_is_refused(tmp_path, folder):
    with pytest.raises(ValueError, match="holds neither object-paths.json.gz nor glbs/"):
        source_from(f"objaverse={folder}")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("a")
    with pytest.raises(ValueError, match="holds no assets: give a folder with files of the formats glb"):
        source_from(f"folder={tmp_path}/text")
    with pytest.raises(ValueError, match="is a file: give the folder it is in"):
        source_from(f"folder={tmp_path}/text/a.txt")
