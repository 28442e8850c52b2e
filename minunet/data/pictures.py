"""Pictures without masks, for denoising: a folder, or two folders of the same scenes with different noise.

Networks see values in [−0.5, 0.5]. `Span` says which values of a file those are.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minunet.data.dataset import DataError, Image
from minunet.data.images import image_files, pixel_type, read_image
from minunet.data.transforms import Augment
from minunet.shapes import sizes_text

KEPT = 2**31  # bytes of decoded pictures that are kept; what is beyond is read again


@dataclass(frozen=True)
class Span:
    """The values that become −0.5 and 0.5."""

    low: float = 0.0
    high: float = 1.0

    def inward(self, image: Image) -> Image:
        """A picture as it was read → what a network sees."""
        return ((image - self.low) / (self.high - self.low) - 0.5).astype(np.float32)

    def outward(self, image: Image) -> Image:
        """The way back."""
        return ((image + 0.5) * (self.high - self.low) + self.low).astype(np.float32)


class Pictures:
    """The pictures of a folder. A sample is (image, image): (C, H, W) in [−0.5, 0.5].

    All files are read on construction, so that a bad one is found before training; as many as fit into 2 GiB are kept.
    span: None takes 0 … 1 for pictures of 8 bits, which fill it; else the smallest and the largest value of the set: microscopes rarely
    use all of their 16 bits, and floating-point values have no largest one.
    """

    def __init__(self, folder: str | Path, *, span: Span | None = None) -> None:
        self.files = image_files(folder)
        self.names = [path.stem for path in self.files]
        self._kept: dict[int, Image] = {}
        with ThreadPoolExecutor() as pool:
            surveys = list(pool.map(self._survey, range(len(self.files))))
        self.shapes = [shape for shape, _, _ in surveys]
        self.channels = self.shapes[0][0]
        for path, shape in zip(self.files, self.shapes, strict=True):
            if shape[0] != self.channels:
                raise DataError(
                    f"{self.files[0].name!r} has {self.channels} channel(s) but {path.name!r} has {shape[0]}: convert all pictures of the "
                    "set to gray or all to RGB."
                )
        self.span = span or self._fitting_span([low for _, low, _ in surveys], [high for _, _, high in surveys])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image, Image]:
        image = self.image(index)
        return image, image

    def image(self, index: int) -> Image:
        """(C, H, W) in [−0.5, 0.5]."""
        read = self._kept[index] if index in self._kept else read_image(self.files[index])
        return self.span.inward(read)

    def _survey(self, index: int) -> tuple[tuple[int, ...], float, float]:
        """Reads a picture: its shape, its smallest and its largest value."""
        image = read_image(self.files[index])
        if image.nbytes * (len(self._kept) + 1) <= KEPT:
            self._kept[index] = image
        return image.shape, float(image.min()), float(image.max())

    def _fitting_span(self, lows: list[float], highs: list[float]) -> Span:
        if all(pixel_type(path) == np.uint8 for path in self.files):
            return Span()
        if min(lows) == max(highs):
            raise DataError(f"every pixel of every picture in {str(self.files[0].parent)!r} is {min(lows):g}: there is nothing to learn.")
        return Span(min(lows), max(highs))


class PicturePairs:
    """Two folders with the same scenes under the same names, each with noise of its own. A sample is (one, the other)."""

    def __init__(self, first: str | Path, second: str | Path, *, span: Span | None = None) -> None:
        if Path(first).resolve() == Path(second).resolve():
            raise DataError(f"both pictures of each pair are looked for in {str(first)!r}: put the second ones into a folder of their own.")
        self.first = Pictures(first, span=span)
        self.second = Pictures(second, span=span or self.first.span)
        self.span, self.channels, self.names = self.first.span, self.first.channels, self.first.names
        for one, other in ((self.first, self.second), (self.second, self.first)):
            alone = sorted(set(one.names) - set(other.names))
            if alone:
                raise DataError(
                    f"{alone[0]!r} in {str(one.files[0].parent)!r} has no partner of that name in {str(other.files[0].parent)!r}: "
                    "add it there or take it out."
                )
            if len(set(one.names)) < len(one.names):
                twice = next(name for name in one.names if one.names.count(name) > 1)
                raise DataError(
                    f"two pictures in {str(one.files[0].parent)!r} are called {twice!r}: it is unclear which to take; remove one."
                )
        self._partner = [self.second.names.index(name) for name in self.names]
        for index, name in enumerate(self.names):
            sizes = self.first.shapes[index], self.second.shapes[self._partner[index]]
            if sizes[0] != sizes[1]:
                raise DataError(
                    f"the pair {name!r} is {sizes_text(sizes[0])} in one folder and {sizes_text(sizes[1])} in the other "
                    "(channels×height×width): both must show the same scene."
                )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Image, Image]:
        return self.first.image(index), self.second.image(self._partner[index])


def random_window(images: Sequence[Image], rng: np.random.Generator, size: Sequence[int] | None) -> list[Image]:
    """The same random window of all images, flipped and turned alike. size None: whole images."""
    together = np.concatenate(images)
    nowhere = np.broadcast_to(np.int64(0), together.shape[1:])
    window, _ = Augment()(together, nowhere, rng, size)
    return np.split(window, np.cumsum([len(image) for image in images])[:-1])
