"""Dropout with Numba. The mask costs less than the product: 16 counters go through Philox side by side, in vectors."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numba import njit, uint32, uint64

from minunet import memory
from minunet.arrays import as_volume, channels_first, channels_last, in_place
from minunet.ops.dropout import ref
from minunet.ops.dropout.ref import KEY_STEPS, MULTIPLIERS, ROUNDS
from minunet.simd import all_tasks, share

CHUNK = 256  # blocks of 64 elements that a thread takes at a time


def draw(x: Any, shape: tuple[int, ...], key: Any, p: float) -> Any:
    kept = memory.empty((64 * ref.blocks(shape),), np.bool_)
    _draw(all_tasks(), kept, key[0], key[1], np.uint32(ref.threshold(p)))
    return ref.in_order(kept[: prod(shape)], shape)


def scale(x: Any, kept: Any, factor: float) -> Any:
    if kept.shape != x.shape:
        return ref.scale(x, kept, factor)  # one k for a whole map
    if 3 <= x.ndim <= 5:
        y = memory.empty((x.shape[0], *x.shape[2:], x.shape[1]), x.dtype)
        _scale(all_tasks(), *in_place(x), channels_last(kept).reshape(-1), x.dtype.type(factor), as_volume(y).shape, y.reshape(-1))
        return channels_first(y)
    rows = x.shape[0] if x.ndim else 1
    width = x.size // max(rows, 1)  # there are no channels: each number is a pixel
    y = memory.empty(x.shape, x.dtype)
    _scale(all_tasks(), *in_place(x.reshape(rows, 1, width)), np.ravel(kept), x.dtype.type(factor), (rows, 1, 1, width, 1), y.reshape(-1))
    return y


@njit(nogil=True, cache=True)
def _draw(mine, kept, key0, key1, threshold):  # type: ignore[no-untyped-def]
    for chunk in share(mine, -(-kept.size // (64 * CHUNK))):
        for block in range(chunk * CHUNK, min((chunk + 1) * CHUNK, kept.size // 64)):
            for i in range(16):
                counter = uint64(16 * block + i)
                c0, c1, c2, c3 = uint32(counter), uint32(counter >> uint64(32)), uint32(0), uint32(0)
                k0, k1 = key0, key1
                for _ in range(ROUNDS):
                    a, b = uint64(c0) * uint64(MULTIPLIERS[0]), uint64(c2) * uint64(MULTIPLIERS[1])
                    c0, c1 = uint32(b >> uint64(32)) ^ c1 ^ k0, uint32(b)
                    c2, c3 = uint32(a >> uint64(32)) ^ c3 ^ k1, uint32(a)
                    k0, k1 = uint32(k0 + uint32(KEY_STEPS[0])), uint32(k1 + uint32(KEY_STEPS[1]))
                kept[uint64(64 * block + i)] = c0 >= threshold
                kept[uint64(64 * block + 16 + i)] = c1 >= threshold
                kept[uint64(64 * block + 32 + i)] = c2 >= threshold
                kept[uint64(64 * block + 48 + i)] = c3 >= threshold


@njit(nogil=True, cache=True)
def _scale(mine, x, steps, kept, factor, shape, y):  # type: ignore[no-untyped-def]
    samples, depth, height, width, channels = shape
    run = width * channels if steps[3] == channels else channels  # numbers side by side in x
    for row in share(mine, samples * depth * height):
        n, d, h = row // (depth * height), row // height % depth, row % height
        for i in range(0, width * channels, max(run, 1)):
            first, at = n * steps[0] + d * steps[1] + h * steps[2] + i // channels * steps[3], row * width * channels + i
            for c in range(run):
                y[uint64(at + c)] = x[uint64(first + c)] * (factor if kept[uint64(at + c)] else 0)
