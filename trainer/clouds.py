"""Stored points to what a point encoder is fed: first as its card declares, then, in training, augmented as its system does."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor

from trainer.card import GREY, PointInput
from trainer.chance import Stream, normal, permutation, uniform

ALL_IN_ONE_POINT = 1e-6  # a cloud whose farthest point is nearer to the origin than this has no size (OpenShape)


def prepared(
    xyz: Float[Tensor, "b n 3"],
    rgb: UInt8[Tensor, "b n 3"] | Float32[Tensor, "b n 3"] | None,
    has_color: Bool[Tensor, " b"] | None,
    wanted: PointInput,
) -> tuple[Float32[Tensor, "b n 3"], Float32[Tensor, "b n 3"]]:
    """Clouds of the canonical frame as the encoder wants them, and their colours 0..1; the points keep their order and number.

    First the frame, then the normalisation, then the fill. `rgb`: 0..255 where whole numbers, else 0..1; None: no cloud has
    colours. `has_color` None: all that come have.
    """
    xyz = xyz.float()
    if wanted.frame == "yz-swapped":  # a mirror (determinant -1), not a quarter turn: OpenShape's `y_up`
        x, y, z = xyz.unbind(-1)
        xyz = torch.stack([x, z, y], dim=-1)
    xyz = _normalised(xyz, wanted.normalisation)
    if rgb is None:
        return xyz, torch.full_like(xyz, wanted.fill)
    colors = rgb if rgb.is_floating_point() else rgb.float() / 255
    return xyz, colors if has_color is None else torch.where(has_color[:, None, None], colors, wanted.fill)


def _normalised(xyz: Float32[Tensor, "b n 3"], way: Literal["mean", "box", "none"]) -> Float32[Tensor, "b n 3"]:
    match way:
        case "none":
            return xyz
        case "mean":
            middle = xyz.mean(dim=1, keepdim=True)
        case "box":
            middle = (xyz.amin(dim=1, keepdim=True) + xyz.amax(dim=1, keepdim=True)) / 2
    xyz = xyz - middle
    x, y, z = xyz.unbind(-1)  # twice as fast as a norm over three numbers
    radius = (x * x + y * y + z * z).amax(dim=1).sqrt()[:, None, None]
    return xyz / torch.where(radius < ALL_IN_ONE_POINT, torch.inf, radius)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What training does to prepared clouds, in this order.

    `shuffle`: the points in random order. `dropout`: a ratio is drawn from 0 to this, and with that probability a point becomes the
    first point. `scale`: one factor from least to most. `shift`: each coordinate moved by up to so much. `jitter`: three small
    turns about x, y and z, as (standard deviation, most), radians. `turn`: any angle about this axis of the encoder's own frame.
    `color_drop`: probability that a cloud loses its colours.
    """

    shuffle: bool = False
    dropout: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    jitter: tuple[float, float] = (0.0, 0.0)
    turn: Literal["y", "z"] | None = None
    color_drop: float = 0.0


NONE = Augment()
# Dropped points take the first point's colour as well; the published code left them their own.
OPENSHAPE = Augment(shuffle=True, dropout=0.875, scale=(0.8, 1.25), shift=0.1, jitter=(0.06, 0.18), turn="z", color_drop=0.5)
UNI3D = Augment(scale=(0.8, 1.25), shift=0.1, jitter=(0.06, 0.18), turn="y", color_drop=0.5)


def augmented(
    xyz: Float32[Tensor, "b n 3"], rgb: Float32[Tensor, "b n 3"], seeds: Int64[Tensor, " b"], augment: Augment, fill: float = GREY
) -> tuple[Float32[Tensor, "b n 3"], Float32[Tensor, "b n 3"]]:
    """Prepared clouds (see `prepared`) with all of `augment`; they are not normalised again. One seed a cloud: the same cloud and
    seed give the same points in any batch. `fill`: what a dropped colour becomes, as in the encoder's PointInput.
    """
    count = xyz.shape[1]
    taken = permutation(seeds, Stream.SHUFFLE, count) if augment.shuffle else None
    if augment.dropout:
        ratio = augment.dropout * uniform(seeds, Stream.DROPOUT_RATIO, 1)
        taken = torch.arange(count, device=xyz.device).expand(len(xyz), count) if taken is None else taken
        taken = torch.where(uniform(seeds, Stream.DROPOUT, count) < ratio, taken[:, :1], taken)
    if taken is not None:
        xyz, rgb = (values.gather(1, taken[..., None].expand(-1, -1, 3)) for values in (xyz, rgb))
    least, most = augment.scale
    scale = least + (most - least) * uniform(seeds, Stream.SCALE, 1)
    shift = augment.shift * (2 * uniform(seeds, Stream.SHIFT, 3) - 1)
    xyz = _turned(xyz * scale[:, None] + shift[:, None], _turn(seeds, augment))
    if augment.color_drop:
        dropped = uniform(seeds, Stream.COLOR, 1)[:, None] < augment.color_drop
        rgb = torch.where(dropped, fill, rgb)
    return xyz, rgb


def _turn(seeds: Int64[Tensor, " b"], augment: Augment) -> Float32[Tensor, "b 3 3"]:
    """The jitter and then the turn, for rows of coordinates: xyz @ turn."""
    deviation, most = augment.jitter
    x, y, z = (deviation * normal(seeds, Stream.JITTER, 3)).clamp(-most, most).unbind(-1)
    turn = _turned(_turned(about("z", z), about("y", y)), about("x", x))
    if augment.turn:
        turn = _turned(turn, about(augment.turn, 2 * torch.pi * uniform(seeds, Stream.TURN, 1)[:, 0]))
    return turn


def about(axis: Literal["x", "y", "z"], angles: Float32[Tensor, " b"]) -> Float32[Tensor, "b 3 3"]:
    """Rotation matrices, right-handed for columns, about a coordinate axis; radians."""
    cos, sin, zero, one = angles.cos(), angles.sin(), torch.zeros_like(angles), torch.ones_like(angles)
    rows = {
        "x": (one, zero, zero, zero, cos, -sin, zero, sin, cos),
        "y": (cos, zero, sin, zero, one, zero, -sin, zero, cos),
        "z": (cos, -sin, zero, sin, cos, zero, zero, zero, one),
    }[axis]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def _turned(xyz: Float32[Tensor, "b n 3"], turn: Float32[Tensor, "b 3 3"]) -> Float32[Tensor, "b n 3"]:
    """xyz @ turn, product by product: a GPU's matrix product may round coordinates to TF32's ten bits."""
    x, y, z = xyz[..., :1], xyz[..., 1:2], xyz[..., 2:]
    return x * turn[:, None, 0] + y * turn[:, None, 1] + z * turn[:, None, 2]
