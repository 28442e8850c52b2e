"""Pooling with Numba: channels-last, the inner loop over channels (contiguous, so that LLVM vectorises it), rank 1 and 2 as
volumes with axes of size 1.

The forward is parallel over rows of the output. The backward gathers: it is parallel over rows of the *input*, and each input
element sums the windows that cover it in a fixed order. No two threads write one element, whatever the overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from minunet.arrays import channels_first, channels_last_volume
from minunet.ops.pool.ref import lowest, winner_dtype
from minunet.ops.pool.windows import Windows


def _volumes(windows: Windows) -> tuple[tuple[int, ...], ...]:
    """spatial, outputs, kernel, stride, before, dilation, each for three axes."""
    fields = (windows.spatial, windows.outputs, windows.kernel, windows.stride, windows.before, windows.dilation)
    return tuple((fill,) * (3 - len(f)) + f for f, fill in zip(fields, (1, 1, 1, 1, 0, 1), strict=True))


def _like_input(y: Any, sizes: tuple[int, ...]) -> Any:
    """(N, D, H, W, C) → (N, C, *sizes), a view."""
    return channels_first(y.reshape(y.shape[0], *sizes, y.shape[-1]))


def max_forward(x: Any, windows: Windows) -> tuple[Any, Any]:
    volume = channels_last_volume(x)
    _, outputs, *geometry = _volumes(windows)
    y = np.empty((volume.shape[0], *outputs, volume.shape[-1]), dtype=x.dtype)
    winners = np.empty(y.shape, dtype=winner_dtype(windows))
    _max_forward(volume, y, winners, lowest(x.dtype), *geometry)
    return _like_input(y, windows.outputs), _like_input(winners, windows.outputs)


def max_backward(gy: Any, winners: Any, windows: Windows) -> Any:
    gy, winners = channels_last_volume(gy), channels_last_volume(winners)
    spatial, _, *geometry = _volumes(windows)
    gx = np.empty((gy.shape[0], *spatial, gy.shape[-1]), dtype=gy.dtype)
    _max_backward(gy, winners, gx, *geometry)
    return _like_input(gx, windows.spatial)


def average_forward(x: Any, divisor: Any, windows: Windows) -> Any:
    volume = channels_last_volume(x)
    _, outputs, kernel, stride, before, _ = _volumes(windows)
    y = np.empty((volume.shape[0], *outputs, volume.shape[-1]), dtype=x.dtype)
    _average_forward(volume, y, divisor.reshape(outputs), kernel, stride, before)
    return _like_input(y, windows.outputs)


def average_backward(gy: Any, divisor: Any, windows: Windows) -> Any:
    gy = channels_last_volume(gy)
    spatial, outputs, kernel, stride, before, _ = _volumes(windows)
    gx = np.empty((gy.shape[0], *spatial, gy.shape[-1]), dtype=gy.dtype)
    _average_backward(gy, gx, divisor.reshape(outputs), kernel, stride, before)
    return _like_input(gx, windows.spatial)


@njit(parallel=True, nogil=True, cache=True)
def _max_forward(x, y, winners, lowest, kernel, stride, before, dilation):  # type: ignore[no-untyped-def]
    _, depth, height, width, channels = x.shape
    _, out_d, out_h, out_w, _ = y.shape
    for row in prange(y.shape[0] * out_d * out_h):
        n, q, r = row // (out_d * out_h), row // out_h % out_d, row % out_h
        for s in range(out_w):
            fresh = True
            for kd in range(kernel[0]):
                d = q * stride[0] + kd * dilation[0] - before[0]
                for kh in range(kernel[1]):
                    h = r * stride[1] + kh * dilation[1] - before[1]
                    for kw in range(kernel[2]):
                        w = s * stride[2] + kw * dilation[2] - before[2]
                        if not (0 <= d < depth and 0 <= h < height and 0 <= w < width):
                            continue
                        place = (kd * kernel[1] + kh) * kernel[2] + kw
                        if fresh:
                            for c in range(channels):
                                y[n, q, r, s, c] = x[n, d, h, w, c]
                                winners[n, q, r, s, c] = place
                            fresh = False
                        else:
                            for c in range(channels):
                                value, best = x[n, d, h, w, c], y[n, q, r, s, c]
                                better = (value > best) | (value != value)
                                y[n, q, r, s, c] = value if better else best
                                winners[n, q, r, s, c] = place if better else winners[n, q, r, s, c]
            if fresh:  # a dilated window can miss the input
                y[n, q, r, s, :] = lowest
                winners[n, q, r, s, :] = -1


@njit(parallel=True, nogil=True, cache=True)
def _max_backward(gy, winners, gx, kernel, stride, before, dilation):  # type: ignore[no-untyped-def]
    _, depth, height, width, channels = gx.shape
    _, out_d, out_h, out_w, _ = gy.shape
    for row in prange(gx.shape[0] * depth * height):
        n, d, h = row // (depth * height), row // height % depth, row % height
        gx[n, d, h] = 0
        for kd in range(kernel[0]):
            q, rest_d = divmod(d + before[0] - kd * dilation[0], stride[0])
            for kh in range(kernel[1]):
                r, rest_h = divmod(h + before[1] - kh * dilation[1], stride[1])
                if rest_d or rest_h or not (0 <= q < out_d and 0 <= r < out_h):
                    continue
                for kw in range(kernel[2]):
                    place = (kd * kernel[1] + kh) * kernel[2] + kw
                    first = kw * dilation[2] - before[2]
                    for s in range(out_w):
                        w = s * stride[2] + first
                        if 0 <= w < width:
                            for c in range(channels):
                                won = winners[n, q, r, s, c] == place
                                gx[n, d, h, w, c] += gy[n, q, r, s, c] if won else 0


@njit(parallel=True, nogil=True, cache=True)
def _average_forward(x, y, divisor, kernel, stride, before):  # type: ignore[no-untyped-def]
    _, depth, height, width, channels = x.shape
    _, out_d, out_h, out_w, _ = y.shape
    for row in prange(y.shape[0] * out_d * out_h):
        n, q, r = row // (out_d * out_h), row // out_h % out_d, row % out_h
        y[n, q, r] = 0
        for kd in range(kernel[0]):
            d = q * stride[0] + kd - before[0]
            for kh in range(kernel[1]):
                h = r * stride[1] + kh - before[1]
                if not (0 <= d < depth and 0 <= h < height):
                    continue
                for s in range(out_w):
                    first = s * stride[2] - before[2]
                    for w in range(max(first, 0), min(first + kernel[2], width)):
                        for c in range(channels):
                            y[n, q, r, s, c] += x[n, d, h, w, c]
        for s in range(out_w):
            for c in range(channels):
                y[n, q, r, s, c] /= divisor[q, r, s]


@njit(parallel=True, nogil=True, cache=True)
def _average_backward(gy, gx, divisor, kernel, stride, before):  # type: ignore[no-untyped-def]
    _, depth, height, width, channels = gx.shape
    _, out_d, out_h, out_w, _ = gy.shape
    for row in prange(gx.shape[0] * depth * height):
        n, d, h = row // (depth * height), row // height % depth, row % height
        gx[n, d, h] = 0
        for kd in range(kernel[0]):
            q, rest_d = divmod(d + before[0] - kd, stride[0])
            for kh in range(kernel[1]):
                r, rest_h = divmod(h + before[1] - kh, stride[1])
                if rest_d or rest_h or not (0 <= q < out_d and 0 <= r < out_h):
                    continue
                for s in range(out_w):
                    first = s * stride[2] - before[2]
                    for w in range(max(first, 0), min(first + kernel[2], width)):
                        for c in range(channels):
                            gx[n, d, h, w, c] += gy[n, q, r, s, c] / divisor[q, r, s]
