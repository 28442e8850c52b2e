"""Winograd's convolution on the GPU: four passes over memory for a quarter of the multiplications. winograd.cu has the formulas.

    image   →  v (36, tiles, C)   ┐
                                  ├→  36 products of matrices  →  m (36, tiles, O)  →  y
    weights →  u (36, O, C)       ┘

∂x is the same sum with ∂y as the image, and turned weights. For ∂w the sum runs over tiles:

    image   →  v (36, tiles, C)   ┐
                                  ├→  36 products of matrices  →  parts (…, 36, C, O)  →  ∂w
    ∂y      →  v (36, tiles, O)   ┘

For 128 and for 512 channels the errors are 2.2 times those of the direct sum in float32 for y, 2.5 times for ∂x, 6.6 times for ∂w.

v and m would take gigabytes, so tiles are held a chunk at a time. Chunk after chunk is added to the same parts, and these in order: two
runs give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minunet.arrays import array_module
from minunet.cuda import Source, blocks_for
from minunet.ops.conv.tile import LINE, THREADS_OF_A_TILE, panels, rows_for, width_for

SOURCE = Source(__file__, "winograd.cu")
THREADS = 256
SLICE = LINE // 4  # terms of float32
OUT, TAPS, PLACES = 4, 3, 36  # pixels of a tile along an axis, taps, places
WORKSPACE = 512 << 20  # bytes that the tiles of a chunk may take
BLOCKS = 512  # that ∂w is shared among: each adds what it has to memory, for every chunk
FEW = 32  # channels: below, the passes over memory cost more than the multiplications that they save


def fits(kernel: tuple[int, ...], channels: int, outputs: int) -> bool:
    """Whether the kernels can have these, and gain by it. Channels are read in fours."""
    return kernel == (TAPS, TAPS) and min(channels, outputs) >= FEW and channels % 4 == outputs % 4 == 0


def convolve(x: Any, w: Any, b: Any, before: tuple[int, ...], y: Any, relu: bool) -> None:
    """y[n,o,p] = b[o] + Σ_c Σ_k x̄[n,c,p−before+k]·w[o,c,k]"""
    channels, outputs = x.shape[1], y.shape[1]
    u = array_module(x).empty((PLACES, outputs, channels), dtype=x.dtype)
    _launch("winograd_weights", u[0].size, w, u, channels, outputs)
    columns = width_for(outputs)
    v, m = (array_module(x).empty((PLACES, _most(y, channels), length), dtype=x.dtype) for length in (channels, outputs))
    for tiles in _chunks(y, channels):
        count = tiles["count"]
        _launch("winograd_image", count * channels, x, v, tiles, channels, *x.shape[2:], *before)
        grid = blocks_for(count, rows_for(columns)) * blocks_for(outputs, columns), PLACES
        SOURCE.kernel(f"winograd_product_{columns}", x.dtype)(
            grid, THREADS_OF_A_TILE, v, u, m, count, outputs, channels, shared=panels(columns)
        )
        _launch("winograd_result", count * outputs, m, b, y, tiles, outputs, *y.shape[2:], relu)


def turned(w: Any) -> Any:
    """The weights that make ∂x of ∂y: C and O exchanged, the last tap first."""
    return w.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]


def grad_w(x: Any, gy: Any, before: tuple[int, ...], bias: bool) -> tuple[Any, Any]:
    """∂w (O, C, 3, 3), and ∂b (O) where `bias` asks for it, else None."""
    xp, channels, outputs = array_module(x), x.shape[1], gy.shape[1]
    rows, columns = max(channels, outputs), min(channels, outputs)  # a tile of sums has more rows where there are few columns
    width = width_for(columns)
    blocks = blocks_for(rows, rows_for(width)) * blocks_for(columns, width)
    most = _most(gy, channels)
    terms_of_a_part = blocks_for(blocks_for(most, max(BLOCKS // (blocks * PLACES), 1)), SLICE) * SLICE
    parts = xp.empty((max(blocks_for(most, max(terms_of_a_part, 1)), 1), PLACES, rows, columns), dtype=x.dtype)
    totals = xp.empty((_tiles(gy), outputs), dtype=x.dtype) if bias else None
    of_x, of_gy = (xp.empty((PLACES, most, length), dtype=x.dtype) for length in (channels, outputs))
    a, b = (of_x, of_gy) if channels >= outputs else (of_gy, of_x)
    for tiles in _chunks(gy, channels):
        count = tiles["count"]
        _launch("winograd_image", count * channels, x, of_x, tiles, channels, *x.shape[2:], *before)
        _launch("winograd_gradient", count * outputs, gy, of_gy, totals, tiles, outputs, *gy.shape[2:])
        grid = blocks, PLACES, len(parts)
        more = tiles["first"] > 0
        SOURCE.kernel(f"winograd_sum_{width}", x.dtype)(
            grid, THREADS_OF_A_TILE, a, b, parts, rows, columns, count, terms_of_a_part, more, shared=panels(width)
        )
    gw = xp.empty((TAPS, TAPS, channels, outputs), dtype=x.dtype)
    summed = parts if channels >= outputs else parts.transpose(0, 1, 3, 2)
    _launch("winograd_grad_w", channels * outputs, summed, gw, len(parts), channels, outputs)
    gb = None
    if bias:
        gb = xp.empty(outputs, dtype=x.dtype)
        SOURCE.kernel("winograd_grad_b", x.dtype)(outputs, 1024, totals, gb, _tiles(gy), outputs)
    return gw.transpose(3, 2, 0, 1), gb


def _launch(name: str, threads: int, array: Any, *arguments: Any) -> None:
    SOURCE.kernel(name, array.dtype)(blocks_for(threads, THREADS), THREADS, array, *arguments)


def _tiles(y: Any) -> int:
    return y.shape[0] * blocks_for(y.shape[2], OUT) * blocks_for(y.shape[3], OUT)


def _most(y: Any, channels: int) -> int:
    """Tiles of a chunk: as many in each, in whole tiles of their products."""
    rows = rows_for(width_for(y.shape[1]))
    tiles = _tiles(y)
    held = max(WORKSPACE // (PLACES * y.dtype.itemsize * (channels + y.shape[1])) // rows, 1) * rows
    return min(blocks_for(blocks_for(tiles, max(blocks_for(tiles, held), 1)), rows) * rows, tiles)


def _chunks(y: Any, channels: int) -> Iterator[dict[str, Any]]:
    """`struct Tiles` of winograd.cu for each chunk of y's tiles. An empty batch has one chunk, of no tiles: its ∂w is 0."""
    tiles, most = _tiles(y), _most(y, channels)
    for first in range(0, max(tiles, 1), max(most, 1)):
        count = min(most, tiles - first)
        yield {"first": first, "count": count, "down": blocks_for(y.shape[2], OUT), "across": blocks_for(y.shape[3], OUT)}
