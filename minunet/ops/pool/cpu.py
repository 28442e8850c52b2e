"""Maximum pooling with Numba: channels-last, rank 1 and 2 as volumes with axes of size 1.

The inner loop runs over channels, which lie side by side, and looks at four places of the window at a time: the best of four is
held in registers, and a window of 2×2 is read and written once. All of its branches are selections, so that LLVM vectorises it.
Flat arrays are indexed with unsigned numbers, because a signed index may be negative in Python's sense, a question for each element.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit, uint64

from minunet import memory
from minunet.arrays import channels_first, channels_last_volume, in_place
from minunet.ops.pool.ref import lowest, winner_dtype
from minunet.ops.pool.windows import Windows
from minunet.ops.upsample.cpu import FEW_CHANNELS
from minunet.simd import all_tasks, share


def max_forward(x: Any, windows: Windows) -> tuple[Any, Any]:
    flat, steps = in_place(x)
    spatial, outputs, *geometry = _volumes(windows)
    y = memory.empty((x.shape[0], *outputs, x.shape[1]), x.dtype)
    winners = memory.empty(y.shape, winner_dtype(windows))
    _max_forward(all_tasks(), flat, steps, spatial, y.reshape(-1), winners.reshape(-1), y.shape, lowest(x), *geometry)
    return _like_input(y, windows.outputs), _like_input(winners, windows.outputs)


def max_backward(gy: Any, winners: Any, windows: Windows) -> Any:
    flat, steps = in_place(gy)
    won = channels_last_volume(winners).reshape(-1)
    spatial, outputs, *geometry = _volumes(windows)
    gx = memory.empty((gy.shape[0], *spatial, gy.shape[1]), gy.dtype)
    apart = all(s > d * (k - 1) for k, s, d in zip(windows.kernel, windows.stride, windows.dilation, strict=True))
    if apart and gy.shape[1] < FEW_CHANNELS:
        gx[...] = 0
        _max_backward_scatter(all_tasks(), flat, steps, won, outputs, gx.reshape(-1), gx.shape, *geometry)
    else:
        _max_backward(all_tasks(), flat, steps, won, outputs, gx.reshape(-1), gx.shape, apart, apart and windows.cover, *geometry)
    return _like_input(gx, windows.spatial)


@lru_cache(maxsize=128)  # a network asks for the same few in every step
def _volumes(windows: Windows) -> tuple[tuple[int, ...], ...]:
    """spatial, outputs, kernel, stride, before, dilation, each for three axes."""
    fields = (windows.spatial, windows.outputs, windows.kernel, windows.stride, windows.before, windows.dilation)
    return tuple((fill,) * (3 - len(f)) + f for f, fill in zip(fields, (1, 1, 1, 1, 0, 1), strict=True))


def _like_input(y: Any, sizes: tuple[int, ...]) -> Any:
    """(N, D, H, W, C) → (N, C, *sizes), a view."""
    return channels_first(y.reshape(y.shape[0], *sizes, y.shape[-1]))


@njit(nogil=True, cache=True)
def _max_forward(mine, x, steps, spatial, y, winners, shape, lowest, kernel, stride, before, dilation):  # type: ignore[no-untyped-def]
    samples, out_d, out_h, out_w, channels = shape
    first = -(-before[2] // stride[2])  # from here …
    stop = (spatial[2] + before[2] - dilation[2] * (kernel[2] - 1) - 1) // stride[2] + 1  # … to here all of a row's windows see alike
    places = kernel[0] * kernel[1] * kernel[2] + 3
    for row in share(mine, samples * out_d * out_h):
        n, q, r = row // (out_d * out_h), row // out_h % out_d, row % out_h
        offset, number, count = np.empty(places, np.int64), np.empty(places, winners.dtype), 0
        d, h = q * stride[0] - before[0], r * stride[1] - before[1]
        for s in range(out_w):
            w = s * stride[2] - before[2]
            if s <= first or s >= stop:
                count = _places_inside(d, h, w, spatial, kernel, dilation, steps, offset, number)
            corner = n * steps[0] + d * steps[1] + h * steps[2] + w * steps[3]
            out = (row * out_w + s) * channels
            for k in range(0, count, 4):
                o0, o1, o2, o3 = corner + offset[k], corner + offset[k + 1], corner + offset[k + 2], corner + offset[k + 3]
                n0, n1, n2, n3 = number[k], number[k + 1], number[k + 2], number[k + 3]
                for c in range(channels):
                    best, winner = x[uint64(o0 + c)], n0
                    if k > 0:
                        best, winner = _later(y[uint64(out + c)], winners[uint64(out + c)], best, n0)
                    best, winner = _later(best, winner, x[uint64(o1 + c)], n1)
                    best, winner = _later(best, winner, x[uint64(o2 + c)], n2)
                    best, winner = _later(best, winner, x[uint64(o3 + c)], n3)
                    y[uint64(out + c)] = best
                    winners[uint64(out + c)] = winner
            if count == 0:  # a dilated window can miss the input
                for c in range(channels):
                    y[uint64(out + c)], winners[uint64(out + c)] = lowest, -1


@njit(cache=True)
def _places_inside(d, h, w, spatial, kernel, dilation, steps, offset, number):  # type: ignore[no-untyped-def]
    """The places inside the input of the window whose corner is (d, h, w): offset from the corner in memory, and number. The last one
    is repeated until they are a multiple of four; returns how many they are then."""
    count, place = 0, 0
    for kd in range(kernel[0]):
        for kh in range(kernel[1]):
            for kw in range(kernel[2]):
                i, j, k = dilation[0] * kd, dilation[1] * kh, dilation[2] * kw
                if 0 <= d + i < spatial[0] and 0 <= h + j < spatial[1] and 0 <= w + k < spatial[2]:
                    offset[count] = i * steps[1] + j * steps[2] + k * steps[3]
                    number[count] = place
                    count += 1
                place += 1
    while count % 4 > 0:
        offset[count], number[count] = offset[count - 1], number[count - 1]
        count += 1
    return count


@njit(inline="always", cache=True)
def _later(best, winner, value, number):  # type: ignore[no-untyped-def]
    """The best so far and its number, or a later value where that is greater, or no number at all."""
    better = (value > best) | (value != value)
    return (value if better else best), (number if better else winner)


@njit(nogil=True, cache=True)
def _max_backward(mine, gy, steps, winners, outputs, gx, shape, apart, cover, kernel, stride, before, dilation):  # type: ignore[no-untyped-def]
    """Each element of the input collects from the windows that cover it, in a fixed order: no two threads write one element.

    apart: at most one window covers an element, its share is written and not added. cover: so does at least one.
    """
    samples, depth, height, width, channels = shape
    out_d, out_h, out_w = outputs
    for row in share(mine, samples * depth * height):
        n, d, h = row // (depth * height), row // height % depth, row % height
        if not cover:
            gx[row * width * channels : (row + 1) * width * channels] = 0
        for kd in range(kernel[0]):
            q, rest_d = divmod(d + before[0] - kd * dilation[0], stride[0])
            for kh in range(kernel[1]):
                r, rest_h = divmod(h + before[1] - kh * dilation[1], stride[1])
                if rest_d or rest_h or not (0 <= q < out_d and 0 <= r < out_h):
                    continue
                for s in range(out_w):
                    source = n * steps[0] + q * steps[1] + r * steps[2] + s * steps[3]
                    window = (((n * out_d + q) * out_h + r) * out_w + s) * channels
                    for kw in range(kernel[2]):
                        w = s * stride[2] + kw * dilation[2] - before[2]
                        if 0 <= w < width:
                            place = (kd * kernel[1] + kh) * kernel[2] + kw
                            target = (row * width + w) * channels
                            for c in range(channels):
                                part = gy[uint64(source + c)] if winners[uint64(window + c)] == place else 0
                                gx[uint64(target + c)] = part if apart else gx[uint64(target + c)] + part


@njit(nogil=True, cache=True)
def _max_backward_scatter(mine, gy, steps, winners, outputs, gx, shape, kernel, stride, before, dilation):  # type: ignore[no-untyped-def]
    """For windows apart and too few channels to fill a vector: each window writes to its winner alone. gx comes filled with 0."""
    samples, depth, height, width, channels = shape
    out_d, out_h, out_w = outputs
    for row in share(mine, samples * out_d * out_h):
        n, q, r = row // (out_d * out_h), row // out_h % out_d, row % out_h
        offset = np.empty(kernel[0] * kernel[1] * kernel[2], np.int64)
        for place in range(offset.size):
            d = q * stride[0] + place // (kernel[1] * kernel[2]) * dilation[0] - before[0]
            h = r * stride[1] + place // kernel[2] % kernel[1] * dilation[1] - before[1]
            offset[place] = (((n * depth + d) * height + h) * width + place % kernel[2] * dilation[2] - before[2]) * channels
        for s in range(out_w):
            source = n * steps[0] + q * steps[1] + r * steps[2] + s * steps[3]
            for c in range(channels):
                place = winners[uint64((row * out_w + s) * channels + c)]
                if place >= 0:
                    gx[uint64(offset[uint64(place)] + s * stride[2] * channels + c)] = gy[uint64(source + c)]
