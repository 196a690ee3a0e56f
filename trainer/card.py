"""What an encoder expects and what it was made of: everything that evaluation and inference must obey, written beside its weights.

Points and views are stored in one canonical frame (schemas/tables.py); encoders were trained in several. Each declares its own
here, and whoever feeds it converts by that declaration, never by guess.
"""

from dataclasses import dataclass
from typing import Any, Literal

GREY = 0.4  # what OpenShape and Uni3D give to points without a colour, in each channel


@dataclass(frozen=True, kw_only=True)
class PointInput:
    """How a point encoder wants its clouds.

    `frame`: "canonical" (+y up, +z front), or "yz-swapped", OpenShape's: columns y and z change places, which is a mirror.
    `normalisation`: "mean" (the mean to the origin, the largest norm to 1; a cloud in one point becomes zeros), "box" (the middle
    of the bounding box instead of the mean), or "none". `points`: how many it was trained with; None: any number. `fill`: value of
    each colour channel, 0..1, of points without a colour.
    """

    frame: Literal["canonical", "yz-swapped"] = "canonical"
    normalisation: Literal["mean", "box", "none"] = "mean"
    points: int | None = 10_000
    fill: float = GREY


@dataclass(frozen=True, kw_only=True)
class ViewInput:
    """How a multi-view encoder wants its pictures: laid on `background` (RGB, 0..255), `size` pixels square, cropped and scaled as
    `crop` says, then less `mean` and over `std`, of values in 0..1.

    `crop`: pixels that are cut off the width and height before the picture is brought back to `size` (DuoduoCLIP: 16 of 224, at a
    place drawn by chance, in evaluation as well); 0: none. In evaluation the cut is in the middle unless a generator is given.
    """

    size: int = 224
    crop: int = 0
    background: tuple[int, int, int] = (255, 255, 255)
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class Card:
    """An encoder's identity.

    `encoder`: pointbert, uni3d or duoduo; `config`: the fields of that encoder's configuration; `input`: what it is fed.
    `teacher`: identity of the frozen CLIP model whose space it embeds into, as schemas.corpus.Reader.teacher_of has it, or at least
    its `name`. `data`: the corpus' root and the version of each table it was trained on; None: trained elsewhere.
    `made_by`: the recipe's name and settings, or the published checkpoint's name. `steps`, `epochs`: how long it was trained.
    """

    encoder: Literal["pointbert", "uni3d", "duoduo"]
    config: dict[str, Any]
    input: PointInput | ViewInput
    teacher: dict[str, Any] | None
    data: dict[str, Any] | None
    made_by: dict[str, Any]
    steps: int = 0
    epochs: float = 0.0
