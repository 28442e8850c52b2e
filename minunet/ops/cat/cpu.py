"""Concatenation of channels with Numba: each input is copied into its channels of every pixel, in parallel over rows of pixels."""

from __future__ import annotations

from typing import Any

from numba import njit, prange, uint64

from minunet import memory
from minunet.arrays import as_volume, channels_first, in_place, is_float
from minunet.ops.cat import ref


def concatenate(*arrays: Any, axis: int) -> Any:
    first = arrays[0]
    if axis != 1 or not 3 <= first.ndim <= 5 or not all(a.dtype == first.dtype and is_float(a) and _channels_touch(a) for a in arrays):
        return ref.concatenate(*arrays, axis=axis)  # which keeps any other order in memory
    y = memory.empty((first.shape[0], *first.shape[2:], sum(a.shape[1] for a in arrays)), first.dtype)
    start = 0
    for a in arrays:
        _copy(*in_place(a), a.shape[1], as_volume(y), start, first.dtype.type(1))
        start += a.shape[1]
    return channels_first(y)


def _channels_touch(array: Any) -> bool:
    return array.shape[1] == 1 or array.strides[1] == array.itemsize


@njit(parallel=True, nogil=True, cache=True)
def _copy(x, steps, channels, y, start, one):  # type: ignore[no-untyped-def]
    """Channels start … start + channels − 1 of y = x. Times 1, else LLVM calls memcpy for each pixel, which takes longer than the copy."""
    samples, depth, height, width, total = y.shape
    result = y.reshape(-1)
    for row in prange(samples * depth * height):
        n, d, h = row // (depth * height), row // height % depth, row % height
        for w in range(width):
            source, target = n * steps[0] + d * steps[1] + h * steps[2] + w * steps[3], (row * width + w) * total + start
            for c in range(channels):
                result[uint64(target + c)] = x[uint64(source + c)] * one
