"""How close a reconstruction is to the truth: `metrics.psnr` and `metrics.ssim`, in which the range is the truth's largest value minus its
smallest, for a phantom's densities have no largest possible value.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet import metrics

Array = np.ndarray[Any, Any]


def psnr(image: Array, truth: Array) -> float:
    """Peak signal-to-noise ratio of an image (H, W), in dB; infinite where the two are equal."""
    return metrics.psnr(image, truth, data_range=_range("PSNR", image, truth))


def ssim(image: Array, truth: Array) -> float:
    """Structural similarity of an image (H, W), at most 1."""
    return metrics.ssim(image[None], truth[None], data_range=_range("SSIM", image, truth))


def _range(name: str, image: Array, truth: Array) -> float:
    if image.shape != truth.shape or image.ndim != 2:
        raise ValueError(f"{name} compares two images (H, W) of one size, got {image.shape} and {truth.shape}.")
    extent = float(truth.max()) - float(truth.min())
    if extent == 0:
        raise ValueError(f"{name}: the truth is {truth.flat[0]:g} everywhere, so there is no range to compare with.")
    return extent
