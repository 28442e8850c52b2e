"""Maximum pooling, the definition: one pass for each place k in the window, on slices of whole arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np

from minunet.arrays import array_module, is_float, rounded, widened
from minunet.ops.pool.windows import Windows


def places(windows: Windows) -> Iterator[tuple[int, Any, Any]]:
    """For each place k in the window: its number, the outputs p whose element k lies inside the input, and those elements."""
    for number, place in enumerate(product(*map(range, windows.kernel))):
        outputs: list[Any] = [...]
        inputs: list[Any] = [...]
        for k, n, out, s, d, b in zip(
            place, windows.spatial, windows.outputs, windows.stride, windows.dilation, windows.before, strict=True
        ):
            shift = d * k - b  # output p reads element s·p + shift
            first = max(-(shift // s), 0)
            stop = max(min((n - 1 - shift) // s + 1, out), first)
            outputs.append(slice(first, stop))
            inputs.append(slice(s * first + shift, max(s * stop + shift - s + 1, 0), s))
        yield number, tuple(outputs), tuple(inputs)


def max_forward(x: Any, windows: Windows) -> tuple[Any, Any]:
    """y and, for each output, the number of the place that won (−1 if the window misses the input)."""
    xp = array_module(x)
    y = xp.full(x.shape[:2] + windows.outputs, lowest(x), dtype=x.dtype)
    winners = xp.full(y.shape, -1, dtype=winner_dtype(windows))
    for number, outputs, inputs in places(windows):
        candidate, best, winner = x[inputs], y[outputs], winners[outputs]  # the last two are views
        better = (candidate > best) | (candidate != candidate) | (winner < 0)
        best[better] = candidate[better]
        winner[better] = number
    return y, winners


def lowest(x: Any) -> Any:
    """The maximum of no elements: −∞, or the least integer."""
    return x.dtype.type(-np.inf if is_float(x) else np.iinfo(x.dtype).min)


@lru_cache(maxsize=128)
def winner_dtype(windows: Windows) -> Any:
    """The smallest signed integer that counts the places of a window."""
    return np.min_scalar_type(-math.prod(windows.kernel))


def max_backward(gy: Any, winners: Any, windows: Windows) -> Any:
    wide = widened(gy)
    gx = array_module(gy).zeros(gy.shape[:2] + windows.spatial, dtype=wide.dtype)
    for number, outputs, inputs in places(windows):
        gx[inputs] += wide[outputs] * (winners[outputs] == number)
    return rounded(gx, gy)
