"""The gradient to the weights where windows move by one pixel along a line: nothing of the image is copied.

    ∂w[(tap, c), o] = Σ_p x̄[p + tap, c] · ∂y[p, o]

`direct_weights` copies the numbers under each window side by side, so that they become a matrix. Of 5×5×5 windows every pixel is copied
125 times. But where windows are one pixel apart, the image is that matrix already, for a line of windows and one row of taps:

    image  ░░░░[▓▓▓▓▓▓▓▓▓▓]░░░░░░░░       window p: a run of k_w·C numbers
           ░░░░░░[▓▓▓▓▓▓▓▓▓▓]░░░░░░       window p + 1: the run that begins C numbers later

Rows of the left matrix may overlap in memory; the micro-kernel asks only how far apart they begin. So each line of windows is multiplied
with its line of ∂y, for each row of taps (k_d, k_h), and the sums of all lines add up. The image gets its margin of zeros first.

As there, the lines are split into a number of parts that does not depend on the number of threads, and the parts are added in order.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import get_thread_id, njit

from minunet import memory
from minunet.arrays import channels_first, channels_last
from minunet.ops.conv.cpu.direct_weights import ALONG, PIXELS, POINT, SUMS, line_at, pack, parts_for, pixel_step
from minunet.ops.conv.cpu.images import as_image, as_triple, padded
from minunet.ops.conv.cpu.sums import over_pixels
from minunet.simd import all_tasks, block_for, lanes, multiply, share, thread_count

if TYPE_CHECKING:
    from minunet.ops.conv.cpu.direct_weights import Window


def weight_gradient(x: Any, window: Window, grid: Any, gy: Any, gate: Any, bias: bool) -> tuple[Any, Any]:
    """∂w (taps, C, O) and ∂b (O) or None; gy, gate: (N, O, *grid), only where gate > 0 does ∂y count."""
    channels, outputs = x.shape[1], gy.shape[1]
    image, gradient = padded(x, None, window.margins(as_triple(x.shape[2:], 1), grid)), as_image(gy)
    if image.walk[4] != channels:  # some of the channels of a wider array
        image = as_image(channels_first(channels_last(x)))
    opening = gradient if gate is None else as_image(gate)
    block, rows, wide = block_for(outputs, x.itemsize)
    run, runs = window.kernel[2] * channels, window.kernel[0] * window.kernel[1]
    high = -(-run // rows) * rows  # sums of a run: its last block of rows begins earlier, where it would not be filled
    step = pixel_step(gradient, outputs, wide, x.itemsize) if gate is None else 0
    columns = -(-outputs // wide) * wide
    chunk_along = min(columns, ALONG * lanes(x.itemsize))
    chunk_runs = max(1, min(runs, SUMS // (chunk_along * high)))
    chunks = -(-runs // chunk_runs) * -(-columns // chunk_along)
    parts = parts_for(chunks, x.shape[0] * math.prod(grid))
    sums = memory.scratch((parts, runs * high, columns), x.dtype)
    right = memory.scratch((thread_count(), PIXELS * chunk_along + rows), x.dtype)
    _add_lines(
        all_tasks(), image.walk, window.numbers, gradient.walk, opening.walk, gate is not None, gradient.sizes, step, run, chunk_runs,
        chunk_along, sums, right, block, rows, wide, POINT.numbers, x.itemsize, x.dtype.type(0),
    )  # fmt: skip
    number = np.arange(run)
    place = np.where(number < run // rows * rows, number, number + high - run)
    total = sums[:, :, :outputs].sum(axis=0).reshape(runs, high, outputs)[:, place]
    return total.reshape(-1, channels, outputs), over_pixels(gy, gate) if bias else None


@njit(nogil=True, cache=True)
def _add_lines(  # type: ignore[no-untyped-def]
    mine, x, window, gy, gate, gated, shape, step, run, chunk_runs, chunk_along, sums, right, block, rows, wide, point, size, zero
):
    """One task: a part of the lines, for some rows of taps and a chunk of the columns of the sums."""
    parts, down, columns = sums.shape
    high = (run + rows - 1) // rows * rows
    runs = down // high
    grid, kernel, stride, dilation = (shape[1], shape[2], shape[3]), window[0:3], window[3:6], window[6:9]
    total = shape[0] * grid[0] * grid[1] * grid[2]
    tall, broad = (runs + chunk_runs - 1) // chunk_runs, (columns + chunk_along - 1) // chunk_along
    for task in share(mine, parts * tall * broad):
        part, i, j = task // (tall * broad), task // broad % tall, task % broad
        copy = right.ctypes.data + size * get_thread_id() * right.shape[1]
        o0 = j * chunk_along
        kept = min(chunk_along, shape[4] - o0)
        source = (gy[0] + size * o0, gy[1], gy[2], gy[3], gy[4])
        opening = (gate[0] + size * o0, gate[1], gate[2], gate[3], gate[4])
        of_kept = (shape[0], shape[1], shape[2], shape[3], kept)
        fresh, low, end = 1, total * part // parts, total * (part + 1) // parts
        while low < end:
            n, d, h, w, count = line_at(low, min(end, low + PIXELS), grid)
            by, by_step = source[0] + size * low * step, step
            if not step:
                pack(
                    source, np.int64(1), opening, gated, of_kept, point, grid, low, low + count, np.int64(0), kept, copy, chunk_along,
                    np.int64(1), size, zero,
                )  # fmt: skip
                by, by_step = copy, chunk_along
            corner = x[0] + size * (n * x[1] + d * stride[0] * x[2] + h * stride[1] * x[3] + w * x[4])
            for t in range(i * chunk_runs, min((i + 1) * chunk_runs, runs)):
                line = corner + size * (t // kernel[1] * dilation[0] * x[2] + t % kernel[1] * dilation[1] * x[3])
                for r in range(0, high, rows):
                    for k in range(0, min(chunk_along, columns - o0), wide):
                        c = sums.ctypes.data + size * ((part * down + t * high + r) * columns + o0 + k)
                        a = line + size * min(r, run - rows)
                        multiply(block, a, 1, x[4], by + size * k, by_step, c, columns, count, rows, fresh, zero)
            fresh = 0
            low += count
