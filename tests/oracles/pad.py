"""Oracle of padding: one output element at a time."""

import numpy as np


def _place(i, before, after, n, mode):
    """The input's place that output place i is a copy of; None outside, in mode 'constant'."""
    j = i - before
    if mode == "constant":
        return j if 0 <= j < n else None
    if mode == "replicate":
        return min(max(j, 0), n - 1)
    if mode == "reflect":
        while not 0 <= j < n:
            j = -j if j < 0 else 2 * (n - 1) - j
        return j
    first, last = max(-before, 0), n - 1 + min(after, 0)
    while j < first:
        j += last - first + 1
    while j > last:
        j -= last - first + 1
    return j


def pad(x, pad, mode="constant", value=None):
    pairs = [(0, 0)] * x.ndim
    for axis in range(len(pad) // 2):
        pairs[-1 - axis] = (pad[2 * axis], pad[2 * axis + 1])
    y = np.empty([n + before + after for n, (before, after) in zip(x.shape, pairs, strict=True)])
    for place in np.ndindex(*y.shape):
        source = tuple(
            _place(i, *pair, n, mode if axis >= x.ndim - len(pad) // 2 else "constant")
            for axis, (i, pair, n) in enumerate(zip(place, pairs, x.shape, strict=True))
        )
        y[place] = (value or 0) if None in source else x[source]
    return y
