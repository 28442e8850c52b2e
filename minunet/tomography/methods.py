"""The ways from a sinogram to an image, by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet.ops.radon.geometry import Geometry
from minunet.tomography.fbp import fbp
from minunet.tomography.fista_tv import fista_tv
from minunet.tomography.sirt import Watch, sirt

Array = np.ndarray[Any, Any]

ITERATIONS = {"fbp": 1, "sirt": 100, "fista-tv": 100}


def reconstruct(sinogram: Array, geometry: Geometry, method: str, iterations: int | None = None, watch: Watch | None = None) -> Array:
    """Sinograms (…, angles, detectors) → images (…, H, W) by 'fbp' (with a Hann window), 'sirt' or 'fista-tv' (neither negative).

    iterations: 100 where None. watch: called after each with its number and the image.
    """
    check_method(method, iterations)
    count = iterations or ITERATIONS[method]
    if method == "fbp":
        return fbp(sinogram, geometry, filter="hann")
    if method == "sirt":
        return sirt(sinogram, geometry, iterations=count, nonnegative=True, watch=watch)
    return fista_tv(sinogram, geometry, iterations=count, watch=watch)


def check_method(method: str, iterations: int | None = None) -> None:
    """Raises ValueError where there is no such method, or where it takes no iterations."""
    if method not in ITERATIONS:
        raise ValueError(f"the method is one of {', '.join(ITERATIONS)} or network; got {method!r}.")
    if iterations is not None and (iterations < 1 or method == "fbp"):
        raise ValueError(
            "filtered back-projection has no iterations: leave them out, or choose sirt or fista-tv."
            if method == "fbp"
            else f"{method} takes at least 1 iteration, got {iterations}."
        )
