"""Filtered back-projection.

    x = π/(2·K) · Σ_θ q(θ, t)        q(θ, ·) = 2·h ∗ y(θ, ·)        t: where the pixel is seen, see `minunet.ops.radon`

K is the number of angles. The ramp h[0] = 1/4, h[n] = −1/(πn)² for odd n, else 0, has the frequency response |f|, f in cycles a pixel.
Sampled in space like this, and not as |f|, its mean is right (Kak & Slaney, Principles of Computerized Tomographic Imaging, 1988, eq. 61
of chapter 3). Windows fall from 1 at f = 0: noise lies at high f. The sum over θ stands for an integral over half a turn: where angles are
missing, what they would have added is missing, and values are too high by 180°/covered in what is left.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import fft

from minunet.ops.radon import back_project_array
from minunet.ops.radon.geometry import Geometry

Array = np.ndarray[Any, Any]

FILTERS = ("ramp", "shepp-logan", "cosine", "hamming", "hann")


def ramp(size: int, name: str = "ramp") -> Array:
    """The frequency response 2·|f|·window(f) at the places of `numpy.fft.rfftfreq(size)`; size even."""
    if name not in FILTERS:
        raise ValueError(f"the filter is one of {', '.join(FILTERS)}; got {name!r}.")
    h = np.zeros(size)
    h[0] = 1 / 4
    odd = np.arange(1, size, 2)
    h[odd] = -1 / (np.pi * np.minimum(odd, size - odd)) ** 2  # n and size − n are ±n
    f = fft.rfftfreq(size)
    window = {
        "ramp": np.ones_like(f),
        "shepp-logan": np.sinc(f),
        "cosine": np.cos(np.pi * f),
        "hamming": 0.54 + 0.46 * np.cos(2 * np.pi * f),
        "hann": 0.5 + 0.5 * np.cos(2 * np.pi * f),
    }[name]
    return 2 * fft.rfft(h).real * window


def fbp(sinogram: Array, geometry: Geometry, *, filter: str = "ramp") -> Array:
    """Sinograms (…, angles, detectors) → images (…, H, W), of the sinogram's dtype. The angles stand evenly over half a turn.

    filter: 'ramp', or the ramp times a window: 'shepp-logan', 'cosine', 'hamming', 'hann', from sharp to smooth.
    A line is padded with zeros to twice its length, so that its ends do not meet in the Fourier transform.
    """
    geometry.check_sinogram("fbp", sinogram.shape)
    size = max(64, 2 ** int(np.ceil(np.log2(2 * geometry.detectors))))
    response = ramp(size, filter).astype(sinogram.dtype)
    filtered = fft.irfft(fft.rfft(sinogram, size, axis=-1) * response, size, axis=-1)[..., : geometry.detectors]
    return back_project_array(filtered.astype(sinogram.dtype), geometry, linear=True) * sinogram.dtype.type(
        np.pi / (2 * len(geometry.angles))
    )
