"""Letters over the picture: a watermark, a subtitle, a stamp."""

from __future__ import annotations

import string
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from minunet.data.noise.base import Image, Noise, Rng

SIZES = 8, 24  # of letters, in pixels
LENGTHS = 2, 14  # letters a string
LETTERS = string.ascii_letters + string.digits


class Text(Noise):
    """Random strings at random places in random colours, one after another until the wanted share of pixels is covered. Strength: it.

    Colours are uniform in [−0.5, 0.5]: their mean is gray, so the mean of many noisy images is the picture turned grayer. Their median is
    the picture while less than half of it is covered.
    """

    strengths = 0.0, 0.5
    tested = 0.25
    possible = 0.001, 0.95
    loss = "l1"

    def corrupted(self, image: Image, rng: Rng, strength: float) -> NDArray:
        if image.ndim != 3:
            raise ValueError(f"text is written over images (C, H, W), got {image.ndim} axes. Choose another noise.")
        height, width = image.shape[1:]
        page = np.zeros((height, width), np.intp)  # the number of the string on top of each pixel
        colours = [np.zeros(len(image))]
        while np.count_nonzero(page) < strength * page.size:
            size = int(rng.integers(SIZES[0], SIZES[1] + 1))
            chosen = rng.integers(len(LETTERS), size=int(rng.integers(LENGTHS[0], LENGTHS[1] + 1)))
            left, top = int(rng.integers(-2 * size, width)), int(rng.integers(-size, height))
            stencils = _stencils(size)
            words = np.concatenate([stencils[letter] for letter in chosen.tolist()], axis=1)[max(-top, 0) :, max(-left, 0) :]
            under = page[max(top, 0) :, max(left, 0) :][: words.shape[0], : words.shape[1]]
            under[words[: under.shape[0], : under.shape[1]]] = len(colours)
            colours.append(rng.uniform(-0.5, 0.5, len(image)))
        return np.where(page > 0, np.moveaxis(np.array(colours)[page], -1, 0), image)


@cache
def _stencils(size: int) -> list[NDArray[np.bool_]]:
    """Which pixels each letter covers, none by half; all of one height. Kept: to draw a letter takes longer than to lay a stencil."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    stencils = []
    for letter in LETTERS:
        box = Picture.new("1", (round(font.getlength(letter)), sum(font.getmetrics())))
        pen = ImageDraw.Draw(box)
        pen.fontmode = "1"
        pen.text((0, 0), letter, fill=1, font=font)
        stencils.append(np.array(box))
    return stencils
