"""The gradient to a 3×3 or 5×5 filter with Winograd's transforms.

The loss is linear in Y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ X B) ] A, so its gradient to w runs through the same matrices backwards:

    ∂w = Gᵀ [ Σ_tiles (Bᵀ X B) ⊙ (A ∂Y Aᵀ) ] G

At each of the 36 points the sum over tiles is a matrix product, (C × tiles) · (tiles × O). One task owns a chunk of channels and a
chunk of outputs, so that its 36 sums stay in a core's second cache. Two ways through the loops, as in `winograd`:

`_in_parts`: where there are few chunks, the tiles are cut into parts as well. A task transforms a few tiles, adds their products to its
sums, and goes on. The number of parts does not depend on the number of threads, and the parts are added in order: the result is the same
bit for bit. In a volume a tile of ∂y meets x in kd planes. It is transformed once, and the task sums all kd taps, if the cache holds them.

In groups: where there are many chunks, each would transform the same tiles again. So a group of tiles is transformed once for all, as
many as the shared cache holds; then each task multiplies its chunk, with sums that stay in registers for many tiles.

∂b is the sum of ∂y, taken while ∂y is in registers to be transformed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import get_thread_id, njit

from minunet import memory
from minunet.ops.conv.cpu.images import as_image
from minunet.ops.conv.cpu.winograd import AREA, AT, IN, SIDES, G, _next_tile, _prefetch, _tile_at, _tiles_of_plane, _transform_input
from minunet.simd import VECTOR_BYTES, all_tasks, block_for, lanes, make_transform, multiply, peek, poke, share, thread_count

_gradient, _gated_gradient = (make_transform({side: At.T for side, At in AT.items()}, total=True, gated=gated) for gated in (False, True))
_filter_gradient = make_transform({taps: g.T for taps, g in G.items()})

CHANNELS = OUTPUTS = 64  # a chunk, at most: 36 sums of 64 × 64 float32 take 590 KB. All are as large as each other, but for a rest
FEW_CHUNKS, MANY_CHUNKS = 2, 8  # `_in_parts` up to so many; in groups, the 36 points are shared out too below so many
TILES = 24  # tiles that a task of `_in_parts` transforms at a time
SUM_BYTES = 720 << 10  # sums of all taps along the depth that a task of `_in_parts` keeps at a time, else those of one tap
TASKS = 8  # at least so many tasks, by cutting the tiles into parts
GROUP, GROUP_BYTES = 64, 6 << 20  # tiles of a group: at least so many, more as long as they take less memory than this
AHEAD = 4  # tiles: so long before it is transformed a tile is asked for
DEPTH = 64  # tiles multiplied at a time: a panel of 64 × 64 float32, 16 KB, stays in the first cache
SLICES = 16  # in which a group is transformed, so that the sum for ∂b has one order


def weight_gradient(x: Any, gy: Any, gate: Any, before: tuple[int, int, int], planes: int, taps: int) -> tuple[Any, Any]:
    """∂w (kd, k, k, C, O), k = `taps`, and ∂b (O) from x and ∂y, (N, C, *axes) both; only where gate > 0 does ∂y count."""
    image, gradient = as_image(x), as_image(gy)
    opening = gradient if gate is None else as_image(gate)
    channels, outputs = x.shape[1], gy.shape[1]
    across = lanes(x.itemsize)
    block, rows, wide = block_for(min(outputs, OUTPUTS), x.itemsize)
    down, along = -(-channels // CHANNELS), -(-outputs // OUTPUTS)
    chunk = -(-channels // (down * across)) * across
    chunk_outputs = -(-outputs // (along * wide)) * wide
    side = SIDES[taps]
    tiles = gradient.sizes[1] * _tiles_of_plane(gradient.sizes, side)
    held = -(-chunk // rows) * rows
    threads = thread_count()
    patches = np.zeros((threads, IN, IN, max(held, chunk_outputs)), dtype=x.dtype)
    grouped = down * along > FEW_CHUNKS
    rounds = 1 if planes * AREA * held * chunk_outputs * x.itemsize <= SUM_BYTES else planes
    parts = 1 if grouped else max(1, min(-(-TASKS // (down * along * rounds)), tiles // TILES))
    room = memory.scratch if parts > 1 else memory.empty  # one part is the result
    gw = room((parts, planes, taps, taps, channels, outputs), x.dtype)
    gb = np.zeros((SLICES if grouped else parts, -(-outputs // across) * across), dtype=x.dtype)
    images = (image.walk, image.sizes, gradient.walk, opening.walk, gate is not None, gradient.sizes, before, side, chunk, chunk_outputs)
    zero = x.dtype.type(0)
    if grouped:
        group = min(tiles, max(GROUP, GROUP_BYTES // (AREA * x.itemsize * (channels + outputs))))
        lasting = group < tiles or down * along < MANY_CHUNKS  # sums of all chunks at once, else those of the tasks under way
        inputs = memory.scratch((down, AREA, group * chunk + across), x.dtype)
        gradients = memory.scratch((along, AREA, group * chunk_outputs + across), x.dtype)
        sums = memory.scratch((down * along if lasting else threads, AREA, held * chunk_outputs + across), x.dtype)
        for k in range(planes):
            for first in range(0, tiles, group):
                count = min(group, tiles - first)
                _transform_group(all_tasks(), *images, k, first, count, channels, outputs, gb, inputs, gradients, patches, zero)
                _multiply_group(
                    all_tasks(), chunk, chunk_outputs, k, count, lasting, first == 0, gw, inputs, gradients, sums, patches, block, wide,
                    zero,
                )  # fmt: skip
            if lasting:
                _transform_lasting(all_tasks(), chunk, chunk_outputs, along, k, gw, sums, patches, zero)
    else:
        inputs = memory.scratch((threads, AREA, TILES * chunk + across), x.dtype)
        gradients = memory.scratch((threads, AREA, TILES * chunk_outputs + across), x.dtype)
        sums = memory.scratch((threads, planes // rounds, AREA, held * chunk_outputs + across), x.dtype)
        _in_parts(all_tasks(), *images, gw, gb, inputs, gradients, sums, patches, block, wide, zero)
    total = gw.sum(axis=0) if parts > 1 else gw[0]  # part by part, in order
    return total, gb[:, :outputs].sum(axis=0)


@njit(cache=True)
def _transform_gradient(y, gate, gated, shape, at, side, o, kept, out, point, total, patch, zero):  # type: ignore[no-untyped-def]
    """A ∂Y Aᵀ of one tile and `kept` outputs from o on, and its sum onto the numbers at address `total`; beyond the image ∂y is 0."""
    size = patch.itemsize
    across = VECTOR_BYTES // size
    n, d, h, w = at
    source = y[0] + size * (n * y[1] + d * y[2] + h * y[3] + w * y[4] + o)
    opening = gate[0] + size * (n * gate[1] + d * gate[2] + h * gate[3] + w * gate[4] + o)
    within = h + side <= shape[2] and w + side <= shape[3]
    direct = kept // across * across if within else 0
    stride = patch.shape[2]
    corner = patch.ctypes.data
    whole = (kept + across - 1) // across * across
    for i in range(side if direct < kept else 0):
        for j in range(side):
            to = corner + size * (side * i + j) * stride
            inside = h + i < shape[2] and w + j < shape[3]
            pixel, open_pixel = source + size * (i * y[3] + j * y[4]), opening + size * (i * gate[3] + j * gate[4])
            for v in range(direct, whole):
                value = peek(pixel, v, zero) if inside and v < kept else zero
                if gated and inside and v < kept and not peek(open_pixel, v, zero) > zero:
                    value = zero
                poke(to, v, value)
    for v in range(0, whole, across):
        to, onto = out + size * v, total + size * v
        if gated and v < direct:
            _gated_gradient(side, source + size * v, y[3], y[4], to, IN * point, point, opening + size * v, gate[3], gate[4], onto, zero)
            continue
        tile_corner, row, column = source, y[3], y[4]
        if v >= direct:
            tile_corner, row, column = corner, side * stride, stride
        _gradient(side, tile_corner + size * v, row, column, to, IN * point, point, 0, 0, 0, onto, zero)


@njit(cache=True)
def _transform_tile(  # type: ignore[no-untyped-def]
    x, inside, gy, gate, gated, shape, before, side, at, later, k, c0, depth, asked, o0, kept, out, point, gradient_out, gradient_point,
    total, patch, zero
):  # fmt: skip
    """The tile at `at`: Bᵀ X B of `depth` channels from c0 on, A ∂Y Aᵀ of `kept` outputs from o0 on, either left out if 0.
    The tile at `later` is asked for, if there is one, ∂y and `asked` channels of x."""
    size = patch.itemsize
    some, volume = (x[0] + size * c0, x[1], x[2], x[3], x[4]), (inside[0], inside[1], inside[2], inside[3], depth)
    none = bool(0)  # no literal, for which Numba would compile the function once more
    n, d, h, w = later
    plane = d - before[0] + k
    if asked and 0 <= plane < inside[1]:
        _prefetch(some, inside, (n, plane, h - before[1] + IN - side, w - before[2] + IN - side), side, asked, size, none)
    if kept and d < shape[1]:
        _prefetch((gy[0] + size * o0, gy[1], gy[2], gy[3], gy[4]), shape, (n, d, h, w), side, kept, size, none)
        if gated:
            _prefetch((gate[0] + size * o0, gate[1], gate[2], gate[3], gate[4]), shape, (n, d, h, w), side, kept, size, none)
    n, d, h, w = at
    plane = d - before[0] + k
    if depth and 0 <= plane < inside[1]:
        _transform_input(some, some, none, volume, (n, plane, h - before[1], w - before[2]), out, point, patch, zero)
    elif depth:
        for p in range(AREA):
            for c in range(depth):
                poke(out, p * point + c, zero)
    if kept:
        _transform_gradient(gy, gate, gated, shape, (n, d, h, w), side, o0, kept, gradient_out, gradient_point, total, patch, zero)


@njit(nogil=True, cache=True)
def _in_parts(  # type: ignore[no-untyped-def]
    mine, x, inside, gy, gate, gated, shape, before, side, chunk, chunk_outputs, gw, gb, inputs, gradients, sums, patches, block, wide, zero
):
    """One task: a part of the tiles, a tap along the depth or all, a chunk of channels and one of outputs."""
    size = gw.itemsize
    parts, planes, _, _, channels, outputs = gw.shape
    tiles = shape[1] * _tiles_of_plane(shape, side)
    down, along = (channels + chunk - 1) // chunk, (outputs + chunk_outputs - 1) // chunk_outputs
    together, point, gradient_point, sum_point = sums.shape[1], inputs.shape[2], gradients.shape[2], sums.shape[3]
    rounds = planes // together
    for task in share(mine, parts * rounds * down * along):
        thread = get_thread_id()
        patch = patches[thread]
        v, g = inputs[thread].ctypes.data, gradients[thread].ctypes.data
        part, first_k = task // (rounds * down * along), task // (down * along) % rounds * together
        c0, o0 = task // along % down * chunk, task % along * chunk_outputs
        depth, kept = min(chunk, channels - c0), min(chunk_outputs, outputs - o0)
        total = gb.ctypes.data + size * (part * gb.shape[1] + o0)
        if first_k or c0:
            total = patch.ctypes.data + size * (AREA - 1) * patch.shape[2]  # somebody else sums ∂b
        begin, end = tiles * part // parts, tiles * (part + 1) // parts
        start, ahead = _tile_at(begin, shape, side), _tile_at(begin + AHEAD, shape, side)
        for first in range(begin, end, TILES):
            count = min(TILES, end - first)
            for i in range(together):
                tile, later = start, ahead
                once, asked = kept if i == 0 else 0, depth if i == together - 1 else 0  # x in the other planes was read before
                for t in range(count):
                    out, gradient_out = v + size * t * chunk, g + size * t * chunk_outputs
                    _transform_tile(
                        x, inside, gy, gate, gated, shape, before, side, tile, later, first_k + i, c0, depth, asked, o0, once, out, point,
                        gradient_out, gradient_point, total, patch, zero,
                    )  # fmt: skip
                    tile, later = _next_tile(tile, shape, side), _next_tile(later, shape, side)
                u, fresh = sums[thread, i].ctypes.data, 1 if first == begin else 0
                for p in range(AREA):
                    for o in range(0, kept, wide):
                        a, b, to = v + size * p * point, g + size * (p * gradient_point + o), u + size * (p * sum_point + o)
                        multiply(block, a, 1, chunk, b, chunk_outputs, to, chunk_outputs, count, depth, fresh, zero)
            start, ahead = tile, later
        for i in range(together):
            u = sums[thread, i].ctypes.data
            _transform_sums(u, sum_point, chunk_outputs, gw[part, first_k + i], c0, depth, o0, kept, patch, zero)


@njit(nogil=True, cache=True)
def _transform_group(  # type: ignore[no-untyped-def]
    mine, x, inside, gy, gate, gated, shape, before, side, chunk, chunk_outputs, k, first, count, channels, outputs, gb, inputs, gradients,
    patches, zero
):  # fmt: skip
    """One task: a slice of the `count` tiles from `first` on, for tap k along the depth."""
    size = patches.itemsize
    down, along, point, gradient_point = len(inputs), len(gradients), inputs.shape[2], gradients.shape[2]
    for part in share(mine, SLICES):
        patch = patches[get_thread_id()]
        begin, end = count * part // SLICES, count * (part + 1) // SLICES
        tile, later = _tile_at(first + begin, shape, side), _tile_at(first + begin + AHEAD, shape, side)
        for t in range(begin, end):
            for i in range(max(down, along)):
                c0, o0 = i * chunk, i * chunk_outputs
                depth, kept = max(0, min(chunk, channels - c0)), max(0, min(chunk_outputs, outputs - o0))
                out = inputs.ctypes.data + size * (min(i, down - 1) * AREA * point + t * chunk)
                gradient_out = gradients.ctypes.data + size * (min(i, along - 1) * AREA * gradient_point + t * chunk_outputs)
                total = gb.ctypes.data + size * (part * gb.shape[1] + o0)
                if k:
                    total = patch.ctypes.data + size * (AREA - 1) * patch.shape[2]  # summed already
                _transform_tile(
                    x, inside, gy, gate, gated, shape, before, side, tile, later, k, c0, depth, depth, o0, kept, out, point, gradient_out,
                    gradient_point, total, patch, zero,
                )  # fmt: skip
            tile, later = _next_tile(tile, shape, side), _next_tile(later, shape, side)


@njit(nogil=True, cache=True)
def _multiply_group(  # type: ignore[no-untyped-def]
    mine, chunk, chunk_outputs, k, count, lasting, begins, gw, inputs, gradients, sums, patches, block, wide, zero
):
    """One task: a chunk of channels and one of outputs, or some of their 36 points where the sums are kept for the next group."""
    size = gw.itemsize
    channels, outputs, down, along = gw.shape[4], gw.shape[5], len(inputs), len(gradients)
    point, gradient_point, sum_point = inputs.shape[2], gradients.shape[2], sums.shape[2]
    shares = 4 if lasting else 1
    for task in share(mine, down * along * shares):
        thread, both, quarter = get_thread_id(), task // shares, task % shares
        i, j = both // along, both % along
        depth, kept = min(chunk, channels - i * chunk), min(chunk_outputs, outputs - j * chunk_outputs)
        u = sums[both if lasting else thread].ctypes.data
        for p in range(AREA * quarter // shares, AREA * (quarter + 1) // shares):
            for start in range(0, count, DEPTH):
                for o in range(0, kept, wide):
                    a = inputs.ctypes.data + size * ((i * AREA + p) * point + start * chunk)
                    b = gradients.ctypes.data + size * ((j * AREA + p) * gradient_point + start * chunk_outputs + o)
                    to, fresh = u + size * (p * sum_point + o), 1 if begins and start == 0 else 0
                    multiply(block, a, 1, chunk, b, chunk_outputs, to, chunk_outputs, min(DEPTH, count - start), depth, fresh, zero)
        if not lasting:
            _transform_sums(u, sum_point, chunk_outputs, gw[0, k], i * chunk, depth, j * chunk_outputs, kept, patches[thread], zero)


@njit(nogil=True, cache=True)
def _transform_lasting(mine, chunk, chunk_outputs, along, k, gw, sums, patches, zero):  # type: ignore[no-untyped-def]
    """One task: the sums of a chunk of channels and one of outputs, when all groups have been added."""
    channels, outputs = gw.shape[4], gw.shape[5]
    for task in share(mine, len(sums)):
        c0, o0 = task // along * chunk, task % along * chunk_outputs
        depth, kept, u = min(chunk, channels - c0), min(chunk_outputs, outputs - o0), sums[task].ctypes.data
        _transform_sums(u, sums.shape[2], chunk_outputs, gw[0, k], c0, depth, o0, kept, patches[get_thread_id()], zero)


@njit(cache=True)
def _transform_sums(u, point, row, gw, c0, depth, o0, kept, patch, zero):  # type: ignore[no-untyped-def]
    """Gᵀ U G for every pair of a channel and an output of the chunk, into gw (k, k, C, O)."""
    size = patch.itemsize
    across = VECTOR_BYTES // size
    taps, _, channels, outputs = gw.shape
    corner = patch.ctypes.data
    for c in range(depth):
        for v in range(0, kept, across):
            source = u + size * (c * row + v)
            to = gw.ctypes.data + size * ((c0 + c) * outputs + o0 + v)
            place, column = to, channels * outputs
            if v + across > kept:
                place, column = corner, across
            _filter_gradient(taps, source, IN * point, point, place, taps * column, column, 0, 0, 0, 0, zero)
            for tap in range(taps * taps if place == corner else 0):
                for l in range(kept - v):
                    poke(to, tap * channels * outputs + l, peek(corner, tap * across + l, zero))
