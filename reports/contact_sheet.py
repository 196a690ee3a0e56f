"""Pictures of objects for people: of what is in a corpus, of what was not let in, and of what a search found.

name  object_id                                      [views]  reason  object_id                      rank   name  object_id
first caption                                                 what happened and what to do           score  first caption
[view][points of that view] [view] ...                                                                      [view] [view] ...
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont

Row = dict[str, Any]

INK, GREY, PALE, PAPER = (24, 26, 30), (112, 118, 128), (226, 229, 233), (255, 255, 255)
OUTLINE = (230, 0, 110)  # of the view's object, drawn over the points
CHECKER = (252, 243)  # the two greys behind what is transparent
DARKER_CHECKER = (190, 178)  # behind what may be burnt out to white, or black
MARGIN, GAP, LINE = 28, 10, 24
FINE = 3  # points are drawn so many times larger and scaled down: smooth edges
LARGEST_POINT = 0.03  # radius of a drawn point, canonical frame
STRIP = (384, 96)  # room for a failure's thumbnail, pixels
BESIDE = 640  # width of what is said beside it
RANK = 84  # width of the column of ranks and scores
LARGE, LARGE_LINE = 28, 38  # size of a query's text, and how far its lines are apart
QUALITIES = (80, 60, 40, 20)  # of strips, WebP's
ONE_COLOR = 8  # standard deviation of a channel, 0..255, below which colours count as one
# Where an object without views is looked at from: azimuths and height in degrees; the unit sphere is whole in the picture.
AZIMUTHS, HEIGHT, DISTANCE, FOCAL = (30, 120, 210, 300, 75, 255), 25, 3.2, 1.45


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One object on a sheet: rows of VIEWS in `view` order, and its row of POINTS (None: it has none)."""

    object_id: str
    views: Sequence[Row]
    points: Row | None = None
    name: str | None = None
    captions: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Found:
    """An object that a search found. `score`: cosine with the query; `about`: what else is known of it, in words."""

    subject: Subject
    score: float
    about: str = ""


def contact_sheet(
    subjects: Sequence[Subject], *, caption: str = "", views: int = 6, pairs: int = 3, tile: int = 168
) -> Image.Image:
    """A sheet with a band per object.

    views    how many views are shown, spread evenly over those the object has
    pairs    beside how many of them the points are drawn; the line around them is the outline of the view's object
    tile     side of a picture, pixels
    caption  one line at the foot
    """
    width = 2 * MARGIN + views * (tile + GAP) - GAP + pairs * tile
    band = 2 * LINE + GAP + tile + LINE + MARGIN
    sheet = Image.new("RGB", (width, MARGIN + band * len(subjects) + (LINE + MARGIN if caption else 0)), PAPER)
    for number, subject in enumerate(subjects):
        _draw_band(sheet, MARGIN + number * band, subject, views, pairs, tile)
    if caption:
        _write(ImageDraw.Draw(sheet), (MARGIN, sheet.height - MARGIN - LINE), caption, size=15, ink=GREY, room=width - 2 * MARGIN)
    return sheet


