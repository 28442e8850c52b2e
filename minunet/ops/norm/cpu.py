"""Normalisation in Numba: every kernel passes once over its arrays, (B, P, C) with the channels innermost, where they fill vectors.

The pixels of a block are cut into chunks of fixed size, which run in parallel. Sums have two levels: of some numbers in the arrays' own
dtype, which is fast, then in float64, which is exact enough. The chunks' sums are added in order: the result does not depend on the
number of threads.

The formulas are vector code, applied by `simd.make_rows`; x is the vectors read, k the constants of their channels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from minunet import memory
from minunet.arrays import lines
from minunet.simd import PADDING, all_tasks, make_rows, share

U = np.uintp  # an index that cannot be negative: Numba then asks nothing at each element

CHUNK = 32768  # elements: some microseconds of work, held by the second cache
LINES = 64  # that a chunk has at least: its sums cost as much as some lines
LINE = 64  # elements that a line should have, so that it fills some vectors
SAMPLED = 16  # pixels whose mean stands for the block's as long as that is not known

Walk = tuple[int, int, int, int, int, int]


@lru_cache(maxsize=256)  # a network asks for the same few in every step
def _walk(shape: tuple[int, int, int], dense: bool) -> Walk:
    """How (B, P, C) arrays are walked, as (B, lines, width): a line is one pixel or several that lie side by side in memory.

    blocks, lines of a block, width, channels, lines of a chunk, chunks of a block.
    """
    blocks, pixels, channels = shape
    fold = 1
    if pixels and dense:
        while pixels % (2 * fold) == 0 and 2 * fold * channels <= LINE:
            fold *= 2
    height, width = pixels // fold, fold * channels
    chunk = max(CHUNK // max(width, 1), LINES)
    return blocks, height, width, channels, chunk, -(-height // chunk)


def _walk_over(*arrays: Any) -> tuple[Walk, list[Any]]:
    """The walk, and for each array its memory and the distance from one line to the next.

    An array may be a slice of a wider one: its lines then have memory of others between them.
    """
    dense = all(a.flags.c_contiguous for a in arrays)
    walk = _walk(arrays[0].shape, dense)
    return walk, [part for a in arrays for part in ((a.reshape(-1), walk[2]) if dense else lines(a))]


def _two_sums(walk: Walk) -> Any:
    """For each chunk and place of a line, twice."""
    blocks, _, width, _, _, chunks = walk
    return memory.empty((2, blocks * chunks, -(-width // PADDING) * PADDING), np.float64)


def _moments_of(emit: Any, x: Any, k: Any, floor: Any) -> Any:
    d = emit.subtract(x[0], k[0])
    return [d, emit.multiply(d, d)]


def _straight(emit: Any, d: Any, k: Any) -> Any:
    return emit.fma(d, k[1], k[2])


def _normalized(emit: Any, x: Any, k: Any, floor: Any) -> Any:
    return [emit.at_least(_straight(emit, emit.subtract(x[0], k[0]), k), floor)]  # NaN stays


def _through(emit: Any, x: Any, k: Any, floor: Any) -> Any:
    """g and d = x − line₀: the gradient passes where the result was above the floor; NaN is no reason to stop it."""
    d = emit.subtract(x[1], k[0])
    return emit.where_above(_straight(emit, d, k), floor, x[0]), d


def _sums_of(emit: Any, x: Any, k: Any, floor: Any) -> Any:
    g, d = _through(emit, x, k, floor)
    return [g, emit.multiply(g, d)]


def _gradient(emit: Any, x: Any, k: Any, floor: Any) -> Any:
    g, d = _through(emit, x, k, floor)
    return [emit.fma(k[1], g, emit.fma(k[3], d, k[4]))]


_add_moments = make_rows(_moments_of, inputs=1, constants=1, totals=2)
_store_normalized = make_rows(_normalized, inputs=1, constants=3)
_add_sums = make_rows(_sums_of, inputs=2, constants=3, totals=2)
_store_gradient = make_rows(_gradient, inputs=2, constants=5)


def moments(x: Any, groups: int) -> Any:
    """Mean and biased variance of each group, in one pass: sums of d and d² with d = x − (the mean of a few pixels), which is about as
    large as the spread whatever the mean is, so that little cancels. Then the channels of a group are joined."""
    walk, place = _walk_over(x)
    origins, sums = _origins(*place, walk), _two_sums(walk)
    _moments(all_tasks(), *place, walk, origins, sums)
    return _joined(sums, walk, origins, groups)


@njit(nogil=True, cache=True)
def _moments(mine, x, step, walk, origins, sums):  # type: ignore[no-untyped-def]
    blocks, height, width, _, chunk, chunks = walk
    table, zero = _repeat(origins, width), x.dtype.type(0)
    for i in share(mine, blocks * chunks):
        b, start = i // chunks, i % chunks * chunk
        source, count = x.ctypes.data + (b * height + start) * step * x.itemsize, min(chunk, height - start)
        target = _cleared(sums, i)
        _add_moments((source,), (step,), target, sums[0].size, count, width, table[b].ctypes.data, width, zero)


@njit(nogil=True, cache=True)
def _origins(x, step, walk):  # type: ignore[no-untyped-def]
    """The mean over some pixels of each block, (1, B, C)."""
    blocks, height, _, channels, _, _ = walk
    origins = np.zeros((1, blocks, channels), x.dtype)
    count = min(height, SAMPLED)
    for b in range(blocks):
        origin = origins[0, b]
        for p in range(count):
            at = U((b * height + p * (height // count)) * step)
            for c in range(U(channels)):
                origin[c] += x[at + c]
        for c in range(U(channels)):
            origin[c] /= x.dtype.type(max(count, 1))
    return origins


@njit(nogil=True, cache=True)
def _cleared(sums, i):  # type: ignore[no-untyped-def]
    """The address of chunk i's first sums, set to 0 like the second ones."""
    for line in sums[:, i]:
        for c in range(U(line.size)):
            line[c] = 0
    return sums[0, i].ctypes.data


