"""A picture's size, from its header alone: nothing is unpacked."""

import threading
import warnings
from io import BytesIO
from pathlib import Path

from PIL import Image

from pipeline.assets.limits import Limits
from pipeline.stage import ObjectError

KTX2 = b"\xabKTX 20\xbb"
# Blender reads these, Pillow does not: OpenEXR and Radiance HDR.
_ONLY_BLENDER = (b"\x76\x2f\x31\x01", b"#?RADIANCE", b"#?RGBE")

_PILLOWS_LIMIT = threading.Lock()


def picture_warnings(name: str, content: bytes | memoryview | Path, limits: Limits) -> set[str]:
    """What is wrong with a picture: nothing, or {"bad_texture"}, which it is when neither Pillow nor Blender knows its header.

    `content`: its bytes, or its file. Raises ObjectError("texture_too_large").
    """
    with open(content, "rb") if isinstance(content, Path) else BytesIO(content) as file:
        if file.read(16).startswith(_ONLY_BLENDER):
            return set()
        file.seek(0)
        try:
            width, height = _size(file)
        except Exception:  # Pillow's decoders are foreign code on foreign data; they raise errors of many kinds
            return {"bad_texture"}
    if width * height > limits.texture_mpx * 10**6:
        size = f"{width} x {height} pixels; {limits.texture_mpx} million are let in (limits.texture_mpx)"
        raise ObjectError("texture_too_large", f"the picture {name} has {size}")
    return set()


def _size(file) -> tuple[int, int]:
    """Width and height. Pillow's own limit, which counts when a picture is opened, is put aside: ours comes after."""
    with _PILLOWS_LIMIT, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that are odd but can be read
        usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            with Image.open(file) as picture:
                return picture.size
        finally:
            Image.MAX_IMAGE_PIXELS = usual
