"""The losses in Numba: one pass over the logits forward and one backward, whatever their memory order.

The pixels of a sample are cut into chunks of fixed size, which run in parallel, and a chunk into blocks. A block's logits are copied
into rows, one a class, which stay in the first cache; there every step is a loop over one row, with no branches and few operands, so
that it becomes vector code. Sums are float64, one for every four columns of the rows; columns are joined in order, then chunks: the result
does not depend on the number of threads.

The backward computes the softmax again instead of reading a saved one: that moves fewer bytes, and keeps none.

Kernels see logits as an address and strides, all else densely, and an array of nothing where there is none: compiling one takes seconds,
and a memory order or an option must not ask for another.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from minunet import memory
from minunet.explog import exp, log1p
from minunet.simd import address, all_tasks, peek, poke, share

U = np.uintp  # an index that cannot be negative: Numba then asks nothing at each element

CHUNK = 8192  # pixels: some tens of microseconds of work
BLOCK = 512

Logits = tuple[int, int, int, int]  # address of the first; strides of samples, classes, pixels in elements


def _as_logits(x: Any) -> tuple[Any, Logits]:
    """(N, C, P), or a copy where it does not lie on multiples of its elements, and how a kernel sees it."""
    if any(s % x.itemsize for s in x.strides) or not x.flags.aligned:
        x = x.copy()
    n, c, p = (s // x.itemsize for s in x.strides)
    return x, (address(x), n, c, p)


def _dense(array: Any) -> Any:
    return None if array is None else np.ascontiguousarray(array)


def _or_nothing(array: Any, rank: int, dtype: Any) -> Any:
    """The array, dense; in place of None one of no elements."""
    return np.empty((0,) * rank, dtype) if array is None else np.ascontiguousarray(array)


def _chunks(pixels: int) -> int:
    return -(-pixels // CHUNK)


def _empty_like(x: Any) -> Any:
    """(N, C, P), dense, with classes or pixels innermost as in x."""
    n, classes, pixels = x.shape
    if x.strides[1] < x.strides[2]:
        return memory.empty((n, pixels, classes), x.dtype).transpose(0, 2, 1)
    return memory.empty(x.shape, x.dtype)


def entropy(x: Any, target: Any, weight: Any, scale: Any, *, smoothing: float, ignored: int, each: bool) -> tuple[Any, Any, Any]:
    (n, channels, pixels), weight, scale = x.shape, _dense(weight), _or_nothing(scale, 2, x.dtype)
    losses = memory.empty((n, pixels) if each else (0, 0), x.dtype)
    sums = np.zeros((n, _chunks(pixels), 3))
    x, logits = _as_logits(x)
    _entropy(all_tasks(), logits, channels, _dense(target), weight, *_smoothed(weight, smoothing), scale, ignored, losses, sums)
    total, weights, unknown = sums.sum(axis=(0, 1))
    return losses if each else total, weights, unknown


def grad_entropy(x: Any, target: Any, weight: Any, factor: Any, gain: Any, *, smoothing: float, ignored: int) -> Any:
    gx, (_, channels, pixels), gain, weight = _empty_like(x), x.shape, x.dtype.type(gain), _dense(weight)
    (x, logits), (_, results) = _as_logits(x), _as_logits(gx)
    smoothed, factor = _smoothed(weight, smoothing), _or_nothing(factor, 2, x.dtype)
    _grad_entropy(all_tasks(), logits, channels, _dense(target), weight, *smoothed, factor, gain, ignored, _chunks(pixels), results)
    return gx


def _smoothed(weight: Any, smoothing: float) -> tuple[Any, Any, Any]:
    """How much of the true class's weight stays with it, what every class gets (C,), and the sum of that."""
    one = weight.dtype.type(1)
    if not smoothing:
        return one, np.zeros_like(weight), 0 * one
    spread = (weight * (smoothing / max(len(weight), 1))).astype(weight.dtype)
    return weight.dtype.type(1 - smoothing), spread, spread.sum()


