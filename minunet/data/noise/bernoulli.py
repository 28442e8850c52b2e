"""Multiplicative Bernoulli noise: pixels that are missing, and known to be missing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minunet.data.noise.base import Image, Noise, Rng


class Bernoulli(Noise):
    """y = m·x, m 0 with probability p for each pixel, all its channels together, else 1. Strength: p.

    In the target, missing pixels are left out of the loss: it is stacked with its mask, (2, C, *spatial).
    """

    strengths = 0.0, 0.95
    tested = 0.5
    possible = 0.001, 0.95
    loss = "masked"

    def corrupted(self, image: Image, rng: Rng, strength: float) -> NDArray:
        return image * self._mask(image, rng, strength)

    def pair(self, image: Image, rng: Rng, *, clean: bool = False) -> tuple[Image, Image]:
        noisy = self(image, rng)
        mask = np.ones_like(image) if clean else self._mask(image, rng, rng.uniform(*self.strengths))
        return noisy, np.stack([image * mask, mask])

    def _mask(self, image: Image, rng: Rng, strength: float) -> Image:
        return np.broadcast_to(rng.random(image.shape[1:]) >= strength, image.shape).astype(np.float32)
