"""The sum as the definition has it, for every window, stride, dilation and padding: the image itself is the matrix.

In channels-last memory the numbers under one row of a window, (k_w, c) for all taps k_w and channels c, lie side by side. So a
window is a few runs of neighbouring numbers, at the same distances from its first one wherever it lies:

    image  ░░░░░░░░░░░░░░░░░░░░░░
           ░░[▓▓▓▓▓▓]░░░░░░░░░░░░     three runs of 3·C numbers: one row of the left matrix
           ░░[▓▓▓▓▓▓]░░░░░░░░░░░░     × (tap, c) rows and o columns of weights
           ░░[▓▓▓▓▓▓]░░░░░░░░░░░░     = y[p, o]
           ░░░░░░░░░░░░░░░░░░░░░░

The micro-kernel takes a few windows at a time, by their addresses, and walks through the numbers while the sums stay in registers. They
begin as the bias, and go straight to y. Nothing is copied ("im2col") but what must be padded with zeros. An image of few channels may
also have them in planes, one behind the other, as a first layer is given it: the numbers are the same, only at other distances. Then
the pixels of a line lie side by side, each belongs to three windows, and is loaded once for them.

The gradient to x, which is also the transposed convolution, is the same sum. The pixels of x that share a remainder modulo the stride
meet the same taps: a convolution of ∂y by some of the taps, without stride, whose results are `stride` pixels apart. Remainders that read
the same numbers of ∂y are *members* of one section, and their weights stand side by side as if they were more outputs. UNet's 2×2
up-convolution is one section of four members with one tap: a 1×1 convolution to four times as many outputs, each quarter written elsewhere.

Vectors run along the outputs. Where these are so few that most of a vector would be empty, as in a 1×1 head, they run along the numbers
of a window instead, and their lanes are added at the end.

Every result is one sum in one order, whatever task computes it: the number of threads changes no bit. (With vectors along a window, the
order is that of its runs, which are longer where the image has no margin between its channels. Where pixels are shared, a line's
channels come before its taps.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import gcd, prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import get_thread_id, njit

from minunet import memory
from minunet.ops.conv.cpu.choice import FEW
from minunet.ops.conv.cpu.images import LARGE, as_image, as_triple, distance, in_whole_lines, padded, padded_planes
from minunet.simd import (
    BLOCKS,
    CACHE_LINE,
    DOTS,
    PLACE,
    VECTOR_BYTES,
    address,
    all_tasks,
    block_for,
    lanes,
    multiply_runs,
    next_line,
    peek,
    poke,
    settle,
    share,
    thread_count,
    transpose,
)

if TYPE_CHECKING:
    from minunet.ops.conv import Geometry

POSITIONS = 384  # of windows, in one task
ENOUGH = 16  # numbers of a window: so many take as long to add up as their result takes to memory, and it may be streamed
PANEL_BYTES = 1 << 17  # of weights that a task uses for all its windows before it goes on: they stay in the second cache
# What an output costs where vectors run along the window, alone and as one of two: for a vector of its numbers, and for the sum of the
# lanes. In numbers that the micro-kernel for vectors of outputs takes meanwhile; measured on heads.
COSTS = ((1.75, 6.25), (1.5, 2.5)) if VECTOR_BYTES == 64 else ((1.0, 5.0), (0.75, 3.0))
# The first of BLOCKS for windows that share pixels. Sharing them, 8×2 takes four fifths of the time of 6×4, which has no registers left
# for it; 6×2 of narrower vectors is faster without than 8×1 with it.
SHARING = 1 if VECTOR_BYTES == 64 else 0
PLANS = 1024  # that are kept, and what they are found by

Numbers = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]


class Section(NamedTuple):
    """Results at start + step·p for each start, the section's *members*, which read the same numbers of the image with other weights.

    offsets: where in the image, seen from p, the numbers lie. taps: for each start the taps of the filter that they meet, in this order.
    grid: the p's along each axis.
    """

    starts: tuple[Numbers, ...]
    taps: tuple[tuple[Numbers, ...], ...]
    offsets: tuple[Numbers, ...]
    grid: Numbers


@dataclass(frozen=True, eq=False)  # made once for a geometry and known by its identity: plans are found by it
class Sums:
    """What is summed. margins: zeros around the image; stride: pixels from window to window; step: from result to result."""

    margins: Pairs
    stride: Numbers
    step: Numbers
    sections: tuple[Section, ...]

    @property
    def apart(self) -> bool:
        """Does each window of a section have its numbers for itself?"""
        return all(
            max(axis) - min(axis) < s
            for section in self.sections
            if section.offsets  # some results meet no tap
            for axis, s in zip(zip(*section.offsets, strict=True), self.stride, strict=True)
        )

    @property
    def in_threes(self) -> bool:
        """Do three taps lie in a line, and windows as near to each other as the taps? Then each pixel belongs to three windows."""
        across = [offset[-1] for section in self.sections for offset in section.offsets]
        return len(self.sections) == 1 and self.stride[-1] == 1 and across == [0, 1, 2] * (len(across) // 3)


def forward(x: Any, w: Any, b: Any, geometry: Geometry, activation: str | None, y: Any) -> None:
    """y[n,o,p] = b[o] + Σ_c Σ_k x̄[n,c,s·p+d·k]·w[o,c,k], written into y (N, O, *axes), channels side by side."""
    sums = _windows(geometry, w.shape[2:], y.shape[2:])
    _convolve(x, None, sums, _split(w, geometry.groups), b, activation, y)


def grad_x(gy: Any, gate: Any, w: Any, b: Any, geometry: Geometry, activation: str | None, gx: Any) -> None:
    """∂x[n,c,i] = b[c] + Σ_o Σ_{p,k: s·p+d·k=i} ∂y[n,o,p]·w[o,c,k], written into gx (N, C, *axes); only where gate > 0 does ∂y count."""
    sums = _remainders(geometry, w.shape[2:], gx.shape[2:], gy.shape[2:])
    _convolve(gy, gate, sums, [part.swapaxes(0, 1) for part in _split(w, geometry.groups)], b, activation, gx)


def _split(w: Any, groups: int) -> list[Any]:
    """The filters of each group."""
    w = w if w.flags.aligned else w.copy()  # else strides count no whole numbers
    return [w] if groups == 1 else np.split(w, groups)


@lru_cache(maxsize=PLANS)
def _windows(geometry: Geometry, kernel: Numbers, out: Numbers) -> Sums:
    """One section with all taps."""
    taps = tuple(product(*(range(k) for k in kernel)))
    offsets = tuple(tuple(d * k for d, k in zip(geometry.dilation, tap, strict=True)) for tap in taps)
    once = (1,) * len(kernel)
    return Sums(geometry.padding, geometry.stride, once, (Section(((0,) * len(kernel),), (taps,), offsets, out),))


@lru_cache(maxsize=PLANS)
def _remainders(geometry: Geometry, kernel: Numbers, spatial: Numbers, out: Numbers) -> Sums:
    """A member for each remainder of the positions in x modulo the stride; those that read the same numbers make one section."""
    axes = [
        [_taps_of_remainder(start, k, s, before, d) for start in range(min(s, n))]
        for n, k, s, (before, _), d in zip(spatial, kernel, geometry.stride, geometry.padding, geometry.dilation, strict=True)
    ]
    margins = []
    for n, m, s, remainders in zip(spatial, out, geometry.stride, axes, strict=True):
        first = min((shift for taps in remainders for _, shift in taps), default=0)  # no tap at all may reach a small x
        last = max((shift + (n - 1 - start) // s for start, taps in enumerate(remainders) for _, shift in taps), default=0)
        margins.append((max(0, -first), max(0, last - (m - 1))))
    members = defaultdict(list)
    for start in product(*(range(len(remainders)) for remainders in axes)):
        reached = list(product(*(remainders[i] for remainders, i in zip(axes, start, strict=True))))
        offsets = tuple(tuple(shift + before for (_, shift), (before, _) in zip(tap, margins, strict=True)) for tap in reached)
        grid = tuple(-(-(n - first) // s) for n, first, s in zip(spatial, start, geometry.stride, strict=True))
        members[offsets, grid].append((start, tuple(tuple(k for k, _ in tap) for tap in reached)))
    sections = tuple(
        Section(tuple(start for start, _ in found), tuple(taps for _, taps in found), offsets, grid)
        for (offsets, grid), found in members.items()
    )
    return Sums(tuple(margins), (1,) * len(out), geometry.stride, sections)


def _taps_of_remainder(start: int, kernel: int, stride: int, before: int, dilation: int) -> list[tuple[int, int]]:
    """Which taps k meet x at the positions start + stride·j, and in which ∂y: (k, shift) for ∂y[j + shift]."""
    reached = [(k, start + before - dilation * k) for k in range(kernel)]
    return [(k, distance // stride) for k, distance in reached if distance % stride == 0]


def _convolve(x: Any, gate: Any, sums: Sums, filters: list[Any], b: Any, activation: str | None, y: Any) -> None:
    """The sections of each group: y[n, start + step·p, o] = b[o] + Σ_tap Σ_c x̄[n, stride·p + offset[tap], c] · w[o, c, tap].

    x, gate: (N, C, *axes); filters: (O, C, *kernel) for each group, any strides; y: (N, all O, *axes).
    """
    if not y.size:
        return
    size, zero = y.itemsize, y.dtype.type(0)
    outputs, channels = filters[0].shape[:2]
    if 1 < x.shape[1] < FEW and channels <= outputs and gate is None and x.flags.c_contiguous:
        image, c_step = padded_planes(x, sums.margins)
    else:
        image, c_step = padded(x, gate, sums.margins), 1
    result = as_image(y).walk
    (where, *steps), (y_where, *y_steps) = image.walk, result
    plan = _plan(
        sums, tuple(steps), c_step, tuple(y_steps), channels, outputs, channels == x.shape[1], y.shape[0], filters[0].strides, size,
        thread_count(),
    )  # fmt: skip
    whole = 1 if plan.whole == 2 and not in_whole_lines(result, size) else plan.whole
    packed = memory.scratch((plan.packed,), y.dtype)
    bias = np.zeros(plan.columns, y.dtype)
    places = np.empty(plan.places, np.int64)
    for group, w in enumerate(filters):
        _pack(all_tasks(), plan.weights, address(w), *plan.w_steps, channels, packed, plan.across, plan.beside, zero)
        if b is not None:
            bias[:, :outputs] = b[group * outputs : (group + 1) * outputs]
        _sum(
            all_tasks(), (where + size * group * channels * c_step, *steps), plan.stride, plan.asks, plan.threes, plan.sections,
            plan.panels, plan.stages, plan.runs, packed, bias, (y_where + size * group * outputs, *y_steps), y.shape[0], plan.step,
            plan.vectors, whole, plan.chunks, plan.groups, places, plan.block, plan.rows, plan.across, plan.beside,
            int(activation == "relu"), zero,
        )  # fmt: skip


class Plan(NamedTuple):
    """All that follows from the shapes and strides.

    sections … vectors: tables of int64 for the kernels.
        section: its grid, three numbers; its first stage, and how many it has
        stage, with about PANEL_BYTES of weights: the first run, the number of runs, the numbers of a column before
        run: the offset in the image, and the length, which is 1 where vectors run along the outputs
        panel, columns that are computed together: the section, where its weights begin, its first vector in all and in the section
        vector of columns: where its results lie, seen from start 0 and output 0, and how many they are
            or one column without vectors: the same, and where its weights lie, seen from those of the panel
        weights, for each tap and vector: where they lie in w, where they go, how many outputs they are
    asks: are windows asked for beforehand, which are not in the cache yet? threes: of the micro-kernel, 0 where pixels are not shared.
    block, rows: of the micro-kernel. across: columns of a vector. columns: (members, outputs filled up to whole vectors).
    beside: numbers from a weight to the next one of the same column.
    whole: 0 where a vector may have fewer outputs; 2 where results are to be streamed, if they lie in whole lines; else 1. Without
        vectors along the outputs: 1 where the results of neighbouring windows lie one behind the other, else 0.
    packed: numbers, and room to begin with a cache line. w_steps: of o and c.
    chunks of the windows, groups of the panels: their products are the tasks. places: a shape, of addresses.
    """

    sections: Any
    panels: Any
    stages: Any
    runs: Any
    vectors: Any
    weights: Any
    stride: Numbers
    step: Numbers
    asks: bool
    threes: int
    block: int
    rows: int
    across: int
    beside: int
    whole: int
    columns: Numbers
    packed: int
    w_steps: Numbers
    chunks: int
    groups: int
    places: Numbers


@lru_cache(maxsize=PLANS)
def _plan(
    sums: Sums,
    image_steps: Numbers,
    c_step: int,
    y_steps: Numbers,
    channels: int,
    outputs: int,
    alone: bool,
    samples: int,
    w_strides: Numbers,
    itemsize: int,
    threads: int,
) -> Plan:
    """c_step: from channel to channel. alone: the group has all channels, so that neighbouring taps are one run. w_strides: bytes."""
    taps = max(len(section.offsets) for section in sums.sections)
    pairs = all(outputs * len(section.starts) % 2 == 0 for section in sums.sections)
    of_vector, of_lanes = COSTS[pairs]
    shared = sums.in_threes and image_steps[-1] == 1  # pixels, by three windows each
    of_output = of_vector * taps * -(-channels // lanes(itemsize)) + of_lanes
    if c_step == 1 and outputs * of_output <= taps * channels:  # vectors along the window, whose channels lie side by side
        across, block, (rows, wide) = 1, len(BLOCKS) + pairs, DOTS[pairs]
    else:
        across = lanes(itemsize)
        columns = gcd(*(-(-outputs // across) * len(s.starts) for s in sums.sections)) * across
        block, rows, wide = block_for(columns, itemsize, first=SHARING if shared else 0)
    each = -(-outputs // across)  # vectors of one member
    beside = wide if across > 1 else 1
    depth = max(1, PANEL_BYTES // (wide * itemsize))
    w_steps = tuple(stride // itemsize for stride in w_strides)
    sections: list[list[int]] = []
    panels: list[list[int]] = []
    stages: list[list[int]] = []
    runs: list[list[int]] = []
    vectors: list[list[int]] = []
    weights: list[list[int]] = []
    packed = 0
    for section in sums.sections:
        sections.append([*as_triple(section.grid, 1), len(stages)])
        length = 0
        stages.append([len(runs), 0, length])
        for offset in section.offsets:
            where = _dot(image_steps[4 - len(offset) :], offset)
            if length - stages[-1][2] >= depth:
                stages.append([len(runs), 0, length])
            if across > 1:
                runs.extend([where + c * c_step, 1] for c in range(channels))
                stages[-1][1] += channels
            elif alone and stages[-1][1] and where == sum(runs[-1]):
                runs[-1][1] += channels
            else:
                runs.append([where, channels])
                stages[-1][1] += 1
            length += channels
        sections[-1].append(len(stages) - sections[-1][-1])
        for number, (member, v) in enumerate(product(range(len(section.starts)), range(each))):
            if number % (wide // across) == 0:
                panels.append([len(sections) - 1, packed, len(vectors), number])
                packed += length * wide
            start, kept = section.starts[member], min(across, outputs - v * across)
            column = number % (wide // across) * (across if across > 1 else length)  # where its weights begin in the panel
            vectors.append([_dot(y_steps[4 - len(start) :], start) + v * across, kept if across > 1 else column])
            for i, tap in enumerate(section.taps[member]):
                to = panels[-1][1] + column + i * channels * beside
                weights.append([_dot(w_steps[2:], tap) + v * across * w_steps[0], to, kept])
    members = sum(prod(section.grid) * len(section.starts) for section in sums.sections)
    if across > 1:
        streamed = samples * members * outputs * itemsize >= LARGE and taps * channels >= ENOUGH
        whole = 0 if outputs % across else 1 + streamed
    else:
        whole = int(outputs == len(vectors) == wide == distance((samples, *sections[0][:3]), y_steps))
    asks = sums.apart and (across > 1 or samples * image_steps[0] * itemsize >= LARGE)
    threes = channels if shared and len(stages) == 1 else 0
    chunks = -(-samples * max(prod(row[:3]) for row in sections) // POSITIONS)
    groups = max(1, min(len(panels), 4 * threads // max(chunks, 1)))
    return Plan(
        _table(sections, 5), _table(panels, 4), _table(stages, 3), _table(runs, 2), _table(vectors, 2), _table(sorted(weights), 3),
        as_triple(sums.stride, 1), as_triple(sums.step, 1), asks, threes, block, rows, across, beside, whole,
        (max(len(section.starts) for section in sums.sections), each * across),
        packed + CACHE_LINE // itemsize, w_steps[:2], chunks, groups, (threads, 2, POSITIONS + 2 * rows),
    )  # fmt: skip


def _dot(a: Iterable[int], b: Iterable[int]) -> int:
    return sum(i * j for i, j in zip(a, b, strict=True))


def _table(rows: list[list[int]], columns: int) -> Any:
    return np.array(rows, np.int64).reshape(-1, columns)


@njit(nogil=True, cache=True)
def _pack(mine, weights, w, o_step, c_step, channels, packed, across, beside, zero):  # type: ignore[no-untyped-def]
    """(o, c, tap) → (panel, (tap, c), o within the panel), zeros beyond the last o. The next job reads what lies next in memory."""
    size = packed.itemsize
    parts = (channels + across - 1) // across
    for job in share(mine, len(weights) * parts):
        row, part = (job % len(weights), job // len(weights)) if o_step == 1 else (job // parts, job % parts)
        where, to, kept = weights[row]
        first = part * across
        source, out = w + size * (where + first * c_step), next_line(packed) + size * (to + first * beside)
        count = min(across, channels - first)
        if o_step == 1 and kept == across:  # a loop of its own, for vectors
            for c in range(count):
                for l in range(across):
                    poke(out, c * beside + l, peek(source, c * c_step + l, zero))
            continue
        if kept == count == across == VECTOR_BYTES // size and c_step == 1:
            transpose(source, o_step, out, beside, zero)
            continue
        for c in range(count):
            for l in range(across):
                poke(out, c * beside + l, peek(source, c * c_step + l * o_step, zero) if l < kept else zero)


@njit(cache=True)
def _fill(places, image, stride, y, step, grid, low, high, rows, size):  # type: ignore[no-untyped-def]
    """The addresses of windows low … high − 1, and of their results with start 0; the last is repeated to fill a block of `rows`, and one
    more, which the micro-kernel asks for beforehand."""
    depth, height, width = grid[0], grid[1], grid[2]
    p = low
    while p < high:
        line, w = p // width, p % width
        n, d, h = line // (depth * height), line // height % depth, line % height
        count = min(high - p, width - w)
        a = image[0] + size * (n * image[1] + stride[0] * d * image[2] + stride[1] * h * image[3] + stride[2] * w * image[4])
        c = y[0] + size * (n * y[1] + step[0] * d * y[2] + step[1] * h * y[3] + step[2] * w * y[4])
        a_step, c_step = size * stride[2] * image[4], size * step[2] * y[4]
        of_windows, of_results = places[0, p - low :], places[1, p - low :]
        for i in range(count):
            of_windows[i] = a + i * a_step
        for i in range(count):
            of_results[i] = c + i * c_step
        p += count
    for i in range(high - low, high - low + 2 * rows):
        places[0, i], places[1, i] = places[0, high - low - 1], places[1, high - low - 1]


@njit(nogil=True, cache=True)
def _sum(  # type: ignore[no-untyped-def]
    mine, image, stride, asks, threes, sections, panels, stages, runs, packed, bias, y, samples, step, vectors, whole, chunks, groups,
    places, block, rows, across, beside, relu, zero
):  # fmt: skip
    """One task: a chunk of the windows, for some of the panels."""
    size = packed.itemsize
    own = places[get_thread_id()]
    a, c = own[0].ctypes.data, own[1].ctypes.data
    for task in share(mine, chunks * groups):
        chunk, group = task // groups, task % groups
        filled, low, high = -1, 0, 0  # the section whose addresses `own` has
        first_panel, last_panel = len(panels) * group // groups, len(panels) * (group + 1) // groups
        for panel in range(first_panel, last_panel):
            number, begin, vector, column = panels[panel]
            grid, first_stage, count_of_stages = sections[number, :3], sections[number, 3], sections[number, 4]
            if number != filled:
                total = samples * grid[0] * grid[1] * grid[2]
                low, high, filled = total * chunk // chunks, total * (chunk + 1) // chunks, number
                if low < high:
                    _fill(own, image, stride, y, step, grid, low, high, rows, size)
            for stage in range(first_stage, first_stage + count_of_stages):
                run, count, row = stages[stage]
                asked = 0
                if asks and across > 1:
                    asked = count
                elif asks and panel == first_panel:
                    asked = runs[run, 1]
                first, last = int(stage == first_stage), stage == first_stage + count_of_stages - 1
                b = next_line(packed) + size * (begin + row * beside)
                multiply_runs(
                    block, a, runs.ctypes.data + 2 * PLACE * run, count, asked, threes, b, c, high - low,
                    vectors.ctypes.data + 2 * PLACE * vector, min(whole, 1 + last), bias.ctypes.data + size * across * column, first,
                    relu if last else 0, zero,
                )  # fmt: skip
        if whole == 2:
            settle()
