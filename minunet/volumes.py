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


def empty_channels_last(like: Any, samples: int, channels: int, spatial: tuple[int, ...]) -> Any:
    """An array (N, C, *spatial) of undefined content and of the dtype of `like`, channels last in memory."""
    return channels_first(array_module(like).empty((samples, *spatial, channels), dtype=like.dtype))


def empty(like: Any, spatial: tuple[int, ...], dtype: Any) -> Any:
    """An array (N, C, *spatial) of undefined content, in the order of `like` (N, C, …)."""
    samples, channels = like.shape[:2]
    if is_channels_last(like):
        return channels_first(array_module(like).empty((samples, *spatial, channels), dtype=dtype))
    return array_module(like).empty((samples, channels, *spatial), dtype=dtype)


def memory_order(array: Any) -> tuple[int, ...]:
    """The axes, from the one whose elements are farthest apart in memory to the one whose elements lie side by side.

    `array.transpose(memory_order(array))` is read from its first byte to its last. CuPy's own kernels count their threads in the order
    of the axes, whatever the strides are.
    """
    return tuple(sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis])))


def back_from(order: tuple[int, ...]) -> tuple[int, ...]:
    """The axes that undo `transpose(order)`."""
    return tuple(order.index(axis) for axis in range(len(order)))
