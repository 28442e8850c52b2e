"""The gradient to a 3×3 filter with Winograd's transforms.

The loss is linear in Y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ X B) ] A, so its gradient to w runs through the same matrices backwards:

    ∂w = Gᵀ [ Σ_tiles (Bᵀ X B) ⊙ (A ∂Y Aᵀ) ] G

At each of the 36 points the sum over tiles is a matrix product, (C × tiles) · (tiles × O). One task owns a chunk of channels, a
chunk of outputs and a part of the tiles, and keeps its 36 sums in a core's second cache. The number of parts does not depend on the
number of threads, and the parts are added in order: the result is the same bit for bit.

∂b is the sum of ∂y, taken while ∂y is in registers to be transformed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import get_num_threads, get_thread_id, njit, prange

from minunet import memory
from minunet.ops.conv.cpu.images import as_image
from minunet.ops.conv.cpu.winograd import AREA, AT, IN, OUT, TAPS, G, _tile_at, _transform_input
from minunet.simd import VECTOR_BYTES, block_for, lanes, make_transform, peek, poke, tile

_gradient, _gated_gradient = make_transform(AT.T, total=True), make_transform(AT.T, total=True, gated=True)
_filter_gradient = make_transform(G.T)

TILES = 24  # tiles transformed at a time
CHANNELS = OUTPUTS = 64  # a chunk: 36 sums of 64 × 64 float32 take 590 KB
TASKS = 8  # at least so many tasks, by cutting the tiles into parts


def weight_gradient(x: Any, gy: Any, gate: Any, before: tuple[int, int, int], planes: int) -> tuple[Any, Any]:
    """∂w (kd, 3, 3, C, O) and ∂b (O) from x and ∂y, (N, C, *axes) both; only where gate > 0 does ∂y count."""
    source, image = as_image(x)
    target, gradient = as_image(gy)
    _, opening = (target, gradient) if gate is None else as_image(gate)
    channels, outputs = source.shape[-1], target.shape[-1]
    across = lanes(x.itemsize)
    block, rows, wide = block_for(min(outputs, OUTPUTS), x.itemsize)
    chunk = min(CHANNELS, -(-channels // across) * across)
    chunk_outputs = min(OUTPUTS, -(-outputs // wide) * wide)
    chunks = -(-channels // chunk) * -(-outputs // chunk_outputs)
    tiles = target.shape[0] * target.shape[1] * -(-target.shape[2] // OUT) * -(-target.shape[3] // OUT)
    parts = max(1, min(-(-TASKS // (chunks * planes)), tiles // TILES))
    held = -(-chunk // rows) * rows
    gw = memory.empty((parts, planes, TAPS, TAPS, channels, outputs), x.dtype)
    gb = np.zeros((parts, -(-outputs // across) * across), dtype=x.dtype)
    threads = get_num_threads()
    patches = np.zeros((threads, IN, IN, max(held, chunk_outputs)), dtype=x.dtype)
    inputs = memory.empty((threads, AREA * (TILES * chunk + across) + rows), x.dtype)
    gradients = memory.empty((threads, AREA * (TILES * chunk_outputs + across)), x.dtype)
    sums = memory.empty((threads, AREA * (held * chunk_outputs + across)), x.dtype)
    scratch = (inputs, gradients, sums, patches)
    _weight_gradient(
        image,
        source.shape,
        gradient,
        opening,
        gate is not None,
        target.shape,
        before,
        chunk,
        chunk_outputs,
        gw,
        gb,
        *scratch,
        block,
        rows,
        wide,
        x.dtype.type(0),
    )
    for part in range(1, parts):
        gw[0] += gw[part]
    return gw[0], gb[:, :outputs].sum(axis=0)


@njit(cache=True)
def _transform_gradient(y, gate, gated, shape, at, o, kept, out, point, total, patch, zero):  # type: ignore[no-untyped-def]
    """A ∂Y Aᵀ of one tile and `kept` outputs from o on, and its sum onto the numbers at address `total`; beyond the image ∂y is 0."""
    size = patch.itemsize
    across = VECTOR_BYTES // size
    n, d, h, w = at
    source = y[0] + size * (n * y[1] + d * y[2] + h * y[3] + w * y[4] + o)
    opening = gate[0] + size * (n * gate[1] + d * gate[2] + h * gate[3] + w * gate[4] + o)
    within = h + OUT <= shape[2] and w + OUT <= shape[3]
    direct = kept // across * across if within else 0
    for v in range(0, direct, across):
        to, onto = out + size * v, total + size * v
        if gated:
            _gated_gradient(source + size * v, y[3], y[4], to, IN * point, point, opening + size * v, gate[3], gate[4], onto, zero)
        else:
            _gradient(source + size * v, y[3], y[4], to, IN * point, point, 0, 0, 0, onto, zero)
    if direct == kept:
        return
    stride = patch.shape[2]
    corner = patch.ctypes.data
    whole = (kept + across - 1) // across * across
    for i in range(OUT):
        for j in range(OUT):
            to = corner + size * (OUT * i + j) * stride
            inside = h + i < shape[2] and w + j < shape[3]
            pixel, open_pixel = source + size * (i * y[3] + j * y[4]), opening + size * (i * gate[3] + j * gate[4])
            for v in range(direct, whole):
                value = peek(pixel, v, zero) if inside and v < kept else zero
                if gated and inside and v < kept and not peek(open_pixel, v, zero) > zero:
                    value = zero
                poke(to, v, value)
    for v in range(direct, whole, across):
        _gradient(corner + size * v, OUT * stride, stride, out + size * v, IN * point, point, 0, 0, 0, total + size * v, zero)


@njit(parallel=True, nogil=True, cache=True)
def _weight_gradient(  # type: ignore[no-untyped-def]
    x, inside, gy, gate, gated, shape, before, chunk, chunk_outputs, gw, gb, inputs, gradients, sums, patches, block, rows, wide, zero
):
    size = gw.itemsize
    across = VECTOR_BYTES // size
    parts, planes, _, _, channels, outputs = gw.shape
    per_plane = shape[0] * ((shape[2] + OUT - 1) // OUT) * ((shape[3] + OUT - 1) // OUT)
    tiles = per_plane * shape[1]
    in_chunks, out_chunks = (channels + chunk - 1) // chunk, (outputs + chunk_outputs - 1) // chunk_outputs
    point, gradient_point, sum_point = TILES * chunk + across, TILES * chunk_outputs + across, sums.shape[1] // AREA
    for task in prange(parts * planes * in_chunks * out_chunks):
        thread = get_thread_id()
        patch = patches[thread]
        v = inputs.ctypes.data + size * thread * inputs.shape[1]
        g = gradients.ctypes.data + size * thread * gradients.shape[1]
        u = sums.ctypes.data + size * thread * sums.shape[1]
        part, k = task // (planes * in_chunks * out_chunks), task // (in_chunks * out_chunks) % planes
        c0, o0 = task // out_chunks % in_chunks * chunk, task % out_chunks * chunk_outputs
        depth, kept = min(chunk, channels - c0), min(chunk_outputs, outputs - o0)
        total = gb.ctypes.data + size * (part * gb.shape[1] + o0)
        if k or c0:
            total = patch.ctypes.data + size * (AREA - 1) * patch.shape[2]  # somebody else sums ∂b
        whole = (kept + wide - 1) // wide * wide
        fresh = 1
        for first in range(tiles * part // parts, tiles * (part + 1) // parts, TILES):
            count = min(TILES, tiles * (part + 1) // parts - first)
            for t in range(count):
                q = first + t
                n, h, w = _tile_at(q % per_plane, shape)
                d = q // per_plane
                plane = d - before[0] + k
                out = v + size * t * chunk
                if 0 <= plane < inside[1]:
                    at = (n, plane, h - before[1], w - before[2])
                    _transform_input(
                        (x[0] + size * c0, x[1], x[2], x[3], x[4]),
                        x,
                        False,
                        (inside[0], inside[1], inside[2], inside[3], depth),
                        at,
                        out,
                        point,
                        patch,
                        zero,
                    )
                else:
                    for p in range(AREA):
                        for c in range(depth):
                            poke(out, p * point + c, zero)
                _transform_gradient(
                    gy, gate, gated, shape, (n, d, h, w), o0, kept, g + size * t * chunk_outputs, gradient_point, total, patch, zero
                )
            for p in range(AREA):
                for o in range(0, whole, wide):
                    for c in range(0, depth, rows):
                        a, b = v + size * (p * point + c), g + size * (p * gradient_point + o)
                        to = u + size * (p * sum_point + c * chunk_outputs + o)
                        tile(block, a, 1, chunk, b, chunk_outputs, to, chunk_outputs, count, fresh, zero)
            fresh = 0
        _transform_sums(u, sum_point, chunk_outputs, gw[part, k], c0, depth, o0, kept, patch, zero)


@njit(cache=True)
def _transform_sums(u, point, row, gw, c0, depth, o0, kept, patch, zero):  # type: ignore[no-untyped-def]
    """Gᵀ U G for every pair of a channel and an output of the chunk, into gw (3, 3, C, O)."""
    size = patch.itemsize
    across = VECTOR_BYTES // size
    channels, outputs = gw.shape[2:]
    for c in range(depth):
        for v in range(0, kept, across):
            source = u + size * (c * row + v)
            to = gw.ctypes.data + size * ((c0 + c) * outputs + o0 + v)
            if v + across <= kept:
                _filter_gradient(source, IN * point, point, to, TAPS * channels * outputs, channels * outputs, 0, 0, 0, 0, zero)
                continue
            corner = patch.ctypes.data
            _filter_gradient(source, IN * point, point, corner, TAPS * across, across, 0, 0, 0, 0, zero)
            for tap in range(TAPS * TAPS):
                for l in range(kept - v):
                    poke(to, tap * channels * outputs + l, peek(corner, tap * across + l, zero))
