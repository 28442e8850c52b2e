"""What every noise offers: a noisy image, a pair to train on, and the way from the network's output back to a picture."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]  # (C, *spatial)
Rng = np.random.Generator


class Noise:
    """A random corruption of images in [−0.5, 0.5].

    strengths: between which the strength is drawn for each image, uniformly. tested: the strength at which denoising is judged.
    loss: the name of the loss that fits, see `minunet.train.noise2noise`.
    """

    strengths: ClassVar[tuple[float, float]]
    tested: ClassVar[float]
    loss: ClassVar[str] = "l2"

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
