"""Oracle of the Radon transform: the whole matrix A, one weight at a time, from the triangle that a pixel casts."""

import math

import numpy as np


def _matrix(height, width, angles, detectors, centre):
    """(angles, detectors, H, W)"""
    centre = detectors // 2 if centre is None else centre
    a = np.zeros((len(angles), detectors, height, width))
    for k, degrees in enumerate(angles):
        theta = math.radians(degrees)
        c = max(abs(math.cos(theta)), abs(math.sin(theta)))
        for j, v, u in np.ndindex(detectors, height, width):
            t = (u - width // 2) * math.cos(theta) - (v - height // 2) * math.sin(theta) + centre
            a[k, j, v, u] = max(0.0, 1 - abs(j - t) / c) / c
    return a


def radon(x, angles, detectors=None, centre=None):
    a = _matrix(*x.shape[-2:], angles, max(x.shape[-2:]) if detectors is None else detectors, centre)
    return np.einsum("kjvu,...vu->...kj", a, x)


def back_project(y, angles, size, centre=None):
    height, width = size if isinstance(size, tuple) else (size, size)
    return np.einsum("kjvu,...kj->...vu", _matrix(height, width, angles, y.shape[-1], centre), y)
