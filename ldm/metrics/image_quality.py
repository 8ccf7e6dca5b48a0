"""RMSE, PSNR, SSIM and MS-SSIM of pairs of images [H, W], in float64."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

Array = NDArray[np.float64]
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents (Wang et al. 2003, section 3.2)
BORDER = 5  # half of the 11 taps: a Gaussian of sigma 1.5, cut at 3.5 sigma


def rmse(a: ArrayLike, b: ArrayLike) -> float:
    """sqrt(mean (a - b)^2), in the unit of the images"""
    x, y = _pair(a, b)
    return float(np.sqrt(np.square(x - y).mean()))


def psnr(a: ArrayLike, b: ArrayLike, span: float) -> float:
    """10 log10(span^2 / mean squared error) in dB, infinite for equal images.

    span: of the range the images could have: 2 for [-1, 1], never the span they happen to have
    """
    x, y = _pair(a, b)
    error = np.square(x - y).mean()
    return float(10 * np.log10(span**2 / error)) if error > 0 else float("inf")


def ssim(a: ArrayLike, b: ArrayLike, span: float) -> float:
    """Structural similarity (Wang et al., IEEE TIP 13(4), 2004, eq. 13 and 17).

    Black must be 0: the luminance term compares means, and around 0 their ratio means nothing.

    Gaussian windows of sigma 1.5, population covariance, K1 = 0.01, K2 = 0.03; the mean leaves
    out a border of 5 pixels, as scikit-image's gaussian_weights does. span: as for `psnr`.
    """
    luminance, contrast = _maps(*_pair(a, b), span)
    return float(_inside(luminance * contrast).mean())


def ms_ssim(a: ArrayLike, b: ArrayLike, span: float) -> float:
    """SSIM over five scales (Wang, Simoncelli and Bovik, Asilomar 2003, eq. 7), 2 x 2 means.

    Negative contrast terms count as 0. Only the coarsest scale keeps its border (torchmetrics).
    """
    x, y = _pair(a, b)
    if min(x.shape) < 2 ** (len(SCALES) - 1) * (2 * BORDER + 1):
        raise ValueError(f"MS-SSIM needs sides of 176 pixels or more, got {list(x.shape)}")
    value = 1.0
    for i, exponent in enumerate(SCALES):
        luminance, contrast = _maps(x, y, span)
        last = i == len(SCALES) - 1
        term = (luminance * contrast).mean() if last else _inside(contrast).mean()
        value *= max(float(term), 0.0) ** exponent
        x, y = _halve(x), _halve(y)
    return value


def edge_steps(image: ArrayLike, mask: ArrayLike) -> tuple[Array, Array]:
    """|difference| of neighbouring pixels [H, W], across the edge of the mask and outside of it."""
    x, inside = np.asarray(image, np.float64), np.asarray(mask, bool)
    across, outside = [], []
    for pixels, masked in ((x, inside), (x.T, inside.T)):
        steps = np.abs(np.diff(pixels, axis=0))
        across.append(steps[masked[1:] != masked[:-1]])
        outside.append(steps[~masked[1:] & ~masked[:-1]])
    return np.concatenate(across), np.concatenate(outside)


def _maps(x: Array, y: Array, span: float) -> tuple[Array, Array]:
    """Luminance, and contrast times structure, at every pixel."""

    def blur(z: Array) -> Array:
        return gaussian_filter(z, 1.5, mode="mirror", truncate=3.5)

    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    mean_x, mean_y = blur(x), blur(y)
    variances = blur(x * x) - mean_x**2 + blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance, (2 * covariance + c2) / (variances + c2)


def _inside(z: Array) -> Array:
    return z[BORDER:-BORDER, BORDER:-BORDER]


def _halve(z: Array) -> Array:
    height, width = z.shape[0] // 2 * 2, z.shape[1] // 2 * 2
    z = z[:height, :width]
    return (z[::2, ::2] + z[1::2, ::2] + z[::2, 1::2] + z[1::2, 1::2]) / 4


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.ndim != 2 or x.shape != y.shape or min(x.shape) <= 2 * BORDER:
        raise ValueError(
            "the images must have one shape [H, W], 11 pixels or more a side, got "
            f"{list(x.shape)} and {list(y.shape)}"
        )
    return x, y
