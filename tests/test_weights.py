"""Names of teachers, their weights found and never fetched unasked, and what is wrong with a file said in a sentence."""

import hashlib
import io
import json
import os
import pickle
import shutil
from pathlib import Path

import fsspec
import numpy as np
import open_clip
import pytest
import tokenizers
import torch
from huggingface_hub import constants
from open_clip.pretrained import _PRETRAINED, _pcfg, get_pretrained_cfg
from safetensors.torch import save_file

from jobs import doctor
from jobs.__main__ import main
from pipeline.embed import EmbedImages
from pipeline.model import load, need_text_files
from pipeline.store import Corpus
from pipeline.teacher import Teacher
from pipeline.weights import (
    DEFAULT_TEACHER,
    TINY_TEACHER,
    TINY_WEIGHTS,
    TeacherError,
    WeightsMissing,
    absolute_name,
    dim,
    find_weights,
    identity,
    name_in_tables,
    refuse_other_weights,
)
from schemas.check import to_table
from schemas.tables import CAPTIONS

BIG_G = "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"
PUBLISHED = [":".join(pair) for pair in open_clip.list_pretrained()]


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """Empty caches: of the Hugging Face hub (which is given), of open_clip, and of remote files."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRICORPUS_CACHE", str(tmp_path / "remote"))
    return tmp_path / "hub"


def cached(hub, repo: str, name: str, content: bytes = b"weights", blob: str | None = None, revision="abc", main=True) -> str:
    """Puts a file into the hub's cache the way the hub does: a link in a snapshot, to a blob named by its SHA-256."""
    folder = hub / f"models--{repo.replace('/', '--')}"
    blob = folder / "blobs" / (blob or hashlib.sha256(content).hexdigest())
    link = folder / "snapshots" / revision / name
    for path in (blob, link, folder / "refs" / "main"):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link.symlink_to(blob)
    if main:
        (folder / "refs" / "main").write_text(revision)
    return str(link)


def safetensors(path: Path, seed: int = 0, arch: str = "tricorpus-tiny") -> str:
    """A file of random weights."""
    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = open_clip.create_model(arch, pretrained_text=False).state_dict()
    save_file({name: value.clone().contiguous() for name, value in state.items()}, path)
    return str(path)


