"""Pictures to what a multi-view encoder is fed."""

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.functional import InterpolationMode, center_crop, pil_to_tensor, resize

from trainer.card import ViewInput
from trainer.chance import Stream, uniform


def pixels(
    pictures: UInt8[Tensor, "b f 3 s s"], wanted: ViewInput, offset: tuple[int, int] | None = None
) -> Float32[Tensor, "b f 3 s s"]:
    """Pictures of the encoder's size as it sees them: over 255, less the crop, brought back to size, less mean and over std.

    `offset`: row and column of the crop's corner, 0..wanted.crop, the same for all pictures; None: in the middle. Without a crop
    this is open_clip's ToTensor and Normalize. Raises ValueError for pictures of another size (see `squared`) and for an offset
    that is outside.
    """
    size = wanted.size
    if pictures.shape[-2:] != (size, size):
        raise ValueError(f"pictures of {pictures.shape[-1]} x {pictures.shape[-2]} pixels, but the encoder wants {size} x {size}")
    top, left = offset or (wanted.crop // 2, wanted.crop // 2)
    if not (0 <= top <= wanted.crop and 0 <= left <= wanted.crop):
        raise ValueError(f"a crop at {(top, left)} does not fit: with {wanted.crop} pixels cut off, 0..{wanted.crop} is possible")
    seen = pictures.flatten(0, 1).float().div_(255)
    if wanted.crop:
        side = size - wanted.crop
        seen = seen[..., top : top + side, left : left + side]
        seen = interpolate(seen, (size, size), mode="bilinear", antialias=True, align_corners=False)
    mean, std = (torch.tensor(values, device=seen.device).view(3, 1, 1) for values in (wanted.mean, wanted.std))
    return seen.sub_(mean).div_(std).unflatten(0, pictures.shape[:2])


def crop_offset(seed: Int64[Tensor, "1"], wanted: ViewInput) -> tuple[int, int]:
    """A corner for the crop, drawn by chance: DuoduoCLIP's, one for all pictures of a global batch. `seed`: on the CPU."""
    top, left = (uniform(seed, Stream.CROP, 2)[0] * (wanted.crop + 1)).long().tolist()
    return top, left


def squared(picture: Image.Image, wanted: ViewInput) -> UInt8[Tensor, "3 s s"]:
    """A picture of any size and mode for `pixels`: laid on the background, its shorter side brought to size by Pillow's bicubic
    filter, the middle square kept, as open_clip does. One that has the size is only laid on the background."""
    if picture.mode.startswith("I"):  # 16 bits a channel, of which Pillow keeps the upper 8 in colour pictures alone
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        canvas = Image.new("RGBA", picture.size, (*wanted.background, 255))
        canvas.alpha_composite(picture.convert("RGBA"))
        picture = canvas
    shaped = resize(picture.convert("RGB"), wanted.size, InterpolationMode.BICUBIC)
    return pil_to_tensor(center_crop(shaped, wanted.size))
