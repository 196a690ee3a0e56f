"""Shapes coloured by part, prediction beside truth, as one picture.

heading
id  category, IoU                     which colour is which part
[predicted] [true]   [predicted] [true]      from the front and from behind
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from PIL import Image, ImageDraw, ImageFont

INK, GREY, PAPER = (24, 26, 30), (112, 118, 128), (255, 255, 255)
NONE = (190, 194, 200)  # a point of no part
COLORS = (
    *((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75)),
    *((227, 119, 194), (188, 189, 34), (23, 190, 207), (20, 40, 90)),
)
TILE, MARGIN, GAP, LINE, SWATCH = 200, 24, 8, 22, 12
TURNS = ((35.0, 20.0), (215.0, 20.0))  # where it is looked at from: degrees about the vertical from the front, and above
DOT = 3.2  # radius of a point, pixels of a picture drawn twice as large
DARKEST = 0.7  # of what lies farthest back


@dataclass(frozen=True, kw_only=True)
class Segmented:
    """A shape and what was made of it. `parts`: their names; `predicted`, `truth`: numbers into them, others are no part. `iou`:
    0..1."""

    id: str
    category: str
    xyz: Float32[np.ndarray, "n 3"]
    predicted: Int[np.ndarray, " n"]
    truth: Int[np.ndarray, " n"]
    parts: Sequence[str]
    iou: float


def part_sheet(sections: Sequence[tuple[str, Sequence[Segmented]]], *, up: Literal["+y", "+z"] = "+y") -> Image.Image:
    """A sheet with a band per shape, below the heading of its section. up: of the points, with the front to +z or to -y."""
    width = 2 * MARGIN + 2 * len(TURNS) * TILE + (2 * len(TURNS) - 1) * GAP
    band = 2 * LINE + TILE + GAP
    bands = sum(len(shapes) for _, shapes in sections)
    sheet = Image.new("RGB", (width, 2 * MARGIN + len(sections) * 2 * LINE + bands * band), PAPER)
    draw, top = ImageDraw.Draw(sheet), MARGIN
    for heading, shapes in sections:
        draw.text((MARGIN, top), heading, font=ImageFont.load_default(size=18), fill=INK)
        top += 2 * LINE
        for shape in shapes:
            _band(sheet, draw, top, shape, up)
            top += band
    return sheet


def _band(sheet: Image.Image, draw: ImageDraw.ImageDraw, top: int, shape: Segmented, up: str) -> None:
    font = ImageFont.load_default(size=13)
    draw.text((MARGIN, top), f"{shape.iou:.1%}   {shape.category}   {shape.id}", font=font, fill=INK)
    left = MARGIN
    used = np.union1d(shape.predicted, shape.truth)
    for number, name in enumerate(shape.parts):
        if number in used:
            draw.rectangle((left, top + LINE + 1, left + SWATCH, top + LINE + 1 + SWATCH), fill=_color(number))
            draw.text((left + SWATCH + 5, top + LINE - 1), name, font=font, fill=GREY)
            left += SWATCH + 20 + int(font.getlength(name))
    left = MARGIN
    for turn in TURNS:
        for part, told in ((shape.predicted, "predicted"), (shape.truth, "true")):
            sheet.paste(Image.fromarray(drawn(shape.xyz, _colors(part, len(shape.parts)), TILE, turn, up)), (left, top + 2 * LINE))
            draw.text((left + 4, top + 2 * LINE), told, font=font, fill=GREY)
            left += TILE + GAP


def drawn(
    xyz: Float[np.ndarray, "n 3"], colors: UInt8[np.ndarray, "n 3"], tile: int, turn: tuple[float, float], up: str
) -> UInt8[np.ndarray, "{tile} {tile} 3"]:
    """Points as discs, seen in parallel from (degrees about the vertical, degrees above); what is farther back is darker and is
    covered by what is nearer."""
    side, (around, above) = 2 * tile, np.radians(turn)
    right, high, front = xyz.T.astype(np.float64) if up == "+y" else (xyz[:, 0], xyz[:, 2], -xyz[:, 1])
    across = right * np.cos(around) - front * np.sin(around)
    toward = right * np.sin(around) + front * np.cos(around)
    nearness, height = toward * np.cos(above) + high * np.sin(above), high * np.cos(above) - toward * np.sin(above)
    seen = np.stack([across, -height, nearness], axis=1)
    seen -= (seen.max(axis=0) + seen.min(axis=0)) / 2
    seen /= max(float(np.abs(seen).max()), 1e-9)
    shade = DARKEST + (1 - DARKEST) * (seen[:, 2] + 1) / 2
    order = np.argsort(seen[:, 2], kind="stable")
    pixel = (seen[order, :2] * 0.46 + 0.5) * side
    reach = np.arange(-int(DOT), int(DOT) + 1)
    disc = np.array([(x, y) for x in reach for y in reach if x * x + y * y <= DOT * DOT])
    at = (pixel[:, None] + disc).astype(int)  # far to near: of several on a pixel the last stays
    picture = np.full((side, side, 3), 255, np.uint8)
    painted = (colors[order] * shade[order, None]).astype(np.uint8)
    picture[at[..., 1].ravel(), at[..., 0].ravel()] = np.repeat(painted, len(disc), axis=0)
    return picture.reshape(tile, 2, tile, 2, 3).mean(axis=(1, 3)).astype(np.uint8)


def _color(part: int) -> tuple[int, int, int]:
    return COLORS[part % len(COLORS)]


def _colors(part: Int[np.ndarray, " n"], parts: int) -> UInt8[np.ndarray, "n 3"]:
    table = np.array([_color(number) for number in range(parts)] + [NONE], np.uint8)
    return table[np.where((part >= 0) & (part < parts), part, parts)]
