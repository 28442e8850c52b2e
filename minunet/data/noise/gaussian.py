"""Additive white Gaussian noise: what a camera's electronics add."""

from __future__ import annotations

from numpy.typing import NDArray

from minunet.data.noise.base import Image, Noise, Rng


class Gaussian(Noise):
    """y = x + σ·n, n standard normal and independent in each pixel and channel. Strength: σ in gray levels, of 255 in all."""

    strengths = 0.0, 50.0
    tested = 25.0

    def corrupted(self, image: Image, rng: Rng, strength: float) -> NDArray:
        return image + strength / 255 * rng.standard_normal(image.shape)
