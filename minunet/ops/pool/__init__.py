"""Max and average pooling over sliding windows, for any number of spatial axes.

p (output position), i (input position), k (place in the window) are index vectors, one component for each spatial axis;
s is the stride, d the dilation, b the padding before the input. Places outside the input are left out: −∞ for the maximum,
0 for the sum.

max       y[n,c,p] = max_k x[n,c, s·p + d·k − b]
          ∂x[n,c,i] = Σ_{p,k: s·p + d·k − b = i} ∂y[n,c,p] · [k = k*(n,c,p)]
          k* is the first place, in row-major order, that attains the maximum. A NaN is greater than any number.
average   y[n,c,p] = 1/m[p] · Σ_k x[n,c, s·p + k − b]
          ∂x[n,c,i] = Σ_{p,k: s·p + k − b = i} ∂y[n,c,p] / m[p]
          m[p] is the number of elements in window p: with padding (PyTorch's default) or without (Keras).

Shapes: (N, C, *spatial) → (N, C, *outputs), outputs as in `minunet.shapes`. Dumoulin & Visin 2016, chapter 1.3 and 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet.arrays import array_module, is_float
from minunet.autograd import Function
from minunet.kernels import Kernels
from minunet.ops.pool.windows import Windows, average_tables
from minunet.ops.shape import squeeze, unsqueeze
from minunet.ops.upsample import Resample
from minunet.shapes import check_rank
from minunet.tensor import Tensor

K = Kernels(__name__, "max_forward", "max_backward")


class MaxPool(Function):
    """y[n,c,p] = max_k x[n,c,s·p+d·k−b]    ∂x: each ∂y[n,c,p] goes to the element that won"""

    def forward(ctx, x: Any, *, windows: Windows, return_indices: bool) -> Any:
        y, winners = K.max_forward(x, windows)
        ctx.windows = windows
        ctx.save(winners)
        return (y, flat_indices(winners, windows)) if return_indices else y

    def backward(ctx, gy: Any) -> Any:
        (winners,) = ctx.saved
        return K.max_backward(gy, winners, ctx.windows)


class AveragePool(Resample):
    """y[n,c,p] = Σ_k x[n,c,s·p+k−b] / m[p]    ∂x: each ∂y[n,c,p]/m[p] goes to all elements of its window

    A window is one window on each axis, and m is a product of sizes: this is resampling with the tables of `average_tables`.
    """


def flat_indices(winners: Any, windows: Windows) -> Any:
    """The winners' places k in the window, counted row-major → their positions in the input, counted row-major over the spatial axes."""
    xp = array_module(winners)
    flat = xp.zeros(winners.shape, dtype=np.int64)
    places = xp.unravel_index(xp.maximum(winners, 0).astype(np.int64), windows.kernel)
    for axis, (place, n, s, d, b) in enumerate(
        zip(places, windows.spatial, windows.stride, windows.dilation, windows.before, strict=True), start=2
    ):
        p = xp.arange(winners.shape[axis]).reshape(-1, *(1,) * (winners.ndim - axis - 1))
        flat = flat * n + (s * p + d * place - b)
    return xp.where(winners < 0, -1, flat)


def _apply(name: str, function: type[Function], rank: int, x: Tensor, **options: Any) -> Any:
    """The function on (N, C, *spatial), or on (C, *spatial) as a batch of one."""
    if x.ndim == rank + 2:
        return function.apply(x, **options)
    result = function.apply(unsqueeze(x, 0), **options)
    return tuple(squeeze(r, 0) for r in result) if isinstance(result, tuple) else squeeze(result, 0)


def _spatial(name: str, rank: int, x: Tensor) -> tuple[int, ...]:
    if x.ndim != rank + 1:
        axes = ("L", "H, W", "D, H, W")[rank - 1]
        check_rank(name, x.shape, rank + 2, f"(N, C, {axes}) or (C, {axes})")
    return x.shape[-rank:]


def _max_pool(
    name: str, rank: int, x: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, return_indices: bool
) -> Any:
    windows = Windows.over(name, _spatial(name, rank, x), kernel_size, stride, padding, dilation, ceil_mode)
    return _apply(name, MaxPool, rank, x, windows=windows, return_indices=return_indices)


def _avg_pool(
    name: str,
    rank: int,
    x: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None = None,
) -> Tensor:
    if not is_float(x.data):
        raise TypeError(f"{name} needs floating-point numbers, got {x.dtype}. Convert with .astype('float32').")
    if divisor_override == 0:
        raise ValueError(f"{name}: divisor_override divides the sum of each window, it must not be 0.")
    windows = Windows.over(name, _spatial(name, rank, x), kernel_size, stride, padding, 1, ceil_mode)
    return _apply(name, AveragePool, rank, x, tables=average_tables(windows, count_include_pad and padding != "same", divisor_override))


def max_pool1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window: (N, C, L) or (C, L) → (N, C, L') or (C, L').

    kernel_size, dilation: the window. stride: its step, None for kernel_size (windows side by side).
    padding: an int or a tuple, on both sides, at most half of kernel_size; or Keras' 'same' or 'valid'. Padding never wins.
    ceil_mode: also windows that hang over the end. return_indices: also each winner's position, counted row-major
    over the input's spatial axes (−1 where a dilated window misses the input).
    """
    return _max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window: (N, C, H, W) → (N, C, H', W'). The arguments are `max_pool1d`'s, for each axis."""
    return _max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window: (N, C, D, H, W) → (N, C, D', H', W'). The arguments are `max_pool1d`'s, for each axis."""
    return _max_pool("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def avg_pool1d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True
) -> Tensor:
    """The mean of each window: (N, C, L) or (C, L) → (N, C, L') or (C, L').

    kernel_size, stride, padding, ceil_mode: as in `max_pool1d`. count_include_pad: whether padding counts in the mean, as zeros;
    with padding='same' it never does, as in Keras.
    """
    return _avg_pool("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window: (N, C, H, W) → (N, C, H', W'). The arguments are `avg_pool1d`'s, for each axis.

    divisor_override: divides the sum of each window instead of the number of its elements.
    """
    return _avg_pool("avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window: (N, C, D, H, W) → (N, C, D', H', W'). The arguments are `avg_pool2d`'s, for each axis."""
    return _avg_pool("avg_pool3d", 3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
