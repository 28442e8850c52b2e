"""SIRT, the simultaneous iterative reconstruction technique.

    x ← x + C Aᵀ R (b − A x)        R = 1/(row sums of A)        C = 1/(column sums of A)

b is the sinogram, A the Radon transform. R turns the sum along a ray into a mean, C the sum over a pixel's rays into a mean. So each step
adds to a pixel the mean of what its rays miss. It descends on ‖b − A x‖², weighted by R, and needs no step size, because no eigenvalue of
C Aᵀ R A exceeds 1 (Gregor & Benson, IEEE Trans. Med. Imaging 27:918, 2008). Noise comes back last: to stop early is to smooth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minunet.ops.radon import back_project_array, project
from minunet.ops.radon.geometry import Geometry

Array = np.ndarray[Any, Any]
Watch = Callable[[int, Array], None]  # called after each iteration with its number, from 1, and the image


class Update:
    """The step x → x + C Aᵀ R (b − A x) of sinograms b (…, angles, detectors) on images x (…, H, W)."""

    def __init__(self, sinogram: Array, geometry: Geometry) -> None:
        geometry.check_sinogram("SIRT", sinogram.shape)
        if not np.isfinite(sinogram).all():
            raise ValueError("SIRT: the sinogram holds NaN or infinite values: repair or leave out those angles.")
        self.sinogram, self.geometry = sinogram, geometry
        self.rows = _inverse(project(np.ones(geometry.size, sinogram.dtype), geometry))
        self.columns = _inverse(back_project_array(np.ones(geometry.sinogram, sinogram.dtype), geometry))

    def start(self) -> Array:
        """Images of zeros."""
        return np.zeros((*self.sinogram.shape[:-2], *self.geometry.size), self.sinogram.dtype)

    def __call__(self, x: Array) -> Array:
        missed = (self.sinogram - project(x, self.geometry)) * self.rows
        return x + self.columns * back_project_array(missed, self.geometry)


def sirt(sinogram: Array, geometry: Geometry, *, iterations: int = 100, nonnegative: bool = False, watch: Watch | None = None) -> Array:
    """Sinograms (…, angles, detectors) → images (…, H, W), of the sinogram's dtype, from an image of zeros.

    nonnegative: after each step negative pixels become 0, as absorption cannot be negative. watch: called after each iteration.
    """
    if iterations < 1:
        raise ValueError(f"SIRT takes at least 1 iteration, got {iterations}.")
    update = Update(sinogram, geometry)
    x = update.start()
    for number in range(1, iterations + 1):
        x = update(x)
        if nonnegative:
            np.maximum(x, 0, out=x)
        if watch is not None:
            watch(number, x)
    return x


def _inverse(sums: Array) -> Array:
    """1/sums; 0 for a ray that meets no pixel and for a pixel that no ray meets."""
    least = 1e-6 * sums.max()
    return np.where(sums > least, 1 / np.maximum(sums, max(least, np.finfo(sums.dtype).tiny)), 0).astype(sums.dtype)