def overlap(x: Any, target: Any, classes: int, *, ignored: int) -> tuple[Any, Any]:
    n, channels, pixels = x.shape
    sums, unknown = np.zeros((n, _chunks(pixels), 3, classes)), np.zeros((n, _chunks(pixels)))
    x, logits = _as_logits(x)
    _overlap(all_tasks(), logits, channels, _dense(target), ignored, x.dtype, sums, unknown)
    return sums.sum(axis=1).swapaxes(0, 1), unknown.sum()


def grad_overlap(x: Any, target: Any, hit: Any, size: Any, *, ignored: int) -> Any:
    gx, (_, channels, pixels) = _empty_like(x), x.shape
    (x, logits), (_, results) = _as_logits(x), _as_logits(gx)
    _grad_overlap(all_tasks(), logits, channels, _dense(target), _dense(hit), _dense(size), ignored, _chunks(pixels), results)
    return gx


def binary_entropy(x: Any, target: Any, positive: Any, *, each: bool) -> Any:
    losses = memory.empty(x.shape if each else (0,), x.dtype)
    sums = np.zeros(_chunks(len(x)))
    _binary_entropy(all_tasks(), _dense(x), _dense(target), _dense(positive), losses, sums)
    return losses if each else sums.sum()


def grad_binary_entropy(x: Any, target: Any, positive: Any, factor: Any, gain: Any) -> Any:
    gx = memory.empty(x.shape, x.dtype)
    gain, factor = x.dtype.type(gain), _or_nothing(factor, 1, x.dtype)
    _grad_binary_entropy(all_tasks(), _dense(x), _dense(target), _dense(positive), factor, gain, _chunks(len(x)), gx)
    return gx


@njit(inline="always")
def _in_pairs(x, channels):  # type: ignore[no-untyped-def]
    """Do the two logits of a pixel lie side by side, and pixels one behind the other? A loop over pairs becomes vector code, which one
    over every second number does not."""
    return channels == 2 and x[2] == 1 and x[3] == 2


@njit(nogil=True, cache=True)
def _load_logits(x, channels, n, start, stop, z):  # type: ignore[no-untyped-def]
    """z[c]: the logits of class c of pixels start … stop − 1. Where x has a channel less than z has rows, row 0 is 0."""
    first, zero = z.shape[0] - channels, z.dtype.type(0)
    if _in_pairs(x, channels):
        a, b, pairs = z[0], z[1], x[0] + z.itemsize * (n * x[1] + 2 * start)
        for i in range(stop - start):
            a[i], b[i] = peek(pairs, 2 * i, zero), peek(pairs, 2 * i + 1, zero)
        return
    z[:first] = 0
    for c in range(first, z.shape[0]):
        row, channel = z[c], x[0] + z.itemsize * (n * x[1] + (c - first) * x[2] + start * x[3])
        if x[3] == 1:  # a loop of its own, for vectors
            for i in range(stop - start):
                row[i] = peek(channel, i, zero)
        else:
            for i in range(stop - start):
                row[i] = peek(channel, i * x[3], zero)


@njit(nogil=True, cache=True)
def _load(x, channels, target, n, start, stop, ignored, z, k):  # type: ignore[no-untyped-def]
    """z[c]: as `_load_logits`, k: the pixels' class numbers, −1 where ignored. Returns how many numbers are of no class."""
    _load_logits(x, channels, n, start, stop, z)
    classes, numbers, lowest, unknown = z.shape[0], target[n, start:stop], np.int32(0), 0
    for i in range(stop - start):
        number = np.int32(numbers[i]) if np.uint64(numbers[i]) < np.uint64(classes) else np.int32(-1)
        k[i] = number
        lowest = number if number < lowest else lowest
    if lowest < 0 or 0 <= ignored < classes:
        for i in range(stop - start):
            if numbers[i] == ignored:
                k[i] = -1
            elif k[i] < 0:
                unknown += 1
    return unknown


@njit(nogil=True, cache=True)
def _add(values, count, sums):  # type: ignore[no-untyped-def]
    """sums[i] += some of the first `count` values: first four by four in their own dtype, which is fast, then in float64.

    Losses of more than a quarter of the largest float32 overflow so.
    """
    quarter = U(len(sums))
    for i in range(count, len(values)):
        values[i] = 0
    for i in range(quarter):
        sums[i] += (values[i] + values[i + quarter]) + (values[i + U(2) * quarter] + values[i + U(3) * quarter])


