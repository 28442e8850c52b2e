"""Winograd's convolution: for 36 multiplications sixteen outputs of a 3×3 filter, which take 144, or four of a 5×5 one, which take 100.

A filter of 3 taps slid over 6 numbers gives 4. Read both as polynomials: the 4 results can be had from the values of the two
polynomials at 6 points, one multiplication each. In matrices, along both axes of an image,

    Y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ X B) ] A          X: 6×6 pixels of one channel, w: 3×3 taps, Y: 4×4 pixels, ⊙: point by point

This is F(4×4, 3×3). F(2×2, 5×5) has the same six points, so the same B, and a G and an A of its own.

The transforms cost little, and are shared: X's by all outputs, w's by all tiles, Y's by all input channels. What remains is, at
each of the 36 points, a matrix product over channels, (tiles × C) · (C × O). Tiles overlap by two pixels, or by four:

    ┌───────────┬───┐
    │ 4×4 of y  ┊   │ 6×6 of x
    │┄┄┄┄┄┄┄┄┄┄┄┘   │
    └───────────────┘

Two ways through the loops. `_by_tiles`: a block of tiles runs through all three stages while it stays in a core's second cache.
`_by_panels`: for the deep layers, with few tiles but more weights than a cache holds, all tiles are transformed once; then each task
takes a panel of outputs, whose transformed weights are used at once, while they are in the cache.

In a volume the transform is over height and width; the taps along the depth are summed at the 36 points, before the last transform.

The points are 0, ±3/4, ±3/2 and ∞. The usual 0, ±1, ±2, ∞ save nothing, and double the rounding error.

Sources: Lavin & Gray, Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308; for the points, Barabasz et al., Error
Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks, ACM TOMS 46 (2020).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import get_thread_id, njit
from numba.extending import register_jitable

from minunet import memory
from minunet.ops.conv.cpu.images import LARGE, as_image, in_elements, in_whole_lines
from minunet.simd import (
    CACHE_LINE,
    VECTOR_BYTES,
    address,
    all_tasks,
    block_for,
    lanes,
    make_transform,
    multiply,
    peek,
    poke,
    prefetch,
    prefetch_to_write,
    settle,
    share,
    thread_count,
    transpose,
)

POINTS = (0, 0.75, -0.75, 1.5, -1.5)  # and infinity
IN = len(POINTS) + 1  # pixels of a tile's input along one axis
SIDES = {3: 4, 5: 2}  # taps of a filter along one axis → the side of a tile, in pixels of its output
AREA = IN * IN


def cook_toom(points: tuple[float, ...], outputs: int, taps: int) -> tuple[Any, Any, Any]:
    """Aᵀ (outputs × n), G (n × taps) and Bᵀ (n × n) for n − 1 finite points and infinity, n = outputs + taps − 1.

    Row i of G evaluates the filter at point i, row i of Aᵀᵀ the output, and row i of Bᵀ holds the coefficients of Π_{j≠i}(x − p_j):
    Lagrange's interpolation, transposed.
    """
    n = outputs + taps - 1
    p = np.array(points)
    At, G, Bt = np.zeros((outputs, n)), np.zeros((n, taps)), np.zeros((n, n))
    for i in range(n - 1):
        others = np.delete(p, i)
        At[:, i] = p[i] ** np.arange(outputs)
        G[i] = p[i] ** np.arange(taps) / np.prod(p[i] - others)
        Bt[i, : n - 1] = np.polynomial.polynomial.polyfromroots(others)
    At[-1, -1] = G[-1, -1] = 1
    Bt[-1] = np.polynomial.polynomial.polyfromroots(p)
    return At, G, Bt


AT = {side: cook_toom(POINTS, side, taps)[0] for taps, side in SIDES.items()}  # for each side
G = {taps: cook_toom(POINTS, side, taps)[1] for taps, side in SIDES.items()}  # for each number of taps
BT = cook_toom(POINTS, 4, 3)[2]  # the same for all
_input, _gated_input = make_transform({0: BT}), make_transform({0: BT}, gated=True)
_filter = make_transform(G)
_output, _output_relu = (make_transform(AT, bias=True, relu=relu) for relu in (False, True))
_streamed, _streamed_relu = (make_transform(AT, bias=True, relu=relu, stream=True) for relu in (False, True))

BLOCK, SMALL_BLOCK, MANY = 48, 24, 64  # tiles that run through the three stages together; fewer from so many channels on
WASTE = 1 / 8  # of the outputs' vectors, for which a wider micro-kernel makes up: 97 outputs are 13 vectors of 8
PANEL_DEPTH = 64  # input channels whose transformed weights of a panel are held at a time
FEW_TILES = 150  # below, panels are the better tasks


def convolve(x: Any, gate: Any, taps: Any, bias: Any, before: tuple[int, int, int], y: Any, activation: str | None) -> None:
    """y[n,o,p] = bias[o] + Σ_c Σ_k x̄[n,c,p−before+k]·taps[k,c,o] for kd × 3 × 3 or kd × 5 × 5 taps; only where gate > 0 does x count.

    x, gate: (N, C, *axes); taps: (kd, k, k, C, O), any strides; y: (N, O, *axes), channels side by side.
    """
    image, result = as_image(x), as_image(y)
    opening = image if gate is None else as_image(gate)
    channels, outputs, (planes, along) = x.shape[1], y.shape[1], taps.shape[:2]
    side = SIDES[along]
    block, rows, wide = block_for(outputs, x.itemsize, WASTE)
    panels = -(-outputs // wide)
    across = lanes(x.itemsize)
    row = -(-channels // across) * across  # numbers in a row of transformed input
    padded_bias = np.zeros(panels * wide, dtype=x.dtype)
    if bias is not None:
        padded_bias[:outputs] = bias
    depth, tiles = result.sizes[1], _tiles_of_plane(result.sizes, side)
    threads = thread_count()
    squares = along**2 * across**2  # numbers of the filters that are brought into order at a time
    patches = np.zeros((threads, IN, IN, max(row, wide, -(-squares // AREA))), dtype=x.dtype)
    filters = (address(taps), *in_elements(taps.strides, x.itemsize))
    zero = x.dtype.type(0)
    options = (gate is not None, activation == "relu", side, block, wide, zero)
    if tiles * depth >= FEW_TILES:
        weights = memory.scratch((panels, AREA, planes, channels, wide), x.dtype)
        _transform_filters(all_tasks(), filters, outputs, weights, patches, along, zero)
        streamed = y.nbytes >= LARGE and in_whole_lines(result.walk, y.itemsize)
        blocks = -(-tiles // ((SMALL_BLOCK if channels >= MANY else BLOCK) * threads)) * threads
        largest = -(-tiles // blocks)
        held = -(-largest // rows) * rows
        parts = max(1, min(depth, 4 * threads // blocks))
        inputs = memory.scratch((threads, planes, AREA * (held * row + across)), x.dtype)
        products = memory.scratch((threads, AREA * (held * wide + across)), x.dtype)
        _by_tiles(
            all_tasks(), image.walk, opening.walk, image.sizes, weights, padded_bias, result.walk, result.sizes, before, blocks, parts,
            inputs, products, patches, streamed, *options,
        )  # fmt: skip
    else:
        held = -(-tiles * depth // rows) * rows
        inputs = memory.scratch((AREA, (tiles * (planes - 1) + held) * row + across), x.dtype)
        weights = memory.scratch((threads, AREA, PANEL_DEPTH * wide + across), x.dtype)
        products = memory.scratch((threads, AREA, held * wide + across), x.dtype)
        _transform_all(
            all_tasks(), image.walk, opening.walk, image.sizes, result.sizes, before, planes, inputs, patches, gate is not None, side, zero
        )
        _by_panels(
            all_tasks(), filters, channels, padded_bias, result.walk, result.sizes, planes, inputs, weights, products, patches, *options[1:]
        )


@njit(cache=True)
def _transform_input(x, gate, gated, inside, at, out, point, patch, zero):  # type: ignore[no-untyped-def]
    """One tile of all channels, the corner of its x at `at` = (n, d, h, w): 36 rows, `point` numbers apart, from address `out` on."""
    size = patch.itemsize
    across = VECTOR_BYTES // size
    n, d, h, w = at
    source = x[0] + size * (n * x[1] + d * x[2] + h * x[3] + w * x[4])
    opening = gate[0] + size * (n * gate[1] + d * gate[2] + h * gate[3] + w * gate[4])
    within = h >= 0 and w >= 0 and h + IN <= inside[2] and w + IN <= inside[3]
    direct = inside[4] // across * across if within else 0
    if direct < inside[4]:
        _fill_patch(source, x, opening, gate, gated, inside, h, w, direct, patch, zero)
    for c in range(0, inside[4], across):
        if gated and c < direct:
            _gated_input(0, source + size * c, x[3], x[4], out + size * c, IN * point, point, opening + size * c, gate[3], gate[4], 0, zero)
            continue
        corner, row, column = source, x[3], x[4]
        if c >= direct:
            corner, row, column = patch.ctypes.data, IN * patch.shape[2], patch.shape[2]
        _input(0, corner + size * c, row, column, out + size * c, IN * point, point, 0, 0, 0, 0, zero)


@njit(cache=True)
def _fill_patch(source, x, opening, gate, gated, inside, h, w, first, patch, zero):  # type: ignore[no-untyped-def]
    """What a tile at the border, or channels that fill no vector, read: a copy of the 6×6 pixels from channel `first` on, 0 outside."""
    size = patch.itemsize
    for i in range(IN):
        for j in range(IN):
            to = patch.ctypes.data + size * (IN * i + j) * patch.shape[2]
            pixel, open_pixel = source + size * (i * x[3] + j * x[4]), opening + size * (i * gate[3] + j * gate[4])
            if not (0 <= h + i < inside[2] and 0 <= w + j < inside[3]):
                for c in range(first, inside[4]):
                    poke(to, c, zero)
            elif gated:
                for c in range(first, inside[4]):
                    poke(to, c, peek(pixel, c, zero) if peek(open_pixel, c, zero) > zero else zero)
            else:
                for c in range(first, inside[4]):
                    poke(to, c, peek(pixel, c, zero))


@njit(cache=True)
def _transform_panel(w, plane, first, depth, o, outputs, wide, out, step, point, patch, taps, zero):  # type: ignore[no-untyped-def]
    """Filters of `taps` × `taps` from `depth` channels to `wide` outputs: 36 panels, `point` numbers apart, of rows `step` apart."""
    size = patch.itemsize
    across = VECTOR_BYTES // size
    corner = patch.ctypes.data
    area = across * across
    for v in range(0, wide, across):
        whole = o + v + across <= outputs
        for c0 in range(0, depth, across):
            source = w[0] + size * (plane * w[1] + (first + c0) * w[4] + (o + v) * w[5])
            count = min(across, depth - c0)
            if w[5] != 1 or not whole:  # bring squares of filters into (tap, c, o) order first
                for tap in range(taps * taps):
                    square, at = corner + size * tap * area, source + size * (tap // taps * w[2] + tap % taps * w[3])
                    if whole and w[4] == 1 and count == across:
                        transpose(at, w[5], square, across, zero)
                        continue
                    for c in range(count):
                        for l in range(across):
                            inside = o + v + l < outputs
                            poke(square, c * across + l, peek(at, c * w[4] + l * w[5], zero) if inside else zero)
            ordered, step_c, row, column = corner, across, taps * area, area
            if w[5] == 1 and whole:
                ordered, step_c, row, column = source, w[4], w[2], w[3]
            for c in range(count):
                to = out + size * ((c0 + c) * step + v)
                _filter(taps, ordered + size * c * step_c, row, column, to, IN * point, point, 0, 0, 0, 0, zero)


@njit(cache=True)
def _transform_output(products, point, y, shape, at, o, kept, bias, relu, streamed, patch, side, zero):  # type: ignore[no-untyped-def]
    """One tile of `kept` outputs from o on: 36 rows, `point` numbers apart, to y at `at` = (n, d, h, w), cut where y ends."""
    size = patch.itemsize
    across = VECTOR_BYTES // size
    n, d, h, w = at
    out = y[0] + size * (n * y[1] + d * y[2] + h * y[3] + w * y[4] + o)
    within = h + side <= shape[2] and w + side <= shape[3]
    direct = kept // across * across if within else 0
    stride = patch.shape[2]
    corner = patch.ctypes.data
    for v in range(0, kept, across):
        to, row, column = out, y[3], y[4]
        if v >= direct:
            to, row, column = corner, side * stride, stride
        source = products + size * v
        arguments = (side, source, IN * point, point, to + size * v, row, column, 0, 0, 0, bias + size * v, zero)
        if streamed and v < direct:
            if relu:
                _streamed_relu(*arguments)
            else:
                _streamed(*arguments)
        elif relu:
            _output_relu(*arguments)
        else:
            _output(*arguments)
    if direct == kept:
        return
    for i in range(min(side, shape[2] - h)):
        for j in range(min(side, shape[3] - w)):
            pixel, source = out + size * (i * y[3] + j * y[4]), corner + size * (side * i + j) * stride
            for v in range(direct, kept):
                poke(pixel, v, peek(source, v, zero))


@register_jitable
def _tiles_of_plane(shape, side):  # type: ignore[no-untyped-def]
    """How many tiles a plane of all images has."""
    return shape[0] * ((shape[2] + side - 1) // side) * ((shape[3] + side - 1) // side)


@njit(cache=True)
def _tile_at(q, shape, side):  # type: ignore[no-untyped-def]
    """Tile number q: (n, d, h, w) of its first output pixel. Those of a plane of all images come before those of the next plane."""
    tall, broad = (shape[2] + side - 1) // side, (shape[3] + side - 1) // side
    image = q // (tall * broad)
    return image % shape[0], image // shape[0], q // broad % tall * side, q % broad * side


@njit(cache=True)
def _next_tile(at, shape, side):  # type: ignore[no-untyped-def]
    """The tile after the one at (n, d, h, w), for two cycles; to divide its number again takes 40."""
    n, d, h, w = at
    w += side
    if w >= shape[3]:
        w, h = 0, h + side
        if h >= shape[2]:
            h, n = 0, n + 1
            if n >= shape[0]:
                n, d = 0, d + 1
    return n, d, h, w


@njit(cache=True)
def _prefetch(image, shape, at, side, channels, size, write):  # type: ignore[no-untyped-def]
    """Asks for side × side pixels from `at` = (n, d, h, w) on before they are needed, so that they come while other work is done."""
    n, d, h, w = at
    for i in range(max(0, h), min(h + side, shape[2])):
        for j in range(max(0, w), min(w + side, shape[3])):
            pixel = image[0] + size * (n * image[1] + d * image[2] + i * image[3] + j * image[4])
            for line in range(0, size * channels, CACHE_LINE):
                if write:
                    prefetch_to_write(pixel + line)
                else:
                    prefetch(pixel + line)


@njit(cache=True)
def _prefetch_filters(w, plane, first, depth, o, kept, part, parts, taps, size):  # type: ignore[no-untyped-def]
    """Asks for a part of the filters from `depth` channels to `kept` outputs: lines along whichever lies side by side."""
    rows, row, line = (depth, w[4], kept) if w[5] == 1 else (kept, w[5], depth)
    corner = w[0] + size * (plane * w[1] + first * w[4] + o * w[5])
    count = taps * taps * rows
    for i in range(count * part // parts, count * (part + 1) // parts):
        tap = i // rows
        at = corner + size * (tap // taps * w[2] + tap % taps * w[3] + i % rows * row)
        for l in range(0, size * line, CACHE_LINE):
            prefetch(at + l)


@njit(nogil=True, cache=True)
def _transform_filters(mine, w, outputs, weights, patches, taps, zero):  # type: ignore[no-untyped-def]
    """(kd, taps, taps, C, O) → (panel, point, kd, C, o within the panel)"""
    size = weights.itemsize
    panels, _, planes, channels, wide = weights.shape
    across = VECTOR_BYTES // size
    groups = (channels + across - 1) // across
    for task in share(mine, groups * panels):
        first, panel = task % groups * across, task // groups
        for plane in range(planes):
            out = weights.ctypes.data + size * ((panel * AREA * planes + plane) * channels + first) * wide
            point, patch, depth = planes * channels * wide, patches[get_thread_id()], min(across, channels - first)
            _transform_panel(w, plane, first, depth, panel * wide, outputs, wide, out, wide, point, patch, taps, zero)


@njit(nogil=True, cache=True)
def _by_tiles(  # type: ignore[no-untyped-def]
    mine, x, gate, inside, weights, bias, y, shape, before, blocks, parts, inputs, products, patches, streamed, gated, relu, side, block,
    wide, zero
):  # fmt: skip
    """One task: a block of tiles through some planes of y. The last kd planes of transformed input are kept, in turn."""
    size = weights.itemsize
    panels, _, planes, channels, _ = weights.shape
    across = VECTOR_BYTES // size
    tiles = _tiles_of_plane(shape, side)
    row = (channels + across - 1) // across * across
    point, out_point = inputs.shape[2] // AREA, products.shape[1] // AREA
    for task in share(mine, blocks * parts):
        thread = get_thread_id()
        patch, m = patches[thread], products.ctypes.data + size * thread * products.shape[1]
        begin = tiles * (task // parts) // blocks
        count = tiles * (task // parts + 1) // blocks - begin
        start, beyond = _tile_at(begin, shape, side), _tile_at(begin + count, shape, side)
        part = task % parts
        low, high = shape[1] * part // parts, shape[1] * (part + 1) // parts
        upcoming = low - before[0]  # the next plane of x to transform
        for d in range(low, high):
            while upcoming < d - before[0] + planes:
                if 0 <= upcoming < inside[1]:
                    v = inputs.ctypes.data + size * inputs.shape[2] * (planes * thread + upcoming % planes)
                    tile = start
                    for q in range(count):
                        n, _, h, w = tile
                        at = (n, upcoming, h - before[1], w - before[2])
                        _transform_input(x, gate, gated, inside, at, v + size * q * row, point, patch, zero)
                        tile = _next_tile(tile, shape, side)
                upcoming += 1
            following, coming = (start, upcoming) if d + 1 < high else (beyond, max(low - before[0], 0))
            for panel in range(panels):
                o = panel * wide
                out = (y[0] + size * o, y[1], y[2], y[3], y[4])
                tile = start
                for p in range(AREA):
                    # Beside the multiplications, a few tiles at each point: ask for the next block's x, and for where this block's y goes.
                    # (bool(1) is no literal, for which Numba would compile a function once more.)
                    for _ in range(count * p // AREA, count * (p + 1) // AREA):
                        n, _, h, w = tile
                        tile = _next_tile(tile, shape, side)
                        if not streamed:
                            _prefetch(out, shape, (n, d, h, w), side, min(wide, shape[4] - o), size, bool(1))
                        n, carry, h, w = following  # carry: 1 beyond the last tile of the plane
                        if panel == 0 and carry == 0 and 0 <= coming < inside[1]:
                            following = _next_tile(following, shape, side)
                            at = (n, coming, h - before[1] + IN - side, w - before[2] + IN - side)  # the rest was read for tiles before
                            _prefetch(x, inside, at, side, channels, size, bool(0))
                            if gated:
                                _prefetch(gate, inside, at, side, channels, size, bool(0))
                    fresh = 1
                    for k in range(planes):
                        plane = d - before[0] + k
                        if plane < 0 or plane >= inside[1]:
                            continue
                        a = inputs.ctypes.data + size * (inputs.shape[2] * (planes * thread + plane % planes) + p * point)
                        b = weights.ctypes.data + size * (((panel * AREA + p) * planes + k) * channels) * wide
                        multiply(block, a, row, 1, b, wide, m + size * p * out_point, wide, channels, count, fresh, zero)
                        fresh = 0
                    if fresh:
                        for i in range(count * wide):
                            poke(m, p * out_point + i, zero)
                tile = start
                for q in range(count):
                    n, _, h, w = tile
                    source, shift, kept = m + size * q * wide, bias.ctypes.data + size * o, min(wide, shape[4] - o)
                    _transform_output(source, out_point, y, shape, (n, d, h, w), o, kept, shift, relu, streamed, patch, side, zero)
                    tile = _next_tile(tile, shape, side)
        if streamed:
            settle()


@njit(nogil=True, cache=True)
def _transform_all(mine, x, gate, inside, shape, before, planes, inputs, patches, gated, side, zero):  # type: ignore[no-untyped-def]
    """One task: a tile of a plane, those of the padding too."""
    size = inputs.itemsize
    across = VECTOR_BYTES // size
    tiles = _tiles_of_plane(shape, side)
    row, point = (inside[4] + across - 1) // across * across, inputs.shape[1]
    for t in share(mine, tiles * (shape[1] + planes - 1)):
        n, d, h, w = _tile_at(t, shape, side)
        at = (n, d - before[0], h - before[1], w - before[2])
        out = inputs.ctypes.data + size * t * row
        if 0 <= at[1] < inside[1]:
            _transform_input(x, gate, gated, inside, at, out, point, patches[get_thread_id()], zero)
        else:
            for p in range(AREA):
                for c in range(row):
                    poke(out, p * point + c, zero)


@njit(nogil=True, cache=True)
def _by_panels(  # type: ignore[no-untyped-def]
    mine, filters, channels, bias, y, shape, planes, inputs, weights, products, patches, relu, side, block, wide, zero
):
    """One task: a panel of outputs, its weights transformed as it goes. inputs: all tiles of all planes, transformed.

    Beside the multiplications the next filters are asked for.
    """
    size = inputs.itemsize
    across = VECTOR_BYTES // size
    tiles, taps = _tiles_of_plane(shape, side), IN + 1 - side
    row = (channels + across - 1) // across * across
    point, u_point, out_point = inputs.shape[1], weights.shape[2], products.shape[2]
    steps = (channels + PANEL_DEPTH - 1) // PANEL_DEPTH
    for panel in share(mine, (shape[4] + wide - 1) // wide):
        thread = get_thread_id()
        patch, o = patches[thread], panel * wide
        u = weights.ctypes.data + size * thread * AREA * u_point
        m = products.ctypes.data + size * thread * AREA * out_point
        for step in range(planes * steps):
            k, first = step // steps, step % steps * PANEL_DEPTH
            depth = min(PANEL_DEPTH, channels - first)
            _transform_panel(filters, k, first, depth, o, shape[4], wide, u, wide, u_point, patch, taps, zero)
            coming = (step + 1) % (planes * steps)
            next_k, next_first, next_o = coming // steps, coming % steps * PANEL_DEPTH, o if coming else o + wide
            for p in range(AREA):
                if next_o < shape[4]:
                    next_depth, next_kept = min(PANEL_DEPTH, channels - next_first), min(wide, shape[4] - next_o)
                    _prefetch_filters(filters, next_k, next_first, next_depth, next_o, next_kept, p, AREA, taps, size)
                a = inputs.ctypes.data + size * (p * point + k * tiles * row + first)
                b, c = u + size * p * u_point, m + size * p * out_point
                multiply(block, a, row, 1, b, wide, c, wide, depth, tiles * shape[1], 1 if step == 0 else 0, zero)
        tile = (0, 0, 0, 0)
        for t in range(tiles * shape[1]):
            source, shift, kept = m + size * t * wide, bias.ctypes.data + size * o, min(wide, shape[4] - o)
            _transform_output(source, out_point, y, shape, tile, o, kept, shift, relu, bool(0), patch, side, zero)
            tile = _next_tile(tile, shape, side)
