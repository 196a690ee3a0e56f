"""Names of teachers, their weights found and never fetched unasked, and what is wrong with a file said in a sentence."""

import hashlib

import open_clip
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from pipeline.teacher import Teacher
from pipeline.weights import (
    DEFAULT_TEACHER,
    TINY_TEACHER,
    TeacherError,
    dim,
    find_weights,
    identity,
    name_in_tables,
)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the Hugging Face hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cached(hub, repo: str, name: str, content: bytes = b"weights", blob: str | None = None):
    """Puts a file into the hub's cache the way the hub does: a link in a snapshot, to a blob named by its SHA-256."""
    folder = hub / f"models--{repo.replace('/', '--')}"
    blob = folder / "blobs" / (blob or hashlib.sha256(content).hexdigest())
    link = folder / "snapshots" / "abc" / name
    for path in (blob, link, folder / "refs" / "main"):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link.symlink_to(blob)
    (folder / "refs" / "main").write_text("abc")
    return link


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ("ViT-B-32", [DEFAULT_TEACHER, TINY_TEACHER]),
        ("ViT-B-32:", ["ARCH:PRETRAINED"]),
        ("VIT-B-33:openai", ["'VIT-B-33'", "ViT-B-32"]),
        ("ViT-B-32:laion2b_s34b", ["'laion2b_s34b'", "laion2b_s34b_b79k"]),
        ("tricorpus-tiny:shapes", ["'shapes'", "shapes-v1"]),
        ("ViT-B-32:/nowhere/w.safetensors", ["/nowhere/w.safetensors"]),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_ones_near_it(teacher, words):
    with pytest.raises(TeacherError) as error:
        find_weights(teacher)
    assert all(word in str(error.value) for word in words), error.value


def test_missing_weights_are_not_fetched_but_named_with_file_and_place(hub):
    with pytest.raises(TeacherError) as error:
        find_weights(DEFAULT_TEACHER)
    for word in ("laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", "open_clip_pytorch_model.bin", "HF_HOME", TINY_TEACHER):
        assert word in str(error.value)
    assert not hub.exists()


def test_weights_in_the_hubs_cache_are_found_the_safe_format_first(hub):
    repo = "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"
    old = cached(hub, repo, "open_clip_pytorch_model.bin", b"old")
    assert find_weights(DEFAULT_TEACHER) == old
    safe = cached(hub, repo, "open_clip_model.safetensors", b"safe")
    assert find_weights(DEFAULT_TEACHER) == safe


def test_the_hash_of_cached_weights_is_the_name_of_their_blob(hub):
    blob = "0123456789abcdef" * 4  # not the hash of the content: it was not read
    cached(hub, "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", "open_clip_model.safetensors", b"ten gigabytes", blob)
    assert identity(DEFAULT_TEACHER).weights_sha256 == blob


def test_dim_and_table_name_need_no_weights(hub):
    assert (dim(DEFAULT_TEACHER), dim("ViT-B-16-SigLIP:webli"), dim(TINY_TEACHER)) == (1280, 768, 64)
    assert name_in_tables(DEFAULT_TEACHER) == DEFAULT_TEACHER
    assert name_in_tables("ViT-B-32:/some/where/mine.v2.pt") == "ViT-B-32:mine.v2"


def test_identity_has_the_preprocessing_of_the_published_weights(hub):
    cached(hub, "timm/ViT-B-16-SigLIP", "open_clip_model.safetensors")
    siglip = identity("ViT-B-16-SigLIP:webli")
    assert (siglip.mean, siglip.std, siglip.resize_mode, siglip.image_size) == ((0.5,) * 3, (0.5,) * 3, "squash", 224)
    cached(hub, "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", "open_clip_model.safetensors")
    big = identity(DEFAULT_TEACHER)
    assert (big.mean, big.std) == (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    assert (big.resize_mode, big.interpolation, big.image_size, big.dim) == ("shortest", "bicubic", 224, 1280)


def test_a_tokenizer_that_is_not_here_is_not_fetched_either(hub):
    cached(hub, "timm/ViT-B-16-SigLIP", "open_clip_model.safetensors")
    with pytest.raises(TeacherError, match="tokenizer_config.json .* of timm/ViT-B-16-SigLIP"):
        Teacher("ViT-B-16-SigLIP:webli", device="cpu")


def test_a_weights_file_is_a_teacher_named_by_its_stem(tmp_path):
    torch.manual_seed(1)
    model = open_clip.create_model("tricorpus-tiny")
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    teacher = Teacher(f"tricorpus-tiny:{tmp_path}/mine.safetensors", device="cpu")
    assert teacher.name == "tricorpus-tiny:mine"
    assert teacher.identity.weights_sha256 == hashlib.sha256((tmp_path / "mine.safetensors").read_bytes()).hexdigest()
    model.eval()
    with torch.inference_mode():
        expected = model.encode_text(open_clip.get_tokenizer("tricorpus-tiny")(["a red mug"]), normalize=True).numpy()
    np.testing.assert_allclose(teacher.encode_texts(["a red mug"]), expected, atol=1e-6)
