"""The sum as the definition has it, for every window, stride, dilation and padding: the image itself is the matrix.

In channels-last memory the numbers under one row of a window, (k_w, c) for all taps k_w and channels c, lie side by side. So a
window is a few runs of neighbouring numbers, at the same distances from its first one wherever it lies:

    image  ░░░░░░░░░░░░░░░░░░░░░░
           ░░[▓▓▓▓▓▓]░░░░░░░░░░░░     three runs of 3·C numbers: one row of the left matrix
           ░░[▓▓▓▓▓▓]░░░░░░░░░░░░     × (tap, c) rows and o columns of weights
           ░░[▓▓▓▓▓▓]░░░░░░░░░░░░     = y[p, o]
           ░░░░░░░░░░░░░░░░░░░░░░

The micro-kernel takes a few windows at a time, by their addresses, and walks through the runs while the sums stay in registers. They
begin as the bias, and go straight to y. Nothing is copied ("im2col") but what must be padded with zeros.

The gradient to x, which is also the transposed convolution, is the same sum. The pixels of x that share a remainder modulo the stride
meet the same taps, so each remainder is a *section*: a convolution of ∂y by some of the taps, without stride, whose results are
`stride` pixels apart. UNet's 2×2 up-convolution has four sections of one tap.

Every result is one sum in one order, whatever task computes it: the number of threads changes no bit.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import get_num_threads, get_thread_id, njit, prange

from minunet import memory
from minunet.ops.conv.cpu.images import as_triple, padded, walk
from minunet.simd import CACHE_LINE, VECTOR_BYTES, block_for, peek, poke, prefetch, tile_of_runs, transpose

if TYPE_CHECKING:
    from minunet.ops.conv import Geometry

POSITIONS = 192  # of windows, in one task
PANEL_BYTES = 1 << 17  # of weights that a task uses for all its windows before it goes on: they stay in the second cache
PLACE = 8  # bytes of an address

Numbers = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]


class Section(NamedTuple):
    """Results at start + step·p: which taps of the filter they sum over, and where in the image, seen from p, each tap is."""

    start: tuple[int, ...]
    taps: tuple[tuple[int, ...], ...]
    offsets: tuple[tuple[int, ...], ...]


def forward(x: Any, w: Any, b: Any, geometry: Geometry, activation: str | None, y: Any) -> None:
    """y[n,o,p] = b[o] + Σ_c Σ_k x̄[n,c,s·p+d·k]·w[o,c,k], written into y (N, D, H, W, O), channels side by side."""
    taps = tuple(product(*(range(k) for k in w.shape[2:])))
    offsets = tuple(tuple(d * k for d, k in zip(geometry.dilation, tap, strict=True)) for tap in taps)
    once = (1,) * len(geometry.stride)
    sections = (Section((0,) * len(once), taps, offsets),)
    _convolve(x, None, geometry.padding, np.split(w, geometry.groups), b, sections, geometry.stride, once, activation, y)


def grad_x(gy: Any, gate: Any, w: Any, b: Any, geometry: Geometry, activation: str | None, gx: Any) -> None:
    """∂x[n,c,i] = b[c] + Σ_o Σ_{p,k: s·p+d·k=i} ∂y[n,o,p]·w[o,c,k], written into gx (N, D, H, W, C); only where gate > 0 does ∂y count."""
    out = gy.shape[2:]
    margins, sections = _remainders(geometry, w.shape[2:], gx.shape[4 - len(out) : 4], out)
    filters = [part.swapaxes(0, 1) for part in np.split(w, geometry.groups)]
    _convolve(gy, gate, margins, filters, b, sections, (1,) * len(out), geometry.stride, activation, gx)


@lru_cache
def _remainders(geometry: Geometry, kernel: Numbers, spatial: Numbers, out: Numbers) -> tuple[Pairs, tuple[Section, ...]]:
    """The zeros that ∂y needs around it, and a section for each remainder of the positions in x modulo the stride."""
    axes = [
        [_taps_of_remainder(start, k, s, before, d) for start in range(min(s, n))]
        for n, k, s, (before, _), d in zip(spatial, kernel, geometry.stride, geometry.padding, geometry.dilation, strict=True)
    ]
    margins = []
    for n, m, s, remainders in zip(spatial, out, geometry.stride, axes, strict=True):
        first = min((shift for taps in remainders for _, shift in taps), default=0)  # no tap at all may reach a small x
        last = max((shift + (n - 1 - start) // s for start, taps in enumerate(remainders) for _, shift in taps), default=0)
        margins.append((max(0, -first), max(0, last - (m - 1))))
    sections = []
    for start in product(*(range(len(remainders)) for remainders in axes)):
        reached = list(product(*(remainders[i] for remainders, i in zip(axes, start, strict=True))))
        offsets = tuple(tuple(shift + before for (_, shift), (before, _) in zip(tap, margins, strict=True)) for tap in reached)
        sections.append(Section(start, tuple(tuple(k for k, _ in tap) for tap in reached), offsets))
    return tuple(margins), tuple(sections)


def _taps_of_remainder(start: int, kernel: int, stride: int, before: int, dilation: int) -> list[tuple[int, int]]:
    """Which taps k meet x at the positions start + stride·j, and in which ∂y: (k, shift) for ∂y[j + shift]."""
    reached = [(k, start + before - dilation * k) for k in range(kernel)]
    return [(k, distance // stride) for k, distance in reached if distance % stride == 0]


def _convolve(
    x: Any,
    gate: Any,
    margins: Pairs,
    filters: list[Any],
    b: Any,
    sections: tuple[Section, ...],
    stride: tuple[int, ...],
    step: tuple[int, ...],
    activation: str | None,
    y: Any,
) -> None:
    """The sections of each group: y[n, start + step·p, o] = b[o] + Σ_tap Σ_c x̄[n, stride·p + offset[tap], c] · w[o, c, tap].

    x, gate: (N, C, *axes); margins: zeros around x; filters: (O, C, *kernel) for each group, any strides; y: (N, D, H, W, all O).
    """
    outputs, channels = filters[0].shape[:2]
    volume, image = padded(x, gate, margins)
    block, rows, wide = block_for(outputs, y.itemsize)
    panels, threads, zero = -(-outputs // wide), get_num_threads(), y.dtype.type(0)
    w_steps = tuple(stride // y.itemsize for stride in filters[0].strides)
    alone = channels == volume.shape[-1]
    plan = _plan(sections, image[1:], channels, alone, wide * y.itemsize, y.shape[1:4], step, w_steps[2:])
    packed = memory.empty((len(plan.weights) * channels * panels * wide + VECTOR_BYTES,), y.dtype)
    bias = np.zeros(panels * wide, y.dtype)
    chunks = -(-y.shape[0] * plan.largest // POSITIONS)
    groups = max(1, min(len(sections) * panels, 4 * threads // max(chunks, 1)))
    places = np.empty((threads, 2, POSITIONS + rows), np.int64)
    for group, w in enumerate(filters):
        _pack(plan.weights, w.__array_interface__["data"][0], *w_steps[:2], channels, outputs, packed, wide, zero)
        if b is not None:
            bias[:outputs] = b[group * outputs : (group + 1) * outputs]
        _sum(
            (image[0] + group * channels * y.itemsize, *image[1:]), as_triple(stride, 1), plan.sections, plan.stages, plan.runs, packed,
            bias, channels, walk(y[..., group * outputs :]), y.shape, as_triple(step, 1), outputs, chunks, groups, places, block, rows,
            wide, int(activation == "relu"), zero,
        )  # fmt: skip


class Plan(NamedTuple):
    """What the kernels read of the sections: tables of int64.

    sections: start and grid, three numbers each; the taps before, and its own; its first stage, and how many it has.
    stages: the first run, the number of runs, the rows of weights before. A stage has about PANEL_BYTES of weights.
    runs: the offset in the image, the length. weights, for each tap: where in w, the taps of the sections before, and of its own section.
    largest: the positions of the largest grid.
    """

    sections: Any
    stages: Any
    runs: Any
    weights: Any
    largest: int


@lru_cache(maxsize=512)
def _plan(
    sections: tuple[Section, ...],
    steps: Numbers,
    channels: int,
    alone: bool,
    row_bytes: int,
    spatial: Numbers,
    step: Numbers,
    w_steps: Numbers,
) -> Plan:
    """steps: of the image. alone: the group has all channels, so that neighbouring taps are one run. row_bytes: of a row of weights."""
    table: list[list[int]] = []
    stages: list[list[int]] = []
    runs: list[list[int]] = []
    weights: list[list[int]] = []
    depth = max(1, PANEL_BYTES // row_bytes)
    taps = 0
    for section in sections:
        start = as_triple(section.start, 0)
        grid = [-(-(n - first) // s) for n, first, s in zip(spatial, start, as_triple(step, 1), strict=True)]
        table.append([*start, *grid, taps, len(section.taps), len(stages)])
        row = 0
        stages.append([len(runs), 0, row])
        for offset in section.offsets:
            where = sum(s * o for s, o in zip(steps[4 - len(offset) :], offset, strict=True))
            if row - stages[-1][2] >= depth:
                stages.append([len(runs), 0, row])
            if alone and stages[-1][1] and where == sum(runs[-1]):
                runs[-1][1] += channels
            else:
                runs.append([where, channels])
                stages[-1][1] += 1
            row += channels
        table[-1].append(len(stages) - table[-1][-1])
        weights += [[sum(k * s for k, s in zip(tap, w_steps, strict=True)), taps, len(section.taps)] for tap in section.taps]
        taps += len(section.taps)
    largest = max((prod(row[3:6]) for row in table), default=0)
    return Plan(_table(table, 10), _table(stages, 3), _table(runs, 2), _table(weights, 3), largest)


def _table(rows: list[list[int]], columns: int) -> Any:
    return np.array(rows, np.int64).reshape(-1, columns)


@njit(parallel=True, nogil=True, cache=True)
def _pack(taps, w, o_step, c_step, channels, outputs, packed, wide, zero):  # type: ignore[no-untyped-def]
    """(o, c, tap) → (section, panel, (tap, c), o within the panel), zeros beyond the last o."""
    size = packed.itemsize
    across = VECTOR_BYTES // size
    panels = (outputs + wide - 1) // wide
    groups = (channels + across - 1) // across
    for task in prange(len(taps) * groups):
        tap, first = task // groups, task % groups * across
        count = min(across, channels - first)
        before, length = taps[tap, 1], taps[tap, 2] * channels
        row = before * channels * panels + (tap - before) * channels + first  # of the section's first panel
        for o in range(0, panels * wide, across):
            panel, column = o // wide, o % wide
            out = packed.ctypes.data + size * ((row + panel * length) * wide + column)
            source = w + size * (taps[tap, 0] + first * c_step + o * o_step)
            if c_step == 1 and count == across and o + across <= outputs:
                transpose(source, o_step, out, wide, zero)
                continue
            for c in range(count):
                for l in range(across):
                    poke(out, c * wide + l, peek(source, c * c_step + l * o_step, zero) if o + l < outputs else zero)


@njit(cache=True)
def _fill(places, image, stride, y, shape, step, section, low, high, rows, size):  # type: ignore[no-untyped-def]
    """The addresses of windows low … high − 1 of a section, and of their results; the last is repeated to fill a block of `rows`."""
    depth, height, width = section[3], section[4], section[5]
    p = low
    while p < high:
        line, w = p // width, p % width
        n, d, h = line // (depth * height), line // height % depth, line % height
        count = min(high - p, width - w)
        a = image[0] + size * (n * image[1] + stride[0] * d * image[2] + stride[1] * h * image[3] + stride[2] * w * image[4])
        d, h, w = section[0] + step[0] * d, section[1] + step[1] * h, section[2] + step[2] * w
        c = y[0] + size * (n * y[1] + d * y[2] + h * y[3] + w * y[4])
        a_step, c_step = size * stride[2] * image[4], size * step[2] * y[4]
        for i in range(count):
            places[0, p - low + i] = a + i * a_step
            places[1, p - low + i] = c + i * c_step
        p += count
    for i in range(high - low, high - low + rows):
        places[0, i], places[1, i] = places[0, high - low - 1], places[1, high - low - 1]


@njit(cache=True)
def _prefetch(windows, runs, size):  # type: ignore[no-untyped-def]
    """Asks for the numbers of the next windows: they come while these are multiplied."""
    for window in windows:
        for i in range(len(runs)):
            for c in range(0, runs[i, 1], CACHE_LINE // size):
                prefetch(window + size * (runs[i, 0] + c))


@njit(parallel=True, nogil=True, cache=True)
def _sum(  # type: ignore[no-untyped-def]
    image, stride, sections, stages, runs, packed, bias, channels, y, shape, step, outputs, chunks, groups, places, block, rows, wide,
    relu, zero
):  # fmt: skip
    """One task: a chunk of the windows, for some of the pairs of a section and a panel of outputs."""
    size = packed.itemsize
    panels = (outputs + wide - 1) // wide
    pairs = len(sections) * panels
    for task in prange(chunks * groups):
        mine = places[get_thread_id()]
        chunk, group = task // groups, task % groups
        for pair in range(pairs * group // groups, pairs * (group + 1) // groups):
            section, o = sections[pair // panels], pair % panels * wide
            total = shape[0] * section[3] * section[4] * section[5]
            low, high = total * chunk // chunks, total * (chunk + 1) // chunks
            if low == high:
                continue
            _fill(mine, image, stride, y, shape, step, section, low, high, rows, size)
            a, c = mine[0].ctypes.data, mine[1].ctypes.data
            first_row = section[6] * channels * panels + section[7] * channels * (pair % panels)
            for stage in range(section[9]):
                run, count, row = stages[section[8] + stage]
                first, last = int(stage == 0), stage == section[9] - 1
                b = packed.ctypes.data + size * (first_row + row) * wide
                for t in range(0, high - low, rows):
                    if pair == pairs * group // groups and t + rows < high - low:
                        _prefetch(mine[0, t + rows : t + 2 * rows], runs[run : run + count], size)
                    tile_of_runs(
                        block, a + PLACE * t, runs.ctypes.data + 2 * PLACE * run, count, b, c + PLACE * t, o, outputs - o,
                        bias.ctypes.data + size * o, first, relu if last else 0, zero,
                    )  # fmt: skip