@njit(nogil=True, cache=True)
def _store(z, channels, n, start, stop, gx):  # type: ignore[no-untyped-def]
    first = z.shape[0] - channels
    if _in_pairs(gx, channels):
        a, b, pairs = z[0], z[1], gx[0] + z.itemsize * (n * gx[1] + 2 * start)
        for i in range(stop - start):
            poke(pairs, 2 * i, a[i])
            poke(pairs, 2 * i + 1, b[i])
        return
    for c in range(first, z.shape[0]):
        row, channel = z[c], gx[0] + z.itemsize * (n * gx[1] + (c - first) * gx[2] + start * gx[3])
        if gx[3] == 1:
            for i in range(stop - start):
                poke(channel, i, row[i])
        else:
            for i in range(stop - start):
                poke(channel, i * gx[3], row[i])


@njit(nogil=True, cache=True)
def _log_total(z, count, top, rest):  # type: ignore[no-untyped-def]
    """top: the largest logit m; rest: Σ e^(z − m) over all the others. ln Σ e^z is m + ln(1 + rest), exact however sure the network is.
    The rows may be left in another order."""
    first = z[0]
    if z.shape[0] == 2:
        second = z[1]
        for i in range(count):
            a, b = first[i], second[i]
            best = a if a > b else b
            top[i], rest[i] = best, exp(-abs(a - b)) + (best - best)  # best − best: 0; NaN where it is infinite
        return
    for i in range(count):
        top[i] = first[i]
    for c in range(1, z.shape[0]):
        row = z[c]
        for i in range(count):
            value, best = row[i], top[i]
            top[i] = value if value > best else best
            row[i] = best if value > best else value
    for i in range(count):
        rest[i] = top[i] - top[i]  # 0; NaN where m is infinite
    for c in range(1, z.shape[0]):
        row = z[c]
        for i in range(count):
            rest[i] += exp(row[i] - top[i])


@njit(nogil=True, cache=True, error_model="numpy")
def _softmax(z, count, top, inverse):  # type: ignore[no-untyped-def]
    """z[c] ← e^(z[c] − m), inverse ← 1 / Σ of them: their product is p. m, the largest logit, keeps the exponents from overflowing.
    Of two classes, one has the exponential 1."""
    one, first = z.dtype.type(1), z[0]
    if z.shape[0] == 2:
        second = z[1]
        for i in range(count):
            d = second[i] - first[i]
            e = exp(-abs(d))
            first[i], second[i] = (e, one) if d > one - one else (one, e)
            inverse[i] = one / (one + e)
        return
    for i in range(count):
        top[i] = first[i]
        inverse[i] = one - one
    for c in range(1, z.shape[0]):
        row = z[c]
        for i in range(count):
            top[i] = row[i] if row[i] > top[i] else top[i]
    for c in range(z.shape[0]):
        row = z[c]
        for i in range(count):
            e = exp(row[i] - top[i])
            inverse[i] += e
            row[i] = e
    for i in range(count):
        inverse[i] = one / inverse[i]


