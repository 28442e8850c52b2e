"""Letters over the picture: a watermark, a subtitle, a stamp."""

from __future__ import annotations

import string

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from minunet.data.noise.base import Image, Noise, Rng

SIZES = 8, 24  # of letters, in pixels
LENGTHS = 2, 14  # letters a string


class Text(Noise):
    """Random strings at random places in random colours, one after another until the wanted share of pixels is covered. Strength: it.

    Colours are uniform in [−0.5, 0.5]: their mean is gray, so the mean of many noisy images is the picture turned grayer. Their median is
    the picture while less than half of it is covered.
    """

    strengths = 0.0, 0.5
    tested = 0.25
    loss = "l1"

    def corrupted(self, image: Image, rng: Rng, strength: float) -> NDArray:
        if image.ndim != 3:
            raise ValueError(f"text is written over images (C, H, W), got {image.ndim} axes. Choose another noise.")
        height, width = image.shape[1:]
        page = Picture.new("I", (width, height), 0)  # the number of the string on top of each pixel
        pen = ImageDraw.Draw(page)
        pen.fontmode = "1"  # no pixel is covered by half
        letters = np.array(list(string.ascii_letters + string.digits))
        colours = [np.zeros(len(image))]
        numbers = np.asarray(page)
        while np.mean(numbers > 0) < strength:
            size = int(rng.integers(SIZES[0], SIZES[1] + 1))
            words = "".join(rng.choice(letters, rng.integers(LENGTHS[0], LENGTHS[1] + 1)))
            corner = int(rng.integers(-2 * size, width)), int(rng.integers(-size, height))
            pen.text(corner, words, fill=len(colours), font=ImageFont.load_default(size))
            colours.append(rng.uniform(-0.5, 0.5, len(image)))
            numbers = np.asarray(page)
        return np.where(numbers > 0, np.moveaxis(np.array(colours)[numbers], -1, 0), image)
