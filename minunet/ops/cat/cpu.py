"""Concatenation of channels with Numba: each input is copied into its channels of every pixel, in parallel over rows of pixels."""

from __future__ import annotations

from typing import Any

from numba import njit

from minunet import memory
from minunet.arrays import channels_first, in_place, is_float
from minunet.ops.cat import ref
from minunet.simd import all_tasks, make_rows, share


def concatenate(*arrays: Any, axis: int) -> Any:
    first = arrays[0]
    if axis != 1 or not 3 <= first.ndim <= 5 or not all(a.dtype == first.dtype and is_float(a) and _channels_touch(a) for a in arrays):
        return ref.concatenate(*arrays, axis=axis)  # which keeps any other order in memory
    sizes, total = first.shape[2:], sum(a.shape[1] for a in arrays)
    y = memory.empty((first.shape[0], *sizes, total), first.dtype)
    rows, start = (first.shape[0], *(1,) * (3 - len(sizes)), *sizes), 0
    for a in arrays:
        _copy(all_tasks(), *in_place(a), a.shape[1], rows, y.reshape(-1), total, start)
        start += a.shape[1]
    return channels_first(y)


def _channels_touch(array: Any) -> bool:
    return array.shape[1] == 1 or array.strides[1] == array.itemsize


_copy_rows = make_rows(lambda emit, x, k, floor: x, inputs=1, constants=0)


@njit(nogil=True, cache=True)
def _copy(mine, x, steps, channels, rows, y, total, start):  # type: ignore[no-untyped-def]
    """Channels start … start + channels − 1 of y = x, pixel by pixel."""
    samples, depth, height, width = rows
    zero = x.dtype.type(0)
    for row in share(mine, samples * depth * height):
        n, d, h = row // (depth * height), row // height % depth, row % height
        source = x.ctypes.data + (n * steps[0] + d * steps[1] + h * steps[2]) * x.itemsize
        target = y.ctypes.data + (row * width * total + start) * x.itemsize
        _copy_rows((source,), (steps[3],), target, total, width, channels, 0, 0, zero)
