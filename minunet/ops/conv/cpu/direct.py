"""Convolution on the processor: three loops round one micro-kernel, reading the image in place.

In channels-last memory the numbers under a window's row, (k_w, c) for all taps k_w and channels c, lie side by side, and the
window of the next pixel starts s·C numbers later. So the image *is* the left matrix of a product, with overlapping rows:

    y[pixel, o] += Σ_j x̄[pixel·s·C + offset + j] · w[offset][j, o]          j: up to DEPTH numbers of one run of taps

No im2col, no copy but the zero padding. `_sum_taps` computes a row of pixels for a panel of output channels, run by run, in
a buffer that stays in L1. The gradient with respect to x is the same sum: the pixels of x that share a remainder modulo the
stride meet the same taps, so each remainder is a stride-1 sum over ∂y. The gradient with respect to w swaps the roles: pixels
are summed, (k_w, c) are the rows. Its pixels are split into a number of parts that does not depend on the number of threads,
and the parts are added in order: the result is the same bit for bit on any machine with the same vector width.
"""

from __future__ import annotations

from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit, prange

from minunet.arrays import as_volume, channels_first, channels_last, channels_last_volume
from minunet.ops.conv.cpu.images import as_triple
from minunet.simd import block_for, tile

if TYPE_CHECKING:
    from minunet.ops.conv import Geometry

DEPTH = 96  # numbers of x̄ taken at a time: a panel of DEPTH × 64 float32 weights, 24 KB, stays in L1
PIXELS = 96  # pixels whose sums are held at a time: a panel is used for so many before the next one is fetched
SLACK = 16  # pixels allocated beyond an image (times the stride), because the last block reads, and discards, what follows it
PARTS = 16  # parts into which the pixels of a weight gradient are split, at most
PART_ELEMENTS = 1 << 21  # and at most so many partial sums in all


def forward(x: Any, w: Any, b: Any, geometry: Geometry, activation: str | None) -> Any:
    out = geometry.outputs(x.shape[2:], w.shape[2:])
    y = np.empty((x.shape[0], *out, w.shape[0]), dtype=x.dtype)
    image = _padded(x, geometry.padding, geometry.stride[-1])
    taps = list(product(*(range(k) for k in w.shape[2:])))
    offsets = [tuple(d * k for d, k in zip(geometry.dilation, tap, strict=True)) for tap in taps]
    for group, filters in enumerate(np.split(w, geometry.groups)):
        matrix = filters.reshape(*filters.shape[:2], -1).transpose(2, 1, 0)  # (tap, c, o)
        _sum_over_taps(image, matrix, offsets, geometry.stride, b, group, y, (0,) * len(out), (1,) * len(out), activation)
    return channels_first(y)


