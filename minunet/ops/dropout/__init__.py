"""Dropout: y = x·k/(1−p), every k 1 with probability 1−p, else 0    ∂x = ∂y·k/(1−p)

The division keeps the mean, so that nothing changes when it is switched off. `dropout` draws k for every element, `dropout1d/2d/3d`
for every channel of every sample, whole maps.

The mask comes from a Philox generator of its own, whose 64-bit key is the one number drawn from the common stream: the mask
depends on the seed and the shape alone, not on device, kernels, threads or memory order, and how much a call draws does not depend
on its size. `ref.py` says which number decides about which element. The mask is kept for the backward, a byte for each k.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet import rng
from minunet.arrays import is_float
from minunet.autograd import Function
from minunet.cuda import varying
from minunet.kernels import Kernels
from minunet.ops.activation import refuse_inplace
from minunet.shapes import sizes_text
from minunet.tensor import Tensor

K = Kernels(__name__, "draw", "scale")


class Dropout(Function):
    """y = x·k/(1−p)    ∂x = ∂y·k/(1−p)

    mask_shape: of k, the input's or one that broadcasts to it.
    """

    def forward(ctx, x: Any, *, p: float, mask_shape: tuple[int, ...]) -> Any:
        kept = K.draw(x, mask_shape, varying(_key(), _key, x), p)
        ctx.factor = 1 / (1 - p) if p < 1 else 0.0
        ctx.save(kept)
        return K.scale(x, kept, ctx.factor)

    def backward(ctx, gy: Any) -> Any:
        (kept,) = ctx.saved
        return K.scale(gy, kept, ctx.factor)


def _key() -> np.ndarray[Any, Any]:
    """One number of the common stream, as two words: the lower, the higher."""
    high, low = divmod(int(rng.generator().integers(2**64, dtype=np.uint64)), 1 << 32)
    return np.array([low, high], np.uint32)


def _dropout(name: str, input: Tensor, p: float, training: bool, inplace: bool, mask_shape: tuple[int, ...]) -> Tensor:
    refuse_inplace(name, inplace)
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: p is the probability of dropping, between 0 and 1; got {p}.")
    if not training or p == 0:
        return input
    if not is_float(input.data):
        raise TypeError(f"{name} needs floating-point numbers, got {input.dtype}. Convert with .astype('float32').")
    return Dropout.apply(input, p=p, mask_shape=mask_shape)


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
