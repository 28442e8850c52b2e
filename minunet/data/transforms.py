"""Standardisation, and the random changes that make a few training images go far: flips, turns, elastic deformation, intensity.

All work on an image (C, *spatial) and a mask (*spatial) of any rank, and draw from the generator they are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from minunet.data.dataset import Image, Mask, SegmentationDataset


@dataclass(frozen=True)
class Standardize:
    """(image − mean) / std, channel by channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def fit(cls, dataset: SegmentationDataset) -> Standardize:
        """Mean and standard deviation over all pixels of the set, which should be the training set alone."""
        count, total, squares = 0, np.zeros(dataset.channels), np.zeros(dataset.channels)
        for index in range(len(dataset)):
            pixels = dataset[index][0].reshape(dataset.channels, -1).astype(np.float64)
            count += pixels.shape[1]
            total += pixels.sum(axis=1)
            squares += (pixels**2).sum(axis=1)
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 0))
        return cls(tuple(mean.tolist()), tuple(np.where(std > 1e-12, std, 1).tolist()))  # a constant channel becomes 0

    def __call__(self, image: Image) -> Image:
        if len(image) != len(self.mean):
            raise ValueError(f"the image has {len(image)} channel(s), the training set had {len(self.mean)}: convert it to the same kind.")
        shape = (-1,) + (1,) * (image.ndim - 1)
        return (image - np.array(self.mean, np.float32).reshape(shape)) / np.array(self.std, np.float32).reshape(shape)

    def to_dict(self) -> dict[str, list[float]]:
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, stored: dict[str, Sequence[float]]) -> Standardize:
        return cls(tuple(stored["mean"]), tuple(stored["std"]))


@dataclass(frozen=True)
class Augment:
    """Random changes of an image and its mask together. The same generator state gives the same change.

    flips: along every axis. rotations: by quarter turns in the last two axes (half turns where height and width differ).
    angle: by up to ± this many degrees in the last two axes. scale: by a factor within 1/(1+scale) … 1+scale.
    elastic: standard deviation, in pixels, of the displacements on a coarse grid; the 2015 paper takes 10 on a 3×3 grid.
    intensity: image ← a + b·x^γ with γ, b within 1 ± this and a within ± half of it, of the image's range.
    order: of the spline that samples the image when it is bent (1 linear, 3 cubic); the mask takes the nearest pixel. Beyond the
        edge both are mirrored.
    """

    flips: bool = True
    rotations: bool = True
    angle: float = 0.0
    scale: float = 0.0
    elastic: float = 0.0
    intensity: float = 0.0
    order: int = 1

    def __call__(self, image: Image, mask: Mask, rng: np.random.Generator, size: Sequence[int] | None = None) -> tuple[Image, Mask]:
        """size: of the random window to take out; only its pixels are computed."""
        image, mask = mirror_to(image, mask, size or mask.shape)
        size = tuple(size or mask.shape)
        corner = _corner(mask.shape, size, rng)
        if self.elastic or self.angle or self.scale:
            places = self._places(mask.shape, corner, size, rng)
            image = np.stack([ndimage.map_coordinates(c, places, order=self.order, mode="mirror") for c in image])
            mask = ndimage.map_coordinates(mask, places, order=0, mode="mirror")
        else:
            image, mask = _window(image, mask, corner, size)
        if self.rotations and len(size) > 1:
            turns = int(rng.integers(4)) if size[-1] == size[-2] else 2 * int(rng.integers(2))
            image, mask = np.rot90(image, turns, (-2, -1)), np.rot90(mask, turns, (-2, -1))
        if self.flips:
            axes = tuple(axis for axis in range(-len(size), 0) if rng.integers(2))
            image, mask = np.flip(image, axes), np.flip(mask, axes)
        if self.intensity:
            image = self._shaded(image, rng)
        return np.ascontiguousarray(image), np.ascontiguousarray(mask)

    def _places(self, shape: Sequence[int], corner: Sequence[int], size: Sequence[int], rng: np.random.Generator) -> NDArray[np.float64]:
        """Where each pixel of the window comes from: (rank, *size) coordinates in the image."""
        lines = [start + np.arange(n, dtype=np.float64) for start, n in zip(corner, size, strict=True)]
        places = np.stack(np.meshgrid(*lines, indexing="ij"))
        if self.elastic:
            places += displacements(shape, lines, self.elastic, rng)
        if self.angle or self.scale:
            turn = np.deg2rad(rng.uniform(-self.angle, self.angle))
            zoom = (1 + self.scale) ** rng.uniform(-1, 1)
            matrix = np.eye(len(size)) / zoom
            matrix[-2:, -2:] = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) / zoom
            centre = np.array([start + (n - 1) / 2 for start, n in zip(corner, size, strict=True)]).reshape((-1,) + (1,) * len(size))
            places = np.tensordot(matrix, places - centre, axes=1) + centre
        return places

    def _shaded(self, image: Image, rng: np.random.Generator) -> Image:
        gamma, gain = rng.uniform(1 - self.intensity, 1 + self.intensity, 2).astype(np.float32)
        bias = np.float32(rng.uniform(-self.intensity, self.intensity) / 2)
        low = image.min()
        span = max(image.max() - low, np.float32(1e-6))
        return low + span * (bias + gain * ((image - low) / span) ** gamma)