def grad_x(gy: Any, w: Any, b: Any, geometry: Geometry, spatial: tuple[int, ...], activation: str | None) -> Any:
    out, kernel, rank = gy.shape[2:], w.shape[2:], len(spatial)
    gx = np.empty((gy.shape[0], *spatial, w.shape[1] * geometry.groups), dtype=gy.dtype)
    axes = [
        [_taps_of_remainder(start, k, s, before, d) for start in range(min(s, n))]
        for n, k, s, (before, _), d in zip(spatial, kernel, geometry.stride, geometry.padding, geometry.dilation, strict=True)
    ]
    margins = []
    for n, m, s, remainders in zip(spatial, out, geometry.stride, axes, strict=True):
        first = min((shift for taps in remainders for _, shift in taps), default=0)  # no tap at all may reach a small x
        last = max((shift + (n - 1 - start) // s for start, taps in enumerate(remainders) for _, shift in taps), default=0)
        margins.append((max(0, -first), max(0, last - (m - 1))))
    image = _padded(gy, tuple(margins), 1)
    for starts in product(*(range(len(remainders)) for remainders in axes)):
        taps = list(product(*(remainders[start] for remainders, start in zip(axes, starts, strict=True))))
        offsets = [tuple(shift + before for (_, shift), (before, _) in zip(tap, margins, strict=True)) for tap in taps]
        chosen = [np.ravel_multi_index(tuple(k for k, _ in tap), kernel) for tap in taps]
        for group, filters in enumerate(np.split(w, geometry.groups)):
            matrix = filters.reshape(*filters.shape[:2], -1)[:, :, chosen].transpose(2, 0, 1)  # (tap, o, c)
            _sum_over_taps(image, matrix, offsets, (1,) * rank, b, group, gx, starts, geometry.stride, activation)
    return channels_first(gx)


def grad_w(x: Any, gy: Any, geometry: Geometry, kernel: tuple[int, ...]) -> Any:
    groups = geometry.groups
    channels, outputs = x.shape[1] // groups, gy.shape[1] // groups
    gw = np.empty((gy.shape[1], channels, *kernel), dtype=x.dtype)
    image = _padded(x, geometry.padding, geometry.stride[-1])
    offsets = [tuple(d * k for d, k in zip(geometry.dilation, tap, strict=True)) for tap in product(*(range(k) for k in kernel))]
    block, rows, width = block_for(outputs, x.itemsize)
    columns = -(-outputs // width) * width
    runs, total = [], 0
    for start, _, taps in _runs(image, channels, 0, offsets):
        runs.append((start, taps * channels, total))
        total += -(-taps * channels // rows) * rows  # each run rounded up to whole blocks
    pixel_rows = int(np.prod(gy.shape[:1] + gy.shape[2:-1]))
    parts = max(1, min(PARTS, pixel_rows, PART_ELEMENTS // (total * columns)))
    table, right = np.array(runs), channels_last_volume(gy)
    for group in range(groups):
        sums = np.zeros((parts, total, columns), dtype=x.dtype)
        places = (group * channels, group * outputs, outputs)
        _sum_over_pixels(image, right, table, as_triple(geometry.stride, 1), *places, sums, block, rows, width, x.dtype.type(0))
        _collect(sums, table, gw[group * outputs : (group + 1) * outputs].reshape(outputs, channels, -1))
    return gw


def grad_b(gy: Any) -> Any:
    pixels = channels_last(gy).reshape(-1, gy.shape[1])
    sums = np.zeros((min(64, max(1, len(pixels))), gy.shape[1]), dtype=gy.dtype)
    _column_sums(pixels, sums)
    return sums.sum(axis=0)


def _taps_of_remainder(start: int, kernel: int, stride: int, before: int, dilation: int) -> list[tuple[int, int]]:
    """Which taps k meet x at the positions start + stride·j, and in which ∂y: (k, shift) for ∂y[j + shift]."""
    reached = [(k, start + before - dilation * k) for k in range(kernel)]
    return [(k, distance // stride) for k, distance in reached if distance % stride == 0]


def _padded(x: Any, padding: tuple[tuple[int, int], ...], stride: int) -> Any:
    """(N, C, *spatial) → zero-padded channels-last volume (N, D, H, W, C), with readable memory behind it."""
    source = channels_last_volume(x)
    pairs = ((0, 0),) * (3 - len(padding)) + tuple(padding)
    shape = (source.shape[0], *(n + a + b for n, (a, b) in zip(source.shape[1:4], pairs, strict=True)), source.shape[4])
    size = int(np.prod(shape))
    flat = np.empty(size + SLACK * (stride * shape[-1] + 1), dtype=x.dtype)
    flat[size:] = 0
    image = flat[:size].reshape(shape)
    _pad(source, image, tuple(a for a, _ in pairs))
    return image


def _runs(image: Any, channels: int, group: int, offsets: list[tuple[int, ...]]) -> list[tuple[int, int, int]]:
    """Taps whose numbers lie side by side in memory, joined: (where in the image, first tap, number of taps) of each run."""
    _, _, height, width, depth = image.shape
    steps = (height * width * depth, width * depth, depth)
    starts = [sum(s * o for s, o in zip(steps[3 - len(offset) :], offset, strict=True)) + group * channels for offset in offsets]
    runs: list[tuple[int, int, int]] = []
    for tap, start in enumerate(starts):
        if runs and channels == depth and start == runs[-1][0] + runs[-1][2] * channels:
            runs[-1] = (runs[-1][0], runs[-1][1], runs[-1][2] + 1)
        else:
            runs.append((start, tap, 1))
    return runs


def _sum_over_taps(
    image: Any,
    matrix: Any,
    offsets: list[tuple[int, ...]],
    stride: tuple[int, ...],
    b: Any,
    group: int,
    y: Any,
    start: tuple[int, ...],
    step: tuple[int, ...],
    activation: str | None,
) -> None:
    """y[n, start + step·p, o] = b[o] + Σ_tap Σ_c image[n, stride·p + offset[tap], c] · matrix[tap, c, o], for one group."""
    taps, channels, outputs = matrix.shape
    block, rows, width = block_for(outputs, y.itemsize)
    panels = -(-outputs // width)
    packed = np.empty((panels, taps * channels, width), dtype=y.dtype)
    _pack(matrix, packed)
    bias = np.zeros((panels, width), dtype=y.dtype)
    if b is not None:
        bias.reshape(-1)[:outputs] = b[group * outputs : (group + 1) * outputs]
    pieces = []  # (where in the image, first row of the matrix, number of rows): a run cut into equal pieces of at most DEPTH
    for where, first, count in _runs(image, channels, group, offsets):
        length = count * channels
        cuts = np.linspace(0, length, -(-length // DEPTH) + 1).astype(int)
        pieces += [(where + a, first * channels + a, z - a) for a, z in pairwise(cuts)]
    table = np.array(pieces, dtype=np.int64).reshape(-1, 3)
    volume = as_volume(y)
    places = (volume.shape[:4], as_triple(stride, 1), as_triple(start, 0), as_triple(step, 1), group * outputs, outputs)
    flat = volume.reshape(-1, volume.shape[4])
    _sum_taps(image, table, packed, bias, flat, *places, block, rows, activation == "relu", y.dtype.type(0))


@njit(parallel=True, nogil=True, cache=True)
def _pad(source, image, before):  # type: ignore[no-untyped-def]
    N, D, H, W, _ = image.shape
    _, depth, height, width, _ = source.shape
    for row in prange(N * D * H):
        n, d, h = row // (D * H), row // H % D - before[0], row % H - before[1]
        target = image[n, d + before[0], h + before[1]]
        if d < 0 or d >= depth or h < 0 or h >= height:
            target[:] = 0
            continue
        left, right = max(before[2], 0), min(before[2] + width, W)
        target[:left] = 0
        target[left:right] = source[n, d, h, left - before[2] : right - before[2]]
        target[max(right, 0) :] = 0


@njit(parallel=True, nogil=True, cache=True)
def _pack(matrix, packed):  # type: ignore[no-untyped-def]
    """(tap, c, o) → (panel, tap·c, o within the panel), zeros beyond the last o."""
    taps, channels, outputs = matrix.shape
    panels, _, width = packed.shape
    for c in prange(channels):
        for panel in range(panels):
            for j in range(width):
                o = panel * width + j
                for tap in range(taps):
                    packed[panel, tap * channels + c, j] = matrix[tap, c, o] if o < outputs else 0


@njit(parallel=True, nogil=True, cache=True)
def _sum_taps(image, pieces, packed, bias, y, shape, stride, start, step, first, outputs, block, rows, relu, zero):  # type: ignore[no-untyped-def]
    """One task: a panel of output channels for some lines of output pixels, at most PIXELS pixels at a time of each.

    y is flat, (pixels, channels), of the volume `shape` = (N, D, H, W); `start` and `step` choose which of its pixels are computed.
    """
    size = image.itemsize
    _, D, H, W, C = image.shape
    N = shape[0]
    depth = (shape[1] - start[0] + step[0] - 1) // step[0]
    height = (shape[2] - start[1] + step[1] - 1) // step[1]
    width = (shape[3] - start[2] + step[2] - 1) // step[2]
    panels, length, columns = packed.shape
    total = N * depth * height
    chunk = min(width, PIXELS)
    held = (chunk + rows - 1) // rows * rows  # the last block of a line computes pixels beyond it, which nobody reads
    lines = max(1, min(PIXELS // chunk, total // 16))
    groups = (total + lines - 1) // lines
    for task in prange(panels * groups):
        panel, begin = task // groups, task % groups * lines
        count = min(lines, total - begin)
        o, kept = first + panel * columns, min(columns, outputs - panel * columns)
        sums = np.empty((lines * held, columns), dtype=y.dtype)
        for w in range(0, width, chunk):
            pixels = min(chunk, width - w)
            for p in range(count * held):
                for j in range(columns):
                    sums[p, j] = bias[panel, j]
            for i in range(len(pieces)):
                b = packed.ctypes.data + size * columns * (panel * length + pieces[i, 1])
                for l in range(count):
                    line = begin + l
                    n, d, h = line // (depth * height), line // height % depth, line % height
                    corner = C * (stride[2] * w + W * (stride[1] * h + H * (stride[0] * d + D * n)))
                    a = image.ctypes.data + size * (corner + pieces[i, 0])
                    c = sums.ctypes.data + size * l * held * columns
                    for p in range(0, pixels, rows):
                        at = a + size * p * stride[2] * C
                        tile(block, at, stride[2] * C, 1, b, columns, c + size * p * columns, columns, pieces[i, 2], 0, zero)
            for l in range(count):
                line = begin + l
                n, d, h = line // (depth * height), line // height % depth, line % height
                d, h = start[0] + step[0] * d, start[1] + step[1] * h
                corner = start[2] + step[2] * w + shape[3] * (h + shape[2] * (d + shape[1] * n))
                for p in range(pixels):
                    q = corner + step[2] * p
                    for j in range(kept):
                        value = sums[l * held + p, j]
                        y[q, o + j] = zero if relu and value < zero else value


@njit(parallel=True, nogil=True, cache=True)
def _sum_over_pixels(image, gy, runs, stride, channel, first, outputs, sums, block, rows, columns, zero):  # type: ignore[no-untyped-def]
    """sums[part, (tap, c), o] = Σ over the part's pixels of x̄[pixel, (tap, c)] · ∂y[pixel, o]. One task: a part, a run, a panel."""
    size = image.itemsize
    _, D, H, W, C = image.shape
    N, depth, height, width, _ = gy.shape
    parts, total, wide = sums.shape
    panels = wide // columns
    lines = N * depth * height
    for task in prange(parts * len(runs) * panels):
        part, run, panel = task // (len(runs) * panels), task // panels % len(runs), task % panels
        target = sums.ctypes.data + size * (wide * (total * part + runs[run, 2]) + panel * columns)
        kept = min(columns, outputs - panel * columns)
        right = np.zeros((PIXELS, columns), dtype=gy.dtype)  # ∂y of some pixels, packed: its own strides may collide in the cache
        for line in range(lines * part // parts, lines * (part + 1) // parts):
            n, d, h = line // (depth * height), line // height % depth, line % height
            corner = image.ctypes.data + size * (C * W * (stride[1] * h + H * (stride[0] * d + D * n)) + runs[run, 0] + channel)
            for w in range(0, width, PIXELS):
                pixels = min(PIXELS, width - w)
                for p in range(pixels):
                    for j in range(kept):
                        right[p, j] = gy[n, d, h, w + p, first + panel * columns + j]
                a = corner + size * w * stride[2] * C
                for r in range(0, runs[run, 1], rows):
                    c = target + size * r * wide
                    tile(block, a + size * r, 1, stride[2] * C, right.ctypes.data, columns, c, wide, pixels, 0, zero)


@njit(parallel=True, nogil=True, cache=True)
def _collect(sums, runs, gw):  # type: ignore[no-untyped-def]
    """Adds the parts in order and brings (tap, c) × o into the weight's own order (o, c, tap)."""
    outputs, channels, _ = gw.shape
    for c in prange(channels):
        tap = 0
        for run in range(len(runs)):
            for t in range(runs[run, 1] // channels):
                for o in range(outputs):
                    total = sums[0, runs[run, 2] + t * channels + c, o]
                    for part in range(1, len(sums)):
                        total += sums[part, runs[run, 2] + t * channels + c, o]
                    gw[o, c, tap] = total
                tap += 1


@njit(parallel=True, nogil=True, cache=True)
def _column_sums(pixels, sums):  # type: ignore[no-untyped-def]
    parts = len(sums)
    for part in prange(parts):
        for p in range(len(pixels) * part // parts, len(pixels) * (part + 1) // parts):
            for c in range(pixels.shape[1]):
                sums[part, c] += pixels[p, c]
