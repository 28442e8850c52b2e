"""Addition in Numba, in parallel over rows of pixels. A slice of a wider array is read where it lies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from minunet import memory
from minunet.arrays import as_volume, channels_first, in_place
from minunet.simd import all_tasks, share

U = np.uintp  # an index that cannot be negative: Numba then asks nothing at each element


def add(a: Any, b: Any) -> Any:
    if not 3 <= a.ndim <= 5 or a.nbytes < memory.SMALLEST:
        return a + b
    y = memory.empty((a.shape[0], *a.shape[2:], a.shape[1]), a.dtype)
    _add(all_tasks(), *in_place(a), *in_place(b), as_volume(y).shape, y.reshape(-1))
    return channels_first(y)


@njit(nogil=True, cache=True)
def _add(mine, a, a_steps, b, b_steps, shape, y):  # type: ignore[no-untyped-def]
    samples, depth, height, width, channels = shape
    for row in share(mine, samples * depth * height):
        n, d, h = row // (depth * height), row // height % depth, row % height
        for w in range(width):
            i = n * a_steps[0] + d * a_steps[1] + h * a_steps[2] + w * a_steps[3]
            j = n * b_steps[0] + d * b_steps[1] + h * b_steps[2] + w * b_steps[3]
            to = (row * width + w) * channels
            for c in range(U(channels)):
                y[U(to) + c] = a[U(i) + c] + b[U(j) + c]