def failure_sheet(failures: Sequence[Row], *, caption: str = "") -> Image.Image:
    """A sheet with a band per failure: rows of FAILURES that have a thumbnail, and why each was not let in.

    caption  one line at the foot
    """
    width, band = 2 * MARGIN + STRIP[0] + 2 * GAP + BESIDE, STRIP[1] + MARGIN
    sheet = Image.new("RGB", (width, MARGIN + band * len(failures) + (LINE + MARGIN if caption else 0)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, failure in enumerate(failures):
        left, top = MARGIN, MARGIN + number * band
        picture = Image.open(io.BytesIO(failure["thumbnail"])).convert("RGBA")
        picture.thumbnail(STRIP)
        _place(sheet, picture, left, top, *STRIP, greys=DARKER_CHECKER)
        left += STRIP[0] + 2 * GAP
        used = _write(draw, (left, top), f"{failure['stage']}: {failure['reason']}", size=17, ink=INK, room=BESIDE / 2)
        _write(draw, (left + used + 14, top + 3), failure["object_id"], size=14, ink=GREY, room=BESIDE - used - 14)
        _write_lines(draw, (left, top + LINE), failure["message"], lines=(STRIP[1] - LINE) // LINE, size=14, ink=INK, room=BESIDE)
    if caption:
        _write(draw, (MARGIN, sheet.height - MARGIN - LINE), caption, size=15, ink=GREY, room=width - 2 * MARGIN)
    return sheet


def search_sheet(
    query: str, pictures: Sequence[Image.Image], found: Sequence[Found], *, caption: str = "", views: int = 6, tile: int = 150
) -> Image.Image:
    """A sheet with what was searched for on top, and a band for each object that was found, the nearest first. An object without
    views is shown as its points.

    query     what was searched for, in words
    pictures  the query's own, if it has any
    caption   one line below the query: where it was searched, and how
    views     how many views are shown, spread evenly over those the object has; as many of the query's pictures
    tile      side of a picture, pixels
    """
    room = views * (tile + GAP) - GAP
    width = 2 * MARGIN + RANK + room
    lines = _broken(query, LARGE, RANK + room, most=3)
    shown = [pictures[number] for number in evenly(len(pictures), views)]
    header = LARGE_LINE * len(lines) + LINE + (GAP + tile if shown else 0) + MARGIN
    band = 3 * LINE + GAP // 2 + tile + MARGIN
    sheet = Image.new("RGB", (width, 2 * MARGIN + header + band * len(found) - MARGIN // 2), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        _write(draw, (MARGIN, MARGIN + LARGE_LINE * number), line, size=LARGE, ink=INK, room=RANK + room)
    top = MARGIN + LARGE_LINE * len(lines)
    _write(draw, (MARGIN, top + 2), caption, size=14, ink=GREY, room=RANK + room)
    for number, picture in enumerate(shown):
        _place(sheet, _fitted(picture.convert("RGBA"), tile), MARGIN + number * (tile + GAP), top + LINE + GAP, tile, tile)
    for number, one in enumerate(found):
        _draw_found(sheet, MARGIN + header + band * number, number + 1, one, views, tile)
    return sheet


def views_around(points: Row, count: int, tile: int) -> list[Image.Image]:
    """Pictures of a row of POINTS from at most `count` sides, from a little above, `tile` pixels square. Of points that are all of
    one colour nothing but an outline would be seen: they are drawn as points without colour."""
    if points["rgb"] is not None and np.asarray(points["rgb"]).reshape(-1, 3).std(axis=0).max() < ONE_COLOR:
        points = points | {"rgb": None}
    pictures = []
    for azimuth in np.radians(AZIMUTHS[:count]):
        height = np.radians(HEIGHT)
        back = np.array([np.cos(height) * np.sin(azimuth), np.sin(height), np.cos(height) * np.cos(azimuth)])
        right = np.array([np.cos(azimuth), 0, -np.sin(azimuth)])
        camera = np.eye(4)
        camera[:3] = np.stack([right, np.cross(right, back), -back, DISTANCE * back], axis=1)
        view = {
            "width": tile,
            "height": tile,
            "intrinsics": (FOCAL * tile, FOCAL * tile, tile / 2, tile / 2),
            "camera_to_world": camera,
        }
        pictures.append(Image.fromarray(picture_of_points(points, view, tile)))
    return pictures


def strip(pictures: Sequence[Image.Image], tile: int, most_bytes: int) -> bytes:
    """Pictures side by side, each in the middle of a square of `tile` pixels: a WebP with alpha, of the best of QUALITIES with
    which it has at most `most_bytes`, or else of the last."""
    sheet = Image.new("RGBA", (len(pictures) * tile, tile))
    for place, picture in enumerate(pictures):
        fitted = _fitted(picture, tile)
        sheet.paste(fitted, (place * tile + (tile - fitted.width) // 2, (tile - fitted.height) // 2))
    for quality in QUALITIES:
        file = io.BytesIO()
        sheet.save(file, "WEBP", quality=quality, method=4)
        if file.tell() <= most_bytes:
            break
    return file.getvalue()


def strip_of_views(views: Sequence[Row], tile: int, most_bytes: int) -> bytes:
    """Rows of VIEWS as `strip` has them."""
    return strip([_picture(view) for view in views], tile, most_bytes)


def picture_of_points(points: Row, view: Row, tile: int) -> UInt8[np.ndarray, "h w 4"]:
    """The points of a row of POINTS as discs, seen through the camera of a row of VIEWS; the longer side is `tile` pixels.

    Near points cover far ones. Points without colour are grey, the nearer the darker. Straight alpha.
    """
    scale = tile * FINE / max(view["width"], view["height"])
    height, width = round(view["height"] * scale), round(view["width"] * scale)
    pixels, depth = project(_xyz(points), view)
    order = np.argsort(-depth)
    order = order[depth[order] > 0]
    pixels, depth = pixels[order] * scale, depth[order]
    colors = _colors(points, depth, order)
    canvas = np.zeros((height, width, 4), np.uint8)
    if len(order):
        radius = max(1.0, _point_radius(points) * view["intrinsics"][0] * scale / float(np.median(depth)))
        disc = _disc(radius)
        # (points, pixels of the disc), far to near: where several write to a pixel, the last one stays
        x, y = ((np.floor(pixels[:, None, axis]).astype(np.int64) + disc[None, :, axis]) for axis in (0, 1))
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        rgba = np.concatenate([colors, np.full((len(colors), 1), 255, np.uint8)], axis=1)
        canvas[y[inside], x[inside]] = np.broadcast_to(rgba[:, None], (*inside.shape, 4))[inside]
    small = Image.fromarray(canvas).convert("RGBa").resize((round(width / FINE), round(height / FINE)), Image.Resampling.BOX)
    return np.asarray(small.convert("RGBA"))


def project(xyz: Float[np.ndarray, "n 3"], view: Row) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
    """Points of the canonical frame to pixels of a view (x right, y down) and depth along its axis; 0 or less: not ahead of it."""
    fx, fy, cx, cy = view["intrinsics"]
    camera_to_world = np.asarray(view["camera_to_world"], np.float64).reshape(4, 4)
    seen = (xyz - camera_to_world[:3, 3]) @ camera_to_world[:3, :3]
    with np.errstate(divide="ignore", invalid="ignore"):  # at depth 0 there is no pixel
        return seen[:, :2] / seen[:, 2:] * (fx, fy) + (cx, cy), seen[:, 2]


def share_inside(points: Row, view: Row) -> float:
    """Share of the points that fall on the object in a view, within a pixel of it; 1 when points and view agree."""
    pixels, depth = project(_xyz(points), view)
    mask = _grown(np.asarray(_picture(view))[..., 3] > 0)
    ahead = depth > 0
    x, y = np.floor(pixels[ahead]).astype(np.int64).T
    inside = (x >= 0) & (x < mask.shape[1]) & (y >= 0) & (y < mask.shape[0])
    return float(mask[y[inside], x[inside]].sum() / len(depth))


def _draw_band(sheet: Image.Image, top: int, subject: Subject, views: int, pairs: int, tile: int) -> None:
    draw = ImageDraw.Draw(sheet)
    room = sheet.width - 2 * MARGIN
    used = _write(draw, (MARGIN, top), subject.name or "(no name)", size=19, ink=INK if subject.name else GREY, room=room * 0.6)
    _write(draw, (MARGIN + used + 14, top + 4), subject.object_id, size=14, ink=GREY, room=room - used - 14)
    text = subject.captions[0] if subject.captions else "(no caption)"
    _write(draw, (MARGIN, top + LINE), text, size=15, ink=INK if subject.captions else GREY, room=room)
    left, top = MARGIN, top + 2 * LINE + GAP
    shown = evenly(len(subject.views), views)
    paired = {shown[place] for place in evenly(len(shown), pairs)} if subject.points else set()
    for number in shown:
        view = subject.views[number]
        picture = _fitted(_picture(view), tile)
        _place(sheet, picture, left, top, tile, tile)
        _label(draw, left, top + tile, f"view {view['view']}", tile)
        left += tile + GAP
        if number in paired:
            _place(sheet, Image.fromarray(picture_of_points(subject.points, view, tile)), left - GAP, top, tile, tile)
            label = "points"
            if view.get("alpha_coverage", 1) is not None:  # else a photo without a mask, of which nobody knows where the object is
                _outline(sheet, np.asarray(picture)[..., 3] > 127, left - GAP, top, tile)
                share = np.floor(share_inside(subject.points, view) * 1000) / 10  # 100% means all
                label = f"points, {share:.1f}% on it"
            _label(draw, left - GAP, top + tile, label, tile)
            left += tile
    draw.line([(MARGIN, top + tile + LINE + MARGIN // 2), (sheet.width - MARGIN, top + tile + LINE + MARGIN // 2)], fill=PALE)


def _draw_found(sheet: Image.Image, top: int, rank: int, found: Found, views: int, tile: int) -> None:
    draw, subject = ImageDraw.Draw(sheet), found.subject
    draw.line([(MARGIN, top - MARGIN // 2), (sheet.width - MARGIN, top - MARGIN // 2)], fill=PALE)
    _write(draw, (MARGIN, top - 3), str(rank), size=LARGE, ink=INK, room=RANK)
    _write(draw, (MARGIN, top + LARGE_LINE), f"{found.score:.3f}", size=17, ink=GREY, room=RANK)
    left, room = MARGIN + RANK, sheet.width - 2 * MARGIN - RANK
    used = _write(draw, (left, top), subject.name or "(no name)", size=19, ink=INK if subject.name else GREY, room=room * 0.6)
    _write(draw, (left + used + 14, top + 4), subject.object_id, size=14, ink=GREY, room=room - used - 14)
    text = subject.captions[0] if subject.captions else "(no caption)"
    _write(draw, (left, top + LINE), text, size=15, ink=INK if subject.captions else GREY, room=room)
    _write(draw, (left, top + 2 * LINE), found.about, size=13, ink=GREY, room=room)
    top += 3 * LINE + GAP // 2
    pictures = [_picture(subject.views[number]) for number in evenly(len(subject.views), views)]
    if not pictures and subject.points:
        pictures = views_around(subject.points, views, tile)
    for number, picture in enumerate(pictures):
        _place(sheet, _fitted(picture, tile), left + number * (tile + GAP), top, tile, tile)
    if not pictures:
        _write(draw, (left, top), "(no views, no points)", size=15, ink=GREY, room=room)


def _place(
    sheet: Image.Image,
    picture: Image.Image,
    left: int,
    top: int,
    width: int,
    height: int,
    greys: tuple[int, int] = CHECKER,
) -> None:
    """Put a picture with alpha in the middle of its room, on a checker."""
    square = np.add.outer(np.arange(height) // 8, np.arange(width) // 8) % 2
    ground = Image.fromarray(np.where(square, *map(np.uint8, greys))).convert("RGB")
    ground.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2), picture)
    sheet.paste(ground, (left, top))


def _outline(sheet: Image.Image, mask: Bool[np.ndarray, "h w"], left: int, top: int, tile: int) -> None:
    line = Image.fromarray(_grown(mask) & ~mask)
    sheet.paste(OUTLINE, (left + (tile - line.width) // 2, top + (tile - line.height) // 2), line)


def _label(draw: ImageDraw.ImageDraw, left: int, top: int, text: str, tile: int) -> None:
    _write(draw, (left + 2, top + 4), text, size=13, ink=GREY, room=tile - 4)


def _write(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, *, size: int, ink: tuple[int, int, int], room: float
) -> float:
    """One line of text, cut with an ellipsis where it is longer than `room` pixels; returns the width used."""
    font, text = ImageFont.load_default(size=size), _printable(text)
    if font.getlength(text) > room:
        fits, too_long = 0, len(text)
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            if font.getlength(text[:middle] + "…") <= room:
                fits = middle
            else:
                too_long = middle
        text = text[:fits].rstrip() + "…"
    draw.text(at, text, font=font, fill=ink)
    return font.getlength(text)


def _write_lines(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    *,
    lines: int,
    size: int,
    ink: tuple[int, int, int],
    room: float,
) -> None:
    """Text broken between words into at most so many lines."""
    for number, line in enumerate(_broken(text, size, room, most=lines)):
        _write(draw, (at[0], at[1] + number * LINE), line, size=size, ink=ink, room=room)


def _broken(text: str, size: int, room: float, *, most: int) -> list[str]:
    """Text broken between words into lines of `room` pixels, at most so many; the last one holds all that is left."""
    font, words = ImageFont.load_default(size=size), _printable(text).split()
    lines = []
    while words:
        fits = 1
        while fits < len(words) and font.getlength(" ".join(words[: fits + 1])) <= room:
            fits += 1
        fits = len(words) if len(lines) == most - 1 else fits
        lines.append(" ".join(words[:fits]))
        words = words[fits:]
    return lines


def _printable(text: str) -> str:
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    return "".join(character for character in text if character.isprintable())


def _picture(view: Row) -> Image.Image:
    return Image.open(io.BytesIO(view["image"])).convert("RGBA")


def _fitted(picture: Image.Image, tile: int) -> Image.Image:
    """The picture with its longer side `tile` pixels; scaled with premultiplied alpha, so that no dark rim appears."""
    scale = tile / max(picture.size)
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    return picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")


def _xyz(points: Row) -> Float[np.ndarray, "n 3"]:
    return np.asarray(points["xyz"], np.float64).reshape(-1, 3)


def _colors(points: Row, depth: Float[np.ndarray, " k"], order: np.ndarray) -> UInt8[np.ndarray, "k 3"]:
    if points["rgb"] is not None:
        return np.asarray(points["rgb"], np.uint8).reshape(-1, 3)[order]
    span = np.ptp(depth) if len(depth) else 1.0
    grey = 70 + 120 * (depth - depth.min(initial=np.inf)) / max(span, 1e-6)
    return np.repeat(grey[:, None], 3, axis=1).astype(np.uint8)


def _point_radius(points: Row) -> float:
    """Discs of this radius (canonical frame), three times the surface in all, leave a twentieth of it bare: exp(-3). How large the
    surface of a point cloud is, nobody knows; its points are small, as they may be few and stray."""
    if points["area"] is None:
        return LARGEST_POINT / 4
    return min(LARGEST_POINT, float(np.sqrt(3 * points["area"] / (np.pi * len(_xyz(points))))))


def _disc(radius: float) -> np.ndarray:
    """(x, y) offsets of the pixels of a disc."""
    reach = np.arange(-int(radius), int(radius) + 1)
    x, y = (axis.ravel() for axis in np.meshgrid(reach, reach))
    return np.stack([x, y], axis=1)[x**2 + y**2 <= radius**2]


def _grown(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The mask and all its neighbours."""
    wide = np.pad(mask, 1)
    height, width = mask.shape
    return np.any([wide[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)


def evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the numbers below `count`, from the first on, evenly spread."""
    return sorted({number * count // min(wanted, count) for number in range(min(wanted, count))})
