"""Images whose scan can be computed and whose truth is known: the Shepp-Logan head, random ellipses; angles and noise of a scan.

A phantom is a sum of ellipses. On the square [−1, 1]² (x to the right, y upwards) an ellipse of half-axes (a, b), centre (x₀, y₀) and
turn φ adds its value where

    ((x − x₀)·cosφ + (y − y₀)·sinφ)²/a² + ((y − y₀)·cosφ − (x − x₀)·sinφ)²/b² ≤ 1

A pixel on an outline has a share of it, as a detector would see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_FINE = 4  # samples of a pixel along each axis

# value, a, b, x₀, y₀, φ in degrees: Shepp & Logan, IEEE Trans. Nucl. Sci. 21:21, 1974, with the stronger contrast of Toft's thesis, 1996
_HEAD = (
    (1.0, 0.69, 0.92, 0.0, 0.0, 0.0),
    (-0.8, 0.6624, 0.8740, 0.0, -0.0184, 0.0),
    (-0.2, 0.11, 0.31, 0.22, 0.0, -18.0),
    (-0.2, 0.16, 0.41, -0.22, 0.0, 18.0),
    (0.1, 0.21, 0.25, 0.0, 0.35, 0.0),
    (0.1, 0.046, 0.046, 0.0, 0.1, 0.0),
    (0.1, 0.046, 0.046, 0.0, -0.1, 0.0),
    (0.1, 0.046, 0.023, -0.08, -0.605, 0.0),
    (0.1, 0.023, 0.023, 0.0, -0.606, 0.0),
    (0.1, 0.023, 0.046, 0.06, -0.605, 0.0),
)


def shepp_logan(size: int) -> Array:
    """The modified Shepp-Logan head, (size, size) float32 in [0, 1], as scikit-image has it."""
    return _drawn(_HEAD, size)


def ellipses(size: int, seed: int, index: int = 0) -> Array:
    """A body with ten to twenty smaller ellipses in it, (size, size) float32 in [0, 1]; the circle that all rays cross holds it.

    What is drawn depends on (seed, index) alone, and not on the size.
    """
    rng = np.random.default_rng([seed, index])
    a, b, body, turn = rng.uniform(0.6, 0.85), rng.uniform(0.6, 0.85), rng.uniform(0.3, 0.5), rng.uniform(0, 180)
    x0, y0 = rng.uniform(-0.08, 0.08, 2)
    cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    drawn = [(body, a, b, x0, y0, turn)]
    for _ in range(rng.integers(10, 21)):
        distance, direction = 0.6 * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        longer, rounder = rng.uniform(0.04, 0.25), rng.uniform(0.4, 1)
        u, v = distance * a * np.cos(direction), distance * b * np.sin(direction)  # along the body's axes
        place = x0 + u * cos - v * sin, y0 + u * sin + v * cos
        drawn.append((rng.uniform(-0.3, 0.3), longer, longer * rounder, *place, rng.uniform(0, 180)))
    return np.clip(_drawn(drawn, size), 0, 1)


def _drawn(ellipses: Sequence[Sequence[float]], size: int) -> Array:
    if size < 1:
        raise ValueError(f"a phantom has at least 1 pixel along a side, got {size}.")
    fine = size * _FINE
    middle = (
        2 * np.arange(fine) + 1
    ) / fine - 1  # of each sample, in [−1, 1]; pixel ⌊size/2⌋ lies on the axis of rotation up to half a pixel
    x, y = middle[None, :], -middle[:, None]
    total = np.zeros((fine, fine), np.float32)
    for value, a, b, x0, y0, turn in ellipses:
        cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
        along, across = (x - x0) * cos + (y - y0) * sin, (y - y0) * cos - (x - x0) * sin
        total[(along / a) ** 2 + (across / b) ** 2 <= 1] += np.float32(value)
    return total.reshape(size, _FINE, size, _FINE).mean(axis=(1, 3))


def tilts(count: int, wedge: float = 0.0) -> Array:
    """The angles of a scan in degrees: `count` steps from −90° on, evenly over 180°, without those that fall into the missing wedge.

    wedge: how many degrees around ±90° no ray comes from: 60 leaves tilts from −60° to 60°, as in an electron microscope.
    """
    if count < 1:
        raise ValueError(f"a scan has at least 1 angle, got {count}.")
    if not 0 <= wedge < 180:
        raise ValueError(f"the missing wedge has 0° or more and less than 180°, got {wedge:g}°.")
    angles = -90 + 180 * np.arange(count) / count
    kept = angles[np.abs(angles) <= 90 - wedge / 2 + 1e-9]
    if not kept.size:
        raise ValueError(f"a wedge of {wedge:g}° leaves none of {count} angles: use more angles or a smaller wedge.")
    return kept


def noisy(sinogram: Array, level: float, seed: int | Sequence[int]) -> Array:
    """The sinogram (…, angles, detectors) with white Gaussian noise whose norm is `level` times the sinogram's (0.02: 2 %), each alone.

    This relative level is that of Hansen & Jørgensen, AIR Tools II, Numer. Algorithms 79:107, 2018.
    """
    if not level >= 0:
        raise ValueError(f"the noise level is 0 or more, such as 0.02 for 2 %; got {level:g}.")
    deviation = level * np.sqrt(np.mean(np.square(sinogram, dtype=np.float64), axis=(-2, -1), keepdims=True))
    drawn = np.random.default_rng(seed).standard_normal(sinogram.shape)
    return (sinogram + deviation * drawn).astype(sinogram.dtype)
