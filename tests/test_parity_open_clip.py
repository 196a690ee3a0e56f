"""Our teachers against open_clip's own loading, transform, tokenizer and model, of one file: 100 real pictures, 100 real texts.

`pytest -s` prints the largest differences.
"""

import gzip
import io
import json
from dataclasses import dataclass

import numpy as np
import open_clip
import pytest
import torch
from open_clip.pretrained import get_pretrained_cfg
from PIL import Image
from safetensors.torch import save_file

from pipeline.teacher import Teacher
from pipeline.weights import TINY_TEACHER, TINY_WEIGHTS

COUNT = 100
FEW = 20  # pictures and texts that go through a model that is only to be seen to be the right one, or again in bfloat16
SOURCES = ("3d-future", "abo", "mvimgnet", "shapenet")  # their loose pictures; those of `malformed` are so on purpose
# A plain one; one with other mean, colour spread, interpolation and squashed pictures, and a text tower of its own length.
RANDOM = {"ViT-B-32": "laion2b_s34b_b79k", "PE-Core-T-16-384": "meta"}
# The smallest of each kind of tower: timm's EVA, ConvNeXt, Swin and hybrids, a captioner's attention pooling, QuickGELU, a ResNet.
KINDS = (
    "EVA02-B-16", "convnext_base", "swin_base_patch4_window7_224", "ViTamin-S", "MobileCLIP-S1", "MobileCLIP2-S0", "coca_ViT-B-32",
    "RN50-quickgelu", "ViT-B-32-quickgelu", "ViT-B-16-plus-240",
)  # fmt: skip


@pytest.fixture(scope="module")
def pictures(assets) -> list[bytes]:
    files = [file for source in SOURCES for file in sorted((assets / source).rglob("*")) if file.suffix in (".jpg", ".png")]
    step = len(files) / COUNT
    assert step >= 1
    return [files[int(number * step)].read_bytes() for number in range(COUNT)]


@pytest.fixture(scope="module")
def texts(assets) -> list[str]:
    files = sorted((assets / "objaverse" / "metadata").glob("*.json.gz"))
    about = [one for file in files for one in json.loads(gzip.decompress(file.read_bytes())).values()]
    said = sorted({one[key] for one in about for key in ("name", "description") if one[key]})
    assert len(said) >= COUNT
    return [said[number * len(said) // COUNT] for number in range(COUNT)]


@dataclass(frozen=True)
class Reference:
    """What open_clip makes of pictures and texts with the weights of a teacher."""

    teacher: str
    prepared: torch.Tensor
    tokens: torch.Tensor
    images: np.ndarray
    texts: np.ndarray


@pytest.fixture(scope="module", params=["tricorpus-tiny", *RANDOM])
def open_clips(request, tmp_path_factory, pictures, texts) -> Reference:
    arch = request.param
    if arch == "tricorpus-tiny":
        teacher, file, published = TINY_TEACHER, TINY_WEIGHTS, {}
    else:
        file = tmp_path_factory.mktemp(arch) / f"{RANDOM[arch]}.safetensors"
        torch.manual_seed(0)
        save_file(open_clip.create_model(arch).state_dict(), file)
        teacher, published = f"{arch}:{file}", get_pretrained_cfg(arch, RANDOM[arch])
    # of a file, open_clip must be told how its pictures are prepared, if not like OpenAI's
    ways = {f"image_{key}": published.get(key) for key in ("mean", "std", "interpolation", "resize_mode")}
    model, _, transform = open_clip.create_model_and_transforms(arch, str(file), **ways)
    prepared = torch.stack([transform(on_white(picture)) for picture in pictures])
    tokens = open_clip.get_tokenizer(arch)(texts)
    count = FEW if arch == "PE-Core-T-16-384" else COUNT
    with torch.inference_mode():
        images, said = model.eval().encode_image(prepared[:count]), model.encode_text(tokens[:count])
    return Reference(teacher, prepared, tokens, images.numpy(), said.numpy())


def on_white(content: bytes) -> Image.Image:
    """The picture as an open_clip user would open it, with white behind what is transparent."""
    picture = Image.open(io.BytesIO(content))
    if picture.has_transparency_data:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    return picture.convert("RGB")


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference of any number, in lengths of a vector."""
    return float((np.abs(ours - theirs).max(axis=1) / np.linalg.norm(theirs, axis=1)).max())


def test_pictures_and_texts_come_out_as_with_open_clip(open_clips, pictures, texts):
    ours = Teacher(open_clips.teacher, device="cpu", dtype="float32", images_per_forward=FEW, texts_per_forward=FEW)
    prepared = [ours.prepare(picture) for picture in pictures]
    tensors = (ours.pixels(torch.stack(prepared)) - open_clips.prepared).abs().max().item()
    count = len(open_clips.images)
    images = apart(ours.image_vectors(prepared[:count]), open_clips.images)
    said = apart(ours.text_vectors(texts[:count]), open_clips.texts)
    modes = sorted({Image.open(io.BytesIO(picture)).mode for picture in pictures})
    print(f"\n{ours.name} ({', '.join(modes)}): apart by prepared {tensors:.1e}, images {images:.1e}, texts {said:.1e}", end="")
    assert torch.equal(torch.stack(ours.tokens(texts)), open_clips.tokens)
    assert tensors <= 1e-6
    assert images <= 1e-5 and said <= 1e-5
    # random weights say much the same of everything; still, another picture and another text are farther away
    assert apart(open_clips.images, np.roll(open_clips.images, 1, axis=0)) > 1e-3
    assert apart(open_clips.texts, np.roll(open_clips.texts, 1, axis=0)) > 1e-3


def test_bfloat16_says_nearly_the_same(open_clips, pictures, texts):
    ours = Teacher(open_clips.teacher, device="cpu", dtype="bfloat16", images_per_forward=FEW, texts_per_forward=FEW)
    images, said = (
        np.einsum("nd,nd->n", vectors, theirs[:FEW] / np.linalg.norm(theirs[:FEW], axis=1, keepdims=True)).min()
        for vectors, theirs in (
            (ours.encode_images(pictures[:FEW]), open_clips.images),
            (ours.encode_texts(texts[:FEW]), open_clips.texts),
        )
    )
    print(f"\n{ours.name}: smallest cosine with bfloat16: images {images:.5f}, texts {said:.5f}", end="")
    assert min(images, said) >= 0.999


@pytest.mark.slow
@pytest.mark.parametrize("arch", KINDS)
def test_every_kind_of_architecture_is_a_teacher(arch, tmp_path, rng):
    torch.manual_seed(0)
    model = open_clip.create_model(arch).eval()
    save_file({name: value.clone() for name, value in model.state_dict().items()}, tmp_path / "mine.safetensors")
    ours = Teacher(f"{arch}:{tmp_path}/mine.safetensors", device="cpu", dtype="float32")
    prepared = [ours.prepare(rng.integers(0, 256, (130, 100, 3), dtype=np.uint8)) for _ in range(3)]
    said = ["a red mug", "a wooden chair with a woven seat", ""]
    with torch.inference_mode():
        images = model.encode_image(ours.pixels(torch.stack(prepared)), normalize=False).numpy()
        texts = model.encode_text(open_clip.get_tokenizer(arch)(said), normalize=False).numpy()
    assert images.shape == texts.shape == (3, ours.dim)
    assert apart(ours.image_vectors(prepared), images) <= 1e-5 and apart(ours.text_vectors(said), texts) <= 1e-5