def any_file(path: Path, content: bytes = b"PK\5\6" + bytes(18)) -> str:
    """A file that nothing is read from; an empty zip archive, so that it looks whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


# Names


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ("ViT-B-32", [DEFAULT_TEACHER, TINY_TEACHER]),
        ("ViT-B-32:", ["ARCH:PRETRAINED"]),
        ("VIT-B-33:openai", ["'VIT-B-33'", "ViT-B-32"]),
        ("ViT-B-32:laion2b_s34b", ["'laion2b_s34b'", "laion2b_s34b_b79k"]),
        ("tricorpus-tiny:shapes", ["'shapes'", "shapes-v1"]),
        ("ViT-B-32:/nowhere/w.safetensors", ["/nowhere/w.safetensors"]),
        ("ViT-B-32:/nowhere/w.npz", [".safetensors", ".pth"]),
        ("ViT-B-32:/nowhere/my weights.pt", ["'my weights'", "rename"]),
        ("ViT-B-32:s3://bucket/my%20weights.pt", ["'my%20weights'", "rename"]),
        ("hf-hub:laion/CLIP-ViT-B-32", ["ARCH:hf://ORG/NAME"]),
    ],
)
def test_a_wrong_name_is_answered_with_what_to_say_instead(teacher, words):
    with pytest.raises(TeacherError) as error:
        find_weights(teacher)
    assert all(word in str(error.value) for word in words), error.value


def test_dim_and_table_name_need_no_weights():
    assert (dim(DEFAULT_TEACHER), dim("ViT-B-16-SigLIP:webli"), dim(TINY_TEACHER)) == (1280, 768, 64)
    assert name_in_tables(DEFAULT_TEACHER) == DEFAULT_TEACHER
    assert name_in_tables("ViT-B-32:/some/where/mine.v2.pt") == "ViT-B-32:mine.v2"
    assert name_in_tables("ViT-B-32:s3://bucket/some/mine.v2.pt") == "ViT-B-32:mine.v2"
    assert name_in_tables("ViT-B-32:https://host/mine.v2.pt?download=true") == "ViT-B-32:mine.v2"


def test_one_tag_is_one_table_however_it_is_spelt_and_wherever_its_file_is():
    spellings = ("ViT-B-32:OpenAI", "ViT-B-32:laion2b-s34b-b79k", "ViT-B-32:/x/laion2b-s34b_b79k.bin", "ViT-B-32:s3://x/openai.pt")
    tables = ("openai", "laion2b_s34b_b79k", "laion2b_s34b_b79k", "openai")
    assert [name_in_tables(one) for one in spellings] == [f"ViT-B-32:{tag}" for tag in tables]


def test_a_path_may_be_relative_or_begin_at_home_and_is_absolute_for_workers_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in ("sub/mine.safetensors", "~/mine.safetensors", f"file://{tmp_path}/sub/mine.safetensors"):
        file = Path(given.removeprefix("file://")).expanduser().absolute()
        any_file(file)
        assert find_weights(f"ViT-B-32:{given}") == str(file)
        assert absolute_name(f"ViT-B-32:{given}") == f"ViT-B-32:{file}"
    assert absolute_name("ViT-B-32:s3://bucket/mine.pt") == "ViT-B-32:s3://bucket/mine.pt"
    assert absolute_name("ViT-B-32:OpenAI") == "ViT-B-32:openai"


# Where weights are


def test_missing_weights_are_not_fetched_but_named_with_file_and_place(hub):
    with pytest.raises(WeightsMissing) as error:
        find_weights(DEFAULT_TEACHER)
    for word in (
        f"{hub}/models--laion--CLIP-ViT-bigG-14-laion2B-39B-b160k/snapshots/main/open_clip_model.safetensors",
        "open_clip_pytorch_model.bin",
        f"hf download {BIG_G} open_clip_model.safetensors",
        "--teacher ViT-bigG-14:/path/laion2b_s39b_b160k.safetensors",
        TINY_TEACHER,
    ):
        assert word in str(error.value)
    with pytest.raises(WeightsMissing) as error:
        find_weights("ViT-B-32:openai")
    assert f"ViT-B-32.pt as {Path('~/.cache/clip/ViT-B-32.pt').expanduser()}" in str(error.value)
    assert not hub.exists()


def test_a_file_put_where_the_sentence_says_is_found(hub):
    place = hub / "models--laion--CLIP-ViT-bigG-14-laion2B-39B-b160k/snapshots/main/open_clip_model.safetensors"
    any_file(place)
    assert find_weights(DEFAULT_TEACHER) == str(place)


def test_weights_in_the_hubs_cache_are_found_the_safe_format_first(hub):
    old = cached(hub, BIG_G, "open_clip_pytorch_model.bin", b"old")
    assert find_weights(DEFAULT_TEACHER) == old
    safe = cached(hub, BIG_G, "open_clip_model.safetensors", b"safe")
    assert find_weights(DEFAULT_TEACHER) == safe


def test_any_revision_in_the_hubs_cache_will_do_and_main_is_taken_first(hub):
    other = cached(hub, BIG_G, "open_clip_model.safetensors", b"other", revision="v2", main=False)
    assert find_weights(DEFAULT_TEACHER) == other
    main = cached(hub, BIG_G, "open_clip_pytorch_model.bin", b"main", revision="abc")
    os.utime(Path(main).parent, (1, 1))  # not because it is newer
    assert find_weights(DEFAULT_TEACHER) == main


def test_the_hash_of_cached_weights_is_the_name_of_their_blob(hub):
    blob = "0123456789abcdef" * 4  # not the hash of the content: it was not read
    cached(hub, BIG_G, "open_clip_pytorch_model.bin", b"ten gigabytes", blob)
    assert identity(DEFAULT_TEACHER).weights_sha256 == blob


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A tag of the tiny architecture whose weights lie in open_clip's own cache, a TorchScript archive as OpenAI's are; its URL
    holds its SHA-256. The folder of the cache, and the file."""
    torch.manual_seed(3)
    model = open_clip.create_model("tricorpus-tiny").eval()
    model.attn_mask = model._buffers.pop("attn_mask")  # in OpenAI's it is no state either
    size = open_clip.get_model_config("tricorpus-tiny")["vision_cfg"]["image_size"]
    example = torch.zeros(1, 3, size, size), torch.ones(1, model.context_length, dtype=torch.long)
    scripted = torch.jit.trace(model, example, check_trace=False)
    file = Path("~/.cache/clip/told.pt").expanduser()
    file.parent.mkdir(parents=True)
    torch.jit.save(scripted, file)
    url = f"https://openaipublic.azureedge.net/clip/models/{sha256(file)}/told.pt"
    monkeypatch.setitem(_PRETRAINED, "tricorpus-tiny", {"told": _pcfg(url=url, quick_gelu=True)})
    return file


