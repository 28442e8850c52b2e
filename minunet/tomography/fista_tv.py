"""SIRT-FISTA-TV: SIRT, total variation and momentum in turn.

    z     = s + C Aᵀ R (b − A s)                              SIRT, from the point s; then, if asked for, z ← max(z, 0)
    xₖ    = z, moved down the total variation a few times: x ← x − λ·∇TV(x)
    tₖ₊₁  = (1 + √(1 + 4tₖ²))/2                              t₁ = 1
    s     = xₖ + (tₖ − 1)/tₖ₊₁ · (xₖ − xₖ₋₁)                 momentum

    TV(x) = Σ √(|∇x|² + ε²)        ∇x: differences to the next pixel in a row and in a column, 0 at the border

∇TV changes by at most 8/ε from one image to another a distance of 1 away, so descents of λ ≤ ε/8 never climb.
A small total variation means flat regions with sharp borders. Noise and the streaks of missing angles have a large one. Banjak, Grenier,
Epicier, Koneti, Roiban, Gay, Magnin, Peyrin & Maxim, Ultramicroscopy 189:109, 2018; the momentum is that of Beck & Teboulle's FISTA,
SIAM J. Imaging Sciences 2:183, 2009.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet.ops.radon.geometry import Geometry
from minunet.tomography.sirt import Update, Watch

Array = np.ndarray[Any, Any]

_SMOOTH = 0.01  # ε, as a share of the image's scale: the edges that are kept are higher


def fista_tv(
    sinogram: Array,
    geometry: Geometry,
    *,
    iterations: int = 100,
    strength: float = 0.003,
    nonnegative: bool = True,
    watch: Watch | None = None,
) -> Array:
    """Sinograms (…, angles, detectors) → images (…, H, W), of the sinogram's dtype, from an image of zeros.

    strength: the sum of λ over the descents of one iteration, as a share of the image's scale, which is the largest value after the first
    SIRT step; more is flatter, 0 is SIRT with momentum. watch: called after each iteration.
    """
    if iterations < 1:
        raise ValueError(f"SIRT-FISTA-TV takes at least 1 iteration, got {iterations}.")
    if not strength >= 0:
        raise ValueError(f"SIRT-FISTA-TV: strength is 0 or more, got {strength:g}.")
    update = Update(sinogram, geometry)
    before = s = update.start()
    descents = int(np.ceil(strength / (_SMOOTH / 8)))
    t, scale = 1.0, np.zeros(1)
    for number in range(1, iterations + 1):
        x = update(s)
        if number == 1:
            scale = np.abs(x).max(axis=(-2, -1), keepdims=True)
        if nonnegative:
            np.maximum(x, 0, out=x)
        for _ in range(descents):
            x -= (strength / descents) * scale * tv_gradient(x, _SMOOTH * scale)
        t_next = (1 + np.sqrt(1 + 4 * t * t)) / 2
        s = x + x.dtype.type((t - 1) / t_next) * (x - before)
        before, t = x, t_next
        if watch is not None:
            watch(number, x)
    return before


def total_variation(x: Array, epsilon: Any = 0.0) -> Array:
    """TV(x) = Σ √(|∇x|² + ε²) of images (…, H, W), one number each."""
    down, right = _differences(x)
    return np.sqrt(down**2 + right**2 + epsilon**2).sum(axis=(-2, -1))


def tv_gradient(x: Array, epsilon: Any) -> Array:
    """∂TV/∂x of images (…, H, W): minus the divergence of ∇x/√(|∇x|² + ε²). ε > 0."""
    down, right = _differences(x)
    length = np.sqrt(down**2 + right**2 + np.maximum(np.asarray(epsilon, x.dtype) ** 2, np.finfo(x.dtype).tiny))
    down /= length
    right /= length
    gradient = -down - right
    gradient[..., 1:, :] += down[..., :-1, :]
    gradient[..., 1:] += right[..., :-1]
    return gradient


def _differences(x: Array) -> tuple[Array, Array]:
    """To the next row, and to the next column; 0 in the last."""
    down, right = np.zeros_like(x), np.zeros_like(x)
    down[..., :-1, :] = x[..., 1:, :] - x[..., :-1, :]
    right[..., :-1] = x[..., 1:] - x[..., :-1]
    return down, right