@njit(nogil=True, cache=True)
def _repeat(values, width):  # type: ignore[no-untyped-def]
    """Numbers for each channel, (K, B, C) → for each place of a line, (B, K, width)."""
    many, blocks, channels = values.shape
    table = np.empty((blocks, many, width), values.dtype)
    for b in range(blocks):
        for k in range(many):
            line, value = table[b, k], values[k, b]
            for first in range(0, width, channels):
                for c in range(U(channels)):
                    line[U(first) + c] = value[c]
    return table


@njit(nogil=True, cache=True)
def _total(sums, walk):  # type: ignore[no-untyped-def]
    """The sums of all chunks, and of the pixels of a line: (2, B·chunks, width) → (2, B, C)."""
    blocks, _, width, channels, _, chunks = walk
    totals = np.zeros((2, blocks, channels))
    for i in range(2):
        for b in range(blocks):
            for k in range(b * chunks, (b + 1) * chunks):
                for first in range(0, width, channels):
                    for c in range(channels):
                        totals[i, b, c] += sums[i, k, first + c]
    return totals


@njit(nogil=True, cache=True, error_model="numpy")
def _joined(sums, walk, origins, groups):  # type: ignore[no-untyped-def]
    """Σ d and Σ d² of each chunk → mean and variance of each group, (2, B, G)."""
    blocks, height, width, channels, _, _ = walk
    totals, count = _total(sums, walk), max(height * width // max(channels, 1), 1)
    each = channels // max(groups, 1)
    results = np.empty((2, blocks, groups))
    for b in range(blocks):
        origin, first, second = origins[0, b], totals[0, b], totals[1, b]
        for c in range(U(channels)):  # → the mean and the variance of each channel
            d = first[c] / count
            first[c], second[c] = origin[c] + d, second[c] / count - d * d
        for g in range(groups):
            mean, variance = 0.0, 0.0
            for c in range(U(g * each), U((g + 1) * each)):
                mean += first[c] / each
            for c in range(U(g * each), U((g + 1) * each)):
                variance += (max(second[c], 0.0) + (first[c] - mean) ** 2) / each
            results[0, b, g], results[1, b, g] = mean, variance
    return results


def normalize(x: Any, line: Any, floor: float, y: Any) -> Any:
    """y = max((x − line₀)·line₁ + line₂, floor)"""
    if y is None or not np.may_share_memory(lines(y)[0], y):  # what cannot be written in place is delivered
        y = memory.empty(x.shape, x.dtype)
    walk, places = _walk_over(x, y)
    _normalize(all_tasks(), *places, walk, line, x.dtype.type(floor))
    return y


@njit(nogil=True, cache=True)
def _normalize(mine, x, step, y, y_step, walk, line, floor):  # type: ignore[no-untyped-def]
    blocks, height, width, _, chunk, chunks = walk
    table = _repeat(line, width)
    for i in share(mine, blocks * chunks):
        last = blocks * chunks - 1 - i  # backwards: what was read last is still in the cache
        b, start = last // chunks, last % chunks * chunk
        first, count = b * height + start, min(chunk, height - start)
        source, target = x.ctypes.data + first * step * x.itemsize, y.ctypes.data + first * y_step * y.itemsize
        _store_normalized((source,), (step,), target, y_step, count, width, table[b].ctypes.data, width, floor)


def sums(gy: Any, x: Any, line: Any, floor: float) -> Any:
    """Σ_p g and Σ_p g·(x − line₀), where g is ∂y that came through the floor"""
    walk, places = _walk_over(gy, x)
    both = _two_sums(walk)
    _sums(all_tasks(), *places, walk, line, x.dtype.type(floor), both)
    return _total(both, walk)


@njit(nogil=True, cache=True)
def _sums(mine, gy, gy_step, x, x_step, walk, line, floor, sums):  # type: ignore[no-untyped-def]
    blocks, height, width, _, chunk, chunks = walk
    table = _repeat(line, width)
    for i in share(mine, blocks * chunks):
        b, start = i // chunks, i % chunks * chunk
        first, count = b * height + start, min(chunk, height - start)
        sources = (gy.ctypes.data + first * gy_step * gy.itemsize, x.ctypes.data + first * x_step * x.itemsize)
        target = _cleared(sums, i)
        _add_sums(sources, (gy_step, x_step), target, sums[0].size, count, width, table[b].ctypes.data, width, floor)


def grad_x(gy: Any, x: Any, line: Any, floor: float) -> Any:
    """∂x = line₁·g + line₃·(x − line₀) + line₄, where g is ∂y that came through the floor"""
    walk, places = _walk_over(gy, x)
    gx = memory.empty(x.shape, x.dtype)
    _grad_x(all_tasks(), *places, walk, line, x.dtype.type(floor), gx.reshape(-1))
    return gx


@njit(nogil=True, cache=True)
def _grad_x(mine, gy, gy_step, x, x_step, walk, line, floor, gx):  # type: ignore[no-untyped-def]
    blocks, height, width, _, chunk, chunks = walk
    table = _repeat(line, width)
    for i in share(mine, blocks * chunks):
        last = blocks * chunks - 1 - i  # backwards: what was read last is still in the cache
        b, start = last // chunks, last % chunks * chunk
        first, count = b * height + start, min(chunk, height - start)
        sources = (gy.ctypes.data + first * gy_step * gy.itemsize, x.ctypes.data + first * x_step * x.itemsize)
        target = gx.ctypes.data + first * width * gx.itemsize
        _store_gradient(sources, (gy_step, x_step), target, width, count, width, table[b].ctypes.data, width, floor)
