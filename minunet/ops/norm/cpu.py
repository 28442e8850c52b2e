"""Normalisation in Numba: every kernel passes once over its arrays, (B, P, C) with the channels innermost, where they fill vectors.

The pixels of a block are cut into chunks of fixed size. Chunks run in parallel; each sums in float64, and the chunks' sums are added
in order: the result does not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

CHUNK = 16384  # elements: some tens of microseconds of work, held by the first two caches


def _chunks(x: Any) -> tuple[int, int]:
    """Pixels a chunk, and the number of chunks in a block."""
    step = max(CHUNK // max(x.shape[2], 1), 1)
    return step, -(-x.shape[1] // step)


def moments(x: Any, groups: int) -> tuple[Any, Any]:
    """Mean and biased variance of each group, in one pass: sums of d and d² with d = x − (the block's first pixel), which is about as
    large as the spread whatever the mean is, so that nothing cancels. Then the channels of a group are joined."""
    blocks, pixels, channels = x.shape
    step, chunks = _chunks(x)
    origin = x[:, 0].astype(np.float64) if pixels else np.zeros((blocks, channels))
    partial = np.zeros((2, blocks, chunks, channels))
    _moments(x, origin, step, *partial)
    first, second = partial.sum(axis=2)  # (B, C) each
    n = max(pixels, 1)
    bundled = (blocks, groups, channels // groups)
    means = (origin + first / n).reshape(bundled)
    squares = (second - first * first / n).reshape(bundled)  # Σ(x − mean)² of each channel
    mean = means.mean(axis=2)
    squares += n * (means - mean[..., None]) ** 2
    return mean, np.maximum(squares.sum(axis=2), 0) / (n * bundled[2])


@njit(parallel=True, nogil=True, cache=True)
def _moments(x, origin, step, first, second):  # type: ignore[no-untyped-def]
    blocks, pixels, channels = x.shape
    chunks = first.shape[1]
    for i in prange(blocks * chunks):
        b, k = i // chunks, i % chunks
        for p in range(k * step, min((k + 1) * step, pixels)):
            for c in range(channels):
                d = np.float64(x[b, p, c]) - origin[b, c]
                first[b, k, c] += d
                second[b, k, c] += d * d


def normalize(x: Any, centre: Any, scale: Any, shift: Any) -> Any:
    """y = (x − centre)·scale + shift"""
    y = np.empty_like(x)
    _normalize(x, centre, scale, shift, *_chunks(x), y)
    return y


@njit(parallel=True, nogil=True, cache=True)
def _normalize(x, centre, scale, shift, step, chunks, y):  # type: ignore[no-untyped-def]
    blocks, pixels, channels = x.shape
    for i in prange(blocks * chunks):
        b, k = i // chunks, i % chunks
        for p in range(k * step, min((k + 1) * step, pixels)):
            for c in range(channels):
                y[b, p, c] = (x[b, p, c] - centre[b, c]) * scale[b, c] + shift[b, c]


def sums(gy: Any, x: Any, centre: Any) -> tuple[Any, Any]:
    """Σ_p ∂y and Σ_p ∂y·(x − centre)"""
    step, chunks = _chunks(x)
    partial = np.zeros((2, x.shape[0], chunks, x.shape[2]))
    _sums(gy, x, centre, step, *partial)
    first, second = partial.sum(axis=2)
    return first, second


@njit(parallel=True, nogil=True, cache=True)
def _sums(gy, x, centre, step, first, second):  # type: ignore[no-untyped-def]
    blocks, pixels, channels = x.shape
    chunks = first.shape[1]
    for i in prange(blocks * chunks):
        b, k = i // chunks, i % chunks
        for p in range(k * step, min((k + 1) * step, pixels)):
            for c in range(channels):
                g = np.float64(gy[b, p, c])
                first[b, k, c] += g
                second[b, k, c] += g * (x[b, p, c] - centre[b, c])


def grad_x(gy: Any, x: Any, centre: Any, scale: Any, slope: Any, offset: Any) -> Any:
    """∂x = scale·∂y + slope·(x − centre) + offset"""
    gx = np.empty_like(gy)
    _grad_x(gy, x, centre, scale, slope, offset, *_chunks(x), gx)
    return gx


@njit(parallel=True, nogil=True, cache=True)
def _grad_x(gy, x, centre, scale, slope, offset, step, chunks, gx):  # type: ignore[no-untyped-def]
    blocks, pixels, channels = x.shape
    for i in prange(blocks * chunks):
        b, k = i // chunks, i % chunks
        for p in range(k * step, min((k + 1) * step, pixels)):
            for c in range(channels):
                gx[b, p, c] = scale[b, c] * gy[b, p, c] + slope[b, c] * (x[b, p, c] - centre[b, c]) + offset[b, c]
