"""How alike two pictures are. A picture is (height, width, 4) uint8, sRGB with straight alpha; it is looked at over white."""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.ndimage import gaussian_filter

# Of pictures with 8 bits: the mean square error of rounding alone. No two are known to be more alike.
ROUNDING = 1 / 12 / 255**2

SIGMA, RADIUS = 1.5, 5  # pixels: the gaussian window of Wang et al., 11 x 11
C1, C2 = 0.01**2, 0.03**2  # for values from 0 to 1

Picture = UInt8[np.ndarray, "h w 4"]


def over_white(picture: Picture) -> Float[np.ndarray, "h w 3"]:
    """Its colours over white, sRGB 0..1."""
    alpha = picture[..., 3:] / 255
    return picture[..., :3] / 255 * alpha + 1 - alpha


def psnr(picture: Float[np.ndarray, "*size 3"], truth: Float[np.ndarray, "*size 3"]) -> float:
    """Peak signal-to-noise ratio, dB, over all values; at most 58.9, where the error is that of rounding to 8 bits."""
    return float(-10 * np.log10(max(((picture - truth) ** 2).mean(), ROUNDING)))


def ssim(picture: Float[np.ndarray, "h w 3"], truth: Float[np.ndarray, "h w 3"]) -> float:
    """Structural similarity, mean over pixels and the three channels. Wang, Bovik, Sheikh and Simoncelli 2004, "Image Quality
    Assessment: From Error Visibility to Structural Similarity", equation 13."""

    def blurred(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, (SIGMA, SIGMA, 0), radius=(RADIUS, RADIUS, 0))

    mean, true_mean = blurred(picture), blurred(truth)
    variance, true_variance = blurred(picture**2) - mean**2, blurred(truth**2) - true_mean**2
    covariance = blurred(picture * truth) - mean * true_mean
    alike = (2 * mean * true_mean + C1) * (2 * covariance + C2)
    return float((alike / ((mean**2 + true_mean**2 + C1) * (variance + true_variance + C2))).mean())


def likeness(picture: Picture, truth: Picture) -> dict[str, float | None]:
    """`psnr`, `psnr_object` (in the rectangle around what the truth shows), `ssim` and `iou` (of where alpha is above a half).
    The last and the object's are None where the truth shows nothing."""
    a, b = over_white(picture), over_white(truth)
    shown = truth[..., 3] > 0
    found = {"psnr": psnr(a, b), "ssim": ssim(a, b), "psnr_object": None, "iou": None}
    if shown.any():
        rows, columns = (np.flatnonzero(shown.any(axis=axis)) for axis in (1, 0))
        inside = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        found["psnr_object"] = psnr(a[inside], b[inside])
    masks = picture[..., 3] > 127, truth[..., 3] > 127
    if masks[1].any():
        found["iou"] = float((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum())
    return found


def reduced(picture: Picture, width: int, height: int) -> Picture:
    """A smaller picture: bicubic and antialiased, colours weighed by their alpha."""
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