def displacements(
    shape: Sequence[int], lines: Sequence[NDArray[np.float64]], sigma: float, rng: np.random.Generator, points: int = 3
) -> NDArray[np.float64]:
    """A smooth random displacement field at the rows, columns, … in `lines`: (rank, *lengths of lines).

    Vectors drawn from N(0, sigma²) stand on a grid of `points` along each axis, from corner to corner of `shape`; between
    them stands the bicubic spline (Ronneberger et al. 2015, section 3.1). The spline is separable, u = B_y·V·B_xᵀ: two small
    matrix products give any part of the field without the rest.
    """
    field = rng.normal(0, sigma, (len(shape),) + (points,) * len(shape))
    for axis, (n, line) in enumerate(zip(shape, lines, strict=True), start=1):
        knots = line * (points - 1) / max(n - 1, 1)
        basis = np.stack([ndimage.map_coordinates(unit, knots[None], order=3, mode="mirror") for unit in np.eye(points)], axis=1)
        field = np.moveaxis(np.tensordot(basis, field, axes=(1, axis)), 0, axis)
    return field


def random_crop(image: Image, mask: Mask, size: Sequence[int], rng: np.random.Generator) -> tuple[Image, Mask]:
    """A window of `size` at a random place; an image smaller than that is first continued by its mirror image."""
    image, mask = mirror_to(image, mask, size)
    return _window(image, mask, _corner(mask.shape, size, rng), size)


def mirror_to(image: Image, mask: Mask, size: Sequence[int]) -> tuple[Image, Mask]:
    """Continues image and mask by their mirror image, at the end of each axis, to at least `size`."""
    if len(size) != mask.ndim:
        raise ValueError(f"a crop of {len(size)} numbers does not fit images of {mask.ndim} axes: give one number for each axis.")
    missing = [(0, max(wanted - n, 0)) for wanted, n in zip(size, mask.shape, strict=True)]
    if not any(after for _, after in missing):
        return image, mask
    return np.pad(image, [(0, 0), *missing], mode="symmetric"), np.pad(mask, missing, mode="symmetric")


def _corner(shape: Sequence[int], size: Sequence[int], rng: np.random.Generator) -> list[int]:
    return [int(rng.integers(n - wanted + 1)) for n, wanted in zip(shape, size, strict=True)]


def _window(image: Image, mask: Mask, corner: Sequence[int], size: Sequence[int]) -> tuple[Image, Mask]:
    window: Any = tuple(slice(start, start + n) for start, n in zip(corner, size, strict=True))
    return image[(slice(None), *window)], mask[window]
