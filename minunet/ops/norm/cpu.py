"""Normalisation in Numba: every kernel passes once over its arrays, (B, P, C) with the channels innermost, where they fill vectors.

The pixels of a block are cut into chunks of fixed size, which run in parallel. Sums have two levels: of four numbers in the arrays' own
dtype, which is fast, then in float64, which is exact enough. The chunks' sums are added in order: the result does not depend on the
number of threads.

The four numbers lie a quarter of a chunk apart. So the processor walks along four lines of memory at once and has more requests
under way than one line allows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from minunet import memory
from minunet.arrays import lines

U = np.uintp  # an index that cannot be negative: Numba then asks nothing at each element

CHUNK = 32768  # elements: some microseconds of work, held by the second cache
LINE = 256  # elements that the innermost loop should have, so that starting it costs little
ALIGNED = 64  # bytes: a vector that lies across two cache lines is two requests
SAMPLED = 16  # pixels whose mean stands for the block's as long as that is not known


class _Walk:
    """How (B, P, C) arrays are walked: as (B, lines, width), where a line is one pixel or several that lie side by side in memory.

    An array may be a slice of a wider one: its lines then have memory of others between them.
    """

    def __init__(self, *arrays: Any) -> None:
        blocks, pixels, self.channels = arrays[0].shape
        self.fold = 1
        if pixels and all(a.flags.c_contiguous for a in arrays):
            while pixels % (2 * self.fold) == 0 and 2 * self.fold * self.channels <= LINE:
                self.fold *= 2
        self.shape = blocks, pixels // self.fold, self.fold * self.channels
        self.chunk = max(CHUNK // max(self.shape[2], 1), 1)  # lines
        self.chunks = -(-self.shape[1] // self.chunk)  # of a block

    def place(self, a: Any) -> tuple[Any, int]:
        return lines(a.reshape(self.shape) if self.fold > 1 else a)

    def two_sums(self) -> Any:
        """Zeros for each chunk and place of a line, twice."""
        sums = memory.empty((2, self.shape[0], self.chunks, self.shape[2]), np.float64)
        sums[...] = 0
        return sums

    def repeat(self, values: Any) -> Any:
        """Numbers for each channel, (K, B, C) → for each place of a line, (K, B, width), at addresses that suit vectors."""
        nbytes = self.fold * values.nbytes
        flat = np.empty(nbytes + ALIGNED, np.uint8)
        flat = flat[-flat.ctypes.data % ALIGNED :][:nbytes].view(values.dtype)
        flat.reshape(*values.shape[:2], self.fold, self.channels)[...] = values[:, :, None]
        return flat.reshape(*values.shape[:2], self.shape[2])


def moments(x: Any, groups: int) -> tuple[Any, Any]:
    """Mean and biased variance of each group, in one pass: sums of d and d² with d = x − (the mean of a few pixels), which is about as
    large as the spread whatever the mean is, so that little cancels. Then the channels of a group are joined."""
    blocks, pixels, channels = x.shape
    walk = _Walk(x)
    some = x[:, :: max(pixels // SAMPLED, 1)][:, :SAMPLED]
    origin = some.sum(axis=1) / x.dtype.type(some.shape[1] or 1)
    sums = walk.two_sums()
    _moments(*walk.place(x), walk.shape[1], walk.chunk, walk.repeat(origin[None]), sums)
    first, second = _total(sums, channels) / max(pixels, 1)
    means = origin + first
    variances = np.maximum(second - first * first, 0)
    if groups == channels:
        return means, variances
    means, variances = (a.reshape(blocks, groups, channels // groups) for a in (means, variances))
    mean = means.mean(axis=2)
    return mean, (variances + (means - mean[:, :, None]) ** 2).mean(axis=2)


@njit(parallel=True, nogil=True, cache=True)
def _moments(x, step, height, chunk, origins, sums):  # type: ignore[no-untyped-def]
    _, blocks, chunks, width = sums.shape
    for i in prange(blocks * chunks):
        b, k = i // chunks, i % chunks
        origin, first, second = origins[0, b], sums[0, b, k], sums[1, b, k]
        start, end = b * height + k * chunk, b * height + min((k + 1) * chunk, height)
        quarter = (end - start) // 4
        for p in range(start, start + quarter):
            p0, p1, p2, p3 = U(p * step), U((p + quarter) * step), U((p + 2 * quarter) * step), U((p + 3 * quarter) * step)
            for c in range(U(width)):
                d0, d1, d2, d3 = x[p0 + c] - origin[c], x[p1 + c] - origin[c], x[p2 + c] - origin[c], x[p3 + c] - origin[c]
                first[c] += (d0 + d1) + (d2 + d3)
                second[c] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
        for p in range(start + 4 * quarter, end):
            p0 = U(p * step)
            for c in range(U(width)):
                d = x[p0 + c] - origin[c]
                first[c] += d
                second[c] += d * d


@njit(nogil=True, cache=True)
def _total(sums, channels):  # type: ignore[no-untyped-def]
    """The sums of all chunks, and of the pixels of a line: (2, B, chunks, width) → (2, B, C)."""
    _, blocks, chunks, width = sums.shape
    totals = np.zeros((2, blocks, channels))
    for i in range(2):
        for b in range(blocks):
            for k in range(chunks):
                line, total = sums[i, b, k], totals[i, b]
                for first in range(0, width, channels):
                    for c in range(U(channels)):
                        total[c] += line[U(first) + c]
    return totals


def normalize(x: Any, line: Any, floor: float, y: Any) -> Any:
    """y = max((x − line₀)·line₁ + line₂, floor)"""
    if y is None:
        y = memory.empty(x.shape, x.dtype)
    walk = _Walk(x, y)
    _normalize(*walk.place(x), walk.shape, walk.chunk, walk.repeat(line), x.dtype.type(floor), *walk.place(y))
    return y


@njit(parallel=True, nogil=True, cache=True)
def _normalize(x, step, shape, chunk, line, floor, y, y_step):  # type: ignore[no-untyped-def]
    blocks, height, width = shape
    chunks = (height + chunk - 1) // chunk
    for i in prange(blocks * chunks):
        b, k = (blocks * chunks - 1 - i) // chunks, chunks - 1 - i % chunks  # backwards: what was read last is still in the cache
        centre, scale, shift = line[0, b], line[1, b], line[2, b]
        for p in range(b * height + k * chunk, b * height + min((k + 1) * chunk, height)):
            at, to = U(p * step), U(p * y_step)
            for c in range(U(width)):
                z = (x[at + c] - centre[c]) * scale[c] + shift[c]
                y[to + c] = floor if z < floor else z  # NaN stays


def sums(gy: Any, x: Any, line: Any, floor: float) -> Any:
    """Σ_p g and Σ_p g·(x − line₀), where g is ∂y that came through the floor"""
    walk = _Walk(gy, x)
    places = (*walk.place(gy), *walk.place(x))
    sums = walk.two_sums()
    _sums(*places, walk.shape[1], walk.chunk, walk.repeat(line), x.dtype.type(floor), sums)
    return _total(sums, x.shape[2])


@njit(parallel=True, nogil=True, cache=True)
def _sums(gy, gy_step, x, x_step, height, chunk, line, floor, sums):  # type: ignore[no-untyped-def]
    _, blocks, chunks, width = sums.shape
    for i in prange(blocks * chunks):
        b, k = i // chunks, i % chunks
        centre, scale, shift, first, second = line[0, b], line[1, b], line[2, b], sums[0, b, k], sums[1, b, k]
        start, end = b * height + k * chunk, b * height + min((k + 1) * chunk, height)
        quarter = (end - start) // 4
        for p in range(start, start + quarter):
            p1, p2, p3 = p + quarter, p + 2 * quarter, p + 3 * quarter
            a0, a1, a2, a3 = U(p * gy_step), U(p1 * gy_step), U(p2 * gy_step), U(p3 * gy_step)
            b0, b1, b2, b3 = U(p * x_step), U(p1 * x_step), U(p2 * x_step), U(p3 * x_step)
            for c in range(U(width)):
                d0, d1, d2, d3 = x[b0 + c] - centre[c], x[b1 + c] - centre[c], x[b2 + c] - centre[c], x[b3 + c] - centre[c]
                g0 = _through(gy[a0 + c], d0 * scale[c] + shift[c], floor)
                g1 = _through(gy[a1 + c], d1 * scale[c] + shift[c], floor)
                g2 = _through(gy[a2 + c], d2 * scale[c] + shift[c], floor)
                g3 = _through(gy[a3 + c], d3 * scale[c] + shift[c], floor)
                first[c] += (g0 + g1) + (g2 + g3)
                second[c] += (g0 * d0 + g1 * d1) + (g2 * d2 + g3 * d3)
        for p in range(start + 4 * quarter, end):
            a0, b0 = U(p * gy_step), U(p * x_step)
            for c in range(U(width)):
                d = x[b0 + c] - centre[c]
                g = _through(gy[a0 + c], d * scale[c] + shift[c], floor)
                first[c] += g
                second[c] += g * d


def grad_x(gy: Any, x: Any, line: Any, floor: float) -> Any:
    """∂x = line₁·g + line₃·(x − line₀) + line₄, where g is ∂y that came through the floor"""
    walk = _Walk(gy, x)
    gx = memory.empty(x.shape, x.dtype)
    places = (*walk.place(gy), *walk.place(x))
    _grad_x(*places, walk.shape, walk.chunk, walk.repeat(line), x.dtype.type(floor), gx.reshape(-1))
    return gx


@njit(parallel=True, nogil=True, cache=True)
def _grad_x(gy, gy_step, x, x_step, shape, chunk, line, floor, gx):  # type: ignore[no-untyped-def]
    blocks, height, width = shape
    chunks = (height + chunk - 1) // chunk
    for i in prange(blocks * chunks):
        b, k = (blocks * chunks - 1 - i) // chunks, chunks - 1 - i % chunks  # backwards: what was read last is still in the cache
        centre, scale, shift, slope, offset = line[0, b], line[1, b], line[2, b], line[3, b], line[4, b]
        for p in range(b * height + k * chunk, b * height + min((k + 1) * chunk, height)):
            a, at, to = U(p * gy_step), U(p * x_step), U(p * width)
            for c in range(U(width)):
                d = x[at + c] - centre[c]
                gx[to + c] = scale[c] * _through(gy[a + c], d * scale[c] + shift[c], floor) + slope[c] * d + offset[c]


@njit(nogil=True, cache=True)
def _through(g, z, floor):  # type: ignore[no-untyped-def]
    """The gradient passes where the result was above the floor; NaN is no reason to stop it."""
    return type(g)(0) if z <= floor else g