@njit(nogil=True, cache=True)
def _entropy(mine, x, channels, target, weight, keep, spread, all_spread, scale, ignored, losses, sums):  # type: ignore[no-untyped-def]
    classes, pixels, chunks, dtype = len(weight), target.shape[1], sums.shape[1], weight.dtype
    zero = dtype.type(0)
    for item in share(mine, len(target) * chunks):
        n, chunk = item // chunks, item % chunks
        z, k = np.empty((classes, BLOCK), dtype), np.empty(BLOCK, np.int32)
        top, rest, true = np.empty(BLOCK, dtype), np.empty(BLOCK, dtype), np.empty(BLOCK, dtype)
        w, other = np.empty(BLOCK, dtype), np.empty(BLOCK, dtype)
        loss_sums, weight_sums = np.zeros(BLOCK // 4), np.zeros(BLOCK // 4)
        for start in range(chunk * CHUNK, min((chunk + 1) * CHUNK, pixels), BLOCK):
            stop = min(start + BLOCK, pixels)
            count = stop - start
            sums[n, chunk, 2] += _load(x, channels, target, n, start, stop, ignored, z, k)
            for i in range(count):
                w[i] = true[i] = other[i] = zero
            for c in range(classes):
                row, number, w_c, spread_c = z[c], np.int32(c), weight[c], spread[c]
                for i in range(count):
                    true[i] += row[i] if k[i] == number else zero
                    w[i] += w_c if k[i] == number else zero
                if all_spread != zero:
                    for i in range(count):
                        other[i] += spread_c * row[i]
            _log_total(z, count, top, rest)
            for i in range(count):
                loss = (keep * w[i] + all_spread) * log1p(rest[i]) + keep * w[i] * (top[i] - true[i])
                rest[i] = zero if k[i] < 0 else loss
            if all_spread != zero:
                for i in range(count):
                    rest[i] += zero if k[i] < 0 else all_spread * top[i] - other[i]
            if scale.size > 0:
                scales = scale[n, start:stop]
                for i in range(count):
                    rest[i] *= scales[i]
                    w[i] *= scales[i]
            if losses.size > 0:
                losses[n, start:stop] = rest[:count]
            _add(rest, count, loss_sums)
            _add(w, count, weight_sums)
        sums[n, chunk, 0], sums[n, chunk, 1] = loss_sums.sum(), weight_sums.sum()


@njit(nogil=True, cache=True)
def _grad_entropy(mine, x, channels, target, weight, keep, spread, all_spread, factor, gain, ignored, chunks, gx):  # type: ignore[no-untyped-def]
    classes, pixels, dtype = len(weight), target.shape[1], weight.dtype
    zero = dtype.type(0)
    for item in share(mine, len(target) * chunks):
        n, chunk = item // chunks, item % chunks
        z, k = np.empty((classes, BLOCK), dtype), np.empty(BLOCK, np.int32)
        top, inverse = np.empty(BLOCK, dtype), np.empty(BLOCK, dtype)
        g, w = np.empty(BLOCK, dtype), np.empty(BLOCK, dtype)
        for start in range(chunk * CHUNK, min((chunk + 1) * CHUNK, pixels), BLOCK):
            stop = min(start + BLOCK, pixels)
            count = stop - start
            _load(x, channels, target, n, start, stop, ignored, z, k)
            _softmax(z, count, top, inverse)
            for i in range(count):
                g[i], w[i] = zero if k[i] < 0 else gain, zero
            if factor.size > 0:
                factors = factor[n, start:stop]
                for i in range(count):
                    g[i] *= factors[i]
            for c in range(classes):
                number, w_c = np.int32(c), weight[c]
                for i in range(count):
                    w[i] += w_c if k[i] == number else zero
            for i in range(count):
                w[i] *= keep * g[i]
                inverse[i] *= w[i] + all_spread * g[i]
            for c in range(classes - channels, classes):  # those that x has a channel for
                row, number, spread_c = z[c], np.int32(c), spread[c]
                for i in range(count):
                    row[i] = row[i] * inverse[i] - (w[i] if k[i] == number else zero) - spread_c * g[i]
            _store(z, channels, n, start, stop, gx)


@njit(nogil=True, cache=True)
def _overlap(mine, x, channels, target, ignored, dtype, sums, unknown):  # type: ignore[no-untyped-def]
    classes, pixels, chunks = sums.shape[3], target.shape[1], sums.shape[1]
    zero = dtype.type(0)
    for item in share(mine, len(target) * chunks):
        n, chunk = item // chunks, item % chunks
        z, k = np.empty((classes, BLOCK), dtype), np.empty(BLOCK, np.int32)
        top, inverse, hit = np.empty(BLOCK, dtype), np.empty(BLOCK, dtype), np.empty(BLOCK, dtype)
        totals = np.zeros((2, classes, BLOCK // 4))
        for start in range(chunk * CHUNK, min((chunk + 1) * CHUNK, pixels), BLOCK):
            stop = min(start + BLOCK, pixels)
            count = stop - start
            unknown[n, chunk] += _load(x, channels, target, n, start, stop, ignored, z, k)
            _softmax(z, count, top, inverse)
            for c in range(classes):
                row, number, true = z[c], np.int32(c), np.int32(0)
                for i in range(count):
                    p = row[i] * inverse[i]
                    hit[i] = p if k[i] == number else zero
                    row[i] = zero if k[i] < 0 else p
                for i in range(count):
                    true += np.int32(k[i] == number)
                _add(hit, count, totals[0, c])
                _add(row, count, totals[1, c])
                sums[n, chunk, 2, c] += true
        for i in range(2):
            for c in range(classes):
                sums[n, chunk, i, c] = totals[i, c].sum()


@njit(nogil=True, cache=True)
def _grad_overlap(mine, x, channels, target, hit, size, ignored, chunks, gx):  # type: ignore[no-untyped-def]
    classes, pixels, dtype = hit.shape[1], target.shape[1], hit.dtype
    zero = dtype.type(0)
    for item in share(mine, len(target) * chunks):
        n, chunk = item // chunks, item % chunks
        z, k = np.empty((classes, BLOCK), dtype), np.empty(BLOCK, np.int32)
        top, inverse, mean = np.empty(BLOCK, dtype), np.empty(BLOCK, dtype), np.empty(BLOCK, dtype)
        for start in range(chunk * CHUNK, min((chunk + 1) * CHUNK, pixels), BLOCK):
            stop = min(start + BLOCK, pixels)
            count = stop - start
            _load(x, channels, target, n, start, stop, ignored, z, k)
            _softmax(z, count, top, inverse)
            for i in range(count):
                inverse[i], mean[i] = zero if k[i] < 0 else inverse[i], zero
            for c in range(classes):
                row, number, hit_c, size_c = z[c], np.int32(c), hit[n, c], size[n, c]
                for i in range(count):
                    row[i] *= inverse[i]
                    mean[i] += row[i] * ((hit_c if k[i] == number else zero) + size_c)
            for c in range(classes):
                row, number, hit_c, size_c = z[c], np.int32(c), hit[n, c], size[n, c]
                for i in range(count):
                    row[i] *= (hit_c if k[i] == number else zero) + size_c - mean[i]
            _store(z, channels, n, start, stop, gx)


@njit(nogil=True, cache=True)
def _if_true(target, positive, start, stop, p):  # type: ignore[no-untyped-def]
    """How much each counts as true: the target, times the weight of what is true where there is one. In p, or where it lies."""
    targets = target[start:stop]
    if positive is None:  # a kernel of its own: the common case has one array less to read
        return targets
    for i in range(stop - start):
        p[i] = positive[start + i] * targets[i]
    return p[: stop - start]


@njit(nogil=True, cache=True)
def _binary_entropy(mine, x, target, positive, losses, sums):  # type: ignore[no-untyped-def]
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for chunk in share(mine, len(sums)):
        row, p, loss_sums = np.empty(BLOCK, x.dtype), np.empty(BLOCK, x.dtype), np.zeros(BLOCK // 4)
        for start in range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(x)), BLOCK):
            stop = min(start + BLOCK, len(x))
            logits, targets, true = x[start:stop], target[start:stop], _if_true(target, positive, start, stop, p)
            for i in range(stop - start):
                z = logits[i]
                row[i] = (one - targets[i] + true[i]) * log1p(exp(-abs(z))) + ((one - targets[i]) * z if z > zero else -true[i] * z)
            if losses.size > 0:
                losses[start:stop] = row[: stop - start]
            _add(row, stop - start, loss_sums)
        sums[chunk] = loss_sums.sum()


@njit(nogil=True, cache=True, error_model="numpy")
def _grad_binary_entropy(mine, x, target, positive, factor, gain, chunks, gx):  # type: ignore[no-untyped-def]
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for chunk in share(mine, chunks):
        p = np.empty(BLOCK, x.dtype)
        for start in range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(x)), BLOCK):
            stop = min(start + BLOCK, len(x))
            logits, targets, true = x[start:stop], target[start:stop], _if_true(target, positive, start, stop, p)
            out = gx[start:stop]
            for i in range(stop - start):
                z = logits[i]
                e = exp(-abs(z))
                out[i] = gain * ((one - targets[i] + true[i]) * ((e if z < zero else one) / (one + e)) - true[i])
            if factor.size > 0:
                for i in range(stop - start):
                    out[i] *= factor[start + i]
