"""Dropout on the GPU: one thread for each Philox counter, one for each product."""

from __future__ import annotations

from math import prod
from typing import Any

from minunet.arrays import array_module, back_from, memory_order
from minunet.cuda import Source, blocks_for
from minunet.ops.activation.gpu import rows
from minunet.ops.dropout import ref

SOURCE = Source(__file__, "dropout.cu")
THREADS = 256


def draw(x: Any, shape: tuple[int, ...], key: Any, p: float) -> Any:
    """k of that shape, as booleans, laid out with the channels last: the mask of `ref.draw`."""
    counters = 16 * ref.blocks(shape)
    kept = array_module(x).empty(4 * counters, bool)
    kernel = SOURCE.kernel("dropout_draw", x.dtype)
    kernel(blocks_for(counters, THREADS), THREADS, kept, counters, key, ref.threshold(p))
    return ref.in_order(kept[: prod(shape)], shape)


def scale(x: Any, kept: Any, factor: float) -> Any:
    """x·k·factor, in the memory order of x"""
    if kept.shape != x.shape:
        return ref.scale(x, kept, factor)  # one k for a whole map
    order = memory_order(x)
    x, kept = x.transpose(order), kept.transpose(order)
    y = array_module(x).empty(x.shape, x.dtype)
    (x, kept), width = rows(x, kept)
    SOURCE.kernel("dropout_scale", x.dtype)(blocks_for(y.size, THREADS), THREADS, x, kept, y, y.size, width, factor)
    return y.transpose(back_from(order))
