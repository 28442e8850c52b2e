"""Convolution and transposed convolution, one output number at a time, from the index sums."""

from itertools import product

import numpy as np


def _tuple(value, rank):
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _same(n, k, s, d):
    total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
    return total // 2


def conv(x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1, activation=None):
    rank = w.ndim - 2
    if x.ndim == rank + 1:
        return conv(x[None], w, b, stride=stride, padding=padding, dilation=dilation, groups=groups, activation=activation)[0]
    s, d = _tuple(stride, rank), _tuple(dilation, rank)
    n, k = x.shape[2:], w.shape[2:]
    span = [d[a] * (k[a] - 1) + 1 for a in range(rank)]
    if padding == "same":
        front = [_same(n[a], k[a], s[a], d[a]) for a in range(rank)]
        out = [-(-n[a] // s[a]) for a in range(rank)]
    else:
        front = [0] * rank if padding == "valid" else _tuple(padding, rank)
        out = [(n[a] + 2 * front[a] - span[a]) // s[a] + 1 for a in range(rank)]
    y = np.zeros((x.shape[0], w.shape[0], *out))
    per_group_in, per_group_out = w.shape[1], w.shape[0] // groups
    for image, o, *p in product(range(x.shape[0]), range(w.shape[0]), *map(range, out)):
        total = 0.0 if b is None else b[o]
        for c, *t in product(range(per_group_in), *map(range, k)):
            i = [s[a] * p[a] + d[a] * t[a] - front[a] for a in range(rank)]
            if all(0 <= i[a] < n[a] for a in range(rank)):
                total += x[(image, o // per_group_out * per_group_in + c, *i)] * w[(o, c, *t)]
        y[(image, o, *p)] = max(total, 0.0) if activation == "relu" else total
    return y


def conv_transpose(x, w, b=None, *, stride=1, padding=0, output_padding=0, groups=1, dilation=1, activation=None):
    rank = w.ndim - 2
    if x.ndim == rank + 1:
        options = {"stride": stride, "padding": padding, "output_padding": output_padding, "groups": groups}
        return conv_transpose(x[None], w, b, **options, dilation=dilation, activation=activation)[0]
    s, d, extra = _tuple(stride, rank), _tuple(dilation, rank), _tuple(output_padding, rank)
    n, k = x.shape[2:], w.shape[2:]
    span = [d[a] * (k[a] - 1) + 1 for a in range(rank)]
    if padding == "same":
        front = [max(span[a] - s[a], 0) // 2 for a in range(rank)]
        out = [s[a] * n[a] for a in range(rank)]
    elif padding == "valid":
        front = [0] * rank
        out = [s[a] * n[a] + max(span[a] - s[a], 0) for a in range(rank)]
    else:
        front = _tuple(padding, rank)
        out = [(n[a] - 1) * s[a] - 2 * front[a] + span[a] + extra[a] for a in range(rank)]
    y = np.zeros((x.shape[0], w.shape[1] * groups, *out))
    per_group_in, per_group_out = w.shape[0] // groups, w.shape[1]
    for image, c, o, *p in product(range(x.shape[0]), range(w.shape[0]), range(per_group_out), *map(range, n)):
        for t in product(*map(range, k)):
            i = [s[a] * p[a] + d[a] * t[a] - front[a] for a in range(rank)]
            if all(0 <= i[a] < out[a] for a in range(rank)):
                y[(image, c // per_group_in * per_group_out + o, *i)] += x[(image, c, *p)] * w[(c, o, *t)]
    if b is not None:
        y += b.reshape(-1, *(1,) * rank)
    return np.maximum(y, 0) if activation == "relu" else y
