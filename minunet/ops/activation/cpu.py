"""ReLU and leaky ReLU in Numba: elements that lie side by side in memory, in parallel chunks.

Results lie in memory as x does: channels that come last stay last. A gradient may be a slice of a wider array.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from minunet import memory
from minunet.arrays import lines
from minunet.simd import all_tasks, share

CHUNK = 32768  # elements

U = np.uintp  # an index that cannot be negative: Numba then asks nothing at each element


def relu(x: Any) -> Any:
    """max(x, 0), where NaN stays NaN"""
    return _forward(_relu, x, 0)


def relu_grad(gy: Any, y: Any) -> Any:
    """∂y where y > 0, else 0; NaN is no reason to stop it"""
    return _backward(_relu_grad, gy, y, 0)


def leaky_relu(x: Any, slope: float) -> Any:
    """x where x > 0, else slope·x; NaN stays NaN"""
    return _forward(_leaky_relu, x, slope)


def leaky_relu_grad(gy: Any, signed: Any, slope: float) -> Any:
    """∂y where `signed`, which has the sign of x, is above 0, else slope·∂y"""
    return _backward(_leaky_relu_grad, gy, signed, slope)


def _forward(kernel: Any, x: Any, number: float) -> Any:
    order, back = _order(x.strides)
    x = x.transpose(order)
    y = memory.empty(x.shape, x.dtype)
    kernel(all_tasks(), *lines(x), _width(x), x.dtype.type(number), y.reshape(-1))
    return y.transpose(back)


def _backward(kernel: Any, gy: Any, y: Any, number: float) -> Any:
    order, back = _order(y.strides)
    gy, y = gy.transpose(order), y.transpose(order)
    gx = memory.empty(y.shape, y.dtype)
    kernel(all_tasks(), *lines(gy), *lines(y), _width(y), y.dtype.type(number), gx.reshape(-1))
    return gx.transpose(back)


@lru_cache(maxsize=256)
def _order(strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes from the one with the longest strides to the one with the shortest, and those that undo the order."""
    order = sorted(range(len(strides)), key=lambda axis: -abs(strides[axis]))
    return tuple(order), tuple(map(order.index, range(len(strides))))


def _width(a: Any) -> int:
    return max(a.shape[-1], 1) if a.ndim else 1


@njit(nogil=True, cache=True)
def _relu(mine, x, step, width, zero, y):  # type: ignore[no-untyped-def]
    if step == width:  # no gaps: one long line
        step = width = CHUNK
    each = max(CHUNK // width, 1)
    height = (len(y) + width - 1) // width
    for i in share(mine, (height + each - 1) // each):
        for p in range(i * each, min((i + 1) * each, height)):
            at, to = U(p * step), U(p * width)
            for c in range(U(min(width, len(y) - p * width))):
                y[to + c] = zero if x[at + c] < zero else x[at + c]


@njit(nogil=True, cache=True)
def _relu_grad(mine, gy, gy_step, y, y_step, width, zero, gx):  # type: ignore[no-untyped-def]
    if gy_step == width and y_step == width:
        gy_step = y_step = width = CHUNK
    each = max(CHUNK // width, 1)
    height = (len(gx) + width - 1) // width
    for i in share(mine, (height + each - 1) // each):
        for p in range(i * each, min((i + 1) * each, height)):
            a, at, to = U(p * gy_step), U(p * y_step), U(p * width)
            for c in range(U(min(width, len(gx) - p * width))):
                gx[to + c] = zero if y[at + c] <= zero else gy[a + c]


@njit(nogil=True, cache=True)
def _leaky_relu(mine, x, step, width, slope, y):  # type: ignore[no-untyped-def]
    if step == width:
        step = width = CHUNK
    each = max(CHUNK // width, 1)
    height = (len(y) + width - 1) // width
    for i in share(mine, (height + each - 1) // each):
        for p in range(i * each, min((i + 1) * each, height)):
            at, to = U(p * step), U(p * width)
            for c in range(U(min(width, len(y) - p * width))):
                y[to + c] = x[at + c] if x[at + c] > 0 else slope * x[at + c]


@njit(nogil=True, cache=True)
def _leaky_relu_grad(mine, gy, gy_step, signed, signed_step, width, slope, gx):  # type: ignore[no-untyped-def]
    if gy_step == width and signed_step == width:
        gy_step = signed_step = width = CHUNK
    each = max(CHUNK // width, 1)
    height = (len(gx) + width - 1) // width
    for i in share(mine, (height + each - 1) // each):
        for p in range(i * each, min((i + 1) * each, height)):
            a, at, to = U(p * gy_step), U(p * signed_step), U(p * width)
            for c in range(U(min(width, len(gx) - p * width))):
                gx[to + c] = gy[a + c] if signed[at + c] > 0 else slope * gy[a + c]
