"""Teachers: open_clip's own embeddings, whatever else is in the batch."""

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from pipeline.stage import ObjectError
from pipeline.teacher import Teacher
from pipeline.weights import TINY_TEACHER, TINY_WEIGHTS, TeacherError


@pytest.fixture(scope="module")
def tiny():
    return Teacher(TINY_TEACHER, device="cpu")


def pictures(count: int, rng) -> list[np.ndarray]:
    return [rng.integers(0, 256, (130, 100, 4), dtype=np.uint8) for _ in range(count)]


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
