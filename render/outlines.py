"""Clean outlines: the alpha of a picture's edge pixels from rays cast at the mesh, instead of from the few samples of a render.

Light and colour are smooth and can be denoised; where the object ends is neither, and most of what is wrong with a picture of few
samples lies there. A ray that only asks whether it hits costs a hundredth of one that is shaded.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import maximum_filter, minimum_filter
from scipy.stats import qmc

from pipeline.mesh import Mesh
from pipeline.rays import Rays
from render.cameras import Camera

# Cycles' pixel filter, Blackman-Harris of width 1.5 (intern/cycles/scene/film.cpp): it reaches 1.5 pixels to either side.
REACH = 1.5
BLACKMAN_HARRIS = (0.35875, -0.48829, 0.14128, -0.01168)

FAINT = 64  # of 255: below, too few samples met the object to tell its colour
APART = 128  # of 255: when ray and render differ by more, the render shows something that the mesh does not have


def with_clean_outlines(
    pictures: Sequence[UInt8[np.ndarray, "h w 4"]], cameras: Sequence[Camera], mesh: Mesh, count: int
) -> list[UInt8[np.ndarray, "h w 4"]]:
    """Rendered pictures (sRGB, straight alpha) with the alpha of outlines, and of the rims of holes, from `count` rays a pixel.

    `mesh`: what was rendered, in the canonical frame. The colour stays, but where the render hardly met the object it is that of
    the neighbours.
    """
    offsets = _offsets(count)
    edges = [np.nonzero(maximum_filter(picture[..., 3], 3) > minimum_filter(picture[..., 3], 3)) for picture in pictures]
    rays = np.concatenate([_rays(camera, *edge, offsets) for camera, edge in zip(cameras, edges, strict=True)])
    alpha = np.rint(255 * Rays(mesh).stopped(rays).reshape(-1, count).mean(axis=1))
    ends = np.cumsum([len(rows) for rows, _ in edges])[:-1]
    parts = np.split(alpha, ends)
    return [_redrawn(picture, *edge, part) for picture, edge, part in zip(pictures, edges, parts, strict=True)]


def _offsets(count: int) -> Float[np.ndarray, "{count} 2"]:
    """Places around a pixel's centre (pixels), as dense as the filter's weight; always the same."""
    x = np.linspace(-REACH, REACH, 1001)
    weight = sum(factor * np.cos(np.pi * number * (x / REACH + 1)) for number, factor in enumerate(BLACKMAN_HARRIS))
    share = np.cumsum(weight) / weight.sum()
    return np.interp(qmc.Sobol(2, rng=0).random(count), share, x)


def _rays(camera: Camera, rows: np.ndarray, columns: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(pixels * offsets, 6) float32 rays through places around pixels, canonical frame."""
    pixels = (np.stack([columns, rows], axis=1) + 0.5)[:, None] + offsets
    seen = (pixels - (camera.cx, camera.cy)) / (camera.fx, camera.fy)
    ahead = np.concatenate([seen, np.ones_like(seen[..., :1])], axis=2).reshape(-1, 3) @ camera.camera_to_world[:3, :3].T
    return np.concatenate([np.broadcast_to(camera.position, ahead.shape), ahead], axis=1).astype(np.float32)


def _redrawn(picture: np.ndarray, rows: np.ndarray, columns: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    drawn = picture[rows, columns, 3]
    alpha = np.where(np.abs(alpha - drawn) > APART, drawn, alpha)
    redrawn = picture.copy()
    redrawn[rows, columns, 3] = alpha
    faint = (drawn < FAINT) & (alpha > 0)
    rows, columns = rows[faint], columns[faint]
    around = np.pad(picture, ((1, 1), (1, 1), (0, 0)))
    near = np.stack([around[rows + y, columns + x] for y in range(3) for x in range(3)]).astype(np.float64)
    redrawn[rows, columns, :3] = np.rint((near[..., :3] * near[..., 3:]).sum(axis=0) / near[..., 3:].sum(axis=0))
    return redrawn
