"""Filters in the frequency domain by the sums of the transform, one frequency and one element at a time."""

import numpy as np


def fourier_filter(x, gain):
    spatial = x.shape[2:]
    gain = np.broadcast_to(gain, x.shape)
    places = list(np.ndindex(*spatial))
    y = np.zeros(x.shape)
    for n, c in np.ndindex(*x.shape[:2]):
        for k in places:
            turn = {p: 2 * np.pi * sum(i * j / size for i, j, size in zip(k, p, spatial, strict=True)) for p in places}
            amplitude = sum(x[(n, c, *p)] * np.exp(-1j * turn[p]) for p in places)
            for p in places:
                y[(n, c, *p)] += (gain[(n, c, *k)] * amplitude * np.exp(1j * turn[p])).real / len(places)
    return y
