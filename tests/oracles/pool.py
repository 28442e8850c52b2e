"""Oracles of pooling: one window at a time."""

import itertools
import math

import numpy as np


def _each(value, rank):
    return tuple(value) if isinstance(value, tuple | list) else (value,) * rank


def _windows(spatial, kernel, stride, padding, dilation, ceil_mode):
    """For each axis: for each window, the places it reads (inside the input or not), and the end of the padded input."""
    axes = []
    for n, k, s, p, d in zip(spatial, kernel, stride, padding, dilation, strict=True):
        if p == "same":
            total = max((math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0)
            before, after = total // 2, total - total // 2
        else:
            before = after = 0 if p == "valid" else p
        starts = []
        start = -before
        while start + d * (k - 1) < n + after or (ceil_mode and start < n and start - s + d * (k - 1) + 1 < n + after):
            starts.append(start)
            start += s
        axes.append(([[start + d * j for j in range(k)] for start in starts], n + after))
    return axes


def _max_pool(rank, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    spatial = x.shape[-rank:]
    kernel = _each(kernel_size, rank)
    steps = kernel if stride is None else _each(stride, rank)
    axes = _windows(spatial, kernel, steps, _each(padding, rank), _each(dilation, rank), ceil_mode)
    outer = x.shape[:-rank]
    y = np.full(outer + tuple(len(windows) for windows, _ in axes), -np.inf)
    indices = np.full(y.shape, -1, dtype=np.int64)
    for place in np.ndindex(*y.shape):
        lead, window = place[: len(outer)], place[len(outer) :]
        for source in itertools.product(*(windows[p] for (windows, _), p in zip(axes, window, strict=True))):
            if any(not 0 <= i < n for i, n in zip(source, spatial, strict=True)):
                continue
            value = x[lead + source]
            if indices[place] < 0 or value > y[place] or math.isnan(value):
                y[place], indices[place] = value, np.ravel_multi_index(source, spatial)
    return (y, indices) if return_indices else y


def _avg_pool(rank, x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    spatial = x.shape[-rank:]
    kernel = _each(kernel_size, rank)
    steps = kernel if stride is None else _each(stride, rank)
    axes = _windows(spatial, kernel, steps, _each(padding, rank), (1,) * rank, ceil_mode)
    outer = x.shape[:-rank]
    y = np.empty(outer + tuple(len(windows) for windows, _ in axes))
    for place in np.ndindex(*y.shape):
        lead, window = place[: len(outer)], place[len(outer) :]
        total, inside, padded = 0.0, 0, 0
        for source in itertools.product(*(windows[p] for (windows, _), p in zip(axes, window, strict=True))):
            padded += all(i < end for i, (_, end) in zip(source, axes, strict=True))
            if all(0 <= i < n for i, n in zip(source, spatial, strict=True)):
                inside += 1
                total += x[lead + source]
        y[place] = total / (divisor_override or (padded if count_include_pad and padding != "same" else inside))
    return y


def max_pool1d(x, **options):
    return _max_pool(1, x, **options)


def max_pool2d(x, **options):
    return _max_pool(2, x, **options)


def max_pool3d(x, **options):
    return _max_pool(3, x, **options)


def avg_pool1d(x, **options):
    return _avg_pool(1, x, **options)


def avg_pool2d(x, **options):
    return _avg_pool(2, x, **options)


def avg_pool3d(x, **options):
    return _avg_pool(3, x, **options)
