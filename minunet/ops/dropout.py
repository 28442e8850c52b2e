"""Dropout: y = x·k/(1−p), every k 1 with probability 1−p, else 0    ∂x = ∂y·k/(1−p)

The division keeps the mean, so that nothing changes when it is switched off. `dropout` draws k for every element, `dropout1d/2d/3d`
for every channel of every sample, whole maps.

The mask comes from a Philox generator of its own, whose 64-bit key is the one number drawn from the common stream: the mask
depends on the seed and the shape alone, not on device, kernels or memory order, and how much a call draws does not depend on its size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet import rng
from minunet.arrays import channels_first, device_of, to_device
from minunet.autograd import Function
from minunet.ops.activation import refuse_inplace
from minunet.shapes import sizes_text
from minunet.tensor import Tensor


class Dropout(Function):
    """kept: k as booleans, of a shape that broadcasts to x's."""

    def forward(ctx, x: Any, *, kept: Any, p: float) -> Any:
        ctx.scale = 1 / (1 - p) if p < 1 else 0.0
        ctx.save(kept)
        y = x * kept
        y *= ctx.scale
        return y

    def backward(ctx, gy: Any) -> Any:
        (kept,) = ctx.saved
        gx = gy * kept
        gx *= ctx.scale
        return gx


def _draw(shape: tuple[int, ...], p: float) -> Any:
    """Booleans, True with probability 1 − p, laid out in memory with axis 1 (the channels) last, as activations are."""
    key = rng.generator().integers(2**64, dtype=np.uint64)
    private = np.random.Generator(np.random.Philox(key=key))
    if len(shape) < 3:
        return private.random(shape, dtype=np.float32) >= p
    return channels_first(private.random((shape[0], *shape[2:], shape[1]), dtype=np.float32) >= p)


def _dropout(name: str, input: Tensor, p: float, training: bool, inplace: bool, mask_shape: tuple[int, ...]) -> Tensor:
    refuse_inplace(name, inplace)
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: p is the probability of dropping, between 0 and 1; got {p}.")
    if not training or p == 0:
        return input
    return Dropout.apply(input, kept=to_device(_draw(mask_shape, p), device_of(input.data)), p=p)


def _channel_dropout(input: Tensor, p: float, training: bool, inplace: bool, rank: int, layout: str) -> Tensor:
    name = f"dropout{rank}d"
    if input.ndim not in (rank + 1, rank + 2):
        raise ValueError(
            f"{name} drops whole channels of input (N, C, {layout}) or (C, {layout}); got {input.ndim} axes: "
            f"{sizes_text(input.shape) or 'a scalar'}. To drop single elements use dropout."
        )
    return _dropout(name, input, p, training, inplace, (*input.shape[:-rank], *(1,) * rank))


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zeroes each element with probability p and divides the others by 1 − p; nothing where training is False."""
    return _dropout("dropout", input, p, training, inplace, input.shape)


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zeroes whole channels of (N, C, L) or (C, L) with probability p and divides the others by 1 − p."""
    return _channel_dropout(input, p, training, inplace, 1, "L")


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zeroes whole channels of (N, C, H, W) or (C, H, W) with probability p and divides the others by 1 − p."""
    return _channel_dropout(input, p, training, inplace, 2, "H, W")


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zeroes whole channels of (N, C, D, H, W) or (C, D, H, W) with probability p and divides the others by 1 − p."""
    return _channel_dropout(input, p, training, inplace, 3, "D, H, W")
