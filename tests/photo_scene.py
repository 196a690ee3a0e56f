"""A made object that was photographed: three spots of light in red, green and blue, and COLMAP's model of its photos."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.photos.colmap import Lens

LENS = Lens(width=240, height=320, fx=300.0, fy=290.0, cx=118.0, cy=165.0, k1=-0.12, k2=0.03, p1=0.002, p2=-0.003)
SPOTS = np.array([[0.4, 0.1, 0.2], [-0.3, 0.35, 0.1], [0.1, -0.35, -0.3]])  # y up
DISTANCE = 4.0

# The world is turned, moved and scaled, as COLMAP's is.
_AXIS = np.array([2.0, -1.0, 3.0]) / np.sqrt(14)
_CROSS = np.array([[0, -_AXIS[2], _AXIS[1]], [_AXIS[2], 0, -_AXIS[0]], [-_AXIS[1], _AXIS[0], 0]])
TURN = np.eye(3) + np.sin(2.0) * _CROSS + (1 - np.cos(2.0)) * _CROSS @ _CROSS
SCALE, MOVE = 3.7, np.array([5.0, -20.0, 11.0])


def in_world(points: np.ndarray) -> np.ndarray:
    """Where points with y up are in COLMAP's world."""
    return SCALE * points @ TURN.T + MOVE


def poses(count: int, *, around: float = 360.0, pitch: float = 25.0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rotations and translations, world to camera, of cameras that walk around the object, level, and look down at it."""
    made = []
    for azimuth in np.radians(np.arange(count) * around / count):
        down = np.radians(pitch)
        outwards = np.array([np.sin(azimuth) * np.cos(down), np.sin(down), np.cos(azimuth) * np.cos(down)])
        right = np.array([np.cos(azimuth), 0, -np.sin(azimuth)])
        rotation = np.stack([right, np.cross(-outwards, right), -outwards]) @ TURN.T
        made.append((rotation, -rotation @ in_world(DISTANCE * outwards)))
    return made


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """(w, x, y, z); the eigenvector of a symmetric matrix (Bar-Itzhack 2000)."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    k = np.array([[a + e + i, h - f, c - g, d - b], [0, a - e - i, b + d, c + g], [0, 0, e - a - i, f + h], [0, 0, 0, i - a - e]])
    return np.linalg.eigh(np.triu(k) + np.triu(k, 1).T)[1][:, -1]


def make_object(folder: Path, count: int = 14, *, text: bool = False, masks: bool = False, unposed: int = 1) -> Path:
    """A folder with so many photos, and some that the model does not know; the first pixels of COLMAP's points are seen in all."""
    (folder / "images").mkdir(parents=True)
    (folder / "sparse" / "0").mkdir(parents=True)
    found = []
    for number, (rotation, translation) in enumerate(poses(count)):
        name = f"{number + 1:03d}.jpg"
        seen = in_world(SPOTS) @ rotation.T + translation
        pixels = LENS.pixels(seen[:, :2] / seen[:, 2:])
        photo(pixels).save(folder / "images" / name, quality=98, subsampling=0)
        found.append((name, quaternion(rotation), translation, pixels))
        if masks:
            (folder / "masks").mkdir(exist_ok=True)
            mask(pixels).save(folder / "masks" / f"{name}.png")
    for number in range(count, count + unposed):
        Image.new("RGB", (LENS.width, LENS.height), (90, 90, 90)).save(folder / "images" / f"{number + 1:03d}.jpg")
    (_write_text if text else _write_binary)(folder / "sparse" / "0", found)
    return folder


def photo(pixels: np.ndarray) -> Image.Image:
    """A spot of light around each pixel, in red, green and blue."""
    x, y = np.meshgrid(np.arange(LENS.width) + 0.5, np.arange(LENS.height) + 0.5)
    light = [np.exp(-((x - across) ** 2 + (y - down) ** 2) / (2 * 4.0**2)) for across, down in pixels]
    return Image.fromarray(np.rint(20 + 230 * np.stack(light, axis=-1)).astype(np.uint8))


def mask(pixels: np.ndarray) -> Image.Image:
    """White within 30 pixels of a spot."""
    x, y = np.meshgrid(np.arange(LENS.width) + 0.5, np.arange(LENS.height) + 0.5)
    near = [(x - across) ** 2 + (y - down) ** 2 < 30**2 for across, down in pixels]
    return Image.fromarray(np.any(near, axis=0))


def _write_binary(folder: Path, found: list) -> None:
    lens = (LENS.fx, LENS.fy, LENS.cx, LENS.cy, LENS.k1, LENS.k2, LENS.p1, LENS.p2)
    (folder / "cameras.bin").write_bytes(struct.pack("<QiiQQ8d", 1, 7, 4, LENS.width, LENS.height, *lens))
    images = struct.pack("<Q", len(found))
    for number, (name, turned, moved, pixels) in enumerate(reversed(found)):  # in no order of names
        images += struct.pack("<i7di", number, *turned, *moved, 7) + name.encode() + b"\0" + struct.pack("<Q", len(pixels))
        images += b"".join(struct.pack("<ddq", *pixel, point) for point, pixel in enumerate(pixels))
    (folder / "images.bin").write_bytes(images)
    points = struct.pack("<Q", len(SPOTS))
    for number, (x, y, z) in enumerate(in_world(SPOTS)):
        points += struct.pack("<Q3d3BdQ", number, x, y, z, 1, 2, 3, 0.5, 2) + struct.pack("<4i", 0, 0, 1, 1)
    (folder / "points3D.bin").write_bytes(points)


def _write_text(folder: Path, found: list) -> None:
    lens = (LENS.fx, LENS.fy, LENS.cx, LENS.cy, LENS.k1, LENS.k2, LENS.p1, LENS.p2)
    camera = f"7 OPENCV {LENS.width} {LENS.height} {' '.join(map(repr, lens))}"
    (folder / "cameras.txt").write_text(f"# Camera list\n{camera}\n")
    lines = ["# Image list"]
    for number, (name, turned, moved, pixels) in enumerate(found):
        lines.append(" ".join([str(number), *map(repr, map(float, [*turned, *moved])), "7", name]))
        lines.append(" ".join(f"{float(x)!r} {float(y)!r} {point}" for point, (x, y) in enumerate(pixels)))
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    rows = [f"{number} {x!r} {y!r} {z!r} 1 2 3 0.5 0 0 1 1" for number, (x, y, z) in enumerate(in_world(SPOTS).tolist())]
    (folder / "points3D.txt").write_text("# Points\n" + "\n".join(rows) + "\n")
