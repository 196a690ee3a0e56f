"""Teachers: frozen CLIP models that turn pictures and texts into unit vectors."""

import io
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Literal

import numpy as np
import open_clip
import torch
from jaxtyping import Float32, UInt8
from open_clip.pretrained import get_pretrained_cfg
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, UnidentifiedImageError

from pipeline.stage import ObjectError
from pipeline.weights import TeacherError, find_weights, identity, need_text_files, preprocess_of, split_name

Device = Literal["auto", "cpu", "cuda"]


class Teacher:
    """A loaded teacher.

    device: "auto" takes a GPU if there is one; "cuda" without a GPU is an error. On a GPU the model runs under bfloat16 autocast.
    images_per_forward, texts_per_forward: every forward pass has exactly this many, the last one is padded, so that an embedding
    does not depend on what else was asked for.
    """

    def __init__(
        self,
        teacher: str,
        *,
        device: Device = "auto",
        images_per_forward: int = 32,
        texts_per_forward: int = 64,
        download: bool = False,
    ):
        arch, pretrained = split_name(teacher)
        weights = find_weights(teacher, download=download)
        if not download:
            need_text_files(teacher, arch)
        self.device = _torch_device(device)
        self.identity = identity(teacher)
        preprocess = preprocess_of(arch, pretrained)
        self.model = open_clip.create_model(
            arch,
            str(weights),
            device=self.device,
            # OpenAI's weights were trained with QuickGELU, whichever architecture name asks for them; open_clip only warns.
            force_quick_gelu=get_pretrained_cfg(arch, pretrained).get("quick_gelu", False),
            force_preprocess_cfg={key: value for key, value in asdict(preprocess).items() if key != "size"},
        ).eval()
        self.model.requires_grad_(False)
        self.transform = image_transform_v2(PreprocessCfg(**self.model.visual.preprocess_cfg), is_train=False)
        self.tokenizer = open_clip.get_tokenizer(arch)
        self.images_per_forward, self.texts_per_forward = images_per_forward, texts_per_forward

    @property
    def name(self) -> str:
        return self.identity.name

    @property
    def dim(self) -> int:
        return self.identity.dim

    def prepare(self, image: bytes | UInt8[np.ndarray, "h w c"]) -> Float32[torch.Tensor, "3 s s"]:
        """One picture as the model wants it: an encoded file, or sRGB with or without straight alpha; laid on the background.

        Raises ObjectError("image_unreadable") for bytes that are no picture.
        """
        picture = Image.fromarray(image) if isinstance(image, np.ndarray) else _decoded(image)
        canvas = Image.new("RGBA", picture.size, (*self.identity.background, 255))
        canvas.alpha_composite(picture.convert("RGBA"))
        return self.transform(canvas.convert("RGB"))

    def encode_images(self, images: Sequence[bytes | UInt8[np.ndarray, "h w c"]]) -> Float32[np.ndarray, "n d"]:
        """Unit-length embeddings of pictures, see `prepare`."""
        return self.encode_prepared([self.prepare(image) for image in images])

    def encode_prepared(self, images: Sequence[Float32[torch.Tensor, "3 s s"]]) -> Float32[np.ndarray, "n d"]:
        """Unit-length embeddings of pictures that went through `prepare`."""
        size = self.images_per_forward
        return self._encode(
            self.model.encode_image, [torch.stack(list(images[i : i + size])) for i in range(0, len(images), size)], size
        )

    def encode_texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        """Unit-length embeddings of texts; what is longer than the model's context is cut."""
        size = self.texts_per_forward
        batches = [self.tokenizer(list(texts[i : i + size])) for i in range(0, len(texts), size)]
        return self._encode(self.model.encode_text, batches, size)

    def _encode(self, encode, batches: list[torch.Tensor], size: int) -> Float32[np.ndarray, "n d"]:
        autocast = torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()
        found = []
        with torch.inference_mode(), autocast:
            for batch in batches:
                padded = torch.cat([batch, batch[:1].expand(size - len(batch), *batch.shape[1:])])
                vectors = encode(padded.to(self.device))[: len(batch)]
                found.append(torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy())
        return np.concatenate(found) if found else np.zeros((0, self.dim), np.float32)


def _torch_device(device: Device) -> torch.device:
    if device == "cuda" and not torch.cuda.is_available():
        raise TeacherError('device "cuda" was asked for, but this machine shows no GPU: use device "cpu", or "auto"')
    return torch.device("cpu" if device == "cpu" or not torch.cuda.is_available() else "cuda")


def _decoded(content: bytes) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(content))
        picture.load()
        return picture
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ObjectError("image_unreadable", f"a picture of {len(content)} bytes cannot be decoded: {error}") from error
