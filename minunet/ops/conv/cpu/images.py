"""How a kernel sees an image: the address of its first number and the strides of a channels-last volume.

A channel slice of a wider buffer, such as one half of a concatenation, is an image like any other: its pixels only lie further apart.
With addresses instead of arrays a kernel is compiled once, whatever the strides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from minunet import memory
from minunet.arrays import address, as_volume
from minunet.simd import VECTOR_BYTES, all_tasks, make_transform, peek, poke, share

Image = tuple[int, int, int, int, int]  # address; strides of n, d, h, w in elements; the channels lie side by side


def as_image(x: Any) -> tuple[Any, Image]:
    """(N, C, *spatial) → the (N, D, H, W, C) view and how to walk it. Copies only where the channels do not lie side by side."""
    return padded(x, None, ())


def walk(volume: Any) -> Image:
    """The address and the strides of an (N, D, H, W, C) array."""
    size, (n, d, h, w, _) = volume.itemsize, volume.strides
    return address(volume), n // size, d // size, h // size, w // size


def as_triple(numbers: Any, fill: Any) -> tuple[Any, ...]:
    """One entry for each spatial axis → entries for D, H, W."""
    return (fill,) * (3 - len(numbers)) + tuple(numbers)


_ONE = [[1.0]]  # the transform that changes nothing moves a vector
move, gated_move = make_transform(_ONE), make_transform(_ONE, gated=True)


def padded(x: Any, gate: Any, margins: Any) -> tuple[Any, Image]:
    """(N, C, *spatial) with (before, after) zeros around each axis → the (N, D, H, W, C) volume and how to walk it.

    A negative margin crops. Only where gate > 0 does x count. Copies only where something must change.
    """
    last = as_last(x)
    steps = _strides(last)
    if gate is None and steps[5] == 1 and not any(any(pair) for pair in margins):
        return last, steps[:5]
    held = last if gate is None else as_last(gate)  # if it is a copy, it must live until `_pad` has read it
    pairs = as_triple(margins, (0, 0))
    sizes = (n + before + after for n, (before, after) in zip(last.shape[1:4], pairs, strict=True))
    image = memory.scratch((last.shape[0], *sizes, last.shape[4]), x.dtype)
    before = tuple(pair[0] for pair in pairs)
    _pad(all_tasks(), steps, steps if gate is None else _strides(held), gate is not None, last.shape, before, image, x.dtype.type(0))
    return image, walk(image)


def padded_planes(x: Any, margins: Any) -> tuple[Any, Image, int]:
    """As `padded`, for contiguous x, whose channels stay as they are, one plane behind the other; and the steps from plane to plane."""
    n, channels, *spatial = x.shape
    planes, (where, plane, *steps) = padded(x.reshape(n * channels, 1, *spatial), None, margins)
    return planes, (where, channels * plane, *steps), plane


_CHANNELS_TO_END = {3: (0, 2, 1), 4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}


def as_last(x: Any) -> Any:
    """(N, C, *spatial) → the (N, D, H, W, C) view."""
    last = x.transpose(_CHANNELS_TO_END[x.ndim])
    if not x.flags.aligned:  # its strides count no whole numbers
        last = np.ascontiguousarray(last)
    return last if x.ndim == 5 else as_volume(last)


def _strides(volume: Any) -> tuple[int, int, int, int, int, int]:
    """As `walk`, and the stride of the channels."""
    return *walk(volume), volume.strides[4] // volume.itemsize if volume.shape[4] > 1 else 1


@njit(nogil=True, cache=True)
def _pad(mine, x, gate, gated, inside, before, image, zero):  # type: ignore[no-untyped-def]
    size = image.itemsize
    across = VECTOR_BYTES // size
    samples, depth, height, width, channels = image.shape
    left, right = max(before[2], 0), max(0, min(before[2] + inside[3], width))  # between them lies x
    for row in share(mine, samples * depth * height):
        n, d, h = row // (depth * height), row // height % depth - before[0], row % height - before[1]
        to = image.ctypes.data + size * row * width * channels
        if not (0 <= d < inside[1] and 0 <= h < inside[2]) or left >= right:
            for i in range(width * channels):
                poke(to, i, zero)
            continue
        for i in range(left * channels):
            poke(to, i, zero)
        for i in range(right * channels, width * channels):
            poke(to, i, zero)
        w = left - before[2]
        source = x[0] + size * (n * x[1] + d * x[2] + h * x[3] + w * x[4])
        opening = gate[0] + size * (n * gate[1] + d * gate[2] + h * gate[3] + w * gate[4])
        onto = to + size * left * channels
        run, count = channels, right - left  # numbers side by side, and how many such runs
        if x[4] == channels and x[5] == 1 and gate[4] == channels and gate[5] == 1:
            run, count = channels * count, 1
        whole = run // across * across if x[5] == 1 and gate[5] == 1 else 0
        for i in range(count if whole else 0):
            pixel, open_pixel, pixel_to = source + size * i * x[4], opening + size * i * gate[4], onto + size * i * run
            for c in range(0, whole, across):
                if gated:
                    gated_move(pixel + size * c, 0, 0, pixel_to + size * c, 0, 0, open_pixel + size * c, 0, 0, 0, zero)
                else:
                    move(pixel + size * c, 0, 0, pixel_to + size * c, 0, 0, 0, 0, 0, 0, zero)
        for c in range(whole, run):  # along one channel, whose pixels may lie side by side
            for i in range(count):
                value = peek(source, i * x[4] + c * x[5], zero)
                if gated and not peek(opening, i * gate[4] + c * gate[5], zero) > zero:
                    value = zero
                poke(onto, i * run + c, value)
