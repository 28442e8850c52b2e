"""Shot noise: light comes in photons, and a dark pixel counts few of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minunet.data.noise.base import Image, Noise, Rng


class Poisson(Noise):
    """y = k/λ − 0.5, k drawn from Poisson(λ·(x + 0.5)): mean x, variance (x + 0.5)/λ.

    Strength: λ, the photons that a white pixel counts. The more, the less noise. What is darker than black counts none.

    The paper draws λ from 0 on. Where a white pixel rarely counts a photon, one that comes is worth many times white, up to a thousand.
    Adam divides by the largest gradients of late: one such window, and hundreds of steps hardly move. So the range begins at one photon.
    """

    strengths = 1.0, 50.0
    tested = 30.0

    def corrupted(self, image: Image, rng: Rng, strength: float) -> NDArray:
        return rng.poisson(strength * np.maximum(image + 0.5, 0)) / strength - 0.5
