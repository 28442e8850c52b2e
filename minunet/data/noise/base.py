"""What every noise offers: a noisy image, a pair to train on, and the way from the network's output back to a picture."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]  # (C, *spatial)
Rng = np.random.Generator


class Noise:
    """A random corruption of images in [−0.5, 0.5].

    strength: the one of all images; None for those of the kind. Raises ValueError for one that the kind does not have.

    strengths: between which the strength is drawn for each image, uniformly. tested: the strength at which denoising is judged.
    possible: between which a strength may be asked for. loss: the name of the loss that fits, see `minunet.train.noise2noise`.
    """

    strengths: tuple[float, float]
    tested: float
    possible: ClassVar[tuple[float, float]] = 0.001, 1000.0
    loss: ClassVar[str] = "l2"

    def __init__(self, strength: float | None = None) -> None:
        if strength is None:
            return
        low, high = self.possible
        if not low <= strength <= high:
            raise ValueError(f"{type(self).__name__.lower()} noise has strengths from {low:g} to {high:g}, got {strength:g}.")
        self.strengths, self.tested = (strength, strength), strength

    def __call__(self, image: Image, rng: Rng, strength: float | None = None) -> Image:
        """A noisy copy: all that is random comes from `rng`. strength: drawn where it is None."""
        return self.corrupted(image, rng, rng.uniform(*self.strengths) if strength is None else strength).astype(np.float32)

    def corrupted(self, image: Image, rng: Rng, strength: float) -> NDArray[Any]:
        """A noisy copy of this strength."""
        raise NotImplementedError

    def pair(self, image: Image, rng: Rng, *, clean: bool = False) -> tuple[Image, Image]:
        """(what the network gets, what its output is compared with): two independent draws, or with `clean` the second is the image."""
        return self(image, rng), image if clean else self(image, rng)

    def trial(self, image: Image, rng: Rng) -> tuple[Image, Any]:
        """What the network gets at the tested strength, and whatever `restored` must know of the draw."""
        return self(image, rng, self.tested), None

    def restored(self, output: Image, known: Any = None) -> Image:
        """The network's output as a picture in [−0.5, 0.5]. known: of `trial`."""
        return output
