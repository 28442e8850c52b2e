"""How close a reconstruction is to the truth.

    PSNR = 10·log₁₀(range²/MSE)                                                        in dB
    SSIM = mean of (2·μₓμᵧ + c₁)·(2·σₓᵧ + c₂) / ((μₓ² + μᵧ² + c₁)·(σₓ² + σᵧ² + c₂))      c₁ = (0.01·range)², c₂ = (0.03·range)²

range is the truth's largest value minus its smallest. Means and variances of SSIM are weighted by a Gaussian of σ = 1.5 pixels in a window
of 11 by 11; windows that reach over the border are left out (Wang, Bovik, Sheikh & Simoncelli, IEEE Trans. Image Process. 13:600, 2004).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, Any]

_SIGMA, _RADIUS = 1.5, 5  # of SSIM's window, in pixels


def psnr(image: Array, truth: Array) -> float:
    """Peak signal-to-noise ratio of an image (H, W), in dB; infinite where the two are equal."""
    image, truth, extent = _pair("PSNR", image, truth)
    error = float(np.mean((image - truth) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(extent**2 / error))


def ssim(image: Array, truth: Array) -> float:
    """Structural similarity of an image (H, W), at most 1."""
    image, truth, extent = _pair("SSIM", image, truth)
    if min(image.shape) <= 2 * _RADIUS:
        raise ValueError(f"SSIM looks through windows of {2 * _RADIUS + 1} pixels; the image has the shape {image.shape}.")

    def mean(x: Array) -> Array:
        return ndimage.gaussian_filter(x, _SIGMA, radius=_RADIUS)[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]

    x, y = mean(image), mean(truth)
    xx, yy, xy = mean(image**2) - x**2, mean(truth**2) - y**2, mean(image * truth) - x * y
    c1, c2 = (0.01 * extent) ** 2, (0.03 * extent) ** 2
    return float(np.mean((2 * x * y + c1) * (2 * xy + c2) / ((x**2 + y**2 + c1) * (xx + yy + c2))))


def _pair(name: str, image: Array, truth: Array) -> tuple[Array, Array, float]:
    if image.shape != truth.shape or image.ndim != 2:
        raise ValueError(f"{name} compares two images (H, W) of one size, got {image.shape} and {truth.shape}.")
    extent = float(truth.max()) - float(truth.min())
    if extent == 0:
        raise ValueError(f"{name}: the truth is {truth.flat[0]:g} everywhere, so there is no range to compare with.")
    return image.astype(np.float64), truth.astype(np.float64), extent
