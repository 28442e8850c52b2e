"""The gradient to the weights as the definition has it, for every window, stride, dilation and padding.

    ∂w[(tap, c), o] = Σ_p x̄[s·p + d·tap − before, c] · ∂y[p, o]          a product over windows p

Some two hundred windows at a time, the numbers under each are copied side by side into a small matrix that stays in the first caches
("im2col", but never of a whole image), ∂y of these windows into another, and the micro-kernel multiplies them:

    columns: windows p           columns: o
    ┌                    ┐   ┌            ┐
    │ x̄[s·p + d·tap, c] │ · │ ∂y[p, o]   │  →  ∂w[(tap, c), o]
    └                    ┘   └            ┘
    rows: (tap, c)               rows: windows p

The copy costs a read and a write for each number, against one multiplication for each output channel. The right matrix needs none if
∂y's pixels lie at equal distances, and near. With few outputs the roles are changed, sums of one output lie along the channels, and then
it is x that may need none. The windows are split into a number of parts that does not depend on the number of threads, and the parts are
added in order: the result is the same bit for bit.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import get_thread_id, njit

from minunet import memory
from minunet.ops.conv.cpu.images import Image, as_image, as_it_lies, distance, gated_move, move
from minunet.ops.conv.cpu.sums import over_pixels
from minunet.simd import (
    CACHE_LINE,
    VECTOR_BYTES,
    all_tasks,
    block_for,
    lanes,
    multiply,
    peek,
    poke,
    prefetch,
    share,
    thread_count,
    transpose,
)

PIXELS = 192  # windows at a time, a number that every block of the micro-kernel divides in both directions
FEW = 8  # channels: below, pixels, not channels, are what lies side by side in the small matrix, and fills a vector
SUMS = 1 << 15  # sums that one task holds at most
NUMBERS = 1 << 16  # of windows, copied at a time: the small matrix stays in the second cache
ALONG = 16  # vectors of columns that one task sums at most: a window that is copied meets all of them
NEAR = 1024  # bytes from pixel to pixel that the right matrix is read over: farther ones meet in too few places of the first cache
AHEAD = 8  # pixels: so long before it is copied a pixel is asked for
TASKS = 16  # parts into which the windows are cut, at most


class Window(NamedTuple):
    """Which pixels belong to position p: s·p + d·tap − before for each tap of the kernel; three numbers each."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...] = (1, 1, 1)
    dilation: tuple[int, ...] = (1, 1, 1)
    before: tuple[int, ...] = (0, 0, 0)

    @property
    def numbers(self) -> tuple[int, ...]:
        """All twelve, as the kernels take them."""
        return self.kernel + self.stride + self.dilation + self.before

    def margins(self, sizes: Any, grid: Any) -> Any:
        """The zeros (before, after) that an image of these sizes needs, so that all windows of the grid lie inside."""
        spans = (s * (count - 1) + d * (k - 1) + 1 for k, s, d, count in zip(self.kernel, self.stride, self.dilation, grid, strict=True))
        return tuple((before, max(0, span - before - size)) for before, span, size in zip(self.before, spans, sizes, strict=True))


POINT = Window((1, 1, 1))