def test_open_clips_own_cache_is_looked_into_and_checked_against_the_url(own):
    assert find_weights("tricorpus-tiny:told") == str(own)
    assert identity("tricorpus-tiny:told").weights_sha256 == sha256(own)
    promised = sha256(own)
    own.write_bytes(own.read_bytes() + b" ")
    with pytest.raises(TeacherError, match=f"damaged.*{sha256(own)} and must begin with {promised}"):
        identity("tricorpus-tiny:told")


def test_a_program_is_opened_as_weights_only_when_its_bytes_are_those_that_openai_gave_out(own, tmp_path):
    loaded = load("tricorpus-tiny:told")
    torch.manual_seed(3)
    expected = open_clip.create_model("tricorpus-tiny").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.model.state_dict().items())
    assert load(f"tricorpus-tiny:{any_file(tmp_path / 'renamed.pt', own.read_bytes())}").identity.quick_gelu
    other = any_file(tmp_path / "other.pt")
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), other)
    with pytest.raises(TeacherError, match="could run a program"):
        load(f"tricorpus-tiny:{other}")


def test_weights_at_a_uri_are_fetched_once_and_are_the_same_teacher(tmp_path):
    place = "memory://weights/mine.safetensors"
    fsspec.filesystem("memory").pipe_file("/weights/mine.safetensors", TINY_WEIGHTS.read_bytes())
    teacher = Teacher(f"tricorpus-tiny:{place}", device="cpu")
    assert (teacher.name, teacher.identity.weights_sha256) == ("tricorpus-tiny:mine", sha256(TINY_WEIGHTS))
    [kept] = (tmp_path / "remote").glob("*.safetensors")
    assert sha256(kept) == sha256(TINY_WEIGHTS)
    kept.unlink()  # another process needed the room
    assert identity(f"tricorpus-tiny:{place}") == teacher.identity
    safetensors(tmp_path / "other.safetensors")
    fsspec.filesystem("memory").put_file(str(tmp_path / "other.safetensors"), "/weights/mine.safetensors")
    assert identity(f"tricorpus-tiny:{place}").weights_sha256 == sha256(tmp_path / "other.safetensors")


def test_weights_larger_than_the_cache_may_grow_are_used_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("TRICORPUS_CACHE_GB", "0.001")
    fsspec.filesystem("memory").pipe_file("/weights/large.safetensors", TINY_WEIGHTS.read_bytes())
    assert load("tricorpus-tiny:memory://weights/large.safetensors").identity.weights_sha256 == sha256(TINY_WEIGHTS)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("memory://weights/absent.pt", "no such file"),
        ("s4://bucket/w.pt", "s4"),
        ("memory://weights/page.safetensors", "memory://weights/page.safetensors is a web page"),
    ],
)
def test_a_uri_that_gives_no_weights_is_answered_with_a_sentence(place, words):
    fsspec.filesystem("memory").pipe_file("/weights/page.safetensors", b"<!doctype html>")
    with pytest.raises(TeacherError, match=words):
        identity(f"tricorpus-tiny:{place}")


