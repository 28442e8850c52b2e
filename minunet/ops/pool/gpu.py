"""Maximum pooling on the GPU: shapes and grids for the kernels of pool.cu."""

from __future__ import annotations

import math
from typing import Any

from minunet.arrays import is_float
from minunet.cuda import Source, blocks_for
from minunet.ops.pool import ref
from minunet.ops.pool.windows import Windows
from minunet.volumes import empty, is_channels_last, is_wide, three, volume

SOURCE = Source(__file__, "pool.cu")
THREADS = 256  # of a block


def max_forward(x: Any, windows: Windows) -> tuple[Any, Any]:
    if not is_float(x):
        return ref.max_forward(x, windows)  # kernels are compiled for floating-point numbers
    y = empty(x, windows.outputs, x.dtype)
    winners = empty(x, windows.outputs, ref.winner_dtype(windows))
    _launch(f"max_forward_{winners.dtype}", y.size, windows, x, y, winners)
    return y, winners


def max_backward(gy: Any, winners: Any, windows: Windows) -> Any:
    gx = empty(winners, windows.spatial, gy.dtype)  # winners lie as the input did, gy as it likes
    cells = math.prod(_cells(windows)) * gx.shape[0] * gx.shape[1]
    _launch(f"max_backward_{winners.dtype}", cells, windows, gy, winners, gx)
    return gx


def _launch(kernel: str, count: int, windows: Windows, images: Any, *others: Any) -> None:
    """count: how many threads there are if each has one channel."""
    arrays, last = (images, *others), is_channels_last(others[-1])
    wide = last and is_wide(*arrays)
    threads = count // (16 // images.itemsize) if wide else count
    told = _told(windows, others[-1].shape, last, wide)
    SOURCE.kernel(kernel, images.dtype)(blocks_for(threads, THREADS), THREADS, *map(volume, arrays), told)


def _cells(windows: Windows) -> tuple[int, ...]:
    """How many pieces of `stride` elements cover the input with what lies before it."""
    return tuple(blocks_for(n + before, stride) for n, before, stride in zip(windows.spatial, windows.before, windows.stride, strict=True))


def _told(windows: Windows, shape: tuple[int, ...], channels_last: bool, wide: bool) -> dict[str, Any]:
    """`struct Windows` of pool.cu. Absent axes have one element and one place."""
    return {
        "samples": shape[0],
        "channels": shape[1],
        "in": three(windows.spatial),
        "out": three(windows.outputs),
        "kernel": three(windows.kernel),
        "stride": three(windows.stride),
        "before": three(windows.before, 0),
        "dilation": three(windows.dilation),
        "cells": three(_cells(windows)),
        "channels_last": channels_last,
        "wide": wide,
    }
