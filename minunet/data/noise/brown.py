"""Additive Gaussian noise that neighbours share: grain, cloudy sensors, what is left by a careless resampling."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from minunet.data.noise.base import Image, Noise, Rng

BLUR = 0.5, 3.0  # pixels


class Brown(Noise):
    """y = x + σ·(g∗n)/‖g‖, n white, g a Gaussian whose width is drawn from 0.5 … 3 pixels. Strength: σ in gray levels, of 255 in all.

    Dividing by ‖g‖ keeps the variance of each pixel at σ². The blur wraps around the edges, so that it is the same everywhere.
    """

    strengths = 0.0, 50.0
    tested = 25.0

    def corrupted(self, image: Image, rng: Rng, strength: float) -> NDArray:
        axes = tuple(range(1, image.ndim))
        blur = rng.uniform(*BLUR)
        smooth = ndimage.gaussian_filter(rng.standard_normal(image.shape), blur, mode="wrap", axes=axes)
        impulse = np.zeros(image.shape[1:])
        impulse[(0,) * impulse.ndim] = 1
        norm = np.linalg.norm(ndimage.gaussian_filter(impulse, blur, mode="wrap"))
        return image + strength / 255 / norm * smooth