def test_the_doctor_lists_the_teachers_whose_weights_are_here_and_what_they_lack(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    cached(hub, BIG_G, "open_clip_model.safetensors")
    cached(hub, "timm/ViT-B-16-SigLIP", "open_clip_model.safetensors")
    here, lacking = doctor._weights()
    assert (here.status, here.found) == (doctor.OK, DEFAULT_TEACHER)
    assert lacking.status == doctor.NOTE and lacking.found.startswith("ViT-B-16-SigLIP:webli")
    assert "tokenizer_config.json" in lacking.todo


# What is wrong with a file


def _pickled(what) -> bytes:
    file = io.BytesIO()
    torch.save(what, file)
    return file.getvalue()


FAULTY = {
    "empty.safetensors": (b"", "is empty"),
    "empty.pt": (b"", "is empty"),
    "page.safetensors": (b"\n<!DOCTYPE html><html>", "is a web page"),
    "page.bin": (b"<html>", "is a web page"),
    "pointer.bin": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "half.safetensors": (TINY_WEIGHTS.read_bytes()[: TINY_WEIGHTS.stat().st_size // 2], "no whole safetensors file"),
    "half.pt": (_pickled({"a": torch.zeros(1000)})[:2000], "only a part of a weights file"),
    "noise.pt": (bytes(range(1, 256)), "cannot be loaded|more than tensors"),
    "objects.pt": (_pickled({"a": Path("/")}), "could run a program"),
    "legacy.pt": (pickle.dumps(Path("/")), "could run a program"),
    "list.pt": (_pickled([1, 2]), "cannot be loaded into tricorpus-tiny"),
    "nothing.pt": (_pickled({}), "cannot be loaded into tricorpus-tiny"),
    "others.pt": (_pickled({"a": torch.zeros(3)}), "cannot be loaded into tricorpus-tiny.*Missing key"),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_file_that_holds_no_weights_or_others_is_refused_with_a_sentence(name, tmp_path):
    content, words = FAULTY[name]
    with pytest.raises(TeacherError, match=words) as error:
        load(f"tricorpus-tiny:{any_file(tmp_path / name, content)}")
    assert str(tmp_path / name) in str(error.value) and len(str(error.value)) < 900


def test_what_is_wrong_with_a_file_from_its_outside_is_said_before_any_work(tmp_path):
    for name in ("empty.pt", "page.bin", "half.safetensors", "half.pt"):
        with pytest.raises(TeacherError):
            identity(f"tricorpus-tiny:{any_file(tmp_path / name, FAULTY[name][0])}")


def test_weights_of_another_architecture_are_refused(tmp_path):
    with pytest.raises(TeacherError, match="cannot be loaded into ViT-S-32-alt"):
        load(f"ViT-S-32-alt:{any_file(tmp_path / 'mine.safetensors', TINY_WEIGHTS.read_bytes())}")


# What embeddings depend on


@pytest.mark.parametrize("teacher", PUBLISHED)
def test_a_published_teacher_is_told_apart_by_all_that_open_clip_says_of_it(teacher, tmp_path):
    arch, tag = teacher.split(":")
    with pytest.raises(WeightsMissing, match=rf"--teacher {arch}:/path/{tag}.safetensors"):
        find_weights(teacher)
    about = identity(f"{arch}:{any_file(tmp_path / f'{tag}.bin')}")
    config, published = open_clip.get_model_config(arch), get_pretrained_cfg(arch, tag)
    assert (about.name, about.arch, about.pretrained) == (teacher, arch, tag)
    assert (about.dim, about.image_size) == (config["embed_dim"], config["vision_cfg"]["image_size"])
    assert type(about.dim) is type(about.image_size) is int
    by_architecture = teacher == "roberta-ViT-B-32:laion2b_s12b_b32k"  # of which open_clip's list of tags knows nothing
    assert about.quick_gelu == (by_architecture or published.get("quick_gelu", False))
    assert about.quick_gelu or not config.get("quick_gelu")
    assert [about.mean, about.std] == [published["mean"], published["std"]]
    assert [about.interpolation, about.resize_mode] == [published["interpolation"], published["resize_mode"]]
    assert "size" not in published and "fill_color" not in published and "mode" not in published
    assert json.loads(json.dumps(about.to_json())) == about.to_json()


@pytest.mark.parametrize("arch", open_clip.list_models())
def test_any_architecture_takes_a_file_or_says_how_to_name_it(arch, tmp_path):
    file = any_file(tmp_path / "mine.bin")
    keys = ("mean", "std", "interpolation", "resize_mode")
    tags = [get_pretrained_cfg(arch, tag) for tag in open_clip.list_pretrained_tags_by_model(arch)]
    ways = {tuple(tag[key] for key in keys) for tag in tags}
    if len(ways) > 1:
        with pytest.raises(TeacherError, match="TAG.NAME.safetensors"):
            identity(f"{arch}:{file}")
    else:
        assert identity(f"{arch}:{file}").name == f"{arch}:mine"
    text = open_clip.get_model_config(arch)["text_cfg"]
    assert "hf_tokenizer_name" in text or "siglip" not in arch.lower()  # open_clip would fetch a vocabulary
    if "hf_tokenizer_name" in text or "hf_model_name" in text:
        with pytest.raises(WeightsMissing, match="hf download"):
            need_text_files(f"{arch}:{file}")
    else:
        assert need_text_files(f"{arch}:{file}").tokenizer is None


def test_a_file_takes_activation_and_preparation_from_the_tag_its_name_begins_with(tmp_path):
    def about(arch: str, name: str):
        return identity(f"{arch}:{any_file(tmp_path / name)}")

    assert [about("ViT-B-32", name).quick_gelu for name in ("openai.bin", "openai.mine.bin", "mine.bin", "laion2b_e16.bin")] == [
        True,
        True,
        False,
        False,
    ]
    assert about("ViT-B-32-quickgelu", "mine.bin").quick_gelu
    assert about("ViT-L-14", "laion2b_s32b_b82k.mine.bin").mean == (0.5,) * 3
    assert about("ViT-L-14", "openai.mine.bin").mean == open_clip.OPENAI_DATASET_MEAN
    assert about("ViT-L-14", "openai.mine.bin").name == "ViT-L-14:openai.mine"
    assert about("ViT-H-14", "dfn5b.bin").resize_mode == "squash"
    siglip = about("ViT-B-16-SigLIP", "mine.bin")
    assert (siglip.mean, siglip.std, siglip.resize_mode, siglip.image_size) == ((0.5,) * 3, (0.5,) * 3, "squash", 224)


def test_quick_gelu_reaches_the_model(tmp_path, monkeypatch):
    monkeypatch.setitem(_PRETRAINED, "tricorpus-tiny", {"quick": _pcfg(quick_gelu=True)})
    kinds = {
        name: {type(module).__name__ for module in load(f"tricorpus-tiny:{safetensors(tmp_path / name)}").model.modules()}
        for name in ("quick.safetensors", "mine.safetensors")
    }
    assert "QuickGELU" in kinds["quick.safetensors"] and "QuickGELU" not in kinds["mine.safetensors"]


def test_a_weights_file_is_a_teacher_named_by_its_stem(tmp_path):
    file = safetensors(tmp_path / "mine.safetensors", seed=1)
    teacher = Teacher(f"tricorpus-tiny:{file}", device="cpu")
    assert teacher.name == "tricorpus-tiny:mine"
    assert teacher.identity.weights_sha256 == sha256(file)
    model = open_clip.create_model("tricorpus-tiny", pretrained=file).eval()
    with torch.inference_mode():
        expected = model.encode_text(open_clip.get_tokenizer("tricorpus-tiny")(["a red mug"]), normalize=True).numpy()
    np.testing.assert_allclose(teacher.encode_texts(["a red mug"]), expected, atol=1e-6)


def test_tensors_of_a_pickled_checkpoint_are_the_same_weights(tmp_path):
    file = safetensors(tmp_path / "mine.safetensors")
    state = open_clip.create_model("tricorpus-tiny", pretrained=file).state_dict()
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "mine.pt")
    loaded = load(f"tricorpus-tiny:{tmp_path / 'mine.pt'}").model.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in state.items())


# Tokenizers


def test_a_tokenizer_that_is_not_here_is_not_fetched_either(hub, tmp_path):
    siglip = f"ViT-B-16-SigLIP:{any_file(tmp_path / 'webli.bin')}"
    place = hub / "models--timm--ViT-B-16-SigLIP" / "snapshots" / "main"
    with pytest.raises(WeightsMissing) as error:
        load(siglip)
    for word in ("tokenizer_config.json", "tokenizer.json", "of timm/ViT-B-16-SigLIP", str(place)):
        assert word in str(error.value)
    any_file(place / "tokenizer_config.json")
    with pytest.raises(WeightsMissing, match="hf download timm/ViT-B-16-SigLIP"):
        need_text_files(siglip)
    any_file(place / "spiece.model")
    assert need_text_files(siglip).tokenizer == place


@pytest.mark.slow
def test_siglip_reads_texts_with_the_tokenizer_of_its_own_repository(hub, tmp_path, rng):
    """Random weights; and a tokenizer of a few words, for its real one is not here."""
    words = {"<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "red": 5, "mug": 6}
    place = hub / "models--timm--ViT-B-16-SigLIP" / "snapshots" / "main"
    place.mkdir(parents=True)
    vocabulary = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    vocabulary.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    vocabulary.save(str(place / "tokenizer.json"))
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    (place / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | special))
    torch.manual_seed(1)
    model = open_clip.create_model("ViT-B-16-SigLIP", load_weights=False).eval()
    save_file(model.state_dict(), tmp_path / "webli.safetensors")
    teacher = Teacher(f"ViT-B-16-SigLIP:{tmp_path / 'webli.safetensors'}", device="cpu", images_per_forward=2, texts_per_forward=2)
    [tokens] = teacher.tokens(["A red, RED mug!"])  # made canonical: small letters, no punctuation
    assert tokens[:5].tolist() == [4, 5, 5, 6, 1] and len(tokens) == 64
    with torch.inference_mode():
        expected = model.encode_text(tokens[None], normalize=True).numpy()
    np.testing.assert_allclose(teacher.encode_texts(["a red red mug"]), expected, atol=1e-5)
    picture = rng.integers(0, 256, (50, 80, 3), dtype=np.uint8)
    assert teacher.encode_images([picture]).shape == (1, 768)


# Side by side, never mixed


@pytest.fixture
def small(tmp_path) -> Corpus:
    """A corpus of one caption, not embedded."""
    corpus = Corpus(str(tmp_path / "corpus"))
    said = {"text": "a mug", "text_sha256": hashlib.sha256(b"a mug").hexdigest(), "model": "by hand", "kept": True}
    row = {"object_id": "a/1", "origin": "metadata", "caption": 0, "stage": "s", "stage_key": "k"} | said
    corpus.create(CAPTIONS)
    corpus.append(CAPTIONS, corpus.write(CAPTIONS, to_table(CAPTIONS, [row | {"dropped_because": None, "score": None}])))
    return corpus


def image_row(corpus: Corpus, stage: EmbedImages, id: str, made_by: str, settings: dict) -> None:
    """Puts a row that a stage of this name is said to have made into the images' table."""
    corpus.create(stage.writes, {"stage": made_by, "settings": settings})
    row = {"object_id": id, "stage": made_by, "stage_key": "k", "embedding": [np.eye(64, dtype=np.float16)[0]]}
    corpus.append(stage.writes, corpus.write(stage.writes, to_table(stage.writes, [row])))


def two_teachers(folder: Path) -> list[str]:
    """Two files of one name and different weights."""
    return [f"tricorpus-tiny:{safetensors(folder / str(seed) / 'mine.safetensors', seed)}" for seed in (0, 1)]


def test_other_weights_of_the_same_name_never_come_into_a_table(small, tmp_path, capsys):
    first, second = two_teachers(tmp_path)
    refuse_other_weights(small, first)
    assert main(["embed", small.root, "--teacher", first]) == 0
    refuse_other_weights(small, first)
    versions = {name: small.need(name).version for name in small.tables()}
    with pytest.raises(TeacherError) as error:
        refuse_other_weights(small, second)
    for word in (
        identity(first).weights_sha256,
        identity(second).weights_sha256,
        "text_embeddings/tricorpus-tiny:mine holds 1 rows",
        small.uri("text_embeddings/tricorpus-tiny:mine"),
        "OTHER-NAME",
    ):
        assert word in str(error.value), error.value
    assert main(["embed", small.root, "--teacher", second]) == 2
    assert "another teacher that is called tricorpus-tiny:mine, too" in capsys.readouterr().err
    assert {name: small.need(name).version for name in small.tables()} == versions
    other = tmp_path / "1" / "other.safetensors"  # the ways out that the sentence names: another name, or without the table
    other.symlink_to(tmp_path / "1" / "mine.safetensors")
    refuse_other_weights(small, f"tricorpus-tiny:{other}")
    shutil.rmtree(small.uri("text_embeddings/tricorpus-tiny:mine"))
    refuse_other_weights(small, second)


def test_the_images_texts_and_classes_of_one_name_are_of_the_same_weights(small, tmp_path):
    first, second = two_teachers(tmp_path)
    stage = EmbedImages(teacher=first)
    image_row(small, stage, "a/1", stage.name, stage.settings())
    with pytest.raises(TeacherError, match="image_embeddings/tricorpus-tiny:mine holds 1 rows"):
        refuse_other_weights(small, second)


def test_a_table_without_rows_and_imported_rows_are_in_nobodys_way(small, tmp_path):
    first, second = two_teachers(tmp_path)
    stage = EmbedImages(teacher=first)
    small.create(stage.writes, {"stage": stage.name, "settings": stage.settings()})
    image_row(small, stage, "b/1", f"import-openshape/{stage.writes.name}", {})
    refuse_other_weights(small, second)


def test_weights_that_do_not_fit_end_a_job_with_a_sentence(small, tmp_path, capsys):
    file = any_file(tmp_path / "others.pt", FAULTY["others.pt"][0])
    assert main(["embed", small.root, "--teacher", f"tricorpus-tiny:{file}"]) == 1
    assert f"{file} (" in (error := capsys.readouterr().err) and "cannot be loaded into tricorpus-tiny" in error
