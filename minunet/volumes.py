"""Volumes for the GPU's kernels, and the order of their elements in memory.

A thread that makes the element next to its neighbour's reads and writes at once with it. So a result lies as its input does, channels
last or channels first, and the threads are counted in that order: `volumes.cuh` turns a thread's number into an element.
"""

from __future__ import annotations

from typing import Any

from minunet.arrays import array_module, channels_first


def volume(array: Any) -> Any:
    """(N, C, *spatial) of rank 1, 2 or 3 → the view (N, C, D, H, W), where absent axes have size 1. None stays None."""
    return None if array is None else array[(slice(None), slice(None), *(None,) * (5 - array.ndim))]


def three(values: tuple[int, ...], absent: int = 1) -> tuple[int, ...]:
    """A number for each spatial axis → one for each of D, H, W."""
    return (absent,) * (3 - len(values)) + tuple(values)


def is_channels_last(array: Any) -> bool:
    """Whether the next number in the memory of (N, C, *spatial) is the same pixel's, in the next channel."""
    between_pixels = [abs(step) for step, n in zip(array.strides[2:], array.shape[2:], strict=True) if n > 1]
    return array.shape[1] > 1 and bool(between_pixels) and abs(array.strides[1]) < min(between_pixels)


def is_wide(*arrays: Any) -> bool:
    """Whether a thread may take the channels of (N, C, *spatial) in pieces of 16 bytes of the first array, `WIDE` in volumes.cuh.

    In each array a pixel's channels lie side by side, and a piece begins where one instruction can read it: at a multiple of its size.
    """
    count = 16 // arrays[0].itemsize
    for a in arrays:
        piece = count * a.itemsize
        steps = [step for axis, (step, n) in enumerate(zip(a.strides, a.shape, strict=True)) if axis != 1 and n > 1]
        if a.shape[1] % count or a.strides[1] != a.itemsize or any(step % piece for step in (a.data.ptr, *steps)):
            return False
    return True


def empty_channels_last(like: Any, samples: int, channels: int, spatial: tuple[int, ...]) -> Any:
    """An array (N, C, *spatial) of undefined content and of the dtype of `like`, channels last in memory."""
    return channels_first(array_module(like).empty((samples, *spatial, channels), dtype=like.dtype))


def empty(like: Any, spatial: tuple[int, ...], dtype: Any) -> Any:
    """An array (N, C, *spatial) of undefined content, in the order of `like` (N, C, …)."""
    samples, channels = like.shape[:2]
    if is_channels_last(like):
        return channels_first(array_module(like).empty((samples, *spatial, channels), dtype=dtype))
    return array_module(like).empty((samples, channels, *spatial), dtype=dtype)
