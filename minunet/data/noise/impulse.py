"""Random-valued impulses: broken pixels, bits lost on the way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minunet.data.noise.base import Image, Noise, Rng


class Impulse(Noise):
    """With probability p a pixel gets a random colour, uniform in [−0.5, 0.5] in each channel. Strength: p.

    Even if most pixels are replaced, no random colour comes as often as the true one: it is the mode.
    """

    strengths = 0.0, 0.95
    tested = 0.7
    possible = 0.001, 0.95
    loss = "l0"

    def corrupted(self, image: Image, rng: Rng, strength: float) -> NDArray:
        return np.where(rng.random(image.shape[1:]) < strength, rng.uniform(-0.5, 0.5, image.shape), image)
