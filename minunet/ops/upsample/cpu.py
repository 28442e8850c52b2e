"""Resampling with Numba: channels-last, rank 1 and 2 as volumes with axes of size 1.

Parallel over rows of the output. Two rows of the input by two places in each, as in bilinear interpolation, are summed in one pass over
the channels. Else a row first sums the rows that it reads, weighted, into a line of the input's width, and then resamples that line.
Where a pixel has too few channels to fill a vector, the line is resampled number by number, through a table for all of them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit, uint64

from minunet import memory
from minunet.arrays import as_volume, channels_first, in_place
from minunet.ops.upsample.tables import Table, gather_table
from minunet.simd import all_tasks, share

FEW_CHANNELS = 8  # fewer do not fill a vector


def resample(x: Any, tables: tuple[Table, ...]) -> Any:
    flat, steps = in_place(x)
    channels = x.shape[1]
    few = channels < FEW_CHANNELS
    y = memory.empty((x.shape[0], *(len(table.source) for table in tables), channels), x.dtype)
    arrays = _arrays(tables, x.dtype, channels if few else 1)
    _resample(all_tasks(), flat, steps, x.shape[-1], as_volume(y).shape, y.reshape(-1), *arrays, few)
    return channels_first(y)


@lru_cache(maxsize=128)  # a network asks for the same few in every step
def _arrays(tables: tuple[Table, ...], dtype: Any, channels: int) -> tuple[Any, ...]:
    """Sources and weights for three axes; channels: of those that are resampled number by number, on the last axis."""
    axes = (gather_table(np.zeros(1)),) * (3 - len(tables)) + tables
    (jd, wd), (jh, wh), (jw, ww) = ((table.source, table.weight.astype(dtype)) for table in axes)
    jw = (jw[:, None, :] * channels + np.arange(channels)[:, None]).reshape(-1, jw.shape[1])  # each number is an output of its own
    return jd, wd, jh, wh, jw.T.copy(), ww.repeat(channels, axis=0).T.copy()


@njit(nogil=True, cache=True)
def _resample(mine, x, steps, width, shape, y, jd, wd, jh, wh, jw, ww, few):  # type: ignore[no-untyped-def]
    """jd, jh: (outputs, terms), jw: (terms, outputs)."""
    samples, out_d, out_h, out_w, channels = shape
    terms, row_length = jw.shape[0], out_w * channels
    for row in share(mine, samples * out_d * out_h):
        n, q, r = row // (out_d * out_h), row // out_h % out_d, row % out_h
        starts, weights, count = np.zeros(jd.shape[1] * jh.shape[1], np.int64), np.zeros(jd.shape[1] * jh.shape[1], y.dtype), 0
        for td in range(jd.shape[1]):
            for th in range(jh.shape[1]):
                if wd[q, td] * wh[r, th] != 0:
                    starts[count] = n * steps[0] + jd[q, td] * steps[1] + jh[r, th] * steps[2]
                    weights[count] = wd[q, td] * wh[r, th]
                    count += 1
        first = row * row_length
        if count == 2 and terms == 2 and not few:
            i, j, a, b = starts[0], starts[1], weights[0], weights[1]
            for s in range(out_w):
                at, p0, p1 = first + s * channels, jw[0, s] * steps[3], jw[1, s] * steps[3]
                i0, i1, j0, j1 = i + p0, i + p1, j + p0, j + p1
                a0, a1, b0, b1 = a * ww[0, s], a * ww[1, s], b * ww[0, s], b * ww[1, s]
                for c in range(channels):
                    upper = a0 * x[uint64(i0 + c)] + a1 * x[uint64(i1 + c)]
                    y[uint64(at + c)] = upper + (b0 * x[uint64(j0 + c)] + b1 * x[uint64(j1 + c)])
            continue
        line, start, step, scale = x, starts[0], steps[3], weights[0]  # one row is read where it lies
        if count != 1 or (few and step != channels):
            line = _weighted_sum(x, starts[:count], weights[:count], steps[3], width, channels)
            start, step, scale = 0, channels, y.dtype.type(1)
        if few:
            for t in range(terms):
                for i in range(row_length):
                    term = scale * ww[t, i] * line[uint64(start + jw[t, i])]
                    y[uint64(first + i)] = term + (y[uint64(first + i)] if t > 0 else 0)
            continue
        for s in range(out_w):
            at = first + s * channels
            for t in range(0, terms, 2):
                a, i0 = scale * ww[t, s], start + jw[t, s] * step
                if terms == 1:
                    for c in range(channels):
                        y[uint64(at + c)] = a * line[uint64(i0 + c)]
                    continue
                other = min(t + 1, terms - 1)
                b, i1 = scale * ww[other, s] if other > t else 0 * scale, start + jw[other, s] * step
                if t == 0:
                    for c in range(channels):
                        y[uint64(at + c)] = a * line[uint64(i0 + c)] + b * line[uint64(i1 + c)]
                else:
                    for c in range(channels):
                        y[uint64(at + c)] += a * line[uint64(i0 + c)] + b * line[uint64(i1 + c)]


@njit(cache=True)
def _weighted_sum(x, starts, weights, step, width, channels):  # type: ignore[no-untyped-def]
    """Rows of x, each `width` pixels apart by `step`, times their weights, added up in a line of pixels side by side."""
    line = np.zeros(width * channels, x.dtype)
    run = width * channels if step == channels else channels  # numbers side by side in x
    for k in range(0, starts.size, 2):
        other = min(k + 1, starts.size - 1)
        a, b = weights[k], weights[other] if other > k else 0 * weights[k]
        for i in range(width * channels // run):
            at, i0, i1 = i * run, starts[k] + i * step, starts[other] + i * step
            for c in range(run):
                line[uint64(at + c)] += a * x[uint64(i0 + c)] + b * x[uint64(i1 + c)]
    return line
