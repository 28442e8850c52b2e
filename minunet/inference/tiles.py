"""Prediction on images of any size by overlapping tiles, as in the U-Net paper (2015, figure 2).

    mirrored border │ margin │            tile             │ margin │
                             │ ramp │             │  ramp  │
                                          next tile │ ramp │   …

A pixel near the border of what a network sees lacks context. So the image is extended by mirroring, every tile is computed
with a margin of context around it that is thrown away, and neighbouring tiles overlap by a ramp over which one fades into
the other. If the margin holds the network's receptive field, the result does not depend on the tile size at all; if not,
the ramp leaves no seam. An image that fits into one tile is computed whole by the same lines.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def predict_tiles(function: Callable[[Array], Array], image: Array, *, tile: int = 512, margin: int = 32, multiple: int = 16) -> Array:
    """Applies `function`, (1, C, *size) → (1, K, *size), to an image (C, *spatial) of any size; returns (K, *spatial).

    tile: the largest extent computed at once, without its margin; it bounds the memory.
    margin: context on each side of a tile, and the width of the ramp, in pixels.
    multiple: what the network's input size must be divisible by, 2^depth for UNet.
    """
    margin, tile = _round_up(margin, multiple), _round_up(tile, multiple)
    if tile < 2 * margin or tile < 1:
        raise ValueError(
            f"predict_tiles: a tile of {tile} pixels is narrower than its two ramps of {margin}. Use tile={2 * margin} or more."
        )
    spatial = image.shape[1:]
    if image.ndim < 2 or 0 in image.shape:
        raise ValueError(f"predict_tiles expects an image (C, *spatial) with at least one pixel, got shape {image.shape}.")
    axes = [_cover(n, tile, margin, multiple) for n in spatial]
    border = [(margin, starts[-1] + size - n + margin) for n, (size, starts) in zip(spatial, axes, strict=True)]
    extended = np.pad(image, [(0, 0), *border], mode="reflect")  # (C, *spatial) → (C, *(margin + tiles + margin))

    result: Array | None = None
    for corner in product(*(list(enumerate(starts)) for _, starts in axes)):
        window = tuple(slice(start, start + size + 2 * margin) for (size, _), (_, start) in zip(axes, corner, strict=True))
        output = function(extended[(slice(None), *window)][None])[0]
        inner = tuple(slice(margin, margin + size) for size, _ in axes)
        output = output[(slice(None), *inner)]  # the margin is thrown away
        for axis, ((size, starts), (i, _)) in enumerate(zip(axes, corner, strict=True)):
            if len(starts) > 1:
                fade = _fade(size, margin, first=i == 0, last=i == len(starts) - 1).astype(output.dtype)
                output = output * fade.reshape((-1,) + (1,) * (len(axes) - axis - 1))
        if result is None:
            result = np.zeros((output.shape[0], *(starts[-1] + size for size, starts in axes)), output.dtype)
        result[(slice(None), *(slice(s, s + size) for (size, _), (_, s) in zip(axes, corner, strict=True)))] += output
    assert result is not None
    return result[(slice(None), *(slice(0, n) for n in spatial))]


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _cover(n: int, tile: int, ramp: int, multiple: int) -> tuple[int, list[int]]:
    """(size, starts) of the fewest equal tiles, none longer than `tile`, that cover n pixels and overlap by `ramp`."""
    count = 1 if n <= tile else -(-(n - ramp) // (tile - ramp))
    size = max(_round_up(-(-(n + (count - 1) * ramp) // count), multiple), 2 * ramp if count > 1 else multiple)
    return size, [i * (size - ramp) for i in range(count)]


def _fade(size: int, ramp: int, *, first: bool, last: bool) -> Array:
    """The weight of a tile along an axis: rises over the ramp and falls over it, so that neighbours sum to 1."""
    weight = np.ones(size)
    rising = (np.arange(ramp) + 0.5) / max(ramp, 1)
    if not first:
        weight[:ramp] = rising
    if not last:
        weight[size - ramp :] = rising[::-1]
    return weight
