"""Where the rays run: the sizes of image and detector, the angles, the axis of rotation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Geometry:
    """A scan with parallel rays.

    size: (H, W) of the image in pixels. angles: in degrees. detectors: on a line, one pixel apart. centre: the place on that line, counted
    in detectors from 0, that sees the axis of rotation.
    """

    size: tuple[int, int]
    angles: tuple[float, ...]
    detectors: int
    centre: float

    @classmethod
    def over(
        cls,
        name: str,
        size: tuple[int, ...],
        angles: Sequence[float],
        detectors: int | None = None,
        centre: float | None = None,
    ) -> Geometry:
        """With the defaults filled in, and checked; `name` begins the errors."""
        if np.ndim(angles) != 1 or not len(angles) or not np.isfinite(np.asarray(angles, float)).all():
            raise ValueError(f"{name}: angles are one or more finite numbers, in degrees; got {angles!r}.")
        if min(size) < 1:
            raise ValueError(f"{name}: the image has no pixels: its height and width are {size[0]} and {size[1]}.")
        count = max(size) if detectors is None else int(detectors)
        if count < 1:
            raise ValueError(f"{name}: there must be at least 1 detector, got {detectors}.")
        middle = count // 2 if centre is None else centre
        if not math.isfinite(middle):
            raise ValueError(f"{name}: centre is a place among the detectors, 0 … {count - 1}, got {centre!r}.")
        return cls((int(size[0]), int(size[1])), tuple(map(float, angles)), count, float(middle))

    @property
    def sinogram(self) -> tuple[int, int]:
        """(angles, detectors)"""
        return len(self.angles), self.detectors

    def around(self, centre: float) -> Geometry:
        """The same scan, with its axis of rotation elsewhere."""
        return replace(self, centre=float(centre))

    def check_sinogram(self, name: str, shape: tuple[int, ...]) -> None:
        """Raises ValueError where the last two axes are not (angles, detectors)."""
        if len(shape) < 2 or tuple(shape[-2:]) != self.sinogram:
            raise ValueError(
                f"{name} expects a sinogram (…, {len(self.angles)} angles, {self.detectors} detectors), got shape {tuple(shape)}."
            )


@lru_cache(maxsize=32)
def rays(geometry: Geometry) -> np.ndarray[Any, Any]:
    """(angles, 3) float64: t = by_column·u + by_row·v + start, the place of pixel (v, u) among the detectors, for each angle."""
    theta = np.deg2rad(geometry.angles)
    by_column, by_row = np.cos(theta), -np.sin(theta)
    height, width = geometry.size
    start = geometry.centre - by_column * (width // 2) - by_row * (height // 2)
    return np.stack([by_column, by_row, start], axis=1)
