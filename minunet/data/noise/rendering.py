"""A stand-in for Monte Carlo rendering: light in high dynamic range whose noise has a heavy tail.

A renderer estimates the light of a pixel by a few random paths. The mean is right, but now and then a path hits a lamp and the pixel is a
firefly, hundreds of times too bright. Here the picture is taken as tone-mapped light, turned back into light v, and v is multiplied by
one heavy-tailed number a pixel. The paper's network also gets albedo and surface normals, which a picture does not have.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minunet.data.noise.base import Image, Noise, Rng

BRIGHTEST = 0.98  # of a tone-mapped picture, that its light stays finite: v ≤ 22


class Rendering(Noise):
    """v' = v·w, w = (a − 1)/g, g drawn from Gamma(a), one for each pixel: mean 1, variance 1/(a − 2), a tail as w^(−1−a).

    Strength: a. The lower, the heavier the tail. The network gets the tone-mapped v', its output and its target are light.
    """

    strengths = 2.5, 6.0
    tested = 4.0
    possible = 2.1, 1000.0
    loss = "hdr"

    def corrupted(self, image: Image, rng: Rng, strength: float) -> NDArray:
        return tone_mapped(self._light(image, rng, strength)) - 0.5

    def pair(self, image: Image, rng: Rng, *, clean: bool = False) -> tuple[Image, Image]:
        noisy = self(image, rng)
        return noisy, (light(image + 0.5) if clean else self._light(image, rng, rng.uniform(*self.strengths))).astype(np.float32)

    def restored(self, output: Image, known: Any = None) -> Image:
        return tone_mapped(output) - np.float32(0.5)

    def _light(self, image: Image, rng: Rng, strength: float) -> NDArray:
        return light(image + 0.5) * (strength - 1) / rng.gamma(strength, size=image.shape[1:])


def tone_mapped(v: NDArray) -> NDArray:
    """Light v ≥ 0 → a picture in [0, 1): (v/(1 + v))^(1/2.2). Lehtinen et al. 2018, section 3.3."""
    v = np.maximum(v, 0)
    return (v / (1 + v)) ** (1 / 2.2)


def light(picture: NDArray) -> NDArray:
    """The inverse of `tone_mapped`."""
    u = np.clip(picture, 0, BRIGHTEST) ** 2.2
    return u / (1 - u)
