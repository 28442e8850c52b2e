"""How a kernel sees an image: the address of its first number and the strides of a channels-last volume.

A channel slice of a wider buffer, such as one half of a concatenation, is an image like any other: its pixels only lie further apart.
With addresses instead of arrays a kernel is compiled once, whatever the strides.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minunet.arrays import as_volume

Image = tuple[int, int, int, int, int]  # address; strides of n, d, h, w in elements; the channels lie side by side


def as_image(x: Any) -> tuple[Any, Image]:
    """(N, C, *spatial) → the (N, D, H, W, C) view and how to walk it. Copies only where the channels do not lie side by side."""
    last = x.transpose(0, *range(2, x.ndim), 1)
    if (last.shape[-1] > 1 and last.strides[-1] != last.itemsize) or any(stride % last.itemsize for stride in last.strides):
        last = np.ascontiguousarray(last)
    volume = as_volume(last)
    return volume, walk(volume)


def walk(volume: Any) -> Image:
    """The address and the strides of an (N, D, H, W, C) array."""
    n, d, h, w = (stride // volume.itemsize for stride in volume.strides[:4])
    return volume.__array_interface__["data"][0], n, d, h, w


def as_triple(numbers: Any, fill: Any) -> tuple[Any, ...]:
    """One entry for each spatial axis → entries for D, H, W."""
    return (fill,) * (3 - len(numbers)) + tuple(numbers)
