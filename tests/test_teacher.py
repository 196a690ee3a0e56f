"""Teachers: names, weights found and never fetched unasked, and open_clip's own embeddings, whatever else is in the batch."""

import hashlib

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file

from pipeline.stage import ObjectError
from pipeline.teacher import Teacher
from pipeline.weights import (
    DEFAULT_TEACHER,
    TINY_TEACHER,
    TINY_WEIGHTS,
    TeacherError,
    dim,
    find_weights,
    identity,
    name_in_tables,
)


@pytest.fixture(scope="module")
def tiny():
    return Teacher(TINY_TEACHER, device="cpu")


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


def pictures(count: int, rng) -> list[np.ndarray]:
    return [rng.integers(0, 256, (130, 100, 4), dtype=np.uint8) for _ in range(count)]


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


def test_embeddings_are_open_clips_own(tiny, rng):
    model, _, preprocess = open_clip.create_model_and_transforms("tricorpus-tiny", pretrained=str(TINY_WEIGHTS))
    model.eval()
    opaque = [picture[..., :3] for picture in pictures(5, rng)]
    prepared = torch.stack([preprocess(Image.fromarray(picture)) for picture in opaque])
    assert torch.equal(torch.stack([tiny.prepare(picture) for picture in opaque]), prepared)
    texts = ["a red mug", "a blue and white striped vase with a wide lip"]
    with torch.inference_mode():
        images = model.encode_image(prepared, normalize=True).numpy()
        said = model.encode_text(open_clip.get_tokenizer("tricorpus-tiny")(texts), normalize=True).numpy()
    np.testing.assert_allclose(tiny.encode_images(opaque), images, atol=1e-5)
    np.testing.assert_allclose(tiny.encode_texts(texts), said, atol=1e-5)


def test_transparent_pixels_are_seen_as_white_and_half_transparent_ones_half(tiny, rng):
    picture = pictures(1, rng)[0]
    picture[..., 3] = rng.choice((0, 128, 255), picture.shape[:2])
    alpha = picture[..., 3:] / 255
    laid = np.round(picture[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    np.testing.assert_allclose(tiny.prepare(picture), tiny.prepare(laid), atol=0.03)  # 1/255 of rounding, divided by std
    picture[..., 3] = 0
    assert torch.equal(tiny.prepare(picture), tiny.prepare(np.full_like(laid, 255)))


def test_encoded_pictures_and_arrays_are_the_same_and_other_bytes_are_refused(tiny, rng, tmp_path):
    picture = pictures(1, rng)[0]
    for name, options in (("p.png", {}), ("p.webp", {"lossless": True, "exact": True})):
        Image.fromarray(picture).save(tmp_path / name, **options)
        assert torch.equal(tiny.prepare((tmp_path / name).read_bytes()), tiny.prepare(picture))
    whole = (tmp_path / "p.png").read_bytes()
    for content in (b"", b"no picture at all", whole[: len(whole) // 2]):
        with pytest.raises(ObjectError) as error:
            tiny.prepare(content)
        assert error.value.reason == "image_unreadable"


def test_an_embedding_does_not_depend_on_what_else_is_asked_for(tiny, rng):
    some = pictures(tiny.images_per_forward + 7, rng)
    together = tiny.encode_images(some)
    assert np.array_equal(tiny.encode_images(some[-1:])[0], together[-1])
    assert np.array_equal(tiny.encode_images(some[::-1])[::-1], together)
    texts = [f"a mug number {number}" for number in range(tiny.texts_per_forward + 7)]
    together = tiny.encode_texts(texts)
    assert np.array_equal(tiny.encode_texts(texts[-1:])[0], together[-1])
    assert np.array_equal(tiny.encode_texts(texts[::-1])[::-1], together)


def test_the_size_of_the_forward_pass_changes_less_than_half_precision_rounds(tiny, rng):
    some = pictures(9, rng)
    small = Teacher(TINY_TEACHER, device="cpu", images_per_forward=4, texts_per_forward=3)
    assert np.abs(small.encode_images(some) - tiny.encode_images(some)).max() < 2**-12
    assert (
        np.abs(small.encode_texts(["a", "red", "mug", "is here"]) - tiny.encode_texts(["a", "red", "mug", "is here"])).max()
        < 2**-12
    )


def test_embeddings_have_unit_length_and_nothing_gives_nothing(tiny, rng):
    np.testing.assert_allclose(np.linalg.norm(tiny.encode_images(pictures(3, rng)), axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(tiny.encode_texts(["", "word " * 500]), axis=1), 1, atol=1e-6)
    assert tiny.encode_images([]).shape == tiny.encode_texts([]).shape == (0, 64)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_is_an_error():
    with pytest.raises(TeacherError, match="no GPU"):
        Teacher(TINY_TEACHER, device="cuda")


@pytest.mark.gpu
def test_both_devices_agree(tiny, rng):
    some = pictures(9, rng)
    gpu = Teacher(TINY_TEACHER, device="cuda")
    assert np.einsum("nd,nd->n", gpu.encode_images(some), tiny.encode_images(some)).min() > 0.999
    assert np.einsum("nd,nd->n", gpu.encode_texts(["a red mug"]), tiny.encode_texts(["a red mug"])).min() > 0.999
