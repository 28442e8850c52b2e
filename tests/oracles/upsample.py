"""Oracle of interpolation: one output element at a time, from its position in the input."""

import itertools
import math

import numpy as np


def _terms(i, n, out, step, mode, align_corners):
    """(place, weight) pairs of the input elements that make output element i of one axis."""
    if n == out:
        return [(i, 1.0)]
    if mode.startswith("nearest"):
        centre = 0.5 if mode == "nearest-exact" else 0.0
        position = (np.float32(i) + np.float32(centre)) * np.float32(step)  # PyTorch computes it in float32
        return [(min(math.floor(position), n - 1), 1.0)]
    if align_corners:
        position = 0.0 if out == 1 else i * (n - 1) / (out - 1)
    else:
        position = (i + 0.5) * step - 0.5
    position = min(max(position, 0.0), n - 1.0)
    return [(j, 1 - abs(position - j)) for j in range(n) if abs(position - j) < 1]  # a triangle of width 2


def interpolate(x, size=None, scale_factor=None, mode="nearest", align_corners=None, recompute_scale_factor=None):
    spatial = x.shape[2:]
    rank = len(spatial)
    scales = [None] * rank
    if size is not None:
        sizes = size if isinstance(size, tuple) else (size,) * rank
    else:
        scales = scale_factor if isinstance(scale_factor, tuple) else (scale_factor,) * rank
        sizes = [math.floor(n * scale) for n, scale in zip(spatial, scales, strict=True)]
    y = np.zeros((*x.shape[:2], *sizes))
    for place in np.ndindex(*sizes):
        axes = []
        for i, n, out, scale in zip(place, spatial, sizes, scales, strict=True):
            step = n / out if scale is None or recompute_scale_factor else 1 / scale
            axes.append(_terms(i, n, out, step, mode, align_corners))
        for terms in itertools.product(*axes):
            source, weights = zip(*terms, strict=True)
            y[(..., *place)] += math.prod(weights) * x[(..., *source)]
    return y
