"""The Radon transform and its adjoint with Numba.

`_project` is parallel over images and angles. Line after line of the image is added to the detectors: neighbouring rays meet a line at
places that are 1/a apart, so the inner loop, over detectors, reads forward. For rays closer to a row's direction the image is turned
first. `_back_project` is parallel over rows of the image: angle after angle is added to a row.

Each inner loop is three. The first computes places and weights, the last multiplies and adds, and LLVM turns both into vector code. Between
them stands what no vector does well: the numbers at those places are fetched, each with its neighbour, as one. Lines have a margin of
zeros, so that no ray asks whether it still meets the image. Places are computed in float64 whatever the dtype: in float32 A and Aᵀ would
differ by the rounding of places, 10⁻⁵ of a pixel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, uint64

from minunet.ops.radon.geometry import Geometry, rays
from minunet.simd import all_tasks, share

MARGIN = 2  # a ray between the last pixel and its neighbour reads one, rounding another


def project(x: Any, geometry: Geometry) -> Any:
    y = np.empty((len(x), *geometry.sinogram), x.dtype)
    _project(all_tasks(), _in_pairs(x), _in_pairs(x.swapaxes(1, 2)), rays(geometry), y)
    return y


def back_project(y: Any, geometry: Geometry, linear: bool) -> Any:
    x = np.empty((len(y), *geometry.size), y.dtype)
    _back_project(all_tasks(), _in_pairs(y), rays(geometry), linear, x)
    return x


def _in_pairs(lines: Any) -> Any:
    """With a margin, and each number beside the one that follows it, as a complex number: both are read at once."""
    padded = np.zeros((*lines.shape[:2], lines.shape[2] + 2 * MARGIN + 1), lines.dtype)
    padded[..., MARGIN : MARGIN + lines.shape[2]] = lines
    pairs = np.empty((*lines.shape[:2], lines.shape[2] + 2 * MARGIN), np.result_type(lines, np.complex64))
    pairs.real, pairs.imag = padded[..., :-1], padded[..., 1:]
    return pairs


@njit(nogil=True, cache=True)
def _project(mine, images, turned, rays, y):  # type: ignore[no-untyped-def]
    angles = y.shape[1]
    for task in share(mine, y.shape[0] * angles):
        n, k = task // angles, task % angles
        by_column, by_row, start = rays[k]
        if abs(by_column) >= abs(by_row):
            _add_lines(images[n], by_column, by_row, start, y[n, k])
        else:
            _add_lines(turned[n], by_row, by_column, start, y[n, k])


@njit(cache=True, nogil=True)
def _add_lines(lines, along, across, start, result):  # type: ignore[no-untyped-def]
    """result[j] = Σ over lines of the pixel that ray j meets there, divided by |along|; t = along·pixel + across·line + start."""
    pixels, width = lines.shape[1] - 2 * MARGIN, lines.shape[1]
    flat, step, real = lines.reshape(-1), 1 / along, result.dtype.type
    at, upper, met = np.empty(result.size, np.int32), np.empty(result.size, result.dtype), np.empty(result.size, lines.dtype)
    sums = np.zeros(result.size, result.dtype)
    for line in range(lines.shape[0]):
        t = across * line + start  # of the line's first pixel
        begin, end = _range(t - along, t + along * pixels, sums.size)
        first = MARGIN - t * step  # where ray 0 meets the line
        for j in range(begin, end):
            place = step * j + first
            low = np.int32(place)
            at[uint64(j)], upper[uint64(j)] = low, real(place - low)
        corner = uint64(line * width)
        for j in range(begin, end):
            met[uint64(j)] = flat[corner + uint64(at[uint64(j)])]
        for j in range(begin, end):
            pair = met[uint64(j)]
            sums[uint64(j)] += pair.real + upper[uint64(j)] * (pair.imag - pair.real)
    result[:] = sums * real(abs(step))


@njit(nogil=True, cache=True)
def _back_project(mine, pairs, rays, linear, x):  # type: ignore[no-untyped-def]
    _, height, width = x.shape
    angles, line = pairs.shape[1], pairs.shape[2]
    flat, real = pairs.reshape(-1), x.dtype.type
    for task in share(mine, x.shape[0] * height):
        n, row = task // height, task % height
        at, near, far = np.empty(width, np.int32), np.empty(width, x.dtype), np.empty(width, x.dtype)
        met, sums = np.empty(width, pairs.dtype), np.zeros(width, x.dtype)
        for k in range(angles):
            by_column, by_row, start = rays[k]
            c = 1.0 if linear else max(abs(by_column), abs(by_row))
            top, slope, none = real(1 / c), real(1 / (c * c)), real(0)
            t = by_row * row + start  # of the row's first pixel
            begin, end = 0, width
            if abs(by_column) > 1e-9:
                begin, end = _range((-1 - t) / by_column, (line - 2 * MARGIN - t) / by_column, width)
            elif not -1 < t < line - 2 * MARGIN:
                continue
            for u in range(begin, end):
                place = by_column * u + (t + MARGIN)
                low = np.int32(place)
                fall = slope * real(place - low)
                a, b = top - fall, top - slope + fall
                at[uint64(u)], near[uint64(u)], far[uint64(u)] = low, (a if a > none else none), (b if b > none else none)
            corner = uint64((n * angles + k) * line)
            for u in range(begin, end):
                met[uint64(u)] = flat[corner + uint64(at[uint64(u)])]
            for u in range(begin, end):
                pair = met[uint64(u)]
                sums[uint64(u)] += near[uint64(u)] * pair.real + far[uint64(u)] * pair.imag
        x[n, row] = sums


@njit(cache=True, nogil=True)
def _range(a, b, size):  # type: ignore[no-untyped-def]
    """The whole numbers between a and b that are within 0 … size − 1: first, and one after the last."""
    return max(np.int64(np.ceil(min(a, b))), 0), min(np.int64(np.floor(max(a, b))) + 1, size)