def weight_gradient(x: Any, window: Window, grid: Any, gy: Any, gate: Any, bias: bool) -> tuple[Any, Any]:
    """∂w (taps, C, O) and ∂b (O) or None; gy, gate: (N, O, *grid), only where gate > 0 does ∂y count."""
    channels, outputs = x.shape[1], gy.shape[1]
    image, c_step = as_it_lies(x) if channels < FEW else (as_image(x), 1)  # few may also lie in planes
    gradient = as_image(gy)
    opening = gradient if gate is None else as_image(gate)
    length = math.prod(window.kernel) * channels
    swapped = outputs < FEW <= channels  # few outputs: they are the rows of the sums, not the columns
    numbers = length + (bias and not swapped)  # one more number in each window, a 1: its product with ∂y is ∂b
    down, along = (outputs, numbers) if swapped else (numbers, outputs)
    block, rows, wide = block_for(along, x.itemsize)
    whole, read = (window == POINT, image) if swapped else (gate is None, gradient)  # does the right matrix lie there as it is?
    step = pixel_step(read, along, wide, x.itemsize) if whole else 0
    columns = -(-along // wide) * wide
    chunk_along = min(columns, ALONG * lanes(x.itemsize))
    chunk_down = max(rows, min(-(-down // rows) * rows, min(SUMS // chunk_along, NUMBERS // PIXELS) // rows * rows))
    chunks = -(-down // chunk_down) * -(-columns // chunk_along)
    parts = parts_for(chunks, x.shape[0] * math.prod(grid))
    threads = thread_count()
    room = memory.scratch if parts > 1 else memory.empty  # one part is the result
    sums = room((parts, -(-down // chunk_down) * chunk_down, columns), x.dtype)
    small = max(chunk_down + rows, chunk_along)
    left = memory.scratch((threads, PIXELS * small + rows), x.dtype)
    right = memory.scratch((threads, PIXELS * small + rows), x.dtype)
    _weight_gradient(
        all_tasks(), image.walk, c_step, image.sizes, window.numbers, gradient.walk, opening.walk, gate is not None, gradient.sizes, length,
        numbers, swapped, step, chunk_down, chunk_along, sums, left, right, block, rows, wide, POINT.numbers, x.itemsize,
        x.dtype.type(0), x.dtype.type(1),
    )  # fmt: skip
    used = sums[:, :down, :along]
    result = used.sum(axis=0) if parts > 1 else used[0]
    if swapped:
        return result.T.reshape(-1, channels, outputs), over_pixels(gy, gate) if bias else None
    return result[:length].reshape(-1, channels, outputs), result[length] if bias else None


def pixel_step(image: Image, columns: int, wide: int, itemsize: int) -> int:
    """Elements from each pixel to the next where they may be the rows of a right matrix; 0 where such rows must be copied."""
    step = distance(image.sizes, image.walk[1:])
    return step if columns % wide == 0 and step * itemsize <= NEAR else 0


def parts_for(chunks: int, windows: int) -> int:
    """Into how many the windows are cut, whose sums are in `chunks` chunks."""
    return max(1, min(-(-TASKS // chunks), -(-windows // PIXELS)))


@njit(cache=True)
def line_at(p, high, grid):  # type: ignore[no-untyped-def]
    """(n, d, h, w) of position p, and how many positions from it to `high` lie on its line."""
    lines, w = p // grid[2], p % grid[2]
    return lines // (grid[0] * grid[1]), lines // grid[1] % grid[0], lines % grid[1], w, min(high - p, grid[2] - w)


@njit(cache=True)
def pack(x, c_step, gate, gated, inside, window, grid, low, high, first, last, left, a_row, a_step, size, zero):  # type: ignore[no-untyped-def]
    """Numbers first … last − 1 of the windows at positions low … high − 1, to the address left + window · a_row + number · a_step."""
    channels = inside[4]
    kernel, stride, dilation, before = window[0:3], window[3:6], window[6:9], window[9:12]
    apart = True  # each window has its pixels for itself
    for axis in range(3):
        apart = apart and stride[axis] > dilation[axis] * (kernel[axis] - 1)
    p = low
    while p < high:
        n, d, h, w, count = line_at(p, high, grid)
        for tap in range(first // channels, (last + channels - 1) // channels):
            d_tap = d * stride[0] - before[0] + tap // (kernel[1] * kernel[2]) * dilation[0]
            h_tap = h * stride[1] - before[1] + tap // kernel[2] % kernel[1] * dilation[1]
            w_tap = w * stride[2] - before[2] + tap % kernel[2] * dilation[2]
            c, end = max(first - tap * channels, 0), min(last - tap * channels, channels)
            begin, stop = 0, 0  # the windows for which this tap lies inside the image
            if 0 <= d_tap < inside[1] and 0 <= h_tap < inside[2]:
                begin = min(count, (max(0, -w_tap) + stride[2] - 1) // stride[2])
                stop = max(begin, min(count, (inside[3] - w_tap + stride[2] - 1) // stride[2]))
            to = left + size * ((p - low) * a_row + (tap * channels + c - first) * a_step)
            source = x[0] + size * (n * x[1] + d_tap * x[2] + h_tap * x[3] + w_tap * x[4] + c * c_step)
            opening = gate[0] + size * (n * gate[1] + d_tap * gate[2] + h_tap * gate[3] + w_tap * gate[4] + c)
            _copy(
                source, stride[2] * x[4], c_step, opening, stride[2] * gate[4], gated, apart, begin, stop, count, end - c, to, a_row,
                a_step, size, zero,
            )  # fmt: skip
        p += count


@njit(cache=True)
def _copy(x, x_step, c_step, gate, gate_step, gated, apart, begin, stop, count, channels, to, a_row, a_step, size, zero):  # type: ignore[no-untyped-def]
    """`channels` numbers of each of `count` pixels, zeros before `begin` and from `stop` on. apart: nobody else has read them just now.
    With a_step = 1 channels lie side by side: c_step is 1."""
    across = VECTOR_BYTES // size
    if a_step == 1:
        vectors = channels // across * across
        for i in range(count if vectors else 0):
            row, pixel, opening = to + size * i * a_row, x + size * i * x_step, gate + size * i * gate_step
            for line in range(0, size * vectors if apart else 0, CACHE_LINE):
                prefetch(pixel + size * AHEAD * x_step + line)
            if i < begin or i >= stop:
                for c in range(vectors):
                    poke(row, c, zero)
            elif gated:
                for c in range(0, vectors, across):
                    gated_move(0, pixel + size * c, 0, 0, row + size * c, 0, 0, opening + size * c, 0, 0, 0, zero)
            else:
                for c in range(0, vectors, across):
                    move(0, pixel + size * c, 0, 0, row + size * c, 0, 0, 0, 0, 0, 0, zero)
        for c in range(vectors, channels):
            for i in range(begin):
                poke(to, i * a_row + c, zero)
            if gated:
                for i in range(begin, stop):
                    poke(to, i * a_row + c, peek(x, i * x_step + c, zero) if peek(gate, i * gate_step + c, zero) > zero else zero)
            else:
                for i in range(begin, stop):
                    poke(to, i * a_row + c, peek(x, i * x_step + c, zero))
            for i in range(stop, count):
                poke(to, i * a_row + c, zero)
        return
    whole = 0 if gated or c_step != 1 or begin > 0 or stop < count else channels // across * across
    squares = count // across * across
    for c in range(0, whole, across):
        for i in range(0, squares, across):
            transpose(x + size * (i * x_step + c), x_step, to + size * (c * a_step + i), a_step, zero)
    for c in range(channels):
        row, pixel, opening = to + size * c * a_step, x + size * c * c_step, gate + size * c
        for i in range(begin):
            poke(row, i, zero)
        first = squares if c < whole else begin
        if gated:
            for i in range(first, stop):
                poke(row, i, peek(pixel, i * x_step, zero) if peek(opening, i * gate_step, zero) > zero else zero)
        elif x_step == 1:
            for i in range(first, stop):
                poke(row, i, peek(pixel, i, zero))
        else:
            for i in range(first, stop):
                poke(row, i, peek(pixel, i * x_step, zero))
        for i in range(stop, count):
            poke(row, i, zero)


@njit(nogil=True, cache=True)
def _weight_gradient(  # type: ignore[no-untyped-def]
    mine, x, c_step, inside, window, gy, gate, gated, shape, length, numbers, swapped, step, chunk_down, chunk_along, sums, left, right,
    block, rows, wide, point, size, zero, one
):  # fmt: skip
    """One task: a part of the windows, a chunk of the rows and of the columns of the sums."""
    parts, down, columns = sums.shape
    outputs = shape[4]
    grid = (shape[1], shape[2], shape[3])
    total = shape[0] * grid[0] * grid[1] * grid[2]
    tall, broad = down // chunk_down, (columns + chunk_along - 1) // chunk_along
    chunk_numbers, chunk_outputs = (chunk_along, chunk_down) if swapped else (chunk_down, chunk_along)
    few = inside[4] < FEW
    number_step, window_step = (PIXELS, 1) if few else (1, chunk_numbers)
    for task in share(mine, parts * tall * broad):
        thread = get_thread_id()
        a, b = left.ctypes.data + size * thread * left.shape[1], right.ctypes.data + size * thread * right.shape[1]
        part, i, j = task // (tall * broad), task // broad % tall, task % broad
        first, o0 = (j * chunk_along, i * chunk_down) if swapped else (i * chunk_down, j * chunk_along)
        last, kept = min(first + chunk_numbers, length), min(chunk_outputs, outputs - o0)
        source = (gy[0] + size * o0, gy[1], gy[2], gy[3], gy[4])
        opening = (gate[0] + size * o0, gate[1], gate[2], gate[3], gate[4])
        of_kept = (shape[0], shape[1], shape[2], shape[3], kept)
        if first <= length < min(first + chunk_numbers, numbers):
            for p in range(PIXELS):
                poke(a, (length - first) * number_step + p * window_step, one)
        fresh = 1
        for low in range(total * part // parts, total * (part + 1) // parts, PIXELS):
            high = min(low + PIXELS, total * (part + 1) // parts)
            # bool(0) and int64(1) are no literals, for which Numba would compile a function once more
            if last > first and not (swapped and step):
                pack(x, c_step, x, bool(0), inside, window, grid, low, high, first, last, a, window_step, number_step, size, zero)
            if swapped or not step:
                pack(
                    source, np.int64(1), opening, gated, of_kept, point, grid, low, high, np.int64(0), kept, b, chunk_outputs, np.int64(1),
                    size, zero,
                )  # fmt: skip
            for r in range(0, min(chunk_down, (outputs if swapped else numbers) - i * chunk_down), rows):
                for k in range(0, min(chunk_along, columns - j * chunk_along), wide):
                    c = sums.ctypes.data + size * ((part * down + i * chunk_down + r) * columns + j * chunk_along + k)
                    at, at_row, at_step, by, by_step = a + size * r * number_step, number_step, window_step, b + size * k, chunk_outputs
                    if swapped:
                        at, at_row, at_step, by, by_step = b + size * r, 1, chunk_outputs, a + size * k, window_step
                    if step:
                        by, by_step = (x[0] + size * first if swapped else source[0]) + size * (low * step + k), step
                    multiply(block, at, at_row, at_step, by, by_step, c, columns, high - low, rows, fresh, zero)
            fresh = 0
