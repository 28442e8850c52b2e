"""Filters in the frequency domain: each frequency of an image times a factor of its own.

y = Re F⁻¹(g·F x), F the discrete Fourier transform over the spatial axes, g real. In images that is a circular convolution.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet.arrays import array_module
from minunet.autograd import Function
from minunet.shapes import sizes_text
from minunet.tensor import Tensor


class FourierFilter(Function):
    """y = Re F⁻¹(g·F x)    ∂x = Re F⁻¹(g·F ∂y)

    The same filter both ways: F⁻¹·g·F is Hermitian for a real g, so its real part is symmetric.
    """

    def forward(ctx, x: Any, gain: Any) -> Any:
        ctx.save(gain)
        return _filtered(x, gain)

    def backward(ctx, gy: Any) -> Any:
        (gain,) = ctx.saved
        return _filtered(gy, gain), None


def _filtered(x: Any, gain: Any) -> Any:
    return filtered(x, gain, 2).astype(x.dtype)


def filtered(x: Any, gain: Any, first: int) -> Any:
    """Re F⁻¹(g·F x) of an array over its axes from `first` on."""
    if x.size == 0:
        return x  # CuPy transforms no empty array
    xp, axes = array_module(x), tuple(range(first, x.ndim))
    return xp.real(xp.fft.ifftn(gain * xp.fft.fftn(x, axes=axes), axes=axes))


def fourier_filter(input: Tensor, gain: Tensor) -> Tensor:
    """Multiplies the frequencies of input (N, C, *spatial) by `gain` and returns the real part.

    gain: real, broadcast against the input; its spatial axes are in the order of numpy.fft, frequency 0 first. It is no parameter: it
    gets no gradient.
    """
    spatial = input.shape[2:]
    try:
        fits = np.broadcast_shapes(input.shape, gain.shape) == input.shape and gain.shape[-len(spatial) :] == spatial
    except ValueError:
        fits = False
    if input.ndim < 3 or not fits:
        raise ValueError(
            f"fourier_filter: for an input (N, C, *spatial) of {sizes_text(input.shape) or '(scalar)'} the gain has a factor for each "
            f"frequency, {sizes_text(spatial) or 'one axis or more'}; got {sizes_text(gain.shape) or 'a scalar'}."
        )
    return FourierFilter.apply(input, gain.detach())
