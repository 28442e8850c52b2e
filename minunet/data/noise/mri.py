"""Magnetic resonance imaging in a hurry: only some of the frequencies are measured."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minunet.data.noise.base import Image, Noise, Rng
from minunet.ops.fourier import filtered

STRENGTH = -np.log(0.025)


class Measured(NamedTuple):
    """What is known for certain: image (C, *spatial), the measured frequencies alone; gain (1, *spatial), 0 where measured and else 1."""

    image: Image
    gain: Image


class Mri(Noise):
    """Each frequency k is kept with probability p(k) = e^(−λ·|k|) and then divided by p(k); the others are 0. So the mean is the image.

    |k| is 1 at the highest frequency of an axis. k and −k are kept together, so that the result is real. Strength: λ; at the tested one
    p is 0.025 at |k| = 1 and about a tenth of all frequencies are kept.

    The measured frequencies are put back after the network, undivided: they are known, and nobody has to guess them. So the target is
    stacked with what that takes, (3, C, *spatial): target, measured image, gain.
    """

    strengths = STRENGTH, STRENGTH
    tested = STRENGTH
    loss = "mri"

    def corrupted(self, image: Image, rng: Rng, strength: float) -> NDArray:
        kept, gain = _draw(image.shape[1:], rng, strength)
        return filtered(image, kept * gain, 1)

    def pair(self, image: Image, rng: Rng, *, clean: bool = False) -> tuple[Image, Image]:
        noisy, measured = self._measure(image, rng, rng.uniform(*self.strengths))
        target = image if clean else self(image, rng)
        return noisy, np.stack([target, measured.image, np.broadcast_to(measured.gain, image.shape)])

    def trial(self, image: Image, rng: Rng) -> tuple[Image, Measured]:
        return self._measure(image, rng, self.tested)

    def restored(self, output: Image, known: Any = None) -> Image:
        """With the measured frequencies put back, where they are known."""
        if known is None:
            return output
        return (filtered(output, known.gain, 1) + known.image).astype(np.float32)

    def _measure(self, image: Image, rng: Rng, strength: float) -> tuple[Image, Measured]:
        kept, gain = _draw(image.shape[1:], rng, strength)
        measured = Measured(filtered(image, kept, 1).astype(np.float32), (~kept)[None].astype(np.float32))
        return filtered(measured.image, gain, 1).astype(np.float32), measured


def _draw(spatial: tuple[int, ...], rng: Rng, strength: float) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which frequencies are kept, and 1/p of each."""
    gain = np.exp(strength * frequencies(spatial))
    return _symmetric(rng.random(spatial)) * gain < 1, gain


@cache
def frequencies(spatial: tuple[int, ...]) -> NDArray[np.float64]:
    """|k| of each frequency, in the order of numpy.fft: 0 first, 1 at the highest of an axis."""
    axes = np.meshgrid(*(2 * np.fft.fftfreq(n) for n in spatial), indexing="ij")
    return np.sqrt(sum(axis**2 for axis in axes))


def _symmetric(values: NDArray) -> NDArray:
    """The same value at k and −k: that of the one which comes first in memory."""
    return values.ravel()[_first_of_pair(values.shape)]


@cache
def _first_of_pair(spatial: tuple[int, ...]) -> NDArray[np.intp]:
    """Where in memory the first of k and −k lies."""
    here = np.arange(np.prod(spatial)).reshape(spatial)
    axes = tuple(range(len(spatial)))
    return np.minimum(here, np.roll(np.flip(here, axes), 1, axes))
