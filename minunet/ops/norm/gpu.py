"""Normalisation on the GPU: how (B, P, C) is cut for the kernels of norm.cu.

A block of threads has a chunk of pixels of up to 32 channels. Statistics take two launches: the chunks, then the chunks joined.
"""

from __future__ import annotations

from typing import Any

from minunet.arrays import array_module
from minunet.cuda import Source, blocks_for

SOURCE = Source(__file__, "norm.cu")
THREADS = 256
WARP = 32
EACH = 64  # pixels of a thread: enough to make little of the sums that a block leaves behind


class _Walk:
    """Blocks of width × height threads: channels × pixels, both powers of two. With few pixels there are fewer threads."""

    def __init__(self, x: Any) -> None:
        blocks, pixels, channels = x.shape
        width = min(_power(channels), WARP)
        height = max(min(_power(pixels), THREADS // width), WARP // width)
        tiles, chunk = blocks_for(channels, width), EACH * height
        chunks = blocks_for(pixels, chunk)
        self.grid, self.block = blocks * chunks * tiles, (width, height)
        self.told = {"tiles": tiles, "chunks": chunks, "chunk": chunk, "channels": channels, "pixels": pixels}
        self.parts = (2, blocks, channels, chunks)


def _power(n: int) -> int:
    """The power of two that is not below n."""
    return 1 << max(n - 1, 0).bit_length()


def moments(x: Any, groups: int) -> tuple[Any, Any]:
    """Mean and biased variance of each group, (B, groups)."""
    xp, walk = array_module(x), _Walk(x)
    parts, joined = xp.empty(walk.parts, "float64"), xp.empty((2, x.shape[0], groups), "float64")
    SOURCE.kernel("norm_moments", x.dtype)(walk.grid, walk.block, x, parts, parts[0].size, walk.told)
    SOURCE.kernel("norm_join", x.dtype)(joined[0].size, THREADS, parts, joined, parts[0].size, x.shape[2] // max(groups, 1), walk.told)
    return joined[0], joined[1]


def normalize(x: Any, line: Any, floor: float, y: Any) -> Any:
    """y = max((x − line₀)·line₁ + line₂, floor); y: (B, P, C) to write into, or None"""
    if y is None:
        y = array_module(x).empty(x.shape, x.dtype)
    walk = _Walk(x)
    SOURCE.kernel("norm_normalize", x.dtype)(walk.grid, walk.block, x, line, line[0].size, y, floor, walk.told)
    return y


def sums(gy: Any, x: Any, line: Any, floor: float) -> tuple[Any, Any]:
    """Σ_p g and Σ_p g·(x − line₀), where g is ∂y that came through the floor"""
    xp, walk = array_module(x), _Walk(x)
    parts, totals = xp.empty(walk.parts, "float64"), xp.empty(walk.parts[:3], "float64")
    kernel = SOURCE.kernel("norm_sums", x.dtype)
    kernel(walk.grid, walk.block, gy, x, line, line[0].size, parts, parts[0].size, floor, walk.told)
    SOURCE.kernel("norm_total", x.dtype)(totals.size, THREADS, parts, totals, walk.parts[3])
    return totals[0], totals[1]


def grad_x(gy: Any, x: Any, line: Any, floor: float) -> Any:
    """∂x = line₁·g + line₃·(x − line₀) + line₄, where g is ∂y that came through the floor"""
    gx = array_module(x).empty(x.shape, x.dtype)
    walk = _Walk(x)
    SOURCE.kernel("norm_grad_x", x.dtype)(walk.grid, walk.block, gy, x, line, line[0].size, gx, floor, walk.told)
    return gx
