"""Noise2Void: training on single noisy images, by hiding the pixel that is asked for.

    input   the noisy image, some pixels replaced by one of their neighbours
    target  the noisy image, counted at those pixels alone

The network cannot copy what it is asked for, it must tell it from around. If the noise of a pixel says nothing about its neighbours'
noise, only the picture can be told, and the squared error settles at its mean. Noise that neighbours share would be learned too.

Krull, Buchholz & Jug, Noise2Void: Learning Denoising from Single Noisy Images, CVPR 2019, arXiv:1811.10980.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minunet.data.dataset import Image


@dataclass(frozen=True)
class BlindSpot:
    """Hides pixels. cell: one pixel is hidden in each cell of cell×cell pixels, at a random place. radius: of the window around it that
    the replacement comes from, itself excepted."""

    cell: int = 8
    radius: int = 2

    def pair(self, image: Image, rng: np.random.Generator) -> tuple[Image, Image]:
        """(image with pixels replaced, the image stacked with the mask of those pixels: (2, C, *spatial)). All channels together."""
        spatial = np.array(image.shape[1:])
        corners = np.stack(np.meshgrid(*(np.arange(0, n, self.cell) for n in spatial), indexing="ij"), axis=-1).reshape(-1, len(spatial))
        hidden = corners + rng.integers(0, np.minimum(self.cell, spatial - corners))
        taken = self._neighbours(hidden, spatial, rng)
        there, here = (slice(None), *taken.T), (slice(None), *hidden.T)
        seen, mask = image.copy(), np.zeros_like(image)
        seen[here], mask[here] = image[there], 1
        return seen, np.stack([image, mask])

    def _neighbours(self, hidden: np.ndarray, spatial: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """For each hidden pixel one within the window and the image, and not itself."""
        lowest = np.maximum(hidden - self.radius, 0)
        sizes = np.minimum(hidden + self.radius + 1, spatial) - lowest  # of the window along each axis
        itself = np.zeros(len(hidden), np.int64)
        for axis in range(len(spatial)):
            itself = itself * sizes[:, axis] + (hidden - lowest)[:, axis]
        number = rng.integers(0, np.maximum(sizes.prod(axis=1) - 1, 1))
        number = np.minimum(number + (number >= itself), sizes.prod(axis=1) - 1)
        places = np.empty_like(hidden)
        for axis in reversed(range(len(spatial))):
            number, places[:, axis] = np.divmod(number, sizes[:, axis])
        return lowest + places
